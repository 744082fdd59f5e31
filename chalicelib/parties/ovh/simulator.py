"""A simulator for OVHcloud: VPS and dedicated servers of one site, by the API 1.0.

Checked as the real one does: the application, the consumer key and the signature over the address as it was called, the
clock, the token of OAuth2, paths and parameters. Machines of even numbers are VPS, the others are dedicated servers. A
list holds names alone, and a disk or an address of a VPS has a call of its own.
"""

import base64
import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from ...simulators.cloud import Cloud, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet, Machine
from ...simulators.server import Call, Simulator

APPLICATION, CONSUMER = "7kbG7Bk7S9Nt7ZSV", "MtSwSrPpNjqfVSmJhLbPyr2i45lSwPU1"
CLIENT = "EU.0123456789abcdef"             # of OAuth2
_SKEW = 300                                 # seconds, unconfirmed
_VPS, _DEDICATED = r"/vps/([^/]+)", r"/dedicated/server/([^/]+)"
_CALLS = {                                  # operation -> (path, parameters)
    "GetTime": ("/auth/time", ""),
    "ListVps": ("/vps", "iamTags"),
    "ListDedicatedServers": ("/dedicated/server", "iamTags"),
    "ListAddresses": ("/ip", "type version description ip campus isAdditionalIp routedTo.serviceName iamTags"),
    "GetVps": (_VPS, ""),
    "ListVpsIps": (f"{_VPS}/ips", ""),
    "GetVpsIp": (f"{_VPS}/ips/([^/]+)", ""),
    "GetVpsService": (f"{_VPS}/serviceInfos", ""),
    "ListVpsDisks": (f"{_VPS}/disks", ""),
    "GetVpsDisk": (f"{_VPS}/disks/([0-9]+)", ""),
    "GetDedicatedServer": (_DEDICATED, ""),
    "GetDedicatedHardware": (f"{_DEDICATED}/specifications/hardware", ""),
    "ListDedicatedIps": (f"{_DEDICATED}/ips", ""),
    "GetDedicatedService": (f"{_DEDICATED}/serviceInfos", ""),
}
_STATES = {"running": "running", "stopped": "stopped", "starting": "rebooting", "stopping": "stopping",
           "pending": "installing"}

Row = dict[str, Any]


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, code, message)


def is_vps(machine: Machine) -> bool:
    return machine.number % 2 == 0


def name_of(machine: Machine) -> str:
    number = machine.number + 1
    return f"vps-{number:08x}.vps.ovh.net" if is_vps(machine) else f"ns{3_000_000 + number}.ip-51-1-{number % 250}.eu"


class Ovh(Simulator):
    """`secret`: of the application, and of the OAuth2 client. `late`: seconds by which its clock is ahead. `denied`:
    operations that the key has no rule for. `expired`: names of servers whose service ended."""

    def __init__(self, secret: str, fleet: Fleet, port: int = 0, latency: float = 0.0) -> None:
        self.secret = secret
        self.fleet = fleet
        self.denied: set[str] = set()
        self.expired: set[str] = set()
        self._rows: dict[str, Machine] = {}
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        if call.path == "/auth/oauth2/token":
            return "Login"
        path = call.path.removeprefix("/1.0")
        return next((name for name, (form, _) in _CALLS.items() if re.fullmatch(form, path)), "?")

    def answer(self, call: Call) -> Answer:
        headers = {"Content-Type": "application/json; charset=utf-8", "X-Ovh-Queryid": "EU.ext-3.63ac85b6.10528.27b4"}
        try:
            return Answer(200, headers, msgspec.json.encode(self._answer(call)))
        except _Refused as refused:
            status, code, message = refused.args
            body = {"error": code, "error_description": message} if call.operation == "Login" else {
                "errorCode": code, "httpCode": f"{status} Whatever", "message": message, "class": "Client::Whatever"}
            return Answer(status, headers, msgspec.json.encode(body))

    def _answer(self, call: Call) -> object:
        if call.operation == "Login":
            return self._login(call)
        if call.operation == "?" or call.method != "GET" or not call.path.startswith("/1.0/"):
            raise _Refused(404, "RESOURCE_NOT_FOUND", "Got an invalid (or empty) URL")
        if call.operation == "GetTime":
            return int(time.time() + self.late)
        self._check(call)
        path, words = _CALLS[call.operation]
        query = parse_qsl(call.query, keep_blank_values=True)
        if {name for name, _ in query} - set(words.split()):
            raise _Refused(400, "BAD_REQUEST", "[query] This parameter is not known")
        if call.operation in self.denied:
            raise _Refused(403, "NOT_GRANTED_CALL", "This call has not been granted")
        match = re.fullmatch(path, call.path.removeprefix("/1.0"))
        return self._read(call.operation, dict(query), *(unquote(part) for part in (match.groups() if match else ())))

    def _login(self, call: Call) -> Row:
        form = dict(parse_qsl(call.body.decode()))
        if form.get("grant_type") != "client_credentials" or form.get("scope") != "all":
            raise _Refused(400, "invalid_request", "The grant is not known")
        basic = base64.b64encode(f"{CLIENT}:{self.secret}".encode()).decode()   # as the vendor's client sends them
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT, self.secret) and (
                call.headers.get("authorization") != f"Basic {basic}"):
            raise _Refused(401, "invalid_client", "Client authentication failed")
        return {"access_token": self._token(), "token_type": "Bearer", "expires_in": 3599, "scope": "all"}

    def _token(self) -> str:
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def _check(self, call: Call) -> None:
        if token := call.headers.get("authorization"):
            if token != f"Bearer {self._token()}":
                raise _Refused(401, "INVALID_CREDENTIAL", "The token is not valid")
            return
        application, consumer, at, signature = (call.headers.get(f"x-ovh-{name}", "") for name in (
            "application", "consumer", "timestamp", "signature"))
        if application != APPLICATION:
            raise _Refused(403, "INVALID_KEY", "This application key is invalid")
        if consumer != CONSUMER:
            raise _Refused(403, "INVALID_CREDENTIAL", "This credential does not exist")
        if not re.fullmatch("[0-9]{1,12}", at) or abs(time.time() + self.late - int(at)) > _SKEW:
            raise _Refused(400, "QUERY_TIME_OUT", "Query out of time")
        there = f"://{call.headers.get('host')}{call.path}{'?' * bool(call.query)}{call.query}"
        texts = ("+".join((self.secret, CONSUMER, call.method, scheme + there, call.body.decode(), at))
                 for scheme in ("http", "https"))
        if signature not in {"$1$" + hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for text in texts}:
            raise _Refused(400, "INVALID_SIGNATURE", "Invalid signature")

    # ---------------------------------------------------------------- rows

    def _machines(self) -> dict[str, Machine]:
        if not self._rows:
            made = (self.fleet[n] for n in range(len(self.fleet)))
            self._rows.update({name_of(machine): machine for machine in made})
        return self._rows

    def _read(self, operation: str, query: Mapping[str, str], name: str = "", part: str = "") -> object:
        machines = self._machines()
        if not name:
            vps = operation == "ListVps" or query.get("type") == "vps"
            shown = {key: machine for key, machine in machines.items() if is_vps(machine) == vps}
            return [f"{ip}/32" for one in shown.values() for ip in one.wan] if operation == "ListAddresses" else (
                sorted(shown, key=lambda key: hashlib.sha256(key.encode()).digest()))           # in no order
        machine = machines.get(name)
        if machine is None or is_vps(machine) != ("Vps" in operation):
            raise _Refused(404, "RESOURCE_NOT_FOUND", "This service does not exist")
        if name in self.expired:
            raise _Refused(460, "SERVICE_EXPIRED", "This service is expired")
        if operation in _ROWS:
            return _ROWS[operation](machine)
        if operation == "GetVpsDisk":
            n = int(part) - 9_000
            if not 0 <= n < len(machine.disks):
                raise _Refused(404, "RESOURCE_NOT_FOUND", "The requested object does not exist")
            return {"id": int(part), "size": machine.disks[n], "type": "additional" if n else "primary",
                    "state": "connected", "bandwidthLimit": 0, "monitoring": None, "lowFreeSpaceThreshold": None}
        if part not in _ips(machine):
            raise _Refused(404, "RESOURCE_NOT_FOUND", "The requested object does not exist")
        return {"ipAddress": part, "type": "primary" if part == (*machine.wan, part)[0] else "additional",
                "version": "v6" if ":" in part else "v4", "gateway": None, "geolocation": "fr", "macAddress": None,
                "reverse": None}


def _ips(machine: Machine) -> Sequence[str]:
    return [f"2001:db8:302:{machine.number + 1:x}::1" if is_vps(machine) else f"2001:db8:302:{machine.number + 1:x}::",
            *reversed(machine.wan)]


def _blocks(machine: Machine) -> Sequence[str]:
    """The server's own, and a network that is routed to it."""
    return [*(f"{ip}/{'64' if ':' in ip else '32'}" for ip in _ips(machine)), "51.9.0.0/29"]


def _disks(machine: Machine) -> Sequence[int]:
    return [9_000 + n for n in reversed(range(len(machine.disks)))]


def _iam(machine: Machine) -> Row:
    kind = "vps" if is_vps(machine) else "dedicatedServer"
    return {"id": f"000da00d-00d0-0b00-0000-{machine.number:012x}", "displayName": machine.name,
            "urn": f"urn:v1:eu:resource:{kind}:{name_of(machine)}", "tags": {**machine.tags, "ovh:isManaged": "true"}}


def _vps(machine: Machine) -> Row:
    return {"name": name_of(machine), "displayName": machine.name, "cluster": "", "keymap": None, "vcore": machine.cpu,
            "memoryLimit": machine.memory_gib * 1024, "zone": f"Region OpenStack: os-gra{machine.zone}",
            "zoneType": "region", "netbootMode": "local", "offerType": "ssd", "monitoringIpBlocks": [],
            "slaMonitoring": False, "state": _STATES[machine.state],
            "model": {"name": f"vps-le-{machine.cpu}-{machine.memory_gib}-{machine.disks[0]}", "offer": "VPS",
                      "version": "2019v1", "disk": machine.disks[0], "memory": machine.memory_gib * 1024,
                      "vcore": machine.cpu, "maximumAdditionnalIp": 16, "datacenter": [],
                      "availableOptions": ["additionalDisk", "snapshot"]},
            "lockStatus": {"locked": False, "lockReason": None}, "iam": _iam(machine)}


def _dedicated(machine: Machine) -> Row:
    return {"name": name_of(machine), "serverId": 1_000_000 + machine.number, "ip": (*machine.wan, None)[0],
            "reverse": f"{machine.name}.example.com", "os": "debian12_64", "state": "ok",
            "powerState": "poweroff" if machine.state in ("stopped", "stopping") else "poweron",
            "datacenter": f"gra{machine.zone}", "region": "eu-west-gra", "availabilityZone": "eu-west-gra-a",
            "commercialRange": "RISE-3", "rack": "G000A00", "bootId": 1, "bootScript": None, "linkSpeed": 1000,
            "monitoring": False, "noIntervention": False, "newUpgradeSystem": True, "professionalUse": False,
            "rescueMail": None, "rescueSshKey": None, "rootDevice": None, "supportLevel": "pro", "iam": _iam(machine)}


def _hardware(machine: Machine) -> Row:
    return {"description": "RISE-3", "numberOfProcessors": 1, "coresPerProcessor": max(1, machine.cpu // 2),
            "threadsPerProcessor": machine.cpu, "processorArchitecture": "x86_64", "processorName": "XeonE-2288G",
            "memorySize": {"unit": "MB", "value": machine.memory_gib * 1024}, "bootMode": "legacy", "usbKeys": None,
            "diskGroups": [{"diskGroupId": n, "numberOfDisks": 1, "diskType": "SSD", "raidController": None,
                            "description": f"1 X Disk SSD {size} GB", "defaultHardwareRaidSize": None,
                            "defaultHardwareRaidType": None, "diskSize": {"unit": "GB", "value": size}}
                           for n, size in enumerate(machine.disks, 1)],
            "formFactor": "1u", "motherboard": "E3C246D4U2-2T", "expansionCards": None}


def _service(machine: Machine) -> Row:
    return {"serviceId": 5_000_000 + machine.number, "creation": machine.created.strftime("%Y-%m-%d"),
            "expiration": "2027-01-01", "engagedUpTo": None, "status": "ok", "domain": name_of(machine),
            "canDeleteAtExpiration": True, "contactAdmin": "aa1-ovh", "contactBilling": "aa1-ovh",
            "contactTech": "aa1-ovh", "possibleRenewPeriod": [1, 3], "renewalType": "automaticV2016",
            "renew": {"automatic": True, "period": 1, "forced": False, "deleteAtExpiration": False,
                      "manualPayment": False}}


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    """One site: the first of the fleets."""
    return Ovh(secret, next(iter(fleets.values())), latency=latency), {
        "application_key": APPLICATION, "application_secret": secret, "consumer_key": CONSUMER}


_ROWS: Mapping[str, Callable[[Machine], object]] = {
    "GetVps": _vps, "GetVpsService": _service, "ListVpsIps": _ips, "ListVpsDisks": _disks,
    "GetDedicatedServer": _dedicated, "GetDedicatedService": _service, "GetDedicatedHardware": _hardware,
    "ListDedicatedIps": _blocks,
}
CLOUDS = {"ovh": Cloud("eu", start, least=Least(
    calls=1 + 2 + 500 * 4 + 622 + 500 * 4, trips=3 + 3, window_calls=1 + 2 + 10 * 4 + 11, window_trips=3 + 2,
    why="The clock, the names of both kinds, four calls for each of 500 VPS and 500 dedicated servers, and one for "
        "each disk of a VPS that has several. No list holds more than names."))}
