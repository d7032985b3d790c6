"""The private APIs of Keras and TensorFlow that have no public counterpart, checked before they are used.

Last seen in the versions of `SEEN`. Where one is gone, a one-line error names it and the version to install.
"""

from typing import TypedDict

import keras
import numpy as np
import tensorflow as tf

from ddkeras.exceptions import ConfigError

SEEN = {"keras": "3.15.1", "tensorflow": "2.21.0"}
_INSTALLED = {"keras": keras.__version__, "tensorflow": tf.__version__}


class LiteRTOperation(TypedDict):
    """One operation of a LiteRT graph; `inputs` and `outputs` are indices of tensors, int32."""

    op_name: str
    inputs: np.ndarray
    outputs: np.ndarray


def litert_operations(interpreter: tf.lite.Interpreter) -> list[LiteRTOperation]:
    """The operations of a LiteRT graph in order of execution, by `tf.lite.Interpreter._get_ops_details`."""
    require("tensorflow", tf.lite.Interpreter, "_get_ops_details")
    return interpreter._get_ops_details()


def require(package: str, owner: type, *names: str) -> None:
    """Check that a class still has the private methods that we call or override.

    Raises:
        ConfigError: it lacks one.
    """
    for name in names:
        if not callable(getattr(owner, name, None)):
            raise ConfigError(
                f"{package} {_INSTALLED[package]} has no {owner.__name__}.{name}, which ddkeras relies on; install "
                f"{package}=={SEEN[package]}"
            )
