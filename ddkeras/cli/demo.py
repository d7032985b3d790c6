"""`ddk demo`."""

from pathlib import Path
from typing import Any

import click

from ddkeras.cli import console
from ddkeras.cli.environment import load_tensorflow
from ddkeras.cli.options import allowed_hosts_option, run_option
from ddkeras.cli.stderr import silence_stderr


def _format_result(result: dict[str, Any]) -> str:
    return f"stopped the demo of {result['run']} on {result['url']}; all uploads are deleted"


@console.command("demo", format_result=_format_result)
@run_option
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all addresses."
)
@click.option(
    "--port",
    default=7860,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 for any free port.",
)
@allowed_hosts_option
def demo(run_folder: Path, host: str, port: int, allowed_hosts: tuple[str, ...]) -> dict[str, Any]:
    """Serve a web page to try a run on.

    For one image it shows the verdict, the calibrated score, which equals that of ddk predict, its stability under
    mild re-encoding, the category, an overlay of the evidence, and what the file says about its own origin. For many
    images it shows a table, which can be downloaded as CSV. Uploads are deleted as soon as they are answered, and the
    page makes no requests to other servers.

    There is no password: anyone who can reach the address can use it, which by default is this computer alone.
    Ctrl-C, SIGTERM or closing the terminal stops it. Needs Gradio: pip install "ddkeras[demo]"

    \b
    Examples:
      ddk demo
      ddk demo --run artifacts/runs/xception-20260131-120000 --port 9000
    """
    from pipelines.media import manifest

    manifest.prepare()
    load_tensorflow()
    with silence_stderr():
        from ddkeras.demo import app
    from ddkeras.runs.run import open_run

    run = open_run(run_folder)
    console.note(f"loading {run.name}")
    return app.run_demo(run, host=host, port=port, announce=console.note, allowed_hosts=allowed_hosts)
