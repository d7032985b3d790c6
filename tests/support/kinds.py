"""One tiny file of every kind of image file that people have, with the pixels that viewers show."""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from pipelines.media.pillow import load_plugins, open_image

HEIGHT, WIDTH = 5, 7  # odd, so that rows are padded where a format pads them
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GREY = RGB[..., 0]
PALETTE = np.random.default_rng(1).integers(0, 256, (256, 3), np.uint8)
INDICES = GREY % 16
COLOURS = PALETTE[INDICES]  # what `INDICES` show
EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Args:
        name: what it is, beginning with the format.
        encoded: an example.
        pixels: what it shows, uint8 (height, width, 3); None if it is refused.
        refusal: why it is refused; empty if it is read.
        tolerance: how far decoders may differ, in grey levels.
        stored: whether records keep its bytes.
        by_graph: whether an exported graph reads it.
    """

    name: str
    encoded: bytes
    pixels: np.ndarray | None
    refusal: str = ""
    tolerance: int = 0
    stored: bool = False
    by_graph: bool = False


def read(name: str, encoded: bytes, pixels: np.ndarray | None = None, tolerance: int = 0) -> Kind:
    """A kind that is read and transcoded; the pixels are Pillow's where they are not given."""
    return Kind(name, encoded, by_pillow(encoded) if pixels is None else _as_rgb(pixels), tolerance=tolerance)


def kept(name: str, encoded: bytes, pixels: np.ndarray | None = None, tolerance: int = 0) -> Kind:
    """A kind whose bytes are kept; the pixels are Pillow's where they are not given."""
    pixels = by_pillow(encoded) if pixels is None else _as_rgb(pixels)
    return Kind(name, encoded, pixels, tolerance=tolerance, stored=True, by_graph=True)


def transcoded(name: str, encoded: bytes, pixels: np.ndarray) -> Kind:
    """A kind that is transcoded although TensorFlow shows the same."""
    return Kind(name, encoded, _as_rgb(pixels), by_graph=True)


def refused(name: str, encoded: bytes, why: str) -> Kind:
    """A kind that is refused."""
    return Kind(name, encoded, None, why)


def by_pillow(encoded: bytes) -> np.ndarray:
    """What Pillow shows, without transparency."""
    with open_image(encoded) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def _as_rgb(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)


def saved(pixels: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    """The pixels as a file of that kind, by Pillow."""
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def packed(samples: np.ndarray, bits: int, align: int = 1) -> bytes:
    """Rows of samples of that many bits, big end first, padded to a multiple of `align` bytes."""
    rows = samples.reshape(len(samples), -1)
    in_bits = (rows[..., None] >> np.arange(bits)[::-1]) & 1
    packed_rows = np.packbits(in_bits.reshape(len(rows), -1).astype(np.uint8), axis=1)
    return np.pad(packed_rows, ((0, 0), (0, -packed_rows.shape[1] % align))).tobytes()


# --- BMP -------------------------------------------------------------------------------------------------------


def bmp(
    body: bytes, bits: int, *, compression: int = 0, palette: bytes = b"", masks: Sequence[int] = (), height=HEIGHT
) -> bytes:
    """A BMP with a header of 40 bytes, or of 108 if there are four masks."""
    after = b"".join(mask.to_bytes(4, "little") for mask in masks)
    size = 108 if len(masks) == 4 else 40
    colours = len(palette) // 4
    info = struct.pack("<IiiHHIIiiII", size, WIDTH, height, 1, bits, compression, len(body), 0, 0, colours, 0) + after
    info = info.ljust(size, b"\0") + palette
    return struct.pack("<2sIII", b"BM", 14 + len(info) + len(body), 0, 14 + len(info)) + info + body


def bmp_of_os2(body: bytes, bits: int, palette: bytes = b"") -> bytes:
    """A BMP with the header of 12 bytes that OS/2 and the first Windows wrote."""
    info = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, bits) + palette
    return struct.pack("<2sIII", b"BM", 14 + len(info) + len(body), 0, 14 + len(info)) + info + body


def _rows(pixels: np.ndarray) -> bytes:
    """Rows from the bottom up, each padded to four bytes."""
    rows = np.ascontiguousarray(pixels[::-1]).reshape(len(pixels), -1)
    rows = rows.view(np.uint8)
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).tobytes()


def _scaled(bits: int) -> np.ndarray:
    """Every value of so many bits, as eight."""
    top = 2**bits - 1
    return (np.arange(top + 1) * 255 + top // 2) // top


def _bmps() -> list[Kind]:
    bgr, table = RGB[..., ::-1], np.pad(PALETTE[:, ::-1], ((0, 0), (0, 1)))
    bgrx = np.concatenate([bgr, GREY[..., None]], axis=-1)
    rgbx = np.concatenate([RGB, GREY[..., None]], axis=-1)
    five, six = RGB >> 3, RGB >> 2
    x555 = five[..., 0].astype("<u2") << 10 | five[..., 1].astype("<u2") << 5 | five[..., 2]
    x565 = five[..., 0].astype("<u2") << 11 | six[..., 1].astype("<u2") << 5 | five[..., 2]
    shown5, shown6 = _scaled(5).astype(np.uint8)[five], _scaled(6).astype(np.uint8)[six]
    shown565 = np.stack([shown5[..., 0], shown6[..., 1], shown5[..., 2]], axis=-1)
    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, axis=1) * np.uint8([1, 1, 1, 0])
    two = INDICES % 2
    rle8 = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in INDICES[::-1]) + b"\0\1"
    rle4 = b"".join(b"".join(bytes([1, value << 4]) for value in row) + b"\0\0" for row in INDICES[::-1]) + b"\0\1"
    return [
        kept("bmp 24 bits", saved(RGB, "BMP"), RGB),
        kept("bmp 24 bits, top down", bmp(_rows(bgr[::-1]), 24, height=-HEIGHT), RGB),
        read("bmp grey palette", saved(GREY, "BMP"), GREY),
        read("bmp 8 bits, palette", bmp(_rows(INDICES), 8, palette=table.tobytes()), COLOURS),
        read("bmp 8 bits, 16 colours", bmp(_rows(INDICES), 8, palette=table[:16].tobytes()), COLOURS),
        read("bmp 4 bits", bmp(packed(INDICES[::-1], 4, 4), 4, palette=table[:16].tobytes()), COLOURS),
        read("bmp 1 bit", bmp(packed(two[::-1], 1, 4), 1, palette=table[:2].tobytes()), PALETTE[two]),
        read("bmp RLE8", bmp(rle8, 8, compression=1, palette=table.tobytes()), COLOURS),
        read("bmp RLE4", bmp(rle4, 4, compression=2, palette=table[:16].tobytes()), COLOURS),
        read("bmp 16 bits", bmp(_rows(x555), 16), shown5, tolerance=1),
        read(
            "bmp 16 bits, masks",
            bmp(_rows(x565), 16, compression=3, masks=(0xF800, 0x7E0, 0x1F)),
            shown565,
            tolerance=1,
        ),
        kept("bmp 32 bits", bmp(_rows(bgrx), 32), RGB),
        refused(
            "bmp 32 bits, masks", bmp(_rows(rgbx), 32, compression=3, masks=(0xFF, 0xFF00, 0xFF0000)), "channel masks"
        ),
        read(
            "bmp 32 bits, alpha mask",
            bmp(_rows(bgrx), 32, compression=3, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
            RGB,
        ),
        refused(
            "bmp 32 bits, odd masks",
            bmp(_rows(bgrx), 32, compression=3, masks=(0x3FF00000, 0xFFC00, 0x3FF)),
            "channel masks",
        ),
        read("bmp OS/2, 24 bits", bmp_of_os2(_rows(bgr), 24), RGB),
        read("bmp OS/2, palette", bmp_of_os2(_rows(INDICES), 8, table[:, :3].tobytes()), COLOURS),
        read("bmp grey palette reversed", bmp(_rows(GREY), 8, palette=greys[::-1].tobytes()), 255 - GREY),
    ]


# --- GIF -------------------------------------------------------------------------------------------------------


def gif(
    frame: bytes, *, palette: bytes, background: int = 0, transparent: int | None = None, at=(0, 0), screen=None
) -> bytes:
    """A GIF with one image of `INDICES`.

    Args:
        frame: the bytes of a GIF by Pillow, from which the compressed pixels are taken.
        palette: 16 colours.
        background: the index of the screen's background.
        transparent: the transparent index, if any.
        at: left and top of the image.
        screen: width and height of the screen.
    """
    start = frame.index(b"\x2c\0\0\0\0") + 10
    width, height = screen or (WIDTH, HEIGHT)
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF3, background, 0) + palette
    control = b"" if transparent is None else bytes([0x21, 0xF9, 4, 1, 0, 0, transparent, 0])
    comment = b"\x21\xfe\x03,;!\0"  # bytes that look like the start of something else
    image = b"\x2c" + struct.pack("<HHHHB", *at, WIDTH, HEIGHT, 0)
    return head + control + comment + image + frame[start:]


def _gifs() -> list[Kind]:
    image = Image.fromarray(INDICES, "P")
    image.putpalette(PALETTE[:16].tobytes())
    plain = saved(image, "GIF", optimize=False)
    table = PALETTE[:16].tobytes()

    def on_screen(colour: np.ndarray) -> np.ndarray:
        screen = np.broadcast_to(colour, (HEIGHT + 3, WIDTH + 4, 3)).copy()
        screen[1 : 1 + HEIGHT, 2 : 2 + WIDTH] = COLOURS
        return screen

    small = {"palette": table, "at": (2, 1), "screen": (WIDTH + 4, HEIGHT + 3)}
    animated = saved(image, "GIF", save_all=True, append_images=[Image.new("RGB", image.size)])
    return [
        kept("gif", plain, COLOURS),
        kept("gif interlaced", saved(image, "GIF", interlace=1), COLOURS),
        kept("gif with a comment", gif(plain, palette=table), COLOURS),
        transcoded("gif animated", animated, COLOURS),
        read("gif transparent", gif(plain, palette=table, transparent=3), COLOURS),
        read("gif smaller than its screen", gif(plain, **small), on_screen(PALETTE[0])),
        read("gif smaller, transparent", gif(plain, transparent=3, **small), on_screen(PALETTE[3])),
    ]


# --- TIFF ------------------------------------------------------------------------------------------------------


def tiff(
    body: bytes | Sequence[bytes],
    bits: Sequence[int],
    photometric: int,
    *,
    order: str = "<",
    planar: int = 1,
    big: bool = False,
    compression: int = 1,
    more: Sequence[tuple[int, int, Sequence[int]]] = (),
) -> bytes:
    """A TIFF.

    Args:
        body: one strip, or one for each plane.
        bits: per sample.
        photometric: 0 white is zero, 1 black is zero, 2 RGB, 3 palette, 5 inks, 6 YCbCr, 8 Lab.
        order: of bytes, as in `struct`.
        planar: 1 pixel by pixel, 2 plane by plane.
        big: a BigTIFF.
        compression: its code, of which 1 is none.
        more: further tags: number, type and values.
    """
    strips = [body] if isinstance(body, bytes) else list(body)
    long, type_of_offset = ("Q", 16) if big else ("I", 4)
    start = 16 if big else 8
    offsets = [start + sum(map(len, strips[:index])) for index in range(len(strips))]
    tags = [
        (256, 3, [WIDTH]),
        (257, 3, [HEIGHT]),
        (258, 3, bits),
        (259, 3, [compression]),
        (262, 3, [photometric]),
        (273, type_of_offset, offsets),
        (277, 3, [len(bits)]),
        (278, 3, [HEIGHT]),
        (279, type_of_offset, [len(strip) for strip in strips]),
        (284, 3, [planar]),
        *more,
    ]
    letters = {1: "B", 3: "H", 4: "I", 16: "Q"}
    data = b"".join(strips)
    inline = struct.calcsize(order + long)
    entries, spilled = b"", b""
    directory = start + len(data)
    after = directory + (8 if big else 2) + len(tags) * (20 if big else 12) + inline
    for tag, kind, values in sorted(tags):
        content = struct.pack(f"{order}{len(values)}{letters[kind]}", *values)
        if len(content) > inline:
            content, spilled = struct.pack(order + long, after + len(spilled)), spilled + content
        entries += struct.pack(f"{order}HH{long}", tag, kind, len(values)) + content.ljust(inline, b"\0")
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(f"{order}HHHQ", 43, 8, 0, directory) if big else struct.pack(f"{order}HI", 42, directory)
    count = struct.pack(f"{order}{'Q' if big else 'H'}", len(tags))
    return mark + head + data + count + entries + bytes(inline) + spilled


def _tiffs() -> list[Kind]:
    turned = _orientation(6)
    deep = RGB.astype("<u2") << 8 | 0x5A
    twelve = GREY.astype(np.uint16) << 4 | 9
    planes = [np.ascontiguousarray(RGB[..., channel]).tobytes() for channel in range(3)]
    deep_planes = [np.ascontiguousarray(deep[..., channel]).tobytes() for channel in range(3)]
    colour_map = (320, 3, (PALETTE.astype(int).T * 257).ravel().tolist())
    alpha = np.concatenate([RGB, GREY[..., None]], axis=-1)
    deep_alpha = np.concatenate([deep, deep[..., :1]], axis=-1)
    inks = np.concatenate([255 - RGB, np.zeros_like(GREY)[..., None]], axis=-1)
    floats = (339, 3, [3])
    return [
        read("tiff", saved(RGB, "TIFF"), RGB),
        read("tiff deflated", saved(RGB, "TIFF", compression="tiff_adobe_deflate"), RGB),
        read("tiff LZW", saved(RGB, "TIFF", compression="tiff_lzw"), RGB),
        read("tiff JPEG", saved(RGB, "TIFF", compression="jpeg", quality=95)),
        read("tiff turned", saved(RGB, "TIFF", exif=turned), np.rot90(RGB, -1)),
        read("tiff big end first", tiff(RGB.tobytes(), (8, 8, 8), 2, order=">"), RGB),
        read("tiff planes", tiff(planes, (8, 8, 8), 2, planar=2), RGB),
        read("tiff BigTIFF", tiff(RGB.tobytes(), (8, 8, 8), 2, big=True), RGB),
        refused("tiff BigTIFF, big end first", tiff(RGB.tobytes(), (8, 8, 8), 2, big=True, order=">"), "BigTIFF"),
        read("tiff alpha", tiff(alpha.tobytes(), (8,) * 4, 2, more=[(338, 3, [2])]), RGB),
        read("tiff palette", tiff(GREY.tobytes(), (8,), 3, more=[colour_map]), PALETTE[GREY]),
        read("tiff inks", tiff(inks.tobytes(), (8,) * 4, 5, more=[(332, 3, [1])]), RGB),
        read("tiff grey", tiff(GREY.tobytes(), (8,), 1), GREY),
        read("tiff grey, white is zero", tiff(GREY.tobytes(), (8,), 0), 255 - GREY),
        read("tiff 1 bit", tiff(packed(GREY >> 7, 1), (1,), 1), (GREY >> 7) * 255),
        read("tiff 1 bit, white is zero", tiff(packed(GREY >> 7, 1), (1,), 0), 255 - (GREY >> 7) * 255),
        read("tiff 4 bits", tiff(packed(GREY >> 4, 4), (4,), 1), (GREY >> 4) * 17),
        read("tiff 12 bits", tiff(packed(twelve, 12), (12,), 1), GREY),
        read("tiff 16 bits", tiff((GREY.astype("<u2") << 8 | 7).tobytes(), (16,), 1), GREY),
        read("tiff 16 bits, big end first", tiff(deep[..., 0].astype(">u2").tobytes(), (16,), 1, order=">"), GREY),
        read("tiff 16 bits, white is zero", tiff((GREY.astype("<u2") << 8 | 7).tobytes(), (16,), 0), 255 - GREY),
        read("tiff 16 bits, RGB", tiff(deep.tobytes(), (16,) * 3, 2), RGB),
        read("tiff 16 bits, RGB, big end first", tiff(deep.astype(">u2").tobytes(), (16,) * 3, 2, order=">"), RGB),
        read("tiff 16 bits, RGB and alpha", tiff(deep_alpha.tobytes(), (16,) * 4, 2, more=[(338, 3, [2])]), RGB),
        refused("tiff 16 bits, planes", tiff(deep_planes, (16,) * 3, 2, planar=2), "planar"),
        refused("tiff 12 bits, RGB", tiff(packed(RGB.astype(np.uint16) << 4, 12), (12,) * 3, 2), "12-bit"),
        refused("tiff 16 bits, signed", tiff(GREY.astype("<i2").tobytes(), (16,), 1, more=[(339, 3, [2])]), "signed"),
        refused("tiff 32 bits", tiff(GREY.astype("<u4").tobytes(), (32,), 1), "32-bit samples in TIFF"),
        refused("tiff float", tiff(GREY.astype("<f4").tobytes(), (32,), 1, more=[floats]), "floating"),
        refused("tiff half floats", tiff(GREY.astype("<f2").tobytes(), (16,), 1, more=[floats]), "floating"),
        refused("tiff doubles", tiff(GREY.astype("<f8").tobytes(), (64,), 1, more=[floats]), "floating"),
        refused(
            "tiff 16 bits, grey and alpha",
            tiff(deep[..., :2].tobytes(), (16,) * 2, 1, more=[(338, 3, [2])]),
            "^grey TIFF with 2 channels of 16 bits is not read; convert it to PNG$",
        ),
        refused("tiff planes, grey and alpha", tiff(planes[:2], (8,) * 2, 1, planar=2), "^planar grey"),
        refused(
            "tiff 16 bits, 5 channels",
            tiff(bytes(350), (16,) * 5, 2, more=[(338, 3, [0, 0])]),
            "^RGB TIFF with 5 channels of 16 bits is not read",
        ),
        refused("tiff 10 bits", tiff(packed(twelve >> 2, 10), (10,), 1), "^grey TIFF with 1 channel of 10 bits is"),
        refused("tiff 5, 6 and 5 bits", tiff(bytes(70), (5, 6, 5), 2), "^RGB TIFF with 3 channels of 5 and 6 bits"),
        refused("tiff BigTIFF, 10 bits", tiff(packed(twelve >> 2, 10), (10,), 1, big=True), "^grey TIFF with 1 chan"),
        refused("tiff 16 bits, Lab", tiff(bytes(210), (16,) * 3, 8), "^Lab TIFF with 3 channels of 16 bits"),
        refused(
            "tiff JPEG 2000",
            tiff(bytes(105), (8,) * 3, 2, compression=34712),
            "^RGB TIFF with 3 channels of 8 bits, with compression 34712, is not read; convert it to PNG$",
        ),
        refused("tiff float RGB", tiff(bytes(420), (32,) * 3, 2, more=[(339, 3, [3] * 3)]), "floating"),
    ]


# --- JPEG, PNG, WebP, AVIF, HEIC, JPEG XL ----------------------------------------------------------------------

LOSSLESS_JPEG = bytes.fromhex(
    "ffd8ffc400190001010101010100000000000000000000080706040205ffc3000b080005000701001100ffda0008010000060000cf5e86"
    "ac8d0931119d2a588c32643fc9f7bba777e634a7dbd51880aced927244b56c3162732745ffd9"
)
JPEG_XL = bytes.fromhex(  # 5 x 7 grey pixels without a container
    "ff0a20401014370208040100d8004b188b15525cf76d5b46e3745aa18422692855a3bffa93771191939a13670ca05b7444743044ec0e87"
    "7adba9fc961627f1b0a93f4712"
)
JPEG_XL_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl "


def _others() -> list[Kind]:
    image, turned = Image.fromarray(RGB), _orientation(6)
    plain = saved(RGB, "JPEG", quality=90)
    frame = plain.index(b"\xff\xc0")
    inks = saved(image.convert("CMYK"), "JPEG", quality=90)
    adobe = inks.index(b"\xff\xee")
    deep = GREY.astype(np.uint16) << 8 | 7
    clear = np.concatenate([RGB, GREY[..., None]], axis=-1)
    frames = {"save_all": True, "append_images": [Image.new("RGB", image.size)]}
    exact = {"quality": 100, "subsampling": "4:4:4"}
    box = (8 + len(JPEG_XL)).to_bytes(4, "big") + b"jxlc" + JPEG_XL
    return [
        kept("jpeg", plain),
        kept("jpeg progressive", saved(RGB, "JPEG", progressive=True)),
        kept("jpeg grey", saved(GREY, "JPEG")),
        kept("jpeg turned", saved(RGB, "JPEG", exif=turned)),
        kept("jpeg inks", inks, tolerance=4),
        read("jpeg inks without an Adobe marker", inks[:adobe] + inks[adobe + 16 :]),
        refused("jpeg 12 bits", plain[: frame + 4] + b"\x0c" + plain[frame + 5 :], "12-bit samples in JPEG"),
        refused("jpeg lossless", LOSSLESS_JPEG, "lossless JPEG"),
        refused("jpeg-ls", plain[:frame] + b"\xff\xf7" + plain[frame + 2 :], "JPEG-LS"),
        kept("png", saved(RGB, "PNG"), RGB),
        kept("png transparent", saved(clear, "PNG"), RGB),
        transcoded("png 16 bits", saved(Image.fromarray(deep), "PNG"), GREY),
        transcoded("png animated", saved(RGB, "PNG", **frames), RGB),
        kept("webp lossless", saved(RGB, "WEBP", lossless=True), RGB),
        kept("webp", saved(RGB, "WEBP")),
        kept("webp transparent", saved(clear, "WEBP", lossless=True, exact=True), RGB),
        read("webp animated", saved(RGB, "WEBP", lossless=True, **frames), RGB),
        read("avif", saved(RGB, "AVIF", **exact)),
        read("avif turned", saved(RGB, "AVIF", exif=turned, **exact)),
        read("avif mirrored", saved(RGB, "AVIF", exif=_orientation(5), **exact)),
        read("heic", saved(RGB, "HEIF", quality=-1)),
        refused("jpeg xl", JPEG_XL, "JPEG XL is not read; convert it to PNG"),
        refused("jpeg xl in a container", JPEG_XL_CONTAINER + box, "JPEG XL is not read; convert it to PNG"),
    ]


def _orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = number
    return exif


def all_kinds() -> list[Kind]:
    """Every kind."""
    load_plugins()
    return _others() + _bmps() + _gifs() + _tiffs()
