"""One rule for the orientation of a JPEG: the size in headers, the pixels everywhere, and Pillow agree."""

import io
import random

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from pipelines.audit.duplicates import fingerprint
from pipelines.audit.shortcuts import file_features
from pipelines.datasets.layouts import read_layout
from pipelines.decoding import decodable, decode
from pipelines.media import pillow
from pipelines.media.headers import read_header
from pipelines.media.thumbnails import thumbnail
from pipelines.orientation import jpeg_orientations
from pipelines.records import queries
from pipelines.records.conversion import write_records
from pipelines.records.store import open_records
from pipelines.views import Squash, load_images, try_view
from pipelines.windows import decode_random_windows

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
COMMENT, APP1, APP2 = 0xFE, 0xE1, 0xE2
SHORT, LONG, FLOAT = 3, 4, 11


def encode(kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


PLAIN = encode()
STORED = np.asarray(Image.open(io.BytesIO(PLAIN)))


def segment(content: bytes, marker: int = APP1) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def exif(value: int | None, kind: int = SHORT, order: str = "big", before: bytes = b"") -> bytes:
    """EXIF with one entry, the orientation, behind the entries `before`; without it for None."""

    def number(number: int, size: int) -> bytes:
        return number.to_bytes(size, order)

    count = len(before) // 12 + (value is not None)
    entry = b"" if value is None else number(0x0112, 2) + number(kind, 2) + number(1, 4)
    if value is not None:
        entry += number(value, 2) + bytes(2) if kind == SHORT else number(value, 4)
    head = (b"MM" if order == "big" else b"II") + number(42, 2) + number(8, 4)
    return b"Exif\0\0" + head + number(count, 2) + before + entry + bytes(4)


def xmp(text: str) -> bytes:
    packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {text}/></x:xmpmeta>'
    return b"http://ns.adobe.com/xap/1.0/\0" + packet.encode()


def attribute(value: int) -> bytes:
    return xmp(f'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{value}"')


def with_segments(*segments: bytes, at: int = 2) -> bytes:
    return PLAIN[:at] + b"".join(segments) + PLAIN[at:]


MAKER_BEYOND_THE_END = bytes.fromhex("010f 0002 00000014 0000ffff")
CASES = {
    "none": (PLAIN, 1),
    **{f"big end first, {value}": (with_segments(segment(exif(value))), value) for value in range(1, 9)},
    **{f"little: {value}": (with_segments(segment(exif(value, order="little"))), value) for value in range(1, 9)},
    "long": (with_segments(segment(exif(6, LONG))), 6),
    "long, little end first": (with_segments(segment(exif(6, LONG, "little"))), 6),
    "floating point": (with_segments(segment(exif(0x40C00000, FLOAT))), 1),  # 6.0
    "0": (with_segments(segment(exif(0))), 1),
    "9": (with_segments(segment(exif(9))), 1),
    "62 thousand": (with_segments(segment(exif(6 + 256 * 6))), 1),
    "behind 195 KB": (with_segments(*[segment(bytes(65_000), APP2)] * 3, segment(exif(6))), 6),
    "behind a comment like it": (with_segments(segment(exif(3), COMMENT), segment(exif(6))), 6),
    "only a comment like it": (with_segments(segment(exif(6), COMMENT)), 1),
    "among the tables": (with_segments(segment(exif(6)), at=PLAIN.index(b"\xff\xda")), 6),
    "behind bytes that fill": (with_segments(b"\xff\xff", segment(exif(6))), 6),
    "in two segments": (with_segments(segment(exif(6)[:20]), segment(b"Exif\0\0" + exif(6)[20:])), 6),
    "named twice": (with_segments(segment(b"Exif\0\0" + exif(6))), 6),
    "behind a value that is cut off": (with_segments(segment(exif(6, before=MAKER_BEYOND_THE_END))), 1),
    "of no known order": (with_segments(segment(exif(6).replace(b"MM", b"MI")), segment(attribute(6))), 1),
    "XMP": (with_segments(segment(attribute(6))), 6),
    "XMP as an element": (with_segments(segment(xmp("/><tiff:Orientation>8</tiff:Orientation><a"))), 8),
    "XMP of 0": (with_segments(segment(attribute(0))), 1),
    "XMP of 9": (with_segments(segment(attribute(9))), 1),
    "XMP and EXIF without it": (with_segments(segment(exif(None)), segment(attribute(6))), 6),
    "XMP and EXIF": (with_segments(segment(attribute(6)), segment(exif(3))), 3),
    "XMP and EXIF of 1": (with_segments(segment(attribute(6)), segment(exif(1))), 1),
    "two packets of XMP": (with_segments(segment(attribute(6)), segment(attribute(3))), 3),
}
TURNED = {
    1: STORED,
    2: STORED[:, ::-1],
    3: STORED[::-1, ::-1],
    4: STORED[::-1],
    5: STORED.transpose(1, 0, 2),
    6: np.rot90(STORED, -1),
    7: np.rot90(STORED, 2).transpose(1, 0, 2),
    8: np.rot90(STORED),
}
each_case = pytest.mark.parametrize(("encoded", "orientation"), CASES.values(), ids=CASES)


@each_case
def test_size_and_pixels_agree_and_are_those_of_pillow(encoded, orientation):
    expected = TURNED[orientation]
    header = read_header(encoded)
    assert (header.height, header.width) == expected.shape[:2]
    np.testing.assert_array_equal(decode(tf.constant(decodable(encoded))), expected)
    with Image.open(io.BytesIO(encoded)) as image:
        np.testing.assert_array_equal(pillow.upright(image, "jpeg"), expected)
        if orientation > 1:
            np.testing.assert_array_equal(ImageOps.exif_transpose(image), expected)


def test_batches_files_windows_and_an_exported_graph_turn_alike(tmp_path):
    files = [encoded for encoded, _ in CASES.values()]
    paths = [tmp_path / f"{index}.jpg" for index in range(len(files))]
    for path, encoded in zip(paths, files, strict=True):
        path.write_bytes(encoded)
    images, errors = load_images(paths, Squash(24))
    served, sides = try_view(tf.constant([*files, b"no image"]), Squash(24))
    window_graph = tf.function(decode_random_windows, autograph=False)
    windows = window_graph(tf.constant(files), tf.zeros((len(files), 1, 2)), 8).numpy()[:, 0]
    assert errors == {}
    assert sides.numpy().tolist() == [24] * len(files) + [0]
    np.testing.assert_array_equal(served[:-1], images)
    whole, _ = load_images(paths[:1], Squash(24))
    for (_, orientation), image, window in zip(CASES.values(), images, windows, strict=True):
        np.testing.assert_array_equal(window, TURNED[orientation][:8, :8])
        assert np.array_equal(image, whole[0]) == (orientation == 1)


def test_records_have_the_height_and_width_of_their_pixels(tmp_path):
    for place in ("train/real", "train/fake", "val/real", "val/fake"):
        (tmp_path / "data" / place).mkdir(parents=True)
        for index, (encoded, _) in enumerate(CASES.values()):
            unlike = with_segments(segment(place.encode(), COMMENT))[2 : 6 + len(place)]  # no file has both labels
            (tmp_path / "data" / place / f"{index:02}.jpg").write_bytes(encoded[:2] + unlike + encoded[2:])
    write_records(read_layout(tmp_path / "data"), tmp_path / "records", workers=1)
    heights = {}
    for record in queries.iterate_records(open_records(tmp_path / "records").split("train")):
        height, width, _ = decode(tf.constant(record.image)).shape
        assert (record.height, record.width) == (height, width)
        heights[record.path] = height
    assert [heights[f"train/real/{index:02}.jpg"] for index in range(len(CASES))] == [
        TURNED[orientation].shape[0] for _, orientation in CASES.values()
    ]


@each_case
def test_the_audit_sees_an_image_as_the_model_does(encoded, orientation):
    expected = TURNED[orientation]
    features = file_features(encoded, "a.jpg")
    assert (features["height"], features["width"]) == expected.shape[:2]
    with Image.open(io.BytesIO(thumbnail(encoded))) as small:
        assert small.size == expected.shape[1::-1]
    buffer = io.BytesIO()
    Image.fromarray(expected).save(buffer, "PNG")
    hashes = [int.from_bytes(fingerprint(file).descriptor[:8]) for file in (encoded, buffer.getvalue())]
    assert (hashes[0] ^ hashes[1]).bit_count() <= 6, "another turn changes about 32 of the 64 bits"


def test_in_other_formats_it_is_ignored_or_left_to_pillow():
    turn = Image.Exif()
    turn[0x0112] = 6
    frames = {"save_all": True, "append_images": [Image.new("RGB", (32, 24))]}
    for kind, options, height in (("PNG", {}, 24), ("WEBP", {}, 24), ("WEBP", frames, 24), ("AVIF", {}, 32)):
        encoded = encode(kind, exif=turn, **options)
        assert read_header(encoded).height == height
        assert decode(tf.constant(decodable(encoded))).shape[0] == height
        with Image.open(io.BytesIO(thumbnail(encoded))) as small:
            assert small.height == height


def test_after_random_damage_size_and_pixels_still_agree():
    random_numbers, files = random.Random(0), []
    for _ in range(1500):
        content = bytearray(exif(random_numbers.randrange(10), before=MAKER_BEYOND_THE_END[:10] + b"\0\x08"))
        for _ in range(random_numbers.randrange(5)):
            content[random_numbers.randrange(len(content))] = random_numbers.choice((0, 1, 2, 3, 4, 6, 8, 9, 18, 255))
        parts = [segment(bytes(content)), segment(attribute(random_numbers.randrange(10))), b"\xff\xff\0", b"\0\0"]
        files.append(with_segments(*random_numbers.sample(parts, random_numbers.randrange(1, 5)), at=20))
    found = jpeg_orientations(tf.constant(files)).numpy().tolist()
    expected = [pillow.orientation(pillow.open_image(encoded), "jpeg") for encoded in files]
    assert found == expected
    assert set(found) == set(range(1, 9))


def test_what_is_no_jpeg_is_upright():
    files = [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1", b"\xff\xd8\xff\xe1\0\0", exif(6), encode("PNG")]
    assert jpeg_orientations(tf.constant(files)).numpy().tolist() == [1] * 7
    assert jpeg_orientations(tf.constant([], tf.string)).shape == (0,)
