"""Tencent Cloud CVM: DescribeInstances 2017-03-12, signed with TC3-HMAC-SHA256.

https://cloud.tencent.com/document/api/213/15728 (call), /213/30654 (signature), /213/15753 (types)

Units: Memory and disks GiB. Times: UTC, `Z` or `+00:00`. Paging: Offset from 0, Limit at most 100 (default 20!),
TotalCount always; no documented order. Errors come inside HTTP 200. Lists may be null. There is no time of the
last update. Lighthouse servers are another product and never in this list: the party lighthouse has them.

The list gives the addresses of the primary interface, and possibly only the disks bought with the server; --deep
reads all disks (CBS DescribeDisks, https://cloud.tencent.com/document/api/362/16315) and all interfaces (VPC
DescribeNetworkInterfaces, https://cloud.tencent.com/document/api/215/15817), for each page of servers, side by side.
Rates by these pages: 40, 100 and 100 calls a second for each account and region. How many values an `instance-id`
filter of CBS and VPC takes is not documented; a page of 100 is sent.

The host is cvm.tencentcloudapi.com with the region in X-TC-Region, so that an unknown region is an answer and not
a name that cannot be looked up; the finance regions (*-fsi) answer only on hosts of their own.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from ...cloud import api

_PAGE = 100
_WORKERS = 40                               # one second's worth of the documented rate
_T = TypeVar("_T")

_STATUS = {                                 # InstanceState, all documented words
    "PENDING": api.Status.BUILD,            # being created
    "LAUNCH_FAILED": api.Status.ERROR,      # creation failed
    "RUNNING": api.Status.ACTIVE,
    "STOPPED": api.Status.SHUTOFF,
    "STARTING": api.Status.STARTING,
    "STOPPING": api.Status.STOPPING,
    "REBOOTING": api.Status.REBOOT,
    "SHUTDOWN": api.Status.SOFT_DELETED,    # isolated, to be destroyed; can still be renewed
    "TERMINATING": api.Status.DELETED,
    "ENTER_RESCUE_MODE": api.Status.RESCUE,
    "RESCUE_MODE": api.Status.RESCUE,
    "EXIT_RESCUE_MODE": api.Status.RESCUE,
    "ENTER_SERVICE_LIVE_MIGRATE": api.Status.MIGRATING,
    "SERVICE_LIVE_MIGRATE": api.Status.MIGRATING,
    "EXIT_SERVICE_LIVE_MIGRATE": api.Status.MIGRATING,
}
_CHARGES = {                                # InstanceChargeType; CDHPAID: its dedicated host is paid for
    "PREPAID": api.PREPAID,
    "POSTPAID_BY_HOUR": api.POSTPAID,
    "SPOTPAID": api.SPOT,
}

_ERRORS = {                                 # beside those of every product, those of the SDK's lists for cvm, cbs, vpc
    **api.tencent.ERRORS,
    "AccountQualificationRestrictions": api.UNVERIFIED,
    "InvalidAccount": api.ARREARS,          # InsufficientBalance, UnpaidOrder
    "OperationDenied.AccountNotSupported": api.NOT_ACTIVATED,
    "InvalidRegion": api.REGION,
    "InvalidRegion.Unavailable": api.REGION_CLOSED,
    "InvalidParameterValue.InvalidRegion": api.REGION,
    "InvalidParameterConflict": api.MALFORMED,
    "InvalidParameterCoexist": api.MALFORMED,
    "InvalidFilter": api.MALFORMED,
    "InvalidFilterValue": api.MALFORMED,
    "InternalServerError": api.FAILED,
    "ServiceUnavailable": api.FAILED,
}


# ---------------------------------------------------------------- the shapes that we read

class _Placement(msgspec.Struct, gc=False):
    Zone: str | None = None
    ProjectId: int | None = None
    HostId: str | None = None               # of a dedicated host


class _Network(msgspec.Struct, gc=False):
    VpcId: str | None = None
    SubnetId: str | None = None


class _Login(msgspec.Struct, gc=False):
    KeyIds: api.Whole[list[str] | None] = None


class _Disk(msgspec.Struct, gc=False):
    DiskSize: api.Count | None = None
    DiskId: str | None = None
    DiskType: str | None = None


class _Tag(msgspec.Struct, gc=False):
    Key: str | None = None
    Value: str | None = None


class _Instance(msgspec.Struct, gc=False):
    InstanceId: api.Text
    InstanceName: str | None = None
    InstanceState: str | None = None
    InstanceType: str | None = None
    CPU: api.Count | None = None
    Memory: api.Count | None = None
    SystemDisk: api.Nested = msgspec.UNSET
    DataDisks: api.Nested = msgspec.UNSET
    PrivateIpAddresses: list[str] | None = None
    PublicIpAddresses: list[str] | None = None
    IPv6Addresses: list[str] | None = None
    PublicIPv6Addresses: list[str] | None = None
    RdmaIpAddresses: list[str] | None = None        # of a high-performance cluster's own network
    CreatedTime: str | None = None
    Placement: _Placement | None = None
    Tags: list[_Tag] | None = None
    ImageId: str | None = None
    OsName: str | None = None
    VirtualPrivateCloud: _Network | None = None
    SecurityGroupIds: api.Whole[list[str] | None] = None
    LoginSettings: _Login | None = None
    InstanceChargeType: str | None = None
    ExpiredTime: str | None = None


class _Instances(msgspec.Struct):
    TotalCount: api.Count
    InstanceSet: list[_Instance] | None


class _CbsDisk(msgspec.Struct, gc=False):
    DiskId: api.Text
    DiskSize: api.Count | None = None
    InstanceId: str | msgspec.UnsetType | None = msgspec.UNSET
    InstanceIdList: api.Strict[list[str] | None] = None


class _Disks(msgspec.Struct):
    TotalCount: api.Count
    DiskSet: list[_CbsDisk] | None


class _Address(msgspec.Struct, gc=False):
    PrivateIpAddress: str | None = None
    PublicIpAddress: str | None = None
    Primary: bool | None = None


class _Ipv6Address(msgspec.Struct, gc=False):
    Address: str | None = None
    PublicIpAddress: str | None = None


class _Attachment(msgspec.Struct, gc=False):
    InstanceId: str | None = None


class _Interface(msgspec.Struct, gc=False):
    NetworkInterfaceId: api.Text
    Primary: bool | None = None
    PrivateIpAddressSet: list[_Address] | None = None
    Ipv6AddressSet: list[_Ipv6Address] | None = None
    Attachment: _Attachment | None = None


class _Interfaces(msgspec.Struct):
    TotalCount: api.Count
    NetworkInterfaceSet: list[_Interface] | None


class _Region(msgspec.Struct):
    Region: str
    RegionName: str | None = None
    RegionState: str | None = None


class _Regions(msgspec.Struct):
    RegionSet: list[_Region]


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    filters = {"Filters": [{"Name": "project-id", "Values": [client.project]}]} if client.project is not None else {}

    def fetch(offset: int, limit: int) -> api.Page[api.Server]:
        answer = _call(client, "DescribeInstances", {"Offset": offset, "Limit": limit, **filters}, _Instances)
        rows = client.of_project(answer.InstanceSet or [], _project)
        servers = _complete(client, rows) if client.account.deep and rows else [_server(row) for row in rows]
        return api.Page([(server.id, server) for server in servers], answer.TotalCount)

    return api.by_offset(fetch, window, _PAGE, _WORKERS).listing(lambda server: server)


def _server(row: _Instance) -> api.Server:
    network, login = row.VirtualPrivateCloud or _Network(), row.LoginSettings or _Login()
    return api.Server(
        id=row.InstanceId,
        name=row.InstanceName or "",
        cpu=row.CPU,
        memory_mib=None if row.Memory is None else row.Memory * 1024,
        disk_gib=_sum(_listed_disks(row)),
        **api.addresses(lan=[*(row.PrivateIpAddresses or ()), *(row.IPv6Addresses or ()), *(row.RdmaIpAddresses or ())],
                        wan=[*(row.PublicIpAddresses or ()), *(row.PublicIPv6Addresses or ())]),
        **PARTY.status_of(row.InstanceState),
        created_at=api.parse_time(row.CreatedTime),
        zone=(row.Placement and row.Placement.Zone) or "",
        project_id=_project(row),
        instance_type=row.InstanceType or "",
        tags=api.labelled((tag.Key, tag.Value) for tag in row.Tags or ()),
        image_id=row.ImageId,
        os=api.os_family(row.OsName),
        vpc_id=network.VpcId,
        subnet_id=network.SubnetId,
        security_groups=api.ids(row.SecurityGroupIds),
        key_name=",".join(login.KeyIds or ()),
        charge_type=_CHARGES.get(row.InstanceChargeType or ""),
        expires_at=api.parse_time(row.ExpiredTime) if row.InstanceChargeType == "PREPAID" else None,
        host_id=row.Placement and row.Placement.HostId,
    )


def _listed_disks(row: _Instance) -> list[_Disk] | None:
    """The disks that the list itself names; None if it does not say, or cannot be read (null is none)."""
    if row.SystemDisk is msgspec.UNSET and row.DataDisks is msgspec.UNSET:
        return None
    system, data = api.nested(row.SystemDisk, _Disk, one=True), api.nested(row.DataDisks, _Disk)
    return None if system is None or data is None else [*system, *data]


def _sum(disks: list[_Disk] | None) -> int | None:
    return None if disks is None else api.total_gib(disk.DiskSize for disk in disks)


def _project(row: _Instance) -> str:
    return str(row.Placement.ProjectId) if row.Placement and row.Placement.ProjectId is not None else ""


# ---------------------------------------------------------------- --deep: every disk, every interface

def _complete(client: api.Client, rows: Sequence[_Instance]) -> list[api.Server]:
    ids = [row.InstanceId for row in rows]
    cbs_disks, interfaces = client.run_all(lambda: _disks(client, ids), lambda: _interfaces(client, ids))
    disks: dict[str, list[_Disk]] = {key: [] for key in ids}
    for disk in cbs_disks:                  # a shared disk counts for each server; whose is unreadable may be anyone's
        unknown = disk.InstanceId is msgspec.UNSET
        for owner in disks if unknown else {disk.InstanceId, *(disk.InstanceIdList or ())}:
            if owner in disks:
                disks[str(owner)].append(_Disk(None if unknown else disk.DiskSize, disk.DiskId))
    attached: dict[str, list[_Interface]] = {key: [] for key in ids}
    for interface in interfaces:
        if interface.Attachment and interface.Attachment.InstanceId in attached:
            attached[interface.Attachment.InstanceId].append(interface)
    return [_with_all(_server(row), _all_disks(row, disks[row.InstanceId]), attached[row.InstanceId]) for row in rows]


def _all_disks(row: _Instance, disks: list[_Disk]) -> int | None:
    """CBS names every cloud disk; local disks (LOCAL_*) are in the list of servers alone."""
    known, listed = {disk.DiskId for disk in disks}, _listed_disks(row)
    if listed is None and (row.SystemDisk, row.DataDisks) != (msgspec.UNSET, msgspec.UNSET):
        return None                         # a local disk may be among those that cannot be read
    others = [disk for disk in listed or ()
              if (disk.DiskId and disk.DiskId not in known) or (disk.DiskType or "").startswith("LOCAL")]
    return _sum(disks + others)


def _with_all(server: api.Server, disk_gib: int | None, interfaces: list[_Interface]) -> api.Server:
    """What the list says stays first: the primary interface's addresses, in its order."""
    lan, wan = [*server.lan_ipv4, *server.lan_ipv6], [*server.wan_ipv4, *server.wan_ipv6]
    for interface in sorted(interfaces, key=lambda i: (not i.Primary, i.NetworkInterfaceId)):
        for address in sorted(interface.PrivateIpAddressSet or (), key=lambda a: not a.Primary):
            lan.append(address.PrivateIpAddress or "")
            wan.append(address.PublicIpAddress or "")
        for address in interface.Ipv6AddressSet or ():
            lan.append(address.Address or "")
            wan.append(address.PublicIpAddress or "")
    return msgspec.structs.replace(server, disk_gib=disk_gib, **api.addresses(lan, wan))


def _disks(client: api.Client, ids: list[str]) -> list[_CbsDisk]:
    def fetch(offset: int, limit: int) -> api.Page[_CbsDisk]:
        answer = _call(client, "DescribeDisks", _part("instance-id", ids, offset, limit), _Disks)
        return api.Page([(disk.DiskId, disk) for disk in answer.DiskSet or ()], answer.TotalCount)

    return api.by_offset(fetch, api.WHOLE, _PAGE, _WORKERS).rows


def _interfaces(client: api.Client, ids: list[str]) -> list[_Interface]:
    def fetch(offset: int, limit: int) -> api.Page[_Interface]:
        query = _part("attachment.instance-id", ids, offset, limit)
        answer = _call(client, "DescribeNetworkInterfaces", query, _Interfaces)
        return api.Page([(i.NetworkInterfaceId, i) for i in answer.NetworkInterfaceSet or ()], answer.TotalCount)

    return api.by_offset(fetch, api.WHOLE, _PAGE, _WORKERS).rows


def _part(name: str, ids: list[str], offset: int, limit: int) -> dict[str, object]:
    return {"Offset": offset, "Limit": limit, "Filters": [{"Name": name, "Values": ids}]}


# ---------------------------------------------------------------- regions, check

def list_regions(client: api.Client) -> list[api.Region]:
    """https://cloud.tencent.com/document/product/1596/77930"""
    answer = _call(client, "DescribeRegions", {"Product": "cvm"}, _Regions)
    return [api.Region(r.Region, r.RegionName or "", doubtful=r.RegionState == "UNAVAILABLE") for r in answer.RegionSet]


def check(client: api.Client) -> None:
    _call(client, "DescribeInstances", {"Offset": 0, "Limit": 1}, _Instances)


# ---------------------------------------------------------------- the call

_SERVICES = {"DescribeInstances": "cvm", "DescribeDisks": "cbs", "DescribeNetworkInterfaces": "vpc"}
_VERSIONS = {"cvm": "2017-03-12", "cbs": "2017-03-12", "vpc": "2017-03-12", "region": "2022-06-27"}


def _call(client: api.Client, action: str, query: Mapping[str, object], shape: type[_T]) -> _T:
    service = _SERVICES.get(action, "region")
    region = client.region if action in _SERVICES else ""
    own_host = f"{service}.{region}" if region.endswith("-fsi") else service
    url = client.url(f"https://{own_host}.tencentcloudapi.com/")
    return api.tencent.call(client, service, _VERSIONS[service], action, region, url, query, shape)


PARTY = api.Party(
    name="qcloud",
    title="Tencent Cloud CVM",
    reference="https://cloud.tencent.com/document/api/213/15728",
    order="none documented; pages at any row",
    credentials=(("secret_id", "secret_key", "token?"),),
    grade="recorded",
    permissions=("cvm:DescribeInstances",),
    deep_permissions=("cbs:DescribeDisks", "vpc:DescribeNetworkInterfaces"),
    aliases=api.tencent.ALIASES,
    **api.region_names(api.tencent.REGION_NAMES),
    region_form=api.tencent.REGION_FORM,
    default_region="ap-guangzhou",
    project="a project's id, a number",
    project_form=r"0|[1-9][0-9]{0,18}",
    regional_limits=True,
    limits={**api.per_second(40, "DescribeInstances"), **api.per_second(20, "DescribeRegions"),
            **api.per_second(100, "DescribeDisks", "DescribeNetworkInterfaces")},
    error_code=api.error_at("Response.Error.Code"),
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
