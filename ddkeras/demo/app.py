"""A page to try a run on: one image with its explanation, or many in a table.

What is uploaded lies in a folder of this process until its answer is made, and no longer. An answer is one piece of
HTML that holds its pictures, so nothing is kept to be fetched, and of Gradio's paths only those that the page needs
are open. The page asks nothing of other servers.
"""

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from ddkeras.demo.render import MOST, Answers
from ddkeras.exceptions import ConfigError
from ddkeras.reporting.html import plain
from ddkeras.reporting.palette import DARK, LIGHT
from ddkeras.runs.run import Run
from ddkeras.serving import sockets as listening
from pipelines.datasets.examples import LABELS
from pipelines.datasets.sample_data import make_jpeg
from pipelines.datasets.scenes import CLASSES

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is loaded
try:
    import gradio
    import uvicorn
    from fastapi import FastAPI
    from gradio.data_classes import FileData
except ImportError as error:
    raise ConfigError("the demo needs Gradio; install it with: pip install 'ddkeras[demo]'") from error

MAX_UPLOAD = 256 * 2**20  # bytes of all files that are uploaded together
MAX_HELD = 2**30  # bytes of uploads that wait for their answers
MAX_QUEUE = 20  # requests that wait; one is answered at a time
_MAX_QUESTION = 2**20  # bytes of what else a page sends; as JSON they need a hundred times as many
_FORGOTTEN = 1800  # seconds after which an upload goes that nobody asked about; those in the queue wait less
_UPLOAD = "/gradio_api/upload"
_DRAWN = 256  # pixels of an image made on the spot
_TEMP = "GRADIO_TEMP_DIR"  # the environment variable for where Gradio has uploads
_PATHS = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json)|/(static|assets|svelte)/.+"
    r"|/gradio_api/(upload|upload_progress|startup-events|queue/join|queue/data|heartbeat/\w+)"
)
_REFUSED = {  # the page shows these beside the number
    403: "only the page itself may ask",
    404: "there is nothing here",
    411: "a request has to say how long it is",
    413: f"more than {MAX_UPLOAD >> 20} MB together; give fewer files, or smaller ones",
    507: "too many uploads wait for their answers; try again in a minute",
}

# --- the page --------------------------------------------------------------------------------------------------

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
_INTRODUCTION = """<div class="answer"><h1>Real or fake?</h1>
<p>Give an image, and <b>{name}</b> says whether it takes it for real, for fake (that is, generated), or is unsure. It
judges by how the pixels were made, not by whether what they show is true.</p></div>"""
_CAUTION = """<div class="answer dim"><p><b>It can be wrong, both ways.</b> It knows images like those that it was
trained on; on other subjects, cameras and generators expect more mistakes. The colours show what the verdict depends
on, and are no proof. Decide nothing about a person by it without a person who looks.</p>
<p>Uploads are deleted as soon as they are answered.</p></div>"""
_DRAWINGS = (
    '<div class="answer dim"><p>No image at hand? These buttons draw one on the spot, as a simulated camera or a '
    "simulated generator would make it. A run that was trained on photographs does not know such drawings.</p></div>"
)


def _colours(palette: dict[str, str]) -> str:
    return "".join(f"--ddk-{name}: {colour}; " for name, colour in palette.items())


_STYLE = (
    f":root {{ {_colours(LIGHT)} }}\n.dark {{ {_colours(DARK)} }}\n"
    """.gradio-container { max-width: 66rem !important; margin: 0 auto !important; }
.answer { color: var(--ddk-ink); font-size: 1rem; line-height: 1.5; overflow-wrap: anywhere; }
.answer p { margin: .4rem 0; max-width: 48rem; }
.answer h1 { font-size: 1.6rem; line-height: 1.3; margin: .4rem 0; color: var(--ddk-ink); }
.answer.dim p, .answer.dim b, .answer p.dim, .answer .ends span, .answer small, .answer figcaption,
.answer th { color: var(--ddk-dim); }
.gradio-container .html-container { padding: 0; }
.dark { --color-accent: var(--ddk-other); --border-color-accent: var(--ddk-other); }
.answer .real { color: var(--ddk-real); } .answer .fake { color: var(--ddk-fake); }
.answer .unsure { color: var(--ddk-ink); } .answer .fail { color: var(--ddk-fail); }
.answer div.verdict { border: solid var(--ddk-line); border-width: 1px 1px 1px .4rem; border-radius: .4rem;
  border-left-color: currentColor; background: var(--ddk-card); padding: .9rem 1.1rem; margin: .5rem 0 .8rem; }
.answer .verdict p { color: var(--ddk-ink); margin: 0; }
.answer .verdict .word { color: inherit; font-size: 2.6rem; font-weight: 700; line-height: 1.15; }
.answer .scale { position: relative; height: .6rem; border-radius: .3rem; margin: 1.1rem .5rem .4rem;
  background: linear-gradient(90deg, var(--ddk-real), var(--ddk-line), var(--ddk-fake)); }
.answer .scale i { position: absolute; top: -.3rem; width: 1.2rem; height: 1.2rem; margin-left: -.6rem;
  border-radius: 50%; background: var(--ddk-card); border: .25rem solid var(--ddk-ink); }
.answer .ends { display: flex; justify-content: space-between; font-size: .85rem; }
.answer .facts, .answer .pictures { display: grid; gap: .8rem; margin: .8rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(14rem, 100%), 1fr)); }
.answer .pictures { grid-template-columns: repeat(auto-fit, minmax(min(9.5rem, 45%), 1fr)); }
.answer .facts div { display: grid; align-content: start; padding: .7rem 1rem; border: 1px solid var(--ddk-line);
  border-radius: .4rem; background: var(--ddk-card); }
.answer .facts div:last-child { grid-column: 1 / -1; }
.answer .facts b { font-size: 1.3rem; line-height: 1.3; } .answer small { font-size: .85rem; }
.answer figure { margin: 0; padding: .6rem; border: 1px solid var(--ddk-line); border-radius: .4rem;
  background: var(--ddk-card); }
.answer figure img { display: block; width: 100%; border-radius: .2rem; }
.answer figcaption { font-size: .85rem; margin-top: .4rem; }
.answer .refused { border-left: .4rem solid var(--ddk-fail); padding: .6rem 1rem; background: var(--ddk-card); }
.answer .scroll { overflow-x: auto; }
.answer table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; border: 0; }
.answer table th, .answer table td { border: 0; border-bottom: 1px solid var(--ddk-line); text-align: left;
  padding: .35rem .8rem .35rem 0; vertical-align: top; font-weight: 400; overflow-wrap: normal; }
.answer table .number { text-align: right; } .answer table .name { overflow-wrap: anywhere; min-width: 6rem; }
.answer table tr { border: 0; }
.answer td.real, .answer td.fake, .answer td.unsure { font-weight: 700; }
.answer .csv { color: var(--ddk-ink); text-decoration: underline; padding: 0; }
"""
)


def _theme() -> gradio.themes.Base:
    """Gradio's plainest, in our colours, with fonts that the reader's computer has."""
    ours = {
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
    fills = {name: LIGHT[colour] for name, colour in ours.items()}
    fills |= {f"{name}_dark": DARK[colour] for name, colour in ours.items() if name != "color_accent"}
    fills |= {"button_border_width": "1px"}
    return gradio.themes.Base(font=_FONTS, font_mono=("ui-monospace", "DejaVu Sans Mono", "monospace")).set(**fills)


def _uploads(**options) -> gradio.File:
    """Where files are dropped. It hands over what was uploaded, and nothing else that a request may name.

    Gradio by itself would fetch what lies on other servers, and take any file that it can read. One that is gone is
    handed over, too: that it cannot be read will be said of it, beside what is said of others.
    """
    box = gradio.File(**options)

    def uploaded(name: str) -> Path:
        path = Path(name).resolve()
        if path.parent.parent != Path(box.GRADIO_CACHE).resolve() or path.is_dir():
            raise gradio.Error("This is no upload; give the file again.", print_exception=False)
        return path

    async def move(name: str) -> str:
        return os.fspath(uploaded(name))

    def preprocess(payload: Iterable[FileData] | FileData | None) -> list[Path]:
        files = [payload] if isinstance(payload, FileData) else payload or []
        return [uploaded(file.path) for file in files]

    # Not by a class of our own, beside whose source Gradio would write a file.
    box.async_move_resource_to_block_cache, box.preprocess = move, preprocess
    return box


def make_page(answers: Answers) -> gradio.Blocks:
    """The page over what answers; see `uploads_in` for where its uploads will be."""

    def one(paths: list[Path]) -> tuple[str, None]:
        with _deleted_after(paths):
            return answers.one(paths[0]) if paths else "", None

    def many(paths: list[Path]) -> tuple[str, None]:
        with _deleted_after(paths):
            return answers.many(paths) if paths else "", None

    with gradio.Blocks(title="Real or fake?", analytics_enabled=False) as page:
        gradio.HTML(_INTRODUCTION.format(name=plain(answers.name)))
        with gradio.Tab("One image"):
            upload = _uploads(label=f"An image file of at most {MAX_UPLOAD >> 20} MB", height=150, elem_id="one")
            gradio.HTML(_DRAWINGS)
            with gradio.Row():
                buttons = {
                    label: gradio.Button(f"Draw a {label} one", size="sm", elem_id=f"draw-{label}", min_width=100)
                    for label in LABELS
                }
            answer = gradio.HTML(elem_id="answer", min_height=0)
        with gradio.Tab("Many images"):
            limits = f"Up to {MOST} image files, of {MAX_UPLOAD >> 20} MB together"
            uploads = _uploads(label=limits, height=150, file_count="multiple", elem_id="many")
            table = gradio.HTML(elem_id="table", min_height=0)
        gradio.HTML(_CAUTION)
        ours = {"api_visibility": "private", "concurrency_id": "network", "concurrency_limit": 1}
        upload.upload(one, upload, [answer, upload], **ours)
        uploads.upload(many, uploads, [table, uploads], **ours)
        for label, button in buttons.items():
            button.click(lambda label=label: _drawn(answers, label), None, answer, **ours)
    page.state_session_capacity = 1  # Gradio keeps the last answer of so many visitors; none would be an error
    return page.queue(max_size=MAX_QUEUE, api_open=False)


@contextlib.contextmanager
def _deleted_after(paths: list[Path]) -> Iterator[None]:
    try:
        yield
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the same content is there under another name
                path.parent.rmdir()


def _drawn(answers: Answers, label: str) -> str:
    draws = np.random.default_rng()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawing.jpg"
        path.write_bytes(make_jpeg(label, str(draws.choice(CLASSES)), _DRAWN, draws))
        return answers.one(path)


# --- the process -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def uploads_in(folder: Path) -> Iterator[None]:
    """In the block, pages that are made and served have their uploads in that folder."""
    before = os.environ.get(_TEMP)
    os.environ[_TEMP] = os.fspath(folder)
    try:
        yield
    finally:
        os.environ.pop(_TEMP)
        if before is not None:
            os.environ[_TEMP] = before


def make_app(page: gradio.Blocks, folder: Path, ready: Callable[[], None] = lambda: None) -> FastAPI:
    """The routes of a page whose uploads are in that folder."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(folder))
        ready()
        yield
        sweeping.cancel()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Gate, folder=folder)
    quiet = {"footer_links": [], "run_history": False, "ssr_mode": False, "mcp_server": False, "show_error": False}
    quiet |= {"pwa": False, "enable_monitoring": False}
    return gradio.mount_gradio_app(app, page, "/", max_file_size=MAX_UPLOAD, theme=_theme(), css=_STYLE, **quiet)


async def _sweep(folder: Path) -> None:
    """Without end: delete what was uploaded and never asked about, such as by who closed the page before."""
    while True:
        await asyncio.sleep(_FORGOTTEN / 10)
        forget(folder, _FORGOTTEN)


def forget(folder: Path, seconds: float) -> None:
    """Delete the uploads that have been there for that long."""
    with contextlib.suppress(OSError):  # Gradio makes the folder with the first upload
        for path in list(folder.iterdir()):
            with contextlib.suppress(OSError):  # it is answered right now
                if path.stat().st_mtime < time.time() - seconds:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


class _Gate:
    """Lets through what the page asks for: of Gradio's other paths some read files, and some ask other servers."""

    def __init__(self, app: Callable[..., Awaitable[None]], folder: Path):
        self._app, self._folder = app, folder

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] == "http" and (status := self._refusal(scope)):
            headers = [(b"connection", b"close"), (b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            return await send({"type": "http.response.body", "body": _REFUSED[status].encode()})
        await self._app(scope, receive, send)

    def _refusal(self, scope: dict) -> int:
        """The status code for what is not let through; else 0."""
        headers = dict(scope["headers"])
        if not _PATHS.fullmatch(scope["path"]):
            return 404
        if scope["method"] != "POST":
            return 0
        if headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none"):
            return 403  # another page in the same browser
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or b"transfer-encoding" in headers:  # of which the latter would count
            return 411
        is_upload = scope["path"] == _UPLOAD
        if len(length) > 18 or int(length) > (MAX_UPLOAD if is_upload else _MAX_QUESTION):
            return 413
        return 507 if is_upload and held(self._folder) + int(length) > MAX_HELD else 0


def held(folder: Path) -> int:
    """How many bytes of uploads are in the folder."""
    found = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # it is deleted right now
            found += path.lstat().st_size
    return found


class _Server(uvicorn.Server):
    """Ends what Gradio keeps open for as long as a browser shows the page."""

    async def shutdown(self, sockets: list | None = None) -> None:
        for route in self.config.app.routes:
            if stop := getattr(route.app, "stop_event", None):
                stop.set()
        await super().shutdown(sockets)


def make_server(app: FastAPI) -> uvicorn.Server:
    """A server for the routes."""
    # Uvicorn's own configuration of logs would close the handlers that are there.
    shown = {"log_config": None, "log_level": "warning", "access_log": False, "server_header": False}
    return _Server(uvicorn.Config(app, ws="none", timeout_graceful_shutdown=10, **shown))


def demonstrate(run: Run, *, host: str, port: int, tell: Callable[[str], None]) -> dict:
    """Serve the page until SIGTERM, SIGINT or SIGHUP comes; what was uploaded is gone after that, too.

    Args:
        port: 0 takes any that is free.
        tell: called with one line when the page can be opened.

    Returns:
        `run`, its name, and `url`, where the page was.

    Raises:
        ConfigError: the port is taken, or the run cannot be loaded.
    """
    bound = listening.bind(host, port)
    url = listening.url(bound)
    answers = Answers(run)
    _drawn(answers, "real")  # the first answer takes ten times as long as others
    with tempfile.TemporaryDirectory(prefix="ddk-demo-") as name, uploads_in(Path(name)):
        app = make_app(make_page(answers), Path(name), lambda: tell(f"trying {run.name} on {url}; Ctrl-C stops it"))
        listening.run(make_server(app), bound)
    return {"run": run.name, "url": url}
