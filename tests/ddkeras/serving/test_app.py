"""The REST API: scores, status, metadata, limits on the body, health checks and metrics."""

import asyncio
import contextlib
import json
import re
import socket
import threading
import time

import pytest
from fastapi.testclient import TestClient
from google.protobuf import json_format
from serving_client import (
    GOOD,
    PREDICT,
    RunningServer,
    b64,
    make_service,
    metric,
    post,
    post_rejected,
    wait_until_ready,
)
from starlette.requests import Request
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tiny import CATEGORIES, encode

from ddkeras.exporting.saved_model import OUTPUTS
from ddkeras.inference.prediction import predict
from ddkeras.inference.scorers import scorer_for_run
from ddkeras.serving import app, hosts, model_versions
from ddkeras.serving.protocol import RequestError


def test_scores_equal_those_of_predict(client, run, data):
    paths = sorted(data.rglob("*.jpg"))[:5]
    rows = post(client, {"instances": [{"image_bytes": b64(path.read_bytes())} for path in paths]})["predictions"]
    assert len(rows) == 5
    for row, expected in zip(rows, predict(scorer_for_run(run), paths), strict=True):
        assert set(row) == set(OUTPUTS)
        assert row["fake_probability"] == pytest.approx(expected.fake_probability, abs=1e-4)
        assert (row["verdict"], row["category"]) == (expected.verdict, expected.category)
        assert max(row["category_probabilities"]) == pytest.approx(expected.category_probability, abs=1e-4)
        assert row["category"] in CATEGORIES


def test_all_request_formats_get_the_same_scores(client):
    files = [b64(encode(seed=1)), b64(encode("PNG", seed=2))]
    rows = post(client, {"instances": [{"image_bytes": file} for file in files]})
    assert list(rows) == ["predictions"]
    assert post(client, {"instances": files}) == rows
    assert post(client, {"signature_name": "serving_default", "instances": files}) == rows
    assert post(client, {"instances": files}, "/v1/models/ddk/versions/1:predict") == rows
    columns = post(client, {"inputs": {"image_bytes": files}})
    assert post(client, {"inputs": files}) == columns
    assert columns == {
        "outputs": {name: [row[name] for row in rows["predictions"]] for name in rows["predictions"][0]}
    }
    wrapped = [{"b64": re.sub("(.{76})", r"\1\n", file["b64"]).rstrip("=")} for file in files]
    assert post(client, {"instances": wrapped}) == rows


def test_a_request_without_images_gets_empty_outputs(client):
    assert post(client, {"inputs": []}) == {"outputs": {name: [] for name in sorted(OUTPUTS)}}


def test_unreadable_images_do_not_affect_the_others(client):
    good = [encode(seed=1), encode("PNG", seed=2)]
    bad = [b"rubbish", b"", good[0][:300], b"\xff\xd8\xff", b"GIF89a", b"BM"]
    alone = post(client, {"instances": [b64(file) for file in good]})["predictions"]
    response = client.post(PREDICT, json={"instances": [b64(file) for file in (bad[0], good[0], *bad[1:], good[1])]})
    assert '"fake_probability": NaN' in response.text
    rows = response.json()["predictions"]
    assert [row["verdict"] for row in rows[:1] + rows[2:-1]] == ["error"] * 6
    for row, expected in zip((rows[1], rows[-1]), alone, strict=True):
        assert row["fake_probability"] == pytest.approx(expected["fake_probability"], abs=1e-6)
        assert row["verdict"] == expected["verdict"]


def test_more_images_than_a_batch_are_scored_in_order(client):
    files = [encode("PNG", seed=seed) for seed in range(3)]
    rows = post(client, {"instances": [b64(files[index % 3]) for index in range(70)]})["predictions"]
    for index, row in enumerate(rows):
        assert row["logit"] == pytest.approx(rows[index % 3]["logit"], abs=1e-5)
    assert len({round(row["logit"], 4) for row in rows[:3]}) == 3


@pytest.mark.parametrize("path", ["/v1/models/ddk", "/v1/models/ddk/versions/1"])
def test_status_has_the_format_of_tensorflow_serving(client, path):
    ok = {"error_code": "OK", "error_message": ""}
    body = client.get(path).json()
    assert body == {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": ok}]}
    assert json_format.ParseDict(body, GetModelStatusResponse()).model_version_status[0].version == 1


@pytest.mark.parametrize("path", ["/v1/models/ddk/metadata", "/v1/models/ddk/versions/1/metadata"])
def test_metadata_has_the_format_of_tensorflow_serving(client, path):
    body = client.get(path).json()
    assert body["model_spec"] == {"name": "ddk", "signature_name": "", "version": "1"}
    inputs = body["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    assert inputs["image_bytes"]["dtype"] == "DT_STRING"
    assert inputs["image_bytes"]["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    response = json_format.ParseDict(body, GetModelMetadataResponse())
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
        ("POST", "/v1/models/ddk:predict/"),
        ("GET", "/v1/models/ddk/"),
        ("POST", "/v1/models/ddk:classify"),
        ("POST", "/v1/models/ddk"),
        ("GET", "/v1/"),
    ],
)
def test_other_paths_under_v1_are_malformed(running, method, path):
    status, answer = running.request(method, path, b"{}" if method == "POST" else None)
    assert status == 400
    assert answer["error"].startswith(f"Malformed request: {method} /v1/")


def test_a_version_too_large_for_a_number_is_rejected(running):
    status, answer = running.request("GET", f"/v1/models/ddk/versions/{'9' * 5000}")
    assert (status, answer["error"][:30]) == (400, "Failed to convert version: 999")


def test_other_paths_are_not_found(running):
    assert running.request("GET", "/../../etc/passwd") == (404, {"error": "Not Found: GET /../../etc/passwd"})


def test_a_body_of_200_mb_is_rejected_unread(running):
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {200 * 2**20}\r\n\r\n".encode())
        answer = connection.recv(10_000)  # before any of the body is sent
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer.lower()
        assert b'{"error":"the body has more than 33554432 bytes; --max-body allows more"}' in answer
        assert connection.recv(10_000) == b""


def test_a_body_without_content_length_is_read_up_to_the_limit(limited_client):
    response = limited_client.post(PREDICT, content=(b" " * 1000 for _ in range(1000)))
    assert (response.status_code, response.headers["connection"]) == (413, "close")


def test_a_chunked_body_is_not_read_beyond_the_limit(exported):
    sent = 0
    with (
        RunningServer(exported.parent, max_body=2**20) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection,
        contextlib.suppress(ConnectionError),
    ):
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        while sent < 200:  # MB
            connection.sendall(b"100000\r\n" + b" " * 2**20 + b"\r\n")
            sent += 1
    assert sent < 50


def test_a_slow_body_times_out(running, monkeypatch):
    monkeypatch.setattr(app, "BODY_SECONDS", 0.3)
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        answer = b"".join(iter(lambda: connection.recv(10_000), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b'{"error":"the body was not complete within 0.3 seconds"}')
    assert 0.25 < time.monotonic() - begun < 10


def test_a_client_that_disconnects_does_not_affect_others(running):
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
    body = json.dumps({"instances": [GOOD]}).encode()
    assert running.request("POST", PREDICT, body)[0] == 200


def test_an_internal_error_is_a_json_response(exported, monkeypatch):
    def fail(self, files):
        raise RuntimeError("internal details")

    monkeypatch.setattr(model_versions.Model, "score", fail)
    service = make_service(exported.parent)
    with TestClient(app.make_app(service), raise_server_exceptions=False) as client:
        response = wait_until_ready(client).post(PREDICT, json={"instances": [GOOD]})
        assert (response.status_code, response.json()) == (500, {"error": "internal error: RuntimeError"})


def test_metrics_count_requests_images_and_batches(exported):
    with TestClient(app.make_app(make_service(exported.parent))) as client:
        wait_until_ready(client)
        post(client, {"instances": [b64(b"rubbish"), GOOD]})
        post_rejected(client, b"nonsense")
        client.get("/v1/models/other")
        assert metric('ddk_requests_total{code="200"}', client) == 1
        assert metric('ddk_requests_total{code="400"}', client) == 1
        assert metric('ddk_requests_total{code="404"}', client) == 1
        assert metric('ddk_images_total{verdict="error"}', client) == 1
        assert metric("ddk_request_seconds_count", client) == 3
        assert metric("ddk_batch_images_sum", client) == 2
        assert metric("ddk_queue_images", client) == 0
        assert metric("ddk_model_version", client) == 1
        assert metric("process_resident_memory_bytes", client) > 0


def test_it_is_alive_before_it_is_ready(exported, monkeypatch):
    unblock, load = threading.Event(), model_versions.Model
    monkeypatch.setattr("ddkeras.serving.service.Model", lambda folder: unblock.wait(30) and load(folder))
    with TestClient(app.make_app(make_service(exported.parent))) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert client.get("/v1/models/ddk").status_code == 503
        assert metric("ddk_model_version", client) == 0
        unblock.set()
        wait_until_ready(client)
        assert client.get("/v1/models/ddk").status_code == 200


def test_lone_surrogates_are_malformed(client):
    for body in (rb'{"signature_name": "\ud800"}', b'{"signature_name": "\xed\xa0\x80"}', rb'{"inputs": ["\uDFFF"]}'):
        response = client.post(PREDICT, content=body)
        assert response.status_code == 400
        assert response.json()["error"] == "JSON Parse error: a string has a lone surrogate, which is no character"
    response = client.post(PREDICT, content=rb'{"signature_name": "\ud83d\ude00"}')
    assert response.json()["error"] == 'Serving signature name: "\U0001f600" not found in signature def'


def test_the_pixels_of_all_images_together_are_limited(exported):
    service = make_service(exported.parent, max_pixels=2000, max_request_pixels=4000)
    with TestClient(app.make_app(service)) as client:
        wait_until_ready(client)
        assert client.post(PREDICT, json={"instances": [GOOD] * 2}).status_code == 200  # 1,600 pixels each
        response = client.post(PREDICT, json={"instances": [GOOD] * 3})
        assert response.status_code == 413
        assert response.json()["error"].startswith("the images have more than 4,000 pixels together; send several")


def test_the_memory_of_all_requests_is_limited_and_given_back(exported):
    service = make_service(exported.parent, max_memory=10_000, max_body=10_000)
    with TestClient(app.make_app(service)) as client:
        wait_until_ready(client)
        with service.memory.share() as take:
            take(9_000)
            response = client.post(PREDICT, json={"instances": [GOOD]})
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert client.post(PREDICT, json={"instances": [GOOD]}).status_code == 200
        assert service.memory._used == 0


def test_a_request_for_another_name_is_refused(exported):
    service = make_service(exported.parent)
    with TestClient(app.make_app(service, names=hosts.own_names(["detector"]))) as client:
        assert client.get("/healthz", headers={"host": "detector:8501"}).status_code == 200
        response = client.get("/healthz", headers={"host": "evil.example"})
        assert response.status_code == 421
        assert "--allowed-hosts" in response.json()["error"]


def test_the_work_of_a_client_that_left_is_dropped(running, monkeypatch):
    cancelled = threading.Event()

    async def wait(servable, body):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with monkeypatch.context() as patched:
        patched.setattr(running.service, "predict", wait)
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
            assert not cancelled.wait(0.3)
        assert cancelled.wait(5)
    assert running.request("POST", PREDICT, json.dumps({"instances": [GOOD]}).encode())[0] == 200


def test_only_a_disconnect_cancels_an_answer_and_nothing_watches_for_one_afterwards():
    async def stay():
        await asyncio.Event().wait()

    async def leave():
        return {"type": "http.disconnect"}

    async def fail():
        raise TimeoutError("of the answer itself")

    async def answer_all():
        staying, leaving = (Request({"type": "http"}, receive) for receive in (stay, leave))
        assert await app._unless_disconnected(staying, asyncio.sleep(0.01, b"{}")) == b"{}"
        with pytest.raises(TimeoutError, match="of the answer itself"):
            await app._unless_disconnected(staying, fail())
        with pytest.raises(RequestError, match="the client went away"):
            await app._unless_disconnected(leaving, asyncio.sleep(30, b"{}"))
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(answer_all())


def test_headers_that_are_too_long_close_the_connection(running):
    with socket.create_connection(("127.0.0.1", running.port)) as connection, contextlib.suppress(OSError):
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        for number in range(200):
            connection.sendall(b"X-%d: %s\r\n" % (number, b"x" * 1000))
        connection.settimeout(5)
        assert connection.recv(100) == b""
    assert running.request("GET", "/v1/models/ddk")[0] == 200
