"""Scores of images from those of their windows, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from ddkeras.models.aggregation import aggregate

LOGITS, COUNTS = tf.constant([1.0, 3, -2, 5, 1, 0, -1]), tf.constant([2, 4, 1])


@pytest.mark.parametrize(("how", "expected"), [("mean", [2, 1, -1]), ("top", [3, 3, -1])])
def test_the_logit_of_an_image_is_the_mean_or_that_of_the_most_fake_third_of_its_windows(how, expected):
    outputs = aggregate({"logit": LOGITS}, COUNTS, how)
    assert outputs["logit"].numpy().tolist() == expected, "of the top third one of two, two of four, one of one"
    assert list(outputs) == ["logit"]


@pytest.mark.parametrize("how", ["mean", "top"])
def test_the_category_is_that_of_all_windows_alike(how):
    probabilities = tf.constant([[0.0, 1], [1, 0], [1, 0]])
    outputs = aggregate({"logit": LOGITS[:3], "category_probabilities": probabilities}, tf.constant([2, 1]), how)
    assert outputs["category_probabilities"].numpy().tolist() == [[0.5, 0.5], [1, 0]]


@pytest.mark.parametrize("how", ["mean", "top"])
def test_the_score_of_a_single_window_is_that_of_its_image_to_the_last_bit(how):
    logits = tf.random.stateless_normal((100,), (1, 2))
    assert (aggregate({"logit": logits}, tf.ones(100, tf.int32), how)["logit"] == logits).numpy().all()


def test_attention_weights_are_a_softmax_over_the_windows_of_an_image():
    outputs = {"logit": tf.constant([1.0, 5, -2]), "attention": tf.constant([0, np.log(3.0), 1e4], tf.float32)}
    assert aggregate(outputs, tf.constant([2, 1]), "attention")["logit"].numpy() == pytest.approx([4, -2])


@pytest.mark.parametrize(("how", "expected"), [("mean", [3, -1]), ("top", [5, -1]), ("attention", [4, -1])])
def test_the_whole_image_has_the_category_and_its_windows_the_logit(how, expected):
    outputs = {
        "logit": tf.constant([100.0, 1, 5, 100, -1]),
        "attention": tf.constant([100, 0, np.log(3.0), 0, 0], tf.float32),
        "category_probabilities": tf.constant([[1.0, 0], [0, 1], [0, 1], [0.5, 0.5], [0, 1]]),
    }
    of_images = aggregate(outputs, tf.constant([3, 2]), how, whole=True)
    assert of_images["logit"].numpy() == pytest.approx(expected)
    assert of_images["category_probabilities"].numpy().tolist() == [[1, 0], [0.5, 0.5]]
