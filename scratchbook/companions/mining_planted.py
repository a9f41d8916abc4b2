"""Chapter 06e's planted task: the same random letters twice, and a model that learns to look back.

Chapter:  chapters/06e_pattern_mining.ipynb
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.config import ModelConfig
from scratchbook.data.batches import Batch
from scratchbook.interpret import capture
from scratchbook.interpret.patterns import head_scores, induction
from scratchbook.model import DecoderLM
from scratchbook.training import TrainConfig, train

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef"
TIME, SHORTEST, LONGEST = 32, 16, 22  # tokens of a text; of what is repeated
FILM = "INDUCTOHEAMSPRYB"  # as long as the shortest texts that are trained on
AS_LARGE = 214  # d_ff with which one layer has as many parameters as two with 64
HELD_OUT = 10**6  # steps from here on draw texts that no run trains on


@dataclass(frozen=True)
class Repeats:
    """Texts of distinct letters drawn by chance, then the same again from the start.

    How many letters come before the repetition differs from text to text, so that no single
    distance will do. Only the second half counts: the first cannot be known. With `repeated` False
    every letter is drawn by chance, and all of them count.

    Chapter:  chapters/06e_pattern_mining.ipynb
    """

    seed: int = 0
    repeated: bool = True

    def batch(self, step: int, size: int) -> Batch:
        """The batch of one step: ids and targets (size, time)."""
        draw = torch.Generator().manual_seed(1_000_003 * self.seed + step)
        places = torch.arange(TIME + 1).expand(size, -1)
        if not self.repeated:
            ids = torch.randint(len(LETTERS), (size, TIME + 1), generator=draw)
            return Batch(ids[:, :-1], ids[:, 1:].clone())
        letters = torch.rand(size, len(LETTERS), generator=draw).argsort(1)
        length = torch.randint(SHORTEST, LONGEST + 1, (size, 1), generator=draw)
        ids = letters.gather(1, places % length)
        targets = ids[:, 1:].masked_fill(places[:, 1:] < length, -100)
        return Batch(ids[:, :-1], targets)

    def validation(self, size: int) -> Iterator[Batch]:
        """One batch that no step trains on."""
        yield self.batch(HELD_OUT, size)

    @property
    def bytes_per_token(self) -> float:
        """A letter is one byte."""
        return 1.0

    def fingerprint(self) -> str:
        """What the texts depend on."""
        return f"repeats {self.seed} {self.repeated} {TIME} {SHORTEST} {LONGEST}"


@dataclass
class Grown:
    """A planted run: at each watched step the loss on repeated texts and every head's score.

    Chapter:  chapters/06e_pattern_mining.ipynb
    """

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    scores: list[list[list[float]]] = field(default_factory=list)  # (layers, heads) each
    maps: list[Tensor] = field(default_factory=list)  # the last layer's mean over heads
    samples: list[str] = field(default_factory=list)
    model: nn.Module | None = None

    @property
    def best(self) -> list[float]:
        """The highest score of any head, at each watched step."""
        return [max(max(row) for row in table) for table in self.scores]

    def best_head(self) -> tuple[int, int]:
        """(layer, head) of the highest score at the end."""
        return self.ranked()[0]

    def ranked(self, at_least: float = 0.0) -> list[tuple[int, int]]:
        """(layer, head) of all that end at a score or above it, the highest first."""
        table = self.scores[-1]
        places = [(layer, head) for layer, row in enumerate(table) for head in range(len(row))]
        return sorted((place for place in places if table[place[0]][place[1]] >= at_least),
                      key=lambda place: -table[place[0]][place[1]])

    def film(self) -> dict:
        """What the living figure `film` plays."""
        ids = film_ids()
        return {"steps": self.steps, "losses": self.losses, "samples": self.samples,
                "curve": [[s, round(x, 3)] for s, x in zip(self.steps, self.losses, strict=True)],
                "attention": [[[round(w, 3) for w in row] for row in table.tolist()]
                              for table in self.maps],
                "tokens": [LETTERS[i] for i in ids.tolist()]}


def film_ids() -> Tensor:
    """The text of the film: sixteen different letters, and the same again."""
    letters = [LETTERS.index(letter) for letter in FILM]
    return torch.tensor(letters * 2)


def new_model(num_layers: int, seed: int, d_ff: int = 64) -> DecoderLM:
    """Rotary places, four heads to a layer, one table for letters in and out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DecoderLM(ModelConfig(vocab_size=len(LETTERS), max_seq_len=TIME, d_model=64,
                                     num_layers=num_layers, num_heads=4, d_ff=d_ff,
                                     tie_embeddings=True))


@torch.no_grad()
def judge(model: nn.Module, seed: int, texts: int = 32) -> tuple[float, Tensor]:
    """The loss on held-out repeated texts, and each head's induction score: (layers, heads)."""
    batch = Repeats(seed + 77).batch(HELD_OUT, texts)
    with capture(model) as seen:
        logits = model(batch.ids)
    loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    maps = seen.stacked().transpose(0, 1)  # (texts, layers, heads, time, time)
    scores = [head_scores(table, induction(ids))[0]
              for table, ids in zip(maps, batch.ids, strict=True)]
    return loss.item(), torch.stack(scores).mean(0)


def grow(num_layers: int = 2, repeated: bool = True, seed: int = 0, max_steps: int = 300,
         watch: Sequence[int] = (), lr: float = 0.006, d_ff: int = 64) -> Grown:
    """Train on the planted task and watch it; what is judged is always repeated text."""
    grown = Grown()
    watched = set(watch) or set(range(0, max_steps + 1, 25))

    def look(step: int, model: nn.Module) -> None:
        if step not in watched:
            return
        loss, scores = judge(model, seed)
        ids = film_ids()
        with torch.no_grad(), capture(model, layers=[-1]) as seen:
            guesses = model(ids[None])[0].argmax(-1).tolist()
        grown.steps.append(step)
        grown.losses.append(loss)
        grown.scores.append([[round(x, 4) for x in row] for row in scores.tolist()])
        grown.maps.append(next(iter(seen.attention.values()))[0].mean(0))
        # that the repetition begins cannot be known, so its first letter is given
        guessed = "".join(LETTERS[i] for i in guesses[len(FILM):-1])
        grown.samples.append(FILM + FILM[0] + guessed)

    model = new_model(num_layers, seed, d_ff)
    settings = TrainConfig(max_steps=max_steps, batch_size=32, lr=lr, weight_decay=0.0,
                           schedule="constant", warmup_steps=10, eval_every=max_steps,
                           checkpoint_every=max_steps, seed=seed)
    train(model, Repeats(seed, repeated), settings, on_step=look)
    grown.model = model.eval()
    return grown
