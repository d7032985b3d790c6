"""`ddk tune`."""

import functools
import logging
from pathlib import Path

import click

from ddkeras.cli import console
from ddkeras.cli.options import opened_records, recipe_of, recipe_options, records_option
from ddkeras.config import Recipe
from ddkeras.exceptions import ConfigError

FOLDER = Path("artifacts/tune")


def _show(result: dict) -> str:
    value = next(f"{name} {value:.4f}" for name, value in result.items() if name.startswith("val_"))
    counts = ", ".join(f"{count} {word}" for word, count in result["trials"].items())
    best = f"# trial {result['best_trial']} has the best {value} ({counts})"
    run = f"run in {result['run']}, " if result["run"] else ""
    where = f"# {run}plots in {result['folder']}. Next: ddk fit --recipe {result['folder']}/best.yaml"
    return f"{best}\n{where}\n{Recipe(**result['recipe']).to_yaml().rstrip()}"


@console.command("tune", show=_show)
@click.option("--trials", default=20, show_default=True, type=click.IntRange(1), help="How many, or how many more.")
@click.option(
    "--search",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A YAML file that maps fields to a list of choices, or to low, high and, where wanted, log: true or step.  "
    "[default: learning_rate, weight_decay, dropout and, unless --keep loss, label_smoothing]",
)
@click.option("--study", default="study", show_default=True, help="Its name, to go on with it.")
@click.option(
    "--storage",
    default=f"sqlite:///{FOLDER}/study.db",
    show_default=True,
    metavar="URL",
    help="The database it is in, which several processes can share.",
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
    **fields,
) -> dict:
    """Look for the recipe that does best on validation.

    Each trial is a training with other values of the fields that are searched; the options below, and what the recipe
    says of other fields, hold for all. The first is the recipe as it is, the next nine are drawn at random, all later
    ones where the good ones were. A trial that is worse than half of those before it after as many epochs is pruned.
    What is best is what --keep says.

    The same command again does more trials of the same study, also after Ctrl-C or a crash, and several at once share
    the work. The best recipe is printed, and kept with plots in artifacts/tune; of the runs, that of the best trial
    is kept, in artifacts/tune/runs. Needs Optuna: pip install "ddkeras[tune]"

    \b
    Examples:
      ddk tune --keep auc
      ddk tune --trials 50 --recipe efficientnet-b4 --search mine.yaml
      ddk tune --storage postgresql://ddk@10.0.0.5/studies
      ddk fit --recipe artifacts/tune/best.yaml
    """
    console.load_tensorflow()
    from ddkeras.experiments import tuning

    # Or each trial would say where its images are kept, and TensorFlow that its network is another than the last.
    for name in ("pipelines", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    said, given, settled = recipe_of(recipe, fields, augment, crop)
    space = tuning.read_space(search, said) if search else tuning.default_space(settled, given)
    if both := [name for name in space if name in given]:
        raise ConfigError(f"{search} searches {', '.join(both)}, which is also given as an option; leave out one")
    with opened_records(records, skip_corrupt=skip_corrupt) as opened:
        tell = functools.partial(click.echo, err=True)
        plan = tuning.Plan(said, space)
        return tuning.tune(plan, opened, FOLDER, storage=storage, name=study, trials=trials, tell=tell)
