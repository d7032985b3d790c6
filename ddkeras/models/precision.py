"""Numeric precision and XLA."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


def xla_by_default() -> bool:
    """Whether to compile with XLA where it was not measured: with a GPU; on a CPU it is mostly slower."""
    return bool(tf.config.list_physical_devices("GPU"))


@contextlib.contextmanager
def dtype_policy(policy: str) -> Iterator[None]:
    """Layers created in this context have the given Keras dtype policy, such as `mixed_float16`."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
