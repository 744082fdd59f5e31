"""Hetzner Cloud: API v1.

https://docs.hetzner.cloud/reference/cloud#servers-list-servers

Units: memory GB as a float, disks GB. Times: RFC 3339. Paging: pages from 1, per_page at most 50 (default 25),
meta.pagination.total_entries, sort=id:asc. There is no time of the last update.

A token opens one project, so that there is no other; the list has no filter for a location. It is read whole, kept by
location, put into the order of creation and cut to the window; volumes and floating IPs side by side with it. An
unknown location is an empty list, so that one is believed only of a location in /v1/locations. Newer answers say
`location`, older ones only `datacenter.location`. The public IPv6 of a server is a network (/64): its first address is
shown, which the party's images configure and its own inventory gives. A floating IPv6 is a network too, of which no
address is known to be in use, and is left out. A volume that comes or goes between the lists makes the disk unknown.

Rates: 3,600 calls an hour for the project, shared out here among the three lists.
"""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from ...cloud.bearer import Call, Cloud, List, by_owner, disk_gib, error_code, first_of, in_order
from ...concurrency import run_all
from ...errors import FAILED, MALFORMED, MISSING_RIGHT, THROTTLED, UNAVAILABLE, WRONG_KEY, PartyMalformed
from ...model import (
    Account,
    Count,
    Limit,
    Listing,
    Party,
    Region,
    Send,
    Server,
    Source,
    Status,
    Text,
    Window,
    addresses,
    parse_time,
)

_PAGE = 50
_CLOUD = Cloud("api.hetzner.cloud")
_BY_ID = [("sort", "id:asc")]

_STATUS = {                                 # status, the complete enumeration
    "initializing": Status.BUILD,
    "starting": Status.STARTING,
    "running": Status.ACTIVE,
    "stopping": Status.STOPPING,
    "off": Status.SHUTOFF,
    "deleting": Status.DELETED,
    "migrating": Status.MIGRATING,
    "rebuilding": Status.REBUILD,
    "unknown": Status.UNKNOWN,
}

_ERRORS = {                                 # the code of an error
    "unauthorized": WRONG_KEY,
    "forbidden": MISSING_RIGHT,
    "rate_limit_exceeded": THROTTLED,
    "invalid_input": MALFORMED,
    "deprecated_api_endpoint": MALFORMED,
    "conflict": FAILED,                     # something changed meanwhile: another try may succeed
    "locked": FAILED,
    "resource_unavailable": UNAVAILABLE,
    "json_error": MALFORMED,
    "not_found": MALFORMED,
    "method_not_allowed": MALFORMED,
    "service_error": FAILED,
    "server_error": FAILED,
    "maintenance": UNAVAILABLE,
    "unavailable": UNAVAILABLE,
    "bad_gateway": UNAVAILABLE,
    "timeout": UNAVAILABLE,
}


# ---------------------------------------------------------------- the shapes that we read

class _Ip(msgspec.Struct, gc=False):
    ip: str | None = None


class _PublicNet(msgspec.Struct, gc=False):
    ipv4: _Ip | None = None
    ipv6: _Ip | None = None


class _PrivateNet(msgspec.Struct, gc=False):
    ip: str | None = None
    alias_ips: list[str] | None = None


class _Type(msgspec.Struct, gc=False):
    name: str | None = None
    cores: Count | None = None
    memory: Annotated[float, msgspec.Meta(ge=0, le=10 ** 6)] | None = None          # GB


class _Location(msgspec.Struct, gc=False):
    name: Text
    description: str | None = None
    id: int | None = None


class _Site(msgspec.Struct, gc=False):
    location: _Location
    name: str | None = None


class _Row(msgspec.Struct, gc=False):
    id: int
    name: str | None = None
    status: str | None = None
    created: str | None = None
    public_net: _PublicNet | None = None
    private_net: list[_PrivateNet] | None = None
    server_type: _Type | None = None
    primary_disk_size: Count | None = None
    volumes: list[int] | None = None
    location: _Location | None = None
    datacenter: _Site | None = None
    labels: dict[str, str] | None = None


class _Volume(msgspec.Struct, gc=False):
    id: int
    size: Count | None = None


class _FloatingIp(msgspec.Struct, gc=False):
    id: int
    ip: str | None = None
    server: int | None = None


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    call = Call(_CLOUD, _PAGE, source.region, account, send)
    rows, volumes, ips = run_all([lambda what=what: call.all(what, _BY_ID)
                                       for what in (_SERVERS, _VOLUMES, _FLOATING_IPS)], 3)
    sizes = {str(volume.id): volume.size for volume in volumes}
    floating = by_owner((ip.server, ip.ip) for ip in ips)
    return in_order((_server(row, sizes, floating.get(str(row.id), [])) for row in rows
                     if _location(row).name == source.region), window)


_SERVERS = List("ListServers", "/v1/servers", "servers", list[_Row])
_VOLUMES = List("ListVolumes", "/v1/volumes", "volumes", list[_Volume])
_FLOATING_IPS = List("ListFloatingIps", "/v1/floating_ips", "floating_ips", list[_FloatingIp])
_LOCATIONS = List("ListLocations", "/v1/locations", "locations", list[_Location])


def _location(row: _Row) -> _Location:
    location = row.location or (row.datacenter and row.datacenter.location)
    if not location:
        raise PartyMalformed("The party listed a server without its location.")
    return location


def _server(row: _Row, sizes: Mapping[str, int | None], floating: list[str | None]) -> Server:
    public, kind = row.public_net or _PublicNet(), row.server_type or _Type()
    lan4, lan6 = addresses(*(ip for net in row.private_net or () for ip in (net.ip, *(net.alias_ips or ()))))
    wan4, wan6 = addresses(public.ipv4 and public.ipv4.ip, first_of(public.ipv6 and public.ipv6.ip), *floating)
    return Server(
        id=str(row.id),
        name=row.name or "",
        cpu=kind.cores,
        memory_mib=None if kind.memory is None else round(kind.memory * 1024),
        disk_gib=disk_gib(row.primary_disk_size, row.volumes, sizes),
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_STATUS.get(row.status or "", Status.UNKNOWN),
        party_status=row.status or "",
        created_at=parse_time(row.created),
        zone=(row.datacenter and row.datacenter.name) or _location(row).name,
        instance_type=kind.name or "",
        tags=row.labels or {},
    )


# ---------------------------------------------------------------- regions, check

def list_regions(account: Account, send: Send) -> list[Region]:
    rows: list[_Location] = Call(_CLOUD, _PAGE, "", account, send).all(_LOCATIONS)
    return [Region(row.name, row.description or "") for row in rows]


def check(source: Source, account: Account, send: Send) -> None:
    Call(_CLOUD, _PAGE, source.region, account, send).pages(_SERVERS, Window(1, 1))


PARTY = Party(
    name="hetzner",
    title="Hetzner Cloud",
    reference="https://docs.hetzner.cloud/reference/cloud#servers-list-servers",
    order="by id, requested; numbered pages",
    credentials=(("token",),),
    permissions=("a read-only token of the project",),
    region_form=r"[a-z]{3}[0-9]{0,2}",
    default_region="fsn1",
    unknown_region_is_empty=True,
    limits={operation: Limit(1100, 3600.0) for operation in (
        "ListServers", "ListVolumes", "ListFloatingIps", "ListLocations")},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
