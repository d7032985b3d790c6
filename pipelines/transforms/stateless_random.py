"""Stateless random numbers: a function of the seed, the step, the image and the purpose alone.

The generators of `keras.random` are stateful, and their numbers depend on the device and on how a batch is divided.
Here a number is a hash of (seed, step, position of the image in the global batch, purpose, index): the same on a CPU
and a GPU, compiled by XLA or not, under TensorFlow or JAX, on one device or eight. Several integers are hashed by
nesting, as in Jarzynski and Olano, "Hash Functions for GPU Rendering" (JCGT 9(3), 2020).
"""

import math
import zlib

import numpy as np
from keras import ops

_GOLDEN = np.uint32(0x9E3779B9)  # 2**32 / 1.618; any number would do that keeps 0, whose hash is 0, from being hashed


def keys(seed: int, step, first, count):
    """One key for each image of a batch, from which all its random numbers follow.

    Args:
        seed: 0 to 2**32 - 1.
        step: integer scalar, the number of the training step.
        first: integer scalar, the position of this batch's first image in the global batch: above 0 on all but the
            first of several devices.
        count: integer scalar, the number of images in this batch.

    Returns:
        uint32 (count,), all different.

    Raises:
        OverflowError: the seed has more than 32 bits, or is negative.
    """
    positions = _uint32(first) + _uint32(ops.arange(count, dtype="int32"))
    return _combine(_combine(_uint32(np.uint32(seed)), step), positions)


def fold(keys, purpose: str):
    """Keys for one purpose, so that the random numbers for different purposes are independent.

    Args:
        keys: uint32 (count,).
        purpose: a name for what is drawn with the new keys.

    Returns:
        uint32 (count,), all different where `keys` are.
    """
    return _combine(keys, np.uint32(zlib.crc32(purpose.encode())))


def uniform(keys, shape: tuple[int, ...] = ()):
    """Uniform random numbers in [0, 1), with 24 bits each.

    Args:
        keys: uint32 (count,).
        shape: of the numbers for each image. A longer shape begins with the numbers of a shorter one.

    Returns:
        float32 (count, *shape), bitwise the same on every device.
    """
    return _float32(ops.right_shift(_hash_indices(keys, shape), 8)) * 2.0**-24


def normal(keys, shape: tuple[int, ...] = ()):
    """Standard normal random numbers, truncated at 4.9.

    Args:
        keys, shape: as in `uniform`.

    Returns:
        float32 (count, *shape), the same on every device to about six digits.
    """
    # The Box-Muller transform of the two halves of one hash: 2**16 radii and 2**16 angles are enough for pixels.
    hashes = _hash_indices(keys, shape)
    radius = ops.sqrt(-2.0 * ops.log((_float32(ops.right_shift(hashes, 16)) + 0.5) * 2.0**-16))
    return radius * ops.cos(_float32(hashes & np.uint32(0xFFFF)) * (2 * math.pi * 2.0**-16))


def _hash_indices(keys, shape: tuple[int, ...]):
    # The index is hashed before it is combined with the key. If it were only added, two images with similar keys
    # would have the same noise, shifted by some pixels.
    indices = np.arange(math.prod(shape), dtype="uint32")
    return ops.reshape(_combine(keys[:, None], indices), (-1, *shape))


def _combine(state, number):
    """A hash of two integers; for one `state` it is injective in `number`."""
    return _hash(state ^ _hash(_uint32(number) + _GOLDEN))


def _hash(x):
    # lowbias32, from Wellons, "Prospecting for Hash Functions" (2018). Injective, as each line is.
    x = (x ^ ops.right_shift(x, 16)) * np.uint32(0x7FEB352D)
    x = (x ^ ops.right_shift(x, 15)) * np.uint32(0x846CA68B)
    return x ^ ops.right_shift(x, 16)


def _uint32(x):
    return ops.cast(ops.convert_to_tensor(x), "uint32")


def _float32(x):
    return ops.cast(x, "float32")
