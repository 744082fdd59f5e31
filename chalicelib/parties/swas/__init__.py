"""Alibaba Cloud Simple Application Server: ListInstances 2020-06-01, signed as ECS's calls are (cloud/alibaba.py).

https://www.alibabacloud.com/help/en/simple-application-server/developer-reference/api-swas-open-2020-06-01-listinstances

Units: Memory GiB, as a fraction (0.5), disks GiB. Times: UTC. There is no time of the last update. Paging: numbered
pages of at most 100 (default 10!) with TotalCount; no documented order. RegionId is required, although the host has the
region in it as well. Lists are plain arrays. Disks and addresses are in the rows: no other call is made.

A row names its first addresses twice, beside and in NetworkAttributes. ResourceSpec.DiskSize is the plan's system disk
and counts only where a row has no list of disks.

One product has three names: SWAS-OPEN (its SDK), swas (its hosts), swas-open (the rights). ResourceGroupId as a request
parameter may know as little of the default group as ECS's (unconfirmed), so --project is applied to the rows of the
whole list. ECS once answered a key without the right with an empty list; whether this product ever does is unconfirmed,
and it has no dry run that would tell.

Rates: 1,000 calls a minute in each region (https://www.alibabacloud.com/help/en/simple-application-server/qps-limits;
the copy that was seen is cut before ListInstances, and has this for ListRegions, ListDisks and ListSnapshots; until
2024 it was 10). Words of errors are those of the gateway; which of them this product uses is unconfirmed. A region
without this product has no host.
"""

from collections.abc import Mapping
from math import ceil
from typing import TypeVar

import msgspec

from ...cloud import api

_PAGE = 100
_WORKERS = 10
_T = TypeVar("_T")

_STATUS = {                                 # Status, all documented words; DisableReason says why a server is Disabled
    "Pending": api.Status.BUILD,            # being prepared
    "Starting": api.Status.STARTING,
    "Running": api.Status.ACTIVE,
    "Stopping": api.Status.STOPPING,
    "Stopped": api.Status.SHUTOFF,
    "Resetting": api.Status.REBUILD,
    "Upgrading": api.Status.RESIZE,
    "Disabled": api.Status.SUSPENDED,       # expired, unpaid, or locked for security
}


# ---------------------------------------------------------------- the shapes that we read

class _Spec(msgspec.Struct, gc=False):
    Cpu: api.Count | None = None
    Memory: api.Size | None = None
    DiskSize: api.Count | None = None


class _Disk(msgspec.Struct, gc=False):
    Size: api.Count | None = None


class _Network(msgspec.Struct, gc=False):
    PrivateIpAddress: str | None = None
    PublicIpAddress: str | None = None


class _Tag(msgspec.Struct, gc=False):
    Key: str | None = None
    Value: str | None = None


class _Image(msgspec.Struct, gc=False):
    ImageName: str | None = None
    OsType: str | None = None


class _Instance(msgspec.Struct, gc=False):
    InstanceId: api.Text
    RegionId: api.Strict[str | None] = None
    InstanceName: str | None = None
    Status: str | None = None
    PlanId: str | None = None
    ResourceSpec: _Spec | None = None
    Disks: api.Nested = msgspec.UNSET
    InnerIpAddress: str | None = None
    PublicIpAddress: str | None = None
    NetworkAttributes: list[_Network] | None = None
    CreationTime: str | None = None
    ResourceGroupId: api.Strict[str | None] = None
    Tags: list[_Tag] | None = None
    ImageId: str | None = None
    Image: _Image | None = None
    ChargeType: str | None = None
    ExpiredTime: str | None = None


class _Instances(msgspec.Struct):
    TotalCount: api.Count
    Instances: list[_Instance]


class _Region(msgspec.Struct):
    RegionId: api.Text
    LocalName: str | None = None


class _Regions(msgspec.Struct):
    Regions: list[_Region]


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    if client.project is None:
        return _instances(client, window).listing(_server)
    rows = [row for row in _instances(client, api.WHOLE).rows if row.ResourceGroupId == client.project]
    return api.Rows(api.cut(rows, window), len(rows)).listing(_server)


def _instances(client: api.Client, window: api.Window) -> api.Rows[_Instance]:
    def fetch(number: int, size: int) -> api.Page[_Instance]:
        query = {"PageNumber": str(number), "PageSize": str(size)}
        answer = _call(client, client.region, "ListInstances", query, _Instances)
        rows = api.only(answer.Instances, lambda row: row.RegionId or client.region, client.region)
        return api.Page([(row.InstanceId, row) for row in rows], answer.TotalCount)

    return api.by_page(fetch, window, _PAGE, _WORKERS)


def _server(row: _Instance) -> api.Server:
    spec, networks = row.ResourceSpec or _Spec(), row.NetworkAttributes or ()
    return api.Server(
        id=row.InstanceId,
        name=row.InstanceName or "",
        cpu=spec.Cpu,
        memory_mib=None if spec.Memory is None else ceil(spec.Memory * 1024),
        disk_gib=_disk_gib(row.Disks, spec),
        **api.addresses(lan=[row.InnerIpAddress, *(network.PrivateIpAddress for network in networks)],
                        wan=[row.PublicIpAddress, *(network.PublicIpAddress for network in networks)]),
        **PARTY.status_of(row.Status),
        created_at=api.parse_time(row.CreationTime),
        project_id=row.ResourceGroupId or "",
        instance_type=row.PlanId or "",
        tags=api.labelled((tag.Key, tag.Value) for tag in row.Tags or ()),
        image_id=row.ImageId,
        image_name=row.Image and row.Image.ImageName,
        os=api.os_family(row.Image and row.Image.OsType),
        charge_type=api.PREPAID if row.ChargeType == "PrePaid" else None,               # the only value
        expires_at=api.parse_time(row.ExpiredTime),
    )


def _disk_gib(listed: api.Nested, spec: _Spec) -> int | None:
    """All disks together; if none are listed, the plan's system disk."""
    if listed is msgspec.UNSET or bytes(listed) == b"null":
        return spec.DiskSize
    disks = api.nested(listed, _Disk)
    return None if disks is None else api.total_gib(disk.Size for disk in disks)


# ---------------------------------------------------------------- regions, check, the call

def list_regions(client: api.Client) -> list[api.Region]:
    """Any region's host tells them; the account's own may be one that has no host."""
    answer = _call(client, PARTY.default_region, "ListRegions", {"AcceptLanguage": "en-US"}, _Regions)
    return [api.Region(region.RegionId, region.LocalName or "") for region in answer.Regions]


def check(client: api.Client) -> None:
    _call(client, client.region, "ListInstances", {"PageNumber": "1", "PageSize": "1"}, _Instances)


def _call(client: api.Client, region: str, action: str, query: Mapping[str, str], shape: type[_T]) -> _T:
    url, query = client.url(f"https://swas.{region}.aliyuncs.com/"), {"RegionId": region, **query}
    return api.alibaba.opened(client, [api.alibaba.allow(PARTY.permissions)], lambda keys: api.alibaba.call(
        client, action, "2020-06-01", url, query, shape, keys))


PARTY = api.Party(
    name="swas",
    title="Alibaba Cloud Simple Application Server",
    reference="https://www.alibabacloud.com/help/en/simple-application-server/developer-reference/"
              "api-swas-open-2020-06-01-listinstances",
    order="none documented; numbered pages",
    credentials=(("access_key_id", "access_key_secret", "security_token?"),
                 ("access_key_id", "access_key_secret", "role_arn", "external_id?")),
    forms=api.alibaba.FORMS,
    permissions=("swas-open:ListInstances", "swas-open:ListRegions"),
    **api.region_names(api.alibaba.REGION_NAMES),
    region_form=r"[a-z]{2,4}(-[a-z0-9]{1,13}){1,4}",
    region_in_host=True,
    default_region="cn-hangzhou",
    project="a resource group, rg-…",
    project_form=r"rg-[A-Za-z0-9]{1,60}",
    regional_limits=True,
    shared_limits=frozenset(("AssumeRole",)),
    limits=api.per_seconds(60.0, 1000, "ListInstances", "ListRegions") | api.unpublished(10, "AssumeRole"),
    error_code=api.error_at("Code"),
    errors=api.alibaba.ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
