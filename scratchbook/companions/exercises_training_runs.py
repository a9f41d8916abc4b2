"""The checks of chapter 06's exercises about whole runs: resuming one, reading its log.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import copy
import functools
import io
import itertools
import pickle
from collections.abc import Callable, Iterator

import torch
from torch import nn

from scratchbook.data.batches import Windows
from scratchbook.runtime import named_generator
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw
from scratchbook.training import TrainConfig, train

HEALTHS = ("healthy", "rate too high", "not learning", "overfitting")


class SmallRun:
    """A training run whose state lies in the usual five places.

    Its batches come from `generator`, its dropout from torch's own, its rate from `step`.
    """

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.generator = torch.Generator().manual_seed(seed)
        self.step = 0

    def advance(self, steps: int) -> None:
        """Train for some steps."""
        for _ in range(steps):
            for group in self.optimizer.param_groups:
                group["lr"] = 0.05 * (1 - self.step / 20)
            x = torch.randn(8, 4, generator=self.generator)
            loss = (self.model(x)[:, 0] - x.sum(1)).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.step += 1


def _places(run: SmallRun) -> dict[str, list]:
    """A copy of all that decides how a run goes on."""
    return copy.deepcopy({
        "model": [p.detach() for p in run.model.parameters()], "step": [run.step],
        "optimizer": [state[name] for state in run.optimizer.state_dict()["state"].values()
                      for name in ("exp_avg", "exp_avg_sq", "step")],
        "generator": [run.generator.get_state()], "torch": [torch.get_rng_state()]})


def _same(first: list, second: list) -> bool:
    pairs = itertools.zip_longest(map(torch.as_tensor, first), map(torch.as_tensor, second))
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in pairs)


def _written(saved: dict) -> tuple[object, str]:
    """What comes back from a file, or why nothing does."""
    file = io.BytesIO()
    try:
        torch.save(saved, file)
        file.seek(0)
        return torch.load(file, weights_only=True), ""
    except (pickle.PickleError, TypeError, AttributeError, RuntimeError) as error:
        return None, f"{type(error).__name__}: {error}".splitlines()[0].split(". ")[0]


@exercise
def resume_exactly(answer: Callable) -> Iterator[Property]:
    """06.4: what a checkpoint must hold."""
    with torch.random.fork_rng(devices=[]):
        yield from _resume(answer)


def _resume(answer: Callable) -> Iterator[Property]:
    run = SmallRun(seed=1)
    run.advance(4)
    saved, then = answer(run), _places(run)
    training = run.model.training
    run.advance(5)  # the run without a break goes on; what was saved must not go with it
    later = _places(run)
    yield expect("saving left the run as it was", training and _as_if_never_saved(later),
                 (not training, "the model was put into eval mode, and dropout strikes nothing out "
                                "any more: save it in the mode it is in"),
                 (True, "after it was saved it went on in another way than a run that was never "
                        "saved: save copies, and change and draw nothing"))
    answer(run)  # a second time, later: what was saved first must not go with it
    loaded, why = _written(saved)
    yield expect(
        "it returns a dictionary that can be written and read back", isinstance(loaded, dict),
        (not isinstance(saved, dict), "called without `saved` it should return a dictionary"),
        (True, f"save state_dict()s and numbers, not the objects themselves ({why})"))
    if not isinstance(loaded, dict):
        return
    other = SmallRun(seed=2)  # another process: other weights, other generators
    answer(other, loaded)
    now = _places(other)
    alias = ("it went on changing after it was saved: state_dict() shows the living tensors. Copy "
             "them (copy.deepcopy)")
    holds = any(isinstance(value, dict | list | torch.Tensor) for value in loaded.values())
    for place, what, lost in _LOST:
        yield expect(f"{what} is back", _same(now[place], then[place]),
                     (holds and _same(now[place], later[place]), alias), (True, lost))
    if any(not _same(now[place], then[place]) for place, *_ in _LOST):
        return
    yield expect("the model is in training mode, as before", other.model.training,
                 (True, "it was put into eval mode, and dropout strikes nothing out any more"))
    other.advance(5)
    yield expect("five steps later, every weight is equal to the last bit",
                 _same(_places(other)["model"], later["model"]),
                 (True, "all places were right, but training moved something else: load into the "
                        "model that is there, whose parameters the optimizer holds"))


def _as_if_never_saved(later: dict[str, list]) -> bool:
    with torch.random.fork_rng(devices=[]):
        untouched = SmallRun(seed=1)
        untouched.advance(9)
        return all(_same(places, later[name]) for name, places in _places(untouched).items())


_LOST = (
    ("model", "every weight", "the weights were lost"),
    ("step", "the step", "the rate would run through its schedule again"),
    ("optimizer", "the optimizer's state", "AdamW would average from zero again"),
    ("generator", "the order of the batches", "the batches would come in another order"),
    ("torch", "torch's own generator", "dropout would strike out other numbers"),
)


@functools.cache
def _log(health: str, seed: int) -> tuple[dict, ...]:
    """The log of a real run: a table of what follows what, sixteen ids, eighty steps."""
    generator = named_generator(seed, "a log to diagnose")
    followers = torch.randint(16, (16, 3), generator=generator)
    ids = [0]
    for pick in torch.randint(3, (2500,), generator=generator).tolist():
        ids.append(followers[ids[-1], pick].item())
    row = torch.tensor(ids)
    if health == "not learning":
        row = torch.randint(16, (2500,), generator=generator)
    table = nn.Embedding.from_pretrained(0.1 * draw(16, 16, seed=seed, name="table"), freeze=False)
    read, lr, schedule = {  # ids to learn from, learning rate
        "overfitting": (50, 0.1, "cosine"), "rate too high": (2000, 20.0, "constant"),
        "not learning": (2000, 0.1, "cosine"),
        # one whose two losses part a little, one whose losses tremble
        "healthy": ((400, 0.2, "cosine"), (2000, 0.5, "constant"))[seed]}[health]
    config = TrainConfig(max_steps=80, batch_size=8, lr=lr, weight_decay=0.0, eval_every=10,
                         schedule=schedule, max_grad_norm=None)
    return tuple(train(table, Windows(row[:read], row[2000:], 16, seed), config).log)


@exercise
def diagnose_logs(answer: Callable) -> Iterator[Property]:
    """06.5: the illness behind a log."""
    for health, seed in itertools.product(HEALTHS, (0, 1)):
        got = answer([dict(entry) for entry in _log(health, seed)])
        if got != health:
            yield expect(f"{health}, run {seed + 1}", False,
                         (got not in HEALTHS, f"the answer is one of {', '.join(HEALTHS)}; got "
                                              f"{got!r}"),
                         (True, _CONFUSED.get((health, got), f"you said: {got}")))
            continue
        tenth = [{name: value if name == "step" else value / 10 for name, value in entry.items()}
                 for entry in _log(health, seed)]
        got = answer(tenth)
        yield expect(
            f"{health}, run {seed + 1}", got == health,
            (True, f"of the same log with every loss a tenth as large you said {got}: no loss is "
                   "high or low by itself, compare it with the others of its own log"))


_CONFUSED = {
    ("healthy", "overfitting"): "in health too, the validation loss may lie above the training "
                                "loss and tremble a little: what counts is that it rises again, "
                                "by more than a few hundredths, after its best",
    ("healthy", "not learning"): "it fell, and then it was done: compare the end with the "
                                 "beginning, not with the middle",
    ("healthy", "rate too high"): "a step may raise the loss a little in any run: compare the "
                                  "largest loss with the first",
    ("rate too high", "overfitting"): "the training loss rises as well: look at that first",
    ("rate too high", "not learning"): "its loss rose far on the way: that is not standing still",
    ("rate too high", "healthy"): "its loss rose far above the first one",
    ("not learning", "healthy"): "a loss that ends where it began has learned nothing",
    ("not learning", "overfitting"): "the training loss does not fall: nothing is known by heart",
    ("overfitting", "healthy"): "its training loss falls to the end and looks well: compare the "
                                "validation loss with its own best",
    ("overfitting", "rate too high"): "only the validation loss rises, the training loss falls: "
                                      "the steps are not too long",
    ("overfitting", "not learning"): "the training loss did fall: it learned, but by heart",
}
