"""Files get the same scores from a run, its records, SavedModel, ddk serve, LiteRT and ONNX, in both views."""

import base64
import json
import re
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import serve, start_ddk, with_each_verdict

from ddkeras.evaluation import results, scoring
from ddkeras.exporting.litert import export_litert
from ddkeras.exporting.onnx import export_onnx
from ddkeras.exporting.saved_model import export_saved_model
from ddkeras.inference.prediction import predict
from ddkeras.inference.scorers import open_scorer, scorer_for_run
from ddkeras.models.backbones import build_trunk
from ddkeras.models.detector import build_model
from ddkeras.models.precision import dtype_policy
from ddkeras.runs.run import copy_run
from pipelines.datasets.layouts import read_layout
from pipelines.records.conversion import write_records
from pipelines.records.store import open_records

FOLDER = "validation/real/animals"


@pytest.fixture(
    scope="module",
    params=[pytest.param("run", id="squash"), pytest.param("windows_run", marks=pytest.mark.slow, id="windows")],
)
def run(request, records, tmp_path_factory):
    return with_each_verdict(request.getfixturevalue(request.param), records, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def exports(run, records, tmp_path_factory):
    """One export of each kind."""
    folder = tmp_path_factory.mktemp("export")
    litert = {
        f"litert {name}": export_litert(run, folder, precision=name, records=records)
        for name in ("float32", "float16", "int8")
    }
    return {"SavedModel": export_saved_model(run, folder), "ONNX": export_onnx(run, folder), **litert}


@pytest.fixture(scope="module")
def corpus(data, tmp_path_factory) -> Path:
    """`data`, with the kinds of files that cameras, scanners, editors and websites make in one of its folders."""
    root = shutil.copytree(data, tmp_path_factory.mktemp("corpus") / "data")
    folder = root / FOLDER
    noise = np.random.default_rng(0).integers(0, 256, (36, 54, 4), np.uint8)  # large enough for a verdict
    image, grey = Image.fromarray(noise[..., :3]), Image.fromarray(noise[..., 0])
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(folder / "progressive.jpg", progressive=True)
    grey.save(folder / "grey.jpg")
    image.convert("CMYK").save(folder / "inks.jpg")
    image.save(folder / "turned.jpg", exif=turned)
    grey.save(folder / "grey.png")
    image.quantize(32).save(folder / "palette.png")
    Image.fromarray(noise).save(folder / "transparent.png")
    Image.fromarray(noise[..., 0].astype(np.uint16) << 8).save(folder / "deep.png")
    image.resize((1, 1)).save(folder / "dot.png")
    image.resize((4000, 10)).save(folder / "strip.png")
    image.resize((6000, 4000)).save(folder / "photo.jpg")
    image.save(folder / "lossy.webp")
    image.save(folder / "lossless.webp", lossless=True)
    image.save(folder / "moving.gif", save_all=True, append_images=[grey.convert("RGB")])
    image.save(folder / "plain.bmp")
    Image.fromarray(noise).save(folder / "transparent.webp", lossless=True)
    image.quantize(32).save(folder / "palette.bmp")
    image.save(folder / "scan.tiff")
    image.quantize(32).save(folder / "transparent.gif", transparency=3)
    return root


@pytest.fixture(scope="module")
def evaluated(run, corpus, tmp_path_factory):
    """The predictions of `ddk evaluate`, one row per file of the folder."""
    folder = tmp_path_factory.mktemp("made") / "records"
    write_records(read_layout(corpus), folder)
    records = open_records(folder)
    scores = scoring.score(run, records, ["validation"])["validation"]
    rows = results.report(run, records, "validation", scores).predictions
    rows = rows[rows["path"].str.startswith(FOLDER)].reset_index(drop=True)
    assert sorted(Path(path).name for path in rows["path"]) == sorted(
        path.name for path in (corpus / FOLDER).iterdir()
    )
    return rows


@pytest.fixture(scope="module")
def paths(corpus, evaluated):
    return [corpus / path for path in evaluated["path"]]


@pytest.fixture(scope="module")
def run_predictions(run, paths):
    return list(predict(scorer_for_run(run), paths))


def probabilities(predictions) -> np.ndarray:
    assert not [prediction for prediction in predictions if prediction.error]
    return np.array([prediction.fake_probability for prediction in predictions])


def test_records_score_like_their_files(evaluated, run_predictions):
    np.testing.assert_allclose(probabilities(run_predictions), evaluated["fake_probability"], atol=1e-5)
    assert [row.verdict for row in run_predictions] == evaluated["verdict"].tolist()


def test_a_saved_model_without_ddkeras_scores_like_the_run(exports, paths, run_predictions):
    is_decodable = [path.name not in ("scan.tiff", "palette.bmp", "transparent.gif") for path in paths]
    served = serve(
        exports["SavedModel"], [path for path, decodable in zip(paths, is_decodable, strict=True) if decodable]
    )
    expected = probabilities(run_predictions)[is_decodable]
    np.testing.assert_allclose(np.float64(served["fake_probability"]), expected, atol=1e-4)


def test_ddk_serve_scores_like_the_run(exports, paths, run_predictions):
    process = start_ddk(exports["SavedModel"].parent, "serve", ".", "--port", 0)
    try:
        line = next(line for line in process.stderr if line.startswith("serving "))
        instances = [{"b64": base64.b64encode(path.read_bytes()).decode()} for path in paths]
        rows = [_predict(re.search(r"http://[^;]+", line)[0], [instance])[0] for instance in instances]
    finally:
        process.kill()
        process.communicate()
    for path, row, expected in zip(paths, rows, run_predictions, strict=True):
        assert row["fake_probability"] == pytest.approx(expected.fake_probability, abs=1e-4), path.name
        assert (row["verdict"], row["category"]) == (expected.verdict, expected.category), path.name


def _predict(url: str, instances: list[dict]) -> list[dict]:
    body = json.dumps({"instances": instances}).encode()
    with urllib.request.urlopen(f"{url}/v1/models/ddk:predict", body) as response:
        return json.loads(response.read().replace(b"NaN", b'"nan"'))["predictions"]


@pytest.mark.parametrize("kind", ["SavedModel", "ONNX", "litert float32"])
def test_an_export_scores_like_the_run(exports, paths, run_predictions, kind):
    rows = list(predict(open_scorer(exports[kind]), paths))
    np.testing.assert_allclose(probabilities(rows), probabilities(run_predictions), atol=1e-4)
    assert [(row.verdict, row.category) for row in rows] == [(row.verdict, row.category) for row in run_predictions]
    assert {row.verdict for row in rows} == {"real", "fake", "unsure"}
    np.testing.assert_allclose(
        [row.category_probability for row in rows], [row.category_probability for row in run_predictions], atol=1e-4
    )


@pytest.mark.parametrize(("kind", "tolerance"), [("litert float16", 1e-3), ("litert int8", 0.02)])
def test_a_smaller_export_scores_nearly_like_the_run(exports, paths, run_predictions, kind, tolerance):
    rows = list(predict(open_scorer(exports[kind]), paths))
    np.testing.assert_allclose(probabilities(rows), probabilities(run_predictions), atol=tolerance)


def test_int8_keeps_the_outputs_after_the_heads_exact(run, exports):
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8) // 8 * np.uint8(5)
    images[::2] //= 4
    scores = open_scorer(exports["litert int8"]).score(images)
    np.testing.assert_allclose(run.point.probabilities(scores["logit"]), scores["fake_probability"], atol=1e-6)
    np.testing.assert_allclose(scores["category_probabilities"].sum(axis=1), 1, atol=1e-6)
    expected = run.point.verdicts(scores["logit"], scores["category_probabilities"], run.categories)
    assert scores["verdict"].tolist() == np.array(expected).tolist()
    assert (np.abs(scores["fake_probability"] * 256 % 1 - 0.5) < 0.4).any(), (
        "probabilities are quantized to multiples of 1/256"
    )


@pytest.mark.parametrize("kind", ["ONNX", "litert float32", "litert float16", "litert int8"])
def test_a_batch_may_have_any_size(exports, kind):
    scorer = open_scorer(exports[kind])
    images = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), np.uint8)
    together = scorer.score(images)
    for index in (0, 4):
        alone = scorer.score(images[index : index + 1])
        np.testing.assert_allclose(alone["logit"][0], together["logit"][index], atol=1e-5)
    assert scorer.score(images[:3])["category_probabilities"].shape == (3, 2)


def test_the_model_card_names_the_format(run, records, exports):
    cards = {kind: json.loads((folder / "model_card.json").read_text()) for kind, folder in exports.items()}
    formats = ["SavedModel", "ONNX", "LiteRT, float32", "LiteRT, float16", "LiteRT, int8"]
    assert [card["format"] for card in cards.values()] == formats
    assert cards["litert int8"]["rounded_on"] == {"records": records.fingerprint, "images": 24}
    assert cards["ONNX"]["operating_point"] == run.point.to_dict()
    assert {folder.parent.name for folder in exports.values()} == {
        run.name,
        f"{run.name}-onnx",
        f"{run.name}-litert",
        f"{run.name}-litert-float16",
        f"{run.name}-litert-int8",
    }


@pytest.mark.parametrize("precision", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)])
def test_a_network_of_mixed_precision_is_exported_in_float32(run, records, tmp_path, precision):
    mixed = copy_run(run, tmp_path)
    with dtype_policy(precision):
        network = build_model(build_trunk("small-cnn", image_size=32, weights="none"), 2)
    network.save(mixed.model_path)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    expected = scorer_for_run(mixed).score(images)["fake_probability"]
    litert, onnx = export_litert(mixed, tmp_path), export_onnx(mixed, tmp_path)
    for folder in (litert, onnx):  # which are in float32, unlike the run
        np.testing.assert_allclose(open_scorer(folder).score(images)["fake_probability"], expected, atol=0.01)
    quantized = export_litert(mixed, tmp_path, precision="int8", records=records)
    assert (quantized / "model.tflite").stat().st_size < 0.5 * (litert / "model.tflite").stat().st_size


@pytest.mark.slow
def test_constants_of_a_backbone_do_not_become_inputs(run, tmp_path):
    efficient = copy_run(run, tmp_path)
    build_model(build_trunk("efficientnetv2-b0", image_size=32, weights="none"), 2).save(efficient.model_path)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    expected = scorer_for_run(efficient).score(images)["fake_probability"]
    for folder in (export_onnx(efficient, tmp_path), export_litert(efficient, tmp_path)):
        np.testing.assert_allclose(open_scorer(folder).score(images)["fake_probability"], expected, atol=1e-4)
