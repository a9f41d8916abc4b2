"""Classes and methods back into files: Tonel for Pharo, chunks for Squeak, Cuis and Pharo.

What these write, the readers read back to the same records.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable

from scratchbook.smalltalk.readers.scanning import closing_bracket, pattern_end
from scratchbook.smalltalk.records import ClassRecord, MethodRecord


def write_tonel(classes: Iterable[ClassRecord],
                methods: Iterable[MethodRecord]) -> dict[str, str]:
    """Files of Tonel's third version, by path: `Package/Foo.class.st`, `Package/package.st`.

    A method whose class is not among `classes`, or lies in another package, goes into the
    `Foo.extension.st` of its own package.

    Raises:   ValueError for a method without a message pattern, or whose brackets do not match
    """
    files: dict[str, str] = {}
    paths: dict[tuple[str, str], str] = {}
    for record in classes:
        package = record.package or record.category.partition("-")[0]
        kind = "trait" if record.is_trait else "class"
        path = paths[package, record.name] = f"{package}/{record.name}.{kind}.st"
        files[path] = _class_map(record, package)
    for method in methods:
        key = method.package, method.class_name
        if key not in paths:
            path = paths[key] = f"{method.package}/{method.class_name}.extension.st"
            files[path] = f"Extension {{ #name : '{method.class_name}' }}\n"
        files[paths[key]] += _tonel_method(method)
    for package in sorted({package for package, _ in paths}):
        files[f"{package}/package.st"] = f"Package {{ #name : {_string(package)} }}\n"
    return files


def _class_map(record: ClassRecord, package: str) -> str:
    facts: list[tuple[str, str | tuple[str, ...]]] = [
        ("name", record.name), ("superclass", record.superclass),
        ("instVars", record.instance_variables), ("classVars", record.class_variables),
        ("classInstVars", record.class_instance_variables), ("pools", record.pools),
        ("category", record.category), ("package", package),
        ("tag", record.category.removeprefix(package).removeprefix("-"))]
    comment = record.comment.replace('"', '""')
    lines = ",\n".join(f"\t#{key} : {_ston(value)}" for key, value in facts if value)
    kind = "Trait" if record.is_trait else "Class"
    return (f'"\n{comment}\n"\n' if comment else "") + f"{kind} {{\n{lines}\n}}\n"


def _ston(value: str | tuple[str, ...]) -> str:
    if isinstance(value, str):
        return _string(value)
    return "[\n" + ",\n".join(f"\t\t{_string(entry)}" for entry in value) + "\n\t]"


def _string(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def _tonel_method(method: MethodRecord) -> str:
    end = pattern_end(method.source)
    if end < 0:
        raise ValueError(f"no message pattern at the start of {method.source[:40]!r}")
    pattern, body = method.source[:end], f"[{method.source[end:]}\n]"
    if closing_bracket(body, 0) != len(body) - 1:
        raise ValueError(f"the brackets of {method.class_name} >> {pattern} do not match: "
                         "Tonel cannot hold this method")
    side = " class" if method.class_side else ""
    return (f"\n{{ #category : {_string(method.protocol)} }}\n"
            f"{method.class_name}{side} >> {pattern} {body}\n")


def write_chunks(classes: Iterable[ClassRecord], methods: Iterable[MethodRecord]) -> str:
    """One file of chunks, as an image files out: definitions, comments, then the methods.

    A superclass comes before its subclasses; methods that follow each other in one protocol share
    a header. White space around a method is not kept.

    Raises:   ValueError when classes are their own ancestors
    """
    parts = [_definition(record) for record in _superclasses_first(list(classes))]
    header = ""
    for method in methods:
        side = " class" if method.class_side else ""
        ahead = f"!{method.class_name}{side} methodsFor: {_doubled(_quoted(method.protocol))}!"
        if ahead != header:
            parts += [" !\n\n"] if header else []
            parts.append(f"{ahead}\n")
            header = ahead
        else:
            parts.append("\n\n")
        parts.append(_doubled(method.source.strip()) + "!")
    return "".join(parts) + (" !\n" if header else "")


def _superclasses_first(classes: list[ClassRecord]) -> list[ClassRecord]:
    waiting, ordered = list(classes), []
    while waiting:
        names = {record.name for record in waiting}
        ready = [record for record in waiting if record.superclass not in names]
        if not ready:
            raise ValueError(f"superclasses form a circle: {', '.join(sorted(names))}")
        ordered += ready
        waiting = [record for record in waiting if record.superclass in names]
    return ordered


def _definition(record: ClassRecord) -> str:
    if record.is_trait:
        head = f"Trait named: #{record.name}"
        variables = [("instanceVariableNames", record.instance_variables)]
    else:
        head = f"{record.superclass or 'nil'} subclass: #{record.name}"
        variables = [("instanceVariableNames", record.instance_variables),
                     ("classVariableNames", record.class_variables),
                     ("poolDictionaries", record.pools)]
    lines = [head, *(f"{key}: {_quoted(' '.join(names))}" for key, names in variables),
             f"category: {_quoted(record.category)}"]
    text = _doubled("\n\t".join(lines)) + "!\n\n"
    if record.class_instance_variables:
        names = " ".join(record.class_instance_variables)
        text += f"{record.name} class\n\tinstanceVariableNames: '{names}'!\n\n"
    if record.comment:
        text += f"!{record.name} commentStamp: '' prior: 0!\n{_doubled(record.comment)}!\n\n"
    return text


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _doubled(text: str) -> str:
    return text.replace("!", "!!")
