"""Checkpoints: the complete state of a training in one file, to resume it exactly."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ddkeras.exceptions import ConfigError
from pipelines import atomic

CHECKPOINT = "checkpoint.npz"
_POSITION = "position"


@dataclass
class Position:
    """The progress of a training.

    Attributes:
        epoch: the current one, from 0.
        step: number of its steps that are done.
        sums: over those steps, see `Engine.sums`.
        history: a row for each earlier epoch.
        best: the best value of the checkpoint-selection metric so far.
        waited: epochs since then.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=list)
    history: list[dict] = field(default_factory=list)
    best: float | None = None
    waited: int = 0

    def end_epoch(self, history: list[dict]) -> None:
        """Move to the start of the next epoch."""
        self.epoch, self.step, self.sums, self.history = self.epoch + 1, 0, [], history


def save(folder: Path, position: Position, arrays: list[np.ndarray]) -> None:
    """Replace the checkpoint in `folder` atomically."""
    text = json.dumps(dataclasses.asdict(position))  # JSON preserves every bit of a float64
    members: dict[str, Any] = {_POSITION: np.array(text)}  # Any, as mypy would match some to savez's own options
    members |= {f"{index}": array for index, array in enumerate(arrays)}
    with atomic.file(folder / CHECKPOINT) as partial_file:
        np.savez(partial_file, **members)


def load(folder: Path) -> tuple[Position, list[np.ndarray]]:
    """Load the checkpoint in `folder`.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise ConfigError(f"there is no unfinished training in {folder}; start one with: ddk fit")
    try:
        with np.load(path) as stored:
            position = Position(**json.loads(str(stored[_POSITION])))
            return position, [stored[f"{index}"] for index in range(len(stored.files) - 1)]
    except (ValueError, KeyError, EOFError, OSError, TypeError, BadZipFile) as error:
        raise ConfigError(f"{path} is damaged ({error}); start again with: ddk fit") from error


def discard(folder: Path) -> None:
    """Delete the checkpoint of a finished training."""
    (folder / CHECKPOINT).unlink(missing_ok=True)
