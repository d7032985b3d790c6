"""A progress bar that fits the terminal."""

import os
import sys
from contextlib import suppress


class Terminal:
    """Lines on standard error, with a progress bar below them.

    Args:
        verbose: 0 shows nothing, 1 lines and the bar, 2 lines alone.
    """

    def __init__(self, verbose: int):
        self._verbose = verbose
        self._bar_is_drawn = False

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        if self._verbose:
            self._write(f"{self._blank()}{text}\n")
            self._bar_is_drawn = False

    def bar(self, share: float, forms: list[tuple[str, str]]) -> None:
        """Redraw the bar.

        Args:
            share: the progress, in 0..1.
            forms: the texts on its left and right, from the longest form to the shortest. The first form that leaves
                space for the bar is used; the last one is truncated to the line.
        """
        if self._verbose != 1:
            return
        width = terminal_columns()
        for left, right in forms:
            space = width - len(left) - len(right)
            if space >= 10:
                break
        cells = max(0, min(space, 30))
        filled = round(cells * share)
        text = f"{left}{'#' * filled}{'-' * (cells - filled)}{right}"
        self._write(f"\r{text[:width]:{width}}")
        self._bar_is_drawn = True

    def close(self) -> None:
        """Leave the bar as it is; further output goes below."""
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
    """The characters that fit into a line; one less than the terminal has, as some wrap after the last column."""
    with suppress(OSError):
        return (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
    return 79
