"""Forensic augmentations: their effect, their probability, and that all backends agree."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from pipelines.transforms import stateless_random
from pipelines.transforms.forensic_ops import Blur, Brightness, Contrast, Crop, Flip, Jpeg, Noise, Resize

IMAGES = np.random.default_rng(0).uniform(0, 255, (8, 12, 16, 3)).astype("float32")
SAME = np.repeat(IMAGES[:1], 8, axis=0)
KEYS = stateless_random.keys(1, 2, 0, 8)
EACH = [
    Jpeg(1.0),
    Blur(1.0, (0.5, 3.0)),
    Resize(1.0, (0.5, 0.9)),
    Flip(1.0),
    Brightness(1.0),
    Contrast(1.0),
    Noise(1.0),
]
each = pytest.mark.parametrize("augmentation", EACH, ids=lambda augmentation: type(augmentation).__name__)


def changed(augmentation, images=IMAGES, keys=KEYS) -> np.ndarray:
    return np.asarray(augmentation(images, keys))


# --- all augmentations -------------------------------------------------------------------------------------------


@each
def test_shape_and_range_are_kept(augmentation):
    extremes = np.float32(IMAGES > 128) * 255
    for images in (IMAGES, extremes):
        out = changed(augmentation, images)
        assert out.shape == images.shape
        assert out.dtype == np.float32
        assert out.min() >= 0
        assert out.max() <= 255


@each
def test_a_probability_of_0_changes_no_image_and_of_1_every_image(augmentation):
    np.testing.assert_array_equal(changed(replace(augmentation, probability=0.0)), IMAGES)
    assert (changed(augmentation) != IMAGES).any(axis=(1, 2, 3)).all()


@each
def test_an_image_is_augmented_completely_or_bitwise_unchanged(augmentation):
    out, always = changed(replace(augmentation, probability=0.5)), changed(augmentation)
    is_left = (out == IMAGES).all(axis=(1, 2, 3))
    assert 0 < is_left.sum() < 8
    np.testing.assert_array_equal(out, np.where(is_left[:, None, None, None], IMAGES, always))


def test_a_probability_of_three_in_ten_holds():
    images = np.full((2000, 2, 2, 3), 100, "float32")
    is_changed = (changed(Brightness(0.3), images, stateless_random.keys(0, 0, 0, 2000)) != images).any(
        axis=(1, 2, 3)
    )
    assert 518 <= is_changed.sum() <= 682  # 600 expected; four standard deviations are 82


def test_each_augmentation_and_each_batch_selects_different_images():
    images = np.repeat(IMAGES[:1, :2, :3], 64, axis=0)

    def is_changed(augmentation, step):
        out = changed(augmentation, images, stateless_random.keys(0, step, 0, 64))
        return tuple((out != images).any(axis=(1, 2, 3)))

    assert len({is_changed(kind(0.5), step) for kind in (Flip, Brightness, Noise) for step in (0, 1)}) == 6


@each
def test_the_result_depends_on_the_key_and_not_on_the_position(augmentation):
    np.testing.assert_array_equal(changed(augmentation), changed(augmentation))
    np.testing.assert_allclose(
        changed(augmentation, IMAGES[5:], stateless_random.keys(1, 2, 5, 3)),
        changed(augmentation)[5:],
        rtol=0,
        atol=0.01,
    )


@pytest.mark.parametrize(
    "augmentation",
    [augmentation for augmentation in EACH if not isinstance(augmentation, Flip)],
    ids=lambda a: type(a).__name__,
)
def test_the_images_of_a_batch_are_augmented_independently(augmentation):
    different = len({image.tobytes() for image in changed(augmentation, SAME)})
    assert different >= 5  # of 8; with so few pixels an intermediate size can occur twice
    assert different == 8 or isinstance(augmentation, (Jpeg, Resize))


@each
def test_results_are_finite_in_float16(augmentation):
    out = changed(augmentation, IMAGES.astype("float16").astype("float32")).astype("float16")
    assert np.isfinite(out).all()


@pytest.mark.parametrize("augmentation", [*EACH, Crop(9)], ids=lambda augmentation: type(augmentation).__name__)
def test_xla_with_an_unknown_batch_size_gives_the_same_result(augmentation):
    signature = [tf.TensorSpec((None, 12, 16, 3)), tf.TensorSpec((None,), "uint32")]
    compiled = tf.function(augmentation.__call__, input_signature=signature, jit_compile=True)
    np.testing.assert_allclose(compiled(IMAGES, KEYS), changed(augmentation), rtol=0, atol=0.01)


RUN = """
import sys, jax, keras, numpy
from pipelines.transforms import stateless_random
from pipelines.transforms.forensic_ops import *
assert keras.backend.backend() == "jax"
images = numpy.load(sys.argv[1])
keys = stateless_random.keys(1, 2, 0, 8)
each = eval(sys.argv[2])
numpy.savez(sys.argv[3], *(jax.jit(one)(images, keys) for one in each))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_jax_gives_the_same_results(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    augmentations = [*EACH, Crop(9)]
    arguments = [tmp_path / "images.npy", repr(augmentations), tmp_path / "out.npz"]
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", RUN, *map(str, arguments)], env=environment, check=True)
    for augmentation, out in zip(augmentations, np.load(tmp_path / "out.npz").values(), strict=True):
        np.testing.assert_allclose(out, changed(augmentation), rtol=0, atol=0.01, err_msg=str(augmentation))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Flip(1.5), "Flip.probability must be from 0 to 1, not 1.5"),
        (lambda: Jpeg(quality=(0, 90)), r"Jpeg.quality must be \(low, high\) within 1 to 100, not \(0, 90\)"),
        (lambda: Blur(sigma=(3.0, 1.0)), r"Blur.sigma must be \(low, high\) within 0 to 10, not \(3.0, 1.0\)"),
        (lambda: Blur(sigma=3.0), r"Blur.sigma must be \(low, high\) within 0 to 10, not 3.0"),
        (
            lambda: Noise(sigma=(0, float("nan"))),
            r"Noise.sigma must be \(low, high\) within 0 to 255, not \(0, nan\)",
        ),
        (lambda: Crop(0), "Crop.size must be 1 or more, not 0"),
        (lambda: Crop(13)(IMAGES, KEYS), "Crop.size must be 12 or less for these images, not 13"),
    ],
)
def test_an_invalid_parameter_is_refused_by_name(build, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        build()


# --- single augmentations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.0])
def test_blur_equals_scipy(sigma):
    impulse = np.zeros((1, 12, 16, 3), "float32")
    impulse[0, 6, 7] = 255
    images = np.concatenate([impulse, IMAGES[1:]])
    expected = scipy.ndimage.gaussian_filter(images, (0, sigma, sigma, 0), mode="reflect", truncate=8)
    np.testing.assert_allclose(changed(Blur(1.0, (sigma, sigma)), images), expected, atol=0.001)


def test_blur_of_an_impulse_is_a_gaussian_of_that_width():
    line = np.zeros((8, 1, 31, 3), "float32")
    line[:, 0, 15] = 255
    out = changed(Blur(1.0, (2.0, 2.0)), line)[0, 0, :, 0]
    np.testing.assert_allclose(
        out[[15, 16, 17, 19]], [50.86, 44.89, 30.85, 6.88], atol=0.01
    )  # 255 / 5.013 e^(-x^2/8)
    assert out.sum() == pytest.approx(255, abs=0.01)


def test_blur_with_sigma_0_changes_nothing():
    np.testing.assert_array_equal(changed(Blur(1.0, (0.0, 0.0))), IMAGES)


def test_resize_by_1_changes_nothing():
    np.testing.assert_array_equal(changed(Resize(1.0, (1.0, 1.0))), IMAGES)


@pytest.mark.parametrize(("factor", "between"), [(0.5, (6, 8)), (0.7, (8, 11)), (1.4, (17, 22)), (2.0, (24, 32))])
def test_resize_equals_tensorflow_in_both_directions(factor, between):
    expected = tf.image.resize(tf.image.resize(IMAGES, between, antialias=True), (12, 16), antialias=True)
    np.testing.assert_allclose(changed(Resize(1.0, (factor, factor))), expected, atol=0.01)


@pytest.mark.parametrize("augmentation", EACH[1:3], ids=lambda augmentation: type(augmentation).__name__)
def test_uniform_images_stay_uniform(augmentation):
    for value in (0.0, 100.0, 255.0):
        even = np.full_like(IMAGES, value)
        np.testing.assert_allclose(changed(augmentation, even), even, atol=0.001)


def test_jpeg_draws_every_quality_and_both_subsamplings():
    images = np.repeat(IMAGES[:1, :8, :8], 400, axis=0)
    out = changed(Jpeg(1.0, (50, 52)), images, stateless_random.keys(0, 0, 0, 400))
    _, counts = np.unique(out.reshape(400, -1), axis=0, return_counts=True)
    assert len(counts) == 6  # three qualities by two subsamplings
    assert counts.min() > 36  # 67 expected; four standard deviations are 30


def test_flip_mirrors_left_to_right():
    np.testing.assert_array_equal(changed(Flip(1.0)), IMAGES[:, :, ::-1])


def test_crops_come_from_all_positions():
    images = np.random.default_rng(1).uniform(0, 255, (200, 6, 7, 3)).astype("float32")
    out = changed(Crop(4), images, stateless_random.keys(0, 0, 0, 200))
    assert out.shape == (200, 4, 4, 3)
    places = [(row, column) for row in range(3) for column in range(4)]
    positions = []
    for image, cut in zip(images, out, strict=True):
        positions += [place for place in places if (image[place[0] :, place[1] :][:4, :4] == cut).all()]
    assert len(positions) == 200
    assert set(positions) == set(places)


def test_a_crop_of_the_full_size_is_the_image():
    np.testing.assert_array_equal(changed(Crop(12), IMAGES[:, :, :12]), IMAGES[:, :, :12])


def test_brightness_adds_a_share_of_the_range_and_clips():
    out = changed(Brightness(1.0, (0.2, 0.2)), np.float32([[[[0, 100, 250]]]]), KEYS[:1])
    np.testing.assert_allclose(out, [[[[51, 151, 255]]]], atol=1e-4)


def test_contrast_scales_about_the_mean_and_clips():
    images = np.float32([80, 160, 0, 240]).reshape(1, 2, 2, 1).repeat(3, axis=3)
    out = changed(Contrast(1.0, (1.25, 1.25)), images, KEYS[:1])
    np.testing.assert_allclose(out[0, :, :, 1], [[70, 170], [0, 255]], atol=1e-3)


def test_contrast_is_lowered_as_often_as_raised():
    images = np.float32([100, 156]).reshape(1, 1, 2, 1).repeat(3, axis=3).repeat(400, axis=0)
    out = changed(Contrast(1.0), images, stateless_random.keys(0, 0, 0, 400))
    factors = (out[:, 0, 1, 0] - out[:, 0, 0, 0]) / 56
    assert 0.8 <= factors.min() < 0.81
    assert 1.24 < factors.max() <= 1.2501
    assert 160 <= (factors < 1).sum() <= 240  # 200 expected; four standard deviations are 40


def test_noise_has_its_sigma_in_every_image():
    grey = np.full((8, 32, 32, 3), 128, "float32")
    noise = changed(Noise(1.0, (5.0, 5.0)), grey) - grey
    np.testing.assert_allclose(noise.std(axis=(1, 2, 3)), 5, atol=0.26)  # four standard errors of 3072
    np.testing.assert_allclose(noise.mean(axis=(1, 2, 3)), 0, atol=0.37)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.05, "channels are independent"


def test_parameters_cover_their_range():
    grey = np.full((400, 1, 1, 3), 128, "float32")
    shifts = (changed(Brightness(1.0), grey, stateless_random.keys(0, 0, 0, 400)) - grey)[:, 0, 0, 0] / 255
    assert -0.2 <= shifts.min() < -0.19
    assert 0.19 < shifts.max() <= 0.2
    assert abs(shifts.mean()) < 0.024  # four standard errors
