"""What all tokenizers refuse in the same words."""

import math

import numpy as np
import pytest

from scratchbook.tokenizers import (
    BPETokenizer,
    CharTokenizer,
    UnigramTokenizer,
    WordPieceTokenizer,
)

KINDS = (BPETokenizer, CharTokenizer, UnigramTokenizer, WordPieceTokenizer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [None, "300", 300.5, 300.0, math.nan, math.inf, True, [300]])
def test_a_vocab_size_that_is_no_whole_number_is_refused(kind, size):
    if kind is CharTokenizer and size is None:
        assert kind().train("abc", size).vocab_size == 4  # None keeps every character
        return
    with pytest.raises(ValueError, match="vocab_size=.* must be a whole number, such as 300"):
        kind().train("hello hello", size)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_number_of_numpy_is_one(kind):
    trained = kind().train("hello hello", np.int64(300))
    assert trained.encode("hello") == kind().train("hello hello", 300).encode("hello")
