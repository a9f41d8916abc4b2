"""Wrong answers to chapter 06's exercises, each with a part of the message it must get."""


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
    shrink = {"apart": lr * weight_decay, "without lr": weight_decay,
              "growth": -lr * weight_decay}.get(decay, 0)
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


def without_lr(*args, lr, **options):
    return step(*args, lr=1.0, **{**options, "weight_decay": lr * options["weight_decay"]})


def grows(*args, **options):
    return step(*args, decay="growth", **options)


def squares_the_mean(weight, gradient, state, lr, betas, eps, weight_decay):
    number = state["step"] = state.get("step", 0) + 1
    mean = state["mean"] = betas[0] * state.get("mean", 0) + (1 - betas[0]) * gradient
    square = state["square"] = betas[1] * state.get("square", 0) + (1 - betas[1]) * mean**2
    mean, square = mean / (1 - betas[0] ** number), square / (1 - betas[1] ** number)
    return weight * (1 - lr * weight_decay) - lr * mean / (square.sqrt() + eps)


def exchanges_the_shares(*args, betas, **options):
    return step(*args, betas=[1 - beta for beta in betas], correct=(False, False), **options)


def decays_last(weight, *args, lr, weight_decay, **options):
    return step(weight, *args, lr=lr, weight_decay=0.0, **options) * (1 - lr * weight_decay)


def keeps_corrected(weight, gradient, state, lr, betas, eps, weight_decay):
    number = state["step"] = state.get("step", 0) + 1
    for name, beta, new in (("m", betas[0], gradient), ("v", betas[1], gradient**2)):
        state[name] = (beta * state.get(name, 0) + (1 - beta) * new) / (1 - beta**number)
    return weight * (1 - lr * weight_decay) - lr * state["m"] / (state["v"].sqrt() + eps)


def counts_from_two(*args, **options):
    state = args[2]
    state.setdefault("step", 1)
    return step(*args, **options)


def clips(weight, gradient, state, **options):
    return step(weight, gradient * min(1, 1 / (gradient.norm().item() + 1e-12)), state, **options)


def always_decays_by_half(*args, weight_decay, **options):
    return step(*args, weight_decay=0.5 if weight_decay else 0.0, **options)


def usual_betas(*args, betas, **options):
    return step(*args, betas=(0.9, 0.999), **options)


def uses_the_gradient_up(weight, gradient, state, **options):
    moved = step(weight, gradient, state, **options)
    gradient.zero_()
    return moved


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


def every_row(model, parts):
    rows = sum(len(ids) for ids, _ in parts)
    return accumulate(model, parts, lambda t: 1 / rows)


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


def keeps_the_graph(model, parts):
    model.zero_grad()
    total = 0.0
    for part in parts:
        loss = summed(model, part) / count(parts)
        loss.backward()
        total = total + loss
    return total


def always_seventeen(model, parts):
    model.zero_grad()
    return accumulate(model, parts, lambda t: 1 / 17)


def clips_them(model, parts):
    model.zero_grad()
    total = accumulate(model, parts, lambda t: 1 / count(parts))
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return total


def steps_too(model, parts):
    model.zero_grad()
    total = accumulate(model, parts, lambda t: 1 / count(parts))
    model.table.data -= 0.1 * model.table.grad
    return total


def skips_target_zero(model, parts):
    model.zero_grad()
    return accumulate(model, [(i, t.masked_fill(t == 0, -100)) for i, t in parts],
                      lambda t: 1 / count(parts))


def keeps_old_gradients(model, parts):
    counted = sum((targets != -100).sum().item() for _, targets in parts)
    return accumulate(model, parts, lambda targets: 1 / counted)


def skips_zero_gradients(weight, gradient, state, **options):
    moved = torch.optim.AdamW([kept := torch.nn.Parameter(weight.clone())], **options)
    if state:
        moved.load_state_dict(state["torch"])
    kept.grad = gradient.clone()
    moved.step()
    state["torch"] = moved.state_dict()
    still = weight * (1 - options["lr"] * options["weight_decay"])
    return torch.where(gradient == 0, still, kept.detach())


WRONG = {
    "adamw_step": [
        (counts_from_two, "is counted as the second"), (clips, "the gradient was clipped"),
        (always_decays_by_half, "not taken from what is given"),
        (usual_betas, "use those that are given"), (uses_the_gradient_up, "changed in place"),
        (skips_zero_gradients, "the running means go on"),
        (uphill, "it walks uphill"), (uncorrected, "both means start at zero"),
        (first_corrected, "one of the two means is corrected"),
        (second_corrected, "one of the two means is corrected"),
        (no_root, "the root is missing"), (descent, "plain gradient descent"),
        (counts_from_zero, "the first step is number 1"),
        (coupled, "that is Adam with L2"), (decays_without_the_rate, "multiplied with lr as well"),
        (never_decays, "the weight did not shrink"), (forgets, "every step is a first step"),
        (exchanges, "the two betas are exchanged"), (under_the_root, "not under it"),
        (without_eps, "eps takes no part"), (in_place, "return the new weight"),
        (without_lr, "lr takes no part"), (grows, "subtract the decay"),
        (squares_the_mean, "the running mean was squared"),
        (exchanges_the_shares, "the shares are exchanged"),
        (decays_last, "the decay shrank the step too"),
        (keeps_corrected, "are corrected again"),
    ],
    "accumulate_ragged": [
        (keeps_the_graph, "add up loss.item()"), (always_seventeen, "here there are 22 targets"),
        (clips_them, "the gradient was clipped"), (steps_too, "the step is not asked for"),
        (skips_target_zero, "expected 2."),
        (keeps_old_gradients, "clear it before the loop"),
        (means_of_means, "weighs more than one in a full part"),
        (sum_of_means, "the parts' means were added up"),
        (every_row, "divided by rows"),
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
}
