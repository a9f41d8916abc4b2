"""The table of sources, and collecting: pinned commits, resuming after a kill, what is broken."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from datetime import date
from pathlib import Path

import pytest

from scratchbook.smalltalk.collecting import CollectError, collect, load_manifest, run_git
from scratchbook.smalltalk.source_table import (
    Source,
    check_families,
    choose_sources,
    load_sources,
)

FILES = {"src/Course-Bank/Account.class.st": "Class {\n\t#name : #Account\n}\n",
         "README.md": "not Smalltalk\n"}


def repository(where: Path, files: dict[str, str], bare: bool = False) -> str:
    """A git repository with one commit; returns the commit."""
    where.mkdir(parents=True)
    run_git("init", "--quiet", "-b", "main", ".", where=where)
    for name, text in files.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(text, encoding="utf-8")
    run_git("add", ".", where=where)
    run_git("-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet",
            "-m", "first", where=where)
    commit = run_git("rev-parse", "HEAD", where=where).strip()
    if bare:
        run_git("clone", "--quiet", "--bare", ".", f"{where}.bare", where=where)
        shutil.rmtree(where)
        Path(f"{where}.bare").rename(where)
    return commit


def source(name: str, commit: str, **more) -> Source:
    return Source(name, commit, date(2026, 1, 1), "Tonel", "MIT", **more)


@pytest.fixture
def upstream(tmp_path):
    """Two repositories as a server would hold them, and the sources that name them."""
    names = ["ann/bank", "bob/shop"]
    return tmp_path / "up", [
        source(name, repository(tmp_path / "up" / name, {**FILES, "a.st": name})) for name in names]


def test_the_table_reaches_a_hundred_megabytes_of_permissive_code():
    sources = load_sources()
    default = choose_sources(sources)
    assert sum(source.raw_mb for source in default) >= 100
    assert all(source.licence.startswith("MIT") for source in default)
    assert {s.name for s in default if s.split == "test"} == {
        "cormas/cormas", "exercism/pharo-smalltalk", "hpi-swa/sandblocks",
        "pharo-contributions/XML-XMLParser"}
    assert {s.split for s in choose_sources(sources, more=True) if s.family == "pharo"} == {"train"}
    off = {s.name for s in choose_sources(sources, all_licences=True)} - {s.name for s in default}
    assert off == {s.name for s in sources if s.use == "off"} and "hilaire/drgeo" in off


def test_a_family_on_two_sides_is_refused():
    one, other = source("a/one", "0" * 40, family="f"), source("b/two", "0" * 40, family="f",
                                                               split="test")
    check_families([one, source("b/two", "0" * 40, family="f")])
    with pytest.raises(ValueError, match="family 'f' is split: a/one is in train, b/two in test"):
        check_families([one, other])


@pytest.mark.parametrize(("fields", "message"), [
    ({"name": "no-owner"}, "must be owner/name"), ({"commit": "9b55ea408a6a"}, "40 hexadecimal"),
    ({"name": "../../etc"}, "must be owner/name"), ({"name": "-x/y z"}, "must be owner/name"),
    ({"commit": "main"}, "a branch moves"), ({"split": "val"}, "train, validation, test"),
    ({"use": "maybe"}, "default, on request, off"), ({"dialect": "java"}, "one of pharo, squeak"),
])
def test_a_wrong_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        source(**{"name": "a/b", "commit": "0" * 40, **fields})


def test_a_table_that_is_none_says_what_one_is(tmp_path):
    table = tmp_path / "t.toml"
    table.write_text('["a/b"]\ncommit = "0"\ncolour = "red"\n', encoding="utf-8")
    with pytest.raises(ValueError, match="colour.*each source is a table"):
        load_sources(table)


def test_sources_are_chosen_by_name():
    sources = load_sources()
    assert [s.name for s in choose_sources(sources, ["cormas"])] == ["cormas/cormas"]
    with pytest.raises(ValueError, match="2 sources are called 'Cuis-Smalltalk-Dev'"):
        choose_sources(sources, ["Cuis-Smalltalk-Dev"])
    with pytest.raises(ValueError, match="0 sources are called 'squeak'; there are pharo-project"):
        choose_sources(sources, ["squeak"])


def test_each_source_is_fetched_at_its_commit(tmp_path, upstream):
    up, sources = upstream
    (up / "ann/bank/a.st").write_text("newer", encoding="utf-8")
    run_git("-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qam", "second",
            where=up / "ann/bank")
    entries = collect(sources, tmp_path / "raw", base_url=str(up))
    assert [(e.name, e.commit, e.files, e.error) for e in entries] == [
        (s.name, s.commit, 2, "") for s in sources]
    assert entries[0].bytes == len(FILES["src/Course-Bank/Account.class.st"]) + len("ann/bank")
    text = run_git("show", f"{sources[0].commit}:a.st", where=Path(entries[0].where))
    assert text == "ann/bank"  # not "newer"
    assert load_manifest(tmp_path / "raw") == entries


def test_what_cannot_be_had_costs_one_line_and_comes_with_the_next_run(tmp_path, upstream):
    up, (bank, shop) = upstream
    sources = [source("eve/gone", "1" * 40), source(bank.name, "2" * 40), shop]
    lines = []
    entries = collect(sources, tmp_path / "raw", base_url=str(up), say=lines.append)
    assert [bool(e.error) for e in entries] == [True, True, False]
    assert lines[0].startswith("eve/gone: skipped: git fetch: ")
    assert lines[2].startswith("bob/shop ") and "2 files" in lines[2]
    again = collect([bank, shop], tmp_path / "raw", base_url=str(up))
    assert {e.name: bool(e.error) for e in again} == {"eve/gone": True, "ann/bank": False,
                                                      "bob/shop": False}


RUN = textwrap.dedent("""
    import sys
    from tests.test_smalltalk_collecting import source
    from scratchbook.smalltalk.collecting import collect
    up, raw, *pairs = sys.argv[1:]
    collect([source(*p.split("@")) for p in pairs], raw, base_url=up, say=print)
""")


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path, upstream):
    up, sources = upstream
    git, deadly, log = shutil.which("git"), tmp_path / "deadly", tmp_path / "log"
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin" / "git"
    wrapper.write_text(f"""#!/bin/sh
echo "$@" >> {log}
case "$*" in *fetch*bob/shop*) if [ -e {deadly} ]; then echo half > half; kill -9 $PPID; fi;; esac
exec {git} "$@"
""", encoding="utf-8")
    wrapper.chmod(0o755)
    command = [sys.executable, "-c", RUN, str(up), str(tmp_path / "raw"),
               *(f"{s.name}@{s.commit}" for s in sources)]
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                   "PYTHONPATH": root}
    deadly.touch()
    killed = subprocess.run(command, env=environment, capture_output=True, check=False, cwd=root)
    assert killed.returncode == -signal.SIGKILL
    assert [e.name for e in load_manifest(tmp_path / "raw")] == ["ann/bank"]
    deadly.unlink()
    log.unlink()
    done = subprocess.run(command, env=environment, capture_output=True, check=True, cwd=root)
    assert b"bob/shop" in done.stdout
    fetched = [line for line in log.read_text(encoding="utf-8").splitlines() if "fetch" in line]
    assert len(fetched) == 1 and "bob/shop" in fetched[0]  # the first is not fetched again
    entries = load_manifest(tmp_path / "raw")
    assert [e.error for e in entries] == ["", ""]
    assert not (Path(entries[1].where) / "half").exists()


def test_a_repository_that_arrived_before_the_kill_is_not_fetched_again(tmp_path, upstream):
    up, sources = upstream
    collect(sources, tmp_path / "raw", base_url=str(up))
    (tmp_path / "raw" / "manifest.json").unlink()
    shutil.rmtree(up)  # nothing could be fetched now
    assert [e.error for e in collect(sources, tmp_path / "raw", base_url=str(up))] == ["", ""]


def test_an_older_checkout_is_replaced_by_the_commit_of_the_table(tmp_path, upstream):
    up, sources = upstream
    old = repository(tmp_path / "raw" / sources[0].folder, {"old.st": "old"}, bare=True)
    assert old != sources[0].commit
    entry = collect(sources[:1], tmp_path / "raw", base_url=str(up))[0]
    assert (entry.error, entry.commit) == ("", sources[0].commit)
    where = Path(entry.where)
    assert run_git("rev-parse", f"{entry.commit}^{{commit}}", where=where).strip() == entry.commit
    assert "old.st" not in run_git("ls-tree", "-r", "--name-only", entry.commit, where=where)
    with pytest.raises(CollectError):
        run_git("rev-parse", "--verify", f"{old}^{{commit}}", where=where)  # nothing of it is left


@pytest.mark.parametrize("place", ["ann+bank/repo", "ann+bank", "ann/bank", "bank", "bank.git",
                                   "."])
@pytest.mark.parametrize("bare", [False, True])
def test_a_repository_that_is_here_is_found(tmp_path, place, bare):
    here = tmp_path / "here" / place if place != "." else tmp_path / "here"
    commit = repository(here, FILES, bare)
    (entry,) = collect([source("ann/bank", commit)], tmp_path / "raw", tmp_path / "here")
    assert (entry.error, entry.files, Path(entry.where)) == ("", 1, here.resolve())


def test_another_commit_is_taken_only_when_asked(tmp_path):
    commit = repository(tmp_path / "here/bank", FILES)
    wanted = [source("ann/bank", "3" * 40)]
    (entry,) = collect(wanted, tmp_path / "raw", tmp_path / "here")
    assert "lacks the commit 333333333333; --any-commit" in entry.error
    (entry,) = collect(wanted, tmp_path / "raw", tmp_path / "here", any_commit=True)
    assert (entry.error, entry.commit) == ("", commit)


def test_one_repository_is_not_taken_for_two_sources(tmp_path):
    commit = repository(tmp_path / "here", FILES)
    two = [source("ann/bank", commit), source("bob/shop", commit)]
    entries = collect(two, tmp_path / "raw", tmp_path / "here", any_commit=True)
    assert ["not below" in entry.error for entry in entries] == [True, True]


def test_a_damaged_repository_and_a_plain_folder(tmp_path):
    commit = repository(tmp_path / "here/bank", FILES)
    for file in (tmp_path / "here/bank/.git/objects").rglob("*"):
        if file.is_file():
            file.chmod(0o644)
            file.write_bytes(b"broken")
    (tmp_path / "here/shop").mkdir()
    (tmp_path / "here/shop/x.st").write_text("! !", encoding="utf-8")
    bank, shop = collect([source("ann/bank", commit), source("bob/shop", "0" * 40)],
                         tmp_path / "raw", tmp_path / "here")
    assert bank.error and not shop.error
    assert (shop.commit, shop.files, shop.bytes) == ("", 1, 3)


def test_mistakes_of_the_user_are_named(tmp_path):
    with pytest.raises(ValueError, match="is no folder"):
        collect([], tmp_path, tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text('[{"colour": 1}]', encoding="utf-8")
    with pytest.raises(ValueError, match="delete it and collect again"):
        collect([], tmp_path)
    with pytest.raises(CollectError, match="git nonsense"):
        run_git("nonsense", where=tmp_path)
