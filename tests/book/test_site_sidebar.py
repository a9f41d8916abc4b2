"""The sidebar of listings is drawn once, and no page gets one that is not its own."""

from types import SimpleNamespace

from book.builder.sidebar import remember


def test_listings_share_a_sidebar_and_other_pages_have_their_own():
    asked = []

    def draw(page, collapse=True, **options):
        asked.append(page)
        where = "a listing" if page.startswith("_modules/") else page
        return f"{'../' * page.count('/')} {where} {collapse} {options}"

    builder = SimpleNamespace(_get_local_toctree=draw)
    remember(SimpleNamespace(builder=builder))
    pages = ["_modules/a/b", "_modules/a/c", "_modules/a/d/e", "_modules/index", "chapters/x",
             "chapters/y", "index"]
    for options in ({}, {"maxdepth": 2}, {"maxdepth": 2, "collapse": False}):
        for page in pages:
            assert builder._get_local_toctree(page, **options) == draw(page, **options)
    seen = [page for page in asked if page == "_modules/a/c"]
    assert len(seen) == 3  # by this test alone: the builder had it from its neighbour
    remember(SimpleNamespace(builder=SimpleNamespace()))  # a builder without pages is left alone
