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
refused is not documented. Two refusals count as that: a bad argument that names the region, and the gateway's NOT_FOUND
(no such route) in a region that is not in the documented table; and an empty list is believed only of a region that has
types. No call lists the regions: they are the four of that table and of the vendor's SDK. Resource groups cannot be
asked for: the whole list is read, and filtered here. Rate: 1,000 calls a minute.

A sub-account is listed only those instances that it may see, without a word. DescribeQuotas says how many there are in
the region, so that `account check` can compare; that a sub-account gets the whole number is unconfirmed.

Temporary keys: the token goes out in base64, as the vendor's SDK sends it; whether the gateway takes it otherwise, too,
is not confirmed.
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

from ...cloud import api

_PAGE = 100
_LEAST = 10                                 # a smaller page is refused
_TYPES = 50                                 # names to a call, so that its address stays far below the 8 KB allowed
_WORKERS = 10
_T = TypeVar("_T")

_STATUS = {                                 # the documented table
    "pending": api.Status.BUILD,
    "starting": api.Status.STARTING,
    "running": api.Status.ACTIVE,
    "stopping": api.Status.STOPPING,
    "stopped": api.Status.SHUTOFF,
    "rebooting": api.Status.REBOOT,
    "reboot": api.Status.REBOOT,            # third parties only
    "rebuilding": api.Status.REBUILD,
    "rebuildin": api.Status.REBUILD,        # as the table prints it
    "resizing": api.Status.RESIZE,
    "deleting": api.Status.DELETED,
    "error": api.Status.ERROR,
}
_CHARGES = {
    "prepaid_by_duration": api.PREPAID,
    "postpaid_by_usage": api.POSTPAID,
    "postpaid_by_duration": api.POSTPAID,
}

_ERRORS = {                                 # the status, or else the code
    "ACCESS_ERROR": api.WRONG_KEY,
    "UNAUTHENTICATED": api.WRONG_KEY,
    "401": api.WRONG_KEY,
    "HTTP_FORBIDDEN": api.denied("refused: a permission is missing, or this address is not allowed"),
    "PERMISSION_DENIED": api.MISSING_RIGHT,
    "403": api.MISSING_RIGHT,
    "NOT_FOUND": api.MALFORMED,             # no such path; see _call
    "404": api.MALFORMED,
    "INVALID_REGION": api.REGION,           # see error_code
    "RATE_LIMIT": api.THROTTLED,
    "HTTP_RATE_LIMIT_EXCEEDED": api.THROTTLED,
    "429": api.THROTTLED,
    "OUT_OF_RANGE": api.MALFORMED,          # of the page's size
    "INVALID_ARGUMENT": api.MALFORMED,
    "HTTP_BAD_REQUEST": api.MALFORMED,
    "HTTP_URI_TOO_LONG": api.MALFORMED,
    "400": api.MALFORMED,
    "INTERNAL": api.FAILED,
    "UNKNOWN": api.FAILED,
    "HTTP_INTERNAL_SERVER_ERROR": api.FAILED,
    "500": api.FAILED,
    "HTTP_BAD_GATEWAY": api.UNAVAILABLE,
    "HTTP_SERVICE_UNAVAILABLE": api.UNAVAILABLE,
    "HTTP_SERVER_TIMING_OUT": api.UNAVAILABLE,
    "502": api.UNAVAILABLE,
    "503": api.UNAVAILABLE,
    "504": api.UNAVAILABLE,
}

# code -> (English, Chinese); jdcloud_sdk's rdts and redis, cn-east-1: the page of JD Cloud's BRI. The English is a
# translation
_REGIONS = {
    "cn-north-1": ("North China, Beijing", "华北-北京"),
    "cn-east-1": ("East China, Suqian", "华东-宿迁"),
    "cn-east-2": ("East China, Shanghai", "华东-上海"),
    "cn-south-1": ("South China, Guangzhou", "华南-广州"),
}


# ---------------------------------------------------------------- the shapes that we read

class _Size(msgspec.Struct, gc=False):
    diskSizeGB: api.Count | None = None


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


class _Group(msgspec.Struct, gc=False):
    groupId: str | None = None


class _Charge(msgspec.Struct, gc=False):
    chargeMode: str | None = None
    chargeExpiredTime: str | None = None    # none if it is postpaid


class _Interface(msgspec.Struct, gc=False):
    primaryIp: _Ip | None = None
    secondaryIps: list[_Ip] | None = None
    ipv6Addresses: list[_Ipv6] | None = None
    securityGroups: list[_Group] | None = None


class _Attached(msgspec.Struct, gc=False):
    networkInterface: _Interface | None = None
    deviceIndex: int | None = None


class _RdmaInterface(msgspec.Struct, gc=False):
    ipAddress: str | None = None


class _Tag(msgspec.Struct, gc=False):
    key: str | None = None
    value: str | None = None


class _Instance(msgspec.Struct, gc=False):
    instanceId: api.Text
    instanceName: str | None = None
    instanceType: str | None = None
    status: str | None = None
    systemDisk: _Disk | None = None
    dataDisks: api.Nested = msgspec.UNSET
    privateIpAddress: str | None = None
    elasticIpAddress: str | None = None
    primaryNetworkInterface: _Attached | None = None
    secondaryNetworkInterfaces: list[_Attached] | None = None
    rdmaNetworkInterfaces: list[_RdmaInterface] | None = None
    launchTime: str | None = None
    az: str | None = None
    resourceGroupId: api.Strict[str | None] = None
    tags: list[_Tag] | None = None
    imageId: str | None = None
    osType: str | None = None
    vpcId: str | None = None
    subnetId: str | None = None
    keyNames: api.Whole[list[str] | None] = None
    charge: _Charge | None = None
    dedicatedHostId: str | None = None


class _Instances(msgspec.Struct):
    totalCount: api.Count
    instances: list[_Instance] | None


class _Type(msgspec.Struct, gc=False):
    instanceType: str | None = None
    cpu: api.Count | None = None
    memoryMB: api.Count | None = None


class _Types(msgspec.Struct):
    instanceTypes: list[_Type] | None


class _Quota(msgspec.Struct):
    resourceType: str | None = None
    used: api.Count | None = None


class _Quotas(msgspec.Struct):
    quotas: list[_Quota] | None


class _Answer(msgspec.Struct, Generic[_T]):
    result: _T


class _Error(msgspec.Struct):
    code: int | str | None = None
    status: str | None = None
    message: str | None = None


class _Refusal(msgspec.Struct):
    error: _Error | None = None


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    rows = _instances(client, window if client.project is None else api.WHOLE)
    if rows.total == 0 and not _fetch_types(client, ()):
        raise api.UnknownRegion()
    if client.project is not None:
        kept = [row for row in rows.rows if row.resourceGroupId == client.project]
        rows = api.Rows(api.cut(kept, window), len(kept))
    types = _types(client, {row.instanceType for row in rows.rows if row.instanceType})
    return rows.listing(lambda row: _server(row, types.get(row.instanceType or "")))


def _instances(client: api.Client, window: api.Window) -> api.Rows[_Instance]:
    def fetch(number: int, size: int) -> api.Page[_Instance]:
        query = {"pageNumber": str(number), "pageSize": str(size)}
        answer = _call(client, "DescribeInstances", query, _Instances)
        return api.Page([(row.instanceId, row) for row in answer.instances or ()], answer.totalCount)

    return api.by_page(fetch, window, _PAGE, _WORKERS, least=_LEAST)


def _server(row: _Instance, kind: _Type | None) -> api.Server:
    lan, wan = [row.privateIpAddress], [row.elasticIpAddress]
    others = sorted(row.secondaryNetworkInterfaces or (), key=lambda attached: attached.deviceIndex or 0)
    charge = row.charge or _Charge()
    interfaces = [(attached and attached.networkInterface) or _Interface()
                  for attached in (row.primaryNetworkInterface, *others)]
    for interface in interfaces:
        for ip in (interface.primaryIp or _Ip(), *(interface.secondaryIps or ())):
            lan.append(ip.privateIpAddress)
            wan.append(ip.elasticIpAddress)
        lan += [ip.ipv6Address for ip in interface.ipv6Addresses or ()]
    lan += [interface.ipAddress for interface in row.rdmaNetworkInterfaces or ()]
    return api.Server(
        id=row.instanceId,
        name=row.instanceName or "",
        cpu=kind and kind.cpu,
        memory_mib=kind and kind.memoryMB,
        disk_gib=_disks(row),
        **api.addresses(lan, wan),
        **PARTY.status_of(row.status),
        created_at=_time(row.launchTime),
        zone=row.az or "",
        project_id=row.resourceGroupId or "",
        instance_type=row.instanceType or "",
        tags=api.labelled((tag.key, tag.value) for tag in row.tags or ()),
        image_id=row.imageId,
        os=api.os_family(row.osType),
        vpc_id=row.vpcId,
        subnet_id=row.subnetId,
        security_groups=api.groups(None if interface.securityGroups is None else [
            group.groupId for group in interface.securityGroups] for interface in interfaces),
        key_name=",".join(row.keyNames or ()),
        charge_type=_CHARGES.get(charge.chargeMode or ""),
        expires_at=_time(charge.chargeExpiredTime) if charge.chargeMode == "prepaid_by_duration" else None,
        host_id=row.dedicatedHostId,
    )


def _disks(row: _Instance) -> int | None:
    """Every instance has a system disk, so that one that is not listed is not known. No `dataDisks`: none."""
    data = api.nested(row.dataDisks, _Disk)
    if data is None:
        return None
    disks = [disk for disk in (row.systemDisk or _Disk(), *data) if disk.status not in ("detached", "error_attach")]
    return api.total_gib((disk.cloudDisk or disk.localDisk or _Size()).diskSizeGB for disk in disks)


def _time(text: str | None) -> datetime | None:
    return api.parse_time(f"{text}+08:00" if re.fullmatch(r"[-0-9]{10}[ T][:0-9]{8}", text or "", re.ASCII) else text)


# ---------------------------------------------------------------- types

def _types(client: api.Client, names: set[str]) -> dict[str, _Type]:
    def fetch(missing: Sequence[str]) -> dict[str, _Type]:
        kinds = client.in_batches(missing, _TYPES, lambda batch: _fetch_types(client, batch))
        return {kind.instanceType: kind for kind in kinds if kind.instanceType}

    return api.cached_lookup(client.account, ("jdcloud", client.region), sorted(names), fetch)


def _fetch_types(client: api.Client, names: Sequence[str]) -> list[_Type]:
    """These types; without names all that the region has, sold out or not."""
    query = {"filters.1.name": "instanceTypes"} if names else {}
    query |= api.numbered("filters.1.values", names)
    return _call(client, "DescribeInstanceTypes", query, _Types).instanceTypes or []


# ---------------------------------------------------------------- regions, check

def list_regions(client: api.Client) -> list[api.Region]:
    """https://docs.jdcloud.com/cn/common-declaration/api/introduction: no call tells them."""
    return [api.Region(code, name) for code, (name, _) in _REGIONS.items()]


def check(client: api.Client) -> None:
    _call(client, "DescribeInstances", {"pageNumber": "1", "pageSize": str(_LEAST)}, _Instances)


def warn(client: api.Client) -> str:
    """https://docs.jdcloud.com/cn/virtual-machines/api/describequotas"""
    try:
        quotas = _call(client, "DescribeQuotas", {
            "filters.1.name": "resourceTypes", "filters.1.values.1": "instance"}, _Quotas)
        shown = _call(client, "DescribeInstances", {"pageNumber": "1", "pageSize": str(_LEAST)}, _Instances).totalCount
    except api.PartyError:
        return _UNSURE
    used = next((quota.used for quota in quotas.quotas or () if quota.resourceType == "instance"), None)
    if used is None:
        return _UNSURE
    return "" if used <= shown else (f"JD Cloud shows this key {shown} of the {used} instances in {client.region}. "
                                     "Widen the sub-user's policy to Resource *.")


_UNSURE = ("JD Cloud shows a sub-user only the instances in its policy, and does not say how many it leaves out. The "
           "used quota would tell, but this key cannot read it: add the right vm:describeQuotas.")


# ---------------------------------------------------------------- the call

_PATHS = {"DescribeInstances": "instances", "DescribeInstanceTypes": "instanceTypes", "DescribeQuotas": "quotas"}


def _call(client: api.Client, operation: str, query: Mapping[str, str], shape: type[_T]) -> _T:
    words = urlencode(query, quote_via=quote, safe="")
    url = client.url(f"https://vm.jdcloud-api.com/v1/regions/{client.region}/{_PATHS[operation]}"
                     + (f"?{words}" if words else ""))
    try:
        return client.call(operation, lambda: sign(url, client.region, client.account, time.time(), str(uuid.uuid4())),
                           _Answer[shape]).result
    except api.PartyMalformed as refused:
        if refused.http_status == 404 and client.region not in _REGIONS:
            raise api.UnknownRegion("JD Cloud has no such region.") from None
        raise


def sign(url: str, region: str, account: api.Account, now: float, nonce: str) -> api.Request:
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
    return api.Request("GET", url, {**headers, "x-jdcloud-content-sha256": _sha256(b"")})


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def error_code(response: api.Response) -> str | None:
    """The error's status if we know it, else its code and status; a bad argument that is the region: INVALID_REGION."""
    if b'"error"' not in response.body:
        return None
    refusal = api.refusal(response, _Refusal)
    error = refusal and refusal.error
    if error is None or not (error.code or error.status):
        return None
    if str(error.code) == "400" and "region" in (error.message or "").lower():
        return "INVALID_REGION"
    if error.status in _ERRORS:
        return error.status
    return ".".join(str(word) for word in (error.code, error.status) if word)


PARTY = api.Party(
    name="jdcloud",
    title="JD Cloud",
    reference="https://docs.jdcloud.com/cn/virtual-machines/api/describeinstances",
    order="none documented; numbered pages",
    credentials=(("access_key", "secret_key", "security_token?"),),
    permissions=("vm:describeInstances", "vm:describeInstanceTypes", "vm:describeQuotas"),
    **api.region_names(_REGIONS),
    region_form=r"[a-z]{2,4}(-[a-z0-9]{1,13}){1,4}",
    default_region="cn-north-1",
    project="a resource group's id",
    project_form=r"[A-Za-z0-9_-]{1,64}",
    limits=api.per_seconds(60.0, 1000, "DescribeInstances", "DescribeInstanceTypes", "DescribeQuotas"),
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
    warn=warn,
)
