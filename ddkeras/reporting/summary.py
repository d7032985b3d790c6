"""What the numbers of a split say, in words for who has to act on them and need not know what an AUC is."""

from collections.abc import Iterator

from ddkeras.reporting.document import Block, Fact, Facts, Heading, Paragraph, Point, Points

Estimate = dict  # `value`, `low` and `high`, and perhaps the `reason` why they are None; see `intervals.Sample`
_NOTHING = "–"  # noqa: RUF001  in a table, where there is no value

_SINGULAR = ("none", "about 1", "fewer than 1")

# --- estimates -------------------------------------------------------------------------------------------------


def number(estimate: Estimate) -> str:
    """An estimate and its interval, with three decimals."""
    if estimate["value"] is None:
        return _why_not(estimate)
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def share(estimate: Estimate) -> str:
    """The same of a share, in percent with one decimal."""
    if estimate["value"] is None:
        return _why_not(estimate)
    return f"{estimate['value']:.1%} {_bounds(estimate, '%')}"


def _why_not(estimate: Estimate) -> str:
    """Why there is no value, where that is said in so few words that they fit its place."""
    reason = estimate.get("reason", "none")
    return reason if reason != "none" and len(reason) < 20 else _NOTHING


def of_hundred(estimate: Estimate) -> str:
    """A share that has a value as "about 46", of a hundred."""
    value = estimate["value"]
    if value in (0, 1):
        return "none" if value == 0 else "all"
    if not 0.005 <= value <= 0.995:
        return "fewer than 1" if value < 0.5 else "more than 99"
    return f"about {100 * value:.0f}"


def _bounds(estimate: Estimate, unit: str = "") -> str:
    return f"({100 * estimate['low']:.1f} to {100 * estimate['high']:.1f}{unit})"


def _are(estimate: Estimate, what: str) -> str:
    said = of_hundred(estimate)
    return f"{said} {'is' if said in _SINGULAR else 'are'} {what} {_bounds(estimate)}"


def _others(estimate: Estimate) -> Estimate:
    """What a share leaves."""
    if estimate["value"] is None:
        return estimate
    return {"value": 1 - estimate["value"], "low": 1 - estimate["high"], "high": 1 - estimate["low"]}


# --- the summary -----------------------------------------------------------------------------------------------


def summary(metrics: dict, card: dict) -> list[Block]:
    """What is to be read first.

    Args:
        metrics: as in `evaluation.Report`.
        card: as in `report.write`.
    """
    return [
        Heading("In short"),
        _facts(metrics),
        *(Paragraph(text) for text in _sentences(metrics)),
        Paragraph(
            "In brackets is the 95% interval, within which the number may lie by luck alone, were other images of "
            "the same kind drawn. On other kinds of images it can be far outside.",
            is_dim=True,
        ),
        Points(list(_points(metrics, card))),
    ]


def _facts(metrics: dict) -> Facts:
    found, point = metrics["authenticity"], metrics["authenticity"]["at_operating_point"]
    counted = " and ".join(f"{count:,} {label}" for label, count in metrics["labels"].items())
    shown = [
        (_others(found["risk"]), "of the verdicts are right"),
        (point["false_positive_rate"], "of real images are called fake"),
        (point["recall"], "of fakes are called fake"),
        (_others(found["coverage"]), "are left unsure"),
    ]
    return Facts(
        [
            Fact(f"{metrics['examples']:,}", "images", counted),
            *(
                Fact(
                    f"{estimate['value']:.1%}", name, f"{100 * estimate['low']:.1f} to {100 * estimate['high']:.1f}%"
                )
                for estimate, name in shown
                if estimate["value"] is not None
            ),
        ]
    )


def _sentences(metrics: dict) -> Iterator[str]:
    found, point = metrics["authenticity"], metrics["authenticity"]["at_operating_point"]
    counted = " and ".join(f"{count:,} {label}" for label, count in metrics["labels"].items() if count)
    yield f"The detector was shown {metrics['examples']:,} images of which the truth is known: {counted}."
    parts = []
    if point["false_positive_rate"]["value"] is not None:
        parts.append(f"Of 100 real images {_are(point['false_positive_rate'], 'called fake')}.")
    if point["recall"]["value"] is not None:
        parts.append(f"Of 100 fakes {_are(point['recall'], 'found, that is, called fake')}.")
    yield " ".join(parts)
    yield _unsure(found)
    if found["auc"]["value"] is not None:
        yield (
            f"Shown one real image and one fake, it gives the fake the higher score {of_hundred(found['auc'])} times "
            f"of 100 {_bounds(found['auc'])}; 50 would be guessing."
        )
    category = metrics.get("category", {})
    if category.get("examples"):
        said = of_hundred(category["accuracy"])
        yield f"Of 100 images it puts {said} into the right category {_bounds(category['accuracy'])}."


def _unsure(found: dict) -> str:
    unsure, right = _others(found["coverage"]), _others(found["risk"])
    if unsure["value"] == 0:
        said = "Every image has a verdict, real or fake; none is left unsure."
    else:
        said = f"Of 100 images {_are(unsure, 'left unsure')}: let a person look at these."
    if right["value"] is not None:
        said += f" Of 100 verdicts, real or fake, {_are(right, 'right')}."
    return said


def _points(metrics: dict, card: dict) -> Iterator[Point]:
    """What to think of it, and cautions."""
    if probe := metrics.get("bias_probe"):
        yield Point(probe["verdict"], f"Does it read the codec in place of the image? {sentence(probe['text'])}")
    if stability := metrics.get("stability"):
        yield Point("note", stability_in_words(stability))
    if robustness := metrics.get("robustness"):
        yield from _robust(robustness["variants"])
    if card["audit"]:
        yield Point(
            card["audit"]["verdict"], f"Audit of the data: {sentence(card['audit']['meaning'], capital=False)}"
        )
    else:
        yield Point("note", "No audit of the data for shortcuts and leaks is known; ddk audit makes one.")
    for note in metrics["notes"]:
        yield Point("warn", sentence(note))


def stability_in_words(stability: dict) -> str:
    """How many verdicts change when the images are saved again or resized."""
    ways, flips = ", ".join(stability["by"]), stability["flips"]
    if flips["value"] is None:
        return f"Whether verdicts hold when images are worked over ({ways}) could not be told."
    said = of_hundred(flips)
    change = "changes" if said in _SINGULAR else "change"
    return f"Of 100 verdicts {said} {_bounds(flips)} {change} when the image is worked over: {ways}."


def _robust(variants: list[dict]) -> Iterator[Point]:
    """The worst of the variants against the first, which are the images as they are."""
    first, *others = (variant for variant in variants if variant["auc"]["value"] is not None)
    if not others:
        return
    worst = min(others, key=lambda variant: variant["auc"]["value"])
    yield Point(
        "note",
        f"Of {len(others)} ways to work the images over, {worst['name']} does the most harm: the AUC is "
        f"{worst['auc']['value']:.3f} in place of {first['auc']['value']:.3f}; of 100 fakes "
        f"{_from_to(first, worst, 'called_fake_of_fake')} are found, and of 100 real images "
        f"{_from_to(first, worst, 'called_fake_of_real')} are called fake.",
    )


def _from_to(first: dict, worst: dict, column: str) -> str:
    now, before = (variant[column] for variant in (worst, first))
    if now["value"] is None or before["value"] is None:
        return "an unknown number"
    return f"{of_hundred(now)} in place of {of_hundred(before).removeprefix('about ')}"


def sentence(text: str, *, capital: bool = True) -> str:
    """A note as a whole sentence."""
    text = text[:1].upper() + text[1:] if capital else text
    return text if text.endswith(".") else f"{text}."
