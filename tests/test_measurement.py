"""A run measured, from scores to files."""

import contextlib
import json

import pytest
from conftest import CATEGORIES, encode

from ddkeras import measurement, runs
from pipelines.conversion import write_records
from pipelines.layouts import read_layout
from pipelines.records import open_records


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
    copy, lines = runs.copied(run, tmp_path), []

    @contextlib.contextmanager
    def progress(label):
        yield lambda done, total: lines.append(f"{label} {done}/{total}")

    def measured(records, *arguments, **options):
        found = measurement.measure(copy, records, *arguments, tell=lines.append, progress=progress, **options)
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
