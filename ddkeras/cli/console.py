"""What all commands share: results on standard output, everything else on standard error, user errors as one line."""

import contextlib
import errno
import functools
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from ddkeras.cli.environment import set_tensorflow_environment
from ddkeras.exceptions import ConfigError
from pipelines.exceptions import DataError

# C0, C1, line and paragraph separators, and what changes the direction of text.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_IN_THE_WAY = " cannot be made, as a file is where a folder is needed; choose another place"
_OS_ERRORS = {  # by number: what is said after the name of the file
    errno.EROFS: " is on a read-only file system; choose another place",
    errno.EACCES: ": no permission; change its permissions or choose another place",
    errno.EPERM: ": no permission; change its permissions or choose another place",
    errno.ENOENT: " is missing; something removed it, or its folder, while the command ran: run it again",
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EISDIR: " is a folder, where a file is needed; choose another place",
}


class Option(click.Option):
    """An option that `--help` lists under the heading `section`; `formerly` is an older name that is still taken."""

    def __init__(self, *declarations: Any, section: str = "Options", formerly: str | None = None, **attributes: Any):
        super().__init__(*declarations, **attributes)
        self.section, self.formerly = section, formerly


class _Command(click.Command):
    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **options)
        except click.UsageError as error:  # quotes what it cannot parse
            raise click.UsageError(_visible(error.format_message()), error.ctx) from error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._with_omitted_values(self._with_current_names(args)))

    def _with_omitted_values(self, arguments: list[str]) -> list[str]:
        """The arguments with the value of each option that was given without its choice, before something else.

        Click would take the next argument, such as DATA, for the choice.
        """
        options = [option for option in self.params if isinstance(option, click.Option) and not option.is_flag]
        choices = {
            name: (option.flag_value, option.type.choices)
            for option in options
            if isinstance(option.type, click.Choice) and isinstance(option.flag_value, str)
            for name in option.opts
        }
        end = arguments.index("--") if "--" in arguments else len(arguments)
        given = list(arguments)
        for place, argument in enumerate(arguments[:end]):
            value, allowed = choices.get(argument, ("", ()))
            if value and (place + 1 == end or arguments[place + 1] not in allowed):
                given[place] = f"{argument}={value}"
        return given

    def _with_current_names(self, arguments: list[str]) -> list[str]:
        """The arguments with the current name of each option, and a note for each that was given by an older one."""
        options = [option for option in self.params if isinstance(option, Option)]
        renamed = {option.formerly: option.opts[0] for option in options if option.formerly}
        end = arguments.index("--") if "--" in arguments else len(arguments)
        current, noted = list(arguments), set()
        for place, argument in enumerate(arguments[:end]):
            name, equals, value = argument.partition("=")
            if name in renamed:
                current[place] = f"{renamed[name]}{equals}{value}"
                noted.add(name)
        for name in sorted(noted):
            note(f"{name} is now {renamed[name]}; the old name still works")
        return current

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(context):
            is_argument = isinstance(parameter, click.Argument)  # whose record is a name without a help text
            if not is_argument and (record := parameter.get_help_record(context)):
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

            _open_closed_streams()
            set_tensorflow_environment()
            pillow.silence()
            with _user_errors_as_one_line(as_json):
                with _log_to_stderr(), contextlib.redirect_stdout(sys.stderr):
                    result = callback(**options)
                _print(json.dumps(result, default=_to_dict) if as_json else _visible(format_result(_escaped(result))))

        return run

    return decorate


def note(text: str) -> None:
    """Print a line, or several, on standard error."""
    click.echo(_visible(text), err=True)


def fail_after_result(message: str) -> None:
    """End the running command with exit code 1 and this message, once its result has been printed."""

    def fail() -> None:
        raise click.ClickException(escape(message))

    click.get_current_context().call_on_close(fail)


def escape(text: str) -> str:
    """The text with its control characters, line breaks among them, as visible escapes such as `\\x1b`.

    A name may hold sequences that recolour the terminal, move its cursor, reverse the direction of text, or look like
    another line of output.
    """
    return _CONTROLS.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def _visible(text: str) -> str:
    """Several lines of text, each escaped."""
    return "\n".join(map(escape, text.split("\n")))


def _escaped(value: Any) -> Any:
    """A result whose strings, such as names of files, are escaped, line breaks included."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        return {_escaped(name): _escaped(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value


class _EscapingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _visible(super().format(record))


def _to_dict(value: Any) -> dict[str, Any]:
    return value.to_dict()


def _open_closed_streams() -> None:
    """Open the null device in place of standard streams that are closed, or other files would get their numbers."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  for the rest of the process
        sys.__stderr__ = sys.stderr  # type: ignore[misc]


def _print(result: str) -> None:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for paths that are not UTF-8
    try:
        click.echo(result)
    except BrokenPipeError:  # Click ends the command in silence
        raise
    except OSError as error:
        with open(os.devnull, "wb") as devnull:  # or Python would fail again to write what is left, on exit
            os.dup2(devnull.fileno(), 1)
        raise ConfigError(f"the result cannot be printed: {error.strerror}; the command itself is done") from error


@contextlib.contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Show log messages of both packages on standard error."""
    loggers, handler = [logging.getLogger("pipelines"), logging.getLogger("ddkeras")], logging.StreamHandler()
    handler.setFormatter(_EscapingFormatter())
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
        raise click.ClickException(escape(message)) from error


def _format_user_error(error: BaseException) -> str | None:
    """One line for an error that the user can fix; None for any other."""
    if isinstance(error, (DataError, ConfigError)):
        return " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted; {str(error) or 'nothing was left half-written'}"
    number, text = getattr(error, "errno", None), str(error)  # TensorFlow and HDF5 give the text alone
    if number in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in text:
        return "the disk is full; free some space and run the same command again, with --resume where it has that"
    if number == errno.EFBIG or os.strerror(errno.EFBIG) in text:
        return (
            "a file would become larger than its file system or ulimit -f allows; raise the limit, or choose another "
            "place"
        )
    return _format_os_error(error) if isinstance(error, OSError) and number is not None else None


def _format_os_error(error: OSError) -> str | None:
    """One line for an error that names a file, or is about the current folder."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
    if name is None:
        is_lost = error.errno == errno.ENOENT and not _has_current_folder()
        return "the current folder was removed; change to another one" if is_lost else None
    return name + _OS_ERRORS.get(error.errno or 0, f": {error.strerror}")


def _has_current_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True
