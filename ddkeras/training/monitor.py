"""Monitoring of a training: a progress bar or a line per epoch on the terminal, and files in the run folder.

history.csv     one row per epoch: `epoch` from 1, then its logs
log.txt         timestamped events
status.json     the current state, updated about once a second
tensorboard/    logs by epoch and, under step/, during epochs; images

The history is a result: failing to write it raises. Nothing else here ever ends the training.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from time import monotonic
from types import TracebackType

import pandas as pd
import psutil

from ddkeras.training.epoch_table import EpochTable
from ddkeras.training.progress_bar import Terminal
from ddkeras.training.tensorboard import EventWriter
from ddkeras.training.throughput import Throughput
from pipelines import atomic
from pipelines.wording import count_of

_SYNC_SECONDS = 0.5
_STATUS_SECONDS = 1.0
_INPUT_BOUND = 0.2  # share of the time spent waiting for input that is worth a warning
_REMEDY = "if that lasts, --cache keeps images decoded, and --data-service has other machines decode them"
_VALIDATION = "val_"


class TrainingMonitor:
    """Reports on the training in its context.

    Attributes:
        history: the rows of history.csv, one dict per finished epoch.
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
        """Monitor a training.

        Args:
            run_folder: where the files are written. None for a worker other than the chief: writes and shows nothing.
            epochs: number of epochs.
            steps: steps per epoch.
            batch_size: images per step.
            verbose: 0 silent, 1 a progress bar and a line per epoch, 2 a line per epoch; on standard error.
            history: the rows of the epochs that were finished before a resumed training.
        """
        self.history = [dict(row) for row in history]
        if self.history and self.history[0]["epoch"] == 0:  # of a run that 0.2.0 began
            self.history = [row | {"epoch": row["epoch"] + 1} for row in self.history]
        self._folder = Path(run_folder) if run_folder else None
        self._terminal = Terminal(verbose if run_folder else 0)
        self._table = EpochTable(epochs)
        self._is_compiled = False
        self._epochs, self._steps, self._batch_size = epochs, steps, batch_size
        self._state = "training"
        self._finished = len(self.history)  # epochs
        self._epoch = min(self._finished, epochs - 1)
        self._logs: dict[str, float] = {}
        self._costs: dict[str, float] = {}  # seconds per step, by part
        self._validation_seconds = 0.0
        self._status_at = -math.inf
        self._has_warned = False

    def __enter__(self) -> "TrainingMonitor":
        self._started = monotonic()
        self._throughput = Throughput()
        self._events = EventWriter(self._folder / "tensorboard") if self._folder else None
        finished = f", {self._finished} of them done" if self._finished else ""
        epochs, steps = count_of(self._epochs, "epoch"), count_of(self._steps, "step")
        images = count_of(self._batch_size, "image")
        self.log(f"started: {epochs}{finished}, each {steps} of {images}")
        self._write_status()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._state = _state_after(kind)
        reason = _format_error(error) if error and self._state == "failed" else None
        self._terminal.close()
        self._write_status(reason)
        place = f"in epoch {self._place()} at step {self._throughput.step}/{self._steps}"
        because = f": {reason}" if reason else ""
        self.log(f"{self._state} after {_format_duration(monotonic() - self._started)}, {place}{because}")
        if self._events:
            self._events.close()

    def begin_epoch(self, epoch: int, first_step: int = 0) -> None:
        """An epoch starts, at `first_step` where it is resumed; both are counted from 0."""
        self._state, self._epoch, self._finished = "training", epoch, epoch
        self._throughput.begin(first_step)
        if not self._is_compiled:
            self._terminal.line("compiling the network: the first step takes longer")
            self._is_compiled = True
        if first_step:
            self.log(f"epoch {self._place()} resumed after step {first_step}/{self._steps}")
        self._draw_bar({})

    def timed(self, stage: str, items: Iterable) -> Iterator:
        """The same items; the time spent waiting for each is attributed to `stage`, which is `input` for batches."""
        iterator = iter(items)
        while True:
            started = monotonic()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self._throughput.wait(stage, monotonic() - started)
            yield item

    def after_step(self, step: int, images: int, read: Callable[[], dict]) -> dict[str, float] | None:
        """A step was dispatched.

        Args:
            step: number of steps of this epoch so far.
            images: number of images of this one.
            read: reads the logs from the device, which has to catch up for it. Called at most twice a second, and
                after the last step of an epoch.

        Returns:
            The logs, where they were read.
        """
        self._throughput.advance(step, images)
        is_last = step == self._steps
        if not is_last and self._throughput.seconds_since_sync() < _SYNC_SECONDS:
            return None
        with self._throughput.sync(is_last):
            self._logs = _floats(read())
        self._state = "validating" if is_last else "training"
        self._report_step()
        return self._logs

    def note(self, part: str, seconds: float) -> None:
        """Record the time that a part of each step takes, such as `augment`, to log its share of every epoch."""
        self._costs[part] = seconds

    def end_epoch(self, logs: dict) -> None:
        """An epoch is finished.

        Args:
            logs: its losses and metrics, those on validation prefixed with `val_`.

        Raises:
            OSError: the history cannot be written.
        """
        self._state, self._finished, self._logs = "training", self._epoch + 1, _floats(logs)
        self._validation_seconds = self._throughput.seconds_since_sync()
        self.history = [row for row in self.history if row["epoch"] <= self._epoch]
        self.history.append({"epoch": self._epoch + 1, **self._logs})
        self._write_history()
        self._report_epoch()
        self._write_status()

    def log(self, message: str) -> None:
        """Append a line to log.txt."""
        if self._folder:
            with suppress(OSError), open(self._folder / "log.txt", "a", encoding="utf-8") as log:
                log.write(f"{_now()} {message}\n")

    def images(self, name: str, images) -> None:
        """Write the first images of a batch, at most 8, to TensorBoard.

        Args:
            name: their tag.
            images: (batch, height, width, channels), in 0..255.
        """
        if self._events:
            self._events.images(name, images, self._global_step())

    def _report_step(self) -> None:
        if self._events:
            self._events.scalars({f"step/{name}": value for name, value in self._logs.items()}, self._global_step())
        self._draw_bar(self._logs)
        if self._state == "validating" or monotonic() - self._status_at >= _STATUS_SECONDS:
            self._write_status()

    def _report_epoch(self) -> None:
        speed = self._throughput.images_per_second
        parts = [
            f"epoch {self._place()}",
            _format_duration(self._throughput.seconds()),
            f"{_format_speed(speed)} images/s",
            _format_logs(self._logs),
        ]
        self.log("  ".join([*parts, self._format_times()]))
        for line in self._table.lines(
            self._place(), _format_duration(self._throughput.seconds()), _format_speed(speed), self._logs
        ):
            self._terminal.line(line)
        input_share = self._throughput.shares().get("input", 0)
        if input_share > _INPUT_BOUND:
            self._warn(f"the accelerator waited for images {input_share:.0%} of the time; {_REMEDY}")
        if self._events:
            self._events.scalars({**self._logs, "images_per_second": speed}, self._epoch)
            self._events.flush()

    def _warn(self, message: str) -> None:
        self.log(message)
        if not self._has_warned:
            self._terminal.line(message)
        self._has_warned = True

    def _format_times(self) -> str:
        shares = [f"{stage} {share:.0%}" for stage, share in self._throughput.shares().items()]
        parts = [f"{part} {self._throughput.share_per_step(seconds):.0%}" for part, seconds in self._costs.items()]
        of_which = f" ({', '.join(parts)})" if parts else ""
        memory = psutil.Process().memory_info().rss / 2**30
        validation = f"validation {self._validation_seconds:.1f} s"
        return f"time: {', '.join(shares)}{of_which}; {validation}; memory {memory:.2f} GiB"

    def _draw_bar(self, logs: dict[str, float]) -> None:
        throughput, digits = self._throughput, len(str(self._steps))
        heads = {name: value for name, value in logs.items() if name != "loss"} or logs
        forms = []
        for epoch, unit in (("epoch ", " images/s"), ("", "/s")):
            eta = _format_duration((self._steps - throughput.step) * throughput.step_seconds)
            speed = f"{_format_speed(throughput.images_per_second)}{unit}  {eta}"
            activity = speed if self._state == "training" else self._state
            right = f" {throughput.step:{digits}}/{self._steps}  {activity}  {_format_logs(heads)}"
            forms.append((f"{epoch}{self._place()} ", right.rstrip()))
        self._terminal.bar(throughput.step / self._steps, forms)

    def _write_history(self) -> None:
        if self._folder:
            with atomic.file(self._folder / "history.csv") as partial_file:
                pd.DataFrame(self.history).to_csv(partial_file, index=False)

    def _write_status(self, error: str | None = None) -> None:
        self._status_at = monotonic()
        if self._folder:
            text = json.dumps(_finite(self._status() | ({"error": error} if error else {})), indent=2)
            with suppress(OSError), atomic.file(self._folder / "status.json") as partial_file:
                partial_file.write_text(text + "\n", encoding="utf-8")

    def _status(self) -> dict:
        return {
            "state": self._state,
            "epoch": self._epoch + 1,
            "epochs": self._epochs,
            "step": self._throughput.step,
            "steps": self._steps,
            "images_per_second": round(self._throughput.images_per_second, 1),
            "eta_seconds": round(self._seconds_left(), 1),
            "seconds": round(monotonic() - self._started, 1),
            "logs": self._logs,
            "updated": _now(),
            "process": os.getpid(),
        }

    def _seconds_left(self) -> float:
        """Until the end of the last epoch, at the current speed."""
        if self._state in ("finished", "interrupted", "failed"):
            return 0.0 if self._state == "finished" else math.nan
        steps = (self._epochs - self._epoch) * self._steps - self._throughput.step
        return steps * self._throughput.step_seconds + (self._epochs - self._finished) * self._validation_seconds

    def _place(self) -> str:
        return f"{self._epoch + 1}/{self._epochs}"

    def _global_step(self) -> int:
        return self._epoch * self._steps + self._throughput.step


def _format_logs(logs: dict[str, float]) -> str:
    """Training logs, then those on validation: `loss 1.79  authenticity 0.693 51.2%  validation: ...`."""
    training = {name: value for name, value in logs.items() if not name.startswith(_VALIDATION)}
    validation = {
        name.removeprefix(_VALIDATION): value for name, value in logs.items() if name.startswith(_VALIDATION)
    }
    text = _join_logs(training)
    return f"{text}  validation: {_join_logs(validation)}" if validation else text


def _join_logs(logs: dict[str, float]) -> str:
    return "  ".join(filter(None, (_format_log(name, logs) for name in logs)))


def _format_log(name: str, logs: dict[str, float]) -> str:
    """One value with its name; the accuracy of a head is shown with its loss."""
    head, _, kind = name.rpartition("_")
    if kind == "accuracy" and f"{head}_loss" in logs:
        return ""
    if kind == "loss" and f"{head}_accuracy" in logs:
        return f"{head} {_format_number(logs[name])} {logs[f'{head}_accuracy']:.1%}"
    return f"{name} {_format_number(logs[name])}"


def _format_number(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def _format_speed(images_per_second: float) -> str:
    if math.isnan(images_per_second):
        return "-"
    return f"{images_per_second:.{0 if images_per_second >= 10 else 1}f}"


def _format_duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "-:--"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _state_after(kind: type[BaseException] | None) -> str:
    if kind is None:
        return "finished"
    return "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"


def _format_error(error: BaseException) -> str:
    return ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _floats(logs: dict) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items()}


def _finite(value):
    """The same with None in place of NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
