"""A simulator for Huawei Cloud ECS, EVS and the two lists of IAM: ListServersDetails, ListVolumes, projects, regions.

It checks what the real one does: signature over the headers that were signed, fifteen minutes of clock, the project of
a region in path and header, pages by number (ECS) and by row (EVS), at most 60 ids, enterprise projects, 200 calls a
second for each key and API. A key of enterprise projects alone must ask for them.
"""

import hashlib
import hmac
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec

from ...simulators.cloud import Cloud, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet, Machine
from ...simulators.server import Call, Rate, Simulator

REGIONS = ("cn-north-4", "cn-east-3", "ap-southeast-1", "eu-west-101", "my-kualalumpur-1")
CLOSED = "la-north-2"                       # there, but without a project of the account
_CALLS = {r"/v1/([^/]+)/cloudservers/detail": "ListServersDetails", r"/v2/([^/]+)/cloudvolumes/detail": "ListVolumes",
          r"/v3/auth/projects": "ListAuthProjects", r"/v3/projects": "ListProjects", r"/v3/regions": "ListRegions",
          r"/v1\.0/enterprise-projects": "ListEnterpriseProjects"}
_KNOWN = {
    "ListServersDetails": {"enterprise_project_id", "flavor", "ip", "limit", "name", "not-tags", "offset", "status",
                           "reservation_id", "tags", "ip_eq", "server_id", "marker"},
    "ListVolumes": {"marker", "name", "limit", "sort_key", "offset", "sort_dir", "status", "metadata", "id", "ids",
                    "availability_zone", "multiattach", "service_type", "enterprise_project_id", "server_id"},
    "ListAuthProjects": set[str](),
    "ListProjects": {"name"},               # the way of the vendor's SDK
    "ListRegions": set[str](),
    "ListEnterpriseProjects": {"limit", "offset", "sort_key", "sort_dir", "id", "name", "status", "type"},
}
_STATES = {"running": ("ACTIVE", None), "stopped": ("SHUTOFF", None), "starting": ("SHUTOFF", "powering-on"),
           "stopping": ("ACTIVE", "powering-off"), "pending": ("BUILD", "spawning"), "terminated": ("DELETED", None)}


def project_of(region: str) -> str:
    """The id of the account's project in a region."""
    return hashlib.md5(region.encode(), usedforsecurity=False).hexdigest()


def enterprise_project_of(machine: Machine) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(machine.project))) if machine.project else "0"


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, code, message)


class Huaweicloud(Simulator):
    """`keys`: access key -> secret key. `fleets`: region -> fleet. `tokens`: of temporary keys, by access key.

    `granted`: the keys have rights in enterprise projects alone. `limited`: the documented rates are enforced.
    `projects`: enterprise projects that the keys may see; 0: they may not list them. `bare_metal`: a physical server
    stands in the list, behind the others.
    """

    def __init__(self, keys: Mapping[str, str], fleets: Mapping[str, Fleet], *, tokens: Mapping[str, str] = {},
                 granted: bool = False, limited: bool = True, port: int = 0, latency: float = 0.0) -> None:
        self.keys = dict(keys)
        self.fleets = dict(fleets)
        self.tokens = dict(tokens)
        self.granted = granted
        self.bare_metal = False
        self.projects = 0
        self.rates = {name: Rate(200) for name in _KNOWN} if limited else {}
        self._volumes: dict[str, dict[str, dict[str, Any]]] = {}
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        return next((name for path, name in _CALLS.items() if re.fullmatch(path, call.path)), "?")

    def answer(self, call: Call) -> Answer:
        status = 200
        try:
            body = self._answer(call)
        except _Refused as refused:
            status, code, message = refused.args
            body = {"error_msg": message, "error_code": code, "request_id": uuid.uuid4().hex}
            if code.startswith("Ecs."):
                body = {"error": {"code": code, "message": message}}
        return Answer(status, {"Content-Type": "application/json"}, msgspec.json.encode(body))

    def _answer(self, call: Call) -> dict[str, Any]:
        if call.method != "GET" or call.operation == "?":
            raise _Refused(404, "APIGW.0101", "The API does not exist or has not been published in the environment.")
        key = self._check_signature(call)
        if call.operation in self.rates and not self.rates[call.operation].allows(key, call.at):
            raise _Refused(429, "APIGW.0308", "The throttling threshold has been reached.")
        parameters = parse_qsl(call.query, keep_blank_values=True, strict_parsing=bool(call.query))
        query = dict(parameters)
        if len(query) < len(parameters) or query.keys() - _KNOWN[call.operation]:
            raise _Refused(400, "Ecs.0005", "Invalid parameter values.")
        if call.operation == "ListRegions":
            return {"links": {}, "regions": [
                {"id": name, "type": "public", "parent_region_id": None, "description": "", "links": {},
                 "locales": {"zh-cn": name, "en-us": name.upper()}} for name in (*REGIONS, CLOSED)]}
        if call.operation in ("ListAuthProjects", "ListProjects"):
            return {"links": {}, "projects": [
                {"id": project_of(name), "name": name, "enabled": True, "domain_id": "d" * 32, "parent_id": "d" * 32,
                 "is_domain": False, "description": "", "links": {}} for name in (*REGIONS, "MOS")
                if query.get("name", name) == name]}
        if call.operation == "ListEnterpriseProjects":
            if not self.projects:
                raise _Refused(403, "EPS.0004", "No permission.")
            return {"enterprise_projects": [], "total_count": self.projects}        # never read: the count is
        region = self._region(call)
        if self.granted and "enterprise_project_id" not in query:
            raise _Refused(403, "Ecs.0003", "You do not have permission to perform this operation.")
        return self._servers(query, region) if call.operation == "ListServersDetails" else self._disks(query, region)

    def _region(self, call: Call) -> str:
        project = call.path.split("/")[2]
        region = next((name for name in REGIONS if project_of(name) == project), None)
        if region is None or call.headers.get("x-project-id") != project:
            raise _Refused(401, "APIGW.0301", "Incorrect IAM authentication information: project id not match")
        return region

    # ---------------------------------------------------------------- signature

    def _check_signature(self, call: Call) -> str:
        match = re.fullmatch(r"SDK-HMAC-SHA256 Access=([^,]+), SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})",
                             call.headers.get("authorization", ""))
        if not match:
            raise _Refused(401, "APIGW.0301", "Incorrect IAM authentication information: authorization format")
        key, signed, signature = match.groups()
        date = call.headers.get("x-sdk-date", "")
        try:
            then = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        except ValueError:
            then = 0.0
        if abs(time.time() - then) > 900:
            raise _Refused(401, "APIGW.0301", "Incorrect IAM authentication information: x-sdk-date expired")
        if key not in self.keys or call.headers.get("x-security-token") != self.tokens.get(key):
            raise _Refused(401, "APIGW.0301", "Incorrect IAM authentication information: Unauthorized")
        must = {"host", "x-sdk-date", *(name for name in ("x-project-id", "x-security-token") if name in call.headers)}
        if must - set(signed.split(";")):
            raise _Refused(401, "APIGW.0301", "Incorrect IAM authentication information: header is not signed")
        query = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(
            parse_qsl(call.query, keep_blank_values=True)))
        lines = "".join(f"{name}:{call.headers.get(name, '').strip()}\n" for name in signed.split(";"))
        body = hashlib.sha256(call.body).hexdigest()
        canonical = "\n".join((call.method, call.path.rstrip("/") + "/", query, lines, signed, body))
        text = f"SDK-HMAC-SHA256\n{date}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        if hmac.new(self.keys[key].encode(), text.encode(), hashlib.sha256).hexdigest() != signature:
            raise _Refused(401, "APIGW.0301", "Incorrect IAM authentication information: verify aksk signature fail")
        return key

    # ---------------------------------------------------------------- answers

    def _servers(self, query: Mapping[str, str], region: str) -> dict[str, Any]:
        number, limit = _number(query, "offset", 1, 0), _number(query, "limit", 25, 1, 1000)
        wanted = query.get("enterprise_project_id", "all_granted_eps")
        fleet = self.fleets.get(region, Fleet(0))
        chosen: Sequence[int] = range(len(fleet))
        if wanted != "all_granted_eps":
            chosen = [n for n in chosen if enterprise_project_of(fleet[n]) == wanted]
        start = (max(1, number) - 1) * limit
        rows = [self._row(fleet[n], region) for n in chosen[start:start + limit]]
        bare = self.bare_metal and query.get("not-tags") != "__type_baremetal"      # unless left out by its tag
        if bare and start + len(rows) >= len(chosen) and len(rows) < limit:
            rows.append({"id": "bare-metal", "name": "bare-metal", "status": "ACTIVE", "tags": ["__type_baremetal"]})
        return {"count": len(chosen) + bare, "servers": rows}

    def _row(self, machine: Machine, region: str) -> dict[str, Any]:
        status, task = _STATES[machine.state]
        created = machine.created.strftime("%Y-%m-%dT%H:%M:%SZ")
        ips = [("fixed", ip, n == 0) for n, ip in enumerate(machine.lan)] + [
            ("floating", ip, n == 0) for n, ip in enumerate(machine.wan)]
        flavor = f"s6.{machine.cpu}u.{machine.memory_gib}g"
        return {
            "id": _id(machine, "server"), "name": machine.name, "status": status, "OS-EXT-STS:task_state": task,
            "OS-EXT-STS:vm_state": {"ACTIVE": "active", "SHUTOFF": "stopped"}.get(status, "building"),
            "OS-EXT-STS:power_state": 1 if status == "ACTIVE" else 4, "fault": None, "description": "",
            "addresses": {"164489f6-cbf7-45b4-b6d0-d407c48cf7fc": [
                {"version": "4", "addr": ip, "OS-EXT-IPS:type": kind, "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:95:88:3f",
                 "OS-EXT-IPS:port_id": _id(machine, f"port {n}"), "primary": primary}
                for n, (kind, ip, primary) in enumerate(ips)]},
            "flavor": {"id": flavor, "name": flavor, "disk": "0", "vcpus": str(machine.cpu),
                       "ram": str(machine.memory_gib * 1024), "gpus": [], "asic_accelerators": []},
            "accessIPv4": "", "accessIPv6": "", "image": {"id": "1ce5800a-e487-4c1b-b264-3353a39e2b4b"},
            "hostId": "f92345b97fd291f67a29ed735a82a8983f370175d2ba3d18d66893f4", "created": created,
            "updated": created, "metadata": {
                "charging_mode": "1" if machine.ends else "0", "os_type": "Linux", "image_name": "CentOS 7.6 64bit",
                "vpc_id": "3bda6801-4d8a-4ba5-a89a-1cc8f8a1c8d9"},
            "tags": [f"{key}={value}" for key, value in machine.tags.items()], "locked": False, "config_drive": "",
            "tenant_id": project_of(region), "user_id": "bb7f23e27e7e46f3aaceb5f53a158bdc", "key_name": None,
            "os-extended-volumes:volumes_attached": [
                {"id": _id(machine, f"disk {n}"), "device": f"/dev/vd{chr(97 + n)}", "delete_on_termination": "false",
                 "bootIndex": "0" if n == 0 else None} for n in range(len(machine.disks))],
            "OS-EXT-AZ:availability_zone": f"{region}{' abc'[machine.zone]}", "OS-DCF:diskConfig": "MANUAL",
            "OS-SRV-USG:launched_at": machine.created.strftime("%Y-%m-%dT%H:%M:%S.000000"), "host_status": "UP",
            "enterprise_project_id": enterprise_project_of(machine),
            "sys_tags": [{"key": "_sys_enterprise_project_id", "value": enterprise_project_of(machine)}],
            "security_groups": [{"id": "71846bf6-1cda-4515-8590-3707be295e76", "name": "default"}]}

    def _disks(self, query: Mapping[str, str], region: str) -> dict[str, Any]:
        offset, limit = _number(query, "offset", 0, 0), _number(query, "limit", 1000, 1, 1000)
        if region not in self._volumes:
            fleet = self.fleets.get(region, Fleet(0))
            volumes = [_volume(fleet[number], n, region) for number in range(len(fleet))
                     for n in range(len(fleet[number].disks))]
            self._volumes[region] = {row["id"]: row for row in sorted(volumes, key=lambda row: row["id"])}
        rows = self._volumes[region]
        if "ids" in query:
            if not re.fullmatch(r"\['[^',]+'(,'[^',]+')*\]", query["ids"]) or query["ids"].count(",") >= 60:
                raise _Refused(400, "EVS.5400", "ids is a list of at most 60 ids.")
            ids = re.findall(r"'([^',]+)'", query["ids"])
            rows = {key: rows[key] for key in ids if key in rows}
        wanted = query.get("enterprise_project_id", "all_granted_eps")
        chosen = [row for row in rows.values() if wanted in ("all_granted_eps", row["enterprise_project_id"])]
        return {"count": len(chosen), "volumes": chosen[offset:offset + limit], "volumes_links": []}


def _volume(machine: Machine, n: int, region: str) -> dict[str, Any]:
    key, owner = _id(machine, f"disk {n}"), _id(machine, "server")
    return {"id": key, "name": f"{machine.name}-volume-{n}", "status": "in-use", "size": machine.disks[n],
            "attachments": [{"server_id": owner, "attachment_id": _id(machine, f"attachment {n}"), "volume_id": key,
                             "attached_at": machine.created.strftime("%Y-%m-%dT%H:%M:%S.000000"), "id": key,
                             "host_name": None, "device": f"/dev/vd{chr(97 + n)}"}],
            "availability_zone": f"{region}{' abc'[machine.zone]}", "volume_type": "SAS", "bootable": "false",
            "created_at": machine.created.strftime("%Y-%m-%dT%H:%M:%S.000000"), "multiattach": False,
            "shareable": "False", "encrypted": False, "metadata": {}, "service_type": "EVS",
            "enterprise_project_id": enterprise_project_of(machine)}


def _id(machine: Machine, what: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{machine.key}{machine.number} {what}"))


def _number(query: Mapping[str, str], name: str, default: int, least: int, most: int = 10 ** 9) -> int:
    text = query.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not least <= int(text) <= most:
        raise _Refused(400, "Ecs.0005", "Invalid parameter values.")
    return int(text)


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    keys: dict[str, object] = {"access_key": "AKIDdemo", "secret_key": secret}
    return Huaweicloud({"AKIDdemo": secret}, fleets, limited=limited, latency=latency), keys


CLOUDS = {"huaweicloud": Cloud("cn-north-4", start, Least(
    calls=1 + 10 + 2, trips=3, window_calls=1 + 1 + 1, window_trips=3, rate=(200, 1.0),
    why="The region's project; 10 pages of 100 with a count, as the vendor advises (1,000 are allowed); 2 pages of "
        "1,000 disks, or those of the window by their ids."))}
