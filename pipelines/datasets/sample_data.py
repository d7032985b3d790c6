"""A small synthetic image collection, drawn on the spot, to try the whole tool chain without a download.

The collection holds `real` and `fake` drawings of faces, animals and vehicles. Nothing but the traces in the pixels
tells the two labels apart:

- a *real* image went through a simulated camera: one colour per pixel behind a Bayer mosaic, shot and read noise in
  linear light, bilinear demosaicing, gamma, sharpening;
- a *fake* image went through a decoder such as generators have: a coarse latent code upsampled by a strided
  transposed convolution, with noise injected before and after it.

Everything else follows the same distribution for all images: the scene, the mean and standard deviation of each
colour channel, the JPEG quality, and the file size. The statistics are imposed; the size is met by solving for the
noise level. A detector that scores well on this collection has therefore found the traces. It has learned nothing
about photographs: the collection is for trying the tools.
"""

import csv
import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from pipelines.datasets.examples import LABELS
from pipelines.datasets.scenes import CLASSES, Plane, Planes, draw_scene
from pipelines.exceptions import DataError

_SOURCES = {"real": "camera", "fake": "decoder"}
_SPLIT_PERCENT = {"train": 60, "validation": 20, "test": 20}
_MIN_SIZE, _MAX_SIZE = 64, 1024  # pixels

Renderer = Callable[[float], Planes]  # noise level -> image, gamma encoded


def write_sample_data(
    folder: Path,
    *,
    images: int = 480,
    size: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, dict[str, int]]]:
    """Write a balanced collection of synthetic images and its metadata.csv.

    Args:
        folder: an existing, empty directory. It receives `SPLIT/LABEL/CLASS/NAME.jpg` for the splits `train`,
            `validation` and `test` (60/20/20), the labels `real` and `fake` and the classes `human_faces`, `animals`
            and `vehicles`; and `metadata.csv` with the columns `image_path` (relative, forward slashes), `label` (0
            real, 1 fake), `class`, `source`.
        images: number of images, at least 30; rounded down so that every label and class of a split has equally many.
        size: width and height in pixels, a multiple of 8 from 64 to 1024.
        seed: not negative. The same arguments give the same bytes.
        progress: called with (images done, images in all).

    Returns:
        The number of images as `{split: {label: {class: count}}}`.

    Raises:
        DataError: `images` is too small, or `size` is not one of the sizes above.
    """
    counts = _count_per_cell(images)
    if size % 8 or not _MIN_SIZE <= size <= _MAX_SIZE:
        raise DataError(f"the size must be a multiple of 8 from {_MIN_SIZE} to {_MAX_SIZE}, not {size}")
    plan = np.random.default_rng(seed).permutation(_cells(counts)).tolist()
    rows = []
    for serial, (split, label, category) in enumerate(plan):
        path = f"{split}/{label}/{category}/{serial:04x}.jpg"  # the plan is shuffled, so names reveal nothing
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(make_jpeg(label, category, size, np.random.default_rng([seed, serial, 1])))
        rows.append((path, LABELS.index(label), category, _SOURCES[label]))
        if progress:
            progress(serial + 1, len(plan))
    _write_metadata(folder / "metadata.csv", sorted(rows))
    return {split: {label: dict.fromkeys(CLASSES, n) for label in LABELS} for split, n in counts.items()}


def _count_per_cell(images: int) -> dict[str, int]:
    cells = len(LABELS) * len(CLASSES)
    counts = {split: images * percent // (100 * cells) for split, percent in _SPLIT_PERCENT.items()}
    if min(counts.values()) < 1:
        raise DataError(f"at least 30 images are needed to fill every class of every split, not {images}")
    return counts


def _cells(counts: dict[str, int]) -> list[tuple[str, str, str]]:
    """Split, label and class of every image."""
    cells = [(split, label, category) for split in counts for label in LABELS for category in CLASSES]
    return [cell for cell in cells for _ in range(counts[cell[0]])]


def _write_metadata(path: Path, rows: list[tuple[str, int, str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image_path", "label", "class", "source"))
        writer.writerows(rows)


def make_jpeg(label: str, category: str, size: int, rng: np.random.Generator) -> bytes:
    """Draw one image of the collection, `real` or `fake`, of one of CLASSES, as the bytes of a JPEG."""
    statistics = Statistics.draw(rng)  # independent of label and class
    light = draw_scene(category, 2 * size, rng)
    render = photograph(light, rng) if label == "real" else generate(light, rng)
    return statistics.encode(render)


# --- what all images have in common ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Statistics:
    """The global statistics that an image is given."""

    mean: np.ndarray  # (3,) of the channels, 0 to 1
    contrast: np.ndarray  # (3,) standard deviation of the channels
    quality: int  # of the JPEG
    bytes_per_pixel: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw the settings of one image."""
        quality = int(rng.integers(88, 94))
        return cls(
            mean=rng.uniform(0.42, 0.58) + rng.uniform(-0.05, 0.05, 3),
            contrast=rng.uniform(0.14, 0.18) * rng.uniform(0.9, 1.1, 3),
            quality=quality,
            bytes_per_pixel=rng.uniform(0.58, 0.72) * 1.08 ** (quality - 88),
        )

    def encode(self, render: Renderer) -> bytes:
        """Encode an image as a JPEG of the wanted size, found by bisection of the noise level."""
        quiet, loud = 0.0, 1.0
        for _ in range(10):
            level = (quiet + loud) / 2
            image = self.impose(render(level))
            jpeg = _to_jpeg(image, self.quality)
            too_large = len(jpeg) > self.bytes_per_pixel * image[0].size
            quiet, loud = (quiet, level) if too_large else (level, loud)
        return jpeg

    def impose(self, image: Planes) -> Planes:
        """Give every channel the mean and contrast of these statistics, within 0 to 1."""
        pixels = image.reshape(3, -1)
        for _ in range(4):  # clipping changes both a little, so repeat
            gain = self.contrast / pixels.std(1)
            offset = self.mean - gain * pixels.mean(1)
            pixels = (pixels * _column(gain) + _column(offset)).clip(0, 1)
        return pixels.reshape(image.shape)


def _column(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)[:, None]


def _to_jpeg(image: Planes, quality: int) -> bytes:
    pixels = np.rint(255 * image.transpose(1, 2, 0)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


# --- camera and decoder ----------------------------------------------------------------------------------------

_TENT = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 4
_CROSS = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4


def photograph(light: Planes, rng: np.random.Generator) -> Renderer:
    """Photograph a scene with a Bayer sensor.

    Args:
        light: linear light, float32, (3, 2 * size, 2 * size), from 0 to 1.
        rng: source of the noise.

    Returns:
        A function from the noise level to the image: gamma encoded float32, (3, size, size).
    """
    mosaic = bayer_mask(light.shape[1] // 2)
    raw = (_pool(light, 2) * mosaic).sum(0)
    noise = rng.standard_normal(raw.shape, np.float32) * _noise_strength(raw)

    def develop(level: float) -> Planes:
        red, green, blue = (raw + level * noise) * mosaic
        image = np.stack([_convolve(red, _TENT), _convolve(green, _CROSS), _convolve(blue, _TENT)])
        return _sharpen(_gamma(image))

    return develop


def bayer_mask(size: int) -> Planes:
    """Where a sensor with the pattern RG/GB measures each channel: float32, (3, size, size), 1 or 0."""
    mask = np.zeros((3, size, size), np.float32)
    mask[0, 0::2, 0::2] = mask[1, 0::2, 1::2] = mask[1, 1::2, 0::2] = mask[2, 1::2, 1::2] = 1
    return mask


def generate(light: Planes, rng: np.random.Generator) -> Renderer:
    """Rebuild a scene from a latent code of half its size, as the decoder of a generator does.

    Arguments and result are as those of `photograph`.
    """
    kernel = _decoder_kernel(rng)
    target = _pool(light, 4)
    code = target
    for _ in range(2):  # solve for the code that decodes to the scene; merely upsampling the scene would blur it
        code = code + target - _pool(_upsample(code, kernel), 2)
    clean = _upsample(np.rint(128 * code) / 128, kernel)
    coarse = _upsample(rng.standard_normal(target.shape, np.float32), kernel)
    fine = rng.standard_normal(clean.shape, np.float32)
    noise = (0.48 * coarse + 0.35 * fine) * _noise_strength(clean)
    return lambda level: _gamma(clean + level * noise)


def _decoder_kernel(rng: np.random.Generator) -> Plane:
    """A kernel that, at stride 2, makes odd rows brighter than even ones.

    Only rows, because horizontal flips in training move columns from even to odd.
    """
    side = 0.5 + rng.uniform(0.11, 0.15)
    return np.outer([side, 1, side], [0.5, 1, 0.5]).astype(np.float32)


def _noise_strength(light: np.ndarray) -> np.ndarray:
    """The standard deviation of shot and read noise, up to a factor.

    The decoder uses it too, so that the dependence of noise on light does not tell the labels apart.
    """
    return np.sqrt(0.2 * light.clip(0, 1) + 0.01)


def _upsample(image: Planes, kernel: Plane) -> Planes:
    """Transposed convolution of stride 2: zeros between the pixels, then the kernel."""
    sparse = np.zeros((3, 2 * image.shape[1], 2 * image.shape[2]), np.float32)
    sparse[:, ::2, ::2] = image
    return _convolve(sparse, kernel)


def _pool(image: Planes, factor: int) -> Planes:
    """Average pooling."""
    parts = [image[:, row::factor, column::factor] for row in range(factor) for column in range(factor)]
    return functools.reduce(np.add, parts) / np.float32(factor * factor)


def _convolve(image: np.ndarray, kernel: Plane) -> np.ndarray:
    height, width = image.shape[-2:]
    # Reflection without repeating the edge keeps even pixels even, as the mosaic and the stride require.
    padded = np.pad(image, [(0, 0)] * (image.ndim - 2) + [(1, 1), (1, 1)], "reflect")
    taps = [(row, column) for row in range(3) for column in range(3) if kernel[row, column]]
    shifted = [kernel[r, c] * padded[..., r : r + height, c : c + width] for r, c in taps]
    return functools.reduce(np.add, shifted)


def _sharpen(image: Planes) -> Planes:
    return image + 0.4 * (image - _convolve(image, _TENT / 4))


def _gamma(light: Planes) -> Planes:
    return light.clip(0, 1) ** np.float32(1 / 2.2)
