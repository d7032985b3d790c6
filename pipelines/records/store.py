"""Records: TFRecord shards with the metadata of TensorFlow Datasets; their place, their fields and opening them.

A records folder holds shards named as TFDS names them, `features.json` and `dataset_info.json` (so that
`tfds.builder_from_directory` opens it), `records.json` (counts and the content's fingerprint) and
`quarantine.csv` and `left_out.csv` (the files that could not be read, and those that were not wanted). `conversion`
writes it.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from pipelines.datasets.examples import LABELS, SPLITS
from pipelines.exceptions import DataError

DATASET_NAME = "ddkeras"
MANIFEST = "records.json"
VERSION = 2  # of the record's fields; a folder of another version is refused
NO_CATEGORY = -1  # as TFDS stores a class label that is not known


@dataclass(frozen=True)
class Split:
    """One split of opened records: its shards in order, and how many examples it holds, in all and by name."""

    files: list[str]
    lengths: list[int]  # examples in each shard
    bytes: int  # size of all shards
    examples: int
    labels: dict[str, int]  # empty when the split is unlabelled
    categories: dict[str, int]
    kept: bytes = b""  # of each example in the shards 1, or 0 where it is left out; empty when none is


@dataclass(frozen=True)
class Records:
    """An opened records folder; see `open_records`. `categories` are the class names, by class index."""

    folder: Path
    categories: list[str]
    splits: dict[str, Split]
    fingerprint: str
    skipped: int = 0  # examples that belong to it and were left out, see `damage.without`

    @property
    def labelled_splits(self) -> list[str]:
        """The splits whose examples carry a label, in the order train, validation, test."""
        return [name for name in SPLITS if name in self.splits and self.splits[name].labels]

    def split(self, name: str, *, labelled: bool = False) -> Split:
        """The split of that name.

        Raises:
            DataError: there is none, or it is unlabelled where `labelled` asks for labels.
        """
        if name in self.splits and not self.splits[name].examples:
            raise DataError(f"{name} has no example left; make the records again with: ddk make-tfrecords DATA")
        known = self.labelled_splits if labelled else list(self.splits)
        if name not in known:
            what = "labelled split" if labelled else "split"
            raise DataError(f"{self.folder} has no {what} {name}; it has {', '.join(known)}")
        return self.splits[name]


def open_records(folder: str | os.PathLike) -> Records:
    """Open what `conversion.write_records` wrote.

    Raises:
        DataError: there are no records in `folder`, or they are of another version.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise DataError(f"there are no records in {folder}; make them with: ddk make-tfrecords DATA")
    manifest = json.loads((folder / MANIFEST).read_text())
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
    return Records(folder, categories, splits, manifest["fingerprint"])


def shard_path(folder: Path, split: str, index: int, number: int) -> Path:
    """Where the shard `index` of `number` of a split lies."""
    return Path(_template(folder, split).sharded_filepath(shard_index=index, num_shards=number))


def write_metadata(
    folder: Path, categories: list[str], shard_lengths: dict[str, list[int]], shard_bytes: dict[str, int]
) -> None:
    """Write what TFDS needs to open the shards in `folder`.

    Args:
        categories: the class names, by class index.
        shard_lengths: for each split, how many examples each of its shards holds.
        shard_bytes: for each split, the size of its shards together.
    """
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(names=LABELS),
        **{name: tfds.features.Text() for name in ("source", "group", "path", "sha256", "format", "stored")},
        **{name: tfds.features.Scalar(np.int64) for name in ("height", "width")},
    }
    if categories:
        features["category"] = tfds.features.ClassLabel(names=categories)
    tfds.folder_dataset.write_metadata(
        data_dir=os.fspath(folder),
        features=tfds.features.FeaturesDict(features),
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


def _template(folder: Path, split: str) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        dataset_name=DATASET_NAME, data_dir=folder, split=split, filetype_suffix="tfrecord"
    )
