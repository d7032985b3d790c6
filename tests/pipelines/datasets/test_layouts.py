"""Labels, classes, sources and splits of a data folder."""

import shutil
import unicodedata
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
    assert layout.notes == ["there is no validation split: 20% of train is held out as validation"]


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
        "left out files outside the layout or not images: 2, such as train/other/000.jpg"
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
    assert layout.notes == ["left out images that metadata.csv does not list: 1, such as train/extra/000.jpg"]


def test_metadata_without_splits_in_its_paths_is_split_by_hash(tmp_path):
    plant(tmp_path, {"images": 100})
    rows = "".join(f"images/{index:03}.jpg,{index % 2},\n" for index in range(100))
    layout = read_layout(metadata(tmp_path, "image_path,label,class\n" + rows))
    assert 8 <= Counter(example.split for example in layout.examples)["validation"] <= 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_path,class\n", "has no column label"),
        ("file,label\n", "has no column image_path.*--columns image_path=NAME"),
        ("", "has no column image_path or label"),
        (
            "image_path,label,class\ntrain/gone.jpg,0,\n",
            "names 1 file, of which none exists, the first train/gone",
        ),
        (
            "image_path,label,split\ntrain/000.jpg,0,dev\n",
            "line 2 has the split 'dev'; use train, validation or test",
        ),
        ("image_path,label\n,0\n", "line 2 names no image"),
        ('image_path,label,class\ntrain/000.jpg,0,"a\tb"\n', r"line 2: the class 'a\\tb' has the control character"),
        ("image_path,label,class\ntrain/000.jpg,maybe,\n", "line 2 has the label 'maybe'; use 0 or real, 1 or fake"),
        ("image_path,label,class\n" + "train/000.jpg,0,\n" * 2, "lists train/000.jpg more than once"),
        (
            "image_path,label,class\ntrain/000.jpg,0,cats, dogs\n",
            "line 2 has 4 cells, and the header 3; put text with ',' in it in quotes",
        ),
        (
            'image_path,label,prompt\ntrain/000.jpg,0,"a cat\ntrain/001.jpg,1,a dog\n',
            "line 3 is not CSV: unexpected end of data; correct the quotes",
        ),
        ("image_path,label,Label\ntrain/000.jpg,0,1\n", "has 2 columns label; keep one"),
    ],
)
def test_a_mistake_in_metadata_is_named(tmp_path, text, message):
    metadata(plant(tmp_path, FOUR), text)
    with pytest.raises(DataError, match=message):
        read_layout(tmp_path)


def test_empty_cells_beyond_the_header_are_passed_over(tmp_path):
    metadata(
        plant(tmp_path, FOUR),
        "image_path,label\ntrain/000.jpg,0,,\ntrain/001.jpg,1\nval/000.jpg,0, \nval/001.jpg,1\n",
    )
    assert splits(read_layout(tmp_path)) == {"train": 2, "validation": 2}


def splits(layout):
    return Counter(example.split for example in layout.examples)


SPLIT_NAMES = {
    "Train": "train",
    "VAL": "validation",
    "valid": "validation",
    "Validation ": "validation",
    "test": "test",
}


def test_a_column_split_decides_whatever_the_folders_and_the_case(tmp_path):
    plant(tmp_path, {"train": 10})
    rows = [
        f"train/{2 * k + label:03}.jpg,{label},{name}\n" for k, name in enumerate(SPLIT_NAMES) for label in (0, 1)
    ]
    layout = read_layout(metadata(tmp_path, "image_path,label,split\n" + "".join(rows)))
    assert splits(layout) == {"train": 2, "validation": 6, "test": 2}
    assert layout.notes == []


def test_where_the_column_split_is_empty_the_path_decides(tmp_path):
    rows = "train/000.jpg,0,\ntrain/001.jpg,1,\ntrain/002.jpg,0,val\nval/000.jpg,1,\n"
    layout = read_layout(metadata(plant(tmp_path, {"train": 3, "val": 1}), "image_path,label,split\n" + rows))
    assert {path: split for path, (split, _, _) in labels(layout).items()} == {
        "train/000.jpg": "train",
        "train/001.jpg": "train",
        "train/002.jpg": "validation",
        "val/000.jpg": "validation",
    }


def test_columns_that_are_not_read_are_named_once(tmp_path):
    rows = ROWS.replace(",cats,", ",cats,x,y,")
    layout = read_layout(metadata(plant(tmp_path, FOUR), "image_path,label,class,MD5,url,source\n" + rows))
    assert layout.notes == ["columns of metadata.csv that are not read: md5, url"]


def test_columns_of_other_names_can_be_mapped(tmp_path):
    rows = "train/000.jpg,0,x\ntrain/001.jpg,1,x\nval/000.jpg,0,x\nval/001.jpg,1,x\n"
    metadata(plant(tmp_path, FOUR), "File,Target,label\n" + rows)
    layout = read_layout(tmp_path, columns={"image_path": "file", "label": "target"})
    assert [example.label for example in sorted(layout.examples)] == [0, 1, 0, 1]
    assert layout.notes == ["columns of metadata.csv that are not read: label"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image_path": "filename"}, "has no column filename; it has image_path, label"),
        ({"path": "image_path"}, "there is no column path to map; the columns are image_path, label, class, source"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(tmp_path, columns, message):
    metadata(plant(tmp_path, FOUR), "image_path,label\ntrain/000.jpg,0\n")
    with pytest.raises(DataError, match=message):
        read_layout(tmp_path, columns=columns)


def test_columns_cannot_be_mapped_without_a_table(tmp_path):
    with pytest.raises(DataError, match=r"has no metadata.csv whose columns could be mapped; leave out --columns"):
        read_layout(plant(tmp_path, {"real": 1, "fake": 1}), columns={"label": "target"})


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_are_told_apart(tmp_path, separator):
    text = "\ufeffimage_path,label,class,source\n" + ROWS + "\n,,,\n"
    root = metadata(plant(tmp_path, FOUR), text.replace(",", separator))
    assert sorted(labels(read_layout(root))) == ["train/000.jpg", "train/001.jpg", "val/000.jpg", "val/001.jpg"]


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"', "sep=\t", "sep=,", "sep=|"])
def test_a_first_line_may_name_the_separator_as_in_excel(tmp_path, first):
    separator = first.strip('"')[4]
    table = "image_path,label,class,source,note\n" + ROWS.replace("\n", ",note\n")
    root = metadata(plant(tmp_path, FOUR), f"\ufeff{first}\n" + table.replace(",", separator))
    layout = read_layout(root)
    assert labels(layout)["val/001.jpg"] == ("validation", 1, "cats")
    assert layout.notes == ["columns of metadata.csv that are not read: note"]
    (root / "metadata.csv").write_text(f"{first}\nimage_path{separator}label\ntrain/000.jpg{separator}maybe\n")
    with pytest.raises(DataError, match=r"metadata\.csv line 3 has the label 'maybe'"):
        read_layout(root)


@pytest.mark.parametrize(("of_table", "of_files"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC"), ("NFD", "NFD")])
def test_names_in_metadata_and_of_files_may_be_in_different_forms_of_unicode(tmp_path, of_table, of_files):
    folder = unicodedata.normalize(of_files, "été")
    plant(tmp_path, FOUR | {f"train/{folder}": 1})
    name = unicodedata.normalize(of_files, f"train/{folder}/café.jpg")
    (tmp_path / "train" / folder / "000.jpg").rename(tmp_path / name)
    rows = ROWS + unicodedata.normalize(of_table, "train/été/café.jpg,1,cats,cam\n")
    layout = read_layout(metadata(tmp_path, "image_path,label,class,source\n" + rows))
    assert labels(layout)[name] == ("train", 1, "cats")
    assert layout.notes == []


def test_a_missing_file_is_left_to_be_quarantined(tmp_path):
    rows = ROWS + "val/gone.jpg,0,cats,cam\nval/lost.jpg,0,cats,cam\n"
    layout = read_layout(metadata(plant(tmp_path, FOUR), "image_path,label,class,source\n" + rows))
    assert len(layout.examples) == 6
    assert layout.notes == ["metadata.csv names 2 files not found, the first val/gone.jpg"]


@pytest.mark.parametrize("content", [b"id,url\n1,http://x\n", b"\xff\xfe\x00", b""])
def test_a_table_of_other_things_beside_folders_of_labels_is_a_note(tmp_path, content):
    plant(tmp_path, {f"{split}/{label}": 1 for split in ("train", "val") for label in ("real", "fake")})
    (tmp_path / "metadata.csv").write_bytes(content)
    layout = read_layout(tmp_path)
    assert splits(layout) == {"train": 2, "validation": 2}
    (note,) = [note for note in layout.notes if note.startswith("the folders decide, for ")]
    assert "metadata.csv" in note


# --- a path is the file it leads to ----------------------------------------------------------------------------


def spellings(root: Path) -> dict[str, str]:
    """Ways to write train/000.jpg in the metadata.csv of `root`."""
    (root / "links").mkdir()
    (root / "links" / "a.jpg").symlink_to("../train/000.jpg")
    (root / "also").symlink_to(root / "train")
    return {
        "absolute": f"{root}/train/000.jpg",
        "dot": "./train/./000.jpg",
        "slashes": "train//000.jpg",
        "parent": "val/../train/000.jpg",
        "backslashes": "train\\000.jpg",
        "own name": f"{root.name}/train/000.jpg",
        "link to the file": "links/a.jpg",
        "link to the folder": "also/000.jpg",
        "absolute link": f"{root}/links/../also/000.jpg",
    }


SPELLINGS = [
    *("absolute", "dot", "slashes", "parent", "backslashes", "own name"),
    *("link to the file", "link to the folder", "absolute link"),
]
REST = "train/001.jpg,1\nval/000.jpg,0\nval/001.jpg,1\n"


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_path_is_the_file_it_leads_to(tmp_path, spelling):
    root = plant(tmp_path / "data", FOUR)
    layout = read_layout(metadata(root, f"image_path,label\n{spellings(root)[spelling]},0\n" + REST))
    assert {path: split for path, (split, _, _) in labels(layout).items()} == {
        "train/000.jpg": "train",
        "train/001.jpg": "train",
        "val/000.jpg": "validation",
        "val/001.jpg": "validation",
    }
    assert layout.notes == []


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_file_listed_twice_is_refused_however_it_is_written(tmp_path, spelling):
    root = plant(tmp_path / "data", FOUR)
    metadata(root, f"image_path,label\ntrain/000.jpg,0\n{spellings(root)[spelling]},1\n" + REST)
    with pytest.raises(DataError, match=r"lists train/000.jpg more than once"):
        read_layout(root)


def test_files_outside_the_folder_keep_the_split_of_a_linked_folder(tmp_path):
    plant(tmp_path / "elsewhere", {"": 2})
    root = plant(tmp_path / "data", {"val": 2})
    (root / "train").symlink_to(tmp_path / "elsewhere")
    rows = f"train/000.jpg,0\n{tmp_path}/elsewhere/001.jpg,1\nval/000.jpg,0\nval/001.jpg,1\n"
    assert splits(read_layout(metadata(root, "image_path,label\n" + rows))) == {"train": 2, "validation": 2}


def test_a_link_to_a_file_elsewhere_keeps_its_place(tmp_path):
    plant(tmp_path / "store", {"": 1})
    root = plant(tmp_path / "data", {"train": 1, "val": 2})
    (root / "train" / "linked.jpg").symlink_to(tmp_path / "store" / "000.jpg")
    rows = "train/000.jpg,0\ntrain/linked.jpg,1\nval/000.jpg,0\nval/001.jpg,1\n"
    assert labels(read_layout(metadata(root, "image_path,label\n" + rows)))["train/linked.jpg"] == ("train", 1, "")


def test_a_linked_folder_does_not_take_the_place_of_the_folder_itself(tmp_path):
    root = plant(tmp_path, {f"{split}/{label}": 1 for split in ("train", "val") for label in ("real", "fake")})
    (root / "again").symlink_to(root / "train")
    layout = read_layout(root)
    assert splits(layout) == {"train": 2, "validation": 2}
    assert layout.notes == []


def test_a_link_to_a_folder_that_is_read_already_is_named(tmp_path, caplog):
    root = plant(
        tmp_path, {f"{split}/{label}": 1 for split in ("train", "val", "test") for label in ("real", "fake")}
    )
    shutil.rmtree(root / "test/real")
    (root / "test/real").symlink_to("../val/real")
    (root / "val/real/loop").symlink_to("../..")
    assert splits(read_layout(root)) == {"train": 2, "validation": 2, "test": 1}
    assert [record.message for record in caplog.records] == [
        f"{root}: left out links to folders that are read themselves: 1, such as test/real to val/real"
    ]


def test_many_links_to_folders_that_are_read_already_are_one_line(tmp_path, caplog):
    root = plant(tmp_path, {f"{split}/{label}": 1 for split in ("train", "val") for label in ("real", "fake")})
    for index in range(30):
        (root / f"val/real/{index:02}").symlink_to("../../train/real")
    assert splits(read_layout(root)) == {"train": 2, "validation": 2}
    assert [record.message for record in caplog.records] == [
        f"{root}: left out links to folders that are read themselves: 30, such as val/real/00 to train/real"
    ]


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
            {"train/real/cats": 1, "train/fake/cats": 1, "train/real/dogs": 1, "train/fake/dogs": 1}
            | {"val/real/cats": 1, "val/fake/cats": 1},
            "the class dogs occurs in train only",
        ),
        ({"test": 2}, "there are no real and no fake images"),
    ],
)
def test_a_folder_that_is_useless_for_training_is_refused(tmp_path, counts, message):
    with pytest.raises(DataError, match=message):
        read_layout(plant(tmp_path, counts))


def test_images_of_a_class_that_is_not_in_train_are_kept_without_the_class(tmp_path):
    counts = {f"{split}/{label}/cats": 1 for split in ("train", "val", "test") for label in ("real", "fake")}
    layout = read_layout(plant(tmp_path, counts | {"test/real/horses": 2, "test/fake/horses": 2}))
    assert layout.categories == ["cats"]
    assert labels(layout)["test/fake/horses/000.jpg"] == ("test", 1, "")
    assert layout.notes == [
        "classes that do not occur in train: horses; their images are kept, without a class, to measure authenticity"
    ]


def test_folders_of_other_names_are_refused_by_name_and_read_when_named(tmp_path):
    plant(tmp_path, {"photos": 10, "sdxl": 5, "flux": 5, "notes": 1})
    with pytest.raises(
        DataError, match=r"no real/ and fake/ folders; it has flux/, notes/, photos/, sdxl/: name those"
    ):
        read_layout(tmp_path)
    layout = read_layout(tmp_path, real=["Photos"], fake=["sdxl", "flux"])
    labelled = Counter((example.label, example.source) for example in layout.examples)
    assert labelled == {(0, ""): 10, (1, "sdxl"): 5, (1, "flux"): 5}
    assert layout.notes == ["left out files outside the layout or not images: 1, such as notes/000.jpg"]


def test_values_of_a_table_can_be_named_too(tmp_path):
    rows = "train/000.jpg,genuine\ntrain/001.jpg,fake\nval/000.jpg,Genuine\nval/001.jpg,1\n"
    metadata(plant(tmp_path, FOUR), "image_path,label\n" + rows)
    with pytest.raises(
        DataError, match=r"line 2 has the label 'genuine'; .* name yours with --real NAME --fake NAME"
    ):
        read_layout(tmp_path)
    assert [example.label for example in sorted(read_layout(tmp_path, real=["genuine"]).examples)] == [0, 1, 0, 1]


def test_where_a_table_decides_the_kind_of_folders_cannot_be_given(tmp_path):
    metadata(plant(tmp_path, FOUR), "image_path,label,class,source\n" + ROWS)
    with pytest.raises(DataError, match=r"metadata.csv decides, not the folders; leave out --folders"):
        read_layout(tmp_path, folders="source")


@pytest.mark.parametrize("frames", [3, 24])
def test_frames_of_one_video_stay_in_one_split(tmp_path, frames):
    names = {"real": [f"{video:03}" for video in range(6)], "fake": [f"{v:03}_{v + 1:03}" for v in range(6)]}
    layout = read_layout(plant(tmp_path, {f"{label}/{name}": frames for label in names for name in names[label]}))
    found = {(example.group, example.split, example.label) for example in layout.examples}
    assert len(found) == 12
    assert {(split, label) for _, split, label in found} == {
        (split, label) for split in ("train", "validation") for label in (0, 1)
    }


def test_classes_of_few_images_occur_in_both_splits_without_folders_of_splits(tmp_path):
    counts = {f"{label}/{name}": 2 for label in ("real", "fake") for name in "abcdefgh"}
    layout = read_layout(plant(tmp_path, counts))
    assert {(e.split, e.label, e.category) for e in layout.examples} == {
        (split, label, name) for split in ("train", "validation") for label in (0, 1) for name in "abcdefgh"
    }


def test_forms_of_unicode_and_blanks_make_one_class(tmp_path):
    composed = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    names = (composed, "cafe\N{COMBINING ACUTE ACCENT}", f" {composed.upper()} ")
    plant(
        tmp_path, {f"{s}/{label}/{name}": 1 for s in ("train", "val") for label in ("real", "fake") for name in names}
    )
    assert read_layout(tmp_path).categories == [composed]


def test_a_control_character_in_the_name_of_a_class_is_refused(tmp_path):
    plant(tmp_path, {"real/a\nb": 1, "fake/a\nb": 1})
    with pytest.raises(DataError, match=r"the folder of (real|fake)/a\nb/000.jpg: 'a\\nb' has the control character"):
        read_layout(tmp_path)


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
        ("person", "the person ann occurs in train and validation, as the data determine the splits"),
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
