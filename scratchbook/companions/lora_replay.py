"""Old texts mixed into the batches of a new task, against forgetting.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from scratchbook.data.batches import Batch, hash_of
from scratchbook.data.documents import Document
from scratchbook.finetuning.data import Example, FineTuningData, padded
from scratchbook.runtime import named_generator
from scratchbook.tokenizers import Tokenizer


class Replay:
    """A task's batches in which a share of the rows are old texts.

    `past` are lists of examples; each list gives as many rows. The held-out part is the task's.

    Raises:   ValueError when there is no past, or `share` is not within 0..1
    """

    def __init__(self, task: FineTuningData, past: Sequence[Sequence[Example]],
                 share: float = 0.5):
        if not past or not all(past) or not 0 < share < 1:
            raise ValueError(f"share={share} must lie within 0..1, and each past hold an example")
        self.task, self.past, self.share = task, past, share
        self.bytes_per_token = task.bytes_per_token

    def fingerprint(self) -> str:
        """A hash of the task and of all old texts."""
        ids = torch.tensor([i for some in self.past for example in some for i in example.ids])
        return hash_of(ids, note=f"{self.task.fingerprint()} {self.share}")

    def batch(self, step: int, size: int) -> Batch:
        """The rows of the task first; old ones are drawn anew for each step.

        Shapes:   -> ids and targets (size, time)
        """
        old = min(size - 1, round(self.share * size))
        generator = named_generator(self.task.seed, f"replay {step}")
        rows = []
        for number in range(old):
            some = self.past[number % len(self.past)]
            rows.append(some[int(torch.randint(len(some), (), generator=generator))])
        return joined(self.task.batch(step, size - old), padded(rows))

    def validation(self, size: int) -> Iterator[Batch]:
        """What the task holds out."""
        return self.task.validation(size)


def joined(first: Batch, second: Batch) -> Batch:
    """Two batches below each other; the shorter rows are filled with what is no target.

    Shapes:   (a, time), (b, time) -> (a + b, longer time)
    """
    width = max(first.ids.shape[1], second.ids.shape[1])
    parts = [torch.cat([torch.nn.functional.pad(x, (0, width - x.shape[1]), value=fill)
                        for x in pair])
             for pair, fill in (((first.ids, second.ids), 0), ((first.targets, second.targets),
                                                               -100))]
    return Batch(*parts)


def text_rows(documents: Sequence[Document], tokenizer: Tokenizer, rows: int, length: int
              ) -> list[Example]:
    """The first `length` ids of documents drawn evenly, all of them to be learned.

    Raises:   ValueError when none of them is that long
    """
    found = []
    for document in documents[:: max(1, len(documents) // rows)]:
        ids = tokenizer.encode(document.text[: 8 * length])[:length]
        if len(ids) == length:
            found.append(Example(ids, [True] * length))
    if not found:
        raise ValueError(f"no document has {length} ids")
    return found[:rows]
