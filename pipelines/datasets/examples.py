"""Examples: what is known of each image, in a table on disk, so that millions need no more memory than ten."""

import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

LABELS = ("real", "fake")
UNLABELLED = -1
REGRESSION = "regression"  # of images whose labels people corrected; see the room of that name
SPLITS = ("train", "validation", "test", REGRESSION)


class Example(NamedTuple):
    """One image and what is known of it. `path` is relative to the data folder, with forward slashes."""

    path: str
    label: int = UNLABELLED  # 0 real, 1 fake, -1 unlabelled
    category: str = ""
    source: str = ""
    split: str = ""  # one of SPLITS; empty until it is assigned
    group: str = ""  # examples of one group belong into one split
    bytes: int = 0  # size of the file
    modified: int = 0  # when the file was last changed, nanoseconds since 1970; 0 where there is none


class Examples:
    """Any number of Examples, each path once; iterated by split and within it in an order that a seed decides."""

    def __init__(self, seed: int = 0):
        self._salts = {purpose: f"{seed}/{purpose}/".encode() for purpose in ("order", "split")}
        self._table = sqlite3.connect("")  # a file of SQLite's own, gone when it is closed
        self._table.execute("PRAGMA journal_mode = OFF")  # nobody else will ever read it
        self._table.execute(
            "CREATE TABLE examples (path BLOB, label INTEGER, category TEXT, source TEXT, split TEXT, "
            "grp TEXT, bytes INTEGER, modified INTEGER, place INTEGER)"
        )
        self._table.execute("CREATE TABLE left_out (path BLOB, reason BLOB)")
        self._table.create_function("hash", 2, self._hash, deterministic=True)

    def add(self, examples: Iterable[Example]) -> None:
        """Take in `examples`.

        Raises:
            KeyError: with a path that was there before.
        """
        self._table.executemany("INSERT INTO examples VALUES (?,?,?,?,?,?,?,?,?)", map(self._row, examples))
        # Sorting all paths at once is quicker than finding the place of each as it comes.
        self._table.execute("CREATE INDEX IF NOT EXISTS paths ON examples (path)")
        twice = self._table.execute("SELECT path FROM examples GROUP BY path HAVING COUNT(*) > 1 ORDER BY path")
        if row := twice.fetchone():
            raise KeyError(os.fsdecode(row[0]))

    def __len__(self) -> int:
        return self._table.execute("SELECT COUNT(*) FROM examples").fetchone()[0]

    def missing(self, paths: Iterable[str]) -> Iterator[str]:
        """Those of `paths` that are not there."""
        names = map(os.fsencode, paths)
        while some := list(islice(names, 1000)):
            values = ",".join(["(?)"] * len(some))
            rows = self._table.execute(
                f"WITH asked (path) AS (VALUES {values}) SELECT path FROM asked "
                "WHERE NOT EXISTS (SELECT 1 FROM examples WHERE path = asked.path)",
                some,
            )
            yield from [os.fsdecode(path) for (path,) in rows]

    def __contains__(self, path: str) -> bool:
        return bool(self._table.execute("SELECT 1 FROM examples WHERE path = ?", (os.fsencode(path),)).fetchone())

    def __iter__(self) -> Iterator[Example]:
        return (Example(os.fsdecode(path), *rest) for path, *rest in self._rows("split, place, path"))

    def digest(self) -> str:
        """A hash of all that is known of all of them, and of their order."""
        total = hashlib.sha256(self._salts["order"])
        rows = self._rows("path")  # the seed decides their order, and by path they need no sorting
        while some := rows.fetchmany(1000):
            total.update(repr(some).encode())
        return total.hexdigest()

    def counts(self) -> Counter:
        """How many there are of each (split, label, category, source)."""
        rows = self._table.execute(
            "SELECT split, label, category, source, COUNT(*) FROM examples GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
        )
        return Counter({tuple(key): number for *key, number in rows})

    def categories(self) -> list[str]:
        """The class names, sorted; empty when there are none."""
        rows = self._table.execute("SELECT DISTINCT category FROM examples WHERE category != '' ORDER BY category")
        return [category for (category,) in rows]

    def sizes(self) -> dict[str, tuple[int, int]]:
        """By split, in stored order: how many examples, and how many bytes they are."""
        rows = self._table.execute("SELECT split, COUNT(*), SUM(bytes) FROM examples GROUP BY split ORDER BY split")
        return {split: (number, size) for split, number, size in rows}

    def hold_out(self, fraction: float, splits: Iterable[str]) -> None:
        """Divide the examples of `splits` into train and, by the hash of path or group, validation."""
        places = list(splits)
        self._table.execute(
            "UPDATE examples SET split = CASE WHEN "
            "hash('split', CASE grp WHEN '' THEN path ELSE grp END) < ? THEN 'validation' ELSE 'train' END "
            f"WHERE split IN ({','.join('?' * len(places))})",
            (int(fraction * 2**63), *places),
        )

    def divided_group(self) -> tuple[str, list[str]] | None:
        """The first group that has examples in several splits, and those splits."""
        row = self._table.execute(
            "SELECT grp FROM examples WHERE grp != '' GROUP BY grp HAVING COUNT(DISTINCT split) > 1 ORDER BY grp"
        ).fetchone()
        if row is None:
            return None
        splits = self._table.execute("SELECT DISTINCT split FROM examples WHERE grp = ? ORDER BY split", row)
        return row[0], [split for (split,) in splits]

    def balance(self) -> None:
        """Within each split, leave out examples of the label that has more, until both have as many."""
        for split in self.sizes():
            numbers = [self._number(split, label) for label in range(len(LABELS))]
            larger = numbers.index(max(numbers))
            rows = self._table.execute(
                "SELECT path FROM examples WHERE split = ? AND label = ? ORDER BY place, path LIMIT ?",
                (split, larger, max(numbers) - min(numbers)),
            )
            reason = f"{split} has more {LABELS[larger]} images than {LABELS[1 - larger]} ones"
            self.leave_out([(os.fsdecode(path), reason) for (path,) in rows])

    def leave_out(self, paths: Iterable[tuple[str, str]]) -> None:
        """Forget these, each with the reason why."""
        for path, reason in paths:
            self._table.execute("DELETE FROM examples WHERE path = ?", (os.fsencode(path),))
            self._table.execute("INSERT INTO left_out VALUES (?, ?)", (os.fsencode(path), os.fsencode(reason)))

    def left_out(self) -> Iterator[tuple[str, str]]:
        """What was left out: path and reason, in alphabetical order."""
        rows = self._table.execute("SELECT path, reason FROM left_out ORDER BY path")
        return ((os.fsdecode(path), os.fsdecode(reason)) for path, reason in rows)

    def _number(self, split: str, label: int) -> int:
        query = "SELECT COUNT(*) FROM examples WHERE split = ? AND label = ?"
        return self._table.execute(query, (split, label)).fetchone()[0]

    def _rows(self, order: str) -> sqlite3.Cursor:
        columns = "path, label, category, source, split, grp, bytes, modified"
        return self._table.execute(f"SELECT {columns} FROM examples ORDER BY {order}")

    def _row(self, example: Example) -> tuple:
        path = os.fsencode(example.path)
        return (path, *example[1:], self._hash("order", path))

    def _hash(self, purpose: str, name: str | bytes) -> int:
        name = name.encode() if isinstance(name, str) else name
        # 63 bits: SQLite's integers have a sign.
        return int.from_bytes(hashlib.sha256(self._salts[purpose] + name).digest()[:8]) >> 1
