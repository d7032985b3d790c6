"""Draw a small image collection on the spot, so that the whole tool chain can be tried without a download.

The collection holds ``real`` and ``fake`` drawings of faces, animals and vehicles. Nothing but the pixel
trace tells the two labels apart:

* a *real* image went through a simulated camera: one colour per pixel behind a Bayer mosaic, shot and read
  noise in linear light, bilinear demosaicing, gamma, sharpening;
* a *fake* image went through a decoder such as generators have: a coarse code brought to full size by a
  strided transposed convolution, with noise injected before and after it.

Everything else is drawn from one distribution for all images: the scene, the mean and the standard deviation
of every colour channel, the JPEG quality, and the size of the file. The statistics are imposed; the size is
met by solving for the noise level. A detector that scores well on this collection has therefore read the
trace. It has learnt nothing about photographs: the collection is for trying the tools.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.datasets.examples import LABELS
from pipelines.exceptions import DataError

CLASSES = ("human_faces", "animals", "vehicles")
SOURCES = ("camera", "decoder")
PERCENT = {"train": 60, "validation": 20, "test": 20}
SMALLEST, LARGEST = 64, 1024

Planes = np.ndarray  # float32, (3, height, width): red, green, blue
Plane = np.ndarray  # float32, (height, width)
Picture = Callable[[float], Planes]  # noise level -> image, gamma encoded


def write_sample_data(
    folder: Path,
    *,
    images: int = 480,
    size: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, dict[str, int]]]:
    """Write a balanced collection of synthetic images and its ``metadata.csv``.

    Args:
        folder: An existing, empty directory. It receives ``SPLIT/LABEL/CLASS/NAME.jpg`` for the splits
            ``train``, ``validation`` and ``test`` (60/20/20), the labels ``real`` and ``fake`` and the
            classes ``human_faces``, ``animals`` and ``vehicles``; and ``metadata.csv`` with the columns
            ``image_path`` (relative, forward slashes), ``label`` (0 real, 1 fake), ``class``, ``source``.
        images: How many images to write, at least 30. Rounded down until all six cells of a split, label by
            class, hold the same number.
        size: Width and height in pixels, a multiple of 8 from 64 to 1024.
        seed: Not negative. The same arguments give the same bytes.
        progress: Called as ``progress(done, total)`` after every image.

    Returns:
        The number of images as ``{split: {label: {class: count}}}``.

    Raises:
        DataError: ``images`` is too small, or ``size`` is not one of the sizes above.
    """
    counts = _count_per_cell(images)
    if size % 8 or not SMALLEST <= size <= LARGEST:
        raise DataError(f"size must be a multiple of 8 from {SMALLEST} to {LARGEST}, not {size}.")
    plan = np.random.default_rng(seed).permutation(_cells(counts)).tolist()
    rows = []
    for serial, (split, label, category) in enumerate(plan):
        path = f"{split}/{label}/{category}/{serial:04x}.jpg"  # the plan is shuffled: names say nothing
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(make_jpeg(label, category, size, np.random.default_rng([seed, serial, 1])))
        rows.append((path, LABELS.index(label), category, SOURCES[LABELS.index(label)]))
        if progress:
            progress(serial + 1, len(plan))
    _write_metadata(folder / "metadata.csv", sorted(rows))
    return {split: {label: dict.fromkeys(CLASSES, n) for label in LABELS} for split, n in counts.items()}


def _count_per_cell(images: int) -> dict[str, int]:
    cells = len(LABELS) * len(CLASSES)
    counts = {split: images * percent // (100 * cells) for split, percent in PERCENT.items()}
    if min(counts.values()) < 1:
        raise DataError(f"At least 30 images are needed to fill every class of every split, not {images}.")
    return counts


def _cells(counts: dict[str, int]) -> list[tuple[str, str, str]]:
    """Return split, label and class of every image."""
    cells = [(split, label, category) for split in counts for label in LABELS for category in CLASSES]
    return [cell for cell in cells for _ in range(counts[cell[0]])]


def _write_metadata(path: Path, rows: list[tuple[str, int, str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image_path", "label", "class", "source"))
        writer.writerows(rows)


def make_jpeg(label: str, category: str, size: int, rng: np.random.Generator) -> bytes:
    """One image of the collection, ``real`` or ``fake``, of one of ``CLASSES``, as the bytes of a file."""
    look = Look.draw(rng)  # knows neither label nor class
    light = draw_scene(category, 2 * size, rng)
    picture = photograph(light, rng) if label == "real" else decode(light, rng)
    return look.encode(picture)


# -- What all images have in common ------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """The global statistics to give to an image."""

    mean: np.ndarray  # (3,) of the channels, 0 to 1
    contrast: np.ndarray  # (3,) standard deviation of the channels
    quality: int  # of the JPEG
    bytes_per_pixel: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Look:
        quality = int(rng.integers(88, 94))
        return cls(
            mean=rng.uniform(0.42, 0.58) + rng.uniform(-0.05, 0.05, 3),
            contrast=rng.uniform(0.14, 0.18) * rng.uniform(0.9, 1.1, 3),
            quality=quality,
            bytes_per_pixel=rng.uniform(0.58, 0.72) * 1.08 ** (quality - 88),
        )

    def encode(self, picture: Picture) -> bytes:
        """Return the JPEG whose noise level makes the file as large as this look asks for."""
        quiet, loud = 0.0, 1.0
        for _ in range(10):
            level = (quiet + loud) / 2
            image = self.impose(picture(level))
            jpeg = _to_jpeg(image, self.quality)
            too_large = len(jpeg) > self.bytes_per_pixel * image[0].size
            quiet, loud = (quiet, level) if too_large else (level, loud)
        return jpeg

    def impose(self, image: Planes) -> Planes:
        """Give every channel the mean and the contrast of this look, within 0 to 1."""
        pixels = image.reshape(3, -1)
        for _ in range(4):  # clipping moves both a little, so repeat
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


# -- The two ways to a picture -----------------------------------------------------------------------------

TENT = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 4
CROSS = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4


def photograph(light: Planes, rng: np.random.Generator) -> Picture:
    """Photograph a scene with a Bayer sensor.

    Args:
        light: Linear light, float32, (3, 2 * size, 2 * size), from 0 to 1.
        rng: Source of the noise.

    Returns:
        A function from the noise level to the image: gamma encoded float32, (3, size, size).
    """
    mosaic = bayer_mask(light.shape[1] // 2)
    raw = (_pool(light, 2) * mosaic).sum(0)
    noise = rng.standard_normal(raw.shape, np.float32) * _noise_strength(raw)

    def develop(level: float) -> Planes:
        red, green, blue = (raw + level * noise) * mosaic
        image = np.stack([_convolve(red, TENT), _convolve(green, CROSS), _convolve(blue, TENT)])
        return _sharpen(_gamma(image))

    return develop


def bayer_mask(size: int) -> Planes:
    """Return 1 where a sensor with the pattern RG/GB measures a channel, else 0: float32, (3, size, size)."""
    mask = np.zeros((3, size, size), np.float32)
    mask[0, 0::2, 0::2] = mask[1, 0::2, 1::2] = mask[1, 1::2, 0::2] = mask[2, 1::2, 1::2] = 1
    return mask


def decode(light: Planes, rng: np.random.Generator) -> Picture:
    """Rebuild a scene from a code of half its size, as the decoder of a generator does.

    Takes and returns what :func:`photograph` does.
    """
    kernel = _decoder_kernel(rng)
    goal = _pool(light, 4)
    code = goal
    for _ in range(2):  # the code that decodes to the scene; merely enlarging the scene would also blur it
        code = code + goal - _pool(_grow(code, kernel), 2)
    plain = _grow(np.rint(128 * code) / 128, kernel)
    coarse = _grow(rng.standard_normal(goal.shape, np.float32), kernel)
    fine = rng.standard_normal(plain.shape, np.float32)
    noise = (0.48 * coarse + 0.35 * fine) * _noise_strength(plain)
    return lambda level: _gamma(plain + level * noise)


def _decoder_kernel(rng: np.random.Generator) -> Plane:
    """Return a kernel that, at stride 2, makes odd rows a little brighter than even ones.

    Rows alone, because training mirrors images left to right, which moves columns from even to odd.
    """
    side = 0.5 + rng.uniform(0.04, 0.07)
    return np.outer([side, 1, side], [0.5, 1, 0.5]).astype(np.float32)


def _noise_strength(light: np.ndarray) -> np.ndarray:
    """Return the standard deviation of shot and read noise, up to a factor.

    The decoder follows it too: how the noise grows with the light must not tell the labels apart.
    """
    return np.sqrt(0.2 * light.clip(0, 1) + 0.01)


def _grow(image: Planes, kernel: Plane) -> Planes:
    """Transposed convolution with stride 2: zeros between the pixels, then the kernel."""
    sparse = np.zeros((3, 2 * image.shape[1], 2 * image.shape[2]), np.float32)
    sparse[:, ::2, ::2] = image
    return _convolve(sparse, kernel)


def _pool(image: Planes, factor: int) -> Planes:
    parts = [image[:, row::factor, column::factor] for row in range(factor) for column in range(factor)]
    return sum(parts) / np.float32(factor * factor)


def _convolve(image: np.ndarray, kernel: Plane) -> np.ndarray:
    height, width = image.shape[-2:]
    # Mirroring without repeating the edge keeps even pixels even, which mosaic and stride both need.
    padded = np.pad(image, [(0, 0)] * (image.ndim - 2) + [(1, 1), (1, 1)], "reflect")
    taps = [(row, column) for row in range(3) for column in range(3) if kernel[row, column]]
    return sum(kernel[r, c] * padded[..., r : r + height, c : c + width] for r, c in taps)


def _sharpen(image: Planes) -> Planes:
    return image + 0.4 * (image - _convolve(image, TENT / 4))


def _gamma(light: Planes) -> Planes:
    return light.clip(0, 1) ** np.float32(1 / 2.2)


# -- Scenes ------------------------------------------------------------------------------------------------

WHITE = np.full((3, 1, 1), 0.7, np.float32)


class Canvas:
    """Linear light to paint on, (3, pixels, pixels), with a background and a random pose.

    Shapes are given in the frame of the object: the image reaches from about -1 to 1, x to the right and y
    down. A shape is its coverage of every pixel: float32, (pixels, pixels), 0 outside to 1 inside.
    """

    def __init__(self, pixels: int, rng: np.random.Generator) -> None:
        self.pixels, self.rng = pixels, rng
        bright, dark = rng.uniform(0.3, 0.5), rng.uniform(0.08, 0.16)
        self.subject, self.ground = (bright, dark) if rng.random() < 0.5 else (dark, bright)
        self._pose()
        self._fill_background()

    def _pose(self) -> None:
        rng = self.rng
        across = (np.arange(self.pixels, dtype=np.float32) + 0.5) * (2 / self.pixels) - 1
        x, y = across[None, :] - rng.uniform(-0.15, 0.15), across[:, None] - rng.uniform(-0.1, 0.1)
        turn, scale = rng.uniform(-0.2, 0.2), rng.uniform(0.75, 1.0)
        mirror = rng.choice([-1, 1])
        self.x = ((x * np.cos(turn) + y * np.sin(turn)) * (mirror / scale)).astype(np.float32)
        self.y = ((y * np.cos(turn) - x * np.sin(turn)) / scale).astype(np.float32)
        self.edge = 2 / (self.pixels * scale)  # the width of a pixel
        lamp = rng.uniform(0, 2 * np.pi)
        self.shade = 1 + 0.25 * (np.cos(lamp) * self.x + np.sin(lamp) * self.y) + 0.08 * self.texture(40)

    def _fill_background(self) -> None:
        slope = self.y * self.rng.uniform(0.2, 0.5) + self.x * self.rng.uniform(-0.25, 0.25) + 0.5
        top, bottom, spot = (self.colour(self.ground) for _ in range(3))
        self.light = top + slope.clip(0, 1) * (bottom - top)
        clouds = (self.texture(4) + 0.5 * self.texture(9)).clip(0, 1)
        self.light += 0.5 * clouds * (spot - self.light)
        self.light *= 1 + 0.08 * self.texture(40)

    def colour(self, brightness: float) -> Planes:
        """Return a random colour: float32, (3, 1, 1). All objects share this palette."""
        hue, saturation = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(0.1, 0.55)
        wheel = 1 + saturation * np.cos(hue + np.arange(3)[:, None, None] * (2 * np.pi / 3))
        return (brightness * self.rng.uniform(0.8, 1.25) * wheel).astype(np.float32)

    def texture(self, cells: int) -> Plane:
        """Return smooth noise with so many cells across: about -1 to 1."""
        noise = self.rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        return np.asarray(Image.fromarray(noise).resize((self.pixels, self.pixels), Image.Resampling.BICUBIC))

    def paint(self, shape: Plane, colour: Planes) -> None:
        """Cover the shape with a colour, (3, 1, 1), under the light of the scene."""
        rows = np.flatnonzero(shape.any(1))
        if rows.size:
            part = np.s_[..., rows[0] : rows[-1] + 1, :]  # most shapes are small: leave the rest alone
            self.light[part] += shape[part] * (colour * self.shade[part] - self.light[part])

    def ellipse(self, x: float, y: float, width: float, height: float) -> Plane:
        radius = np.hypot((self.x - x) / width, (self.y - y) / height)
        return self._cover((radius - 1) * min(width, height))

    def limb(self, start: tuple[float, float], end: tuple[float, float], radius: float) -> Plane:
        """Return a line with round ends."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        px, py = self.x - start[0], self.y - start[1]
        along = ((px * dx + py * dy) / (dx * dx + dy * dy)).clip(0, 1)
        return self._cover(np.hypot(px - along * dx, py - along * dy) - radius)

    def polygon(self, *corners: tuple[float, float]) -> Plane:
        """Return a convex polygon, corners given clockwise as seen."""
        distance = np.full_like(self.x, -np.inf)
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            outward = (self.x - x0) * (y1 - y0) - (self.y - y0) * (x1 - x0)
            np.maximum(distance, outward / np.hypot(x1 - x0, y1 - y0), out=distance)
        return self._cover(distance)

    def _cover(self, distance: Plane) -> Plane:
        return (0.5 - distance / self.edge).clip(0, 1)


def draw_scene(category: str, pixels: int, rng: np.random.Generator) -> Planes:
    """Draw one object in front of a background.

    Args:
        category: One of ``CLASSES``.
        pixels: Width and height.
        rng: Source of pose, shape and colours.

    Returns:
        Linear light: float32, (3, pixels, pixels), from 0 to 1.
    """
    canvas = Canvas(pixels, rng)
    {"human_faces": _draw_face, "animals": _draw_animal, "vehicles": _draw_vehicle}[category](canvas, rng)
    return canvas.light.clip(0, 1)


def _draw_face(canvas: Canvas, rng: np.random.Generator) -> None:
    skin, shirt = canvas.colour(canvas.subject), canvas.colour(canvas.ground)
    hair = canvas.colour(canvas.subject) * rng.uniform(0.25, 0.5)
    width, height = rng.uniform(0.44, 0.54), rng.uniform(0.56, 0.66)
    canvas.paint(canvas.ellipse(0, -0.12, width + 0.1, height + rng.uniform(0.0, 0.25)), hair)
    canvas.paint(canvas.ellipse(0, 1.2, 0.85, 0.45), shirt)
    canvas.paint(canvas.limb((0, 0.4), (0, 0.8), 0.19), 0.8 * skin)
    for side in (-1, 1):
        canvas.paint(canvas.ellipse(side * width, 0.05, 0.08, 0.14), 0.85 * skin)
    head = canvas.ellipse(0, 0, width, height)
    canvas.paint(head, skin)
    hairline = canvas.y + rng.uniform(-0.6, 0.6) * canvas.x + rng.uniform(0.28, 0.38)
    canvas.paint(head * canvas._cover(hairline), hair)
    _draw_features(canvas, rng, skin, hair)


def _draw_features(canvas: Canvas, rng: np.random.Generator, skin: Planes, hair: Planes) -> None:
    gaze, apart, open_ = rng.uniform(-0.08, 0.08), rng.uniform(0.18, 0.23), rng.uniform(0.05, 0.08)
    iris = canvas.colour(0.2)
    for x in (gaze - apart, gaze + apart):
        canvas.paint(canvas.limb((x - 0.1, -0.17), (x + 0.1, -0.19), 0.025), hair)
        canvas.paint(canvas.ellipse(x, -0.05, 0.11, open_), WHITE)
        canvas.paint(canvas.ellipse(x + gaze / 4, -0.05, 0.055, min(open_, 0.055)), iris)
        canvas.paint(canvas.ellipse(x + gaze / 4, -0.05, 0.025, 0.025), 0.1 * iris)
    canvas.paint(canvas.limb((gaze, -0.02), (1.4 * gaze, 0.16), 0.03), 0.75 * skin)
    canvas.paint(canvas.ellipse(1.4 * gaze, 0.17, 0.075, 0.045), 0.65 * skin)
    wide, smile = rng.uniform(0.14, 0.22), rng.uniform(0.0, 0.06)
    lips = 0.5 * skin * np.float32([1.2, 0.7, 0.8])[:, None, None]
    for side in (-1, 1):
        canvas.paint(canvas.limb((gaze, 0.36), (gaze + side * wide, 0.36 - smile), 0.035), lips)


def _draw_animal(canvas: Canvas, rng: np.random.Generator) -> None:
    fur = canvas.colour(canvas.subject)
    long, deep, leg = rng.uniform(0.42, 0.55), rng.uniform(0.2, 0.28), rng.uniform(0.06, 0.085)
    for x in (-long + 0.14, -long + 0.3, long - 0.3, long - 0.14):
        far = abs(x) < long - 0.2  # the legs on the other side lie in shadow
        foot = (x + rng.uniform(-0.12, 0.12), rng.uniform(0.62, 0.72))
        canvas.paint(canvas.limb((x, 0.15), foot, leg), fur * (0.6 if far else 0.9))
    tip = (-long - rng.uniform(0.2, 0.35), rng.uniform(-0.4, 0.25))
    canvas.paint(canvas.limb((-long + 0.08, 0.02), tip, 0.045), 0.9 * fur)
    head = (long + rng.uniform(0.05, 0.15), rng.uniform(-0.45, -0.25))
    canvas.paint(canvas.limb((long - 0.15, 0), head, 0.14), fur)
    body = canvas.ellipse(0, 0.08, long, deep)
    canvas.paint(body, fur)
    canvas.paint(body * _coat(canvas, rng), canvas.colour(canvas.subject) * 0.35)
    _draw_muzzle(canvas, rng, head, fur)


def _coat(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Return where the fur is dark: spots, stripes, or patches."""
    kind = rng.integers(3)
    if kind == 0:
        return (4 * canvas.texture(22) - 1.2).clip(0, 1)
    if kind == 1:
        return (3 * np.sin(rng.uniform(22, 34) * canvas.x + 2 * canvas.texture(6))).clip(0, 1)
    return (6 * canvas.texture(7) - 1).clip(0, 1)


def _draw_muzzle(canvas: Canvas, rng: np.random.Generator, head: tuple[float, float], fur: Planes) -> None:
    x, y = head
    ear = rng.uniform(0.14, 0.28)
    for left in (-0.17, 0.02):
        corners = (x + left, y - 0.06), (x + left + 0.04, y - 0.12 - ear), (x + left + 0.15, y - 0.08)
        canvas.paint(canvas.polygon(*corners), 0.7 * fur)
    canvas.paint(canvas.ellipse(x, y, 0.2, 0.17), fur)
    canvas.paint(canvas.limb((x + 0.08, y + 0.05), (x + rng.uniform(0.2, 0.28), y + 0.08), 0.085), 1.1 * fur)
    canvas.paint(canvas.ellipse(x + 0.31, y + 0.05, 0.05, 0.04), 0.1 * fur)
    canvas.paint(canvas.ellipse(x + 0.06, y - 0.04, 0.035, 0.035), 0.08 * fur)


def _draw_vehicle(canvas: Canvas, rng: np.random.Generator) -> None:
    paint, glass = canvas.colour(canvas.subject), canvas.colour(canvas.ground)
    long, roof, hood = rng.uniform(0.72, 0.85), rng.uniform(-0.5, -0.3), rng.uniform(0.1, 0.4)
    back, front, slant = -long + rng.uniform(0.02, 0.3), long - hood, rng.uniform(0.08, 0.22)
    cabin = canvas.polygon((back, 0), (back + slant, roof), (front - slant, roof), (front, 0))
    canvas.paint(cabin, 0.9 * paint)
    panes = np.linspace(back + slant, front - slant, int(rng.integers(3, 5)))
    for left, right in zip(panes[:-1] + 0.02, panes[1:] - 0.02, strict=True):
        window = canvas.polygon((left, -0.04), (left, roof + 0.06), (right, roof + 0.06), (right, -0.04))
        canvas.paint(window, glass)
    canvas.paint(canvas.polygon((-long, -0.02), (long - 0.05, -0.02), (long, 0.32), (-long, 0.32)), paint)
    canvas.paint(canvas.limb((-long, 0.3), (long, 0.3), 0.04), 0.4 * paint)
    canvas.paint(canvas.limb((-long + 0.1, 0.08), (long - 0.12, 0.08), 0.012), 0.5 * paint)
    canvas.paint(canvas.ellipse(long - 0.07, 0.12, 0.06, 0.05), WHITE)
    radius, tyre, hub = rng.uniform(0.15, 0.2), 0.08 * WHITE, canvas.colour(0.4)
    for x in (-long + rng.uniform(0.28, 0.36), long - rng.uniform(0.28, 0.36)):
        canvas.paint(canvas.ellipse(x, 0.34, radius, radius), tyre)
        canvas.paint(canvas.ellipse(x, 0.34, 0.55 * radius, 0.55 * radius), hub)
