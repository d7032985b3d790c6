"""Scoring image files: one row per file, in order, in constant memory, whatever is wrong with some of them."""

import asyncio
import csv
import dataclasses
import math
import multiprocessing
import os
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny import encode, start_ddk

from ddkeras.cli import main
from ddkeras.exceptions import ConfigError
from ddkeras.inference import prediction, writers
from ddkeras.inference.prediction import Prediction, batch_size, predict, predict_batches, to_frame
from ddkeras.inference.scorers import Scorer, scorer_for_run
from pipelines.datasets.layouts import find_image_names
from pipelines.media.provenance import Provenance
from pipelines.views import Squash


def score_red(images: np.ndarray) -> dict[str, np.ndarray]:
    """The fake probability is the red value of the first pixel."""
    red = images[:, 0, 0, 0].astype(np.float32) / 255
    return {"logit": red - 0.5, "fake_probability": red, "verdict": (red > 0.5).astype(np.int32)}


@pytest.fixture
def scorer():
    """A detector of red, with images of 200 pixels in batches of 8."""
    return Scorer("red", Squash(200), 8, [], "digest", score_red)


@pytest.fixture
def folder(tmp_path):
    """Images in many shades of red, some of them damaged, and files that are not images."""
    for index in range(100):
        path = tmp_path / f"{index:03}.png"
        Image.new("RGB", (200, 200), (index, 0, 0)).save(path)
        if index % 7 == 3:
            path.write_bytes(path.read_bytes()[:-30])
        if index % 7 == 5:
            path.write_text("no image")
    return tmp_path


def test_each_row_belongs_to_its_file_whatever_is_wrong_with_others(scorer, folder):
    paths = sorted(folder.iterdir())
    rows = list(predict(scorer, [*paths, folder / "gone.png"]))
    assert [row.path for row in rows] == [str(path) for path in [*paths, folder / "gone.png"]]
    for index, row in enumerate(rows[:-1]):
        if index % 7 in (3, 5):
            error = "damaged or cut short PNG" if index % 7 == 3 else "not an image in a known format"
            assert row == Prediction(str(paths[index]), error=error, provenance_fields=Provenance().fields())
        else:
            assert (row.fake_probability, row.verdict) == (pytest.approx(index / 255, abs=1e-7), "real")
    assert rows[-1].error == "No such file or directory"


def test_all_files_of_a_batch_may_be_unreadable(scorer, tmp_path):
    for index in range(20):
        (tmp_path / f"{index}.jpg").write_bytes(b"")
    assert {row.error for row in predict(scorer, sorted(tmp_path.iterdir()))} == {"the file is empty"}
    assert list(predict(scorer, [])) == []


def test_a_thousand_unreadable_files_among_ten_readable_ones(scorer, tmp_path):
    for index in range(1010):
        path = tmp_path / f"{index:04}.png"
        if index % 101 == 50:
            Image.new("RGB", (200, 200), (index // 101, 0, 0)).save(path)
        else:
            path.write_bytes([b"", b"no image", b"\x89PNG\r\n\x1a\n"][index % 3])
    rows = list(predict(scorer, sorted(tmp_path.iterdir())))
    good = [row for row in rows if not row.error]
    assert [Path(row.path).stem for row in good] == [f"{101 * red + 50:04}" for red in range(10)]
    assert [row.fake_probability for row in good] == [pytest.approx(red / 255, abs=1e-7) for red in range(10)]
    assert Counter(row.error for row in rows if row.error) == {
        "the file is empty": 334,
        "not an image in a known format": 334,
        "damaged or cut short PNG": 332,
    }


def test_a_folder_that_changes_meanwhile_is_scored_as_it_was_listed(scorer, folder):
    paths = find_image_names([folder])

    def changing(images: np.ndarray) -> dict[str, np.ndarray]:
        (folder / "099.png").unlink(missing_ok=True)
        (folder / "098.png").write_bytes(b"")
        (folder / "100.png").write_bytes((folder / "000.png").read_bytes())
        return score_red(images)

    rows = list(predict(dataclasses.replace(scorer, score=changing), paths))
    assert [row.path for row in rows] == paths
    assert len(rows) == 100
    assert [row.error for row in rows[-2:]] == ["the file is empty", "No such file or directory"]
    assert rows[97].fake_probability == pytest.approx(97 / 255, abs=1e-7)


def test_all_batches_but_the_last_have_the_same_size(scorer, folder):
    sizes = []
    counting = dataclasses.replace(scorer, score=lambda images: (sizes.append(len(images)), score_red(images))[1])
    paths = sorted(folder.iterdir())
    assert [len(batch) for batch in predict_batches(counting, paths)] == [8] * 12 + [4]
    assert sizes == [8] * 12 + [4], "a GPU compiles the network anew for each size"


def test_small_images_are_scored_in_larger_batches(scorer):
    assert batch_size(scorer) == 8
    assert batch_size(dataclasses.replace(scorer, view=Squash(32))) == 256
    assert batch_size(dataclasses.replace(scorer, view=Squash(32), batch=512)) == 512


def test_a_limited_number_of_files_is_read_ahead(scorer, folder):
    requested, scored_at = [], []

    def paths():
        for _ in range(1000):
            requested.append(1)
            yield folder / "000.png"

    def score(images):
        scored_at.append(len(requested))
        return score_red(images)

    rows = predict(dataclasses.replace(scorer, score=score), paths())
    next(rows)
    assert scored_at[0] > 8
    assert len(requested) < 1000


def test_an_exception_in_a_thread_is_raised_and_no_thread_is_left(scorer, folder):
    before = threading.active_count()

    def fail(images):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(predict(dataclasses.replace(scorer, score=fail), sorted(folder.iterdir())))
    rows = predict(scorer, sorted(folder.iterdir()))
    next(rows)
    rows.close()
    deadline = threading.Event()
    for _ in range(100):
        if threading.active_count() <= before:
            break
        deadline.wait(0.05)
    assert threading.active_count() <= before


def test_the_score_of_a_file_does_not_depend_on_its_batch(run, data):
    scorer = scorer_for_run(run)
    paths = sorted(data.rglob("*.jpg"))
    together = list(predict(scorer, paths))
    alone = [next(predict(scorer, [path])) for path in paths]
    assert [row.verdict for row in alone] == [row.verdict for row in together]
    np.testing.assert_allclose(
        [row.fake_probability for row in alone], [row.fake_probability for row in together], atol=1e-6
    )


def test_resuming_from_another_folder_is_refused_if_paths_would_mean_other_files(run, data, tmp_path, monkeypatch):
    def interrupted(scorer, files, **options):
        raise KeyboardInterrupt

    def ddk(*arguments) -> str:
        result = CliRunner().invoke(main, ["predict", "--run", str(run.folder), *map(str, arguments)])
        return result.output if result.exit_code == 0 else result.stderr.splitlines()[-1]

    output = tmp_path / "scores.csv"
    monkeypatch.chdir(data)
    with monkeypatch.context() as patch:
        patch.setattr(prediction, "predict_batches", interrupted)
        assert "0 of 3 images are scored" in ddk("test", "--output", output)
    assert "was started with paths test, not " in ddk(data / "test", "--output", output, "--resume")
    monkeypatch.chdir(tmp_path)
    assert "started with" in ddk("test", "--output", output, "--resume")
    monkeypatch.chdir(data)
    assert "3 images" in ddk("test", "--output", output, "--resume")


def test_a_file_name_that_is_not_utf8_can_be_printed(run, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    Path(path).write_bytes(encode())
    result = CliRunner().invoke(main, ["predict", path, "--run", str(run.folder)])
    assert result.exit_code == 0, result.output
    assert r"caf\udce9.jpg: " in result.stdout


@pytest.mark.slow
def test_the_missing_extra_for_manifests_is_named_once(run, data, tmp_path):
    (tmp_path / "c2pa.py").write_text("raise ImportError")
    options = ("--run", run.folder, "--output", "a.csv")
    process = start_ddk(tmp_path, "predict", data / "test", *options, PYTHONPATH=os.fspath(tmp_path))
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert errors.count('C2PA manifests are not read; to read them: pip install "ddkeras[provenance]"') == 1


def test_each_category_has_a_probability(run, data):
    for row in predict(scorer_for_run(run), sorted(data.rglob("*.jpg"))):
        assert list(row.category_probabilities) == ["animals", "vehicles"]
        assert sum(row.category_probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert row.category_probability == max(row.category_probabilities.values())
        assert row.category == max(row.category_probabilities, key=row.category_probabilities.get)


def test_probabilities_are_shortest_decimals(scorer, tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode())
    score = {"logit": np.zeros(1), "fake_probability": np.array([0.3], np.float32), "verdict": np.array([2])}
    (row,) = predict(dataclasses.replace(scorer, score=lambda images: score), [tmp_path / "a.jpg"])
    assert (row.fake_probability, row.verdict) == (0.3, "unsure")


def test_a_notebook_can_call_it_without_processes_and_without_output(scorer, folder, capfd):
    async def cell() -> list[Prediction]:  # as in a notebook, whose event loop is running
        return list(predict(scorer, sorted(folder.iterdir())))

    rows = asyncio.run(cell())
    assert len(rows) == 100
    assert multiprocessing.active_children() == []
    assert capfd.readouterr() == ("", "")


def test_a_frame_has_the_columns_and_values_of_the_csv_and_the_fields_of_provenance(run, data, tmp_path):
    scorer = scorer_for_run(run)
    paths = [*sorted(data.rglob("*.jpg"))[:5], tmp_path / "bad.jpg"]
    frame = to_frame(predict(scorer, paths))
    output = tmp_path / "scores.csv"
    writers.write(
        output,
        lambda files: predict_batches(scorer, files),
        map(str, paths),
        columns=writers.columns("scores", scorer.categories),
        settings={},
    )
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(frame) == [*rows[0], "provenance_fields"]
    assert frame["provenance_fields"].tolist() == [Provenance().fields()] * 6
    assert frame["path"].tolist() == [row["path"] for row in rows]
    assert frame["verdict"].tolist() == [row["verdict"] or None for row in rows]
    for name in ("fake_probability", "category_probability", "probability_animals", "probability_vehicles"):
        assert frame[name].tolist()[:5] == pytest.approx([float(row[name]) for row in rows[:5]], abs=1e-6)
        assert math.isnan(frame[name][5])
    assert frame["error"].tolist() == ["", "", "", "", "", "No such file or directory"]


def test_a_frame_without_rows_has_columns_with_types():
    frame = to_frame([])
    assert frame.empty
    assert list(frame)[:3] == ["path", "fake_probability", "verdict"]
    assert frame["fake_probability"].dtype == "float64"


@pytest.mark.parametrize("logit", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(folder, logit):
    def score(images: np.ndarray) -> dict[str, np.ndarray]:
        return score_red(images) | {"logit": np.full(len(images), logit, np.float32)}

    with pytest.raises(ConfigError, match="red gives 1 of 1 images a score that is not a finite number; its weights"):
        list(predict(Scorer("red", Squash(200), 8, [], "digest", score), [folder / "000.png"]))


def test_tiny_images_are_unsure_with_the_reason(scorer, tmp_path):
    for name, size in (("tiny", (40, 31)), ("large", (40, 32)), ("tall", (19, 400))):
        Image.new("RGB", size, (255, 0, 0)).save(tmp_path / f"{name}.png")
    strict = dataclasses.replace(scorer, min_side=32)
    rows = {Path(row.path).stem: row for row in predict(strict, sorted(tmp_path.iterdir()))}
    assert {name: (row.verdict, row.reason) for name, row in rows.items()} == {
        "tiny": ("unsure", "its shorter side has 31 pixels, fewer than 32"),
        "large": ("fake", ""),
        "tall": ("unsure", "its shorter side has 19 pixels, fewer than 32"),
    }
    assert {row.fake_probability for row in rows.values()} == {1.0}
    assert {row.verdict for row in predict(scorer, sorted(tmp_path.iterdir()))} == {"fake"}
