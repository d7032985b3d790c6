"""What the machine has, what follows from it, and what a short trial says."""

import logging
import time
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from ddkeras.config import Recipe
from ddkeras.exceptions import ConfigError
from ddkeras.models.backbones import build_trunk
from ddkeras.models.precision import computing_in, xla_pays
from ddkeras.training import distribution

_TRIED_SHARE, _TRIED_IMAGES, _TRIED_STEPS = 0.1, 8, 3
_WORTH_A_TRIAL = 1000  # steps
_log = logging.getLogger(__name__)


# --- precision and XLA -----------------------------------------------------------------------------------------


def resolve_auto(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with `precision` and `xla` as they shall be on this machine, for a training of so many steps.

    With a GPU: mixed_float16 where it has the units for it (compute capability 7.0), and XLA. On a CPU the first
    layers of the network decide, in a few steps each way; a short training goes without.

    Raises:
        ConfigError: mixed_float16 is asked of a device that has none.
    """
    gpus = tf.config.list_physical_devices("GPU")
    has_float16 = bool(gpus) and all(_capability(gpu) >= (7, 0) for gpu in gpus)
    precision, xla = recipe.precision, recipe.xla
    if precision == "mixed_float16" and not has_float16:
        raise ConfigError(
            "precision mixed_float16 needs a GPU of compute capability 7.0 or more, and there is none; give auto, "
            "float32 or mixed_bfloat16"
        )
    is_tried = not gpus and steps >= _WORTH_A_TRIAL and distribution.workers() == 1  # or they might differ
    if precision == "auto":
        ways = {name: (name, "off") for name in ("float32", "mixed_bfloat16")}
        precision = _quickest(recipe, ways) if is_tried else "mixed_float16" if has_float16 else "float32"
    if xla == "auto":
        ways = {word: (precision, word) for word in ("off", "on")}
        xla = _quickest(recipe, ways) if is_tried else "on" if xla_pays() else "off"
    return replace(recipe, precision=precision, xla=xla)


def _capability(gpu) -> tuple[int, int]:
    return tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))


def _quickest(recipe: Recipe, ways: dict[str, tuple[str, str]]) -> str:
    seconds = {name: _seconds_of_a_step(recipe, *way) for name, way in ways.items()}
    best = min(seconds, key=seconds.get)
    _log.info("tried %s: %s", ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items()), best)
    return best


def _seconds_of_a_step(recipe: Recipe, precision: str, xla: str) -> float:
    """Of the first layers, forward and backward, on a few images."""
    with computing_in(precision):
        trunk = build_trunk(recipe.backbone, image_size=recipe.image_size, weights="none")
        last = trunk.layers[max(8, round(_TRIED_SHARE * len(trunk.layers))) - 1]
        head = keras.Model(trunk.inputs, keras.ops.mean(keras.ops.cast(last.output, "float32")))
    images = np.random.default_rng(0).integers(0, 256, (_TRIED_IMAGES, *head.input_shape[1:])).astype("float32")

    @tf.function(jit_compile=xla == "on")
    def gradients(images):
        with tf.GradientTape() as tape:
            loss = head(images, training=True)
        return tape.gradient(loss, head.trainable_variables)

    gradients(images)
    begun = time.perf_counter()
    for _ in range(_TRIED_STEPS):
        gradients(images)[0].numpy()
    return (time.perf_counter() - begun) / _TRIED_STEPS
