"""Text as it comes: whole characters, no stop string, the same text in the end."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.serving.text_streams import TextStream
from scratchbook.tokenizers import BPETokenizer, UnigramTokenizer, WordPieceTokenizer

TOKENIZER = BPETokenizer().train("the cat sat on the mat " * 9, 270, ["<|end|>"])
END = TOKENIZER.special_tokens["<|end|>"]


def played(stream: TextStream, ids: list[int]) -> tuple[list[str], list]:
    """The pieces that a reader sees, and the tokens shown with them."""
    pieces, shown = [], []
    for number, token in enumerate(ids):
        text, more = stream.add(token, -float(number))
        pieces.append(text)
        shown += more
        if stream.stopped:
            return pieces, shown
    text, more = stream.end()
    return [*pieces, text], shown + more


@settings(max_examples=60)
@given(st.text(), st.data())
def test_pieces_are_whole_characters_and_join_to_the_text(text, data):
    ids = TOKENIZER.encode_ordinary(text)
    pieces, shown = played(TextStream(TOKENIZER.decode), ids)
    assert "".join(pieces) == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)
    assert [each.token for each in shown] == ids
    assert [each.logprob for each in shown] == [-float(n) for n in range(len(ids))]


@settings(max_examples=60)
@given(st.lists(st.integers(0, 255), max_size=12))
def test_bytes_that_are_no_text_become_what_decode_makes_of_them(ids):
    pieces, _ = played(TextStream(TOKENIZER.decode), ids)
    assert "".join(pieces) == TOKENIZER.decode(ids)


def test_a_character_comes_with_its_last_byte():
    ids = TOKENIZER.encode_ordinary("a👋b")
    assert len(ids) == 6
    assert played(TextStream(TOKENIZER.decode), ids)[0] == ["a", "", "", "", "👋", "b", ""]


@settings(max_examples=60)
@given(st.text("abc👋", max_size=14), st.lists(st.text("abc👋", min_size=1, max_size=4),
                                                max_size=3))
def test_nothing_of_the_earliest_stop_string_is_shown(text, stops):
    ids = TOKENIZER.encode_ordinary(text)
    stream = TextStream(TOKENIZER.decode, stops)
    pieces, shown = played(stream, ids)
    # letter by letter: the stop string that is whole first, of those the longest
    ends = [(end, -len(stop)) for end in range(len(text) + 1) for stop in stops
            if text[:end].endswith(stop)]
    said = "".join(pieces)
    assert stream.stopped == bool(ends)
    assert said == (text[: min(ends)[0] + min(ends)[1]] if ends else text)
    assert all(each.place < len(said) for each in shown) or not stream.stopped


def test_where_tokens_end_does_not_matter_to_stop_strings():
    def said(tokens: list[str]) -> str:
        stream = TextStream(lambda ids: "".join(tokens[each] for each in ids), ["bly", "l"])
        return "".join(played(stream, list(range(len(tokens))))[0])

    assert said(["ibly"]) == said(["i", "b", "l", "y"]) == said(["ib", "ly"]) == "ib"


def test_a_stop_string_across_tokens_waits_and_is_not_shown():
    stream = TextStream(TOKENIZER.decode, ["cba"])
    ids = TOKENIZER.encode_ordinary("xcbxcbaxx")
    pieces, shown = played(stream, ids)
    assert pieces == ["x", "", "", "cbx", "", "", ""]
    assert stream.stopped and [each.place for each in shown] == [0, 1, 2, 3]


def test_what_looked_like_a_stop_string_is_shown_in_the_end():
    assert played(TextStream(TOKENIZER.decode, ["cba"]), TOKENIZER.encode_ordinary("xcb"))[0] == [
        "x", "", "", "cb"]


def test_an_empty_stop_string_stops_nothing():
    for stops, said in (([""], "ab"), (["", "b"], "a")):
        pieces, _ = played(TextStream(TOKENIZER.decode, stops), TOKENIZER.encode_ordinary("ab"))
        assert "".join(pieces) == said


def test_control_tokens_have_no_text():
    ids = [*TOKENIZER.encode_ordinary("ab"), END, *TOKENIZER.encode_ordinary("<|end|>")]
    pieces, shown = played(TextStream(TOKENIZER.decode, (), {END}), ids)
    assert "".join(pieces) == "ab<|end|>"  # the second one was spelled out
    assert END not in [each.token for each in shown]


@pytest.mark.parametrize("kind", [UnigramTokenizer, WordPieceTokenizer])
def test_tokenizers_that_set_spaces_themselves(kind):
    text = "the cat sat on the mat and the cat sat on the hat"
    tokenizer = kind().train(text, 300)
    ids = tokenizer.encode(text)
    pieces, _ = played(TextStream(tokenizer.decode), ids)
    assert "".join(pieces) == tokenizer.decode(ids)
    assert len([piece for piece in pieces if piece]) > 5
