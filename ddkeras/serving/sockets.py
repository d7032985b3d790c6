"""Binding a port, and running a server until a signal stops it."""

import signal
import socket
from typing import TYPE_CHECKING

from ddkeras.exceptions import ConfigError

if TYPE_CHECKING:
    import uvicorn

_STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")  # the last one when a terminal is closed; Windows lacks it


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 selects a free port.

    Connections made before `run` wait for it.

    Raises:
        ConfigError: the port is in use, or the address is not one of this computer.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()  # otherwise a second process could bind the same port
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}; give another --host or --port") from error
    return bound


def url(bound: socket.socket) -> str:
    """The URL of a bound socket for clients on this computer."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(server: "uvicorn.Server", bound: socket.socket) -> None:
    """Run the server until SIGTERM, SIGINT or SIGHUP; requests in progress are still answered.

    An ignored SIGHUP, as under nohup, stays ignored.
    """

    def stop(*_) -> None:
        server.should_exit = True

    # When uvicorn has stopped, it raises the signal again for the previous handlers.
    numbers = [getattr(signal, name) for name in _STOP_SIGNALS if hasattr(signal, name)]
    previous = {
        number: signal.signal(number, stop) for number in numbers if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        server.run(sockets=[bound])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
