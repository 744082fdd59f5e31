"""Answers as bytes. The seed's names of fields (`cpu_num`, `mem_size`) live here alone."""

import hashlib
from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec

from chalicelib.errors import InvalidParameter, PartyError, TooLarge, TwocloudError
from chalicelib.inventory import Answer
from chalicelib.model import Server

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


class ListBody(msgspec.Struct):
    code: int
    msg: str
    vm_servers: list[BasicRow]


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """An error has no `vm_servers`: a failure never looks like an empty list."""

    code: int
    msg: str
    error: str
    parameter: str | None = None
    request_id: str = ""


def clock_in(zone: ZoneInfo) -> Callable[[datetime | None], str | None]:
    """Writes a time as `YYYY-MM-DD HH:MM:SS` in the zone; None stays None."""
    def write(time: datetime | None) -> str | None:
        if time is None:
            return None
        try:
            return time.astimezone(zone).isoformat(" ", "seconds")[:19]
        except (OverflowError, ValueError):                     # year 1 or 9999 beyond the zone's edge
            return None

    return write


def rows(answer: Answer, view: str, zone: ZoneInfo, *, seen: bool = True) -> list[BasicRow]:
    """The servers as callers see them. `seen` False leaves out `seen_at`, which differs from call to call."""
    write = clock_in(zone)
    if view == "basic":
        return [BasicRow(*_basic(server, write)) for server in answer.servers]
    source, seen_at = answer.source, write(answer.seen_at) if seen else None
    return [FullRow(*_basic(server, write), source.party, source.tenant_id, source.region, server.zone,
                    server.project_id, server.instance_type, server.party_status, ",".join(server.lan_ipv6),
                    ",".join(server.wan_ipv6), server.tags, seen_at) for server in answer.servers]


def _basic(server: Server, write: Callable[[datetime | None], str | None]) -> tuple[
        str, str, int | None, int | None, int | None, str, str, str, str | None, str | None]:
    memory, created = server.memory_mib, write(server.created_at)
    return (server.name, server.id, server.cpu, None if memory is None else -(-memory // 1024), server.disk_gib,
            ",".join(server.lan_ipv4), ",".join(server.wan_ipv4), server.status.value,
            created, write(server.updated_at) if server.updated_at else created)


def list_json(shown: list[BasicRow]) -> bytes:
    return msgspec.json.encode(ListBody(200, "", shown))


def etag(answer: Answer, view: str, zone: ZoneInfo, body: bytes) -> str:
    """Weak: the same list is the same, compressed or not, seen now or a minute ago."""
    if view == "full":
        body = list_json(rows(answer, view, zone, seen=False))
    return f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'


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
    if carried(body) <= LARGEST_ANSWER:
        return
    fits, size = 0, 1000
    for row in shown:
        size += carried(msgspec.json.encode(row)) + 1
        if size > LARGEST_ANSWER:
            break
        fits += 1
    raise TooLarge(f"This answer of {len(shown)} servers is larger than the platform can carry. "
                   f"Ask for a range: f={first}&t={first + max(fits, 1) - 1} fits.")
