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

The catalogue, as operators write it: an address without a version gets the newest that answers there (v2.1, else v2;
Cinder v3, else v2), one without the project gets it where Cinder before 3.67 needs it. Addresses without a region are
of the one region that the catalogue names, else of `RegionOne`. Rows that cannot be read, of other services or of
other versions, cost nothing. Of several addresses of one host and path the newest version counts; several Novas in a
region are listed together, each server once. `interface` chooses among public, internal and admin addresses.
`auth_url` may end in a version or in /v3/auth/tokens, which is removed.

Fixed addresses that are public (OVH's Ext-Net, Rackspace's PublicNet) count as public, like floating ones. Projects:
--project chooses the project that a user's token is for; an application credential opens the one that it was made in.
`project_name`, or a `project_id` without an id's form beside a `project_domain`, is a project's name; its domain is
the user's if none is given. Domains: `default` and 32 hex digits are ids, other words names. All projects of a user
can be discovered: one password check gives a token without a scope, which lists them and opens each. Keystone refuses
a disabled project, one without a role and a token that has ended with the same 401, so that its list decides and the
password is never tried for a project. An application credential lists projects but opens only its own. Soft-deleted
servers are not in Nova's list. Rates: none in Nova; careful ones here.
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
_GUARDED = 69                               # minor version from which unreachable cells are listed
_FRESH = timedelta(seconds=5)
_INTERFACES = ("public", "internal", "admin")
_VERSION = re.compile(r"v([0-9]{1,2})(?:\.([0-9]{1,2}))?", re.ASCII)        # as a part of a path
_AFTER_KEYSTONE = re.compile(r"(/v[0-9](\.[0-9])?(/auth)?(/tokens)?|/auth/tokens)?/*$", re.ASCII)
_ELSEWHERE = (300, 301, 302, 303, 307, 308, 404, 405, 410)      # answers of what is not the API, or not this version
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
    (r"resource could not be found", "no_path"),                # not of a credential: of the path itself
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
    "NotFound.no_path": api.MALFORMED,
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
    key_name: str | None = None
    hostId: str | None = None               # a hash of project and host
    host: str | None = msgspec.field(name="OS-EXT-SRV-ATTR:hypervisor_hostname", default=None)     # for administrators


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
    """Any row may be broken: one that cannot be read is passed over, and so is one without an address."""

    url: str = ""
    interface: str = ""
    region_id: str | None = None
    region: str | None = None


class _Entry(msgspec.Struct):
    type: str = ""
    endpoints: list[msgspec.Raw] | None = None


class _Project(msgspec.Struct):
    id: api.Text


class _Token(msgspec.Struct):
    expires_at: api.Text
    project: api.Strict[_Project | None] = None
    catalog: api.Strict[list[msgspec.Raw] | None] = None


class _Unscoped(msgspec.Struct):
    expires_at: api.Text


class _SignedInWithout(msgspec.Struct):
    token: _Unscoped


class _Listed(msgspec.Struct):
    id: api.Text
    enabled: bool
    name: str | None = None
    parent_id: api.Strict[str | None] = None


class _Links(msgspec.Struct):
    next: api.Strict[str | None] = None


class _Projects(msgspec.Struct):
    projects: list[_Listed]
    links: api.Strict[_Links] = msgspec.field(default_factory=_Links)


class _SignedIn(msgspec.Struct):
    token: _Token


class _Fault(msgspec.Struct):
    title: str | None = None
    message: str | None = None


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    project = _signed_in(client, lambda session: session.project)
    novas = _novas(client)
    if window.last is None and window.first == 1:
        rows, sizes = client.run_all(lambda: _rows(client, novas, window, project), lambda: _volumes(client, None))
    else:
        rows = _rows(client, novas, window, project)
        attached = {volume.id for row, _ in rows.rows for volume in row.volumes or ()}
        sizes = _volumes(client, attached) if attached else {}
    return rows.listing(lambda row: _server(*row, sizes))


def _rows(client: api.Client, novas: Sequence["_Nova"], window: api.Window, project: str,
          ) -> api.Rows[tuple[_Server, Mapping[str, _Flavor]]]:
    """The servers of the window, each with the flavors that its Nova lists. Several Novas are read whole; a server that
    two of them list counts once."""
    if len(novas) == 1:
        part = _rows_of(novas[0], window, project)
        flavors = _flavors_of(novas[0], part.rows, project)
        return api.Rows([(row, flavors) for row in part.rows], part.total)
    every = dict[str, tuple[_Server, Mapping[str, _Flavor]]]()
    for nova, part in zip(novas, client.for_each(novas, lambda nova: _rows_of(nova, api.WHOLE, project)), strict=True):
        flavors = _flavors_of(nova, part.rows, project)
        for row in part.rows:
            every.setdefault(row.id, (row, flavors))
    ordered = sorted(every.values(), key=lambda pair: (pair[0].created or "", pair[0].id))
    return api.Rows(api.cut(ordered, window), len(ordered))


def _flavors_of(nova: "_Nova", rows: Sequence[_Server], project: str) -> Mapping[str, _Flavor]:
    """By id, those of rows that do not hold their flavor themselves."""
    without = {row.flavor.id for row in rows if row.flavor and row.flavor.vcpus is None and row.flavor.id}
    if not without:
        return {}
    catalogue = "openstack", nova.client.credentials["auth_url"], nova.client.region, project, nova.address
    return api.cached_lookup(nova.client.account, catalogue, sorted(without), lambda _: _flavors(nova))


def _rows_of(nova: "_Nova", window: api.Window, project: str) -> api.Rows[_Server]:
    """The servers of the window. A short page is believed to be the last one if the guard knows of no others."""
    rows, ids, minor = _walk(nova, window, project, to_an_empty_page=False)
    if minor < _GUARDED or len(ids) >= _MOST:
        return rows
    every = _guard(nova)
    if rows.total is None:
        total = None if every is None or window.last is None or len(every) <= window.last else len(every)
        return api.Rows(rows.rows, total)
    if every is None or every <= ids:
        return rows if every is not None else _walk(nova, window, project, to_an_empty_page=True)[0]
    again, ids, _ = _walk(nova, window, project, to_an_empty_page=True)
    if not every <= ids and not every & (_guard(nova) or set()) <= ids:       # it did not go meanwhile
        raise api.PartyMalformed("The party names servers that its detailed list does not give, also after a second "
                             "listing.")
    return again


def _walk(nova: "_Nova", window: api.Window, project: str, to_an_empty_page: bool,
          ) -> tuple[api.Rows[_Server], set[str], int]:
    """The rows, the ids of all that were passed, and the minor version of Nova's answers (0: not given)."""
    ids: set[str] = set()
    minor = 0

    def fetch(marker: str | None) -> api.Page[_Server | None]:
        nonlocal minor
        if marker is None:
            ids.clear()
        skips = window.first > _SKIP and len(ids) < window.first - 1
        end = window.first - 1 if skips else window.last and window.last + 1     # one more: to see whether more follow
        limit = _PAGE if end is None else min(_PAGE, end - len(ids))
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
        ids.update(row.id for row in rows)
        sure = minor >= _GUARDED and len(ids) < _MOST and not to_an_empty_page
        more = len(rows) >= limit or any(link.rel == "next" for link in page.links) or not sure
        return api.Page([(row.id, None if skips else row) for row in rows],
                        token=rows[-1].id if rows and more else None)

    walked = api.by_token(fetch, window)
    return api.Rows([row for row in walked.rows if row is not None], walked.total), ids, minor


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
        image_id=row.image.id if isinstance(row.image, _Image) else None,
        key_name=row.key_name,
        host_id=row.host or row.hostId,
    )


def _disk(row: _Server, flavor: _Flavor, sizes: Mapping[str, int | None]) -> int | None:
    """Local disks by the flavor, and volumes; None as soon as one of them is not known."""
    root = 0 if row.image == "" else flavor.disk or None        # 0: as large as the image
    ephemeral = flavor.ephemeral if flavor.ephemeral is not None else flavor.listed_ephemeral
    volumes = None if row.volumes is None else [volume.id for volume in row.volumes]
    return api.disk_gib(api.total_gib((None if row.image is None else root, ephemeral)), volumes, sizes)


def _is_public(address: _Address) -> bool:
    try:
        return address.type == "floating" or ip_address(api.address_in(address.addr or "")).is_global
    except ValueError:
        return False


# ---------------------------------------------------------------- volumes and flavors

def _volumes(client: api.Client, wanted: set[str] | None) -> dict[str, int | None]:
    """Sizes by id, oldest volume first: until all that are wanted are found (None: all), or to the list's end. None
    at all in a cloud without volumes."""
    sizes: dict[str, int | None] = {}
    addresses = _addresses(client, _CINDER)

    def fetch(address: str, marker: str | None) -> api.Page[None]:
        query = {"limit": str(_PAGE), "sort": "created_at:asc", **api.given(marker=marker)}
        response = _call(client, "ListVolumesDetailed", _CINDER, address, "/volumes/detail", query)
        page = api.read(response, _Volumes)
        sizes.update((volume.id, volume.size) for volume in page.volumes)
        done = wanted is not None and wanted <= sizes.keys()
        more = page.volumes and not done and (page.links or len(page.volumes) >= _PAGE)
        return api.Page([(volume.id, None) for volume in page.volumes], token=page.volumes[-1].id if more else None)

    for address in addresses:
        api.by_token(lambda marker, address=address: fetch(address, marker))
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
    session = _signed_in(client, lambda session: session)
    novas = [row for row in session.rows if row.kind in _NOVA.kinds]
    names = {row.region or session.home for row in novas if row.interface == _interface(client)}
    if novas and not names:
        raise _other_interface(novas)
    return [api.Region(region) for region in sorted(names)]


def check(client: api.Client) -> None:
    for nova in _novas(client):
        api.read(nova("ListServers", "/servers", {"limit": "1"}), _Servers)


# ---------------------------------------------------------------- the login

@dataclass(frozen=True, slots=True)
class _Row:
    """An address in a catalogue. `region`: "" if it has none."""

    kind: str
    interface: str
    region: str
    url: str


@dataclass(frozen=True, slots=True)
class _Session:
    """A token, the project that it is for, its catalogue's rows of Nova and Cinder, and the region of those without.

    `versions`: by an address without a version, the path of the version that answered there.
    """

    token: str = field(repr=False)
    project: str
    rows: Sequence[_Row]
    home: str
    versions: dict[str, str] = field(default_factory=dict[str, str])


def _signed_in(client: api.Client, use: Callable[[_Session], _T]) -> _T:
    if client.member is not None:
        return client.with_session("member", lambda: _open(client, client.member or ""), use)
    return client.with_session(f"project {client.project or ''}", lambda: _sign_in(client), use)


def _sign_in(client: api.Client) -> tuple[float, _Session]:
    if "password" in client.credentials and not _scope(client):
        raise api.refused("no project: name one in project_id or project_name, or discover all of the user's")
    session = _session(_token(client, "Login", _identity(client)))
    project = client.project or _scope(client).get("id")
    if project is not None and project != session[1].project:
        raise api.PartyDenied("These credentials open another project than the account's.",
                          hint="an application credential opens only the project that it was made in")
    return session


def _token(client: api.Client, operation: str, auth: Mapping[str, object]) -> api.Response:
    """https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management"""
    body = msgspec.json.encode({"auth": auth})
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    try:
        response = client.send(operation, lambda: api.Request("POST", _keystone(client, "tokens"), headers, body))
    except (api.PartyDenied, api.PartyMalformed) as refused:
        unknown = refused.party_code == "NotFound" and "application_credential_id" in client.credentials
        if refused.http_status not in _ELSEWHERE or unknown:
            raise
        raise _not_keystone(refused.http_status) from None
    if response.status != 201:
        raise _not_keystone(response.status)
    return response


def _not_keystone(status: int | None) -> api.PartyMalformed:
    return api.PartyMalformed(
        f"The auth_url does not lead to Keystone v3: it gave {status} in place of a token. Give Keystone's own address "
        "with its path, such as https://HOST:5000/v3 or https://HOST/identity/v3.", http_status=status)


def _keystone(client: api.Client, what: str) -> str:
    return client.url(f"{_AFTER_KEYSTONE.sub('', client.credentials['auth_url'])}/v3/auth/{what}")


def _text_and_end(response: api.Response, expires_at: str) -> tuple[str, float]:
    text, ends = response.headers.get("x-subject-token", ""), api.parse_time(expires_at)
    if ends is None or not re.fullmatch(r"[!-~]+", text, re.ASCII):
        raise api.PartyMalformed()
    return text, ends.timestamp()


def _session(response: api.Response) -> tuple[float, _Session]:
    made = api.read(response, _SignedIn).token
    text, ends = _text_and_end(response, made.expires_at)
    if made.project is None and made.catalog is None:
        raise api.refused("missing right: the user has no role on the project, so the token has no project and no "
                          "catalogue; grant the role reader")
    if made.project is None or made.catalog is None:
        raise api.PartyMalformed("The party gave a token without a project or without a catalogue.")
    rows = [row for raw in made.catalog if (entry := api.part(raw, _Entry)) for row in _endpoints(entry)]
    named = {row.region for row in rows} - {""}
    return ends, _Session(text, made.project.id, [row for row in rows if row.kind in _OURS],
                          named.pop() if len(named) == 1 else PARTY.default_region)


def _endpoints(entry: _Entry) -> list[_Row]:
    endpoints = [endpoint for raw in entry.endpoints or () if (endpoint := api.part(raw, _Endpoint))]
    return [_Row(entry.type, endpoint.interface.lower().removesuffix("url"),
                 endpoint.region_id or endpoint.region or "", endpoint.url) for endpoint in endpoints if endpoint.url]


# ---------------------------------------------------------------- all projects of a user

def discover(client: api.Client) -> list[api.Member]:
    """The projects on which the user has a role; below a parent, as far as the list itself leads there."""
    rows, own = _projects(client), _scope(client).get("id")
    if client.below is not None:
        rows = _below(rows, client.below)
    if not rows:
        raise api.refused("missing right: the user has a role on no project" + (
            "" if client.below is None else " below this one"))
    return [api.Member(id=row.id, name=row.name or "", closed="" if row.enabled else "disabled", door=row.id == own)
            for row in rows]


def _below(rows: Sequence[_Listed], parent: str) -> list[_Listed]:
    projects: dict[str, _Listed] = {}
    level = {parent}
    while level:
        children = {row.id: row for row in rows if row.parent_id in level and row.id not in projects}
        projects |= children
        level = set(children)
    return list(projects.values())


def _projects(client: api.Client) -> list[_Listed]:
    """https://docs.openstack.org/api-ref/identity/v3/#get-available-project-scopes (it has no pages)"""
    def get(token: str) -> _Projects:
        headers = {"X-Auth-Token": token, "Accept": "application/json"}
        return client.call("ListProjects", lambda: api.Request("GET", _keystone(client, "projects"), headers),
                           _Projects)

    answer = _unscoped(client, get)
    if answer.links.next:
        raise api.PartyMalformed("The party's list of projects has another page, which is in no document.")
    return answer.projects


def _unscoped(client: api.Client, use: Callable[[str], _T]) -> _T:
    """`use` with the token of no project, for which the password is checked once, whatever is done with it."""
    def sign_in() -> tuple[float, str]:
        response = _token(client, "Login", {**_identity(client), "scope": "unscoped"})
        text, ends = _text_and_end(response, api.read(response, _SignedInWithout).token.expires_at)
        return ends, text

    if "password" not in client.credentials:
        raise api.refused("application credential: it opens only the project that it was made in; to discover "
                          "projects, use a user's name and password")
    return client.door.with_session("unscoped", sign_in, use)


def _open(client: api.Client, project: str) -> tuple[float, _Session]:
    """A token for a project, by the token of none. A 401 can mean that this one has ended: the list of projects renews
    it then, and tells whether the project is at fault."""
    tried: set[str] = set()
    while (token := _unscoped(client, lambda token: token)) not in tried and len(tried) < 2:
        tried.add(token)
        try:
            ends, session = _session(_token(client, "GetToken", {
                "identity": {"methods": ["token"], "token": {"id": token}}, "scope": {"project": {"id": project}}}))
        except api.PartyDenied as refused:
            if refused.http_status != 401:
                raise
            if not any(row.id == project and row.enabled for row in _projects(client.door)):
                break
            continue
        if session.project != project:
            raise api.PartyMalformed("The party gave a token for another project than was asked for.")
        return ends, session
    raise api.refused("missing right: the project is disabled, or the user has no role on it")


def _identity(client: api.Client) -> dict[str, object]:
    credentials = client.credentials
    if "application_credential_id" in credentials:
        return {"identity": {"methods": ["application_credential"], "application_credential": {
            "id": credentials["application_credential_id"], "secret": credentials["application_credential_secret"]}}}
    user = {"name": credentials["username"], "domain": _domain(credentials.get("user_domain", "default")),
            "password": credentials["password"]}
    return {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": {"project": _scope(client)}}


def _scope(client: api.Client) -> dict[str, object]:
    """The project that a user asks for; nothing for an application credential, which has its own."""
    fields = client.credentials
    if client.project is not None:
        return {"id": client.project}
    key, name = fields.get("project_id"), fields.get("project_name")
    if key and "project_domain" in fields and not _ID.fullmatch(key):
        key, name = None, key
    if name:
        return {"name": name, "domain": _domain(fields.get("project_domain", fields.get("user_domain", "default")))}
    return {"id": key} if key else {}


def _domain(word: str) -> dict[str, str]:
    return {"id": word} if word == "default" or _ID.fullmatch(word) else {"name": word}


_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


# ---------------------------------------------------------------- the call

_ADDRESS = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~:-]+)*/?", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Api:
    """`kinds`: the types under which a catalogue has it, the first that it has counts. `majors`: of versions that we
    read. `versions`: those to try where an address has none, newest first. `scoped`: versions in whose path the project
    stands. `own_region`: one without a region is of one region alone."""

    name: str
    kinds: tuple[str, ...]
    majors: tuple[int, ...]
    versions: tuple[str, ...]
    scoped: tuple[str, ...]
    own_region: bool


_NOVA = _Api("Nova", ("compute",), (2,), ("v2.1", "v2"), ("v2",), True)
_CINDER = _Api("Cinder", ("block-storage", "volumev3", "volumev2", "volume", "block-store"), (3, 2, 1),
                   ("v3", "v2"), ("v3", "v2", "v1"), False)
_OURS = {*_NOVA.kinds, *_CINDER.kinds}


@dataclass(frozen=True, slots=True)
class _Place:
    """An address, and where in its path the version stands. `version`: () if it has none."""

    address: str
    root: str
    version: tuple[int, int] | tuple[()]
    scoped: bool                            # something follows the version: the project

    @classmethod
    def of(cls, address: str) -> "_Place":
        parts = address.rstrip("/").split("/")
        at = next((n for n in range(len(parts) - 1, 2, -1) if _VERSION.fullmatch(parts[n])), len(parts))
        match = _VERSION.fullmatch(parts[at]) if at < len(parts) else None
        version = (int(match[1]), int(match[2] or 0)) if match else ()
        return cls("/".join(parts), "/".join([parts[2].lower(), *parts[3:at]]), version, at < len(parts) - 1)


def _interface(client: api.Client) -> str:
    return client.credentials.get("interface", _INTERFACES[0])


def _other_interface(rows: Sequence[_Row]) -> api.PartyDenied:
    others = ", ".join(name for name in _INTERFACES if any(row.interface == name for row in rows)) or "unknown ones"
    return api.PartyDenied(f"The catalogue has Nova there under other interfaces only: {others}. Set `interface` in "
                           "the credentials.", hint="wrong interface: set it in the credentials")


def _addresses(client: api.Client, service: _Api) -> list[str]:
    """Of the service in the client's region, one for each host and path at which it stands. [] if it has none there.

    Raises PartyDenied if it is there under another interface only, PartyMalformed if no address of it can be used.
    """
    session = _signed_in(client, lambda session: session)
    here = [row for row in session.rows if row.kind in service.kinds and row.region == client.region] or [
        row for row in session.rows if row.kind in service.kinds and not row.region
        and (client.region == session.home or not service.own_region)]
    chosen = [row for row in here if row.interface == _interface(client)]
    if here and not chosen and service is _NOVA:
        raise _other_interface(here)
    for kind in service.kinds:
        rows = [row for row in chosen if row.kind == kind]
        usable = [_Place.of(url) for row in rows if _ADDRESS.fullmatch(url := client.url(row.url))]
        places = dict[str, _Place]()
        for place in usable:
            if not place.version or place.version[0] in service.majors:
                places[place.root] = max(places.get(place.root, place), place, key=_preferred)
        if places:
            return [places[root].address for root in sorted(places)]
    if chosen and service is _NOVA:
        raise api.PartyMalformed("The catalogue names no address of Nova that can be used: it is not a URL, or of a "
                             "version before 2.")
    return []


def _preferred(place: _Place) -> tuple[bool, tuple[int, ...]]:
    return place.address.startswith("https:"), place.version or (2,)


def _call(client: api.Client, operation: str, service: _Api, address: str, path: str, query: Mapping[str, str],
          headers: Mapping[str, str] = {}) -> api.Response:
    """The answer of the service at an address of the catalogue; where that has no version, of the newest there."""
    def get(session: _Session) -> api.Response:
        paths = _versioned(service, address, session)
        for version in paths:
            url = f"{_checked(client, address)}{version}{path}{'?' * bool(query)}{urlencode(query)}"
            signed = {"X-Auth-Token": session.token, "Accept": "application/json", **headers}
            try:
                response = client.send(operation, lambda url=url, signed=signed: api.Request("GET", url, signed))
            except api.PartyMalformed as refused:
                if refused.http_status not in _ELSEWHERE or len(paths) == 1:
                    raise
            else:
                session.versions[address] = version
                return response
        raise api.PartyMalformed(f"The catalogue's address of {service.name} names no version, and none of "
                                 f"{', '.join(service.versions)} answers there.")

    return _signed_in(client, get)


def _versioned(service: _Api, address: str, session: _Session) -> Sequence[str]:
    """What may follow the address: nothing, the project, or a version, the one that answered before."""
    if address in session.versions:
        return session.versions[address],
    place = _Place.of(address)
    if place.version:
        scoped = place.scoped or f"v{place.version[0]}" not in service.scoped
        return "" if scoped or place.version[1] else f"/{session.project}",
    return [f"/{version}" + (f"/{session.project}" if version in service.scoped else "")
            for version in service.versions]


def _checked(client: api.Client, address: str) -> str:
    """Where the token goes: by https, or in plain text to nowhere but the Keystone that gave it (on loopback)."""
    login, there = urlsplit(client.url(client.credentials["auth_url"])), urlsplit(address)
    if there.scheme != "https" and not client.account.route.plain and not (
            login.scheme == "http" and there.hostname == login.hostname):
        raise api.PartyMalformed("The catalogue names an address that is not https. To allow plain http for this "
                                 "account, put it with `--allow-http`.")
    return address


@dataclass(frozen=True, slots=True)
class _Nova:
    """Asks a Nova in the newest version that both know; one that it refused is not tried again."""

    client: api.Client
    address: str
    versions: list[str]

    def __call__(self, operation: str, path: str, query: Mapping[str, str]) -> api.Response:
        while True:
            version = self.versions[0]
            headers = {"X-OpenStack-Nova-API-Version": version, "OpenStack-API-Version": f"compute {version}"}
            try:
                return _call(self.client, operation, _NOVA, self.address, path, query, headers)
            except api.PartyMalformed as refused:
                if refused.http_status != 406 or len(self.versions) == 1:
                    raise
                self.versions.pop(0)


def _novas(client: api.Client) -> list[_Nova]:
    """All of the client's region. Raises UnknownRegion if it has none."""
    novas = [_Nova(client, address, list(_VERSIONS)) for address in _addresses(client, _NOVA)]
    if not novas:
        raise api.UnknownRegion(f"{PARTY.title}: the project's catalogue has no Nova in such a region.")
    return novas


def _minor(response: api.Response) -> int:
    """Of the version in effect; 0 where there is none: a proxy took it away, or a Nova before versions."""
    version = re.search(r"(?:^|compute )2\.([0-9]{1,4})$", response.headers.get("openstack-api-version", "")
                        or response.headers.get("x-openstack-nova-api-version", ""), re.ASCII)
    return int(version[1]) if version else 0


_read_faults = msgspec.json.Decoder(dict[str, _Fault]).decode


def error_code(response: api.Response) -> str | None:
    """Keystone: `{"error": {"title"}}`; Nova and Cinder: the one key of the body. A 401 with what its message says."""
    if response.status < 400:
        return None
    try:
        word, fault = next(iter(_read_faults(response.body).items()))
    except (ValueError, StopIteration, RecursionError):
        return None
    word = (fault.title or word).replace(" ", "")
    title = {"unauthorized": "Unauthorized", "notfound": "NotFound"}.get(word.lower())
    text = (fault.message or "")[:1000] if title else ""
    cause = next((cause for pattern, cause in _CAUSES if re.search(pattern, text, re.IGNORECASE)), "")
    return f"{title}.{cause}" if cause else word


def examine(credentials: Mapping[str, str]) -> None:
    if credentials.get("interface", "public") not in _INTERFACES:
        raise api.InvalidParameter("credentials", f"The field interface must be one of {', '.join(_INTERFACES)}.")
    if "project_id" in credentials and "project_name" in credentials:
        raise api.InvalidParameter("credentials", "Give project_id or project_name, not both.")


def own_file(text: str, name: str | None) -> api.OwnFile:
    """A cloud of a clouds.yaml. Its reader is imported only when the command has such a file."""
    from . import clouds_yaml

    return clouds_yaml.read(text, name)


_PRINTABLE = r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+"             # Keystone sets no bounds to names and passwords

PARTY = api.Party(
    name="openstack",
    title="OpenStack",
    reference="https://docs.openstack.org/api-ref/compute/#list-servers-detailed",
    order="by creation, requested; a marker that names a row",
    credentials=(("auth_url", "username", "password", "project_id?", "project_name?", "user_domain?", "project_domain?",
                  "interface?"),
                 ("auth_url", "application_credential_id", "application_credential_secret", "interface?")),
    forms=dict.fromkeys(("username", "password", "user_domain", "project_domain", "project_id", "project_name",
                         "application_credential_secret"), _PRINTABLE),
    addresses=("auth_url",),
    examine=examine,
    own_file=own_file,
    permissions=("reader",),
    grade="real software",
    region_form=api.IDENTIFIER,
    discover=discover,
    discover_permissions=("reader",),
    below="the project whose projects are meant",
    below_form=r"[A-Za-z0-9_-]{1,64}",
    shared_limits=frozenset(("Login", "GetToken", "ListProjects")),
    default_region="RegionOne",
    project="the id of a project in which the user has a role",
    project_form=r"[A-Za-z0-9_-]{1,64}",
    regional_limits=True,
    limits={**api.per_second(5, "Login"), **api.per_second(
        10, "GetToken", "ListProjects", "ListServersDetailed", "ListServers", "ListFlavorsDetailed",
        "ListVolumesDetailed")},
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
