"""A parse tree as lines of text: what each node is, which part it plays, one step in per level.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from scratchbook.smalltalk.nodes import (
    AssignmentNode,
    BlockNode,
    BraceNode,
    ByteArrayNode,
    CascadeNode,
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

WORDS: dict[type[Node], str] = {
    AssignmentNode: "assignment", BlockNode: "block", BraceNode: "brace array",
    ByteArrayNode: "byte array", CascadeNode: "cascade", LiteralArrayNode: "literal array",
    MessageNode: "message", MethodNode: "method", PragmaNode: "pragma", ReturnNode: "return",
    SendNode: "message", VariableNode: "variable"}


def outline(tree: Node) -> list[str]:
    """One line for each node, parents first; two blanks for each level.

    Example:  outline(parse_method("double ^ n * 2")) is ["method double", "  return",
              "    message *", "      receiver: variable n", "      argument: number 2"]
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    lines, waiting = [], [(tree, "", 0)]
    while waiting:  # a sum of 10,000 terms is a tree 10,000 deep
        node, role, level = waiting.pop()
        text = _own_text(node).replace("\n", "\\n")
        lines.append("  " * level + f"{role}{_kind(node)} {text}".rstrip())
        waiting += [(child, _role(node, at), level + 1)
                    for at, child in enumerate(node.children())][::-1]
    return lines


def _kind(node: Node) -> str:
    return node.kind if isinstance(node, LiteralNode) else WORDS[type(node)]


def _own_text(node: Node) -> str:
    """What is the node's own and of no child: a selector, a name, a constant."""
    if isinstance(node, MethodNode):
        return " ".join([_pattern(node), *_bars(node.temporaries)])
    if isinstance(node, BlockNode):
        return " ".join([*(f":{name}" for name in node.parameters), *_bars(node.temporaries)])
    for name in ("selector", "name", "source"):
        if hasattr(node, name):
            return getattr(node, name)
    return ""


def _pattern(node: MethodNode) -> str:
    """`at: i put: v`, from the selector and the names of the parameters."""
    if not node.parameters:
        return node.selector
    words = node.selector.replace(":", ": ").split()
    return " ".join(f"{word} {name}" for word, name in zip(words, node.parameters, strict=True))


def _bars(names: tuple[str, ...]) -> list[str]:
    return ["|", *names, "|"] if names else []


def _role(parent: Node, at: int) -> str:
    """The part that a child plays."""
    if isinstance(parent, SendNode | CascadeNode) and at == 0:
        return "receiver: "
    if isinstance(parent, SendNode | MessageNode | PragmaNode):
        return "argument: "
    if isinstance(parent, AssignmentNode):
        return ("to: ", "value: ")[at]
    return ""
