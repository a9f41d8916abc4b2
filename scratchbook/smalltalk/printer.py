"""Trees to source in one style: what is short stands on one line, the rest is broken and indented.

The layout depends on the tree and its comments alone, so that printing what was printed changes
nothing: `parse_method(format_method(tree)) == tree`. A comment goes before the statement in which
it stood, in the innermost block around it.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from scratchbook.smalltalk.nodes import (
    AssignmentNode,
    BlockNode,
    BraceNode,
    ByteArrayNode,
    CascadeNode,
    CommentNode,
    LiteralArrayNode,
    LiteralNode,
    MessageNode,
    MethodNode,
    Node,
    PragmaNode,
    ReturnNode,
    SendNode,
    VariableNode,
)

WIDTH, TAB = 90, 4
UNARY, BINARY, KEYWORD, LOOSEST = 1, 2, 3, 4  # how tightly a message holds its parts


def format_method(node: MethodNode) -> str:
    """The method's source, in which each statement, header comment and pragma has its line(s).

    Raises:   TypeError when the node is not a method's
    """
    if not isinstance(node, MethodNode):
        raise TypeError(f"{type(node).__name__} is no method: use format_expression")
    return Printer(list(node.comments)).method(node)


def format_expression(node: Node) -> str:
    """One statement or expression, without comments."""
    return Printer([]).show(node, 0)


def strength(selector: str) -> int:
    """How tightly a message holds its receiver: the rank of a selector's kind."""
    if selector.endswith(":"):
        return KEYWORD
    return UNARY if selector[0].isalpha() or selector[0] == "_" else BINARY


def keyword_parts(selector: str) -> list[str]:
    """`at:put:` in its words, none for another kind of selector."""
    return [word + ":" for word in selector.split(":")[:-1]]


def rank(node: Node) -> int:
    """What kind of expression a node is: 0 needs no parentheses anywhere, LOOSEST everywhere."""
    if isinstance(node, SendNode):
        return strength(node.selector)
    return LOOSEST if isinstance(node, CascadeNode | AssignmentNode) else 0


def loose_receiver(node: Node, selector: str) -> bool:
    """Whether a message's receiver needs parentheses: `a + b + c` has none, `(a + b) c` has."""
    return rank(node) >= KEYWORD or rank(node) > strength(selector)


def loose_argument(node: Node, selector: str) -> bool:
    """Whether an argument needs parentheses: `a + (b + c)` and `a at: (b at: c)` have."""
    return rank(node) >= strength(selector)


def enclosed(text: str, loose: bool) -> str:
    """The text, in parentheses if its expression is a loose one."""
    return f"({text})" if loose else text


def message(selector: str, arguments: list[str], between: str = " ") -> str:
    """A message without its receiver."""
    if not arguments:
        return selector
    parts = keyword_parts(selector) or [selector]
    return between.join(f"{part} {each}" for part, each in zip(parts, arguments, strict=True))


def opening(node: ReturnNode | AssignmentNode) -> str:
    """What a return or an assignment begins with, before its value."""
    return "^ " if isinstance(node, ReturnNode) else f"{node.variable.name} := "


def box_parts(node: BlockNode | BraceNode) -> tuple[str, list[str], str]:
    """How a block or a brace begins (with its parameters), its temporaries, and how it ends."""
    if isinstance(node, BraceNode):
        return "{", [], "}"
    names = [f":{name}" for name in node.parameters] + ["|"] * bool(node.parameters)
    temporaries = [f"| {' '.join(node.temporaries)} |"] if node.temporaries else []
    return " ".join(["[", *names]), temporaries, "]"


def chain(node: SendNode | CascadeNode) -> tuple[Node, list[MessageNode | SendNode]]:
    """The first receiver and the messages to it, in order; long chains need no recursion."""
    if isinstance(node, CascadeNode):
        return node.receiver, list(node.messages)
    messages = [node]
    while isinstance(node.receiver, SendNode) and not loose_receiver(node.receiver, node.selector):
        node = node.receiver
        messages.append(node)
    return node.receiver, messages[::-1]


class Printer:
    """Writes one method; takes each comment from the list when its statement's turn comes."""

    def __init__(self, comments: list[CommentNode]) -> None:
        self.comments = comments
        self.flats: dict[int, str | None] = {}

    def method(self, node: MethodNode) -> str:
        """Pattern, comments about the method, pragmas, temporaries, statements."""
        names = keyword_parts(node.selector) or [node.selector]
        pairs = zip(names, node.parameters, strict=True) if node.parameters else [(names[0], "")]
        lines = [" ".join(f"{name} {parameter}".strip() for name, parameter in pairs)]
        header = self.taken(node.body_start)
        if node.statements and not node.temporaries:  # nothing would tell the two kinds apart
            header += self.own_comments(node.statements[0])
        lines += ["\t" + comment for comment in header] + [""] * bool(header)
        lines += ["\t" + self.pragma(pragma) for pragma in node.pragmas]
        if node.temporaries:
            lines.append(f"\t| {' '.join(node.temporaries)} |")
        return "\n".join(lines + self.lines(node.statements, 1, None))

    def taken(self, stop: int | None) -> list[str]:
        """The comments that begin before `stop`, which are written now."""
        found = [each for each in self.comments if stop is None or each.start < stop]
        self.comments = self.comments[len(found):]
        return [each.source for each in found]

    def lines(self, statements: tuple[Node, ...], indent: int, stop: int | None) -> list[str]:
        """Each statement on its own line(s) after its comments, with periods between them."""
        found, tabs = [], "\t" * indent
        for number, statement in enumerate(statements, start=1):
            found += [tabs + comment for comment in self.own_comments(statement)]
            period = "." * (number < len(statements))
            found.append(tabs + self.show(statement, indent) + period)
        return found + [tabs + comment for comment in self.taken(stop)]

    def own_comments(self, statement: Node) -> list[str]:
        """The comments before a statement's end, without those in blocks or braces inside it."""
        if not self.comments or self.comments[0].start >= statement.stop:
            return []
        boxes = [(node.start, node.stop) for node in statement.walk()
                 if isinstance(node, BlockNode | BraceNode)]
        own, others = [], []
        for each in self.comments:
            inside = any(start < each.start < stop for start, stop in boxes)
            (others if inside or each.start >= statement.stop else own).append(each)
        self.comments = others
        return [each.source for each in own]

    def pragma(self, node: PragmaNode) -> str:
        if not node.selector:  # a foreign dialect's words, as they are
            return f"<{node.arguments[0].source}>"
        text = message(node.selector, [self.show(each, 0) for each in node.arguments])
        return f"<{text}{' ' * (text[-1] in '-+/*~<>=@,%|&?!' or text[-1] == chr(92))}>"

    # on one line

    def flat(self, node: Node) -> str | None:
        """The node on one line; None where it must not be: several statements, or comments."""
        if id(node) not in self.flats:
            self.flats[id(node)] = self.flattened(node)
        return self.flats[id(node)]

    def flattened(self, node: Node) -> str | None:
        match node:
            case VariableNode():
                return node.name
            case LiteralNode():
                return node.source
            case LiteralArrayNode() | ByteArrayNode():
                inside = " ".join(self.flat(each) for each in node.elements)
                return f"#({inside})" if isinstance(node, LiteralArrayNode) else f"#[{inside}]"
            case ReturnNode() | AssignmentNode():
                value = self.flat(node.value)
                return value and opening(node) + value
            case BlockNode() | BraceNode():
                return self.flat_box(node)
        base, messages = chain(node)
        parts = [self.flat(each) for each in (base, *(x for m in messages for x in m.arguments))]
        if None in parts:
            return None
        texts = iter(parts)
        first = enclosed(next(texts), loose_receiver(base, messages[0].selector))
        rest = [message(each.selector, [
            enclosed(next(texts), loose_argument(value, each.selector))
            for value in each.arguments]) for each in messages]
        return f"{first} {('; ' if isinstance(node, CascadeNode) else ' ').join(rest)}"

    def flat_box(self, node: BlockNode | BraceNode) -> str | None:
        commented = [each for each in self.comments if node.start < each.start < node.stop]
        texts = [self.flat(each) for each in node.statements]
        if commented or None in texts or isinstance(node, BlockNode) and len(texts) > 1:
            return None
        start, temporaries, stop = box_parts(node)
        return " ".join([start, *temporaries, *[". ".join(texts)] * bool(texts), stop])

    # on several lines

    def show(self, node: Node, indent: int) -> str:
        """The node where it starts behind `indent` tabs, on as few lines as its width allows."""
        text = self.flat(node)
        if text is not None and len(text) + TAB * indent <= WIDTH:
            return text
        match node:
            case ReturnNode() | AssignmentNode():
                return opening(node) + self.show(node.value, indent)
            case BlockNode() | BraceNode():
                start, temporaries, stop = box_parts(node)
                lines = ["\t" * (indent + 1) + each for each in temporaries]
                lines += self.lines(node.statements, indent + 1, node.stop)
                return "\n".join([start, *lines]) + " " + stop
            case SendNode() | CascadeNode():
                return self.broken(node, indent)
        return text

    def broken(self, node: SendNode | CascadeNode, indent: int) -> str:
        """A message of several keywords has each on its line, a cascade each message."""
        base, messages = chain(node)
        line, cascade = "\n" + "\t" * (indent + 1), isinstance(node, CascadeNode)
        text = enclosed(self.show(base, indent), loose_receiver(base, messages[0].selector))
        for number, each in enumerate(messages, start=1):
            down = cascade or len(each.arguments) > 1
            deeper = indent + 1 + (cascade and len(each.arguments) > 1) if down else indent
            arguments = [enclosed(self.show(value, deeper), loose_argument(value, each.selector))
                         for value in each.arguments]
            flat = message(each.selector, arguments)
            if not down:
                text += " " + flat
            elif not cascade:
                text += line + message(each.selector, arguments, line)
            else:
                fits = "\n" not in flat and len(flat) + TAB * (indent + 1) <= WIDTH
                text += line + (flat if fits else message(each.selector, arguments, line + "\t"))
                text += ";" * (number < len(messages))
        return text
