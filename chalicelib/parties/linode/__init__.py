"""Akamai Linode: API v4.

https://techdocs.akamai.com/linode-api/reference/get-linode-instances

Units: memory MB, the Linode's own disk MB, volumes GB. Times: UTC, without a zone. Paging: pages from 1, page_size from
25 to 500 (default 100), results. The header X-Filter narrows (region) and orders (by id), so that a window is one page.

An unknown region is an empty list, so that one is believed only of a region in /v4/regions. `ipv4` holds public and
private addresses in one list. Addresses in a VPC are in /v4/vpcs/ips and, for IPv6, in /v4/vpcs/ipv6s, also those of
configurations that are not in use, which count only if none of the Linode's is; a row there may be a range and no
address. VPCs with IPv6 are not open to every account: where that list is 404 there are none. Volumes (by region) and
VPC addresses are read side by side with the Linodes, also for a window: neither can be asked by Linode.

Rates: 200 paged calls a minute, shared out here among the four lists.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ...cloud.bearer import FREE_TEXT, Call, Cloud, List, by_owner, error_code, only, plain, without_prefix
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
    attached,
    parse_time,
    total_gib,
)

_PAGE = 500
_LEAST = 25                                 # rows of a page
_CLOUD = Cloud("api.linode.com", size="page_size")
_PRIVATE = re.compile(r"10\.|192\.168\.|172\.(1[6-9]|2[0-9]|3[01])\.", re.ASCII)

_STATUS = {                                 # status, all documented words
    "provisioning": Status.BUILD,
    "booting": Status.STARTING,
    "running": Status.ACTIVE,
    "shutting_down": Status.STOPPING,
    "offline": Status.SHUTOFF,
    "stopped": Status.SHUTOFF,
    "rebooting": Status.REBOOT,
    "rebuilding": Status.REBUILD,
    "restoring": Status.REBUILD,            # from a backup
    "resizing": Status.RESIZE,
    "migrating": Status.MIGRATING,
    "cloning": Status.ACTIVE,
    "deleting": Status.DELETED,
    "billing_suspension": Status.SUSPENDED,
}

_ERRORS = FREE_TEXT                         # reasons are free text: what it says and the HTTP status tell


# ---------------------------------------------------------------- the shapes that we read

class _Specs(msgspec.Struct, gc=False):
    vcpus: Count | None = None
    memory: Count | None = None
    disk: Count | None = None


class _Linode(msgspec.Struct, gc=False):
    id: int
    region: str
    label: str | None = None
    status: str | None = None
    created: str | None = None
    updated: str | None = None
    type: str | None = None
    specs: _Specs | None = None
    ipv4: list[str] | None = None
    ipv6: str | None = None
    tags: list[str] | None = None


class _Volume(msgspec.Struct, gc=False):
    id: int
    size: Count | None = None
    linode_id: Any = msgspec.UNSET


class _SlaacAddress(msgspec.Struct, gc=False):
    slaac_address: str | None = None


class _VpcAddress(msgspec.Struct, gc=False):
    linode_id: int | None = None
    address: str | None = None              # None: a range, see address_range
    active: bool = False                    # the configuration that it belongs to is the one in use
    nat_1_1: str | None = None
    ipv6_is_public: bool | None = None
    ipv6_addresses: list[_SlaacAddress] | None = None


class _Region(msgspec.Struct):
    id: Text
    label: str | None = None


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    call = Call(_CLOUD, _PAGE, source.region, account, send)
    there: dict[str, str] = {"region": source.region}
    found, (volumes, ips) = run_both(
        lambda: call.pages(_LINODES, window, (), _filter({**there, "+order_by": "id", "+order": "asc"}), _LEAST),
        lambda: run_both(lambda: call.all(_VOLUMES, (), _filter(there)), lambda: _vpc_ips(call)))
    rows: list[_Linode] = only(found.rows, lambda row: row.region, source.region)
    sizes = attached(((volume.linode_id,), volume.size) for volume in volumes)
    vpcs = by_owner((ip.linode_id, ip) for ip in ips)
    return Listing([_server(row, sizes.of(str(row.id), 0), vpcs.get(str(row.id), [])) for row in rows], found.total)


def _vpc_ips(call: Call) -> list[_VpcAddress]:
    ipv4, ipv6 = run_both(lambda: call.all(_VPC_IPS), lambda: _vpc_ipv6s(call))
    return [*ipv4, *ipv6]


def _vpc_ipv6s(call: Call) -> list[_VpcAddress]:
    try:
        return call.all(_VPC_IPV6S)
    except PartyMalformed as refused:
        if refused.http_status != 404:
            raise
        return []


_LINODES = List("ListLinodes", "/v4/linode/instances", "data", list[_Linode])
_VOLUMES = List("ListVolumes", "/v4/volumes", "data", list[_Volume])
_VPC_IPS = List("ListVpcIps", "/v4/vpcs/ips", "data", list[_VpcAddress])
_VPC_IPV6S = List("ListVpcSlaacAddresses", "/v4/vpcs/ipv6s", "data", list[_VpcAddress])
_REGIONS = List("ListRegions", "/v4/regions", "data", list[_Region])


def _filter(asked: Mapping[str, str]) -> dict[str, str]:
    return {"X-Filter": msgspec.json.encode(asked).decode()}


def _server(row: _Linode, volumes: int | None, vpc: list[_VpcAddress]) -> Server:
    specs = row.specs or _Specs()
    vpc = [ip for ip in vpc if ip.active] or vpc
    slaac = [(ip.ipv6_is_public, six.slaac_address) for ip in vpc for six in ip.ipv6_addresses or ()]
    lan4, lan6 = addresses(*(ip for ip in row.ipv4 or () if _PRIVATE.match(ip)), *(ip.address for ip in vpc),
                           *(ip for public, ip in slaac if not public))
    wan4, wan6 = addresses(*(ip for ip in row.ipv4 or () if not _PRIVATE.match(ip)), *(ip.nat_1_1 for ip in vpc),
                           without_prefix(row.ipv6), *(ip for public, ip in slaac if public))
    return Server(
        id=str(row.id),
        name=row.label or "",
        cpu=specs.vcpus,
        memory_mib=specs.memory,
        disk_gib=total_gib((None if specs.disk is None else -(-specs.disk // 1024), volumes)),
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_STATUS.get(row.status or "", Status.UNKNOWN),
        party_status=row.status or "",
        created_at=parse_time(row.created),
        updated_at=parse_time(row.updated),
        zone=row.region,
        instance_type=row.type or "",
        tags=plain(row.tags),
    )


# ---------------------------------------------------------------- regions, check

def list_regions(account: Account, send: Send) -> list[Region]:
    rows: list[_Region] = Call(_CLOUD, _PAGE, "", account, send).all(_REGIONS)
    return [Region(row.id, row.label or "") for row in rows]


def check(source: Source, account: Account, send: Send) -> None:
    Call(_CLOUD, _PAGE, source.region, account, send).pages(_LINODES, Window(1, 1), (), {}, _LEAST)


PARTY = Party(
    name="linode",
    title="Akamai Linode",
    reference="https://techdocs.akamai.com/linode-api/reference/get-linode-instances",
    order="by id, requested; numbered pages",
    credentials=(("token",),),
    grade="recorded",
    permissions=("linodes:read_only", "volumes:read_only", "ips:read_only"),
    region_form=r"[a-z]{2}(-[a-z]{2,12}){1,2}(-[0-9]{1,2})?",
    default_region="us-east",
    unknown_region_is_empty=True,
    limits={operation: Limit(50, 60.0) for operation in (
        "ListLinodes", "ListVolumes", "ListVpcIps", "ListVpcSlaacAddresses", "ListRegions")},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
