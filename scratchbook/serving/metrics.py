"""What a server counts, for Prometheus to read at /metrics.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from scratchbook.serving.requests import Stats

BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """Counts of one server: requests by path and status, times, and the engine's own counts.

    `stats` gives the engine's counts, `waiting` how many requests have not ended.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    def __init__(self, stats: Callable[[], Stats], unfinished: Callable[[], int]):
        self._stats, self._unfinished = stats, unfinished
        self._registry = CollectorRegistry()
        self.requests = Counter("scratchbook_http_requests", "Requests that were answered",
                                ["path", "status"], registry=self._registry)
        self._first = Histogram("scratchbook_first_token_seconds", "Until the first token",
                                buckets=BUCKETS, registry=self._registry)
        self._whole = Histogram("scratchbook_answer_seconds", "Until the last token",
                                buckets=BUCKETS, registry=self._registry)
        self._registry.register(self)

    def answered(self, first: float, whole: float) -> None:
        """Note the seconds to the first and to the last token of one request."""
        self._first.observe(first)
        self._whole.observe(whole)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The engine's counts, as the library asks for them."""
        stats = self._stats()
        tokens = CounterMetricFamily("scratchbook_tokens", "Tokens of prompts and of answers",
                                     labels=["kind"])
        for kind, count in (("prompt_read", stats.prompt_tokens_read),
                            ("prompt_found", stats.prompt_tokens_found),
                            ("new", stats.new_tokens)):
            tokens.add_metric([kind], count)
        yield tokens
        yield CounterMetricFamily("scratchbook_steps", "Steps of the engine", stats.steps)
        for name, value in (("running", stats.running), ("unfinished", self._unfinished()),
                            ("blocks_in_use", stats.blocks_in_use)):
            yield GaugeMetricFamily(f"scratchbook_{name}", f"Now {name.replace('_', ' ')}", value)

    def text(self) -> bytes:
        """Everything in Prometheus' format."""
        return generate_latest(self._registry)
