"""Seeds, devices and atomic files."""

import os

import pytest
import torch

from scratchbook.runtime import (
    data_dir,
    environment,
    named_generator,
    pick_device,
    seed_all,
    write_atomically,
)


def test_a_named_generator_depends_on_seed_and_name_alone():
    first = torch.rand(3, generator=named_generator(1, "a"))
    torch.rand(100)
    assert torch.equal(first, torch.rand(3, generator=named_generator(1, "a")))
    assert not torch.equal(first, torch.rand(3, generator=named_generator(1, "b")))
    assert not torch.equal(first, torch.rand(3, generator=named_generator(2, "a")))


def test_seed_all_repeats_every_generator():
    import random

    import numpy as np

    def numbers():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_all(7)
    first = numbers()
    seed_all(7)
    assert numbers() == first


@pytest.mark.parametrize(("cuda", "mps", "expected"),
                         [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_picks_the_fastest_device_there_is(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device() == expected


def test_a_missing_device_is_refused_with_the_ones_that_are_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'cuda:1' is not available here: use one of .*cpu"):
        pick_device("cuda:1")


def test_write_atomically_makes_folders_and_replaces(tmp_path):
    path = write_atomically(tmp_path / "a" / "b.txt", "first")
    write_atomically(path, "zweitens ✓")
    assert path.read_text(encoding="utf-8") == "zweitens ✓"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_a_crash_while_writing_keeps_the_old_file(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "kept.txt", "old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new and half")
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


def test_the_environment_names_what_a_number_depends_on():
    facts = environment()
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0] or facts["versions"]
    assert facts["threads"] >= 1 and facts["cores"] >= 1


def test_the_data_folder_is_found():
    assert (data_dir() / "registry.toml").is_file()
