"""`ddk serve`."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ddkeras import api
from ddkeras.cli import console
from ddkeras.cli.environment import load_tensorflow
from ddkeras.cli.options import allowed_hosts_option
from ddkeras.exceptions import ConfigError
from pipelines.wording import count_of


def _format_result(result: dict[str, Any]) -> str:
    return f"stopped after {count_of(result['requests'], 'request')}"


def _limit(
    name: str, default: float, help_text: str, kind: click.ParamType | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        name,
        default=default,
        show_default=True,
        type=kind or click.IntRange(1),
        help=help_text,
        cls=console.Option,
        section="Limits",
    )


@console.command("serve", format_result=_format_result)
@click.argument("export", required=False, type=click.Path(path_type=Path))
@click.option("--name", default="ddk", show_default=True, help="Name of the model, in URLs.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all addresses."
)
@click.option(
    "--port",
    default=8501,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 for any free port.",
)
@allowed_hosts_option
@click.option(
    "--engine",
    default="embedded",
    show_default=True,
    type=click.Choice(["embedded", "tfserving"]),
    help="embedded is the server of ddkeras; tfserving is tensorflow_model_server, which has other limits.",
)
@_limit("--max-batch", 32, "Maximum images in a batch.")
@_limit("--max-delay", 5, "Maximum milliseconds that an image waits for a batch to fill.", click.FloatRange(0))
@_limit("--max-queue", 512, "Maximum images in the queue; requests beyond that are rejected with 429.")
@_limit("--max-images", 1000, "Maximum images in a request.")
@_limit("--max-pixels", 50_000_000, "Maximum pixels of an image.")
@_limit("--max-request-pixels", 200_000_000, "Maximum pixels of all images of a request; one image is allowed.")
@_limit("--max-body", 32, "Maximum size of a request, in MB.")
def serve(
    export: Path | None,
    name: str,
    host: str,
    port: int,
    allowed_hosts: tuple[str, ...],
    engine: str,
    max_batch: int,
    max_delay: float,
    max_queue: int,
    max_images: int,
    max_pixels: int,
    max_request_pixels: int,
    max_body: int,
) -> dict[str, Any]:
    """Serve an export with TensorFlow Serving's REST API.

    EXPORT is the folder that holds the versions, artifacts/export/<run>; the newest export by default. The highest
    version is served, and a higher one as soon as ddk export has written it. /metrics, /healthz and /readyz are for
    monitoring. Ctrl-C or SIGTERM stops the server after it has answered all accepted requests. Needs FastAPI:
    pip install "ddkeras[serve]"

    \b
    Examples:
      ddk serve
      ddk serve artifacts/export/xception-20260131-120000 --port 9000
      ddk serve --host 0.0.0.0 --engine tfserving
    """
    if not name or set(name) & set(":/"):
        raise ConfigError(f"--name {name!r} cannot be in a URL; leave out : and /")
    load_tensorflow()
    from ddkeras.serving.model_versions import highest_version, newest_export

    base = export or newest_export(Path(api.EXPORTS))
    if engine == "tfserving":
        from ddkeras.serving import tensorflow_serving

        highest_version(base)
        return tensorflow_serving.replace_this_process(
            tensorflow_serving.command(base, name=name, host=host, port=port)
        )
    from ddkeras.serving import server, service

    console.note(f"loading {base}")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    limits = service.Limits(
        max_batch=max_batch,
        max_delay=max_delay / 1000,
        max_body=max_body * 2**20,
        max_pixels=max_pixels,
        max_request_pixels=max_request_pixels,
        max_images=max_images,
        max_queue=max_queue,
    )
    return server.serve(
        base, name=name, host=host, port=port, limits=limits, announce=console.note, allowed_hosts=allowed_hosts
    )
