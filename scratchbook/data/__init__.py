"""Text to learn from: what every Python carries, and named downloads checked by hash.

Adds:       two corpora that need no network, and `fetch` for the files of `data/registry.toml`
Leaves out: what is done with them; see documents, dedupe, held_out, token_files, packing, mixing
Chapter:    chapters/00_start_here.ipynb
"""

from scratchbook.data.corpora import library_documents, python_manual, standard_library
from scratchbook.data.downloads import (
    Dataset,
    DownloadError,
    available,
    cache_folder,
    fetch,
    registry,
)

__all__ = [
    "Dataset",
    "DownloadError",
    "available",
    "cache_folder",
    "fetch",
    "library_documents",
    "python_manual",
    "registry",
    "standard_library",
]
