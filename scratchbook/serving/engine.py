"""An engine that continues many prompts at once with one model.

Each step gives every running text its next token. How texts come to run is the schedule:
one by one; in batches that run until their longest is done; or continuously, where a place is
filled as soon as it is free and prompts are read in chunks beside the others' writing.

Paper:    Yu et al. (2022), Orca, OSDI (continuous batching); Agrawal et al. (2023),
          arXiv:2308.16369 (chunked prompts)
Chapter:  chapters/07b_inference_engine.ipynb
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scratchbook.attention import LinearAttention
from scratchbook.generation import check_ids, choose
from scratchbook.model import DecoderLM
from scratchbook.serving.block_pool import BlockPool, Table
from scratchbook.serving.paged import PagedCache, places_of
from scratchbook.serving.requests import Event, Request, Stats

SCHEDULES = ("one", "static", "continuous")


@dataclass(eq=False)
class Job:
    """A request on its way: `ids` are its prompt and what was written so far.

    What `table` holds is read; the rest of `ids` is not yet. Reading a prompt, writing, and
    reading everything again after giving way are then one and the same: read on, and choose a
    token whenever the end is reached.
    """

    number: int
    request: Request
    ids: list[int]
    table: Table
    generator: torch.Generator | None

    @property
    def unread(self) -> int:
        """How many tokens the model must read before the next one can be chosen."""
        return len(self.ids) - self.table.length

    @property
    def new_ids(self) -> list[int]:
        """What was written so far."""
        return self.ids[len(self.request.prompt_ids) :]


class Engine:
    """Continue many prompts at once, a token for each of them a step.

    First come, first served: who came earlier runs earlier and is never overtaken. Memory is
    not reserved for what a request may write at most, because most stop before. When the pool
    is empty the youngest gives way: its blocks go to an older one, and it is read again later
    (of which the prefix cache may have kept a part). The oldest therefore always moves on, and
    nothing waits for ever. The model is put into eval mode, and its weights must not change
    while the engine lives: the prefix cache remembers what the old ones computed.

    `blocks` is the size of the pool, by default enough for `max_batch` texts of the model's
    full length; `chunk` bounds how many columns of prompts a step reads, and with it how long
    the others wait for their next token. Not for two threads at once.

    Raises:   ValueError for sizes below 1, an unknown schedule, or a model whose past does not
              lie in keys and values by token
    Chapter:  chapters/07b_inference_engine.ipynb
    """

    def __init__(self, model: DecoderLM, blocks: int | None = None, block_size: int = 16,
                 max_batch: int = 8, chunk: int = 64, schedule: str = "continuous",
                 prefix_cache: bool = True):
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule={schedule!r} is unknown; choose one of "
                             f"{', '.join(SCHEDULES)}")
        if min(block_size, max_batch, chunk) < 1:
            raise ValueError(f"block_size={block_size}, max_batch={max_batch} and chunk={chunk} "
                             "must be at least 1")
        _check_model(model)
        self.model, self.schedule, self.chunk = model.eval(), schedule, chunk
        self.max_batch = 1 if schedule == "one" else max_batch
        if blocks is None:
            blocks = self.max_batch * -(-model.config.max_seq_len // block_size)
        self.pool = BlockPool(blocks, block_size, prefix_cache)
        self._device = model.token_embedding.weight.device
        self._caches = [PagedCache(blocks, block_size) for _ in model.blocks]
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []  # the oldest first, and all older than those who wait
        self._padding = 0  # rows of a static batch that are done and still computed
        self._events: list[Event] = []
        self._stats, self._submitted = Stats(), 0

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do or to tell."""
        return not (self._waiting or self._running or self._events)

    @property
    def stats(self) -> Stats:
        """What was done since the engine was made, and how full it is now."""
        return replace(self._stats, blocks_in_use=self.pool.count - self.pool.available,
                       waiting=len(self._waiting), running=len(self._running))

    def submit(self, request: Request) -> int:
        """Put a request at the end of the line and return its number.

        Raises:   ValueError for ids that the model does not know, or a text that can never fit
        """
        check_ids(request.prompt_ids, self.model.config.vocab_size)
        self._check_length(len(request.prompt_ids), request.max_new_tokens)
        generator = None
        if request.seed is not None:
            generator = torch.Generator(self._device).manual_seed(request.seed)
        number, self._submitted = self._submitted, self._submitted + 1
        self._waiting.append(Job(number, request, list(request.prompt_ids), Table(), generator))
        return number

    def cancel(self, number: int) -> bool:
        """End a request and give its blocks back at once; False where it had ended before."""
        for job in [*self._running, *self._waiting]:
            if job.number == number:
                self._end(job, Event(number, done=True, reason="cancelled"))
                return True
        return False

    @torch.no_grad()
    def step(self) -> list[Event]:
        """Give every running request its next token, or read on in its prompt.

        Writing and reading are two passes of the model: in one rectangle the writers, who have
        one new token, would be padded to the width of a chunk. Should the model itself fail
        (out of memory, an interrupt) nothing is lost: the next step tries again.
        """
        self._admit()
        for jobs, width in self._passes():
            self._pass(jobs, width)
        self._stats.steps += 1
        events, self._events = self._events, []
        return events

    def run(self, requests: Sequence[Request]) -> list[list[int]]:
        """Submit these requests, work until all are done, and return their new tokens.

        Whatever ends this early cancels those of them that are not done.

        Raises:   ValueError when one is refused or failed, with its number and the reason
        """
        tokens: dict[int, list[int]] = {}
        try:
            for request in requests:
                tokens[self.submit(request)] = []
            while not self.idle:
                for event in self.step():
                    if event.reason == "failed" and event.request in tokens:
                        raise ValueError(f"request {event.request} failed: {event.error}")
                    if event.token is not None and event.request in tokens:
                        tokens[event.request].append(event.token)
        except BaseException:  # nobody would ever fetch what the others write
            for number in tokens:
                self.cancel(number)
            self._events = [event for event in self._events if event.request not in tokens]
            raise
        return list(tokens.values())

    def _check_length(self, prompt: int, new: int) -> None:
        room, needed = self.model.config.max_seq_len, self.pool.needed(prompt + new - 1)
        if prompt + new > room:
            raise ValueError(f"a prompt of {prompt} and {new} new tokens do not fit into "
                             f"max_seq_len={room}; ask for fewer, or keep the end of the prompt")
        if needed > self.pool.count:  # the last token is never read: nothing follows it
            raise ValueError(f"a prompt of {prompt} and {new} new tokens need {needed} blocks of "
                             f"{self.pool.size}, the engine has {self.pool.count}; ask for fewer, "
                             f"shorten the prompt, or make the engine with blocks={needed}")

    def _admit(self) -> None:
        """Let those who wait run, in their order, as long as there is room."""
        if self.schedule == "static" and self._running:
            return  # until the longest of the batch is done
        self._padding = 0
        while self._waiting and len(self._running) < self.max_batch:
            job = self._waiting[0]
            if self._soon_found(job):
                return
            # everyone who runs will want another block soon: who comes leaves them that much
            table = self.pool.open(job.ids, spare=len(self._running))
            if table is None:
                return
            job.table = table
            self._stats.prompt_tokens_found += min(table.length, len(job.request.prompt_ids))
            self._running.append(self._waiting.popleft())

    def _soon_found(self, job: Job) -> bool:
        """Whether another is reading a beginning now that this one can find when it is read."""
        if not self.pool.prefix_cache or self.schedule == "static":
            return False
        return any(self._common(other.ids, job.ids) > other.table.length
                   for other in self._running)

    def _common(self, first: list[int], second: list[int]) -> int:
        """The length of what two texts begin with, in whole blocks."""
        length, size = 0, self.pool.size
        while (length + size <= min(len(first), len(second))
               and first[length : length + size] == second[length : length + size]):
            length += size
        return length

    def _passes(self) -> Iterator[tuple[list[Job], int]]:
        """Who is computed together in this step, and how many columns wide."""
        if self.schedule == "static":
            if self._running:
                yield list(self._running), max(job.unread for job in self._running)
            return
        if writers := [job for job in self._running if job.unread == 1]:
            yield writers, 1
        if readers := [job for job in self._running if job.unread > 1]:
            width = min(readers[0].unread, self.chunk)  # the oldest reads on as far as it may
            yield readers[: self.chunk // width], width  # and others where the chunk has room

    def _pass(self, jobs: list[Job], width: int) -> None:
        """Let the model read up to `width` tokens of each, and choose the next where it is due."""
        jobs = self._with_room(jobs, width)
        if not jobs:
            return
        counts = [min(job.unread, width) for job in jobs]
        logits = self._logits(jobs, counts)  # (batch, vocab)
        for job, count, row in zip(jobs, counts, logits, strict=False):
            start, prompt = job.table.length, len(job.request.prompt_ids)
            self._stats.prompt_tokens_read += max(min(start + count, prompt) - start, 0)
            self.pool.advance(job.table, job.ids, start + count)
            if not job.unread:
                self._write(job, row)

    def _with_room(self, jobs: list[Job], width: int) -> list[Job]:
        """Those for whose next tokens there are blocks; the youngest give way where there are not.

        An older job comes first, so who got blocks already is never the one that gives way.
        """
        ready = []
        for job in jobs:
            while job in self._running:
                copies = self.pool.make_room(job.table,
                                             job.table.length + min(job.unread, width))
                if copies is not None:
                    for cache in self._caches:
                        for old, new in copies:
                            cache.copy(old, new)
                    ready.append(job)
                    break
                self._give_way(self._running[-1])
        return ready

    def _give_way(self, job: Job) -> None:
        self._leave(job)
        self._waiting.appendleft(job)
        self._stats.preempted += 1

    def _logits(self, jobs: list[Job], counts: list[int]) -> Tensor:
        """The scores of the token that follows what is read now, padding rows at the end."""
        width = max(counts)
        starts = [job.table.length for job in jobs]
        rows = [[0] * (width - n) + job.ids[start : start + n]
                for job, n, start in zip(jobs, counts, starts, strict=True)]
        rows += [[0] * width] * self._padding
        tables = [job.table for job in jobs] + [Table()] * self._padding
        places = places_of(tables, counts + [0] * self._padding, self.pool.size,
                           self._caches[0].nowhere, self._device)
        for cache in self._caches:
            cache.places = places
        self._stats.columns += len(rows) * width
        ids = torch.tensor(rows, device=self._device)
        return self.model(ids, cache=self._caches, mask=places.mask,
                          positions=places.positions)[:, -1]

    def _write(self, job: Job, logits: Tensor) -> None:
        """Choose the next token of one job; whatever is wrong with it ends this job alone."""
        try:
            token, logprob = _choose(job, logits)
        except Exception as error:  # `allowed` is the caller's code and may raise anything
            self._end(job, Event(job.number, done=True, reason="failed",
                                 error=f"{type(error).__name__}: {error}"))
            return
        job.ids.append(token)
        self._stats.new_tokens += 1
        reason = None
        if token in job.request.stop_ids:
            reason = "stop"
        elif len(job.ids) - len(job.request.prompt_ids) == job.request.max_new_tokens:
            reason = "length"
        event = Event(job.number, token, logprob, reason is not None, reason)
        if event.done:
            self._end(job, event)
        else:
            self._events.append(event)

    def _end(self, job: Job, event: Event) -> None:
        if job in self._running:
            self._leave(job)
        else:
            self._waiting.remove(job)
        self._events.append(event)

    def _leave(self, job: Job) -> None:
        self.pool.close(job.table)
        self._running.remove(job)
        if self.schedule == "static":
            self._padding += 1


def _choose(job: Job, logits: Tensor) -> tuple[int, float | None]:
    """The next token and its log-probability, if that was asked for."""
    request, scores = job.request, logits[None]  # (1, vocab)
    mask = None if request.allowed is None else request.allowed(job.new_ids)
    if mask is not None:
        if mask.shape != logits.shape or mask.dtype != torch.bool:
            raise ValueError(f"allowed gave {mask.dtype} {tuple(mask.shape)}; it must give one "
                             f"bool for each of the {len(logits)} tokens, True = may come")
        if not mask.any():
            raise ValueError("allowed leaves no token: let it allow a stop id where the text may "
                             "end")
        scores = scores.masked_fill(~mask.to(scores.device), -torch.inf)
    token = int(choose(scores, request.temperature, request.top_k, request.top_p, None,
                       job.generator))
    return token, float(logits.float().log_softmax(-1)[token]) if request.logprobs else None


def _check_model(model: DecoderLM) -> None:
    if not isinstance(model, DecoderLM):
        raise ValueError("an engine continues texts with a DecoderLM, not with a model of type "
                         f"{type(model).__name__}")
    for module in model.modules():
        if isinstance(module, LinearAttention):
            raise ValueError("linear attention keeps sums of its past and no keys and values by "
                             "token, which blocks cannot hold; use generation.generate")
        if getattr(module, "sinks", 0):
            raise ValueError(f"sinks={module.sinks}: sinks are the first columns, which are "
                             "padding in a batch of unequal texts; use generation.generate")
