"""`ddk fit`."""

import dataclasses
from pathlib import Path
from typing import Any, get_args

import click

from ddkeras import api
from ddkeras.cli import console
from ddkeras.cli.environment import load_tensorflow
from ddkeras.cli.options import intact_records, recipe_options, records_option, resolve_recipe
from ddkeras.config import Recipe


def _format_result(result: dict[str, Any]) -> str:
    if "run" not in result:  # with --print-recipe
        return Recipe(**result).to_yaml().rstrip()
    if "worker" in result:
        return f"worker {result['worker']} is done; the run is with worker 0"
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in result.items() if name.startswith("val_"))
    best = f"best in epoch {result['best_epoch']} of {result['epochs']}: {metrics}"
    return f"{best}\nRun in {result['run']}. Next: ddk evaluate"


@console.command("fit", format_result=_format_result)
@click.option("--print-recipe", is_flag=True, help="Print the complete recipe without training.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[RUN]",
    help="Continue an interrupted training: that run or, without RUN, the newest.",
)
@records_option
@click.option(
    "--runs", default=api.RUNS, show_default=True, type=click.Path(path_type=Path), help="Folder for all runs."
)
@click.option(
    "--cache",
    type=click.Choice(get_args(api.Cache)),
    default="auto",
    show_default=True,
    help="Where to cache decoded images; auto: where they take at most a quarter of the free space.",
)
@click.option(
    "--data-service",
    default="",
    metavar="ADDRESS",
    help="Read and decode in a tf.data service, such as grpc://10.0.0.5:5050; its workers must see the records under "
    "the same path.",
)
@recipe_options
def fit(
    recipe: str | None,
    print_recipe: bool,
    resume: str | None,
    records: Path,
    skip_corrupt: bool,
    runs: Path,
    cache: api.Cache,
    data_service: str,
    augment: str | None,
    crop: float | None,
    **fields: Any,
) -> dict[str, Any]:
    """Train a detector on the records.

    Two heads are trained together: authenticity (real or fake) and, when the data has classes, category. The weights
    of the best epoch on validation are kept, and training stops early when there is no improvement. Then the
    operating point, which turns scores into calibrated probabilities and verdicts, is fitted on validation; see: ddk
    evaluate --help. The run is a folder in artifacts/runs, where `latest` links to the newest.

    Ctrl-C stops after the current step; --resume continues from there to the same result.

    \b
    Examples:
      ddk fit
      ddk fit --backbone xception --epochs 20
      ddk fit --recipe efficientnet-b4 --batch 4 --accumulate 8
      ddk fit --backbone mobilenetv2 --weights none --print-recipe > mine.yaml
    """
    load_tensorflow()
    from ddkeras.training import distribution

    resolved = resolve_recipe(recipe, fields, augment, crop)
    if print_recipe:
        return dataclasses.asdict(resolved.recipe)
    with intact_records(records, skip_corrupt=skip_corrupt) as opened:
        run = api.fit(
            opened,
            runs=runs,
            resume=resume is not None and (resume or True),
            cache=cache,
            data_service=data_service,
            progress=True,
            **resolved.fields,
        )
    result = {"run": str(run.folder), **run.best_epoch()}
    return result | {"worker": distribution.worker_index()} if distribution.worker_index() else result
