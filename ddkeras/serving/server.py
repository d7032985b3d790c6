"""The process of `ddk serve`: a uvicorn server that drops idle clients, and `serve`, which runs until stopped."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from ddkeras.exceptions import ConfigError
from ddkeras.serving import sockets
from ddkeras.serving.app import make_app
from ddkeras.serving.model_versions import highest_version
from ddkeras.serving.service import Limits, Service

try:
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError as error:
    raise ConfigError("a server needs uvicorn; install it with: pip install 'ddkeras[serve]'") from error

HEAD_SECONDS = 10  # that a client may take to send the headers of a request
CONNECTIONS = 800  # at once; a process may mostly have 1,024 files open
_IDLE_SECONDS = 60  # that a connection without a request stays open


class _ImpatientProtocol(HttpToolsProtocol):
    """Hangs up on who sends no request, or headers byte by byte: uvicorn by itself waits for these without end."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._waiting = self.loop.call_later(HEAD_SECONDS, transport.close)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._waiting.cancel()
        self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def on_headers_complete(self) -> None:
        self._waiting.cancel()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting.cancel()
        super().connection_lost(exc)


def make_server(service: Service, ready: Callable[[int], None] = lambda version: None) -> uvicorn.Server:
    """A server for the routes of a service."""
    config = uvicorn.Config(
        make_app(service, ready),
        log_config=None,  # uvicorn's own would close the handlers that are there
        log_level="warning",
        access_log=False,
        server_header=False,
        http=_ImpatientProtocol,
        ws="none",
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=_IDLE_SECONDS,
    )
    return uvicorn.Server(config)


def serve(base: Path, *, name: str, host: str, port: int, limits: Limits, tell: Callable[[str], None]) -> dict:
    """Serve until a signal to stop comes: then no new connections, and all requests that are in are answered.

    Args:
        port: 0 takes any that is free.
        tell: called with one line when the model is ready.

    Returns:
        `model`, its `version` at the end, and how many `requests` were answered.

    Raises:
        ConfigError: there is no version to serve, or it cannot be loaded, or the port is taken.
    """
    highest_version(base)  # before a port is taken
    bound = sockets.bind(host, port)
    failures = []

    def fail(error: ConfigError) -> None:
        failures.append(error)
        server.should_exit = True

    def ready(version: int) -> None:
        tell(_how_to_ask(name, version, sockets.url(bound)))

    service = Service(base, name, limits, failed=fail)
    server = make_server(service, ready)
    sockets.run(server, bound)
    if failures:
        raise failures[0]
    return {
        "model": name,
        "version": service.served.model.version if service.served else None,
        "requests": server.server_state.total_requests,
    }


def _how_to_ask(name: str, version: int, url: str) -> str:
    # Not as an argument of curl, which may have 128 KiB.
    body = """(printf '{"instances":[{"b64":"'; base64 -w0 photo.jpg; printf '"}]}')"""
    return f"serving {name} version {version} on {url}; try: {body} | curl -d @- {url}/v1/models/{name}:predict"
