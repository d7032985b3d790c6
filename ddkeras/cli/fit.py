"""`ddk fit`."""

import dataclasses
import sys
from pathlib import Path

import click

from ddkeras.cli import console
from ddkeras.cli.options import opened_records, recipe_of, recipe_options, records_option
from ddkeras.config import Recipe, differences
from ddkeras.exceptions import ConfigError


def _show(result: dict) -> str:
    if "run" not in result:  # but a recipe
        return Recipe(**result).to_yaml().rstrip()
    chosen = "  ".join(f"{name} {value:.4f}" for name, value in result.items() if name.startswith("val_"))
    if "worker" in result:
        return f"worker {result['worker']} is done; the run is with worker 0"
    best = f"best in epoch {result['best_epoch']} of {result['epochs']}: {chosen}"
    return f"{best}\nRun in {result['run']}. Next: ddk evaluate"


@console.command("fit", show=_show)
@click.option("--print-recipe", is_flag=True, help="Print the recipe with all its fields, and train nothing.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[RUN]",
    help="Go on with a training that was stopped: that run, or the newest one.",
)
@records_option
@click.option(
    "--runs", default=console.RUNS, show_default=True, type=click.Path(path_type=Path), help="Where runs are kept."
)
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
@recipe_options
def fit(
    recipe: str | None,
    print_recipe: bool,
    resume: str | None,
    records: Path,
    skip_corrupt: bool,
    runs: Path,
    cache: str,
    service: str,
    augment: str | None,
    crop: float | None,
    **fields,
) -> dict:
    """Train a detector on the records.

    Two heads learn together: authenticity (real or fake) and, when the data has classes, category. The weights of
    the best epoch on validation are kept, and training stops early when none is better for a while. Then what makes
    probabilities and verdicts of scores is fitted on validation, see: ddk evaluate --help. The run is a folder under
    artifacts/runs; `latest` there points at the newest.

    Ctrl-C stops after the step that is being done; --resume goes on from there as if nothing had been.

    \b
    Examples:
      ddk fit
      ddk fit --backbone xception --epochs 20
      ddk fit --recipe efficientnet-b4 --batch 4 --accumulate 8
      ddk fit --backbone mobilenetv2 --weights none --print-recipe > mine.yaml
    """
    console.load_tensorflow()
    from ddkeras.evaluation import scoring
    from ddkeras.runs.run import copied, open_unfinished
    from ddkeras.training import distribution, loop

    said, _, settled = recipe_of(recipe, fields, augment, crop)
    if print_recipe:
        return dataclasses.asdict(settled)
    verbose = 1 if sys.stderr.isatty() else 2  # a moving bar, or a line per epoch in a log
    with opened_records(records, skip_corrupt=skip_corrupt) as opened, distribution.runs_folder(runs) as folder:
        unfinished = None
        if resume is not None:
            unfinished = open_unfinished(resume or runs, opened)
            if changed := differences(unfinished.recipe, settled, said):
                raise ConfigError(
                    f"{unfinished.folder} was begun with {'; '.join(changed)}: leave these out, or begin a new run"
                )
            if distribution.worker():
                unfinished = copied(unfinished, folder)
        run = loop.fit(settled, opened, folder, resume=unfinished, cache=cache, service=service, verbose=verbose)
        if distribution.worker() == 0:
            scoring.calibrate(run, scoring.score(run, opened, ["validation"])["validation"])
        told = {"run": str(run.folder), **run.best_epoch()}
        return told if distribution.worker() == 0 else told | {"worker": distribution.worker()}
