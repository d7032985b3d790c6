"""A run measured, from scores to files."""

import contextlib
import dataclasses
import json

import pandas as pd
import pytest
from tiny import CATEGORIES, encode, with_each_verdict

from ddkeras.evaluation import evaluate
from ddkeras.runs.run import copy_run
from pipelines.datasets.layouts import read_layout
from pipelines.records import queries, regression_set
from pipelines.records.conversion import write_records
from pipelines.records.store import open_records

DEGRADED = {"robustness", "bias_probe", "stability"}
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
    """Measure a copy of the run; what was found, what was told, and the folder it is in."""
    copy, lines = copy_run(run, tmp_path), []

    @contextlib.contextmanager
    def progress(label):
        yield lambda done, total: lines.append(f"{label} {done}/{total}")

    def measured(records, *arguments, **options):
        found = evaluate.measure(copy, records, *arguments, tell=lines.append, progress=progress, **options)
        return found, lines, copy.folder / "evaluation"

    return measured


def test_all_labelled_splits_but_train_are_measured_and_written(measure, records):
    found, lines, folder = measure(records, degrade=0)
    assert list(found) == ["validation"]
    assert lines == ["validation 8/12", "validation 12/12"]
    assert json.loads((folder / "validation/metrics.json").read_text()) == found["validation"]
    assert "robustness" not in found["validation"]


def test_what_degrading_costs_is_told_before_it_begins(measure, records):
    found, lines, _ = measure(records, ["validation"], degrade=4)
    assert lines[2].startswith("validation: 4 images in 18 ways are 72 more to score, some ")
    assert lines[3:] == ["validation, degraded 4/4"]
    assert found["validation"]["robustness"]["images"] == 4
    assert found["validation"]["stability"]["examples"] == 4


def test_a_source_alone_has_a_folder_of_its_own_whatever_its_name(measure, sourced):
    found, lines, folder = measure(sourced, ["validation"], hold_out="flux/1")
    assert list(found) == ["validation-flux%2F1"]
    numbers = found["validation-flux%2F1"]
    assert (numbers["labels"], numbers["held_out"]) == ({"real": 4, "fake": 4}, "flux/1")
    assert lines == ["validation 8/12", "validation 12/12"]
    assert (folder / "validation-flux%2F1/report.html").is_file()


# --- the regression set ----------------------------------------------------------------------------------------


@pytest.fixture
def corrected(data, tmp_path):
    """Open a regression set of these files, by where they are to lie in the feedback."""

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


def test_the_regression_set_is_measured_beside_the_others_and_on_its_own(measure, records, corrected):
    alone, _, _ = measure(records, degrade=0)
    with corrected({"fake/a.jpg": "test/000.jpg", "real/animals/b.jpg": "test/001.jpg"}) as extra:
        found, lines, folder = measure(records, degrade=4, regression=extra)
    assert list(found) == ["validation", "regression"]
    without = {name: number for name, number in found["validation"].items() if name not in DEGRADED}
    assert without == alone["validation"], "the other splits are measured as without it"
    numbers = found["regression"]
    assert (numbers["examples"], numbers["labels"]) == (2, {"real": 1, "fake": 1})
    assert numbers["category"]["examples"] == 1
    assert not DEGRADED & set(numbers), "it is not degraded"
    assert lines[-1] == "regression 2/2"
    assert json.loads((folder / "regression/metrics.json").read_text()) == numbers
    assert (folder / "regression/report.html").is_file()


def test_every_image_of_the_regression_set_is_right_wrong_or_unsure(run, records, corrected, tmp_path):
    copy = with_each_verdict(run, records, tmp_path / "runs")
    copy = copy.with_operating_point(dataclasses.replace(copy.point, fitted=FITTED))
    paths = queries.metadata(records, "validation")["path"]
    with corrected({f"fake/{number:03}.jpg": path for number, path in enumerate(paths)}) as extra:
        found = evaluate.measure(copy, records, ["regression"], tell=print, regression=extra)
    assert list(found) == ["regression"], "no other split was asked for"
    said = pd.read_csv(copy.folder / "evaluation/regression/predictions.csv").set_index("path")
    feedback = found["regression"]["feedback"]
    assert feedback["right"] == (said["verdict"] == "fake").sum() > 0
    for name, verdict in (("still_wrong", "real"), ("still_unsure", "unsure")):
        rows = feedback[name]
        assert {row["path"] for row in rows} == set(said.index[said["verdict"] == verdict]) != set()
        assert [row["fake_probability"] for row in rows] == sorted(
            (r["fake_probability"] for r in rows), reverse=True
        )
        assert {(row["label"], row["verdict"]) for row in rows} == {("fake", verdict)}


def test_one_image_of_one_label_can_be_measured(measure, records, corrected):
    with corrected({"fake/a.jpg": "test/000.jpg"}) as extra:
        found, _, folder = measure(records, ["regression"], regression=extra)
    numbers = found["regression"]
    assert numbers["authenticity"]["auc"]["value"] is None
    assert numbers["notes"] == [
        "no image of regression is real: what ranks real against fake, such as AUC, cannot be had",
        "1 images say little: look at the intervals",
        "people picked these images, most because a run was wrong on them: others are not like them",
    ]
    assert (folder / "regression/report.pdf").is_file()


def test_nothing_is_fitted_on_the_regression_set_and_it_is_measured_as_was_fitted(measure, records, corrected):
    rates = {"false_alarms": 0.5}
    alone, _, folder = measure(records, ["validation"], degrade=0, rates=rates)
    with corrected({"real/a.jpg": "validation/fake/animals/000.jpg"}) as extra:
        found, _, _ = measure(records, ["regression"], rates=rates, regression=extra)
    point = json.loads((folder.parent / "operating_point.json").read_text())
    assert point == found["regression"]["operating_point"] == alone["validation"]["operating_point"]
    assert point["fitted"]["false_alarms"] == 0.5


def test_what_is_in_train_too_is_no_test_and_is_named(measure, records, corrected):
    files = {"real/a.jpg": "train/fake/animals/000.jpg", "fake/b.jpg": "validation/fake/animals/000.jpg"}
    with corrected(files) as extra:
        found, _, _ = measure(records, ["regression"], regression=extra)
    numbers = found["regression"]
    assert [path.partition("_")[2] for path in numbers["feedback"]["in_train"]] == ["a.jpg"]
    assert numbers["notes"][-1] == "in train, too, and so no test: 1 of these images"


def test_with_other_records_it_is_not_known_what_was_in_training(measure, sourced, corrected):
    with corrected({"real/a.jpg": "train/fake/animals/000.jpg"}) as extra:
        found, _, _ = measure(sourced, ["regression"], regression=extra)
    assert found["regression"]["feedback"]["in_train"] == []
    assert found["regression"]["notes"][-1].endswith("what it was trained on of these is not known")
