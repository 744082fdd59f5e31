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

from ...cloud import api

_PAGE = 500
_CLOUD = api.Cloud("api.linode.com", lambda: _PAGE, size="page_size", least=25)
_PRIVATE = re.compile(r"10\.|192\.168\.|172\.(1[6-9]|2[0-9]|3[01])\.", re.ASCII)

_STATUS = {                                 # status, all documented words
    "provisioning": api.Status.BUILD,
    "booting": api.Status.STARTING,
    "running": api.Status.ACTIVE,
    "shutting_down": api.Status.STOPPING,
    "offline": api.Status.SHUTOFF,
    "stopped": api.Status.SHUTOFF,
    "rebooting": api.Status.REBOOT,
    "rebuilding": api.Status.REBUILD,
    "restoring": api.Status.REBUILD,        # from a backup
    "resizing": api.Status.RESIZE,
    "migrating": api.Status.MIGRATING,
    "cloning": api.Status.ACTIVE,
    "deleting": api.Status.DELETED,
    "billing_suspension": api.Status.SUSPENDED,
}


# ---------------------------------------------------------------- the shapes that we read

class _Specs(msgspec.Struct, gc=False):
    vcpus: api.Count | None = None
    memory: api.Count | None = None
    disk: api.Count | None = None


class _Linode(msgspec.Struct, gc=False):
    id: int
    region: str
    label: str | None = None
    status: str | None = None
    created: str | None = None
    updated: str | None = None
    type: str | None = None
    image: str | None = None
    host_uuid: str | None = None
    specs: _Specs | None = None
    ipv4: list[str] | None = None
    ipv6: str | None = None
    tags: list[str] | None = None


class _Volume(msgspec.Struct, gc=False):
    id: int
    size: api.Count | None = None
    linode_id: Any = msgspec.UNSET


class _SlaacAddress(msgspec.Struct, gc=False):
    slaac_address: str | None = None


class _VpcAddress(msgspec.Struct, gc=False):
    linode_id: int | None = None
    address: str | None = None              # None: a range, see address_range
    vpc_id: int | None = None
    subnet_id: int | None = None
    active: bool = False                    # the configuration that it belongs to is the one in use
    nat_1_1: str | None = None
    ipv6_is_public: bool | None = None
    ipv6_addresses: list[_SlaacAddress] | None = None


class _Region(msgspec.Struct):
    id: api.Text
    label: str | None = None


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    here = {"region": client.region}
    page, volumes, ipv4, ipv6 = client.run_all(
        lambda: client.pages(_LINODES, window, _filter({**here, "+order_by": "id", "+order": "asc"})),
        lambda: client.all(_VOLUMES, _filter(here)), lambda: client.all(_VPC_IPS), lambda: _vpc_ipv6s(client))
    rows = api.only(page.rows, lambda row: row.region, client.region)
    sizes = api.attached(((volume.linode_id,), volume.size) for volume in volumes)
    vpcs = api.by_owner((ip.linode_id, ip) for ip in (*ipv4, *ipv6))
    return api.Listing([_server(row, sizes.of(str(row.id), 0), vpcs.get(str(row.id), [])) for row in rows], page.total)


def _vpc_ipv6s(client: api.Client) -> list[_VpcAddress]:
    try:
        return client.all(_VPC_IPV6S)
    except api.PartyMalformed as refused:
        if refused.http_status != 404:
            raise
        return []


_LINODES = api.List(_CLOUD, "ListLinodes", "/v4/linode/instances", "data", _Linode)
_VOLUMES = api.List(_CLOUD, "ListVolumes", "/v4/volumes", "data", _Volume)
_VPC_IPS = api.List(_CLOUD, "ListVpcIps", "/v4/vpcs/ips", "data", _VpcAddress)
_VPC_IPV6S = api.List(_CLOUD, "ListVpcSlaacAddresses", "/v4/vpcs/ipv6s", "data", _VpcAddress)
_REGIONS = api.List(_CLOUD, "ListRegions", "/v4/regions", "data", _Region)


def _filter(words: Mapping[str, str]) -> dict[str, str]:
    return {"X-Filter": msgspec.json.encode(words).decode()}


def _server(row: _Linode, volumes: int | None, vpc: list[_VpcAddress]) -> api.Server:
    specs = row.specs or _Specs()
    vpc = [ip for ip in vpc if ip.active] or vpc
    slaac = [(ip.ipv6_is_public, six.slaac_address) for ip in vpc for six in ip.ipv6_addresses or ()]
    network = vpc[0] if vpc else _VpcAddress()
    ipv4 = [api.address_in(ip) for ip in row.ipv4 or ()]
    return api.Server(
        id=str(row.id),
        name=row.label or "",
        cpu=specs.vcpus,
        memory_mib=specs.memory,
        disk_gib=api.total_gib((None if specs.disk is None else -(-specs.disk // 1024), volumes)),
        **api.addresses(
            lan=[*(ip for ip in ipv4 if _PRIVATE.match(ip)), *(ip.address for ip in vpc),
                 *(ip for public, ip in slaac if not public)],
            wan=[*(ip for ip in ipv4 if not _PRIVATE.match(ip)), *(ip.nat_1_1 for ip in vpc),
                 api.without_prefix(row.ipv6), *(ip for public, ip in slaac if public)]),
        **PARTY.status_of(row.status),
        created_at=api.parse_time(row.created),
        updated_at=api.parse_time(row.updated),
        zone=row.region,
        instance_type=row.type or "",
        tags=api.plain(row.tags),
        image_id=row.image,
        os=api.os_family(row.image),
        vpc_id=None if network.vpc_id is None else str(network.vpc_id),
        subnet_id=None if network.subnet_id is None else str(network.subnet_id),
        host_id=row.host_uuid,
        console_url=f"https://cloud.linode.com/linodes/{row.id}",
    )


# the labels of GET /v4/regions of 2026-10-04, kept in @infrawrench's plugin; those of 2024 also in linode/manager,
# productionRegionsData.ts
_REGION_NAMES = {
    "us-east": "Newark, NJ", "us-central": "Dallas, TX", "us-west": "Fremont, CA", "us-southeast": "Atlanta, GA",
    "us-ord": "Chicago, IL", "us-iad": "Washington, DC", "us-iad-2": "Washington 2, DC",
    "us-sea": "Seattle, WA", "us-mia": "Miami, FL",
    "us-lax": "Los Angeles, CA", "ca-central": "Toronto, CA", "br-gru": "Sao Paulo, BR", "eu-west": "London, UK",
    "gb-lon": "London 2, UK", "eu-central": "Frankfurt, DE", "de-fra-2": "Frankfurt 2, DE",
    "fr-par": "Paris, FR", "fr-par-2": "Paris 2, FR",
    "nl-ams": "Amsterdam, NL", "se-sto": "Stockholm, SE", "es-mad": "Madrid, ES", "it-mil": "Milan, IT",
    "ap-west": "Mumbai, IN", "in-bom-2": "Mumbai 2, IN", "in-maa": "Chennai, IN", "ap-south": "Singapore, SG",
    "sg-sin-2": "Singapore 2, SG", "id-cgk": "Jakarta, ID", "ap-northeast": "Tokyo 2, JP", "jp-tyo-3": "Tokyo 3, JP",
    "jp-osa": "Osaka, JP", "ap-southeast": "Sydney, AU", "au-mel": "Melbourne, AU",
}

PARTY = api.Party(
    name="linode",
    title="Akamai Linode",
    reference="https://techdocs.akamai.com/linode-api/reference/get-linode-instances",
    order="by id, requested; numbered pages",
    credentials=(("token",),),
    grade="recorded",
    permissions=("linodes:read_only", "volumes:read_only", "ips:read_only"),
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z]{2}(-[a-z]{2,12}){1,2}(-[0-9]{1,2})?",
    default_region="us-east",
    unknown_region_is_empty=True,
    limits=api.per_seconds(
        60.0, 50, "ListLinodes", "ListVolumes", "ListVpcIps", "ListVpcSlaacAddresses", "ListRegions"),
    error_code=api.any_error_code,
    errors=api.FREE_TEXT,                   # errors are free text: what it says and the HTTP status tell
    status=_STATUS,
    list_servers=list_servers,
    list_regions=api.regions_of(_REGIONS, lambda row: api.Region(row.id, row.label or "")),
    check=api.one_row(_LINODES),
)
