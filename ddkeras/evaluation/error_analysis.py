"""Error analysis: the misclassified images of a split, as a folder to look through.

artifacts/errors/<run>/<split>/
    real-called-fake/       links to the images, the most confident errors first: 001_0.987_photo.jpg
    fake-called-real/
    wrong-category/
    errors.csv              a row for each error
    index.html              a page that shows the first of each kind
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from ddkeras.evaluation import comparison
from ddkeras.exceptions import ConfigError
from ddkeras.reporting import html
from ddkeras.reporting.document import Block, Document, Heading, Paragraph, Picture, Pictures
from ddkeras.runs.detector import Detector
from ddkeras.runs.json_files import read_json
from ddkeras.runs.run import EVALUATION
from pipelines import atomic, spreadsheets
from pipelines.datasets.examples import LABELS
from pipelines.media.headers import image_format, read_file
from pipelines.media.pillow import PILLOW_ERRORS
from pipelines.media.thumbnails import thumbnail
from pipelines.records import queries
from pipelines.records.store import MANIFEST, Records, open_records
from pipelines.wording import count_of

TABLE = "errors.csv"
PAGE = "index.html"
KINDS = {
    "real-called-fake": "Reals called fake",
    "fake-called-real": "Fakes called real",
    "wrong-category": "Images put into the wrong category",
}
_COLUMNS = ["mistake", "rank", "confidence", "path", "label", "verdict", "fake_probability"]
_COLUMNS += ["true_category", "predicted_category", "source"]
_REQUIRED = ["path", "source", "label", "fake_probability", "verdict"]
_REQUIRED_WITH_CATEGORIES = ["true_category", "predicted_category", "category_probability"]
_ON_PAGE = 60  # images of each kind
_MAX_NAME = 120  # bytes kept of a file name; file systems take 255


@dataclass(frozen=True)
class CollectedErrors:
    """What was written to an error folder.

    Args:
        run, split, folder: names, and where the folder is.
        images: number of images in the split.
        unsure: number of unsure verdicts, which are not errors.
        mistakes: number of errors of each of `KINDS`.
        shown: those of them that are in the folder.
        linked, copied, missing: number of images that are links, were written from the records, or were not found.
        notes: sentences.
    """

    run: str
    split: str
    folder: str
    images: int
    unsure: int
    mistakes: dict[str, int]
    shown: dict[str, int]
    linked: int
    copied: int
    missing: int
    notes: list[str]


@dataclass(frozen=True)
class _Evaluated:
    """From metrics.json: the split, the fingerprint of its records, and the operating point as JSON."""

    split: str
    records: str
    operating_point: dict


def collect(
    detector: Detector,
    split: str,
    folder: Path,
    *,
    records: Path,
    data: Path | None = None,
    limit: int | None = None,
    overwrite: bool = False,
) -> CollectedErrors:
    """Write the errors of an evaluated split into `folder`, completely or not at all.

    Args:
        detector: was evaluated on the split.
        split: the name of its folder in the run's `evaluation`.
        folder: to create; see above.
        records: a folder of records; images whose files are gone are written from there.
        data: the folder that holds the images; None for the one that the records were made from.
        limit: the highest number of errors of each kind; None for all.
        overwrite: whether to replace a `folder` that was written before.

    Raises:
        ConfigError: the split was not evaluated, or by another version; `folder` exists; `data` does not; or there
            are neither `data` nor records.
        DataError: `folder` exists and is something else.
    """
    if folder.exists() and not overwrite:
        raise ConfigError(f"{folder} exists; replace it with --overwrite, or choose another place with --output")
    predictions, evaluated = _evaluated(detector, split)
    opened = open_records(records) if (records / MANIFEST).is_file() else None
    data, notes = _data_folder(data, opened, records), _notes(detector, split, evaluated, opened)
    errors = find(predictions)
    shown = errors[errors["rank"] <= limit] if limit else errors

    def stored(paths: set[str]) -> Iterable[tuple[str, bytes]]:
        if opened is None or evaluated.split not in opened.splits:
            return ()
        return queries.encoded_images(opened, evaluated.split, paths)

    with atomic.folder(folder, marker=TABLE) as partial:
        counts = _write(partial, f"Errors of {detector.name} on {split}", shown, data, stored)
    if counts["copied"]:
        notes.append(f"{count_of(counts['copied'], 'image')} not in {data}, written from {records}")
    if counts["missing"]:
        notes.append(
            f"{count_of(counts['missing'], 'image')} not in {data}, and without a link; say where with --data"
        )
    return CollectedErrors(
        run=detector.name,
        split=split,
        folder=str(folder),
        images=len(predictions),
        unsure=int((predictions["verdict"] == "unsure").sum()),
        mistakes=_count_by_kind(errors),
        shown=_count_by_kind(shown),
        **counts,
        notes=notes,
    )


def find(predictions: pd.DataFrame) -> pd.DataFrame:
    """The errors among predictions, one kind after the other, the most confident of each first.

    An unsure verdict is not an error.

    Args:
        predictions: as in `EvaluationReport`.

    Returns:
        A row for each error: the image's columns, its kind (`mistake`, one of `KINDS`), its `rank` in its kind,
        from 1, and the `confidence`, the probability of the wrong answer. An image can have two rows, one for its
        verdict and one for its category.
    """
    fake = predictions["fake_probability"]
    wrong = {
        "real-called-fake": (_has_verdict(predictions, "real", "fake"), fake),
        "fake-called-real": (_has_verdict(predictions, "fake", "real"), 1 - fake),
    }
    if "true_category" in predictions:
        truth = predictions["true_category"]
        is_wrong = (truth != "") & (truth != predictions["predicted_category"])
        wrong["wrong-category"] = (is_wrong, predictions["category_probability"])
    parts = [
        predictions.assign(mistake=kind, confidence=confidence)[is_wrong]
        .sort_values("confidence", ascending=False, kind="stable")
        .assign(rank=lambda part: range(1, len(part) + 1))
        for kind, (is_wrong, confidence) in wrong.items()
    ]
    return pd.concat(parts, ignore_index=True).reindex(columns=_COLUMNS)


def _has_verdict(predictions: pd.DataFrame, label: str, verdict: str) -> pd.Series:
    return (predictions["label"] == LABELS.index(label)) & (predictions["verdict"] == verdict)


def _count_by_kind(errors: pd.DataFrame) -> dict[str, int]:
    return {kind: int((errors["mistake"] == kind).sum()) for kind in KINDS}


# --- the input -------------------------------------------------------------------------------------------------


def _evaluated(detector: Detector, split: str) -> tuple[pd.DataFrame, _Evaluated]:
    """The predictions of a split, and what they were made with."""
    predictions = comparison.stored_predictions(detector, split)
    folder = detector.folder / EVALUATION / split
    remedy = f"evaluate again: ddk evaluate --run {detector.folder} --split {split}"
    required = _REQUIRED + (_REQUIRED_WITH_CATEGORIES if detector.categories else [])
    if missing := [name for name in required if name not in predictions]:
        raise ConfigError(f"{folder}/predictions.csv has no column {', '.join(missing)}; {remedy}")
    path = folder / "metrics.json"
    if not path.is_file():
        raise ConfigError(f"{path} is missing; {remedy}")

    def parse(metrics: dict[str, Any]) -> _Evaluated:
        return _Evaluated(metrics["split"], metrics["records"], metrics["operating_point"])

    return predictions, read_json(path, parse, remedy=remedy)


def _data_folder(data: Path | None, opened: Records | None, records: Path) -> Path:
    """The folder that the images' paths are relative to."""
    if data is not None:
        if not data.is_dir():
            raise ConfigError(f"{data} is not a folder; give the one that holds the images with --data")
        return data
    if opened is None:
        raise ConfigError(f"there are no records in {records} to say where the images are; give --records or --data")
    return Path(json.loads((records / MANIFEST).read_text())["source"])


def _notes(detector: Detector, split: str, evaluated: _Evaluated, opened: Records | None) -> list[str]:
    notes = []
    if evaluated.operating_point != detector.point.to_dict():
        notes.append(
            f"the thresholds have been fitted again since; for verdicts with them: ddk evaluate --split {split}"
        )
    if opened and evaluated.split in opened.splits and evaluated.records != opened.fingerprint:
        notes.append("the split was evaluated on other records than these: images may have changed since")
    return notes


# --- the folder ------------------------------------------------------------------------------------------------


def _write(
    folder: Path,
    title: str,
    errors: pd.DataFrame,
    data: Path,
    stored: Callable[[set[str]], Iterable[tuple[str, bytes]]],
) -> dict[str, int]:
    """Write links, `errors.csv` and `index.html` into an existing `folder`.

    Args:
        folder: to write into.
        title: of the page.
        errors: as `find` returns them.
        data: the folder that the images' paths are relative to.
        stored: from paths of files that are gone to path and encoded image of those in the records.

    Returns:
        The number of images that are `linked`, `copied` from the records, and `missing`.
    """
    paths, width = set(errors["path"]), max(3, len(str(len(errors))))
    present = {path for path in paths if (data / path).is_file()}
    rows, links, copied = dict(list(errors.groupby("path"))), pd.Series("", errors.index, dtype=object), 0
    for path, encoded in chain(((path, None) for path in present), stored(paths - present)):
        copied += encoded is not None
        columns = (rows[path][name] for name in ("mistake", "rank", "confidence"))
        for index, kind, rank, confidence in zip(rows[path].index, *columns, strict=True):
            link = f"{kind}/{rank:0{width}}_{confidence:.3f}_{_name(path, encoded)}"
            _put(folder / link, data / path, encoded)
            links[index] = link
    table = errors.assign(link=links)
    spreadsheets.harmless_table(table).to_csv(folder / TABLE, index=False, errors="surrogateescape")
    page = Document(title, _about(table), list(_blocks(folder, table)))
    (folder / PAGE).write_text(html.render(page), encoding="utf-8")
    return {"linked": len(present), "copied": copied, "missing": len(paths) - len(present) - copied}


def _put(link: Path, original: Path, encoded: bytes | None) -> None:
    link.parent.mkdir(exist_ok=True)
    if encoded is None:
        link.symlink_to(os.path.abspath(original))  # absolute, so that it can be moved to a feedback folder
    else:
        link.write_bytes(encoded)


def _name(path: str, encoded: bytes | None) -> str:
    """The file's own name, cut if too long, with the suffix of its format if it is written from the records."""
    name = Path(path).name
    if encoded is not None and (suffix := image_format(encoded)) not in (_format_of_suffix(name), "unknown"):
        name = f"{name}.{suffix}"
    as_bytes = os.fsencode(name)
    return name if len(as_bytes) <= _MAX_NAME else as_bytes[-_MAX_NAME:].decode(errors="ignore")


def _format_of_suffix(name: str) -> str:
    suffix = Path(name).suffix.lower().removeprefix(".")
    return {"jpg": "jpeg", "jpe": "jpeg", "jfif": "jpeg"}.get(suffix, suffix)


# --- the page --------------------------------------------------------------------------------------------------


def _about(table: pd.DataFrame) -> str:
    return (
        f"{count_of(table['path'].nunique(), 'image')}, the most confident errors first; {TABLE} has a row for each"
    )


def _blocks(folder: Path, table: pd.DataFrame) -> Iterator[Block]:
    if table.empty:
        yield Paragraph("No verdict and no category is wrong.")
    for kind, title in KINDS.items():
        rows = table[table["mistake"] == kind]
        if len(rows):
            yield Heading(f"{title} ({len(rows):,})")
            yield Pictures(_pictures(folder, rows[:_ON_PAGE]))
        if len(rows) > _ON_PAGE:
            yield Paragraph(f"The other {len(rows) - _ON_PAGE:,} are in the folder {kind}.", is_dim=True)


def _pictures(folder: Path, rows: pd.DataFrame) -> list[Picture]:
    pictures = []
    for row in rows.to_dict("records"):
        is_category = row["mistake"] == "wrong-category"
        detail = f"{row['true_category']}, called {row['predicted_category']}" if is_category else row["source"]
        text = f"{row['rank']}: {row['confidence']:.1%} sure" + (f"; {detail}" if detail else "")
        pictures.append(Picture(row["path"], text, _thumbnail(folder, row["link"])))
    return pictures


def _thumbnail(folder: Path, link: str) -> bytes | None:
    try:
        return thumbnail(read_file(folder / link)) if link else None
    except PILLOW_ERRORS:  # the file has changed since it was evaluated
        return None
