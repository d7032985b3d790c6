"""`import ddkeras`: what it offers, what it leaves alone, and that a plain script can use it."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import REPOSITORY, encode, plant

import ddkeras as ddk
from ddkeras import api
from ddkeras.evaluation import scoring
from ddkeras.exceptions import ConfigError
from ddkeras.inference import tta
from ddkeras.runs.ensemble import compose
from ddkeras.runs.run import copy_run
from pipelines.exceptions import DataError


def run_script(folder: Path, script: str) -> subprocess.CompletedProcess:
    """Run it as a file, in a process of its own."""
    (folder / "script.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": os.fspath(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


# --- what it offers --------------------------------------------------------------------------------------------


def test_every_public_name_is_documented_with_an_example():
    assert set(ddk.__all__) <= set(dir(ddk))
    for name in set(ddk.__all__) - {"Recipe"}:
        assert re.search(rf"\n +.*\bddk\.{name}\(", inspect.getdoc(getattr(ddk, name))), name


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match=r"module 'ddkeras' has no attribute 'evalute'"):
        ddk.evalute  # noqa: B018


def test_importing_it_loads_nothing_heavy_and_changes_nothing(tmp_path):
    script = """
import logging, os, sys
environment = dict(os.environ)
import ddkeras as ddk
import ddkeras.cli
functions = [getattr(ddk, name) for name in ddk.__all__ if name != "Recipe"]
heavy = {"tensorflow", "keras", "numpy", "pandas", "PIL", "sklearn", "matplotlib"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert dict(os.environ) == environment
assert not any(logging.getLogger(name).handlers for name in (None, "ddkeras", "pipelines"))
"""
    done = run_script(tmp_path, script)
    assert (done.stdout, done.stderr) == ("", "")


SCRIPT = """
import logging, os
import matplotlib, tensorflow, tensorflow_datasets  # which set environment variables themselves
matplotlib.use("svg")
environment = dict(os.environ)

import ddkeras as ddk

records = ddk.convert({data!r}, workers=2)
run = ddk.fit(records, backbone="small-cnn", image_size=32, epochs=1, augment="none")
report = ddk.evaluate(run, records, degrade=2)["validation"]
rows = list(ddk.predict(run, {data!r} + "/test"))
print(run.point.fitted["reals"], report.auc.value, [row.verdict for row in rows], ddk.export(run).name)
assert matplotlib.get_backend() == "svg"
assert dict(os.environ) == environment
assert not any(logging.getLogger(name).handlers for name in ("ddkeras", "pipelines"))
"""

# What TensorFlow's C++ code prints when it is imported, even at TF_CPP_MIN_LOG_LEVEL=3.
OF_TENSORFLOW = re.compile(r"WARNING: All log messages before absl::InitializeLog|I0000 .*(cudart_stub|port)\.cc")

OF_FEW_IMAGES = re.compile(r"WARNING:.*(train|validation) has \d+ (real|fake) images: .*; add images")


@pytest.mark.slow
def test_a_script_without_main_guard_goes_from_folder_to_export_quietly(data, tmp_path):
    done = run_script(tmp_path, SCRIPT.format(data=os.fspath(data)))
    assert done.returncode == 0, done.stderr
    others = [line for line in done.stderr.splitlines() if not OF_TENSORFLOW.match(line)]
    assert [line for line in others if not OF_FEW_IMAGES.match(line)] == []
    verdict = "'(real|fake|unsure)'"
    assert re.fullmatch(rf"6 [01]\.\d+ \[{verdict}, {verdict}, {verdict}\] 1\n", done.stdout), done.stdout
    assert (tmp_path / "artifacts/runs/latest/evaluation/validation/report.html").is_file()


# --- data ------------------------------------------------------------------------------------------------------


def test_convert_returns_the_records_it_wrote(data, tmp_path, capfd, caplog):
    records = ddk.convert(data, tmp_path / "records", progress=True)
    assert records.fingerprint == ddk.open_records(tmp_path / "records").fingerprint
    assert records.splits["train"].examples == 24
    assert "converting" in capfd.readouterr().err
    assert [record.getMessage() for record in caplog.records] == records.few_images


def test_convert_warns_where_files_give_the_label_away(tmp_path, caplog):
    plant(tmp_path, {"real": 40, "fake": 40})
    for path in (tmp_path / "fake").iterdir():
        path.write_bytes(encode("PNG"))
    ddk.convert(tmp_path, tmp_path / "records")
    warning, *_ = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "with: ddk make-tfrecords DATA --equalise crop (or resize, for small images)" in warning


def test_convert_equalises_by_resizing_or_cropping(data, tmp_path):
    assert ddk.convert(data, tmp_path / "plain").equalised == ""
    assert ddk.convert(data, tmp_path / "resized", equalise=True).equalised == "resize"
    with pytest.raises(DataError, match=r"40 pixels on the shorter side; a crop of 32 at a random place needs 47"):
        ddk.convert(data, tmp_path / "cropped", equalise="crop")


def test_audit_takes_a_folder_or_records(data, records, tmp_path):
    of_folder, of_records = ddk.audit(data), ddk.audit(records)
    assert of_folder.verdict == of_records.verdict == "warn"
    assert [finding["verdict"] for finding in of_folder.findings] == ["warn"] * len(of_folder.findings)
    assert str(of_folder).startswith("WARN: usable with care")
    assert of_folder.findings[0]["text"] in str(of_folder)
    of_records.report(tmp_path / "audit")
    assert (tmp_path / "audit/audit.html").read_text().startswith("<!doctype html>")
    assert ddk.audit(records.folder).result["fingerprint"] == records.fingerprint


def test_audit_takes_the_image_size_of_fit(data):
    assert inspect.signature(ddk.audit).parameters["image_size"].default == ddk.Recipe().image_size == 224
    assert ddk.audit(data, image_size=32).result["views"]["image_size"] == 32
    with pytest.raises(ConfigError, match="image_size must be between 32 and 2048, not 0"):
        ddk.audit(data, image_size=0)


# --- training --------------------------------------------------------------------------------------------------


def test_fit_calibrates_and_says_nothing(records, recipe, tmp_path, capfd):
    run = ddk.fit(records.folder, recipe, runs=tmp_path, epochs=1)
    assert (run.recipe.backbone, run.recipe.epochs) == ("tiny", 1)
    assert run.point.fitted == {"false_alarms": 0.01, "misses": 0.05, "reals": 6, "fakes": 6}
    assert ddk.load(tmp_path / "latest").point == run.point
    assert capfd.readouterr() == ("", "")


def test_fit_shows_progress_when_asked(records, recipe, tmp_path, capfd):
    ddk.fit(records, recipe, runs=tmp_path, epochs=1, progress=True)
    assert "  1/1  " in capfd.readouterr().err


def test_a_recipe_has_a_name_or_a_file_and_fields_override_it(records, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("backbone: tiny\nweights: none\nbatch: 0\n")
    with pytest.raises(ConfigError, match="batch must be between 1 and 65536, not 0"):
        ddk.fit(records, path)
    with pytest.raises(ConfigError, match="epochs must be between 1 and 10000, not 0"):
        ddk.fit(records, "small-cnn", epochs=0)
    with pytest.raises(ConfigError, match="there is no recipe mine"):
        ddk.fit(records, "mine")
    with pytest.raises(TypeError, match="epoch"):
        ddk.fit(records, epoch=1)


def test_resuming_names_what_is_missing(records, tmp_path):
    with pytest.raises(ConfigError, match="there is no unfinished training in"):
        ddk.fit(records, runs=tmp_path, resume=True)


# --- detectors -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated(run, records, tmp_path_factory):
    """A calibrated copy of the run."""
    copy = copy_run(run, tmp_path_factory.mktemp("runs"))
    return scoring.calibrate(copy, scoring.score(copy, records, ["validation"])["validation"])


@pytest.fixture(scope="module")
def ensemble(calibrated, run, tmp_path_factory):
    """The run and its copy as an ensemble."""
    folder = tmp_path_factory.mktemp("ensemble")
    return compose([calibrated.folder, copy_run(run, folder).folder], None, folder / "ensembles").save()


def test_load_opens_runs_ensembles_and_exports(calibrated, ensemble, data, tmp_path):
    assert ddk.load(calibrated.folder) == ddk.load(calibrated.model_path) == calibrated
    assert ddk.load(ensemble.folder) == ensemble
    exported = ddk.load(ddk.export(calibrated, output=tmp_path))
    rows, of_run = ddk.predict(exported, data / "test").to_frame(), ddk.predict(calibrated, data / "test").to_frame()
    np.testing.assert_allclose(rows["fake_probability"], of_run["fake_probability"], atol=1e-5)
    with pytest.raises(ConfigError, match=r"there is no .*gone; give an export, or the folder of a run"):
        ddk.load(tmp_path / "gone")
    with pytest.raises(ConfigError, match="is an export; evaluate the run that it was made from"):
        ddk.evaluate(exported)
    with pytest.raises(ConfigError, match="is not a run; give one of the runs that it was made from"):
        ddk.export(ensemble)


def test_evaluate_measures_a_run(calibrated, records, tmp_path, capfd):
    reports = ddk.evaluate(calibrated, records, degrade=0)
    assert list(reports) == ["validation"]
    report = reports["validation"]
    assert 0 <= report.auc.value <= 1
    assert str(report.auc) == f"{report.auc.value:.4f} (no interval: fewer than 20 reals)"
    table = report.to_frame()
    assert table["verdict"].isin(["real", "fake", "unsure"]).all()
    assert len(table) == report.to_dict()["examples"] == 12
    report.report(tmp_path / "report")
    assert (tmp_path / "report/report.html").read_text().startswith("<!doctype html>")
    assert capfd.readouterr() == ("", "")


def test_as_few_images_as_are_asked_for_are_perturbed(calibrated, records):
    assert ddk.evaluate(calibrated, records, degrade=1)["validation"].metrics.robustness.images == 2


def test_evaluate_measures_an_ensemble_and_a_folder(ensemble, records):
    of_ensemble = ddk.evaluate(ensemble.folder, records.folder, ["train"], degrade=0)
    assert of_ensemble["train"].to_dict()["run"] == ensemble.name
    with pytest.raises(DataError, match="has no labelled split test"):
        ddk.evaluate(ensemble, records, ["test"], degrade=0)


def test_predict_yields_rows_and_a_table(calibrated, data, tmp_path, capfd):
    predictions = ddk.predict(calibrated, data / "test")
    rows = list(predictions)
    assert [row.path for row in rows] == [str(data / f"test/00{index}.jpg") for index in range(3)]
    assert len(predictions) == 3
    table = predictions.to_frame()
    assert table["fake_probability"].tolist() == [row.fake_probability for row in rows]
    assert table["probability_animals"].between(0, 1).all()
    assert capfd.readouterr() == ("", "")
    (tmp_path / "bad.jpg").write_bytes(b"")
    (bad,) = ddk.predict(calibrated, tmp_path / "bad.jpg", progress=True)
    assert (bad.verdict, bad.error) == (None, "the file is empty")
    assert "scoring" in capfd.readouterr().err


def test_predict_by_several_views(calibrated, data):
    files = [data / "test/000.jpg", str(data / "test/001.jpg")]
    assert ddk.predict(calibrated, files, stability=True).to_frame()["score_shift"].between(0, 1).all()
    assert (ddk.predict(calibrated, files, tta=3).to_frame()["spread"] > 0).all()
    with pytest.raises(DataError, match="gone does not exist; give image files or folders of images"):
        ddk.predict(calibrated, "gone")


def test_scores_that_are_not_calibrated_are_logged(run, data, caplog):
    ddk.predict(run, data / "test")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages == [
        f"{run.name} has no operating point: probabilities are not calibrated, the threshold is 0.5"
    ]


def test_explain_yields_maps_and_saves_pictures(calibrated, data, tmp_path, capfd):
    explanations = ddk.explain(calibrated, data / "test", head="category")
    rows = list(explanations)
    assert [row.explanation.heatmap.shape for row in rows] == [(32, 32)] * len(explanations)
    summary = explanations.save(tmp_path / "maps")
    assert (summary["images"], summary["errors"]) == (3, 0)
    assert len(pd.read_csv(tmp_path / "maps/explanations.csv")) == 3
    with pytest.raises(ConfigError, match="holds explanations"):
        explanations.save(tmp_path / "maps")
    explanations.save(tmp_path / "maps", overwrite=True)
    assert capfd.readouterr() == ("", "")


# --- arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ddk.convert("data", equalise="squash"), "equalise is squash; it can be resize or crop"),
        (lambda: ddk.convert("data", val_fraction=1), "val_fraction must be above 0 and below 1, not 1"),
        (lambda: ddk.convert("data", on_bad="skip"), "on_bad is skip; it can be quarantine or fail"),
        (lambda: ddk.convert("data", max_bad=5), "max_bad must be between 0 and 1, not 5"),
        (lambda: ddk.convert("data", max_pixels=0), "max_pixels must be at least 1, not 0"),
        (lambda: ddk.convert("data", folders="video"), "folders is video; it can be class, source or group"),
        (lambda: ddk.audit("data", workers=0), "workers must be at least 1, not 0"),
        (lambda: ddk.audit("data", warn=0.4), "warn must be between 0.5 and 1, not 0.4"),
        (lambda: ddk.audit("data", fail=75), "fail must be between 0.5 and 1, not 75"),
        (lambda: ddk.fit("records", cache="ssd"), "cache is ssd; it can be auto, memory, disk or none"),
        (lambda: ddk.evaluate("run", degrade=-1), "degrade must be at least 0, not -1"),
        (lambda: ddk.evaluate("run", false_alarms=1), "false_alarms must be between 0 and 0.5, not 1"),
        (lambda: ddk.evaluate("run", misses=-0.1), "misses must be between 0 and 0.5, not -0.1"),
        (lambda: ddk.predict("run", "a.jpg", tta=1), "tta must be between 2 and 10, not 1"),
        (lambda: ddk.predict("run", "a.jpg", tta=11), "tta must be between 2 and 10, not 11"),
        (
            lambda: ddk.predict("run", "a.jpg", stability=True, tta=3),
            "stability and test-time augmentation are both asked for; leave out one",
        ),
        (
            lambda: ddk.predict("run", b"JPEG"),
            "paths of files or folders are needed, not bytes; save images to files first",
        ),
        (
            lambda: ddk.explain("run", ["a.jpg", np.zeros((8, 8, 3))]),
            "paths of files or folders are needed, not ndarray; save images to files first",
        ),
        (lambda: ddk.explain("run", "a.jpg", "lime"), "method is lime; it can be gradcam, gradcam++ or occlusion"),
        (lambda: ddk.explain("run", "a.jpg", head="class"), "head is class; it can be authenticity or category"),
        (
            lambda: ddk.explain("run", "a.jpg", category="animals"),
            "animals is of the category head; give head category as well, or leave it out",
        ),
        (
            lambda: ddk.export("run", "coreml"),
            "format is coreml; it can be savedmodel, litert, litert-float16, litert-int8 or onnx",
        ),
    ],
)
def test_a_value_that_an_argument_cannot_have_is_named_before_anything_is_opened(call, said):
    with pytest.raises(ConfigError) as error:
        call()
    assert str(error.value) == said


def test_augmented_views_are_as_many_as_documented():
    assert [tta.augmented_views(count).count for count in (2, api.MAX_VIEWS)] == [2, 1 + len(tta.AUGMENTATIONS)]


def test_one_name_may_be_given_as_a_string(calibrated, records, tmp_path):
    plant(tmp_path / "data", {"camera": 8, "decoder": 8})
    converted = ddk.convert(tmp_path / "data", tmp_path / "records", real="camera", fake="decoder", workers=1)
    assert sum(split.labels["fake"] for split in converted.splits.values()) == 8
    assert ddk.audit(tmp_path / "data", real="camera", fake="decoder", workers=1).result["images"] == 16
    assert list(ddk.evaluate(calibrated, records, "validation", degrade=0)) == ["validation"]
