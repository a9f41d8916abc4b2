"""Generated tables say what the recorded results say, twice the same, and mark what is stale."""

import importlib
import json
import re
from pathlib import Path

import pytest

from book.builder import claims, pages, routes
from book.builder.build import stale
from book.builder.claims import Claim, verdict
from tests.notebook_tools import code_cells, load, source_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", sorted(pages.GENERATORS))
def test_a_page_regenerates_identically(name: str):
    assert pages.GENERATORS[name](ROOT) == pages.GENERATORS[name](ROOT)


def test_an_unknown_mark_lists_the_known_ones():
    with pytest.raises(ValueError, match="there are: .*claims"):
        pages.fill("<!-- generated: nonsense -->", ROOT, "")


def weight(names: list[str]) -> int:
    return sum(len(pages._source(name).encode()) for name in names)


def test_what_is_too_long_for_one_page_of_reference_has_several(monkeypatch):
    one = pages.modules(ROOT / "scratchbook")
    assert max(map(weight, one.values())) < 1.1 * pages.PAGE_BYTES
    assert list(one["tokenizers"])[0] == "scratchbook.tokenizers" and "tokenizers-2" not in one
    monkeypatch.setattr(pages, "PAGE_BYTES", int(0.3 * weight(one["tokenizers"])))
    cut = {page: names for page, names in pages.modules(ROOT / "scratchbook").items()
           if page.startswith("tokenizers")}
    assert list(cut) == ["tokenizers", "tokenizers-2", "tokenizers-3", "tokenizers-4"]
    assert [name for names in cut.values() for name in names] == one["tokenizers"]
    assert max(map(weight, cut.values())) < 2 * min(map(weight, cut.values()))
    text, index = pages.api_pages(ROOT), pages.api_index(ROOT)
    assert text["book/api/tokenizers.md"].startswith("# scratchbook.tokenizers\n")
    for page, names in list(cut.items())[1:]:
        begins = names[0].split(".")[2]
        assert text[f"book/api/{page}.md"].startswith(f"# scratchbook.tokenizers, from {begins} on")
        assert f"[`scratchbook.tokenizers`](api/{page}.md), from {begins} on | " in index
    assert all(f"automodule:: {name}\n" in text[f"book/api/{page}.md"]
               for page, names in cut.items() for name in names)


def fake(tmp_path: Path, numbers: dict, fingerprint: str = "x") -> Path:
    folder = tmp_path / "book" / "results"
    folder.mkdir(parents=True)
    machine = {"system": "S", "device": "cpu", "threads": 1, "versions": {}}
    content = {"name": "demo", "numbers": numbers, "date": "2026-01-02",
               "fingerprint": fingerprint, "command": "make demo", "environment": machine}
    (folder / "demo.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def test_numbers_in_prose_come_from_results(tmp_path: Path):
    root = fake(tmp_path, {"a": {"b": 0.000123}, "zero": 0.0, "count": 12345})
    text = ("<!-- number: demo a.b .1e -->, <!-- number: demo zero .0e -->, "
            "<!-- number: demo count , -->")
    assert pages.fill(text, root, "") == "1.2 × 10<sup>-4</sup>, 0, 12,345"


def test_a_missing_number_is_an_error(tmp_path: Path):
    root = fake(tmp_path, {"a": 1})
    with pytest.raises(ValueError, match="'b' is missing"):
        pages.number_of(root, "demo b")
    with pytest.raises(ValueError, match="not recorded"):
        pages.number_of(root, "other a")


def test_a_result_whose_code_changed_is_marked(tmp_path: Path):
    from scratchbook.teaching.dependence import fingerprint

    entry = json.loads((ROOT / "book" / "results" / "budgets.json").read_text(encoding="utf-8"))
    today = fingerprint("budgets", entry["command"], ROOT)
    for folder, stamp in (("current", today), ("stale", "something else")):
        place = tmp_path / folder / "book" / "results"
        place.mkdir(parents=True)
        (place / "budgets.json").write_text(json.dumps(entry | {"fingerprint": stamp}),
                                            encoding="utf-8")
        assert folder in pages.results_table(tmp_path / folder)
        assert stale(tmp_path / folder) == [
            "every recorded result is current" if folder == "current" else
            "stale: budgets; renew by: python -m book.builder.budgets"]


def claim(rule: str, *stated: float, **more) -> Claim:
    return Claim("c", "it is so", "folklore", rule, list(stated), "u", "demo", ["a", "b"],
                 "make demo", **more)


@pytest.mark.parametrize(("given", "value", "expected"), [
    (claim("value", 100), 105, "confirmed"),
    (claim("value", 100), 150, "off by 50%"),
    (claim("value", 100), 50, "off by a factor of 2.0"),
    (claim("value", 100), 1000, "refuted: a factor of 10"),
    (claim("value", 100), 9, "refuted: a factor of 11"),
    (claim("value", 100, tolerance=2.0), 190, "confirmed"),
    (claim("between", 3, 4), 3.5, "confirmed"),
    (claim("between", 3, 4), 6, "off by 50%"),
    (claim("at least", 10), 10, "confirmed"),
    (claim("at least", 10), 9.9, "refuted"),
    (claim("at most", 10), 11, "refuted"),
    (claim("value", 100), None, "not measured yet"),
])
def test_the_rule_of_verdicts(given: Claim, value: float | None, expected: str):
    assert verdict(given, value) == expected


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="rules are value"):
        claim("feels right", 1)
    with pytest.raises(ValueError, match="two numbers"):
        claim("between", 1)


def test_a_claim_reads_its_number(tmp_path: Path):
    root = fake(tmp_path, {"a": {"b": 7}})
    assert claims.measured(root, claim("value", 1)) == 7
    assert claims.measured(tmp_path / "nowhere", claim("value", 1)) is None


@pytest.mark.parametrize(("key", "value"), [
    (["rows", {"who": "us", "task": "t, u"}, "speed"], 3),
    (["rows", {"who": "them"}, "speed"], None),
    (["pair", "mean"], 2), (["seeds", "max"], 4), (["seeds", "nonsense"], None),
    (["seeds", 1], 2), (["seeds", 9], None),
    (["rows", "speed"], None), (["rows", {"each": "speed"}], 2), (["rows", {"each": "x"}], None),
])
def test_a_key_finds_its_way(tmp_path: Path, key: list, value: float | None):
    rows = [{"who": "us", "task": "x", "speed": 1}, {"who": "us", "task": "t, u", "speed": 3}]
    root = fake(tmp_path, {"rows": rows, "seeds": [0, 2, 4], "pair": [1, 3]})
    given = Claim("c", "so", "folklore", "value", [1], "u", "demo", key, "make demo")
    assert claims.measured(root, given) == value


def test_a_claim_may_be_a_ratio(tmp_path: Path):
    root = fake(tmp_path, {"ours": {"ms": [3, 5]}, "theirs": {"ms": [8]}, "none": 0})
    given = {"id": "c", "said": "so", "source": "folklore", "rule": "value", "stated": [1],
             "unit": "u", "result": "demo", "command": "make demo"}
    for key, against, value in ((["ours", "ms", "mean"], ("theirs", "ms", "max"), 0.5),
                                (["ours", "ms", "mean"], ("others", "ms"), None),
                                (["ours", "ms", "mean"], ("none",), None),
                                (["others"], ("theirs", "ms", "max"), None)):
        assert claims.measured(root, Claim(**given, key=key, against=against)) == value


RUNS = {"a": [1.0, 1.1, 1.2], "b": [1.0, 1.0, 1.0],
        "share": {"value": 0.9, "low": 0.8, "high": 0.97},
        "tests": {"easy": {"passed": 32, "total": 40}, "hard": {"passed": 0, "total": 40}}}


@pytest.mark.parametrize(("key", "against", "rule", "stated", "expected"), [
    (["a", "mean"], (), "at least", 0.8, "confirmed"),
    (["a", "mean"], (), "at least", 1.0, "not settled"),
    (["a", "mean"], (), "at most", 1.1, "not settled"),
    (["a", "mean"], (), "at least", 2.0, "refuted"),
    (["a", "max"], (), "at most", 1.2, "confirmed"),
    (["a", "mean"], ("b", "mean"), "at least", 1.05, "not settled"),
    (["share", "value"], (), "at least", 0.85, "not settled"),
    (["share", "value"], (), "at least", 0.75, "confirmed"),
    (["tests", ["easy", "hard"]], (), "at most", 0.25, "refuted"),
    (["tests", ["easy", "hard"]], (), "at least", 0.45, "not settled"),
    (["tests", ["hard"]], (), "at least", 0.3, "refuted")])
def test_a_bound_inside_the_interval_is_not_settled(tmp_path, key, against, rule, stated, expected):
    given = Claim("c", "so", "folklore", rule, [stated], "u", "demo", key, "make", against=against)
    assert verdict(given, claims.measured(fake(tmp_path, RUNS), given)) == expected


def test_what_was_measured_otherwise_before_is_not_measured_yet(tmp_path: Path):
    root = fake(tmp_path, {"a": {"b": 7}})
    assert claims.measured(root, claim("value", 1, since="2026-01-01")) == 7
    assert claims.measured(root, claim("value", 1, since="2026-01-03")) is None


def test_claims_about_several_tests_are_judged_on_all_of_them():
    keys = {c.id: c.key for c in claims.read_claims(ROOT)}
    assert keys["generation-tests"][-1] == ["functions", "repeats", "sequences", "words"]
    chapter = load(ROOT / "chapters/06c_evaluation_and_sampling.ipynb")
    source = "\n".join(map(source_of, code_cells(chapter)))
    pooled = re.search(r'"generation above 30 %": \(\s*(\[.*?\])', source)[1]
    assert json.loads(pooled) == keys["generation-tests"][-1]  # one verdict, not two
    assert len(keys["spaces-lost"][-1]) == 4


def test_numbers_in_lists_are_found_in_the_recorded_results():
    counts = [c for c in claims.read_claims(ROOT) if any(isinstance(step, int) for step in c.key)]
    assert len(counts) >= 2
    for each in counts:
        assert claims.measured(ROOT, each) is not None, each.id


@pytest.mark.parametrize(("tolerance", "told"), [
    (1.1, "4 u"), (1.15, "4 u, within 15 %"), (1.001, "4 u, within 0.1 %"),
    (2.0, "4 u, within a factor of 2")])
def test_a_row_tells_its_tolerance(monkeypatch, tolerance: float, told: str):
    given = claim("value", 4, tolerance=tolerance)
    monkeypatch.setattr(claims, "read_claims", lambda root: [given])
    assert f"| {told} |" in claims.ledger(ROOT)


def test_the_tally_counts_what_is_stale(monkeypatch):
    monkeypatch.setattr("scratchbook.teaching.results.is_stale", lambda name, *_: name == "claims")
    on_claims = sum(c.result == "claims" for c in claims.read_claims(ROOT))
    assert claims.tally(ROOT).endswith(f"; {on_claims} of these verdicts rest on stale results.")
    monkeypatch.setattr("scratchbook.teaching.results.is_stale", lambda *_: False)
    assert "stale" not in claims.tally(ROOT)


def test_every_claim_is_answered_or_says_how():
    text = claims.ledger(ROOT)
    found = claims.read_claims(ROOT)
    assert len({c.id for c in found}) == len(found)
    for c in found:
        assert c.said in text
        if claims.measured(ROOT, c) is None:
            assert f"`{c.command}`" in text


@pytest.mark.parametrize(("value", "shown"), [
    (1_280_123, "1,280,000"), (0.01234, "0.0123"), (12, "12"), (3.456, "3.46"), (999.9, "1,000"),
    (0, "0")])
def test_three_digits(value: float, shown: str):
    assert claims.number(value) == shown


def test_parity_rows_are_within_what_they_allow():
    for path in (ROOT / "book" / "results" / "parity").glob("*.json"):
        row = json.loads(path.read_text(encoding="utf-8"))
        assert row["error"] <= row["bound"], path.name
        assert (ROOT / "tests" / row["test"].split("::")[0]).is_file(), path.name


def test_every_download_of_the_registry_is_on_the_page():
    import tomllib

    registry = tomllib.loads((ROOT / "data/registry.toml").read_text(encoding="utf-8"))
    table = pages.data_table(ROOT)
    assert all(f"`{name}`" in table for name in registry)
    assert all(entry["licence"] in table for entry in registry.values())


# --- routes --------------------------------------------------------------------------------------

def cell_hours(table: str) -> list[float]:
    """The last column of a Markdown table, the total last."""
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return [float(row[-1].strip("* ")) for row in rows]


@pytest.mark.parametrize("name", ["weeks", "phases", "mac"])
def test_hours_of_a_route_add_up(name: str):
    *parts, total = cell_hours(pages.GENERATORS[name](ROOT))
    assert sum(parts) == pytest.approx(total)


def test_the_course_adds_up():
    known = routes.chapters(ROOT)
    rows = [line.strip("| ").split(" | ") for line in routes.parts_table(ROOT).splitlines()[2:]]
    for column, wanted in ((2, [p.reading for p in known.values()]),
                           (3, [p.exercises for p in known.values()])):
        shown = [float(row[column].strip("* ")) for row in rows]
        assert shown[:-1] == wanted and shown[-1] == pytest.approx(sum(wanted))


def test_routes_name_chapters_of_the_plan_in_order():
    plan, known = routes.read_plan(ROOT), routes.chapters(ROOT)
    order = list(known)
    for approach in plan["approach"]:
        places = [order.index(step) for step in approach["steps"]]
        assert places == sorted(places), approach["title"]
    assert len(plan["approach"]) == 5
    for kind in ("week", "phase", "mac"):
        steps = [step for row in plan[kind] for step in row["steps"]]
        assert set(steps) <= set(order) and len(steps) == len(set(steps)), kind


@pytest.mark.parametrize("kind", ["week", "phase"])
def test_a_timetable_has_what_a_chapter_needs_before_it(kind: str):
    plan, known, done = routes.read_plan(ROOT), routes.chapters(ROOT), set()
    for row in plan[kind]:
        done |= set(row["steps"])
        assert set(routes.with_needs(row["steps"], known)) <= done, row


def test_a_route_is_completed_by_what_its_chapters_need():
    known = routes.chapters(ROOT)
    assert {"02", "03", "04", "05", "05b"} < set(routes.with_needs(["06"], known))
    assert routes.with_needs(["02b", "02"], known, done=("00", "02")) == ["02b"]
    with pytest.raises(ValueError, match="does not plan"):
        routes.with_needs(["99"], known)
    for line in routes.approaches_table(ROOT).splitlines()[2:]:
        steps = line.strip("| ").split(" | ")[2].split("<br>")
        shown = [re.match(r"\[?(\d\d\w?) ", step)[1] for step in steps]
        assert shown == routes.with_needs(shown, known), line


def test_exercise_hours_are_the_minutes_of_the_headings():
    assert routes.chapters(ROOT)["00"].exercises == round((15 + 10 + 10) / 60, 1)


def test_twelve_weeks_and_four_phases():
    plan = routes.read_plan(ROOT)
    assert [row["weeks"] for row in plan["week"]] == [str(n) for n in range(1, 13)]
    assert [row["weeks"] for row in plan["phase"]] == [[2, 4], [3, 6], [4, 8], [4, 8]]
    covered = {step for row in plan["phase"] for step in row["steps"]}
    assert covered == set(routes.chapters(ROOT)), "the four phases are the whole course"


def test_the_budget_adds_up():
    table = routes.mac_budget(ROOT)
    prices = [int(n) for n in re.findall(r"\| (\d+) \|", table)]
    first, later = re.search(r"\*\*(\d+), (\d+)\*\*", table).groups()
    assert int(first) == sum(prices) and int(later) == prices[-1]


def test_planned_chapters_are_marked_and_written_ones_linked():
    table = routes.parts_table(ROOT)
    for planned in routes.chapters(ROOT).values():
        line = next(row for row in table.splitlines() if f" {planned.number} " in row
                    or f"[{planned.number} " in row)
        assert ("coming" in line) != planned.exists
        assert (f"chapters/{planned.file}.ipynb" in line) == planned.exists


# --- glossary and bibliography --------------------------------------------------------------

GLOSSARY = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"{py:obj}`(scratchbook[\w.]+)`", GLOSSARY))))
def test_terms_marked_impl_name_something_importable(name: str):
    home, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(home), attribute), name


def test_every_impl_mark_is_followed_by_an_object():
    assert len(re.findall(r"\*impl:\*", GLOSSARY)) == len(
        re.findall(r"\*impl:\*\s+{py:obj}`scratchbook[\w.]+`", GLOSSARY))


def test_terms_are_sorted_and_unique():
    body = GLOSSARY.split("```{glossary}\n")[1].split("```")[0]
    terms = [line for line in body.splitlines() if line and not line.startswith(" ")]
    assert terms == sorted(terms, key=str.casefold) and len(terms) == len(set(terms))


def cited_keys() -> set[str]:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "book").glob("*.md")]
    for path in (ROOT / "chapters").glob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        texts += ["".join(cell["source"]) for cell in notebook["cells"]
                  if cell["cell_type"] == "markdown"]
        papers = notebook["metadata"].get("scratchbook", {}).get("papers", [])
        texts += [f"{{cite}}`{key}`" for key in papers]
    found = re.findall(r"{cite(?::\w+)?}`([^`]+)`", "\n".join(texts))
    return {key.strip() for keys in found for key in keys.split(",")}


def test_every_entry_of_the_bibliography_is_cited_and_every_citation_is_there():
    from pybtex.database import parse_file

    entries = parse_file(str(ROOT / "book" / "references.bib")).entries
    assert set(entries) == cited_keys()
    for key, entry in entries.items():
        assert "year" in entry.fields and "title" in entry.fields and entry.persons["author"], key
