"""Random numbers that are a function of what they are for, and of nothing else.

The generators of `keras.random` carry a state, and what they give depends on the device and on how a batch is
divided. Here a value is a hash of (seed, step, position of the image in the global batch, purpose, index): the same
on a CPU and a GPU, compiled by XLA or not, under TensorFlow or JAX, on one device or eight. See Jarzynski and Olano,
"Hash Functions for GPU Rendering" (JCGT 9(3), 2020), who hash several integers by nesting, as is done here.
"""

import math
import zlib

import numpy as np
from keras import ops

_GOLDEN = np.uint32(0x9E3779B9)  # any number that keeps 0, which hashes to 0, from the hash; it is 2**32 / 1.618


def keys(seed: int, step, first, count):
    """One key for each image of a batch, from which all its draws come.

    Args:
        seed: 0 to 2**32 - 1.
        step: integer scalar, the number of the batch.
        first: integer scalar, the position of this batch's first image in the global batch: not 0 on the second of
            several devices.
        count: integer scalar, the images in this batch.

    Returns:
        uint32 (count,), all different.

    Raises:
        OverflowError: the seed has more than 32 bits, or is negative.
    """
    positions = _uint32(first) + _uint32(ops.arange(count, dtype="int32"))
    return _mix(_mix(_uint32(np.uint32(seed)), step), positions)


def fold(keys, purpose: str):
    """Keys for one use of many, so that what is drawn for one has nothing to do with another's draws.

    Args:
        keys: uint32 (count,).
        purpose: what is drawn with them.

    Returns:
        uint32 (count,), all different where `keys` are.
    """
    return _mix(keys, np.uint32(zlib.crc32(purpose.encode())))


def uniform(keys, shape: tuple[int, ...] = ()):
    """Draw from [0, 1), evenly, 24 bits each.

    Args:
        keys: uint32 (count,).
        shape: of each image's values. Of a longer shape the first values are those of a shorter one.

    Returns:
        float32 (count, *shape), on every device the same to the last bit.
    """
    return _float32(ops.right_shift(_hashes(keys, shape), 8)) * 2.0**-24


def normal(keys, shape: tuple[int, ...] = ()):
    """Draw from the normal distribution of mean 0 and variance 1, cut off at 4.9.

    Args:
        keys, shape: as in `uniform`.

    Returns:
        float32 (count, *shape), on every device the same to about six digits.
    """
    # Box and Muller's transform, on the two halves of one hash: 2**16 radii by 2**16 angles are plenty for pixels.
    hashes = _hashes(keys, shape)
    radius = ops.sqrt(-2.0 * ops.log((_float32(ops.right_shift(hashes, 16)) + 0.5) * 2.0**-16))
    return radius * ops.cos(_float32(hashes & np.uint32(0xFFFF)) * (2 * math.pi * 2.0**-16))


def _hashes(keys, shape: tuple[int, ...]):
    # The index is hashed before it meets the key. Were it only added, two keys close to each other would give two
    # images the same noise, shifted by some pixels.
    indices = np.arange(math.prod(shape), dtype="uint32")
    return ops.reshape(_mix(keys[:, None], indices), (-1, *shape))


def _mix(state, number):
    """A hash of two integers, different for different `number`s."""
    return _hashed(state ^ _hashed(_uint32(number) + _GOLDEN))


def _hashed(x):
    # lowbias32, of Wellons' "Prospecting for Hash Functions" (2018). One to one, as each line is.
    x = (x ^ ops.right_shift(x, 16)) * np.uint32(0x7FEB352D)
    x = (x ^ ops.right_shift(x, 15)) * np.uint32(0x846CA68B)
    return x ^ ops.right_shift(x, 16)


def _uint32(x):
    return ops.cast(ops.convert_to_tensor(x), "uint32")


def _float32(x):
    return ops.cast(x, "float32")
