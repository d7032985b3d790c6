"""One decoder for all stages, one resize, and the conversion of what TensorFlow cannot read."""

import io
import os
import struct
import zlib

import kinds
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from tiny import encode

from pipelines.decoding import decodable, decode, decode_and_resize
from pipelines.media.headers import Header, UnreadableError, read_header
from pipelines.media.pillow import load_plugins
from pipelines.views import Squash, load_image, load_images, try_view

EXIF_ORIENTATION = 0x0112


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_by_pillow(encoded: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB"))


def photo(height: int = 24, width: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("kind", "name"), [("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "webp"), ("BMP", "bmp"), ("GIF", "gif")]
)
def test_every_format_is_recognized_by_content_and_decoded_to_rgb(kind, name):
    encoded = encode(kind)
    assert read_header(encoded) == Header(name, height=40, width=40, frames=1, bits=8)
    assert decodable(encoded) is encoded, "what TensorFlow decodes is kept"
    image = decode(tf.constant(encoded))
    assert image.dtype == tf.uint8
    assert image.shape == (40, 40, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_pixels_equal_those_of_pillow(kind):
    encoded = encode(kind)
    np.testing.assert_array_equal(decode(tf.constant(encoded)), pixels_by_pillow(encoded))


def test_grey_and_transparent_images_become_rgb():
    for mode, value, expected in (
        ("L", 70, [70, 70, 70]),
        ("RGBA", (10, 20, 30, 0), [10, 20, 30]),
        ("LA", (50, 9), [50, 50, 50]),
    ):
        encoded = saved(Image.new(mode, (3, 2), value), "PNG")
        assert decode(tf.constant(encoded)).numpy().tolist() == [[expected] * 3] * 2


def test_a_palette_is_resolved():
    image = photo().quantize(16)
    np.testing.assert_array_equal(decode(tf.constant(saved(image, "PNG"))), np.asarray(image.convert("RGB")))


def test_one_pixel_is_an_image():
    encoded = saved(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")
    assert decode(tf.constant(encoded)).numpy().tolist() == [[[1, 2, 3]]]


def ycck(cmyk: bytes) -> bytes:
    """The same JPEG, declared as YCCK in its Adobe segment."""
    at = cmyk.index(b"Adobe") + 11  # name, version, two flags
    return cmyk[:at] + b"\x02" + cmyk[at + 1 :]


def test_cmyk_jpegs_decode_to_nearly_the_pixels_of_pillow():
    cmyk_image = Image.fromarray(np.full((16, 16, 4), (10, 120, 60, 30), np.uint8), "CMYK")
    cmyk = saved(cmyk_image, "JPEG", quality=100, subsampling=0)
    for encoded in (cmyk, ycck(cmyk)):
        assert read_header(encoded).format == "jpeg"
        difference = decode(tf.constant(encoded)).numpy().astype(int) - pixels_by_pillow(encoded)
        assert np.abs(difference).max() <= 4, "each library converts CMYK by its own formula, with rounding"


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 90}])
def test_a_transparent_webp_is_kept_and_loses_its_transparency(options):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    encoded = saved(Image.fromarray(pixels), "WEBP", **options)
    assert decodable(encoded) is encoded
    np.testing.assert_array_equal(decode(tf.constant(encoded)), pixels_by_pillow(encoded))


def test_an_exported_graph_survives_files_cut_short():
    """TensorFlow corrupts the memory of the process when it decodes an animated WebP."""
    frames = [Image.new("RGB", (6, 4), (shade,) * 3) for shade in (10, 200)]
    animated = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    gif, still = saved(frames[0], "GIF"), saved(frames[0], "WEBP")
    files = [animated, still, b"RIFF", b"BM", b"GIF8", gif[:15], b"\xff\xd8\xff", gif]
    assert try_view(tf.constant(files), Squash(8))[1].numpy().tolist() == [0, 4, 0, 0, 0, 0, 0, 4]


# --- orientation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [b"II", b"MM"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_upright_as_exif_says(orientation, order):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION], exif[0x010F] = orientation, "a maker before it"
    encoded = saved(photo(), "JPEG", exif=exif)
    if order == b"II":
        encoded = little_endian(encoded, orientation)
    expected = pixels_by_pillow(encoded)
    assert expected.shape[:2] == ((24, 32) if orientation < 5 else (32, 24))
    np.testing.assert_array_equal(decode(tf.constant(encoded)), expected)
    assert (read_header(encoded).height, read_header(encoded).width) == expected.shape[:2]


def little_endian(encoded: bytes, orientation: int) -> bytes:
    """The JPEG with a little-endian EXIF segment of one entry."""
    tiff = b"II*\0" + bytes([8, 0, 0, 0, 1, 0]) + bytes([0x12, 1, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0]) + bytes(4)
    plain = saved(Image.open(io.BytesIO(encoded)), "JPEG", quality="keep", exif=b"")
    segment = b"Exif\0\0" + tiff
    return plain[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + plain[2:]


@pytest.mark.parametrize(
    "tiff",
    [
        b"",
        b"II",
        b"II*\0" + b"\xff" * 4000,
        b"MM\0*\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\x01\0\0\0\x63\0\0\0" * 400,
    ],
)
def test_broken_exif_is_ignored(tiff):
    plain = saved(photo(), "JPEG")
    segment = b"Exif\0\0" + tiff
    encoded = plain[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + plain[2:]
    np.testing.assert_array_equal(decode(tf.constant(encoded)), decode(tf.constant(plain)))
    assert (read_header(encoded).height, read_header(encoded).width) == (24, 32)


def test_the_exif_identifier_outside_its_segment_is_ignored():
    plain = saved(photo(), "JPEG")
    comment = little_endian(plain, 6)[6:42]
    encoded = plain[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + plain[2:]
    assert comment.startswith(b"Exif\0\0II*\0")
    np.testing.assert_array_equal(decode(tf.constant(encoded)), decode(tf.constant(plain)))


def test_orientation_in_a_png_is_ignored():
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    assert decode(tf.constant(saved(photo(), "PNG", exif=exif))).shape == (24, 32, 3)


# --- conversion ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"), [("TIFF", {}), ("AVIF", {"quality": 100, "subsampling": "4:4:4"}), ("HEIF", {"quality": -1})]
)
def test_formats_that_only_pillow_reads_become_a_png_of_the_same_pixels(kind, options):
    load_plugins()
    encoded = saved(photo(), kind, **options)
    png = decodable(encoded)
    assert read_header(png).format == "png"
    np.testing.assert_array_equal(decode(tf.constant(png)), pixels_by_pillow(encoded))


def test_a_tiff_is_turned_upright():
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    encoded = saved(photo(), "TIFF", exif=exif)
    assert decode(tf.constant(decodable(encoded))).shape == (32, 24, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_higher_eight_of_sixteen_bits_are_kept(kind):
    samples = (np.arange(600, dtype=np.uint16) * 109).reshape(20, 30)
    encoded = saved(Image.fromarray(samples), kind)
    assert read_header(encoded).bits == 16
    image = decode(tf.constant(decodable(encoded))).numpy()
    np.testing.assert_array_equal(image, np.repeat((samples >> 8)[..., None], 3, axis=-1))
    if kind == "PNG":  # a served model decodes this one itself
        np.testing.assert_array_equal(decode(tf.constant(encoded)), image)


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})])
def test_the_first_of_several_frames_is_kept(kind, options):
    frames = [Image.new("RGB", (6, 4), (shade,) * 3) for shade in (10, 100, 200)]
    encoded = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert read_header(encoded).frames == 3
    png = decodable(encoded)
    assert read_header(png) == Header("png", height=4, width=6, frames=1, bits=8)
    assert (decode(tf.constant(png)).numpy() == 10).all()


def test_floating_point_samples_are_refused():
    encoded = saved(Image.new("F", (4, 4), 0.5), "TIFF")
    with pytest.raises(UnreadableError, match="floating-point samples in TIFF; convert it to 8 or 16 bits"):
        decodable(encoded)


# --- unreadable files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not an image in a known format"),
        (encode("PNG")[:20], "damaged or cut short PNG"),
        (encode("TIFF")[:60], "damaged or cut short TIFF"),
        (b"\xff\xd8\xff" + bytes(60), "damaged or cut short JPEG"),
    ],
)
def test_a_file_without_a_valid_header_is_refused_with_a_reason(encoded, reason):
    with pytest.raises(UnreadableError, match=reason):
        decodable(encoded)


UNREAD_TIFF = kinds.tiff(bytes(140), (16, 16), 1)


@pytest.mark.parametrize(
    ("encoded", "old", "new"),
    [
        (UNREAD_TIFF, struct.pack("<HHII", 279, 4, 1, 140), struct.pack("<HHII", 279, 4, 1, 10_000)),
        (UNREAD_TIFF, struct.pack("<HHIHH", 257, 3, 1, 5, 0), struct.pack("<HHIHH", 257, 3, 1, 0, 0)),
        (UNREAD_TIFF, struct.pack("<HHIHH", 262, 3, 1, 1, 0), struct.pack("<HHIHH", 262, 3, 1, 999, 0)),
        (
            kinds.tiff(bytes(105), (8, 8, 8), 2),
            struct.pack("<HHIHH", 277, 3, 1, 3, 0),
            struct.pack("<HHIHH", 277, 3, 1, 200, 0),
        ),
        (kinds.tiff(bytes(35), (10,), 1, big=True), struct.pack("<Q", 51), b"\xff" * 8),
    ],
    ids=["beyond the end", "no height", "no colours", "200 samples", "directory beyond the end"],
)
def test_a_damaged_tiff_is_not_taken_for_one_of_a_kind_that_is_not_read(encoded, old, new):
    assert encoded.count(old) == 1
    with pytest.raises(UnreadableError, match=r"^damaged or cut short TIFF$"):
        decodable(encoded.replace(old, new))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_file_is_refused_by_the_decoder(kind):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(tf.constant(encode(kind)[:-200]))


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


@pytest.mark.parametrize(
    "text",
    [
        chunk(b"tEXt", b"Comment\0" + bytes(100_000_000)),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(100_000_000), 9)),
        chunk(b"tEXt", b"Comment\0none")[:-1] + b"?",  # a wrong checksum
        chunk(b"eXIf", b"II*\0\xff\xff"),
    ],
    ids=["long", "bomb", "damaged", "EXIF"],
)
def test_no_text_chunk_of_a_png_prevents_decoding(text):
    plain = encode("PNG")
    encoded = plain[:33] + text + plain[33:]  # after IHDR
    assert read_header(encoded) == read_header(plain)
    assert decodable(encoded) is encoded
    np.testing.assert_array_equal(decode(tf.constant(encoded)), decode(tf.constant(plain)))


def test_random_damage_raises_nothing_but_the_documented_errors():
    random, refused = np.random.default_rng(0), 0
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"):
        if kind not in Image.SAVE:
            continue
        whole = encode(kind)
        for _ in range(60):
            damaged = bytearray(whole)
            for place in random.integers(0, min(len(whole), 400), 8):
                damaged[place] = random.integers(256)
            try:
                decode(tf.constant(decodable(bytes(damaged))))
            except (UnreadableError, tf.errors.InvalidArgumentError):
                refused += 1
    assert refused > 100


def test_shrinking_averages_and_keeps_the_range():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = decode_and_resize(tf.constant([saved(Image.fromarray(stripes), "PNG")]), 16)
    assert small.dtype == tf.uint8
    assert small.shape == (1, 16, 16, 3)
    np.testing.assert_allclose(small[0, 4:-4, 4:-4], 127.5, atol=4)  # without anti-aliasing: 0 or 255


def test_an_image_of_the_right_size_is_unchanged():
    square = photo(24, 24)
    np.testing.assert_array_equal(decode_and_resize(tf.constant([saved(square, "PNG")]), 24)[0], np.asarray(square))


def test_an_image_has_the_same_pixels_in_any_batch():
    # A batch of only plain JPEGs takes a shortcut.
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    files = [encode("JPEG"), encode("JPEG", quality=40), encode("PNG"), saved(photo(), "JPEG", exif=exif)]
    together = decode_and_resize(tf.constant(files), 20).numpy()
    for file, image in zip(files, together, strict=True):
        np.testing.assert_array_equal(decode_and_resize(tf.constant([file]), 20)[0], image)


def test_files_have_the_same_pixels_alone_and_together(tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    files = {"a.jpg": encode(), "b.png": encode("PNG"), "c.jpg": saved(photo(), "JPEG", exif=exif)}
    files |= {"d.tiff": encode("TIFF"), "e.bmp": encode("BMP", size=1300)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in files]
    images, errors = load_images(paths, Squash(20))
    assert (images.shape, images.dtype, errors) == ((5, 20, 20, 3), np.uint8, {})
    for path, content, image in zip(paths, files.values(), images, strict=True):
        np.testing.assert_array_equal(load_image(path, 20), image)
        np.testing.assert_array_equal(decode_and_resize(tf.constant([decodable(content)]), 20)[0], image)


def test_unreadable_files_do_not_affect_the_others(tmp_path):
    files = {"good.jpg": encode(), "cut.jpg": encode()[:-300], "empty.png": b"", "page.jpg": b"<html>"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe.jpg")
    with (tmp_path / "vast.jpg").open("wb") as file:
        file.truncate(2**40)  # sparse, so it takes no space
    paths = [tmp_path / name for name in (*files, "pipe.jpg", "vast.jpg", "gone.jpg", "good.jpg")]
    images, errors = load_images(paths, Squash(20))
    assert errors == {
        1: "damaged or cut short JPEG",
        2: "the file is empty",
        3: "not an image in a known format",
        4: "not a file",
        5: "more than 512 MiB",
        6: "No such file or directory",
    }
    np.testing.assert_array_equal(images[0], images[7])
    assert images[0].any()
    assert not images[1:7].any()
    with pytest.raises(UnreadableError, match="No such file or directory"):
        load_image(tmp_path / "gone.jpg", 20)


def test_a_file_that_declares_a_huge_size_is_not_decoded(tmp_path):
    encoded = bytearray(saved(Image.new("1", (1, 1)), "BMP"))
    encoded[18:26] = (12_000).to_bytes(4, "little") * 2
    (tmp_path / "bomb.bmp").write_bytes(encoded)
    assert load_images([tmp_path / "bomb.bmp"], Squash(20))[1] == {0: "12000 x 12000 pixels, more than 100,000,000"}
