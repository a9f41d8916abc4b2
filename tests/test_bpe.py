"""Byte-pair encoding: learned by hand, against a naive trainer, and as laws on any text."""

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.tokenizers import BPETokenizer, bpe, bpe_encoding, splits
from scratchbook.tokenizers.bpe_encoding import ChunkCache, split_long, split_short
from scratchbook.tokenizers.bpe_training import BYTE_ORDER, byte_ranks, learn_merges
from scratchbook.tokenizers.splits import PATTERNS, Splitter

any_text = st.text(st.characters(codec="utf-8"), max_size=60)
# few letters, so that pairs repeat, overlap and tie
small_corpus = st.dictionaries(
    st.text("abc", min_size=1, max_size=9).map(str.encode), st.integers(1, 4), min_size=1
)
SENTENCES = bpe.__doc__ + splits.__doc__


def naive_merges(chunk_counts: dict[bytes, int], num_merges: int) -> list[bytes]:
    """Count every pair anew before each merge: the textbook."""
    words = {chunk: [BYTE_ORDER.index(byte) for byte in chunk] for chunk in chunk_counts}
    tokens = [bytes([byte]) for byte in BYTE_ORDER]
    for _ in range(num_merges):
        counts = Counter()
        for chunk, ids in words.items():
            for pair in pairwise(ids):
                counts[pair] += chunk_counts[chunk]
        if not counts:
            break
        left, right = min(counts, key=lambda pair: (-counts[pair], pair))
        for ids in words.values():
            at = 0
            while at < len(ids) - 1:
                if ids[at] == left and ids[at + 1] == right:
                    ids[at : at + 2] = [len(tokens)]
                at += 1
        tokens.append(tokens[left] + tokens[right])
    return tokens[256:]


# learning


def test_the_example_of_sennrich_by_hand():
    corpus = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3
    tokenizer = BPETokenizer().train(corpus, vocab_size=1000)
    # es and st stand there nine times each: e comes before s. Then lo and ow, seven times.
    # ew, (n, e) and (w, est), six times: e comes first again.
    learned = "e+s es+t l+o lo+w e+w n+ew new+est d+est i+dest w+idest e+r low+er"
    pairs = [tuple(part.encode() for part in merge.split("+")) for merge in learned.split()]
    assert tokenizer.merges == pairs
    assert tokenizer.vocab_size == 256 + len(pairs)  # the corpus has no more to give


@pytest.mark.parametrize(("chunk", "tokens"), [
    (b"aaaa", [b"aa", b"aaaa"]),
    (b"aaaaa", [b"aa", b"aaa", b"aaaaa"]),  # aa aa a: the last pair has the smaller ids
    (b"ababab", [b"ab", b"abab", b"ababab"]),
    ("é".encode(), ["é".encode()]),
])  # fmt: skip
def test_runs_are_fused_from_left_to_right(chunk, tokens):
    assert list(learn_merges({chunk: 1}, 9))[256:] == tokens


@given(small_corpus, st.integers(0, 12))
@settings(max_examples=300, deadline=None)
def test_learns_what_the_naive_trainer_learns(chunk_counts, num_merges):
    learned = list(learn_merges(chunk_counts, num_merges))
    assert learned[:256] == list(byte_ranks())
    assert learned[256:] == naive_merges(chunk_counts, num_merges)


def test_learns_what_the_naive_trainer_learns_on_text():
    text = SENTENCES + "naïve café 東京 東京都 \t\t x == y\n"
    tokenizer = BPETokenizer("cl100k").train(text, 340)
    chunk_counts = Counter(chunk.encode() for chunk in tokenizer.split(text))
    assert list(tokenizer.ranks)[256:] == naive_merges(chunk_counts, 84)


def test_ties_go_by_ids_and_not_by_bytes():
    # a space is byte 32 and id 220: in GPT-2's order, every letter comes before it
    tokens = list(learn_merges({b" b": 1, b"xb": 1}, 1))
    assert tokens[256] == b"xb"


def test_merges_are_read_off_the_ranks():
    tokenizer = BPETokenizer().train(SENTENCES, 300)
    assert len(tokenizer.merges) == 44
    assert [left + right for left, right in tokenizer.merges] == list(tokenizer.ranks)[256:]
    assert tokenizer.train(SENTENCES, 290).merges == tokenizer.merges[:34]  # not the old ones


def test_a_corpus_is_one_text_or_several():
    lines = SENTENCES.splitlines(keepends=True)
    assert BPETokenizer().train(iter(lines), 290).ranks == BPETokenizer().train(lines, 290).ranks
    apart = BPETokenizer().train(["ab", "ab"], 300)
    assert apart.merges == [(b"a", b"b")]  # nothing is learned across two texts


@pytest.mark.parametrize("corpus", ["", [], ["", ""], iter(())])
def test_an_empty_corpus_is_refused(corpus):
    with pytest.raises(ValueError, match="corpus is empty"):
        BPETokenizer().train(corpus, 300)


def test_a_vocabulary_without_room_is_refused():
    with pytest.raises(ValueError, match=r"vocab_size=257 is too small.*need 258"):
        BPETokenizer().train("text", 257, special_tokens=["<|a|>", "<|b|>"])
    assert BPETokenizer().train("text", 258, special_tokens=["<|a|>", "<|b|>"]).merges == []


# splitting


@pytest.mark.parametrize(("pattern", "words", "marks"), [
    ("gpt2",
     ["I", "'ll", " pay", " $", "12345", ",", " HelloWorld", " DON", "'", "T", "\n ", " end"],
     ["end", ".", "\n", "\n", "'", "Sam", " ==", "\n", "/", "a", " \n "]),
    ("cl100k",
     ["I", "'ll", " pay", " $", "123", "45", ",", " HelloWorld", " DON", "'T", "\n", " ", " end"],
     ["end", ".\n\n", "'S", "am", " ==\n", "/a", " \n "]),
    ("o200k",
     ["I'll", " pay", " $", "123", "45", ",", " Hello", "World", " DON'T", "\n", " ", " end"],
     ["end", ".\n\n", "'Sam", " ==\n/", "a", " \n", " "]),
])  # fmt: skip
def test_what_the_three_patterns_cut(pattern, words, marks):
    splitter = Splitter(pattern)
    assert splitter.split("I'll pay $12345, HelloWorld DON'T\n  end") == words
    assert splitter.split("end.\n\n'Sam ==\n/a \n ") == marks


@pytest.mark.parametrize("pattern", PATTERNS)
@given(st.text(st.characters(codec="utf-8") | st.sampled_from(" \n'sſtTaA1.²ʕ\u0301"), max_size=40))
def test_chunks_join_up_to_the_text(pattern, text):
    chunks = Splitter(pattern).split(text)
    assert "".join(chunks) == text
    assert "" not in chunks


@pytest.mark.parametrize("pattern", PATTERNS)
@given(st.text(st.characters(max_codepoint=127) | st.sampled_from(" \n'sSreLl1/\x0b\x1c\x1f.A")))
@settings(max_examples=300)
def test_the_fast_path_for_ascii_cuts_alike(pattern, text):
    splitter = Splitter(pattern)
    assert splitter._find_ascii(text) == splitter._find(text)


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=st.text(st.sampled_from("abZ \n\r\t.'/1é"), max_size=80))
@settings(max_examples=300)
def test_blocks_cut_like_the_whole(pattern, text):
    splitter = Splitter(pattern)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits, "BLOCK", 3)
        blocks = list(splitter.blocks(text))
    assert [chunk for block in blocks for chunk in block] == splitter.split(text)


def test_blocks_are_taken_off_long_text():
    blocks = list(Splitter("gpt2").blocks("word " * 10_000))
    assert len(blocks) > 5
    assert sum(map(len, blocks)) == 10_001


@pytest.mark.parametrize("character", ["\U000323b0", "\u088f", "\U00011de0"])
def test_letters_and_digits_of_later_unicode_stay_outside(character):
    # a letter, a letter and a digit since Unicode 17; frozen at 16, all are marks
    assert BPETokenizer("cl100k").split(f"ab{character}") == ["ab", character]
    assert BPETokenizer("gpt2").split(f"12{character}é") == ["12", character, "é"]


def test_a_letter_that_lost_its_case_keeps_it():
    assert BPETokenizer("o200k").split("aʕBé") == ["aʕ", "Bé"]
    assert BPETokenizer("gpt2").split("aʕBé") == ["aʕBé"]


def test_an_unknown_pattern_names_the_known():
    with pytest.raises(ValueError, match=r"'gpt4'.*gpt2.*cl100k.*o200k"):
        BPETokenizer("gpt4")


# encoding


def test_an_untrained_tokenizer_knows_the_bytes():
    tokenizer = BPETokenizer()
    assert tokenizer.vocab_size == 256
    assert tokenizer.encode("!a é") == [0, 64, 220, 127, 102]  # GPT-2's order
    assert tokenizer.merges == []


def test_merges_apply_in_the_order_of_learning():
    ranks = byte_ranks() | {b"bc": 256, b"ab": 257, b"abc": 258}
    assert split_short(b"abc", ranks) == [b"abc"]
    assert split_short(b"abcd", ranks, below=258) == [b"a", b"bc", b"d"]
    del ranks[b"bc"]
    assert split_short(b"abcab", ranks) == [b"abc", b"ab"]


@given(small_corpus, st.text("abcd", max_size=200).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_the_heap_cuts_like_the_plain_search(chunk_counts, chunk):
    ranks = learn_merges(chunk_counts, 15)
    assert split_long(chunk, ranks) == split_short(chunk, ranks)


def test_the_heap_cuts_alike_when_a_merge_makes_a_smaller_rank():
    # no training gives such ranks, but a file may: ab before a, b, and abc before ab
    rng = random.Random(0)
    for _ in range(300):
        tokens = {bytes(rng.choices(b"abc", k=rng.randint(2, 5))) for _ in range(20)}
        order = rng.sample(sorted(tokens), len(tokens))
        ranks = byte_ranks() | {token: 256 + place for place, token in enumerate(order)}
        chunk = bytes(rng.choices(b"abc", k=rng.randint(0, 60)))
        assert split_long(chunk, ranks) == split_short(chunk, ranks)


def test_both_ways_to_cut_are_in_use():
    tokenizer = BPETokenizer().train(SENTENCES, 300)
    for length in (bpe_encoding.LONG - 1, bpe_encoding.LONG):
        text = ("thecat" * bpe_encoding.LONG)[:length]
        expected = [tokenizer.ranks[token] for token in split_short(text.encode(), tokenizer.ranks)]
        assert tokenizer.encode(text) == expected


def test_a_chunk_that_is_a_token_is_taken_whole():
    # no merge leads to abc, and yet tiktoken finds it
    tokenizer = BPETokenizer.from_ranks(byte_ranks() | {b"abc": 256})
    assert tokenizer.encode("abc") == [256]
    assert tokenizer.encode("abcd") == [64, 65, 66, 67]


TRAINED = {name: BPETokenizer(name).train(SENTENCES, 300, ["<|end|>"]) for name in PATTERNS}


@pytest.mark.parametrize("pattern", PATTERNS)
@given(any_text)
def test_decoding_undoes_encoding(pattern, text):
    tokenizer = TRAINED[pattern]
    ids = tokenizer.encode_ordinary(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()


def test_empty_text_has_no_ids():
    assert TRAINED["gpt2"].encode("") == []
    assert TRAINED["gpt2"].decode([]) == ""


def test_the_cache_stays_within_its_bounds(monkeypatch):
    monkeypatch.setattr(ChunkCache, "MOST_CHUNKS", 10)
    tokenizer = BPETokenizer().train(SENTENCES, 280)
    text = " ".join(f"word{number}" for number in range(100)) + "x" * 1000
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer._cache) <= 10
    assert max(map(len, tokenizer._cache)) <= ChunkCache.LONGEST_CHUNK


def test_a_second_training_forgets_the_first():
    tokenizer = BPETokenizer().train(SENTENCES, 290)
    tokenizer.encode("the cat")
    assert tokenizer.train("xyz", 258).encode("the cat") == BPETokenizer().encode("the cat")


def test_an_unknown_id_is_refused():
    for unknown in (301, -1):
        with pytest.raises(ValueError, match=f"id {unknown} is not in this vocabulary"):
            TRAINED["gpt2"].decode([64, unknown])


def test_half_a_character_is_decoded_as_a_replacement():
    first, *_ = BPETokenizer().encode("é")
    assert BPETokenizer().decode([first, 64]) == "\ufffda"
    with pytest.raises(UnicodeDecodeError):
        BPETokenizer().decode([first], errors="strict")


@pytest.mark.parametrize(("text", "place"), [("ab\ud83d", "text[2] is the surrogate U+D83D"),
                                             ("\ude00\ud83d", "text[0] is the surrogate U+DE00")])
def test_a_lone_surrogate_is_refused_with_a_way_out(text, place):
    for use in (BPETokenizer().encode, BPETokenizer().encode_ordinary,
                lambda text: BPETokenizer().train(["fine", text], 300)):
        with pytest.raises(ValueError) as error:
            use(text)
        assert place in str(error.value)
    way_out = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert BPETokenizer().decode(BPETokenizer().encode(way_out)) == way_out


def test_bytes_are_refused_with_a_hint():
    with pytest.raises(TypeError, match="decode it first"):
        BPETokenizer().encode(b"abc")


# special tokens

CHAT = BPETokenizer().train(SENTENCES, 300, special_tokens=["<|a|>", "<|a|><|b|>", "<|end|>"])


def test_special_tokens_come_last():
    assert CHAT.special_tokens == {"<|a|>": 297, "<|a|><|b|>": 298, "<|end|>": 299}
    assert CHAT.vocab_size == 300
    assert CHAT.token_bytes(299) == b"<|end|>"


def test_a_special_token_in_plain_text_is_refused():
    with pytest.raises(ValueError, match=r"'<\|end\|>' at position 4.*allowed_special.*ordinary"):
        CHAT.encode("the <|end|>")
    with pytest.raises(ValueError, match=r"'<\|end\|>' at position 5"):
        CHAT.encode("<|a|><|end|>", allowed_special={"<|a|>"})


def test_an_allowed_special_token_is_one_id():
    text = "the<|a|> cat<|end|>"
    the, cat = CHAT.encode("the"), CHAT.encode(" cat")
    assert CHAT.encode(text, allowed_special="all") == [*the, 297, *cat, 299]
    assert CHAT.encode(text, allowed_special=["<|a|>", "<|end|>"]) == [*the, 297, *cat, 299]
    assert CHAT.decode([*the, 297, *cat, 299]) == text


def test_the_longest_special_token_wins():
    assert CHAT.encode("<|a|><|b|>", allowed_special="all") == [298]


def test_a_special_token_can_be_plain_text():
    ids = CHAT.encode_ordinary("<|end|>")
    assert len(ids) > 1
    assert max(ids) < 297
    assert CHAT.decode(ids) == "<|end|>"


def test_the_end_of_a_part_is_an_end_of_text():
    # two spaces before a special token are one chunk; before a word, only one of them is
    tokenizer = BPETokenizer.from_ranks(byte_ranks() | {b"  ": 256}, "gpt2", {"<|end|>": 257})
    assert tokenizer.encode("a  <|end|>", "all") == [64, 256, 257]
    assert tokenizer.encode("a  b") == [64, 220, 220, 65]


@pytest.mark.parametrize("allowed", [{"<|c|>"}, "<|end|>"])
def test_allowing_what_is_no_special_token_is_refused(allowed):
    with pytest.raises(ValueError, match="allowed_special"):
        CHAT.encode("text", allowed_special=allowed)


@pytest.mark.parametrize("special", ["<|end|>", ["<|end|>", "<|end|>"], [""]])
def test_special_tokens_that_make_no_sense_are_refused(special):
    with pytest.raises(ValueError, match="special_tokens="):
        BPETokenizer().train("text", 300, special_tokens=special)


def test_nothing_is_learned_from_a_special_token():
    tokenizer = BPETokenizer().train("ab<|end|>ab<|end|>ab", 300, special_tokens=["<|end|>"])
    assert tokenizer.merges == [(b"a", b"b")]
