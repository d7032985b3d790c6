"""Two runs on the same images: is one better, and on which images do they differ?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ddkeras.exceptions import ConfigError
from ddkeras.metrics import classification
from ddkeras.metrics.bootstrap import Bootstrap, Estimate, Kinds
from ddkeras.runs.detector import Detector
from ddkeras.runs.run import EVALUATION
from pipelines import spreadsheets
from pipelines.datasets.examples import LABELS

_OLD_NAMES = {"category": "true_category"}  # of columns, until 0.2.0
_METRICS = ("auc", "average_precision", "log_loss", "accuracy", "recall", "false_positive_rate")


@dataclass(frozen=True)
class MetricComparison:
    """One metric of the runs a and b, and the paired difference b - a."""

    a: Estimate
    b: Estimate
    difference: Estimate

    @property
    def differs(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        return self.difference.low > 0 or self.difference.high < 0


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two runs on the same images.

    Args:
        examples: number of images.
        metrics: by name.
        changed: the images whose verdict is right in only one of the runs, `fixed` (right in b) before `regressed`
            (right in a), by falling change of probability; an unsure verdict is not right.
    """

    examples: int
    metrics: dict[str, MetricComparison]
    changed: pd.DataFrame

    @property
    def fixed(self) -> int:
        """Number of images that only b gets right."""
        return int((self.changed["change"] == "fixed").sum())

    @property
    def regressed(self) -> int:
        """Number of images that only a gets right."""
        return int((self.changed["change"] == "regressed").sum())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: all but the table of changed images."""
        measures = {
            name: {
                "a": metric.a.to_dict(),
                "b": metric.b.to_dict(),
                "difference": metric.difference.to_dict(),
                "differs": metric.differs,
            }
            for name, metric in self.metrics.items()
        }
        counts = {"fixed": self.fixed, "regressed": self.regressed}
        return {"examples": self.examples, "measures": measures, **counts}


def stored_predictions(detector: Detector, split: str) -> pd.DataFrame:
    """Read the predictions that `ddk evaluate` wrote for a split.

    Raises:
        ConfigError: the split was not evaluated, or the file is damaged.
    """
    path = detector.folder / EVALUATION / split / "predictions.csv"
    remedy = f"do so with: ddk evaluate --run {detector.folder} --split {split}"
    if not path.is_file():
        raise ConfigError(f"{detector.folder} was not evaluated on {split}; {remedy}")
    # As text, also if they look like numbers, such as 007.
    text_columns = dict.fromkeys(("path", "source", "group", *_OLD_NAMES, "true_category", "predicted_category"), str)
    try:
        with pd.option_context("mode.string_storage", "python"):  # Arrow's cannot hold a path that is not valid UTF-8
            table = pd.read_csv(path, keep_default_na=False, dtype=text_columns, encoding_errors="surrogateescape")
            table = table.rename(columns=_OLD_NAMES)
            return table.assign(
                **{name: table[name].map(spreadsheets.original) for name in text_columns if name in table}
            )
    except ValueError as error:  # all of pandas' own are
        raise ConfigError(f"{path} is damaged, evaluate again; {remedy}") from error


def compare(a: pd.DataFrame, b: pd.DataFrame) -> Comparison:
    """Compare two runs by their predictions on the same images.

    Args:
        a, b: predictions as in `EvaluationReport`.

    Raises:
        ConfigError: the images, or their labels, are not the same.
    """
    if len(a) != len(b) or set(a["path"]) != set(b["path"]):
        raise ConfigError("the two runs were evaluated on different images; evaluate both on the same records")
    a, b = (table.sort_values("path", ignore_index=True) for table in (a, b))
    if (a["label"] != b["label"]).any():
        raise ConfigError("the labels were changed between the two evaluations; evaluate both again")
    labels = a["label"].to_numpy()

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        of_a, of_b = (_metrics(table, labels, weights) for table in (a, b))
        values = {}
        for name in _METRICS:
            values[f"a {name}"], values[f"b {name}"] = of_a[name], of_b[name]
            values[f"difference {name}"] = of_b[name] - of_a[name]
        return values

    others = ["a log_loss", "b log_loss", *(f"difference {name}" for name in _METRICS)]
    estimates = Bootstrap(a["group"].to_numpy()).estimate(measure, _kinds(a, b, labels), others=others)
    metrics = {
        name: MetricComparison(*(estimates[f"{part} {name}"] for part in ("a", "b", "difference")))
        for name in _METRICS
    }
    return Comparison(len(a), metrics, _changed(a, b, labels))


def _metrics(table: pd.DataFrame, labels: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    logits = table["logit"].to_numpy()
    probability = table["fake_probability"].to_numpy().clip(1e-7, 1 - 1e-7)
    calibrated_logits = np.log(probability / (1 - probability))
    return {
        **classification.ranking_metrics(labels, logits, weights),
        **classification.probability_metrics(labels, calibrated_logits, weights),
        **classification.threshold_metrics(labels, (table["verdict"] == "fake").to_numpy(), weights),
    }


def _kinds(a: pd.DataFrame, b: pd.DataFrame, labels: np.ndarray) -> dict[str, Kinds]:
    """What the metrics of both runs and their differences rest on."""
    among: dict[str, Kinds] = {}
    for part, table in (("a", a), ("b", b), ("difference", b)):
        kinds = classification.kinds_by_metric(labels, (table["verdict"] == "fake").to_numpy())
        among |= {f"{part} {name}": kinds[name] for name in _METRICS if name in kinds}
    return among


def _changed(a: pd.DataFrame, b: pd.DataFrame, labels: np.ndarray) -> pd.DataFrame:
    label_names = np.array(LABELS)[labels]
    right_a, right_b = (a["verdict"] == label_names).to_numpy(), (b["verdict"] == label_names).to_numpy()
    table = pd.DataFrame(
        {
            "path": a["path"],
            "label": labels,
            "change": np.select([right_b & ~right_a, right_a & ~right_b], ["fixed", "regressed"], "none"),
            "verdict_a": a["verdict"],
            "verdict_b": b["verdict"],
            "fake_probability_a": a["fake_probability"],
            "fake_probability_b": b["fake_probability"],
        }
    )
    table["moved"] = (table["fake_probability_b"] - table["fake_probability_a"]).abs()
    changed = table[table["change"] != "none"]
    return changed.sort_values(["change", "moved"], ascending=[True, False])
