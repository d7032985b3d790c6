"""Examples as TFRecord shards with the metadata of TensorFlow Datasets, and opening them again.

A records folder holds shards named as TFDS names them, `features.json` and `dataset_info.json` (so that
`tfds.builder_from_directory` opens it), `records.json` (counts and the content's fingerprint) and
`quarantine.csv` (the files that could not be decoded). The encoded bytes are stored as found.
"""

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field
from itertools import groupby
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds

from pipelines import atomic
from pipelines.decoding import decode, image_format, why_unreadable
from pipelines.errors import DataError
from pipelines.layouts import LABELS, UNLABELLED, Example, Layout

DATASET_NAME = "ddkeras"
MANIFEST = "records.json"
VERSION = 1  # of the record's fields; a folder of another version is refused
NO_CATEGORY = -1  # as TFDS stores a class label that is not known
_SHARD_BYTES = 64 * 2**20  # large enough to read fast, small enough to shuffle between
_SHARDS_WANTED, _SHARD_EXAMPLES = 8, 256  # a small data set still gets shards to interleave


@dataclass(frozen=True)
class Split:
    """One split of opened records: its shards in order, and how many examples it holds, in all and by name."""

    files: list[str]
    examples: int
    labels: dict[str, int]  # empty when the split is unlabelled
    categories: dict[str, int]


@dataclass(frozen=True)
class Records:
    """An opened records folder; see `open_records`. `categories` are the class names, by class index."""

    folder: Path
    categories: list[str]
    splits: dict[str, Split]
    fingerprint: str

    @property
    def labelled_splits(self) -> list[str]:
        """The splits whose examples carry a label, in the order train, validation, test."""
        order = ("train", "validation", "test")
        return [name for name in order if name in self.splits and self.splits[name].labels]

    def split(self, name: str, *, labelled: bool = False) -> Split:
        """The split of that name.

        Raises:
            DataError: there is none, or it is unlabelled where `labelled` asks for labels.
        """
        known = self.labelled_splits if labelled else list(self.splits)
        if name not in known:
            what = "labelled split" if labelled else "split"
            raise DataError(f"{self.folder} has no {what} {name}; it has {', '.join(known)}")
        return self.splits[name]


@dataclass(frozen=True)
class Quarantined:
    """A file that was left out, and why."""

    path: str
    reason: str
    bytes: int
    sha256: str


@dataclass
class _Shard:
    """One shard: planned with its examples, then written, then counted."""

    split: str
    path: str
    examples: list[Example]
    counts: Counter = field(default_factory=Counter)  # of (label, category)
    content: int = 0  # sum of the examples' hashes, so that neither order nor sharding changes the total
    quarantined: list[Quarantined] = field(default_factory=list)


def write_records(
    layout: Layout, folder: str | os.PathLike, *, progress: Callable[[int, int], None] | None = None
) -> dict:
    """Write the examples of `layout` as records; nothing appears under `folder` before all of it is written.

    Args:
        layout: the examples, in the order they are to be stored.
        folder: where the records go; records made earlier are replaced.
        progress: called with (images done, images in all).

    Returns:
        The manifest, as stored in `records.json`: counts by split, label and category, the fingerprint, and
        read = written + quarantined.

    Raises:
        DataError: `folder` holds something that is not records, or a split has no image that can be decoded.
    """
    done = 0
    with atomic.folder(folder, marker=MANIFEST) as partial:
        shards = _plan_shards(layout, partial)
        for shard in shards:
            _write_shard(shard, layout)
            done += len(shard.examples)
            if progress:
                progress(done, len(layout.examples))
        _check_decoded(shards)
        manifest = _manifest(layout, shards)
        _write_quarantine(partial / "quarantine.csv", shards)
        _write_tfds_metadata(partial, shards, layout.categories)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def open_records(folder: str | os.PathLike) -> Records:
    """Open what `write_records` wrote.

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
        name: Split([os.fspath(path) for path in info.splits[name].filepaths], **counts)
        for name, counts in manifest["splits"].items()
    }
    categories = info.features["category"].names if "category" in info.features else []
    return Records(folder, categories, splits, manifest["fingerprint"])


# --- shards ----------------------------------------------------------------------------------------------------


def _plan_shards(layout: Layout, folder: Path) -> list[_Shard]:
    shards = []
    for split, group in groupby(layout.examples, key=lambda example: example.split):
        examples = list(group)
        size = sum(_size(layout.root / example.path) for example in examples)
        wanted = max(1, -(-size // _SHARD_BYTES), min(_SHARDS_WANTED, len(examples) // _SHARD_EXAMPLES))
        step = -(-len(examples) // wanted)
        starts = range(0, len(examples), step)
        for index, start in enumerate(starts):
            path = _template(folder, split).sharded_filepath(shard_index=index, num_shards=len(starts))
            shards.append(_Shard(split, os.fspath(path), examples[start : start + step]))
    return shards


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # reading it will say what is wrong


def _write_shard(shard: _Shard, layout: Layout) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool, tf.io.TFRecordWriter(shard.path) as writer:
        loads = pool.map(lambda example: _load(layout.root, example), shard.examples)
        for example, loaded in zip(shard.examples, loads, strict=True):
            if isinstance(loaded, Quarantined):
                shard.quarantined.append(loaded)
                continue
            writer.write(_serialise(example, loaded, layout.categories))
            line = f"{loaded['sha256']} {example.label} {example.category} {example.split}"
            shard.content += int.from_bytes(hashlib.sha256(line.encode()).digest())
            shard.counts[example.label, example.category] += 1


def _load(root: Path, example: Example) -> dict | Quarantined:
    """Read one file and decode it as a check; its bytes and what the decode told."""
    try:
        encoded = (root / example.path).read_bytes()
    except OSError as error:
        return Quarantined(example.path, error.strerror or str(error), 0, "")
    digest = hashlib.sha256(encoded).hexdigest()
    try:
        height, width, _ = decode(tf.constant(encoded)).shape
    except tf.errors.InvalidArgumentError:
        return Quarantined(example.path, why_unreadable(encoded), len(encoded), digest)
    return {
        "image": encoded,
        "sha256": digest,
        "height": height,
        "width": width,
        "format": image_format(encoded),
    }


def _serialise(example: Example, loaded: dict, categories: list[str]) -> bytes:
    values = {
        **loaded,
        "label": example.label,
        "path": os.fsencode(example.path),
        "source": example.source,
    }
    if categories:
        values["category"] = categories.index(example.category) if example.category else NO_CATEGORY
    features = tf.train.Features(feature={name: _feature(value) for name, value in values.items()})
    return tf.train.Example(features=features).SerializeToString(deterministic=True)


def _feature(value: int | str | bytes) -> tf.train.Feature:
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    encoded = value.encode() if isinstance(value, str) else value
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))


# --- metadata --------------------------------------------------------------------------------------------------


def _check_decoded(shards: list[_Shard]) -> None:
    for split, group in groupby(shards, key=lambda shard: shard.split):
        parts = list(group)
        if not any(shard.counts for shard in parts):
            first = parts[0].quarantined[0]
            raise DataError(f"no image of {split} can be read, the first is {first.path}: {first.reason}")


def _manifest(layout: Layout, shards: list[_Shard]) -> dict:
    written = sum(shard.counts.total() for shard in shards)
    content = sum(shard.content for shard in shards) % 2**256
    return {
        "version": VERSION,
        "fingerprint": f"{content:064x}",
        "source": os.fspath(layout.root.resolve()),
        "read": len(layout.examples),
        "written": written,
        "quarantined": len(layout.examples) - written,
        "categories": layout.categories,
        "splits": {
            split: _split_counts([shard.counts for shard in group])
            for split, group in groupby(shards, key=lambda shard: shard.split)
        },
    }


def _split_counts(counts: list[Counter]) -> dict:
    total = sum(counts, Counter())
    labels, categories = Counter(), Counter()
    for (label, category), number in sorted(total.items()):
        if label != UNLABELLED:
            labels[LABELS[label]] += number
        if category:
            categories[category] += number
    return {"examples": total.total(), "labels": dict(labels), "categories": dict(categories)}


def _write_quarantine(path: Path, shards: list[_Shard]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "reason", "bytes", "sha256"])
        writer.writerows(astuple(bad) for shard in shards for bad in shard.quarantined)


def _template(folder: Path, split: str) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        dataset_name=DATASET_NAME, data_dir=folder, split=split, filetype_suffix="tfrecord"
    )


def _write_tfds_metadata(folder: Path, shards: list[_Shard], categories: list[str]) -> None:
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(names=LABELS),
        "source": tfds.features.Text(),
        "path": tfds.features.Text(),
        "sha256": tfds.features.Text(),
        "height": tfds.features.Scalar(tf.int64),
        "width": tfds.features.Scalar(tf.int64),
        "format": tfds.features.Text(),
    }
    if categories:
        features["category"] = tfds.features.ClassLabel(names=categories)
    split_infos = []
    for split, group in groupby(shards, key=lambda shard: shard.split):
        parts = list(group)
        split_infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[shard.counts.total() for shard in parts],
                num_bytes=sum(os.path.getsize(shard.path) for shard in parts),
                filename_template=_template(folder, split),
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=os.fspath(folder),
        features=tfds.features.FeaturesDict(features),
        split_infos=split_infos,
        description="Real and generated images, encoded as found.",
    )
