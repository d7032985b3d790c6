"""The losses of the two heads: pure functions first, the Keras classes that carry their class weights after."""

import keras
from keras import ops


def binary_cross_entropy(labels, logits, class_weights=(1.0, 1.0)):
    """Class-weighted binary cross-entropy, `-w[y] * log p(y)` with p = sigmoid(logit), without overflow.

    Args:
        labels: (batch, 1), 0 real or 1 fake.
        logits: (batch, 1).
        class_weights: the weights of real and of fake.

    Returns:
        float32 (batch,), in nats.
    """
    labels, logits = ops.cast(labels, "float32"), ops.cast(logits, "float32")
    losses = ops.softplus(logits) - labels * logits  # -log sigmoid, https://www.tensorflow.org/api_docs/python/tf/nn
    weights = class_weights[0] + labels * (class_weights[1] - class_weights[0])
    return ops.squeeze(weights * losses, axis=-1)


def categorical_cross_entropy(labels, logits, class_weights=None):
    """Class-weighted cross-entropy, `-w[y] * log p(y)` with p = softmax(logits).

    Args:
        labels: (batch,), class indices.
        logits: (batch, classes).
        class_weights: one weight per class; all 1 when absent.

    Returns:
        float32 (batch,), in nats.
    """
    logits = ops.cast(logits, "float32")
    labels = ops.cast(ops.reshape(labels, (-1,)), "int32")
    losses = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    return losses if class_weights is None else losses * ops.take(ops.array(class_weights, "float32"), labels)


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
