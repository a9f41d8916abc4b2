"""The materials of chapter 06b's experiments: a small folder, planted copies, heaps of texts.

Chapter:  chapters/06b_data_and_curriculum.ipynb
"""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scratchbook.companions.curricula import InOrder, TokenDropout, difficulty, paraphrase
from scratchbook.companions.small_training import byte_ids
from scratchbook.data.batches import Batches
from scratchbook.data.dedupe import MinHash, deduplicate
from scratchbook.data.documents import Document
from scratchbook.data.held_out import find_leaks, split_documents

SMALL_TREE = {
    "wiki/cats.md": "---\ntags: [pets]\nupdated: today\n---\n# Cats\nThey purr.\n",
    "shop/main.go": "// Package main serves.\n/*\n * Prices are\n * in cents.\n */\n"
                    'var home = "https://example.org" // the front page\n',
    "shop/List.vue": "<template>\n<!-- don't sort --><p>it's // here</p>\n</template>\n"
                     "<script>\n// loads the list\nlet a = 'http://x'\n</script>\n",
    "shop/cart.st": "total\n  \"Answer the sum.\" ^ items inject: 0 into: [:a :b | a + b]\n",
    "books/alice.txt": "Project Gutenberg's Alice\n\n*** START OF THIS PROJECT GUTENBERG EBOOK "
                       "ALICE ***\n\nProduced by volunteers\n\nAlice was tired.\n\n"
                       "End of Project Gutenberg's Alice\nYou may copy it, give it away ...\n",
    "books/cover.txt": "\0\1\2",
}


def write_tree(files: Mapping[str, str]) -> Path:
    """Write files into a new temporary folder."""
    folder = Path(tempfile.mkdtemp())
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    return folder


def planted_copies(count: int, seed: int, length: int = 300) -> list[str]:
    """A text of made-up words, and copies of it in which 0, 1, 2, ... words are exchanged."""
    chosen = random.Random(seed)
    base = [f"w{chosen.randrange(10**6)}" for _ in range(length)]
    texts = [" ".join(base)]
    for changes in range(count):
        words = list(base)
        for place in chosen.sample(range(length), changes):
            words[place] = f"new{chosen.randrange(10**6)}"
        texts.append(" ".join(words))
    return texts


def share_that_meets(similarity: float, rows: int, seed: int, trials: int = 300) -> float:
    """How often two sets of 200 numbers of a given similarity agree in a whole band."""
    rng, hits, both = np.random.default_rng(seed), 0, round(200 * similarity)
    for trial in range(trials):
        pool = rng.integers(0, 2**32, 200, dtype=np.uint32)
        cut, minhash = both + (200 - both) // 2, MinHash(128, trial)
        first, second = pool[:cut], np.concatenate([pool[:both], pool[cut:]])
        equal = minhash.signature(first) == minhash.signature(second)
        hits += bool(equal.reshape(-1, rows).all(axis=1).any())
    return hits / trials


def paragraphs_of(documents: Sequence[Document]) -> list[Document]:
    """Every paragraph of twenty words or more as a document of its own."""
    return [Document(f"{d.name}:{i}", part, d.project) for d in documents
            for i, part in enumerate(d.text.split("\n\n")) if len(part.split()) >= 20]


def leaked_share(documents: Sequence[Document], by: str, seed: int) -> float:
    """Split off a tenth; the share of its runs of 13 words that stand in the rest as well."""
    training, held = split_documents(documents, 0.1, by, seed)
    total = sum(max(1, len(re.findall(r"\w+", d.text)) - 12) for d in held)
    return sum(leak.shared for leak in find_leaks(training, held)) / total


def twin(text: str, seed: int, every: int = 40) -> str:
    """A near copy: one word in `every`, spread evenly, is exchanged for another one of the text."""
    chosen, words = random.Random(seed), text.split(" ")
    if every == 40:
        places = chosen.sample(range(len(words)), max(1, len(words) // every))
    else:
        places = range(chosen.randrange(min(every, len(words))), len(words), every)
    for place in places:
        words[place] = chosen.choice(words)
    return " ".join(words)


def reworded(texts: Sequence[str], seed: int) -> float:
    """The share of words that `orders` changes in the texts whose phrases are reworded."""
    pairs = [(text.split(), paraphrase(text, 0.5, seed).split()) for text in texts]
    changed = sum(sum(a != b for a, b in zip(old, new, strict=False)) if len(old) == len(new)
                  else abs(len(old) - len(new)) + 1 for old, new in pairs)
    return changed / sum(len(old) for old, _ in pairs)


def heaps(texts: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Draw four heaps without a common text: 15 held out, 15 to add, 15 new, 45 to train on."""
    drawn = random.Random(seed).sample(list(texts), 90)
    return {"held out": drawn[:15], "added": drawn[15:30], "new": drawn[30:45], "base": drawn[45:]}


def _originals_and_twins(texts: Sequence[str], seed: int, every: int
                         ) -> tuple[list[Document], list[Document]]:
    held = heaps(texts, seed)["held out"]
    found = {"original": held, "twin": [twin(text, seed, every) for text in held]}
    return tuple([Document(f"{kind} {number}", text, kind) for number, text in enumerate(these)]
                 for kind, these in found.items())


def similar_twins(texts: Sequence[str], seed: int, threshold: float, every: int = 40) -> int:
    """How many twins of what is held out `deduplicate` throws away."""
    originals, twins = _originals_and_twins(texts, seed, every)
    kept, _, _ = deduplicate([*originals, *twins], threshold)
    return len(twins) - sum(document.project == "twin" for document in kept)


def audited_twins(texts: Sequence[str], seed: int, every: int = 40) -> int:
    """How many texts held out share a run of 13 words with some twin in training."""
    originals, twins = _originals_and_twins(texts, seed, every)
    return len(find_leaks(twins, originals))


def as_ids(texts: Sequence[str]) -> Tensor:
    """The bytes of texts, an empty line between two."""
    return byte_ids("\n\n".join(texts))


def orders(texts: Sequence[str], tokens: int, seed: int) -> dict[str, Batches]:
    """The same texts, drawn for `tokens` bytes, in three orders and two dresses.

    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    chosen = [byte_ids(p + "\n\n") for p in random.Random(seed).sample(list(texts), len(texts))]
    held, rest = torch.cat(chosen[:60]), chosen[60:]
    counts = torch.tensor([len(ids) for ids in rest]).cumsum(0)
    rest = rest[: int((counts <= tokens).sum()) + 1]
    in_order = partial(InOrder, validation_ids=held, seq_len=64)
    by_difficulty = sorted(zip(difficulty(rest), rest, strict=True), key=lambda pair: pair[0])
    other_words = [byte_ids(paraphrase(bytes(ids.tolist()).decode(), 0.5, seed))
                   for ids in rest + rest[:20]]  # other words may be shorter
    return {"random": in_order(rest), "short to long": in_order(sorted(rest, key=len)),
            "easy to hard": in_order([ids for _, ids in by_difficulty]),
            "letters blanked": TokenDropout(in_order(rest), 0.1, seed=seed),
            "phrases reworded": in_order(other_words)}
