"""`ddk fit`."""

import sys
from pathlib import Path

import click

from ddkeras.cli import console


def _show(result: dict) -> str:
    return (
        f"best validation loss {result['val_loss']:.4f} in epoch {result['best_epoch']} of {result['epochs']}\n"
        f"Run in {result['run']}. Next: ddk evaluate"
    )


@console.command("fit", show=_show)
@click.option(
    "--backbone",
    default="efficientnetv2-b0",
    show_default=True,
    help="efficientnetv2-b0 to -b3, -s, -m, -l, xception, efficientnet-b4 or mobilenetv2.",
)
@click.option(
    "--weights",
    default="imagenet",
    show_default=True,
    help="Weights to start from: imagenet (downloaded once), none, or a file of the backbone's weights without top.",
)
@console.records_option
@click.option(
    "--runs", default=console.RUNS, show_default=True, type=click.Path(path_type=Path), help="Where runs are kept."
)
@click.option(
    "--image-size",
    type=click.IntRange(32, 2048),
    help="Height and width the network sees.  [default: the backbone's own]",
)
@click.option("--epochs", type=int, help="How often to go through the training images, at most.  [default: 12]")
@click.option("--batch", "batch_size", type=int, help="Images per step.  [default: 32]")
@click.option("--learning-rate", type=float, help="Its peak.  [default: 0.0003, or 0.001 with --weights none]")
@console.augment_options
@click.option("--patience", type=int, help="Epochs without a better validation loss before stopping.  [default: 5]")
@click.option(
    "--cache",
    type=click.Choice(["auto", "memory", "disk", "none"]),
    default="auto",
    show_default=True,
    help="Where decoded images are kept for later epochs; auto: where they take at most a quarter of what is free.",
)
@click.option(
    "--data-service",
    "service",
    default="",
    metavar="ADDRESS",
    help="Have a tf.data service read and decode, such as grpc://10.0.0.5:5050; its workers must see the records "
    "under the same path.",
)
@click.option("--seed", type=int, help="On a CPU one seed gives one run, bit for bit.  [default: 0]")
def fit(
    backbone: str,
    records: Path,
    skip_corrupt: bool,
    runs: Path,
    image_size: int | None,
    augment: str,
    crop: float | None,
    cache: str,
    service: str,
    **fields,
) -> dict:
    """Train a detector on the records.

    Two heads learn together: authenticity (real or fake) and, when the data has classes, category. Rare labels and
    classes weigh more. The weights with the best validation loss are kept, and training stops early when that loss
    no longer falls. The run is a folder under artifacts/runs; `latest` there points at the newest.

    \b
    Examples:
      ddk fit
      ddk fit --backbone xception --epochs 20
      ddk fit --backbone mobilenetv2 --weights none --image-size 128
    """
    console.load_tensorflow()
    from ddkeras import training
    from ddkeras.backbones import BACKBONES, canonical_name
    from ddkeras.config import Recipe, load_chain

    name = canonical_name(backbone)
    given = {field: value for field, value in fields.items() if value is not None}
    image_size = image_size or BACKBONES[name].image_size
    recipe = Recipe(backbone=name, image_size=image_size, augment=load_chain(augment, crop, image_size), **given)
    verbose = 1 if sys.stderr.isatty() else 2  # a moving bar, or a line per epoch in a log
    with console.opened(records, skip_corrupt=skip_corrupt) as opened:
        run = training.fit(recipe, opened, runs, cache=cache, service=service, verbose=verbose)
    return {"run": str(run.folder), **run.best_epoch()}
