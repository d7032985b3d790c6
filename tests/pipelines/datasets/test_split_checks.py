"""What a data set must have to be trained on, or only measured, before and after images are left out."""

import pytest
from tiny import plant

from pipelines.datasets.layouts import read_layout
from pipelines.datasets.split_checks import check_what_is_left
from pipelines.exceptions import DataError

BOTH = {f"{split}/{label}/{name}": 2 for split in ("train", "val") for label in ("real", "fake") for name in "ab"}


def left_out(folder, *beginnings, reason="a copy of val/real/a/000.jpg"):
    """Leave out the images whose path begins so, and check what is left."""
    examples = read_layout(folder).examples
    before = examples.counts()
    paths = [example.path for example in examples if example.path.startswith(beginnings)]
    examples.leave_out([(path, reason) for path in paths])
    return check_what_is_left(before, examples.counts(), examples.left_out())


@pytest.mark.parametrize(
    ("beginnings", "message"),
    [
        (["train/"], "no image of train is left: images were left out, such as train/fake/a/000.jpg: a copy of val"),
        (
            ["train/real/b", "train/fake/b"],
            "such as train/fake/b/000.jpg: .*; now the class b occurs in validation only",
        ),
        (["val/fake"], "now the label fake occurs in train only"),
        (["val/fake", "train/fake"], "now there are no fake images"),
    ],
)
def test_a_split_label_or_class_does_not_vanish_in_silence(tmp_path, beginnings, message):
    with pytest.raises(DataError, match=message):
        left_out(plant(tmp_path, BOTH), *beginnings)


def test_what_vanishes_from_a_split_that_can_do_without_is_noted(tmp_path):
    plant(tmp_path, BOTH | {"test/real/b": 1, "test/real/a": 1, "test/fake/a": 1})
    assert left_out(tmp_path, "test/real/b") == [
        "no image of the class b is left in test: images were left out, such as test/real/b/000.jpg: "
        "a copy of val/real/a/000.jpg"
    ]
    assert left_out(tmp_path, "test/real/none") == []


def test_all_classes_that_are_wrong_are_named_at_once(tmp_path):
    plant(tmp_path, BOTH | {"train/real/horse": 1, "train/fake/cow": 1, "train/real/cat": 1})
    with pytest.raises(DataError) as caught:
        read_layout(tmp_path, folders="class")
    assert str(caught.value) == (
        "the classes cat, cow and horse occur in train only; each must occur in train and in validation or test: "
        "move or add images"
    )


@pytest.mark.parametrize("labels", [("real", "fake"), ("real",), ("fake",)])
def test_a_labelled_test_split_alone_is_there_to_be_measured(tmp_path, labels):
    layout = read_layout(plant(tmp_path, {f"test/{label}/{name}": 1 for label in labels for name in "ab"}))
    assert {example.split for example in layout.examples} == {"test"}
    assert layout.notes == []


def test_every_label_of_a_small_class_is_in_train_and_in_validation(tmp_path):
    names = [f"class{number}" for number in range(12)]
    plant(tmp_path, {f"{label}/{name}": 2 for label in ("real", "fake") for name in names})
    splits = {(split, label, name) for split, label, name, _ in read_layout(tmp_path).examples.counts()}
    assert splits == {(split, label, name) for split in ("train", "validation") for label in (0, 1) for name in names}
