"""Images of many requests, answered in batches: what keeps a network busy that is asked for one image at a time."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass


class QueueFullError(Exception):
    """More images wait than may wait; the message says how many."""


@dataclass(slots=True, eq=False)
class _Request:
    """What one caller waits for: an answer for each of its images, in whatever batches they are."""

    answers: list
    missing: int
    done: asyncio.Future


@dataclass(slots=True, eq=False)
class _Waiting:
    image: bytes
    place: int  # in the answers of its request
    request: _Request
    since: float


class Batcher:
    """One queue for the images of all requests. All of it runs in the event loop but for `compute`.

    A batch is taken when the one before is answered, and either `max_batch` images wait or one has waited for
    `max_delay` seconds: two at once would be smaller, and share the same cores. No task outlives the work, so that a
    batcher nobody holds is gone with all that `compute` holds.

    Args:
        compute: takes a list of at most `max_batch` images, returns an answer for each; called in `pool`.
        max_queue: how many images may wait. A request that finds nobody waiting is taken however large it is: else it
            would be sent away for ever.
        tell: called with the answers of each batch.
    """

    def __init__(
        self,
        compute: Callable[[list[bytes]], list],
        pool: Executor,
        *,
        max_batch: int,
        max_delay: float,
        max_queue: int,
        tell: Callable[[list], None] = lambda answers: None,
    ):
        self._compute, self._pool, self._tell = compute, pool, tell
        self._max_batch, self._max_delay, self._max_queue = max_batch, max_delay, max_queue
        self._queue: deque[_Waiting] = deque()
        self._came = asyncio.Event()
        self._task: asyncio.Task | None = None  # held here, as the loop itself holds tasks weakly

    @property
    def waiting(self) -> int:
        """How many images are in no batch yet."""
        return len(self._queue)

    async def answer(self, images: list[bytes]) -> list:
        """The answers for the images of one request, in their order.

        Raises:
            QueueFullError: too many wait already.
            Exception: what `compute` raised on a batch that one of them was in.
        """
        if not images:
            return []
        if self._queue and len(self._queue) + len(images) > self._max_queue:
            raise QueueFullError(f"{len(self._queue)} images wait already; try again later")
        loop = asyncio.get_running_loop()
        request, now = _Request([None] * len(images), len(images), loop.create_future()), loop.time()
        self._queue.extend(_Waiting(image, place, request, now) for place, image in enumerate(images))
        self._came.set()
        if not self._task:
            self._task = loop.create_task(self._work())
        return await request.done

    async def _work(self) -> None:
        """Batch after batch, until nobody waits."""
        loop = asyncio.get_running_loop()
        while batch := await self._gather():
            try:
                answers = await loop.run_in_executor(self._pool, self._compute, [one.image for one in batch])
            except Exception as error:
                _fail(batch, error)
            else:
                self._tell(answers)
                _deliver(batch, answers)
        self._task = None  # in the same step as the look at the queue, or an image could be left there

    async def _gather(self) -> list[_Waiting]:
        """The next batch, when it is full or its first image has waited long enough; empty when nobody waits."""
        if not self._queue:
            return []
        until = self._queue[0].since + self._max_delay
        loop = asyncio.get_running_loop()
        while len(self._queue) < self._max_batch and loop.time() < until:
            self._came.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._came.wait()
            except TimeoutError:
                break
        return [self._queue.popleft() for _ in range(min(len(self._queue), self._max_batch))]


def _deliver(batch: list[_Waiting], answers: list) -> None:
    for one, answer in zip(batch, answers, strict=True):
        request = one.request
        request.answers[one.place] = answer
        request.missing -= 1
        if not request.missing and not request.done.done():
            request.done.set_result(request.answers)


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for one in batch:
        if not one.request.done.done():
            one.request.done.set_exception(error)
