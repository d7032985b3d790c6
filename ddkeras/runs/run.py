"""Runs: one folder per trained detector, with everything needed to use it.

artifacts/runs/xception-20260131-120000/
    recipe.yaml     how it was trained
    run.json        labels, categories, fingerprint of the records, skipped records, parameters, package versions,
                    a digest of the recipe and, once the training is finished, the SHA-256 of model.keras
    model.keras     the weights of the best epoch on validation
    operating_point.json    calibration and thresholds, fitted on validation
    history.csv     one row per epoch; see `training.monitor` for log.txt, status.json and tensorboard/
    checkpoint.npz  only while unfinished: the state to resume from
    evaluation/     results of `ddk evaluate`
artifacts/runs/latest -> the newest run that has a model
"""

import dataclasses
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pandas as pd

from ddkeras.config import Recipe, load_recipe, recipe_fields
from ddkeras.exceptions import ConfigError, DivergedError
from ddkeras.metrics.calibration import OperatingPoint
from ddkeras.models.detector import scoring_model
from ddkeras.runs.checkpoint import CHECKPOINT
from ddkeras.runs.detector import Cost
from ddkeras.runs.json_files import of_type, read_json, texts
from pipelines import atomic
from pipelines.datasets.examples import LABELS
from pipelines.records.store import Records
from pipelines.views import Squash, View, Windows

LATEST = "latest"
MODEL = "model.keras"
ENSEMBLE = "ensemble.json"  # see `ensemble`
MODEL_CARD = "model_card.json"  # of an export, see `ddkeras.exporting.bundle`
EVALUATION = "evaluation"  # has a folder per evaluated split
# Checkpoint-selection metrics: the column of the history, and whether higher is better.
CRITERIA = {
    "loss": ("val_loss", False),
    "accuracy": ("val_authenticity_accuracy", True),
    "auc": ("val_authenticity_auc", True),
}
_POINT, _METADATA, _RECIPE = "operating_point.json", "run.json", "recipe.yaml"
# What `zipfile` raises where the checksum of a member, or the directory of the archive, is wrong.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Run:
    """A run folder and its metadata; see `new_run`, `open_run`.

    Args:
        folder: the run folder.
        recipe: how it was trained.
        categories: class names of the category head, in the order of its outputs; empty without that head.
        fingerprint: of the records it was trained on.
        point: calibration and thresholds.
        parameters: number of parameters; None in a run of an early version.
        model_sha256: of model.keras; empty in a run of an early version, and until the training is finished.
    """

    folder: Path
    recipe: Recipe
    categories: list[str]
    fingerprint: str
    point: OperatingPoint
    parameters: int | None = None
    model_sha256: str = field(default="", compare=False)
    unfitted: ClassVar[str] = (
        "no operating point was fitted, as validation has images of only one label: the threshold is 0.5"
    )

    @property
    def name(self) -> str:
        """The name of the folder, also when opened through `latest`."""
        return self.folder.resolve().name

    @property
    def model_path(self) -> Path:
        """The model of the best epoch."""
        return self.folder / MODEL

    @property
    def hold_out(self) -> str:
        """The source it was trained without, or an empty string."""
        return self.recipe.hold_out

    @property
    def min_side(self) -> int:
        """Images with fewer pixels on their shorter side get the verdict unsure."""
        return self.recipe.min_side

    def describe(self) -> dict[str, Any]:
        """Its identity, JSON-ready, to be stored with its results."""
        return {"run": self.name, "recipe": dataclasses.asdict(self.recipe)}

    def digest(self) -> str:
        """A hash of everything its scores and verdicts depend on."""
        files = [self.model_path, self.folder / _POINT, self.folder / _RECIPE]
        total = hashlib.sha256()
        for file in files:
            total.update(file.read_bytes() if file.is_file() else b"")
        return total.hexdigest()

    def history(self) -> pd.DataFrame:
        """One row per epoch: `epoch` from 1, losses and metrics, those on validation prefixed with `val_`.

        Raises:
            ConfigError: the file is damaged.
        """
        path = self.folder / "history.csv"
        try:
            table = pd.read_csv(path)
            if table.empty or not all(map(pd.api.types.is_numeric_dtype, table.dtypes)):
                raise ValueError("no epochs")
        except ValueError as error:  # all of pandas' own are
            raise ConfigError(f"{path} is damaged; train again: ddk fit") from error
        table["epoch"] += 1 - table["epoch"].iloc[0]  # until 0.2.0 it was counted from 0
        return table

    def best_epoch(self) -> dict[str, int | float]:
        """The `best_epoch` from 1, the number of `epochs`, and the best epoch's `val_loss` and selection metric."""
        history, (column, more_is_better) = self.history(), CRITERIA[self.recipe.keep]
        values = history[column].to_numpy()
        best = history.iloc[int(np.nanargmax(values) if more_is_better else np.nanargmin(values))]
        epoch = {"best_epoch": int(best["epoch"]), "epochs": len(history)}
        return {**epoch, **{name: float(best[name]) for name in {"val_loss", column}}}

    def cost(self) -> Cost:
        """What it took to make."""
        status = self.folder / "status.json"
        seconds = None
        if status.is_file():
            seconds = read_json(status, lambda content: of_type(content["seconds"], float), remedy=f"remove {status}")
        return {"parameters": self.parameters, "seconds_of_training": seconds}

    @property
    def view(self) -> View:
        """How it sees an image to score it."""
        return view_of(self.recipe)

    def load_model(self) -> keras.Model:
        """The trained network, from RGB in 0..255 to the logits of its heads; see `detector.build_model`.

        Raises:
            ConfigError: the model is damaged, has weights that are not finite, or contains code, which is never run:
                it may come from elsewhere.
        """
        model = _load_keras(self.model_path, self.model_sha256)
        if not all(np.isfinite(weights).all() for weights in model.get_weights()):
            raise ConfigError(f"{self.model_path} has weights that are not finite numbers; train again: ddk fit")
        return model

    def load_scorer(self, model: keras.Model | None = None) -> keras.Model:
        """The trained network, from RGB in 0..255 to probabilities and verdicts; see `detector.scoring_model`.

        Args:
            model: the result of `load_model`, if already loaded.

        Raises:
            ConfigError: see `load_model`.
        """
        return scoring_model(
            model or self.load_model(), self.point, self.categories, mirrored=self.recipe.test_augment == "flip"
        )

    def with_operating_point(self, point: OperatingPoint) -> "Run":
        """The same run with another operating point, which is stored."""
        with atomic.file(self.folder / _POINT) as partial_file:
            partial_file.write_text(json.dumps(point.to_dict(), indent=2) + "\n")
        return replace(self, point=point)


def view_of(recipe: Recipe) -> View:
    """How a network of that recipe, whose view is not `auto`, sees an image to score it."""
    if recipe.view == "windows":
        return Windows(recipe.image_size, recipe.windows, recipe.category_view == "squash")
    return Squash(recipe.image_size)


def has_attention(recipe: Recipe) -> bool:
    """Whether a network of that recipe learns how much each window counts."""
    return recipe.view == "windows" and recipe.aggregate == "attention"


def squares_per_image(recipe: Recipe) -> int:
    """The number of squares that a network sees of each image of a training batch."""
    return recipe.windows_per_image + (recipe.category_view == "squash") if recipe.view == "windows" else 1


@contextmanager
def new_run(runs: Path, recipe: Recipe, records: Records, parameters: int) -> Iterator[Run]:
    """Create a run to be trained in this context; its folder is named after the backbone and the time.

    On exit, `latest` points to the run if it has a model and has not diverged. Its folder is removed if it has
    neither a model nor a checkpoint.

    Args:
        runs: the parent folder.
        recipe: how it is trained.
        records: the data.
        parameters: number of parameters of the network.
    """
    _clear_killed(runs)
    folder = _new_folder(runs, f"{recipe.backbone}-{datetime.now():%Y%m%d-%H%M%S}")
    categories = [] if recipe.category_weight == 0 else records.categories
    run = Run(folder, recipe, categories, records.fingerprint, OperatingPoint(), parameters)
    with locked(run):
        _write_metadata(run, records)
        yield run


@contextmanager
def locked(run: Run) -> Iterator[Run]:
    """Lock an unfinished run to train it in this context, which ends like that of `new_run`.

    Raises:
        ConfigError: another process is training it.
    """
    lock = open(run.folder / "lock", "w")  # noqa: SIM115  closed, which unlocks it, on exit or by the system
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise ConfigError(f"{run.folder} is being trained by another process; wait for it, or stop it") from error
    is_usable = True
    try:
        yield run
    except DivergedError:
        is_usable = False
        raise
    finally:
        (run.folder / "lock").unlink()
        lock.close()
        is_finished = not (run.folder / CHECKPOINT).is_file()
        if run.model_path.is_file():
            if is_finished:
                _record_digest(run)
            if is_usable:
                atomic.link(run.folder.parent / LATEST, run.folder.name)
        elif is_finished:
            shutil.rmtree(run.folder, ignore_errors=True)


def open_unfinished(folder: str | os.PathLike, records: Records) -> Run:
    """Open the unfinished run in `folder`, or the newest one in its subfolders.

    Raises:
        ConfigError: there is none, it was trained on other records, or its recipe has been changed.
    """
    folder = Path(folder)
    unfinished = [path.parent for path in folder.glob(f"*/{CHECKPOINT}") if not path.parent.is_symlink()]
    if (folder / CHECKPOINT).is_file():
        unfinished = [folder]
    if not unfinished:
        raise ConfigError(f"there is no unfinished training in {folder}; start one with: ddk fit")
    run = _read(max(unfinished, key=lambda path: (path / CHECKPOINT).stat().st_mtime))
    if run.fingerprint != records.fingerprint:
        raise ConfigError(
            f"{run.folder} was trained on other records than those in {records.folder}; give them: --records"
        )
    return run


def copy_run(run: Run, folder: Path) -> Run:
    """Copy a run into `folder`, for a worker that must not write to the chief's."""
    shutil.copytree(run.folder, folder / run.name, ignore=shutil.ignore_patterns("lock"))
    return replace(run, folder=folder / run.name)


def open_run(path: str | os.PathLike) -> Run:
    """Open a trained run.

    Args:
        path: its folder, its model.keras, or the `latest` link.

    Raises:
        ConfigError: there is no trained run, but perhaps an export or an ensemble; one of its files is damaged; or
            its recipe has been changed.
    """
    folder = Path(path).parent if Path(path).name == MODEL else Path(path)
    if (folder / ENSEMBLE).is_file():
        raise ConfigError(f"{folder} is an ensemble; give one of its runs")
    if not all((folder / name).is_file() for name in (MODEL, _METADATA, _RECIPE)):
        if exported := _exported_run(Path(path)):
            raise ConfigError(f"{path} is an export; give the folder of the run that it was made from, {exported}")
        raise ConfigError(f"there is no trained run in {folder}; train one with: ddk fit")
    return _read(folder)


def _read(folder: Path) -> Run:
    (recipe, fields), point = load_recipe(folder / _RECIPE), OperatingPoint()
    remedy = "restore it from a copy, or train again: ddk fit"
    metadata = read_json(folder / _METADATA, _parse_metadata, remedy=remedy)
    _check_recipe(folder / _RECIPE, fields, metadata.pop("recipe_sha256"))
    if (folder / _POINT).is_file():
        remedy = "remove it, then fit it again: ddk evaluate --false-alarms 0.01"
        point = read_json(folder / _POINT, OperatingPoint.from_dict, remedy=remedy)
    return Run(folder=folder, recipe=recipe, point=point, **metadata)


def _exported_run(path: Path) -> str:
    """The name of the run that an export was made from; empty if the path is not that of an export.

    Args:
        path: of its model file, its folder, or the folder of its versions.
    """
    folder = path.parent if path.is_file() else path
    card = next((file for file in (folder / MODEL_CARD, *folder.glob(f"*/{MODEL_CARD}")) if file.is_file()), None)
    if not card:
        return ""
    return read_json(card, lambda content: of_type(content["name"], str), remedy="export the run again: ddk export")


def _parse_metadata(content: Any) -> dict[str, Any]:
    parameters = content.get("parameters")
    return {
        "categories": texts(content["categories"]),
        "fingerprint": of_type(content["records"], str),
        "parameters": None if parameters is None else of_type(parameters, int),
        "recipe_sha256": of_type(content.get("recipe_sha256", ""), str),  # until 0.2.0 there were no digests
        "model_sha256": of_type(content.get("model_sha256", ""), str),
    }


def _check_recipe(path: Path, fields: dict[str, Any], sha256: str) -> None:
    if sha256 and _recipe_sha256(fields) != sha256:
        raise ConfigError(
            f"{path} is not the recipe that the run was trained with: its digest is not that in {_METADATA}; undo "
            f"the changes, or train a run with them: ddk fit --recipe {path}"
        )


def _recipe_sha256(fields: dict[str, Any]) -> str:
    """The SHA-256 of what a recipe file says, whatever its comments and the ends of its lines."""
    return hashlib.sha256(json.dumps(fields, default=str).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_keras(path: Path, sha256: str) -> keras.Model:
    if sha256 and file_sha256(path) != sha256:
        raise ConfigError(
            f"{path} is damaged, or is not the file that the training wrote: its SHA-256 is not that in {_METADATA}; "
            "restore it from a copy, or train again: ddk fit"
        )
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError, OSError, *_ZIP_ERRORS) as error:
        reason = str(error).partition(". ")[0]
        raise ConfigError(
            f"{path} cannot be loaded, as it contains code, such as a Lambda layer, or is damaged; train a run with: "
            f"ddk fit ({reason})"
        ) from error


def package_versions() -> dict[str, str]:
    """The versions of the packages that results depend on."""
    return {package: importlib.metadata.version(package) for package in ("ddkeras", "keras", "tensorflow", "numpy")}


def _write_metadata(run: Run, records: Records) -> None:
    (run.folder / _RECIPE).write_text(run.recipe.to_yaml())
    metadata = {
        "labels": list(LABELS),
        "categories": run.categories,
        "records": run.fingerprint,
        "skipped_records": records.skipped,
        "parameters": run.parameters,
        "recipe_sha256": _recipe_sha256(recipe_fields(str(run.folder / _RECIPE))),
        "versions": package_versions(),
    }
    (run.folder / _METADATA).write_text(json.dumps(metadata, indent=2) + "\n")


def _record_digest(run: Run) -> None:
    """Add the digest of the model, which no longer changes, to the metadata."""
    path = run.folder / _METADATA
    metadata = json.loads(path.read_text()) | {"model_sha256": file_sha256(run.model_path)}
    with atomic.file(path) as partial_file:
        partial_file.write_text(json.dumps(metadata, indent=2) + "\n")


def _clear_killed(runs: Path) -> None:
    """Delete the runs of trainings that were killed before they had a model or a checkpoint."""
    for path in runs.glob("*/lock"):
        folder = path.parent
        if folder.is_symlink() or any((folder / name).exists() for name in (MODEL, CHECKPOINT)):
            continue
        # A training writes the metadata once it holds the lock, so one that is starting is never taken for killed.
        if (folder / _METADATA).is_file():
            with open(path) as lock, suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


def _new_folder(runs: Path, stem: str) -> Path:
    runs.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1000):
        folder = runs / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue  # another run was started within the same second
        return folder
    raise ConfigError(f"{runs} already has a thousand runs named {stem}")
