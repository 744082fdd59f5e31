"""A simulator for Google Compute Engine v1: regions, instances by zone and aggregated, machine types.

Checked as the real one does: the RS256 signature of a token that a service account made for itself, its hour, five
minutes of clock, its scope or audience, the project, maxResults to 500, page tokens that belong to the list that gave
them, the names in `fields`, 1,500 calls a minute. Numbers of 64 bits are text. A zone may be down.
"""

import base64
import re
import time
from collections.abc import Callable, Mapping
from datetime import timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ...simulators.cloud import Cloud, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Cursors, Fleet, Machine
from ...simulators.server import Call, Rate, Simulator

REGIONS = ("us-central1", "europe-west4", "asia-east1")
PROJECT, EMAIL = "simulator-project", "reader@simulator-project.iam.gserviceaccount.com"
TYPES = {"e2-medium": (2, 4096), "e2-standard-2": (2, 8192), "e2-standard-4": (4, 16384), "e2-standard-8": (8, 32768),
         "e2-standard-16": (16, 65536)}
_SCOPES = {"https://www.googleapis.com/auth/" + name for name in ("compute.readonly", "compute", "cloud-platform")}
_AUDIENCE = "https://compute.googleapis.com/"
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

    `down`: zones that are. `late`: seconds by which its clock is ahead.
    """

    def __init__(self, keys: Mapping[str, rsa.RSAPublicKey], fleets: Mapping[str, Fleet], *, limited: bool = True,
                 late: float = 0.0, port: int = 0, latency: float = 0.0) -> None:
        self.keys = dict(keys)
        self.fleets = dict(fleets)
        self.down: set[str] = set()
        self.late = late
        self._rate = Rate(1500, 60.0) if limited else None
        self._cursors = Cursors()
        self._seen: dict[str, float] = {}                       # verified tokens -> their end
        self._rows: dict[str, list[Row]] = {}                   # zone -> its instances, in the order of their names
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        parts = call.path.split("/")
        if parts[5:6] == ["regions"]:
            return "region" if len(parts) > 6 else "regions"
        return "aggregated" if parts[5:6] == ["aggregated"] else parts[-1]

    def answer(self, call: Call) -> Answer:
        try:
            status, said = 200, self._answer(call)
        except _Refused as refused:
            status, reason, word, message = refused.args
            said = {"error": {"code": status, "message": message, "status": word, "errors": [
                {"message": message, "domain": "global", "reason": reason}]}}
        return Answer(status, {"Content-Type": "application/json; charset=UTF-8"}, msgspec.json.encode(said))

    def _answer(self, call: Call) -> Row:
        self._check_token(call)
        found = re.fullmatch(r"/compute/v1/projects/([^/]+)/(.+)", call.path)
        if call.method != "GET" or not found:
            raise _Refused(404, "notFound", "NOT_FOUND")
        project, rest = found.groups()
        if project != PROJECT:
            raise _Refused(404, "notFound", "NOT_FOUND", f"The resource 'projects/{project}' was not found")
        if self._rate and not self._rate.allows(project, call.at):
            raise _Refused(403, "rateLimitExceeded", "PERMISSION_DENIED", "Rate Limit Exceeded")
        asked = dict(parse_qsl(call.query))
        if unknown := asked.keys() - _PLAIN:
            raise _Refused(400, "invalidParameter", "INVALID_ARGUMENT", f"Unknown parameter {sorted(unknown)[0]}")
        said = self._said(rest, asked)
        return _masked(said, asked["fields"]) if "fields" in asked else said

    def _said(self, rest: str, asked: Mapping[str, str]) -> Row:
        if rest == "regions":
            return self._page("compute#regionList", rest, [_region(name) for name in REGIONS], asked)
        if region := re.fullmatch(r"regions/([^/]+)", rest):
            if region[1] not in REGIONS:
                raise _Refused(404, "notFound", "NOT_FOUND", f"The resource 'projects/{PROJECT}/{rest}' was not found")
            return _region(region[1])
        if rest == "aggregated/instances":
            return self._aggregated(asked)
        zone = re.fullmatch(r"zones/([^/]+)/(instances|machineTypes)", rest)
        if not zone:
            raise _Refused(404, "notFound", "NOT_FOUND")
        if zone[1] not in [f"{region}-{letter}" for region in REGIONS for letter in "abc"]:
            raise _Refused(400, "invalid", "INVALID_ARGUMENT",
                           f"Invalid value for field 'zone': '{zone[1]}'. Unknown zone.")
        if zone[1] in self.down:
            raise _Refused(503, "backendError", "UNAVAILABLE")
        if zone[2] == "instances":
            return self._page("compute#instanceList", rest, self._zone(zone[1]), asked)
        rows = [{"kind": "compute#machineType", "name": name, "guestCpus": cpu, "memoryMb": memory, "zone": zone[1]}
                for name, (cpu, memory) in TYPES.items()]
        return self._page("compute#machineTypeList", rest, rows, asked)

    def _aggregated(self, asked: Mapping[str, str]) -> Row:
        """Zones without rows carry a warning; those that are down fail the call, unless a part of it is good enough."""
        if self.down and asked.get("returnPartialSuccess") != "true":
            raise _Refused(503, "backendError", "UNAVAILABLE")
        zones = [f"{region}-{letter}" for region in REGIONS for letter in "abc"]
        rows = [row for zone in zones if zone not in self.down for row in self._zone(zone)]
        page = self._page("compute#instanceAggregatedList", "aggregated/instances", rows, asked)
        items: Row = {f"zones/{zone}": {"warning": {
            "code": "UNREACHABLE" if zone in self.down else "NO_RESULTS_ON_PAGE", "message": "Nothing is here."}}
            for zone in zones}
        for row in page.get("items") or ():
            items.setdefault(where := f"zones/{row['zone'].rpartition('/')[2]}", {})
            items[where] = {"instances": [*items[where].get("instances", ()), row]}
        down = [f"{_BASE}/{PROJECT}/zones/{zone}" for zone in sorted(self.down)]
        return page | {"items": items, "unreachables": down}

    def _page(self, kind: str, what: str, rows: list[Row], asked: Mapping[str, str]) -> Row:
        size = asked.get("maxResults", "500")
        if not size.isdigit() or int(size) > 500:
            raise _Refused(400, "invalid", "INVALID_ARGUMENT", "Invalid value for field 'maxResults'.")
        names, at = [row["name"] for row in rows], 0
        if "pageToken" in asked:
            try:
                owner, _, begin = base64.urlsafe_b64decode(asked["pageToken"]).decode().partition(" ")
                at = self._cursors.take(begin, names)
            except ValueError:
                owner = ""
            if owner != what:
                raise _Refused(400, "invalid", "INVALID_ARGUMENT", "Invalid value for field 'pageToken'.")
        page = rows[at:at + (int(size) or 500)]
        said: Row = {"kind": kind, "id": f"projects/{PROJECT}/{what}", "selfLink": f"{_BASE}/{PROJECT}/{what}"}
        if page:
            said["items"] = page
        if at + len(page) < len(rows):
            said["nextPageToken"] = base64.urlsafe_b64encode(
                f"{what} {self._cursors.give(names, at + len(page))}".encode()).decode()
        return said

    def _zone(self, zone: str) -> list[Row]:
        if zone not in self._rows:
            region, _, letter = zone.rpartition("-")
            fleet = self.fleets.get(region, Fleet(0))
            mine = [m for m in (fleet[n] for n in range(len(fleet))) if "abc"[m.zone - 1] == letter]
            self._rows[zone] = sorted((_instance(m, zone) for m in mine), key=lambda row: row["name"])
        return self._rows[zone]

    def _check_token(self, call: Call) -> None:
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        now = time.time() + self.late
        try:
            if scheme != "Bearer":
                raise ValueError
            if token not in self._seen:
                self._seen[token] = self._verified(token, now)
            if self._seen[token] <= now:
                raise ValueError
        except (ValueError, KeyError, InvalidSignature, msgspec.DecodeError):
            raise _Refused(401, "authError", "UNAUTHENTICATED") from None

    def _verified(self, token: str, now: float) -> float:
        """When the token ends. Raises what is wrong with it."""
        text, _, signature = token.rpartition(".")
        header, claims = (msgspec.json.decode(_bytes(part), type=Row) for part in text.split("."))
        self.keys[claims["iss"]].verify(_bytes(signature), text.encode(), PKCS1v15(), SHA256())
        meant = claims.get("scope", "").split()
        if header["alg"] != "RS256" or claims["sub"] != claims["iss"] or claims["exp"] - claims["iat"] > 3600:
            raise ValueError
        if claims["iat"] > now + 300 or not (_SCOPES & set(meant) or claims.get("aud") == _AUDIENCE):
            raise ValueError
        return float(claims["exp"])


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    """The secret is the key's id: whatever holds a token holds it."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    given: dict[str, object] = {"project_id": PROJECT, "service_account": {
        "type": "service_account", "project_id": PROJECT, "private_key_id": secret, "private_key": pem,
        "client_email": EMAIL, "client_id": "100000000000000000001", "universe_domain": "googleapis.com",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth", "token_uri": "https://evil.example/token"}}
    return Gcp({EMAIL: key.public_key()}, fleets, limited=limited, latency=latency), given


CLOUDS = {"gcp": Cloud("us-central1", start, Least(
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
                   "boot": n == 0, "diskSizeGb": str(size), "deviceName": f"disk-{n}"}
                  for n, size in enumerate(machine.disks)],
        "networkInterfaces": [{"kind": "compute#networkInterface", "name": f"nic{n}", "networkIP": ip,
                               "accessConfigs": [{
            "kind": "compute#accessConfig", "type": "ONE_TO_ONE_NAT", "name": "External NAT", "networkTier": "PREMIUM",
            **({"natIP": machine.wan[n]} if n < len(machine.wan) else {})}]} for n, ip in enumerate(machine.lan)],
        "metadata": {"kind": "compute#metadata", "items": [{"key": "startup-script", "value": "#! /bin/sh"}]}}
    if machine.state == "starting":
        row["lastStopTimestamp"] = created
    return row | ({"labels": dict(machine.tags)} if machine.tags else {})


# ---------------------------------------------------------------- partial answers

def _masked(said: Row, fields: str) -> Row:
    """`fields=kind,items(name,disks/index)`: only these. Names that a list cannot have are refused."""
    words = re.findall(r"[A-Za-z0-9]+|[(),/]", fields)
    tree = _tree(words)
    if words or (said["kind"].endswith("List") and tree.keys() - _LIST - (
            {"unreachables"} if "Aggregated" in said["kind"] else set())):
        raise _invalid_fields()
    return _kept(said, tree)


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


def _kept(said: Any, tree: Row) -> Any:
    if not tree:
        return said
    if isinstance(said, list):
        return [_kept(each, tree) for each in said]             # type: ignore[reportUnknownVariableType]
    return {name: _kept(said[name], below) for name, below in tree.items() if name in said}
