"""Prometheus metrics of a server."""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import prometheus_client as prometheus

CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST  # of `Metrics.text`
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_NAMESPACE = "ddk"

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class Metrics:
    """The metrics of a server.

    Args:
        max_batch: the maximum number of images in a batch.
        queued: returns the number of images that wait for a batch.
        version: returns the version that new requests get; 0 until one is loaded.
    """

    def __init__(self, max_batch: int, *, queued: Callable[[], int], version: Callable[[], int]):
        self._registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        self.requests = prometheus.Counter(
            "requests", "Requests under /v1/, by status code.", ["code"], namespace=_NAMESPACE, registry=registry
        )
        self.images = prometheus.Counter(
            "images", "Images scored, by verdict.", ["verdict"], namespace=_NAMESPACE, registry=registry
        )
        self.seconds = prometheus.Histogram(
            "request_seconds",
            "From a request under /v1/ to its answer.",
            namespace=_NAMESPACE,
            registry=registry,
            buckets=_SECONDS,
        )
        self.batches = prometheus.Histogram(
            "batch_images",
            "Images in a batch.",
            namespace=_NAMESPACE,
            registry=registry,
            buckets=[2**power for power in range(max_batch.bit_length())],
        )
        prometheus.Gauge(
            "queue_images", "Images that are in no batch yet.", namespace=_NAMESPACE, registry=registry
        ).set_function(queued)
        prometheus.Gauge(
            "model_version",
            "The version that new requests get; 0 until it is loaded.",
            namespace=_NAMESPACE,
            registry=registry,
        ).set_function(version)

    def count_batch(self, rows: list[dict[str, Any]]) -> None:
        """Count the scores of a batch."""
        self.batches.observe(len(rows))
        for row in rows:
            self.images.labels(row["verdict"]).inc()

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return prometheus.generate_latest(self._registry)


class MetricsMiddleware:
    """ASGI middleware that counts and times requests under /v1/, including reading the body."""

    def __init__(self, app: _App, metrics: Metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Handle one request, and count it if it is for a model."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            return await self._app(scope, receive, send)
        start, code = time.perf_counter(), 500

        async def send_and_note_status(message: _Message) -> None:
            nonlocal code
            code = message.get("status", code)
            await send(message)

        try:
            await self._app(scope, receive, send_and_note_status)
        finally:
            self._metrics.requests.labels(code).inc()
            self._metrics.seconds.observe(time.perf_counter() - start)
