"""What is counted at each training step: correct answers of each head."""

from keras import ops


def authenticity_hits(labels, logits):
    """Where the sign of the logit is right.

    Args:
        labels: (batch, 1), 0 real or 1 fake, or the share of fake in an image mixed of two.
        logits: (batch, 1).

    Returns:
        float32 (batch,), 0 or 1.
    """
    return ops.cast(ops.equal(labels[:, 0] > 0.5, logits[:, 0] > 0), "float32")


def category_hits(labels, logits):
    """Where the greatest logit is that of the class.

    Args:
        labels: (batch,), class indices, or (batch, classes), the shares of each.
        logits: (batch, classes).

    Returns:
        float32 (batch,), 0 or 1.
    """
    if len(labels.shape) == 2:
        labels = ops.argmax(labels, axis=-1)
    return ops.cast(ops.equal(ops.cast(labels, "int32"), ops.cast(ops.argmax(logits, axis=-1), "int32")), "float32")
