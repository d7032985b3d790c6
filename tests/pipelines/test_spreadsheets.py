import pandas as pd
import pytest

from pipelines import spreadsheets


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("+1.jpg", "'+1.jpg"),
        ("-a.jpg", "'-a.jpg"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("'=1", "''=1"),
        ("'90s.jpg", "'90s.jpg"),
        ("a=b.jpg", "a=b.jpg"),
        ("", ""),
    ],
)
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe_that_reading_removes(text, cell):
    assert spreadsheets.harmless(text) == cell
    assert spreadsheets.original(cell) == text


def test_numbers_are_left_alone():
    assert spreadsheets.harmless(-0.5) == -0.5
    assert spreadsheets.harmless(None) is None
    table = pd.DataFrame({"path": ["=1", "a"], "score": [-0.5, 1.0], "is": [True, False]})
    written = spreadsheets.harmless_table(table).to_csv(index=False)
    assert written == "path,score,is\n'=1,-0.5,True\na,1.0,False\n"
    assert table["path"][0] == "=1"
