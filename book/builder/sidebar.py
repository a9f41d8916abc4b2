"""One sidebar for all listings of source.

Sphinx copies the whole table of contents, every entry of the reference included, to draw the
sidebar of each page. The listings, five pages in six, are no part of it: theirs are all alike but
for the way back to the top.
"""


def setup(app) -> dict:
    """Register with Sphinx."""
    app.connect("builder-inited", remember)
    return {"parallel_read_safe": True, "version": "1"}


def remember(app) -> None:
    """Let the builder draw the sidebar of listings once for each depth of folder."""
    draw, drawn = getattr(app.builder, "_get_local_toctree", None), {}
    if draw is None:  # a builder without pages
        return

    def toctree(page: str, collapse: bool = True, **options) -> str:
        if not page.startswith("_modules/"):
            return draw(page, collapse, **options)
        key = (page.count("/"), collapse, *sorted(options.items()))
        if key not in drawn:
            drawn[key] = draw(page, collapse, **options)
        return drawn[key]

    app.builder._get_local_toctree = toctree
