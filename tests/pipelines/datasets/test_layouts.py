"""Labels, classes, sources and splits of a data folder."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from tiny import encode, plant

from pipelines.datasets import layouts
from pipelines.datasets.layouts import find_image_names, find_images, read_labelled, read_layout
from pipelines.exceptions import DataError


def labels(layout):
    return {example.path: (example.split, example.label, example.category) for example in layout.examples}


def metadata(root, text):
    (root / "metadata.csv").write_text(text)
    return root


def test_split_label_and_class_are_read_from_the_folders(tmp_path):
    plant(tmp_path, {f"{split}/{label}/cats": 1 for split in ("train", "val") for label in ("real", "fake")})
    assert labels(read_layout(tmp_path)) == {
        "train/real/cats/000.jpg": ("train", 0, "cats"),
        "train/fake/cats/000.jpg": ("train", 1, "cats"),
        "val/real/cats/000.jpg": ("validation", 0, "cats"),
        "val/fake/cats/000.jpg": ("validation", 1, "cats"),
    }


def test_names_may_be_in_any_case_and_fake_may_be_deepfake(tmp_path):
    plant(
        tmp_path,
        {"Train/REAL/Cats": 1, "TRAIN/DeepFake/cats": 1, "Validation/real/cats": 1, "validation/Fake/CATS": 1},
    )
    found = labels(read_layout(tmp_path))
    assert sorted(found.values()) == [
        ("train", 0, "cats"),
        ("train", 1, "cats"),
        ("validation", 0, "cats"),
        ("validation", 1, "cats"),
    ]


def test_without_class_folders_there_are_no_categories(tmp_path):
    plant(tmp_path, {f"{split}/{label}": 1 for split in ("train", "validation") for label in ("real", "fake")})
    layout = read_layout(tmp_path)
    assert layout.categories == []
    assert {example.category for example in layout.examples} == {""}


def test_a_folder_below_the_class_is_the_source(tmp_path):
    plant(tmp_path, {f"{s}/{label}/cats/cam1": 1 for s in ("train", "val") for label in ("real", "fake")})
    assert {example.source for example in read_layout(tmp_path).examples} == {"cam1"}


def test_without_splits_a_fifth_is_held_out_by_a_hash_of_the_path(tmp_path):
    plant(tmp_path, {"real": 200, "fake": 200})
    held_out = {e.path for e in read_layout(tmp_path).examples if e.split == "validation"}
    assert 60 <= len(held_out) <= 100  # 80 expected of 400; three standard deviations are 24

    plant(tmp_path, {"real": 220})
    again = {e.path for e in read_layout(tmp_path).examples if e.split == "validation"}
    assert held_out <= again, "adding images moved others to another split"

    other = {e.path for e in read_layout(tmp_path, seed=1).examples if e.split == "validation"}
    assert other != again
    half = Counter(e.split for e in read_layout(tmp_path, val_fraction=0.5).examples)
    assert 180 <= half["validation"] <= 240


def test_without_validation_a_part_of_train_is_held_out_with_a_note(tmp_path):
    plant(tmp_path, {"train/real": 40, "train/fake": 40, "test": 2})
    layout = read_layout(tmp_path)
    assert set(Counter(e.split for e in layout.examples)) == {"train", "validation", "test"}
    assert layout.notes == ["there is no validation folder: 20% of train is held out as validation"]


def test_a_flat_test_folder_is_unlabelled(data):
    test = [example for example in read_layout(data).examples if example.split == "test"]
    assert [example.label for example in test] == [-1, -1, -1]


def test_the_order_depends_on_the_seed_alone(data):
    def order(seed):
        return [example.path for example in read_layout(data, seed=seed).examples]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != sorted(order(0)), "examples of one label would lie together"


def test_files_outside_the_layout_are_noted(tmp_path):
    plant(tmp_path, {"train/real": 1, "train/fake": 1, "val/real": 1, "val/fake": 1, "train/other": 1})
    (tmp_path / "train" / "real" / "notes.txt").write_text("x")
    assert read_layout(tmp_path).notes == [
        "left out 2 files outside the layout or not images, such as train/other/000.jpg"
    ]


def test_linked_folders_are_followed_but_no_cycles(tmp_path):
    plant(tmp_path / "elsewhere", {"": 2})
    root = plant(tmp_path / "data", {"val/real": 1, "val/fake": 1, "train/fake": 1})
    (root / "train" / "real").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "fake" / "loop").symlink_to(root / "train")
    train = [example.path for example in read_layout(root).examples if example.split == "train"]
    assert sorted(train) == ["train/fake/000.jpg", "train/real/000.jpg", "train/real/001.jpg"]


# --- metadata.csv ----------------------------------------------------------------------------------------------

FOUR = {"train": 2, "val": 2}
ROWS = "train/000.jpg,0,cats,cam\ntrain/001.jpg,1,cats,gan\nval/000.jpg,REAL,cats,cam\nval/001.jpg,fake,cats,gan\n"


def test_metadata_gives_label_class_and_source_with_columns_in_any_case(tmp_path):
    root = metadata(plant(tmp_path, FOUR), "Image_Path,LABEL,Class,source\n" + ROWS)
    layout = read_layout(root)
    assert sorted((e.path, e.split, e.label, e.category, e.source) for e in layout.examples) == [
        ("train/000.jpg", "train", 0, "cats", "cam"),
        ("train/001.jpg", "train", 1, "cats", "gan"),
        ("val/000.jpg", "validation", 0, "cats", "cam"),
        ("val/001.jpg", "validation", 1, "cats", "gan"),
    ]


def test_metadata_paths_may_begin_with_the_folders_own_name(tmp_path):
    root = plant(tmp_path / "ArtiFact", FOUR)
    rows = "".join(f"ArtiFact/{row}\n" for row in ROWS.split())
    metadata(root, "image_path,label,class,source\n" + rows)
    assert sorted(labels(read_layout(root))) == ["train/000.jpg", "train/001.jpg", "val/000.jpg", "val/001.jpg"]


def test_a_flat_test_folder_need_not_be_listed_and_other_unlisted_images_are_noted(tmp_path):
    root = metadata(plant(tmp_path, FOUR | {"test": 1, "train/extra": 1}), "image_path,label,class,source\n" + ROWS)
    layout = read_layout(root)
    assert labels(layout)["test/000.jpg"] == ("test", -1, "")
    assert layout.notes == ["left out 1 images that metadata.csv does not list, such as train/extra/000.jpg"]


def test_metadata_without_splits_in_its_paths_is_split_by_hash(tmp_path):
    plant(tmp_path, {"images": 100})
    rows = "".join(f"images/{index:03}.jpg,{index % 2},\n" for index in range(100))
    layout = read_layout(metadata(tmp_path, "image_path,label,class\n" + rows))
    assert 8 <= Counter(example.split for example in layout.examples)["validation"] <= 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_path,class\n", "has no column label"),
        ("label\n", "has no column image_path or class"),
        ("", "has no column image_path or label or class"),
        ("image_path,label,class\ntrain/gone.jpg,0,\n", "1 of 1 files that do not exist, the first train/gone.jpg"),
        ("image_path,label,class\ntrain/000.jpg,maybe,\n", "line 2 has the label 'maybe'; use 0 or real, 1 or fake"),
        ("image_path,label,class\n" + "train/000.jpg,0,\n" * 2, "lists train/000.jpg more than once"),
    ],
)
def test_a_mistake_in_metadata_is_named(tmp_path, text, message):
    metadata(plant(tmp_path, FOUR), text)
    with pytest.raises(DataError, match=message):
        read_layout(tmp_path)


# --- bad folders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "holds no images"),
        ({"train": 0}, "holds no images"),
        ({"cats": 1, "dogs": 1}, "has no real/ and fake/ folders"),
        ({"train/cats": 1, "val/cats": 1}, "has no real/ and fake/ folders"),
        ({"train/real": 1, "val/real": 1}, "there are no fake images"),
        ({"train/real": 1, "train/fake": 1, "val/real": 1}, "the label fake occurs in train only"),
        (
            {"val/real": 1, "val/fake": 1, "test/real": 1, "test/fake": 1},
            "the labels fake and real occur in test and validation only",
        ),
        (
            {"train/real/cats": 1, "train/fake/cats": 1, "val/real/cats": 1, "val/fake/dogs": 1},
            "the class dogs occurs in validation only",
        ),
        ({"test": 2}, "there are no real and no fake images"),
    ],
)
def test_a_folder_that_is_useless_for_training_is_refused(tmp_path, counts, message):
    with pytest.raises(DataError, match=message):
        read_layout(plant(tmp_path, counts))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone is not a folder"):
        read_layout(tmp_path / "gone")


def test_files_and_the_images_in_folders_are_found(tmp_path):
    plant(tmp_path, {"a/b": 2})
    odd = tmp_path / "named-without-suffix"
    odd.write_bytes(encode())
    assert find_images([tmp_path / "a", odd]) == [tmp_path / "a/b/000.jpg", tmp_path / "a/b/001.jpg", odd]
    assert find_image_names([tmp_path / "a", odd]) == [str(path) for path in find_images([tmp_path / "a", odd])]
    with pytest.raises(DataError, match="gone does not exist"):
        find_images([tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no images"):
        find_images([tmp_path / "empty"])


def test_a_folder_deleted_during_the_listing_is_skipped(tmp_path):
    plant(tmp_path, {"": 1, "a": 2, "b": 2})
    files = layouts._files(tmp_path)
    assert next(files)[0] == "000.jpg"
    assert next(files)[0].startswith("a/")
    shutil.rmtree(tmp_path / "b")
    assert [path[:2] for path, _ in files] == ["a/"]


def test_paths_are_returned_as_given(tmp_path, monkeypatch):
    plant(tmp_path, {"a/b": 1})
    monkeypatch.chdir(tmp_path)
    assert find_image_names([Path()]) == find_image_names([Path("a")]) == ["a/b/000.jpg"]
    assert find_image_names([Path("a/../a/b/000.jpg")]) == ["a/../a/b/000.jpg"]


def test_hidden_files_are_skipped(tmp_path):
    plant(tmp_path, {"a": 1, ".scores.csv-unfinished": 1})
    (tmp_path / "a" / ".hidden.jpg").write_bytes(encode())
    assert find_image_names([tmp_path]) == [f"{tmp_path}/a/000.jpg"]


# --- groups ----------------------------------------------------------------------------------------------------


def test_a_column_can_keep_its_groups_together(tmp_path):
    plant(tmp_path, {"images": 200})
    rows = "".join(f"images/{index:03}.jpg,{index % 2},,{index // 10}\n" for index in range(200))
    metadata(tmp_path, "image_path,label,class,Person\n" + rows)
    splits = {}
    for example in read_layout(tmp_path, split_by="person").examples:
        splits.setdefault(example.group, set()).add(example.split)
    assert len(splits) == 20
    assert all(len(names) == 1 for names in splits.values())
    assert set.union(*splits.values()) == {"train", "validation"}
    apart = Counter((e.group, e.split) for e in read_layout(tmp_path).examples)
    assert len(apart) == 2, "without the option there are no groups"


def test_images_without_a_group_are_split_individually(tmp_path):
    plant(tmp_path, {"images": 100})
    rows = "".join(f"images/{index:03}.jpg,{index % 2},,\n" for index in range(100))
    layout = read_layout(metadata(tmp_path, "image_path,label,class,person\n" + rows), split_by="person")
    assert 8 <= Counter(example.split for example in layout.examples)["validation"] <= 32


def test_folders_can_be_kept_together_by_source(tmp_path):
    plant(tmp_path, {f"{label}/cats/{source}": 3 for label in ("real", "fake") for source in "abcdefghij"})
    splits = {(e.source, e.split) for e in read_layout(tmp_path, split_by="source").examples}
    assert len(splits) == 10


@pytest.mark.parametrize(
    ("split_by", "message"),
    [
        ("face", "has no column face to split by; it has image_path, label, class, person"),
        ("person", "the person ann occurs in train and validation, as the folders determine the splits"),
    ],
)
def test_groups_that_cannot_be_kept_together_are_named(tmp_path, split_by, message):
    rows = "train/000.jpg,0,,ann\ntrain/001.jpg,1,,bob\nval/000.jpg,0,,ann\nval/001.jpg,1,,cem\n"
    metadata(plant(tmp_path, FOUR), "image_path,label,class,person\n" + rows)
    with pytest.raises(DataError, match=message):
        read_layout(tmp_path, split_by=split_by)


def test_without_metadata_there_is_no_column_to_split_by(tmp_path):
    plant(tmp_path, {"real": 1, "fake": 1})
    with pytest.raises(DataError, match=r"has no metadata.csv with a column person"):
        read_layout(tmp_path, split_by="person")


# --- labels only -----------------------------------------------------------------------------------------------


def test_labels_can_be_read_although_a_label_or_split_is_missing(tmp_path):
    plant(tmp_path, {"fake/cats": 1, "fake": 1})
    assert labels(read_labelled(tmp_path)) == {"fake/000.jpg": ("", 1, ""), "fake/cats/000.jpg": ("", 1, "cats")}


def test_an_image_without_a_required_label_is_named(tmp_path):
    plant(tmp_path, {"train/real": 1, "test": 1})
    with pytest.raises(DataError, match=r"test/000.jpg has no label; move it into real/ or fake/"):
        read_labelled(tmp_path)
