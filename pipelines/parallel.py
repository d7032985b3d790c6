"""Worker processes: one per core, forked from one server, gone when whoever started them is."""

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

from pipelines.exceptions import DataError


def preload(module: str) -> None:
    """Begin to load `module` in the process that workers are forked from, while the caller does something else."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([module])
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
def worker_pool(number: int, start: Callable[[], None] | None = None) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of so many processes, each of which has called `start` first.

    Raises:
        DataError: one of them was killed.
    """
    with ProcessPoolExecutor(number, _ForkServerContext(), initializer=_set_up, initargs=(start,)) as pool:
        for _ in range(number):
            pool.submit(os.getpid)  # starts a process now, and not when there is work that waits for it
        try:
            yield pool
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process was killed, perhaps for want of memory; run the same command again, with fewer "
                "--workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def in_order(pool: ProcessPoolExecutor, number: int, job: Callable, tasks: Iterable) -> Iterator[tuple]:
    """Yield (task, job(task)) in the order of the tasks, of which no more are in memory than keep `number` busy.

    Args:
        job: what a worker process can import, or a `functools.partial` of it.
    """
    pending: deque[tuple[object, Future]] = deque()
    for task in tasks:
        pending.append((task, pool.submit(job, task)))
        if len(pending) > 2 * number:
            first, future = pending.popleft()
            yield first, future.result()
    yield from ((task, future.result()) for task, future in pending)


def in_parallel(job: Callable, tasks: Iterable, number: int) -> Iterator[tuple]:
    """The same with a pool of its own, or with one worker in this process.

    Raises:
        DataError: a worker was killed.
    """
    if number == 1:
        yield from ((task, job(task)) for task in tasks)
        return
    with worker_pool(number) as pool:
        yield from in_order(pool, number, job, tasks)


def worker_count(wanted: int | None, files: int) -> int:
    """How many processes to start for so many files: one per core unless told, but not for a few hundred files."""
    return min(wanted or os.cpu_count(), 1 + files // 1000)


def chunks(items: Iterable, size: int) -> Iterator[list]:
    """Lists of `size` items each, the last perhaps shorter."""
    items = iter(items)
    return iter(lambda: list(itertools.islice(items, size)), [])


def _set_up(start: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    parent = multiprocessing.parent_process()

    def end_with_parent():
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    if start:
        start()
