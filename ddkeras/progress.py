"""Progress bars on standard error."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TextIO

import click

ProgressUpdate = Callable[[int, int], None]  # called with (done, total)
Progress = Callable[[str], AbstractContextManager[ProgressUpdate]]  # from a label to a bar

_LOG_SECONDS = 30  # between two lines where no bar can be drawn


def silent(label: str) -> AbstractContextManager[ProgressUpdate]:
    """A `Progress` that shows nothing."""
    return nullcontext(lambda done, total: None)


@contextmanager
def progress_bar(label: str, unit: str = "", file: TextIO | None = None) -> Iterator[ProgressUpdate]:
    """A `Progress` that draws a bar on standard error, or on `file`, with the rate and the time left.

    Where no bar can be drawn, as in a log, it writes a line every 30 seconds.

    The rate is measured from the second update on: what an earlier process had done before the first took this one no
    time, and the first step includes compilation.

    Args:
        label: shown before the bar.
        unit: what is counted, such as `images`.
    """
    stream, rate = file or sys.stderr, ""
    with click.progressbar(
        range(1), label=label, width=24, file=stream, show_eta=False, item_show_func=lambda _: rate
    ) as bar:
        reference, updates, logged_at = (0, 0.0), 0, time.monotonic()

        def update(done: int, total: int) -> None:
            nonlocal rate, reference, updates, logged_at
            now = time.monotonic()
            if updates < 2:
                reference, updates = (done, now), updates + 1
            done_before, since = reference
            rate = _format_rate(done - done_before, total - done, now - since, unit)
            bar.length = total
            bar.update(done - bar.pos)
            if now - logged_at > _LOG_SECONDS and not stream.isatty():
                click.echo(f"{label}: {done:,} of {total:,}, {rate}", stream)
                logged_at = now

        yield update


def _format_rate(done: int, left: int, seconds: float, unit: str) -> str:
    """Such as `1,234 images/s, 0:01:10 left`; empty until there is a rate."""
    if not done or not seconds:
        return ""
    rate = done / seconds
    per_second = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
    time_left = f", {timedelta(seconds=round(left / rate))} left" if left else ""
    return f"{per_second}{' ' if unit else ''}{unit}/s{time_left}"
