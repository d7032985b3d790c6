"""Watching a training: a bar or a line per epoch for who sits before it, files in the run folder for all others.

history.csv     one row per epoch: `epoch` from 0, then its numbers
log.txt         a line for each thing that happened, with its time
status.json     where the training stands, renewed about once a second
tensorboard/    the numbers of each epoch and, under step/, those on the way; images

The history is a result, and raises when it cannot be written. All else only tells of the training, and never ends it.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from time import monotonic

import pandas as pd
import psutil

from ddkeras.training.progress_bar import Terminal
from ddkeras.training.tensorboard import EventWriter
from ddkeras.training.throughput import Throughput
from pipelines import atomic

_LOOK_SECONDS = 0.5
_STATUS_SECONDS = 1.0
_HUNGRY = 0.2  # share of the time waited for images from which on there is something to gain
_HELP = "if that lasts, --cache keeps images decoded, and --data-service has other machines decode them"
_ON_VALIDATION = "val_"


class TrainingMonitor:
    """What is seen of one training, which is the block of `with`.

    Attributes:
        history: the rows of history.csv, a dict for each epoch that is over.
    """

    def __init__(
        self,
        run_folder: str | os.PathLike | None,
        *,
        epochs: int,
        steps: int,
        batch_size: int,
        verbose: int = 1,
        history: Iterable[dict] = (),
    ):
        """Watch a training of `epochs` times `steps` batches.

        Args:
            run_folder: where the files go. None, for a worker that is not the chief: nothing is written or shown.
            verbose: 0 silent, 1 a bar that moves and a line per epoch, 2 a line per epoch; all on standard error.
            history: the rows of the epochs that were over before this training was resumed.
        """
        self.history = list(history)
        self._folder = Path(run_folder) if run_folder else None
        self._terminal = Terminal(verbose if run_folder else 0)
        self._epochs, self._steps, self._batch_size = epochs, steps, batch_size
        self._state = "training"
        self._over = len(self.history)  # epochs
        self._epoch = min(self._over, epochs - 1)
        self._logs: dict[str, float] = {}
        self._noted: dict[str, float] = {}  # seconds of each step
        self._validation_seconds = 0.0
        self._status_at = -math.inf
        self._warned = False

    def __enter__(self) -> "TrainingMonitor":
        self._began = monotonic()
        self._pace = Throughput()
        self._events = EventWriter(self._folder / "tensorboard") if self._folder else None
        over = f", {self._over} of which are over" if self._over else ""
        self.log(f"begun: {self._epochs} epochs{over}, each {self._steps} steps of {self._batch_size} images")
        self._write_status()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._state = _state_after(kind)
        reason = _one_line(error) if self._state == "failed" else None
        self._terminal.close()
        self._write_status(reason)
        place = f"in epoch {self._place()} at step {self._pace.step}/{self._steps}"
        because = f": {reason}" if reason else ""
        self.log(f"{self._state} after {_clock(monotonic() - self._began)}, {place}{because}")
        if self._events:
            self._events.close()

    def begin_epoch(self, epoch: int, first_step: int = 0) -> None:
        """An epoch begins with its first step or, resumed, with a later one; both are counted from 0."""
        self._state, self._epoch, self._over = "training", epoch, epoch
        self._pace.begin(first_step)
        if first_step:
            self.log(f"epoch {self._place()} goes on after step {first_step}/{self._steps}")
        self._draw_bar({})

    def timed(self, stage: str, items: Iterable) -> Iterator:
        """The same items; the time waited for each counts as that of `stage`, which is `input` for batches."""
        items = iter(items)
        while True:
            began = monotonic()
            try:
                item = next(items)
            except StopIteration:
                return
            self._pace.wait(stage, monotonic() - began)
            yield item

    def after_step(self, step: int, images: int, read: Callable[[], dict]) -> dict[str, float] | None:
        """A step is done.

        Args:
            step: how many steps of this epoch are done.
            images: how many images this one saw.
            read: gets numbers from the device, which has to finish for it. Called at most twice a second, and after
                the last step of an epoch.

        Returns:
            What was read, or None.
        """
        self._pace.advance(step, images)
        is_last = step == self._steps
        if not is_last and self._pace.seconds_since_look() < _LOOK_SECONDS:
            return None
        with self._pace.look(is_last):
            self._logs = _floats(read())
        self._state = "validating" if is_last else "training"
        self._tell_step()
        return self._logs

    def note(self, part: str, seconds: float) -> None:
        """What a part of a step, such as `augment`, costs of each; the log says its share of every epoch."""
        self._noted[part] = seconds

    def end_epoch(self, logs: dict) -> None:
        """An epoch is over: `logs` are its numbers, those on validation with `val_` in front.

        Raises:
            OSError: the history cannot be written.
        """
        self._state, self._over, self._logs = "training", self._epoch + 1, _floats(logs)
        self._validation_seconds = self._pace.seconds_since_look()
        self.history = [row for row in self.history if row["epoch"] < self._epoch]
        self.history.append({"epoch": self._epoch, **self._logs})
        self._write_history()
        self._tell_epoch()
        self._write_status()

    def log(self, message: str) -> None:
        """Add a line to log.txt."""
        if self._folder:
            with suppress(OSError), open(self._folder / "log.txt", "a", encoding="utf-8") as log:
                log.write(f"{_now()} {message}\n")

    def images(self, name: str, images) -> None:
        """Keep the first images of a batch, at most 8, among the events.

        Args:
            name: what they are called there.
            images: (batch, height, width, channels), in 0..255.
        """
        if self._events:
            self._events.images(name, images, self._step_of_all())

    def _tell_step(self) -> None:
        if self._events:
            self._events.scalars({f"step/{name}": value for name, value in self._logs.items()}, self._step_of_all())
        self._draw_bar(self._logs)
        if self._state == "validating" or monotonic() - self._status_at >= _STATUS_SECONDS:
            self._write_status()

    def _tell_epoch(self) -> None:
        speed = self._pace.images_per_second
        words = [
            f"epoch {self._place()}",
            _clock(self._pace.seconds()),
            f"{_speed(speed)} images/s",
            _words(self._logs),
        ]
        self.log("  ".join([*words, self._times()]))
        self._terminal.line("  ".join(words))
        waited = self._pace.shares().get("input", 0)
        if waited > _HUNGRY:
            self._warn(f"the accelerator waited for images {waited:.0%} of the time; {_HELP}")
        if self._events:
            self._events.scalars({**self._logs, "images_per_second": speed}, self._epoch)
            self._events.flush()

    def _warn(self, message: str) -> None:
        self.log(message)
        if not self._warned:
            self._terminal.line(message)
        self._warned = True

    def _times(self) -> str:
        shares = [f"{stage} {share:.0%}" for stage, share in self._pace.shares().items()]
        parts = [f"{part} {self._pace.share_of_each(seconds):.0%}" for part, seconds in self._noted.items()]
        of_which = f" ({', '.join(parts)})" if parts else ""
        memory = psutil.Process().memory_info().rss / 2**30
        validation = f"validation {self._validation_seconds:.1f} s"
        return f"time: {', '.join(shares)}{of_which}; {validation}; memory {memory:.2f} GiB"

    def _draw_bar(self, logs: dict[str, float]) -> None:
        pace, digits = self._pace, len(str(self._steps))
        heads = {name: value for name, value in logs.items() if name != "loss"} or logs  # of which it is the sum
        forms = []
        for epoch, unit in (("epoch ", " images/s"), ("", "/s")):
            left = _clock((self._steps - pace.step) * pace.step_seconds)
            doing = f"{_speed(pace.images_per_second)}{unit}  {left}" if self._state == "training" else self._state
            back = f" {pace.step:{digits}}/{self._steps}  {doing}  {_words(heads)}"
            forms.append((f"{epoch}{self._place()} ", back.rstrip()))
        self._terminal.bar(pace.step / self._steps, forms)

    def _write_history(self) -> None:
        if self._folder:
            with atomic.file(self._folder / "history.csv") as partial:
                pd.DataFrame(self.history).to_csv(partial, index=False)

    def _write_status(self, error: str | None = None) -> None:
        self._status_at = monotonic()
        if self._folder:
            text = json.dumps(_finite(self._status() | ({"error": error} if error else {})), indent=2)
            with suppress(OSError), atomic.file(self._folder / "status.json") as partial:
                partial.write_text(text + "\n", encoding="utf-8")

    def _status(self) -> dict:
        return {
            "state": self._state,
            "epoch": self._epoch + 1,
            "epochs": self._epochs,
            "step": self._pace.step,
            "steps": self._steps,
            "images_per_second": round(self._pace.images_per_second, 1),
            "eta_seconds": round(self._seconds_left(), 1),
            "seconds": round(monotonic() - self._began, 1),
            "logs": self._logs,
            "updated": _now(),
            "process": os.getpid(),
        }

    def _seconds_left(self) -> float:
        """Until the end of the training, should it go through all epochs at the speed of this one."""
        if self._state in ("finished", "interrupted", "failed"):
            return 0.0 if self._state == "finished" else math.nan
        steps = (self._epochs - self._epoch) * self._steps - self._pace.step
        return steps * self._pace.step_seconds + (self._epochs - self._over) * self._validation_seconds

    def _place(self) -> str:
        return f"{self._epoch + 1}/{self._epochs}"

    def _step_of_all(self) -> int:
        return self._epoch * self._steps + self._pace.step


def _words(logs: dict[str, float]) -> str:
    """The numbers of training, then those on validation: `loss 1.79  authenticity 0.693 51.2%  validation: ...`."""
    on_validation = {
        name.removeprefix(_ON_VALIDATION): logs[name] for name in logs if name.startswith(_ON_VALIDATION)
    }
    in_training = {name: logs[name] for name in logs if not name.startswith(_ON_VALIDATION)}
    words = _join(in_training)
    return f"{words}  validation: {_join(on_validation)}" if on_validation else words


def _join(logs: dict[str, float]) -> str:
    return "  ".join(filter(None, (_word(name, logs) for name in logs)))


def _word(name: str, logs: dict[str, float]) -> str:
    """One number and its name; the accuracy of a head goes without a name behind its loss."""
    head, _, what = name.rpartition("_")
    if what == "accuracy" and f"{head}_loss" in logs:
        return ""
    if what == "loss" and f"{head}_accuracy" in logs:
        return f"{head} {_figures(logs[name])} {logs[f'{head}_accuracy']:.1%}"
    return f"{name} {_figures(logs[name])}"


def _figures(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def _speed(images_per_second: float) -> str:
    if math.isnan(images_per_second):
        return "-"
    return f"{images_per_second:.{0 if images_per_second >= 10 else 1}f}"


def _clock(seconds: float) -> str:
    if math.isnan(seconds):
        return "-:--"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _state_after(kind: type[BaseException] | None) -> str:
    if kind is None:
        return "finished"
    return "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"


def _one_line(error: BaseException) -> str:
    return ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _floats(logs: dict) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items()}


def _finite(value):
    """The same with None, which JSON has, for numbers that it has not."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
