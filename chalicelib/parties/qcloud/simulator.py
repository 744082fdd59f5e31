"""A simulator for Tencent Cloud API 3.0: CVM, CBS, VPC and Region, signed with TC3-HMAC-SHA256.

Checked as the real one does: signature over the headers that were signed, five minutes of clock, version, region,
Limit at most 100 (default 20), filters, 40 (CVM) and 100 (CBS, VPC) calls a second for each key and region.
"""

import hashlib
import hmac
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from ...simulators.cloud import Cloud, Demo, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet, Machine, seed_machine
from ...simulators.server import Call, Rate, Simulator

REGIONS = ("ap-guangzhou", "ap-shanghai", "ap-beijing", "ap-chengdu", "ap-hongkong", "ap-singapore",
           "na-siliconvalley", "eu-frankfurt", "ap-shanghai-fsi")
_VERSIONS = {"DescribeInstances": "2017-03-12", "DescribeDisks": "2017-03-12",
             "DescribeNetworkInterfaces": "2017-03-12", "DescribeRegions": "2022-06-27"}
_RATES = {"DescribeInstances": 40, "DescribeDisks": 100, "DescribeNetworkInterfaces": 100, "DescribeRegions": 20}
_STATES = {"running": "RUNNING", "stopped": "STOPPED", "starting": "STARTING", "stopping": "STOPPING",
           "pending": "PENDING", "terminated": "TERMINATING"}


class _Refused(Exception):
    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)


class Qcloud(Simulator):
    """`keys`: secret id -> secret key. `fleets`: region -> fleet. `tokens`: of temporary keys, by secret id.

    `attached`: machines have a disk and an interface that the list of instances does not show. `limited`: the
    documented rates are enforced. `late`: seconds by which its clock is ahead.
    """

    versions: Mapping[str, str] = _VERSIONS                     # of each action
    documented: Mapping[str, int] = _RATES

    def __init__(self, keys: Mapping[str, str], fleets: Mapping[str, Fleet], *, tokens: Mapping[str, str] = {},
                 attached: bool = False, limited: bool = True, late: float = 0.0, port: int = 0,
                 latency: float = 0.0) -> None:
        self.keys = dict(keys)
        self.fleets = dict(fleets)
        self.tokens = dict(tokens)
        self.attached = attached
        self.late = late
        self.rates = {action: Rate(calls) for action, calls in self.documented.items()} if limited else {}
        self.rows: dict[int, dict[str, Any]] = {}
        super().__init__(port, latency)

    def regions(self) -> tuple[str, ...]:
        return REGIONS

    def operation(self, call: Call) -> str:
        return call.headers.get("x-tc-action", "?")

    def answer(self, call: Call) -> Answer:
        try:
            body: dict[str, Any] = self._answer(call)
        except _Refused as refused:
            body = {"Error": {"Code": refused.args[0], "Message": refused.args[1] or refused.args[0]}}
        body["RequestId"] = str(uuid.uuid4())
        return Answer(200, {"Content-Type": "application/json"}, msgspec.json.encode({"Response": body}))

    def _answer(self, call: Call) -> dict[str, Any]:
        action, region = call.operation, call.headers.get("x-tc-region", "")
        secret_id = self._check_signature(call)
        if action not in self.versions:
            raise _Refused("InvalidAction", "The request action is not valid.")
        if call.headers.get("x-tc-version") != self.versions[action]:
            raise _Refused("NoSuchVersion", "The request version does not exist.")
        if action != "DescribeRegions":
            if not region:
                raise _Refused("MissingParameter", "The request is missing a required parameter `Region`.")
            if region not in self.regions():
                raise _Refused("UnsupportedRegion", "The request does not support this region.")
        if action in self.rates and not self.rates[action].allows(f"{secret_id}/{region}", call.at):
            raise _Refused("RequestLimitExceeded", "Your current request rate is too high.")
        try:
            query: dict[str, Any] = msgspec.json.decode(call.body, type=dict[str, Any])
        except ValueError:
            raise _Refused("InvalidParameter", "The request body is not valid JSON.") from None
        fleet = self.fleets.get(region, Fleet(0))
        if action == "DescribeRegions":
            return {"TotalCount": len(self.regions()), "RegionSet": [
                {"Region": name, "RegionName": name, "RegionState": "AVAILABLE"} for name in self.regions()]}
        return self.listed(action, query, fleet, region)

    def listed(self, action: str, query: dict[str, Any], fleet: Fleet, region: str) -> dict[str, Any]:
        """What a list of a region answers."""
        if action == "DescribeInstances":
            return self._instances(query, fleet, region)
        if action == "DescribeDisks":
            return self._disks(query, fleet, region)
        return self._interfaces(query, fleet)

    # ---------------------------------------------------------------- signature

    def _check_signature(self, call: Call) -> str:
        match = re.fullmatch(r"TC3-HMAC-SHA256 Credential=([^/]+)/(\d{4}-\d\d-\d\d)/(\w+)/tc3_request, ?"
                             r"SignedHeaders=([a-z;-]+), ?Signature=([0-9a-f]{64})",
                             call.headers.get("authorization", ""))
        if not match:
            raise _Refused("AuthFailure.InvalidAuthorization", "Authorization header is invalid.")
        secret_id, day, service, signed, signature = match.groups()
        stamp = call.headers.get("x-tc-timestamp", "")
        if not stamp.isdigit() or abs(time.time() + self.late - int(stamp)) > 300:
            raise _Refused("AuthFailure.SignatureExpire", "The provided timestamp is too far from server time.")
        if secret_id not in self.keys:
            raise _Refused("AuthFailure.SecretIdNotFound", "The SecretId is not found.")
        if secret_id in self.tokens and call.headers.get("x-tc-token") != self.tokens[secret_id]:
            raise _Refused("AuthFailure.TokenFailure", "The token is not valid.")
        if {"content-type", "host"} - set(signed.split(";")):
            raise _Refused("AuthFailure.InvalidAuthorization", "content-type and host must be signed.")
        lines = "".join(f"{name}:{call.headers.get(name, '').strip().lower()}\n" for name in signed.split(";"))
        body = hashlib.sha256(call.body).hexdigest()
        canonical = "\n".join((call.method, call.path, call.query, lines, signed, body))
        text = (f"TC3-HMAC-SHA256\n{stamp}\n{day}/{service}/tc3_request\n"
                f"{hashlib.sha256(canonical.encode()).hexdigest()}")
        key = ("TC3" + self.keys[secret_id]).encode()
        for part in (day, service, "tc3_request", text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        if day != datetime.fromtimestamp(int(stamp), UTC).strftime("%Y-%m-%d") or key.hex() != signature:
            raise _Refused("AuthFailure.SignatureFailure", "The provided credentials could not be validated.")
        return secret_id

    # ---------------------------------------------------------------- answers

    def _instances(self, query: dict[str, Any], fleet: Fleet, region: str) -> dict[str, Any]:
        filters = filters_in(query, {"project-id", "zone", "instance-id", "instance-name", "instance-state"}, most=5)
        ids = query.get("InstanceIds")
        if ids and filters:
            raise _Refused("InvalidParameterConflict", "InstanceIds and Filters cannot be given together.")
        offset, limit = window_in(query, {"Filters", "InstanceIds"})
        chosen: Sequence[Machine] = fleet   # type: ignore[assignment]
        if filters or ids:
            projects = filters.get("project-id")
            wanted = set(ids or filters.get("instance-id") or ())
            chosen = [m for m in (fleet[n] for n in range(len(fleet)))
                      if (not projects or str(m.project) in projects) and (not wanted or f"ins-{m.key}" in wanted)]
        page = [chosen[n] for n in range(offset, min(offset + limit, len(chosen)))]
        return {"TotalCount": len(chosen), "InstanceSet": [self._row(m, region) for m in page]}

    def _row(self, machine: Machine, region: str) -> dict[str, Any]:
        if machine.number in self.rows:     # a test's own record
            return self.rows[machine.number]
        system, *data = machine.disks
        created = machine.created.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "Placement": {"Zone": f"{region}-{machine.zone}", "HostId": None, "ProjectId": machine.project,
                          "HostIds": None, "RackId": None},
            "InstanceId": f"ins-{machine.key}", "InstanceType": f"S5.LARGE{machine.memory_gib}",
            "CPU": machine.cpu, "Memory": machine.memory_gib, "RestrictState": "NORMAL",
            "InstanceName": machine.name, "InstanceChargeType": "PREPAID" if machine.ends else "POSTPAID_BY_HOUR",
            "SystemDisk": {"DiskType": "CLOUD_PREMIUM", "DiskId": f"disk-s{machine.key}", "DiskSize": system,
                           "CdcId": None, "DiskName": None},
            "DataDisks": [{"DiskSize": size, "DiskType": "CLOUD_PREMIUM", "DiskId": f"disk-d{machine.key}{n}",
                           "DeleteWithInstance": True, "SnapshotId": None, "Encrypt": False, "KmsKeyId": None,
                           "ThroughputPerformance": 0, "CdcId": None, "BurstPerformance": False}
                          for n, size in enumerate(data)] or None,
            "PrivateIpAddresses": list(machine.lan), "PublicIpAddresses": list(machine.wan) or None,
            "InternetAccessible": {"InternetChargeType": "TRAFFIC_POSTPAID_BY_HOUR", "InternetMaxBandwidthOut": 5,
                                   "PublicIpAssigned": bool(machine.wan), "BandwidthPackageId": None},
            "VirtualPrivateCloud": {"VpcId": "vpc-m57eq3rq", "SubnetId": "subnet-prsqxopj", "AsVpcGateway": False,
                                    "PrivateIpAddresses": None, "Ipv6AddressCount": 0},
            "ImageId": "img-eb30mz89", "RenewFlag": "NOTIFY_AND_MANUAL_RENEW", "CreatedTime": created,
            "ExpiredTime": f"{machine.ends:%Y-%m-%dT%H:%M:%SZ}" if machine.ends else None,
            "OsName": "TencentOS Server 3.1 (TK4)", "SecurityGroupIds": ["sg-jlk3f3r1"],
            "LoginSettings": {"KeyIds": None, "Password": "", "KeepImageLogin": ""},
            "InstanceState": _STATES[machine.state],
            "Tags": [{"Key": key, "Value": value} for key, value in machine.tags.items()] or None,
            "StopChargingMode": "NOT_APPLICABLE", "Uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, machine.key)),
            "LatestOperation": "RunInstances", "LatestOperationState": "SUCCESS",
            "LatestOperationRequestId": str(uuid.uuid5(uuid.NAMESPACE_URL, machine.key)), "DisasterRecoverGroupId": "",
            "IPv6Addresses": None, "CamRoleName": "", "HpcClusterId": "", "RdmaIpAddresses": None,
            "DedicatedClusterId": "", "IsolatedSource": "NOTISOLATED", "LicenseType": "TencentCloud",
            "DisableApiTermination": False, "DefaultLoginUser": "root", "DefaultLoginPort": 22}

    def _disks(self, query: dict[str, Any], fleet: Fleet, region: str) -> dict[str, Any]:
        filters = filters_in(query, {"instance-id", "disk-state", "disk-usage", "project-id"}, most=100)
        offset, limit = window_in(query, {"Filters", "DiskIds", "OrderField", "Order", "ReturnBindAutoSnapshotPolicy"})
        wanted = set(filters.get("instance-id") or ())
        disks: list[dict[str, Any]] = []
        for machine in (fleet[n] for n in range(len(fleet))):
            owner = f"ins-{machine.key}"
            if wanted and owner not in wanted:
                continue
            sizes = [*machine.disks, *([30] if self.attached else [])]
            disks += [{"DiskId": f"disk-s{machine.key}" if n == 0 else f"disk-d{machine.key}{n - 1}", "DiskSize": size,
                       "DiskUsage": "DATA_DISK" if n else "SYSTEM_DISK", "DiskState": "ATTACHED", "Attached": True,
                       "InstanceId": owner, "InstanceIdList": [owner], "Shareable": False,
                       "CreateTime": machine.created.strftime("%Y-%m-%d %H:%M:%S"),
                       "Placement": {"Zone": f"{region}-{machine.zone}", "ProjectId": machine.project}}
                      for n, size in enumerate(sizes)]
        return {"TotalCount": len(disks), "DiskSet": disks[offset:offset + limit]}

    def _interfaces(self, query: dict[str, Any], fleet: Fleet) -> dict[str, Any]:
        filters = filters_in(query, {"attachment.instance-id", "vpc-id", "subnet-id"}, most=100)
        offset, limit = window_in(query, {"Filters", "NetworkInterfaceIds"})
        wanted = set(filters.get("attachment.instance-id") or ())
        rows: list[dict[str, Any]] = []
        for machine in (fleet[n] for n in range(len(fleet))):
            owner = f"ins-{machine.key}"
            if wanted and owner not in wanted:
                continue
            both = [(True, machine.lan, machine.wan)]
            if self.attached:
                last = machine.number % 250 + 1
                both.append((False, (f"192.168.77.{last}",), (f"203.0.113.{last}",)))
            rows += [{"NetworkInterfaceId": f"eni-{machine.key}{int(not primary)}", "Primary": primary,
                       "State": "AVAILABLE", "VpcId": "vpc-m57eq3rq", "SubnetId": "subnet-prsqxopj",
                       "PrivateIpAddressSet": [
                           {"PrivateIpAddress": ip, "Primary": n == 0, "IsWanIpBlocked": False, "State": "AVAILABLE",
                            "PublicIpAddress": wan[n] if n < len(wan) else ""} for n, ip in enumerate(lan)],
                       "Ipv6AddressSet": [],
                       "Attachment": {"InstanceId": owner, "DeviceIndex": int(not primary), "InstanceAccountId": "1"}}
                      for primary, lan, wan in both]
        return {"TotalCount": len(rows), "NetworkInterfaceSet": rows[offset:offset + limit]}


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    keys: dict[str, object] = {"secret_id": "AKIDdemo", "secret_key": secret}
    return Qcloud({"AKIDdemo": secret}, fleets, limited=limited, latency=latency), keys


DEMO = Demo(
    fleets={"ap-guangzhou": Fleet(25, "demo", first=seed_machine()), "ap-shanghai": Fleet(310, "demo")},
    accounts={"shop": {"ap-guangzhou": Fleet(12, "shop")}, "lab": {"ap-guangzhou": Fleet(5, "lab")}})

CLOUDS = {"qcloud": Cloud("ap-guangzhou", start, Least(
    calls=10, trips=2, window_calls=1, window_trips=1, rate=(40, 1.0),
    why="10 pages of 100 with a total: the first, then the others."), shown=DEMO)}


def window_in(query: dict[str, Any], known: set[str]) -> tuple[int, int]:
    for name in query.keys() - known - {"Offset", "Limit"}:
        raise _Refused("UnknownParameter", f"The parameter `{name}` is not recognized.")
    offset, limit = query.get("Offset", 0), query.get("Limit", 20)
    if type(offset) is not int or offset < 0:
        raise _Refused("InvalidParameterValue", "Offset must not be negative.")
    if type(limit) is not int or not 0 < limit <= 100:
        raise _Refused("InvalidParameterValue.LimitExceeded", "Limit must be from 1 to 100.")
    return offset, limit


def filters_in(query: dict[str, Any], known: set[str], most: int, unknown: str = "InvalidFilter",
               too_many: str = "InvalidFilterValue.LimitExceeded") -> dict[str, list[str]]:
    """`unknown`, `too_many`: the words of these refusals."""
    rows: list[dict[str, Any]] = query.get("Filters") or []
    if len(rows) > 10:
        raise _Refused(too_many, "At most 10 filters.")
    filters: dict[str, list[str]] = {}
    for one in rows:
        if one["Name"] not in known:
            raise _Refused(unknown, "The filter is not supported.")
        if len(one["Values"]) > most:
            raise _Refused(too_many, f"At most {most} values.")
        filters[one["Name"]] = one["Values"]
    return filters
