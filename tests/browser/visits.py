"""Visits every page of the built site once in a real browser and notes what it finds.

One browser, the network blocked: whatever is not a file of the site is recorded and refused.
The tests then read the notes, so that no page is opened twice.
"""

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scratchbook.publishing.doctor import find_browser

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
         "--disable-component-update", "--disable-default-apps", "--no-first-run",
         "--disable-dev-shm-usage"]
OURS = [["article"], [".bd-header-article"]]   # what axe looks at: content and its header
GRAVE = ("serious", "critical")
# axe would load each stylesheet again, which a page opened from a file may not do
AXE = {"resultTypes": ["violations"], "preload": False}
DARK = AXE | {"runOnly": {"type": "rule", "values": ["color-contrast"]}}  # what a theme changes

# Elements of our content that a reader who cannot see gets nothing from.
NAMELESS = """() => [...document.querySelectorAll('article img, article svg[role=img]')]
  .filter(e => !(e.getAttribute('alt') || e.getAttribute('aria-label')
    || e.querySelector(':scope > title')))
  .map(e => e.outerHTML.slice(0, 120))"""
UNLABELLED_FIGURES = """() => [...document.querySelectorAll('article figure.sb-figure svg')]
  .filter(e => !e.parentElement.closest('svg') && e.getAttribute('role') !== 'img')
  .map(e => e.outerHTML.slice(0, 120))"""
# Elements that stick out of a narrow page, outside of boxes that scroll by themselves.
OVERFLOW = """() => {
  const root = document.scrollingElement, width = root.clientWidth;
  if (root.scrollWidth <= width) return [];
  const boxed = e => {
    for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
      if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(p).overflowX)) return true;
    return false; };
  const wide = [...document.body.querySelectorAll('*')].filter(e =>
    e.getBoundingClientRect().right > width + 1 && !boxed(e));
  return [`page is ${root.scrollWidth} px wide`,
    ...wide.slice(0, 4).map(e => e.outerHTML.slice(0, 120))];
}"""
# The colours of code, which axe would measure word by word: each pair of colours once.
CODE_CONTRAST = """() => {
  const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (!/^rgba.*, 0\\)$|transparent/.test(c)) return c; }
    return 'rgb(255, 255, 255)'; };
  const seen = new Map();
  for (const e of document.querySelectorAll('article .highlight span')) {
    if (!e.firstChild || e.firstChild.nodeType !== 3 || !e.textContent.trim()) continue;
    const pair = [getComputedStyle(e).color, behind(e)];
    if (!seen.has(pair.join())) seen.set(pair.join(), [pair, e.className, e.textContent]);
  }
  return [...seen.values()].flatMap(([[ink, paper], name, text]) => {
    const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    return ratio < 4.5 ? [`code ${name} '${text}': ${ink} on ${paper} is ${ratio.toFixed(2)}`] : [];
  });
}"""
THEME = "theme => { document.documentElement.dataset.theme = theme }"
# axe's time grows with every element of the page: take away what it is not asked about, the lines
# of drawn figures, and of the reference, whose entries have one template, each entry that has no
# element of a new kind. A kind is where it stands, its classes and attributes, and whether it is
# empty: whatever is wrong with one entry alone makes it another kind, and it stays.
THIN = """() => {
  document.querySelectorAll('.bd-sidebar, .bd-footer, dialog').forEach(e => e.remove());
  document.querySelectorAll('article .highlight pre').forEach(e => {
    e.textContent = e.textContent; });
  document.querySelectorAll('article svg[role=img] :is(path, use, clipPath)')
    .forEach(e => e.remove());
  const kind = (e, top) => (e === top ? '' : kind(e.parentElement, top)) + '>' + e.tagName + '.' +
    e.className + '[' + e.getAttributeNames() + ']' + (e.textContent.trim() ? '' : '-');
  const met = {};
  document.querySelectorAll('article dl.py:not(dl.py dl.py)').forEach(entry => {
    const kinds = [...entry.querySelectorAll('*')].map(e => kind(e, entry));
    if (kinds.every(name => met[name] >= 3)) { entry.remove(); return; }
    new Set(kinds).forEach(name => { met[name] = (met[name] || 0) + 1; });
  });
}"""
FORMULAS = """() => [document.querySelectorAll('article .math').length,
  document.querySelectorAll('article .math mjx-container').length,
  document.querySelectorAll('article mjx-merror, article merror').length]"""
HEADERS = """() => [...document.querySelectorAll('header.bd-header, .search-button__button')]
  .filter(e => e.checkVisibility() && e.getBoundingClientRect().height > 0).map(e => e.className)"""


@dataclass
class Visit:
    """What one page showed."""

    page: str
    console: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    nameless: list[str] = field(default_factory=list)
    overflow: list[str] = field(default_factory=list)
    axe: dict[str, list[str]] = field(default_factory=dict)
    formulas: tuple[int, int, int] = (0, 0, 0)
    headers: list[str] = field(default_factory=list)


def find_chromium() -> str | None:
    """The browser to drive: the one that `scratchbook doctor` names."""
    return find_browser() or None


@contextmanager
def browser_context(browser, width: int = 1280, height: int = 900):
    """A fresh context whose every request beyond the site's own files is refused."""
    context = browser.new_context(viewport={"width": width, "height": height},
                                  color_scheme="light", reduced_motion="reduce")
    context.set_default_timeout(15_000)
    context.route(re.compile(r"^(https?|wss?|ftp):"), lambda route: route.abort())
    try:
        yield context
    finally:
        context.close()


def open_page(context, path: Path, query: str = ""):
    """Open a file of the site in a new tab."""
    page = context.new_page()
    page.goto(path.as_uri() + query)
    return page


def open_watched(context, path: Path):
    """Open a file in a new tab that keeps what it asks for (`asked`) and its `complaints`."""
    page = context.new_page()
    page.asked, page.complaints = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda message: message.type == "error"
            and page.complaints.append(message.text))
    page.goto(path.as_uri())
    return page


def outside(page) -> list[str]:
    """What a watched page asked for that is neither a file nor made by itself."""
    return [url for url in page.asked if not re.match("(file|blob|data):", url)]


class Visitor:
    """Goes through the site in one tab: a new one for each page costs more than the page."""

    def __init__(self, context, site: Path, axe) -> None:
        self.site, self.axe, self.page = site, axe, context.new_page()
        self.notes = Visit("")
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.notes.console.append(str(error)))
        self.page.on("request", self._watch)

    def _hear(self, message) -> None:
        if message.type == "error":
            self.notes.console.append(message.text)

    def _watch(self, request) -> None:
        if not re.match(r"(file|data|blob|about):", request.url):
            self.notes.outside.append(request.url)

    def visit_all(self) -> list[Visit]:
        """Visit every page. Listings of source have one template: axe looks at three of them."""
        paths = sorted(self.site.rglob("*.html"))
        listings = [path for path in paths if "_modules" in path.parts][3:]
        return [self.visit(path, path not in listings) for path in paths]

    def visit(self, path: Path, with_axe: bool = True) -> Visit:
        """Look at one page: narrow, light and dark."""
        self.notes = notes = Visit(path.relative_to(self.site).as_posix())
        page = self.page
        page.goto(path.as_uri())
        page.evaluate("() => window.MathJax?.startup?.promise")
        notes.formulas = tuple(page.evaluate(FORMULAS))
        notes.headers = page.evaluate(HEADERS)
        notes.nameless = page.evaluate(NAMELESS) + page.evaluate(UNLABELLED_FIGURES)
        page.set_viewport_size({"width": 360, "height": 780})
        notes.overflow = page.evaluate(OVERFLOW)
        page.set_viewport_size({"width": 1280, "height": 900})
        if page.query_selector("article"):
            self._themes(notes, with_axe)
        return notes

    def _themes(self, notes: Visit, with_axe: bool) -> None:
        for theme in ("light", "dark"):
            self.page.evaluate(THEME, theme)
            notes.axe[theme] = self.page.evaluate(CODE_CONTRAST)
        if not with_axe:
            return
        self.page.evaluate(THIN)
        for theme, options in (("light", AXE), ("dark", DARK)):
            self.page.evaluate(THEME, theme)
            notes.axe[theme] += grave(self.axe, self.page, options)


def grave(axe, page, options: dict) -> list[str]:
    """What axe calls serious or critical in our content, a line per element."""
    present = [where for where in OURS if page.query_selector(where[0])]
    found = axe.run(page, context={"include": present}, options=options)
    return [f"{violation['id']}: {node['html'][:160]} ({_why(node)})"
            for violation in found.response["violations"] if violation["impact"] in GRAVE
            for node in violation["nodes"][:4]]


def _why(node: dict) -> str:
    checks = node.get("any") or node.get("all") or node.get("none") or [{}]
    return checks[0].get("message", "")
