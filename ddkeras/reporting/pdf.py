"""Documents as PDF."""

import io
import math
from collections.abc import Iterator, Sequence
from functools import cache, singledispatch
from xml.sax.saxutils import escape

from reportlab import rl_config
from reportlab.lib.enums import TA_LEFT, TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
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
from ddkeras.reporting.fonts import FONTS
from ddkeras.reporting.palette import PAPER

rl_config.useA85 = 0  # ASCII85 would make files a quarter larger, and take as long as everything else

_MARGIN = 16 * mm
_WIDTH = A4[0] - 2 * _MARGIN
_GAP = 3 * mm  # between items side by side
_PAD = 2 * mm  # on the right of a cell
_MIN_TEXT_COLUMN = 24 * mm  # columns of text are narrowed down to this before the font gets smaller
_FONT_SIZE, _MIN_FONT_SIZE = 8.0, 5.5  # of tables, points
_POINT_INDENT = 34  # points
_DRAWINGS_PER_ROW, _PICTURES_PER_ROW = 2, 6
_UNSPLIT_ROWS = 20  # tables with fewer rows are kept on one page
_FONT, _BOLD = "DejaVuSans", "DejaVuSans-Bold"  # paths need characters far beyond Latin


def render(document: Document) -> bytes:
    """Render a document as a PDF on A4, with its sections in the outline."""
    _register_fonts()
    buffer = io.BytesIO()
    head = [Text(_escaped(document.title), _style("h1")), Text(_escaped(document.about), _style("dim"))]
    body = [flowable for block in document.blocks for flowable in _flowables(block)]
    _Template(buffer, document.title).build(head + body)
    return buffer.getvalue()


class _Template(BaseDocTemplate):
    """A4 pages with title and page number in the footer, and an outline."""

    def __init__(self, buffer: io.BytesIO, title: str):
        margins = dict.fromkeys(("leftMargin", "rightMargin", "topMargin", "bottomMargin"), _MARGIN)
        self._footer = shortened(printable(title))
        super().__init__(buffer, pagesize=A4, title=printable(title), author="ddkeras", lang="en", **margins)
        frame = Frame(_MARGIN, _MARGIN, _WIDTH, A4[1] - 2 * _MARGIN, 0, 0, 0, 0)
        self.addPageTemplates(PageTemplate(frames=[frame], onPage=self._draw_footer))

    def _draw_footer(self, canvas: Canvas, _: BaseDocTemplate) -> None:
        canvas.setFont(_FONT, 7)
        canvas.setFillColor(PAPER["dim"])
        canvas.drawString(_MARGIN, 9 * mm, self._footer)
        canvas.drawRightString(A4[0] - _MARGIN, 9 * mm, f"page {canvas.getPageNumber()}")

    def afterFlowable(self, flowable: Flowable) -> None:  # noqa: N802  ReportLab's name
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
    options = {
        "h1": {"fontSize": 16, "leading": 20, "spaceAfter": 4, **title},
        "h2": {"fontSize": 12.5, "leading": 16, "spaceBefore": 16, "spaceAfter": 4, **title},
        "h3": {"fontSize": 9.5, "leading": 12, "spaceBefore": 9, "spaceAfter": 3, **title},
        "text": {"fontSize": 9, "leading": 12.5, "spaceAfter": 4, **ink},
        "dim": {"fontSize": 8, "leading": 11, "spaceAfter": 4, **dim},
        "point": {"fontSize": 9, "leading": 12.5, "spaceAfter": 4, **_hanging(_POINT_INDENT), **ink},
        "bullet": {"fontSize": 9, "leading": 12.5, "spaceAfter": 3, **_hanging(10), **ink},
        "fact": {"fontName": _BOLD, "fontSize": 14, "leading": 18, **ink},
        "small": {"fontSize": 7.5, "leading": 9.5, **ink},
        "caption": {"fontSize": 6.5, "leading": 8, **dim},
    }
    return ParagraphStyle(name, **({"fontName": _FONT} | options[name]))


def _hanging(indent: float) -> dict[str, float]:
    """All lines but the first are indented."""
    return {"leftIndent": indent, "firstLineIndent": -indent}


def _escaped(text: str) -> str:
    """Text as ReportLab's markup."""
    return escape(printable(text))


# --- blocks ----------------------------------------------------------------------------------------------------


@singledispatch
def _flowables(block: Block) -> Iterator[Flowable]:
    raise TypeError(f"blocks of type {type(block).__name__} cannot be rendered")


@_flowables.register
def _heading(block: Heading) -> Iterator[Flowable]:
    yield Text(_escaped(block.text), _style(f"h{block.level}"))


@_flowables.register
def _paragraph(block: Paragraph) -> Iterator[Flowable]:
    yield Text(_escaped(block.text), _style("dim" if block.is_dim else "text"))


@_flowables.register
def _facts(block: Facts) -> Iterator[Flowable]:
    cells = [
        [Text(_escaped(text), _style(name)) for text, name in zip(fact, ("fact", "small", "caption"), strict=True)]
        for fact in block.items
    ]
    boxes = [("BOX", (index, 0), (index, 0), 0.5, PAPER["line"]) for index in range(len(cells))]
    yield Spacer(0, 4)
    style = [*boxes, ("VALIGN", (0, 0), (-1, -1), "TOP")]
    yield Grid([cells], colWidths=[_WIDTH / len(cells)] * len(cells), style=style)
    yield Spacer(0, 6)


@_flowables.register
def _points(block: Points) -> Iterator[Flowable]:
    for verdict, text in block.items:
        if verdict:
            colour = PAPER.get(verdict, PAPER["dim"])
            mark = f'<font color="{colour}" size="7.5"><b>{_escaped(verdict.upper())}</b></font>'
            # ReportLab has no tab stops: blanks put the text where its other lines start.
            width = pdfmetrics.stringWidth(printable(verdict.upper()), _BOLD, 7.5)
            blanks = round((_POINT_INDENT - width) / pdfmetrics.stringWidth("\N{NO-BREAK SPACE}", _FONT, 9))
            yield Text(mark + "\N{NO-BREAK SPACE}" * blanks + _escaped(text), _style("point"))
        else:
            yield Text(f"\N{BULLET}\N{NO-BREAK SPACE} {_escaped(text)}", _style("bullet"))


@_flowables.register
def _table(block: Table) -> Iterator[Flowable]:
    rows = [[printable(text) for text in row] for row in (block.header, *block.rows)]
    is_number = [name in block.numbers for name in block.header]
    widths, font_size = _fit_columns(rows, is_number)
    cells = [
        [_cell(text, right, font_size, row is rows[0]) for text, right in zip(row, is_number, strict=True)]
        for row in rows
    ]
    style: list[tuple] = [
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, PAPER["line"]),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), _PAD),
        ("TOPPADDING", (0, 0), (-1, -1), 1.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
    ]
    if len(rows) < _UNSPLIT_ROWS:
        style.append(("NOSPLIT", (0, 0), (-1, -1)))
    yield Grid(cells, colWidths=widths, repeatRows=1, hAlign="LEFT", style=style, spaceAfter=4)


def _fit_columns(rows: Sequence[Sequence[str]], is_number: Sequence[bool]) -> tuple[list[float], float]:
    """Column widths and font size with which a table, its header first, fits on the page.

    Columns are as wide as their text if there is space; otherwise those of text are narrowed and wrap.
    """
    fonts, font_size = [_BOLD] + [_FONT] * (len(rows) - 1), _FONT_SIZE
    while True:
        widths = [
            max(pdfmetrics.stringWidth(text, font, font_size) for text, font in zip(column, fonts, strict=True))
            + _PAD
            + 1
            for column in zip(*rows, strict=True)
        ]
        text_widths = [width for width, right in zip(widths, is_number, strict=True) if not right]
        limit = _width_limit(text_widths, _WIDTH - (sum(widths) - sum(text_widths)))
        if limit >= min(_MIN_TEXT_COLUMN, max(text_widths, default=0)) or font_size <= _MIN_FONT_SIZE:
            fitted = [width if right else min(width, limit) for width, right in zip(widths, is_number, strict=True)]
            scale = min(1, _WIDTH / sum(fitted))
            return [scale * width for width in fitted], font_size
        font_size -= 0.5


def _width_limit(widths: Sequence[float], available: float) -> float:
    """The width to which columns have to be cut to fit; narrower ones keep theirs."""
    for index, width in enumerate(sorted(widths)):
        share = available / (len(widths) - index)
        if width > share:
            return max(share, 1)
        available -= width
    return max(widths, default=0)


def _cell(text: str, is_number: bool, font_size: float, is_header: bool) -> Flowable:
    style = ParagraphStyle(
        "cell",
        alignment=TA_RIGHT if is_number else TA_LEFT,
        fontName=_BOLD if is_header else _FONT,
        fontSize=font_size,
        leading=1.25 * font_size,
        textColor=PAPER["dim" if is_header else "ink"],
    )
    return Text(escape(text), style)


@_flowables.register
def _drawings(block: Drawings) -> Iterator[Flowable]:
    width = (_WIDTH - (_DRAWINGS_PER_ROW - 1) * _GAP) / _DRAWINGS_PER_ROW
    cells = [[_image(drawing.png, width)] for drawing in block.items]
    yield from _in_rows(cells, _DRAWINGS_PER_ROW)


@_flowables.register
def _pictures(block: Pictures) -> Iterator[Flowable]:
    side = (_WIDTH - (_PICTURES_PER_ROW - 1) * _GAP) / _PICTURES_PER_ROW
    cells = []
    for path, text, jpeg in block.items:
        image = _image(jpeg, side, side) if jpeg else Text("no picture", _style("caption"))
        caption = Text(f"{_escaped(text)}<br/>{_escaped(shortened(path))}", _style("caption"))
        cells.append([image, Spacer(0, 2), caption])
    yield from _in_rows(cells, _PICTURES_PER_ROW)


def _image(encoded: bytes, max_width: float, max_height: float = math.inf) -> Image:
    """As large as fits, in its own proportions."""
    width, height = ImageReader(io.BytesIO(encoded)).getSize()
    scale = min(max_width / width, max_height / height)
    return Image(io.BytesIO(encoded), scale * width, scale * height, hAlign="LEFT")


def _in_rows(cells: list[list[Flowable]], columns: int) -> Iterator[Flowable]:
    """A grid for each row, so that only the first row is kept with the heading above it."""
    width = (_WIDTH + _GAP) / columns  # the last gap lies in the margin
    style = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), _GAP),
        ("TOPPADDING", (0, 0), (-1, -1), 2),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 4),
    ]
    padded = [*cells, *[[]] * (-len(cells) % columns)]
    for start in range(0, len(padded), columns):
        yield Grid([padded[start : start + columns]], colWidths=[width] * columns, hAlign="LEFT", style=style)
