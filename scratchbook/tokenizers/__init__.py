"""Four ways to cut text into tokens, with one interface (see base.py).

Chapter:  chapters/01_tokenization.ipynb
"""

from scratchbook.tokenizers.base import Tokenizer
from scratchbook.tokenizers.bpe import BPETokenizer
from scratchbook.tokenizers.char import CharTokenizer
from scratchbook.tokenizers.unigram import UnigramTokenizer
from scratchbook.tokenizers.wordpiece import WordPieceTokenizer

__all__ = [
    "BPETokenizer",
    "CharTokenizer",
    "Tokenizer",
    "UnigramTokenizer",
    "WordPieceTokenizer",
]
