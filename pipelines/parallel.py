"""Worker processes, one per core, forked from one server; they end when the process that started them does."""

import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import ModuleType
from typing import TypeVar

from pipelines.exceptions import DataError

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")
_FILES_PER_WORKER = 1000  # below that, starting another process takes longer than it saves


def preload(*modules: str) -> None:
    """Start importing `modules` in the process that workers are forked from, in the background."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(modules))
    forkserver.ensure_running()


class _Process(ForkServerProcess):
    """A worker that does not import the main script again, so that scripts need no `if __name__ == "__main__"`."""

    @staticmethod
    def _Popen(process):  # noqa: N802  as multiprocessing names it
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")  # has neither file nor spec that a worker could import
        try:
            return ForkServerProcess._Popen(process)
        finally:
            sys.modules["__main__"] = main


class _ForkServerContext(ForkServerContext):
    Process = _Process


@contextmanager
def worker_pool(workers: int, initializer: Callable[[], None] | None = None) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of worker processes, each of which has called `initializer` first.

    Raises:
        DataError: a worker was killed.
    """
    with ProcessPoolExecutor(workers, _ForkServerContext(), initializer=_set_up, initargs=(initializer,)) as pool:
        for _ in range(workers):
            pool.submit(os.getpid)  # starts a process now rather than when the first task waits for it
        try:
            yield pool
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process was killed, probably for lack of memory; run the same command again with fewer "
                "--workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def in_order(
    pool: ProcessPoolExecutor, workers: int, job: Callable[[_Task], _Result], tasks: Iterable[_Task]
) -> Iterator[tuple[_Task, _Result]]:
    """Yield (task, job(task)) in the order of the tasks, taking only as many as keep the workers busy.

    Args:
        job: an importable function, or a `functools.partial` of one.
    """
    pending: deque[tuple[_Task, Future[_Result]]] = deque()
    for task in tasks:
        pending.append((task, pool.submit(job, task)))
        if len(pending) > 2 * workers:
            first, future = pending.popleft()
            yield first, future.result()
    yield from ((task, future.result()) for task, future in pending)


def in_parallel(
    job: Callable[[_Task], _Result],
    tasks: Iterable[_Task],
    workers: int,
    initializer: Callable[[], None] | None = None,
) -> Iterator[tuple[_Task, _Result]]:
    """As `in_order`, with a pool of its own; with one worker, in this process and without the initializer.

    Raises:
        DataError: a worker was killed.
    """
    if workers == 1:
        yield from ((task, job(task)) for task in tasks)
        return
    with worker_pool(workers, initializer) as pool:
        yield from in_order(pool, workers, job, tasks)


def worker_count(requested: int | None, files: int) -> int:
    """The number of processes for so many files: one per core unless requested otherwise, fewer for few files."""
    return min(requested or os.cpu_count() or 1, 1 + files // _FILES_PER_WORKER)


def chunks(items: Iterable[_Task], size: int) -> Iterator[list[_Task]]:
    """Split `items` into lists of `size`, the last perhaps shorter."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _set_up(initializer: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if initializer:
        initializer()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:  # always so in a worker
        parent.join()
        os._exit(1)
