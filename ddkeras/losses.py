"""The losses of the two heads: pure functions first, the Keras classes that carry their class weights after."""

import keras
from keras import ops


def binary_cross_entropy(labels, logits, class_weights=(1.0, 1.0)):
    """Class-weighted binary cross-entropy, `-w[y] * log p(y)` with p = sigmoid(logit), without overflow.

    Args:
        labels: (batch, 1), 0 real or 1 fake, or the share of fake in an image mixed of two.
        logits: (batch, 1).
        class_weights: the weights of real and of fake.

    Returns:
        float32 (batch,), in nats.
    """
    labels, logits = ops.cast(labels, "float32"), ops.cast(logits, "float32")
    real, fake = (1 - labels) * ops.softplus(logits), labels * ops.softplus(-logits)  # softplus(-x): -log sigmoid(x)
    return ops.squeeze(class_weights[0] * real + class_weights[1] * fake, axis=-1)


def categorical_cross_entropy(labels, logits, class_weights=None):
    """Class-weighted cross-entropy, `-w[y] * log p(y)` with p = softmax(logits).

    Args:
        labels: (batch,), class indices, or (batch, classes), the shares of each in an image mixed of two.
        logits: (batch, classes).
        class_weights: one weight per class; all 1 when absent.

    Returns:
        float32 (batch,), in nats.
    """
    labels, logits = ops.convert_to_tensor(labels), ops.cast(logits, "float32")
    if len(labels.shape) < 2:
        labels = ops.one_hot(ops.cast(labels, "int32"), logits.shape[-1])
    weights = 1.0 if class_weights is None else ops.array(class_weights, "float32")
    return -ops.sum(weights * ops.cast(labels, "float32") * ops.log_softmax(logits), axis=-1)


class BinaryCrossEntropy(keras.losses.Loss):
    """`binary_cross_entropy` as a Keras loss: the mean over the batch."""

    def __init__(self, class_weights=(1.0, 1.0), name="binary_cross_entropy"):
        super().__init__(name=name)
        self.class_weights = class_weights

    def call(self, y_true, y_pred):
        return binary_cross_entropy(y_true, y_pred, self.class_weights)


class CategoricalCrossEntropy(keras.losses.Loss):
    """`categorical_cross_entropy` as a Keras loss: the mean over the batch."""

    def __init__(self, class_weights=None, name="categorical_cross_entropy"):
        super().__init__(name=name)
        self.class_weights = class_weights

    def call(self, y_true, y_pred):
        return categorical_cross_entropy(y_true, y_pred, self.class_weights)
