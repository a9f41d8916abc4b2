"""Turns the chapters into a book: runs them, keeps them tidy, says what they cost.

The files lie beside the book's builder, in `book/publishing`, and travel inside the wheel; this
line makes them importable from both places as `scratchbook.publishing.NAME`.
"""

from scratchbook.runtime import repository_root

if root := repository_root():
    __path__.append(str(root / "book" / "publishing"))
