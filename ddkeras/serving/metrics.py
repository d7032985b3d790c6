"""What a server counts and times, for Prometheus."""

import time
from collections.abc import Callable

import prometheus_client as prometheus

TEXT = prometheus.CONTENT_TYPE_LATEST  # the type of `Meters.text`
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Meters:
    """The metrics of a server.

    Args:
        max_batch: the most images of a batch.
        waiting: says how many images are in no batch yet.
        version: says which version new requests get; 0 until one is loaded.
    """

    def __init__(self, max_batch: int, *, waiting: Callable[[], int], version: Callable[[], int]):
        self._registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        here = {"namespace": "ddk", "registry": registry}
        self.requests = prometheus.Counter("requests", "Requests under /v1/, by status code.", ["code"], **here)
        self.images = prometheus.Counter("images", "Images scored, by verdict.", ["verdict"], **here)
        self.seconds = prometheus.Histogram(
            "request_seconds", "From a request under /v1/ to its answer.", buckets=_SECONDS, **here
        )
        sizes = [2**power for power in range(max_batch.bit_length())]
        self.batches = prometheus.Histogram("batch_images", "Images in a batch.", buckets=sizes, **here)
        prometheus.Gauge("queue_images", "Images that are in no batch yet.", **here).set_function(waiting)
        served = prometheus.Gauge("model_version", "The version that new requests get; 0 until it is loaded.", **here)
        served.set_function(version)

    def count_batch(self, rows: list[dict]) -> None:
        """Count the answers of a batch."""
        self.batches.observe(len(rows))
        for row in rows:
            self.images.labels(row["verdict"]).inc()

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return prometheus.generate_latest(self._registry)


class Measured:
    """An ASGI app whose requests under /v1/ are counted and timed, the time for reading the body included."""

    def __init__(self, app: Callable, meters: Meters):
        self._app, self._meters = app, meters

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            return await self._app(scope, receive, send)
        begun, code = time.perf_counter(), 500

        async def watched(message: dict) -> None:
            nonlocal code
            code = message.get("status", code)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._meters.requests.labels(code).inc()
            self._meters.seconds.observe(time.perf_counter() - begun)
