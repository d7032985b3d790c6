"""The demo: what the page says of files is what `ddk predict` says, and of what was uploaded nothing stays."""

import base64
import contextlib
import csv
import io
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from PIL import Image
from tiny import encode, start_ddk, with_each_verdict

from ddkeras.cli import main
from ddkeras.demo import app
from ddkeras.demo.render import MEANS, MOST, Answers
from ddkeras.inference.prediction import predict
from ddkeras.inference.scorers import scorer_for_run
from ddkeras.inference.stability import stability
from ddkeras.metrics.calibration import Limits, OperatingPoint
from ddkeras.runs.run import copy_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def answers(run):
    return Answers(run)


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


# --- what it says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_the_score_is_that_of_ddk_predict(answers, run, tmp_path, name):
    path = write(tmp_path, name, FILES[name])
    (found,) = predict(scorer_for_run(run), [path])
    said = words(answers.one(path))
    assert said.startswith((f"{name} {found.verdict.capitalize()} ", f"{name} Unsure "))
    assert f"Score {found.fake_probability:.4f} " in said
    assert f"with probability {found.category_probability:.4f}" in said


def test_the_turned_and_the_unturned_file_have_other_scores(run, tmp_path):
    upright, turned = (write(tmp_path, f"{place}.jpg", encode(seed=2, exif=exif(place))) for place in (1, 6))
    scores = [one.fake_probability for one in predict(scorer_for_run(run), [upright, turned])]
    assert f"{scores[0]:.4f}" != f"{scores[1]:.4f}"  # so that the test above can fail


def test_each_verdict_is_said_and_what_it_means(run, records, data, tmp_path):
    answers = Answers(with_each_verdict(run, records, tmp_path / "run"))
    paths = sorted(data.glob("validation/*/*/*.jpg"))
    said = {words(answers.one(path)).removeprefix(f"{path.name} ") for path in paths}
    for verdict, meaning in MEANS.items():
        starts = [text for text in said if text.startswith(f"{verdict.capitalize()} ")]
        assert starts, verdict
        if verdict != "unsure":
            assert all(text.startswith(f"{verdict.capitalize()} {meaning}") for text in starts)


def test_a_verdict_that_flips_is_said_to_be_unsure(run, tmp_path):
    path = write(tmp_path, "plain.jpg", FILES["plain.jpg"])
    plain = copy_run(run, tmp_path / "run").with_operating_point(OperatingPoint())
    scorer = scorer_for_run(plain)
    (own,), (stable,) = predict(scorer, [path]), stability(scorer, [path.read_bytes()])
    assert stable.change > 0
    other = max(stable.probabilities.values(), key=lambda one: abs(one - own.fake_probability))
    middle = float(np.mean([np.log(p / (1 - p)) for p in (own.fake_probability, other)]))
    said = words(Answers(plain.with_operating_point(OperatingPoint(1.0, Limits(middle, middle), {}, {}))).one(path))
    verdict = "fake" if own.fake_probability > other else "real"
    assert said.startswith(
        f"plain.jpg Unsure By its score it would be {verdict}, but a mild re-encoding changes that."
    )
    assert f"Score {own.fake_probability:.4f} " in said
    assert f"Stability {stable.change:.4f} " in said


def test_the_pictures_are_of_the_image_and_of_what_speaks_for_each_head(answers, tmp_path):
    html = answers.one(write(tmp_path, "plain.jpg", FILES["plain.jpg"]))
    pictures = [Image.open(io.BytesIO(base64.b64decode(one))) for one in re.findall(r"base64,([^\"]+)\"", html)]
    assert [one.size for one in pictures] == [(320, 320)] * 3
    image, *overlays = (np.asarray(one.convert("RGB")).astype(int) for one in pictures)
    assert np.ptp(image, axis=2).mean() > 30  # noise in colour; grey in an overlay but where it is coloured
    assert all(not np.array_equal(one, image) for one in overlays)


def test_what_a_file_says_of_its_origin_stands_beside_the_score(answers, tmp_path):
    tags = Image.Exif()
    tags[0x0131] = "Midjourney"
    marked = write(tmp_path, "marked.jpg", encode(seed=1, exif=tags))
    plain = write(tmp_path, "plain.jpg", encode(seed=1))
    said, unmarked = (words(answers.one(path)) for path in (marked, plain))
    assert "Midjourney (EXIF Software)" in said
    assert "What the file says of itself Nothing No C2PA manifest and no tags" in unmarked
    score = r"Score (0\.\d{4})"
    assert re.search(score, said)[1] == re.search(score, unmarked)[1]


RUBBISH = {
    "notes.jpg": (b"not an image at all", "notes.jpg cannot be scored: not an image in a known format."),
    "empty.png": (b"", "empty.png cannot be scored: the file is empty."),
    "huge.png": (
        encode("PNG").replace((40).to_bytes(4, "big") * 2, (20_000).to_bytes(4, "big") * 2, 1),
        "huge.png cannot be scored: 20000 x 20000 pixels, more than 100,000,000.",
    ),
}


@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish_is_answered_with_one_sentence(answers, tmp_path, name):
    content, sentence = RUBBISH[name]
    assert words(answers.one(write(tmp_path, name, content))) == sentence


def test_a_name_is_text_and_no_html(answers, tmp_path):
    path = write(tmp_path, "<img src=x onerror=alert(1)>.jpg", b"rubbish")
    for html in (answers.one(path), answers.many([path])):
        assert "<img" not in html
        assert "&lt;img src=x onerror=alert(1)&gt;.jpg" in html


def test_many_are_a_table_with_errors_as_rows_and_the_same_as_csv(answers, run, tmp_path):
    paths = [write(tmp_path, name, content) for name, content in FILES.items()]
    paths.append(write(tmp_path, "notes.jpg", b"rubbish"))
    found, html = list(predict(scorer_for_run(run), paths)), answers.many(paths)
    rows = [words(row) for row in re.findall(r"<tr>.*?</tr>", html)[1:]]
    assert rows[0] == f"plain.jpg {found[0].verdict} {found[0].fake_probability:.4f} {found[0].category}"
    assert rows[4] == "notes.jpg not an image in a known format"
    assert words(html).startswith("5 files: ")
    assert "1 with an error." in words(html)
    text = base64.b64decode(re.search(r"data:text/csv;base64,([^\"]+)", html)[1]).decode()
    table = list(csv.DictReader(io.StringIO(text)))
    assert [row["name"] for row in table] == [*FILES, "notes.jpg"]
    assert [float(row["fake_probability"]) for row in table[:4]] == [one.fake_probability for one in found[:4]]
    assert (table[4]["verdict"], table[4]["error"]) == ("", "not an image in a known format")


def test_too_many_files_are_refused_with_the_limit(answers, tmp_path):
    html = answers.many([tmp_path / f"{number}.jpg" for number in range(MOST + 1)])
    assert words(html) == "101 files are too many; give at most 100 at once."


# --- what it lets through --------------------------------------------------------------------------------------


@pytest.fixture
def client(answers, tmp_path):
    """A client of the app, without a network between, and its folder of uploads."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    with app.uploads_in(folder), TestClient(app.make_app(app.make_page(answers), folder)) as client:
        yield client, folder


def upload(client: TestClient, *files: tuple[str, bytes]) -> list[str]:
    response = client.post("/gradio_api/upload", files=[("files", file) for file in files])
    assert response.status_code == 200, response.text
    return response.json()


def asked(client: TestClient, paths: list[str], index: int = 0, session: str = "abc") -> str:
    """What the page is told when it asks about these; 0 is one image, 1 many."""
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
    told = asked(client, paths, index)
    assert '"success":true' in told
    assert ("photo.jpg cannot be scored" in told or "not an image" in told) == (content == b"rubbish")
    assert list(folder.rglob("*")) == []


def test_no_file_but_an_upload_is_read_or_deleted(client, tmp_path):
    client, folder = client
    own = write(tmp_path, "own.jpg", FILES["plain.jpg"])
    for path in (str(own), f"{folder}/../own.jpg", "http://127.0.0.1:1/photo.jpg", "https://example.org/photo.jpg"):
        for index in (0, 1):
            told = asked(client, [path], index)
            assert '"success":false' in told
            assert "Score" not in told
            assert "This is no upload; give the file again." in told
    assert own.read_bytes() == FILES["plain.jpg"]
    assert list(folder.rglob("*")) == []


def test_an_upload_that_is_gone_is_a_row_and_the_others_are_answered_and_deleted(client):
    client, folder = client
    paths = upload(client, ("a.jpg", FILES["plain.jpg"]), ("b.jpg", FILES["turned.jpg"]))
    Path(paths[0]).unlink()
    told = asked(client, paths, 1)
    assert "2 files: 1 " in told
    assert "No such file or directory" in told
    assert content_left(folder) == []


def test_only_the_last_answer_stays_in_memory(client):
    client, _ = client
    for session in ("a", "b", "c"):
        assert '"success":true' in asked(client, upload(client, ("photo.jpg", FILES["plain.jpg"])), session=session)
    (page,) = [route.app for route in client.app.routes if hasattr(route.app, "state_holder")]
    assert list(page.state_holder.session_data) == ["c"]


def test_what_was_uploaded_long_ago_is_forgotten_also_when_the_folder_was_gone_meanwhile(tmp_path):
    app.forget(tmp_path / "gone", 60)
    for name, age in (("old", 100), ("new", 10)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "photo.jpg", FILES["plain.jpg"])
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    app.forget(tmp_path, 60)
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
def test_what_the_page_does_not_need_is_not_there(client, path):
    client, folder = client
    (folder / "left").mkdir()
    kept = write(folder / "left", "photo.jpg", FILES["plain.jpg"])
    assert client.get(f"/gradio_api/{path}").status_code == 404
    assert client.post(f"/gradio_api/{path}", json={}).status_code == 404
    assert client.get(f"/gradio_api/file={kept}").status_code == 404


def test_uploads_have_a_limit(client, monkeypatch):
    client, folder = client
    monkeypatch.setattr(app, "MAX_UPLOAD", 1000)
    large = client.post("/gradio_api/upload", files={"files": ("a.jpg", bytes(2000))})
    assert large.status_code == 413
    assert large.text == "more than 256 MB together; give fewer files, or smaller ones", "what the page shows"
    assert client.post("/gradio_api/upload", content=iter([b"unknown length"])).status_code == 411
    said_twice = {"content-length": "10", "transfer-encoding": "chunked"}
    assert client.post("/gradio_api/upload", content=b"0123456789", headers=said_twice).status_code == 411
    assert content_left(folder) == []


def test_a_question_is_small(client):
    client, _ = client
    body = {"data": [[[]] * 2**19], "fn_index": 1, "session_hash": "abc"}
    assert client.post("/gradio_api/queue/join", json=body).status_code == 413


def test_uploads_that_wait_have_a_limit(client, monkeypatch):
    client, folder = client
    monkeypatch.setattr(app, "MAX_HELD", 3000)
    assert client.post("/gradio_api/upload", files={"files": ("a.jpg", bytes(2000))}).status_code == 200
    assert client.post("/gradio_api/upload", files={"files": ("b.jpg", bytes(2000))}).status_code == 507
    assert [path.name for path in content_left(folder)] == ["a.jpg"]


@pytest.mark.parametrize(("site", "status"), [("same-origin", 200), ("none", 200), ("cross-site", 403)])
def test_another_page_in_the_same_browser_cannot_upload(client, site, status):
    client, _ = client
    files, headers = {"files": ("a.jpg", bytes(200))}, {"sec-fetch-site": site}
    assert client.post("/gradio_api/upload", files=files, headers=headers).status_code == status


def test_the_page_is_there_and_names_no_other_server(client):
    client, _ = client
    assert client.get("/").status_code == 200
    assert "fonts.googleapis" not in client.get("/").text + client.get("/theme.css").text
    assert "http" not in re.sub(r"http://(www\.w3\.org|testserver)", "", client.get("/theme.css").text)


def test_without_gradio_one_line_says_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "ddkeras.demo.app")
    monkeypatch.delattr("ddkeras.demo.app")
    result = CliRunner().invoke(main, ["demo", "--run", str(run.folder)])
    assert result.exit_code == 1
    assert "Error: the demo needs Gradio; install it with: pip install 'ddkeras[demo]'" in result.stderr


# --- in a browser ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def started(run, folder: Path):
    """`ddk demo` in a process of its own, whose temporary files are in the folder, and its address."""
    (folder / "tmp").mkdir()
    process = start_ddk(folder, "demo", "--run", run.folder, "--port", 0, TMPDIR=str(folder / "tmp"))
    try:
        line = next(line for line in process.stderr if line.startswith("trying "))
        yield process, re.search(r"http://127\.0\.0\.1:\d+", line)[0]
    finally:
        process.kill()
        process.communicate()


def stray(folder: Path) -> list[str]:
    """Files with something in them, but for those that TensorFlow writes and deletes."""
    return [path.name for path in content_left(folder) if "autograph" not in path.name]


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on PATH")
def test_in_a_browser_verdict_overlay_rubbish_and_nothing_left(run, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    photo = write(tmp_path, "photo.jpg", FILES["turned.jpg"])
    rubbish, empty = write(tmp_path, "notes.jpg", b"rubbish"), write(tmp_path, "empty.jpg", b"")
    large = write(tmp_path, "large.jpg", b"")
    halves = [write(tmp_path, f"half{number}.jpg", b"") for number in (1, 2)]
    for path, size in zip([large, *halves], [app.MAX_UPLOAD + 1, *[app.MAX_UPLOAD // 2] * 2], strict=True):
        os.truncate(path, size)
    (found,) = predict(scorer_for_run(run), [photo])
    with started(run, tmp_path) as (process, url), sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, asked = browser.new_page(viewport={"width": 390, "height": 800}), []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        page.set_input_files("#one input[type=file]", photo)
        page.wait_for_selector("#answer figure img")
        assert page.inner_text("#answer .word").lower() in (found.verdict, "unsure")
        assert f"{found.fake_probability:.4f}" in page.inner_text("#answer .facts")
        pictures = page.eval_on_selector_all("#answer img", "all => all.map(one => [one.complete, one.naturalWidth])")
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
        page.wait_for_selector("text=more than 256 MB together; give fewer files, or smaller ones")
        page.get_by_role("button", name="Clear").click()
        page.set_input_files("#many input[type=file]", [photo, rubbish])
        page.wait_for_selector("#table table")
        assert "not an image in a known format" in page.inner_text("#table")
        with page.expect_download() as download:
            page.click("#table a")
        assert f"{found.verdict},{found.fake_probability}" in Path(download.value.path()).read_text()
        assert {re.match(r"data:|blob:|http://[^/]*", one)[0] for one in asked} <= {url, "data:", "blob:"}
        assert stray(tmp_path / "tmp") == []
        process.send_signal(signal.SIGTERM)  # with the page still open
        assert process.wait(20) == 0
        browser.close()
    assert list((tmp_path / "tmp").glob("ddk-demo-*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_0_and_what_nobody_asked_about_is_gone(run, tmp_path, number, request):
    import httpx  # noqa: PLC0415

    ours = signal.signal(number, signal.default_int_handler)  # under nohup it would be ignored, also by the demo
    request.addfinalizer(lambda: signal.signal(number, ours))
    with started(run, tmp_path) as (process, url):
        httpx.post(f"{url}/gradio_api/upload", files={"files": ("photo.jpg", FILES["plain.jpg"])}).raise_for_status()
        assert stray(tmp_path / "tmp") == ["photo.jpg"]
        process.send_signal(number)
        assert process.wait(20) == 0
        assert process.stdout.read().endswith("; nothing that was uploaded is kept\n")
    assert stray(tmp_path / "tmp") == []
