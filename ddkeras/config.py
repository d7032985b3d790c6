"""The recipe: everything that decides a run, checked when built, as one YAML file."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import yaml

from ddkeras import __version__
from ddkeras.errors import ConfigError
from pipelines import augmentation


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
    # What is done to training images: steps and their strengths, see `pipelines.augmentation`.
    augment: dict = dataclasses.field(default_factory=lambda: dict(augmentation.CHAINS["forensic"]))
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
            ("patience", 1, 10_000),
            ("seed", 0, 2**31 - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} must be between {low} and {high}, not {value}")
        _check(self.augment, self.image_size)

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
        if not isinstance(values, dict):
            raise ConfigError(f"{path} is no recipe; train again")
        unknown = values.keys() - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ConfigError(
                f"{path} has a field {min(unknown)} that ddkeras {__version__} does not know; train again, or use "
                "the version named in run.json"
            )
        return cls(**values)


def load_chain(name: str, crop: float | None, image_size: int) -> dict:
    """The augmentation of that name, or of that YAML file.

    Args:
        crop: the share of height and width that is cut out, in place of what the augmentation says.

    Raises:
        ConfigError: there is neither, the file is no mapping of steps to strengths, or one of them cannot be had.
    """
    if name in augmentation.CHAINS:
        chain = dict(augmentation.CHAINS[name])
    elif not Path(name).is_file():
        names = ", ".join(augmentation.CHAINS)
        raise ConfigError(f"there is no augmentation {name}; give one of {names}, or a YAML file")
    else:
        chain = _read_chain(Path(name))
    if crop is not None:
        chain = {"crop": {"share": crop}} | {step: strengths for step, strengths in chain.items() if step != "crop"}
    _check(chain, image_size)
    return chain


def _check(chain: dict, image_size: int) -> None:
    if not isinstance(chain, dict) or not all(isinstance(strengths, dict) for strengths in chain.values()):
        raise ConfigError("augment must map steps to strengths, as in: jpeg: {probability: 0.5, quality: [30, 100]}")
    try:
        augmentation.check(chain, image_size)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _read_chain(path: Path) -> dict:
    try:
        chain = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(chain, dict) or not all(isinstance(s, dict) for s in chain.values() if s is not None):
        raise ConfigError(
            f"{path} must map steps to strengths, as in: jpeg: {{probability: 0.5, quality: [30, 100]}}"
        )
    return {step: strengths or {} for step, strengths in chain.items()}
