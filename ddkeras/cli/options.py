"""Options that several commands share: runs, records, augmentation, and one for each field of the recipe."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddkeras.cli.console import LATEST_RUN, RECORDS, Option
from ddkeras.config import Recipe, load_chain, recipe_fields, shipped_recipes, with_crop
from ddkeras.exceptions import ConfigError

if TYPE_CHECKING:
    from pipelines.records.store import Records


class _Numbers(click.ParamType):
    """Numbers with commas between them."""

    name = "numbers"

    def convert(self, value, parameter, context):
        try:
            return [float(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers, such as 2,1", parameter, context)


run_option = click.option(
    "--run", "run_folder", default=LATEST_RUN, show_default=True, type=click.Path(path_type=Path)
)


def detector_options(models_help: str) -> Callable:
    """Options for a run, or for `--model` in its place, several of which are an ensemble; see `check_detector`."""
    path = click.Path(path_type=Path)
    run = click.option("--run", "run_folder", type=path, help=f"[default: {LATEST_RUN}]")
    models = click.option("--model", "models", multiple=True, type=path, help=models_help)
    weights = click.option(
        "--weights", metavar="W,W", type=_Numbers(), help="How much each --model counts.  [default: all the same]"
    )
    return lambda callback: run(models(weights(callback)))


def check_detector(
    run_folder: Path | None, models: tuple[Path, ...], weights: list[float] | None, *, fewest: int
) -> None:
    """Look whether what `detector_options` were given goes together; weights do with `fewest` models or more."""
    if run_folder and models:
        raise ConfigError("--run and --model are both given; leave out one")
    if weights and len(models) < fewest:
        raise ConfigError("--weights is for several --model; leave it out")


def records_option(callback: Callable) -> Callable:
    """Options for where the records are, and for going on without what is damaged in them; see `opened_records`."""
    path = click.Path(path_type=Path)
    skip = click.option("--skip-corrupt", is_flag=True, help="Leave out damaged records, and say how many.")
    return click.option("--records", default=RECORDS, show_default=True, type=path)(skip(callback))


def augment_options(default: str | None = "forensic", **options) -> Callable:
    """Options for what is done to training images; see `ddkeras.config.load_chain`."""
    crop = click.option(
        "--crop",
        type=float,
        help="Train on squares of this share of the image size, cut out anywhere: faster, and each epoch sees "
        "others. Everything else sees whole images.  [default: as --augment says]",
        **options,
    )
    augment = click.option(
        "--augment",
        default=default,
        help="What is done to training images: forensic (crop, mirror, resize, blur, light, noise, JPEG), flip, "
        "none, or a YAML file of steps and strengths, see docs/augmentation.md.  [default: forensic]",
        **options,
    )
    return lambda callback: augment(crop(callback))


def recipe_options(callback: Callable) -> Callable:
    """`--recipe`, and an option for each field of `ddkeras.config.Recipe`, None where it is not given."""
    for field in reversed(dataclasses.fields(Recipe)):
        section = {"cls": Option, "section": field.metadata["group"]}
        if field.name == "augment":
            callback = augment_options(None, **section)(callback)
        else:
            callback = click.option(*_declaration(field), **_kind(field), help=_help(field), **section)(callback)
    named = ", ".join(shipped_recipes())
    text = f"A YAML file, or one of {named}. The options below take the place of what it says."
    return click.option("--recipe", help=text)(callback)


def recipe_of(
    name: str | None, fields: dict[str, Any], augment: str | None, crop: float | None
) -> tuple[dict[str, Any], set[str], Recipe]:
    """What `--recipe` and `recipe_options` come to.

    Returns:
        All fields that are said, the names of those that are said by an option, and the recipe.
    """
    given = {field: value for field, value in fields.items() if value is not None}
    said = (recipe_fields(name) if name else {}) | given
    recipe = Recipe(**said)
    if augment or crop:
        chain = load_chain(augment, crop, recipe.image_size) if augment else with_crop(recipe.augment, crop)
        said["augment"] = given["augment"] = chain
        recipe = dataclasses.replace(recipe, augment=chain)
    return said, set(given), recipe


def _declaration(field: dataclasses.Field) -> tuple[str, str]:
    dashed = field.name.replace("_", "-")
    return f"--{dashed}/--no-{dashed}" if field.type == bool | None else f"--{dashed}", field.name


def _kind(field: dataclasses.Field) -> dict:
    if choices := field.metadata.get("choices"):
        return {"type": click.Choice(choices)}
    kinds = [kind for kind in getattr(field.type, "__args__", (field.type,)) if kind is not type(None)]
    return {"type": kinds[0], "default": None}


def _help(field: dataclasses.Field) -> str:
    text = field.metadata["help"]
    return text if field.default is None else f"{text}  [default: {field.default}]"


@contextlib.contextmanager
def opened_records(folder: Path, *, skip_corrupt: bool) -> Iterator["Records"]:
    """Open records; of damaged ones what is whole, on which the block can rely until it ends."""
    from pipelines.records import corruption
    from pipelines.records.store import open_records

    records = open_records(folder)
    if not skip_corrupt:
        yield records
        return
    with tempfile.TemporaryDirectory(prefix="ddk-") as spare:
        intact, found = corruption.without(records, Path(spare))
        for one in found:
            click.echo(f"left out: {one}", err=True)
        if found:
            click.echo(f"{intact.skipped} records are lost in all", err=True)
        yield intact
