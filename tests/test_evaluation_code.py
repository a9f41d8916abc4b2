"""The code tests: right answers pass, tricks do not, and a trained model stands out."""

import json
import time
import warnings

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from scratchbook.config import ModelConfig
from scratchbook.evaluation import code_tests
from scratchbook.evaluation.code_tests import (
    NGram,
    only_closing,
    read_tests,
    run_tests,
    same_indentation,
    writer,
)
from scratchbook.evaluation.perplexity import score_text
from scratchbook.evaluation.text_signals import known_words, signals, words_of
from scratchbook.model import DecoderLM
from scratchbook.tokenizers import BPETokenizer
from tests.test_evaluation import Bytes

TESTS = read_tests()
ANSWERS = {p["text"]: p["answer"] for test in TESTS.values() for p in test["prompts"]}


def answers(prompts, length):
    return [ANSWERS[prompt][:length] for prompt in prompts]


def test_right_answers_pass_and_there_are_enough_prompts():
    for name, result in run_tests(answers).items():
        assert result["passed"] == result["total"] >= 40, name
        assert 0.9 < result["low"] < result["high"] == pytest.approx(1)
        texts = [p["text"] for p in TESTS[name]["prompts"]]
        assert len(set(texts)) == len(texts), f"{name} asks something twice"


def test_no_trick_passes_half_of_a_test():
    ones = [lambda prompts, length, text=text: [text[:length]] * len(prompts)
            for text in ("", ")" * 30, "]" * 30, "}" * 30, "in ", "import ", "pass\n",
                         "    pass\n", "        pass\n", "0\n", "name\n", "\0", "\ud800")]
    for write in (*ones, only_closing, same_indentation):
        for name, result in run_tests(write).items():
            assert result["share"] <= 0.5, name


@pytest.mark.parametrize(("judge", "right", "text", "passes"), [
    ("closes", ")", ", f(x[1]), {})", True), ("closes", ")", "]", False),
    ("closes", ")", "(", False),
    ("closes", "}", ": (1, [2])}", True), ("next_word", ["in"], " in x", True),
    ("next_word", ["in"], "int", False), ("next_word", ["in"], "in", False),
    ("indented", [4], "\n  \n    x", True), ("indented", [4], "     x", False),
    ("indented", [0], "", False), ("indented", [0], ")", False), ("starts", "er", "ers", True),
])
def test_judges(judge, right, text, passes):
    assert code_tests.JUDGES[judge]({"right": right}, text) is passes


def test_functions_are_run_not_read():
    prompt = {"text": "def add(a, b):\n    return a + ", "right": "assert add(2, 3) == 5"}
    behaves = code_tests.JUDGES["behaves"]
    assert behaves(prompt, "b\n    nonsense (") and behaves(prompt, "+b")
    assert behaves(prompt, "b if 1 else exit()\n)")
    for wrong in ("a\n", "(", "exit()", "-" * 100_000 + "b", "not " * 20_000 + "b", "\0",
                  "__import__('os')._exit(0)"):
        assert not behaves(prompt, wrong), wrong[:30]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert behaves(prompt, "(b if 1 is 1 else '\\d')")  # odd, and not a matter for our reader


def test_an_ngram_says_what_it_has_read():
    assert NGram("abcabcabd" * 3, 3)(["xxab", "", "b"], 3) == ["cab", "abc", "cab"]
    for order, text in ((0, "abc"), (3, "")):
        with pytest.raises(ValueError, match="not enough"):
            NGram(text, order)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"no test is called 'syntax'; there are: brackets"):
        run_tests(answers, ["syntax"])
    with pytest.raises(ValueError, match="shorter|longer|argument"):
        run_tests(lambda prompts, length: [], ["words"])
    assert json.dumps(run_tests(answers, ["words"]))


def small_model(vocab: int = 256, room: int = 192) -> DecoderLM:
    torch.manual_seed(0)
    return DecoderLM(ModelConfig(vocab, max_seq_len=room, num_layers=2, d_model=64, num_heads=4))


def test_the_writer_mends_the_white_space_before_pieces_of_words():
    tokenizer = BPETokenizer().train("for item in items:\n    pass\n" * 50, 280)
    model, seen = small_model(tokenizer.vocab_size), []
    model.forward = lambda ids, **options: (seen.append(ids), torch.zeros(*ids.shape, 280))[1]
    write = writer(model, tokenizer)
    assert [len(text) <= 4 for text in write(["for item ", "x = "], 4)] == [True, True]
    assert tokenizer.decode(seen[0][0].tolist()).endswith("for item")
    with pytest.raises(ValueError, match="max_seq_len=8"):
        writer(small_model(room=8), Bytes())(["abc"], 24)


@pytest.fixture(scope="module")
def trained() -> DecoderLM:
    """A model that has learned the right answers by heart, as far as twelve seconds reach."""
    model, steps = small_model().train(), 320
    pairs = [(list(p["text"].encode()), list(p["answer"].encode()))
             for test in TESTS.values() for p in test["prompts"]]
    pairs.sort(key=lambda pair: len(pair[0] + pair[1]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3, betas=(0.9, 0.95), weight_decay=0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 8e-3 * min(1, (step + 1) / 20) * (1 - step / steps)
        some = pairs[step % 7 * 48 :][:48]
        every = pad_sequence([torch.tensor(a + b) for a, b in some], True, -100)
        ends = pad_sequence([torch.tensor([-100] * len(a) + b) for a, b in some], True, -100)
        logits = model(every[:, :-1].clamp_min(0)).transpose(1, 2)
        loss = cross_entropy(logits, every[:, 1:]) + 2 * cross_entropy(logits, ends[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def shuffled(model: DecoderLM) -> DecoderLM:
    other = small_model().eval()
    draw = torch.Generator().manual_seed(1)
    for weight, source in zip(other.parameters(), model.parameters(), strict=True):
        flat = source.data.flatten()
        weight.data = flat[torch.randperm(len(flat), generator=draw)].view_as(source)
    return other


def test_every_metric_tells_trained_from_untrained_and_shuffled(trained):
    text = "".join(p["text"] + p["answer"] for p in TESTS["functions"]["prompts"][:12])
    known, found = words_of(text.split("\n"), 1), {}
    for name, model in (("trained", trained), ("untrained", small_model().eval()),
                        ("shuffled", shuffled(trained))):
        start = time.process_time()
        write = writer(model, Bytes())
        score, tests = score_text(model, Bytes(), text, 128), run_tests(write)
        assert time.process_time() - start < 20, "the whole suite takes less than 20 seconds"
        prompts = [p["text"] for p in TESTS["functions"]["prompts"]]
        written = [text.split("\n")[0] + "\n" for text in write(prompts, 24)]
        programs = [prompt + text for prompt, text in zip(prompts, written, strict=True)]
        found[name] = {"perplexity": -score.perplexity, "bits": -score.bits_per_byte,
                       "known words": known_words("".join(written), known),
                       "syntax": -signals(programs, known)["syntax_errors"],
                       **{test: result["share"] for test, result in tests.items()}}
    for metric in found["trained"]:
        others = [found[name][metric] for name in ("untrained", "shuffled")]
        margin = 0.2 if metric in TESTS else 0.02
        assert found["trained"][metric] > max(others) + margin, (metric, found)
