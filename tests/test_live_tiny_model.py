"""The living figure of chapter 00 computes the chapter's own model, letter for letter."""

from __future__ import annotations

import ast
import json
import re

import pytest
import torch

from scratchbook.companions.live_weights import (
    PAGE_WEIGHTS,
    load_page_weights,
    page_weights,
    read_page_weights,
    write_page_weights,
)
from scratchbook.companions.start_figures import code_hash
from tests import notebook_tools
from tests.node import run_figure

CHAPTER = notebook_tools.ROOT / "chapters" / "00_start_here.ipynb"
LETTERS = [chr(97 + i) for i in range(20)]


@pytest.fixture(scope="module")
def chapter() -> dict:
    """The names that the chapter's model needs, from its own cells."""
    cells = notebook_tools.code_cells(notebook_tools.load(CHAPTER))
    statements = [node for cell in cells
                  for node in notebook_tools._statements(notebook_tools.source_of(cell))
                  if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom)]
    names: dict = {"__name__": "chapter"}
    wanted = ast.parse("TinyModel, sample, model_bits").body
    kept = notebook_tools._needed(statements, wanted)
    notebook_tools._execute(kept, names, CHAPTER)
    return names


def build(chapter: dict, letters: int, num_layers: int, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = chapter["TinyModel"](letters, num_layers)
    for p in model.parameters():
        p.data *= 1.5          # a trained model's logits are larger than a fresh one's
    return model


def from_page(chapter: dict, weights: dict) -> torch.nn.Module:
    model = chapter["TinyModel"](len(weights["letters"]), weights["config"]["num_layers"])
    load_page_weights(model, weights)
    return model


def ids_for(weights: dict, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    size, length = len(weights["letters"]), weights["config"]["context"]
    return torch.randint(size, (length,), generator=generator).tolist()


@torch.no_grad()
def case(chapter: dict, weights: dict, seed: int) -> dict:
    ids = ids_for(weights, seed)
    logits = from_page(chapter, weights)(torch.tensor([ids]))[0]
    return {"weights": weights, "ids": ids, "logits": logits.tolist()}


def choices() -> list[dict]:
    generator = torch.Generator().manual_seed(3)
    found = []
    for temperature, top_k in ((1.0, 0), (0.5, 5), (2.0, 3), (0.1, 1), (1.3, 30), (0.7, 12)):
        logits = torch.randn(12, generator=generator, dtype=torch.float64) * 4
        cut = logits / temperature
        if 0 < top_k < 12:
            cut = cut.masked_fill(cut < cut.topk(top_k).values[-1], -torch.inf)
        found.append({"logits": logits.tolist(), "temperature": temperature, "top_k": top_k,
                      "probs": cut.softmax(dim=0).tolist()})
    return found


def test_the_javascript_equals_torch(chapter, tmp_path, parity):
    cases = [case(chapter, page_weights(build(chapter, 20, layers, seed), LETTERS, 32), seed)
             for layers, seed in ((1, 0), (2, 1), (3, 2))]
    cases.append(case(chapter, read_page_weights(PAGE_WEIGHTS), 4))
    printed = run_figure("tiny_model", tmp_path, {"cases": cases, "choices": choices()})
    errors = [float(found) for found in re.findall(r"largest difference (\S+)", printed)]
    assert len(errors) == len(cases)
    letters = sum(len(one["ids"]) for one in cases)
    assert parity("the tiny model in the page's JavaScript: logits",
                  against=f"torch {torch.__version__}",
                  error=max(errors), cases=letters, bound=8e-5)


def test_weights_survive_the_way_to_the_page_and_back(chapter, tmp_path):
    model = build(chapter, 20, 2)
    weights = page_weights(model, LETTERS, context=48, card={"line": "a </script> in the card"})
    path = write_page_weights(tmp_path / "w.js", weights)
    assert "</script" not in path.read_text(encoding="utf-8")
    again = read_page_weights(path)
    assert again == weights
    back = from_page(chapter, again)
    for ours, theirs in zip(model.parameters(), back.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours.half().float(), rtol=0, atol=0)


def test_what_cannot_be_written_is_refused(chapter, tmp_path):
    model = build(chapter, 20, 1)
    with pytest.raises(ValueError, match="19 letters for a model with vocab_size=20"):
        page_weights(model, LETTERS[:19], context=8)
    model.lm_head.weight.data[3, 3] = 1e5
    with pytest.raises(ValueError, match=r"lm_head\.weight holds 1e\+05"):
        page_weights(model, LETTERS, context=8)
    stray = tmp_path / "x.js"
    stray.write_text("1;", encoding="utf-8")
    with pytest.raises(ValueError, match="does not set"):
        read_page_weights(stray)


def test_the_published_model_is_small_and_says_where_it_comes_from():
    weights = read_page_weights(PAGE_WEIGHTS)
    assert PAGE_WEIGHTS.stat().st_size <= 450_000
    count = sum(torch.Size(shape).numel() for _, shape in weights["shapes"])
    assert 100_000 <= count <= 250_000
    assert weights["card"]["licence"] == "PSF-2.0"
    assert {"data", "steps", "seed", "bits", "line"} <= set(weights["card"])


def test_the_recorded_run_used_the_chapters_present_code():
    cells = [notebook_tools.source_of(cell)
             for cell in notebook_tools.code_cells(notebook_tools.load(CHAPTER))]
    beginnings = ("def look_back", "class Attention", "def norm", "class TinyModel", "def train(",
                  "@torch.no_grad()\ndef sample")
    sixty = [line for cell in cells if cell.startswith(beginnings) for line in cell.splitlines()
             if line.strip() and not line.startswith("start_figures")]
    recorded = json.loads((notebook_tools.ROOT / "book/results/00_start_here.json")
                          .read_text(encoding="utf-8"))["numbers"]
    assert recorded["code"] == code_hash(sixty), (
        "the model's code has changed: scratchbook run 00_start_here --profile full")
    assert recorded["bits"], "seeds"


def test_the_landing_pages_number_is_what_the_published_model_pays_today(chapter):
    """The recorded bits per byte, from the published weights, this code and this text."""
    from scratchbook.data import python_manual
    from scratchbook.runtime import environment

    weights = read_page_weights(PAGE_WEIGHTS)
    recorded = json.loads((notebook_tools.ROOT / "book/results/00_start_here.json")
                          .read_text(encoding="utf-8"))
    made_with = recorded["environment"]["versions"]["python"]
    if environment()["versions"]["python"] != made_with:  # 3.11.2's differs from 3.11.7's, too
        pytest.skip(f"the manual of Python {made_with} is another text")
    paragraphs = dict.fromkeys(p for p in python_manual().split("\n\n") if p.strip())
    held_out = "\n\n".join(list(paragraphs)[9::10])
    letters = {letter: i for i, letter in enumerate(weights["letters"])}
    ids = torch.tensor([letters[letter] for letter in held_out])
    bits = chapter["model_bits"](from_page(chapter, weights), ids, len(held_out[1:].encode()))
    best = min(recorded["numbers"]["bits"])
    assert bits == pytest.approx(best, abs=2e-4)      # half precision costs less
    assert f"{best:.2f} bits per byte" in weights["card"]["line"]


def test_the_published_model_writes_english(chapter):
    """Most words that it writes at a low temperature stand in the manual it read."""
    from scratchbook.data import python_manual

    weights = read_page_weights(PAGE_WEIGHTS)
    letters = list(weights["letters"])
    chapter |= {"encode": lambda text: torch.tensor([letters.index(c) for c in text]),
                "decode": lambda ids: "".join(letters[i] for i in ids), "DEVICE": "cpu"}
    text = chapter["sample"](from_page(chapter, weights), "The function ", 300, temperature=0.5,
                             window=weights["config"]["context"])
    words = re.findall(r"[a-z]{3,}", text)
    known = set(re.findall(r"[a-z]{3,}", python_manual()))
    assert len(words) > 20
    assert sum(word in known for word in words) > 0.9 * len(words)
