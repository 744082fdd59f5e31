"""A simulator for STACKIT: the token of a service account key, and the IaaS API v2 of one project.

Checked as the real ones do: the JWT's algorithm, signature, claims and age, the access token, the project, regions,
parameters. A server has network interfaces only with `details=true`, and sizes are in other lists.
"""

import base64
import hashlib
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl
from zlib import crc32

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ...simulators.bearer import time_text, uuid_of
from ...simulators.cloud import Cloud, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet, Machine
from ...simulators.server import Call, Simulator

PROJECT = "0e5b5d5a-9a2c-4b8f-8f2e-2a9d6d1c7b10"
EMAIL = "twocloud-abc1234@sa.stackit.cloud"
REGIONS = ("eu01", "eu02")
_AUDIENCE = "https://stackit-service-account-prod.apps.01.cf.eu01.stackit.cloud"
_NETWORK = "2d1f5d53-0e3f-4d64-8cf1-3a3b7a0a9f11"
_CALLS = {                                  # operation -> (path, parameters)
    "ListServers": (r"/v2/projects/([^/]+)/regions/([^/]+)/servers", "details label_selector"),
    "ListVolumes": (r"/v2/projects/([^/]+)/regions/([^/]+)/volumes", "label_selector"),
    "ListMachineTypes": (r"/v2/projects/([^/]+)/regions/([^/]+)/machine-types", "filter"),
    "ListZones": (r"/v2/regions/([^/]+)/availability-zones", ""),
}
_STATES = {"running": ("ACTIVE", "RUNNING"), "stopped": ("INACTIVE", "STOPPED"), "starting": ("STARTING", "STOPPED"),
           "stopping": ("STOPPING", "RUNNING"), "pending": ("CREATING", None)}

Row = dict[str, Any]


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)


class Stackit(Simulator):
    """`keys`: kid -> public key. `fleets`: by region, of the project alone."""

    def __init__(self, keys: Mapping[str, rsa.RSAPublicKey], fleets: Mapping[str, Fleet], port: int = 0,
                 latency: float = 0.0) -> None:
        self.keys = dict(keys)
        self.fleets = dict(fleets)
        self.denied: set[str] = set()
        self.tokens: set[str] = set()
        self._nonces: set[str] = set()
        self._rows: dict[str, list[Row]] = {}
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        if call.path == "/token":
            return "Login"
        return next((name for name, (form, _) in _CALLS.items() if re.fullmatch(form, call.path)), "?")

    def answer(self, call: Call) -> Answer:
        headers = {"Content-Type": "application/json"}
        try:
            return Answer(200, headers, msgspec.json.encode(self._answer(call)))
        except _Refused as refused:
            status, message = refused.args
            body = {"error": message, "error_description": "no"} if call.operation == "Login" else {
                "code": status, "msg": message}
            return Answer(status, headers, msgspec.json.encode(body))

    def _answer(self, call: Call) -> object:
        if call.operation == "Login" and call.method == "POST":
            return self._login(dict(parse_qsl(call.body.decode())))
        if call.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            raise _Refused(401, "Unauthorized")
        if call.operation == "?" or call.method != "GET":
            raise _Refused(404, "Not Found")
        path, words = _CALLS[call.operation]
        query = dict(parse_qsl(call.query, keep_blank_values=True))
        if query.keys() - set(words.split()) or query.get("details", "true") not in ("true", "false"):
            raise _Refused(400, "Bad Request")
        if call.operation in self.denied:
            raise _Refused(403, "Forbidden")
        *project, region = re.fullmatch(path, call.path).groups()               # type: ignore[union-attr]
        if region not in REGIONS or project not in ([], [PROJECT]):
            raise _Refused(404, "Not Found")
        if call.operation == "ListZones":
            return {"items": [f"{region}-{n}" for n in (*"123", "m")]}
        rows = self._made(call.operation, region)
        if call.operation == "ListServers" and query.get("details", "false") == "false":
            rows = [{name: value for name, value in row.items() if name not in ("nics", "volumes")} for row in rows]
        return {"items": rows}

    # ---------------------------------------------------------------- the token

    def _login(self, form: Mapping[str, str]) -> Row:
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            raise _Refused(400, "unsupported_grant_type")
        now = time.time()
        try:
            self._verify(form.get("assertion", ""), now)
        except (ValueError, KeyError, TypeError, InvalidSignature):
            raise _Refused(401, "invalid_grant") from None
        claims = {"iss": "stackit/serviceaccount", "sub": EMAIL, "exp": int(now) + 3600, "jti": len(self._nonces)}
        parts = ({"alg": "HS256"}, claims)
        text = ".".join(_base64(msgspec.json.encode(part)) for part in parts)
        token = f"{text}.{_base64(hashlib.sha256(f'{sorted(self.keys)}{text}'.encode()).digest())}"
        self.tokens.add(token)
        return {"access_token": token, "refresh_token": token, "token_type": "Bearer", "expires_in": 3600, "scope": ""}

    def _verify(self, assertion: str, now: float) -> None:
        text, _, signature = assertion.rpartition(".")
        header, claims = (msgspec.json.decode(_bytes(part), type=Row) for part in text.split("."))
        self.keys[header["kid"]].verify(_bytes(signature), text.encode(), PKCS1v15(), SHA512())
        if header["alg"] != "RS512" or claims["aud"] != _AUDIENCE or claims["sub"] != _SUBJECT or (
                claims["iss"] != EMAIL) or claims["jti"] in self._nonces:
            raise ValueError
        if not now - 60 < claims["iat"] + 30 < claims["exp"] <= claims["iat"] + 600:
            raise ValueError
        self._nonces.add(claims["jti"])

    # ---------------------------------------------------------------- rows

    def _made(self, operation: str, region: str) -> list[Row]:
        key = f"{operation} {region}"
        if key not in self._rows:
            fleet = self.fleets.get(region, Fleet(0))
            make = {"ListServers": _servers, "ListVolumes": _volumes, "ListMachineTypes": _types}[operation]
            self._rows[key] = [row for n in range(len(fleet)) for row in make(fleet[n], region)]
            if operation == "ListMachineTypes":
                self._rows[key] = list({row["name"]: row for row in self._rows[key]}.values())
            self._rows[key].sort(key=lambda row: crc32(str(row.get("id", row["name"])).encode()))       # in no order
        return self._rows[key]


def type_of(machine: Machine) -> str:
    return f"g1.{machine.cpu}x{machine.memory_gib}"


def _servers(machine: Machine, region: str) -> list[Row]:
    status, power = _STATES[machine.state]
    row: Row = {"id": uuid_of(machine, 0), "name": machine.name, "machineType": type_of(machine), "status": status,
                "availabilityZone": f"{region}-{machine.zone}", "createdAt": time_text(machine),
                "updatedAt": time_text(machine), "launchedAt": time_text(machine), "labels": machine.tags,
                "keypairName": "ann", "userData": "c2VjcmV0", "metadata": {}, "securityGroups": [],
                "bootVolume": {"id": uuid_of(machine, 10), "deleteOnTermination": True},
                "volumes": [uuid_of(machine, 10 + n) for n in range(1, len(machine.disks))],
                "nics": [{"nicId": uuid_of(machine, 20 + n), "mac": "fa:16:3e:00:00:01", "networkId": _NETWORK,
                          "networkName": "web", "nicSecurity": True, "ipv4": ip, "securityGroups": [],
                          **({"publicIp": machine.wan[n]} if n < len(machine.wan) else {})}
                         for n, ip in enumerate(machine.lan)]}
    return [row | ({"powerStatus": power} if power else {})]


def _volumes(machine: Machine, region: str) -> list[Row]:
    """Each fifth machine has one beside it that is attached to nothing."""
    rows: list[Row] = [
        {"id": uuid_of(machine, 10 + n), "name": f"disk{n}", "size": size, "status": "ATTACHED", "bootable": n == 0,
         "availabilityZone": f"{region}-{machine.zone}", "performanceClass": "storage_premium_perf1",
         "serverId": uuid_of(machine, 0), "createdAt": time_text(machine), "updatedAt": time_text(machine)}
        for n, size in enumerate(machine.disks)]
    if machine.number % 5 == 0:
        rows.append({"id": uuid_of(machine, 99), "name": "spare", "size": 7, "status": "AVAILABLE",
                     "availabilityZone": f"{region}-1"})
    return rows


def _types(machine: Machine, region: str) -> list[Row]:
    return [{"name": type_of(machine), "vcpus": machine.cpu, "ram": machine.memory_gib * 1024, "disk": 5,
             "description": "", "extraSpecs": {"cpu": "amd-epycrome-7702"}}]


_SUBJECT = "9f3f2a3e-1c1a-4a8e-9c57-5e0f7e9b4b11"


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    """The secret is the key's id: whatever holds a token holds it."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return Stackit({secret: key.public_key()}, fleets, latency=latency), {
        "project_id": PROJECT, "service_account_key": {
            "id": secret, "active": True, "createdAt": "2026-01-01T00:00:00.000+00:00", "keyAlgorithm": "RSA_2048",
            "validUntil": "2099-01-01T00:00:00.000+00:00", "keyOrigin": "GENERATED", "keyType": "USER_MANAGED",
            "publicKey": public, "credentials": {"aud": _AUDIENCE, "iss": EMAIL, "kid": secret, "sub": _SUBJECT,
                                                 "privateKey": pem}}}


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True)


CLOUDS = {"stackit": Cloud("eu01", start, least=Least(
    calls=1 + 3, trips=2, window_calls=1 + 3, window_trips=2,
    why="The token; the servers with their addresses, the volumes and the machine types, each in one answer."))}
