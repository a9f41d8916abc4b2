"""The living figure of chapter 01 cuts text exactly as the package does."""

from __future__ import annotations

import random
import unicodedata

from scratchbook.data import python_manual
from scratchbook.tokenizers import BPETokenizer
from tests.node import run_figure

PATTERNS = ("gpt2", "cl100k", "o200k")
# What a splitter gets wrong first: endings in both cases and with the long s, white space that
# JavaScript and Rust disagree on, digits beyond ASCII, marks, joined emoji, flags.
SEEDS = [
    "I'LL we've it's IT'S it'\u017f don\u2019t 'S's", "a\u0085b\u0085\u0085 c", "x\ufeff \ufeffy",
    "\x1c \x1d\x1e\x1f a", "\u180e \u200b\u00a0\u2003a", "  \n \r\n\t  x", "1234567 ١٢٣٤ ⅷⅸ x²",
    "e\u0301\u0301 नमस्ते", "👩\u200d👩\u200d👧 👍🏽 🇬🇷",
    "foo();\n\n\nbar //\n/x", "CamelCaseHTTPServer's",
    "   ", "\n", "ǅ ǆ ªº ʰ", "a" * 300, "Straße\u2028x\u2029 y\u3000z",
]


def assigned(point: int) -> bool:
    # what a newer Unicode added is not yet a letter in every regex engine, and U+0295, lower case
    # today, will have no case in Unicode 18
    return unicodedata.category(chr(point)) not in ("Cn", "Cs") and point != 0x295


def fuzz(count: int, seed: int = 0) -> list[str]:
    """Texts over every plane, mixed with runs of what the patterns care about."""
    rng = random.Random(seed)
    everywhere = [point for point in range(0x110000) if assigned(point)]
    planes = {plane: [p for p in everywhere if p >> 16 == plane] for plane in range(17)}
    planes = [points for points in planes.values() if points]
    letters = "abcXYZ'sStT \n\r\t.,!/019éßяΩ中あ🙂\u0301\u200d\u00a0\u0085\ufeff\u017f"

    def text() -> str:
        if rng.random() < 0.5:
            return "".join(rng.choices(letters, k=rng.randrange(1, 30)))
        planes_here = rng.choices(planes, k=rng.randrange(1, 20))
        return "".join(chr(rng.choice(points)) for points in planes_here)

    return SEEDS + [text() for _ in range(count - len(SEEDS))]


def model(pattern: str) -> BPETokenizer:
    texts = [python_manual()[:150_000], *SEEDS * 3]
    return BPETokenizer(pattern=pattern).train(texts, vocab_size=1200)


def test_the_javascript_equals_the_package(tmp_path):
    models = {pattern: model(pattern) for pattern in PATTERNS}
    cases = [{"text": text,
              "splits": {name: models[name].split(text) for name in PATTERNS},
              "ids": {name: models[name].encode(text) for name in PATTERNS}}
             for text in fuzz(4000)]
    data = {name: {"pattern": name,
                   "alphabet": [trained.token_bytes(i)[0] for i in range(256)],
                   "merges": [trained.ranks[half] for pair in trained.merges for half in pair]}
            for name, trained in models.items()}
    assert run_figure("tokens", tmp_path, {"models": data, "cases": cases})
