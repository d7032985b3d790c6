"""`ddk cross-source`."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddkeras.cli import console
from ddkeras.cli.options import opened_records, recipe_of, recipe_options, records_option
from ddkeras.exceptions import ConfigError

if TYPE_CHECKING:
    from ddkeras.metrics.bootstrap import Estimate

FOLDER = Path("artifacts/cross-source")


def _show(result: dict) -> str:
    sources, width = result["sources"], max(len("held out"), *map(len, result["matrix"]))
    lines = [f"{'held out':{width}}  " + "  ".join(f"{source:>20}" for source in sources)]
    for held_out, cells in result["matrix"].items():
        found = (cells[source] for source in sources)
        lines.append(f"{held_out:{width}}  " + "  ".join(f"{_cell(one):>20}" for one in found))
    lines.append("AUC against the real images of the same categories in validation, with its 95% interval.")
    lines.append(f"Table, figure and runs in {result['folder']}")
    return "\n".join(lines)


def _cell(auc: "Estimate") -> str:
    return auc.reason or f"{auc.value:.3f} ({auc.low:.3f}-{auc.high:.3f})"


@console.command("cross-source", show=_show)
@records_option
@recipe_options
def cross_source(
    recipe: str | None, records: Path, skip_corrupt: bool, augment: str | None, crop: float | None, **fields
) -> dict:
    """Measure how a detector does on generators it has not seen.

    Trains once on all sources of fakes, and once without each of them; tests each run on the validation images of
    every source, against real ones of the same categories. What is told of a source that was held out is what to
    expect of a generator that comes next. Needs the column source in metadata.csv.

    The same command again goes on where it was stopped; runs that are there are not trained again.

    \b
    Examples:
      ddk cross-source --epochs 6
      ddk cross-source --recipe small-cnn
    """
    console.load_tensorflow()
    from ddkeras.experiments import cross_source as matrix

    _, _, settled = recipe_of(recipe, fields, augment, crop)
    if settled.hold_out:
        raise ConfigError("every source is held out in turn; leave out --hold-out")
    with opened_records(records, skip_corrupt=skip_corrupt) as opened:
        return matrix.cross_source(settled, opened, FOLDER, tell=functools.partial(click.echo, err=True))
