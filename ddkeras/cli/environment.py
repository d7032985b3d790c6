"""The environment that commands run in; importing the command line changes nothing."""

import os
import sys

import click

from ddkeras.cli.stderr import silence_stderr


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
    with silence_stderr():
        import tensorflow  # noqa: F401
