"""A simulator for Baidu AI Cloud BCC: instances, volumes and regions of the REST API v2, signed with bce-auth-v1.

Checked as the real one does: signature over the headers that were signed, its time and validity, session tokens,
maxKeys from 1 to 1000, markers that a list gave. A wrong signature is HTTP 400. Which region is asked for stands in
the host's name alone: at any other name the first region answers, as a proxy in front of one region would.
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

REGIONS = {"bj": "Beijing", "gz": "Guangzhou", "su": "Suzhou", "hkg": "Hong Kong", "fwh": "Wuhan", "bd": "Baoding",
           "sin": "Singapore", "fsh": "Shanghai"}
_CALLS = {("GET", "/v2/instance"): "ListInstances", ("GET", "/v2/volume"): "ListVolumes",
          ("POST", "/v2/region/describeRegions"): "DescribeRegions"}
_STATES = {"running": "Running", "stopped": "Stopped", "starting": "Starting", "stopping": "Stopping",
           "pending": "Starting", "terminated": "Recycled"}
_USUALLY_SIGNED = {"host", "content-length", "content-type", "content-md5"}


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(status, code, message or code)


class Baidu(Simulator):
    """`keys`: access key id -> secret. `fleets`: region -> fleet. `tokens`: of temporary keys, by access key id.

    `with_volumes`: the list of instances holds them, as the vendor's SDK says and the documented sample does not.
    `limited`: ten calls a second for each key; what the real limit is, nobody tells. `late`: seconds by which its
    clock is ahead.
    """

    def __init__(self, keys: Mapping[str, str], fleets: Mapping[str, Fleet], *, tokens: Mapping[str, str] = {},
                 with_volumes: bool = False, limited: bool = True, late: float = 0.0, port: int = 0,
                 latency: float = 0.0) -> None:
        self.keys = dict(keys)
        self.fleets = dict(fleets)
        self.tokens = dict(tokens)
        self.with_volumes = with_volumes
        self.late = late
        self._rate = Rate(10) if limited else None
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        return _CALLS.get((call.method, call.path), "?")

    def answer(self, call: Call) -> Answer:
        status, body = 200, {}
        try:
            body = self._answer(call)
        except _Refused as refused:
            status, code, message = refused.args
            body = {"requestId": str(uuid.uuid4()), "code": code, "message": message}
        return Answer(status, {"Content-Type": "application/json;charset=UTF-8", "x-bce-request-id": str(uuid.uuid4())},
                      msgspec.json.encode(body))

    def _answer(self, call: Call) -> dict[str, Any]:
        key_id = self._check_signature(call)
        if self._rate and not self._rate.allows(key_id, call.at):
            raise _Refused(429, "RequestRateLimitExceeded", "Your request rate is too big.")
        if call.operation == "?":
            raise _Refused(400, "InvalidURI", "Could not parse the specified URI.")
        if call.operation == "DescribeRegions":
            return self._regions(call)
        query = dict(parse_qsl(call.query, keep_blank_values=True))
        host = re.fullmatch(r"bcc\.([a-z0-9-]+)\.baidubce\.com", call.headers.get("host", ""))
        region = host[1] if host else next(iter(self.fleets), "bj")
        fleet = self.fleets.get(region, Fleet(0))
        machines = [fleet[n] for n in range(len(fleet))]
        if call.operation == "ListInstances":
            rows = [(f"i-{m.key}", m) for m in machines]
            return _page(query, "instances", [(key, lambda m=m: self._row(m, region)) for key, m in rows])
        owner = query.get("instanceId")
        return _page(query, "volumes", [
            (_volume_id(m, n), lambda m=m, n=n: _volume(m, n, region))
            for m in machines if owner in (None, f"i-{m.key}") for n in range(len(m.disks))])

    # ---------------------------------------------------------------- signature

    def _check_signature(self, call: Call) -> str:
        match = re.fullmatch(r"bce-auth-v1/([^/]+)/(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)/(\d{1,6})/([a-z0-9;-]*)/"
                             r"([0-9a-f]{64})", call.headers.get("authorization", ""))
        if not match:
            raise _Refused(400, "InvalidHTTPAuthHeader", "The HTTP authorization header is invalid.")
        key_id, stamp, valid, signed, signature = match.groups()
        if key_id not in self.keys:
            raise _Refused(403, "InvalidAccessKeyId", "The Access Key ID you provided does not exist in our records.")
        if self.tokens.get(key_id) != call.headers.get("x-bce-security-token"):
            raise _Refused(400, "InvalidSessionToken", "The session token is not valid.")
        names = set(signed.split(";")) if signed else {
            name for name in call.headers if name in _USUALLY_SIGNED or name.startswith("x-bce-")}
        if "host" not in names or not names <= call.headers.keys():
            raise _Refused(400, "InvalidHTTPAuthHeader", "The host must be signed, and no header that is not there.")
        lines = sorted(f"{quote(name, safe='')}:{quote(call.headers[name].strip(), safe='')}" for name in names)
        pairs = sorted(f"{quote(name, safe='')}={quote(value, safe='')}"
                       for name, value in parse_qsl(call.query, keep_blank_values=True))
        canonical = "\n".join((call.method, quote(call.path, safe="/"), "&".join(pairs), *lines))
        scope = f"bce-auth-v1/{key_id}/{stamp}/{valid}"
        key = hmac.new(self.keys[key_id].encode(), scope.encode(), hashlib.sha256).hexdigest()
        if hmac.new(key.encode(), canonical.encode(), hashlib.sha256).hexdigest() != signature:
            raise _Refused(400, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
        age = time.time() + self.late - datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
        if not -300 <= age <= int(valid):
            raise _Refused(400, "RequestExpired", "Request has expired.")
        return key_id

    # ---------------------------------------------------------------- answers

    def _regions(self, call: Call) -> dict[str, Any]:
        try:
            region = msgspec.json.decode(call.body, type=dict[str, str]).get("region")
        except ValueError:
            raise _Refused(400, "MalformedJSON", "The JSON you provided was not well-formed.") from None
        return {"regions": [{"regionId": code, "regionName": name, "regionEndpoint": f"bcc.{code}.baidubce.com"}
                            for code, name in REGIONS.items() if region in (None, "", code)]}

    def _row(self, machine: Machine, region: str) -> dict[str, Any]:
        key, zone = machine.key, "abc"[machine.zone - 1]
        row: dict[str, Any] = {
            "id": f"i-{key}", "name": machine.name, "roleName": "", "hostname": machine.name, "instanceType": "N6",
            "spec": f"bcc.g5.c{machine.cpu}m{machine.memory_gib}", "status": _STATES[machine.state], "desc": "",
            "createdFrom": "customPurchase", "paymentTiming": "Prepaid" if machine.ends else "Postpaid",
            "expireTime": f"{machine.ends:%Y-%m-%dT%H:%M:%SZ}" if machine.ends else "",
            "createTime": f"{machine.created:%Y-%m-%dT%H:%M:%SZ}", "internalIp": machine.lan[0],
            "publicIp": machine.wan[0] if machine.wan else "", "cpuCount": machine.cpu, "isomerismCard": "",
            "cardCount": "0", "npuVideoMemory": "", "memoryCapacityInGB": machine.memory_gib, "localDiskSizeInGB": 0,
            "imageId": "m-zlaNc3qH", "placementPolicy": "default", "subnetId": "sbn-2escuever5fi",
            "vpcId": "vpc-vv3xw6d9970b", "zoneName": f"cn-{region}-{zone}", "dedicatedHostId": "",
            "deletionProtection": 0, "deploysetList": [], "autoRenew": False, "ipv6": "",
            "resGroupInfos": [{"groupId": f"RESG-{machine.project}", "groupName": "test"}] if machine.project else [],
            "nicInfo": {
                "eniId": f"eni-{key}", "eniUuid": str(uuid.uuid5(uuid.NAMESPACE_OID, key)), "name": "eth0",
                "type": "primary", "subnetId": "sbn-2escuever5fi", "subnetType": "BCC", "az": f"zone{zone.upper()}",
                "description": "", "deviceId": str(uuid.uuid5(uuid.NAMESPACE_URL, key)), "status": "inuse",
                "macAddress": "fa:f6:00:01:7e:ef", "vpcId": "vpc-vv3xw6d9970b",
                "createdTime": f"{machine.created:%a %b %d %H:%M:%S UTC %Y}", "eniNum": 0, "eriNum": 0, "eriInfos": [],
                "ips": [{"privateIp": ip, "eip": machine.wan[n] if n < len(machine.wan) else "null",
                         "primary": "false" if n else "true", "eipId": "", "eipAllocationId": "", "eipSize": "0",
                         "eipStatus": "", "eipGroupId": "", "eipType": "null"} for n, ip in enumerate(machine.lan)],
                "securityGroups": ["g-wxsaduu9uajq"]},
            "eniNum": "0", "tags": [{"tagKey": name, "tagValue": value} for name, value in machine.tags.items()],
            "networkCapacityInMbps": 1 if machine.wan else 0}
        if self.with_volumes:
            row["volumes"] = [{"isSystemVolume": n == 0, "diskSizeInGB": size, "volumeId": _volume_id(machine, n)}
                              for n, size in enumerate(machine.disks)]
        return row


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    keys: dict[str, object] = {"access_key_id": "AKbaidudemo", "secret_access_key": secret}
    return Baidu({"AKbaidudemo": secret}, fleets, limited=limited, latency=latency), keys


CLOUDS = {"baidu": Cloud("bj", start, Least(
    calls=3, trips=3, window_calls=3, window_trips=3,
    why="One page of 1,000; its rows say nothing of volumes here, so all of these are read: 1,000 to a page, marker "
        "after marker: 2. A volume filter accepts one instance, so a window of ten reads all volumes too."))}


def _volume_id(machine: Machine, number: int) -> str:
    return f"v-{machine.key}{number}"


def _volume(machine: Machine, number: int, region: str) -> dict[str, Any]:
    return {"id": _volume_id(machine, number), "name": f"disk-{number}", "diskSizeInGB": machine.disks[number],
            "paymentTiming": "Postpaid", "createTime": f"{machine.created:%Y-%m-%dT%H:%M:%SZ}", "status": "InUse",
            "type": "Cds" if number else "System", "storageType": "cloud_hp1", "isSystemVolume": number == 0,
            "zoneName": f"cn-{region}-{'abc'[machine.zone - 1]}", "encrypted": False, "attachments": [
                {"volumeId": _volume_id(machine, number), "instanceId": f"i-{machine.key}",
                 "device": f"/dev/vd{'abcdef'[number]}", "serial": _volume_id(machine, number)}]}


def _page(query: Mapping[str, str], name: str, rows: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A page of `rows` (id, maker of the row), from the one that the marker names."""
    size, marker = query.get("maxKeys", "1000"), query.get("marker", "")
    if not re.fullmatch(r"[0-9]{1,4}", size) or not 1 <= int(size) <= 1000:
        raise _Refused(400, "BadRequest", "maxKeys must be from 1 to 1000.")
    at = next((n for n, (key, _) in enumerate(rows) if key == marker), None) if marker else 0
    if at is None:
        raise _Refused(400, "BadRequest", "The marker is not valid.")
    end = at + int(size)
    more = {"nextMarker": rows[end][0]} if end < len(rows) else {}
    return {"marker": marker, "isTruncated": bool(more), **more, "maxKeys": int(size),
            name: [make() for _, make in rows[at:end]]}
