"""cloudscale.ch: API v1.

https://www.cloudscale.ch/en/api/v1#servers-list and the party's Go client

Units: memory GB, disks GB. Times: RFC 3339. Paging: none, every list is whole. There is no time of the last update.

A token opens one project. The list has no filter for a region: servers name their zone, and /v1/regions says which
region that is in (asked once per process); what is kept is put into the order of creation and cut to the window. An
unknown region is an empty list, so that one is believed only of a region in /v1/regions. A list is a plain JSON list,
and so an empty one could be anybody's answer: it is believed if the list of volumes knows no server either.

Floating IPs are not in the list of servers; --deep reads them (/v1/floating-ips).

Errors are free text. No rate is published: 5 calls a second of each kind.
"""

from collections.abc import Mapping, Sequence

import msgspec

from ...cloud.bearer import FREE_TEXT, Call, Cloud, List, by_owner, error_code, in_order, without_prefix
from ...cloud.cache import cached_lookup
from ...concurrency import run_both
from ...errors import PartyMalformed
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
    total_gib,
)

_CLOUD = Cloud("api.cloudscale.ch")

_STATUS = {                                 # status
    "running": Status.ACTIVE,
    "stopped": Status.SHUTOFF,
    "paused": Status.PAUSED,
    "changing": Status.BUILD,               # any transition; the party does not say which
}

_ERRORS = FREE_TEXT                         # errors are free text: what it says and the HTTP status tell


# ---------------------------------------------------------------- the shapes that we read

class _Slug(msgspec.Struct, gc=False):
    slug: Text


class _Flavor(msgspec.Struct, gc=False):
    slug: str | None = None
    vcpu_count: Count | None = None
    memory_gb: Count | None = None


class _Volume(msgspec.Struct, gc=False):
    size_gb: Count | None = None


class _Address(msgspec.Struct, gc=False):
    address: str | None = None


class _Interface(msgspec.Struct, gc=False):
    type: str | None = None
    addresses: list[_Address] | None = None


class _Row(msgspec.Struct, gc=False):
    uuid: Text
    zone: _Slug
    name: str | None = None
    status: str | None = None
    flavor: _Flavor | None = None
    volumes: list[_Volume] | None = None
    interfaces: list[_Interface] | None = None
    created_at: str | None = None
    tags: dict[str, str] | None = None


class _Attached(msgspec.Struct, gc=False):
    uuid: Text
    server_uuids: list[str] | None = None


class _Owner(msgspec.Struct, gc=False):
    uuid: Text


class _FloatingIp(msgspec.Struct, gc=False):
    network: str | None = None
    server: _Owner | None = None


class _Region(msgspec.Struct):
    slug: Text
    zones: list[_Slug]


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    call = Call(_CLOUD, 0, source.region, account, send)
    rows, ips = run_both(lambda: _listed(call), lambda: _floating(call) if account.deep else {})
    regions = cached_lookup(("cloudscale", account.endpoint), [row.zone.slug for row in rows], lambda _: _zones(call))
    if any(row.zone.slug not in regions for row in rows):
        raise PartyMalformed("The party listed a server in a zone that is in none of its regions.")
    return in_order((_server(row, ips.get(row.uuid, [])) for row in rows
                     if regions[row.zone.slug] == source.region), window)


def _listed(call: Call) -> list[_Row]:
    rows: list[_Row] = call.get(_SERVERS).rows
    if not rows:
        volumes: list[_Attached] = call.get(_VOLUMES).rows
        if any(volume.server_uuids for volume in volumes):
            raise PartyMalformed("The party lists no servers, but volumes that are attached to some.")
    return rows


def _floating(call: Call) -> dict[str, list[str]]:
    ips: list[_FloatingIp] = call.get(_FLOATING_IPS).rows
    return by_owner((ip.server and ip.server.uuid, without_prefix(ip.network)) for ip in ips)


def _zones(call: Call) -> Mapping[str, str]:
    regions: list[_Region] = call.get(_REGIONS).rows
    return {zone.slug: region.slug for region in regions for zone in region.zones}


_SERVERS = List("ListServers", "/v1/servers", "", list[_Row])
_VOLUMES = List("ListVolumes", "/v1/volumes", "", list[_Attached])
_FLOATING_IPS = List("ListFloatingIps", "/v1/floating-ips", "", list[_FloatingIp])
_REGIONS = List("ListRegions", "/v1/regions", "", list[_Region])


def _server(row: _Row, floating: Sequence[str]) -> Server:
    flavor = row.flavor or _Flavor()
    found = [(net.type, ip.address) for net in row.interfaces or () for ip in net.addresses or ()]
    lan4, lan6 = addresses(*(ip for kind, ip in found if kind == "private"))
    wan4, wan6 = addresses(*(ip for kind, ip in found if kind == "public"), *floating)
    return Server(
        id=row.uuid,
        name=row.name or "",
        cpu=flavor.vcpu_count,
        memory_mib=None if flavor.memory_gb is None else flavor.memory_gb * 1024,
        disk_gib=None if row.volumes is None else total_gib(volume.size_gb for volume in row.volumes),
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_STATUS.get(row.status or "", Status.UNKNOWN),
        party_status=row.status or "",
        created_at=parse_time(row.created_at),
        zone=row.zone.slug,
        instance_type=flavor.slug or "",
        tags=row.tags or {},
    )


# ---------------------------------------------------------------- regions, check

def list_regions(account: Account, send: Send) -> list[Region]:
    regions: list[_Region] = Call(_CLOUD, 0, "", account, send).get(_REGIONS).rows
    if not regions:
        raise PartyMalformed("The party lists no regions.")
    return [Region(region.slug) for region in regions]


def check(source: Source, account: Account, send: Send) -> None:
    Call(_CLOUD, 0, source.region, account, send).get(_SERVERS)


PARTY = Party(
    name="cloudscale",
    title="cloudscale.ch",
    reference="https://www.cloudscale.ch/en/api/v1#servers-list",
    order="no pages",
    credentials=(("token",),),
    permissions=("a read-only token of the project",),
    deep_permissions=("a read-only token of the project",),
    region_form=r"[a-z]{2,12}",
    default_region="rma",
    unknown_region_is_empty=True,
    limits={operation: Limit(5) for operation in ("ListServers", "ListVolumes", "ListFloatingIps", "ListRegions")},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
