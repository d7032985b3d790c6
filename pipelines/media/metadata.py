"""The metadata of an image file: EXIF, XMP and the text chunks of a PNG, each read from its proper place.

Text that lies elsewhere (among the pixels, in a comment, behind the end of the image) is not found. Metadata that is
damaged, or larger than any honest tag, is treated as absent.
"""

import zlib
from dataclasses import dataclass, field
from typing import BinaryIO
from xml.etree import ElementTree

from PIL import ExifTags, Image

from pipelines.media import png
from pipelines.media.headers import image_format
from pipelines.media.pillow import PILLOW_ERRORS, can_open, open_image

MAX_BYTES = 2**20  # of EXIF, of XMP, of one text chunk, decompressed
_MAX_TEXTS = 64  # of one PNG
_FORMATS = ("jpeg", "webp", "tiff", "avif", "heic", "gif")  # whose metadata Pillow reads
_EXIF_TAGS = {0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software"}
_USER_COMMENT = 0x9286
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


@dataclass(frozen=True)
class Metadata:
    """Metadata as text.

    Args:
        exif: `ImageDescription`, `Make`, `Model`, `Software` and `UserComment`, as far as present.
        xmp: all simple properties, and the first item of lists, by `{namespace}name`.
        texts: the text chunks of a PNG, by keyword.
    """

    exif: dict[str, str] = field(default_factory=dict)
    xmp: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


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
            xmp = image.info.get("xmp", b"")
            # In other formats EXIF is a TIFF inside the image; in a TIFF it is the tags of the image itself.
            exif = _exif_texts(image.getexif()) if name == "tiff" else _parse_exif(image.info.get("exif", b""))
    except PILLOW_ERRORS:
        return Metadata()
    return Metadata(exif, _parse_xmp(xmp))


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
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(_USER_COMMENT)
    return texts | ({"UserComment": _decode_user_comment(comment)} if isinstance(comment, bytes) else {})


def _decode_user_comment(content: bytes) -> str:
    """Decode a text whose first eight bytes name its encoding."""
    code, text = content[:8], content[8:]
    if code != b"UNICODE\0":
        return text.decode("utf-8", "replace").strip("\0 ")
    # The standard says the byte order of the file; not all writers comply. In Latin text every other byte is zero.
    little_endian = text[1::2].count(0) > text[::2].count(0)
    return text.decode("utf-16-le" if little_endian else "utf-16-be", "replace").strip("\0 ")


# --- XMP -------------------------------------------------------------------------------------------------------


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses a document type, which XMP never has: its entities could fetch files or expand to gigabytes."""

    def doctype(self, *_: object) -> None:
        raise ElementTree.ParseError("a document type")


def _parse_xmp(packet: object) -> dict[str, str]:
    if not isinstance(packet, bytes) or not 0 < len(packet) <= MAX_BYTES:
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
    return properties


def _property_text(element: ElementTree.Element) -> str:
    """The text of a property, of the first item if it is a list; or the resource that it names."""
    item = element.find(f"*/{_RDF}li")
    holder = element if item is None else item
    return (holder.text or "").strip() or holder.get(f"{_RDF}resource", "")


# --- PNG -------------------------------------------------------------------------------------------------------


def _read_png(file: BinaryIO) -> Metadata:
    exif, texts = b"", dict[bytes, bytes]()
    for chunk_type, length in png.chunks(file):
        if length > MAX_BYTES or len(texts) == _MAX_TEXTS:
            continue
        if chunk_type == b"eXIf":
            exif = exif or file.read(length)
        elif chunk_type in _TEXT_CHUNKS:
            keyword, _, rest = file.read(length).partition(b"\0")
            if keyword not in texts:
                texts[keyword] = _TEXT_CHUNKS[chunk_type](rest)
    xmp = texts.pop(b"XML:com.adobe.xmp", b"")
    decoded = {keyword.decode("latin-1"): _decode_text(text) for keyword, text in texts.items()}
    return Metadata(_parse_exif(exif), _parse_xmp(xmp), decoded)


def _plain_text(rest: bytes) -> bytes:
    return rest


def _compressed_text(rest: bytes) -> bytes:
    return _decompress(rest[1:])


def _international_text(rest: bytes) -> bytes:
    parts = rest[2:].split(b"\0", 2)  # language, translated keyword, text
    if len(parts) < 3:
        return b""
    return _decompress(parts[2]) if rest[:1] == b"\1" else parts[2]


_TEXT_CHUNKS = {b"tEXt": _plain_text, b"zTXt": _compressed_text, b"iTXt": _international_text}


def _decompress(compressed: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(compressed, MAX_BYTES)
    except zlib.error:
        return b""
    return b"" if stream.unconsumed_tail else content


def _decode_text(text: bytes) -> str:
    """Decode a text as UTF-8 if possible, although the standard says Latin-1 for two of the three chunk types."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
