"""Graceful interruption: before the next step, also in nested contexts."""

import signal
import subprocess
import sys

import pytest

from ddkeras.interrupts import Interrupted, StopRequest


@pytest.fixture(autouse=True)
def handlers():
    """The signal handlers are restored."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_current_step_is_finished_and_no_other_is_started(number):
    done = []

    def work():
        with StopRequest() as stop:
            for step in stop.interruptible(range(5)):
                if step == 2:
                    signal.raise_signal(number)
                done.append(step)

    with pytest.raises(Interrupted):
        work()
    assert done == [0, 1, 2]


SCRIPT = """
import os, signal, time
import tensorflow as tf
from ddkeras.interrupts import StopRequest

def slow(number):
    time.sleep(0.3)
    return number

numbers = tf.data.Dataset.range(1000).map(lambda n: tf.numpy_function(slow, [n], tf.int64), num_parallel_calls=4)
with StopRequest() as stop:
    for _ in stop.interruptible(zip(numbers.prefetch(8))):
        os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_process_that_does_not_catch_it_ends_although_its_dataset_calls_python():
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ddkeras.interrupts.Interrupted")


def test_a_second_signal_interrupts_at_once():
    def work():
        with StopRequest():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second signal was ignored")

    with pytest.raises(KeyboardInterrupt):
        work()


def test_a_request_too_late_for_the_inner_task_stops_the_outer_one():
    done = []

    def work():
        with StopRequest() as outer:
            for item in outer.interruptible(range(5)):
                with StopRequest():
                    done.append(item)
                    signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        work()
    assert done == [0]


def test_a_request_made_before_the_inner_task_stops_it():
    def work():
        with StopRequest() as inner:
            for _ in inner.interruptible(range(5)):
                pytest.fail("the inner task ran")

    with StopRequest():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            work()


def test_a_request_that_stopped_the_inner_task_is_not_passed_on():
    def work():
        with StopRequest() as inner:
            signal.raise_signal(signal.SIGINT)
            list(inner.interruptible(range(5)))

    with StopRequest() as outer:
        with pytest.raises(Interrupted):
            work()
        assert not outer.requested
