"""From what a network says of windows to what a detector says of the images that they are of."""

from collections.abc import Mapping

import tensorflow as tf


def aggregate(
    outputs: Mapping[str, tf.Tensor], counts: tf.Tensor, how: str, *, whole: bool = False
) -> dict[str, tf.Tensor]:
    """Aggregate the outputs for windows.

    Args:
        outputs: `logit`, float32 (windows,); `attention`, the same, where it is used; with a category head
            `category_probabilities`, (windows, categories).
        counts: int32 (n,), windows of each image, whose windows follow on one another.
        how: one of `WEIGHTS`.
        whole: the first of an image's windows is the whole image, which has the category; the others have the logit.

    Returns:
        `logit`, a weighted mean, and `category_probabilities`, the mean of all or those of the whole image.
    """
    of_images = {}
    if "category_probabilities" in outputs:
        weights = category_weights(counts, whole=whole)
        of_images["category_probabilities"] = _sums(outputs["category_probabilities"], weights, counts)
    weights = logit_weights(outputs, counts, how, whole=whole)
    return {"logit": _sums(outputs["logit"][:, tf.newaxis], weights, counts)[:, 0], **of_images}


def logit_weights(outputs: Mapping[str, tf.Tensor], counts: tf.Tensor, how: str, *, whole: bool = False) -> tf.Tensor:
    """The weight of each window in the logit of its image, float32 (windows,); arguments as of `aggregate`."""
    if not whole:
        return WEIGHTS[how](outputs, counts)
    is_window = ~_are_first(counts)
    windows = {name: outputs[name][is_window] for name in ("logit", "attention") if name in outputs}
    positions = tf.where(is_window)
    return tf.scatter_nd(positions, WEIGHTS[how](windows, counts - 1), tf.shape(is_window, tf.int64))


def category_weights(counts: tf.Tensor, *, whole: bool = False) -> tf.Tensor:
    """The weight of each window in the category of its image, float32 (windows,); arguments as of `aggregate`."""
    return tf.cast(_are_first(counts), tf.float32) if whole else _equal_weights({}, counts)


def _are_first(counts: tf.Tensor) -> tf.Tensor:
    """Whether each window is the first of its image, bool (windows,)."""
    return tf.scatter_nd(
        tf.cumsum(counts, exclusive=True)[:, tf.newaxis], tf.ones_like(counts, tf.bool), [tf.reduce_sum(counts)]
    )


# --- weights of windows in the logit of their image, by the name of the aggregation -------------------------------


def _equal_weights(outputs: Mapping[str, tf.Tensor], counts: tf.Tensor) -> tf.Tensor:
    """For the mean."""
    return tf.repeat(1 / tf.cast(counts, tf.float32), counts)


def _attention_weights(outputs: Mapping[str, tf.Tensor], counts: tf.Tensor) -> tf.Tensor:
    """The softmax of a learned score over the windows of an image (Ilse et al. 2018, arxiv.org/abs/1802.04712)."""
    image = tf.repeat(tf.range(tf.size(counts)), counts)
    attention = tf.cast(outputs["attention"], tf.float32)
    powers = tf.exp(attention - tf.gather(tf.math.segment_max(attention, image), image))
    return powers / tf.gather(tf.math.segment_sum(powers, image), image)


def _top_weights(outputs: Mapping[str, tf.Tensor], counts: tf.Tensor) -> tf.Tensor:
    """For the mean of the largest third of the logits, at least of one: for edits of a part of an image."""
    logits = outputs["logit"]
    ragged = tf.RaggedTensor.from_row_lengths(logits, tf.cast(counts, tf.int64))
    dense = ragged.to_tensor(default_value=logits.dtype.min)
    rank = tf.argsort(tf.argsort(dense, axis=1, direction="DESCENDING", stable=True), axis=1)
    number = (counts + 2) // 3
    weights = tf.where(rank < number[:, tf.newaxis], 1 / tf.cast(number, logits.dtype)[:, tf.newaxis], 0)
    return tf.boolean_mask(weights, tf.sequence_mask(counts, tf.shape(dense)[1]))


WEIGHTS = {"mean": _equal_weights, "top": _top_weights, "attention": _attention_weights}


def _sums(values: tf.Tensor, weights: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """The weighted sums over the windows of each image, (windows, m) to (n, m)."""
    return tf.math.segment_sum(values * weights[:, tf.newaxis], tf.repeat(tf.range(tf.size(counts)), counts))
