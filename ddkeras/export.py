"""A run as a SavedModel that TensorFlow Serving loads: encoded image bytes in, probabilities out."""

import json
import os
from pathlib import Path

import keras
import tensorflow as tf

from ddkeras.calibration import VERDICTS
from ddkeras.runs import Run
from pipelines import atomic
from pipelines.decoding import decode_and_resize
from pipelines.examples import LABELS


def export_saved_model(run: Run, exports: str | os.PathLike) -> Path:
    """Write the run's model to `exports`/<run>/<version>, the version being one more than the highest there.

    The graph holds the decode, the resize, the pixel scaling and the operating point, and loads with TensorFlow
    alone. Its signature `serving_default` takes `image_bytes`, string (batch,), and returns `fake_probability`,
    float32 (batch,), the `logit` it follows from, `verdict`, string (batch,): real, fake or unsure, and where the run
    has categories `category`, string (batch,), the likeliest one, and `category_probabilities`, float32 (batch,
    categories), in the order of `assets.extra/labels.json`. One image that cannot be decoded fails its whole request.

    Returns:
        The version's folder; its parent is the base path to give to TensorFlow Serving.
    """
    base = Path(exports) / run.name
    versions = [int(path.name) for path in base.glob("*") if path.name.isdigit()]
    final = base / str(max(versions, default=0) + 1)
    with atomic.folder(final, marker="saved_model.pb") as partial:
        archive = keras.export.ExportArchive()
        scorer = run.load_scorer()
        archive.track(scorer)
        archive.add_endpoint("serving_default", _serving_function(run, scorer))
        archive.write_out(partial, verbose=False)
        extra = partial / "assets.extra"
        extra.mkdir()
        labels = {"labels": list(LABELS), "categories": run.categories, "operating_point": run.point.to_dict()}
        (extra / "labels.json").write_text(json.dumps(labels, indent=2) + "\n")
    return final


def _serving_function(run: Run, scorer: keras.Model):
    size = run.recipe.image_size

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(image_bytes):
        scores = dict(scorer(decode_and_resize(image_bytes, size), training=False))
        scores["verdict"] = tf.gather(tf.constant(VERDICTS), scores["verdict"])
        if run.categories:
            best = tf.argmax(scores["category_probabilities"], axis=-1)
            scores["category"] = tf.gather(tf.constant(run.categories), best)
        return scores

    return serve
