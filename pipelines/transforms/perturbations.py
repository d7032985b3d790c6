"""What happens to images on their way to whoever has to judge them: re-encoding, blur, resizing, crop, noise.

Done by Pillow on whole images, before the network's resize, as a platform does it: not by the batched steps that
training images go through (`forensics`).
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

_NOISE = 8.0  # standard deviation, of 255
_CROP = 0.8  # of each side
Degrade = Callable[[Image.Image], Image.Image]


def _encoded(kind: str, quality: int) -> Degrade:
    def degrade(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, kind, quality=quality)
        return Image.open(buffer).convert("RGB")

    return degrade


def _blurred(sigma: float) -> Degrade:
    return lambda image: image.filter(ImageFilter.GaussianBlur(sigma))


def _scaled(factor: float) -> Degrade:
    return lambda image: image.resize([max(1, round(side * factor)) for side in image.size], Image.Resampling.BICUBIC)


def _and_back(factor: float) -> Degrade:
    return lambda image: _scaled(factor)(image).resize(image.size, Image.Resampling.BICUBIC)


def _cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    left, top = (round(side * (1 - _CROP) / 2) for side in image.size)
    return image.crop((left, top, max(left + 1, width - left), max(top + 1, height - top)))


def _noisy(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    noise = np.random.default_rng(pixels.size).normal(0, _NOISE, pixels.shape)  # the same each time
    return Image.fromarray(np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8))


def _then(*steps: Degrade) -> Degrade:
    def degrade(image: Image.Image) -> Image.Image:
        for step in steps:
            image = step(image)
        return image

    return degrade


MILD: dict[str, Degrade] = {  # that a verdict should survive
    "JPEG 95": _encoded("JPEG", 95),
    "JPEG 90": _encoded("JPEG", 90),
    "WebP 90": _encoded("WEBP", 90),
}
DEGRADATIONS: dict[str, Degrade] = MILD | {
    "JPEG 75": _encoded("JPEG", 75),
    "JPEG 50": _encoded("JPEG", 50),
    "JPEG 30": _encoded("JPEG", 30),
    "WebP 80": _encoded("WEBP", 80),
    "WebP 50": _encoded("WEBP", 50),
    "blur, sigma 1": _blurred(1),
    "blur, sigma 2": _blurred(2),
    "blur, sigma 3": _blurred(3),
    "half the size and back": _and_back(0.5),
    "twice the size": _scaled(2),
    "the middle 80%": _cropped,
    "noise, sigma 8": _noisy,
    "half the size, then JPEG 75": _then(_scaled(0.5), _encoded("JPEG", 75)),
    "three quarters of the size, then JPEG 80": _then(_scaled(0.75), _encoded("JPEG", 80)),
    "half the size, then WebP 80": _then(_scaled(0.5), _encoded("WEBP", 80)),
}
