"""A parity bound follows the error that was measured: about ten times as much, and no more."""

import json
from pathlib import Path

ROWS = Path(__file__).resolve().parent.parent / "book" / "results" / "parity"
ROUNDING = 1e-7  # of float32; where the error is zero here, another processor may round otherwise
BFLOAT16 = {"RMSNorm in bfloat16": 2**-7, "Muon, weights after 20 steps": 1e-4}


def test_no_bound_is_looser_than_ten_times_the_error():
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in ROWS.glob("*.json")]
    loose = {row["component"]: (row["error"], row["bound"]) for row in rows
             if row["bound"] > max(16 * row["error"], 10 * ROUNDING,
                                   BFLOAT16.get(row["component"], 0))}
    # the layers of one file share a bound; it is the worst of them that it follows
    shared = ("MultiHeadAttention, ", "attend, ", "BERT: ", "LatentAttention, ")
    assert {name: found for name, found in loose.items() if not name.startswith(shared)} == {}
    assert len(rows) > 60
