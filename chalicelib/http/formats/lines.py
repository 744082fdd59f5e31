"""One record a line: CSV (RFC 4180) and NDJSON."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from .rows import BasicRow, FullRow

_encode = msgspec.json.Encoder().encode
# What begins a formula, in every width, where a cell may begin: at its start, and inside it for programs that split at
# another separator or at any line's end. Blanks, control characters and quotes between are passed over, as they may be
# trimmed. The same pattern stands in console/exports.js.
_SIGNS = r"=+\-@\u2212\ufe62\ufe63\ufe66\ufe6b\uff0b\uff0d\uff1d\uff20"
_BREAKS = r",;|\t\n\x0b\f\r\x1c-\x1e\x85\u2028\u2029"
_PASSED = (r'"\x00-\x08\x0e-\x1b\x1f\x20\x7f-\x84\x86-\xa0\xad\u034f\u061c\u1680\u180e\u2000-\u200f\u202a-\u202f'
           r"\u205f-\u206f\u3000\ufeff")
_FORMULA = re.compile(rf"((?:^|[{_BREAKS}])[{_PASSED}]*)([{_SIGNS}])")


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
    """A text gets a `'` before each sign that could begin a formula, and before a tab or a line's end that it begins
    with. In JSON, whose texts hold the only such signs, the sign is written as an escape."""
    if isinstance(value, dict | list):
        return _FORMULA.sub(lambda match: f"{match[1]}\\u{ord(match[2]):04x}", _encode(value).decode())
    if not isinstance(value, str) or not value:
        return value
    return ("'" if value[0] in "\t\r\n" else "") + _FORMULA.sub(r"\1'\2", value)


def json_lines(rows: Iterable[BasicRow]) -> Iterator[bytes]:
    for row in rows:
        yield _encode(row) + b"\n"
