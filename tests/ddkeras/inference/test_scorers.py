"""What `ddk predict --run` accepts, and what it refuses to load."""

import shutil
from pathlib import Path

import keras
import pytest
from tiny import change_json

from ddkeras.exceptions import ConfigError
from ddkeras.exporting.onnx import export_onnx
from ddkeras.exporting.saved_model import export_saved_model
from ddkeras.inference.scorers import open_scorer
from ddkeras.runs.run import copy_run, file_sha256


@pytest.fixture(scope="module")
def onnx(run, tmp_path_factory):
    return export_onnx(run, tmp_path_factory.mktemp("export"))


@pytest.fixture
def copy(onnx, tmp_path):
    """An export to be changed."""
    return shutil.copytree(onnx, tmp_path / "export" / "1")


def test_every_path_to_a_model_is_accepted(run, onnx, tmp_path):
    saved_model = export_saved_model(run, tmp_path)
    paths = [run.folder, run.model_path, run.folder.parent / "latest", onnx, onnx.parent, onnx / "model.onnx"]
    for path in (*paths, saved_model, saved_model.parent, saved_model / "saved_model.pb"):
        scorer = open_scorer(path)
        assert (scorer.name, scorer.image_size, scorer.batch) == (run.name, 32, 8), path
        assert scorer.categories == ["animals", "vehicles"]


def test_the_highest_version_is_opened(onnx, copy):
    shutil.copytree(onnx, copy.parent / "10")
    (copy / "model.onnx").unlink()
    (copy.parent / "latest").mkdir()
    assert open_scorer(copy.parent).image_size == 32


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: (folder / "model_card.json").unlink(), "model_card.json"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "SHA256SUMS"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"other"), "model.onnx"),
        (lambda folder: (folder / "labels.txt").write_text("cats\n"), "labels.txt"),
        (lambda folder: (folder / "weights.bin").write_bytes(b""), "weights.bin"),
        (lambda folder: (folder / "model.onnx").unlink(), "model.onnx"),
        (lambda folder: (folder / "SHA256SUMS").write_bytes(b"\xff\n"), "SHA256SUMS"),
    ],
)
def test_an_export_that_was_changed_is_refused_before_it_is_loaded(copy, change, named):
    change(copy)
    with pytest.raises(ConfigError, match=rf"is not an export of ddk, or was changed since \({named}\)"):
        open_scorer(copy)


def test_a_model_that_ddk_did_not_write_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"other")
    with pytest.raises(ConfigError, match="is not an export of ddk"):
        open_scorer(tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match="is not an export of ddk"):
        open_scorer(tmp_path)
    (tmp_path / "model.keras").write_bytes(b"other")
    with pytest.raises(ConfigError, match=r"there is no trained run in .*; train one with: ddk fit"):
        open_scorer(tmp_path / "model.keras")
    with pytest.raises(ConfigError, match=r"there is no .*gone; give an export, or the folder of a run"):
        open_scorer(tmp_path / "gone")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"operating_point": {}}, "model_card.json has no field by_category"),
        ({"recipe": {}}, "model_card.json has no field batch"),
        ({"image_size": "32"}, "model_card.json is damaged"),
        ({"categories": [1]}, "model_card.json is damaged"),
        ({"image_size": -1}, "model_card.json is damaged"),
    ],
)
def test_an_export_whose_model_card_does_not_fit_is_refused(copy, fields, named):
    change_json(copy / "model_card.json", **fields)
    sums = copy / "SHA256SUMS"
    kept = [line for line in sums.read_text().splitlines() if not line.endswith("model_card.json")]
    sums.write_text("\n".join([*kept, f"{file_sha256(copy / 'model_card.json')}  model_card.json"]) + "\n")
    with pytest.raises(ConfigError, match=rf"{named}; export the run again: ddk export$"):
        open_scorer(copy)


def test_another_file_of_an_export_is_not_a_model(copy):
    with pytest.raises(ConfigError, match=r"labels\.txt is not a model; give one of saved_model\.pb"):
        open_scorer(copy / "labels.txt")


def test_code_in_a_model_is_not_run(run, tmp_path):
    ran = tmp_path / "ran"
    images = keras.Input((32, 32, 3))
    doubled = keras.layers.Lambda(lambda x, at=str(ran): (Path(at).touch(), x * 2)[1])(images)
    ran.unlink()  # Keras calls the layer to infer its output shape
    evil = copy_run(run, tmp_path)
    keras.Model(images, doubled).save(evil.model_path)
    change_json(evil.folder / "run.json", "model_sha256")
    with pytest.raises(
        ConfigError, match="cannot be loaded, as it contains code, such as a Lambda layer, or is damaged"
    ):
        open_scorer(evil.folder)
    assert not ran.exists()


def test_a_damaged_run_is_a_one_line_error(run, tmp_path):
    cut = copy_run(run, tmp_path)
    cut.model_path.write_bytes(cut.model_path.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"model\.keras is damaged.*its SHA-256 is not that in run\.json; restore"):
        open_scorer(cut.folder)
    change_json(cut.folder / "run.json", "model_sha256")  # as in a run of 0.2.0
    with pytest.raises(ConfigError, match=r"model\.keras cannot be loaded"):
        open_scorer(cut.folder)
