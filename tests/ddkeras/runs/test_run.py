"""The files of a run: written, digested, and damaged."""

import fcntl
import json
import shutil
from pathlib import Path

import pytest
from tiny import change_json

from ddkeras import config
from ddkeras.exceptions import ConfigError
from ddkeras.runs.run import file_sha256, new_run, open_run, open_unfinished

FIXTURE = Path(__file__).parents[2] / "fixtures/0.1.0/runs/plain"


@pytest.fixture
def old(tmp_path):
    """A copy of a run of 0.1.0, which has no digest of its model."""
    return shutil.copytree(FIXTURE, tmp_path / "plain")


def test_a_finished_training_records_the_digest_of_its_model(run):
    recorded = json.loads((run.folder / "run.json").read_text())["model_sha256"]
    assert recorded == file_sha256(run.model_path)
    assert open_run(run.folder).load_model().count_params() == run.parameters


def test_a_flipped_bit_in_the_model_is_a_one_line_error(old):
    model = old / "model.keras"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    change_json(old / "run.json", model_sha256=file_sha256(model))
    model.write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.keras is damaged, or is not the file that the training wrote"):
        open_run(old).load_model()
    change_json(old / "run.json", "model_sha256")
    with pytest.raises(ConfigError, match=r"model\.keras cannot be loaded.*\(Bad CRC-32 for file"):
        open_run(old).load_model()


def test_opening_a_run_parses_its_recipe_once(run, monkeypatch):
    parsed, parse = [], config._read_fields
    monkeypatch.setattr(config, "_read_fields", lambda path: parsed.append(path.name) or parse(path))
    open_run(run.folder)
    assert parsed == ["recipe.yaml"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("image_size: 32", "image_size: 64"),
        ("test_augment: none", "test_augment: flip"),
        ("min_side: 32", "min_side: 0"),
        ("dropout: 0.2\n", ""),
    ],
)
def test_a_recipe_changed_after_the_training_is_a_one_line_error(run, tmp_path, old, new):
    folder = shutil.copytree(run.folder, tmp_path / "copy")
    assert open_run(folder).recipe == run.recipe
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(old, new))
    with pytest.raises(ConfigError) as raised:
        open_run(folder)
    assert str(raised.value) == (
        f"{recipe} is not the recipe that the run was trained with: its digest is not that in run.json; undo the "
        f"changes, or train a run with them: ddk fit --recipe {recipe}"
    )


def test_comments_and_ends_of_lines_of_a_recipe_may_change(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "copy")
    recipe = folder / "recipe.yaml"
    recipe.write_text("# the best so far\n" + recipe.read_text(), newline="\r\n")
    assert open_run(folder).recipe == run.recipe


def test_a_run_resumes_with_the_recipe_that_it_was_begun_with(records, recipe, tmp_path):
    with new_run(tmp_path, recipe, records, 275) as run:
        (run.folder / "checkpoint.npz").touch()
    assert open_unfinished(tmp_path, records).recipe == recipe
    path = run.folder / "recipe.yaml"
    path.write_text(path.read_text().replace("epochs: 2", "epochs: 3"))
    with pytest.raises(ConfigError, match=r"recipe\.yaml is not the recipe that the run was trained with"):
        open_unfinished(tmp_path, records)


def test_the_recipe_of_an_old_run_is_not_checked(old):
    recipe = old / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "min_side: 40\n")
    assert open_run(old).min_side == 40


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.json", b"{", r"run\.json is damaged; restore it from a copy, or train again: ddk fit"),
        ("run.json", b"\xff", r"run\.json is damaged"),
        ("run.json", b'{"categories": []}', r"run\.json has no field records; restore it"),
        ("run.json", b'{"categories": "cats", "records": ""}', r"run\.json is damaged"),
        ("run.json", b'{"categories": [1], "records": ""}', r"run\.json is damaged"),
        ("run.json", b"[]", r"run\.json is damaged"),
        ("operating_point.json", b'{"by_category": {}}', r"operating_point\.json has no field fitted; remove it"),
        (
            "operating_point.json",
            b'{"temperature": 1, "limits": {"real_below": 0}, "by_category": {}, "fitted": {}}',
            r"operating_point\.json has no field fake_from; remove it, then fit it again: ddk evaluate",
        ),
        (
            "operating_point.json",
            b'{"temperature": "1", "limits": {"real_below": 0, "fake_from": 1}, "by_category": {}, "fitted": {}}',
            r"operating_point\.json is damaged",
        ),
        ("recipe.yaml", b"epochs: [", r"recipe\.yaml is not valid YAML"),
        ("recipe.yaml", b"epochs: many", r"recipe\.yaml does not fit .*: epochs must be a whole number, not many"),
    ],
)
def test_a_damaged_file_is_named_with_its_remedy(old, name, content, said):
    (old / name).write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        open_run(old)


@pytest.mark.parametrize("path", ["plain", "plain/1", "plain/1/saved_model.pb", "plain-onnx/1/model.onnx"])
def test_an_export_given_as_a_run_is_named_with_its_run(path):
    export = FIXTURE.parents[1] / "export" / path
    with pytest.raises(ConfigError) as error:
        open_run(export)
    assert str(error.value) == f"{export} is an export; give the folder of the run that it was made from, plain"


def test_damaged_files_that_only_reports_need_are_named(old):
    (old / "status.json").write_text("{")
    with pytest.raises(ConfigError, match=r"status\.json is damaged; remove"):
        open_run(old).cost()
    (old / "history.csv").write_text("epoch,val_loss\n0,x\n")
    with pytest.raises(ConfigError, match=r"history\.csv is damaged; train again"):
        open_run(old).best_epoch()


def test_runs_of_killed_trainings_are_cleared_by_the_next(old, records, recipe, tmp_path):
    names = ("run.json", "recipe.yaml", "lock")
    for name in ("killed", "being-trained", "with-a-checkpoint"):
        (tmp_path / name).mkdir()
        for file in names:
            (tmp_path / name / file).touch()
    (tmp_path / "with-a-checkpoint/checkpoint.npz").touch()
    (tmp_path / "notes").mkdir()
    with open(tmp_path / "being-trained/lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with new_run(tmp_path, recipe, records, 275) as run:
            assert (run.folder / "run.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "being-trained",
        "notes",
        "plain",
        "with-a-checkpoint",
    ]
