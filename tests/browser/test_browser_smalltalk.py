"""The Smalltalk model alive in a page: loaded on a click, from file://, by mouse and keyboard."""

import re
from pathlib import Path

import pytest

from scratchbook.companions.smalltalk_page import BEGINNINGS, page_scripts, writer_html
from tests.browser import visits

CSS = (Path(__file__).resolve().parents[2] / "book/_static/scratchbook.css").read_text("utf-8")
FIRST = BEGINNINGS[0]
WRITTEN = f"{FIRST.begun}balance := balance + anAmount"  # stands for what the model wrote
SMALL = """() => [...document.querySelectorAll(
    '.sb-st :is(button, select, input[type=text], textarea)')]
  .filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 44)
  .map(e => e.outerHTML.slice(0, 80))"""
MINUTES = 180_000  # milliseconds, of a busy machine


def write_page(folder: Path, scripts: dict[str, str]) -> Path:
    body = writer_html(WRITTEN, FIRST.begun, FIRST.record)
    page = (f'<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width"><title>Alive</title><style>{CSS}'
            'body{margin:0 10px;background:var(--sb-paper)}</style></head><body><main>'
            '<article class="bd-article"><h1>Alive</h1><h2>A model</h2><h3>That writes</h3>'
            f"{body}</article></main></body></html>")
    for name, text in {"chapters/page.html": page,
                       **{f"live/{name}": text for name, text in scripts.items()}}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "chapters" / "page.html"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    return write_page(tmp_path_factory.mktemp("alive"), page_scripts())


@pytest.fixture(scope="module")
def alive(browser, page_file):
    """A page that has loaded the model, and what it asked for until then and since."""
    with visits.browser_context(browser) as context:
        context.set_default_timeout(MINUTES)
        page = visits.open_watched(context, page_file)
        page.asked_before = list(page.asked)
        page.still = page.locator(".sb-st-still").inner_text()
        button(page, "Load the model").click()
        wait_for(page, "ready")
        yield page


def button(page, name: str):
    return page.get_by_role("button", name=name)


def wait_for(page, phase: str) -> None:
    page.wait_for_function("phase => document.querySelector('[data-live]').dataset.liveState"
                           ".split(':')[1] === phase", arg=phase)


def tokens(page):
    return page.locator(".sb-st-written [role=option]")


def status(page) -> str:
    return page.locator("p[role=status]").inner_text()


def complete(page, name: str = "Complete") -> str:
    button(page, name).click()
    wait_for(page, "ready")
    return status(page)


def a_valid_method(page) -> str:
    """Complete until a method is valid; under the parser's eye one soon is."""
    page.get_by_label("only valid Smalltalk").check()
    said = complete(page)
    for _ in range(8):
        if "The method is valid." in said:
            break
        said = complete(page, "Again, otherwise")
    return said


def test_nothing_is_loaded_before_the_click(alive):
    assert not [url for url in alive.asked_before if "smalltalk_weights" in url]
    loaded = [url for url in alive.asked if "smalltalk_weights" in url]
    assert len(loaded) == len(page_scripts())
    assert "the model wrote what is bold" in alive.still and "balance + anAmount" in alive.still


def test_it_writes_a_valid_method_and_shows_its_tree(alive):
    said = a_valid_method(alive)
    assert "The method is valid." in said
    assert float(re.search(r"(\d+) tokens a second", said)[1]) > 5
    source = alive.locator(".sb-st-paper").inner_text()
    assert "Object subclass: #Account" in source and "deposit: anAmount" in source
    items = alive.get_by_role("treeitem")
    assert items.first.get_attribute("aria-label").startswith("method deposit: anAmount")
    assert items.count() >= 2 and not alive.locator(".sb-st-still").is_visible()


def test_a_token_shows_what_the_model_looked_at(alive):
    a_valid_method(alive)
    tokens(alive).filter(has_text=re.compile(r"\w")).last.click()
    alive.wait_for_selector(".sb-st-looks li")
    said = alive.locator("p[aria-live]", has_text="had a probability of").inner_text()
    assert re.search(r"layer \d, its heads together, looked most at “.+” \(\d", said)
    shares = [float(text.rstrip(" %")) for text in
              alive.locator(".sb-st-looks span:last-child").all_inner_texts()]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 101
    alive.get_by_label("Head", exact=True).select_option(label="4")
    alive.get_by_text("head 4, looked most at").wait_for()
    titled = alive.eval_on_selector_all(".sb-st-paper [title$='%']", "all => all.length")
    assert titled > 10


def test_stop_stops_and_the_page_goes_on(alive):
    alive.get_by_label("Temperature").fill("1.5")
    button(alive, "Complete").click()
    button(alive, "Stop").click()
    wait_for(alive, "ready")
    # a short method may be whole before the press
    assert status(alive).startswith(("Stopped after", "It ended the method after"))
    alive.get_by_label("Temperature").fill("0.6")
    assert " tokens" in complete(alive, "Again, otherwise")


def test_all_of_it_by_keyboard(alive):
    a_valid_method(alive)
    first = tokens(alive).first
    first.focus()
    alive.keyboard.press("End")
    alive.keyboard.press("ArrowLeft")
    chosen = alive.locator("[role=option][aria-selected=true]")
    count = tokens(alive).count()
    assert chosen.evaluate("e => [...e.parentElement.children].indexOf(e)") == count - 2
    alive.get_by_text("had a probability of").wait_for()
    assert chosen.evaluate("e => e === document.activeElement && e.tabIndex === 0")
    alive.get_by_role("treeitem").first.focus()
    shown = alive.locator("[role=treeitem]:visible").count()
    alive.keyboard.press("ArrowDown")
    alive.keyboard.press("ArrowUp")
    assert alive.locator(".sb-st-paper .sb-st-node").count() > 0
    alive.keyboard.press("ArrowLeft")
    assert alive.locator("[role=treeitem]:visible").count() == 1 < shown
    alive.keyboard.press("ArrowRight")
    assert alive.locator("[role=treeitem]:visible").count() == shown


def test_load_and_complete_from_the_keyboard_keep_the_focus(browser, page_file):
    with visits.browser_context(browser) as context:
        page = visits.open_page(context, page_file)
        page.set_default_timeout(MINUTES)
        button(page, "Load the model").focus()
        page.keyboard.press("Enter")
        wait_for(page, "ready")
        assert page.evaluate("document.activeElement.textContent") == "Complete"
        page.get_by_label("Beginning of the method").focus()
        page.keyboard.press("Control+Enter")
        wait_for(page, "ready")
        assert " tokens" in status(page)


def test_what_cannot_become_a_method_is_refused_in_words(alive):
    typed = alive.get_by_label("Beginning of the method")
    typed.fill("foo ) bar")
    alive.get_by_label("only valid Smalltalk").check()
    assert "no continuation makes a method" in complete(alive)
    alive.get_by_label("only valid Smalltalk").uncheck()
    said = complete(alive)
    assert "not valid" in said
    fault = alive.locator(".sb-st-box").inner_text()
    assert "It is no method: in line 1, column 5" in fault and "\n    ^" in fault
    assert alive.get_by_role("treeitem").count() == 0
    assert alive.locator(".sb-st-fault").count() == 1
    typed.fill(FIRST.begun)


def test_it_fits_a_phone_and_a_finger_and_axe_finds_nothing_grave(alive):
    from axe_playwright_python.sync_playwright import Axe

    a_valid_method(alive)
    tokens(alive).last.click()
    alive.wait_for_selector(".sb-st-looks li")
    alive.set_viewport_size({"width": 360, "height": 780})
    assert alive.evaluate(visits.OVERFLOW) == [] and alive.evaluate(SMALL) == []
    found = []
    for theme, options in (("light", visits.AXE), ("dark", visits.DARK)):
        alive.evaluate(visits.THEME, theme)
        found += visits.grave(Axe(), alive, options)
    alive.evaluate(visits.THEME, "light")
    alive.set_viewport_size({"width": 1280, "height": 900})
    assert not found, "\n".join(found)


def test_no_complaint_and_no_other_host(alive):
    assert alive.complaints == []
    assert visits.outside(alive) == []


@pytest.mark.parametrize(("scripts", "words"), [
    ("none", "The model lies beside the published page, and is not here"),
    ("mixed", "Parts of two different models came together"),
])
def test_missing_or_mixed_files_are_said(browser, tmp_path, scripts, words):
    files = page_scripts()
    files["smalltalk_weights_2.js"] = re.sub('"of": "....', '"of": "0000', files[
        "smalltalk_weights_2.js"][:200]) + files["smalltalk_weights_2.js"][200:]
    page_file = write_page(tmp_path, files if scripts == "mixed" else {})
    with visits.browser_context(browser) as context:
        page = visits.open_page(context, page_file)
        button(page, "Load the model").click()
        wait_for(page, "broken")
        assert words in status(page) and button(page, "Load the model").is_enabled()


@pytest.mark.parametrize(("script", "words"), [
    ("delete window.Worker", "This browser has no workers"),
    ("window.Worker = class { constructor() { throw new Error('not allowed'); } }",
     "This page may start no worker here (not allowed)"),
])
def test_a_browser_without_workers_is_told(browser, page_file, script, words):
    with visits.browser_context(browser) as context:
        context.add_init_script(script)
        page = visits.open_page(context, page_file)
        button(page, "Load the model").click()
        wait_for(page, "broken")
        assert words in status(page)


def test_a_completion_stands_there_without_scripts(browser, page_file):
    context = browser.new_context(java_script_enabled=False)
    try:
        page = visits.open_page(context, page_file)
        shown = page.locator(".sb-still").inner_text()
        assert "the model wrote what is bold" in shown and "balance + anAmount" in shown
    finally:
        context.close()
