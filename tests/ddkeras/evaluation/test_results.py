"""Metrics, subgroups and notes from scores: by hand, with few images, and of a trained run."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny import with_head_weights

from ddkeras.evaluation import results, scoring
from ddkeras.evaluation.scoring import Scores
from ddkeras.exceptions import ConfigError
from ddkeras.metrics.bootstrap import Bootstrap
from ddkeras.metrics.calibration import Limits, OperatingPoint
from ddkeras.metrics.split_metrics import ClassMetrics
from ddkeras.runs.run import Run
from pipelines.exceptions import DataError
from pipelines.records.store import Records

# Ranked from fake to real: fake, real, fake, fake, real, real.
LABELS = np.array([1, 0, 1, 1, 0, 0])
LOGITS = np.array([2.0, 1.5, 0.5, -0.5, -1.0, -2.0], np.float32)

OF_OTHER_RECORDS = (
    "the run was trained on other records than these, or they have been changed since: if both were made of the same "
    "data, some of these images may have been in its training"
)


def scores(labels, logits, *, sources=None, categories=None, predicted=None, groups=None) -> Scores:
    n = len(labels)
    probabilities = None if predicted is None else np.eye(2, dtype=np.float32)[predicted]
    return Scores(
        paths=np.array([f"{number}.jpg" for number in range(n)]),
        labels=np.asarray(labels),
        sources=np.array(sources if sources is not None else [""] * n),
        groups=np.arange(n) if groups is None else groups,
        categories=np.full(n, -1) if categories is None else np.asarray(categories),
        logits=np.asarray(logits, np.float32),
        category_probabilities=probabilities,
    )


@pytest.fixture
def report(recipe, tmp_path):
    """A report on scores, by a run that was trained on records `abc`."""

    def call(
        scored: Scores,
        point=OperatingPoint(),  # noqa: B008
        split="test",
        fingerprint="abc",
        skipped=0,
        hold_out="",
        held_out=None,
    ):
        categories = [] if scored.category_probabilities is None else ["cats", "dogs"]
        run = Run(tmp_path / "run", replace(recipe, hold_out=hold_out), categories, "abc", point)
        records = Records(tmp_path, categories, {}, fingerprint, skipped)
        return results.report(run, records, split, scored, held_out=held_out)

    return call


@pytest.fixture
def measure(report):
    """The metrics of such a report."""
    return lambda *arguments, **options: report(*arguments, **options).metrics


# --- the two heads ---------------------------------------------------------------------------------------------


def test_authenticity_by_hand(measure):
    point = OperatingPoint(temperature=0.5, limits=Limits(-1.5, 1.75))
    metrics = measure(scores(LABELS, LOGITS), point).authenticity
    assert metrics.auc.value == pytest.approx(7 / 9)
    assert metrics.at_half.accuracy.value == pytest.approx(4 / 6)
    assert metrics.at_half.confusion == [[2, 1], [1, 2]]  # by label and decision
    assert metrics.at_operating_point.recall.value == pytest.approx(1 / 3)
    assert metrics.at_operating_point.confusion == [[3, 0], [2, 1]]
    assert metrics.verdicts == {
        "real": {"real": 1, "fake": 0, "unsure": 2},
        "fake": {"real": 0, "fake": 1, "unsure": 2},
    }
    assert metrics.coverage.value == pytest.approx(2 / 6)
    assert metrics.risk.value == 0
    assert metrics.risk.reason == "fewer than 20 verdicts", "two right verdicts do not show that all are right"
    signed = LOGITS * (2 * LABELS - 1)
    assert metrics.uncalibrated.log_loss.value == pytest.approx(np.log1p(np.exp(-signed)).mean())
    assert metrics.calibrated.log_loss.value == pytest.approx(np.log1p(np.exp(-signed / 0.5)).mean())


def test_recall_at_a_false_positive_rate_needs_enough_reals(measure):
    labels = np.repeat([0, 1], [150, 50])
    recall_at = measure(scores(labels, np.arange(200))).authenticity.recall_at
    assert recall_at[0.01].value == 1
    assert recall_at[0.001].to_dict() == {
        "value": None,
        "low": None,
        "high": None,
        "reason": "150 reals are too few for a false positive rate of 0.1%",
    }


def perfect_metrics(measure, images_of_a_label):
    labels = np.repeat([0, 1], images_of_a_label)
    metrics = measure(scores(labels, labels * 2.0 - 1, categories=labels, predicted=labels))
    decisions = metrics.authenticity.at_half
    perfect = [decisions.accuracy, decisions.balanced_accuracy, decisions.precision, decisions.recall, decisions.f1]
    return [*perfect, metrics.category.accuracy, metrics.category.macro_f1, metrics.authenticity.auc]


def test_perfect_metrics_of_few_images_have_no_interval(measure):
    for estimate in perfect_metrics(measure, 9):
        assert estimate.value == 1
        assert not estimate.has_interval


def test_perfect_metrics_of_20_images_of_a_label_have_wide_intervals(measure):
    for estimate in perfect_metrics(measure, 20):
        assert estimate.value == 1
        assert estimate.low < 0.92  # 40 / (40 + 1.96^2)


def test_with_one_label_ranking_metrics_are_missing_and_the_others_are_given(measure):
    metrics = measure(scores([1, 1, 1], [1.0, 0.5, -1.0]))
    assert metrics.authenticity.auc.is_missing
    assert metrics.authenticity.at_half.recall.value == pytest.approx(2 / 3)
    assert metrics.notes[0] == "test has no real images: metrics that need both labels, such as AUC, are undefined"


def test_category_by_hand():
    labels, predicted = np.array([0, 0, 1, 1, -1]), np.array([0, 1, 1, 1, 0])
    metrics = results.category_metrics(Bootstrap(np.arange(5)), labels, predicted, ["cats", "dogs"])
    assert metrics.accuracy.value == 3 / 4
    assert metrics.macro_f1.value == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert metrics.classes["dogs"] == ClassMetrics(2, pytest.approx(2 / 3), 1.0, pytest.approx(0.8))
    assert metrics.confusion == [[1, 1], [0, 2]]
    assert metrics.examples == 4


def test_a_class_that_does_not_occur_has_no_numbers():
    labels = np.array([0, 0])
    metrics = results.category_metrics(Bootstrap(np.arange(2)), labels, labels, ["cats", "dogs"])
    dogs = metrics.classes["dogs"]
    assert dogs.examples == 0
    assert np.isnan([dogs.precision, dogs.recall, dogs.f1]).all()
    assert metrics.macro_f1.value == 1


def test_without_known_categories_the_metrics_say_so():
    metrics = results.category_metrics(Bootstrap(np.arange(1)), np.array([-1]), np.array([0]), ["cats", "dogs"])
    assert metrics.accuracy.is_missing
    assert metrics.accuracy.reason == "no image has a category"
    assert metrics.confusion == [[0, 0], [0, 0]]


# --- subgroups -------------------------------------------------------------------------------------------------


def test_tables_by_source_category_and_both(measure):
    """Two cameras and a generator, 40 images each; the generator's cats are missed, and its dogs found."""
    sources = np.repeat(["a camera", "b camera", "generator"], 40)
    labels = np.repeat([0, 0, 1], 40)
    categories = np.tile([0, 1], 60)
    logits = np.where((labels == 1) & (categories == 1), 2.0, -1.0) + np.where(sources == "b camera", -1, 0)
    tables = measure(scores(labels, logits, sources=sources, categories=categories, predicted=categories)).tables
    assert list(tables) == ["source", "category", "source and category"]
    generator = tables["source"][2]
    assert (generator.subgroup, generator.real, generator.fake) == ({"source": "generator"}, 0, 40)
    assert generator.recall.value == 0.5
    assert generator.false_positive_rate.is_missing
    assert generator.false_positive_rate.reason == "none"
    # Half of the fakes are above all 80 reals; the other half above those of b, and level with those of a.
    assert generator.auc.value == pytest.approx(0.5 + 0.5 * 0.75)
    assert [row.subgroup["category"] for row in tables["category"]] == ["cats", "dogs"]
    assert tables["category"][0].auc.value == pytest.approx(0.75)
    assert tables["category"][1].auc.value == 1
    dogs = tables["source and category"][5]
    assert (dogs.subgroup, dogs.fake) == ({"source": "generator", "category": "dogs"}, 20)
    assert dogs.recall.value == 1


def test_a_subgroup_of_fewer_than_twenty_has_no_numbers(measure):
    labels = np.repeat([0, 1, 0, 1], [25, 25, 25, 19])
    sources = np.repeat(["x", "x", "y", "y"], [25, 25, 25, 19])
    x, y = measure(scores(labels, labels, sources=sources)).tables["source"]
    assert x.auc.value == 1
    assert y.auc.is_missing
    assert y.auc.reason == "fewer than 20"
    assert y.false_positive_rate.value == 1, "a logit of 0 is called fake at an unfitted operating point"
    assert y.recall.reason == "fewer than 20"


def test_without_sources_or_categories_there_are_no_tables(measure):
    assert measure(scores(LABELS, LOGITS)).tables == {}


def test_a_subgroup_with_one_label_is_ranked_against_the_other_label_of_its_categories(measure):
    """All cats score higher than all dogs, and among cats, as among dogs, fakes higher than reals."""
    labels, categories = np.tile([0, 1, 0, 1], 20), np.tile([0, 0, 1, 1], 20)
    sources = np.array(["cat camera", "gan", "dog camera", "flux"])[np.tile(np.arange(4), 20)]
    logits = labels + 10 * (categories == 0)
    tables = measure(scores(labels, logits, sources=sources, categories=categories, predicted=categories)).tables
    by_source = {row.subgroup["source"]: row.auc.value for row in tables["source"]}
    assert by_source == {"cat camera": 1, "gan": 1, "dog camera": 1, "flux": 1}


# --- what goes with the numbers --------------------------------------------------------------------------------


def test_predictions_have_a_row_per_image(report):
    point = OperatingPoint(temperature=2, limits=Limits(-1.5, 1.75))
    scored = scores(LABELS, LOGITS, categories=[0, 1, 0, 1, 0, -1], predicted=[0, 0, 0, 1, 0, 1])
    table = report(scored, point).to_frame()
    assert list(table) == [
        *("path", "source", "group", "label", "logit", "fake_probability", "verdict"),
        *("true_category", "predicted_category", "category_probability"),
    ]
    assert list(table["verdict"]) == ["fake", "unsure", "unsure", "unsure", "unsure", "real"]
    assert list(table["true_category"]) == ["cats", "dogs", "cats", "dogs", "cats", ""]
    assert list(table["predicted_category"]) == ["cats", "cats", "cats", "dogs", "cats", "dogs"]
    np.testing.assert_allclose(table["fake_probability"], 1 / (1 + np.exp(-LOGITS / 2)), rtol=1e-5)


def test_notes_say_what_a_reader_has_to_know(measure):
    fitted = OperatingPoint(fitted={"reals": 3})
    assert measure(scores(np.tile(LABELS, 7), np.tile(LOGITS, 7)), fitted).notes == []
    assert measure(scores(LABELS, LOGITS), split="train", fingerprint="xyz", skipped=2).notes == [
        "3 real images in train: numbers that rest on fewer than 20 say little, and have no interval",
        "3 fake images in train: numbers that rest on fewer than 20 say little, and have no interval",
        "no operating point was fitted, as validation has images of only one label: the threshold is 0.5",
        OF_OTHER_RECORDS,
        "2 damaged records were left out",
    ]


def test_what_was_trained_and_chosen_on_is_said_of_the_records_of_the_training_alone(measure):
    scored, fitted = scores(np.tile(LABELS, 7), np.tile(LOGITS, 7)), OperatingPoint(fitted={"reals": 3})
    assert measure(scored, fitted, "train").notes == [
        "the run was trained on these images: expect lower numbers on others"
    ]
    assert measure(scored, fitted, "validation").notes == [
        "the epoch, the calibration and the thresholds were chosen on these images: expect slightly lower numbers on "
        "others"
    ]
    for split in ("train", "validation", "test"):
        assert measure(scored, fitted, split, fingerprint="xyz").notes == [OF_OTHER_RECORDS]


def test_notes_on_a_source_are_of_images_and_records_that_have_it(report):
    scored = scores(np.tile(LABELS, 7), np.tile(LOGITS, 7), sources=["flux", "photos"] * 21)

    def first_note(hold_out: str = "", *, held_out: str | None = None, fingerprint: str = "abc") -> str:
        return report(scored, hold_out=hold_out, held_out=held_out, fingerprint=fingerprint).metrics.notes[0]

    assert first_note("flux") == "the run was trained without the source flux, which is among these images"
    assert first_note("midjourney").startswith("no operating point was fitted")
    limited = "and the other label in the same categories"
    assert first_note("flux", held_out="flux") == f"limited to flux, a source held out of training, {limited}"
    assert first_note(held_out="flux") == (
        f"limited to flux, a source seen in training, {limited}; to train without it: ddk fit --hold-out"
    )
    assert first_note(held_out="flux", fingerprint="xyz") == f"limited to flux, {limited}"


def test_intervals_are_those_of_groups(measure):
    labels, logits = np.tile(LABELS, 40), np.random.default_rng(0).normal(size=240)
    alone = measure(scores(labels, logits))
    assert alone.groups == 240
    repeated = measure(scores(np.repeat(labels, 4), np.repeat(logits, 4), groups=np.repeat(np.arange(240), 4)))
    assert repeated.groups == 240
    auc, expected = repeated.authenticity.auc, alone.authenticity.auc
    assert (auc.value, auc.low, auc.high) == pytest.approx((expected.value, expected.low, expected.high))


# --- metrics.json ----------------------------------------------------------------------------------------------

ESTIMATE = {"value", "low", "high"}
DECISIONS = ["accuracy", "balanced_accuracy", "precision", "recall", "f1", "false_positive_rate", "confusion"]


def test_metrics_json_keeps_its_keys_and_their_order(report):
    """What is stored is read by other versions, and by people's own scripts."""
    labels = np.tile([0, 1], 60)
    scored = scores(
        labels, labels * 2.0 - 1, sources=np.where(labels, "gan", "camera"), categories=labels, predicted=labels
    )
    metrics = report(scored).to_dict()
    assert list(metrics) == [
        *("split", "examples", "labels", "groups", "held_out", "notes", "authenticity", "category", "tables"),
        *("run", "recipe", "operating_point", "records", "skipped_records", "trained_on_records", "versions"),
    ]
    authenticity = metrics["authenticity"]
    assert list(authenticity) == [
        *("auc", "average_precision", "equal_error_rate", "recall_at_0.01", "recall_at_0.001"),
        *("log_loss", "brier", "calibration_error", "uncalibrated", "at_half", "at_operating_point"),
        *("coverage", "risk", "verdicts"),
    ]
    assert set(authenticity["auc"]) == set(authenticity["log_loss"]) == set(authenticity["risk"]) == ESTIMATE
    assert set(authenticity["recall_at_0.001"]) == ESTIMATE | {"reason"}
    assert list(authenticity["uncalibrated"]) == ["log_loss", "brier", "calibration_error"]
    assert list(authenticity["at_half"]) == list(authenticity["at_operating_point"]) == DECISIONS
    assert authenticity["verdicts"]["fake"] == {"real": 0, "fake": 60, "unsure": 0}
    category = metrics["category"]
    assert list(category) == ["accuracy", "macro_f1", "classes", "confusion", "categories", "examples"]
    assert category["classes"]["cats"] == {"examples": 60, "precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert list(metrics["tables"]) == ["source", "category", "source and category"]
    assert list(metrics["tables"]["source and category"][0]) == [
        *("source", "category", "real", "fake", "auc", "called_fake_of_real", "called_fake_of_fake", "unsure")
    ]
    assert list(metrics["operating_point"]) == ["temperature", "limits", "by_category", "fitted"]
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_undefined_numbers_are_null_in_metrics_json(report):
    metrics = report(scores([1, 1], [1.0, 2.0], categories=[0, 0], predicted=[0, 0])).to_dict()
    assert metrics["authenticity"]["auc"] == {"value": None, "low": None, "high": None}
    assert metrics["category"]["classes"]["dogs"] == {"examples": 0, "precision": None, "recall": None, "f1": None}
    assert metrics["held_out"] is None
    assert "robustness" not in metrics
    json.dumps(metrics, allow_nan=False)


# --- subsets ---------------------------------------------------------------------------------------------------


def test_a_source_is_compared_with_all_of_the_other_label():
    scored = scores([0, 0, 1, 1, 1], [-1, 1, 2, 0.5, -2], sources=["a", "b", "gan", "gan", "flux"])
    assert scoring.source_subset(scored, "gan").sources.tolist() == ["a", "b", "gan", "gan"]
    assert scoring.source_subset(scored, "a").sources.tolist() == ["a", "gan", "gan", "flux"]
    with pytest.raises(DataError, match="no image comes from the source gann; the sources are a, b, flux, gan"):
        scoring.source_subset(scored, "gann")


def test_a_source_is_compared_with_images_of_its_own_categories():
    """Against cats, which no fake shows, a fake dog would be found by its subject."""
    sources = ["camera", "camera", "camera", "gan", "gan", "flux"]
    scored = scores(
        [0, 0, 0, 1, 1, 1], np.zeros(6), sources=sources, categories=[0, 1, -1, 1, 1, 0], predicted=[0] * 6
    )
    assert scoring.source_subset(scored, "gan").paths.tolist() == ["1.jpg", "3.jpg", "4.jpg"]
    assert scoring.source_subset(scored, "flux").paths.tolist() == ["0.jpg", "5.jpg"]
    assert scoring.source_subset(scored, "camera").paths.tolist() == [f"{n}.jpg" for n in range(6)]


# --- a run -----------------------------------------------------------------------------------------------------


def test_a_run_is_scored_on_each_split(run, records):
    scored = scoring.score(run, records, ["train", "validation"])
    assert {split: len(each.labels) for split, each in scored.items()} == {"train": 24, "validation": 12}
    report = results.report(run, records, "validation", scored["validation"])
    provenance = report.metrics.provenance
    assert provenance.records == provenance.trained_on_records == records.fingerprint
    assert provenance.recipe["backbone"] == "tiny"
    assert {"ddkeras", "keras", "tensorflow"} <= set(provenance.versions)
    in_path = report.predictions["path"].str.split("/").str[-2]
    assert (report.predictions["true_category"] == in_path).all()


def test_the_operating_point_is_fitted_on_validation_and_stored_with_the_run(run, records, tmp_path):
    from ddkeras.runs.run import copy_run, open_run  # noqa: PLC0415

    copy = copy_run(run, tmp_path)
    scored = scoring.score(copy, records, ["validation"])["validation"]
    calibrated = scoring.calibrate(copy, scored, false_alarms=0.2, misses=0.1)
    assert calibrated.point.fitted == {"false_alarms": 0.2, "misses": 0.1, "reals": 6, "fakes": 6}
    opened = open_run(copy.folder)
    assert opened.point == calibrated.point
    metrics = results.report(opened, records, "validation", scored).metrics
    assert metrics.authenticity.at_operating_point.false_positive_rate.value <= 0.2
    without = replace(copy, recipe=replace(copy.recipe, hold_out="gan"))
    sources = np.full(12, "known", dtype=object)
    sources[np.flatnonzero(scored.labels == 1)[:2]] = "gan"
    assert scoring.calibrate(without, replace(scored, sources=sources)).point.fitted["fakes"] == 4
    one_label = replace(scored, labels=np.zeros(12, int))
    assert scoring.calibrate(copy, one_label) is copy


def test_on_records_of_other_classes_authenticity_is_measured(run, records):
    known = scoring.score(run, records, ["validation"])["validation"]
    renamed = replace(records, categories=["vehicles", "zebras"])  # in place of animals, vehicles
    scored = scoring.score(run, renamed, ["validation"])["validation"]
    assert scored.logits.tolist() == known.logits.tolist()
    assert scored.categories.tolist() == np.where(known.categories == 0, 1, -1).tolist()
    metrics = results.report(run, renamed, "validation", scored).metrics
    assert "the run does not know the classes zebras: their images count for authenticity alone" in metrics.notes
    assert metrics.category.examples == 6


def test_records_without_classes_are_measured_by_authenticity(run, records):
    scored = scoring.score(run, records, ["validation"])["validation"]
    without = replace(scored, categories=np.full(12, -1))
    metrics = results.report(run, replace(records, categories=[]), "validation", without).metrics
    assert "the images have no class: authenticity alone is measured" in metrics.notes
    assert metrics.category.examples == 0


def test_an_unlabelled_split_is_refused(run, records):
    with pytest.raises(DataError, match="has no labelled split test; it has train, validation"):
        scoring.score(run, records, ["test"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "model.keras has weights that are not finite numbers; train again: ddk fit"),
        (3e38, "gives 8 of 8 images a score that is not a finite number; its weights are broken: train again"),
    ],
)
def test_scores_that_are_not_finite_are_refused(run, records, tmp_path, value, message):
    with pytest.raises(ConfigError, match=message):
        scoring.score(with_head_weights(value, run, tmp_path), records, ["validation"])


def test_tiny_images_are_unsure_and_noted(report):
    scored = replace(scores(LABELS, LOGITS), is_too_small=np.array([True, False, False, False, False, True]))
    found = report(scored)
    assert found.predictions["verdict"].tolist() == ["unsure", "fake", "fake", "real", "real", "unsure"]
    note = "2 images with fewer than 32 pixels on the shorter side: the verdict is unsure, whatever the score"
    assert any(each.startswith(note) for each in found.metrics.notes)


def test_scoring_knows_which_images_are_tiny(run, records):
    strict = replace(run, recipe=replace(run.recipe, min_side=41))
    assert scoring.score(strict, records, ["validation"])["validation"].is_too_small.all()
    assert not scoring.score(run, records, ["validation"])["validation"].is_too_small.any()
