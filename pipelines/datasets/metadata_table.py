"""metadata.csv: its columns, under their own or other names, and its rows as text."""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pipelines.exceptions import DataError

COLUMNS = ("image_path", "label", "class", "source", "split")  # that are read
_REQUIRED = ("image_path", "label")
_SEPARATORS = ",;\t"
_SEPARATOR_LINE = re.compile(r'"?sep=([^"\w\r\n])"?\s*', re.IGNORECASE)  # as Excel writes and reads it
_ERRORS = (UnicodeDecodeError, csv.Error)


class Row(NamedTuple):
    """A row of metadata.csv, as text without surrounding blanks; empty where it has no value."""

    line: int  # in the file, from 1
    path: str
    label: str
    category: str
    source: str
    split: str
    group: str


class MetadataTable:
    """A table of images, separated by commas, semicolons or tabs, whose header names its columns in any case.

    A first line such as `sep=;` names the separator, which then may be another.

    Attributes:
        path: of the file.
        problem: why this is not a table of images, and the remedy; empty if it is one.
        unread: names of the columns that are not read.
    """

    def __init__(self, path: Path, columns: Mapping[str, str] | None = None, split_by: str = "") -> None:
        """Read the header.

        Args:
            path: of the file.
            columns: what the file calls some of `COLUMNS`, by its name there.
            split_by: a column whose values are the groups; none if empty.

        Raises:
            DataError: `columns` has names other than `COLUMNS` or names a column that the file lacks; or the file is
                a table of images, but has no column `split_by`.
        """
        self.path, self.problem = path, ""
        self.unread: list[str] = []
        columns = dict(columns or {})
        if unknown := next((name for name in columns if name not in COLUMNS), None):
            raise DataError(f"there is no column {unknown} to map; the columns are {', '.join(COLUMNS)}")
        try:
            header = self._read_header()
        except _ERRORS as error:
            self.problem = _not_csv(path, error)
            return
        names = {name: columns.get(name, name).strip().casefold() for name in COLUMNS}
        missing = [name for name in names.values() if name not in header]
        if absent := next((columns[name] for name in columns if names[name] in missing), None):
            raise DataError(f"{path} has no column {absent}; it has {', '.join(header)}")
        if lacking := [name for name in _REQUIRED if names[name] in missing]:
            self.problem = (
                f"{path} has no column {' or '.join(lacking)}; it needs image_path and label, and may have class, "
                f"source and split: rename the columns, or map them with --columns {lacking[0]}=NAME"
            )
            return
        if split_by and split_by.casefold() not in header:
            raise DataError(f"{path} has no column {split_by} to split by; it has {', '.join(header)}")
        used = [*names.values(), split_by.casefold()]
        if twice := next((name for name in used if header.count(name) > 1), None):
            raise DataError(f"{path} has {header.count(twice)} columns {twice}; keep one")
        self._width = len(header)
        self._indices = [header.index(name) if name in header else -1 for name in used]
        self.unread = [name for name in header if name and name not in used]

    def rows(self) -> Iterator[Row]:
        """Yield the rows that are not blank.

        Raises:
            DataError: the file is not CSV in UTF-8, or a row has more cells than the header.
        """
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file, delimiter=self._separator, strict=True)
                for _ in range(self._header_lines):
                    next(reader)
                for cells in reader:
                    if any(map(str.strip, cells[self._width :])):
                        raise DataError(
                            f"{self.path} line {reader.line_num} has {len(cells)} cells, and the header "
                            f'{self._width}; put text with {self._separator!r} in it in quotes, "so"'
                        )
                    texts = [cells[at].strip() if 0 <= at < len(cells) else "" for at in self._indices]
                    if any(texts):
                        yield Row(reader.line_num, *texts)
        except csv.Error as error:  # such as a quote that is not closed, after which rows would be lost
            raise DataError(f"{self.path} line {reader.line_num} is not CSV: {error}; correct the quotes") from error
        except UnicodeDecodeError as error:
            raise DataError(_not_csv(self.path, error)) from error

    def _read_header(self) -> list[str]:
        with self.path.open(newline="", encoding="utf-8-sig") as file:
            line, separators, self._header_lines = file.readline(), _SEPARATORS, 1
            if given := _SEPARATOR_LINE.fullmatch(line):
                line, separators, self._header_lines = file.readline(), given[1], 2
        headers = {separator: next(csv.reader([line], delimiter=separator), []) for separator in separators}
        self._separator = max(headers, key=lambda separator: len(headers[separator]))
        return [name.strip().casefold() for name in headers[self._separator]]


def _not_csv(path: Path, error: Exception) -> str:
    return f"{path} is not a CSV file in UTF-8 ({error}); save it as one"
