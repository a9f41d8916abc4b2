"""The attention explorer in a real browser: by mouse, by keyboard, narrow, dark, exported."""

import json
import re
import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from scratchbook.companions.explorer_reader import reading_model
from scratchbook.config import ModelConfig
from scratchbook.interpret import AttentionView
from scratchbook.interpret.class_graphs import class_panel
from scratchbook.interpret.pictures import strongest_edges
from scratchbook.smalltalk.readers import read_folder
from scratchbook.smalltalk_model import load_smalltalk
from scratchbook.teaching.explorer import explorer_page
from tests.browser import visits
from tests.js.test_explorer_model_js import file_of
from tests.random_models import random_model
from tests.tiny_smalltalk import shipped, small_tokenizer, tiny

METHOD = ("rate: aRate after: months\n\t| sum |\n\tsum := 0.\n"
          "\t1 to: months do: [ :each | | part |\n"
          "\t\tpart := self partAt: each.\n\t\tsum := sum + (part * aRate) ].\n"
          "\t^ report show: sum rounded; cr")
HOSTILE = "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 2'>\n\t<b>&amp;"
LIBRARY = Path(__file__).resolve().parents[2] / "data" / "smalltalk"
MINUTES = 180_000  # milliseconds, of a busy machine
SMALL = """() => [...document.querySelectorAll('.sb-ex :is(button, select, input, summary)')]
  .filter(e => e.checkVisibility()).filter(e => {
    const box = e.getBoundingClientRect(), label = e.closest('label')?.getBoundingClientRect();
    return Math.max(box.height, label?.height || 0) < 24
      || Math.max(box.width, label?.width || 0) < 24; }).map(e => e.outerHTML.slice(0, 100))"""
UNNAMED = """() => [...document.querySelectorAll('.sb-ex :is(button, select, input)')]
  .filter(e => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim()))
  .map(e => e.outerHTML.slice(0, 100))"""


@pytest.fixture(scope="module")
def view() -> AttentionView:
    model = random_model(ModelConfig(vocab_size=256, num_layers=3, d_model=64, num_heads=4,
                                     max_seq_len=256))
    found = AttentionView(model, METHOD)
    # one head that looks at the token before, as random ones do not
    before = torch.diag_embed(torch.full((len(found.ids) - 1,), 0.9), offset=-1)
    found.attention[1, 2] = before + torch.diag(1 - before.sum(-1))
    return found


@pytest.fixture(scope="module")
def page_file(view, tmp_path_factory) -> Path:
    model = random_model(ModelConfig(vocab_size=256, num_layers=1, d_model=32, num_heads=2,
                                     max_seq_len=256))
    bank = [each for each in read_folder(LIBRARY, "course")
            if getattr(each, "package", "") == "Course-Bank"]
    path = tmp_path_factory.mktemp("explorer") / "page.html"
    path.write_text(explorer_page(
        [view, AttentionView(model, HOSTILE), AttentionView(model, "foo ^ (1")],
        language=["smalltalk", "python", "smalltalk"],
        titles=["A method", HOSTILE, "Not finished"],
        classes=class_panel(bank, "FeeTransaction")), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def context(browser):
    with visits.browser_context(browser) as context:
        context.set_default_timeout(MINUTES)
        yield context


@pytest.fixture
def page(context, page_file):
    page = visits.open_watched(context, page_file)
    yield page
    assert page.complaints == []
    assert visits.outside(page) == []
    page.close()


def tokens(page):
    return page.locator(".sb-ex-text [role=option]")


def selected(page) -> list[int]:
    return page.evaluate("[...document.querySelectorAll('.sb-ex-text [role=option]')].flatMap("
                         "(e, at) => e.ariaSelected === 'true' ? [at] : [])")


def at_letter(view, word: str, offset: int = 0) -> int:
    return [start for start, _ in view.spans].index(METHOD.index(word) + offset)


def drawn(page) -> list[tuple[int, int, float]]:
    return [tuple(each) for each in page.evaluate(
        "[...document.querySelectorAll('.sb-ex-graph line')].map(e => "
        "[+e.dataset.from, +e.dataset.to, +e.dataset.weight])")]


def wanted(view, *chosen, **more) -> list[tuple[int, int, float]]:
    near = AttentionView.from_json(view.to_json())
    near.attention = (near.attention.double() * 1000).round() / 1000
    return [tuple(edge) for edge in strongest_edges(near, *chosen, **more)]


def heads(page):
    return page.locator(".sb-ex-grid button")


def facts(page) -> dict[str, str]:
    return dict(page.evaluate("[...document.querySelectorAll('.sb-ex-facts dt')].map(e => "
                              "[e.textContent, e.nextElementSibling.textContent])"))


def test_twelve_edges_at_first_and_their_weights_are_the_data(page, view):
    assert len(drawn(page)) == 12
    assert drawn(page) == wanted(view, 0, 0, threshold=0.05)
    page.get_by_label("edges at most").fill("40")
    page.get_by_label("edges at most").press("Enter")
    assert drawn(page) == wanted(view, 0, 0, threshold=0.05, most=40)
    assert page.locator(".sb-ex-list li").count() == len(drawn(page)) > 12


def test_a_click_selects_a_token_and_another_direction_turns_its_edges(page, view):
    at = at_letter(view, "months do")
    tokens(page).nth(at).click()
    assert selected(page) == [at]
    assert drawn(page) == wanted(view, 0, 0, at, threshold=0.05)
    page.get_by_label("Of the selected token").select_option("to")
    assert drawn(page) == wanted(view, 0, 0, at, "to", 0.05)
    page.get_by_role("button", name="Select no token").click()
    assert selected(page) == [] and len(drawn(page)) == 12


def test_the_keyboard_goes_through_the_tokens(page):
    tokens(page).nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert selected(page) == [2]
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    page.keyboard.press("End")
    assert selected(page) == [tokens(page).count() - 1]
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    assert selected(page) == [0]
    page.keyboard.press("Escape")
    assert selected(page) == []


def test_heads_by_mouse_keyboard_and_list(page, view):
    heads(page).nth(5).click()
    assert drawn(page) == wanted(view, 1, 1, threshold=0.05)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "layer 2, head 2"
    assert page.get_by_label("Layer", exact=True).input_value() == "2"
    assert drawn(page) == wanted(view, 2, 2, threshold=0.05)
    page.keyboard.press("ArrowDown")  # there is no further layer
    assert heads(page).nth(10).get_attribute("aria-pressed") == "true"
    page.get_by_label("Head", exact=True).select_option("0")
    assert heads(page).nth(8).get_attribute("aria-pressed") == "true"
    # one stop of the Tab key for all heads
    assert page.locator(".sb-ex-grid button[tabindex='0']").count() == 1


def test_a_click_on_the_map_selects_the_row(page):
    box = page.locator(".sb-ex-map canvas").bounding_box()
    count = tokens(page).count()
    page.mouse.move(box["x"] + 1, box["y"] + box["height"] * 20.5 / count)
    assert re.match(r"20 .* looks at 0 r: \d\.\d{3}", page.locator(".sb-ex-map ~ p").inner_text())
    page.mouse.down()
    page.mouse.up()
    assert selected(page) == [20]


def test_a_threshold_takes_edges_away(page, view):
    page.get_by_label("weight from").fill("0.6")
    assert drawn(page) == wanted(view, 0, 0, threshold=0.6)
    assert all(weight >= 0.6 for _, _, weight in drawn(page))
    page.get_by_label("weight from").fill("1")
    heavy = wanted(view, 0, 0, threshold=1.0)
    assert drawn(page) == heavy
    assert f"{len(heavy)} edge" in page.locator("p[role=status]", has_text="heavier").inner_text()


def test_a_drag_of_the_slider_loses_nothing(page):
    slider = page.get_by_label("weight from")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.evaluate("""() => { window.heard = [];
      document.querySelector('[id$=weight-from]').addEventListener('input', e =>
        window.heard.push([e.target.value, document.querySelector('[data-live]').dataset.liveState
          .split('/')[5]])); }""")
    page.mouse.move(box["x"] + 8, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 8, box["y"] + box["height"] / 2, steps=30)
    page.mouse.up()
    heard = page.evaluate("window.heard")
    assert len(heard) > 10
    # what was drawn is what was heard, at every step
    assert all(float(value) == float(state) for value, state in heard)


def test_heads_above_a_score_are_marked(page, view):
    page.get_by_label("Mark heads by").select_option("previous token")
    scores = view.attention.diagonal(offset=-1, dim1=-2, dim2=-1).mean(-1).flatten().tolist()
    page.get_by_label("mark from").fill("0.5")
    marked = [at for at in range(12) if "marked" in heads(page).nth(at).get_attribute("aria-label")]
    assert marked == [at for at in range(12) if scores[at] >= 0.5] == [6]
    assert page.locator(".sb-ex-marked").count() == len(marked)
    assert "1 of 12 heads reach 0.50" in page.locator(".sb-ex-grid").locator(
        "xpath=ancestor::div[2]").inner_text()


def test_five_things_that_the_overlay_tells(page, view):
    """Each answer is read off the page after one selection, without the source at hand."""
    def said(word: str, offset: int = 0) -> dict[str, str]:
        tokens(page).nth(at_letter(view, word, offset)).click()
        return facts(page)

    # which argument fills do:?
    assert said("do:")["Argument of do:"].startswith("[ :each | | part |")
    # whom does the cascade's cr go to?
    assert said("cr")["Receiver"] == "report" and "show:; cr" in said("cr")["Cascade"]
    # in which scope does the variable part live, and is it a parameter?
    assert said("part *")["Variable"].startswith("part: temporary of the block")
    # which variable is set in the block, yet declared in the method?
    assert said("sum +")["Variable"].startswith("sum: temporary of the method rate:after:")
    # which path do messages take to rounded?
    assert said("rounded")["Path"] == "sum \u2192 rounded"
    # where the variable is declared is framed in the text
    said("part *")
    declared = page.locator(".sb-ex-declared").all_inner_texts()
    assert "".join(declared).strip() == "part"


def test_the_tree_lies_over_text_map_and_edges(page, view):
    page.get_by_label("tree", exact=True).check()
    rings = page.locator(".sb-ex-map circle")
    assert rings.count() > 10
    tokens(page).nth(at_letter(view, "aRate) ]")).click()
    nodes = page.locator(".sb-ex-path button")
    kinds = nodes.all_inner_texts()
    assert kinds[0].startswith("method rate:after:") and "variable aRate" in kinds[-1]
    nodes.nth(len(kinds) - 2).focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert "".join(page.locator(".sb-ex-node").all_inner_texts()) == "part * aRate"
    square = page.locator(".sb-ex-map rect[data-first]")
    assert square.count() == 1
    first, last = (int(square.get_attribute(name)) for name in ("data-first", "data-last"))
    assert METHOD[view.spans[first][0]:view.spans[last - 1][1]] == "part * aRate"
    assert re.search(r"Along \d+ of the \d+ edges of the tree", page.locator(".sb-ex").inner_text())


def test_colours_are_never_alone(page):
    """Each kind has its own pair of line and colour; the text keeps its ink."""
    for colour in ("syntax", "role"):
        page.get_by_label("Lines under the text").select_option(colour)
        looks = page.evaluate("[...document.querySelectorAll('.sb-ex-key b')].map(e => "
                              "[e.style.borderBottomStyle, e.style.borderBottomColor].join())")
        assert len(looks) == len(set(looks)) >= 4
    inks = page.evaluate("[...new Set([...document.querySelectorAll('.sb-ex-text [role=option]')]"
                         ".map(e => getComputedStyle(e).color))].length")
    assert inks == 1


def test_scopes_are_bars_one_inside_the_other(page, view):
    def bars(word: str) -> int:
        style = tokens(page).nth(at_letter(view, word)).get_attribute("style") or ""
        return style.count("linear-gradient")

    assert (bars("sum :="), bars("part *")) == (1, 2)
    page.get_by_label("scopes", exact=True).uncheck()
    assert bars("part *") == 0


def test_export_as_json_svg_and_png(page, view):
    def save(kind: str) -> bytes:
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Save {kind}").click()
        assert download.value.suggested_filename == f"attention.{kind.lower()}"
        return Path(download.value.path()).read_bytes()

    heads(page).nth(6).click()
    assert json.loads(save("JSON")) == json.loads(view.to_json())
    back = AttentionView.from_json(save("JSON").decode("utf-8"))
    assert back.tokens == view.tokens
    assert (back.attention - view.attention).abs().max() <= 0.0005 + 1e-7
    tree = ET.fromstring(save("SVG"))
    lines = [(int(each.get("data-from")), int(each.get("data-to")), float(each.get("data-weight")))
             for each in tree.iter("{http://www.w3.org/2000/svg}line")]
    assert lines == drawn(page) == wanted(view, 1, 2, threshold=0.05)
    assert "var(" not in save("SVG").decode("utf-8")
    png = save("PNG")
    assert png.startswith(b"\x89PNG") and min(struct.unpack(">2I", png[16:24])) > 800


def test_text_that_looks_like_html_is_text(page):
    page.get_by_label("Text", exact=True).select_option("1")
    assert page.evaluate("window.hit") is None
    shown = "".join(page.locator(".sb-ex-text").inner_text().replace("\u21b5", "").split())
    assert shown == "".join(HOSTILE.split())
    assert page.locator(".sb-ex img, .sb-ex-text b").count() == 0
    tokens(page).nth(3).click()
    page.get_by_role("button", name="Save SVG").click()
    assert page.evaluate("window.hit") is None


def test_source_that_does_not_parse_says_so_and_keeps_its_classes(page):
    page.get_by_label("Text", exact=True).select_option("2")
    assert "does not parse as Smalltalk" in page.locator(".sb-ex p[role=status]").first.inner_text()
    assert page.locator(".sb-ex-key li").count() >= 3
    tokens(page).nth(0).click()
    assert set(facts(page)) == {"Syntax"}


def test_classes_stand_in_their_tree(page):
    page.get_by_text("Classes, senders and implementors").click()
    assert page.get_by_label("The tree of classes").inner_text().splitlines() == [
        "Object", "  BankTransaction", "    WithdrawalTransaction",
        "      FeeTransaction   \u25c0 this class"]


def test_all_controls_have_names_sizes_and_the_focus(page):
    assert page.evaluate(UNNAMED) == []
    assert page.evaluate(SMALL) == []
    reached = set()
    page.locator("body").press("Tab")
    for _ in range(40):
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"
                                  ".trim().slice(0, 30) || document.activeElement.ariaLabel"))
        page.keyboard.press("Tab")
    for name in ("text", "lines-under-the-text", "scopes", "tree", "mark-heads-by", "layer",
                 "head", "weight-from", "most"):
        assert any(str(each).endswith(f"-{name}") for each in reached), (name, reached)
    assert {"Save SVG", "Save PNG", "Save JSON"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_grave(context, page, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme=scheme)
    page.get_by_label("tree", exact=True).check()
    page.get_by_label("Mark heads by").select_option("first token")
    tokens(page).nth(30).click()
    found = Axe().run(page, options=visits.AXE)
    grave = [f"{each['id']}: {node['html'][:120]}" for each in found.response["violations"]
             if each["impact"] in visits.GRAVE for node in each["nodes"][:3]]
    assert grave == []


def test_nothing_is_cut_off_at_360_pixels(page, view):
    page.set_viewport_size({"width": 360, "height": 780})
    page.get_by_label("tree", exact=True).check()
    tokens(page).nth(at_letter(view, "aRate) ]")).click()
    page.get_by_label("weight from").fill("0")
    assert len(drawn(page)) == 12
    assert page.evaluate(visits.OVERFLOW) == []


@pytest.fixture(scope="module")
def own_file(tmp_path_factory):
    """A page whose reader may type, with a small model in it."""
    folder = tmp_path_factory.mktemp("own")
    shipped(folder, tiny(small_tokenizer().vocab_size))
    model, tokenizer = load_smalltalk(folder)
    text = "double: x\n\t^ x + x"
    view = AttentionView(model, text, tokenizer, before=[tokenizer.special_tokens["<|method|>"]])
    told = {"file": file_of(folder), "megabytes": 1, "before": ["<|method|>"], "name": "tiny"}
    path = folder / "page.html"
    path.write_text(explorer_page(view, language="smalltalk", titles=["first"], model=told),
                    encoding="utf-8")
    return path, model, tokenizer


def test_a_readers_own_text_is_read_at_every_change(context, own_file, page):
    path, model, tokenizer = own_file
    page.goto(path.as_uri())
    assert not page.get_by_label("Your own method").is_visible()
    page.get_by_role("button", name="Load the model (1 MB)").click()
    page.locator("[data-took]").wait_for()
    area = page.get_by_label("Your own method")
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
    for text in ("half: y\n\t^ 'grüße <script>' , y foo; bar", "foo ^ ("):
        area.fill(text)
        page.locator(".sb-ex-text", has_text=text.split()[0]).wait_for()
        with page.expect_download() as download:
            page.get_by_role("button", name="Save JSON").click()
        ours = AttentionView.from_json(Path(download.value.path()).read_text(encoding="utf-8"))
        theirs = AttentionView(model, text, tokenizer,
                               before=[tokenizer.special_tokens["<|method|>"]])
        assert (ours.text, ours.ids, ours.tokens, ours.spans) == (
            text, theirs.ids, theirs.tokens, theirs.spans)
        assert (ours.attention - theirs.attention).abs().max() < 0.0011
        assert page.locator(".sb-ex-text script").count() == 0
    assert "does not parse" in page.locator(".sb-ex").inner_text()
    area.fill("")
    page.get_by_text("The text is empty").wait_for()
    page.get_by_label("Text", exact=True).select_option("0")
    assert page.locator(".sb-ex-text").inner_text().startswith("<|method|>double:")


def test_without_the_models_file_the_figure_says_so(context, page, view, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(explorer_page(view, model=reading_model("nowhere.js")), encoding="utf-8")
    other = visits.open_page(context, path)
    other.get_by_role("button", name="Load the model").click()
    other.get_by_text("open this figure there").wait_for()
    assert other.get_by_role("button", name="Load the model").is_enabled()
    assert other.locator(".sb-ex-grid button").count() == 12
    other.close()


def test_a_change_of_head_draws_everything_anew(page):
    """No tight bound here: tests/bench/bench_explorer.py measures on a quiet machine."""
    took = page.evaluate("""() => { const begun = performance.now();
      for (let at = 0; at < 12; at++) document.querySelectorAll('.sb-ex-grid button')[at].click();
      document.querySelector('.sb-ex').getBoundingClientRect();
      return (performance.now() - begun) / 12; }""")
    assert took < 2000
