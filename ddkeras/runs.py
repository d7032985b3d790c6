"""Runs: one folder per trained detector, holding all that is needed to use it.

artifacts/runs/xception-20260131-120000/
    recipe.yaml     how it was trained
    run.json        labels, categories, threshold, the records' fingerprint and what was skipped, package versions
    model.keras     the weights with the best validation loss
    history.csv     one row per epoch
    evaluation/     what `ddk evaluate` measured
artifacts/runs/latest -> the newest finished run
"""

import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import keras
import pandas as pd

from ddkeras.config import Recipe
from ddkeras.devices import xla_pays
from ddkeras.errors import ConfigError
from ddkeras.model import scoring_model
from pipelines import atomic
from pipelines.examples import LABELS
from pipelines.records import Records

LATEST = "latest"
THRESHOLD = 0.5  # a fake probability from here on is called fake


@dataclass(frozen=True)
class Run:
    """One run folder and what its `run.json` says; see `new_run`, `open_run`."""

    folder: Path
    recipe: Recipe
    categories: list[str]
    threshold: float
    fingerprint: str

    @property
    def name(self) -> str:
        """The folder's own name, also when it was reached through `latest`."""
        return self.folder.resolve().name

    @property
    def model_path(self) -> Path:
        """Where the model with the best validation loss lies."""
        return self.folder / "model.keras"

    def history(self) -> pd.DataFrame:
        """One row per epoch: `epoch` from 0, and each loss and accuracy, those on validation with `val_` in front."""
        return pd.read_csv(self.folder / "history.csv")

    def best_epoch(self) -> dict:
        """The epoch whose weights were kept, from 1, its validation loss, and how many epochs there were."""
        history = self.history()
        best = history.loc[history["val_loss"].idxmin()]
        return {"best_epoch": int(best["epoch"]) + 1, "val_loss": float(best["val_loss"]), "epochs": len(history)}

    def load_scorer(self) -> keras.Model:
        """The trained network, from RGB in 0..255 to probabilities; see `model.scoring_model`."""
        scorer = scoring_model(keras.saving.load_model(self.model_path, compile=False))
        scorer.jit_compile = xla_pays()
        return scorer


@contextmanager
def new_run(runs: Path, recipe: Recipe, records: Records) -> Iterator[Run]:
    """Yield a new run, its folder named after its backbone and the time, to be trained in the block.

    When the block ends, however it does, `latest` points at the run if it has a model; else its folder goes.
    """
    folder = _new_folder(runs, f"{recipe.backbone}-{datetime.now():%Y%m%d-%H%M%S}")
    run = Run(folder, recipe, records.categories, THRESHOLD, records.fingerprint)
    try:
        _describe(run, records)
        yield run
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the best model so far is in {folder}" if run.model_path.is_file() else "") from None
    finally:
        if run.model_path.is_file():
            atomic.link(runs / LATEST, folder.name)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def open_run(folder: str | os.PathLike) -> Run:
    """Open a run folder, or what `latest` points at.

    Raises:
        ConfigError: there is no trained model in `folder`.
    """
    folder = Path(folder)
    if not (folder / "model.keras").is_file():
        raise ConfigError(f"there is no trained run in {folder}; train one with: ddk fit")
    described = json.loads((folder / "run.json").read_text())
    recipe = Recipe.load(folder / "recipe.yaml")
    return Run(folder, recipe, described["categories"], described["threshold"], described["records"])


def package_versions() -> dict[str, str]:
    """The versions that numbers depend on."""
    return {package: importlib.metadata.version(package) for package in ("ddkeras", "keras", "tensorflow", "numpy")}


def _describe(run: Run, records: Records) -> None:
    run.recipe.save(run.folder / "recipe.yaml")
    described = {
        "labels": list(LABELS),
        "categories": run.categories,
        "threshold": run.threshold,
        "records": run.fingerprint,
        "skipped_records": records.skipped,
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
