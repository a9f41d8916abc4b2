"""Codes, scales and zero points against torchao's and bitsandbytes'."""

import warnings
from importlib.metadata import version

import pytest
import torch

from scratchbook.compression.quantize import (
    Scheme,
    choose_scales,
    from_codes,
    pack,
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
