"""What a server answers: to requests as TensorFlow Serving knows them, to too much, and to what is broken."""

import asyncio
import base64
import contextlib
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import weakref
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from google.protobuf import json_format
from PIL import Image
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tiny import CATEGORIES, REPOSITORY, encode, start_ddk

from ddkeras.cli import main
from ddkeras.exceptions import ConfigError
from ddkeras.exporting import bundle
from ddkeras.exporting.saved_model import OUTPUTS, export_saved_model
from ddkeras.inference.prediction import predict
from ddkeras.inference.scorers import of_run
from ddkeras.serving import app, model_versions, server, sockets, tensorflow_serving
from ddkeras.serving.batching import Batcher, QueueFullError
from ddkeras.serving.service import Limits, Service

PREDICT = "/v1/models/ddk:predict"


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    return export_saved_model(run, tmp_path_factory.mktemp("export"))


@pytest.fixture
def base(exported, tmp_path) -> Path:
    """A folder of its own with version 1."""
    shutil.copytree(exported, tmp_path / "base" / "1")
    return tmp_path / "base"


def make_service(base: Path, **limits) -> Service:
    return Service(base, "ddk", Limits(**limits), failed=pytest.fail)


def wait_for(condition, seconds: float = 30):
    """What the condition returns as soon as that is true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def ready(client: TestClient) -> TestClient:
    wait_for(lambda: client.get("/readyz").status_code == 200)
    return client


@pytest.fixture(scope="module")
def client(exported):
    """A client of the app, without a network between."""
    with TestClient(app.make_app(make_service(exported.parent)), raise_server_exceptions=False) as client:
        yield ready(client)


@pytest.fixture
def strict(exported):
    """A client of an app that allows little."""
    limits = {"max_body": 100_000, "max_pixels": 2000, "max_images": 5}
    with TestClient(app.make_app(make_service(exported.parent, **limits))) as client:
        yield ready(client)


class Running:
    """A server with a port, in a thread of this process."""

    def __init__(self, base: Path, **limits):
        self.service = make_service(base, **limits)
        self._server, self._socket = server.make_server(self.service), socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def __enter__(self) -> "Running":
        self._thread.start()
        wait_for(lambda: self.service.served)
        return self

    def __exit__(self, *error) -> None:
        self._server.should_exit = True
        self._thread.join()

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict]:
        return ask(self.port, method, path, body)


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def running(exported):
    with Running(exported.parent) as running:
        yield running


def b64(content: bytes) -> dict:
    return {"b64": base64.b64encode(content).decode()}


def asked(client: TestClient, request: dict, path: str = PREDICT) -> dict:
    response = client.post(path, json=request)
    assert response.status_code == 200, response.text
    return response.json()


def refused(client: TestClient, request, path: str = PREDICT) -> tuple[int, str]:
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    response = client.post(path, content=body)
    assert list(response.json()) == ["error"]
    return response.status_code, response.json()["error"]


def of(counted: str, client: TestClient) -> float:
    """A number in /metrics."""
    found = re.search(rf"^{re.escape(counted)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


# --- answers ---------------------------------------------------------------------------------------------------


def test_served_scores_are_those_of_predict(client, run, data):
    paths = sorted(data.rglob("*.jpg"))[:5]
    rows = asked(client, {"instances": [{"image_bytes": b64(path.read_bytes())} for path in paths]})["predictions"]
    assert len(rows) == 5
    for row, expected in zip(rows, predict(of_run(run), paths), strict=True):
        assert set(row) == set(OUTPUTS)
        assert row["fake_probability"] == pytest.approx(expected.fake_probability, abs=1e-4)
        assert (row["verdict"], row["category"]) == (expected.verdict, expected.category)
        assert max(row["category_probabilities"]) == pytest.approx(expected.category_probability, abs=1e-4)
        assert row["category"] in CATEGORIES


def test_all_forms_of_a_request_have_the_same_answer(client):
    files = [b64(encode(seed=1)), b64(encode("PNG", seed=2))]
    rows = asked(client, {"instances": [{"image_bytes": file} for file in files]})
    assert list(rows) == ["predictions"]
    assert asked(client, {"instances": files}) == rows
    assert asked(client, {"signature_name": "serving_default", "instances": files}) == rows
    assert asked(client, {"instances": files}, "/v1/models/ddk/versions/1:predict") == rows
    columns = asked(client, {"inputs": {"image_bytes": files}})
    assert asked(client, {"inputs": files}) == columns
    assert columns == {
        "outputs": {name: [row[name] for row in rows["predictions"]] for name in rows["predictions"][0]}
    }
    wrapped = [{"b64": re.sub("(.{76})", r"\1\n", file["b64"]).rstrip("=")} for file in files]
    assert asked(client, {"instances": wrapped}) == rows


def test_no_images_have_no_answers(client):
    assert asked(client, {"inputs": []}) == {"outputs": {name: [] for name in sorted(OUTPUTS)}}


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (17, 90), (45, 33)])
def test_pixels_have_the_score_of_the_file_that_holds_them(client, size):
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    files = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        files.append(b64(buffer.getvalue()))
    expected = asked(client, {"instances": files})
    by_row = {"signature_name": "images", "instances": [{"images": image.tolist()} for image in pixels]}
    assert asked(client, by_row) == expected
    assert asked(client, {"signature_name": "images", "instances": pixels.tolist()}) == expected
    columns = asked(client, {"signature_name": "images", "inputs": {"images": pixels.tolist()}})["outputs"]
    assert columns["logit"] == [row["logit"] for row in expected["predictions"]]


def test_one_bad_image_leaves_the_others_their_scores(client):
    good = [encode(seed=1), encode("PNG", seed=2)]
    bad = [b"rubbish", b"", good[0][:300], b"\xff\xd8\xff", b"GIF89a", b"BM"]
    alone = asked(client, {"instances": [b64(file) for file in good]})["predictions"]
    response = client.post(PREDICT, json={"instances": [b64(file) for file in (bad[0], good[0], *bad[1:], good[1])]})
    assert '"fake_probability": NaN' in response.text
    rows = response.json()["predictions"]
    assert [row["verdict"] for row in rows[:1] + rows[2:-1]] == ["error"] * 6
    for row, expected in zip((rows[1], rows[-1]), alone, strict=True):
        assert row["fake_probability"] == pytest.approx(expected["fake_probability"], abs=1e-6)
        assert row["verdict"] == expected["verdict"]


def test_numbers_are_as_short_as_they_can_be(client):
    (row,) = asked(client, {"instances": [b64(encode(seed=3))]})["predictions"]
    assert len(repr(row["fake_probability"]).replace("e-0", "")) <= 13
    assert np.float32(row["logit"]) == pytest.approx(row["logit"], rel=1e-7)


def test_more_images_than_a_batch_are_answered_in_order(client):
    files = [encode("PNG", seed=seed) for seed in range(3)]
    rows = asked(client, {"instances": [b64(files[index % 3]) for index in range(70)]})["predictions"]
    for index, row in enumerate(rows):
        assert row["logit"] == pytest.approx(rows[index % 3]["logit"], abs=1e-5)
    assert len({round(row["logit"], 4) for row in rows[:3]}) == 3


# --- status and metadata ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/models/ddk", "/v1/models/ddk/versions/1"])
def test_the_status_is_as_tensorflow_serving_tells_it(client, path):
    fine = {"error_code": "OK", "error_message": ""}
    told = client.get(path).json()
    assert told == {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": fine}]}
    assert json_format.ParseDict(told, GetModelStatusResponse()).model_version_status[0].version == 1


@pytest.mark.parametrize("path", ["/v1/models/ddk/metadata", "/v1/models/ddk/versions/1/metadata"])
def test_the_metadata_are_those_of_tensorflow_serving(client, path):
    told = client.get(path).json()
    assert told["model_spec"] == {"name": "ddk", "signature_name": "", "version": "1"}
    inputs = told["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    assert inputs["image_bytes"]["dtype"] == "DT_STRING"
    assert inputs["image_bytes"]["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    response = json_format.ParseDict(told, GetModelMetadataResponse())
    assert response.model_spec.version.value == 1
    signatures = SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "images"} <= set(signatures.signature_def)
    assert set(signatures.signature_def["images"].outputs) == set(OUTPUTS)


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "/v1/models/other", "Could not find any versions of model other"),
        ("GET", "/v1/models/ddk/versions/2", "Could not find version 2 of model ddk"),
        ("GET", "/v1/models/other/metadata", "Servable not found for request: Latest(other)"),
        ("GET", "/v1/models/ddk/versions/9/metadata", "Servable not found for request: Specific(ddk, 9)"),
        ("POST", "/v1/models/other:predict", "Servable not found for request: Latest(other)"),
        ("POST", "/v1/models/ddk/versions/2:predict", "Servable not found for request: Specific(ddk, 2)"),
    ],
)
def test_an_unknown_model_or_version_is_not_found(client, method, path, error):
    response = client.request(method, path, content=b"{}" if method == "POST" else None)
    assert (response.status_code, response.json()) == (404, {"error": error})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/../x"),
        ("GET", "/v1/models/..%2f..%2fetc%2fpasswd"),
        ("GET", "/v1/models/ddk:predict"),
        ("GET", "/v1/models/ddk/versions/-1"),
        ("GET", "/v1/models/ddk/versions/../1"),
        ("GET", "/v1/models/ddk/versions/1/../../../x"),
        ("POST", "/v1/models/ddk:classify"),
        ("POST", "/v1/models/ddk"),
        ("GET", "/v1/"),
    ],
)
def test_other_paths_are_malformed(running, method, path):
    status, answer = running.ask(method, path, b"{}" if method == "POST" else None)
    assert status == 400
    assert answer["error"].startswith(f"Malformed request: {method} /v1/")


def test_a_version_beyond_all_numbers_is_no_version(running):
    status, answer = running.ask("GET", f"/v1/models/ddk/versions/{'9' * 5000}")
    assert (status, answer["error"][:30]) == (400, "Failed to convert version: 999")


def test_elsewhere_nothing_is(running):
    assert running.ask("GET", "/../../etc/passwd") == (404, {"error": "Not Found: GET /../../etc/passwd"})


# --- what is malformed -----------------------------------------------------------------------------------------

GOOD = b64(encode())


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"{nonsense", "JSON Parse error: Expecting property name enclosed in double quotes at offset: 1"),
        (b"\xff\xfe\xfd", "JSON Parse error: "),
        (b"[" * 100_000, "JSON Parse error: "),
        (b"[1]", "JSON Value: [1] Is not object"),
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"instances": [GOOD], "inputs": [GOOD]}, "JSON Value: {"),
        ({"instances": []}, "JSON Value: {\"instances\": []} No values in 'instances' array"),
        ({"instances": 3}, "JSON Value: {\"instances\": 3} Excepting 'instances' to be an list/array"),
        ({"instances": [GOOD], "signature_name": "x"}, 'Serving signature name: "x" not found in signature def'),
        (
            {"signature_name": 3},
            'JSON Value: {"signature_name": 3} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
        (
            {"instances": [{"image": GOOD}]},
            "Failed to process element: 0 key: image of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON object: does not have named input: image",
        ),
        (
            {"instances": [{"image_bytes": GOOD}, {}]},
            "Failed to process element: 1 of 'instances' list. JSON object: {} keys must be equal to: image_bytes",
        ),
        ({"instances": [{"image_bytes": GOOD}, GOOD]}, "Expecting object but got list at item 1 of input list"),
        ({"instances": [GOOD, {"image_bytes": GOOD}]}, "Expecting value/list but got object at item 1 of input list"),
        (
            {"instances": [GOOD, "plain"]},
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
            'JSON Value: "plain" not formatted correctly for base64 data',
        ),
        (
            {"instances": [{"image_bytes": {"b65": ""}}]},
            "Failed to process element: 0 key: image_bytes of 'instances' list. Error: INVALID_ARGUMENT: "
            'JSON Value: {"b65": ""} not formatted correctly for base64 data',
        ),
        (
            {"instances": [{"b64": "?!"}]},
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: Unable to base64 decode",
        ),
        ({"inputs": {"image_bytes": [{"b64": "A"}]}}, "Unable to base64 decode"),
        ({"inputs": {"other": [GOOD]}}, "Missing named input: image_bytes in 'inputs' object."),
        ({"inputs": {"b64": "AAAA"}}, "JSON Value: {"),
        (
            {"signature_name": "images", "inputs": [[[[0, 0, 256]]]]},
            "JSON Value: [[[0, 0, 256]]] is not of expected type",
        ),
        (
            {"signature_name": "images", "inputs": [[[[0, 0, 0.5]]]]},
            "JSON Value: [[[0, 0, 0.5]]] is not of expected ",
        ),
        ({"signature_name": "images", "inputs": [[[0, 0, 0]]]}, "Expecting shape [height,width,3] but got: [1,3]"),
        ({"signature_name": "images", "inputs": [[[[0, 0, 0]], [[0, 0]]]]}, "Encountered list at unexpected size"),
        ({"signature_name": "images", "inputs": [[[]]]}, "Expecting shape [height,width,3] but got: [1,0]"),
        (
            {"signature_name": "images", "inputs": [[[[0, 0, 0]]], [[[0, 0, 0], [0, 0, 0]]]]},
            "Expecting shape [1,1,3] but got: [1,2,3]",
        ),
    ],
)
def test_what_is_malformed_is_refused_in_one_line(client, request_, error):
    status, message = refused(client, request_)
    assert status == 400
    assert message.startswith(error)
    assert len(message) < 300
    if len(error) > 60:
        assert message == error


# --- limits ----------------------------------------------------------------------------------------------------


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is large, in few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(client):
    status, error = refused(client, {"instances": [b64(encode()), b64(bomb(50_000, 50_000))]})
    assert (status, error) == (413, "image 1: 50000 x 50000 pixels, more than 50,000,000; --max-pixels allows more")
    status, error = refused(client, {"instances": [b64(bomb(10_000, 6_000))]})
    assert (status, error) == (413, "image 0: 10000 x 6000 pixels, more than 50,000,000; --max-pixels allows more")


def test_pixels_in_lists_are_counted_too(strict):
    line = [[[0, 0, 0]] * 2001]
    assert refused(strict, {"signature_name": "images", "inputs": [line]})[0] == 413
    asked(strict, {"signature_name": "images", "inputs": [[line[0][:2000]]]})


def test_a_gif_is_cut_off_after_the_image_that_is_scored(client):
    frames = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)) for seed in (0, 1)]
    one, two = io.BytesIO(), io.BytesIO()
    frames[0].save(one, "GIF", comment=b"a comment")
    frames[0].save(two, "GIF", save_all=True, append_images=frames[1:], comment=b"a comment")
    rows = asked(client, {"instances": [b64(one.getvalue()), b64(two.getvalue())]})["predictions"]
    assert rows[0]["logit"] == pytest.approx(rows[1]["logit"], abs=1e-6)
    assert rows[0]["verdict"] != "error"


def test_a_request_of_too_many_images_is_refused(client, strict):
    assert refused(client, {"instances": [b64(b"")] * 10_000}) == (
        413,
        "10000 images, more than 1,000; --max-images allows more",
    )
    assert refused(strict, {"inputs": [b64(b"")] * 6})[0] == 413
    assert len(asked(strict, {"instances": [b64(b"")] * 5})["predictions"]) == 5


def test_a_body_of_200_mb_is_refused_unread(running):
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {200 * 2**20}\r\n\r\n".encode())
        answer = connection.recv(10_000)  # while nothing of the body was sent
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer.lower()
        assert b'{"error":"the body has more than 33554432 bytes; --max-body allows more"}' in answer
        assert connection.recv(10_000) == b""


def test_a_body_that_does_not_say_its_length_is_read_up_to_the_limit(strict):
    response = strict.post(PREDICT, content=(b" " * 1000 for _ in range(1000)))
    assert (response.status_code, response.headers["connection"]) == (413, "close")


def test_a_chunked_body_is_not_read_beyond_the_limit(exported):
    sent = 0
    with (
        Running(exported.parent, max_body=2**20) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection,
        contextlib.suppress(ConnectionError),
    ):
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        while sent < 200:  # MB
            connection.sendall(b"100000\r\n" + b" " * 2**20 + b"\r\n")
            sent += 1
    assert sent < 50


def test_a_slow_client_is_sent_away(running, monkeypatch):
    monkeypatch.setattr(app, "BODY_SECONDS", 0.3)
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        answer = b"".join(iter(lambda: connection.recv(10_000), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b'{"error":"the body was not complete within 0.3 seconds"}')
    assert 0.25 < time.monotonic() - begun < 10


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: "])
def test_who_says_nothing_or_never_ends_is_hung_up_on(running, monkeypatch, sent):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
        connection.sendall(sent)
        assert connection.recv(10_000) == b""
        assert 0.25 < time.monotonic() - begun < 10


def test_who_asks_again_is_given_time_again(running, monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
        for _ in range(4):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.3)


def test_connections_beyond_the_limit_are_told_so(exported, monkeypatch):
    monkeypatch.setattr(server, "CONNECTIONS", 4)
    with Running(exported.parent) as running, contextlib.ExitStack() as held:

        def status() -> int:
            connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
            with contextlib.closing(connection):
                connection.request("GET", "/healthz")
                return connection.getresponse().status

        assert status() == 200
        for _ in range(3):
            held.enter_context(socket.create_connection(("127.0.0.1", running.port)))
        wait_for(lambda: status() == 503)
        held.close()
        wait_for(lambda: status() == 200)


def test_a_client_that_leaves_harms_nobody(running):
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
    body = json.dumps({"instances": [GOOD]}).encode()
    assert running.ask("POST", PREDICT, body)[0] == 200


def test_a_full_queue_is_said_with_429_and_when_to_try_again(exported):
    with Running(exported.parent, max_queue=4, max_batch=2) as running:
        go = slow_down(running.service)
        body = json.dumps({"instances": [GOOD, GOOD]}).encode()
        with ThreadPoolExecutor(8) as pool:
            taken = [pool.submit(running.ask, "POST", PREDICT, body) for _ in range(3)]  # 2 computed, 4 waiting
            wait_for(lambda: running.service.served.batcher.waiting == 4)
            connection = http.client.HTTPConnection("127.0.0.1", running.port)
            connection.request("POST", PREDICT, body)
            response = connection.getresponse()
            assert (response.status, response.headers["retry-after"]) == (429, "1")
            assert json.loads(response.read()) == {"error": "4 images wait already; try again later"}
            assert b"ddk_queue_images 4.0" in running.service.meters.text()
            go.set()
            assert [future.result()[0] for future in taken] == [200] * 3


def slow_down(service: Service) -> threading.Event:
    """Have the model wait with its answers until the event is set."""
    go, compute = threading.Event(), service.served.batcher._compute

    def slowly(files: list[bytes]) -> list[dict]:
        go.wait(30)
        return compute(files)

    service.served.batcher._compute = slowly
    return go


# --- batches ---------------------------------------------------------------------------------------------------


def batched(requests: list[list[bytes]], **sizes) -> tuple[list[list[bytes]], list]:
    """The batches that concurrent requests come in, and their answers: each image's last byte."""
    batches = []

    def compute(images: list[bytes]) -> list[int]:
        batches.append(images)
        time.sleep(0.02)
        if b"boom" in images:
            raise MemoryError("boom")
        return [image[-1] for image in images]

    async def ask_all():
        with ThreadPoolExecutor(2) as pool:
            batcher = Batcher(compute, pool, **{"max_batch": 4, "max_delay": 0.05, "max_queue": 100} | sizes)
            return await asyncio.gather(*(batcher.answer(images) for images in requests), return_exceptions=True)

    return batches, asyncio.run(ask_all())


def test_images_of_many_requests_share_batches_of_bounded_size():
    requests = [[bytes([index])] for index in range(30)]
    batches, answers = batched(requests)
    assert answers == [[index] for index in range(30)]
    assert max(map(len, batches)) == 4
    assert len(batches) <= 9


def test_a_request_may_be_spread_over_batches():
    batches, answers = batched([[bytes([index]) for index in range(10)], [b"\xff"]])
    assert answers == [list(range(10)), [255]]
    assert sorted(map(len, batches)) == [3, 4, 4]


def test_a_lone_image_waits_no_longer_than_the_delay():
    begun = time.monotonic()
    batches, answers = batched([[b"a"]], max_delay=0.1)
    assert (batches, answers) == ([[b"a"]], [[97]])
    assert 0.1 < time.monotonic() - begun < 0.6


def test_a_batch_that_fails_fails_its_requests_alone():
    _, answers = batched([[b"boom"], [b"b"], [b"c"]], max_batch=1)
    assert isinstance(answers[0], MemoryError)
    assert answers[1:] == [[98], [99]]


def test_a_full_queue_refuses_but_never_one_that_finds_it_empty():
    _, answers = batched([[b"a"] * 9, [b"b"]], max_queue=5)
    assert answers[0] == [97] * 9
    assert isinstance(answers[1], QueueFullError)
    assert batched([[]])[1] == [[]]


def test_concurrent_requests_are_scored_together(exported):
    with Running(exported.parent, max_batch=8, max_delay=0.05) as running:
        body = json.dumps({"instances": [GOOD]}).encode()
        with ThreadPoolExecutor(16) as pool:
            codes = [code for code, _ in pool.map(lambda _: running.ask("POST", PREDICT, body), range(48))]
        assert codes == [200] * 48
        text = running.service.meters.text().decode()
    batches = float(re.search(r"ddk_batch_images_count (\S+)", text)[1])
    assert float(re.search(r"ddk_batch_images_sum (\S+)", text)[1]) == 48
    assert float(re.search(r'ddk_batch_images_bucket{le="8.0"} (\S+)', text)[1]) == batches < 30


def test_what_goes_wrong_inside_is_an_answer_too(exported, monkeypatch):
    def fail(self, files):
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr(model_versions.Model, "score", fail)
    service = make_service(exported.parent)
    with TestClient(app.make_app(service), raise_server_exceptions=False) as client:
        response = ready(client).post(PREDICT, json={"instances": [GOOD]})
        assert (response.status_code, response.json()) == (500, {"error": "internal error: RuntimeError"})


# --- signs of life ---------------------------------------------------------------------------------------------


def test_metrics_count_requests_images_and_batches(exported):
    with TestClient(app.make_app(make_service(exported.parent))) as client:
        ready(client)
        asked(client, {"instances": [b64(b"rubbish"), GOOD]})
        refused(client, b"nonsense")
        client.get("/v1/models/other")
        assert of('ddk_requests_total{code="200"}', client) == 1
        assert of('ddk_requests_total{code="400"}', client) == 1
        assert of('ddk_requests_total{code="404"}', client) == 1
        assert of('ddk_images_total{verdict="error"}', client) == 1
        assert of("ddk_request_seconds_count", client) == 3
        assert of("ddk_batch_images_sum", client) == 2
        assert of("ddk_queue_images", client) == 0
        assert of("ddk_model_version", client) == 1
        assert of("process_resident_memory_bytes", client) > 0


def test_it_is_alive_before_it_is_ready(exported, monkeypatch):
    go, load = threading.Event(), app.Model
    monkeypatch.setattr("ddkeras.serving.service.Model", lambda folder: go.wait(30) and load(folder))
    with TestClient(app.make_app(make_service(exported.parent))) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert client.get("/v1/models/ddk").status_code == 503
        assert of("ddk_model_version", client) == 0
        go.set()
        ready(client)
        assert client.get("/v1/models/ddk").status_code == 200


def test_it_is_warm_before_it_is_ready(exported, monkeypatch):
    warmed = []
    monkeypatch.setattr(model_versions.Model, "_warm_up", lambda self, path: warmed.append(path.exists()))
    model_versions.Model(exported)
    assert warmed == [True]


# --- versions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda folder: (folder / "labels.txt").write_text("cats\n"), "labels.txt"),
        (lambda folder: (folder / "labels.txt").unlink(), "labels.txt"),
        (lambda folder: (folder / "more.txt").touch(), "more.txt"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "SHA256SUMS"),
        (lambda folder: (folder / "SHA256SUMS").write_text("nonsense\n"), "SHA256SUMS"),
        (lambda folder: (folder / "SHA256SUMS").write_text(""), "assets.extra"),
    ],
)
def test_an_export_with_a_changed_file_is_refused(base, harm, named):
    harm(base / "1")
    with pytest.raises(ConfigError, match=rf"base/1 is no export of ddk, or was changed since \({named}"):
        model_versions.Model(model_versions.highest_version(base))


def test_a_saved_model_without_a_model_card_is_refused(base):
    (base / "1" / "model_card.json").unlink()
    sums = base / "1" / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.open() if "model_card" not in line))
    with pytest.raises(ConfigError, match=r"model_card\.json"):
        model_versions.Model(model_versions.highest_version(base))


def test_versions_are_numbers_inside_the_folder(base, tmp_path):
    shutil.copytree(base / "1", tmp_path / "elsewhere")
    (base / "9").symlink_to(tmp_path / "elsewhere")
    (base / "10").mkdir()
    (base / "5").touch()
    (base / ".7-partial-3").mkdir()
    assert [path.name for path in bundle.find_versions(base)] == ["10", "1"]


def test_a_new_version_takes_over_without_a_failed_request(base, monkeypatch):
    monkeypatch.setattr("ddkeras.serving.service.POLL", 0.1)
    monkeypatch.setattr(model_versions.Model, "metadata", lambda self, name: {"version": self.version})
    body = json.dumps({"instances": [GOOD] * 3}).encode()
    codes, stop = [], threading.Event()

    def load(running: Running) -> None:
        while not stop.is_set():
            codes.append(running.ask("POST", PREDICT, body)[0])

    with Running(base, max_batch=2) as running, ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(load, running)
        wait_for(lambda: len(codes) > 10)
        first = weakref.ref(running.service.served)
        shutil.copytree(base / "1", base / ".2-partial")
        os.rename(base / ".2-partial", base / "2")
        wait_for(lambda: running.service.served.model.version == 2)
        before = len(codes)
        wait_for(lambda: len(codes) > before + 10)
        stop.set()
        pool.shutdown()
        assert set(codes) == {200}
        assert running.ask("GET", "/v1/models/ddk/metadata") == (200, {"version": 2})
        assert running.ask("GET", "/v1/models/ddk/versions/1")[0] == 404
        wait_for(lambda: first() is None)  # the old version is let go


def test_a_request_that_is_in_is_answered_by_the_version_it_came_to(base, monkeypatch):
    monkeypatch.setattr("ddkeras.serving.service.POLL", 0.1)
    with Running(base) as running, ThreadPoolExecutor(1) as pool:
        go, first = slow_down(running.service), running.service.served
        asking = pool.submit(running.ask, "POST", "/v1/models/ddk/versions/1:predict", json.dumps({"inputs": [GOOD]}))
        wait_for(lambda: first.batcher._task)
        shutil.copytree(base / "1", base / "2")
        wait_for(lambda: running.service.served is not first)
        go.set()
        assert asking.result()[0] == 200


def test_a_new_version_that_cannot_be_loaded_is_told_once_and_the_old_one_goes_on(base, monkeypatch, caplog):
    monkeypatch.setattr("ddkeras.serving.service.POLL", 0.05)
    with Running(base) as running:
        shutil.copytree(base / "1", base / ".2")
        (base / ".2" / "labels.txt").write_text("cats\n")
        os.rename(base / ".2", base / "2")
        wait_for(lambda: caplog.messages)
        time.sleep(0.5)
        assert len(caplog.messages) == 1
        assert "version 2 is not taken: " in caplog.messages[0]
        assert "base/2 is no export of ddk, or was changed since (labels.txt)" in caplog.messages[0]
        assert running.ask("POST", PREDICT, json.dumps({"inputs": [GOOD]}).encode())[0] == 200
        shutil.copy(base / "1" / "labels.txt", base / "2" / "labels.txt")
        wait_for(lambda: running.service.served.model.version == 2)


# --- the command -----------------------------------------------------------------------------------------------


def mistake(*arguments) -> str:
    """The one line of a command that fails."""
    result = CliRunner().invoke(main, ["serve", *map(str, arguments)])
    assert result.exit_code == 1, result.output
    return result.stderr.splitlines()[-1]


@pytest.fixture
def started(base):
    """`ddk serve` in a process of its own, and its port."""
    process = start_ddk(base.parent, "serve", "base", "--port", 0, "--max-batch", 1, "--max-delay", 0)
    try:
        line = next(line for line in process.stderr if line.startswith("serving "))  # after what TensorFlow says
        assert line.startswith("serving ddk version 1 on http://127.0.0.1:")
        assert "| curl -d @- http://127.0.0.1:" in line
        yield process, int(re.search(r"127\.0\.0\.1:(\d+)", line)[1])
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_finish_and_exits_with_0(started, number):
    process, port = started
    body = json.dumps({"instances": [GOOD] * 1000}).encode()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, port, "POST", PREDICT, body)
        wait_for(lambda: b"ddk_queue_images 0.0" not in metrics_of(port))
        process.send_signal(number)
        status, answer = asking.result()
    assert (status, len(answer["predictions"])) == (200, 1000)
    assert process.wait(20) == 0
    assert process.stdout.read().startswith("stopped after ")
    with pytest.raises(ConnectionRefusedError):
        ask(port, "GET", "/healthz")


def metrics_of(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        return response.read()


def test_the_line_it_prints_can_be_run_and_the_client_script_speaks_to_it(started, base):
    _, port = started
    Path(base.parent, "photo.jpg").write_bytes(encode())
    script = """(printf '{"instances":[{"b64":"'; base64 -w0 photo.jpg; printf '"}]}')"""
    body = subprocess.run(["bash", "-c", script], capture_output=True, check=True, cwd=base.parent).stdout
    status, answer = ask(port, "POST", PREDICT, body)
    assert status == 200
    client = REPOSITORY / "scripts/serving/client.py"
    done = subprocess.run(
        [sys.executable, client, base.parent / "photo.jpg", "--url", f"http://127.0.0.1:{port}"],
        capture_output=True,
        check=True,
    )
    assert done.stdout.split()[1].decode() == answer["predictions"][0]["verdict"]


def test_without_a_name_the_newest_export_is_served(tmp_path):
    for name, changed in (("a", 100), ("b", 200), ("c", 50), ("d", 300)):
        (tmp_path / "export" / name / "1").mkdir(parents=True)
        (tmp_path / "export" / name / "1" / ("saved_model.pb" if name != "d" else "model.onnx")).touch()
        os.utime(tmp_path / "export" / name / "1", (changed, changed))
    assert model_versions.newest_export(tmp_path / "export").name == "b"


def test_mistakes_are_told_in_one_line(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert mistake() == "Error: artifacts/export holds no export; make one with: ddk export"
    assert mistake("nowhere") == "Error: nowhere holds no version of a model; make one with: ddk export"
    assert mistake("base/1") == "Error: base/1 is one version; give the folder that holds the versions: base"
    assert mistake("base", "--name", "a/b") == "Error: --name 'a/b' cannot be in a URL; leave out : and /"
    with sockets.bind("127.0.0.1", 0) as taken:  # while it loads its model
        port = taken.getsockname()[1]
        told = f"Error: cannot listen on 127.0.0.1:{port}: Address already in use; give another --host or --port"
        assert mistake("base", "--port", port) == told
    (base / "1" / "labels.txt").write_text("cats\n")
    assert "base/1 is no export of ddk, or was changed since (labels.txt)" in mistake("base")


def test_what_cannot_be_loaded_ends_the_command(base, monkeypatch):
    def fail(folder):
        raise RuntimeError("no such op\nin a traceback")

    monkeypatch.setattr("ddkeras.serving.service.Model", fail)
    assert mistake(base, "--port", 0) == f"Error: {base} cannot be loaded: no such op"


def test_without_the_extra_it_says_how_to_get_it(base):
    script = (
        f"import sys; sys.modules['fastapi'] = None\nfrom ddkeras.cli import main; main(['serve', {str(base)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: a server needs FastAPI; install it with: pip install 'ddkeras[serve]'\n"


# --- TensorFlow Serving's own ----------------------------------------------------------------------------------


@pytest.fixture
def fake_server(tmp_path, monkeypatch):
    """A tensorflow_model_server that prints what it is asked for."""
    program = tmp_path / "bin" / "tensorflow_model_server"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_the_other_engine_is_tensorflow_servings_own_server(base, fake_server):
    process = start_ddk(base.parent, "serve", "base", "--engine", "tfserving", "--host", "0.0.0.0", "--port", 9999)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    said = dict(line.removeprefix("--").split("=") for line in output.split() if "=" in line)
    assert (said["rest_api_port"], said["port"], said["model_name"]) == ("9999", "8500", "ddk")
    assert said["model_base_path"] == str(base.resolve())
    assert "--enable_batching" in output.split()
    assert "max_batch_size" in Path(said["batching_parameters_file"]).read_text()
    assert "prometheus_config" in Path(said["monitoring_config_file"]).read_text()


def test_the_other_engine_is_not_bound_where_it_was_not_asked_to_be(base, fake_server):
    assert "cannot be kept to 127.0.0.1" in mistake(base, "--engine", "tfserving")


def test_the_other_engine_has_to_be_there(base, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "tensorflow_model_server is not on the PATH" in mistake(base, "--engine", "tfserving", "--host", "0.0.0.0")


@pytest.mark.skipif(not shutil.which("tensorflow_model_server"), reason="tensorflow_model_server is not on the PATH")
def test_tensorflow_serving_answers_alike(exported, client):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = tensorflow_serving.command(exported.parent, name="ddk", host="0.0.0.0", port=port)
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(port) and ask(port, "GET", "/v1/models/ddk")[0] == 200, 60)
        request = {"instances": [GOOD, b64(b"rubbish")]}
        theirs = ask(port, "POST", PREDICT, json.dumps(request).encode())[1]["predictions"]
        ours = asked(client, request)["predictions"]
        assert [row["verdict"] for row in theirs] == [row["verdict"] for row in ours]
        assert theirs[0]["logit"] == pytest.approx(ours[0]["logit"], abs=1e-4)
    finally:
        process.terminate()
        process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
