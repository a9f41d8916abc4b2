"""JSON by masks: at each step only the tokens behind which the text can still become JSON.

A reader with a stack goes through the text byte by byte (JSON nests, so a finite number of states
is not enough), and a token is allowed when the reader gets through all of its bytes. What a state
allows depends on nothing else, so its mask is made once.

Chapter:  chapters/07b_inference_engine.ipynb
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MAX_DEPTH, MAX_DIGITS = 64, 100  # Python refuses numbers of 4,301 digits, and a thousand levels
SPACE, DIGITS, HEX = b" \t\n\r", b"0123456789", b"0123456789abcdefABCDEF"
WORDS = {word[0]: word[1:] for word in (b"true", b"false", b"null")}
CLOSES = {ord("}"): "{", ord("]"): "["}
WHOLE = ("zero", "int", "frac", "exp")  # a number may end here
# the first byte of a character: how many follow, and where the next of them lies
LEADS = (dict.fromkeys(range(0xC2, 0xE0), (1, 0x80, 0xBF))
         | dict.fromkeys(range(0xE1, 0xF0), (2, 0x80, 0xBF))
         | dict.fromkeys(range(0xF1, 0xF4), (3, 0x80, 0xBF))
         | {0xE0: (2, 0xA0, 0xBF), 0xED: (2, 0x80, 0x9F), 0xF0: (3, 0x90, 0xBF),
            0xF4: (3, 0x80, 0x8F)})


class State(NamedTuple):
    """Where a reader of JSON stands: open brackets, what it is in, and how far.

    `more` is what belongs to the mode: the rest of a word, of a character, the digits so far.
    """

    stack: str = ""
    mode: str = "value"
    more: object = None
    key: bool = False  # whether a string that is read is a key

    @property
    def complete(self) -> bool:
        """Whether the text may end here."""
        return self.closed or (not self.stack and self.mode in WHOLE)

    @property
    def closed(self) -> bool:
        """Whether nothing but spaces could follow."""
        return not self.stack and self.mode == "after"


def advance(state: State, byte: int, max_depth: int = MAX_DEPTH) -> State | None:
    """The state behind one more byte, or None where no JSON goes on like that.

    Chapter:  chapters/07b_inference_engine.ipynb
    """
    if state.mode in _IN_STRING:
        return _IN_STRING[state.mode](state, byte)
    if state.mode == "word":
        rest = bytes(state.more)
        return _shift(state, rest[1:]) if byte == rest[0] else None
    if state.mode in _NUMBER:
        return _in_number(state, byte)
    if byte in SPACE:
        return state
    return _between(state, byte, max_depth)


def _between(state: State, byte: int, max_depth: int) -> State | None:
    """A byte that is neither space nor inside of a string, a word or a number."""
    stack, mode = state.stack, state.mode
    if byte in CLOSES:
        fits = stack[-1:] == CLOSES[byte] and mode in ("after", "first value", "first key")
        return State(stack[:-1], "after") if fits else None
    if mode in ("key", "first key"):
        return State(stack, "string", key=True) if byte == ord('"') else None
    if mode == "colon":
        return State(stack, "value") if byte == ord(":") else None
    if mode == "after":
        if byte != ord(",") or not stack:
            return None
        return State(stack, "key" if stack[-1] == "{" else "value")
    return _begin(stack, byte, max_depth)


def _begin(stack: str, byte: int, max_depth: int) -> State | None:
    """The first byte of a value."""
    if byte in b"{[":
        first = "first key" if byte == ord("{") else "first value"
        return State(stack + chr(byte), first) if len(stack) < max_depth else None
    if byte == ord('"'):
        return State(stack, "string")
    if byte in WORDS:
        return State(stack, "word", WORDS[byte])
    if byte == ord("-"):
        return State(stack, "minus", 0)
    if byte in DIGITS:
        return State(stack, "zero" if byte == ord("0") else "int", 1)
    return None


def _shift(state: State, rest: bytes) -> State:
    return State(state.stack, "word", rest) if rest else State(state.stack, "after")


def _in_string(state: State, byte: int) -> State | None:
    if byte == ord('"'):
        return State(state.stack, "colon" if state.key else "after")
    if byte == ord("\\"):
        return state._replace(mode="escape")
    if byte in LEADS:
        return state._replace(mode="character", more=LEADS[byte])
    return state if 0x20 <= byte < 0x80 else None


def _in_character(state: State, byte: int) -> State | None:
    left, low, high = state.more
    if not low <= byte <= high:
        return None
    back = state._replace(mode="string", more=None)
    return back if left == 1 else state._replace(more=(left - 1, 0x80, 0xBF))


def _in_escape(state: State, byte: int) -> State | None:
    if byte == ord("u"):
        return state._replace(mode="hex", more=4)
    return state._replace(mode="string", more=None) if byte in b'"\\/bfnrt' else None


def _in_hex(state: State, byte: int) -> State | None:
    if byte not in HEX:
        return None
    back = state._replace(mode="string", more=None)
    return back if state.more == 1 else state._replace(more=state.more - 1)


_IN_STRING = {"string": _in_string, "character": _in_character, "escape": _in_escape,
              "hex": _in_hex}
# for each place in a number: what a digit, and what each other byte, leads to
_NUMBER = {
    "minus": {}, "zero": {".": "dot", "e": "e", "E": "e"},
    "int": {"0-9": "int", ".": "dot", "e": "e", "E": "e"}, "dot": {"0-9": "frac"},
    "frac": {"0-9": "frac", "e": "e", "E": "e"}, "e": {"0-9": "exp", "+": "sign", "-": "sign"},
    "sign": {"0-9": "exp"}, "exp": {"0-9": "exp"}}


def _in_number(state: State, byte: int) -> State | None:
    ways, digits = _NUMBER[state.mode], state.more
    if state.mode == "minus" and byte in DIGITS:
        return state._replace(mode="zero" if byte == ord("0") else "int", more=1)
    if byte in DIGITS and "0-9" in ways:
        return state._replace(mode=ways["0-9"], more=digits + 1) if digits < MAX_DIGITS else None
    if chr(byte) in ways:
        return state._replace(mode=ways[chr(byte)])
    if state.mode not in WHOLE:
        return None
    return advance(State(state.stack, "after"), byte)  # the number is over


def read(text: bytes, state: State | None = None, max_depth: int = MAX_DEPTH) -> State | None:
    """The state behind all of these bytes, or None where they begin no JSON.

    Chapter:  chapters/07b_inference_engine.ipynb
    """
    state = State() if state is None else state
    for byte in text:
        state = advance(state, byte, max_depth)
        if state is None:
            return None
    return state


class JsonRule:
    """Which tokens may come next, so that a text ends as JSON: `allowed` of a `Request`.

    `tokens` are the bytes of every id; an id of no bytes (a special token) is never allowed, but
    for `end_ids`, which are exactly where the text is whole. Not all JSON is let through: 64
    levels and 100 digits are the most, and no space follows the last bracket. The mask says what
    can still become JSON, not that it will within `max_new_tokens`.

    Shapes:   new_ids -> (vocab,), True where a token may come
    Raises:   ValueError without an end, or for new_ids that begin no JSON
    Chapter:  chapters/07b_inference_engine.ipynb
    """

    KEPT = 512  # masks, and beginnings whose state is known

    def __init__(self, tokens: Sequence[bytes], end_ids: Collection[int],
                 max_depth: int = MAX_DEPTH):
        if not end_ids or not all(0 <= i < len(tokens) for i in end_ids):
            raise ValueError(f"end_ids={list(end_ids)} of {len(tokens)} tokens: name the token "
                             "that ends a text, or nothing could stop behind the last bracket")
        self.tokens, self.end_ids, self.max_depth = list(tokens), sorted(end_ids), max_depth
        self._tree = _tree_of(self.tokens, set(end_ids))
        self._masks: dict[State, Tensor] = {}
        self._states: dict[tuple[int, ...], State] = {(): State()}

    def __call__(self, new_ids: Sequence[int]) -> Tensor:
        """The mask behind these new tokens."""
        state = self.state(new_ids)
        if state not in self._masks:
            if len(self._masks) >= self.KEPT:
                self._masks.clear()
            self._masks[state] = self._mask(state)
        return self._masks[state].clone()

    def state(self, new_ids: Sequence[int]) -> State:
        """Where the reader stands behind these new tokens."""
        ids = tuple(map(int, new_ids))
        if ids not in self._states:
            known = ids[:-1] if ids[:-1] in self._states else ()
            text = b"".join(self.tokens[i] for i in ids[len(known):])
            state = read(text, self._states[known], self.max_depth)
            if state is None or set(ids) & set(self.end_ids):
                raise ValueError(f"{b''.join(self.tokens[i] for i in ids)[-60:]!r} begins no JSON: "
                                 "a token was taken that the mask had hidden")
            if len(self._states) >= self.KEPT:
                self._states = {(): State()}
            self._states[ids] = state
        return self._states[ids]

    def _mask(self, state: State) -> Tensor:
        """Walk the tree of all tokens with the reader: what begins alike is read once."""
        allowed, open_ends = [], [(self._tree, state)]
        while open_ends:
            (ids, branches), here = open_ends.pop()
            allowed += ids
            for byte, branch in branches.items() if not here.closed else ():
                then = advance(here, byte, self.max_depth)
                if then is not None:
                    open_ends.append((branch, then))
        mask = torch.zeros(len(self.tokens), dtype=torch.bool)
        mask[allowed] = True
        mask[self.end_ids] = state.complete
        return mask


def _tree_of(tokens: Sequence[bytes], left_out: set[int]) -> tuple[list[int], dict]:
    """All tokens by their bytes: (ids that end here, {byte: branch})."""
    tree: tuple[list[int], dict] = ([], {})
    for token_id, token in enumerate(tokens):
        if token and token_id not in left_out:
            node = tree
            for byte in token:
                node = node[1].setdefault(byte, ([], {}))
            node[0].append(token_id)
    return tree


def json_rule(tokenizer: object, end_ids: Collection[int], max_depth: int = MAX_DEPTH) -> JsonRule:
    """The rule for a tokenizer of the course; its special tokens have no bytes here.

    Raises:   ValueError as `JsonRule` does
    Chapter:  chapters/07b_inference_engine.ipynb
    """
    special = set(tokenizer.special_tokens.values())
    return JsonRule([b"" if i in special else tokenizer.token_bytes(i)
                     for i in range(tokenizer.vocab_size)], end_ids, max_depth)
