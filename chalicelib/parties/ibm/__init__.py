"""IBM Cloud VPC, generation 2: API v1.

https://cloud.ibm.com/apidocs/vpc/latest#list-instances and the models of ibm-vpc

Units: memory GiB, disks GB (volumes, and instance storage that is part of the profile). Times: RFC 3339. Paging: a
token in the href of `next`, at most 100 rows, total_count (volumes and floating IPs may lack it: the end of `next` is
theirs). There is no time of the last update.

The region is the host's name, so that an unknown one is a name that cannot be looked up; behind an endpoint of the
account it is an empty list, which is believed only of a region in /v1/regions. Zones are named after their region,
which is checked. Volumes and floating IPs are the region's and read side by side with the instances, also for a
window: neither can be asked by instance. A floating IP's target is an interface, or the virtual interface of an
attachment; further addresses of an interface are not in these lists. 0.0.0.0 is an address that is still to come. A
volume that comes or goes between the lists makes the disk unknown. --project is a resource group, asked and checked.

The token is an API key; IAM gives a bearer token for it, which is kept until a minute before its end
(https://cloud.ibm.com/apidocs/iam-identity-token-api). IAM refuses a key with 400. No rate is published: 10 calls a
second of each kind.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from ...cloud.bearer import Call, Cloud, List, by_owner, disk_gib, error_code, only
from ...cloud.cache import with_session
from ...cloud.decoding import Nested, nested, reading
from ...cloud.paging import Rows
from ...concurrency import run_both
from ...errors import FAILED, MALFORMED, MISSING_RIGHT, THROTTLED, UNAVAILABLE, WRONG_KEY
from ...model import (
    Account,
    Count,
    Limit,
    Listing,
    Party,
    Region,
    Request,
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

_PAGE = 100
_VERSION = (("version", "2024-11-12"), ("generation", 2))
_T = TypeVar("_T")

_STATUS = {                                 # status, the complete enumeration
    "pending": Status.BUILD,
    "starting": Status.STARTING,
    "running": Status.ACTIVE,
    "stopping": Status.STOPPING,
    "stopped": Status.SHUTOFF,
    "restarting": Status.REBOOT,
    "failed": Status.ERROR,
    "deleting": Status.DELETED,
}

_ERRORS = {                                 # the code of an error, of VPC or of IAM
    "BXNIM0415E": WRONG_KEY,                # IAM: no such key
    "not_authenticated": WRONG_KEY,
    "invalid_token": WRONG_KEY,
    "not_authorized": MISSING_RIGHT,
    "forbidden": MISSING_RIGHT,
    "too_many_requests": THROTTLED,
    "rate_limit_exceeded": THROTTLED,
    "bad_request": MALFORMED,
    "bad_field": MALFORMED,
    "bad_version": MALFORMED,
    "invalid_generation": MALFORMED,
    "not_found": MALFORMED,
    "internal_error": FAILED,
    "service_unavailable": UNAVAILABLE,
}


# ---------------------------------------------------------------- the shapes that we read

class _Named(msgspec.Struct, gc=False):
    name: Text


class _Identified(msgspec.Struct, gc=False):
    id: Text


class _Cpu(msgspec.Struct, gc=False):
    count: Count | None = None


class _Address(msgspec.Struct, gc=False):
    address: str | None = None


class _Interface(msgspec.Struct, gc=False):
    id: str | None = None
    primary_ip: _Address | None = None
    virtual_network_interface: _Identified | None = None        # of an attachment


class _Attachment(msgspec.Struct, gc=False):
    volume: _Identified | None = None       # None: it is being attached


class _Disk(msgspec.Struct, gc=False):
    size: Count | None = None


class _Instance(msgspec.Struct, gc=False):
    id: Text
    zone: _Named
    name: str | None = None
    status: str | None = None
    vcpu: _Cpu | None = None
    memory: Count | None = None
    disks: Nested = msgspec.UNSET
    volume_attachments: list[_Attachment] | None = None
    primary_network_interface: _Identified | None = None
    network_interfaces: list[_Interface] | None = None
    primary_network_attachment: _Identified | None = None
    network_attachments: list[_Interface] | None = None
    resource_group: _Identified | None = None
    profile: _Named | None = None
    created_at: str | None = None


class _Volume(msgspec.Struct, gc=False):
    id: Text
    capacity: Count | None = None


class _FloatingIp(msgspec.Struct, gc=False):
    id: Text
    address: str | None = None
    target: _Identified | None = None


class _Region(msgspec.Struct):
    name: Text
    status: str | None = None


class _Login(msgspec.Struct):
    access_token: Text
    expires_in: Count


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    return _opened(source.region, account, send, lambda call: _listing(call, window))


def _listing(call: Call, window: Window) -> Listing:
    group = call.account.project
    asked = [*_VERSION, *([("resource_group.id", group)] if group is not None else [])]
    found, (volumes, ips) = run_both(
        lambda: _instances(call, window, asked),
        lambda: run_both(lambda: call.all(_VOLUMES, _VERSION), lambda: call.all(_FLOATING_IPS, _VERSION)))
    rows: list[_Instance] = only(found.rows, lambda row: row.zone.name.rpartition("-")[0], call.region)
    if group is not None:
        only(rows, lambda row: row.resource_group and row.resource_group.id, group)
    sizes = {volume.id: volume.capacity for volume in volumes}
    floating = by_owner((ip.target and ip.target.id, ip.address) for ip in ips)
    return Listing([_server(row, sizes, floating) for row in rows], found.total)


def _instances(call: Call, window: Window, asked: Sequence[tuple[str, object]]) -> Rows[_Instance]:
    return call.walk(_INSTANCES, window, asked)


_INSTANCES = List("ListInstances", "/v1/instances", "instances", list[_Instance])
_VOLUMES = List("ListVolumes", "/v1/volumes", "volumes", list[_Volume], counted=False)
_FLOATING_IPS = List("ListFloatingIps", "/v1/floating_ips", "floating_ips", list[_FloatingIp], counted=False)
_REGIONS = List("ListRegions", "/v1/regions", "regions", list[_Region])


def _server(row: _Instance, sizes: Mapping[str, int | None],
            floating: Mapping[str, Sequence[str | None]]) -> Server:
    primary = {one.id for one in (row.primary_network_interface, row.primary_network_attachment) if one}
    nets = sorted([*(row.network_attachments or ()), *(row.network_interfaces or ())],
                  key=lambda net: net.id not in primary)
    targets = [key for net in nets
               for key in (net.id, net.virtual_network_interface and net.virtual_network_interface.id) if key]
    lan4, lan6 = addresses(*(net.primary_ip.address for net in nets
                             if net.primary_ip and net.primary_ip.address != "0.0.0.0"))        # noqa: S104
    wan4, wan6 = addresses(*(ip for key in targets for ip in floating.get(key, ())))
    stored = nested(row.disks, _Disk)
    return Server(
        id=row.id,
        name=row.name or "",
        cpu=row.vcpu and row.vcpu.count,
        memory_mib=None if row.memory is None else row.memory * 1024,
        disk_gib=disk_gib(None if stored is None else total_gib(disk.size for disk in stored),
                          None if row.volume_attachments is None else [
                              one.volume and one.volume.id for one in row.volume_attachments], sizes),
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_STATUS.get(row.status or "", Status.UNKNOWN),
        party_status=row.status or "",
        created_at=parse_time(row.created_at),
        zone=row.zone.name,
        project_id=row.resource_group.id if row.resource_group else "",
        instance_type=row.profile.name if row.profile else "",
    )


# ---------------------------------------------------------------- regions, check

def list_regions(account: Account, send: Send) -> list[Region]:
    region = account.regions[0] if account.regions else PARTY.default_region
    rows: list[_Region] = _opened(region, account, send, lambda call: call.get(_REGIONS, _VERSION).rows)
    return [Region(row.name, "", row.status in (None, "available")) for row in rows]


def check(source: Source, account: Account, send: Send) -> None:
    _opened(source.region, account, send, lambda call: call.walk(_INSTANCES, Window(1, 1), _VERSION))


# ---------------------------------------------------------------- the login

def _opened(region: str, account: Account, send: Send, use: Callable[[Call], _T]) -> _T:
    def with_token(token: str) -> _T:
        cloud = Cloud(f"{region}.iaas.cloud.ibm.com", size="limit", cursor="start",
                      headers=lambda _: {"Authorization": f"Bearer {token}"})
        return use(Call(cloud, _PAGE, region, account, send))

    return with_session(account, "iam", lambda: _login(account, send), with_token)


def _login(account: Account, send: Send) -> tuple[float, str]:
    url = account.url("https://iam.cloud.ibm.com/identity/token")
    body = urlencode({"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": account.credentials["token"]})
    headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
    response = send("Login", lambda: Request("POST", url, headers, body.encode()))
    with reading():
        given = msgspec.json.decode(response.body, type=_Login)
    return time.time() + given.expires_in, given.access_token


PARTY = Party(
    name="ibm",
    title="IBM Cloud VPC",
    reference="https://cloud.ibm.com/apidocs/vpc/latest#list-instances",
    order="none documented; tokens, believed to name a row",
    credentials=(("token",),),
    permissions=("Viewer on VPC Infrastructure Services",),
    region_form=r"[a-z]{2}-[a-z]{2,12}[0-9]?",
    default_region="us-south",
    unknown_region_is_empty=True,
    project="a resource group's id",
    project_form=r"[0-9a-f]{32}",
    limits={"Login": Limit(10), **{operation: Limit(10) for operation in (
        "ListInstances", "ListVolumes", "ListFloatingIps", "ListRegions")}},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
