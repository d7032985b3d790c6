"""Training throughput of `ddk fit`, as ratios to bare training steps and to Keras's defaults, as JSON.

    python scripts/train_speed.py --backbone efficientnetv2-b0 --image-size 128

Images per second, the better of two alternating rounds, each in a new process, as machines drift:

- `fit`: the second epoch of a training on records, according to its status.json, without augmentation;
  `fit_forensic`: with the default augmentation.
- `bare`: `train_on_batch` of the same network, two heads and AdamW, on images in memory, without XLA.
- `bare_without_onednn`: the same with TensorFlow's own kernels.
- `bare_with_xla`: the same, compiled by XLA.
- `keras_default`: with the default of Keras 3.13 to 3.15: no XLA where there is only a CPU.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH, STEPS, ROUNDS = 32, 8, 2


def make_records(folder: Path, image_size: int) -> Path:
    """Records of sample images for STEPS training steps."""
    from pipelines.datasets.layouts import read_layout  # noqa: PLC0415
    from pipelines.datasets.sample_data import write_sample_data  # noqa: PLC0415
    from pipelines.records.conversion import write_records  # noqa: PLC0415

    (folder / "data").mkdir()
    write_sample_data(folder / "data", images=round(BATCH * STEPS / 0.6), size=image_size)
    write_records(read_layout(folder / "data"), folder / "records")
    return folder / "records"


def fit(records: Path, backbone: str, image_size: int, augment: str = "none") -> float:
    """Images per second of the last epoch of a training."""
    from ddkeras.config import Recipe  # noqa: PLC0415
    from ddkeras.training import loop  # noqa: PLC0415
    from pipelines.records.store import open_records  # noqa: PLC0415

    recipe = Recipe(
        backbone=backbone, weights="none", image_size=image_size, batch=BATCH, epochs=2, augment=augment, patience=9
    )
    with tempfile.TemporaryDirectory() as runs:
        run = loop.fit(recipe, open_records(records), runs, cache="memory", verbose=0)
        return json.loads((run.folder / "status.json").read_text())["images_per_second"]


def fit_forensic(records: Path, backbone: str, image_size: int) -> float:
    """The same with the default augmentation."""
    return fit(records, backbone, image_size, "forensic")


def bare(records: Path, backbone: str, image_size: int, *, jit_compile: bool | str = False) -> float:
    """Images per second of training steps on batches in memory."""
    import keras  # noqa: PLC0415
    from keras import losses  # noqa: PLC0415

    from ddkeras.config import Recipe  # noqa: PLC0415
    from ddkeras.training import loop  # noqa: PLC0415
    from pipelines.loading.batches import inference_batches  # noqa: PLC0415
    from pipelines.records.store import open_records  # noqa: PLC0415
    from pipelines.views import Squash  # noqa: PLC0415

    opened = open_records(records)
    model = loop.build(Recipe(backbone=backbone, weights="none", image_size=image_size), len(opened.categories))
    both = {
        "authenticity": losses.BinaryCrossentropy(from_logits=True),
        "category": losses.SparseCategoricalCrossentropy(from_logits=True),
    }
    metrics = {"authenticity": ["accuracy"], "category": ["accuracy"]}
    model.compile(keras.optimizers.AdamW(1e-3), loss=both, metrics=metrics, jit_compile=jit_compile)
    stored = inference_batches(opened, "train", view=Squash(image_size), batch_size=BATCH)
    batches = [(images.numpy().astype("float32"), targets) for images, targets, _ in stored if len(images) == BATCH]
    model.train_on_batch(*batches[0])
    begun = time.perf_counter()
    for batch in batches:
        model.train_on_batch(*batch)
    return BATCH * len(batches) / (time.perf_counter() - begun)


def bare_without_onednn(records: Path, backbone: str, image_size: int) -> float:
    """The same; see `ENVIRONMENT`."""
    return bare(records, backbone, image_size)


def bare_with_xla(records: Path, backbone: str, image_size: int) -> float:
    """The same, compiled by XLA."""
    return bare(records, backbone, image_size, jit_compile=True)


def keras_default(records: Path, backbone: str, image_size: int) -> float:
    """The same with Keras's default."""
    return bare(records, backbone, image_size, jit_compile="auto")


WAYS = {way.__name__: way for way in (fit, fit_forensic, bare, bare_without_onednn, bare_with_xla, keras_default)}
ENVIRONMENT = {"bare_without_onednn": {"TF_ENABLE_ONEDNN_OPTS": "0"}}


def measure_elsewhere(way: str, records: Path, options: argparse.Namespace) -> float:
    """The same in a new process."""
    command = [sys.executable, __file__, "--backbone", options.backbone, "--image-size", str(options.image_size)]
    command += ["--way", way, "--records", str(records)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | ENVIRONMENT.get(way, {})
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    rate = float(done.stdout.split()[-1])
    print(f"{way}: {rate:.1f} images/s", file=sys.stderr)
    return rate


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="efficientnetv2-b0")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--way", choices=WAYS, help="measure only this one, in this process")
    parser.add_argument("--records", type=Path, help="with --way")
    options = parser.parse_args()
    from ddkeras.cli.environment import set_tensorflow_environment  # noqa: PLC0415

    set_tensorflow_environment()

    if options.way:
        print(WAYS[options.way](options.records, options.backbone, options.image_size))
        return
    with tempfile.TemporaryDirectory() as folder:
        records = make_records(Path(folder), options.image_size)
        runs = [(way, measure_elsewhere(way, records, options)) for _ in range(ROUNDS) for way in WAYS]
    rates = {way: max(rate for name, rate in runs if name == way) for way in WAYS}
    ratios = {
        f"{ours} / {theirs}": round(rates[ours] / rates[theirs], 2)
        for ours in ("fit", "fit_forensic")
        for theirs in ("bare", "bare_with_xla", "keras_default")
    }
    ratios["bare / bare_without_onednn"] = round(rates["bare"] / rates["bare_without_onednn"], 2)
    result = {
        "backbone": options.backbone,
        "image_size": options.image_size,
        "cores": os.cpu_count(),
        "images_per_second": {way: round(rate, 1) for way, rate in rates.items()},
        "ratios": ratios,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
