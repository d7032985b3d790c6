"""The model service: batching over HTTP, a full queue, and switching to new versions."""

import gc
import http.client
import json
import os
import re
import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

from serving_client import GOOD, PREDICT, RunningServer, wait_for

from ddkeras.serving import model_versions


def test_concurrent_requests_are_scored_in_batches(exported):
    with RunningServer(exported.parent, max_batch=8, max_delay=0.05) as running:
        body = json.dumps({"instances": [GOOD]}).encode()
        with ThreadPoolExecutor(16) as pool:
            codes = [code for code, _ in pool.map(lambda _: running.request("POST", PREDICT, body), range(48))]
        assert codes == [200] * 48
        text = running.service.metrics.text().decode()
    batches = float(re.search(r"ddk_batch_images_count (\S+)", text)[1])
    assert float(re.search(r"ddk_batch_images_sum (\S+)", text)[1]) == 48
    assert float(re.search(r'ddk_batch_images_bucket{le="8.0"} (\S+)', text)[1]) == batches < 30


def test_a_full_queue_rejects_with_429_and_retry_after(exported):
    with RunningServer(exported.parent, max_queue=4, max_batch=2) as running:
        unblock = running.block_model()
        body = json.dumps({"instances": [GOOD, GOOD]}).encode()
        with ThreadPoolExecutor(8) as pool:
            accepted = [
                pool.submit(running.request, "POST", PREDICT, body) for _ in range(3)
            ]  # 2 computed, 4 waiting
            wait_for(lambda: running.service.servable.batcher.queued == 4)
            connection = http.client.HTTPConnection("127.0.0.1", running.port)
            connection.request("POST", PREDICT, body)
            response = connection.getresponse()
            assert (response.status, response.headers["retry-after"]) == (429, "1")
            assert json.loads(response.read()) == {"error": "4 images waiting already; try again later"}
            assert b"ddk_queue_images 4.0" in running.service.metrics.text()
            unblock.set()
            assert [future.result()[0] for future in accepted] == [200] * 3


def test_a_new_version_takes_over_without_a_failed_request(base, monkeypatch):
    monkeypatch.setattr("ddkeras.serving.service.POLL_SECONDS", 0.1)
    monkeypatch.setattr(model_versions.Model, "metadata", lambda self, name: {"version": self.version})
    body = json.dumps({"instances": [GOOD] * 3}).encode()
    codes, stop = [], threading.Event()

    def load(running: RunningServer) -> None:
        while not stop.is_set():
            codes.append(running.request("POST", PREDICT, body)[0])

    with RunningServer(base, max_batch=2) as running, ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(load, running)
        wait_for(lambda: len(codes) > 10)
        first = weakref.ref(running.service.servable)
        graph = weakref.ref(running.service.servable.model._loaded)  # in reference cycles
        shutil.copytree(base / "1", base / ".2-partial")
        os.rename(base / ".2-partial", base / "2")
        wait_for(lambda: running.service.servable.model.version == 2)
        before = len(codes)
        wait_for(lambda: len(codes) > before + 10)
        stop.set()
        pool.shutdown()
        assert set(codes) == {200}
        assert running.request("GET", "/v1/models/ddk/metadata") == (200, {"version": 2})
        assert running.request("GET", "/v1/models/ddk/versions/1")[0] == 404
        wait_for(lambda: first() is None and graph() is None)  # the old version is garbage collected


def test_collections_of_garbage_spare_the_objects_of_tensorflow_while_a_model_is_served(exported):
    gc.unfreeze()  # what another server may have exempted
    with RunningServer(exported.parent) as running:
        wait_for(lambda: gc.get_freeze_count() > 100_000)
        gc.collect()
        assert running.request("POST", PREDICT, json.dumps({"instances": [GOOD]}).encode())[0] == 200
    assert gc.get_freeze_count() == 0


def test_a_request_in_progress_is_finished_by_its_version(base, monkeypatch):
    monkeypatch.setattr("ddkeras.serving.service.POLL_SECONDS", 0.1)
    with RunningServer(base) as running, ThreadPoolExecutor(1) as pool:
        unblock, first = running.block_model(), running.service.servable
        body = json.dumps({"inputs": [GOOD]})
        response = pool.submit(running.request, "POST", "/v1/models/ddk/versions/1:predict", body)
        wait_for(lambda: first.batcher._task)
        shutil.copytree(base / "1", base / "2")
        wait_for(lambda: running.service.servable is not first)
        unblock.set()
        assert response.result()[0] == 200


def test_a_new_version_that_cannot_be_loaded_is_logged_once_and_the_old_one_stays(base, monkeypatch, caplog):
    monkeypatch.setattr("ddkeras.serving.service.POLL_SECONDS", 0.05)
    with RunningServer(base) as running:
        shutil.copytree(base / "1", base / ".2")
        (base / ".2" / "labels.txt").write_text("cats\n")
        os.rename(base / ".2", base / "2")
        wait_for(lambda: caplog.messages)
        time.sleep(0.5)
        assert len(caplog.messages) == 1
        assert "version 2 was not loaded: " in caplog.messages[0]
        assert "base/2 is not an export of ddk, or was changed since (labels.txt)" in caplog.messages[0]
        assert running.request("POST", PREDICT, json.dumps({"inputs": [GOOD]}).encode())[0] == 200
        shutil.copy(base / "1" / "labels.txt", base / "2" / "labels.txt")
        wait_for(lambda: running.service.servable.model.version == 2)


def test_a_damaged_higher_version_does_not_stop_a_start(base, caplog):
    (base / "7").mkdir()  # no model at all
    shutil.copytree(base / "1", base / "9")
    (base / "9" / "saved_model.pb").write_bytes(b"junk")
    with RunningServer(base) as running:
        assert running.service.servable.model.version == 1
        assert running.request("POST", PREDICT, json.dumps({"inputs": [GOOD]}).encode())[0] == 200
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "version 9 was not loaded",
        "version 7 was not loaded",
    ]
