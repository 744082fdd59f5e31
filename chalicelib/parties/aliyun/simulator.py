"""A simulator for Alibaba Cloud ECS and STS: RPC calls signed with ACS3-HMAC-SHA256, JSON only if asked for.

Checked as the real ones do: signature over the signed headers and the sorted query, the body's hash, fifteen minutes
of clock, each nonce once, version, region, PageSize at most 100 (default 10), MaxResults held to 10..100 (disks and
interfaces: 500), tokens that belong to the call that gave them, no total once MaxResults or NextToken is given.
"""

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
from ...simulators.fleet import Fleet, Machine, Positions
from ...simulators.server import Call, Rate, Simulator

REGIONS = {"cn-hangzhou": "China (Hangzhou)", "cn-beijing": "China (Beijing)", "cn-shanghai": "China (Shanghai)",
           "cn-hongkong": "China (Hong Kong)", "ap-southeast-1": "Singapore", "eu-central-1": "Germany (Frankfurt)"}
GROUP = "rg-aek2jp5vdyj2ywi"
_STATES = {"running": "Running", "stopped": "Stopped", "starting": "Starting", "stopping": "Stopping",
           "pending": "Pending"}
_CALLS = ("DescribeInstances", "DescribeDisks", "DescribeNetworkInterfaces", "DescribeRegions")


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(status, code, message)


class Aliyun(Simulator):
    """`keys`: access key id -> secret. `fleets`: region -> fleet. `roles`: arn -> external id ("" for none).

    `denied`: actions for which the keys lack the right; `silent`: they are answered with an empty list then, as the
    cloud did until 2025. `attached`: each third machine has a second interface with an elastic address, and shares a
    disk with its neighbour. `late`: seconds by which its clock is ahead.
    """

    def __init__(self, keys: Mapping[str, str], fleets: Mapping[str, Fleet], *, roles: Mapping[str, str] = {},
                 tokens: Mapping[str, str] = {}, attached: bool = False, silent: bool = False, limited: bool = True,
                 late: float = 0.0, port: int = 0, latency: float = 0.0) -> None:
        self.keys = dict(keys)
        self.fleets = dict(fleets)
        self.roles = dict(roles)
        self.tokens = dict(tokens)          # access key id -> security token
        self.attached = attached
        self.silent = silent
        self.late = late
        self.denied: set[str] = set()
        self._nonces: set[str] = set()
        self._rate = Rate(10) if limited else None
        self._positions = Positions()
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        return call.headers.get("x-acs-action", "?")

    def answer(self, call: Call) -> Answer:
        request_id = str(uuid.uuid4()).upper()
        try:
            status, said = 200, self._answer(call)
        except _Refused as refused:
            status, code, message = refused.args
            said = {"HostId": call.headers.get("host"), "Code": code, "Message": message or code,
                    "Recommend": f"https://api.aliyun.com/troubleshoot?q={code}"}
        if "json" not in call.headers.get("accept", "") and dict(parse_qsl(call.query)).get("Format") != "JSON":
            return Answer(status, {"Content-Type": "text/xml;charset=utf-8"},
                          f"<?xml version='1.0' encoding='UTF-8'?><Response><RequestId>{request_id}</RequestId>"
                          "</Response>".encode())
        return Answer(status, {"Content-Type": "application/json;charset=utf-8"},
                      msgspec.json.encode({"RequestId": request_id, **said}))

    def _answer(self, call: Call) -> dict[str, Any]:
        asked = dict(parse_qsl(call.query, keep_blank_values=True))
        asked |= dict(parse_qsl(call.body.decode(), keep_blank_values=True))
        key_id = self._check_signature(call)
        action, version = call.operation, call.headers.get("x-acs-version")
        if action == "AssumeRole" and version == "2015-04-01":
            return self._assume_role(asked)
        if action not in _CALLS:
            raise _Refused(404, "InvalidAction.NotFound", "Specified api is not found.")
        if version != "2014-05-26":
            raise _Refused(400, "InvalidVersion", "Specified parameter Version is not valid.")
        if self._rate and not self._rate.allows(f"{key_id}/{asked.get('RegionId')}/{action}", call.at):
            raise _Refused(400, "Throttling.User", "Request was denied due to user flow control.")
        if action == "DescribeRegions":
            return {"Regions": {"Region": [{"RegionId": key, "RegionEndpoint": f"ecs.{key}.aliyuncs.com",
                                            "LocalName": name} for key, name in REGIONS.items()]}}
        if not asked.get("RegionId"):
            raise _Refused(400, "MissingParameter", "The input parameter RegionId is mandatory.")
        if asked["RegionId"] not in REGIONS:
            raise _Refused(404, "InvalidRegionId.NotFound", "The specified RegionId does not exist.")
        dry = asked.get("DryRun", "").lower() == "true"
        if action in self.denied and (dry or not self.silent):
            raise _Refused(403, "Forbidden.RAM", "User not authorized to operate on the specified resource.")
        if dry:
            raise _Refused(400, "DryRunOperation", "Request validation has been passed with DryRun flag set.")
        fleet = self.fleets.get(asked["RegionId"], Fleet(0)) if action not in self.denied else Fleet(0)
        if action == "DescribeInstances":
            return self._instances(asked, fleet)
        return self._disks(asked, fleet) if action == "DescribeDisks" else self._interfaces(asked, fleet)

    # ---------------------------------------------------------------- signature

    def _check_signature(self, call: Call) -> str:
        headers = call.headers
        found = re.fullmatch(r"ACS3-HMAC-SHA256 Credential=([^,]+),SignedHeaders=([a-z0-9;-]+),"
                             r"Signature=([0-9a-f]{64})", headers.get("authorization", ""))
        if not found:
            raise _Refused(400, "IncompleteSignature", "The request signature does not conform to Aliyun standards.")
        key_id, signed, signature = found.groups()
        if key_id not in self.keys:
            raise _Refused(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
        try:
            at = datetime.strptime(headers.get("x-acs-date", ""), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise _Refused(400, "InvalidTimeStamp.Format", "Specified time stamp is not well formatted.") from None
        if abs(time.time() + self.late - at) > 900:
            raise _Refused(400, "InvalidTimeStamp.Expired", "Specified time stamp or date value is expired.")
        if self.tokens.get(key_id) != headers.get("x-acs-security-token"):
            raise _Refused(403, "InvalidSecurityToken.MismatchWithAccessKey", "Specified SecurityToken is mismatched.")
        names = signed.split(";")
        needed = {"host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce",
                  "x-acs-content-sha256", *(name for name in headers if name.startswith("x-acs-"))}
        body = hashlib.sha256(call.body).hexdigest()
        if needed - set(names) or headers["x-acs-content-sha256"] != body:
            raise _Refused(400, "IncompleteSignature", "The request signature does not conform to Aliyun standards.")
        query = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}"
                         for name, value in sorted(parse_qsl(call.query, keep_blank_values=True)))
        lines = "".join(f"{name}:{headers.get(name, '').strip()}\n" for name in names)
        canonical = "\n".join((call.method, call.path, query, lines, signed, body))
        text = f"ACS3-HMAC-SHA256\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        if hmac.new(self.keys[key_id].encode(), text.encode(), hashlib.sha256).hexdigest() != signature:
            raise _Refused(400, "SignatureDoesNotMatch", "Specified signature does not match our calculation.")
        if headers["x-acs-signature-nonce"] in self._nonces:
            raise _Refused(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
        self._nonces.add(headers["x-acs-signature-nonce"])
        return key_id

    def _assume_role(self, asked: Mapping[str, str]) -> dict[str, Any]:
        role = asked.get("RoleArn", "")
        if role not in self.roles or self.roles[role] != asked.get("ExternalId", ""):
            raise _Refused(403, "NoPermission", "You are not authorized to do this action.")
        if not 900 <= int(asked.get("DurationSeconds", "3600")) <= 43200 or not asked.get("RoleSessionName"):
            raise _Refused(400, "InvalidParameter.DurationSeconds", "The specified DurationSeconds is invalid.")
        key_id, secret, token = f"STS.{uuid.uuid4().hex[:24]}", uuid.uuid4().hex, uuid.uuid4().hex
        self.keys[key_id], self.tokens[key_id] = secret, token
        until = datetime.now(UTC) + timedelta(seconds=int(asked.get("DurationSeconds", "3600")))
        return {"AssumedRoleUser": {"Arn": f"{role}/{asked['RoleSessionName']}", "AssumedRoleId": "3491:twocloud"},
                "Credentials": {"AccessKeyId": key_id, "AccessKeySecret": secret, "SecurityToken": token,
                                "Expiration": f"{until:%Y-%m-%dT%H:%M:%SZ}"}}

    # ---------------------------------------------------------------- answers

    def _instances(self, asked: Mapping[str, str], fleet: Fleet) -> dict[str, Any]:
        start, size, page = self._page(asked, len(fleet), "DescribeInstances", most=100)
        return {**page, "Instances": {"Instance": [
            self._instance(fleet[n], asked["RegionId"]) for n in range(start, min(start + size, len(fleet)))]}}

    def _instance(self, machine: Machine, region: str) -> dict[str, Any]:
        interfaces = [_interface(f"eni-p{machine.key}", "Primary", machine.lan)]
        if self._has_more(machine):         # first: the order means nothing
            interfaces.insert(0, _interface(f"eni-s{machine.key}", "Secondary", _second(machine)[:1]))
        return {
            "InstanceId": f"i-{machine.key}", "InstanceName": machine.name, "HostName": machine.name,
            "Cpu": machine.cpu, "CpuOptions": {"CoreCount": max(1, machine.cpu // 2), "ThreadsPerCore": 2},
            "Memory": machine.memory_gib * 1024, "Status": _STATES[machine.state], "RegionId": region,
            "ZoneId": f"{region}-{'abc'[machine.zone - 1]}", "InstanceType": f"ecs.g7.x{machine.cpu}",
            "InstanceTypeFamily": "ecs.g7", "CreationTime": f"{machine.created:%Y-%m-%dT%H:%MZ}",
            "StartTime": f"{machine.created + timedelta(days=9):%Y-%m-%dT%H:%MZ}", "ExpiredTime": "2099-12-31T15:59Z",
            "InstanceChargeType": "PostPaid", "InstanceNetworkType": "vpc", "StoppedMode": "Not-applicable",
            "ResourceGroupId": GROUP if machine.project else "", "ImageId": "m-bp67acfmxazb4p****",
            "VpcAttributes": {"VpcId": "vpc-2zeuphj08tt7q3brd****", "VSwitchId": "vsw-2zeh0r1pabwtg6wcs****",
                              "NatIpAddress": "", "PrivateIpAddress": {"IpAddress": [machine.lan[0]]}},
            "NetworkInterfaces": {"NetworkInterface": interfaces}, "InnerIpAddress": {"IpAddress": []},
            "PublicIpAddress": {"IpAddress": list(machine.wan[1:])},
            "EipAddress": {"AllocationId": "eip-2ze88m67qx5z****" if machine.wan else "", "InternetChargeType": "",
                           "IpAddress": machine.wan[0] if machine.wan else ""},
            "SecurityGroupIds": {"SecurityGroupId": ["sg-bp67acfmxazb4p****"]},
            "OperationLocks": {"LockReason": []}, "SpotStrategy": "NoSpot", "DeletionProtection": False,
            "Tags": {"Tag": [{"TagKey": key, "TagValue": value} for key, value in machine.tags.items()]}}

    def _disks(self, asked: Mapping[str, str], fleet: Fleet) -> dict[str, Any]:
        disks = [self._disk(machine, n, size, asked["RegionId"])
                 for machine in (fleet[n] for n in range(len(fleet))) for n, size in enumerate(machine.disks)]
        if self.attached:
            disks += [self._shared(fleet[n], fleet[n + 1], asked["RegionId"]) for n in range(0, len(fleet) - 1, 3)]
        if owner := asked.get("InstanceId"):
            disks = [disk for disk in disks if owner in {a["InstanceId"] for a in disk["Attachments"]["Attachment"]}]
        start, size, page = self._page(asked, len(disks), f"DescribeDisks/{owner}", most=500)
        return {**page, "Disks": {"Disk": disks[start:start + size]}}

    def _disk(self, machine: Machine, number: int, size: int, region: str) -> dict[str, Any]:
        created = f"{machine.created:%Y-%m-%dT%H:%M:00Z}"
        return {"DiskId": f"d-{machine.key}{number}", "InstanceId": f"i-{machine.key}", "Size": size,
                "Type": "data" if number else "system", "Category": "cloud_essd", "Status": "In_use",
                "RegionId": region, "ZoneId": f"{region}-{'abc'[machine.zone - 1]}", "MultiAttach": "Disabled",
                "CreationTime": created, "ResourceGroupId": GROUP if machine.project else "",
                "Attachments": {"Attachment": [{"InstanceId": f"i-{machine.key}", "AttachedTime": created}]}}

    def _shared(self, one: Machine, other: Machine, region: str) -> dict[str, Any]:
        return {"DiskId": f"d-{one.key}m", "InstanceId": "", "Size": 40, "Type": "data", "Category": "cloud_essd",
                "Status": "In_use", "RegionId": region, "MultiAttach": "Enabled", "Attachments": {"Attachment": [
                    {"InstanceId": f"i-{machine.key}", "Device": "/dev/xvdx"} for machine in (one, other)]}}

    def _interfaces(self, asked: Mapping[str, str], fleet: Fleet) -> dict[str, Any]:
        ids = {value for name, value in asked.items() if name.startswith("NetworkInterfaceId.")}
        if len(ids) > 100:
            raise _Refused(400, "InvalidParameter", "At most 100 interfaces.")
        found = [{"NetworkInterfaceId": f"eni-s{machine.key}", "InstanceId": f"i-{machine.key}", "Type": "Secondary",
                  "Status": "InUse", "PrivateIpAddress": _second(machine)[0], "AssociatedPublicIp": {},
                  "PrivateIpSets": {"PrivateIpSet": [
                      {"PrivateIpAddress": _second(machine)[0], "Primary": True,
                       "AssociatedPublicIp": {"AllocationId": "eip-1", "PublicIpAddress": _second(machine)[1]}}]}}
                 for machine in (fleet[n] for n in range(len(fleet)))
                 if self._has_more(machine) and (not ids or f"eni-s{machine.key}" in ids)]
        start, size, page = self._page(asked, len(found), f"DescribeNetworkInterfaces/{sorted(ids)}", most=500)
        return {**page, "NetworkInterfaceSets": {"NetworkInterfaceSet": found[start:start + size]}}

    def _has_more(self, machine: Machine) -> bool:
        return self.attached and machine.number % 3 == 0

    def _page(self, asked: Mapping[str, str], count: int, of: str, most: int) -> tuple[int, int, dict[str, Any]]:
        """(first row, rows, what the answer says of the page)."""
        if "MaxResults" in asked or "NextToken" in asked:
            size = min(max(_number(asked, "MaxResults", 10, 10 ** 6), 10), most)
            start = self._position(asked["NextToken"], of) if asked.get("NextToken") else 0
            return start, size, {"NextToken": self._positions.give(start + size, of) if start + size < count else "",
                                 "TotalCount": 0, "PageNumber": 0, "PageSize": 0}
        number, size = _number(asked, "PageNumber", 1, 10 ** 6), _number(asked, "PageSize", 10, 100)
        return (number - 1) * size, size, {"NextToken": "", "TotalCount": count, "PageNumber": number, "PageSize": size}

    def _position(self, token: str, of: str) -> int:
        try:
            return self._positions.take(token, of)
        except ValueError:
            raise _Refused(400, "InvalidParameter.NextToken", "The specified NextToken is invalid.") from None


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    keys: dict[str, object] = {"access_key_id": "LTAIdemo", "access_key_secret": secret}
    return Aliyun({"LTAIdemo": secret}, fleets, limited=limited, latency=latency), keys


CLOUDS = {"aliyun": Cloud("cn-hangzhou", start, Least(
    calls=10 + 4, trips=4, window_calls=1 + 4, window_trips=4,
    why="10 pages of 100 with a total; disks 500 to a call, but token after token: 4. A disk filter accepts one "
        "instance, so a window of ten reads all disks too."))}


def _interface(key: str, kind: str, ips: tuple[str, ...]) -> dict[str, Any]:
    return {"NetworkInterfaceId": key, "MacAddress": "00:16:3e:00:00:01", "Type": kind, "PrimaryIpAddress": ips[0],
            "PrivateIpSets": {"PrivateIpSet": [{"PrivateIpAddress": ip, "Primary": ip == ips[0]} for ip in ips]},
            "Ipv6Sets": {"Ipv6Set": []}}


def _second(machine: Machine) -> tuple[str, str]:
    last = machine.number % 250 + 1
    return f"192.168.77.{last}", f"203.0.113.{last}"


def _number(asked: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = asked.get(name, str(default))
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise _Refused(400, f"InvalidParameter.{name}", f"The specified parameter {name} is not valid.")
    return int(text)
