"""Scaleway Instances: API v1, with Block v1 and IPAM v1.

https://www.scaleway.com/en/developers/api/instances/ (also /block/ and /ipam/)

Units: memory and disks bytes; a disk of 10 GB has 10 * 10^9 of them. Times: RFC 3339 with microseconds. Paging: pages
from 1, at most 100 rows, the total in the header X-Total-Count (Instances) or total_count (Block, IPAM).

A region is several zones, listed one after the other in the order of their names, each in the order of creation. A
whole list reads them, their block volumes and the region's private addresses side by side. A window asks the zones in
turn, since the total of one tells where the window stands in the next, and then the volumes and addresses of its own
servers by their ids (50 to a query: how many it takes is not documented).

CPU and memory are in the zone's catalogue, asked once per process. Volumes of type sbs_volume have a size in Block
alone, private addresses are in IPAM alone. No call lists the regions: they are those of the party's SDKs and its
recorded traffic, and fr-snc, which not every account may use: `region=all` includes it if it answers. Which zones
fr-snc and regions that are not known here have is asked: from -1 to -3, an unknown one is 400 "unknown zone in path".

A machine of a type that the catalogue has dropped is read from the type's name (POP2-4C-16G: 4 CPUs, 16 GiB), where
that says so. `state_detail` tells more than `state` while a machine is deleted or rebooted.

The token is the secret key of an API key. No rate is published: 20 calls a second of each kind.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import msgspec

from ...cloud.bearer import Call, Cloud, List, by_owner, error_code, only, plain, without_prefix
from ...cloud.cache import cached_lookup
from ...cloud.paging import Rows
from ...concurrency import run_all, run_both
from ...errors import (
    DISABLED_KEY,
    EXPIRED_KEY,
    FAILED,
    MALFORMED,
    MISSING_RIGHT,
    REGION,
    SUSPENDED,
    THROTTLED,
    WRONG_KEY,
    PartyDenied,
    PartyFailed,
    UnknownRegion,
)
from ...model import (
    WHOLE,
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

_PAGE = 100
_BATCH = 50                                 # ids that one query names
_WORKERS = 10
_CLOUD = Cloud("api.scaleway.com", headers=lambda account: {"X-Auth-Token": account.credentials["token"]})
_LATER = replace(_CLOUD, size="page_size")  # the word of Block and IPAM
_ZONES = {"fr-par": 3, "it-mil": 1, "nl-ams": 3, "pl-waw": 3}            # region -> its zones, -1 and on
_RESTRICTED = "fr-snc"                      # a region that not every account may use
_MOST_ZONES = 3                             # of a region whose zones are not known
_NAMED = re.compile(r"-[A-Z]?([0-9]{1,3})C-([0-9]{1,4})G(?:-WIN)?", re.ASCII)   # CPUs and GiB in a type's name

_STATUS = {                                 # state, the complete enumeration
    "starting": Status.STARTING,
    "running": Status.ACTIVE,
    "stopping": Status.STOPPING,
    "stopped": Status.SHUTOFF,
    "stopped in place": Status.SHUTOFF,     # the word on the wire
    "stopped_in_place": Status.SHUTOFF,     # the SDK's
    "locked": Status.ERROR,                 # by the party, for abuse
}
_DETAILS = {                                # state_detail, where it says more than the state
    "rebooting": Status.REBOOT,
    "terminating": Status.DELETED,
}

_ERRORS = {                                 # the type of an error, or what its message says of a place
    "denied_authentication": WRONG_KEY,     # .not_found, .invalid_argument
    "denied_authentication.expired": EXPIRED_KEY,
    "denied_authentication.locked": DISABLED_KEY,
    "locked": SUSPENDED,
    "authorization_required": MISSING_RIGHT,
    "permissions_denied": MISSING_RIGHT,
    "too_many_requests": THROTTLED,
    "unknown_zone": REGION,
    "unknown_region": REGION,
    "unknown_resource": MALFORMED,          # a path that is not there; an unknown zone has words of its own
    "not_found": MALFORMED,
    "invalid_arguments": MALFORMED,
    "invalid_request_error": MALFORMED,
    "api_error": FAILED,
}

Bytes = Annotated[int, msgspec.Meta(ge=0, le=10 ** 18)]


# ---------------------------------------------------------------- the shapes that we read

class _Ip(msgspec.Struct, gc=False):
    address: str | None = None


class _Volume(msgspec.Struct, gc=False):
    id: str | None = None
    size: Bytes | None = None      # bytes; null: Block knows it
    volume_type: str | None = None


class _Nic(msgspec.Struct, gc=False):
    id: str | None = None


class _Row(msgspec.Struct, gc=False):
    id: Text
    name: str | None = None
    project: str | None = None
    commercial_type: str | None = None
    state: str | None = None
    state_detail: str | None = None
    volumes: dict[str, _Volume] | None = None
    private_ip: str | None = None
    private_nics: list[_Nic] | None = None
    public_ip: _Ip | None = None
    public_ips: list[_Ip] | None = None
    ipv6: _Ip | None = None
    creation_date: str | None = None
    modification_date: str | None = None
    zone: str | None = None
    tags: list[str] | None = None


class _BlockVolume(msgspec.Struct, gc=False):
    id: Text
    size: Bytes | None = None


class _Resource(msgspec.Struct, gc=False):
    id: str | None = None


class _IpamIp(msgspec.Struct, gc=False):
    id: Text
    address: str | None = None
    resource: _Resource | None = None


class _CommercialType(msgspec.Struct, gc=False):
    ncpus: Count | None = None
    ram: Bytes | None = None


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    call = Call(_CLOUD, _PAGE, source.region, account, send)
    zones = _zones(call)
    if window == WHOLE:
        found, ips = run_both(lambda: run_all([lambda zone=zone: run_both(lambda: _zone(call, zone, window),
                                                                       lambda: _sbs(call, zone)) for zone in zones],
                                               len(zones)),
                          lambda: _ipam(call))
        listed, volumes = [rows for rows, _ in found], [volume for _, part in found for volume in part]
    else:
        listed = _zones_in_turn(call, zones, window)
        named = [(zone, [volume.id for row in part.rows for volume in (row.volumes or {}).values()
                         if volume.size is None and volume.id]) for zone, part in zip(zones, listed, strict=True)]
        volumes, ips = run_both(
            lambda: [volume for part in run_all([lambda zone=zone, ids=ids: _sbs(call, zone, ids)
                                                      for zone, ids in named], len(zones)) for volume in part],
            lambda: _ipam(call, [nic.id for part in listed for row in part.rows for nic in row.private_nics or ()
                                if nic.id]))
    sizes = {volume.id: volume.size for volume in volumes}
    private = by_owner((ip.resource and ip.resource.id, without_prefix(ip.address)) for ip in ips)
    kinds = run_all([lambda zone=zone, part=part: _types(call, zone, part.rows)
                          for zone, part in zip(zones, listed, strict=True)], len(zones))
    return Listing([_server(row, zone, types, sizes, private)
                    for zone, part, types in zip(zones, listed, kinds, strict=True) for row in part.rows],
                   sum(part.total or 0 for part in listed))


def _zones_in_turn(call: Call, zones: Iterable[str], window: Window) -> list[Rows[_Row]]:
    """The window's part of each zone: the totals of those before it tell where it begins."""
    found: list[Rows[_Row]] = []
    before = 0
    for zone in zones:
        first, last = max(1, window.first - before), None if window.last is None else window.last - before
        ended = last is not None and last < first               # the window, before this zone: its total is wanted
        part = _zone(call, zone, Window(1, 1) if ended else Window(first, last))
        found.append(Rows([], part.total) if ended else part)
        before += part.total or 0
    return found


def _zones(call: Call) -> tuple[str, ...]:
    """The region's zones in the order of their names. Raises UnknownRegion if it has none."""
    known = _ZONES.get(call.region)
    zones = tuple(f"{call.region}-{n}" for n in range(1, (known or _MOST_ZONES) + 1))
    if known:
        return zones
    there = cached_lookup(("scaleway zones", call.account.endpoint), zones, lambda missing: dict(
        zip(missing, run_all([lambda zone=zone: _is_there(call, zone) for zone in missing], len(missing)),
            strict=True)))
    if not any(there.values()):
        raise UnknownRegion("Scaleway Instances has no such region.")
    return tuple(zone for zone in zones if there.get(zone))


def _is_there(call: Call, zone: str) -> bool:
    try:
        _zone(call, zone, Window(1, 1))
        return True
    except UnknownRegion:
        return False
    except PartyFailed as refused:          # said while the party was asked for its regions, not about this one
        if refused.party_code != "unknown_zone":
            raise
        return False


def _zone(call: Call, zone: str, window: Window) -> Rows[_Row]:
    project = call.account.project
    what = List("ListServers", f"/instance/v1/zones/{zone}/servers", "servers", list[_Row])
    found = call.pages(what, window, [("order", "creation_date_asc"), *([("project", project)] if project else [])])
    if project:
        only(found.rows, lambda row: row.project, project)
    return found


def _sbs(call: Call, zone: str, ids: Sequence[str] | None = None) -> list[_BlockVolume]:
    """The zone's block volumes, or those of these ids."""
    what = List("ListVolumes", f"/block/v1/zones/{zone}/volumes", "volumes", list[_BlockVolume])
    return _named(call, what, [], "volume_ids", ids)


def _ipam(call: Call, ids: Sequence[str] | None = None) -> list[_IpamIp]:
    """The addresses of the region's private interfaces, or of these."""
    what = List("ListIps", f"/ipam/v1/regions/{call.region}/ips", "ips", list[_IpamIp])
    return _named(call, what, [("resource_type", "instance_private_nic")], "resource_ids", ids)


def _named(call: Call, what: List, asked: Sequence[tuple[str, object]], parameter: str, ids: Sequence[str] | None,
           ) -> list[Any]:
    call = replace(call, cloud=_LATER)
    if ids is None:
        return call.all(what, asked)
    batches = [ids[at:at + _BATCH] for at in range(0, len(ids), _BATCH)]
    found = run_all([lambda batch=batch: call.all(what, [*asked, *((parameter, name) for name in batch)])
                          for batch in batches], _WORKERS)
    return [row for part in found for row in part]


def _types(call: Call, zone: str, rows: Iterable[_Row]) -> dict[str, _CommercialType]:
    what = List("ListServerTypes", f"/instance/v1/zones/{zone}/products/servers", "servers",
                 dict[str, _CommercialType])
    return cached_lookup(("scaleway", call.account.endpoint, zone), [row.commercial_type or "" for row in rows],
                     lambda _: dict(call.all(what)))


def _server(row: _Row, zone: str, types: Mapping[str, _CommercialType], sizes: Mapping[str, int | None],
            private: Mapping[str, list[str]]) -> Server:
    cpu, memory_mib = _size(types.get(row.commercial_type or ""), row.commercial_type or "")
    detail = row.state_detail if row.state_detail in _DETAILS else None
    nics = [nic.id or "" for nic in row.private_nics or ()]
    lan4, lan6 = addresses(row.private_ip, *(ip for nic in nics for ip in private.get(nic, ())))
    wan4, wan6 = addresses(row.public_ip and row.public_ip.address, *(ip.address for ip in row.public_ips or ()),
                           row.ipv6 and row.ipv6.address)
    disks = None if row.volumes is None else [sizes.get(volume.id or "") if volume.size is None else volume.size
                                              for volume in row.volumes.values()]
    return Server(
        id=row.id,
        name=row.name or "",
        cpu=cpu,
        memory_mib=memory_mib,
        disk_gib=None if disks is None or None in disks else -(-sum(size or 0 for size in disks) // 10 ** 9),
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_DETAILS[detail] if detail else _STATUS.get(row.state or "", Status.UNKNOWN),
        party_status=" ".join(filter(None, (row.state, detail))),
        created_at=parse_time(row.creation_date),
        updated_at=parse_time(row.modification_date),
        zone=zone,
        project_id=row.project or "",
        instance_type=row.commercial_type or "",
        tags=plain(row.tags),
    )


def _size(kind: _CommercialType | None, name: str) -> tuple[int | None, int | None]:
    """CPUs and MiB, by the catalogue or else by the type's name."""
    if kind:
        return kind.ncpus, None if kind.ram is None else kind.ram // 1024 ** 2
    named = _NAMED.search(name)
    return (int(named[1]), int(named[2]) * 1024) if named else (None, None)


# ---------------------------------------------------------------- regions, check

def list_regions(account: Account, send: Send) -> list[Region]:
    """Those that this module knows: the party has no such call."""
    return [*(Region(region) for region in _ZONES), Region(_RESTRICTED, "", _is_open(account, send))]


def _is_open(account: Account, send: Send) -> bool:
    try:
        return bool(_zones(Call(_CLOUD, _PAGE, _RESTRICTED, account, send)))
    except (UnknownRegion, PartyDenied):    # who may see nothing at all is told so by the other regions
        return False


def check(source: Source, account: Account, send: Send) -> None:
    call = Call(_CLOUD, _PAGE, source.region, account, send)
    _zone(call, _zones(call)[0], Window(1, 1))


PARTY = Party(
    name="scaleway",
    title="Scaleway Instances",
    reference="https://www.scaleway.com/en/developers/api/instances/",
    order="by creation, requested; numbered pages",
    credentials=(("token",),),
    grade="recorded",
    permissions=("InstancesReadOnly", "BlockStorageReadOnly", "IPAMReadOnly"),
    region_form=r"[a-z]{2}-[a-z]{3}",
    default_region="fr-par",
    project="a project's id",
    project_form=r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    limits={operation: Limit(20) for operation in ("ListServers", "ListVolumes", "ListIps", "ListServerTypes")},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
