"""The tensors of a model's files one at a time, for models too large to be held as they are.

Chapter:  chapters/05b_models_and_weights.ipynb
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from scratchbook.config import ModelConfig
from scratchbook.model import DecoderLM
from scratchbook.weights.families import Family, read_config
from scratchbook.weights.loading import (
    OURS,
    _from_hub,
    _open_tensors,
    _own_config,
    _read_json,
    _refuse_leftovers,
    _source,
    _Tensors,
)


@dataclass(frozen=True)
class Weights:
    """The files of one decoder: its config, and its tensors under our names.

    Chapter:  chapters/05b_models_and_weights.ipynb
    """

    folder: Path
    config: ModelConfig
    family: Family | None
    tensors: _Tensors

    def empty_model(self) -> DecoderLM:
        """The model that config.json describes, on the meta device: it holds no numbers."""
        with torch.device("meta"):
            return DecoderLM(self.config)

    def read(self, model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of an empty model, one after the other; a tied head is not repeated.

        Its file is opened anew for each, so that nothing that was read before stays in memory.

        Raises:   ValueError for a tensor that is missing, misshapen or, at the end, left over
        """
        prefix, used = self.tensors.prefix(self.family), set()
        for ours, parameter in model.state_dict().items():
            theirs, part, parts, turned = _source(ours, self.family, prefix)
            used.add(theirs)
            if ours == "lm_head.weight" and self.config.tie_embeddings:
                continue
            if ours == "lm_head.bias" and self.family:  # none of the families has one
                yield ours, torch.zeros(parameter.shape, dtype=dtype)
                continue
            want = (parts * parameter.shape[0], *parameter.shape[1:])
            tensor = self._read(theirs, ours, tuple(reversed(want)) if turned else want)
            tensor = tensor.T if turned and tensor.dim() == 2 else tensor
            yield ours, tensor.chunk(parts)[part].to(dtype).contiguous()
        _refuse_leftovers(self.tensors, used, self.family)

    def _read(self, theirs: str, ours: str = "", want: tuple[int, ...] | None = None) -> Tensor:
        where = self.tensors.where(theirs)
        if theirs not in self.tensors.places:
            raise ValueError(f"{where}: tensor {theirs!r} is missing; expected shape {want} for "
                             f"{ours!r}")
        with safe_open(self.tensors.places[theirs], framework="pt") as opened:
            tensor = opened.get_tensor(theirs)
        if not tensor.is_floating_point():
            raise ValueError(f"{where}: tensor {theirs!r} holds {tensor.dtype}; quantised weights "
                             "cannot be read")
        if want is not None and tuple(tensor.shape) != want:
            raise ValueError(f"{where}: tensor {theirs!r} has shape {tuple(tensor.shape)}, "
                             f"expected {want} for {ours!r}")
        return tensor


@contextmanager
def open_weights(name_or_path: str | Path, revision: str | None = None) -> Iterator[Weights]:
    """Open a folder's files, or those of a name on the hub, which are fetched first.

    Raises:   as `load_pretrained`; ValueError for a model that is no decoder
    Chapter:  chapters/05b_models_and_weights.ipynb
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        folder = _from_hub(str(name_or_path), revision)
    entries, family = _read_json(folder / "config.json"), None
    if entries.get("model_type") == OURS:
        config, encoder = _own_config(entries), entries.get("encoder") is True
    else:
        family, config = read_config(entries)
        encoder = family.encoder
    if encoder:
        raise ValueError(f"{folder} holds an encoder, which writes nothing: give a decoder")
    with _open_tensors(folder) as tensors:
        if config.num_layers > len(tensors.places):  # a billion layers would take forever to build
            raise ValueError(f"config.json asks for {config.num_layers} layers, the files hold "
                             f"{len(tensors.places)} tensors in all")
        if config.tie_embeddings and tensors.has_other_head(family):
            config = config.with_(tie_embeddings=False)  # the file knows better, as transformers
        yield Weights(folder, config, family, tensors)
