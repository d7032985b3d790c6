"""What an image file says of itself beside its pixels: EXIF, XMP and the texts of a PNG, each read from its place.

Words that lie elsewhere, among the pixels, in a comment or behind the end of the image, are not found. What is
broken or larger than any honest tag is as if it were not there.
"""

import zlib
from dataclasses import dataclass, field
from typing import BinaryIO
from xml.etree import ElementTree

from PIL import ExifTags, Image

from pipelines.media import png
from pipelines.media.headers import DAMAGED, image_format

LARGEST = 2**20  # bytes of EXIF, of XMP, of one text, unpacked
_MOST_TEXTS = 64  # of one PNG
_PILLOW_READS = ("JPEG", "WEBP", "TIFF", "AVIF", "HEIF", "GIF")
_EXIF = {0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software"}
_USER_COMMENT = 0x9286
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


@dataclass(frozen=True)
class Metadata:
    """Texts by name: of EXIF `ImageDescription`, `Make`, `Model`, `Software` and `UserComment`; of XMP all simple
    properties and lists, the latter by their first item, as `{namespace}name`; of a PNG its texts by keyword.
    """

    exif: dict[str, str] = field(default_factory=dict)
    xmp: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def read_metadata(file: BinaryIO) -> Metadata:
    """Read what an image file says of itself; whatever is wrong with it, this raises nothing but OSError."""
    file.seek(0)
    head = file.read(16)
    return _of_png(file) if head.startswith(png.SIGNATURE) else _by_pillow(file, image_format(head))


def _by_pillow(file: BinaryIO, kind: str) -> Metadata:
    plugin = {"heic": "HEIF"}.get(kind, kind.upper())
    if plugin not in _PILLOW_READS or plugin not in Image.OPEN:
        return Metadata()
    file.seek(0)
    try:
        with Image.open(file, formats=[plugin]) as image:
            xmp = image.info.get("xmp", b"")
            # EXIF is a TIFF within an image of another kind.
            exif = _of_exif(image.getexif()) if kind == "tiff" else _exif(image.info.get("exif", b""))
    except DAMAGED:
        return Metadata()
    return Metadata(exif, _xmp(xmp))


# --- EXIF ------------------------------------------------------------------------------------------------------


def _exif(tiff: bytes) -> dict[str, str]:
    if len(tiff) > LARGEST:
        return {}
    exif = Image.Exif()
    try:
        exif.load(tiff)
        return _of_exif(exif)
    except DAMAGED:
        return {}


def _of_exif(exif: Image.Exif) -> dict[str, str]:
    found = {name: exif.get(tag) for tag, name in _EXIF.items()}
    texts = {name: value for name, value in found.items() if isinstance(value, str)}
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(_USER_COMMENT)
    return texts | ({"UserComment": _comment(comment)} if isinstance(comment, bytes) else {})


def _comment(content: bytes) -> str:
    """A text whose first eight bytes name its encoding."""
    code, text = content[:8], content[8:]
    if code != b"UNICODE\0":
        return text.decode("utf-8", "replace").strip("\0 ")
    # In the byte order of the file, says the standard; writers do as they like. Of Latin text one half is zeros.
    little_endian = text[1::2].count(0) > text[::2].count(0)
    return text.decode("utf-16-le" if little_endian else "utf-16-be", "replace").strip("\0 ")


# --- XMP -------------------------------------------------------------------------------------------------------


class _WithoutDoctype(ElementTree.TreeBuilder):
    """XMP has no document type. One could define entities, which a parser fetches, or blows up to gigabytes."""

    def doctype(self, *_) -> None:
        raise ElementTree.ParseError("a document type")


def _xmp(packet: object) -> dict[str, str]:
    if not isinstance(packet, bytes) or not 0 < len(packet) <= LARGEST:
        return {}
    try:
        root = ElementTree.fromstring(packet.strip(b"\0 \r\n"), ElementTree.XMLParser(target=_WithoutDoctype()))
    except (ElementTree.ParseError, ValueError, LookupError):  # the others: of an encoding that nobody knows
        return {}
    rdf = root if root.tag == f"{_RDF}RDF" else root.find(f"{_RDF}RDF")
    found = {}
    for description in [] if rdf is None else rdf.findall(f"{_RDF}Description"):
        found |= description.attrib
        found |= {part.tag: _text(part) for part in description}
    return found


def _text(part: ElementTree.Element) -> str:
    """The text of a property: its own, that of a resource it names, or that of the first item of a list."""
    item = part.find(f"*/{_RDF}li")
    own = part if item is None else item
    return (own.text or "").strip() or own.get(f"{_RDF}resource", "")


# --- PNG -------------------------------------------------------------------------------------------------------


def _of_png(file: BinaryIO) -> Metadata:
    exif, texts = b"", {}
    for kind, length in png.chunks(file):
        if length > LARGEST or len(texts) == _MOST_TEXTS:
            continue
        if kind == b"eXIf":
            exif = exif or file.read(length)
        elif kind in _TEXTS:
            keyword, _, rest = file.read(length).partition(b"\0")
            if keyword not in texts:
                texts[keyword] = _TEXTS[kind](rest)
    xmp = texts.pop(b"XML:com.adobe.xmp", b"")
    return Metadata(_exif(exif), _xmp(xmp), {name.decode("latin-1"): _decoded(text) for name, text in texts.items()})


def _packed(rest: bytes) -> bytes:
    return _unpacked(rest[1:])


def _international(rest: bytes) -> bytes:
    parts = rest[2:].split(b"\0", 2)  # the language, the keyword in it, the text
    if len(parts) < 3:
        return b""
    return _unpacked(parts[2]) if rest[:1] == b"\1" else parts[2]


_TEXTS = {b"tEXt": bytes, b"zTXt": _packed, b"iTXt": _international}


def _unpacked(packed: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(packed, LARGEST)
    except zlib.error:
        return b""
    return b"" if stream.unconsumed_tail else content


def _decoded(text: bytes) -> str:
    """Latin-1 says the standard for two of the three kinds of text, and UTF-8 is what is written into them."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
