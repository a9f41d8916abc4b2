"""Where a record comes from, said once per file.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from scratchbook.smalltalk.records import ClassRecord, MethodRecord, Skipped


@dataclass(frozen=True)
class Origin:
    """A file of a project; its methods make the records, so that no reader forgets the source.

    An empty `dialect` leaves the choice to the reader of the format.
    """

    path: str = ""
    project: str = ""
    licence: str = ""
    dialect: str = ""
    encoding: str = "utf-8"

    @property
    def folder(self) -> str:
        """The name of the folder that holds the file: the package, in most formats."""
        return self.path.rpartition("/")[0].rpartition("/")[2]

    def speaking(self, dialect: str) -> Origin:
        """The same origin; its dialect is `dialect` unless the caller knew it already."""
        return replace(self, dialect=self.dialect or dialect)

    def method(self, source: str, class_name: str, class_side: bool, **more: Any) -> MethodRecord:
        """A method of this file."""
        return MethodRecord(source, class_name, class_side, **more, **self._tags())

    def class_record(self, name: str, **more: Any) -> ClassRecord:
        """A class of this file."""
        return ClassRecord(name, **more, **self._tags())

    def skipped(self, reason: str) -> Skipped:
        """A note that something in this file could not be read."""
        return Skipped(self.path, reason)

    def _tags(self) -> dict[str, str]:
        return {"project": self.project, "licence": self.licence, "path": self.path,
                "dialect": self.dialect or "pharo", "encoding": self.encoding}
