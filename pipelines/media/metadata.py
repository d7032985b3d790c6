"""The metadata of an image file: EXIF, XMP, IPTC and texts, each read from its proper place.

Text that lies elsewhere (among the pixels, behind the end of the image) is not found. Metadata that is damaged, or
larger than any honest tag, is treated as absent.
"""

import gzip
import io
import zlib
from dataclasses import dataclass, field
from typing import BinaryIO
from xml.etree import ElementTree

import numpy as np
from PIL import ExifTags, Image, ImageFile, IptcImagePlugin

from pipelines.media import bmff, jpeg, png
from pipelines.media.headers import image_format
from pipelines.media.pillow import PILLOW_ERRORS, can_open, open_image

MAX_BYTES = 2**20  # of EXIF, of XMP, of one text chunk, decompressed
_MAX_EXTENDED_XMP = 2**24  # depth and gain maps are stored in it
_MAX_HIDDEN_PIXELS = 2**25  # of an image that is decoded for what its alpha hides
_MAX_TEXTS = 64  # of one PNG
_FORMATS = ("jpeg", "webp", "tiff", "avif", "heic", "gif")  # whose metadata Pillow reads
_EXIF_TAGS = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x927C: "MakerNote",  # a text beside the camera's name is Fooocus's
}
_USER_COMMENT, _LENS_MODEL = 0x9286, 0xA434
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


@dataclass(frozen=True)
class Metadata:
    """Metadata as text.

    Args:
        exif: `ImageDescription`, `Make`, `Model`, `Software`, `LensModel`, `MakerNote` and `UserComment`, as
            far as present.
        xmp: all simple properties, and the first item of lists, by `{namespace}name`.
        iptc: `Credit`, `OriginatingProgram` and `Caption` of the older, binary records of IPTC.
        texts: the text chunks of a PNG by keyword, the comment of a GIF as `comment`, and what the low bits of an
            alpha channel spell as `stealth`.
        has_gain_map: whether there is a gain map beside the image, which makes it HDR.
        has_motion_photo: whether there is a short video behind the image.
    """

    exif: dict[str, str] = field(default_factory=dict)
    xmp: dict[str, str] = field(default_factory=dict)
    iptc: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    has_gain_map: bool = False
    has_motion_photo: bool = False


def read_metadata(file: BinaryIO) -> Metadata:
    """Read the metadata of an image file; damage in it never raises.

    Raises:
        OSError: the file cannot be read.
    """
    file.seek(0)
    head = file.read(16)
    return _read_png(file) if head.startswith(png.SIGNATURE) else _read_by_pillow(file, image_format(head))


def _read_by_pillow(file: BinaryIO, name: str) -> Metadata:
    if name not in _FORMATS or not can_open(name):
        return Metadata()
    file.seek(0)
    try:
        with open_image(file, name) as image:
            xmp, comment = image.info.get("xmp", b""), image.info.get("comment", b"")
            # In other formats EXIF is a TIFF inside the image; in a TIFF it is the tags of the image itself.
            exif = _exif_texts(image.getexif()) if name == "tiff" else _parse_exif(image.info.get("exif") or b"")
            iptc = _iptc_texts(image) if name in ("jpeg", "tiff") else {}
            packets = _packets_of_further_images(image) if name == "jpeg" else []
    except PILLOW_ERRORS:
        return Metadata()
    properties = _parse_xmp(xmp) | (_extended_xmp(file) if name == "jpeg" else {})
    texts = {"comment": _decode_text(comment)} if name == "gif" and isinstance(comment, bytes) else {}
    boxes = _content(file) if name in ("avif", "heic") else b""
    return Metadata(
        exif,
        properties,
        iptc,
        texts,
        any(map(_names_gain_map, [properties, *packets])) or bmff.has_gain_map(boxes) or _announces_gain_map(file),
        _names_motion_photo(properties) or bmff.has_motion_photo(boxes) or _ends_in_motion_photo(file),
    )


def _content(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


# --- EXIF ------------------------------------------------------------------------------------------------------


def _parse_exif(tiff: bytes) -> dict[str, str]:
    if len(tiff) > MAX_BYTES:
        return {}
    exif = Image.Exif()
    try:
        exif.load(tiff)
        return _exif_texts(exif)
    except PILLOW_ERRORS:
        return {}


def _exif_texts(exif: Image.Exif) -> dict[str, str]:
    values = {name: exif.get(tag) for tag, name in _EXIF_TAGS.items()}
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    if isinstance(lens := exif.get_ifd(ExifTags.IFD.Exif).get(_LENS_MODEL), str):
        texts["LensModel"] = lens
    # It belongs into the EXIF directory; Fooocus and others write it beside the camera's name.
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(_USER_COMMENT) or exif.get(_USER_COMMENT)
    if isinstance(comment, bytes):
        texts["UserComment"] = _decode_user_comment(comment, is_little_endian=exif.endian == "<")
    elif isinstance(comment, str):
        texts["UserComment"] = comment
    return texts


def _decode_user_comment(content: bytes, *, is_little_endian: bool) -> str:
    """Decode a text whose first eight bytes name its encoding; some writers leave them out."""
    code, text = content[:8], content[8:]
    if code.upper() != b"UNICODE\0":
        has_code = code.upper().rstrip(b"\0 ") in (b"ASCII", b"JIS", b"")
        return (text if has_code else content).decode("utf-8", "replace").strip("\0 ")
    # The standard says the byte order of the file; not all writers comply. Read the wrong way round, Latin letters
    # become many different characters of other scripts; so the order with clearly more Latin letters is right.
    orders = ("utf-16-le", "utf-16-be") if is_little_endian else ("utf-16-be", "utf-16-le")
    declared, other = (text.decode(order, "replace").lstrip("\ufeff").strip("\0 ") for order in orders)
    return other if _latin_letters(other) > _latin_letters(declared) + 2 else declared


def _latin_letters(text: str) -> int:
    """The number of different ones, with digits and signs."""
    return sum(" " <= letter <= "~" for letter in set(text))


# --- IPTC ------------------------------------------------------------------------------------------------------

_IPTC_RECORDS = {(2, 110): "Credit", (2, 65): "OriginatingProgram", (2, 120): "Caption"}


def _iptc_texts(image: ImageFile.ImageFile) -> dict[str, str]:
    try:
        records = IptcImagePlugin.getiptcinfo(image) or {}
    except PILLOW_ERRORS:
        return {}
    values = {name: records.get(key) for key, name in _IPTC_RECORDS.items()}
    firsts = {name: value[0] if isinstance(value, list) else value for name, value in values.items() if value}
    return {name: _decode_text(value) for name, value in firsts.items() if isinstance(value, bytes)}


# --- XMP -------------------------------------------------------------------------------------------------------


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses a document type, which XMP never has: its entities could fetch files or expand to gigabytes."""

    def doctype(self, *_: object) -> None:
        raise ElementTree.ParseError("a document type")


def _parse_xmp(packet: object, max_bytes: int = MAX_BYTES) -> dict[str, str]:
    if not isinstance(packet, bytes) or not 0 < len(packet) <= max_bytes:
        return {}
    try:
        root = ElementTree.fromstring(packet.strip(b"\0 \r\n"), ElementTree.XMLParser(target=_WithoutDoctype()))
    except (ElementTree.ParseError, ValueError, LookupError):  # the latter two: an unknown encoding
        return {}
    rdf = root if root.tag == f"{_RDF}RDF" else root.find(f"{_RDF}RDF")
    properties: dict[str, str] = {}
    for description in [] if rdf is None else rdf.findall(f"{_RDF}Description"):
        properties |= description.attrib
        properties |= {element.tag: _property_text(element) for element in description}
        semantics = [text for element in description.iter() if (text := _semantic(element))]
        properties |= {_SEMANTICS: " ".join(semantics)} if semantics else {}
    return properties


def _property_text(element: ElementTree.Element) -> str:
    """The text of a property, of the first item if it is a list; or the resource that it names."""
    item = element.find(f"*/{_RDF}li")
    holder = element if item is None else item
    return (holder.text or "").strip() or holder.get(f"{_RDF}resource", "")


def _semantic(item: ElementTree.Element) -> str:
    """What one of the files behind the image is, as an attribute or an element."""
    return item.get(_SEMANTICS) or ((item.text or "").strip() if item.tag == _SEMANTICS else "")


_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"


def _extended_xmp(file: BinaryIO) -> dict[str, str]:
    """The properties that continue in further segments of a JPEG, each with identifier, length and position."""
    parts: dict[bytes, bytearray] = {}
    for marker, _, length in jpeg.segments(file):
        if marker != jpeg.APP1 or length < len(_EXTENSION) + 40:
            continue
        content = file.read(length)
        if not content.startswith(_EXTENSION):
            continue
        head, part = content[len(_EXTENSION) :][:40], content[len(_EXTENSION) + 40 :]
        total, at = int.from_bytes(head[32:36], "big"), int.from_bytes(head[36:], "big")
        if at + len(part) <= total <= _MAX_EXTENDED_XMP:
            packet = parts.setdefault(head[:32], bytearray(total))
            packet[at : at + len(part)] = part
    properties: dict[str, str] = {}
    for packet in parts.values():
        properties |= _parse_xmp(bytes(packet), _MAX_EXTENDED_XMP)
    return properties


# --- further images and videos ---------------------------------------------------------------------------------

_GAIN_MAP_NAMESPACES = ("{http://ns.adobe.com/hdr-gain-map/1.0/}", "{http://ns.apple.com/HDRGainMap/1.0/}")
_AUXILIARY_TYPE = "{http://ns.apple.com/pixeldatainfo/1.0/}AuxiliaryImageType"
_CAMERA = "{http://ns.google.com/photos/1.0/camera/}"
_SEMANTICS = "{http://ns.google.com/photos/1.0/container/item/}Semantic"  # of every file behind the image
_ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
_MAX_FURTHER_IMAGES = 4
_MAX_SAMSUNG_DIRECTORY, _SAMSUNG_MOTION_PHOTO = 4096, b"\x30\x0a"


def _packets_of_further_images(image: Image.Image) -> list[dict[str, str]]:
    """The XMP of the images that follow a phone's JPEG, a gain map among them."""
    packets = []
    for index in range(1, min(getattr(image, "n_frames", 1), 1 + _MAX_FURTHER_IMAGES)):
        try:
            image.seek(index)
        except PILLOW_ERRORS:
            break
        packets.append(_parse_xmp(image.info.get("xmp", b"")))
    return packets


def _names_gain_map(properties: dict[str, str]) -> bool:
    return (
        any(name.startswith(_GAIN_MAP_NAMESPACES) for name in properties)
        or properties.get(_AUXILIARY_TYPE, "").endswith("hdrgainmap")
        or "GainMap" in properties.get(_SEMANTICS, "").split()
    )


def _names_motion_photo(properties: dict[str, str]) -> bool:
    flags = (properties.get(_CAMERA + name) for name in ("MotionPhoto", "MicroVideo"))
    return "1" in flags or "MotionPhoto" in properties.get(_SEMANTICS, "").split()


def _announces_gain_map(file: BinaryIO) -> bool:
    """Whether a segment of a JPEG announces a gain map as ISO 21496-1 has it."""
    return any(
        marker == jpeg.APP2 and length >= len(_ISO_GAIN_MAP) and file.read(len(_ISO_GAIN_MAP)) == _ISO_GAIN_MAP
        for marker, _, length in jpeg.segments(file)
    )


def _ends_in_motion_photo(file: BinaryIO) -> bool:
    """Whether Samsung's directory at the end of a JPEG names a motion photo."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _MAX_SAMSUNG_DIRECTORY))
    end = file.read()
    if not end.endswith(b"SEFT") or (start := end.rfind(b"SEFH")) < 0:
        return False
    entries = end[start + 12 : -8]  # after name, version and number; before their length and the name of the end
    return any(entries[at + 2 : at + 4] == _SAMSUNG_MOTION_PHOTO for at in range(0, len(entries) - 11, 12))


# --- PNG -------------------------------------------------------------------------------------------------------


def _read_png(file: BinaryIO) -> Metadata:
    exif, texts, has_alpha = b"", dict[bytes, bytes](), False
    for chunk_type, length in png.chunks(file):
        if length > MAX_BYTES or len(texts) == _MAX_TEXTS:
            continue
        if chunk_type == b"IHDR":
            has_alpha = _hides_text(file.read(length))
        elif chunk_type == b"eXIf":
            exif = exif or file.read(length)
        elif chunk_type in _TEXT_CHUNKS:
            keyword, _, rest = file.read(length).partition(b"\0")
            if keyword not in texts:
                texts[keyword] = _TEXT_CHUNKS[chunk_type](rest)
    xmp = texts.pop(b"XML:com.adobe.xmp", b"")
    decoded = {keyword.decode("latin-1"): _decode_text(text) for keyword, text in texts.items()}
    if has_alpha and (hidden := _text_in_alpha(file)):
        decoded[STEALTH] = hidden
    properties = _parse_xmp(xmp)
    return Metadata(_parse_exif(exif), properties, {}, decoded, _names_gain_map(properties))


def _plain_text(rest: bytes) -> bytes:
    return rest


def _compressed_text(rest: bytes) -> bytes:
    return _decompress(rest[1:])


def _international_text(rest: bytes) -> bytes:
    parts = rest[2:].split(b"\0", 2)  # language, translated keyword, text
    if len(parts) < 3:
        return b""
    return _decompress(parts[2]) if rest[:1] == b"\1" else parts[2]


# The last is ComfyUI's, for animations.
_TEXT_CHUNKS = {b"tEXt": _plain_text, b"zTXt": _compressed_text, b"iTXt": _international_text, b"comf": _plain_text}


def _decompress(compressed: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(compressed, MAX_BYTES)
    except zlib.error:
        return b""
    return b"" if stream.unconsumed_tail else content


STEALTH = "stealth"  # the name of a text that the lowest bits of the alpha spell, as generators' add-ons write it
_STEALTH = {b"stealth_pnginfo": False, b"stealth_pngcomp": True}  # signatures, and whether the text is compressed


def _hides_text(header: bytes) -> bool:
    """Whether pixels have an alpha of 8 bits, and are few enough to be decoded for what it may hide."""
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    return header[8:10] in (b"\x08\x04", b"\x08\x06") and width * height <= _MAX_HIDDEN_PIXELS


def _text_in_alpha(file: BinaryIO) -> str:
    """The text that the lowest bits of the alpha spell, column by column: signature, length in bits, content."""
    file.seek(0)
    try:
        with open_image(file, "png") as image:
            alpha = np.asarray(image.getchannel("A"))
    except PILLOW_ERRORS:
        return ""
    columns = -(-(15 * 8 + 32) // len(alpha))
    head = np.packbits(alpha[:, :columns].T.ravel() & 1).tobytes()
    if (is_compressed := _STEALTH.get(head[:15])) is None:
        return ""
    length = int.from_bytes(head[15:19], "big") // 8
    if length > MAX_BYTES:
        return ""
    content = np.packbits(alpha.T.ravel()[: (19 + length) * 8] & 1).tobytes()[19:]
    return _decode_text(_gunzip(content) if is_compressed else content)


def _gunzip(compressed: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(compressed)) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error):
        return b""
    return content if len(content) <= MAX_BYTES else b""


def _decode_text(text: bytes) -> str:
    """Decode a text as UTF-8 if possible, although the standard says Latin-1 for two of the three chunk types."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
