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

from collections.abc import Sequence

import msgspec

from ...cloud import api

_CLOUD = api.Cloud("api.cloudscale.ch")

_STATUS = {                                 # status
    "running": api.Status.ACTIVE,
    "stopped": api.Status.SHUTOFF,
    "paused": api.Status.PAUSED,
    "changing": api.Status.BUILD,           # any transition; the party does not say which
}


# ---------------------------------------------------------------- the shapes that we read

class _Slug(msgspec.Struct, gc=False):
    slug: api.Text


class _Flavor(msgspec.Struct, gc=False):
    slug: str | None = None
    vcpu_count: api.Count | None = None
    memory_gb: api.Count | None = None


class _Volume(msgspec.Struct, gc=False):
    size_gb: api.Count | None = None


class _Image(msgspec.Struct, gc=False):
    slug: str | None = None
    name: str | None = None
    operating_system: str | None = None


class _Net(msgspec.Struct, gc=False):
    uuid: str | None = None


class _Address(msgspec.Struct, gc=False):
    address: str | None = None
    subnet: _Net | None = None


class _Interface(msgspec.Struct, gc=False):
    type: str | None = None
    network: _Net | None = None
    addresses: list[_Address] | None = None


class _Row(msgspec.Struct, gc=False):
    uuid: api.Text
    zone: _Slug
    name: str | None = None
    status: str | None = None
    flavor: _Flavor | None = None
    volumes: list[_Volume] | None = None
    interfaces: list[_Interface] | None = None
    created_at: str | None = None
    tags: dict[str, str] | None = None
    image: _Image | None = None


class _Attached(msgspec.Struct, gc=False):
    uuid: api.Text
    server_uuids: list[str] | None = None


class _Owner(msgspec.Struct, gc=False):
    uuid: api.Text


class _FloatingIp(msgspec.Struct, gc=False):
    network: str | None = None
    server: _Owner | None = None


class _Region(msgspec.Struct):
    slug: api.Text
    zones: list[_Slug]


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    rows, ips = client.run_all(lambda: _listed(client), lambda: _floating(client) if client.account.deep else {})
    regions = api.cached_lookup(client.account, "cloudscale", [row.zone.slug for row in rows], lambda _: {
        zone.slug: region.slug for region in client.all(_REGIONS) for zone in region.zones})
    if any(row.zone.slug not in regions for row in rows):
        raise api.PartyMalformed("The party listed a server in a zone that is in none of its regions.")
    here, elsewhere = api.parted(rows, lambda row: regions[row.zone.slug], client.region)
    return api.in_order((_server(row, ips.get(row.uuid, [])) for row in here), window, elsewhere)


def _listed(client: api.Client) -> list[_Row]:
    rows = client.all(_SERVERS)
    if not rows and any(volume.server_uuids for volume in client.all(_VOLUMES)):
        raise api.PartyMalformed("The party lists no servers, but volumes that are attached to some.")
    return rows


def _floating(client: api.Client) -> dict[str, list[str]]:
    ips = client.all(_FLOATING_IPS)
    return api.by_owner((ip.server and ip.server.uuid, api.without_prefix(ip.network)) for ip in ips)


_SERVERS = api.List(_CLOUD, "ListServers", "/v1/servers", "", _Row)
_VOLUMES = api.List(_CLOUD, "ListVolumes", "/v1/volumes", "", _Attached)
_FLOATING_IPS = api.List(_CLOUD, "ListFloatingIps", "/v1/floating-ips", "", _FloatingIp)
_REGIONS = api.List(_CLOUD, "ListRegions", "/v1/regions", "", _Region)


def _server(row: _Row, floating: Sequence[str]) -> api.Server:
    flavor = row.flavor or _Flavor()
    addresses = [(net.type, ip.address) for net in row.interfaces or () for ip in net.addresses or ()]
    image, primary = row.image or _Image(), row.interfaces[0] if row.interfaces else _Interface()
    return api.Server(
        id=row.uuid,
        name=row.name or "",
        cpu=flavor.vcpu_count,
        memory_mib=None if flavor.memory_gb is None else flavor.memory_gb * 1024,
        disk_gib=None if row.volumes is None else api.total_gib(volume.size_gb for volume in row.volumes),
        **api.addresses(lan=(ip for kind, ip in addresses if kind == "private"),
                        wan=[*(ip for kind, ip in addresses if kind == "public"), *floating]),
        **PARTY.status_of(row.status),
        created_at=api.parse_time(row.created_at),
        zone=row.zone.slug,
        instance_type=flavor.slug or "",
        tags=row.tags or {},
        image_id=image.slug,
        image_name=image.name,
        os=api.os_family(image.operating_system),
        vpc_id=primary.network and primary.network.uuid,
        subnet_id=api.first(ip.subnet and ip.subnet.uuid for ip in primary.addresses or ()),
    )


# ---------------------------------------------------------------- regions

def list_regions(client: api.Client) -> list[api.Region]:
    regions = client.all(_REGIONS)
    if not regions:
        raise api.PartyMalformed("The party lists no regions.")
    return [api.Region(region.slug) for region in regions]


# where its zones rma1 and lpg1 are; from a user's runbook, no page of the vendor was found
_REGION_NAMES = {
    "rma": "Rümlang", "lpg": "Lupfig",
}

PARTY = api.Party(
    name="cloudscale",
    title="cloudscale.ch",
    reference="https://www.cloudscale.ch/en/api/v1#servers-list",
    order="no pages",
    credentials=(("token",),),
    permissions=("a read-only token of the project",),
    deep_permissions=("a read-only token of the project",),
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z]{2,12}",
    default_region="rma",
    unknown_region_is_empty=True,
    limits=api.unpublished(5, "ListServers", "ListVolumes", "ListFloatingIps", "ListRegions"),
    error_code=api.any_error_code,
    errors=api.FREE_TEXT,                   # errors are free text: what it says and the HTTP status tell
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=api.one_row(_SERVERS),
)
