"""The view that a training chooses where its recipe leaves it open."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ddkeras.config import Recipe
from ddkeras.training.view import resolve_view
from pipelines.datasets.layouts import read_layout
from pipelines.records.conversion import write_records
from pipelines.records.store import open_records

AUTO = Recipe(backbone="small-cnn", image_size=32)


def records_of(folder, sides: list[int]):
    """Records whose training images have these shorter sides."""
    draws = np.random.default_rng(0)
    for label in ("real", "fake"):
        for split, number in (("train", len(sides)), ("validation", 1)):
            (folder / "data" / split / label).mkdir(parents=True)
            for index, side in enumerate(sides[:number]):
                pixels = draws.integers(0, 256, (side, side + 40, 3), np.uint8)
                Image.fromarray(pixels).save(folder / "data" / split / label / f"{index}.png")
    write_records(read_layout(folder / "data"), folder / "records")
    return open_records(folder / "records")


@pytest.fixture
def said(caplog):
    """What was said of the view, so far."""
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records if record.name == resolve_view.__module__]


def test_windows_are_chosen_where_the_median_image_is_twice_the_size_of_the_input(tmp_path, said):
    records = records_of(tmp_path, [40, 64, 300])
    assert resolve_view(AUTO, records).view == "windows"
    (line,) = said()
    assert line == (
        "view windows: half of the training images are at least 64 pixels wide and high, twice the 32 of the network "
        "or more, so that squash would blur them; --view squash resizes them all the same"
    )
    assert resolve_view(replace(AUTO, image_size=33), records).view == "squash"
    assert len(said()) == 1, "squash, as always, needs no words"


@pytest.mark.parametrize("view", ["squash", "windows"])
def test_a_view_that_is_given_stays(tmp_path, said, view):
    recipe = replace(AUTO, view=view)
    assert resolve_view(recipe, records_of(tmp_path, [40, 64, 300])) == recipe
    assert not said()


def test_images_equalised_by_resizing_are_squashed_and_windows_of_them_get_a_warning(tmp_path, said):
    records = replace(records_of(tmp_path, [40, 64, 300]), equalised="resize")
    assert resolve_view(AUTO, records).view == "squash"
    assert not said()
    assert resolve_view(replace(AUTO, view="windows"), records).view == "windows"
    (line,) = said()
    assert "was equalised by resizing" in line
    assert "--equalise crop" in line
