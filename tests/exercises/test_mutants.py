"""Each check refuses every small fault in its solution, except those listed with a reason.

`python -m tests.exercises.mutants NAME` shows what a check accepts.
"""

import os

import pytest

from tests.exercises.mutants import EQUIVALENT, SOLUTIONS, listed, mutants, survey

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@pytest.mark.parametrize("name", SOLUTIONS)
def test_a_check_refuses_every_mutant_of_its_solution(name, record_property):
    found, _ = survey(name)
    reasons = listed(EQUIVALENT, name)
    assert all(len(why) > 10 for why in reasons.values()), "each equivalent says why"
    fates = {}
    for mutant in found:
        fates.setdefault(mutant.key, []).append(mutant.fate)
    accepted = {key for key, fate in fates.items() if "accepted" in fate}
    record_property("mutants", [len(found), len(found) - sum(
        mutant.fate == "accepted" for mutant in found)])
    new = accepted - reasons.keys()
    assert not new, "\n".join(["the check accepts:", *(f"- {a}\n+ {b}" for a, b in new)])
    gone = [key for key in reasons if key not in fates]
    assert not gone, f"listed, but no longer a mutant: {gone}"
    refused = [key for key in reasons if key not in accepted]
    assert not refused, f"listed as accepted, but refused now, so take them out: {refused}"


def test_mutants_change_one_thing_each():
    source = ("def f(x, dim):\n    if x > 1 and dim:\n        x = max(x, key=abs) * 0.5\n"
              "        raise ValueError(1 + 2)\n    return x.sum(dim=-1)\ncheck.f(f)")
    keys = {mutant.key for mutant in mutants(source)}
    for key in (("if x > 1 and dim:", "if x >= 1 and dim:"), ("if x > 1 and dim:", "if True:"),
                ("if x > 1 and dim:", "if x > 1 or dim:"), ("if x > 1 and dim:", "if dim:"),
                ("x = max(x, key=abs) * 0.5", "x = min(x, key=abs) * 0.5"),
                ("x = max(x, key=abs) * 0.5", "x = max(x) * 0.5"),
                ("x = max(x, key=abs) * 0.5", "x = x * 0.5"),
                ("x = max(x, key=abs) * 0.5", "x = max(x, key=abs) * 0.55"),
                ("x = max(x, key=abs) * 0.5", "pass"), ("raise ValueError(1 + 2)", "pass"),
                ("return x.sum(dim=-1)", "return x.sum(dim=1)"),
                ("return x.sum(dim=-1)", "return x.sum()"), ("return x.sum(dim=-1)", "return x")):
        assert key in keys, key
    assert all(before != after for before, after in keys)
    assert not any("check" in mutant.source for mutant in mutants(source))
