"""Queries on opened records that need no training pipeline: metadata, stored files, class weights, subsets."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypedDict

import numpy as np
import tensorflow as tf
from PIL import Image

from pipelines.datasets.examples import LABELS
from pipelines.decoding import decode
from pipelines.exceptions import DataError
from pipelines.media.thumbnails import SIDE, small_jpeg
from pipelines.records import schema
from pipelines.records.schema import Record, Stored
from pipelines.records.store import Records, Split

_PARSED_AT_ONCE = 16  # records, whose images are in memory while their other fields are read


class Metadata(TypedDict):
    """The fields of the examples in a split; all lists have the same length."""

    path: list[str]
    label: list[int]  # 0 real, 1 fake, -1 unlabelled
    category: list[int]  # class index, -1 without a class
    source: list[str]
    group: list[str]
    shorter_side: list[int]  # of the upright image, in pixels


# --- fields of all examples ------------------------------------------------------------------------------------


def metadata(records: Records, split: str) -> Metadata:
    """The metadata of each example, in the order of `inference_batches`, read without decoding images.

    Raises:
        DataError: there is no such split.
    """
    opened = records.split(split)
    columns = read_columns(opened, "path", "label", "category", "source", "group", "height", "width")
    columns = {name: values[opened.keep_mask] for name, values in columns.items()}
    return {
        "path": [schema.decode_path(path) for path in columns["path"]],
        "label": columns["label"].tolist(),
        "category": columns["category"].tolist(),
        "source": [source.decode() for source in columns["source"]],
        "group": [group.decode() for group in columns["group"]],
        "shorter_side": np.minimum(columns["height"], columns["width"]).tolist(),
    }


def read_columns(split: Split, *names: str) -> dict[str, np.ndarray]:
    """Some fields of all examples in the shards of a split, masked ones included, in stored order.

    Returns:
        Arrays (examples,): int64, or object with bytes as they are stored.
    """
    spec = schema.feature_spec(*names)
    batches = (
        tf.data.TFRecordDataset(split.files)
        .batch(_PARSED_AT_ONCE)
        .map(lambda batch: tf.io.parse_example(batch, spec), num_parallel_calls=tf.data.AUTOTUNE)
    )
    rows = list(batches.as_numpy_iterator())
    return {name: np.concatenate([row[name] for row in rows]) for name in names}


def iterate_records(split: Split) -> Iterator[Record]:
    """All records in the shards of a split, masked ones included, in stored order."""
    return map(schema.parse, tf.data.TFRecordDataset(split.files).as_numpy_iterator())


def equalisation(records: Records) -> str:
    """How the images were equalised: `resize`, `crop`, or empty if they were not."""
    if records.equalised is not None:
        return records.equalised
    # Until 0.2.0 resizing was the only way, and all images went through it, or none.
    first = next((record for split in records.splits.values() for record in iterate_records(split)), None)
    return "resize" if first and first.stored is Stored.EQUALISED else ""


# --- stored files ----------------------------------------------------------------------------------------------


def encoded_images(records: Records, split: str, paths: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Path and encoded image, as stored, of the examples at these paths, in stored order.

    Raises:
        DataError: there is no such split.
    """
    wanted = set(paths)
    for record in iterate_records(records.split(split)) if wanted else ():
        if record.path in wanted:
            yield record.path, record.image


def thumbnails(records: Records, split: str, paths: Collection[str], *, size: int = SIDE) -> dict[str, bytes]:
    """Small JPEGs of the examples at these paths, by path.

    Args:
        size: maximum height and width, in pixels.
    """
    images = ((path, decode(tf.constant(encoded)).numpy()) for path, encoded in encoded_images(records, split, paths))
    return {path: small_jpeg(Image.fromarray(image), size) for path, image in images}


def digests(records: Records, split: str) -> Iterator[tuple[str, str]]:
    """SHA-256, in hexadecimal, and path of each file as found; once more for the stored bytes where they differ.

    Raises:
        DataError: there is no such split.
    """
    for record in iterate_records(records.split(split)):
        yield record.sha256, record.path
        if record.stored is not Stored.AS_FOUND:
            yield hashlib.sha256(record.image).hexdigest(), record.path


# --- labels ----------------------------------------------------------------------------------------------------


def exclude_source(records: Records, source: str) -> Records:
    """The same records without the examples of one source. This is a view: nothing is written.

    Raises:
        DataError: no example of a labelled split comes from it.
    """
    splits = dict(records.splits)
    sources: Counter[str] = Counter()
    for name in records.labelled_splits:
        columns = metadata(records, name)
        is_kept = np.array(columns["source"]) != source
        sources.update(columns["source"])
        splits[name] = replace(
            splits[name],
            examples=int(is_kept.sum()),
            labels=_count_by_name(np.array(columns["label"])[is_kept], LABELS),
            categories=_count_by_name(np.array(columns["category"])[is_kept], records.categories),
            keep=is_kept.tobytes(),
        )
    if source not in sources:
        names = ", ".join(sorted(filter(None, sources)))
        names = names or "none: name them in the source column of metadata.csv, or convert with --folders source"
        raise DataError(f"no image comes from the source {source}; the sources of {records.folder} are {names}")
    return replace(records, splits=splits)


def _count_by_name(indices: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """How often each name occurs; names that do not occur are left out."""
    return {name: count for index, name in enumerate(names) if (count := int((indices == index).sum()))}


def class_weights(records: Records, split: str = "train") -> dict[str, list[float]]:
    """Inverse-frequency class weights, n / (classes * n_of_class), with a mean of 1 over the examples.

    Returns:
        For each head, one weight per class in class order; `category` only when the data has classes.

    Raises:
        DataError: there is no such split, it is unlabelled, or it has no example of one of the classes.
    """
    opened = records.split(split, labelled=True)

    def inverse_frequencies(names: Sequence[str], counts: Mapping[str, int]) -> list[float]:
        check_every_class_occurs(records, split, names, counts)
        total = sum(counts.values())
        return [total / (len(names) * counts[name]) for name in names]

    weights = {"authenticity": inverse_frequencies(LABELS, opened.labels)}
    if records.categories:
        weights["category"] = inverse_frequencies(records.categories, opened.categories)
    return weights


def check_every_class_occurs(records: Records, split: str, names: Sequence[str], counts: Mapping[str, int]) -> None:
    """Raise an error if a split has no example of a class.

    Args:
        names: of the classes.
        counts: examples by class name.

    Raises:
        DataError: naming the classes without an example.
    """
    absent = [name for name in names if not counts.get(name)]
    if absent:
        reason = "see left_out.csv and quarantine.csv there"
        if records.splits[split].keep:
            reason = "all were of the held-out source, or damaged"
        raise DataError(f"{records.folder} has no {' or '.join(absent)} image in {split}; {reason}")
