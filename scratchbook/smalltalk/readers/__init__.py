"""Readers of the file formats that Smalltalk code is kept in, each yielding the same records.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from scratchbook.smalltalk.readers.chunk import read_chunks
from scratchbook.smalltalk.readers.origins import Origin
from scratchbook.smalltalk.readers.tonel import read_tonel

__all__ = ["Origin", "read_chunks", "read_tonel"]
