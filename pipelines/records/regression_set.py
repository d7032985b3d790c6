"""The regression set: images whose labels people corrected, collected over time and measured of every run.

A folder in the layout of all data, so that it can be looked at, moved and trained on like any other:

    metadata.csv    image_path, label (real, fake), class, source, sha256 of the file
    images/         the files as found, under the beginning of their SHA-256 and the name that they had

Records are made of it when it is opened, with the classes of the run that is to be measured: a set outlives the runs.
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

import tensorflow as tf

from pipelines import atomic
from pipelines.datasets.examples import LABELS, REGRESSION, Example, Examples
from pipelines.datasets.layouts import Layout, read_labelled
from pipelines.decoding import decodable, decode
from pipelines.exceptions import DataError
from pipelines.media.headers import UnreadableError, read_file, unreadable_reason
from pipelines.records.conversion import write_records
from pipelines.records.store import Records, open_records

TABLE = "metadata.csv"  # which makes a folder a regression set
_IMAGES = "images"
_COLUMNS = ("image_path", "label", "class", "source", "sha256")
_NAME = 80  # characters that are kept of a file's name
_RANK = re.compile(r"^\d+_[01]\.\d{3}_")  # which `ddk errors` puts before it
_log = logging.getLogger(__name__)
_Rows = dict[str, dict[str, str]]  # of the table, by SHA-256


def is_at(folder: Path) -> bool:
    """Whether there is a regression set in `folder`."""
    return (folder / TABLE).is_file()


# --- adding to it ----------------------------------------------------------------------------------------------


def add(
    folder: str | os.PathLike,
    feedback: str | os.PathLike,
    *,
    classes: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Add the images in `feedback` to the regression set in `folder`, whole or not at all; the files are copied.

    An image is known by its bytes. One that is in the set already gets the label, and if it has any the class and
    the source, that `feedback` gives it.

    Args:
        folder: of the set, which is made if there is none.
        feedback: a data folder as `layouts.read_labelled` takes it; links are followed.
        classes: the only ones that an image may be of; none where any will do.
        progress: called with (images done, images in all).

    Returns:
        `folder`; `images`, how many there are now, and how many of each of the `labels`; how many were `added` and
        `unchanged`; `corrected`, those whose label or class is another now, as `path`, `was` and `now`;
        `quarantined`, files that are no image, as `path` and `reason`; and `notes`, sentences.

    Raises:
        DataError: `folder` is no regression set; `feedback` has images without a label, of another class, twice
            under different labels or classes, or none that can be read.
    """
    folder, layout = Path(folder), read_labelled(feedback)
    _check_classes(layout, classes)
    examples, quarantined = _readable(layout, progress or (lambda done, total: None))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic.locked(folder):
        rows = _rows(folder)
        before = dict(rows)
        for digest, example in examples.items():
            rows[digest] = _row(digest, example, before.get(digest))
        paths = {rows[digest]["image_path"]: layout.root / example.path for digest, example in examples.items()}
        _write(folder, rows, {path: file for path, file in paths.items() if not (folder / path).is_file()})
    corrected = [
        {"path": row["image_path"], "was": _known(before[digest]), "now": _known(row)}
        for digest, row in rows.items()
        if digest in before and _known(row) != _known(before[digest])
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
                f"{layout.root / example.path} is of the class {example.category}, which the run does not have; it "
                f"has {', '.join(classes)}: move the file there, or out of any class"
            )


def _readable(layout: Layout, progress: Callable[[int, int], None]) -> tuple[dict[str, Example], list[dict]]:
    """Examples by the SHA-256 of their files, each once; and those that cannot be read, with the reason."""
    found: dict[str, Example] = {}
    quarantined, total = [], len(layout.examples)
    for number, example in enumerate(layout.examples, start=1):
        progress(number, total)
        try:
            digest = hashlib.sha256(_checked(layout.root / example.path)).hexdigest()
        except UnreadableError as error:
            quarantined.append({"path": example.path, "reason": str(error)})
            continue
        first = found.setdefault(digest, example)
        if (first.label, first.category) != (example.label, example.category):
            raise DataError(
                f"{layout.root / first.path} and {example.path} are one image under two labels or classes; keep the "
                "one that is right"
            )
    if not found:
        first = quarantined[0]
        raise DataError(f"no image in {layout.root} can be read; the first is {first['path']}: {first['reason']}")
    return found, quarantined


def _checked(path: Path) -> bytes:
    """The bytes of a file that can be decoded."""
    try:
        encoded = read_file(path)
    except OSError as error:
        raise UnreadableError(error.strerror or "it is not a file") from error
    try:
        decode(tf.constant(decodable(encoded)))
    except tf.errors.InvalidArgumentError as error:
        raise UnreadableError(unreadable_reason(encoded)) from error
    return encoded


def _row(digest: str, example: Example, before: dict[str, str] | None) -> dict[str, str]:
    """What the table says of an image from now on; what is not known now is kept."""
    before = before or dict.fromkeys(_COLUMNS, "")
    name = _RANK.sub("", Path(example.path).name)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", name)[-_NAME:]  # which any file system takes
    return {
        "image_path": before["image_path"] or f"{_IMAGES}/{digest[:12]}_{name}",
        "label": LABELS[example.label],
        "class": example.category or before["class"],
        "source": example.source or before["source"],
        "sha256": digest,
    }


def _known(row: dict[str, str]) -> str:
    """Label and class, in words."""
    return f"{row['label']} {row['class']}".rstrip()


def _rows(folder: Path) -> _Rows:
    if not is_at(folder):
        return {}
    try:
        with (folder / TABLE).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error):
        rows = [{}]
    if not all(row.get(name) is not None for row in rows for name in _COLUMNS):
        raise DataError(f"{folder} is data of another kind, no regression set; give another place: --regression")
    found = {row["sha256"]: row for row in rows}
    if len(found) < len(rows):
        raise DataError(f"{folder / TABLE} lists images twice or without a sha256; take out what was put in by hand")
    return found


def _write(folder: Path, rows: _Rows, files: dict[str, Path]) -> None:
    """Put `files`, by their path in it, and the table into the folder, where its other images stay."""
    with atomic.folder(folder, marker=TABLE) as partial:
        if folder.exists():
            shutil.copytree(folder, partial, copy_function=_link, dirs_exist_ok=True)
        (partial / _IMAGES).mkdir(exist_ok=True)
        for path, original in files.items():
            shutil.copyfile(original, partial / path)
        (partial / TABLE).unlink(missing_ok=True)  # which is a link to the one that is still in use
        with (partial / TABLE).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(sorted(rows.values(), key=lambda row: row["image_path"]))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


# --- opening it ------------------------------------------------------------------------------------------------


@contextmanager
def opened(folder: str | os.PathLike, classes: list[str]) -> Iterator[Records]:
    """Open a regression set as records with one split, `examples.REGRESSION`, on which the block can rely.

    Args:
        classes: those of the run that is to be measured; an image of another counts as one of no known class, and the
            log says how many there are.

    Raises:
        DataError: there is no regression set in `folder`, or images of it are gone or cannot be read any more.
    """
    folder = Path(folder)
    if not is_at(folder):
        raise DataError(f"there is no regression set in {folder}; make one with: ddk errors --feedback DIR")
    found = read_labelled(folder)
    foreign = Counter(example.category for example in found.examples if example.category not in ("", *classes))
    if classes and foreign:
        _log.info(
            "%s: %d images are of %s, which the run was not trained on: their category is not measured",
            folder,
            foreign.total(),
            ", ".join(sorted(foreign)),
        )
    examples = Examples()
    examples.add(
        example._replace(split=REGRESSION, category="" if example.category in foreign else example.category)
        for example in found.examples
    )
    with tempfile.TemporaryDirectory(prefix="ddk-") as spare:
        made = Path(spare) / "records"
        manifest = write_records(Layout(found.root, examples, names=classes), made, max_bad=1)
        if manifest["quarantined"]:
            raise DataError(f"{manifest['quarantined']} images of {folder} cannot be read any more; restore them")
        yield open_records(made)
