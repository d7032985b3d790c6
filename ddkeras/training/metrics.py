"""Correct predictions of each head, counted at each training step."""

from keras import ops


def authenticity_hits(labels, logits):
    """Whether the sign of the logit is right.

    Args:
        labels: (batch, 1), 0 real or 1 fake, or in between for mixed images.
        logits: (batch, 1).

    Returns:
        float32 (batch,), 0 or 1.
    """
    return ops.cast(ops.equal(labels[:, 0] > 0.5, logits[:, 0] > 0), "float32")


def category_hits(labels, logits):
    """Whether the largest logit is that of the true class.

    Args:
        labels: (batch,), class indices, or (batch, classes), the shares of the classes in mixed images.
        logits: (batch, classes).

    Returns:
        float32 (batch,), 0 or 1.
    """
    if len(labels.shape) == 2:
        labels = ops.argmax(labels, axis=-1)
    return ops.cast(ops.equal(ops.cast(labels, "int32"), ops.cast(ops.argmax(logits, axis=-1), "int32")), "float32")
