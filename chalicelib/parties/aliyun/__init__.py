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
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from ...cloud import api

_PAGE = 100
_DISKS = 500                                # most disks, or interfaces, that one call gives
_INTERFACES = 100                           # most interfaces that one call takes
_WORKERS = 10
_T = TypeVar("_T")

_STATUS = {                                 # Status, all documented words; there is none for a reboot or an error
    "Pending": api.Status.BUILD,            # being created
    "Starting": api.Status.STARTING,
    "Running": api.Status.ACTIVE,
    "Stopping": api.Status.STOPPING,
    "Stopped": api.Status.SHUTOFF,
}

_ELSEWHERE = api.Meaning(api.PartyFailed, "the region does not offer this call")
_ERRORS = {                                 # the exact code, or what stands before its first dot
    # https://api.aliyun.com/document/Ecs/2014-05-26/errorCode, and the codes that the gateway gives for every product
    "InvalidAccessKeyId": api.WRONG_KEY,
    "IncompleteSignature": api.WRONG_KEY,
    "SignatureDoesNotMatch": api.WRONG_KEY,
    "InvalidAccessKeyId.Inactive": api.DISABLED_KEY,
    "NoEnabledAccessKey": api.DISABLED_KEY,
    "Forbidden.AccessKey": api.DISABLED_KEY,
    "Forbidden.AccessKeyDisabled": api.DISABLED_KEY,
    "InvalidSecurityToken": api.WRONG_TOKEN,
    "MissingSecurityToken": api.WRONG_TOKEN,
    "InvalidSecurityToken.Expired": api.EXPIRED_KEY,
    "EntityNotExist": api.ROLE,
    "InvalidTimeStamp": api.CLOCK,
    "IllegalTimestamp": api.CLOCK,
    "Forbidden": api.MISSING_RIGHT,
    "NoPermission": api.MISSING_RIGHT,
    "UnauthorizedOperation": api.MISSING_RIGHT,
    "Forbidden.RiskControl": api.SUSPENDED,
    "Forbidden.UserVerification": api.UNVERIFIED,
    "RealNameAuthenticationError": api.UNVERIFIED,
    "Forbidden.Unsubscribed": api.NOT_ACTIVATED,
    "Forbidden.AccountInDebt": api.ARREARS,
    "Account.Arrearage": api.ARREARS,
    "InsufficientBalance": api.ARREARS,
    "InvalidAccountStatus": api.SUSPENDED,
    "InvalidAccountStatus.NotEnoughBalance": api.ARREARS,
    "Throttling": api.THROTTLED,
    "InvalidRegionId": api.REGION,
    "IllegalRegionId": api.REGION,
    "RegionId": _ELSEWHERE,                 # RegionId.ApiNotSupported
    "InvalidParameter": api.MALFORMED,
    "MissingParameter": api.MALFORMED,
    "UnsupportedOperation": api.MALFORMED,
    "InvalidAction": api.MALFORMED,
    "InvalidVersion": api.MALFORMED,
    "InvalidApi": api.MALFORMED,
    "InvalidProduct": api.MALFORMED,
    "DryRunOperation": api.MALFORMED,       # meant where we ask for it, see _confirm
    "InternalError": api.FAILED,
    "UnknownError": api.FAILED,
    "SignatureNonceUsed": api.FAILED,       # another try has another one
    "ServiceUnavailable": api.UNAVAILABLE,
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
    InstanceId: api.Text
    InstanceName: str | None = None
    Status: str | None = None
    InstanceType: str | None = None
    Cpu: api.Count | None = None
    Memory: api.Count | None = None
    VpcAttributes: _Vpc | None = None
    NetworkInterfaces: _Interfaces | None = None
    InnerIpAddress: _Ips | None = None      # of the classic network, as is PublicIpAddress
    PublicIpAddress: _Ips | None = None
    EipAddress: _Eip | None = None
    CreationTime: str | None = None
    ZoneId: str | None = None
    ResourceGroupId: api.Strict[str | None] = None      # "" is the default group
    Tags: _Tags | None = None


class _InstanceList(msgspec.Struct):
    Instance: list[_Instance]


class _Instances(msgspec.Struct):
    TotalCount: api.Count
    Instances: _InstanceList


class _Attachment(msgspec.Struct, gc=False):
    InstanceId: Any = msgspec.UNSET


class _Attachments(msgspec.Struct, gc=False):
    Attachment: api.Strict[list[_Attachment] | None] = None


class _Disk(msgspec.Struct, gc=False):
    DiskId: api.Text
    Size: api.Count | None = None
    InstanceId: Any = None                  # "" if several may attach it
    Attachments: api.Strict[_Attachments | None] = None


class _DiskList(msgspec.Struct):
    Disk: list[_Disk]


class _Disks(msgspec.Struct):
    Disks: _DiskList
    NextToken: api.Strict[str | None] = None


class _FullInterface(msgspec.Struct, gc=False):
    NetworkInterfaceId: api.Text
    AssociatedPublicIp: _PublicIp | None = None
    PrivateIpSets: _PrivateIps | None = None


class _FullInterfaceList(msgspec.Struct):
    NetworkInterfaceSet: list[_FullInterface]


class _FullInterfaces(msgspec.Struct):
    NetworkInterfaceSets: _FullInterfaceList
    NextToken: api.Strict[str | None] = None


class _Region(msgspec.Struct):
    RegionId: api.Text
    LocalName: str | None = None


class _RegionList(msgspec.Struct):
    Region: list[_Region]


class _Regions(msgspec.Struct):
    Regions: _RegionList


class _Credentials(msgspec.Struct):
    AccessKeyId: api.Text
    AccessKeySecret: api.Text
    SecurityToken: api.Text
    Expiration: datetime


class _Assumed(msgspec.Struct):
    Credentials: _Credentials


class _DryRun(msgspec.Struct):
    """Of its answer nothing is read."""


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    project = client.project
    wanted = window if project is None else api.WHOLE
    if window.last is None:
        instances, disks = client.run_all(lambda: _instances(client, wanted), lambda: _disks(client, [{}]))
        rows, total = _kept(instances, project, window)
    else:
        instances = _instances(client, wanted)
        rows, total = _kept(instances, project, window)
        each = len(rows) <= 1 + 2 * (instances.total or 0) // _DISKS        # about two disks to an instance
        disks = _disks(client, [{"InstanceId": row.InstanceId} for row in rows] if each else [{}])
    if rows and not disks:
        _confirm(client, "DescribeDisks")
    sizes = api.attached(((disk.InstanceId, *(a.InstanceId for a in _attachments(disk))), disk.Size) for disk in disks)
    elastic = _elastic(client, rows) if client.account.deep else {}
    return api.Listing([_server(row, sizes.of(row.InstanceId), elastic) for row in rows], total)


def _kept(instances: api.Rows[_Instance], project: str | None, window: api.Window) -> tuple[list[_Instance], int]:
    """The rows of the project and the window, and how many there are of the project."""
    if project is None:
        return instances.rows, instances.total or 0
    rows = [row for row in instances.rows
            if ("default" if row.ResourceGroupId == "" else row.ResourceGroupId) == project]
    return api.cut(rows, window), len(rows)


def _instances(client: api.Client, window: api.Window) -> api.Rows[_Instance]:
    def fetch(number: int, size: int) -> api.Page[_Instance]:
        query = {"PageNumber": str(number), "PageSize": str(size)}
        answer = _call(client, "DescribeInstances", query, _Instances)
        return api.Page([(row.InstanceId, row) for row in answer.Instances.Instance], answer.TotalCount)

    rows = api.by_page(fetch, window, _PAGE, _WORKERS)
    if not rows.total:
        _confirm(client, "DescribeInstances")
    return rows


def _confirm(client: api.Client, action: str) -> None:
    """Returns if these keys may make the call, raises what it is refused with else."""
    try:
        _call(client, action, {"DryRun": "true"}, _DryRun)
    except api.PartyMalformed as refused:
        if refused.party_code == "DryRunOperation":
            return
        raise
    raise api.PartyMalformed("The party listed nothing, and does not say whether the account may see it.")


def _server(row: _Instance, disk_gib: int | None, elastic: Mapping[str, Sequence[str | None]]) -> api.Server:
    lan: list[str | None] = [*_ips(row.VpcAttributes and row.VpcAttributes.PrivateIpAddress)]
    wan = [row.EipAddress.IpAddress if row.EipAddress else None, *_ips(row.PublicIpAddress)]
    for interface in sorted(_interfaces(row), key=lambda i: i.Type != "Primary"):
        sets = (interface.PrivateIpSets and interface.PrivateIpSets.PrivateIpSet) or ()
        lan += [interface.PrimaryIpAddress,
                *(one.PrivateIpAddress for one in sorted(sets, key=lambda one: not one.Primary)),
                *(one.Ipv6Address for one in (interface.Ipv6Sets and interface.Ipv6Sets.Ipv6Set) or ())]
        wan += elastic.get(interface.NetworkInterfaceId or "", ())
    return api.Server(
        id=row.InstanceId,
        name=row.InstanceName or "",
        cpu=row.Cpu,
        memory_mib=row.Memory,
        disk_gib=disk_gib,
        **api.addresses([*lan, *_ips(row.InnerIpAddress)], wan),
        **PARTY.status_of(row.Status),
        created_at=api.parse_time(row.CreationTime),
        zone=row.ZoneId or "",
        project_id=row.ResourceGroupId or "",
        instance_type=row.InstanceType or "",
        tags=api.labelled((tag.TagKey, tag.TagValue) for tag in (row.Tags and row.Tags.Tag) or ()),
    )


def _attachments(disk: _Disk) -> Sequence[_Attachment]:
    return (disk.Attachments and disk.Attachments.Attachment) or ()


def _ips(ips: _Ips | None) -> list[str]:
    return (ips and ips.IpAddress) or []


def _interfaces(row: _Instance) -> list[_Interface]:
    return (row.NetworkInterfaces and row.NetworkInterfaces.NetworkInterface) or []


# ---------------------------------------------------------------- disks; --deep: elastic addresses of interfaces

def _disks(client: api.Client, filters: Sequence[Mapping[str, str]]) -> list[_Disk]:
    """The disks of each filter; {} for those of the region."""
    def walk(query: Mapping[str, str]) -> list[_Disk]:
        def fetch(token: str | None) -> api.Page[_Disk]:
            answer = _call(client, "DescribeDisks", {**query, **_after(token)}, _Disks)
            return api.Page([(disk.DiskId, disk) for disk in answer.Disks.Disk], token=answer.NextToken)

        return api.by_token(fetch).rows

    return list({disk.DiskId: disk for disks in client.for_each(filters, walk) for disk in disks}.values())


def _elastic(client: api.Client, rows: Iterable[_Instance]) -> dict[str, list[str | None]]:
    """Interface -> the elastic addresses bound to it, for the secondary interfaces of these rows."""
    def walk(ids: Sequence[str]) -> list[_FullInterface]:
        def fetch(token: str | None) -> api.Page[_FullInterface]:
            query = {**api.numbered("NetworkInterfaceId", ids), **_after(token)}
            answer = _call(client, "DescribeNetworkInterfaces", query, _FullInterfaces)
            return api.Page([(i.NetworkInterfaceId, i) for i in answer.NetworkInterfaceSets.NetworkInterfaceSet],
                            token=answer.NextToken)

        interfaces = api.by_token(fetch).rows
        if not interfaces:                  # one may have gone meanwhile, but hardly all: no right to see them
            raise api.PartyMalformed("The party shows none of the interfaces that it listed.")
        return interfaces

    ids = [i.NetworkInterfaceId for row in rows for i in _interfaces(row)
           if i.NetworkInterfaceId and i.Type != "Primary"]
    return {interface.NetworkInterfaceId: [one.PublicIpAddress for one in (
        interface.AssociatedPublicIp,
        *(ip.AssociatedPublicIp for ip in (interface.PrivateIpSets and interface.PrivateIpSets.PrivateIpSet) or ()),
    ) if one] for interface in client.in_batches(ids, _INTERFACES, walk)}


def _after(token: str | None) -> dict[str, str]:
    return {"MaxResults": str(_DISKS), **api.given(NextToken=token)}


# ---------------------------------------------------------------- regions, check

def list_regions(client: api.Client) -> list[api.Region]:
    answer = _call(client, "DescribeRegions", {"AcceptLanguage": "en-US"}, _Regions)
    return [api.Region(region.RegionId, region.LocalName or "") for region in answer.Regions.Region]


def check(client: api.Client) -> None:
    """Both rights that a listing needs, without listing anything."""
    client.for_each(("DescribeInstances", "DescribeDisks"), lambda action: _confirm(client, action))


# ---------------------------------------------------------------- the call, with the account's keys or an assumed role

def _call(client: api.Client, action: str, query: Mapping[str, str], shape: type[_T]) -> _T:
    url = client.url(f"https://{_HOSTS.get(client.region, f'ecs.{client.region}')}.aliyuncs.com/")
    query = {"RegionId": client.region, **query}

    def signed(keys: api.Keys) -> _T:
        return client.call(action, _signer(action, "2014-05-26", url, query, keys), shape)

    if "role_arn" in client.credentials:
        return client.with_session("role", lambda: _assume(client), signed)
    return signed(_own_keys(client))


def _assume(client: api.Client) -> tuple[float, api.Keys]:
    """AssumeRole, narrowed to what we call, whatever the role itself may do.

    https://help.aliyun.com/zh/ram/developer-reference/api-sts-2015-04-01-assumerole
    """
    narrowed = {"Version": "1", "Statement": [
        {"Effect": "Allow", "Action": [*PARTY.permissions, *PARTY.deep_permissions], "Resource": "*"}]}
    query = {"RoleArn": client.credentials["role_arn"], "RoleSessionName": "twocloud", "DurationSeconds": "3600",
             "Policy": msgspec.json.encode(narrowed).decode(),
             **api.given(ExternalId=client.credentials.get("external_id"))}
    url = client.url("https://sts.aliyuncs.com/")
    session = client.call("AssumeRole", _signer("AssumeRole", "2015-04-01", url, query, _own_keys(client)),
                          _Assumed).Credentials
    return session.Expiration.timestamp(), api.Keys(
        session.AccessKeyId, session.AccessKeySecret, session.SecurityToken)


def _own_keys(client: api.Client) -> api.Keys:
    keys = client.credentials
    return api.Keys(keys["access_key_id"], keys["access_key_secret"], keys.get("security_token"))


def _signer(action: str, version: str, url: str, query: Mapping[str, str], keys: api.Keys) -> api.Sign:
    return lambda: sign(action, version, url, query, keys, time.time(), uuid.uuid4().hex)


def sign(action: str, version: str, url: str, query: Mapping[str, str], keys: api.Keys, now: float,
         nonce: str) -> api.Request:
    """ACS3-HMAC-SHA256. `now`: Unix time; the party allows fifteen minutes of difference, and each nonce once."""
    quoted = urlencode(sorted(query.items()), quote_via=quote, safe="")
    headers = {
        "host": urlsplit(url).netloc, "x-acs-action": action, "x-acs-content-sha256": hashlib.sha256().hexdigest(),
        "x-acs-date": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": nonce, "x-acs-version": version,
        **({"x-acs-security-token": keys.session_token} if keys.session_token else {})}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = "\n".join(("POST", "/", quoted, lines, names, headers["x-acs-content-sha256"]))
    to_sign = f"ACS3-HMAC-SHA256\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.digest(keys.secret_access_key.encode(), to_sign.encode(), "sha256").hex()
    return api.Request("POST", f"{url}?{quoted}", {
        **headers, "accept": "application/json",                # the default is XML
        "authorization": f"ACS3-HMAC-SHA256 Credential={keys.access_key_id},SignedHeaders={names},"
                         f"Signature={signature}"})


PARTY = api.Party(
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
    limits=api.per_second(10, "DescribeInstances", "DescribeDisks", "DescribeNetworkInterfaces", "DescribeRegions",
                          "AssumeRole"),
    error_code=api.error_at("Code"),
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
