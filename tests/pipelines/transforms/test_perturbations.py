"""Perturbations, and that they are applied to the chosen images."""

import numpy as np
import pytest
from PIL import Image

from pipelines.loading import perturbed
from pipelines.loading.batches import inference_batches
from pipelines.transforms.perturbations import PERTURBATIONS
from pipelines.views import Squash


@pytest.fixture(scope="module")
def image() -> Image.Image:
    rows, columns = np.mgrid[:60, :80]
    waves = 127 + 60 * np.sin(columns / 3) + 60 * np.cos(rows / 5)
    return Image.fromarray(
        np.stack([waves, waves.T[:60, :60].repeat(2, 1)[:, :80], 255 - waves], -1).astype(np.uint8)
    )


def error(name: str, image: Image.Image) -> float:
    """The mean absolute difference in grey levels."""
    return float(np.abs(np.asarray(PERTURBATIONS[name](image), float) - np.asarray(image, float)).mean())


def test_stronger_perturbations_change_more(image):
    for kind in (
        ["JPEG 95", "JPEG 90", "JPEG 75", "JPEG 50", "JPEG 30"],
        ["WebP 90", "WebP 80", "WebP 50"],
        ["blur, sigma 1", "blur, sigma 2", "blur, sigma 3"],
    ):
        errors = [error(name, image) for name in kind]
        assert errors == sorted(errors)
        assert errors[0] > 0


def test_noise_has_its_standard_deviation_and_is_the_same_each_time(image):
    grey = Image.fromarray(np.full((200, 200, 3), 127, np.uint8))
    noisy = np.asarray(PERTURBATIONS["noise, sigma 8"](grey), float) - 127
    assert noisy.std() == pytest.approx(8, abs=0.1)
    assert noisy.mean() == pytest.approx(0, abs=0.1)
    assert PERTURBATIONS["noise, sigma 8"](image) == PERTURBATIONS["noise, sigma 8"](image)


def test_perturbed_images_have_the_named_sizes(image):
    sizes = {name: PERTURBATIONS[name](image).size for name in PERTURBATIONS}
    assert sizes.pop("twice the size") == (160, 120)
    assert sizes.pop("the middle 80%") == (64, 48)
    assert sizes.pop("half the size, then JPEG 75") == sizes.pop("half the size, then WebP 80") == (40, 30)
    assert sizes.pop("three quarters of the size, then JPEG 80") == (60, 45)
    assert set(sizes.values()) == {(80, 60)}


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_an_image_of_one_pixel_can_be_perturbed(name):
    assert PERTURBATIONS[name](Image.new("RGB", (1, 1))).mode == "RGB"


def test_the_chosen_images_are_perturbed_in_stored_order(records):
    batches = inference_batches(records, "validation", view=Squash(40), batch_size=5).as_numpy_iterator()
    plain = np.concatenate([images for images, *_ in batches])
    names = ["JPEG 50", "the middle 80%"]
    results = list(
        perturbed.perturbed_images(records, "validation", [1, 4, 11], names, view=Squash(40)).as_numpy_iterator()
    )
    assert [images.shape for images in results] == [(2, 40, 40, 3)] * 3
    for images, index in zip(results, (1, 4, 11), strict=True):
        np.testing.assert_array_equal(images[0], np.asarray(PERTURBATIONS["JPEG 50"](Image.fromarray(plain[index]))))
        assert (images[1] != plain[index]).any()
