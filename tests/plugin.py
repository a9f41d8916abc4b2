"""What `make test` adds to pytest (`-p tests.plugin`): who shares a worker, what CI must not skip.

The cells of one notebook share a kernel; the tests of one file share what they computed. One
worker builds the book first, the others meanwhile run chapters, and the browser comes when there
is a book to look at: nobody waits. Chapters run as a reader of Colab has them: over the wheel,
in an empty folder, out of reach of the checkout.
"""

import functools
import os
import re

import pytest

from tests.alone import CHECK, alone

ORDER = ("tests/book/", "chapters/", "tests/browser/", "")
TOOLS = re.compile(r"\b(node|browser|chromium|chrome)\b", re.IGNORECASE)


def pytest_configure(config: pytest.Config) -> None:
    """Start the kernels of nbval in an empty folder, with the wheel in place of the checkout."""
    if not config.getoption("nbval_lax", default=False):
        return
    from nbval import kernel

    start = kernel.start_new_kernel

    @functools.wraps(start)
    def start_alone(*arguments, **options):
        return start(*arguments, **options | alone())

    kernel.start_new_kernel = start_alone


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first; a chapter's first cell checks where it runs."""
    items.sort(key=lambda item: next(i for i, start in enumerate(ORDER)
                                     if item.nodeid.startswith(start)))
    for item in items:
        if type(item).__name__ == "IPyNbCell" and "setup" in item.cell.metadata.get("tags", []):
            item.cell.source = CHECK + item.cell.source


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """On a build machine, turn a skip for want of a browser or node into a failure."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and call.excinfo is not None:
        reason = str(call.excinfo.value)
        if TOOLS.search(reason):
            report.outcome, report.longrepr = "failed", f"skipped on a build machine: {reason}"
    return report
