"""The checks of chapter 02b's exercises: properties first, then the mistakes people make.

Chapter:  chapters/02b_attention_variants.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from scratchbook.attention import attend, window_mask
from scratchbook.teaching.answers import as_list, as_tensor, changes_its_input, counterexample
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw


def same(got: object, want: Tensor, atol: float = 1e-6) -> bool:
    """A tensor of the same shape whose entries are all close."""
    return (torch.is_tensor(got) and got.shape == want.shape
            and torch.allclose(got.to(want.dtype), want, atol=atol, rtol=1e-5))


def in_tensors(answer: Callable, parts: int = 0) -> Callable:
    """The answer with its numbers as a tensor, or as a tuple of `parts` tensors."""
    def call(*arguments: object) -> object:
        got = answer(*arguments)
        if not parts:
            return _float(got)
        items = as_list(got) or []
        if len(items) != parts:
            raise ValueError(f"return {parts} things, not {len(items) or type(got).__name__}")
        return tuple(_float(item) for item in items)
    return call


def _float(got: object) -> Tensor:
    numbers = as_tensor(got)
    if numbers is None:
        raise TypeError(f"numbers are wanted, not {type(got).__name__}")
    return numbers.float()


@exercise
def repeat_kv(answer: Callable) -> Iterator[Property]:
    """02b.1: hand every query head the key of its group."""
    answer = in_tensors(answer)
    x = draw(2, 3, 5, 4, name="kv")
    got, want = answer(x, 2), x.repeat_interleave(2, dim=1)
    shape = tuple(got.shape)
    yield expect(
        "3 key heads and groups of 2 give 6", shape == (2, 6, 5, 4),
        (shape == (2, 3, 10, 4), "that repeats in time: the head axis is the second, dim=1"),
        (shape == (4, 3, 5, 4), "that repeats the batch: the head axis is the second, dim=1"),
        (shape == (2, 3, 2, 5, 4), "the new axis must be merged into the heads: flatten(1, 2)"),
        (True, f"expected (2, 6, 5, 4), got {shape}"))
    yield expect(
        "neighbours share: heads 0 and 1 read the first", same(got, want),
        (same(got, x.repeat(1, 2, 1, 1)), "heads 0 and 3 share in your answer: `repeat` lays whole "
         "copies side by side, the convention repeats each head in place"),
        (same(got.flatten().sort().values, want.flatten().sort().values),
         "the heads stand in another order"),
        (True, counterexample(answer, _repeat, [(x, 2)])))
    yield expect("a group of one changes nothing", same(answer(x, 1), x),
                 (True, "with group=1 every head has its own key already"))
    differs = counterexample(answer, _repeat, [(draw(1, 2, 3, 5, name="kv of 2"), 3), (x, 4)])
    yield expect("groups of three and four", not differs,
                 (same(got, want), f"{differs}: the group's size is what is given"),
                 (True, differs))


def _repeat(x: Tensor, group: int) -> Tensor:
    return x.repeat_interleave(group, dim=1)


def _untouched(answer: Callable, *arguments: object) -> Property:
    return expect("what is given is left as it was", not changes_its_input(answer, *arguments),
                  (True, "a tensor of the caller was changed in place: compute a new one"))


@exercise
def roll(answer: Callable) -> Iterator[Property]:
    """02b.2: what a window's cache shows and what it keeps."""
    answer = in_tensors(answer, parts=2)
    window, tokens = 4, torch.arange(12.0)[:, None]
    yield (clean := _untouched(answer, tokens[:2].clone(), tokens[2:3].clone(), window))
    if not clean.passed:
        return
    seen, kept = answer(tokens[:2], tokens[2:3], window)
    yield expect("new tokens are shown behind what was kept", same(seen, tokens[:3]),
                 (same(seen, tokens[2:3]), "only the new rows are shown: those that were kept come "
                  "before them"),
                 (same(seen[:1], tokens[2:3]), "newest first: keep the order of the text"),
                 (True, f"expected 0, 1, 2, got {seen.flatten().tolist()}"))
    seen, kept = answer(tokens[:3], tokens[3:4], window)
    yield expect(
        "window 4: the three newest are kept", same(kept, tokens[1:4]),
        (len(kept) == 4, "one too many: the next query is itself the fourth in its window"),
        (len(kept) == 2, "one too few: with itself, the next query sees only three tokens"),
        (same(kept, tokens[:3]), "the oldest were kept, not the newest"),
        (True, f"expected 1, 2, 3, got {kept.flatten().tolist()}"))
    seen, kept = answer(tokens[:0], tokens, window)
    yield expect(
        "a prompt longer than the window is shown whole", same(seen, tokens),
        (len(seen) <= window, "it was cut before anybody looked: the early tokens of the prompt "
                              "still have queries of their own"),
        (True, f"{len(seen)} of 12 shown"))
    yield expect(
        "and of it the three newest are kept", same(kept, tokens[9:]),
        (len(kept) > 3, f"{len(kept)} rows are kept: the next query sees only window - 1 = 3 "
                        "before itself"),
        (same(kept, tokens[:3]), "the oldest were kept, not the newest"),
        (True, f"expected 9, 10, 11, got {kept.flatten().tolist()}"))
    seen, kept = answer(tokens[:0], tokens[:3], 1)
    yield expect(
        "a window of one keeps nothing", len(kept) == 0,
        (len(kept) == 3, "x[-0:] is everything: count from the front instead"),
        (True, f"{len(kept)} kept"))
    yield expect("token by token it equals the mask", _equals_mask(answer, window),
                 (True, "run it over twelve tokens and compare with window_mask"))

    def reference(kept: Tensor, new: Tensor, window: int) -> tuple[Tensor, Tensor]:
        seen = torch.cat([kept, new])
        return seen, seen[max(len(seen) - window + 1, 0):]

    inputs = [(tokens[:past], tokens[past:past + more], size) for size in (1, 2, 3, 5)
              for past in range(size) for more in (1, 2, 3, 4, 7)]
    differs = counterexample(answer, reference, inputs)
    yield expect(f"windows of 1, 2, 3 and 5 after {len(inputs)} pasts", not differs,
                 (True, differs))


def _equals_mask(answer: Callable, window: int) -> bool:
    x, kept, parts = draw(12, 3, name="roll"), torch.zeros(0, 3), []
    for t in range(12):
        seen, kept = answer(kept, x[t : t + 1], window)
        if len(seen) == 0 or seen.dim() != 2:
            return False
        parts.append(attend(x[t : t + 1], seen, seen))
    return same(torch.cat(parts), attend(x, x, x, window_mask(12, window)), 1e-5)


def _in_blocks(answer: Callable, scores: Tensor, values: Tensor, size: int) -> Tensor:
    state = (torch.tensor(-math.inf), torch.tensor(0.0), torch.zeros(values.shape[1]))
    for start in range(0, len(scores), size):
        part = slice(start, start + size)
        state = answer(*state, scores[part], values[part])
    return state[2] / state[1]


def _in_any_blocks(answer: Callable, scores: torch.Tensor, values: torch.Tensor
                   ) -> Iterator[Property]:
    """Blocks of other sizes, and scores that are very large or very low."""
    want, one = scores.softmax(0) @ values, _in_blocks(answer, scores, values, 12)
    blocks = _in_blocks(answer, scores, values, 4)
    sizes = [_in_blocks(answer, scores, values, size) for size in (1, 5, 7)]
    yield expect("blocks of any size agree",
                 same(blocks, want, 1e-5) and all(same(x, want, 1e-5) for x in sizes),
                 (same(one, want, 1e-5), "one block alone is right: what does the result owe to "
                  "the number of scores in a block?"), (True, "mend the single block first"))
    large, turned = (_in_blocks(answer, 1000 * s, v, 4)
                     for s, v in ((scores, values), (scores.flip(0), values.flip(0))))
    right = (1000 * scores).softmax(0) @ values
    yield expect("scores in the thousands do not overflow, rising or falling",
                 same(large, right, 1e-5) and same(turned, right, 1e-5),
                 (large.isfinite().all() and not turned.isfinite().all(), "rising scores are "
                  "right, falling ones are not: the maximum of the whole block is needed"),
                 (large.isfinite().all(), "no overflow, but another result: mend the cases above"),
                 (True, "exp of a large number is inf: subtract the largest before exp"))
    negative = _in_blocks(answer, scores - 5000, values, 4)
    yield expect("nor do scores of minus five thousand vanish",
                 same(negative, (scores - 5000).softmax(0) @ values, 1e-4),
                 (True, "exp of -5000 is 0, and 0 / 0 is NaN: the maximum starts at -inf, not at "
                        "0, and keeps its sign"))


@exercise
def online_step(answer: Callable) -> Iterator[Property]:
    """02b.3: softmax over blocks that never meet."""
    answer = in_tensors(answer, parts=3)
    values = draw(12, 3, name="values")
    scores = 3 * draw(12, name="scores").sort().values  # each block brings a larger score
    want = scores.softmax(0) @ values
    one = _in_blocks(answer, scores, values, 12)
    yield expect("one block equals softmax", same(one, want, 1e-5),
                 (not one.isfinite().all(), "NaN: at the start the largest is -inf; "
                                            "exp(old - new) is then 0, exp(new - old) inf"),
                 (same(one * (scores - scores.max()).exp().sum(), want, 1e-4),
                  "divided inside the step: blocks still to come add to the sum, so the division "
                  "waits until after the last"),
                 (True, f"expected {want.tolist()}, got {one.tolist()}"))
    state = answer(torch.tensor(2.0), torch.tensor(1.0), torch.ones(1), torch.tensor([5.0]),
                   torch.zeros(1, 1))
    shrink = math.exp(-3)
    yield expect(
        "a larger score shrinks what was summed", same(state[1], torch.tensor(1 + shrink), 1e-5),
        (same(state[1], torch.tensor(2.0)), "the old sum was made with another maximum: shrink it "
                                            "by exp(old - new)"),
        (same(state[1], torch.tensor(1 + math.exp(5)), 1e-3), "no maximum was taken out: exp of a "
                                                              "large score overflows"),
        (same(state[1], torch.tensor(1 + math.exp(3)), 1e-3), "it grew: the factor is "
         "exp(old - new), below one"),
        (True, f"expected {1 + shrink:.4f}, got {float(state[1]):.4f}"))
    yield expect(
        "and the mixed values with it", same(state[2], torch.full((1,), shrink), 1e-5),
        (same(state[2], torch.ones(1)) and not same(state[1], torch.tensor(1 + shrink), 1e-5),
         "neither was shrunk as it should: both were made with the old maximum"),
        (same(state[2], torch.ones(1)), "only the sum was shrunk: the values were mixed with the "
                                        "same old weights"),
        (True, f"expected {shrink:.4f}, got {state[2].tolist()}"))
    yield expect("and the new maximum is handed on", same(state[0], torch.tensor(5.0)),
                 (True, f"the largest so far is 5, but {float(state[0]):g} came back"))
    lower = answer(torch.tensor(2.0), torch.tensor(1.0), torch.ones(1), torch.tensor([-1.0]),
                   torch.zeros(1, 1))
    falling = _in_blocks(answer, scores.flip(0), values.flip(0), 4)
    yield expect("the order of blocks does not matter", same(falling, want, 1e-5),
                 (not same(one, want, 1e-5), "mend the single block first"),
                 (same(lower[0], torch.tensor(2.0)) and same(state[0], torch.tensor(5.0)),
                  "the maximum is kept, but the new weights were made with the block's own: "
                  "exp(scores - new)"),
                 (True, "a later block with smaller scores must not lower the maximum: take the "
                        "larger of the old and the block's"))
    apart = _in_blocks(answer, torch.tensor([1000.0, 0.0]), values[:2], 1)
    yield expect("a score of 1000 and, in the next block, one of 0", same(apart, values[0], 1e-5),
                 (not apart.isfinite().all(), "the new maximum is the larger of the old one and "
                  "the block's. With the block's own, 0, the old sum is multiplied by exp(1000)"),
                 (True, f"expected {values[0].tolist()}, got {apart.tolist()}"))
    yield from _in_any_blocks(answer, scores, values)


@exercise
def absorb(answer: Callable) -> Iterator[Property]:
    """02b.4: let the query meet the latent."""
    answer = in_tensors(answer)
    heads, time, size, latent_dim = 3, 5, 4, 6
    q, up_k = draw(heads, time, size, name="q"), draw(heads * size, latent_dim, name="up")
    latent = draw(9, latent_dim, name="latent")
    keys = (latent @ up_k.T).unflatten(-1, (heads, size)).transpose(0, 1)
    yield (clean := _untouched(answer, q, up_k))
    if not clean.passed:
        return
    got = answer(q, up_k)
    shape = tuple(got.shape)
    yield expect("queries of the latent's width, five for each head",
                 shape == (heads, time, latent_dim),
                 (shape == (heads, 1, latent_dim), "one query came back for each head; there are "
                                                   "as many as positions"),
                 (True, f"expected {(heads, time, latent_dim)}, got {shape}"))
    if shape != (heads, time, latent_dim):
        return
    want = q @ keys.transpose(-2, -1)  # (heads, time, keys)
    plain, mixed = got @ latent.T, q @ up_k.view(size, heads, latent_dim).transpose(0, 1)
    factor = math.sqrt(latent_dim / size)
    unlike = (plain * want).sum() / want.square().sum()
    yield expect(
        "scores are those of the unpacked keys, up to one factor",
        same(plain / unlike, want, 1e-4),
        (same(got, mixed, 1e-4) or same(got, mixed * factor, 1e-4), "heads and sizes are mixed "
         "up: the rows of up_k are head by head, so unflatten(0, (heads, head_dim))"),
        (True, "multiply q of each head by its own slice of up_k, (head_dim, latent_dim)"))
    value = draw(9, 2, name="v")
    yield expect(
        "attend(absorb(q), latent) weighs as attend(q, keys)",
        same(attend(got, latent.expand(heads, -1, -1), value.expand(heads, -1, -1)),
             attend(q, keys, value.expand(heads, -1, -1)), 1e-4),
        (math.isclose(float(unlike), 1.0, rel_tol=1e-3), "attend divides by the root of the width "
         "it sees, latent_dim; the scores want the root of head_dim"),
        (math.isclose(float(unlike), 1 / factor, rel_tol=1e-3), "the factor stands on its head"),
        (math.isclose(float(unlike), factor**2, rel_tol=1e-3), "the factor wants a root"),
        (math.isclose(float(unlike), -factor, rel_tol=1e-3), "the sign is turned round"),
        (True, f"the scores are {float(unlike):.3f} times too large, wanted {factor:.3f}"))
    inputs = [(draw(2, 1, 3, name="q of 2"), draw(6, 8, name="up of 2")),
              (draw(4, 2, 5, name="q of 4"), draw(20, 3, name="up of 4"))]
    differs = counterexample(answer, _absorb, inputs, 1e-4)
    yield expect("two and four heads of other sizes", not differs, (True, differs))


def _absorb(q: Tensor, up_k: Tensor) -> Tensor:
    heads, _, size = q.shape
    return q @ up_k.unflatten(0, (heads, size)) * math.sqrt(up_k.shape[1] / size)
