"""Being asked to stop: at the end of a step, when nothing is half done."""

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """What takes long was asked to stop and did; the message says where, and how to go on."""


class StopRequest:
    """Whether SIGINT (Ctrl-C) or SIGTERM came while it was entered; a second one does not wait.

    Of one within another: what came for the outer one came for the inner one, too; and what came too late for the
    inner one, whose work then ended well, came for the outer one.
    """

    def __init__(self):
        self.came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # no other may
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        self.came = any(outer.came for outer in self._around())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for outer in self._around() if kind is None else ():
            outer.came = outer.came or self.came

    def until(self, values: Iterable) -> Iterator:
        """The same values; raises `Interrupted` in place of the next one when it came."""
        for value in values:
            if self.came:
                raise Interrupted
            yield value

    def _around(self) -> list["StopRequest"]:
        handlers = (getattr(handler, "__self__", None) for handler in self._before.values())
        return [outer for outer in handlers if isinstance(outer, StopRequest)]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True
