"""Small servers for the tests: a real engine over a tiny model, or one that plays a script."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from scratchbook.config import ModelConfig
from scratchbook.serving import Event, Request, Stats
from scratchbook.serving.app import Server, Settings, create_app
from scratchbook.serving.chat_templates import ChatTemplate
from scratchbook.serving.served import ServedModel
from scratchbook.tokenizers import BPETokenizer
from tests.random_models import random_model

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n"
          "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def run_alone(coroutine: Coroutine) -> Any:
    """Run it in a thread of its own: a browser that is open in this one has a running loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def tiny_served(template: str | None = CHATML, window: int = 128) -> ServedModel:
    """A random model of two narrow layers; its tokenizer has bytes, some merges, three controls."""
    tokenizer = BPETokenizer().train("the cat sat on the mat, the hat " * 20, 256 + 20 + 3, SPECIAL)
    model = random_model(ModelConfig(vocab_size=tokenizer.vocab_size, max_seq_len=window,
                                     num_layers=2, d_model=32, num_heads=2))
    special = tokenizer.special_tokens
    return ServedModel("tiny", model, tokenizer, ChatTemplate(template) if template else None,
                       (), dict(special), [special["<|endoftext|>"], special["<|im_end|>"]])


class ScriptedEngine:
    """An engine without a model: every request gets the tokens of a script, one a step."""

    def __init__(self, script: Sequence[int], max_batch: int = 8, pause: float = 0.0,
                 fails_at: int | None = None):
        self.script, self.max_batch, self.pause, self.fails_at = script, max_batch, pause, fails_at
        self.jobs: dict[int, tuple[Request, int]] = {}
        self.ended: list[Event] = []
        self.stats, self.seen = Stats(), []

    @property
    def idle(self) -> bool:
        return not self.jobs and not self.ended

    def submit(self, request: Request) -> int:
        number = len(self.seen)
        self.seen.append(request)
        self.jobs[number] = request, 0
        return number

    def cancel(self, number: int) -> bool:
        if self.jobs.pop(number, None) is None:
            return False
        self.ended.append(Event(number, done=True, reason="cancelled"))
        return True

    def step(self) -> list[Event]:
        time.sleep(self.pause)
        self.stats.steps += 1
        if self.stats.steps == self.fails_at:
            raise ArithmeticError("no memory")
        events, self.ended = self.ended, []
        for number in list(self.jobs)[: self.max_batch]:
            request, place = self.jobs.pop(number)
            token = self.script[place]
            last = place + 1 in (len(self.script), request.max_new_tokens)
            reason = "stop" if token in request.stop_ids else "length" if last else None
            events.append(Event(number, token, -0.5, reason is not None, reason))
            if reason is None:
                self.jobs[number] = request, place + 1
        self.stats.running = min(len(self.jobs), self.max_batch)
        self.stats.waiting = len(self.jobs) - self.stats.running
        return events


@contextmanager
def serving(served: ServedModel, engine: object, more: Sequence = (), **settings
            ) -> Iterator[SimpleNamespace]:
    """A server on a free port of this machine: its `url`, `worker` and `engine`."""
    settings = Settings(port=0, **settings)
    app = create_app(served, engine, settings, more)
    server = Server(app, settings, lambda url: None)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    try:
        yield SimpleNamespace(url=server.url, worker=app.state.worker, engine=engine,
                              workers=app.state.workers,
                              server=server, thread=thread, served=served)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not end"


def until(condition, seconds: float = 30.0) -> None:
    """Wait for something that must come true."""
    late = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < late, "it did not come true in time"
        time.sleep(0.005)
