"""Being asked to stop: at the next step, also where one thing that can be stopped is part of another."""

import signal

import pytest

from ddkeras.interrupts import Interrupted, StopRequest


@pytest.fixture(autouse=True)
def handlers():
    """What is there before and has to be there afterwards."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_step_that_is_begun_is_finished_and_no_other(number):
    done = []

    def work():
        with StopRequest() as stop:
            for step in stop.until(range(5)):
                if step == 2:
                    signal.raise_signal(number)
                done.append(step)

    with pytest.raises(Interrupted):
        work()
    assert done == [0, 1, 2]


def test_a_second_signal_does_not_wait():
    def work():
        with StopRequest():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it waited")

    with pytest.raises(KeyboardInterrupt):
        work()


def test_what_comes_too_late_for_a_part_stops_the_whole():
    done = []

    def work():
        with StopRequest() as whole:
            for part in whole.until(range(5)):
                with StopRequest():
                    done.append(part)
                    signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        work()
    assert done == [0]


def test_what_comes_before_a_part_stops_it_as_well():
    def work():
        with StopRequest() as part:
            for _ in part.until(range(5)):
                pytest.fail("it went on")

    with StopRequest():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            work()


def test_a_part_that_was_stopped_has_been_told_of():
    def work():
        with StopRequest() as part:
            signal.raise_signal(signal.SIGINT)
            list(part.until(range(5)))

    with StopRequest() as whole:
        with pytest.raises(Interrupted):
            work()
        assert not whole.came
