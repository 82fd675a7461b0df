"""Tables as comma-separated values that are safe to open in a spreadsheet, whatever names are in them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

# What spreadsheets take a cell for a formula by, also behind white space; their wide forms, too.
FORMULA_STARTS = tuple("=+-@|%\t\r\n＝＋－＠")


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    """The lines of a table, RFC 4180 but for their ends, without the last one. Texts get a `'` where they need it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # else a lone \r is not quoted
    writer.writerow(header)
    for row in rows:
        writer.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in row])
    return out.getvalue().removesuffix("\n")


def safe_cell(text: str) -> str:
    """`text` as a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) or text.lstrip().startswith(FORMULA_STARTS) else text
