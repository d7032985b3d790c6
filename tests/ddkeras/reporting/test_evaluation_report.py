"""The evaluation report, as a page and as a PDF, of whatever was measured."""

import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny import encode

from ddkeras.config import Recipe
from ddkeras.evaluation import results
from ddkeras.evaluation.scoring import Scores
from ddkeras.metrics import calibration
from ddkeras.metrics.bootstrap import Estimate
from ddkeras.metrics.calibration import Limits, OperatingPoint
from ddkeras.metrics.classification import probability
from ddkeras.metrics.split_metrics import BiasProbe, PerturbedMetrics, Robustness, Stability, UnstableImage
from ddkeras.reporting import evaluation_report, html, summary
from ddkeras.reporting.document import Document
from ddkeras.reporting.evaluation_report import TrainingHistory
from ddkeras.reporting.model_card import AuditSummary, ModelCard
from ddkeras.runs.run import Run

HISTORY = pd.DataFrame({"epoch": [1, 2, 3], "loss": [2.0, 1.0, 0.9], "val_loss": [2.5, 1.5, 1.6]})
HISTORY["authenticity_accuracy"] = HISTORY["val_authenticity_accuracy"] = [0.5, 0.75, 0.8]
CARD = ModelCard(
    AuditSummary("warn", "usable with care; read the warnings before you believe a number"), 2263108, 3725.0
)
ALWAYS = {
    *("metrics.json", "predictions.csv", "report.html", "report.pdf", "loss.png", "accuracy.png"),
    *("scores.png", "reliability.png", "risk_coverage.png", "confusion_authenticity.png"),
}
RANKED = {"roc.png", "roc_log.png", "precision_recall.png"}


def measured(labels, logits, *, paths=None, sources=None, categories=None, names=(), split="test", point=None):
    """A report on simulated scores, of a run that does not exist."""
    labels, number = np.asarray(labels), len(labels)
    paths = [f"{split}/{index:05}.jpg" for index in range(number)] if paths is None else paths
    categories = np.full(number, -1) if categories is None else np.asarray(categories)
    scores = Scores(
        paths=np.array(paths),
        labels=labels,
        sources=np.array([""] * number if sources is None else sources),
        groups=np.array(paths),
        categories=categories,
        logits=np.asarray(logits, np.float32),
        category_probabilities=np.eye(len(names))[np.maximum(categories, 0)] if names else None,
    )
    folder = Path("tiny-20260131-120000")
    run = Run(folder, Recipe(backbone="small-cnn"), list(names), "f" * 64, point or OperatingPoint())
    return results.report(
        run, SimpleNamespace(fingerprint="f" * 64, skipped=0, categories=list(names)), split, scores
    )


def draw(number, seed=0):
    """Alternating labels, and logits that often tell them apart."""
    labels = np.arange(number) % 2
    return labels, np.random.default_rng(seed).normal(3 * labels - 1.5, 1.5).astype(np.float32)


def estimate(value):
    return Estimate(value, max(0.0, value - 0.05), min(1.0, value + 0.05))


def perturbed(report, path):
    """The report with results on perturbed images; one at `path` is unstable."""
    variants = [
        PerturbedMetrics(name, estimate(auc), false_positive_rate=estimate(0.01), recall=estimate(auc / 2))
        for name, auc in (("as they are", 0.94), ("JPEG 75", 0.9), ("blur, sigma 2", 0.71))
    ]
    auc = {which: estimate(0.9) for which in ("neither", "reals", "fakes", "both")}
    text = "the AUC moves by 0.310 with the codec alone"
    unstable = UnstableImage(path, 1, ["fake", "real"], [0.93, 0.04])
    examples = report.metrics.examples
    metrics = replace(
        report.metrics,
        robustness=Robustness(examples, variants),
        bias_probe=BiasProbe("JPEG 75", {"JPEG 90": auc, "JPEG 75": auc}, estimate(0.31), "fail", text),
        stability=Stability(["JPEG 90"], examples, estimate(0.125), [unstable]),
    )
    return replace(report, metrics=metrics)


def write(folder, report, history=HISTORY, **options):
    replace(report, **{"training": TrainingHistory(history, 1), "card": CARD} | options).report(folder)
    return (folder / "report.html").read_text()


def seen(text):
    """The visible text of a page, on one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", re.sub(r"<(style|svg).*?</\1>", " ", text, flags=re.DOTALL)).split())


def pages(path: Path) -> int:
    content = path.read_bytes()
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")
    return len(re.findall(rb"/Type\s*/Page\b", content))


class Tags(HTMLParser):
    """The tags of a page, whether each is closed, and what it would load."""

    def __init__(self):
        super().__init__()
        self.open, self.loaded, self.scripts = [], [], 0

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "br", "path", "use", "rect"):
            self.open.append(tag)
        self.scripts += tag == "script" or any(name.startswith("on") for name, _ in attributes)
        self.loaded += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset")]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag, tag


@pytest.fixture(scope="module")
def report():
    """A report on 200 images of three sources and two categories, at a fitted operating point."""
    labels, logits = draw(200)
    sources = np.where(labels == 1, "diffusion", np.where(np.arange(200) < 10, "phone", "camera"))
    point = calibration.fit(logits, labels)
    return measured(
        labels, logits, sources=sources, categories=np.arange(200) % 2, names=["cats", "dogs"], point=point
    )


@pytest.fixture(scope="module")
def written(report, tmp_path_factory):
    """The folder of a report with everything in it."""
    folder = tmp_path_factory.mktemp("report") / "new"
    complete = perturbed(report, report.predictions["path"][1])
    write(folder, complete, thumbnails=dict.fromkeys(complete.shown_paths[1:], encode(size=60)))
    return folder


# --- what is written -------------------------------------------------------------------------------------------


def test_a_report_is_a_page_a_pdf_metrics_predictions_and_figures(written):
    assert {path.name for path in written.iterdir()} == ALWAYS | RANKED | {"confusion_category.png", "robustness.png"}
    assert json.loads((written / "metrics.json").read_text())["robustness"]["variants"][0]["name"] == "as they are"
    assert len(pd.read_csv(written / "predictions.csv")) == 200
    for picture in written.glob("*.png"):
        pixels = np.asarray(Image.open(picture).convert("L"))
        assert min(pixels.shape) > 400
        assert pixels.std() > 10, "an empty picture"
    assert pages(written / "report.pdf") > 3


def test_the_page_is_whole_and_loads_nothing(written):
    text = (written / "report.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.scripts == 0
    assert tags.loaded
    assert all(value.startswith(("data:image/jpeg;base64,", "#")) for value in tags.loaded)
    assert "@import" not in text
    assert "url(http" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert "prefers-color-scheme: dark" in text


def test_figures_have_the_colours_of_the_page(written):
    drawn = re.findall(r"<svg.*?</svg>", (written / "report.html").read_text(), flags=re.DOTALL)
    assert len(drawn) == 11
    assert all("var(--ink)" in svg for svg in drawn)
    assert not re.search(r"#(1d2330|2f6fc4|c2570c|7d4fb0)", " ".join(drawn))
    assert all(re.match(r'<svg[^>]*role="img" aria-label="[^"]+"', svg) for svg in drawn)


def test_the_page_has_the_numbers_of_the_metrics(written, report):
    text = seen((written / "report.html").read_text())
    metrics = report.metrics.authenticity
    for each in (
        metrics.auc,
        metrics.average_precision,
        metrics.calibrated.log_loss,
        metrics.calibrated.brier,
        metrics.uncalibrated.log_loss,
    ):
        assert f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})" in text
    assert f"{metrics.at_operating_point.recall.value:.1%}" in text
    assert "200 images" in text
    assert "100 real and 100 fake" in text


def test_the_summary_comes_first_and_in_plain_words(written):
    text = seen((written / "report.html").read_text())
    assert text.index("Of 100 real images") < text.index("Metrics Fake is the positive class")
    assert "The AUC moves by 0.310 with the codec alone." in text
    assert "Of 100 verdicts, about 12 (7.5 to 17.5) change when the image is re-encoded: JPEG 90." in text
    assert "blur, sigma 2 does the most harm: the AUC is 0.710 instead of 0.940" in text
    assert "of 100 fakes, about 36 instead of 47 are called fake" in text
    assert "warn Audit of the data: usable with care" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "none"),
        (0.003, "fewer than 1"),
        (0.0123, "about 1"),
        (0.46, "about 46"),
        (0.997, "more than 99"),
        (1.0, "all"),
    ],
)
def test_proportions_are_given_out_of_a_hundred(value, text):
    assert summary.format_of_hundred(estimate(value)) == text


def test_the_model_card_has_data_cost_recipe_and_limits(written):
    text = seen((written / "report.html").read_text())
    assert "f" * 64 in text
    assert "2,263,108" in text
    assert "1 h 2 min" in text
    assert "backbone small-cnn" in text
    assert "A score is not proof" in text


def test_a_subgroup_with_too_few_images_has_no_number(written):
    text = seen((written / "report.html").read_text())
    assert re.search(r"phone 5 0 fewer than 20 – fewer than 20", text)  # noqa: RUF001


# --- which images are shown ------------------------------------------------------------------------------------


def test_the_worst_the_least_certain_and_the_least_stable_are_shown_once_each():
    labels = np.array([0, 0, 0, 1, 1, 1])
    logits = np.array([5.0, -4.0, 0.1, -3.0, 6.0, 2.0])
    report = measured(labels, logits, paths=list("abcdef"))
    assert report.shown_paths == ["a", "c", "d", "f", "b", "e"]  # f, b, e: by rising certainty
    assert perturbed(report, "new").shown_paths == ["a", "c", "d", "f", "b", "e", "new"]


def test_no_more_than_a_dozen_of_each_kind_are_shown():
    labels, logits = draw(500)
    assert len(measured(labels, -logits).shown_paths) <= 36


def test_the_least_certain_lie_in_the_middle_of_the_thresholds_of_their_category(tmp_path):
    point = OperatingPoint(temperature=2.0, by_category={"dogs": calibration.Limits(3.0, 5.0)})
    labels, logits = np.arange(40) % 2, np.linspace(-6, 6, 40)
    report = measured(labels, logits, categories=np.arange(40) // 20, names=["cats", "dogs"], point=point)
    middle = report.predictions.iloc[20:]["logit"].sub(4).abs().idxmin()
    path = report.predictions["path"][middle]
    text = seen(write(tmp_path, report))
    assert path in text[text.index("Least certain, closest") :]
    assert "predicted to be dogs 81.8% 92.4% all others 50.0% 50.0%" in text  # the sigmoids of 1.5, 2.5 and 0


# --- what can go wrong -----------------------------------------------------------------------------------------


def test_with_one_label_there_is_no_roc_curve_and_the_report_says_so(tmp_path):
    text = seen(write(tmp_path, measured([1] * 12, np.linspace(-1, 2, 12)), card=ModelCard()))
    assert "Of 100 fakes" in text
    assert "Of 100 real images" not in text
    assert {path.name for path in tmp_path.iterdir()} == ALWAYS
    assert "All images have the same label, so there is no ROC curve" in text
    assert "nan" not in text.lower().split()
    assert pages(tmp_path / "report.pdf") > 1


@pytest.mark.parametrize("logits", [np.zeros(12), np.linspace(-1e6, 1e6, 12)])
def test_equal_and_extreme_scores_are_reported(tmp_path, logits):
    write(tmp_path, measured(np.arange(12) % 2, logits), history=HISTORY[:1])
    assert {path.name for path in tmp_path.iterdir()} == ALWAYS | RANKED


@pytest.mark.filterwarnings("error")
def test_any_path_can_be_shown(tmp_path):
    odd = [
        os.fsdecode(b"\xff.jpg"),
        "<script>alert('&')</script>.jpg",
        "d/" * 400 + "end.jpg",
        "写真.jpg",
        "a\x00\n\tb.jpg",
        "$x$ %s {}.jpg",
    ]
    paths = odd + [f"{index}.jpg" for index in range(18)]
    labels, logits = np.arange(24) % 2, np.linspace(3, -3, 24)
    sources = ["<b>", "$\\alpha", "", "長い" * 100] * 6
    report = measured(labels, logits, paths=paths, sources=sources, categories=labels, names=["<i>$", "é" * 80])
    text = write(tmp_path, perturbed(report, odd[1]))
    assert "<script" not in text
    assert "&lt;script&gt;alert" in text
    assert "\N{REPLACEMENT CHARACTER}.jpg" in text
    assert "d/d/end.jpg" in text
    assert pages(tmp_path / "report.pdf") > 3
    assert b"\xff.jpg" in (tmp_path / "predictions.csv").read_bytes()
    assert json.loads((tmp_path / "metrics.json").read_text())["stability"]["worst"][0]["path"] == odd[1]


def test_many_sources_are_cut_to_the_largest():
    sources = [f"source {index // 2}" for index in range(150)] + ["the largest"] * 50
    labels, logits = draw(200)
    blocks = list(evaluation_report._subgroups(measured(labels, logits, sources=sources).metrics.tables))
    text = seen(html.render(Document("title", "about", blocks)))
    assert "The 60 largest are shown; all 76 are in metrics.json." in text
    assert "the largest 25 25" in text


# --- its numbers ------------------------------------------------------------------------------------------------


def test_the_operating_point_lies_on_the_curves(report):
    metrics, point = report.metrics.authenticity, report.metrics.provenance.operating_point
    labels, logits = (report.predictions[name].to_numpy() for name in ("label", "logit"))
    centred, certainty = evaluation_report._certainty(report.predictions, point)
    is_decided = certainty >= 0
    assert is_decided.mean() == metrics.coverage.value
    is_wrong = (centred >= 0) != (labels == 1)
    assert is_wrong[is_decided].mean() == metrics.risk.value
    recall = (labels[logits >= point.limits.fake_from] == 1).sum() / 100
    assert recall == pytest.approx(metrics.at_operating_point.recall.value)


def test_probabilities_of_the_report_are_calibrated(report):
    temperature = report.metrics.provenance.operating_point.temperature
    expected = probability(report.predictions["logit"].to_numpy() / temperature)
    np.testing.assert_allclose(report.predictions["fake_probability"], expected, atol=1e-6)


def test_a_report_in_a_program(report):
    assert report.auc == report.metrics.authenticity.auc
    assert report.to_dict()["authenticity"]["auc"] == report.auc.to_dict()
    assert len(report.to_frame()) == 200
    assert repr(report) == f"EvaluationReport(test, 200 images, AUC {report.auc})"


def test_logits_of_1e30_do_not_break_the_report(tmp_path):
    labels, logits = draw(60)
    text = seen(write(tmp_path, measured(labels, 1e30 * logits)))
    assert "nan" not in text.lower().split()
    assert re.search(r"log loss, in nats \d\.\d+e\+2\d \(\d\.\d+e\+2\d to \d\.\d+e\+2\d\)", text)
    assert pages(tmp_path / "report.pdf") > 1


@pytest.mark.parametrize(
    ("value", "low", "high", "grade"),
    [
        (0.55, 0.45, 0.65, "may be guessing"),
        (0.3, 0.2, 0.4, "worse than guessing"),
        (0.65, 0.6, 0.7, "weak"),
        (0.75, 0.68, 0.82, "fair"),
        (0.85, 0.8, 0.9, "good"),
        (0.95, 0.9, 0.98, "very good"),
        (1.0, 0.98, 1.0, "excellent"),
    ],
)
def test_an_auc_has_a_plain_grade(value, low, high, grade):
    assert summary.format_grade(Estimate(value, low, high)) == grade


def test_the_headline_is_the_auc_and_how_many_images_get_a_verdict(tmp_path):
    labels = np.array([0] * 60 + [1] * 60)
    logits = np.r_[np.linspace(-3, 1, 59), 2.5, np.linspace(-1, 3, 60)]  # one real is called fake
    report = measured(labels, logits, point=OperatingPoint(limits=Limits(-2.0, 2.0)))
    report.report(tmp_path)
    text = seen((tmp_path / "report.html").read_text())
    auc = report.metrics.authenticity.auc
    assert f"Summary {auc.value:.3f} AUC: good" in text
    assert "31 of 120 images get a verdict, 30 of them right." in text
    assert text.index("AUC: good") < text.index("of these verdicts are right")


def test_the_auc_of_few_images_has_no_interval_in_the_headline(tmp_path):
    measured(*draw(24)).report(tmp_path)
    text = seen((tmp_path / "report.html").read_text())
    assert re.search(r"Summary \d\.\d{3} AUC: [a-z ]+ no interval", text)
    assert "nan" not in text[: text.index("Brackets hold")]
