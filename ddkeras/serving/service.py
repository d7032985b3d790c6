"""The model service: loads the highest version of an export, batches requests to it, and switches to newer versions.

The event loop reads, checks and answers requests; threads decode base64, score batches and load versions. TensorFlow
releases the GIL while it computes.
"""

import asyncio
import contextlib
import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from ddkeras.exceptions import ConfigError
from ddkeras.exporting.bundle import find_versions
from ddkeras.serving import protocol
from ddkeras.serving.batching import Batcher, QueueFullError
from ddkeras.serving.metrics import Metrics
from ddkeras.serving.model_versions import Model, file_stats, highest_version
from ddkeras.serving.protocol import RequestError

POLL_SECONDS = 1  # between two checks for a new version
_LOG = logging.getLogger("ddkeras")


@dataclass(frozen=True)
class Limits:
    """Limits per request, per batch and of the queue."""

    max_batch: int = 32  # images per batch
    max_delay: float = 0.005  # seconds that an image waits for its batch to fill up
    max_body: int = 32 * 2**20  # bytes per request
    max_pixels: int = 50_000_000  # per image
    max_images: int = 1000  # per request
    max_request_pixels: int = 200_000_000  # of all images of a request
    max_queue: int = 512  # images that wait for a batch
    max_memory: int = 512 * 2**20  # bytes of all requests that are not answered yet; at least one of `max_body`


class Memory:
    """Counts the bytes of all requests that are not answered yet."""

    def __init__(self, max_bytes: int):
        self._max_bytes, self._used = max_bytes, 0

    @contextlib.contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Yield what takes a number of bytes of the memory until the block ends.

        It raises a RequestError, 503, if they are not free.
        """
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            if self._used + count > self._max_bytes:
                message = "the requests in progress fill the memory that is set aside for them; try again later"
                raise RequestError(503, message, retry_after="1", connection="close")
            self._used, taken = self._used + count, taken + count

        try:
            yield take
        finally:
            self._used -= taken


class Servable:
    """A loaded version and its queue. All images of a request are scored by the same version."""

    def __init__(self, model: Model, batcher: Batcher):
        self.model, self.batcher = model, batcher
        # By signature, for `protocol.parse_request`. Pixels are encoded, and scored as files.
        self.inputs = {
            signature: (name, info.dtype == tf.string.as_datatype_enum)
            for signature, definition in model.signatures.items()
            for name, info in definition.inputs.items()
        }


class ModelService:
    """Serves the highest version in `base` under `name`, and switches to higher versions as they appear.

    Args:
        base: the folder of versions.
        name: the model name in URLs.
        limits: see `Limits`.
        on_failure: called if the first version cannot be loaded.
    """

    def __init__(self, base: Path, name: str, limits: Limits, *, on_failure: Callable[[ConfigError], None]):
        self.name, self.limits = name, limits
        self.servable: Servable | None = None  # None until the first version is loaded
        self.metrics = Metrics(
            limits.max_batch,
            queued=lambda: self.servable.batcher.queued if self.servable else 0,
            version=lambda: self.servable.model.version if self.servable else 0,
        )
        self.memory = Memory(max(limits.max_memory, limits.max_body))
        self._base, self._on_failure = base, on_failure
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="score")  # one thread for each of two versions
        self._failed: dict[Path, list | None] = {}  # versions that could not be loaded, with their file_stats
        self._retired: weakref.ref[Servable] | None = None

    async def watch(self, on_ready: Callable[[int], None]) -> None:
        """Load the first version, call `on_ready` with its number, and poll for higher versions until cancelled."""
        try:
            servable = await self._load_first()
        except ConfigError as error:
            return self._on_failure(error)
        except Exception as error:  # TensorFlow may raise anything on a graph
            _LOG.debug("", exc_info=error)
            return self._on_failure(ConfigError(f"{self._base} cannot be loaded: {_first_line(error)}"))
        _collect_garbage()
        on_ready(servable.model.version)
        try:
            while True:
                await asyncio.sleep(POLL_SECONDS)
                with contextlib.suppress(OSError):  # a network folder may be temporarily unavailable
                    servable = await self._load_newer(servable)
                if self._retired and self._retired() is None:  # its last request is answered
                    self._retired = None
                    _collect_garbage()  # objects that TensorFlow loads form reference cycles
        finally:
            gc.unfreeze()

    async def _load_first(self) -> Servable:
        """Load the highest version that can be loaded.

        Raises:
            ConfigError: there is no version of a SavedModel.
            Exception: why the highest could not be loaded, if none can.
        """
        await asyncio.to_thread(highest_version, self._base)
        failed: list[tuple[Path, Exception, list | None]] = []
        for folder in find_versions(self._base):
            stats = None
            try:
                stats = file_stats(folder)
                servable = await self._load(folder)
            except Exception as error:  # whatever is wrong with it, an older one may be whole
                failed.append((folder, error, stats))
            else:
                for failure in failed:
                    self._note_failure(*failure)
                return servable
        raise failed[0][1]

    def _note_failure(self, folder: Path, error: Exception, stats: list | None) -> None:
        """Log why a version was not loaded, and do not try it again until it changes."""
        _LOG.debug("", exc_info=error)
        self._failed[folder] = stats
        _LOG.warning("version %s was not loaded: %s", folder.name, _first_line(error))

    async def _load_newer(self, current: Servable) -> Servable:
        """Load the highest version that is higher than the current one and can be loaded."""
        for folder in find_versions(self._base):
            if int(folder.name) <= current.model.version:
                break
            stats = None
            try:
                stats = file_stats(folder)
                if self._failed.get(folder) == stats:
                    continue
                servable = await self._load(folder)
            except Exception as error:  # whatever is wrong with the new version, the current one stays
                self._note_failure(folder, error, stats)
            else:
                self._retired = weakref.ref(current)
                return servable
        return current

    async def _load(self, folder: Path) -> Servable:
        model = await asyncio.to_thread(Model, folder)
        if self.servable:
            _LOG.info("version %d replaces version %d", model.version, self.servable.model.version)
        batcher = Batcher(
            model.score,
            self._pool,
            max_batch=self.limits.max_batch,
            max_delay=self.limits.max_delay,
            max_queue=self.limits.max_queue,
            on_batch=self.metrics.count_batch,
        )
        self.servable = Servable(model, batcher)
        return self.servable

    def find(self, name: str, version: str | None = None, *, missing: str) -> Servable:
        """Return what is served under a name and, if given, a version.

        Raises:
            RequestError: 404 with the message `missing` if it is not served; 400 for a malformed version; 503 while
                the first version is loaded.
        """
        if version is not None and len(version) > 18:
            raise RequestError(400, f"Failed to convert version: {version[:100]} to numeric.")
        if not self.servable:
            raise RequestError(503, "the model is not loaded yet; try again in a few seconds", retry_after="2")
        if name != self.name or (version is not None and int(version) != self.servable.model.version):
            raise RequestError(404, missing)
        return self.servable

    async def predict(self, servable: Servable, body: bytearray) -> bytes:
        """Answer the body of a predict request with the body of the response.

        Raises:
            RequestError: 400 if it is malformed, 413 if it is too large, 429 if the queue is full.
        """
        request = await asyncio.to_thread(
            protocol.parse_request,
            body,
            servable.inputs,
            max_images=self.limits.max_images,
            max_pixels=self.limits.max_pixels,
            max_request_pixels=self.limits.max_request_pixels,
        )
        body.clear()  # only the images are kept while they wait
        try:
            rows = await servable.batcher.submit(request.files)
        except QueueFullError as error:
            raise RequestError(429, str(error), retry_after="1") from error
        return protocol.format_response(rows, servable.model.outputs, in_rows=request.in_rows)


def _collect_garbage() -> None:
    """Collect garbage, and exempt the objects that are left from Python's own collections until the next call.

    TensorFlow has half a million of them. Python would examine them all again, for 0.3 seconds in which no request is
    answered, whenever enough objects have survived the short collections; with 64 connections, as objects of requests
    in progress do, that is every thousand requests.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
