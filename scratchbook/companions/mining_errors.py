"""Chapter 06e's damaged code: do heads behave otherwise behind an error, and is a method near?

Chapter:  chapters/06e_pattern_mining.ipynb
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scratchbook.companions.mining_material import Material, spelled
from scratchbook.interpret import capture
from scratchbook.interpret.code_motifs import TokenText
from scratchbook.interpret.head_tests import area_interval, area_under_curve
from scratchbook.runtime import data_dir
from scratchbook.smalltalk import parts
from scratchbook.smalltalk.mutations import mutate
from scratchbook.smalltalk.readers import read_folder
from scratchbook.smalltalk.records import MethodRecord

BUGS = ("missing bracket", "extra bracket", "swapped closers", "missing period")
BEHIND = 4  # tokens from the first that the error changed


@dataclass(frozen=True)
class Damaged:
    """One text whole and with one error, as ids, and the first token that the error changed."""

    whole: list[int]
    broken: list[int]
    place: int
    label: str


def first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    """The first place where two texts differ."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
                min(len(one), len(other)))


def damaged_smalltalk(material: Material, count: int, seed: int = 0) -> list[Damaged]:
    """Methods of the course's library, each with one bug that the parser refuses."""
    draw = random.Random(seed)
    methods = [each for each in read_folder(data_dir() / "smalltalk", "course", "MIT")
               if isinstance(each, MethodRecord)]
    found: list[Damaged] = []
    for record in draw.sample(methods, len(methods)):
        bug = mutate(record.source, BUGS[len(found) % len(BUGS)], draw)
        if bug is None:
            continue
        texts = [material.tokenizer.encode_parts([parts.special(parts.METHOD), parts.Part(text)])[0]
                 for text in (bug.original, bug.source)]
        found += _if_it_fits(*texts, bug.label)
        if len(found) == count:
            break
    return found


def damaged_python(material: Material, count: int, seed: int = 0, length: int = 110
                   ) -> list[Damaged]:
    """Windows of held-out files in which one bracket is left out or written twice."""
    draw, found = random.Random(seed), []
    for number in draw.sample(range(len(material.ids)), len(material.ids)):
        text = TokenText(tuple(material.pieces(number)[:length]), material.language)
        # a bracket in the second half, so that the model has seen the file
        places = [place for place, sign in enumerate(text.code)
                  if sign in "()[]{}" and len(text.text) / 2 < place < len(text.text) - 20]
        if not places:
            continue
        place = draw.choice(places)
        sign, extra = text.text[place], draw.random() < 0.5
        broken = text.text[:place] + (2 * sign if extra else "") + text.text[place + 1 :]
        texts = [material.tokenizer.encode_ordinary(each) for each in (text.text, broken)]
        found += _if_it_fits(*texts, "extra bracket" if extra else "missing bracket")
        if len(found) == count:
            break
    return found


def _if_it_fits(whole: list[int], broken: list[int], label: str) -> list[Damaged]:
    place = first_difference(whole, broken)
    room = min(len(whole), len(broken)) - place
    return [Damaged(whole, broken, place, label)] if (
        place > 2 and room >= BEHIND and max(len(whole), len(broken)) <= 200) else []


@torch.no_grad()
def signals(material: Material, ids: Sequence[int], place: int) -> tuple[float, Tensor]:
    """The mean loss of the tokens from `place` on, and per head spread and greatest weight there.

    Shapes:   -> loss, (layers * heads * 2,)
    """
    with capture(material.model) as seen:
        logits = material.model(torch.tensor([list(ids)]))[0]
    window = slice(place, place + BEHIND)
    targets = torch.tensor(ids[window])
    loss = F.cross_entropy(logits[place - 1 : place - 1 + len(targets)].float(), targets)
    table = seen.stacked()[:, 0, :, window]  # (layers, heads, behind, keys)
    bits = -(table.clamp_min(1e-9).log2() * table).sum(-1).mean(-1)
    return loss.item(), torch.cat([bits.flatten(), table.amax(-1).mean(-1).flatten()])


def rarities(damaged: Sequence[Damaged], vocab_size: int) -> np.ndarray:
    """How rare the tokens at the error are, in nats: counted in the other texts, whole.

    Shapes:   -> (texts, 2), broken and whole
    """
    each = np.stack([np.bincount(one.whole, minlength=vocab_size) for one in damaged])
    others, rows = each.sum(0) - each, []
    for one, counts in zip(damaged, others, strict=True):
        nats = np.log(counts.sum() + vocab_size) - np.log(counts + 1)  # one more of each
        rows.append([nats[ids[one.place : one.place + BEHIND]].mean()
                     for ids in (one.broken, one.whole)])
    return np.array(rows)


def error_areas(material: Material, damaged: Sequence[Damaged]) -> dict[str, Any]:
    """How well the loss, and the best head, tell a broken text from its whole original.

    The head and what is looked at in it are chosen on the first half of the texts, and judged on
    the second; the loss, and how rare the tokens are, need no choice and are judged there too.
    """
    rows = [(signals(material, each.broken, each.place), signals(material, each.whole, each.place))
            for each in damaged]
    loss = np.array([[broken[0], whole[0]] for broken, whole in rows])  # (texts, 2)
    rare = rarities(damaged, material.model.config.vocab_size)
    heads = np.stack([[broken[1].numpy(), whole[1].numpy()] for broken, whole in rows])
    half = len(rows) // 2
    areas = [area_under_curve(heads[:half, 0, k], heads[:half, 1, k])
             for k in range(heads.shape[2])]
    best = int(np.argmax(np.abs(np.array(areas) - 0.5)))
    sign = 1 if areas[best] >= 0.5 else -1
    judged = slice(half, None)
    count = heads.shape[2] // 2
    head = [int(x) for x in divmod(best % count, material.model.config.num_heads)]
    return {"texts": len(rows) - half, "chosen on": half, "head": head,
            "looked at": "spread" if best < count else "greatest weight",
            "higher": sign > 0,
            "on the choosing half": max(areas[best], 1 - areas[best]),
            "head area": area_interval(sign * heads[judged, 0, best],
                                       sign * heads[judged, 1, best]),
            "loss area": area_interval(loss[judged, 0], loss[judged, 1]),
            "rarity area": area_interval(rare[judged, 0], rare[judged, 1]),
            "labels": sorted({each.label for each in damaged})}


# a method near? -------------------------------------------------------------------------------


def ridge(features: np.ndarray, labels: np.ndarray, strength: float = 10.0) -> np.ndarray:
    """The weights of a linear probe by least squares, its size held down; the last is the bias.

    Shapes:   features (count, d), labels (count,) of 0 and 1 -> (d + 1,)
    """
    x = np.concatenate([features, np.ones((len(features), 1))], 1)
    hold = strength * np.eye(x.shape[1])
    hold[-1, -1] = 0
    return np.linalg.solve(x.T @ x + hold, x.T @ (labels - labels.mean()))


@torch.no_grad()
def line_ends(material: Material) -> tuple[dict[int, np.ndarray], np.ndarray, np.ndarray,
                                           np.ndarray]:
    """Residuals at the ends of lines, whether a method comes next, the text, how many blank lines.

    Shapes:   -> {layer: (lines, d_model)}, (lines,), (lines,), (lines,)
    """
    kept: dict[int, list[np.ndarray]] = {}
    labels, texts, blanks = [], [], []
    for number, row in enumerate(material.ids):
        text = TokenText(tuple(material.pieces(number)), material.language)
        ends = [start - 1 for start, _ in text.lines if start > 1]
        starts = [start for start, _ in text.lines if start > 1]
        if not ends:
            continue
        with capture(material.model, keep=("residuals",)) as seen:
            material.model(row[None])
        for layer, stream in seen.residuals.items():
            kept.setdefault(layer, []).append(stream[0, ends].numpy())
        labels += [start in text.methods for start in starts]
        blanks += [text.pieces[end].count("\n") for end in ends]
        texts += [number] * len(ends)
    found = {layer: np.concatenate(rows) for layer, rows in kept.items()}
    return found, np.array(labels, float), np.array(texts), np.array(blanks, float)


def labels_of_other_texts(labels: np.ndarray, texts: np.ndarray, draw: np.random.Generator
                          ) -> np.ndarray:
    """The texts' label sequences in another order, laid over the same lines.

    The lines of a text are not independent, so its labels stay together.
    """
    order = draw.permutation(np.unique(texts))
    return np.concatenate([labels[texts == text] for text in order])


def gap_over_texts(first: np.ndarray, second: np.ndarray, labels: np.ndarray, texts: np.ndarray,
                   draws: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """How much larger the area of the first guesses is, and its 95 %: whole texts are redrawn.

    Raises:   ValueError when the texts hold only one kind of label
    """
    names, draw = np.unique(texts), np.random.default_rng(seed)
    places = [np.flatnonzero(texts == name) for name in names]

    def gap(lines: np.ndarray) -> float:
        yes, no = lines[labels[lines] == 1], lines[labels[lines] == 0]
        return area_under_curve(first[yes], first[no]) - area_under_curve(second[yes], second[no])

    value, gaps = gap(np.arange(len(labels))), []
    while len(gaps) < draws:
        lines = np.concatenate([places[k] for k in draw.integers(len(names), size=len(names))])
        if 0 < labels[lines].sum() < len(lines):  # else there is no area
            gaps.append(gap(lines))
    low, high = np.quantile(gaps, (0.025, 0.975))
    return value, float(low), float(high)


def method_probe(material: Material, shuffles: int = 199, seed: int = 0) -> dict[str, Any]:
    """A linear probe at the ends of lines for "a method begins now", against shuffled labels.

    Trained on the even texts, judged on the odd ones. Rivals: the probe on the token's own
    embedding (layer 0), and the number of line breaks in the token.
    """
    streams, labels, texts, blanks = line_ends(material)
    train, judged = texts % 2 == 0, texts % 2 == 1
    yes, no = labels[judged] == 1, labels[judged] == 0
    draw = np.random.default_rng(seed)

    def guesses(layer: int, shown: np.ndarray) -> np.ndarray:
        x = streams[layer]
        x = (x - x[train].mean(0)) / (x[train].std(0) + 1e-6)
        weights = ridge(x[train], shown)
        return x[judged] @ weights[:-1] + weights[-1]

    def area(guess: np.ndarray) -> float:
        return area_under_curve(guess[yes], guess[no])

    last = max(streams)
    read = {layer: guesses(layer, labels[train]) for layer in sorted(streams)}
    shuffled = [area(guesses(last, labels_of_other_texts(labels[train], texts[train], draw)))
                for _ in range(shuffles)]
    rest = (labels[judged], texts[judged])
    return {"lines": len(labels), "methods": int(labels.sum()), "judged": int(judged.sum()),
            "texts judged": len(np.unique(texts[judged])),
            "by layer": {str(layer): area(guess) for layer, guess in read.items()}, "last": last,
            "shuffled": shuffled,
            "p": (1 + sum(each >= area(read[last]) for each in shuffled)) / (1 + shuffles),
            "line breaks": area(blanks[judged]),
            "last against embedding": gap_over_texts(read[last], read[0], *rest),
            "last against line breaks": gap_over_texts(read[last], blanks[judged], *rest)}


def spelled_error(material: Material, damaged: Damaged, around: int = 5) -> str:
    """The text around an error, for a table."""
    part = damaged.broken[max(0, damaged.place - around) : damaged.place + around]
    return "".join(spelled(material.tokenizer, part))
