"""Huawei Cloud ECS: ListServersDetails v1, signed with SDK-HMAC-SHA256.

https://support.huaweicloud.com/intl/en-us/api-ecs/en-us_topic_0094148850.html (list), /devg-apisign/ (signature)

Units: flavor.ram MB, disks GB, both counts of a flavor are texts. Times: UTC, and `updated` is the party's own time of
the last change. Paging: `offset` is the number of a page (from 1), `limit` at most 1000 and 25 if not sent; the page of
the API advises 100 where there are many, which is what is asked for, side by side. `count` is the total; no order is
documented. What a server is doing right now (powering on or off, deleting) is in its task state, not in its status.

Sizes of disks come from EVS (ListVolumes v2, https://support.huaweicloud.com/intl/en-us/api-evs/evs_04_2006.html).
There `offset` counts rows. A whole list reads them side by side with the servers, a window asks for its own disks by 60
ids, or for all if that is fewer calls. A disk that is not listed (no right to see it) leaves the sum unknown.

A key that holds rights in enterprise projects alone is refused unless it asks for `all_granted_eps`: what a key may see
of all of them, which is all if it has the right for the region. The API says that it takes at most 100 enterprise
projects this way; what it answers beyond is not said, so an account with more is better put once for each (--project).

Each region has a project id of its own. Without one in the credentials it is looked up, once per process, among those
that the key may use (KeystoneListAuthProjects: needs no right), so that one account reaches all its regions.

Rates: the gateway of all services allows 200 calls a second for each API. Skew of the clock: 15 minutes. Rows may hold
passwords in their user data: bodies are never kept. Unconfirmed without an account: the code for a project of another
region; sites outside of myhuaweicloud.com.
"""

import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from ...cloud.cache import cached_lookup
from ...cloud.decoding import Strict, read, refusal
from ...cloud.paging import Page, Rows, by_offset, by_page
from ...concurrency import run_all, run_both
from ...errors import (
    ADDRESS,
    ARREARS,
    CLOCK,
    FAILED,
    LOCKED,
    MALFORMED,
    MISSING_RIGHT,
    REGION,
    SUSPENDED,
    THROTTLED,
    WRONG_KEY,
    WRONG_TOKEN,
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
    parse_time,
)

_PAGE = 100                                 # 1000 are allowed, 100 are advised
_DISK_PAGE = 1000                           # most that ListVolumes takes
_IDS = 60                                   # most ids that it takes
_WORKERS = 20
_PROJECT = r"[0-9a-f]{32}"
_T = TypeVar("_T")

_STATUS = {                                 # status, all documented words
    "BUILD": Status.BUILD,
    "REBOOT": Status.REBOOT,
    "HARD_REBOOT": Status.HARD_REBOOT,
    "REBUILD": Status.REBUILD,
    "MIGRATING": Status.MIGRATING,
    "RESIZE": Status.RESIZE,
    "ACTIVE": Status.ACTIVE,                # or on its way down, see _TASKS
    "SHUTOFF": Status.SHUTOFF,              # or on its way up
    "REVERT_RESIZE": Status.RESIZE,
    "VERIFY_RESIZE": Status.VERIFY_RESIZE,
    "ERROR": Status.ERROR,
    "DELETED": Status.DELETED,
    "SHELVED": Status.SHELVED,              # made from an image
    "SHELVED_OFFLOADED": Status.SHELVED_OFFLOADED,      # made from a volume
    "UNKNOWN": Status.UNKNOWN,              # any other combination of vm_state and task_state
    # Nova's words that the table leaves out
    "PAUSED": Status.PAUSED,
    "SUSPENDED": Status.SUSPENDED,
    "SOFT_DELETED": Status.SOFT_DELETED,
}

_TASKS = {                                  # OS-EXT-STS:task_state, those that the status does not tell
    "powering-off": Status.STOPPING,
    "powering-on": Status.STARTING,
    "deleting": Status.DELETED,
}

_REFUSED = Meaning(PartyDenied, "login refused: the key or the token is wrong or expired, the key is locked for five "
                                "minutes after five failures, the account is in arrears or frozen, or this machine's "
                                "clock is wrong")
_SAID = (                                   # what the gateway's messages say of 0301 and 0303
    (r"reach(ed)? the limit|locked", "locked"),
    (r"arrears|overdue", "arrears"),
    (r"frozen|freez|suspend", "frozen"),
    (r"time ?stamp|x-sdk-date|clock|expired time|signature expired", "clock"),
    (r"ak not exist|get secretkey failed", "wrong_key"),
    (r"decrypt token fail|token expires|token expired", "token"),
)

_ERRORS = {                                 # not here: APIGW.0201 and others that come with several HTTP statuses
    **{f"{gateway}.{number}": verdict for gateway in ("APIGW", "APIG") for number, verdict in {
        "0101": REGION,                     # no such API at this host
        "0301": _REFUSED,
        "0301.locked": LOCKED,              # our words, see _SAID
        "0301.wrong_key": WRONG_KEY,
        "0301.token": WRONG_TOKEN,
        "0301.clock": CLOCK,
        "0301.arrears": ARREARS,
        "0301.frozen": SUSPENDED,
        "0302": MISSING_RIGHT,
        "0303": WRONG_KEY,
        "0303.clock": CLOCK,
        "0304": MISSING_RIGHT,
        "0305": WRONG_KEY,
        "0306": MISSING_RIGHT,
        "0307": WRONG_TOKEN,                # the token must be updated
        "0308": THROTTLED,
        "0310": MISSING_RIGHT,              # the project is unavailable
        "0402": ADDRESS,
        "0801": REGION,                     # the service is not open in this region
        "0802": REGION,                     # the user is not let into this region
    }.items()},
    "Ecs.0000": MALFORMED,
    "Ecs.0002": FAILED,                     # a system exception, although with HTTP 403
    "Ecs.0003": MISSING_RIGHT,              # with HTTP 400: no permission, or the account is in arrears or frozen
    "Ecs.0004": FAILED,
    "Ecs.0005": MALFORMED,
}


# ---------------------------------------------------------------- the shapes that we read

class _Flavor(msgspec.Struct, gc=False):
    id: str | None = None
    vcpus: Count | None = None
    ram: Count | None = None


class _Address(msgspec.Struct, gc=False):
    addr: str | None = None
    kind: str | None = msgspec.field(name="OS-EXT-IPS:type", default=None)
    primary: bool | None = None


class _Attached(msgspec.Struct, gc=False):
    id: Text


class _Server(msgspec.Struct, gc=False):
    id: Text
    name: str | None = None
    status: str | None = None
    task: str | None = msgspec.field(name="OS-EXT-STS:task_state", default=None)
    flavor: _Flavor | None = None
    addresses: dict[str, list[_Address]] | None = None
    volumes: list[_Attached] | None = msgspec.field(name="os-extended-volumes:volumes_attached", default=None)
    created: str | None = None
    updated: str | None = None
    zone: str | None = msgspec.field(name="OS-EXT-AZ:availability_zone", default=None)
    enterprise_project_id: Strict[str | None] = None
    tags: list[str] | None = None


class _Servers(msgspec.Struct):
    count: Count
    servers: list[_Server]


class _Volume(msgspec.Struct, gc=False):
    id: Text
    size: Count | None = None


class _Volumes(msgspec.Struct):
    count: Count
    volumes: list[_Volume]


class _Project(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(pattern=f"^{_PROJECT}$")]
    name: Text
    enabled: bool | None = None


class _Projects(msgspec.Struct):
    projects: list[_Project]


class _Region(msgspec.Struct):
    id: Text
    locales: dict[str, str | None] | None = None


class _Regions(msgspec.Struct):
    regions: list[_Region]


class _Error(msgspec.Struct):
    code: str | int | None = None           # a text from ECS and EVS; from IAM and Nova the HTTP status again


class _Refusal(msgspec.Struct):
    error_code: str | None = None           # the gateway's
    error_msg: str | None = None
    error: _Error | None = None             # the services'


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    project = _project_of(source.region, account, send)

    def fetch(number: int, size: int) -> Page[_Server]:
        asked = {"offset": number, "limit": size, "enterprise_project_id": account.project or _ALL, **_VIRTUAL}
        answer = _call("ecs", asked, _Servers, source.region, project, account, send)
        if account.project is not None and any(r.enterprise_project_id != account.project for r in answer.servers):
            raise PartyMalformed("The party listed servers of another enterprise project than the account's.")
        return Page([(row.id, row) for row in answer.servers], answer.count)

    def volumes(ids: Sequence[str] = ()) -> dict[str, int | None]:
        return _volumes(ids, source.region, project, account, send)

    def servers() -> Rows[_Server]:
        return by_page(fetch, window, _PAGE, _WORKERS)

    if window.last is None:
        found, sizes = run_both(servers, volumes)
    else:
        found = servers()
        ids = list(dict.fromkeys(disk.id for row in found.rows for disk in row.volumes or ()))
        batches = [ids[at:at + _IDS] for at in range(0, len(ids), _IDS)]
        estimate = len(ids) * (found.total or 0) // max(1, len(found.rows))     # all disks, if all servers are alike
        if estimate // _DISK_PAGE + 1 < len(batches):
            sizes = volumes()
        else:
            parts = run_all([lambda batch=batch: volumes(batch) for batch in batches], _WORKERS)
            sizes = {key: size for part in parts for key, size in part.items()}
    return Listing([_server(row, sizes) for row in found.rows], found.total)


_ALL = "all_granted_eps"
_VIRTUAL = {"not-tags": "__type_baremetal"}                     # or else bare metal is listed among the servers


def _server(row: _Server, sizes: Mapping[str, int | None]) -> Server:
    interfaces = [address for network in (row.addresses or {}).values() for address in network]
    interfaces.sort(key=lambda address: not address.primary)
    lan4, lan6 = addresses(*(address.addr for address in interfaces if address.kind != "floating"))
    wan4, wan6 = addresses(*(address.addr for address in interfaces if address.kind == "floating"))
    flavor = row.flavor or _Flavor()
    return Server(
        id=row.id,
        name=row.name or "",
        cpu=flavor.vcpus,
        memory_mib=flavor.ram,
        disk_gib=_sum(row, sizes),
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_TASKS.get((row.task or "").strip()) or _STATUS.get((row.status or "").strip(), Status.UNKNOWN),
        party_status=row.status or "",
        created_at=parse_time(row.created),
        updated_at=parse_time(row.updated),
        zone=row.zone or "",
        project_id=row.enterprise_project_id or "",
        instance_type=flavor.id or "",
        tags={key: value for key, _, value in (tag.partition("=") for tag in row.tags or ())},
    )


def _sum(row: _Server, sizes: Mapping[str, int | None]) -> int | None:
    if row.volumes is None:
        return None
    found = [sizes.get(key) for key in {disk.id for disk in row.volumes}]
    return None if None in found else sum(size for size in found if size is not None)


def _volumes(ids: Sequence[str], region: str, project: str, account: Account, send: Send) -> dict[str, int | None]:
    """Sizes by id: of these disks, or of all if none is named. In any enterprise project: a disk may be in another."""
    def ask(asked: Mapping[str, object]) -> _Volumes:
        return _call("evs", {**asked, "enterprise_project_id": _ALL}, _Volumes, region, project, account, send)

    def fetch(offset: int, limit: int) -> Page[_Volume]:
        answer = ask({"offset": offset, "limit": limit, "sort_key": "id", "sort_dir": "asc"})
        return Page([(row.id, row) for row in answer.volumes], answer.count)

    if ids:
        found = ask({"ids": "[" + ",".join(f"'{key}'" for key in ids) + "]"}).volumes
    else:
        found = by_offset(fetch, WHOLE, _DISK_PAGE, _WORKERS).rows
    return {row.id: row.size for row in found}


# ---------------------------------------------------------------- projects, regions, check

def _project_of(region: str, account: Account, send: Send) -> str:
    """The id of the region's project. Raises UnknownRegion if the key may use none there."""
    if "project_id" in account.credentials:
        return account.credentials["project_id"]
    found = cached_lookup(("huaweicloud", account.fingerprint), [region], lambda _: {
        project.name: project.id for project in _projects(account, send)})
    if region not in found:
        raise UnknownRegion(f"{PARTY.title} has no such region, or no project in it that this account may use.")
    return found[region]


def _projects(account: Account, send: Send) -> list[_Project]:
    """https://support.huaweicloud.com/intl/en-us/api-iam/iam_06_0003.html; that of a region has the region's name."""
    projects = _call("projects", {}, _Projects, "", "", account, send).projects
    return [project for project in projects if project.enabled is not False]


def list_regions(account: Account, send: Send) -> list[Region]:
    """https://support.huaweicloud.com/intl/en-us/api-iam/iam_05_0001.html; open are those with a project of ours."""
    regions, projects = run_both(lambda: _call("regions", {}, _Regions, "", "", account, send).regions,
                             lambda: _projects(account, send))
    given = account.credentials.get("project_id")
    usable = {project.name.partition("_")[0] for project in projects if given in (None, project.id)}
    return [Region(region.id, (region.locales or {}).get("en-us") or "", region.id in usable) for region in regions]


def check(source: Source, account: Account, send: Send) -> None:
    project = _project_of(source.region, account, send)
    asked = {"offset": 1, "limit": 1, "enterprise_project_id": account.project or _ALL, **_VIRTUAL}
    _call("ecs", asked, _Servers, source.region, project, account, send)


# ---------------------------------------------------------------- the call

_CALLS = {                                  # -> operation, host, path
    "ecs": ("ListServersDetails", "ecs.{region}", "/v1/{project}/cloudservers/detail"),
    "evs": ("ListVolumes", "evs.{region}", "/v2/{project}/cloudvolumes/detail"),
    "projects": ("ListAuthProjects", "iam", "/v3/auth/projects"),
    "regions": ("ListRegions", "iam", "/v3/regions"),
}


def _call(name: str, asked: Mapping[str, object], shape: type[_T], region: str, project: str, account: Account,
          send: Send) -> _T:
    operation, host, path = _CALLS[name]
    query = urlencode(sorted(asked.items()), quote_via=quote, safe="~")
    url = account.url(f"https://{host}.myhuaweicloud.com{path}".format(region=region, project=project)
                      + (f"?{query}" if query else ""))
    response = send(operation, lambda: sign(url, project, account, time.time()))
    return read(response, shape, strict=False)                  # counts may be texts; texts are never counts


def sign(url: str, project: str, account: Account, now: float) -> Request:
    """SDK-HMAC-SHA256 of a GET whose query is sorted and quoted. `now`: Unix time."""
    keys, there = account.credentials, urlsplit(url)
    date = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {"Content-Type": "application/json", "Host": there.netloc, "X-Sdk-Date": date}
    if project:
        headers["X-Project-Id"] = project
    if "security_token" in keys:
        headers["X-Security-Token"] = keys["security_token"]
    lines = sorted(f"{name.lower()}:{value}" for name, value in headers.items())
    signed = ";".join(line.partition(":")[0] for line in lines)
    canonical = "\n".join(("GET", f"{there.path}/", there.query, *lines, "", signed, _sha256(b"")))
    to_sign = "\n".join(("SDK-HMAC-SHA256", date, _sha256(canonical.encode())))
    signature = hmac.digest(keys["secret_key"].encode(), to_sign.encode(), "sha256").hex()
    headers["Authorization"] = (f"SDK-HMAC-SHA256 Access={keys['access_key']}, SignedHeaders={signed}, "
                                f"Signature={signature}")
    return Request("GET", url, headers)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def error_code(response: Response) -> str | None:
    """`error_code` from the gateway, with what its message says; the services' `error.code`; not with 200."""
    if response.status == 200:
        return None
    said = refusal(response, _Refusal)
    word = said and (said.error_code or (said.error and said.error.code))
    if said is None or not isinstance(word, str):
        return None
    text = (said.error_msg or "")[:1000]
    cause = next((cause for pattern, cause in _SAID if re.search(pattern, text, re.IGNORECASE)), "")
    return f"{word}.{cause}" if f"{word}.{cause}" in _ERRORS else word


PARTY = Party(
    name="huaweicloud",
    title="Huawei Cloud ECS",
    reference="https://support.huaweicloud.com/intl/en-us/api-ecs/en-us_topic_0094148850.html",
    order="none documented; numbered pages",
    credentials=(("access_key", "secret_key", "project_id?", "security_token?"),),
    forms={"project_id": r"[A-Za-z0-9_-]{1,64}"},
    permissions=("ecs:cloudServers:list", "evs:volumes:list"),
    grade="recorded",
    region_form=r"[a-z]{2}(-[a-z]{2,16}){1,2}-[0-9]{1,3}",
    default_region="cn-north-4",
    project="an enterprise project's id",
    project_form=r"0|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    limits={operation: Limit(200) for operation, _, _ in _CALLS.values()},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
