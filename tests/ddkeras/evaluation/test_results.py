"""What a report says of scores, by hand and where there is little to go by; and a run measured."""

from dataclasses import replace

import numpy as np
import pytest

from ddkeras.evaluation import results, scoring
from ddkeras.evaluation.scoring import Scores
from ddkeras.metrics.bootstrap import Bootstrap
from ddkeras.metrics.calibration import Limits, OperatingPoint
from ddkeras.runs.run import Run
from pipelines.exceptions import DataError
from pipelines.records.store import Records

# Ranked from fake to real: fake, real, fake, fake, real, real.
LABELS = np.array([1, 0, 1, 1, 0, 0])
LOGITS = np.array([2.0, 1.5, 0.5, -0.5, -1.0, -2.0], np.float32)


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
def measure(recipe, tmp_path):
    """The numbers of scores, by a run that was trained on records `abc`."""

    def report(found: Scores, point=OperatingPoint(), split="test", fingerprint="abc", skipped=0):  # noqa: B008
        categories = [] if found.category_probabilities is None else ["cats", "dogs"]
        run = Run(tmp_path / "run", recipe, categories, "abc", point)
        return results.report(run, Records(tmp_path, categories, {}, fingerprint, skipped), split, found)

    return report


# --- the two heads ---------------------------------------------------------------------------------------------


def test_authenticity_by_hand(measure):
    point = OperatingPoint(temperature=0.5, limits=Limits(-1.5, 1.75))
    found = measure(scores(LABELS, LOGITS), point).metrics["authenticity"]
    assert found["auc"]["value"] == pytest.approx(7 / 9)
    assert found["at_half"]["accuracy"]["value"] == pytest.approx(4 / 6)
    assert found["at_half"]["confusion"] == [[2, 1], [1, 2]]  # true against called
    assert found["at_operating_point"]["recall"]["value"] == pytest.approx(1 / 3)
    assert found["at_operating_point"]["confusion"] == [[3, 0], [2, 1]]
    assert found["verdicts"] == {
        "real": {"real": 1, "fake": 0, "unsure": 2},
        "fake": {"real": 0, "fake": 1, "unsure": 2},
    }
    assert found["coverage"]["value"] == pytest.approx(2 / 6)
    assert found["risk"]["value"] == 0
    assert found["risk"]["high"] > 0.5, "two images that are right do not show that all are"
    signed = LOGITS * (2 * LABELS - 1)
    assert found["uncalibrated"]["log_loss"]["value"] == pytest.approx(np.log1p(np.exp(-signed)).mean())
    assert found["log_loss"]["value"] == pytest.approx(np.log1p(np.exp(-signed / 0.5)).mean())


def test_a_false_positive_rate_is_not_told_from_too_few_reals(measure):
    labels = np.repeat([0, 1], [150, 50])
    found = measure(scores(labels, np.arange(200))).metrics["authenticity"]
    assert found["recall_at_0.01"]["value"] == 1
    assert found["recall_at_0.001"] == {
        "value": None,
        "low": None,
        "high": None,
        "reason": "150 reals are too few to tell a false positive rate of 0.1%",
    }


def test_no_measure_of_few_images_is_sure_to_be_perfect(measure):
    found = measure(scores([0, 0, 1, 1], [-2, -1, 1, 2], categories=[0, 0, 1, 1], predicted=[0, 0, 1, 1])).metrics
    shares = found["authenticity"]["at_half"] | {name: found["category"][name] for name in ("accuracy", "macro_f1")}
    shares["auc"] = found["authenticity"]["auc"]
    for name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "macro_f1", "auc"):
        assert shares[name]["value"] == 1, name
        assert shares[name]["low"] < 0.6, name


def test_with_one_label_only_what_ranks_is_left_out_and_the_rest_is_given(measure):
    found = measure(scores([1, 1, 1], [1.0, 0.5, -1.0])).metrics
    assert found["authenticity"]["auc"]["value"] is None
    assert found["authenticity"]["at_half"]["recall"]["value"] == pytest.approx(2 / 3)
    assert found["notes"][0] == "no image of test is real: what ranks real against fake, such as AUC, cannot be had"


def test_category_by_hand():
    labels, predicted = np.array([0, 0, 1, 1, -1]), np.array([0, 1, 1, 1, 0])
    found = results.category(Bootstrap(np.arange(5)), labels, predicted, ["cats", "dogs"])
    assert found["accuracy"]["value"] == 3 / 4
    assert found["macro_f1"]["value"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["classes"]["dogs"] == {
        "examples": 2,
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,
        "f1": pytest.approx(0.8),
    }
    assert found["confusion"] == [[1, 1], [0, 2]]
    assert found["examples"] == 4


def test_a_class_that_does_not_occur_has_no_numbers():
    found = results.category(Bootstrap(np.arange(2)), np.array([0, 0]), np.array([0, 0]), ["cats", "dogs"])
    assert found["classes"]["dogs"] == {"examples": 0, "precision": None, "recall": None, "f1": None}
    assert found["macro_f1"]["value"] == 1


def test_where_no_image_has_a_category_it_says_so():
    found = results.category(Bootstrap(np.arange(1)), np.array([-1]), np.array([0]), ["cats", "dogs"])
    assert found["accuracy"] == {"value": None, "low": None, "high": None, "reason": "no image has a category"}
    assert found["confusion"] == [[0, 0], [0, 0]]


# --- who it fails ----------------------------------------------------------------------------------------------


def test_tables_by_source_category_and_both(measure):
    """Two cameras and a generator, 40 images each; the generator's cats are missed, and its dogs found."""
    sources = np.repeat(["a camera", "b camera", "generator"], 40)
    labels = np.repeat([0, 0, 1], 40)
    categories = np.tile([0, 1], 60)
    logits = np.where((labels == 1) & (categories == 1), 2.0, -1.0) + np.where(sources == "b camera", -1, 0)
    found = scores(labels, logits, sources=sources, categories=categories, predicted=categories)
    tables = measure(found).metrics["tables"]
    assert list(tables) == ["source", "category", "source and category"]
    generator = tables["source"][2]
    assert (generator["source"], generator["real"], generator["fake"]) == ("generator", 0, 40)
    assert generator["called_fake_of_fake"]["value"] == 0.5
    assert generator["called_fake_of_real"] == {"value": None, "low": None, "high": None, "reason": "none"}
    # Half of the fakes are above all 80 reals; the other half above those of b, and level with those of a.
    assert generator["auc"]["value"] == pytest.approx(0.5 + 0.5 * 0.75)
    assert [row["category"] for row in tables["category"]] == ["cats", "dogs"]
    assert tables["category"][0]["auc"]["value"] == pytest.approx(0.75)
    assert tables["category"][1]["auc"]["value"] == 1
    dogs = tables["source and category"][5]
    assert (dogs["source"], dogs["category"], dogs["fake"]) == ("generator", "dogs", 20)
    assert dogs["called_fake_of_fake"]["value"] == 1


def test_a_cell_says_nothing_of_fewer_than_twenty(measure):
    labels = np.repeat([0, 1, 0, 1], [25, 25, 25, 19])
    sources = np.repeat(["x", "x", "y", "y"], [25, 25, 25, 19])
    x, y = measure(scores(labels, labels, sources=sources)).metrics["tables"]["source"]
    assert x["auc"]["value"] == 1
    assert (y["auc"]["value"], y["auc"]["reason"]) == (None, "fewer than 20")
    assert y["called_fake_of_real"]["value"] == 1, "a logit of 0 is fake where no point was fitted"
    assert y["called_fake_of_fake"]["reason"] == "fewer than 20"


def test_without_sources_or_categories_there_are_no_tables(measure):
    assert measure(scores(LABELS, LOGITS)).metrics["tables"] == {}


# --- what goes with the numbers --------------------------------------------------------------------------------


def test_predictions_have_a_row_per_image(measure):
    point = OperatingPoint(temperature=2, limits=Limits(-1.5, 1.75))
    found = measure(scores(LABELS, LOGITS, categories=[0, 1, 0, 1, 0, -1], predicted=[0, 0, 0, 1, 0, 1]), point)
    table = found.predictions
    assert list(table) == [
        *("path", "source", "group", "label", "logit", "fake_probability", "verdict"),
        *("category", "predicted_category", "category_probability"),
    ]
    assert list(table["verdict"]) == ["fake", "unsure", "unsure", "unsure", "unsure", "real"]
    assert list(table["category"]) == ["cats", "dogs", "cats", "dogs", "cats", ""]
    assert list(table["predicted_category"]) == ["cats", "cats", "cats", "dogs", "cats", "dogs"]
    np.testing.assert_allclose(table["fake_probability"], 1 / (1 + np.exp(-LOGITS / 2)), rtol=1e-5)


def test_notes_say_what_a_reader_has_to_know(measure):
    fitted = OperatingPoint(fitted={"reals": 3})
    assert measure(scores(np.tile(LABELS, 5), np.tile(LOGITS, 5)), fitted).metrics["notes"] == []
    found = measure(scores(LABELS, LOGITS), split="train", fingerprint="xyz", skipped=2).metrics["notes"]
    assert found == [
        "6 images say little: look at the intervals",
        "the run was trained on these images: the numbers say how much it knows by heart",
        "no operating point was fitted, as validation has images of one label alone: 0.5 is the limit",
        "these are not the records that the run was trained on, or they were changed since",
        "2 damaged records were left out",
    ]
    assert "were chosen on these images" in measure(scores(LABELS, LOGITS), fitted, "validation").metrics["notes"][1]


def test_intervals_are_those_of_groups(measure):
    labels, logits = np.tile(LABELS, 40), np.random.default_rng(0).normal(size=240)
    alone = measure(scores(labels, logits)).metrics
    assert alone["groups"] == 240
    pairs = measure(scores(np.repeat(labels, 4), np.repeat(logits, 4), groups=np.repeat(np.arange(240), 4))).metrics
    assert pairs["groups"] == 240
    assert pairs["authenticity"]["auc"] == pytest.approx(alone["authenticity"]["auc"])


def test_a_source_alone_is_told_from_all_of_the_other_label(measure):
    found = scores([0, 0, 1, 1, 1], [-1, 1, 2, 0.5, -2], sources=["a", "b", "gan", "gan", "flux"])
    gan = scoring.held_out(found, "gan")
    assert gan.sources.tolist() == ["a", "b", "gan", "gan"]
    assert scoring.held_out(found, "a").sources.tolist() == ["a", "gan", "gan", "flux"]
    with pytest.raises(DataError, match="no image comes from the source gann; the sources are a, b, flux, gan"):
        scoring.held_out(found, "gann")


def test_it_is_told_from_images_of_its_own_categories(measure):
    """Against cats, which no fake shows, a fake dog would be found by its subject."""
    sources = ["camera", "camera", "camera", "gan", "gan", "flux"]
    found = scores(
        [0, 0, 0, 1, 1, 1], np.zeros(6), sources=sources, categories=[0, 1, -1, 1, 1, 0], predicted=[0] * 6
    )
    assert scoring.held_out(found, "gan").paths.tolist() == ["1.jpg", "3.jpg", "4.jpg"]
    assert scoring.held_out(found, "flux").paths.tolist() == ["0.jpg", "5.jpg"]
    assert scoring.held_out(found, "camera").paths.tolist() == [f"{n}.jpg" for n in range(6)]


def test_a_part_of_one_label_is_ranked_against_the_other_label_of_its_categories(measure):
    """All cats score higher than all dogs, and among cats, as among dogs, fakes higher than reals."""
    labels, categories = np.tile([0, 1, 0, 1], 20), np.tile([0, 0, 1, 1], 20)
    sources = np.array(["cat camera", "gan", "dog camera", "flux"])[np.tile(np.arange(4), 20)]
    logits = labels + 10 * (categories == 0)
    tables = measure(scores(labels, logits, sources=sources, categories=categories, predicted=categories)).metrics
    by_source = {row["source"]: row["auc"]["value"] for row in tables["tables"]["source"]}
    assert by_source == {"cat camera": 1, "gan": 1, "dog camera": 1, "flux": 1}


# --- a run -----------------------------------------------------------------------------------------------------


def test_a_run_is_measured_on_each_split(run, records):
    scores = scoring.score(run, records, ["train", "validation"])
    assert {split: len(found.labels) for split, found in scores.items()} == {"train": 24, "validation": 12}
    report = results.report(run, records, "validation", scores["validation"])
    assert report.metrics["records"] == report.metrics["trained_on_records"] == records.fingerprint
    assert report.metrics["recipe"]["backbone"] == "tiny"
    assert {"ddkeras", "keras", "tensorflow"} <= set(report.metrics["versions"])
    in_path = report.predictions["path"].str.split("/").str[-2]
    assert (report.predictions["category"] == in_path).all()


def test_the_operating_point_is_fitted_on_validation_and_stays_with_the_run(run, records, tmp_path):
    from ddkeras.runs.run import copied, open_run  # noqa: PLC0415

    copy = copied(run, tmp_path)
    found = scoring.score(copy, records, ["validation"])["validation"]
    fitted = scoring.calibrate(copy, found, false_alarms=0.2, misses=0.1)
    assert fitted.point.fitted == {"false_alarms": 0.2, "misses": 0.1, "reals": 6, "fakes": 6}
    opened = open_run(copy.folder)
    assert opened.point == fitted.point
    numbers = results.report(opened, records, "validation", found).metrics
    assert numbers["authenticity"]["at_operating_point"]["false_positive_rate"]["value"] <= 0.2
    without = replace(copy, recipe=replace(copy.recipe, hold_out="gan"))
    sources = np.full(12, "known", dtype=object)
    sources[np.flatnonzero(found.labels == 1)[:2]] = "gan"
    assert scoring.calibrate(without, replace(found, sources=sources)).point.fitted["fakes"] == 4
    one_label = replace(found, labels=np.zeros(12, int))
    assert scoring.calibrate(copy, one_label) is copy


def test_records_of_other_classes_are_refused(run, records):
    with pytest.raises(DataError, match=r"has the classes cats, but the run .* was trained on animals, vehicles"):
        scoring.score(run, replace(records, categories=["cats"]), ["validation"])


def test_an_unlabelled_split_is_refused(run, records):
    with pytest.raises(DataError, match="has no labelled split test; it has train, validation"):
        scoring.score(run, records, ["test"])


def test_a_score_that_is_no_number_is_refused(run, records, tmp_path):
    import keras  # noqa: PLC0415

    from ddkeras.runs.run import copied  # noqa: PLC0415

    copy = copied(run, tmp_path)
    model = keras.saving.load_model(copy.model_path, compile=False)
    model.set_weights([np.full_like(values, np.nan) for values in model.get_weights()])
    model.save(copy.model_path)
    with pytest.raises(DataError, match=r"gives 12 of 12 images a score that is no number, the first of them"):
        scoring.score(copy, records, ["validation"])
