"""OpenStack: Keystone v3 for the token and the catalogue, Nova v2.1 `GET /servers/detail`, Cinder v3 for volumes.

https://docs.openstack.org/api-ref/compute/#list-servers-detailed, /identity/v3/ (login), /block-storage/v3/ (volumes)
Whoever speaks these answers here: OVHcloud, Rackspace Flex and private clouds among them.

Units: flavors in MiB and GiB, volumes GiB. Times: UTC with `Z`. Paging: the id of the last row as marker, `limit` cut
silently at the cloud's own maximum (1000 by default), no total. Order: one sort_key, created_at; Nova breaks ties.
The address in `servers_links` is never followed (it loses sort keys and may name another host), it only tells of more.

Trap 1, unreachable cells: a Nova that cannot read one of its databases leaves its servers out and says 200; with one
cell that is an empty list. From version 2.69 `GET /servers` without any parameter names such servers (id and
`UNKNOWN`), so that one more call guards each listing: they are then party_unavailable. It also shows that a short page
was the last one (a page can be a row short of its limit and have no link although more follow), and the total. Older
clouds cannot tell of cells, nor does any of a project with a thousand servers or more beside the lost ones; there an
empty page ends the walk.
Trap 2, `updated` of a server that Nova never changed is the time of the request: what is not older than the answer's
own Date by more than it took and 5 s is unknown.
Trap 3, a server booted from a volume (image "") has no disk of its flavor's `disk`, but of its `ephemeral`. A flavor
with disk 0 and an image makes a disk as large as the image: not known here. Swap does not count as disk.

Versions: 2.69; 2.47 (Pike) is the first with the flavor's numbers in the row; before that flavors are listed, once, and
those deleted since are not known. A window that starts far in skips there by ids alone, a tenth of the time.
Calls: N/1000 pages, the guard, and Cinder's volumes (side by side; for a window only until its own are found).

Fixed addresses that are public (OVH's Ext-Net, Rackspace's PublicNet) count as public, like floating ones. Projects:
--project chooses the project that a user's token is for; an application credential opens the one that it was made in.
`project_id` is a project's name if `project_domain` is given and it has no id's form. Domains: `default` and 32 hex
digits are ids, other words names. Soft-deleted servers are not in Nova's list. Rates: none in Nova; careful ones here.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Literal, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from ...cloud import api

_PAGE = 1000                                # what Nova and Cinder give at most, if left as they come
_MOST = 1000                                # servers beside which Nova names no lost ones
_SKIP = 100                                 # positions from which skipping by ids is quicker than reading on
_VERSIONS = ("2.69", "2.47", "2.1")         # newest first; 406: the cloud is older
_GUARDED = 69                               # minor version from which unreachable cells are told of
_FRESH = timedelta(seconds=5)
_COMPUTE = ("compute",)
_VOLUME = ("block-storage", "volumev3", "volumev2", "volume")
_T = TypeVar("_T")

_STATUS = {                                 # Nova's own words are the project's, but for these
    "PASSWORD": api.Status.ACTIVE,          # runs while its password is set
    "REVERT_RESIZE": api.Status.RESIZE,
    **{word: api.Status[word] for word in (
        "ACTIVE", "BUILD", "DELETED", "ERROR", "HARD_REBOOT", "MIGRATING", "PAUSED", "REBOOT", "REBUILD", "RESCUE",
        "RESIZE", "SHELVED", "SHELVED_OFFLOADED", "SHUTOFF", "SOFT_DELETED", "SUSPENDED", "VERIFY_RESIZE")},
}
_TASKS = {                                  # (status, task_state) that say more than the status
    ("ACTIVE", "powering-off"): api.Status.STOPPING,
    ("SHUTOFF", "powering-on"): api.Status.STARTING,
}
_ENDING = {"deleting": api.Status.DELETED, "soft-deleting": api.Status.SOFT_DELETED}    # whatever the status

_DISABLED_PROJECT = api.denied("disabled: the project or its domain is disabled; have it enabled")
_EXPIRED_PASSWORD = api.denied("expired key: the password has ended; set a new one")
_NO_ROLE = api.denied("missing right: the user has no role on this project")
_CAUSES = (                                 # what Keystone's messages say
    (r"password.{0,80}expired", "password_expired"),
    (r"account is locked", "account_locked"),
    (r"(project|tenant|domain) is disabled", "disabled_project"),
    (r"(user|account)( \S{1,80})? (is|has been) disabled", "disabled_user"),
    (r"has no access to (project|domain|tenant)", "no_role"),
    (r"additional auth(entication)? (methods?|steps?)|receipt", "mfa"),
)

_ERRORS = {                                 # Keystone's title, Nova's and Cinder's key; others by their HTTP status
    "Unauthorized": api.WRONG_KEY,
    "unauthorized": api.WRONG_KEY,
    "NotFound": api.WRONG_KEY,              # Keystone's answer to the id of an application credential that is not there
    "Unauthorized.disabled_user": api.DISABLED_KEY,         # our words, see _CAUSES
    "Unauthorized.disabled_project": _DISABLED_PROJECT,
    "Unauthorized.password_expired": _EXPIRED_PASSWORD,
    "Unauthorized.account_locked": api.LOCKED,
    "Unauthorized.no_role": _NO_ROLE,
    "Unauthorized.mfa": api.MFA,
    "Forbidden": api.MISSING_RIGHT,
    "forbidden": api.MISSING_RIGHT,
    "overLimit": api.THROTTLED,
    "badRequest": api.MALFORMED,
    "itemNotFound": api.MALFORMED,
}


# ---------------------------------------------------------------- the shapes that we read

class _Address(msgspec.Struct, gc=False):
    addr: str | None = None
    type: str | None = msgspec.field(name="OS-EXT-IPS:type", default=None)


class _Flavor(msgspec.Struct, gc=False):
    """In a row: all but `id` from 2.47, `id` alone before. In the list of flavors: `name` and `listed_ephemeral`."""

    id: str | None = None
    name: str | None = None
    original_name: str | None = None
    vcpus: api.Count | None = None
    ram: api.Count | None = None
    disk: api.Count | None = None
    ephemeral: api.Count | None = None
    listed_ephemeral: api.Count | None = msgspec.field(name="OS-FLV-EXT-DATA:ephemeral", default=None)


class _Attached(msgspec.Struct, gc=False):
    id: api.Text


class _Image(msgspec.Struct, gc=False):
    id: api.Text


class _Server(msgspec.Struct, gc=False):
    id: api.Text
    tenant_id: api.Strict[str | None] = None
    name: str | None = None
    status: str | None = None
    task_state: str | None = msgspec.field(name="OS-EXT-STS:task_state", default=None)
    zone: str | None = msgspec.field(name="OS-EXT-AZ:availability_zone", default=None)
    flavor: _Flavor | None = None
    image: _Image | Literal[""] | None = None                   # "": booted from a volume
    volumes: list[_Attached] | None = msgspec.field(name="os-extended-volumes:volumes_attached", default=None)
    addresses: dict[str, list[_Address]] | None = None
    created: str | None = None
    updated: str | None = None
    metadata: dict[str, str] | None = None
    tags: list[str] | None = None


class _Link(msgspec.Struct, gc=False):
    rel: str


class _Servers(msgspec.Struct):
    servers: list[_Server]
    links: api.Strict[list[_Link]] = msgspec.field(name="servers_links", default_factory=list[_Link])


class _Flavors(msgspec.Struct):
    flavors: list[_Flavor]
    links: api.Strict[list[_Link]] = msgspec.field(name="flavors_links", default_factory=list[_Link])


class _Volume(msgspec.Struct, gc=False):
    id: api.Text
    size: api.Count | None = None           # a volume in error may have none


class _Volumes(msgspec.Struct):
    volumes: list[_Volume]
    links: api.Strict[list[_Link]] = msgspec.field(name="volumes_links", default_factory=list[_Link])


class _Endpoint(msgspec.Struct):
    """Rows of services that are not ours may be broken: what has no address is passed over."""

    url: str = ""
    interface: str = ""
    region_id: str | None = None
    region: str | None = None


class _Entry(msgspec.Struct):
    type: str = ""
    endpoints: list[_Endpoint] = []


class _Project(msgspec.Struct):
    id: api.Text


class _Token(msgspec.Struct):
    expires_at: api.Text
    project: _Project
    catalog: list[_Entry]


class _SignedIn(msgspec.Struct):
    token: _Token


class _Fault(msgspec.Struct):
    title: str | None = None
    message: str | None = None


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    project = _signed_in(client, lambda session: session.project)
    nova = _nova(client)
    if window.last is None and window.first == 1:
        rows, sizes = client.run_all(lambda: _rows(nova, window, project), lambda: _volumes(client, None))
    else:
        rows = _rows(nova, window, project)
        attached = {volume.id for row in rows.rows for volume in row.volumes or ()}
        sizes = _volumes(client, attached) if attached else {}
    without = {row.flavor.id for row in rows.rows if row.flavor and row.flavor.vcpus is None and row.flavor.id}
    catalogue = "openstack", client.account.endpoint, client.credentials["auth_url"], client.region, project
    flavors = api.cached_lookup(catalogue, sorted(without), lambda _: _flavors(nova)) if without else {}
    return rows.listing(lambda row: _server(row, flavors, sizes))


def _rows(nova: "_Nova", window: api.Window, project: str) -> api.Rows[_Server]:
    """The servers of the window. A short page is believed to be the last one if the guard knows of no others."""
    rows, seen, minor = _walk(nova, window, project, to_an_empty_page=False)
    if minor < _GUARDED or len(seen) >= _MOST:
        return rows
    every = _guard(nova)
    if rows.total is None:
        total = None if every is None or window.last is None or len(every) <= window.last else len(every)
        return api.Rows(rows.rows, total)
    if every is None or every <= seen:
        return rows if every is not None else _walk(nova, window, project, to_an_empty_page=True)[0]
    again, seen, _ = _walk(nova, window, project, to_an_empty_page=True)
    if not every <= seen and not every & (_guard(nova) or set()) <= seen:       # it did not go meanwhile
        raise api.PartyMalformed("The party names servers that its detailed list does not give, also after a second "
                             "listing.")
    return again


def _walk(nova: "_Nova", window: api.Window, project: str, to_an_empty_page: bool,
          ) -> tuple[api.Rows[_Server], set[str], int]:
    """The rows, the ids of all that were passed, and the minor version of Nova's answers (0: not told)."""
    seen: set[str] = set()
    minor = 0

    def fetch(marker: str | None) -> api.Page[_Server | None]:
        nonlocal minor
        if marker is None:
            seen.clear()
        skips = window.first > _SKIP and len(seen) < window.first - 1
        end = window.first - 1 if skips else window.last and window.last + 1     # one more: to see whether more follow
        limit = _PAGE if end is None else min(_PAGE, end - len(seen))
        query = {"limit": str(limit), "sort_key": "created_at", "sort_dir": "asc", **api.given(marker=marker)}
        sent = time.monotonic()
        response = nova("ListServers", "/servers", query) if skips else nova(
            "ListServersDetailed", "/servers/detail", query)
        took = timedelta(seconds=time.monotonic() - sent)
        page, minor = api.read(response, _Servers), _minor(response)
        rows = page.servers
        if any(row.tenant_id not in (None, project) for row in rows):
            raise api.PartyMalformed("The party listed servers of another project than the account's.")
        _forget_fresh(rows, response, took)
        seen.update(row.id for row in rows)
        sure = minor >= _GUARDED and len(seen) < _MOST and not to_an_empty_page
        more = len(rows) >= limit or any(link.rel == "next" for link in page.links) or not sure
        return api.Page([(row.id, None if skips else row) for row in rows],
                        token=rows[-1].id if rows and more else None)

    walked = api.by_token(fetch, window)
    return api.Rows([row for row in walked.rows if row is not None], walked.total), seen, minor


def _guard(nova: "_Nova") -> set[str] | None:
    """The ids of all servers, None if they are too many for one answer. Raises PartyUnavailable if a cell is lost."""
    page = api.read(nova("ListServers", "/servers", {}), _Servers)
    if any(row.status == "UNKNOWN" for row in page.servers):
        raise api.PartyUnavailable("A cell of this cloud does not answer, its servers are not in the list. "
                               "Retry later.")
    return None if page.links else {row.id for row in page.servers}


def _forget_fresh(rows: Sequence[_Server], response: api.Response, took: timedelta) -> None:
    """`updated` that is the time of the request itself: this server was never changed."""
    try:
        answered = parsedate_to_datetime(response.headers.get("date", "")).astimezone(UTC)
    except ValueError:
        answered = datetime.now(UTC)
    for row in rows:
        updated = api.parse_time(row.updated)
        if updated is not None and updated >= answered - took - _FRESH:
            row.updated = None


def _server(row: _Server, flavors: Mapping[str, _Flavor], sizes: Mapping[str, int | None]) -> api.Server:
    own = row.flavor or _Flavor()
    flavor = own if own.vcpus is not None else flavors.get(own.id or "", own)
    addresses = [address for network in (row.addresses or {}).values() for address in network]
    state, task = PARTY.status_of(row.status), row.task_state or ""
    state["status"] = _ENDING.get(task) or _TASKS.get((state["party_status"].strip(), task)) or state["status"]
    return api.Server(
        id=row.id,
        name=row.name or "",
        cpu=flavor.vcpus,
        memory_mib=flavor.ram,
        disk_gib=_disk(row, flavor, sizes),
        **api.addresses(lan=[address.addr for address in addresses if not _is_public(address)],
                        wan=[address.addr for address in addresses if _is_public(address)]),
        **state,
        created_at=api.parse_time(row.created),
        updated_at=api.parse_time(row.updated),
        zone=row.zone or "",
        project_id=row.tenant_id or "",
        instance_type=flavor.original_name or flavor.name or own.id or "",
        tags={**api.plain(row.tags), **(row.metadata or {})},
    )


def _disk(row: _Server, flavor: _Flavor, sizes: Mapping[str, int | None]) -> int | None:
    """Local disks by the flavor, and volumes; None as soon as one of them is not known."""
    root = 0 if row.image == "" else flavor.disk or None        # 0: as large as the image
    ephemeral = flavor.ephemeral if flavor.ephemeral is not None else flavor.listed_ephemeral
    volumes = None if row.volumes is None else [volume.id for volume in row.volumes]
    return api.disk_gib(api.total_gib((None if row.image is None else root, ephemeral)), volumes, sizes)


def _is_public(address: _Address) -> bool:
    try:
        return address.type == "floating" or ip_address(address.addr or "").is_global
    except ValueError:
        return False


# ---------------------------------------------------------------- volumes and flavors

def _volumes(client: api.Client, wanted: set[str] | None) -> dict[str, int | None]:
    """Sizes by id, oldest volume first: until all that are wanted are found (None: all), or to the list's end."""
    sizes: dict[str, int | None] = {}

    def fetch(marker: str | None) -> api.Page[None]:
        query = {"limit": str(_PAGE), "sort": "created_at:asc", **api.given(marker=marker)}
        response = _call(client, "ListVolumesDetailed", _VOLUME, "/volumes/detail", query)
        if response is None:                # a cloud without volumes
            return api.Page([])
        page = api.read(response, _Volumes)
        sizes.update((volume.id, volume.size) for volume in page.volumes)
        done = wanted is not None and wanted <= sizes.keys()
        more = page.volumes and not done and (page.links or len(page.volumes) >= _PAGE)
        return api.Page([(volume.id, None) for volume in page.volumes], token=page.volumes[-1].id if more else None)

    api.by_token(fetch)
    return sizes


def _flavors(nova: "_Nova") -> dict[str, _Flavor]:
    def fetch(marker: str | None) -> api.Page[_Flavor]:
        query = {"is_public": "None", "limit": str(_PAGE), **api.given(marker=marker)}
        page = api.read(nova("ListFlavorsDetailed", "/flavors/detail", query), _Flavors)
        rows = [(flavor.id or "", flavor) for flavor in page.flavors]
        return api.Page(rows, token=rows[-1][0] if rows and page.links else None)

    return {flavor.id: flavor for flavor in api.by_token(fetch).rows if flavor.id}


# ---------------------------------------------------------------- regions, check

def list_regions(client: api.Client) -> list[api.Region]:
    """Those in which the catalogue of the account's project names a Nova."""
    known = _signed_in(client, lambda session: session.addresses)
    return [api.Region(region) for region in sorted({region for kind, region in known if kind in _COMPUTE})]


def check(client: api.Client) -> None:
    api.read(_nova(client)("ListServers", "/servers", {"limit": "1"}), _Servers)


# ---------------------------------------------------------------- the login

@dataclass(frozen=True, slots=True)
class _Session:
    """A token, the project that it is for, and the public addresses in its catalogue by (type, region)."""

    token: str = field(repr=False)
    project: str
    addresses: Mapping[tuple[str, str], str]


def _signed_in(client: api.Client, use: Callable[[_Session], _T]) -> _T:
    return client.with_session(f"project {client.project or ''}", lambda: _sign_in(client), use)


def _sign_in(client: api.Client) -> tuple[float, _Session]:
    """https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management"""
    url = client.url(f"{client.credentials['auth_url'].rstrip('/').removesuffix('/v3')}/v3/auth/tokens")
    body = msgspec.json.encode({"auth": _identity(client)})
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    response = client.send("Login", lambda: api.Request("POST", url, headers, body))
    made, text = api.read(response, _SignedIn).token, response.headers.get("x-subject-token", "")
    ends = api.parse_time(made.expires_at)
    if ends is None or not re.fullmatch(r"[!-~]+", text, re.ASCII):
        raise api.PartyMalformed()
    project = client.project or _scope(client).get("id")
    if project is not None and project != made.project.id:
        raise api.PartyDenied("These credentials open another project than the account's.",
                          hint="an application credential opens only the project that it was made in")
    return ends.timestamp(), _Session(text, made.project.id, {
        (entry.type, endpoint.region_id or endpoint.region or ""): endpoint.url
        for entry in reversed(made.catalog) for endpoint in reversed(entry.endpoints)      # of several, the first
        if endpoint.interface == "public" and endpoint.url})


def _identity(client: api.Client) -> dict[str, object]:
    given = client.credentials
    if "application_credential_id" in given:
        return {"identity": {"methods": ["application_credential"], "application_credential": {
            "id": given["application_credential_id"], "secret": given["application_credential_secret"]}}}
    user = {"name": given["username"], "domain": _domain(given.get("user_domain", "default")),
            "password": given["password"]}
    return {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": {"project": _scope(client)}}


def _scope(client: api.Client) -> dict[str, object]:
    """The project that a user asks for; nothing for an application credential, which has its own."""
    given = client.credentials
    if client.project is not None or "project_id" not in given:
        return {"id": client.project} if client.project is not None else {}
    if "project_domain" in given and not _ID.fullmatch(given["project_id"]):
        return {"name": given["project_id"], "domain": _domain(given["project_domain"])}
    return {"id": given["project_id"]}


def _domain(word: str) -> dict[str, str]:
    return {"id": word} if word == "default" or _ID.fullmatch(word) else {"name": word}


_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


# ---------------------------------------------------------------- the call

_Nova = Callable[[str, str, Mapping[str, str]], api.Response]
_ADDRESS = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~:-]+)*/?", re.ASCII)


def _call(client: api.Client, operation: str, services: Sequence[str], path: str, query: Mapping[str, str],
          headers: Mapping[str, str] = {}) -> api.Response | None:
    """`services`: the types that the service may have. None: the region has no such service."""
    def get(session: _Session) -> api.Response | None:
        address = next((session.addresses[kind, client.region] for kind in services
                        if (kind, client.region) in session.addresses), None)
        if address is None:
            return None
        url = f"{_checked(client, address)}{path}{'?' * bool(query)}{urlencode(query)}"
        signed = {"X-Auth-Token": session.token, "Accept": "application/json", **headers}
        return client.send(operation, lambda: api.Request("GET", url, signed))

    return _signed_in(client, get)


def _checked(client: api.Client, address: str) -> str:
    """Where the token goes: by https, or in plain text to nowhere but the Keystone that gave it (on loopback)."""
    login, url = urlsplit(client.url(client.credentials["auth_url"])), client.url(address)
    there = urlsplit(url)
    if not _ADDRESS.fullmatch(url) or not (there.scheme == "https" or (
            login.scheme == "http" and there.hostname == login.hostname)):
        raise api.PartyMalformed("The catalogue names an address that is not https.")
    return url.rstrip("/")


def _nova(client: api.Client) -> _Nova:
    """Asks Nova in the newest version that both know; one that it refused is not tried again."""
    versions = list(_VERSIONS)

    def ask(operation: str, path: str, query: Mapping[str, str]) -> api.Response:
        while True:
            headers = {"X-OpenStack-Nova-API-Version": versions[0], "OpenStack-API-Version": f"compute {versions[0]}"}
            try:
                response = _call(client, operation, _COMPUTE, path, query, headers)
            except api.PartyMalformed as refused:
                if refused.http_status != 406 or len(versions) == 1:
                    raise
                versions.pop(0)
                continue
            if response is None:
                raise api.UnknownRegion(f"{PARTY.title}: the project's catalogue has no Nova in such a region.")
            return response

    return ask


def _minor(response: api.Response) -> int:
    """Of the version in effect; 0 where there is none: a proxy took it away, or a Nova before versions."""
    version = re.search(r"(?:^|compute )2\.([0-9]{1,4})$", response.headers.get("openstack-api-version", "")
                        or response.headers.get("x-openstack-nova-api-version", ""), re.ASCII)
    return int(version[1]) if version else 0


def error_code(response: api.Response) -> str | None:
    """Keystone: `{"error": {"title"}}`; Nova and Cinder: the one key of the body. A 401 with what its message says."""
    if response.status < 400:
        return None
    try:
        word, fault = next(iter(msgspec.json.decode(response.body, type=dict[str, _Fault]).items()))
    except (msgspec.DecodeError, StopIteration, RecursionError):
        return None
    word = (fault.title or word).replace(" ", "")
    text = (fault.message or "")[:1000] if word.lower() == "unauthorized" else ""
    cause = next((cause for pattern, cause in _CAUSES if re.search(pattern, text, re.IGNORECASE)), "")
    return f"Unauthorized.{cause}" if cause else word


_PRINTABLE = r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+"             # Keystone sets no bounds to names and passwords

PARTY = api.Party(
    name="openstack",
    title="OpenStack",
    reference="https://docs.openstack.org/api-ref/compute/#list-servers-detailed",
    order="by creation, requested; a marker that names a row",
    credentials=(("auth_url", "username", "password", "project_id", "user_domain?", "project_domain?"),
                 ("auth_url", "application_credential_id", "application_credential_secret")),
    forms=dict.fromkeys(("username", "password", "user_domain", "project_domain", "project_id",
                         "application_credential_secret"), _PRINTABLE),
    addresses=("auth_url",),
    permissions=("reader",),
    grade="real software",
    region_form=api.IDENTIFIER,
    default_region="RegionOne",
    project="the id of a project in which the user has a role",
    project_form=r"[A-Za-z0-9_-]{1,64}",
    limits={**api.per_second(5, "Login"), **api.per_second(
        10, "ListServersDetailed", "ListServers", "ListFlavorsDetailed", "ListVolumesDetailed")},
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
