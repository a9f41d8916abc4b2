"""A model as a server needs it: with its tokenizer, its template, and where its answers end.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from scratchbook.finetuning.bases import AnyTokenizer, open_base
from scratchbook.finetuning.data import ENDS
from scratchbook.finetuning.opening import open_tuned
from scratchbook.model import DecoderLM
from scratchbook.serving.chat_templates import (
    FILES,
    PLAIN_STOPS,
    ChatTemplate,
    plain_chat,
    read_template,
)
from scratchbook.serving.json_rule import JsonRule
from scratchbook.serving.requests import Allowed
from scratchbook.serving.text_streams import TextStream
from scratchbook.smalltalk import parts
from scratchbook.smalltalk_model import load_smalltalk
from scratchbook.tokenizers.base import Tokenizer, check_text
from scratchbook.training.runs import ByteTokenizer

ENDINGS = (*ENDS, parts.END)


class TooLong(ValueError):
    """A text that no window of this model can hold."""


@dataclass(frozen=True)
class ServedModel:
    """A model, and how texts become prompts for it and tokens answers.

    `before` are ids that stand before every text, as they did in training. `control` are the
    special tokens, which a text never spells and an answer never shows; `stop_ids` end an answer.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    name: str
    model: DecoderLM
    tokenizer: AnyTokenizer
    template: ChatTemplate | None = None
    before: Sequence[int] = ()
    control: Mapping[str, int] = field(default_factory=dict)
    stop_ids: Sequence[int] = ()

    @property
    def window(self) -> int:
        """How many tokens a prompt and its answer may have together."""
        return self.model.config.max_seq_len

    @property
    def chat_stops(self) -> tuple[str, ...]:
        """Strings that end an answer in a chat: a model without a template may play the user."""
        return () if self.template else PLAIN_STOPS

    @cached_property
    def slices(self) -> dict[int, bytes] | None:
        """The bytes of every id; None where tokens are not slices of the text."""
        kind = type(self.tokenizer)
        if kind is ByteTokenizer:
            return {byte: bytes([byte]) for byte in range(256)}
        if getattr(kind, "_decode", None) is not Tokenizer._decode:
            return None
        found = {}
        for token in range(self.tokenizer.vocab_size):
            with suppress(ValueError):  # an id that the vocabulary leaves out
                found[token] = self.tokenizer.token_bytes(token)
        return found

    @cached_property
    def unused(self) -> frozenset[int]:
        """Ids that the model may write and no token has: more rows than tokens, or gaps."""
        known = self.slices or range(self.tokenizer.vocab_size)
        return frozenset(i for i in range(self.model.config.vocab_size) if i not in known)

    @cached_property
    def most_bytes(self) -> float:
        """How many bytes of text the window holds at the most; endless where nobody can say."""
        return self.window * max(map(len, self.slices.values())) if self.slices else math.inf

    @cached_property
    def json_masks(self) -> Allowed:
        """The masks under which an answer is a JSON object, or the beginning of one.

        Raises:   ValueError where nobody knows the bytes of a token, or which one ends a text
        """
        if self.slices is None or not self.stop_ids:
            raise ValueError("no JSON can be asked of this model: " + (
                "no token ends its texts" if self.slices else "its tokens have no bytes of their "
                "own"))
        control = set(self.control.values())
        rule = JsonRule([b"" if token in control else self.slices.get(token, b"")
                         for token in range(self.model.config.vocab_size)], self.stop_ids)
        opens = torch.tensor([token.startswith(b"{") for token in rule.tokens])
        return lambda new_ids: rule(new_ids) if new_ids else rule(new_ids) & opens

    def _check(self, *texts: str) -> None:
        """Refuse what no tokenizer reads, and what can never fit before time is spent on it."""
        size = sum(len(check_text(text).encode()) for text in texts)
        if size > self.most_bytes:
            raise TooLong(f"the window of this model is {self.window} tokens, which hold at "
                          f"most {self.most_bytes:,} bytes; the prompt has {size:,}: shorten it")

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt of one text.

        Raises:   TooLong for what the window never holds, ValueError for what cannot be encoded
        """
        self._check(text)
        encode = getattr(self.tokenizer, "encode_ordinary", self.tokenizer.encode)
        return [*self.before, *encode(text)]

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The ids of a conversation, up to where the assistant's next answer begins.

        Raises:   ValueError as `encode` does, and for messages that the template refuses
        """
        if len(messages) > self.window:
            raise TooLong(f"the window of this model is {self.window} tokens, too few for "
                          f"{len(messages):,} messages: leave the oldest out")
        self._check(*(message["content"] for message in messages))
        if self.template is None:
            return [*self.before, *plain_chat(messages, self.tokenizer)]
        return self.template.encode(messages, self.tokenizer, self.control)

    def text_of(self, token: int) -> str:
        """One token alone as text; nothing for an id that no token has."""
        return "" if token in self.unused else self.tokenizer.decode([token])

    def stream(self, stops: Sequence[str]) -> TextStream:
        """A fresh answer's text."""
        return TextStream(self.tokenizer.decode, stops, {*self.control.values(), *self.unused})


def open_served(name: str | Path, checkpoint: str = "best") -> ServedModel:
    """Open `base`, `smalltalk`, a run, plain or fine-tuned, a published model, or one on the hub.

    Raises:   FileNotFoundError, or ValueError naming what cannot be read
    Chapter:  chapters/07c_serving_and_chat.ipynb
    """
    folder, template = Path(name), None
    if str(name) == "smalltalk":
        model, tokenizer = load_smalltalk()
        return _served("smalltalk", model, tokenizer, None, parts.METHOD)
    if (folder / "checkpoints").is_dir():
        opened = open_tuned(folder, int(checkpoint) if checkpoint.isdecimal() else checkpoint)
        model, tokenizer = opened.model, opened.tokenizer
        tokenizer.encode("a")  # a run on ids alone has none: better said now than to a client
    else:
        base = open_base(str(name))
        model, tokenizer = base.model, base.tokenizer
        template = read_template(folder if folder.is_dir() else _from_hub(str(name)))
    before = ENDS[0] if str(name) == "base" else None
    return _served(folder.resolve().name if folder.is_dir() else str(name), model, tokenizer,
                   template, before)


def _served(name: str, model: DecoderLM, tokenizer: AnyTokenizer, template: ChatTemplate | None,
            before: str | None) -> ServedModel:
    control = dict(getattr(tokenizer, "special_tokens", {}))
    if library := getattr(tokenizer, "library", None):  # its added tokens are not all control
        control = {token.content: number
                   for number, token in library.get_added_tokens_decoder().items() if token.special}
    ends = {control[text] for text in ENDINGS if text in control}
    if template and template.special_tokens.get("eos_token") in control:
        ends.add(control[template.special_tokens["eos_token"]])
    first = [control[before]] if before in control else []
    return ServedModel(name, model, tokenizer, template, first, control, sorted(ends))


def _from_hub(name: str) -> Path:
    """The folder with what the hub has of a template's files; open_base has the rest."""
    if name == "base":
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=list(FILES)))
