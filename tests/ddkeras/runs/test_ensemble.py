"""Ensembles: the mean by hand, agreement of predict and evaluate, and incompatible members."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from tiny import with_each_verdict

from ddkeras.cli import main
from ddkeras.evaluation import scoring
from ddkeras.exceptions import ConfigError
from ddkeras.exporting import saved_model
from ddkeras.inference import prediction
from ddkeras.inference.prediction import predict
from ddkeras.inference.scorers import Scorer, combine_scorers, open_scorer, scorer_for_run
from ddkeras.inference.stability import RE_ENCODED
from ddkeras.inference.tta import augmented_views
from ddkeras.metrics.calibration import Limits, OperatingPoint
from ddkeras.runs.ensemble import compose, open_ensemble
from ddkeras.training import loop
from pipelines.views import Squash


def saying(logit: float, categories: list[float], point: OperatingPoint, size: int = 32) -> Scorer:
    """A detector with the same scores for every image."""

    def score(images: np.ndarray) -> dict[str, np.ndarray]:
        assert images.shape[1:] == (size, size, 3)
        return {
            "logit": np.full(len(images), logit, np.float32),
            "category_probabilities": np.tile(np.array(categories, np.float32), (len(images), 1)),
        }

    return Scorer(f"says{logit:g}", Squash(size), 8, ["a", "b"], "digest", score, point)


@pytest.fixture
def two():
    """Of different temperatures, limits and image sizes."""
    first = OperatingPoint(2.0, Limits(-2.0, 2.0), {"b": Limits(-4.0, 6.0)}, {"reals": 9})
    second = OperatingPoint(0.5, Limits(-0.5, 1.5))
    return [saying(3.0, [0.25, 0.75], first), saying(-1.0, [0.75, 0.25], second, size=48)]


@pytest.fixture(scope="module")
def members(run, recipe, records, tmp_path_factory):
    """Two runs on the same records, of different image sizes and views, and at different points."""
    folder = tmp_path_factory.mktemp("members")
    others = dataclasses.replace(recipe, image_size=48, view="windows", windows=3, seed=5)
    larger = loop.fit(others, records, folder / "runs", verbose=0)
    return with_each_verdict(run, records, folder), larger


def of_sizes(*sizes: int) -> dict[Squash, np.ndarray]:
    return {Squash(size): np.zeros((1, size, size, 3), np.uint8) for size in sizes}


def mistake(*arguments) -> str:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 1, done.output
    return next(line for line in done.stderr.splitlines() if line.startswith("Error: "))


# --- by hand ---------------------------------------------------------------------------------------------------


def test_the_logit_is_the_weighted_mean_of_calibrated_logits(two):
    scores = combine_scorers(two, [3, 1]).score_images(of_sizes(32, 48))
    assert scores["logit"].tolist() == [pytest.approx(0.75 * 1.5 + 0.25 * -2)]  # 0.625
    assert scores["fake_probability"].tolist() == [pytest.approx(0.6513549, abs=1e-6)]
    assert scores["category_probabilities"].tolist() == [[pytest.approx(0.375), pytest.approx(0.625)]]
    assert combine_scorers(two).score_images(of_sizes(32, 48))["logit"].tolist() == [pytest.approx(-0.25)]


def test_the_thresholds_are_the_weighted_means_of_calibrated_thresholds(two):
    point = combine_scorers(two, [3, 1]).point
    assert point.temperature == 1.0
    assert point.limits == Limits(0.75 * -1 + 0.25 * -1, 0.75 * 1 + 0.25 * 3)
    assert point.by_category == {"b": Limits(0.75 * -2 + 0.25 * -1, 0.75 * 3 + 0.25 * 3)}
    assert not point.fitted
    assert combine_scorers(two, [3, 1]).score_images(of_sizes(32, 48))["verdict"].tolist() == [2], "by those of b"


def test_incompatible_members_and_weights_are_rejected(two):
    with pytest.raises(ConfigError, match="--ensemble-weights has 3 for 2 members; give one for each --run"):
        combine_scorers(two, [1, 2, 3])
    for weight in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="--ensemble-weights must be above 0"):
            combine_scorers(two, [1, weight])
    other = dataclasses.replace(two[1], categories=["b", "a"])
    with pytest.raises(
        ConfigError, match="says-1 has the categories b, a, but says3 has a, b; all members of an ensemble"
    ):
        combine_scorers([two[0], other])


def test_an_ensemble_of_ensembles_is_rejected(two):
    with pytest.raises(ConfigError, match=r"says3\+says-1 is an ensemble itself; give its members in its place"):
        combine_scorers([combine_scorers(two), two[0]])


# --- real ones -------------------------------------------------------------------------------------------------


def test_members_of_any_kind_and_image_size_score_as_they_do_alone(members, data, tmp_path):
    exported = open_scorer(saved_model.export_saved_model(members[0], tmp_path / "exports"))
    scorers = [exported, scorer_for_run(members[1])]
    paths = sorted(data.rglob("*.jpg"))
    (tmp_path / "bad.jpg").write_bytes(b"")
    rows = list(predict(combine_scorers(scorers, [2, 1]), [*paths, tmp_path / "bad.jpg"]))
    alone = [list(predict(scorer, paths)) for scorer in scorers]
    for row, *each in zip(rows[:-1], *alone, strict=True):
        logits = [np.log(one.fake_probability / (1 - one.fake_probability)) for one in each]
        expected = 1 / (1 + np.exp(-(2 * logits[0] + logits[1]) / 3))
        assert row.fake_probability == pytest.approx(expected, abs=1e-5)
        animals = [one.category_probabilities["animals"] for one in each]
        assert row.category_probabilities["animals"] == pytest.approx((2 * animals[0] + animals[1]) / 3, abs=1e-5)
    assert rows[-1].error == "the file is empty"


def test_an_ensemble_of_one_run_twice_scores_like_that_run(members, data):
    paths = sorted(data.rglob("*.jpg"))
    twice = combine_scorers([scorer_for_run(members[0])] * 2)
    for views in (RE_ENCODED, augmented_views(3)):
        rows, alone = (list(predict(one, paths, views=views)) for one in (twice, scorer_for_run(members[0])))
        assert [row.verdict for row in rows] == [row.verdict for row in alone]
        for name in ("fake_probability", "score_shift" if views is RE_ENCODED else "spread"):
            np.testing.assert_allclose(
                [getattr(row, name) for row in rows], [getattr(row, name) for row in alone], atol=1e-5
            )


@pytest.fixture(scope="module")
def evaluated(members, records, tmp_path_factory):
    """A folder in which an ensemble was evaluated, the result, and the command."""
    folder = tmp_path_factory.mktemp("evaluated")
    command = ["evaluate", "--records", records.folder, "--degrade", 4, "--json"]
    for member in members:
        command += ["--run", member.folder]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = CliRunner().invoke(main, list(map(str, command)))
    assert done.exit_code == 0, done.output
    return folder, json.loads(done.stdout), command


def test_evaluate_writes_the_same_files_as_for_a_run_without_training_curves(evaluated, members):
    folder, told, _ = evaluated
    name = "+".join(member.name for member in members)
    assert told["ensemble"] == f"artifacts/ensembles/{name}"
    there = folder / told["folder"] / "validation"
    assert {"report.html", "report.pdf", "predictions.csv", "metrics.json", "roc.png"} <= {
        path.name for path in there.iterdir()
    }
    assert not (there / "loss.png").exists()
    numbers = json.loads((there / "metrics.json").read_text())
    assert [(one["run"], one["weight"]) for one in numbers["members"]] == [(one.name, 0.5) for one in members]
    assert numbers["run"] == name
    assert numbers["operating_point"]["fitted"] == {"false_alarms": 0.01, "misses": 0.05, "reals": 6, "fakes": 6}
    assert {"robustness", "bias_probe", "stability"} <= set(numbers)
    text = (there / "report.html").read_text()
    assert all(member.name in text for member in members)
    assert "member, weight 0.5" in text


def test_predict_and_evaluate_agree_on_the_same_images(evaluated, data, members, records):
    folder, told, _ = evaluated
    table = pd.read_csv(folder / told["folder"] / "validation/predictions.csv").set_index("path")
    scorer = open_scorer(folder / told["ensemble"])
    rows = list(predict(scorer, [data / path for path in table.index]))
    np.testing.assert_allclose([row.fake_probability for row in rows], table["fake_probability"], atol=1e-5)
    assert [row.verdict for row in rows] == table["verdict"].tolist()
    assert [row.category for row in rows] == table["predicted_category"].tolist()
    logits = [
        scoring.score(member, records, ["validation"])["validation"].logits / member.point.temperature
        for member in members
    ]
    np.testing.assert_allclose(table["logit"], np.mean(logits, axis=0), atol=1e-5)


def test_the_fitted_operating_point_is_kept_only_for_the_same_members(evaluated, members, records, tmp_path):
    folder, told, _ = evaluated
    root = shutil.copytree(folder / "artifacts/ensembles", tmp_path / "ensembles")
    fitted = open_ensemble(root / told["ensemble"].split("/")[-1]).point
    paths = [member.folder for member in members]
    assert fitted.fitted
    assert compose(paths, None, root).point == fitted
    assert compose(paths, [2, 2], root).point == fitted
    weighted = compose(paths, [2, 1], root)
    assert weighted.name.endswith("-2to1")
    assert not weighted.point.fitted


def test_a_changed_member_is_rejected(members, tmp_path):
    copies = [shutil.copytree(member.folder, tmp_path / member.name) for member in members]
    made = compose(copies, None, tmp_path / "ensembles").save()
    assert open_scorer(made.folder).categories == ["animals", "vehicles"]
    (copies[0] / "operating_point.json").unlink()
    with pytest.raises(ConfigError, match=r"has changed since .* was made from it; make it again: ddk evaluate"):
        open_scorer(made.folder)
    for known in ({}, {"operating_point": OperatingPoint().to_dict()}):
        (made.folder / "ensemble.json").write_text(json.dumps(known))
        with pytest.raises(ConfigError, match=r"ensemble\.json has no field members; remove it"):
            open_scorer(made.folder)


def test_evaluations_are_removed_when_a_member_changes_and_kept_from_other_runs(members, tmp_path, caplog):
    copies = [shutil.copytree(member.folder, tmp_path / member.name) for member in members]
    made = compose(copies, None, tmp_path / "ensembles").save()
    (made.folder / "evaluation" / "test").mkdir(parents=True)
    kept = (made.folder / "ensemble.json").read_bytes()
    others = [shutil.copytree(copy, tmp_path / "others" / copy.name) for copy in copies]
    with pytest.raises(ConfigError, match="belongs to other runs of the same names; move it away, or rename a run"):
        compose(others, None, tmp_path / "ensembles")
    assert (made.folder / "ensemble.json").read_bytes() == kept
    (copies[0] / "operating_point.json").unlink()
    changed = compose(copies, None, tmp_path / "ensembles")
    assert (made.folder / "evaluation").is_dir()
    with caplog.at_level("INFO"):
        changed.save()
    assert "have changed; its earlier evaluations are removed" in caplog.text
    assert not (made.folder / "evaluation").exists()


def test_rejected_records_change_no_ensemble(members, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = [argument for member in members for argument in ("--run", member.folder)]
    assert "gone" in mistake("evaluate", *models, "--records", "gone")
    assert not (tmp_path / "artifacts").exists()


def test_conflicting_and_missing_options_are_rejected(members, tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    folder = members[0].folder
    for command in (["evaluate"], ["predict", data / "test"]):
        assert "--ensemble-weights is for several --run" in mistake(*command, "--ensemble-weights", "2,1")
        assert "--ensemble-weights has 1 for 2 members" in mistake(
            *command, *["--run", folder] * 2, "--ensemble-weights", "2"
        )
    assert "there is no trained run in gone" in mistake("evaluate", "--run", folder, "--run", "gone")
    assert not (tmp_path / "artifacts").exists()


def test_a_prediction_resumes_only_with_the_same_members_and_weights(members, data, tmp_path, monkeypatch):
    def interrupted(scorer, files, **options):
        raise KeyboardInterrupt

    models = [argument for member in members for argument in ("--run", member.folder)]
    command = ["predict", data / "test", "--output", tmp_path / "a.csv"]
    with monkeypatch.context() as patch:
        patch.setattr(prediction, "predict_batches", interrupted)
        assert "0 of 3 images are scored; continue" in mistake(*command, *models, "--ensemble-weights", "2,1")
    assert "was started with other model; give the same" in mistake(
        *command, *models, "--ensemble-weights", "1,2", "--resume"
    )
    assert "was started with other model; give the same" in mistake(*command, *models[:2], "--resume")
    done = CliRunner().invoke(main, [*map(str, [*command, *models]), "--ensemble-weights", "4,2", "--resume"])
    assert done.exit_code == 0, done.output
