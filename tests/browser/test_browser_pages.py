"""Every page of the built site, in a real browser, from file:// and with the network blocked."""

import pytest

from tests.browser.visits import Visit, browser_context, open_page


def complaints(notes: list[Visit], field: str) -> list[str]:
    return [f"{note.page}: {line}" for note in notes for line in getattr(note, field)]


def test_there_are_pages(notes: list[Visit]):
    pages = {note.page for note in notes}
    assert "index.html" in pages and "book/claims.html" in pages
    assert sum(page.startswith("chapters/") for page in pages) >= 3


def test_no_page_complains(notes: list[Visit]):
    found = complaints(notes, "console")
    assert not found, "errors in the console:\n" + "\n".join(found)


def test_no_page_asks_another_host(notes: list[Visit]):
    found = complaints(notes, "outside")
    assert not found, "requests beyond the site's own files:\n" + "\n".join(found)


def test_every_picture_has_a_name(notes: list[Visit]):
    found = complaints(notes, "nameless")
    assert not found, "pictures without alt text or label:\n" + "\n".join(found)


def test_no_page_scrolls_sideways_on_a_phone(notes: list[Visit]):
    found = complaints(notes, "overflow")
    assert not found, "wider than 360 px:\n" + "\n".join(found)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_grave(notes: list[Visit], theme: str):
    found = [f"{note.page}: {line}" for note in notes for line in note.axe.get(theme, [])]
    assert not found, f"serious or critical in the {theme} theme:\n" + "\n".join(found)


def test_formulas_are_drawn(notes: list[Visit]):
    with_formulas = [note for note in notes if note.formulas[0]]
    assert any(note.page.startswith("chapters/") for note in with_formulas)
    for note in with_formulas:
        wanted, drawn, wrong = note.formulas
        assert drawn == wanted, f"{note.page}: {drawn} of {wanted} formulas are drawn"
        assert wrong == 0, f"{note.page}: {wrong} formulas are in error"


def test_one_header_and_one_search_field(notes: list[Visit]):
    for note in notes:
        assert len(note.headers) <= 1, f"{note.page}: {note.headers}"


def test_search_finds_without_a_server(site, browser):
    with browser_context(browser) as context:
        page = open_page(context, site / "search.html", query="?q=tokenizer")
        page.wait_for_selector('#search-results li a[href*="chapters/01_tokenization.html"]')
        hits = page.eval_on_selector_all("#search-results li a", "all => all.map(a => a.href)")
    assert any("chapters/01_tokenization.html" in hit for hit in hits), hits


def test_search_opens_from_the_sidebar(site, browser):
    with browser_context(browser) as context:
        page = open_page(context, site / "index.html")
        page.click(".search-button-field")
        page.keyboard.type("attention")
        page.keyboard.press("Enter")
        page.wait_for_url("**/search.html?q=attention*")
        page.wait_for_selector('#search-results li a[href*="chapters/02_attention.html"]')
        hits = page.eval_on_selector_all("#search-results li a", "all => all.map(a => a.href)")
    assert any("chapters/02_attention.html" in hit for hit in hits), hits


def test_the_theme_can_be_changed_and_is_kept(site, browser):
    with browser_context(browser) as context:
        page = open_page(context, site / "index.html")
        seen = {page.evaluate("document.documentElement.dataset.theme")}
        for _ in range(2):
            page.click("button.theme-switch-button")
            seen.add(page.evaluate("document.documentElement.dataset.theme"))
        assert seen == {"light", "dark"}


def test_the_landing_page_shows_a_living_figure_without_scrolling(site, browser):
    with browser_context(browser) as context:
        page = open_page(context, site / "index.html")
        box = page.locator("[data-live]").first.bounding_box()
    assert box is not None and box["y"] < 700, box


def test_pages_can_be_read_without_scripts(site, browser):
    context = browser.new_context(java_script_enabled=False)
    try:
        page = open_page(context, site / "chapters" / "01_tokenization.html")
        assert page.locator("article .sb-still").first.inner_text().strip()
    finally:
        context.close()
