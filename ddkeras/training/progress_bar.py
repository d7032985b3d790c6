"""A progress bar that fits its terminal."""

import os
import sys
from contextlib import suppress


class Terminal:
    """Lines on standard error, and below them a bar that moves."""

    def __init__(self, verbose: int):
        self._verbose = verbose
        self._bar_is_drawn = False

    def line(self, text: str) -> None:
        """Write a line that stays."""
        if self._verbose:
            self._write(f"{self._blank()}{text}\n")
            self._bar_is_drawn = False

    def bar(self, share: float, forms: list[tuple[str, str]]) -> None:
        """Draw a bar, in place of the one before.

        Args:
            share: how much of it is done, in 0..1.
            forms: what stands left and right of it, from the longest to the shortest: the first is taken that
                leaves room for it, and of the last one as much as fits into a line.
        """
        if self._verbose != 1:
            return
        width = terminal_columns()
        for front, back in forms:
            room = width - len(front) - len(back)
            if room >= 10:
                break
        cells = max(0, min(room, 30))
        done = round(cells * share)
        text = f"{front}{'#' * done}{'-' * (cells - done)}{back}"
        self._write(f"\r{text[:width]:{width}}")
        self._bar_is_drawn = True

    def close(self) -> None:
        """Leave the bar where it is; what others write goes below."""
        if self._bar_is_drawn:
            self._write("\n")
            self._bar_is_drawn = False

    def _blank(self) -> str:
        return f"\r{'':{terminal_columns()}}\r" if self._bar_is_drawn else ""

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the terminal may be gone
            sys.stderr.write(text)
            sys.stderr.flush()


def terminal_columns() -> int:
    """How many letters fit into a line of standard error; one less than it has, as some wrap at the last."""
    with suppress(OSError):
        return (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
    return 79
