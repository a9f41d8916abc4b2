"""Byte-pair encoding over bytes: the tokenizer of GPT-2, GPT-4 and GPT-4o.

Text is cut into chunks (splits.py); a chunk is its UTF-8 bytes; neighbours are fused, the pair
that was learned first before all others, until no two neighbours make a known token.

One dictionary is the whole model: `ranks`, from each token's bytes to its id. A smaller id was
learned earlier and is fused earlier. The list of merges need not be kept: the two halves of a
token are what the token's bytes become when only smaller ids may be used.

Paper:    Sennrich et al. (2016), arXiv:1508.07909; Radford et al. (2019), section 2.2
Chapter:  chapters/01_tokenization.ipynb
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Self

from scratchbook.runtime import write_atomically
from scratchbook.tokenizers import bpe_files
from scratchbook.tokenizers.base import (
    NotSupported,
    Tokenizer,
    as_texts,
    check_special_tokens,
    check_vocab_size,
    cut_out,
    damage_reported,
)
from scratchbook.tokenizers.bpe_encoding import ChunkCache, split_short
from scratchbook.tokenizers.bpe_training import byte_ranks, learn_merges
from scratchbook.tokenizers.splits import Splitter


class BPETokenizer(Tokenizer):
    """Byte-level BPE with the split pattern of GPT-2, GPT-4 ("cl100k") or GPT-4o ("o200k").

    Fresh, it knows the 256 bytes only, in GPT-2's order: every text already has ids, so there is
    no unknown token. Training adds merges, then special tokens, up to `vocab_size`.

    Raises:   ValueError for an unknown pattern
    Paper:    Sennrich et al. (2016), arXiv:1508.07909; Radford et al. (2019), section 2.2
    Chapter:  chapters/01_tokenization.ipynb
    """

    kind = "bpe"

    def __init__(self, pattern: str = "gpt2") -> None:
        super().__init__()
        self._splitter = Splitter(pattern)
        self.pattern = pattern
        self._set_vocabulary(byte_ranks(), {})

    def _set_vocabulary(self, ranks: dict[bytes, int], special_tokens: dict[str, int]) -> None:
        bpe_files.check_vocabulary(ranks, special_tokens)
        self.ranks = ranks
        self.special_tokens = special_tokens
        self._tokens = {token_id: token for token, token_id in ranks.items()}
        self._tokens |= {
            token_id: token.encode("utf-8") for token, token_id in special_tokens.items()
        }
        self._vocab_size = max(self._tokens) + 1
        self._cache = ChunkCache(ranks)
        self.__dict__.pop("merges", None)  # they are read off the ranks when asked for

    # learning

    def train(
        self, texts: str | Iterable[str], vocab_size: int, special_tokens: Collection[str] = ()
    ) -> Self:
        """Learn merges until there are `vocab_size` tokens: 256 bytes, merges, special tokens.

        The merges are those of the Rust library `tokenizers`, ties included (see bpe_training).
        A special token found in the corpus is left out of it. The vocabulary stays smaller when
        the corpus runs out of pairs.

        Raises:   ValueError when `vocab_size` has no room or the corpus is empty
        """
        vocab_size = check_vocab_size(vocab_size)
        special = check_special_tokens(special_tokens)
        num_merges = vocab_size - 256 - len(special)
        if num_merges < 0:
            raise ValueError(
                f"vocab_size={vocab_size} is too small: 256 bytes and {len(special)} special "
                f"tokens need {256 + len(special)}"
            )
        chunk_counts = Counter(chain.from_iterable(self._corpus_blocks(texts, special)))
        if not chunk_counts:
            raise ValueError("the corpus is empty: is `texts` a generator that was read before?")
        counts = {chunk.encode("utf-8"): count for chunk, count in chunk_counts.items()}
        ranks = learn_merges(counts, num_merges)
        self._set_vocabulary(ranks, {token: len(ranks) + n for n, token in enumerate(special)})
        return self

    def _corpus_blocks(
        self, texts: str | Iterable[str], special_tokens: Collection[str]
    ) -> Iterator[list[str]]:
        for text in as_texts(texts):
            for part in cut_out(special_tokens, text)[::2]:
                yield from self._splitter.blocks(part)

    # text to ids and back

    def split(self, text: str) -> list[str]:
        """Cut text into chunks with the pattern alone."""
        return self._splitter.split(text)

    def _encode_ordinary(self, text: str) -> list[int]:
        chunks = chain.from_iterable(self._splitter.blocks(text))
        return list(chain.from_iterable(map(self._cache.__getitem__, chunks)))

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token.

        Raises:   ValueError for an id outside the vocabulary
        """
        try:
            return self._tokens[token_id]
        except KeyError:
            raise ValueError(
                f"id {token_id} is not in this vocabulary of {self.vocab_size}"
            ) from None

    @property
    def vocab_size(self) -> int:
        """The largest id plus one: the rows that an embedding needs."""
        return self._vocab_size

    @cached_property
    def merges(self) -> list[tuple[bytes, bytes]]:
        """The two halves of every token that has them, in the order of learning."""
        halves = (
            split_short(token, self.ranks, below=rank)
            for token, rank in sorted(self.ranks.items(), key=lambda item: item[1])
            if len(token) > 1
        )
        return [(parts[0], parts[1]) for parts in halves if len(parts) == 2]

    # files

    def _state(self) -> dict[str, Any]:
        return {
            "pattern": self.pattern,
            "special_tokens": self.special_tokens,
            "ranks": {bpe_files.to_visible(token): rank for token, rank in self.ranks.items()},
        }

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> Self:
        ranks = {bpe_files.from_visible(token): rank for token, rank in state["ranks"].items()}
        return cls.from_ranks(ranks, state["pattern"], state["special_tokens"])

    @classmethod
    def from_ranks(
        cls,
        ranks: Mapping[bytes, int],
        pattern: str = "gpt2",
        special_tokens: Mapping[str, int] | None = None,
    ) -> Self:
        """Build a tokenizer from each token's bytes and id, smaller ids being fused first.

        Raises:   ValueError when a byte has no id, or an id two tokens
        """
        tokenizer = cls(pattern)
        tokenizer._set_vocabulary(dict(ranks), dict(special_tokens or {}))
        return tokenizer

    @classmethod
    def from_tiktoken(
        cls, path: str | Path, pattern: str, special_tokens: Mapping[str, int] | None = None
    ) -> Self:
        """Read a rank file of tiktoken: r50k_base with pattern "gpt2", cl100k_base, o200k_base.

        Without `special_tokens`, those that OpenAI published with the pattern's vocabulary.

        Raises:   ValueError when the file is damaged or cut short
        """
        ranks, special = bpe_files.read_tiktoken(path, pattern, special_tokens)
        return cls.from_ranks(ranks, pattern, special)

    @classmethod
    def from_gpt2(cls, encoder_path: str | Path, vocab_path: str | Path) -> Self:
        """Read GPT-2's own two files, encoder.json and vocab.bpe.

        Raises:   ValueError when one is damaged or they do not belong together
        """
        ranks, special = bpe_files.read_gpt2(encoder_path, vocab_path)
        return cls.from_ranks(ranks, "gpt2", special)

    def save_tokenizers(self, path: str | Path) -> None:
        """Write the tokenizer.json that the Rust library `tokenizers` loads.

        Raises:   ValueError for a vocabulary that the library would encode with otherwise
        """
        document = bpe_files.tokenizers_document(
            self.ranks, self.merges, self.pattern, self.special_tokens
        )
        write_atomically(Path(path), bpe_files.to_json(document))

    @classmethod
    def from_tokenizers(cls, path: str | Path) -> Self:
        """Read a tokenizer.json that holds a byte-level BPE with one of the three patterns.

        Raises:   ValueError for anything that this class could not encode identically
        """
        ranks, merges, pattern, special = bpe_files.read_tokenizers(path)
        with damage_reported(path):
            tokenizer = cls.from_ranks(ranks, pattern, special)
            if tokenizer.merges != merges:
                raise NotSupported(
                    "it lists its merges in another order than its ids, or merges that no training "
                    "gives: it cannot be encoded by ranks alone; use `tokenizers` itself"
                )
            bpe_files.check_fusing(ranks, merges)
        return tokenizer

    def __repr__(self) -> str:
        return f"BPETokenizer(pattern={self.pattern!r}, vocab_size={self.vocab_size})"
