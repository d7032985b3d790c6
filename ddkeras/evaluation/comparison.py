"""Two runs on the same images: is one better, and on which images do they differ?"""

import numpy as np
import pandas as pd

from ddkeras.exceptions import ConfigError
from ddkeras.metrics import classification
from ddkeras.metrics.bootstrap import Bootstrap
from ddkeras.runs.run import EVALUATION, Run

_MEASURES = ("auc", "average_precision", "log_loss", "accuracy", "recall", "false_positive_rate")


def stored_predictions(run: Run, split: str) -> pd.DataFrame:
    """What `ddk evaluate` wrote of a split.

    Raises:
        ConfigError: it was not evaluated, or the file is damaged.
    """
    path = run.folder / EVALUATION / split / "predictions.csv"
    again = f"do so with: ddk evaluate --run {run.folder} --split {split}"
    if not path.is_file():
        raise ConfigError(f"{run.folder} was not evaluated on {split}; {again}")
    names = dict.fromkeys(("path", "source", "group", "category", "predicted_category"), str)  # also those like 007
    try:
        with pd.option_context("mode.string_storage", "python"):  # Arrow's have no place for a path that is no UTF-8
            return pd.read_csv(path, keep_default_na=False, dtype=names, encoding_errors="surrogateescape")
    except ValueError as error:  # all of pandas' own are
        raise ConfigError(f"{path} is damaged, evaluate again; {again}") from error


def compare(a: pd.DataFrame, b: pd.DataFrame) -> tuple[dict, pd.DataFrame]:
    """Measure b less a, on the images of both.

    Args:
        a, b: predictions of two runs on the same images; see `evaluation.Report`.

    Returns:
        For each measure estimates (`value`, `low`, `high`) of `a`, `b` and their paired `difference`, with `differs`,
        whether its interval leaves out 0; and how many images b `fixed` and `regressed`: those whose verdict is right
        in one of the two alone, an unsure one not being right. And a table of these images, by how far they moved.

    Raises:
        ConfigError: the images, or their labels, are not the same.
    """
    if len(a) != len(b) or set(a["path"]) != set(b["path"]):
        raise ConfigError("the two runs were evaluated on different images; evaluate both on the same records")
    a, b = (table.sort_values("path", ignore_index=True) for table in (a, b))
    if (a["label"] != b["label"]).any():
        raise ConfigError("the labels were changed between the two evaluations; evaluate both again")
    labels = a["label"].to_numpy()
    sample = Bootstrap(a["group"].to_numpy())

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        of_a, of_b = (_measured(table, labels, weights) for table in (a, b))
        differences = {f"difference {name}": of_b[name] - of_a[name] for name in _MEASURES}
        own = {f"{which} {name}": of[name] for which, of in (("a", of_a), ("b", of_b)) for name in _MEASURES}
        return own | differences

    found = sample.estimate(measure)
    measures = {name: {which: found[f"{which} {name}"] for which in ("a", "b", "difference")} for name in _MEASURES}
    for one in measures.values():
        low, high = one["difference"]["low"], one["difference"]["high"]
        one["differs"] = low is not None and (low > 0 or high < 0)
    changed = _changed(a, b, labels)
    counts = changed["change"].value_counts()
    return {
        "examples": len(a),
        "measures": measures,
        "fixed": int(counts.get("fixed", 0)),
        "regressed": int(counts.get("regressed", 0)),
    }, changed


def _measured(table: pd.DataFrame, labels: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    logits = table["logit"].to_numpy()
    probability = table["fake_probability"].to_numpy().clip(1e-7, 1 - 1e-7)
    calibrated = np.log(probability / (1 - probability))
    called = classification.threshold_metrics(labels, (table["verdict"] == "fake").to_numpy(), weights)
    return {
        **classification.ranking(labels, logits, weights),
        **classification.probabilistic(labels, calibrated, weights),
        **called,
    }


def _changed(a: pd.DataFrame, b: pd.DataFrame, labels: np.ndarray) -> pd.DataFrame:
    names = np.array(["real", "fake"])[labels]
    right_a, right_b = (a["verdict"] == names).to_numpy(), (b["verdict"] == names).to_numpy()
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
