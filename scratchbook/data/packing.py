"""Several documents in one row, none of which sees another.

Chapter:  chapters/06b_data_and_curriculum.ipynb
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from scratchbook.attention import causal_mask
from scratchbook.data.batches import IGNORED, Batch, hash_of
from scratchbook.runtime import named_generator

PADDING = -1  # the segment of places that hold nothing
Piece = tuple[int, int, int]  # document, start, stop


def pack_documents(lengths: Sequence[int], seq_len: int) -> list[list[Piece]]:
    """Cut documents into pieces of at most `seq_len` ids and lay them into rows of that length.

    The longest piece comes first, and each goes to the row where it leaves the least room.

    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    pieces = [(number, start, min(start + seq_len, length)) for number, length in enumerate(lengths)
              for start in range(0, length, seq_len)]
    pieces.sort(key=lambda piece: piece[1] - piece[2])  # stable: equal lengths keep their order
    rows: list[list[Piece]] = []
    with_room: dict[int, list[int]] = defaultdict(list)
    for piece in pieces:
        size = piece[2] - piece[1]
        room = next((room for room in range(size, seq_len) if with_room[room]), seq_len)
        if room == seq_len:
            rows.append([])
            with_room[room].append(len(rows) - 1)
        row = with_room[room].pop()
        rows[row].append(piece)
        with_room[room - size].append(row)
    return rows


def document_mask(segments: Tensor) -> Tensor:
    """Let each place look at the past of its own document, and at nothing else.

    Shapes:   segments (batch, time) -> (batch, 1, time, time), bool, True = may look
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    same = segments[:, :, None] == segments[:, None, :]  # (batch, time, time)
    return (same & causal_mask(segments.shape[1], device=segments.device))[:, None]


def restart_positions(segments: Tensor) -> Tensor:
    """Count from zero in every document of a row.

    Shapes:   segments (batch, time) -> (batch, time)
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    places = torch.arange(segments.shape[1]).expand_as(segments)
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return places - (places * begins).cummax(dim=1).values


def reading_options(model: object, mask: Tensor | None) -> dict[str, Tensor]:
    """What a model needs besides its ids to read a row of documents: the mask, and places.

    Rotary turns and ALiBi feel distances alone. Learned and sinusoidal places are told where
    each document begins: as many tokens back as its mask lets a token see, itself not counted.

    Shapes:   mask (batch, 1, time, time) -> {"mask": ..., "positions": (batch, time)}
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    if mask is None:
        return {}
    kind = getattr(getattr(model, "config", None), "positions", None)
    if kind not in ("learned", "sinusoidal") or mask.shape[-2] != mask.shape[-1]:
        return {"mask": mask}
    return {"mask": mask, "positions": mask[:, 0].sum(dim=-1) - 1}


class PackedDocuments:
    """Documents as batches with masks: the same two methods as `Windows`.

    In each document every id but the last is read and every id but the first is a target; what
    fills a row up is ignored. `masked=False` leaves the masks out: neighbours see each other.

    Shapes:   documents: sequences of ids, each (its length,)
    Raises:   ValueError when no document has two ids
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """

    def __init__(self, train: Sequence[Sequence[int]], validation: Sequence[Sequence[int]],
                 seq_len: int, seed: int = 0, bytes_per_token: float = 1.0, masked: bool = True):
        self.seed, self.masked, self.bytes_per_token = seed, masked, bytes_per_token
        self.train_rows = lay_out(train, seq_len)
        self.validation_rows = lay_out(validation, seq_len)

    def fingerprint(self) -> str:
        """A hash of every row: equal hashes, equal batches."""
        note = f"{self.seed} {self.masked}"
        return hash_of(self.train_rows, self.validation_rows, note=note)

    def batch(self, step: int, size: int) -> Batch:
        """`size` rows drawn for this step.

        Shapes:   -> ids and targets (size, time), mask (size, 1, time, time) or None
        """
        generator = named_generator(self.seed, f"batch {step}")
        rows = torch.randint(self.train_rows.shape[1], (size,), generator=generator)
        return self._read(self.train_rows[:, rows])

    def validation(self, size: int) -> Iterator[Batch]:
        """All held-out rows in order, `size` at a time."""
        for start in range(0, self.validation_rows.shape[1], size):
            yield self._read(self.validation_rows[:, start : start + size])

    def _read(self, rows: Tensor) -> Batch:
        ids, targets, segments = rows.long()
        return Batch(ids, targets, document_mask(segments) if self.masked else None)


def lay_out(documents: Sequence[Sequence[int]], seq_len: int) -> Tensor:
    """Ids, targets and segments of every row; a segment is a document's number in its row.

    Shapes:   -> (3, rows, time) int32
    """
    if seq_len < 1 or not any(len(ids) > 1 for ids in documents):
        raise ValueError(f"seq_len={seq_len} must be 1 or more, and one of the {len(documents)} "
                         "documents must have two ids or more")
    rows = pack_documents([len(ids) - 1 for ids in documents], seq_len)
    laid = np.zeros((3, len(rows), seq_len), np.int32)
    laid[1], laid[2] = IGNORED, PADDING
    for number, row in enumerate(rows):
        at = 0
        for segment, (document, start, stop) in enumerate(row):
            place, ids = slice(at, at + stop - start), documents[document]
            laid[0, number, place] = ids[start:stop]
            laid[1, number, place] = ids[start + 1 : stop + 1]
            laid[2, number, place] = segment
            at = place.stop
    return torch.from_numpy(laid)
