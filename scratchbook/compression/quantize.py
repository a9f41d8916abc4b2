"""Numbers as codes of eight or four bits: scales, codes, and two codes packed into a byte.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = ("int8", "int4", "nf4", "fp4")
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
       -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
       0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
       0.7229568362236023, 1.0]  # the middles of 16 equally likely stretches of a normal
FP4 = [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0]  # by its bits: two exponent, one mantissa
USUAL_GROUPS = {"int8": "channel", "int4": 32, "nf4": 64, "fp4": 64}
SCALES_IN_A_BLOCK = 256


@dataclass(frozen=True)
class Scheme:
    """How the numbers of a matrix become codes.

    `int8` and `int4` are evenly spaced, `nf4` and `fp4` stand in a table of 16. `group_size`
    numbers along the input share a scale; "channel" is a whole row, "tensor" the whole matrix,
    None the usual one of the kind. Not symmetric means that the codes have a zero point
    between the smallest and the largest number. `double` keeps the scales as codes too.

    Raises:   ValueError for an unknown kind or group size, or a codebook with a zero point
    Paper:    Dettmers et al. (2023), arXiv:2305.14314, section 3
    Chapter:  chapters/07_compression.ipynb
    """

    kind: str = "int8"
    group_size: int | str | None = None
    symmetric: bool = True
    double: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is unknown; choose one of {', '.join(KINDS)}")
        if self.group_size is None:
            object.__setattr__(self, "group_size", USUAL_GROUPS[self.kind])
        size = self.group_size
        if size not in ("channel", "tensor") and (type(size) is not int or size < 1):
            raise ValueError(f'group_size={size!r} is neither "channel" nor "tensor" nor a whole '
                             "number from 1 up")
        if not self.symmetric and not self.kind.startswith("int"):
            raise ValueError(f"{self.kind} has a table of codes and no zero point: leave "
                             "symmetric=True, or choose int4")

    @property
    def bits(self) -> int:
        """Bits of a code, without its share of a scale."""
        return 8 if self.kind == "int8" else 4

    def grouped(self, matrix: Tensor) -> Tensor:
        """The numbers that share a scale, side by side.

        Shapes:   (rows, columns) -> (rows, groups, group_size); for "tensor" (1, 1, all)
        Raises:   ValueError when the groups do not divide the columns
        """
        if self.group_size == "tensor":
            return matrix.reshape(1, 1, -1)
        columns = matrix.shape[-1]
        size = columns if self.group_size == "channel" else self.group_size
        if columns % size:
            raise ValueError(f"group_size={size} does not divide the {columns} inputs: take a "
                             "divisor, or \"channel\"")
        return matrix.unflatten(-1, (-1, size))


@lru_cache
def table_of(kind: str) -> Tensor:
    """The 16 numbers that the codes of a 4-bit kind stand for, in the order of the codes."""
    values = {"int4": list(range(-8, 8)), "nf4": NF4, "fp4": FP4 + [-value for value in FP4]}
    table = torch.tensor(values[kind], dtype=torch.float32)
    return table if kind == "int4" else table / table.abs().max()


def choose_scales(weight: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor | None]:
    """The size of a step of each group and, unless symmetric, the code that means zero.

    Shapes:   weight (rows, columns) -> scales and zeros (rows, groups); "tensor" gives (1, 1)
    Raises:   ValueError for what is no matrix of finite floating-point numbers, or empty
    Paper:    Jacob et al. (2018), arXiv:1712.05877, section 2.1
    """
    check_weight(weight, scheme)
    groups = scheme.grouped(weight.detach().float().contiguous())
    if scheme.kind in ("nf4", "fp4"):
        return groups.abs().amax(-1), None
    steps, low = 2**scheme.bits - 1, -(2 ** (scheme.bits - 1))
    least = torch.finfo(torch.float32).smallest_normal  # a group of zeros divides by this
    if scheme.symmetric:
        return (groups.abs().amax(-1) / (steps / 2)).clamp(min=least), None
    bottom, top = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scales = ((top - bottom) / steps).clamp(min=least)
    return scales, (low - torch.round(bottom / scales)).clamp(low, low + steps).to(torch.int8)


def check_weight(weight: Tensor, scheme: Scheme) -> None:
    """Refuse what cannot be quantized.

    Raises:   ValueError as `choose_scales` says
    """
    if weight.dim() != 2 or not weight.is_floating_point() or not weight.numel():
        raise ValueError(f"a matrix of floating-point numbers was expected, not {weight.dtype} of "
                         f"shape {tuple(weight.shape)}")
    scheme.grouped(weight.to("meta"))
    largest = weight.detach().abs().max().item()
    if not largest < 1e38:  # true of NaN as well
        raise ValueError(f"the largest weight is {largest}: mend the NaN or infinite weights first")


def to_codes(weight: Tensor, scales: Tensor, zeros: Tensor | None, scheme: Scheme) -> Tensor:
    """Round every number to the nearest code of its group.

    int8 gives codes from -128 to 127, the others places in `table_of(kind)`, 0 to 15.

    Shapes:   weight (rows, columns), scales and zeros (rows, groups) -> (rows, columns)
    """
    groups = scheme.grouped(weight.detach().float().contiguous())
    if scheme.kind in ("nf4", "fp4"):
        table = table_of(scheme.kind).to(weight.device)
        order = table.argsort()
        between = (table[order[:-1]] + table[order[1:]]) / 2
        inside = (groups * (1 / scales.clamp(min=1e-38))[..., None]).clamp(-1, 1)
        return order[torch.bucketize(inside, between)].to(torch.uint8).view(weight.shape)
    low = -(2 ** (scheme.bits - 1))
    codes = torch.round(groups * (1 / scales)[..., None])
    codes = codes if zeros is None else codes + zeros[..., None]
    codes = codes.clamp(low, -low - 1).view(weight.shape)
    return codes.to(torch.int8) if scheme.bits == 8 else (codes - low).to(torch.uint8)


def from_codes(codes: Tensor, scales: Tensor, zeros: Tensor | None, scheme: Scheme) -> Tensor:
    """The numbers that codes stand for, in float32; off by half a step at the most.

    Shapes:   codes (..., columns), scales and zeros (..., groups) -> (..., columns)
    """
    if scheme.bits == 4:
        values = F.embedding(codes.int(), table_of(scheme.kind).to(codes.device)[:, None])[..., 0]
    else:
        values = codes.float()
    groups = scheme.grouped(values)
    groups = groups if zeros is None else groups - zeros[..., None]
    return (groups * scales[..., None]).view(values.shape)


def quantized(weight: Tensor, scheme: Scheme) -> Tensor:
    """What is left of a matrix after rounding, in float32.

    Shapes:   (rows, columns) -> (rows, columns)
    Raises:   ValueError as `choose_scales` does
    """
    scales, zeros = choose_scales(weight, scheme)
    return from_codes(to_codes(weight, scales, zeros, scheme), scales, zeros, scheme)


def pack(codes: Tensor) -> Tensor:
    """Two codes of four bits in a byte, the first in its upper half; an odd one gets a zero.

    Shapes:   (..., columns) -> (..., columns / 2, rounded up), uint8
    Raises:   ValueError for codes that are no uint8 from 0 to 15
    """
    if codes.dtype != torch.uint8 or (codes > 15).any():
        raise ValueError(f"codes of four bits are uint8 from 0 to 15, not {codes.dtype} up to "
                         f"{codes.max().item()}")
    codes = F.pad(codes, (0, codes.shape[-1] % 2))
    return codes[..., ::2] << 4 | codes[..., 1::2]


def unpack(packed: Tensor, columns: int) -> Tensor:
    """The codes that `pack` put into bytes.

    Shapes:   (..., columns / 2, rounded up) -> (..., columns)
    """
    return torch.stack([packed >> 4, packed & 15], dim=-1).flatten(-2)[..., :columns]


@lru_cache
def dynamic_map() -> Tensor:
    """256 numbers from -1 to 1: the smaller, the denser, as scales need it.

    Paper:    Dettmers et al. (2022), arXiv:2110.02861, section 1.3
    """
    values = [0.0, 1.0]
    for power in range(7):
        edges = torch.linspace(0.1, 1, 2**power + 1)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (power - 6)
        values += [*middles.tolist(), *(-middles).tolist()]
    return torch.tensor(sorted(values))


def quantize_scales(scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scales as codes of eight bits: their difference from the mean, in blocks of 256.

    Shapes:   scales (...) -> codes (...), absmax (blocks,), mean ()
    Paper:    Dettmers et al. (2023), arXiv:2305.14314, section 3, double quantization
    """
    mean, table = scales.mean(), dynamic_map().to(scales.device)
    flat = (scales - mean).flatten()
    blocks = F.pad(flat, (0, -flat.numel() % SCALES_IN_A_BLOCK)).view(-1, SCALES_IN_A_BLOCK)
    absmax = blocks.abs().amax(-1)
    inside = (blocks * (1 / absmax.clamp(min=1e-38))[:, None]).clamp(-1, 1)
    codes = torch.bucketize(inside, (table[:-1] + table[1:]) / 2).to(torch.uint8)
    return codes.flatten()[: flat.numel()].clone().view(scales.shape), absmax, mean


def dequantize_scales(codes: Tensor, absmax: Tensor, mean: Tensor) -> Tensor:
    """The scales that `quantize_scales` rounded.

    Shapes:   codes (...), absmax (blocks,), mean () -> (...)
    """
    values = F.embedding(codes.flatten().int(), dynamic_map().to(codes.device)[:, None])[:, 0]
    blocks = F.pad(values, (0, -values.numel() % SCALES_IN_A_BLOCK)).view(-1, SCALES_IN_A_BLOCK)
    return ((blocks * absmax[:, None]).flatten()[: values.numel()] + mean).view(codes.shape)
