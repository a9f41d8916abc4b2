"""What a visit to a page must find: faults planted late in a page whose parts are all alike."""

import pytest

from tests.browser import visits

ENTRY = """<dl class="py function"><dt class="sig"><span class="name">thing{number}</span>
<a class="headerlink" href="#thing{number}">{link}</a></dt>
<dd><p{style}>What it does.</p></dd></dl>"""
PAGE = """<!doctype html><html lang="en" data-theme="light"><head><title>Reference</title></head>
<body style="background:#fff;color:#111"><main><article><h1>Reference</h1>{entries}{rest}
</article></main></body></html>"""


@pytest.mark.parametrize(("fault", "rest", "rule"), [
    ({"link": "", "style": ""}, "", "link-name"),
    ({"link": "#", "style": ' style="color:#ccc"'}, "", "color-contrast"),
    ({"link": "#", "style": ' aria-labelledby="nobody" role="nonsense"'}, "", "aria-roles"),
    ({"link": "#", "style": ""}, '<svg role="img"><path d="M0 0L9 9"/></svg>', "svg-img-alt"),
    ({"link": "#", "style": ""}, "", None)])
def test_one_fault_among_many_equal_entries_is_found(browser, tmp_path, fault, rest, rule):
    from axe_playwright_python.sync_playwright import Axe

    entries = "".join(ENTRY.format(number=n, **(fault if n == 90 else {"link": "#", "style": ""}))
                      for n in range(120))
    (tmp_path / "page.html").write_text(PAGE.format(entries=entries, rest=rest), encoding="utf-8")
    with visits.browser_context(browser) as context:
        note = visits.Visitor(context, tmp_path, Axe()).visit(tmp_path / "page.html")
        assert len(context.pages[0].query_selector_all("dl.py")) < 12  # the others were taken away
    assert [line.split(":")[0] for line in note.axe["light"]] == ([rule] if rule else [])
