"""JSON by masks: what passes is JSON for Python's reader, and what Python writes passes."""

from __future__ import annotations

import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.base_model import END, load_base
from scratchbook.serving.json_rule import LEADS, JsonRule, State, advance, json_rule, read

END_ID = 256
BYTES = [bytes([i]) for i in range(256)] + [b""]
PIECES = [*BYTES[:256], b"", b'{"', b'":', b'", "', b"true", b"null", b'\\u00', b"}}", b"]]", b"1e",
          b"\xe2\x82", b"\xac ", b'"a": [', b"\\", b'"]', b"-0.", b"  ", b"false, "]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-10**60, 10**60) | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner,
                                                                max_size=4), max_leaves=12)
WRITTEN = {"plain": {}, "as it is": {"ensure_ascii": False}, "tight": {"separators": (",", ":")},
           "indented": {"indent": 2}}


def is_json(text: bytes) -> bool:
    try:
        json.loads(text.decode("utf-8"), parse_constant=lambda word: 1 / 0)
    except (ValueError, ZeroDivisionError):
        return False
    return True


@given(VALUES, st.sampled_from(sorted(WRITTEN)))
@settings(max_examples=400, deadline=None)
def test_all_that_python_writes_passes_byte_by_byte(value, how):
    text = json.dumps(value, **WRITTEN[how]).encode()
    state = State()
    for place, byte in enumerate(text):
        state = advance(state, byte)
        assert state is not None, text[: place + 1]
    assert state.complete


def drawn(rule: JsonRule, seed: int, most: int = 60) -> bytes | None:
    """A text of tokens by chance among those allowed; None when it did not end."""
    chosen, ids = random.Random(seed), []
    for _ in range(most):
        mask = rule(ids)
        assert mask.any()
        closing = [i for i in mask.nonzero()[:, 0].tolist()
                   if i == END_ID or rule.tokens[i] in (b"}", b"]", b'"', b":", b"0")]
        some = closing if closing and chosen.random() < 0.4 else mask.nonzero()[:, 0].tolist()
        token = chosen.choice(some)
        if token == END_ID:
            return b"".join(rule.tokens[i] for i in ids)
        ids.append(token)
    return None


def test_all_that_ends_parses():
    rule = JsonRule(PIECES, [END_ID])
    texts = [text for seed in range(1500) if (text := drawn(rule, seed)) is not None]
    assert len(texts) > 400
    assert len({text[:1] for text in texts}) > 5
    assert any(text.count(b"{") and text.count(b"[") for text in texts)
    for text in texts:
        assert is_json(text), text


def test_the_end_is_allowed_exactly_where_the_text_parses():
    rule, checked = JsonRule(PIECES, [END_ID]), {True: 0, False: 0}
    for seed in range(150):
        chosen, ids = random.Random(seed), []
        for _ in range(25):
            mask = rule(ids)
            whole = is_json(b"".join(rule.tokens[i] for i in ids))
            assert bool(mask[END_ID]) == whole, ids
            checked[whole] += 1
            others = [i for i in mask.nonzero()[:, 0].tolist() if i != END_ID]
            if not others:
                break
            ids.append(chosen.choice(others))
    assert min(checked.values()) > 40


@given(st.binary(max_size=12) | VALUES.map(lambda value: json.dumps(value).encode())
       .flatmap(lambda text: st.tuples(st.integers(0, len(text)), st.binary(max_size=2)).map(
           lambda cut: text[: cut[0]] + cut[1] + text[cut[0] + len(cut[1]):])))
@settings(max_examples=600, deadline=None)
def test_the_reader_agrees_with_python_on_damaged_texts(text):
    state = read(text)
    # behind the last bracket Python lets spaces follow, and so does the reader
    assert (state is not None and state.complete) == is_json(text)


@pytest.mark.parametrize("bad", [
    b"01", b"-", b"1.", b".5", b"+1", b"1e", b"1e+", b"[1,]", b"[,1]", b'{"a"}', b'{"a":}',
    b"{1:2}", b'{"a":1,}', b"[1 2]", b"tru", b"True", b"NaN", b"Infinity", b'"\n"', b'"\\x"',
    b'"\\u12"', b"[}", b"{]", b"]", b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"',
    b'"\xf5\x80\x80\x80"', b'"\xe2\x82"', b"\xe2\x82\xac", b"1 2", b"{} {}", b"'a'", b"", b"  "])
def test_what_is_no_json_does_not_end(bad):
    state = read(bad)
    assert state is None or not state.complete
    assert not is_json(bad)


def test_utf8_leads_are_those_of_python():
    for lead in range(0x80, 0x100):
        good = []
        for following in range(0x80, 0xC0):
            for tail in (b"", b"\x80", b"\x80\x80"):
                try:
                    (bytes([lead, following]) + tail).decode("utf-8")
                    good.append((len(tail) + 1, following))
                except UnicodeDecodeError:
                    pass
        if lead not in LEADS:
            assert not good
        else:
            count, low, high = LEADS[lead]
            assert {following for _, following in good} == set(range(low, high + 1))
            assert {size for size, _ in good} == {count}


def test_a_token_that_would_break_is_masked_and_naive_reading_agrees():
    rule = JsonRule(PIECES, [END_ID])
    for begun in (b"", b"{", b'{"a', b'{"a":', b"[1", b"[[", b'"\\u0', b'"\xe2', b'{"a": 1, ',
                  b"-"):
        ids = list(begun)
        mask = rule(ids)
        for token_id, token in enumerate(PIECES):
            if token_id != END_ID:
                assert bool(mask[token_id]) == (read(begun + token) is not None), (begun, token)
    assert not rule(list(b"{"))[ord("]")]
    assert rule(list(b"{"))[ord("}")]


def test_masks_are_copies_and_states_are_kept():
    rule = JsonRule(BYTES, [END_ID])
    first = rule(list(b"["))
    first.fill_(False)
    assert rule(list(b"[")).any()
    for number in range(2000):  # more beginnings than are kept
        assert rule([ord("["), *[ord("1")] * (number % 90)]).any()
    assert len(rule._states) <= rule.KEPT + 1
    assert len(rule._masks) <= rule.KEPT


@pytest.mark.parametrize("whole", [b"{}", b"[1]", b'"a"', b"null", b"1 "])
def test_nothing_but_the_end_follows_a_closed_text(whole):
    rule = JsonRule([*BYTES, b"} ", b"] "], [END_ID])
    assert rule(list(whole)).nonzero()[:, 0].tolist() == [END_ID]
    assert not rule(list(b"{"))[257]
    assert rule(list(b"[{"))[257]
    assert rule(list(b"12"))[END_ID]
    assert rule(list(b"12"))[ord("3")]


def test_limits_of_depth_and_digits():
    rule = JsonRule(BYTES, [END_ID], max_depth=3)
    assert not rule(list(b"[[["))[ord("[")]
    assert rule(list(b"[[["))[ord("]")]
    assert read(b"1" * 100) is not None
    assert read(b"1" * 101) is None
    assert read(b"[" * 64) is not None
    assert read(b"[" * 65) is None


def test_what_is_refused_says_the_way_out():
    with pytest.raises(ValueError, match="name the token that ends"):
        JsonRule(BYTES, [])
    with pytest.raises(ValueError, match="begins no JSON"):
        JsonRule(BYTES, [END_ID])([ord("x")])
    with pytest.raises(ValueError, match="begins no JSON"):
        JsonRule(BYTES, [END_ID])([ord("1"), END_ID])


def test_the_course_tokenizer():
    _, tokenizer = load_base()
    end = tokenizer.special_tokens[END]
    rule = json_rule(tokenizer, [end])
    text = json.dumps({"name": "é€", "list": [1, 2.5, None], "deep": {"a": [True]}})
    ids = tokenizer.encode_ordinary(text)
    for place in range(len(ids)):
        assert rule(ids[:place])[ids[place]]
    last = rule(ids)
    assert last[end]
    assert not rule(ids[:-1])[end]
    assert torch.equal(last, rule(ids))
