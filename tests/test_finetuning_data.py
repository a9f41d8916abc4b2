"""What is learned of an example and what is only read: masks, cuts, batches, and bad lines."""

import json

import pytest
import torch
from torch.nn import functional as F

from scratchbook.config import ModelConfig
from scratchbook.finetuning.data import (
    Example,
    FineTuningData,
    encode_example,
    finetuning_data,
    load_examples,
    padded,
    parts_of,
)
from scratchbook.tokenizers import CharTokenizer
from scratchbook.training import ByteTokenizer, TrainConfig, evaluate, train
from tests.random_models import random_model

BYTES = ByteTokenizer()


def write(path, lines, bom=False):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8-sig" if bom else "utf-8")
    return path


def pairs(count=12, longest=9):
    return [{"prompt": f"{i} twice: ", "completion": "ab" * (1 + i % (longest // 2))}
            for i in range(count)]


def small_model(dropout=0.0):
    return random_model(ModelConfig(256, 48, 2, 16, 2, dropout=dropout), std=0.1)


def test_the_mask_of_a_small_example_by_hand():
    example = encode_example(parts_of({"prompt": "ab", "completion": "cd"}), BYTES)
    batch = padded([example, encode_example(parts_of({"text": "xyz"}), BYTES)])
    # read a b c, then predict: b is the prompt's, c and d are the answer; row two ends early
    assert batch.ids.tolist() == [[97, 98, 99], [120, 121, 0]]
    assert batch.targets.tolist() == [[-100, 99, 100], [121, 122, -100]]


def test_an_answer_ends_with_the_token_that_ends_texts():
    tokenizer = CharTokenizer().train("abcd ", special_tokens=["<|endoftext|>"])
    end = tokenizer.special_tokens["<|endoftext|>"]
    example = encode_example(parts_of({"prompt": "ab", "completion": "cd"}), tokenizer)
    assert example.ids[-1] == end and example.targets[-1] == end
    assert end not in example.ids[:-1]


def test_instructions_and_conversations_learn_answers_alone():
    parts = parts_of({"instruction": "Add.", "input": "1 2", "output": "3"})
    assert "".join(p.text for p in parts if not p.answer).count("###") == 3
    assert [p.text for p in parts if p.answer] == ["3"]
    same = [parts_of({"instruction": "Add.", "output": "3"} | more)
            for more in ({}, {"input": ""}, {"input": None})]
    assert same[0] == same[1] == same[2] and "Input" not in same[0][0].text
    talk = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "ho"}, {"role": "user", "content": "he"},
            {"role": "assistant", "content": "ha"}]
    assert [p.text for p in parts_of({"messages": talk}) if p.answer] == ["ho", "ha"]


def test_what_the_prompt_would_have_cost_changes_nothing():
    model = small_model()
    batch = padded([encode_example(parts_of(line), BYTES) for line in pairs(3)])
    logits = model(batch.ids).detach().requires_grad_()
    F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()).backward()
    silent = batch.targets == -100
    assert silent.any() and (logits.grad[silent] == 0).all()
    assert (logits.grad[~silent].abs().sum(-1) > 0).all()


def test_padding_changes_nothing():
    model = small_model()
    short, long = (encode_example(parts_of(line), BYTES)
                   for line in ({"prompt": "ab", "completion": "c"},
                                {"prompt": "abcdefgh", "completion": "ijklmnop"}))
    batch = padded([short, long])
    with torch.no_grad():
        together = model(batch.ids)[0, :2]
        filled = batch.ids.clone()
        filled[0, 2:] = 77
        assert torch.equal(model(filled)[0, :2], together)
        assert torch.allclose(model(padded([short]).ids)[0], together, atol=1e-6)


def test_every_epoch_reads_every_example_once():
    examples = [encode_example(parts_of(line), BYTES) for line in pairs(10)]
    data = FineTuningData(examples, examples[:2], seed=3)
    seen = [tuple(row.tolist()) for step in range(5) for row in data.batch(step, 4).ids]
    firsts = [tuple(b for b in row[:3]) for row in seen]
    assert len(set(firsts[:10])) == len(set(firsts[10:])) == 10 and firsts[:10] != firsts[10:]
    assert torch.equal(data.batch(4, 4).ids, FineTuningData(examples, examples[:2], 3)
                       .batch(4, 4).ids)
    assert data.steps(2, 4) == 5 and data.steps(0.01, 4) == 1
    assert data.longest(3).ids.shape[1] == max(len(e.ids) for e in examples) - 1


def test_a_run_that_was_broken_off_ends_like_one_that_was_not(tmp_path):
    data = finetuning_data(write(tmp_path / "d.jsonl", pairs()), BYTES, 40)
    config = TrainConfig(max_steps=7, batch_size=3, eval_every=5, checkpoint_every=2)
    whole, broken = small_model(dropout=0.1), small_model(dropout=0.1)
    train(whole, data, config)
    train(broken, data, config, tmp_path / "run", stop_after=3)
    broken = small_model(dropout=0.1)
    train(broken, data, config, tmp_path / "run")
    for one, other in zip(whole.parameters(), broken.parameters(), strict=True):
        assert torch.equal(one, other)
    changed = finetuning_data(write(tmp_path / "e.jsonl", pairs(11)), BYTES, 40)
    with pytest.raises(ValueError, match="holds another run"):
        train(broken, changed, config, tmp_path / "run")


def test_bits_per_byte_are_those_of_the_answers(tmp_path):
    data = finetuning_data(write(tmp_path / "d.jsonl", pairs()), BYTES, 40)
    assert data.bytes_per_token == 1  # every target is a byte of an answer
    tokenizer = CharTokenizer().train("éab twice:0123456789", special_tokens=["</s>"])
    lines = [{"prompt": f"{i} ", "completion": "éé"} for i in range(4)]
    data = finetuning_data(write(tmp_path / "e.jsonl", lines), tokenizer, 40)
    assert data.bytes_per_token == pytest.approx(4 / 3)  # two letters of two bytes, and the end
    assert evaluate(small_model(), data, 2) > 0


def test_one_prompt_is_on_one_side(tmp_path):
    lines = [{"prompt": f"p{i % 5} ", "completion": f"{i}{i}"} for i in range(40)]
    data = finetuning_data(write(tmp_path / "d.jsonl", lines), BYTES, 40, validation_share=0.3)
    train_side, held = ({bytes(e.ids[:2]) for e in side}
                        for side in (data.train, data.validation_examples))
    assert not train_side & held and len(train_side) + len(held) == 5
    assert len(data.validation_examples) >= 12
    with pytest.raises(ValueError, match="one prompt alone"):
        finetuning_data(write(tmp_path / "e.jsonl", lines[:1] * 9), BYTES, 40)
    other = write(tmp_path / "v.jsonl", pairs(3))
    assert len(finetuning_data(tmp_path / "e.jsonl", BYTES, 40, validation_path=other)
               .validation_examples) == 3


def test_examples_without_a_prompt_are_split_by_their_answers(tmp_path):
    file = tmp_path / "empty.jsonl"
    file.write_text("".join(json.dumps({"prompt": "", "completion": f"text {i // 2}"}) + "\n"
                            for i in range(20)), encoding="utf-8")
    data = finetuning_data(file, ByteTokenizer(), 64)
    sides = [{tuple(e.ids) for e in side} for side in (data.train, data.validation_examples)]
    assert len(data.train) == 18 and not sides[0] & sides[1]


def test_long_examples_are_cut_and_counted(tmp_path):
    lines = [{"prompt": f"{i}", "completion": "a" * 5} for i in range(8)]
    lines += [{"prompt": "8", "completion": "b" * 90}, {"prompt": "c" * 60, "completion": "d"}]
    path = write(tmp_path / "d.jsonl", lines)
    held = write(tmp_path / "v.jsonl", pairs(3))
    with pytest.warns(UserWarning, match=r"2 of 10 examples are longer than 20 ids .* 1 were left"):
        data = finetuning_data(path, BYTES, 20, validation_path=held)
    assert len(data.train) == 9 and data.longest(1).ids.shape == (1, 20)
    with pytest.raises(ValueError, match="no answer begins within max_seq_len=20"):
        finetuning_data(write(tmp_path / "e.jsonl", lines[-1:]), BYTES, 20, validation_path=held)


def test_a_mark_before_the_text_and_empty_lines_are_no_faults(tmp_path):
    path = write(tmp_path / "d.jsonl", [{"text": "a\u2028b"}, {"text": "c"}], bom=True)
    path.write_text(path.read_text("utf-8").replace("\n", "\r\n\r\n"), encoding="utf-8")
    assert [parts[0].text for parts in load_examples(path)] == ["a\u2028b", "c"]


@pytest.mark.parametrize(("line", "said"), [
    ('{"prompt": "a"}', "its completion is missing"),
    ('{"completion": "a"}', "its prompt is missing"),
    ('{"prompt": "a", "completion": " "}', "its completion is empty"),
    ('{"prompt": "a", "completion": 5}', "is no text but '5'"),
    ('{"instruction": "a"}', "its output is missing"),
    ('{"instruction": "a", "input": 3, "output": "b"}', "its input is no text"),
    ('{"question": "a"}', "it has 'question'; an example has"), ("{}", "it has nothing"),
    ("[1]", "a JSON list is no example"), ("null", "a JSON NoneType"), ('{"text": ', "Expecting"),
    ('{"messages": []}', "no list with a message"),
    ('{"system": "be brief", "messages": [{"role": "assistant", "content": "a"}]}',
     "stands beside the messages: put it first"),
    ('{"messages": [{"role": "user", "content": "a"}]}', "no message is the assistant's"),
    ('{"messages": [{"role": "bot", "content": "a"}]}', "has the role 'bot'"),
    ('{"messages": [{"role": "user"}]}', "message 1: its content is missing"),
    ('{"text": "\\ud83d"}', "surrogates"), ("[" * 100_000, "maximum recursion"),
])
def test_a_bad_line_is_refused_by_its_number(line, said, tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "good"}\n' + line + '\n{"text": "good"}\nworse\n', encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        load_examples(path)
    assert f"{path}, line 2: " in str(caught.value) and said in str(caught.value)
    assert "1 more bad lines: 4" in str(caught.value)


def test_files_that_hold_no_examples(tmp_path):
    path = tmp_path / "d.jsonl"
    for content, said in (("", "holds no example"), ("\n\n", "holds no example"),
                          ('[{"text": "a"}]', "is one JSON list")):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=said):
            load_examples(path)
    path.write_bytes(b'{"text": "\xff"}')
    with pytest.raises(ValueError, match="not UTF-8"):
        load_examples(path)
    with pytest.raises(ValueError, match="train must hold an example"):
        FineTuningData([], [Example([1, 2], [False, True])])
    with pytest.raises(ValueError, match="each example an answer"):
        FineTuningData([Example([1, 2], [True, False])], [Example([1, 2], [False, True])])
