"""THE decode: encoded bytes to RGB, as TensorFlow operations.

Training, evaluation, prediction and the exported graph all go through `decode_and_resize`, so that a file has
one score everywhere.
"""

import tensorflow as tf

# What TensorFlow decodes comes first; the others are told apart to name them in an error.
_SIGNATURES = (
    ("jpeg", 0, b"\xff\xd8\xff"),
    ("png", 0, b"\x89PNG\r\n\x1a\n"),
    ("gif", 0, b"GIF8"),
    ("bmp", 0, b"BM"),
    ("webp", 8, b"WEBP"),
    ("tiff", 0, b"II*\0"),
    ("tiff", 0, b"MM\0*"),
    ("avif", 4, b"ftypavif"),
    ("heic", 4, b"ftypheic"),
    ("heic", 4, b"ftypheix"),
    ("heic", 4, b"ftypmif1"),
)
DECODABLE = ("jpeg", "png", "gif", "bmp", "webp")


def image_format(encoded: bytes) -> str:
    """The format that the first bytes tell, whatever the file's name: `jpeg`, `png`, ... or `unknown`."""
    return next((name for name, at, magic in _SIGNATURES if encoded.startswith(magic, at)), "unknown")


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decode one image.

    Args:
        encoded: scalar string, the bytes of a JPEG, PNG, GIF (first frame), BMP or WebP file.

    Returns:
        uint8 (height, width, 3), RGB. Transparency is dropped, 16 bits are cut to 8, EXIF rotation is ignored.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are no such file, or a damaged one.
    """
    image = tf.cond(
        tf.strings.substr(encoded, 0, 3) == b"\xff\xd8\xff",
        # decode_image has JPEG's fast DCT and no say in it: one grey level of error in the mean, on the very traces
        # we look for. The accurate one equals Pillow's pixels exactly.
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, (None, None, 3))


def decode_and_resize(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decode one image and resize all of it to a square: bilinear, anti-aliased, aspect not kept.

    Returns:
        float32 (image_size, image_size, 3), RGB in 0..255.
    """
    return tf.image.resize(decode(encoded), (image_size, image_size), method="bilinear", antialias=True)


def why_unreadable(encoded: bytes) -> str:
    """One line for a person on why `decode` refused these bytes."""
    if not encoded:
        return "the file is empty"
    kind = image_format(encoded)
    if kind == "unknown":
        return "not an image in a known format"
    if kind not in DECODABLE:
        return f"{kind.upper()} cannot be read yet; convert it to PNG"
    return f"damaged or cut short {kind.upper()}"
