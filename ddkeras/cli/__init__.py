"""The command line: `ddk COMMAND`, a thin shell over `ddkeras.api`. Heavy imports wait for a command to run."""

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
from ddkeras.cli.info import info
from ddkeras.cli.make_tfrecords import make_tfrecords
from ddkeras.cli.predict import predict
from ddkeras.cli.sample_data import sample_data
from ddkeras.cli.serve import serve
from ddkeras.cli.show_augment import show_augment
from ddkeras.cli.tune import tune


class _OrderedGroup(click.Group):
    """Lists commands in the order in which they were added, which is that of use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_OrderedGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ddk")
def main() -> None:
    """Train a detector of generated images on your own folders, evaluate it, and serve it.

    Each command continues from the previous one. With no options, these lines take you from images to a
    server:

    \b
      ddk sample-data data/           or your own images, see: ddk make-tfrecords --help
      ddk make-tfrecords data/        writes artifacts/records
      ddk fit                         trains, writes artifacts/runs/<name>
      ddk evaluate                    evaluates the newest run
      ddk export                      writes artifacts/export/<name>/<version>
      ddk serve                       answers on http://127.0.0.1:8501

    Results go to standard output, progress to standard error. With --json a command prints one JSON object.
    The exit code is 0 for success, 1 for an error, 2 for options that are not understood.
    Set DDK_DEBUG=1 to see a traceback when something fails. The same steps in Python: import ddkeras
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
    info,
):
    main.add_command(_command)
