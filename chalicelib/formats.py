"""Answers as bytes. The seed's names of fields (`cpu_num`, `mem_size`) live here alone."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec

from chalicelib.errors import InvalidParameter, PartyError, TooLarge, TwocloudError
from chalicelib.freshness import moment
from chalicelib.inventory import Answer, Fleet
from chalicelib.model import Server
from chalicelib.query import Query

LARGEST_ANSWER = 6_200_000                  # of the 6 MiB that Lambda carries, counted by carried()


class BasicRow(msgspec.Struct, gc=False):
    """The ten fields of the seed, in its order."""

    instance_name: str
    instance_id: str
    cpu_num: int | None
    mem_size: int | None
    disk_size: int | None
    lan_ip_set: str
    wan_ip_set: str
    status: str
    create_at: str | None
    update_at: str | None


class FullRow(BasicRow, gc=False):
    party: str
    tenant_id: str
    region: str
    zone: str
    project_id: str
    instance_type: str
    party_status: str
    lan_ipv6_set: str
    wan_ipv6_set: str
    tags: dict[str, str]
    seen_at: str | None


class SourceRow(msgspec.Struct):
    """What one source gave. `age`: seconds. `error`: the word of what went wrong, "" if nothing did."""

    party: str
    region: str
    state: str
    count: int | None
    age: int | None
    error: str
    msg: str


class VanishedRow(msgspec.Struct):
    instance_id: str
    instance_name: str
    party: str
    region: str
    seen_at: str | None
    vanished_at: str | None


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


def clock_in(zone: ZoneInfo) -> Callable[[datetime | None], str | None]:
    """Writes a time as `YYYY-MM-DD HH:MM:SS` in the zone; None stays None."""
    plain = zone.key == "UTC"

    def write(time: datetime | None) -> str | None:
        if time is None:
            return None
        try:
            return (time if plain and time.tzinfo is UTC else time.astimezone(zone)).isoformat(" ", "seconds")[:19]
        except (OverflowError, ValueError):                     # year 1 or 9999 beyond the zone's edge
            return None

    return write


def body(fleet: Fleet, asked: Query, zone: ZoneInfo) -> ListBody:
    """The answer to a query for one source or several."""
    write = clock_in(zone)
    made = ListBody(200, message(fleet, several=asked.several),
                    [row for part in fleet.parts if part.answer for row in rows(part.answer, asked.view, zone)])
    if asked.several:
        made.complete = fleet.complete
        made.sources = [SourceRow(part.source.party, part.source.region, part.state, part.count, part.age,
                                  part.error.word if part.error else "", part.error.text if part.error else "")
                        for part in fleet.parts]
    if asked.changed_since is not None:
        made.vanished = [VanishedRow(server.id, server.name, part.source.party, part.source.region,
                                     write(moment(server.seen_at)), write(moment(server.vanished_at)))
                         for part in fleet.parts for server in part.vanished]
    return made


def message(fleet: Fleet, *, several: bool) -> str:
    """What a reader must know who looks at nothing else: which lists are old or missing, and why."""
    told: list[str] = []
    for part in fleet.parts:
        name = f"{part.source.party} {part.source.region}: " if several else ""
        if part.error and part.answer:
            told.append(f"{name}this is the last good list, {part.age} s old. {part.error.text}")
        elif part.error:
            told.append(f"{name}not in this answer. {part.error.text}")
    return " ".join(told)


def rows(answer: Answer, view: str, zone: ZoneInfo) -> list[BasicRow]:
    """The servers as callers see them."""
    write = clock_in(zone)
    if view == "basic":
        return [BasicRow(*_basic(server, write)) for server in answer.servers]
    source, seen_at = answer.source, write(answer.seen_at)
    return [FullRow(*_basic(server, write), source.party, source.tenant_id, source.region, server.zone,
                    server.project_id, server.instance_type, server.party_status, ",".join(server.lan_ipv6),
                    ",".join(server.wan_ipv6), server.tags, seen_at) for server in answer.servers]


def _basic(server: Server, write: Callable[[datetime | None], str | None]) -> tuple[
        str, str, int | None, int | None, int | None, str, str, str, str | None, str | None]:
    memory, created = server.memory_mib, write(server.created_at)
    return (server.name, server.id, server.cpu, None if memory is None else -(-memory // 1024), server.disk_gib,
            ",".join(server.lan_ipv4), ",".join(server.wan_ipv4), server.status,
            created, write(server.updated_at) if server.updated_at else created)


list_json = msgspec.json.Encoder().encode


def etag(body: ListBody) -> str:
    """Weak: the same list in the same state is the same, compressed or not, seen now or a minute ago."""
    digest = hashlib.sha256()
    for row in body.vm_servers:
        seen = msgspec.structs.replace(row, seen_at=None) if isinstance(row, FullRow) else row
        digest.update(list_json(seen))
    for source in body.sources or ():
        digest.update(list_json((source.party, source.region, source.state, source.count, source.error)))
    digest.update(list_json(body.vanished or ()))
    return f'W/"{digest.hexdigest()[:32]}"'


def error_json(error: TwocloudError, request_id: str) -> bytes:
    parameter = error.parameter if isinstance(error, InvalidParameter) else None
    known = type(error).status != 500
    return msgspec.json.encode(ErrorBody(error.status, error.text if known else TwocloudError.default, error.word,
                                         parameter, request_id))


def retry_after(error: PartyError) -> int:
    """Whole seconds for our own Retry-After: what the party asks, within reason."""
    return max(1, min(3600, round(error.retry_after or 5)))


def carried(body: bytes) -> int:
    """How long the body is inside a Lambda's answer, where it is a JSON string."""
    return len(body) + body.count(b'"') + body.count(b"\\")


def check_size(body: bytes, shown: list[BasicRow], first: int) -> None:
    """Raises TooLarge, which says which range fits. `first`: the position of the first row."""
    if 2 * len(body) <= LARGEST_ANSWER or carried(body) <= LARGEST_ANSWER:     # counting takes its time
        return
    fits, size = 0, 1000
    for row in shown:
        size += carried(msgspec.json.encode(row)) + 1
        if size > LARGEST_ANSWER:
            break
        fits += 1
    raise TooLarge(f"This answer of {len(shown)} servers is larger than the platform can carry. "
                   f"Ask for a range: f={first}&t={first + max(fits, 1) - 1} fits.")
