"""The folder of an export: a model and what is needed to use it, written whole, and checked before it is opened.

artifacts/export/<run>, or <run>-<format>/<version>/
    saved_model.pb, model.tflite or model.onnx, and what goes with it
    labels.txt          the categories, one in a line, in the order of `category_probabilities`
    model_card.json     what it is, how it was made, what was measured, what it is not for
    SHA256SUMS          of all other files; check them with: sha256sum -c SHA256SUMS
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddkeras.exceptions import ConfigError
from ddkeras.reporting.model_card import INTENDED_USE, LIMITS_OF_USE
from ddkeras.runs.run import Run, package_versions
from pipelines import atomic
from pipelines.datasets.examples import LABELS

SAVED_MODEL, LITERT, ONNX = "saved_model.pb", "model.tflite", "model.onnx"  # one of them is in each export
_CARD, _SUMS = "model_card.json", "SHA256SUMS"
_MEASURED = ("auc", "average_precision", "log_loss", "calibration_error", "coverage", "risk")


# --- writing ---------------------------------------------------------------------------------------------------


def next_version(base: Path) -> Path:
    """The folder of the version after the highest in `base`."""
    numbers = [int(path.name) for path in base.glob("*") if path.name.isdigit()]
    return base / str(max(numbers, default=0) + 1)


@contextmanager
def save(final: Path, run: Run, *, model: str, described: dict) -> Iterator[Path]:
    """Yield an empty folder for the model of `run`, which takes the place of `final` when the block ends well.

    What goes with each model is added to it then.

    Args:
        model: the file that the block writes, one of those named above.
        described: what the card says of this format, such as `inputs` and `outputs`.
    """
    with atomic.folder(final, marker=model) as partial:
        yield partial
        (partial / "labels.txt").write_text("".join(f"{name}\n" for name in run.categories), encoding="utf-8")
        card = _card(run, described)
        (partial / _CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        sums = [f"{_sum(path)}  {name}\n" for name, path in sorted(_files(partial).items())]
        (partial / _SUMS).write_text("".join(sums))


def _card(run: Run, described: dict) -> dict:
    return {
        "name": run.name,
        "intended_use": INTENDED_USE,
        "limits_of_use": list(LIMITS_OF_USE),
        **described,
        "image_size": run.recipe.image_size,
        "labels": list(LABELS),
        "categories": run.categories,
        "operating_point": run.point.to_dict(),
        "measured": {
            path.parent.name: _measured(path) for path in sorted(run.folder.glob("evaluation/*/metrics.json"))
        },
        "records": run.fingerprint,
        "recipe": dataclasses.asdict(run.recipe),
        **run.cost(),
        "versions": package_versions(),
    }


def _measured(path: Path) -> dict:
    """The numbers of a split that matter most; all are in its report."""
    found = json.loads(path.read_text())
    authenticity = found["authenticity"]
    point = authenticity["at_operating_point"]
    return {
        "records": found["records"],
        "examples": found["examples"],
        **{name: authenticity[name] for name in _MEASURED},
        **{name: point[name] for name in ("false_positive_rate", "recall")},
        "bias_probe": found.get("bias_probe", {}).get("verdict"),
        "notes": found["notes"],
    }


# --- opening ---------------------------------------------------------------------------------------------------


def open_export(path: Path) -> tuple[Path, dict]:
    """Check an export, without loading the model.

    Args:
        path: its model's file, its folder, or the folder of its versions, of which the highest is taken.

    Returns:
        The model's file, and what the card says.

    Raises:
        ConfigError: there is none, or a file is another than when it was written.
    """
    folder = path.parent if path.is_file() else _newest(path)
    check(folder)
    names = [path.name] if path.is_file() else [SAVED_MODEL, LITERT, ONNX]
    found = [name for name in names if name in (SAVED_MODEL, LITERT, ONNX) and (folder / name).is_file()]
    if not found:
        raise ConfigError(f"{path} is no model; give one of {SAVED_MODEL}, {LITERT} and {ONNX}, or its folder")
    return folder / found[0], json.loads((folder / _CARD).read_text(encoding="utf-8"))


def digest(folder: Path) -> str:
    """Another one when any file of the export is another; of one that was checked."""
    return _sum(folder / _SUMS)


def find_versions(base: Path) -> list[Path]:
    """The folders of all versions in `base`, the highest first. A link that leads out of it is none of them."""
    if not base.is_dir():
        return []
    inside = base.resolve()
    found = [path for path in base.iterdir() if re.fullmatch("[0-9]{1,18}", path.name) and path.is_dir()]
    found = [path for path in found if path.resolve().is_relative_to(inside)]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def check(folder: Path) -> None:
    """Compare all files of a version with its sums. A SavedModel can hold code, so this comes before it is loaded.

    Raises:
        ConfigError: a file was changed, added or lost, or the folder is none of ours.
    """
    try:
        wrong = _first_wrong(folder)
    except (OSError, ValueError):
        wrong = _SUMS
    if wrong:
        raise ConfigError(
            f"{folder} is no export of ddk, or was changed since ({wrong}); make another with: ddk export"
        )


def _newest(base: Path) -> Path:
    versions = [] if (base / _CARD).is_file() else find_versions(base)
    return versions[0] if versions else base


def _first_wrong(folder: Path) -> str | None:
    """The name of a file that is not as its sum says, or is there without one, or missing."""
    lines = (folder / _SUMS).read_text(encoding="utf-8").splitlines()
    sums = dict(reversed(line.split("  ", 1)) for line in lines)
    there = _files(folder)
    # What is there without a sum could be read by the model as well: weights, or data beside a graph.
    if unpaired := sorted({_CARD, *sums} ^ {*there}):
        return unpaired[0]
    return next((name for name, path in there.items() if _sum(path) != sums[name]), None)


# --- both ------------------------------------------------------------------------------------------------------


def _files(folder: Path) -> dict[str, Path]:
    """All but the sums, by their place in the folder."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in found.items() if name != _SUMS}


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
