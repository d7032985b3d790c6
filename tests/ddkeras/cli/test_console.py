"""What every command does with its streams, and with errors of the machine."""

import errno
import json
import logging
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from tiny import REPOSITORY

from ddkeras.cli import console
from ddkeras.exceptions import ConfigError

SAMPLE = [sys.executable, "-c", "from ddkeras.cli import main; main()", "sample-data", "drawn", "--images", "30"]


def in_shell(line: str, folder, arguments=SAMPLE) -> subprocess.CompletedProcess:
    """Run `ddk sample-data` as "$@" in a line of the shell."""
    return subprocess.run(
        ["sh", "-c", line, "sh", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_full_standard_output_is_a_one_line_error(tmp_path, options):
    done = in_shell('"$@" > /dev/full', tmp_path, [*SAMPLE, *options])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "Error: the result cannot be printed: No space left on device; the command itself is done"
    )
    assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "drawn").rglob("*.jpg"))) == 30


@pytest.mark.parametrize("closing", ["2>&-", "<&- 2>&-"])
def test_without_standard_error_a_command_does_its_work(tmp_path, closing):
    done = in_shell(f'"$@" {closing}', tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("30 images")
    assert len(list((tmp_path / "drawn").rglob("*.jpg"))) == 30


def test_a_file_that_is_larger_than_allowed_is_a_one_line_error(tmp_path):
    done = in_shell('ulimit -f 1; "$@"', tmp_path, [*SAMPLE, "--size", "256"])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "Error: a file would become larger than its file system or ulimit -f allows; raise the limit"
    )
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_removed_current_folder_is_a_one_line_error(tmp_path):
    done = in_shell('mkdir gone && cd gone && rmdir ../gone && "$@"', tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: the current folder was removed; change to another one"


HOSTILE = "a\x1b[31m\nError: b\u202egpj\x9b.jpg"
SHOWN = r"a\x1b[31m\nError: b\u202egpj\x9b.jpg"


def test_control_characters_are_escaped_in_all_that_is_printed():
    @console.command("show", format_result=lambda result: f"first {result['paths'][0]}\nlast \x07")
    @click.option("--fail", is_flag=True)
    @click.option("--number", type=int)
    def show(fail: bool, number: int | None) -> dict:
        """Show a name."""
        logging.getLogger("ddkeras.test").info("log \x1b]0;title")
        console.note("note \x1b[2J")
        if fail:
            raise ConfigError("no \x1b[31m file")
        return {"paths": [HOSTILE]}

    result = CliRunner().invoke(show, [])
    assert result.stdout == f"first {SHOWN}\nlast \\x07\n"
    assert result.stderr == "log \\x1b]0;title\nnote \\x1b[2J\n"
    assert json.loads(CliRunner().invoke(show, ["--json"]).stdout) == {"paths": [HOSTILE]}
    assert CliRunner().invoke(show, ["--fail"]).stderr.endswith("Error: no \\x1b[31m file\n")
    failed = json.loads(CliRunner().invoke(show, ["--fail", "--json"]).stdout)
    assert failed == {"error": "no \x1b[31m file"}
    assert "\x1b" not in CliRunner().invoke(show, ["--number", "\x1b[31m"]).stderr


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ("data", None),
        ("data --way", "resize"),
        ("--way data", "resize"),
        ("--way -- data", "resize"),
        ("--way --full data", "resize"),
        ("--way crop data", "crop"),
        ("data --way=crop", "crop"),
    ],
)
def test_a_choice_may_be_omitted_before_anything_else(arguments, given):
    @console.command("show", format_result=lambda result: f"{result['way']} {result['data']}")
    @click.argument("data")
    @click.option("--full", is_flag=True)
    @click.option("--way", is_flag=False, flag_value="resize", type=click.Choice(["resize", "crop"]))
    def show(**options: str) -> dict:
        """Show the options."""
        return options

    result = CliRunner().invoke(show, arguments.split())
    assert result.stdout == f"{given} data\n"


def test_names_in_ordinary_languages_are_shown_as_they_are():
    name = "é 中文 می‌خواهم 👩‍👧.jpg"  # zero-width joiners among them
    assert console.escape(name) == name


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(errno.ENOENT, "", "a/b"), "a/b is missing; something removed it, or its folder, while"),
        (NotADirectoryError(errno.ENOTDIR, "", "a/b"), "a/b cannot be made, as a file is where a folder is needed"),
        (FileExistsError(errno.EEXIST, "", b"a"), "a cannot be made, as a file is where a folder is needed"),
        (IsADirectoryError(errno.EISDIR, "", "a"), "a is a folder, where a file is needed"),
        (OSError(errno.EIO, "Input/output error", "a"), "a: Input/output error"),
        (
            OSError("Unable to write (errno = 27, 'File too large')"),
            "a file would become larger than",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), None),
        (ValueError("a bug"), None),
    ],
)
def test_errors_of_the_machine_in_one_line(error, line):
    said = console._format_user_error(error)
    assert said is line is None or said.startswith(line)
