"""Squash or windows: the view of a training, where the recipe leaves it to the images."""

import logging
from dataclasses import replace

import numpy as np
import tensorflow as tf

from ddkeras.config import Recipe
from pipelines.audit.views import suitable_view
from pipelines.records import corruption, queries, schema
from pipelines.records.store import Records

_SAMPLE = 1000  # images; records are shuffled
_log = logging.getLogger(__name__)


def resolve_view(recipe: Recipe, records: Records) -> Recipe:
    """The recipe with a view that suits the training images, where it is `auto`; the log says which and why.

    Images that were equalised by resizing have no native resolution: they are squashed, and windows get a warning.
    """
    was_resized = queries.equalisation(records) == "resize"
    if recipe.view == "windows" and was_resized:
        _log.warning(
            "%s was equalised by resizing, so that windows show how the images were scaled, not how they were made; "
            "convert them with --equalise crop, or give --view squash",
            records.folder,
        )
    if recipe.view != "auto":
        return recipe
    side = _median_side(records)
    if was_resized or suitable_view(side, recipe.image_size) == "squash":
        return replace(recipe, view="squash")
    _log.info(
        "view windows: half of the training images are at least %d pixels wide and high, twice the %d of the network "
        "or more, so that squash would blur them; --view squash resizes them all the same",
        side,
        recipe.image_size,
    )
    return replace(recipe, view="windows")


def _median_side(records: Records) -> int:
    """The median of the shorter sides of a sample of the training images, in pixels."""
    split = records.split("train")
    with corruption.locate_errors(split):
        sample = tf.data.TFRecordDataset(split.files).batch(_SAMPLE).take(1).get_single_element()
    sizes = tf.io.parse_example(sample, schema.feature_spec("height", "width"))
    return int(np.median(np.minimum(sizes["height"], sizes["width"])))
