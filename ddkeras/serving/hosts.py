"""Which names a server answers to.

A web page can make the name of its own server lead to this computer (DNS rebinding), and then talk to a server here
as if it were its own. Its requests still carry its name as Host, so a server that knows its names refuses them. An
address in place of a name needs no DNS, and is always allowed.
"""

import ipaddress
import socket
from collections.abc import Iterable

STATUS = 421  # Misdirected Request


def own_names(allowed: Iterable[str] = ()) -> frozenset[str]:
    """The names of this computer and those in `allowed`, in lower case; `*` among them allows any."""
    return frozenset(name.lower() for name in ("localhost", socket.gethostname(), *allowed))


def is_allowed(headers: Iterable[tuple[bytes, bytes]], names: frozenset[str]) -> bool:
    """Whether the Host of a request, if it has any, is an address or one of the names."""
    hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
    return "*" in names or all(_without_port(host) in names or _is_address(host) for host in hosts)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(_without_port(host).strip("[]"))
    except ValueError:
        return False
    return True


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
