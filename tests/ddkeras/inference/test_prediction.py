"""Image files become rows: each in its place, whatever is wrong with some, and never more in memory than a few."""

import dataclasses
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
from ddkeras.inference import prediction
from ddkeras.inference.prediction import Prediction, batch_size, predict, predict_batches
from ddkeras.inference.scorers import Scorer, of_run
from pipelines.datasets.layouts import find_image_names


def told_by(images: np.ndarray) -> dict[str, np.ndarray]:
    """Scores that follow from the first pixel of an image."""
    red = images[:, 0, 0, 0].astype(np.float32) / 255
    return {"fake_probability": red, "verdict": (red > 0.5).astype(np.int32)}


@pytest.fixture
def scorer():
    """A detector of red, of 200 pixels, in batches of 8."""
    return Scorer("red", 200, 8, [], "digest", told_by)


@pytest.fixture
def folder(tmp_path):
    """Images in many shades of red, and among them files that are none."""
    for index in range(100):
        path = tmp_path / f"{index:03}.png"
        Image.new("RGB", (200, 200), (index, 0, 0)).save(path)
        if index % 7 == 3:
            path.write_bytes(path.read_bytes()[:-30])
        if index % 7 == 5:
            path.write_text("no image")
    return tmp_path


def test_each_row_is_of_its_own_file_whatever_is_wrong_with_others(scorer, folder):
    paths = sorted(folder.iterdir())
    rows = list(predict(scorer, [*paths, folder / "gone.png"]))
    assert [row.path for row in rows] == [str(path) for path in [*paths, folder / "gone.png"]]
    for index, row in enumerate(rows[:-1]):
        if index % 7 in (3, 5):
            error = "damaged or cut short PNG" if index % 7 == 3 else "not an image in a known format"
            assert row == Prediction(str(paths[index]), error=error)
        else:
            assert (row.fake_probability, row.verdict) == (pytest.approx(index / 255, abs=1e-7), "real")
    assert rows[-1].error == "No such file or directory"


def test_all_files_of_a_batch_may_be_bad(scorer, tmp_path):
    for index in range(20):
        (tmp_path / f"{index}.jpg").write_bytes(b"")
    assert {row.error for row in predict(scorer, sorted(tmp_path.iterdir()))} == {"the file is empty"}
    assert list(predict(scorer, [])) == []


def test_a_thousand_bad_files_among_ten_good_ones(scorer, tmp_path):
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


def test_a_folder_that_changes_meanwhile_is_scored_as_it_was_found(scorer, folder):
    paths = find_image_names([folder])

    def changing(images: np.ndarray) -> dict[str, np.ndarray]:
        (folder / "099.png").unlink(missing_ok=True)
        (folder / "098.png").write_bytes(b"")
        (folder / "100.png").write_bytes((folder / "000.png").read_bytes())
        return told_by(images)

    rows = list(predict(dataclasses.replace(scorer, score=changing), paths))
    assert [row.path for row in rows] == paths
    assert len(rows) == 100
    assert [row.error for row in rows[-2:]] == ["the file is empty", "No such file or directory"]
    assert rows[97].fake_probability == pytest.approx(97 / 255, abs=1e-7)


def test_batches_have_one_size_but_the_last_and_in_them_one_place_for_each(scorer, folder):
    sizes = []
    counting = dataclasses.replace(scorer, score=lambda images: (sizes.append(len(images)), told_by(images))[1])
    paths = sorted(folder.iterdir())
    assert [len(batch) for batch in predict_batches(counting, paths)] == [8] * 12 + [4]
    assert sizes == [8] * 12 + [4], "a GPU compiles the network anew for each size"


def test_small_images_are_scored_in_larger_batches(scorer):
    assert batch_size(scorer) == 8
    assert batch_size(dataclasses.replace(scorer, image_size=32)) == 256
    assert batch_size(dataclasses.replace(scorer, image_size=32, batch=512)) == 512


def test_the_next_files_are_read_while_some_are_scored_but_not_all(scorer, folder):
    asked, scored_at = [], []

    def paths():
        for _ in range(1000):
            asked.append(1)
            yield folder / "000.png"

    def score(images):
        scored_at.append(len(asked))
        return told_by(images)

    rows = predict(dataclasses.replace(scorer, score=score), paths())
    next(rows)
    assert scored_at[0] > 8
    assert len(asked) < 1000


def test_what_goes_wrong_in_a_thread_is_raised_and_no_thread_is_left(scorer, folder):
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


def test_the_score_of_a_file_does_not_depend_on_its_company(run, data):
    scorer = of_run(run)
    paths = sorted(data.rglob("*.jpg"))
    together = list(predict(scorer, paths))
    alone = [next(predict(scorer, [path])) for path in paths]
    assert [row.verdict for row in alone] == [row.verdict for row in together]
    np.testing.assert_allclose(
        [row.fake_probability for row in alone], [row.fake_probability for row in together], atol=1e-6
    )


def test_to_go_on_from_another_folder_is_refused_where_paths_would_mean_other_files(run, data, tmp_path, monkeypatch):
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
    assert "was begun with paths test, not " in ddk(data / "test", "--output", output, "--resume")
    monkeypatch.chdir(tmp_path)
    assert "begun with" in ddk("test", "--output", output, "--resume")
    monkeypatch.chdir(data)
    assert "3 images" in ddk("test", "--output", output, "--resume")


def test_a_name_that_is_no_utf8_can_be_told_of(run, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    Path(path).write_bytes(encode())
    result = CliRunner().invoke(main, ["predict", path, "--run", str(run.folder)])
    assert result.exit_code == 0, result.output
    assert r"caf\udce9.jpg: " in result.stdout


@pytest.mark.slow
def test_what_manifests_need_is_said_once_also_for_a_table(run, data, tmp_path):
    (tmp_path / "c2pa.py").write_text("raise ImportError")
    options = ("--run", run.folder, "--output", "a.csv")
    process = start_ddk(tmp_path, "predict", data / "test", *options, PYTHONPATH=os.fspath(tmp_path))
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert said.count('C2PA manifests are not read; to read them: pip install "ddkeras[provenance]"') == 1


def test_categories_have_a_probability_each(run, data):
    for row in predict(of_run(run), sorted(data.rglob("*.jpg"))):
        assert list(row.category_probabilities) == ["animals", "vehicles"]
        assert sum(row.category_probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert row.category_probability == max(row.category_probabilities.values())
        assert row.category == max(row.category_probabilities, key=row.category_probabilities.get)


def test_probabilities_are_the_shortest_decimals_that_tell_them_apart(scorer, tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode())
    score = {"fake_probability": np.array([0.3], np.float32), "verdict": np.array([2])}
    (row,) = predict(dataclasses.replace(scorer, score=lambda images: score), [tmp_path / "a.jpg"])
    assert (row.fake_probability, row.verdict) == (0.3, "unsure")
