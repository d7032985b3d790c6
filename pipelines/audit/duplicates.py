"""Duplicates: images that occur twice, byte for byte or nearly so, across splits (leaks) and labels.

A detector that has seen a test image in training recognizes it, and its score on that image says nothing.

An image is reduced to 32 by 32 grey pixels and their discrete cosine transform. A coarse hash of 64 bits, whether
each of the lowest frequencies lies above their median, serves to find candidate pairs in an index. Candidates are
compared by the correlation of their 256 lowest frequencies, after a square root, so that a few strong ones do not
dominate. The comparison survives compression, resizing, conversion to grey and moderate changes of brightness, but
not a crop of more than two percent on each side, a rotation or a reflection.

Measured on 4,776 photos and fakes and on 480 drawings of `sample_data`: of 11 million pairs of unrelated photos, a
sixth of them of faces cropped alike, none had a correlation above 0.75, and of drawings none above 0.90. Copies at a
third of the size or at JPEG quality 20 had 0.97 or more, after a crop of one percent on each side 0.94.
"""

import hashlib
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pipelines.datasets.examples import LABELS, SPLITS, Example
from pipelines.datasets.layouts import Layout
from pipelines.media import pillow
from pipelines.media.headers import UnreadableError, read_file, read_header, unreadable_reason
from pipelines.parallel import chunks, in_parallel, worker_count

MAX_DISTANCE = 6  # Hamming distance, of 64 bits, between the coarse hashes of near-duplicates
MIN_CORRELATION = 0.93  # between their lowest frequencies
MAX_PAIRS = 20  # reported of each kind
CHUNK = 64  # files per task of a worker
_SIDE = 32
_DCT = np.cos(np.pi / _SIDE * np.outer(np.arange(_SIDE), np.arange(_SIDE) + 0.5))
_BY_FREQUENCY = sorted(np.ndindex(_SIDE, _SIDE), key=lambda at: (sum(at), at))
_LOWEST = tuple(np.transpose(_BY_FREQUENCY[1:257]))  # without the mean
_MIN_CONTRAST = 4  # standard deviation in grey levels; flatter images have nothing to compare
_DESCRIPTOR = np.dtype([("coarse", "<u8"), ("fine", "i1", 256)])
_INDEXED = np.dtype([("coarse", "<u8"), ("split", "i1"), ("label", "i1")])
_BOTH_LABELLED = "a.label >= 0 AND b.label >= 0"
# The index: of eight bands of eight bits, two hashes at a distance of 6 or less have at least two in common.
_BANDS, _EQUAL_BANDS = 8, 2
_COMPARED_AT_ONCE = 4096  # pairs
_BIT_COUNTS = np.array([number.bit_count() for number in range(2**16)], np.uint8)


class Fingerprint(NamedTuple):
    """What identifies an image."""

    sha256: bytes
    descriptor: bytes  # the coarse hash and the lowest frequencies; empty if the image is flat


def fingerprint(encoded: bytes) -> Fingerprint:
    """Compute the fingerprint of an encoded image.

    Raises:
        UnreadableError: it cannot be decoded.
    """
    image_format = read_header(encoded).format
    try:
        with pillow.open_image(encoded, image_format) as image:
            grey = _small_grey(image, image_format)
    except pillow.PILLOW_ERRORS as error:
        raise UnreadableError(unreadable_reason(encoded)) from error
    return Fingerprint(hashlib.sha256(encoded).digest(), _descriptor(grey))


def _small_grey(image: Image.Image, image_format: str) -> np.ndarray:
    """Reduce an opened image to float64 (32, 32), 0..255, turned as `decoding` turns it."""
    image.draft("L", (128, 128))  # a large JPEG is decoded at a half to an eighth of its size
    if image.mode.startswith("I"):  # 16 bits, which convert() would clip
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(pillow.upright(grey, image_format), np.float64)


def _descriptor(grey: np.ndarray) -> bytes:
    if grey.std() < _MIN_CONTRAST:
        return b""
    lowest = (_DCT @ grey @ _DCT.T)[_LOWEST]
    # The lower of the two medians, so that half of the values lie above it. np.median takes five times as long.
    coarse = np.packbits(lowest[:64] > np.partition(lowest[:64], 31)[31])
    roots = np.copysign(np.sqrt(np.abs(lowest)), lowest)
    fine = np.round(roots * (127 / np.abs(roots).max())).astype(np.int8)
    return coarse.tobytes() + fine.tobytes()


# --- the index -------------------------------------------------------------------------------------------------


def near_pairs(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Find every pair of 64-bit hashes at a Hamming distance of 6 or less, once, without comparing all pairs.

    A hash is cut into eight bands of eight bits. Six differing bits lie in at most six bands, so at least two bands
    are equal. For every two bands, the hashes are sorted by these 16 bits, and only hashes with equal ones are
    compared (Manku, Jain, Das Sarma, "Detecting Near-Duplicates for Web Crawling", 2007).

    Args:
        hashes: uint64 (n,).

    Yields:
        Pairs as two arrays of indices of equal length, the smaller index first.
    """
    for bands in itertools.combinations(range(_BANDS), _EQUAL_BANDS):
        order = np.argsort(hashes & _mask(*bands), kind="stable")
        ordered = hashes[order]
        keys = ordered & _mask(*bands)
        start = np.arange(len(hashes))
        for step in itertools.count(1):
            start = start[: np.searchsorted(start, len(hashes) - step)]
            start = start[keys[start] == keys[start + step]]
            if not len(start):
                break
            near = start[_is_first_match(ordered[start] ^ ordered[start + step], bands)]
            first, second = order[near], order[near + step]
            yield np.minimum(first, second), np.maximum(first, second)


def _mask(*bands: int) -> np.uint64:
    return np.uint64(sum(0xFF << (8 * band) for band in bands))


def _is_first_match(differing: np.ndarray, bands: tuple[int, ...]) -> np.ndarray:
    """Which pairs, given their differing bits, are near and have no two equal bands that come before `bands`."""
    earlier = [band for band in range(bands[-1]) if band not in bands]
    is_near = _count_ones(differing) <= MAX_DISTANCE
    return np.logical_and.reduce([differing & _mask(band) != 0 for band in earlier] + [is_near])


def _count_ones(numbers: np.ndarray) -> np.ndarray:
    """The number of one bits in each of n numbers, uint64."""
    return _BIT_COUNTS[numbers.view(np.uint16)].reshape(-1, 4).sum(axis=1)


# --- duplicates ------------------------------------------------------------------------------------------------


class Duplicates:
    """Finds duplicates among any number of images by their fingerprints, in a table on disk.

    The search for near-duplicates takes about fifty bytes of memory per image; the rest takes none.
    """

    def __init__(self) -> None:
        self._table = sqlite3.connect("", isolation_level=None)
        # Splits are numbered by how much harm a leak into them does: train 0, validation 1, test 2.
        self._table.executescript(
            """
            CREATE TABLE images (path BLOB, split INTEGER, label INTEGER, sha256 BLOB, descriptor BLOB);
            CREATE TABLE dropped (path BLOB PRIMARY KEY, kept BLOB);
            -- Images of the same content, split and label are one row, represented by the first path.
            CREATE TABLE copies (content BLOB, split INTEGER, label INTEGER, number INTEGER, path BLOB);
            CREATE TABLE descriptors (content BLOB, split INTEGER, label INTEGER, number INTEGER, path BLOB);
            -- Pairs of rows of these two tables, ordered by split, then by label.
            CREATE TABLE exact (a INTEGER, b INTEGER, similarity REAL);
            CREATE TABLE near (a INTEGER, b INTEGER, similarity REAL);
            """
        )
        self._is_searched = False

    def add(self, images: Iterable[tuple[Example, Fingerprint]]) -> None:
        """Add images, each path once, before anything is asked of this object."""
        rows = (
            (os.fsencode(example.path), SPLITS.index(example.split), example.label, *identity)
            for example, identity in images
        )
        self._table.execute("BEGIN")
        self._table.executemany("INSERT INTO images VALUES (?,?,?,?,?)", rows)
        self._table.execute("COMMIT")

    def report(self) -> dict:
        """Count the duplicates, JSON-ready.

        Returns:
            `flat`: the number of images with too little contrast to compare. And four kinds of pairs, each with
            `images`, how many images are in such pairs, and `pairs`, the 20 most similar, as `similarity`, `a` and
            `b`: `exact_across_splits` and `near_across_splits`, counted in the later split, where the leak does
            harm; `exact_across_labels`, the same bytes labelled both real and fake; `near_across_labels`, fakes and
            the photo they were made from in the same split, which is no leak, counted in fakes. Near-duplicates are
            searched among the images that remain without exact copies.
        """
        self._search()
        (flat,) = self._table.execute("SELECT COUNT(*) FROM images WHERE LENGTH(descriptor) = 0").fetchone()
        across_splits, across_labels = "a.split != b.split", "a.label != b.label"
        labelled = f"{across_labels} AND {_BOTH_LABELLED}"
        same_split = f"{across_labels} AND a.split = b.split"
        return {
            "flat": flat,
            "exact_across_splits": self._report_pairs("exact", across_splits, counted=["b"], by="split"),
            "exact_across_labels": self._report_pairs("exact", labelled, counted=["a", "b"], by="label"),
            "near_across_splits": self._report_pairs("near", across_splits, counted=["b"], by="split"),
            "near_across_labels": self._report_pairs("near", same_split, counted=["b"], by="label"),
        }

    def to_drop(self) -> list[tuple[str, str]]:
        """The paths to drop so that nothing leaks, sorted, each with the reason."""
        self._search()
        self._table.execute("CREATE TEMP TABLE leaking (descriptor INTEGER PRIMARY KEY, twin INTEGER)")
        for split in (1, 0):  # validation first: a twin that is dropped itself is no reason to drop one in train
            self._table.execute(
                "INSERT INTO leaking SELECT a, b FROM (SELECT near.a, near.b, ROW_NUMBER() OVER "
                "(PARTITION BY near.a ORDER BY similarity DESC, later.path) AS place FROM near "
                "JOIN descriptors earlier ON earlier.rowid = near.a JOIN descriptors later ON later.rowid = near.b "
                "WHERE earlier.split = ? AND later.split > ? AND near.b NOT IN (SELECT descriptor FROM leaking)) "
                "WHERE place = 1",
                (split, split),
            )
        near = self._table.execute(
            "SELECT images.path, twin.path, twin.split FROM leaking "
            "JOIN descriptors own ON own.rowid = leaking.descriptor "
            "JOIN descriptors twin ON twin.rowid = leaking.twin "
            "JOIN images ON (images.descriptor, images.split, images.label) = (own.content, own.split, own.label) "
            "WHERE images.path NOT IN (SELECT path FROM dropped)"
        )
        reasons = {
            os.fsdecode(path): f"nearly the same image as {os.fsdecode(twin)} in {SPLITS[split]}"
            for path, twin, split in near
        }
        self._table.execute("DROP TABLE leaking")
        for path, kept in self._table.execute("SELECT path, kept FROM dropped"):
            reason = f"a copy of {os.fsdecode(kept)}" if kept else "the same file is labelled both real and fake"
            reasons[os.fsdecode(path)] = reason
        return sorted(reasons.items())

    def _search(self) -> None:
        if not self._is_searched:
            self._is_searched = True
            self._find_exact()
            self._find_near()

    def _find_exact(self) -> None:
        """Fill `copies`, `exact` and `dropped`: the copies to drop, each with the one that is kept, if any."""
        self._table.executescript(
            f"""
            CREATE INDEX by_sha256 ON images (sha256);
            CREATE INDEX by_descriptor ON images (descriptor, split, label);
            CREATE TEMP TABLE several AS SELECT sha256, MAX(label = 0) AND MAX(label = 1) AS contradictory
                FROM images GROUP BY sha256 HAVING COUNT(*) > 1;
            INSERT INTO copies SELECT sha256, split, label, COUNT(*), MIN(path) FROM images
                WHERE sha256 IN (SELECT sha256 FROM several) GROUP BY sha256, split, label;
            INSERT INTO exact SELECT a.rowid, b.rowid, 1.0 FROM copies a JOIN copies b ON a.content = b.content
                WHERE a.split < b.split OR (a.split = b.split AND a.label < b.label AND {_BOTH_LABELLED});
            INSERT INTO dropped SELECT path, NULL FROM images
                WHERE label >= 0 AND sha256 IN (SELECT sha256 FROM several WHERE contradictory);
            INSERT INTO dropped SELECT path, kept FROM (
                SELECT path, FIRST_VALUE(path) OVER (PARTITION BY sha256 ORDER BY split DESC, path) AS kept
                FROM images WHERE sha256 IN (SELECT sha256 FROM several WHERE NOT contradictory)
            ) WHERE path != kept;
            """
        )

    def _find_near(self) -> None:
        """Fill `descriptors` and `near`."""
        self._table.execute(
            "INSERT INTO descriptors SELECT descriptor, split, label, COUNT(*), MIN(path) FROM images "
            "WHERE LENGTH(descriptor) > 0 AND path NOT IN (SELECT path FROM dropped) "
            "GROUP BY descriptor, split, label"
        )
        rows = self._table.execute("SELECT SUBSTR(content, 1, 8), split, label FROM descriptors ORDER BY rowid")
        indexed = np.fromiter(((int.from_bytes(coarse, "little"), *rest) for coarse, *rest in rows), _INDEXED)
        order = indexed["split"] * 4 + indexed["label"]
        for first, second in near_pairs(indexed["coarse"]):
            pairs = np.where(order[first] <= order[second], (first, second), (second, first))
            a, b = indexed[pairs]
            both_labelled = (a["label"] >= 0) & (b["label"] >= 0)
            is_relevant = (a["split"] != b["split"]) | ((a["label"] != b["label"]) & both_labelled)
            candidates = pairs[:, is_relevant].T + 1  # rowids begin at 1
            for start in range(0, len(candidates), _COMPARED_AT_ONCE):
                self._compare(candidates[start : start + _COMPARED_AT_ONCE].tolist())

    def _compare(self, pairs: list[tuple[int, int]]) -> None:
        """Insert those pairs of rows of `descriptors` into `near` that correlate enough."""
        first, second = (np.stack([self._frequencies(row) for row in rows]) for rows in zip(*pairs, strict=True))
        correlations = _correlation(first, second).tolist()
        rows = [
            (*pair, correlation)
            for pair, correlation in zip(pairs, correlations, strict=True)
            if correlation >= MIN_CORRELATION
        ]
        self._table.executemany("INSERT INTO near VALUES (?,?,?)", rows)

    def _frequencies(self, row: int) -> np.ndarray:
        (content,) = self._table.execute("SELECT content FROM descriptors WHERE rowid = ?", (row,)).fetchone()
        return np.frombuffer(content, _DESCRIPTOR)["fine"][0]

    def _report_pairs(self, pairs: str, condition: str, *, counted: list[str], by: str) -> dict:
        """Report one kind of pairs.

        Args:
            pairs: their table, `exact` or `near`.
            condition: SQL on `a` and `b`, the images of a pair.
            counted: which of `a` and `b` are counted.
            by: `split` or `label`, by which they are counted.
        """
        rows = {"exact": "copies", "near": "descriptors"}[pairs]
        names = dict(enumerate(SPLITS if by == "split" else LABELS))
        joined = f"{pairs} p JOIN {rows} a ON a.rowid = p.a JOIN {rows} b ON b.rowid = p.b WHERE {condition}"
        members = " UNION ".join(f"SELECT p.{side} FROM {joined}" for side in counted)
        counts = self._table.execute(
            f"SELECT {by}, SUM(number) FROM {rows} WHERE rowid IN ({members}) GROUP BY {by} ORDER BY {by}"
        )
        worst = self._table.execute(
            f"SELECT similarity, a.path, a.split, a.label, b.path, b.split, b.label FROM {joined} "
            f"ORDER BY similarity DESC, a.path, b.path LIMIT {MAX_PAIRS}"
        )
        return {
            "images": {names[key]: number for key, number in counts},
            "pairs": [{"similarity": round(row[0], 3), "a": _side(*row[1:4]), "b": _side(*row[4:])} for row in worst],
        }


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The correlation of each of n pairs of spectra, (n, frequencies)."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    return (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))


def _side(path: bytes, split: int, label: int) -> dict:
    return {"path": os.fsdecode(path), "split": SPLITS[split], "label": "" if label < 0 else LABELS[label]}


# --- data folders ----------------------------------------------------------------------------------------------


def duplicates_to_drop(
    layout: Layout, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> list[tuple[str, str]]:
    """Choose the examples to leave out so that no image occurs in two splits, twice, or with two labels.

    Of identical files one is kept: one in test rather than validation rather than train, then the first by path; if
    both labels occur, no labelled one is kept. Of near-duplicates in different splits, the one in train is dropped,
    or the one in validation if the other is in test. Near-duplicates in the same split are kept. Unreadable files
    are skipped.

    Args:
        layout: the examples, with their splits.
        workers: processes; None for one per core.
        progress: called with (images done, images in all).

    Returns:
        Paths, as in `layout.examples`, each with the reason in a few words; sorted, and the same for any `workers`.
    """
    duplicates, done, total = Duplicates(), 0, len(layout.examples)
    tasks = chunks(layout.examples, CHUNK)
    job = partial(_fingerprints, layout.root)
    for examples, prints in in_parallel(job, tasks, worker_count(workers, total), pillow.silence):
        duplicates.add((example, identity) for example, identity in zip(examples, prints, strict=True) if identity)
        done += len(examples)
        if progress:
            progress(done, total)
    return duplicates.to_drop()


def _fingerprints(root: Path, examples: list[Example]) -> list[Fingerprint | None]:
    return [_fingerprint_or_none(root / example.path) for example in examples]


def _fingerprint_or_none(path: Path) -> Fingerprint | None:
    try:
        return fingerprint(read_file(path))
    except (OSError, UnreadableError):
        return None
