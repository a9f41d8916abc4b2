"""Wrong answers to chapter 06's exercises, each with a part of the message it must get."""

import copy
import math

import torch
import torch.nn.functional as F


# 06.1
def step(weight, gradient, state, lr, betas, eps, weight_decay, *, correct=(True, True),
         decay="apart", size=torch.sqrt, sign=1, under=False):
    """A right step, with one place that can be broken."""
    number = state["step"] = state.get("step", 0) + 1
    if decay == "in the gradient":
        gradient = gradient + weight_decay * weight
    mean = state["mean"] = betas[0] * state.get("mean", 0) + (1 - betas[0]) * gradient
    square = state["square"] = betas[1] * state.get("square", 0) + (1 - betas[1]) * gradient**2
    if correct[0]:
        mean = mean / (1 - betas[0] ** number)
    if correct[1]:
        square = square / (1 - betas[1] ** number)
    below = (square + eps).sqrt() if under else size(square) + eps
    shrink = {"apart": lr * weight_decay, "without lr": weight_decay}.get(decay, 0)
    return weight * (1 - shrink) - sign * lr * mean / below


def uphill(*args, **options):
    return step(*args, sign=-1, **options)


def uncorrected(*args, **options):
    return step(*args, correct=(False, False), **options)


def first_corrected(*args, **options):
    return step(*args, correct=(True, False), **options)


def second_corrected(*args, **options):
    return step(*args, correct=(False, True), **options)


def no_root(*args, **options):
    return step(*args, size=lambda square: square, **options)


def descent(weight, gradient, state, lr, betas, eps, weight_decay):
    return weight - lr * gradient


def counts_from_zero(weight, gradient, state, lr, betas, eps, weight_decay):
    state["step"] = state.get("step", -1)
    mean = (1 - betas[0]) * gradient / (1 - betas[0] ** 0 + 0 * gradient)
    return weight - lr * mean


def coupled(*args, **options):
    return step(*args, decay="in the gradient", **options)


def decays_without_the_rate(*args, **options):
    return step(*args, decay="without lr", **options)


def never_decays(*args, **options):
    return step(*args, decay="never", **options)


def forgets(weight, gradient, state, **options):
    return step(weight, gradient, {}, **options)


def exchanges(weight, gradient, state, betas, **options):
    return step(weight, gradient, state, betas=betas[::-1], **options)


def under_the_root(*args, **options):
    return step(*args, under=True, **options)


def without_eps(*args, **options):
    return step(*args, **{**options, "eps": 0.0 if options["eps"] > 1e-6 else 1e-12})


def in_place(weight, gradient, state, **options):
    weight.copy_(step(weight, gradient, state, **options))


# 06.2
def summed(model, part):
    ids, targets = part
    return F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), reduction="sum")


def count(parts):
    return sum((targets != -100).sum().item() for _, targets in parts)


def accumulate(model, parts, weigh):
    total = 0.0
    for part in parts:
        loss = summed(model, part) * weigh(part[1])
        loss.backward()
        total += loss.item()
    return total


def means_of_means(model, parts):
    return accumulate(model, parts, lambda t: 1 / (t != -100).sum() / len(parts))


def sum_of_means(model, parts):
    return accumulate(model, parts, lambda t: 1 / (t != -100).sum())


def every_position(model, parts):
    positions = sum(targets.numel() for _, targets in parts)
    return accumulate(model, parts, lambda t: 1 / positions)


def undivided(model, parts):
    return accumulate(model, parts, lambda t: 1)


def divides_the_loss_alone(model, parts):
    return accumulate(model, parts, lambda t: 1) / count(parts)


def means_backwards(model, parts):
    means_of_means(model, parts)
    with torch.no_grad():
        return sum(summed(model, part) for part in parts).item() / count(parts)


def last_loss(model, parts):
    return [accumulate(model, [p], lambda t: 1 / (t != -100).sum()) for p in parts][-1]


def clears_each_time(model, parts):
    total = 0.0
    for part in parts:
        model.zero_grad()
        total += accumulate(model, [part], lambda t: 1 / count(parts))
    return total


def never_backwards(model, parts):
    return sum(summed(model, part) for part in parts).item() / count(parts)


def all_at_once(model, parts):
    whole = [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
    return accumulate(model, [whole], lambda t: 1 / count(parts))


def backwards_at_the_end(model, parts):
    total = sum(summed(model, part) for part in parts) / count(parts)
    total.backward()
    return total.item()


def mean_times_count(model, parts):
    total = 0.0
    for ids, targets in parts:
        mean = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
        loss = mean * (targets != -100).sum() / count(parts)
        loss.backward()
        total += loss.item()
    return total


# 06.3
def schedule(step, max_steps, warmup_steps, floor, *, rise=lambda s, w: (s + 1) / (w + 1),
             fall=lambda done: (1 + math.cos(math.pi * done)) / 2,
             join=lambda fall, floor: floor + (1 - floor) * fall, start=None):
    if step < warmup_steps:
        return rise(step, warmup_steps)
    start = warmup_steps if start is None else start
    return join(fall((step - start) / (max_steps - start)), floor)


def starts_at_nothing(*args):
    return schedule(*args, rise=lambda s, w: s / w)


def arrives_early(*args):
    return schedule(*args, rise=lambda s, w: (s + 1) / w)


def no_rise(*args):
    return schedule(*args, rise=lambda s, w: 1)


def falls_from_the_start(*args):
    return schedule(*args, start=0)


def quarter(*args):
    return schedule(*args, fall=lambda done: math.cos(math.pi / 2 * done))


def whole_period(*args):
    return schedule(*args, fall=lambda done: (1 + math.cos(2 * math.pi * done)) / 2)


def floor_on_top(step, max_steps, warmup_steps, floor):
    return schedule(step, max_steps, warmup_steps, floor,
                    join=lambda fall, floor: fall + floor if fall < 1 else 1.0)


def no_floor(*args):
    return schedule(*args, join=lambda fall, floor: fall)


def line(*args):
    return schedule(*args, fall=lambda done: 1 - done)


def a_step_late(step, max_steps, warmup_steps, floor):
    if warmup_steps:
        return schedule(step, max_steps, warmup_steps, floor)
    return schedule(max(step - 1, 0), max_steps, 0, floor)


def divides_by_the_warm_up(step, max_steps, warmup_steps, floor):
    rise = (step + 1) / (warmup_steps + 1) * warmup_steps / warmup_steps
    return min(rise, schedule(max(step, warmup_steps), max_steps, warmup_steps, floor))


# 06.4
PARTS = {
    "model": (lambda run: run.model.state_dict(), lambda run, x: run.model.load_state_dict(x)),
    "optimizer": (lambda run: run.optimizer.state_dict(),
                  lambda run, x: run.optimizer.load_state_dict(x)),
    "step": (lambda run: run.step, lambda run, x: setattr(run, "step", x)),
    "order": (lambda run: run.generator.get_state(), lambda run, x: run.generator.set_state(x)),
    "torch": (lambda run: torch.get_rng_state(), lambda run, x: torch.set_rng_state(x)),
}


def resume(run, saved=None, names=tuple(PARTS), keep=copy.deepcopy):
    if saved is None:
        return keep({name: PARTS[name][0](run) for name in names})
    for name in names:
        PARTS[name][1](run, saved[name])
    return None


def without(left_out):
    def resume_without(run, saved=None):
        return resume(run, saved, [name for name in PARTS if name != left_out])
    resume_without.__name__ = f"without_{left_out}"
    return resume_without


def living_tensors(run, saved=None):
    return resume(run, saved, keep=lambda state: state)


def whole_objects(run, saved=None):
    return {"model": run.model} if saved is None else None


def seeds_anew(run, saved=None):
    if saved is not None:
        saved = {**saved, "torch": torch.Generator().manual_seed(1).get_state()}
    return resume(run, saved)


def another_model(run, saved=None):
    if saved is not None:
        run.model = copy.deepcopy(run.model)
    return resume(run, saved)


def returns_a_list(run, saved=None):
    return list(PARTS) if saved is None else None


# 06.5
def losses(log, name="loss"):
    return [entry[name] for entry in log if name in entry]


def training_loss_alone(log):
    seen = losses(log)
    if max(seen) > 1.5 * seen[0]:
        return "rate too high"
    return "not learning" if seen[-1] > 0.9 * seen[0] else "healthy"


def validation_first(log):
    held_out = losses(log, "validation_loss")
    rises = held_out[-1] > 1.03 * min(held_out)
    return "overfitting" if rises else training_loss_alone(log)


def any_gap(log):
    named, gap = training_loss_alone(log), losses(log, "validation_loss")[-1] - losses(log)[-1]
    return "overfitting" if named == "healthy" and gap > 0 else named


def from_the_middle(log):
    seen = losses(log)
    if max(seen) > 1.5 * seen[0]:
        return "rate too high"
    return "not learning" if seen[-1] > 0.9 * seen[len(seen) // 2] else "healthy"


def any_rise(log):
    seen = losses(log)
    return "rate too high" if any(b > a for a, b in zip(seen, seen[1:], strict=False)) \
        else "healthy"


def ends_high(log):
    seen = losses(log)
    return "not learning" if seen[-1] > 0.9 * seen[0] else "healthy"


def always_well(log):
    return "healthy"


def reads_every_line(log):
    return "healthy" if log[-1]["loss"] < log[0]["loss"] else "not learning"


def other_words(log):
    return "fine"


WRONG = {
    "adamw_step": [
        (uphill, "it walks uphill"), (uncorrected, "both means start at zero"),
        (first_corrected, "one of the two means is corrected"),
        (second_corrected, "one of the two means is corrected"),
        (no_root, "the root is missing"), (descent, "plain gradient descent"),
        (counts_from_zero, "the first step is number 1"),
        (coupled, "that is Adam with L2"), (decays_without_the_rate, "multiplied with lr as well"),
        (never_decays, "the weight did not shrink"), (forgets, "every step is a first step"),
        (exchanges, "the two betas are exchanged"), (under_the_root, "not under it"),
        (without_eps, "eps takes no part"), (in_place, "return the new weight"),
    ],
    "accumulate_ragged": [
        (means_of_means, "weighs more than one in a full part"),
        (sum_of_means, "the parts' means were added up"),
        (every_position, "those with target -100 do not count"), (undivided, "a sum: divide"),
        (divides_the_loss_alone, "went backwards undivided"),
        (means_backwards, "by the number of targets in the whole batch"),
        (last_loss, "the last part's loss alone"),
        (clears_each_time, "zero_grad belongs in front of the loop"),
        (never_backwards, "call backward on each part's loss"),
        (all_at_once, "all rows went through at once"),
        (backwards_at_the_end, "Call it inside the loop"),
        (mean_times_count, "NaN: the mean over no target"),
    ],
    "warmup_cosine": [
        (starts_at_nothing, "the first step would change nothing"),
        (arrives_early, "one step early"), (no_rise, "there is no warm-up"),
        (falls_from_the_start, "the cosine began at step 0"), (quarter, "a quarter of a period"),
        (whole_period, "a whole period"), (floor_on_top, "the floor was added on top"),
        (no_floor, "the floor takes no part"), (line, "this is a straight line"),
        (a_step_late, "at step 1 it is 1.0"), (divides_by_the_warm_up, "ZeroDivisionError"),
    ],
    "resume_exactly": [
        (without("model"), "the weights were lost"),
        (without("optimizer"), "average from zero again"),
        (without("step"), "run through its schedule again"),
        (without("order"), "the batches would come in another order"),
        (without("torch"), "dropout would strike out other numbers"),
        (seeds_anew, "dropout would strike out other numbers"),
        (living_tensors, "went on changing after it was saved"),
        (whole_objects, "not the objects themselves"),
        (another_model, "whose parameters the optimizer holds"),
        (returns_a_list, "should return a dictionary"),
    ],
    "diagnose_logs": [
        (training_loss_alone, "compare the validation loss with its own best"),
        (validation_first, "the training loss rises as well"),
        (any_gap, "what counts is that it rises again"),
        (from_the_middle, "compare the end with the beginning"),
        (any_rise, "compare the largest loss with the first"),
        (ends_high, "that is not standing still"),
        (always_well, "its loss rose far above the first one"),
        (always_well, "has learned nothing"), (reads_every_line, "KeyError: 'loss'"),
        (other_words, "the answer is one of"),
    ],
}
