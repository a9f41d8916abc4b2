"""The share of generated code that a compiler accepts, by language.

Python is judged by Python. Other languages are judged by their own tools where these are
installed, and by nobody where they are not: a guess of ours would be no measurement. Nothing is
run: these tools only read.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from scratchbook.evaluation.code_tests import Writer
from scratchbook.evaluation.comparing import wilson

SUFFIXES = {".py": "python", ".go": "go", ".vue": "vue", ".st": "smalltalk"}
FUNCTION = re.compile(r"^(?P<head>def [^\n]*:\n)(?P<body>(?:[ \t]+\S[^\n]*\n|[ \t]*\n)+)(?=\S)",
                      re.MULTILINE)
VUE = """
const { parse, compileScript, compileTemplate } = require("@vue/compiler-sfc");
const { descriptor, errors } = parse(require("fs").readFileSync(0, "utf8"));
const found = errors.map((error) => error.message);
try {
  if (descriptor.script || descriptor.scriptSetup) compileScript(descriptor, { id: "x" });
} catch (error) { found.push(error.message); }
const { template } = descriptor;
if (template) {
  const { errors } = compileTemplate({ source: template.content, id: "x", filename: "x.vue" });
  found.push(...errors.map((error) => error.message || error));
}
if (found.length) { console.error(found[0]); process.exit(1); }
"""
AMBER = """
const text = Symbol.toPrimitive;
const node = new Proxy(() => node, { get: (_, key) => key === text ? () => "" : node });
const globals = new Proxy({}, { get: (kept, name) => kept[name] ?? node });
globalThis.define = (_, make) => make({ globals, nil: null });
require("amber/support/parser.js");
try {
  globals.SmalltalkParser.parse(require("fs").readFileSync(0, "utf8"));
} catch (error) { console.error(error.message); process.exit(1); }
"""  # its parser alone, which builds its tree out of nodes that do nothing
NODE = {"vue": ("@vue/compiler-sfc", "@vue/compiler-sfc", VUE),
        "smalltalk": ("amber", "amber/support/parser.js", AMBER)}


class Judge(NamedTuple):
    """Who judges a language, and its complaint about a source: "" when there is none."""

    tool: str
    complaint: Callable[[str], str]


def judges() -> dict[str, Judge | str]:
    """For each language its judge, or what would have to be installed.

    A Smalltalk source is one method; gofmt takes fragments, too. Packages of node are looked
    for from the working folder.
    """
    gofmt, node = shutil.which("gofmt"), shutil.which("node")
    found: dict[str, Judge | str] = {
        "python": Judge("Python's compiler", _python),
        "go": Judge("gofmt", partial(_tool, [gofmt, "-e"])) if gofmt else
        "needs gofmt, which comes with Go"}
    for language, (package, file, script) in NODE.items():
        there = node and not _tool([node, "-e", f"require.resolve('{file}')"], "")
        found[language] = (Judge(package, partial(_tool, [node, "-e", script])) if there else
                           f"needs node and `npm install {package}` in this folder")
    return found


def compile_rate(sources: Sequence[str], language: str = "python") -> dict[str, Any]:
    """How many sources the language's compiler accepts, with Wilson's interval.

    Raises:   ValueError for an unknown language, one whose tool is missing, or no sources
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    judge = judges().get(language, f"is unknown; known are {', '.join(judges())}")
    if isinstance(judge, str):
        raise ValueError(f"language {language!r} {judge}")
    complaints = [judge.complaint(source) for source in sources]
    share = wilson(complaints.count(""), len(complaints))
    return {"language": language, "tool": judge.tool, "passed": complaints.count(""),
            "total": len(complaints), "share": share.value, "low": share.low, "high": share.high,
            "complaints": complaints}


def continued(write: Writer, sources: Iterable[str], count: int = 40, length: int = 160
              ) -> list[tuple[str, str]]:
    """Let a model write the bodies of short functions, as (its function, the author's own).

    Only functions whose own body fits into `length` characters are asked for. Of what the model
    writes, the function counts: up to the first line that is not indented.

    Raises:   ValueError when there are no such functions
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    found = [match for source in sources for match in FUNCTION.finditer(source)
             if len(match["body"]) <= length]
    chosen = found[:: max(1, len(found) // max(1, count))][: max(0, count)]
    if not chosen:
        raise ValueError(f"{count} functions with bodies of {length} characters or less are not "
                         "there")
    heads = [match["head"] for match in chosen]
    return [(head + body_of(text), match[0])
            for head, text, match in zip(heads, write(heads, length), chosen, strict=True)]


def body_of(text: str) -> str:
    """What is indented at a text's beginning, without a last line that was cut."""
    end = re.search(r"^\S", text, re.MULTILINE)
    return text[: end.start() if end else text.rfind("\n") + 1]


def _python(source: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "generated", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        return str(error) or type(error).__name__
    return ""


def _tool(command: list[str], source: str, seconds: float = 20.0) -> str:
    try:
        done = subprocess.run(command, input=source.encode("utf-8", "replace"), timeout=seconds,
                              capture_output=True, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {seconds:g} seconds"
    said = done.stderr.decode("utf-8", "replace").strip()
    return "" if done.returncode == 0 else said.partition("\n")[0] or f"status {done.returncode}"
