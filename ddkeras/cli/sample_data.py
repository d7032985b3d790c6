"""`ddk sample-data`."""

import json
from pathlib import Path
from typing import Any

import click

from ddkeras.cli import console
from ddkeras.progress import progress_bar

_MARKER = ".sample_data.json"  # in every folder that this command may replace; hidden, as it is no part of the data


def _format_result(result: dict[str, Any]) -> str:
    return f"{result['images']} images in {result['folder']}\nNext: ddk make-tfrecords {result['folder']}"


@console.command("sample-data", format_result=_format_result)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--images", default=480, show_default=True, help="Number of images.")
@click.option("--size", default=128, show_default=True, help="Height and width in pixels.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the random images.")
def sample_data(folder: Path, images: int, size: int, seed: int) -> dict[str, Any]:
    """Generate a small data set to try everything on, offline.

    Real images are drawn scenes as seen by a simulated camera, fakes the same kind of scenes from a simulated
    generator; only the traces of the two tell them apart. DIR is laid out as for make-tfrecords:
    {train,validation,test}/{real,fake}/{human_faces,animals,vehicles}/. Earlier sample data is replaced.

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
