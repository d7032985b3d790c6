"""What was measured on a split, as files to keep and as one document to read."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ddkeras.metrics.calibration import VERDICTS
from ddkeras.metrics.classification import FALSE_ALARM_RATES, probability
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
from ddkeras.reporting.summary import number, share

_LABELS = ("real", "fake")
_EACH = 12  # images shown of each kind
_CLASSES = 12  # in a figure; more cannot be read, and are in metrics.json
_ROWS = 60  # of a table; all are in metrics.json
_RANKING = {
    "auc": ("AUC", "share of pairs of one real and one fake in which the fake has the higher score; 0.5 is chance"),
    "average_precision": ("average precision", "mean of the precision over all shares of fakes found"),
    "equal_error_rate": ("equal error rate", "where as large a share of reals as of fakes is on the wrong side"),
}
_CALLED = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision": "precision: alarms that are right",
    "recall": "recall: fakes that are called fake",
    "f1": "F1",
    "false_positive_rate": "false positive rate: reals that are called fake",
}
_PROBABILISTIC = {
    "log_loss": "log loss, in nats",
    "brier": "Brier score",
    "calibration_error": "calibration error",
}
_PROBED = {
    "neither": "neither",
    "reals": "the reals alone",
    "fakes": "the fakes alone",
    "both": "both",
}


def shown(predictions: pd.DataFrame, metrics: dict) -> list[str]:
    """The paths of the images that the report shows: the most wrong, the least sure and the least stable.

    Args:
        predictions, metrics: as in `evaluation.Report`.

    Returns:
        Each once.
    """
    chosen = [*_most_wrong(predictions, metrics).values(), _least_sure(predictions, metrics)]
    paths = [path for rows in chosen for path in rows["path"]]
    return list(dict.fromkeys(paths + [one["path"] for one in _least_stable(metrics)]))


def write(
    folder: Path,
    metrics: dict,
    predictions: pd.DataFrame,
    *,
    history: pd.DataFrame | None,
    best_epoch: int | None,
    thumbnails: Mapping[str, bytes],
    card: dict,
) -> None:
    """Write metrics.json, predictions.csv, the figures as PNG, report.html and report.pdf into an existing `folder`.

    Args:
        metrics, predictions: as in `evaluation.Report`; metrics perhaps with `robustness`, `bias_probe`, `stability`.
        history: as `Run.history` gives it; None where there was no one training.
        best_epoch: the epoch whose weights were kept, from 1; None likewise.
        thumbnails: JPEGs of at most 160 pixels, by path, of what `shown` names.
        card: `audit`, the `verdict` and `meaning` of an audit of the data, or None; `cost`, the number of
            `parameters` and the `seconds_of_training`, each None where it is unknown.
    """
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    predictions.to_csv(folder / "predictions.csv", index=False, errors="surrogateescape")
    composed = document(metrics, predictions, history, best_epoch, thumbnails, card)
    for block in composed.blocks:
        for drawing in block.items if isinstance(block, Drawings) else ():
            (folder / f"{drawing.name}.png").write_bytes(drawing.png)
    (folder / "report.html").write_text(html.render(composed), encoding="utf-8")
    (folder / "report.pdf").write_bytes(pdf.render(composed))


def document(
    metrics: dict,
    predictions: pd.DataFrame,
    history: pd.DataFrame | None,
    best_epoch: int | None,
    thumbnails: Mapping[str, bytes],
    card: dict,
) -> Document:
    """All that `report.html` and `report.pdf` say; see `write`."""
    counted = f"{metrics['split']}, n = {metrics['examples']:,}"
    blocks = [
        *summary.summary(metrics, card),
        *_numbers(metrics),
        *_ranking(metrics, predictions, counted),
        *_decisions(metrics, predictions, counted),
        *_tables(metrics["tables"]),
        *_robustness(metrics.get("robustness")),
        *_bias_probe(metrics.get("bias_probe")),
        *_stability(metrics, thumbnails),
        *_images(metrics, predictions, thumbnails),
        *_training(history, best_epoch, metrics),
        *_model_card(metrics, card),
    ]
    about = (
        f"{metrics['examples']:,} images, records {metrics['records'][:16]}, ddkeras {metrics['versions']['ddkeras']}"
    )
    return Document(f"{metrics['run']}, measured on {metrics['split']}", about, blocks)


# --- numbers ---------------------------------------------------------------------------------------------------


def _numbers(metrics: dict) -> Iterator[Block]:
    found, fitted = metrics["authenticity"], metrics["operating_point"]["fitted"]
    yield Heading("The numbers")
    yield Paragraph("Fake is what is looked for. In brackets are 95% intervals.", is_dim=True)
    yield Heading("How well fakes and reals are ranked", 3)
    rows = [
        (name, number(found[key]), found[key].get("reason", meaning)) for key, (name, meaning) in _RANKING.items()
    ]
    for rate in FALSE_ALARM_RATES:
        recall = found[f"recall_at_{rate:g}"]
        # Why there is no value is a sentence, for which the columns of numbers have no room.
        meaning = recall.get("reason", f"fakes found if {rate:.1%} of reals may be called fake")
        rows.append((f"recall at {rate:.1%}", share(recall), meaning))
    yield Table(["measure", "value", "what it is"], rows, ["value"])
    yield Heading("How good the verdicts are", 3)
    columns = ["at the operating point", "at probability 0.5"]
    called = [
        (name, *(share(found[at][key]) for at in ("at_operating_point", "at_half")))
        for key, name in _CALLED.items()
        if key in found["at_half"]
    ]
    called += [
        ("coverage: images with a verdict", share(found["coverage"]), ""),
        ("risk: verdicts that are wrong", share(found["risk"]), ""),
    ]
    yield Table(["measure", *columns], called, columns)
    if fitted:
        yield Paragraph(
            f"The operating point was fitted on validation, {fitted['reals']:,} reals and {fitted['fakes']:,} fakes. "
            f"Of these at most {fitted['false_alarms']:.1%} of the reals are called fake, and at most "
            f"{fitted['misses']:.1%} of the fakes real. What lies between is unsure, and counts as not called fake.",
            is_dim=True,
        )
    yield Heading("How far the probabilities can be taken at their word", 3)
    columns = ["before calibration", "after"]
    rows = [(name, number(found["uncalibrated"][key]), number(found[key])) for key, name in _PROBABILISTIC.items()]
    yield Table(["measure, less is better", *columns], rows, columns)
    if metrics.get("category", {}).get("examples"):
        yield from _category(metrics["category"])


def _category(found: dict) -> Iterator[Block]:
    yield Heading(f"Categories, of {found['examples']:,} images that have one", 3)
    yield Paragraph(f"Accuracy {share(found['accuracy'])}, macro F1 {number(found['macro_f1'])}.")
    columns = ["images", "precision", "recall", "F1"]
    rows = [
        (shortened(name), f"{own['examples']:,}", *(_plain(own[key]) for key in ("precision", "recall", "f1")))
        for name, own in list(found["classes"].items())[:_ROWS]
    ]
    yield Table(["category", *columns], rows, columns)


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _tables(tables: dict[str, list[dict]]) -> Iterator[Block]:
    if not tables:
        return
    yield Heading("Where it fails")
    yield Paragraph(
        "The same measured on parts of the images. Where a part has one label alone, the AUC is against the other "
        "label in the same categories. Too few images make no number."
    )
    columns = ["real", "fake", "reals called fake", "fakes called fake", "unsure", "AUC"]
    for title, rows in tables.items():
        names = title.split(" and ")
        yield Heading(f"By {title}", 3)
        largest = sorted(rows, key=lambda row: -row["real"] - row["fake"])[:_ROWS]
        cells = [
            [*(shortened(row[name]) or "unknown" for name in names), *_cell(row)] for row in rows if row in largest
        ]
        yield Table([*names, *columns], cells, columns)
        if len(rows) > _ROWS:
            yield Paragraph(f"The {_ROWS} largest are shown; all {len(rows)} are in metrics.json.", is_dim=True)


def _cell(row: dict) -> list[str]:
    shares = [share(row[name]) for name in ("called_fake_of_real", "called_fake_of_fake", "unsure")]
    return [f"{row['real']:,}", f"{row['fake']:,}", *shares, number(row["auc"])]


# --- figures ---------------------------------------------------------------------------------------------------


def _ranking(metrics: dict, predictions: pd.DataFrame, counted: str) -> Iterator[Block]:
    point = metrics["authenticity"]["at_operating_point"]
    yield Heading("Real against fake")
    scores = _scores(metrics, predictions, counted)
    if metrics["authenticity"]["auc"]["value"] is None:
        yield Paragraph("There is one label alone, and so no ROC curve and no curve of precision and recall.")
        yield Drawings([scores])
        return
    labels, logits = predictions["label"].to_numpy(), predictions["logit"].to_numpy()
    called = point["false_positive_rate"]["value"], point["recall"]["value"]
    yield Drawings(
        [
            figures.roc(labels, logits, called, counted, is_log=False),
            figures.roc(labels, logits, called, counted, is_log=True),
            figures.precision_recall(labels, logits, (called[1], point["precision"]["value"]), counted),
            scores,
        ]
    )
    if metrics["operating_point"]["by_category"]:
        names = ", ".join(metrics["operating_point"]["by_category"])
        yield Paragraph(
            f"Limits of their own have: {names}. The operating point can lie off the curves.", is_dim=True
        )


def _scores(metrics: dict, predictions: pd.DataFrame, counted: str) -> Drawing:
    point = metrics["operating_point"]
    limits = [("fake from here", point["limits"]["fake_from"]), ("real below", point["limits"]["real_below"])]
    scaled = [(name, limit / point["temperature"]) for name, limit in limits]
    calibrated = predictions["logit"].to_numpy() / point["temperature"]
    return figures.scores(predictions["label"].to_numpy(), calibrated, scaled, counted)


def _decisions(metrics: dict, predictions: pd.DataFrame, counted: str) -> Iterator[Block]:
    labels, logits = predictions["label"].to_numpy(), predictions["logit"].to_numpy()
    temperature = metrics["operating_point"]["temperature"]
    centred, sureness = _sureness(predictions, metrics)
    verdicts = metrics["authenticity"]["verdicts"]
    counts = np.array([[verdicts[label][said] for said in VERDICTS] for label in _LABELS])
    drawings = [
        figures.reliability(labels, logits, logits / temperature, counted),
        figures.risk_coverage((centred >= 0) != (labels == 1), sureness, counted),
        figures.confusion("authenticity", "Real or fake: true against verdict", counts, _LABELS, VERDICTS, counted),
    ]
    category = metrics.get("category", {})
    if category.get("examples") and len(category["categories"]) <= _CLASSES:
        names, of = category["categories"], f"{metrics['split']}, n = {category['examples']:,}"
        title = "Category: true against predicted"
        drawings.append(figures.confusion("category", title, np.array(category["confusion"]), names, names, of))
    yield Heading("Probabilities and verdicts")
    yield Paragraph(
        f"Calibration divides the network's scores by {temperature:.3g}, so that of images with a probability of 70% "
        "about 70% are fake. It changes no order, and no verdict."
    )
    columns = ["called real below", "called fake from"]
    yield Table(["images", *columns], list(_limits(metrics["operating_point"])), columns)
    yield Drawings(drawings)


def _limits(point: dict) -> Iterator[tuple[str, str, str]]:
    """The limits of the verdicts as probabilities."""
    others = "all others" if point["by_category"] else "all"
    by_category = {f"predicted to be {shortened(name)}": own for name, own in point["by_category"].items()}
    for name, own in (by_category | {others: point["limits"]}).items():
        real, fake = (probability(own[limit] / point["temperature"]) for limit in ("real_below", "fake_from"))
        yield name, f"{real:.1%}", f"{fake:.1%}"


# --- under other conditions ------------------------------------------------------------------------------------


def _robustness(found: dict | None) -> Iterator[Block]:
    if not found:
        return
    columns = ["AUC", "reals called fake", "fakes called fake"]
    rows = [
        (one["name"], number(one["auc"]), share(one["called_fake_of_real"]), share(one["called_fake_of_fake"]))
        for one in found["variants"]
    ]
    yield Heading("Worked-over copies")
    yield Paragraph(f"{found['images']:,} images, as they are and after what happens to images that are shared.")
    yield Table(["images", *columns], rows, columns)
    yield Drawings([figures.robustness(found["variants"], f"n = {found['images']:,}")])


def _bias_probe(found: dict | None) -> Iterator[Block]:
    if not found:
        return
    yield Heading("Does it read the codec?")
    yield Paragraph(
        "The AUC when images of one label alone are saved again. A detector that looks at how an image was generated "
        "ranks them as before; one that looks at how it was saved does not."
    )
    yield Points([Point(found["verdict"], summary.sentence(found["text"]))])
    rows = [(codec, *(number(auc[way]) for way in _PROBED)) for codec, auc in found["auc"].items()]
    yield Table(["saved again as", *_PROBED.values()], rows, list(_PROBED.values()))
    yield Paragraph(f"By {found['by']} it moves the farthest: by {number(found['swing'])}.")


def _stability(metrics: dict, thumbnails: Mapping[str, bytes]) -> Iterator[Block]:
    found = metrics.get("stability")
    if not found:
        return
    yield Heading("Stability")
    yield Paragraph(f"{summary.stability_in_words(found)} {found['examples']:,} images were tried.")
    worst = _least_stable(metrics)
    if worst:
        yield Heading("The least stable", 3)
        ways = ", ".join(found["by"])
        yield Paragraph(f"What each is, then its probability of fake and verdict: as it is, {ways}.", is_dim=True)
        yield Pictures([Picture(one["path"], _course(one), thumbnails.get(one["path"])) for one in worst])


def _course(one: dict) -> str:
    steps = (f"{p:.0%} {said}" for p, said in zip(one["probabilities"], one["verdicts"], strict=True))
    return f"{_LABELS[one['label']]}: {', '.join(steps)}"


def _least_stable(metrics: dict) -> list[dict]:
    return metrics.get("stability", {}).get("worst", [])[:_EACH]


# --- images ----------------------------------------------------------------------------------------------------


def _images(metrics: dict, predictions: pd.DataFrame, thumbnails: Mapping[str, bytes]) -> Iterator[Block]:
    wrong = _most_wrong(predictions, metrics)
    titles = {0: "Reals that look most fake to it", 1: "Fakes that look most real to it"}
    yield Heading("The most wrong, and the least sure")
    yield Paragraph("Look at these first: often a label is wrong, or they have something in common.")
    if all(rows.empty for rows in wrong.values()):
        yield Paragraph("No image is on the wrong side.")
    for label, title in titles.items():
        if len(wrong[label]):
            yield Heading(title, 3)
            yield Pictures(_pictures(wrong[label], thumbnails))
    yield Heading("Least sure, nearest to where real and fake meet", 3)
    yield Pictures(_pictures(_least_sure(predictions, metrics), thumbnails))


def _pictures(rows: pd.DataFrame, thumbnails: Mapping[str, bytes]) -> list[Picture]:
    pictures = []
    for row in rows.itertuples():
        verdict = "left unsure" if row.verdict == "unsure" else f"called {row.verdict}"
        text = f"{_LABELS[row.label]}, {verdict} ({row.fake_probability:.1%} fake)"
        pictures.append(Picture(row.path, text, thumbnails.get(row.path)))
    return pictures


def _most_wrong(predictions: pd.DataFrame, metrics: dict) -> dict[int, pd.DataFrame]:
    """Of each label the images that are furthest on the other's side."""
    centred, _ = _sureness(predictions, metrics)
    labels = predictions["label"].to_numpy()
    too_far = np.where(labels == 0, centred, -centred)
    order = np.argsort(-too_far, kind="stable")
    order = order[too_far[order] > 0]
    return {label: predictions.iloc[order[labels[order] == label][:_EACH]] for label in (0, 1)}


def _least_sure(predictions: pd.DataFrame, metrics: dict) -> pd.DataFrame:
    centred, _ = _sureness(predictions, metrics)
    return predictions.iloc[np.argsort(np.abs(centred), kind="stable")[:_EACH]]


def _sureness(predictions: pd.DataFrame, metrics: dict) -> tuple[np.ndarray, np.ndarray]:
    """How far each logit lies above the middle of its limits, and how far beyond them: less than 0 between."""
    point = metrics["operating_point"]
    low = np.full(len(predictions), point["limits"]["real_below"])
    high = np.full(len(predictions), point["limits"]["fake_from"])
    for name, limits in point["by_category"].items():
        own = (predictions["predicted_category"] == name).to_numpy()
        low[own], high[own] = limits["real_below"], limits["fake_from"]
    centred = predictions["logit"].to_numpy() - (low + high) / 2
    return centred, np.abs(centred) - (high - low) / 2


def _training(history: pd.DataFrame | None, best_epoch: int | None, metrics: dict) -> Iterator[Block]:
    if history is not None and best_epoch is not None:
        yield Heading("Training")
        yield Drawings(figures.history(history, best_epoch, metrics["recipe"]["loss"]))


# --- the model card --------------------------------------------------------------------------------------------


def _model_card(metrics: dict, card: dict) -> Iterator[Block]:
    yield Heading("Model card")
    yield Heading("What it is for", 3)
    yield Paragraph(model_card.INTENDED_USE)
    yield Heading("What it is not for", 3)
    yield Points([Point("", text) for text in model_card.LIMITS_OF_USE])
    yield Heading("What it was made of", 3)
    yield Table(["fact", "value"], list(_origins(metrics, card)))
    if "recipe" in metrics:
        yield Heading("Recipe", 3)
        yield Table(["field", "value"], [(name, _value(value)) for name, value in metrics["recipe"].items()])


def _origins(metrics: dict, card: dict) -> Iterator[tuple[str, str]]:
    cost, audit = card["cost"], card["audit"]
    yield "run", metrics["run"]
    for member in metrics.get("members", []):
        recipe = member["recipe"]
        told = f"{recipe['backbone']} of {recipe['image_size']} pixels, seed {recipe['seed']}"
        yield f"member, weight {member['weight']:.3g}", f"{member['run']}, {told}"
    yield "records it was trained on", metrics["trained_on_records"] or "not the same of all members"
    yield "records it was measured on", metrics["records"]
    yield "damaged records left out", f"{metrics['skipped_records']:,}"
    yield "groups of images made from one photo", f"{metrics['groups']:,} for {metrics['examples']:,} images"
    yield "audit of the data", f"{audit['verdict']}: {audit['meaning']}" if audit else "none"
    if "recipe" in metrics:
        yield "seed", str(metrics["recipe"]["seed"])
    yield "parameters", "unknown" if cost["parameters"] is None else f"{cost['parameters']:,}"
    yield "time of training", _duration(cost["seconds_of_training"])
    yield "versions", ", ".join(f"{name} {version}" for name, version in metrics["versions"].items())


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _value(value) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_value(own)}".strip() for name, own in value.items())
    return str(value)
