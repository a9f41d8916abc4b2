"""The file formats of byte-level BPE: tiktoken's, GPT-2's and the Rust library's.

They hold the same thing, ranks and special tokens, spelled in three ways:

    tiktoken         a line per token: its bytes in base64, its rank
    GPT-2            encoder.json (token to id) and vocab.bpe (the merges, in order)
    tokenizers       tokenizer.json: both of these, and how to split

The last two write bytes as *visible* characters: a byte that Latin-1 prints stands for itself,
any other for a character from U+0100 on. So a space is `Ġ`, and `Ġthe` is a token that begins
with one.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scratchbook.tokenizers.base import (
    NotSupported,
    check_special_tokens,
    damage_reported,
    read_json,
)
from scratchbook.tokenizers.bpe_training import BYTE_ORDER, PRINTABLE
from scratchbook.tokenizers.splits import PATTERNS

Ranks = dict[bytes, int]
SpecialTokens = dict[str, int]

VISIBLE = {
    byte: chr(byte) if byte in PRINTABLE else chr(256 + place - len(PRINTABLE))
    for place, byte in enumerate(BYTE_ORDER)
}
BYTE_OF_VISIBLE = {character: byte for byte, character in VISIBLE.items()}

# What OpenAI published with each pattern: the number of ranks, and the special tokens.
PUBLISHED: dict[str, tuple[int, SpecialTokens]] = {
    "gpt2": (50256, {"<|endoftext|>": 50256}),
    "cl100k": (
        100256,
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "o200k": (199998, {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}),
}


def to_visible(token: bytes) -> str:
    """Write a token's bytes as visible characters: b" the" becomes "Ġthe"."""
    return "".join(map(VISIBLE.__getitem__, token))


def from_visible(characters: str) -> bytes:
    """Undo `to_visible`. KeyError for a character that stands for no byte."""
    return bytes(map(BYTE_OF_VISIBLE.__getitem__, characters))


def check_vocabulary(ranks: Ranks, special_tokens: SpecialTokens) -> None:
    """Make sure that any text can be encoded, and that no id means two things.

    Raises:   ValueError naming what is missing or double
    """
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise ValueError(
            f"the vocabulary lacks {len(missing)} of the 256 single bytes (the first: "
            f"{missing[0]:#04x}), without which some text has no ids; the file is cut short or "
            "does not hold a byte-level BPE: fetch it again"
        )
    check_special_tokens(special_tokens.keys())
    ids = [*ranks.values(), *special_tokens.values()]
    if not all(isinstance(token_id, int) and token_id >= 0 for token_id in ids):
        raise ValueError("an id is not a number from 0 up")
    [(token_id, times)] = Counter(ids).most_common(1)
    if times > 1:
        raise ValueError(f"id {token_id} stands for {times} tokens")


def read_tiktoken(
    path: str | Path, pattern: str, special_tokens: Mapping[str, int] | None = None
) -> tuple[Ranks, SpecialTokens]:
    """Read a file of ranks, one `base64 rank` a line.

    Raises:   ValueError for a line that cannot be read, or a file that is not whole
    """
    ranks: Ranks = {}
    for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:
            raise ValueError(
                f"{path}, line {number}: {line[:40]!r} is not a token in base64 and its rank; "
                "the file is cut short or damaged: fetch it again"
            ) from None
    if special_tokens is not None:
        return ranks, dict(special_tokens)
    if pattern not in PUBLISHED:
        raise ValueError(f"pattern={pattern!r} is unknown: choose one of {list(PUBLISHED)}")
    expected, published = PUBLISHED[pattern]
    if len(ranks) != expected:
        raise ValueError(
            f"{path} holds {len(ranks)} ranks and OpenAI's {pattern} vocabulary {expected}: fetch "
            "it again, or pass special_tokens if it is another vocabulary with that pattern"
        )
    return ranks, dict(published)


def ranks_of_merges(merges: list[tuple[bytes, bytes]], first_id: int = 0) -> Ranks:
    """Number the 256 bytes in GPT-2's order, then the merges in theirs."""
    tokens = [bytes([byte]) for byte in BYTE_ORDER] + [left + right for left, right in merges]
    return {token: first_id + place for place, token in enumerate(tokens)}


def read_gpt2(encoder_path: str | Path, vocab_path: str | Path) -> tuple[Ranks, SpecialTokens]:
    """Read encoder.json and vocab.bpe, and check the one against the other.

    Raises:   ValueError when one is damaged or they do not belong together
    """
    header, *lines = Path(vocab_path).read_text(encoding="utf-8").splitlines()
    if not header.startswith("#version"):
        raise ValueError(f"{vocab_path} does not begin with #version: it is no vocab.bpe")
    with damage_reported(vocab_path):
        ranks = ranks_of_merges([_merge_of(line) for line in lines])
    encoder = read_json(encoder_path)
    special = {token: encoder.pop(token) for token in PUBLISHED["gpt2"][1] if token in encoder}
    with damage_reported(encoder_path):
        if {from_visible(token): rank for token, rank in encoder.items()} != ranks:
            raise ValueError(f"its tokens are not those that the merges of {vocab_path} make")
    return ranks, special


def _merge_of(line: str | list[str]) -> tuple[bytes, bytes]:
    left, right = line.split(" ") if isinstance(line, str) else line
    return from_visible(left), from_visible(right)


def check_fusing(ranks: Ranks, merges: list[tuple[bytes, bytes]]) -> None:
    """Make sure that fusing by ranks, as tiktoken does, is fusing by merges, as `tokenizers` does.

    A token whose id is smaller than those of its parts has no merge, and ranks still fuse it.

    Raises:   NotSupported naming such a token
    """
    merged = {left + right for left, right in merges}
    for token in ranks.keys() - merged:
        if any(token[:cut] in ranks and token[cut:] in ranks for cut in range(1, len(token))):
            raise NotSupported(
                f"the token {token!r} has no merge although two tokens make it: inside of a longer "
                "chunk tiktoken fuses them and `tokenizers` does not"
            )


def tokenizers_document(
    ranks: Ranks,
    merges: list[tuple[bytes, bytes]],
    pattern: str,
    special_tokens: SpecialTokens,
) -> dict[str, Any]:
    """The content of a tokenizer.json that encodes as this vocabulary does.

    Raises:   NotSupported where the library would encode otherwise
    """
    check_fusing(ranks, merges)
    vocab = {to_visible(token): rank for token, rank in ranks.items()}
    if both := sorted(vocab.keys() & special_tokens.keys()):
        raise NotSupported(
            f"{both[0]!r} is a special token and an ordinary one: `tokenizers` gives both one id"
        )
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    split = {
        "type": "Split",
        "pattern": {"Regex": PATTERNS[pattern]},
        "behavior": "Isolated",
        "invert": False,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(*item) for item in special_tokens.items()],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [split, {**byte_level, "use_regex": False}],
        },
        "post_processor": None,
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            # tiktoken looks a chunk up whole before it merges; this asks the library to do so too
            "ignore_merges": True,
            # the library numbers added tokens itself, unless the vocabulary says their ids
            "vocab": vocab | special_tokens,
            "merges": [[to_visible(left), to_visible(right)] for left, right in merges],
        },
    }


def _added_token(content: str, token_id: int) -> dict[str, Any]:
    return {
        "id": token_id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def to_json(document: dict[str, Any]) -> str:
    """JSON as a person can read it."""
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def read_tokenizers(
    path: str | Path,
) -> tuple[Ranks, list[tuple[bytes, bytes]], str, SpecialTokens]:
    """Read a tokenizer.json: ranks, merges, the name of the pattern, special tokens.

    Raises:   ValueError for a damaged file, NotSupported for one that asks for something else
    """
    document = read_json(path)
    with damage_reported(path):
        _refuse_what_differs(document)
        model = document["model"]
        special = _special_tokens(document.get("added_tokens", []), model["vocab"])
        ranks = {}
        for token, rank in model["vocab"].items():
            if token not in special:
                if not BYTE_OF_VISIBLE.keys() >= set(token):
                    raise NotSupported(f"the token {token!r} spells no bytes")
                ranks[from_visible(token)] = rank
        if missing := sum(bytes([byte]) not in ranks for byte in range(256)):
            raise NotSupported(
                f"it lacks {missing} of the 256 single bytes, without which some text has no ids; "
                "train with initial_alphabet=ByteLevel.alphabet()"
            )
        merges = [_merge_of(merge) for merge in model["merges"]]
        if len(ranks) > 256 + len(merges) and not model.get("ignore_merges"):
            raise NotSupported("some tokens come from no merge, and it does not ignore_merges")
        return ranks, merges, _pattern_of(document.get("pre_tokenizer") or {}), special


def _refuse_what_differs(document: dict[str, Any]) -> None:
    """Raise NotSupported for whatever the library would do and byte-level BPE does not."""
    model = document["model"]
    if model.get("type", "BPE") != "BPE":
        raise NotSupported(f"the model is {model['type']}, not BPE")
    options = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
    changes = [f"model.{name}" for name in (*options, "byte_fallback") if model.get(name)]
    changes += [name for name in ("normalizer", "truncation", "padding") if document.get(name)]
    if (document.get("post_processor") or {}).get("type", "ByteLevel") != "ByteLevel":
        changes.append("post_processor")  # it would add tokens at the ends
    for token in document.get("added_tokens", []):
        for name in ("single_word", "lstrip", "rstrip"):
            changes += [f"{name} of {token['content']}"] if token.get(name) else []
    if changes:
        raise NotSupported(f"it sets {', '.join(changes)}, which byte-level BPE here does not have")


def _special_tokens(added: list[dict[str, Any]], vocab: dict[str, int]) -> SpecialTokens:
    """The added tokens and their ids, once it is sure that the library cuts and numbers alike.

    It gives an added token the id of its vocabulary entry, numbers those without one on from the
    end of the vocabulary, and leaves unread the id that stands beside the token.
    """
    special: SpecialTokens = {}
    gaps = max(vocab.values(), default=-1) >= len(vocab)
    following = len(vocab)
    for token in added:
        content, token_id = token["content"], token["id"]
        if not token["special"]:
            raise NotSupported(
                f"the added token {content!r} is not special: the library cuts it out of every "
                "text before the pattern does"
            )
        if not content or content in special:
            raise NotSupported(f"the added token {content!r} is empty or listed twice")
        if token_id != vocab.get(content, None if gaps else following):
            raise NotSupported(
                f"the added token {content!r} says id {token_id}, which is not the one that the "
                "library gives it: that of its vocabulary entry, or the next after the vocabulary"
            )
        following += content not in vocab
        special[content] = token_id
    if len({token["normalized"] for token in added}) > 1:
        raise NotSupported("some added tokens are normalized and some not: it cuts at these first")
    return special


def _pattern_of(pre_tokenizer: dict[str, Any]) -> str:
    """Which of the three patterns this pre-tokenizer splits by."""
    match pre_tokenizer.get("pretokenizers", [pre_tokenizer]):
        case [{"type": "ByteLevel", "add_prefix_space": False, **options}]:
            if options.get("use_regex", True):
                return "gpt2"
        case [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ] if behavior == "Isolated" or (behavior == "Removed" and invert):
            # the patterns leave no text between their matches, so that nothing is removed
            if regex in SPELLINGS:
                return SPELLINGS[regex]
    raise NotSupported(
        f"it splits text by {json.dumps(pre_tokenizer)[:300]}, which is none of {list(PATTERNS)}"
    )


SPELLINGS = {regex: pattern for pattern, regex in PATTERNS.items()}
# GPT-2's pattern as its authors wrote it. GPT-4's first spelling is not here: it ends with
# \s*[\r\n]+|\s+(?!\S)|\s+ and so cuts the white space at the end of a text otherwise.
SPELLINGS[
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
] = "gpt2"
