"""One record a line: CSV (RFC 4180) and NDJSON."""

import csv
import io
from collections.abc import Iterable, Iterator

import msgspec

from chalicelib.formats.rows import BasicRow, FullRow

_encode = msgspec.json.Encoder().encode
# what a spreadsheet takes for the beginning of a formula, in both widths
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def csv_lines(rows: Iterable[BasicRow], view: str) -> Iterator[bytes]:
    """The header line, then a line for each row. What is not known is empty; tags are a JSON object."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)               # commas, quotes where needed, CRLF

    def line(cells: Iterable[object]) -> bytes:
        text.seek(0)
        text.truncate()
        writer.writerow(cells)
        return text.getvalue().encode()

    names = (FullRow if view == "full" else BasicRow).__struct_fields__
    yield line(names)
    for row in rows:
        yield line([_cell(getattr(row, name)) for name in names])


def _cell(value: object) -> object:
    if isinstance(value, dict):
        return _encode(value).decode()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def json_lines(rows: Iterable[BasicRow]) -> Iterator[bytes]:
    for row in rows:
        yield _encode(row) + b"\n"
