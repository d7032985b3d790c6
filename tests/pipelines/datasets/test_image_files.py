"""Images are found by their content where the suffix does not tell, and whatever else is in a folder is counted."""

import logging
import os

import pytest
from tiny import encode, plant

from pipelines.datasets.image_files import IMAGE_SUFFIXES, is_image
from pipelines.datasets.layouts import find_image_names, read_layout
from pipelines.exceptions import DataError
from pipelines.media import pillow

IMAGES = ["photo", "a.jpg_large", "a.jpg?format=jpg&name=large", "a.jfif", "a.PJPEG", "version 1.5", "a.txt"]


@pytest.mark.parametrize("name", IMAGES)
def test_images_are_found_whatever_their_suffix(tmp_path, name):
    (tmp_path / name).write_bytes(encode())
    assert find_image_names([tmp_path]) == [f"{tmp_path}/{name}"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_every_format_is_known_by_its_content(tmp_path, form):
    pillow.load_plugins()
    (tmp_path / "image").write_bytes(encode(form))
    assert is_image(tmp_path, "image")


@pytest.mark.parametrize("brand", ["heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs", "mif1", "msf1"])
def test_every_brand_of_heic_is_known(tmp_path, brand):
    (tmp_path / "image").write_bytes(b"\0\0\0\x18ftyp" + brand.encode() + bytes(12))
    assert is_image(tmp_path, "image")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes", b""),
        ("notes.txt", b"BM is how a bitmap begins"),
        ("notes.md", b"GIF89a is the later of two versions"),
        ("photo.nef", b"MM\0*\0\0\0\x08"),  # a camera's raw file, whose first image is a thumbnail
        ("sound.wav", b"RIFF\x24\0\0\0WAVEfmt "),
        ("clip.mp4", b"\0\0\0\x18ftypmif1\0\0\0\0"),
    ],
)
def test_other_files_are_no_images(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert not is_image(tmp_path, name)


def test_a_pipe_and_a_link_to_nothing_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    assert not is_image(tmp_path, "pipe")
    assert not is_image(tmp_path, "link")


def test_files_with_a_known_suffix_are_not_opened(tmp_path):
    assert all(is_image(tmp_path, f"not/there{suffix}") for suffix in IMAGE_SUFFIXES)


def test_what_is_not_an_image_is_counted_and_the_first_is_named(tmp_path, caplog):
    plant(tmp_path, {"a": 1})
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "a/clip.mp4").write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        assert find_image_names([tmp_path]) == [f"{tmp_path}/a/000.jpg"]
    assert caplog.messages == [
        f"{tmp_path}: left out files that are not images: 2, such as a/clip.mp4; 1 is a video: ddk predict scores "
        "videos that are named, all else takes extracted frames"
    ]


def test_a_folder_of_images_alone_warns_of_nothing(tmp_path, caplog):
    plant(tmp_path, {"a": 1})
    find_image_names([tmp_path])
    assert caplog.messages == []


@pytest.mark.parametrize("find", [lambda folder: find_image_names([folder]), read_layout])
def test_a_folder_of_videos_says_that_videos_have_to_be_named(tmp_path, find):
    for name in ("real/a.mp4", "fake/b.MOV"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    expected = (
        r"holds no images; it has .*: 2, such as fake/b.MOV; 2 are videos: ddk predict scores videos that are named"
    )
    with pytest.raises(DataError, match=expected):
        find(tmp_path)


def test_a_data_folder_may_hold_images_without_a_suffix(tmp_path):
    for label in ("real", "fake"):
        (tmp_path / label).mkdir()
        for name in IMAGES:
            (tmp_path / label / name).write_bytes(encode())
        (tmp_path / label / "notes.txt").write_text("x")
    layout = read_layout(tmp_path)
    assert {example.path for example in layout.examples} == {
        f"{s}/{name}" for s in ("real", "fake") for name in IMAGES
    }
    assert layout.notes == ["left out files outside the layout or not images: 2, such as fake/notes.txt"]


def test_beside_a_table_other_files_are_counted(tmp_path):
    (tmp_path / "images").mkdir()
    names = ["images/a", "images/b", "images/c", "images/d"]
    for name in [*names, "images/unlisted"]:
        (tmp_path / name).write_bytes(encode())
    (tmp_path / "readme").write_text("x")
    rows = "".join(f"{name},{index % 2}\n" for index, name in enumerate(names))
    (tmp_path / "metadata.csv").write_text("image_path,label\n" + rows)
    layout = read_layout(tmp_path)
    assert {example.path for example in layout.examples} == set(names)
    assert layout.notes == [
        "left out images that metadata.csv does not list: 1, such as images/unlisted",
        "left out files that are not images: 1, such as readme",
    ]
