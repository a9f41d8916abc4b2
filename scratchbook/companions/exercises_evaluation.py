"""The checks of chapter 06c's exercises: properties first, then the mistakes people make.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from numbers import Number

import torch
import torch.nn.functional as F
from torch import Tensor

from scratchbook.evaluation.text_signals import distinct, known_words, loop_share, parses
from scratchbook.runtime import named_generator
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw


def _number(got: object) -> float:
    return float(got) if isinstance(got, Number | Tensor) else math.nan


def _near(got: object, want: float, bound: float = 1e-4) -> bool:
    return abs(_number(got) - want) <= bound * max(1.0, abs(want))


def _batches(shapes: list[tuple[int, int]], hidden: bool) -> list[tuple[Tensor, Tensor]]:
    batches = []
    for number, (rows, time) in enumerate(shapes):
        # the last batch is much harder: its weight shows
        logits = draw(rows, time, 9, name=f"logits {number}") * (1 + 5 * number)
        targets = (draw(rows, time, name=f"targets {number}").abs() * 4).long().clamp_max(8)
        if hidden:
            targets[:, time // 2 :] = -100
        batches.append((logits, targets))
    return batches


def _means(batches: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    sums, counts, sizes = [], [], []
    unmasked = 0.0
    for logits, targets in batches:
        kept = targets != -100
        nats = F.cross_entropy(logits.transpose(1, 2), targets.clamp_min(0), reduction="none")
        sums.append((nats * kept).sum().item())
        counts.append(kept.sum().item())
        sizes.append(targets.numel())
        unmasked += nats.sum().item()
    right, rows = sum(sums) / sum(counts), [len(targets) for _, targets in batches]
    return {"right": right, "by batch": sum(s / c for s, c in zip(sums, counts, strict=True))
            / len(sums), "all places": sum(sums) / sum(sizes), "unmasked": unmasked / sum(sizes),
            "by row": sum(s / c * n for s, c, n in zip(sums, counts, rows, strict=True))
            / sum(rows), "last": sums[-1] / counts[-1], "sum": sum(sums),
            "bits": right / math.log(2), "perplexity": math.exp(right)}


@exercise
def token_loss(answer: Callable) -> Iterator[Property]:
    """06c.1: mean nats over all tokens that count."""
    batches = _batches([(2, 6)], hidden=False)
    got, want = answer(batches), _means(batches)
    yield expect(
        "one batch: torch's own mean", _near(got, want["right"]),
        (_near(got, want["sum"]), "that is the sum: divide by the number of tokens"),
        (_near(got, want["bits"]), "those are bits; the loss is asked in nats"),
        (_near(got, want["perplexity"]), "that is the perplexity: the loss is its logarithm"),
        (isinstance(got, Tensor) and got.numel() > 1, "a single number is asked for"),
        (True, f"got {got!r}, expected {want['right']:.4f}"))
    batches = _batches([(4, 12), (4, 12), (1, 2)], hidden=False)
    got, want = answer(batches), _means(batches)
    yield expect(
        "a short last batch counts by its tokens", _near(got, want["right"]),
        (_near(got, want["by batch"]), "a mean of means: the last batch has 2 of 98 tokens and "
                                       "gets a third of the weight"),
        (_near(got, want["by row"]), "each batch is weighted by its rows: the last row is shorter, "
                                     "weigh by tokens"),
        (_near(got, want["last"]), "that is the last batch alone"),
        (True, f"got {got!r}, expected {want['right']:.4f}"))
    batches = _batches([(2, 8), (1, 4)], hidden=True)
    got, want = answer(batches), _means(batches)
    yield expect(
        "targets of -100 count for nothing", _near(got, want["right"]),
        (_near(got, want["all places"]), "the sum leaves them out, the number of tokens does not: "
                                         "count (targets != -100)"),
        (_near(got, want["unmasked"]), "they were taken for token 0"),
        (_near(got, want["by batch"]) or _near(got, want["by row"]), "a mean of means again"),
        (True, f"got {got!r}, expected {want['right']:.4f}"))
    yield expect("the result is a number", isinstance(got, Number),
                 (isinstance(got, Tensor), "a tensor keeps the whole graph alive: .item()"))
    holes = batches[0][1].clone()
    holes[0, ::2], holes[1] = 3, -100
    batches = [(batches[0][0], holes), (batches[1][0], torch.full((1, 4), -100)),
               (200 * batches[1][0], torch.tensor([[0, -100, 7, 0]]))]
    kept, want = [targets.clone() for _, targets in batches], _means(batches[::2])
    got = answer(batches)
    yield expect(
        "holes anywhere, a batch of holes alone, scores in the hundreds", _near(got, want["right"]),
        (math.isnan(_number(got)), "NaN: the mean over no target is 0 / 0. Add up sums and counts"),
        (math.isinf(_number(got)), "inf: a probability of e^-200 is 0 in float32, and its "
                                   "logarithm is gone. Take log_softmax, or cross_entropy"),
        (True, f"got {got!r}, expected {want['right']:.4f}: which targets count is in the targets, "
               "place by place"))
    same = all(map(torch.equal, kept, (targets for _, targets in batches)))
    yield expect("the targets are what they were", same, (True, "they were changed in place"))


def _same(got: object, want: Tensor) -> bool:
    return isinstance(got, Tensor) and got.shape == want.shape and torch.allclose(
        got.float(), want, atol=1e-5)


def _in_tensors(answer: Callable) -> Callable:
    """The same answer; an array becomes a tensor, a list does not."""
    def call(*arguments: object) -> object:
        got = answer(*arguments)
        return torch.as_tensor(got) if hasattr(got, "__array__") else got
    return call


@exercise
def nucleus(answer: Callable) -> Iterator[Property]:
    """06c.2: the fewest likeliest tokens that together reach p."""
    answer = _in_tensors(answer)
    probs = torch.tensor([0.1, 0.5, 0.15, 0.25])
    got, want = answer(probs.clone(), 0.7), torch.tensor([0, 0.5, 0, 0.25]) / 0.75
    yield expect(
        "0.1, 0.5, 0.15, 0.25 at p = 0.7: two are kept", _same(got, want),
        (not isinstance(got, Tensor), f"a tensor is asked for, not {type(got).__name__}"),
        (_same(got, (want * 0.75 + (want == 0) * -1e9).softmax(0)),
         "these are probabilities already, not scores: divide by their sum, without a softmax"),
        (_same(got, want * 0.75), "the others are zero; now let the kept ones sum to one"),
        (_same(got, torch.tensor([0.0, 1, 0, 0])) or _same(got, torch.tensor([0, 0.5, 0, 0])),
         "0.5 is not yet 0.7: the token that crosses the border belongs to it"),
        (_same(got, torch.tensor([0.5, 0.25, 0, 0]) / 0.75),
         "sorted: each probability must stay at its token's place"),
        (_same(got, torch.tensor([0.1, 0.5, 0.15, 0]) / 0.75),
         "the tokens were not sorted before they were summed"),
        (_same(got, torch.tensor([0.25, 0, 0, 0.5]) / 0.75),
         "sent back to the wrong places: `order[i]` is where the i-th of the sorted came from, so "
         "result[order] = kept, not result = kept[order]"),
        (_same(got, torch.tensor([0, 0.5, 0, 0.5])), "all that stay became equal: they keep their "
                                                     "proportions"),
        (isinstance(got, Tensor) and bool(got.isnan().any()),
         "nothing was left: not each probability alone must reach p, their sum must"),
        (_same(got, probs), "all were kept: were they sorted the wrong way round?"),
        (True, f"got {got}"))
    if not isinstance(got, Tensor):
        return
    exact = torch.tensor([0.125, 0.5, 0.125, 0.25])
    got = answer(exact.clone(), 0.75)
    yield expect("p reached exactly: no third token", _same(got, torch.tensor([0, 2, 0, 1]) / 3),
                 (True, "0.5 and 0.25 are 0.75 already: a token stays only if the sum before it is "
                        "still below p"))
    sure = torch.tensor([0.02, 0.95, 0.03])
    got = answer(sure.clone(), 0.5)
    yield expect("the likeliest always stays", _same(got, torch.tensor([0.0, 1.0, 0.0])),
                 (isinstance(got, Tensor) and bool(got.isnan().any()),
                  "nothing was left, and 0 / 0 is NaN"), (True, f"got {got}"))
    equal = torch.tensor([0.125, 0.25, 0.25, 0.25, 0.125])
    kept = answer(equal.clone(), 0.5)
    count = int((kept > 0).sum()) if isinstance(kept, Tensor) else 0
    yield expect("two of three equal ones reach p: the third goes",
                 count == 2 and _near(kept.max(), 0.5),
                 (count == 3, "all that are as likely as the last that is needed were kept: count "
                              "tokens, do not compare probabilities"), (True, f"got {kept}"))
    yield from _long_rows(answer)


def _long_rows(answer: Callable) -> Iterator[Property]:
    row = draw(50, name="nucleus").mul(2).softmax(0)
    for p in (0.3, 0.9):
        got = answer(row.clone(), p)
        kept = got > 0
        if not kept.any():
            yield expect(f"50 tokens, p = {p}: something is kept", False,
                         (True, "no token reaches p alone: add them up, the likeliest first"))
            continue
        enough = bool(row[kept].sum() >= p - 1e-5)
        fewest = bool(row[kept].sum() - row[kept].min() < p)
        yield expect(f"50 tokens, p = {p}: they reach it, and one fewer would not",
                     enough and fewest and _near(got.sum(), 1),
                     (not enough, f"the kept ones reach only {row[kept].sum():.3f}"),
                     (not fewest, f"{int(kept.sum())} are kept, fewer would do"),
                     (True, f"they sum to {float(got.sum()):.3f}"))
    yield expect("p = 1 keeps everything", _same(answer(row.clone(), 1.0), row))
    given = row.clone()
    answer(given, 0.5)
    yield expect("the row is what it was", torch.equal(given, row),
                 (True, "it was changed in place: write into a new one"))


def _outcomes() -> tuple[list[int], list[int]]:
    """What two models make of 200 prompts: the second gains some and loses fewer."""
    generator = named_generator(0, "paired")
    before = torch.rand(200, generator=generator) < 0.5
    changed = torch.rand(200, generator=generator)
    after = torch.where(before, changed > 0.12, changed < 0.24)
    return before.int().tolist(), after.int().tolist()


@exercise
def paired_interval(answer: Callable) -> Iterator[Property]:
    """06c.3: how sure is a difference, prompt by prompt."""
    before, after = _outcomes()

    def ask(first: list[int], second: list[int], seed: str = "a") -> tuple[float, float, float]:
        value, low, high = answer(first, second, 2000, named_generator(0, seed))
        return _number(value), _number(low), _number(high)

    value, low, high = ask(before, after)
    apart = sum(a != b for a, b in zip(after, before, strict=True)) / 200
    mean = (sum(after) - sum(before)) / 200
    yield expect("the mean difference", _near(value, mean),
                 (_near(value, -mean), "after minus before, not the other way round"),
                 (_near(value, sum(after) / 200), "that is the share after, not the difference"),
                 (_near(value, apart), "that is the share of prompts that changed: a lost one "
                                       "counts -1"),
                 (_near(value, mean * 200), "divide by the number of prompts"),
                 (True, f"got {value:.4f}, expected {mean:.4f}"))
    spread = torch.tensor(after).sub(torch.tensor(before)).double().std().item()
    half, width = 1.96 * spread / math.sqrt(200), high - low
    alone = 1.96 * math.sqrt(2 * 0.25 / 200)
    yield expect(
        "its interval is as wide as the pairs say", abs(width / 2 - half) < 0.1 * half,
        (low > high, "low and high are exchanged"),
        (abs(width / 2 - alone) < 0.12 * alone,
         "as wide as for unrelated prompts: redraw the same prompts for both models"),
        (width > 0.9, "those are quantiles of single prompts: take the mean of each redraw first"),
        (width == 0, "every redraw gave the same: draw prompts with replacement"),
        (0.55 * half < width / 2 < 0.74 * half, "were the outcomes sorted? The two of one prompt "
                                               "belong together"),
        (0.78 * half < width / 2 < 0.9 * half, "those are the 5 % and 95 % quantiles: half of what "
                                               "is left out lies on either side"),
        (width / 2 < 0.9 * half, "too narrow: the quantiles are 0.025 and 0.975, and each redraw "
                                 "has as many prompts as there are"),
        (True, f"from {low:.4f} to {high:.4f}, expected about {mean - half:.4f} to "
               f"{mean + half:.4f}"))
    yield expect("it lies around the mean difference", abs((low + high) / 2 - mean) < 0.25 * half,
                 (True, f"its middle is {(low + high) / 2:.4f}, the difference {mean:.4f}"))
    lows = [ask(before, after, f"again {number}")[1] for number in range(6)]
    yield expect("2,000 redraws settle it", max(lows) - min(lows) < 0.2 * half,
                 (True, "from one generator to the next its end moves far: are there as many "
                        "redraws as `draws` says?"))
    value, low, high = ask(before, before)
    yield expect("a model against itself: exactly no difference", value == low == high == 0,
                 (True, f"from {low:.4f} to {high:.4f}: the two sides were redrawn separately"))
    yield from _few(answer, before, after)


def _few(answer: Callable, before: list[int], after: list[int]) -> Iterator[Property]:
    """Few prompts, few redraws: what chance does shows."""
    value, low, high = map(_number, answer([0, 0, 1, 0], [1, 0, 1, 0], 2000,
                                           named_generator(0, "four")))
    yield expect("four prompts, one gained: 0.25, from 0 to 0.75",
                 _near(value, 0.25) and _near(low, 0) and _near(high, 0.75),
                 (low < 0, "below 0, though no redraw loses anything: take the quantiles of the "
                           "redraws, not a normal curve, and not what lies opposite"),
                 (_near(high, 0.5), "each redraw has as many prompts as there are, with "
                                    "replacement: three of four can be the one that was gained"),
                 (True, f"got {value:.4f}, from {low:.4f} to {high:.4f}"))

    def ask(draws: int, seed: str) -> tuple[float, ...]:
        return tuple(map(_number, answer(before, after, draws, named_generator(0, seed))))

    same, others = {ask(31, "few") for _ in range(4)}, {ask(31, f"few {n}") for n in range(4)}
    yield expect("the same generator gives the same interval", len(same) == 1,
                 (True, "draw with the generator that is given"))
    yield expect("another generator gives another one", len(others) > 1,
                 (True, "31 redraws cannot come out alike four times: draw with the generator that "
                        "is given, as often as `draws` says"))
    value, low, high = ask(1, "one")
    yield expect("one redraw alone: low and high are its mean", low == high
                 and _near(value, (sum(after) - sum(before)) / 200),
                 (low != high, "more were drawn than `draws` says"),
                 (True, "the first number is the mean difference of the prompts themselves"))
    lost = ask(2000, "lost"), tuple(map(_number, answer(after, before, 2000,
                                                        named_generator(0, "lost"))))
    yield expect("the other way round, the interval is the mirrored one",
                 _near(lost[1][1], -lost[0][2], 0.01) and _near(lost[1][2], -lost[0][1], 0.01),
                 (True, f"from {lost[1][1]:.4f} to {lost[1][2]:.4f}: a difference may be negative"))


_WORDS = """
above again allow argument array before begin between break bytes called cannot caught change
character check class closed code compare connection contain create current default define delete
depth digit directory during early element empty encode error every example expected field figure
final first float follow format forward frame function future given global group handle hidden
ignore import index inside integer invalid keyword large latest length letter library limit line
local lower maximum memory message method minimum missing module mutable name nested never number
object offset older option order outside packet parent parse pattern percent place point prefix
process property quote raise random range record reset result return second select sequence shape
signal simple socket source special start state string suffix symbol system table target text
thread token total tuple under unique upper value vector weight window write zero
"""
VOCABULARY = _WORDS.split()


@exercise
def fool(answer: Callable) -> Iterator[Property]:
    """06c.4: a text that passes four measures and says nothing."""
    text = answer(list(VOCABULARY))
    yield expect("a text of 400 characters or more", isinstance(text, str) and len(text) >= 400,
                 (isinstance(text, str), f"it has {len(str(text))} characters"),
                 (True, f"expected a str, got {type(text).__name__}"))
    if not isinstance(text, str):
        return
    share = known_words(text, set(VOCABULARY))
    yield expect("nine words in ten are known", share >= 0.9,
                 (True, f"{share:.0%}: take the words from the vocabulary"))
    loop = loop_share(text)
    yield expect("it does not end in a loop", loop == 0,
                 (True, f"{loop:.0%} of it is one piece three times or more"))
    other = answer([word[::-1] for word in VOCABULARY[:70]])
    share = known_words(other, {word[::-1] for word in VOCABULARY[:70]})
    yield expect("of another vocabulary, too", share >= 0.9,
                 (True, f"{share:.0%}: the words are not taken from the list that is given"))
    new = distinct([text])
    yield expect("eight pairs of words in ten differ", new >= 0.8,
                 (True, f"{new:.0%}: the same words may come back, but beside others"))
    yield expect(
        "Python accepts it", parses(text + "\n"),
        ("#" not in text and '"' not in text and "'" not in text,
         "words in a row are no program: where does Python accept any text?"),
        ("\n" in text.strip() and "#" in text, "each line needs its own #"),
        (True, "a quote is not closed, or stands alone"))
