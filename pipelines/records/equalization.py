"""Equalisation: the remedy for data whose labels can be told from the files. Every image gets the same treatment.

`ResizeEqualiser` scales every image, so that any two become alike, but weakens the traces that a detector lives on.
`CropEqualiser` keeps the pixels as they were made, and needs images of a minimum size.
"""

import abc
import hashlib
import io
import os
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from pipelines.datasets.examples import LABELS, UNLABELLED, Example
from pipelines.datasets.layouts import Layout
from pipelines.media import pillow
from pipelines.media.headers import MAX_PIXELS, UnreadableError, read_file, read_header
from pipelines.parallel import chunks, in_parallel, worker_count

_LARGEST_CROP = 8 / 5  # times the size to which it is scaled
_SAMPLE = 1000  # images of each label from which the size is estimated
_SMALLEST, _LARGEST_RESIZE = 32, 512  # common sizes
_QUALITIES = (65, 100)
_SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
_GRID = 16  # pixels from one block of a JPEG to the next where chroma is subsampled; without subsampling half of it
_LOST = 20  # one in so many images of a label may be too small for the crop
_NAMES = dict(enumerate(LABELS)) | {UNLABELLED: "unlabelled"}
_CHUNK = 64  # files measured by one call of a worker


@dataclass(frozen=True)
class Equaliser(abc.ABC):
    """One treatment for every image, whatever its label. It ends in a square JPEG of one size without metadata.

    The random numbers depend only on `seed` and the path of the image.

    Attributes:
        size: height and width of every equalised image, in pixels.
        seed: of the random numbers.
    """

    size: int
    seed: int = 0
    method: ClassVar[str]  # its name in the manifest of the records

    def __call__(self, pixels: np.ndarray, path: str) -> bytes:
        """Equalise an image, uint8 (height, width, 3), RGB, and return it as JPEG.

        Raises:
            UnreadableError: the image is too small.
        """
        key = hashlib.sha256(f"{self.seed}/equalise/".encode() + path.encode(errors="surrogateescape")).digest()
        return self._equalise(Image.fromarray(pixels), np.random.default_rng(np.frombuffer(key, np.uint32)))

    @abc.abstractmethod
    def _equalise(self, image: Image.Image, random: np.random.Generator) -> bytes: ...


class ResizeEqualiser(Equaliser):
    """A random square crop, a resize and a JPEG compression, from the same distributions for both labels.

    The side of the crop is 1 to 8/5 times `size` (or the shorter side of the image, where that is less), so that
    images of any resolution are scaled alike; its position is uniform. The crop is resized to `size` (Lanczos) and
    saved as a JPEG of quality 65 to 100 with 4:2:0 chroma.
    """

    method = "resize"

    def _equalise(self, image: Image.Image, random: np.random.Generator) -> bytes:
        side = min(round(self.size * random.uniform(1, _LARGEST_CROP)), *image.size)
        left, top = (int(random.integers(0, length - side + 1)) for length in image.size)
        square = (left, top, left + side, top + side)
        resized = image.resize((self.size, self.size), Image.Resampling.LANCZOS, box=square)
        return _jpeg(resized, _quality(random), "4:2:0")


class CropEqualiser(Equaliser):
    """A square at a random place, never scaled, and a JPEG compression, from the same distributions for both labels.

    The place is any pixel, and its phase, the remainder by 16, is uniform in images of every size: where blocks of an
    earlier JPEG begin in the crop says nothing of the label. So an image needs 15 pixels more than `size` on each
    side. The crop is saved as a JPEG of quality 65 to 100, and of 4:4:4, 4:2:2 or 4:2:0 chroma.
    """

    method = "crop"

    @property
    def least_side(self) -> int:
        """The shorter side of the smallest image that has room for the crop, in pixels."""
        return self.size + _GRID - 1

    def _equalise(self, image: Image.Image, random: np.random.Generator) -> bytes:
        if min(image.size) < self.least_side:
            raise UnreadableError(self.reason(min(image.size)))
        left, top = (_place(length - self.size, random) for length in image.size)
        crop = image.crop((left, top, left + self.size, top + self.size))
        return _jpeg(crop, _quality(random), str(random.choice(_SUBSAMPLINGS)))

    def reason(self, side: int) -> str:
        """Why an image with a shorter side of so many pixels is left out."""
        return (
            f"{side} pixels on the shorter side; a crop of {self.size} at a random place needs {self.least_side}; "
            "--equalise resize keeps it"
        )


def _place(last: int, random: np.random.Generator) -> int:
    """A random offset from 0 to `last`, which is at least 15. Its remainder by 16 is uniform."""
    phase = int(random.integers(_GRID))
    return phase + _GRID * int(random.integers((last - phase) // _GRID + 1))


def _quality(random: np.random.Generator) -> int:
    return int(random.integers(*_QUALITIES, endpoint=True))


def _jpeg(image: Image.Image, quality: int, subsampling: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()


# --- the common size -------------------------------------------------------------------------------------------


def resize_equaliser(layout: Layout, seed: int = 0) -> ResizeEqualiser:
    """Choose the size: the largest crop fits into a median image of the label that has smaller images.

    Returns:
        An equaliser to a multiple of 8 from 32 to 512 pixels.
    """
    shorter_sides: dict[int, list[int]] = {label: [] for label in range(len(LABELS))}
    for example in layout.examples:
        sides = shorter_sides.get(example.label)
        if sides is None or len(sides) == _SAMPLE:
            continue
        if side := _shorter_side(layout.root / example.path, MAX_PIXELS):
            sides.append(side)
    smaller = min((statistics.median(sides) for sides in shorter_sides.values() if sides), default=0)
    return ResizeEqualiser(int(min(_LARGEST_RESIZE, max(_SMALLEST, smaller / _LARGEST_CROP // 8 * 8))), seed)


def crop_equaliser(
    layout: Layout,
    seed: int = 0,
    *,
    max_pixels: int = MAX_PIXELS,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CropEqualiser:
    """Choose the size of the crop, and leave out the images that are too small for it.

    The size is the largest multiple of 8, from 32, for which at least 19 in 20 images of each label, and of the
    unlabelled ones, have room. Images that cannot be read are passed over: the conversion will quarantine them.

    Args:
        layout: the examples; those that are too small leave it, and a note gives the size and their number.
        seed: of the crops.
        max_pixels: larger images are passed over.
        workers: processes; None for one per core.
        progress: called with (images done, images in all).
    """
    labels, sides = _measure(layout, max_pixels, workers, progress)
    allowed = {  # by label, the shorter side that all but one in 20 images have
        label: int(np.sort(of_label)[len(of_label) // _LOST])
        for label in _NAMES
        if len(of_label := sides[(labels == label) & (sides > 0)])
    }
    largest = (min(allowed.values(), default=0) - _GRID + 1) // 8 * 8
    equaliser = CropEqualiser(max(_SMALLEST, largest), seed)
    are_small = (sides > 0) & (sides < equaliser.least_side)
    small = [
        (example.path, equaliser.reason(side))
        for example, side, is_small in zip(layout.examples, sides.tolist(), are_small.tolist(), strict=True)
        if is_small
    ]
    layout.examples.leave_out(small)
    limiting = _NAMES[min(allowed, key=allowed.__getitem__)] if largest >= _SMALLEST else ""
    layout.notes.append(_format_crop(equaliser.size, limiting, Counter(labels[are_small].tolist())))
    return equaliser


def _format_crop(size: int, limiting: str, lost: Counter[int]) -> str:
    """The size of the crop, the label that allows no larger one, and how many images of each label are too small."""
    limit = f", as large as 19 in 20 {limiting} images allow" if limiting else ""
    left_out = ", ".join(f"{lost[label]} {name}" for label, name in _NAMES.items() if lost[label]) or "none"
    return f"every image becomes a crop of {size} x {size} pixels{limit}; left out as too small for it: {left_out}"


def _measure(
    layout: Layout, max_pixels: int, workers: int | None, progress: Callable[[int, int], None] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Label, and shorter side in pixels or 0 if it cannot be read, of each example: int8 and int32 (examples,)."""
    total, done = len(layout.examples), 0
    labels, sides = np.empty(total, np.int8), np.empty(total, np.int32)
    job = partial(_shorter_sides, layout.root, max_pixels)
    tasks = chunks(layout.examples, _CHUNK)
    for examples, measured in in_parallel(job, tasks, worker_count(workers, total), pillow.silence):
        labels[done : done + len(examples)] = [example.label for example in examples]
        sides[done : done + len(examples)] = measured
        done += len(examples)
        if progress:
            progress(done, total)
    return labels, sides


def _shorter_sides(root: Path, max_pixels: int, examples: list[Example]) -> list[int]:
    return [_shorter_side(root / example.path, max_pixels) for example in examples]


def _shorter_side(path: str | os.PathLike, max_pixels: int) -> int:
    """The shorter side of an image, in pixels; 0 if its header cannot be read."""
    try:
        header = read_header(read_file(path), max_pixels=max_pixels)
    except (OSError, UnreadableError):
        return 0
    return min(header.height, header.width)
