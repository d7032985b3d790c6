"""The regression set: images whose labels people corrected, collected over time and measured for every run.

A folder in the usual layout of data, so that it can be inspected, moved and trained on like any other:

    metadata.csv    image_path, label (real, fake), class, source, sha256 of the file
    images/         the files as found, named by the start of their SHA-256 and their original name

Records are made of it when it is opened, with the classes of the run that is measured: a set outlives the runs.
"""

import csv
import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import tensorflow as tf

from pipelines import atomic
from pipelines.datasets.examples import LABELS, REGRESSION, Example, Examples
from pipelines.datasets.layouts import Layout, read_labelled
from pipelines.decoding import decodable, decode
from pipelines.exceptions import DataError
from pipelines.media.headers import UnreadableError, read_file, unreadable_reason
from pipelines.records.conversion import write_records
from pipelines.records.store import Records, open_records
from pipelines.wording import count_of

TABLE = "metadata.csv"  # which makes a folder a regression set
_IMAGES = "images"
_COLUMNS = ("image_path", "label", "class", "source", "sha256")
_NAME_LENGTH = 80  # characters of a file's name that are kept
_RANK = re.compile(r"^\d+_[01]\.\d{3}_")  # the prefix by which `ddk errors` orders files
_log = logging.getLogger(__name__)
_Row = dict[str, str]  # of the table, by column
_Rows = dict[str, _Row]  # by SHA-256


class Correction(TypedDict):
    """An image whose label or class has changed; `was` and `now` are label and class in words."""

    path: str
    was: str
    now: str


class Unreadable(TypedDict):
    """A file that is not an image, or is damaged."""

    path: str
    reason: str


class Addition(TypedDict):
    """What `add` did."""

    folder: str
    images: int  # in the set, now
    labels: dict[str, int]  # number of images in the set by label
    added: int
    unchanged: int
    corrected: list[Correction]
    quarantined: list[Unreadable]
    notes: list[str]  # sentences about the layout of the feedback folder


def exists(folder: Path) -> bool:
    """Whether there is a regression set in `folder`."""
    return (folder / TABLE).is_file()


# --- adding images ---------------------------------------------------------------------------------------------


def add(
    folder: str | os.PathLike,
    feedback: str | os.PathLike,
    *,
    classes: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Addition:
    """Copy the images in `feedback` to the regression set in `folder`, all of them or none.

    Images are identified by their bytes. One that is already in the set gets the label that `feedback` gives it, and
    the class and source if it gives any.

    Args:
        folder: the set; created if it does not exist.
        feedback: a data folder as `layouts.read_labelled` takes it; links are followed.
        classes: the classes that are allowed; any if empty.
        progress: called with (images done, images in total).

    Raises:
        DataError: `folder` holds something other than a regression set; `feedback` has unlabelled images, images of
            a class that is not allowed, one image under two labels or classes, or no readable image.
    """
    folder, layout = Path(folder), read_labelled(feedback)
    _check_classes(layout, classes)
    examples, quarantined = _readable(layout, progress or (lambda done, total: None))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic.locked(folder):
        before = _read_table(folder)
        updated = {digest: _updated_row(digest, example, before.get(digest)) for digest, example in examples.items()}
        rows = before | updated
        files = {updated[digest]["image_path"]: layout.root / example.path for digest, example in examples.items()}
        _write(folder, rows, {path: file for path, file in files.items() if not (folder / path).is_file()})
    corrected: list[Correction] = [
        {"path": row["image_path"], "was": _format_labels(before[digest]), "now": _format_labels(row)}
        for digest, row in rows.items()
        if digest in before and _format_labels(row) != _format_labels(before[digest])
    ]
    added = len(rows) - len(before)
    labels = Counter(row["label"] for row in rows.values())
    return {
        "folder": str(folder),
        "images": len(rows),
        "labels": {name: labels[name] for name in LABELS},
        "added": added,
        "unchanged": len(examples) - added - len(corrected),
        "corrected": corrected,
        "quarantined": quarantined,
        "notes": layout.notes,
    }


def _check_classes(layout: Layout, classes: Collection[str]) -> None:
    for example in layout.examples if classes else ():
        if example.category and example.category not in classes:
            raise DataError(
                f"{layout.root / example.path} is of the class {example.category}, which the run does not have; its "
                f"classes are {', '.join(classes)}: move the file into one of these, or out of any class folder"
            )


def _readable(layout: Layout, progress: Callable[[int, int], None]) -> tuple[dict[str, Example], list[Unreadable]]:
    """The readable examples by the SHA-256 of their files, without duplicates; and the files that cannot be read."""
    examples: dict[str, Example] = {}
    quarantined: list[Unreadable] = []
    total = len(layout.examples)
    for number, example in enumerate(layout.examples, start=1):
        progress(number, total)
        try:
            digest = hashlib.sha256(_read_image(layout.root / example.path)).hexdigest()
        except UnreadableError as error:
            quarantined.append({"path": example.path, "reason": str(error)})
            continue
        first = examples.setdefault(digest, example)
        if (first.label, first.category) != (example.label, example.category):
            raise DataError(
                f"{layout.root / first.path} and {example.path} are the same image under two labels or classes; keep "
                "the one that is right"
            )
    if not examples:
        bad = quarantined[0]
        raise DataError(f"no image in {layout.root} can be read; the first is {bad['path']}: {bad['reason']}")
    return examples, quarantined


def _read_image(path: Path) -> bytes:
    """The bytes of a file, once it has been decoded as a check."""
    try:
        encoded = read_file(path)
    except OSError as error:
        raise UnreadableError(error.strerror or "it is not a file") from error
    try:
        decode(tf.constant(decodable(encoded)))
    except tf.errors.InvalidArgumentError as error:
        raise UnreadableError(unreadable_reason(encoded)) from error
    return encoded


def _updated_row(digest: str, example: Example, before: _Row | None) -> _Row:
    """The new row of an image; what `example` does not say stays as it was."""
    before = before or dict.fromkeys(_COLUMNS, "")
    name = _RANK.sub("", Path(example.path).name)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", name)[-_NAME_LENGTH:]  # valid on any file system
    return {
        "image_path": before["image_path"] or f"{_IMAGES}/{digest[:12]}_{name}",
        "label": LABELS[example.label],
        "class": example.category or before["class"],
        "source": example.source or before["source"],
        "sha256": digest,
    }


def _format_labels(row: _Row) -> str:
    return f"{row['label']} {row['class']}".rstrip()


def _read_table(folder: Path) -> _Rows:
    if not exists(folder):
        return {}
    try:
        with (folder / TABLE).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error):
        rows = [{}]
    if not all(row.get(name) is not None for row in rows for name in _COLUMNS):
        raise DataError(f"{folder} holds other data, not a regression set; give another folder: --regression")
    by_digest = {row["sha256"]: row for row in rows}
    if len(by_digest) < len(rows):
        raise DataError(
            f"{folder / TABLE} lists images twice or without a sha256; remove the rows that were added by hand"
        )
    return by_digest


def _write(folder: Path, rows: _Rows, files: dict[str, Path]) -> None:
    """Write the table and copy `files`, by their path in the set, into the folder; its other images stay."""
    with atomic.folder(folder, marker=TABLE) as partial:
        if folder.exists():
            shutil.copytree(folder, partial, copy_function=_link, dirs_exist_ok=True)
        (partial / _IMAGES).mkdir(exist_ok=True)
        for path, original in files.items():
            shutil.copyfile(original, partial / path)
        (partial / TABLE).unlink(missing_ok=True)  # a link to the table that is still in use
        with (partial / TABLE).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(sorted(rows.values(), key=lambda row: row["image_path"]))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


# --- opening ---------------------------------------------------------------------------------------------------


@contextmanager
def open_as_records(folder: str | os.PathLike, classes: list[str]) -> Iterator[Records]:
    """Open a regression set as records with one split, `examples.REGRESSION`, which exist until the block ends.

    Args:
        folder: the set.
        classes: of the run that is measured. Images of other classes count as having no class, and the log says how
            many there are.

    Raises:
        DataError: there is no regression set in `folder`, or some of its images are missing or unreadable.
    """
    folder = Path(folder)
    if not exists(folder):
        raise DataError(f"there is no regression set in {folder}; make one with: ddk errors --feedback DIR")
    layout = read_labelled(folder)
    unknown = Counter(example.category for example in layout.examples if example.category not in ("", *classes))
    if classes and unknown:
        _log.info(
            "%s: %s of %s, on which the run was not trained; the category is not measured",
            folder,
            count_of(unknown.total(), "image"),
            ", ".join(sorted(unknown)),
        )
    examples = Examples()
    examples.add(
        example._replace(split=REGRESSION, category="" if example.category in unknown else example.category)
        for example in layout.examples
    )
    with tempfile.TemporaryDirectory(prefix="ddk-") as scratch:
        destination = Path(scratch) / "records"
        manifest = write_records(Layout(layout.root, examples, names=classes), destination, max_bad=1)
        if manifest["quarantined"]:
            raise DataError(
                f"{count_of(manifest['quarantined'], 'image')} of {folder} cannot be read any more; restore them"
            )
        yield open_records(destination)
