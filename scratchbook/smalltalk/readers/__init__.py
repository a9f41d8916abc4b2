"""Readers of the file formats that Smalltalk code is kept in, each yielding the same records.

`read_folder` and `read_repository` take a whole project and choose the reader of each file.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from scratchbook.smalltalk.readers.chunk import read_chunks
from scratchbook.smalltalk.readers.filetree import read_class_file, read_method_file
from scratchbook.smalltalk.readers.folders import read_file, read_folder, read_repository
from scratchbook.smalltalk.readers.gemstone import read_topaz
from scratchbook.smalltalk.readers.gnu import read_bracketed
from scratchbook.smalltalk.readers.monticello import read_mcz
from scratchbook.smalltalk.readers.origins import Origin
from scratchbook.smalltalk.readers.tonel import read_tonel
from scratchbook.smalltalk.readers.visualworks import read_visualworks

__all__ = ["Origin", "read_bracketed", "read_chunks", "read_class_file", "read_file",
           "read_folder", "read_mcz", "read_method_file", "read_repository", "read_tonel",
           "read_topaz", "read_visualworks"]
