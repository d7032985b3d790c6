"""What the demo says of image files, as HTML in plain words: of one with pictures, of many a table."""

import base64
import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from ddkeras.exceptions import ConfigError
from ddkeras.explanation import overlays
from ddkeras.explanation.explainer import Explainer, Explanation
from ddkeras.inference.prediction import Prediction, predict
from ddkeras.inference.stability import Stability, stability
from ddkeras.models.detector import HEADS
from ddkeras.reporting.html import plain
from ddkeras.reporting.html import table as html_table
from ddkeras.runs.run import Run
from pipelines.decoding import load_image
from pipelines.media.headers import UnreadableError
from pipelines.transforms.perturbations import MILD_PERTURBATIONS

MOST = 100  # images in one table
MEANS = {
    "real": "This detector found no traces of a generator that it knows.",
    "fake": "This detector found what it has learnt to be traces of a generator.",
    "unsure": "The score lies between real and fake: too close to call. Have a person look at it.",
}
_FLIPS = "By its score it would be {verdict}, but a mild re-encoding changes that. Have a person look at it."
_AS_THEY_ARE = (
    "Files are scored as they are. One whose verdict changes when it is saved again is unsure under One image, but "
    "not here."
)
_WAYS = ", ".join(MILD_PERTURBATIONS)
_SIDE = 320  # pixels that an image is drawn with, at least
_COLUMNS = ("name", "verdict", "fake_probability", "category", "category_probability", "error", "provenance")


class Answers:
    """A run, loaded once, that answers to image files.

    Raises:
        ConfigError: see `Run.load_model`.
    """

    def __init__(self, run: Run):
        self._explainer = Explainer(run)
        self._scorer = self._explainer.scorer
        self.name = self._scorer.name

    def one(self, path: Path) -> str:
        """The verdict on a file, its score, category, pictures of where the model looked, and provenance."""
        (found,) = predict(self._scorer, [path])
        if found.error:
            return _article(refused(f"{path.name} cannot be scored: {found.error}."))
        stable = self._stability(path)
        facts = "".join(_fact(*one) for one in _facts(found, stable))
        return _article(_verdict(path.name, found, stable), f'<div class="facts">{facts}</div>', self._pictures(path))

    def many(self, paths: list[Path]) -> str:
        """A table of files, in which one that cannot be scored has its error, and the same as CSV."""
        if len(paths) > MOST:
            return _article(refused(f"{len(paths)} files are too many; give at most {MOST} at once."))
        found = list(predict(self._scorer, paths))
        rows = html_table(("name", "verdict", "score", "category"), map(_row, found), numbers=("score",))
        told = f'<p class="dim">{_AS_THEY_ARE}</p>'
        return _article(f"<p>{_summary(found)}</p>", rows, _download(_csv(found)), told)

    def _stability(self, path: Path) -> Stability | None:
        try:
            return stability(self._scorer, [path.read_bytes()])[0]
        except UnreadableError:  # it has more pixels a side than WebP can have
            return None

    def _pictures(self, path: Path) -> str:
        image = load_image(path, self._scorer.image_size)
        try:
            found = [self._explainer.explain(image[None], head=head)[0] for head in self._heads()]
        except ConfigError as error:  # the network has no feature map that could tell
            return f'<p class="dim">There is no picture of where it looked: {plain(str(error))}</p>'
        pairs = [overlays.pair(image, one, max(_SIDE, len(image))) for one in found]
        figures = [_figure(pairs[0][0], f"{path.name}, as the network sees it: made square")]
        figures += [
            _figure(over, f"Coloured: {_looked_for(one)}") for one, (_, over) in zip(found, pairs, strict=True)
        ]
        return f'<div class="pictures">{"".join(figures)}</div>'

    def _heads(self) -> tuple[str, ...]:
        return HEADS if self._scorer.categories else HEADS[:1]


def refused(text: str) -> str:
    """One sentence on why there is no answer."""
    return f'<p class="refused" role="alert">{plain(text)}</p>'


def _article(*parts: str) -> str:
    return f'<div class="answer">{"".join(parts)}</div>'


# --- one -------------------------------------------------------------------------------------------------------


def _verdict(name: str, found: Prediction, stable: Stability | None) -> str:
    verdict, meaning = found.verdict, MEANS[found.verdict]
    if stable and stable.flips and verdict != "unsure":
        verdict, meaning = "unsure", _FLIPS.format(verdict=verdict)
    return (
        f'<div class="verdict {verdict}"><small>{plain(name)}</small>'
        f'<p class="word">{verdict.capitalize()}</p><p>{meaning}</p>'
        f'<div class="scale" aria-hidden="true"><i style="left: {found.fake_probability:.1%}"></i></div>'
        '<div class="ends" aria-hidden="true"><span>surely real</span><span>surely fake</span></div></div>'
    )


def _facts(found: Prediction, stable: Stability | None) -> Iterator[tuple[str, str, str]]:
    """Of each its name, its value, and what that means."""
    yield "Score", f"{found.fake_probability:.4f}", "The calibrated probability that it is fake."
    if stable:
        yield "Stability", f"{stable.change:.4f}", f"How far that moves, at most, when it is saved again: {_WAYS}."
    else:
        yield "Stability", "unknown", "It is too large to be saved again as WebP, by which that is measured."
    if found.category:
        likely = f"The likeliest, with probability {found.category_probability:.4f}."
        yield "Category", _named(found.category), likely
    yield "What the file says of itself", *_origin(found.provenance)


def _origin(provenance: str) -> tuple[str, str]:
    if not provenance:
        return (
            "Nothing",
            "No C2PA manifest and no tags name its origin. Most files have none; it has no part in the score.",
        )
    return "Its origin", f"{provenance}. It has no part in the score."


def _fact(name: str, value: str, more: str) -> str:
    return f"<div><small>{plain(name)}</small><b>{plain(value)}</b><small>{plain(more)}</small></div>"


def _looked_for(found: Explanation) -> str:
    return f"what speaks for {_named(found.explained)}"


def _named(category: str) -> str:
    return category.replace("_", " ")


def _figure(image: Image.Image, caption: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return f'<figure><img src="{source}" alt="{plain(caption)}"><figcaption>{plain(caption)}</figcaption></figure>'


# --- many ------------------------------------------------------------------------------------------------------


def _summary(found: list[Prediction]) -> str:
    verdicts = [one.verdict for one in found if not one.error]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in MEANS if verdict in verdicts)
    errors = len(found) - len(verdicts)
    said = f"{len(found)} file{'s' * (len(found) > 1)}: {counts or 'no verdict'}"
    return f"{said}{f', {errors} with an error' if errors else ''}."


def _row(found: Prediction) -> str:
    name = f'<td class="name">{plain(Path(found.path).name)}</td>'
    if found.error:
        return f'<tr>{name}<td class="fail" colspan="3">{plain(found.error)}</td></tr>'
    category = _named(found.category or "")
    verdict = f'<td class="{found.verdict}">{found.verdict}</td>'
    score = f'<td class="number">{found.fake_probability:.4f}</td>'
    return f"<tr>{name}{verdict}{score}<td>{plain(category)}</td></tr>"


def _csv(found: Iterable[Prediction]) -> str:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    table.writerows(_cells(found))
    return text.getvalue()


def _cells(found: Iterable[Prediction]) -> Iterator[list]:
    for one in found:
        yield [Path(one.path).name, *(getattr(one, column) for column in _COLUMNS[1:])]


def _download(table: str) -> str:
    """The table as a link that holds it, so that nothing is kept for it."""
    content = base64.b64encode(table.encode("utf-8", "surrogateescape")).decode()
    return f'<p><a class="csv" download="scores.csv" href="data:text/csv;base64,{content}">Download as CSV</a></p>'
