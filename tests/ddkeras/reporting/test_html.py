"""Documents as HTML pages: every kind of block, and whatever text is put into them."""

import os
import re
from typing import get_args

import jinja2
import pytest

from ddkeras.reporting import html
from ddkeras.reporting.document import (
    Block,
    Document,
    Drawing,
    Drawings,
    Fact,
    Facts,
    Heading,
    Paragraph,
    Picture,
    Pictures,
    Point,
    Points,
    Table,
)

SCRIPT = "<script>alert('&')</script>.jpg"
ESCAPED = "&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;.jpg"
DRAWING = Drawing("roc", "ROC curve", b"", '<svg role="img"><path d="M0 0"/></svg>')


def render(*blocks: Block, title: str = "title") -> str:
    return html.render(Document(title, "about", blocks))


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (Heading("How it was (re)measured"), '<h2 id="how-it-was-re-measured">How it was (re)measured</h2>'),
        (Heading("More", 3), '<h3 id="more">More</h3>'),
        (Paragraph("Words."), "<p>Words.</p>"),
        (Paragraph("Words.", is_dim=True), '<p class="dim">Words.</p>'),
        (Facts([Fact("0.9", "AUC", "0.8 to 1")]), "<div><b>0.9</b><span>AUC</span><small>0.8 to 1</small></div>"),
        (Points([Point("", "Words.")]), "<ul>\n<li>Words.</li>\n</ul>"),
        (Points([Point("warn", "Words.")]), '<ul class="findings">\n<li><b class="warn">warn</b> Words.</li>\n</ul>'),
        (Table(["name", "AUC"], [["a", "0.9"]], ["AUC"]), '<tr><td>a</td><td class="number">0.9</td></tr>'),
        (Table(["name"], [["x" * 41]]), f'<tr><td class="long">{"x" * 41}</td></tr>'),
        (Drawings([DRAWING]), f"<figure>{DRAWING.svg}</figure>"),
        (Pictures([Picture("a.jpg", "real", None)]), '<span class="none">no picture</span>'),
        (Pictures([Picture("a.jpg", "real", b"\xff\xd8")]), '<img alt="" src="data:image/jpeg;base64,/9g=">'),
        (Pictures([Picture("d/" * 60, "real", None)]), f'title="{"d/" * 60}"'),
        (Pictures([Picture("d/" * 60, "real", None)]), f'<span class="path">…/{"d/" * 44}</span>'),
    ],
)
def test_each_block_has_its_markup(block, expected):
    assert expected in render(block)


def test_every_kind_of_block_has_a_macro():
    blocks = html.template_environment().get_template("blocks.html.j2").module
    assert all(hasattr(blocks, kind.__name__.lower()) for kind in get_args(Block))


def test_sections_are_linked_at_the_top():
    page = render(Heading("First part"), Heading("a detail", 3), Heading("Second part"))
    assert re.findall(r'<a href="#(.*?)">(.*?)</a>', page) == [
        ("first-part", "First part"),
        ("second-part", "Second part"),
    ]


@pytest.mark.parametrize(
    "block",
    [
        Heading(SCRIPT),
        Paragraph(SCRIPT),
        Facts([Fact(SCRIPT, SCRIPT, SCRIPT)]),
        Points([Point("warn", SCRIPT)]),
        Table([SCRIPT], [[SCRIPT]]),
        Pictures([Picture(SCRIPT, SCRIPT, None)]),
        Pictures([Picture(f'" onerror="{SCRIPT}', "real", None)]),
    ],
)
def test_text_is_escaped(block):
    page = render(block, title=SCRIPT)
    assert "<script" not in page
    assert '" onerror="' not in page
    assert page.count(ESCAPED) >= 3, "title, heading and block"


def test_what_cannot_be_printed_is_replaced():
    page = render(Paragraph(os.fsdecode(b"\xff.jpg")), Paragraph("a\x00\n\tb.jpg"))
    mark = "\N{REPLACEMENT CHARACTER}"
    assert f"<p>{mark}.jpg</p>" in page
    assert f"<p>a{3 * mark}b.jpg</p>" in page
    page.encode()


def test_a_page_loads_nothing_and_is_light_dark_or_for_paper():
    page = render(Paragraph("Words."))
    assert not re.search(r"https?:|url\(|@import|<script|<link", page)
    assert page.index("--ink: #1d2330") < page.index("prefers-color-scheme: dark") < page.index("--ink: #e7eaf0")
    assert page.index("@media print") < page.index("--ink: #000000")


def test_a_name_that_is_not_given_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="'title' is undefined"):
        html.template_environment().get_template("document.html.j2").render(sections=[])
