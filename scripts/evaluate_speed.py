"""Time of `ddk evaluate` against bare inference over the same images, as JSON.

    python scripts/evaluate_speed.py artifacts/runs/latest artifacts/records --split validation

Seconds, the best of five alternating rounds, each in a new process. Importing TensorFlow is not counted.

- `bare`: loads the network and runs Keras's `predict` over the batches of the split.
- `evaluate`: `ddk evaluate --degrade 0`, which adds intervals, tables, figures, the HTML report and the PDF.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 5


def bare(run: Path, records: Path, split: str) -> None:
    """Score only."""
    from ddkeras.runs.run import open_run  # noqa: PLC0415
    from pipelines.loading.batches import inference_batches  # noqa: PLC0415
    from pipelines.records.store import open_records  # noqa: PLC0415
    from pipelines.views import Squash  # noqa: PLC0415

    opened = open_run(run)
    size, batch = opened.recipe.image_size, opened.recipe.batch
    batches = inference_batches(open_records(records), split, view=Squash(size), batch_size=batch)
    opened.load_scorer().predict(batches, verbose=0)


def evaluate(run: Path, records: Path, split: str) -> None:
    """Run the command on a copy of the run."""
    from ddkeras.cli import main  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(run, Path(folder) / "run")
        options = ["--run", os.fspath(copy), "--records", os.fspath(records), "--split", split, "--degrade", "0"]
        main(["evaluate", *options, "--json"], standalone_mode=False)


WAYS = {way.__name__: way for way in (bare, evaluate)}


def seconds(way: str, options: argparse.Namespace) -> float:
    """Seconds of one measurement, in a new process."""
    command = [
        sys.executable,
        __file__,
        str(options.run),
        str(options.records),
        "--split",
        options.split,
        "--way",
        way,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("records", type=Path)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--way", choices=WAYS, help="measure only this one, in this process")
    options = parser.parse_args()
    if options.way:
        from ddkeras.cli.environment import set_tensorflow_environment  # noqa: PLC0415

        set_tensorflow_environment()
        from ddkeras.evaluation import results  # noqa: F401, PLC0415  and with it TensorFlow
        from ddkeras.reporting import evaluation_report  # noqa: F401, PLC0415

        begun = time.perf_counter()
        WAYS[options.way](options.run, options.records, options.split)
        print(f"\n{time.perf_counter() - begun}")
        return
    from pipelines.records.store import open_records  # noqa: PLC0415

    taken = [(way, seconds(way, options)) for _ in range(ROUNDS) for way in WAYS]
    least = {way: min(found for name, found in taken if name == way) for way in WAYS}
    result = {
        "images": open_records(options.records).split(options.split).examples,
        "seconds": {way: round(found, 1) for way, found in least.items()},
        "evaluate / bare": round(least["evaluate"] / least["bare"], 2),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
