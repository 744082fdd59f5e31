"""Tencent Cloud Lighthouse: DescribeInstances 2020-03-24, signed as CVM's calls are (cloud/tencent.py).

https://cloud.tencent.com/document/api/1207/47573 (call), /1207/47576 (types), /1207/66093 (disks)

Units: Memory and disks GB. Times: UTC. Paging: Offset from 0, Limit at most 100 (default 20!), TotalCount always.
Errors come inside HTTP 200. Lists may be null. There is no time of the last update, and no project.

Documented order: servers that wait to be recycled first, then the newest first. It stays as it is, so that a window is
one call; a server that is created or isolated meanwhile shifts all rows after it. EXPIRED_TIME, the only order that
can be requested, would be worse: many servers expire at one moment, and each renewal moves one.

The list names the system disk alone. DescribeDisks has the others: of the region, beside a whole list, or of a window's
servers (100 to a filter). It lists cloud system disks too, which would count twice, so that only DATA_DISK is asked
for, and a disk that a row names as its system disk is never added to it. Local system disks are in the row alone. Disks
that are attached to nothing have an empty InstanceId (unconfirmed).

The host has no region in it; the region is in X-TC-Region. Accounts of the international site have a host of their own,
lighthouse.intl.tencentcloudapi.com. Rates by these pages: 100 calls a second, DescribeDisks 20; DescribeRegions:
unconfirmed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from ...cloud import api

_PAGE = 100                                 # also most values of a filter
_WORKERS = 20                               # one second's worth of the lower rate
_T = TypeVar("_T")

_STATUS = {                                 # InstanceState, all 14 words of the model
    "PENDING": api.Status.BUILD,            # being created
    "LAUNCH_FAILED": api.Status.ERROR,
    "RUNNING": api.Status.ACTIVE,
    "STOPPED": api.Status.SHUTOFF,
    "STARTING": api.Status.STARTING,
    "STOPPING": api.Status.STOPPING,
    "REBOOTING": api.Status.REBOOT,
    "SHUTDOWN": api.Status.SOFT_DELETED,    # stopped, waits to be recycled; can still be renewed
    "TERMINATING": api.Status.DELETED,
    "DELETING": api.Status.DELETED,
    "FREEZING": api.Status.SUSPENDED,
    "ENTER_RESCUE_MODE": api.Status.RESCUE,
    "RESCUE_MODE": api.Status.RESCUE,
    "EXIT_RESCUE_MODE": api.Status.RESCUE,
}

_ERRORS = {                                 # beside those of every product, those of the SDK's list for lighthouse
    **api.tencent.ERRORS,
    "AuthFailure.InvalidRegion": api.REGION,                    # not a wrong key, as its first word says
    "InvalidParameterValue.InvalidRegion": api.REGION,
    "InvalidParameterValue.RegionNotFound": api.REGION,
    "InvalidParameterValue.RegionNotMatch": api.REGION,
    "InvalidParameterValue.RegionNotSupported": api.REGION,
    "InvalidParameterValue.RegionUnavailable": api.REGION,
    "InvalidParameterValue.UnavailableRegion": api.REGION,
    "UnauthorizedOperation.CertificationNeedUpgrade": api.UNVERIFIED,
    "UnauthorizedOperation.TokenInvalid": api.WRONG_TOKEN,
}


# ---------------------------------------------------------------- the shapes that we read

class _SystemDisk(msgspec.Struct, gc=False):
    DiskId: str | None = None               # null if it is local
    DiskSize: api.Count | None = None


class _Tag(msgspec.Struct, gc=False):
    Key: str | None = None
    Value: str | None = None


class _Login(msgspec.Struct, gc=False):
    KeyIds: api.Whole[list[str] | None] = None


class _Instance(msgspec.Struct, gc=False):
    InstanceId: api.Text
    InstanceName: str | None = None
    InstanceState: str | None = None
    BundleId: str | None = None
    CPU: api.Count | None = None
    Memory: api.Count | None = None
    SystemDisk: _SystemDisk | None = None
    PrivateAddresses: list[str] | None = None
    PublicAddresses: list[str] | None = None
    PublicIpv6Addresses: list[str] | None = None
    CreatedTime: str | None = None
    Zone: str | None = None
    Tags: list[_Tag] | None = None
    BlueprintId: str | None = None
    PlatformType: str | None = None         # LINUX_UNIX, WINDOWS
    LoginSettings: _Login | None = None
    InstanceChargeType: str | None = None
    ExpiredTime: str | None = None


class _Instances(msgspec.Struct):
    TotalCount: api.Count
    InstanceSet: list[_Instance] | None


class _Disk(msgspec.Struct, gc=False):
    DiskId: api.Text
    DiskSize: api.Count | None = None
    DiskUsage: str | None = None
    Attached: bool | None = None
    InstanceId: Any = None


class _Disks(msgspec.Struct):
    TotalCount: api.Count
    DiskSet: list[_Disk] | None


class _Region(msgspec.Struct):
    Region: api.Text
    RegionName: str | None = None
    RegionState: str | None = None


class _Regions(msgspec.Struct):
    RegionSet: list[_Region]


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    if window.last is None:
        instances, disks = client.run_all(lambda: _instances(client, window), lambda: _disks(client, ()))
    else:
        instances = _instances(client, window)
        disks = client.in_batches([row.InstanceId for row in instances.rows], _PAGE, lambda ids: _disks(client, ids))
    system = {row.SystemDisk.DiskId for row in instances.rows if row.SystemDisk}
    data = api.attached(((disk.InstanceId,), disk.DiskSize) for disk in disks
                        if disk.DiskUsage != "SYSTEM_DISK" and disk.Attached is not False and disk.DiskId not in system)
    return instances.listing(lambda row: _server(row, data.of(row.InstanceId, 0)))


def _server(row: _Instance, data_gib: int | None) -> api.Server:
    return api.Server(
        id=row.InstanceId,
        name=row.InstanceName or "",
        cpu=row.CPU,
        memory_mib=None if row.Memory is None else row.Memory * 1024,
        disk_gib=None if row.SystemDisk is None else api.total_gib((row.SystemDisk.DiskSize, data_gib)),
        **api.addresses(lan=row.PrivateAddresses or (),
                        wan=[*(row.PublicAddresses or ()), *(row.PublicIpv6Addresses or ())]),
        **PARTY.status_of(row.InstanceState),
        created_at=api.parse_time(row.CreatedTime),
        zone=row.Zone or "",
        instance_type=row.BundleId or "",
        tags=api.labelled((tag.Key, tag.Value) for tag in row.Tags or ()),
        image_id=row.BlueprintId,
        os=api.os_family(row.PlatformType),
        key_name=",".join((row.LoginSettings and row.LoginSettings.KeyIds) or ()),
        charge_type=api.PREPAID if row.InstanceChargeType == "PREPAID" else None,       # the only value
        expires_at=api.parse_time(row.ExpiredTime),
    )


def _instances(client: api.Client, window: api.Window) -> api.Rows[_Instance]:
    def fetch(offset: int, limit: int) -> api.Page[_Instance]:
        answer = _call(client, "DescribeInstances", {"Offset": offset, "Limit": limit}, _Instances)
        return api.Page([(row.InstanceId, row) for row in answer.InstanceSet or ()], answer.TotalCount)

    return api.by_offset(fetch, window, _PAGE, _WORKERS)


def _disks(client: api.Client, servers: Sequence[str]) -> list[_Disk]:
    """The data disks of these servers, or all of the region if none is named."""
    filters: list[dict[str, object]] = [{"Name": "disk-usage", "Values": ["DATA_DISK"]}]
    if servers:
        filters.append({"Name": "instance-id", "Values": servers})

    def fetch(offset: int, limit: int) -> api.Page[_Disk]:
        query = {"Offset": offset, "Limit": limit, "Filters": filters}
        answer = _call(client, "DescribeDisks", query, _Disks)
        return api.Page([(disk.DiskId, disk) for disk in answer.DiskSet or ()], answer.TotalCount)

    return api.by_offset(fetch, api.WHOLE, _PAGE, _WORKERS).rows


# ---------------------------------------------------------------- regions, check, the call

def list_regions(client: api.Client) -> list[api.Region]:
    answer = _call(client, "DescribeRegions", {}, _Regions)
    return [api.Region(row.Region, row.RegionName or "", doubtful=row.RegionState == "UNAVAILABLE")
            for row in answer.RegionSet]


def check(client: api.Client) -> None:
    """Both rights that a listing needs."""
    one = {"Offset": 0, "Limit": 1}
    client.run_all(lambda: _call(client, "DescribeInstances", one, _Instances),
                   lambda: _call(client, "DescribeDisks", one, _Disks))


def _call(client: api.Client, action: str, query: Mapping[str, object], shape: type[_T]) -> _T:
    region = "" if action == "DescribeRegions" else client.region
    url = client.url("https://lighthouse.tencentcloudapi.com/")
    return api.tencent.call(client, "lighthouse", "2020-03-24", action, region, url, query, shape)


PARTY = api.Party(
    name="lighthouse",
    title="Tencent Cloud Lighthouse",
    reference="https://cloud.tencent.com/document/api/1207/47573",
    order="by recycling, then the newest first, documented; pages at any row",
    credentials=(("secret_id", "secret_key", "token?"),),
    permissions=("lighthouse:DescribeInstances", "lighthouse:DescribeDisks", "lighthouse:DescribeRegions"),
    aliases=api.tencent.ALIASES,
    **api.region_names(api.tencent.REGION_NAMES),
    region_form=api.tencent.REGION_FORM,
    default_region="ap-guangzhou",
    limits={**api.per_second(100, "DescribeInstances"), **api.per_second(20, "DescribeDisks", "DescribeRegions")},
    error_code=api.error_at("Response.Error.Code"),
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
