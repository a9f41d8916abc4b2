"""WordPiece against the `tokenizers` library: the same words, pieces, ids and decoded text."""

import random

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from scratchbook.data import python_manual, standard_library
from scratchbook.tokenizers import WordPieceTokenizer
from scratchbook.tokenizers.wordpiece import split_words

AGAINST = f"tokenizers {tokenizers.__version__}"
BERT_WORDS = pre_tokenizers.BertPreTokenizer()
LETTERS = "abcdefghijklmnopqrstuvwxyzABCXYZ0123éßñжд漢字😀\u0301#'-_"


@pytest.fixture(scope="module")
def trained():
    return WordPieceTokenizer().train(python_manual()[:200_000], 2_000)


def random_words(number, seed):
    rng = random.Random(seed)
    return ["".join(rng.choices(LETTERS, k=rng.randint(1, 24))) for _ in range(number)]


def real_words():
    text = python_manual() + "".join(standard_library(1_000_000))
    return sorted(set(text.split()))


def disagreements(tokenizer, words):
    """How often the library's model cuts a word otherwise."""
    library = models.WordPiece(
        {piece: i for i, piece in enumerate(tokenizer.pieces)}, unk_token=tokenizer.unknown,
        max_input_chars_per_word=tokenizer.max_word_chars,
        continuing_subword_prefix=tokenizer.prefix)
    return sum([token.value for token in library.tokenize(word)] != tokenizer.segment(word)
               for word in words)


def test_segmentation_of_random_and_real_words(trained, parity):
    words = random_words(5_000, 0) + real_words()
    assert len(words) > 20_000
    known = sum(trained.segment(word) != ["[UNK]"] for word in words)
    assert len(words) / 10 < known < len(words)  # both outcomes are compared
    assert parity("WordPiece segmentation", against=AGAINST, error=disagreements(trained, words),
                  cases=len(words))


@pytest.mark.parametrize("seed", range(20))
def test_segmentation_with_random_vocabularies(seed):
    """Vocabularies in which pieces overlap and gaps are common, another prefix, a short limit."""
    rng = random.Random(seed)
    prefix = rng.choice(["##", "@@", "_"])
    pieces = {"".join(rng.choices("abc", k=rng.randint(1, 4))) for _ in range(25)}
    pieces |= {prefix + piece for piece in rng.sample(sorted(pieces), 12)}
    tokenizer = WordPieceTokenizer.from_vocab(
        ["<?>", *sorted(pieces)], unknown="<?>", prefix=prefix, max_word_chars=7)
    words = ["".join(rng.choices("abc", k=rng.randint(1, 9))) for _ in range(500)]
    assert disagreements(tokenizer, words) == 0


def test_long_words_at_the_limit(trained):
    words = ["a" * length for length in (99, 100, 101)] + ["漢" * 100, "é" * 101]
    assert disagreements(trained, words) == 0
    assert trained.segment("a" * 101) == ["[UNK]"] != trained.segment("a" * 100)


def test_words_of_every_character(parity):
    """Every code point between two letters. The library's tables end with Unicode 8 (2015): what
    differs is punctuation added since, and nothing before U+0600."""
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    differing = [
        point for point in points
        if split_words(f"a{chr(point)}b") != bert_words(f"a{chr(point)}b")
    ]
    assert len(differing) < 200
    assert parity("WordPiece pre-tokenization, each code point below U+0600", against=AGAINST,
                  error=sum(point < 0x600 for point in differing), cases=0x600)


def bert_words(text):
    return [word for word, _ in BERT_WORDS.pre_tokenize_str(text)]


def test_words_of_real_text(parity):
    texts = python_manual().splitlines() + "".join(standard_library(1_000_000)).splitlines()
    different = sum(split_words(text) != bert_words(text) for text in texts)
    assert parity("WordPiece pre-tokenization", against=AGAINST, error=different, cases=len(texts))


def test_ids_and_decoding_of_whole_texts(trained, parity):
    library = tokenizers.Tokenizer(models.WordPiece(
        {piece: i for i, piece in enumerate(trained.pieces)}, unk_token="[UNK]"))
    library.pre_tokenizer = BERT_WORDS
    library.decoder = decoders.WordPiece(cleanup=False)
    texts = [" ".join(random_words(12, seed)) for seed in range(300)]
    texts += python_manual().split("\n\n")
    error = 0
    for text in texts:
        ids = library.encode(text).ids
        error += trained.encode(text) != ids
        error += trained.decode(ids) != library.decode(ids)
        error += trained.decode(ids[1:]) != library.decode(ids[1:])  # begins inside a word
    assert parity("WordPiece ids and decoding", against=AGAINST, error=error, cases=len(texts))
