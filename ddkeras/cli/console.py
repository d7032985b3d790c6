"""How every command speaks: its result on standard output, all else on standard error, a mistake in one line."""

import contextlib
import errno
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator

import click

from ddkeras.cli.progress import silence_stderr
from ddkeras.exceptions import ConfigError
from pipelines.exceptions import DataError

RECORDS = "artifacts/records"
RUNS = "artifacts/runs"
LATEST_RUN = "artifacts/runs/latest"
EXPORTS = "artifacts/export"
ENSEMBLES = "artifacts/ensembles"
ERRORS = "artifacts/errors"
REGRESSION = "artifacts/regression"


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
    """Make a callback that returns one dict a command; `show` puts it into words.

    With --json it is printed as JSON: values are JSON-ready, or have a method `to_dict`.
    """

    def decorate(callback):
        @click.command(name, cls=_Command)
        @click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
        @functools.wraps(callback)
        def run(as_json: bool, **options):
            with _mistakes_in_one_line(as_json), _log_on_stderr(), contextlib.redirect_stdout(sys.stderr):
                result = callback(**options)
            if hasattr(sys.stdout, "reconfigure"):  # a path that is no UTF-8 can be told
                sys.stdout.reconfigure(errors="backslashreplace")
            click.echo(json.dumps(result, default=_to_dict) if as_json else show(result))

        return run

    return decorate


def _to_dict(value):
    return value.to_dict()


def load_tensorflow() -> None:
    """Import TensorFlow without what its C++ parts print before they can be told not to."""
    with silence_stderr():
        import tensorflow  # noqa: F401


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
