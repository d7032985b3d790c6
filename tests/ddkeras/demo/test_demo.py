"""The demo: the page agrees with `ddk predict`, and no upload outlives its answer."""

import base64
import contextlib
import csv
import importlib
import io
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import schemas
from click.testing import CliRunner
from fastapi.testclient import TestClient
from PIL import Image
from starlette.responses import PlainTextResponse
from tiny import encode, start_ddk, with_each_verdict

from ddkeras.cli import main
from ddkeras.demo import app
from ddkeras.demo.render import MAX_FILES, VERDICT_MEANINGS, ResultRenderer
from ddkeras.inference.prediction import predict
from ddkeras.inference.scorers import scorer_for_run
from ddkeras.inference.stability import stability
from ddkeras.metrics.calibration import Limits, OperatingPoint
from ddkeras.runs.run import copy_run
from ddkeras.serving import hosts

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def renderer(run):
    return ResultRenderer(run)


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def sixteen_bits() -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(3).integers(0, 65536, (40, 40), dtype=np.uint16)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {
    "plain.jpg": encode(seed=1),
    "turned.jpg": encode(seed=2, exif=exif(6)),
    "deep.png": sixteen_bits(),
    "as-webp.webp": encode("WEBP", seed=4, lossless=True),
}


def write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def words(html: str) -> str:
    """The text of HTML, without the tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


# --- results ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_the_score_is_that_of_ddk_predict(renderer, run, tmp_path, name):
    path = write(tmp_path, name, FILES[name])
    (prediction,) = predict(scorer_for_run(run), [path])
    text = words(renderer.image(path))
    assert text.startswith((f"{name} {prediction.verdict.capitalize()} ", f"{name} Unsure "))
    assert f"Score {prediction.fake_probability:.4f} " in text
    assert f"with probability {prediction.category_probability:.4f}" in text


def test_a_rotated_file_has_another_score(run, tmp_path):
    upright, turned = (write(tmp_path, f"{place}.jpg", encode(seed=2, exif=exif(place))) for place in (1, 6))
    scores = [prediction.fake_probability for prediction in predict(scorer_for_run(run), [upright, turned])]
    assert f"{scores[0]:.4f}" != f"{scores[1]:.4f}"  # so that the test above can fail


def test_each_verdict_is_shown_with_its_meaning(run, records, data, tmp_path):
    renderer = ResultRenderer(with_each_verdict(run, records, tmp_path / "run"))
    paths = sorted(data.glob("validation/*/*/*.jpg"))
    texts = {words(renderer.image(path)).removeprefix(f"{path.name} ") for path in paths}
    for verdict, meaning in VERDICT_MEANINGS.items():
        matching = [text for text in texts if text.startswith(f"{verdict.capitalize()} ")]
        assert matching, verdict
        if verdict != "unsure":
            assert all(text.startswith(f"{verdict.capitalize()} {meaning}") for text in matching)


def test_a_verdict_that_flips_is_shown_as_unsure(run, tmp_path):
    path = write(tmp_path, "plain.jpg", FILES["plain.jpg"])
    plain = copy_run(run, tmp_path / "run").with_operating_point(OperatingPoint())
    scorer = scorer_for_run(plain)
    (prediction,), (reencoded,) = predict(scorer, [path]), stability(scorer, [path.read_bytes()])
    assert reencoded.change > 0
    other = max(reencoded.probabilities.values(), key=lambda each: abs(each - prediction.fake_probability))
    threshold = float(np.mean([np.log(p / (1 - p)) for p in (prediction.fake_probability, other)]))
    point = OperatingPoint(1.0, Limits(threshold, threshold), {}, {})
    text = words(ResultRenderer(plain.with_operating_point(point)).image(path))
    verdict = "fake" if prediction.fake_probability > other else "real"
    assert text.startswith(f"plain.jpg Unsure By its score it would be {verdict}, but mild re-encoding changes that.")
    assert f"Score {prediction.fake_probability:.4f} " in text
    assert f"Score shift {reencoded.change:.4f} " in text


def test_the_pictures_are_the_image_and_the_evidence_for_each_head(renderer, tmp_path):
    html = renderer.image(write(tmp_path, "plain.jpg", FILES["plain.jpg"]))
    pictures = [Image.open(io.BytesIO(base64.b64decode(png))) for png in re.findall(r"base64,([^\"]+)\"", html)]
    assert [picture.size for picture in pictures] == [(320, 320)] * 3
    image, *overlays = (np.asarray(picture.convert("RGB")).astype(int) for picture in pictures)
    assert np.ptp(image, axis=2).mean() > 30  # noise in colour; overlays are grey except for the evidence
    assert all(not np.array_equal(overlay, image) for overlay in overlays)


def test_what_a_file_says_about_its_origin_is_beside_the_score(renderer, tmp_path):
    tags = Image.Exif()
    tags[0x0131] = "Midjourney"
    marked = write(tmp_path, "marked.jpg", encode(seed=1, exif=tags))
    plain = write(tmp_path, "plain.jpg", encode(seed=1))
    text, unmarked = (words(renderer.image(path)) for path in (marked, plain))
    assert "Midjourney (EXIF Software). The score does not use it." in text
    assert "What the file says about itself Nothing No C2PA manifest and no tags" in unmarked
    score = r"Score (0\.\d{4})"
    assert re.search(score, text)[1] == re.search(score, unmarked)[1]


RUBBISH = {
    "notes.jpg": (b"not an image at all", "notes.jpg cannot be scored: not an image in a known format."),
    "empty.png": (b"", "empty.png cannot be scored: the file is empty."),
    "huge.png": (
        encode("PNG").replace((40).to_bytes(4, "big") * 2, (20_000).to_bytes(4, "big") * 2, 1),
        "huge.png cannot be scored: 20000 x 20000 pixels, more than 100,000,000.",
    ),
}


@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish_is_answered_with_one_sentence(renderer, tmp_path, name):
    content, sentence = RUBBISH[name]
    assert words(renderer.image(write(tmp_path, name, content))) == sentence


def test_a_file_name_is_escaped(renderer, tmp_path):
    name = "<script>alert(1)<"
    rubbish, image = (
        write(tmp_path, f"{name}{number}.jpg", content)
        for number, content in enumerate((b"rubbish", FILES["plain.jpg"]))
    )
    for html in (renderer.image(rubbish), renderer.image(image), renderer.table([rubbish, image])):
        assert "<script" not in html
        assert "&lt;script&gt;alert(1)&lt;" in html


def test_many_files_are_a_table_and_a_csv_with_errors_as_rows(renderer, run, tmp_path):
    paths = [write(tmp_path, name, content) for name, content in FILES.items()]
    paths.append(write(tmp_path, "notes.jpg", b"rubbish"))
    predictions, html = list(predict(scorer_for_run(run), paths)), renderer.table(paths)
    first = predictions[0]
    rows = [words(row) for row in re.findall(r"<tr>.*?</tr>", html, flags=re.DOTALL)[1:]]
    assert rows[0] == f"plain.jpg {first.verdict} {first.fake_probability:.4f} {first.category}"
    assert rows[4] == "notes.jpg not an image in a known format"
    assert words(html).startswith("5 files: ")
    assert "1 with an error." in words(html)
    text = base64.b64decode(re.search(r"data:text/csv;base64,([^\"]+)", html)[1]).decode()
    table = list(csv.DictReader(io.StringIO(text)))
    assert [row["name"] for row in table] == [*FILES, "notes.jpg"]
    assert [float(row["fake_probability"]) for row in table[:4]] == [
        prediction.fake_probability for prediction in predictions[:4]
    ]
    assert (table[4]["verdict"], table[4]["error"]) == ("", "not an image in a known format")


def test_too_many_files_are_refused_with_the_limit(renderer, tmp_path):
    html = renderer.table([tmp_path / f"{number}.jpg" for number in range(MAX_FILES + 1)])
    assert words(html) == "101 files are too many; upload at most 100 at once."


# --- requests --------------------------------------------------------------------------------------------------


@pytest.fixture
def client(renderer, tmp_path):
    """A client of the app, without a network between, and its folder of uploads."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    with app.gradio_environment(folder), TestClient(app.make_app(app.make_page(renderer), folder)) as client:
        yield client, folder


def upload(client: TestClient, *files: tuple[str, bytes]) -> list[str]:
    response = client.post("/gradio_api/upload", files=[("files", file) for file in files])
    assert response.status_code == 200, response.text
    return response.json()


def ask(client: TestClient, paths: list[str], index: int = 0, session: str = "abc") -> str:
    """The events the page gets for these uploads; index 0 is the tab of one image, 1 that of many."""
    named = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in paths]
    body = {"data": [named if index else named[0]], "fn_index": index, "session_hash": session}
    joined = client.post("/gradio_api/queue/join", json=body)
    assert joined.status_code == 200, joined.text
    return client.get("/gradio_api/queue/data", params={"session_hash": session}).text


def content_left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("content", [FILES["plain.jpg"], b"rubbish"])
def test_an_upload_is_gone_once_it_is_answered(client, index, content):
    client, folder = client
    paths = upload(client, ("photo.jpg", content))
    assert content_left(folder) == [Path(paths[0])]
    events = ask(client, paths, index)
    assert '"success":true' in events
    assert ("photo.jpg cannot be scored" in events or "not an image" in events) == (content == b"rubbish")
    assert list(folder.rglob("*")) == []


def test_only_uploads_are_read_and_deleted(client, tmp_path):
    client, folder = client
    own = write(tmp_path, "own.jpg", FILES["plain.jpg"])
    for path in (str(own), f"{folder}/../own.jpg", "http://127.0.0.1:1/photo.jpg", "https://example.org/photo.jpg"):
        for index in (0, 1):
            events = ask(client, [path], index)
            assert '"success":false' in events
            assert "Score" not in events
            assert "This is not an upload; choose the file again." in events
    assert own.read_bytes() == FILES["plain.jpg"]
    assert list(folder.rglob("*")) == []


def test_an_upload_that_is_gone_is_a_row_with_an_error_and_the_others_are_answered(client):
    client, folder = client
    paths = upload(client, ("a.jpg", FILES["plain.jpg"]), ("b.jpg", FILES["turned.jpg"]))
    Path(paths[0]).unlink()
    events = ask(client, paths, 1)
    assert "2 files: 1 " in events
    assert "No such file or directory" in events
    assert content_left(folder) == []


def test_only_the_last_answer_stays_in_memory(client):
    client, _ = client
    for session in ("a", "b", "c"):
        assert '"success":true' in ask(client, upload(client, ("photo.jpg", FILES["plain.jpg"])), session=session)
    (page,) = [route.app for route in client.app.routes if hasattr(route.app, "state_holder")]
    assert list(page.state_holder.session_data) == ["c"]


def test_old_uploads_are_deleted_and_a_missing_folder_is_none(tmp_path):
    app.delete_older_than(tmp_path / "gone", 60)
    for name, age in (("old", 100), ("new", 10)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "photo.jpg", FILES["plain.jpg"])
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    app.delete_older_than(tmp_path, 60)
    assert content_left(tmp_path) == [tmp_path / "new" / "photo.jpg"]


@pytest.mark.parametrize(
    "path",
    [
        "file=/etc/passwd",
        "file/etc/passwd",
        "proxy=https://example.org/",
        "info",
        "openapi.json",
        "runs",
        "call/one",
        "run/one",
        "vibe-code",
    ],
)
def test_routes_that_the_page_does_not_need_are_closed(client, path):
    client, folder = client
    (folder / "left").mkdir()
    kept = write(folder / "left", "photo.jpg", FILES["plain.jpg"])
    assert client.get(f"/gradio_api/{path}").status_code == 404
    assert client.post(f"/gradio_api/{path}", json={}).status_code == 404
    assert client.get(f"/gradio_api/file={kept}").status_code == 404


def test_uploads_have_a_size_limit(client, monkeypatch):
    client, folder = client
    monkeypatch.setattr(app, "MAX_UPLOAD", 1000)
    large = client.post("/gradio_api/upload", files={"files": ("a.jpg", bytes(2000))})
    assert large.status_code == 413
    assert large.text == "more than 256 MB in one upload; choose fewer or smaller files", "what the page shows"
    assert client.post("/gradio_api/upload", content=iter([b"unknown length"])).status_code == 411
    ambiguous = {"content-length": "10", "transfer-encoding": "chunked"}
    assert client.post("/gradio_api/upload", content=b"0123456789", headers=ambiguous).status_code == 411
    assert content_left(folder) == []


def test_other_requests_have_a_size_limit(client):
    client, _ = client
    body = {"data": [[[]] * 2**19], "fn_index": 1, "session_hash": "abc"}
    assert client.post("/gradio_api/queue/join", json=body).status_code == 413


def test_pending_uploads_have_a_limit(client, monkeypatch):
    client, folder = client
    monkeypatch.setattr(app, "MAX_PENDING", 3000)
    assert client.post("/gradio_api/upload", files={"files": ("a.jpg", bytes(2000))}).status_code == 200
    assert client.post("/gradio_api/upload", files={"files": ("b.jpg", bytes(2000))}).status_code == 507
    assert [path.name for path in content_left(folder)] == ["a.jpg"]


@pytest.mark.parametrize(("site", "status"), [("same-origin", 200), ("none", 200), ("cross-site", 403)])
def test_another_page_in_the_same_browser_cannot_upload(client, site, status):
    client, _ = client
    files, headers = {"files": ("a.jpg", bytes(200))}, {"sec-fetch-site": site}
    assert client.post("/gradio_api/upload", files=files, headers=headers).status_code == status


def test_a_request_of_another_page_or_for_another_name_is_refused(tmp_path):
    async def reached(scope, receive, send):
        await PlainTextResponse("reached")(scope, receive, send)

    names = hosts.own_names()
    client = TestClient(app._RequestFilter(reached, tmp_path, names), base_url="http://localhost:7860")
    assert client.get("/").text == "reached"
    assert client.get("/", headers={"origin": "http://localhost:7860"}).text == "reached"
    assert client.get("/", headers={"host": "127.0.0.1:7860"}).text == "reached"
    for origin in ("http://evil.example", "http://localhost:8000", "null"):
        assert client.get("/", headers={"origin": origin}).status_code == 403
    assert client.get("/", headers={"host": "evil.example:7860"}).status_code == 421


def test_the_page_is_served_and_refers_to_no_other_server(client):
    client, _ = client
    assert client.get("/").status_code == 200
    assert "fonts.googleapis" not in client.get("/").text + client.get("/theme.css").text
    assert "http" not in re.sub(r"http://(www\.w3\.org|testserver)", "", client.get("/theme.css").text)


def test_gradio_is_configured_only_while_the_demo_runs(tmp_path, monkeypatch):
    monkeypatch.delenv("GRADIO_ANALYTICS_ENABLED", raising=False)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "before")
    monkeypatch.delitem(sys.modules, "ddkeras.demo.app")
    imported = importlib.import_module("ddkeras.demo.app")
    assert "GRADIO_ANALYTICS_ENABLED" not in os.environ
    with imported.gradio_environment(tmp_path):
        assert (os.environ["GRADIO_ANALYTICS_ENABLED"], os.environ["GRADIO_TEMP_DIR"]) == ("False", str(tmp_path))
    assert "GRADIO_ANALYTICS_ENABLED" not in os.environ
    assert os.environ["GRADIO_TEMP_DIR"] == "before"


def test_without_gradio_one_line_says_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "ddkeras.demo.app")
    monkeypatch.delattr("ddkeras.demo.app")
    result = CliRunner().invoke(main, ["demo", "--run", str(run.folder)])
    assert result.exit_code == 1
    assert "Error: the demo needs Gradio; install it with: pip install 'ddkeras[demo]'" in result.stderr


# --- in a browser ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def started(run, folder: Path, *options):
    """`ddk demo` in a process of its own, with its temporary files in the folder, and its address."""
    (folder / "tmp").mkdir()
    process = start_ddk(folder, "demo", "--run", run.folder, "--port", 0, *options, TMPDIR=str(folder / "tmp"))
    try:
        line = next(line for line in process.stderr if line.startswith("trying "))
        yield process, re.search(r"http://127\.0\.0\.1:\d+", line)[0]
    finally:
        process.kill()
        process.communicate()


def stray(folder: Path) -> list[str]:
    """Files that are not empty, except those that TensorFlow writes and deletes."""
    return [path.name for path in content_left(folder) if "autograph" not in path.name]


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on PATH")
def test_in_a_browser_every_kind_of_upload_is_answered_and_none_is_left(run, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    photo = write(tmp_path, "photo.jpg", FILES["turned.jpg"])
    rubbish, empty = write(tmp_path, "notes.jpg", b"rubbish"), write(tmp_path, "empty.jpg", b"")
    large = write(tmp_path, "large.jpg", b"")
    halves = [write(tmp_path, f"half{number}.jpg", b"") for number in (1, 2)]
    for path, size in zip([large, *halves], [app.MAX_UPLOAD + 1, *[app.MAX_UPLOAD // 2] * 2], strict=True):
        os.truncate(path, size)
    (prediction,) = predict(scorer_for_run(run), [photo])
    with started(run, tmp_path) as (process, url), sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, requested = browser.new_page(viewport={"width": 390, "height": 800}), []
        page.on("request", lambda request: requested.append(request.url))
        page.goto(url)
        page.set_input_files("#one input[type=file]", photo)
        page.wait_for_selector("#answer figure img")
        assert page.inner_text("#answer .word").lower() in (prediction.verdict, "unsure")
        assert f"{prediction.fake_probability:.4f}" in page.inner_text("#answer .facts")
        pictures = page.eval_on_selector_all("#answer img", "all => all.map(img => [img.complete, img.naturalWidth])")
        assert pictures == [[True, 320]] * 3
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert stray(tmp_path / "tmp") == []
        for path, sentence in (
            (rubbish, "notes.jpg cannot be scored: not an image in a known format."),
            (empty, "empty.jpg cannot be scored: the file is empty."),
        ):
            page.set_input_files("#one input[type=file]", path)
            page.wait_for_function("text => document.querySelector('#answer').innerText.trim() == text", arg=sentence)
        page.set_input_files("#one input[type=file]", large)
        page.wait_for_selector("text=exceed the maximum allowed size of 256.0 Mb")
        page.click("#draw-fake")
        page.wait_for_selector("#answer figure img")
        page.get_by_role("tab", name="Many images").click()
        page.set_input_files("#many input[type=file]", halves)
        page.wait_for_selector("text=more than 256 MB in one upload; choose fewer or smaller files")
        page.get_by_role("button", name="Clear").click()
        page.set_input_files("#many input[type=file]", [photo, rubbish])
        page.wait_for_selector("#table table")
        assert "not an image in a known format" in page.inner_text("#table")
        with page.expect_download() as download:
            page.click("#table a")
        assert f"{prediction.verdict},,{prediction.fake_probability}" in Path(download.value.path()).read_text()
        assert {re.match(r"data:|blob:|http://[^/]*", address)[0] for address in requested} <= {url, "data:", "blob:"}
        assert stray(tmp_path / "tmp") == []
        process.send_signal(signal.SIGTERM)  # with the page still open
        assert process.wait(20) == 0
        browser.close()
    assert list((tmp_path / "tmp").glob("ddk-demo-*")) == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "form"), [(signal.SIGINT, []), (signal.SIGHUP, ["--json"])])
def test_a_signal_ends_it_with_exit_code_0_and_deletes_pending_uploads(run, tmp_path, number, form, request):
    import httpx  # noqa: PLC0415

    ours = signal.signal(number, signal.default_int_handler)  # under nohup it would be ignored, also by the demo
    request.addfinalizer(lambda: signal.signal(number, ours))
    with started(run, tmp_path, *form) as (process, url):
        httpx.post(f"{url}/gradio_api/upload", files={"files": ("photo.jpg", FILES["plain.jpg"])}).raise_for_status()
        assert stray(tmp_path / "tmp") == ["photo.jpg"]
        process.send_signal(number)
        assert process.wait(20) == 0
        printed = process.stdout.read()
        if form:
            schemas.check_output("demo", printed)
            assert json.loads(printed)["url"] == url
        else:
            assert printed.endswith("; all uploads are deleted\n")
    assert stray(tmp_path / "tmp") == []
