"""The losses, against values computed by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ddkeras.training.losses import binary_cross_entropy, categorical_cross_entropy, focal, squared_error

LN2, LN3 = 0.6931472, 1.0986123
BINARY = [binary_cross_entropy, focal, squared_error]


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


def test_the_loss_of_a_mixed_image_is_the_mean_by_its_shares():
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


def test_the_gradient_of_the_binary_loss_is_p_minus_y():
    logits = tf.Variable([[0.0], [LN3]])
    with tf.GradientTape() as tape:
        loss = keras.ops.sum(binary_cross_entropy([[1.0], [0.0]], logits))
    np.testing.assert_allclose(tape.gradient(loss, logits), [[-0.5], [0.75]], rtol=1e-6)


def test_focal_loss_discounts_confident_correct_predictions():
    # (1 - p)^2 * -log p of p = 1/2, 3/4, 1/4
    losses = focal([[1.0], [1.0], [0.0]], [[0.0], [LN3], [LN3]])
    np.testing.assert_allclose(losses, [0.1732868, 0.01798013, 0.7797906], rtol=1e-6)
    losses = focal([[1.0], [1.0], [0.0]], [[0.0], [LN3], [LN3]], (0.5, 2.0), gamma=1.0)
    np.testing.assert_allclose(losses, [0.6931472, 0.1438410, 0.5198604], rtol=1e-6)


def test_focal_loss_without_gamma_is_cross_entropy():
    labels, logits = [[0.0], [1.0], [0.25]], [[-3.0], [0.5], [2.0]]
    np.testing.assert_allclose(focal(labels, logits, gamma=0.0), binary_cross_entropy(labels, logits), rtol=1e-6)


def test_squared_error_is_of_the_probability():
    # p(fake) = 1/2, 3/4, 3/4
    labels, logits = [[1.0], [1.0], [0.0]], [[0.0], [LN3], [LN3]]
    np.testing.assert_allclose(squared_error(labels, logits), [0.25, 0.0625, 0.5625], rtol=1e-6)
    np.testing.assert_allclose(squared_error(labels, logits, (0.5, 2.0)), [0.5, 0.125, 0.28125], rtol=1e-6)


def test_the_focal_loss_of_a_mixed_image_is_the_mean_by_its_shares():
    mixed = focal([[0.25]], [[LN3]], (0.5, 2.0))
    np.testing.assert_allclose(mixed, [0.75 * 0.5 * 0.7797906 + 0.25 * 2 * 0.01798013], rtol=1e-6)


def test_the_squared_error_of_a_mixed_image_is_zero_at_its_share():
    losses = squared_error([[0.75], [0.25]], [[LN3], [0.0]], (0.5, 2.0))
    np.testing.assert_allclose(losses, [0.0, 0.875 * 0.0625], atol=1e-7)  # weighs 0.75 * 0.5 + 0.25 * 2


def test_label_smoothing_moves_labels_towards_a_half():
    # 0.9 and 0.1 for 1 and 0; -log p is ln 4/3 for fake and ln 4 for real
    labels, logits = [[1.0], [0.0]], [[LN3], [LN3]]
    expected = {
        binary_cross_entropy: [0.3975433, 1.2764332],
        focal: [0.0941612, 0.7036096],
        squared_error: [0.0225, 0.4225],
    }
    for loss, values in expected.items():
        np.testing.assert_allclose(loss(labels, logits, label_smoothing=0.2), values, rtol=1e-5)


def test_label_smoothing_moves_categories_towards_uniform():
    # 0.8, 0.1 and 0.1; softmax is [1/8, 2/8, 5/8]
    logits = np.log([[1.0, 2.0, 5.0]] * 2).astype("float32")
    losses = categorical_cross_entropy([2, 0], logits, label_smoothing=0.3)
    np.testing.assert_allclose(losses, [0.7225765, 1.8491848], rtol=1e-5)


def test_label_smoothing_does_not_change_the_class_weight_of_an_image():
    logits = np.log([[1.0, 2.0, 5.0]] * 2).astype("float32")
    losses = categorical_cross_entropy([2, 0], logits, [5.0, 100.0, 3.0], label_smoothing=0.3)
    np.testing.assert_allclose(losses, [3 * 0.7225765, 5 * 1.8491848], rtol=1e-5)
    for loss in BINARY:
        plain, weighted = (loss([[0.0]], [[LN3]], weights, label_smoothing=0.2) for weights in ((1, 1), (3, 100)))
        np.testing.assert_allclose(weighted, 3 * np.asarray(plain), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_equal_those_of_keras(smoothing):
    labels, logits = np.array([[0.0], [1.0], [1.0]], "float32"), np.array([[0.3], [-2.0], [4.0]], "float32")
    options = {"label_smoothing": smoothing}
    theirs = keras.losses.binary_crossentropy(labels, logits, from_logits=True, **options)
    np.testing.assert_allclose(binary_cross_entropy(labels, logits, **options), theirs, rtol=1e-5)
    theirs = keras.losses.mean_squared_error(labels * (1 - smoothing) + smoothing / 2, keras.ops.sigmoid(logits))
    np.testing.assert_allclose(squared_error(labels, logits, **options), theirs, rtol=1e-5)
    shares, logits = np.eye(3, dtype="float32"), np.array([[0.3, -2, 4], [1, 0, 2], [5, 5, 5]], "float32")
    theirs = keras.losses.categorical_crossentropy(shares, logits, from_logits=True, **options)
    np.testing.assert_allclose(categorical_cross_entropy([0, 1, 2], logits, **options), theirs, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_equals_that_of_keras(gamma):
    labels, logits = np.array([[0.0], [1.0], [1.0]], "float32"), np.array([[0.3], [-2.0], [4.0]], "float32")
    theirs = keras.losses.binary_focal_crossentropy(labels, logits, gamma=gamma, from_logits=True)
    np.testing.assert_allclose(focal(labels, logits, gamma=gamma), theirs, rtol=1e-4)


@pytest.mark.parametrize("loss", BINARY)
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_losses_and_gradients_of_extreme_logits_are_finite(loss, options, dtype):
    logits = tf.Variable([[1000.0], [-1000.0], [1000.0], [-1000.0]], dtype=dtype)
    with tf.GradientTape() as tape:
        losses = loss([[1.0], [1.0], [0.0], [0.0]], logits, **options)
    assert losses.dtype == "float32"
    assert losses.shape == (4,)
    assert np.isfinite(losses).all()
    assert np.isfinite(tape.gradient(losses, logits)).all()


def test_focal_loss_with_gamma_below_1_has_finite_gradients_at_certainty():
    logits = tf.Variable([[1000.0], [0.0], [-1000.0]])
    with tf.GradientTape() as tape:
        losses = focal([[1.0], [1.0], [1.0]], logits, gamma=0.5)
    np.testing.assert_allclose(losses, [0.0, 0.4901291, 1000.0], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(losses, logits), [[0.0], [-0.4760858], [-1.0]], rtol=1e-6)


def test_categorical_cross_entropy_of_extreme_float16_logits():
    logits = np.array([[1000.0, -1000.0], [1000.0, -1000.0]], "float16")
    losses = categorical_cross_entropy([0, 1], logits)
    assert losses.dtype == "float32"
    np.testing.assert_allclose(losses, [0.0, 2000.0])


def test_the_gradient_of_the_squared_error():
    logits = tf.Variable([[0.0], [LN3]])
    with tf.GradientTape() as tape:
        losses = squared_error([[1.0], [0.0]], logits)
    # 2 (p - y) p (1 - p)
    np.testing.assert_allclose(tape.gradient(losses, logits), [[-0.25], [0.28125]], rtol=1e-6)
