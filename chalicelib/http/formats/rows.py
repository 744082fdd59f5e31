"""A server as callers see it. The seed's names of fields (`cpu_num`, `mem_size`) live here alone."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec

from ...fleet.one_source import Answer, from_unix
from ...model import Server


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
    account: str
    image_id: str | None
    image_name: str | None
    os: str | None
    vpc_id: str | None
    subnet_id: str | None
    security_group_set: str | None
    key_name: str | None
    charge_type: str | None
    expires_at: str | None
    host_id: str | None
    console_url: str | None


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


def rows(answer: Answer, view: str, zone: ZoneInfo) -> Iterator[BasicRow]:
    """The servers of one source, one after the other."""
    if view == "full":
        return full_rows(answer, zone)
    write = clock_in(zone)
    return (BasicRow(*_basic(server, write)) for server in answer.servers)


def full_rows(answer: Answer, zone: ZoneInfo) -> Iterator[FullRow]:
    write = clock_in(zone)
    source, seen_at = answer.source, write(from_unix(answer.seen_at))
    for server in answer.servers:
        groups = server.security_groups
        yield FullRow(*_basic(server, write), source.party, source.tenant_id, source.region, server.zone,
                      server.project_id, server.instance_type, server.party_status, ",".join(server.lan_ipv6),
                      ",".join(server.wan_ipv6), _ordered(server.tags), seen_at, source.account, server.image_id,
                      server.image_name, server.os, server.vpc_id, server.subnet_id,
                      None if groups is None else ",".join(groups), server.key_name, server.charge_type,
                      write(server.expires_at), server.host_id, server.console_url)


def _ordered(tags: dict[str, str]) -> dict[str, str]:
    """Sorted by name: clouds return tags in any order, but the same tags must give the same bytes."""
    return dict(sorted(tags.items())) if len(tags) > 1 else tags


def _basic(server: Server, write: Callable[[datetime | None], str | None]) -> tuple[
        str, str, int | None, int | None, int | None, str, str, str, str | None, str | None]:
    memory, created = server.memory_mib, write(server.created_at)
    return (server.name, server.id, server.cpu, None if memory is None else -(-memory // 1024), server.disk_gib,
            ",".join(server.lan_ipv4), ",".join(server.wan_ipv4), server.status,
            created, write(server.updated_at) if server.updated_at else created)
