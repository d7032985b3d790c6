"""Writing predictions to a table on disk, resumable after an interruption.

The suffix selects the format: .csv, .jsonl (one JSON object per line) or .parquet. Until the table NAME is complete,
the folder .NAME-unfinished beside it holds
    begun.json      the settings it was started with
    images.jsonl    the paths of all images, in the order of the rows
    final           the rows so far; for Parquet, which cannot be appended to, as JSON lines in rows.jsonl
    done.json       how many rows are safely on disk, and their size in bytes
"""

import csv
import dataclasses
import importlib.util
import io
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ddkeras.exceptions import ConfigError
from ddkeras.interrupts import Interrupted, StopRequest
from pipelines import atomic, spreadsheets

if TYPE_CHECKING:
    from ddkeras.inference.prediction import Prediction

FORMATS = ("scores", "artifact", "artifact-confidence")
_SUFFIXES = (".csv", ".jsonl", ".parquet")
_FINAL = "final"
_CHECKPOINT_SECONDS = 1.0  # between two checkpoints
_ROW_GROUP = 10_000  # rows of Parquet
_MAX_DIFFERENCE = 100  # characters of a setting that an error message quotes
_Progress = Callable[[int, int], None]  # of images done, and of all
_PredictBatches = Callable[[Iterable[str]], Iterable[list["Prediction"]]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: its header.
        kind: the type of its values that are not None: str, float, int, or dict by `provenance.FIELDS`, which a
            CSV file leaves out.
        value: gets the value of a prediction.
    """

    name: str
    kind: type
    value: Callable[["Prediction"], str | float | dict[str, Any] | None]


def columns(form: str, categories: list[str]) -> list[Column]:
    """The columns of a table.

    Args:
        form: one of `FORMATS`. `scores` has all fields of a prediction. `artifact` is the format of the ArtiFact
            data sets: image_path, label (0 real, 1 fake) and class; `artifact-confidence` adds their probabilities.
            The label is 1 from a probability of 0.5, whatever the verdict, as it cannot be unsure; it is empty for
            errors.
        categories: the class names of the detector.
    """
    if form == "scores":
        return [
            Column("path", str, lambda row: row.path),
            Column("fake_probability", float, lambda row: row.fake_probability),
            Column("verdict", str, lambda row: row.verdict),
            Column("reason", str, lambda row: row.reason),
            Column("predicted_category", str, lambda row: row.category),
            Column("category_probability", float, lambda row: row.category_probability),
            *[_probability_column(name) for name in categories],
            Column("score_shift", float, lambda row: row.score_shift),
            Column("spread", float, lambda row: row.spread),
            Column("error", str, lambda row: row.error),
            Column("provenance", str, lambda row: row.provenance),
            Column("provenance_fields", dict, lambda row: row.provenance_fields or None),
        ]
    labels = [
        Column("image_path", str, lambda row: row.path),
        Column("label", int, _label),
        Column("class", str, lambda row: row.category),
    ]
    confidences = [
        Column("label_confidence", float, _label_confidence),
        Column("class_confidence", float, lambda row: row.category_probability),
    ]
    return labels if form == "artifact" else labels + confidences


def _probability_column(category: str) -> Column:
    return Column(f"probability_{category}", float, lambda row: row.category_probabilities.get(category))


def _label(row: "Prediction") -> int | None:
    return None if row.fake_probability is None else int(row.fake_probability >= 0.5)


def _label_confidence(row: "Prediction") -> float | None:
    return None if row.fake_probability is None else max(row.fake_probability, 1 - row.fake_probability)


def check(output: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Check that a table can be written, before anything is loaded or scored.

    Args:
        output: the file to write.
        resume: continue an unfinished table.
        overwrite: replace an existing table, finished or not.

    Raises:
        ConfigError: its suffix is unknown, it would replace something, or there is nothing to resume.
        DataError: see `atomic.check_place`.
    """
    if output.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"{output} must end in one of {', '.join(_SUFFIXES)}, which selects the format")
    if _is_parquet(output) and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(f'{output} needs pyarrow; install it with: pip install "ddkeras[parquet]"')
    atomic.check_place(output)
    if output.is_dir():
        raise ConfigError(f"{output} is a folder; name a file for the table")
    if resume and overwrite:
        raise ConfigError("--resume continues a table and --overwrite starts over; give one of them")
    unfinished = _UnfinishedTable(atomic.work_folder(output), output)
    if resume and not unfinished.is_started:
        raise ConfigError(f"there is no unfinished {output} to resume; start it without --resume")
    if unfinished.is_started and not (resume or overwrite):
        raise ConfigError(
            f"{output} is unfinished, {unfinished}; continue with --resume, or start over with --overwrite"
        )
    if output.exists() and not (resume or overwrite):
        raise ConfigError(f"{output} exists; replace it with --overwrite, or name another with --output")


def write(
    output: Path,
    predict_batches: _PredictBatches,
    files: Iterable[str],
    *,
    columns: Sequence[Column],
    settings: dict[str, Any],
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[], AbstractContextManager[_Progress]] = lambda: nullcontext(lambda done, total: None),
) -> dict[str, Any]:
    """Write one row per image to `output`, which appears, or is replaced, when all are written.

    Rows are flushed to disk once a second. However the process ends, `resume` continues from there, and the result
    is identical, byte for byte, to that of an uninterrupted run.

    Args:
        output: see `check`, which is repeated here, as time may have passed.
        predict_batches: maps paths to batches of predictions, in order; see `prediction.predict_batches`.
        files: the paths of the images; ignored with `resume`, which uses the original ones.
        columns: see `columns`.
        settings: everything else that determines the rows, as JSON; `resume` requires the same settings.
        resume: see `check`.
        overwrite: see `check`.
        progress: a context manager that yields a function, called with (done, total) at the start and after each
            batch.

    Returns:
        `images`, `errors` and `verdicts` (counts), and for a single image its `prediction`.

    Raises:
        ConfigError: see `check`; or the settings have changed.
        DataError: another process is writing the table.
        Interrupted: a signal asked to stop; the message says how to continue.
    """
    if output.suffix.lower() == ".csv":
        columns = [column for column in columns if column.kind is not dict]
    settings = settings | {"columns": ", ".join(column.name for column in columns)}
    with atomic.resumable_file(output) as work:
        check(output, resume=resume, overwrite=overwrite)
        unfinished = _UnfinishedTable(work, output, columns)
        try:
            with StopRequest() as stop:
                if resume:
                    unfinished.check(settings)
                    _log.info("%s already", unfinished)
                else:
                    unfinished.start(settings, files)
                with progress() as report:
                    unfinished.fill(predict_batches, report, stop)
            if _is_parquet(output):
                _write_parquet(unfinished.rows, work / _FINAL, columns)
        except KeyboardInterrupt as error:
            raise Interrupted(f"{unfinished}; continue with the same command and --resume") from error
        finally:
            if not unfinished.is_started:
                unfinished.clear()
        return unfinished.summary()


class _UnfinishedTable:
    """The folder of a table that is not complete yet."""

    def __init__(self, folder: Path, output: Path, columns: Sequence[Column] = ()):
        self.rows = folder / ("rows.jsonl" if _is_parquet(output) else _FINAL)
        self._output, self._columns, self._is_csv = output, columns, output.suffix.lower() == ".csv"
        self._settings, self._images, self._checkpoint = (
            folder / name for name in ("begun.json", "images.jsonl", "done.json")
        )
        self._total = self._done = self._bytes = 0
        self._verdicts: Counter[str] = Counter()
        self._last: Prediction | None = None
        self._saved_at = 0.0
        if self.is_started:
            checkpoint = _read_json(self._checkpoint)
            self._total = _read_json(self._settings)["images"]
            self._done, self._bytes = checkpoint["rows"], checkpoint["bytes"]
            self._verdicts = Counter(checkpoint["verdicts"])

    @property
    def is_started(self) -> bool:
        """Whether there is something to resume; not if a power failure left a file empty."""
        return bool(_read_json(self._settings) and _read_json(self._checkpoint) and self.rows.is_file())

    def __str__(self) -> str:
        return f"{self._done:,} of {self._total:,} images are scored"

    def summary(self) -> dict[str, Any]:
        """The result of `write`."""
        verdicts = dict(sorted(self._verdicts.items()))
        summary = {"images": self._done, "errors": verdicts.pop("", 0), "verdicts": verdicts}
        if self._last and self._done == 1:
            summary["prediction"] = dataclasses.asdict(self._last)
        return summary

    def start(self, settings: dict[str, Any], files: Iterable[str]) -> None:
        """Write the settings, the paths and an empty table, replacing what was there."""
        self.clear()
        self._total = 0
        with self._images.open("w") as file:
            for self._total, path in enumerate(files, start=1):
                file.write(json.dumps(path) + "\n")
        header = [column.name for column in self._columns]
        self._done, self._verdicts = 0, Counter()
        self._bytes = self.rows.write_bytes(_csv([header]) if self._is_csv else b"")
        self._save_checkpoint()
        with atomic.file(self._settings) as partial:  # last, as it marks the table as started
            partial.write_text(json.dumps({"images": self._total, "with": settings}, indent=2) + "\n")

    def clear(self) -> None:
        """Remove all files."""
        for path in (self._settings, self._images, self._checkpoint, self.rows):
            path.unlink(missing_ok=True)

    def check(self, settings: dict[str, Any]) -> None:
        """Check that the table can be resumed with these settings.

        Raises:
            ConfigError: it was started with other settings, or is damaged.
        """
        before = json.loads(self._settings.read_text())["with"]
        for name in before | settings:
            if before.get(name) != settings.get(name):
                difference = f"{name} {before.get(name)}, not {settings.get(name)}"
                difference = difference if len(difference) <= _MAX_DIFFERENCE else f"other {name}"
                raise ConfigError(
                    f"{self._output} was started with {difference}; give the same, or start over with --overwrite"
                )
        if self.rows.stat().st_size < self._bytes:
            raise ConfigError(f"{self.rows} has lost rows; start over with --overwrite")

    def fill(self, predict_batches: _PredictBatches, progress: _Progress, stop: StopRequest) -> None:
        """Append the missing rows.

        Raises:
            Interrupted: a signal asked to stop.
        """
        progress(self._done, self._total)
        with self.rows.open("r+b") as file:
            file.truncate(self._bytes)  # rows after the checkpoint may be incomplete
            file.seek(self._bytes)
            try:
                for batch in predict_batches(islice(self._paths(), self._done, None)):
                    self._append(batch, file)
                    progress(self._done, self._total)
                    if stop.requested and self._done < self._total:
                        raise Interrupted
            finally:
                self._save_checkpoint(file)

    def _paths(self) -> Iterator[str]:
        with self._images.open() as file:
            yield from map(json.loads, file)

    def _append(self, batch: list["Prediction"], file: BinaryIO) -> None:
        written = file.write(self._encode(batch))
        self._last = batch[-1]
        self._done, self._bytes = self._done + len(batch), self._bytes + written  # together: a signal may come
        self._verdicts.update(row.verdict or "" for row in batch)
        if time.monotonic() - self._saved_at > _CHECKPOINT_SECONDS:
            self._save_checkpoint(file)

    def _encode(self, batch: list["Prediction"]) -> bytes:
        rows = [[column.value(row) for column in self._columns] for row in batch]
        if self._is_csv:
            return _csv(rows)
        return b"".join(_json_line(self._columns, row) for row in rows)

    def _save_checkpoint(self, file: BinaryIO | None = None) -> None:
        """Write how many rows there are, after flushing them to disk."""
        if file:
            file.flush()
            os.fsync(file)
        checkpoint = {"rows": self._done, "bytes": self._bytes, "verdicts": dict(self._verdicts)}
        with atomic.file(self._checkpoint) as partial:
            partial.write_text(json.dumps(checkpoint) + "\n")
        self._saved_at = time.monotonic()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _is_parquet(output: Path) -> bool:
    return output.suffix.lower() == ".parquet"


def _csv(rows: Iterable[list]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([spreadsheets.harmless(cell) for cell in row] for row in rows)
    return text.getvalue().encode("utf-8", errors="surrogateescape")  # the bytes that paths have on disk


def _json_line(columns: Sequence[Column], row: list) -> bytes:
    # Bytes of a path that are not UTF-8 become a replacement character, or readers would reject the whole table.
    valid = (os.fsencode(value).decode(errors="replace") if isinstance(value, str) else value for value in row)
    return json.dumps({column.name: value for column, value in zip(columns, valid, strict=True)}).encode() + b"\n"


def _write_parquet(lines: Path, final: Path, columns: Sequence[Column]) -> None:
    import pyarrow as pa  # noqa: PLC0415  an extra
    from pyarrow import parquet  # noqa: PLC0415

    from pipelines.media.provenance import FIELDS  # noqa: PLC0415  loads NumPy and Pillow

    field_types = {str: pa.string(), bool: pa.bool_(), list: pa.list_(pa.string())}
    fields = pa.struct([(name, field_types[kind]) for name, kind in FIELDS.items()])
    types = {str: pa.string(), float: pa.float32(), int: pa.int8(), dict: fields}
    schema = pa.schema([(column.name, types[column.kind]) for column in columns])
    with lines.open() as file, parquet.ParquetWriter(final, schema) as writer:
        while rows := [json.loads(line) for line in islice(file, _ROW_GROUP)]:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
