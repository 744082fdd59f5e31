"""One record a line: CSV (RFC 4180) and NDJSON."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from chalicelib.formats.rows import BasicRow, FullRow

_encode = msgspec.json.Encoder().encode
# what a spreadsheet takes for the beginning of a formula, in both widths
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def csv_lines(rows: Iterable[BasicRow], view: str) -> Iterator[bytes]:
    """The header line, then a line for each row. What is not known is empty; tags are a JSON object."""
    names = (FullRow if view == "full" else BasicRow).__struct_fields__
    return _lines([names], ([_cell(getattr(row, name)) for name in names] for row in rows))


def table(names: Sequence[str], rows: Iterable[Mapping[str, object]], *, header: bool = True) -> Iterator[bytes]:
    """The same of other records: these columns of them."""
    return _lines([names] if header else [], ([_cell(row[name]) for name in names] for row in rows))


def _lines(*parts: Iterable[Iterable[object]]) -> Iterator[bytes]:
    text = io.StringIO(newline="")
    writer = csv.writer(text)               # commas, quotes where needed, CRLF
    for part in parts:
        for cells in part:
            text.seek(0)
            text.truncate()
            writer.writerow(cells)
            yield text.getvalue().encode()


def _cell(value: object) -> object:
    if isinstance(value, dict | list):
        return _encode(value).decode()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def json_lines(rows: Iterable[BasicRow]) -> Iterator[bytes]:
    for row in rows:
        yield _encode(row) + b"\n"
