"""Dynamic batching: images of concurrent requests are scored together, which keeps the network busy."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from pipelines.wording import count_of


class QueueFullError(Exception):
    """The queue has no space for a request; the message says how many images it holds."""


@dataclass(slots=True, eq=False)
class _PendingRequest:
    """A request whose images may be spread over several batches."""

    results: list
    missing: int
    done: asyncio.Future[list]


@dataclass(slots=True, eq=False)
class _QueuedImage:
    image: bytes
    index: int  # in its request
    request: _PendingRequest
    queued_at: float


class Batcher:
    """One queue for the images of all requests. Everything but `compute` runs in the event loop.

    The next batch starts once the previous one is done and either `max_batch` images are queued or the first of them
    has waited `max_delay` seconds. Concurrent batches would be smaller and share the same cores. No task outlives the
    queued images, so an unreferenced batcher is garbage collected together with the model that `compute` holds.

    Args:
        compute: maps a list of at most `max_batch` images to one result each; called in `pool`.
        pool: runs `compute`.
        max_batch: the maximum number of images in a batch.
        max_delay: the maximum time, in seconds, that an image waits for a batch to fill up.
        max_queue: the maximum number of queued images. A request that finds the queue empty is accepted whatever its
            size; otherwise it would be rejected forever.
        on_batch: called with the results of each batch.
    """

    def __init__(
        self,
        compute: Callable[[list[bytes]], list],
        pool: Executor,
        *,
        max_batch: int,
        max_delay: float,
        max_queue: int,
        on_batch: Callable[[list], Any] = lambda results: None,
    ):
        self._compute, self._pool, self._on_batch = compute, pool, on_batch
        self._max_batch, self._max_delay, self._max_queue = max_batch, max_delay, max_queue
        self._queue: deque[_QueuedImage] = deque()
        self._arrival = asyncio.Event()
        self._task: asyncio.Task[None] | None = None  # a reference, as the event loop holds tasks weakly

    @property
    def queued(self) -> int:
        """The number of images that are in no batch yet."""
        return len(self._queue)

    async def submit(self, images: list[bytes]) -> list:
        """Queue the images of one request, and return their results in order.

        When it is cancelled, its images that are in no batch yet are dropped.

        Raises:
            QueueFullError: too many images are queued already.
            Exception: an exception that `compute` raised on a batch with one of the images.
        """
        if not images:
            return []
        if self._queue and len(self._queue) + len(images) > self._max_queue:
            raise QueueFullError(f"{count_of(len(self._queue), 'image')} waiting already; try again later")
        loop = asyncio.get_running_loop()
        request, now = _PendingRequest([None] * len(images), len(images), loop.create_future()), loop.time()
        self._queue.extend(_QueuedImage(image, index, request, now) for index, image in enumerate(images))
        self._arrival.set()
        if not self._task:
            self._task = loop.create_task(self._run())
        try:
            return await request.done
        except asyncio.CancelledError:  # nobody waits for the results any more
            self._queue = deque(queued for queued in self._queue if queued.request is not request)
            raise

    async def _run(self) -> None:
        """Compute batches until the queue is empty."""
        loop = asyncio.get_running_loop()
        while batch := await self._next_batch():
            try:
                results = await loop.run_in_executor(self._pool, self._compute, [queued.image for queued in batch])
            except Exception as error:
                _fail(batch, error)
            else:
                self._on_batch(results)
                _deliver(batch, results)
        self._task = None  # without an await since the queue was found empty, or an image could be left in it

    async def _next_batch(self) -> list[_QueuedImage]:
        """The next batch, once it is full or its first image has waited `max_delay`; empty if the queue is empty."""
        if not self._queue:
            return []
        deadline = self._queue[0].queued_at + self._max_delay
        loop = asyncio.get_running_loop()
        while len(self._queue) < self._max_batch and loop.time() < deadline:
            self._arrival.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._arrival.wait()
            except TimeoutError:
                break
        return [self._queue.popleft() for _ in range(min(len(self._queue), self._max_batch))]


def _deliver(batch: list[_QueuedImage], results: list) -> None:
    for queued, result in zip(batch, results, strict=True):
        request = queued.request
        request.results[queued.index] = result
        request.missing -= 1
        if not request.missing and not request.done.done():
            request.done.set_result(request.results)


def _fail(batch: list[_QueuedImage], error: Exception) -> None:
    for queued in batch:
        if not queued.request.done.done():
            queued.request.done.set_exception(error)
