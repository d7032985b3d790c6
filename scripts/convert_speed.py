"""Throughput of `ddk make-tfrecords`, as ratios to lower bounds and to TFDS, as JSON.

    python scripts/convert_speed.py DATA

The same files, the better of two alternating rounds, each in a new process:

- `decode`: read and decode them with tf.data on all cores, as the conversion does to check every image.
- `plain`: read them and write them with a TFRecordWriter, in one loop.
- `tfds`: a TFDS GeneratorBasedBuilder over them.
- `checked` and `unchecked`: `ddk make-tfrecords`, the latter with --no-verify.

Two times are given: `command`, from starting Python to the end, as a user waits for it; and `loaded`, from the
first access to the folder to the end in a process that has loaded TensorFlow (for a conversion: whose workers are
forked from one that has).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipelines.datasets.layouts import image_files, read_layout
from pipelines.records import conversion

ROUNDS = 2


def decode(data: Path, output: Path) -> None:
    """Only read and decode."""
    import tensorflow as tf  # noqa: PLC0415

    files = tf.data.Dataset.from_tensor_slices(sorted(map(str, image_files(data))))
    shapes = files.map(
        lambda path: tf.shape(tf.io.decode_jpeg(tf.io.read_file(path), channels=3, dct_method="INTEGER_ACCURATE")),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    shapes.batch(256).reduce(0, lambda count, _: count + 1)


def plain(data: Path, output: Path) -> None:
    """Read and write, in one loop, with the path beside the image."""
    import tensorflow as tf  # noqa: PLC0415

    with tf.io.TFRecordWriter(str(output / "plain.tfrecord")) as writer:
        for path in image_files(data):
            example = tf.train.Example()
            example.features.feature["image"].bytes_list.value.append(path.read_bytes())
            example.features.feature["path"].bytes_list.value.append(os.fsencode(path))
            writer.write(example.SerializeToString())


def tfds(data: Path, output: Path) -> None:
    """Write them with a TFDS builder."""
    import tensorflow_datasets  # noqa: PLC0415

    core, features = tensorflow_datasets.core, tensorflow_datasets.features

    class Images(core.GeneratorBasedBuilder):
        VERSION = core.Version("1.0.0")

        def _info(self):
            columns = {"image": features.Image(shape=(None, None, 3)), "path": features.Text()}
            return core.DatasetInfo(builder=self, features=features.FeaturesDict(columns))

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for path in image_files(data):
                yield str(path), {"image": path, "path": str(path)}

    Images(data_dir=output).download_and_prepare()


def checked(data: Path, output: Path, *, verify: bool = True) -> None:
    """The conversion as `ddk make-tfrecords` does it."""
    conversion.write_records(read_layout(data), output / "records", verify=verify, max_bad=1)


def unchecked(data: Path, output: Path) -> None:
    """The same with --no-verify."""
    checked(data, output, verify=False)


WAYS = {way.__name__: way for way in (decode, plain, tfds, checked, unchecked)}


def measure(way: str, data: Path, since: float) -> tuple[float, float]:
    """Seconds in this process: since its start, and of the measured part once TensorFlow is loaded."""
    is_ours = way in ("checked", "unchecked")
    if is_ours:
        conversion.start_workers()
    else:
        import tensorflow as tf  # noqa: PLC0415

        tf.constant(0)
    times = []
    for _ in range(1 + is_ours):  # in the first conversion the workers load it
        with tempfile.TemporaryDirectory(dir=".") as output:
            start = time.time()
            WAYS[way](data, Path(output))
            times.append((time.time() - since, time.time() - start))
    return times[0][0], times[-1][1]


def measure_elsewhere(way: str, data: Path) -> dict[str, float]:
    """The same in a new process."""
    command = [sys.executable, __file__, str(data), "--way", way, "--since", str(time.time())]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(zip(("command", "loaded"), map(float, done.stdout.split()[-2:]), strict=True))


def ratios(seconds: dict[str, float]) -> dict[str, float]:
    """Speed of the conversions relative to their lower bounds."""
    pairs = {"checked": ("decode",), "unchecked": ("plain", "tfds")}
    return {f"{a}_to_{b}": round(seconds[b] / seconds[a], 2) for a, others in pairs.items() for b in others}


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="a folder that make-tfrecords understands")
    parser.add_argument("--way", choices=WAYS, help="measure only this one, in this process")
    parser.add_argument("--since", type=float, help="when this process was started")
    options = parser.parse_args()
    if options.way:
        print(*measure(options.way, options.data, options.since))
        return
    images = sum(1 for _ in image_files(options.data))
    runs = [(way, measure_elsewhere(way, options.data)) for _ in range(ROUNDS) for way in WAYS]
    result = {"images": images, "cores": os.cpu_count()}
    for kind in ("command", "loaded"):
        seconds = {way: min(times[kind] for name, times in runs if name == way) for way in WAYS}
        result[kind] = {"seconds": {way: round(time, 2) for way, time in seconds.items()}, **ratios(seconds)}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
