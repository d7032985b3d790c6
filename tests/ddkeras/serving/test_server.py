"""The process of `ddk serve`: timeouts, connection limits, signals and user errors."""

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import schemas
from serving_client import GOOD, PREDICT, RunningServer, failing_serve, send, wait_for
from tiny import REPOSITORY, encode, start_ddk

from ddkeras import serving
from ddkeras.serving import server, sockets


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: "])
def test_a_connection_without_complete_headers_is_closed(running, monkeypatch, sent):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
        connection.sendall(sent)
        assert connection.recv(10_000) == b""
        assert 0.25 < time.monotonic() - begun < 10


def test_the_header_timeout_starts_anew_with_each_request(running, monkeypatch):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
        for _ in range(4):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.3)


def test_connections_beyond_the_limit_get_503(exported, monkeypatch):
    monkeypatch.setattr(server, "CONNECTIONS", 4)
    with RunningServer(exported.parent) as running, contextlib.ExitStack() as held:

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


@pytest.mark.parametrize(("number", "form"), [(signal.SIGTERM, []), (signal.SIGINT, ["--json"])])
def test_a_signal_lets_requests_finish_and_exits_with_0(base, number, form):
    process = start_ddk(base.parent, "serve", "base", "--port", 0, "--max-batch", 1, "--max-delay", 0, *form)
    try:
        line = next(line for line in process.stderr if line.startswith("serving "))  # after TensorFlow's messages
        assert line.startswith("serving ddk version 1 on http://127.0.0.1:")
        assert "| curl -d @- http://127.0.0.1:" in line
        port = int(re.search(r"127\.0\.0\.1:(\d+)", line)[1])
        body = json.dumps({"instances": [GOOD] * 300}).encode()
        with ThreadPoolExecutor(1) as pool:
            response = pool.submit(send, port, "POST", PREDICT, body)
            wait_for(lambda: b"ddk_queue_images 0.0" not in metrics_of(port))
            process.send_signal(number)
            status, answer = response.result()
        assert (status, len(answer["predictions"])) == (200, 300)
        assert process.wait(20) == 0
        printed = process.stdout.read()
        if form:
            schemas.check_output("serve", printed)
            told = json.loads(printed)
            assert (told["model"], told["version"]) == ("ddk", 1)
            assert told["requests"] >= 2, "one of the client, the others of its queries of /metrics"
        else:
            assert printed.startswith("stopped after ")
        with pytest.raises(ConnectionRefusedError):
            send(port, "GET", "/healthz")
    finally:
        process.kill()
        process.communicate()


def metrics_of(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        return response.read()


def test_the_body_of_the_printed_command_and_the_client_script_work(running, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(encode())
    script = """(printf '{"instances":[{"b64":"'; base64 -w0 photo.jpg; printf '"}]}')"""
    assert script in server._format_ready("ddk", 1, "http://127.0.0.1:8501")
    body = subprocess.run(["bash", "-c", script], capture_output=True, check=True, cwd=tmp_path).stdout
    status, answer = running.request("POST", PREDICT, body)
    assert status == 200
    client = REPOSITORY / "scripts/serving/client.py"
    done = subprocess.run(
        [sys.executable, client, tmp_path / "photo.jpg", "--url", f"http://127.0.0.1:{running.port}"],
        capture_output=True,
        check=True,
    )
    assert done.stdout.split()[1].decode() == answer["predictions"][0]["verdict"]


def test_user_errors_are_one_line(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert failing_serve() == "Error: artifacts/export holds no export; make one with: ddk export"
    assert failing_serve("nowhere") == "Error: nowhere holds no version of a model; make one with: ddk export"
    assert failing_serve("base/1") == "Error: base/1 is one version; give the folder that holds the versions: base"
    assert failing_serve("base", "--name", "a/b") == "Error: --name 'a/b' cannot be in a URL; leave out : and /"
    with sockets.bind("127.0.0.1", 0) as taken:  # while it loads its model
        port = taken.getsockname()[1]
        expected = f"Error: cannot listen on 127.0.0.1:{port}: Address already in use; give another --host or --port"
        assert failing_serve("base", "--port", port) == expected
    (base / "1" / "labels.txt").write_text("cats\n")
    assert "base/1 is not an export of ddk, or was changed since (labels.txt)" in failing_serve("base")


def test_a_model_that_cannot_be_loaded_ends_the_command(base, monkeypatch):
    def fail(folder):
        raise RuntimeError("no such op\nin a traceback")

    monkeypatch.setattr("ddkeras.serving.service.Model", fail)
    assert failing_serve(base, "--port", 0) == f"Error: {base} cannot be loaded: no such op"


@pytest.mark.parametrize("package", ["fastapi", "prometheus_client", "uvicorn"])
def test_a_missing_package_is_named_with_the_extra(base, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # importing it raises ImportError
    monkeypatch.delitem(sys.modules, "ddkeras.serving.server")
    monkeypatch.delattr(serving, "server")
    assert failing_serve(base) == f'Error: ddk serve needs {package}; install it with: pip install "ddkeras[serve]"'
