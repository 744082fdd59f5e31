"""Kingsoft Cloud KEC: DescribeInstances 2016-03-04, signed with AWS's Signature Version 4 by botocore.

https://docs.ksyun.com/documents/816 (call); fields by the models of the vendor's Java and Go SDKs and its Terraform
provider

Units: memory and disks GiB. Times: RFC 3339, or without a zone, then taken as China's (UTC+8); which of them KEC
writes is unconfirmed. Paging: Marker is the number of the first row, from 0; MaxResults 5 to 1000 (default 10);
InstanceCount is the total of the projects that were asked for. There is no time of the last update, and no tags.
ServiceEndTime is in none of the vendor's models; Cloudpods reads it as the end of a prepaid server.

Without ProjectId.N only the default project (0) is listed, with no hint of the others. So the account's projects
(GetAccountAllProjectList at iam, kept for a minute; the newest Python SDK has left it out, the others and the Terraform
provider use it) are asked for, a hundred to a call; their totals add up. The Terraform provider knows a PublicIp of an
interface, the SDKs do not: where a row has none, the elastic IPs are read as well (DescribeAddresses at eip, of all
projects: an address and its server may be in different ones), of a window's interfaces or of the whole region.

The hosts are those of the vendor's SDK, one for all regions, with the region in the signature and as a parameter. What
an unknown region gets is not documented; an empty list is believed only of a region that DescribeRegions names.
Answers are XML unless JSON is asked for. They hold the servers' user data, which is not read. The header of temporary
keys is the one that the vendor's own controllers send; its Python SDK has none.

The words of states are those of the vendor's code, not known to be all. Error codes follow AWS's; apart from
MissingAuthenticationToken, InvalidParameterValue, INVALID_ACTION and ServiceInnerError they are unconfirmed, as are the
names of the permissions. No rate is published: ten calls a second is a careful one.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from ...cloud import api

_PAGE = 1000
_LEAST = 5                                  # fewest rows that can be asked for
_PROJECTS = 100                             # most projects to a call
_ADDRESSES = 200                            # the page of the vendor's own tools; the most is not documented
_FILTER = 50                                # most interfaces that a filter is given; the most is not documented
_KEPT = 120.0                               # seconds; the last minute of what is kept is not used any more
_WORKERS = 10                               # one second's worth of the rate
_T = TypeVar("_T")

_STATUS = {                                 # InstanceState.Name
    "scheduling": api.Status.BUILD,
    "building": api.Status.BUILD,
    "block_device_mapping": api.Status.BUILD,
    "waiting_volume_attached": api.Status.BUILD,
    "active": api.Status.ACTIVE,
    "backuping": api.Status.ACTIVE,         # an image is made of it
    "updating_password": api.Status.ACTIVE,
    "updating_hostname": api.Status.ACTIVE,
    "extending_volume": api.Status.ACTIVE,
    "net_card_loading": api.Status.ACTIVE,
    "net_card_unloading": api.Status.ACTIVE,
    "attach_key_pair_failed": api.Status.ACTIVE,
    "detach_key_pair_failed": api.Status.ACTIVE,
    "starting": api.Status.STARTING,
    "powering-on": api.Status.STARTING,
    "stopping": api.Status.STOPPING,
    "powering-off": api.Status.STOPPING,
    "stopped": api.Status.SHUTOFF,
    "restarting": api.Status.REBOOT,
    "rebooting": api.Status.REBOOT,
    "rebooting_hard": api.Status.HARD_REBOOT,
    "overriding": api.Status.REBUILD,
    "rebuilding": api.Status.REBUILD,
    "resizing": api.Status.RESIZE,
    "resize_prep": api.Status.RESIZE,
    "resize_migrating": api.Status.RESIZE,
    "resize_migrated": api.Status.RESIZE,
    "resize_finish": api.Status.RESIZE,
    "resize_success_local": api.Status.VERIFY_RESIZE,           # these four are done and wait for a restart
    "migrating_success": api.Status.VERIFY_RESIZE,
    "migrating_success_off_line": api.Status.VERIFY_RESIZE,
    "cross_finish": api.Status.VERIFY_RESIZE,
    "pre_migrating": api.Status.MIGRATING,
    "migrating": api.Status.MIGRATING,
    "migrating_op": api.Status.MIGRATING,
    "migrate": api.Status.MIGRATING,
    "cross_queue": api.Status.MIGRATING,
    "cross_migrating": api.Status.MIGRATING,
    "drg_migrating": api.Status.MIGRATING,  # into a group of data guard
    "invalid": api.Status.SUSPENDED,        # disabled
    "recycling": api.Status.SOFT_DELETED,   # in the bin
    "deleting": api.Status.DELETED,
    "deleted": api.Status.DELETED,
    "error": api.Status.ERROR,              # creation failed
    "inactive": api.Status.ERROR,           # its health check fails
    "csresize-error": api.Status.ERROR,
}
_CHARGES = {                                # ChargeType
    "Monthly": api.PREPAID,
    "Daily": api.POSTPAID,                  # settled once a month
    "HourlyInstantSettlement": api.POSTPAID,
    "Spot": api.SPOT,
}
_FAILURES = ("_error", "_error_local", "_error_off_line")       # power_on_error, resize_error_local, ...

_ERRORS = {
    "MissingAuthenticationToken": api.WRONG_KEY,
    "MissingAuthenticationTokenException": api.WRONG_KEY,
    "IncompleteSignature": api.WRONG_KEY,
    "SignatureDoesNotMatch": api.WRONG_KEY,
    "InvalidAccessKeyId": api.WRONG_KEY,
    "InvalidClientTokenId": api.WRONG_KEY,
    "InvalidSecurityToken": api.WRONG_TOKEN,
    "UnrecognizedClientException": api.WRONG_KEY,
    "AuthFailure": api.WRONG_KEY,
    "RequestExpired": api.CLOCK,
    "ExpiredToken": api.EXPIRED_KEY,
    "InvalidClientTokenId.Inactive": api.DISABLED_KEY,
    "AccessDenied": api.MISSING_RIGHT,
    "AccessDeniedException": api.MISSING_RIGHT,
    "UnauthorizedOperation": api.MISSING_RIGHT,
    "NotAuthorized": api.MISSING_RIGHT,
    "OptInRequired": api.NOT_ACTIVATED,
    "Throttling": api.THROTTLED,
    "ThrottlingException": api.THROTTLED,
    "RequestLimitExceeded": api.THROTTLED,
    "TooManyRequests": api.THROTTLED,
    "InvalidRegion": api.REGION,
    "InvalidRegionId": api.REGION,
    "UnsupportedRegion": api.REGION,
    "InvalidParameter": api.MALFORMED,
    "InvalidParameterValue": api.MALFORMED,
    "InvalidParameterCombination": api.MALFORMED,
    "InvalidQueryParameter": api.MALFORMED,
    "MissingParameter": api.MALFORMED,
    "MissingAction": api.MALFORMED,
    "InvalidAction": api.MALFORMED,
    "INVALID_ACTION": api.MALFORMED,
    "NoSuchVersion": api.MALFORMED,
    "InternalError": api.FAILED,
    "InternalFailure": api.FAILED,
    "ServiceInnerError": api.FAILED,
    "ServiceUnavailable": api.UNAVAILABLE,
}


# ---------------------------------------------------------------- the shapes that we read

class _Configure(msgspec.Struct, gc=False):
    VCPU: api.Count | None = None
    MemoryGb: api.Count | None = None
    RootDiskGb: api.Count | None = None
    DataDiskGb: api.Count | None = None


class _State(msgspec.Struct, gc=False):
    Name: str | None = None


class _Disk(msgspec.Struct, gc=False):
    DiskSize: api.Count | None = None


class _Group(msgspec.Struct, gc=False):
    SecurityGroupId: str | None = None


class _Interface(msgspec.Struct, gc=False):
    NetworkInterfaceId: str | None = None
    NetworkInterfaceType: str | None = None
    PrivateIpAddress: str | None = None
    PublicIp: str | msgspec.UnsetType | None = msgspec.UNSET    # not every region says
    VpcId: str | None = None
    SubnetId: str | None = None
    SecurityGroupSet: list[_Group] | None = None


class _Instance(msgspec.Struct, gc=False):
    InstanceId: api.Text
    InstanceName: str | None = None
    InstanceType: str | None = None
    ProjectId: int | str | None = None
    InstanceConfigure: _Configure | None = None
    InstanceState: _State | None = None
    SystemDisk: api.Nested = msgspec.UNSET
    DataDisks: api.Nested = msgspec.UNSET
    PrivateIpAddress: str | None = None
    NetworkInterfaceSet: list[_Interface] | None = None
    CreationDate: str | None = None
    AvailabilityZone: str | None = None
    AvailabilityZoneName: str | None = None
    ImageId: str | None = None
    ChargeType: str | None = None
    ServiceEndTime: str | None = None
    DedicatedUuid: str | None = None        # of a dedicated host


class _Instances(msgspec.Struct):
    InstanceCount: api.Count
    InstancesSet: list[_Instance] | None


class _Address(msgspec.Struct, gc=False):
    PublicIp: str
    AllocationId: str | None = None
    InstanceId: str | None = None
    NetworkInterfaceType: str | None = None


class _Addresses(msgspec.Struct):
    AddressesSet: list[_Address] | None
    NextToken: api.Strict[str | int | None] = None


class _Project(msgspec.Struct):
    ProjectId: int | str


class _ProjectList(msgspec.Struct):
    ProjectList: Annotated[list[_Project], msgspec.Meta(min_length=1)]      # every account has its default project
    Total: api.Strict[int | None] = None


class _Projects(msgspec.Struct):
    ListProjectResult: _ProjectList


class _Region(msgspec.Struct):
    Region: api.Text
    RegionName: str | None = None


class _Regions(msgspec.Struct):
    RegionSet: list[_Region]


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    batches = _batches([client.project] if client.project is not None else _projects(client))
    if len(batches) == 1:
        instances = _instances(client, batches[0], window)
        rows, total = instances.rows, instances.total
    else:                                   # a row's place in the whole is known when every batch is
        parts = client.for_each(batches, lambda batch: _instances(client, batch, api.WHOLE))
        every = {row.InstanceId: row for part in parts for row in part.rows}
        rows, total = api.cut(list(every.values()), window), len(every)
    public = _public(client, rows) if any(map(_lacks_public, rows)) else {}
    return api.Listing([_server(row, public.get(row.InstanceId, ())) for row in rows], total)


def _instances(client: api.Client, projects: Sequence[str], window: api.Window) -> api.Rows[_Instance]:
    known = {*projects, *({"None"} if client.project is None else ())}      # None: a row that names no project

    def fetch(offset: int, limit: int) -> api.Page[_Instance]:
        size = max(_LEAST, limit)
        query = {"MaxResults": str(size), "Marker": str(offset), **api.numbered("ProjectId", projects)}
        answer = _call(client, "DescribeInstances", query, _Instances)
        rows = answer.InstancesSet or []
        if any(str(row.ProjectId) not in known for row in rows):
            raise api.PartyMalformed("The party listed servers of another project than was asked for.")
        return api.Page([(row.InstanceId, row) for row in rows[:limit if limit < size else None]], answer.InstanceCount)

    return api.by_offset(fetch, window, _PAGE, _WORKERS)


def _server(row: _Instance, public: Sequence[str]) -> api.Server:
    size = row.InstanceConfigure or _Configure()
    state = (row.InstanceState and row.InstanceState.Name) or ""
    interfaces = sorted(row.NetworkInterfaceSet or (), key=lambda i: i.NetworkInterfaceType != "primary")
    primary = interfaces[0] if interfaces else _Interface()
    return api.Server(
        id=row.InstanceId,
        name=row.InstanceName or "",
        cpu=size.VCPU,
        memory_mib=None if size.MemoryGb is None else size.MemoryGb * 1024,
        disk_gib=_disks(row, size),
        **api.addresses(lan=[row.PrivateIpAddress, *(interface.PrivateIpAddress for interface in interfaces)],
                        wan=[*(interface.PublicIp or "" for interface in interfaces), *public]),
        status=_status(state.strip()),
        party_status=state,
        created_at=_time(row.CreationDate),
        zone=row.AvailabilityZone or row.AvailabilityZoneName or "",
        project_id="" if row.ProjectId is None else str(row.ProjectId),
        instance_type=row.InstanceType or "",
        image_id=row.ImageId,
        vpc_id=primary.VpcId,
        subnet_id=primary.SubnetId,
        security_groups=api.groups(None if interface.SecurityGroupSet is None else [
            group.SecurityGroupId for group in interface.SecurityGroupSet] for interface in interfaces),
        charge_type=_CHARGES.get(row.ChargeType or ""),
        expires_at=_time(row.ServiceEndTime) if row.ChargeType == "Monthly" else None,
        host_id=row.DedicatedUuid,
    )


def _disks(row: _Instance, size: _Configure) -> int | None:
    """Cloud disks; local ones (RootDiskGb, DataDiskGb) where the row names no cloud disk in their place."""
    system, data = api.nested(row.SystemDisk, _Disk, one=True), api.nested(row.DataDisks, _Disk)
    if system is None or data is None:      # there, but unreadable
        return None
    root = size.RootDiskGb if not system or system[0].DiskSize is None else system[0].DiskSize
    listed = row.DataDisks is not msgspec.UNSET and bytes(row.DataDisks) != b"null"
    local = 0 if size.DataDiskGb is None and listed else size.DataDiskGb
    return api.total_gib([root, *([disk.DiskSize for disk in data] if data else [local])])


def _status(word: str) -> api.Status:
    return _STATUS.get(word, api.Status.ERROR if word.endswith(_FAILURES) else api.Status.UNKNOWN)


def _time(text: str | None) -> datetime | None:
    return api.parse_time(f"{text}+08:00") or api.parse_time(text) if text else None


# ---------------------------------------------------------------- projects, elastic IPs

def _projects(client: api.Client) -> list[str]:
    def fetch() -> tuple[float, list[str]]:
        answer = _call(client, "GetAccountAllProjectList", {}, _Projects).ListProjectResult
        if (answer.Total or 0) > len(answer.ProjectList):
            raise api.PartyMalformed("The party named fewer projects than it counts.")
        return time.time() + _KEPT, [str(project.ProjectId) for project in answer.ProjectList]

    return client.with_session("projects", fetch, lambda projects: projects)


def _lacks_public(row: _Instance) -> bool:
    interfaces = row.NetworkInterfaceSet
    return not interfaces or any(interface.PublicIp is msgspec.UNSET for interface in interfaces)


def _public(client: api.Client, rows: Sequence[_Instance]) -> dict[str, list[str]]:
    """A server's id -> its elastic IPs, those of the primary interface first. Many servers: the region's whole list."""
    ids = [interface.NetworkInterfaceId or ""
           for row in rows for interface in row.NetworkInterfaceSet or [_Interface()]]
    query = {"MaxResults": str(_ADDRESSES)}
    if len(ids) <= _FILTER and all(ids):
        query |= {"Filter.1.Name": "network-interface-id", **api.numbered("Filter.1.Value", ids)}

    def walk(projects: Sequence[str]) -> list[_Address]:
        def fetch(token: str | None) -> api.Page[_Address]:
            answer = _call(client, "DescribeAddresses", {
                **query, **api.numbered("ProjectId", projects), **api.given(NextToken=token)}, _Addresses)
            return api.Page([(address.PublicIp, address) for address in answer.AddressesSet or ()],
                            token=str(answer.NextToken) if answer.NextToken else None)

        return api.by_token(fetch).rows

    ips = client.in_batches(_projects(client), _PROJECTS, walk)
    ips.sort(key=lambda address: (address.NetworkInterfaceType != "primary", address.PublicIp))
    return api.by_owner((address.InstanceId, address.PublicIp) for address in ips)


def _batches(projects: Sequence[str]) -> list[Sequence[str]]:
    return [projects[at:at + _PROJECTS] for at in range(0, len(projects), _PROJECTS)]


# ---------------------------------------------------------------- regions, check

def list_regions(client: api.Client) -> list[api.Region]:
    answer = _call(client, "DescribeRegions", {}, _Regions)
    return [api.Region(region.Region, region.RegionName or "") for region in answer.RegionSet]


def check(client: api.Client) -> None:
    query = {"MaxResults": str(_LEAST), **api.numbered("ProjectId", [client.project] if client.project else ())}
    _call(client, "DescribeInstances", query, _Instances)


# ---------------------------------------------------------------- the call

_SERVICES = {"GetAccountAllProjectList": "iam", "DescribeAddresses": "eip"}
_VERSIONS = {"kec": "2016-03-04", "eip": "2016-03-04", "iam": "2015-11-01"}


def _call(client: api.Client, action: str, query: Mapping[str, str], shape: type[_T]) -> _T:
    service = _SERVICES.get(action, "kec")
    region = PARTY.default_region if action == "DescribeRegions" else client.region     # which may be unknown
    query = {"Action": action, "Version": _VERSIONS[service], "Region": region, **query}
    url = client.url(f"https://{service}.api.ksyun.com/?{urlencode(query)}")
    return client.call(action, lambda: sign(service, region, url, client.credentials), shape)


def sign(service: str, region: str, url: str, keys: Mapping[str, str]) -> api.Request:
    """Signature version 4 by botocore, at its clock's time."""
    headers = {"Host": urlsplit(url).netloc, "X-Amz-Content-SHA256": hashlib.sha256(b"").hexdigest()}
    if "security_token" in keys:
        headers["X-Ksc-Security-Token"] = keys["security_token"]
    request = AWSRequest("GET", url, headers=headers)
    SigV4Auth(Credentials(keys["access_key"], keys["secret_key"]), service, region).add_auth(request)
    return api.Request("GET", url, {**dict(request.headers.items()), "Accept": "application/json"})


# kingsoftcloud-sdk-python, by zones; cn-guangzhou-1: cloud-rec's collectors. The English is a translation
_REGION_NAMES = {
    "cn-beijing-6": ("North China 1 (Beijing)", "华北1（北京）"),
    "cn-shanghai-2": ("East China 1 (Shanghai)", "华东1（上海）"),
    "cn-shanghai-3": ("East China 2 (Shanghai)", "华东2（上海）"),
    "cn-guangzhou-1": ("South China 1 (Guangzhou)", "华南1（广州）"),
    "cn-northwest-1": ("Northwest China 1 (Qingyang)", "西北1区（庆阳）"),
    "cn-northwest-3": ("Northwest China 3 (Ningxia)", "西北3区（宁夏）"),
    "cn-northwest-4": ("Northwest China 4 (Haidong)", "西北4区（海东）"), "cn-taipei-1": ("Taipei", "台北"),
    "ap-singapore-1": ("Singapore", "新加坡"), "eu-east-1": ("Russia (Moscow)", "俄罗斯（莫斯科）"),
}

PARTY = api.Party(
    name="ksyun",
    title="Kingsoft Cloud KEC",
    reference="https://docs.ksyun.com/documents/816",
    order="none documented; pages at any row",
    credentials=(("access_key", "secret_key", "security_token?"),),
    permissions=("kec:DescribeInstances", "kec:DescribeRegions", "iam:GetAccountAllProjectList",
                 "eip:DescribeAddresses"),
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z]{2,4}(-[a-z0-9]{1,16}){1,4}",
    default_region="cn-beijing-6",
    unknown_region_is_empty=True,
    project="a project's id, a number",
    project_form=r"0|[1-9][0-9]{0,18}",
    limits=api.unpublished(10, "DescribeInstances", "DescribeAddresses", "GetAccountAllProjectList", "DescribeRegions"),
    error_code=api.error_at("Error.Code"),
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
