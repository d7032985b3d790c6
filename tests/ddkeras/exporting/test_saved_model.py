"""The files of a SavedModel export, and its outputs for the requests of a server."""

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictResponse
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)
from tiny import CATEGORIES, REPOSITORY, encode, serve, with_head_weights

from ddkeras.exceptions import ConfigError
from ddkeras.exporting import saved_model
from ddkeras.exporting.onnx import export_onnx
from ddkeras.exporting.saved_model import OUTPUTS, export_saved_model
from ddkeras.runs.run import open_run

CLIENT = REPOSITORY / "scripts/serving/client.py"


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return export_saved_model(run, tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(exported).signatures


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal strings, and numbers equal up to rounding errors."""
    if ours.dtype == object:
        assert ours.tolist() == theirs.tolist()
    else:
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_versions_count_up(run, exported):
    assert (exported.parent.name, exported.name) == (run.name, "1")
    (exported.parent / "7").mkdir()
    again = export_saved_model(run, exported.parent.parent)
    assert again.name == "8"


def test_labels_and_model_card_describe_the_model(run, exported):
    assert (exported / "labels.txt").read_text().splitlines() == list(CATEGORIES)
    card = json.loads((exported / "model_card.json").read_text())
    assert card["labels"] == ["real", "fake"]
    assert card["categories"] == list(CATEGORIES)
    assert card["operating_point"] == run.point.to_dict()
    assert card["records"] == run.fingerprint
    assert card["recipe"]["backbone"] == "tiny"
    assert card["inputs"] == {"serving_default": "image_bytes", "images": "images"}
    assert "OpenVINO and other runtimes: ddk export --to onnx, whose input images is float32" in card["runtime"]
    assert list(card["outputs"]) == list(OUTPUTS)
    assert card["limits_of_use"]


def test_all_files_have_checksums(exported):
    sums = dict(reversed(line.split("  ")) for line in (exported / "SHA256SUMS").read_text().splitlines())
    files = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert set(sums) == files - {"SHA256SUMS"}
    assert "assets.extra/tf_serving_warmup_requests" in sums
    for name, expected in sums.items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == expected


def test_the_signatures_have_the_documented_types(signatures):
    by_bytes, by_pixels = signatures["serving_default"], signatures["images"]
    (bytes_in,), (pixels_in,) = (list(f.structured_input_signature[1].values()) for f in (by_bytes, by_pixels))
    assert (bytes_in.name, bytes_in.dtype, bytes_in.shape.as_list()) == ("image_bytes", tf.string, [None])
    assert (pixels_in.name, pixels_in.dtype, pixels_in.shape.as_list()) == ("images", tf.uint8, [None, None, None, 3])
    for signature in (by_bytes, by_pixels):
        specs = {name: (spec.dtype, spec.shape.as_list()) for name, spec in signature.structured_outputs.items()}
        assert specs == {
            "fake_probability": (tf.float32, [None]),
            "verdict": (tf.string, [None]),
            "reason": (tf.string, [None]),
            "logit": (tf.float32, [None]),
            "category": (tf.string, [None]),
            "category_probabilities": (tf.float32, [None, 2]),
        }


def test_unreadable_images_do_not_affect_the_others(signatures):
    score = signatures["serving_default"]
    good = [encode(seed=1), encode("PNG", seed=2), encode("WEBP", seed=3)]
    alone = score(image_bytes=tf.constant(good))
    mixed = [b"", good[0], b"\xff\xd8\xff and no more", good[1], good[0][:400], good[2], b"rubbish"]
    answer = score(image_bytes=tf.constant(mixed))
    is_good = np.array([False, True, False, True, False, True, False])
    for name, values in answer.items():
        assert_same(values.numpy()[is_good], alone[name].numpy())
    assert np.isnan(answer["fake_probability"].numpy()[~is_good]).all()
    assert np.isnan(answer["logit"].numpy()[~is_good]).all()
    assert np.isnan(answer["category_probabilities"].numpy()[~is_good]).all()
    assert set(answer["verdict"].numpy()[~is_good]) == {b"error"}
    assert set(answer["category"].numpy()[~is_good]) == {b""}


@pytest.mark.parametrize("batch", [[b"rubbish"], [b"", b""]])
def test_a_batch_without_readable_images_gets_errors(signatures, batch):
    answer = signatures["serving_default"](image_bytes=tf.constant(batch, tf.string))
    assert answer["verdict"].numpy().tolist() == [b"error"] * len(batch)
    assert answer["category_probabilities"].shape == (len(batch), 2)


@pytest.mark.parametrize("size", [(40, 40), (32, 32), (1, 1), (17, 90)])
def test_pixels_score_like_the_file_that_holds_them(signatures, size):
    pixels = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    files = [tf.io.encode_png(image).numpy() for image in pixels]
    of_files = signatures["serving_default"](image_bytes=tf.constant(files))
    of_pixels = signatures["images"](images=tf.constant(pixels))
    for name, values in of_files.items():
        assert_same(values.numpy(), of_pixels[name].numpy())


def test_warm_up_requests_are_valid(run, exported, signatures):
    """Each logged request goes to the signature it names, as in TensorFlow Serving."""
    warmed = []
    for record in tf.data.TFRecordDataset(str(exported / "assets.extra/tf_serving_warmup_requests")):
        request = PredictionLog.FromString(record.numpy()).predict_log.request
        assert request.model_spec.name == run.name
        inputs = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
        answer = signatures[request.model_spec.signature_name](**inputs)
        response = PredictResponse()
        for name, values in answer.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(values))
        response = PredictResponse.FromString(response.SerializeToString())
        assert np.isfinite(tf.make_ndarray(response.outputs["fake_probability"])).all()
        assert set(tf.make_ndarray(response.outputs["verdict"])) <= {b"real", b"fake", b"unsure"}
        warmed.append(request.model_spec.signature_name)
    assert warmed == ["serving_default", "images"]


def test_the_grpc_client_sends_valid_requests(run, signatures, tmp_path):
    """Over a real channel, to a model behind the Predict service of TensorFlow Serving."""
    requests = []

    class Answering(PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802  as gRPC calls it
            requests.append(request)
            inputs = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
            answer = signatures[request.model_spec.signature_name or "serving_default"](**inputs)
            protos = {name: tf.make_tensor_proto(values) for name, values in answer.items()}
            return PredictResponse(model_spec=request.model_spec, outputs=protos)

    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(encode())
    bad.write_bytes(b"rubbish")
    server = grpc.server(ThreadPoolExecutor(1))
    add_PredictionServiceServicer_to_server(Answering(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        command = [sys.executable, CLIENT, "--grpc", f"127.0.0.1:{port}", "--model", run.name, good, bad]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    finally:
        server.stop(None)
    expected = signatures["serving_default"](image_bytes=tf.constant([encode()]))
    verdict, score = (expected[name].numpy()[0] for name in ("verdict", "fake_probability"))
    assert output == f"{good} {verdict.decode()} {score:.4f}\n{bad} error nan\n"
    assert [request.model_spec.name for request in requests] == [run.name]
    assert requests[0].inputs["image_bytes"].dtype == tf.string.as_datatype_enum


def test_it_runs_without_ddkeras(exported, tmp_path):
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(encode())
    bad.write_bytes(b"rubbish")
    answer = serve(exported, [good, bad])
    assert answer["verdict"][0] in ("real", "fake", "unsure")
    assert (answer["verdict"][1], answer["fake_probability"][1]) == ("error", "nan")


def test_the_model_card_has_the_evaluation(run, records, tmp_path):
    from ddkeras.evaluation.evaluate import measure  # noqa: PLC0415
    from ddkeras.runs.run import copy_run  # noqa: PLC0415

    copy = copy_run(run, tmp_path)
    measure(copy, records, tell=print, degrade=0)
    folder = export_saved_model(open_run(copy.folder), tmp_path / "export")
    measured = json.loads((folder / "model_card.json").read_text())["measured"]
    assert list(measured) == ["validation"]
    assert measured["validation"]["examples"] == 12
    auc = measured["validation"]["auc"]
    assert 0 <= auc.pop("value") <= 1
    assert auc == {"low": None, "high": None, "reason": "fewer than 20 reals"}


@pytest.mark.parametrize("export", [export_saved_model, export_onnx])
@pytest.mark.parametrize("value", [np.nan, 3e38])
def test_a_run_without_finite_scores_is_not_exported(run, tmp_path, value, export):
    broken = with_head_weights(value, run, tmp_path)
    with pytest.raises(ConfigError, match=r"has weights that are not finite|a score that is not a finite number"):
        export(broken, tmp_path / "export")
    assert not list(tmp_path.glob("export/*/*"))


def test_an_infinite_score_is_an_error_of_its_image_alone(run):
    scores = {"logit": tf.constant([0.5, np.inf]), "fake_probability": tf.constant([0.6, 1.0])}
    scores |= {"verdict": tf.constant([1, 1]), "category_probabilities": tf.constant([[0.1, 0.9], [0.1, 0.9]])}
    outputs = saved_model._outputs(run, scores, tf.constant([40, 40]))
    assert outputs["verdict"].numpy().tolist() == [b"fake", b"error"]
    assert outputs["category"].numpy().tolist() == [b"vehicles", b""]
    np.testing.assert_array_equal(outputs["fake_probability"], np.array([0.6, np.nan], np.float32))


def test_tiny_images_are_unsure_with_the_reason(signatures):
    tiny, large = encode("PNG", size=31, seed=1), encode("PNG", size=32, seed=2)
    answer = signatures["serving_default"](image_bytes=tf.constant([tiny, large, b"rubbish"]))
    assert answer["verdict"].numpy().tolist()[0] == b"unsure"
    assert answer["verdict"].numpy().tolist()[1] in (b"real", b"fake")
    assert answer["reason"].numpy().tolist() == [b"its shorter side has 31 pixels, fewer than 32", b"", b""]
    assert np.isfinite(answer["logit"].numpy()).tolist() == [True, True, False]
    answer = signatures["images"](images=tf.zeros((2, 31, 40, 3), tf.uint8))
    assert answer["verdict"].numpy().tolist() == [b"unsure"] * 2
