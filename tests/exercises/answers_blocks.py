"""Wrong answers to chapter 05's exercises, each with a part of the message it must get."""

import torch
import torch.nn.functional as F
from torch import nn


# 05.1
def bends_the_wrong_one(x, gate, up, down):
    return ((x @ gate.T) * F.silu(x @ up.T)) @ down.T


def plain_glu(x, gate, up, down):
    return ((x @ gate.T).sigmoid() * (x @ up.T)) @ down.T


def geglu(x, gate, up, down):
    return (F.gelu(x @ gate.T) * (x @ up.T)) @ down.T


def adds_the_gate(x, gate, up, down):
    return (F.silu(x @ gate.T) + x @ up.T) @ down.T


def bends_the_product(x, gate, up, down):
    return F.silu((x @ gate.T) * (x @ up.T)) @ down.T


def leaves_out_up(x, gate, up, down):
    return F.silu(x @ gate.T) @ down.T


def stays_wide(x, gate, up, down):
    return F.silu(x @ gate.T) * (x @ up.T)


def does_not_transpose(x, gate, up, down):
    return (F.silu(x @ gate) * (x @ up)) @ down


def turns_when_it_must(x, gate, up, down):
    def turned(matrix, width):
        return matrix if matrix.shape[0] == width else matrix.T

    hidden = F.silu(x @ turned(gate, x.shape[-1])) * (x @ turned(up, x.shape[-1]))
    return hidden @ turned(down, hidden.shape[-1])


def three_axes(x, gate, up, down):
    hidden = F.silu(torch.einsum("btd,fd->btf", x, gate))
    return (hidden * torch.einsum("btd,fd->btf", x, up)) @ down.T


def overflows(x, gate, up, down):
    opened = x @ gate.T
    return (opened * opened.exp() / (1 + opened.exp()) * (x @ up.T)) @ down.T


def bends_both(x, gate, up, down):
    return (F.silu(x @ gate.T) * F.silu(x @ up.T)) @ down.T


def with_relu(x, gate, up, down):
    return ((x @ gate.T).relu() * (x @ up.T)) @ down.T


def adds_x(x, gate, up, down):
    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T + x


def sigmoid_of_more(x, gate, up, down):
    opened = x @ gate.T
    return (opened * (1.702 * opened).sigmoid() * (x @ up.T)) @ down.T


# 05.2
def block(d_model, num_heads, num_kv_heads, d_ff, matrices=3, gains=2, squares=2):
    shared = d_model // num_heads * num_kv_heads * d_model
    return squares * d_model**2 + 2 * shared + matrices * d_model * d_ff + gains * d_model


def every_head_its_own(d_model, num_heads, num_kv_heads, d_ff):
    return block(d_model, num_heads, num_heads, d_ff)


def two_matrices(*sizes):
    return block(*sizes, matrices=2)


def no_norms(*sizes):
    return block(*sizes, gains=0)


def norms_with_a_shift(*sizes):
    return block(*sizes, gains=4)


def no_output(*sizes):
    return block(*sizes, squares=1)


def one_norm(*sizes):
    return block(*sizes, gains=1)


def keys_without_values(d_model, num_heads, num_kv_heads, d_ff):
    whole = block(d_model, num_heads, num_kv_heads, d_ff)
    return whole - d_model // num_heads * num_kv_heads * d_model


def one_head_of_keys(d_model, num_heads, num_kv_heads, d_ff):
    return block(d_model, num_heads, 1, d_ff)


def with_biases(d_model, num_heads, num_kv_heads, d_ff):
    shared = d_model // num_heads * num_kv_heads
    return block(d_model, num_heads, num_kv_heads, d_ff) + 3 * d_model + 2 * shared + 2 * d_ff


def a_float(*sizes):
    return float(block(*sizes)) + 0.5


def nothing(*sizes):
    return 0


# 05.3
def copies_the_values(model, tied):
    model.lm_head.weight.data.copy_(model.token_embedding.weight.data)


def shares_the_memory(model, tied):
    model.lm_head.weight.data = model.token_embedding.weight.data


def keeps_the_head(model, tied):
    model.token_embedding.weight = model.lm_head.weight


def freezes_the_head(model, tied):
    model.lm_head.weight = model.token_embedding.weight
    model.lm_head.forward = lambda x: x @ model.token_embedding.weight.detach().T


def never_unties(model, tied):
    model.lm_head.weight = model.token_embedding.weight


def unties_without_a_clone(model, tied):
    weight = model.token_embedding.weight
    model.lm_head.weight = weight if tied else nn.Parameter(weight.data)


def forgets_when_untied(model, tied):
    weight = model.token_embedding.weight
    model.lm_head.weight = weight if tied else nn.Parameter(torch.zeros_like(weight))


def a_new_one_for_both(model, tied):
    weight = nn.Parameter(model.token_embedding.weight.detach().clone())
    model.token_embedding.weight = weight
    model.lm_head.weight = weight if tied else nn.Parameter(weight.detach().clone())


def toggles(model, tied):
    weight = model.token_embedding.weight
    model.lm_head.weight = (nn.Parameter(weight.detach().clone())
                            if model.lm_head.weight is weight else weight)


def the_embedding_leaves(model, tied):
    weight = model.lm_head.weight = model.token_embedding.weight
    if not tied:
        model.token_embedding.weight = nn.Parameter(weight.detach().clone())


def frozen_when_untied(model, tied):
    weight = model.token_embedding.weight
    model.lm_head.weight = weight if tied else nn.Parameter(weight.detach().clone(), False)


def takes_the_mean(model, tied):
    weight = model.token_embedding.weight
    weight.data = (weight.data + model.lm_head.weight.data) / 2
    model.lm_head.weight = weight if tied else nn.Parameter(weight.detach().clone())


# 05.4
def load_of(probs, chosen):
    return F.one_hot(chosen, probs.shape[-1]).float().mean((0, 1))


def no_factor(probs, chosen):
    return (load_of(probs, chosen) * probs.mean(0)).sum()


def probabilities_alone(probs, chosen):
    return probs.mean(0).sum()


def by_tokens(probs, chosen):
    counts = F.one_hot(chosen, probs.shape[-1]).float().sum((0, 1))
    return probs.shape[-1] * (counts / len(probs) * probs.mean(0)).sum()


def squares_the_load(probs, chosen):
    return probs.shape[-1] * load_of(probs, chosen).square().sum()


def detaches(probs, chosen):
    return probs.shape[-1] * (load_of(probs, chosen) * probs.detach().mean(0)).sum()


def per_expert(probs, chosen):
    return (load_of(probs, chosen) * probs.mean(0)).tolist()


def forgets_the_idle(probs, chosen):
    load = torch.bincount(chosen.flatten()) / chosen.numel()
    return probs.shape[-1] * (load * probs.mean(dim=0)).sum()


def first_choice(probs, chosen):
    load = torch.bincount(chosen[:, 0], minlength=probs.shape[-1]) / len(chosen)
    return probs.shape[-1] * (load * probs.mean(dim=0)).sum()


def ignores_the_choices(probs, chosen):
    return probs.shape[-1] * (load_of(probs, probs.topk(chosen.shape[1]).indices)
                              * probs.mean(0)).sum()


def always_four(probs, chosen):
    return 4 * (load_of(probs, chosen) * probs.mean(0)).sum()


def always_eight_tokens(probs, chosen):
    counts = F.one_hot(chosen, probs.shape[-1]).float().sum((0, 1))
    return probs.shape[-1] * (counts / (8 * chosen.shape[1]) * probs.mean(0)).sum()


def squares_the_probabilities(probs, chosen):
    return probs.shape[-1] * probs.mean(0).square().sum()


def gradient_of_nothing(probs, chosen):
    return detaches(probs, chosen) + 0 * probs.sum()


def gradient_of_another(probs, chosen):
    other = probs.square().sum()
    return detaches(probs, chosen) + other - other.detach()


WRONG = {
    "swiglu": [
        (bends_the_wrong_one, "silu belongs to the gate"), (plain_glu, "sigmoid makes it GLU"),
        (adds_the_gate, "it is not added"), (bends_the_product, "bend the gate first"),
        (geglu, "gelu makes it GEGLU"), (leaves_out_up, "`up` takes no part"),
        (stays_wide, "`down` narrows it again"), (does_not_transpose, "it runs without an error"),
        (turns_when_it_must, "always turn them"), (three_axes, "RuntimeError: einsum"),
        (overflows, "inf / inf is NaN"), (bends_both, "only the gate is bent"),
        (with_relu, "relu makes it ReGLU"), (adds_x, "x was added"),
        (sigmoid_of_more, "largest difference"),
    ],
    "count_block": [
        (every_head_its_own, "there are num_kv_heads"), (two_matrices, "three matrices"),
        (no_norms, "two norms are missing"), (norms_with_a_shift, "a gain and no shift"),
        (no_output, "o_proj is missing"), (a_float, "whole number"), (nothing, "got 0"),
        (one_norm, "there are two norms"), (keys_without_values, "have a matrix each"),
        (one_head_of_keys, "one head of keys and values was counted"),
        (with_biases, "no biases"),
    ],
    "set_tied": [
        (copies_the_values, "after one training step they differ"),
        (shares_the_memory, "Assign the Parameter itself"),
        (keeps_the_head, "the head's values won"), (freezes_the_head, "1 of 11 rows"),
        (never_unties, "they are still one"), (unties_without_a_clone, "clone() is missing"),
        (forgets_when_untied, "start from a clone"),
        (a_new_one_for_both, "a new Parameter at both ends"), (toggles, "it unties"),
        (the_embedding_leaves, "it is the head that leaves"),
        (frozen_when_untied, "one of the two is frozen"),
        (takes_the_mean, "neither the embedding's values nor the head's"),
    ],
    "balance_loss": [
        (no_factor, "multiply by the number of experts"),
        (probabilities_alone, "always sum to one"), (by_tokens, "divide the counts by all choices"),
        (squares_the_load, "the load was squared"), (detaches, "counting has no gradient"),
        (per_expert, "expected one number, got list"),
        (forgets_the_idle, "the experts that nobody chose"), (first_choice, "only the first"),
        (ignores_the_choices, "`chosen` takes no part"), (always_four, "here there are six"),
        (always_eight_tokens, "here there are ten"),
        (squares_the_probabilities, "needs the load as its partner"),
        (gradient_of_nothing, "by another way"), (gradient_of_another, "by another way"),
    ],
}
