"""The checks of chapter 07's exercises on four bits and on two of four.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from scratchbook.companions.exercises_compression import plain, shape
from scratchbook.compression.quantize import pack
from scratchbook.teaching.answers import as_tensor, changes_its_input, counterexample, same
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw

# 07.2 ----------------------------------------------------------------------------------------


def _pack_int4(codes: Tensor) -> Tensor:
    return pack((codes.long() + 8).to(torch.uint8))


def _halves(codes: Tensor, offset: int = 8) -> tuple[Tensor, Tensor]:
    codes = F.pad(codes.long() + offset, (0, codes.shape[-1] % 2))
    return codes[..., ::2], codes[..., 1::2]


def _pack_mistakes(got: object, codes: Tensor) -> list[tuple[bool, str]]:
    """What each known slip gives for a row of signed codes of even length."""
    (first, second), want = _halves(codes), _pack_int4(codes).double()
    raw, other = _halves(codes, 0)

    def was(wrong: Tensor) -> bool:
        return same(got, wrong) or same(got, wrong % 256)

    half = len(codes) // 2
    return [
        (shape(got) == tuple(codes.shape),
         "a byte for each code, and nothing is saved: two share one"),
        (shape(got) != tuple(want.shape), f"expected {len(want)} bytes for {len(codes)} codes"),
        (same(got, torch.where(want > 127, want - 256, want)), "the bits are right and read as "
         "signed: 240 does not fit into int8, so turn to uint8 before the shift"),
        (was(second << 4 | first), "the first code of a pair belongs into the upper half"),
        (was((raw & 15) << 4 | other & 15), "this is two's complement, where -8 stands as 8: here "
         "a code q stands as q + 8, so -8 as 0 and 7 as 15"),
        (was(raw << 4 | other), "the sign of the second code ran over the first: add 8 first, "
                                "so that no code is below zero"),
        (was(raw.abs() << 4 | other.abs()), "the signs are lost: -3 and 3 became the same"),
        (was(raw.clamp_min(0) << 4 | other.clamp_min(0)), "codes below zero became 0: add 8"),
        (was(_packed(codes + 7)) or was(_packed(codes + 9)), "shifted by one: -8 stands as 0"),
        (was(first << 4 | first) or was(second << 4 | second), "both halves hold the same code"),
        (was(first * 10 + second), "ten is no power of two: the upper half counts 16"),
        (was(torch.cat([first, second])[:half] << 4 | torch.cat([first, second])[half:]),
         "neighbours share a byte: codes 0 and 1, then 2 and 3"),
        (was((codes[:half].long() + 8) << 4 | codes[half:].long() + 8),
         "neighbours share a byte: codes 0 and 1, then 2 and 3"),
        (True, f"for {codes.tolist()} expected {want.int().tolist()}, got {got.int().tolist()}"
               if isinstance(got, Tensor) else "return whole numbers from 0 to 255")]


def _packed(codes: Tensor) -> Tensor:
    first, second = _halves(codes, 0)
    return first << 4 | second


@exercise
def pack_int4(answer: Callable) -> Iterator[Property]:
    """07.2: two signed codes of four bits in a byte."""
    answer = plain(answer)
    codes = torch.tensor([-8, 7, 3, -1, -6, -5], dtype=torch.int8)
    changed = changes_its_input(answer, codes)
    got = answer(codes.clone())
    yield expect("six codes in three bytes", same(got, _pack_int4(codes)),
                 *_pack_mistakes(got, codes))
    yield expect("the codes are what they were", not changed,
                 (True, "the codes were changed in place, and the model still reads them"))
    pairs = torch.cartesian_prod(torch.arange(-8, 8), torch.arange(-8, 8)).flatten()
    for name, kind in (("int64", torch.int64), ("int8", torch.int8)):
        given = pairs.to(kind)
        got, want = answer(given.clone()), _pack_int4(given)
        yield expect(f"each of the 256 pairs of {name} is a byte of its own", same(got, want),
                     *_pack_mistakes(got, given)[:-1], (True, _first_pair(got, want, given)))
    odd = torch.tensor([5, -3, 7], dtype=torch.int8)
    got, want = answer(odd.clone()), _pack_int4(odd).double()
    yield expect("an odd number of codes: the half left over holds 0", same(got, want),
                 (same(got, want[:1]), "the last code is gone: three codes need two bytes"),
                 (same(got, want + torch.tensor([0, 8])), "the half left over holds 8, the code "
                  "of zero: fill up after adding 8"),
                 (same(got, want + torch.tensor([0, 15])), "the half left over holds 15, not 0"),
                 (same(got, torch.tensor([13, 5 * 16 + 15])), "the row was filled up in front: "
                  "the first code keeps its place"),
                 (same(got, [want[0].item(), 15.0]), "a code that is alone belongs into the upper "
                                                     "half, too"),
                 (True, f"for {odd.tolist()} expected {want.int().tolist()}, got "
                        f"{got.int().tolist() if isinstance(got, Tensor) else got}"))
    rows = torch.tensor([[1, 2, 3], [4, 5, 6]])
    got = answer(rows.clone())
    yield expect("a matrix keeps its rows", same(got, _pack_int4(rows)),
                 (shape(got) == (3,), "a byte holds the end of one row and the start of the next: "
                                       "fill up each row"),
                 (shape(got) == (1, 3), "neighbours in a row share a byte, not in a column"),
                 (True, f"expected {_pack_int4(rows).tolist()}, got "
                        f"{got.tolist() if isinstance(got, Tensor) else got}"))
    turned = (draw(5, 4, 3, name="codes") * 4).round().clamp(-8, 7).to(torch.int32)
    inputs = [(odd[:0],), (odd[:1],), (turned[0, 0],), (turned,), (turned.transpose(0, 2),),
              (pairs.to(torch.int16)[::3],), (turned.reshape(2, 2, 3, 5),),
              (pairs.repeat(2)[:701],)]
    differs = counterexample(answer, _pack_int4, inputs)
    yield expect("no code, one, and any number of axes", not differs, (True, differs))


def _first_pair(got: object, want: Tensor, codes: Tensor) -> str:
    if shape(got) != tuple(want.shape):
        return f"expected {len(want)} bytes for {len(codes)} codes"
    place = (got != want).int().argmax().item()
    pair = codes[2 * place : 2 * place + 2].tolist()
    return f"the pair {pair} is {want[place].item()}, not {got[place].item():.0f}"


# 07.4 ----------------------------------------------------------------------------------------


def _kind(got: object) -> str:
    """The type of a mask's entries, whatever holds them."""
    while not hasattr(got, "dtype") and isinstance(got, Iterable):
        got = next(iter(got), True)
    return str(getattr(got, "dtype", type(got).__name__))


def _fours(x: Tensor) -> Tensor:
    return x.reshape(*x.shape[:-1], x.shape[-1] // 4, 4)


def _two_stay(mask: object, scores: Tensor) -> str:
    """What is wrong with a mask, or nothing: two of each four stay, none lower than a third."""
    mask = as_tensor(mask)
    if mask is None or (mask.shape != scores.shape and scores.numel()):
        return f"for {tuple(scores.shape)} came back a mask of shape {shape(mask)}"
    if not scores.numel():
        return ""
    mask, fours = _fours(mask), _fours(scores.double())
    if not ((mask == 0) | (mask == 1)).all():
        return "a mask holds True and False alone"
    lowest = fours.masked_fill(mask == 0, torch.inf).amin(-1)
    dropped = fours.masked_fill(mask == 1, -torch.inf).amax(-1)
    bad = ((mask.sum(-1) != 2) | (lowest < dropped)).nonzero()
    if not len(bad):
        return ""
    place = tuple(bad[0].tolist())
    return (f"of the scores {[round(x, 3) for x in fours[place].tolist()]} your mask keeps "
            f"{mask[place].bool().tolist()}")


def _highest(scores: Tensor, count: int = 2) -> Tensor:
    best = _fours(scores).topk(count).indices
    return torch.zeros(_fours(scores).shape).scatter(-1, best, 1.0).reshape(scores.shape)


def _mask_mistakes(got: Tensor, scores: Tensor) -> list[tuple[bool, str]]:
    """What each known slip gives for scores (8, 8), some of them below zero."""
    half = torch.zeros_like(scores).scatter(-1, scores.topk(4).indices, 1.0)
    whole = (scores >= scores.flatten().median()).double()
    spread = _highest(scores.view(8, 4, 2).transpose(1, 2).reshape(8, 8))
    return [
        (same(got, scores * _highest(scores)), "the scores themselves came back: return the mask"),
        (same(got, _highest(-scores)), "the lowest two stay: True means that a weight stays"),
        (same(got, _highest(scores.abs())), "the largest sizes stay: a score below zero is a low "
                                            "one"),
        (same(got, _highest(scores.T).T), "the fours run down a column: four neighbours in a row "
                                          "are multiplied together"),
        (same(got, spread.view(8, 2, 4).transpose(1, 2).reshape(8, 8)),
         "a four is four neighbours, and not every second score"),
        (same(got, half), "the best half of a row stays: of each four exactly two are asked for"),
        (same(got, whole), "one threshold for all: of each four exactly two are asked for"),
        *((same(got, _highest(scores, count)), f"{count} of four stay")
          for count in (1, 3)),
    ]


@exercise
def mask_2_of_4(answer: Callable) -> Iterator[Property]:
    """07.4: of each four neighbours, which two stay."""
    kind = _kind(answer(draw(8, 8, name="scores")))
    answer, scores = plain(answer), draw(8, 8, name="scores")
    changed = changes_its_input(answer, scores)
    got = answer(scores.clone())
    yield expect("a mask of the scores' shape", shape(got) == (8, 8),
                 (shape(got) == (8, 2, 4), "the fours are still apart: flatten them again"),
                 (shape(got) in ((8, 4), (8, 2, 2)), "these are the two that stay, or their "
                  "places: return True or False for each score"),
                 (True, "expected shape (8, 8)"))
    yield expect("the scores are what they were", not changed,
                 (True, "the scores were changed in place: work on a copy"))
    if shape(got) != (8, 8):
        return
    wrong = _two_stay(got, scores)
    yield expect("of each four in a row the two highest stay", not wrong,
                 *_mask_mistakes(got, scores), (True, wrong))
    yield expect("True or False for each", "bool" in kind,
                 (True, f"the mask is of {kind}: `weight[mask]` and `~mask` want True and False"))
    low = scores - 10
    got = answer(low.clone())
    yield expect("scores below zero, too", not _two_stay(got, low),
                 (same(got, torch.zeros(8, 8)), "nothing stays: is a score below zero taken for "
                                                "pruned?"),
                 (True, _two_stay(got, low)))
    for what, ties in (("four equal scores: still exactly two", torch.ones(2, 4)),
                       ("four zeros: still exactly two", torch.zeros(1, 8)),
                       ("equal scores around the border", torch.tensor(
                           [[1.0, 1, 1, 0, 0, 2, 0, 0], [3, 3, 2, 3, -1, -1, -1, -5]]))):
        got = as_tensor(answer(ties.clone()))
        kept = _fours(got).sum(-1) if shape(got) == tuple(ties.shape) else torch.zeros(1)
        yield expect(what, not _two_stay(got, ties),
                     (bool((kept > 2).any()), "more than two of a four stay: a threshold keeps "
                      "all that equal it; choose places, not a level"),
                     (bool((kept < 2).any()), "fewer than two of a four stay: with equal scores "
                                              "nothing is above the level; choose places"),
                     (True, _two_stay(got, ties)))
    many = draw(3, 5, 12, name="many")
    for given in (scores[:1, :4], scores[0], many, many.transpose(0, 1), scores[:, ::2],
                  many.double() * 1e-9, (many * 100).long(), scores[:0], -many.abs() * 1e30,
                  draw(70, 40, name="large")):
        wrong = _two_stay(answer(given.clone() if given.is_contiguous() else given), given)
        yield expect(f"scores of shape {tuple(given.shape)}", not wrong, (True, wrong))
