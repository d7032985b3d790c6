"""Throughput of each augmentation step, against Keras, keras-cv and Pillow, as JSON.

    python scripts/augment_speed.py --image-size 128 --batch 32
    KERAS_BACKEND=jax python scripts/augment_speed.py        only ours, such as on a GPU without TensorFlow

Images per second, the best of seven rounds, with every step applied to every image:

- `ours`: a step of `pipelines.transforms.augmenter`; `plain` as TensorFlow runs it, `xla` compiled.
- `keras`, `keras_cv`: the closest layer, not compiled.
- `pillow`: the same, image by image on one core, as a loader on the CPU would do it.

`training_step` is the share of a training step of EfficientNetV2-B0 that the forensic chain takes in `ddk fit`.
"""

import argparse
import dataclasses
import io
import json
import os
import time
from collections.abc import Callable
from functools import partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np
from PIL import Image, ImageFilter

from ddkeras.cli.environment import set_tensorflow_environment

set_tensorflow_environment()  # before TensorFlow is imported
from pipelines.transforms.augmenter import CHAINS, Augmenter  # noqa: E402

ROUNDS = 7


def photos(number: int, size: int) -> np.ndarray:
    """Smooth images with some noise, which compress about as photographs do: uint8 (number, size, size, 3)."""
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (number, 8, 8, 3), dtype=np.uint8)
    large = [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in small]
    return np.clip(np.stack(large) + random.normal(0, 4, (number, size, size, 3)), 0, 255).astype(np.uint8)


def quickest(call: Callable[[], object]) -> float:
    """Seconds of the fastest of ROUNDS calls, after a warm-up."""
    call()
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def rate(call: Callable[[], object], images: int) -> int:
    """Images per second."""
    return round(images / quickest(call))


def compiled(call: Callable, *, xla: bool) -> Callable:
    """`call` as the backend runs it in training, waiting for the result."""
    if keras.backend.backend() == "jax":
        import jax  # noqa: PLC0415

        traced = jax.jit(call)
        return lambda *inputs: jax.block_until_ready(traced(*inputs))
    import tensorflow as tf  # noqa: PLC0415

    traced = tf.function(call, jit_compile=xla)
    return lambda *inputs: np.asarray(traced(*inputs))


def ours(chain: dict, images: np.ndarray) -> dict[str, int | None]:
    """Rates of a chain of steps, plain and compiled; None where it cannot be compiled."""
    augmenter = Augmenter(chain, images.shape[1])
    batch, step = keras.ops.convert_to_tensor(images), keras.ops.convert_to_tensor(np.int32(3))
    kinds = [("xla", True)] if keras.backend.backend() == "jax" else [("plain", False), ("xla", True)]
    rates = {}
    for kind, xla in kinds:
        call = compiled(lambda batch, step: augmenter(batch, step=step), xla=xla)
        rates[kind] = None if xla and not augmenter.compiles else rate(partial(call, batch, step), len(images))
    return rates


def layer_rate(layer: keras.layers.Layer, images: np.ndarray) -> int:
    """Rate of a layer of Keras or keras-cv."""
    batch = keras.ops.convert_to_tensor(images.astype("float32"))
    call = compiled(lambda batch: layer(batch, training=True), xla=False)
    return rate(lambda: call(batch), len(images))


def pillow_rate(change: Callable[[Image.Image], Image.Image], images: np.ndarray) -> int:
    """Rate of a loop over images."""
    return rate(lambda: [np.asarray(change(Image.fromarray(image))) for image in images], len(images))


def by_pillow(size: int) -> dict[str, Callable[[Image.Image], Image.Image]]:
    """The steps as a loader on the CPU does them."""

    def jpeg(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=65)
        return Image.open(buffer)

    return {
        "jpeg": jpeg,
        "blur": lambda image: image.filter(ImageFilter.GaussianBlur(1.5)),
        "resize": lambda image: image.resize((size * 3 // 4,) * 2, Image.Resampling.BILINEAR).resize((size, size)),
        "flip": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "crop": lambda image: image.crop((5, 5, 5 + size * 9 // 10, 5 + size * 9 // 10)),
    }


def peers(size: int) -> dict[str, dict[str, keras.layers.Layer]]:
    """The layers closest to each step."""
    import keras_cv  # noqa: PLC0415

    crop, of_keras, of_cv = size * 9 // 10, keras.layers, keras_cv.layers
    return {
        "crop": {"keras": of_keras.RandomCrop(crop, crop), "keras_cv": of_cv.RandomCrop(crop, crop)},
        "flip": {"keras": of_keras.RandomFlip("horizontal"), "keras_cv": of_cv.RandomFlip("horizontal")},
        "blur": {
            "keras": of_keras.RandomGaussianBlur(kernel_size=19, sigma=1.0, value_range=(0, 255)),
            "keras_cv": of_cv.RandomGaussianBlur(19, (0.0, 1.0)),
        },
        "brightness": {"keras": of_keras.RandomBrightness(0.2), "keras_cv": of_cv.RandomBrightness((-0.2, 0.2))},
        "contrast": {
            "keras": of_keras.RandomContrast(0.25),
            "keras_cv": of_cv.RandomContrast((0, 255), (0.4, 0.6)),
        },
        "noise": {"keras": of_keras.GaussianNoise(1.0)},
        "jpeg": {"keras_cv": of_cv.RandomJpegQuality((30, 100))},
        "rotation": {"keras_cv": of_cv.RandomRotation(15 / 360)},
        "colour_jitter": {"keras_cv": of_cv.RandomColorJitter((0, 255), 0.2, 0.2, 0.2, 0.02)},
        "rand_augment": {"keras": of_keras.RandAugment((0, 255), 2, 0.3)},
    }


def training_step(images: np.ndarray) -> dict[str, float]:
    """Seconds of a training step of EfficientNetV2-B0, those of augmentation in it, and their share."""
    import tensorflow as tf  # noqa: PLC0415

    from ddkeras.config import Recipe  # noqa: PLC0415
    from ddkeras.training import autotune, loop  # noqa: PLC0415
    from ddkeras.training.engine import Engine  # noqa: PLC0415

    labels = tf.reshape(tf.range(len(images)) % 2, (-1, 1))
    batch = (
        tf.constant(images),
        {"authenticity": tf.cast(labels, tf.float32)},
        {"authenticity": tf.ones(len(images))},
    )
    recipe = Recipe(backbone="efficientnetv2-b0", image_size=images.shape[1], weights="none")
    network = {"backbone": recipe.backbone, "image_size": recipe.image_size}
    precision, xla = autotune.resolve_auto(recipe.precision, recipe.xla, **network, steps=1)
    recipe = dataclasses.replace(recipe, precision=precision, xla=xla)
    engine = Engine(
        loop.build(recipe, 0),
        recipe,
        {"authenticity": [1.0, 1.0]},
        steps_per_epoch=100,
        strategy=tf.distribute.get_strategy(),
    )
    augmented = engine.augment(batch, 3)
    learning = quickest(lambda: (engine.train_step(augmented, 3), engine.logs()))
    augmentation = quickest(lambda: np.asarray(engine.augment(batch, 3)[0]))
    step = learning + augmentation
    return {
        "step": round(step, 3),
        "augmentation": round(augmentation, 3),
        "share": round(augmentation / step, 3),
    }


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    images = photos(options.batch, options.image_size)
    always = {name: {"share": 0.9} if name == "crop" else {"probability": 1.0} for name in CHAINS["forensic"]}
    theirs = {} if keras.backend.backend() == "jax" else peers(options.image_size)
    pillow = by_pillow(options.image_size)
    steps = [*always, *(name for name in theirs if name not in always)]
    table = {}
    for name in steps:
        table[name] = {f"ours_{kind}": value for kind, value in ours({name: always.get(name, {})}, images).items()}
        table[name] |= {peer: layer_rate(layer, images) for peer, layer in theirs.get(name, {}).items()}
        if name in pillow:
            table[name]["pillow"] = pillow_rate(pillow[name], images)
    table["forensic chain"] = {f"ours_{kind}": value for kind, value in ours(CHAINS["forensic"], images).items()}
    result = {
        "backend": keras.backend.backend(),
        "cores": os.cpu_count(),
        **vars(options),
        "images_per_second": table,
    }
    if keras.backend.backend() == "tensorflow":
        result["training_step"] = training_step(images)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
