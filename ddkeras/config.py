"""The recipe: everything that decides a run, checked when built, as one YAML file."""

import dataclasses
import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ddkeras import __version__
from ddkeras.exceptions import ConfigError

_SHIPPED = resources.files("ddkeras") / "recipes"


def _number(default: float | None, low: float, high: float, group: str, help: str) -> Any:
    return dataclasses.field(default=default, metadata={"range": (low, high), "group": group, "help": help})


def _one_of(default: str, choices: tuple[str, ...], group: str, help: str) -> Any:
    return dataclasses.field(default=default, metadata={"choices": choices, "group": group, "help": help})


def _other(default: Any, group: str, help: str) -> Any:
    return dataclasses.field(default=default, metadata={"group": group, "help": help})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train one detector; what each field means is said beside it.

    Fields left at None follow from others; `augment` may be a name in `pipelines.transforms.augmenter.CHAINS`.

    Raises:
        ConfigError: a value is not of its kind, out of its range, or cannot be had together with another.
    """

    backbone: str = _other(
        "efficientnetv2-b0",
        "Network",
        "efficientnetv2-b0 to -b3, -s, -m, -l, xception, efficientnet-b4, mobilenetv2, deepfakenet or small-cnn.",
    )
    weights: str | None = _other(
        None,
        "Network",
        "Weights to start from: imagenet (downloaded once), none, or a file of the backbone's weights without top.  "
        "[default: imagenet; none for deepfakenet and small-cnn]",
    )
    image_size: int | None = _number(
        None, 32, 2048, "Network", "Height and width the network sees.  [default: the backbone's own]"
    )
    dropout: float = _number(0.2, 0, 0.95, "Network", "Share of the features dropped before the heads.")
    test_augment: str = _one_of(
        "none", ("none", "flip"), "Network", "Score the mean of an image and its mirror image, everywhere."
    )

    epochs: int = _number(12, 1, 10_000, "Batches", "How often to go through the training images, at most.")
    batch: int = _number(32, 1, 65_536, "Batches", "Images that go through the network at once, on all devices.")
    accumulate: int = _number(1, 1, 4096, "Batches", "Batches whose gradients are added up before one update.")
    balance: str = _one_of(
        "weights",
        ("weights", "undersample", "none"),
        "Batches",
        "Rare labels and classes weigh more, or each epoch leaves out some of the more frequent label.",
    )
    hold_out: str = _other("", "Batches", "Train and validate without the images of this source; see evaluate.")
    augment: dict | str = _other("forensic", "Batches", "Steps and strengths.")  # noqa: RUF009  a name, not a dict

    loss: str = _one_of(
        "cross_entropy", ("cross_entropy", "focal", "squared_error"), "Loss", "Of the authenticity head."
    )
    focal_gamma: float = _number(2.0, 0, 10, "Loss", "How much the focal loss plays down easy images.")
    label_smoothing: float = _number(0.0, 0, 0.5, "Loss", "Share of each label that is spread over all.")
    authenticity_weight: float = _number(1.0, 0, 1000, "Loss", "Of that head in the loss.")
    category_weight: float | None = _number(
        None, 0, 1000, "Loss", "Of that head; 0 leaves it out.  [default: 1 when the data has classes]"
    )

    optimizer: str = _one_of("adamw", ("adamw", "adam", "sgd"), "Optimizer", "AdamW, Adam, or SGD with momentum.")
    learning_rate: float | None = _number(
        None, 1e-9, 10.0, "Optimizer", "Its peak.  [default: 0.0003, or 0.001 with --weights none]"
    )
    momentum: float = _number(0.9, 0, 0.9999, "Optimizer", "Of SGD.")
    weight_decay: float = _number(1e-4, 0, 1, "Optimizer", "Per unit of learning rate; biases and norms keep theirs.")
    clip_norm: float = _number(0.0, 0, 1e6, "Optimizer", "Greatest length of the gradient; 0: any.")
    ema: float = _number(0.0, 0, 0.99999, "Optimizer", "Keep an average of the weights with this memory; 0: none.")
    schedule: str = _one_of(
        "cosine", ("cosine", "step", "exponential", "constant"), "Optimizer", "How the learning rate falls."
    )
    warmup: float = _number(
        0.05, 0, 0.9, "Optimizer", "Share of all steps in which it rises to its peak, at the start and after a thaw."
    )
    decay: float = _number(0.1, 1e-6, 1, "Optimizer", "What --decay-epochs leave of it, by step or exponential.")
    decay_epochs: float = _number(5.0, 0.01, 10_000, "Optimizer", "See --decay.")

    frozen_epochs: int = _number(0, 0, 10_000, "Freezing", "Epochs in which the heads alone are trained.")
    thaw_factor: float = _number(1.0, 1e-6, 1, "Freezing", "What is left of the learning rate after that.")
    layer_decay: float = _number(
        1.0, 0.01, 1, "Freezing", "Learning rate of a stage of the trunk, relative to that of the next."
    )
    freeze_norms: bool | None = _other(
        None, "Freezing", "Keep the statistics of BatchNorm as they come.  [default: unless --weights none]"
    )

    keep: str = _one_of(
        "loss", ("loss", "accuracy", "auc"), "Choice", "What the best epoch is best in, on validation; see evaluate."
    )
    patience: int = _number(5, 1, 10_000, "Choice", "Epochs without a better one before stopping.")

    precision: str = _one_of(
        "auto",
        ("auto", "float32", "mixed_float16", "mixed_bfloat16"),
        "Machine",
        "auto: mixed_float16 on a GPU that has it, on a CPU what a short trial finds faster.",
    )
    xla: str = _one_of(
        "auto", ("auto", "on", "off"), "Machine", "Compile with XLA; auto: on a GPU, on a CPU by the same trial."
    )
    strategy: str = _one_of(
        "auto",
        ("auto", "one", "mirrored", "multiworker"),
        "Machine",
        "One device, all of this machine, or several machines as TF_CONFIG says.",
    )
    save_every: int = _number(1000, 1, 10**9, "Machine", "Updates between two checkpoints; each epoch ends with one.")
    seed: int = _number(0, 0, 2**31 - 1, "Machine", "On a CPU one seed gives one run, bit for bit.")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
        for name, value in self._following().items():
            object.__setattr__(self, name, value)
        _check_chain(self.augment, self.image_size)

    def _following(self) -> dict[str, Any]:
        """What follows for the fields that were left open."""
        from ddkeras.models.backbones import BACKBONES, canonical_name  # noqa: PLC0415  loads Keras, which --help need not
        from pipelines.transforms.augmenter import CHAINS  # noqa: PLC0415

        backbone = canonical_name(self.backbone)
        weights = self.weights or ("none" if BACKBONES[backbone].ours else "imagenet")
        is_random = weights == "none"
        if isinstance(self.augment, str) and self.augment not in CHAINS:
            raise ConfigError(f"there is no augmentation {self.augment}; there are {', '.join(CHAINS)}")
        return {
            "backbone": backbone,
            "weights": weights,
            "image_size": self.image_size or BACKBONES[backbone].image_size,
            # Pretrained features are bent to the task, random ones are made for it.
            "learning_rate": self.learning_rate or (1e-3 if is_random else 3e-4),
            "freeze_norms": not is_random if self.freeze_norms is None else self.freeze_norms,
            "augment": dict(CHAINS[self.augment]) if isinstance(self.augment, str) else self.augment,
        }

    def to_yaml(self) -> str:
        """All fields, as a recipe's file has them."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False)

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Read what `to_yaml` wrote.

        Raises:
            ConfigError: it is of another version.
        """
        try:
            return cls(**_read_fields(path))
        except ConfigError as error:
            raise ConfigError(f"{path} is not of ddkeras {__version__}: {error}") from error


def recipe_fields(name: str) -> dict[str, Any]:
    """The fields that the recipe of that name or file gives, as they stand there.

    Args:
        name: of a shipped recipe, see `shipped_recipes`, or of a YAML file.

    Raises:
        ConfigError: there is none, or it has an unknown field.
    """
    if name in shipped_recipes():
        return _read_fields(_SHIPPED / f"{name}.yaml")
    if not Path(name).is_file():
        raise ConfigError(f"there is no recipe {name}; give a YAML file, or one of {', '.join(shipped_recipes())}")
    return _read_fields(Path(name))


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(path.name.removesuffix(".yaml") for path in _SHIPPED.iterdir() if path.name.endswith(".yaml"))


def differences(recipe: Recipe, other: Recipe, names: Iterable[str]) -> list[str]:
    """In words, where `other` says something else in one of these fields; `auto` says nothing."""
    pairs = [(name, getattr(recipe, name), getattr(other, name)) for name in names]
    return [f"{name} {ours}, not {theirs}" for name, ours, theirs in pairs if theirs not in (ours, "auto")]


def load_chain(name: str, crop: float | None, image_size: int) -> dict:
    """The augmentation of that name, or of that YAML file.

    Args:
        crop: the share of height and width that is cut out, in place of what the augmentation says.

    Raises:
        ConfigError: there is neither, the file is no mapping of steps to strengths, or one of them cannot be had.
    """
    from pipelines.transforms.augmenter import CHAINS  # noqa: PLC0415

    if name in CHAINS:
        chain = dict(CHAINS[name])
    elif not Path(name).is_file():
        raise ConfigError(f"there is no augmentation {name}; give one of {', '.join(CHAINS)}, or a YAML file")
    else:
        chain = _read_chain(Path(name))
    chain = with_crop(chain, crop)
    _check_chain(chain, image_size)
    return chain


def with_crop(chain: dict, share: float | None) -> dict:
    """The chain, beginning with a crop of that share; None leaves it as it is."""
    if share is None:
        return chain
    return {"crop": {"share": share}} | {step: strengths for step, strengths in chain.items() if step != "crop"}


# --- checks ----------------------------------------------------------------------------------------------------


def _checked(field: dataclasses.Field, value: Any) -> Any:
    """The value of a field in its kind and within its range."""
    name, kind = field.name, field.type
    kinds = getattr(kind, "__args__", (kind,))  # of `int | None`, both
    if value is None and type(None) in kinds:
        return None
    if choices := field.metadata.get("choices"):
        if isinstance(value, bool):
            value = "on" if value else "off"  # which YAML takes for True and False
        if value not in choices:
            raise ConfigError(f"{name} must be one of {', '.join(choices)}, not {value}")
    elif bounds := field.metadata.get("range"):
        value = _as_number(name, float if float in kinds else int, value)
        if not bounds[0] <= value <= bounds[1]:
            raise ConfigError(f"{name} must be between {bounds[0]} and {bounds[1]}, not {value}")
    elif not isinstance(value, kinds):
        raise ConfigError(f"{name} must be {' or '.join(k.__name__ for k in kinds)}, not {value}")
    return value


def _as_number(name: str, kind: type, value: Any) -> float:
    try:
        number = kind(value)  # of text, too: YAML reads 1e-4 as a word
        if isinstance(value, bool) or (math.isfinite(number) and number != float(value)):
            raise ValueError(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{name} must be a {'whole ' * (kind is int)}number, not {value}") from error
    return number


def _check_chain(chain: dict, image_size: int) -> None:
    from pipelines.transforms import augmenter  # noqa: PLC0415

    if not isinstance(chain, dict) or not all(isinstance(strengths, dict) for strengths in chain.values()):
        raise ConfigError("augment must map steps to strengths, as in: jpeg: {probability: 0.5, quality: [30, 100]}")
    try:
        augmenter.check(chain, image_size)
    except ValueError as error:
        raise ConfigError(str(error)) from error


# --- files -----------------------------------------------------------------------------------------------------


def _read_fields(path: Any) -> dict[str, Any]:
    """The fields that a recipe's file gives."""
    values = _read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is no recipe: it must map fields to values, as in: epochs: 12")
    known = [field.name for field in dataclasses.fields(Recipe)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            raise ConfigError(f"{path} has a field {name} that no recipe has{hint}")
    return values


def _read_chain(path: Path) -> dict:
    chain = _read_yaml(path)
    if not isinstance(chain, dict) or not all(isinstance(s, dict) for s in chain.values() if s is not None):
        raise ConfigError(
            f"{path} must map steps to strengths, as in: jpeg: {{probability: 0.5, quality: [30, 100]}}"
        )
    return {step: strengths or {} for step, strengths in chain.items()}


def _read_yaml(path: Any) -> Any:
    try:
        return yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
