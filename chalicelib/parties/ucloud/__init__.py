"""UCloud UHost: DescribeUHostInstance (no version), signed with UCloud's SHA-1 over names and values.

https://docs.ucloud.cn/api/uhost-api/describe_uhost_instance (call), https://docs.ucloud.cn/api/summary/signature
(signature), https://docs.ucloud.cn/api/summary/public (error codes)

Units: memory MB (taken as MiB), disks GB. Times: Unix seconds. Paging: Offset from 0, Limit at most 100 (default 20!),
TotalCount always; no documented order. One call gives all fields: every disk and every address with its kind. There is
no time of the last update. Errors come inside HTTP 200 as a RetCode; an unknown region is 230 with "[Region]" in its
Message, which was seen but is not documented. A server's Tag is the one business group that it belongs to.

Without ProjectId an account shows its default project alone, with no hint of the others; so it is always sent: the
credentials' or the account's --project. Rows do not name their project; an unknown one is refused with 292.

The signature holds neither time nor nonce: a request that is overheard can be sent again for ever, so https alone.
SecurityToken (temporary keys of STS) is signed like any other parameter, as the vendor's Go SDK does it; its Python SDK
has no such field. No rate is published (153 says that one was passed): ten calls a second is a careful one.
The name of GetRegion's permission is unconfirmed; it is needed for region=all alone.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, TypeVar
from urllib.parse import urlencode

import msgspec

from ...cloud.decoding import read, refusal
from ...cloud.paging import Page, by_offset
from ...errors import (
    ADDRESS,
    FAILED,
    MALFORMED,
    MFA,
    MISSING_RIGHT,
    REGION,
    REGION_CLOSED,
    THROTTLED,
    UNAVAILABLE,
    WRONG_KEY,
    WRONG_TOKEN,
    Meaning,
    PartyDenied,
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
    total_gib,
)

_PAGE = 100
_WORKERS = 10                               # one second's worth of the rate
_Seconds = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]       # Unix time, to the end of the year 9999
_T = TypeVar("_T")

_STATUS = {                                 # State, all documented words; "" (their own query timed out) is UNKNOWN
    "Initializing": Status.BUILD,
    "Install Fail": Status.ERROR,
    "Starting": Status.STARTING,
    "Running": Status.ACTIVE,
    "Stopping": Status.STOPPING,
    "Stopped": Status.SHUTOFF,
    "Rebooting": Status.REBOOT,
}

_ERRORS = {                                 # RetCode; those of every product, then those that UHost gives for a list
    "110": FAILED,                          # their own answer took longer than 60 s
    "130": FAILED,                          # their gateway or their authentication
    "150": UNAVAILABLE,
    "153": THROTTLED,
    "160": MALFORMED,                       # no Action
    "161": MALFORMED,                       # unknown Action
    "170": MALFORMED,                       # no signature
    "171": WRONG_KEY,                       # signature; also keys of another UCloud than this one
    "172": WRONG_KEY,                       # no such user, by the public key
    "174": WRONG_TOKEN,                     # unknown token
    "230": MALFORMED,                       # a parameter
    "230.Region": REGION,                   # that parameter, see error_word
    "292": Meaning(PartyDenied, "wrong project: the account has no project of this id"),
    "293": REGION_CLOSED,                   # no right to the zone
    "294": ADDRESS,
    "295": MFA,                             # the safety lock: a second confirmation
    "299": MISSING_RIGHT,
    "8029": MALFORMED,
    "8300": MISSING_RIGHT,
    **dict.fromkeys(("8025", "8031", "8041", "8826", "8828", "8829", "8834", "8835", "8853", "8857", "8858", "8880",
                     "8881", "8884", "8906", "8981"), FAILED),
}


# ---------------------------------------------------------------- the shapes that we read

class _Disk(msgspec.Struct, gc=False):
    Size: Count | None = None


class _Address(msgspec.Struct, gc=False):
    IP: str | None = None
    Type: str | None = None
    Default: str | None = None
    Weight: int | None = None


class _Instance(msgspec.Struct, gc=False):
    UHostId: Text
    Name: str | None = None
    State: str | None = None
    CPU: Count | None = None
    Memory: Count | None = None
    DiskSet: list[_Disk] | None = None
    IPSet: list[_Address] | None = None
    CreateTime: _Seconds | None = None
    Zone: str | None = None
    MachineType: str | None = None
    UHostType: str | None = None
    Tag: str | None = None


class _Instances(msgspec.Struct):
    RetCode: Count
    TotalCount: Count
    UHostSet: list[_Instance] | None


class _Region(msgspec.Struct):
    Region: Text
    RegionName: str | None = None


class _Regions(msgspec.Struct):
    RetCode: Count
    Regions: list[_Region]


class _Refusal(msgspec.Struct):
    RetCode: Count
    Message: str | None = None


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    project = _project(account)

    def fetch(offset: int, limit: int) -> Page[Server]:
        answer = _instances(source, account, send, offset, limit)
        return Page([(row.UHostId, _server(row, project)) for row in answer.UHostSet or ()], answer.TotalCount)

    rows = by_offset(fetch, window, _PAGE, _WORKERS)
    return Listing(rows.rows, rows.total)


def _server(row: _Instance, project: str) -> Server:
    own = row.IPSet or ()
    private = sorted((a for a in own if a.Type == "Private"), key=lambda a: a.Default != "true")
    public = sorted((a for a in own if a.Type and a.Type != "Private"), key=lambda a: -(a.Weight or 0))
    lan4, lan6 = addresses(*(address.IP for address in private))
    wan4, wan6 = addresses(*(address.IP for address in public))     # Bgp, BGP, Internation; the one in use weighs most
    return Server(
        id=row.UHostId,
        name=row.Name or "",
        cpu=row.CPU,
        memory_mib=row.Memory,
        disk_gib=_sum(row.DiskSet),
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_STATUS.get((row.State or "").strip(), Status.UNKNOWN),
        party_status=row.State or "",
        created_at=datetime.fromtimestamp(row.CreateTime, UTC) if row.CreateTime else None,
        zone=row.Zone or "",
        project_id=project,
        instance_type=row.MachineType or row.UHostType or "",
        tags={"Tag": row.Tag} if row.Tag else {},
    )


def _sum(disks: list[_Disk] | None) -> int | None:
    return None if disks is None else total_gib(disk.Size for disk in disks)


def _project(account: Account) -> str:
    return account.project or account.credentials["project_id"]


# ---------------------------------------------------------------- regions, check

def list_regions(account: Account, send: Send) -> list[Region]:
    """https://docs.ucloud.cn/api/uaccount-api/get_region: one row for each zone that the account may use."""
    names = {row.Region: row.RegionName or "" for row in _call("GetRegion", {}, _Regions, account, send).Regions}
    return [Region(code, name) for code, name in names.items()]


def check(source: Source, account: Account, send: Send) -> None:
    _instances(source, account, send, 0, 1)


# ---------------------------------------------------------------- the call

def _instances(source: Source, account: Account, send: Send, offset: int, limit: int) -> _Instances:
    asked = {"Region": source.region, "ProjectId": _project(account), "Offset": str(offset), "Limit": str(limit)}
    return _call("DescribeUHostInstance", asked, _Instances, account, send)


def _call(action: str, asked: Mapping[str, str], shape: type[_T], account: Account, send: Send) -> _T:
    url = account.url("https://api.ucloud.cn/")
    response = send(action, lambda: sign(url, {"Action": action, **asked}, account.credentials))
    return read(response, shape)


def sign(url: str, asked: Mapping[str, str], keys: Mapping[str, str]) -> Request:
    """SHA-1 of every name and value, sorted by name, and the private key: all bare, with nothing between them."""
    said = {**asked, "PublicKey": keys["public_key"]}
    if "security_token" in keys:
        said["SecurityToken"] = keys["security_token"]
    text = "".join(name + said[name] for name in sorted(said)) + keys["private_key"]
    said["Signature"] = hashlib.sha1(text.encode()).hexdigest()     # noqa: S324  the party knows no other
    return Request("POST", url, {"Content-Type": "application/x-www-form-urlencoded"}, urlencode(said).encode())


def error_code(response: Response) -> str | None:
    """RetCode as text; "230.Region" for the refusal of a region, which its Message alone tells from others."""
    said = refusal(response, _Refusal)
    if said and said.RetCode == 230 and "[Region]" in (said.Message or ""):
        return "230.Region"
    return str(said.RetCode) if said and said.RetCode else None


PARTY = Party(
    name="ucloud",
    title="UCloud UHost",
    reference="https://docs.ucloud.cn/api/uhost-api/describe_uhost_instance",
    order="none documented; pages at any row",
    credentials=(("public_key", "private_key", "project_id", "security_token?"),),
    forms={"project_id": r"[A-Za-z0-9._-]{1,64}"},
    permissions=("uhost:DescribeUHostInstance", "uaccount:GetRegion"),
    region_form=r"[a-z]{2,4}(-[a-z]{2,16}[0-9]{0,2})?",
    default_region="cn-bj2",
    project="a project's id, asked for in place of the credentials' project_id",
    project_form=r"[A-Za-z0-9._-]{1,64}",
    limits={"DescribeUHostInstance": Limit(10), "GetRegion": Limit(10)},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
