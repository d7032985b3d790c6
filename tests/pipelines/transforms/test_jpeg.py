"""JPEG compression on the accelerator equals libjpeg, as used by Pillow."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.transforms.jpeg import compress

QUALITIES = (30, 40, 50, 60, 70, 80, 90, 95)


def by_pillow(image: np.ndarray, quality: int, subsampled: bool) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=int(quality), subsampling=2 if subsampled else 0)
    return np.asarray(Image.open(buffer))


def all_by_pillow(images, quality, subsampled) -> np.ndarray:
    return np.stack([by_pillow(*each) for each in zip(images, quality, subsampled, strict=True)]).astype("float32")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def gradient(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    channels = [rows * 255 // height, columns * 255 // width, (rows + columns) * 255 // (height + width)]
    return np.stack(channels, axis=-1).astype("uint8")


def compressed(images: np.ndarray, quality, subsampled) -> np.ndarray:
    return np.asarray(compress(images.astype("float32"), np.float32(quality), np.array(subsampled)))


def assert_equals_pillow(images: np.ndarray, quality, subsampled, out: np.ndarray | None = None) -> None:
    """Equal but for the precision of float32: one value in 10,000, by at most 2 (a chroma level is 1.8 of blue)."""
    out = compressed(images, quality, subsampled) if out is None else out
    difference = np.abs(out - all_by_pillow(images, quality, subsampled))
    assert difference.max() <= 2
    assert np.mean(difference > 0) < 1e-4  # 3.3e-6 of photos when this was written, none of what is drawn here


@pytest.mark.parametrize("subsampled", [False, True], ids=["4:4:4", "4:2:0"])
def test_every_quality_equals_pillow(subsampled):
    quality = np.arange(1, 101)
    images = np.stack([gradient(40, 56) if q % 2 else noise(40, 56, seed=q) for q in quality])
    assert_equals_pillow(images, quality, [subsampled] * 100)


@pytest.mark.parametrize(
    "size", [(1, 1), (2, 3), (3, 2), (4, 5), (5, 4), (6, 6), (7, 9), (8, 8), (9, 7), (16, 18), (37, 53)], ids=str
)
def test_every_size_equals_pillow(size):
    images = np.concatenate([noise(4, *size), gradient(*size)[None], noise(1, *size) // 64 * 85])
    assert_equals_pillow(images, [30, 90, 30, 90, 75, 75], [False, False, True, True, True, True])


def test_every_image_has_its_own_quality_and_subsampling():
    images = np.repeat(noise(1, 16, 16), 4, axis=0)
    alone = compressed(images, [40, 40, 90, 90], [False, True, False, True])
    turned = compressed(images, [90, 40, 90, 40], [True, True, False, False])
    np.testing.assert_array_equal(turned, alone[[3, 1, 2, 0]])
    assert len({image.tobytes() for image in alone}) == 4


def test_pixels_and_quality_are_rounded_and_quality_is_clipped():
    image = noise(1, 16, 16).astype("float32").clip(1, 254)
    np.testing.assert_array_equal(compressed(image + 0.4, [74.6], [True]), compressed(image, [75], [True]))
    np.testing.assert_array_equal(compressed(image, [0], [True]), compressed(image, [1], [True]))
    np.testing.assert_array_equal(compressed(image, [200], [True]), compressed(image, [100], [True]))


def test_a_uniform_grey_image_stays_uniform_and_grey():
    greys = np.broadcast_to(np.arange(0, 256, 5, dtype="float32")[:, None, None, None], (52, 12, 20, 3))
    out = compressed(greys, [30] * 52, [True, False] * 26)
    assert (out == out[:, :1, :1, :1]).all()
    assert np.abs(out - greys).max() <= 2  # the mean is stored in steps of 27 eighths at quality 30


def test_results_are_integers_in_range():
    extremes = np.float32(noise(4, 24, 24) // 128 * 255)
    out = compressed(extremes, [1, 30, 60, 100], [True, False, True, False])
    assert out.shape == extremes.shape
    assert out.dtype == np.float32
    assert out.min() == 0
    assert out.max() == 255
    np.testing.assert_array_equal(out, np.round(out))


@pytest.mark.parametrize("by_xla", [False, True], ids=["graph", "XLA"])
def test_compiling_with_an_unknown_batch_size_gives_the_same_result(by_xla):
    images = np.float32([gradient(20, 28), noise(20, 28), noise(20, 28, seed=1)])
    quality, subsampled = np.int32([35, 75, 95]), np.array([True, False, True])
    signature = [tf.TensorSpec((None, 20, 28, 3)), tf.TensorSpec((None,), "int32"), tf.TensorSpec((None,), "bool")]
    compiled = tf.function(compress, input_signature=signature, jit_compile=by_xla)
    out = compiled(images, quality, subsampled)
    assert out.shape[1:] == (20, 28, 3)
    assert_equals_pillow(images.astype("uint8"), quality, subsampled, out)


@pytest.mark.slow
@pytest.mark.parametrize("subsampled", [False, True], ids=["4:4:4", "4:2:0"])
def test_thirty_photos_equal_pillow(reference, subsampled):
    paths = sorted((reference / "duel-mini" / "validation").glob("*/*/*.jpg"))[::24][:30]
    photos = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    assert photos.shape == (30, 200, 200, 3)
    compiled = tf.function(compress)
    for quality in QUALITIES:
        each = np.full(30, quality), np.full(30, subsampled)
        assert_equals_pillow(photos, *each, out=compiled(photos.astype("float32"), *each))
