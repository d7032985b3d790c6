"""The command line: `ddk COMMAND`. It parses and delegates; what it delegates to is imported inside the callbacks."""

import os

import click

from ddkeras import __version__
from ddkeras.cli.audit import audit
from ddkeras.cli.compare import compare
from ddkeras.cli.cross_source import cross_source
from ddkeras.cli.demo import demo
from ddkeras.cli.errors import errors
from ddkeras.cli.evaluate import evaluate
from ddkeras.cli.explain import explain
from ddkeras.cli.export import export
from ddkeras.cli.fit import fit
from ddkeras.cli.make_tfrecords import make_tfrecords
from ddkeras.cli.predict import predict
from ddkeras.cli.sample_data import sample_data
from ddkeras.cli.serve import serve
from ddkeras.cli.show_augment import show_augment
from ddkeras.cli.tune import tune

# Before TensorFlow is loaded. What its C++ parts log, such as one error per missing CUDA driver, is not for users;
# what fails raises as well.
if not os.environ.get("DDK_DEBUG"):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# TensorFlow turns oneDNN on by itself only where the CPU has AVX-512 neural instructions. Without them it still
# trains MobileNetV2 1.8 and EfficientNetV2-B0 1.3 times as fast (scripts/train_speed.py).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


class _InOrder(click.Group):
    def list_commands(self, ctx):
        return list(self.commands)


@click.group(cls=_InOrder)
@click.version_option(__version__, prog_name="ddk")
def main():
    """Train a detector of generated images on your own folders, measure it, and serve it.

    Each command goes on from the last, so that with no options these lines take you from images to a
    server:

    \b
      ddk sample-data data/           or your own images, see: ddk make-tfrecords --help
      ddk make-tfrecords data/        writes artifacts/records
      ddk fit                         trains, writes artifacts/runs/<name>
      ddk evaluate                    measures the newest run
      ddk export                      writes artifacts/export/<name>/<version>
      ddk serve                       answers on http://127.0.0.1:8501

    Results go to standard output, progress to standard error. With --json a command prints one JSON object.
    Set DDK_DEBUG=1 to see a traceback when something fails.
    """


for _command in (
    sample_data,
    make_tfrecords,
    audit,
    show_augment,
    fit,
    tune,
    evaluate,
    errors,
    compare,
    cross_source,
    predict,
    explain,
    export,
    serve,
    demo,
):
    main.add_command(_command)
