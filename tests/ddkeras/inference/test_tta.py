"""Test-time augmentation: the mean over views, at the operating point of the scorer."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from tiny import with_each_verdict

from ddkeras.cli.predict import predict as command
from ddkeras.exporting import saved_model
from ddkeras.inference.prediction import predict
from ddkeras.inference.scorers import Scorer, open_scorer, scorer_for_run
from ddkeras.inference.tta import AUGMENTATIONS, augmented_views
from ddkeras.metrics.calibration import VERDICTS, Limits, OperatingPoint
from pipelines.views import Squash

POINT = OperatingPoint(2.0, Limits(-1.0, 1.0), {"b": Limits(-9.0, 9.0)}, {})


def score_left_edge(images: np.ndarray) -> dict[str, np.ndarray]:
    """The logit is the red value of the left edge, from 0 to 4; the category probability its green value."""
    left = images[:, :, 0].astype(np.float32).mean(axis=1) / 255
    categories = np.stack([1 - left[:, 1], left[:, 1]], axis=1)
    logit = 4 * left[:, 0]
    probability = 1 / (1 + np.exp(-logit / POINT.temperature))
    return {
        "logit": logit,
        "fake_probability": probability.astype(np.float32),
        "category_probabilities": categories,
        "verdict": np.zeros(len(images), np.int32),
    }


@pytest.fixture
def scorer():
    return Scorer("edges", Squash(32), 8, ["a", "b"], "digest", score_left_edge, POINT)


def save_halves(path, left, right):
    """Save an image with a left and a right color."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, :16], pixels[:, 16:] = left, right
    Image.fromarray(pixels).save(path)
    return path


def test_probability_and_verdict_follow_from_the_mean_logit(scorer, tmp_path):
    path = save_halves(tmp_path / "a.png", (255, 0, 0), (0, 51, 0))
    (row,) = predict(scorer, [path], views=augmented_views(2))  # logits 4 and 0, category b 0 and 0.2
    assert row.fake_probability == pytest.approx(0.7310586, abs=1e-6)  # sigmoid(2 / 2), not the mean 0.6904
    assert row.verdict == "fake"
    assert row.category_probabilities == pytest.approx({"a": 0.9, "b": 0.1})
    assert row.spread == pytest.approx((0.8807971 - 0.5) / 2, abs=1e-6)
    assert row.score_shift is None


def test_the_thresholds_are_those_of_the_category_with_the_highest_mean_probability(scorer, tmp_path):
    path = save_halves(tmp_path / "a.png", (255, 255, 0), (255, 51, 0))  # b with probability 0.6
    (row,) = predict(scorer, [path], views=augmented_views(2))
    assert (row.category, row.verdict) == ("b", "unsure")


def test_views_have_a_fixed_order_and_content():
    image = Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20))
    parts = {name: np.asarray(augment(image)) for name, augment in list(AUGMENTATIONS.items())[:6]}
    whole = np.asarray(image)
    expected = {
        "mirrored": whole[:, ::-1],
        "the middle 90%": whole[:9, 1:19],
        "90%, upper left": whole[:9, :18],
        "90%, lower right": whole[1:, 2:],
        "90%, upper right": whole[:9, 2:],
        "90%, lower left": whole[1:, :18],
    }
    assert list(parts) == list(expected)
    for name, part in expected.items():
        np.testing.assert_array_equal(parts[name], part, name)
    assert list(AUGMENTATIONS)[6:] == ["JPEG 95", "JPEG 90", "WebP 90"]
    assert [augmented_views(number).count for number in (2, 10)] == [2, 10]
    assert [augment(Image.new("RGB", (1, 1))).size for augment in AUGMENTATIONS.values()] == [(1, 1)] * 9


@pytest.mark.parametrize("test_augment", ["none", "flip"])
def test_a_run_is_scored_at_the_mean_logit_of_its_views(run, records, data, tmp_path, test_augment):
    varied = with_each_verdict(run, records, tmp_path / "runs")
    varied = dataclasses.replace(varied, recipe=dataclasses.replace(varied.recipe, test_augment=test_augment))
    scorer = scorer_for_run(varied)
    paths = sorted(data.rglob("*.jpg"))[:12]
    rows = list(predict(scorer, paths, views=augmented_views(10)))
    for row, path in zip(rows, paths, strict=True):
        with Image.open(path) as image:
            small = image.convert("RGB").resize((32, 32))  # the network's size, so that nothing is resized
        small.save(tmp_path / "a.png")
        views = np.stack([np.asarray(small), np.asarray(small)[:, ::-1]])
        logit = scorer.score(views)["logit"].astype(np.float64).mean()
        (two,) = predict(scorer, [tmp_path / "a.png"], views=augmented_views(2))
        assert two.fake_probability == pytest.approx(1 / (1 + np.exp(-logit / 1.7)), abs=1e-6)
        if test_augment == "flip":
            assert two.spread == pytest.approx(0, abs=1e-6), "a view and its mirror image are the same to it"
        assert row.verdict in VERDICTS
        assert row.spread > 0


def test_an_export_has_the_operating_point_of_its_run(run, records, data, tmp_path):
    varied = with_each_verdict(run, records, tmp_path / "runs")
    scorer = open_scorer(saved_model.export_saved_model(varied, tmp_path / "exports"))
    assert scorer.point == varied.point
    paths = sorted(data.rglob("*.jpg"))[:12]
    rows = list(predict(scorer, paths, views=augmented_views(4)))
    expected = list(predict(scorer_for_run(varied), paths, views=augmented_views(4)))
    assert [row.verdict for row in rows] == [row.verdict for row in expected]
    assert [row.fake_probability for row in rows] == pytest.approx([row.fake_probability for row in expected])
    assert len({row.verdict for row in rows}) > 1


def test_the_command_accepts_as_many_views_as_there_are():
    (option,) = (option for option in command.params if option.name == "test_augment")
    assert (option.type.min, option.type.max) == (2, 1 + len(AUGMENTATIONS))
