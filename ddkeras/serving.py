"""A server over an export's folder: TensorFlow Serving's REST API, batches, limits, new versions at once.

The event loop reads, checks and answers; threads decode base64, score batches and load versions. TensorFlow lets the
other threads go on while it computes.
"""

import asyncio
import contextlib
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from ddkeras import listening, rest
from ddkeras.batching import Batcher, QueueFullError
from ddkeras.errors import ConfigError
from ddkeras.export_folder import find_versions
from ddkeras.rest import RefusedError
from ddkeras.versions import Model, highest_version, state_of

try:
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import JSONResponse, PlainTextResponse
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    from ddkeras.meters import TEXT, Measured, Meters
except ImportError as error:
    raise ConfigError("a server needs FastAPI; install it with: pip install 'ddkeras[serve]'") from error

POLL = 1  # seconds between two looks for a new version
HEAD_SECONDS = 10  # that a client may take to send the headers of a request
BODY_SECONDS = 30  # and its body
CONNECTIONS = 800  # at once; a process may mostly have 1,024 files open
_IDLE_SECONDS = 60  # that a connection without a request stays open
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
        question = await asyncio.to_thread(rest.read_question, body, served.inputs, **caps)
        body.clear()  # the images are all that is kept while they wait
        try:
            rows = await served.batcher.answer(question.files)
        except QueueFullError as error:
            raise RefusedError(429, str(error), retry_after="1") from error
        return rest.answer_of(rows, served.model.outputs, in_rows=question.in_rows)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# --- HTTP ------------------------------------------------------------------------------------------------------


def make_app(service: Service, ready: Callable[[int], None] = lambda version: None) -> FastAPI:
    """The routes of a service, which loads its model when the app starts."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(service.watch(ready))
        yield
        watching.cancel()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Measured, meters=service.meters)
    app.add_exception_handler(RefusedError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_path)
    app.add_exception_handler(Exception, _apologise)
    _add_models(app, service)
    _add_signs_of_life(app, service)
    return app


def _add_models(app: FastAPI, service: Service) -> None:
    model, version_of_it = "/v1/models/{name}", "/v1/models/{name}/versions/{version}"

    @app.get(model)
    @app.get(version_of_it)
    async def status(request: Request, name: str, version: str | None = None) -> Response:
        _demand_plain(request, name, version)
        which = f"any versions of model {name}" if version is None else f"version {version} of model {name}"
        served = service.find(name, version, missing=f"Could not find {which}")
        fine = {"error_code": "OK", "error_message": ""}
        state = {"version": str(served.model.version), "state": "AVAILABLE", "status": fine}
        return JSONResponse({"model_version_status": [state]})

    @app.get(f"{model}/metadata")
    @app.get(f"{version_of_it}/metadata")
    async def metadata(request: Request, name: str, version: str | None = None) -> Response:
        _demand_plain(request, name, version)
        return JSONResponse(service.find(name, version, missing=_not_found(name, version)).model.metadata(name))

    @app.post(f"{model}:predict")
    @app.post(f"{version_of_it}:predict")
    async def predict(request: Request, name: str, version: str | None = None) -> Response:
        _demand_plain(request, name, version)
        body = await _read_body(request, service.limits.max_body)
        served = service.find(name, version, missing=_not_found(name, version))
        return Response(await service.predict(served, body), media_type="application/json")


def _add_signs_of_life(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        return PlainTextResponse("alive\n")

    @app.get("/readyz")
    async def readyz() -> Response:
        if service.served:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("the model is not loaded yet\n", 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.meters.text(), media_type=TEXT)


def _demand_plain(request: Request, name: str, version: str | None) -> None:
    """Refuse what TensorFlow Serving's patterns for paths do not take, but the routes do."""
    if ":" in name or not (version is None or (version.isascii() and version.isdigit())):
        raise HTTPException(404)


def _not_found(name: str, version: str | None) -> str:
    wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return f"Servable not found for request: {wanted}"


async def _read_body(request: Request, most: int) -> bytearray:
    """The body, never more of it than `most` bytes. What is refused is not read on: the connection is closed."""
    too_large = RefusedError(413, f"the body has more than {most} bytes; --max-body allows more", connection="close")
    length = request.headers.get("content-length", "")
    if length.isdigit() and (len(length) > 18 or int(length) > most):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                if len(body) + len(chunk) > most:
                    raise too_large
                body += chunk
    except TimeoutError as error:
        late = f"the body was not complete within {BODY_SECONDS} seconds"
        raise RefusedError(408, late, connection="close") from error
    except ClientDisconnect as error:
        raise RefusedError(400, "the client went away") from error
    return body


async def _refuse(request: Request, error: RefusedError) -> Response:
    return JSONResponse({"error": error.message}, error.status, headers=error.headers)


async def _refuse_path(request: Request, error: HTTPException) -> Response:
    path = request.url.path
    if path.startswith("/v1/"):
        return JSONResponse({"error": f"Malformed request: {request.method} {path}"}, 400)
    return JSONResponse({"error": f"{error.detail}: {request.method} {path}"}, error.status_code)


async def _apologise(request: Request, error: Exception) -> Response:
    """What is our own fault; its traceback goes to the log."""
    return JSONResponse({"error": f"internal error: {type(error).__name__}"}, 500)


# --- the process -----------------------------------------------------------------------------------------------


class _Impatient(HttpToolsProtocol):
    """Hangs up on who sends no request, or headers byte by byte: uvicorn by itself waits for these without end."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._waiting = self.loop.call_later(HEAD_SECONDS, transport.close)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._waiting.cancel()
        self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def on_headers_complete(self) -> None:
        self._waiting.cancel()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting.cancel()
        super().connection_lost(exc)


def make_server(service: Service, ready: Callable[[int], None] = lambda version: None) -> uvicorn.Server:
    """A server for the routes of a service."""
    config = uvicorn.Config(
        make_app(service, ready),
        log_config=None,  # uvicorn's own would close the handlers that are there
        log_level="warning",
        access_log=False,
        server_header=False,
        http=_Impatient,
        ws="none",
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=_IDLE_SECONDS,
    )
    return uvicorn.Server(config)


def serve(base: Path, *, name: str, host: str, port: int, limits: Limits, tell: Callable[[str], None]) -> dict:
    """Serve until a signal to stop comes: then no new connections, and all requests that are in are answered.

    Args:
        port: 0 takes any that is free.
        tell: called with one line when the model is ready.

    Returns:
        `model`, its `version` at the end, and how many `requests` were answered.

    Raises:
        ConfigError: there is no version to serve, or it cannot be loaded, or the port is taken.
    """
    highest_version(base)  # before a port is taken
    bound = listening.bind(host, port)
    failures = []

    def fail(error: ConfigError) -> None:
        failures.append(error)
        server.should_exit = True

    def ready(version: int) -> None:
        tell(_how_to_ask(name, version, listening.url(bound)))

    service = Service(base, name, limits, failed=fail)
    server = make_server(service, ready)
    listening.run(server, bound)
    if failures:
        raise failures[0]
    return {
        "model": name,
        "version": service.served.model.version if service.served else None,
        "requests": server.server_state.total_requests,
    }


def _how_to_ask(name: str, version: int, url: str) -> str:
    # Not as an argument of curl, which may have 128 KiB.
    body = """(printf '{"instances":[{"b64":"'; base64 -w0 photo.jpg; printf '"}]}')"""
    return f"serving {name} version {version} on {url}; try: {body} | curl -d @- {url}/v1/models/{name}:predict"
