"""Training examples for a model of Smalltalk: five tasks, each built from methods and classes.

    next_token        a class after the other: definition, comment, methods, with boundaries
    fill_in           a method with a hole; what stood there is the answer
    class_generation  definition and comment given, the methods are the answer
    bug_fixing        a method with one named bug given, the method is the answer
    instructions      a method's own comment given, the method without it is the answer

The same records and seed give the same examples; of methods in one style (see `formatted`) every
row is in that style. Where a method is already told by its context,
the answer would be copied: so a comment that becomes a prompt leaves the method, and `unseen` drops
every training example whose code, white space and comments aside, is one of held-out text.

Paper:    Bavarian et al. (2022), arXiv:2207.14255, for filling in: prefix, suffix, middle
Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from scratchbook.smalltalk import parts
from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.lexer import tokenize
from scratchbook.smalltalk.measures import is_trivial
from scratchbook.smalltalk.mutations import mutations
from scratchbook.smalltalk.nodes import MethodNode
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.parts import Example, Part, as_prompt, special
from scratchbook.smalltalk.printer import format_method
from scratchbook.smalltalk.records import ClassRecord, MethodRecord

TEMPLATES = (
    "Write a method of {place}. {comment}",
    "{place} >> {selector}\n{comment}",
    "{comment}\nThe method belongs to {place}.",
)
FEWEST_WORDS, MOST_CHARACTERS = 4, 400  # of a comment that is an instruction
_COMMON = frozenset({
    "a", "an", "and", "any", "are", "as", "at", "be", "by", "each", "for", "from", "has", "if",
    "in", "is", "it", "me", "my", "not", "of", "on", "one", "or", "answer", "return", "returns",
    "that", "the", "then", "this", "to", "when", "which", "will", "with"})
_CODE = re.compile(r":=|(?:^|\. )\^|\]|\[|;\s*(?:\w+:|yourself)|\w+:\s*[#('$]|^\s*(?:self|super)\b"
                   r"|\w\(|<\w+>|>>")
_STAMP = re.compile(r"\d+/\d+/\d+|\d\d?:\d\d|https?:|@\w+\.|\b(?:todo|fixme|xxx|hack)\b", re.I)


def code_key(source: str, dialect: str = "pharo") -> bytes:
    """What methods share that differ in white space and comments alone."""
    words = (token.text for token in tokenize(source, dialect) if token.kind != "comment")
    return hashlib.blake2b("\n".join(words).encode(), digest_size=8).digest()


def definition_of(record: ClassRecord) -> str:
    """The class definition as Pharo's browser shows it, and the comment behind it."""
    names = [("instanceVariableNames", record.instance_variables),
             ("classVariableNames", record.class_variables), ("package", (record.category,))]
    head = (f"Trait named: #{record.name}" if record.is_trait
            else f"{record.superclass or 'nil'} subclass: #{record.name}")
    lines = [head] + [f"\t{key}: '{' '.join(values)}'" for key, values in names]
    comment = record.comment.strip().replace('"', '""')
    return "\n".join(lines) + (f'\n"{comment}"' if comment else "")


def formatted(methods: Iterable[MethodRecord]) -> Iterator[MethodRecord]:
    """The methods in one style, the printer's; what does not parse is left out."""
    for record, tree in _trees(methods, trivial=True):
        yield replace(record, source=format_method(tree))


def method_parts(record: MethodRecord) -> list[Part]:
    """A method between its boundaries."""
    side = parts.CLASS_METHOD if record.class_side else parts.METHOD
    return [special(side), Part(record.source), special(parts.END)]


def methods_by_class(methods: Iterable[MethodRecord]) -> dict[tuple[str, str], list[MethodRecord]]:
    """The methods of each project's classes, in the order given."""
    found: dict[tuple[str, str], list[MethodRecord]] = defaultdict(list)
    for record in methods:
        found[record.project, record.class_name].append(record)
    return dict(found)


def next_token(classes: Iterable[ClassRecord], methods: Sequence[MethodRecord]
               ) -> Iterator[Example]:
    """One document a class: its definition, where it is known, its methods, the end."""
    known = {(record.project, record.name): record for record in classes}
    for (project, name), own in methods_by_class(methods).items():
        found = [] if (record := known.get((project, name))) is None else _class_parts(record)
        for method in own:
            found += method_parts(method)
        yield Example("next token", (*found, special(parts.END_OF_TEXT)), project, name, _keys(own))


def fill_in(methods: Iterable[MethodRecord], seed: int = 0) -> Iterator[Example]:
    """Each method that is not trivial, with a hole of whole statements, or of tokens, or its body.

    The hole is drawn for each method by its own text, so that leaving one out changes no other.
    """
    for record, tree in _trees(methods):
        draw = random.Random(f"{seed} {record.source}")
        label, start, stop = _hole(record.source, tree, draw, record.dialect)
        before, hole, after = (record.source[:start], record.source[start:stop],
                               record.source[stop:])
        prompt = as_prompt([special(parts.PREFIX), Part(before), special(parts.SUFFIX),
                            Part(after), special(parts.MIDDLE)])
        yield Example("fill in", (*prompt, Part(hole), special(parts.END)), record.project, label,
                      _keys([record]))


def _hole(source: str, tree: MethodNode, draw: random.Random, dialect: str) -> tuple[str, int, int]:
    label = draw.choice(("statements", "tokens", "body"))
    if label == "body":
        return label, tree.statements[0].start, len(source)
    if label == "statements":
        first, last = sorted(draw.choices(range(len(tree.statements)), k=2))
        return label, tree.statements[first].start, tree.statements[last].stop
    body = [token for token in tokenize(source[: tree.stop], dialect)
            if token.start >= tree.statements[0].start and token.kind not in ("comment", "end")]
    one, other = sorted(draw.choices(body, k=2), key=lambda token: token.start)
    return label, one.start, other.start + len(other.text)


def class_generation(classes: Iterable[ClassRecord], methods: Sequence[MethodRecord],
                     fewest: int = 2, most_characters: int = 6_000) -> Iterator[Example]:
    """Classes with a comment and a few methods: what is said of a class, then what it does."""
    grouped = methods_by_class(methods)
    for record in classes:
        own = grouped.get((record.project, record.name), [])
        size = sum(len(method.source) for method in own)
        if len(own) >= fewest and size <= most_characters and is_prose(record.comment):
            answer = [part for method in own for part in method_parts(method)]
            yield Example("class generation", (*as_prompt(_class_parts(record)), *answer,
                                               special(parts.END_OF_TEXT)),
                          record.project, record.name, _keys(own))


def bug_fixing(methods: Iterable[MethodRecord], seed: int = 0, most_characters: int = 1_500
               ) -> Iterator[Example]:
    """Each method with one bug, of the kind that is rarest so far among those that it offers."""
    counts: Counter[str] = Counter()
    for record, _ in _trees(methods):
        if len(record.source) > most_characters:
            continue
        found = mutations(record.source, random.Random(f"{seed} {record.source}"), record.dialect)
        if not found:
            continue
        bug = min(found, key=lambda each: counts[each.label])
        counts[bug.label] += 1
        prompt = as_prompt([special(parts.BUGGY), Part(bug.source), special(parts.FIXED)])
        yield Example("bug fixing", (*prompt, Part(record.source), special(parts.END)),
                      record.project, bug.label, _keys([record]))


def instructions(methods: Iterable[MethodRecord], seed: int = 0) -> Iterator[Example]:
    """Methods whose first comment says in words what they do: the comment, then the method."""
    for record, tree in _trees(methods, trivial=True):
        if not tree.comments or not tree.statements:
            continue
        comment = " ".join(tree.comments[0].source[1:-1].replace('""', '"').split())
        bare = without_comment(record.source, tree)
        if tree.comments[0].start > tree.statements[0].start or not is_prose(comment) or not bare:
            continue
        draw = random.Random(f"{seed} {record.source}")
        place = record.class_name + (" class" if record.class_side else "")
        number = draw.randrange(len(TEMPLATES))
        text = TEMPLATES[number].format(place=place, selector=tree.selector, comment=comment)
        prompt = as_prompt([special(parts.INSTRUCTION), Part(text), special(parts.ANSWER)])
        yield Example("instructions", (*prompt, Part(bare), special(parts.END)), record.project,
                      f"template {number + 1}", _keys([record]))


def is_prose(text: str) -> bool:
    """Whether a comment is a sentence for people: no code, no time stamp, no list of marks."""
    words = re.findall(r"[A-Za-z']+", text)
    letters = sum(letter.isalpha() or letter.isspace() for letter in text)
    return (len(words) >= FEWEST_WORDS and len(text) <= MOST_CHARACTERS
            and letters >= 0.8 * len(text) and not _CODE.search(text) and not _STAMP.search(text)
            and any(word.lower() in _COMMON for word in words))


def without_comment(source: str, tree: MethodNode) -> str:
    """The method without its first comment and the line that it stood on; "" if that went wrong."""
    first = tree.comments[0]
    before, after = source[: first.start].rstrip(), source[first.stop :]
    line, _, rest = after.partition("\n")
    bare = f"{before}\n{rest.lstrip(chr(10))}" if not line.strip() else before + after
    try:
        return bare if parse_method(bare) == tree else ""
    except SmalltalkSyntaxError:
        return ""


def unseen(examples: Iterable[Example], held_out: Iterable[Example]) -> list[Example]:
    """The training examples that share no method's code with a held-out example."""
    told = {key for example in held_out for key in example.keys}
    return [example for example in examples if told.isdisjoint(example.keys)]


def _class_parts(record: ClassRecord) -> list[Part]:
    return [special(parts.CLASS), Part(definition_of(record)), special(parts.END)]


def _keys(methods: Iterable[MethodRecord]) -> tuple[bytes, ...]:
    return tuple(code_key(record.source, record.dialect) for record in methods)


def _trees(methods: Iterable[MethodRecord], trivial: bool = False
           ) -> Iterator[tuple[MethodRecord, MethodNode]]:
    """The methods that parse, with their trees; trivial ones only where they are asked for."""
    for record in methods:
        try:
            tree = parse_method(record.source, record.dialect)
        except SmalltalkSyntaxError:
            continue
        if trivial or not is_trivial(tree):
            yield record, tree
