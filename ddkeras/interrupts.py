"""Graceful interruption: on SIGINT or SIGTERM, the step in progress is finished first."""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from types import FrameType, TracebackType
from typing import Any, TypeVar

_Item = TypeVar("_Item")


class Interrupted(KeyboardInterrupt):
    """A long task stopped on request; the message says where, and how to resume it."""


class StopRequest:
    """Records whether SIGINT (Ctrl-C) or SIGTERM arrived in its context; a second signal interrupts at once.

    Contexts may be nested: a request made to the outer one also holds for the inner one, and a request that arrived
    too late for the inner one, which then finished normally, holds for the outer one.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # only there can handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous_handlers[number] = signal.signal(number, self._handle)
        self.requested = any(outer.requested for outer in self._outer())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        for outer in self._outer() if kind is None else ():
            outer.requested = outer.requested or self.requested

    def interruptible(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """The same items; raises `Interrupted` in place of the next one after a request.

        By then the iterator over them is gone. A traceback that nobody catches would keep it until Python has ended,
        and that of a dataset which calls Python would wait for its calls forever.
        """
        open_items = (item for item in items)
        del items
        with closing(open_items):
            for item in open_items:
                if self.requested:
                    raise Interrupted
                yield item

    def _outer(self) -> list["StopRequest"]:
        handlers = (getattr(handler, "__self__", None) for handler in self._previous_handlers.values())
        return [outer for outer in handlers if isinstance(outer, StopRequest)]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
