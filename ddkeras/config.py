"""The recipe: everything that decides a run, checked when built, as one YAML file."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import yaml

from ddkeras import __version__


class ConfigError(ValueError):
    """Something asked for cannot be had; the message is one line that names it and says what to do."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train one detector.

    Raises:
        ConfigError: a value is out of its range.
    """

    backbone: str
    image_size: int  # pixels, height and width of what the network sees
    weights: str = "imagenet"  # imagenet, none, or a weights file
    epochs: int = 12
    batch_size: int = 32
    learning_rate: float | None = None  # the peak, after the warm-up; None: by the weights, see below
    warmup: float = 0.05  # share of all steps in which the learning rate rises to it
    weight_decay: float = 1e-4
    dropout: float = 0.2  # before the heads
    crop: float = 1.0  # share of height and width that a training image keeps, cut out anywhere, each epoch elsewhere
    flip: bool = True  # mirror half of the training images, each epoch others
    patience: int = 5  # epochs without a better validation loss before stopping
    seed: int = 0

    def __post_init__(self):
        if self.learning_rate is None:
            # Pretrained features are bent to the task, random ones are made for it.
            object.__setattr__(self, "learning_rate", 1e-3 if self.weights == "none" else 3e-4)
        for name, low, high in (
            ("image_size", 32, 2048),
            ("epochs", 1, 10_000),
            ("batch_size", 1, 65_536),
            ("learning_rate", 1e-9, 10.0),
            ("warmup", 0, 0.9),
            ("weight_decay", 0, 1),
            ("dropout", 0, 0.95),
            ("crop", 0.1, 1),
            ("patience", 1, 10_000),
            ("seed", 0, 2**31 - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} must be between {low} and {high}, not {value}")

    @property
    def crop_size(self) -> int:
        """Height and width in pixels of what is cut out of a training image."""
        return max(32, round(self.crop * self.image_size))

    def save(self, path: Path) -> None:
        """Write the recipe as YAML."""
        path.write_text(yaml.safe_dump(dataclasses.asdict(self), sort_keys=False))

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Read what `save` wrote.

        Raises:
            ConfigError: it has fields that this version does not know.
        """
        values = yaml.safe_load(path.read_text())
        unknown = values.keys() - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ConfigError(
                f"{path} has a field {min(unknown)} that ddkeras {__version__} does not know; train again, or use "
                "the version named in run.json"
            )
        return cls(**values)
