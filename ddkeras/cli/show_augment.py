"""`ddk show-augment`."""

from pathlib import Path
from typing import Any

import click

from ddkeras.cli import console
from ddkeras.cli.environment import load_tensorflow
from ddkeras.cli.options import augment_options
from pipelines.wording import count_of


def _format_result(result: dict[str, Any]) -> str:
    images = count_of(result["images"], "image")
    return f"{images}, each as decoded and then as {result['draws']} steps see it: {result['sheet']}"


@console.command("show-augment", format_result=_format_result)
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@augment_options()
@click.option(
    "--image-size",
    type=click.IntRange(32, 2048),
    default=224,
    show_default=True,
    help="Height and width of the input, in pixels.",
)
@click.option(
    "--draws",
    type=click.IntRange(1, 64),
    default=7,
    show_default=True,
    help="Number of augmented versions of each image.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 100),
    default=8,
    show_default=True,
    help="Maximum number of images.",
    cls=console.Option,
    formerly="--images",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="Seed of the augmentation.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="artifacts/augment.png",
    show_default=True,
    help="PNG file to write.",
)
def show_augment(
    paths: tuple[Path, ...],
    augment: str,
    crop: float | None,
    image_size: int,
    draws: int,
    limit: int,
    seed: int,
    output: Path,
) -> dict[str, Any]:
    """Write a contact sheet of augmented training images.

    One row for each image in PATH..., files or folders: the whole image at the input size of the network, then its
    augmented versions in successive training steps. MixUp and CutMix, which also mix labels, are left out.

    \b
    Examples:
      ddk show-augment data/train/real
      ddk show-augment photo.jpg --augment my_steps.yaml --draws 15
    """
    from pipelines.datasets.layouts import find_images

    files = find_images(paths)
    count = min(limit, len(files))
    evenly_spaced = [files[index * len(files) // count] for index in range(count)]
    load_tensorflow()
    from ddkeras.config import load_chain
    from ddkeras.reporting import contact_sheet
    from pipelines import atomic
    from pipelines.transforms import preview

    chain = load_chain(augment, crop, image_size)
    rows = preview.augmented_rows(evenly_spaced, chain, image_size, draws=draws, seed=seed)
    with atomic.file(output) as partial:
        contact_sheet.draw(rows).save(partial, "PNG")
    return {"sheet": str(output), "images": len(rows), "draws": draws}
