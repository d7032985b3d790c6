"""The losses, against numbers worked out by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ddkeras.losses import (
    BinaryCrossEntropy,
    CategoricalCrossEntropy,
    binary_cross_entropy,
    categorical_cross_entropy,
)

LN2, LN3 = 0.6931472, 1.0986123


def test_binary_cross_entropy_is_minus_log_p():
    # p(fake) = 1/2, 3/4, 3/4
    losses = binary_cross_entropy([[1.0], [1.0], [0.0]], [[0.0], [LN3], [LN3]])
    np.testing.assert_allclose(losses, [LN2, np.log(4 / 3), np.log(4)], rtol=1e-6)


def test_binary_cross_entropy_weighs_each_label():
    losses = binary_cross_entropy([[0.0], [1.0]], [[0.0], [0.0]], class_weights=(0.5, 2.0))
    np.testing.assert_allclose(losses, [0.5 * LN2, 2 * LN2], rtol=1e-6)


def test_binary_cross_entropy_is_finite_for_extreme_logits():
    losses = binary_cross_entropy([[0.0], [1.0], [1.0]], [[1e4], [-1e4], [1e4]])
    np.testing.assert_allclose(losses, [1e4, 1e4, 0.0])


def test_categorical_cross_entropy_is_minus_log_p():
    # softmax of [ln 1, ln 2, ln 5] is [1/8, 2/8, 5/8]
    logits = np.log([[1.0, 2.0, 5.0]] * 3).astype("float32")
    np.testing.assert_allclose(categorical_cross_entropy([0, 1, 2], logits), np.log([8, 4, 8 / 5]), rtol=1e-5)
    weighted = categorical_cross_entropy([0, 1, 2], logits, class_weights=[1.0, 2.0, 3.0])
    np.testing.assert_allclose(weighted, np.log([8, 4, 8 / 5]) * [1, 2, 3], rtol=1e-5)


def test_a_mixed_image_costs_its_shares_of_both_losses():
    logit = [[LN3]]
    of_real, of_fake = (
        float(binary_cross_entropy([[label]], logit, class_weights=(0.5, 2.0))[0]) for label in (0.0, 1.0)
    )
    mixed = binary_cross_entropy([[0.25]], logit, class_weights=(0.5, 2.0))
    np.testing.assert_allclose(mixed, [0.75 * of_real + 0.25 * of_fake], rtol=1e-6)
    logits = np.log([[1.0, 2.0, 5.0]]).astype("float32")
    shares = np.array([[0.5, 0.0, 0.5]], "float32")
    expected = 0.5 * np.log(8) * 1 + 0.5 * np.log(8 / 5) * 3
    np.testing.assert_allclose(
        categorical_cross_entropy(shares, logits, class_weights=[1, 2, 3]), [expected], rtol=1e-5
    )


def test_the_loss_classes_average_over_the_batch_and_sample_weights_take_examples_out():
    binary = BinaryCrossEntropy(class_weights=(1.0, 3.0))
    labels, logits = np.array([[0.0], [1.0]], "float32"), np.zeros((2, 1), "float32")
    assert float(binary(labels, logits)) == pytest.approx((LN2 + 3 * LN2) / 2)
    category = CategoricalCrossEntropy()
    logits = np.zeros((2, 3), "float32")
    assert float(category(np.array([0, 2]), logits)) == pytest.approx(LN3)
    assert float(category(np.array([0, 2]), logits, sample_weight=np.array([1.0, 0.0]))) == pytest.approx(LN3 / 2)


def test_the_gradient_of_the_binary_loss_is_p_minus_y():
    logits = tf.Variable([[0.0], [LN3]])
    with tf.GradientTape() as tape:
        loss = keras.ops.sum(binary_cross_entropy([[1.0], [0.0]], logits))
    np.testing.assert_allclose(tape.gradient(loss, logits), [[-0.5], [0.75]], rtol=1e-6)
