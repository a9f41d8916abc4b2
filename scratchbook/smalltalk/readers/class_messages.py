"""Class definitions that are messages, in the forms of seven Smalltalks, and class comments.

    Object subclass: #Foo instanceVariableNames: 'a b' ... category: 'Zoo-Core'
    Object << #Foo slots: { #a. #b }; tag: 'Core'; package: 'Zoo'
    Trait named: #TFoo uses: {} category: 'Zoo-Core'
    Smalltalk.Zoo defineClass: #Foo superclass: #{Core.Object} ... category: 'Zoo-Core'

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import re

from scratchbook.smalltalk.readers.scanning import BLANK

_CLASS = r"#?\{?'?(?P<name>[\w.]+)'?\}?"
_FORMS = [re.compile(BLANK + form) for form in (
    rf"(?P<trait>Trait)\s+named:\s*{_CLASS}",
    rf"(?P<trait>Trait)\s*<<\s*{_CLASS}",
    rf"(?P<superclass>[\w.]+)\s*<<\s*{_CLASS}",
    rf"(?P<superclass>[\w.]+)\s+\w*[sS]ubclass:\s*{_CLASS}",
    rf"[\w.]+\s+(?:defineClass|defineTrait):\s*{_CLASS}",
)]
_CLASS_SIDE = re.compile(
    BLANK + r"(?P<name>[\w.]+)\s+class(?:Side)?\s+(?:.*?\s)?"
    r"(?:instanceVariableNames|slots):\s*(?P<value>'[^']*'|\{[^}]*\})", re.S)
_COMMENT = re.compile(BLANK + r"(?P<name>[\w.]+)\s+comment:\s*'(?P<text>[^']*(?:''[^']*)*)'")
_PART = re.compile(r"\b(\w++):\s*+('[^']*(?:''[^']*)*'|\{[^}]*\}|#?\([^)]*\)|#\{[^}]*\}|#?[\w.]+)")
LONGEST = 50_000  # characters of a definition that are read: a comment may stand in it
_VARIABLES = {
    "instance_variables": ("instanceVariableNames", "slots", "instVarNames"),
    "class_variables": ("classVariableNames", "sharedVariables", "classVars"),
    "class_instance_variables": ("classInstanceVariableNames", "classInstVars"),
    "pools": ("poolDictionaries", "sharedPools", "imports"),
}
_WORD = re.compile(r"[^\W\d]\w*(?:\.\w+)*")
_SLOT_KIND = re.compile(r"=>\s*[^.}]*|\w+:\s*\S+")


def class_definition(text: str) -> dict | None:
    """The fields of a `ClassRecord` that the message at the start of `text` defines, or None."""
    match = next(filter(None, (form.match(text) for form in _FORMS)), None)
    if not match:
        return None
    parts = dict(_PART.findall(text, match.end(), match.end() + LONGEST))
    found = match.groupdict()
    superclass = found.get("superclass") or _name(parts.get("superclass", ""))
    facts: dict = {"name": found["name"], "superclass": superclass,
                   "is_trait": bool(found.get("trait"))}
    for field, keys in _VARIABLES.items():
        facts[field] = next((variables(parts[key]) for key in keys if key in parts), ())
    package, tag = unquoted(parts.get("package", "")), unquoted(parts.get("tag", ""))
    facts["category"] = unquoted(parts.get("category", "")) or (
        f"{package}-{tag}" if tag else package)
    facts["package"] = package
    return facts


def class_side_variables(text: str) -> tuple[str, tuple[str, ...]] | None:
    """Name and variables where `text` starts with `Foo class instanceVariableNames: '...'`."""
    match = _CLASS_SIDE.match(text)
    return (match["name"], variables(match["value"])) if match else None


def class_comment(text: str) -> tuple[str, str] | None:
    """Name and comment where `text` starts with `Foo comment: '...'`."""
    match = _COMMENT.match(text)
    return (match["name"], match["text"].replace("''", "'")) if match else None


def variables(value: str) -> tuple[str, ...]:
    """The names in `'a b'`, in `{ #a. #b => WeakSlot }` or in `#(a b)`."""
    if value.startswith("{"):
        value = _SLOT_KIND.sub("", value)
    return tuple(_WORD.findall(value))


def unquoted(value: str) -> str:
    """A string or symbol without its marks: `Zoo` of `'Zoo'` and of `#Zoo`."""
    value = value.removeprefix("#")
    return value[1:-1].replace("''", "'") if value.startswith("'") else value


def _name(value: str) -> str:
    return value.strip("#{}' ")
