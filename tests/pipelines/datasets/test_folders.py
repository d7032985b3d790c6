"""What the folders of the layouts in use say, from paths alone."""

from pathlib import Path

import pytest

from pipelines.datasets.folders import read_folders
from pipelines.datasets.names import LabelNames
from pipelines.exceptions import DataError


def read(*folders, kind=None, names="0001.png 0002.png"):
    """(split, label, category, source, group) by folder of two numbered images each."""
    paths = [f"{folder}/{name}" for folder in folders for name in names.split()]
    layout = read_folders(Path("data"), paths, LabelNames(), kind)
    found = {
        path.rstrip("/"): (m.split, m.label, m.category, m.source, m.group) for path, m in layout.meanings.items()
    }
    return found, layout.notes


LAYOUTS = {
    "ForenSynths, train": {
        "train/airplane/0_real": ("train", 0, "airplane", "", ""),
        "train/airplane/1_fake": ("train", 1, "airplane", "", ""),
        "val/cat/1_fake": ("validation", 1, "cat", "", ""),
    },
    "ForenSynths, test": {
        "progan/airplane/0_real": ("", 0, "airplane", "progan", ""),
        "progan/airplane/1_fake": ("", 1, "airplane", "progan", ""),
        "deepfake/0_real": ("", 0, "deepfake", "", ""),
        "deepfake/1_fake": ("", 1, "deepfake", "", ""),
    },
    "GenImage": {
        "sdv4/train/nature": ("train", 0, "", "sdv4", ""),
        "sdv4/train/ai": ("train", 1, "", "sdv4", ""),
        "adm/val/nature": ("validation", 0, "", "adm", ""),
        "adm/val/ai": ("validation", 1, "", "adm", ""),
    },
    "FaceForensics++": {
        "original_sequences/youtube/c23/frames/000": ("", 0, "", "youtube", "000"),
        "manipulated_sequences/Deepfakes/c23/frames/000_003": ("", 1, "", "Deepfakes", "000_003"),
        "manipulated_sequences/FaceSwap/c23/frames/000_003": ("", 1, "", "FaceSwap", "000_003"),
    },
    "Celeb-DF": {
        "Celeb-real/id0_0000": ("", 0, "", "", "id0_0000"),
        "YouTube-real/00000": ("", 0, "", "", "00000"),
        "Celeb-synthesis/id0_id1_0000": ("", 1, "", "", "id0_id1_0000"),
    },
    "real and fake face": {
        "faces/training_real": ("", 0, "", "", ""),
        "faces/training_fake": ("", 1, "", "", ""),
    },
    "CASIA": {"Au": ("", 0, "", "", ""), "Tp": ("", 1, "", "", "")},
    "authentic and generated": {
        "test/authentic": ("test", 0, "", "", ""),
        "test/ai_generated": ("test", 1, "", "", ""),
        "train/authentic": ("train", 0, "", "", ""),
        "train/ai_generated": ("train", 1, "", "", ""),
    },
    "sources": {
        "real/ffhq": ("", 0, "", "ffhq", ""),
        "real/coco": ("", 0, "", "coco", ""),
        "fake/sdxl": ("", 1, "", "sdxl", ""),
    },
    "sources of the fakes alone": {
        "real": ("", 0, "", "", ""),
        "fake/sdxl": ("", 1, "", "sdxl", ""),
        "fake/flux": ("", 1, "", "flux", ""),
        "test/fake/midjourney": ("test", 1, "", "midjourney", ""),
    },
    "sources, each with classes": {
        "real/coco/cats": ("", 0, "cats", "coco", ""),
        "fake/sdxl/cats": ("", 1, "cats", "sdxl", ""),
    },
    "sources, in numbered folders": {
        "real/ffhq/00000": ("", 0, "", "ffhq", ""),
        "fake/stylegan/00000": ("", 1, "", "stylegan", ""),
    },
    "classes, each with sources": {
        "real/cats/coco": ("", 0, "cats", "coco", ""),
        "fake/cats/sdxl": ("", 1, "cats", "sdxl", ""),
    },
    "classes, each with videos": {
        "train/real/indoors/video_1": ("train", 0, "indoors", "", "train/video_1"),
        "train/fake/indoors/video_1": ("train", 1, "indoors", "", "train/video_1"),
    },
    "splits below the labels": {
        "real/train": ("train", 0, "", "", ""),
        "fake/train": ("train", 1, "", "", ""),
        "fake/test": ("test", 1, "", "", ""),
    },
    "a folder around everything, and an unlabelled test folder": {
        "set/real": ("", 0, "", "", ""),
        "set/fake": ("", 1, "", "", ""),
        "set/test/unknown": ("test", -1, "", "", ""),
    },
    "nature as a class": {
        "real/nature": ("", 0, "nature", "", ""),
        "fake/nature": ("", 1, "nature", "", ""),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_the_field_are_read(layout):
    expected = LAYOUTS[layout]
    assert read(*expected)[0] == expected


MANY_VIDEOS = [
    f"{label}/{name}"
    for label in ("real", "fake")
    for name in (f"{label[0]}{'abcdefghijklmnopqrstuvwxyz'[n:]}" for n in range(21))
]


@pytest.mark.parametrize(
    ("folders", "names", "are_videos"),
    [
        (["real/000", "fake/000_001"], "1.png 2.png", True),
        (["real/a", "fake/b"], "frame_1.png frame_2.png", True),
        (["real/clip1", "fake/clip1"], "1.png 2.png", True),
        (MANY_VIDEOS, "1.png 2.png", True),
        (MANY_VIDEOS, "a.png b.png", False),
        (["real/000", "fake/000_001"], "cat.png dog.png", False),
        (["real/sd15", "fake/sd21"], "1.png 2.png", False),
        (["real/1", "fake/1"], "1.png 2.png", False),  # digits as classes
    ],
)
def test_folders_are_videos_if_files_are_numbered_and_names_are_as_of_videos(folders, names, are_videos):
    groups = {group for *_, group in read(*folders, names=names)[0].values()}
    assert (groups != {""}) == are_videos


def test_what_was_decided_is_told_in_one_line():
    assert read("real/cats", "fake/cats")[1] == []
    assert read("real/ffhq", "real/coco", "fake/sdxl", "fake/flux")[1] == [
        "the folders below real and fake are taken for sources, as none occurs under both: coco, ffhq, flux and "
        "others under one alone; --folders class says otherwise"
    ]
    assert read("real/cats", "fake/cats", "fake/dogs")[1] == [
        "the folders below real and fake are taken for classes, as most occur under both: dogs under one alone; "
        "--folders source says otherwise"
    ]
    assert read("real", "fake/sdxl")[1] == [
        "the folders below real and fake are taken for sources, as none occurs under both: sdxl under one alone; "
        "--folders class says otherwise"
    ]
    assert read("real/000", "fake/000_001")[1] == [
        "2 folders such as 000 and 000_001 taken for frames of a video, which stay in one split; "
        "--folders class or --folders source says otherwise"
    ]


def test_several_folders_named_for_a_label_are_sources_as_in_diffusion_forensics():
    folders = ("real", "adm", "ddpm")
    paths = [f"images/{split}/lsun_bedroom/{name}/img1.png" for split in ("train", "test") for name in folders]
    meanings = read_folders(Path("data"), paths, LabelNames(fake=["ADM", "ddpm", "fake"])).meanings
    assert {path: (of.split, of.label, of.category, of.source) for path, of in meanings.items()} == {
        "images/train/lsun_bedroom/real/": ("train", 0, "lsun_bedroom", ""),
        "images/train/lsun_bedroom/adm/": ("train", 1, "lsun_bedroom", "adm"),
        "images/train/lsun_bedroom/ddpm/": ("train", 1, "lsun_bedroom", "ddpm"),
        "images/test/lsun_bedroom/real/": ("test", 0, "lsun_bedroom", ""),
        "images/test/lsun_bedroom/adm/": ("test", 1, "lsun_bedroom", "adm"),
        "images/test/lsun_bedroom/ddpm/": ("test", 1, "lsun_bedroom", "ddpm"),
    }


def test_one_folder_named_for_a_label_and_usual_names_are_no_sources():
    paths = ["real/a.png", "fake/a.png", "sdxl/a.png"]
    for names, expected in ((["sdxl"], ["", ""]), (["fake", "sdxl"], ["", "", "sdxl"])):
        meanings = read_folders(Path("data"), paths, LabelNames(fake=names)).meanings
        assert [meaning.source for meaning in meanings.values()] == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("class", [("", 0, "ann", "", ""), ("", 1, "ann", "", "")]),
        ("source", [("", 0, "", "ann", ""), ("", 1, "", "ann", "")]),
        ("group", [("", 0, "", "", "ann"), ("", 1, "", "", "ann")]),
    ],
)
@pytest.mark.parametrize("folders", [("real/ann", "fake/ann"), ("ann/real", "bob/fake")])
def test_the_kind_of_folder_can_be_given(folders, kind, expected):
    found, notes = read(*folders, kind=kind)
    if folders[0] == "ann/real":
        expected = [expected[0], tuple("bob" if value == "ann" else value for value in expected[1])]
    assert list(found.values()) == expected
    assert notes == []


def test_a_folder_of_labels_beside_splits_is_never_left_out():
    message = r"holdout/ has folders of real or fake images, but names no split, as train/ beside it does; rename it"
    with pytest.raises(DataError, match=message):
        read("train/real", "train/fake", "holdout/real", "holdout/fake")
    found, _ = read("car/0_real", "car/1_fake", "train/0_real", "train/1_fake", kind="class")
    assert found["train/0_real"] == ("", 0, "train", "", "")


def test_a_split_without_labels_is_named():
    with pytest.raises(DataError, match=r"data/train has no real/ and fake/ folders; it has cats/, dogs/: name"):
        read("train/cats", "train/dogs", "val/real", "val/fake")


def test_a_name_cannot_be_of_both_labels():
    with pytest.raises(DataError, match="photos is given both as real and as fake; leave one out"):
        LabelNames(["Photos"], ["photos"])


def test_given_names_decide_what_numbers_in_a_table_mean():
    names = LabelNames(real=["1"], fake=["0"])
    assert [names.of_value(text) for text in ("1", "1.0", "0", "0.0", "real", "2")] == [0, 0, 1, 1, 0, None]
    assert [LabelNames().of_value(text) for text in ("1", "1.0", "0", "0.0", "Fake", "2.0")] == [1, 1, 0, 0, 1, None]
    assert LabelNames(fake=["2"]).of_value("2.0") == 1
