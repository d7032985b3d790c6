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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddkeras.errors import ConfigError
from ddkeras.runs import Run, package_versions
from ddkeras.wording import INTENDED_USE, LIMITS_OF_USE
from pipelines import atomic
from pipelines.examples import LABELS

SAVED_MODEL, LITERT, ONNX = (
    "saved_model.pb",
    "model.tflite",
    "model.onnx",
)  # by which file an export is of that format
_CARD, _SUMS = "model_card.json", "SHA256SUMS"
_MEASURED = ("auc", "average_precision", "log_loss", "calibration_error", "coverage", "risk")


# --- writing ---------------------------------------------------------------------------------------------------


def next_version(base: Path) -> Path:
    """The folder of the version after the highest in `base`."""
    return base / str(max(_versions(base), default=0) + 1)


@contextmanager
def written(final: Path, run: Run, *, model: str, described: dict) -> Iterator[Path]:
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
    names = [path.name] if path.is_file() else [SAVED_MODEL, LITERT, ONNX]
    model = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    if reason := _objection(folder, model):
        raise ConfigError(f"{path} is no export of ddk, or was changed since: {reason}; make one with: ddk export")
    return model, json.loads((folder / _CARD).read_text(encoding="utf-8"))


def _newest(base: Path) -> Path:
    versions = [] if (base / _CARD).is_file() else _versions(base)
    return base / str(max(versions)) if versions else base


def _objection(folder: Path, model: Path) -> str | None:
    """Why the folder is not as it was written, in a few words; None where it is."""
    for path in (folder / _CARD, folder / _SUMS):
        if not path.is_file():
            return f"there is no {path}"
    listed = {}
    for line in (folder / _SUMS).read_text(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    files = _files(folder)
    # What is there and not listed could be read by the model as well: weights, or data beside a graph.
    if odd := sorted(set(listed) ^ set(files)):
        return f"{_SUMS} and what is there differ in {odd[0]}"
    if model.name not in (SAVED_MODEL, LITERT, ONNX) or model.name not in listed:
        return f"{model.name} is no model of it"
    changed = [name for name, path in files.items() if _sum(path) != listed[name]]
    return f"{changed[0]} has another sum than {_SUMS} says" if changed else None


# --- both ------------------------------------------------------------------------------------------------------


def _versions(base: Path) -> list[int]:
    return [int(path.name) for path in base.glob("*") if path.name.isdigit()]


def _files(folder: Path) -> dict[str, Path]:
    """All but the sums, by their place in the folder."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in found.items() if name != _SUMS}


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
