"""A simulator for Google Compute Engine v1: regions, instances by zone and aggregated, machine types.

Checked as the real one does: the RS256 signature of a token that a service account made for itself, its hour, five
minutes of clock, its scope or audience, the project, maxResults to 500, page tokens that belong to the list that gave
them, the names in `fields`, 1,500 calls a minute. Numbers of 64 bits are text. A zone may be down.
"""

import base64
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl
from zlib import crc32

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ...simulators.cloud import Branch, Cloud, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Cursors, Fleet, Machine, Positions
from ...simulators.server import Call, Rate, Simulator

REGIONS = ("us-central1", "europe-west4", "asia-east1")
PROJECT, EMAIL = "simulator-project", "reader@simulator-project.iam.gserviceaccount.com"
TYPES = {"e2-medium": (2, 4096), "e2-standard-2": (2, 8192), "e2-standard-4": (4, 16384), "e2-standard-8": (8, 32768),
         "e2-standard-16": (16, 65536)}
_COMPUTE = {"https://compute.googleapis.com/",                  # scopes and audience, of which a token needs one
            *("https://www.googleapis.com/auth/" + name for name in ("compute.readonly", "compute", "cloud-platform"))}
_MANAGER = {"https://cloudresourcemanager.googleapis.com/",
            *("https://www.googleapis.com/auth/" + name for name in ("cloud-platform", "cloud-platform.read-only"))}
_STATES = {"running": "RUNNING", "stopped": "TERMINATED", "starting": "STAGING", "stopping": "STOPPING",
           "pending": "PROVISIONING", "terminated": "DEPROVISIONING"}
_PACIFIC = timezone(timedelta(hours=-8))
_BASE = "https://www.googleapis.com/compute/v1/projects"
_LIST = {"kind", "id", "items", "nextPageToken", "selfLink", "warning"}         # no `unreachables` in a zone's list
_PLAIN = {"fields", "maxResults", "pageToken", "alt", "$alt", "prettyPrint", "returnPartialSuccess"}
Row = dict[str, Any]


class _Refused(Exception):
    def __init__(self, status: int, reason: str, word: str, message: str = "The message is not for callers.") -> None:
        super().__init__(status, reason, word, message)


class Gcp(Simulator):
    """`keys`: a service account's address -> its public key. `fleets`: region -> fleet, all in one project.

    `projects`: of an organisation, id -> branch, in place of the one project. `above`: see Organise. `without`: those
    that do not have the Compute Engine API. `down`: zones that are. `late`: seconds by which its clock is ahead.
    """

    def __init__(self, keys: Mapping[str, rsa.RSAPublicKey], fleets: Mapping[str, Fleet], *, limited: bool = True,
                 projects: Mapping[str, Branch] = {}, above: Mapping[str, str] = {}, late: float = 0.0, port: int = 0,
                 latency: float = 0.0) -> None:
        self.keys = dict(keys)
        self.fleets = dict(fleets)
        self.projects = dict(projects) or {PROJECT: Branch(name="simulator", fleets=self.fleets)}
        self.above = dict(above)
        self.ids = {branch.name: key for key, branch in self.projects.items()}
        self.units = {"": "organizations/1", **{name: f"folders/{crc32(name.encode())}" for name in above}}
        self.without: set[str] = set()
        self.down: set[str] = set()
        self.late = late
        self._rate = Rate(1500, 60.0) if limited else None
        self._cursors = Cursors()
        self._positions = Positions()
        self._tokens: dict[str, tuple[float, set[str]]] = {}      # verified tokens -> their end, and what they open
        self._rows: dict[tuple[str, str], list[Row]] = {}       # project, zone -> instances, by name
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        if call.path.startswith("/v3/"):
            return {"projects:search": "SearchProjects", "projects": "ListProjects", "folders": "ListFolders"}.get(
                call.path[4:], "?")
        parts = call.path.split("/")
        if parts[5:6] == ["regions"]:
            state = "maxResults=1&fields=kind" in call.query
            return "region" if len(parts) > 6 else "GetComputeState" if state else "regions"
        return "aggregated" if parts[5:6] == ["aggregated"] else parts[-1]

    def answer(self, call: Call) -> Answer:
        try:
            status, body = 200, self._answer(call)
        except _Refused as refused:
            status, reason, word, message = refused.args
            body = {"error": {"code": status, "message": message, "status": word, "errors": [
                {"message": message, "domain": "global", "reason": reason}]}}
        return Answer(status, {"Content-Type": "application/json; charset=UTF-8"}, msgspec.json.encode(body))

    def _answer(self, call: Call) -> Row:
        if call.path.startswith("/v3/"):
            self._check_token(call, _MANAGER)
            return self._managed(call.operation, dict(parse_qsl(call.query)))
        self._check_token(call, _COMPUTE)
        match = re.fullmatch(r"/compute/v1/projects/([^/]+)/(.+)", call.path)
        if call.method != "GET" or not match:
            raise _Refused(404, "notFound", "NOT_FOUND")
        project, rest = match.groups()
        branch = self.projects.get(project)
        if branch is None:
            raise _Refused(404, "notFound", "NOT_FOUND", f"The resource 'projects/{project}' was not found")
        if self._rate and not self._rate.allows(project, call.at):
            raise _Refused(403, "rateLimitExceeded", "PERMISSION_DENIED", "Rate Limit Exceeded")
        if branch.locked or branch.closed:
            word, text = ("PERMISSION_DENIED", f"Project {project} has been deleted.") if branch.closed else (
                "PERMISSION_DENIED", f"Required 'compute.regions.list' permission for 'projects/{project}'")
            raise _Refused(403, "forbidden", word, text)
        if project in self.without:
            raise _Refused(403, "accessNotConfigured", "PERMISSION_DENIED", "Compute Engine API has not been used.")
        query = dict(parse_qsl(call.query))
        if unknown := query.keys() - _PLAIN:
            raise _Refused(400, "invalidParameter", "INVALID_ARGUMENT", f"Unknown parameter {sorted(unknown)[0]}")
        body = self._body(project, rest, query)
        return _masked(body, query["fields"]) if "fields" in query else body

    # ---------------------------------------------------------------- Resource Manager

    def _managed(self, operation: str, query: Mapping[str, str]) -> Row:
        """What may be read, in no order; below a parent the deleted only if asked for. An empty list is left out."""
        readable = {key: branch for key, branch in self.projects.items() if not branch.locked}
        if operation == "SearchProjects":
            return self._managed_page("projects", "", query, {"query"}, [
                self._project_row(key, readable[key]) for key in sorted(readable, key=lambda key: key[::-1])])
        parent = next((name for name, key in self.units.items() if key == query.get("parent")), None)
        if parent is None:
            raise _Refused(403, "forbidden", "PERMISSION_DENIED")
        if operation == "ListProjects":
            return self._managed_page("projects", query["parent"], query, {"parent", "showDeleted"}, [
                self._project_row(key, branch) for key, branch in readable.items()
                if branch.unit == parent and (not branch.closed or query.get("showDeleted") == "true")])
        if operation == "ListFolders":
            return self._managed_page("folders", query["parent"], query, {"parent"}, [
                {"name": self.units[name], "displayName": name, "state": "ACTIVE", "parent": query["parent"]}
                for name, above in self.above.items() if above == parent])
        raise _Refused(404, "notFound", "NOT_FOUND")

    def _managed_page(self, key: str, of: str, query: Mapping[str, str], known: set[str], rows: list[Row]) -> Row:
        """At most 50 rows, however many are asked for."""
        unknown = query.keys() - known - {"pageSize", "pageToken", "fields"}
        if unknown or not re.fullmatch("[0-9]{1,9}", query.get("pageSize", "0")):
            raise _Refused(400, "badRequest", "INVALID_ARGUMENT")
        size, at = min(int(query.get("pageSize", "0")) or 50, 50), 0
        if token := query.get("pageToken"):
            try:
                at = self._positions.take(token, f"{key} {of}")
            except ValueError:
                raise _Refused(400, "badRequest", "INVALID_ARGUMENT") from None
        page = rows[at:at + size]
        body: Row = {key: page} if page else {}
        if at + size < len(rows):
            body["nextPageToken"] = self._positions.give(at + size, f"{key} {of}")
        return _kept(body, _tree(re.findall(r"[A-Za-z0-9]+|[(),/]", query.get("fields", ""))))

    def _project_row(self, key: str, branch: Branch) -> Row:
        return {"name": f"projects/{crc32(key.encode())}", "projectId": key, "displayName": branch.name,
                "parent": self.units[branch.unit], "state": "DELETE_REQUESTED" if branch.closed else "ACTIVE",
                "createTime": "2024-01-01T00:00:00Z", "updateTime": "2024-01-01T00:00:00Z", "etag": "W/x", "labels": {}}

    # ---------------------------------------------------------------- Compute Engine

    def _body(self, project: str, rest: str, query: Mapping[str, str]) -> Row:
        if rest == "regions":
            return self._page(project, "compute#regionList", rest, [_region(name) for name in REGIONS], query)
        if region := re.fullmatch(r"regions/([^/]+)", rest):
            if region[1] not in REGIONS:
                raise _Refused(404, "notFound", "NOT_FOUND", f"The resource 'projects/{PROJECT}/{rest}' was not found")
            return _region(region[1])
        if rest == "aggregated/instances":
            return self._aggregated(project, query)
        zone = re.fullmatch(r"zones/([^/]+)/(instances|machineTypes)", rest)
        if not zone:
            raise _Refused(404, "notFound", "NOT_FOUND")
        if zone[1] not in [f"{region}-{letter}" for region in REGIONS for letter in "abc"]:
            raise _Refused(400, "invalid", "INVALID_ARGUMENT",
                           f"Invalid value for field 'zone': '{zone[1]}'. Unknown zone.")
        if zone[1] in self.down:
            raise _Refused(503, "backendError", "UNAVAILABLE")
        if zone[2] == "instances":
            return self._page(project, "compute#instanceList", rest, self._zone(project, zone[1]), query)
        rows = [{"kind": "compute#machineType", "name": name, "guestCpus": cpu, "memoryMb": memory, "zone": zone[1]}
                for name, (cpu, memory) in TYPES.items()]
        return self._page(project, "compute#machineTypeList", rest, rows, query)

    def _aggregated(self, project: str, query: Mapping[str, str]) -> Row:
        """Zones without rows carry a warning; those that are down fail the call, unless a part of it is good enough."""
        if self.down and query.get("returnPartialSuccess") != "true":
            raise _Refused(503, "backendError", "UNAVAILABLE")
        zones = [f"{region}-{letter}" for region in REGIONS for letter in "abc"]
        rows = [row for zone in zones if zone not in self.down for row in self._zone(project, zone)]
        page = self._page(project, "compute#instanceAggregatedList", "aggregated/instances", rows, query)
        items: Row = {f"zones/{zone}": {"warning": {
            "code": "UNREACHABLE" if zone in self.down else "NO_RESULTS_ON_PAGE", "message": "Nothing is here."}}
            for zone in zones}
        for row in page.get("items") or ():
            items.setdefault(where := f"zones/{row['zone'].rpartition('/')[2]}", {})
            items[where] = {"instances": [*items[where].get("instances", ()), row]}
        down = [f"{_BASE}/{PROJECT}/zones/{zone}" for zone in sorted(self.down)]
        return page | {"items": items, "unreachables": down}

    def _page(self, project: str, kind: str, what: str, rows: list[Row], query: Mapping[str, str]) -> Row:
        size = query.get("maxResults", "500")
        if not size.isdigit() or int(size) > 500:
            raise _Refused(400, "invalid", "INVALID_ARGUMENT", "Invalid value for field 'maxResults'.")
        names, at, what = [row["name"] for row in rows], 0, f"{project}/{what}"
        if "pageToken" in query:
            try:
                owner, _, begin = base64.urlsafe_b64decode(query["pageToken"]).decode().partition(" ")
                at = self._cursors.take(begin, names)
            except ValueError:
                owner = ""
            if owner != what:
                raise _Refused(400, "invalid", "INVALID_ARGUMENT", "Invalid value for field 'pageToken'.")
        page = rows[at:at + (int(size) or 500)]
        body: Row = {"kind": kind, "id": f"projects/{what}", "selfLink": f"{_BASE}/{what}"}
        if page:
            body["items"] = page
        if at + len(page) < len(rows):
            body["nextPageToken"] = base64.urlsafe_b64encode(
                f"{what} {self._cursors.give(names, at + len(page))}".encode()).decode()
        return body

    def _zone(self, project: str, zone: str) -> list[Row]:
        if (project, zone) not in self._rows:
            region, _, letter = zone.rpartition("-")
            fleet = self.projects[project].fleets.get(region, Fleet(0))
            mine = [m for m in (fleet[n] for n in range(len(fleet))) if "abc"[m.zone - 1] == letter]
            self._rows[project, zone] = sorted((_instance(m, zone) for m in mine), key=lambda row: row["name"])
        return self._rows[project, zone]

    def _check_token(self, call: Call, opens: set[str]) -> None:
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        now = time.time() + self.late
        try:
            if scheme != "Bearer":
                raise ValueError
            if token not in self._tokens:
                self._tokens[token] = self._verified(token, now)
            ends, meant = self._tokens[token]
            if ends <= now:
                raise ValueError
        except (ValueError, KeyError, InvalidSignature):
            raise _Refused(401, "authError", "UNAUTHENTICATED") from None
        if not meant & opens:
            raise _Refused(403, "insufficientPermissions", "PERMISSION_DENIED")

    def _verified(self, token: str, now: float) -> tuple[float, set[str]]:
        """When the token ends, and its scopes or audience. Raises what is wrong with it."""
        text, _, signature = token.rpartition(".")
        header, claims = (msgspec.json.decode(_bytes(part), type=Row) for part in text.split("."))
        self.keys[claims["iss"]].verify(_bytes(signature), text.encode(), PKCS1v15(), SHA256())
        meant = {*claims.get("scope", "").split(), *filter(None, [claims.get("aud")])}
        if header["alg"] != "RS256" or claims["sub"] != claims["iss"] or claims["exp"] - claims["iat"] > 3600:
            raise ValueError
        if claims["iat"] > now + 300 or not meant & (_COMPUTE | _MANAGER):
            raise ValueError
        return float(claims["exp"]), meant


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    key, credentials = _made(secret, PROJECT)
    return Gcp({EMAIL: key.public_key()}, fleets, limited=limited, latency=latency), credentials


def organise(branches: Sequence[Branch], secret: str, *, units: Mapping[str, str] = {}, limited: bool = True,
             latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    projects = {f"project-{n}-{crc32(branch.name.encode()):08x}": branch for n, branch in enumerate(branches)}
    key, file = _made(secret, next(iter(projects)))
    del file["project_id"]                 # the key file's is enough
    return Gcp({EMAIL: key.public_key()}, {}, projects=projects, above=units, limited=limited, latency=latency), file


def _made(secret: str, project: str) -> tuple[rsa.RSAPrivateKey, dict[str, object]]:
    """A key and the credentials with it. The secret is the key's id: whatever holds a token holds it."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return key, {"project_id": project, "service_account": {
        "type": "service_account", "project_id": project, "private_key_id": secret, "private_key": pem,
        "client_email": EMAIL, "client_id": "100000000000000000001", "universe_domain": "googleapis.com",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth", "token_uri": "https://evil.example/token"}}


CLOUDS = {"gcp": Cloud("us-central1", start, organise=organise, least=Least(
    calls=1 + 3 + 1, trips=3, window_calls=1 + 2 + 1, window_trips=4, rate=(1500, 60.0),
    why="The region's zones; one page of up to 500 servers for each of 3; the types of these. A window walks "
        "the zones up to its end. A key signs its own token."))}


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True)


def _region(name: str) -> Row:
    return {"kind": "compute#region", "id": "1000", "name": name, "status": "UP", "description": name, "quotas": [],
            "selfLink": f"{_BASE}/{PROJECT}/regions/{name}",
            "zones": [f"{_BASE}/{PROJECT}/zones/{name}-{letter}" for letter in "cab"]}


def _instance(machine: Machine, zone: str) -> Row:
    sizes = {size: name for name, size in TYPES.items()}
    kind = sizes.get((machine.cpu, machine.memory_gib * 1024), f"n2-custom-{machine.cpu}-{machine.memory_gib * 1024}")
    here = f"{_BASE}/{PROJECT}/zones/{zone}"
    created = machine.created.astimezone(_PACIFIC).isoformat(timespec="milliseconds")
    row: Row = {
        "kind": "compute#instance", "id": str(int(machine.key, 36) + 10 ** 18), "name": machine.name, "description": "",
        "creationTimestamp": created, "status": _STATES[machine.state], "zone": here, "machineType":
        f"{here}/machineTypes/{kind}", "selfLink": f"{here}/instances/{machine.name}", "canIpForward": False,
        "disks": [{"kind": "compute#attachedDisk", "type": "PERSISTENT", "mode": "READ_WRITE", "index": n,
                   "boot": n == 0, "diskSizeGb": str(size), "deviceName": f"disk-{n}",
                   **({"licenses": ["https://www.googleapis.com/compute/v1/projects/debian-cloud/global/licenses/"
                                    "debian-12-bookworm"]} if n == 0 else {})}
                  for n, size in enumerate(machine.disks)],
        "networkInterfaces": [{"kind": "compute#networkInterface", "name": f"nic{n}", "networkIP": ip,
                               "network": f"{_BASE}/{PROJECT}/global/networks/default",
                               "subnetwork": f"{here.replace('zones', 'regions')[:-2]}/subnetworks/default",
                               "accessConfigs": [{
            "kind": "compute#accessConfig", "type": "ONE_TO_ONE_NAT", "name": "External NAT", "networkTier": "PREMIUM",
            **({"natIP": machine.wan[n]} if n < len(machine.wan) else {})}]} for n, ip in enumerate(machine.lan)],
        "scheduling": {"onHostMaintenance": "MIGRATE", "automaticRestart": True, "preemptible": False,
                       "provisioningModel": "STANDARD"},
        "metadata": {"kind": "compute#metadata", "items": [{"key": "startup-script", "value": "#! /bin/sh"}]}}
    if machine.state == "starting":
        row["lastStopTimestamp"] = created
    return row | ({"labels": dict(machine.tags)} if machine.tags else {})


# ---------------------------------------------------------------- partial answers

def _masked(body: Row, fields: str) -> Row:
    """`fields=kind,items(name,disks/index)`: only these. Names that a list cannot have are refused."""
    words = re.findall(r"[A-Za-z0-9]+|[(),/]", fields)
    tree = _tree(words)
    if words or (body["kind"].endswith("List") and tree.keys() - _LIST - (
            {"unreachables"} if "Aggregated" in body["kind"] else set())):
        raise _invalid_fields()
    return _kept(body, tree)


def _invalid_fields() -> _Refused:
    return _Refused(400, "invalidParameter", "INVALID_ARGUMENT", "Invalid field selection")


def _tree(words: list[str]) -> Row:
    tree: Row = {}
    while words:
        name = words.pop(0)
        below: Callable[[], Row] = dict
        at = tree.setdefault(name, below())
        while words[:1] == ["/"]:
            at = at.setdefault(words[1], below())
            del words[:2]
        if words[:1] == ["("]:
            words.pop(0)
            at.update(_tree(words))
            if not words or words.pop(0) != ")":
                raise _invalid_fields()
        if words[:1] != [","]:
            return tree
        words.pop(0)
    return tree


def _kept(body: Any, tree: Row) -> Any:
    if not tree:
        return body
    if isinstance(body, list):
        return [_kept(each, tree) for each in body]             # type: ignore[reportUnknownVariableType]
    return {name: _kept(body[name], below) for name, below in tree.items() if name in body}
