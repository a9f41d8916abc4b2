"""What a server counts, for Prometheus to read at /metrics.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from scratchbook.serving.worker import Worker

BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """Counts of one server: requests by path and status; by model times and the engine's counts.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    def __init__(self, workers: Mapping[str, Worker]):
        self._workers, self._registry = workers, CollectorRegistry()
        self.requests = Counter("scratchbook_http_requests", "Requests that were answered",
                                ["path", "status"], registry=self._registry)
        self._first = Histogram("scratchbook_first_token_seconds", "Until the first token",
                                ["model"], buckets=BUCKETS, registry=self._registry)
        self._whole = Histogram("scratchbook_answer_seconds", "Until the last token",
                                ["model"], buckets=BUCKETS, registry=self._registry)
        self._registry.register(self)

    def answered(self, model: str, first: float, whole: float) -> None:
        """Note the seconds to the first and to the last token of one request."""
        self._first.labels(model).observe(first)
        self._whole.labels(model).observe(whole)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The engines' counts, as the library asks for them."""
        tokens = CounterMetricFamily("scratchbook_tokens", "Tokens of prompts and of answers",
                                     labels=["kind", "model"])
        steps = CounterMetricFamily("scratchbook_steps", "Steps of the engine", labels=["model"])
        now = [GaugeMetricFamily(f"scratchbook_{name}", f"Now {name.replace('_', ' ')}",
                                 labels=["model"])
               for name in ("running", "unfinished", "blocks_in_use")]
        for name, worker in self._workers.items():
            stats = worker.stats
            for kind, count in (("prompt_read", stats.prompt_tokens_read),
                                ("prompt_found", stats.prompt_tokens_found),
                                ("new", stats.new_tokens)):
                tokens.add_metric([kind, name], count)
            steps.add_metric([name], stats.steps)
            for gauge, value in zip(now, (stats.running, worker.open, stats.blocks_in_use),
                                    strict=True):
                gauge.add_metric([name], value)
        yield from (tokens, steps, *now)

    def text(self) -> bytes:
        """Everything in Prometheus' format."""
        return generate_latest(self._registry)
