"""The folder of an export: a model and everything needed to use it, with checksums that are verified before use.

artifacts/export/<run>/<version>/, or <run>-<format>/<version>/ for LiteRT and ONNX
    saved_model.pb, model.tflite or model.onnx
    labels.txt          the categories, one per line, in the order of `category_probabilities`
    model_card.json     what the model is, how it was trained, how well it performs, and its limits
    SHA256SUMS          checksums of all other files; verify them with: sha256sum -c SHA256SUMS
"""

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddkeras.config import Recipe
from ddkeras.exceptions import ConfigError
from ddkeras.metrics.calibration import OperatingPoint
from ddkeras.reporting.model_card import INTENDED_USE, LIMITS_OF_USE
from ddkeras.runs.json_files import of_type, read_json, texts
from ddkeras.runs.run import MODEL_CARD, Run, file_sha256, has_attention, package_versions
from pipelines import atomic
from pipelines.datasets.examples import LABELS
from pipelines.views import Squash, View, Windows

MODEL_FILES = SAVED_MODEL, LITERT, ONNX = "saved_model.pb", "model.tflite", "model.onnx"  # an export has one
_SUMS = "SHA256SUMS"
_METRICS = ("auc", "average_precision", "log_loss", "calibration_error", "coverage", "risk")


# --- writing ---------------------------------------------------------------------------------------------------


def write_bundle(base: Path, run: Run, *, details: dict[str, Any], write: Callable[[Path], None]) -> Path:
    """Write the model of `run` to the next version in `base`, which appears when it is complete.

    Args:
        base: the folder of its versions.
        details: added to the model card, such as `format`, `inputs` and `outputs`.
        write: writes the model into the folder that it is given.

    Returns:
        The version's folder.
    """

    def fill(folder: Path) -> None:
        write(folder)
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in run.categories), encoding="utf-8")
        card = json.dumps(_model_card(run, details), indent=2)
        (folder / MODEL_CARD).write_text(card + "\n", encoding="utf-8")
        lines = [f"{file_sha256(path)}  {name}\n" for name, path in sorted(_files(folder).items())]
        (folder / _SUMS).write_text("".join(lines))

    return atomic.numbered_folder(base, fill)


def select_outputs(descriptions: dict[str, str], run: Run) -> dict[str, str]:
    """The descriptions of those outputs that the model of `run` has."""
    lacking = ("category",) * (not run.categories) + ("attention",) * (not has_attention(run.recipe))
    return {name: text for name, text in descriptions.items() if not name.startswith(lacking)}


def _model_card(run: Run, details: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": run.name,
        "intended_use": INTENDED_USE,
        "limits_of_use": list(LIMITS_OF_USE),
        **details,
        "image_size": run.recipe.image_size,
        "labels": list(LABELS),
        "categories": run.categories,
        "operating_point": run.point.to_dict(),
        "measured": {
            path.parent.name: _key_metrics(path) for path in sorted(run.folder.glob("evaluation/*/metrics.json"))
        },
        "records": run.fingerprint,
        "recipe": dataclasses.asdict(run.recipe),
        **run.cost(),
        "versions": package_versions(),
    }


def _key_metrics(path: Path) -> dict[str, Any]:
    """The most important metrics of a split; its report has all."""

    def parse(metrics: dict[str, Any]) -> dict[str, Any]:
        authenticity = metrics["authenticity"]
        point = authenticity["at_operating_point"]
        return {
            "records": metrics["records"],
            "examples": metrics["examples"],
            **{name: authenticity[name] for name in _METRICS},
            **{name: point[name] for name in ("false_positive_rate", "recall")},
            "bias_probe": metrics.get("bias_probe", {}).get("verdict"),
            "notes": metrics["notes"],
        }

    return read_json(path, parse, remedy=f"remove {path.parent}, or evaluate again: ddk evaluate")


# --- opening ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelCard:
    """What scoring needs to know of an export.

    Args:
        name: of the run it was made from.
        view: how it sees images.
        aggregate: how the logits of windows become that of an image.
        batch: the batch size of the training.
        categories: class names, in the order of the outputs; empty without a category head.
        min_side: shorter side in pixels below which an image's verdict is unsure.
        point: calibration and thresholds.
    """

    name: str
    view: View
    aggregate: str
    batch: int
    categories: list[str]
    min_side: int
    point: OperatingPoint


def open_export(path: Path) -> tuple[Path, ModelCard]:
    """Verify an export, without loading its model.

    Args:
        path: a model file, the folder of an export, or a folder of versions, of which the highest is used.

    Returns:
        The model file, and the model card.

    Raises:
        ConfigError: there is no export, a file was changed since it was written, or see `read_card`.
    """
    folder = path.parent if path.is_file() else _highest_version(path)
    verify(folder)
    candidates = [path.name] if path.is_file() else MODEL_FILES
    for name in candidates:
        if name in MODEL_FILES and (folder / name).is_file():
            return folder / name, read_card(folder)
    raise ConfigError(f"{path} is not a model; give one of {SAVED_MODEL}, {LITERT} and {ONNX}, or its folder")


def read_card(folder: Path) -> ModelCard:
    """The model card of a verified export.

    Raises:
        ConfigError: a field is missing or wrong.
    """

    def parse(content: dict[str, Any]) -> ModelCard:
        return ModelCard(
            name=of_type(content["name"], str),
            view=_view(content),
            aggregate=of_type(content["recipe"].get("aggregate", Recipe.aggregate), str),
            batch=_positive(content["recipe"]["batch"]),
            min_side=of_type(content["recipe"].get("min_side", Recipe.min_side), int),  # exports of 0.2.0 have none
            categories=texts(content["categories"]),
            point=OperatingPoint.from_dict(content["operating_point"]),
        )

    return read_json(folder / MODEL_CARD, parse, remedy="export the run again: ddk export")


def _view(content: dict[str, Any]) -> View:
    recipe = content["recipe"]  # exports of 0.2.0 have none of the fields of windows
    size = _positive(content["image_size"])
    if of_type(recipe.get("view", "squash"), str) == "windows":
        return Windows(size, _positive(recipe["windows"]), recipe["category_view"] == "squash")
    return Squash(size)


def _positive(value: Any) -> int:
    if of_type(value, int) < 1:
        raise ValueError(f"{value} is not above 0")
    return value


def digest(folder: Path) -> str:
    """A fingerprint of all files of a verified export."""
    return file_sha256(folder / _SUMS)


def find_versions(base: Path) -> list[Path]:
    """The folders of all versions in `base`, the highest first. Links that lead out of `base` are ignored."""
    if not base.is_dir():
        return []
    resolved = base.resolve()
    versions = [
        path
        for path in base.iterdir()
        if re.fullmatch("[0-9]{1,18}", path.name) and path.is_dir() and path.resolve().is_relative_to(resolved)
    ]
    return sorted(versions, key=lambda path: int(path.name), reverse=True)


def verify(folder: Path) -> None:
    """Verify the checksums of all files of a version. A SavedModel can contain code, so do this before loading it.

    Raises:
        ConfigError: a file was changed, added or removed, or the folder is not an export of ddk.
    """
    try:
        mismatch = _first_mismatch(folder)
    except (OSError, ValueError):
        mismatch = _SUMS
    if mismatch:
        raise ConfigError(
            f"{folder} is not an export of ddk, or was changed since ({mismatch}); make another with: ddk export"
        )


def _highest_version(base: Path) -> Path:
    versions = [] if (base / MODEL_CARD).is_file() else find_versions(base)
    return versions[0] if versions else base


def _first_mismatch(folder: Path) -> str | None:
    """The name of a file that is missing, has no checksum, or does not match it."""
    sums: dict[str, str] = {}
    for line in (folder / _SUMS).read_text(encoding="utf-8").splitlines():
        expected, name = line.split("  ", 1)
        sums[name] = expected
    files = _files(folder)
    # Also additional files: the model could read them, as weights or as data beside a graph.
    if unpaired := sorted({MODEL_CARD, *sums} ^ {*files}):
        return unpaired[0]
    return next((name for name, path in files.items() if file_sha256(path) != sums[name]), None)


# --- both ------------------------------------------------------------------------------------------------------


def _files(folder: Path) -> dict[str, Path]:
    """All files but the checksums, by their path in the folder."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in files.items() if name != _SUMS}
