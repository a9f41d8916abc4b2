"""A small server on this machine that speaks as much of the hub's protocol as its client asks."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve(repositories: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Serve folders as `owner/name`; yields the address and the list of paths asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *words):
            pass

        def do_HEAD(self):
            self.answer(with_body=False)

        def do_GET(self):
            self.answer(with_body=True)

        def answer(self, with_body):
            path = self.path.split("?")[0]
            asked.append(path)
            words = path.strip("/").split("/")
            if words[:2] == ["api", "models"]:
                folder = repositories.get("/".join(words[2:4]))
                body = folder and json.dumps(listing("/".join(words[2:4]), folder, words)).encode()
                headers = {"Content-Type": "application/json"}
            else:  # owner/name/resolve/revision/file
                folder = repositories.get("/".join(words[:2]))
                file = folder / "/".join(words[4:]) if folder else None
                body = file.read_bytes() if file and file.is_file() else None
                headers = {"ETag": f'"{hashlib.sha256(body or b"").hexdigest()}"',
                           "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            if body is None:
                headers, body = {"X-Error-Code": "RepoNotFound"}, b"{}"
                self.send_response(404)
            else:
                self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def ask_there(address: str, cache: Path, monkeypatch) -> None:
    """Let the hub's client ask this server, and keep what it gets in a folder of its own."""
    from huggingface_hub import constants, hf_api

    for name, value in (("ENDPOINT", address), ("HF_HUB_OFFLINE", False),
                        ("HF_HUB_CACHE", str(cache)), ("HUGGINGFACE_CO_URL_TEMPLATE",
                         address + "/{repo_id}/resolve/{revision}/{filename}")):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(hf_api.api, "endpoint", address)


def listing(name: str, folder: Path, words: list[str]) -> dict | list:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if "tree" in words:
        return [{"type": "file", "path": str(p.relative_to(folder)), "size": p.stat().st_size,
                 "oid": hashlib.sha1(p.read_bytes()).hexdigest()} for p in files]
    return {"id": name, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0,
            "siblings": [{"rfilename": str(p.relative_to(folder))} for p in files]}
