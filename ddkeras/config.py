"""The recipe: everything that determines a training run, validated on construction, stored as one YAML file."""

import dataclasses
import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
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
    """How to train one detector; the help text of each field documents it.

    A field whose default is None may be left out or given as None: its value then follows from the other fields, and
    is filled in when the recipe is made. Only `category_weight` may stay None, as it follows from the records.
    `augment` may be given as a name in `pipelines.transforms.augmenter.CHAINS`.

    Raises:
        ConfigError: a value has the wrong type, is out of range, or contradicts another.
    """

    backbone: str = _other(
        "efficientnetv2-b0",
        "Network",
        "efficientnetv2-b0 to -b3, -s, -m, -l, xception, efficientnet-b4, mobilenetv2, deepfakenet or small-cnn.",
    )
    weights: str = _other(
        None,
        "Network",
        "Initial weights: imagenet (downloaded once), none (random initialization), or a file of the backbone's "
        "weights without its top.  [default: imagenet; none for deepfakenet and small-cnn]",
    )
    image_size: int = _number(
        None, 32, 2048, "Network", "Height and width of the input, in pixels.  [default: the backbone's own]"
    )
    view: str = _one_of(
        "auto",
        ("auto", "squash", "windows"),
        "Network",
        "How the network sees an image: squash, resized to one square; windows, squares of it at native resolution, "
        "one at a random place in training, several to score it; auto, windows where the median training image is at "
        "least twice --image-size wide and high.",
    )
    windows: int = _number(9, 1, 256, "Network", "Windows by which an image is scored, those with the most texture.")
    windows_per_image: int = _number(
        1,
        1,
        64,
        "Network",
        "Windows of each image in a training batch, of --batch images; more where decoding is slow.",
    )
    aggregate: str = _one_of(
        "mean",
        ("mean", "top", "attention"),
        "Network",
        "Logit of an image: mean of its windows'; top, of the most fake third of them, for edits of a part; "
        "attention, a mean with learned weights.",
    )
    category_view: str = _one_of(
        "windows",
        ("windows", "squash"),
        "Network",
        "What the category head sees where the view is windows: the same, or the whole image squashed beside them.",
    )
    dropout: float = _number(0.2, 0, 0.95, "Network", "Dropout rate of the pooled features.")
    test_augment: str = _one_of(
        "none",
        ("none", "flip"),
        "Network",
        "Test-time augmentation: flip averages the logits with the mirror image's.",
    )
    min_side: int = _number(
        32, 0, 2048, "Network", "Images with fewer pixels on their shorter side get the verdict unsure; 0: none."
    )

    epochs: int = _number(12, 1, 10_000, "Batches", "Maximum number of passes over the training images.")
    batch: int = _number(32, 1, 65_536, "Batches", "Batch size, over all devices.")
    accumulate: int = _number(1, 1, 4096, "Batches", "Gradient accumulation: batches per update.")
    balance: str = _one_of(
        "weights",
        ("weights", "undersample", "none"),
        "Batches",
        "Class balancing: weight rare labels and classes more, or undersample the more frequent label in each epoch.",
    )
    hold_out: str = _other("", "Batches", "Train and validate without the images of this source; see evaluate.")
    augment: dict[str, dict[str, Any]] = _other(  # noqa: RUF009  a name, immutable
        "forensic", "Batches", "Augmentation steps and their parameters."
    )

    loss: str = _one_of(
        "cross_entropy", ("cross_entropy", "focal", "squared_error"), "Loss", "Loss of the authenticity head."
    )
    focal_gamma: float = _number(
        2.0, 0, 10, "Loss", "Gamma of the focal loss; higher values down-weight easy images."
    )
    label_smoothing: float = _number(0.0, 0, 0.5, "Loss", "Label smoothing.")
    authenticity_weight: float = _number(1.0, 0, 1000, "Loss", "Loss weight of the authenticity head.")
    category_weight: float | None = _number(
        None,
        0,
        1000,
        "Loss",
        "Loss weight of the category head; 0 trains without it.  [default: 1 when the data has classes]",
    )

    optimizer: str = _one_of("adamw", ("adamw", "adam", "sgd"), "Optimizer", "AdamW, Adam, or SGD with momentum.")
    learning_rate: float = _number(
        None, 1e-9, 10.0, "Optimizer", "Peak learning rate.  [default: 0.0003, or 0.001 with --weights none]"
    )
    momentum: float = _number(0.9, 0, 0.9999, "Optimizer", "Momentum of SGD.")
    weight_decay: float = _number(
        1e-4, 0, 1, "Optimizer", "Weight decay of AdamW and SGD, times the learning rate; none for biases and norms."
    )
    clip_norm: float = _number(0.0, 0, 1e6, "Optimizer", "Maximum gradient norm; 0 disables.")
    ema: float = _number(0.0, 0, 0.99999, "Optimizer", "EMA decay of the weights; 0 disables.")
    schedule: str = _one_of(
        "cosine", ("cosine", "step", "exponential", "constant"), "Optimizer", "Learning rate schedule."
    )
    warmup: float = _number(
        0.05, 0, 0.9, "Optimizer", "Linear warm-up as a share of all steps, at the start and after unfreezing."
    )
    decay: float = _number(
        0.1, 1e-6, 1, "Optimizer", "Decay factor of the step and exponential schedules, per --decay-epochs."
    )
    decay_epochs: float = _number(5.0, 0.01, 10_000, "Optimizer", "Epochs per decay by --decay.")

    frozen_epochs: int = _number(
        0, 0, 10_000, "Freezing", "Epochs that train only the heads, with a frozen backbone."
    )
    thaw_factor: float = _number(1.0, 1e-6, 1, "Freezing", "Learning rate factor after --frozen-epochs.")
    layer_decay: float = _number(
        1.0, 0.01, 1, "Freezing", "Layer-wise learning rate decay: factor per backbone stage, from the heads down."
    )
    freeze_norms: bool = _other(
        None, "Freezing", "Freeze BatchNorm, statistics included.  [default: yes, unless --weights none]"
    )

    keep: str = _one_of(
        "loss",
        ("loss", "accuracy", "auc"),
        "Selection",
        "Checkpoint-selection metric: the epoch with the best value on validation is kept.",
    )
    patience: int = _number(5, 1, 10_000, "Selection", "Early stopping: epochs without improvement.")

    precision: str = _one_of(
        "auto",
        ("auto", "float32", "mixed_float16", "mixed_bfloat16"),
        "Machine",
        "Numeric precision; auto: mixed_float16 on a GPU that supports it, on a CPU the fastest in a short trial.",
    )
    xla: str = _one_of(
        "auto", ("auto", "on", "off"), "Machine", "Compile with XLA; auto: on with a GPU, on a CPU by the same trial."
    )
    strategy: str = _one_of(
        "auto",
        ("auto", "one", "mirrored", "multiworker"),
        "Machine",
        "One device, all devices of this machine, or several machines as given by TF_CONFIG.",
    )
    save_every: int = _number(
        1000, 1, 10**9, "Machine", "Updates between two checkpoints; each epoch also ends with one."
    )
    seed: int = _number(0, 0, 2**31 - 1, "Machine", "Random seed; runs on a CPU are reproducible bit for bit.")

    def __post_init__(self) -> None:
        given = {field.name: _checked(field, getattr(self, field.name)) for field in dataclasses.fields(self)}
        for name, value in _resolved(given).items():
            object.__setattr__(self, name, value)
        _check_chain(self.augment, self.image_size)

    def to_yaml(self) -> str:
        """All fields as YAML, the format of a recipe file."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False)


def load_recipe(path: Path) -> tuple[Recipe, dict[str, Any]]:
    """Read a file that `Recipe.to_yaml` wrote; also its fields as they are written there.

    Raises:
        ConfigError: it was written by an incompatible version.
    """
    try:
        fields = _read_fields(path)
        return Recipe(**{"view": "squash"} | fields), fields  # the only view until 0.2.0, whose files name none
    except ConfigError as error:
        raise ConfigError(f"{path} does not fit ddkeras {__version__}: {error}") from error


def recipe_fields(name: str) -> dict[str, Any]:
    """The fields that a recipe file sets, as written there.

    Args:
        name: a shipped recipe, see `shipped_recipes`, or the path of a YAML file.

    Raises:
        ConfigError: there is no such recipe, or it has an unknown field.
    """
    if name in shipped_recipes():
        return _read_fields(_SHIPPED / f"{name}.yaml")
    if not Path(name).is_file():
        raise ConfigError(f"there is no recipe {name}; give a YAML file, or one of {', '.join(shipped_recipes())}")
    return _read_fields(Path(name))


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(path.name.removesuffix(".yaml") for path in _SHIPPED.iterdir() if path.name.endswith(".yaml"))


def checked_field(name: str, value: Any) -> Any:
    """The value of one field of a recipe, converted to its type, where it is needed without the others.

    Raises:
        ConfigError: it has the wrong type or is out of range.
    """
    return _checked(Recipe.__dataclass_fields__[name], value)


def differences(recipe: Recipe, other: Recipe, names: Iterable[str]) -> list[str]:
    """Descriptions of those of the named fields in which `other` differs; its `auto` and None agree with anything."""
    pairs = [(name, getattr(recipe, name), getattr(other, name)) for name in names]
    return [
        f"{name} {value}, not {other_value}"
        for name, value, other_value in pairs
        if other_value not in (value, "auto", None)
    ]


def load_chain(name: str, crop: float | None, image_size: int) -> dict[str, dict[str, Any]]:
    """Load an augmentation by its name or from a YAML file.

    Args:
        name: in `pipelines.transforms.augmenter.CHAINS`, or the path of a YAML file.
        crop: share of height and width to crop to, in place of the augmentation's own.
        image_size: of the images it will be applied to, in pixels.

    Raises:
        ConfigError: there is no such augmentation, or it is malformed or not applicable.
    """
    from pipelines.transforms.augmenter import CHAINS  # noqa: PLC0415

    if name in CHAINS:
        chain = _named_chain(name)
    elif not Path(name).is_file():
        raise ConfigError(f"there is no augmentation {name}; give one of {', '.join(CHAINS)}, or a YAML file")
    else:
        chain = _read_chain(Path(name))
    chain = with_crop(chain, crop)
    _check_chain(chain, image_size)
    return chain


def with_crop(chain: dict[str, dict[str, Any]], share: float | None) -> dict[str, dict[str, Any]]:
    """The chain with a crop of that share as its first step; None leaves it unchanged."""
    if share is None:
        return chain
    return {"crop": {"share": share}} | {step: options for step, options in chain.items() if step != "crop"}


# --- checks ----------------------------------------------------------------------------------------------------


def _checked(field: dataclasses.Field, value: Any) -> Any:
    """The value, converted to the type of its field and within its range; None where that may be left out."""
    if value is None and field.default is None:
        return None
    if choices := field.metadata.get("choices"):
        if isinstance(value, bool):
            value = "on" if value else "off"  # YAML reads on and off as booleans
        if value not in choices:
            raise ConfigError(f"{field.name} must be one of {', '.join(choices)}, not {value}")
    elif bounds := field.metadata.get("range"):
        value = _as_number(field.name, int if field.type is int else float, value)
        if not bounds[0] <= value <= bounds[1]:
            raise ConfigError(f"{field.name} must be between {bounds[0]} and {bounds[1]}, not {value}")
    elif field.type is bool and not isinstance(value, bool):
        raise ConfigError(f"{field.name} must be true or false, not {value}")
    elif field.type is str and not isinstance(value, str):
        raise ConfigError(f"{field.name} must be a string, not {value}")
    return value


def _as_number(name: str, kind: type[int] | type[float], value: Any) -> float:
    try:
        number = kind(value)  # also of a string: YAML reads 1e-4 as one
        if isinstance(value, bool) or (math.isfinite(number) and number != float(value)):
            raise ValueError(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{name} must be a {'whole ' * (kind is int)}number, not {value}") from error
    return number


def _resolved(given: dict[str, Any]) -> dict[str, Any]:
    """All fields, with values for those that were left out."""
    from ddkeras.models.backbones import BACKBONES, canonical_name  # noqa: PLC0415  loads Keras, slow for --help
    from pipelines.transforms.augmenter import CHAINS  # noqa: PLC0415

    backbone, augment = canonical_name(given["backbone"]), given["augment"]
    weights = given["weights"] or ("none" if BACKBONES[backbone].ours else "imagenet")
    is_random = weights == "none"
    if isinstance(augment, str):
        if augment not in CHAINS:
            raise ConfigError(f"there is no augmentation {augment}; there are {', '.join(CHAINS)}")
        augment = _named_chain(augment)
    return given | {
        "backbone": backbone,
        "weights": weights,
        "image_size": given["image_size"] or BACKBONES[backbone].image_size,
        # Fine-tuning takes smaller steps than training from random initialization.
        "learning_rate": given["learning_rate"] or (1e-3 if is_random else 3e-4),
        "freeze_norms": not is_random if given["freeze_norms"] is None else given["freeze_norms"],
        "augment": augment,
    }


def _check_chain(chain: dict[str, dict[str, Any]], image_size: int) -> None:
    from pipelines.transforms import augmenter  # noqa: PLC0415

    if not isinstance(chain, dict) or not all(isinstance(options, dict) for options in chain.values()):
        raise ConfigError("augment must map steps to strengths, as in: jpeg: {probability: 0.5, quality: [30, 100]}")
    try:
        augmenter.check(chain, image_size)
    except ValueError as error:
        raise ConfigError(str(error)) from error


# --- files -----------------------------------------------------------------------------------------------------


def _read_fields(path: Path | Traversable) -> dict[str, Any]:
    values = _read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is no recipe: it must map fields to values, as in: epochs: 12")
    names = [field.name for field in dataclasses.fields(Recipe)]
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else f"; the fields are {', '.join(names)}"
            raise ConfigError(f"{path} has an unknown field {name}{hint}")
    return values


def _named_chain(name: str) -> dict[str, dict[str, Any]]:
    from pipelines.transforms.augmenter import CHAINS  # noqa: PLC0415

    return {step: dict(options) for step, options in CHAINS[name].items()}


def _read_chain(path: Path) -> dict[str, dict[str, Any]]:
    chain = _read_yaml(path)
    if not isinstance(chain, dict) or not all(isinstance(s, dict) for s in chain.values() if s is not None):
        raise ConfigError(
            f"{path} must map steps to strengths, as in: jpeg: {{probability: 0.5, quality: [30, 100]}}"
        )
    return {step: options or {} for step, options in chain.items()}


def _read_yaml(path: Path | Traversable) -> Any:
    try:
        return yaml.load(path.read_text(), _Loader)
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path} is not valid YAML{where}: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # such as bytes that are not UTF-8, or a date in month 13
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is not valid YAML: {reason}") from error


class _Loader(yaml.SafeLoader):
    """The safe loader, to which a key given twice is an error; by itself it lets the last one win."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping of unlike keys."""
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in lines:
                problem = f"{key.value} is given twice, first in line {lines[key.value]}; keep one"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return node
