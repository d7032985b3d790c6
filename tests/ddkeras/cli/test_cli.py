"""The command line: what it prints to which stream, and one-line errors."""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import schemas
import yaml
from click.testing import CliRunner
from PIL import Image
from tiny import DDK_WITH_TINY, encode, hash_of, plant, start_ddk, with_each_verdict

from ddkeras import progress
from ddkeras.cli import main
from ddkeras.exceptions import ConfigError
from ddkeras.inference import prediction, tta
from ddkeras.runs.checkpoint import load
from ddkeras.runs.run import open_run
from pipelines.views import load_image

COMMANDS = ["sample-data", "make-tfrecords", "audit", "show-augment", "fit", "tune", "evaluate"]
COMMANDS += ["errors", "compare", "cross-source", "predict", "explain", "export", "serve", "demo", "info"]


@pytest.fixture
def ddk(tmp_path, monkeypatch):
    """Run a command in an empty folder; what it prints with --json has to be as documented."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if "--json" in arguments:
            schemas.check_output(arguments[0], result.stdout)
        return result

    return run


@pytest.fixture(scope="session")
def workplace(data, records, run, tmp_path_factory):
    """A folder with artifacts/records and artifacts/runs/latest, as the commands leave it."""
    root = tmp_path_factory.mktemp("workplace")
    shutil.copytree(records.folder, root / "artifacts" / "records")
    shutil.copytree(run.folder.parent, root / "artifacts" / "runs", symlinks=True)
    return root


def error_line(result) -> str:
    """The error line of a command that exits with code 1 and prints no traceback."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


# --- help ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_and_takes_json(ddk, command):
    text = ddk(command, "--help").stdout
    assert f"ddk {command}" in text
    assert "Example" in text
    assert "--json" in text
    listed = text.partition("Options:\n")[2]
    assert not re.search(r"^  [A-Z]", listed, re.MULTILINE), "an argument among the options"


def test_the_output_of_every_command_has_a_schema():
    for name in [*COMMANDS, "error"]:
        assert not schemas.validator(name).is_valid({}), name
    assert {path.stem for path in schemas.FOLDER.iterdir()} == {*COMMANDS, "error"}


def test_help_lists_the_commands_in_the_order_of_use(ddk):
    listed = ddk("--help").stdout.partition("Commands:\n")[2].splitlines()[: len(COMMANDS)]
    assert [line.split()[0] for line in listed] == COMMANDS


def test_help_loads_nothing_heavy():
    script = (
        "import sys; from ddkeras.cli import main\n"
        f"for words in [], *([command] for command in {COMMANDS}):\n"
        "    main([*words, '--help'], standalone_mode=False)\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'pandas', 'PIL', 'sklearn', 'optuna', 'fastapi', 'gradio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# --- the five steps --------------------------------------------------------------------------------------------


def test_sample_data_becomes_records(ddk, tmp_path):
    made = json.loads(ddk("sample-data", "data", "--images", 30, "--size", 64, "--json").stdout)
    assert (made["images"], made["folder"]) == (30, "data")
    again = ddk("sample-data", "data", "--images", 30, "--size", 64)
    assert again.stdout == "30 images in data\nNext: ddk make-tfrecords data\n"
    converted = ddk("make-tfrecords", "data")
    text = converted.stdout
    assert "left out" not in converted.output
    assert "read 30 = written 30 + quarantined 0" in text
    assert "train: 18 images (9 real, 9 fake, 6 animals, 6 human_faces, 6 vehicles)" in text
    manifest = json.loads(ddk("make-tfrecords", "data", "--json").stdout)
    assert manifest["splits"]["test"]["labels"] == {"real": 3, "fake": 3}


def test_columns_of_a_table_are_mapped_in_conversion_and_audit(ddk, tmp_path):
    plant(tmp_path / "data", {"images": 8})
    rows = [f"images/{k:03}.jpg;{k % 2};{('train', 'valid')[k // 4]};x\n" for k in range(8)]
    (tmp_path / "data/metadata.csv").write_text("File;Target;split;note\n" + "".join(rows))
    columns = ("--columns", "image_path=file,label=target")
    converted = ddk("make-tfrecords", "data", *columns, "--workers", 1)
    assert "note: columns of metadata.csv that are not read: note" in converted.stdout
    assert "  train: 4 images (2 real, 2 fake)\n  validation: 4 images (2 real, 2 fake)" in converted.stdout
    audited = json.loads(ddk("audit", "data", *columns, "--workers", 1, "--json").stdout)
    assert (audited["images"], audited["notes"]) == (8, ["columns of metadata.csv that are not read: note"])
    assert "is not a list such as image_path=file" in ddk("audit", "data", "--columns", "file").stderr
    assert "--columns is for a folder of images" in error_line(ddk("audit", *columns))


def test_folders_are_named_and_their_kind_is_given_in_conversion_and_audit(ddk, tmp_path):
    plant(tmp_path / "data", {f"{name}/{person}": 2 for name in ("photos", "sdxl") for person in "abcd"})
    options = ("--real", "photos", "--fake", "sdxl", "--folders", "source", "--workers", 1)
    converted = json.loads(ddk("make-tfrecords", "data", *options, "--json").stdout)
    assert (converted["written"], converted["categories"]) == (16, [])
    audited = json.loads(ddk("audit", "data", *options, "--json").stdout)
    assert {row["source"] for row in audited["balance"]["counts"]} == set("abcd")
    assert "--real is for a folder of images" in error_line(ddk("audit", "--real", "photos"))


def draw(folder: Path, number: int, side: int) -> None:
    """Write grey PNGs of this size, each of another shade, which depends on the folder too."""
    folder.mkdir(parents=True)
    for index in range(number):
        Image.new("RGB", (side, side), (index, *hash_of(str(folder)).to_bytes(4)[-2:])).save(folder / f"{index}.png")


def test_equalising_by_cropping_leaves_out_small_images_before_labels_are_balanced(ddk, tmp_path):
    for folder, number in {"train/real": 24, "train/fake": 22, "val/real": 2, "val/fake": 2}.items():
        draw(tmp_path / "data" / folder, number, 111)
    Image.new("RGB", (200, 90)).save(tmp_path / "data/train/fake/0.png")
    told = json.loads(ddk("make-tfrecords", "data", "--equalise", "crop", "--balance", "--json").stdout)
    assert told["notes"] == [
        "every image becomes a crop of 96 x 96 pixels, as large as 19 in 20 real images allow; left out as too small "
        "for it: 1 fake"
    ]
    assert told["splits"]["train"]["labels"] == {"real": 21, "fake": 21}
    assert [told[name] for name in ("equalised", "left_out", "read", "written")] == ["crop", 4, 46, 46]
    plain = json.loads(ddk("make-tfrecords", "data", "--json").stdout)
    assert [plain[name] for name in ("equalised", "left_out", "read", "written")] == ["", 0, 50, 50]


def test_a_class_that_is_too_small_for_the_crop_does_not_vanish_in_silence(ddk, tmp_path):
    for split, label in itertools.product(("train", "val", "test"), ("real", "fake")):
        draw(tmp_path / "data" / split / label / "a", 10, 111)
        draw(tmp_path / "data" / split / label / "b", 1, 60 if split == "test" else 111)
    done = ddk("make-tfrecords", "data", "--equalise", "crop")
    because = "images were left out, such as test/fake/b/0.png: 60 pixels on the shorter side; "
    assert f"note: no image of the class b is left in test: {because}" in done.stdout
    assert "left out 2 (see artifacts/records/left_out.csv)\nread 64 = written 64 + quarantined 0\n" in done.stdout
    for label in ("real", "fake"):
        shutil.move(tmp_path / "data/test" / label / "b/0.png", tmp_path / f"{label}.png")
        shutil.move(tmp_path / "data/train" / label / "b/0.png", tmp_path / "data/test" / label / "b/0.png")
        shutil.move(tmp_path / f"{label}.png", tmp_path / "data/train" / label / "b/0.png")
    line = error_line(ddk("make-tfrecords", "data", "--equalise", "crop"))
    assert line.startswith("Error: images were left out, such as train/fake/b/0.png: 60 pixels on the shorter side; ")
    assert "now the class b occurs in test and validation only" in line


def test_fit_trains_a_run_and_latest_points_at_it(ddk, records, tmp_path):
    options = ("--records", records.folder, "--backbone", "Small_CNN", "--augment", "flip")
    result = ddk("fit", *options, "--image-size", 32, "--epochs", 1, "--batch", 12, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert set(told) == {"run", "best_epoch", "val_loss", "epochs"}
    assert (tmp_path / "artifacts/runs/latest").resolve() == (tmp_path / told["run"]).resolve()
    assert "  authenticity  category  " in result.stderr, "progress tells of both heads, on standard error"


def test_evaluate_writes_numbers_rows_and_figures(ddk, workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace)
    result = ddk("evaluate", "--degrade", 4, "--json")
    told = json.loads(result.stdout)
    assert list(told["splits"]) == ["validation"]
    assert f"loading {Path('artifacts/runs/latest').resolve().name}\n" in result.stderr
    assert "validation: the report is written; scoring 4 images under 18 perturbations, 72 in all, " in result.stderr
    folder = workplace / "artifacts/runs/latest/evaluation/validation"
    assert json.loads((folder / "metrics.json").read_text()) == told["splits"]["validation"]
    assert {"report.html", "report.pdf", "predictions.csv", "roc.png"} <= {path.name for path in folder.iterdir()}
    assert "data:image/jpeg;base64," in (folder / "report.html").read_text(), "no thumbnails"
    numbers = told["splits"]["validation"]
    assert numbers["robustness"]["images"] == numbers["stability"]["examples"] == 4
    assert numbers["bias_probe"]["verdict"] in ("ok", "warn", "fail")
    again = ddk("evaluate", "--split", "train", "--split", "validation", "--degrade", 0).stdout
    assert "validation (12 images): authenticity AUC 0." in again
    assert "note: the run was trained on these images" in again
    latest = "artifacts/runs/latest"
    compared = json.loads(ddk("compare", latest, latest, "--output", tmp_path / "changed.csv", "--json").stdout)
    assert (compared["examples"], compared["fixed"], compared["regressed"]) == (12, 0, 0)


@pytest.mark.slow
def test_errors_become_links_and_corrected_images_are_measured_by_later_evaluations(ddk, workplace, data, tmp_path):
    shutil.copytree(workplace, tmp_path, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "artifacts/runs/latest/evaluation", ignore_errors=True)
    assert "was not evaluated on train; do so with: ddk evaluate " in error_line(ddk("errors", "--split", "train"))
    ddk("evaluate", "--degrade", 0, "--split", "train")
    told = json.loads(ddk("errors", "--split", "train", "--limit", 1, "--json").stdout)
    assert told["folder"] == f"artifacts/errors/{told['run']}/train"
    rows = pd.read_csv(tmp_path / told["folder"] / "errors.csv")
    assert told["linked"] == rows["path"].nunique()
    for row in rows.itertuples():
        assert (tmp_path / told["folder"] / row.link).resolve() == (data / row.path).resolve()
    again = error_line(ddk("errors", "--split", "train"))
    assert (
        again == f"Error: {told['folder']} exists; replace it with --overwrite, or choose another place with --output"
    )
    assert f"/train/index.html; a row for each is in {told['folder']}/errors.csv" in (
        ddk("errors", "--split", "train", "--overwrite").stdout
    )

    shutil.copytree(data / "train/fake", "feedback/fake")
    (tmp_path / "feedback/fake/animals/junk.jpg").write_text("no image")
    added = ddk("errors", "--feedback", "feedback").stdout
    assert added == (
        "left out fake/animals/junk.jpg: not an image in a known format\n"
        "12 images added, 0 corrected, 0 there before\n"
        "12 images (0 real, 12 fake) in artifacts/regression. Next: ddk evaluate\n"
    )
    found = json.loads(ddk("evaluate", "--degrade", 0, "--json").stdout)["splits"]
    assert list(found) == ["validation", "regression"]
    said = found["regression"]["feedback"]
    assert said["right"] + len(said["still_wrong"]) + len(said["still_unsure"]) == len(said["in_train"]) == 12
    text = ddk("evaluate", "--split", "regression").stdout
    assert text.startswith(f"regression (12 images): {said['right']} right, {len(said['still_wrong'])} still wrong, ")
    assert "  note: images that are also in the training split, so that they test nothing: 12\n" in text
    assert list(json.loads(ddk("evaluate", "--split", "train", "--degrade", 0, "--json").stdout)["splits"]) == [
        "train"
    ]
    listed = json.loads(ddk("errors", "--split", "regression", "--json").stdout)
    assert (listed["images"], listed["missing"]) == (12, 0)


def test_a_label_that_is_corrected_again_is_reported(ddk, workplace, data, tmp_path):
    shutil.copytree(workplace, tmp_path, symlinks=True, dirs_exist_ok=True)
    for label in ("fake", "real"):
        (tmp_path / label / label).mkdir(parents=True)
        shutil.copy(data / "test/000.jpg", tmp_path / label / label)
        text = ddk("errors", "--feedback", label, "--regression", "set").stdout
    assert re.match(r"corrected images/[0-9a-f]{12}_000.jpg: it was fake, and is real\n0 images added, 1 cor", text)
    assert list(json.loads(ddk("evaluate", "--degrade", 0, "--json").stdout)["splits"]) == ["validation"]
    found = json.loads(ddk("evaluate", "--degrade", 0, "--regression", "set", "--json").stdout)["splits"]
    assert found["regression"]["labels"] == {"real": 1, "fake": 0}


def test_unusable_feedback_is_a_one_line_error(ddk, workplace, tmp_path):
    shutil.copytree(workplace, tmp_path, symlinks=True, dirs_exist_ok=True)
    plant(tmp_path, {"birds/fake/birds": 1, "flat": 1})
    assert "gone is not a folder" in error_line(ddk("errors", "--feedback", "gone"))
    assert "flat has no real/ and fake/ folders" in error_line(ddk("errors", "--feedback", "flat"))
    said = error_line(ddk("errors", "--feedback", "flat", "--limit", "3"))
    assert "--limit is for showing errors and does not apply with --feedback; leave out one" in said
    said = error_line(ddk("errors", "--feedback", "birds"))
    assert "is of the class birds, which the run does not have; its classes are animals, vehicles: move" in said
    assert "there is no regression set in set; make one" in error_line(ddk("evaluate", "--regression", "set"))
    said = error_line(ddk("evaluate", "--split", "regression"))
    assert said == (
        "Error: there is no regression set in artifacts/regression; make one with: ddk errors --feedback DIR"
    )


@pytest.mark.slow
def test_thresholds_are_fitted_once_and_again_for_other_rates(ddk, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    point = workplace / "artifacts/runs/latest/operating_point.json"
    ddk("evaluate", "--degrade", 0)
    assert json.loads(point.read_text())["fitted"] == {"false_alarms": 0.01, "misses": 0.05, "reals": 6, "fakes": 6}
    ddk("evaluate", "--degrade", 0, "--split", "train", "--false-alarms", 0.5)
    assert json.loads(point.read_text())["fitted"]["false_alarms"] == 0.5
    before = point.read_bytes()
    ddk("evaluate", "--degrade", 0)
    assert point.read_bytes() == before


def test_show_augment_draws_a_contact_sheet(ddk, data, tmp_path):
    options = ("--image-size", 32, "--draws", 3, "--limit", 2, "--json")
    told = json.loads(ddk("show-augment", data / "train", *options).stdout)
    assert told == {"sheet": "artifacts/augment.png", "images": 2, "draws": 3}
    with Image.open(tmp_path / "artifacts/augment.png") as sheet:
        assert sheet.size == (4 * (32 + 4) + 4, 2 * (32 + 4) + 4)
        left = np.asarray(sheet)[4:36, 4:36]
        path = sorted((data / "train").rglob("*.jpg"))[0]
        np.testing.assert_array_equal(left, load_image(path, 32))
    first = (tmp_path / "artifacts/augment.png").read_bytes()
    ddk("show-augment", data / "train", *options)
    assert (tmp_path / "artifacts/augment.png").read_bytes() == first


def test_show_augment_names_what_it_cannot_show(ddk, data, tmp_path):
    (tmp_path / "no.jpg").write_text("no image")
    assert "no.jpg cannot be shown: " in error_line(ddk("show-augment", "no.jpg"))
    assert "there is no augmentation foresnic; give one of forensic, flip, none, or a YAML file" in error_line(
        ddk("show-augment", data, "--augment", "foresnic")
    )
    (tmp_path / "steps.yaml").write_text("jpeg: {probability: 2}")
    said = error_line(ddk("show-augment", data, "--augment", "steps.yaml"))
    assert "Jpeg.probability must be from 0 to 1, not 2" in said
    (tmp_path / "steps.yaml").write_text("- jpeg")
    assert "steps.yaml must map steps to strengths" in error_line(ddk("fit", "--augment", "steps.yaml"))


def test_predict_writes_a_row_per_image(ddk, workplace, data, monkeypatch):
    monkeypatch.chdir(workplace)
    told = json.loads(ddk("predict", data / "test", data / "validation", "--json").stdout)
    assert (told["images"], told["errors"], told["output"]) == (15, 0, "artifacts/predictions.csv")
    rows = pd.read_csv(workplace / "artifacts/predictions.csv")
    known = ["path", "fake_probability", "verdict", "reason", "predicted_category", "category_probability"]
    assert list(rows) == [
        *known,
        "probability_animals",
        "probability_vehicles",
        "score_shift",
        "spread",
        "error",
        "provenance",
    ]
    assert len(rows) == 15
    assert rows["error"].isna().all()


def test_predict_reports_stability(ddk, workplace, data, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace)
    command = ("predict", data / "test", "--stability", "--output", tmp_path / "scores.csv")
    assert ddk(*command).exit_code == 0
    assert pd.read_csv(tmp_path / "scores.csv")["score_shift"].between(0, 1).all()
    one = json.loads(ddk("predict", data / "test/000.jpg", "--stability", "--json").stdout)["prediction"]
    assert 0 <= one["score_shift"] <= 1
    assert ", which re-encoding changes by " in ddk("predict", data / "test/000.jpg", "--stability").stdout
    assert error_line(ddk("predict", data / "test", "--stability", "--test-augment", 2)) == (
        "Error: stability and test-time augmentation are both asked for; leave out one"
    )
    said = error_line(ddk("predict", data / "test", "--stability", "--format", "artifact"))
    assert said == "Error: --format artifact has no place for --stability; leave out one"


def test_predict_reports_the_spread_over_several_views(ddk, workplace, data, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace)
    command = (
        "predict",
        data / "test",
        "--test-augment",
        len(tta.AUGMENTATIONS) + 1,
        "--output",
        tmp_path / "scores.csv",
    )
    assert ddk(*command).exit_code == 0
    rows = pd.read_csv(tmp_path / "scores.csv")
    assert (rows["spread"] > 0).all()
    assert rows["score_shift"].isna().all()
    assert "with a spread of " in ddk("predict", data / "test/000.jpg", "--test-augment", 2).stdout
    assert ddk("predict", data / "test", "--test-augment", len(tta.AUGMENTATIONS) + 2).exit_code == 2


def test_predict_overwrites_only_when_asked(ddk, workplace, data, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace)
    command = ("predict", data / "test", "--output", tmp_path / "scores.csv")
    assert ddk(*command).exit_code == 0
    first = (tmp_path / "scores.csv").read_bytes()
    said = error_line(ddk("predict", data / "validation", *command[2:]))
    assert "scores.csv exists; replace it with --overwrite, or name another with --output" in said
    assert "there is no unfinished" in error_line(ddk(*command, "--resume"))
    assert (tmp_path / "scores.csv").read_bytes() == first
    assert ddk(*command, "--overwrite").exit_code == 0
    assert (tmp_path / "scores.csv").read_bytes() == first


def test_predict_writes_labels_in_the_format_of_the_artifact_data_sets(ddk, workplace, data, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace)
    (tmp_path / "bad.jpg").write_bytes(b"")
    files = (data / "test", tmp_path / "bad.jpg")
    result = ddk("predict", *files, "--format", "artifact", "--output", tmp_path / "labels.csv")
    assert "4 images" in result.stdout
    assert "1 with an error, and so without a label" in result.stdout
    rows = pd.read_csv(tmp_path / "labels.csv")
    assert list(rows) == ["image_path", "label", "class"]
    assert set(rows["label"][:3]) <= {0, 1}
    assert rows["label"].isna().tolist() == [False, False, False, True]


def test_an_output_in_the_folder_of_the_images_is_not_an_input(ddk, workplace, data, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace)
    inbox = shutil.copytree(data / "test", tmp_path / "inbox")
    command = ("predict", inbox, "--output", inbox / "scores.csv", "--json")
    assert json.loads(ddk(*command).stdout)["images"] == 3
    assert json.loads(ddk(*command, "--overwrite").stdout)["images"] == 3
    assert sorted(path.name for path in inbox.iterdir()) == ["000.jpg", "001.jpg", "002.jpg", "scores.csv"]


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_a_file_that_is_missing_is_a_row_where_a_folder_lists_it_and_an_error_where_it_is_named(
    ddk, workplace, data, tmp_path, monkeypatch, command
):
    monkeypatch.chdir(workplace)
    inbox = shutil.copytree(data / "test", tmp_path / "inbox")
    (inbox / "b.jpg").symlink_to("gone.jpg")
    told = json.loads(ddk(command, inbox, "--output", tmp_path / "out.csv", "--json").stdout)
    assert (told["images"], told["errors"]) == (4, 1)
    table = tmp_path / "out.csv"
    rows = pd.read_csv(table / "explanations.csv" if table.is_dir() else table, keep_default_na=False)
    assert rows["path"].tolist()[3] == str(inbox / "b.jpg")
    assert rows["error"].tolist() == ["", "", "", "No such file or directory"]
    said = error_line(ddk(command, inbox / "b.jpg", "--output", tmp_path / "again.csv"))
    assert said == f"Error: {inbox / 'b.jpg'} does not exist; give image files or folders of images"


@pytest.fixture
def stopped(ddk, workplace, data, tmp_path, monkeypatch):
    """A command to score 300 images that was interrupted after the first batch, and the folder of the images."""
    monkeypatch.chdir(workplace)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for index, image in zip(range(300), itertools.cycle(sorted(data.rglob("*.jpg"))), strict=False):
        (inbox / f"{index:03}.jpg").symlink_to(image)
    whole = prediction.predict_batches

    def interrupted(scorer, files, **options):
        for batch in whole(scorer, files, **options):
            os.kill(os.getpid(), signal.SIGINT)
            yield batch

    monkeypatch.setattr(prediction, "predict_batches", interrupted)
    command = ("predict", inbox, "--output", tmp_path / "scores.csv")
    said = error_line(ddk(*command))
    assert "interrupted; 256 of 300 images are scored; continue with the same command and --resume" in said
    monkeypatch.setattr(prediction, "predict_batches", whole)
    return command, inbox


def test_predict_says_when_probabilities_are_not_calibrated(ddk, run, records, data, tmp_path):
    image = next((data / "test").iterdir())
    said = f"{run.name} has no operating point: probabilities are not calibrated, the threshold is 0.5"
    assert said in ddk("predict", image, "--run", run.folder).stderr
    fitted = with_each_verdict(run, records, tmp_path / "runs")
    assert "operating point" not in ddk("predict", image, "--run", fitted.folder).stderr


def test_an_interrupted_predict_resumes_to_the_same_bytes(ddk, stopped, tmp_path):
    command, _ = stopped
    said = error_line(ddk(*command))
    assert "scores.csv is unfinished, 256 of 300 images are scored; continue with --resume, or start over" in said
    result = ddk(*command, "--resume")
    assert result.exit_code == 0, result.output
    assert "256 of 300 images are scored already" in result.stderr
    assert "300 images (" in result.stdout
    ddk(*command[:-1], tmp_path / "whole.csv")
    assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_an_interrupted_predict_resumes_only_with_the_same_detector_and_options(ddk, stopped, run, records, tmp_path):
    command, inbox = stopped
    other = with_each_verdict(run, records, tmp_path / "runs")  # the same weights, other limits
    assert f"was started with model {run.name} (" in error_line(ddk(*command, "--resume", "--run", other.folder))
    assert "was started with each image as it is, not re-encoded, too" in error_line(
        ddk(*command, "--resume", "--stability")
    )
    assert "was started with format scores, not artifact" in error_line(
        ddk(*command, "--resume", "--format", "artifact")
    )
    assert "was started with " in error_line(ddk(*command, inbox / "000.jpg", "--resume"))
    assert ddk(*command, "--overwrite").exit_code == 0


def test_a_resumed_predict_keeps_its_list_of_files(ddk, stopped, tmp_path):
    command, inbox = stopped
    (inbox / "299.jpg").unlink()
    (inbox / "new.jpg").write_bytes(encode())
    ddk(*command, "--resume")
    rows = pd.read_csv(tmp_path / "scores.csv").set_index("path")["error"]
    assert len(rows) == 300
    assert rows.dropna().to_dict() == {str(inbox / "299.jpg"): "No such file or directory"}


def test_predict_answers_a_single_image_in_one_line(ddk, workplace, data, monkeypatch, tmp_path):
    monkeypatch.chdir(workplace)
    image = data / "test/000.jpg"
    first = ddk("predict", image).stdout.splitlines()[0]
    assert first.startswith(f"{image}: ")
    assert "fake with probability" in first
    assert not (tmp_path / "artifacts").exists()
    tagged = tmp_path / "tagged.jpg"
    exif = Image.Exif()
    exif[0x0131] = "Midjourney"  # the software
    Image.open(image).save(tagged, exif=exif)
    assert ddk("predict", tagged).stdout.splitlines()[1] == (
        "Provenance: tags, which anyone can write: Midjourney (EXIF Software)"
    )
    (tmp_path / "bad.jpg").write_bytes(b"")
    bad = ddk("predict", tmp_path / "bad.jpg")
    assert bad.stdout.splitlines()[0] == f"{tmp_path / 'bad.jpg'}: not scored, the file is empty"
    assert error_line(bad) == f"Error: {tmp_path / 'bad.jpg'} could not be scored: the file is empty"


def test_predict_fails_where_no_image_could_be_scored_and_not_where_some_could(
    ddk, workplace, data, monkeypatch, tmp_path
):
    monkeypatch.chdir(workplace)
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    table = tmp_path / "scores.csv"
    result = ddk("predict", tmp_path / "a.jpg", tmp_path / "b.jpg", "--output", table)
    assert error_line(result) == f"Error: no image could be scored; {table} says why, for each"
    assert result.stdout.startswith("2 images (no verdict), 2 with an error")
    assert pd.read_csv(table)["error"].tolist() == ["the file is empty"] * 2
    assert ddk("predict", data / "test", tmp_path / "a.jpg", "--output", table, "--overwrite").exit_code == 0


def test_progress_shows_the_rate_of_this_process_alone(capsys, monkeypatch):
    seconds = iter([0, 0, 2, 12, 50])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    with progress.progress_bar("scoring", "images") as move:
        for done in (60_000, 60_256, 72_600, 80_000):  # the rate counts from the second update on
            move(done, 100_000)
    assert capsys.readouterr().err == "scoring\nscoring: 80,000 of 100,000, 411 images/s, 0:00:49 left\n"


def test_explain_writes_pictures_a_table_and_a_sheet(ddk, workplace, data, monkeypatch, tmp_path):
    monkeypatch.chdir(workplace)
    (tmp_path / "bad.jpg").write_bytes(b"")
    result = ddk("explain", data / "test", tmp_path / "bad.jpg", "--output", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["images"], told["errors"], told["method"], told["head"]) == (4, 1, "gradcam", "authenticity")
    assert told["sheet"] == str(tmp_path / "out/sheet.png")
    rows = pd.read_csv(tmp_path / "out/explanations.csv")
    assert rows["error"].tolist()[3] == "the file is empty"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "explanations.csv",
        "sheet.png",
        *(f"{number}-{number - 1:03}.png" for number in (1, 2, 3)),
    }


def test_explain_answers_a_single_image_in_one_line(ddk, workplace, data, monkeypatch, tmp_path):
    monkeypatch.chdir(workplace)
    asked = ("--head", "category", "--category", "animals", "--method", "occlusion")
    result = ddk("explain", data / "test/000.jpg", *asked)
    assert result.exit_code == 0, result.output
    first, counted, where = result.stdout.splitlines()
    assert first.startswith(f"{data / 'test/000.jpg'}: ")
    assert first.endswith("%; evidence for animals: artifacts/explanations/1-000.png")
    assert counted == "1 image (1 for animals), 0 with an error"
    assert where == "Pictures and scores in artifacts/explanations"
    assert not (workplace / "artifacts/explanations/sheet.png").exists()
    (tmp_path / "bad.jpg").write_bytes(b"")
    again = ddk("explain", tmp_path / "bad.jpg", "--overwrite")
    assert error_line(again) == (
        "Error: no image could be explained; artifacts/explanations/explanations.csv says why, for each"
    )
    assert again.stdout.splitlines()[:2] == [
        f"{tmp_path / 'bad.jpg'}: not explained, the file is empty",
        "1 image (none explained), 1 with an error",
    ]


def test_explanations_are_replaced_only_when_asked_and_as_a_whole(ddk, workplace, data, monkeypatch, tmp_path):
    monkeypatch.chdir(workplace)
    folder = tmp_path / "out"
    ddk("explain", data / "test/000.jpg", "--output", folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    said = error_line(ddk("explain", data / "test", "--output", folder))
    assert said == f"Error: {folder} holds explanations; give another --output, or --overwrite to replace them"
    said = error_line(
        ddk("explain", data / "test", "--output", folder, "--overwrite", "--head", "category", "--category", "a")
    )
    assert said.endswith("has no category a; give one of animals, vehicles")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert ddk("explain", data / "test", "--output", folder, "--overwrite").exit_code == 0
    assert (folder / "sheet.png").is_file()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/holiday.jpg").write_bytes(encode())
    for options in ((), ("--overwrite",)):
        said = error_line(ddk("explain", data / "test", "--output", tmp_path / "photos", *options))
        assert "photos exists and was not made by this command" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]


def test_unexplainable_input_is_a_one_line_error(ddk, workplace, monkeypatch, tmp_path):
    monkeypatch.chdir(workplace)
    (tmp_path / "empty").mkdir()
    assert "empty holds no images" in error_line(ddk("explain", tmp_path / "empty"))
    assert "gone does not exist; give image files or folders of images" in error_line(ddk("explain", "gone"))
    said = error_line(ddk("explain", tmp_path, "--category", "animals"))
    assert said == "Error: animals is of the category head; give head category as well, or leave it out"


def test_export_prints_the_path_of_the_model(ddk, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    told = json.loads(ddk("export", "--json").stdout)
    assert (workplace / told["saved_model"] / "saved_model.pb").is_file()
    assert told["model_base_path"] == os.path.dirname(told["saved_model"])


@pytest.mark.parametrize("form", ["savedmodel", "litert", "litert-float16", "litert-int8", "onnx"])
def test_every_export_format_predicts_what_the_run_does(ddk, workplace, data, monkeypatch, tmp_path, form):
    monkeypatch.chdir(workplace)
    told = json.loads(ddk("export", "--to", form, "--output", tmp_path, "--json").stdout)
    model = told.get("model") or told["saved_model"]
    answer = ddk("predict", data / "test", "--run", model, "--output", tmp_path / "scores.csv", "--json")
    assert json.loads(answer.stdout)["model"] == model
    ddk("predict", data / "test", "--output", tmp_path / "of-run.csv")
    ours, theirs = (pd.read_csv(tmp_path / name) for name in ("of-run.csv", "scores.csv"))
    tolerance = 0.02 if form == "litert-int8" else 1e-3 if form == "litert-float16" else 1e-4
    assert list(ours["path"]) == list(theirs["path"])
    assert (ours["fake_probability"] - theirs["fake_probability"]).abs().max() <= tolerance


# --- errors ----------------------------------------------------------------------------------------------------


def test_a_missing_or_unusable_data_folder(ddk, tmp_path):
    assert "gone is not a folder" in error_line(ddk("make-tfrecords", "gone"))
    (tmp_path / "empty").mkdir()
    assert "empty holds no images" in error_line(ddk("make-tfrecords", "empty"))
    plant(tmp_path / "unlabelled", {"cats": 1})
    assert "has no real/ and fake/ folders" in error_line(ddk("make-tfrecords", "unlabelled"))
    plant(tmp_path / "listed", {"train": 1})
    (tmp_path / "listed/metadata.csv").write_text("image_path,class\n")
    assert "has no column label" in error_line(ddk("make-tfrecords", "listed"))
    assert not (tmp_path / "artifacts").exists()


def test_with_json_an_error_is_one_object(ddk):
    result = ddk("make-tfrecords", "gone", "--json")
    assert json.loads(result.stdout) == {"error": "gone is not a folder; give the folder that holds the images"}
    assert result.exit_code == 1


def test_an_unknown_backbone_is_answered_with_the_nearest_name(ddk):
    assert "no backbone 'xceptoin'; did you mean xception?" in error_line(ddk("fit", "--backbone", "xceptoin"))


def test_a_missing_earlier_step_is_named(ddk, records):
    assert "make them with: ddk make-tfrecords DATA" in error_line(ddk("fit", "--weights", "none"))
    assert "train one with: ddk fit" in error_line(ddk("evaluate"))
    assert "train one with: ddk fit" in error_line(ddk("export"))
    assert "does not exist; give image files or folders" in error_line(ddk("predict", "gone.jpg"))
    assert "holds no images" in error_line(ddk("predict", "."))


def test_weights_that_are_missing_or_do_not_fit(ddk, records, tmp_path):
    (tmp_path / "bad.weights.h5").write_text("no HDF5")
    fit = ("fit", "--backbone", "mobilenetv2", "--records", records.folder, "--image-size", 32)
    assert "there is no weights file gone.h5" in error_line(ddk(*fit, "--weights", "gone.h5"))
    assert "bad.weights.h5 does not fit MobileNetV2" in error_line(ddk(*fit, "--weights", "bad.weights.h5"))
    assert not (tmp_path / "artifacts").exists()


def test_what_is_no_detector_is_named(ddk, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(encode())
    assert "there is no b; give an export, or the folder of a run" in error_line(
        ddk("predict", "photo.jpg", "--run", "b")
    )


def test_an_older_name_of_an_option_works_and_the_current_one_is_noted(ddk, workplace, data, monkeypatch):
    monkeypatch.chdir(workplace)
    run = Path("artifacts/runs/latest")
    old = ddk("predict", data / "test/000.jpg", "--model", run, f"--model={run}", "--weights", "2,1", "--tta", 2)
    new = ddk(
        *("predict", data / "test/000.jpg", "--run", run, "--run", run),
        *("--ensemble-weights", "2,1", "--test-augment", 2),
    )
    notes = [
        "--model is now --run; the old name still works",
        "--tta is now --test-augment; the old name still works",
        "--weights is now --ensemble-weights; the old name still works",
    ]
    assert old.stderr.splitlines()[:3] == notes
    assert "is now" not in new.stderr
    assert (old.exit_code, old.stdout) == (0, new.stdout)


@pytest.mark.parametrize(
    ("command", "old"),
    [("predict", "--model"), ("predict", "--tta"), ("evaluate", "--model"), ("show-augment", "--images")],
)
def test_help_lists_no_older_name(ddk, command, old):
    assert f"{old} " not in ddk(command, "--help").stdout


def test_after_two_dashes_a_file_may_be_called_like_an_option(ddk, tmp_path):
    (tmp_path / "--tta").write_bytes(b"")
    done = ddk("predict", "--run", "gone", "--", "--tta", "--model")
    assert error_line(done) == "Error: --model does not exist; give image files or folders of images"
    assert "is now" not in done.stderr


@pytest.mark.parametrize(
    ("module", "form", "extra"),
    [("onnxruntime", "onnx", "onnx"), ("ai_edge_litert.interpreter", "litert", "litert")],
)
def test_a_missing_runtime_is_named(ddk, workplace, data, monkeypatch, tmp_path, module, form, extra):
    monkeypatch.chdir(workplace)
    model = json.loads(ddk("export", "--to", form, "--output", tmp_path, "--json").stdout)["model"]
    monkeypatch.setitem(sys.modules, module, None)
    said = error_line(ddk("predict", data / "test", "--run", model, "--output", tmp_path / "scores.csv"))
    assert f'install it with: pip install "ddkeras[{extra}]"' in said


def test_export_to_onnx_names_the_missing_package(ddk, workplace, monkeypatch, tmp_path):
    monkeypatch.chdir(workplace)
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    said = error_line(ddk("export", "--to", "onnx", "--output", tmp_path))
    assert said == 'Error: ONNX needs tf2onnx; install it with: pip install "ddkeras[onnx]"'
    assert not list(tmp_path.iterdir())


def test_a_value_out_of_range(ddk, records):
    assert "epochs must be between 1 and 10000, not 0" in error_line(ddk("fit", "--epochs", 0))


def test_other_peoples_folders_are_not_overwritten(ddk, data, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/holiday.jpg").write_bytes(encode())
    assert "photos exists and was not made by this command" in error_line(ddk("sample-data", "photos"))
    assert "photos exists" in error_line(ddk("make-tfrecords", data, "--output", "photos"))
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize("command", [pytest.param("fit", marks=pytest.mark.slow), "evaluate"])
def test_a_damaged_shard_is_named_or_skipped(ddk, workplace, tmp_path, command):
    shutil.copytree(workplace, tmp_path, symlinks=True, dirs_exist_ok=True)
    shard = tmp_path / "artifacts/records/ddkeras-train.tfrecord-00000-of-00001"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    options = ("--backbone", "small-cnn", "--augment", "flip", "--image-size", 32, "--epochs", 1, "--cache", "none")
    command = (command, *(options if command == "fit" else ("--split", "train", "--degrade", 2)))
    said = error_line(ddk(*command))
    assert "ddkeras-train.tfrecord-00000-of-00001, record 0: its content is corrupt; make the records again" in said
    result = ddk(*command, "--skip-corrupt")
    assert result.exit_code == 0, result.output
    assert "record 0: its content is corrupt\n1 record lost in total\n" in result.stderr


def test_fit_says_where_decoded_images_are_cached(ddk, records):
    options = ("--backbone", "small-cnn", "--augment", "flip", "--image-size", 32, "--epochs", 1)
    result = ddk("fit", "--records", records.folder, *options, "--cache", "memory")
    assert "train: 24 images at 32 pixels, 0.0 GiB, are cached decoded in memory\n" in result.stderr


def test_debug_shows_the_traceback(ddk, monkeypatch):
    monkeypatch.setenv("DDK_DEBUG", "1")
    assert type(ddk("make-tfrecords", "gone").exception).__name__ == "DataError"


SMALL_DISK = (
    'mount -t tmpfs -o size={size} tmpfs "$1" && cd "$1" && shift && "$@"; code=$?; find . -type f {kept}; exit $code'
)


# A conversion leaves finished shards, their statistics and its lock for the next call.
FINISHED = "-not -path '*/.records-unfinished/*' -o -name '*partial*'"


@pytest.mark.parametrize(
    ("size", "command"),
    [
        pytest.param("20k", ["make-tfrecords", "{data}"], marks=pytest.mark.slow),
        ("60k", ["sample-data", "data", "--images", "60", "--size", "64"]),
        pytest.param(
            "300k",
            ["fit", "--records", "{records}", "--backbone", "small-cnn", "--image-size", "32", "--augment", "none"],
            marks=pytest.mark.slow,
        ),
        ("60k", ["export", "--run", "{run}"]),
        ("4k", ["predict", "--run", "{run}", "{data}"]),
    ],
)
def test_a_full_disk_is_a_one_line_error_and_leaves_no_partial_output(data, records, run, tmp_path, size, command):
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "x", str(tmp_path)], check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    command = [part.format(data=data, records=records.folder, run=run.folder) for part in command]
    ddk = [sys.executable, "-c", DDK_WITH_TINY, *command]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", SMALL_DISK.format(size=size, kept=FINISHED), "sh", str(tmp_path), *ddk],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Error: the disk is full; free some space and run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == "", "files were left behind"


# --- recipes, interruption and resumption ----------------------------------------------------------------------

QUICK = ("--backbone", "tiny", "--weights", "none", "--batch", 4, "--epochs", 3, "--augment", "flip")


def test_a_recipe_is_printed_as_it_would_be_trained(ddk, tmp_path):
    printed = ddk("fit", "--recipe", "efficientnet-b4", "--epochs", 2, "--crop", 0.5, "--print-recipe")
    fields = yaml.safe_load(printed.stdout)
    assert (fields["backbone"], fields["epochs"], fields["image_size"]) == ("efficientnet-b4", 2, 380)
    assert list(fields["augment"]) == ["crop", "flip", "brightness", "contrast", "rotation"]
    (tmp_path / "mine.yaml").write_text(printed.stdout)
    assert ddk("fit", "--recipe", "mine.yaml", "--print-recipe").stdout == printed.stdout
    assert json.loads(ddk("fit", "--recipe", "mine.yaml", "--print-recipe", "--json").stdout) == fields
    assert not (tmp_path / "artifacts").exists()


def test_an_invalid_recipe_is_a_one_line_error(ddk, records, tmp_path):
    assert "there is no recipe efficientnet" in error_line(ddk("fit", "--recipe", "efficientnet"))
    (tmp_path / "mine.yaml").write_text("epoch: 12")
    assert "has an unknown field epoch; did you mean epochs?" in error_line(ddk("fit", "--recipe", "mine.yaml"))


def started(folder: Path, records, *options) -> subprocess.Popen:
    """Start `ddk fit` with a checkpoint after each step."""
    return start_ddk(folder, "fit", "--records", records.folder, "--save-every", 1, *options)


def steps_done(folder: Path) -> int:
    """Number of steps in the newest checkpoint."""
    for checkpoint in (folder / "artifacts/runs").glob("*/checkpoint.npz"):
        with contextlib.suppress(ConfigError):  # it is deleted at the end
            position, _ = load(checkpoint.parent)
            return 6 * position.epoch + position.step
    return 0


def stop_after(process: subprocess.Popen, folder: Path, steps: int, number: int) -> tuple[str, str]:
    """Send the process the signal `number` after so many steps."""
    while process.poll() is None and steps_done(folder) < steps:
        time.sleep(0.02)
    process.send_signal(number)
    return process.communicate()


@pytest.mark.slow
def test_ctrl_c_says_where_it_stopped_and_resume_continues(ddk, recipe, records, tmp_path):
    process = started(tmp_path, records, *QUICK)
    _, said = stop_after(process, tmp_path, 2, signal.SIGINT)
    assert process.returncode == 1, said
    line = r"Error: interrupted; stopped in epoch \d of 3 after step \d of 6; continue with: ddk fit --resume"
    assert re.search(line, said)
    again = ("fit", "--records", records.folder, "--resume")
    changed = error_line(ddk(*again, "--save-every", 1, *QUICK, "--epochs", 4))
    assert "was started with epochs 3, not 4: leave these out, or start a new run" in changed
    result = ddk(*again, "--save-every", 1, *QUICK)
    assert result.exit_code == 0, result.output
    assert "there is no unfinished training in artifacts/runs; start one with: ddk fit" in error_line(ddk(*again))


@pytest.mark.slow
@pytest.mark.parametrize("kills", [[1, 4], [3, 8], [6, 12], [7, 17]], ids=str)
def test_a_killed_training_resumes_to_the_same_result(recipe, records, tmp_path, kills):
    (tmp_path / "whole").mkdir()
    whole = started(tmp_path / "whole", records, *QUICK)
    for steps in kills:
        options = ["--resume"] if steps_done(tmp_path) else QUICK
        stop_after(started(tmp_path, records, *options), tmp_path, steps, signal.SIGKILL)
    last = started(tmp_path, records, "--resume")
    assert last.wait() == 0, last.stderr.read()
    assert whole.wait() == 0, whole.stderr.read()
    killed, uninterrupted = (open_run(folder / "artifacts/runs/latest") for folder in (tmp_path, tmp_path / "whole"))
    assert (killed.folder / "history.csv").read_text() == (uninterrupted.folder / "history.csv").read_text()
    for ours, theirs in zip(
        killed.load_scorer().get_weights(), uninterrupted.load_scorer().get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_h_is_help():
    for arguments in (["-h"], ["fit", "-h"], ["predict", "-h"]):
        short = CliRunner().invoke(main, arguments)
        assert short.exit_code == 0
        assert short.stdout == CliRunner().invoke(main, [*arguments[:-1], "--help"]).stdout
        assert "-h, --help" in short.stdout
