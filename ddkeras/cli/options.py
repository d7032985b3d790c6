"""Options that several commands share: data, runs, records, augmentation, and one for each field of the recipe."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ddkeras.api import RECORDS, RUNS
from ddkeras.cli.console import Option, note
from ddkeras.config import Recipe, load_chain, recipe_fields, shipped_recipes, with_crop
from ddkeras.exceptions import ConfigError
from pipelines.wording import count_of

if TYPE_CHECKING:
    from pipelines.records.store import Records

LATEST_RUN = f"{RUNS}/latest"
ENSEMBLES = "artifacts/ensembles"
REGRESSION_SET = "artifacts/regression"

_Callback = Callable[..., Any]  # of a command, with or without options


class _CommaSeparated(click.ParamType):
    name = "numbers"

    def convert(self, value: str, parameter: click.Parameter | None, context: click.Context | None) -> list[float]:
        try:
            return [float(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers, such as 2,1", parameter, context)


class _ColumnNames(click.ParamType):
    name = "columns"

    def convert(
        self, value: str | dict[str, str], parameter: click.Parameter | None, context: click.Context | None
    ) -> dict[str, str]:
        if isinstance(value, dict):
            return value
        pairs = [[text.strip() for text in part.split("=", 1)] for part in value.split(",")]
        if not all(len(pair) == 2 and all(pair) for pair in pairs):
            self.fail(f"{value!r} is not a list such as image_path=file,label=target", parameter, context)
        return dict(pairs)


# --- data, runs and records ------------------------------------------------------------------------------------


def data_options(callback: _Callback) -> _Callback:
    """Options for how a data folder is read; see `pipelines.datasets.layouts.read_layout`."""
    columns = click.option(
        "--columns",
        metavar="COLUMN=NAME",
        type=_ColumnNames(),
        help="What metadata.csv calls the columns image_path, label, class, source and split, such as "
        "image_path=file,label=target.  [default: these names]",
    )
    real, fake = (
        click.option(
            f"--{label}",
            metavar="NAME",
            multiple=True,
            help=f"Name of the folders, or value in metadata.csv, of {label} images; can be repeated.  [default: the "
            "names in docs/records.md]",
        )
        for label in ("real", "fake")
    )
    folders = click.option(
        "--folders",
        metavar="KIND",
        type=click.Choice(["class", "source", "group"]),
        help="What the folders beside those of splits and labels are: class, source, or group (such as a video), "
        "which is kept in one split.  [default: decided by their names]",
    )
    return columns(real(fake(folders(callback))))


run_option = click.option(
    "--run",
    "run_folder",
    default=LATEST_RUN,
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of the run.",
)


allowed_hosts_option = click.option(
    "--allowed-hosts",
    metavar="NAME",
    multiple=True,
    help="Name under which clients reach the server, as their Host header gives it; repeatable, * allows any. "
    "Addresses, localhost and the name of this computer are always allowed.",
)


def detector_options(run_help: str) -> Callable[[_Callback], _Callback]:
    """Options for one or several detectors and, of several, their weights; see `check_weights`."""
    runs = click.option(
        "--run",
        "detectors",
        multiple=True,
        type=click.Path(path_type=Path),
        cls=Option,
        formerly="--model",
        help=f"{run_help}  [default: {LATEST_RUN}]",
    )
    weights = click.option(
        "--ensemble-weights",
        metavar="W,W",
        type=_CommaSeparated(),
        cls=Option,
        formerly="--weights",
        help="Weight in the ensemble of each --run.  [default: equal weights]",
    )
    return lambda callback: runs(weights(callback))


def check_weights(detectors: tuple[Path, ...], weights: list[float] | None) -> None:
    """Check that weights are given for several detectors alone.

    Raises:
        ConfigError: they are not.
    """
    if weights and len(detectors) < 2:
        raise ConfigError("--ensemble-weights is for several --run; leave it out")


def records_option(callback: _Callback) -> _Callback:
    """Options for the records, and for skipping damaged ones; see `intact_records`."""
    path = click.Path(path_type=Path)
    skip = click.option("--skip-corrupt", is_flag=True, help="Skip damaged records, and report how many.")
    records = click.option("--records", default=RECORDS, show_default=True, type=path, help="Folder of the records.")
    return records(skip(callback))


@contextlib.contextmanager
def intact_records(folder: Path, *, skip_corrupt: bool) -> Iterator["Records"]:
    """Open records; with `skip_corrupt`, without the damaged ones, for the duration of the block."""
    from pipelines.records import corruption
    from pipelines.records.store import open_records

    records = open_records(folder)
    if not skip_corrupt:
        yield records
        return
    with tempfile.TemporaryDirectory(prefix="ddk-") as temporary:
        intact, damages = corruption.drop_corrupt(records, Path(temporary))
        for damage in damages:
            note(f"left out: {damage}")
        if damages:
            note(f"{count_of(intact.skipped, 'record')} lost in total")
        yield intact


# --- the recipe ------------------------------------------------------------------------------------------------


def augment_options(default: str | None = "forensic", **attributes: Any) -> Callable[[_Callback], _Callback]:
    """Options for the augmentation of training images; see `ddkeras.config.load_chain`."""
    crop = click.option(
        "--crop",
        type=float,
        help="Train on random square crops of this fraction of the image size: faster, and different in each epoch. "
        "Validation and inference see whole images.  [default: as in --augment]",
        **attributes,
    )
    augment = click.option(
        "--augment",
        default=default,
        help="Augmentation of training images: forensic (crop, flip, resize, blur, brightness, contrast, noise, "
        "JPEG), flip, none, or a YAML file of steps and strengths, see docs/augmentation.md.  [default: forensic]",
        **attributes,
    )
    return lambda callback: augment(crop(callback))


def recipe_options(callback: _Callback) -> _Callback:
    """`--recipe`, and an option for each field of `ddkeras.config.Recipe`, None where it is not given."""
    for field in reversed(dataclasses.fields(Recipe)):
        section = {"cls": Option, "section": field.metadata["group"]}
        if field.name == "augment":
            callback = augment_options(None, **section)(callback)
        else:
            callback = click.option(
                *_option_names(field), **_option_type(field), help=_format_help(field), **section
            )(callback)
    names = ", ".join(shipped_recipes())
    text = f"A YAML file, or one of {names}. The options below override its fields."
    return click.option("--recipe", help=text)(callback)


class ResolvedRecipe(NamedTuple):
    """What `recipe_options` amount to."""

    fields: dict[str, Any]  # that are given, by the recipe's file or by an option
    options: set[str]  # names of the fields given by an option
    recipe: Recipe  # with the defaults of all other fields


def resolve_recipe(
    name: str | None, options: dict[str, Any], augment: str | None, crop: float | None
) -> ResolvedRecipe:
    """Combine `--recipe`, the options of `recipe_options`, and the defaults."""
    given = {field: value for field, value in options.items() if value is not None}
    fields = (recipe_fields(name) if name else {}) | given
    recipe = Recipe(**fields)
    if augment or crop:
        chain = load_chain(augment, crop, recipe.image_size) if augment else with_crop(recipe.augment, crop)
        fields["augment"] = given["augment"] = chain
        recipe = dataclasses.replace(recipe, augment=chain)
    return ResolvedRecipe(fields, set(given), recipe)


def _option_names(field: dataclasses.Field) -> tuple[str, str]:
    dashed = field.name.replace("_", "-")
    return f"--{dashed}/--no-{dashed}" if field.type is bool else f"--{dashed}", field.name


def _option_type(field: dataclasses.Field) -> dict[str, Any]:
    if choices := field.metadata.get("choices"):
        return {"type": click.Choice(choices)}
    types = [kind for kind in getattr(field.type, "__args__", (field.type,)) if kind is not type(None)]
    return {"type": types[0], "default": None}


def _format_help(field: dataclasses.Field) -> str:
    text = field.metadata["help"]
    return text if field.default is None else f"{text}  [default: {field.default}]"
