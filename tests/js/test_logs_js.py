"""The living figure of chapter 01b folds a log exactly as the package does."""

import random

from scratchbook.companions.domain_material import service_log
from scratchbook.tokenizers.domain import LogTokenizer
from tests.node import run_figure

PIECES = ["10:01:59 INFO job 7\n", "10:02:00 INFO job 8\n", "at a.b.C(D.java:10)\n", "\r\n", "\n",
          "at a.b.C(D.java:99)\n", "/srv/app/x.py", "blk_12345678", "blk_12345678 x\n", "099\n",
          "100\n", "é 1\n", "🙂 1\n", "\x1b[31mERROR\x1b[0m 5\n", "\0 5\n", "9" * 30 + "\n",
          "w1 " * 60 + "\n", "w2 " * 60 + "\n", "🙂" * 1500 + " 1\n", "a1 " * 700 + "\n", "٣\n",
          "99999999999999999999998\n", "99999999999999999999999\n", "x y\n", "a_b/c.d/e-f+g\n"]


def texts() -> list[str]:
    draw = random.Random(0)
    found = ["", service_log(400, seed=5), "again\nand\n" * 1200]
    found += ["".join(draw.choices(PIECES, k=draw.randrange(1, 40))) for _ in range(500)]
    words = [f"{draw.randrange(10**9):09d}x" for _ in range(300)]
    lines = [f"{'ab' * (n + 1)} {draw.choice(words)} = {draw.choice(words)}\n" for n in range(300)]
    return [*found, "".join(draw.choices(lines, k=900))]


def test_the_javascript_equals_the_package(tmp_path):
    trained = LogTokenizer().train(service_log(600), 1200)
    assert run_figure("logs", tmp_path, {
        "templates": trained.templates,
        "bpe": {"pattern": "cl100k",
                "alphabet": [trained.bpe.token_bytes(i)[0] for i in range(256)],
                "merges": [trained.bpe.ranks[half] for pair in trained.bpe.merges
                           for half in pair]},
        "cases": [{"text": text,
                   "steps": [step if isinstance(step, str) else list(step)
                             for step in trained.fold(text)],
                   "count": len(trained.encode_ordinary(text))} for text in texts()]})
