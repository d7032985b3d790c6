"""Runs: one folder per trained detector, holding all that is needed to use it.

artifacts/runs/xception-20260131-120000/
    recipe.yaml     how it was trained
    run.json        labels, categories, the records' fingerprint and what was skipped, parameters, package versions
    model.keras     the weights of the best epoch on validation
    operating_point.json    how its logits become probabilities and verdicts, fitted on validation
    history.csv     one row per epoch; log.txt, status.json and tensorboard/ say more
    checkpoint.npz  while it is unfinished: all that is needed to go on
    evaluation/     what `ddk evaluate` measured
artifacts/runs/latest -> the newest run that has a model
"""

import dataclasses
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import keras
import pandas as pd

from ddkeras.config import Recipe
from ddkeras.exceptions import ConfigError
from ddkeras.metrics.calibration import OperatingPoint
from ddkeras.models.detector import scoring_model
from ddkeras.runs.checkpoint import NAME
from pipelines import atomic
from pipelines.datasets.examples import LABELS
from pipelines.records.store import Records

LATEST = "latest"
MODEL = "model.keras"
ENSEMBLE = "ensemble.json"  # of several runs, see `ensembles`
EVALUATION = "evaluation"  # a folder for each split that was measured
# By what an epoch is better than another: the column of the history, and whether more is better.
CRITERIA = {
    "loss": ("val_loss", False),
    "accuracy": ("val_authenticity_accuracy", True),
    "auc": ("val_authenticity_auc", True),
}
_POINT = "operating_point.json"


@dataclass(frozen=True)
class Run:
    """One run folder and what its `run.json` says; see `new_run`, `open_run`."""

    folder: Path
    recipe: Recipe
    categories: list[str]
    fingerprint: str
    point: OperatingPoint
    parameters: int | None = None  # numbers that the network has; None in a run of long ago
    unfitted: ClassVar[str] = (  # what to know of it as long as its point is not fitted
        "no operating point was fitted, as validation has images of one label alone: 0.5 is the limit"
    )

    @property
    def name(self) -> str:
        """The folder's own name, also when it was reached through `latest`."""
        return self.folder.resolve().name

    @property
    def model_path(self) -> Path:
        """Where the model with the best validation loss lies."""
        return self.folder / MODEL

    @property
    def hold_out(self) -> str | None:
        """The source that it was trained without, if there is one."""
        return self.recipe.hold_out

    def described(self) -> dict:
        """What numbers are to be kept with."""
        return {"run": self.name, "recipe": dataclasses.asdict(self.recipe)}

    def digest(self) -> str:
        """Another one when the network, or what makes probabilities and verdicts of its logits, is another."""
        files = [self.model_path, self.folder / _POINT, self.folder / "recipe.yaml"]
        total = hashlib.sha256()
        for file in files:
            total.update(file.read_bytes() if file.is_file() else b"")
        return total.hexdigest()

    def history(self) -> pd.DataFrame:
        """One row per epoch: `epoch` from 0, and each loss and accuracy, those on validation with `val_` in front."""
        return pd.read_csv(self.folder / "history.csv")

    def best_epoch(self) -> dict:
        """The epoch whose weights were kept, from 1, what it was chosen by, and how many epochs there were."""
        history, (column, more_is_better) = self.history(), CRITERIA[self.recipe.keep]
        best = history[column].idxmax() if more_is_better else history[column].idxmin()
        epoch = {"best_epoch": int(history["epoch"][best]) + 1, "epochs": len(history)}
        return {**epoch, **{name: float(history[name][best]) for name in {"val_loss", column}}}

    def cost(self) -> dict:
        """How large the network is and how long it was trained, since it was last taken up; None where unknown."""
        status = self.folder / "status.json"
        seconds = json.loads(status.read_text())["seconds"] if status.is_file() else None
        return {"parameters": self.parameters, "seconds_of_training": seconds}

    def load_model(self) -> keras.Model:
        """The trained network, from RGB in 0..255 to the logits of its heads; see `model.build_model`.

        Raises:
            ConfigError: the model is damaged, or holds code, which a file from elsewhere may do and which is not run.
        """
        return _loaded(self.model_path)

    def load_scorer(self, model: keras.Model | None = None) -> keras.Model:
        """The trained network, from RGB in 0..255 to probabilities and verdicts; see `model.scoring_model`.

        Args:
            model: what `load_model` gave, where it is at hand.

        Raises:
            ConfigError: as `load_model`.
        """
        return scoring_model(
            model or self.load_model(), self.point, self.categories, mirrored=self.recipe.test_augment == "flip"
        )

    def with_operating_point(self, point: OperatingPoint) -> "Run":
        """The run with that operating point, from now on."""
        with atomic.file(self.folder / _POINT) as partial:
            partial.write_text(json.dumps(point.to_dict(), indent=2) + "\n")
        return replace(self, point=point)


@contextmanager
def new_run(runs: Path, recipe: Recipe, records: Records, parameters: int) -> Iterator[Run]:
    """Yield a new run, its folder named after its backbone and the time, to be trained in the block.

    When the block ends, however it does, `latest` points at the run if it has a model. Its folder goes if there is
    neither that nor a checkpoint.
    """
    folder = _new_folder(runs, f"{recipe.backbone}-{datetime.now():%Y%m%d-%H%M%S}")
    categories = [] if recipe.category_weight == 0 else records.categories
    run = Run(folder, recipe, categories, records.fingerprint, OperatingPoint(), parameters)
    with taken_up(run):
        _describe(run, records)
        yield run


@contextmanager
def taken_up(run: Run) -> Iterator[Run]:
    """Yield an unfinished run to be trained further in the block, which ends as that of `new_run`.

    Raises:
        ConfigError: another process trains it.
    """
    lock = open(run.folder / "lock", "w")  # noqa: SIM115  closed, and so unlocked, at the end, or by the system
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise ConfigError(f"{run.folder} is being trained by another process; wait for it, or stop it") from error
    try:
        yield run
    finally:
        (run.folder / "lock").unlink()
        lock.close()
        if run.model_path.is_file():
            atomic.link(run.folder.parent / LATEST, run.folder.name)
        elif not (run.folder / NAME).is_file():
            shutil.rmtree(run.folder, ignore_errors=True)


def open_unfinished(folder: str | os.PathLike, records: Records) -> Run:
    """Open the run in `folder`, or the newest of those in it, that has a checkpoint.

    Raises:
        ConfigError: there is none, or it was begun on other records.
    """
    folder = Path(folder)
    found = [path.parent for path in folder.glob(f"*/{NAME}") if not path.parent.is_symlink()]
    if (folder / NAME).is_file():
        found = [folder]
    if not found:
        raise ConfigError(f"there is no unfinished training in {folder}; begin one with: ddk fit")
    run = _read(max(found, key=lambda path: (path / NAME).stat().st_mtime))
    if run.fingerprint != records.fingerprint:
        raise ConfigError(
            f"{run.folder} was begun on other records than those in {records.folder}; give them: --records"
        )
    return run


def copied(run: Run, folder: Path) -> Run:
    """The same run in another folder, for a worker that is not to write where the chief does."""
    shutil.copytree(run.folder, folder / run.name, ignore=shutil.ignore_patterns("lock"))
    return replace(run, folder=folder / run.name)


def open_run(folder: str | os.PathLike) -> Run:
    """Open a run folder, or what `latest` points at.

    Raises:
        ConfigError: there is no trained model in `folder`, or what lies beside it is damaged.
    """
    folder = Path(folder)
    if (folder / ENSEMBLE).is_file():
        raise ConfigError(f"{folder} is an ensemble; this takes one of its runs")
    if not all((folder / name).is_file() for name in (MODEL, "run.json", "recipe.yaml")):
        raise ConfigError(f"there is no trained run in {folder}; train one with: ddk fit")
    return _read(folder)


def run_at(path: Path) -> Run:
    """The same by a run's folder or its model.keras."""
    return open_run(path.parent if path.name == MODEL else path)


def _read(folder: Path) -> Run:
    recipe, point, fitted = Recipe.load(folder / "recipe.yaml"), folder / _POINT, OperatingPoint()
    with intact(folder / "run.json", "train again: ddk fit"):
        described = json.loads((folder / "run.json").read_text())
        known = described["categories"], described["records"]
    if point.is_file():
        with intact(point, "remove it, then fit it anew: ddk evaluate --false-alarms 0.01"):
            fitted = OperatingPoint.from_dict(json.loads(point.read_text()))
    return Run(folder, recipe, *known, fitted, described.get("parameters"))


@contextmanager
def intact(path: Path, remedy: str) -> Iterator[None]:
    """In the block a file of JSON is read.

    Raises:
        ConfigError: it holds something else, or lacks something; the message ends with the remedy.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # no JSON, or another
        raise ConfigError(f"{path} is damaged; {remedy}") from error


def _loaded(path: Path) -> keras.Model:
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError, OSError) as error:
        why = str(error).partition(". ")[0]
        raise ConfigError(
            f"{path} cannot be loaded, as it holds code, such as a Lambda layer, or is damaged; train a run with: "
            f"ddk fit ({why})"
        ) from error


def package_versions() -> dict[str, str]:
    """The versions that numbers depend on."""
    return {package: importlib.metadata.version(package) for package in ("ddkeras", "keras", "tensorflow", "numpy")}


def _describe(run: Run, records: Records) -> None:
    (run.folder / "recipe.yaml").write_text(run.recipe.to_yaml())
    described = {
        "labels": list(LABELS),
        "categories": run.categories,
        "records": run.fingerprint,
        "skipped_records": records.skipped,
        "parameters": run.parameters,
        "versions": package_versions(),
    }
    (run.folder / "run.json").write_text(json.dumps(described, indent=2) + "\n")


def _new_folder(runs: Path, stem: str) -> Path:
    runs.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1000):
        folder = runs / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue  # another run began within the same second
        return folder
    raise ConfigError(f"{runs} already holds {stem} a thousand times")
