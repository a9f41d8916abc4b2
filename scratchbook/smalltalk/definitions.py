"""Class definitions in their four forms to one node: a message, Pharo's fluid one, Tonel, GNU.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable

from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.lexer import Token, tokenize
from scratchbook.smalltalk.nodes import (
    BraceNode,
    CascadeNode,
    ClassNode,
    LiteralArrayNode,
    LiteralNode,
    Node,
    SendNode,
    VariableNode,
)
from scratchbook.smalltalk.parser import parse_expression
from scratchbook.smalltalk.printer import keyword_parts

FIELDS = {  # what the forms call a class's parts
    "instance_variables": "instanceVariableNames instVarNames slots instVars",
    "class_variables": "classVariableNames classVariables sharedVariables classVars",
    "class_instance_variables": "classInstanceVariableNames classSlots classInstVars",
    "pools": "poolDictionaries sharedPools pools import imports",
    "category": "category", "package": "package", "tag": "tag", "comment": "comment",
    "name": "name named", "superclass": "superclass",
}
FIELD_OF = {word: field for field, words in FIELDS.items() for word in words.split()}
LISTS = {"instance_variables", "class_variables", "class_instance_variables", "pools"}


def parse_class(source: str, dialect: str = "pharo") -> ClassNode:
    """The class that a definition makes; methods in a GNU class body are skipped.

    Example:  parse_class("Object << #Point slots: {#x. #y}; package: 'Shapes'")
    Raises:   SmalltalkSyntaxError when it is no class definition in one of the four forms
    """
    tokens = [each for each in tokenize(source, dialect) if each.kind != "comment"]
    texts = [each.text for each in tokens[:4]]
    if texts[1:2] == ["{"]:
        found = tonel(source, tokens)
    elif texts[1:2] == ["subclass:"] and texts[3:] == ["["]:
        tokens = [each for each in tokenize(source, "gnu") if each.kind != "comment"]
        found = {"superclass": texts[0], "name": texts[2], **gnu_body(tokens[4:])}
        if tokens[-1].text != "]":
            raise SmalltalkSyntaxError(source, len(source), "] expected at the end")
    else:
        found = messages(parse_expression(source, dialect))
    if not found.get("name"):
        raise SmalltalkSyntaxError(source, 0, "a class definition expected", (
            "Such as: Object subclass: #Point instanceVariableNames: 'x y' classVariableNames: '' "
            "package: 'Shapes'"))
    return class_node(found, len(source))


def class_node(found: dict, stop: int) -> ClassNode:
    """The node of the fields that were found; package and tag make a category if none is named."""
    parts = [found.pop("package", ""), found.pop("tag", "")]
    found["category"] = found.get("category") or "-".join(each for each in parts if each)
    above = found.get("superclass", "")
    return ClassNode(**{**found, "superclass": "" if above == "nil" else above}, start=0, stop=stop)


def unquoted(literal: str) -> str:
    """The characters of a string or symbol as written: `'it''s'`, `#foo`, `#'a b'`."""
    text = literal.lstrip("#")
    return text[1:-1].replace("''", "'") if text[:1] == "'" else text


# a message to the superclass

def value(field: str, node: Node) -> str | tuple[str, ...]:
    """A field's value: a text, or the names in a string, a brace or a literal array."""
    if field in LISTS and isinstance(node, BraceNode | LiteralArrayNode):
        return tuple(map(first_word, node.children()))
    text = first_word(node)
    return tuple(text.split()) if field in LISTS else text


def first_word(node: Node) -> str:
    """The name that an expression begins with: `#x`, `#x => WeakSlot`, `Object`."""
    while isinstance(node, SendNode | CascadeNode):
        node = node.receiver
    if isinstance(node, LiteralNode):
        return unquoted(node.source)
    return node.name if isinstance(node, VariableNode) else ""


def keyword_pairs(node: Node) -> Iterable[tuple[str, Node]]:
    """Each keyword with its argument, in one message or in all messages of a cascade."""
    for each in node.messages if isinstance(node, CascadeNode) else (node,):
        if isinstance(node, CascadeNode | SendNode):
            yield from zip((word[:-1] for word in keyword_parts(each.selector)), each.arguments,
                           strict=False)


def messages(statements: tuple[Node, ...]) -> dict:
    """`Object subclass: #Foo ...` or `Object << #Foo ...`; further statements add to the class."""
    found: dict = {}
    for statement in statements:
        receiver = getattr(statement, "receiver", None)
        arrow = statement if getattr(statement, "selector", "") == "<<" else receiver
        if getattr(arrow, "selector", "") == "<<" and not found:
            found["superclass"] = first_word(arrow)
            found["name"] = first_word(arrow.arguments[0])
        meta = getattr(receiver, "selector", "") == "class"
        for word, argument in keyword_pairs(statement):
            if word.endswith("ubclass") and not found:
                found["superclass"] = first_word(statement)
                found["name"] = first_word(argument)
                continue
            field = FIELD_OF.get(word)
            if field == "name" and not found:
                found["superclass"] = first_word(statement)
            if field:
                field = "class_instance_variables" if meta and field in LISTS else field
                found[field] = value(field, argument)
    if found.get("superclass") == "Trait":
        found |= {"superclass": "", "is_trait": True}
    return found


# Tonel

def tonel(source: str, tokens: list[Token]) -> dict:
    """`Class { #name : #Foo, #instVars : [ 'a' ] }` after an optional comment."""
    kind = tokens[0]
    if kind.text not in ("Class", "Trait"):
        raise SmalltalkSyntaxError(source, kind.start, f"Class or Trait, not {kind.text} expected")
    comment = source[:kind.start].strip()[1:-1].replace('""', '"').strip("\n")
    found: dict = {"is_trait": kind.text == "Trait", "comment": comment}
    field, inside = None, False
    for token, after in zip(tokens[2:], tokens[3:], strict=False):
        if not inside and after.text == ":" or token.text.endswith(":") and token.kind == "symbol":
            field = FIELD_OF.get(unquoted(token.text).rstrip(":"))
        elif token.text in ("[", "]"):
            inside = token.text == "["
        elif token.kind in ("string", "symbol") and field:
            text = unquoted(token.text)
            found[field] = (*found.get(field, ()), text) if field in LISTS else text
    if tokens[-1].text != "}":
        raise SmalltalkSyntaxError(source, len(source), "} expected at the end")
    return found


# GNU Smalltalk's brackets

def gnu_body(tokens: list[Token]) -> dict:
    """`| a b |`, `<comment: 'x'>`, `Name := value.` and `Foo class [ | a | ]` between methods."""
    found: dict = {}
    at = 0
    while at < len(tokens) and tokens[at].text != "]":
        texts = [each.text for each in tokens[at:at + 3]]
        if texts[0] == "|":
            at = declared(tokens, at, "instance_variables", found)
        elif texts[0] == "<" and len(texts) == 3:
            field = FIELD_OF.get(texts[1].rstrip(":"))
            if field and field not in LISTS:
                found[field] = unquoted(texts[2])
            at = behind(tokens, at, ">")
        elif tokens[at].kind == "name" and texts[1:2] == [":="]:
            found["class_variables"] = (*found.get("class_variables", ()), texts[0])
            at = behind(tokens, at, ".")
        elif texts[1:] == ["class", "["]:
            end = skipped(tokens, at + 2)
            if tokens[at + 3:] and tokens[at + 3].text == "|":
                declared(tokens, at + 3, "class_instance_variables", found)
            at = end
        else:
            at = skipped(tokens, at)
    return found


def behind(tokens: list[Token], at: int, text: str) -> int:
    """Behind the next token with this text, or the end."""
    while at < len(tokens) and tokens[at].text != text:
        at += 1
    return at + 1


def declared(tokens: list[Token], at: int, field: str, found: dict) -> int:
    """Adds the names between two bars; returns where it goes on."""
    end = at + 1
    while end < len(tokens) and tokens[end].kind == "name":
        end += 1
    found[field] = (*found.get(field, ()), *[each.text for each in tokens[at + 1:end]])
    return end + 1


def skipped(tokens: list[Token], at: int) -> int:
    """Behind the bracket that closes the next one that opens: a method's body."""
    depth = 0
    for number, token in enumerate(tokens[at:], start=at):
        depth += (token.text == "[") - (token.text == "]")
        if depth == 0 and token.text == "]":
            return number + 1
    return len(tokens)
