"""From a folder, or a name on the hub, to a model with those weights, and back.

Chapter:  chapters/05b_models_and_weights.ipynb
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from scratchbook.config import ModelConfig, RopeSettings
from scratchbook.model import DecoderLM, EncoderModel
from scratchbook.runtime import write_atomically
from scratchbook.weights.families import Family, read_config

OURS = "scratchbook"
INDEX = "model.safetensors.index.json"
PATTERNS = ["config.json", "*.safetensors", "*.safetensors.index.json"]


def load_pretrained(
    name_or_path: str | Path, dtype: torch.dtype = torch.float32, revision: str | None = None
) -> DecoderLM | EncoderModel:
    """Build the model that a folder describes and fill it with the folder's weights.

    A name that is no folder is fetched from the hub (only config.json and safetensors). Each
    tensor is read once and becomes the parameter: nothing is allocated twice. The model comes
    in eval mode.

    Raises:   FileNotFoundError when a file is missing; ValueError naming file, tensor and the
              expected shape for whatever does not fit, and for pickles, which are never read
    Chapter:  chapters/05b_models_and_weights.ipynb
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        folder = _from_hub(str(name_or_path), revision)
    entries = _read_json(folder / "config.json")
    if entries.get("model_type") == OURS:
        family, config, is_encoder = None, _own_config(entries), entries.get("encoder") is True
    else:
        family, config = read_config(entries)
        is_encoder = family.encoder
    with _open_tensors(folder) as tensors:
        if config.num_layers > len(tensors.places):  # a billion layers would take forever to build
            raise ValueError(f"config.json asks for {config.num_layers} layers, the files hold "
                             f"{len(tensors.places)} tensors in all")
        if config.tie_embeddings and tensors.has_other_head(family):
            config = config.with_(tie_embeddings=False)  # the file knows better, as transformers
        with torch.device("meta"):
            model = EncoderModel(config) if is_encoder else DecoderLM(config)
        _fill(model, tensors, family, dtype)
    return model.eval()


def save_pretrained(model: DecoderLM | EncoderModel, folder: str | Path) -> Path:
    """Write config.json and model.safetensors, which `load_pretrained` reads back exactly.

    The weights are complete before they take the place of older ones, in one file or in parts.

    Raises:   ValueError for a model with other tensors than its config asks for, such as a LoRA
    """
    _refuse_wrapped(model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    entries = {"model_type": OURS, "encoder": isinstance(model, EncoderModel)}
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_embeddings:
        state.pop("lm_head.weight", None)
    partial = folder / "model.safetensors.partial"
    save_file(state, partial, metadata={"format": "pt"})
    partial.replace(folder / "model.safetensors")
    for old in (folder / INDEX, *folder.glob("model-*-of-*.safetensors")):
        old.unlink(missing_ok=True)
    write_atomically(folder / "config.json",
                     json.dumps(entries | asdict(model.config), indent=1) + "\n")
    return folder


def _refuse_wrapped(model: DecoderLM | EncoderModel) -> None:
    with torch.device("meta"):
        plain = type(model)(model.config).state_dict().keys()
    if other := sorted(plain ^ model.state_dict().keys()):
        raise ValueError(f"{other[0]} and {len(other) - 1} more tensors are not those of a plain "
                         "model: save the adapter alone, or merge(model) and unwrap(model) first; "
                         "quantized models are saved by save_compressed")


class _Tensors:
    """The tensors of all files of a folder, found by name and read one at a time."""

    def __init__(self, files: dict[Path, object]):
        self.files = files
        self.places = {name: path for path, opened in files.items() for name in opened.keys()}  # noqa: SIM118

    def read(self, name: str) -> Tensor:
        return self.files[self.places[name]].get_tensor(name)

    def has_other_head(self, family: Family | None) -> bool:
        """Whether there is an `lm_head` beside the embedding that is not the same matrix."""
        embedding = _source("token_embedding.weight", family, self.prefix(family))[0]
        if not {embedding, "lm_head.weight"} <= self.places.keys():
            return False
        first, second = self.read(embedding), self.read("lm_head.weight")
        return first.dtype != second.dtype or not torch.equal(first, second)

    def prefix(self, family: Family | None) -> str:
        """The name of the trunk, which some files leave out."""
        prefix = family.prefix if family else ""
        return prefix if any(name.startswith(prefix) for name in self.places) else ""

    def where(self, name: str) -> str:
        return self.places[name].name if name in self.places else " and ".join(
            path.name for path in self.files)


@contextmanager
def _open_tensors(folder: Path) -> Iterator[_Tensors]:
    with ExitStack() as stack:
        opened = {}
        for path in _weight_files(folder):
            try:
                opened[path] = stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{path} ({path.stat().st_size:,} bytes) is cut short or no "
                                 f"safetensors file ({error}); fetch it again") from None
        yield _Tensors(opened)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / "model.safetensors").is_file():  # before an index, as transformers looks for it
        return [folder / "model.safetensors"]
    index = folder / INDEX
    if index.is_file():
        places = _read_json(index).get("weight_map")
        names = list(places.values()) if isinstance(places, dict) else []
        # a name from a stranger's file stays inside the folder
        if not names or not all(isinstance(n, str) and n.endswith(".safetensors")
                                and Path(n).name == n for n in names):
            raise ValueError(f"{index}: weight_map must name, for each tensor, a safetensors file "
                             "beside it")
        files = [folder / name for name in sorted(set(names))]
        if missing := [path.name for path in files if not path.is_file()]:
            raise FileNotFoundError(f"{index} names {', '.join(missing)}, not there: fetch it")
        return files
    pickles = [p.name for kind in ("*.bin", "*.pt", "*.pth") for p in sorted(folder.glob(kind))]
    if pickles:
        raise ValueError(f"{folder} holds only {', '.join(pickles)}: a pickle can run any code "
                         "when it is read, so it is not. Convert it to safetensors where you "
                         "trust it")
    raise FileNotFoundError(f"{folder} holds no model.safetensors and no index of its parts")


def _fill(model: DecoderLM | EncoderModel, tensors: _Tensors, family: Family | None,
          dtype: torch.dtype) -> None:
    """Give every parameter its tensor; complain of what is missing, misshapen or left over."""
    prefix, state, used = tensors.prefix(family), {}, set()
    for ours, parameter in model.state_dict().items():
        if ours == "lm_head.weight" and model.config.tie_embeddings:
            used.add("lm_head.weight")
            continue
        theirs, part, parts, turned = _source(ours, family, prefix)
        if ours == "lm_head.bias" and family:  # none of the families has one
            state[ours] = torch.zeros(parameter.shape, dtype=dtype)
            continue
        if theirs not in tensors.places:
            raise ValueError(f"{tensors.where(theirs)}: tensor {theirs!r} is missing; expected "
                             f"shape {tuple(parameter.shape)} for {ours!r}")
        used.add(theirs)
        tensor = tensors.read(theirs)
        if not tensor.is_floating_point():
            raise ValueError(f"{tensors.where(theirs)}: tensor {theirs!r} holds {tensor.dtype}; "
                             "quantised weights cannot be read")
        tensor = tensor.T if turned and tensor.dim() == 2 else tensor
        want = (parts * parameter.shape[0], *parameter.shape[1:])
        if tuple(tensor.shape) != want:
            shown = tuple(reversed(want)) if turned else want
            found = tuple(reversed(tensor.shape)) if turned else tuple(tensor.shape)
            raise ValueError(f"{tensors.where(theirs)}: tensor {theirs!r} has shape {found}, "
                             f"expected {shown} for {ours!r}")
        state[ours] = tensor.chunk(parts)[part].to(dtype).contiguous()
    _refuse_leftovers(tensors, used, family)
    if model.config.tie_embeddings and hasattr(model, "lm_head"):
        state["lm_head.weight"] = state["token_embedding.weight"]
    model.load_state_dict(state, assign=True)
    if model.config.tie_embeddings and hasattr(model, "lm_head"):
        model.lm_head.weight = model.token_embedding.weight


def _source(ours: str, family: Family | None, prefix: str) -> tuple[str, int, int, bool]:
    """The name in the file, which of how many parts, and whether it stands the other way."""
    if family is None:
        return ours, 0, 1, False
    module, kind = ours.rsplit(".", 1)
    number = re.search(r"\.(\d+)\.", module)
    pattern = re.sub(r"\.\d+\.", ".{}.", module, count=1)
    theirs = family.names[pattern].format(number[1] if number else "")
    part, parts = 0, 1
    if cut := re.search(r"\[(\d)/(\d)\]$", theirs):
        theirs, part, parts = theirs[: cut.start()], int(cut[1]), int(cut[2])
    turned = kind == "weight" and theirs.endswith(family.transposed or ("\0",))
    prefix = "" if theirs == "lm_head" else prefix
    return f"{prefix}{theirs}.{kind}", part, parts, turned


def _refuse_leftovers(tensors: _Tensors, used: set[str], family: Family | None) -> None:
    ignored = family.ignored if family else ()
    left = [n for n in sorted(tensors.places)
            if n not in used and not any(word in n for word in ignored)]
    if left:
        raise ValueError(f"{tensors.where(left[0])}: tensor {left[0]!r} has no place in this model "
                         f"({len(left)} such): config.json describes another one")


def _from_hub(name: str, revision: str | None) -> Path:
    """Fetch a repository's config and safetensors, or the copy that was fetched before."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"{name} is no folder, and no name on the hub (owner/name)")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError:
        raise ImportError(f"{name} is no folder here; to fetch it from the hub: "
                          "pip install huggingface_hub") from None
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=PATTERNS))
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(f"{name} is no folder here and the hub cannot be reached; fetch it "
                                "where there is a network and give the folder") from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise FileNotFoundError(f"the hub has no {name!r} for you: {error}") from error


def _read_json(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: a model's folder holds config.json and "
                                "model.safetensors")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not readable as JSON ({error})") from None
    if not isinstance(entries, dict):
        raise ValueError(f"{path} holds a JSON {type(entries).__name__}, not an object")
    return entries


def _own_config(entries: dict) -> ModelConfig:
    fields = {k: v for k, v in entries.items() if k not in ("model_type", "encoder")}
    try:
        return ModelConfig(**fields | {"rope": RopeSettings(**fields["rope"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"config.json does not describe a {OURS} model: {error}") from None
