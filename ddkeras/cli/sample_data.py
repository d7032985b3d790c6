"""`ddk sample-data`."""

import json
from pathlib import Path

import click

from ddkeras.cli import console
from ddkeras.cli.progress import progress_bar

_MARKER = "sample_data.json"  # says that the folder is ours to replace


def _show(result: dict) -> str:
    return f"{result['images']} images in {result['folder']}\nNext: ddk make-tfrecords {result['folder']}"


@console.command("sample-data", show=_show)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--images", default=480, show_default=True, help="How many images to make.")
@click.option("--size", default=128, show_default=True, help="Height and width in pixels.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Other seeds make other images.")
def sample_data(folder: Path, images: int, size: int, seed: int) -> dict:
    """Make a small set of images in DIR to try everything on, without a network.

    Real images are drawn scenes seen by a simulated camera, fake ones the same kind of scenes from a simulated
    generator; nothing but the traces of the two tells them apart. DIR gets the layout that make-tfrecords reads:
    {train,validation,test}/{real,fake}/{human_faces,animals,vehicles}/. Sample data made earlier is replaced.

    \b
    Example:
      ddk sample-data data/
    """
    from pipelines import atomic
    from pipelines.datasets.sample_data import write_sample_data

    with atomic.folder(folder, marker=_MARKER) as partial, progress_bar("drawing") as progress:
        counts = write_sample_data(partial, images=images, size=size, seed=seed, progress=progress)
        total = sum(sum(classes.values()) for labels in counts.values() for classes in labels.values())
        result = {"images": total, "size": size, "seed": seed, "counts": counts}
        (partial / _MARKER).write_text(json.dumps(result, indent=2) + "\n")
    return {"folder": str(folder), **result}
