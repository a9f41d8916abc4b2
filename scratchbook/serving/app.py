"""The server: one process with its models, two dialects of an API, and a page to chat on.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from scratchbook.serving.answering import Answers, Limits
from scratchbook.serving.bodies import ApiError
from scratchbook.serving.engine import Engine
from scratchbook.serving.gate import Gate, ImpatientProtocol, is_loopback
from scratchbook.serving.metrics import Metrics
from scratchbook.serving.ollama_api import ollama_error_shape, ollama_routes
from scratchbook.serving.openai_api import error_shape, routes
from scratchbook.serving.served import ServedModel
from scratchbook.serving.worker import Worker

# Clients drop an idle connection after seconds (httpx 5). Were the server as quick, it would close
# connections on which a client is just about to send.
KEEP_ALIVE = 75
PAGE = Path(__file__).with_name("page")


@dataclass(frozen=True)
class Settings:
    """How a server behaves.

    `max_open` requests may wait or be at work together; `patience` are the seconds in which a body
    must have come, `drain_seconds` those that answers have to end in when the server stops.

    Raises:   ValueError for an address that others reach, without a key
    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = None
    origins: Sequence[str] = ()
    limits: Limits = field(default_factory=Limits)
    max_open: int = 64
    max_body_bytes: int = 2_000_000
    patience: float = 10.0
    drain_seconds: int = 30

    def __post_init__(self) -> None:
        if self.key is not None and not (self.key and self.key.isascii() and self.key.isprintable()
                                         and " " not in self.key):
            raise ValueError("the key must be printable ASCII without spaces, and not empty")
        if self.key is None and not is_loopback(self.host):
            raise ValueError(f"whoever reaches {self.host} could use the model: give a key "
                             "(--key-file, or SCRATCHBOOK_API_KEY), or listen on 127.0.0.1")


def create_app(served: ServedModel, engine: Engine, settings: Settings | None = None,
               more: Sequence[tuple[ServedModel, Engine]] = ()) -> FastAPI:
    """The server as an ASGI application, to be run by uvicorn or called by a test.

    `more` are other models with an engine each; a request picks one by its name.

    Raises:   ValueError for two models of one name
    Chapter:  chapters/07c_serving_and_chat.ipynb
    """
    settings, all_served = settings or Settings(), [(served, engine), *more]
    workers = {each.name: Worker(its, settings.max_open) for each, its in all_served}
    if len(workers) < len(all_served):
        raise ValueError(f"the models {', '.join(each.name for each, _ in all_served)} need "
                         "different names: rename a folder")
    metrics = Metrics(workers)
    models = {each.name: Answers(each, workers[each.name], settings.limits, metrics)
              for each, _ in all_served}

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        for worker in workers.values():
            worker.start()
        yield
        for worker in workers.values():
            await worker.stop()

    app = FastAPI(title="scratchbook", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.worker, app.state.workers = workers[served.name], workers
    app.include_router(routes(models))
    app.include_router(ollama_routes(models))
    _add_house(app, workers, metrics)
    _add_errors(app)
    if settings.origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(settings.origins),
                           allow_methods=["GET", "POST"],
                           allow_headers=["Authorization", "Content-Type"])
    app.add_middleware(Gate, shape=shape_of, key=settings.key, patience=settings.patience,
                       max_bytes=settings.max_body_bytes,
                       count=lambda path, status: metrics.requests.labels(path, status).inc())
    return app


def shape_of(path: str, error: ApiError) -> dict:
    """An error as the clients of this path read it."""
    return ollama_error_shape(error) if path.startswith("/api/") else error_shape(error)


def _add_house(app: FastAPI, workers: Mapping[str, Worker], metrics: Metrics) -> None:
    @app.get("/health")
    def health() -> Response:
        faults = [f"{name}: {each.fault}" for name, each in workers.items() if each.fault]
        return JSONResponse({"status": "; ".join(faults) or "ok", "models": list(workers)},
                            503 if faults else 200)

    @app.get("/metrics")
    def metrics_text() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/")
    def page() -> Response:
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE), "page")


def _add_errors(app: FastAPI) -> None:
    """Whatever goes wrong is told in the dialect of the path."""

    def answer(request, error: ApiError) -> Response:
        return JSONResponse(shape_of(request.url.path, error), error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request, error):
        first = error.errors()[0]
        if "json" not in request.headers.get("content-type", ""):
            return answer(request, ApiError("send the header Content-Type: application/json"))
        place = ".".join(map(str, first["loc"][1:]))
        if first["type"] == "json_invalid":
            return answer(request, ApiError(f"the body is no JSON: {first['ctx']['error']}"))
        return answer(request, ApiError(f"{place or 'the body'}: {first['msg']}",
                                        param=place.split(".")[0] or None))

    @app.exception_handler(HTTPException)
    async def refused(request, error):
        return answer(request, ApiError(str(error.detail), error.status_code,
                                        headers=dict(error.headers or {})))

    @app.exception_handler(ApiError)
    async def wrong(request, error):
        return answer(request, error)

    @app.exception_handler(Exception)
    async def fault(request, error):
        return answer(request, ApiError("the server made a mistake; its log has more", 500))


class Server(uvicorn.Server):
    """uvicorn, which says its address once it listens.

    It serves until Ctrl-C or a signal to end; then no connection is taken any more, and answers in
    progress are written to their end.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    def __init__(self, app: FastAPI, settings: Settings, say: Callable[[str], None] = print):
        protocol = type("Protocol", (ImpatientProtocol,), {"patience": settings.patience})
        super().__init__(uvicorn.Config(
            app, settings.host, settings.port, http=protocol, log_level="warning",
            access_log=False, server_header=False, timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=settings.drain_seconds))
        self.say, self.url = say, ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say where."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            self.say(self.url)
