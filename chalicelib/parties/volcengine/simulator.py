"""A simulator for Volcano Engine ECS, EBS, VPC and STS: GET, HMAC-SHA256 over the signed headers and the sorted query.

Checked as the real ones do: fifteen minutes of clock, region and service of the scope, session tokens, version,
MaxResults (default 10) and PageSize (default 15) at most 100, tokens that belong to the call that gave them. `short`:
pages may be short although more follow.
"""

import hashlib
import hmac
import random
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec

from ...simulators.cloud import Cloud, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet, Machine, Positions
from ...simulators.server import Call, Rate, Simulator

REGIONS = ("cn-beijing", "cn-shanghai", "cn-guangzhou", "cn-hongkong", "ap-southeast-1")
PROJECT = "shop"
_CALLS = {"DescribeInstances": ("ecs", "2020-04-01"), "DescribeRegions": ("ecs", "2020-04-01"),
          "DescribeVolumes": ("storage_ebs", "2020-04-01"), "DescribeNetworkInterfaces": ("vpc", "2020-04-01"),
          "AssumeRole": ("sts", "2018-01-01")}
_STATES = {"running": "RUNNING", "stopped": "STOPPED", "starting": "STARTING", "stopping": "STOPPING",
           "pending": "CREATING"}
_CHINA = timezone(timedelta(hours=8))


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(status, code, message)


class Volcengine(Simulator):
    """`keys`: access key id -> secret. `fleets`: region -> fleet. `roles`: those that the keys may assume.

    `tokens`: session tokens of temporary keys, by access key id. `denied`: actions for which the keys lack the right.
    `late`: seconds by which its clock is ahead.
    """

    def __init__(self, keys: Mapping[str, str], fleets: Mapping[str, Fleet], *, tokens: Mapping[str, str] = {},
                 roles: Sequence[str] = (), short: bool = False, limited: bool = True, late: float = 0.0,
                 port: int = 0, latency: float = 0.0) -> None:
        self.keys = dict(keys)
        self.fleets = dict(fleets)
        self.tokens = dict(tokens)
        self.roles = tuple(roles)
        self.short = short
        self.late = late
        self.denied: set[str] = set()
        self._rate = Rate(20) if limited else None
        self._positions = Positions()
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        return dict(parse_qsl(call.query)).get("Action", "?")

    def answer(self, call: Call) -> Answer:
        query = dict(parse_qsl(call.query, keep_blank_values=True))
        metadata: dict[str, Any] = {
            "RequestId": f"{datetime.now(UTC):%Y%m%d%H%M%S}{uuid.uuid4().hex[:18].upper()}",
            "Action": query.get("Action", ""), "Version": query.get("Version", ""), "Service": "", "Region": ""}
        body: dict[str, Any] = {"ResponseMetadata": metadata}
        status = 200
        try:
            body["Result"] = self._answer(call, query, metadata)
        except _Refused as refused:
            status, code, message = refused.args
            metadata["Error"] = {"CodeN": 100000, "Code": code, "Message": message or code}
        return Answer(status, {"Content-Type": "application/json; charset=utf-8"}, msgspec.json.encode(body))

    def _answer(self, call: Call, query: Mapping[str, str], metadata: dict[str, Any]) -> dict[str, Any]:
        key_id, region, service = self._check_signature(call)
        metadata |= {"Service": service, "Region": region}
        action = query.get("Action", "")
        if _CALLS.get(action) != (service, query.get("Version")):
            raise _Refused(404, "InvalidActionOrVersion", f"Could not find operation {action} for version.")
        if self._rate and not self._rate.allows(f"{key_id}/{region}/{action}", call.at):
            raise _Refused(429, "AccountFlowLimitExceeded", "Request was rejected because of flow control.")
        if action in self.denied:
            raise _Refused(403, "AccessDenied", f"User is not authorized to perform: {service}:{action}")
        if action == "AssumeRole":
            return self._assume_role(query)
        if action == "DescribeRegions":
            return {"Regions": [{"RegionId": name} for name in REGIONS], "NextToken": ""}
        if region not in REGIONS:
            raise _Refused(400, "InvalidRegion", "The specified region is not valid.")
        fleet = self.fleets.get(region, Fleet(0))
        return {"DescribeInstances": self._instances, "DescribeVolumes": self._volumes,
                "DescribeNetworkInterfaces": self._interfaces}[action](query, fleet, region)

    # ---------------------------------------------------------------- signature

    def _check_signature(self, call: Call) -> tuple[str, str, str]:
        headers = call.headers
        match = re.fullmatch(r"HMAC-SHA256 Credential=([^/]+)/(\d{8})/([a-z0-9-]+)/(ecs|storage_ebs|vpc|sts)/request, ?"
                             r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})",
                             headers.get("authorization", ""))
        if not match:
            raise _Refused(401, "MissingAuthenticationToken", "Request is missing Authentication Token")
        key_id, day, region, service, signed, signature = match.groups()
        if key_id not in self.keys:
            raise _Refused(401, "InvalidAccessKey", "The accesskey included in the request is invalid.")
        stamp = headers.get("x-date", "")
        try:
            at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise _Refused(400, "InvalidTimestamp", "The Signature of the request is malformed") from None
        if abs(time.time() + self.late - at) > 900:
            raise _Refused(403, "InvalidTimestamp", "The Signature of the request is expired")
        if self.tokens.get(key_id) != headers.get("x-security-token"):
            raise _Refused(401, "InvalidSecretToken", "Invalid secret token.")
        names = signed.split(";")
        body = hashlib.sha256(call.body).hexdigest()
        if {"host", "x-date", "x-content-sha256"} - set(names) or headers.get("x-content-sha256") != body or (
                "x-security-token" in headers and "x-security-token" not in names):
            raise _Refused(401, "SignatureDoesNotMatch", "These headers must be signed.")
        query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
                         for name, value in sorted(parse_qsl(call.query, keep_blank_values=True)))
        lines = "".join(f"{name}:{headers.get(name, '').strip()}\n" for name in names)
        canonical = "\n".join((call.method, call.path, query, lines, signed, body))
        scope = f"{day}/{region}/{service}/request"
        text = f"HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = self.keys[key_id].encode()
        for part in (day, region, service, "request", text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        if stamp[:8] != day or key.hex() != signature:
            raise _Refused(401, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
        return key_id, region, service

    def _assume_role(self, query: Mapping[str, str]) -> dict[str, Any]:
        if query.get("RoleTrn") not in self.roles:
            raise _Refused(403, "AccessDenied", "You are not allowed to assume this role.")
        if not query.get("RoleSessionName") or not 900 <= int(query.get("DurationSeconds", "3600")) <= 43200:
            raise _Refused(400, "InvalidParameter.DurationSeconds")
        key_id, secret, token = f"AKTP{uuid.uuid4().hex[:24]}", uuid.uuid4().hex, uuid.uuid4().hex
        self.keys[key_id], self.tokens[key_id] = secret, token
        now = datetime.now(_CHINA).replace(microsecond=0)
        until = now + timedelta(seconds=int(query.get("DurationSeconds", "3600")))
        return {"AssumedRoleUser": {"Trn": query["RoleTrn"], "AssumedRoleId": "1:twocloud"},
                "Credentials": {"AccessKeyId": key_id, "SecretAccessKey": secret, "SessionToken": token,
                                "CurrentTime": now.isoformat(), "ExpiredTime": until.isoformat()}}

    # ---------------------------------------------------------------- answers

    def _instances(self, query: Mapping[str, str], fleet: Fleet, region: str) -> dict[str, Any]:
        project = query.get("ProjectName")
        machines = [m for m in (fleet[n] for n in range(len(fleet))) if project in (None, "", _project(m))]
        size = _number(query, "MaxResults", 10)
        of = f"DescribeInstances/{project}"
        start = self._position(query["NextToken"], of) if query.get("NextToken") else 0
        end = start + (random.randrange(size // 3, size) if self.short and size > 3 else size)
        return {"Instances": [_instance(m, region) for m in machines[start:end]],
                "NextToken": self._positions.give(end, of) if end < len(machines) else "", "TotalCount": len(machines)}

    def _volumes(self, query: Mapping[str, str], fleet: Fleet, region: str) -> dict[str, Any]:
        ids = {value for name, value in query.items() if name.startswith("VolumeIds.")}
        if len(ids) > 100:
            raise _Refused(400, "InvalidParameter.VolumeIds", "At most 100 ids.")
        number, size = _number(query, "PageNumber", 1, 10 ** 6), _number(query, "PageSize", 15)
        rows = [_volume(m, n, region) for m in (fleet[n] for n in range(len(fleet))) for n in range(_ebs(m))
                 if (not ids or _volume_id(m, n) in ids) and query.get("InstanceId") in (None, "", f"i-{m.key}")]
        return {"TotalCount": len(rows), "PageNumber": number, "PageSize": size,
                "Volumes": rows[(number - 1) * size:number * size] or None}

    def _interfaces(self, query: Mapping[str, str], fleet: Fleet, region: str) -> dict[str, Any]:
        ids = {value for name, value in query.items() if name.startswith("NetworkInterfaceIds.")}
        number, size = _number(query, "PageNumber", 1, 10 ** 6), _number(query, "PageSize", 20)
        rows = [row for m in (fleet[n] for n in range(len(fleet))) for row in _full(m)
                if not ids or row["NetworkInterfaceId"] in ids]
        return {"TotalCount": len(rows), "PageNumber": number, "PageSize": size,
                "NetworkInterfaceSets": rows[(number - 1) * size:number * size]}

    def _position(self, token: str, of: str) -> int:
        try:
            return self._positions.take(token, of)
        except ValueError:
            raise _Refused(400, "InvalidNextToken", "The specified NextToken is invalid.") from None


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    keys: dict[str, object] = {"access_key_id": "AKLTdemo", "secret_access_key": secret}
    return Volcengine({"AKLTdemo": secret}, fleets, limited=limited, latency=latency), keys


CLOUDS = {"volcengine": Cloud("cn-beijing", start, Least(
    calls=10 + 17, trips=10, window_calls=6 + 1, window_trips=7,
    why="10 pages of 100, token after token; volumes 100 to a call, all of the region's, beside them: 17. A window "
        "is a walk of 6 pages, then its own volumes."))}


def _instance(machine: Machine, region: str) -> dict[str, Any]:
    """The last disk of every fifth machine is two local ones of half its size."""
    created, updated = machine.created, machine.created + timedelta(days=9)
    interfaces = [{"NetworkInterfaceId": f"eni-{machine.key}{n}", "Type": "secondary" if n else "primary",
                   "PrimaryIpAddress": ip, "Ipv6Addresses": None, "MacAddress": "00:16:3e:48:45:3e",
                   "VpcId": "vpc-1", "SubnetId": "sub-1"} for n, ip in enumerate(machine.lan)]
    return {
        "InstanceId": f"i-{machine.key}", "InstanceName": machine.name, "Hostname": machine.name, "Description": "",
        "Status": _STATES[machine.state], "ZoneId": f"{region}-{'abc'[machine.zone - 1]}", "ImageId": "image-1",
        "InstanceTypeId": f"ecs.g3i.x{machine.cpu}", "Cpus": machine.cpu, "MemorySize": machine.memory_gib * 1024,
        "CpuOptions": {"CoreCount": max(1, machine.cpu // 2), "ThreadsPerCore": 2}, "OsName": "veLinux 1.0 64 bit",
        "OsType": "Linux", "InstanceChargeType": "PrePaid" if machine.ends else "PostPaid",
        "StoppedMode": "", "SpotStrategy": "NoSpot",
        "VpcId": "vpc-1", "ProjectName": _project(machine), "NetworkInterfaces": interfaces[::-1],
        "EipAddress": {"AllocationId": "eip-1", "IpAddress": machine.wan[0]} if machine.wan else None,
        "Volumes": [{"VolumeId": _volume_id(machine, n)} for n in range(_ebs(machine))],
        "LocalVolumes": [{"VolumeType": "LOCAL_SSD", "Count": 2, "Size": machine.disks[-1] // 2}]
        if _ebs(machine) < len(machine.disks) else [],
        "CreatedAt": created.astimezone(_CHINA).isoformat(), "UpdatedAt": updated.astimezone(_CHINA).isoformat(),
        "ExpiredAt": f"{machine.ends:%Y-%m-%dT%H:%M:%SZ}" if machine.ends else "",
        "Tags": [{"Key": key, "Value": value} for key, value in machine.tags.items()]}


def _full(machine: Machine) -> list[dict[str, Any]]:
    """The machine's interfaces; a second public address is the second interface's, and each first has a second private
    address that the list of instances does not name."""
    def private(number: int, ip: str) -> list[dict[str, Any]]:
        own = {"PrivateIpAddress": ip, "Primary": True, "AssociatedElasticIp": elastic(number)}
        return [own] if number else [{"PrivateIpAddress": second_address(machine), "Primary": False}, own]

    def elastic(number: int) -> dict[str, str] | None:
        return {"AllocationId": f"eip-{number}", "EipAddress": ip} if (
            ip := next(iter(machine.wan[number:number + 1]), None)) else None

    return [{"NetworkInterfaceId": f"eni-{machine.key}{n}", "Type": "secondary" if n else "primary",
             "DeviceId": f"i-{machine.key}", "PrimaryIpAddress": ip, "AssociatedElasticIp": elastic(n),
             "PrivateIpSets": {"PrivateIpSet": private(n, ip)}, "IPv6Sets": [], "Status": "InUse"}
            for n, ip in enumerate(machine.lan)]


def second_address(machine: Machine) -> str:
    return f"172.31.{machine.number // 250 % 250}.{machine.number % 250}"


def _volume(machine: Machine, number: int, region: str) -> dict[str, Any]:
    return {"VolumeId": _volume_id(machine, number), "VolumeName": "disk", "InstanceId": f"i-{machine.key}",
            "Size": str(machine.disks[number]), "Kind": "data" if number else "system", "VolumeType": "ESSD_PL0",
            "Status": "attached", "ZoneId": f"{region}-{'abc'[machine.zone - 1]}", "ProjectName": _project(machine)}


def _volume_id(machine: Machine, number: int) -> str:
    return f"vol-{machine.key}{number}"


def _ebs(machine: Machine) -> int:
    return len(machine.disks) - (machine.number % 5 == 4 and len(machine.disks) > 1)


def _project(machine: Machine) -> str:
    return PROJECT if machine.project else "default"


def _number(query: Mapping[str, str], name: str, default: int, most: int = 100) -> int:
    text = query.get(name, str(default))
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise _Refused(400, f"InvalidParameter.{name}", f"The specified parameter {name} is not valid.")
    return int(text)
