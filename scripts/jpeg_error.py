"""Difference between `pipelines.transforms.jpeg` and Pillow's JPEG, by quality and subsampling, as JSON.

    python scripts/jpeg_error.py FOLDER

Over thirty images of one size under FOLDER: mean and maximum absolute difference in grey levels, the number of
values that differ, and the PSNR in decibels (null if none differ).
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from ddkeras.cli.environment import set_tensorflow_environment

set_tensorflow_environment()  # before TensorFlow is imported
from pipelines.datasets.layouts import image_files  # noqa: E402
from pipelines.transforms.jpeg import compress  # noqa: E402

QUALITIES = (30, 40, 50, 60, 70, 80, 90, 95)
NUMBER = 30


def photos(folder: Path) -> np.ndarray:
    """Thirty images, evenly over all that are as large as the first: uint8 (30, height, width, 3)."""
    paths = list(image_files(folder))
    images = (np.asarray(Image.open(path).convert("RGB")) for path in paths[:: max(1, len(paths) // (4 * NUMBER))])
    first = next(images)
    alike = [first, *(image for image in images if image.shape == first.shape)]
    return np.stack(alike[:: max(1, len(alike) // NUMBER)][:NUMBER])


def by_pillow(image: np.ndarray, quality: int, subsampled: bool) -> np.ndarray:
    """Encode and decode with Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=2 if subsampled else 0)
    return np.asarray(Image.open(buffer))


def errors(images: np.ndarray, quality: int, subsampled: bool) -> dict[str, float | int | None]:
    """Differences for one quality and subsampling."""
    count = len(images)
    ours = np.asarray(compress(images.astype("float32"), np.full(count, quality), np.full(count, subsampled)))
    theirs = np.stack([by_pillow(image, quality, subsampled) for image in images])
    difference = np.abs(ours - theirs)
    mean_square = float(np.mean(difference**2))
    return {
        "mean": float(difference.mean()),
        "largest": float(difference.max()),
        "values": int((difference > 0).sum()),
        "psnr": round(10 * float(np.log10(255**2 / mean_square)), 1) if mean_square else None,
    }


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="photographs of one size")
    images = photos(parser.parse_args().folder)
    table = {
        name: {quality: errors(images, quality, subsampled) for quality in QUALITIES}
        for name, subsampled in (("4:4:4", False), ("4:2:0", True))
    }
    print(json.dumps({"images": list(images.shape), "values": images.size, "errors": table}, indent=2))


if __name__ == "__main__":
    main()
