"""Files for a real Ollama: its template writes what is written here, its stops are those here."""

import json
import re
import sys

import pytest

pytest.importorskip("gguf", reason="gguf is not installed: pip install 'scratchbook[export]'")
pytest.importorskip("jinja2", reason="jinja2 is not installed: pip install 'scratchbook[serve]'")

import gguf  # noqa: E402

from scratchbook.cli import main  # noqa: E402
from scratchbook.serving.chat_templates import ChatTemplate  # noqa: E402
from scratchbook.serving.modelfile import export_ollama, modelfile  # noqa: E402
from scratchbook.serving.served import ServedModel, open_served  # noqa: E402
from scratchbook.weights import save_pretrained  # noqa: E402
from tests.serving_home import CHATML, SPECIAL, tiny_served  # noqa: E402

CHATML_PLAIN = CHATML.replace(" | trim", "")
TALKS = [[{"role": role, "content": f"text {n} of a\n{role}"} for n, role in enumerate(roles)]
         for roles in (["user"], ["system", "user"], ["user", "assistant", "user"],
                       ["system", "user", "assistant", "user", "assistant", "user"])]


def read_modelfile(text: str) -> list[tuple[str, str]]:
    """Commands and arguments as Ollama's parser reads them: quotes go, nothing is escaped."""
    found, rest = [], re.sub("^#.*\n", "", text)
    while rest.strip():
        read = re.match(r'\s*(FROM|TEMPLATE|PARAMETER \w+) ("""(.*?)"""|[^"\n]+)\n', rest, re.S)
        assert read, rest
        found.append((read[1], read[2] if read[3] is None else read[3]))
        rest = rest[read.end():]
    return found


def go(template: str, messages: list[dict]) -> str:
    """The few actions of Go's text/template that are used, done by their definition."""
    pieces, place = re.split(r"\{\{(.*?)\}\}", template, flags=re.S), 0

    def run(m: dict | None, silent: bool) -> str:
        """The text up to this block's `end` or `else`, at which `place` stops."""
        nonlocal place
        out = ""
        while place < len(pieces):
            piece, action = pieces[place], place % 2
            words = piece.split()
            place += 1
            if not action:
                out += "" if silent else piece
            elif words[0] in ("end", "else"):
                place -= 1
                break
            elif words[0] == "range":
                begun = place
                for message in messages:
                    place = begun
                    out += run(message, silent)
                place += 1
            elif words[0] == "if":
                true = any(each["role"] == "system" for each in messages) if (
                    words[1] == ".System") else m and m["role"] == words[3].strip('"')
                out += run(m, silent or not true)
                if pieces[place].split() == ["else"]:
                    place += 1
                    out += run(m, silent or true)
                place += 1
            else:
                out += "" if silent else {".Role": m["role"], ".Content": m["content"]}[words[0]]
        return out

    return run(None, False)


def parts_of(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for command, argument in read_modelfile(text):
        found.setdefault(command, []).append(argument)
    return found


def ids_of(served: ServedModel, text: str) -> list[int]:
    """Ids as Ollama makes them: special tokens that are spelled in the text count."""
    return served.tokenizer.encode(text, allowed_special="all")


def with_template(source: str) -> ServedModel:
    tiny = tiny_served()
    return ServedModel("tiny", tiny.model, tiny.tokenizer, ChatTemplate(source), (), tiny.control,
                       tiny.stop_ids)


DEFAULT = ("{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n"
           "{% endif %}")
LLAMA = ("<|endoftext|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
         "{{ m.content }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
         "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}")


@pytest.mark.parametrize("source", [CHATML_PLAIN, CHATML, DEFAULT + CHATML_PLAIN, LLAMA])
@pytest.mark.parametrize("talk", TALKS)
def test_the_template_of_go_writes_what_that_of_jinja_does(source, talk):
    served = with_template(source)
    (template,) = parts_of(modelfile(served))["TEMPLATE"]
    assert go(template, talk) == served.template.render(talk)
    assert modelfile(served).startswith("# The model's own template cuts") == (source == CHATML)


@pytest.mark.parametrize("talk", TALKS)
def test_a_model_without_a_template_talks_as_it_is_served(talk):
    tiny = tiny_served(template=None)
    first = ServedModel("tiny", tiny.model, tiny.tokenizer, None,
                        (tiny.control["<|endoftext|>"],), tiny.control, tiny.stop_ids)
    for served in (tiny, first):
        found = parts_of(modelfile(served))
        assert ids_of(served, go(found["TEMPLATE"][0], talk)) == served.encode_chat(talk)
        assert found["PARAMETER stop"] == [*SPECIAL[::2], *served.chat_stops]


@pytest.mark.parametrize("source", [
    "{% for m in messages %}{{ m.content }}{% endfor %}",
    CHATML.replace("assistant\n", "helper\n"),
    CHATML.replace("{{ m.role }}", "{{ m.role | upper }}"),
    *(CHATML.replace("<|im_end|>\n", f"<|im_end|>\n{{% if loop.index == {n} %}}!{{% endif %}}")
      for n in range(1, 7)),
    CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"),
    CHATML.replace("{{ m.content | trim }}", "{{ m.content | trim | truncate(40) }}"),
])
def test_other_templates_are_refused_and_never_guessed(source):
    with pytest.raises(ValueError, match="not one that can be translated.*--completion"):
        modelfile(with_template(source))
    (template,) = parts_of(modelfile(with_template(source), completion=True))["TEMPLATE"]
    assert template == "{{ .System }}{{ .Prompt }}"


def test_files_are_there_and_their_stops_are_the_served_models(tmp_path):
    base = open_served("base")
    weights, text = export_ollama(base, tmp_path / "there", "Q8_0", completion=True)
    found = parts_of(text.read_text(encoding="utf-8"))
    assert (text.parent / found["FROM"][0]).samefile(weights)
    ends = [token for name in found["PARAMETER stop"] for token in ids_of(base, name)]
    assert ends == base.stop_ids
    assert found["PARAMETER num_ctx"] == [str(base.window)]
    assert found["PARAMETER repeat_penalty"] == ["1"]  # not Ollama's usual
    assert ids_of(base, found["TEMPLATE"][0].replace("{{ .System }}{{ .Prompt }}", "def ")) == (
        base.encode("def "))
    values = {name: field.contents() for name, field in gguf.GGUFReader(weights).fields.items()}
    assert values["llama.context_length"] == base.window
    assert values["tokenizer.ggml.eos_token_id"] in base.stop_ids
    assert values["tokenizer.ggml.add_bos_token"] is False  # the template has what stands before


def test_without_gguf_the_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)  # as where it is not installed
    assert main(["export", "base", str(tmp_path / "out"), "--completion"]) == 2
    assert "pip install 'scratchbook[export]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path, capsys):
    tiny, made = tmp_path / "tiny", tiny_served()
    save_pretrained(made.model, tiny)
    made.tokenizer.save_tokenizers(tiny / "tokenizer.json")
    (tmp_path / "tiny" / "tokenizer_config.json").write_text(json.dumps(
        {"chat_template": CHATML}), encoding="utf-8")
    assert main(["export", str(tiny), str(tmp_path / "out"), "--kind", "F32"]) == 0
    assert "ollama create tiny -f" in capsys.readouterr().out
    text = (tmp_path / "out" / "Modelfile").read_text("utf-8")
    assert "<|im_start|>{{ .Role }}" in text and text.startswith("# The model's own template cuts")
    assert main(["export", "smalltalk", str(tmp_path / "other"), "--completion"]) == 2
    assert "SmalltalkTokenizer cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert main(["export", str(tiny), str(tmp_path / "other"), "--kind", "Q5"]) == 2
    assert "choose one of F32" in capsys.readouterr().err
