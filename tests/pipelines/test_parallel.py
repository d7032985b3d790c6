"""Worker processes: order, memory, and what is said when one is killed."""

import multiprocessing
import os
import time

import pytest

from pipelines.exceptions import DataError
from pipelines.parallel import chunks, in_parallel, worker_count


def in_which_process(task: int) -> tuple[int, str]:
    time.sleep(0.05 if task == 0 else 0)
    return task, multiprocessing.current_process().name


def test_answers_come_in_the_order_of_the_tasks_from_other_processes():
    answers = list(in_parallel(in_which_process, range(20), workers=2))
    assert [(task, answer[0]) for task, answer in answers] == [(n, n) for n in range(20)]
    assert multiprocessing.current_process().name not in {answer[1] for _, answer in answers}
    assert list(in_parallel(in_which_process, [3], workers=1)) == [(3, (3, "MainProcess"))]


def test_no_more_tasks_are_taken_than_keep_the_workers_busy():
    taken = []
    tasks = (taken.append(n) or n for n in range(1000))
    answers = in_parallel(in_which_process, tasks, workers=2)
    next(answers)
    assert len(taken) <= 6
    answers.close()


def test_a_worker_that_is_killed_is_no_traceback():
    with pytest.raises(DataError, match=r"a worker process was killed.*fewer --workers"):
        list(in_parallel(os._exit, [1], workers=2))


def test_few_files_start_few_processes():
    assert worker_count(8, 100) == 1
    assert worker_count(8, 2500) == 3
    assert worker_count(2, 10**6) == 2


def test_chunks_are_lists_of_one_size_but_the_last():
    assert list(chunks("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(chunks([], 2)) == []
