"""`ddk cross-source`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddkeras.cli import console
from ddkeras.cli.environment import load_tensorflow
from ddkeras.cli.options import intact_records, recipe_options, records_option, resolve_recipe
from ddkeras.exceptions import ConfigError

if TYPE_CHECKING:
    from ddkeras.metrics.bootstrap import Estimate

_FOLDER = Path("artifacts/cross-source")


def _format_result(result: dict[str, Any]) -> str:
    sources, width = result["sources"], max(len("held out"), *map(len, result["matrix"]))
    lines = [f"{'held out':{width}}  " + "  ".join(f"{source:>20}" for source in sources)]
    for held_out, row in result["matrix"].items():
        cells = (_format_auc(row[source]) for source in sources)
        lines.append(f"{held_out:{width}}  " + "  ".join(f"{cell:>20}" for cell in cells))
    lines.append("AUC against the real images of the same categories in validation, with its 95% interval.")
    lines.append(f"Table, figure and runs in {result['folder']}")
    return "\n".join(lines)


def _format_auc(auc: "Estimate") -> str:
    return auc.reason or f"{auc.value:.3f} ({auc.low:.3f}-{auc.high:.3f})"


@console.command("cross-source", format_result=_format_result)
@records_option
@recipe_options
def cross_source(
    recipe: str | None, records: Path, skip_corrupt: bool, augment: str | None, crop: float | None, **fields: Any
) -> dict[str, Any]:
    """Measure generalization to unseen generators.

    Trains once on all sources of fakes, and once without each of them; tests each run on the validation images of
    every source, against real images of the same categories. The AUC on a held-out source is what to expect on the
    next new generator. Needs sources: the column source of metadata.csv, or folders of them, see ddk make-tfrecords
    --folders.

    Run the same command again to continue after an interruption; finished runs are not trained again.

    \b
    Examples:
      ddk cross-source --epochs 6
      ddk cross-source --recipe small-cnn
    """
    load_tensorflow()
    from ddkeras.experiments.cross_source import cross_source as measure_cross_source

    resolved = resolve_recipe(recipe, fields, augment, crop)
    if resolved.recipe.hold_out:
        raise ConfigError("every source is held out in turn; leave out --hold-out")
    with intact_records(records, skip_corrupt=skip_corrupt) as opened:
        return measure_cross_source(resolved.recipe, opened, _FOLDER, tell=console.note)
