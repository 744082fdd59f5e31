"""The answers of declared lists: their rows, the total and the next page's cursor, wherever the cloud puts these."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Generic, TypeVar, cast
from urllib.parse import parse_qs, urlsplit

import msgspec

from ..model import Count, Response, Window
from .decoding import Strict, read, reading
from .paging import Rows

T = TypeVar("T")


class Answer(msgspec.Struct, Generic[T], frozen=True):
    """`total`: of the whole list, None if not stated. `cursor`: of the next page, None if none."""

    rows: Sequence[T]
    total: int | None
    cursor: str | None


class _Pagination(msgspec.Struct):
    total_entries: Strict[Count | None] = None


class _Links(msgspec.Struct):
    next: Strict[str | None] = None


class _Meta(msgspec.Struct):
    total: Strict[Count | None] = None
    pagination: Strict[_Pagination | None] = None
    links: Strict[_Links | None] = None


class _Next(msgspec.Struct):
    href: str


@cache
def _shape(key: str, rows: Any) -> Any:
    """The rows must be there; where the total and the next page's cursor are differs from cloud to cloud."""
    if not key:
        return rows
    first, _, below = key.partition(".")
    if below:
        rows = _shape(below, rows)
    return msgspec.defstruct("Answer", [
        ("rows", rows, msgspec.field(name=first)), ("meta", Strict[_Meta | None], None),
        ("results", Strict[Count | None], None), ("total_count", Strict[Count | None], None),
        ("next", Strict[_Next | None], None)])


def read_list(response: Response, key: str, rows: Any) -> Answer[Any]:
    """`key`: where the rows are, "" if the answer is the rows. `rows`: their type, a list or a map by id."""
    with reading():
        answer: Any = read(response, _shape(key, rows))
        if not key:
            return Answer(_in_list(answer), None, None)
        rows = answer
        for _ in key.split("."):
            rows = rows.rows
        return Answer(_in_list(rows), _total(answer, response), _cursor(answer))


def _in_list(rows: Any) -> list[Any]:
    return list(cast(dict[str, Any], rows).items()) if isinstance(rows, dict) else rows


def _total(answer: Any, response: Response) -> int | None:
    meta: _Meta = answer.meta or _Meta()
    header = response.headers.get("x-total-count", "")
    totals = (meta.total, meta.pagination and meta.pagination.total_entries, answer.results, answer.total_count,
              int(header) if re.fullmatch(r"[0-9]{1,9}", header, re.ASCII) else None)
    return next((total for total in totals if total is not None), None)


def _cursor(answer: Any) -> str | None:
    following: _Next | None = answer.next
    if following:
        start = parse_qs(urlsplit(following.href).query).get("start", [""])[0]
        if not start:
            raise ValueError("a next page without its start")
        return start
    meta: _Meta = answer.meta or _Meta()
    return (meta.links and meta.links.next) or None


def keyed(rows: Sequence[T], mapped: bool) -> list[tuple[str, T]]:
    """Rows by their id, or else by their text: those that are alike are numbered."""
    if mapped:
        return [(cast(Any, row)[0], row) for row in rows]
    counts: dict[str, int] = {}
    pairs: list[tuple[str, T]] = []
    for row in rows:
        has_id = hasattr(row, "id")
        key = str(cast(Any, row).id) if has_id else repr(row)
        counts[key] = counts.get(key, 0) + 1
        pairs.append((key if has_id or counts[key] == 1 else f"{key} {counts[key]}", row))
    return pairs


def borne_out(rows: Rows[Any], totals: list[int], window: Window) -> int | None:
    """The total, if the rows bear out what the pages stated; if the list changed meanwhile, as far as that explains."""
    if rows.total is None:
        return totals[-1] if totals[-1] > (window.last or 0) else None
    change = totals[-1] - totals[0]
    return rows.total if totals[0] - change <= rows.total <= totals[-1] + change else None
