"""The JSON of TensorFlow Serving's REST API: parsing requests to image files, and formatting responses.

Errors have TensorFlow Serving's status codes and messages, so that clients need not know which of the two servers
answers. Only the values that a message quotes are truncated.
"""

import base64
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

import numpy as np
from PIL import Image

from pipelines.decoding import decodable
from pipelines.media.gif import first_image
from pipelines.media.headers import TooLargeError, UnreadableError, read_header

DEFAULT_SIGNATURE = "serving_default"

_Location = Callable[[int], str]  # the prefix of error messages about the value at an index
_Value = TypeVar("_Value")


class RequestError(Exception):
    """A request is rejected.

    Args:
        status: the HTTP status code.
        message: the error message in the JSON of the response.
        headers: of the response, with underscores for hyphens.
    """

    def __init__(self, status: int, message: str, **headers: str):
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True)
class PredictRequest:
    """A predict request.

    Args:
        files: the encoded images.
        in_rows: whether the response has one object per image (row format) or one list per output (column format).
    """

    files: list[bytes]
    in_rows: bool


def parse_request(
    body: bytes | bytearray,
    inputs: dict[str, tuple[str, bool]],
    *,
    max_images: int,
    max_pixels: int,
    max_request_pixels: int,
) -> PredictRequest:
    """Parse the body of a predict request.

    Pixels are encoded losslessly, as the model scores pixels and files alike. A file whose header cannot be read is
    replaced by an empty one: like `ddk predict`, the model reports it as an error, and no file of unknown size is
    decoded.

    Args:
        body: JSON.
        inputs: by signature, the name of its input, and whether that takes encoded files rather than pixels.
        max_images: the maximum number of images.
        max_pixels: the maximum number of pixels per image.
        max_request_pixels: the maximum number of pixels of all images together; a single image is always allowed.

    Raises:
        RequestError: 400 if the request is malformed, 413 if it has too many images or pixels.
    """
    request = _parse_json(body)
    signature = request.get("signature_name", "")
    if not isinstance(signature, str):
        quoted = _quoted(request)
        raise _malformed(
            f"JSON Value: {quoted} not formatted correctly. 'signature_name' key must be a string value."
        )
    signature = signature or DEFAULT_SIGNATURE
    if signature not in inputs:
        raise _malformed(f'Serving signature name: "{signature[:100]}" not found in signature def')
    name, takes_files = inputs[signature]
    in_rows = "instances" in request
    values, locate = _rows(request, name) if in_rows else _columns(request, name)
    if len(values) > max_images:
        raise RequestError(413, f"{len(values)} images, more than {max_images:,}; --max-images allows more")
    files = _convert(values, _decode_base64, locate) if takes_files else _encode_pixels(values, locate)
    checked, pixels = [], 0
    for index, file in enumerate(files):
        checked_file, count = _check_file(file, index, max_pixels)
        checked.append(checked_file)
        pixels += count
        if pixels > max(max_pixels, max_request_pixels):
            raise RequestError(
                413,
                f"the images have more than {max_request_pixels:,} pixels together; send several requests, or allow "
                "more: --max-request-pixels",
            )
    return PredictRequest(checked, in_rows)


def format_response(rows: list[dict[str, Any]], outputs: list[str], *, in_rows: bool) -> bytes:
    """The JSON of a response. NaN is written as `NaN`, which is not valid JSON, as TensorFlow Serving does."""
    if in_rows:
        return json.dumps({"predictions": rows}).encode()
    return json.dumps({"outputs": {name: [row[name] for row in rows] for name in outputs}}).encode()


# --- the values in a request -----------------------------------------------------------------------------------


def _parse_json(body: bytes | bytearray) -> dict[str, Any]:
    if not body:
        raise _malformed("JSON Parse error: The document is empty")
    try:
        request = json.loads(body)
    except json.JSONDecodeError as error:
        raise _malformed(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _malformed(f"JSON Parse error: {error}") from error
    if _may_have_surrogates(body) and not _is_text(request):
        raise _malformed("JSON Parse error: a string has a lone surrogate, which is no character")
    if not isinstance(request, dict):
        raise _malformed(f"JSON Value: {_quoted(request)} Is not object")
    return request


def _may_have_surrogates(body: bytes | bytearray) -> bool:
    """Whether one may begin somewhere, escaped or as bytes."""
    # One byte is found ten times as fast as three, and base64 has no backslash.
    return b"\xed" in body or (b"\\" in body and (b"\\ud" in body or b"\\uD" in body))


def _is_text(value: object) -> bool:
    """Whether all strings in JSON can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _rows(request: dict[str, Any], name: str) -> tuple[list, _Location]:
    """The values in `instances`: either all are objects that name the input, or none is."""
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
        [_named_value(instance, name, index) for index, instance in enumerate(instances)],
        lambda index: f"Failed to process element: {index} key: {name} of 'instances' list. Error: ",
    )


def _named_value(instance: object, name: str, index: int) -> object:
    if not _names_input(instance):
        raise _malformed(f"Expecting object but got list at item {index} of input list")
    if other := [key for key in instance if key != name]:
        where = f"Failed to process element: {index} key: {other[0][:100]} of 'instances' list. Error: "
        raise _malformed(f"{where}INVALID_ARGUMENT: JSON object: does not have named input: {other[0][:100]}")
    if name not in instance:
        where = f"Failed to process element: {index} of 'instances' list. "
        raise _malformed(f"{where}JSON object: {_quoted(instance)} keys must be equal to: {name}")
    return instance[name]


def _columns(request: dict[str, Any], name: str) -> tuple[list, _Location]:
    """The values in `inputs`, which are a list, or an object that names the input."""
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


def _names_input(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: object) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


# --- from values to files --------------------------------------------------------------------------------------


def _convert(values: list, convert: Callable[[object], _Value], locate: _Location) -> list[_Value]:
    """Convert all values; a ValueError is reported with its location."""
    converted = []
    for index, value in enumerate(values):
        try:
            converted.append(convert(value))
        except ValueError as error:
            location = locate(index)
            raise _malformed(f"{location}INVALID_ARGUMENT: {error}" if location else str(error)) from error
    return converted


def _decode_base64(value: object) -> bytes:
    # TensorFlow Serving also takes plain strings, as bytes. Images are not text: here the {"b64": } was forgotten.
    if not _is_base64(value):
        raise ValueError(f"JSON Value: {_quoted(value)} not formatted correctly for base64 data")
    text = value["b64"]
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    try:  # line breaks and missing padding are allowed
        text = re.sub(r"\s", "", text).rstrip("=")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise ValueError("Unable to base64 decode") from error


def _encode_pixels(values: list, locate: _Location) -> list[bytes]:
    """Encode pixels as BMP, the fastest format to encode and decode."""
    images = _convert(values, _to_array, locate)
    for index, image in enumerate(images):
        if image.shape != images[0].shape:
            expected, got = (str(list(shape)).replace(" ", "") for shape in (images[0].shape, image.shape))
            location = f"{locate(index)}INVALID_ARGUMENT: " if locate(index) else ""
            raise _malformed(f"{location}Expecting shape {expected} but got: {got}")
    return [_bmp(image) for image in images]


def _to_array(value: object) -> np.ndarray:
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


def _check_file(file: bytes, index: int, max_pixels: int) -> tuple[bytes, int]:
    """The first image of a file, converted where TensorFlow does not read it, and its number of pixels.

    Nothing and 0 if it cannot be read.
    """
    file = first_image(file)
    try:
        header = read_header(file, max_pixels=max_pixels)
        return decodable(file, header), header.height * header.width
    except TooLargeError as error:
        raise RequestError(413, f"image {index}: {error}; --max-pixels allows more") from error
    except UnreadableError:
        return b"", 0


# --- errors ----------------------------------------------------------------------------------------------------


def _malformed(message: str) -> RequestError:
    return RequestError(400, message)


def _quoted(value: object) -> str:
    """A value as JSON, truncated, without encoding all of a large one."""
    text = "".join(part for part, _ in zip(json.JSONEncoder().iterencode(value), range(100), strict=False))
    return text if len(text) <= 100 else f"{text[:100]}..."
