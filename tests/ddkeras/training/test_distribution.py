"""Training by several processes: that they agree, and their errors when one is missing."""

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import start_ddk

from ddkeras.exceptions import ConfigError
from ddkeras.runs.checkpoint import CHECKPOINT
from ddkeras.runs.run import open_run
from ddkeras.training import distribution

QUICK = ("--backbone", "tiny", "--weights", "none", "--batch", 8, "--epochs", 4, "--augment", "flip")
QUICK += ("--freeze-norms", "--dropout", 0, "--save-every", 1)


def free_ports(number: int) -> list[int]:
    """Unused ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def config(addresses: list[str], index: int) -> str:
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def fit(folder: Path, records, *options, **environment) -> subprocess.Popen:
    return start_ddk(folder, "fit", "--records", records.folder, "--json", *options, **environment)


def two_workers(folder: Path, records, *options) -> list[subprocess.Popen]:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    return [fit(folder, records, *options, TF_CONFIG=config(addresses, index)) for index in (0, 1)]


def ended(process: subprocess.Popen) -> dict:
    """The result of the process, once it has ended."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads(output)


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = (open_run(folder / "artifacts/runs/latest") for folder in (one, other))
    pd.testing.assert_frame_equal(ours.history(), theirs.history(), rtol=1e-4)
    for a, b in zip(ours.load_scorer().get_weights(), theirs.load_scorer().get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.fixture(scope="module")
def alone(recipe, records, tmp_path_factory):
    """The folder of a training by one process."""
    folder = tmp_path_factory.mktemp("alone")
    ended(fit(folder, records, *QUICK))
    return folder


@pytest.mark.slow
def test_two_workers_agree_with_each_other_and_with_one(alone, records, tmp_path):
    chief, other = (ended(worker) for worker in two_workers(tmp_path, records, *QUICK))
    assert other.pop("worker") == 1
    assert not Path(other.pop("run")).exists()  # the chief alone keeps what was made
    assert Path(tmp_path, chief.pop("run")).is_dir()
    assert chief == other
    assert_same(tmp_path, alone)


@pytest.mark.slow
def test_after_losing_a_worker_both_are_restarted_and_resume(alone, records, tmp_path):
    chief, other = two_workers(tmp_path, records, *QUICK)
    while chief.poll() is None and not list(tmp_path.glob(f"artifacts/runs/*/{CHECKPOINT}")):
        time.sleep(0.05)
    other.send_signal(signal.SIGKILL)
    output, errors = chief.communicate(timeout=300)
    assert chief.returncode == 1, errors
    assert "another worker was lost" in json.loads(output)["error"]
    assert "start all of them again, with --resume" in errors
    assert "Traceback" not in errors, errors
    for worker in two_workers(tmp_path, records, "--resume"):
        ended(worker)
    assert_same(tmp_path, alone)


def test_a_missing_worker_is_named_with_its_address():
    here, there = (f"127.0.0.1:{port}" for port in free_ports(2))
    message = rf"worker 1 at {there} does not answer; start it with the same TF_CONFIG and its own index"
    with pytest.raises(ConfigError, match=message):
        distribution.wait_for_workers([here, there], 0, timeout=0.3)


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"this worker cannot listen on its port {port}: Address already in use"
        ):
            distribution.wait_for_workers([f"127.0.0.1:{port}"], 0)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"cluster": {}}', config(["a:1"], 1), config(["a"], 0), config([7], 0)], ids=str
)
def test_a_malformed_tf_config_is_rejected(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match="TF_CONFIG is malformed"):
        distribution.create_strategy("auto")


def test_the_index_and_number_of_workers(monkeypatch):
    assert (distribution.worker_index(), distribution.worker_count()) == (0, 1)
    monkeypatch.setenv("TF_CONFIG", config(["a:1", "b:1", "c:1"], 2))
    assert (distribution.worker_index(), distribution.worker_count()) == (2, 3)
    cluster = {"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    assert (distribution.worker_index(), distribution.worker_count()) == (1, 3)


def test_only_the_chief_writes_to_the_given_folder(monkeypatch, tmp_path):
    at_exit = []
    monkeypatch.setattr(distribution.atexit, "register", lambda *call, **options: at_exit.append((call, options)))
    assert distribution.runs_folder(tmp_path) == tmp_path
    assert not at_exit
    monkeypatch.setenv("TF_CONFIG", config(["a:1", "b:1"], 1))
    folder = distribution.runs_folder(tmp_path)
    assert folder.is_dir()
    assert folder != tmp_path
    [((remove, *arguments), options)] = at_exit
    remove(*arguments, **options)
    assert not folder.exists()
