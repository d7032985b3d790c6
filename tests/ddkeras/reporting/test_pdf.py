"""Documents as PDF, in edge cases."""

from ddkeras.reporting import html, pdf
from ddkeras.reporting.document import Document, Paragraph, Picture, Pictures, Table


def test_a_missing_picture_leaves_a_placeholder():
    document = Document("title", "about", [Pictures([Picture("a.jpg", "real", None)])])
    assert "no picture" in html.render(document)
    assert pdf.render(document).startswith(b"%PDF-")


def test_a_table_that_is_too_wide_and_one_without_rows_are_printed():
    wide = Table([f"column {index}" for index in range(30)], [["words and more words"] * 30] * 3, ["column 1"])
    document = Document("title", "about", [wide, Table(["a"], []), Paragraph("x" * 5000)])
    assert pdf.render(document).startswith(b"%PDF-")
