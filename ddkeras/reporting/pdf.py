"""Documents as PDF."""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from xml.sax.saxutils import escape

from reportlab import rl_config
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import BaseDocTemplate, Flowable, Frame, Image, PageTemplate, Spacer
from reportlab.platypus import Paragraph as Text
from reportlab.platypus import Table as Grid

from ddkeras.reporting.document import (
    Block,
    Document,
    Drawings,
    Facts,
    Heading,
    Paragraph,
    Pictures,
    Points,
    Table,
    printable,
    shortened,
)
from ddkeras.reporting.figures import FONTS
from ddkeras.reporting.palette import PAPER

rl_config.useA85 = 0  # bytes as they are: as text they are a quarter more, and take as long as all the rest

_MARGIN = 16 * mm
_WIDTH = A4[0] - 2 * _MARGIN
_GAP = 3 * mm  # between what stands side by side
_PAD = 2 * mm  # on the right of a cell
_LEAST = 24 * mm  # what a column of text is narrowed to before the letters get smaller
_SMALLEST = 5.5  # points
_PICTURES = 6  # in a row
_FONT, _BOLD = "DejaVuSans", "DejaVuSans-Bold"  # which reach far beyond Latin; paths need that


def render(document: Document) -> bytes:
    """A document as a PDF on A4, its sections in the outline."""
    _register_fonts()
    buffer = io.BytesIO()
    made = _Pages(buffer, document.title)
    head = [Text(_safe(document.title), _style("h1")), Text(_safe(document.about), _style("dim"))]
    made.build(head + [flowable for block in document.blocks for flowable in _RENDERERS[type(block)](block)])
    return buffer.getvalue()


class _Pages(BaseDocTemplate):
    """A4 with the title and the number of the page below, and an outline."""

    def __init__(self, buffer: io.BytesIO, title: str):
        edges = dict.fromkeys(("leftMargin", "rightMargin", "topMargin", "bottomMargin"), _MARGIN)
        self._below = shortened(printable(title))
        super().__init__(buffer, pagesize=A4, title=printable(title), author="ddkeras", lang="en", **edges)
        frame = Frame(_MARGIN, _MARGIN, _WIDTH, A4[1] - 2 * _MARGIN, 0, 0, 0, 0)
        self.addPageTemplates(PageTemplate(frames=[frame], onPage=self._number))

    def _number(self, canvas, _) -> None:
        canvas.setFont(_FONT, 7)
        canvas.setFillColor(PAPER["dim"])
        canvas.drawString(_MARGIN, 9 * mm, self._below)
        canvas.drawRightString(A4[0] - _MARGIN, 9 * mm, f"page {canvas.getPageNumber()}")

    def afterFlowable(self, flowable: Flowable) -> None:  # noqa: N802  as ReportLab calls it
        if isinstance(flowable, Text) and flowable.style.name == "h2":
            key = f"section{id(flowable)}"
            self.canv.bookmarkPage(key)
            self.canv.addOutlineEntry(flowable.getPlainText(), key)


@cache
def _register_fonts() -> None:
    for name in (_FONT, _BOLD):
        pdfmetrics.registerFont(TTFont(name, str(FONTS / f"{name}.ttf")))
    pdfmetrics.registerFontFamily(_FONT, normal=_FONT, bold=_BOLD, italic=_FONT, boldItalic=_BOLD)


@cache
def _style(name: str) -> ParagraphStyle:
    ink, dim = {"textColor": PAPER["ink"]}, {"textColor": PAPER["dim"]}
    title = {"fontName": _BOLD, "keepWithNext": True, **ink}
    looks = {
        "h1": {"fontSize": 16, "leading": 20, "spaceAfter": 4, **title},
        "h2": {"fontSize": 12.5, "leading": 16, "spaceBefore": 16, "spaceAfter": 4, **title},
        "h3": {"fontSize": 9.5, "leading": 12, "spaceBefore": 9, "spaceAfter": 3, **title},
        "text": {"fontSize": 9, "leading": 12.5, "spaceAfter": 4, **ink},
        "dim": {"fontSize": 8, "leading": 11, "spaceAfter": 4, **dim},
        "point": {"fontSize": 9, "leading": 12.5, "spaceAfter": 4, "leftIndent": 34, "firstLineIndent": -34, **ink},
        "bullet": {"fontSize": 9, "leading": 12.5, "spaceAfter": 3, "leftIndent": 10, "firstLineIndent": -10, **ink},
        "fact": {"fontName": _BOLD, "fontSize": 14, "leading": 18, **ink},
        "small": {"fontSize": 7.5, "leading": 9.5, **ink},
        "caption": {"fontSize": 6.5, "leading": 8, **dim},
    }
    return ParagraphStyle(name, **({"fontName": _FONT} | looks[name]))


def _safe(text: str) -> str:
    """What shows the text where ReportLab looks for markup."""
    return escape(printable(text))


# --- blocks ----------------------------------------------------------------------------------------------------


def _heading(block: Heading) -> Iterator[Flowable]:
    yield Text(_safe(block.text), _style(f"h{block.level}"))


def _paragraph(block: Paragraph) -> Iterator[Flowable]:
    yield Text(_safe(block.text), _style("dim" if block.is_dim else "text"))


def _facts(block: Facts) -> Iterator[Flowable]:
    cells = [
        [Text(_safe(text), _style(look)) for text, look in zip(fact, ("fact", "small", "caption"), strict=True)]
        for fact in block.items
    ]
    look = [("BOX", (index, 0), (index, 0), 0.5, PAPER["line"]) for index in range(len(cells))]
    yield Spacer(0, 4)
    look.append(("VALIGN", (0, 0), (-1, -1), "TOP"))
    yield Grid([cells], colWidths=[_WIDTH / len(cells)] * len(cells), style=look)
    yield Spacer(0, 6)


def _points(block: Points) -> Iterator[Flowable]:
    for verdict, text in block.items:
        if verdict:
            colour = PAPER.get(verdict, PAPER["dim"])
            mark = f'<font color="{colour}" size="7.5"><b>{_safe(verdict.upper())}</b></font>'
            # A tab stop, as it were: the mark, then the text where the lines that follow begin.
            width = pdfmetrics.stringWidth(printable(verdict.upper()), _BOLD, 7.5)
            blanks = round((34 - width) / pdfmetrics.stringWidth("\N{NO-BREAK SPACE}", _FONT, 9))
            yield Text(mark + "\N{NO-BREAK SPACE}" * blanks + _safe(text), _style("point"))
        else:
            yield Text(f"\N{BULLET}\N{NO-BREAK SPACE} {_safe(text)}", _style("bullet"))


def _table(block: Table) -> Iterator[Flowable]:
    rows = [[printable(text) for text in row] for row in (block.header, *block.rows)]
    is_number = [name in block.numbers for name in block.header]
    widths, size = _widths(rows, is_number)
    cells = [
        [_cell(text, right, size, row is rows[0]) for text, right in zip(row, is_number, strict=True)] for row in rows
    ]
    look = [
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, PAPER["line"]),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), _PAD),
        ("TOPPADDING", (0, 0), (-1, -1), 1.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
    ]
    if len(rows) < 20:
        look.append(("NOSPLIT", (0, 0), (-1, -1)))
    yield Grid(cells, colWidths=widths, repeatRows=1, hAlign="LEFT", style=look, spaceAfter=4)


def _widths(rows: Sequence[Sequence[str]], is_number: Sequence[bool]) -> tuple[list[float], float]:
    """Of columns as wide as their text, or where there is no room for that narrower, and the size of the letters."""
    fonts, size = [_BOLD] + [_FONT] * (len(rows) - 1), 8.0
    while True:
        widths = [
            max(pdfmetrics.stringWidth(text, font, size) for text, font in zip(column, fonts, strict=True)) + _PAD + 1
            for column in zip(*rows, strict=True)
        ]
        texts = [width for width, right in zip(widths, is_number, strict=True) if not right]
        most = _widest(texts, _WIDTH - (sum(widths) - sum(texts)))
        if most >= min(_LEAST, max(texts, default=0)) or size <= _SMALLEST:
            shown = [width if right else min(width, most) for width, right in zip(widths, is_number, strict=True)]
            shrunk = min(1, _WIDTH / sum(shown))
            return [shrunk * width for width in shown], size
        size -= 0.5


def _widest(widths: Sequence[float], room: float) -> float:
    """What columns are to be cut to in order to fit; those that are narrower keep their width."""
    for index, width in enumerate(sorted(widths)):
        share = room / (len(widths) - index)
        if width > share:
            return max(share, 1)
        room -= width
    return max(widths, default=0)


def _cell(text: str, is_number: bool, size: float, is_head: bool) -> Flowable:
    colour = PAPER["dim" if is_head else "ink"]
    look = {"fontName": _BOLD if is_head else _FONT, "fontSize": size, "leading": 1.25 * size, "textColor": colour}
    return Text(escape(text), ParagraphStyle("cell", alignment=TA_RIGHT if is_number else 0, **look))


def _drawings(block: Drawings) -> Iterator[Flowable]:
    cells = [[_picture(drawing.png, (_WIDTH - _GAP) / 2)] for drawing in block.items]
    yield from _in_rows(cells, 2)


def _pictures(block: Pictures) -> Iterator[Flowable]:
    side = (_WIDTH - (_PICTURES - 1) * _GAP) / _PICTURES
    cells = []
    for path, text, jpeg in block.items:
        shown = _picture(jpeg, side, side) if jpeg else Text("no picture", _style("caption"))
        cells.append([shown, Spacer(0, 2), Text(f"{_safe(text)}<br/>{_safe(shortened(path))}", _style("caption"))])
    yield from _in_rows(cells, _PICTURES)


def _picture(encoded: bytes, width: float, height: float | None = None) -> Image:
    """As large as fits into that width and height, in its own proportions."""
    across, down = ImageReader(io.BytesIO(encoded)).getSize()
    scale = width / across if height is None else min(width / across, height / down)
    return Image(io.BytesIO(encoded), scale * across, scale * down, hAlign="LEFT")


def _in_rows(cells: list[list[Flowable]], columns: int) -> Iterator[Flowable]:
    """A grid for each row, so that a heading is kept with the first of them alone."""
    width = (_WIDTH + _GAP) / columns  # the last gap is beyond the margin
    look = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), _GAP),
        ("TOPPADDING", (0, 0), (-1, -1), 2),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 4),
    ]
    padded = [*cells, *[""] * (-len(cells) % columns)]
    for begin in range(0, len(padded), columns):
        yield Grid([padded[begin : begin + columns]], colWidths=[width] * columns, hAlign="LEFT", style=look)


_RENDERERS: dict[type, Callable[[Block], Iterator[Flowable]]] = {
    Heading: _heading,
    Paragraph: _paragraph,
    Facts: _facts,
    Points: _points,
    Table: _table,
    Drawings: _drawings,
    Pictures: _pictures,
}
