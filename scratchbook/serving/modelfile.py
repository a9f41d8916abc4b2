"""A model for a real Ollama: its weights as GGUF, and beside them the Modelfile that names them.

Ollama writes a conversation by a template of Go, not of Jinja. A published template is translated
where it writes each message the same way between fixed words, as most do; whether it does is tried
on conversations, and where it does not, that is an error and no guess.

Paper:    github.com/ollama/ollama, docs/modelfile.md and docs/template.md
Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

from scratchbook.compression.export_gguf import PATTERNS, export_gguf
from scratchbook.finetuning.data import end_ids
from scratchbook.runtime import write_atomically
from scratchbook.serving.chat_templates import ChatTemplate
from scratchbook.serving.served import ServedModel

WEIGHTS = "model.gguf"
# how a message is written, and what stands before an answer, by the words of known families
FAMILIES = {
    "<|im_start|>": ("<|im_start|>{role}\n{text}<|im_end|>\n", "<|im_start|>assistant\n"),
    "<|start_header_id|>": (
        "<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n"),
}
ROLES = {"system": "System", "user": "User", "assistant": "Assistant"}


def export_ollama(served: ServedModel, folder: str | Path, kind: str = "F16",
                  completion: bool = False) -> list[Path]:
    """Write `model.gguf` and `Modelfile` into a folder, for `ollama create NAME -f Modelfile`.

    `kind` is how GGUF stores the weights. With `completion` a prompt goes to the model as it is.

    Raises:   ValueError naming what GGUF or a template of Go cannot say of this model
    Chapter:  chapters/07c_serving_and_chat.ipynb
    """
    pattern = getattr(served.tokenizer, "pattern", None)
    if pattern not in PATTERNS:
        raise ValueError(f"{type(served.tokenizer).__name__} cannot be written into a GGUF file: "
                         f"its readers split texts as {', '.join(PATTERNS.values())} do")
    text, folder = modelfile(served, completion), Path(folder)  # refuses before much is written
    folder.mkdir(parents=True, exist_ok=True)
    weights = export_gguf(served.model, folder / WEIGHTS, kind, served.tokenizer, served.name)
    write_atomically(folder / "Modelfile", text)
    return [weights, folder / "Modelfile"]


def modelfile(served: ServedModel, completion: bool = False) -> str:
    """The text of the Modelfile: weights, template, stops and window, as they are served here.

    Raises:   ValueError for a chat template that is not translated
    Chapter:  chapters/07c_serving_and_chat.ipynb
    """
    names = {token: name for name, token in served.control.items()}
    before = "".join(names[token] for token in served.before)
    stops, trims = [names[token] for token in served.stop_ids], False
    if completion:
        template = before + "{{ .System }}{{ .Prompt }}"
    elif served.template is None:
        end = "".join(names[token] for token in end_ids(served.tokenizer))
        template = before + _plain(end)
        stops += served.chat_stops
    else:
        template, spaced = _translated(served.template), [{"role": "user", "content": " a "}]
        trims = " a " not in served.template.render(spaced)
    note = ["# The model's own template cuts blanks at the ends of messages; Ollama does not"]
    lines = [*(note if trims else []), f"FROM ./{WEIGHTS}", f"TEMPLATE {_quoted(template)}",
             *(f"PARAMETER stop {_quoted(stop)}" for stop in stops),
             f"PARAMETER num_ctx {served.window}",
             "PARAMETER repeat_penalty 1"]  # Ollama's usual would change what the model writes
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    if '"""' in text:
        raise ValueError(f'{text!r} holds """, which ends a text of a Modelfile')
    return f'"""{text}"""'


def _plain(end: str) -> str:
    """What `plain_chat` writes."""
    texts = {role: f"### {name}:\n{{{{ .Content }}}}{end if role == 'assistant' else ''}\n\n"
             for role, name in ROLES.items()}
    branches = "{{ else }}".join(f'{{{{ if eq .Role "{role}" }}}}{text}'
                                 for role, text in texts.items())
    return (f"{{{{ range .Messages }}}}{branches}{'{{ end }}' * len(texts)}{{{{ end }}}}"
            "### Assistant:\n")


def _translated(template: ChatTemplate) -> str:
    """A template of Go that writes what this one of Jinja does."""
    family = next((each for word, each in FAMILIES.items() if word in template.source), None)
    if family is not None:
        message, opening = family
        starts = {role: _start(template, family, role) for role in ("system", "user")}
        if all(template.render(talk) == starts[talk[0]["role"]] + _written(family, talk)
               for talk in _talks()):
            body = message.format(role="{{ .Role }}", text="{{ .Content }}")
            return f"{_opened(starts)}{{{{ range .Messages }}}}{body}{{{{ end }}}}{opening}"
    raise ValueError("the model's chat template is not one that can be translated for Ollama: "
                     "write its TEMPLATE by hand, or give --completion, which sends prompts as "
                     "they are")


def _opened(starts: dict[str, str]) -> str:
    """What stands before the first message; a template may put a system message of its own."""
    if starts["system"] == starts["user"]:
        return starts["user"]
    return f"{{{{ if .System }}}}{starts['system']}{{{{ else }}}}{starts['user']}{{{{ end }}}}"


def _written(family: tuple[str, str], talk: list[dict[str, str]]) -> str:
    message, opening = family
    return "".join(message.format(role=m["role"], text=m["content"]) for m in talk) + opening


def _start(template: ChatTemplate, family: tuple[str, str], role: str) -> str:
    """What the template writes before a first message of this role, if it is of this family."""
    talk = [{"role": role, "content": "one"}, {"role": "user", "content": "two"}]
    talk = talk if role == "system" else talk[1:]
    return template.render(talk).removesuffix(_written(family, talk))


def _talks() -> list[list[dict[str, str]]]:
    """Conversations of one to six messages, with and without a system message."""
    texts = ("hello", "two\nlines", "{{ 7 }} and <b>", "42", "x" * 50, "é")
    return [[{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
            for system, turns in product(([], ["system"]), (1, 3, 5))
            for roles in [[*system, *(["user", "assistant"] * 3)[:turns]]]]
