"""Importing a module of ours changes nothing for the program that imports it, and the light ones stay light."""

import json
import os
import subprocess
import sys

import pytest
from tiny import REPOSITORY

# Imports what our modules import from others, then ours, and prints what the latter changed.
CHANGES = """
import ast, importlib, json, logging, os, sys, warnings
from pathlib import Path

def imported(statements):
    for node in statements:  # of a module, and not of its functions
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Try):
            yield from imported(node.body)

files = [path for package in ("pipelines", "ddkeras") for path in sorted(Path(package).rglob("*.py"))]
names = {name for path in files for name in imported(ast.parse(path.read_text()).body)}
for name in sorted(name for name in names if name.split(".")[0] not in ("pipelines", "ddkeras")):
    try:
        importlib.import_module(name)
    except ImportError:  # an extra that is not installed, or not a module but a name in one
        pass
import matplotlib
from PIL import Image, ImageFile

def state():
    return {
        "matplotlib's backend": matplotlib.rcParams._get_backend_or_none(),
        "MAX_IMAGE_PIXELS": Image.MAX_IMAGE_PIXELS,
        "LOAD_TRUNCATED_IMAGES": ImageFile.LOAD_TRUNCATED_IMAGES,
        "Pillow's plug-ins": sorted(Image.OPEN),
        "Pillow's log level": logging.getLogger("PIL").level,
        "warnings": list(map(str, warnings.filters)),
        **{f"environment variable {name}": value for name, value in os.environ.items()},
        "root logger": (logging.root.level, list(map(str, logging.root.handlers))),
    }

changes, skipped = {}, []
for path in files:
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    before = state()
    try:
        importlib.import_module(name)
    except Exception as error:
        if not any(isinstance(each, ImportError) for each in (error, error.__cause__)):
            raise
        skipped.append(name)  # needs an extra that is not installed
    after = state()
    for what in sorted(before.keys() | after.keys()):
        if before.get(what) != after.get(what):
            changes[f"{name}: {what}"] = [before.get(what), after.get(what)]
print(json.dumps({"changes": changes, "modules": len(files), "skipped": skipped}))
"""


def run(code: str) -> str:
    """What a process prints that has nothing of ours, or of the tests, in its environment."""
    names = ("PATH", "HOME", "LD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    environment |= {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def test_importing_our_modules_changes_no_settings():
    result = json.loads(run(CHANGES).splitlines()[-1])
    assert result["changes"] == {}
    assert result["modules"] - len(result["skipped"]) > 100


@pytest.mark.parametrize("module", ["pipelines", "ddkeras", "ddkeras.cli"])
def test_the_packages_and_the_command_line_load_nothing_heavy(module):
    loaded = run(f"import sys, {module}; print(*sys.modules)").split()
    assert module in loaded
    assert not {"tensorflow", "keras", "matplotlib"} & set(loaded)
