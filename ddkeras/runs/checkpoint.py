"""Checkpoints: all that a training needs to go on as if it had never stopped, in one file."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ddkeras.exceptions import ConfigError
from pipelines import atomic

NAME = "checkpoint.npz"
_POSITION = "position"


@dataclass
class Position:
    """Where a training is, and what it has seen of itself."""

    epoch: int = 0  # the one that is trained in
    step: int = 0  # steps done in it
    sums: list[float] = field(default_factory=list)  # over these; see `Engine.sums`
    history: list[dict] = field(default_factory=list)  # a row for each epoch before it
    best: float | None = None  # what the best of them was best in
    waited: int = 0  # epochs since then

    def end_epoch(self, history: list[dict]) -> None:
        """Be at the beginning of the next one."""
        self.epoch, self.step, self.sums, self.history = self.epoch + 1, 0, [], history


def save(folder: Path, position: Position, arrays: list[np.ndarray]) -> None:
    """Write both into `folder`, in place of what was there, whole or not at all."""
    text = json.dumps(dataclasses.asdict(position))  # JSON gives each float64 back to the last bit
    with atomic.file(folder / NAME) as partial:
        np.savez(partial, **{_POSITION: np.array(text)}, **{f"{place}": a for place, a in enumerate(arrays)})


def load(folder: Path) -> tuple[Position, list[np.ndarray]]:
    """What `save` wrote.

    Raises:
        ConfigError: there is none in `folder`, or it is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        raise ConfigError(f"there is no unfinished training in {folder}; begin one with: ddk fit")
    try:
        with np.load(path) as stored:
            position = Position(**json.loads(str(stored[_POSITION])))
            return position, [stored[f"{place}"] for place in range(len(stored.files) - 1)]
    except (ValueError, KeyError, EOFError, OSError, TypeError, BadZipFile) as error:
        raise ConfigError(f"{path} is damaged ({error}); begin anew with: ddk fit") from error


def discard(folder: Path) -> None:
    """Delete the checkpoint of a training that is over."""
    (folder / NAME).unlink(missing_ok=True)
