"""Throughput of reading windows at native resolution, as ratios to decoding whole images, as JSON.

    python scripts/window_speed.py DATA --size 224

Images per second over the JPEGs in DATA, read from memory in batches of 8, the better of three alternating rounds:

- `bare`: decode_jpeg alone. `cut`: decode the whole image, then cut a window at a random place.
- `window`: `decode_random_windows`, which decodes only what the window takes.
- `scoring`: `decode_windows`, the nine windows by which an image is scored.
- `torch`: a PyTorch DataLoader of two workers with Pillow and a random crop, if it is installed.
"""

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from pipelines import windows
from pipelines.decoding import decode, decode_jpeg

ROUNDS, BATCH, WINDOWS = 3, 8, 9
Way = Callable[[tf.Tensor, tf.Tensor, int], tf.Tensor]  # encoded (batch,), positions (batch, 2), size -> something


def each(function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> Way:
    """A way that reads the images of a batch one after the other; the last pixel stands for all that it reads."""
    return lambda encoded, positions, size: tf.map_fn(
        lambda pair: function(*pair, size)[..., -1, -1, -1:], (encoded, positions), fn_output_signature=tf.uint8
    )


def cut(encoded: tf.Tensor, position: tf.Tensor, size: int) -> tf.Tensor:
    """Decode all, and cut."""
    image = decode(encoded)
    row, column = tf.unstack(tf.cast(position * tf.cast(tf.shape(image)[:2] - size + 1, tf.float32), tf.int32))
    return image[row : row + size, column : column + size]


WAYS: dict[str, Way] = {
    "bare": each(lambda encoded, position, size: decode_jpeg(encoded)),
    "cut": each(cut),
    "window": lambda encoded, positions, size: windows.decode_random_windows(encoded, positions[:, tf.newaxis], size),
    "scoring": each(lambda encoded, position, size: windows.decode_windows(encoded, size, WINDOWS)[-1]),
}


def dataset(way: str, contents: list[bytes], size: int) -> Iterable:
    """Endless batches, whose results are small, so that only reading takes time."""
    positions = tf.random.stateless_uniform((len(contents), 2), (0, 0))
    batches = tf.data.Dataset.from_tensor_slices((contents, positions)).repeat().batch(BATCH)
    return batches.map(lambda *batch: WAYS[way](*batch, size), num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def torch_loader(paths: Sequence[Path], size: int) -> Iterable:
    """PyTorch's loader of the files."""
    import torch  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    class Windows(torch.utils.data.Dataset):
        def __len__(self):
            return 10**6

        def __getitem__(self, index):
            with Image.open(paths[index % len(paths)]) as image:
                pixels = np.asarray(image.convert("RGB"))
            row, column = (int(torch.randint(length - size + 1, ())) for length in pixels.shape[:2])
            return torch.from_numpy(pixels[row : row + size, column : column + size].copy())

    return torch.utils.data.DataLoader(Windows(), batch_size=BATCH, num_workers=2)


def rate(batches: Iterable, seconds: float) -> float:
    """Images per second, from the second batch on."""
    iterator = iter(batches)
    next(iterator)
    begin, images = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        next(iterator)
        images += BATCH
    return images / (time.perf_counter() - begin)


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="a folder of JPEGs, each at least as large as a window")
    parser.add_argument("--size", type=int, default=224, help="height and width of the windows, in pixels")
    parser.add_argument("--seconds", type=float, default=10, help="duration of each measurement")
    options = parser.parse_args()
    paths = sorted(options.data.rglob("*.jpg"))
    contents = [path.read_bytes() for path in paths]
    ways = {way: lambda way=way: dataset(way, contents, options.size) for way in WAYS}
    if importlib.util.find_spec("torch"):
        ways["torch"] = lambda: torch_loader(paths, options.size)
    measured = [(way, rate(make(), options.seconds)) for _ in range(ROUNDS) for way, make in ways.items()]
    rates = {way: max(rate for name, rate in measured if name == way) for way in ways}
    result = {
        "images": len(paths),
        "size": options.size,
        "cores": os.cpu_count(),
        "images_per_second": {way: round(value, 1) for way, value in rates.items()},
        "window_to": {way: round(rates["window"] / value, 2) for way, value in rates.items() if way != "window"},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
