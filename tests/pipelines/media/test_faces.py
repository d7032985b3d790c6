"""Faces found by the real YuNet, in a photograph that Matplotlib ships and in reference images."""

import os

import numpy as np
import onnx
import pytest
from PIL import Image
from tiny import encode, portrait

from pipelines.exceptions import DataError
from pipelines.media import faces
from pipelines.media.faces import FaceFinder


@pytest.mark.parametrize("height", [150, 300, 600, 1200, 2400])
def test_a_face_is_found_at_any_size(finder, height):
    frame = portrait(height)
    (face,) = finder.faces(frame)
    assert (face.left / height, face.top / height, face.side / height) == pytest.approx(
        (0.21, 0.145, 0.465), abs=0.03
    )
    assert face.image.shape == (face.side, face.side, 3)
    assert face.image.dtype == np.uint8
    np.testing.assert_array_equal(
        face.image, frame[face.top : face.top + face.side, face.left : face.left + face.side]
    )


def test_faces_are_returned_from_left_to_right(finder):
    frame = np.zeros((720, 1280, 3), np.uint8)
    large, middle = portrait(500), portrait(300)
    frame[100:600, 800 : 800 + large.shape[1]] = large
    frame[50:350, 100 : 100 + middle.shape[1]] = middle
    first, second = finder.faces(frame)
    assert 100 <= first.left < first.left + first.side <= 100 + 256
    assert 800 <= second.left < second.left + second.side <= 800 + 427
    assert first.side == pytest.approx(0.465 * 300, abs=9)
    assert second.side == pytest.approx(0.465 * 500, abs=15)


def test_every_face_of_a_crowd_is_found(finder):
    assert len(finder.faces(np.tile(portrait(144), (5, 10, 1)))) == 50


def test_a_face_that_is_too_small_is_skipped(finder, monkeypatch):
    frame = np.zeros((240, 320, 3), np.uint8)
    small = portrait(90)
    frame[20:110, 20 : 20 + small.shape[1]] = small
    assert finder.faces(frame) == []
    monkeypatch.setattr(faces, "_MIN_SIDE", 40)
    (face,) = finder.faces(frame)
    assert 40 <= face.side < 48


def test_a_face_that_fills_the_frame_is_found(finder):
    frame = portrait(2400)[500:1500, 700:1500]
    (face,) = finder.faces(frame)
    assert face[:3] == (0, pytest.approx(100, abs=100), 800)


def test_a_square_stays_within_the_frame(finder):
    frame = portrait(600)[140:340, 160:380]  # forehead to mouth
    (face,) = finder.faces(frame)
    assert face.side == 200, "the height"
    assert 0 <= face.left <= 20
    assert face.top == 0


@pytest.mark.parametrize("shape", [(720, 1280), (48, 48), (47, 640), (1, 1), (2000, 60), (3, 640)])
def test_no_face_is_found_where_none_is(finder, shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for frame in (noise, np.zeros((*shape, 3), np.uint8)):
        assert finder.faces(frame) == []


def test_most_faces_in_photographs_are_found_at_the_sizes_of_videos(finder, reference):
    """Over a quarter and a half of the height of a frame, and filling it."""
    paths = sorted((reference / "duel-mini/validation/real/human_faces").iterdir())[:40]
    found = {180: 0, 360: 0, 720: 0}
    for path in paths:
        with Image.open(path) as image:
            for side in found:
                frame = np.full((720, 1280, 3), 128, np.uint8)
                frame[-side:, 300 : 300 + side] = np.asarray(image.convert("RGB").resize((side, side)))
                found[side] += len(finder.faces(frame)) == 1
    assert min(found.values()) >= 0.85 * len(paths), found


def test_a_file_that_is_not_a_yunet_model_is_refused(yunet, tmp_path):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 320, 320])
    answer = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, 320, 320])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    other = onnx.helper.make_model(onnx.helper.make_graph([node], "other", [value], [answer]))
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:8f2383e4\nsize 232589\n"
    for content in (b"", pointer, encode(), yunet.read_bytes()[:-9], other.SerializeToString()):
        (tmp_path / "a.onnx").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.onnx is not a YuNet model that OpenCV \d.* can run; see docs/"):
            FaceFinder(tmp_path / "a.onnx")
    os.mkfifo(tmp_path / "pipe")  # reading it would block
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 2**40)
    for name, why in (
        ("none", "No such file or directory"),
        ("", "Is a directory"),
        ("pipe", "not a file"),
        ("large", "more than 512 MiB"),
    ):
        with pytest.raises(DataError, match=f"cannot be read: {why}; give the ONNX file of YuNet"):
            FaceFinder(tmp_path / name)


def test_without_opencv_one_line_says_how_to_install_it(yunet, monkeypatch):
    monkeypatch.setattr(faces, "cv2", None)
    with pytest.raises(DataError, match=r'needs OpenCV; install it with: pip install "ddkeras\[faces\]"'):
        FaceFinder(yunet)
