"""From messages to a prompt: the templates that models publish, and a plain one for the others.

A published template is a program in Jinja that comes with a model's files. It is untrusted code, so
it runs in Jinja's sandbox. What users write is untrusted text: spelled out in it, `<|im_end|>` is
ten characters and never the token that ends a message.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from scratchbook.finetuning.data import Part, encode_example
from scratchbook.tokenizers.base import cut_out, read_json

Messages = Sequence[Mapping[str, str]]
PLAIN_STOPS = tuple(f"\n### {role}:" for role in ("System", "User", "Assistant"))
FILES = ("chat_template.jinja", "tokenizer_config.json")


class ChatTemplate:
    """A published template, which writes what transformers' `apply_chat_template` writes.

    `special_tokens` are the names that the template may use, such as `eos_token`.

    Raises:   ValueError for a template that Jinja cannot read
    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None):
        from jinja2 import TemplateSyntaxError

        self.source, self.special_tokens = source, dict(special_tokens or {})
        try:
            self._template = _environment().from_string(source)
        except TemplateSyntaxError as error:
            raise ValueError(f"line {error.lineno} of the chat template: {error.message}") from None

    def render(self, messages: Messages, add_generation_prompt: bool = True) -> str:
        """The whole conversation as one text, special tokens spelled out.

        Raises:   ValueError when the template refuses the messages or does what it may not
        """
        from jinja2 import TemplateError

        try:
            return self._template.render(
                messages=[dict(message) for message in messages], tools=[], documents=None,
                add_generation_prompt=add_generation_prompt, **self.special_tokens)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError,
                RecursionError) as error:
            raise ValueError(f"the chat template refuses these messages: {error}") from None

    def encode(self, messages: Messages, tokenizer: object, control: Mapping[str, int]
               ) -> list[int]:
        """The ids of a conversation; of the special tokens in it only the template's are control.

        In the messages each of them gets a mark behind its first character, a character that
        occurs nowhere else, so that it is none any more; in the ids' text the mark is gone.

        Raises:   ValueError as `render` does
        """
        written = "".join(text for message in messages for text in message.values())
        mark = next((c for c in map(chr, range(0xE000, 0xF900)) if c not in written), None)
        if mark is None:
            raise ValueError("the messages use every private character of Unicode: leave some out")
        marked = [{name: text if name == "role" else _marked(text, control, mark)
                   for name, text in message.items()} for message in messages]
        encode = getattr(tokenizer, "encode_ordinary", tokenizer.encode)
        ids: list[int] = []
        for place, piece in enumerate(cut_out(control, self.render(marked))):
            ids += [control[piece]] if place % 2 else encode(piece.replace(mark, ""))
        return ids


def _marked(text: str, control: Collection[str], mark: str) -> str:
    """The text with no special token in it, none begun at its end."""
    for token in control:
        text = text.replace(token, token[0] + mark + token[1:])
    begun = [token[:size] for token in control for size in range(1, len(token))]
    if ends := [start for start in begun if text.endswith(start)]:
        cut = len(text) - len(max(ends, key=len)) + 1
        text = text[:cut] + mark + text[cut:]
    return text


def plain_chat(messages: Messages, tokenizer: object) -> list[int]:
    """The ids of a conversation with a model that published no template.

    It is what `scratchbook finetune` trains on: `### User:` and a new line before each message, an
    empty line behind it, the end-of-text token behind an answer.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """
    parts = [Part("### Assistant:\n", False)]
    for message in reversed(messages):
        role, content = message["role"], message["content"]
        parts = [Part(f"### {role.capitalize()}:\n", False), Part(content, role == "assistant"),
                 Part("\n\n", False), *parts]
    return encode_example(parts, tokenizer).ids


def read_template(folder: str | Path) -> ChatTemplate | None:
    """The template among a model's files; None where there is none.

    Raises:   ValueError for a damaged file
    """
    alone, config = (Path(folder, name) for name in FILES)
    entries = read_json(config) if config.is_file() else {}
    source = entries.get("chat_template")
    if isinstance(source, list):  # several, by name
        source = {each["name"]: each["template"] for each in source}.get("default")
    if alone.is_file():
        source = alone.read_text(encoding="utf-8")
    names = {name: value["content"] if isinstance(value, dict) else value
             for name, value in entries.items() if re.fullmatch("(bos|eos|unk|pad)_token", name)}
    special = {name: text for name, text in names.items() if isinstance(text, str)}
    return ChatTemplate(source, special) if isinstance(source, str) else None


def _environment():
    """Jinja as transformers sets it up."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks answers for training; here it is only its content."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                         extensions=[Generation, "jinja2.ext.loopcontrols"])
    made.filters["tojson"] = lambda value, ensure_ascii=False, **options: json.dumps(
        value, ensure_ascii=ensure_ascii, **options)
    made.globals |= {"raise_exception": refuse,
                     "strftime_now": lambda form: datetime.now().strftime(form)}
    return made
