"""How surprised is a model by a text? Nats per token, perplexity, bits per byte.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.data.packing import reading_options

IGNORED = -100
BANDS = ((50, "excellent"), (100, "good"), (200, "okay"), (math.inf, "poor"))


@dataclass(frozen=True)
class Score:
    """The surprise of a model over a text, kept as sums, so that parts add up correctly.

    `num_bytes` counts the bytes of the text that the tokens spell; 0 says that they do not spell
    it, and the bits per byte are infinite. `windows` has (nats, tokens) of each piece.

    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """

    nats: float = 0.0
    tokens: int = 0
    num_bytes: int = 0
    windows: tuple[tuple[float, int], ...] = ()

    def __add__(self, other: Score) -> Score:
        return Score(self.nats + other.nats, self.tokens + other.tokens,
                     self.num_bytes + other.num_bytes, self.windows + other.windows)

    @property
    def loss(self) -> float:
        """Mean nats per token: every token counts once, whatever batch it was in."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """e to the loss: among how many equally likely tokens the model hesitates."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """The same for every tokenizer: bits spent on the text, over the text's bytes."""
        return self.nats / math.log(2) / self.num_bytes if self.num_bytes else math.inf


@torch.no_grad()
def score_batches(model: nn.Module, batches: Iterable[tuple[Tensor, ...]]) -> Score:
    """Sum the surprise over batches of (ids, targets) or (ids, targets, mask).

    Targets of -100 count for nothing. Never averages averages: batches may be ragged.

    Shapes:   ids and targets (batch, time)
    Raises:   ValueError when nothing was predicted
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    was_training, _ = model.training, model.eval()
    windows: list[tuple[float, int]] = []
    try:
        for ids, targets, *mask in batches:
            seen = mask[0].to(device) if mask and mask[0] is not None else None
            logits = model(ids.to(device), **reading_options(model, seen)).float()
            targets = targets.to(device)
            nats = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none",
                                   ignore_index=IGNORED)  # (batch, time)
            counts = (targets != IGNORED).sum(dim=1)
            windows += zip(nats.double().sum(dim=1).tolist(), counts.tolist(), strict=True)
    finally:
        model.train(was_training)
    tokens = sum(count for _, count in windows)
    if not tokens:
        raise ValueError("there is nothing to predict: a text needs two tokens or more")
    return Score(math.fsum(nats for nats, _ in windows), tokens, 0, tuple(windows))


def score_text(model: nn.Module, tokenizer: object, text: str, seq_len: int, size: int = 16,
               stride: int | None = None) -> Score:
    """Score a text of any length, cut into windows of `seq_len`; the last one may be shorter.

    The first token has nothing before it and is not predicted; its bytes do not count either.
    With a `stride` the windows slide by it, and each token is scored once, in the first window
    that reaches it: behind the first window it has `seq_len - stride` tokens before it or more.

    Raises:   ValueError for a text of fewer than two tokens, or a stride outside 1..seq_len
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    encode = getattr(tokenizer, "encode_ordinary", tokenizer.encode)
    ids = encode(text)
    if stride is not None and not 1 <= stride <= seq_len:
        raise ValueError(f"stride={stride} is not within 1..seq_len={seq_len}")
    tokens = torch.tensor(ids, dtype=torch.long)
    score = score_batches(model, _windows(tokens, seq_len, size) if stride is None
                          else _sliding(tokens, seq_len, stride))
    if tokenizer.decode(ids) != text:
        return score  # the tokens do not hold the text: no honest number of bytes
    if hasattr(tokenizer, "token_bytes"):
        first = len(tokenizer.token_bytes(ids[0]))
    else:  # a byte that is part of a character decodes to U+FFFD
        first = len(tokenizer.decode(ids[:1]).replace("\ufffd", "?").encode("utf-8"))
    return score + Score(num_bytes=len(text.encode("utf-8")) - first)


def _windows(ids: Tensor, seq_len: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    whole = (len(ids) - 1) // seq_len
    inputs = ids[: whole * seq_len].view(whole, seq_len)
    targets = ids[1 : whole * seq_len + 1].view(whole, seq_len)
    for start in range(0, whole, size):
        yield inputs[start : start + size], targets[start : start + size]
    if whole * seq_len < len(ids) - 1:
        yield ids[None, whole * seq_len : -1], ids[None, whole * seq_len + 1 :]


def _sliding(ids: Tensor, seq_len: int, stride: int) -> Iterator[tuple[Tensor, Tensor]]:
    done = 0  # targets scored so far
    while done < len(ids) - 1:
        end = min(len(ids) - 1, seq_len if done == 0 else done + stride)
        start = max(0, end - seq_len)
        targets = ids[start + 1 : end + 1].clone()
        targets[: done - start] = IGNORED
        yield ids[None, start:end], targets[None]
        done = end


def band(perplexity: float) -> str:
    """The word that early notes of this course gave to a perplexity, with a warning.

    Raises:   ValueError for a number below 1, which no perplexity is
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    if not perplexity >= 1:
        raise ValueError(f"perplexity={perplexity} is below 1: is this a loss?")
    warnings.warn("these bands belong to one tokenizer: a perplexity per token of 50 is 10 or 200 "
                  "under another, with the same predictions; compare bits per byte", stacklevel=2)
    return next(word for top, word in BANDS if perplexity < top or top == math.inf)
