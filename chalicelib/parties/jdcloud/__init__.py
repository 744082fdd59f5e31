"""JD Cloud virtual machines: OpenAPI v1, describeInstances, signed with JDCLOUD3-HMAC-SHA256.

https://docs.jdcloud.com/cn/virtual-machines/api/describeinstances (list), /describeinstancetypes (types), /vm_status
(states), https://docs.jdcloud.com/cn/common-declaration/api/introduction (regions, errors, rate)

Units: memory MiB, by the instance's type; disks GiB. Times: `YYYY-MM-DD hh:mm:ss` in China's time, eight hours ahead of
UTC: the documented sample starts to be charged at 12:33:17Z and is launched at 20:33:17. Paging: numbered pages of 10
to 100 rows, with a total; no documented order. There is no time of the last update. What a type has is asked once per
process, region and type, fifty to a call; a type that is not there any more has no cores and no memory that can be
known. The cache disks that come with some types are not in the list and do not count. IPv6 addresses are all the
interfaces' own.

Errors: {"error": {"code": 401, "status": "ACCESS_ERROR"}}, the code being HTTP's status too. How an unknown region is
refused is not documented: a bad argument that names the region is taken for that, so is the gateway's NOT_FOUND (no
such route) in a region that is not in the documented table; and an empty list is believed only of a region that has
types. No call lists the regions: they are the four of that table and of the vendor's SDK. Resource groups cannot be
asked for: the whole list is read, and filtered here. Rate: 1,000 calls a minute.

A sub-account is listed only those instances that it may see, without a word. Temporary keys: the token goes out in
base64, as the vendor's SDK sends it; whether the gateway takes it otherwise, too, is not confirmed.
"""

import base64
import hashlib
import hmac
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Generic, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from ...cloud.cache import cached_lookup
from ...cloud.decoding import Nested, Strict, nested, read, refusal
from ...cloud.paging import Page, Rows, by_page, cut
from ...concurrency import run_all
from ...errors import (
    FAILED,
    MALFORMED,
    MISSING_RIGHT,
    REGION,
    THROTTLED,
    UNAVAILABLE,
    WRONG_KEY,
    Meaning,
    PartyDenied,
    PartyMalformed,
    UnknownRegion,
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
    labelled,
    parse_time,
    total_gib,
)

_PAGE = 100
_LEAST = 10                                 # a smaller page is refused
_TYPES = 50                                 # names to a call, so that its address stays far below the 8 KB allowed
_WORKERS = 10
_T = TypeVar("_T")

_STATUS = {                                 # the documented table
    "pending": Status.BUILD,
    "starting": Status.STARTING,
    "running": Status.ACTIVE,
    "stopping": Status.STOPPING,
    "stopped": Status.SHUTOFF,
    "rebooting": Status.REBOOT,
    "reboot": Status.REBOOT,                # third parties only
    "rebuilding": Status.REBUILD,
    "rebuildin": Status.REBUILD,            # as the table prints it
    "resizing": Status.RESIZE,
    "deleting": Status.DELETED,
    "error": Status.ERROR,
}

_ERRORS = {                                 # the status, or else the code
    "ACCESS_ERROR": WRONG_KEY,
    "UNAUTHENTICATED": WRONG_KEY,
    "401": WRONG_KEY,
    "HTTP_FORBIDDEN": Meaning(PartyDenied, "refused: a permission is missing, or this address is not allowed"),
    "PERMISSION_DENIED": MISSING_RIGHT,
    "403": MISSING_RIGHT,
    "NOT_FOUND": MALFORMED,                 # no such path; see _call
    "404": MALFORMED,
    "INVALID_REGION": REGION,               # see error_word
    "RATE_LIMIT": THROTTLED,
    "HTTP_RATE_LIMIT_EXCEEDED": THROTTLED,
    "429": THROTTLED,
    "OUT_OF_RANGE": MALFORMED,              # of the page's size
    "INVALID_ARGUMENT": MALFORMED,
    "HTTP_BAD_REQUEST": MALFORMED,
    "HTTP_URI_TOO_LONG": MALFORMED,
    "400": MALFORMED,
    "INTERNAL": FAILED,
    "UNKNOWN": FAILED,
    "HTTP_INTERNAL_SERVER_ERROR": FAILED,
    "500": FAILED,
    "HTTP_BAD_GATEWAY": UNAVAILABLE,
    "HTTP_SERVICE_UNAVAILABLE": UNAVAILABLE,
    "HTTP_SERVER_TIMING_OUT": UNAVAILABLE,
    "502": UNAVAILABLE,
    "503": UNAVAILABLE,
    "504": UNAVAILABLE,
}

_REGIONS = {
    "cn-north-1": "North China, Beijing",
    "cn-east-1": "East China, Suqian",
    "cn-east-2": "East China, Shanghai",
    "cn-south-1": "South China, Guangzhou",
}


# ---------------------------------------------------------------- the shapes that we read

class _Size(msgspec.Struct, gc=False):
    diskSizeGB: Count | None = None


class _Disk(msgspec.Struct, gc=False):
    """`cloudDisk` or `localDisk`, the other is null."""

    cloudDisk: _Size | None = None
    localDisk: _Size | None = None
    status: str | None = None


class _Ip(msgspec.Struct, gc=False):
    privateIpAddress: str | None = None
    elasticIpAddress: str | None = None


class _Ipv6(msgspec.Struct, gc=False):
    ipv6Address: str | None = None


class _Interface(msgspec.Struct, gc=False):
    primaryIp: _Ip | None = None
    secondaryIps: list[_Ip] | None = None
    ipv6Addresses: list[_Ipv6] | None = None


class _Attached(msgspec.Struct, gc=False):
    networkInterface: _Interface | None = None
    deviceIndex: int | None = None


class _Tag(msgspec.Struct, gc=False):
    key: str | None = None
    value: str | None = None


class _Instance(msgspec.Struct, gc=False):
    instanceId: Text
    instanceName: str | None = None
    instanceType: str | None = None
    status: str | None = None
    systemDisk: _Disk | None = None
    dataDisks: Nested = msgspec.UNSET
    privateIpAddress: str | None = None
    elasticIpAddress: str | None = None
    primaryNetworkInterface: _Attached | None = None
    secondaryNetworkInterfaces: list[_Attached] | None = None
    launchTime: str | None = None
    az: str | None = None
    resourceGroupId: Strict[str | None] = None
    tags: list[_Tag] | None = None


class _Instances(msgspec.Struct):
    totalCount: Count
    instances: list[_Instance] | None


class _Type(msgspec.Struct, gc=False):
    instanceType: str | None = None
    cpu: Count | None = None
    memoryMB: Count | None = None


class _Types(msgspec.Struct):
    instanceTypes: list[_Type] | None


class _Answer(msgspec.Struct, Generic[_T]):
    result: _T


class _Error(msgspec.Struct):
    code: int | str | None = None
    status: str | None = None
    message: str | None = None


class _Refusal(msgspec.Struct):
    error: _Error | None = None


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    rows = _instances(source, account, window if account.project is None else WHOLE, send)
    if rows.total == 0 and not _fetch_types(source, account, send, ()):
        raise UnknownRegion()
    if account.project is not None:
        kept = [row for row in rows.rows if row.resourceGroupId == account.project]
        rows = Rows(cut(kept, window), len(kept))
    types = _types(source, account, send, {row.instanceType for row in rows.rows if row.instanceType})
    return Listing([_server(row, types.get(row.instanceType or "")) for row in rows.rows], rows.total)


def _instances(source: Source, account: Account, window: Window, send: Send) -> Rows[_Instance]:
    def fetch(number: int, size: int) -> Page[_Instance]:
        answer = _call("DescribeInstances", "instances", {"pageNumber": str(number), "pageSize": str(size)}, _Instances,
                       source, account, send)
        return Page([(row.instanceId, row) for row in answer.instances or ()], answer.totalCount)

    return by_page(fetch, window, _PAGE, _WORKERS, least=_LEAST)


def _server(row: _Instance, kind: _Type | None) -> Server:
    lan, wan = [row.privateIpAddress], [row.elasticIpAddress]
    others = sorted(row.secondaryNetworkInterfaces or (), key=lambda attached: attached.deviceIndex or 0)
    for attached in (row.primaryNetworkInterface, *others):
        interface = (attached and attached.networkInterface) or _Interface()
        for ip in (interface.primaryIp or _Ip(), *(interface.secondaryIps or ())):
            lan.append(ip.privateIpAddress)
            wan.append(ip.elasticIpAddress)
        lan += [ip.ipv6Address for ip in interface.ipv6Addresses or ()]
    (lan4, lan6), (wan4, wan6) = addresses(*lan), addresses(*wan)
    return Server(
        id=row.instanceId,
        name=row.instanceName or "",
        cpu=kind and kind.cpu,
        memory_mib=kind and kind.memoryMB,
        disk_gib=_disks(row),
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_STATUS.get((row.status or "").strip(), Status.UNKNOWN),
        party_status=row.status or "",
        created_at=_time(row.launchTime),
        zone=row.az or "",
        project_id=row.resourceGroupId or "",
        instance_type=row.instanceType or "",
        tags=labelled((tag.key, tag.value) for tag in row.tags or ()),
    )


def _disks(row: _Instance) -> int | None:
    """Every instance has a system disk, so that one that is not told of is not known. No `dataDisks`: none."""
    data = nested(row.dataDisks, _Disk)
    if data is None:
        return None
    disks = [disk for disk in (row.systemDisk or _Disk(), *data) if disk.status not in ("detached", "error_attach")]
    return total_gib((disk.cloudDisk or disk.localDisk or _Size()).diskSizeGB for disk in disks)


def _time(text: str | None) -> datetime | None:
    return parse_time(f"{text}+08:00" if re.fullmatch(r"[-0-9]{10}[ T][:0-9]{8}", text or "", re.ASCII) else text)


# ---------------------------------------------------------------- types

def _types(source: Source, account: Account, send: Send, names: set[str]) -> dict[str, _Type]:
    def fetch(missing: Sequence[str]) -> dict[str, _Type]:
        batches = [missing[at:at + _TYPES] for at in range(0, len(missing), _TYPES)]
        found = run_all([lambda batch=batch: _fetch_types(source, account, send, batch) for batch in batches],
                             _WORKERS)
        return {kind.instanceType: kind for part in found for kind in part if kind.instanceType}

    return cached_lookup(("jdcloud", account.endpoint, source.region), sorted(names), fetch)


def _fetch_types(source: Source, account: Account, send: Send, names: Sequence[str]) -> list[_Type]:
    """These types; without names all that the region has, sold out or not."""
    asked = {"filters.1.name": "instanceTypes"} if names else {}
    asked |= {f"filters.1.values.{n}": name for n, name in enumerate(names, 1)}
    answer = _call("DescribeInstanceTypes", "instanceTypes", asked, _Types, source, account, send)
    return answer.instanceTypes or []


# ---------------------------------------------------------------- regions, check

def list_regions(account: Account, send: Send) -> list[Region]:
    """https://docs.jdcloud.com/cn/common-declaration/api/introduction: no call tells them."""
    return [Region(code, name) for code, name in _REGIONS.items()]


def check(source: Source, account: Account, send: Send) -> None:
    _call("DescribeInstances", "instances", {"pageNumber": "1", "pageSize": str(_LEAST)}, _Instances, source, account,
          send)


# ---------------------------------------------------------------- the call

def _call(operation: str, path: str, asked: Mapping[str, str], shape: type[_T], source: Source, account: Account,
          send: Send) -> _T:
    query = urlencode(asked, quote_via=quote, safe="")
    url = account.url(f"https://vm.jdcloud-api.com/v1/regions/{source.region}/{path}" + (f"?{query}" if query else ""))
    try:
        response = send(operation, lambda: sign(url, source.region, account, time.time(), str(uuid.uuid4())))
    except PartyMalformed as refused:
        if refused.http_status == 404 and source.region not in _REGIONS:
            raise UnknownRegion("JD Cloud has no such region.") from None
        raise
    answer: _Answer[_T] = read(response, _Answer[shape])
    return answer.result


def sign(url: str, region: str, account: Account, now: float, nonce: str) -> Request:
    """JDCLOUD3-HMAC-SHA256 of a GET. `now`: Unix time. `nonce`: another one for each request."""
    keys, there = account.credentials, urlsplit(url)
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {"Content-Type": "application/json", "Host": there.netloc, "x-jdcloud-date": stamp,
               "x-jdcloud-nonce": nonce}
    if "security_token" in keys:
        headers["x-jdcloud-security-token"] = base64.b64encode(keys["security_token"].encode()).decode()
    signed = ";".join(sorted(name.lower() for name in headers))
    lines = sorted(f"{name.lower()}:{value.strip()}\n" for name, value in headers.items())
    query = sorted(pair.split("=", 1) for pair in there.query.split("&") if pair)      # by name: .2 before .10
    canonical = "\n".join(("GET", there.path, "&".join("=".join(pair) for pair in query), "".join(lines), signed,
                           _sha256(b"")))
    scope = f"{stamp[:8]}/{region}/vm/jdcloud3_request"
    to_sign = "\n".join(("JDCLOUD3-HMAC-SHA256", stamp, scope, _sha256(canonical.encode())))
    key = f"JDCLOUD3{keys['secret_key']}".encode()
    for part in (*scope.split("/"), to_sign):
        key = hmac.digest(key, part.encode(), "sha256")
    headers["Authorization"] = (f"JDCLOUD3-HMAC-SHA256 Credential={keys['access_key']}/{scope}, "
                                f"SignedHeaders={signed}, Signature={key.hex()}")
    return Request("GET", url, {**headers, "x-jdcloud-content-sha256": _sha256(b"")})


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def error_code(response: Response) -> str | None:
    """The error's status if we know it, else its code and status; a bad argument that is the region: INVALID_REGION."""
    if b'"error"' not in response.body:
        return None
    said = refusal(response, _Refusal)
    error = said and said.error
    if error is None or not (error.code or error.status):
        return None
    if str(error.code) == "400" and "region" in (error.message or "").lower():
        return "INVALID_REGION"
    if error.status in _ERRORS:
        return error.status
    return ".".join(str(word) for word in (error.code, error.status) if word)


PARTY = Party(
    name="jdcloud",
    title="JD Cloud",
    reference="https://docs.jdcloud.com/cn/virtual-machines/api/describeinstances",
    order="none documented; numbered pages",
    credentials=(("access_key", "secret_key", "security_token?"),),
    permissions=("vm:describeInstances", "vm:describeInstanceTypes"),
    region_form=r"[a-z]{2}-[a-z]{2,12}-[0-9]{1,2}",
    default_region="cn-north-1",
    project="a resource group's id",
    project_form=r"[A-Za-z0-9_-]{1,64}",
    limits={"DescribeInstances": Limit(1000, 60.0), "DescribeInstanceTypes": Limit(1000, 60.0)},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
