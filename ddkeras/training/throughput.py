"""Images per second of a training, and the share of time spent waiting for input."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import NamedTuple


class _Moment(NamedTuple):
    time: float
    step: int
    images: int


class Throughput:
    """How fast the steps of an epoch are done, and what they wait for.

    Time is taken where numbers are read from the device, as steps are only begun in between.

    Attributes:
        step: how many steps of the epoch are done.
        images_per_second, step_seconds: in this epoch so far, or in the one before as long as it has none; NaN at
            first. What comes before the very first look is left out, as it compiles.
    """

    def __init__(self):
        self.images_per_second = self.step_seconds = math.nan
        self._is_first_look = True
        self.begin(0)

    def begin(self, step: int) -> None:
        """Begin an epoch, of which so many steps are done."""
        self.step, self._images = step, 0
        self._waiting, self._waited = Counter(), Counter()  # seconds: since the last look, in the epoch before it
        self._began = self._since = self._looked = self._now()

    def wait(self, stage: str, seconds: float) -> None:
        """Something was waited for."""
        self._waiting[stage] += seconds

    def advance(self, step: int, images: int) -> None:
        """A step is done."""
        self.step = step
        self._images += images

    @contextmanager
    def look(self, is_last: bool) -> Iterator[None]:
        """Wait, in the block, until the device is done with all steps that were begun."""
        asked = monotonic()
        yield
        now = self._now()
        self._count_waits(now, now.time - asked)
        if self._is_first_look and not is_last:
            self._since = now
        else:
            seconds = now.time - self._since.time
            self.images_per_second = (now.images - self._since.images) / seconds
            self.step_seconds = seconds / (now.step - self._since.step)
        self._is_first_look = False
        self._looked = now

    def seconds(self) -> float:
        """Of the epoch so far."""
        return monotonic() - self._began.time

    def seconds_since_look(self) -> float:
        """Since the last look of the epoch, or its beginning."""
        return monotonic() - self._looked.time

    def shares(self) -> dict[str, float]:
        """The shares in 0..1 of the time of the epoch's steps that went into each wait, and the rest as `step`."""
        seconds = self._looked.time - self._began.time
        waits = {stage: waited / seconds for stage, waited in self._waited.items()}
        return waits | {"step": 1 - sum(waits.values())}

    def share_of_each(self, seconds: float) -> float:
        """The share in 0..1 of that time which so much of each step has."""
        steps = self._looked.step - self._began.step
        return seconds * steps / (self._looked.time - self._began.time) if steps else 0.0

    def _now(self) -> _Moment:
        return _Moment(monotonic(), self.step, self._images)

    def _count_waits(self, now: _Moment, reading: float) -> None:
        # Steps are begun ahead of the device. Where it needs more than a step's time to catch up, it had work
        # all along, and the waits cost nothing.
        behind = reading > (now.time - self._looked.time) / (now.step - self._looked.step)
        for stage, seconds in self._waiting.items():
            self._waited[stage] += 0 if behind else seconds
        self._waiting.clear()
