"""Codes, scales and zero points against torchao's and bitsandbytes'."""

import warnings
from importlib.metadata import version

import pytest
import torch
from torch import nn

from scratchbook.compression.layers import PackedWeight
from scratchbook.compression.quantize import (
    Scheme,
    choose_scales,
    dequantize_scales,
    dynamic_map,
    from_codes,
    pack,
    quantize_scales,
    to_codes,
)

TORCHAO, BITSANDBYTES = (f"{name} {version(name)}" for name in ("torchao", "bitsandbytes"))


def weights():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, columns, generator=generator) * size + shift
            for rows, columns in ((16, 128), (64, 256)) for size in (0.02, 3.0)
            for shift in (0.0, 0.01)]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_codes_scales_and_zero_points_equal_torchaos(parity, kind, symmetric):
    from torchao.quantization.quant_primitives import (
        MappingType,
        choose_qparams_affine,
        quantize_affine,
    )

    low, high = (-128, 127) if kind == "int8" else (-8, 7)
    errors = []
    for weight in weights():
        for size in ("tensor", "channel", 32):
            scheme = Scheme(kind, size, symmetric)
            scales, zeros = choose_scales(weight, scheme)
            codes = to_codes(weight, scales, zeros, scheme)
            block = {"tensor": tuple(weight.shape), "channel": (1, weight.shape[1])}.get(
                size, (1, size))
            mapping = MappingType.SYMMETRIC if symmetric else MappingType.ASYMMETRIC
            theirs, points = choose_qparams_affine(weight, mapping, block, torch.int8, low, high)
            ints = quantize_affine(weight, block, theirs, points, torch.int8, low, high)
            codes = codes.int() + (low if kind == "int4" else 0)
            zeros = torch.zeros_like(scales) if zeros is None else zeros
            errors += [(scales.flatten() - theirs.flatten()).abs().max().item(),
                       (zeros.flatten() - points.flatten()).abs().max().item(),
                       (codes - ints).abs().max().item()]
    name = "absmax" if symmetric else "zero point"
    assert parity(f"{kind} by {name}: codes, scales, zero points", against=TORCHAO,
                  error=max(errors), cases=len(errors))


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_codes_and_absmax_equal_bitsandbytes(parity, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    errors = []
    for weight in weights():
        scheme = Scheme(kind, 64)
        scales, _ = choose_scales(weight, scheme)
        codes = to_codes(weight, scales, None, scheme)
        packed, state = quantize_4bit(weight, blocksize=64, quant_type=kind)
        errors += [(pack(codes).flatten().int() - packed.flatten().int()).abs().max().item(),
                   (scales.flatten() - state.absmax).abs().max().item(),
                   (from_codes(codes, scales, None, scheme) - dequantize_4bit(packed, state)
                    ).abs().max().item()]
    assert parity(f"{kind}: packed codes, absmax, numbers", against=BITSANDBYTES,
                  error=max(errors), cases=len(errors), bound=1e-6)


def test_sums_of_products_of_int8_equal_those_in_int32(parity):
    """In float32 as in int32: up to 1,024 products of 127 by 127 make no sum that is rounded."""
    scheme, errors = Scheme("int8", "channel"), []
    for weight in weights():
        x, ones = torch.randn(17, weight.shape[1]), torch.ones(len(weight), 1)
        codes, inputs = (to_codes(each, choose_scales(each, scheme)[0], None, scheme)
                         for each in (weight, x))
        theirs = torch._int_mm(inputs, codes.T.contiguous())
        packed = PackedWeight.of(weight, scheme, codes, ones)
        with torch.no_grad():
            compiled = packed.multiply(inputs.float())
        unpacked = packed.multiply(inputs.float().requires_grad_()).detach()
        errors += [(ours.double() - theirs).abs().max().item() for ours in (compiled, unpacked)]
    assert parity("int8 by int8, summed in int32: packed product, compiled and unpacked",
                  against=f"torch {torch.__version__}", error=max(errors), cases=len(errors))


def test_a_layer_of_int8_with_inputs_of_int8_equals_torchaos(parity):
    """What is summed in int32 and scaled there is here the product of the numbers meant."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    scheme, errors = Scheme("int8", "channel"), []
    for weight in weights():
        x, layer = torch.randn(17, weight.shape[1]), nn.Linear(*reversed(weight.shape), bias=False)
        layer.weight.data = weight.clone()
        theirs = nn.Sequential(layer)
        quantize_(theirs, Int8DynamicActivationInt8WeightConfig())
        with torch.no_grad():
            scales, _ = choose_scales(x, scheme)
            rounded = from_codes(to_codes(x, scales, None, scheme), scales, None, scheme)
            ours, want = PackedWeight.of(weight, scheme).multiply(rounded), theirs(x)
        errors.append(((ours - want).abs().max() / want.abs().max()).item())
    assert parity("int8 layer with int8 inputs: outputs, as a share of the largest",
                  against=TORCHAO, error=max(errors), cases=len(errors), bound=1e-6)


def test_scales_as_codes_equal_bitsandbytes_but_where_its_steps_are_seen(parity):
    """On a CPU it looks its code up at 65,536 places of -1..1; ours is the nearest code.

    With inputs at one of these places all codes are equal; without, ours are never farther off.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from bitsandbytes.functional import create_dynamic_map, quantize_4bit

    table, places, errors, other, count = dynamic_map(), 65535, [], 0, 0
    between = (table[1:] + table[:-1]) / 2
    errors.append((table - create_dynamic_map()).abs().max().item())
    for seed in range(8):
        weight = 3 * torch.randn(512, 512, generator=torch.Generator().manual_seed(seed))
        scales, _ = choose_scales(weight, Scheme("nf4", 64))
        codes, absmax, mean = quantize_scales(scales)
        state = quantize_4bit(weight, blocksize=64, quant_type="nf4",
                              compress_statistics=True)[1]
        inside = ((scales - mean).flatten().view(-1, 256) / absmax[:, None]).clamp(-1, 1)
        placed = ((inside + 1) * 0.5 * places).round() / places * 2 - 1
        ours, theirs = codes.flatten().int(), state.absmax.int()
        errors += [(absmax - state.state2.absmax).abs().max().item(),
                   (mean - state.offset).abs().item(),
                   (torch.bucketize(placed, between).flatten() - theirs).abs().max().item()]
        off = [(table[each] - inside.flatten()).abs() for each in (ours, theirs)]
        assert (off[0] <= off[1] + 1e-7).all() and (ours - theirs).abs().max() <= 1
        other, count = other + int((ours != theirs).sum()), count + len(ours)
        assert torch.equal(dequantize_scales(state.absmax.view(scales.shape),
                                             state.state2.absmax, state.offset),
                           dequantize_scales(theirs.to(torch.uint8).view(scales.shape),
                                             absmax, mean))
    assert 0 < other < 0.005 * count  # what the row leaves out: about one code in 600
    assert parity("nf4's scales as codes: map, mean, absmax; codes of inputs at 65,536 places",
                  against=BITSANDBYTES, error=max(errors), cases=len(errors))
