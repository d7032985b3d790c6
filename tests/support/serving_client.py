"""A model service and clients of it, for the tests of `ddkeras.serving`."""

import base64
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from tiny import encode

from ddkeras.cli import main
from ddkeras.serving import server
from ddkeras.serving.service import Limits, ModelService

PREDICT = "/v1/models/ddk:predict"


def b64(content: bytes) -> dict:
    """A file as the value of a request."""
    return {"b64": base64.b64encode(content).decode()}


GOOD = b64(encode())


def make_service(base: Path, **limits) -> ModelService:
    """A service of the versions in `base`; a failure to load the first one fails the test."""
    return ModelService(base, "ddk", Limits(**limits), on_failure=pytest.fail)


def wait_for(condition: Callable, seconds: float = 30):
    """What the condition returns as soon as that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError("timed out")


def wait_until_ready(client: TestClient) -> TestClient:
    """The client, once its app has loaded the model."""
    wait_for(lambda: client.get("/readyz").status_code == 200)
    return client


class RunningServer:
    """A server with a port, in a thread of this process."""

    def __init__(self, base: Path, **limits):
        self.service = make_service(base, **limits)
        self._server, self._socket = server.make_server(self.service), socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def __enter__(self) -> "RunningServer":
        self._thread.start()
        wait_for(lambda: self.service.servable)
        return self

    def __exit__(self, *error) -> None:
        self._server.should_exit = True
        self._thread.join()

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict]:
        """See `send`."""
        return send(self.port, method, path, body)

    def block_model(self) -> threading.Event:
        """Have the model withhold its results until the event is set."""
        batcher, event = self.service.servable.batcher, threading.Event()
        compute = batcher._compute

        def blocked(files: list[bytes]) -> list[dict]:
            event.wait(30)
            return compute(files)

        batcher._compute = blocked
        return event


def send(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, dict]:
    """Status code and JSON of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def post(client: TestClient, request: dict, path: str = PREDICT) -> dict:
    """The response to a request that succeeds."""
    response = client.post(path, json=request)
    assert response.status_code == 200, response.text
    return response.json()


def post_rejected(client: TestClient, request, path: str = PREDICT) -> tuple[int, str]:
    """Status code and error message of a request that is rejected."""
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    response = client.post(path, content=body)
    assert list(response.json()) == ["error"]
    return response.status_code, response.json()["error"]


def metric(name: str, client: TestClient) -> float:
    """A number in /metrics."""
    match = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(match[1]) if match else 0.0


def failing_serve(*arguments) -> str:
    """The one line that a failing `ddk serve` prints."""
    result = CliRunner().invoke(main, ["serve", *map(str, arguments)])
    assert result.exit_code == 1, result.output
    return result.stderr.splitlines()[-1]
