"""Which Host headers are answered."""

import socket

import pytest

from ddkeras.serving import hosts


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:8501", True),
        ("LOCALHOST", True),
        ("127.0.0.1:8501", True),
        ("[::1]:8501", True),
        ("10.1.2.3", True),
        (socket.gethostname(), True),
        ("detector:80", True),
        ("evil.example:8501", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_names_and_addresses_of_this_server_are_allowed(host, allowed):
    names = hosts.own_names(["Detector"])
    assert hosts.is_allowed([(b"host", host.encode())], names) is allowed
    assert hosts.is_allowed([(b"host", host.encode())], hosts.own_names("*"))


def test_a_request_without_host_comes_from_no_browser():
    assert hosts.is_allowed([], hosts.own_names())
    assert not hosts.is_allowed([(b"host", b"localhost"), (b"host", b"evil.example")], hosts.own_names())
