"""Tianyi Cloud (China Telecom) ECS: list-instances of CTAPI v4, signed for its gateway EOP.

https://eop.ctyun.cn/ebp/ctapiDocument/search?sid=25&api=8309 (instances), ?sid=25&api=5851 (regions),
?sid=35&api=7338 (disks); the sources and examples of the vendor's SDKs and Terraform provider.

Units: disks GB. That of flavorRAM is not stated for this call: GB in the vendor's other calls, MB in what others have
seen; there is no machine with less than 256 MB or more than 255 GB for each CPU, so the ratio tells. Times: with `Z`
or an offset; UTC by the vendor's documents if there is none; `updatedTime` is the party's own time of the last change.
Paging: pageNo from 1, pageSize 10 if not sent, and at most 50 (200 where a region has several zones, which the id of
a region does not tell). The total is in returnObj. No order is documented. The list knows no labels.

Sizes of disks come from EBS (list-ebs, 300 to a page), which cannot be asked for the disks of some servers: it is read
for the whole region, side by side with the servers. A disk counts for a server that names it or that it names. One that
is named and not listed leaves the sum unknown.

Eop-date is the time in Beijing although it ends in Z, as in the vendor's provider. Success is statusCode 800, a number
or a text; refusals come with HTTP 200 or without. Their words are not published as a list: those seen are in _ERRORS,
of others a part tells what they mean (_FAMILIES). What an unknown region is answered with is known of a sister API
only, so that an empty list is believed only of a region that list-regions names. Rates are not published: 20 calls a
second are thought to be careful. Unconfirmed without an account: these, the skew of the clock, the name of the policy
for disks.
"""

import base64
import hashlib
import hmac
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Generic, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from ...cloud import api

_PAGE = 50
_DISK_PAGE = 300
_WORKERS = 20                               # one second's worth of the rate
_BEIJING = timezone(timedelta(hours=8))
_T = TypeVar("_T")

_STATUS = {                                 # instanceStatus, all words of the model
    "creating": api.Status.BUILD,
    "master_order_creating": api.Status.BUILD,
    "starting": api.Status.STARTING,
    "running": api.Status.ACTIVE,
    "stopping": api.Status.STOPPING,
    "stopped": api.Status.SHUTOFF,
    "restarting": api.Status.REBOOT,
    "rebuild": api.Status.REBUILD,
    "error": api.Status.ERROR,
    "backuping": api.Status.ACTIVE,         # being backed up, by two spellings
    "backingup": api.Status.ACTIVE,
    "snapshotting": api.Status.ACTIVE,
    "expired": api.Status.SUSPENDED,        # not paid for
    "freezing": api.Status.SUSPENDED,
    "unsubscribed": api.Status.SOFT_DELETED,    # given back before its time, kept for a while
    "unsubscribing": api.Status.DELETED,
    "shelve": api.Status.SHELVED,           # stopped and not paid for; a word of the request's filter alone
}
_SYSTEMS = {1: "linux", 2: "windows", 3: "linux", 4: "linux", 5: "linux", 6: "linux"}   # 3 to 6 are distributions

_ERRORS = {
    "CTAPI_10002": api.WRONG_KEY,           # the access key is not valid
    "CTAPI_10009": api.WRONG_KEY,           # signature verification failed
    "Openapi.RegionInfo.AccessFailed": api.REGION,
    "Region": api.REGION,                   # from here on: the families
    "Throttled": api.THROTTLED,
    "Denied": api.MISSING_RIGHT,
    "Malformed": api.MALFORMED,
}

_FAMILIES = (                               # what a part of a code tells, the first that fits
    (r"Region[\w.]*(AccessFailed|NotFound|NotExist|Invalid|Illegal)", "Region"),
    (r"RateLimit|FlowLimit|FlowControl|Throttl|TooMany", "Throttled"),
    (r"Auth|Permission|Forbidden|Denied", "Denied"),
    (r"Param|Invalid|Illegal|Missing", "Malformed"),
)


# ---------------------------------------------------------------- the shapes that we read

class _Address(msgspec.Struct, gc=False):
    addr: str | None = None
    type: str | None = None                 # fixed, floating
    isMaster: bool | None = None


class _Network(msgspec.Struct, gc=False):
    addressList: list[_Address] | None = None


class _Card(msgspec.Struct, gc=False):
    IPv4Address: str | None = None
    IPv6Address: list[str] | None = None
    isMaster: bool | None = None
    subnetID: str | None = None


class _Image(msgspec.Struct, gc=False):
    imageID: str | None = None
    imageName: str | None = None


class _Group(msgspec.Struct, gc=False):
    securityGroupID: str | None = None


class _Flavor(msgspec.Struct, gc=False):
    flavorName: str | None = None
    flavorCPU: api.Count | None = None
    flavorRAM: api.Count | None = None


class _Instance(msgspec.Struct, gc=False):
    instanceID: api.Text
    displayName: str | None = None
    instanceName: str | None = None
    instanceStatus: str | None = None
    flavor: _Flavor | None = None
    attachedVolume: api.Nested = msgspec.UNSET
    addresses: list[_Network] | None = None
    networkCardList: list[_Card] | None = None
    privateIP: str | None = None
    privateIPv6: str | None = None
    fixedIPList: list[str] | None = None
    floatingIP: str | None = None
    createdTime: str | None = None
    updatedTime: str | None = None
    azName: str | None = None
    projectID: str | None = None
    image: _Image | None = None
    osType: int | None = None
    vpcID: str | None = None
    secGroupList: list[_Group] | None = None
    keypairName: str | None = None
    onDemand: bool | None = None
    expiredTime: str | None = None          # on demand it says one too, which means nothing


class _Instances(msgspec.Struct):
    totalCount: api.Count
    results: list[_Instance] | None


class _Attachment(msgspec.Struct, gc=False):
    instanceID: str | None = None


class _Disk(msgspec.Struct, gc=False):
    diskID: api.Text
    diskSize: api.Count | None = None
    instanceID: str | None = None
    attachments: list[_Attachment] | None = None


class _Disks(msgspec.Struct):
    totalCount: api.Count
    diskList: list[_Disk] | None


class _Region(msgspec.Struct):
    regionID: api.Text
    regionName: str | None = None
    regionCode: str | None = None
    openapiAvailable: bool | None = None


class _Regions(msgspec.Struct):
    regionList: list[_Region]


class _Answer(msgspec.Struct, Generic[_T]):
    statusCode: int | str
    returnObj: _T


class _Refusal(msgspec.Struct):
    statusCode: int | str
    errorCode: str | None = None
    error: str | None = None


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    query: dict[str, object] = {"regionID": client.region}
    project = {} if client.project is None else {"projectID": client.project}

    def fetch(number: int, size: int) -> api.Page[_Instance]:
        page = {**query, **project, "pageNo": number, "pageSize": size}
        answer = _call(client, "ListInstances", page, _Instances)
        rows = client.of_project(answer.results or [], lambda row: row.projectID, "enterprise project")
        return api.Page([(row.instanceID, row) for row in rows], answer.totalCount)

    def fetch_disks(number: int, size: int) -> api.Page[_Disk]:     # of every project: a disk may be in another
        answer = _call(client, "ListEbs", {**query, "pageNo": number, "pageSize": size}, _Disks)
        return api.Page([(disk.diskID, disk) for disk in answer.diskList or ()], answer.totalCount)

    instances, disks = client.run_all(lambda: api.by_page(fetch, window, _PAGE, _WORKERS),
                                  lambda: api.by_page(fetch_disks, api.WHOLE, _DISK_PAGE, _WORKERS))
    sizes = {disk.diskID: disk.diskSize for disk in disks.rows}
    attached: dict[str, set[str]] = {}
    for disk in disks.rows:                 # a shared disk counts for each server
        for owner in {disk.instanceID, *(attachment.instanceID for attachment in disk.attachments or ())}:
            attached.setdefault(owner or "", set()).add(disk.diskID)
    return instances.listing(lambda row: _server(row, attached.get(row.instanceID, set()), sizes))


def _server(row: _Instance, attached: set[str], sizes: Mapping[str, int | None]) -> api.Server:
    lan, wan = _addresses(row)
    flavor, image = row.flavor or _Flavor(), row.image or _Image()
    cards = sorted(row.networkCardList or (), key=lambda card: not card.isMaster)
    return api.Server(
        id=row.instanceID,
        name=row.displayName or row.instanceName or "",
        cpu=flavor.flavorCPU,
        memory_mib=_memory(flavor),
        disk_gib=_sum(_named(row, attached), attached, sizes),
        **api.addresses(lan, wan),
        **PARTY.status_of(row.instanceStatus),
        created_at=api.parse_time(row.createdTime),
        updated_at=api.parse_time(row.updatedTime),
        zone=row.azName or "",
        project_id=row.projectID or "",
        instance_type=flavor.flavorName or "",
        image_id=image.imageID,
        image_name=image.imageName,
        os=_SYSTEMS.get(row.osType or 0),
        vpc_id=row.vpcID,
        subnet_id=api.first(card.subnetID for card in cards[:1]),
        security_groups=api.groups([None if row.secGroupList is None else [
            group.securityGroupID for group in row.secGroupList]]),
        key_name=row.keypairName,
        charge_type=None if row.onDemand is None else api.POSTPAID if row.onDemand else api.PREPAID,
        expires_at=api.parse_time(row.expiredTime) if row.onDemand is False else None,
    )


def _memory(flavor: _Flavor) -> int | None:
    """MiB. From 256 for each CPU on flavorRAM is MB, below it is GB; without CPUs nobody can tell."""
    if flavor.flavorRAM is None or not flavor.flavorCPU:
        return None
    return flavor.flavorRAM if flavor.flavorRAM >= 256 * flavor.flavorCPU else flavor.flavorRAM * 1024


def _named(row: _Instance, attached: set[str]) -> list[str] | None:
    if not attached and (row.attachedVolume is msgspec.UNSET or bytes(row.attachedVolume) == b"null"):
        return None
    return api.nested(row.attachedVolume, str)


def _sum(named: Sequence[str] | None, attached: set[str], sizes: Mapping[str, int | None]) -> int | None:
    """`named`: None if the row does not say, or in no way that can be read."""
    return None if named is None else api.total_gib(sizes.get(disk) for disk in attached | set(named))


def _addresses(row: _Instance) -> tuple[tuple[str | None, ...], tuple[str | None, ...]]:
    """Local and public ones, the primary's first. The same may come up to four times."""
    addresses = [address for network in row.addresses or () for address in network.addressList or ()]
    addresses.sort(key=lambda address: not address.isMaster)
    cards = sorted(row.networkCardList or (), key=lambda card: not card.isMaster)
    local = [address for address in addresses if address.type != "floating"]
    primary = [address.addr for address in local if address.isMaster]
    lan = (*primary, row.privateIP, row.privateIPv6, *(address.addr for address in local),
           *(row.fixedIPList or ()), *(card.IPv4Address for card in cards),
           *(address for card in cards for address in card.IPv6Address or ()))
    return lan, (*(address.addr for address in addresses if address.type == "floating"), row.floatingIP)


# ---------------------------------------------------------------- regions, check

def list_regions(client: api.Client) -> list[api.Region]:
    return [api.Region(row.regionID, " ".join(filter(None, (row.regionName, row.regionCode))),
                       row.openapiAvailable is not False)
            for row in _call(client, "ListRegions", {}, _Regions).regionList]


def check(client: api.Client) -> None:
    _call(client, "ListInstances", {"regionID": client.region, "pageNo": 1, "pageSize": 1}, _Instances)


# ---------------------------------------------------------------- the call

_CALLS = {                                  # -> method, host, path
    "ListInstances": ("POST", "ctecs-global", "/v4/ecs/list-instances"),
    "ListEbs": ("GET", "ebs-global", "/v4/ebs/list-ebs"),
    "ListRegions": ("GET", "ctecs-global", "/v4/region/list-regions"),
}


def _call(client: api.Client, operation: str, query: Mapping[str, object], shape: type[_T]) -> _T:
    method, host, path = _CALLS[operation]
    words = urlencode(sorted(query.items()), quote_via=quote, safe="") if method == "GET" else ""
    url = client.url(f"https://{host}.ctapi.ctyun.cn{path}" + (f"?{words}" if words else ""))
    body = msgspec.json.encode(query) if method == "POST" else b""
    return client.call(operation, lambda: sign(method, url, body, client.account, time.time(), str(uuid.uuid4())),
                       _Answer[shape]).returnObj


def sign(method: str, url: str, body: bytes, account: api.Account, now: float, request_id: str) -> api.Request:
    """EOP. `now`: Unix time; the query is sorted and quoted."""
    keys, there = account.credentials, urlsplit(url)
    date = datetime.fromtimestamp(now, _BEIJING).strftime("%Y%m%dT%H%M%SZ")
    to_sign = "\n".join((f"ctyun-eop-request-id:{request_id}", f"eop-date:{date}", "", there.query,
                         hashlib.sha256(body).hexdigest()))
    key = keys["secret_key"].encode()
    for part in (date, keys["access_key"], date[:8], to_sign):
        key = hmac.digest(key, part.encode(), "sha256")
    return api.Request(method, url, {
        "Content-Type": "application/json;charset=UTF-8", "Host": there.netloc, "ctyun-eop-request-id": request_id,
        "Eop-date": date, "Eop-Authorization": f"{keys['access_key']} Headers=ctyun-eop-request-id;eop-date "
                                               f"Signature={base64.b64encode(key).decode()}"}, body)


def error_code(response: api.Response) -> str | None:
    """errorCode, else the gateway's statusCode; a code that is not in the table comes after the name of its family."""
    refusal = api.refusal(response, _Refusal)
    if refusal is None:
        return None
    status = str(refusal.statusCode)
    if status == "800":
        return None
    word = refusal.errorCode or (status if status.startswith("CTAPI") else refusal.error) or status
    if word in _ERRORS:
        return word
    return next((f"{family}.{word}" for part, family in _FAMILIES if re.search(part, word[:1000])), word)


PARTY = api.Party(
    name="ctyun",
    title="Tianyi Cloud ECS",
    reference="https://eop.ctyun.cn/ebp/ctapiDocument/search?sid=25&api=8309",
    order="none documented; numbered pages",
    credentials=(("access_key", "secret_key"),),
    permissions=("ecs viewer", "ebs viewer"),
    region_form=r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]{12}",
    default_region="bb9fdb42056f11eda1610242ac110002",
    unknown_region_is_empty=True,
    project="an enterprise project's id",
    project_form=r"0|[a-z0-9]{32}",
    limits=api.unpublished(20, *_CALLS),
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
