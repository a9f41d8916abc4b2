"""One graph that onnxruntime runs anywhere: dynamic in batch, time and the length of its cache.

Chapter:  chapters/09d_deployment.ipynb
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from scratchbook.compression.files import check_plain
from scratchbook.generation import eval_mode
from scratchbook.model import DecoderLM
from scratchbook.positions import LearnedPositions


class _Past:
    """A cache without a buffer: what came before is an input of the graph, what stays an output."""

    def __init__(self, k: Tensor, v: Tensor):
        self.k, self.v, self.length = k, v, k.shape[2]

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.k, self.v = torch.cat([self.k, k], dim=2), torch.cat([self.v, v], dim=2)
        return self.k, self.v


class _WithPast(nn.Module):
    """The model as a function of tensors alone."""

    def __init__(self, model: DecoderLM):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, past_k: Tensor, past_v: Tensor
                ) -> tuple[Tensor, Tensor, Tensor]:
        past = past_k.shape[3]
        caches = [_Past(k, v) for k, v in zip(past_k.unbind(0), past_v.unbind(0), strict=True)]
        positions = torch.arange(past, past + ids.shape[1], device=ids.device)
        logits = self.model(ids, cache=caches, positions=positions)
        return (logits, torch.stack([cache.k for cache in caches]),
                torch.stack([cache.v for cache in caches]))


def export_onnx(model: DecoderLM, path: str | Path) -> Path:
    """Write one ONNX file with the weights inside: (ids, past_k, past_v) -> (logits, k, v).

    Without a past, past_k and past_v have a length of zero; with one, ids are the new tokens only
    and the past is what the call before returned. The logits are those of the model within
    rounding, whatever the sizes.

    Shapes:   ids (batch, time) int64, past_k and past_v (layers, batch, kv_heads, past, head_dim)
              -> logits (batch, time, vocab), k and v as the past, but past + time long
    Raises:   ValueError for latent attention, whose cache is of another kind; ImportError with
              the command that installs what is missing
    Chapter:  chapters/09d_deployment.ipynb
    """
    check_plain(model)
    config = model.config
    if config.latent_dim is not None:
        raise ValueError(f"latent_dim={config.latent_dim}: the cache of latent attention is not "
                         "exported, only keys and values of heads are")
    if (dtype := model.token_embedding.weight.dtype) != torch.float32:
        raise ValueError(f"the model computes in {dtype}, the graph in float32: take model.float()")
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ImportError("an ONNX file is written by: pip install onnx onnxscript") from None
    device = model.token_embedding.weight.device
    ids = torch.ones(2, 3, dtype=torch.long, device=device)
    past = torch.zeros(config.num_layers, 2, config.num_kv_heads, 5, config.head_dim, device=device)
    batch, time, length = (torch.export.Dim(name) for name in ("batch", "time", "past"))
    shapes = ({0: batch, 1: time}, {1: batch, 3: length}, {1: batch, 3: length})
    partial = Path(path).with_name(f"{Path(path).name}.partial")
    with eval_mode(model), unchecked_positions(model), torch.no_grad():
        program = torch.onnx.export(
            _WithPast(model).eval(), (ids, past, past.clone()), dynamo=True, dynamic_shapes=shapes,
            input_names=["ids", "past_k", "past_v"], output_names=["logits", "k", "v"],
            verbose=False)
    program.save(str(partial), external_data=False)
    return partial.replace(path)


@contextmanager
def unchecked_positions(model: DecoderLM) -> Iterator[None]:
    """Within the block nobody asks whether a table of positions is long enough: a graph cannot."""
    table = model.positions
    if not isinstance(table, LearnedPositions):
        yield
        return
    table.forward = lambda x, positions: x + table.table(positions)
    try:
        yield
    finally:
        del table.forward  # the class's own shows again


class OnnxWriter:
    """Greedy writing with an exported file, in onnxruntime and without torch's help.

    Raises:   ImportError with the command that installs onnxruntime
    Chapter:  chapters/09d_deployment.ipynb
    """

    def __init__(self, path: str | Path, threads: int = 1):
        try:
            import onnxruntime
        except ImportError:
            raise ImportError("an ONNX file is run by: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"])

    def run(self, ids: np.ndarray, past: tuple[np.ndarray, np.ndarray] | None = None
            ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """One pass.

        Shapes:   ids (batch, time), past as the call before returned it
                  -> logits (batch, time, vocab), the longer past
        """
        if past is None:
            layers, _, heads, _, head_dim = self.session.get_inputs()[1].shape
            empty = np.zeros((layers, len(ids), heads, 0, head_dim), dtype=np.float32)
            past = empty, empty
        feed = {"ids": np.asarray(ids, dtype=np.int64), "past_k": past[0], "past_v": past[1]}
        logits, k, v = self.session.run(None, feed)
        return logits, (k, v)

    def __call__(self, prompt_ids: list[int], max_new_tokens: int) -> list[int]:
        """The likeliest continuation of one prompt: what `measuring` calls a way to write."""
        written: list[int] = []
        ids, past = np.array([prompt_ids]), None
        for _ in range(max_new_tokens):
            logits, past = self.run(ids, past)
            written.append(int(logits[0, -1].argmax()))
            ids = np.array([[written[-1]]])
        return written
