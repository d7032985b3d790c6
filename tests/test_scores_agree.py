"""The score of a file is the same everywhere: evaluate, predict and the SavedModel."""

import csv
import shutil

import numpy as np
import pytest
from conftest import encode, serve
from PIL import Image

from ddkeras import evaluation, runs
from ddkeras.calibration import Limits, OperatingPoint
from ddkeras.export import export_saved_model
from ddkeras.prediction import predict, write_csv
from pipelines.conversion import write_records
from pipelines.layouts import read_layout
from pipelines.records import open_records


@pytest.fixture(scope="module")
def run(run, records, tmp_path_factory):
    """The run with an operating point at which each verdict occurs, another one for one of the categories."""
    copy = runs.copied(run, tmp_path_factory.mktemp("runs"))
    low, high = np.quantile(evaluation.score(copy, records, ["validation"])["validation"].logits, [0.3, 0.7])
    limits, others = Limits(float(low), float(high)), Limits(float(low) - 0.01, float(high) - 0.01)
    return copy.operated_at(OperatingPoint(1.7, limits, {"vehicles": others}, {"false_alarms": 0.01}))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return export_saved_model(run, tmp_path_factory.mktemp("export"))


def predictions(run, records):
    """What evaluating the run writes into predictions.csv."""
    scores = evaluation.score(run, records, ["validation"])["validation"]
    return evaluation.report(run, records, "validation", scores).predictions


def test_evaluate_predict_and_the_saved_model_agree(run, records, data, exported):
    evaluated = predictions(run, records)
    paths = [data / path for path in evaluated["path"]]
    predicted = list(predict(run, paths))
    served = serve(exported, paths)
    np.testing.assert_allclose([p.fake_probability for p in predicted], evaluated["fake_probability"], atol=1e-5)
    np.testing.assert_allclose(np.float64(served["fake_probability"]), evaluated["fake_probability"], atol=1e-5)
    np.testing.assert_allclose(
        np.float64(served["category_probabilities"]).max(axis=1), evaluated["category_probability"], atol=1e-5
    )
    np.testing.assert_allclose(np.float64(served["logit"]), evaluated["logit"], atol=1e-5)
    assert served["verdict"] == [p.verdict for p in predicted] == evaluated["verdict"].tolist()
    assert set(served["verdict"]) == {"real", "fake", "unsure"}
    assert served["category"] == [p.category for p in predicted]
    assert [p.category for p in predicted] == evaluated["predicted_category"].tolist()


def test_files_that_cameras_and_scanners_make_have_one_score_as_well(run, data, exported, tmp_path):
    photos = shutil.copytree(data, tmp_path / "data")
    folder = photos / "validation/real/animals"
    pixels = np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(folder / "turned.jpg", exif=turned)
    Image.fromarray(pixels).convert("CMYK").save(folder / "inks.jpg")
    Image.fromarray(pixels[..., 0].astype(np.uint16) << 8).save(folder / "deep.png")
    Image.fromarray(pixels).quantize(32).save(folder / "palette.png")
    frames = [Image.fromarray(pixels), Image.fromarray(pixels[::-1])]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(pixels).save(folder / "scan.tiff")
    write_records(read_layout(photos), tmp_path / "records")
    records = open_records(tmp_path / "records")
    evaluated = predictions(run, records)
    evaluated = evaluated[
        evaluated["path"].isin([f"validation/real/animals/{path.name}" for path in folder.iterdir()])
    ]
    assert len(evaluated) == 9
    predicted = list(predict(run, [photos / path for path in evaluated["path"]]))
    np.testing.assert_allclose([p.fake_probability for p in predicted], evaluated["fake_probability"], atol=1e-5)
    itself = evaluated[~evaluated["path"].str.endswith("tiff")]  # a server decodes by itself, and TIFF it cannot
    served = serve(exported, [photos / path for path in itself["path"]])
    np.testing.assert_allclose(np.float64(served["fake_probability"]), itself["fake_probability"], atol=1e-5)


def test_a_file_that_cannot_be_read_is_a_row_with_its_error(run, tmp_path):
    contents = {"good.jpg": encode(), "cut.jpg": encode()[:-300], "empty.png": b"", "page.jpg": b"<html>"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    summary = write_csv(tmp_path / "scores.csv", predict(run, sorted(tmp_path.glob("*.*g"))), total=5)
    with (tmp_path / "scores.csv").open() as file:
        rows = {row["path"].rpartition("/")[2]: row for row in csv.DictReader(file)}
    assert {name: row["error"] for name, row in rows.items()} == {
        "good.jpg": "",
        "cut.jpg": "damaged or cut short JPEG",
        "empty.png": "the file is empty",
        "page.jpg": "not an image in a known format",
        "gone.jpg": "No such file or directory",
    }
    assert rows["cut.jpg"]["fake_probability"] == rows["cut.jpg"]["verdict"] == ""
    assert 0 <= float(rows["good.jpg"]["fake_probability"]) <= 1
    assert (summary["images"], summary["errors"], sum(summary["verdicts"].values())) == (5, 4, 1)


def test_more_files_than_a_batch_keep_their_order(run, data):
    paths = sorted(data.rglob("*.jpg"))
    assert len(paths) > 4 * run.recipe.batch
    assert [prediction.path for prediction in predict(run, paths)] == [str(path) for path in paths]
