"""What all our pages share, and documents as one of them.

A page is one HTML file that needs nothing else: no network, no script, light or dark as the reader likes it.
"""

import base64
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from html import escape

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
from ddkeras.reporting.palette import DARK, LIGHT, PAPER


def _colours(palette: Mapping[str, str]) -> str:
    return "".join(f" --{name}: {colour};" for name, colour in palette.items())


_STYLE = (
    f":root {{ color-scheme: light dark;{_colours(LIGHT)} }}\n"
    f"@media (prefers-color-scheme: dark) {{ :root {{{_colours(DARK)} }} }}\n"
    f"@media print {{ :root {{ color-scheme: light;{_colours(PAPER)} }} }}\n"
    """* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 2rem 1.25rem 4rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p, ul { margin: .5rem 0; max-width: 48rem; }
.dim, caption, th { color: var(--dim); }
.verdict { border: 1px solid var(--line); border-left: .4rem solid; border-radius: .4rem; background: var(--card);
  padding: .9rem 1.1rem; margin: 1.25rem 0; }
.verdict p { color: var(--ink); margin: 0; max-width: none; }
.verdict strong { text-transform: uppercase; letter-spacing: .04em; }
.ok { color: var(--ok); } .warn { color: var(--warn); } .fail { color: var(--fail); }
.note { color: var(--dim); }
.findings { list-style: none; padding: 0; max-width: none; }
.findings li { padding: .6rem 0; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
code { font: 0.9em ui-monospace, "DejaVu Sans Mono", monospace; white-space: nowrap; }
.findings b { display: inline-block; min-width: 3.4rem; text-transform: uppercase; font-size: .85rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .25rem 0; }
th { font-weight: 600; text-align: left; white-space: nowrap; }
td.long { min-width: 18rem; }
th, td { padding: .35rem 1.4rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
tr.head td { font-weight: 600; border-bottom: 0; padding-top: 1rem; }
svg { display: block; overflow: visible; }
svg text { fill: var(--dim); font: 11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: .15em; margin: 0 .35em 0 .8em; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .8rem 1rem; border: 1px solid var(--line); border-radius: .4rem;
  background: var(--card); break-inside: avoid; }
figcaption { font-size: .85rem; color: var(--dim); margin-bottom: .4rem; overflow-wrap: anywhere; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: 1rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; }
.pair img, .pair .none { display: block; width: 160px; height: 160px; max-width: 100%; object-fit: contain;
  background: var(--page); }
.pair .none { display: grid; place-items: center; color: var(--dim); font-size: .8rem; }
.pair div div { font-size: .8rem; overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(10rem, 100%), 1fr)); gap: .8rem;
  margin: 1.25rem 0; }
.facts div { display: grid; align-content: start; padding: .8rem 1rem; border: 1px solid var(--line);
  border-radius: .4rem; background: var(--card); break-inside: avoid; }
.facts b { font-size: 1.6rem; line-height: 1.2; } .facts small { color: var(--dim); }
.drawings { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); gap: 1rem;
  margin: .8rem 0; }
.drawings svg { width: 100%; height: auto; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(9.5rem, 45%), 1fr)); gap: .8rem;
  margin: .8rem 0; }
.pictures figure { padding: .5rem; } .pictures figcaption { margin: .4rem 0 0; font-size: .8rem; }
.pictures img, .pictures .none { display: grid; width: 100%; aspect-ratio: 1; object-fit: contain;
  place-items: center; background: var(--page); color: var(--dim); font-size: .8rem; }
td:first-child { min-width: 7rem; } tr:has(> :nth-child(8)) > * { padding-right: .75rem; } .path { font-size: .9em; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .8rem 0; font-size: .9rem; }
a { color: inherit; }
@media (max-width: 40rem) { th, td { padding-right: .8rem; } }
@media print { html { font-size: 11px; } nav { display: none; } body { padding: 0; }
  .scroll { overflow: visible; } td.long { min-width: 0; }
  h2, h3, tr.head { break-after: avoid; } tr { break-inside: avoid; }
  .charts, .drawings, .pairs { grid-template-columns: 1fr 1fr; } }
"""
)


def whole(title: str, sections: Iterable[str]) -> str:
    """The page that has this title, as text, and these sections, as HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{plain(title)}</title>\n<style>{_STYLE}</style>\n<body>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def plain(text: str) -> str:
    """Text as HTML that shows it, and does no more."""
    return escape(printable(text))


def sentence(text: str) -> str:
    """The same for a sentence that lacks its capital and its full stop."""
    return plain(f"{text[:1].upper()}{text[1:]}.")


def table(header: Iterable[str], rows: Iterable[str], numbers: Collection[str] = ()) -> str:
    """A table of rows that are HTML; the columns of `numbers` are aligned on the right."""
    cells = "".join(f"<th{number(name in numbers)}>{plain(name)}</th>" for name in header)
    body = "\n".join(rows)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def number(is_one: bool) -> str:
    """The attribute of a cell that holds a number."""
    return ' class="number"' if is_one else ""


def thumbnail(jpeg: bytes | None) -> str:
    """A small picture within the page, or its place where there is none."""
    if not jpeg:
        return '<span class="none">no picture</span>'
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'


# --- documents -------------------------------------------------------------------------------------------------


def render(document: Document) -> str:
    """A document as a page."""
    head = f'<h1>{plain(document.title)}</h1>\n<p class="dim">{plain(document.about)}</p>'
    sections = [block.text for block in document.blocks if isinstance(block, Heading) and block.level == 2]
    links = " ".join(f'<a href="#{_anchor(text)}">{plain(text)}</a>' for text in sections)
    return whole(
        document.title,
        [f"{head}\n<nav>{links}</nav>", *(_RENDERERS[type(block)](block) for block in document.blocks)],
    )


def _heading(block: Heading) -> str:
    return f'<h{block.level} id="{_anchor(block.text)}">{plain(block.text)}</h{block.level}>'


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _paragraph(block: Paragraph) -> str:
    dim = ' class="dim"' if block.is_dim else ""
    return f"<p{dim}>{plain(block.text)}</p>"


def _facts(block: Facts) -> str:
    items = [
        f"<div><b>{plain(fact.value)}</b><span>{plain(fact.name)}</span><small>{plain(fact.more)}</small></div>"
        for fact in block.items
    ]
    return f'<div class="facts">{"".join(items)}</div>'


def _points(block: Points) -> str:
    items = "".join(f"<li>{_verdict(point.verdict)}{plain(point.text)}</li>" for point in block.items)
    is_judged = any(point.verdict for point in block.items)
    return f'<ul class="findings">{items}</ul>' if is_judged else f"<ul>{items}</ul>"


def _verdict(verdict: str) -> str:
    return f'<b class="{verdict}">{verdict}</b> ' if verdict else ""


def _table(block: Table) -> str:
    numbers = [name in block.numbers for name in block.header]
    rows = []
    for row in block.rows:
        cells = "".join(_cell(text, is_number) for text, is_number in zip(row, numbers, strict=True))
        rows.append(f"<tr>{cells}</tr>")
    return table(block.header, rows, block.numbers)


def _cell(text: str, is_number: bool) -> str:
    is_long = ' class="long"' if len(text) > 40 else ""  # which a narrow window is not to squeeze
    return f"<td{number(is_number) or is_long}>{plain(text)}</td>"


def _drawings(block: Drawings) -> str:
    return f'<div class="drawings">{"".join(f"<figure>{drawing.svg}</figure>" for drawing in block.items)}</div>'


def _pictures(block: Pictures) -> str:
    items = [
        f'<figure>{thumbnail(jpeg)}<figcaption title="{plain(path)}">{plain(text)}<br>'
        f'<span class="path">{plain(shortened(path))}</span></figcaption></figure>'
        for path, text, jpeg in block.items
    ]
    return f'<div class="pictures">{"".join(items)}</div>'


_RENDERERS: dict[type, Callable[[Block], str]] = {
    Heading: _heading,
    Paragraph: _paragraph,
    Facts: _facts,
    Points: _points,
    Table: _table,
    Drawings: _drawings,
    Pictures: _pictures,
}
