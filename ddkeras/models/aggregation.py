"""From what a network says of windows to what a detector says of the images that they are of."""

from collections.abc import Mapping

import tensorflow as tf


def aggregate(outputs: Mapping[str, tf.Tensor], counts: tf.Tensor, how: str) -> dict[str, tf.Tensor]:
    """Aggregate the outputs for windows.

    Args:
        outputs: `logit`, float32 (windows,); with a category head `category_probabilities`, (windows, categories).
        counts: int32 (n,), windows of each image, whose windows follow on one another.
        how: one of `WEIGHTS`.

    Returns:
        The same for images: the weighted sum of the logits, and the mean of the category probabilities.
    """
    logits = _sums(outputs["logit"][:, tf.newaxis], WEIGHTS[how](outputs["logit"], counts), counts)[:, 0]
    if "category_probabilities" not in outputs:
        return {"logit": logits}
    probabilities = outputs["category_probabilities"]
    means = _sums(probabilities, equal_weights(outputs["logit"], counts), counts)
    return {"logit": logits, "category_probabilities": means}


def equal_weights(logits: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Weights for the mean of an image's windows; arguments and result as of `top_weights`."""
    return tf.repeat(1 / tf.cast(counts, logits.dtype), counts)


def top_weights(logits: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Weights for the mean of the largest third of an image's windows, at least of one: for edits of a part of it.

    Args:
        logits: float (windows,).
        counts: int32 (n,), windows of each image.

    Returns:
        float (windows,), whose sum is 1 over each image.
    """
    ragged = tf.RaggedTensor.from_row_lengths(logits, tf.cast(counts, tf.int64))
    dense = ragged.to_tensor(default_value=logits.dtype.min)
    rank = tf.argsort(tf.argsort(dense, axis=1, direction="DESCENDING", stable=True), axis=1)
    number = (counts + 2) // 3
    weights = tf.where(rank < number[:, tf.newaxis], 1 / tf.cast(number, logits.dtype)[:, tf.newaxis], 0)
    return tf.boolean_mask(weights, tf.sequence_mask(counts, tf.shape(dense)[1]))


WEIGHTS = {"mean": equal_weights, "top": top_weights}  # of windows in the logit of their image


def _sums(values: tf.Tensor, weights: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """The weighted sums over the windows of each image, (windows, m) to (n, m)."""
    return tf.math.segment_sum(values * weights[:, tf.newaxis], tf.repeat(tf.range(tf.size(counts)), counts))
