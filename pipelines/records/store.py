"""Opening records: TFRecord shards with the metadata of TensorFlow Datasets.

A records folder holds shards named as TFDS names them, `features.json` and `dataset_info.json` (so that
`tfds.builder_from_directory` opens it), `records.json` (counts and the fingerprint of the content),
`quarantine.csv` (files that could not be read) and `left_out.csv` (files that were not wanted). `conversion` writes
it.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import json_format

from pipelines.datasets.examples import LABELS, SPLITS
from pipelines.exceptions import DataError
from pipelines.intervals import MIN_IMAGES
from pipelines.records.schema import FIELDS, VERSION

DATASET_NAME = "ddkeras"
MANIFEST = "records.json"


class SplitCounts(TypedDict):
    """The number of examples of a split: in all, by label and by class name; unlabelled ones have no label."""

    examples: int
    labels: dict[str, int]
    categories: dict[str, int]


class Manifest(TypedDict):
    """The content of `records.json`; read = written + quarantined."""

    version: int
    fingerprint: str
    source: str  # the data folder
    equalised: str  # `resize` or `crop`, empty if the images are not; absent until 0.2.0
    left_out: int  # files that were not wanted, before reading
    read: int
    written: int
    quarantined: int
    categories: list[str]  # class names, by class index
    splits: dict[str, SplitCounts]


@dataclass(frozen=True)
class Split:
    """One split of opened records.

    Attributes:
        files: the shards, in order.
        lengths: number of examples in each shard.
        size: of all shards together, in bytes.
        examples: number of examples, masked ones not counted.
        labels: number of examples by label; empty when the split is unlabelled.
        categories: number of examples by class name.
        keep: one byte per example in the shards, 0 for those that are masked; empty when none is.
    """

    files: list[str]
    lengths: list[int]
    size: int
    examples: int
    labels: dict[str, int]
    categories: dict[str, int]
    keep: bytes = b""

    @property
    def keep_mask(self) -> np.ndarray:
        """Which examples in the shards belong to the split: bool (sum(lengths),), in stored order."""
        return np.frombuffer(self.keep, bool) if self.keep else np.ones(sum(self.lengths), bool)


@dataclass(frozen=True)
class Records:
    """An opened records folder; see `open_records`.

    Attributes:
        folder: where the records are.
        categories: the class names, by class index.
        splits: by name.
        fingerprint: of the content, independent of order and shards.
        skipped: number of damaged examples that were left out; see `corruption.drop_corrupt`.
        equalised: how the images were equalised: `resize`, `crop`, or empty if they were not; None in records of
            0.2.0 and earlier, which do not say. `queries.equalisation` tells for all.
    """

    folder: Path
    categories: list[str]
    splits: dict[str, Split]
    fingerprint: str
    skipped: int = 0
    equalised: str | None = None

    @property
    def labelled_splits(self) -> list[str]:
        """The splits whose examples have labels, in the order train, validation, test."""
        return [name for name in SPLITS if name in self.splits and self.splits[name].labels]

    @property
    def few_images(self) -> list[str]:
        """A sentence for each label of which a split has fewer than `MIN_IMAGES` images, or validation none.

        A test split may have one label alone: it is there to be measured.
        """
        counts = [
            (split, label, self.splits[split].labels.get(label, 0))
            for split in self.labelled_splits
            for label in LABELS
        ]
        return [
            f"{split} has {number or 'no'} {label} image{'' if number == 1 else 's'}: {_consequence(split, number)}; "
            "add images"
            for split, label, number in counts
            if number < MIN_IMAGES and (number or split == "validation")
        ]

    def split(self, name: str, *, labelled: bool = False) -> Split:
        """The split of that name.

        Args:
            labelled: require labels.

        Raises:
            DataError: there is no such split, it is empty, or it is unlabelled and `labelled` requires labels.
        """
        if name in self.splits and not self.splits[name].examples:
            raise DataError(f"{name} has no example left; make the records again with: ddk make-tfrecords DATA")
        names = self.labelled_splits if labelled else list(self.splits)
        if name not in names:
            kind = "labelled split" if labelled else "split"
            raise DataError(f"{self.folder} has no {kind} {name}; it has {', '.join(names)}")
        return self.splits[name]


def open_records(folder: str | os.PathLike) -> Records:
    """Open what `conversion.write_records` wrote.

    Raises:
        DataError: there are no records in `folder`, they are of another version, or a file that describes them is
            damaged.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise DataError(f"there are no records in {folder}; make them with: ddk make-tfrecords DATA")
    try:
        return _open(folder)
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, json_format.ParseError) as error:
        described = f"{MANIFEST}, dataset_info.json or features.json"
        raise DataError(
            f"{folder} is damaged, in {described}; make the records again with: ddk make-tfrecords DATA"
        ) from error


def _open(folder: Path) -> Records:
    manifest: Manifest = json.loads((folder / MANIFEST).read_text())
    if manifest["version"] != VERSION:
        raise DataError(f"{folder} holds records of version {manifest['version']}, not {VERSION}; make them again")
    info = tfds.builder_from_directory(os.fspath(folder)).info
    splits = {
        name: Split(
            [os.fspath(path) for path in info.splits[name].filepaths],
            info.splits[name].shard_lengths,
            info.splits[name].num_bytes,
            **counts,
        )
        for name, counts in manifest["splits"].items()
    }
    categories = info.features["category"].names if "category" in info.features else []
    return Records(folder, categories, splits, manifest["fingerprint"], equalised=manifest.get("equalised"))


def shard_path(folder: Path, split: str, index: int, number: int) -> Path:
    """The path of shard `index` of `number` of a split."""
    return Path(_template(folder, split).sharded_filepath(shard_index=index, num_shards=number))


def write_metadata(
    folder: Path, categories: list[str], shard_lengths: Mapping[str, list[int]], shard_bytes: Mapping[str, int]
) -> None:
    """Write what TFDS needs to open the shards in `folder`.

    Args:
        folder: where the shards are.
        categories: the class names, by class index.
        shard_lengths: by split, the number of examples in each shard.
        shard_bytes: by split, the size of its shards together.
    """
    tfds.folder_dataset.write_metadata(
        data_dir=os.fspath(folder),
        features=tfds.features.FeaturesDict(_features(categories)),
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=lengths,
                num_bytes=shard_bytes[split],
                filename_template=_template(folder, split),
            )
            for split, lengths in shard_lengths.items()
        ],
        description="Real and generated images.",
        check_data=False,  # it would load TensorFlow to read one example; the conversion has checked every one
    )


def _consequence(split: str, number: int) -> str:
    """Of so few images of a label in a split."""
    if not number:
        return "the epoch is chosen on one label, and no thresholds can be fitted"
    return "too few to learn from" if split == "train" else f"numbers from fewer than {MIN_IMAGES} say little"


def _features(categories: list[str]) -> dict[str, tfds.features.FeatureConnector]:
    """The fields of a record as TFDS describes them; without classes there is no `category`."""
    features = {
        name: tfds.features.Scalar(np.int64) if kind is int else tfds.features.Text() for name, kind in FIELDS.items()
    }
    features["image"] = tfds.features.Image(shape=(None, None, 3))
    features["label"] = tfds.features.ClassLabel(names=LABELS)
    del features["category"]
    if categories:
        features["category"] = tfds.features.ClassLabel(names=categories)
    return features


def _template(folder: Path, split: str) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        dataset_name=DATASET_NAME, data_dir=folder, split=split, filetype_suffix="tfrecord"
    )
