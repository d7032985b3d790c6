"""Progress on standard error, and keeping what TensorFlow and libjpeg print out of it."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TextIO

import click

_SECONDS = 30  # between two lines on how far it is


@contextlib.contextmanager
def silence_stderr() -> Iterator[TextIO]:
    """Drop what this process, and any it starts meanwhile, writes to standard error; unless DDK_DEBUG is set.

    What is written to the yielded file still gets there.
    """
    if os.environ.get("DDK_DEBUG"):
        yield sys.stderr
        return
    with os.fdopen(os.dup(2), "w") as kept, open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield kept
        finally:
            os.dup2(kept.fileno(), 2)


@contextlib.contextmanager
def progress_bar(label: str, unit: str = "", file: TextIO | None = None) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, or `file`, moved by calling the yielded function with (done, total).

    It says how many `unit` are done in a second and how long the rest takes. That is counted from the second call on:
    what was done before the first, by a process that was stopped, took no time, and the first step takes too much.
    """
    file = file or sys.stderr
    shown = {"label": label, "width": 24, "file": file, "show_eta": False, "item_show_func": lambda pace: pace}
    with click.progressbar(length=1, **shown) as bar:
        begun, told = [], time.monotonic()

        def move(done: int, total: int) -> None:
            nonlocal told
            now = time.monotonic()
            if len(begun) < 2:
                begun.append((done, now))
            before, since = begun[-1]
            pace = _pace(done - before, total - done, now - since, unit)
            bar.length = total
            bar.update(done - bar.pos, pace)
            if now - told > _SECONDS and not file.isatty():  # where no bar is drawn, as in a log
                click.echo(f"{label}: {done:,} of {total:,}, {pace}", file)
                told = now

        yield move


@contextlib.contextmanager
def lone_progress_bar(label: str, unit: str = "") -> Iterator[Callable[[int, int], None]]:
    """The same, while nothing else reaches standard error: of each damaged JPEG libjpeg has something to say."""
    with contextlib.ExitStack() as stack:
        # sys.stderr itself would be cut off as well, but where a test has put something else in its place.
        is_real = sys.stderr is sys.__stderr__
        file = stack.enter_context(open(os.dup(2), "w")) if is_real else sys.stderr
        stack.enter_context(silence_stderr())
        yield stack.enter_context(progress_bar(label, unit, file))


def _pace(done: int, left: int, seconds: float, unit: str) -> str:
    """Such as 1,234 images/s, 0:01:10 left; empty as long as nothing can be said."""
    if not done or not seconds:
        return ""
    rate = done / seconds
    many = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
    rest = f", {timedelta(seconds=round(left / rate))} left" if left else ""
    return f"{many}{' ' if unit else ''}{unit}/s{rest}"
