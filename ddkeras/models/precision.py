"""Numeric precision and XLA: what pays on this machine."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


def xla_pays() -> bool:
    """Whether to compile with XLA without a trial: yes with a GPU; on a CPU it mostly costs."""
    return bool(tf.config.list_physical_devices("GPU"))


@contextlib.contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """In the block layers are made that compute in this Keras policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
