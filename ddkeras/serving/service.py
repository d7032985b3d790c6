"""What is served: the highest version of an export, its queue, and newer versions as they arrive.

The event loop reads, checks and answers; threads decode base64, score batches and load versions. TensorFlow lets the
other threads go on while it computes.
"""

import asyncio
import contextlib
import gc
import logging
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from ddkeras.exceptions import ConfigError
from ddkeras.exporting.bundle import find_versions
from ddkeras.serving import protocol
from ddkeras.serving.batching import Batcher, QueueFullError
from ddkeras.serving.model_versions import Model, highest_version, state_of
from ddkeras.serving.protocol import RefusedError

try:
    from ddkeras.serving.metrics import Meters
except ImportError as error:
    raise ConfigError("a server needs prometheus-client; install it with: pip install 'ddkeras[serve]'") from error

POLL = 1  # seconds between two looks for a new version
_LOG = logging.getLogger("ddkeras")


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may ask for."""

    max_batch: int = 32  # images
    max_delay: float = 0.005  # seconds that an image waits for others
    max_body: int = 32 * 2**20  # bytes
    max_pixels: int = 50_000_000  # of an image
    max_images: int = 1000  # of a request
    max_queue: int = 512  # images that wait


class Served:
    """A model and the queue for it. A request belongs to one, so that all its images are of one version."""

    def __init__(self, model: Model, batcher: Batcher):
        self.model, self.batcher = model, batcher
        # The graph of the pixels' signature is not needed: pixels go as files.
        self.inputs = {
            signature: (name, info.dtype == tf.string.as_datatype_enum)
            for signature, definition in model.signatures.items()
            for name, info in definition.inputs.items()
        }


class Service:
    """What is served under `name`: the highest version in `base`, and the next higher one when it comes."""

    def __init__(self, base: Path, name: str, limits: Limits, *, failed: Callable[[ConfigError], None]):
        self.name, self.limits = name, limits
        self.served: Served | None = None
        self.meters = Meters(
            limits.max_batch,
            waiting=lambda: self.served.batcher.waiting if self.served else 0,
            version=lambda: self.served.model.version if self.served else 0,
        )
        self._base, self._failed = base, failed
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="score")  # one for each of two versions
        self._refused: dict[Path, list] = {}  # versions that could not be loaded, as they were
        self._retired: weakref.ref | None = None

    async def watch(self, ready: Callable[[int], None]) -> None:
        """Load the first version, call `ready` with its number, and go on looking for higher ones without end."""
        try:
            await self._load(await asyncio.to_thread(highest_version, self._base))
        except ConfigError as error:
            return self._failed(error)
        except Exception as error:  # whatever TensorFlow says of a graph
            _LOG.debug("", exc_info=error)
            return self._failed(ConfigError(f"{self._base} cannot be loaded: {_first_line(error)}"))
        ready(self.served.model.version)
        while True:
            await asyncio.sleep(POLL)
            with contextlib.suppress(OSError):  # the folder is away, as a network's may be; the model is not
                await self._renew()
            if self._retired and self._retired() is None:  # its last request is answered
                self._retired = None
                gc.collect()  # what TensorFlow loaded holds itself in circles

    async def _renew(self) -> None:
        """Take the highest version that is higher than the one served and can be loaded."""
        for folder in find_versions(self._base):
            if int(folder.name) <= self.served.model.version:
                return
            state = None
            try:
                state = state_of(folder)
                if self._refused.get(folder) == state:
                    continue
                before = weakref.ref(self.served)
                await self._load(folder)
                self._retired = before
                return
            except Exception as error:  # whatever it is, the version that is served goes on
                _LOG.debug("", exc_info=error)
                self._refused[folder] = state
                _LOG.warning("version %s is not taken: %s", folder.name, _first_line(error))

    async def _load(self, folder: Path) -> None:
        model = await asyncio.to_thread(Model, folder)
        limits = self.limits
        sizes = {"max_batch": limits.max_batch, "max_delay": limits.max_delay, "max_queue": limits.max_queue}
        if self.served:
            _LOG.info("version %d takes the place of version %d", model.version, self.served.model.version)
        self.served = Served(model, Batcher(model.score, self._pool, **sizes, tell=self.meters.count_batch))

    def find(self, name: str, version: str | None = None, *, missing: str) -> Served:
        """What is served under that name and version.

        Raises:
            RefusedError: 404 with the message `missing`; 400 for what is no version; 503 while the first is loaded.
        """
        if version is not None and len(version) > 18:
            raise RefusedError(400, f"Failed to convert version: {version[:100]} to numeric.")
        if not self.served:
            raise RefusedError(503, "the model is not loaded yet; try again in a few seconds", retry_after="2")
        if name != self.name or (version is not None and int(version) != self.served.model.version):
            raise RefusedError(404, missing)
        return self.served

    async def predict(self, served: Served, body: bytearray) -> bytes:
        """The answer to the body of a request."""
        limits = self.limits
        caps = {"max_images": limits.max_images, "max_pixels": limits.max_pixels}
        question = await asyncio.to_thread(protocol.read_question, body, served.inputs, **caps)
        body.clear()  # the images are all that is kept while they wait
        try:
            rows = await served.batcher.answer(question.files)
        except QueueFullError as error:
            raise RefusedError(429, str(error), retry_after="1") from error
        return protocol.answer_of(rows, served.model.outputs, in_rows=question.in_rows)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
