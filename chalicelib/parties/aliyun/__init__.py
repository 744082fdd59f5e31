"""Alibaba Cloud ECS: DescribeInstances 2014-05-26, signed with ACS3-HMAC-SHA256.

https://help.aliyun.com/zh/ecs/developer-reference/api-ecs-2014-05-26-describeinstances (call),
https://help.aliyun.com/zh/sdk/product-overview/v3-request-structure-and-signature (signature)

Units: Memory MiB, disks GiB. Times: UTC, minutes only. There is no time of the last update. Paging: numbered pages of
at most 100 (default 10!) with TotalCount; with MaxResults or NextToken in the request TotalCount means nothing.
Lists are wrapped twice. No documented order. Sent as the vendor's own SDK sends it: POST, no body, words in the query.

The list names no disks; DescribeDisks does, 500 to a call, but its filter takes one instance only. So a whole list
reads the region's disks side by side with its instances, and a window asks for each of its servers or for the
region's disks, whichever takes fewer calls. A disk counts for each instance that it is attached to. An instance
without any listed disk came or went between the two lists: its disks are not known.

Until 2025-12-20 keys without the right were answered with an empty list and HTTP 200, now with 403 Forbidden.RAM
(Announcement of changes to the authentication mechanism for ECS query APIs). Private installations may still do it:
an empty list is believed only after a DryRun of the same call, which is answered DryRunOperation if all is well.

ResourceGroupId as a request parameter knows neither the default group nor groups of more than 1000 resources, so
--project is applied to the rows of the whole list, and the keys need the right for the whole account.

The list names the addresses of every interface, but of public addresses only the instance's own; --deep asks for the
elastic addresses bound to secondary interfaces (DescribeNetworkInterfaces, 100 interfaces to a call).

Rates: none are published (Quota Center shows an account its own), 10 calls a second are a careful guess. A role:
STS AssumeRole 2015-04-01, an hour, narrowed to what is called here. Host names: the vendor's SDK has a table of
exceptions, those in it that are open to customers are here.
"""

import hashlib
import hmac
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from ...cloud.cache import with_session
from ...cloud.decoding import Strict, read, refusal
from ...cloud.paging import Page, Rows, by_page, by_token, cut
from ...concurrency import run_all, run_both
from ...errors import (
    ARREARS,
    CLOCK,
    DISABLED_KEY,
    EXPIRED_KEY,
    FAILED,
    MALFORMED,
    MISSING_RIGHT,
    NOT_ACTIVATED,
    REGION,
    ROLE,
    SUSPENDED,
    THROTTLED,
    UNAVAILABLE,
    UNVERIFIED,
    WRONG_KEY,
    WRONG_TOKEN,
    Meaning,
    PartyFailed,
    PartyMalformed,
)
from ...model import (
    WHOLE,
    Account,
    Count,
    Keys,
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
    attached,
    labelled,
    parse_time,
)

_PAGE = 100
_DISKS = 500                                # most disks, or interfaces, that one call gives
_INTERFACES = 100                           # most interfaces that one call takes
_WORKERS = 10
_T = TypeVar("_T")

_STATUS = {                                 # Status, all documented words; there is none for a reboot or an error
    "Pending": Status.BUILD,                # being created
    "Starting": Status.STARTING,
    "Running": Status.ACTIVE,
    "Stopping": Status.STOPPING,
    "Stopped": Status.SHUTOFF,
}

_ELSEWHERE = Meaning(PartyFailed, "the region does not offer this call")
_ERRORS = {                                 # the exact code, or what stands before its first dot
    # https://api.aliyun.com/document/Ecs/2014-05-26/errorCode, and the codes that the gateway gives for every product
    "InvalidAccessKeyId": WRONG_KEY,
    "IncompleteSignature": WRONG_KEY,
    "SignatureDoesNotMatch": WRONG_KEY,
    "InvalidAccessKeyId.Inactive": DISABLED_KEY,
    "NoEnabledAccessKey": DISABLED_KEY,
    "Forbidden.AccessKey": DISABLED_KEY,
    "Forbidden.AccessKeyDisabled": DISABLED_KEY,
    "InvalidSecurityToken": WRONG_TOKEN,
    "MissingSecurityToken": WRONG_TOKEN,
    "InvalidSecurityToken.Expired": EXPIRED_KEY,
    "EntityNotExist": ROLE,
    "InvalidTimeStamp": CLOCK,
    "IllegalTimestamp": CLOCK,
    "Forbidden": MISSING_RIGHT,
    "NoPermission": MISSING_RIGHT,
    "UnauthorizedOperation": MISSING_RIGHT,
    "Forbidden.RiskControl": SUSPENDED,
    "Forbidden.UserVerification": UNVERIFIED,
    "RealNameAuthenticationError": UNVERIFIED,
    "Forbidden.Unsubscribed": NOT_ACTIVATED,
    "Forbidden.AccountInDebt": ARREARS,
    "Account.Arrearage": ARREARS,
    "InsufficientBalance": ARREARS,
    "InvalidAccountStatus": SUSPENDED,
    "InvalidAccountStatus.NotEnoughBalance": ARREARS,
    "Throttling": THROTTLED,
    "InvalidRegionId": REGION,
    "IllegalRegionId": REGION,
    "RegionId": _ELSEWHERE,                 # RegionId.ApiNotSupported
    "InvalidParameter": MALFORMED,
    "MissingParameter": MALFORMED,
    "UnsupportedOperation": MALFORMED,
    "InvalidAction": MALFORMED,
    "InvalidVersion": MALFORMED,
    "InvalidApi": MALFORMED,
    "InvalidProduct": MALFORMED,
    "DryRunOperation": MALFORMED,           # meant where we ask for it, see _confirm
    "InternalError": FAILED,
    "UnknownError": FAILED,
    "SignatureNonceUsed": FAILED,           # another try has another one
    "ServiceUnavailable": UNAVAILABLE,
}

_HOSTS = {
    "cn-hangzhou": "ecs-cn-hangzhou", "cn-shanghai-finance-1": "ecs-cn-hangzhou",
    "cn-shenzhen-finance-1": "ecs-cn-hangzhou", "cn-north-2-gov-1": "ecs", "cn-hangzhou-finance": "ecs",
}


# ---------------------------------------------------------------- the shapes that we read

class _Ips(msgspec.Struct, gc=False):
    IpAddress: list[str] | None = None


class _Vpc(msgspec.Struct, gc=False):
    PrivateIpAddress: _Ips | None = None


class _Eip(msgspec.Struct, gc=False):
    IpAddress: str | None = None


class _PublicIp(msgspec.Struct, gc=False):
    PublicIpAddress: str | None = None


class _PrivateIp(msgspec.Struct, gc=False):
    PrivateIpAddress: str | None = None
    Primary: bool | None = None
    AssociatedPublicIp: _PublicIp | None = None


class _PrivateIps(msgspec.Struct, gc=False):
    PrivateIpSet: list[_PrivateIp] | None = None


class _Ipv6(msgspec.Struct, gc=False):
    Ipv6Address: str | None = None


class _Ipv6s(msgspec.Struct, gc=False):
    Ipv6Set: list[_Ipv6] | None = None


class _Interface(msgspec.Struct, gc=False):
    NetworkInterfaceId: str | None = None
    Type: str | None = None
    PrimaryIpAddress: str | None = None
    PrivateIpSets: _PrivateIps | None = None
    Ipv6Sets: _Ipv6s | None = None


class _Interfaces(msgspec.Struct, gc=False):
    NetworkInterface: list[_Interface] | None = None


class _Tag(msgspec.Struct, gc=False):
    TagKey: str | None = None
    TagValue: str | None = None


class _Tags(msgspec.Struct, gc=False):
    Tag: list[_Tag] | None = None


class _Instance(msgspec.Struct, gc=False):
    InstanceId: Text
    InstanceName: str | None = None
    Status: str | None = None
    InstanceType: str | None = None
    Cpu: Count | None = None
    Memory: Count | None = None
    VpcAttributes: _Vpc | None = None
    NetworkInterfaces: _Interfaces | None = None
    InnerIpAddress: _Ips | None = None      # of the classic network, as is PublicIpAddress
    PublicIpAddress: _Ips | None = None
    EipAddress: _Eip | None = None
    CreationTime: str | None = None
    ZoneId: str | None = None
    ResourceGroupId: Strict[str | None] = None          # "" is the default group
    Tags: _Tags | None = None


class _InstanceList(msgspec.Struct):
    Instance: list[_Instance]


class _Instances(msgspec.Struct):
    TotalCount: Count
    Instances: _InstanceList


class _Attachment(msgspec.Struct, gc=False):
    InstanceId: Any = msgspec.UNSET


class _Attachments(msgspec.Struct, gc=False):
    Attachment: Strict[list[_Attachment] | None] = None


class _Disk(msgspec.Struct, gc=False):
    DiskId: Text
    Size: Count | None = None
    InstanceId: Any = None                  # "" if several may attach it
    Attachments: Strict[_Attachments | None] = None


class _DiskList(msgspec.Struct):
    Disk: list[_Disk]


class _Disks(msgspec.Struct):
    Disks: _DiskList
    NextToken: Strict[str | None] = None


class _FullInterface(msgspec.Struct, gc=False):
    NetworkInterfaceId: Text
    AssociatedPublicIp: _PublicIp | None = None
    PrivateIpSets: _PrivateIps | None = None


class _FullInterfaceList(msgspec.Struct):
    NetworkInterfaceSet: list[_FullInterface]


class _FullInterfaces(msgspec.Struct):
    NetworkInterfaceSets: _FullInterfaceList
    NextToken: Strict[str | None] = None


class _Region(msgspec.Struct):
    RegionId: Text
    LocalName: str | None = None


class _RegionList(msgspec.Struct):
    Region: list[_Region]


class _Regions(msgspec.Struct):
    Regions: _RegionList


class _Credentials(msgspec.Struct):
    AccessKeyId: Text
    AccessKeySecret: Text
    SecurityToken: Text
    Expiration: datetime


class _Assumed(msgspec.Struct):
    Credentials: _Credentials


class _Refusal(msgspec.Struct):
    Code: str | None = None


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    call = _caller(source.region, account, send)
    wanted = window if account.project is None else WHOLE
    if window.last is None:
        found, disks = run_both(lambda: _instances(call, wanted), lambda: _disks(call, [{}]))
        rows, total = _kept(found, account.project, window)
    else:
        found = _instances(call, wanted)
        rows, total = _kept(found, account.project, window)
        each = len(rows) <= 1 + 2 * (found.total or 0) // _DISKS            # about two disks to an instance
        disks = _disks(call, [{"InstanceId": row.InstanceId} for row in rows] if each else [{}])
    if rows and not disks:
        _confirm(call, "DescribeDisks")
    sizes = attached(((disk.InstanceId, *(a.InstanceId for a in _attachments(disk))), disk.Size) for disk in disks)
    wan = _elastic(call, rows) if account.deep else {}
    return Listing([_server(row, sizes.of(row.InstanceId), wan) for row in rows], total)


def _kept(found: Rows[_Instance], project: str | None, window: Window) -> tuple[list[_Instance], int]:
    """The rows of the project and the window, and how many there are of the project."""
    if project is None:
        return found.rows, found.total or 0
    rows = [row for row in found.rows
            if ("default" if row.ResourceGroupId == "" else row.ResourceGroupId) == project]
    return cut(rows, window), len(rows)


def _instances(call: "_Call", window: Window) -> Rows[_Instance]:
    def fetch(number: int, size: int) -> Page[_Instance]:
        answer = call("DescribeInstances", {"PageNumber": str(number), "PageSize": str(size)}, _Instances)
        return Page([(row.InstanceId, row) for row in answer.Instances.Instance], answer.TotalCount)

    found = by_page(fetch, window, _PAGE, _WORKERS)
    if not found.total:
        _confirm(call, "DescribeInstances")
    return found


def _confirm(call: "_Call", action: str) -> None:
    """Returns if these keys may make the call, raises what it is refused with else."""
    try:
        call(action, {"DryRun": "true"}, _Refusal)
    except PartyMalformed as refused:
        if refused.party_code == "DryRunOperation":
            return
        raise
    raise PartyMalformed("The party listed nothing, and does not say whether the account may see it.")


def _server(row: _Instance, disk_gib: int | None, elastic: Mapping[str, Sequence[str | None]]) -> Server:
    lan = list((row.VpcAttributes and row.VpcAttributes.PrivateIpAddress
                and row.VpcAttributes.PrivateIpAddress.IpAddress) or ())
    wan = [row.EipAddress.IpAddress if row.EipAddress else None, *(_ips(row.PublicIpAddress))]
    for interface in sorted(_interfaces(row), key=lambda i: i.Type != "Primary"):
        lan.append(interface.PrimaryIpAddress or "")
        sets = (interface.PrivateIpSets and interface.PrivateIpSets.PrivateIpSet) or ()
        lan += [one.PrivateIpAddress or "" for one in sorted(sets, key=lambda one: not one.Primary)]
        lan += [one.Ipv6Address or "" for one in (interface.Ipv6Sets and interface.Ipv6Sets.Ipv6Set) or ()]
        wan += elastic.get(interface.NetworkInterfaceId or "", ())
    (lan4, lan6), (wan4, wan6) = addresses(*lan, *_ips(row.InnerIpAddress)), addresses(*wan)
    return Server(
        id=row.InstanceId,
        name=row.InstanceName or "",
        cpu=row.Cpu,
        memory_mib=row.Memory,
        disk_gib=disk_gib,
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_STATUS.get((row.Status or "").strip(), Status.UNKNOWN),
        party_status=row.Status or "",
        created_at=parse_time(row.CreationTime),
        zone=row.ZoneId or "",
        project_id=row.ResourceGroupId or "",
        instance_type=row.InstanceType or "",
        tags=labelled((tag.TagKey, tag.TagValue) for tag in (row.Tags and row.Tags.Tag) or ()),
    )


def _attachments(disk: _Disk) -> Sequence[_Attachment]:
    return (disk.Attachments and disk.Attachments.Attachment) or ()


def _ips(found: _Ips | None) -> list[str]:
    return (found and found.IpAddress) or []


def _interfaces(row: _Instance) -> list[_Interface]:
    return (row.NetworkInterfaces and row.NetworkInterfaces.NetworkInterface) or []


# ---------------------------------------------------------------- disks; --deep: elastic addresses of interfaces

def _disks(call: "_Call", filters: Sequence[Mapping[str, str]]) -> list[_Disk]:
    """The disks of each filter; {} for those of the region."""
    def walk(asked: Mapping[str, str]) -> list[_Disk]:
        def fetch(token: str | None) -> Page[_Disk]:
            answer = call("DescribeDisks", {**asked, **_after(token)}, _Disks)
            return Page([(disk.DiskId, disk) for disk in answer.Disks.Disk], token=answer.NextToken)

        return by_token(fetch).rows

    found = run_all([lambda asked=asked: walk(asked) for asked in filters], _WORKERS)
    return list({disk.DiskId: disk for part in found for disk in part}.values())


def _elastic(call: "_Call", rows: Iterable[_Instance]) -> dict[str, list[str | None]]:
    """Interface -> the elastic addresses bound to it, for the secondary interfaces of these rows."""
    def walk(ids: Sequence[str]) -> list[_FullInterface]:
        asked = {f"NetworkInterfaceId.{n}": key for n, key in enumerate(ids, 1)}

        def fetch(token: str | None) -> Page[_FullInterface]:
            answer = call("DescribeNetworkInterfaces", {**asked, **_after(token)}, _FullInterfaces)
            return Page([(i.NetworkInterfaceId, i) for i in answer.NetworkInterfaceSets.NetworkInterfaceSet],
                        token=answer.NextToken)

        found = by_token(fetch).rows
        if not found:                       # one may have gone meanwhile, but hardly all: no right to see them
            raise PartyMalformed("The party shows none of the interfaces that it listed.")
        return found

    ids = [i.NetworkInterfaceId for row in rows for i in _interfaces(row)
           if i.NetworkInterfaceId and i.Type != "Primary"]
    batches = [ids[at:at + _INTERFACES] for at in range(0, len(ids), _INTERFACES)]
    found = run_all([lambda batch=batch: walk(batch) for batch in batches], _WORKERS)
    return {interface.NetworkInterfaceId: [one.PublicIpAddress for one in (
        interface.AssociatedPublicIp,
        *(ip.AssociatedPublicIp for ip in (interface.PrivateIpSets and interface.PrivateIpSets.PrivateIpSet) or ()),
    ) if one] for part in found for interface in part}


def _after(token: str | None) -> dict[str, str]:
    return {"MaxResults": str(_DISKS), **({"NextToken": token} if token else {})}


# ---------------------------------------------------------------- regions, check

def list_regions(account: Account, send: Send) -> list[Region]:
    region = account.regions[0] if account.regions else PARTY.default_region
    answer = _caller(region, account, send)("DescribeRegions", {"AcceptLanguage": "en-US"}, _Regions)
    return [Region(found.RegionId, found.LocalName or "") for found in answer.Regions.Region]


def check(source: Source, account: Account, send: Send) -> None:
    """Both rights that a listing needs, without listing anything."""
    call = _caller(source.region, account, send)
    run_both(lambda: _confirm(call, "DescribeInstances"), lambda: _confirm(call, "DescribeDisks"))


# ---------------------------------------------------------------- an assumed role

def _assume(account: Account, send: Send) -> tuple[float, Keys]:
    """AssumeRole, narrowed to what we call, whatever the role itself may do.

    https://help.aliyun.com/zh/ram/developer-reference/api-sts-2015-04-01-assumerole
    """
    narrowed = {"Version": "1", "Statement": [
        {"Effect": "Allow", "Action": [*PARTY.permissions, *PARTY.deep_permissions], "Resource": "*"}]}
    asked = {"RoleArn": account.credentials["role_arn"], "RoleSessionName": "twocloud", "DurationSeconds": "3600",
             "Policy": msgspec.json.encode(narrowed).decode()}
    if "external_id" in account.credentials:
        asked["ExternalId"] = account.credentials["external_id"]
    url = account.url("https://sts.aliyuncs.com/")
    response = send("AssumeRole", lambda: sign("AssumeRole", "2015-04-01", url, asked, _own_keys(account),
                                               time.time(), uuid.uuid4().hex))
    made = read(response, _Assumed).Credentials
    return made.Expiration.timestamp(), Keys(made.AccessKeyId, made.AccessKeySecret, made.SecurityToken)


# ---------------------------------------------------------------- the call

class _Call(Protocol):
    def __call__(self, action: str, asked: Mapping[str, str], shape: type[_T], /) -> _T: ...


def _caller(region: str, account: Account, send: Send) -> _Call:
    """Signs with the account's own keys, or those of the role that it names."""
    url = account.url(f"https://{_HOSTS.get(region, f'ecs.{region}')}.aliyuncs.com/")

    def call(action: str, asked: Mapping[str, str], shape: type[_T]) -> _T:
        def signed(keys: Keys) -> _T:
            return read(send(action, lambda: sign(action, "2014-05-26", url, {"RegionId": region, **asked}, keys,
                                                   time.time(), uuid.uuid4().hex)), shape)

        if "role_arn" in account.credentials:
            return with_session(account, "role", lambda: _assume(account, send), signed)
        return signed(_own_keys(account))

    return call


def _own_keys(account: Account) -> Keys:
    given = account.credentials
    return Keys(given["access_key_id"], given["access_key_secret"], given.get("security_token"))


def sign(action: str, version: str, url: str, asked: Mapping[str, str], keys: Keys, now: float,
         nonce: str) -> Request:
    """ACS3-HMAC-SHA256. `now`: Unix time; the party allows fifteen minutes of difference, and each nonce once."""
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(asked.items()))
    headers = {
        "host": urlsplit(url).netloc, "x-acs-action": action, "x-acs-content-sha256": hashlib.sha256().hexdigest(),
        "x-acs-date": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": nonce, "x-acs-version": version,
        **({"x-acs-security-token": keys.session_token} if keys.session_token else {})}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = "\n".join(("POST", "/", query, lines, names, headers["x-acs-content-sha256"]))
    to_sign = f"ACS3-HMAC-SHA256\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.digest(keys.secret_access_key.encode(), to_sign.encode(), "sha256").hex()
    return Request("POST", f"{url}?{query}", {
        **headers, "accept": "application/json",                # the default is XML
        "authorization": f"ACS3-HMAC-SHA256 Credential={keys.access_key_id},SignedHeaders={names},"
                         f"Signature={signature}"})


def error_code(response: Response) -> str | None:
    if b'"Code"' not in response.body:
        return None
    said = refusal(response, _Refusal)
    return said.Code if said else None


PARTY = Party(
    name="aliyun",
    title="Alibaba Cloud ECS",
    reference="https://help.aliyun.com/zh/ecs/developer-reference/api-ecs-2014-05-26-describeinstances",
    order="none documented; numbered pages",
    credentials=(("access_key_id", "access_key_secret", "security_token?"),
                 ("access_key_id", "access_key_secret", "role_arn", "external_id?")),
    forms={"role_arn": r"acs:ram::[0-9]{1,20}:role/[A-Za-z0-9.@_-]{1,64}"},
    permissions=("ecs:DescribeInstances", "ecs:DescribeDisks", "ecs:DescribeRegions"),
    deep_permissions=("ecs:DescribeNetworkInterfaces",),
    region_form=r"[a-z]{2,4}(-[a-z0-9]{1,13}){1,4}",
    default_region="cn-beijing",
    project='a resource group, rg-…, or "default"',
    project_form=r"rg-[A-Za-z0-9]{1,60}|default",
    limits={action: Limit(10) for action in (
        "DescribeInstances", "DescribeDisks", "DescribeNetworkInterfaces", "DescribeRegions", "AssumeRole")},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
