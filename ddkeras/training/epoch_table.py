"""The table of epochs on the terminal: a header, then a line per epoch, none wider than 100 columns."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

_WIDTH = 100
_GAP = "  "
_VALIDATION = "val_"
_MIN_WIDTHS = {"loss": 7, "accuracy": 6, "auc": 5}  # by kind of number; others are in history.csv alone
_FIXED = {"epoch": 5, "time": 8, "images/s": 8}


@dataclass
class _Column:
    log: str
    kind: str
    title: str

    @property
    def width(self) -> int:
        return max(_MIN_WIDTHS[self.kind], len(self.title))


class EpochTable:
    """Lines on the epochs of a training; the first logs decide which columns there are.

    Args:
        epochs: number of epochs.
    """

    def __init__(self, epochs: int):
        self._epoch_width = max(_FIXED["epoch"], 2 * len(str(epochs)) + 1)
        self._groups: dict[str, list[_Column]] = {}

    def lines(self, epoch: str, time: str, speed: str, logs: dict[str, float]) -> list[str]:
        """The line of an epoch, below the header if it is the first one.

        Args:
            epoch: such as 1/12.
            time: that it took.
            speed: images per second.
            logs: the losses and metrics of the epoch, those on validation prefixed with `val_`.
        """
        header = []
        if not self._groups:
            self._groups = _groups(logs)
            _shorten(self._groups, _WIDTH - len(self._fixed("", "", "")))
            header = [
                self._group_line(),
                self._line("epoch", "time", "images/s", [column.title for column in self._columns()]),
            ]
        numbers = [_format(column.kind, logs.get(column.log, math.nan)) for column in self._columns()]
        return [*header, self._line(epoch, time, speed, numbers)]

    def _columns(self) -> list[_Column]:
        return [column for group in self._groups.values() for column in group]

    def _fixed(self, epoch: str, time: str, speed: str) -> str:
        return _GAP.join(
            (f"{epoch:>{self._epoch_width}}", f"{time:>{_FIXED['time']}}", f"{speed:>{_FIXED['images/s']}}")
        )

    def _line(self, epoch: str, time: str, speed: str, cells: list[str]) -> str:
        aligned = [f"{cell:>{column.width}}" for cell, column in zip(cells, self._columns(), strict=True)]
        return _GAP.join([self._fixed(epoch, time, speed), *aligned])

    def _group_line(self) -> str:
        names = [f"{name:{_width(group) - len(_GAP)}}" for name, group in self._groups.items()]
        return _GAP.join([self._fixed("", "", ""), *names]).rstrip()


def _groups(logs: dict[str, float]) -> dict[str, list[_Column]]:
    """The columns of what is shown, on training and on validation."""
    groups: dict[str, list[_Column]] = {}
    for name in logs:
        head, _, kind = name.removeprefix(_VALIDATION).rpartition("_")
        if kind in _MIN_WIDTHS and not (kind == "loss" and head):  # the loss of a head is in the history
            title = "AUC" if kind == "auc" else head or kind
            group = "validation" if name.startswith(_VALIDATION) else "training"
            groups.setdefault(group, []).append(_Column(name, kind, title))
    return groups


def _shorten(groups: dict[str, list[_Column]], space: int) -> None:
    """Cut the longest titles until all columns fit."""
    columns = [column for group in groups.values() for column in group]
    while _width(columns) > space:
        longest = max(columns, key=lambda column: len(column.title) - _MIN_WIDTHS[column.kind])
        if len(longest.title) <= _MIN_WIDTHS[longest.kind]:
            return
        longest.title = longest.title[:-1]


def _width(columns: Iterable[_Column]) -> int:
    return sum(len(_GAP) + column.width for column in columns)


def _format(kind: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    if kind == "accuracy":
        return f"{value:.1%}"
    if kind == "auc":
        return f"{value:.3f}"
    text = f"{value:#.3g}".rstrip(".")
    return text if len(text) <= _MIN_WIDTHS["loss"] else f"{value:.1e}"
