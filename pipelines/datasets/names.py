"""What the names of folders and the cells of a table stand for."""

import os
import unicodedata

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
_LABELS = {name: label for label, name in enumerate(LABELS)} | {"deepfake": LABELS.index("fake")}
# pandas writes integers as decimals where the column has a gap.
_LABEL_VALUES = _LABELS | {text: label for label in range(len(LABELS)) for text in (f"{label}", f"{label}.0")}


def split_of(name: str) -> str:
    """The split that a folder or a cell names, in any case; empty if it names none."""
    return _SPLITS.get(name.strip().casefold(), "")


def label_of_folder(name: str) -> int | None:
    """The label that a folder names, in any case; None if it names none."""
    return _LABELS.get(name.strip().casefold())


def label_of_value(text: str) -> int | None:
    """The label that a cell of a table names, in any case; None if it names none."""
    return _LABEL_VALUES.get(text.strip().casefold())


def valid_name(text: str, what: str) -> str:
    """The name of a class, source or group in the one form in which it is compared and stored.

    Without surrounding blanks, in Unicode's composed form (NFC); bytes that are not UTF-8 become question marks.

    Args:
        text: the name, as a folder or a cell has it.
        what: it names, and where, for the message.

    Raises:
        DataError: there is a control character in it.
    """
    name = unicodedata.normalize("NFC", os.fsencode(text).decode(errors="replace")).strip()
    if control := next((character for character in name if unicodedata.category(character) == "Cc"), None):
        raise DataError(f"{what} {name!r} has the control character {control!r} in its name; rename it")
    return name
