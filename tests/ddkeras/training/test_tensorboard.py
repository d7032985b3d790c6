"""TensorBoard events."""

import numpy as np
import pytest
import tensorflow as tf
from monitoring import go_through_epochs

from ddkeras.training.monitor import TrainingMonitor


def events(folder):
    """All values of all event files, as (step, value)."""
    files = sorted(str(path) for path in (folder / "tensorboard").iterdir())
    found = [tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(files)]
    return [(event.step, value) for event in found for value in event.summary.value]


def scalars(folder, name):
    """The numbers of that name, as {step: number}."""
    return {step: round(value.simple_value, 4) for step, value in events(folder) if value.tag == name}


def test_the_events_have_logs_by_epoch_and_by_step(tmp_path, clock):
    with TrainingMonitor(tmp_path, epochs=2, steps=10, batch_size=8, verbose=0) as monitor:
        go_through_epochs(monitor, clock, [{"loss": 2, "val_loss": 3}, {"loss": 1, "val_loss": 2.5}])
    assert scalars(tmp_path, "loss") == {0: 2.0, 1: 1.0}
    assert scalars(tmp_path, "val_loss") == {0: 3.0, 1: 2.5}
    assert scalars(tmp_path, "images_per_second") == {0: 8.0, 1: 8.0}
    assert scalars(tmp_path, "step/category_loss") == dict.fromkeys(range(1, 21), 1.0986)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_the_events_have_the_first_images_of_a_batch(tmp_path, kind):
    batch = np.random.default_rng(0).integers(0, 256, (9, 6, 5, 3)).astype(kind)
    with TrainingMonitor(tmp_path, epochs=2, steps=10, batch_size=9, verbose=0) as monitor:
        monitor.begin_epoch(1)
        monitor.images("augmented", tf.constant(batch))
    found = {value.tag: value.image.encoded_image_string for step, value in events(tmp_path) if step == 10}
    assert list(found) == [f"augmented/image/{number}" for number in range(8)]
    np.testing.assert_array_equal(tf.io.decode_png(found["augmented/image/7"]), batch[7])


def test_pixels_out_of_range_are_clipped(tmp_path):
    with TrainingMonitor(tmp_path, epochs=1, steps=1, batch_size=1, verbose=0) as monitor:
        monitor.images("one", tf.constant([[[[-3.0, 0.6, 300.0]]]], "bfloat16"))
    ((_, value),) = events(tmp_path)
    assert tf.io.decode_png(value.image.encoded_image_string).numpy().tolist() == [[[0, 1, 255]]]
