"""Changes as callers see them: each with the fields that changed, under the names and in the form of a list's rows."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from ...errors import TooLarge
from ...fleet.changes import Event, History, SourceHistory
from ...fleet.many_sources import Answer
from ...fleet.query import MOST, Query
from ...model import Server, Window, titles
from . import lines, too_many_sources
from .rows import FullRow, full_rows

# fields of Server that a row calls otherwise
SHOWN_AS = {"name": "instance_name", "cpu": "cpu_num", "memory_mib": "mem_size", "disk_gib": "disk_size",
          "lan_ipv4": "lan_ip_set", "wan_ipv4": "wan_ip_set", "lan_ipv6": "lan_ipv6_set", "wan_ipv6": "wan_ipv6_set",
          "created_at": "create_at", "security_groups": "security_group_set"}
SERVER_FIELDS = {shown: field for field, shown in SHOWN_AS.items()}
_NOT_SHOWN = ("update_at", "seen_at")       # they say when, as `at` does
_CERTAIN = {name for name in Server.__struct_fields__ if SHOWN_AS.get(name, name) in FullRow.__struct_fields__} - {
    "memory_mib", "created_at", "expires_at"}                   # a change of these shows; the three are rounded
_AROUND = 2000                              # bytes of an answer beside its changes, sources and msg
_encode = msgspec.json.Encoder().encode


class ChangeEvent(msgspec.Struct, gc=False):
    """`at`: RFC 3339 in UTC, when the listing that shows the change began; it can be passed as `since`. `fields`: only
    for `changed`, each field's value before and after, both null if they were not recorded. `instance_name`: null if it
    was not recorded."""

    at: str
    kind: str
    tenant_id: str
    party: str
    account: str
    region: str
    instance_id: str
    instance_name: str | None
    fields: dict[str, tuple[Any, Any]] | msgspec.UnsetType = msgspec.UNSET


class ChangesSource(msgspec.Struct):
    """Up to when a source's changes are known. `state`: `failed` if it was never listed, `stale` if the last listing
    failed. `count`: how many of its changes fit the query; `age`: of its snapshot, in seconds; `since`: when it was
    first listed, in RFC 3339; all three null if it was never listed. `error`: the error code, "" if there is none."""

    party: str
    region: str
    state: str
    count: int | None
    age: int | None
    error: str
    msg: str
    tenant_id: str
    account: str
    since: str | None


class ChangesBody(msgspec.Struct):
    """`changes`: oldest first."""

    code: int
    msg: str
    changes: list[ChangeEvent]
    sources: list[ChangesSource]


class WrittenChanges(msgspec.Struct, frozen=True):
    """`total`: how many changes the whole answer holds."""

    body: bytes
    etag: str
    total: int


def write_changes(history: History, query: Query, zone: ZoneInfo, now: float, most: int | None) -> WrittenChanges:
    """The changes of the query's window, in its format. No more of them is held than fits the answer.

    Raises TooLarge if the answer is longer than `most`, as formats.carried() counts.
    """
    counts = dict.fromkeys((it.source for it in history.sources), 0)
    text = message(history, now)
    digest, pieces, size = hashlib.sha256(query.format.encode()), list[bytes](), _AROUND
    if query.format == "json":
        size += _carried(_encode(([_source(it, MOST, now) for it in history.sources], text)))
        if most is not None and size > most:
            raise too_many_sources(len(history.sources))
    total = 0
    for event in _shown(history.events()):
        total += 1
        counts[event.source] += 1
        if not _is_in(query.window, total):
            continue
        piece = _piece(_row(event, zone), query.format)
        digest.update(piece)
        size += _carried(piece)
        if most is not None and size > most:
            raise _too_large(query, len(pieces))
        pieces.append(piece)
    sources = [_source(it, counts[it.source], now) for it in history.sources]
    for source in sources:
        digest.update(_encode((source.tenant_id, source.party, source.account, source.region, source.state,
                               source.count, source.error)))
    body = _join(pieces, query.format, sources, text)
    return WrittenChanges(body, f'W/"{digest.hexdigest()[:32]}"', total)


def message(history: History, now: float) -> str:
    """The text for `msg`: for which sources changes may be missing, and why."""
    never = [it for it in history.sources if it.head is None]
    title = titles(it.source for it in history.sources)
    texts = [f"{title(it.source)}: the last listing failed, so changes after its snapshot of "
             f"{_age(it, now)} s ago are not known. {it.failure.text}"
             for it in history.sources if it.head and it.failure]
    if len(never) == 1:
        texts.append(f"{title(never[0].source)}: never listed, so no changes of it are known.")
    elif never:
        texts.append(f"{len(never)} sources were never listed, so no changes of them are known.")
    return " ".join(texts)


def fields_of(event: Event, zone: ZoneInfo) -> dict[str, tuple[Any, Any]]:
    """What differs in the rows of the server before and after, by the names of their fields."""
    pairs = {name: pair for name, pair in event.fields.items() if pair is not None}
    with suppress(msgspec.ValidationError):                     # of a version whose fields have another form
        before, after = full_rows(Answer(event.source, [_server(event, pairs, n) for n in (0, 1)], 2, 0.0), zone)
        shown = {name: (old, new) for name in FullRow.__struct_fields__ if name not in _NOT_SHOWN
                 and (old := getattr(before, name)) != (new := getattr(after, name))}
        return shown | _unknown(name for name, pair in event.fields.items() if pair is None)
    return _unknown(event.fields)


def _server(event: Event, pairs: Mapping[str, tuple[Any, Any]], which: int) -> Server:
    values = {name: pair[which] for name, pair in pairs.items()}
    return msgspec.convert({"name": event.name or "", **values, "id": event.id}, Server)


def _unknown(names: Iterable[str]) -> dict[str, tuple[None, None]]:
    return {SHOWN_AS.get(name, name): (None, None) for name in names}


def _shown(events: Iterable[Event]) -> Iterator[Event]:
    """Without changes that no field of a row shows, such as 1 MiB more memory of the same GB."""
    for event in events:
        if not event.fields or not _CERTAIN.isdisjoint(event.fields) or fields_of(event, _UTC):
            yield event


def _is_in(window: Window, position: int) -> bool:
    return window.first <= position and (window.last is None or position <= window.last)


def _row(event: Event, zone: ZoneInfo) -> ChangeEvent:
    source = event.source
    row = ChangeEvent(_instant(event.at), event.kind, source.tenant_id, source.party, source.account, source.region,
                      event.id, event.name)
    if event.kind == "changed":
        row.fields = fields_of(event, zone)
    return row


def _instant(at: str) -> str:
    seconds, _, micros = at.partition(".")
    return f"{datetime.fromtimestamp(int(seconds), UTC):%Y-%m-%dT%H:%M:%S}.{micros}Z"


def _source(it: SourceHistory, count: int, now: float) -> ChangesSource:
    return ChangesSource(it.source.party, it.source.region, it.state, count if it.head else None, _age(it, now),
                         it.failure.code if it.failure else "", it.failure.text if it.failure else "",
                         it.source.tenant_id, it.source.account, _instant(f"{it.head.since:.6f}") if it.head else None)


def _age(it: SourceHistory, now: float) -> int | None:
    return max(0, int(now) - int(it.head.seen_at)) if it.head else None


# ---------------------------------------------------------------- as bytes

_UTC = ZoneInfo("UTC")
_COLUMNS = ChangeEvent.__struct_fields__


def _piece(row: ChangeEvent, written: str) -> bytes:
    if written == "csv":
        return b"".join(lines.table(_COLUMNS, [{name: _cell(getattr(row, name)) for name in _COLUMNS}], header=False))
    return _encode(row) + (b"\n" if written == "ndjson" else b"")


def _cell(value: object) -> object:
    return None if value is msgspec.UNSET else value


def _join(pieces: Sequence[bytes], written: str, sources: Sequence[ChangesSource], text: str) -> bytes:
    if written == "ndjson":
        return b"".join(pieces)
    if written == "csv":
        return b"".join([*lines.table(_COLUMNS, []), *pieces])
    return b"".join((b'{"code":200,"msg":', _encode(text), b',"changes":[', b",".join(pieces), b'],"sources":',
                     _encode(sources), b"}"))


def _carried(piece: bytes) -> int:
    """How long a piece is inside a Lambda's answer, where it is part of a JSON string; with a comma."""
    return len(_encode(piece.decode())) - 1


def _too_large(query: Query, fits: int) -> TooLarge:
    first = query.window.first
    return TooLarge("These changes exceed the platform's limit for one answer. Request a range: "
                    f"f={first}&t={first + max(fits, 1) - 1} fits.")
