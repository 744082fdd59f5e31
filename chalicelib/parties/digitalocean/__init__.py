"""DigitalOcean Droplets: API v2.

https://docs.digitalocean.com/reference/api/digitalocean/#operation/droplets_list and the party's own OpenAPI document

Units: memory MB, disks GB (a GPU Droplet's scratch disk counts too). Times: UTC. Paging: pages from 1, per_page at most
200 (default 20!), meta.total. There is no time of the last update.

The list is the account's, and GPU Droplets are a list of their own (type=gpus): both are read whole, kept by region,
put into the order of creation and cut to the window; volumes (by region) and reserved IPs (IPv6 is a list of its own)
side by side with them. An unknown region is an empty list, so that one is believed only of a region in /v2/regions. The
second list cannot be narrowed by a tag, so that --project (a tag) is kept by us; to a token without the scope tag:read
the Droplets show no tags, which is an error then. A volume that comes or goes between the lists makes the disk unknown.

Rates: 250 calls a minute and 5,000 an hour for the token, shared out here among the five lists.
"""

from collections.abc import Mapping

import msgspec

from ...cloud import api

_PAGE = 200
_CLOUD = api.Cloud("api.digitalocean.com", lambda: _PAGE)

_STATUS = {                                 # status, the complete enumeration
    "new": api.Status.BUILD,
    "active": api.Status.ACTIVE,
    "off": api.Status.SHUTOFF,
    "archive": api.Status.SHELVED_OFFLOADED,
}

_ERRORS = {                                 # the id of an error
    "unauthorized": api.WRONG_KEY,
    "forbidden": api.MISSING_RIGHT,
    "too_many_requests": api.THROTTLED,
    "bad_request": api.MALFORMED,
    "not_found": api.MALFORMED,
    "unprocessable_entity": api.MALFORMED,
    "server_error": api.FAILED,
    "service_unavailable": api.UNAVAILABLE,
}


# ---------------------------------------------------------------- the shapes that we read

class _Slug(msgspec.Struct, gc=False):
    slug: api.Text


class _Address(msgspec.Struct, gc=False):
    ip_address: str | None = None
    type: str | None = None


class _Networks(msgspec.Struct, gc=False):
    v4: list[_Address] | None = None
    v6: list[_Address] | None = None


class _DiskSize(msgspec.Struct, gc=False):
    amount: api.Count | None = None
    unit: str | None = None                 # "gib", "tib"


class _DropletDisk(msgspec.Struct, gc=False):
    type: str | None = None                 # "local" or "boot" is `disk` itself
    size: _DiskSize | None = None


class _Image(msgspec.Struct, gc=False):
    id: int | None = None
    name: str | None = None
    distribution: str | None = None


class _Droplet(msgspec.Struct, gc=False):
    id: int
    region: _Slug
    name: str | None = None
    memory: api.Count | None = None
    vcpus: api.Count | None = None
    disk: api.Count | None = None
    disk_info: api.Nested = msgspec.UNSET
    status: str | None = None
    created_at: str | None = None
    networks: _Networks | None = None
    volume_ids: api.Whole[list[str] | None] = None
    size_slug: str | None = None
    tags: list[str] | None = None
    image: _Image | None = None
    vpc_uuid: str | None = None


class _Volume(msgspec.Struct, gc=False):
    id: api.Text
    size_gigabytes: api.Count | None = None


class _Owner(msgspec.Struct, gc=False):
    id: int


class _ReservedIp(msgspec.Struct, gc=False):
    id: api.Text = msgspec.field(name="ip")
    droplet: _Owner | None = None


class _Region(msgspec.Struct):
    id: api.Text = msgspec.field(name="slug")
    name: str | None = None                 # `available` says whether new Droplets can be made: old ones live on


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    plain_droplets, gpu_droplets, volumes, reserved, reserved_ipv6 = client.run_all(
        lambda: client.all(_DROPLETS), lambda: client.all(_GPU_DROPLETS),
        lambda: client.all(_VOLUMES, region=client.region), lambda: client.all(_RESERVED_IPS),
        lambda: client.all(_RESERVED_IPV6))
    rows = {row.id: row for row in [*plain_droplets, *gpu_droplets]}
    tag = client.project
    if tag is not None and any(row.tags is None for row in rows.values()):
        raise api.PartyMalformed("The party does not show the Droplets' tags; the token needs the scope tag:read.")
    sizes = {volume.id: volume.size_gigabytes for volume in volumes}
    floating = api.by_owner((ip.droplet and ip.droplet.id, ip.id) for ip in [*reserved, *reserved_ipv6])
    here, elsewhere = api.parted((row for row in rows.values() if tag is None or tag in (row.tags or ())),
                                 lambda row: row.region.slug, client.region)
    return api.in_order((_server(row, sizes, floating.get(str(row.id), [])) for row in here), window, elsewhere)


_DROPLETS = api.List(_CLOUD, "ListDroplets", "/v2/droplets", "droplets", _Droplet)
_GPU_DROPLETS = api.List(_CLOUD, "ListGpuDroplets", "/v2/droplets", "droplets", _Droplet, query={"type": "gpus"})
_VOLUMES = api.List(_CLOUD, "ListVolumes", "/v2/volumes", "volumes", _Volume)
_RESERVED_IPS = api.List(_CLOUD, "ListReservedIps", "/v2/reserved_ips", "reserved_ips", _ReservedIp)
_RESERVED_IPV6 = api.List(_CLOUD, "ListReservedIpv6", "/v2/reserved_ipv6", "reserved_ipv6s", _ReservedIp)
_REGIONS = api.List(_CLOUD, "ListRegions", "/v2/regions", "regions", _Region)


def _server(row: _Droplet, sizes: Mapping[str, int | None], reserved: list[str]) -> api.Server:
    networks, image = row.networks or _Networks(), row.image or _Image()
    addresses = [*(networks.v4 or ()), *(networks.v6 or ())]
    return api.Server(
        id=str(row.id),
        name=row.name or "",
        cpu=row.vcpus,
        memory_mib=row.memory,
        disk_gib=api.disk_gib(api.total_gib((row.disk, _scratch(row))), row.volume_ids, sizes),
        **api.addresses(lan=(a.ip_address for a in addresses if a.type == "private"),
                        wan=[*(a.ip_address for a in addresses if a.type == "public"), *reserved]),
        **PARTY.status_of(row.status),
        created_at=api.parse_time(row.created_at),
        zone=row.region.slug,
        instance_type=row.size_slug or "",
        tags=api.plain(row.tags),
        image_id=None if image.id is None else str(image.id),
        image_name=image.name,
        os=api.os_family(image.distribution),
        vpc_id=row.vpc_uuid,
        console_url=f"https://cloud.digitalocean.com/droplets/{row.id}",
    )


def _scratch(row: _Droplet) -> int | None:
    """GiB of scratch disks; None if a disk cannot be read, which may be one."""
    disks = api.nested(row.disk_info, _DropletDisk)
    return None if disks is None else api.total_gib(
        _amount(disk) for disk in disks if disk.type not in ("local", "boot"))


def _amount(disk: _DropletDisk) -> int | None:
    if disk.type != "scratch" or disk.size is None or disk.size.amount is None:
        return None
    return disk.size.amount * (1024 if disk.size.unit == "tib" else 1)


# the names of GET /v2/regions, in answers that users published
_REGION_NAMES = {
    "nyc1": "New York 1", "nyc2": "New York 2", "nyc3": "New York 3", "ams2": "Amsterdam 2", "ams3": "Amsterdam 3",
    "sfo1": "San Francisco 1", "sfo2": "San Francisco 2", "sfo3": "San Francisco 3", "sgp1": "Singapore 1",
    "lon1": "London 1", "fra1": "Frankfurt 1", "tor1": "Toronto 1", "blr1": "Bangalore 1", "syd1": "Sydney 1",
    "atl1": "Atlanta 1",
}

PARTY = api.Party(
    name="digitalocean",
    title="DigitalOcean Droplets",
    reference="https://docs.digitalocean.com/reference/api/digitalocean/#operation/droplets_list",
    order="none documented; numbered pages",
    credentials=(("token",),),
    permissions=("droplet:read", "block_storage:read", "reserved_ip:read", "regions:read", "tag:read"),
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z]{3}[0-9]{1,2}",
    default_region="nyc3",
    unknown_region_is_empty=True,
    project="a tag that every Droplet of the project carries, spelt as the party shows it",
    project_form=r"[A-Za-z0-9:_-]{1,255}",
    limits=api.per_seconds(
        60.0, 50, "ListDroplets", "ListGpuDroplets", "ListVolumes", "ListReservedIps", "ListReservedIpv6",
        "ListRegions"),
    error_code=api.any_error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=api.regions_of(_REGIONS, lambda row: api.Region(row.id, row.name or "")),
    check=api.one_row(_DROPLETS),
)
