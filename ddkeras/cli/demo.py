"""`ddk demo`."""

import functools
from pathlib import Path

import click

from ddkeras.cli import console
from ddkeras.cli.options import run_option
from ddkeras.cli.progress import silence_stderr


def _show(result: dict) -> str:
    return f"stopped trying {result['run']} on {result['url']}; nothing that was uploaded is kept"


@console.command("demo", show=_show)
@run_option
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 listens on all addresses.")
@click.option("--port", default=7860, show_default=True, type=click.IntRange(0, 65535), help="0 is any free one.")
def demo(run_folder: Path, host: str, port: int) -> dict:
    """Open a page in the browser to try a trained run on.

    Of one image it shows the verdict in plain words, the calibrated score, which is that of ddk predict, how far a
    mild re-encoding moves it, the category, where the model looked, and what the file says of its own origin. Of many
    it shows a table, which can be had as CSV. An upload is deleted as soon as it is answered, and the page asks
    nothing of other servers.

    There is no password: whoever can reach the address can use it, which without --host is this computer alone.
    Ctrl-C, SIGTERM or a closed terminal stops it. Needs Gradio: pip install "ddkeras[demo]"

    \b
    Examples:
      ddk demo
      ddk demo --run artifacts/runs/xception-20260131-120000 --port 9000
    """
    from pipelines.media import provenance

    provenance.prepare()
    console.load_tensorflow()
    with silence_stderr():
        from ddkeras.demo import app
    from ddkeras.runs.run import open_run

    return app.demonstrate(open_run(run_folder), host=host, port=port, tell=functools.partial(click.echo, err=True))
