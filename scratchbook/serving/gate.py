"""What every request passes before a path is looked up: host, key, patience; and safe headers.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from scratchbook.serving.bodies import ApiError

OPEN = ("/", "/health", "/page/")  # without a key: nothing there is anybody's
HEADERS = [
    # scripts, styles and connections of our own origin only
    (b"content-security-policy", b"default-src 'none'; script-src 'self'; style-src 'self'; "
     b"connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
     b"frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"),
]


class Gate:
    """The outermost layer of the server.

    With a key, whoever has it comes in, by any name of this machine. Without one only requests to
    `localhost` or a loopback address do: a page of another site whose name was bent to 127.0.0.1
    (DNS rebinding) carries its own name. A body of more than `max_bytes`, or one that is not there
    in `patience` seconds, is not read to its end.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    def __init__(self, app: Callable, shape: Callable[[str, ApiError], dict], key: str | None,
                 patience: float, max_bytes: int, count: Callable[[str, int], None]):
        self.app, self.shape, self.count = app, shape, count
        self.patience, self.max_bytes = patience, max_bytes
        self.key = None if key is None else key.encode()

    async def __call__(self, scope, receive, send) -> None:
        """Answer with an error, or let a request through."""
        if scope["type"] != "http":  # no path here speaks websocket
            await (self.app(scope, receive, send) if scope["type"] == "lifespan"
                   else send({"type": "websocket.close"}))
            return

        async def safely(message):
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message.get("headers", ()), *HEADERS]}
                self.count(getattr(scope.get("route"), "path", "other"), message["status"])
            await send(message)

        error = self._refusal(scope)
        if error is not None:
            response = JSONResponse(self.shape(scope["path"], error), error.status, error.headers)
            await response(scope, receive, safely)
            return
        await self.app(scope, self._patiently(receive), safely)

    def _refusal(self, scope) -> ApiError | None:
        headers = dict(scope["headers"])
        path = scope["path"]
        if self.key is None:
            if not is_loopback(_host(headers.get(b"host", b""))):
                return ApiError("without a key this server answers to localhost only", 403)
        elif path not in OPEN[:2] and not path.startswith(OPEN[2]) and scope["method"] != "OPTIONS":
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            if kind.lower() != b"bearer" or not secrets.compare_digest(given, self.key):
                return ApiError("the API key is missing or wrong: send `Authorization: Bearer KEY`",
                                401, code="invalid_api_key",
                                headers={"WWW-Authenticate": "Bearer"})
        return None

    def _patiently(self, receive: Callable[[], Awaitable[dict]]) -> Callable[[], Awaitable[dict]]:
        """`receive`, with limits of time and size until the body is whole."""
        late, size, whole = asyncio.get_running_loop().time() + self.patience, 0, False

        async def timed() -> dict:
            nonlocal size, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(late):
                    message = await receive()
                    size += len(message.get("body", b""))
                    while size > self.max_bytes and message.get("more_body"):
                        message = await receive()  # who still sends would not hear what is wrong
            except TimeoutError:
                raise HTTPException(408, f"the body did not come within {self.patience:g} s",
                                    {"Connection": "close"}) from None
            if size > self.max_bytes:
                raise HTTPException(413, f"the body has more than {self.max_bytes:,} bytes")
            whole = not message.get("more_body")
            return message

        return timed


class ImpatientProtocol(H11Protocol):
    """uvicorn's HTTP, but a connection whose first headers do not come in time is closed."""

    patience = 10.0

    def connection_made(self, transport) -> None:
        """Start the clock."""
        super().connection_made(transport)
        self.loop.call_later(self.patience, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.scope is None and not self.transport.is_closing():
            self.transport.close()


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine and no other."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(header: bytes) -> str:
    try:
        return "" if b"@" in header else urlsplit(f"//{header.decode('ascii')}").hostname or ""
    except ValueError:
        return ""
