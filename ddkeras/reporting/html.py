"""HTML pages: the templates that all of them share, and documents as pages.

A page is one file that opens offline: no network, no script, light or dark as the reader's system prefers.
"""

import base64
import re

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ddkeras.reporting.document import Block, Document, Heading, printable, shortened
from ddkeras.reporting.palette import DARK, LIGHT, PAPER


def template_environment(*packages: str) -> Environment:
    """The templates of `ddkeras.reporting`, and those in the `templates` folders of other packages.

    All text is escaped unless it is `Markup`, and characters that cannot be printed are replaced. A name that a
    template uses and the caller does not give is an error.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in ("ddkeras.reporting", *packages)]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"LIGHT": LIGHT, "DARK": DARK, "PAPER": PAPER}
    environment.filters |= {
        "anchor": _anchor,
        "data_url": _data_url,
        "kind": _kind,
        "sentence": _sentence,
        "shortened": shortened,
        "thousands": "{:,}".format,
    }
    return environment


def render(document: Document) -> str:
    """Render a document as a page."""
    sections = [block.text for block in document.blocks if isinstance(block, Heading) and block.level == 2]
    template = template_environment().get_template("document.html.j2")
    return template.render(title=document.title, document=document, sections=sections)


def _printable(value: object) -> object:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _anchor(heading: str) -> str:
    """The id of a heading's element: `How it was measured` becomes `how-it-was-measured`."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def _data_url(content: bytes, media_type: str) -> Markup:
    """A URL that holds its content, so that the page needs no other file."""
    return Markup(f"data:{media_type};base64,{base64.b64encode(content).decode()}")


def _kind(block: Block) -> str:
    """The name of the macro in `blocks.html.j2` that renders the block."""
    return type(block).__name__.lower()


def _sentence(text: str) -> str:
    """Text with the capital letter and the full stop of a sentence."""
    return f"{text[:1].upper()}{text[1:]}."
