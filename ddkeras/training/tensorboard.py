"""TensorBoard events: scalars and images."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np

IMAGES = 8  # written per batch


class EventWriter:
    """Writes an event file; unlike `tf.summary.scalar`, without the tensorboard package."""

    def __init__(self, folder: Path):
        import tensorflow as tf  # noqa: PLC0415  slow to load, and only monitored trainings need it

        self._tf = tf
        self._writer = tf.summary.create_file_writer(os.fspath(folder))

    def scalars(self, numbers: dict[str, float], step: int) -> None:
        """Write each number under its name as the tag."""
        self._write(
            [self._tf.compat.v1.Summary.Value(tag=name, simple_value=numbers[name]) for name in numbers], step
        )

    def images(self, name: str, images, step: int) -> None:
        """Write the first `IMAGES` of (batch, height, width, channels), in 0..255."""
        pixels = np.asarray(images[:IMAGES]).astype("float32")
        values = [
            self._tf.compat.v1.Summary.Value(tag=f"{name}/image/{number}", image=self._image(image))
            for number, image in enumerate(np.clip(np.rint(pixels), 0, 255).astype("uint8"))
        ]
        self._write(values, step)

    def flush(self) -> None:
        """Flush to the file."""
        with suppress(self._tf.errors.OpError):
            self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        with suppress(self._tf.errors.OpError):
            self._writer.close()

    def _image(self, pixels: np.ndarray):
        height, width, channels = pixels.shape
        png = self._tf.io.encode_png(pixels).numpy()
        return self._tf.compat.v1.Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=png
        )

    def _write(self, values: list, step: int) -> None:
        summary = self._tf.compat.v1.Summary(value=values).SerializeToString()
        with suppress(self._tf.errors.OpError), self._writer.as_default():
            self._tf.summary.experimental.write_raw_pb(summary, step=step)
