"""The claims ledger: what is said elsewhere, what is measured here, and a verdict by rule.

Nobody writes a verdict. A claim in book/claims.toml names a recorded result and a number in it;
the rule compares, and a missing result gives "not measured yet" with the command that makes it.
"""

import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

CONFIRMED, REFUTED, UNMEASURED = "confirmed", "refuted", "not measured yet"
RULES = ("value", "between", "at least", "at most")
TOLERANCE = 1.1   # "confirmed" for a plain value: at most this factor away
FAR = 10.0        # a factor of ten or more away is no longer "off by", it is refuted


@dataclass(frozen=True)
class Claim:
    """One sentence found elsewhere, and where its measurement lies."""

    id: str
    said: str
    source: str
    rule: str
    stated: list[float]
    unit: str
    result: str
    key: str
    command: str
    chapter: str = ""
    rows: tuple[str, ...] = ()
    remark: str = ""
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        sizes = {"between": 2}
        if self.rule not in RULES or len(self.stated) != sizes.get(self.rule, 1):
            raise ValueError(f"claim {self.id!r}: rule {self.rule!r} with stated={self.stated}; "
                             f"rules are {', '.join(RULES)}, 'between' takes two numbers")


def read_claims(root: Path) -> list[Claim]:
    """All claims of book/claims.toml.

    Raises:   ValueError for an unknown rule or the wrong count of stated numbers
    """
    text = (root / "book" / "claims.toml").read_text(encoding="utf-8")
    return [Claim(**row | {"rows": tuple(row.get("rows", ()))})
            for row in tomllib.loads(text)["claim"]]


def measured(root: Path, claim: Claim) -> float | None:
    """The number that the claim's result holds, or None when it was never recorded."""
    path = root / "book" / "results" / f"{claim.result}.json"
    if not path.is_file():
        return None
    value = json.loads(path.read_text(encoding="utf-8"))["numbers"]
    for step in claim.key.split("."):
        if not isinstance(value, dict) or step not in value:
            return None
        value = value[step]
    return float(value)


def verdict(claim: Claim, value: float | None) -> str:
    """The rule, in full: confirmed, off by a factor, refuted, or not measured yet."""
    if value is None:
        return UNMEASURED
    low, high = _range(claim)
    if low <= value <= high:
        return CONFIRMED
    if claim.rule in ("at least", "at most"):
        return REFUTED
    nearest = min(claim.stated, key=lambda stated: abs(stated - value))
    if value <= 0 or nearest <= 0:
        return REFUTED
    factor = max(value / nearest, nearest / value)
    return REFUTED if factor >= FAR else f"off by a factor of {factor:.1f}"


def _range(claim: Claim) -> tuple[float, float]:
    first = claim.stated[0]
    return {
        "value": (first / claim.tolerance, first * claim.tolerance),
        "between": (first, claim.stated[-1]),
        "at least": (first, math.inf),
        "at most": (-math.inf, first),
    }[claim.rule]


def ledger(root: Path) -> str:
    """Every claim as a row of a Markdown table, the verdict last."""
    from scratchbook.publishing.routes import markdown_table

    rows = []
    for claim in read_claims(root):
        value = measured(root, claim)
        shown = f"{number(value)} {claim.unit}" if value is not None else f"`{claim.command}`"
        rows.append([f"{claim.said} ({claim.source})", _stated(claim), shown,
                     f"**{verdict(claim, value)}**{_stale(root, claim)}", _remark(root, claim)])
    return markdown_table(["What is said", "Stated", "Measured here", "Verdict", "Remark"], rows)


def tally(root: Path) -> str:
    """One sentence that counts the verdicts."""
    found = [verdict(claim, measured(root, claim)) for claim in read_claims(root)]
    kinds = ["off by a factor" if v.startswith("off") else v for v in found]
    parts = [f"{kinds.count(kind)} {kind}" for kind in
             (CONFIRMED, "off by a factor", REFUTED, UNMEASURED) if kind in kinds]
    return f"{len(found)} claims: {', '.join(parts)}."


def number(value: float) -> str:
    """A measured number with three significant digits: 1,280,000 or 0.0123."""
    if value == int(value) and abs(value) < 1000:
        return f"{value:.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{round(value, 2 - math.floor(math.log10(abs(value)))):,.{digits}f}"


def _stated(claim: Claim) -> str:
    numbers = " to ".join(number(value) for value in claim.stated)
    prefix = f"{claim.rule} " if claim.rule.startswith("at") else ""
    return f"{prefix}{numbers} {claim.unit}"


def _remark(root: Path, claim: Claim) -> str:
    if claim.chapter and (root / "chapters" / f"{claim.chapter}.ipynb").is_file():
        link = f"[chapter {claim.chapter.split('_')[0]}](../chapters/{claim.chapter}.ipynb)"
        return f"{claim.remark} See {link}.".strip()
    return claim.remark


def _stale(root: Path, claim: Claim) -> str:
    """A mark for a result whose code has changed since it was recorded."""
    from scratchbook.teaching.results import fingerprint

    path = root / "book" / "results" / f"{claim.result}.json"
    if not path.is_file():
        return ""
    content = json.loads(path.read_text(encoding="utf-8"))
    fresh = fingerprint(content["depends"]) == content["fingerprint"]
    return "" if fresh else ' <span class="sb-stale">stale</span>'
