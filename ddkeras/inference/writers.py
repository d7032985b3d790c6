"""What was predicted, as a table on disk: begun, gone on with and finished.

The suffix of its name says what it is: .csv, .jsonl (a JSON object in each line) or .parquet. While it is not
finished there is, beside NAME, a folder .NAME-unfinished with
    begun.json      what it was begun with
    images.jsonl    the paths of all images, in the order of the rows
    final           the rows that there are; of Parquet, to which none can be added, as JSON lines in rows.jsonl
    done.json       how many of them are on disk for sure, and at which byte they end
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
from pipelines import atomic

if TYPE_CHECKING:
    from ddkeras.inference.prediction import Prediction

FORMATS = ("scores", "artifact", "artifact-confidence")
_SUFFIXES = (".csv", ".jsonl", ".parquet")
_FINAL, _NOTES = "final", ("begun.json", "images.jsonl", "done.json")
_SECONDS = 1.0  # between two notes of how far it is
_ROW_GROUP = 10_000  # rows of Parquet
_SAYABLE = 100  # letters of a difference; those of a thousand paths are no line to read
_Move = Callable[[int, int], None]
_Batches = Callable[[Iterable[str]], Iterable[list["Prediction"]]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Column:
    """One column: its name, what it holds (str, float or int, where it is not None), and what that is of an image."""

    name: str
    kind: type
    of: Callable[["Prediction"], Any]


def columns(form: str, categories: list[str]) -> list[Column]:
    """The columns of a table.

    Args:
        form: one of `FORMATS`. `scores` is all that is known. `artifact` is how the ArtiFact data sets list images:
            image_path, label (0 real, 1 fake) and class; `artifact-confidence` adds the probability of both. A label
            has no third value, so it is 1 from a probability of 0.5 on, whatever the verdict; where there is an
            error, it is empty.
        categories: those of the detector.
    """
    if form == "scores":
        return [
            Column("path", str, lambda one: one.path),
            Column("fake_probability", float, lambda one: one.fake_probability),
            Column("verdict", str, lambda one: one.verdict),
            Column("category", str, lambda one: one.category),
            Column("category_probability", float, lambda one: one.category_probability),
            *[_probability_column(name) for name in categories],
            Column("stability", float, lambda one: one.stability),
            Column("spread", float, lambda one: one.spread),
            Column("error", str, lambda one: one.error),
            Column("provenance", str, lambda one: one.provenance),
        ]
    listed = [
        Column("image_path", str, lambda one: one.path),
        Column("label", int, _label),
        Column("class", str, lambda one: one.category),
    ]
    confidences = [
        Column("label_confidence", float, _label_confidence),
        Column("class_confidence", float, lambda one: one.category_probability),
    ]
    return listed if form == "artifact" else listed + confidences


def _probability_column(category: str) -> Column:
    return Column(f"probability_{category}", float, lambda one: one.category_probabilities.get(category))


def _label(one: "Prediction") -> int | None:
    return None if one.fake_probability is None else int(one.fake_probability >= 0.5)


def _label_confidence(one: "Prediction") -> float | None:
    return None if one.fake_probability is None else max(one.fake_probability, 1 - one.fake_probability)


def check(output: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Look whether a table can be written, before anything is loaded or scored.

    Args:
        output: its file.
        resume: go on with what was begun there.
        overwrite: replace what is there, finished or not.

    Raises:
        ConfigError: it cannot, or something is there that would be lost, or nothing that could be gone on with.
    """
    if output.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"{output} must end in one of {', '.join(_SUFFIXES)}, which says how it is written")
    if _is_parquet(output) and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(f'{output} needs pyarrow; install it with: pip install "ddkeras[parquet]"')
    nearest = next(folder for folder in output.absolute().parents if os.path.lexists(folder))
    if not nearest.is_dir():  # nor a link to a folder that is gone
        raise ConfigError(f"{nearest} is not a folder; choose another place for {output}")
    if output.is_dir():
        raise ConfigError(f"{output} is a folder; name a file for the table")
    if resume and overwrite:
        raise ConfigError("--resume goes on and --overwrite begins anew; leave out one")
    unfinished = _Unfinished(atomic.work_folder(output), output)
    if resume and not unfinished.is_begun:
        raise ConfigError(f"there is no unfinished {output} to go on with; begin it without --resume")
    if unfinished.is_begun and not (resume or overwrite):
        raise ConfigError(
            f"{output} is unfinished, {unfinished}; go on with --resume, or begin anew with --overwrite"
        )
    if output.exists() and not (resume or overwrite):
        raise ConfigError(f"{output} exists; replace it with --overwrite, or name another with --output")


def write(
    output: Path,
    batches: _Batches,
    files: Iterable[str],
    *,
    columns: Sequence[Column],
    begun_with: dict[str, Any],
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[], AbstractContextManager[_Move]] = lambda: nullcontext(lambda done, total: None),
) -> dict:
    """Write one row for each image to `output`, which appears when all are written and replaces what was there.

    Once a second the rows are put on disk. Whatever ends the process, `resume` goes on from there, and the result
    is the same, byte by byte, as if nothing had.

    Args:
        output, resume, overwrite: as in `check`, which is asked once more: time may have passed since.
        batches: from paths to what is predicted of them, in their order; see `prediction.predict_batches`.
        files: the paths; with `resume` they are those that it was begun with, and these are not looked at.
        begun_with: all else that decides the rows, as JSON; with `resume` it has to be the same as then.
        progress: gives a context whose value is called with how many are done, and how many there are; at first,
            and after each batch.

    Returns:
        `images`, `errors`, `verdicts` (how many of each), and for a single image its `prediction`.

    Raises:
        ConfigError: as `check`; or it was begun with something else.
        DataError: another process is writing it.
        Interrupted: it was asked to stop; the message says how far it is, and how to go on.
    """
    begun_with = begun_with | {"columns": ", ".join(column.name for column in columns)}
    with atomic.resumable_file(output) as work:
        check(output, resume=resume, overwrite=overwrite)
        unfinished = _Unfinished(work, output, columns)
        try:
            with StopRequest() as stop:
                if resume:
                    unfinished.check(begun_with)
                    _log.info("%s already", unfinished)
                else:
                    unfinished.begin(begun_with, files)
                with progress() as move:
                    unfinished.fill(batches, move, stop)
            if _is_parquet(output):
                _write_parquet(unfinished.rows, work / _FINAL, columns)
        except KeyboardInterrupt as error:
            raise Interrupted(f"{unfinished}; go on with the same command and --resume") from error
        finally:
            if not unfinished.is_begun:
                unfinished.clear()
        return unfinished.summary()


class _Unfinished:
    """The folder of a table that is not finished."""

    def __init__(self, folder: Path, output: Path, columns: Sequence[Column] = ()):
        self.rows = folder / ("rows.jsonl" if _is_parquet(output) else _FINAL)
        self._is_csv, self._columns = output.suffix.lower() == ".csv", columns
        self._begun, self._images, self._done = (folder / name for name in _NOTES)
        self._output, self._last, self._noted = output, None, 0.0
        self._total, self._number, self._bytes, self._verdicts = 0, 0, 0, Counter()
        if self.is_begun:
            self._total, done = _noted(self._begun)["images"], _noted(self._done)
            self._number, self._bytes, self._verdicts = done["rows"], done["bytes"], Counter(done["verdicts"])

    @property
    def is_begun(self) -> bool:
        """Whether there is something to go on with; notes that a power cut has left empty are nothing."""
        return bool(_noted(self._begun) and _noted(self._done) and self.rows.is_file())

    def __str__(self) -> str:
        return f"{self._number:,} of {self._total:,} images are scored"

    def summary(self) -> dict:
        """As `write` returns it."""
        verdicts = dict(sorted(self._verdicts.items()))
        single = {"prediction": dataclasses.asdict(self._last)} if self._last and self._number == 1 else {}
        return {"images": self._number, "errors": verdicts.pop("", 0), "verdicts": verdicts, **single}

    def begin(self, begun_with: dict[str, Any], files: Iterable[str]) -> None:
        """Put down what is to be done, in place of what was there."""
        self.clear()
        self._total = 0
        with self._images.open("w") as listed:
            for self._total, path in enumerate(files, start=1):
                listed.write(json.dumps(path) + "\n")
        names = [column.name for column in self._columns]
        self._number, self._verdicts = 0, Counter()
        self._bytes = self.rows.write_bytes(_csv([names]) if self._is_csv else b"")
        self._note()
        with atomic.file(self._begun) as partial:  # the last thing: with it, it is begun
            partial.write_text(json.dumps({"images": self._total, "with": begun_with}, indent=2) + "\n")

    def clear(self) -> None:
        """Leave nothing to go on with."""
        for path in (self._begun, self._images, self._done, self.rows):
            path.unlink(missing_ok=True)

    def check(self, begun_with: dict[str, Any]) -> None:
        """Look whether it can be gone on with.

        Raises:
            ConfigError: it was begun with something else, or is damaged.
        """
        before = json.loads(self._begun.read_text())["with"]
        for name in before | begun_with:
            if before.get(name) != begun_with.get(name):
                difference = f"{name} {before.get(name)}, not {begun_with.get(name)}"
                difference = difference if len(difference) <= _SAYABLE else f"other {name}"
                raise ConfigError(
                    f"{self._output} was begun with {difference}; give the same, or begin anew with --overwrite"
                )
        if self.rows.stat().st_size < self._bytes:
            raise ConfigError(f"{self.rows} has lost rows; begin anew with --overwrite")

    def fill(self, batches: _Batches, progress: _Move, stop: StopRequest) -> None:
        """Add the rows that are missing.

        Raises:
            Interrupted: it was asked to stop.
        """
        progress(self._number, self._total)
        with self.rows.open("r+b") as file:
            file.truncate(self._bytes)  # what comes after it may be torn
            file.seek(self._bytes)
            try:
                for batch in batches(islice(self._paths(), self._number, None)):
                    self._add(batch, file)
                    progress(self._number, self._total)
                    if stop.requested and self._number < self._total:
                        raise Interrupted
            finally:
                self._note(file)

    def _paths(self) -> Iterator[str]:
        with self._images.open() as listed:
            yield from map(json.loads, listed)

    def _add(self, batch: list["Prediction"], file: BinaryIO) -> None:
        encoded = self._encoded(batch)
        number, end, self._last = self._number + len(batch), self._bytes + file.write(encoded), batch[-1]
        self._number, self._bytes = number, end  # both, or neither: it may be interrupted anywhere
        self._verdicts.update(one.verdict or "" for one in batch)
        if time.monotonic() - self._noted > _SECONDS:
            self._note(file)

    def _encoded(self, batch: list["Prediction"]) -> bytes:
        rows = [[column.of(one) for column in self._columns] for one in batch]
        if self._is_csv:
            return _csv(rows)
        return b"".join(_json_line(self._columns, row) for row in rows)

    def _note(self, file: BinaryIO | None = None) -> None:
        """Put down how far it is, once that is on disk."""
        if file:
            file.flush()
            os.fsync(file)
        with atomic.file(self._done) as partial:
            partial.write_text(
                json.dumps({"rows": self._number, "bytes": self._bytes, "verdicts": dict(self._verdicts)}) + "\n"
            )
        self._noted = time.monotonic()


def _noted(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _is_parquet(output: Path) -> bool:
    return output.suffix.lower() == ".parquet"


def _csv(rows: Iterable[list]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", errors="surrogateescape")  # paths as the disk has them


def _json_line(columns: Sequence[Column], row: list) -> bytes:
    # What is no UTF-8 in a path becomes a question mark: one such name would keep readers from the whole table.
    proper = (os.fsencode(value).decode(errors="replace") if isinstance(value, str) else value for value in row)
    return json.dumps({column.name: value for column, value in zip(columns, proper, strict=True)}).encode() + b"\n"


def _write_parquet(lines: Path, final: Path, columns: Sequence[Column]) -> None:
    import pyarrow as pa  # noqa: PLC0415  an extra
    from pyarrow import parquet  # noqa: PLC0415

    kinds = {str: pa.string(), float: pa.float32(), int: pa.int8()}
    schema = pa.schema([(column.name, kinds[column.kind]) for column in columns])
    with lines.open() as file, parquet.ParquetWriter(final, schema) as writer:
        while some := [json.loads(line) for line in islice(file, _ROW_GROUP)]:
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
