"""Images per second of a training, and the share of time spent waiting for input."""

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import NamedTuple


class _Progress(NamedTuple):
    """How far an epoch was at some time."""

    time: float
    step: int
    images: int


class Throughput:
    """Measures the speed of an epoch's steps, and the time spent waiting for each stage.

    Steps run asynchronously, so time is taken at synchronizations, where logs are read from the device.

    Attributes:
        step: number of steps of the epoch so far.
        images_per_second, step_seconds: over this epoch so far, or over the previous one until the first
            synchronization; NaN at first. The time before the very first synchronization, which includes compilation,
            is left out.
    """

    def __init__(self) -> None:
        self.images_per_second = self.step_seconds = math.nan
        self._is_first_sync = True
        self.begin(0)

    def begin(self, step: int) -> None:
        """Start an epoch after so many of its steps."""
        self.step, self._images = step, 0
        self._pending_waits: dict[str, float] = defaultdict(float)  # seconds by stage, since the last synchronization
        self._waits: dict[str, float] = defaultdict(float)  # in the epoch until then
        self._epoch_start = self._measured_from = self._last_sync = self._progress()

    def wait(self, stage: str, seconds: float) -> None:
        """Add to the time spent waiting for a stage."""
        self._pending_waits[stage] += seconds

    def advance(self, step: int, images: int) -> None:
        """A step of so many images was dispatched; `step` is their number so far."""
        self.step = step
        self._images += images

    @contextmanager
    def sync(self, is_last: bool) -> Iterator[None]:
        """In this context, the caller waits until the device has finished all dispatched steps."""
        started = monotonic()
        yield
        now = self._progress()
        self._count_waits(now, now.time - started)
        if self._is_first_sync and not is_last:
            self._measured_from = now
        else:
            seconds = now.time - self._measured_from.time
            self.images_per_second = (now.images - self._measured_from.images) / seconds
            self.step_seconds = seconds / (now.step - self._measured_from.step)
        self._is_first_sync = False
        self._last_sync = now

    def seconds(self) -> float:
        """The time since the start of the epoch."""
        return monotonic() - self._epoch_start.time

    def seconds_since_sync(self) -> float:
        """The time since the last synchronization of the epoch, or its start."""
        return monotonic() - self._last_sync.time

    def shares(self) -> dict[str, float]:
        """The share of the epoch's training time spent waiting for each stage, and the rest as `step`; in 0..1."""
        seconds = self._last_sync.time - self._epoch_start.time
        waits = {stage: wait / seconds for stage, wait in self._waits.items()}
        return waits | {"step": 1 - sum(waits.values())}

    def share_per_step(self, seconds: float) -> float:
        """The share of the epoch's training time, in 0..1, of what takes so many seconds of each step."""
        steps = self._last_sync.step - self._epoch_start.step
        return seconds * steps / (self._last_sync.time - self._epoch_start.time) if steps else 0.0

    def _progress(self) -> _Progress:
        return _Progress(monotonic(), self.step, self._images)

    def _count_waits(self, now: _Progress, sync_seconds: float) -> None:
        # Steps are dispatched ahead of the device. If it needs more than a step's time to catch up, it was busy
        # throughout, and the waits cost nothing.
        is_behind = sync_seconds > (now.time - self._last_sync.time) / (now.step - self._last_sync.step)
        for stage, seconds in self._pending_waits.items():
            self._waits[stage] += 0.0 if is_behind else seconds
        self._pending_waits.clear()
