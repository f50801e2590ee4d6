"""Requests that wait share a batch: whatever is there when the model is free goes through it at once."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from ..readings import Reading
from ..trained import TrainedModel
from .logs import LOGGER
from .metrics import Metrics

MOST = 64  #: examples of a batch; a request of more is not split


class Full(Exception):
    """Too many examples wait."""


class _Waiting(NamedTuple):
    readings: list[Reading]
    done: asyncio.Future[list[dict[str, Any]]]


class Batcher:
    """Answers requests in the order they came, on one thread of its own."""

    def __init__(self, model: TrainedModel, queue: int, metrics: Metrics) -> None:
        self.model, self.queue, self.metrics = model, queue, metrics
        self._waiting: deque[_Waiting] = deque()
        self._items = 0
        self._some = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "model")

    async def answer(self, readings: list[Reading]) -> list[dict[str, Any]]:
        """The answers to one request.

        Raises:
            Full: the queue has no place for it.
        """
        if self._items and self._items + len(readings) > self.queue:
            raise Full
        waiting = _Waiting(readings, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._count(len(readings))
        self._some.set()
        return await waiting.done

    async def run(self) -> None:
        """Serve the queue until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            batch = self._next()
            if not batch:
                self._some.clear()
                continue
            found = await loop.run_in_executor(self._thread, self._compute, batch)
            for waiting, answers in zip(batch, found, strict=True):
                if waiting.done.done():
                    continue  # its client has left
                if isinstance(answers, Exception):
                    waiting.done.set_exception(answers)
                else:
                    waiting.done.set_result(answers)

    def close(self) -> None:
        """Let the thread go."""
        self._thread.shutdown(wait=False)

    def _next(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and (not batch or size + len(self._waiting[0].readings) <= MOST):
            waiting = self._waiting.popleft()
            self._count(-len(waiting.readings))
            if not waiting.done.cancelled():
                batch.append(waiting)
                size += len(waiting.readings)
        return batch

    def _count(self, n: int) -> None:
        self._items += n
        self.metrics.queue.set(self._items)

    def _compute(self, batch: list[_Waiting]) -> list[list[dict[str, Any]] | Exception]:
        """Answers by request; where a batch fails, those of it that fail alone."""
        start, together = time.perf_counter(), [r for waiting in batch for r in waiting.readings]
        try:
            answers = self.model.answer(together)
        except Exception as error:
            LOGGER.exception("a batch failed")
            alone = [self._compute([waiting]) for waiting in batch] if len(batch) > 1 else [[error]]
            return [one for found in alone for one in found]
        self.metrics.batch.observe(len(together))
        self.metrics.model.observe(time.perf_counter() - start)
        self.metrics.answers(answers)
        rest = iter(answers)
        return [[next(rest) for _ in waiting.readings] for waiting in batch]
