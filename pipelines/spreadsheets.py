"""Text in CSV files that people open in a spreadsheet, which would run a cell such as `=HYPERLINK(...)` as a formula.

A file may be named so that its name is a formula, and names are written to most tables. The rule: text that begins
with = + - @, a tab or a carriage return gets an apostrophe in front, by which spreadsheets know text. So that nothing
is lost, text that begins with apostrophes and then one of these gets one more; `original` removes it.
"""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def harmless(cell: Any) -> Any:
    """The cell by the rule above; what is not text is returned as it is."""
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def original(cell: str) -> str:
    """The inverse of `harmless`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def harmless_table(table: "pd.DataFrame") -> "pd.DataFrame":
    """A copy whose text columns, and their names, are `harmless`."""
    import pandas as pd  # noqa: PLC0415  slow to import, and the functions above do without

    copy = table.copy()
    for name in table.select_dtypes(exclude=["number", "bool"]):
        # As objects: pandas' own type for text refuses names of files that are not UTF-8.
        copy[name] = pd.Series(map(harmless, table[name]), table.index, dtype=object)
    return copy.rename(columns=harmless)
