"""Batches: what is in them, how often, in which order."""

import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from conftest import plant
from PIL import Image

from pipelines import cache, reading
from pipelines.conversion import write_records
from pipelines.errors import DataError
from pipelines.layouts import read_layout
from pipelines.records import open_records


def batches(dataset):
    """The images of each batch, as digests."""
    return [[hashlib.sha256(image.tobytes()).hexdigest() for image in images.numpy()] for images, *_ in dataset]


def flat(lists):
    """One list of what several hold."""
    return list(itertools.chain.from_iterable(lists))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The opened records of 2,048 images of one pixel each, and some more for validation."""
    data, folder = tmp_path_factory.mktemp("many"), tmp_path_factory.mktemp("made") / "records"
    for split, number in (("train", 1024), ("validation", 2)):
        for label, name in enumerate(("real", "fake")):
            (data / split / name).mkdir(parents=True)
            for index in range(number):
                pixel = Image.new("RGB", (1, 1), (label, index // 256, index % 256))
                pixel.save(data / split / name / f"{index}.png")
    write_records(read_layout(data), folder)
    return open_records(folder)


def test_a_batch_holds_images_targets_and_weights_by_head(records):
    images, targets, weights = next(iter(reading.inference(records, "train", image_size=32, batch_size=5)))
    assert (images.shape, images.dtype.name) == ((5, 32, 32, 3), "uint8")
    assert 0 <= images.numpy().min() < 50
    assert 200 < images.numpy().max() <= 255
    assert (targets["authenticity"].shape, targets["authenticity"].dtype.name) == ((5, 1), "float32")
    assert (targets["category"].shape, targets["category"].dtype.name) == ((5,), "int64")
    assert weights["authenticity"].numpy().tolist() == weights["category"].numpy().tolist() == [1] * 5


def test_every_example_of_an_epoch_is_seen_once_before_the_next_begins(records):
    epochs = batches(reading.training(records, image_size=32, batch_size=5, epochs=3, seed=0))
    assert [len(batch) for batch in epochs] == [5, 5, 5, 5, 4] * 3
    first, second, third = (flat(epochs[i : i + 5]) for i in (0, 5, 10))
    assert len(set(first)) == 24
    assert sorted(first) == sorted(second) == sorted(third)
    assert first != second != third, "every epoch has its own order"


def test_the_same_seed_gives_the_same_batches_whatever_else_is_random(records):
    def order(seed):
        return batches(reading.training(records, image_size=32, batch_size=5, epochs=2, seed=seed))

    tf.random.set_seed(1)
    expected = order(3)
    tf.random.set_seed(2)
    assert order(3) == expected
    assert order(4) != expected
    assert order(None) != order(None)


def test_an_order_mixes_the_examples_of_many_shards(many):
    assert len(many.splits["train"].files) == 8
    stored = flat(batches(reading.inference(many, "train", image_size=4, batch_size=64)))
    mixed = flat(batches(reading.training(many, image_size=4, batch_size=64, seed=0)))
    places = [stored.index(image) for image in mixed]
    assert sorted(places) == list(range(2048))
    # Were the order random, a step from one example to the next would be a third of the split in the mean.
    assert np.abs(np.diff(places)).mean() == pytest.approx(2048 / 3, rel=0.1)


@pytest.mark.parametrize("start", [0, 1, 4, 5, 6, 13, 14])
@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_a_stream_is_taken_up_again_after_any_step(records, start, cache):
    """Wherever images are kept, and wherever they were kept before."""
    options = {"image_size": 32, "batch_size": 5, "epochs": 3, "seed": 7}
    whole = batches(reading.training(records, **options))
    rest = reading.training(records, start=start, cache=cache, **options)
    assert len(rest) == 15 - start
    assert batches(rest) == whole[start:]


@pytest.mark.parametrize("start", [-1, 16])
def test_there_is_nothing_before_the_start_and_after_the_end(records, start):
    with pytest.raises(ValueError, match="start must be from 0 to 15, the batches of 3 epochs"):
        reading.training(records, image_size=32, batch_size=5, epochs=3, start=start)
    assert batches(reading.training(records, image_size=32, batch_size=5, epochs=3, start=15)) == []


def test_without_a_seed_an_epoch_still_ends_before_the_next_begins(records):
    got = batches(reading.training(records, image_size=32, batch_size=5, epochs=40))
    epochs = [sorted(flat(got[at : at + 5])) for at in range(0, 200, 5)]
    assert all(epoch == epochs[0] for epoch in epochs)
    assert len(set(epochs[0])) == 24


def test_what_was_seen_is_not_decoded_again(records, monkeypatch):
    decoded = []

    def decode(encoded, size):
        tf.numpy_function(lambda some: decoded.append(len(some)), [encoded], [])
        return tf.zeros((tf.size(encoded), size, size, 3), tf.uint8)

    monkeypatch.setattr(cache, "decode_and_resize", decode)
    assert len(list(reading.training(records, image_size=32, batch_size=5, epochs=2, start=7, seed=0))) == 3
    assert sum(decoded) == 14


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


# --- service ---------------------------------------------------------------------------------------------------


def test_a_service_of_two_workers_gives_every_example_of_an_epoch_once(many):
    dispatcher = tf.data.experimental.service.DispatchServer()
    address = dispatcher.target.partition("://")[2]
    workers = [
        tf.data.experimental.service.WorkerServer(
            tf.data.experimental.service.WorkerConfig(dispatcher_address=address)
        )
        for _ in range(2)
    ]
    options = {"image_size": 4, "batch_size": 100, "epochs": 2}
    served = batches(reading.training(many, service=dispatcher.target, seed=0, **options))
    expected = sorted(flat(batches(reading.inference(many, "train", image_size=4, batch_size=100))))
    assert [len(batch) for batch in served] == ([100] * 20 + [48]) * 2
    assert sorted(flat(served[:21])) == sorted(flat(served[21:])) == expected
    left = reading.training(many, service=dispatcher.target, seed=0, start=30, **options)
    assert [len(batch) for batch in batches(left)] == [100] * 11 + [48]
    assert batches(reading.training(many, service=dispatcher.target, seed=0, start=42, **options)) == []
    assert len(workers) == 2


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("grpc://[::1]:1", r"no tf\.data service answers at grpc://\[::1\]:1 \("),
        ("localhost:5050", "localhost:5050 is no address of a tf.data service; one looks like grpc://host:5050"),
        ("grpc://localhost", "grpc://localhost is no address"),
        (
            "grpc://localhost:1",
            r"no tf\.data service answers at grpc://localhost:1 \(.*refused\); start its dispatcher",
        ),
        ("grpc://localhost:99999", r"no tf\.data service answers at grpc://localhost:99999"),
    ],
)
def test_a_service_that_is_not_there_is_an_error_and_no_wait(records, address, message):
    with pytest.raises(DataError, match=message):
        reading.training(records, image_size=32, batch_size=5, service=address)
