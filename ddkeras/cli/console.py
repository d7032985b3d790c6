"""What all commands share: results on standard output, everything else on standard error, user errors as one line."""

import contextlib
import errno
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from ddkeras.cli.environment import set_tensorflow_environment
from ddkeras.exceptions import ConfigError
from pipelines.exceptions import DataError


class Option(click.Option):
    """An option that `--help` lists under the heading `section`."""

    def __init__(self, *declarations: Any, section: str = "Options", **attributes: Any):
        super().__init__(*declarations, **attributes)
        self.section = section


class _Command(click.Command):
    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(context):
            if record := parameter.get_help_record(context):
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)


def command(
    name: str, *, format_result: Callable[[dict[str, Any]], str]
) -> Callable[[Callable[..., dict[str, Any]]], click.Command]:
    """Make a command of a callback that returns a dict, which `format_result` turns into text.

    With --json it is printed as JSON: its values are JSON-ready, or have a method `to_dict`.
    """

    def decorate(callback: Callable[..., dict[str, Any]]) -> click.Command:
        @click.command(name, cls=_Command)
        @click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
        @functools.wraps(callback)
        def run(as_json: bool, **options: Any) -> None:
            from pipelines.media import pillow

            set_tensorflow_environment()
            pillow.silence()
            with _user_errors_as_one_line(as_json), _log_to_stderr(), contextlib.redirect_stdout(sys.stderr):
                result = callback(**options)
            if hasattr(sys.stdout, "reconfigure"):
                sys.stdout.reconfigure(errors="backslashreplace")  # for paths that are not UTF-8
            click.echo(json.dumps(result, default=_to_dict) if as_json else format_result(result))

        return run

    return decorate


def _to_dict(value: Any) -> dict[str, Any]:
    return value.to_dict()


@contextlib.contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Show log messages of both packages on standard error."""
    loggers, handler = [logging.getLogger("pipelines"), logging.getLogger("ddkeras")], logging.StreamHandler()
    for logger in loggers:
        logger.setLevel(logging.DEBUG if os.environ.get("DDK_DEBUG") else logging.INFO)
        logger.addHandler(handler)
        logger.propagate = False  # TensorFlow adds a handler to the root logger, which would repeat them
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True


@contextlib.contextmanager
def _user_errors_as_one_line(as_json: bool) -> Iterator[None]:
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        message = _format_user_error(error)
        if message is None or os.environ.get("DDK_DEBUG"):
            raise
        if as_json:
            click.echo(json.dumps({"error": message}))
        raise click.ClickException(message) from error


def _format_user_error(error: BaseException) -> str | None:
    """One line for an error that the user can fix; None for any other."""
    if isinstance(error, (DataError, ConfigError)):
        return " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted; {str(error) or 'nothing was left half-written'}"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
        return "the disk is full; free some space and run the same command again, with --resume where it has that"
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return f"{error.filename} is on a read-only file system; choose another place"
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename}; change its permissions or choose another place"
    return None
