"""The fields of a record: their bytes, and that all ways to read them agree."""

import os
from dataclasses import replace

import pytest
import tensorflow as tf

from pipelines.records import schema
from pipelines.records.schema import NO_CATEGORY, Record, RecordSerializer, Stored

RECORD = Record(
    image=b"\xff\xd8\xff",
    label=-1,
    source="cam\N{LATIN SMALL LETTER E WITH ACUTE}ra",
    group="",
    path=os.fsdecode(b"real/\xff.jpg"),
    sha256="ab",
    format="jpeg",
    stored=Stored.AS_FOUND,
    height=300,
    width=2,
    category=1,
)
# As written before this module existed.
BYTES = bytes.fromhex(
    "0adc010a110a0863617465676f727912051a030a01010a120a06666f726d617412080a060a046a7065670a0d0a0567726f757012040a020a00"
    "0a100a0668656967687412061a040a02ac020a100a05696d61676512070a050a03ffd8ff0a170a056c6162656c120e1a0c0a0affffffffffff"
    "ffffff010a160a0470617468120e0a0c0a0a7265616c2fff2e6a70670a100a0673686132353612060a040a0261620a150a06736f7572636512"
    "0b0a090a0763616dc3a972610a160a0673746f726564120c0a0a0a08617320666f756e640a0e0a05776964746812051a030a0102"
)


def test_records_are_written_byte_for_byte_as_before_and_old_ones_are_read():
    assert RecordSerializer(has_category=True)(RECORD) == BYTES
    assert schema.parse(BYTES) == RECORD


def test_without_classes_there_is_no_category_field():
    serialized = RecordSerializer(has_category=False)(RECORD)
    assert "category" not in tf.train.Example.FromString(serialized).features.feature
    assert schema.parse(serialized) == replace(RECORD, category=NO_CATEGORY)


@pytest.mark.parametrize("stored", Stored)
def test_parsing_inverts_serializing(stored):
    record = replace(RECORD, stored=stored, label=1, category=NO_CATEGORY)
    assert schema.parse(RecordSerializer(has_category=True)(record)) == record


def test_tensorflow_parses_the_same_values():
    fields = tf.io.parse_single_example(BYTES, schema.feature_spec(*schema.FIELDS))
    assert {name: value.numpy() for name, value in fields.items()} == {
        "image": b"\xff\xd8\xff",
        "label": -1,
        "source": "cam\N{LATIN SMALL LETTER E WITH ACUTE}ra".encode(),
        "group": b"",
        "path": b"real/\xff.jpg",
        "sha256": b"ab",
        "format": b"jpeg",
        "stored": b"as found",
        "height": 300,
        "width": 2,
        "category": 1,
    }


def test_tensorflow_reads_a_missing_category_as_minus_one():
    serialized = RecordSerializer(has_category=False)(RECORD)
    assert tf.io.parse_single_example(serialized, schema.feature_spec("category"))["category"].numpy() == -1


def test_features_do_not_depend_on_their_order():
    first = schema.FeatureSerializer({"image": bytes, "label": int})({"image": b"pixels", "label": 1})
    assert schema.FeatureSerializer({"label": int, "image": bytes})({"label": 1, "image": b"pixels"}) == first


def test_a_record_leaves_nothing_behind_in_the_next():
    serialize = RecordSerializer(has_category=True)
    serialize(replace(RECORD, image=b"longer than the next", source="another", category=7, label=1))
    assert serialize(RECORD) == BYTES
