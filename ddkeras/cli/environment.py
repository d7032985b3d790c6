"""The environment that commands run in; importing the command line changes nothing."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ddkeras.cli.stderr import silence_stderr

# What TensorFlow and Keras import where it is installed, for their converters of JAX models, galleries of images and
# wrappers for scikit-learn. No command uses these, and importing them takes a quarter of the time.
_UNUSED = ("jax", "matplotlib.pyplot", "sklearn")


def set_tensorflow_environment() -> None:
    """Set what TensorFlow and Keras read when they are first imported, where the user has not."""
    # Messages of TensorFlow's C++ code, such as one error per missing CUDA driver; whatever fails also raises.
    if not os.environ.get("DDK_DEBUG"):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # By default TensorFlow uses oneDNN only on CPUs with AVX-512 VNNI. On others, it still speeds up the training of
    # MobileNetV2 by a factor of 1.8 and of EfficientNetV2-B0 by 1.3 (scripts/train_speed.py).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def load_tensorflow() -> None:
    """Import TensorFlow without the messages that its C++ code prints before it reads its log level.

    The import takes up to 20 seconds, so a line on standard error announces it.
    """
    if "tensorflow" not in sys.modules:
        click.echo("loading TensorFlow", err=True)
    set_tensorflow_environment()
    with silence_stderr(), _hidden(_UNUSED):
        import tensorflow  # noqa: F401


@contextmanager
def _hidden(modules: tuple[str, ...]) -> Iterator[None]:
    """Let the import of these modules fail in this context, as if they were not installed, unless they are loaded.

    None in `sys.modules` is Python's mark for that.
    """
    hidden = [name for name in modules if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
