"""The demo's web page, by Gradio: one image with its explanation, or many in a table.

Uploads lie in a folder of this process until they are answered, and no longer. An answer is one piece of HTML that
holds its pictures, so nothing has to be stored for the browser to fetch, and of Gradio's routes only those that the
page needs are open. The page loads nothing from other servers.
"""

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from socket import socket
from typing import Literal, TypedDict

import numpy as np

from ddkeras.demo.render import MAX_FILES, ResultRenderer, render_template
from ddkeras.exceptions import ConfigError
from ddkeras.reporting.palette import DARK, LIGHT
from ddkeras.runs.run import Run
from ddkeras.serving import hosts, sockets
from pipelines.datasets.examples import LABELS
from pipelines.datasets.sample_data import make_jpeg
from pipelines.datasets.scenes import CLASSES

try:
    import gradio
    import uvicorn
    from fastapi import FastAPI
    from gradio.data_classes import FileData, ListFiles
    from starlette.types import ASGIApp, Receive, Scope, Send
except ImportError as error:
    raise ConfigError("the demo needs Gradio; install it with: pip install 'ddkeras[demo]'") from error

MAX_UPLOAD = 256 * 2**20  # bytes of one upload, all its files together
MAX_PENDING = 2**30  # bytes of all uploads that are not answered yet
MAX_QUEUE = 20  # requests that wait; one is answered at a time
_MAX_BODY = 2**20  # bytes of any other request; parsed as JSON it takes a hundred times as much memory
_MAX_AGE = 1800  # seconds after which an upload that was never asked about is deleted; the queue is faster
_DRAWING_SIZE = 256  # pixels
_UPLOAD_PATH = "/gradio_api/upload"
_OPEN_PATHS = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json)|/(static|assets|svelte)/.+"
    r"|/gradio_api/(upload|upload_progress|startup-events|queue/join|queue/data|heartbeat/\w+)"
)
_REFUSALS = {  # the page shows them beside the status code
    403: "requests from other pages are refused",
    404: "not found",
    411: "the request needs a Content-Length header",
    413: f"more than {MAX_UPLOAD >> 20} MB in one upload; choose fewer or smaller files",
    hosts.STATUS: "this server does not have that name; allow it with --allowed-hosts",
    507: "too many uploads are waiting for their answers; try again in a minute",
}

# --- the page --------------------------------------------------------------------------------------------------

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
_MONOSPACE_FONTS = ("ui-monospace", "DejaVu Sans Mono", "monospace")
_THEME_COLOURS = {  # Gradio's variables, by names of the palette
    "body_background_fill": "page",
    "body_text_color": "ink",
    "body_text_color_subdued": "dim",
    "background_fill_primary": "card",
    "background_fill_secondary": "page",
    "block_background_fill": "card",
    "block_border_color": "line",
    "border_color_primary": "line",
    "block_label_background_fill": "card",
    "block_label_text_color": "dim",
    "button_secondary_background_fill": "card",
    "button_secondary_border_color": "line",
    "button_secondary_text_color": "ink",
    "color_accent": "other",
    "border_color_accent": "other",
}


class _EventOptions(TypedDict):
    api_visibility: Literal["public", "private", "undocumented"]
    concurrency_id: str
    concurrency_limit: int


_ONE_AT_A_TIME: _EventOptions = {"api_visibility": "private", "concurrency_id": "network", "concurrency_limit": 1}


def make_page(renderer: ResultRenderer) -> gradio.Blocks:
    """The page that shows what the renderer returns; its uploads are in the folder of `gradio_environment`."""

    def answer_image(paths: list[str]) -> tuple[str, None]:
        with _deleted_after(paths):
            return renderer.image(Path(paths[0])) if paths else "", None

    def answer_table(paths: list[str]) -> tuple[str, None]:
        with _deleted_after(paths):
            return renderer.table([Path(path) for path in paths]) if paths else "", None

    with gradio.Blocks(title="Real or fake?", analytics_enabled=False) as page:
        gradio.HTML(render_template("introduction.html.j2", name=renderer.name))
        with gradio.Tab("One image"):
            upload = _upload_box(f"An image file of up to {MAX_UPLOAD >> 20} MB", elem_id="one")
            gradio.HTML(render_template("drawings.html.j2"))
            with gradio.Row():
                buttons = {
                    label: gradio.Button(f"Draw a {label} one", size="sm", elem_id=f"draw-{label}", min_width=100)
                    for label in LABELS
                }
            answer = gradio.HTML(elem_id="answer", min_height=0)
        with gradio.Tab("Many images"):
            limits = f"Up to {MAX_FILES} image files, of {MAX_UPLOAD >> 20} MB together"
            uploads = _upload_box(limits, elem_id="many", file_count="multiple")
            table = gradio.HTML(elem_id="table", min_height=0)
        gradio.HTML(render_template("caution.html.j2"))
        upload.upload(answer_image, upload, [answer, upload], **_ONE_AT_A_TIME)
        uploads.upload(answer_table, uploads, [table, uploads], **_ONE_AT_A_TIME)
        for label, button in buttons.items():
            button.click(lambda label=label: _answer_drawing(renderer, label), None, answer, **_ONE_AT_A_TIME)
    page.state_session_capacity = 1  # Gradio keeps the last answer of this many visitors; 0 is an error
    return page.queue(max_size=MAX_QUEUE, api_open=False)


def _upload_box(
    label: str, *, elem_id: str, file_count: Literal["single", "multiple", "directory"] = "single"
) -> gradio.File:
    """A file box that accepts uploads, and nothing else that a request may name.

    Gradio itself would fetch URLs, and take any file that this process can read. An upload that is gone is passed on:
    the answer says that it cannot be read, and covers the others.
    """
    box = gradio.File(label=label, height=150, file_count=file_count, elem_id=elem_id)

    def resolve_upload(name: str | Path) -> str:
        path = Path(name).resolve()
        if path.parent.parent != Path(box.GRADIO_CACHE).resolve() or path.is_dir():
            raise gradio.Error("This is not an upload; choose the file again.", print_exception=False)
        return os.fspath(path)

    async def move_to_cache(url_or_file_path: str | Path | None) -> str | None:
        return None if url_or_file_path is None else resolve_upload(url_or_file_path)

    def preprocess(payload: ListFiles | FileData | None) -> list[str]:
        files = [payload] if isinstance(payload, FileData) else payload or []
        return [resolve_upload(file.path) for file in files]

    # Gradio would write a .pyi beside the source of a subclass.
    box.async_move_resource_to_block_cache = move_to_cache  # type: ignore[method-assign]
    box.preprocess = preprocess  # type: ignore[method-assign]
    return box


@contextlib.contextmanager
def _deleted_after(paths: list[str]) -> Iterator[None]:
    try:
        yield
    finally:
        for path in map(Path, paths):
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # holds the same content under another name
                path.parent.rmdir()


def _answer_drawing(renderer: ResultRenderer, label: str) -> str:
    rng = np.random.default_rng()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawing.jpg"
        path.write_bytes(make_jpeg(label, str(rng.choice(CLASSES)), _DRAWING_SIZE, rng))
        return renderer.image(path)


def _theme() -> gradio.themes.Base:
    """Gradio's plainest theme, in our colours and with fonts that are installed everywhere."""
    colours = {name: LIGHT[colour] for name, colour in _THEME_COLOURS.items()}
    colours |= {f"{name}_dark": DARK[colour] for name, colour in _THEME_COLOURS.items() if name != "color_accent"}
    return gradio.themes.Base(font=_FONTS, font_mono=_MONOSPACE_FONTS).set(button_border_width="1px", **colours)


# --- uploads ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def gradio_environment(folder: Path) -> Iterator[None]:
    """Within the block, Gradio sends no analytics, and pages have their uploads in the folder."""
    variables = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": os.fspath(folder)}
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


async def _sweep(folder: Path) -> None:
    """Delete, again and again, uploads that were never asked about, as when the page was closed before."""
    while True:
        await asyncio.sleep(_MAX_AGE / 10)
        delete_older_than(folder, _MAX_AGE)


def delete_older_than(folder: Path, seconds: float) -> None:
    """Delete the uploads that are older than that."""
    with contextlib.suppress(OSError):  # Gradio creates the folder with the first upload
        for path in list(folder.iterdir()):
            with contextlib.suppress(OSError):  # being answered right now
                if path.stat().st_mtime < time.time() - seconds:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def pending_bytes(folder: Path) -> int:
    """Size of all uploads in the folder."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # being deleted right now
            total += path.lstat().st_size
    return total


# --- the server ------------------------------------------------------------------------------------------------


def make_app(
    page: gradio.Blocks,
    folder: Path,
    on_ready: Callable[[], None] = lambda: None,
    names: frozenset[str] = frozenset({"*"}),
) -> FastAPI:
    """The routes of a page.

    Args:
        folder: of its uploads.
        on_ready: called when the app has started.
        names: that requests may have as Host, see `hosts.own_names`.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(folder))
        on_ready()
        yield
        sweeping.cancel()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_RequestFilter, folder=folder, names=names)
    return gradio.mount_gradio_app(
        app,
        page,
        "/",
        max_file_size=MAX_UPLOAD,
        theme=_theme(),
        css=render_template("demo.css.j2"),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        show_error=False,
        pwa=False,
        enable_monitoring=False,
    )


class _RequestFilter:
    """Middleware that lets through what the page needs: other routes of Gradio read files, or ask other servers."""

    def __init__(self, app: ASGIApp, folder: Path, names: frozenset[str]):
        self._app, self._folder, self._names = app, folder, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (status := self._refusal(scope)):
            headers = [(b"connection", b"close"), (b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": _REFUSALS[status].encode()})
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> int:
        """The status code with which a request is refused; 0 lets it through."""
        headers = dict(scope["headers"])
        if not hosts.is_allowed(scope["headers"], self._names):
            return hosts.STATUS
        if _is_of_another_page(headers):
            return 403
        if not _OPEN_PATHS.fullmatch(scope["path"]):
            return 404
        return self._refusal_of_body(scope, headers) if scope["method"] == "POST" else 0

    def _refusal_of_body(self, scope: Scope, headers: dict[bytes, bytes]) -> int:
        if headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none"):
            return 403  # another page in the same browser
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or b"transfer-encoding" in headers:  # the latter would take precedence
            return 411
        is_upload = scope["path"] == _UPLOAD_PATH
        if len(length) > 18 or int(length) > (MAX_UPLOAD if is_upload else _MAX_BODY):
            return 413
        return 507 if is_upload and pending_bytes(self._folder) + int(length) > MAX_PENDING else 0


def _is_of_another_page(headers: dict[bytes, bytes]) -> bool:
    """Whether a request says that it was made by a page of another server; older browsers say nothing else."""
    return b"origin" in headers and headers[b"origin"].partition(b"://")[2] != headers.get(b"host")


class _Server(uvicorn.Server):
    """A server that, on shutdown, closes the streams that Gradio keeps open to each browser that shows the page."""

    def __init__(self, app: FastAPI, config: uvicorn.Config):
        super().__init__(config)
        self._routes = app.routes

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        for route in self._routes:
            if stop := getattr(getattr(route, "app", None), "stop_event", None):
                stop.set()
        await super().shutdown(sockets)


def make_server(app: FastAPI) -> uvicorn.Server:
    """A server for the app."""
    config = uvicorn.Config(
        app,
        ws="none",
        timeout_graceful_shutdown=10,
        log_config=None,  # Uvicorn's own would close the handlers that are installed
        log_level="warning",
        access_log=False,
        server_header=False,
    )
    return _Server(app, config)


def run_demo(
    run: Run, *, host: str, port: int, announce: Callable[[str], None], allowed_hosts: Iterable[str] = ()
) -> dict:
    """Serve the page until SIGTERM, SIGINT or SIGHUP; then delete the uploads that are left.

    Args:
        port: 0 for any free one.
        announce: called with one line when the page can be opened.
        allowed_hosts: names of this server beside `localhost` and that of the computer; see `hosts`.

    Returns:
        `run`, its name, and `url`, the address of the page.

    Raises:
        ConfigError: the port is taken, or the run cannot be loaded.
    """
    listener = sockets.bind(host, port)
    url = sockets.url(listener)
    renderer = ResultRenderer(run)
    _answer_drawing(renderer, "real")  # the first answer takes ten times as long as the others
    with tempfile.TemporaryDirectory(prefix="ddk-demo-") as name, gradio_environment(Path(name)):
        ready = f"trying {run.name} on {url}; Ctrl-C stops it"
        app = make_app(make_page(renderer), Path(name), lambda: announce(ready), hosts.own_names(allowed_hosts))
        sockets.run(make_server(app), listener)
    return {"run": run.name, "url": url}
