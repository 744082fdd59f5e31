"""Google Compute Engine: instances.list v1 of every zone of a region, opened with a service account's key.

https://cloud.google.com/compute/docs/reference/rest/v1/instances/list (call),
https://google.aip.dev/auth/4111 (a key signs its own bearer token; no call, and the key's token_uri is never followed)

Units: memory MiB, disks GB, 64-bit numbers as text. Times: RFC 3339 with an offset. Paging: opaque tokens, at most 500
rows, no total; servers stand in the order of their names within a zone, zones in the order of theirs. A window that one
page could hold walks the zones and stops behind it; anything else reads the zones side by side. The region is asked for
its zones each time: it refuses where it does not exist (a list filtered by zone would be empty), and a zone that was
added would be missed. A zone that is down fails the listing, and so does a warning on a page; the aggregated list goes
on without such a zone unless `unreachables` is read, and counts against a smaller quota.

TERMINATED is stopped, not deleted. Disks and addresses stand with the server; answers before 2020 named disks without a
size, which is then not known. What a machine type has is asked once per process, in a zone where it is used; custom
types are in no list, their name says it (e2-custom-micro and its kin: 2 CPUs, unconfirmed). visibleCoreCount times
threadsPerCore wins; one without the other says nothing sure. There is no time of the last update.

The token is narrowed to reading (scope compute.readonly), whatever the account may do. A project that does not exist
answers like a region that does not exist; what the message names tells them apart, and it is never shown. Fields are
those of recorded traffic (2017 to 2026) and of the vendor's model; never run against a real account of ours.

A sovereign cloud is another universe: its keys say so (`universe_domain`), its hosts are below that domain, and its
regions are named u-PLACE-PLACE1. A key's calls go to its universe alone.

Organisations: Resource Manager v3 searches all projects that the account may read (in no order, and a new one may be
missing for a while), or lists those directly below a folder or the organisation, whose folders are then walked. It
wants a token of its own scope, which can only read too. An empty list means that no project may be read: an error. A
project without the Compute Engine API can hold no server, so that one call for each project leaves these out; the
party's word for it is SERVICE_DISABLED. One token opens all projects.
https://cloud.google.com/resource-manager/reference/rest/v3/projects/search

Rates: lists count per project, region and minute, 1,500 by the documents of old; a project's own quota may be another
(https://cloud.google.com/compute/api-quota). Exceeding it is 403 with the reason rateLimitExceeded.
"""

import base64
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlencode

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ...cloud import api

_PAGE = 500                                 # most that maxResults takes
_LIFETIME = 3600                            # seconds; most that a token may live
_SCOPE = "https://www.googleapis.com/auth/compute.readonly"
_MANAGER_SCOPE = "https://www.googleapis.com/auth/cloud-platform.read-only"
_MANAGER = "cloudresourcemanager"
_UNIVERSE = "googleapis.com"
_USUAL = {_UNIVERSE: "us-central1", "s3nsapis.fr": "u-france-east1", "apis-berlin-build0.goog": "u-germany-northeast1"}
_PROJECTS = 500                             # asked for at once; the party gives as many as it likes
_WORKERS = 20
_T = TypeVar("_T")

_STATUS = {                                 # Instance.status, the complete enumeration
    "PENDING": api.Status.BUILD,
    "PROVISIONING": api.Status.BUILD,       # or STARTING, see _server
    "STAGING": api.Status.BUILD,            # the same
    "RUNNING": api.Status.ACTIVE,
    "PENDING_STOP": api.Status.STOPPING,    # the guest shuts down
    "STOPPING": api.Status.STOPPING,
    "STOPPED": api.Status.SHUTOFF,
    "TERMINATED": api.Status.SHUTOFF,       # stopped; can be started again
    "SUSPENDING": api.Status.ACTIVE,        # as Nova says until it is suspended
    "SUSPENDED": api.Status.SUSPENDED,
    "REPAIRING": api.Status.ERROR,          # broken, being repaired
    "DEPROVISIONING": api.Status.DELETED,
}

_KEY = api.denied("wrong key: it is deleted or disabled, or the clock of this machine is wrong")
_DISABLED = api.denied("product not activated: enable the Compute Engine API in the project")
_NO_MANAGER = api.denied("product not activated: enable the Cloud Resource Manager API in the service account's own "
                         "project")
_PROJECT = api.denied("wrong project: there is none of this id, or the service account may not see it")
_DELETED = api.denied("project deleted: it is deleted or about to be")
_BILLING = api.denied("billing: billing is disabled in the project; link it to an open billing account")
_SUSPENDED = api.denied("project suspended: the project is suspended by Google; appeal in its console")
_DISABLED_ACCOUNT = api.denied("disabled: the service account is disabled or deleted; enable it")
_CLOCK = api.denied("clock: the token is not valid at this time; the clock of this machine may be wrong")
_PERIMETER = api.denied("wrong address: VPC Service Controls refuse this call; allow it in the perimeter")
_POLICY = api.denied("organisation policy: a policy of the organisation forbids this call; allow it there")
_CONTRADICTION = api.Meaning(api.PartyMalformed, "the party does not find a part of what it has just named")

_ERRORS = {                                 # a reason of error.details, else of error.errors, else error.status
    "authError": _KEY,
    "required": api.WRONG_KEY,              # no login at all
    "UNAUTHENTICATED": _KEY,
    "CREDENTIALS_MISSING": api.WRONG_KEY,
    "ACCESS_TOKEN_TYPE_UNSUPPORTED": api.WRONG_KEY,
    "CREDENTIAL_TYPE_UNSUPPORTED": api.WRONG_KEY,
    "ACCOUNT_TYPE_UNSUPPORTED": api.WRONG_KEY,
    "JWT_TOKEN_INVALID": _KEY,
    "ACCESS_TOKEN_EXPIRED": _CLOCK,         # it was made a moment ago
    "expired": _CLOCK,
    "ACCOUNT_STATE_INVALID": _DISABLED_ACCOUNT,
    "accountDisabled": _DISABLED_ACCOUNT,
    "accountDeleted": _DISABLED_ACCOUNT,
    "accountUnverified": api.UNVERIFIED,
    "forbidden": api.MISSING_RIGHT,
    "insufficientPermissions": api.MISSING_RIGHT,
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": api.MISSING_RIGHT,
    "IAM_PERMISSION_DENIED": api.MISSING_RIGHT,
    "PERMISSION_DENIED": api.MISSING_RIGHT,
    "accessNotConfigured": _DISABLED,
    "SERVICE_DISABLED": _DISABLED,
    "SERVICE_NOT_VISIBLE": _DISABLED,
    f"accessNotConfigured.{_MANAGER}": _NO_MANAGER,             # our words, see error_code
    f"SERVICE_DISABLED.{_MANAGER}": _NO_MANAGER,
    "BILLING_DISABLED": _BILLING,
    "billingNotEnabled": _BILLING,
    "CONSUMER_SUSPENDED": _SUSPENDED,
    "GCP_SUSPENDED": _SUSPENDED,
    "PROJECT_DELETED": _DELETED,            # our word, see _MESSAGES
    "notFound.project": _PROJECT,
    "CONSUMER_INVALID": _PROJECT,
    "RESOURCE_PROJECT_INVALID": _PROJECT,
    "USER_PROJECT_DENIED": _PROJECT,
    "SECURITY_POLICY_VIOLATED": _PERIMETER,
    "USER_BLOCKED_BY_ADMIN": _POLICY,
    "RESOURCE_USAGE_RESTRICTION_VIOLATED": _POLICY,
    "ENDPOINT_USAGE_RESTRICTION_VIOLATED": _POLICY,
    "ORG_RESTRICTION_VIOLATION": _POLICY,
    "LOCATION_POLICY_VIOLATED": _POLICY,
    "LOCATION_ORG_POLICY_VIOLATED": _POLICY,
    "TLS_ORG_POLICY_VIOLATED": _POLICY,
    "TLS_CIPHER_RESTRICTION_VIOLATED": _POLICY,
    "rateLimitExceeded": api.THROTTLED,     # with 403
    "RATE_LIMIT_EXCEEDED": api.THROTTLED,
    "RESOURCE_QUOTA_EXCEEDED": api.THROTTLED,
    "userRateLimitExceeded": api.THROTTLED,
    "concurrentLimitExceeded": api.THROTTLED,
    "limitExceeded": api.THROTTLED,
    "quotaExceeded": api.THROTTLED,
    "dailyLimitExceeded": api.THROTTLED,
    "RESOURCE_EXHAUSTED": api.THROTTLED,
    "notFound": _CONTRADICTION,             # a zone; of the region itself: see _zones
    "NOT_FOUND": _CONTRADICTION,
    "invalid.region": _CONTRADICTION,
    "invalid": api.MALFORMED,
    "invalidParameter": api.MALFORMED,
    "badRequest": api.MALFORMED,
    "INVALID_ARGUMENT": api.MALFORMED,
    "backendError": api.UNAVAILABLE,
    "UNAVAILABLE": api.UNAVAILABLE,
    "internalError": api.FAILED,
    "INTERNAL": api.FAILED,
}


# ---------------------------------------------------------------- the shapes that we read

_Digits = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}\Z")]


class _Key(msgspec.Struct):
    """The key file of a service account."""

    type: Literal["service_account"]
    client_email: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,100}@[A-Za-z0-9.-]{1,100}\Z")]
    private_key: str
    private_key_id: str | None = None
    project_id: str | None = None           # in which it was made
    universe_domain: Annotated[str, msgspec.Meta(
        pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}\Z", max_length=200)] | None = None


class _Feature(msgspec.Struct, gc=False):
    type: str | None = None


class _Disk(msgspec.Struct, gc=False):
    diskSizeGb: _Digits | None = None
    boot: bool | None = None
    licenses: list[str] | None = None
    guestOsFeatures: list[_Feature] | None = None


class _Nat(msgspec.Struct, gc=False):
    natIP: str | None = None                # absent while stopped, if the address is not reserved


class _Nat6(msgspec.Struct, gc=False):
    externalIpv6: str | None = None


class _Range(msgspec.Struct, gc=False):
    ipCidrRange: str | None = None          # 10.8.0.7/32 is an address of the server, 10.8.0.0/24 one for its pods


class _Interface(msgspec.Struct, gc=False):
    networkIP: str | None = None
    network: str | None = None              # a URL, as is the subnetwork
    subnetwork: str | None = None
    ipv6Address: str | None = None
    accessConfigs: list[_Nat] | None = None
    ipv6AccessConfigs: list[_Nat6] | None = None
    aliasIpRanges: list[_Range] | None = None


class _Scheduling(msgspec.Struct, gc=False):
    provisioningModel: str | None = None
    preemptible: bool | None = None


class _Features(msgspec.Struct, gc=False):
    threadsPerCore: api.Count | None = None
    visibleCoreCount: api.Count | None = None


class _Instance(msgspec.Struct, gc=False):
    id: api.Text
    zone: api.Text
    name: str | None = None
    status: str | None = None
    machineType: str | None = None
    creationTimestamp: str | None = None
    lastStopTimestamp: str | None = None
    labels: dict[str, str] | None = None
    disks: api.Nested = msgspec.UNSET       # unset: an empty list is left out
    networkInterfaces: list[_Interface] | None = None
    advancedMachineFeatures: _Features | None = None
    scheduling: _Scheduling | None = None


class _Warning(msgspec.Struct):
    code: str | None = None


class _Instances(msgspec.Struct):
    kind: Literal["compute#instanceList"]
    items: api.Strict[list[_Instance] | None] = None
    nextPageToken: api.Strict[str | None] = None
    warning: api.Strict[_Warning | None] = None


class _Type(msgspec.Struct, gc=False):
    name: str = ""
    guestCpus: api.Count | None = None
    memoryMb: api.Count | None = None


class _Types(msgspec.Struct):
    kind: Literal["compute#machineTypeList"]
    items: api.Strict[list[_Type] | None] = None
    nextPageToken: api.Strict[str | None] = None
    warning: api.Strict[_Warning | None] = None


class _Zones(msgspec.Struct):
    kind: Literal["compute#region"]
    zones: Annotated[list[str], msgspec.Meta(min_length=1)]


class _Region(msgspec.Struct):
    name: api.Text                          # one whose `status` is DOWN still has its servers


class _Regions(msgspec.Struct):
    kind: Literal["compute#regionList"]
    items: list[_Region]
    nextPageToken: api.Strict[str | None] = None
    warning: api.Strict[_Warning | None] = None


class _Reason(msgspec.Struct):
    reason: str | None = None


class _Error(msgspec.Struct):
    message: str = ""
    status: str | None = None
    errors: list[_Reason] | None = None
    details: list[_Reason] | None = None


class _Refusal(msgspec.Struct):
    error: _Error


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    zones = _zones(client)
    if window.last is not None and window.last < _PAGE:
        instances = _walk(client, zones, window)
    else:
        lists = client.for_each(zones, lambda zone: _walk(client, [zone], api.WHOLE).rows)
        rows = [row for part in lists for row in part]
        instances = api.Rows(api.cut(rows, window), len(rows))
    types = _types(client, instances.rows)
    console = _CONSOLE if _universe(client) == _UNIVERSE else None
    return instances.listing(lambda row: _server(row, types, _project(client), console))


def _zones(client: api.Client) -> list[str]:
    """The names of the region's zones, in order."""
    try:
        answer = _call(client, "GetRegion", f"regions/{client.region}", {"fields": "kind,zones"}, _Zones)
    except api.PartyMalformed as refused:
        if _ERRORS.get(refused.party_code) is _CONTRADICTION:   # of this very region: there is none
            raise api.UnknownRegion(f"{PARTY.title} has no such region.") from None
        raise
    names = sorted(_last(zone) for zone in answer.zones)
    if not all(re.fullmatch(rf"{re.escape(client.region)}-[a-z0-9-]{{1,20}}", name, re.ASCII) for name in names):
        raise api.PartyMalformed("The party named zones that cannot be in this region.")
    return names


_CONSOLE = "https://console.cloud.google.com/compute/instancesDetail"           # of the public universe
_FIELDS = ("kind,nextPageToken,warning/code,items(id,name,status,zone,machineType,creationTimestamp,lastStopTimestamp,"
           "labels,disks(index,diskSizeGb,boot,licenses,guestOsFeatures/type),networkInterfaces(networkIP,ipv6Address,"
           "accessConfigs/natIP,ipv6AccessConfigs/externalIpv6,aliasIpRanges/ipCidrRange,network,"
           "subnetwork),advancedMachineFeatures(threadsPerCore,visibleCoreCount),scheduling(provisioningModel,preemptible))")


def _walk(client: api.Client, zones: Sequence[str], window: api.Window) -> api.Rows[_Instance]:
    """The zones one after the other; a token is a zone's name with the page's own token."""
    size = _PAGE if window.last is None else min(_PAGE, window.last + 1)

    def fetch(token: str | None) -> api.Page[_Instance]:
        zone, _, here = (token or zones[0]).partition(" ")
        query = {"maxResults": str(size), "fields": _FIELDS, **api.given(pageToken=here)}
        answer = _call(client, "ListInstances", f"zones/{zone}/instances", query, _Instances)
        follow = zones[zones.index(zone) + 1:][:1]
        return api.Page([(row.id, row) for row in answer.items or ()],
                        token=f"{zone} {answer.nextPageToken}" if answer.nextPageToken else "".join(follow))

    return api.by_token(fetch, window)


def _server(row: _Instance, types: Mapping[str, _Type], project: str, console: str | None) -> api.Server:
    lan: list[str | None] = []
    wan: list[str | None] = []
    primary = (row.networkInterfaces or [_Interface()])[0]
    for interface in row.networkInterfaces or ():
        lan += [interface.networkIP, interface.ipv6Address]
        lan += [alias.ipCidrRange for alias in interface.aliasIpRanges or ()
                if (alias.ipCidrRange or "").endswith("/32")]
        wan += [nat.natIP for nat in interface.accessConfigs or ()]
        wan += [nat.externalIpv6 for nat in interface.ipv6AccessConfigs or ()]
    kind = _custom(_last(row.machineType)) or types.get(_last(row.machineType))
    state = PARTY.status_of(row.status)
    if state["status"] is api.Status.BUILD and row.lastStopTimestamp:
        state["status"] = api.Status.STARTING   # it has run before: a start passes through the words of a creation
    return api.Server(
        id=row.id,
        name=row.name or "",
        cpu=_cpu(row.advancedMachineFeatures or _Features(), kind),
        memory_mib=kind.memoryMb if kind else None,
        disk_gib=_disk_gib(row.disks),
        **api.addresses(lan, wan),
        **state,
        created_at=api.parse_time(row.creationTimestamp),
        zone=_last(row.zone),
        project_id=project,
        instance_type=_last(row.machineType),
        tags=row.labels or {},
        os=_os(row.disks),
        vpc_id=_last(primary.network),
        subnet_id=_last(primary.subnetwork),
        charge_type=_charge(row.scheduling or _Scheduling()),
        console_url=f"{console}/zones/{_last(row.zone)}/instances/{row.name}?project={project}"
        if console and row.name else None,
    )


def _os(raw: api.Nested) -> str | None:
    """By the licences of the disk that it boots from: debian-cloud/global/licenses/debian-12-bookworm."""
    disks = (None if raw is msgspec.UNSET else api.part(raw, list[_Disk])) or []
    boot = next((disk for disk in disks if disk.boot), _Disk())
    if any(feature.type == "WINDOWS" for feature in boot.guestOsFeatures or ()):
        return "windows"
    return api.first(api.os_family(_last(url)) for url in boot.licenses or ())


def _charge(scheduling: _Scheduling) -> str | None:
    if scheduling.preemptible or scheduling.provisioningModel == "SPOT":
        return api.SPOT
    if scheduling.provisioningModel is None and scheduling.preemptible is False:
        return api.POSTPAID                 # a record from before the models (2022) says it in this way
    return api.POSTPAID if scheduling.provisioningModel == "STANDARD" else None


def _cpu(features: _Features, kind: _Type | None) -> int | None:
    if features.visibleCoreCount and features.threadsPerCore:
        return features.visibleCoreCount * features.threadsPerCore
    if features.visibleCoreCount or features.threadsPerCore == 1:
        return None                         # how many threads a core has is not known
    return kind.guestCpus if kind else None


def _disk_gib(raw: api.Nested) -> int | None:
    disks = [] if raw is msgspec.UNSET else api.part(raw, list[_Disk])
    if disks is None:
        return None
    return api.total_gib(int(disk.diskSizeGb) if disk.diskSizeGb else None for disk in disks)


def _last(url: str | None) -> str:
    return (url or "").rpartition("/")[2]


# ---------------------------------------------------------------- machine types

def _custom(name: str) -> _Type | None:
    """What the name of a custom type says: n2-custom-4-5120, custom-2-4096-ext, e2-custom-small-2048."""
    match = re.fullmatch(r"(?:[a-z0-9]+-)?custom-([0-9]{1,4}|micro|small|medium)-([0-9]{1,8})(?:-ext)?", name, re.ASCII)
    return _Type(name, int(match[1]) if match[1].isdigit() else 2, int(match[2])) if match else None


def _types(client: api.Client, rows: Sequence[_Instance]) -> dict[str, _Type]:
    """A zone lists every type that can be had in it, so one or two zones know them all."""
    used = [(_last(row.zone), _last(row.machineType)) for row in rows if not _custom(_last(row.machineType))]

    def fetch(missing: Sequence[str]) -> dict[str, _Type]:
        types: dict[str, _Type] = {}
        for zone in sorted({zone for zone, name in used if name in missing}):
            if any(at == zone and name in missing and name not in types for at, name in used):
                types |= {kind.name: kind for kind in api.by_token(lambda token, zone=zone: page(zone, token)).rows}
        return types

    def page(zone: str, token: str | None) -> api.Page[_Type]:
        query = {"maxResults": str(_PAGE), "fields": "kind,nextPageToken,warning/code,items(name,guestCpus,memoryMb)",
                 **api.given(pageToken=token)}
        answer = _call(client, "ListMachineTypes", f"zones/{zone}/machineTypes", query, _Types)
        return api.Page([(kind.name, kind) for kind in answer.items or ()], token=answer.nextPageToken)

    return api.cached_lookup(client.account, "gcp", [name for _, name in used], fetch)


# ---------------------------------------------------------------- regions, check

def list_regions(client: api.Client) -> list[api.Region]:
    """https://cloud.google.com/compute/docs/reference/rest/v1/regions/list"""
    def fetch(token: str | None) -> api.Page[api.Region]:
        query = {"fields": "kind,nextPageToken,warning/code,items(name)", **api.given(pageToken=token)}
        answer = _call(client, "ListRegions", "regions", query, _Regions)
        return api.Page([(row.name, api.Region(row.name)) for row in answer.items],
                        token=answer.nextPageToken)

    return api.by_token(fetch).rows


def check(client: api.Client) -> None:
    """Two calls: the region's own right says nothing of the servers'."""
    query = {"maxResults": "1", "fields": _FIELDS}
    _call(client, "ListInstances", f"zones/{_zones(client)[0]}/instances", query, _Instances)


# ---------------------------------------------------------------- the projects of an organisation

class _Listed(msgspec.Struct):
    projectId: api.Text
    state: api.Text
    displayName: str | None = None


class _Projects(msgspec.Struct, forbid_unknown_fields=True):
    """An empty list is left out, so that what else an answer could be must not look like one."""

    projects: api.Strict[list[_Listed]] = []
    nextPageToken: api.Strict[str | None] = None


class _Folder(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(pattern=r"^folders/[0-9]{1,30}\Z")]


class _Folders(msgspec.Struct, forbid_unknown_fields=True):
    folders: api.Strict[list[_Folder]] = []
    nextPageToken: api.Strict[str | None] = None


class _Kind(msgspec.Struct):
    kind: Literal["compute#regionList"]


def discover(client: api.Client) -> list[api.Member]:
    """All projects that the account may read, or those below a folder or the organisation."""
    rows = _search(client) if client.below is None else _below(client, client.below)
    if not rows:
        raise api.refused("missing right: the service account may read no project" + (
            "" if client.below is None else " below this folder or organisation"))
    own = _own_project(client)
    return client.for_each(rows, lambda row: _member(client, row, own), _WORKERS)


def _member(client: api.Client, row: _Listed, own: str | None) -> api.Member:
    closed = row.state if row.state != "ACTIVE" else "" if _has_compute(client, row.projectId) else "SERVICE_DISABLED"
    return api.Member(id=row.projectId, name=row.displayName or "", closed=closed, door=row.projectId == own)


def _has_compute(client: api.Client, project: str) -> bool:
    """False if the project does not have the API. A project that is closed to the account for another reason has it as
    far as is known: its lists say what is wrong."""
    url = f"https://compute.{_universe(client)}/compute/v1/projects/{project}/regions?maxResults=1&fields=kind"
    try:
        _get(client, "GetComputeState", url, _Kind)
    except api.PartyDenied as refused:
        if refused.http_status == 401:      # the token, not the project
            raise
        return _ERRORS.get(refused.party_code) is not _DISABLED
    except api.PartyMalformed as refused:   # the project went meanwhile, or is no member yet
        if _ERRORS.get(refused.party_code) is not _CONTRADICTION:
            raise
    return True


_LISTED = "nextPageToken,projects(projectId,displayName,state)"


def _search(client: api.Client) -> list[_Listed]:
    def fetch(token: str | None) -> api.Page[_Listed]:
        query = {"fields": _LISTED, **api.given(pageToken=token)}
        answer = _manager(client, "SearchProjects", "projects:search", query, _Projects)
        return api.Page([(row.projectId, row) for row in answer.projects], token=answer.nextPageToken)

    return api.by_token(fetch, stable=False).rows


def _below(client: api.Client, top: str) -> list[_Listed]:
    return client.tree(top, lambda parent: _projects(client, parent), lambda parent: _folders(client, parent),
                       (lambda row: row.projectId, lambda row: row.name))


def _projects(client: api.Client, parent: str) -> list[_Listed]:
    def fetch(token: str | None) -> api.Page[_Listed]:
        query = {"parent": parent, "showDeleted": "true", "fields": _LISTED, **api.given(pageToken=token)}
        answer = _manager(client, "ListProjects", "projects", query, _Projects)
        return api.Page([(row.projectId, row) for row in answer.projects], token=answer.nextPageToken)

    return api.by_token(fetch, stable=False).rows


def _folders(client: api.Client, parent: str) -> list[_Folder]:
    def fetch(token: str | None) -> api.Page[_Folder]:
        query = {"parent": parent, "fields": "nextPageToken,folders(name)", **api.given(pageToken=token)}
        answer = _manager(client, "ListFolders", "folders", query, _Folders)
        return api.Page([(row.name, row) for row in answer.folders], token=answer.nextPageToken)

    return api.by_token(fetch, stable=False).rows


def _manager(client: api.Client, operation: str, path: str, query: Mapping[str, str], shape: type[_T]) -> _T:
    query = {"pageSize": str(_PROJECTS), **query}
    url = f"https://{_MANAGER}.{_universe(client)}/v3/{path}?{urlencode(query, safe=',()/')}"
    return _get(client, operation, url, shape, _MANAGER_SCOPE)


# ---------------------------------------------------------------- the call

def _universe(client: api.Client) -> str:
    """The domain of all hosts that this key may be sent to."""
    return _key(client.credentials).universe_domain or _UNIVERSE


def _usual_region(credentials: Mapping[str, str], region: str) -> str:
    return _USUAL.get(_key(credentials).universe_domain or _UNIVERSE) or region or _USUAL[_UNIVERSE]


def _own_project(client: api.Client) -> str | None:
    """The project that the account names, or in which its key was made."""
    return client.credentials.get("project_id") or _key(client.credentials).project_id


def _project(client: api.Client) -> str:
    project = client.member or _own_project(client) or ""
    if not re.fullmatch(_PROJECT_FORM, project, re.ASCII):
        raise api.refused("no project: name one in project_id, or discover all that the service account may read")
    return project


def _call(client: api.Client, operation: str, path: str, query: Mapping[str, str], shape: type[_T]) -> _T:
    url = (f"https://compute.{_universe(client)}/compute/v1/projects/{_project(client)}/{path}"
           f"?{urlencode(query, safe=',()/')}")
    answer = _get(client, operation, url, shape)
    warning: _Warning | None = getattr(answer, "warning", None)
    if warning and warning.code != "NO_RESULTS_ON_PAGE":
        raise api.PartyUnavailable("The party says that its list is not complete. Retry later.")
    return answer


def _get(client: api.Client, operation: str, address: str, shape: type[_T], scope: str = _SCOPE) -> _T:
    """By the account's token, which is the same for all projects behind it."""
    url = client.url(address)
    return client.door.with_session(scope, lambda: _token(client, scope), lambda token: client.call(
        operation, lambda: api.Request("GET", url, {
            "Authorization": f"Bearer {token}", "User-Agent": "twocloud (gzip)"}), shape))  # or else it sends no gzip


def _token(client: api.Client, scope: str) -> tuple[float, str]:
    now = int(time.time())
    return now + _LIFETIME, sign(_key(client.credentials), now, scope)


def sign(key: _Key, now: int, scope: str = _SCOPE) -> str:
    """A JSON web token by RS256, read-only. `now`: Unix time."""
    header = {"typ": "JWT", "alg": "RS256", **({"kid": key.private_key_id} if key.private_key_id else {})}
    claims = {"iss": key.client_email, "sub": key.client_email, "iat": now, "exp": now + _LIFETIME, "scope": scope}
    text = b".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
    return b".".join((text, _base64(_rsa(key).sign(text, PKCS1v15(), SHA256())))).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _key(credentials: Mapping[str, str]) -> _Key:
    return _read_key(credentials["service_account"])


_read_key = msgspec.json.Decoder(_Key).decode


def _rsa(key: _Key) -> RSAPrivateKey:
    """Raises ValueError if it is none."""
    loaded = load_pem_private_key(key.private_key.encode(), None)
    if not isinstance(loaded, RSAPrivateKey):
        raise ValueError
    return loaded


def examine(credentials: Mapping[str, str]) -> None:
    project = credentials.get("project_id", "")
    if project.isdigit():
        raise api.InvalidParameter("credentials", "project_id is a project's number. Give the project's id instead, a "
                                                  "name such as my-project-123.")
    if project and not re.fullmatch(_PROJECT_FORM, project, re.ASCII):
        raise api.InvalidParameter("credentials", "project_id is no project's id. Was it truncated?")
    try:
        _rsa(_key(credentials))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise api.InvalidParameter(
            "credentials", "service_account is the whole JSON key file of a service account, with type, client_email "
                           "and private_key (RSA, PEM, no passphrase). Its universe_domain, if there is one, is a "
                           "domain such as googleapis.com.") from None


def error_code(response: api.Response) -> str | None:
    """The reason; one word for several things is distinguished by what its message names."""
    if response.status < 400:
        return None
    refused = api.refusal(response, _Refusal)
    if refused is None:
        return None
    word = _word(refused.error)
    manages = f"{word}.{_MANAGER}" in _ERRORS and _MANAGER.encode() in response.body
    return f"{word}.{_MANAGER}" if manages else word


def _word(error: _Error) -> str | None:
    message = error.message[:1000]
    word = next((each.reason for each in error.errors or () if each.reason), None) or error.status
    for detail in error.details or ():
        if detail.reason in _ERRORS:
            return detail.reason
    if word in ("forbidden", "PERMISSION_DENIED"):
        return _reason_in(message) or word
    if word == "notFound" and re.search(r"'projects/[^/']+'", message):
        return "notFound.project"
    if word == "invalid" and re.search(r"Unknown (region|zone)", message):
        return "invalid.region"
    return word


def _reason_in(message: str) -> str | None:
    """The reason that a plain "forbidden" has in its message alone, as older answers do."""
    return next((word for word, pattern in _MESSAGES.items() if re.search(pattern, message, re.IGNORECASE)), None)


_MESSAGES = {
    "SERVICE_DISABLED": r"API has not been used|Access Not Configured",
    "BILLING_DISABLED": r"billing",
    "CONSUMER_SUSPENDED": r"suspended",
    "PROJECT_DELETED": r"project .*\b(deleted|deletion)\b",
}

_PROJECT_FORM = r"([a-z0-9][a-z0-9.-]{0,61}[a-z0-9]:)?[a-z][a-z0-9-]{4,28}[a-z0-9]"

# https://docs.cloud.google.com/kubernetes-engine/distributed-cloud/bare-metal/docs/reference/supported-regions-on-prem-api
# and, for what that page lacks or has wrong (us-west3), other services' pages of locations
_REGION_NAMES = {
    "africa-south1": "Johannesburg", "asia-east1": "Changhua County, Taiwan", "asia-east2": "Hong Kong",
    "asia-northeast1": "Tokyo, Japan", "asia-northeast2": "Osaka, Japan", "asia-northeast3": "Seoul, South Korea",
    "asia-south1": "Mumbai, India", "asia-south2": "Delhi, India", "asia-southeast1": "Jurong West, Singapore",
    "asia-southeast2": "Jakarta, Indonesia", "asia-southeast3": "Bangkok, Thailand",
    "australia-southeast1": "Sydney, Australia",
    "australia-southeast2": "Melbourne, Australia", "europe-central2": "Warsaw, Poland",
    "europe-north1": "Hamina, Finland", "europe-north2": "Stockholm, Sweden",
    "europe-southwest1": "Madrid, Spain", "europe-west1": "St. Ghislain, Belgium",
    "europe-west2": "London, England", "europe-west3": "Frankfurt, Germany", "europe-west4": "Eemshaven, Netherlands",
    "europe-west6": "Zurich, Switzerland", "europe-west8": "Milan, Italy", "europe-west9": "Paris, France",
    "europe-west10": "Berlin, Germany", "europe-west12": "Turin, Italy", "me-central1": "Doha, Qatar",
    "me-central2": "Dammam, Saudi Arabia", "me-west1": "Tel Aviv, Israel",
    "northamerica-northeast1": "Montréal, Québec",
    "northamerica-northeast2": "Toronto, Ontario", "northamerica-south1": "Querétaro, Mexico",
    "southamerica-east1": "Osasco, São Paulo, Brazil",
    "southamerica-west1": "Santiago, Chile", "us-central1": "Council Bluffs, Iowa",
    "us-east1": "Moncks Corner, South Carolina", "us-east4": "Ashburn, Virginia", "us-east5": "Columbus, Ohio",
    "us-south1": "Dallas, Texas", "us-west1": "The Dalles, Oregon", "us-west2": "Los Angeles, California",
    "us-west3": "Salt Lake City, Utah", "us-west4": "Las Vegas, Nevada",
}


PARTY = api.Party(
    name="gcp",
    title="Google Compute Engine",
    reference="https://cloud.google.com/compute/docs/reference/rest/v1/instances/list",
    order="by name in each zone, documented; tokens, believed to name a row",
    credentials=(("service_account", "project_id?"),),
    objects=("service_account",),
    examine=examine,
    permissions=("compute.instances.list", "compute.machineTypes.list", "compute.regions.get", "compute.regions.list"),
    grade="recorded",
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z]{2,20}-[a-z]{2,20}[0-9]{1,2}|u-[a-z]{2,20}-[a-z]{2,20}[0-9]{1,2}[a-z]?",
    discover=discover,
    discover_permissions=("resourcemanager.projects.get", "resourcemanager.projects.list",
                          "resourcemanager.folders.list"),
    below="a folder or the organisation, folders/NUMBER or organizations/NUMBER",
    below_form=r"(?:folders|organizations)/[0-9]{1,30}",
    default_region=_USUAL[_UNIVERSE],
    usual_region=_usual_region,
    regional_limits=True,
    limits=api.per_seconds(60.0, 1500, "GetRegion", "ListInstances", "ListMachineTypes", "ListRegions"),
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
