"""Batches: their content and their order."""

import hashlib
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tiny import plant

from pipelines import views
from pipelines.datasets.layouts import read_layout
from pipelines.exceptions import DataError
from pipelines.loading.batches import inference_batches, steps_per_epoch, training_batches
from pipelines.records import queries
from pipelines.records.conversion import write_records
from pipelines.records.store import open_records
from pipelines.views import Squash, Windows


def batches(dataset):
    """The images of each batch, as digests."""
    return [[hashlib.sha256(image.tobytes()).hexdigest() for image in images.numpy()] for images, *_ in dataset]


def flat(lists):
    """The concatenated lists."""
    return list(itertools.chain.from_iterable(lists))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The opened records of 768 real and 1,280 fake images of one pixel each, and some more for validation."""
    data, folder = tmp_path_factory.mktemp("many"), tmp_path_factory.mktemp("made") / "records"
    for split, numbers in (("train", (768, 1280)), ("validation", (2, 2))):
        for label, name in enumerate(("real", "fake")):
            (data / split / name).mkdir(parents=True)
            for index in range(numbers[label]):
                pixel = Image.new("RGB", (1, 1), (label, index // 256, index % 256))
                pixel.save(data / split / name / f"{index}.png")
    write_records(read_layout(data), folder)
    return open_records(folder)


def test_a_batch_has_images_targets_and_weights_by_head(records):
    images, targets, weights = next(iter(inference_batches(records, "train", view=Squash(32), batch_size=5)))
    assert (images.shape, images.dtype.name) == ((5, 32, 32, 3), "uint8")
    assert 0 <= images.numpy().min() < 50
    assert 200 < images.numpy().max() <= 255
    assert (targets["authenticity"].shape, targets["authenticity"].dtype.name) == ((5, 1), "float32")
    assert (targets["category"].shape, targets["category"].dtype.name) == ((5,), "int64")
    assert weights["authenticity"].numpy().tolist() == weights["category"].numpy().tolist() == [1] * 5


def test_every_example_of_an_epoch_is_seen_once_before_the_next_begins(records):
    epochs = batches(training_batches(records, view=Squash(32), batch_size=5, epochs=3, seed=0))
    assert [len(batch) for batch in epochs] == [5, 5, 5, 5, 4] * 3
    first, second, third = (flat(epochs[i : i + 5]) for i in (0, 5, 10))
    assert len(set(first)) == 24
    assert sorted(first) == sorted(second) == sorted(third)
    assert first != second != third, "every epoch has its own order"


def test_batches_depend_on_the_seed_and_not_on_the_global_seed(records):
    def order(seed):
        return batches(training_batches(records, view=Squash(32), batch_size=5, epochs=2, seed=seed))

    tf.random.set_seed(1)
    expected = order(3)
    tf.random.set_seed(2)
    assert order(3) == expected
    assert order(4) != expected
    assert order(None) != order(None)


def test_examples_of_all_shards_are_mixed(many):
    assert len(many.splits["train"].files) == 8
    stored = flat(batches(inference_batches(many, "train", view=Squash(4), batch_size=64)))
    mixed = flat(batches(training_batches(many, view=Squash(4), batch_size=64, seed=0)))
    places = [stored.index(image) for image in mixed]
    assert sorted(places) == list(range(2048))
    # In a random order the mean distance between consecutive examples is a third of the split.
    assert np.abs(np.diff(places)).mean() == pytest.approx(2048 / 3, rel=0.1)


@pytest.mark.parametrize("start", [0, 1, 4, 5, 6, 13, 14])
@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_training_resumes_after_any_step(records, start, cache):
    """Whatever the cache is, and whatever it was before."""
    options = {"view": Squash(32), "batch_size": 5, "epochs": 3, "seed": 7}
    whole = batches(training_batches(records, **options))
    rest = training_batches(records, start=start, cache=cache, **options)
    assert len(rest) == 15 - start
    assert batches(rest) == whole[start:]


@pytest.mark.parametrize("start", [-1, 16])
def test_a_start_outside_the_epochs_is_refused(records, start):
    with pytest.raises(ValueError, match="start must be from 0 to 15, the batches of 3 epochs"):
        training_batches(records, view=Squash(32), batch_size=5, epochs=3, start=start)
    assert batches(training_batches(records, view=Squash(32), batch_size=5, epochs=3, start=15)) == []


def test_without_a_seed_an_epoch_still_ends_before_the_next_begins(records):
    got = batches(training_batches(records, view=Squash(32), batch_size=5, epochs=40))
    epochs = [sorted(flat(got[at : at + 5])) for at in range(0, 200, 5)]
    assert all(epoch == epochs[0] for epoch in epochs)
    assert len(set(epochs[0])) == 24


@pytest.fixture
def decoded(monkeypatch):
    """The numbers of images decoded at a time; each is black."""
    decoded = []

    def decode(encoded, size):
        tf.numpy_function(lambda some: decoded.append(len(some)), [encoded], [])
        return tf.zeros((tf.size(encoded), size, size, 3), tf.uint8)

    monkeypatch.setattr(views, "decode_and_resize", decode)
    return decoded


def test_skipped_batches_are_not_decoded(records, decoded):
    assert len(list(training_batches(records, view=Squash(32), batch_size=5, epochs=2, start=7, seed=0))) == 3
    assert sum(decoded) == 14


def test_inference_and_metadata_have_the_stored_order(records, data):
    metadata = queries.metadata(records, "validation")
    batches = inference_batches(records, "validation", view=Squash(32), batch_size=5)
    labels = np.concatenate([targets["authenticity"].numpy()[:, 0] for _, targets, _ in batches])
    categories = np.concatenate([targets["category"].numpy() for _, targets, _ in batches])
    assert labels.tolist() == metadata["label"]
    assert categories.tolist() == metadata["category"]
    assert sorted(metadata["path"]) == sorted(
        path.relative_to(data).as_posix() for path in (data / "validation").rglob("*.jpg")
    )


def test_unlabelled_examples_have_weights_of_zero(records):
    _, targets, weights = next(iter(inference_batches(records, "test", view=Squash(32), batch_size=5)))
    assert weights["authenticity"].numpy().tolist() == [0, 0, 0]
    assert weights["category"].numpy().tolist() == [0, 0, 0]
    assert targets["category"].numpy().min() >= 0, "a loss cannot index class -1"


def test_data_without_classes_has_one_head(tmp_path):
    data = plant(tmp_path / "data", {f"{s}/{x}": 1 for s in ("train", "val") for x in ("real", "fake")})
    write_records(read_layout(data), tmp_path / "records")
    opened = open_records(tmp_path / "records")
    _, targets, weights = next(iter(training_batches(opened, view=Squash(32), batch_size=2)))
    assert set(targets) == set(weights) == {"authenticity"}
    assert set(queries.class_weights(opened)) == {"authenticity"}
    assert queries.metadata(opened, "train")["category"] == [-1, -1]


def test_a_missing_or_unlabelled_split_is_refused(records):
    with pytest.raises(DataError, match="has no split holdout; it has test, train, validation"):
        inference_batches(records, "holdout", view=Squash(32), batch_size=5)
    with pytest.raises(DataError, match="has no labelled split test; it has train, validation"):
        training_batches(records, "test", view=Squash(32), batch_size=5)


# --- undersampling -----------------------------------------------------------------------------------------------


def pixels(dataset):
    """The only pixel of each image of each batch; in `many` its first channel is the label."""
    return [[tuple(image) for image in images.numpy()[:, 0, 0].tolist()] for images, *_ in dataset]


def real_and_fake(batches):
    """The real and the fake images of an epoch, in which each occurs once."""
    images = flat(batches)
    assert len(set(images)) == len(images)
    return [{image for image in images if image[0] == label} for label in (0, 1)]


UNDERSAMPLED = {"view": Squash(1), "batch_size": 200, "epochs": 2, "seed": 0, "undersample": True}


@pytest.fixture(scope="module")
def undersampled(many):
    """Two epochs of 8 batches of as many real as fake images."""
    dataset = training_batches(many, **UNDERSAMPLED)
    assert len(dataset) == 16
    return pixels(dataset)


def test_undersampling_takes_all_of_the_rarer_label_and_as_many_of_the_other(undersampled):
    assert [len(batch) for batch in undersampled] == ([200] * 7 + [136]) * 2
    for epoch in (undersampled[:8], undersampled[8:]):
        real, fake = real_and_fake(epoch)
        assert (len(real), len(fake)) == (768, 768)


def test_undersampling_draws_other_examples_in_each_epoch(many, undersampled):
    (_, first), (_, second) = real_and_fake(undersampled[:8]), real_and_fake(undersampled[8:])
    # Each has 0.6 of the 1,280, and of the other's 768.
    assert len(first & second) == pytest.approx(461, abs=30)
    assert pixels(training_batches(many, **UNDERSAMPLED | {"seed": 1})) != undersampled


@pytest.mark.parametrize(("cache", "start"), [("none", 3), ("none", 8), ("memory", 0), ("memory", 11), ("disk", 7)])
def test_undersampled_training_resumes_after_any_step(many, undersampled, cache, start):
    """Whatever the cache is."""
    rest = training_batches(many, start=start, cache=cache, **UNDERSAMPLED)
    assert len(rest) == 16 - start
    assert pixels(rest) == undersampled[start:]


# --- excluded sources --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sourced(tmp_path_factory):
    """The opened records of 60 images of one pixel, whose first two channels are the label and the source."""
    data, folder = tmp_path_factory.mktemp("sourced"), tmp_path_factory.mktemp("made") / "records"
    rows = ["image_path,label,class,source"]
    for split, each in (("train", 16), ("validation", 4)):
        for number, (label, kind, source) in enumerate(
            ((0, "cats", "camera"), (1, "cats", "gan"), (1, "dogs", "flux"))
        ):
            for index in range(each):
                path = data / split / f"{number}-{index}.png"
                path.parent.mkdir(exist_ok=True)
                Image.new("RGB", (1, 1), (label, number, index)).save(path)
                rows.append(f"{split}/{path.name},{label},{kind},{source}")
    (data / "metadata.csv").write_text("\n".join(rows) + "\n")
    write_records(read_layout(data), folder)
    return open_records(folder)


def test_a_source_can_be_excluded(sourced):
    without = queries.exclude_source(sourced, "gan")
    assert (without.splits["train"].examples, without.splits["validation"].examples) == (32, 8)
    assert without.splits["train"].labels == {"real": 16, "fake": 16}
    assert without.splits["train"].categories == {"cats": 16, "dogs": 16}
    assert queries.class_weights(without) == {"authenticity": [1, 1], "category": [1, 1]}
    assert set(queries.metadata(without, "validation")["source"]) == {"camera", "flux"}
    assert sourced.splits["train"].examples == 48, "the original records are not changed"


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_examples_of_an_excluded_source_are_neither_trained_on_nor_scored(sourced, cache):
    without = queries.exclude_source(sourced, "gan")
    options = {"view": Squash(1), "batch_size": 7, "cache": cache}
    trained = pixels(training_batches(without, epochs=2, seed=0, **options))
    assert [len(batch) for batch in trained] == [7, 7, 7, 7, 4] * 2
    expected = sorted((int(number > 0), number, index) for number in (0, 2) for index in range(16))
    assert sorted(flat(trained[:5])) == sorted(flat(trained[5:])) == expected
    assert pixels(training_batches(without, epochs=2, seed=0, start=6, **options)) == trained[6:]
    scored = flat(pixels(inference_batches(without, "validation", **options)))
    metadata = queries.metadata(without, "validation")
    assert [f"validation/{number}-{index}.png" for _, number, index in scored] == metadata["path"]
    whole = pixels(inference_batches(sourced, "validation", **options))
    assert len(flat(whole)) == 12, "also when the images of the others are cached"


def test_undersampling_does_not_draw_from_an_excluded_source(sourced):
    without = queries.exclude_source(sourced, "flux")
    drawn = flat(pixels(training_batches(without, view=Squash(1), batch_size=8, seed=0, undersample=True)))
    assert sorted({pixel[:2] for pixel in drawn}) == [(0, 0), (1, 1)]
    assert len(drawn) == 32


def test_an_unknown_source_is_named_together_with_the_known_ones(sourced, records):
    with pytest.raises(
        DataError, match=r"no image comes from the source gann; the sources of .* are camera, flux, gan$"
    ):
        queries.exclude_source(sourced, "gann")
    with pytest.raises(DataError, match=r"are none: name them in the source column of metadata\.csv"):
        queries.exclude_source(records, "gan")


# --- steps -----------------------------------------------------------------------------------------------------


def test_steps_per_epoch_are_known_without_reading_the_records(records):
    split = replace(records.splits["train"], examples=40, labels={"real": 30, "fake": 10})
    assert steps_per_epoch(split, 8) == 5
    assert steps_per_epoch(split, 8, undersample=True) == 3
    assert steps_per_epoch(split, 10, undersample=True) == 2


def test_undersampling_to_a_label_without_images_is_refused(records):
    split = replace(records.splits["train"], labels={"real": 30})
    with pytest.raises(DataError, match=r"has no fake image in train; see left_out\.csv and quarantine\.csv"):
        training_batches(replace(records, splits={"train": split}), view=Squash(32), batch_size=5, undersample=True)


def test_reading_labels_locates_corrupt_records(many, tmp_path):
    split = many.splits["train"]
    shard = tmp_path / "shard"
    content = bytearray(Path(split.files[0]).read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    damaged = replace(many, splits={"train": replace(split, files=[str(shard), *split.files[1:]])})
    with pytest.raises(DataError, match="shard, record 0: its content is corrupt"):
        training_batches(damaged, **UNDERSAMPLED)


# --- replicas ----------------------------------------------------------------------------------------------------

SHARED = {"view": Squash(32), "batch_size": 5, "epochs": 2, "seed": 7}


@pytest.fixture(scope="module")
def whole(records):
    """Two epochs of 24 examples: batches of 5, 5, 5, 5 and 4, twice."""
    return batches(training_batches(records, **SHARED))


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_the_batches_of_all_replicas_make_up_the_global_batch(records, whole, cache):
    first_two = training_batches(records, replicas=3, local_replicas=range(2), cache=cache, **SHARED)
    last = training_batches(records, replicas=3, local_replicas=range(2, 3), cache=cache, **SHARED)
    assert (len(first_two), len(last)) == (20, 10)
    first_two, last = batches(first_two), batches(last)
    assert [len(part) for part in first_two] == [1, 2, 1, 2, 1, 2, 1, 2, 1, 1] * 2
    assert [len(part) for part in last] == [2] * 10
    assert [[*a, *b, *c] for a, b, c in zip(first_two[::2], first_two[1::2], last, strict=True)] == whole


def test_by_default_all_replicas_are_local(records, whole):
    parts = batches(training_batches(records, replicas=2, **SHARED))
    assert [len(part) for part in parts] == [2, 3, 2, 3, 2, 3, 2, 3, 2, 2] * 2
    assert [[*a, *b] for a, b in zip(parts[::2], parts[1::2], strict=True)] == whole


@pytest.mark.parametrize("start", [3, 5, 7, 10])
def test_replicas_resume_after_any_global_batch(records, whole, start):
    rest = training_batches(records, replicas=3, local_replicas=range(2, 0, -1), start=start, **SHARED)
    assert len(rest) == 2 * (10 - start)
    assert batches(rest) == flat(
        [batch[len(batch) * 2 // 3 :], batch[1 : len(batch) * 2 // 3]] for batch in whole[start:]
    )


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_a_replica_without_examples_gets_one_with_weights_of_zero(records, whole, cache):
    parts = list(training_batches(records, replicas=8, cache=cache, **SHARED))
    assert {images.shape[0] for images, *_ in parts} == {1}
    of_five, of_four = [0, 1, 0, 1, 1, 0, 1, 1], [0, 1, 0, 1, 0, 1, 0, 1]
    for head in ("authenticity", "category"):
        assert flat(weights[head].numpy() for *_, weights in parts) == (of_five * 4 + of_four) * 2
    a, b, c, d, e = whole[0]
    assert flat(batches(parts[:8])) == [a, a, a, b, c, a, d, e]
    a, b, c, d = whole[4]
    assert flat(batches(parts[32:40])) == [a, a, a, b, a, c, a, d]


def test_images_of_other_replicas_are_not_decoded(records, decoded):
    assert len(list(training_batches(records, replicas=5, local_replicas=range(1, 3), start=6, **SHARED))) == 8
    assert sorted(decoded) == [1] * 8


def test_undersampled_batches_are_divided_among_replicas_too(many, undersampled):
    parts = pixels(training_batches(many, replicas=2, start=12, **UNDERSAMPLED))
    assert [len(part) for part in parts] == [100] * 6 + [68] * 2
    assert flat(parts) == flat(undersampled[12:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"replicas": 2, "local_replicas": range(1, 3)},
            r"local_replicas must be some of range\(0, 2\), not range\(1, 3\)",
        ),
        (
            {"replicas": 2, "local_replicas": range(0)},
            r"local_replicas must be some of range\(0, 2\), not range\(0, 0\)",
        ),
        (
            {"replicas": 2, "service": "grpc://localhost:1"},
            "batches of a tf.data service cannot be divided among replicas",
        ),
        ({"replicas": 2, "seed": None}, "several replicas need a seed"),
    ],
)
def test_replicas_that_would_not_make_up_a_batch_are_refused(records, options, message):
    with pytest.raises(ValueError, match=message):
        training_batches(records, **SHARED | options)


# --- service ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service():
    """The address of a service of two workers."""
    dispatcher = tf.data.experimental.service.DispatchServer()
    # A worker ends with its next heartbeat, by default after 30 seconds.
    config = tf.data.experimental.service.WorkerConfig(
        dispatcher_address=dispatcher.target.partition("://")[2], heartbeat_interval_ms=500
    )
    workers = [tf.data.experimental.service.WorkerServer(config) for _ in range(2)]
    yield dispatcher.target
    workers.clear()  # before the dispatcher ends


def test_a_service_of_two_workers_gives_every_example_of_an_epoch_once(many, service):
    options = {"view": Squash(4), "batch_size": 100, "epochs": 2}
    served = batches(training_batches(many, service=service, seed=0, **options))
    expected = sorted(flat(batches(inference_batches(many, "train", view=Squash(4), batch_size=100))))
    assert [len(batch) for batch in served] == ([100] * 20 + [48]) * 2
    assert sorted(flat(served[:21])) == sorted(flat(served[21:])) == expected
    left = training_batches(many, service=service, seed=0, start=30, **options)
    assert [len(batch) for batch in batches(left)] == [100] * 11 + [48]
    assert batches(training_batches(many, service=service, seed=0, start=42, **options)) == []


def test_a_service_undersamples_too(many, service):
    served = pixels(training_batches(many, service=service, start=8, **UNDERSAMPLED))
    assert [len(batch) for batch in served] == [200] * 7 + [136]
    real, fake = real_and_fake(served)
    assert (len(real), len(fake)) == (768, 768)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("grpc://[::1]:1", r"no tf\.data service answers at grpc://\[::1\]:1 \("),
        ("localhost:5050", "localhost:5050 is not the address of a tf.data service, such as grpc://host:5050"),
        ("grpc://localhost", "grpc://localhost is not the address"),
        (
            "grpc://localhost:1",
            r"no tf\.data service answers at grpc://localhost:1 \(.*refused\); start its dispatcher",
        ),
        ("grpc://localhost:99999", r"no tf\.data service answers at grpc://localhost:99999"),
    ],
)
def test_an_unreachable_service_is_an_error_without_waiting(records, address, message):
    with pytest.raises(DataError, match=message):
        training_batches(records, view=Squash(32), batch_size=5, service=address)


# --- windows ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Opened records of ten images of 40 x 60 pixels, whose red is the image, and green and blue the place."""
    data, folder = tmp_path_factory.mktemp("large"), tmp_path_factory.mktemp("made") / "records"
    rows, columns = np.mgrid[:40, :60].astype(np.uint8)
    for split, label in itertools.product(("train", "validation"), ("real", "fake")):
        (data / split / label).mkdir(parents=True)
        for index in range(5):
            number = np.full_like(rows, index + 10 * (label == "fake"))
            Image.fromarray(np.stack([number, rows, columns], axis=-1)).save(data / split / label / f"{index}.png")
    write_records(read_layout(data), folder)
    return open_records(folder)


def windows_of(dataset):
    """By image: its number, and the corner of its window."""
    corners = []
    for images, targets, _ in dataset:
        for window, is_fake in zip(images.numpy(), targets["authenticity"].numpy()[:, 0], strict=True):
            number, row, column = window[0, 0].tolist()
            assert (number >= 10) == is_fake
            np.testing.assert_array_equal(window[..., 1], np.arange(row, row + 16)[:, None].repeat(16, 1))
            np.testing.assert_array_equal(window[..., 2], np.arange(column, column + 16)[None].repeat(16, 0))
            corners.append((number, row, column))
    return corners


def test_each_epoch_has_another_window_of_each_image_and_a_seed_gives_the_same(large):
    options = {"view": Windows(16, 9), "batch_size": 4, "epochs": 30}
    found = windows_of(training_batches(large, seed=3, **options))
    assert len(found) == 300
    for epoch in range(30):
        numbers = sorted(number for number, *_ in found[10 * epoch : 10 * epoch + 10])
        assert numbers == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert len(set(found)) > 250, "places are drawn anew"
    rows, columns = (np.array([place[axis] for place in found]) for axis in (1, 2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 24, 0, 44)
    assert windows_of(training_batches(large, seed=3, **options)) == found
    assert windows_of(training_batches(large, seed=4, **options)) != found
    assert windows_of(training_batches(large, seed=3, start=7, **options)) == found[7 // 3 * 10 + 4 :], "resumed"


def test_replicas_share_the_windows_of_a_batch(large):
    options = {"view": Windows(16, 9), "batch_size": 4, "epochs": 2, "seed": 3}
    assert windows_of(training_batches(large, replicas=2, **options)) == windows_of(
        training_batches(large, **options)
    )


def test_several_windows_of_an_image_follow_on_one_another_as_examples(large):
    options = {"view": Windows(16, 9), "batch_size": 4, "seed": 3}
    found = windows_of(training_batches(large, windows_per_image=3, **options))
    assert len(found) == 30
    numbers = [number for number, *_ in found]
    assert numbers[::3] == numbers[1::3] == numbers[2::3]
    assert len(set(found)) > 25
    sizes = [len(images) for images, *_ in training_batches(large, windows_per_image=3, **options)]
    assert sizes == [12, 12, 6]


@pytest.mark.parametrize("number", [1, 2])
def test_the_whole_image_precedes_its_windows_and_has_the_category_alone(data, records, number):
    view = Windows(16, 9, whole=True)
    whole = {}
    for images, targets, weights in inference_batches(records, "train", view=Squash(16), batch_size=1):
        kind = targets["authenticity"].numpy()[0, 0], targets["category"].numpy()[0]
        whole[images.numpy().tobytes()] = kind if weights["category"].numpy()[0] else None
    for images, targets, weights in training_batches(
        records, view=view, batch_size=5, windows_per_image=number, seed=0
    ):
        squares = 1 + number
        assert weights["authenticity"].numpy().tolist() == ([0] + [1] * number) * (len(images) // squares)
        assert weights["category"].numpy().tolist() == ([number] + [0] * number) * (len(images) // squares)
        for first in range(0, len(images), squares):
            is_fake, category = whole[images[first].numpy().tobytes()]
            assert (targets["authenticity"].numpy()[first + 1 : first + squares, 0] == is_fake).all()
            assert targets["category"].numpy()[first] == category


def test_windows_to_be_scored_come_with_their_number(large):
    (images, *_), *_ = inference_batches(large, "validation", view=Windows(32, 9), batch_size=10)
    assert images.pixels.shape == (10, 9, 32, 32, 3)
    assert images.counts.numpy().tolist() == [6] * 10, "two rows and three columns, half a window apart or less"
    assert (images.pixels.numpy()[:, 6:] == 0).all()
    corners = images.pixels.numpy()[0, :6, 0, 0, 1:].tolist()
    assert corners == [[0, 0], [0, 14], [0, 28], [8, 0], [8, 14], [8, 28]]
