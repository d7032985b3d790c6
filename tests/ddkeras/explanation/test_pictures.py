"""Windows of a picture and the heatmaps that are laid over it, by hand, and those of a run with that view."""

from typing import get_args

import numpy as np
import pytest
from PIL import Image

from ddkeras.api import ExplanationMethod
from ddkeras.explanation import overlays
from ddkeras.explanation.explainer import ExplainedFile, explain_files, load_explainer
from ddkeras.explanation.pictures import MAX_SIDE, Picture, load_picture
from ddkeras.inference.prediction import predict
from ddkeras.inference.scorers import scorer_for_run
from pipelines.views import Squash, Windows


def stitched(heatmaps, height: int, width: int, corners: list[tuple[float, float]], side: float = 2, is_used=True):
    """Heatmaps of 2 x 2 pixels over a picture of that size, where they have that side."""
    boxes = np.array([(*corner, side, side) for corner in corners], float)
    picture = Picture(np.zeros((height, width, 3), np.uint8), np.zeros((len(corners), 2, 2, 3), np.uint8), boxes)
    return picture.stitch(heatmaps, np.broadcast_to(is_used, len(corners)))


def test_heatmaps_lie_where_their_squares_are_and_are_averaged_where_they_overlap():
    heatmaps = np.array([[[1, 2], [3, 4]], [[6, 0], [5, 9]]], np.float32)
    nan = np.nan
    expected = [[1, 4, 0, nan], [3, 4.5, 9, nan], [nan] * 4]
    np.testing.assert_array_equal(stitched(heatmaps, 3, 4, [(0, 0), (0, 1)]), expected)
    first = stitched(heatmaps, 2, 4, [(0, 0), (0, 1)], is_used=[True, False])
    np.testing.assert_array_equal(first, [[1, 2, nan, nan], [3, 4, nan, nan]])


def test_the_part_of_a_square_beyond_the_edge_is_left_out():
    heatmaps = np.array([[[1, 7], [3, 8]]], np.float32)
    np.testing.assert_array_equal(stitched(heatmaps, 2, 1, [(0, 0)]), [[1], [3]])


def test_on_a_reduced_picture_heatmaps_are_reduced_to_their_mean():
    heatmaps = np.array([[[1, 2], [3, 4]], [[6, 0], [5, 9]]], np.float32)
    np.testing.assert_array_equal(stitched(heatmaps, 1, 2, [(0, 0), (0, 1)], 1), [[2.5, 5]])
    # A square smaller than a pixel still has one; its right half lies beyond the edge.
    np.testing.assert_array_equal(stitched(heatmaps[:1], 1, 2, [(0, 1.9)], 0.2), [[np.nan, 2]])


def test_a_large_picture_is_reduced_at_its_own_aspect_and_its_windows_are_not(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (500, 2 * MAX_SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    picture = load_picture(tmp_path / "wide.png", Windows(64, 6))
    assert picture.whole.shape == (250, MAX_SIDE, 3)
    assert picture.squares.shape == (6, 64, 64, 3)
    assert (picture.boxes[:, 2:] == 32).all()
    for square, (top, left) in zip(picture.squares, (2 * picture.boxes[:, :2]).astype(int), strict=True):
        np.testing.assert_array_equal(square, pixels[top : top + 64, left : left + 64])


def test_squash_is_a_picture_of_one_square(tmp_path):
    Image.fromarray(np.full((50, 90, 3), 7, np.uint8)).save(tmp_path / "plain.png")
    picture = load_picture(tmp_path / "plain.png", Squash(32))
    assert picture.whole.shape == (32, 32, 3)
    np.testing.assert_array_equal(picture.whole, picture.squares[0])


def test_the_whole_image_lies_over_the_whole_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    picture = load_picture(tmp_path / "wide.png", Windows(32, 2, whole=True))
    assert picture.boxes[0].tolist() == [0, 0, 40, 90]
    np.testing.assert_array_equal(picture.squares[0], load_picture(tmp_path / "wide.png", Squash(32)).squares[0])
    np.testing.assert_array_equal(picture.squares[1:], load_picture(tmp_path / "wide.png", Windows(32, 2)).squares)


@pytest.mark.parametrize("method", get_args(ExplanationMethod))
@pytest.mark.parametrize("head", ["authenticity", "category"])
def test_windows_are_explained_over_the_whole_picture_with_the_scores_of_predict(
    windows_run, data, tmp_path, method, head
):
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 130, 3), np.uint8)).save(tmp_path / "wide.png")
    paths = [tmp_path / "wide.png", *sorted((data / "validation/real/animals").iterdir())]
    explained = list(explain_files(load_explainer(windows_run), paths, method, head=head))
    for each, expected in zip(explained, predict(scorer_for_run(windows_run), paths), strict=True):
        found = each.explanation
        assert found.fake_probability == pytest.approx(expected.fake_probability, abs=1e-5)
        assert (found.verdict, found.category) == (expected.verdict, expected.category)
    wide = explained[0].explanation
    assert wide.image.shape == (40, 130, 3)
    assert wide.heatmap.shape == (40, 130)
    # Four windows of 32 pixels do not cover it; the category head sees the whole.
    assert np.isnan(wide.heatmap).any() == (head == "authenticity")
    assert np.nanmax(wide.heatmap) in (0, 1)
    drawn = overlays.draw(ExplainedFile("wide.png", wide), 130)
    assert drawn.shape[:2] == overlays.draw(ExplainedFile("b.png", error="empty"), 130).shape[:2]
