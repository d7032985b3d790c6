"""Examples: the metadata of each image, in a table on disk, so that millions need no more memory than ten."""

import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

LABELS = ("real", "fake")
UNLABELLED = -1
REGRESSION = "regression"  # the split of images whose labels people corrected; see `records.regression_set`
SPLITS = ("train", "validation", "test", REGRESSION)
_UNIT = "CASE grp WHEN '' THEN path ELSE grp END"  # SQL: what is kept in one split


class Example(NamedTuple):
    """The metadata of one image. `path` is relative to the data folder, with forward slashes."""

    path: str
    label: int = UNLABELLED  # 0 real, 1 fake, -1 unlabelled
    category: str = ""
    source: str = ""
    split: str = ""  # one of SPLITS; empty until assigned
    group: str = ""  # examples of one group belong in one split
    bytes: int = 0  # size of the file
    modified: int = 0  # modification time of the file, nanoseconds since 1970; 0 if there is no file


class Examples:
    """Any number of Examples, each path once, iterated by split and within a split in an order set by a seed."""

    def __init__(self, seed: int = 0) -> None:
        self._salts = {purpose: f"{seed}/{purpose}/".encode() for purpose in ("order", "split")}
        self._table = sqlite3.connect("")  # a temporary file, deleted when it is closed
        self._table.execute("PRAGMA journal_mode = OFF")  # no other process will read it
        self._table.execute(
            "CREATE TABLE examples (path BLOB, label INTEGER, category TEXT, source TEXT, split TEXT, "
            "grp TEXT, bytes INTEGER, modified INTEGER, place INTEGER)"
        )
        self._table.execute("CREATE TABLE left_out (path BLOB, reason BLOB)")
        self._table.create_function("hash", 2, self._hash, deterministic=True)

    def add(self, examples: Iterable[Example]) -> None:
        """Add `examples`.

        Raises:
            KeyError: a path occurs twice; the argument is the path.
        """
        self._table.executemany("INSERT INTO examples VALUES (?,?,?,?,?,?,?,?,?)", map(self._row, examples))
        # Sorting all paths at once is faster than inserting each into an index.
        self._table.execute("CREATE INDEX IF NOT EXISTS paths ON examples (path)")
        repeated = self._table.execute("SELECT path FROM examples GROUP BY path HAVING COUNT(*) > 1 ORDER BY path")
        if row := repeated.fetchone():
            raise KeyError(os.fsdecode(row[0]))

    def __len__(self) -> int:
        return self._table.execute("SELECT COUNT(*) FROM examples").fetchone()[0]

    def missing(self, paths: Iterable[str]) -> Iterator[str]:
        """Yield those of `paths` that are not among the examples."""
        names = map(os.fsencode, paths)
        while batch := list(islice(names, 1000)):
            values = ",".join(["(?)"] * len(batch))
            rows = self._table.execute(
                f"WITH wanted (path) AS (VALUES {values}) SELECT path FROM wanted "
                "WHERE NOT EXISTS (SELECT 1 FROM examples WHERE path = wanted.path)",
                batch,
            )
            yield from [os.fsdecode(path) for (path,) in rows]

    def __contains__(self, path: str) -> bool:
        return bool(self._table.execute("SELECT 1 FROM examples WHERE path = ?", (os.fsencode(path),)).fetchone())

    def __iter__(self) -> Iterator[Example]:
        return (Example(os.fsdecode(path), *rest) for path, *rest in self._rows("split, place, path"))

    def digest(self) -> str:
        """A SHA-256, in hexadecimal, of all examples and their order."""
        total = hashlib.sha256(self._salts["order"])
        rows = self._rows("path")  # the seed, already hashed, determines the order of iteration
        while batch := rows.fetchmany(1000):
            total.update(repr(batch).encode())
        return total.hexdigest()

    def counts(self) -> Counter[tuple[str, int, str, str]]:
        """Count the examples of each (split, label, category, source)."""
        rows = self._table.execute(
            "SELECT split, label, category, source, COUNT(*) FROM examples GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
        )
        return Counter({(split, label, category, source): number for split, label, category, source, number in rows})

    def categories(self) -> list[str]:
        """The class names, sorted; empty if there are none."""
        rows = self._table.execute("SELECT DISTINCT category FROM examples WHERE category != '' ORDER BY category")
        return [category for (category,) in rows]

    def sizes(self) -> dict[str, tuple[int, int]]:
        """The number of examples and of their bytes by split, in the order of iteration."""
        rows = self._table.execute("SELECT split, COUNT(*), SUM(bytes) FROM examples GROUP BY split ORDER BY split")
        return {split: (number, size) for split, number, size in rows}

    def hold_out(self, fraction: float, splits: Iterable[str]) -> None:
        """Divide the examples of `splits` into train and validation, by a hash of their group, or else path.

        Where that leaves a class of a label without one of the two, one of its groups, or images, is moved there.

        Args:
            fraction: expected share that goes to validation, in (0, 1).
            splits: the splits to divide; "" stands for unassigned examples.
        """
        divided = list(splits)
        self._table.execute(  # a question mark tells them from those that are in a split for good
            f"UPDATE examples SET split = CASE WHEN hash('split', {_UNIT}) < ? THEN 'validation?' ELSE 'train?' END "
            f"WHERE split IN ({','.join('?' * len(divided))})",
            (int(fraction * 2**63), *divided),
        )
        self._fill_strata()
        self._table.execute("UPDATE examples SET split = RTRIM(split, '?')")

    def _fill_strata(self) -> None:
        """Move a group, or image, of each label and class that chance gave to only one of train and validation."""
        strata = self._table.execute(
            "SELECT label, category, SUM(split LIKE 'train%'), SUM(split LIKE 'validation%') FROM examples "
            "WHERE label >= 0 GROUP BY label, category"
        ).fetchall()
        for label, category, *numbers in strata:
            if all(numbers):
                continue
            source, target = ("validation?", "train?") if numbers[1] else ("train?", "validation?")
            units = self._table.execute(
                f"SELECT {_UNIT} FROM examples WHERE (split, label, category) = (?, ?, ?) GROUP BY 1 "
                f"ORDER BY hash('split', {_UNIT}) LIMIT 2",
                (source, label, category),
            ).fetchall()
            if len(units) == 2:
                self._table.execute(
                    f"UPDATE examples SET split = ? WHERE split = ? AND {_UNIT} = ?", (target, source, *units[0])
                )

    def divided_group(self) -> tuple[str, list[str]] | None:
        """The first group with examples in several splits, and these splits; None if there is no such group."""
        row = self._table.execute(
            "SELECT grp FROM examples WHERE grp != '' GROUP BY grp HAVING COUNT(DISTINCT split) > 1 ORDER BY grp"
        ).fetchone()
        if row is None:
            return None
        splits = self._table.execute("SELECT DISTINCT split FROM examples WHERE grp = ? ORDER BY split", row)
        return row[0], [split for (split,) in splits]

    def clear_categories(self, names: Iterable[str]) -> None:
        """Make the examples of some classes examples without a class."""
        self._table.executemany("UPDATE examples SET category = '' WHERE category = ?", ((name,) for name in names))

    def balance(self) -> None:
        """Within each split, leave out examples of the more frequent label until both are equally frequent."""
        for split in self.sizes():
            counts = [self._count(split, label) for label in range(len(LABELS))]
            larger = counts.index(max(counts))
            rows = self._table.execute(
                "SELECT path FROM examples WHERE split = ? AND label = ? ORDER BY place, path LIMIT ?",
                (split, larger, max(counts) - min(counts)),
            )
            reason = f"{split} has more {LABELS[larger]} images than {LABELS[1 - larger]} ones"
            self.leave_out([(os.fsdecode(path), reason) for (path,) in rows])

    def leave_out(self, paths: Iterable[tuple[str, str]]) -> None:
        """Remove some paths, recording the reason for each."""
        for path, reason in paths:
            self._table.execute("DELETE FROM examples WHERE path = ?", (os.fsencode(path),))
            self._table.execute("INSERT INTO left_out VALUES (?, ?)", (os.fsencode(path), os.fsencode(reason)))

    def left_out(self) -> Iterator[tuple[str, str]]:
        """Yield path and reason of what was left out, sorted by path."""
        rows = self._table.execute("SELECT path, reason FROM left_out ORDER BY path")
        return ((os.fsdecode(path), os.fsdecode(reason)) for path, reason in rows)

    def _count(self, split: str, label: int) -> int:
        query = "SELECT COUNT(*) FROM examples WHERE split = ? AND label = ?"
        return self._table.execute(query, (split, label)).fetchone()[0]

    def _rows(self, order: str) -> sqlite3.Cursor:
        columns = "path, label, category, source, split, grp, bytes, modified"
        return self._table.execute(f"SELECT {columns} FROM examples ORDER BY {order}")

    def _row(self, example: Example) -> tuple:
        path = os.fsencode(example.path)
        return (path, *example[1:], self._hash("order", path))

    def _hash(self, purpose: str, name: str | bytes) -> int:
        encoded = name.encode() if isinstance(name, str) else name
        # 63 bits, because SQLite's integers are signed.
        return int.from_bytes(hashlib.sha256(self._salts[purpose] + encoded).digest()[:8]) >> 1
