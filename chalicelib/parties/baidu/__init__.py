"""Baidu AI Cloud BCC: REST API v2, GET /v2/instance, signed with bce-auth-v1.

https://cloud.baidu.com/doc/BCC/s/Xjwvyodmx (list), https://cloud.baidu.com/doc/BCC/s/6jwvyo0q2 (models),
https://cloud.baidu.com/doc/Reference/s/njwvz1yfu (signature)

Units: memory and disks GiB (called GB). Times: UTC, `Z`. Paging: an opaque marker, up to 1000 rows, no total and no
documented order; so a window is a walk that stops at the first row after it. There is no time of the last update.
Instances in the recycle bin are listed, released ones are not. Bare metal (BBC) is another product.

Whether the list holds each instance's `volumes` is told in two ways: the vendor's SDK of 2026 says so, the sample and
the model's page of 2025 have them in the details of one instance alone. Where an answer has none, the disks of the
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

from ...cloud.decoding import Strict, read, refusal
from ...cloud.paging import Page, Rows, by_token, cut
from ...errors import (
    ARREARS,
    CLOCK,
    FAILED,
    MALFORMED,
    MISSING_RIGHT,
    NOT_ACTIVATED,
    THROTTLED,
    UNAVAILABLE,
    WRONG_KEY,
    WRONG_TOKEN,
    PartyMalformed,
)
from ...model import (
    WHOLE,
    Account,
    Attached,
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
    attached,
    labelled,
    parse_time,
    total_gib,
)

_PAGE = 1000                                # most that both lists take
_VALID = 1800                               # seconds that a signature holds, as the vendor's SDKs have it
_T = TypeVar("_T")

_STATUS = {                                 # InstanceStatus, the complete enumeration
    "Starting": Status.STARTING,            # the first start as well
    "Running": Status.ACTIVE,
    "Stopping": Status.STOPPING,
    "Stopped": Status.SHUTOFF,
    "Recycled": Status.SOFT_DELETED,        # in the recycle bin
    "Deleted": Status.DELETED,              # internal, never listed
    "Scaling": Status.RESIZE,
    "VolumeResizing": Status.RESIZE,
    "Expired": Status.SUSPENDED,            # expired, or the account is in debt
    "Error": Status.ERROR,
    "Moving": Status.MIGRATING,             # to another zone
    "SnapshotProcessing": Status.ACTIVE,    # the rest: something is done to an instance that runs on
    "ImageProcessing": Status.ACTIVE,
    "Recharging": Status.ACTIVE,
    "BillingChanging": Status.ACTIVE,
    "ChangeSubnet": Status.ACTIVE,
    "ChangeVpc": Status.ACTIVE,
    "AttachingPort": Status.ACTIVE,
    "DetachingPort": Status.ACTIVE,
}

_ERRORS = {                                 # https://cloud.baidu.com/doc/BCC/s/Ojwvyo6nc
    "AccessDenied": MISSING_RIGHT,
    "OptInRequired": NOT_ACTIVATED,
    "InvalidAccessKeyId": WRONG_KEY,
    "InvalidHTTPAuthHeader": WRONG_KEY,
    "InvalidSessionToken": WRONG_TOKEN,
    "AccountInDebt": ARREARS,               # from here on words of calls that buy something
    "InsufficientBalance": ARREARS,
    "PaymentFailed": ARREARS,
    "SignatureDoesNotMatch": WRONG_KEY,     # with HTTP 400
    "RequestExpired": CLOCK,
    "RateLimit": THROTTLED,                 # see error_word
    "BadRequest": MALFORMED,
    "InappropriateJSON": MALFORMED,
    "InvalidHTTPRequest": MALFORMED,
    "InvalidURI": MALFORMED,
    "InvalidVersion": MALFORMED,
    "MalformedJSON": MALFORMED,
    "NoSuchObject": MALFORMED,
    "PreconditionFailed": MALFORMED,
    "InternalError": FAILED,
    "ServiceInternalError": FAILED,
    "ServiceUnavailable": UNAVAILABLE,
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


class _Disk(msgspec.Struct, gc=False):
    diskSizeInGB: Count | None = None


class _Group(msgspec.Struct, gc=False):
    groupId: str


class _Tag(msgspec.Struct, gc=False):
    tagKey: str | None = None
    tagValue: str | None = None


class _Instance(msgspec.Struct, gc=False):
    id: Text
    name: str | None = None
    status: str | None = None
    spec: str | None = None
    cpuCount: Count | None = None
    memoryCapacityInGB: Count | None = None
    volumes: list[_Disk] | None = None
    localDiskSizeInGB: Count | None = None
    internalIp: str | None = None
    publicIp: str | None = None
    ipv6: str | None = None
    ipv6Addresses: list[str] | None = None
    nicInfo: _Nic | None = None
    createTime: str | None = None
    zoneName: str | None = None
    resGroupInfos: Strict[list[_Group] | None] = None
    tags: list[_Tag] | None = None


class _Instances(msgspec.Struct):
    isTruncated: bool
    instances: list[_Instance]
    nextMarker: Strict[str | None] = None


class _Attachment(msgspec.Struct, gc=False):
    instanceId: Any = msgspec.UNSET


class _Volume(msgspec.Struct, gc=False):
    id: Text
    diskSizeInGB: Count | None = None
    attachments: Strict[list[_Attachment] | None] = None


class _Volumes(msgspec.Struct):
    isTruncated: bool
    volumes: list[_Volume]
    nextMarker: Strict[str | None] = None


class _Region(msgspec.Struct):
    regionId: Text
    regionName: str | None = None


class _Regions(msgspec.Struct):
    regions: list[_Region]


class _Refusal(msgspec.Struct):
    code: str | None = None


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    rows = _instances(source, account, window if account.project is None else WHOLE, send)
    if account.project is not None:
        kept = [row for row in rows.rows if account.project in _groups(row)]
        rows = Rows(cut(kept, window), len(kept))
    untold = any(row.volumes is None for row in rows.rows)
    sizes = _sizes(source, account, send) if untold else Attached({}, True)
    return Listing([_server(row, sizes, account.project) for row in rows.rows], rows.total)


def _instances(source: Source, account: Account, window: Window, send: Send) -> Rows[_Instance]:
    first = _PAGE if window.last is None else min(_PAGE, window.last + 1)       # one more tells whether more follow

    def fetch(marker: str | None) -> Page[_Instance]:
        answer = _list("ListInstances", "instance", marker, _PAGE if marker else first, _Instances, source, account,
                       send)
        return Page([(row.id, row) for row in answer.instances], token=_next(answer))

    return by_token(fetch, window)


def _server(row: _Instance, sizes: Attached, project: str | None = None) -> Server:
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
    (lan4, lan6), (wan4, wan6) = addresses(*lan), addresses(*wan, *(ip.eip for ip in nic.ipv6s or ()))
    return Server(
        id=row.id,
        name=row.name or "",
        cpu=row.cpuCount,
        memory_mib=None if row.memoryCapacityInGB is None else row.memoryCapacityInGB * 1024,
        disk_gib=_disks(row, sizes),
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_STATUS.get((row.status or "").strip(), Status.UNKNOWN),
        party_status=row.status or "",
        created_at=parse_time(row.createTime),
        zone=row.zoneName or "",
        project_id=project or next(iter(_groups(row)), ""),
        instance_type=row.spec or "",
        tags=labelled((tag.tagKey, tag.tagValue) for tag in row.tags or ()),
    )


def _disks(row: _Instance, sizes: Attached) -> int | None:
    if row.volumes is None:
        return total_gib((sizes.of(row.id), row.localDiskSizeInGB))
    return total_gib(disk.diskSizeInGB for disk in row.volumes)


def _groups(row: _Instance) -> list[str]:
    return [group.groupId for group in row.resGroupInfos or ()]


def _sizes(source: Source, account: Account, send: Send) -> Attached:
    """The disks of each instance of the region together, in GiB; a shared disk counts for each."""
    def fetch(marker: str | None) -> Page[_Volume]:
        answer = _list("ListVolumes", "volume", marker, _PAGE, _Volumes, source, account, send)
        return Page([(volume.id, volume) for volume in answer.volumes], token=_next(answer))

    return attached(((attachment.instanceId for attachment in volume.attachments or ()), volume.diskSizeInGB)
                    for volume in by_token(fetch).rows)


def _next(answer: _Instances | _Volumes) -> str | None:
    if answer.isTruncated and not answer.nextMarker:
        raise PartyMalformed("The party says that more rows follow, but not how to ask for them.")
    return answer.nextMarker if answer.isTruncated else None


# ---------------------------------------------------------------- regions, check

def list_regions(account: Account, send: Send) -> list[Region]:
    """https://cloud.baidu.com/doc/BCC/s/3lvc76e8v, at a host of no region; without a region in the body: all."""
    url = account.url("https://bcc.baidubce.com/v2/region/describeRegions")
    answer = _call("DescribeRegions", "POST", url, b"{}", _Regions, account, send)
    return [Region(region.regionId, region.regionName or "") for region in answer.regions]


def check(source: Source, account: Account, send: Send) -> None:
    _list("ListInstances", "instance", None, 1, _Instances, source, account, send)


# ---------------------------------------------------------------- the call

def _list(operation: str, path: str, marker: str | None, size: int, shape: type[_T], source: Source, account: Account,
          send: Send) -> _T:
    asked = urlencode({**({"marker": marker} if marker else {}), "maxKeys": size}, quote_via=quote, safe="")
    url = account.url(f"https://bcc.{source.region}.baidubce.com/v2/{path}?{asked}")
    return _call(operation, "GET", url, b"", shape, account, send)


def _call(operation: str, method: str, url: str, body: bytes, shape: type[_T], account: Account, send: Send) -> _T:
    response = send(operation, lambda: sign(method, url, body, account, time.time()))
    return read(response, shape)


def sign(method: str, url: str, body: bytes, account: Account, now: float) -> Request:
    """`now`: Unix time."""
    keys, stamp = account.credentials, datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    headers = {"Host": urlsplit(url).netloc, "x-bce-date": stamp}
    if "session_token" in keys:
        headers["x-bce-security-token"] = keys["session_token"]
    headers["Authorization"] = authorization(method, url, headers, keys, stamp)
    if body:
        headers["Content-Type"] = "application/json"
    return Request(method, url, headers, body)


def authorization(method: str, url: str, headers: Mapping[str, str], keys: Mapping[str, str], stamp: str) -> str:
    """bce-auth-v1 over all these headers, from `stamp` on. The key of the second HMAC is the first one's hex text."""
    there = urlsplit(url)
    scope = f"bce-auth-v1/{keys['access_key_id']}/{stamp}/{_VALID}"
    key = hmac.digest(keys["secret_access_key"].encode(), scope.encode(), "sha256").hex()
    lines = sorted(f"{name.lower()}:{quote(value.strip(), safe='')}" for name, value in headers.items())
    canonical = "\n".join((method, quote(there.path, safe="/"), "&".join(sorted(there.query.split("&"))), *lines))
    signature = hmac.digest(key.encode(), canonical.encode(), "sha256").hex()
    return f"{scope}/{';'.join(sorted(name.lower() for name in headers))}/{signature}"


def error_code(response: Response) -> str | None:
    if b'"code"' not in response.body:
        return None
    said = refusal(response, _Refusal)
    word = said and said.code
    return "RateLimit" if word and re.search("RateLimit|RequestLimit|TooManyRequests|Throttl", word) else word


PARTY = Party(
    name="baidu",
    title="Baidu AI Cloud BCC",
    reference="https://cloud.baidu.com/doc/BCC/s/Xjwvyodmx",
    order="none documented; a marker, believed to name a row",
    credentials=(("access_key_id", "secret_access_key", "session_token?"),),
    permissions=("bce:bcc LIST", "bce:bcc READ"),
    region_form=r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?",
    default_region="bj",
    unknown_region_is_empty=True,
    project="a resource group's id, RESG-…",
    project_form=r"[A-Za-z0-9_-]{1,64}",
    limits={"ListInstances": Limit(5), "ListVolumes": Limit(5), "DescribeRegions": Limit(5)},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
