"""The table of examples."""

from collections import Counter

import pytest
from tiny import plant

from pipelines.datasets.examples import Example, Examples
from pipelines.datasets.layouts import read_layout


def test_a_repeated_path_is_named():
    with pytest.raises(KeyError, match=r"a\.jpg"):
        Examples().add([Example("a.jpg"), Example("b.jpg"), Example("a.jpg")])


def test_balancing_leaves_out_examples_of_the_more_frequent_label_in_each_split(tmp_path):
    plant(tmp_path, {"train/real": 9, "train/fake": 4, "val/real": 1, "val/fake": 3, "test": 5})
    examples = read_layout(tmp_path).examples
    examples.balance()
    assert Counter((e.split, e.label) for e in examples) == {
        ("train", 0): 4,
        ("train", 1): 4,
        ("validation", 0): 1,
        ("validation", 1): 1,
        ("test", -1): 5,
    }
    left_out = list(examples.left_out())
    assert len(left_out) == 7
    assert {reason for _, reason in left_out} == {
        "train has more real images than fake ones",
        "validation has more fake images than real ones",
    }


def test_examples_can_be_left_out(tmp_path):
    plant(tmp_path, {"train/real": 2, "train/fake": 1, "val/real": 1, "val/fake": 1})
    examples = read_layout(tmp_path).examples
    assert "train/real/000.jpg" in examples
    examples.leave_out([("train/real/000.jpg", "a copy")])
    assert "train/real/000.jpg" not in examples
    assert len(examples) == 4
    assert list(examples.left_out()) == [("train/real/000.jpg", "a copy")]
