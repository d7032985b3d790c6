"""What a run is wrong about: the misclassified images of a split, as a folder to look through.

artifacts/errors/<run>/<split>/
    real-called-fake/       links to the images, the most confident mistakes first: 001_0.987_photo.jpg
    fake-called-real/
    wrong-category/
    errors.csv              a row for each
    index.html              a page that shows the first of each
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import pandas as pd

from ddkeras.evaluation import comparison
from ddkeras.exceptions import ConfigError
from ddkeras.reporting import html
from ddkeras.reporting.document import Block, Document, Heading, Paragraph, Picture, Pictures
from ddkeras.runs.run import EVALUATION, Run
from pipelines import atomic
from pipelines.datasets.examples import LABELS
from pipelines.media.headers import image_format, read_file
from pipelines.media.pillow import PILLOW_ERRORS
from pipelines.media.thumbnails import thumbnail
from pipelines.records import queries
from pipelines.records.store import MANIFEST, Records, open_records

TABLE = "errors.csv"
PAGE = "index.html"
KINDS = {
    "real-called-fake": "Reals that are called fake",
    "fake-called-real": "Fakes that are called real",
    "wrong-category": "Images that are put into a wrong category",
}
_COLUMNS = ["mistake", "rank", "confidence", "path", "label", "verdict", "fake_probability"]
_COLUMNS += ["category", "predicted_category", "source"]
_NEEDED = ["path", "source", "label", "fake_probability", "verdict"]
_OF_CATEGORIES = ["category", "predicted_category", "category_probability"]
_SHOWN = 60  # images of each kind on the page
_NAME = 120  # bytes that are kept of a file's name; file systems take 255


def collect(
    run: Run,
    split: str,
    folder: Path,
    *,
    records: Path,
    data: Path | None = None,
    limit: int | None = None,
    overwrite: bool = False,
) -> dict:
    """Put what a run is wrong about in a split that was evaluated into `folder`, whole or not at all.

    Args:
        split: the name of its folder in the run's `evaluation`.
        folder: to be made; see above.
        records: a folder of records; images whose files are gone are written out from there.
        data: where the images lie; None for where the records were made of them.
        limit: of each kind at most so many.
        overwrite: whether a `folder` that was made so before is replaced.

    Returns:
        `run`, `split`, `folder`; how many `images` there are and how many are `unsure`; of each of `KINDS` how many
        `mistakes` there are and how many of them are `shown`; how many of the images shown are `linked`, `copied`
        from the records and `missing`; and `notes`, sentences.

    Raises:
        ConfigError: the split was not evaluated, or by another version; `folder` exists; `data` does not; or there
            are neither `data` nor records.
        DataError: `folder` is not one that was made so.
    """
    if folder.exists() and not overwrite:
        raise ConfigError(f"{folder} exists; replace it with --overwrite, or give another place: --output")
    predictions, about = _evaluated(run, split)
    opened = open_records(records) if (records / MANIFEST).is_file() else None
    data, notes = _data(data, opened, records), _notes(run, split, about, opened)
    found = find(predictions)
    shown = found[found["rank"] <= limit] if limit else found

    def stored(paths: set[str]) -> Iterable[tuple[str, bytes]]:
        is_theirs = opened is not None and about["split"] in opened.splits
        return queries.encoded_images(opened, about["split"], paths) if is_theirs else ()

    with atomic.folder(folder, marker=TABLE) as partial:
        counts = _write(partial, f"{run.name}: what it is wrong about in {split}", shown, data, stored)
    if counts["copied"]:
        notes.append(f"{counts['copied']} images are not in {data}: they were written out from {records}")
    if counts["missing"]:
        notes.append(f"{counts['missing']} images are not in {data}, and have no link; say where they are: --data")
    return {
        "run": run.name,
        "split": split,
        "folder": str(folder),
        "images": len(predictions),
        "unsure": int((predictions["verdict"] == "unsure").sum()),
        "mistakes": _counted(found),
        "shown": _counted(shown),
        **counts,
        "notes": notes,
    }


def find(predictions: pd.DataFrame) -> pd.DataFrame:
    """The mistakes among predictions, one kind after the other, the most confident of each first.

    Args:
        predictions: as in `evaluation.Report`.

    Returns:
        For each mistake what is known of the image, its kind (`mistake`, one of `KINDS`), its `rank` among these,
        from 1, and the `confidence`: the probability of the answer that is wrong. An image can have two rows, one for
        its verdict and one for its category. A verdict that is unsure is no mistake.
    """
    fake = predictions["fake_probability"]
    wrong = {
        "real-called-fake": (_are_called(predictions, "real", "fake"), fake),
        "fake-called-real": (_are_called(predictions, "fake", "real"), 1 - fake),
    }
    if "category" in predictions:
        truth = predictions["category"]
        is_other = (truth != "") & (truth != predictions["predicted_category"])
        wrong["wrong-category"] = (is_other, predictions["category_probability"])
    parts = [
        predictions.assign(mistake=kind, confidence=confidence)[is_wrong]
        .sort_values("confidence", ascending=False, kind="stable")
        .assign(rank=lambda part: range(1, len(part) + 1))
        for kind, (is_wrong, confidence) in wrong.items()
    ]
    return pd.concat(parts, ignore_index=True).reindex(columns=_COLUMNS)


def _are_called(predictions: pd.DataFrame, label: str, verdict: str) -> pd.Series:
    return (predictions["label"] == LABELS.index(label)) & (predictions["verdict"] == verdict)


def _counted(mistakes: pd.DataFrame) -> dict[str, int]:
    return {kind: int((mistakes["mistake"] == kind).sum()) for kind in KINDS}


# --- what there is ---------------------------------------------------------------------------------------------


def _evaluated(run: Run, split: str) -> tuple[pd.DataFrame, dict]:
    """The predictions of a split, and what they were made of: `split`, `records` and `operating_point`."""
    predictions = comparison.stored_predictions(run, split)
    folder = run.folder / EVALUATION / split
    again = f"evaluate again: ddk evaluate --run {run.folder} --split {split}"
    needed = _NEEDED + (_OF_CATEGORIES if run.categories else [])
    if missing := [name for name in needed if name not in predictions]:
        raise ConfigError(f"{folder}/predictions.csv has no column {', '.join(missing)}; {again}")
    try:
        metrics = json.loads((folder / "metrics.json").read_text())
        return predictions, {name: metrics[name] for name in ("split", "records", "operating_point")}
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{folder}/metrics.json is missing, damaged or of another version; {again}") from error


def _data(data: Path | None, opened: Records | None, records: Path) -> Path:
    """The folder in which the images' paths are."""
    if data is not None:
        if not data.is_dir():
            raise ConfigError(f"{data} is not a folder; give the one that holds the images: --data")
        return data
    if opened is None:
        raise ConfigError(f"no records in {records} say where the images are; give --records or --data")
    return Path(json.loads((records / MANIFEST).read_text())["source"])


def _notes(run: Run, split: str, about: dict, opened: Records | None) -> list[str]:
    notes = []
    if about["operating_point"] != run.point.to_dict():
        notes.append(f"the limits were fitted anew since; for verdicts by these: ddk evaluate --split {split}")
    if opened and about["split"] in opened.splits and about["records"] != opened.fingerprint:
        notes.append("the records are not those that were measured: images may have changed since")
    return notes


# --- the folder ------------------------------------------------------------------------------------------------


def _write(
    folder: Path, title: str, mistakes: pd.DataFrame, data: Path, stored: Callable[[set[str]], Iterable]
) -> dict[str, int]:
    """Write links, `errors.csv` and `index.html` into an existing `folder`.

    Args:
        data: the folder in which the images' paths are.
        stored: of paths that are not in it, path and encoded image of those that are known.

    Returns:
        How many images, each counted once, are `linked`, `copied` from what is stored, and `missing`.
    """
    paths, width = set(mistakes["path"]), max(3, len(str(len(mistakes))))
    there = {path for path in paths if (data / path).is_file()}
    rows, links, copied = dict(list(mistakes.groupby("path"))), pd.Series("", mistakes.index, dtype=object), 0
    for path, encoded in chain(((path, None) for path in there), stored(paths - there)):
        copied += encoded is not None
        for row in rows[path].itertuples():
            link = f"{row.mistake}/{row.rank:0{width}}_{row.confidence:.3f}_{_name(path, encoded)}"
            _put(folder / link, data / path, encoded)
            links[row.Index] = link
    table = mistakes.assign(link=links)
    table.to_csv(folder / TABLE, index=False, errors="surrogateescape")
    text = html.render(Document(title, _about(table), list(_blocks(folder, table))))
    (folder / PAGE).write_text(text, encoding="utf-8")
    return {"linked": len(there), "copied": copied, "missing": len(paths) - len(there) - copied}


def _put(link: Path, original: Path, encoded: bytes | None) -> None:
    link.parent.mkdir(exist_ok=True)
    if encoded is None:
        link.symlink_to(os.path.abspath(original))  # so that it holds, too, once it is moved to where feedback is
    else:
        link.write_bytes(encoded)


def _name(path: str, encoded: bytes | None) -> str:
    """What a file is called after its rank: as it was, but not too long, and with a suffix for what is stored."""
    name = Path(path).name
    if encoded is not None and (form := image_format(encoded)) not in (_format(name), "unknown"):
        name = f"{name}.{form}"
    as_bytes = os.fsencode(name)
    return name if len(as_bytes) <= _NAME else as_bytes[-_NAME:].decode(errors="ignore")


def _format(name: str) -> str:
    """The format that a file's name tells."""
    suffix = Path(name).suffix.lower().removeprefix(".")
    return {"jpg": "jpeg", "jpe": "jpeg", "jfif": "jpeg"}.get(suffix, suffix)


# --- the page --------------------------------------------------------------------------------------------------


def _about(table: pd.DataFrame) -> str:
    return f"{table['path'].nunique():,} images, the most confident mistakes first; {TABLE} has a row for each"


def _blocks(folder: Path, table: pd.DataFrame) -> Iterator[Block]:
    if table.empty:
        yield Paragraph("No verdict and no category is wrong.")
    for kind, title in KINDS.items():
        rows = table[table["mistake"] == kind]
        if len(rows):
            yield Heading(f"{title} ({len(rows):,})")
            yield Pictures([_picture(folder, row) for row in rows[:_SHOWN].itertuples()])
        if len(rows) > _SHOWN:
            yield Paragraph(f"The other {len(rows) - _SHOWN:,} are in the folder {kind}.", is_dim=True)


def _picture(folder: Path, row: tuple) -> Picture:
    said = f"{row.category}, called {row.predicted_category}" if row.mistake == "wrong-category" else row.source
    text = f"{row.rank}: {row.confidence:.1%} sure" + (f"; {said}" if said else "")
    return Picture(row.path, text, _small(folder, row.link))


def _small(folder: Path, link: str) -> bytes | None:
    try:
        return thumbnail(read_file(folder / link)) if link else None
    except PILLOW_ERRORS:  # another file by now than the one that was measured
        return None
