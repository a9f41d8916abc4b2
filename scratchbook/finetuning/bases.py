"""Where a model to be adapted comes from: a run, a folder, the hub, or the course's own.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from scratchbook.base_model import load_base
from scratchbook.compression import quantize
from scratchbook.compression.files import digest
from scratchbook.compression.quantize import KINDS
from scratchbook.finetuning.streaming import UNPACKED, load_quantized
from scratchbook.model import DecoderLM
from scratchbook.tokenizers.base import NotSupported, Tokenizer
from scratchbook.training.packed import load_tokenizer
from scratchbook.training.runs import ByteTokenizer, open_run
from scratchbook.weights import load_pretrained

OWN = "base"  # the name of the model that travels with the package


class LibraryTokenizer:
    """A tokenizer.json that byte-level BPE here does not read, through the `tokenizers` library.

    Raises:   ModuleNotFoundError when the library is missing, ValueError for a damaged file
    """

    def __init__(self, path: str | Path):
        from tokenizers import Tokenizer as Library

        try:
            self.library = Library.from_file(str(path))
        except Exception as error:  # the library raises no narrower one
            raise ValueError(f"{path} is no tokenizer that can be read: {error}") from None
        self.library.encode_special_tokens = True  # spelled out in a text they are plain text
        self.vocab_size = self.library.get_vocab_size()
        added = self.library.get_added_tokens_decoder()
        self.special_tokens = {token.content: number for number, token in added.items()}

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without tokens at its ends."""
        return self.library.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """The text of ids."""
        return self.library.decode(list(ids), skip_special_tokens=False)


AnyTokenizer = Tokenizer | ByteTokenizer | LibraryTokenizer


@dataclass(frozen=True)
class Base:
    """A model before it is adapted, its tokenizer, its name, and how it was packed, if it was."""

    model: DecoderLM
    tokenizer: AnyTokenizer
    name: str
    quantized: str | None = None

    def sha256(self) -> str:
        """A hash of every tensor of the model."""
        return digest(self.model.state_dict())


def open_base(name: str | Path, quantized: str | None = None) -> Base:
    """Open the folder of a run or of a published model, a name on the hub, or "base".

    With `quantized`, such as "nf4", the model comes packed; a published one is read matrix by
    matrix, so that its floats are never in memory together.

    Raises:   FileNotFoundError, or ValueError naming what cannot be read
    Chapter:  chapters/08_lora.ipynb
    """
    if quantized is not None and quantized not in KINDS:
        raise ValueError(f"quantized={quantized!r} is unknown; choose one of {', '.join(KINDS)}")
    folder = Path(name)
    name = str(folder.resolve() if folder.is_dir() else name)
    if name == OWN:
        return _packed(*load_base(), name, quantized)
    entries = _entries(folder)
    if "train" in entries:
        if "finetune" in (entries.get("data") or {}) and _partial(entries):
            raise ValueError(f"{folder} is a model that was adapted already: give its `merged` "
                             "folder, which `scratchbook finetune --merge` writes")
        opened = open_run(folder)
        return _packed(opened.model, opened.tokenizer, name, quantized)
    model = load_pretrained(name) if quantized is None else load_quantized(name, quantized)
    if not isinstance(model, DecoderLM):
        raise ValueError(f"{name} is an encoder, which writes nothing: give a decoder")
    return Base(model, _tokenizer_of(name, model.config.vocab_size), name, quantized)


def _partial(entries: dict) -> bool:
    return entries["data"]["finetune"]["settings"]["method"] != "full"


def _packed(model: DecoderLM, tokenizer: AnyTokenizer, name: str, quantized: str | None) -> Base:
    if quantized is not None:
        skip = [path for path in UNPACKED if hasattr(model, path)]
        quantize(model, quantized, double=True, skip=skip)
    return Base(model.requires_grad_(False), tokenizer, name, quantized)


def _entries(folder: Path) -> dict:
    """What a folder's config.json says; nothing where there is none."""
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not readable as JSON ({error})") from None
    return entries if isinstance(entries, dict) else {}


def _tokenizer_of(name: str, vocab_size: int) -> AnyTokenizer:
    """The tokenizer beside a published model's weights.

    Raises:   FileNotFoundError, or ValueError when it is none, or has more tokens than the model
    """
    file = Path(name, "tokenizer.json")
    if not Path(name).is_dir():
        file = _from_hub(name)
    if not file.is_file():
        if vocab_size == ByteTokenizer.vocab_size:
            return ByteTokenizer()
        raise FileNotFoundError(f"{file} is missing: without its tokenizer a model of "
                                f"{vocab_size:,} tokens cannot be tuned on text. Put it there")
    try:
        tokenizer = load_tokenizer(file)
    except NotSupported:
        tokenizer = LibraryTokenizer(file)
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(f"{file} has {tokenizer.vocab_size:,} tokens and the model room for "
                         f"{vocab_size:,}: they do not belong together")
    return tokenizer


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, "tokenizer.json"))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise FileNotFoundError(f"the hub gives no tokenizer.json of {name}: {error}. Put model "
                                "and tokenizer.json into a folder and give that") from None


