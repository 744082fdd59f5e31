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
from typing import Annotated

import msgspec
from msgspec.structs import replace

from ...cloud import api

_PAGE = 100
_BATCH = 50                                 # ids that one query names
_WORKERS = 10
_CLOUD = api.Cloud("api.scaleway.com", lambda: _PAGE, auth=lambda client, call: call(
    {"X-Auth-Token": client.credentials["token"]}))
_LATER = replace(_CLOUD, size="page_size")  # the word of Block and IPAM
_ZONES = {"fr-par": 3, "it-mil": 1, "nl-ams": 3, "pl-waw": 3}            # region -> its zones, -1 and on
_RESTRICTED = "fr-snc"                      # a region that not every account may use
_MOST_ZONES = 3                             # of a region whose zones are not known
_NAMED = re.compile(r"-[A-Z]?([0-9]{1,3})C-([0-9]{1,4})G(?:-WIN)?", re.ASCII)   # CPUs and GiB in a type's name

_STATUS = {                                 # state, the complete enumeration
    "starting": api.Status.STARTING,
    "running": api.Status.ACTIVE,
    "stopping": api.Status.STOPPING,
    "stopped": api.Status.SHUTOFF,
    "stopped in place": api.Status.SHUTOFF,     # the word on the wire
    "stopped_in_place": api.Status.SHUTOFF,     # the SDK's
    "locked": api.Status.ERROR,             # by the party, for abuse
}
_DETAILS = {                                # state_detail, where it says more than the state
    "rebooting": api.Status.REBOOT,
    "terminating": api.Status.DELETED,
}

_ERRORS = {                                 # the type of an error, or what its message says of a place
    "denied_authentication": api.WRONG_KEY,     # .not_found, .invalid_argument
    "denied_authentication.expired": api.EXPIRED_KEY,
    "denied_authentication.locked": api.DISABLED_KEY,
    "locked": api.SUSPENDED,
    "authorization_required": api.MISSING_RIGHT,
    "permissions_denied": api.MISSING_RIGHT,
    "too_many_requests": api.THROTTLED,
    "unknown_zone": api.REGION,
    "unknown_region": api.REGION,
    "unknown_resource": api.MALFORMED,      # a path that is not there; an unknown zone has words of its own
    "not_found": api.MALFORMED,
    "invalid_arguments": api.MALFORMED,
    "invalid_request_error": api.MALFORMED,
    "api_error": api.FAILED,
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
    private_network_id: str | None = None


class _Image(msgspec.Struct, gc=False):
    id: str | None = None
    name: str | None = None
    public: bool | None = None


class _Group(msgspec.Struct, gc=False):
    id: str | None = None


class _Location(msgspec.Struct, gc=False):
    hypervisor_id: str | None = None


class _Row(msgspec.Struct, gc=False):
    id: api.Text
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
    image: _Image | None = None
    security_group: _Group | None = None
    location: _Location | None = None       # null unless it runs


class _BlockVolume(msgspec.Struct, gc=False):
    id: api.Text
    size: Bytes | None = None


class _Resource(msgspec.Struct, gc=False):
    id: str | None = None


class _IpamIp(msgspec.Struct, gc=False):
    id: api.Text
    address: str | None = None
    resource: _Resource | None = None


class _CommercialType(msgspec.Struct, gc=False):
    ncpus: api.Count | None = None
    ram: Bytes | None = None


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    zones = _zones(client)
    if window == api.WHOLE:
        listed, volumes, ips = client.run_all(
            lambda: client.for_each(zones, lambda zone: _zone(client, zone, window)),
            lambda: _joined(client.for_each(zones, lambda zone: _sbs(client, zone))),
            lambda: _ipam(client))
    else:
        listed = _zones_in_turn(client, zones, window)
        disks = {zone: [volume.id for row in part.rows for volume in (row.volumes or {}).values()
                        if volume.size is None and volume.id] for zone, part in zip(zones, listed, strict=True)}
        nics = [nic.id for part in listed for row in part.rows for nic in row.private_nics or () if nic.id]
        volumes, ips = client.run_all(
            lambda: _joined(client.for_each(zones, lambda zone: _sbs(client, zone, disks[zone]))),
            lambda: _ipam(client, nics))
    sizes = {volume.id: volume.size for volume in volumes}
    private = api.by_owner((ip.resource and ip.resource.id, api.without_prefix(ip.address)) for ip in ips)
    parts = list(zip(zones, listed, strict=True))
    kinds = client.for_each(parts, lambda part: _types(client, part[0], part[1].rows))
    return api.Listing([_server(row, zone, types, sizes, private)
                        for (zone, part), types in zip(parts, kinds, strict=True) for row in part.rows],
                       sum(part.total or 0 for part in listed))


def _zones_in_turn(client: api.Client, zones: Iterable[str], window: api.Window) -> list[api.Rows[_Row]]:
    """The window's part of each zone: the totals of those before it tell where it begins."""
    parts: list[api.Rows[_Row]] = []
    before = 0
    for zone in zones:
        first, last = max(1, window.first - before), None if window.last is None else window.last - before
        ended = last is not None and last < first               # the window, before this zone: its total is wanted
        part = _zone(client, zone, api.Window(1, 1) if ended else api.Window(first, last))
        parts.append(api.Rows([], part.total) if ended else part)
        before += part.total or 0
    return parts


def _zones(client: api.Client, region: str = "") -> tuple[str, ...]:
    """The region's zones in the order of their names. Raises UnknownRegion if it has none."""
    region = region or client.region
    known = _ZONES.get(region)
    zones = tuple(f"{region}-{n}" for n in range(1, (known or _MOST_ZONES) + 1))
    if known:
        return zones
    there = api.cached_lookup(client.account, "scaleway zones", zones, lambda missing: dict(
        zip(missing, client.for_each(missing, lambda zone: _is_there(client, zone)), strict=True)))
    if not any(there.values()):
        raise api.UnknownRegion("Scaleway Instances has no such region.")
    return tuple(zone for zone in zones if there.get(zone))


def _is_there(client: api.Client, zone: str) -> bool:
    try:
        _zone(client, zone, api.Window(1, 1))
        return True
    except api.UnknownRegion:
        return False
    except api.PartyFailed as refused:      # of the list of regions, not about this one
        if refused.party_code != "unknown_zone":
            raise
        return False


def _zone(client: api.Client, zone: str, window: api.Window) -> api.Rows[_Row]:
    servers = api.List(_CLOUD, "ListServers", f"/instance/v1/zones/{zone}/servers", "servers", _Row)
    rows = client.pages(servers, window, order="creation_date_asc", project=client.project or None)
    if client.project:
        api.only(rows.rows, lambda row: row.project, client.project)
    return rows


def _sbs(client: api.Client, zone: str, ids: Sequence[str] | None = None) -> list[_BlockVolume]:
    """The zone's block volumes, or those of these ids."""
    volumes = api.List(_LATER, "ListVolumes", f"/block/v1/zones/{zone}/volumes", "volumes", _BlockVolume)
    if ids is None:
        return client.all(volumes)
    return client.in_batches(ids, _BATCH, lambda batch: client.all(volumes, volume_ids=batch))


def _ipam(client: api.Client, ids: Sequence[str] | None = None) -> list[_IpamIp]:
    """The addresses of the region's private interfaces, or of these."""
    ips = api.List(_LATER, "ListIps", "/ipam/v1/regions/{region}/ips", "ips", _IpamIp,
                   query={"resource_type": "instance_private_nic"})
    if ids is None:
        return client.all(ips)
    return client.in_batches(ids, _BATCH, lambda batch: client.all(ips, resource_ids=batch))


def _joined(parts: Iterable[list[_BlockVolume]]) -> list[_BlockVolume]:
    return [volume for part in parts for volume in part]


def _types(client: api.Client, zone: str, rows: Iterable[_Row]) -> dict[str, _CommercialType]:
    catalogue = api.map_of(
        _CLOUD, "ListServerTypes", f"/instance/v1/zones/{zone}/products/servers", "servers", _CommercialType)
    return api.cached_lookup(client.account, ("scaleway", zone), [row.commercial_type or "" for row in rows],
                             lambda _: dict(client.all(catalogue)))


def _server(row: _Row, zone: str, types: Mapping[str, _CommercialType], sizes: Mapping[str, int | None],
            private: Mapping[str, list[str]]) -> api.Server:
    cpu, memory_mib = _size(types.get(row.commercial_type or ""), row.commercial_type or "")
    detail = row.state_detail if row.state_detail in _DETAILS else None
    nics = [nic.id or "" for nic in row.private_nics or ()]
    disks = None if row.volumes is None else [sizes.get(volume.id or "") if volume.size is None else volume.size
                                              for volume in row.volumes.values()]
    return api.Server(
        id=row.id,
        name=row.name or "",
        cpu=cpu,
        memory_mib=memory_mib,
        disk_gib=None if disks is None or None in disks else -(-sum(size or 0 for size in disks) // 10 ** 9),
        **api.addresses(lan=[row.private_ip, *(ip for nic in nics for ip in private.get(nic, ()))],
                        wan=[row.public_ip and row.public_ip.address, *(ip.address for ip in row.public_ips or ()),
                 row.ipv6 and row.ipv6.address]),
        status=_DETAILS[detail] if detail else _STATUS.get(row.state or "", api.Status.UNKNOWN),
        party_status=" ".join(filter(None, (row.state, detail))),
        created_at=api.parse_time(row.creation_date),
        updated_at=api.parse_time(row.modification_date),
        zone=zone,
        project_id=row.project or "",
        instance_type=row.commercial_type or "",
        tags=api.plain(row.tags),
        image_id=row.image and row.image.id,
        image_name=row.image and row.image.name,
        os=api.os_family(row.image.name) if row.image and row.image.public else None,           # Scaleway's own image
        subnet_id=api.first(nic.private_network_id for nic in row.private_nics or ()),
        security_groups=api.groups([None if row.security_group is None else [row.security_group.id]]),
        host_id=row.location and row.location.hypervisor_id,
        console_url=f"https://console.scaleway.com/instance/servers/{zone}/{row.id}/overview",
    )


def _size(kind: _CommercialType | None, name: str) -> tuple[int | None, int | None]:
    """CPUs and MiB, by the catalogue or else by the type's name."""
    if kind:
        return kind.ncpus, None if kind.ram is None else kind.ram // 1024 ** 2
    named = _NAMED.search(name)
    return (int(named[1]), int(named[2]) * 1024) if named else (None, None)


# ---------------------------------------------------------------- regions, check

def list_regions(client: api.Client) -> list[api.Region]:
    """Those that this module knows: the party has no such call."""
    return [*(api.Region(region) for region in _ZONES), api.Region(_RESTRICTED, "", _is_open(client))]


def _is_open(client: api.Client) -> bool:
    try:
        return bool(_zones(client, _RESTRICTED))
    except (api.UnknownRegion, api.PartyDenied):                # the other regions say so if nothing may be seen at all
        return False


def check(client: api.Client) -> None:
    _zone(client, _zones(client)[0], api.Window(1, 1))


_REGION_NAMES = {                           # https://www.scaleway.com/en/docs/account/reference-content/products-availability/
    "fr-par": "Paris", "nl-ams": "Amsterdam", "pl-waw": "Warsaw", "it-mil": "Milan",
}

PARTY = api.Party(
    name="scaleway",
    title="Scaleway Instances",
    reference="https://www.scaleway.com/en/developers/api/instances/",
    order="by creation, requested; numbered pages",
    credentials=(("token",),),
    grade="recorded",
    permissions=("InstancesReadOnly", "BlockStorageReadOnly", "IPAMReadOnly"),
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z]{2}-[a-z]{3}",
    default_region="fr-par",
    project="a project's id",
    project_form=r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    limits=api.unpublished(20, "ListServers", "ListVolumes", "ListIps", "ListServerTypes"),
    error_code=api.any_error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
