"""Precision and XLA for this machine, by its devices or a short trial."""

import logging
import time

import keras
import numpy as np
import tensorflow as tf

from ddkeras.exceptions import ConfigError
from ddkeras.models.backbones import build_trunk
from ddkeras.models.precision import dtype_policy, xla_by_default
from ddkeras.training import distribution

_CPU_PRECISIONS = ("float32", "mixed_bfloat16")
_TRIAL_SHARE, _TRIAL_IMAGES, _TRIAL_STEPS = 0.1, 8, 3
_WORTH_A_TRIAL = 1000  # steps
_log = logging.getLogger(__name__)


def resolve_auto(precision: str, xla: str, *, backbone: str, image_size: int, steps: int) -> tuple[str, str]:
    """Choose precision and XLA where they are `auto`.

    With a GPU: mixed_float16 where all GPUs have tensor cores (compute capability 7.0), and XLA. On a CPU: what a few
    steps of the first layers find fastest, or float32 without XLA for a short training.

    Args:
        precision, xla: as in a recipe.
        backbone, image_size: the network that is trained.
        steps: of the whole training.

    Raises:
        ConfigError: mixed_float16 is asked of a device that does not support it.
    """
    gpus = tf.config.list_physical_devices("GPU")
    has_float16 = bool(gpus) and all(_compute_capability(gpu) >= (7, 0) for gpu in gpus)
    if precision == "mixed_float16" and not has_float16:
        raise ConfigError(
            "precision mixed_float16 needs a GPU of compute capability 7.0 or more, and there is none; give auto, "
            "float32 or mixed_bfloat16"
        )
    # Workers measure differently, and have to agree.
    measures = not gpus and steps >= _WORTH_A_TRIAL and distribution.worker_count() == 1
    if precision == "auto" and measures:
        precision = _fastest({name: _step_seconds(backbone, image_size, name, "off") for name in _CPU_PRECISIONS})
    if xla == "auto" and measures:
        xla = _fastest({name: _step_seconds(backbone, image_size, precision, name) for name in ("off", "on")})
    if precision == "auto":
        precision = "mixed_float16" if has_float16 else "float32"
    if xla == "auto":
        xla = "on" if xla_by_default() else "off"
    return precision, xla


def _compute_capability(gpu: tf.config.PhysicalDevice) -> tuple[int, int]:
    return tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))


def _fastest(seconds: dict[str, float]) -> str:
    best = min(seconds, key=lambda name: seconds[name])
    _log.info("tried %s: %s", ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items()), best)
    return best


def _step_seconds(backbone: str, image_size: int, precision: str, xla: str) -> float:
    """The time of a forward and backward pass through the first layers, on a few images."""
    with dtype_policy(precision):
        trunk = build_trunk(backbone, image_size=image_size, weights="none")
        last = trunk.layers[max(8, round(_TRIAL_SHARE * len(trunk.layers))) - 1]
        model = keras.Model(trunk.inputs, keras.ops.mean(keras.ops.cast(last.output, "float32")))
    images = np.random.default_rng(0).integers(0, 256, (_TRIAL_IMAGES, *model.input_shape[1:])).astype("float32")

    @tf.function(jit_compile=xla == "on")
    def gradients(images):
        with tf.GradientTape() as tape:
            loss = model(images, training=True)
        return tape.gradient(loss, model.trainable_variables)

    gradients(images)
    started = time.perf_counter()
    for _ in range(_TRIAL_STEPS):
        gradients(images)[0].numpy()
    return (time.perf_counter() - started) / _TRIAL_STEPS
