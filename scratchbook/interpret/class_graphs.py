"""Who inherits from whom, and who sends what: the classes and methods of a Smalltalk library.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from scratchbook.smalltalk import nodes
from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.records import ClassRecord, MethodRecord, Record


@dataclass(frozen=True)
class ClassTree:
    """The superclass of every class; one that no record describes, such as Object, is a root."""

    superclass: dict[str, str]

    def subclasses(self, name: str) -> list[str]:
        """The classes right below a class, in the order of the alphabet."""
        return sorted(each for each, above in self.superclass.items() if above == name)

    def roots(self) -> list[str]:
        """Classes without a superclass among the records."""
        above = set(self.superclass.values()) - set(self.superclass)
        alone = {name for name, superclass in self.superclass.items() if not superclass}
        return sorted((above | alone) - {""})

    def ancestors(self, name: str) -> list[str]:
        """From a class's superclass to its root."""
        found = []
        while (name := self.superclass.get(name, "")) and name not in found:
            found.append(name)
        return found

    def rows(self, name: str | None = None) -> list[tuple[int, str]]:
        """(level, class), parents first: of everything, or of a class, all above and below it.

        Raises:   ValueError for a class that no record names
        """
        waiting = [(0, root) for root in reversed(self.roots())]
        if name is not None:
            if name not in self.superclass and name not in self.superclass.values():
                raise ValueError(f"class {name!r} is in none of the records")
            line = [*reversed(self.ancestors(name)), name]
            found = list(enumerate(line[:-1]))
            waiting = [(len(line) - 1, name)]
        else:
            found = []
        seen = {each for _, each in found}
        while waiting:
            level, here = waiting.pop()
            if here in seen:
                continue  # a class that is its own ancestor
            seen.add(here)
            found.append((level, here))
            waiting += [(level + 1, each) for each in reversed(self.subclasses(here))]
        return found

    def outline(self, name: str | None = None) -> str:
        """The same as text, two blanks for each level."""
        return "\n".join("  " * level + each for level, each in self.rows(name))


def class_tree(records: Iterable[Record]) -> ClassTree:
    """The tree of the classes (not the traits) among the records of a reader.

    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    return ClassTree({each.name: each.superclass for each in records
                      if isinstance(each, ClassRecord) and not each.is_trait})


@dataclass
class MethodGraph:
    """Methods by name ("Stack >> push:"), and the selectors that each of them sends.

    Types are not known before a program runs: an edge says that a method sends a selector which
    another implements, not that this is the method that will run.
    """

    sends: dict[str, tuple[str, ...]]
    skipped: dict[str, str] = field(default_factory=dict)

    def selector_of(self, method: str) -> str:
        """The selector of a method's name."""
        return method.split(" >> ", 1)[1]

    def implementors(self, selector: str) -> list[str]:
        """The methods of this selector."""
        return sorted(each for each in self.sends if self.selector_of(each) == selector)

    def senders(self, selector: str) -> list[str]:
        """The methods that send this selector."""
        return sorted(each for each, sent in self.sends.items() if selector in sent)

    def edges(self) -> list[tuple[str, str, str]]:
        """(sender, selector, implementor), without the selectors that nobody here implements."""
        known: dict[str, list[str]] = {}
        for each in sorted(self.sends):
            known.setdefault(self.selector_of(each), []).append(each)
        return [(sender, selector, implementor) for sender in sorted(self.sends)
                for selector in sorted(self.sends[sender])
                for implementor in known.get(selector, ())]

    def around(self, method: str) -> dict[str, object]:
        """Who sends this method's selector, and for all that it sends itself, who implements it.

        Raises:   ValueError when no such method is known
        """
        if method not in self.sends:
            raise ValueError(f"method {method!r} is unknown: write it as 'Stack >> push:'")
        return {"method": method, "senders": self.senders(self.selector_of(method)),
                "sends": [{"selector": each, "implementors": self.implementors(each)}
                          for each in self.sends[method]]}


def method_graph(records: Iterable[Record]) -> MethodGraph:
    """The graph of all methods among the records; one that does not parse is skipped, with why.

    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    sends, skipped = {}, {}
    for each in records:
        if not isinstance(each, MethodRecord):
            continue
        owner = f"{each.class_name} class" if each.class_side else each.class_name
        try:
            tree = parse_method(each.source)
        except SmalltalkSyntaxError as error:
            skipped[f"{owner}: {each.source.splitlines()[0]}"] = str(error).splitlines()[0]
            continue
        sent = [node.selector for node in tree.walk()
                if isinstance(node, nodes.SendNode | nodes.MessageNode)]
        sends[f"{owner} >> {tree.selector}"] = tuple(dict.fromkeys(sent))
    return MethodGraph(sends, skipped)


def class_panel(records: Iterable[Record], class_name: str, selector: str | None = None
                ) -> dict[str, object]:
    """What the explorer shows beside a method: its class in the tree, its senders, what it sends.

    A method of the class side belongs to "Stack class", which stands in the tree as Stack.

    Raises:   ValueError for a class or a method that is not among the records
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    records = list(records)
    here = class_name.removesuffix(" class")
    rows = class_tree(records).rows(here)
    around = None
    if selector is not None:
        around = method_graph(records).around(f"{class_name} >> {selector}")
    return {"here": here, "rows": [list(row) for row in rows], "around": around}
