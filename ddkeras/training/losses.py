"""The losses of the two heads: pure functions of labels and logits."""

from collections.abc import Callable
from functools import partial

from keras import ops


def binary_cross_entropy(labels, logits, class_weights=(1.0, 1.0), *, label_smoothing=0.0):
    """Class-weighted binary cross-entropy, `-w[y] * log p(y)` with p = sigmoid(logit), without overflow.

    Args:
        labels: (batch, 1), 0 real or 1 fake, or in between for mixed images.
        logits: (batch, 1).
        class_weights: the weights of real and of fake.
        label_smoothing: how far labels are moved towards 0.5, in [0, 1), as in `keras.losses.BinaryCrossentropy`.

    Returns:
        float32 (batch,), in nats.
    """
    weights = _label_weights(_real_and_fake(labels), class_weights, label_smoothing)
    return ops.sum(weights * _nll(logits), axis=-1)


def focal(labels, logits, class_weights=(1.0, 1.0), *, gamma=2.0, label_smoothing=0.0):
    """Class-weighted focal loss, `-w[y] * (1 - p(y))**gamma * log p(y)` with p = sigmoid(logit), without overflow.

    It discounts images that are classified correctly with confidence. The class weights are the paper's alpha. For a
    mixed image or a smoothed label, the losses of real and of fake are averaged by their shares.

    Args:
        labels: (batch, 1), 0 real or 1 fake, or in between for mixed images.
        logits: (batch, 1).
        class_weights: the weights of real and of fake.
        gamma: strength of the discount; at least 0, which gives `binary_cross_entropy`.
        label_smoothing: how far labels are moved towards 0.5, in [0, 1).

    Returns:
        float32 (batch,), in nats.

    References:
        Lin et al. 2017, Focal Loss for Dense Object Detection, https://arxiv.org/abs/1708.02002
    """
    weights, nll = _label_weights(_real_and_fake(labels), class_weights, label_smoothing), _nll(logits)
    # 1 - p of one label is p of the other. By exp, since 0 ** gamma has an infinite gradient for gamma below 1.
    discount = ops.exp(-gamma * ops.flip(nll, axis=-1))
    return ops.sum(weights * discount * nll, axis=-1)


def squared_error(labels, logits, class_weights=(1.0, 1.0), *, label_smoothing=0.0):
    """Class-weighted squared error, `w[y] * (p - y)**2` with p = sigmoid(logit).

    Args:
        labels: (batch, 1), 0 real or 1 fake, or in between for mixed images.
        logits: (batch, 1).
        class_weights: the weights of real and of fake, averaged by the shares of a mixed image.
        label_smoothing: how far labels are moved towards 0.5, in [0, 1).

    Returns:
        float32 (batch,), between 0 and the larger class weight.
    """
    shares = _real_and_fake(labels)
    fake = _label_weights(shares, (1.0, 1.0), label_smoothing)[:, 1]
    errors = ops.sigmoid(ops.cast(logits, "float32"))[:, 0] - fake
    return ops.sum(_label_weights(shares, class_weights, 0.0), axis=-1) * ops.square(errors)


def categorical_cross_entropy(labels, logits, class_weights=None, *, label_smoothing=0.0):
    """Class-weighted cross-entropy, `-w[y] * log p(y)` with p = softmax(logits).

    Args:
        labels: (batch,), class indices, or (batch, classes), the shares of the classes in mixed images.
        logits: (batch, classes).
        class_weights: one weight per class; None for 1 each.
        label_smoothing: how far labels are moved towards 1 / classes, in [0, 1), as in
            `keras.losses.CategoricalCrossentropy`.

    Returns:
        float32 (batch,), in nats.
    """
    labels, logits = ops.convert_to_tensor(labels), ops.cast(logits, "float32")
    if len(labels.shape) < 2:
        labels = ops.one_hot(ops.cast(labels, "int32"), logits.shape[-1])
    weights = _label_weights(
        ops.cast(labels, "float32"), 1.0 if class_weights is None else class_weights, label_smoothing
    )
    return -ops.sum(weights * ops.log_softmax(logits), axis=-1)


AUTHENTICITY_LOSSES: dict[str, Callable] = {
    "cross_entropy": binary_cross_entropy,
    "focal": focal,
    "squared_error": squared_error,
}


def head_losses(
    loss: str, class_weights: dict[str, list[float]], *, focal_gamma: float, label_smoothing: float
) -> dict[str, Callable]:
    """The loss of each head in `class_weights`, as a function of labels and logits; see `Recipe.loss`."""
    authenticity = AUTHENTICITY_LOSSES[loss]
    functions: dict[str, Callable] = {
        "authenticity": partial(authenticity, gamma=focal_gamma) if loss == "focal" else authenticity,
        "category": categorical_cross_entropy,
    }
    return {
        head: partial(functions[head], class_weights=weights, label_smoothing=label_smoothing)
        for head, weights in class_weights.items()
    }


def _label_weights(shares, class_weights, label_smoothing):
    """The weight of each label or class in the loss of each image: float32 (batch, classes), as `shares`.

    Smoothing comes after weighting, so that an image weighs as much as its own label says.
    """
    weights = shares * ops.array(class_weights, "float32")
    return (1 - label_smoothing) * weights + label_smoothing * ops.mean(weights, axis=-1, keepdims=True)


def _real_and_fake(labels):
    """The shares of real and of fake, float32 (batch, 2), of (batch, 1)."""
    labels = ops.cast(labels, "float32")
    return ops.concatenate([1 - labels, labels], axis=-1)


def _nll(logits):
    """-log p of real and of fake, float32 (batch, 2), of (batch, 1)."""
    logits = ops.cast(logits, "float32")
    return ops.softplus(ops.concatenate([logits, -logits], axis=-1))  # softplus(-x): -log sigmoid(x)
