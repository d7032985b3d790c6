"""Worker processes: order, memory, and the message when one is killed."""

import multiprocessing
import os
import time

import pytest

from pipelines.exceptions import DataError
from pipelines.parallel import chunks, in_parallel, worker_count


def process_name(task: int) -> tuple[int, str]:
    time.sleep(0.05 if task == 0 else 0)
    return task, multiprocessing.current_process().name


def test_results_of_other_processes_come_in_the_order_of_the_tasks():
    results = list(in_parallel(process_name, range(20), workers=2))
    assert [(task, answer[0]) for task, answer in results] == [(n, n) for n in range(20)]
    assert multiprocessing.current_process().name not in {answer[1] for _, answer in results}
    assert list(in_parallel(process_name, [3], workers=1)) == [(3, (3, "MainProcess"))]


_initialized = []


def initialize() -> None:
    _initialized.append(os.getpid())


def initialized_in(task: int) -> list[int]:
    return _initialized


def test_each_worker_is_initialized_and_this_process_is_not():
    results = list(in_parallel(initialized_in, range(4), 2, initialize))
    assert all(len(processes) == 1 for _, processes in results)
    assert list(in_parallel(initialized_in, [0], 1, initialize)) == [(0, [])]


def test_no_more_tasks_are_taken_than_keep_the_workers_busy():
    taken = []
    tasks = (taken.append(n) or n for n in range(1000))
    results = in_parallel(process_name, tasks, workers=2)
    next(results)
    assert len(taken) <= 6
    results.close()


def test_a_killed_worker_is_reported_in_one_line():
    with pytest.raises(DataError, match=r"a worker process was killed.*fewer --workers"):
        list(in_parallel(os._exit, [1], workers=2))


def test_few_files_start_few_processes():
    assert worker_count(8, 100) == 1
    assert worker_count(8, 2500) == 3
    assert worker_count(2, 10**6) == 2


def test_chunks_have_one_size_except_the_last():
    assert list(chunks("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(chunks([], 2)) == []
