"""Batches: what is in them, how often, in which order."""

import hashlib
import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tiny import encode, plant

from pipelines.datasets.layouts import read_layout
from pipelines.exceptions import DataError
from pipelines.loading import cache
from pipelines.loading.batches import inference_batches, steps_per_epoch, training_batches
from pipelines.records import queries
from pipelines.records.conversion import write_records
from pipelines.records.store import open_records


def batches(dataset):
    """The images of each batch, as digests."""
    return [[hashlib.sha256(image.tobytes()).hexdigest() for image in images.numpy()] for images, *_ in dataset]


def flat(lists):
    """One list of what several hold."""
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


def test_a_batch_holds_images_targets_and_weights_by_head(records):
    images, targets, weights = next(iter(inference_batches(records, "train", image_size=32, batch_size=5)))
    assert (images.shape, images.dtype.name) == ((5, 32, 32, 3), "uint8")
    assert 0 <= images.numpy().min() < 50
    assert 200 < images.numpy().max() <= 255
    assert (targets["authenticity"].shape, targets["authenticity"].dtype.name) == ((5, 1), "float32")
    assert (targets["category"].shape, targets["category"].dtype.name) == ((5,), "int64")
    assert weights["authenticity"].numpy().tolist() == weights["category"].numpy().tolist() == [1] * 5


def test_every_example_of_an_epoch_is_seen_once_before_the_next_begins(records):
    epochs = batches(training_batches(records, image_size=32, batch_size=5, epochs=3, seed=0))
    assert [len(batch) for batch in epochs] == [5, 5, 5, 5, 4] * 3
    first, second, third = (flat(epochs[i : i + 5]) for i in (0, 5, 10))
    assert len(set(first)) == 24
    assert sorted(first) == sorted(second) == sorted(third)
    assert first != second != third, "every epoch has its own order"


def test_the_same_seed_gives_the_same_batches_whatever_else_is_random(records):
    def order(seed):
        return batches(training_batches(records, image_size=32, batch_size=5, epochs=2, seed=seed))

    tf.random.set_seed(1)
    expected = order(3)
    tf.random.set_seed(2)
    assert order(3) == expected
    assert order(4) != expected
    assert order(None) != order(None)


def test_an_order_mixes_the_examples_of_many_shards(many):
    assert len(many.splits["train"].files) == 8
    stored = flat(batches(inference_batches(many, "train", image_size=4, batch_size=64)))
    mixed = flat(batches(training_batches(many, image_size=4, batch_size=64, seed=0)))
    places = [stored.index(image) for image in mixed]
    assert sorted(places) == list(range(2048))
    # Were the order random, a step from one example to the next would be a third of the split in the mean.
    assert np.abs(np.diff(places)).mean() == pytest.approx(2048 / 3, rel=0.1)


@pytest.mark.parametrize("start", [0, 1, 4, 5, 6, 13, 14])
@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_a_stream_is_taken_up_again_after_any_step(records, start, cache):
    """Wherever images are kept, and wherever they were kept before."""
    options = {"image_size": 32, "batch_size": 5, "epochs": 3, "seed": 7}
    whole = batches(training_batches(records, **options))
    rest = training_batches(records, start=start, cache=cache, **options)
    assert len(rest) == 15 - start
    assert batches(rest) == whole[start:]


@pytest.mark.parametrize("start", [-1, 16])
def test_there_is_nothing_before_the_start_and_after_the_end(records, start):
    with pytest.raises(ValueError, match="start must be from 0 to 15, the batches of 3 epochs"):
        training_batches(records, image_size=32, batch_size=5, epochs=3, start=start)
    assert batches(training_batches(records, image_size=32, batch_size=5, epochs=3, start=15)) == []


def test_without_a_seed_an_epoch_still_ends_before_the_next_begins(records):
    got = batches(training_batches(records, image_size=32, batch_size=5, epochs=40))
    epochs = [sorted(flat(got[at : at + 5])) for at in range(0, 200, 5)]
    assert all(epoch == epochs[0] for epoch in epochs)
    assert len(set(epochs[0])) == 24


@pytest.fixture
def decoded(monkeypatch):
    """How many images were decoded at a time, black ones for each."""
    decoded = []

    def decode(encoded, size):
        tf.numpy_function(lambda some: decoded.append(len(some)), [encoded], [])
        return tf.zeros((tf.size(encoded), size, size, 3), tf.uint8)

    monkeypatch.setattr(cache, "decode_and_resize", decode)
    return decoded


def test_what_was_seen_is_not_decoded_again(records, decoded):
    assert len(list(training_batches(records, image_size=32, batch_size=5, epochs=2, start=7, seed=0))) == 3
    assert sum(decoded) == 14


def test_inference_keeps_the_stored_order_which_the_facts_share(records, data):
    facts = queries.metadata(records, "validation")
    batches = inference_batches(records, "validation", image_size=32, batch_size=5)
    labels = np.concatenate([targets["authenticity"].numpy()[:, 0] for _, targets, _ in batches])
    categories = np.concatenate([targets["category"].numpy() for _, targets, _ in batches])
    assert labels.tolist() == facts["label"]
    assert categories.tolist() == facts["category"]
    assert sorted(facts["path"]) == sorted(
        path.relative_to(data).as_posix() for path in (data / "validation").rglob("*.jpg")
    )


def test_unlabelled_examples_weigh_nothing(records):
    _, targets, weights = next(iter(inference_batches(records, "test", image_size=32, batch_size=5)))
    assert weights["authenticity"].numpy().tolist() == [0, 0, 0]
    assert weights["category"].numpy().tolist() == [0, 0, 0]
    assert targets["category"].numpy().min() >= 0, "a loss cannot index class -1"


def test_data_without_classes_has_one_head(tmp_path):
    data = plant(tmp_path / "data", {f"{s}/{x}": 1 for s in ("train", "val") for x in ("real", "fake")})
    write_records(read_layout(data), tmp_path / "records")
    opened = open_records(tmp_path / "records")
    _, targets, weights = next(iter(training_batches(opened, image_size=32, batch_size=2)))
    assert set(targets) == set(weights) == {"authenticity"}
    assert set(queries.class_weights(opened)) == {"authenticity"}
    assert queries.metadata(opened, "train")["category"] == [-1, -1]


def test_class_weights_are_inverse_frequencies_of_mean_one(records):
    split = replace(
        records.splits["train"], labels={"real": 30, "fake": 10}, categories={"animals": 8, "vehicles": 32}
    )
    skewed = replace(records, splits={"train": split})
    weights = queries.class_weights(skewed)
    assert weights["authenticity"] == pytest.approx([2 / 3, 2])
    assert weights["category"] == pytest.approx([2.5, 0.625])
    assert np.average(weights["authenticity"], weights=[30, 10]) == pytest.approx(1)


def test_a_class_that_was_quarantined_away_is_named(records):
    split = replace(records.splits["train"], labels={"real": 30})
    with pytest.raises(DataError, match=r"has no fake image in train; see quarantine\.csv"):
        queries.class_weights(replace(records, splits={"train": split}))


def test_a_split_that_is_not_there_or_unlabelled_is_refused(records):
    with pytest.raises(DataError, match="has no split holdout; it has test, train, validation"):
        inference_batches(records, "holdout", image_size=32, batch_size=5)
    with pytest.raises(DataError, match="has no labelled split test; it has train, validation"):
        training_batches(records, "test", image_size=32, batch_size=5)


# --- as many real as fake --------------------------------------------------------------------------------------


def pixels(dataset):
    """The only pixel of each image of each batch; in `many` its first number is the label."""
    return [[tuple(image) for image in images.numpy()[:, 0, 0].tolist()] for images, *_ in dataset]


def real_and_fake(batches):
    """The real and the fake images of an epoch, each of which occurs once in it."""
    images = flat(batches)
    assert len(set(images)) == len(images)
    return [{image for image in images if image[0] == label} for label in (0, 1)]


UNDERSAMPLED = {"image_size": 1, "batch_size": 200, "epochs": 2, "seed": 0, "undersample": True}


@pytest.fixture(scope="module")
def undersampled(many):
    """Two epochs of 8 batches of as many real as fake images."""
    dataset = training_batches(many, **UNDERSAMPLED)
    assert len(dataset) == 16
    return pixels(dataset)


def test_an_epoch_can_have_all_of_the_rarer_label_and_as_many_of_the_other(undersampled):
    assert [len(batch) for batch in undersampled] == ([200] * 7 + [136]) * 2
    for epoch in (undersampled[:8], undersampled[8:]):
        real, fake = real_and_fake(epoch)
        assert (len(real), len(fake)) == (768, 768)


def test_what_is_left_out_of_an_epoch_is_drawn_anew_for_each(many, undersampled):
    (_, first), (_, second) = real_and_fake(undersampled[:8]), real_and_fake(undersampled[8:])
    # Each has 0.6 of the 1,280, and of the other's 768.
    assert len(first & second) == pytest.approx(461, abs=30)
    assert pixels(training_batches(many, **UNDERSAMPLED | {"seed": 1})) != undersampled


@pytest.mark.parametrize(("cache", "start"), [("none", 3), ("none", 8), ("memory", 0), ("memory", 11), ("disk", 7)])
def test_undersampling_is_taken_up_again_after_any_step(many, undersampled, cache, start):
    """Wherever images are kept."""
    rest = training_batches(many, start=start, cache=cache, **UNDERSAMPLED)
    assert len(rest) == 16 - start
    assert pixels(rest) == undersampled[start:]


# --- less a source ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sourced(tmp_path_factory):
    """The opened records of 60 images of one pixel, whose first two numbers are the label and the source."""
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


def test_a_source_can_be_left_out(sourced):
    without = queries.exclude_source(sourced, "gan")
    assert (without.splits["train"].examples, without.splits["validation"].examples) == (32, 8)
    assert without.splits["train"].labels == {"real": 16, "fake": 16}
    assert without.splits["train"].categories == {"cats": 16, "dogs": 16}
    assert queries.class_weights(without) == {"authenticity": [1, 1], "category": [1, 1]}
    assert set(queries.metadata(without, "validation")["source"]) == {"camera", "flux"}
    assert sourced.splits["train"].examples == 48, "which itself stays as it is"


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_what_is_left_out_is_neither_trained_on_nor_scored(sourced, cache):
    without = queries.exclude_source(sourced, "gan")
    options = {"image_size": 1, "batch_size": 7, "cache": cache}
    trained = pixels(training_batches(without, epochs=2, seed=0, **options))
    assert [len(batch) for batch in trained] == [7, 7, 7, 7, 4] * 2
    expected = sorted((int(number > 0), number, index) for number in (0, 2) for index in range(16))
    assert sorted(flat(trained[:5])) == sorted(flat(trained[5:])) == expected
    assert pixels(training_batches(without, epochs=2, seed=0, start=6, **options)) == trained[6:]
    scored = flat(pixels(inference_batches(without, "validation", **options)))
    facts = queries.metadata(without, "validation")
    assert [f"validation/{number}-{index}.png" for _, number, index in scored] == facts["path"]
    whole = pixels(inference_batches(sourced, "validation", **options))
    assert len(flat(whole)) == 12, "also after its images were kept for the others"


def test_what_is_left_out_is_not_drawn_when_labels_are_balanced(sourced):
    without = queries.exclude_source(sourced, "flux")
    drawn = flat(pixels(training_batches(without, image_size=1, batch_size=8, seed=0, undersample=True)))
    assert sorted({pixel[:2] for pixel in drawn}) == [(0, 0), (1, 1)]
    assert len(drawn) == 32


def test_a_source_that_does_not_occur_is_named_with_those_that_do(sourced, records):
    with pytest.raises(
        DataError, match=r"no image comes from the source gann; the sources of .* are camera, flux, gan$"
    ):
        queries.exclude_source(sourced, "gann")
    with pytest.raises(DataError, match=r"are none: name them in the source column of metadata\.csv"):
        queries.exclude_source(records, "gan")


# --- steps -----------------------------------------------------------------------------------------------------


def test_the_steps_of_an_epoch_are_known_without_reading_it(records):
    split = replace(records.splits["train"], examples=40, labels={"real": 30, "fake": 10})
    assert steps_per_epoch(split, 8) == 5
    assert steps_per_epoch(split, 8, undersample=True) == 3
    assert steps_per_epoch(split, 10, undersample=True) == 2


def test_there_is_no_undersampling_to_a_label_without_images(records):
    split = replace(records.splits["train"], labels={"real": 30})
    with pytest.raises(DataError, match=r"has no fake image in train; see quarantine\.csv"):
        training_batches(replace(records, splits={"train": split}), image_size=32, batch_size=5, undersample=True)


def test_labels_in_damaged_records_are_a_damaged_record(many, tmp_path):
    split = many.splits["train"]
    shard = tmp_path / "shard"
    content = bytearray(Path(split.files[0]).read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    damaged = replace(many, splits={"train": replace(split, files=[str(shard), *split.files[1:]])})
    with pytest.raises(DataError, match="shard, record 0: its content is corrupt"):
        training_batches(damaged, **UNDERSAMPLED)


# --- parts -----------------------------------------------------------------------------------------------------

SHARED = {"image_size": 32, "batch_size": 5, "epochs": 2, "seed": 7}


@pytest.fixture(scope="module")
def whole(records):
    """Two epochs of 24 examples: batches of 5, 5, 5, 5 and 4, twice."""
    return batches(training_batches(records, **SHARED))


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_the_parts_of_a_batch_make_up_the_batch(records, whole, cache):
    two = training_batches(records, replicas=3, local_replicas=range(2), cache=cache, **SHARED)
    one = training_batches(records, replicas=3, local_replicas=range(2, 3), cache=cache, **SHARED)
    assert (len(two), len(one)) == (20, 10)
    two, one = batches(two), batches(one)
    assert [len(part) for part in two] == [1, 2, 1, 2, 1, 2, 1, 2, 1, 1] * 2
    assert [len(part) for part in one] == [2] * 10
    assert [[*a, *b, *c] for a, b, c in zip(two[::2], two[1::2], one, strict=True)] == whole


def test_all_parts_are_wanted_unless_some_are(records, whole):
    parts = batches(training_batches(records, replicas=2, **SHARED))
    assert [len(part) for part in parts] == [2, 3, 2, 3, 2, 3, 2, 3, 2, 2] * 2
    assert [[*a, *b] for a, b in zip(parts[::2], parts[1::2], strict=True)] == whole


@pytest.mark.parametrize("start", [3, 5, 7, 10])
def test_parts_are_taken_up_again_after_any_whole_batch(records, whole, start):
    rest = training_batches(records, replicas=3, local_replicas=range(2, 0, -1), start=start, **SHARED)
    assert len(rest) == 2 * (10 - start)
    assert batches(rest) == flat(
        [batch[len(batch) * 2 // 3 :], batch[1 : len(batch) * 2 // 3]] for batch in whole[start:]
    )


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_a_part_is_never_empty_but_may_weigh_nothing(records, whole, cache):
    parts = list(training_batches(records, replicas=8, cache=cache, **SHARED))
    assert {images.shape[0] for images, *_ in parts} == {1}
    of_five, of_four = [0, 1, 0, 1, 1, 0, 1, 1], [0, 1, 0, 1, 0, 1, 0, 1]
    for head in ("authenticity", "category"):
        assert flat(weights[head].numpy() for *_, weights in parts) == (of_five * 4 + of_four) * 2
    a, b, c, d, e = whole[0]
    assert flat(batches(parts[:8])) == [a, a, a, b, c, a, d, e]
    a, b, c, d = whole[4]
    assert flat(batches(parts[32:40])) == [a, a, a, b, a, c, a, d]


def test_parts_of_others_are_not_decoded(records, decoded):
    assert len(list(training_batches(records, replicas=5, local_replicas=range(1, 3), start=6, **SHARED))) == 8
    assert sorted(decoded) == [1] * 8


def test_undersampled_batches_have_parts_too(many, undersampled):
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
def test_parts_that_would_not_make_up_a_batch_are_refused(records, options, message):
    with pytest.raises(ValueError, match=message):
        training_batches(records, **SHARED | options)


# --- service ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service():
    """The address of a service of two workers."""
    dispatcher = tf.data.experimental.service.DispatchServer()
    # A worker that is to end waits for its next heartbeat, for which 30 seconds are usual.
    config = tf.data.experimental.service.WorkerConfig(
        dispatcher_address=dispatcher.target.partition("://")[2], heartbeat_interval_ms=500
    )
    workers = [tf.data.experimental.service.WorkerServer(config) for _ in range(2)]
    yield dispatcher.target
    workers.clear()  # while there is a dispatcher


def test_a_service_of_two_workers_gives_every_example_of_an_epoch_once(many, service):
    options = {"image_size": 4, "batch_size": 100, "epochs": 2}
    served = batches(training_batches(many, service=service, seed=0, **options))
    expected = sorted(flat(batches(inference_batches(many, "train", image_size=4, batch_size=100))))
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
def test_a_service_that_is_not_there_is_an_error_and_no_wait(records, address, message):
    with pytest.raises(DataError, match=message):
        training_batches(records, image_size=32, batch_size=5, service=address)


def test_thumbnails_are_small_and_of_the_paths_asked_for(records):
    paths = queries.metadata(records, "validation")["path"][:2]
    made = queries.thumbnails(records, "validation", [*paths, "not there.jpg"], size=16)
    assert sorted(made) == sorted(paths)
    for jpeg in made.values():
        with Image.open(io.BytesIO(jpeg)) as image:
            assert (image.format, image.size) == ("JPEG", (16, 16))
    assert queries.thumbnails(records, "validation", []) == {}


def test_what_is_stored_is_read_by_path(records, data):
    paths = queries.metadata(records, "validation")["path"][:2]
    found = dict(queries.encoded_images(records, "validation", [*paths, "not there.jpg"]))
    assert found == {path: (data / path).read_bytes() for path in paths}
    assert list(queries.encoded_images(records, "validation", [])) == []


def test_digests_are_of_files_as_found_and_as_stored(tmp_path):
    plant(tmp_path / "data", {f"{split}/{label}": 1 for split in ("train", "val") for label in ("real", "fake")})
    tiff = encode("TIFF", seed=1)
    (tmp_path / "data/train/real/scan.tif").write_bytes(tiff)
    write_records(read_layout(tmp_path / "data"), tmp_path / "records")
    opened = open_records(tmp_path / "records")
    found = list(queries.digests(opened, "train"))
    jpeg = (tmp_path / "data/train/fake/000.jpg").read_bytes()
    assert (hashlib.sha256(jpeg).hexdigest(), "train/fake/000.jpg") in found
    (png,) = dict(queries.encoded_images(opened, "train", ["train/real/scan.tif"])).values()
    assert [digest for digest, path in found if path == "train/real/scan.tif"] == [
        hashlib.sha256(tiff).hexdigest(),
        hashlib.sha256(png).hexdigest(),
    ]
    assert len(found) == 4
