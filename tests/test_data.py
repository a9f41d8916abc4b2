"""Downloads that are checked before they are used, and two corpora that need no network."""

import functools
import hashlib
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scratchbook import data, runtime

CONTENT = "Zwölf Boxkämpfer\n".encode() * 50
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path):
    """A web server on this machine that counts what is asked of it."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "words.txt").write_bytes(CONTENT)
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        running.url, running.folder, running.asked = (
            f"http://127.0.0.1:{running.server_port}/words.txt", folder, asked)
        yield running
        running.shutdown()


@pytest.fixture
def words(server, tmp_path, monkeypatch):
    """A registry of one entry, `words`, and an empty cache. Returns where the file belongs."""
    (tmp_path / "registry.toml").write_text(
        f'[words]\nfile = "group/words.txt"\nurl = "{server.url}"\nsha256 = "{SHA256}"\n'
        f'bytes = {len(CONTENT)}\nlicence = "public domain"\nwhat = "a pangram"\n',
        encoding="utf-8")
    monkeypatch.setattr(runtime, "data_dir", lambda: tmp_path)
    monkeypatch.setenv("SCRATCHBOOK_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path / "cache" / "group" / "words.txt"


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


# the registry


def test_every_entry_is_complete():
    for name, entry in data.registry().items():
        assert entry.name == name
        assert entry.url.startswith("https://")
        assert len(entry.sha256) == 64 and int(entry.sha256, 16)
        assert entry.bytes > 0 and entry.licence and entry.what, name
        group, file = entry.file.split("/")  # one folder, one file: nothing leads outside
        assert group not in ("", ".", "..") and file not in ("", ".", "..")


def test_the_names_that_others_rely_on_are_there():
    assert {"tinyshakespeare", "gpt2_encoder", "gpt2_vocab", "r50k_base", "cl100k_base",
            "o200k_base"} <= set(data.registry())
    files = [entry.file for entry in data.registry().values()]
    assert len(set(files)) == len(files)


def test_addresses_name_a_fixed_version():
    for entry in data.registry().values():
        assert "/master/" not in entry.url and "/main/" not in entry.url, entry.name


def test_an_unknown_name_lists_the_known_ones():
    for function in (data.fetch, data.available):
        with pytest.raises(ValueError, match="no dataset is named 'shakespeare'; known: tinyshake"):
            function("shakespeare")


# fetching


def test_it_is_downloaded_once_and_then_read(words, server):
    assert not data.available("words")
    assert data.fetch("words") == words
    assert words.read_bytes() == CONTENT
    assert data.available("words")
    assert data.fetch("words") == words
    assert len(server.asked) == 1


def test_only_the_file_is_left_behind(words):
    data.fetch("words")
    assert list(words.parent.iterdir()) == [words]


def test_a_tampered_file_is_fetched_again(words, server):
    data.fetch("words")
    changed = b"X" + CONTENT[1:]  # the size is right
    words.write_bytes(changed)
    assert not data.available("words")
    assert data.fetch("words").read_bytes() == CONTENT
    assert len(server.asked) == 2
    words.write_bytes(CONTENT[:-1])
    assert not data.available("words")
    assert data.fetch("words").read_bytes() == CONTENT


def test_wrong_bytes_from_the_network_are_never_used(words, server):
    (server.folder / "words.txt").write_bytes(b"X" + CONTENT[1:])
    with pytest.raises(data.DownloadError, match="is missing"):
        data.fetch("words")
    assert not words.exists() and not data.available("words")
    words.write_bytes(b"older rubbish")
    with pytest.raises(data.DownloadError, match="has other bytes and is not used"):
        data.fetch("words")
    assert words.read_bytes() == b"older rubbish"  # ours to refuse, not to delete


def test_offline_the_error_says_what_to_do(words, server):
    server.shutdown()
    server.server_close()
    with pytest.raises(data.DownloadError) as caught:
        data.fetch("words")
    message = str(caught.value)
    for part in ("words:", str(words), "is missing", f"({len(CONTENT)} bytes)",
                 "set SCRATCHBOOK_DATA to a folder that holds group/words.txt", server.url, SHA256):
        assert part in message


def test_a_missing_page_is_a_download_error(words, server):
    (server.folder / "words.txt").unlink()
    with pytest.raises(data.DownloadError, match="404"):
        data.fetch("words")


def test_a_broken_download_is_continued(words, server, monkeypatch):
    handler = server.RequestHandlerClass.func
    ranges = []

    def halting(self):  # the first answer breaks off; the later ones give what is asked for
        asked = self.headers.get("Range")
        ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : 300 if len(ranges) == 1 else None])

    monkeypatch.setattr(handler, "do_GET", halting)
    with pytest.raises(data.DownloadError, match="after 300 of 950 bytes; the next attempt goes"):
        data.fetch("words")
    assert not data.available("words")
    assert data.fetch("words").read_bytes() == CONTENT
    assert ranges == [None, "bytes=300-"]
    assert list(words.parent.iterdir()) == [words]


def test_the_rest_of_another_file_is_thrown_away(words, server, monkeypatch):
    words.parent.mkdir(parents=True)
    words.with_name("words.txt.part").write_bytes(b"X" * 300)
    asked = []

    def with_ranges(self):
        asked.append(self.headers.get("Range"))
        start = int(asked[-1].removeprefix("bytes=").rstrip("-")) if asked[-1] else 0
        self.send_response(206 if start else 200)
        self.end_headers()
        self.wfile.write(CONTENT[start:])

    monkeypatch.setattr(server.RequestHandlerClass.func, "do_GET", with_ranges)
    assert data.fetch("words").read_bytes() == CONTENT
    assert asked == ["bytes=300-", None]


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\ncut short", b"no HTTP at all\r\n"])
def test_a_server_that_talks_nonsense_is_a_download_error(words, server, monkeypatch, answer):
    def nonsense(self):
        self.wfile.write(answer)

    monkeypatch.setattr(server.RequestHandlerClass.func, "do_GET", nonsense)
    with pytest.raises(data.DownloadError, match="words: "):
        data.fetch("words")


def test_a_server_without_end_is_left(words, server, monkeypatch):
    sent = []

    def endless(self):
        self.send_response(200)
        self.end_headers()
        for _ in range(1000):
            self.wfile.write(bytes(100_000))
            sent.append(100_000)

    monkeypatch.setattr(server.RequestHandlerClass.func, "do_GET", endless)
    monkeypatch.setattr(server, "handle_error", lambda *arguments: None)
    with pytest.raises(data.DownloadError, match="more than 950 bytes"):
        data.fetch("words")
    server.shutdown()
    assert sum(sent) < 50_000_000  # what the buffers on the way hold, and not 100 MB
    assert not list(words.parent.iterdir())


def test_a_server_without_ranges_starts_again(words, server):
    words.parent.mkdir(parents=True)
    words.with_name("words.txt.part").write_bytes(b"some other beginning")
    assert data.fetch("words").read_bytes() == CONTENT  # this server answers 200 to a range
    assert list(words.parent.iterdir()) == [words]


def test_a_mirror_is_asked_first_and_may_fail(words, server, monkeypatch):
    (server.folder / "group").mkdir()
    (server.folder / "group" / "words.txt").write_bytes(CONTENT)
    monkeypatch.setenv("SCRATCHBOOK_MIRROR", server.url.removesuffix("words.txt"))
    data.fetch("words")
    assert server.asked == ["/group/words.txt"]
    words.unlink()
    (server.folder / "group" / "words.txt").write_bytes(b"X" + CONTENT[1:])  # altered
    assert data.fetch("words").read_bytes() == CONTENT
    assert server.asked[-2:] == ["/group/words.txt", "/words.txt"]
    words.unlink()
    monkeypatch.setenv("SCRATCHBOOK_MIRROR", "http://127.0.0.1:1")
    assert data.fetch("words").read_bytes() == CONTENT


def test_without_pooch_the_error_is_the_same_kind(words, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(data.DownloadError, match="ImportError|ModuleNotFoundError"):
        data.fetch("words")


def test_a_file_in_a_read_only_folder_is_used_without_a_write(words, server, monkeypatch):
    words.parent.mkdir(parents=True)
    words.write_bytes(CONTENT)
    folders = [words.parent.parent, words.parent]
    before = tree(folders[0])
    for path in [*folders, words]:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        # an administrator may write anyway: so nothing that could is allowed to run at all
        monkeypatch.setitem(sys.modules, "pooch", None)
        assert data.available("words")
        assert data.fetch("words") == words
        assert tree(folders[0]) == before
        assert server.asked == []
    finally:
        for path in folders:
            path.chmod(0o755)


@pytest.mark.skipif(os.name == "nt" or getattr(os, "geteuid", lambda: 1)() == 0,
                    reason="permissions do not bind an administrator")
def test_a_read_only_folder_without_the_file_is_a_download_error(words):
    words.parent.mkdir(parents=True)
    words.parent.chmod(0o555)
    try:
        with pytest.raises(data.DownloadError, match="PermissionError"):
            data.fetch("words")
    finally:
        words.parent.chmod(0o755)


def test_a_cache_that_cannot_be_a_folder_is_a_download_error(words, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("SCRATCHBOOK_DATA", str(tmp_path / "file"))
    assert not data.available("words")
    with pytest.raises(data.DownloadError, match="SCRATCHBOOK_DATA"):
        data.fetch("words")


def test_the_cache_moves_with_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SCRATCHBOOK_DATA", str(tmp_path))
    assert data.cache_folder() == tmp_path
    monkeypatch.setenv("SCRATCHBOOK_DATA", "~/elsewhere")
    assert data.cache_folder() == Path.home() / "elsewhere"
    monkeypatch.delenv("SCRATCHBOOK_DATA")
    assert data.cache_folder() == Path.home() / ".cache" / "scratchbook"


def test_nothing_is_printed_or_logged(words, capfd, caplog):
    import pooch

    pooch.get_logger().addHandler(caplog.handler)
    pooch.get_logger().setLevel("INFO")
    data.fetch("words")
    pooch.get_logger().removeHandler(caplog.handler)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_importing_loads_no_downloader():
    code = "import sys, scratchbook.data; sys.exit(bool({'pooch', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_registered_files_that_are_here_are_genuine():
    here = [name for name in data.registry() if data.available(name)]
    if not here:
        pytest.skip(f"{data.cache_folder()} holds none of the files; SCRATCHBOOK_DATA moves it")
    for name in here:
        entry, content = data.registry()[name], data.fetch(name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.bytes, entry.sha256)


# corpora


def test_the_manual_is_prose_in_alphabetical_order(monkeypatch):
    manual = data.python_manual()
    assert len(manual) > 300_000
    assert manual == data.python_manual()
    for word in ("statement", "expression", "import"):
        assert manual.count(word) > 50
    from pydoc_data.topics import topics

    first, last = min(topics), max(topics)
    assert manual.startswith(topics[first]) and manual.endswith(topics[last])
    assert all(text in manual for text in topics.values())
    backwards = dict(sorted(topics.items(), reverse=True))
    monkeypatch.setattr("pydoc_data.topics.topics", backwards)
    assert data.python_manual() == manual


def test_the_library_is_source_code_in_the_order_of_its_paths():
    texts = data.standard_library()
    assert sum(len(text) for text in texts) > 8_000_000
    assert texts == data.standard_library()
    assert all(texts) and all(isinstance(text, str) for text in texts)
    import argparse
    import textwrap

    sources = [Path(m.__file__).read_text(encoding="utf-8") for m in (argparse, textwrap)]
    assert texts.index(sources[0]) < texts.index(sources[1])


def test_the_library_leaves_out_what_is_not_its_code(tmp_path, monkeypatch):
    for name in ("b.py", "a/z.py", "a/b.py", "a.py", "readme.txt", "test/x.py", "a/tests/x.py",
                 "idlelib/idle_test/x.py", "pydoc_data/topics.py", "site-packages/pip.py",
                 "dist-packages/apt.py", "testing.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n", encoding="utf-8")
    (tmp_path / "latin.py").write_bytes("# é\n".encode("latin-1"))
    (tmp_path / "empty.py").write_text("", encoding="utf-8")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    names = ["a.py", "a/b.py", "a/z.py", "b.py", "testing.py"]
    assert data.standard_library() == [f"# {name}\n" for name in names]
    assert data.standard_library(21) == ["# a.py\n", "# a/b.py\n"]


def test_a_limit_cuts_at_the_end_of_a_line():
    everything = data.standard_library()
    for limit in (1, 999, 100_000, 300_001):
        texts = data.standard_library(limit)
        size = sum(len(text.encode()) for text in texts)
        assert size <= limit
        assert texts[:-1] == everything[: len(texts[:-1])]
        if texts:
            assert everything[len(texts) - 1].startswith(texts[-1]) and texts[-1].endswith("\n")
        if limit > 1:  # no line of the library is this long
            assert size > limit - 500
    assert data.standard_library(0) == []
    with pytest.raises(ValueError, match="max_bytes=-1"):
        data.standard_library(-1)
