"""The process of `ddk serve`: a uvicorn server with timeouts, which runs until a signal stops it."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ddkeras.exceptions import ConfigError

try:  # everything that the extra installs, also for the modules below
    import fastapi  # noqa: F401
    import prometheus_client  # noqa: F401
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError as error:
    raise ConfigError(f'ddk serve needs {error.name}; install it with: pip install "ddkeras[serve]"') from error

from ddkeras.serving import hosts, sockets
from ddkeras.serving.app import make_app
from ddkeras.serving.model_versions import highest_version
from ddkeras.serving.service import Limits, ModelService

HEADER_SECONDS = 10  # the time limit for receiving the headers of a request
HEADER_BYTES = 64 * 2**10  # of the headers of a request
CONNECTIONS = 800  # concurrent; processes are often limited to 1,024 open files
_IDLE_SECONDS = 60  # after which an idle connection is closed


class _LimitedProtocol(HttpToolsProtocol):
    """Closes connections whose request headers do not arrive in time, or are too long; uvicorn would take any."""

    # As in uvicorn's own type of the argument.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timeout = self.loop.call_later(HEADER_SECONDS, transport.close)

        self._header_bytes: int | None = 0  # None while a body is received

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._header_bytes is not None:
            self._header_bytes += len(data)
            if self._header_bytes > HEADER_BYTES:
                self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0
        self._timeout.cancel()
        self._timeout = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def on_headers_complete(self) -> None:
        self._timeout.cancel()
        self._header_bytes = None
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timeout.cancel()
        super().connection_lost(exc)


def make_server(
    service: ModelService,
    on_ready: Callable[[int], None] = lambda version: None,
    names: frozenset[str] = frozenset({"*"}),
) -> uvicorn.Server:
    """A server for the app of a service; see `make_app`."""
    config = uvicorn.Config(
        make_app(service, on_ready, names),
        log_config=None,  # uvicorn's default would close existing log handlers
        log_level="warning",
        access_log=False,
        server_header=False,
        http=_LimitedProtocol,
        ws="none",
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=_IDLE_SECONDS,
    )
    return uvicorn.Server(config)


def serve(
    base: Path,
    *,
    name: str,
    host: str,
    port: int,
    limits: Limits,
    announce: Callable[[str], None],
    allowed_hosts: Iterable[str] = (),
) -> dict[str, Any]:
    """Serve until a signal to stop arrives; requests in progress are still answered.

    Args:
        base: the folder of versions.
        name: the model name in URLs.
        host: the address to listen on.
        port: 0 selects a free port.
        limits: see `Limits`.
        announce: called with one line when the model is ready.
        allowed_hosts: names of this server beside `localhost` and that of the computer; see `hosts`.

    Returns:
        `model`, its last `version`, and the number of `requests`.

    Raises:
        ConfigError: there is no version to serve, it cannot be loaded, or the port is in use.
    """
    highest_version(base)  # fail before a port is bound
    bound = sockets.bind(host, port)
    failures: list[ConfigError] = []

    def on_failure(error: ConfigError) -> None:
        failures.append(error)
        server.should_exit = True

    def on_ready(version: int) -> None:
        announce(_format_ready(name, version, sockets.url(bound)))

    service = ModelService(base, name, limits, on_failure=on_failure)
    server = make_server(service, on_ready, hosts.own_names(allowed_hosts))
    sockets.run(server, bound)
    if failures:
        raise failures[0]
    return {
        "model": name,
        "version": service.servable.model.version if service.servable else None,
        "requests": server.server_state.total_requests,
    }


def _format_ready(name: str, version: int, url: str) -> str:
    # The body is piped: command line arguments are limited to 128 KiB.
    body = """(printf '{"instances":[{"b64":"'; base64 -w0 photo.jpg; printf '"}]}')"""
    return f"serving {name} version {version} on {url}; try: {body} | curl -d @- {url}/v1/models/{name}:predict"
