"""Perplexity, overlap, signals, intervals: worked by hand, laws, and hostile input."""

import json
import math
import random
import string

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from scratchbook.evaluation import (
    Score,
    band,
    bootstrap,
    compare_tests,
    paired_bootstrap,
    paired_shares,
    score_batches,
    score_text,
    spearman,
    wilson,
)
from scratchbook.evaluation.overlap import bleu, rouge_l, rouge_n
from scratchbook.evaluation.text_signals import (
    distinct,
    known_words,
    loop_share,
    parses,
    signals,
    spacing,
    topic_drift,
    words_of,
)
from scratchbook.tokenizers import BPETokenizer, CharTokenizer
from scratchbook.training import ByteTokenizer

PROSE = ("The parser reads one token after another and keeps the rules that may still apply. When "
         "no rule is left the parser reports the token and the rules it had hoped for. ")
CODE = "def read(path):\n    with open(path) as file:\n        return file.read()\n\n\n"


class Fixed(nn.Module):
    """The same scores at every position, whatever stands there."""

    def __init__(self, probs: list[float]):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(probs).log())

    def forward(self, ids, mask=None):
        return self.logits.expand(*ids.shape, -1)


class Bytes:
    vocab_size = 256

    def encode(self, text):
        return list(text.encode("utf-8"))

    def decode(self, ids):
        return bytes(ids).decode("utf-8", errors="replace")


class LosesSpaces(Bytes):
    def encode(self, text):
        return super().encode(text.replace(" ", ""))


def model_of(vocab: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Embedding(vocab, 8), nn.Linear(8, vocab))


# surprise

def test_three_tokens_by_hand():
    ids = torch.tensor([[0, 1, 1]])
    score = score_batches(Fixed([0.5, 0.25, 0.25]), [(ids, torch.tensor([[0, 1, 2]]))])
    assert score.nats == pytest.approx(math.log(2) + 2 * math.log(4), abs=1e-6)
    assert score.perplexity == pytest.approx(32 ** (1 / 3), abs=1e-5)
    assert (score + Score(num_bytes=5)).bits_per_byte == pytest.approx(1.0, abs=1e-6)


def test_a_ragged_last_batch_counts_by_its_tokens():
    model = Fixed([0.9, 0.1])
    whole = (torch.zeros(1, 99, dtype=torch.long), torch.zeros(1, 99, dtype=torch.long))
    ragged = (torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.long))
    score = score_batches(model, [whole, ragged])
    right = -(99 * math.log(0.9) + math.log(0.1)) / 100
    by_batch = -(math.log(0.9) + math.log(0.1)) / 2
    assert score.loss == pytest.approx(right, abs=1e-6)
    assert abs(by_batch - right) > 1


def test_ignored_targets_and_masks_change_nothing_they_should_not():
    ids, targets = torch.tensor([[0, 1, 0, 1]]), torch.tensor([[1, -100, -100, 1]])
    score = score_batches(Fixed([0.5, 0.5]), [(ids, targets, None)])
    assert score.tokens == 2
    assert score.loss == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="nothing to predict"):
        score_batches(Fixed([0.5, 0.5]), [(ids, torch.full_like(ids, -100))])


@settings(max_examples=30, derandomize=True)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_any_cut_into_batches_gives_the_same_score(sizes):
    model, total = model_of(16), sum(sizes)
    ids = torch.arange(total)[None] % 16
    targets = (ids * 5 + 3) % 16
    parts = zip(ids.split(sizes, 1), targets.split(sizes, 1), strict=True)
    whole, cut = score_batches(model, [(ids, targets)]), score_batches(model, parts)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-6)
    assert cut.tokens == whole.tokens == sum(n for _, n in cut.windows)


def test_uniform_over_bytes_is_eight_bits_for_any_text_and_window():
    text, model = "naïve 日本語\n" * 7, Fixed([1 / 256] * 256)
    for time in (1, 3, 1000):
        score = score_text(model, Bytes(), text, time)
        assert score.tokens == score.num_bytes == len(text.encode()) - 1
        assert score.bits_per_byte == pytest.approx(8, abs=1e-5)
    assert score_text(model, Bytes(), "日本", 4).num_bytes == 5


def test_bits_per_byte_know_the_bytes_of_every_tokenizer():
    text = PROSE * 3
    for tokenizer in (CharTokenizer().train(text, 100), BPETokenizer().train(text, 300)):
        ids = tokenizer.encode(text)
        score = score_text(model_of(tokenizer.vocab_size), tokenizer, text, 16)
        assert score.tokens == len(ids) - 1
        assert score.num_bytes == len(text) - len(tokenizer.token_bytes(ids[0])
                                                  if hasattr(tokenizer, "token_bytes") else "T")


def test_tokens_that_lose_the_text_have_infinite_bits():
    assert score_text(model_of(256), LosesSpaces(), PROSE, 16).bits_per_byte == math.inf
    assert score_text(model_of(256), Bytes(), PROSE, 16).bits_per_byte < 20


def test_the_mode_of_the_model_is_given_back():
    model = nn.Sequential(nn.Embedding(4, 4), nn.Dropout(0.5)).train()
    score_batches(model, [(torch.tensor([[1]]), torch.tensor([[2]]))])
    with pytest.raises(IndexError):
        score_batches(model, [(torch.tensor([[4]]), torch.tensor([[2]]))])  # it knows 0 to 3
    assert model.training and not model.eval().training


@pytest.mark.parametrize("text", ["", "a"])
def test_too_little_text_is_refused(text):
    with pytest.raises(ValueError, match="two tokens"):
        score_text(model_of(256), Bytes(), text, 8)


def test_bands_come_with_a_warning():
    words = {12.0: "excellent", 50: "good", 199: "okay", 248: "poor", math.inf: "poor"}
    for perplexity, word in words.items():
        with pytest.warns(UserWarning, match="one tokenizer"):
            assert band(perplexity) == word
    for wrong in (0.5, -1, math.nan):
        with pytest.raises(ValueError, match="below 1"):
            band(wrong)


# overlap

def test_overlap_by_hand():
    assert rouge_n("the cat sat", "the cat ate the fish")[:2] == (2 / 3, 2 / 5)
    assert rouge_n("the the the", "the cat").precision == 1 / 3  # each counts once
    assert rouge_l("a x b y c", "a b c")[:2] == (3 / 5, 1)
    assert rouge_n("a b", "b a", 2).f1 == 0


@settings(max_examples=60, derandomize=True)
@given(*[st.lists(st.sampled_from("abcd"), max_size=12)] * 2)
def test_overlap_laws(first, second):
    first, second = " ".join(first), " ".join(second)
    one, other = rouge_l(first, second), rouge_l(second, first)
    assert (one.precision, one.recall) == (other.recall, other.precision)
    assert rouge_l(first, second).f1 <= rouge_n(first, second).f1 + 1e-12
    if first:
        assert rouge_l(first, first) == (1, 1, 1)
    if len(first.split()) >= 4:
        assert bleu([first], [first]) == pytest.approx(100)


def test_bleu_punishes_what_is_too_short():
    reference = "one two three four five six seven eight"
    assert bleu(["one two three four"], [reference]) == pytest.approx(100 * math.exp(1 - 8 / 4))
    assert bleu(["x y z w"], [reference]) == 0 == bleu([""], [reference])
    with pytest.raises(ValueError, match="argument"):
        bleu(["a"], [])


# signals: each on planted text

def test_spacing():
    assert spacing(PROSE) and spacing(CODE)
    assert not spacing(" ".join(PROSE.replace(" ", "")))
    assert not spacing("".join(c for c in PROSE if c.isalpha()))


def test_loops():
    assert loop_share("the alle " * 9) == pytest.approx(1, abs=0.02)
    assert 0.4 < loop_share(PROSE + "and so on " * 15) < 0.6
    assert loop_share(PROSE) == loop_share("") == loop_share("and so on ... wait...") == 0
    assert distinct(["a b a b a b"]) == 2 / 5
    assert distinct([PROSE]) > 0.9 and distinct([]) == 0


def test_words():
    known = words_of([PROSE, PROSE])
    assert known_words(PROSE, known) == 1
    scrambled = "".join(random.Random(0).choice(string.ascii_lowercase + "  ") for _ in range(400))
    assert known_words(scrambled, known) < 0.1
    assert known_words("xq the parser re", known) == 1  # cut words at the edges
    assert known_words("", known) == 0


@pytest.mark.parametrize(("code", "right"), [
    (CODE, True), (CODE + "def unfinis", True), ("def f(:\n    pass\n", False), ("", True),
    ("\0", False), ("(" * 5000 + "\n", False), ("x = 1\n  y = 2\n", False),
])
def test_syntax(code, right):
    assert parses(code) is right


def test_drift():
    other = "Bread needs flour, water, yeast and patience, and then an oven. Knead the flour well. "
    assert topic_drift(PROSE * 2 + other * 4) > topic_drift(PROSE * 4) + 0.3
    assert topic_drift("") == 0


def test_all_signals_at_once():
    good, bad = signals([CODE * 4], words_of([CODE])), signals(["xq zzk\n)(\n" * 9], {"def"})
    assert (good["syntax_errors"], bad["syntax_errors"]) == (0, 1)
    assert good["known_words"] > bad["known_words"]
    assert json.dumps(good)
    with pytest.raises(ValueError, match="no text"):
        signals([], set())


# intervals

def test_wilson():
    assert wilson(0, 10)[1:] == pytest.approx((0, 0.2775), abs=1e-4)
    share, low, high = wilson(30, 40)
    assert (share, low, high) == pytest.approx((0.75, 0.5981, 0.8582), abs=1e-4)
    for wrong in ((3, 2), (0, 0), (-1, 5)):
        with pytest.raises(ValueError, match="no share"):
            wilson(*wrong)


def test_wilson_covers_the_truth_as_often_as_it_says():
    draw, hits = random.Random(0), 0
    for _ in range(2000):
        _, low, high = wilson(sum(draw.random() < 0.3 for _ in range(40)), 40)
        hits += low <= 0.3 <= high
    # 95 % of 2,000 within four standard errors: a false alarm in 16,000
    assert abs(hits / 2000 - 0.95) < 0.02


def test_bootstrap():
    values = [float(v) for v in torch.randn(200, generator=torch.Generator().manual_seed(1))]
    mean, low, high = bootstrap(values)
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 / math.sqrt(200), rel=0.2)
    assert bootstrap([2.0, 4.0], [3.0, 1.0]).value == 2.5
    assert bootstrap(values) == bootstrap(values)
    with pytest.raises(ValueError, match="no values"):
        bootstrap([])


def test_pairs_see_what_two_intervals_do_not():
    draw = random.Random(0)
    hard = [draw.gauss(0, 5) for _ in range(100)]
    first = [h + draw.gauss(0, 0.1) for h in hard]
    second = [h + 0.2 + draw.gauss(0, 0.1) for h in hard]
    assert bootstrap(first).high > bootstrap(second).low  # alone they overlap
    assert paired_bootstrap(first, second).low > 0
    with pytest.raises(ValueError, match="same items"):
        paired_bootstrap([1, 2], [1])


def results_of(outcomes, prompts="abc", name="brackets"):
    return {name: {"outcomes": outcomes, "prompts": prompts}}


def test_only_the_same_tests_are_compared():
    before, after = results_of([0, 0, 1, 0] * 10), results_of([1, 1, 1, 0] * 10)
    change = compare_tests(before, after)["brackets"]
    assert change.value == 0.5 and 0 < change.low < 0.5 < change.high
    for other in (results_of([1] * 40, prompts="xyz"), results_of([1] * 40, name="words"), {}):
        with pytest.raises(ValueError, match="not the same test"):
            compare_tests(before, other)


def test_spearman():
    x = list(range(20))
    assert spearman(x, [v**3 for v in x]).value == pytest.approx(1)
    assert spearman(x, [-v for v in x]).value == pytest.approx(-1)
    assert spearman([1, 2, 2, 3], [1, 2, 2, 3]).value == pytest.approx(1)
    _, low, high = spearman(x, [v + 10 * (v % 3) for v in x])
    assert -1 <= low < high <= 1
    for wrong in (([1, 2, 3], [1, 2, 3]), (x, x[:5]), (x, [1] * 20)):
        with pytest.raises(ValueError, match="four pairs|never changes"):
            spearman(*wrong)


def test_intervals_are_as_wide_as_95_percent():
    values = [float(n % 10) for n in range(1000)]
    half = 1.96 * math.sqrt(8.25 / 1000)  # of a mean, by the normal distribution
    value, low, high = bootstrap(values, draws=4000)
    assert value == 4.5
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    rho, low, high = spearman([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 6, 5])
    half = 1.96 * math.sqrt((1 + rho * rho / 2) / 3)
    assert rho == pytest.approx(1 - 6 * 2 / (6 * 35))
    assert (math.atanh(high) - math.atanh(low)) / 2 == pytest.approx(half)


def test_a_sliding_window_scores_each_token_once_with_a_longer_past():
    ids = torch.arange(50) % 7
    text = bytes(ids.tolist()).decode()
    seen = []

    class Watching(torch.nn.Module):
        def forward(self, ids):
            seen.append(ids[0].tolist())
            return torch.zeros(*ids.shape, 256)

    whole = score_text(Watching(), ByteTokenizer(), text, 16)
    plain, seen[:] = len(seen), []
    slid = score_text(Watching(), ByteTokenizer(), text, 16, stride=4)
    assert slid.tokens == whole.tokens == 49 and slid.num_bytes == whole.num_bytes == 49
    assert slid.loss == pytest.approx(math.log(256))
    assert len(seen) == 1 + math.ceil((49 - 16) / 4) > plain
    assert all(len(window) == 16 for window in seen) and seen[1] == ids[4:20].tolist()
    for stride in (0, 17):
        with pytest.raises(ValueError, match=f"stride={stride} is not within 1..seq_len=16"):
            score_text(Watching(), ByteTokenizer(), text, 16, stride=stride)


def test_an_interval_of_paired_shares_has_a_width_and_covers():
    assert paired_shares([0] * 40, [0] * 40).low < -0.02 < 0.02 < paired_shares([1] * 40,
                                                                              [1] * 40).high
    known = paired_shares([0] * 10 + [1] * 10, [1] * 9 + [0] + [1] * 10)  # 9 won, none lost, of 20
    assert known.value == 0.45 and known.low == pytest.approx(9 / 22 - 1.96 * math.sqrt(
        (11 / 22 - (9 / 22) ** 2) / 22))
    draws = torch.rand(2000, 40, 2, generator=torch.Generator().manual_seed(0))
    for before, after in ((0.02, 0.02), (0.05, 0.15), (0.5, 0.6)):
        rows = (draws < torch.tensor([before, after])).int().tolist()
        held = 0
        for row in rows:
            found = paired_shares(*zip(*row, strict=True))
            held += found.low <= after - before <= found.high
        assert held / len(rows) > 0.93, (before, after)  # 95 % is aimed at; a share of 2,000 +- 1 %
    with pytest.raises(ValueError, match="pairs need the same items"):
        paired_shares([1], [])
