"""A monitored training in fake time, for the tests of the monitor and its parts."""

import json

from ddkeras.training.monitor import TrainingMonitor

HEADS = {
    "loss": 1.7917,
    "authenticity_loss": 0.6931,
    "authenticity_accuracy": 0.512,
    "category_loss": 1.0986,
    "category_accuracy": 0.345,
}


class Clock:
    """A clock that advances only when told to."""

    now = 1000.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


def go_through(monitor, clock, *, steps, seconds, read=lambda: HEADS, first=0):
    """Take steps of 8 images, each so many seconds long; what the monitor returned for them."""
    returned = []
    for step in range(first, first + steps):
        clock.advance(seconds)
        returned.append(monitor.after_step(step + 1, 8, read))
    return returned


def go_through_epochs(monitor, clock, logs, *, first=0):
    """An epoch of ten steps, each a second long, for each of `logs`."""
    for epoch, numbers in enumerate(logs, first):
        monitor.begin_epoch(epoch)
        go_through(monitor, clock, steps=10, seconds=1)
        clock.advance(5)  # validation
        monitor.end_epoch(numbers)


def status(folder):
    return json.loads((folder / "status.json").read_text())


def log(folder):
    """The lines of log.txt, without their times."""
    return [line.partition(" ")[2] for line in (folder / "log.txt").read_text().splitlines()]


def train_until(folder, clock, error, verbose=0):
    """Four steps of the second epoch of three, and then `error`."""
    with TrainingMonitor(folder, epochs=3, steps=10, batch_size=8, verbose=verbose) as monitor:
        monitor.begin_epoch(1)
        go_through(monitor, clock, steps=4, seconds=1)
        raise error
