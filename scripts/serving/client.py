"""Ask a server for the verdicts on image files: `ddk serve` or TensorFlow Serving over REST, or the latter over gRPC.

    python scripts/serving/client.py photo.jpg other.png
    python scripts/serving/client.py --grpc localhost:8500 photo.jpg

REST needs Python alone; gRPC needs TensorFlow and tensorflow-serving-api.
"""

import argparse
import base64
import json
import urllib.request
from pathlib import Path


def ask_rest(url: str, model: str, files: list[bytes]) -> list[tuple[str, float]]:
    """Verdicts and probabilities of fake."""
    instances = [{"image_bytes": {"b64": base64.b64encode(file).decode()}} for file in files]
    body = json.dumps({"instances": instances}).encode()
    with urllib.request.urlopen(f"{url}/v1/models/{model}:predict", body) as response:
        return [(row["verdict"], row["fake_probability"]) for row in json.load(response)["predictions"]]


def ask_grpc(address: str, model: str, files: list[bytes]) -> list[tuple[str, float]]:
    """The same over gRPC."""
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
    """Parse, ask and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8501")
    parser.add_argument("--grpc", metavar="HOST:PORT", help="ask over gRPC")
    parser.add_argument("--model", default="ddk")
    options = parser.parse_args()
    contents = [path.read_bytes() for path in options.files]
    if options.grpc:
        answers = ask_grpc(options.grpc, options.model, contents)
    else:
        answers = ask_rest(options.url, options.model, contents)
    for path, (verdict, score) in zip(options.files, answers, strict=True):
        print(f"{path} {verdict} {score:.4f}")


if __name__ == "__main__":
    main()
