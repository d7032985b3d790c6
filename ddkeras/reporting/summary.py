"""The summary of an evaluation, in words for readers who need not know what an AUC is."""

from collections.abc import Iterator

from ddkeras.metrics.bootstrap import Estimate
from ddkeras.metrics.split_metrics import AuthenticityMetrics, Robustness, SplitMetrics, Stability
from ddkeras.reporting.document import Block, Fact, Facts, Heading, Paragraph, Point, Points
from ddkeras.reporting.model_card import AuditSummary

_NO_VALUE = "–"  # noqa: RUF001  in a table
_NO_INTERVAL = "no interval"
_LARGE = 1000  # of numbers; a diverged network has losses of any size
_LONGEST_REASON = 20  # characters that fit into a table cell

_SINGULAR = ("none", "about 1", "fewer than 1")

# --- estimates -------------------------------------------------------------------------------------------------


def format_number(estimate: Estimate) -> str:
    """The value and its interval, with three decimals, or three digits from 1000 on."""
    if estimate.is_missing:
        return _format_missing(estimate)
    if not estimate.has_interval:
        return f"{_format_value(estimate.value)} ({_NO_INTERVAL})"
    value, low, high = map(_format_value, (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high})"


def _format_value(number: float) -> str:
    return f"{number:.3f}" if abs(number) < _LARGE else f"{number:.3g}"


def format_share(estimate: Estimate) -> str:
    """A proportion and its interval, in percent with one decimal."""
    if estimate.is_missing:
        return _format_missing(estimate)
    return f"{estimate.value:.1%} {_format_interval(estimate, '%')}"


def _format_missing(estimate: Estimate) -> str:
    """The reason, if it is short enough for a table cell."""
    reason = estimate.reason or "none"
    return reason if reason != "none" and len(reason) < _LONGEST_REASON else _NO_VALUE


def format_of_hundred(estimate: Estimate) -> str:
    """A proportion as a number out of a hundred, such as "about 46"."""
    value = estimate.value
    if value in (0, 1):
        return "none" if value == 0 else "all"
    if not 0.005 <= value <= 0.995:
        return "fewer than 1" if value < 0.5 else "more than 99"
    return f"about {100 * value:.0f}"


def _format_interval(estimate: Estimate, unit: str = "") -> str:
    if not estimate.has_interval:
        return f"({_NO_INTERVAL})"
    return f"({100 * estimate.low:.1f} to {100 * estimate.high:.1f}{unit})"


def _format_clause(estimate: Estimate, predicate: str) -> str:
    """Such as "about 46 are called fake (41.0 to 52.3)"."""
    count = format_of_hundred(estimate)
    return f"{count} {'is' if count in _SINGULAR else 'are'} {predicate} {_format_interval(estimate)}"


def format_sentence(text: str, *, capital: bool = True) -> str:
    """A note as a whole sentence."""
    text = text[:1].upper() + text[1:] if capital else text
    return text if text.endswith(".") else f"{text}."


# Words for an AUC, up to which it applies; how far that is useful depends on the errors one can afford.
_GRADES = ((0.7, "weak"), (0.8, "fair"), (0.9, "good"), (0.98, "very good"), (1.0, "excellent"))


def format_grade(auc: Estimate) -> str:
    """An AUC in a word or two; by its interval, where that includes guessing."""
    if auc.is_missing:
        return "unknown"
    if auc.low <= 0.5 <= auc.high:
        return "may be guessing"
    if auc.high < 0.5:
        return "worse than guessing"
    return next(word for limit, word in _GRADES if auc.value <= limit)


def format_decided(metrics: SplitMetrics) -> str:
    """Such as "26 of 120 images get a verdict, 25 of them right"."""
    verdicts = metrics.authenticity.verdicts
    right = sum(counts[label] for label, counts in verdicts.items())
    decided = sum(counts[verdict] for counts in verdicts.values() for verdict in verdicts)
    return f"{decided:,} of {metrics.examples:,} images get a verdict, {right:,} of them right"


# --- the summary -----------------------------------------------------------------------------------------------


def summary(metrics: SplitMetrics, audit: AuditSummary | None) -> list[Block]:
    """The first section of a report."""
    return [
        Heading("Summary"),
        _facts(metrics),
        *(Paragraph(text) for text in _sentences(metrics)),
        Paragraph(
            "Brackets hold the 95% confidence interval: where the number may lie by chance, with other images of the "
            "same kind. On other kinds of images it can be far outside. Numbers from too few images have none.",
            is_dim=True,
        ),
        Points(list(_points(metrics, audit))),
    ]


def _facts(metrics: SplitMetrics) -> Facts:
    authenticity = metrics.authenticity
    counts = " and ".join(f"{count:,} {label}" for label, count in metrics.labels.items())
    shares = [
        (authenticity.coverage, "of images get a verdict"),
        (authenticity.risk.complement(), "of these verdicts are right"),
        (authenticity.at_operating_point.false_positive_rate, "of real images are called fake"),
        (authenticity.at_operating_point.recall, "of fakes are called fake"),
    ]
    facts = [Fact(f"{metrics.examples:,}", "images", counts)]
    auc = authenticity.auc
    if not auc.is_missing:
        interval = f"{auc.low:.3f} to {auc.high:.3f}" if auc.has_interval else _NO_INTERVAL
        facts.insert(0, Fact(f"{auc.value:.3f}", f"AUC: {format_grade(auc)}", interval))
    for share, name in shares:
        if not share.is_missing:
            facts.append(Fact(f"{share.value:.1%}", name, _format_interval(share, "%").strip("()")))
    return Facts(facts)


def _sentences(metrics: SplitMetrics) -> Iterator[str]:
    authenticity, category = metrics.authenticity, metrics.category
    counts = " and ".join(f"{count:,} {label}" for label, count in metrics.labels.items() if count)
    auc = authenticity.auc
    grade = "" if auc.is_missing else f" Its AUC is {auc.value:.3f}: {format_grade(auc)}."
    tested = f"The detector was tested on {metrics.examples:,} labelled images: {counts}."
    yield f"{tested}{grade} {format_decided(metrics)}."
    yield " ".join(
        f"Of 100 {images}, {_format_clause(share, 'called fake')}."
        for images, share in (
            ("real images", authenticity.at_operating_point.false_positive_rate),
            ("fakes", authenticity.at_operating_point.recall),
        )
        if not share.is_missing
    )
    yield _format_verdicts(authenticity)
    if not authenticity.auc.is_missing:
        yield (
            f"In 100 pairs of a real image and a fake, the fake gets the higher score in "
            f"{format_of_hundred(authenticity.auc)} {_format_interval(authenticity.auc)}; 50 would be guessing."
        )
    if category and category.examples:
        yield f"Of 100 images, {_format_clause(category.accuracy, 'put into the right category')}."


def _format_verdicts(authenticity: AuthenticityMetrics) -> str:
    """How many images are unsure, and how many of the verdicts are right."""
    unsure, right = authenticity.coverage.complement(), authenticity.risk.complement()
    if unsure.value == 0:
        text = "Every image has a verdict, real or fake; none is left unsure."
    else:
        text = f"Of 100 images, {_format_clause(unsure, 'left unsure')}: have a person look at these."
    if not right.is_missing:
        text += f" Of 100 verdicts, real or fake, {_format_clause(right, 'right')}."
    return text


def _points(metrics: SplitMetrics, audit: AuditSummary | None) -> Iterator[Point]:
    """Findings and cautions."""
    if probe := metrics.bias_probe:
        yield Point(probe.verdict, f"Does it rely on the codec rather than the image? {format_sentence(probe.text)}")
    if metrics.stability:
        yield Point("note", format_stability(metrics.stability))
    if metrics.robustness:
        yield from _worst_perturbation(metrics.robustness)
    if audit:
        yield Point(audit.verdict, f"Audit of the data: {format_sentence(audit.meaning, capital=False)}")
    else:
        yield Point("note", "No audit of this data for shortcuts and leaks was found; run ddk audit.")
    for note in metrics.notes:
        yield Point("warn", format_sentence(note))


def format_stability(stability: Stability) -> str:
    """How many verdicts change under mild perturbations, as a sentence."""
    perturbations, flips = ", ".join(stability.by), stability.flips
    if flips.is_missing:
        return f"Whether verdicts survive re-encoding ({perturbations}) could not be measured."
    count = format_of_hundred(flips)
    change = "changes" if count in _SINGULAR else "change"
    return (
        f"Of 100 verdicts, {count} {_format_interval(flips)} {change} when the image is re-encoded: {perturbations}."
    )


def _worst_perturbation(robustness: Robustness) -> Iterator[Point]:
    first, *others = robustness.variants
    others = [variant for variant in others if not variant.auc.is_missing]
    if first.auc.is_missing or not others:
        return
    worst = min(others, key=lambda variant: variant.auc.value)
    yield Point(
        "note",
        f"Of {len(others)} perturbations, {worst.name} does the most harm: the AUC is {worst.auc.value:.3f} instead "
        f"of {first.auc.value:.3f}; of 100 fakes, {_format_change(worst.recall, first.recall)} are called fake, and "
        f"of 100 real images, {_format_change(worst.false_positive_rate, first.false_positive_rate)}.",
    )


def _format_change(now: Estimate, before: Estimate) -> str:
    """Such as "about 36 instead of 47"."""
    if now.is_missing or before.is_missing:
        return "an unknown number"
    return f"{format_of_hundred(now)} instead of {format_of_hundred(before).removeprefix('about ')}"
