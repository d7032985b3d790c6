"""Which view of the images suits the data, and whether scaling them tells fake from real."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from pipelines.audit.views import compare_views, format_shrinking, suitable_view


def compared(real: list[int], fake: list[int], *, image_size: int = 224, split: str = "train", **options) -> dict:
    """Of training images with these shorter sides, every one of them sampled and twice as wide as high."""
    sides = [(label, side) for label, of_label in enumerate((real, fake)) for side in of_label]
    rows = [{"split": split, "label": label, "height": side, "width": 2 * side} for label, side in sides]
    return compare_views(Counter(sides), pd.DataFrame(rows), image_size, **options)


@pytest.mark.parametrize(
    ("median_side", "image_size", "view"),
    [(448, 224, "windows"), (447.5, 224, "squash"), (4000, 2048, "squash"), (200, 96, "windows")],
)
def test_windows_suit_from_twice_the_image_size_on(median_side, image_size, view):
    assert suitable_view(median_side, image_size) == view


def test_each_label_has_quartiles_and_the_share_that_is_enlarged():
    views = compared([112, 224, 448, 896], [1120] * 3)
    assert (views["image_size"], views["images"], views["median_side"]) == (224, 7, 896)
    assert views["labels"] == {
        "real": {"images": 4, "lower_quartile": 0.875, "median": 1.5, "upper_quartile": 2.5, "enlarged": 0.25},
        "fake": {"images": 3, "lower_quartile": 5.0, "median": 5.0, "upper_quartile": 5.0, "enlarged": 0.0},
    }
    assert format_shrinking(views) == (
        "real images 1.5 times smaller (quartiles 0.9 and 2.5) and "
        "fake images 5.0 times smaller (quartiles 5.0 and 5.0)"
    )


def test_enlarging_is_told_by_how_much():
    views = compared([56, 56, 112, 112, 112], [32] * 3)
    assert format_shrinking(views) == (
        "real images 2.0 times larger (quartiles 2.0 and 4.0) and "
        "fake images 7.0 times larger (quartiles 7.0 and 7.0)"
    )


def test_the_suggestion_has_a_reason():
    assert compared([4000] * 2, [1024])["reason"] == (
        "half of the training images have at least 4,000 pixels on their shorter side, 17.9 times the image size of "
        "224, and squash would leave at most 0.3% of their pixels"
    )
    views = compared([447, 447], [448, 448])
    assert (views["median_side"], views["suggestion"]) == (447.5, "squash")
    assert views["reason"] == (
        "half of the training images have at most 447 pixels on their shorter side, less than twice the image size "
        "of 224, from where on windows are suggested"
    )
    assert compared([448], [448])["reason"].endswith(
        "2.0 times the image size of 224, and squash would leave at most 25.0% of their pixels"
    )
    assert compared([447, 447], [448, 448], image_size=192)["suggestion"] == "windows"


def test_the_histogram_goes_from_one_power_of_two_to_another():
    histogram = compared([224, 448, 448], [896])["histogram"]
    assert len(histogram["edges"]) == 4 * 4 + 1, "bins of a quarter of an octave"
    assert histogram["edges"][::4] == [0.5, 1, 2, 4, 8]
    assert histogram["real"] == [*[0] * 4, 1, 0, 0, 0, 2, *[0] * 7], "224 and 448 pixels begin a bin"
    assert histogram["fake"] == [*[0] * 12, 1, 0, 0, 0]


def test_the_first_and_last_bins_of_the_histogram_include_outliers():
    histogram = compared([1, *[300] * 500], [100_000, *[300] * 500])["histogram"]
    assert (histogram["edges"][0], histogram["edges"][-1]) == (0.5, 2)
    assert (histogram["real"][0], sum(histogram["real"])) == (1, 501)
    assert (histogram["fake"][-1], sum(histogram["fake"])) == (1, 501)


def test_many_octaves_have_wide_bins():
    assert len(compared([32] * 9, [60_000] * 9)["histogram"]["edges"]) == 12 * 2 + 1


def test_photographs_and_generated_images_of_other_sizes_are_told_apart():
    views = compared([4000] * 30, [1024] * 30)
    assert (views["auc"], views["high"], views["verdict"]) == (1.0, 1.0, "warn")
    assert views["low"] == pytest.approx(30 / (30 + 1.96**2), abs=1e-4), "Wilson's, of 30 images of each label"
    assert compared([1024] * 30, [4000] * 30)["auc"] == 1.0, "whichever of them is larger"


def test_fakes_of_one_size_amid_reals_of_many_are_told_apart():
    views = compared(list(range(500, 1700, 12)), [1100] * 100)
    assert views["auc"] > 0.95
    assert views["labels"]["real"]["median"] == pytest.approx(views["labels"]["fake"]["median"], rel=0.01)


def test_equal_sizes_are_told_apart_by_nothing():
    views = compared([1024] * 40, [1024] * 40)
    assert (views["auc"], views["verdict"]) == (0.5, "ok")


def test_the_threshold_of_the_warning_is_given():
    random = np.random.default_rng(0)
    reals, fakes = (random.integers(low, low + 200, 400).tolist() for low in (300, 350))  # 0.719 at best
    assert 0.6 < compared(reals, fakes)["auc"] < 0.8
    assert compared(reals, fakes)["verdict"] == "warn"
    assert compared(reals, fakes, warn=0.8)["verdict"] == "ok"


def test_the_rarer_label_decides_whether_there_is_an_auc():
    views = compared([4000] * 500, [1024] * 19)
    assert (views["auc"], views["low"], views["high"], views["verdict"]) == (None, None, None, "ok")
    assert compared([4000] * 500, [1024] * 20)["verdict"] == "warn"


def test_images_outside_training_have_no_part_in_the_auc():
    assert compared([4000] * 30, [1024] * 30, split="validation")["auc"] is None


def test_without_training_images_no_view_is_suggested():
    views = compare_views(Counter(), pd.DataFrame(), 224)
    assert views == {
        "image_size": 224,
        "images": 0,
        "median_side": None,
        "labels": {"real": None, "fake": None},
        "histogram": None,
        "auc": None,
        "low": None,
        "high": None,
        "verdict": "ok",
        "suggestion": None,
        "reason": "there are no labelled training images",
    }


def test_the_facts_are_json():
    views = compared([4000] * 30, [1024] * 30)
    assert json.loads(json.dumps(views)) == views
