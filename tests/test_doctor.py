"""The doctor's judgement, on machines that are made up here."""

import json
from dataclasses import replace

import pytest

from scratchbook.publishing import doctor
from scratchbook.publishing.doctor import Machine, Package

GOOD = Machine(
    python="3.12.1", system="Linux x86_64", packages=[Package("torch", "2.4", "2.13.0+cpu")],
    device="cpu", device_memory=None, cores=2, threads=2, memory=8 * 10**9,
    memory_free=6 * 10**9, disk_free=50 * 10**9, data_folder="data", browser="/bin/chromium",
    node="/bin/node")
PASSPORT = {"memory_mb": 700, "budget_seconds": {"quick": 45, "full": 720},
            "downloads_mb": {"quick": 0, "full": 2000}, "device": {"full": "cuda"}}


def judge(machine: Machine, profile: str = "quick", **changes):
    return doctor.verdict(machine, "01_tokenization", PASSPORT | changes, profile)


def test_a_chapter_that_fits():
    verdict = judge(GOOD)
    assert verdict.fits
    assert verdict.reason == "within 45 s on two cores, 700 MB of memory"


@pytest.mark.parametrize(("machine", "profile", "changes", "reason"), [
    (replace(GOOD, memory=600 * 10**6), "quick", {}, "this machine has 600 MB"),
    (replace(GOOD, memory_free=10**8), "quick", {}, "close other programs"),
    (GOOD, "full", {}, "needs a cuda device, this machine has cpu"),
    (replace(GOOD, disk_free=10**9), "full", {"device": {}}, "SCRATCHBOOK_DATA moves it"),
    (replace(GOOD, packages=[Package("torch", "2.4", "")]), "quick", {}, "needs torch"),
    (replace(GOOD, packages=[Package("torch", "2.4", "2.0.1")]), "quick", {}, "needs torch"),
    (GOOD, "huge", {}, "has no such profile"),
])
def test_what_does_not_fit_says_why(machine, profile, changes, reason):
    verdict = judge(machine, profile, **changes)
    assert not verdict.fits
    assert reason in verdict.reason


def test_devices_and_unknown_sizes_are_no_obstacle():
    assert judge(replace(GOOD, device="cuda (NVIDIA RTX 3060)"), "full").fits
    assert judge(replace(GOOD, memory=None, memory_free=None, disk_free=None)).fits


@pytest.mark.parametrize(("oldest", "found", "serves"), [
    ("2.4", "2.13.0", True), ("2.4", "2.4.0", True), ("2.14", "2.13.0", False),
    ("2024.4", "2026.11.15", True), ("", "1.0", True), ("1.0", "", False),
    ("2.0", "2.13.0+cpu", True),
])
def test_versions_compare_as_numbers(oldest, found, serves):
    assert Package("any", oldest, found).serves is serves


def test_problems_come_with_their_way_out():
    packages = [Package("torch", "2.4", ""), Package("papermill", "2.6", "", "notebooks")]
    ill = replace(GOOD, python="3.9.2", packages=packages, browser="", node="")
    found = "\n".join(doctor.problems(ill))
    for part in ("install 3.11 or newer", "pip install -U 'scratchbook'",
                 "pip install -U 'scratchbook[notebooks]'", "playwright install", "no node"):
        assert part in found
    assert doctor.problems(GOOD) == []


def test_this_machine_is_examined_and_written_in_both_forms():
    machine = doctor.examine()
    names = {package.name for package in machine.packages}
    assert {"torch", "numpy", "regex"} <= names
    assert "pytest" not in names, "a reader does not need the tests' packages"
    verdicts = [doctor.verdict(machine, "01_tokenization", PASSPORT, p) for p in ("quick", "full")]
    text = "\n".join(doctor.as_lines(machine, verdicts))
    assert "01_tokenization" in text
    assert machine.python in text
    assert json.loads(json.dumps(doctor.as_data(machine, verdicts)))["verdicts"][1]["reason"]


@pytest.mark.parametrize(("device", "cuda", "mps"), [
    ("cuda", True, False), ("mps", False, True), ("cpu", False, False)])
def test_the_device_that_is_there_is_named(monkeypatch, device, cuda, mps):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=0: "RTX 3060")
    properties = type("Properties", (), {"total_memory": 12 * 10**9})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    machine = doctor.examine()
    assert machine.device.startswith(device)
    assert machine.device_memory == (12 * 10**9 if cuda else None)


def test_the_browser_of_the_environment_variable_wins(monkeypatch, tmp_path):
    browser = tmp_path / "chrome"
    browser.touch()
    monkeypatch.setenv("SCRATCHBOOK_CHROMIUM", str(browser))
    assert doctor.find_browser() == str(browser)
    monkeypatch.setenv("SCRATCHBOOK_CHROMIUM", str(tmp_path / "missing"))
    assert doctor.find_browser() == ""


def test_no_browser_at_all(monkeypatch):
    monkeypatch.delenv("SCRATCHBOOK_CHROMIUM", raising=False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor, "BROWSER_PLACES", ("/nowhere/chrome*",))
    assert doctor.find_browser() == ""
