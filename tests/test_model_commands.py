"""`scratchbook sizes` and `scratchbook model show`: the table that the course quotes."""

from __future__ import annotations

import json

import pytest

from scratchbook import cli
from scratchbook.cli.model_commands import with_unit

# model, parameters, FLOPs per token, KV, fp32, bf16, int8, int4, tokens per second in bf16 and int4
# (the cache stays bf16)
GOLDEN = """\
char-513k 513,736 8.39e+05 1.02 kB 2.05 MB 1.03 MB 514 kB 257 kB 26,402 39,686
mini-27m 27,262,976 4.61e+07 12.3 kB 109 MB 54.5 MB 27.3 MB 13.6 MB 851 2,073
mini-46m 46,137,344 8.39e+07 24.6 kB 185 MB 92.3 MB 46.1 MB 23.1 MB 458 1,084
smalltalk-89m 89,075,712 1.78e+08 36.9 kB 356 MB 178 MB 89.1 MB 44.5 MB 232 608
gpt2 124,439,808 2.47e+08 36.9 kB 498 MB 249 MB 124 MB 62.2 MB 175 502
gpt2-xl 1,557,611,200 3.11e+09 307 kB 6.23 GB 3.12 GB 1.56 GB 779 MB 15 46
llama-3-8b 8,030,261,248 1.5e+10 131 kB 32.1 GB 16.1 GB 8.03 GB 4.02 GB 3 13
"""
NAMES = [line.split()[0] for line in GOLDEN.splitlines()]


def run(capsys, *words: str) -> tuple[int, str, str]:
    status = cli.main(list(words))
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def chosen(names: list[str]) -> list[str]:
    return [word for name in names for word in ("--config", name)]


def test_the_table_is_the_golden_one(capsys):
    status, out, _ = run(capsys, "sizes", *chosen(NAMES))
    assert status == 0
    head, *lines = out.split("\n\n")[0].splitlines()
    assert [line.split() for line in lines] == [line.split() for line in GOLDEN.splitlines()]
    assert len({len(line) for line in (head, *lines)}) == 1, "the columns end together"
    assert "50 GB/s\nwith 1024 tokens read" in out


def test_all_configs_are_listed_smallest_first(capsys):
    rows = json.loads(run(capsys, "sizes", "--json")[1])
    counts = [row["parameters"] for row in rows]
    assert set(NAMES) <= {row["model"] for row in rows}
    assert counts == sorted(counts)
    for row in rows:
        assert row["fp32"] == 2 * row["bf16"] == 4 * row["int8"] == 8 * row["int4"]


def test_speed_grows_with_bandwidth_and_falls_with_context(capsys):
    def speed(*words: str) -> float:
        rows = json.loads(run(capsys, "sizes", "--config", "gpt2", "--json", *words)[1])
        return rows[0]["tokens_per_second_bf16"]

    assert speed("--bandwidth", "200") == pytest.approx(4 * speed("--bandwidth", "50"))
    assert speed("--context", "1024") < speed("--context", "1")


def test_a_model_is_shown_part_by_part(capsys):
    status, out, _ = run(capsys, "model", "show", "--config", "llama-3-8b")
    assert status == 0
    assert "8,030,261,248" in out
    assert "32 layers, d_model 4096, 32 heads (8 for keys and values)" in out
    assert "5,637,144,576   70%" in out
    assert out == run(capsys, "model", "show", "--config", "llama3-8b")[1]


@pytest.mark.parametrize("words", [("sizes", "--config", "gpt5"),
                                   ("model", "show", "--config", "gpt5")])
def test_an_unknown_config_is_one_clear_line(capsys, words):
    status, _, err = run(capsys, *words)
    assert status == 2
    assert "no config is called 'gpt5'; there are:" in err and "llama-3-8b" in err


@pytest.mark.parametrize("words", [("--bandwidth", "0"), ("--bandwidth", "fast"),
                                   ("--context", "0"), ("--bandwidth", "inf")])
def test_impossible_numbers_are_refused(capsys, words):
    with pytest.raises(SystemExit) as stop:
        cli.main(["sizes", *words])
    assert stop.value.code == 2
    assert "above 0" in capsys.readouterr().err


@pytest.mark.parametrize(("count", "words"), [(5, "5 B"), (1023, "1.02 kB"), (5e8, "500 MB"),
                                              (3.2e13, "3.2e+04 GB")])
def test_bytes_have_a_unit(count, words):
    assert with_unit(count) == words
