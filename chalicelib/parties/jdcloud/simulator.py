"""A simulator for JD Cloud's virtual machines: instances and types of the OpenAPI v1, signed with JDCLOUD3-HMAC-SHA256.

Checked as the real gateway does: signature over the headers that were signed, among them date and nonce, five minutes
of clock, tokens, pages of 10 to 100 rows (20 by default), filters, addresses of at most 8 KB.
"""

import base64
import hashlib
import hmac
import re
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec

from ...simulators.cloud import Cloud, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet, Machine
from ...simulators.server import Call, Rate, Simulator

REGIONS = ("cn-north-1", "cn-east-1", "cn-east-2", "cn-south-1")
_CALLS = {"instances": "DescribeInstances", "instanceTypes": "DescribeInstanceTypes", "quotas": "DescribeQuotas"}
_FILTERS = {"instanceId", "privateIpAddress", "az", "vpcId", "status", "name", "imageId", "networkInterfaceId",
            "subnetId", "agId", "faultDomain", "dedicatedHostId", "dedicatedPoolId", "instanceType", "elasticIpAddress"}
_STATES = {"terminated": "deleting"}        # the other words are JD Cloud's own
_CHINA = timedelta(hours=8)


class _Refused(Exception):
    def __init__(self, code: int, status: str, message: str) -> None:
        super().__init__(code, status, message)


class Jdcloud(Simulator):
    """`keys`: access key -> secret key. `fleets`: region -> fleet. `tokens`: of temporary keys, by access key.

    `hidden`: so many instances are not in the sub-user's policy. `quota_denied`: nor is the right to read quotas.
    `limited`: the documented thousand calls a minute are enforced. `late`: seconds by which its clock is ahead.
    """

    def __init__(self, keys: Mapping[str, str], fleets: Mapping[str, Fleet], *, tokens: Mapping[str, str] = {},
                 limited: bool = True, late: float = 0.0, port: int = 0, latency: float = 0.0) -> None:
        self.keys = dict(keys)
        self.fleets = dict(fleets)
        self.tokens = dict(tokens)
        self.late = late
        self.hidden = 0
        self.quota_denied = False
        self._rate = Rate(1000, 60) if limited else None
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        return _CALLS.get(call.path.rpartition("/")[2], "?")

    def answer(self, call: Call) -> Answer:
        body: dict[str, Any] = {"requestId": uuid.uuid4().hex}
        status = 200
        try:
            body["result"] = self._answer(call)
        except _Refused as refused:
            status, word, message = refused.args
            body["error"] = {"code": status, "status": word, "message": message}
        return Answer(status, {"Content-Type": "application/json; charset=utf-8"}, msgspec.json.encode(body))

    def _answer(self, call: Call) -> dict[str, Any]:
        if len(call.path) + len(call.query) > 8000:
            raise _Refused(414, "HTTP_URI_TOO_LONG", "URI too long")
        there = re.fullmatch(r"/v1/regions/([^/]+)/(instances|instanceTypes|quotas)", call.path)
        if not there or call.method != "GET":
            raise _Refused(404, "NOT_FOUND", "no route and no API found with those values")
        region = there[1]
        key = self._check_signature(call, region)
        if self._rate and not self._rate.allows(key, call.at):
            raise _Refused(429, "HTTP_RATE_LIMIT_EXCEEDED", "minute rate limit exceeded, role:ak")
        if region not in REGIONS:
            raise _Refused(404, "NOT_FOUND", "no route and no API found with those values")
        query = dict(parse_qsl(call.query, keep_blank_values=True))
        fleet = self.fleets.get(region, Fleet(0))
        if call.operation == "DescribeInstances":
            return self._instances(query, fleet, region)
        if call.operation == "DescribeQuotas":
            if self.quota_denied:
                raise _Refused(403, "HTTP_FORBIDDEN", "no permission for vm:describeQuotas")
            wanted = _filters(query, {"resourceTypes"}).get("resourceTypes")
            rows = [("instance", len(fleet)), ("keypair", 1), ("image", 0)]
            return {"quotas": [{"resourceType": name, "limit": 50000, "used": used} for name, used in rows
                               if wanted is None or name in wanted]}
        names = _filters(query, {"instanceTypes", "az", "architecture"}).get("instanceTypes")
        kinds = {kind_of(fleet[n]): fleet[n] for n in range(len(fleet))} | {"g.n2.medium": None}
        rows = [_type(name, kinds[name], region) for name in sorted(kinds) if names is None or name in names]
        return {"instanceTypes": rows, "totalCount": len(rows)}

    # ---------------------------------------------------------------- signature

    def _check_signature(self, call: Call, region: str) -> str:
        match = re.fullmatch(r"JDCLOUD3-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/vm/jdcloud3_request, ?"
                             r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})",
                             call.headers.get("authorization", ""))
        if not match:
            raise _Refused(401, "ACCESS_ERROR", "lack of header authorization[gw]")
        key_id, day, where, signed, signature = match.groups()
        if key_id not in self.keys:
            raise _Refused(401, "ACCESS_ERROR", "Invalid accessKey[gw]")
        stamp = call.headers.get("x-jdcloud-date", "")
        if not re.fullmatch(r"\d{8}T\d{6}Z", stamp) or "x-jdcloud-nonce" not in call.headers:
            raise _Refused(401, "ACCESS_ERROR", "lack of header x-jdcloud-date[gw]")
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        if abs(time.time() + self.late - at) > 300:
            raise _Refused(401, "ACCESS_ERROR", "x-jdcloud-date is expired[gw]")
        token = self.tokens.get(key_id)
        if call.headers.get("x-jdcloud-security-token") != (token and base64.b64encode(token.encode()).decode()):
            raise _Refused(401, "ACCESS_ERROR", "Invalid authentication credentials[gw]")
        names = signed.split(";")
        needed = {"host", "x-jdcloud-date", "x-jdcloud-nonce", *(("x-jdcloud-security-token",) if token else ())}
        if not needed <= set(names) <= call.headers.keys() or names != sorted(names):
            raise _Refused(401, "ACCESS_ERROR", "lack of header signedHeaders[gw]")
        pairs = sorted((quote(name, safe="~"), quote(value, safe="~"))
                       for name, value in parse_qsl(call.query, keep_blank_values=True))
        canonical = "\n".join((call.method, call.path, "&".join(f"{name}={value}" for name, value in pairs),
                               "".join(f"{name}:{call.headers[name].strip()}\n" for name in names), signed,
                               hashlib.sha256(call.body).hexdigest()))
        scope = f"{day}/{where}/vm/jdcloud3_request"
        text = f"JDCLOUD3-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = ("JDCLOUD3" + self.keys[key_id]).encode()
        for part in (day, where, "vm", "jdcloud3_request", text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        if key.hex() != signature or day != stamp[:8] or where != region:
            raise _Refused(401, "ACCESS_ERROR", "sign result is not same[gw]")
        return key_id

    # ---------------------------------------------------------------- answers

    def _instances(self, query: dict[str, str], fleet: Fleet, region: str) -> dict[str, Any]:
        number, size = query.get("pageNumber", "1"), query.get("pageSize", "20")
        if not re.fullmatch(r"[1-9][0-9]{0,6}", number):
            raise _Refused(400, "OUT_OF_RANGE", "PageNumber out of range")
        if not re.fullmatch(r"[0-9]{2,3}", size) or not 10 <= int(size) <= 100:
            raise _Refused(400, "OUT_OF_RANGE", "PageSize out of range")
        filters = _filters(query, _FILTERS)
        machines = [m for m in (fleet[n] for n in range(len(fleet)))
                    if "instanceId" not in filters or f"i-{m.key}" in filters["instanceId"]][self.hidden:]
        at = (int(number) - 1) * int(size)
        page = [_row(machine, region) for machine in machines[at:at + int(size)]]
        return {"instances": page or None, "totalCount": len(machines)}


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    keys: dict[str, object] = {"access_key": "JDCdemo", "secret_key": secret}
    return Jdcloud({"JDCdemo": secret}, fleets, limited=limited, latency=latency), keys


CLOUDS = {"jdcloud": Cloud("cn-north-1", start, Least(
    calls=10 + 1, trips=2, window_calls=1 + 1, window_trips=2, rate=(1000, 60.0),
    why="10 pages of 100 with a total; the types of the region in one call, at any time."))}


def kind_of(machine: Machine) -> str:
    return f"g.n2.c{machine.cpu}m{machine.memory_gib}"


def _type(name: str, machine: Machine | None, region: str) -> dict[str, Any]:
    return {"family": "g.n2", "instanceType": name, "cpu": machine.cpu if machine else 1,
            "memoryMB": machine.memory_gib * 1024 if machine else 4096, "nicLimit": 2, "cloudDiskCountLimit": 8,
            "desc": "", "generation": 2, "localDisks": None, "architecture": "x86_64",
            "state": [{"az": f"{region}{zone}", "inStock": zone != "b"} for zone in "abc"]}


def _row(machine: Machine, region: str) -> dict[str, Any]:
    """Odd machines have a local system disk; each address beyond the first is on an interface of its own."""
    key, zone, created = machine.key, f"{region}{'abc'[machine.zone - 1]}", machine.created + _CHINA
    system, *data = machine.disks
    ips = [{"privateIpAddress": ip, "elasticIpId": f"fip-{key}{n}" if n < len(machine.wan) else "",
            "elasticIpAddress": machine.wan[n] if n < len(machine.wan) else ""} for n, ip in enumerate(machine.lan)]
    row: dict[str, Any] = {
        "instanceId": f"i-{key}", "instanceName": machine.name, "hostname": machine.name,
        "instanceType": kind_of(machine), "vpcId": "vpc-z9r3l5q7p8", "subnetId": "subnet-c2p3b4n59o",
        "privateIpAddress": machine.lan[0], "elasticIpId": ips[0]["elasticIpId"],
        "elasticIpAddress": ips[0]["elasticIpAddress"], "status": _STATES.get(machine.state, machine.state),
        "description": "", "imageId": "img-m5s0x1c229", "systemDisk": _disk(machine, 0, system, zone),
        "primaryNetworkInterface": _interface(machine, 1, ips[:1]),
        "secondaryNetworkInterfaces": [_interface(machine, n, [ip]) for n, ip in enumerate(ips[1:], 2)] or None,
        "launchTime": f"{created:%Y-%m-%d %H:%M:%S}", "az": zone, "keyNames": None,
        "charge": {"chargeMode": "prepaid_by_duration" if machine.ends else "postpaid_by_duration",
                   "chargeStatus": "normal",
                   "chargeStartTime": f"{machine.created:%Y-%m-%dT%H:%M:%SZ}",
                   "chargeExpiredTime": f"{machine.ends:%Y-%m-%dT%H:%M:%SZ}" if machine.ends else "",
                   "chargeRetireTime": ""},
        "faultDomain": "0", "tags": [{"key": name, "value": value} for name, value in machine.tags.items()] or None,
        "chargeOnStopped": "keepCharging", "resourceGroupId": f"rg-{machine.project}", "osType": "linux",
        "platform": "CentOS", "osVersion": "7.9", "architecture": "x86_64"}
    if data:                                # as in the documented sample, where there is no such key without data disks
        row["dataDisks"] = [_disk(machine, n, size, zone) for n, size in enumerate(data, 1)]
    return row


def _disk(machine: Machine, number: int, size: int, zone: str) -> dict[str, Any]:
    local = machine.number % 2 == 1 and number == 0
    cloud = {"diskId": f"vol-{machine.key}{number}", "az": zone, "name": machine.name, "diskType": "ssd.gp1",
             "diskSizeGB": size, "iops": 2000, "status": "in-use", "multiAttachable": False, "encrypted": False,
             "createTime": f"{machine.created + _CHINA:%Y-%m-%d %H:%M:%S}"}
    return {"diskCategory": "local" if local else "cloud", "autoDelete": True,
            "localDisk": {"diskType": "ssd", "diskSizeGB": size} if local else None,
            "cloudDisk": None if local else cloud, "deviceName": f"vd{'abcdef'[number]}", "status": "attached"}


def _interface(machine: Machine, index: int, ips: list[dict[str, str]]) -> dict[str, Any]:
    return {"deviceIndex": index, "autoDelete": index == 1, "networkInterface": {
        "networkInterfaceId": f"port-{machine.key}{index}", "macAddress": "fa:16:3e:a8:a4:01",
        "vpcId": "vpc-z9r3l5q7p8", "subnetId": "subnet-c2p3b4n59o",
        "securityGroups": [{"groupId": "sg-p2d1s3a4ya", "groupName": "default"}],
        "sanityCheck": 1, "primaryIp": ips[0], "secondaryIps": ips[1:] or None, "ipv6Addresses": None}}


def _filters(query: Mapping[str, str], known: set[str]) -> dict[str, list[str]]:
    """The values of `filters.1.values.1`, … by the name that `filters.1.name` gives them."""
    filters: dict[str, list[str]] = {}
    for key, name in query.items():
        if at := re.fullmatch(r"filters\.([0-9]+)\.name", key):
            if name not in known:
                raise _Refused(400, "INVALID_ARGUMENT", f"Unknown filter '{name}'")
            filters[name] = [value for other, value in query.items() if other.startswith(f"filters.{at[1]}.values.")]
    return filters
