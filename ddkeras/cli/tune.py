"""`ddk tune`."""

import logging
from pathlib import Path
from typing import Any

import click

from ddkeras.cli import console
from ddkeras.cli.environment import load_tensorflow
from ddkeras.cli.options import intact_records, recipe_options, records_option, resolve_recipe
from ddkeras.config import Recipe
from ddkeras.exceptions import ConfigError

_FOLDER = Path("artifacts/tune")


def _format_result(result: dict[str, Any]) -> str:
    value = next(f"{name} {value:.4f}" for name, value in result.items() if name.startswith("val_"))
    counts = ", ".join(f"{count} {state}" for state, count in result["trials"].items())
    best = f"# trial {result['best_trial']} has the best {value} ({counts})"
    run = f"run in {result['run']}, " if result["run"] else ""
    where = f"# {run}plots in {result['folder']}. Next: ddk fit --recipe {result['folder']}/best.yaml"
    return f"{best}\n{where}\n{Recipe(**result['recipe']).to_yaml().rstrip()}"


@console.command("tune", format_result=_format_result)
@click.option(
    "--trials",
    default=20,
    show_default=True,
    type=click.IntRange(1),
    help="Number of trials to add to the study.",
)
@click.option(
    "--search",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Search space: a YAML file that maps fields to a list of choices, or to low, high and optionally log: true "
    "or step.  [default: learning_rate, weight_decay, dropout and, unless --keep loss, label_smoothing]",
)
@click.option("--study", default="study", show_default=True, help="Name of the study.")
@click.option(
    "--storage",
    default=f"sqlite:///{_FOLDER}/study.db",
    show_default=True,
    metavar="URL",
    help="Database of the study, which several processes can share.",
)
@records_option
@recipe_options
def tune(
    trials: int,
    recipe: str | None,
    search: Path | None,
    study: str,
    storage: str,
    records: Path,
    skip_corrupt: bool,
    augment: str | None,
    crop: float | None,
    **fields: Any,
) -> dict[str, Any]:
    """Search for the recipe that does best on validation.

    Each trial trains with different values of the searched fields; all other fields are as in the recipe and the
    options below. The first trial is the recipe unchanged; if the search lacks a value of it, the first trial has the
    nearest that it has, and a note says so. The next nine are random, later ones are sampled near the good ones
    (TPE). A trial that is worse than the median of earlier ones after the same number of epochs is pruned. --keep
    decides what is optimized.

    Run the same command again to add trials to the study, also after Ctrl-C or a crash; several processes can share
    the work. The best recipe is printed, and stored with plots in artifacts/tune; of the runs, that of the best trial
    is kept, in artifacts/tune/runs. Needs Optuna: pip install "ddkeras[tune]"

    \b
    Examples:
      ddk tune --keep auc
      ddk tune --trials 50 --recipe efficientnet-b4 --search mine.yaml
      ddk tune --storage postgresql://ddk@10.0.0.5/studies
      ddk fit --recipe artifacts/tune/best.yaml
    """
    load_tensorflow()
    from ddkeras.experiments import tuning

    # Otherwise each trial logs where its images are cached, and TensorFlow that functions are traced again.
    for name in ("pipelines", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    resolved = resolve_recipe(recipe, fields, augment, crop)
    if search:
        space = tuning.read_space(search, resolved.fields)
    else:
        space = tuning.default_space(resolved.recipe, resolved.options)
    if both := [name for name in space if name in resolved.options]:
        raise ConfigError(f"{search} searches {', '.join(both)}, which is also given as an option; leave out one")
    with intact_records(records, skip_corrupt=skip_corrupt) as opened:
        tell = console.note
        plan = tuning.Plan(resolved.fields, space)
        return tuning.tune(plan, opened, _FOLDER, storage=storage, name=study, trials=trials, tell=tell)
