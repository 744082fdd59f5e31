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
projects this way, and not what it answers beyond. So a whole list that names exactly 100 of them is believed only if
EPS, which lists those that the key may see, knows no more; `account check` asks EPS, too. Such an account is put once
for each enterprise project (--project). That EPS is asked like IAM, without a domain's id, is unconfirmed.
https://support.huaweicloud.com/intl/en-us/api-em/eps_02_0014.html

Each region has a project id of its own. Without one in the credentials it is looked up, once per process, among those
that the key may use (KeystoneListAuthProjects: needs no right), so that one account reaches all its regions.

Rates: the gateway of all services allows 200 calls a second for each API. Skew of the clock: 15 minutes. Rows may hold
passwords in their user data: bodies are never kept. Unconfirmed without an account: the code for a project of another
region.

The European site (eu-west-101) has accounts and hosts of its own, below myhuaweicloud.eu. The vendor's SDK names hosts
below myhuaweicloud.com for it, its help pages, its catalogues and its Terraform provider those that are called here.
"""

import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from ...cloud import api

_PAGE = 100                                 # 1000 are allowed, 100 are advised
_DISK_PAGE = 1000                           # most that ListVolumes takes
_IDS = 60                                   # most ids that it takes
_GRANTED = 100                              # most enterprise projects that are listed together
_WORKERS = 20
_PROJECT = r"[0-9a-f]{32}"
_T = TypeVar("_T")

_STATUS = {                                 # status, all documented words
    "BUILD": api.Status.BUILD,
    "REBOOT": api.Status.REBOOT,
    "HARD_REBOOT": api.Status.HARD_REBOOT,
    "REBUILD": api.Status.REBUILD,
    "MIGRATING": api.Status.MIGRATING,
    "RESIZE": api.Status.RESIZE,
    "ACTIVE": api.Status.ACTIVE,            # or on its way down, see _TASKS
    "SHUTOFF": api.Status.SHUTOFF,          # or on its way up
    "REVERT_RESIZE": api.Status.RESIZE,
    "VERIFY_RESIZE": api.Status.VERIFY_RESIZE,
    "ERROR": api.Status.ERROR,
    "DELETED": api.Status.DELETED,
    "SHELVED": api.Status.SHELVED,          # made from an image
    "SHELVED_OFFLOADED": api.Status.SHELVED_OFFLOADED,  # made from a volume
    "UNKNOWN": api.Status.UNKNOWN,          # any other combination of vm_state and task_state
    # Nova's words that the table leaves out
    "PAUSED": api.Status.PAUSED,
    "SUSPENDED": api.Status.SUSPENDED,
    "SOFT_DELETED": api.Status.SOFT_DELETED,
}
_CHARGES = {"0": api.POSTPAID, "1": api.PREPAID, "2": api.SPOT}             # metadata.charging_mode

_TASKS = {                                  # OS-EXT-STS:task_state, those that the status does not tell
    "powering-off": api.Status.STOPPING,
    "powering-on": api.Status.STARTING,
    "deleting": api.Status.DELETED,
}

_REFUSED = api.denied("login refused: the key or the token is wrong or expired, the key is locked for five minutes "
                      "after five failures, the account is in arrears or frozen, or this machine's clock is wrong")
_CAUSES = (                                 # what the gateway's messages say of 0301 and 0303
    (r"reach(ed)? the limit|locked", "locked"),
    (r"arrears|overdue", "arrears"),
    (r"frozen|freez|suspend", "frozen"),
    (r"time ?stamp|x-sdk-date|clock|expired time|signature expired", "clock"),
    (r"ak not exist|get secretkey failed", "wrong_key"),
    (r"decrypt token fail|token expires|token expired", "token"),
)

_ERRORS = {                                 # not here: APIGW.0201 and others that come with several HTTP statuses
    **{f"{gateway}.{number}": meaning for gateway in ("APIGW", "APIG") for number, meaning in {
        "0101": api.REGION,                 # no such API at this host
        "0301": _REFUSED,
        "0301.locked": api.LOCKED,          # our words, see _CAUSES
        "0301.wrong_key": api.WRONG_KEY,
        "0301.token": api.WRONG_TOKEN,
        "0301.clock": api.CLOCK,
        "0301.arrears": api.ARREARS,
        "0301.frozen": api.SUSPENDED,
        "0302": api.MISSING_RIGHT,
        "0303": api.WRONG_KEY,
        "0303.clock": api.CLOCK,
        "0304": api.MISSING_RIGHT,
        "0305": api.WRONG_KEY,
        "0306": api.MISSING_RIGHT,
        "0307": api.WRONG_TOKEN,            # the token must be updated
        "0308": api.THROTTLED,
        "0310": api.MISSING_RIGHT,          # the project is unavailable
        "0402": api.ADDRESS,
        "0801": api.REGION,                 # the service is not open in this region
        "0802": api.REGION,                 # the user is not let into this region
    }.items()},
    "Ecs.0000": api.MALFORMED,
    "Ecs.0002": api.FAILED,                 # a system exception, although with HTTP 403
    "Ecs.0003": api.MISSING_RIGHT,          # with HTTP 400: no permission, or the account is in arrears or frozen
    "Ecs.0004": api.FAILED,
    "Ecs.0005": api.MALFORMED,
}


# ---------------------------------------------------------------- the shapes that we read

class _Flavor(msgspec.Struct, gc=False):
    id: str | None = None
    vcpus: api.Count | None = None
    ram: api.Count | None = None


class _Address(msgspec.Struct, gc=False):
    addr: str | None = None
    kind: str | None = msgspec.field(name="OS-EXT-IPS:type", default=None)
    primary: bool | None = None


class _Attached(msgspec.Struct, gc=False):
    id: api.Text


class _Group(msgspec.Struct, gc=False):
    id: str | None = None


class _Image(msgspec.Struct, gc=False):
    id: str | None = None


class _Metadata(msgspec.Struct, gc=False):
    charging_mode: str | None = None
    os_type: str | None = None
    image_name: str | None = None
    vpc_id: str | None = None


class _Server(msgspec.Struct, gc=False):
    id: api.Text
    name: str | None = None
    status: str | None = None
    task: str | None = msgspec.field(name="OS-EXT-STS:task_state", default=None)
    flavor: _Flavor | None = None
    addresses: dict[str, list[_Address]] | None = None
    volumes: list[_Attached] | None = msgspec.field(name="os-extended-volumes:volumes_attached", default=None)
    created: str | None = None
    updated: str | None = None
    zone: str | None = msgspec.field(name="OS-EXT-AZ:availability_zone", default=None)
    enterprise_project_id: api.Strict[str | None] = None
    tags: list[str] | None = None
    image: _Image | Literal[""] | None = None
    metadata: _Metadata | None = None
    security_groups: list[_Group] | None = None
    key_name: str | None = None
    hostId: str | None = None


class _Servers(msgspec.Struct):
    count: api.Count
    servers: list[_Server]


class _Volume(msgspec.Struct, gc=False):
    id: api.Text
    size: api.Count | None = None


class _Volumes(msgspec.Struct):
    count: api.Count
    volumes: list[_Volume]


class _Project(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(pattern=f"^{_PROJECT}$")]
    name: api.Text
    enabled: bool | None = None


class _Projects(msgspec.Struct):
    projects: list[_Project]


class _EnterpriseProjects(msgspec.Struct):
    total_count: api.Count


class _Region(msgspec.Struct):
    id: api.Text
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

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    project = _project_of(client)

    def fetch(number: int, size: int) -> api.Page[_Server]:
        answer = _servers(client, project, number, size)
        rows = client.of_project(answer.servers, lambda row: row.enterprise_project_id, "enterprise project")
        return api.Page([(row.id, row) for row in rows], answer.count)

    def servers() -> api.Rows[_Server]:
        return api.by_page(fetch, window, _PAGE, _WORKERS)

    if window.last is None:
        rows, volumes = client.run_all(servers, lambda: _all_volumes(client, project))
    else:
        rows = servers()
        ids = list(dict.fromkeys(disk.id for row in rows.rows for disk in row.volumes or ()))
        estimate = len(ids) * (rows.total or 0) // max(1, len(rows.rows))       # all disks, if all servers are alike
        if estimate // _DISK_PAGE + 1 < -(-len(ids) // _IDS):
            volumes = _all_volumes(client, project)
        else:
            volumes = client.in_batches(ids, _IDS, lambda batch: _volumes(client, project, batch))
    if window.last is None and client.project is None:
        _complete(client, {row.enterprise_project_id for row in rows.rows})
    sizes = {volume.id: volume.size for volume in volumes}
    return rows.listing(lambda row: _server(row, sizes))


_ALL = "all_granted_eps"
_MAY_BE_CUT = ("the list may be cut: it names 100 enterprise projects, the most that the party lists together; add "
               "the right eps:enterpriseProjects:list, or put an account for each, with --project")
_TOO_MANY = ("more than 100 enterprise projects: the party lists at most 100 of them together; put an account for "
             "each, with --project")


def _complete(client: api.Client, named: Set[str | None]) -> None:
    """Raises PartyDenied if the list may have been cut at so many enterprise projects."""
    if len(named - {None}) != _GRANTED:
        return
    try:
        granted = _granted(client)
    except api.PartyDenied:
        raise api.refused(_MAY_BE_CUT) from None
    if granted > _GRANTED:
        raise api.refused(_TOO_MANY)


def _granted(client: api.Client) -> int:
    """How many enterprise projects the key may see."""
    return _call(client, "ListEnterpriseProjects", {"limit": 1, "offset": 0}, _EnterpriseProjects).total_count


def warn(client: api.Client) -> str:
    try:
        granted = _granted(client) if client.project is None else 0
    except api.PartyError:
        return ""                           # it may not ask: most accounts have a few
    return "" if granted <= _GRANTED else (
        f"This key may see {granted} enterprise projects, and Huawei Cloud lists at most {_GRANTED} of them together. "
        "Put an account for each, with --project.")


def _servers(client: api.Client, project: str, number: int, size: int) -> _Servers:
    return _call(client, "ListServersDetails", {
        "offset": number, "limit": size, "enterprise_project_id": client.project or _ALL,
        "not-tags": "__type_baremetal",     # or else bare metal is listed among the servers
    }, _Servers, project)


def _server(row: _Server, sizes: Mapping[str, int | None]) -> api.Server:
    interfaces = [address for network in (row.addresses or {}).values() for address in network]
    interfaces.sort(key=lambda address: not address.primary)
    flavor, metadata = row.flavor or _Flavor(), row.metadata or _Metadata()
    return api.Server(
        id=row.id,
        name=row.name or "",
        cpu=flavor.vcpus,
        memory_mib=flavor.ram,
        disk_gib=api.disk_gib(0, row.volumes and {disk.id for disk in row.volumes}, sizes),
        **api.addresses(lan=[address.addr for address in interfaces if address.kind != "floating"],
                        wan=[address.addr for address in interfaces if address.kind == "floating"]),
        status=_TASKS.get((row.task or "").strip()) or _STATUS.get((row.status or "").strip(), api.Status.UNKNOWN),
        party_status=row.status or "",
        created_at=api.parse_time(row.created),
        updated_at=api.parse_time(row.updated),
        zone=row.zone or "",
        project_id=row.enterprise_project_id or "",
        instance_type=flavor.id or "",
        tags={key: value for key, _, value in (tag.partition("=") for tag in row.tags or ())},
        image_id=row.image.id if row.image else None,
        image_name=metadata.image_name,
        os=api.os_family(metadata.os_type),
        vpc_id=metadata.vpc_id,
        security_groups=api.groups([None if row.security_groups is None else [
            group.id for group in row.security_groups]]),
        key_name=row.key_name,
        charge_type=_CHARGES.get(metadata.charging_mode or ""),
        host_id=row.hostId,
    )



# ---------------------------------------------------------------- volumes, in any enterprise project

def _volumes(client: api.Client, project: str, ids: Sequence[str]) -> list[_Volume]:
    return _volume_list(client, project, {"ids": "[" + ",".join(f"'{key}'" for key in ids) + "]"}).volumes


def _all_volumes(client: api.Client, project: str) -> list[_Volume]:
    def fetch(offset: int, limit: int) -> api.Page[_Volume]:
        answer = _volume_list(client, project, {"offset": offset, "limit": limit, "sort_key": "id", "sort_dir": "asc"})
        return api.Page([(row.id, row) for row in answer.volumes], answer.count)

    return api.by_offset(fetch, api.WHOLE, _DISK_PAGE, _WORKERS).rows


def _volume_list(client: api.Client, project: str, query: Mapping[str, object]) -> _Volumes:
    return _call(client, "ListVolumes", {**query, "enterprise_project_id": _ALL}, _Volumes, project)


# ---------------------------------------------------------------- projects, regions, check

def _project_of(client: api.Client) -> str:
    """The id of the region's project. Raises UnknownRegion if the key may use none there."""
    if "project_id" in client.credentials:
        return client.credentials["project_id"]
    ids = api.cached_lookup(client.account, ("huaweicloud", client.account.fingerprint), [client.region], lambda _: {
        project.name: project.id for project in _projects(client)})
    if client.region not in ids:
        raise api.UnknownRegion(f"{PARTY.title} has no such region, or no project in it that this account may use.")
    return ids[client.region]


def _projects(client: api.Client) -> list[_Project]:
    """https://support.huaweicloud.com/intl/en-us/api-iam/iam_06_0003.html; that of a region has the region's name."""
    projects = _call(client, "ListAuthProjects", {}, _Projects).projects
    return [project for project in projects if project.enabled is not False]


def list_regions(client: api.Client) -> list[api.Region]:
    """https://support.huaweicloud.com/intl/en-us/api-iam/iam_05_0001.html; open are those with a project of ours."""
    answer, projects = client.run_all(lambda: _call(client, "ListRegions", {}, _Regions), lambda: _projects(client))
    own = client.credentials.get("project_id")
    usable = {project.name.partition("_")[0] for project in projects if own in (None, project.id)}
    return [api.Region(region.id, (region.locales or {}).get("en-us") or "", region.id in usable)
            for region in answer.regions]


def check(client: api.Client) -> None:
    _servers(client, _project_of(client), 1, 1)


# ---------------------------------------------------------------- the call

_URLS = {
    "ListServersDetails": "https://ecs.{region}.{domain}/v1/{project}/cloudservers/detail",
    "ListVolumes": "https://evs.{region}.{domain}/v2/{project}/cloudvolumes/detail",
    "ListAuthProjects": "https://iam.{all}/v3/auth/projects",
    "ListRegions": "https://iam.{all}/v3/regions",
    "ListEnterpriseProjects": "https://eps.{all}/v1.0/enterprise-projects",
}
_SITES = {                                  # domain, that of services for all regions, a region that certainly exists
    "public": ("myhuaweicloud.com", "myhuaweicloud.com", "cn-north-4"),
    "europe": ("myhuaweicloud.eu", "eu-west-101.myhuaweicloud.eu", "eu-west-101"),
}


def _site_of(region: str) -> str:
    return "europe" if re.fullmatch(r"eu-west-1[0-9]{2}", region, re.ASCII) else "public"


def _usual_region(credentials: Mapping[str, str], region: str) -> str:
    return _SITES[_site_of(region) if region else credentials.get("site", "public")][2]


def _call(client: api.Client, operation: str, query: Mapping[str, object], shape: type[_T], project: str = "") -> _T:
    domain, every, _ = _SITES[api.own_site(client, PARTY.title, _site_of)]
    url = client.url(_URLS[operation].format(region=client.region, project=project, domain=domain, all=every))
    if query:
        url += f"?{urlencode(sorted(query.items()), quote_via=quote, safe='~')}"
    # not strict: counts may be texts; texts are never counts
    return client.call(operation, lambda: sign(url, project, client.account, time.time()), shape, strict=False)


def sign(url: str, project: str, account: api.Account, now: float) -> api.Request:
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
    return api.Request("GET", url, headers)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def error_code(response: api.Response) -> str | None:
    """`error_code` from the gateway, with what its message says; the services' `error.code`; not with 200."""
    if response.status == 200:
        return None
    answer = api.refusal(response, _Refusal)
    code = answer and (answer.error_code or (answer.error and answer.error.code))
    if answer is None or not isinstance(code, str):
        return None
    text = (answer.error_msg or "")[:1000]
    cause = next((cause for pattern, cause in _CAUSES if re.search(pattern, text, re.IGNORECASE)), "")
    return f"{code}.{cause}" if f"{code}.{cause}" in _ERRORS else code


# https://support.huaweicloud.com/intl/en-us/productdesc-cc/cc_01_0004.html and the tables of endpoints in the API's
# documents; the console's Chinese names
_REGION_NAMES = {
    "cn-north-1": ("CN North-Beijing1", "华北-北京一"), "cn-north-4": ("CN North-Beijing4", "华北-北京四"),
    "cn-north-9": ("CN North-Ulanqab1", "华北-乌兰察布一"), "cn-east-2": ("CN East-Shanghai2", "华东-上海二"),
    "cn-east-3": ("CN East-Shanghai1", "华东-上海一"), "cn-east-5": ("CN East-Qingdao", "华东-青岛"),
    "cn-south-1": ("CN South-Guangzhou", "华南-广州"), "cn-south-2": ("CN South-Shenzhen", "华南-深圳"),
    "cn-south-4": ("CN South-Guangzhou-InvitationOnly", "华南-广州-友好用户环境"),
    "cn-southwest-2": ("CN Southwest-Guiyang1", "西南-贵阳一"), "ap-southeast-1": ("CN-Hong Kong", "中国-香港"),
    "ap-southeast-2": ("AP-Bangkok", "亚太-曼谷"), "ap-southeast-3": ("AP-Singapore", "亚太-新加坡"),
    "ap-southeast-4": ("AP-Jakarta", "亚太-雅加达"), "ap-southeast-5": ("AP-Manila", "亚太-马尼拉"),
    "af-south-1": ("AF-Johannesburg", "非洲-约翰内斯堡"), "af-north-1": ("AF-Cairo", "非洲-开罗"),
    "la-north-2": ("LA-Mexico City2", "拉美-墨西哥城二"), "na-mexico-1": ("LA-Mexico City1", "拉美-墨西哥城一"),
    "sa-brazil-1": ("LA-Sao Paulo1", "拉美-圣保罗一"), "la-south-2": ("LA-Santiago", "拉美-圣地亚哥"),
    "me-east-1": ("ME-Riyadh", "中东-利雅得"), "tr-west-1": ("TR-Istanbul", "土耳其-伊斯坦布尔"),
    "eu-west-101": ("EU-Dublin", "欧洲-都柏林"),
}

PARTY = api.Party(
    name="huaweicloud",
    title="Huawei Cloud ECS",
    reference="https://support.huaweicloud.com/intl/en-us/api-ecs/en-us_topic_0094148850.html",
    order="none documented; numbered pages",
    credentials=(("access_key", "secret_key", "project_id?", "security_token?", "site?"),),
    forms={"project_id": r"[A-Za-z0-9_-]{1,64}", "site": "|".join(_SITES)},
    permissions=("ecs:cloudServers:list", "evs:volumes:list"),
    grade="recorded",
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z]{2}(-[a-z]{2,16}){1,2}-[0-9]{1,3}",
    default_region=_SITES["public"][2],
    usual_region=_usual_region,
    project="an enterprise project's id",
    project_form=r"0|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    limits=api.per_second(200, *_URLS),
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
    warn=warn,
)
