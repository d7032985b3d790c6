"""The routes of `ddk serve`: TensorFlow Serving's REST API, health and metrics."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from ddkeras.exceptions import ConfigError
from ddkeras.serving.protocol import RefusedError
from ddkeras.serving.service import Service

try:
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import JSONResponse, PlainTextResponse
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    from ddkeras.serving.metrics import TEXT, Measured
except ImportError as error:
    raise ConfigError("a server needs FastAPI; install it with: pip install 'ddkeras[serve]'") from error

BODY_SECONDS = 30  # that a client may take to send the body of a request


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
    app.add_exception_handler(Exception, _internal_error)
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


async def _internal_error(request: Request, error: Exception) -> Response:
    """What is our own fault; its traceback goes to the log."""
    return JSONResponse({"error": f"internal error: {type(error).__name__}"}, 500)


# --- the process -----------------------------------------------------------------------------------------------
