"""Keeping what TensorFlow and libjpeg print to standard error away from the user, with or without a progress bar."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from ddkeras.progress import ProgressUpdate, progress_bar


@contextlib.contextmanager
def silence_stderr() -> Iterator[TextIO]:
    """Discard what this process and its child processes write to standard error, unless DDK_DEBUG is set.

    The yielded file still writes to it.
    """
    if os.environ.get("DDK_DEBUG"):
        yield sys.stderr
        return
    with os.fdopen(os.dup(2), "w") as stderr, open(os.devnull, "wb") as devnull:
        os.dup2(devnull.fileno(), 2)
        try:
            yield stderr
        finally:
            os.dup2(stderr.fileno(), 2)


@contextlib.contextmanager
def exclusive_progress_bar(label: str, unit: str = "") -> Iterator[ProgressUpdate]:
    """A progress bar, and nothing else on standard error: libjpeg prints a warning for each damaged JPEG."""
    # Tests replace sys.stderr, and then the bar belongs there.
    is_file_descriptor_2 = sys.stderr is sys.__stderr__
    with (
        open(os.dup(2), "w") if is_file_descriptor_2 else contextlib.nullcontext(sys.stderr) as file,
        silence_stderr(),
        progress_bar(label, unit, file) as update,
    ):
        yield update
