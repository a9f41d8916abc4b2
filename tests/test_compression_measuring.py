"""Measuring: what is counted is what is there, and a fresh process is a fresh process."""

import numpy as np
import pytest
import torch

from scratchbook.compression import measuring
from scratchbook.compression.measuring import (
    disk_bytes,
    first_token_seconds,
    one_thread,
    peak_memory,
    writing_speed,
)

MEGABYTE = 1 << 20


def test_bytes_of_a_file_and_of_a_folder(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b").write_bytes(b"x" * 11)
    assert disk_bytes(tmp_path / "a") == 100 and disk_bytes(tmp_path) == 111
    with pytest.raises(FileNotFoundError, match="save the model first"):
        disk_bytes(tmp_path / "c")


def test_memory_is_that_of_the_code_and_not_of_who_asked() -> None:
    ballast = np.ones(400 * MEGABYTE // 8)  # a child would be charged with it by getrusage
    empty = peak_memory("pass")
    assert empty < 60 * MEGABYTE < ballast.nbytes
    held = peak_memory(f"x = bytearray({80 * MEGABYTE}); x[::4096] = b'1' * len(x[::4096]); del x")
    assert 75 * MEGABYTE < held - empty < 100 * MEGABYTE  # start-up peaks a little, too


def test_code_that_fails_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        peak_memory("1 / 0")
    with pytest.raises(RuntimeError, match="failed in a fresh process"):
        peak_memory("import sys; sys.exit(0)")


def test_speed_and_latency_by_a_clock_that_only_writing_moves(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now[0])

    def write(prompt_ids: list[int], max_new_tokens: int) -> list[int]:
        assert torch.get_num_threads() == 1
        now[0] += 0.01 * len(prompt_ids) * max_new_tokens
        return [0] * max_new_tokens

    assert writing_speed(write, [1], 4) == pytest.approx(100)
    waits = first_token_seconds(write, [[1]] * 9 + [[1] * 20])
    assert waits["p50"] == pytest.approx(0.01) and waits["p95"] == pytest.approx(0.1145)
    with pytest.raises(ValueError, match="no quantiles"):
        first_token_seconds(write, [[1]])
    with pytest.raises(ValueError, match="nothing was written"):
        writing_speed(lambda *_: write([1], 1)[1:], [1])


def test_threads_come_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == before
