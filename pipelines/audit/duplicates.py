"""Leaks: images that occur twice, as the same bytes or as nearly the same picture, across splits and labels.

A detector that has seen a test image in training recognises it, and its score on that image says nothing.

A picture is reduced to 32 by 32 grey pixels and their discrete cosine transform. A coarse hash of 64 bits says which
of the lowest frequencies lie above their median; the index finds pairs by it. Then the 256 lowest frequencies are
compared by correlation, after a square root, so that a few strong ones do not decide alone. It survives compression,
resizing, grey for colour and moderate changes of light, but not a crop of more than two percent on each side, a turn
or a mirror image.

Measured on 4,776 photos and fakes and on 480 drawings of `sample_data`: of 11 million pairs of unrelated photos, a
sixth of them of faces cropped alike, none had a correlation above 0.75, and of drawings none above 0.90. Copies at a
third of the size or at JPEG quality 20 had 0.97 or more, after a crop of one percent on each side 0.94.
"""

import hashlib
import io
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from pipelines.datasets.examples import LABELS, SPLITS, Example
from pipelines.datasets.layouts import Layout
from pipelines.media.headers import DAMAGED, UnreadableError, read_file, read_header, why_unreadable
from pipelines.parallel import chunks, in_parallel, worker_count

COARSE = 6  # bits of 64 in which near-duplicates differ at most
ALIKE = 0.93  # and the correlation they have at least
SHOWN = 20  # pairs of each kind
_SIDE = 32
_COSINES = np.cos(np.pi / _SIDE * np.outer(np.arange(_SIDE), np.arange(_SIDE) + 0.5))
_LOWEST = tuple(np.transpose(sorted(np.ndindex(_SIDE, _SIDE), key=lambda at: (sum(at), at))[1:257]))  # but the mean
_FLAT = 4  # grey levels; an image with less contrast shows nothing to tell it by
_LOOK = np.dtype([("coarse", "<u8"), ("fine", "i1", 256)])
_ROW = np.dtype([("coarse", "<u8"), ("split", "i1"), ("label", "i1")])
_LABELLED = "a.label >= 0 AND b.label >= 0"
_BANDS, _SHARED = 8, 2  # of two hashes that differ in 6 bits or fewer, at least two of eight bands are equal
CHUNK = 64  # files to one task of a worker
_COMPARED = 4096  # pairs at once
_ONES = np.array([number.bit_count() for number in range(2**16)], np.uint8)


class Fingerprint(NamedTuple):
    """What an image is recognised by."""

    sha256: bytes
    look: bytes  # the coarse hash and the lowest frequencies; empty when the image shows next to nothing


def fingerprint(encoded: bytes) -> Fingerprint:
    """The fingerprint of an encoded image.

    Raises:
        UnreadableError: it cannot be decoded.
    """
    kind = read_header(encoded).format
    try:
        with Image.open(io.BytesIO(encoded), formats=["HEIF" if kind == "heic" else kind.upper()]) as image:
            grey = _small_grey(image, kind)
    except DAMAGED as error:
        raise UnreadableError(why_unreadable(encoded)) from error
    return Fingerprint(hashlib.sha256(encoded).digest(), _look(grey))


def _small_grey(image: Image.Image, kind: str) -> np.ndarray:
    """An opened image as float64 (32, 32), 0..255, turned as `decoding` turns it."""
    image.draft("L", (128, 128))  # a large JPEG is decoded at a half to an eighth of its size
    if image.mode.startswith("I"):  # 16 bits, which convert() would clip
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    if kind == "jpeg":
        ImageOps.exif_transpose(grey, in_place=True)
    return np.asarray(grey, np.float64)


def _look(grey: np.ndarray) -> bytes:
    if grey.std() < _FLAT:
        return b""
    lowest = (_COSINES @ grey @ _COSINES.T)[_LOWEST]
    # The lower of the two medians: half of the values lie above, and np.median takes five times as long.
    coarse = np.packbits(lowest[:64] > np.partition(lowest[:64], 31)[31])
    roots = np.copysign(np.sqrt(np.abs(lowest)), lowest)
    fine = np.round(roots * (127 / np.abs(roots).max())).astype(np.int8)
    return coarse.tobytes() + fine.tobytes()


# --- the index -------------------------------------------------------------------------------------------------


def near_pairs(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every pair of 64-bit hashes that differ in at most 6 bits, once, without comparing all pairs.

    A hash is cut into eight bands of eight bits. Six bits that differ lie in six bands at most, so two bands or
    more are equal. For each two bands the hashes are sorted by these 16 bits, and only those with equal ones are
    compared. (Manku, Jain, Das Sarma, "Detecting Near-Duplicates for Web Crawling", 2007.)

    Args:
        hashes: uint64 (n,).

    Yields:
        Pairs as two equally long arrays of indices, the smaller index first.
    """
    for bands in itertools.combinations(range(_BANDS), _SHARED):
        order = np.argsort(hashes & _mask(*bands), kind="stable")
        ordered = hashes[order]
        keys = ordered & _mask(*bands)
        start = np.arange(len(hashes))
        for step in itertools.count(1):
            start = start[: np.searchsorted(start, len(hashes) - step)]
            start = start[keys[start] == keys[start + step]]
            if not len(start):
                break
            near = start[_is_first(ordered[start] ^ ordered[start + step], bands)]
            first, second = order[near], order[near + step]
            yield np.minimum(first, second), np.maximum(first, second)


def _mask(*bands: int) -> np.uint64:
    return np.uint64(sum(0xFF << (8 * band) for band in bands))


def _is_first(differing: np.ndarray, bands: tuple[int, ...]) -> np.ndarray:
    """Which pairs, given the bits in which they differ, are near; and have no two equal bands before `bands`."""
    earlier = [band for band in range(bands[-1]) if band not in bands]
    is_near = _count_ones(differing) <= COARSE
    return np.logical_and.reduce([differing & _mask(band) != 0 for band in earlier] + [is_near])


def _count_ones(numbers: np.ndarray) -> np.ndarray:
    """The number of ones in each of n numbers, uint64."""
    return _ONES[numbers.view(np.uint16)].reshape(-1, 4).sum(axis=1)


# --- what occurs twice -----------------------------------------------------------------------------------------


class Duplicates:
    """Any number of images by their fingerprints, in a table on disk; tells which of them occur twice.

    The search for near-duplicates takes some fifty bytes of memory for each image, all else takes none.
    """

    def __init__(self):
        self._table = sqlite3.connect("", isolation_level=None)
        # Splits are numbers, by how much a leak from another into them does harm: train 0, validation 1, test 2.
        self._table.executescript(
            """
            CREATE TABLE images (path BLOB, split INTEGER, label INTEGER, sha256 BLOB, look BLOB);
            CREATE TABLE dropped (path BLOB PRIMARY KEY, kept BLOB);
            -- Images that are equal in content, split and label are one row, with the first path to stand for them.
            CREATE TABLE copies (content BLOB, split INTEGER, label INTEGER, number INTEGER, path BLOB);
            CREATE TABLE looks (content BLOB, split INTEGER, label INTEGER, number INTEGER, path BLOB);
            -- Pairs of those rows: a before b by split, then by label.
            CREATE TABLE exact (a INTEGER, b INTEGER, similarity REAL);
            CREATE TABLE near (a INTEGER, b INTEGER, similarity REAL);
            """
        )
        self._is_searched = False

    def add(self, images: Iterable[tuple[Example, Fingerprint]]) -> None:
        """Take in `images`, each path once; before the first question."""
        rows = (
            (os.fsencode(example.path), SPLITS.index(example.split), example.label, *found)
            for example, found in images
        )
        self._table.execute("BEGIN")
        self._table.executemany("INSERT INTO images VALUES (?,?,?,?,?)", rows)
        self._table.execute("COMMIT")

    def report(self) -> dict:
        """What occurs more than once, JSON-ready.

        Returns:
            `flat`: how many images show too little to be compared. And four kinds of pairs, each with `images` (how
            many are in such pairs) and `pairs` (the 20 worst, likest first, of `similarity`, `a` and `b`):
            `exact_across_splits` and `near_across_splits`, counted in the later split, where the harm is done;
            `exact_across_labels`, the same bytes labelled both real and fake; `near_across_labels`, fakes beside
            the photo they were made from in one split, which is no leak, counted in fakes. Near-duplicates are
            looked for among what remains when exact copies are dropped.
        """
        self._search()
        (flat,) = self._table.execute("SELECT COUNT(*) FROM images WHERE LENGTH(look) = 0").fetchone()
        labels = "a.label != b.label"
        return {
            "flat": flat,
            "exact_across_splits": self._kind("copies", "exact", "a.split != b.split", ["b"], "split"),
            "exact_across_labels": self._kind("copies", "exact", f"{labels} AND {_LABELLED}", ["a", "b"], "label"),
            "near_across_splits": self._kind("looks", "near", "a.split != b.split", ["b"], "split"),
            "near_across_labels": self._kind("looks", "near", f"{labels} AND a.split = b.split", ["b"], "label"),
        }

    def to_drop(self) -> list[tuple[str, str]]:
        """Paths whose images should go so that nothing leaks, each with the reason; sorted."""
        self._search()
        self._table.execute("CREATE TEMP TABLE gone (look INTEGER PRIMARY KEY, twin INTEGER)")
        for split in (1, 0):  # validation first: a twin that goes itself is no reason for one in train to go
            self._table.execute(
                "INSERT INTO gone SELECT a, b FROM (SELECT near.a, near.b, ROW_NUMBER() OVER "
                "(PARTITION BY near.a ORDER BY similarity DESC, later.path) AS place FROM near "
                "JOIN looks earlier ON earlier.rowid = near.a JOIN looks later ON later.rowid = near.b "
                "WHERE earlier.split = ? AND later.split > ? AND near.b NOT IN (SELECT look FROM gone)) "
                "WHERE place = 1",
                (split, split),
            )
        near = self._table.execute(
            "SELECT images.path, twin.path, twin.split FROM gone "
            "JOIN looks ON looks.rowid = gone.look JOIN looks twin ON twin.rowid = gone.twin "
            "JOIN images ON (images.look, images.split, images.label) = (looks.content, looks.split, looks.label) "
            "WHERE images.path NOT IN (SELECT path FROM dropped)"
        )
        reasons = {
            os.fsdecode(path): f"nearly the same image as {os.fsdecode(twin)} in {SPLITS[split]}"
            for path, twin, split in near
        }
        self._table.execute("DROP TABLE gone")
        for path, kept in self._table.execute("SELECT path, kept FROM dropped"):
            reason = f"a copy of {os.fsdecode(kept)}" if kept else "the same file is labelled both real and fake"
            reasons[os.fsdecode(path)] = reason
        return sorted(reasons.items())

    def _search(self) -> None:
        if not self._is_searched:
            self._is_searched = True
            self._find_copies()
            self._find_near()

    def _find_copies(self) -> None:
        """Fill `copies`, `exact` and `dropped`: the copies that are to go, and the one that is kept, if there is."""
        self._table.executescript(
            f"""
            CREATE INDEX by_sha256 ON images (sha256);
            CREATE INDEX by_look ON images (look, split, label);
            CREATE TEMP TABLE several AS SELECT sha256, MAX(label = 0) AND MAX(label = 1) AS contradictory
                FROM images GROUP BY sha256 HAVING COUNT(*) > 1;
            INSERT INTO copies SELECT sha256, split, label, COUNT(*), MIN(path) FROM images
                WHERE sha256 IN (SELECT sha256 FROM several) GROUP BY sha256, split, label;
            INSERT INTO exact SELECT a.rowid, b.rowid, 1.0 FROM copies a JOIN copies b ON a.content = b.content
                WHERE a.split < b.split OR (a.split = b.split AND a.label < b.label AND {_LABELLED});
            INSERT INTO dropped SELECT path, NULL FROM images
                WHERE label >= 0 AND sha256 IN (SELECT sha256 FROM several WHERE contradictory);
            INSERT INTO dropped SELECT path, kept FROM (
                SELECT path, FIRST_VALUE(path) OVER (PARTITION BY sha256 ORDER BY split DESC, path) AS kept
                FROM images WHERE sha256 IN (SELECT sha256 FROM several WHERE NOT contradictory)
            ) WHERE path != kept;
            """
        )

    def _find_near(self) -> None:
        """Fill `looks` and `near`."""
        self._table.execute(
            "INSERT INTO looks SELECT look, split, label, COUNT(*), MIN(path) FROM images "
            "WHERE LENGTH(look) > 0 AND path NOT IN (SELECT path FROM dropped) GROUP BY look, split, label"
        )
        rows = self._table.execute("SELECT SUBSTR(content, 1, 8), split, label FROM looks ORDER BY rowid")
        looks = np.fromiter(((int.from_bytes(coarse, "little"), *rest) for coarse, *rest in rows), _ROW)
        order = looks["split"] * 4 + looks["label"]
        for first, second in near_pairs(looks["coarse"]):
            pairs = np.where(order[first] <= order[second], (first, second), (second, first))
            a, b = looks[pairs]
            both_labelled = (a["label"] >= 0) & (b["label"] >= 0)
            telling = (a["split"] != b["split"]) | ((a["label"] != b["label"]) & both_labelled)
            chosen = pairs[:, telling].T + 1  # rowids begin at 1
            for start in range(0, len(chosen), _COMPARED):
                self._compare(chosen[start : start + _COMPARED].tolist())

    def _compare(self, pairs: list[tuple[int, int]]) -> None:
        """Take those of the pairs of rows of `looks` into `near` that are alike."""
        similarities = _correlation(*([self._fine(row) for row in side] for side in zip(*pairs, strict=True)))
        rows = [(*pair, value) for pair, value in zip(pairs, similarities.tolist(), strict=True) if value >= ALIKE]
        self._table.executemany("INSERT INTO near VALUES (?,?,?)", rows)

    def _fine(self, row: int) -> np.ndarray:
        (look,) = self._table.execute("SELECT content FROM looks WHERE rowid = ?", (row,)).fetchone()
        return np.frombuffer(look, _LOOK)["fine"][0]

    def _kind(self, rows: str, pairs: str, condition: str, counted: list[str], by: str) -> dict:
        names = dict(enumerate(SPLITS if by == "split" else LABELS))
        joined = f"{pairs} p JOIN {rows} a ON a.rowid = p.a JOIN {rows} b ON b.rowid = p.b WHERE {condition}"
        members = " UNION ".join(f"SELECT p.{side} FROM {joined}" for side in counted)
        numbers = self._table.execute(
            f"SELECT {by}, SUM(number) FROM {rows} WHERE rowid IN ({members}) GROUP BY {by} ORDER BY {by}"
        )
        worst = self._table.execute(
            f"SELECT similarity, a.path, a.split, a.label, b.path, b.split, b.label FROM {joined} "
            f"ORDER BY similarity DESC, a.path, b.path LIMIT {SHOWN}"
        )
        return {
            "images": {names[key]: number for key, number in numbers},
            "pairs": [{"similarity": round(row[0], 3), "a": _side(*row[1:4]), "b": _side(*row[4:])} for row in worst],
        }


def _correlation(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
    """Of each of n pairs of spectra."""
    a, b = np.float64(first), np.float64(second)
    return (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))


def _side(path: bytes, split: int, label: int) -> dict:
    return {"path": os.fsdecode(path), "split": SPLITS[split], "label": "" if label < 0 else LABELS[label]}


# --- reading many files ----------------------------------------------------------------------------------------


def duplicates_to_drop(
    layout: Layout, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> list[tuple[str, str]]:
    """Which examples to leave out so that no image occurs in two splits, or twice, or with two labels.

    Of files that are alike to the byte one stays: one in test rather than validation rather than train, then the
    first by path; where both labels occur, none that is labelled. Of near-duplicates in different splits the one
    in train goes, or the one in validation if the other is in test. Near-duplicates in one split stay. A file that
    cannot be read is passed over.

    Args:
        layout: the examples, with their splits.
        workers: processes; None for one per core.
        progress: called with (images done, images in all).

    Returns:
        Paths, as in `layout.examples`, and the reason for each in a few words; sorted, the same for any `workers`.
    """
    found, done, total = Duplicates(), 0, len(layout.examples)
    job = partial(_fingerprints, layout.root)
    for examples, prints in in_parallel(job, chunks(layout.examples, CHUNK), worker_count(workers, total)):
        found.add((example, known) for example, known in zip(examples, prints, strict=True) if known)
        done += len(examples)
        if progress:
            progress(done, total)
    return found.to_drop()


def _fingerprints(root: Path, examples: list[Example]) -> list[Fingerprint | None]:
    return [_fingerprint_or_none(root / example.path) for example in examples]


def _fingerprint_or_none(path: Path) -> Fingerprint | None:
    try:
        return fingerprint(read_file(path))
    except (OSError, UnreadableError):
        return None
