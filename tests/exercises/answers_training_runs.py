"""Wrong answers to chapter 06's exercises about whole runs, each with a part of its message."""

import copy

import torch

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


def evaluates(run, saved=None):
    run.model.eval()
    return resume(run, saved)


def evaluates_when_loading(run, saved=None):
    return resume(run, saved) if saved is None else (resume(run, saved), run.model.eval())


def seeds_both(run, saved=None):
    if saved is None:
        torch.manual_seed(7)
    return resume(run, saved)


def draws_first(run, saved=None):
    if saved is None:
        torch.randn(1, generator=run.generator)
    return resume(run, saved)


def strikes_nothing_out(run, saved=None):
    run.model[2].p = 0.0
    return resume(run, saved)


def goes_a_step(run, saved=None):
    if saved is None:
        run.advance(1)
    return resume(run, saved)


MEMORY = {}


def keeps_it_in_memory(run, saved=None):
    if saved is None:
        MEMORY.update(resume(run))
        return {"saved": True}
    return resume(run, MEMORY)


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


def rises_at_all(log):
    named, held_out = training_loss_alone(log), losses(log, "validation_loss")
    return "overfitting" if named == "healthy" and held_out[-1] > min(held_out) else named


def rises_at_last(log):
    named, held_out = training_loss_alone(log), losses(log, "validation_loss")
    return "overfitting" if named == "healthy" and held_out[-1] > held_out[-2] else named


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


def by_size(log):
    seen, held_out = losses(log), losses(log, "validation_loss")
    if max(seen) > 5:
        return "rate too high"
    if seen[-1] > 2.6:
        return "not learning"
    return "overfitting" if held_out[-1] > min(held_out) + 0.05 else "healthy"


def by_a_fixed_rise(log):
    named, held_out = training_loss_alone(log), losses(log, "validation_loss")
    rises = held_out[-1] > min(held_out) + 0.05
    return "overfitting" if named == "healthy" and rises else named


def other_words(log):
    return "fine"


WRONG = {
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
        (evaluates, "the model was put into eval mode"),
        (evaluates_when_loading, "it was put into eval mode"),
        (seeds_both, "a run that was never saved"), (draws_first, "a run that was never saved"),
        (strikes_nothing_out, "a run that was never saved"),
        (goes_a_step, "a run that was never saved"), (keeps_it_in_memory, "the weights were lost"),
    ],
    "diagnose_logs": [
        (training_loss_alone, "compare the validation loss with its own best"),
        (validation_first, "the training loss rises as well"),
        (rises_at_all, "by more than a few hundredths"),
        (rises_at_last, "by more than a few hundredths"),
        (any_gap, "what counts is that it rises again"),
        (from_the_middle, "compare the end with the beginning"),
        (any_rise, "compare the largest loss with the first"),
        (ends_high, "that is not standing still"),
        (always_well, "its loss rose far above the first one"),
        (always_well, "has learned nothing"), (reads_every_line, "KeyError: 'loss'"),
        (other_words, "the answer is one of"),
        (by_size, "no loss is high or low by itself"),
        (by_a_fixed_rise, "no loss is high or low by itself"),
    ],
}
