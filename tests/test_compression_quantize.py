"""Codes, scales and packing: by hand, within half a step, and refused where nothing fits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from scratchbook.compression.quantize import (
    KINDS,
    Scheme,
    choose_scales,
    dequantize_scales,
    dynamic_map,
    from_codes,
    pack,
    quantize_scales,
    quantized,
    table_of,
    to_codes,
    unpack,
)

SCHEMES = [Scheme(kind, size, symmetric)
           for kind in KINDS for size in ("tensor", "channel", 8) for symmetric in (True, False)
           if symmetric or kind.startswith("int")]
every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=str)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_eight_bits_by_hand():
    weight = torch.tensor([[1.0, -2.55, 0.5, 2.55]])
    scales, zeros = choose_scales(weight, Scheme("int8"))
    assert_close(scales, torch.tensor([[0.02]]))
    assert zeros is None
    assert to_codes(weight, scales, None, Scheme("int8")).tolist() == [[50, -128, 25, 127]]


def test_a_zero_point_by_hand():
    weight, scheme = torch.tensor([[-1.0, 0.0, 2.0, 1.0]]), Scheme("int4", "channel", False)
    scales, zeros = choose_scales(weight, scheme)
    assert_close(scales, torch.tensor([[0.2]]))
    assert zeros.tolist() == [[-3]]  # -1 is 5 steps below zero, and -8 the lowest code
    codes = to_codes(weight, scales, zeros, scheme)
    assert codes.tolist() == [[0, 5, 15, 10]]
    assert_close(from_codes(codes, scales, zeros, scheme), weight)


def test_codebooks_by_hand():
    weight = torch.tensor([[4.0, -4.0, 0.0, 0.3]])
    assert to_codes(weight, *choose_scales(weight, Scheme("nf4", 4)),
                    Scheme("nf4", 4)).tolist() == [[15, 0, 7, 8]]
    # bits of fp4: sign, two of the exponent, one of the mantissa; 12 is the largest
    assert to_codes(3 * weight, *choose_scales(3 * weight, Scheme("fp4", 4)),
                    Scheme("fp4", 4)).tolist() == [[3, 11, 0, 1]]
    assert quantized(3 * weight, Scheme("fp4", 4)).tolist() == [[12.0, -12.0, 0.0, 0.0625]]


def test_groups_have_scales_of_their_own():
    weight = torch.tensor([[1.0, 1.0, 100.0, 100.0]])
    assert choose_scales(weight, Scheme("int4", 2))[0].shape == (1, 2)
    assert choose_scales(weight, Scheme("int4", "channel"))[0].shape == (1, 1)
    assert choose_scales(normal(3, 4), Scheme("int4", "tensor"))[0].shape == (1, 1)
    assert_close(quantized(weight, Scheme("int4", 2)), weight * 14 / 15)
    assert quantized(weight, Scheme("int4", "channel"))[0, 0] == 0  # an outlier eats the small ones


@every_scheme
@settings(max_examples=30, derandomize=True, database=None)
@given(rows=st.integers(1, 3), columns=st.sampled_from([8, 16, 24]), seed=st.integers(0, 2**31),
       size=st.floats(-35, 35), shift=st.floats(-3, 3))
def test_no_number_is_off_by_more_than_half_a_gap(scheme, rows, columns, seed, size, shift):
    weight = (normal(rows, columns, seed=seed) + shift) * 10.0**size
    scales, zeros = choose_scales(weight, scheme)
    error = (quantized(weight, scheme) - weight).abs()
    if scheme.kind.startswith("int"):
        widest = 1.0
    else:
        widest = table_of(scheme.kind).sort().values.diff().max()
    # a zero point is rounded too: the ends of the range may be another half step away
    bound = (0.5 if scheme.symmetric else 1.0) * widest * scales[..., None]
    slack = 1e-5 * scheme.grouped(weight).abs().amax(-1, keepdim=True) + 1e-37
    assert (scheme.grouped(error) <= bound + slack).all()


@every_scheme
def test_zero_stays_zero_and_a_group_of_zeros_too(scheme):
    weight = normal(4, 16)
    weight[:, ::3] = 0
    weight[2] = 0
    assert (quantized(weight, scheme)[weight == 0] == 0).all()


@every_scheme
def test_what_was_rounded_once_is_rounded_no_further(scheme):
    once = quantized(normal(4, 16), scheme)
    codes = to_codes(once, *choose_scales(normal(4, 16), scheme), scheme)
    again = from_codes(codes, *choose_scales(normal(4, 16), scheme), scheme)
    assert_close(again, once)


def test_more_bits_and_smaller_groups_lose_less():
    weight = normal(64, 64)
    lost = [(quantized(weight, scheme) - weight).norm().item() for scheme in (
        Scheme("int8"), Scheme("nf4", 16), Scheme("nf4", 64), Scheme("int4", "channel"),
        Scheme("int4", "tensor"))]
    assert lost == sorted(lost)
    assert (quantized(weight, Scheme("nf4", 64)) - weight).norm() < (
        quantized(weight, Scheme("fp4", 64)) - weight).norm()  # weights here are normal


@settings(max_examples=30, derandomize=True, database=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(0, 2**31))
def test_unpacking_undoes_packing_in_half_the_bytes(rows, columns, seed):
    codes = torch.randint(16, (rows, columns), dtype=torch.uint8,
                          generator=torch.Generator().manual_seed(seed))
    packed = pack(codes)
    assert packed.dtype == torch.uint8 and packed.shape == (rows, (columns + 1) // 2)
    assert torch.equal(unpack(packed, columns), codes)


def test_the_first_of_two_codes_is_the_upper_half():
    assert pack(torch.tensor([[1, 2, 15]], dtype=torch.uint8)).tolist() == [[0x12, 0xF0]]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 256), (300, 2)])
def test_scales_as_codes_are_off_by_little(shape):
    scales = normal(*shape).abs() + 0.5
    codes, absmax, mean = quantize_scales(scales)
    assert codes.shape == scales.shape and absmax.numel() == -(-scales.numel() // 256)
    back = dequantize_scales(codes, absmax, mean)
    gap = dynamic_map().diff().max() / 2 * absmax.max() + 1e-6
    assert (back - scales).abs().max() <= gap
    assert codes.untyped_storage().nbytes() == codes.numel()


def test_the_dynamic_map_is_dense_at_zero_and_ends_at_one():
    table = dynamic_map()
    assert len(table) == len(table.unique()) == 256
    assert table[-1] == 1 and (table == 0).sum() == 1
    assert table.diff()[125] < table.diff()[250] / 1000


@pytest.mark.parametrize("options", [
    {"kind": "int3"}, {"kind": "NF4"}, {"group_size": 0}, {"group_size": -8}, {"group_size": "row"},
    {"group_size": 32.0}, {"group_size": True}, {"kind": "nf4", "symmetric": False}])
def test_an_unknown_scheme_is_refused(options):
    with pytest.raises(ValueError, match="choose|neither|no zero point"):
        Scheme(**options)


@pytest.mark.parametrize(("weight", "message"), [
    (torch.ones(2, 12), "does not divide the 12 inputs"),
    (torch.ones(8), "a matrix of floating-point numbers"),
    (torch.ones(2, 8, dtype=torch.int8), "torch.int8"), (torch.ones(0, 8), r"\(0, 8\)"),
    (torch.ones(8, 0), r"\(8, 0\)"), (torch.full((2, 8), torch.nan), "largest weight is nan"),
    (torch.tensor([[1.0] * 7 + [-torch.inf]]), "largest weight is inf"),
    (torch.full((2, 8), 3e38), "largest weight is 3")])
def test_what_cannot_be_quantized_is_refused(weight, message):
    with pytest.raises(ValueError, match=message):
        quantized(weight, Scheme("int4", 8))


def test_codes_that_do_not_fit_are_not_packed():
    with pytest.raises(ValueError, match="up to 16"):
        pack(torch.tensor([3, 16], dtype=torch.uint8))
    with pytest.raises(ValueError, match="torch.int8"):
        pack(torch.tensor([3, -1], dtype=torch.int8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_are_rounded_from_their_own_numbers(dtype):
    weight = normal(4, 16).to(dtype)
    assert torch.equal(quantized(weight, Scheme("int8")),
                       quantized(weight.float(), Scheme("int8")))
