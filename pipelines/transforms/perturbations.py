"""Perturbations that images meet on their way to a detector: re-encoding, blur, resizing, cropping, noise.

They are applied by Pillow to whole images, before the resize to the network's input, as a platform applies them. The
batched augmentations of training images are in `forensic_ops`.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

_NOISE = 8.0  # standard deviation, in grey levels of 255
_CROP = 0.8  # of each side
Perturbation = Callable[[Image.Image], Image.Image]


def _encode(image_format: str, quality: int) -> Perturbation:
    def perturb(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, image_format, quality=quality)
        return Image.open(buffer).convert("RGB")

    return perturb


def _blur(sigma: float) -> Perturbation:
    return lambda image: image.filter(ImageFilter.GaussianBlur(sigma))


def _scale(factor: float) -> Perturbation:
    def perturb(image: Image.Image) -> Image.Image:
        width, height = (max(1, round(side * factor)) for side in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC)

    return perturb


def _scale_and_back(factor: float) -> Perturbation:
    return lambda image: _scale(factor)(image).resize(image.size, Image.Resampling.BICUBIC)


def _crop(image: Image.Image) -> Image.Image:
    width, height = image.size
    left, top = (round(side * (1 - _CROP) / 2) for side in image.size)
    return image.crop((left, top, max(left + 1, width - left), max(top + 1, height - top)))


def _add_noise(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    noise = np.random.default_rng(pixels.size).normal(0, _NOISE, pixels.shape)  # the same each time
    return Image.fromarray(np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8))


def _chain(*perturbations: Perturbation) -> Perturbation:
    def perturb(image: Image.Image) -> Image.Image:
        for perturbation in perturbations:
            image = perturbation(image)
        return image

    return perturb


MILD_PERTURBATIONS: dict[str, Perturbation] = {  # a verdict should survive these
    "JPEG 95": _encode("JPEG", 95),
    "JPEG 90": _encode("JPEG", 90),
    "WebP 90": _encode("WEBP", 90),
}
PERTURBATIONS: dict[str, Perturbation] = MILD_PERTURBATIONS | {
    "JPEG 75": _encode("JPEG", 75),
    "JPEG 50": _encode("JPEG", 50),
    "JPEG 30": _encode("JPEG", 30),
    "WebP 80": _encode("WEBP", 80),
    "WebP 50": _encode("WEBP", 50),
    "blur, sigma 1": _blur(1),
    "blur, sigma 2": _blur(2),
    "blur, sigma 3": _blur(3),
    "half the size and back": _scale_and_back(0.5),
    "twice the size": _scale(2),
    "the middle 80%": _crop,
    "noise, sigma 8": _add_noise,
    "half the size, then JPEG 75": _chain(_scale(0.5), _encode("JPEG", 75)),
    "three quarters of the size, then JPEG 80": _chain(_scale(0.75), _encode("JPEG", 80)),
    "half the size, then WebP 80": _chain(_scale(0.5), _encode("WEBP", 80)),
}
