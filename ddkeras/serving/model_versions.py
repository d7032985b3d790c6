"""The SavedModel versions of an export: finding, verifying, loading and warming them up."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from ddkeras.exceptions import ConfigError
from ddkeras.exporting.bundle import SAVED_MODEL, find_versions, read_card, verify
from ddkeras.metrics.calibration import require_finite

_WARM_UP_REQUESTS = "assets.extra/tf_serving_warmup_requests"


def newest_export(exports: Path) -> Path:
    """The folder of versions of the run that was last exported as a SavedModel.

    Raises:
        ConfigError: there is none.
    """
    versions = [version for base in exports.glob("*") for version in find_versions(base) if _is_saved_model(version)]
    if not versions:
        raise ConfigError(f"{exports} holds no export; make one with: ddk export")
    return max(versions, key=lambda version: version.stat().st_mtime).parent


def highest_version(base: Path) -> Path:
    """The folder of the highest version in `base` that is a SavedModel.

    Raises:
        ConfigError: there is none.
    """
    if _is_saved_model(base):
        raise ConfigError(f"{base} is one version; give the folder that holds the versions: {base.parent}")
    versions = find_versions(base)
    if not versions:
        raise ConfigError(f"{base} holds no version of a model; make one with: ddk export")
    saved_models = list(filter(_is_saved_model, versions))
    if not saved_models:
        raise ConfigError(f"{versions[0]} is not a SavedModel, the one format to serve; make one with: ddk export")
    return saved_models[0]


def _is_saved_model(folder: Path) -> bool:
    return (folder / SAVED_MODEL).is_file()


def file_stats(folder: Path) -> list[tuple[str, int, int]]:
    """Path, size and modification time of all files, which detect changes without reading the files."""
    stats = [(str(path), path.lstat()) for path in sorted(folder.rglob("*"))]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


class Model:
    """One version in memory: verified, loaded, and warmed up with its warm-up requests. This takes seconds.

    Raises:
        ConfigError: it was changed since `ddk export` wrote it, its model card is wrong, or its scores are not
            finite.
    """

    def __init__(self, folder: Path):
        verify(folder)
        read_card(folder)
        self.version = int(folder.name)
        graph = SavedModel.FromString((folder / SAVED_MODEL).read_bytes()).meta_graphs[0]
        self.signatures: dict[str, SignatureDef] = dict(graph.signature_def)
        self.outputs = sorted(self.signatures["serving_default"].outputs)
        self._loaded = tf.saved_model.load(folder)
        self._score = self._loaded.signatures["serving_default"]
        self._warm_up(folder / _WARM_UP_REQUESTS)

    def score(self, files: list[bytes]) -> list[dict[str, Any]]:
        """Score encoded images.

        Returns:
            For each the outputs of `ddkeras.exporting.saved_model.OUTPUTS`, JSON-ready.
        """
        outputs = self._score(image_bytes=tf.constant(files, tf.string))
        columns = [_to_json(outputs[name].numpy()) for name in self.outputs]
        return [dict(zip(self.outputs, row, strict=True)) for row in zip(*columns, strict=True)]

    def metadata(self, name: str) -> dict[str, Any]:
        """Name, version and signatures, in the format of TensorFlow Serving's metadata API."""
        response = GetModelMetadataResponse()
        response.model_spec.name = name
        response.model_spec.version.value = self.version
        response.metadata["signature_def"].Pack(SignatureDefMap(signature_def=self.signatures))
        return json_format.MessageToDict(
            response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )

    def _warm_up(self, path: Path) -> None:
        for record in tf.data.TFRecordDataset(str(path)):
            request = PredictionLog.FromString(record.numpy()).predict_log.request
            inputs = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
            outputs = self._loaded.signatures[request.model_spec.signature_name](**inputs)
            require_finite(outputs["logit"].numpy(), f"version {self.version}")


def _to_json(values: np.ndarray) -> list:
    """Decode strings, and write float32 as the shortest decimal that identifies it, as TensorFlow Serving does."""
    if values.ndim > 1:
        return [_to_json(row) for row in values]
    if values.dtype == object:
        return [value.decode() for value in values]
    return [float(str(value)) for value in values]
