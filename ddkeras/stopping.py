"""Being asked to stop: at the end of a step, when nothing is half done."""

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """What takes long was asked to stop and did; the message says where, and how to go on."""


class StopRequest:
    """Whether SIGINT (Ctrl-C) or SIGTERM came while it was entered; a second one does not wait."""

    def __init__(self):
        self.came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # no other may
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def until(self, values: Iterable) -> Iterator:
        """The same values; raises `Interrupted` in place of the next one when it came."""
        for value in values:
            if self.came:
                raise Interrupted
            yield value

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True
