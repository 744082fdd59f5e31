"""Tencent Cloud CVM: DescribeInstances 2017-03-12, signed with TC3-HMAC-SHA256.

https://cloud.tencent.com/document/api/213/15728 (call), /213/30654 (signature), /213/15753 (types)

Units: Memory and disks GiB. Times: UTC, `Z` or `+00:00`. Paging: Offset from 0, Limit at most 100 (default 20!),
TotalCount always; no documented order. Errors come inside HTTP 200. Lists may be null. There is no time of the
last update. Lighthouse servers are another product and never in this list.

The list gives the addresses of the primary interface, and possibly only the disks bought with the server; --deep
reads all disks (CBS DescribeDisks, https://cloud.tencent.com/document/api/362/16315) and all interfaces (VPC
DescribeNetworkInterfaces, https://cloud.tencent.com/document/api/215/15817), for each page of servers, side by side.
Rates by these pages: 40, 100 and 100 calls a second for each account and region. How many values an `instance-id`
filter of CBS and VPC takes is not documented; a page of 100 is sent.

The host is cvm.tencentcloudapi.com with the region in X-TC-Region, so that an unknown region is an answer and not
a name that cannot be looked up; the finance regions (*-fsi) answer only on hosts of their own.
"""

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import msgspec

from ...cloud.decoding import Nested, Strict, nested, read, refusal
from ...cloud.paging import Page, by_offset
from ...concurrency import run_both
from ...errors import (
    ADDRESS,
    ARREARS,
    CLOCK,
    FAILED,
    MALFORMED,
    MFA,
    MISSING_RIGHT,
    NOT_ACTIVATED,
    REGION,
    REGION_CLOSED,
    ROLE,
    THROTTLED,
    UNVERIFIED,
    WRONG_KEY,
    WRONG_TOKEN,
    Meaning,
    PartyDenied,
    PartyMalformed,
)
from ...model import (
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
    labelled,
    parse_time,
    total_gib,
)

_PAGE = 100
_WORKERS = 40                               # one second's worth of the documented rate
_T = TypeVar("_T")

_STATUS = {                                 # InstanceState, all documented words
    "PENDING": Status.BUILD,                # being created
    "LAUNCH_FAILED": Status.ERROR,          # creation failed
    "RUNNING": Status.ACTIVE,
    "STOPPED": Status.SHUTOFF,
    "STARTING": Status.STARTING,
    "STOPPING": Status.STOPPING,
    "REBOOTING": Status.REBOOT,
    "SHUTDOWN": Status.SOFT_DELETED,        # isolated, to be destroyed; can still be renewed
    "TERMINATING": Status.DELETED,
    "ENTER_RESCUE_MODE": Status.RESCUE,
    "RESCUE_MODE": Status.RESCUE,
    "EXIT_RESCUE_MODE": Status.RESCUE,
    "ENTER_SERVICE_LIVE_MIGRATE": Status.MIGRATING,
    "SERVICE_LIVE_MIGRATE": Status.MIGRATING,
    "EXIT_SERVICE_LIVE_MIGRATE": Status.MIGRATING,
}

_ALIASES = {                                # the short codes of the old v2 API, from Tencent's own documents
    "gz": "ap-guangzhou", "gzopen": "ap-guangzhou-open", "szx": "ap-shenzhen", "szjr": "ap-shenzhen-fsi",
    "sh": "ap-shanghai", "shjr": "ap-shanghai-fsi", "bj": "ap-beijing", "bjjr": "ap-beijing-fsi",
    "tsn": "ap-tianjin", "nj": "ap-nanjing", "hk": "ap-hongkong", "tpe": "ap-taipei", "sg": "ap-singapore",
    "th": "ap-bangkok", "in": "ap-mumbai", "kr": "ap-seoul", "jp": "ap-tokyo", "cd": "ap-chengdu",
    "cq": "ap-chongqing", "qy": "ap-qingyuan", "usw": "na-siliconvalley", "use": "na-ashburn", "ca": "na-toronto",
    "de": "eu-frankfurt", "ru": "eu-moscow", "hzec": "ap-hangzhou-ec", "fzec": "ap-fuzhou-ec",
    "jnec": "ap-jinan-ec", "sheec": "ap-shenyang-ec",
    # seen in official samples, the region they mean is inferred
    "jkt": "ap-jakarta", "osa": "ap-osaka", "sao": "sa-saopaulo", "sa": "me-saudi-arabia",
    "qyxa": "ap-qingyuan-xinan", "shadc": "ap-shanghai-adc", "whec": "ap-wuhan-ec", "csec": "ap-changsha-ec",
    "hfeec": "ap-hefei-ec", "sjwec": "ap-shijiazhuang-ec", "cgoec": "ap-zhengzhou-ec", "xiyec": "ap-xian-ec",
    "xbec": "ap-xibei-ec",
    # third parties only
    "tor": "na-toronto",
}

_NO_SUCH_KEY = Meaning(PartyDenied, "wrong key: no enabled key has this id; it was mistyped, deleted or disabled")
_ERRORS = {                                 # the exact code, or what stands before its first dot; the public codes are
    # those of https://cloud.tencent.com/document/api/213/30435, the others of the SDK's lists for cvm, cbs and vpc
    "AuthFailure": WRONG_KEY,
    "AuthFailure.SecretIdNotFound": _NO_SUCH_KEY,
    "AuthFailure.SignatureExpire": CLOCK,
    "AuthFailure.TokenFailure": WRONG_TOKEN,
    "AuthFailure.MFAFailure": MFA,
    "AuthFailure.UnauthorizedOperation": MISSING_RIGHT,
    "AuthFailure.CamRoleNameAuthenticateFailed": ROLE,
    "UnauthorizedOperation": MISSING_RIGHT,
    "UnauthorizedOperation.InvalidToken": WRONG_TOKEN,
    "UnauthorizedOperation.MFAExpired": MFA,
    "UnauthorizedOperation.MFANotFound": MFA,
    "UnauthorizedOperation.NoRealNameAuthentication": UNVERIFIED,
    "UnauthorizedOperation.NotCertification": UNVERIFIED,
    "UnauthorizedOperation.RoleNotExists": ROLE,
    "IpInBlacklist": ADDRESS,
    "IpNotInWhitelist": ADDRESS,
    "AccountQualificationRestrictions": UNVERIFIED,
    "InvalidAccount": ARREARS,              # InsufficientBalance, UnpaidOrder
    "OperationDenied.AccountNotSupported": NOT_ACTIVATED,
    "RequestLimitExceeded": THROTTLED,
    "UnsupportedRegion": REGION,
    "InvalidRegion": REGION,
    "InvalidRegion.Unavailable": REGION_CLOSED,
    "InvalidParameterValue.InvalidRegion": REGION,
    "InvalidParameter": MALFORMED,
    "InvalidParameterValue": MALFORMED,
    "InvalidParameterConflict": MALFORMED,
    "InvalidParameterCoexist": MALFORMED,
    "InvalidRequest": MALFORMED,
    "MissingParameter": MALFORMED,
    "UnknownParameter": MALFORMED,
    "UnsupportedOperation": MALFORMED,
    "InvalidFilter": MALFORMED,
    "InvalidFilterValue": MALFORMED,
    "InvalidAction": MALFORMED,
    "ActionOffline": MALFORMED,
    "NoSuchProduct": MALFORMED,
    "NoSuchVersion": MALFORMED,
    "UnsupportedProtocol": MALFORMED,
    "InternalError": FAILED,
    "InternalServerError": FAILED,
    "ResourceUnavailable": FAILED,
    "ServiceUnavailable": FAILED,
}


# ---------------------------------------------------------------- the shapes that we read

class _Placement(msgspec.Struct, gc=False):
    Zone: str | None = None
    ProjectId: int | None = None


class _Disk(msgspec.Struct, gc=False):
    DiskSize: Count | None = None
    DiskId: str | None = None
    DiskType: str | None = None


class _Tag(msgspec.Struct, gc=False):
    Key: str | None = None
    Value: str | None = None


class _Instance(msgspec.Struct, gc=False):
    InstanceId: Text
    InstanceName: str | None = None
    InstanceState: str | None = None
    InstanceType: str | None = None
    CPU: Count | None = None
    Memory: Count | None = None
    SystemDisk: Nested = msgspec.UNSET
    DataDisks: Nested = msgspec.UNSET
    PrivateIpAddresses: list[str] | None = None
    PublicIpAddresses: list[str] | None = None
    IPv6Addresses: list[str] | None = None
    PublicIPv6Addresses: list[str] | None = None
    CreatedTime: str | None = None
    Placement: _Placement | None = None
    Tags: list[_Tag] | None = None


class _Instances(msgspec.Struct):
    TotalCount: Count
    InstanceSet: list[_Instance] | None


class _CbsDisk(msgspec.Struct, gc=False):
    DiskId: Text
    DiskSize: Count | None = None
    InstanceId: str | msgspec.UnsetType | None = msgspec.UNSET
    InstanceIdList: Strict[list[str] | None] = None


class _Disks(msgspec.Struct):
    TotalCount: Count
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
    NetworkInterfaceId: Text
    Primary: bool | None = None
    PrivateIpAddressSet: list[_Address] | None = None
    Ipv6AddressSet: list[_Ipv6Address] | None = None
    Attachment: _Attachment | None = None


class _Interfaces(msgspec.Struct):
    TotalCount: Count
    NetworkInterfaceSet: list[_Interface] | None


class _Region(msgspec.Struct):
    Region: str
    RegionName: str | None = None
    RegionState: str | None = None


class _Regions(msgspec.Struct):
    RegionSet: list[_Region]


class _Error(msgspec.Struct):
    Code: str


class _Refusal(msgspec.Struct):
    Error: _Error | None = None


class _Envelope(msgspec.Struct, Generic[_T]):
    Response: _T


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    def fetch(offset: int, limit: int) -> Page[_Instance]:
        asked: dict[str, object] = {"Offset": offset, "Limit": limit}
        if account.project is not None:
            asked["Filters"] = [{"Name": "project-id", "Values": [account.project]}]
        answer = _call("cvm", "DescribeInstances", asked, _Instances, source.region, account, send)
        rows = answer.InstanceSet or []
        if account.project is not None and any(_project(row) != account.project for row in rows):
            raise PartyMalformed("The party listed servers of another project than the account's.")
        return Page([(row.InstanceId, row) for row in rows], answer.TotalCount)

    def fetch_servers(offset: int, limit: int) -> Page[Server]:
        page = fetch(offset, limit)
        rows = [row for _, row in page.rows]
        servers = _complete(rows, source, account, send) if account.deep and rows else [_server(row) for row in rows]
        return Page([(server.id, server) for server in servers], page.total)

    rows = by_offset(fetch_servers, window, _PAGE, _WORKERS)
    return Listing(rows.rows, rows.total)


def _server(row: _Instance) -> Server:
    lan4, lan6 = addresses(*(row.PrivateIpAddresses or ()), *(row.IPv6Addresses or ()))
    wan4, wan6 = addresses(*(row.PublicIpAddresses or ()), *(row.PublicIPv6Addresses or ()))
    return Server(
        id=row.InstanceId,
        name=row.InstanceName or "",
        cpu=row.CPU,
        memory_mib=None if row.Memory is None else row.Memory * 1024,
        disk_gib=_sum(_listed_disks(row)),
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_STATUS.get((row.InstanceState or "").strip(), Status.UNKNOWN),
        party_status=row.InstanceState or "",
        created_at=parse_time(row.CreatedTime),
        zone=(row.Placement and row.Placement.Zone) or "",
        project_id=_project(row),
        instance_type=row.InstanceType or "",
        tags=labelled((tag.Key, tag.Value) for tag in row.Tags or ()),
    )


def _listed_disks(row: _Instance) -> list[_Disk] | None:
    """The disks that the list itself names; None if it does not say, or cannot be read (null is none)."""
    if row.SystemDisk is msgspec.UNSET and row.DataDisks is msgspec.UNSET:
        return None
    system, data = nested(row.SystemDisk, _Disk, one=True), nested(row.DataDisks, _Disk)
    return None if system is None or data is None else [*system, *data]


def _sum(disks: list[_Disk] | None) -> int | None:
    return None if disks is None else total_gib(disk.DiskSize for disk in disks)


def _project(row: _Instance) -> str:
    return str(row.Placement.ProjectId) if row.Placement and row.Placement.ProjectId is not None else ""


# ---------------------------------------------------------------- --deep: every disk, every interface

def _complete(rows: Sequence[_Instance], source: Source, account: Account, send: Send) -> list[Server]:
    ids = [row.InstanceId for row in rows]
    found, interfaces = run_both(lambda: _disks(ids, source.region, account, send),
                             lambda: _interfaces(ids, source.region, account, send))
    disks: dict[str, list[_Disk]] = {key: [] for key in ids}
    for disk in found:                      # a shared disk counts for each server; whose is unreadable may be anyone's
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


def _with_all(server: Server, disk_gib: int | None, interfaces: list[_Interface]) -> Server:
    """What the list says stays first: the primary interface's addresses, in its order."""
    lan, wan = [*server.lan_ipv4, *server.lan_ipv6], [*server.wan_ipv4, *server.wan_ipv6]
    for interface in sorted(interfaces, key=lambda i: (not i.Primary, i.NetworkInterfaceId)):
        for address in sorted(interface.PrivateIpAddressSet or (), key=lambda a: not a.Primary):
            lan.append(address.PrivateIpAddress or "")
            wan.append(address.PublicIpAddress or "")
        for address in interface.Ipv6AddressSet or ():
            lan.append(address.Address or "")
            wan.append(address.PublicIpAddress or "")
    (lan4, lan6), (wan4, wan6) = addresses(*lan), addresses(*wan)
    return msgspec.structs.replace(server, disk_gib=disk_gib, lan_ipv4=lan4, lan_ipv6=lan6,
                                   wan_ipv4=wan4, wan_ipv6=wan6)


def _disks(ids: list[str], region: str, account: Account, send: Send) -> list[_CbsDisk]:
    def fetch(offset: int, limit: int) -> Page[_CbsDisk]:
        asked = {"Offset": offset, "Limit": limit, "Filters": [{"Name": "instance-id", "Values": ids}]}
        answer = _call("cbs", "DescribeDisks", asked, _Disks, region, account, send)
        return Page([(disk.DiskId, disk) for disk in answer.DiskSet or ()], answer.TotalCount)

    return by_offset(fetch, Window(), _PAGE, _WORKERS).rows


def _interfaces(ids: list[str], region: str, account: Account, send: Send) -> list[_Interface]:
    def fetch(offset: int, limit: int) -> Page[_Interface]:
        asked = {"Offset": offset, "Limit": limit, "Filters": [{"Name": "attachment.instance-id", "Values": ids}]}
        answer = _call("vpc", "DescribeNetworkInterfaces", asked, _Interfaces, region, account, send)
        return Page([(i.NetworkInterfaceId, i) for i in answer.NetworkInterfaceSet or ()], answer.TotalCount)

    return by_offset(fetch, Window(), _PAGE, _WORKERS).rows


# ---------------------------------------------------------------- regions, check

def list_regions(account: Account, send: Send) -> list[Region]:
    """https://cloud.tencent.com/document/product/1596/77930"""
    answer = _call("region", "DescribeRegions", {"Product": "cvm"}, _Regions, "", account, send)
    return [Region(r.Region, r.RegionName or "", r.RegionState == "AVAILABLE") for r in answer.RegionSet]


def check(source: Source, account: Account, send: Send) -> None:
    _call("cvm", "DescribeInstances", {"Offset": 0, "Limit": 1}, _Instances, source.region, account, send)


# ---------------------------------------------------------------- the call

_VERSIONS = {"cvm": "2017-03-12", "cbs": "2017-03-12", "vpc": "2017-03-12", "region": "2022-06-27"}


def _call(service: str, action: str, asked: Mapping[str, object], shape: type[_T], region: str, account: Account,
          send: Send) -> _T:
    own_host = f"{service}.{region}" if region.endswith("-fsi") else service
    url = account.url(f"https://{own_host}.tencentcloudapi.com/")
    body = msgspec.json.encode(asked)
    response = send(action, lambda: sign(service, action, region, url, body, account, time.time()))
    answer: _Envelope[_T] = read(response, _Envelope[shape])
    return answer.Response


def sign(service: str, action: str, region: str, url: str, body: bytes, account: Account, now: float) -> Request:
    """TC3-HMAC-SHA256. `now`: Unix time; the party allows five minutes of difference."""
    keys = account.credentials
    day = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
    content_type, host = "application/json; charset=utf-8", urlsplit(url).netloc
    canonical = "\n".join(("POST", "/", "", f"content-type:{content_type}", f"host:{host}", "",
                           "content-type;host", _sha256(body)))
    scope = f"{day}/{service}/tc3_request"
    to_sign = "\n".join(("TC3-HMAC-SHA256", str(int(now)), scope, _sha256(canonical.encode())))
    key = f"TC3{keys['secret_key']}".encode()
    for part in (day, service, "tc3_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    headers = {
        "Authorization": f"TC3-HMAC-SHA256 Credential={keys['secret_id']}/{scope}, "
                         f"SignedHeaders=content-type;host, Signature={signature}",
        "Content-Type": content_type, "Host": host, "X-TC-Action": action, "X-TC-Version": _VERSIONS[service],
        "X-TC-Timestamp": str(int(now)), "X-TC-Language": "en-US"}
    if region:
        headers["X-TC-Region"] = region
    if "token" in keys:
        headers["X-TC-Token"] = keys["token"]
    return Request("POST", url, headers, body)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def error_code(response: Response) -> str | None:
    if b'"Error"' not in response.body:
        return None
    said = refusal(response, _Envelope[_Refusal])
    return said.Response.Error.Code if said and said.Response.Error else None


PARTY = Party(
    name="qcloud",
    title="Tencent Cloud CVM",
    reference="https://cloud.tencent.com/document/api/213/15728",
    order="none documented; pages at any row",
    credentials=(("secret_id", "secret_key", "token?"),),
    grade="recorded",
    permissions=("cvm:DescribeInstances",),
    deep_permissions=("cbs:DescribeDisks", "vpc:DescribeNetworkInterfaces"),
    aliases=_ALIASES,
    region_form=r"[a-z]{2,4}(-[a-z0-9]{1,20}){1,4}",
    default_region="ap-guangzhou",
    project="a project's id, a number",
    project_form=r"0|[1-9][0-9]{0,18}",
    limits={"DescribeInstances": Limit(40), "DescribeDisks": Limit(100), "DescribeNetworkInterfaces": Limit(100),
            "DescribeRegions": Limit(20)},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
