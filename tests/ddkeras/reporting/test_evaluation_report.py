"""The report: one document, said as a page and as a PDF, of whatever was measured."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from tiny import encode

from ddkeras.evaluation import results
from ddkeras.evaluation.scoring import Scores
from ddkeras.metrics import calibration
from ddkeras.metrics.calibration import OperatingPoint
from ddkeras.metrics.classification import probability
from ddkeras.reporting import evaluation_report, figures, html, pdf, summary
from ddkeras.reporting.document import Document, Paragraph, Picture, Pictures, Table
from ddkeras.runs.run import Run

HISTORY = pd.DataFrame({"epoch": [0, 1, 2], "loss": [2.0, 1.0, 0.9], "val_loss": [2.5, 1.5, 1.6]})
HISTORY["authenticity_accuracy"] = HISTORY["val_authenticity_accuracy"] = [0.5, 0.75, 0.8]
CARD = {
    "audit": {"verdict": "warn", "meaning": "usable with care; read the warnings before you believe a number"},
    "cost": {"parameters": 2263108, "seconds_of_training": 3725.0},
}
NOTHING_KNOWN = {"audit": None, "cost": {"parameters": None, "seconds_of_training": None}}
ALWAYS = {
    *("metrics.json", "predictions.csv", "report.html", "report.pdf", "loss.png", "accuracy.png"),
    *("scores.png", "reliability.png", "risk_coverage.png", "confusion_authenticity.png"),
}
RANKED = {"roc.png", "roc_log.png", "precision_recall.png"}


def measured(labels, logits, *, paths=None, sources=None, categories=None, names=(), split="test", point=None):
    """A report on made-up scores, of a run that never was."""
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
    run = Run(folder, evaluation_recipe(), list(names), "f" * 64, point or OperatingPoint())
    return results.report(run, SimpleNamespace(fingerprint="f" * 64, skipped=0), split, scores)


def evaluation_recipe():
    from ddkeras.config import Recipe  # noqa: PLC0415

    return Recipe(backbone="small-cnn")


def draw(number, seed=0):
    """Labels by turns, and logits that tell them apart now and then."""
    labels = np.arange(number) % 2
    return labels, np.random.default_rng(seed).normal(3 * labels - 1.5, 1.5).astype(np.float32)


def estimate(value):
    return {"value": value, "low": max(0.0, value - 0.05), "high": min(1.0, value + 0.05)}


def swept(metrics, path):
    """The metrics with all that a sweep adds."""
    variants = [
        {
            "name": name,
            "auc": estimate(auc),
            "called_fake_of_real": estimate(0.01),
            "called_fake_of_fake": estimate(auc / 2),
        }
        for name, auc in (("as they are", 0.94), ("JPEG 75", 0.9), ("blur, sigma 2", 0.71))
    ]
    ways = {which: estimate(0.9) for which in ("neither", "reals", "fakes", "both")}
    probe = {"by": "JPEG 75", "auc": {"JPEG 90": ways, "JPEG 75": ways}}
    probe |= {"swing": estimate(0.31), "verdict": "fail", "text": "the AUC moves by 0.310 with the codec alone"}
    worst = {"path": path, "label": 1, "verdicts": ["fake", "real"], "probabilities": [0.93, 0.04]}
    stability = {"by": ["JPEG 90"], "examples": metrics["examples"], "flips": estimate(0.125), "worst": [worst]}
    robustness = {"images": metrics["examples"], "variants": variants}
    return metrics | {"robustness": robustness, "bias_probe": probe, "stability": stability}


def write(folder, found, metrics=None, history=HISTORY, thumbnails=None, card=CARD):
    evaluation_report.write(
        folder,
        found.metrics if metrics is None else metrics,
        found.predictions,
        history=history,
        best_epoch=1,
        thumbnails=thumbnails or {},
        card=card,
    )
    return (folder / "report.html").read_text()


def seen(text):
    """What a reader sees of a page, on one line."""
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
def found():
    """Of 200 images of three sources and two categories, with an operating point of their own."""
    labels, logits = draw(200)
    sources = np.where(labels == 1, "diffusion", np.where(np.arange(200) < 10, "phone", "camera"))
    point = calibration.fit(logits, labels)
    return measured(
        labels, logits, sources=sources, categories=np.arange(200) % 2, names=["cats", "dogs"], point=point
    )


@pytest.fixture(scope="module")
def written(found, tmp_path_factory):
    """The folder of a report with everything in it."""
    folder, path = tmp_path_factory.mktemp("report"), found.predictions["path"][1]
    metrics = swept(found.metrics, path)
    paths = evaluation_report.shown(found.predictions, metrics)
    write(folder, found, metrics, thumbnails=dict.fromkeys(paths[1:], encode(size=60)))
    return folder


# --- what is written -------------------------------------------------------------------------------------------


def test_a_report_is_numbers_rows_pictures_a_page_and_a_pdf(written, found):
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


def test_page_and_pdf_say_the_same_numbers_as_the_metrics(written, found):
    text = seen((written / "report.html").read_text())
    fake = found.metrics["authenticity"]
    for name in ("auc", "average_precision", "log_loss", "brier"):
        assert "{value:.3f} ({low:.3f} to {high:.3f})".format(**fake[name]) in text
    assert "{value:.3f} ({low:.3f} to {high:.3f})".format(**fake["uncalibrated"]["log_loss"]) in text
    assert f"{fake['at_operating_point']['recall']['value']:.1%}" in text
    assert "200 images" in text
    assert "100 real and 100 fake" in text


def test_the_summary_comes_first_and_in_plain_words(written):
    text = seen((written / "report.html").read_text())
    assert text.index("Of 100 real images") < text.index("The numbers Fake is what is looked for")
    assert "The AUC moves by 0.310 with the codec alone." in text
    assert "Of 100 verdicts about 12 (7.5 to 17.5) change when the image is worked over: JPEG 90." in text
    assert "blur, sigma 2 does the most harm: the AUC is 0.710 in place of 0.940" in text
    assert "of 100 fakes about 36 in place of 47 are found" in text
    assert "warn Audit of the data: usable with care" in text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "none"),
        (0.003, "fewer than 1"),
        (0.0123, "about 1"),
        (0.46, "about 46"),
        (0.997, "more than 99"),
        (1.0, "all"),
    ],
)
def test_shares_are_told_of_a_hundred(value, said):
    assert summary.of_hundred(estimate(value)) == said


def test_the_model_card_has_data_cost_recipe_and_limits(written):
    text = seen((written / "report.html").read_text())
    assert "f" * 64 in text
    assert "2,263,108" in text
    assert "1 h 2 min" in text
    assert "backbone small-cnn" in text
    assert "A score is no proof" in text


def test_a_cell_with_too_few_images_has_no_number(written):
    text = seen((written / "report.html").read_text())
    assert re.search(r"phone 5 0 fewer than 20 – fewer than 20", text)  # noqa: RUF001


# --- which images are shown ------------------------------------------------------------------------------------


def test_the_most_wrong_the_least_sure_and_the_least_stable_are_shown_once_each():
    labels = np.array([0, 0, 0, 1, 1, 1])
    logits = np.array([5.0, -4.0, 0.1, -3.0, 6.0, 2.0])
    found = measured(labels, logits, paths=list("abcdef"))
    metrics = swept(found.metrics, "f")
    assert evaluation_report.shown(found.predictions, metrics) == [
        "a",
        "c",
        "d",
        "f",
        "b",
        "e",
    ]  # f, b, e: by how sure it is
    assert evaluation_report.shown(found.predictions, found.metrics)[:3] == ["a", "c", "d"]


def test_no_more_than_a_dozen_of_each_kind_are_shown():
    labels, logits = draw(500)
    found = measured(labels, -logits)
    assert len(evaluation_report.shown(found.predictions, found.metrics)) <= 36


def test_what_is_least_sure_lies_in_the_middle_of_the_limits_of_its_category(tmp_path):
    point = OperatingPoint(temperature=2.0, by_category={"dogs": calibration.Limits(3.0, 5.0)})
    labels, logits = np.arange(40) % 2, np.linspace(-6, 6, 40)
    found = measured(labels, logits, categories=np.arange(40) // 20, names=["cats", "dogs"], point=point)
    middle = found.predictions.iloc[20:]["logit"].sub(4).abs().idxmin()
    path = found.predictions["path"][middle]
    text = seen(write(tmp_path, found))
    assert path in text[text.index("Least sure, nearest") :]
    assert "predicted to be dogs 81.8% 92.4% all others 50.0% 50.0%" in text  # the sigmoids of 1.5, 2.5 and 0


# --- what can go wrong -----------------------------------------------------------------------------------------


def test_of_one_label_there_is_no_roc_and_the_report_says_so(tmp_path):
    text = seen(write(tmp_path, measured([1] * 12, np.linspace(-1, 2, 12)), card=NOTHING_KNOWN))
    assert "Of 100 fakes" in text
    assert "Of 100 real images" not in text
    assert {path.name for path in tmp_path.iterdir()} == ALWAYS
    assert "There is one label alone, and so no ROC curve" in text
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
    found = measured(labels, logits, paths=paths, sources=sources, categories=labels, names=["<i>$", "é" * 80])
    text = write(tmp_path, found, swept(found.metrics, odd[1]))
    assert "<script" not in text
    assert "&lt;script&gt;alert" in text
    assert "\N{REPLACEMENT CHARACTER}.jpg" in text
    assert "d/d/end.jpg" in text
    assert pages(tmp_path / "report.pdf") > 3
    assert b"\xff.jpg" in (tmp_path / "predictions.csv").read_bytes()
    assert json.loads((tmp_path / "metrics.json").read_text())["stability"]["worst"][0]["path"] == odd[1]


def test_a_picture_that_cannot_be_had_has_a_place():
    document = Document("title", "about", [Pictures([Picture("a.jpg", "real", None)])])
    assert "no picture" in html.render(document)
    assert pdf.render(document).startswith(b"%PDF-")


def test_a_table_that_is_too_wide_and_one_without_rows_are_printed():
    wide = Table([f"column {index}" for index in range(30)], [["words and more words"] * 30] * 3, ["column 1"])
    document = Document("title", "about", [wide, Table(["a"], []), Paragraph("x" * 5000)])
    assert pdf.render(document).startswith(b"%PDF-")


def test_many_sources_are_cut_to_the_largest():
    sources = [f"source {index // 2}" for index in range(150)] + ["the largest"] * 50
    labels, logits = draw(200)
    blocks = list(evaluation_report._tables(measured(labels, logits, sources=sources).metrics["tables"]))
    text = seen(html.render(Document("title", "about", blocks)))
    assert "The 60 largest are shown; all 76 are in metrics.json." in text
    assert "the largest 25 25" in text


# --- figures ---------------------------------------------------------------------------------------------------


def test_the_operating_point_lies_on_the_curves(found):
    point = found.metrics["authenticity"]["at_operating_point"]
    labels, logits = (found.predictions[name].to_numpy() for name in ("label", "logit"))
    centred, sureness = evaluation_report._sureness(found.predictions, found.metrics)
    decided = sureness >= 0
    assert decided.mean() == found.metrics["authenticity"]["coverage"]["value"]
    wrong = (centred >= 0) != (labels == 1)
    assert wrong[decided].mean() == found.metrics["authenticity"]["risk"]["value"]
    assert (
        labels[logits >= found.metrics["operating_point"]["limits"]["fake_from"]] == 1
    ).sum() / 100 == pytest.approx(point["recall"]["value"])


def test_a_curve_of_many_points_is_thinned_and_keeps_its_ends_and_shape():
    x = np.linspace(0, 1, 100_000)
    thin_x, thin_y = figures._thinned(x, x, x**2)
    assert len(thin_x) <= 500
    assert (thin_x[0], thin_x[-1]) == (0, 1)
    np.testing.assert_allclose(np.interp(x, thin_x, thin_y), x**2, atol=1e-4)


def test_reliability_is_binned_with_counts():
    middle, share, low, high, number = figures._binned(np.array([0, 1, 1, 1]), np.array([0.01, 0.03, 0.99, 1.0]))
    assert (number[0], number[-1], number.sum()) == (2, 2, 4)
    assert (share[0], share[-1]) == (0.5, 1)
    assert middle[0] == pytest.approx(0.02)
    assert high[-1] == 1
    assert low[-1] == pytest.approx(2 / (2 + 3.841458820694124))  # Wilson's, of 2 of 2


def test_a_confusion_matrix_shows_counts_and_shares_of_the_row():
    axes = Figure().subplots()
    figures.draw_confusion(axes, np.array([[3, 1], [0, 0]]), ["real", "fake"], ["real", "fake"])
    assert [text.get_text() for text in axes.texts] == ["3\n75%", "1\n25%", "0\n0%", "0\n0%"]


def test_the_history_is_drawn_with_and_without_a_category_head():
    one = figures.history(HISTORY, 2, "cross_entropy")
    two = HISTORY.copy()
    for name in ("category_accuracy", "category_loss", "authenticity_loss"):
        two[name] = two[f"val_{name}"] = [0.5, 0.75, 0.8]
    both = figures.history(two, 2, "cross_entropy")
    assert [drawing.name for drawing in one] == [drawing.name for drawing in both] == ["loss", "accuracy"]
    assert one[0].png != both[0].png
    assert figures.history(HISTORY, 3, "cross_entropy")[0].png != one[0].png, "the epoch that was kept is marked"


@pytest.mark.parametrize(
    ("loss", "label"),
    [("cross_entropy", "cross-entropy (nats)"), ("focal", "focal loss"), ("squared_error", "squared error")],
)
def test_the_axis_of_the_loss_figure_is_labelled_by_the_loss_of_the_recipe(monkeypatch, loss, label):
    labels = []
    monkeypatch.setattr(figures.Axes, "set_ylabel", lambda axes, text, **_: labels.append(text))
    figures.history(HISTORY, 2, loss)
    assert labels == [label, "share of images right"]


def test_a_figure_is_the_same_each_time():
    first, again = (figures.history(HISTORY, 2, "cross_entropy")[0] for _ in range(2))
    assert (first.png, first.svg) == (again.png, again.svg)


def test_probabilities_of_the_report_are_calibrated(found):
    temperature = found.metrics["operating_point"]["temperature"]
    expected = probability(found.predictions["logit"].to_numpy() / temperature)
    np.testing.assert_allclose(found.predictions["fake_probability"], expected, atol=1e-6)
