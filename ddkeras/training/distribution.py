"""The devices that train one model together: in this machine, or in several."""

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

import tensorflow as tf

from ddkeras.exceptions import ConfigError

_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)
PATIENCE = 300.0  # seconds that a worker waits for the others


def strategy(kind: str) -> tf.distribute.Strategy:
    """The strategy of that kind, see `Recipe.strategy`; before anything else is done with TensorFlow.

    Raises:
        ConfigError: `multiworker` without, or with a strange, TF_CONFIG, or a worker does not answer.
    """
    if kind == "auto":
        kind = "multiworker" if _cluster() else "mirrored" if len(_devices()) > 1 else "one"
    if kind == "multiworker":
        if not _cluster():
            raise ConfigError(
                "strategy multiworker needs TF_CONFIG in the environment of each worker, as in "
                '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'
            )
        meet(*_cluster())
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.MirroredStrategy(_devices()) if kind == "mirrored" else tf.distribute.get_strategy()


def own_parts(strategy: tf.distribute.Strategy) -> range:
    """Which of the replicas, counted over all machines, are in this process."""
    here = strategy.extended.worker_devices
    return range(worker() * len(here), (worker() + 1) * len(here))


def worker() -> int:
    """The number of this process among those that train together; 0, the chief, where there is one alone."""
    return _cluster()[1] if _cluster() else 0


def workers() -> int:
    """How many processes train together."""
    return len(_cluster()[0]) if _cluster() else 1


def runs_folder(folder: Path) -> Path:
    """`folder` for the chief; for other workers, whose runs duplicate its own, one that is deleted on exit."""
    if worker() == 0:
        return folder
    temporary = tempfile.mkdtemp(prefix="ddk-worker-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return Path(temporary)


def meet(addresses: list[str], own: int, *, patience: float | None = None) -> None:
    """Wait until all workers are there: TensorFlow itself would wait for an hour, and not say for whom.

    Args:
        addresses: `host:port` of each.
        own: the place of this process among them.
        patience: how long, in seconds; `PATIENCE` by default.

    Raises:
        ConfigError: one is not, or the own port is taken.
    """
    deadline = time.monotonic() + (PATIENCE if patience is None else patience)
    with _listening(addresses[own]):
        for number, address in enumerate(addresses):
            while number != own and not _answers(address):
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"worker {number} at {address} does not answer; start it with the same TF_CONFIG and its own "
                        "index, and look whether its port can be reached"
                    )
                time.sleep(0.1)


@contextlib.contextmanager
def lost_ones_named() -> Iterator[None]:
    """Where another worker is lost in the block, say so.

    Raises:
        ConfigError: it is.
    """
    try:
        yield
    except _LOST as error:
        if workers() == 1:
            raise
        traceback.clear_frames(error.__traceback__)  # or a pool of threads in them complains when the process ends
        reason = " ".join(error.message.split())[:200]
        raise ConfigError(
            f"another worker was lost ({reason}); start all of them again, with --resume if there was a checkpoint"
        ) from error


@contextlib.contextmanager
def _listening(address: str) -> Iterator[None]:
    """Answer at the address, as TensorFlow's server will from the end of the block on."""
    _, port = _parts(address)
    try:
        server = socket.create_server(("", port), backlog=128)
    except OSError as error:
        raise ConfigError(f"this worker's port {port} cannot be had: {error.strerror}") from error
    with server:
        yield


def _answers(address: str) -> bool:
    try:
        socket.create_connection(_parts(address), timeout=1).close()
    except OSError:
        return False
    return True


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _devices() -> list[str]:
    """All accelerators; without one, the CPU, once for each part it was divided into."""
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    return [f"{kind}:{number}" for number in range(len(tf.config.list_logical_devices(kind)))]


def _cluster() -> tuple[list[str], int] | None:
    """The workers of TF_CONFIG and the place of this one; None without.

    Raises:
        ConfigError: it cannot be understood.
    """
    if not os.environ.get("TF_CONFIG"):
        return None
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        cluster, task = config["cluster"], config["task"]
        addresses = [*cluster.get("chief", []), *cluster["worker"]]
        index = int(task["index"]) + (len(cluster.get("chief", [])) if task["type"] == "worker" else 0)
        for address in addresses:
            _parts(address)
        addresses[index]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ConfigError(f"TF_CONFIG cannot be understood ({type(error).__name__}: {error})") from error
    return addresses, index
