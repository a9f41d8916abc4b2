"""The Smalltalk tokenizer against the Rust library: the same cut, the same merges, the same ids."""

import random

import tokenizers
from test_smalltalk_tokenizer import METHODS, TOKENIZER
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from scratchbook.smalltalk.parts import SPECIAL_TOKENS
from scratchbook.tokenizers.bpe_files import to_visible
from scratchbook.tokenizers.smalltalk import PATTERN

RUST = f"tokenizers {tokenizers.__version__}"
PIECES = ["self", " self", "super ", "at:", " put:", " x", "1", " 16r", "+", " -> #", ":=", " := ",
          "^", "[", " :each", " |", "|", "].", ")", ".", ";", "\n", "\n\t", "\t", " ", "\r\n", "'",
          '"', "#", "$'", "$ ", "true", "nil ", "é", "東", "\u2028", "\x85", "\U0001f600", "\0"]


def texts() -> list[str]:
    draw = random.Random(0)
    mixed = ["".join(draw.choices(PIECES, k=draw.randint(1, 20))) for _ in range(3000)]
    return METHODS + mixed


def test_ids_equal_those_of_the_rust_library(tmp_path, parity):
    TOKENIZER.save_tokenizers(tmp_path / "t.json")
    theirs = Tokenizer.from_file(str(tmp_path / "t.json"))
    different = [text for text in texts()
                 if theirs.encode(text).ids != TOKENIZER.encode_ordinary(text)]
    assert parity("Smalltalk tokenizer, ids", against=RUST, error=len(different),
                  cases=len(texts())), different[:3]
    for token in SPECIAL_TOKENS:
        assert theirs.encode(f"x {token}y").ids == TOKENIZER.encode(f"x {token}y", "all")


def test_merges_equal_those_of_the_rust_library(parity):
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=TOKENIZER.vocab_size - len(SPECIAL_TOKENS),
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    theirs.train_from_iterator(METHODS, trainer)
    ours = {to_visible(token): rank for token, rank in TOKENIZER.ranks.items()}
    different = set(ours.items()) ^ set(theirs.get_vocab().items())
    assert parity("Smalltalk tokenizer, merges", against=RUST, error=len(different),
                  cases=len(ours)), sorted(different)[:3]
