"""One browser for the whole suite, and one visit to each page of the built site."""

import pytest

from tests.browser import visits
from tests.built_site import site

__all__ = ["site"]


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/browser" in item.nodeid.replace("\\", "/"):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser():
    """Chromium, or a skip that says how to get one."""
    from playwright.sync_api import sync_playwright

    executable = visits.find_chromium()
    if executable is None:
        pytest.skip("no Chromium found: install it, or name it in SCRATCHBOOK_CHROMIUM")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=visits.FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def notes(site, browser) -> list[visits.Visit]:
    """What a visit to every page of the site found."""
    from axe_playwright_python.sync_playwright import Axe

    with visits.browser_context(browser) as context:
        return visits.Visitor(context, site, Axe()).visit_all()
