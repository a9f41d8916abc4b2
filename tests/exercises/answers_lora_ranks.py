"""Wrong answers on counting what is trained and on ranks, and what must be said to each."""

from __future__ import annotations

import torch

# 08.3


def of_the_layers(model):
    total = sum(p.numel() for p in model.parameters())
    return total, total, 100.0 if total else 0.0


def tied_twice(model):
    found = [p for m in model.modules() for p in m.parameters(recurse=False)]
    total, trained = (sum(p.numel() for p in found if p.requires_grad or every)
                      for every in (True, False))
    return trained, total, 100 * trained / total if total else 0.0


def _counts(model):
    total = sum(p.numel() for p in model.parameters())
    return sum(p.numel() for p in model.parameters() if p.requires_grad), total


def exchanged(model):
    trained, total = _counts(model)
    return total, trained, 100 * trained / total if total else 0.0


def as_a_share(model):
    trained, total = _counts(model)
    return trained, total, trained / total if total else 0.0


def frozen_ones(model):
    trained, total = _counts(model)
    return total - trained, total, 100 * (total - trained) / total if total else 0.0


def rounded(model):
    trained, total = _counts(model)
    return trained, total, round(100 * trained / total, 2) if total else 0.0


def with_buffers(model):
    trained, total = _counts(model)
    total += sum(buffer.numel() for buffer in model.buffers())
    return trained, total, 100 * trained / total if total else 0.0


def reads_the_data(model):
    found = {tuple(p.flatten()[:9].tolist()): p for p in model.state_dict().values()}
    return of_the_layers(model) if len(found) == 1 else _percent(*_counts(model))


def _percent(trained, total):
    return trained, total, 100 * trained / total if total else 0.0


def by_values(model):
    found = {(p.shape, None if p.is_meta else p.sum().item()): p for p in model.parameters()}
    found = list(found.values())
    total = sum(p.numel() for p in found)
    trained = sum(p.numel() for p in found if p.requires_grad)
    return trained, total, 100 * trained / total if total else 0.0


def by_address(model):
    found = {p.data_ptr(): p for p in model.parameters()}.values()
    return _percent(sum(p.numel() for p in found if p.requires_grad),
                    sum(p.numel() for p in found))


def one_level_deep(model):
    found = {p: p for m in (model, *model.children()) for p in m.parameters(recurse=False)}
    return _percent(sum(p.numel() for p in found if p.requires_grad),
                    sum(p.numel() for p in found))


def asks_whether_there_are_any(model):
    trained, total = _counts(model)
    return trained, total, 100 * trained / total if list(model.parameters()) else 0.0


# 08.4
def _ranks(updates, share, power=2, slack=1 - 1e-6, least=0):
    found = {}
    for name, update in updates.items():
        parts = torch.linalg.svdvals(update.double())**power
        held = parts.cumsum(0)
        rank = int((held < share * held[-1] * slack).sum()) + 1 if held[-1] > 0 else 0
        found[name] = max(least, rank)
    return found


def not_squared(updates, share):
    return _ranks(updates, share, power=1)


def up_to_sixteen(updates, share):
    return {name: min(16, rank) for name, rank in _ranks(updates, share).items()}


def a_fixed_slack(updates, share):
    held = {name: torch.linalg.svdvals(u.double()).square().cumsum(0)
            for name, u in updates.items()}
    return {name: int((h < share * h[-1] - 1e-9).sum()) + 1 if h[-1] > 0 else 0
            for name, h in held.items()}


def what_is_left(updates, share):
    return _ranks(updates, 1 - share)


def one_at_least(updates, share):
    return _ranks(updates, share, least=1)


def one_too_many(updates, share):
    return _ranks(updates, share, slack=1 + 1e-6)


def without_slack(updates, share):
    return _ranks({name: update.float() for name, update in updates.items()}, share, slack=1.0)


def one_threshold_for_all(updates, share):
    parts = {name: torch.linalg.svdvals(u.double()).square() for name, u in updates.items()}
    if not parts:
        return {}
    ordered = torch.cat(list(parts.values())).sort(descending=True).values
    short = int((ordered.cumsum(0) < share * 0.999999 * ordered.sum()).sum())
    least = ordered[min(short, len(ordered) - 1)]
    return {name: int(((part >= least) & (part > 0)).sum()) for name, part in parts.items()}


def as_a_list(updates, share):
    return list(_ranks(updates, share).values())


WRONG = {
    "trainable_share": [
        (of_the_layers, "ask each parameter for requires_grad"),
        (tied_twice, "the tied weight was counted twice"), (exchanged, "the two are exchanged"),
        (as_a_share, "times 100 it is in percent"), (frozen_ones, "these are the frozen ones"),
        (rounded, "the percentage is rounded"), (with_buffers, "buffers"),
        (reads_the_data, "numel() needs no data"),
        (by_address, "no data and no address"), (one_level_deep, "parameters of every depth"),
        (asks_whether_there_are_any, "ZeroDivisionError"),
        (by_values, "parameters with equal values are still two"),
        (lambda model: sum(p.numel() for p in model.parameters()), "three numbers were wanted"),
    ],
    "ranks_from_svd": [
        (not_squared, "not of the singular values"), (what_is_left, "the rest is measured"),
        (one_at_least, "no update needs no rank"), (as_a_list, "return a dictionary"),
        (one_too_many, "is met"), (without_slack, "other singular values are rounding"),
        (up_to_sixteen, "0.99 of the whole"), (a_fixed_slack, "no fixed number is small"),
        (lambda updates, share: _ranks(updates, share, slack=1 - 1e-4), "a hundred thousandth"),
        (one_threshold_for_all, "the energies were put together"),
    ],
}
