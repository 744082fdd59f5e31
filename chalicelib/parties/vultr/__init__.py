"""Vultr: API v2.

https://www.vultr.com/api/#operation/list-instances

Units: memory MB, disks GB. Times: UTC. Paging: a cursor, per_page at most 500 (default 100), meta.total; the order is
not documented. `region` narrows. There is no time of the last update.

An unknown region is an empty list, so that one is believed only of a region in /v2/regions. Two words tell the state,
`status` and `power_status`; `server_status` tells a first installation. `main_ip` is 0.0.0.0 and `internal_ip` "" as
long as there is none. Block storage and reserved IPs are the account's and read side by side with the instances, also
for a window. Further addresses of an instance, and those in several VPCs, are listed per instance alone and not read.
Bare metal is another product.

A key opens the whole account and only for the addresses on its list: 401 and 403 may mean that ours is not on it.
Rates: 30 calls a second for the address that calls.
"""

from typing import Any

import msgspec

from ...cloud import api

_PAGE = 500
_CLOUD = api.Cloud("api.vultr.com", lambda: _PAGE, cursor="cursor")

_STATUS = {                                 # status, and of an active one its power_status
    "pending": api.Status.BUILD,
    "active running": api.Status.ACTIVE,
    "active starting": api.Status.STARTING,
    "active stopped": api.Status.SHUTOFF,
    "active installingbooting": api.Status.BUILD,               # server_status: its first start is to come
    "suspended": api.Status.SUSPENDED,
    "resizing": api.Status.RESIZE,
}


# ---------------------------------------------------------------- the shapes that we read

class _Instance(msgspec.Struct, gc=False):
    id: api.Text
    region: str
    label: str | None = None
    vcpu_count: api.Count | None = None
    ram: api.Count | None = None
    disk: api.Count | None = None
    main_ip: str | None = None
    internal_ip: str | None = None
    v6_main_ip: str | None = None
    status: str | None = None
    power_status: str | None = None
    server_status: str | None = None
    date_created: str | None = None
    plan: str | None = None
    tags: list[str] | None = None
    os: str | None = None
    image_id: str | None = None             # "" if it was made from an operating system
    firewall_group_id: str | None = None


class _Block(msgspec.Struct, gc=False):
    id: api.Text
    size_gb: api.Count | None = None
    attached_to_instance: Any = None


class _ReservedIp(msgspec.Struct, gc=False):
    id: api.Text
    ip_type: str | None = None
    subnet: str | None = None
    instance_id: str | None = None


class _Region(msgspec.Struct):
    id: api.Text
    city: str | None = None


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    instances, blocks, ips = client.run_all(lambda: client.walk(_INSTANCES, window, region=client.region),
                                        lambda: client.all(_BLOCKS), lambda: client.all(_RESERVED_IPS))
    rows = api.only(instances.rows, lambda row: row.region, client.region)
    sizes = api.attached(((block.attached_to_instance,), block.size_gb) for block in blocks)
    reserved = api.by_owner((ip.instance_id, ip.subnet) for ip in ips if ip.ip_type == "v4")        # v6 is a network
    return api.Listing([_server(row, sizes.of(row.id, 0), reserved.get(row.id, [])) for row in rows], instances.total)


_INSTANCES = api.List(_CLOUD, "ListInstances", "/v2/instances", "instances", _Instance)
_BLOCKS = api.List(_CLOUD, "ListBlocks", "/v2/blocks", "blocks", _Block)
_RESERVED_IPS = api.List(_CLOUD, "ListReservedIps", "/v2/reserved-ips", "reserved_ips", _ReservedIp)
_REGIONS = api.List(_CLOUD, "ListRegions", "/v2/regions", "regions", _Region)


def _server(row: _Instance, blocks: int | None, reserved: list[str | None]) -> api.Server:
    word = row.status or ""
    if word == "active":
        word += " " + ((row.power_status or "") if row.server_status != "installingbooting" else row.server_status)
    main = None if row.main_ip == "0.0.0.0" else row.main_ip                   # noqa: S104
    return api.Server(
        id=row.id,
        name=row.label or "",
        cpu=row.vcpu_count,
        memory_mib=row.ram,
        disk_gib=api.total_gib((row.disk, blocks)),
        **api.addresses(lan=[row.internal_ip], wan=[main, row.v6_main_ip, *reserved]),
        **PARTY.status_of(word),
        created_at=api.parse_time(row.date_created),
        zone=row.region,
        instance_type=row.plan or "",
        tags=api.plain(row.tags),
        image_id=row.image_id,
        os=api.os_family(row.os),
        security_groups=api.ids(None if row.firewall_group_id is None else [row.firewall_group_id]),
        console_url=f"https://my.vultr.com/subs/?id={row.id}",
    )


# the cities of GET /v2/regions of 2026-10-06, kept in @infrawrench's plugin
_REGION_NAMES = {
    "ams": "Amsterdam", "atl": "Atlanta", "blr": "Bangalore", "bom": "Mumbai", "cdg": "Paris", "del": "Delhi NCR",
    "dfw": "Dallas", "ewr": "New Jersey", "fra": "Frankfurt", "hnl": "Honolulu", "icn": "Seoul", "itm": "Osaka",
    "jnb": "Johannesburg", "lax": "Los Angeles", "lhr": "London", "mad": "Madrid", "man": "Manchester",
    "mel": "Melbourne", "mex": "Mexico City", "mia": "Miami", "mxp": "Milan", "nrt": "Tokyo", "ord": "Chicago",
    "sao": "São Paulo",
    "scl": "Santiago", "sea": "Seattle", "sgp": "Singapore", "sjc": "Silicon Valley", "sto": "Stockholm",
    "syd": "Sydney", "tlv": "Tel Aviv", "waw": "Warsaw", "yto": "Toronto",
}

PARTY = api.Party(
    name="vultr",
    title="Vultr",
    reference="https://www.vultr.com/api/#operation/list-instances",
    order="none documented; cursors, believed to name a row",
    credentials=(("token",),),
    permissions=("subscriptions_view",),
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z]{3}[0-9]?",
    default_region="ewr",
    unknown_region_is_empty=True,
    limits=api.per_second(10, "ListInstances", "ListBlocks", "ListReservedIps", "ListRegions"),
    error_code=api.any_error_code,
    errors=api.FREE_TEXT,                   # errors are free text: what it says and the HTTP status tell
    status=_STATUS,
    list_servers=list_servers,
    list_regions=api.regions_of(_REGIONS, lambda row: api.Region(row.id, row.city or "")),
    check=api.one_row(_INSTANCES),
)
