"""Characters as tokens: nothing is lost that was seen, and what was not is handled as promised."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.tokenizers import CharTokenizer, Tokenizer

TEXT = "to be, or not to be: that is the question"


def test_worked_example():
    tokenizer = CharTokenizer().train("hello")
    assert tokenizer.tokens == ["<unk>", "e", "h", "l", "o"]
    assert tokenizer.encode("hole") == [2, 4, 3, 1]
    assert tokenizer.decode([2, 4, 3, 1]) == "hole"
    assert tokenizer.vocab_size == 5


def test_hello_world_comes_back():
    tokenizer = CharTokenizer().train("Hello, world!")
    assert tokenizer.decode(tokenizer.encode("Hello, world!")) == "Hello, world!"


@settings(deadline=None)
@given(st.text(min_size=1), st.text())
def test_decode_undoes_encode_on_characters_seen_in_training(seen, other):
    tokenizer = CharTokenizer().train(seen)
    text = "".join(c for c in other if c in seen) + seen
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(deadline=None)
@given(st.text())
def test_one_token_per_character_also_for_the_unknown(text):
    assert len(CharTokenizer().train(TEXT).encode(text)) == len(text)


def test_an_unseen_character_is_unknown_and_visible():
    tokenizer = CharTokenizer().train("naive")
    assert tokenizer.encode("naïve")[2] == 0
    assert tokenizer.decode(tokenizer.encode("naïve")) == "na<unk>ve"


def test_the_error_policy_names_the_character_and_has_no_unknown_token():
    tokenizer = CharTokenizer(unknown="error").train("naive")
    assert tokenizer.tokens == list("aeinv")
    assert tokenizer.decode(tokenizer.encode("naive")) == "naive"
    with pytest.raises(ValueError, match=r"'ï' \(U\+00EF\)"):
        tokenizer.encode("naïve")


def test_a_small_vocabulary_keeps_the_most_frequent_characters():
    tokenizer = CharTokenizer().train("aaabbc" + "d", vocab_size=3)
    assert tokenizer.tokens == ["<unk>", "a", "b"]
    # equally frequent: the smaller code point stays, whatever came first
    assert CharTokenizer().train("ddaaccbb", vocab_size=3).tokens == ["<unk>", "a", "b"]


def test_a_vocabulary_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="vocab_size=1 leaves no room"):
        CharTokenizer().train("abc", vocab_size=1)
    with pytest.raises(ValueError, match="room for 2 of the 3 characters"):
        CharTokenizer(unknown="error").train("abc", vocab_size=2)
    assert CharTokenizer(unknown="error").train("abc", vocab_size=3).vocab_size == 3


def test_several_texts_in_any_order_give_the_same_vocabulary():
    texts = TEXT.split()
    shuffled = random.Random(0).sample(texts, len(texts))
    assert CharTokenizer().train(texts).tokens == CharTokenizer().train(iter(shuffled)).tokens
    assert CharTokenizer().train(texts).tokens == CharTokenizer().train("".join(texts)).tokens


def test_special_tokens_are_single_ids_only_when_allowed():
    tokenizer = CharTokenizer().train("a<|end|>b", special_tokens=["<|end|>"])
    assert tokenizer.tokens == ["<unk>", "a", "b", "<|end|>"]  # its letters were not learned
    with pytest.raises(ValueError, match=r"spells the special token '<\|end\|>' at position 1"):
        tokenizer.encode("a<|end|>b")
    assert tokenizer.encode("a<|end|>b", allowed_special="all") == [1, 3, 2]
    assert tokenizer.decode([1, 3, 2]) == "a<|end|>b"
    assert len(tokenizer.encode_ordinary("<|end|>")) == 7


def test_text_that_spells_the_unknown_token_stays_text():
    tokenizer = CharTokenizer().train("<unk>")
    assert 0 not in tokenizer.encode("<unk>")


def test_the_unknown_token_may_be_special_too():
    tokenizer = CharTokenizer().train("ab", special_tokens=["<unk>"])
    assert tokenizer.tokens == ["<unk>", "a", "b"]
    assert tokenizer.encode("a<unk>c", allowed_special="all") == [1, 0, 0]
    with pytest.raises(ValueError, match="spells the special token '<unk>'"):
        tokenizer.encode("a<unk>")


@pytest.mark.parametrize("unknown", ["unk", "error"])
def test_saved_and_loaded_it_is_the_same(tmp_path, unknown):
    tokenizer = CharTokenizer(unknown).train("é\n\u2028\x00漢😀", special_tokens=["<|end|>"])
    tokenizer.save(tmp_path / "char.json")
    for loaded in (CharTokenizer.load(tmp_path / "char.json"), Tokenizer.load(
            tmp_path / "char.json")):
        assert loaded.tokens == tokenizer.tokens
        assert (loaded.unknown, loaded.special_tokens) == (unknown, tokenizer.special_tokens)
        assert loaded.encode("漢é") == tokenizer.encode("漢é")


def test_wrong_use_is_explained():
    with pytest.raises(ValueError, match="'skip' must be 'unk' or 'error'"):
        CharTokenizer(unknown="skip")
    with pytest.raises(ValueError, match="the vocabulary is empty"):
        CharTokenizer().encode("a")
    with pytest.raises(ValueError, match="the corpus is empty"):
        CharTokenizer().train([])
    tokenizer = CharTokenizer().train("ab")
    for token_id in (-1, 3):
        with pytest.raises(ValueError, match=rf"{token_id} is outside of 0..2"):
            tokenizer.decode([token_id])
    with pytest.raises(ValueError, match="U\\+D83D"):
        tokenizer.encode("a\ud83d")
