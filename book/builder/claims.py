"""The claims ledger: what is said elsewhere, what is measured here, and a verdict by rule.

Nobody writes a verdict. A claim in book/claims.toml names a recorded result and a number in it;
the rule compares, and a missing result gives "not measured yet" with the command that makes it.
A number with an interval that holds the bound of the claim leaves it "not settled".
"""

import json
import math
import statistics
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scratchbook.evaluation.comparing import (
    NOT_SETTLED,
    Interval,
    bound_verdict,
    mean_and_spread,
    wilson,
)

CONFIRMED, REFUTED, UNMEASURED = "confirmed", "refuted", "not measured yet"
RULES = ("value", "between", "at least", "at most")
REDUCERS = {"mean": list, "min": min, "max": max}
TOLERANCE = 1.1   # "confirmed" for a plain value: at most this factor away
FAR = 5.0         # this factor or more away is no longer "off by", it is refuted


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
    key: list[str | int | dict | list]
    command: str
    chapter: str = ""
    rows: tuple[str, ...] = ()
    remark: str = ""
    tolerance: float = TOLERANCE
    digits: int = 3
    against: tuple[str | dict, ...] = ()
    since: str = ""   # what was recorded before this day was measured otherwise

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
    return [Claim(**row | {name: tuple(row.get(name, ())) for name in ("rows", "against")})
            for row in tomllib.loads(text)["claim"]]


def measured(root: Path, claim: Claim) -> Interval | float | None:
    """The number that the claim's result holds, or None when it was never recorded.

    The key is a path of steps: a string enters a dictionary, a whole number a list, a table such as
    `{who = "ours"}` finds the row of a list that has these values, "min" and "max" reduce a list,
    "mean" takes its runs, with their interval, and `{each = "speed"}` that number of every run. A
    list of names pools the tests of these names. `against` is another path in the same result: the
    number is then divided by that one, run by run. A share or value whose interval is recorded
    beside it keeps it.
    """
    path = root / "book" / "results" / f"{claim.result}.json"
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["date"] < claim.since:
        return None
    value, other = _find(content["numbers"], claim.key), None
    if claim.against and value is not None:
        other = _find(content["numbers"], claim.against)
        if isinstance(value, list) and isinstance(other, list) and len(value) == len(other):
            value = [one / two for one, two in zip(value, other, strict=True)]
        else:
            value = _middle(value) / _middle(other) if other else None
    if isinstance(value, list) and len(value) > 2:
        mean, half = mean_and_spread(value)
        return Interval(mean, mean - half, mean + half)
    return statistics.fmean(value) if isinstance(value, list) else value


def _middle(found: Interval | list | float) -> float:
    return statistics.fmean(found) if isinstance(found, list) else _point(found)


def _point(found: Interval | float) -> float:
    return found.value if isinstance(found, Interval) else found


def _find(value: object, key: Sequence) -> Interval | list[float] | float | None:
    for step in key:
        around, value = value, _enter(value, step)
        if step in ("share", "value") and isinstance(around, dict) and {"low", "high"} <= {*around}:
            value = Interval(around[step], around["low"], around["high"])
    if isinstance(value, Interval | list):
        return value
    return float(value) if isinstance(value, int | float) else None


def _enter(value: object, step: str | int | dict | list) -> object:
    if isinstance(value, list) and isinstance(step, dict) and [*step] == ["each"]:
        every = [run.get(step["each"]) for run in value if isinstance(run, dict)]
        return every if len(every) == len(value) and None not in every else None
    if isinstance(value, list) and isinstance(step, dict):
        rows = [row for row in value if all(row.get(name) == step[name] for name in step)]
        return rows[0] if rows else None
    if isinstance(value, list) and isinstance(step, int):
        return value[step] if step < len(value) else None
    if isinstance(value, list) and step in REDUCERS:
        return REDUCERS[step](value)
    if isinstance(value, dict) and isinstance(step, list):
        tests = [value[name] for name in step]
        return wilson(*(sum(test[part] for test in tests) for part in ("passed", "total")))
    return value.get(step) if isinstance(value, dict) else None


def verdict(claim: Claim, found: Interval | float | None) -> str:
    """The rule, in full: confirmed, off by a factor, refuted, not settled, or not measured yet."""
    if found is None:
        return UNMEASURED
    low, high = _range(claim)
    if isinstance(found, Interval) and bound_verdict(found, low, high) == NOT_SETTLED:
        return NOT_SETTLED
    value = _point(found)
    if low <= value <= high:
        return CONFIRMED
    if claim.rule in ("at least", "at most"):
        return REFUTED
    nearest = min(claim.stated, key=lambda stated: abs(stated - value))
    if value <= 0 or nearest <= 0:
        return REFUTED
    factor = max(value / nearest, nearest / value)
    if factor >= FAR:
        return f"{REFUTED}: a factor of {factor:.0f}"
    return f"off by {factor - 1:.0%}" if factor < 2 else f"off by a factor of {factor:.1f}"


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
    from book.builder.routes import markdown_table

    rows = []
    for claim in read_claims(root):
        value = measured(root, claim)
        shown = f"`{claim.command}`"
        if value is not None:
            shown = f"{_shown(value, claim.digits)} {claim.unit}"
        said = f"{claim.said} ({claim.source}).<br><small>{_remark(root, claim)}</small>"
        rows.append([said, _stated(claim), shown,
                     f"**{verdict(claim, value)}**{_stale(root, claim)}"])
    return markdown_table(["What is said", "Stated", "Measured here", "Verdict"], rows)


def tally(root: Path) -> str:
    """One sentence that counts the verdicts, and how many rest on stale results."""
    claims = read_claims(root)
    found = [verdict(claim, measured(root, claim)) for claim in claims]
    kinds = [v.split(" by ")[0].split(":")[0] for v in found]
    parts = [f"{kinds.count(kind)} {kind}"
             for kind in (CONFIRMED, "off", REFUTED, NOT_SETTLED, UNMEASURED) if kind in kinds]
    stale = sum(bool(_stale(root, claim)) for claim in claims)
    return f"{len(found)} claims: {', '.join(parts)}" + (
        f"; {stale} of these verdicts rest on stale results." if stale else ".")


def _shown(found: Interval | float, digits: int) -> str:
    if isinstance(found, Interval) and found.low < found.high:
        return "{} ({} to {})".format(*(number(each, digits) for each in found))
    return number(_point(found), digits)


def number(value: float, digits: int = 3) -> str:
    """A measured number with so many significant digits: 1,280,000 or 0.0123."""
    if value == round(value) and abs(value) < 10**digits:
        return f"{value:,.0f}"
    power = math.floor(math.log10(abs(value)))
    places = digits - 1 - power
    return f"{round(value, places):,.{max(0, places)}f}"


def _stated(claim: Claim) -> str:
    numbers = " to ".join(f"{value:,.6g}" for value in claim.stated)
    prefix = f"{claim.rule} " if claim.rule.startswith("at") else ""
    return f"{prefix}{numbers} {claim.unit}{_tolerated(claim)}"


def _tolerated(claim: Claim) -> str:
    """How far from a stated value still counts as confirmed, where that is not the usual."""
    if claim.rule != "value" or claim.tolerance == TOLERANCE:
        return ""
    if claim.tolerance >= 2:
        return f", within a factor of {claim.tolerance:g}"
    return f", within {100 * (claim.tolerance - 1):.3g} %"


def _remark(root: Path, claim: Claim) -> str:
    if claim.chapter and (root / "chapters" / f"{claim.chapter}.ipynb").is_file():
        link = f"[chapter {claim.chapter.split('_')[0]}](../chapters/{claim.chapter}.ipynb)"
        return f"{claim.remark} See {link}.".strip()
    return claim.remark


def _stale(root: Path, claim: Claim) -> str:
    """A mark for a result whose code has changed since it was recorded."""
    from scratchbook.teaching.results import is_stale

    path = root / "book" / "results" / f"{claim.result}.json"
    if not path.is_file():
        return ""
    content = json.loads(path.read_text(encoding="utf-8"))
    stale = is_stale(content["name"], content["command"], content["fingerprint"])
    return ' <span class="sb-stale">stale</span>' if stale else ""
