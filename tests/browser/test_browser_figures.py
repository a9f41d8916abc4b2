"""Every living figure answers to the mouse and to the keyboard, and moves only when told to."""

import re
from pathlib import Path

import pytest

from tests.browser.visits import browser_context, open_page

CONTROLS = "button, input, select, textarea, summary, [tabindex='0'], [role=slider]"
KEYS = ("ArrowRight", "ArrowUp", "Enter", "Space", "a")
SMALL = """(figure) => [...figure.querySelectorAll('button, input, select, [role=slider]')]
  .filter(e => e.checkVisibility()).filter(e => {
    const box = e.getBoundingClientRect(), label = e.closest('label')?.getBoundingClientRect();
    return Math.max(box.height, label?.height || 0) < 24
      || Math.max(box.width, label?.width || 0) < 24; })
  .map(e => e.outerHTML.slice(0, 100))"""
UNNAMED = """(figure) => [...figure.querySelectorAll('button, input, select, textarea')]
  .filter(e => !(e.labels?.length || e.getAttribute('aria-label')
    || e.getAttribute('aria-labelledby') || e.textContent.trim()))
  .map(e => e.outerHTML.slice(0, 100))"""


@pytest.fixture(scope="module")
def pages_with_figures(site: Path) -> list[str]:
    """The pages that hold living figures, by their text: no need to visit them all."""
    return [path.relative_to(site).as_posix() for path in sorted(site.rglob("*.html"))
            if re.search(r"<[^>]* data-live=", path.read_text(encoding="utf-8"))]


def state(figure) -> str | None:
    return figure.get_attribute("data-live-state")


def each_figure(page):
    figures = page.locator("[data-live]")
    return [figures.nth(n) for n in range(figures.count())]


def controls_of(figure):
    """Visible controls, the quick ones first: text fields answer after a pause."""
    found = figure.locator(CONTROLS)
    return [found.nth(n) for n in range(found.count()) if found.nth(n).is_visible()]


def answers_to_mouse(page, figure) -> bool:
    before = state(figure)
    for control in controls_of(figure):
        control.scroll_into_view_if_needed()
        box = control.bounding_box()
        if not box:
            continue
        # three quarters along: not where a slider already stands
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.77, box["y"] + box["height"] * 0.4, steps=3)
        page.mouse.up()
        page.wait_for_timeout(60)
        if state(figure) != before:
            return True
        control.click(position={"x": box["width"] * 0.77, "y": box["height"] / 2})
        page.wait_for_timeout(60)
        if state(figure) != before:
            return True
    return False


def answers_to_keys(page, figure) -> bool:
    before = state(figure)
    for control in controls_of(figure):
        control.focus()
        for key in KEYS:
            page.keyboard.press(key)
            page.wait_for_timeout(60)
            if state(figure) != before:
                return True
    return False


def on_each_page(site, browser, pages, look, width: int = 1280) -> list[str]:
    """Run `look(page, figure)` on each figure and collect what it says."""
    found = []
    with browser_context(browser, width) as context:
        for name in pages:
            page = open_page(context, site / name)
            for figure in each_figure(page):
                said = look(page, figure)
                found += [f"{name}, figure {figure.get_attribute('data-live')}: {line}"
                          for line in said]
            page.close()
    return found


def test_each_chapter_has_a_living_figure(pages_with_figures):
    chapters = {name for name in pages_with_figures if name.startswith("chapters/")}
    assert len(chapters) >= 3, chapters


def test_figures_come_alive_and_say_their_state(site, browser, pages_with_figures):
    found = on_each_page(site, browser, pages_with_figures,
                         lambda page, figure: [] if state(figure) else ["has no data-live-state"])
    assert not found, "\n".join(found)


@pytest.mark.parametrize("width", [1280, 360])
def test_figures_answer_to_the_mouse(site, browser, pages_with_figures, width: int):
    def look(page, figure):
        return [] if answers_to_mouse(page, figure) else ["no control changes its state"]
    found = on_each_page(site, browser, pages_with_figures, look, width)
    assert not found, f"at {width} px:\n" + "\n".join(found)


def test_figures_answer_to_the_keyboard(site, browser, pages_with_figures):
    def look(page, figure):
        return [] if answers_to_keys(page, figure) else ["no key changes its state"]
    found = on_each_page(site, browser, pages_with_figures, look)
    assert not found, "\n".join(found)


def test_figures_move_only_when_told_to(site, browser, pages_with_figures):
    def look(page, figure):
        before = state(figure)
        page.wait_for_timeout(400)
        return [] if state(figure) == before else ["changed by itself"]
    found = on_each_page(site, browser, pages_with_figures, look)
    assert not found, "\n".join(found)


def test_controls_are_named_and_large_enough_to_touch(site, browser, pages_with_figures):
    def look(page, figure):
        return ([f"smaller than 24 px: {html}" for html in figure.evaluate(SMALL)]
                + [f"without a name: {html}" for html in figure.evaluate(UNNAMED)])
    found = on_each_page(site, browser, pages_with_figures, look, width=360)
    assert not found, "\n".join(found)
