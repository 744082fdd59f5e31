"""Answers as bytes, in each format, and errors, which are JSON in all of them.

JSON is the whole answer. The others are the servers alone, written one after the other, and stop where the platform
could not carry them: no more of a long list is ever held. They have no room to say that something is missing, so they
are complete or an error (query.py refuses what would make them less).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar
from zoneinfo import ZoneInfo

import msgspec

from ...errors import InvalidParameter, PartyError, TooLarge, TwocloudError
from ...fleet.many_sources import Answer, Inventory, SourceResult
from ...fleet.one_source import from_unix
from ...fleet.query import WHOLE_LISTS, Query
from ...model import titles
from . import ansible, lines, prometheus
from .rows import BasicRow, FullRow, clock_in, full_rows, rows

__all__ = ["BasicRow", "FullRow", "rows"]
Row = TypeVar("Row", bound=BasicRow)
MEDIA_TYPES = {"json": "application/json", "csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson",
               "prometheus": "application/json", "ansible": "application/json"}
LARGEST_ANSWER = 6_200_000                  # of the 6 MiB that Lambda carries, counted by carried()
_AROUND = 1000                              # of it, for the answer's headers


class SourceRow(msgspec.Struct, gc=False):
    """What one source gave. `age`: seconds. `error`: the error code, "" if nothing went wrong."""

    party: str
    region: str
    state: str
    count: int | None
    age: int | None
    error: str
    msg: str
    tenant_id: str
    account: str


class VanishedRow(msgspec.Struct):
    instance_id: str
    instance_name: str
    party: str
    region: str
    seen_at: str | None
    vanished_at: str | None
    tenant_id: str
    account: str


class ListBody(msgspec.Struct):
    """`complete` and `sources` with several sources, `vanished` with `changed_since`."""

    code: int
    msg: str
    vm_servers: list[BasicRow]
    complete: bool | msgspec.UnsetType = msgspec.UNSET
    sources: list[SourceRow] | msgspec.UnsetType = msgspec.UNSET
    vanished: list[VanishedRow] | msgspec.UnsetType = msgspec.UNSET


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """An error has no `vm_servers`: a failure never looks like an empty list."""

    code: int
    msg: str
    error: str
    parameter: str | None = None
    request_id: str = ""


class Written(msgspec.Struct, frozen=True):
    """`without_address`: how many servers are no target of Prometheus; None in other formats."""

    body: bytes
    etag: str
    without_address: int | None = None


def write(fleet: Inventory, query: Query, zone: ZoneInfo, most: int | None = LARGEST_ANSWER) -> Written:
    """The answer in the format that was asked for. Raises TooLarge if it is longer than `most`, as carried() counts."""
    if query.format == "json":
        made = body(fleet, query, zone)
        whole = list_json(made)
        if most is not None:
            check_size(whole, made, query, most)
        return Written(whole, etag(made))
    answers = _with_servers(fleet)
    digest = hashlib.sha256(list_json((query.format, query.view, query.address, query.port)))
    missing = None
    if query.format in ("csv", "ndjson"):
        shown = _noted((row for answer in answers for row in rows(answer, query.view, zone)), digest.update)
        pieces = lines.csv_lines(shown, query.view) if query.format == "csv" else lines.json_lines(shown)
    else:
        full = _noted((row for answer in answers for row in full_rows(answer, zone)), digest.update)
        if query.format == "prometheus":
            missing = sum(not prometheus.has_address(server, query.address)
                          for answer in answers for server in answer.servers)
            pieces = prometheus.pieces(full, query.address, query.port)
        else:
            pieces = ansible.pieces([(answer.source, server) for answer in answers for server in answer.servers], full)
    whole = _joined(pieces, query, sum(len(answer.servers) for answer in answers), most)
    return Written(whole, f'W/"{digest.hexdigest()[:32]}"', missing)


def _noted(shown: Iterable[Row], note: Callable[[bytes], object]) -> Iterator[Row]:
    """The rows as they come; what they say is noted, but not when it was seen."""
    for row in shown:
        note(_timeless(row))
        yield row


def _timeless(row: BasicRow) -> bytes:
    return list_json(msgspec.structs.replace(row, seen_at=None) if isinstance(row, FullRow) else row)


def _joined(pieces: Iterable[bytes], query: Query, shown: int, most: int | None) -> bytes:
    """Raises TooLarge as soon as it is. No piece holds more than one server."""
    whole, size = bytearray(), _AROUND
    for count, piece in enumerate(pieces):
        size += carried(piece)
        if most is not None and size > most:
            raise _too_large(query, shown, count - (query.format == "csv"))
        whole += piece
    return bytes(whole)


def body(fleet: Inventory, query: Query, zone: ZoneInfo) -> ListBody:
    """The answer to a query for one source or several, as JSON shows it."""
    write = clock_in(zone)
    made = ListBody(200, message(fleet),
                    [row for answer in _with_servers(fleet) for row in rows(answer, query.view, zone)])
    if fleet.several:
        made.complete = fleet.complete
        made.sources = list(map(_source_row, fleet.parts))
    if query.changed_since is not None:
        made.vanished = [VanishedRow(server.id, server.name, part.source.party, part.source.region,
                                     write(from_unix(server.seen_at)), write(from_unix(server.vanished_at)),
                                     part.source.tenant_id, part.source.account)
                         for part in fleet.parts for server in part.vanished]
    return made


def _with_servers(fleet: Inventory) -> list[Answer]:
    """Of many sources, a page shows the servers of few."""
    return [part.answer for part in fleet.parts if part.answer and part.answer.servers]


def _source_row(part: SourceResult) -> SourceRow:
    source, error = part.source, part.error
    return SourceRow(source.party, source.region, part.state, part.count, part.age, error.code if error else "",
                     error.text if error else "", source.tenant_id, source.account)


def message(fleet: Inventory) -> str:
    """The text for `msg`: which sources are stale or missing, and why."""
    texts: list[str] = []
    failed = [(part, part.error) for part in fleet.parts if part.error]
    title = titles(part.source for part in fleet.parts if failed)
    for part, error in failed:
        name = f"{title(part.source)}: " if fleet.several else ""
        about = f"this is a stale snapshot, {part.age} s old" if part.answer else "missing from this answer"
        texts.append(f"{name}{about}. {error.text}")
    return " ".join(texts)


list_json = msgspec.json.Encoder().encode


def etag(body: ListBody) -> str:
    """Weak: the same list in the same state is the same, compressed or not, seen now or a minute ago."""
    digest = hashlib.sha256()
    for row in body.vm_servers:
        digest.update(_timeless(row))
    for source in body.sources or ():
        digest.update(list_json((source.tenant_id, source.party, source.account, source.region, source.state,
                                 source.count, source.error)))
    digest.update(list_json(body.vanished or ()))
    return f'W/"{digest.hexdigest()[:32]}"'


def error_json(error: TwocloudError, request_id: str) -> bytes:
    parameter = error.parameter if isinstance(error, InvalidParameter) else None
    known = type(error).status != 500
    return msgspec.json.encode(ErrorBody(error.status, error.text if known else TwocloudError.default, error.code,
                                         parameter, request_id))


def retry_after(error: PartyError) -> int:
    """Whole seconds for our own Retry-After: what the party asks, within reason."""
    return max(1, min(3600, round(error.retry_after or 5)))


def carried(body: bytes) -> int:
    """How long the body is inside a Lambda's answer, where it is a JSON string."""
    return len(list_json(body.decode())) - 2


def fits(body: bytes, most: int = LARGEST_ANSWER) -> bool:
    """Whether the platform carries the body."""
    return 2 * len(body) <= most or (len(body) <= most and carried(body) <= most)       # counting takes its time


def check_size(body: bytes, made: ListBody, query: Query, most: int = LARGEST_ANSWER) -> None:
    """Raises TooLarge, which says which range fits. `body`: of what was `made`."""
    if fits(body, most):
        return
    fitting, size = 0, _AROUND + carried(list_json(msgspec.structs.replace(made, vm_servers=[])))
    if size > most:                         # whatever the range
        raise TooLarge("The servers that vanished alone exceed the platform's limit for one answer. Pass a later "
                       "changed_since.") if made.vanished else too_many_sources(len(made.sources or ()))
    for row in made.vm_servers:
        size += carried(list_json(row)) + 1
        if size > most:
            break
        fitting += 1
    raise _too_large(query, len(made.vm_servers), fitting)


def too_many_sources(count: int) -> TooLarge:
    return TooLarge(f"The states of the {count} sources alone exceed the platform's limit for one answer. Name fewer "
                    "tenants, parties, accounts or regions.")


def _too_large(query: Query, shown: int, fitting: int) -> TooLarge:
    text = f"This answer of {shown} servers exceeds the platform's limit. "
    if query.format in WHOLE_LISTS:
        return TooLarge(f"{text}format={query.format} always returns the whole list: name one party, one region or a "
                        "status.")
    first = query.window.first
    return TooLarge(f"{text}Request a range: f={first}&t={first + max(fitting, 1) - 1} fits.")
