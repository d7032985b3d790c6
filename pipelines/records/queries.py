"""What the records say, read without decoding an image: facts, stored files, class weights, views of a subset."""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress

import numpy as np
import tensorflow as tf
from PIL import Image

from pipelines.datasets.examples import LABELS
from pipelines.decoding import decode
from pipelines.exceptions import DataError
from pipelines.media.thumbnails import SIDE, small_jpeg
from pipelines.records.store import NO_CATEGORY, Records, Split


def facts(records: Records, split: str) -> dict[str, list]:
    """What is known of each example, in the order of `inference_batches`, without decoding an image.

    Returns:
        Lists of equal length: `path` (str), `label` (0 real, 1 fake, -1 unlabelled), `category` (class index, -1
        when none), `source` (str) and `group` (str).
    """
    columns, found = {"path": [], "label": [], "category": [], "source": [], "group": []}, records.split(split)
    for feature in compress(_features(found), kept_flags(found)):
        columns["path"].append(os.fsdecode(feature["path"].bytes_list.value[0]))
        columns["label"].append(feature["label"].int64_list.value[0])
        columns["category"].append((*feature["category"].int64_list.value, NO_CATEGORY)[0])
        for name in ("source", "group"):
            columns[name].append(feature[name].bytes_list.value[0].decode())
    return columns


def without(records: Records, source: str) -> Records:
    """The same records less the examples of a source: a view, nothing is written.

    Raises:
        DataError: no example of a labelled split comes from it.
    """
    splits, sources = dict(records.splits), Counter()
    for name in records.labelled_splits:
        known = {column: np.array(values) for column, values in facts(records, name).items()}
        kept = known["source"] != source
        sources.update(known["source"])
        splits[name] = replace(
            splits[name],
            examples=int(kept.sum()),
            labels=_counted(known["label"][kept], LABELS),
            categories=_counted(known["category"][kept], records.categories),
            kept=kept.tobytes(),
        )
    if source not in sources:
        there = ", ".join(sorted(filter(None, sources))) or "none: say them in the column source of metadata.csv"
        raise DataError(f"no image comes from the source {source}; those of {records.folder} are {there}")
    return replace(records, splits=splits)


def _counted(indices: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """How many there are of each that occurs."""
    return {name: number for index, name in enumerate(names) if (number := int((indices == index).sum()))}


def thumbnails(records: Records, split: str, paths: Collection[str], *, size: int = SIDE) -> dict[str, bytes]:
    """Small JPEGs of the examples at these paths, decoded as for a network, by path.

    Args:
        size: their height and width, at most.
    """
    images = ((path, decode(tf.constant(encoded)).numpy()) for path, encoded in stored(records, split, paths))
    return {path: small_jpeg(Image.fromarray(image), size) for path, image in images}


def stored(records: Records, split: str, paths: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Path and encoded image, as it is stored, of the examples at these paths, in stored order.

    Raises:
        DataError: there is no such split.
    """
    wanted = {os.fsencode(path) for path in paths}
    for feature in _features(records.split(split)) if wanted else ():
        path = feature["path"].bytes_list.value[0]
        if path in wanted:
            yield os.fsdecode(path), feature["image"].bytes_list.value[0]


def digests(records: Records, split: str) -> Iterator[tuple[str, str]]:
    """SHA-256, in hexadecimal, and path of each file as it was found; again of what is stored, where that differs.

    Raises:
        DataError: there is no such split.
    """
    for feature in _features(records.split(split)):
        values = {name: feature[name].bytes_list.value[0] for name in ("image", "path", "sha256", "stored")}
        path = os.fsdecode(values["path"])
        yield values["sha256"].decode(), path
        if values["stored"] != b"as found":
            yield hashlib.sha256(values["image"]).hexdigest(), path


def class_weights(records: Records, split: str = "train") -> dict[str, list[float]]:
    """Inverse-frequency weights, n / (classes * n_of_class), whose mean over the examples is 1.

    Returns:
        For each head, one weight per class in class order; `category` only when the data has classes.

    Raises:
        DataError: there is no such split, it is unlabelled, or it has no example of one of the classes.
    """
    counts = records.split(split, labelled=True)

    def inverse_frequency(names, numbers):
        check_names(records, split, names, numbers)
        total = sum(numbers.values())
        return [total / (len(names) * numbers[name]) for name in names]

    weights = {"authenticity": inverse_frequency(LABELS, counts.labels)}
    if records.categories:
        weights["category"] = inverse_frequency(records.categories, counts.categories)
    return weights


def check_names(records: Records, split: str, names: list[str], numbers: dict[str, int]) -> None:
    absent = [name for name in names if not numbers.get(name)]
    if absent:
        raise DataError(f"{records.folder} has no {absent[0]} image in {split}; see quarantine.csv there")


def _features(split: Split) -> Iterator[Mapping[str, tf.train.Feature]]:
    """The fields of each record in the shards of a split."""
    for serialised in tf.data.TFRecordDataset(split.files).as_numpy_iterator():
        yield tf.train.Example.FromString(serialised).features.feature


def kept_flags(split: Split) -> np.ndarray:
    """Whether each example is, in stored order."""
    return np.frombuffer(split.kept, bool) if split.kept else np.ones(sum(split.lengths), bool)
