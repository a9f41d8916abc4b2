"""The checks of chapter 08's exercises on counting what is trained and on choosing ranks.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from scratchbook.teaching.answers import as_list, as_tensor, is_rounded, same
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw

# 08.3 ---------------------------------------------------------------------------------------


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 4), nn.Linear(4, 11)
        self.head.weight = self.embedding.weight
        self.gain = nn.Parameter(torch.tensor(1.0))


def _frozen(model: nn.Module, *names: str) -> nn.Module:
    for name, parameter in model.named_parameters():
        if not names or name in names:
            parameter.requires_grad_(False)
    return model


def _models() -> Iterator[tuple[str, nn.Module, int, int, str]]:
    """(what it is, model, trained, all, what a wrong number most likely means)."""
    yield "a layer of 3 by 4 with a bias", nn.Linear(3, 4), 16, 16, "the bias is part of it"
    two = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    yield ("two layers, the first frozen", _frozen(two, "0.weight", "0.bias"), 10, 26,
           "ask each parameter for requires_grad: a layer that runs is not one that trains")
    yield ("two layers, one bias trained", _frozen(copy.deepcopy(two), "2.weight"), 2, 26,
           "ask each parameter, not each layer or the whole model")
    yield ("a head tied to the embedding", _Tied(), 56, 56,
           "the tied weight was counted twice, or a parameter of one number not at all")
    tied = _frozen(_Tied(), "embedding.weight")
    yield "the same, the tied weight frozen", tied, 12, 56, "the tied weight is one parameter"
    layer = nn.Linear(5, 5, bias=False)
    yield ("one layer called twice", nn.Sequential(layer, layer), 25, 25,
           "the layer stands in two places, its weight is one")
    equal = nn.Sequential(nn.LayerNorm(4), nn.LayerNorm(4))
    yield ("two norms with equal numbers", equal, 16, 16,
           "parameters with equal values are still two: compare which they are, not what they say")
    yield ("a norm with running means", nn.BatchNorm1d(6), 12, 12,
           "running means are buffers, which no optimizer moves: count parameters alone")
    yield "everything frozen", _frozen(nn.Linear(3, 4)), 0, 16, "nothing is trained"
    yield ("evaluation mode", nn.Linear(3, 4).eval(), 16, 16,
           "eval() changes dropout and norms, not what is trained")
    yield ("five thousand million, on the meta device", nn.Sequential(
        _frozen(nn.Linear(70_000, 70_000, bias=False, device="meta")),
        nn.Linear(1, 2, device="meta")), 4, 4_900_000_004,
        "count in whole numbers: numel() needs no data and no address, and float32 loses the end")
    deep = nn.Sequential(nn.Sequential(nn.Sequential(nn.Conv1d(2, 3, 5)))).bfloat16()
    yield ("a convolution in bfloat16, three wrappers deep", deep, 33, 33,
           "parameters of every depth, type and number of axes count")
    yield ("a parameter without numbers", nn.ParameterList([torch.zeros(0)]), 0, 0,
           "nothing of nothing is to be 0 percent")
    yield "no parameters", nn.ReLU(), 0, 0, "nothing of nothing is to be 0 percent"


@exercise
def trainable_share(answer: Callable) -> Iterator[Property]:
    """08.3: how many parameters are trained, of how many, in percent."""
    for what, model, trained, total, meaning in _models():
        flags = [p.requires_grad for p in model.parameters()]
        try:
            got = as_list(answer(model))
        except NotImplementedError as error:  # on the meta device; of a stub it is another thing
            if "meta" not in str(error):
                raise
            yield expect(what, False, (True, f"{meaning} ({error})"))
            return
        numbers = got is not None and len(got) == 3 and [as_tensor(number) for number in got]
        if not numbers or any(n is None or n.dim() for n in numbers):
            yield expect(what, False, (True, "three numbers were wanted: trained, all, percent"))
            return
        parts = [number.item() for number in numbers]
        percent = 100 * trained / total if total else 0.0
        yield expect(
            f"{what}: {trained:,} of {total:,}", parts[:2] == [trained, total]
            and same(parts[2], percent, 1e-9) and flags == [p.requires_grad
                                                            for p in model.parameters()],
            (parts[:2] == [total, trained] != [trained, total], "the two are exchanged: the "
                                                                "trained ones come first"),
            (parts[:2] == [total - trained, total] and trained != total - trained,
             "these are the frozen ones"),
            (parts[:2] != [trained, total], f"you said {parts[0]:,.0f} of {parts[1]:,.0f}: "
                                            f"{meaning}"),
            (same(parts[2] * 100, percent), "a share was given: times 100 it is in percent"),
            (is_rounded(parts[2], percent), "the percentage is rounded: leave that to who prints"),
            (not same(parts[2], percent, 1e-9), f"{parts[2]:g} percent, expected {percent:g}: "
                                                "trained over all"),
            (True, "counting changed what is trained"))


# 08.4 ---------------------------------------------------------------------------------------


def _planted(rows: int, columns: int, values: list[float], name: str = "") -> Tensor:
    """A matrix with these singular values, and zeros for the others."""
    left, right = (torch.linalg.qr(draw(size, len(values), name=f"{side} {name}").double())[0]
                   for side, size in (("left", rows), ("right", columns)))
    return (left * torch.tensor(values, dtype=torch.float64) @ right.T).float()


TENTHS = [0.1**0.5] * 10


def _spectra() -> Iterator[tuple[str, dict[str, Tensor], float, dict[str, int], str]]:
    """(what it is, updates, share, ranks, what a wrong rank most likely means)."""
    diagonal = torch.diag(torch.tensor([3.0, 4.0, 0.0]))
    yield ("a diagonal of 3 and 4, share 0.64 met exactly", {"q": diagonal}, 0.64, {"q": 1},
           "16 of 25 is 0.64: square the singular values, and what is met exactly is met")
    yield ("the same, share 0.65", {"q": diagonal}, 0.65, {"q": 2}, "16 of 25 is not enough")
    yield ("ten equal values, share 0.8", {"q": torch.diag(torch.tensor(TENTHS))}, 0.8, {"q": 8},
           "eight of ten hold 0.8, though rounding may say 0.7999999: allow for it")
    yield ("ten equal values, share 0.3", {"q": _planted(12, 10, TENTHS)}, 0.3, {"q": 3},
           "three of ten hold 0.3, though rounding may say 0.2999999: allow for it")
    yield ("zeros", {"q": torch.zeros(4, 6)}, 0.9, {"q": 0}, "no update needs no rank")
    deficient = _planted(20, 30, [5.0, 2.0, 1.0])
    yield ("20 by 30 of rank 3, all of the energy", {"q": deficient}, 1.0, {"q": 3},
           "the other singular values are rounding: three hold everything")
    yield ("the same, a hundredth of the energy", {"q": deficient}, 0.01, {"q": 1},
           "an update that is not zero needs one rank at least")
    yield ("the same, upright and small", {"q": 1e-4 * deficient.T}, 0.9, {"q": 2},
           "the share is of its own energy, however small that is")
    yield ("the same, a million million times smaller", {"q": 1e-12 * deficient}, 0.9, {"q": 2},
           "the share is of its own energy: no fixed number is small")
    faint = _planted(20, 30, [5.0, 2.0, 1.0, 0.02], "faint")
    yield ("a fourth, faint direction, all of the energy", {"q": faint}, 1.0, {"q": 4},
           "a direction that holds a hundred thousandth is more than rounding")
    yield ("a single row", {"q": torch.tensor([[0.5, -2.0, 1.0]])}, 0.99, {"q": 1},
           "a row has rank one")
    slow = _planted(40, 30, [0.9**place for place in range(30)], "slow")
    yield ("thirty values that fall slowly", {"q": slow}, 0.95, {"q": 15},
           "1 - 0.81^r reaches 0.95 of the whole at r = 15")
    yield ("the same, share 0.99", {"q": slow}, 0.99, {"q": 22},
           "1 - 0.81^r reaches 0.99 of the whole at r = 22")
    yield ("two matrices, the second a thousand times smaller",
           {"v": deficient, "q": 1e-3 * slow}, 0.95, {"v": 2, "q": 15},
           "each matrix has an energy of its own")
    yield ("a bfloat16 update", {"q": diagonal.bfloat16()}, 0.65, {"q": 2},
           "convert it: torch has no svdvals for bfloat16")
    yield "no matrices", {}, 0.9, {}, "an empty dictionary comes back"


@exercise
def ranks_from_svd(answer: Callable) -> Iterator[Property]:
    """08.4: the smallest rank that holds a share of the energy, for each matrix."""
    for what, updates, share, ranks, meaning in _spectra():
        given = {name: update.clone() for name, update in updates.items()}
        got = answer(given, share)
        got = dict(got) if isinstance(got, dict) else got
        named = isinstance(got, dict) and got.keys() == ranks.keys()
        values = [as_tensor(got[name]) for name in ranks] if named else []
        whole = all(v is not None and v.dim() == 0 and v == v.round() for v in values)
        said = [int(v) for v in values] if whole else []
        telling = max(ranks.values(), default=0) > 9  # so that no two mistakes agree by chance
        yield expect(
            f"{what}: {', '.join(map(str, ranks.values())) or 'nothing'}",
            named and whole and said == list(ranks.values())
            and all(torch.equal(given[name], updates[name]) for name in updates),
            (not named, "return a dictionary with a rank for each name"),
            (not whole, "a rank is a whole number"),
            (telling and said == _counted(updates, share, 1),
             "the energy is the sum of the squares, not of the singular values"),
            (said == list(ranks.values()), "the matrices were changed in place"),
            (said == _pooled(updates, share), "the energies were put together: " + meaning),
            (telling and said == _counted(updates, 1 - share, 2), "the rest is measured, not what "
                                                                  "is held"),
            (True, f"you said {', '.join(map(str, said))}: {meaning}"))


def _counted(updates: dict[str, Tensor], share: float, power: int) -> list[int]:
    """Ranks by the sum of singular values to a power: 1 is a mistake to recognise."""
    found = []
    for update in updates.values():
        parts = torch.linalg.svdvals(update.double())**power
        short = int((parts.cumsum(0) < share * parts.sum() * (1 - 1e-6)).sum())
        found.append(short + 1 if parts.sum() > 0 else 0)
    return found


def _pooled(updates: dict[str, Tensor], share: float) -> list[int]:
    """Ranks by one threshold over all matrices, which is a mistake to recognise."""
    if len(updates) < 2:
        return []
    parts = [torch.linalg.svdvals(update.double()).square() for update in updates.values()]
    ordered = torch.cat(parts).sort(descending=True).values
    least = ordered[int((ordered.cumsum(0) < share * ordered.sum()).sum())]
    return [int((part >= least).sum()) for part in parts]

