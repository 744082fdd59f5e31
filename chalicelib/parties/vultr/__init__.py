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

from ...cloud.bearer import FREE_TEXT, Call, Cloud, List, by_owner, error_code, only, plain
from ...concurrency import run_both
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
    attached,
    parse_time,
    total_gib,
)

_PAGE = 500
_CLOUD = Cloud("api.vultr.com", cursor="cursor")

_STATUS = {                                 # status, and of an active one its power_status
    "pending": Status.BUILD,
    "active running": Status.ACTIVE,
    "active starting": Status.STARTING,
    "active stopped": Status.SHUTOFF,
    "active installingbooting": Status.BUILD,                   # server_status: its first start is to come
    "suspended": Status.SUSPENDED,
    "resizing": Status.RESIZE,
}

_ERRORS = FREE_TEXT                         # errors are free text: what it says and the HTTP status tell


# ---------------------------------------------------------------- the shapes that we read

class _Instance(msgspec.Struct, gc=False):
    id: Text
    region: str
    label: str | None = None
    vcpu_count: Count | None = None
    ram: Count | None = None
    disk: Count | None = None
    main_ip: str | None = None
    internal_ip: str | None = None
    v6_main_ip: str | None = None
    status: str | None = None
    power_status: str | None = None
    server_status: str | None = None
    date_created: str | None = None
    plan: str | None = None
    tags: list[str] | None = None


class _Block(msgspec.Struct, gc=False):
    id: Text
    size_gb: Count | None = None
    attached_to_instance: Any = None


class _ReservedIp(msgspec.Struct, gc=False):
    id: Text
    ip_type: str | None = None
    subnet: str | None = None
    instance_id: str | None = None


class _Region(msgspec.Struct):
    id: Text
    city: str | None = None


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    call = Call(_CLOUD, _PAGE, source.region, account, send)
    found, (blocks, ips) = run_both(lambda: call.walk(_INSTANCES, window, [("region", source.region)]),
                                lambda: run_both(lambda: call.all(_BLOCKS), lambda: call.all(_RESERVED_IPS)))
    rows: list[_Instance] = only(found.rows, lambda row: row.region, source.region)
    sizes = attached(((block.attached_to_instance,), block.size_gb) for block in blocks)
    reserved = by_owner((ip.instance_id, ip.subnet) for ip in ips if ip.ip_type == "v4")        # v6 is a network
    return Listing([_server(row, sizes.of(row.id, 0), reserved.get(row.id, [])) for row in rows], found.total)


_INSTANCES = List("ListInstances", "/v2/instances", "instances", list[_Instance])
_BLOCKS = List("ListBlocks", "/v2/blocks", "blocks", list[_Block])
_RESERVED_IPS = List("ListReservedIps", "/v2/reserved-ips", "reserved_ips", list[_ReservedIp])
_REGIONS = List("ListRegions", "/v2/regions", "regions", list[_Region])


def _server(row: _Instance, blocks: int | None, reserved: list[str | None]) -> Server:
    word = row.status or ""
    if word == "active":
        word += " " + ((row.power_status or "") if row.server_status != "installingbooting" else row.server_status)
    main = None if row.main_ip == "0.0.0.0" else row.main_ip                   # noqa: S104
    lan4, lan6 = addresses(row.internal_ip)
    wan4, wan6 = addresses(main, row.v6_main_ip, *reserved)
    return Server(
        id=row.id,
        name=row.label or "",
        cpu=row.vcpu_count,
        memory_mib=row.ram,
        disk_gib=total_gib((row.disk, blocks)),
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_STATUS.get(word, Status.UNKNOWN),
        party_status=word,
        created_at=parse_time(row.date_created),
        zone=row.region,
        instance_type=row.plan or "",
        tags=plain(row.tags),
    )


# ---------------------------------------------------------------- regions, check

def list_regions(account: Account, send: Send) -> list[Region]:
    rows: list[_Region] = Call(_CLOUD, _PAGE, "", account, send).all(_REGIONS)
    return [Region(row.id, row.city or "") for row in rows]


def check(source: Source, account: Account, send: Send) -> None:
    Call(_CLOUD, _PAGE, source.region, account, send).walk(_INSTANCES, Window(1, 1))


PARTY = Party(
    name="vultr",
    title="Vultr",
    reference="https://www.vultr.com/api/#operation/list-instances",
    order="none documented; cursors, believed to name a row",
    credentials=(("token",),),
    permissions=("subscriptions_view",),
    region_form=r"[a-z]{3}[0-9]?",
    default_region="ewr",
    unknown_region_is_empty=True,
    limits={operation: Limit(10) for operation in ("ListInstances", "ListBlocks", "ListReservedIps", "ListRegions")},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
