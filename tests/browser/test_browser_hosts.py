"""Outputs where the book's style sheet is not: framed by Colab and VS Code, and in JupyterLab.

Each host is imitated by what an output can see of it: the attributes that say the theme, the
host's paper, and the rules for tables that JupyterLab brings.
"""

import html
from pathlib import Path

import pytest

from scratchbook.teaching import figures
from scratchbook.teaching.live_figures import living_html
from tests.browser.visits import browser_context

LAB = """<style>body{background:%s;color:%s}
.jp-RenderedHTMLCommon table{border-collapse:collapse;border-spacing:0;font-size:12px;
table-layout:fixed;margin-left:auto;border:none}
.jp-RenderedHTMLCommon td,.jp-RenderedHTMLCommon th,.jp-RenderedHTMLCommon tr{text-align:right;
vertical-align:middle;padding:0.5em;line-height:normal;white-space:normal;max-width:none;border:none}
.jp-RenderedHTMLCommon tbody tr:nth-child(odd){background:%s}</style>"""
BOOK = (Path(__file__).resolve().parents[2] / "book" / "_static" / "scratchbook.css").read_text(
    encoding="utf-8")
PLAIN = "<style>body{background:%s;color:%s} td,th{padding:0}</style>"
# The attributes of html and of body, the head, and whether it is dark (None: as the reader likes).
HOSTS = {
    "book": ('data-theme="light"', 'class="bd-article"',
             f"<style>body{{background:#fff}}{BOOK}</style>", False),
    "book dark": ('data-theme="dark"', 'class="bd-article"',
                  f"<style>body{{background:#121417}}{BOOK}</style>", True),
    "colab": ('theme=""', "", PLAIN % ("#fff", "#000"), False),
    "colab dark": ('theme="dark"', "", PLAIN % ("#383838", "#e3e3e3"), True),
    "vs code": ("", 'class="vscode-light"', PLAIN % ("#fff", "#000"), False),
    "vs code dark": ("", 'class="vscode-dark"', PLAIN % ("#1f1f1f", "#ccc"), True),
    "lab": ("", 'data-jp-theme-light="true" class="jp-RenderedHTMLCommon"',
            LAB % ("#fff", "#000", "#f5f5f5"), False),
    "lab dark": ("", 'data-jp-theme-light="false" class="jp-RenderedHTMLCommon"',
                 LAB % ("#111", "#ddd", "#333"), True),
    "unknown": ("", "", "", None),
}
LOOK = """() => {
  const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (!/^rgba.*, 0\\)$|transparent/.test(c)) return c; }
    return 'rgb(255, 255, 255)'; };
  const box = e => { const range = document.createRange(); range.selectNodeContents(e);
    return range.getBoundingClientRect(); };
  const read = e => { const ink = getComputedStyle(e).color, paper = behind(e);
    const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
    return [e.tagName, e.textContent.trim().slice(0, 30), light(ink), (a + 0.05) / (b + 0.05)]; };
  const heads = [...document.querySelectorAll('.sb-table th')].map(box);
  return { texts: [...document.querySelectorAll(
      '.sb-out :is(th, td, figcaption, li, p, svg), .sb-live :is(button, p, label, output, span)')]
      .filter(e => e.checkVisibility() && (e.tagName === 'svg' || e.textContent.trim())).map(read),
    gaps: heads.slice(1).map((b, i) => b.left - heads[i].right),
    lines: [...document.querySelectorAll('.sb-table tr')].length,
    alive: [...document.querySelectorAll('[data-live]')].map(e => e.dataset.liveState || '') };
}"""


@pytest.fixture(scope="module")
def outputs() -> str:
    """A table with headings of two words, a figure, Insights and a living figure."""
    from unittest.mock import patch

    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    shown: list[str] = []
    with patch("IPython.display.display", lambda made: shown.append(made.data)):
        figures.table([{"model": "small", "largest weight": 0.123, "room to move": 1200},
                       {"model": "large", "largest weight": 12.5, "room to move": 7}], "Two")
        with plt.rc_context():
            figures.use_style()
            figure, axes = plt.subplots(figsize=(3, 1.5))
            axes.plot([1, 3, 2])
            axes.set_xlabel("steps")
            figures.show(figure, "A line that rises and falls again.", "What it shows.")
        figures.insights(["A line with `code`.", "Another line."])
    shown.append(living_html("addition", {}))
    return "".join(shown)


@pytest.mark.parametrize("reader", ["light", "dark"])
@pytest.mark.parametrize("host", HOSTS)
def test_outputs_can_be_read_in_the_frame_of_a_host(browser, outputs, host, reader, tmp_path):
    root, body, head, dark = HOSTS[host]
    document = f"<!doctype html><html {root}><head>{head}</head><body {body}>{outputs}</body>"
    frame = (f'<iframe sandbox="allow-scripts" style="width:700px;height:900px" '
             f'srcdoc="{html.escape(document)}"></iframe>')
    page_file = tmp_path / "page.html"
    page_file.write_text(frame, encoding="utf-8")
    with browser_context(browser) as context:
        page = context.new_page()
        page.emulate_media(color_scheme=reader)
        page.goto(page_file.as_uri())
        inside = page.frames[1]
        inside.wait_for_load_state()
        seen = inside.evaluate(LOOK)
    dark = reader == "dark" if dark is None else dark
    assert len(seen["texts"]) > 12 and seen["lines"] == 3
    for tag, text, ink, contrast in seen["texts"]:
        assert (ink > 0.3) == dark, f"{tag} {text!r}: ink of lightness {ink:.2f}"
        assert contrast >= 4.5, f"{tag} {text!r}: contrast {contrast:.1f}"
    assert min(seen["gaps"]) >= 8, f"headings {seen['gaps']} px apart"
    assert all(seen["alive"]), "the living figure is still"
