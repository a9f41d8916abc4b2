"""BPE against tiktoken (encoding) and against the Rust library tokenizers (training, files)."""

import base64
import random
import re
from pathlib import Path

import pytest
import tiktoken
import tokenizers
from tiktoken_ext import openai_public
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from scratchbook.data import standard_library
from scratchbook.tokenizers import BPETokenizer, bpe_files
from scratchbook.tokenizers.splits import LATER, PATTERNS

TIKTOKEN = f"tiktoken {tiktoken.__version__}"
RUST = f"tokenizers {tokenizers.__version__}"
PUBLISHED = {"gpt2": "r50k_base", "cl100k": "cl100k_base", "o200k": "o200k_base"}
EVERY_CHARACTER = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]

SPACES = [*"\t\n\v\f\r\x1c\x1f \x85\xa0\u1680\u180e\u2003\u2028\u200b\u3000\ufeff", "\r\n", "    "]
WORDS = """
the hello HTTPServer iPhone don't we're I'LL naïve 1234567 3.14 foo_bar() == //// != 's 'S 'ſ 'Re
'vE 'LL K ǅ ʰ ー ʕ ʖ ² ½ Ⅷ ٣ 中文 שלום क्ष é ‍ ️ 👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 <|endoftext|>
"""
WORDS = [*re.split(r"[ \n]", WORDS), "e\u0301", "\u200d", "\ufe0f", "\u212a"]


def later_characters() -> list[str]:
    """The ends of each span of the table in splits.py, and their neighbours outside."""
    ends = [int(end, 16) for span in LATER.split() for end in span.split("-")]
    return [chr(end + step) for end in ends for step in (-1, 0, 1)]


def random_texts(number: int, seed: int) -> list[str]:
    """Short texts, each mixed from one to four kinds of pieces, on all planes of Unicode."""
    rng = random.Random(seed)
    later = later_characters()
    kinds = [
        lambda: rng.choice(SPACES),
        lambda: rng.choice(" \n\t\r") * rng.randint(1, 9),
        lambda: chr(rng.randrange(128)),
        lambda: rng.choice("ABCabc12'./ \n"),
        lambda: chr(rng.randrange(0xC0, 0x600)),
        lambda: rng.choice(EVERY_CHARACTER),
        lambda: rng.choice(EVERY_CHARACTER[:0x3000]),
        lambda: rng.choice(later),
        lambda: rng.choice(WORDS),
    ]
    texts = []
    for _ in range(number):
        mixed = rng.sample(kinds, rng.randint(1, 4))
        texts.append("".join(rng.choice(mixed)() for _ in range(rng.randint(1, 40))))
    return texts


def differences(ours, theirs, texts) -> int:
    return sum(ours(text) != theirs(text) for text in texts)


# encoding, against tiktoken


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request, module_dataset):
    """Our tokenizer and tiktoken's, each read from the rank file by its own code."""
    name = PUBLISHED[request.param]
    path = module_dataset(name)
    lines = (line.split() for line in path.read_bytes().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    with pytest.MonkeyPatch.context() as patch:  # tiktoken would fetch the file, and cache it
        patch.setattr(openai_public, "load_tiktoken_bpe", lambda *_, **__: ranks)
        theirs = tiktoken.Encoding(**getattr(openai_public, name)())
    return BPETokenizer.from_tiktoken(path, request.param), theirs


@pytest.fixture(scope="module")
def module_dataset():
    from scratchbook.data import DownloadError, fetch

    def path(name: str) -> Path:
        try:
            return fetch(name)
        except DownloadError as error:
            pytest.skip(str(error))

    return path


def test_vocabulary(published):
    ours, theirs = published
    assert ours.ranks == theirs._mergeable_ranks
    assert ours.special_tokens == theirs._special_tokens
    assert ours.vocab_size == theirs.n_vocab


def test_random_texts(published, parity):
    ours, theirs = published
    texts = random_texts(4_000, seed=0)
    wrong = differences(ours.encode_ordinary, theirs.encode_ordinary, texts)
    assert all(ours.decode(ours.encode_ordinary(text)) == text for text in texts)
    assert parity(f"BPE encoding, {theirs.name}, random texts", against=TIKTOKEN, error=wrong,
                  cases=len(texts))


def test_character_by_character(published, parity):
    """All of planes 0 and 1, where the scripts are; of the others, one in 16 and all edges."""
    ours, theirs = published
    characters = EVERY_CHARACTER[:0x20000] + EVERY_CHARACTER[0x20000::16] + later_characters()
    # what surrounds a character decides which alternative of the pattern meets it
    texts = [
        "".join(f"a{character}A {character}1" for character in characters[start : start + 4096])
        for start in range(0, len(characters), 4096)
    ]
    wrong = differences(ours.encode_ordinary, theirs.encode_ordinary, texts)
    assert parity(f"BPE encoding, {theirs.name}, character by character", against=TIKTOKEN,
                  error=wrong,
                  cases=len(characters))


def test_code(published, parity):
    ours, theirs = published
    texts = [*standard_library(1_500_000), "".join(standard_library(300_000))]
    wrong = differences(ours.encode_ordinary, theirs.encode_ordinary, texts)
    assert parity(f"BPE encoding, {theirs.name}, Python code", against=TIKTOKEN, error=wrong,
                  cases=sum(map(len, texts)))


LONG_CHUNKS = {
    "one letter": "a" * 1_000_000,
    "accented": "é" * 100_000,
    "spaces": " " * 50_000 + "\n" * 50_000,
    "one word": "antidisestablishmentarianism" * 4_000,
    "dots": "." * 100_000,
}


@pytest.mark.parametrize("name", LONG_CHUNKS)
def test_a_long_chunk(published, name):
    text = LONG_CHUNKS[name] if published[0].pattern == "gpt2" else LONG_CHUNKS[name][:100_000]
    # quadratic time would not be a failure but an hour: a million letters make one chunk
    ours, theirs = published
    try:
        expected = theirs.encode_ordinary(text)
    except BaseException as error:  # its regex engine has a stack, and panics when it is full
        assert "StackOverflow" in str(error)
        assert ours.decode(ours.encode_ordinary(text)) == text
    else:
        assert ours.encode_ordinary(text) == expected


def test_special_tokens(published):
    ours, theirs = published
    text = "a  <|endoftext|>\n<|endoftext|> b<|endoftext"
    for allowed in ("all", {"<|endoftext|>"}):
        assert ours.encode(text, allowed) == theirs.encode(text, allowed_special=allowed)
    assert ours.encode_ordinary(text) == theirs.encode(text, disallowed_special=())
    for encode in (ours.encode, theirs.encode):
        with pytest.raises(ValueError, match="endoftext"):
            encode(text)


def test_surrogates_refused_here_are_replaced_there(published):
    ours, theirs = published
    for text in ("a\ud83d", "\ude00\ud83d b", "\ud83d\ude00"):
        with pytest.raises(ValueError, match="surrogate"):
            ours.encode(text)
        way_out = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        assert ours.encode(way_out) == theirs.encode(text)


def test_gpt2s_own_files(dataset, parity):
    ours = BPETokenizer.from_gpt2(dataset("gpt2_encoder"), dataset("gpt2_vocab"))
    other = BPETokenizer.from_tiktoken(dataset("r50k_base"), "gpt2")
    assert ours.special_tokens == other.special_tokens == {"<|endoftext|>": 50256}
    assert len(ours.merges) == 50_000
    wrong = sum(other.ranks.get(token) != rank for token, rank in ours.ranks.items())
    assert parity("GPT-2's encoder.json and vocab.bpe", against="r50k_base's ranks", error=wrong,
                  cases=len(ours.ranks))


# training and files, against the Rust library


def rust_trained(texts, vocab_size: int, pattern: str, special_tokens=()) -> Tokenizer:
    library = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern == "gpt2")
    if pattern == "gpt2":
        library.pre_tokenizer = byte_level
    else:
        split = pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated")
        library.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(special_tokens),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    return library


def rust_ranks(library: Tokenizer) -> dict[bytes, int]:
    return {bpe_files.from_visible(token): rank for token, rank in library.get_vocab().items()}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_training_on_code(pattern, parity):
    texts = standard_library(1_500_000)
    ours = BPETokenizer(pattern).train(texts, 4_096)
    theirs = rust_ranks(rust_trained(texts, 4_096, pattern))
    assert len(theirs) == 4_096
    wrong = sum(theirs.get(token) != rank for token, rank in ours.ranks.items())
    assert parity(f"BPE training on code, {pattern}", against=RUST, error=wrong,
                  cases=len(ours.merges))


def test_training_on_plays(dataset, parity):
    lines = dataset("tinyshakespeare").read_text(encoding="utf-8").splitlines(keepends=True)
    # to the very end, where thousands of pairs occur once and every choice is a tie
    ours = BPETokenizer("gpt2").train(lines, 60_000)
    theirs = rust_ranks(rust_trained(lines, 60_000, "gpt2"))
    assert len(theirs) < 60_000
    wrong = sum(theirs.get(token) != rank for token, rank in ours.ranks.items())
    wrong += abs(len(theirs) - len(ours.ranks))
    assert parity("BPE training until no pair is left", against=RUST, error=wrong,
                  cases=len(theirs))


def test_training_on_runs_and_every_script(parity):
    rng = random.Random(1)
    runs = ["".join(rng.choices("ab", k=rng.randint(1, 30))) for _ in range(2_000)]
    texts = [*runs, *random_texts(2_000, seed=2)]
    ours = BPETokenizer("gpt2").train(texts, 3_000)
    theirs = rust_ranks(rust_trained(texts, 3_000, "gpt2"))
    wrong = sum(theirs.get(token) != rank for token, rank in ours.ranks.items())
    assert parity("BPE training on runs and every script", against=RUST, error=wrong,
                  cases=len(ours.merges))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_our_file_in_the_rust_library(pattern, tmp_path, parity):
    ours = BPETokenizer(pattern).train(standard_library(300_000), 2_000, ["<|end|>", "<|pad|>"])
    ours.save_tokenizers(tmp_path / "tokenizer.json")
    theirs = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = [text for text in random_texts(2_000, seed=3) if "<|" not in text]
    texts += standard_library(200_000)
    wrong = differences(ours.encode, lambda text: theirs.encode(text).ids, texts)
    assert theirs.get_vocab_size() == ours.vocab_size
    assert theirs.encode("a<|end|> b").ids == ours.encode("a<|end|> b", "all")
    assert all(theirs.decode(ours.encode(text)) == text for text in texts)
    assert parity(f"tokenizer.json written, {pattern}", against=RUST, error=wrong, cases=len(texts))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_rust_librarys_file_here(pattern, tmp_path, parity):
    texts = standard_library(300_000)
    theirs = rust_trained(texts, 2_000, pattern, special_tokens=["<|end|>"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = BPETokenizer.from_tokenizers(tmp_path / "tokenizer.json")
    assert ours.pattern == pattern
    assert ours.special_tokens == {"<|end|>": 0}  # the library puts them first
    texts += [text for text in random_texts(2_000, seed=4) if "<|end|>" not in text]
    wrong = differences(ours.encode, lambda text: theirs.encode(text).ids, texts)
    assert ours.encode("a<|end|> b", "all") == theirs.encode("a<|end|> b").ids
    assert parity(f"tokenizer.json read, {pattern}", against=RUST, error=wrong, cases=len(texts))
