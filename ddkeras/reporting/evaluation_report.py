"""The report on one split: files to keep, and one document to read."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ddkeras.metrics.bootstrap import Estimate
from ddkeras.metrics.calibration import VERDICTS, OperatingPoint
from ddkeras.metrics.classification import probability
from ddkeras.metrics.split_metrics import (
    BiasProbe,
    CategoryMetrics,
    Robustness,
    SplitMetrics,
    Stability,
    SubgroupMetrics,
    UnstableImage,
)
from ddkeras.reporting import figures, html, model_card, pdf, summary
from ddkeras.reporting.document import (
    Block,
    Document,
    Drawing,
    Drawings,
    Heading,
    Paragraph,
    Picture,
    Pictures,
    Point,
    Points,
    Table,
    shortened,
)
from ddkeras.reporting.model_card import ModelCard
from ddkeras.reporting.summary import format_number, format_share
from pipelines.spreadsheets import harmless_table
from pipelines.wording import count_of

_IMAGES = 12  # shown of each kind
_MAX_CLASSES = 12  # in a figure; more cannot be read, and are in metrics.json
_MAX_ROWS = 60  # of a table; all are in metrics.json
_RANKING = {
    "auc": ("AUC", "probability that a fake scores higher than a real; 0.5 is chance"),
    "average_precision": ("average precision", "area under the precision-recall curve"),
    "equal_error_rate": ("equal error rate", "where reals and fakes are misclassified equally often"),
}
_DECISIONS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision": "precision: images called fake that are fake",
    "recall": "recall: fakes called fake",
    "f1": "F1",
    "false_positive_rate": "false positive rate: reals called fake",
}
_PROBABILITIES = {
    "log_loss": "log loss, in nats",
    "brier": "Brier score",
    "calibration_error": "calibration error",
}
_REENCODED = {
    "neither": "neither",
    "reals": "reals only",
    "fakes": "fakes only",
    "both": "both",
}


@dataclass(frozen=True, eq=False)
class TrainingHistory:
    """One row per epoch, as in history.csv; the epoch whose weights were kept, from 1; and the recipe's loss."""

    epochs: pd.DataFrame
    best_epoch: int
    loss: str = "cross_entropy"


@dataclass(frozen=True, eq=False, repr=False)
class EvaluationReport:
    """What was measured on one split.

    Args:
        metrics: all numbers.
        predictions: a row per image: path, source, group, label (0 real, 1 fake), logit, fake_probability, verdict,
            and with categories true_category (empty when unknown), predicted_category and category_probability.
        training: None for an ensemble.
        card: what is known of the detector's making.
        thumbnails: JPEGs of at most 160 pixels, by path, of the images in `shown_paths`.
    """

    metrics: SplitMetrics
    predictions: pd.DataFrame
    training: TrainingHistory | None = None
    card: ModelCard = field(default_factory=ModelCard)
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def auc(self) -> Estimate:
        """The area under the ROC curve; fake is the positive class."""
        return self.metrics.authenticity.auc

    @property
    def shown_paths(self) -> list[str]:
        """Paths of the images that the report shows, each once."""
        point = self.metrics.provenance.operating_point
        tables = [*_worst_errors(self.predictions, point).values(), _least_certain(self.predictions, point)]
        unstable = [image.path for image in _least_stable(self.metrics.stability)]
        return list(dict.fromkeys([path for table in tables for path in table["path"]] + unstable))

    def __repr__(self) -> str:
        """Split, number of images and AUC."""
        return f"EvaluationReport({self.metrics.split}, {count_of(self.metrics.examples, 'image')}, AUC {self.auc})"

    def to_dict(self) -> dict[str, Any]:
        """The metrics as in metrics.json."""
        return self.metrics.to_dict()

    def to_frame(self) -> pd.DataFrame:
        """The predictions."""
        return self.predictions

    def report(self, folder: str | Path) -> None:
        """Write report.html, report.pdf, metrics.json, predictions.csv and the figures as PNG.

        Args:
            folder: created if missing; files of these names in it are replaced.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(self.to_dict(), indent=2) + "\n")
        harmless_table(self.predictions).to_csv(folder / "predictions.csv", index=False, errors="surrogateescape")
        composed = document(self)
        for block in composed.blocks:
            for drawing in block.items if isinstance(block, Drawings) else ():
                (folder / f"{drawing.name}.png").write_bytes(drawing.png)
        (folder / "report.html").write_text(html.render(composed), encoding="utf-8")
        (folder / "report.pdf").write_bytes(pdf.render(composed))


def document(report: EvaluationReport) -> Document:
    """The content of `report.html` and `report.pdf`."""
    metrics, predictions, thumbnails = report.metrics, report.predictions, report.thumbnails
    provenance = metrics.provenance
    sample = f"{metrics.split}, n = {metrics.examples:,}"
    blocks = [
        *summary.summary(metrics, report.card.audit),
        *_numbers(metrics),
        *_ranking(metrics, predictions, sample),
        *_decisions(metrics, predictions, sample),
        *_subgroups(metrics.tables),
        *_robustness(metrics.robustness),
        *_bias_probe(metrics.bias_probe),
        *_stability(metrics.stability, thumbnails),
        *_images(predictions, provenance.operating_point, thumbnails),
        *_training(report.training),
        *_model_card(metrics, report.card),
    ]
    images = count_of(metrics.examples, "image")
    about = f"{images}, records {provenance.records[:16]}, ddkeras {provenance.versions['ddkeras']}"
    return Document(f"{provenance.run}, evaluated on {metrics.split}", about, blocks)


# --- numbers ---------------------------------------------------------------------------------------------------


def _numbers(metrics: SplitMetrics) -> Iterator[Block]:
    authenticity, fitted = metrics.authenticity, metrics.provenance.operating_point.fitted
    yield Heading("Metrics")
    yield Paragraph("Fake is the positive class. Brackets hold 95% confidence intervals.", is_dim=True)
    yield Heading("Ranking: how well scores separate fakes from reals", 3)
    rows = []
    for key, (name, meaning) in _RANKING.items():
        estimate = getattr(authenticity, key)
        rows.append((name, format_number(estimate), estimate.reason or meaning))
    for rate, recall in authenticity.recall_at.items():
        # The reason for a missing value is a sentence, too long for a column of numbers.
        meaning = recall.reason or f"fakes called fake if {rate:.1%} of reals may be"
        rows.append((f"recall at {rate:.1%}", format_share(recall), meaning))
    yield Table(["metric", "value", "meaning"], rows, ["value"])
    yield Heading("Verdicts", 3)
    at_point, at_half = authenticity.at_operating_point, authenticity.at_half
    decisions = [
        (name, format_share(getattr(at_point, key)), format_share(getattr(at_half, key)))
        for key, name in _DECISIONS.items()
    ]
    decisions += [
        ("coverage: images with a verdict of real or fake", format_share(authenticity.coverage), ""),
        ("risk: verdicts that are wrong", format_share(authenticity.risk), ""),
    ]
    columns = ["at the operating point", "at probability 0.5"]
    yield Table(["metric", *columns], decisions, columns)
    if fitted:
        yield Paragraph(
            f"The operating point was fitted on the validation split, with {fitted['reals']:,} reals and "
            f"{fitted['fakes']:,} fakes, so that at most {fitted['false_alarms']:.1%} of the reals are called fake "
            f"and at most {fitted['misses']:.1%} of the fakes real. Images in between are unsure, and count as not "
            "called fake.",
            is_dim=True,
        )
    yield Heading("Calibration: how reliable the probabilities are", 3)
    calibration = [
        (
            name,
            format_number(getattr(authenticity.uncalibrated, key)),
            format_number(getattr(authenticity.calibrated, key)),
        )
        for key, name in _PROBABILITIES.items()
    ]
    columns = ["before calibration", "after"]
    yield Table(["metric, lower is better", *columns], calibration, columns)
    if metrics.category and metrics.category.examples:
        yield from _category(metrics.category)


def _category(category: CategoryMetrics) -> Iterator[Block]:
    yield Heading(f"Categories, on {count_of(category.examples, 'image')} with one", 3)
    yield Paragraph(f"Accuracy {format_share(category.accuracy)}, macro F1 {format_number(category.macro_f1)}.")
    rows = [
        (
            shortened(name),
            f"{each.examples:,}",
            *(_format_plain(value) for value in (each.precision, each.recall, each.f1)),
        )
        for name, each in list(category.classes.items())[:_MAX_ROWS]
    ]
    columns = ["images", "precision", "recall", "F1"]
    yield Table(["category", *columns], rows, columns)


def _format_plain(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _subgroups(tables: Mapping[str, list[SubgroupMetrics]]) -> Iterator[Block]:
    if not tables:
        return
    yield Heading("Where it fails")
    yield Paragraph(
        "Metrics of subgroups of the images. If a subgroup has only one label, its AUC is against the other label in "
        "the same categories. Subgroups with too few images have no number."
    )
    columns = ["real", "fake", "reals called fake", "fakes called fake", "unsure", "AUC"]
    for title, rows in tables.items():
        names = title.split(" and ")
        yield Heading(f"By {title}", 3)
        largest = sorted(rows, key=lambda row: -row.real - row.fake)[:_MAX_ROWS]
        cells = [
            [*(shortened(row.subgroup[name]) or "unknown" for name in names), *_subgroup_cells(row)]
            for row in rows
            if row in largest
        ]
        yield Table([*names, *columns], cells, columns)
        if len(rows) > _MAX_ROWS:
            yield Paragraph(f"The {_MAX_ROWS} largest are shown; all {len(rows)} are in metrics.json.", is_dim=True)


def _subgroup_cells(row: SubgroupMetrics) -> list[str]:
    shares = [format_share(share) for share in (row.false_positive_rate, row.recall, row.unsure)]
    return [f"{row.real:,}", f"{row.fake:,}", *shares, format_number(row.auc)]


# --- figures ---------------------------------------------------------------------------------------------------


def _ranking(metrics: SplitMetrics, predictions: pd.DataFrame, sample: str) -> Iterator[Block]:
    point, decisions = metrics.provenance.operating_point, metrics.authenticity.at_operating_point
    labels, logits = predictions["label"].to_numpy(), predictions["logit"].to_numpy()
    yield Heading("Real against fake")
    scores = _scores(labels, logits, point, sample)
    if metrics.authenticity.auc.is_missing:
        yield Paragraph("All images have the same label, so there is no ROC curve and no precision-recall curve.")
        yield Drawings([scores])
        return
    false_positive_rate, recall = decisions.false_positive_rate.value, decisions.recall.value
    yield Drawings(
        [
            figures.roc(labels, logits, (false_positive_rate, recall), sample, is_log=False),
            figures.roc(labels, logits, (false_positive_rate, recall), sample, is_log=True),
            figures.precision_recall(labels, logits, (recall, decisions.precision.value), sample),
            scores,
        ]
    )
    if point.by_category:
        yield Paragraph(
            f"These categories have thresholds of their own: {', '.join(point.by_category)}. The operating point can "
            "therefore lie off the curves.",
            is_dim=True,
        )


def _scores(labels: np.ndarray, logits: np.ndarray, point: OperatingPoint, sample: str) -> Drawing:
    thresholds = [("fake from here", point.limits.fake_from), ("real below", point.limits.real_below)]
    calibrated = [(name, threshold / point.temperature) for name, threshold in thresholds]
    return figures.scores(labels, logits / point.temperature, calibrated, sample)


def _decisions(metrics: SplitMetrics, predictions: pd.DataFrame, sample: str) -> Iterator[Block]:
    labels, logits = predictions["label"].to_numpy(), predictions["logit"].to_numpy()
    point, verdicts = metrics.provenance.operating_point, metrics.authenticity.verdicts
    centred, certainty = _certainty(predictions, point)
    counts = np.array([[row[verdict] for verdict in VERDICTS] for row in verdicts.values()])
    drawings = [
        figures.reliability(labels, logits, logits / point.temperature, sample),
        figures.risk_coverage((centred >= 0) != (labels == 1), certainty, sample),
        figures.confusion(
            "authenticity", "Real or fake: label and verdict", counts, list(verdicts), VERDICTS, sample
        ),
    ]
    category = metrics.category
    if category and category.examples and len(category.categories) <= _MAX_CLASSES:
        names, with_category = category.categories, f"{metrics.split}, n = {category.examples:,}"
        title = "Category: true and predicted"
        drawings.append(
            figures.confusion("category", title, np.array(category.confusion), names, names, with_category)
        )
    yield Heading("Probabilities and verdicts")
    yield Paragraph(
        f"Calibration divides the logits by {point.temperature:.3g}, so that about 70% of the images with a "
        "probability of 70% are fake. It changes neither the ranking nor the verdicts."
    )
    columns = ["called real below", "called fake from"]
    yield Table(["images", *columns], list(_threshold_rows(point)), columns)
    yield Drawings(drawings)


def _threshold_rows(point: OperatingPoint) -> Iterator[tuple[str, str, str]]:
    """The thresholds as probabilities."""
    others = "all others" if point.by_category else "all"
    by_category = {f"predicted to be {shortened(name)}": limits for name, limits in point.by_category.items()}
    for name, limits in (by_category | {others: point.limits}).items():
        real, fake = (probability(limit / point.temperature) for limit in (limits.real_below, limits.fake_from))
        yield name, f"{real:.1%}", f"{fake:.1%}"


# --- under other conditions ------------------------------------------------------------------------------------


def _robustness(robustness: Robustness | None) -> Iterator[Block]:
    if not robustness:
        return
    columns = ["AUC", "reals called fake", "fakes called fake"]
    rows = [
        (
            variant.name,
            format_number(variant.auc),
            format_share(variant.false_positive_rate),
            format_share(variant.recall),
        )
        for variant in robustness.variants
    ]
    yield Heading("Robustness")
    yield Paragraph(
        f"{count_of(robustness.images, 'image')}, as they are and changed as images often are when they are shared."
    )
    yield Table(["images", *columns], rows, columns)
    yield Drawings([figures.robustness(robustness.variants, f"n = {robustness.images:,}")])


def _bias_probe(probe: BiasProbe | None) -> Iterator[Block]:
    if not probe:
        return
    yield Heading("Does it rely on the codec?")
    yield Paragraph(
        "The AUC when the images of one label are re-encoded. A detector that looks at how an image was generated "
        "ranks them as before; one that looks at how the file was saved does not."
    )
    yield Points([Point(probe.verdict, summary.format_sentence(probe.text))])
    rows = [(codec, *(format_number(auc[key]) for key in _REENCODED)) for codec, auc in probe.auc.items()]
    yield Table(["re-encoded as", *_REENCODED.values()], rows, list(_REENCODED.values()))
    yield Paragraph(f"The AUC moves most with {probe.by}: by {format_number(probe.swing)}.")


def _stability(stability: Stability | None, thumbnails: Mapping[str, bytes]) -> Iterator[Block]:
    if not stability:
        return
    yield Heading("Stability")
    yield Paragraph(f"{summary.format_stability(stability)} Tried on {count_of(stability.examples, 'image')}.")
    unstable = _least_stable(stability)
    if unstable:
        yield Heading("The least stable", 3)
        perturbations = ", ".join(stability.by)
        yield Paragraph(
            f"The label, then the probability of fake and the verdict: unchanged, {perturbations}.", is_dim=True
        )
        yield Pictures(
            [Picture(image.path, _format_changes(image), thumbnails.get(image.path)) for image in unstable]
        )


def _format_changes(image: UnstableImage) -> str:
    steps = (f"{p:.0%} {verdict}" for p, verdict in zip(image.probabilities, image.verdicts, strict=True))
    return f"{VERDICTS[image.label]}: {', '.join(steps)}"


def _least_stable(stability: Stability | None) -> list[UnstableImage]:
    return stability.worst[:_IMAGES] if stability else []


# --- images ----------------------------------------------------------------------------------------------------


def _images(predictions: pd.DataFrame, point: OperatingPoint, thumbnails: Mapping[str, bytes]) -> Iterator[Block]:
    errors = _worst_errors(predictions, point)
    titles = {0: "Reals that score most like fakes", 1: "Fakes that score most like reals"}
    yield Heading("The worst errors and the least certain images")
    yield Paragraph("Look at these first: often a label is wrong, or the images have something in common.")
    if all(rows.empty for rows in errors.values()):
        yield Paragraph("No image is on the wrong side of the thresholds.")
    for label, title in titles.items():
        if len(errors[label]):
            yield Heading(title, 3)
            yield Pictures(_pictures(errors[label], thumbnails))
    yield Heading("Least certain, closest to the middle of the thresholds", 3)
    yield Pictures(_pictures(_least_certain(predictions, point), thumbnails))


def _pictures(rows: pd.DataFrame, thumbnails: Mapping[str, bytes]) -> list[Picture]:
    pictures = []
    columns = (rows[name] for name in ("path", "label", "verdict", "fake_probability"))
    for path, label, verdict, fake_probability in zip(*columns, strict=True):
        outcome = "left unsure" if verdict == "unsure" else f"called {verdict}"
        text = f"{VERDICTS[label]}, {outcome} ({fake_probability:.1%} fake)"
        pictures.append(Picture(path, text, thumbnails.get(path)))
    return pictures


def _worst_errors(predictions: pd.DataFrame, point: OperatingPoint) -> dict[int, pd.DataFrame]:
    """By label, the images that score furthest on the other label's side."""
    centred, _ = _certainty(predictions, point)
    labels = predictions["label"].to_numpy()
    error = np.where(labels == 0, centred, -centred)
    order = np.argsort(-error, kind="stable")
    order = order[error[order] > 0]
    return {label: predictions.iloc[order[labels[order] == label][:_IMAGES]] for label in (0, 1)}


def _least_certain(predictions: pd.DataFrame, point: OperatingPoint) -> pd.DataFrame:
    centred, _ = _certainty(predictions, point)
    return predictions.iloc[np.argsort(np.abs(centred), kind="stable")[:_IMAGES]]


def _certainty(predictions: pd.DataFrame, point: OperatingPoint) -> tuple[np.ndarray, np.ndarray]:
    """How far each logit lies above the middle of its two thresholds, and how far outside them: negative between."""
    low = np.full(len(predictions), point.limits.real_below)
    high = np.full(len(predictions), point.limits.fake_from)
    for name, limits in point.by_category.items():
        in_category = (predictions["predicted_category"] == name).to_numpy()
        low[in_category], high[in_category] = limits.real_below, limits.fake_from
    centred = predictions["logit"].to_numpy() - (low + high) / 2
    return centred, np.abs(centred) - (high - low) / 2


def _training(training: TrainingHistory | None) -> Iterator[Block]:
    if training:
        yield Heading("Training")
        yield Drawings(figures.history(training.epochs, training.best_epoch, training.loss))


# --- the model card --------------------------------------------------------------------------------------------


def _model_card(metrics: SplitMetrics, card: ModelCard) -> Iterator[Block]:
    recipe = metrics.provenance.recipe
    yield Heading("Model card")
    yield Heading("Intended use", 3)
    yield Paragraph(model_card.INTENDED_USE)
    yield Heading("Limitations", 3)
    yield Points([Point("", text) for text in model_card.LIMITS_OF_USE])
    yield Heading("Data and training", 3)
    yield Table(["fact", "value"], list(_facts(metrics, card)))
    if recipe:
        yield Heading("Recipe", 3)
        yield Table(["field", "value"], [(name, _format_field(value)) for name, value in recipe.items()])


def _facts(metrics: SplitMetrics, card: ModelCard) -> Iterator[tuple[str, str]]:
    provenance, audit = metrics.provenance, card.audit
    yield "run", provenance.run
    for member in provenance.members or ():
        recipe = member["recipe"]
        described = f"{recipe['backbone']} at {recipe['image_size']} pixels, seed {recipe['seed']}"
        yield f"member, weight {member['weight']:.3g}", f"{member['run']}, {described}"
    yield "records of the training", provenance.trained_on_records or "they differ between the members"
    yield "records of this evaluation", provenance.records
    yield "damaged records left out", f"{provenance.skipped_records:,}"
    yield "groups of related images", f"{metrics.groups:,} among {count_of(metrics.examples, 'image')}"
    yield "audit of the data", f"{audit.verdict}: {audit.meaning}" if audit else "none"
    if provenance.recipe:
        yield "seed", str(provenance.recipe["seed"])
    yield "parameters", "unknown" if card.parameters is None else f"{card.parameters:,}"
    yield "training time", _format_duration(card.training_seconds)
    yield "versions", ", ".join(f"{name} {version}" for name, version in provenance.versions.items())


def _format_duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _format_field(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_format_field(item)}".strip() for name, item in value.items())
    return str(value)
