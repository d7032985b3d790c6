"""`ddk serve`."""

import functools
import logging
from pathlib import Path

import click

from ddkeras.cli import console
from ddkeras.exceptions import ConfigError


def _show(result: dict) -> str:
    return f"stopped after {result['requests']} requests"


def _limit(name: str, default: float, text: str, kind: click.ParamType | None = None):
    kind = kind or click.IntRange(1)
    return click.option(name, default=default, show_default=True, type=kind, help=text, cls=console.Option, **_LIMITS)


_LIMITS = {"section": "Limits"}


@console.command("serve", show=_show)
@click.argument("export", required=False, type=click.Path(path_type=Path))
@click.option("--name", default="ddk", show_default=True, help="The model's, in URLs.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 listens on all addresses.")
@click.option("--port", default=8501, show_default=True, type=click.IntRange(0, 65535), help="0 is any free one.")
@click.option(
    "--engine",
    default="embedded",
    show_default=True,
    type=click.Choice(["embedded", "tfserving"]),
    help="embedded is our own server, tfserving is tensorflow_model_server, which has other limits.",
)
@_limit("--max-batch", 32, "Images in a batch.")
@_limit("--max-delay", 5, "Milliseconds that an image waits for others.", click.FloatRange(0))
@_limit("--max-queue", 512, "Images that wait; a request beyond that is sent away with 429.")
@_limit("--max-images", 1000, "Images of a request.")
@_limit("--max-pixels", 50_000_000, "Pixels of an image.")
@_limit("--max-body", 32, "MB of a request.")
def serve(
    export: Path | None,
    name: str,
    host: str,
    port: int,
    engine: str,
    max_batch: int,
    max_delay: float,
    max_queue: int,
    max_images: int,
    max_pixels: int,
    max_body: int,
) -> dict:
    """Serve an export over HTTP, as TensorFlow Serving does.

    EXPORT is the folder that holds the versions, artifacts/export/<run>; without it, the one exported last. The
    highest version is served, and a higher one as soon as ddk export has written it. Requests are those of
    TensorFlow Serving's REST API; /metrics, /healthz and /readyz are for whoever watches. Ctrl-C or SIGTERM stops
    it when all requests that are in are answered. Needs FastAPI: pip install "ddkeras[serve]"

    \b
    Examples:
      ddk serve
      ddk serve artifacts/export/xception-20260131-120000 --port 9000
      ddk serve --host 0.0.0.0 --engine tfserving
    """
    if not name or set(name) & set(":/"):
        raise ConfigError(f"--name {name!r} cannot be in a URL; leave out : and /")
    console.load_tensorflow()
    from ddkeras.serving.model_versions import highest_version, newest_export

    base = export or newest_export(Path(console.EXPORTS))
    if engine == "tfserving":
        from ddkeras.serving import tensorflow_serving

        highest_version(base)
        return tensorflow_serving.replace_this_process(
            tensorflow_serving.command(base, name=name, host=host, port=port)
        )
    from ddkeras.serving import server, service

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    limits = service.Limits(
        max_batch=max_batch,
        max_delay=max_delay / 1000,
        max_body=max_body * 2**20,
        max_pixels=max_pixels,
        max_images=max_images,
        max_queue=max_queue,
    )
    tell = functools.partial(click.echo, err=True)
    return server.serve(base, name=name, host=host, port=port, limits=limits, tell=tell)
