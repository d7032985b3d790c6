"""What the names of folders and the cells of a table stand for."""

import os
import unicodedata
from collections.abc import Collection

from pipelines.datasets.examples import LABELS
from pipelines.exceptions import DataError

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_ALWAYS = {"real": 0, "fake": 1, "deepfake": 1, "0_real": 0, "1_fake": 1}  # labels wherever they occur
_TOGETHER = [  # labels where both occur side by side
    ("nature", "ai"),
    ("original_sequences", "manipulated_sequences"),
    ("celeb-real", "celeb-synthesis"),
    ("youtube-real", "celeb-synthesis"),
    ("training_real", "training_fake"),
    ("au", "tp"),
    ("authentic", "ai_generated"),
]
# pandas writes integers as decimals where the column has a gap.
_LABEL_VALUES = _ALWAYS | {text: label for label in range(len(LABELS)) for text in (f"{label}", f"{label}.0")}


class LabelNames:
    """The names of real and fake: those in use in the field, or others that the user gives."""

    def __init__(self, real: Collection[str] = (), fake: Collection[str] = ()) -> None:
        """Take the names that are given for a label in place of the usual ones of that label.

        Raises:
            DataError: a name is given for both labels.
        """
        self._given = {folded(name): label for label, names in enumerate((real, fake)) for name in names}
        if both := {folded(name) for name in real} & {folded(name) for name in fake}:
            raise DataError(f"{min(both)} is given both as real and as fake; leave one out")
        usual = {name: label for name, label in _ALWAYS.items() if label not in self._given.values()}
        self._always = usual | self._given
        decimals = {f"{name}.0": label for name, label in self._given.items() if name.isdecimal()}  # as pandas writes
        self._values = _LABEL_VALUES | decimals | self._given

    def of_folders(self, names: Collection[str]) -> dict[str, int]:
        """Those of the folders side by side that name a label, in any case, and the label."""
        labels = {name: self._always[folded(name)] for name in names if folded(name) in self._always}
        present = {folded(name) for name in names}
        for pair in [] if self._given else _TOGETHER:
            if present.issuperset(pair):
                labels |= {name: pair.index(folded(name)) for name in names if folded(name) in pair}
        return labels

    def is_source(self, name: str) -> bool:
        """Whether a folder of a label is one of several that were given for it, as for each generator."""
        label = self._given.get(folded(name))
        return folded(name) not in _ALWAYS and sum(other == label for other in self._given.values()) > 1

    def of_value(self, text: str) -> int | None:
        """The label that a cell of a table names, in any case; None if it names none."""
        return self._values.get(folded(text))


def folded(name: str) -> str:
    """A name as it is compared: without regard to case, surrounding blanks and the form of its Unicode."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def split_of(name: str) -> str:
    """The split that a folder or a cell names, in any case; empty if it names none."""
    return _SPLITS.get(folded(name), "")


def valid_name(text: str, what: str) -> str:
    """The name of a class, source or group in the one form in which it is compared and stored.

    Without surrounding blanks, in Unicode's composed form (NFC); bytes that are not UTF-8 become question marks.

    Args:
        text: the name, as a folder or a cell has it.
        what: it names, and where, for the message.

    Raises:
        DataError: there is a control character in it.
    """
    if text.isascii() and text.isprintable():  # nearly all, and a table has three in each row
        return text.strip()
    name = unicodedata.normalize("NFC", os.fsencode(text).decode(errors="replace")).strip()
    if control := next((character for character in name if unicodedata.category(character) == "Cc"), None):
        raise DataError(f"{what} {name!r} has the control character {control!r} in its name; rename it")
    return name
