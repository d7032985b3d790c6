"""The page of an audit, of a result made by hand."""

import pytest

from ddkeras.reporting.audit_report import page

SCRIPT, ESCAPED = "<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"


def shortcut(auc, **fields):
    row = {"target": "label", "within": "", "group": "file", "images": 1200, "auc": auc, "low": 0.55, "high": 0.75}
    features = [{"name": "jpeg_quality", "kind": "median", "values": {"real": "95", "fake": "75"}}]
    return row | {"features": features, "verdict": "warn"} | fields


def views(**fields):
    """What an audit says of views where there are no training images, but for these fields."""
    result = {"image_size": 224, "images": 0, "median_side": None, "labels": {"real": None, "fake": None}}
    result |= {"histogram": None, "auc": None, "low": None, "high": None, "verdict": "ok", "suggestion": None}
    return result | {"reason": "there are no labelled training images"} | fields


def shrink(images, median):
    return {"images": images, "lower_quartile": median, "median": median, "upper_quartile": median, "enlarged": 0.25}


def shrunk(**fields):
    """Of three real images, one enlarged by 1.6 and two shrunk by 1.5, and as many fakes shrunk by 3."""
    edges, real, fake = [0.5, 1, 2, 4], [1, 2, 0], [0, 0, 3]
    return views(
        images=6,
        labels={"real": shrink(3, 1.5), "fake": shrink(3, 3.0)},
        histogram={"edges": edges, "real": real, "fake": fake},
        suggestion="windows",
        reason="images are large",
        **fields,
    )


def audit(**fields):
    """An audit that found nothing, but for these fields."""
    pairs = {"images": {}, "pairs": []}
    kinds = ("exact_across_labels", "exact_across_splits", "near_across_splits", "near_across_labels")
    counts = [{"split": "train", "label": "real", "category": "cats", "source": "", "images": 1200}]
    result = {
        "data": "data",
        "kind": "folder",
        "images": 1200,
        "sampled": 1200,
        "verdict": "ok",
        "meaning": "nothing was found",
        "findings": [],
        "notes": [],
        "warn": 0.6,
        "fail": 0.75,
        "shortcuts": [],
        "views": views(),
        "leaks": {**dict.fromkeys(kinds, pairs), "flat": 0},
        "balance": {"counts": counts, "empty": [], "tiny": [], "formats": {}, "histograms": {}},
        "seed": 0,
        "versions": {"numpy": "2.0"},
    }
    return result | fields


def test_an_audit_that_found_nothing():
    text = page(audit(), {})
    assert "<title>Audit of data</title>" in text
    assert "1,200 images in a data folder</p>" in text
    assert "There are no labelled images to measure them on." in text
    assert "No image was found twice, neither in two splits nor under two labels." in text
    assert "Seed 0;\nnumpy 2.0.</p>" in text
    assert "<h3>Sources</h3>" not in text


def test_a_shortcut_is_drawn_with_its_interval_and_both_thresholds():
    text = page(audit(shortcuts=[shortcut(0.6)]), {})
    assert 'aria-label="AUC 0.600, 95% interval 0.550 to 0.750"' in text
    assert '<line x1="18.0" x2="90.0" y1="10" y2="10" stroke="var(--ink)"' in text, "180 units from 0.5 to 1"
    assert '<circle cx="36.0" cy="10"' in text
    assert '<line x1="36.0" x2="36.0" y1="2" y2="18" stroke="var(--warn)"' in text
    assert '<line x1="90.0" x2="90.0" y1="2" y2="18" stroke="var(--fail)"' in text
    assert 'median jpeg quality <span class="dim">(real 95, fake 75)</span>' in text


def test_a_question_with_too_few_images_has_no_number():
    text = page(audit(shortcuts=[shortcut(None, within="cats")]), {})
    assert 'fake or real, in cats <span class="dim">(1,200 images)</span>' in text
    assert "too few images per class to measure" in text


def test_commands_are_set_apart():
    finding = {"verdict": "fail", "text": "copies", "remedy": "leave them out with: ddk make-tfrecords DATA <b>"}
    text = page(audit(findings=[finding]), {})
    assert "Leave them out with: <code>ddk make-tfrecords DATA</code> &lt;b&gt;." in text
    finding = {"verdict": "warn", "text": "large", "remedy": "train on windows, with: ddk fit --view windows"}
    assert "with: <code>ddk fit --view windows</code>." in page(audit(findings=[finding]), {})


def test_scarce_cells_are_marked_and_others_of_none_are_blank():
    counts = [
        {"split": "train", "label": label, "category": category, "source": "", "images": images}
        for label, category, images in (("real", "cats", 1200), ("fake", "dogs", 7))
    ]
    tiny = [{"split": "train", "label": "fake", "category": "dogs"}]
    empty = [{"split": "train", "label": "fake", "category": "cats"}]
    balance = audit()["balance"] | {"counts": counts, "tiny": tiny, "empty": empty}
    text = page(audit(balance=balance), {})
    number, warn = '<td class="number">', '<td class="number warn">'
    assert f"<td>real</td>{number}1,200</td>{number}</td>{number}1,200</td>" in text.replace("\n", "")
    assert f"<td>fake</td>{warn}0</td>{warn}7</td>{number}7</td>" in text.replace("\n", "")


def test_a_histogram_has_real_above_and_fake_below_the_line():
    bins = {"edges": [0, 1, 2], "real": [3, 1], "fake": [0, 2], "low": 0, "high": 2}
    text = page(audit(balance=audit()["balance"] | {"histograms": {"height": bins}}), {})
    assert '<rect x="0.5" y="15.0" width="149.0" height="45.0" fill="var(--real)"/>' in text
    assert '<rect x="150.5" y="45.0" width="149.0" height="15.0" fill="var(--real)"/>' in text
    assert '<rect x="150.5" y="60.0" width="149.0" height="60.0" fill="var(--fake)"/>' in text
    assert text.count("<rect") == 3


def test_the_view_is_suggested_with_its_reason():
    assert "<p>None is suggested: there are no labelled training images.</p>" in page(audit(), {})
    text = page(audit(views=shrunk()), {})
    assert "<strong>Suggested: windows.</strong> Images are large." in text
    assert "There are too few images per label to measure whether this alone tells fake from real." in text
    text = page(audit(views=shrunk(auc=0.9, low=0.8, high=0.95) | {"verdict": "warn"}), {})
    assert (
        '<b class="warn">warn</b> &ensp;This alone tells fake from real: AUC 0.900 (95% interval\n0.800 to 0.950)'
        in text
    )
    text = page(audit(views=shrunk(auc=0.4, low=0.3, high=0.5)), {})
    assert "This alone tells fake from real no better than chance: AUC 0.400" in text


def test_shrink_factors_are_drawn_on_a_scale_of_powers_of_two():
    text = page(audit(views=shrunk()), {})
    assert '<rect x="0.5" y="40.0" width="145.7" height="20.0" fill="var(--real)"/>' in text
    assert '<rect x="147.2" y="20.0" width="145.7" height="40.0" fill="var(--real)"/>' in text
    assert '<rect x="293.8" y="60.0" width="145.7" height="60.0" fill="var(--fake)"/>' in text
    for x, number in ((0.0, 2), (146.7, 1), (293.3, 2), (440.0, 4)):
        assert f'<text x="{x}" y="154" text-anchor="middle">{number}</text>' in text
    assert '<text x="140.7" y="170" text-anchor="end">← enlarged by</text>' in text
    assert '<text x="152.7" y="170">shrunk by →</text>' in text


def test_medians_of_shrink_factors_are_marked_and_named_without_colour():
    text = page(audit(views=shrunk()), {})
    assert 'aria-label="real images, median: shrunk by 1.5; fake images, median: shrunk by 3.0"' in text
    assert '<line x1="232.5" x2="232.5" y1="-4" y2="60" stroke="var(--ink)"/>' in text
    assert '<text x="232.5" y="-8" text-anchor="middle" class="ink">median: shrunk by 1.5</text>' in text
    assert '<text x="379.1" y="135" text-anchor="end" class="ink">median: shrunk by 3.0</text>' in text
    assert '<text x="-8" y="34.0" text-anchor="end" class="ink">real</text>' in text
    assert '<text x="-8" y="94.0" text-anchor="end" class="ink">fake</text>' in text
    small = shrunk() | {"labels": {"real": shrink(3, 0.02), "fake": None}}
    text = page(audit(views=small), {})
    assert '<text x="0" y="-8" text-anchor="start" class="ink">median: enlarged by 50.0</text>' in text


@pytest.mark.parametrize("number", [40, 42])
def test_the_largest_sources_are_listed(number):
    counts = [
        {"split": "train", "label": "fake", "category": "", "source": f"source {index}", "images": 1000 - index}
        for index in range(number)
    ]
    text = page(audit(balance=audit()["balance"] | {"counts": counts}), {})
    assert "<td>source 39</td>" in text
    assert "<td>source 40</td>" not in text
    assert ("and 2 smaller ones, in audit.json" in text) == (number == 42)


def test_all_that_users_named_is_escaped():
    image = {"path": f"{SCRIPT}.jpg", "split": "train", "label": "real"}
    pairs = {"images": {SCRIPT: 1}, "pairs": [{"a": image, "b": image, "similarity": 0.95}]}
    counts = [{"split": "train", "label": "real", "category": SCRIPT, "source": SCRIPT, "images": 1}]
    feature = {"name": SCRIPT, "kind": SCRIPT, "values": {SCRIPT: SCRIPT}}
    text = page(
        audit(
            data=SCRIPT,
            notes=[SCRIPT],
            findings=[{"verdict": "fail", "text": SCRIPT, "remedy": SCRIPT}],
            shortcuts=[shortcut(0.7, within=SCRIPT, features=[feature])],
            leaks=audit()["leaks"] | {"near_across_splits": pairs},
            balance=audit()["balance"] | {"counts": counts, "formats": {SCRIPT: {SCRIPT: 1}}},
            versions={SCRIPT: SCRIPT},
        ),
        {},
    )
    assert "<script" not in text
    assert f"{ESCAPED}.jpg" in text
    assert text.count(ESCAPED) >= 15
