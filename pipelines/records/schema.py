"""The fields of a record and how they are encoded in a tf.train.Example.

Everything that writes or reads a field goes through this module. TensorFlow is imported only by the functions that
need it: the process that plans a conversion needs the fields and nothing else.
"""

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_type_hints

if TYPE_CHECKING:
    import tensorflow as tf

VERSION = 2  # of the fields; a folder of another version is refused
NO_CATEGORY = -1  # as TFDS stores an unknown class label


class Stored(enum.StrEnum):
    """How the bytes in a record relate to the file they come from."""

    AS_FOUND = "as found"
    TRANSCODED = "transcoded"  # to PNG, because TensorFlow cannot decode the file
    EQUALISED = "equalised"


@dataclass(frozen=True, slots=True)
class Record:
    """One stored image and its labels.

    Attributes:
        image: the encoded image.
        label: 0 real, 1 fake, -1 unlabelled.
        source: the camera set or generator; empty when unknown.
        group: examples of one group are in the same split; empty without groups.
        path: of the file, relative to the data folder; bytes that are not UTF-8 are surrogate-escaped.
        sha256: of the file as found, in hexadecimal.
        format: of the file as found, such as `jpeg`.
        stored: how `image` relates to the file.
        height, width: of the stored image, upright, in pixels.
        category: class index, or `NO_CATEGORY`.
    """

    image: bytes
    label: int
    source: str
    group: str
    path: str
    sha256: str
    format: str
    stored: Stored
    height: int
    width: int
    category: int = NO_CATEGORY


FIELDS: Mapping[str, type] = get_type_hints(Record)  # in the order in which they are described to TFDS


class RecordSerializer:
    """Encodes records; the same record always gives the same bytes. Not for use by several threads at once."""

    def __init__(self, *, has_category: bool) -> None:
        """Prepare the message.

        Args:
            has_category: whether the data has classes. Without classes the field is left out.
        """
        self._has_category = has_category
        names = [name for name in FIELDS if has_category or name != "category"]
        self._features = FeatureSerializer({name: FIELDS[name] for name in names})

    def __call__(self, record: Record) -> bytes:
        """The serialized tf.train.Example of one record."""
        values: dict[str, bytes | int] = {
            "image": record.image,
            "label": record.label,
            "source": record.source.encode(),
            "group": record.group.encode(),
            "path": os.fsencode(record.path),
            "sha256": record.sha256.encode(),
            "format": record.format.encode(),
            "stored": record.stored.encode(),
            "height": record.height,
            "width": record.width,
        }
        if self._has_category:
            values["category"] = record.category
        return self._features(values)


def parse(serialized: bytes) -> Record:
    """Decode what a `RecordSerializer` returned."""
    import tensorflow as tf  # noqa: PLC0415

    feature = tf.train.Example.FromString(serialized).features.feature

    def content(name: str) -> bytes:
        return feature[name].bytes_list.value[0]

    def number(name: str) -> int:
        return feature[name].int64_list.value[0]

    return Record(
        image=content("image"),
        label=number("label"),
        source=content("source").decode(),
        group=content("group").decode(),
        path=decode_path(content("path")),
        sha256=content("sha256").decode(),
        format=content("format").decode(),
        stored=Stored(content("stored").decode()),
        height=number("height"),
        width=number("width"),
        category=number("category") if "category" in feature else NO_CATEGORY,
    )


def decode_path(content: bytes) -> str:
    """The path that a record's bytes stand for."""
    return os.fsdecode(content)


class FeatureSerializer:
    """Encodes one value per feature as a tf.train.Example; the bytes do not depend on the order of the features.

    The message is built once and filled again: building its fields anew takes most of the time of a small image. Not
    for use by several threads at once.
    """

    def __init__(self, types: Mapping[str, type]) -> None:
        """Build the message.

        Args:
            types: of each feature: `int`, stored as int64; or any other, stored as bytes.
        """
        import tensorflow as tf  # noqa: PLC0415

        self._example = tf.train.Example()
        self._values = {}
        feature = self._example.features.feature
        for name, kind in types.items():
            values = feature[name].int64_list.value if kind is int else feature[name].bytes_list.value
            values.append(0 if kind is int else b"")
            self._values[name] = values

    def __call__(self, values: Mapping[str, bytes | int]) -> bytes:
        """The serialized message of `values`, one for each feature."""
        for name, value in values.items():
            self._values[name][0] = value
        return self._example.SerializeToString(deterministic=True)


def feature_spec(*names: str) -> dict[str, "tf.io.FixedLenFeature"]:
    """The specification by which `tf.io.parse_example` reads these fields.

    The values are scalars, int64 or string. A category that is not stored is read as `NO_CATEGORY`.
    """
    import tensorflow as tf  # noqa: PLC0415

    return {
        name: tf.io.FixedLenFeature(
            [],
            tf.int64 if FIELDS[name] is int else tf.string,
            default_value=NO_CATEGORY if name == "category" else None,
        )
        for name in names
    }
