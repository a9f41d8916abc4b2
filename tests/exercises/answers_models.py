"""Wrong answers to chapter 05b's exercises, each with a part of the message it must get."""

import torch
from torch import nn

from scratchbook.weights import activations


def layer_of(weight, bias):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight.data = weight
    if bias is not None:
        layer.bias.data = bias
    return layer


# 05b.1
def exchanges_in_and_out(weight, bias):
    return nn.Linear(weight.shape[1], weight.shape[0])


def reshapes(weight, bias):
    return layer_of(weight.reshape(weight.shape[1], weight.shape[0]), bias)


def leaves_out_the_bias(weight, bias):
    return layer_of(weight.T, None)


def keeps_a_bias_of_its_own(weight, bias):
    return layer_of(weight.T, torch.full_like(bias, 0.1))


def turns_when_it_must(weight, bias):
    return layer_of(weight if weight.shape[0] == weight.shape[1] else weight.T, bias)


def shares_the_file(weight, bias):
    layer = nn.Linear(*weight.shape)
    layer.weight, layer.bias = nn.Parameter(weight.T), nn.Parameter(bias)
    return layer


def returns_the_matrix(weight, bias):
    return weight.T


def freezes(weight, bias):
    return layer_of(weight.T, bias).requires_grad_(False)


def shares_the_bias(weight, bias):
    layer = nn.Linear(*weight.shape)
    layer.weight, layer.bias = nn.Parameter(weight.T.clone()), nn.Parameter(bias)
    return layer


def freezes_the_bias(weight, bias):
    layer = layer_of(weight.T.clone(), bias.clone())
    layer.bias.requires_grad_(False)
    return layer


def of_one_size(weight, bias):
    layer = nn.Linear(6, 10)
    layer.weight, layer.bias = nn.Parameter(weight.T.clone()), nn.Parameter(bias.clone())
    return layer


def replaces_forward(weight, bias):
    layer, weight, bias = nn.Linear(*weight.shape), weight.clone(), bias.clone()
    layer.forward = lambda x: x @ weight + bias
    return layer


def makes_it_double(weight, bias):
    return layer_of(weight.T.double(), bias.double())


def turns_the_file_itself(weight, bias):
    layer = layer_of(weight.T.clone(), bias.clone())
    bias.add_(1)
    return layer


# 05b.2
def pairs_of(weights, biases):
    return list(zip(weights, biases, strict=True))


def does_not_turn(weight, bias):
    return pairs_of(weight.chunk(3, dim=1), bias.chunk(3))


def takes_every_third(weight, bias):
    return pairs_of([weight[:, part::3].T for part in range(3)], bias.chunk(3))


def cuts_the_rows(weight, bias):
    return pairs_of(weight.chunk(3, dim=0), bias.chunk(3))


def views(weight, bias):
    d = weight.shape[0]
    return pairs_of(list(weight.reshape(3, d, d)), bias.chunk(3))


def values_before_keys(weight, bias):
    q, k, v = weight.T.chunk(3)
    return pairs_of([q, v, k], bias.chunk(3))


def backwards(weight, bias):
    return pairs_of([w.T for w in weight.chunk(3, dim=1)][::-1], bias.chunk(3)[::-1])


def whole_bias(weight, bias):
    return pairs_of(weight.T.chunk(3), [bias] * 3)


def one_bias_for_all(weight, bias):
    return pairs_of(weight.T.chunk(3), [bias.chunk(3)[0]] * 3)


def weights_alone(weight, bias):
    return weight.T


def of_width_six(weight, bias):
    return [(weight[:, i : i + 6].T, bias[i : i + 6]) for i in (0, 6, 12)]


def bias_of_width_six(weight, bias):
    return pairs_of(weight.T.chunk(3), [bias[i : i + 6] for i in (0, 6, 12)])


def bias_in_another_order(weight, bias):
    q, k, v = bias.chunk(3)
    return pairs_of(weight.T.chunk(3), [k, v, q])


def every_third_of_the_bias(weight, bias):
    return pairs_of(weight.T.chunk(3), [bias[part::3] for part in range(3)])


def no_bias(weight, bias):
    return pairs_of(weight.T.chunk(3), [None] * 3)


def zero_bias(weight, bias):
    return pairs_of(weight.T.chunk(3), torch.zeros_like(bias).chunk(3))


def scales_queries(weight, bias):
    q, k, v = weight.T.chunk(3)
    return pairs_of([q / len(weight) ** 0.5, k, v], bias.chunk(3))


def scales_the_queries_bias(weight, bias):
    q, k, v = bias.chunk(3)
    return pairs_of(weight.T.chunk(3), [q / len(weight) ** 0.5, k, v])


def negates_the_values(weight, bias):
    q, k, v = weight.T.chunk(3)
    return pairs_of([q, k, -v], bias.chunk(3))


def shifts_the_bias(weight, bias):
    return pairs_of(weight.T.chunk(3), bias.roll(1).chunk(3))


# 05b.3
def gaps_of(model, ids, reference):
    found = activations(model, lambda: model(ids), list(reference))
    return {name: (found[name] - reference[name]).abs().max() / reference[name].abs().max()
            for name in found}


def wrong_ones(gaps):
    return [name for name, gap in gaps.items() if not gap <= 1e-4]


def the_last(model, ids, reference):
    return next(iter(wrong_ones(gaps_of(model, ids, reference))[::-1]), None)


def sorts_names(model, ids, reference):
    return next(iter(sorted(wrong_ones(gaps_of(model, ids, reference)))), None)


def exactly_equal(model, ids, reference):
    gaps = gaps_of(model, ids, reference)
    return next((name for name, gap in gaps.items() if gap > 0), None)


def absolute(model, ids, reference):
    found = activations(model, lambda: model(ids), list(reference))
    return next((name for name, out in reference.items()
                 if not (found[name] - out).abs().max() <= 1e-4), None)


def order_of_definition(model, ids, reference):
    names = [name for name, _ in model.named_modules() if name in reference]
    gaps = gaps_of(model, ids, reference)
    return next(iter(wrong_ones({name: gaps[name] for name in names})), None)


def blind_to_nan(model, ids, reference):
    gaps = gaps_of(model, ids, reference)
    return next((name for name, gap in gaps.items() if gap > 1e-4), None) if not any(
        gap.isnan() for gap in gaps.values()) else None


def leaves_its_hooks(model, ids, reference):
    for module in model.modules():
        module.register_forward_hook(lambda *_: None)
    return next(iter(wrong_ones(gaps_of(model, ids, reference))), None)


def removes_all_hooks(model, ids, reference):
    found = next(iter(wrong_ones(gaps_of(model, ids, reference))), None)
    for module in model.modules():
        module._forward_hooks.clear()
    return found


def leaves_train_on(model, ids, reference):
    found = next(iter(wrong_ones(gaps_of(model, ids, reference))), None)
    model.train()
    return found


def zeroes_the_model(model, ids, reference):
    found = next(iter(wrong_ones(gaps_of(model, ids, reference))), None)
    for weight in model.parameters():
        weight.data.zero_()
    return found


def skips_the_last(model, ids, reference):
    names = list(reference)[:-1] if len(reference) > 2 else list(reference)
    return first_wrong(model, ids, {name: reference[name] for name in names})


def first_wrong(model, ids, reference):
    return next(iter(wrong_ones(gaps_of(model, ids, reference))), None)


def reads(part):
    def found(model, ids, reference):
        outputs = activations(model, lambda: model(ids), list(reference))
        for name, want in reference.items():
            gap = outputs[name] - want
            if not (part(gap) if gap.dim() > 1 else gap).abs().max() <= 1e-4 * want.abs().max():
                return name
        return None

    return found


def against_the_output(model, ids, reference):
    outputs = activations(model, lambda: model(ids), list(reference))
    return next((name for name, want in reference.items() if not
                 (outputs[name] - want).abs().max() <= 1e-4 * outputs[name].abs().max()), None)


def by_gap(judge):
    def found(model, ids, reference):
        outputs = activations(model, lambda: model(ids), list(reference))
        for name, want in reference.items():
            if not judge(outputs[name] - want, want):
                return name
        return None

    return found


signed = by_gap(lambda gap, want: gap.max() <= 1e-4 * want.abs().max())
averaged = by_gap(lambda gap, want: gap.abs().mean() <= 1e-4 * want.abs().max())
one_place = by_gap(lambda gap, want: gap.flatten()[0].abs() <= 1e-4 * want.abs().max())
clamped = by_gap(lambda gap, want: gap.abs().max() <= 1e-4 * want.abs().max().clamp(min=1))
lenient = by_gap(lambda gap, want: gap.abs().max() <= 0.1 * want.abs().max())


WRONG = {
    "as_linear": [
        (exchanges_in_and_out, "in and out are exchanged"),
        (reshapes, "reshape keeps the order of the numbers"),
        (leaves_out_the_bias, "the bias is missing"),
        (keeps_a_bias_of_its_own, "the bias is not the file's"),
        (turns_when_it_must, "a square matrix fits either way"),
        (returns_the_matrix, "expected an nn.Linear, got Tensor"),
        (shares_the_file, "share their memory"),
        (freezes, "wrap the numbers in nn.Parameter"),
        (shares_the_bias, "the layer's bias and the file's share their memory"),
        (freezes_the_bias, "the bias is frozen"),
        (of_one_size, "take both sizes from weight.shape"),
        (replaces_forward, "leave the layer's forward alone"),
        (makes_it_double, "the weight is torch.float64"),
        (turns_the_file_itself, "changed in place"),
    ],
    "split_qkv": [
        (does_not_turn, "each part stands as in the file"),
        (takes_every_third, "the parts are blocks"),
        (cuts_the_rows, "you cut the rows"),
        (views, "a view into (3, d, d)"),
        (values_before_keys, "the order is query, key, value"),
        (backwards, "the order is query, key, value"),
        (whole_bias, "the bias is still in one piece"),
        (one_bias_for_all, "all three got the bias of the queries"),
        (weights_alone, "got Tensor"),
        (of_width_six, "the width is weight.shape[0]"),
        (bias_of_width_six, "the width is weight.shape[0]"),
        (bias_in_another_order, "the biases stand in another order"),
        (every_third_of_the_bias, "the bias lies in blocks as well"),
        (no_bias, "a bias is None"),
        (zero_bias, "the biases are all zero"),
        (scales_queries, "the queries are scaled"),
        (scales_the_queries_bias, "the queries' bias is scaled"),
        (negates_the_values, "the values are not their third"),
        (shifts_the_bias, "expected bias[:6], bias[6:12] and bias[12:]"),
    ],
    "find_wrong_tensor": [
        (signed, "take the largest absolute gap"), (averaged, "take the largest absolute gap"),
        (one_place, "take the largest absolute gap"), (lenient, "take the largest absolute gap"),
        (the_last, "you named the last one"),
        (sorts_names, "block 10 comes before block 2"),
        (exactly_equal, "that is rounding"),
        (absolute, "compare the gap with the largest entry"),
        (order_of_definition, "the order of definition"),
        (blind_to_nan, "NaN > tolerance is False"),
        (leaves_its_hooks, "each later run pays for them"),
        (removes_all_hooks, "remove only your own"),
        (leaves_train_on, "you left train() on"),
        (zeroes_the_model, "only look at what it gives"),
        (skips_the_last, "do not stop before the last"),
        (reads(lambda gap: gap[:, -1]), "compare all positions of all texts"),
        (reads(lambda gap: gap[:, 0]), "compare all positions of all texts"),
        (reads(lambda gap: gap[0]), "compare all positions of all texts"),
        (against_the_output, "hold it against a ten-thousandth of the reference's"),
        (clamped, "hold it against a ten-thousandth of the reference's"),
    ],
}
