"""How every command speaks: its result on standard output, all else on standard error, a mistake in one line."""

import contextlib
import dataclasses
import errno
import functools
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from ddkeras.config import Recipe, load_chain, recipe_fields, shipped_recipes, with_crop
from ddkeras.errors import ConfigError
from pipelines.exceptions import DataError

if TYPE_CHECKING:
    from pipelines.records.store import Records

RECORDS = "artifacts/records"
RUNS = "artifacts/runs"
LATEST_RUN = "artifacts/runs/latest"
EXPORTS = "artifacts/export"
ENSEMBLES = "artifacts/ensembles"
ERRORS = "artifacts/errors"
REGRESSION = "artifacts/regression"
_SECONDS = 30  # between two lines on how far it is


class Option(click.Option):
    """An option that `--help` shows under the heading of its `section`."""

    def __init__(self, *arguments, section: str = "Options", **options):
        super().__init__(*arguments, **options)
        self.section = section


class _Command(click.Command):
    def format_options(self, context, formatter):
        sections = {}
        for parameter in self.get_params(context):
            if record := parameter.get_help_record(context):
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)


def command(name: str, *, show: Callable[[dict], str]) -> Callable:
    """Make a callback that returns one JSON-ready dict a command; `show` puts the dict into words."""

    def decorate(callback):
        @click.command(name, cls=_Command)
        @click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
        @functools.wraps(callback)
        def run(as_json: bool, **options):
            with _mistakes_in_one_line(as_json), _log_on_stderr(), contextlib.redirect_stdout(sys.stderr):
                result = callback(**options)
            if hasattr(sys.stdout, "reconfigure"):  # a path that is no UTF-8 can be told
                sys.stdout.reconfigure(errors="backslashreplace")
            click.echo(json.dumps(result) if as_json else show(result))

        return run

    return decorate


def load_tensorflow() -> None:
    """Import TensorFlow without what its C++ parts print before they can be told not to."""
    with without_chatter():
        import tensorflow  # noqa: F401


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
    """Options for where the records are, and for going on without what is damaged in them; see `opened`."""
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
def opened(folder: Path, *, skip_corrupt: bool) -> Iterator["Records"]:
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


@contextlib.contextmanager
def without_chatter() -> Iterator[TextIO]:
    """Drop what this process, and any it starts meanwhile, writes to standard error; unless DDK_DEBUG is set.

    What is written to the yielded file still gets there.
    """
    if os.environ.get("DDK_DEBUG"):
        yield sys.stderr
        return
    with os.fdopen(os.dup(2), "w") as kept, open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield kept
        finally:
            os.dup2(kept.fileno(), 2)


@contextlib.contextmanager
def progress(label: str, unit: str = "", file: TextIO | None = None) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, or `file`, moved by calling the yielded function with (done, total).

    It says how many `unit` are done in a second and how long the rest takes. That is counted from the second call on:
    what was done before the first, by a process that was stopped, took no time, and the first step takes too much.
    """
    file = file or sys.stderr
    shown = {"label": label, "width": 24, "file": file, "show_eta": False, "item_show_func": lambda pace: pace}
    with click.progressbar(length=1, **shown) as bar:
        begun, told = [], time.monotonic()

        def move(done: int, total: int) -> None:
            nonlocal told
            now = time.monotonic()
            if len(begun) < 2:
                begun.append((done, now))
            before, since = begun[-1]
            pace = _pace(done - before, total - done, now - since, unit)
            bar.length = total
            bar.update(done - bar.pos, pace)
            if now - told > _SECONDS and not file.isatty():  # where no bar is drawn, as in a log
                click.echo(f"{label}: {done:,} of {total:,}, {pace}", file)
                told = now

        yield move


@contextlib.contextmanager
def progress_alone(label: str, unit: str = "") -> Iterator[Callable[[int, int], None]]:
    """The same, while nothing else reaches standard error: of each damaged JPEG libjpeg has something to say."""
    with contextlib.ExitStack() as stack:
        # sys.stderr itself would be cut off as well, but where a test has put something else in its place.
        is_real = sys.stderr is sys.__stderr__
        file = stack.enter_context(open(os.dup(2), "w")) if is_real else sys.stderr
        stack.enter_context(without_chatter())
        yield stack.enter_context(progress(label, unit, file))


def _pace(done: int, left: int, seconds: float, unit: str) -> str:
    """Such as 1,234 images/s, 0:01:10 left; empty as long as nothing can be said."""
    if not done or not seconds:
        return ""
    rate = done / seconds
    many = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
    rest = f", {timedelta(seconds=round(left / rate))} left" if left else ""
    return f"{many}{' ' if unit else ''}{unit}/s{rest}"


@contextlib.contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Show what is worth saying on the way, such as where decoded images are kept."""
    logs, handler = [logging.getLogger("pipelines"), logging.getLogger("ddkeras")], logging.StreamHandler()
    for log in logs:
        log.setLevel(logging.DEBUG if os.environ.get("DDK_DEBUG") else logging.INFO)
        log.addHandler(handler)
        log.propagate = False  # to what TensorFlow adds at the root, which would say it again
    try:
        yield
    finally:
        for log in logs:
            log.removeHandler(handler)
            log.propagate = True


@contextlib.contextmanager
def _mistakes_in_one_line(as_json: bool) -> Iterator[None]:
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        message = _message(error)
        if message is None or os.environ.get("DDK_DEBUG"):
            raise
        if as_json:
            click.echo(json.dumps({"error": message}))
        raise click.ClickException(message) from error


def _message(error: BaseException) -> str | None:
    """The line for a mistake that a user can put right; None for what is our own."""
    if isinstance(error, (DataError, ConfigError)):
        return " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted; {str(error) or 'nothing was left half-written'}"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
        return "the disk is full; free some space and run the same command again, with --resume where it has that"
    if getattr(error, "errno", None) == errno.EROFS:
        return f"{error.filename} is on a file system that cannot be written to; choose another place"
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename}; change its rights or choose another place"
    return None
