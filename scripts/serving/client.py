"""Get verdicts on image files from `ddk serve` or TensorFlow Serving, over REST or, from the latter, over gRPC.

    python scripts/serving/client.py photo.jpg other.png
    python scripts/serving/client.py --grpc localhost:8500 photo.jpg

REST needs only Python; gRPC needs TensorFlow and tensorflow-serving-api.
"""

import argparse
import base64
import json
import urllib.request
from pathlib import Path


def predict_rest(url: str, model: str, files: list[bytes]) -> list[tuple[str, float]]:
    """Verdicts and fake probabilities, over REST."""
    instances = [{"image_bytes": {"b64": base64.b64encode(file).decode()}} for file in files]
    body = json.dumps({"instances": instances}).encode()
    with urllib.request.urlopen(f"{url}/v1/models/{model}:predict", body) as response:
        return [(row["verdict"], row["fake_probability"]) for row in json.load(response)["predictions"]]


def predict_grpc(address: str, model: str, files: list[bytes]) -> list[tuple[str, float]]:
    """Verdicts and fake probabilities, over gRPC."""
    import grpc  # noqa: PLC0415
    import tensorflow as tf  # noqa: PLC0415
    from tensorflow_serving.apis.predict_pb2 import PredictRequest  # noqa: PLC0415
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub  # noqa: PLC0415

    request = PredictRequest()
    request.model_spec.name = model
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(files, tf.string))
    with grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
        outputs = PredictionServiceStub(channel).Predict(request, timeout=60).outputs
    verdicts, scores = (tf.make_ndarray(outputs[name]).tolist() for name in ("verdict", "fake_probability"))
    return [(verdict.decode(), score) for verdict, score in zip(verdicts, scores, strict=True)]


def main() -> None:
    """Print the verdict on each file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8501")
    parser.add_argument("--grpc", metavar="HOST:PORT", help="use gRPC")
    parser.add_argument("--model", default="ddk")
    options = parser.parse_args()
    contents = [path.read_bytes() for path in options.files]
    if options.grpc:
        verdicts = predict_grpc(options.grpc, options.model, contents)
    else:
        verdicts = predict_rest(options.url, options.model, contents)
    for path, (verdict, score) in zip(options.files, verdicts, strict=True):
        print(f"{path} {verdict} {score:.4f}")


if __name__ == "__main__":
    main()
