"""Equalisation: the remedy for data whose labels can be told from the files. Every image gets the same treatment."""

import hashlib
import io
import statistics
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipelines.datasets.examples import LABELS
from pipelines.datasets.layouts import Layout
from pipelines.media.headers import UnreadableError, read_file, read_header

_LARGEST_CROP = 8 / 5  # times the size
_SAMPLE = 1000  # images of each label from which the size is estimated


@dataclass(frozen=True)
class Equaliser:
    """A random square crop, a resize and a JPEG compression, from the same distributions for both labels.

    The side of the crop is 1 to 8/5 times `size` (or the shorter side of the image, where that is less), so that
    images of any resolution are scaled alike; its position is uniform. The crop is resized to `size` (Lanczos) and
    saved as a JPEG of quality 65 to 100 with 4:2:0 chroma and no metadata. The random numbers depend only on `seed`
    and the path of the image.

    Attributes:
        size: height and width of every equalised image, in pixels.
        seed: of the random numbers.
    """

    size: int
    seed: int = 0

    def __call__(self, pixels: np.ndarray, path: str) -> bytes:
        """Equalise an image, uint8 (height, width, 3), RGB, and return it as JPEG."""
        key = hashlib.sha256(f"{self.seed}/equalise/".encode() + path.encode(errors="surrogateescape")).digest()
        random = np.random.default_rng(np.frombuffer(key, np.uint32))
        image = Image.fromarray(pixels)
        side = min(round(self.size * random.uniform(1, _LARGEST_CROP)), *image.size)
        left, top = (int(random.integers(0, length - side + 1)) for length in image.size)
        square = (left, top, left + side, top + side)
        buffer = io.BytesIO()
        image.resize((self.size, self.size), Image.Resampling.LANCZOS, box=square).save(
            buffer, "JPEG", quality=int(random.integers(65, 101)), subsampling="4:2:0"
        )
        return buffer.getvalue()


def common_size(layout: Layout) -> int:
    """The size to equalise to: the largest crop fits into a median image of the label that has smaller images.

    Returns:
        A multiple of 8 from 32 to 512, in pixels.
    """
    shorter_sides: dict[int, list[int]] = {label: [] for label in range(len(LABELS))}
    for example in layout.examples:
        sides = shorter_sides.get(example.label)
        if sides is None or len(sides) == _SAMPLE:
            continue
        try:
            header = read_header(read_file(layout.root / example.path))
        except (OSError, UnreadableError):
            continue  # the conversion will quarantine it
        sides.append(min(header.height, header.width))
    smaller = min(statistics.median(sides) for sides in shorter_sides.values() if sides)
    return int(min(512, max(32, smaller / _LARGEST_CROP // 8 * 8)))
