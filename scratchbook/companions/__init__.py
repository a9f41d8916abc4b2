"""What belongs to a single chapter: the checks of its exercises and the plumbing of its figures.

The files lie beside the notebooks, in `chapters/companions`, and travel inside the wheel; this
line makes them importable from both places as `scratchbook.companions.NAME`.
"""

from scratchbook.runtime import repository_root

if root := repository_root():
    __path__.append(str(root / "chapters" / "companions"))
