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

from ...cloud import api

_PAGE = 50
_CLOUD = api.Cloud("api.hetzner.cloud", lambda: _PAGE)
_BY_ID = {"sort": "id:asc"}

_STATUS = {                                 # status, the complete enumeration
    "initializing": api.Status.BUILD,
    "starting": api.Status.STARTING,
    "running": api.Status.ACTIVE,
    "stopping": api.Status.STOPPING,
    "off": api.Status.SHUTOFF,
    "deleting": api.Status.DELETED,
    "migrating": api.Status.MIGRATING,
    "rebuilding": api.Status.REBUILD,
    "unknown": api.Status.UNKNOWN,
}

_ERRORS = {                                 # the code of an error
    "unauthorized": api.WRONG_KEY,
    "forbidden": api.MISSING_RIGHT,
    "rate_limit_exceeded": api.THROTTLED,
    "invalid_input": api.MALFORMED,
    "deprecated_api_endpoint": api.MALFORMED,
    "conflict": api.FAILED,                 # something changed meanwhile: another try may succeed
    "locked": api.FAILED,
    "resource_unavailable": api.UNAVAILABLE,
    "json_error": api.MALFORMED,
    "not_found": api.MALFORMED,
    "method_not_allowed": api.MALFORMED,
    "service_error": api.FAILED,
    "server_error": api.FAILED,
    "maintenance": api.UNAVAILABLE,
    "unavailable": api.UNAVAILABLE,
    "bad_gateway": api.UNAVAILABLE,
    "timeout": api.UNAVAILABLE,
}


# ---------------------------------------------------------------- the shapes that we read

class _Ip(msgspec.Struct, gc=False):
    ip: str | None = None


class _Firewall(msgspec.Struct, gc=False):
    id: int | None = None


class _PublicNet(msgspec.Struct, gc=False):
    ipv4: _Ip | None = None
    ipv6: _Ip | None = None
    firewalls: list[_Firewall] | None = None


class _Image(msgspec.Struct, gc=False):
    id: int | None = None
    name: str | None = None                 # null if it is a snapshot
    description: str | None = None
    os_flavor: str | None = None


class _PrivateNet(msgspec.Struct, gc=False):
    ip: str | None = None
    network: int | None = None
    alias_ips: list[str] | None = None


class _Type(msgspec.Struct, gc=False):
    name: str | None = None
    cores: api.Count | None = None
    memory: Annotated[float, msgspec.Meta(ge=0, le=10 ** 6)] | None = None          # GB


class _Location(msgspec.Struct, gc=False):
    name: api.Text
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
    primary_disk_size: api.Count | None = None
    volumes: list[int] | None = None
    location: _Location | None = None
    datacenter: _Site | None = None
    labels: dict[str, str] | None = None
    image: _Image | None = None


class _Volume(msgspec.Struct, gc=False):
    id: int
    size: api.Count | None = None


class _FloatingIp(msgspec.Struct, gc=False):
    id: int
    ip: str | None = None
    server: int | None = None


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    rows, volumes, ips = client.run_all(
        lambda: client.all(_SERVERS), lambda: client.all(_VOLUMES), lambda: client.all(_FLOATING_IPS))
    sizes = {str(volume.id): volume.size for volume in volumes}
    floating = api.by_owner((ip.server, ip.ip) for ip in ips)
    here, elsewhere = api.parted(rows, lambda row: _location(row).name, client.region)
    return api.in_order((_server(row, sizes, floating.get(str(row.id), [])) for row in here), window, elsewhere)


_SERVERS = api.List(_CLOUD, "ListServers", "/v1/servers", "servers", _Row, query=_BY_ID)
_VOLUMES = api.List(_CLOUD, "ListVolumes", "/v1/volumes", "volumes", _Volume, query=_BY_ID)
_FLOATING_IPS = api.List(_CLOUD, "ListFloatingIps", "/v1/floating_ips", "floating_ips", _FloatingIp, query=_BY_ID)
_LOCATIONS = api.List(_CLOUD, "ListLocations", "/v1/locations", "locations", _Location)


def _location(row: _Row) -> _Location:
    location = row.location or (row.datacenter and row.datacenter.location)
    if not location:
        raise api.PartyMalformed("The party listed a server without its location.")
    return location


def _server(row: _Row, sizes: Mapping[str, int | None], floating: list[str | None]) -> api.Server:
    public, kind, image = row.public_net or _PublicNet(), row.server_type or _Type(), row.image or _Image()
    network = row.private_net[0].network if row.private_net else None
    return api.Server(
        id=str(row.id),
        name=row.name or "",
        cpu=kind.cores,
        memory_mib=None if kind.memory is None else round(kind.memory * 1024),
        disk_gib=api.disk_gib(row.primary_disk_size, row.volumes, sizes),
        **api.addresses(lan=[*(ip for net in row.private_net or () for ip in (net.ip, *(net.alias_ips or ())))],
                        wan=[public.ipv4 and public.ipv4.ip, api.first_of(public.ipv6 and public.ipv6.ip), *floating]),
        **PARTY.status_of(row.status),
        created_at=api.parse_time(row.created),
        zone=(row.datacenter and row.datacenter.name) or _location(row).name,
        instance_type=kind.name or "",
        tags=row.labels or {},
        image_id=None if image.id is None else str(image.id),
        image_name=image.name or image.description,
        os=api.os_family(image.os_flavor),
        vpc_id=None if network is None else str(network),
        security_groups=api.groups([None if public.firewalls is None else [
            None if firewall.id is None else str(firewall.id) for firewall in public.firewalls]]),
    )


# the API's cities; WWW::Hetzner (metacpan.org) lists the same
_REGION_NAMES = {
    "fsn1": "Falkenstein", "nbg1": "Nuremberg", "hel1": "Helsinki", "ash": "Ashburn, VA", "hil": "Hillsboro, OR",
    "sin": "Singapore",
}

PARTY = api.Party(
    name="hetzner",
    title="Hetzner Cloud",
    reference="https://docs.hetzner.cloud/reference/cloud#servers-list-servers",
    order="by id, requested; numbered pages",
    credentials=(("token",),),
    permissions=("a read-only token of the project",),
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z]{3}[0-9]{0,2}",
    default_region="fsn1",
    unknown_region_is_empty=True,
    limits=api.per_seconds(3600.0, 1100, "ListServers", "ListVolumes", "ListFloatingIps", "ListLocations"),
    error_code=api.any_error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=api.regions_of(_LOCATIONS, lambda row: api.Region(row.name, row.description or "")),
    check=api.one_row(_SERVERS),
)
