"""DigitalOcean Droplets: API v2.

https://docs.digitalocean.com/reference/api/digitalocean/#operation/droplets_list and the party's own OpenAPI document

Units: memory MB, disks GB (a GPU Droplet's scratch disk counts too). Times: UTC. Paging: pages from 1, per_page at most
200 (default 20!), meta.total. There is no time of the last update.

The list is the account's, and GPU Droplets are a list of their own (type=gpus): both are read whole, kept by region,
put into the order of creation and cut to the window; volumes (by region) and reserved IPs side by side with them. An
unknown region is an empty list, so that one is believed only of a region in /v2/regions. The second list cannot be
narrowed by a tag, so that --project (a tag) is kept by us; to a token without the scope tag:read the Droplets show no
tags, which is an error then. A volume that comes or goes between the lists makes the disk unknown. Reserved IPv6
addresses are not read.

Rates: 250 calls a minute and 5,000 an hour for the token, shared out here among the four lists.
"""

from collections.abc import Mapping

import msgspec

from ...cloud.bearer import Call, Cloud, List, by_owner, disk_gib, error_code, in_order, plain
from ...cloud.decoding import Nested, Whole, nested
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
    total_gib,
)

_PAGE = 200
_CLOUD = Cloud("api.digitalocean.com")

_STATUS = {                                 # status, the complete enumeration
    "new": Status.BUILD,
    "active": Status.ACTIVE,
    "off": Status.SHUTOFF,
    "archive": Status.SHELVED_OFFLOADED,
}

_ERRORS = {                                 # the id of an error
    "unauthorized": WRONG_KEY,
    "forbidden": MISSING_RIGHT,
    "too_many_requests": THROTTLED,
    "bad_request": MALFORMED,
    "not_found": MALFORMED,
    "unprocessable_entity": MALFORMED,
    "server_error": FAILED,
    "service_unavailable": UNAVAILABLE,
}


# ---------------------------------------------------------------- the shapes that we read

class _Slug(msgspec.Struct, gc=False):
    slug: Text


class _Address(msgspec.Struct, gc=False):
    ip_address: str | None = None
    type: str | None = None


class _Networks(msgspec.Struct, gc=False):
    v4: list[_Address] | None = None
    v6: list[_Address] | None = None


class _DiskSize(msgspec.Struct, gc=False):
    amount: Count | None = None
    unit: str | None = None                 # "gib", "tib"


class _DropletDisk(msgspec.Struct, gc=False):
    type: str | None = None                 # "local" or "boot" is `disk` itself
    size: _DiskSize | None = None


class _Droplet(msgspec.Struct, gc=False):
    id: int
    region: _Slug
    name: str | None = None
    memory: Count | None = None
    vcpus: Count | None = None
    disk: Count | None = None
    disk_info: Nested = msgspec.UNSET
    status: str | None = None
    created_at: str | None = None
    networks: _Networks | None = None
    volume_ids: Whole[list[str] | None] = None
    size_slug: str | None = None
    tags: list[str] | None = None


class _Volume(msgspec.Struct, gc=False):
    id: Text
    size_gigabytes: Count | None = None


class _Owner(msgspec.Struct, gc=False):
    id: int


class _ReservedIp(msgspec.Struct, gc=False):
    id: Text = msgspec.field(name="ip")
    droplet: _Owner | None = None


class _Region(msgspec.Struct):
    id: Text = msgspec.field(name="slug")
    name: str | None = None
    available: bool | None = None


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    call = Call(_CLOUD, _PAGE, source.region, account, send)
    plain_droplets, gpu_droplets, volumes, reserved = run_all([
        lambda: call.all(_DROPLETS),
        lambda: call.all(_GPU_DROPLETS, [("type", "gpus")]),
        lambda: call.all(_VOLUMES, [("region", source.region)]),
        lambda: call.all(_RESERVED_IPS),
    ], 4)
    rows: dict[int, _Droplet] = {row.id: row for row in [*plain_droplets, *gpu_droplets]
                                 if row.region.slug == source.region}
    tag = account.project
    if tag is not None and any(row.tags is None for row in rows.values()):
        raise PartyMalformed("The party does not show the Droplets' tags; the token needs the scope tag:read.")
    sizes = {volume.id: volume.size_gigabytes for volume in volumes}
    floating = by_owner((ip.droplet and ip.droplet.id, ip.id) for ip in reserved)
    return in_order((_server(row, sizes, floating.get(str(row.id), [])) for row in rows.values()
                     if tag is None or tag in (row.tags or ())), window)


_DROPLETS = List("ListDroplets", "/v2/droplets", "droplets", list[_Droplet])
_GPU_DROPLETS = List("ListGpuDroplets", "/v2/droplets", "droplets", list[_Droplet])
_VOLUMES = List("ListVolumes", "/v2/volumes", "volumes", list[_Volume])
_RESERVED_IPS = List("ListReservedIps", "/v2/reserved_ips", "reserved_ips", list[_ReservedIp])
_REGIONS = List("ListRegions", "/v2/regions", "regions", list[_Region])


def _server(row: _Droplet, sizes: Mapping[str, int | None], reserved: list[str]) -> Server:
    networks = row.networks or _Networks()
    found = [*(networks.v4 or ()), *(networks.v6 or ())]
    lan4, lan6 = addresses(*(a.ip_address for a in found if a.type == "private"))
    wan4, wan6 = addresses(*(a.ip_address for a in found if a.type == "public"), *reserved)
    return Server(
        id=str(row.id),
        name=row.name or "",
        cpu=row.vcpus,
        memory_mib=row.memory,
        disk_gib=disk_gib(total_gib((row.disk, _scratch(row))), row.volume_ids, sizes),
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_STATUS.get(row.status or "", Status.UNKNOWN),
        party_status=row.status or "",
        created_at=parse_time(row.created_at),
        zone=row.region.slug,
        instance_type=row.size_slug or "",
        tags=plain(row.tags),
    )


def _scratch(row: _Droplet) -> int | None:
    """GiB of scratch disks; None if a disk cannot be read, which may be one."""
    disks = nested(row.disk_info, _DropletDisk)
    return None if disks is None else total_gib(_amount(disk) for disk in disks if disk.type not in ("local", "boot"))


def _amount(disk: _DropletDisk) -> int | None:
    if disk.type != "scratch" or disk.size is None or disk.size.amount is None:
        return None
    return disk.size.amount * (1024 if disk.size.unit == "tib" else 1)


# ---------------------------------------------------------------- regions, check

def list_regions(account: Account, send: Send) -> list[Region]:
    rows: list[_Region] = Call(_CLOUD, _PAGE, "", account, send).all(_REGIONS)
    return [Region(row.id, row.name or "", row.available is not False) for row in rows]


def check(source: Source, account: Account, send: Send) -> None:
    Call(_CLOUD, _PAGE, source.region, account, send).pages(_DROPLETS, Window(1, 1))


PARTY = Party(
    name="digitalocean",
    title="DigitalOcean Droplets",
    reference="https://docs.digitalocean.com/reference/api/digitalocean/#operation/droplets_list",
    order="none documented; numbered pages",
    credentials=(("token",),),
    permissions=("droplet:read", "block_storage:read", "reserved_ip:read", "regions:read", "tag:read"),
    region_form=r"[a-z]{3}[0-9]{1,2}",
    default_region="nyc3",
    unknown_region_is_empty=True,
    project="a tag that every Droplet of the project carries, spelt as the party shows it",
    project_form=r"[A-Za-z0-9:_-]{1,255}",
    limits={operation: Limit(60, 60.0) for operation in (
        "ListDroplets", "ListGpuDroplets", "ListVolumes", "ListReservedIps", "ListRegions")},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
