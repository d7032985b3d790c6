"""The repair of data whose labels can be told from the files: every image goes through one and the same mill."""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Equaliser:
    """A square crop, a resize and a JPEG, drawn for each image from the same distributions whatever its label.

    The crop's side is 5/8 to all of the shorter side, anywhere in the image; it is resized to `size` pixels
    (Lanczos) and saved as JPEG of quality 65 to 100 with 4:2:0 chroma, without metadata. The draws depend on
    `seed` and the image's path alone.
    """

    size: int  # pixels, height and width of every image that comes out
    seed: int = 0

    def __call__(self, pixels: np.ndarray, path: str) -> bytes:
        """The JPEG made of an image: uint8 (height, width, 3), RGB."""
        key = hashlib.sha256(f"{self.seed}/equalise/".encode() + path.encode(errors="surrogateescape")).digest()
        random = np.random.default_rng(np.frombuffer(key, np.uint32))
        image = Image.fromarray(pixels)
        shorter = min(image.size)
        side = max(1, round(shorter * random.uniform(5 / 8, 1)))
        left, top = (int(random.integers(0, length - side + 1)) for length in image.size)
        square = image.resize(
            (self.size, self.size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
        )
        buffer = io.BytesIO()
        square.save(buffer, "JPEG", quality=int(random.integers(65, 101)), subsampling="4:2:0")
        return buffer.getvalue()
