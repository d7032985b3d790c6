"""The versions of a model under an export's folder: found, checked, loaded and warmed."""

import hashlib
import re
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from ddkeras.errors import ConfigError

_SUMS = "SHA256SUMS"
_WARM_UP = "assets.extra/tf_serving_warmup_requests"


def newest_export(exports: Path) -> Path:
    """The folder with the versions of the run that was exported last.

    Raises:
        ConfigError: none was.
    """
    versions = [version for base in exports.glob("*") for version in find_versions(base)]
    if not versions:
        raise ConfigError(f"{exports} holds no export; make one with: ddk export")
    return max(versions, key=lambda version: version.stat().st_mtime).parent


def find_versions(base: Path) -> list[Path]:
    """The folders of all versions, the highest first. A link that leads out of `base` is none of them."""
    if not base.is_dir():
        return []
    inside = base.resolve()
    found = [path for path in base.iterdir() if re.fullmatch("[0-9]{1,18}", path.name) and path.is_dir()]
    found = [path for path in found if path.resolve().is_relative_to(inside)]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def highest_version(base: Path) -> Path:
    """The folder of the highest version, checked.

    Raises:
        ConfigError: there is none, or it is not as `ddk export` left it.
    """
    if (base / "saved_model.pb").is_file():
        raise ConfigError(f"{base} is one version; give the folder that holds the versions: {base.parent}")
    versions = find_versions(base)
    if not versions:
        raise ConfigError(f"{base} holds no version of a model; make one with: ddk export")
    check(versions[0])
    return versions[0]


def check(folder: Path) -> None:
    """Compare all files of a version with its sums. A SavedModel can hold code, so this comes before it is loaded.

    Raises:
        ConfigError: a file was changed, added or lost, or the folder is none of ours.
    """
    try:
        wrong = _first_wrong(folder)
    except (OSError, ValueError):
        wrong = _SUMS
    if wrong:
        raise ConfigError(
            f"{folder} is no export of ddk, or was changed since ({wrong}); make another with: ddk export"
        )


def _first_wrong(folder: Path) -> str | None:
    """The name of a file that is not as its sum says, or is there without one, or missing."""
    lines = (folder / _SUMS).read_text(encoding="utf-8").splitlines()
    sums = dict(reversed(line.split("  ", 1)) for line in lines)
    there = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    if unpaired := sorted({"model_card.json", *sums} ^ ({*there} - {_SUMS})):
        return unpaired[0]
    for name, path in there.items():
        with path.open("rb") as file:
            if name != _SUMS and hashlib.file_digest(file, "sha256").hexdigest() != sums.get(name):
                return name
    return None


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
        graph = SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0]
        self.signatures: dict[str, SignatureDef] = dict(graph.signature_def)
        self.outputs = sorted(self.signatures["serving_default"].outputs)
        self._loaded = tf.saved_model.load(folder)
        self._score = self._loaded.signatures["serving_default"]
        self._warm_up(folder / _WARM_UP)

    def score(self, files: list[bytes]) -> list[dict]:
        """What the model says of encoded images: for each the outputs of `ddkeras.export.OUTPUTS`, JSON-ready."""
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
