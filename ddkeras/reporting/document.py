"""A document as a list of blocks, rendered by `html` as a page and by `pdf` as a PDF.

All text is plain; the renderers escape what has a meaning in their format.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_MAX_SHOWN = 90  # characters of a path or name


@dataclass(frozen=True)
class Heading:
    """A heading of level 2, which starts a section, or 3."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Whole sentences; what a first reading can skip is dim."""

    text: str
    is_dim: bool = False


class Fact(NamedTuple):
    """A key number, its name, and what qualifies it, such as its interval."""

    value: str
    name: str
    more: str


@dataclass(frozen=True)
class Facts:
    """A row of key numbers."""

    items: Sequence[Fact]


class Point(NamedTuple):
    """A sentence and its verdict: ok, warn, fail, note, or empty."""

    verdict: str
    text: str


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    items: Sequence[Point]


@dataclass(frozen=True)
class Table:
    """Rows with one cell per column; the columns in `numbers` are right-aligned."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Collection[str] = ()


@dataclass(frozen=True)
class Drawing:
    """A figure: as PNG on white, and as SVG in the colours of the page. `name` is its file name without suffix."""

    name: str
    title: str
    png: bytes
    svg: str


@dataclass(frozen=True)
class Drawings:
    """Figures side by side, as many as fit."""

    items: Sequence[Drawing]


class Picture(NamedTuple):
    """An image of the data set: its path, its caption, and a JPEG if there is one."""

    path: str
    text: str
    jpeg: bytes | None


@dataclass(frozen=True)
class Pictures:
    """Images side by side."""

    items: Sequence[Picture]


Block = Heading | Paragraph | Facts | Points | Table | Drawings | Pictures


@dataclass(frozen=True)
class Document:
    """What `html.render` and `pdf.render` take; `about` is the line below the title."""

    title: str
    about: str
    blocks: Sequence[Block]


def printable(text: str) -> str:
    """Replace the characters that cannot be printed, such as the bytes of a path that are not UTF-8."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def shortened(text: str, length: int = _MAX_SHOWN) -> str:
    """Cut a long text at its start: the end of a path says most."""
    return text if len(text) <= length else "…" + text[1 - length :]
