"""A document as blocks, said once and rendered twice: by `page` as HTML, by `pdf` as PDF.

All text is plain: what has a meaning in HTML or PDF is escaped where it is rendered.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_SHOWN = 90  # characters of a path or name; of one that is longer, the end says most


@dataclass(frozen=True)
class Heading:
    """Of level 2, which begins a section, or 3."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Whole sentences; those that are not needed at first reading are dim."""

    text: str
    is_dim: bool = False


class Fact(NamedTuple):
    """A number that is read at a glance, what it is, and what is to be known of it."""

    value: str
    name: str
    more: str


@dataclass(frozen=True)
class Facts:
    """The few that matter most."""

    items: Sequence[Fact]


class Point(NamedTuple):
    """A sentence, and what is to be thought of it: ok, warn, fail, or nothing."""

    verdict: str
    text: str


@dataclass(frozen=True)
class Points:
    """A list."""

    items: Sequence[Point]


@dataclass(frozen=True)
class Table:
    """Rows of as many cells as the header has; the columns of `numbers` are aligned on the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Collection[str] = ()


@dataclass(frozen=True)
class Drawing:
    """A figure under the name of its file, once as PNG on white and once as SVG in the colours of the page."""

    name: str
    title: str
    png: bytes
    svg: str


@dataclass(frozen=True)
class Drawings:
    """Figures beside each other, as many as there is room for."""

    items: Sequence[Drawing]


class Picture(NamedTuple):
    """An image of the data, as a JPEG where there is one, and what is said of it."""

    path: str
    text: str
    jpeg: bytes | None


@dataclass(frozen=True)
class Pictures:
    """Images beside each other."""

    items: Sequence[Picture]


Block = Heading | Paragraph | Facts | Points | Table | Drawings | Pictures


@dataclass(frozen=True)
class Document:
    """What `page.render` and `pdf.render` take; `about` is the line under the title."""

    title: str
    about: str
    blocks: Sequence[Block]


def printable(text: str) -> str:
    """The text with a mark in place of what cannot be printed, as the bytes of a path that are no UTF-8."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def shortened(text: str, length: int = _SHOWN) -> str:
    """The end of a text that is too long to show."""
    return text if len(text) <= length else "…" + text[1 - length :]
