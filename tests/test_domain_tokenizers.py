"""Folding logs: nothing lost on any text, each mark where it should be, and files that stay."""

import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.tokenizers import BPETokenizer, Tokenizer
from scratchbook.tokenizers.domain import LogTokenizer, learn_templates
from scratchbook.tokenizers.folding import (
    FAR,
    LONGEST_LINE,
    MOST_SEEN,
    MOST_SKIP,
    MOST_TIMES,
    NEW_SLOTS,
    TEXT,
    Mark,
    fold,
    marks,
    unfold,
)

LOG = "".join(f"10:0{n // 60}:{n % 60:02d} INFO worker {n % 7} read /srv/data/part-{n % 3}.bin\n"
              for n in range(120))
TRACE = """Traceback (most recent call last):
  File "/srv/app/main.py", line 12, in run
    return self.step(n)
  File "/srv/app/main.py", line 31, in step
    return self.step(n - 1)
RecursionError: maximum recursion depth exceeded
"""
TRAINED = LogTokenizer().train([LOG, TRACE], 900, special_tokens=["<|end|>"])
any_text = st.text(st.characters(codec="utf-8") | st.sampled_from("\r\n\t\0 /a19.:Z"), max_size=120)
log_like = st.lists(st.sampled_from(
    ["10:01:59 INFO job 7\n", "10:02:00 INFO job 8\n", "at a.b.C(D.java:10)\n",
     "at a.b.C(D.java:99)\n", "/srv/app/x.py", "/srv/app/x.py\n", "blk_12345678",
     "blk_12345678 x\n",
     "\n", "\r\n", "099\n",
     "100\n", "é 1\n", "\x1b[31mERROR\x1b[0m 5\n", "\0 5\n", "x \0\n", "9" * 30 + "\n",
     "w1 " * 60 + "\n", "w2 " * 60 + "\n"]), max_size=40).map("".join)


@given(any_text | log_like)
@settings(max_examples=400, deadline=None)
def test_nothing_is_lost(text):
    assert unfold(fold(text)) == text
    assert unfold(fold(text, [LOG[:44], "w1 " * 60 + "\n"]), [LOG[:44], "w1 " * 60 + "\n"]) == text
    assert TRAINED.decode(TRAINED.encode_ordinary(text), errors="strict") == text


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_bytes_of_any_kind_come_back_through_latin_1_and_through_replacement(content):
    for text in (content.decode("latin-1"), content.decode("utf-8", "replace")):
        assert TRAINED.decode(TRAINED.encode_ordinary(text)) == text


@given(st.lists(st.integers(0, TRAINED.vocab_size - 1), max_size=60))
@settings(max_examples=300, deadline=None)
def test_ids_that_a_model_makes_up_give_some_text(ids):
    text = TRAINED.decode(ids)
    assert TRAINED.decode(TRAINED.encode_ordinary(text)) == text


def test_two_strings_never_stand_side_by_side():
    for text in (LOG, TRACE * 3, LOG + TRACE + "end " + LOG):
        steps = fold(text)
        assert not any(isinstance(a, str) and isinstance(b, str)
                       for a, b in zip(steps, steps[1:], strict=False))


# each mark, on a text that shows it alone


@pytest.mark.parametrize(("text", "steps"), [
    ("no log at all", ["no log at all"]),
    ("", []),
    ("10:04:07 INFO Worker 12 started\n10:04:08 INFO Worker 12 started\n",
     ["10:04:07 INFO Worker 12 started\n", Mark("LIKE"), Mark("UP", 2)]),
    ("10:04:07 INFO Worker 12 started\n10:04:07 INFO Worker 7 started\n",
     ["10:04:07 INFO Worker 12 started\n", Mark("LIKE"), Mark("SKIP", 5), "7"]),
    ("job 098\njob 099\njob 100\n", ["job 098\n", Mark("LIKE"), Mark("UP", 1), Mark("LIKE"),
                                     Mark("UP", 1)]),  # 099 to 100 keeps three digits
    ("job 99 of many\njob 100 of many\n",
     ["job 99 of many\n", Mark("LIKE"), Mark("SKIP", 1), "100"]),
    ("a\nb c\na\nb c\na\nb c\na\nb c\n", ["a\nb c\n", Mark("AGAIN", 2), "3"]),
    ("open /var/log/x1.log now\nsee /var/log/x1.log\n",
     ["open /var/log/x1.log now\nsee ", Mark("SEEN"), "\n"]),
    ("block 1234567 lost\nnode 7 has 1234567\n",
     ["block 1234567 lost\nnode 7 has ", Mark("SEEN"), "\n"]),
    ("job 4 of a kind\nhello\njob 5 of a kind\nsomething else, new\n",
     ["job 4 of a kind\nhello\n", Mark("LIKE"), Mark("UP", 1), TEXT, "something else, new\n"]),
    # another word, the same marks between words: the latest line of that shape serves
    ("at a.b.First(F.java:10)\nat a.b.Other(F.java:10)\n",
     ["at a.b.First(F.java:10)\n", Mark("LIKE"), Mark("SKIP", 3), "Other"]),
])
def test_where_a_mark_stands(text, steps):
    assert fold(text) == steps
    assert unfold(steps) == text


def test_far_words_take_a_mark_of_their_own():
    words = ["w"] * (MOST_SKIP + 5) + ["3"]
    line, later = " ".join(words) + "\n", " ".join([*words[:-1], "8"]) + "\n"
    assert fold(line + later)[1:] == [Mark("LIKE"), FAR, Mark("SKIP", 4), "8"]


def test_the_length_does_not_depend_on_how_often_lines_repeat():
    lengths = {len(TRAINED.encode_ordinary(TRACE.replace("31", "77") * times)) for times in (3, 9)}
    assert len(lengths) == 1
    many = "again\nand\n" * (MOST_TIMES + 3)
    assert fold(many) == ["again\nand\n", Mark("AGAIN", 2), str(MOST_TIMES), Mark("AGAIN", 2), "2"]
    assert unfold(fold(many)) == many


def test_a_long_line_stays_plain_text():
    line = "a1 " * LONGEST_LINE + "\n"
    assert fold(line * 3) == [line * 3]


def test_more_templates_and_words_than_there_is_room_for():
    draw = random.Random(0)
    words = [f"{draw.randrange(10**9):09d}x" for _ in range(2 * MOST_SEEN)]
    lines = [f"{'ab' * (n + 1)} {draw.choice(words)} = {draw.choice(words)}\n"
             for n in range(2 * NEW_SLOTS)] * 2
    draw.shuffle(lines)
    text = "".join(lines)
    assert unfold(fold(text)) == text
    kinds = {step.kind for step in fold(text) if isinstance(step, Mark)}
    assert {"LIKE", "SEEN", "SKIP"} <= kinds


# what a model may write


@pytest.mark.parametrize("steps", [
    [Mark("LIKE", 5)], [Mark("SKIP", 3), "x"], [Mark("UP", 0)], [FAR], [Mark("SEEN", 9)],
    [Mark("AGAIN", 1), "2"], ["a\n", Mark("AGAIN", 2), "2"], ["a\n", Mark("AGAIN", 1), "x"],
    ["a\n", Mark("AGAIN", 1), str(MOST_TIMES * 10)], ["a 1\n", Mark("LIKE"), Mark("SKIP", 2), "x"],
    ["a b\n", Mark("LIKE"), Mark("UP", 0)], ["a 1\n", Mark("LIKE"), "x"], ["a 9\n", Mark("LIKE"),
                                                                         Mark("UP", 1)],
    ["a 1\n", Mark("LIKE"), Mark("SKIP", 0), Mark("SKIP", 0), "b"],
])
def test_a_mark_that_means_nothing_is_refused_or_replaced(steps):
    with pytest.raises(ValueError, match="means nothing where it stands"):
        unfold(steps)
    assert "\ufffd" in unfold(steps, errors="replace")


def test_a_list_that_breaks_off_ends_with_the_line_as_before():
    assert unfold(["job 1 on node 2\n", Mark("LIKE"), Mark("SKIP", 1), "5"]) == (
        "job 1 on node 2\njob 5 on node 2\n")


# any text, however long


@pytest.mark.parametrize("unit", ["a", "1", " ", "/", "/a", "a1", "\n", "a\n", "1\n", "a\nb\nc 1\n",
                                  "\r", "é", "\0", "\x1b[31m", "a\n\n"])
def test_folding_is_linear(unit):
    def seconds(size: int) -> float:
        text, start = unit * (size // len(unit)), time.process_time()
        assert unfold(fold(text)) == text
        return time.process_time() - start

    # four times the text: four times the time, sixteen if it were quadratic
    small = min(seconds(50_000) for _ in range(3))
    assert min(seconds(200_000) for _ in range(2)) < 9 * small + 0.02


# the tokenizer


def test_half_a_character_at_the_end_of_a_chunk_is_one_replacement():
    ids = TRAINED.encode_ordinary("x é")
    assert TRAINED.decode(ids[:-1]) == "x �"
    with pytest.raises(UnicodeDecodeError):
        TRAINED.decode(ids[:-1], errors="strict")


def test_special_tokens_part_texts_that_are_folded_alone():
    ids = TRAINED.encode(LOG + "<|end|>" + LOG, allowed_special="all")
    alone = TRAINED.encode_ordinary(LOG)
    assert ids == [*alone, TRAINED.special_tokens["<|end|>"], *alone]
    assert TRAINED.decode(ids) == LOG + "<|end|>" + LOG
    with pytest.raises(ValueError, match="spells the special token"):
        TRAINED.encode("a<|end|>")


def test_ids_are_the_same_after_a_file(tmp_path):
    path = tmp_path / "logs.json"
    TRAINED.save(path)
    again = Tokenizer.load(path)
    assert isinstance(again, LogTokenizer) and again.vocab_size == TRAINED.vocab_size <= 900
    assert again.encode_ordinary(LOG + TRACE) == TRAINED.encode_ordinary(LOG + TRACE)
    state = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**state, "templates": ["two\nlines\n"]}), encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged.*is not one line"):
        Tokenizer.load(path)


def test_learned_templates_are_the_common_ones():
    rare = "once upon a time 1\n"
    assert learn_templates([LOG, rare]) == [LOG.split("\n")[0] + "\n"]
    assert learn_templates([LOG + TRACE * 3], most=2)[0] == LOG.split("\n")[0] + "\n"
    assert TRAINED.encode_ordinary(LOG.split("\n")[0] + "\n") == [
        TRAINED.bpe.vocab_size + TRAINED.marks.index(Mark("LIKE", 0))]


def test_planted_templates_are_found():
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghij", k=6)) for _ in range(160)]
    heads = [" ".join(words[4 * n:4 * n + 4]) for n in range(40)]
    lines = [f"{draw.choice(heads)} {draw.randrange(1000)}\n" for _ in range(2000)]
    found = {line.rsplit(" ", 1)[0] for line in learn_templates(["".join(lines)])}
    assert found == set(heads)


def test_folding_lies_over_any_bpe():
    bpe = BPETokenizer().train(LOG, 400, special_tokens=["<|end|>"])
    over = LogTokenizer.over(bpe)
    ids = over.encode_ordinary(LOG)
    assert over.decode(ids) == LOG and len(ids) < len(bpe.encode_ordinary(LOG)) / 3
    assert over.encode_ordinary("plain words") == bpe.encode_ordinary("plain words")


def test_every_mark_has_its_own_id_and_no_bytes_of_its_own():
    assert len(set(marks(7))) == len(marks(7))
    mark = TRAINED.bpe.vocab_size
    assert TRAINED.describe(mark) == "TEXT" and TRAINED.describe(97)
    with pytest.raises(ValueError, match="decode the whole list"):
        TRAINED.token_bytes(mark)
    for outside in (-1, TRAINED.vocab_size):
        with pytest.raises(ValueError, match="is not in this vocabulary"):
            TRAINED.token_bytes(outside)
        with pytest.raises(ValueError, match="is not in this vocabulary"):
            TRAINED.decode([outside])


@pytest.mark.parametrize(("texts", "size", "message"), [
    ("abc", 500, "256 bytes, 362 marks"), ([], 900, "the corpus is empty"), ("abc", "9", "whole")])
def test_training_refuses(texts, size, message):
    with pytest.raises(ValueError, match=message):
        LogTokenizer().train(texts, size)


@pytest.mark.parametrize("templates", ["x", "job 1\n", {"a": "b"}])
def test_templates_are_a_list(templates):
    with pytest.raises(ValueError, match="must be a list of lines"):
        LogTokenizer.over(BPETokenizer("gpt2"), templates)
