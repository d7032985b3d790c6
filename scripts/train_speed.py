"""How fast a training step is on this CPU with and without oneDNN, in images per second, as JSON.

    python scripts/train_speed.py --backbone mobilenetv2 --image-size 192

Each setting runs in a process of its own, in turn and twice, because machines drift; the faster run of each counts.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np

from ddkeras.backbones import build_trunk, canonical_name
from ddkeras.config import Recipe
from ddkeras.model import build_model
from ddkeras.training import compile_model

BATCH, STEPS = 32, 5


def measure(backbone: str, image_size: int) -> float:
    """Images per second of a compiled step on one random batch in memory."""
    recipe = Recipe(backbone=canonical_name(backbone), image_size=image_size)
    model = build_model(build_trunk(recipe.backbone, image_size=image_size, weights="none"), 0)
    compile_model(model, recipe, {"authenticity": [1.0, 1.0]}, steps_per_epoch=100)
    images = np.random.default_rng(0).uniform(0, 255, (BATCH, image_size, image_size, 3)).astype("float32")
    targets = {"authenticity": np.arange(BATCH, dtype="float32")[:, None] % 2}
    model.train_on_batch(images, targets)
    start = time.perf_counter()
    for _ in range(STEPS):
        model.train_on_batch(images, targets)
    return BATCH * STEPS / (time.perf_counter() - start)


def measure_elsewhere(setting: str) -> float:
    """The same in a new process, where oneDNN can still be turned on or off."""
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": setting, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, *sys.argv, "--here"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="mobilenetv2")
    parser.add_argument("--image-size", type=int, default=192)
    parser.add_argument("--here", action="store_true", help="measure in this process, as the environment says")
    options = parser.parse_args()
    if options.here:
        print(measure(options.backbone, options.image_size))
        return
    runs = [(setting, measure_elsewhere(setting)) for setting in ("0", "1") * 2]
    without, with_onednn = (max(speed for setting, speed in runs if setting == wanted) for wanted in ("0", "1"))
    print(json.dumps({"without_onednn": without, "with_onednn": with_onednn, "ratio": with_onednn / without}))


if __name__ == "__main__":
    main()
