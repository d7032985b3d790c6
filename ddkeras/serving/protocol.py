"""TensorFlow Serving's REST API as text: from the JSON of a request to image files, from scores to JSON.

What is refused is refused with its status codes and in its words, so that a client need not know which of the two
servers answers. Only values that a message quotes are cut short.
"""

import base64
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipelines.media.gif import first_image
from pipelines.media.headers import TooLargeError, UnreadableError, read_header

DEFAULT = "serving_default"


class RefusedError(Exception):
    """A request is answered with an error: its status code, and the message in the JSON."""

    def __init__(self, status: int, message: str, **headers: str):
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True)
class PredictRequest:
    """A request to predict: encoded images, and whether each wants an answer of its own, a row, or all columns."""

    files: list[bytes]
    in_rows: bool


def read_question(
    body: bytes | bytearray, inputs: dict[str, tuple[str, bool]], *, max_images: int, max_pixels: int
) -> PredictRequest:
    """Read the body of a request to predict.

    Pixels become files that hold them without loss, since a model scores both alike. A file whose header cannot be
    read becomes an empty one: the model's verdict on it is `error`, as that of `ddk predict` is, and nothing that
    we do not know the size of is decoded.

    Args:
        inputs: of each signature the name of its one input, and whether that is encoded files; else it is pixels.

    Raises:
        RefusedError: 400 for what is malformed, 413 for too many images or pixels.
    """
    request = _parsed(body)
    signature = request.get("signature_name", "")
    if not isinstance(signature, str):
        quoted = _quoted(request)
        raise _malformed(
            f"JSON Value: {quoted} not formatted correctly. 'signature_name' key must be a string value."
        )
    signature = signature or DEFAULT
    if signature not in inputs:
        raise _malformed(f'Serving signature name: "{signature[:100]}" not found in signature def')
    name, takes_files = inputs[signature]
    in_rows = "instances" in request
    values, place = _rows(request, name) if in_rows else _columns(request, name)
    if len(values) > max_images:
        raise RefusedError(413, f"{len(values)} images, more than {max_images:,}; --max-images allows more")
    files = _each(values, _file_of_base64, place) if takes_files else _files_of_pixels(values, place)
    return PredictRequest([_checked(file, index, max_pixels) for index, file in enumerate(files)], in_rows)


def answer_of(rows: list[dict], outputs: list[str], *, in_rows: bool) -> bytes:
    """The JSON of an answer. NaN is written as such, which JSON does not know, as TensorFlow Serving does."""
    if in_rows:
        return json.dumps({"predictions": rows}).encode()
    return json.dumps({"outputs": {name: [row[name] for row in rows] for name in outputs}}).encode()


# --- which values ----------------------------------------------------------------------------------------------

_Place = Callable[[int], str]  # what an error says of where it is


def _parsed(body: bytes | bytearray) -> dict:
    if not body:
        raise _malformed("JSON Parse error: The document is empty")
    try:
        request = json.loads(body)
    except json.JSONDecodeError as error:
        raise _malformed(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _malformed(f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise _malformed(f"JSON Value: {_quoted(request)} Is not object")
    return request


def _rows(request: dict, name: str) -> tuple[list, _Place]:
    """The values in `instances`: each an object that names the input, or each without the name."""
    instances = request["instances"]
    if "inputs" in request:
        which = "expecting only one of 'inputs' or 'instances' keys to exist"
        raise _malformed(f"JSON Value: {_quoted(request)} Not formatted correctly {which}")
    if not isinstance(instances, list):
        raise _malformed(f"JSON Value: {_quoted(request)} Excepting 'instances' to be an list/array")
    if not instances:
        raise _malformed(f"JSON Value: {_quoted(request)} No values in 'instances' array")
    if not _names_input(instances[0]):
        for index, instance in enumerate(instances):
            if _names_input(instance):
                raise _malformed(f"Expecting value/list but got object at item {index} of input list")
        return instances, lambda index: f"Failed to process element: {index} of 'instances' list. Error: "
    return (
        [_named(instance, name, index) for index, instance in enumerate(instances)],
        lambda index: f"Failed to process element: {index} key: {name} of 'instances' list. Error: ",
    )


def _named(instance: object, name: str, index: int) -> object:
    if not _names_input(instance):
        raise _malformed(f"Expecting object but got list at item {index} of input list")
    if other := [key for key in instance if key != name]:
        where = f"Failed to process element: {index} key: {other[0][:100]} of 'instances' list. Error: "
        raise _malformed(f"{where}INVALID_ARGUMENT: JSON object: does not have named input: {other[0][:100]}")
    if name not in instance:
        where = f"Failed to process element: {index} of 'instances' list. "
        raise _malformed(f"{where}JSON object: {_quoted(instance)} keys must be equal to: {name}")
    return instance[name]


def _columns(request: dict, name: str) -> tuple[list, _Place]:
    """The values in `inputs`: those of its one input, which may be named."""
    if "inputs" not in request:
        raise _malformed("Missing 'inputs' or 'instances' key")
    inputs = request["inputs"]
    if _names_input(inputs):
        if name not in inputs:
            raise _malformed(f"Missing named input: {name} in 'inputs' object.")
        inputs = inputs[name]
    if not isinstance(inputs, list):
        raise _malformed(f"JSON Value: {_quoted(inputs)} is one value, but '{name}' is a list, one for each image")
    return inputs, lambda index: ""


def _names_input(value: object) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: object) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


# --- values as files -------------------------------------------------------------------------------------------


def _each(values: list, convert: Callable[[object], object], place: _Place) -> list:
    """`convert` all values; what it refuses is refused with the place."""
    converted = []
    for index, value in enumerate(values):
        try:
            converted.append(convert(value))
        except ValueError as error:
            where = place(index)
            raise _malformed(f"{where}INVALID_ARGUMENT: {error}" if where else str(error)) from error
    return converted


def _file_of_base64(value: object) -> bytes:
    # TensorFlow Serving takes plain strings, too, as their own bytes. No image is text: the {"b64": } was forgotten.
    if not _is_base64(value):
        raise ValueError(f"JSON Value: {_quoted(value)} not formatted correctly for base64 data")
    text = value["b64"]
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    try:  # with line breaks, or without the padding, which is allowed, too
        text = re.sub(r"\s", "", text).rstrip("=")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise ValueError("Unable to base64 decode") from error


def _files_of_pixels(values: list, place: _Place) -> list[bytes]:
    """BMP files, which are the quickest to write and to read."""
    images = _each(values, _pixels, place)
    for index, image in enumerate(images):
        if image.shape != images[0].shape:
            expected, got = (str(list(shape)).replace(" ", "") for shape in (images[0].shape, image.shape))
            where = f"{place(index)}INVALID_ARGUMENT: " if place(index) else ""
            raise _malformed(f"{where}Expecting shape {expected} but got: {got}")
    return [_bmp(image) for image in images]


def _pixels(value: object) -> np.ndarray:
    try:
        pixels = np.asarray(value)
    except ValueError as error:
        raise ValueError("Encountered list at unexpected size: the rows of an image differ") from error
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        shape = str(list(pixels.shape)).replace(" ", "")
        raise ValueError(f"Expecting shape [height,width,3] but got: {shape}")
    if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        raise ValueError(f"JSON Value: {_quoted(value)} is not of expected type: uint8")
    return pixels.astype(np.uint8)


def _bmp(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "BMP")
    return buffer.getvalue()


def _checked(file: bytes, index: int, max_pixels: int) -> bytes:
    file = first_image(file)
    try:
        read_header(file, max_pixels=max_pixels)
    except TooLargeError as error:
        raise RefusedError(413, f"image {index}: {error}; --max-pixels allows more") from error
    except UnreadableError:
        return b""
    return file


# --- errors ----------------------------------------------------------------------------------------------------


def _malformed(message: str) -> RefusedError:
    return RefusedError(400, message)


def _quoted(value: object) -> str:
    """The beginning of a value, which may be large."""
    text = "".join(part for part, _ in zip(json.JSONEncoder().iterencode(value), range(100), strict=False))
    return text if len(text) <= 100 else f"{text[:100]}..."
