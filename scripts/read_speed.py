"""Throughput of loading records, as ratios to upper bounds and to other loaders, as JSON.

    python scripts/read_speed.py RECORDS DATA --image-size 200

Images per second from the second batch on, the better of two alternating rounds, each in a new process:

- `bare`: TFRecordDataset, decode_jpeg, batch; at the images' own size, which must be the same for all.
- `bare_resized`: the same with tf.image.resize, anti-aliased, to --image-size.
- `inference`, `training`, `training_any_order`, `training_memory`: `pipelines.loading.batches`, in stored order,
  shuffled by a seed, without one, and in the second epoch when decoded images are kept in memory.
- `keras`: keras.utils.image_dataset_from_directory over DATA. `tfds`: as_dataset with its own decoding. `torch`: a
  DataLoader with Pillow and two workers over DATA. They resize bilinearly, the first two without anti-aliasing.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROUNDS, BATCH = 2, 32
SPLIT = "train"


def bare(records: Path, data: Path, size: int) -> Iterable:
    """Only read and decode."""
    import tensorflow as tf  # noqa: PLC0415

    from pipelines.records import schema  # noqa: PLC0415
    from pipelines.records.store import open_records  # noqa: PLC0415

    def decode(serialized):
        image = tf.io.parse_single_example(serialized, schema.feature_spec("image"))["image"]
        return tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")

    files = tf.data.TFRecordDataset(open_records(records).split(SPLIT).files)
    return files.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)


def bare_resized(records: Path, data: Path, size: int) -> Iterable:
    """Read, decode and resize."""
    import tensorflow as tf  # noqa: PLC0415

    decoded = bare(records, data, size).unbatch()
    resized = decoded.map(
        lambda image: tf.image.resize(image, (size, size), antialias=True), num_parallel_calls=tf.data.AUTOTUNE
    )
    return resized.batch(BATCH).prefetch(tf.data.AUTOTUNE)


def inference(records: Path, data: Path, size: int) -> Iterable:
    """In stored order."""
    from pipelines.loading.batches import inference_batches  # noqa: PLC0415
    from pipelines.records.store import open_records  # noqa: PLC0415
    from pipelines.views import Squash  # noqa: PLC0415

    return inference_batches(open_records(records), SPLIT, view=Squash(size), batch_size=BATCH)


def training(records: Path, data: Path, size: int, *, seed: int | None = 0, cache: str = "none") -> Iterable:
    """Shuffled."""
    from pipelines.loading.batches import training_batches  # noqa: PLC0415
    from pipelines.records.store import open_records  # noqa: PLC0415
    from pipelines.views import Squash  # noqa: PLC0415

    return training_batches(open_records(records), SPLIT, view=Squash(size), batch_size=BATCH, seed=seed, cache=cache)


def training_any_order(records: Path, data: Path, size: int) -> Iterable:
    """In any order."""
    return training(records, data, size, seed=None)


def training_memory(records: Path, data: Path, size: int) -> Iterable:
    """From decoded images in memory."""
    return training(records, data, size, cache="memory")


def keras(records: Path, data: Path, size: int) -> Iterable:
    """Keras's loader of folders."""
    import keras  # noqa: PLC0415

    return keras.utils.image_dataset_from_directory(
        data / SPLIT,
        labels="inferred",
        image_size=(size, size),
        batch_size=BATCH,
        shuffle=True,
        seed=0,
        verbose=False,
    )


def tfds(records: Path, data: Path, size: int) -> Iterable:
    """TFDS's loader of the same records."""
    import tensorflow as tf  # noqa: PLC0415
    import tensorflow_datasets  # noqa: PLC0415

    examples = tensorflow_datasets.builder_from_directory(records).as_dataset(split=SPLIT, shuffle_files=True)
    resized = examples.map(
        lambda example: (tf.image.resize(example["image"], (size, size)), example["label"], example["category"]),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return resized.batch(BATCH).prefetch(tf.data.AUTOTUNE)


def torch(records: Path, data: Path, size: int) -> Iterable:
    """PyTorch's loader of the files."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    class Images(torch.utils.data.Dataset):
        def __init__(self):
            self.paths = sorted((data / SPLIT).rglob("*.jpg"))

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, index):
            path = self.paths[index]
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
            return torch.from_numpy(pixels.copy()), path.parts[-3] == "fake"

    return torch.utils.data.DataLoader(Images(), batch_size=BATCH, shuffle=True, num_workers=2)


WAYS = {
    way.__name__: way
    for way in (bare, bare_resized, inference, training, training_any_order, training_memory, keras, tfds, torch)
}
OURS = ("inference", "training", "training_any_order", "training_memory")


def measure(way: str, records: Path, data: Path, size: int, limit: float) -> float:
    """Images per second, over one epoch or `limit` seconds."""
    batches = iter(WAYS[way](records, data, size))
    next(batches)
    start, images = time.perf_counter(), 0
    for batch in batches:
        first = batch[0] if isinstance(batch, (tuple, list)) else batch
        images += len(first)
        if time.perf_counter() - start > limit:
            break
    if not images:
        raise SystemExit(f"{SPLIT} is one batch of {BATCH}; give more images")
    return images / (time.perf_counter() - start)


def measure_elsewhere(way: str, options: argparse.Namespace) -> float:
    """The same in a new process."""
    command = [sys.executable, __file__, options.records, options.data, "--way", way]
    command += ["--image-size", str(options.image_size), "--seconds", str(options.seconds)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("records", type=Path, help="made of DATA by ddk make-tfrecords")
    parser.add_argument("data", type=Path, help="a folder of JPEGs with train/real and train/fake")
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=10, help="maximum duration of each measurement")
    parser.add_argument("--way", choices=WAYS, help="measure only this one, in this process")
    options = parser.parse_args()
    if options.way:
        print(measure(options.way, options.records, options.data, options.image_size, options.seconds))
        return
    skipped = [] if importlib.util.find_spec("torch") else ["torch"]
    ways = [way for way in WAYS if way not in skipped]
    runs = [(way, measure_elsewhere(way, options)) for _ in range(ROUNDS) for way in ways]
    rates = {way: max(rate for name, rate in runs if name == way) for way in ways}
    peers = [way for way in ways if way not in OURS]
    result = {
        "image_size": options.image_size,
        "cores": os.cpu_count(),
        "images_per_second": {way: round(rate) for way, rate in rates.items()},
        "ratios": {ours: {way: round(rates[ours] / rates[way], 2) for way in peers} for ours in OURS},
        "not_installed": skipped,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
