"""What file properties alone reveal."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin
from sklearn.metrics import roc_auc_score
from tiny import encode

from pipelines.audit.shortcuts import GROUPS, file_features, format_shortcut, jpeg_quality, macro_auc, shortcuts
from pipelines.media.headers import UnreadableError

# --- the features of a file ------------------------------------------------------------------------------------


def test_the_features_of_a_jpeg():
    encoded = encode(quality=90, subsampling="4:2:0", dpi=(72, 72))
    features = file_features(encoded, "train/fake/IMG_0042.jpg")
    assert features == {
        "format": "jpeg",
        "mode": "RGB",
        "bits": 8,
        "frames": 1,
        "jpeg_quality": 90,
        "luma_table": 736,
        "chroma_table": 1110,
        "subsampling": "4:2:0",
        "progressive": "no",
        "metadata": "APP0",
        "software": "",
        "maker": "",
        "height": 40,
        "width": 40,
        "aspect": 1.0,
        "megapixels": 0.0016,
        "bytes_per_pixel": len(encoded) / 1600,
        "name_pattern": "aaa_9999",
        "name_length": 12,
        "name_digits": 4,
        "suffix": "jpg",
    }


def test_the_features_of_a_png():
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "painter  2\n")
    text.add_text("parameters", "a cat")
    features = file_features(encode("PNG", pnginfo=text), "cat")
    assert (features["format"], features["metadata"], features["software"]) == (
        "png",
        "Software parameters",
        "painter 2",
    )
    assert (features["jpeg_quality"], features["subsampling"]) == (None, "")
    assert (features["name_pattern"], features["suffix"]) == ("aaa", "")


def test_exif_gives_the_camera_and_the_upright_size():
    exif = Image.Exif()
    exif[0x010F], exif[0x0131], exif[0x0112] = "Canon", "firmware 1.2", 6
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20)).save(buffer, "JPEG", exif=exif)
    features = file_features(buffer.getvalue(), "a.jpg")
    assert (features["maker"], features["software"], features["metadata"]) == ("Canon", "firmware 1.2", "APP0 APP1")
    assert (features["height"], features["width"]) == (30, 20)


def test_a_name_that_is_not_utf8_has_a_pattern():
    assert file_features(encode(), "caf\udce9 1.jpg")["name_pattern"] == "aaa\ufffd 9"


def test_damaged_exif_is_ignored():
    exif = b"Exif\0\0II*\0\xff\xff\xff\xff"
    assert file_features(encode(exif=exif), "a.jpg")["maker"] == ""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"kind": "WEBP"}, {"format": "webp", "metadata": "VP8 background loop"}),
        ({"kind": "WEBP", "lossless": True}, {"format": "webp", "metadata": "VP8L background loop"}),
        ({"kind": "JPEG", "progressive": True}, {"format": "jpeg", "progressive": "yes"}),
        ({"kind": "GIF"}, {"format": "gif", "mode": "P"}),
        ({"kind": "TIFF"}, {"format": "tiff", "bits": 8}),
        ({"kind": "BMP"}, {"format": "bmp", "jpeg_quality": None}),
    ],
)
def test_every_format_has_every_feature(options, expected):
    features = file_features(encode(**options), "a.b")
    assert sorted(features) == sorted(GROUPS["all"])
    assert {name: features[name] for name in expected} == expected


def test_the_folders_of_a_path_are_ignored():
    assert file_features(encode(), "train/real/cats/1.jpg") == file_features(encode(), "test/1.jpg")


@pytest.mark.parametrize("encoded", [b"", b"<html>", encode()[:20]])
def test_a_file_without_a_header_is_refused(encoded):
    with pytest.raises(UnreadableError):
        file_features(encoded, "a.jpg")


def test_the_header_is_enough():
    whole, cut = encode(size=200), encode(size=200)[:1000]
    features, features_of_cut = file_features(whole, "a.jpg"), file_features(cut, "a.jpg")
    assert {name for name in features if features[name] != features_of_cut[name]} == {"bytes_per_pixel"}


def test_every_quality_setting_is_recognized():
    for quality in range(1, 101):
        with Image.open(io.BytesIO(encode(size=8, quality=quality))) as image:
            assert jpeg_quality(sum(image.quantization[0])) == quality
    assert jpeg_quality(740) == 90, "of another table, the nearest"


# --- what can be learned from them -----------------------------------------------------------------------------


def table(number: int = 60, **columns) -> pd.DataFrame:
    """Rows with labels 0, 1, 0, 1, ..., of no category, all files alike but for `columns`."""
    row = file_features(encode(), "a.jpg") | {"category": ""}
    return pd.DataFrame({"label": np.arange(number) % 2, **{name: [row[name]] * number for name in row}} | columns)


def found(rows: list[dict], group: str = "file", target: str = "label", within: str = "") -> dict:
    return next(row for row in rows if (row["group"], row["target"], row["within"]) == (group, target, within))


def noise(number: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=number)


def test_a_format_of_their_own_reveals_fakes():
    rows = shortcuts(table(format=["jpeg", "png"] * 30, bytes_per_pixel=noise()))
    row = found(rows)
    assert (row["images"], row["auc"], row["high"], row["verdict"]) == (60, 1.0, 1.0, "fail")
    assert row["low"] == pytest.approx(30 / (30 + 1.96**2), abs=1e-4), "Wilson's, of 30 images of each label"
    best = row["features"][0]
    assert (best["name"], best["kind"], best["values"]) == ("format", "jpeg", {"real": "100%", "fake": "0%"})
    assert best["alone"] == 1.0
    assert found(rows, "codec")["verdict"] == "fail"
    assert found(rows, "name")["auc"] == 0.5
    assert found(rows, "all")["verdict"] is None
    assert format_shortcut(row) == (
        "file properties alone, without the pixels, tell fake from real: AUC 1.000 (95% interval 0.886 to 1.000); "
        "mostly by format jpeg (real 100%, fake 0%)"
    )


def test_identical_features_reveal_nothing():
    row = found(shortcuts(table()))
    assert (row["auc"], row["features"], row["verdict"]) == (0.5, [], "ok")


def test_noise_reveals_nothing():
    rows = shortcuts(table(200, bytes_per_pixel=noise(200), luma_table=noise(200, 1), name_length=noise(200, 2)))
    assert {row["verdict"] for row in rows} == {"ok", None}
    assert found(rows)["low"] < 0.5 < found(rows)["high"]


def test_overlapping_sizes_are_judged_by_the_thresholds():
    sizes = noise(400) + 0.5 * (np.arange(400) % 2)
    for warn, fail, verdict in ((0.6, 0.75, "fail"), (0.6, 0.95, "warn"), (0.95, 0.99, "ok")):
        rows = shortcuts(table(400, height=sizes), warn=warn, fail=fail, groups=["file"])
        assert 0.75 < found(rows)["auc"] < 0.9  # 0.875 for the best of classifiers
        assert found(rows)["verdict"] == verdict


def test_an_interval_that_includes_chance_is_no_warning():
    rows = shortcuts(table(44, height=noise(44, 11)), warn=0.51, groups=["file"])
    row = found(rows)
    assert row["auc"] > 0.51
    assert row["low"] <= 0.5
    assert row["verdict"] == "ok"


def test_names_warn_at_most_since_no_detector_sees_them():
    row = found(shortcuts(table(name_pattern=["aaa_9999", "99999999"] * 30)), "name")
    assert (row["auc"], row["verdict"]) == (1.0, "warn")
    assert format_shortcut(row).startswith("file names alone tell fake from real: AUC 1.000")


def test_a_missing_value_differs_from_a_number():
    row = found(shortcuts(table(jpeg_quality=[90, None] * 30), groups=["codec"]), "codec")
    assert row["auc"] == 1.0
    assert row["features"][0]["values"] == {"real": "90", "fake": "none"}


def test_features_that_matter_only_in_combination_are_named():
    first, second = np.arange(400) // 2 % 2, np.arange(400) // 4 % 2
    row = found(
        shortcuts(table(400, label=first ^ second, height=first * 64, width=second * 64), groups=["size"]), "size"
    )
    assert row["auc"] > 0.99
    assert {feature["name"] for feature in row["features"]} == {"height", "width"}
    assert all(feature["alone"] < 0.55 and feature["loss"] > 0.2 for feature in row["features"])


def test_each_category_is_examined_and_then_the_category_itself():
    category = ["cats", "cats", "dogs", "dogs", "mice", "mice"] * 20
    height = [64, 64, 96, 96, 128, 128] * 20
    kinds = ["jpeg", "png", "jpeg", "jpeg", "png", "png"] * 20
    rows = shortcuts(table(120, category=category, height=height, format=kinds), groups=["file", "name"])
    assert [(row["target"], row["within"]) for row in rows if row["group"] == "file"] == [
        ("label", ""),
        ("label", "cats"),
        ("label", "dogs"),
        ("label", "mice"),
        ("category", ""),
    ]
    assert found(rows, within="cats")["auc"] == 1.0
    assert found(rows, within="dogs")["auc"] == 0.5
    row = found(rows, target="category")
    assert (row["auc"], row["verdict"]) == (1.0, "fail")
    assert row["features"][0]["values"] == {"cats": "64", "dogs": "96", "mice": "128"}
    assert format_shortcut(row).startswith("file properties alone, without the pixels, tell the category: AUC 1.000")


def test_file_names_that_tell_the_category_are_ok():
    names = ["cat_9", "cat_9", "dogs_9", "dogs_9"] * 20
    rows = shortcuts(table(80, category=[name[:3] for name in names], name_pattern=names), groups=["name"])
    row = found(rows, "name", "category")
    assert (row["auc"], row["verdict"]) == (1.0, "ok")


def test_fewer_than_twenty_images_of_a_class_have_no_auc():
    rows = shortcuts(table(38, format=["jpeg", "png"] * 19))
    assert {(row["auc"], row["low"], row["verdict"]) for row in rows} == {(None, None, "ok"), (None, None, None)}
    assert found(shortcuts(table(40, format=["jpeg", "png"] * 20)))["auc"] == 1.0


def test_a_small_category_is_left_out_when_the_category_is_predicted():
    category = ["cats"] * 40 + ["dogs"] * 40 + ["mice"] * 2
    rows = shortcuts(table(82, category=category, width=[64] * 40 + [96] * 42), groups=["file"])
    row = found(rows, target="category")
    assert (row["images"], row["auc"]) == (80, 1.0)
    assert list(row["features"][0]["values"]) == ["cats", "dogs"]


def test_the_seed_determines_the_numbers():
    rows = table(100, height=noise(100), bytes_per_pixel=noise(100, 1))
    first, again, other = (shortcuts(rows, seed=seed, groups=["size"])[0] for seed in (3, 3, 4))
    assert first == again
    assert first["auc"] != other["auc"]


def test_progress_counts_the_classifiers():
    calls = []
    shortcuts(table(40), progress=lambda *call: calls.append(call))
    assert calls == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


# --- areas under ROC curves ------------------------------------------------------------------------------------


def test_auc_counts_ordered_pairs_and_half_of_ties():
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    truth = np.array([0, 0, 1, 1])
    assert macro_auc(np.stack([1 - scores, scores], axis=1), truth) == 0.75
    assert macro_auc(np.full((4, 2), 0.5), truth) == 0.5


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_auc_equals_that_of_scikit_learn(classes):
    random = np.random.default_rng(classes)
    truth = np.arange(200) % classes
    scores = random.dirichlet(np.ones(classes), 200).round(1) + 0.01  # with ties
    scores /= scores.sum(axis=1, keepdims=True)
    theirs = roc_auc_score(truth, scores[:, 1] if classes == 2 else scores, multi_class="ovr")
    assert macro_auc(scores, truth) == pytest.approx(theirs)
