"""Decoding at memory's speed on one CPU thread.

A step of decoding multiplies every matrix by one row per text: each weight is read once and used
once, so the core waits for memory, and torch's product leaves part of its speed unused. The one
in fast_product.cpp reads four stretches of a matrix side by side and asks for numbers before it
needs them. A C++ compiler makes it for the machine at hand, in seconds, when it is first wanted.

Chapter:  chapters/05b_models_and_weights.ipynb
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from scratchbook.norms import LayerNorm

MOST_ROWS = 8  # with more of them arithmetic is the limit, and torch's product the faster one
LANES = 16  # numbers that are multiplied side by side
LARGE = 1 << 20  # bytes from which a matrix is worth moving to large pages


class FastLinear(nn.Linear):
    """A linear layer on the parameters of another, made for up to eight rows at a time.

    Sums are kept in float32 and rounded once. With gradients, for more rows or on another
    device it computes what `nn.Linear` does.

    Shapes:   x (..., in_features) -> (..., out_features)
    Chapter:  chapters/05b_models_and_weights.ipynb
    """

    def __init__(self, linear: nn.Linear, products: dict[torch.dtype, Callable[..., None]]):
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None,
                         device="meta")
        self.weight, self.bias, self._products = linear.weight, linear.bias, products

    def forward(self, x: Tensor) -> Tensor:
        """Multiply every vector of `x` by the matrix, and add the bias."""
        weight, bias, width = self.weight, self.bias, self.in_features
        rows, dtype = x.numel() // width, weight.dtype
        product = self._products.get(dtype)
        if (product is None or not 0 < rows <= MOST_ROWS or x.dtype != dtype
                or x.shape[-1] != width or not weight.is_cpu or torch.is_grad_enabled()):
            return super().forward(x)
        wide, out = x.float().contiguous(), torch.empty(*x.shape[:-1], self.out_features)
        product(rows, weight.data_ptr(), None if bias is None else bias.data_ptr(),
                wide.data_ptr(), out.data_ptr(), self.out_features, width)
        return out.to(dtype)


@contextmanager
def fast_decoding(model: nn.Module) -> Iterator[str | None]:
    """Within the block `model` decodes faster on one CPU thread, with the same results.

    Every `nn.Linear` becomes a `FastLinear` on the same parameters, every `LayerNorm` torch's
    own, which is one operation instead of nine; at the end all are put back (large matrices
    stay in the large pages of memory that they were moved to). Where that cannot be (no C++
    compiler, several threads) nothing changes: the block gets the reason as a text, and
    otherwise None.

    Chapter:  chapters/05b_models_and_weights.ipynb
    """
    places = [(parent, name, child) for parent in model.modules()
              for name, child in parent.named_children() if _fits(child)]
    reason = _reason_against(any(type(child) is nn.Linear for _, _, child in places))
    places = [] if reason else places
    try:
        for parent, name, child in places:
            setattr(parent, name, _faster(child))
        yield reason
    finally:
        for parent, name, child in places:
            setattr(parent, name, child)


def _fits(module: nn.Module) -> bool:
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return False  # somebody changes what goes in or comes out
    if type(module) is nn.Linear and module.in_features % LANES:
        return False
    return (type(module) in (nn.Linear, LayerNorm) and module.weight.is_cpu
            and module.weight.dtype in (torch.float32, torch.bfloat16)
            and module.weight.is_contiguous())


def _faster(module: nn.Linear | LayerNorm) -> nn.Module:
    if isinstance(module, LayerNorm):
        fused = nn.LayerNorm(module.d_model, module.eps, device="meta")
        fused.weight, fused.bias = module.weight, module.bias
        return fused
    library, weight = _library(), module.weight
    if weight.nbytes >= LARGE:
        library.use_large_pages(weight.data_ptr(), weight.nbytes)
    return FastLinear(module, {torch.float32: library.multiply_float32,
                               torch.bfloat16: library.multiply_bfloat16})


def _reason_against(any_linear: bool) -> str | None:
    threads = torch.get_num_threads()
    if not any_linear:
        return "no linear layer holds float32 or bfloat16 on the CPU"
    if threads > 1:
        return f"torch has {threads} threads: torch.set_num_threads(1) first"
    try:
        _library()
    except RuntimeError as error:
        return str(error)
    return None


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    library = compile_library(Path(__file__).with_name("fast_product.cpp"))
    for product in (library.multiply_float32, library.multiply_bfloat16):
        product.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 4, *[ctypes.c_long] * 2]
        product.restype = None
    library.use_large_pages.argtypes = [ctypes.c_void_p, ctypes.c_long]
    library.use_large_pages.restype = None
    return library


def compile_library(source: Path) -> ctypes.CDLL:
    """Compile C++ for this machine and load it; nothing stays on the disk.

    Raises:   RuntimeError when there is no compiler or it refuses, with the way out
    """
    names = [os.environ.get("CXX") or "c++", "g++", "clang++"]
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        raise RuntimeError(f"no C++ compiler was found ({', '.join(names)}): install one, or "
                           "name it in the environment variable CXX")
    native = "-march" if platform.machine().lower() in ("x86_64", "amd64") else "-mcpu"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        library = str(Path(folder) / "library.so")
        done = subprocess.run([compiler, "-std=c++17", "-O3", f"{native}=native", "-shared",
                               "-fPIC", str(source), "-o", library],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{compiler} refused: {done.stderr.strip()[:300]}")
        return ctypes.CDLL(library)
