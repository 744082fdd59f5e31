"""Kingsoft Cloud KEC: DescribeInstances 2016-03-04, signed with AWS's Signature Version 4 by botocore.

https://docs.ksyun.com/documents/816 (call); fields by the models of the vendor's Java and Go SDKs and its Terraform
provider

Units: memory and disks GiB. Times: RFC 3339, or without a zone, then taken as China's (UTC+8); which of them KEC
writes is unconfirmed. Paging: Marker is the number of the first row, from 0; MaxResults 5 to 1000 (default 10);
InstanceCount is the total of the projects that were asked for. There is no time of the last update, and no tags.

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
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from ...cloud.cache import with_session
from ...cloud.decoding import Nested, Strict, nested, read, refusal
from ...cloud.paging import Page, Rows, by_offset, by_token, cut
from ...concurrency import run_all
from ...errors import (
    CLOCK,
    DISABLED_KEY,
    EXPIRED_KEY,
    FAILED,
    MALFORMED,
    MISSING_RIGHT,
    NOT_ACTIVATED,
    REGION,
    THROTTLED,
    UNAVAILABLE,
    WRONG_KEY,
    WRONG_TOKEN,
    PartyMalformed,
)
from ...model import (
    WHOLE,
    Account,
    Count,
    Limit,
    Listing,
    Party,
    Region,
    Request,
    Response,
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

_PAGE = 1000
_LEAST = 5                                  # fewest rows that can be asked for
_PROJECTS = 100                             # most projects to a call
_ADDRESSES = 200                            # the page of the vendor's own tools; the most is not documented
_FILTER = 50                                # most interfaces that a filter is given; the most is not documented
_KEPT = 120.0                               # seconds; the last minute of what is kept is not used any more
_WORKERS = 10                               # one second's worth of the rate
_DEFAULT_REGION = "cn-beijing-6"
_VERSIONS = {"kec": "2016-03-04", "eip": "2016-03-04", "iam": "2015-11-01"}
_T = TypeVar("_T")

_STATUS = {                                 # InstanceState.Name
    "scheduling": Status.BUILD,
    "building": Status.BUILD,
    "block_device_mapping": Status.BUILD,
    "waiting_volume_attached": Status.BUILD,
    "active": Status.ACTIVE,
    "backuping": Status.ACTIVE,             # an image is made of it
    "updating_password": Status.ACTIVE,
    "updating_hostname": Status.ACTIVE,
    "extending_volume": Status.ACTIVE,
    "net_card_loading": Status.ACTIVE,
    "net_card_unloading": Status.ACTIVE,
    "attach_key_pair_failed": Status.ACTIVE,
    "detach_key_pair_failed": Status.ACTIVE,
    "starting": Status.STARTING,
    "powering-on": Status.STARTING,
    "stopping": Status.STOPPING,
    "powering-off": Status.STOPPING,
    "stopped": Status.SHUTOFF,
    "restarting": Status.REBOOT,
    "rebooting": Status.REBOOT,
    "rebooting_hard": Status.HARD_REBOOT,
    "overriding": Status.REBUILD,
    "rebuilding": Status.REBUILD,
    "resizing": Status.RESIZE,
    "resize_prep": Status.RESIZE,
    "resize_migrating": Status.RESIZE,
    "resize_migrated": Status.RESIZE,
    "resize_finish": Status.RESIZE,
    "resize_success_local": Status.VERIFY_RESIZE,               # these four are done and wait for a restart
    "migrating_success": Status.VERIFY_RESIZE,
    "migrating_success_off_line": Status.VERIFY_RESIZE,
    "cross_finish": Status.VERIFY_RESIZE,
    "pre_migrating": Status.MIGRATING,
    "migrating": Status.MIGRATING,
    "migrating_op": Status.MIGRATING,
    "migrate": Status.MIGRATING,
    "cross_queue": Status.MIGRATING,
    "cross_migrating": Status.MIGRATING,
    "drg_migrating": Status.MIGRATING,      # into a group of data guard
    "invalid": Status.SUSPENDED,            # disabled
    "recycling": Status.SOFT_DELETED,       # in the bin
    "deleting": Status.DELETED,
    "deleted": Status.DELETED,
    "error": Status.ERROR,                  # creation failed
    "inactive": Status.ERROR,               # its health check fails
    "csresize-error": Status.ERROR,
}
_FAILURES = ("_error", "_error_local", "_error_off_line")       # power_on_error, resize_error_local, ...

_ERRORS = {
    "MissingAuthenticationToken": WRONG_KEY,
    "MissingAuthenticationTokenException": WRONG_KEY,
    "IncompleteSignature": WRONG_KEY,
    "SignatureDoesNotMatch": WRONG_KEY,
    "InvalidAccessKeyId": WRONG_KEY,
    "InvalidClientTokenId": WRONG_KEY,
    "InvalidSecurityToken": WRONG_TOKEN,
    "UnrecognizedClientException": WRONG_KEY,
    "AuthFailure": WRONG_KEY,
    "RequestExpired": CLOCK,
    "ExpiredToken": EXPIRED_KEY,
    "InvalidClientTokenId.Inactive": DISABLED_KEY,
    "AccessDenied": MISSING_RIGHT,
    "AccessDeniedException": MISSING_RIGHT,
    "UnauthorizedOperation": MISSING_RIGHT,
    "NotAuthorized": MISSING_RIGHT,
    "OptInRequired": NOT_ACTIVATED,
    "Throttling": THROTTLED,
    "ThrottlingException": THROTTLED,
    "RequestLimitExceeded": THROTTLED,
    "TooManyRequests": THROTTLED,
    "InvalidRegion": REGION,
    "InvalidRegionId": REGION,
    "UnsupportedRegion": REGION,
    "InvalidParameter": MALFORMED,
    "InvalidParameterValue": MALFORMED,
    "InvalidParameterCombination": MALFORMED,
    "InvalidQueryParameter": MALFORMED,
    "MissingParameter": MALFORMED,
    "MissingAction": MALFORMED,
    "InvalidAction": MALFORMED,
    "INVALID_ACTION": MALFORMED,
    "NoSuchVersion": MALFORMED,
    "InternalError": FAILED,
    "InternalFailure": FAILED,
    "ServiceInnerError": FAILED,
    "ServiceUnavailable": UNAVAILABLE,
}


# ---------------------------------------------------------------- the shapes that we read

class _Configure(msgspec.Struct, gc=False):
    VCPU: Count | None = None
    MemoryGb: Count | None = None
    RootDiskGb: Count | None = None
    DataDiskGb: Count | None = None


class _State(msgspec.Struct, gc=False):
    Name: str | None = None


class _Disk(msgspec.Struct, gc=False):
    DiskSize: Count | None = None


class _Interface(msgspec.Struct, gc=False):
    NetworkInterfaceId: str | None = None
    NetworkInterfaceType: str | None = None
    PrivateIpAddress: str | None = None
    PublicIp: str | msgspec.UnsetType | None = msgspec.UNSET    # not every region says


class _Instance(msgspec.Struct, gc=False):
    InstanceId: Text
    InstanceName: str | None = None
    InstanceType: str | None = None
    ProjectId: int | str | None = None
    InstanceConfigure: _Configure | None = None
    InstanceState: _State | None = None
    SystemDisk: Nested = msgspec.UNSET
    DataDisks: Nested = msgspec.UNSET
    PrivateIpAddress: str | None = None
    NetworkInterfaceSet: list[_Interface] | None = None
    CreationDate: str | None = None
    AvailabilityZone: str | None = None
    AvailabilityZoneName: str | None = None


class _Instances(msgspec.Struct):
    InstanceCount: Count
    InstancesSet: list[_Instance] | None


class _Address(msgspec.Struct, gc=False):
    PublicIp: str
    AllocationId: str | None = None
    InstanceId: str | None = None
    NetworkInterfaceType: str | None = None


class _Addresses(msgspec.Struct):
    AddressesSet: list[_Address] | None
    NextToken: Strict[str | int | None] = None


class _Project(msgspec.Struct):
    ProjectId: int | str


class _ProjectList(msgspec.Struct):
    ProjectList: Annotated[list[_Project], msgspec.Meta(min_length=1)]      # every account has its default project
    Total: Strict[int | None] = None


class _Projects(msgspec.Struct):
    ListProjectResult: _ProjectList


class _Region(msgspec.Struct):
    Region: Text
    RegionName: str | None = None


class _Regions(msgspec.Struct):
    RegionSet: list[_Region]


class _Error(msgspec.Struct):
    Code: str


class _Refusal(msgspec.Struct):
    Error: _Error | None = None


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    projects = [account.project] if account.project is not None else _projects(source.region, account, send)
    batches = _batches(projects)
    if len(batches) == 1:
        found = _instances(batches[0], source.region, account, send, window)
        rows, total = found.rows, found.total
    else:                                   # a row's place in the whole is known when every batch is
        parts = run_all([lambda batch=batch: _instances(batch, source.region, account, send, WHOLE)
                              for batch in batches], _WORKERS)
        every = {row.InstanceId: row for part in parts for row in part.rows}
        rows, total = cut(list(every.values()), window), len(every)
    public = _public(rows, source.region, account, send) if any(map(_lacks_public, rows)) else {}
    return Listing([_server(row, public.get(row.InstanceId, ())) for row in rows], total)


def _instances(projects: Sequence[str], region: str, account: Account, send: Send, window: Window) -> Rows[_Instance]:
    known = {*projects, *({"None"} if account.project is None else ())}     # None: a row that names no project

    def fetch(offset: int, limit: int) -> Page[_Instance]:
        size = max(_LEAST, limit)
        answer = _call("kec", "DescribeInstances", {
            "MaxResults": str(size), "Marker": str(offset), **_numbered("ProjectId", projects),
        }, _Instances, region, account, send)
        rows = answer.InstancesSet or []
        if any(str(row.ProjectId) not in known for row in rows):
            raise PartyMalformed("The party listed servers of another project than was asked for.")
        return Page([(row.InstanceId, row) for row in (rows[:limit] if limit < size else rows)], answer.InstanceCount)

    return by_offset(fetch, window, _PAGE, _WORKERS)


def _server(row: _Instance, public: Sequence[str]) -> Server:
    size = row.InstanceConfigure or _Configure()
    state = (row.InstanceState and row.InstanceState.Name) or ""
    interfaces = sorted(row.NetworkInterfaceSet or (), key=lambda i: i.NetworkInterfaceType != "primary")
    lan4, lan6 = addresses(row.PrivateIpAddress, *(interface.PrivateIpAddress for interface in interfaces))
    wan4, wan6 = addresses(*(interface.PublicIp or "" for interface in interfaces), *public)
    return Server(
        id=row.InstanceId,
        name=row.InstanceName or "",
        cpu=size.VCPU,
        memory_mib=None if size.MemoryGb is None else size.MemoryGb * 1024,
        disk_gib=_disks(row, size),
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_status(state.strip()),
        party_status=state,
        created_at=_time(row.CreationDate),
        zone=row.AvailabilityZone or row.AvailabilityZoneName or "",
        project_id="" if row.ProjectId is None else str(row.ProjectId),
        instance_type=row.InstanceType or "",
    )


def _disks(row: _Instance, size: _Configure) -> int | None:
    """Cloud disks; local ones (RootDiskGb, DataDiskGb) where the row names no cloud disk in their place."""
    system, data = nested(row.SystemDisk, _Disk, one=True), nested(row.DataDisks, _Disk)
    if system is None or data is None:      # there, but unreadable
        return None
    root = size.RootDiskGb if not system or system[0].DiskSize is None else system[0].DiskSize
    told = row.DataDisks is not msgspec.UNSET and bytes(row.DataDisks) != b"null"
    local = 0 if size.DataDiskGb is None and told else size.DataDiskGb
    return total_gib([root, *([disk.DiskSize for disk in data] if data else [local])])


def _status(word: str) -> Status:
    return _STATUS.get(word, Status.ERROR if word.endswith(_FAILURES) else Status.UNKNOWN)


def _time(text: str | None) -> datetime | None:
    return parse_time(f"{text}+08:00") or parse_time(text) if text else None


# ---------------------------------------------------------------- projects, elastic IPs

def _projects(region: str, account: Account, send: Send) -> list[str]:
    def ask() -> tuple[float, list[str]]:
        found = _call("iam", "GetAccountAllProjectList", {}, _Projects, region, account, send).ListProjectResult
        if (found.Total or 0) > len(found.ProjectList):
            raise PartyMalformed("The party named fewer projects than it counts.")
        return time.time() + _KEPT, [str(project.ProjectId) for project in found.ProjectList]

    return with_session(account, "projects", ask, lambda projects: projects)


def _lacks_public(row: _Instance) -> bool:
    interfaces = row.NetworkInterfaceSet
    return not interfaces or any(interface.PublicIp is msgspec.UNSET for interface in interfaces)


def _public(rows: Sequence[_Instance], region: str, account: Account, send: Send) -> dict[str, list[str]]:
    """A server's id -> its elastic IPs, those of the primary interface first. Many servers: the region's whole list."""
    ids = [interface.NetworkInterfaceId or ""
           for row in rows for interface in row.NetworkInterfaceSet or [_Interface()]]
    asked = {"MaxResults": str(_ADDRESSES)}
    if len(ids) <= _FILTER and all(ids):
        asked |= {"Filter.1.Name": "network-interface-id", **_numbered("Filter.1.Value", ids)}

    def listed(projects: Sequence[str]) -> list[_Address]:
        def fetch(token: str | None) -> Page[_Address]:
            answer = _call("eip", "DescribeAddresses", {
                **asked, **_numbered("ProjectId", projects), **({"NextToken": token} if token else {}),
            }, _Addresses, region, account, send)
            return Page([(address.PublicIp, address) for address in answer.AddressesSet or ()],
                        token=str(answer.NextToken) if answer.NextToken else None)

        return by_token(fetch).rows

    batches = _batches(_projects(region, account, send))
    parts = run_all([lambda batch=batch: listed(batch) for batch in batches], _WORKERS)
    owned: dict[str, list[str]] = {}
    for address in sorted((address for part in parts for address in part),
                          key=lambda a: (a.NetworkInterfaceType != "primary", a.PublicIp)):
        if address.InstanceId:
            owned.setdefault(address.InstanceId, []).append(address.PublicIp)
    return owned


def _batches(projects: Sequence[str]) -> list[Sequence[str]]:
    return [projects[at:at + _PROJECTS] for at in range(0, len(projects), _PROJECTS)]


def _numbered(name: str, values: Iterable[str]) -> dict[str, str]:
    return {f"{name}.{n}": value for n, value in enumerate(values, 1)}


# ---------------------------------------------------------------- regions, check

def list_regions(account: Account, send: Send) -> list[Region]:
    answer = _call("kec", "DescribeRegions", {}, _Regions, _DEFAULT_REGION, account, send)
    return [Region(region.Region, region.RegionName or "") for region in answer.RegionSet]


def check(source: Source, account: Account, send: Send) -> None:
    asked = {"MaxResults": str(_LEAST), **_numbered("ProjectId", [account.project] if account.project else ())}
    _call("kec", "DescribeInstances", asked, _Instances, source.region, account, send)


# ---------------------------------------------------------------- the call

def _call(service: str, action: str, asked: Mapping[str, str], shape: type[_T], region: str, account: Account,
          send: Send) -> _T:
    query = urlencode({"Action": action, "Version": _VERSIONS[service], "Region": region, **asked})
    url = account.url(f"https://{service}.api.ksyun.com/?{query}")
    response = send(action, lambda: sign(service, region, url, account.credentials))
    return read(response, shape)


def sign(service: str, region: str, url: str, keys: Mapping[str, str]) -> Request:
    """Signature version 4 by botocore, at its clock's time."""
    headers = {"Host": urlsplit(url).netloc, "X-Amz-Content-SHA256": hashlib.sha256(b"").hexdigest()}
    if "security_token" in keys:
        headers["X-Ksc-Security-Token"] = keys["security_token"]
    request = AWSRequest("GET", url, headers=headers)
    SigV4Auth(Credentials(keys["access_key"], keys["secret_key"]), service, region).add_auth(request)
    return Request("GET", url, {**dict(request.headers.items()), "Accept": "application/json"})


def error_code(response: Response) -> str | None:
    if b'"Error"' not in response.body:
        return None
    said = refusal(response, _Refusal)
    return said.Error.Code if said and said.Error else None


PARTY = Party(
    name="ksyun",
    title="Kingsoft Cloud KEC",
    reference="https://docs.ksyun.com/documents/816",
    order="none documented; pages at any row",
    credentials=(("access_key", "secret_key", "security_token?"),),
    permissions=("kec:DescribeInstances", "kec:DescribeRegions", "iam:GetAccountAllProjectList",
                 "eip:DescribeAddresses"),
    region_form=r"[a-z]{2,4}(-[a-z0-9]{1,16}){1,4}",
    default_region=_DEFAULT_REGION,
    unknown_region_is_empty=True,
    project="a project's id, a number",
    project_form=r"0|[1-9][0-9]{0,18}",
    limits={action: Limit(10) for action in (
        "DescribeInstances", "DescribeAddresses", "GetAccountAllProjectList", "DescribeRegions")},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
