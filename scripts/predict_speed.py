"""Throughput of `ddk predict` against the bare network, as JSON.

    python scripts/predict_speed.py artifacts/runs/latest inbox/

The best of three alternating rounds, each in a new process. Loading the network is counted, importing TensorFlow is
not. `cpu_ms_per_image` sums all cores and varies less on a shared machine. `peak_mib` is the peak memory.

- `bare`: Keras's `predict` on decoded images in memory, with the batch size of `ddk predict`.
- `frozen`: the same with the network as `ddk predict` runs it: a graph with its weights as constants.
- `decode`: reading and decoding the files alone.
- `predict`: the whole command: finding the files, reading and decoding them, scoring, writing the table.

With a run whose view is windows, the network gets the windows of the images. `predict / parts` is the rate of the
command to that of `decode` and `frozen` one after the other.

With --links N the images are N links to those of the folder, repeated: for the memory that very many files need.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

ROUNDS = 3
_IN_MEMORY = 2**29  # bytes of decoded images; the bare network gets them repeatedly


class Taken(NamedTuple):
    """Wall-clock seconds, and CPU seconds summed over cores."""

    seconds: float
    cpu_seconds: float


def taken(work: Callable[[], None]) -> Taken:
    """Time some work in this process."""
    begun = time.perf_counter(), time.process_time()
    work()
    return Taken(time.perf_counter() - begun[0], time.process_time() - begun[1])


def bare(run: Path, folder: Path) -> Taken:
    """Time Keras's `predict`."""
    from ddkeras.runs.run import open_run  # noqa: PLC0415

    opened = open_run(run)

    def load() -> Callable:
        network = opened.load_scorer()
        return lambda images, batch: network.predict(images, batch_size=batch, verbose=0)

    return _in_memory(load, run, folder)


def frozen(run: Path, folder: Path) -> Taken:
    """Time the scorer."""
    from ddkeras.inference.scorers import scorer_for_run  # noqa: PLC0415
    from ddkeras.runs.run import open_run  # noqa: PLC0415

    def load() -> Callable:
        scorer = scorer_for_run(open_run(run))
        return lambda images, batch: [scorer.score(images[at : at + batch]) for at in range(0, len(images), batch)]

    return _in_memory(load, run, folder)


def _in_memory(load: Callable[[], Callable], run: Path, folder: Path) -> Taken:
    from ddkeras.inference.prediction import batch_size  # noqa: PLC0415
    from ddkeras.inference.scorers import scorer_for_run  # noqa: PLC0415
    from ddkeras.runs.run import open_run  # noqa: PLC0415
    from pipelines.datasets.layouts import find_image_names  # noqa: PLC0415
    from pipelines.views import Windowed, flat, load_images  # noqa: PLC0415

    scorer, files = scorer_for_run(open_run(run)), find_image_names([folder])
    batch = batch_size(scorer)
    fitting = max(1, _IN_MEMORY // (3 * scorer.image_size**2 * scorer.view.parts * batch)) * batch
    pixels, _ = load_images(files[:fitting], scorer.view)
    images = flat(pixels).numpy() if isinstance(pixels, Windowed) else pixels
    number = len(images) * len(files) // min(fitting, len(files))

    def all_of_them() -> None:
        score = load()
        for done in range(0, number, len(images)):
            score(images[: number - done], batch if images is pixels else scorer.batch)

    return taken(all_of_them)


def decode(_: Path, folder: Path) -> Taken:
    """Time reading and decoding."""
    import tensorflow as tf  # noqa: PLC0415

    from pipelines import decoding  # noqa: PLC0415
    from pipelines.datasets.layouts import find_image_names  # noqa: PLC0415

    files = tf.data.Dataset.from_tensor_slices([os.fspath(name) for name in find_image_names([folder])])

    def corner(path: tf.Tensor) -> tf.Tensor:
        return decoding.decode(tf.io.read_file(path))[0, 0]

    return taken(lambda: list(files.map(corner, num_parallel_calls=tf.data.AUTOTUNE)))


def predict(run: Path, folder: Path) -> Taken:
    """Time the command as a user would call it."""
    from ddkeras.cli import main  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as place:
        options = ["--run", str(run), "--output", os.path.join(place, "scores.csv"), "--json"]
        return taken(lambda: main(["predict", str(folder), *options], standalone_mode=False))


WAYS = {way.__name__: way for way in (bare, frozen, decode, predict)}


def measured(way: str, run: Path, folder: Path) -> dict:
    """One measurement, in a new process."""
    command = [sys.executable, __file__, str(run), str(folder), "--way", way]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def linked(folder: Path, number: int | None) -> Iterator[Path]:
    """A folder with so many links to the images of `folder`; `folder` itself if `number` is None."""
    from pipelines.datasets.layouts import image_files  # noqa: PLC0415

    if number is None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        for index, path in enumerate(islice(cycle(list(image_files(folder.absolute()))), number)):
            os.symlink(path, os.path.join(place, f"{index:07}{path.suffix}"))
        yield Path(place)


def compared(run: Path, folder: Path) -> dict:
    """All measurements, and their ratios."""
    from pipelines.datasets.layouts import find_image_names  # noqa: PLC0415

    number = len(find_image_names([folder]))
    rounds = [{way: measured(way, run, folder) for way in WAYS} for _ in range(ROUNDS)]
    rates = {way: number / min(one[way]["seconds"] for one in rounds) for way in WAYS}
    return {
        "images": number,
        "images_per_second": {way: round(rate, 1) for way, rate in rates.items()},
        "predict / bare": round(rates["predict"] / rates["bare"], 2),
        "predict / frozen": round(rates["predict"] / rates["frozen"], 2),
        "predict / parts": round(rates["predict"] * (1 / rates["decode"] + 1 / rates["frozen"]), 2),
        "cpu_ms_per_image": {
            way: round(1000 * min(one[way]["cpu_seconds"] for one in rounds) / number, 3) for way in WAYS
        },
        "peak_mib": {way: max(one[way]["peak_mib"] for one in rounds) for way in WAYS},
    }


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path, help="images")
    parser.add_argument("--links", type=int, metavar="N")
    parser.add_argument("--way", choices=WAYS, help="measure only this one, in this process")
    options = parser.parse_args()
    with linked(options.folder, options.links) as folder:
        if not options.way:
            print(json.dumps(compared(options.run, folder), indent=2))
            return
        from ddkeras.cli.environment import set_tensorflow_environment  # noqa: PLC0415

        set_tensorflow_environment()
        from ddkeras.inference import prediction  # noqa: F401, PLC0415  and with it TensorFlow

        found = WAYS[options.way](options.run, folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10
        print(json.dumps(found._asdict() | {"peak_mib": peak}))


if __name__ == "__main__":
    main()
