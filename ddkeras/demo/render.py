"""Predictions on image files as HTML in plain words: one file with pictures, or many in a table."""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ddkeras.exceptions import ConfigError
from ddkeras.explanation import overlays
from ddkeras.explanation.explainer import load_explainer
from ddkeras.explanation.pictures import load_picture
from ddkeras.inference.prediction import Prediction, predict
from ddkeras.inference.stability import Stability, stability
from ddkeras.models.detector import HEADS
from ddkeras.reporting.document import Fact
from ddkeras.reporting.html import template_environment
from ddkeras.runs.run import Run
from pipelines.media.headers import UnreadableError
from pipelines.spreadsheets import harmless
from pipelines.transforms.perturbations import MILD_PERTURBATIONS
from pipelines.views import Windows

MAX_FILES = 100  # in one table
VERDICT_MEANINGS = {
    "real": "The detector found no traces of a generator that it knows.",
    "fake": "The detector found what it has learned to be traces of a generator.",
    "unsure": "The score lies between real and fake: too close to call. Have a person look at it.",
}
_FLIP = "By its score it would be {verdict}, but mild re-encoding changes that. Have a person look at it."
_TOO_SMALL = "It cannot be told from so few pixels: {reason}."
_PICTURE_SIDE = 320  # pixels as drawn, at least
_CSV_COLUMNS = (
    "name",
    "verdict",
    "reason",
    "fake_probability",
    "category",
    "category_probability",
    "error",
    "provenance",
)

_TEMPLATES = template_environment("ddkeras.demo")


def render_template(template: str, **values: object) -> str:
    """Render a template of the demo."""
    return _TEMPLATES.get_template(template).render(values)


class ResultRenderer:
    """A run, loaded once, with its results on image files as HTML.

    Raises:
        ConfigError: see `Run.load_model`.
    """

    def __init__(self, run: Run):
        self._explainer = load_explainer(run)
        self._scorer = self._explainer.scorer
        self.name = self._scorer.name

    def image(self, path: Path) -> str:
        """One file: verdict, score, stability, category, provenance, and pictures of the evidence."""
        (prediction,) = predict(self._scorer, [path])
        if prediction.verdict is None:
            return _refusal(f"{path.name} cannot be scored: {prediction.error}.")
        reencoded = self._stability(path)
        verdict, meaning = prediction.verdict, VERDICT_MEANINGS[prediction.verdict]
        if prediction.reason:
            meaning = _TOO_SMALL.format(reason=prediction.reason)
        if reencoded and reencoded.flips and verdict != "unsure":
            verdict, meaning = "unsure", _FLIP.format(verdict=verdict)
        pictures, no_pictures = self._pictures(path)
        return render_template(
            "image.html.j2",
            name=path.name,
            verdict=verdict,
            meaning=meaning,
            fake_probability=prediction.fake_probability,
            facts=list(_facts(prediction, reencoded)),
            pictures=pictures,
            no_pictures=no_pictures,
        )

    def table(self, paths: list[Path]) -> str:
        """Many files: a table, with an error for each file that cannot be scored, and its CSV."""
        if len(paths) > MAX_FILES:
            return _refusal(f"{len(paths)} files are too many; upload at most {MAX_FILES} at once.")
        predictions = list(predict(self._scorer, paths))
        return render_template(
            "table.html.j2",
            summary=_summary(predictions),
            predictions=[(Path(prediction.path).name, prediction) for prediction in predictions],
            csv=_csv(predictions),
        )

    def _stability(self, path: Path) -> Stability | None:
        try:
            return stability(self._scorer, [path.read_bytes()])[0]
        except UnreadableError:  # larger than WebP allows
            return None

    def _pictures(self, path: Path) -> tuple[list[tuple[bytes, str]], str]:
        """PNGs with their captions, of the image and of the evidence for each head; or why there are none."""
        picture = load_picture(path, self._scorer.view)
        heads = HEADS if self._scorer.categories else HEADS[:1]
        try:
            explanations = [
                self._explainer.explain_pictures([picture], method="gradcam", head=head)[0] for head in heads
            ]
        except ConfigError as error:  # the network has no feature map to explain
            return [], str(error)
        side = max(_PICTURE_SIDE, *picture.whole.shape[:2])
        pairs = [overlays.image_and_overlay(each, side) for each in explanations]
        seen = " as the network sees it, resized to a square"
        if isinstance(self._scorer.view, Windows):
            seen = ", of which the network sees windows at full resolution"
        pictures = [(_png(pairs[0][0]), path.name + seen)]
        pale = ". Pale: what it does not see" if np.isnan(explanations[0].heatmap).any() else ""
        for explanation, (_, overlay) in zip(explanations, pairs, strict=True):
            pictures.append((_png(overlay), f"In colour: evidence for {_spaced(explanation.target)}{pale}"))
        return pictures, ""


def _refusal(reason: str) -> str:
    return render_template("refusal.html.j2", reason=reason)


def _facts(prediction: Prediction, reencoded: Stability | None) -> Iterator[Fact]:
    yield Fact(f"{prediction.fake_probability:.4f}", "Score", "The calibrated probability that the image is fake.")
    if reencoded:
        more = f"The largest change of the score when the image is re-saved: {', '.join(MILD_PERTURBATIONS)}."
        yield Fact(f"{reencoded.change:.4f}", "Score shift", more)
    else:
        yield Fact(
            "unknown", "Score shift", "The image is too large to be re-saved as WebP, which measuring it needs."
        )
    if prediction.category:
        more = f"The most likely one, with probability {prediction.category_probability:.4f}."
        yield Fact(_spaced(prediction.category), "Category", more)
    name, unused = "What the file says about itself", "The score does not use it."
    if prediction.provenance:
        yield Fact("Its origin", name, f"{prediction.provenance}. {unused}")
    else:
        more = f"No C2PA manifest and no tags that name its origin. Most files have none. {unused}"
        yield Fact("Nothing", name, more)


def _spaced(category: str) -> str:
    return category.replace("_", " ")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _summary(predictions: list[Prediction]) -> str:
    verdicts = [prediction.verdict for prediction in predictions if not prediction.error]
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICT_MEANINGS if verdict in verdicts]
    if errors := len(predictions) - len(verdicts):
        counts = [*(counts or ["no verdict"]), f"{errors} with an error"]
    return f"{len(predictions)} file{'s' * (len(predictions) > 1)}: {', '.join(counts)}."


def _csv(predictions: Iterable[Prediction]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_CSV_COLUMNS)
    for prediction in predictions:
        name = Path(prediction.path).name
        cells = [name, *(getattr(prediction, column) for column in _CSV_COLUMNS[1:])]
        table.writerow(map(harmless, cells))
    return text.getvalue().encode("utf-8", "surrogateescape")
