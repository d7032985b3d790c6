"""`ddk info`."""

import configparser
import json
import platform
import re
import sys
from importlib import metadata

import schemas
from click.testing import CliRunner
from tiny import REPOSITORY

from ddkeras import __version__
from ddkeras.cli import main
from ddkeras.cli.info import EXTRAS

NOT_FOR_A_COMMAND = {"dev", "gpu"}  # gpu installs libraries of TensorFlow, whose work the devices show


def test_versions_devices_and_extras_are_told():
    printed = CliRunner().invoke(main, ["info", "--json"]).stdout
    schemas.check_output("info", printed)
    told = json.loads(printed)
    assert (told["ddkeras"], told["python"]) == (__version__, platform.python_version())
    assert told["packages"]["numpy"] == metadata.version("numpy")
    assert told["devices"] == [{"type": "CPU", "name": "/physical_device:CPU:0", "description": None}]
    assert told["tensorflow_error"] is None


def test_a_missing_extra_is_shown_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(EXTRAS, "tune", ("ddk tune", ("numpy", "a-package-that-is-missing")))
    shown = CliRunner().invoke(main, ["info"]).stdout.splitlines()
    (line,) = (line for line in shown if line.startswith("  tune"))
    assert line.split(maxsplit=3) == ["tune", "ddk", "tune", 'missing; pip install "ddkeras[tune]"']
    assert len(shown) <= 24
    assert f"ddkeras   {__version__}, in {REPOSITORY}/ddkeras" in shown


def test_a_tensorflow_that_cannot_be_loaded_is_told_with_the_rest(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # importing it raises ImportError
    done = CliRunner().invoke(main, ["info"])
    assert done.exit_code == 0
    assert "devices   unknown, as TensorFlow cannot be loaded: import of tensorflow halted" in done.stdout


def test_each_extra_has_the_packages_that_pip_installs():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    installed = {
        name: set(re.findall(r"^[\w-]+", requirements, re.MULTILINE))
        for name, requirements in setup["options.extras_require"].items()
    }
    told = {name: set(packages) for name, (_, packages) in EXTRAS.items()}
    assert told == {name: packages for name, packages in installed.items() if name not in NOT_FOR_A_COMMAND}
