"""What all servers do: take a port, and run until they are told to stop."""

import signal
import socket
from typing import TYPE_CHECKING

from ddkeras.exceptions import ConfigError

if TYPE_CHECKING:
    import uvicorn

_STOPS = ("SIGTERM", "SIGINT", "SIGHUP")  # the last when a terminal is closed; Windows has none


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens on that address; port 0 takes any that is free.

    Who connects before `run` waits for it.

    Raises:
        ConfigError: the port is taken, or the address is not this computer's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()  # without it a second process could bind the same port
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}; give another --host or --port") from error
    return bound


def url(bound: socket.socket) -> str:
    """How a client on this computer finds it."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(server: "uvicorn.Server", bound: socket.socket) -> None:
    """Run the server on the socket until SIGTERM, SIGINT or SIGHUP comes: then all requests that are in are answered.

    A SIGHUP that is ignored, as by nohup, stays so.
    """

    def stop(*_) -> None:
        server.should_exit = True

    # Uvicorn raises the signal again when it has stopped, for the handlers that were there before.
    numbers = [getattr(signal, name) for name in _STOPS if hasattr(signal, name)]
    before = {number: signal.signal(number, stop) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
    try:
        server.run(sockets=[bound])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
