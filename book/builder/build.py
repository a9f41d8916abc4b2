"""Build the book: run the chapters, stage the sources, call jupyter-book, tidy the result.

    python -m book.builder.build               # runs the chapters first
    python -m book.builder.build --committed   # takes their committed outputs
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from book.builder import colab
from book.builder.stage import EXECUTED, SITE, STAMP, fingerprint, stage

# MathJax as packaged holds every input, output and speech rule it knows: 24 MB. Pages here
# load tex-chtml.js and, from it, the web fonts and the TeX extensions.
MATHJAX_KEPT = ("tex-chtml.js", "output/chtml/fonts", "input/tex/extensions")
_JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m book.builder.build",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("--committed", action="store_true",
                        help="do not run the chapters: show their committed outputs")
    parser.add_argument("--workers", type=int, default=2, help="chapters run side by side")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2],
                        help="the repository (default: the one this file lies in)")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    if not options.committed and not run_chapters(root, options.workers):
        return 1
    return build(root, None if options.committed else root / EXECUTED)


def run_chapters(root: Path, workers: int) -> bool:
    """Execute every chapter in its quick profile into build/executed; True when all passed."""
    from scratchbook.publishing.chapters import all_chapters
    from scratchbook.publishing.execute import execute_chapters

    output = root / EXECUTED
    shutil.rmtree(output, ignore_errors=True)
    receipts = execute_chapters(all_chapters(root / "chapters"), output, "quick", workers)
    return all(receipt.passed for receipt in receipts)


def build(root: Path, executed: Path | None = None) -> int:
    """Build the site of the repository at `root` and return the exit status.

    `executed` is a folder of freshly run chapters; without it the committed ones are shown.
    """
    start = time.perf_counter()
    staged = stage(root, executed)
    site = root / SITE
    shutil.rmtree(site, ignore_errors=True)   # no page of an earlier book survives
    # jupyter-book adds _build/html to the path it is given
    command = [sys.executable, "-c", _JUPYTER_BOOK, "build", "-W", "-n", "--keep-going", "-q",
               "--path-output", str(root), str(staged)]
    status = subprocess.run(command, check=False, cwd=root).returncode
    if status:
        print("the book was not built: mend the warnings above (each counts as an error)")
        return status
    prune(site)
    colab.write_copies(root, site)
    for page in site.rglob("*.html"):
        tidy(page)
    (site / STAMP).write_text(fingerprint(root), encoding="utf-8")
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) / 1e6
    print(f"built {sum(1 for _ in site.rglob('*.html'))} pages, {size:.1f} MB, "
          f"in {time.perf_counter() - start:.0f} s")
    print(f"open {(site / 'index.html').as_uri()}")
    print("\n".join(stale(root)))
    return 0


def stale(root: Path) -> list[str]:
    """A line for each command whose recorded results are stale; it renews them."""
    from scratchbook.teaching.results import is_stale

    found: dict[str, list[str]] = {}
    for path in sorted((root / "book" / "results").glob("*.json")):
        entry = json.loads(path.read_text(encoding="utf-8"))
        if is_stale(entry["name"], entry["command"], entry["fingerprint"]):
            found.setdefault(entry["command"], []).append(entry["name"])
    return [f"stale: {', '.join(names)}; renew by: {command}" for command, names in found.items()
            ] or ["every recorded result is current"]


def prune(site: Path) -> None:
    """Remove what no page loads: the parts of MathJax never asked for, maps, templates."""
    static = site / "_static"
    for path in sorted(static.rglob("*")):
        inner = path.relative_to(static).as_posix()
        wanted = inner.removeprefix("mathjax/").startswith(MATHJAX_KEPT)
        unread = inner.endswith((".map", ".html")) or inner.startswith("locales/")
        if path.is_file() and (unread or (inner.startswith("mathjax/") and not wanted)):
            path.unlink()
    for path in sorted(static.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def tidy(page: Path) -> None:
    """Mend what hinders screen readers in the HTML of myst-nb and docutils.

    A folded cell is called by what it shows, not "Toggle hidden content"; a bibliography is
    no ARIA list, whose children could be list items only.
    """
    text = page.read_text(encoding="utf-8")
    mended = text.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    mended = mended.replace('<div role="list" class="citation-list">',
                            '<div class="citation-list">')
    if mended != text:
        page.write_text(mended, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
