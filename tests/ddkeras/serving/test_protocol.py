"""Parsing predict requests: pixels, malformed JSON, and limits on images."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from serving_client import GOOD, b64, post, post_rejected
from tiny import encode


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (17, 90), (45, 33)])
def test_pixels_score_like_the_file_that_holds_them(client, size):
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    files = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        files.append(b64(buffer.getvalue()))
    expected = post(client, {"instances": files})
    by_row = {"signature_name": "images", "instances": [{"images": image.tolist()} for image in pixels]}
    assert post(client, by_row) == expected
    assert post(client, {"signature_name": "images", "instances": pixels.tolist()}) == expected
    columns = post(client, {"signature_name": "images", "inputs": {"images": pixels.tolist()}})["outputs"]
    assert columns["logit"] == [row["logit"] for row in expected["predictions"]]


def test_numbers_are_shortest_decimals(client):
    (row,) = post(client, {"instances": [b64(encode(seed=3))]})["predictions"]
    assert len(repr(row["fake_probability"]).replace("e-0", "")) <= 13
    assert np.float32(row["logit"]) == pytest.approx(row["logit"], rel=1e-7)


@pytest.mark.parametrize(
    ("request_body", "error"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"{nonsense", "JSON Parse error: Expecting property name enclosed in double quotes at offset: 1"),
        (b"\xff\xfe\xfd", "JSON Parse error: "),
        (b"[" * 100_000, "JSON Parse error: "),
        (b"[1]", "JSON Value: [1] Is not object"),
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"instances": [GOOD], "inputs": [GOOD]}, "JSON Value: {"),
        ({"instances": []}, "JSON Value: {\"instances\": []} No values in 'instances' array"),
        ({"instances": 3}, "JSON Value: {\"instances\": 3} Excepting 'instances' to be an list/array"),
        ({"instances": [GOOD], "signature_name": "x"}, 'Serving signature name: "x" not found in signature def'),
        (
            {"signature_name": 3},
            'JSON Value: {"signature_name": 3} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
        (
            {"instances": [{"image": GOOD}]},
            "Failed to process element: 0 key: image of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON object: does not have named input: image",
        ),
        (
            {"instances": [{"image_bytes": GOOD}, {}]},
            "Failed to process element: 1 of 'instances' list. JSON object: {} keys must be equal to: image_bytes",
        ),
        ({"instances": [{"image_bytes": GOOD}, GOOD]}, "Expecting object but got list at item 1 of input list"),
        ({"instances": [GOOD, {"image_bytes": GOOD}]}, "Expecting value/list but got object at item 1 of input list"),
        (
            {"instances": [GOOD, "plain"]},
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
            'JSON Value: "plain" not formatted correctly for base64 data',
        ),
        (
            {"instances": [{"image_bytes": {"b65": ""}}]},
            "Failed to process element: 0 key: image_bytes of 'instances' list. Error: INVALID_ARGUMENT: "
            'JSON Value: {"b65": ""} not formatted correctly for base64 data',
        ),
        (
            {"instances": [{"b64": "?!"}]},
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: Unable to base64 decode",
        ),
        ({"inputs": {"image_bytes": [{"b64": "A"}]}}, "Unable to base64 decode"),
        ({"inputs": {"other": [GOOD]}}, "Missing named input: image_bytes in 'inputs' object."),
        ({"inputs": {"b64": "AAAA"}}, "JSON Value: {"),
        (
            {"signature_name": "images", "inputs": [[[[0, 0, 256]]]]},
            "JSON Value: [[[0, 0, 256]]] is not of expected type",
        ),
        (
            {"signature_name": "images", "inputs": [[[[0, 0, 0.5]]]]},
            "JSON Value: [[[0, 0, 0.5]]] is not of expected ",
        ),
        ({"signature_name": "images", "inputs": [[[0, 0, 0]]]}, "Expecting shape [height,width,3] but got: [1,3]"),
        ({"signature_name": "images", "inputs": [[[[0, 0, 0]], [[0, 0]]]]}, "Encountered list at unexpected size"),
        ({"signature_name": "images", "inputs": [[[]]]}, "Expecting shape [height,width,3] but got: [1,0]"),
        (
            {"signature_name": "images", "inputs": [[[[0, 0, 0]]], [[[0, 0, 0], [0, 0, 0]]]]},
            "Expecting shape [1,1,3] but got: [1,2,3]",
        ),
    ],
)
def test_a_malformed_request_is_rejected_with_one_line(client, request_body, error):
    status, message = post_rejected(client, request_body)
    assert status == 400
    assert message.startswith(error)
    assert len(message) < 300
    if len(error) > 60:
        assert message == error


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes whose header says that it is large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def test_an_image_with_too_many_pixels_is_rejected_before_decoding(client):
    status, error = post_rejected(client, {"instances": [b64(encode()), b64(bomb(50_000, 50_000))]})
    assert (status, error) == (413, "image 1: 50000 x 50000 pixels, more than 50,000,000; --max-pixels allows more")
    status, error = post_rejected(client, {"instances": [b64(bomb(10_000, 6_000))]})
    assert (status, error) == (413, "image 0: 10000 x 6000 pixels, more than 50,000,000; --max-pixels allows more")


def test_the_pixel_limit_includes_pixels_in_lists(limited_client):
    line = [[[0, 0, 0]] * 2001]
    assert post_rejected(limited_client, {"signature_name": "images", "inputs": [line]})[0] == 413
    post(limited_client, {"signature_name": "images", "inputs": [[line[0][:2000]]]})


def test_only_the_first_frame_of_a_gif_is_scored(client):
    frames = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)) for seed in (0, 1)]
    still, animated = io.BytesIO(), io.BytesIO()
    frames[0].save(still, "GIF", comment=b"a comment")
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:], comment=b"a comment")
    rows = post(client, {"instances": [b64(still.getvalue()), b64(animated.getvalue())]})["predictions"]
    assert rows[0]["logit"] == pytest.approx(rows[1]["logit"], abs=1e-6)
    assert rows[0]["verdict"] != "error"


def test_a_request_with_too_many_images_is_rejected(client, limited_client):
    assert post_rejected(client, {"instances": [b64(b"")] * 10_000}) == (
        413,
        "10000 images, more than 1,000; --max-images allows more",
    )
    assert post_rejected(limited_client, {"inputs": [b64(b"")] * 6})[0] == 413
    assert len(post(limited_client, {"instances": [b64(b"")] * 5})["predictions"]) == 5
