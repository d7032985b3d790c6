"""The losses of the two heads: pure functions of labels and logits."""

from keras import ops


def binary_cross_entropy(labels, logits, class_weights=(1.0, 1.0), *, label_smoothing=0.0):
    """Class-weighted binary cross-entropy, `-w[y] * log p(y)` with p = sigmoid(logit), without overflow.

    Args:
        labels: (batch, 1), 0 real or 1 fake, or the share of fake in an image mixed of two.
        logits: (batch, 1).
        class_weights: the weights of real and of fake.
        label_smoothing: how far labels are pulled towards 0.5, in [0, 1), as by `keras.losses.BinaryCrossentropy`.

    Returns:
        float32 (batch,), in nats.
    """
    counts = _counts(_real_and_fake(labels), class_weights, label_smoothing)
    return ops.sum(counts * _surprise(logits), axis=-1)


def focal(labels, logits, class_weights=(1.0, 1.0), *, gamma=2.0, label_smoothing=0.0):
    """Class-weighted focal loss, `-w[y] * (1 - p(y))**gamma * log p(y)` with p = sigmoid(logit), without overflow.

    What the network is sure of, and right, counts for less. The class weights are the paper's alpha. A mixed image or
    a smoothed label costs its shares of the losses of real and of fake.

    Args:
        labels: (batch, 1), 0 real or 1 fake, or the share of fake in an image mixed of two.
        logits: (batch, 1).
        class_weights: the weights of real and of fake.
        gamma: how much less; at least 0, with which this is `binary_cross_entropy`.
        label_smoothing: how far labels are pulled towards 0.5, in [0, 1).

    Returns:
        float32 (batch,), in nats.

    References:
        Lin et al. 2017, Focal Loss for Dense Object Detection, https://arxiv.org/abs/1708.02002
    """
    counts, surprise = _counts(_real_and_fake(labels), class_weights, label_smoothing), _surprise(logits)
    # 1 - p of one is p of the other. Its power by exp, for that of 0 has no finite gradient where gamma is below 1.
    doubt = ops.exp(-gamma * ops.flip(surprise, axis=-1))
    return ops.sum(counts * doubt * surprise, axis=-1)


def squared_error(labels, logits, class_weights=(1.0, 1.0), *, label_smoothing=0.0):
    """Class-weighted squared error, `w[y] * (p - y)**2` with p = sigmoid(logit).

    Args:
        labels: (batch, 1), 0 real or 1 fake, or the share of fake in an image mixed of two.
        logits: (batch, 1).
        class_weights: the weights of real and of fake; those of a mixed image are averaged by its shares.
        label_smoothing: how far labels are pulled towards 0.5, in [0, 1).

    Returns:
        float32 (batch,), between 0 and the greater weight.
    """
    shares = _real_and_fake(labels)
    fake = _counts(shares, (1.0, 1.0), label_smoothing)[:, 1]
    errors = ops.sigmoid(ops.cast(logits, "float32"))[:, 0] - fake
    return ops.sum(_counts(shares, class_weights, 0.0), axis=-1) * ops.square(errors)


def categorical_cross_entropy(labels, logits, class_weights=None, *, label_smoothing=0.0):
    """Class-weighted cross-entropy, `-w[y] * log p(y)` with p = softmax(logits).

    Args:
        labels: (batch,), class indices, or (batch, classes), the shares of each in an image mixed of two.
        logits: (batch, classes).
        class_weights: one weight per class; all 1 when absent.
        label_smoothing: how far labels are pulled towards 1 / classes, in [0, 1), as by
            `keras.losses.CategoricalCrossentropy`.

    Returns:
        float32 (batch,), in nats.
    """
    labels, logits = ops.convert_to_tensor(labels), ops.cast(logits, "float32")
    if len(labels.shape) < 2:
        labels = ops.one_hot(ops.cast(labels, "int32"), logits.shape[-1])
    weights = 1.0 if class_weights is None else class_weights
    counts = _counts(ops.cast(labels, "float32"), weights, label_smoothing)
    return -ops.sum(counts * ops.log_softmax(logits), axis=-1)


def _counts(shares, class_weights, label_smoothing):
    """For how much each class counts in the loss of each image: float32 (batch, classes), as `shares`.

    Weights before smoothing: an image weighs what its own label says, or a heavy class would pull the others to it.
    """
    counts = shares * ops.array(class_weights, "float32")
    return (1 - label_smoothing) * counts + label_smoothing * ops.mean(counts, axis=-1, keepdims=True)


def _real_and_fake(labels):
    """The shares of real and of fake, float32 (batch, 2), of (batch, 1)."""
    labels = ops.cast(labels, "float32")
    return ops.concatenate([1 - labels, labels], axis=-1)


def _surprise(logits):
    """-log p of real and of fake, float32 (batch, 2), of (batch, 1)."""
    logits = ops.cast(logits, "float32")
    return ops.softplus(ops.concatenate([logits, -logits], axis=-1))  # softplus(-x): -log sigmoid(x)
