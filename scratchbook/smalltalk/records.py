"""What a reader of Smalltalk source files yields: methods, classes, and files that it gave up on.

Every record says where it comes from (project, package, class, side, protocol, licence), because
the split into training and test text, the balance and the audit need all of it later.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from dataclasses import dataclass

DIALECTS = ("pharo", "squeak", "cuis", "gnu", "dolphin", "visualworks", "gemstone")


@dataclass(frozen=True)
class MethodRecord:
    r"""One method: `source` is its message pattern and body, with "\n" between lines.

    The wrapper of the file format (brackets, category line, doubled `!`) is gone. An `encoding`
    other than UTF-8 was guessed from the bytes.
    """

    source: str
    class_name: str
    class_side: bool
    protocol: str = ""
    package: str = ""
    project: str = ""
    licence: str = ""
    path: str = ""
    dialect: str = "pharo"
    encoding: str = "utf-8"


@dataclass(frozen=True)
class ClassRecord:
    """One class or trait with its variables and its comment; `category` is package-tag.

    An extension file, which adds methods to a class of another package, yields none of these.
    """

    name: str
    superclass: str = ""
    instance_variables: tuple[str, ...] = ()
    class_variables: tuple[str, ...] = ()
    class_instance_variables: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    comment: str = ""
    category: str = ""
    is_trait: bool = False
    project: str = ""
    licence: str = ""
    path: str = ""
    dialect: str = "pharo"
    encoding: str = "utf-8"
    package: str = ""


@dataclass(frozen=True)
class Skipped:
    """A file, or a part of one, that could not be read, with the reason in words."""

    path: str
    reason: str


Record = MethodRecord | ClassRecord | Skipped
