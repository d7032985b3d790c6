"""Batches: what is in them, how often, in which order."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from conftest import plant

from pipelines import reading
from pipelines.conversion import write_records
from pipelines.errors import DataError
from pipelines.layouts import read_layout
from pipelines.records import open_records


def seen(dataset):
    """The images of a dataset as digests, in order."""
    return [hashlib.sha256(image.tobytes()).hexdigest() for images, *_ in dataset for image in images.numpy()]


def test_a_batch_holds_images_targets_and_weights_by_head(records):
    images, targets, weights = next(iter(reading.inference(records, "train", image_size=32, batch_size=5)))
    assert (images.shape, images.dtype.name) == ((5, 32, 32, 3), "float32")
    assert 0 <= images.numpy().min() < 50
    assert 200 < images.numpy().max() <= 255
    assert (targets["authenticity"].shape, targets["authenticity"].dtype.name) == ((5, 1), "float32")
    assert (targets["category"].shape, targets["category"].dtype.name) == ((5,), "int64")
    assert weights["authenticity"].numpy().tolist() == weights["category"].numpy().tolist() == [1] * 5


def test_every_example_of_an_epoch_is_seen_once(records):
    train = reading.training(records, image_size=32, batch_size=5)
    first, second = seen(train), seen(train)
    assert len(set(first)) == 24
    assert sorted(first) == sorted(second)
    assert first != second, "every epoch has its own order"


def test_the_same_seed_gives_the_same_batches(records):
    def order(seed):
        return seen(reading.training(records, image_size=32, batch_size=5, seed=seed))

    assert order(3) == order(3)
    assert order(3) != order(4)


def test_inference_keeps_the_stored_order_which_the_facts_share(records, data):
    facts = reading.facts(records, "validation")
    batches = reading.inference(records, "validation", image_size=32, batch_size=5)
    labels = np.concatenate([targets["authenticity"].numpy()[:, 0] for _, targets, _ in batches])
    categories = np.concatenate([targets["category"].numpy() for _, targets, _ in batches])
    assert labels.tolist() == facts["label"]
    assert categories.tolist() == facts["category"]
    assert sorted(facts["path"]) == sorted(
        path.relative_to(data).as_posix() for path in (data / "validation").rglob("*.jpg")
    )


def test_unlabelled_examples_weigh_nothing(records):
    _, targets, weights = next(iter(reading.inference(records, "test", image_size=32, batch_size=5)))
    assert weights["authenticity"].numpy().tolist() == [0, 0, 0]
    assert weights["category"].numpy().tolist() == [0, 0, 0]
    assert targets["category"].numpy().min() >= 0, "a loss cannot index class -1"


def test_data_without_classes_has_one_head(tmp_path):
    data = plant(tmp_path / "data", {f"{s}/{x}": 1 for s in ("train", "val") for x in ("real", "fake")})
    write_records(read_layout(data), tmp_path / "records")
    opened = open_records(tmp_path / "records")
    _, targets, weights = next(iter(reading.training(opened, image_size=32, batch_size=2)))
    assert set(targets) == set(weights) == {"authenticity"}
    assert set(reading.class_weights(opened)) == {"authenticity"}
    assert reading.facts(opened, "train")["category"] == [-1, -1]


def test_class_weights_are_inverse_frequencies_of_mean_one(records):
    split = replace(
        records.splits["train"], labels={"real": 30, "fake": 10}, categories={"animals": 8, "vehicles": 32}
    )
    skewed = replace(records, splits={"train": split})
    weights = reading.class_weights(skewed)
    assert weights["authenticity"] == pytest.approx([2 / 3, 2])
    assert weights["category"] == pytest.approx([2.5, 0.625])
    assert np.average(weights["authenticity"], weights=[30, 10]) == pytest.approx(1)


def test_a_class_that_was_quarantined_away_is_named(records):
    split = replace(records.splits["train"], labels={"real": 30})
    with pytest.raises(DataError, match=r"has no fake image in train; see quarantine\.csv"):
        reading.class_weights(replace(records, splits={"train": split}))


def test_a_split_that_is_not_there_or_unlabelled_is_refused(records):
    with pytest.raises(DataError, match="has no split holdout; it has test, train, validation"):
        reading.inference(records, "holdout", image_size=32, batch_size=5)
    with pytest.raises(DataError, match="has no labelled split test; it has train, validation"):
        reading.training(records, "test", image_size=32, batch_size=5)
