"""A simulator for an OpenStack cloud: Keystone v3, Nova v2.1 with its microversions, Cinder v3, behind one host.

Checked as the real ones do: user, password, domain and project or application credential, a token for another project
(never by one of an application credential), the token and its end, the project in Cinder's path, the version asked for
(406), limit (cut silently), marker, sort keys. Nothing is rate limited.
"""

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec

from ...simulators.cloud import Branch, Cloud, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet, Machine
from ...simulators.server import Call, Simulator

_T = TypeVar("_T")
_STATES = {                                 # status, task_state, vm_state, power_state
    "running": ("ACTIVE", None, "active", 1), "stopped": ("SHUTOFF", None, "stopped", 4),
    "starting": ("SHUTOFF", "powering-on", "stopped", 4), "stopping": ("ACTIVE", "powering-off", "active", 1),
    "pending": ("BUILD", "spawning", "building", 0), "terminated": ("ACTIVE", "deleting", "active", 1)}
_SORT_KEYS = {"created_at", "updated_at", "display_name", "uuid", "vm_state"}
_LIFE = timedelta(hours=1)


class _Refused(Exception):
    def __init__(self, status: int, word: str, message: str, title: str | None = None) -> None:
        super().__init__(status, word, message, title)


class Openstack(Simulator):
    """`passwords`: (user, domain id) -> password. `secrets`: of application credentials, by id. `fleets`: by region.

    `projects`: id -> branch; the first is the one of the credentials. Without them all is in one project. `above`:
    see Organise. `newest`: the last minor version of Nova (0: it knows no versions). `most`: its max_limit.
    `lost`: machines at the fleet's end that live in a cell that does not answer. `regions`: in the catalogue. `bend`:
    what becomes of the catalogue before it is given out.
    """

    def __init__(self, passwords: Mapping[tuple[str, str], str], secrets: Mapping[str, str],
                 fleets: Mapping[str, Fleet], *, projects: Mapping[str, Branch] = {},
                 above: Mapping[str, str] = {}, newest: int = 100, most: int = 1000, lost: int = 0,
                 regions: Sequence[str] = ("RegionOne", "RegionTwo"), port: int = 0, latency: float = 0.0) -> None:
        self.passwords = dict(passwords)
        self.secrets = dict(secrets)
        self.fleets = dict(fleets)
        self.newest = newest
        self.most = most
        self.lost = lost
        self.regions = tuple(regions)
        self.bend: Callable[[list[dict[str, Any]]], list[Any]] = lambda catalog: catalog
        self.project = next(iter(projects), uuid.uuid5(uuid.NAMESPACE_OID, "project").hex)
        self.projects = dict(projects) or {self.project: Branch(name="demo", fleets=self.fleets)}
        self.ids = {branch.name: key for key, branch in self.projects.items()}
        self.units = {"": "default", **{name: uuid.uuid5(uuid.NAMESPACE_OID, name).hex for name in above}}
        self.above = dict(above)
        self.scopes: dict[str, str | None] = {}                 # token -> the project that it is for
        self.delegated: set[str] = set()                        # tokens of application credentials
        self.tokens: dict[str, datetime] = {}
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        if call.path.endswith("/tokens") and b'"methods":["token"]' in call.body:
            return "GetToken"
        rows = {"/tokens": "Login", "/auth/projects": "ListProjects",
                 "/servers/detail": "ListServersDetailed", "/servers": "ListServers",
                 "/flavors/detail": "ListFlavorsDetailed", "/volumes/detail": "ListVolumesDetailed"}
        return next((name for end, name in rows.items() if call.path.endswith(end)), "?")

    def answer(self, call: Call) -> Answer:
        headers = {"Content-Type": "application/json", "Date": format_datetime(datetime.now(UTC), usegmt=True)}
        status, body = 200, {}
        try:
            status, body, more = self._answer(call)
            headers |= more
        except _Refused as refused:
            status, word, message, title = refused.args
            body = {word: {"code": status, "message": message, **({"title": title} if title else {})}}
        return Answer(status, headers, msgspec.json.encode(body))

    def _answer(self, call: Call) -> tuple[int, dict[str, Any], dict[str, str]]:
        _, service, *path = call.path.rstrip("/").split("/")
        if service == "identity" and path in ([], ["v3"]):
            version = {"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z", "media-types": [],
                       "links": [{"rel": "self", "href": f"{self.url}/identity/v3/"}]}
            return (200, {"version": version}, {}) if path else (300, {"versions": {"values": [version]}}, {})
        if service == "identity" and path == ["v3", "auth", "tokens"] and call.method == "POST":
            return self._login(call)
        region = next((name for name in self.regions if service.endswith(f"-{name}")), "")
        if region and not (path and re.fullmatch(r"v[0-9.]+", path[0])):
            return self._versions(service, path)
        if not region and (service != "identity" or path[:1] != ["v3"]):
            word, title = ("error", "Not Found") if service == "identity" else ("itemNotFound", None)
            raise _Refused(404, word, "The resource could not be found.", title)
        ends = self.tokens.get(call.headers.get("x-auth-token", ""))
        if ends is None or ends <= datetime.now(UTC):
            raise _Refused(401, "error", "The request you have made requires authentication.", "Unauthorized")
        query = {name: values[-1] for name, values in parse_qs(call.query, keep_blank_values=True).items()}
        if service == "identity" and path == ["v3", "auth", "projects"] and call.method == "GET":
            return 200, {"projects": [self._listed(key, branch) for key, branch in self.projects.items()
                                      if not branch.locked],
                         "links": {"next": None, "self": f"{self.url}/identity/v3/auth/projects", "previous": None}}, {}
        project = self.scopes.get(call.headers["x-auth-token"])
        if project is None:
            raise _Refused(401, "error", "The request you have made requires authentication.", "Unauthorized")
        if region and service.startswith("compute") and path[:1] == ["v2.1"]:
            return self._compute(call, path[1:], query, region, project)
        if region and service.startswith("volume") and path[:1] == ["v3"]:
            if path[1:2] != [project]:
                raise _Refused(400, "badRequest", "Malformed request url")
            if path[2:] == ["volumes", "detail"]:
                return self._volumes(query, region, project)
        raise _Refused(404, "itemNotFound", "The resource could not be found.")

    def _versions(self, service: str, path: Sequence[str]) -> tuple[int, dict[str, Any], dict[str, str]]:
        """What Nova and Cinder say at an address without a version: 300 but for Nova's own list of its versions."""
        nova = service.startswith("compute")
        name, most = ("v2.1", f"2.{self.newest}") if nova else ("v3", "3.71")
        where = "/".join((self.url, service, name, *path))
        row = {"id": "v2.1" if nova else "v3.0", "status": "CURRENT", "links": [{"rel": "self", "href": where}]}
        numbers = {"version": most, "min_version": "2.1" if nova else "3.0", "updated": "2013-07-23T11:33:21Z"}
        if nova and path:
            return 300, {"choices": [row | {"media-types": []}]}, {}
        return 200 if nova else 300, {"versions": [row | numbers]}, {}

    # ---------------------------------------------------------------- Keystone

    def _login(self, call: Call) -> tuple[int, dict[str, Any], dict[str, str]]:
        refused = _Refused(401, "error", "The request you have made requires authentication.", "Unauthorized")
        try:
            auth: dict[str, Any] = msgspec.json.decode(call.body)["auth"]
            identity, (method,) = auth["identity"], auth["identity"]["methods"]
            project: str | None = self.project
            if method == "token":
                used = identity["token"]["id"]
                known, project = used in self.tokens and self.tokens[used] > datetime.now(UTC), self._scope(auth)
                if known and used in self.delegated:
                    raise _Refused(403, "error", "Using a delegated token to create another token is not allowed",
                                   "Forbidden")
            elif method == "password":
                user = identity["password"]["user"]
                known = self.passwords.get((user["name"], _domain(user))) == user["password"]
                project = self._scope(auth)
            else:
                credential = identity["application_credential"]
                known = "scope" not in auth and self.secrets.get(credential["id"]) == credential["secret"]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _Refused(400, "error", "Expecting to find valid JSON in request body.", "Bad Request") from None
        if not known or project == "":
            raise refused
        now, token = datetime.now(UTC), f"gAAAAA{uuid.uuid4().hex}{uuid.uuid4().hex}"
        self.tokens[token] = self.tokens[identity["token"]["id"]] if method == "token" else now + _LIFE
        self.scopes[token] = project
        if method == "application_credential":
            self.delegated.add(token)
        described: dict[str, Any] = {
            "methods": [method], "user": {"id": uuid.uuid4().hex, "name": "demo"},
            "expires_at": f"{self.tokens[token]:%Y-%m-%dT%H:%M:%S}.000000Z",
            "issued_at": f"{now:%Y-%m-%dT%H:%M:%S}.000000Z"}
        if project is None:
            return 201, {"token": described}, {"X-Subject-Token": token}
        catalog = [
            {"type": kind, "name": name, "id": uuid.uuid4().hex, "endpoints": [
                {"id": uuid.uuid4().hex, "interface": interface, "region_id": region, "region": region,
                 "url": f"{self.url if interface == 'public' else 'http://internal'}/{where}"}
                for region in self.regions for interface in ("internal", "public")
                for where in [place.replace("REGION", region)]]}
            for kind, name, place in (("identity", "keystone", "identity"), ("compute", "nova", "compute-REGION/v2.1"),
                                      ("block-storage", "cinder", f"volume-REGION/v3/{project}"))]
        return 201, {"token": described | {
            "is_domain": False, "catalog": self.bend(catalog), "roles": [{"id": uuid.uuid4().hex, "name": "reader"}],
            "project": {"id": project, "name": self.projects[project].name,
                        "domain": {"id": "default", "name": "Default"}}}}, {"X-Subject-Token": token}

    def _scope(self, auth: Mapping[str, Any]) -> str | None:
        """The project that a login asks for, None for none; "" if it is disabled, or the user has no role on it."""
        if auth["scope"] == "unscoped":
            return None
        wanted: dict[str, Any] = auth["scope"]["project"]
        named = wanted.get("name") == "demo" and _domain(wanted) == "default"
        key = wanted.get("id") or (self.project if named else "")
        branch = self.projects.get(key)
        return key if branch and not branch.closed and not branch.locked else ""

    def _listed(self, key: str, branch: Branch) -> dict[str, Any]:
        return {"id": key, "name": branch.name, "domain_id": "default", "description": "", "enabled": not branch.closed,
                "parent_id": self.units.get(branch.unit) or self.ids[branch.unit], "is_domain": False, "options": {},
                "tags": [], "links": {"self": f"{self.url}/identity/v3/projects/{key}"}}

    # ---------------------------------------------------------------- Nova

    def _compute(self, call: Call, path: list[str], query: dict[str, str], region: str, project: str,
                 ) -> tuple[int, dict[str, Any], dict[str, str]]:
        if not path:
            versions = {"version": f"2.{self.newest}", "min_version": "2.1"} if self.newest else {
                "version": "", "min_version": ""}
            return 200, {"version": {"id": "v2.1", "status": "CURRENT", "updated": "2013-07-23T11:33:21Z", **versions,
                                     "links": [{"rel": "self", "href": f"{self.url}/compute-{region}/v2.1/"}]}}, {}
        wanted = re.fullmatch(r"(?:compute )?2\.([0-9]+)", call.headers.get(
            "openstack-api-version", call.headers.get("x-openstack-nova-api-version", "2.1")))
        if not wanted:
            raise _Refused(400, "computeFault", "API Version String is of invalid format.")
        if (minor := int(wanted[1]) if self.newest else 0) > self.newest:
            raise _Refused(406, "computeFault", f"Version 2.{minor} is not supported by the API.")
        versions = {"OpenStack-API-Version": f"compute 2.{minor}", "X-OpenStack-Nova-API-Version": f"2.{minor}",
                "Vary": "OpenStack-API-Version, X-OpenStack-Nova-API-Version"} if self.newest else {}
        fleet = self.projects[project].fleets.get(region, Fleet(0))
        where = f"{self.url}/compute-{region}/v2.1/{'/'.join(path)}"
        if path == ["flavors", "detail"]:
            sizes = sorted({(m.cpu, m.memory_gib, root_of(m)) for m in (fleet[n] for n in range(len(fleet)))})
            flavors = [{**_flavor(size), "OS-FLV-EXT-DATA:ephemeral": 0, "swap": "", "id": _name(size),
                        "name": _name(size)} for size in sizes]
            page, links = self._page(query, flavors, [_name(size) for size in sizes], where)
            return 200, {"flavors": page, **links}, versions
        if path not in (["servers"], ["servers", "detail"]):
            raise _Refused(404, "itemNotFound", "The resource could not be found.")
        if query.get("all_tenants") == "1":
            raise _Refused(403, "forbidden", "Policy doesn't allow os_compute_api:servers:detail:get_all_tenants.")
        if query.get("sort_key", "created_at") not in _SORT_KEYS:
            raise _Refused(400, "badRequest", "Invalid input for query parameters sort_key.")
        machines = [fleet[n] for n in range(len(fleet))]
        lost = machines[len(machines) - self.lost:]
        alive = sorted(machines[:len(machines) - self.lost], key=lambda m: (m.created, m.number),
                       reverse=query.get("sort_dir", "desc") == "desc")
        paged = query.keys() & {"limit", "marker", "sort_key", "sort_dir"}
        match, links = self._page(query, alive, [id_of(m) for m in alive], where)
        detail = path[-1] == "detail"
        rows: list[dict[str, Any]] = [
            self._row(m, minor) | {"tenant_id": project} if detail else {"id": id_of(m), "name": m.name, "links": []}
            for m in match]
        if minor >= 69 and not paged:
            rows[:0] = [{"id": id_of(m), "status": "UNKNOWN", "links": [], **({
                "tenant_id": project, "created": f"{m.created:%Y-%m-%dT%H:%M:%SZ}"} if detail else {})}
                for m in lost[:self.most - len(match)]]
        return 200, {"servers": rows, **links}, versions

    def _page(self, query: Mapping[str, str], rows: Sequence[_T], ids: Sequence[str], where: str,
              ) -> tuple[Sequence[_T], dict[str, Any]]:
        """The page, and the link to the next one if it is full; its name is the collection's."""
        name = next(part for part in where.split("/")[::-1] if part != "detail")
        limit, marker = query.get("limit", str(self.most)), query.get("marker")
        if not re.fullmatch("[0-9]+", limit):
            raise _Refused(400, "badRequest", f"Invalid input for query parameters limit. Value: {limit}")
        if marker is not None and marker not in ids:
            status, word = (404, "itemNotFound") if name == "volumes" else (400, "badRequest")
            raise _Refused(status, word, f"marker [{marker}] not found")
        start, size = ids.index(marker) + 1 if marker is not None else 0, min(int(limit), self.most)
        page = rows[start:start + size]
        if not size or len(page) < size:
            return page, {}
        href = f"{where}?limit={limit}&marker={ids[start + size - 1]}"
        return page, {f"{name}_links": [{"rel": "next", "href": href}]}

    def _row(self, machine: Machine, minor: int) -> dict[str, Any]:
        status, task, state, power = _STATES[machine.state]
        size = (machine.cpu, machine.memory_gib, root_of(machine))
        changed = machine.created + timedelta(days=9) if machine.number % 5 else datetime.now(UTC)
        mac = f"fa:16:3e:00:{machine.number // 256 % 256:02x}:{machine.number % 256:02x}"
        rows = [{"addr": addr, "version": 4, "OS-EXT-IPS:type": kind, "OS-EXT-IPS-MAC:mac_addr": mac}
                 for kind, group in (("fixed", machine.lan), ("floating", machine.wan)) for addr in group]
        row: dict[str, Any] = {
            "id": id_of(machine), "name": machine.name, "status": status, "tenant_id": self.project,
            "user_id": uuid.uuid5(uuid.NAMESPACE_OID, "user").hex, "metadata": machine.tags,
            "hostId": uuid.uuid5(uuid.NAMESPACE_OID, f"host {machine.number % 9}").hex * 2,
            "image": "" if from_volume(machine) else {"id": str(uuid.uuid5(uuid.NAMESPACE_OID, "image")), "links": []},
            "flavor": {**_flavor(size), "original_name": _name(size), "extra_specs": {}, "swap": 0, "ephemeral": 0}
            if minor >= 47 else {"id": _name(size), "links": []},
            "created": f"{machine.created:%Y-%m-%dT%H:%M:%SZ}", "updated": f"{changed:%Y-%m-%dT%H:%M:%SZ}",
            "addresses": {"private": rows} if rows else {}, "accessIPv4": "", "accessIPv6": "", "links": [],
            "OS-DCF:diskConfig": "MANUAL", "OS-EXT-AZ:availability_zone": f"az-{machine.zone}", "config_drive": "",
            "key_name": "ops", "OS-SRV-USG:launched_at": f"{machine.created:%Y-%m-%dT%H:%M:%S.000000}",
            "OS-SRV-USG:terminated_at": None, "security_groups": [{"name": "default"}],
            "OS-EXT-STS:task_state": task, "OS-EXT-STS:vm_state": state, "OS-EXT-STS:power_state": power,
            "os-extended-volumes:volumes_attached": [
                {"id": volume, **({"delete_on_termination": False} if minor >= 3 else {})}
                for volume, _ in volumes_of(machine)]}
        return {**row, **({"tags": [], "locked": False, "description": None, "trusted_image_certificates": None}
                          if minor >= 63 else {})}

    # ---------------------------------------------------------------- Cinder

    def _volumes(self, query: dict[str, str], region: str, project: str,
                 ) -> tuple[int, dict[str, Any], dict[str, str]]:
        fleet = self.projects[project].fleets.get(region, Fleet(0))
        rows: list[dict[str, Any]] = [
                {"id": volume, "size": size, "status": "in-use", "name": "", "bootable": "false", "multiattach": False,
                 "created_at": f"{machine.created:%Y-%m-%dT%H:%M:%S.000000}", "updated_at": None, "volume_type": "ssd",
                 "availability_zone": "nova", "metadata": {}, "encrypted": False,
                 "attachments": [{"server_id": id_of(machine), "volume_id": volume, "device": f"/dev/vd{'abcdef'[n]}",
                                  "attachment_id": str(uuid.uuid5(uuid.NAMESPACE_URL, volume)), "id": volume}]}
                for machine in (fleet[n] for n in range(len(fleet)))
                for n, (volume, size) in enumerate(volumes_of(machine))]
        order = query.get("sort", "created_at:desc")
        if not re.fullmatch("created_at:(asc|desc)", order):
            raise _Refused(400, "badRequest", "Invalid sort keys.")
        rows = rows if order.endswith("asc") else rows[::-1]
        page, links = self._page(query, rows, [row["id"] for row in rows],
                                 f"{self.url}/volume-{region}/v3/{project}/volumes/detail")
        return 200, {"volumes": page, **links}, {}


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    made = Openstack({("demo", "default"): secret}, {}, fleets, latency=latency)
    return made, {"auth_url": f"{made.url}/identity", "username": "demo", "password": secret,
                  "project_id": made.project}


def organise(branches: Sequence[Branch], secret: str, *, units: Mapping[str, str] = {}, limited: bool = True,
             latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    projects = {uuid.uuid5(uuid.NAMESPACE_OID, f"{n} {branch.name}").hex: branch for n, branch in enumerate(branches)}
    made = Openstack({("demo", "default"): secret}, {}, {}, projects=projects, above=units, latency=latency)
    return made, {"auth_url": f"{made.url}/identity", "username": "demo", "password": secret,
                  "project_id": made.project}


CLOUDS = {"openstack": Cloud("RegionOne", start, organise=organise, least=Least(
    calls=1 + 2 + 1, trips=3, window_calls=5, window_trips=4,
    why="The login; a page of 1,000 servers, and the call that shows that it was the last one; the volumes beside "
        "them. A window reads ids up to it, its own rows, its volumes, and the guard against lost cells beside "
        "these."))}


def id_of(machine: Machine) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, machine.key))


def from_volume(machine: Machine) -> bool:
    return machine.number % 4 == 3


def root_of(machine: Machine) -> int:
    """The flavor's disk, which a server booted from a volume does not get."""
    return 10 if from_volume(machine) else machine.disks[0]


def volumes_of(machine: Machine) -> list[tuple[str, int]]:
    return [(str(uuid.uuid5(uuid.NAMESPACE_URL, f"{machine.key}/{n}")), size)
            for n, size in enumerate(machine.disks) if n or from_volume(machine)]


def _domain(owned: Mapping[str, Any]) -> str:
    """The id of the domain of a user or a project."""
    domain: dict[str, str] = owned.get("domain", {})
    return domain.get("id") or {"Default": "default"}.get(domain.get("name", ""), "")


def _flavor(size: tuple[int, int, int]) -> dict[str, Any]:
    cpu, memory, disk = size
    return {"vcpus": cpu, "ram": memory * 1024, "disk": disk}


def _name(size: tuple[int, int, int]) -> str:
    cpu, memory, disk = size
    return f"m{cpu}.{memory}g.{disk}"
