"""Baidu AI Cloud BCC: REST API v2, GET /v2/instance, signed with bce-auth-v1.

https://cloud.baidu.com/doc/BCC/s/Xjwvyodmx (list), https://cloud.baidu.com/doc/BCC/s/6jwvyo0q2 (models),
https://cloud.baidu.com/doc/Reference/s/njwvz1yfu (signature)

Units: memory and disks GiB (called GB). Times: UTC, `Z`. Paging: an opaque marker, up to 1000 rows, no total and no
documented order; so a window is a walk that stops at the first row after it. There is no time of the last update.
Instances in the recycle bin are listed, released ones are not. Bare metal (BBC) is another product.

Whether the list holds each instance's `volumes` is documented in two ways: the vendor's SDK of 2026 says so, the sample
and the model's page of 2025 have them in the details of one instance alone. Where an answer has none, the disks of the
region are walked through as well (GET /v2/volume, 1000 rows) and joined by their attachments; an instance that no disk
names has none that can be known. `volumes` count local disks too; the region's disks do not, so localDiskSizeInGB is
added to those, and where it is missing the sum is not known.
nicInfo is the primary interface with all its addresses; `eniInfos` in it the others, where the answer has them.
An address that is not there is "" or the text "null".

The region is in the host's name alone. A name that does not exist is an unknown region, but an --endpoint answers for
any, so an empty list is believed only of a region that DescribeRegions names. Rates are not published: five calls a
second are asked for. A wrong signature is HTTP 400. Resource groups cannot be asked for: the whole list is read, and
filtered here; an instance may be in several. Not confirmed: the words for a passed rate, the name of the policy.
"""

import hmac
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from ...cloud import api

_PAGE = 1000                                # most that both lists take
_VALID = 1800                               # seconds that a signature holds, as the vendor's SDKs have it
_T = TypeVar("_T")

_STATUS = {                                 # InstanceStatus, the complete enumeration
    "Starting": api.Status.STARTING,        # the first start as well
    "Running": api.Status.ACTIVE,
    "Stopping": api.Status.STOPPING,
    "Stopped": api.Status.SHUTOFF,
    "Recycled": api.Status.SOFT_DELETED,    # in the recycle bin
    "Deleted": api.Status.DELETED,          # internal, never listed
    "Scaling": api.Status.RESIZE,
    "VolumeResizing": api.Status.RESIZE,
    "Expired": api.Status.SUSPENDED,        # expired, or the account is in debt
    "Error": api.Status.ERROR,
    "Moving": api.Status.MIGRATING,         # to another zone
    "SnapshotProcessing": api.Status.ACTIVE,    # the rest: something is done to an instance that runs on
    "ImageProcessing": api.Status.ACTIVE,
    "Recharging": api.Status.ACTIVE,
    "BillingChanging": api.Status.ACTIVE,
    "ChangeSubnet": api.Status.ACTIVE,
    "ChangeVpc": api.Status.ACTIVE,
    "AttachingPort": api.Status.ACTIVE,
    "DetachingPort": api.Status.ACTIVE,
}
_CHARGES = {"prepaid": api.PREPAID, "postpaid": api.POSTPAID, "bidding": api.SPOT}

_ERRORS = {                                 # https://cloud.baidu.com/doc/BCC/s/Ojwvyo6nc
    "AccessDenied": api.MISSING_RIGHT,
    "OptInRequired": api.NOT_ACTIVATED,
    "InvalidAccessKeyId": api.WRONG_KEY,
    "InvalidHTTPAuthHeader": api.WRONG_KEY,
    "InvalidSessionToken": api.WRONG_TOKEN,
    "AccountInDebt": api.ARREARS,           # from here on words of calls that buy something
    "InsufficientBalance": api.ARREARS,
    "PaymentFailed": api.ARREARS,
    "SignatureDoesNotMatch": api.WRONG_KEY,     # with HTTP 400
    "RequestExpired": api.CLOCK,
    "RateLimit": api.THROTTLED,             # see error_code
    "BadRequest": api.MALFORMED,
    "InappropriateJSON": api.MALFORMED,
    "InvalidHTTPRequest": api.MALFORMED,
    "InvalidURI": api.MALFORMED,
    "InvalidVersion": api.MALFORMED,
    "MalformedJSON": api.MALFORMED,
    "NoSuchObject": api.MALFORMED,
    "PreconditionFailed": api.MALFORMED,
    "InternalError": api.FAILED,
    "ServiceInternalError": api.FAILED,
    "ServiceUnavailable": api.UNAVAILABLE,
}


# ---------------------------------------------------------------- the shapes that we read

class _Ip(msgspec.Struct, gc=False):
    privateIp: str | None = None
    eip: str | None = None
    primary: str | bool | None = None


class _EniIp(msgspec.Struct, gc=False):
    privateIpAddress: str | None = None
    publicIpAddress: str | None = None
    ipv6Address: str | None = None
    primary: bool | None = None


class _Eni(msgspec.Struct, gc=False):
    privateIpSet: list[_EniIp] | None = None


class _Nic(msgspec.Struct, gc=False):
    ips: list[_Ip] | None = None
    ipv6s: list[_Ip] | None = None
    eniInfos: list[_Eni] | None = None
    vpcId: str | None = None
    subnetId: str | None = None
    securityGroups: api.Whole[list[str] | None] = None


class _Disk(msgspec.Struct, gc=False):
    diskSizeInGB: api.Count | None = None


class _Group(msgspec.Struct, gc=False):
    groupId: str


class _Tag(msgspec.Struct, gc=False):
    tagKey: str | None = None
    tagValue: str | None = None


class _Instance(msgspec.Struct, gc=False):
    id: api.Text
    name: str | None = None
    status: str | None = None
    spec: str | None = None
    cpuCount: api.Count | None = None
    memoryCapacityInGB: api.Count | None = None
    volumes: list[_Disk] | None = None
    localDiskSizeInGB: api.Count | None = None
    internalIp: str | None = None
    publicIp: str | None = None
    ipv6: str | None = None
    ipv6Addresses: list[str] | None = None
    nicInfo: _Nic | None = None
    createTime: str | None = None
    zoneName: str | None = None
    resGroupInfos: api.Strict[list[_Group] | None] = None
    tags: list[_Tag] | None = None
    imageId: str | None = None
    imageName: str | None = None
    osName: str | None = None
    vpcId: str | None = None
    subnetId: str | None = None
    keypairName: str | None = None
    paymentTiming: str | None = None
    expireTime: str | None = None
    dedicatedHostId: str | None = None


class _Instances(msgspec.Struct):
    isTruncated: bool
    instances: list[_Instance]
    nextMarker: api.Strict[str | None] = None


class _Attachment(msgspec.Struct, gc=False):
    instanceId: Any = msgspec.UNSET


class _Volume(msgspec.Struct, gc=False):
    id: api.Text
    diskSizeInGB: api.Count | None = None
    attachments: api.Strict[list[_Attachment] | None] = None


class _Volumes(msgspec.Struct):
    isTruncated: bool
    volumes: list[_Volume]
    nextMarker: api.Strict[str | None] = None


class _Region(msgspec.Struct):
    regionId: api.Text
    regionName: str | None = None


class _Regions(msgspec.Struct):
    regions: list[_Region]


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    rows = _instances(client, window if client.project is None else api.WHOLE)
    if client.project is not None:
        kept = [row for row in rows.rows if client.project in _groups(row)]
        rows = api.Rows(api.cut(kept, window), len(kept))
    unsized = any(row.volumes is None for row in rows.rows)
    sizes = _sizes(client) if unsized else api.Attached({}, True)
    return rows.listing(lambda row: _server(row, sizes, client.project))


def _instances(client: api.Client, window: api.Window) -> api.Rows[_Instance]:
    first = _PAGE if window.last is None else min(_PAGE, window.last + 1)       # one more tells whether more follow

    def fetch(marker: str | None) -> api.Page[_Instance]:
        answer = _list(client, "ListInstances", "instance", marker, _PAGE if marker else first, _Instances)
        return api.Page([(row.id, row) for row in answer.instances], token=_next(answer))

    return api.by_token(fetch, window)


def _server(row: _Instance, sizes: api.Attached, project: str | None = None) -> api.Server:
    """`sizes`: of all disks, by instance, for a row without its own. `project`: the one asked for, among the row's."""
    lan, wan = [row.internalIp], [row.publicIp]
    nic = row.nicInfo or _Nic()
    for ip in sorted(nic.ips or (), key=lambda ip: ip.primary not in ("true", True)):
        lan.append(ip.privateIp)
        wan.append(ip.eip)
    for eni in nic.eniInfos or ():
        for address in sorted(eni.privateIpSet or (), key=lambda a: not a.primary):
            lan += [address.privateIpAddress, address.ipv6Address]
            wan.append(address.publicIpAddress)
    lan += [row.ipv6, *(row.ipv6Addresses or ()), *(ip.privateIp for ip in nic.ipv6s or ())]
    wan += [ip.eip for ip in nic.ipv6s or ()]
    return api.Server(
        id=row.id,
        name=row.name or "",
        cpu=row.cpuCount,
        memory_mib=None if row.memoryCapacityInGB is None else row.memoryCapacityInGB * 1024,
        disk_gib=_disks(row, sizes),
        **api.addresses(lan, wan),
        **PARTY.status_of(row.status),
        created_at=api.parse_time(row.createTime),
        zone=row.zoneName or "",
        project_id=project or next(iter(_groups(row)), ""),
        instance_type=row.spec or "",
        tags=api.labelled((tag.tagKey, tag.tagValue) for tag in row.tags or ()),
        image_id=row.imageId,
        image_name=row.imageName,
        os=api.os_family(row.osName),
        vpc_id=row.vpcId or nic.vpcId,
        subnet_id=row.subnetId or nic.subnetId,
        security_groups=api.ids(nic.securityGroups),
        key_name=row.keypairName,
        charge_type=_CHARGES.get((row.paymentTiming or "").lower()),
        expires_at=api.parse_time(row.expireTime) if (row.paymentTiming or "").lower() == "prepaid" else None,
        host_id=row.dedicatedHostId,
    )


def _disks(row: _Instance, sizes: api.Attached) -> int | None:
    if row.volumes is None:
        return api.total_gib((sizes.of(row.id), row.localDiskSizeInGB))
    return api.total_gib(disk.diskSizeInGB for disk in row.volumes)


def _groups(row: _Instance) -> list[str]:
    return [group.groupId for group in row.resGroupInfos or ()]


def _sizes(client: api.Client) -> api.Attached:
    """The disks of each instance of the region together, in GiB; a shared disk counts for each."""
    def fetch(marker: str | None) -> api.Page[_Volume]:
        answer = _list(client, "ListVolumes", "volume", marker, _PAGE, _Volumes)
        return api.Page([(volume.id, volume) for volume in answer.volumes], token=_next(answer))

    return api.attached(((attachment.instanceId for attachment in volume.attachments or ()), volume.diskSizeInGB)
                    for volume in api.by_token(fetch).rows)


def _next(answer: _Instances | _Volumes) -> str | None:
    if answer.isTruncated and not answer.nextMarker:
        raise api.PartyMalformed("The party says that more rows follow, but not how to ask for them.")
    return answer.nextMarker if answer.isTruncated else None


# ---------------------------------------------------------------- regions, check

def list_regions(client: api.Client) -> list[api.Region]:
    """https://cloud.baidu.com/doc/BCC/s/3lvc76e8v, at a host of no region; without a region in the body: all."""
    url = client.url("https://bcc.baidubce.com/v2/region/describeRegions")
    answer = client.call("DescribeRegions", lambda: sign("POST", url, b"{}", client.account, time.time()), _Regions)
    return [api.Region(region.regionId, region.regionName or "") for region in answer.regions]


def check(client: api.Client) -> None:
    _list(client, "ListInstances", "instance", None, 1, _Instances)


# ---------------------------------------------------------------- the call

def _list(client: api.Client, operation: str, path: str, marker: str | None, size: int, shape: type[_T]) -> _T:
    query = urlencode({**api.given(marker=marker), "maxKeys": size}, quote_via=quote, safe="")
    url = client.url(f"https://bcc.{client.region}.baidubce.com/v2/{path}?{query}")
    return client.call(operation, lambda: sign("GET", url, b"", client.account, time.time()), shape)


def sign(method: str, url: str, body: bytes, account: api.Account, now: float) -> api.Request:
    """`now`: Unix time."""
    keys, stamp = account.credentials, datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    headers = {"Host": urlsplit(url).netloc, "x-bce-date": stamp}
    if "session_token" in keys:
        headers["x-bce-security-token"] = keys["session_token"]
    headers["Authorization"] = authorization(method, url, headers, keys, stamp)
    if body:
        headers["Content-Type"] = "application/json"
    return api.Request(method, url, headers, body)


def authorization(method: str, url: str, headers: Mapping[str, str], keys: Mapping[str, str], stamp: str) -> str:
    """bce-auth-v1 over all these headers, from `stamp` on. The key of the second HMAC is the first one's hex text."""
    there = urlsplit(url)
    scope = f"bce-auth-v1/{keys['access_key_id']}/{stamp}/{_VALID}"
    key = hmac.digest(keys["secret_access_key"].encode(), scope.encode(), "sha256").hex()
    lines = sorted(f"{name.lower()}:{quote(value.strip(), safe='')}" for name, value in headers.items())
    canonical = "\n".join((method, quote(there.path, safe="/"), "&".join(sorted(there.query.split("&"))), *lines))
    signature = hmac.digest(key.encode(), canonical.encode(), "sha256").hex()
    return f"{scope}/{';'.join(sorted(name.lower() for name in headers))}/{signature}"


_code = api.error_at("code")


def error_code(response: api.Response) -> str | None:
    code = _code(response)
    return "RateLimit" if code and re.search("RateLimit|RequestLimit|TooManyRequests|Throttl", code) else code


# https://cloud.baidu.com/doc/BCM/s/2mhyk275k-en and https://cloud.baidu.com/doc/BLS/s/4k8qysj2z;
# Singapore: https://cloud.baidu.com/doc/BLB/s/cjwvxnzix/
_REGION_NAMES = {
    "bj": ("North China-Beijing", "华北-北京"), "bd": ("North China-Baoding", "华北-保定"),
    "yq": ("North China-Yangquan", "华北-阳泉"), "gz": ("South China-Guangzhou", "华南-广州"),
    "su": ("East China-Suzhou", "华东-苏州"), "fwh": ("Central China-Wuhan", "金融华中-武汉"),
    "hkg": ("Hong Kong", "中国香港"), "sin": ("Singapore", "新加坡"),
}

PARTY = api.Party(
    name="baidu",
    title="Baidu AI Cloud BCC",
    reference="https://cloud.baidu.com/doc/BCC/s/Xjwvyodmx",
    order="none documented; a marker, believed to name a row",
    credentials=(("access_key_id", "secret_access_key", "session_token?"),),
    permissions=("bce:bcc LIST", "bce:bcc READ"),
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?",
    default_region="bj",
    unknown_region_is_empty=True,
    project="a resource group's id, RESG-…",
    project_form=r"[A-Za-z0-9_-]{1,64}",
    limits=api.unpublished(5, "ListInstances", "ListVolumes", "DescribeRegions"),
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
