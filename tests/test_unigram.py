"""Unigram: the best path, found exactly; probabilities that EM improves; nothing ever lost."""

import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.tokenizers import Tokenizer, UnigramTokenizer, unigram_training
from scratchbook.tokenizers.unigram import BYTE_PIECES, UNKNOWN_PENALTY
from scratchbook.tokenizers.unigram_training import STEP, learn_pieces

HUGS = {"h": 0.1, "u": 0.1, "g": 0.1, "s": 0.05, "hu": 0.15, "ug": 0.2, "hug": 0.2, "gs": 0.1}
LATIN = UnigramTokenizer().train("the cat sat on the mat\nthe hat is that cat's, naïve " * 9, 330)


def from_probs(probs, **options):
    pieces = [("<unk>", 0.0), *((piece, math.log(p)) for piece, p in probs.items())]
    return UnigramTokenizer.from_pieces(pieces, byte_fallback=False, **options)


def all_segmentations(text):
    if not text:
        yield []
    for end in range(1, len(text) + 1):
        yield from ([text[:end], *rest] for rest in all_segmentations(text[end:]))


def test_worked_example():
    tokenizer = from_probs(HUGS)
    assert tokenizer.segment("hugs") == ["hu", "gs"]  # 0.15 * 0.1 beats 0.2 * 0.05 of hug + s
    assert tokenizer.logprob(["hu", "gs"]) == pytest.approx(math.log(0.015))
    assert tokenizer.segment("hug") == ["hug"]


@pytest.mark.parametrize("seed", range(60))
def test_viterbi_equals_trying_everything(seed):
    rng = random.Random(seed)
    texts = {"".join(rng.choices("abc", k=rng.randint(2, 4))) for _ in range(12)} | set("abc")
    tokenizer = from_probs({text: rng.random() for text in sorted(texts)})
    word = "".join(rng.choices("abc", k=9))
    possible = [s for s in all_segmentations(word) if texts.issuperset(s)]
    best = max(map(tokenizer.logprob, possible))
    assert tokenizer.logprob(tokenizer.segment(word)) == pytest.approx(best, abs=1e-12)
    assert "".join(tokenizer.segment(word)) == word


def test_between_equals_the_longer_last_piece_wins():
    half = from_probs({"a": 0.5, "aa": 0.25, "b": 0.5, "ab": 0.25})
    assert half.segment("aa") == ["aa"]
    assert half.segment("aab") == ["a", "ab"]


def test_a_character_without_a_piece_is_the_last_resort():
    tokenizer = from_probs({"a": 0.9, "xy": 1e-4, "y": 1e-3})
    assert tokenizer.segment("axya") == ["a", "xy", "a"]  # "xy" is rare, and still better
    assert tokenizer.segment("axa") == ["a", "x", "a"]
    assert tokenizer.logprob(["x"]) == pytest.approx(math.log(1e-4) - UNKNOWN_PENALTY)
    assert from_probs({"a": 1.0, "xb": 1.0, "b": 1.0}).segment("axb") == ["a", "xb"]


@pytest.mark.parametrize(("rare", "best"), [
    (-4.75, ["p", "pxq", "q"]),  # -4.75 - 20 - 4.75 = -29.5
    (-5.25, ["pp", "x", "qq"]),  # 0 + (-20 - 10) + 0 = -30
])  # fmt: skip
def test_the_penalty_of_the_unknown_is_ten(rare, best):
    scored = {"<unk>": 0, "p": rare, "q": rare, "pp": 0, "qq": 0, "pxq": -20}
    tokenizer = UnigramTokenizer.from_pieces(list(scored.items()), byte_fallback=False)
    assert tokenizer.segment("ppxqq") == best


def test_a_run_of_unknown_characters_is_one_token():
    tokenizer = from_probs({"a": 0.5, "▁": 0.5}, space_prefix=False)
    assert tokenizer.encode("axyza x") == [1, 0, 1, 2, 0]
    assert tokenizer.decode([1, 0, 1]) == "a<unk>a"


@settings(deadline=None)
@given(st.text())
def test_decode_undoes_encode_on_any_text(text):
    assert LATIN.decode(LATIN.encode(text)) == text


@settings(deadline=None)
@given(st.text(alphabet="thecatn ï▁\n<0x41>漢😀\u0301"), st.booleans())
def test_decode_undoes_encode_on_treacherous_text(text, space_prefix):
    tokenizer = UnigramTokenizer(space_prefix=space_prefix).train("the cat\nthe hat▁n <0x41>", 300)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(deadline=None)
@given(st.lists(st.text(alphabet="the cat▁ ", max_size=8)), st.booleans())
def test_special_tokens_do_not_disturb_the_spaces_around_them(parts, space_prefix):
    tokenizer = UnigramTokenizer(space_prefix=space_prefix)
    tokenizer.train("the cat the hat", 300, special_tokens=["<|end|>"])
    text = "<|end|>".join(parts)
    ids = tokenizer.encode(text, allowed_special="all")
    assert tokenizer.decode(ids) == text
    assert ids.count(tokenizer.special_tokens["<|end|>"]) == max(len(parts) - 1, 0)


def test_a_special_token_keeps_its_own_space():
    tokenizer = UnigramTokenizer().train("the cat", 300, special_tokens=[" <end>"])
    ids = tokenizer.encode("the cat <end> the", allowed_special="all")
    assert tokenizer.decode(ids) == "the cat <end> the"


def test_the_space_is_learned_from_text_without_one():
    tokenizer = UnigramTokenizer(byte_fallback=False, space_prefix=False).train("aaa", 9)
    assert tokenizer.decode(tokenizer.encode("a aa")) == "a aa"


def test_a_space_belongs_to_the_word_after_it():
    assert LATIN.segment("▁the▁cat") == ["▁the", "▁cat"]
    assert LATIN.encode("the") == LATIN.encode("x the")[-1:]  # the prefix makes them one token
    bare = UnigramTokenizer(space_prefix=False).train("the cat the cat the cat", 300)
    assert bare.encode("the") != bare.encode(" the")


def test_bytes_spell_what_no_piece_covers():
    ids = LATIN.encode("the 漢")
    assert [LATIN.pieces[i][0] for i in ids[-3:]] == ["<0xE6>", "<0xBC>", "<0xA2>"]
    assert b"".join(map(LATIN.token_bytes, ids[-3:])) == "漢".encode()
    assert LATIN.decode(ids[:-1]) == "the �"  # cut inside a character
    # a text that spells a byte piece is text
    assert set(LATIN.encode("<0x41>")).isdisjoint([LATIN.pieces.index(("<0x41>", 0.0))])


def test_the_text_s_own_visible_space_is_no_space():
    assert LATIN.encode("the▁cat") != LATIN.encode("the cat")
    assert LATIN.decode(LATIN.encode("▁the▁cat▁")) == "▁the▁cat▁"


def test_without_a_piece_for_the_space_it_is_a_byte():
    pieces = [("<unk>", 0.0), *((piece, 0.0) for piece in BYTE_PIECES), ("a", -1.0)]
    tokenizer = UnigramTokenizer.from_pieces(pieces)
    assert tokenizer.encode("a a") == [33, 257, 33, 257]
    assert tokenizer.decode(tokenizer.encode(" a  a ")) == " a  a "


def test_remembered_words_change_nothing():
    text = "the cat's hat is naïve, that cat is 漢\nthe end " * 3
    assert LATIN.encode(text) == LATIN.encode(text)
    fresh = UnigramTokenizer.from_pieces(LATIN.pieces)
    fresh._cuts_at_spaces = False  # one path through the whole text
    assert fresh.encode(text) == LATIN.encode(text)


def test_pieces_that_hold_spaces_are_found_across_words():
    tokenizer = from_probs({"▁": 0.1, "a": 0.1, "▁a▁a": 0.1}, space_prefix=False)
    assert tokenizer.segment("▁a▁a") == ["▁a▁a"]
    assert tokenizer.encode("a a a") == [2, 3]


# learning


def lattice(counts, pieces):
    return unigram_training._Lattice(list(counts), list(pieces))


@pytest.mark.parametrize("seed", range(8))
def test_expected_counts_equal_those_of_all_segmentations(seed):
    rng = random.Random(seed)
    counts = Counter("".join(rng.choices("ab", k=rng.randint(1, 7))) for _ in range(8))
    pieces = sorted({word[i:j] for word in counts for i in range(8) for j in range(i + 1, 9)
                     if word[i:j] and (j - i == 1 or rng.random() < 0.6)} | {"a", "b"})
    probs = np.array([rng.random() for _ in pieces])
    probs /= probs.sum()
    prob_of = dict(zip(pieces, probs, strict=True))
    expected = Counter()
    for word, count in counts.items():
        paths = [s for s in all_segmentations(word) if prob_of.keys() >= set(s)]
        total = sum(math.prod(map(prob_of.get, path)) for path in paths)
        for path in paths:
            for piece in path:
                expected[piece] += count * math.prod(map(prob_of.get, path)) / total
    repeats = np.array(list(counts.values()), dtype=float)
    ours = lattice(counts, pieces).expected_counts(probs, repeats)
    assert ours == pytest.approx([expected[piece] for piece in pieces], abs=1e-12)


def test_other_spellings_leave_out_the_whole():
    pieces = ["a", "b", "ab", "abb"]
    others = lattice(pieces, pieces).other_spellings(np.array([0.2, 0.3, 0.4, 0.1]))
    assert others == pytest.approx([0, 0, 0.2 * 0.3, 0.4 * 0.3 + 0.2 * 0.3 * 0.3])


def test_each_round_of_em_makes_the_text_more_probable():
    sentence = "the cat that sat on the mat has the hat of that other cat"
    counts = Counter(sentence.split())
    counts, characters = unigram_training._prepare(counts, 99, "")
    pieces, frequency = unigram_training._candidates(counts, characters, 99)
    words = lattice(counts, pieces)
    repeats = np.array(list(counts.values()), dtype=float)
    probs, history = frequency / frequency.sum(), []
    for _ in range(8):
        sums = words._path_sums(words.start, words.end, probs[words.piece])
        likelihood = sums[np.arange(len(sums)), words.length]
        history.append(repeats @ np.log(likelihood))
        expected = words.expected_counts(probs, repeats)
        # every character of the words is counted once, whatever the segmentation
        lengths = np.array([len(piece) for piece in pieces])
        assert expected @ lengths == pytest.approx(sum(map(len, counts.elements())))
        probs = expected / expected.sum()
    assert (np.diff(history) > 0).all()


def test_planted_words_are_found():
    rng = random.Random(0)
    planted = ["kalo", "mip", "suru", "denta", "vo"]
    counts = Counter("".join(rng.choices(planted, k=4)) for _ in range(400))
    learned = dict(learn_pieces(counts, 20))  # 15 characters and room for five
    assert set(learned) == set("".join(planted)) | set(planted)
    assert all(learned[word] > math.log(0.15) for word in planted)  # each is one in five


def test_the_learned_log_probabilities():
    learned = learn_pieces(Counter({"that": 3, "cat": 2, "hat": 2, "the": 9}), 20, required="▁")
    pieces, logprobs = zip(*learned, strict=True)
    assert list(logprobs) == sorted(logprobs, reverse=True)
    assert "▁" in pieces  # no word holds it
    assert sum(map(math.exp, logprobs)) == pytest.approx(1, abs=20 * STEP)
    assert all(logprob / STEP == round(logprob / STEP) for logprob in logprobs)


def test_a_small_vocabulary_keeps_the_space_and_the_most_frequent_characters():
    tokenizer = UnigramTokenizer(byte_fallback=False).train("aaa bb c", 4)
    assert {piece for piece, _ in tokenizer.pieces} == {"<unk>", "▁", "a", "b"}
    assert UnigramTokenizer().train("漢字仮名交じり文", 260).decode(
        UnigramTokenizer().train("漢字仮名交じり文", 260).encode("漢文")) == "漢文"


def test_training_fills_the_vocabulary_and_stays_within_words():
    text = "one two three\nfour five six\n" * 20 + "seven eight nine ten eleven twelve"
    tokenizer = UnigramTokenizer().train(text, 310, special_tokens=["<s>"])
    assert tokenizer.vocab_size == 310
    learned = [piece for piece, _ in tokenizer.pieces[257:-1]]
    assert not [piece for piece in learned if "▁" in piece[1:] or ("\n" in piece and piece != "\n")]
    assert tokenizer.special_tokens == {"<s>": 309}


def test_training_does_not_depend_on_the_order_of_the_texts():
    texts = ["the cat", "that hat", "a mat", "cats sat", "the mat"] * 2
    shuffled = random.Random(2).sample(texts, len(texts))
    assert UnigramTokenizer().train(texts, 290).pieces == UnigramTokenizer().train(
        iter(shuffled), 290).pieces


def test_long_words_do_not_underflow():
    tokenizer = UnigramTokenizer().train("ab" * 5000 + " " + "c" * 999, 280)
    assert all(math.isfinite(logprob) for _, logprob in tokenizer.pieces)


def test_special_tokens():
    tokenizer = UnigramTokenizer().train("x<|z|>y x<|z|>y", 300, special_tokens=["<|z|>"])
    assert not {"z", "|"} & {piece for piece, _ in tokenizer.pieces}  # not learned from
    with pytest.raises(ValueError, match=r"spells the special token '<\|z\|>'"):
        tokenizer.encode("x<|z|>")
    plain = tokenizer.encode_ordinary("x<|z|>")
    assert tokenizer.special_tokens["<|z|>"] not in plain
    assert tokenizer.decode(plain) == "x<|z|>"


def test_the_unknown_token_may_be_special_too():
    tokenizer = UnigramTokenizer(byte_fallback=False).train("ab ab", 20, special_tokens=["<unk>"])
    assert tokenizer.special_tokens == {"<unk>": 0}
    assert tokenizer.encode("zz")[-1] == 0
    with pytest.raises(ValueError, match="spells the special token"):
        tokenizer.encode("<unk>")


def test_saved_and_loaded_it_is_the_same(tmp_path):
    tokenizer = UnigramTokenizer(space_prefix=False)
    tokenizer.train("käse 漢字\u2028 \x00" * 4, 290, special_tokens=["<s>"])
    tokenizer.save(tmp_path / "unigram.json")
    loaded = Tokenizer.load(tmp_path / "unigram.json")
    assert isinstance(loaded, UnigramTokenizer)
    assert loaded.pieces == tokenizer.pieces
    assert loaded.special_tokens == tokenizer.special_tokens
    assert not loaded.space_prefix and loaded.byte_fallback
    assert loaded.encode("käse käs") == tokenizer.encode("käse käs")


def test_wrong_use_is_explained():
    with pytest.raises(ValueError, match="the vocabulary is empty"):
        UnigramTokenizer().encode("a")
    with pytest.raises(ValueError, match="the corpus is empty"):
        UnigramTokenizer().train("", 300)
    with pytest.raises(ValueError, match="vocab_size=257 leaves no room.*frees 256"):
        UnigramTokenizer().train("a", 257)
    with pytest.raises(ValueError, match="'a' is listed twice"):
        from_probs({"a": 0.5} | {"b": 0.1}).from_pieces([("<unk>", 0), ("a", -1), ("a", -2)])
    with pytest.raises(ValueError, match=r"lack <unk>, <0x00>, <0x01> and 254 more"):
        UnigramTokenizer.from_pieces([("a", -1.0)])
    for token_id in (-1, 330):
        with pytest.raises(ValueError, match=rf"{token_id} is outside of 0..329"):
            LATIN.decode([token_id])
