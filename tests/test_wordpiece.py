"""WordPiece: greedy segmentation, three ways to learn the pieces, and what it loses."""

import math
import random
import time
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.tokenizers import Tokenizer, WordPieceTokenizer, wordpiece_training
from scratchbook.tokenizers.wordpiece import split_words
from scratchbook.tokenizers.wordpiece_training import MIN_COUNT, SCORES, learn_pieces

BERT = WordPieceTokenizer.from_vocab(
    ["[UNK]", "[CLS]", "[SEP]", "want", "##want", "##ed", "wa", "un", "runn", "##ing", ",", "low",
     "lowest", "##aff", "##able", "##a", "u", "##n", "##nd"],
    special_tokens=["[CLS]", "[SEP]"],
)
CORPUS = "low low low low low lower lower newest newest newest newest newest newest widest"
CORPUS += " widest widest"
words = st.text(st.characters(codec="utf-8"), max_size=40)


@pytest.mark.parametrize(("word", "pieces"), [
    ("unaffable", "un ##aff ##able"),  # the example of BERT's documentation
    ("unwanted", "un ##want ##ed"),
    ("lowest", "lowest"),  # the whole word, although "low" fits too
    ("unwantedX", "[UNK]"),  # one gap loses the word
    ("able", "[UNK]"),  # "##able" does not begin a word
    ("unlow", "[UNK]"),  # "low" does not continue one
])  # fmt: skip
def test_worked_examples(word, pieces):
    assert BERT.segment(word) == pieces.split()


def test_greed_can_miss_a_segmentation_that_exists():
    tokenizer = WordPieceTokenizer.from_vocab(["[UNK]", "ab", "abc", "##cd"])
    assert tokenizer.segment("abcd") == ["[UNK]"]  # "abc" is taken, "##d" is not there
    assert tokenizer.segment("abcd"[:3]) == ["abc"]


def test_long_words_are_unknown():
    tokenizer = WordPieceTokenizer.from_vocab(["[UNK]", "a", "##a"], max_word_chars=5)
    assert tokenizer.segment("aaaaa") == ["a"] + ["##a"] * 4
    assert tokenizer.segment("aaaaaa") == ["[UNK]"]


def test_a_word_too_long_to_be_cut_teaches_nothing_and_costs_nothing():
    long = "".join(random.Random(0).choices("abcdefghij", k=80_000))
    start = time.process_time()
    tokenizer = WordPieceTokenizer().train(f"{CORPUS} {long}", 2_000)
    assert time.process_time() - start < 5  # it was minutes: every join read the word again
    assert tokenizer.pieces == WordPieceTokenizer().train(CORPUS, 2_000).pieces
    assert tokenizer.segment(long) == ["[UNK]"]
    longest = WordPieceTokenizer(max_word_chars=5).train("abcde abcde vwxyzz vwxyzz", 50)
    assert "abcde" in longest.pieces and "v" not in longest.pieces


def test_words_and_punctuation():
    assert split_words("Don't stop,\tit's\u00a0$5!\n") == [
        "Don", "'", "t", "stop", ",", "it", "'", "s", "$", "5", "!"]
    assert split_words(" \n\u3000") == []
    assert split_words("snake_case=x^2") == ["snake", "_", "case", "=", "x", "^", "2"]
    assert split_words("漢字、é😀") == ["漢字", "、", "é😀"]


def test_encode_and_decode():
    ids = BERT.encode("unwanted, running lowest")
    assert " ".join(BERT.pieces[i] for i in ids) == "un ##want ##ed , runn ##ing lowest"
    assert BERT.decode(ids) == "unwanted , running lowest"
    assert BERT.decode(ids[1:]) == "##wanted , running lowest"  # nothing there to continue
    assert BERT.decode([]) == ""


NAIVE_SCORES = {
    "likelihood": lambda ab, a, b, total: ab * math.log(ab * total / (a * b)),
    "ratio": lambda ab, a, b, total: ab / (a * b),
    "count": lambda ab, a, b, total: ab,
}


def best_pairs(spelled, counts, score):
    """All pairs of the highest score, everything counted from nothing."""
    singles, pairs = Counter(), Counter()
    for word, spelling in spelled.items():
        for piece in spelling:
            singles[piece] += counts[word]
        for pair in pairwise(spelling):
            pairs[pair] += counts[word]
    scored = {
        pair: NAIVE_SCORES[score](ab, singles[pair[0]], singles[pair[1]], singles.total())
        for pair, ab in pairs.items() if ab >= MIN_COUNT
    }
    highest = max(scored.values())
    return {pair for pair in scored if math.isclose(scored[pair], highest, rel_tol=1e-12)}


def with_joined(spelling, pair):
    joined, i = [], 0
    while i < len(spelling):
        both = tuple(spelling[i : i + 2]) == pair
        joined.append(pair[0] + pair[1].removeprefix("##") if both else spelling[i])
        i += 1 + both
    return joined


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("seed", range(4))
def test_every_join_is_a_best_one_by_a_recount(score, seed, monkeypatch):
    rng = random.Random(seed)
    counts = Counter({
        "".join(rng.choices("abcd", k=rng.randint(1, 9))): rng.randint(1, 9) for _ in range(60)
    })
    joins = []
    join = wordpiece_training._Spellings.join
    monkeypatch.setattr(wordpiece_training._Spellings, "join", lambda self, pair: (
        joins.append((self.pieces[pair[0]], self.pieces[pair[1]])), join(self, pair)))
    learned = learn_pieces(counts, 60, score, "##")
    assert len(learned) == len(set(learned)) == 60
    assert len(joins) >= 60 - 8
    spelled = {word: [word[0], *("##" + c for c in word[1:])] for word in counts}
    expected = sorted({piece for spelling in spelled.values() for piece in spelling})
    for pair in joins:
        assert pair in best_pairs(spelled, counts, score)
        spelled = {word: with_joined(spelling, pair) for word, spelling in spelled.items()}
        expected.append(pair[0] + pair[1].removeprefix("##"))
    assert learned == list(dict.fromkeys(expected))


def test_the_scores_by_hand():
    # "ab" 6 times, "a" 8, "b" 12, 100 pieces: 6/100 where 8/100 * 12/100 was expected
    assert SCORES["likelihood"](6, 8, 12, 100) == pytest.approx(6 * math.log(0.06 / (0.08 * 0.12)))
    assert SCORES["ratio"](6, 8, 12, 100) == pytest.approx(1 / 16)
    assert SCORES["count"](6, 8, 12, 100) == 6


def test_the_scores_choose_differently():
    # "th" is frequent; "q" and "u" only occur together
    counts = Counter({"th": 20, "t": 20, "h": 5, "at": 5, "qu": 4})
    first = {score: learn_pieces(counts, 8, score, "##")[-1] for score in SCORES}
    assert first == {"likelihood": "th", "ratio": "qu", "count": "th"}


def test_training_on_the_classic_example():
    tokenizer = WordPieceTokenizer().train(CORPUS, 30, score="count")
    # "es" and "st" 9 times, then "est" 9, "lo" 7, "low" 7, and in six words "newest"
    joined = [piece for piece in tokenizer.pieces[1:] if len(piece.removeprefix("##")) > 1]
    assert joined[0] in ("##es", "##st")
    assert joined[1:4] == ["##est", "lo", "low"]
    assert "newest" in joined[4:7]
    assert tokenizer.segment("lowest") == ["low", "##est"]


def test_training_does_not_depend_on_the_order_of_the_texts():
    texts = CORPUS.split() + ["banana", "bandana", "cabana"] * 3
    shuffled = random.Random(1).sample(texts, len(texts))
    for score in SCORES:
        ours = WordPieceTokenizer().train(texts, 50, score=score).pieces
        assert ours == WordPieceTokenizer().train(iter(shuffled), 50, score=score).pieces
        assert ours == WordPieceTokenizer().train(" ".join(texts), 50, score=score).pieces


def test_pairs_seen_once_are_never_joined():
    tokenizer = WordPieceTokenizer().train("abc xyz xyz", 100)
    assert "xyz" in tokenizer.pieces
    assert not {"ab", "abc", "##bc"} & set(tokenizer.pieces)


def test_a_small_vocabulary_keeps_the_most_frequent_characters():
    tokenizer = WordPieceTokenizer().train("aa aa aa bb", 3)
    assert tokenizer.pieces == ["[UNK]", "##a", "a"]
    assert tokenizer.segment("bb") == ["[UNK]"]


@settings(deadline=None)
@given(st.text(), st.lists(words, min_size=1, max_size=5))
def test_the_words_come_back_when_none_is_unknown(text, corpus):
    tokenizer = WordPieceTokenizer().train([*corpus, "a b", text], 10_000)
    back = tokenizer.decode(tokenizer.encode(text))
    assert split_words(back) == split_words(text)


def test_spacing_is_lost():
    tokenizer = WordPieceTokenizer().train("f(x)  =  y\n", 100)
    assert tokenizer.decode(tokenizer.encode("f(x)  =  y\n")) == "f ( x ) = y"


def test_special_tokens():
    with pytest.raises(ValueError, match=r"spells the special token '\[CLS\]'"):
        BERT.encode("[CLS] low")
    ids = BERT.encode("[CLS] low[SEP]", allowed_special="all")
    assert [BERT.pieces[i] for i in ids] == ["[CLS]", "low", "[SEP]"]
    assert BERT.decode(ids) == "[CLS] low [SEP]"
    trained = WordPieceTokenizer().train("x<s>y x<s>y", 20, special_tokens=["<s>"])
    assert trained.special_tokens == {"<s>": trained.vocab_size - 1}
    assert not {"<", ">", "s"} & set(trained.pieces)
    spaced = WordPieceTokenizer.from_vocab(["[UNK]", "a", "<a> "], ["<a> "])
    assert spaced.decode(spaced.encode("a<a> ", allowed_special="all")) == "a <a> "
    # a special token without punctuation is still never found by spelling it inside of a word
    tokenizer = WordPieceTokenizer.from_vocab(["[UNK]", "PAD", "P", "##AD"], ["PAD"])
    assert tokenizer.segment("PAD") == ["P", "##AD"]
    assert tokenizer.encode_ordinary("PAD") == [2, 3]


def test_the_unknown_token_may_be_special_too():
    tokenizer = WordPieceTokenizer().train("ab ab", 20, special_tokens=["[UNK]", "[SEP]"])
    assert tokenizer.special_tokens == {"[UNK]": 0, "[SEP]": tokenizer.vocab_size - 1}
    assert tokenizer.encode("zz") == [0]
    with pytest.raises(ValueError, match="spells the special token"):
        tokenizer.encode("[UNK]")


def test_saved_and_loaded_it_is_the_same(tmp_path):
    tokenizer = WordPieceTokenizer(unknown="<?>", prefix="@@", max_word_chars=7)
    tokenizer.train("käse käse käse 漢字 漢字", 40, special_tokens=["<s>"])
    assert any(piece.startswith("@@") for piece in tokenizer.pieces)
    tokenizer.save(tmp_path / "wordpiece.json")
    loaded = Tokenizer.load(tmp_path / "wordpiece.json")
    assert isinstance(loaded, WordPieceTokenizer)
    assert vars(loaded) == vars(tokenizer)


def test_token_bytes_are_the_text_of_a_piece():
    assert b"".join(map(BERT.token_bytes, BERT.encode("unwanted"))) == b"unwanted"
    for token_id in (-1, BERT.vocab_size):
        with pytest.raises(ValueError, match="is outside of 0..18"):
            BERT.token_bytes(token_id)


def test_wrong_use_is_explained():
    for prefix in ("", "a", "#a"):  # "a" would make the inner "b" and the beginning "ab" the same
        with pytest.raises(ValueError, match="must be punctuation, which no word holds: use '##'"):
            WordPieceTokenizer(prefix=prefix)
    with pytest.raises(ValueError, match="the vocabulary is empty"):
        WordPieceTokenizer().encode("a")
    for text in (" \n", "a" * 101):
        with pytest.raises(ValueError, match="the corpus is empty.*over 100 letters do not count"):
            WordPieceTokenizer().train(text, 10)
    with pytest.raises(ValueError, match="'best' must be one of likelihood, ratio, count"):
        WordPieceTokenizer().train("a", 10, score="best")
    with pytest.raises(ValueError, match="vocab_size=1 leaves no room"):
        WordPieceTokenizer().train("a", 1)
    with pytest.raises(ValueError, match="'a' is listed twice"):
        WordPieceTokenizer.from_vocab(["[UNK]", "a", "a"])
    with pytest.raises(ValueError, match=r"2 pieces lack \[UNK\]"):
        WordPieceTokenizer.from_vocab(["a", "b"])
