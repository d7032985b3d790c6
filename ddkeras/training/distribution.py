"""Data-parallel training: the devices of one machine, or of several."""

import atexit
import contextlib
import json
import os
import shutil
import socket
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from ddkeras.exceptions import ConfigError

_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)
TIMEOUT = 300.0  # seconds to wait for the other workers


class _Cluster(NamedTuple):
    """The workers of TF_CONFIG, each as `host:port`, and the rank of this process among them."""

    addresses: list[str]
    rank: int


def create_strategy(kind: str) -> tf.distribute.Strategy:
    """Create a strategy, see `Recipe.strategy`. To be called before anything else is done with TensorFlow.

    Raises:
        ConfigError: `multiworker` without a valid TF_CONFIG, or a worker does not answer.
    """
    cluster = _cluster()
    if kind == "auto":
        kind = "multiworker" if cluster else "mirrored" if len(_devices()) > 1 else "one"
    if kind == "multiworker":
        if not cluster:
            raise ConfigError(
                "strategy multiworker needs TF_CONFIG in the environment of each worker, as in "
                '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'
            )
        wait_for_workers(*cluster)
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.MirroredStrategy(_devices()) if kind == "mirrored" else tf.distribute.get_strategy()


def local_replicas(strategy: tf.distribute.Strategy) -> range:
    """The indices of this process's replicas among those of all workers."""
    number = len(strategy.extended.worker_devices)
    return range(worker_index() * number, (worker_index() + 1) * number)


def worker_index() -> int:
    """The index of this process among the workers; 0 is the chief, or the only one."""
    cluster = _cluster()
    return cluster.rank if cluster else 0


def worker_count() -> int:
    """The number of processes that train together."""
    cluster = _cluster()
    return len(cluster.addresses) if cluster else 1


def runs_folder(folder: Path) -> Path:
    """`folder` for the chief; for other workers, whose runs duplicate its own, one that is deleted on exit."""
    if worker_index() == 0:
        return folder
    temporary = tempfile.mkdtemp(prefix="ddk-worker-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return Path(temporary)


def wait_for_workers(addresses: list[str], index: int, *, timeout: float | None = None) -> None:
    """Wait until all workers are up. TensorFlow itself would wait for an hour, and not say for which.

    Args:
        addresses: `host:port` of each worker.
        index: of this process among them.
        timeout: in seconds; `TIMEOUT` by default.

    Raises:
        ConfigError: a worker does not answer, or this worker's port is in use.
    """
    deadline = time.monotonic() + (TIMEOUT if timeout is None else timeout)
    with _listening(addresses[index]):
        for number, address in enumerate(addresses):
            while number != index and not _answers(address):
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"worker {number} at {address} does not answer; start it with the same TF_CONFIG and its own "
                        "index, and check that its port can be reached"
                    )
                time.sleep(0.1)


@contextlib.contextmanager
def reporting_lost_workers() -> Iterator[None]:
    """Turn TensorFlow's errors about a lost worker into one line.

    Raises:
        ConfigError: another worker was lost.
    """
    try:
        yield
    except _LOST as error:
        if worker_count() == 1:
            raise
        traceback.clear_frames(error.__traceback__)  # or a thread pool in them complains when the process exits
        reason = " ".join(error.message.split())[:200]
        raise ConfigError(
            f"another worker was lost ({reason}); start all of them again, with --resume if there was a checkpoint"
        ) from error


@contextlib.contextmanager
def _listening(address: str) -> Iterator[None]:
    """Answer at the address until TensorFlow's server takes over."""
    _, port = _host_and_port(address)
    try:
        server = socket.create_server(("", port), backlog=128)
    except OSError as error:
        raise ConfigError(f"this worker cannot listen on its port {port}: {error.strerror}") from error
    with server:
        yield


def _answers(address: str) -> bool:
    try:
        socket.create_connection(_host_and_port(address), timeout=1).close()
    except OSError:
        return False
    return True


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _devices() -> list[str]:
    """All GPUs; without one, the logical devices of the CPU."""
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    return [f"{kind}:{number}" for number in range(len(tf.config.list_logical_devices(kind)))]


def _cluster() -> _Cluster | None:
    """The cluster of TF_CONFIG; None where it is not set.

    Raises:
        ConfigError: it is malformed.
    """
    if not os.environ.get("TF_CONFIG"):
        return None
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        cluster, task = config["cluster"], config["task"]
        addresses = [*cluster.get("chief", []), *cluster["worker"]]
        index = int(task["index"]) + (len(cluster.get("chief", [])) if task["type"] == "worker" else 0)
        for address in addresses:
            _host_and_port(address)
        addresses[index]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ConfigError(f"TF_CONFIG is malformed ({type(error).__name__}: {error})") from error
    return _Cluster(addresses, index)
