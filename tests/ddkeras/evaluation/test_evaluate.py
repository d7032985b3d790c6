"""Evaluation of a run, from scores to files."""

import contextlib
import dataclasses
import json
import signal

import pandas as pd
import pytest
from tiny import CATEGORIES, encode, with_each_verdict

from ddkeras.evaluation import evaluate
from ddkeras.interrupts import Interrupted
from ddkeras.metrics.calibration import OperatingPoint
from ddkeras.runs.run import copy_run
from pipelines.datasets.layouts import read_layout
from pipelines.records import queries, regression_set
from pipelines.records.conversion import write_records
from pipelines.records.store import open_records

PERTURBED = {"robustness", "bias_probe", "stability"}
FITTED = {"false_alarms": 0.01, "misses": 0.05, "reals": 6, "fakes": 6}


@pytest.fixture(scope="module")
def sourced(tmp_path_factory):
    """Records of the classes of `records`, whose fakes come from two generators."""
    data = tmp_path_factory.mktemp("data")
    rows = ["image_path,label,class,source"]
    for split in ("train", "validation"):
        (data / split).mkdir()
        for index, source in enumerate(["camera", "gan", "flux/1"] * 4):
            path = data / split / f"{index}.jpg"
            path.write_bytes(encode(seed=len(rows)))
            label, category = int(source != "camera"), CATEGORIES[index % 2]
            rows.append(f"{split}/{path.name},{label},{category},{source}")
    (data / "metadata.csv").write_text("\n".join(rows) + "\n")
    write_records(read_layout(data), data / "records")
    return open_records(data / "records")


@pytest.fixture
def measure(run, tmp_path):
    """Measure a copy of the run; returns the reports, the lines told, and the folder of the evaluation."""
    copy, lines = copy_run(run, tmp_path), []

    @contextlib.contextmanager
    def progress(label):
        yield lambda done, total: lines.append(f"{label} {done}/{total}")

    def measured(records, *arguments, **options):
        reports = evaluate.measure(copy, records, *arguments, tell=lines.append, progress=progress, **options)
        return reports, lines, copy.folder / "evaluation"

    return measured


def test_all_labelled_splits_but_train_are_measured_and_written(measure, records):
    reports, lines, folder = measure(records, degrade=0)
    assert list(reports) == ["validation"]
    assert lines == ["validation 8/12", "validation 12/12"]
    assert json.loads((folder / "validation/metrics.json").read_text()) == reports["validation"].to_dict()
    assert reports["validation"].metrics.robustness is None


def test_the_cost_of_perturbing_is_told_before_it_begins(measure, records):
    reports, lines, folder = measure(records, ["validation"], degrade=4)
    assert lines[2].startswith(
        "validation: the report is written; scoring 4 images under 18 perturbations, 72 in all, extends it and takes "
    )
    assert lines[3:] == ["validation, perturbed 4/4"]
    assert reports["validation"].metrics.robustness.images == 4
    assert reports["validation"].metrics.stability.examples == 4
    stored = json.loads((folder / "validation/metrics.json").read_text())
    assert list(stored)[-3:] == ["robustness", "bias_probe", "stability"]
    variant = stored["robustness"]["variants"][0]
    assert list(variant) == ["name", "auc", "called_fake_of_real", "called_fake_of_fake"]
    assert variant["name"] == "as they are"
    assert list(stored["bias_probe"]) == ["by", "auc", "swing", "verdict", "text"]
    assert list(stored["bias_probe"]["auc"]["JPEG 75"]) == ["neither", "reals", "fakes", "both"]
    assert list(stored["stability"]) == ["by", "examples", "flips", "worst"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_reports_are_complete_when_perturbing_is_interrupted(run, records, tmp_path, number):
    copy, lines = copy_run(run, tmp_path), []

    @contextlib.contextmanager
    def progress(label):
        def advance(done, total):
            lines.append(f"{label} {done}/{total}")
            if label == "train, perturbed":
                signal.raise_signal(number)

        yield advance

    with pytest.raises(Interrupted) as interruption:
        evaluate.measure(copy, records, ["validation", "train"], tell=lines.append, progress=progress, degrade=8)
    folder = copy.folder / "evaluation"
    assert str(interruption.value) == (
        f"the reports in {folder} are complete, but without the perturbed images of train"
    )
    assert lines[-1] == "train, perturbed 4/8"
    assert json.loads((folder / "validation/metrics.json").read_text()).keys() >= PERTURBED
    kept = {path.name: path.read_bytes() for path in (folder / "train").iterdir() if path.suffix in (".json", ".csv")}
    assert {path.name for path in folder.iterdir()} == {"validation", "train"}
    reports = evaluate.measure(copy, records, ["train"], tell=print, degrade=0)
    assert json.loads(kept["metrics.json"]) == reports["train"].to_dict()
    assert kept["predictions.csv"] == (folder / "train/predictions.csv").read_bytes()


def test_a_held_out_source_has_a_folder_of_its_own_whatever_its_name(measure, sourced):
    reports, lines, folder = measure(sourced, ["validation"], hold_out="flux/1")
    assert list(reports) == ["validation-flux%2F1"]
    metrics = reports["validation-flux%2F1"].metrics
    assert (metrics.labels, metrics.held_out) == ({"real": 4, "fake": 4}, "flux/1")
    assert lines == ["validation 8/12", "validation 12/12"]
    assert (folder / "validation-flux%2F1/report.html").is_file()


# --- the regression set ----------------------------------------------------------------------------------------


@pytest.fixture
def corrected(data, tmp_path):
    """Open a regression set of these files, given by their places in the feedback folder."""

    @contextlib.contextmanager
    def opened(files):
        for place, path in files.items():
            target = tmp_path / "feedback" / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((data / path).read_bytes())
        regression_set.add(tmp_path / "set", tmp_path / "feedback", classes=CATEGORIES)
        with regression_set.open_as_records(tmp_path / "set", list(CATEGORIES)) as records:
            yield records

    return opened


def test_the_regression_set_is_measured_separately(measure, records, corrected):
    alone, _, _ = measure(records, degrade=0)
    with corrected({"fake/a.jpg": "test/000.jpg", "real/animals/b.jpg": "test/001.jpg"}) as extra:
        reports, lines, folder = measure(records, degrade=4, regression=extra)
    assert list(reports) == ["validation", "regression"]
    without = {name: value for name, value in reports["validation"].to_dict().items() if name not in PERTURBED}
    assert without == alone["validation"].to_dict(), "the other splits are measured as without it"
    metrics = reports["regression"].metrics
    assert (metrics.examples, metrics.labels) == (2, {"real": 1, "fake": 1})
    assert metrics.category.examples == 1
    assert metrics.robustness is metrics.bias_probe is metrics.stability is None
    assert "regression 2/2" in lines
    stored = json.loads((folder / "regression/metrics.json").read_text())
    assert stored == reports["regression"].to_dict()
    assert list(stored)[-1] == "feedback"
    assert list(stored["feedback"]) == ["right", "still_wrong", "still_unsure", "in_train"]
    assert (folder / "regression/report.html").is_file()


def test_every_image_of_the_regression_set_is_right_wrong_or_unsure(run, records, corrected, tmp_path):
    copy = with_each_verdict(run, records, tmp_path / "runs")
    copy = copy.with_operating_point(dataclasses.replace(copy.point, fitted=FITTED))
    paths = queries.metadata(records, "validation")["path"]
    with corrected({f"fake/{number:03}.jpg": path for number, path in enumerate(paths)}) as extra:
        reports = evaluate.measure(copy, records, ["regression"], tell=print, regression=extra)
    assert list(reports) == ["regression"], "no other split was asked for"
    predictions = pd.read_csv(copy.folder / "evaluation/regression/predictions.csv").set_index("path")
    feedback = reports["regression"].metrics.feedback
    assert feedback.right == (predictions["verdict"] == "fake").sum() > 0
    for images, verdict in ((feedback.still_wrong, "real"), (feedback.still_unsure, "unsure")):
        assert {image.path for image in images} == set(predictions.index[predictions["verdict"] == verdict]) != set()
        probabilities = [image.fake_probability for image in images]
        assert probabilities == sorted(probabilities, reverse=True)
        assert {(image.label, image.verdict) for image in images} == {("fake", verdict)}


def test_one_image_of_one_label_can_be_measured(measure, records, corrected):
    with corrected({"fake/a.jpg": "test/000.jpg"}) as extra:
        reports, _, folder = measure(records, ["regression"], regression=extra)
    metrics = reports["regression"].metrics
    assert metrics.authenticity.auc.is_missing
    assert metrics.notes == [
        "regression has no real images: metrics that need both labels, such as AUC, are undefined",
        "1 fake image in regression: numbers that rest on fewer than 20 say little, and have no interval",
        "people picked these images, mostly because a run got them wrong: they do not represent other images",
    ]
    assert (folder / "regression/report.pdf").is_file()


def test_nothing_is_fitted_on_the_regression_set(measure, records, corrected):
    rates = {"false_alarms": 0.5}
    alone, _, folder = measure(records, ["validation"], degrade=0, rates=rates)
    with corrected({"real/a.jpg": "validation/fake/animals/000.jpg"}) as extra:
        reports, _, _ = measure(records, ["regression"], rates=rates, regression=extra)
    stored = OperatingPoint.from_dict(json.loads((folder.parent / "operating_point.json").read_text()))
    points = [each.metrics.provenance.operating_point for each in (reports["regression"], alone["validation"])]
    assert points == [stored, stored]
    assert stored.fitted["false_alarms"] == 0.5


def test_images_that_are_also_in_train_are_named(measure, records, corrected):
    files = {"real/a.jpg": "train/fake/animals/000.jpg", "fake/b.jpg": "validation/fake/animals/000.jpg"}
    with corrected(files) as extra:
        reports, _, _ = measure(records, ["regression"], regression=extra)
    metrics = reports["regression"].metrics
    assert [path.partition("_")[2] for path in metrics.feedback.in_train] == ["a.jpg"]
    assert metrics.notes[-1] == "images that are also in the training split, so that they test nothing: 1"


def test_with_other_records_it_is_not_known_which_images_were_in_training(measure, sourced, corrected):
    with corrected({"real/a.jpg": "train/fake/animals/000.jpg"}) as extra:
        reports, _, _ = measure(sourced, ["regression"], regression=extra)
    metrics = reports["regression"].metrics
    assert metrics.feedback.in_train == []
    assert metrics.notes[-1].endswith("it is not known which of these images were in its training")
