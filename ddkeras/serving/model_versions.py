"""The SavedModel that is served, of all versions in an export's folder: found, checked, loaded and warmed."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from ddkeras.exceptions import ConfigError
from ddkeras.exporting.bundle import SAVED_MODEL, check, find_versions

_WARM_UP = "assets.extra/tf_serving_warmup_requests"


def newest_export(exports: Path) -> Path:
    """The folder with the versions of the run that was exported last, as a SavedModel.

    Raises:
        ConfigError: none was.
    """
    versions = [version for base in exports.glob("*") for version in find_versions(base) if _is_saved_model(version)]
    if not versions:
        raise ConfigError(f"{exports} holds no export; make one with: ddk export")
    return max(versions, key=lambda version: version.stat().st_mtime).parent


def highest_version(base: Path) -> Path:
    """The folder of the highest version.

    Raises:
        ConfigError: there is none, or it is no SavedModel.
    """
    if _is_saved_model(base):
        raise ConfigError(f"{base} is one version; give the folder that holds the versions: {base.parent}")
    versions = find_versions(base)
    if not versions:
        raise ConfigError(f"{base} holds no version of a model; make one with: ddk export")
    if not _is_saved_model(versions[0]):
        raise ConfigError(f"{versions[0]} is no SavedModel, and nothing else is served; make one with: ddk export")
    return versions[0]


def _is_saved_model(folder: Path) -> bool:
    return (folder / SAVED_MODEL).is_file()


def state_of(folder: Path) -> list[tuple]:
    """What changes when anything in the folder does, without reading it."""
    found = [(str(path), path.lstat()) for path in sorted(folder.rglob("*"))]
    return [(name, info.st_size, info.st_mtime_ns) for name, info in found]


class Model:
    """One version in memory: checked, loaded, and warmed by the requests that come with it. It takes seconds.

    Raises:
        ConfigError: it is not as `ddk export` left it.
    """

    def __init__(self, folder: Path):
        check(folder)
        self.version = int(folder.name)
        graph = SavedModel.FromString((folder / SAVED_MODEL).read_bytes()).meta_graphs[0]
        self.signatures: dict[str, SignatureDef] = dict(graph.signature_def)
        self.outputs = sorted(self.signatures["serving_default"].outputs)
        self._loaded = tf.saved_model.load(folder)
        self._score = self._loaded.signatures["serving_default"]
        self._warm_up(folder / _WARM_UP)

    def score(self, files: list[bytes]) -> list[dict]:
        """For each encoded image the outputs of `ddkeras.exporting.saved_model.OUTPUTS`, JSON-ready."""
        found = self._score(image_bytes=tf.constant(files, tf.string))
        columns = [_plain(found[name].numpy()) for name in self.outputs]
        return [dict(zip(self.outputs, row, strict=True)) for row in zip(*columns, strict=True)]

    def metadata(self, name: str) -> dict:
        """Name, version and signatures as TensorFlow Serving tells them."""
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
            self._loaded.signatures[request.model_spec.signature_name](**inputs)


def _plain(values: np.ndarray) -> list:
    """Strings as strings; of each float32 the shortest decimal, as TensorFlow Serving has it: 0.3, not 0.30000001."""
    if values.ndim > 1:
        return [_plain(row) for row in values]
    if values.dtype == object:
        return [value.decode() for value in values]
    return [float(str(value)) for value in values]
