"""A simulator for Alibaba Cloud ECS, STS and a resource directory: RPC calls signed with ACS3-HMAC-SHA256, JSON only if
asked for.

Checked as the real ones do: signature over the signed headers and the sorted query, the body's hash, fifteen minutes
of clock, each nonce once, version, region, PageSize at most 100 (default 10), MaxResults held to 10..100 (disks and
interfaces: 500), tokens that belong to the call that gave them, no total once MaxResults or NextToken is given.
"""

import hashlib
import hmac
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote
from zlib import crc32

import msgspec

from ...simulators.cloud import Branch, Cloud, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet, Machine, Positions
from ...simulators.server import Call, Rate, Simulator

REGIONS = {"cn-hangzhou": "China (Hangzhou)", "cn-beijing": "China (Beijing)", "cn-shanghai": "China (Shanghai)",
           "cn-hongkong": "China (Hong Kong)", "ap-southeast-1": "Singapore", "eu-central-1": "Germany (Frankfurt)"}
GROUP = "rg-aek2jp5vdyj2ywi"
_STATES = {"running": "Running", "stopped": "Stopped", "starting": "Starting", "stopping": "Stopping",
           "pending": "Pending"}
_CALLS = ("DescribeInstances", "DescribeDisks", "DescribeNetworkInterfaces", "DescribeRegions")


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(status, code, message)


class Aliyun(Simulator):
    """`keys`: access key id -> secret. `fleets`: region -> fleet. `roles`: arn -> external id ("" for none).

    `accounts`: of a resource directory, number -> branch; the first is the keys' own, which no list names. `above`: see
    Organise. `denied`: actions for which the keys lack the right; `silent`: they are answered with an empty list then,
    as the cloud did until 2025. `attached`: each third machine has a second interface with an elastic address, and
    shares a disk with its neighbour. `late`: seconds by which its clock is ahead.
    """

    def __init__(self, keys: Mapping[str, str], fleets: Mapping[str, Fleet], *, roles: Mapping[str, str] = {},
                 tokens: Mapping[str, str] = {}, accounts: Mapping[str, Branch] = {}, above: Mapping[str, str] = {},
                 attached: bool = False, silent: bool = False, limited: bool = True,
                 late: float = 0.0, port: int = 0, latency: float = 0.0) -> None:
        self.keys = dict(keys)
        self.fleets = dict(fleets)
        self.roles = dict(roles)
        self.tokens = dict(tokens)          # access key id -> security token
        self.accounts = dict(accounts)
        self.above = dict(above)
        self.ids = {branch.name: number for number, branch in accounts.items()}
        self.units = {"": "r-Wm4Rc1", **{name: f"fd-{crc32(name.encode()):08x}" for name in above}}
        self.in_account: dict[str, str] = {}                    # access key id of a session -> the member's number
        self.attached = attached
        self.silent = silent
        self.late = late
        self.denied: set[str] = set()
        self._nonces: set[str] = set()
        self._rate = Rate(20) if limited else None
        self._positions = Positions()
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        return call.headers.get("x-acs-action", "?")

    def answer(self, call: Call) -> Answer:
        request_id = str(uuid.uuid4()).upper()
        try:
            status, body = 200, self._answer(call)
        except Refused as refused:
            status, code, message = refused.args
            body = {"HostId": call.headers.get("host"), "Code": code, "Message": message or code,
                    "Recommend": f"https://api.aliyun.com/troubleshoot?q={code}"}
        if "json" not in call.headers.get("accept", "") and dict(parse_qsl(call.query)).get("Format") != "JSON":
            return Answer(status, {"Content-Type": "text/xml;charset=utf-8"},
                          f"<?xml version='1.0' encoding='UTF-8'?><Response><RequestId>{request_id}</RequestId>"
                          "</Response>".encode())
        return Answer(status, {"Content-Type": "application/json;charset=utf-8"},
                      msgspec.json.encode({"RequestId": request_id, **body}))

    def _answer(self, call: Call) -> dict[str, Any]:
        query = dict(parse_qsl(call.query, keep_blank_values=True))
        query |= dict(parse_qsl(call.body.decode(), keep_blank_values=True))
        key_id = self._check_signature(call)
        action, version = call.operation, call.headers.get("x-acs-version")
        if action == "AssumeRole" and version == "2015-04-01":
            return self._assume_role(query)
        if action == "GetCallerIdentity" and version == "2015-04-01":
            own = self._account_of(key_id)
            return {"AccountId": own, "IdentityType": "RAMUser", "Arn": f"acs:ram::{own}:user/twocloud",
                    "PrincipalId": "2000", "UserId": "2000"}
        if version == "2022-04-19":
            return self._directory(key_id, action, query)
        return self.product(call, key_id, query)

    def product(self, call: Call, key_id: str, query: Mapping[str, str]) -> dict[str, Any]:
        """What ECS answers."""
        action, version = call.operation, call.headers.get("x-acs-version")
        if action not in _CALLS:
            raise Refused(404, "InvalidAction.NotFound", "Specified api is not found.")
        if version != "2014-05-26":
            raise Refused(400, "InvalidVersion", "Specified parameter Version is not valid.")
        self.count_call(call, key_id, query)
        if action == "DescribeRegions":
            return {"Regions": {"Region": [{"RegionId": key, "RegionEndpoint": f"ecs.{key}.aliyuncs.com",
                                            "LocalName": name} for key, name in REGIONS.items()]}}
        if not query.get("RegionId"):
            raise Refused(400, "MissingParameter", "The input parameter RegionId is mandatory.")
        if query["RegionId"] not in REGIONS:
            raise Refused(404, "InvalidRegionId.NotFound", "The specified RegionId does not exist.")
        dry = query.get("DryRun", "").lower() == "true"
        if action in self.denied and (dry or not self.silent):
            raise Refused(403, "Forbidden.RAM", "User not authorized to operate on the specified resource.")
        if dry:
            raise Refused(400, "DryRunOperation", "Request validation has been passed with DryRun flag set.")
        account = self._account_of(key_id)
        fleets = self.accounts[account].fleets if account in self.accounts else self.fleets
        fleet = fleets.get(query["RegionId"], Fleet(0)) if action not in self.denied else Fleet(0)
        if action == "DescribeInstances":
            return self._instances(query, fleet)
        return self._disks(query, fleet) if action == "DescribeDisks" else self._interfaces(query, fleet)

    def count_call(self, call: Call, key_id: str, query: Mapping[str, str]) -> None:
        """Refuses it, if there were too many."""
        if self._rate and not self._rate.allows(f"{key_id}/{query.get('RegionId')}/{call.operation}", call.at):
            raise Refused(400, "Throttling.User", "Request was denied due to user flow control.")

    # ---------------------------------------------------------------- signature

    def _check_signature(self, call: Call) -> str:
        headers = call.headers
        match = re.fullmatch(r"ACS3-HMAC-SHA256 Credential=([^,]+),SignedHeaders=([a-z0-9;-]+),"
                             r"Signature=([0-9a-f]{64})", headers.get("authorization", ""))
        if not match:
            raise Refused(400, "IncompleteSignature", "The request signature does not conform to Aliyun standards.")
        key_id, signed, signature = match.groups()
        if key_id not in self.keys:
            raise Refused(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
        try:
            at = datetime.strptime(headers.get("x-acs-date", ""), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise Refused(400, "InvalidTimeStamp.Format", "Specified time stamp is not well formatted.") from None
        if abs(time.time() + self.late - at) > 900:
            raise Refused(400, "InvalidTimeStamp.Expired", "Specified time stamp or date value is expired.")
        if self.tokens.get(key_id) != headers.get("x-acs-security-token"):
            raise Refused(403, "InvalidSecurityToken.MismatchWithAccessKey", "Specified SecurityToken is mismatched.")
        names = signed.split(";")
        needed = {"host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce",
                  "x-acs-content-sha256", *(name for name in headers if name.startswith("x-acs-"))}
        body = hashlib.sha256(call.body).hexdigest()
        if needed - set(names) or headers["x-acs-content-sha256"] != body:
            raise Refused(400, "IncompleteSignature", "The request signature does not conform to Aliyun standards.")
        query = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}"
                         for name, value in sorted(parse_qsl(call.query, keep_blank_values=True)))
        lines = "".join(f"{name}:{headers.get(name, '').strip()}\n" for name in names)
        canonical = "\n".join((call.method, call.path, query, lines, signed, body))
        text = f"ACS3-HMAC-SHA256\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        if hmac.new(self.keys[key_id].encode(), text.encode(), hashlib.sha256).hexdigest() != signature:
            raise Refused(400, "SignatureDoesNotMatch", "Specified signature does not match our calculation.")
        if headers["x-acs-signature-nonce"] in self._nonces:
            raise Refused(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
        self._nonces.add(headers["x-acs-signature-nonce"])
        return key_id

    def _assume_role(self, query: Mapping[str, str]) -> dict[str, Any]:
        role = query.get("RoleArn", "")
        if {**self.roles, **self._member_roles()}.get(role) != query.get("ExternalId", ""):
            raise Refused(403, "NoPermission", "You are not authorized to do this action.")
        if not 900 <= int(query.get("DurationSeconds", "3600")) <= 43200 or not query.get("RoleSessionName"):
            raise Refused(400, "InvalidParameter.DurationSeconds", "The specified DurationSeconds is invalid.")
        key_id, secret, token = f"STS.{uuid.uuid4().hex[:24]}", uuid.uuid4().hex, uuid.uuid4().hex
        self.keys[key_id], self.tokens[key_id] = secret, token
        if (member := role.split(":")[3]) in self.accounts:
            self.in_account[key_id] = member
        until = datetime.now(UTC) + timedelta(seconds=int(query.get("DurationSeconds", "3600")))
        return {"AssumedRoleUser": {"Arn": f"{role}/{query['RoleSessionName']}", "AssumedRoleId": "3491:twocloud"},
                "Credentials": {"AccessKeyId": key_id, "AccessKeySecret": secret, "SecurityToken": token,
                                "Expiration": f"{until:%Y-%m-%dT%H:%M:%SZ}"}}

    # ---------------------------------------------------------------- the resource directory

    def _account_of(self, key_id: str) -> str:
        return self.in_account.get(key_id) or next(iter(self.accounts), "1234567890123456")

    def _member_roles(self) -> dict[str, str]:
        return {f"acs:ram::{number}:role/ResourceDirectoryAccountAccessRole": ""
                for number, branch in [*self.accounts.items()][1:] if not branch.locked and not branch.closed}

    def _directory(self, key_id: str, action: str, query: Mapping[str, str]) -> dict[str, Any]:
        if not self.accounts:
            raise Refused(404, "EntityNotExists.ResourceDirectory", "The resource directory does not exist.")
        if action in self.denied or self._account_of(key_id) != next(iter(self.accounts)):
            raise Refused(403, "NoPermission", "You are not authorized to do this action.")
        rows = [(branch.unit, _account(number, branch, self.units[branch.unit]))
                for number, branch in [*self.accounts.items()][1:]]
        parent = next((name for name, key in self.units.items() if key == query.get("ParentFolderId")), None)
        if action == "ListAccounts":
            return self._directory_page(query, "Account", [row for _, row in rows])
        if parent is None:
            raise Refused(404, "EntityNotExists.Folder", "The folder does not exist.")
        if action == "ListAccountsForParent":
            return self._directory_page(query, "Account", [row for unit, row in rows if unit == parent])
        if action == "ListFoldersForParent":
            return self._directory_page(query, "Folder", [
                {"FolderId": self.units[name], "FolderName": name, "CreateTime": "2024-01-01T00:00:00"}
                for name, above in self.above.items() if above == parent])
        raise Refused(404, "InvalidAction.NotFound", "Specified api is not found.")

    def _directory_page(self, query: Mapping[str, str], key: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        number, size = number_in(query, "PageNumber", 1, 10 ** 6), number_in(query, "PageSize", 10, 100)
        return {"TotalCount": len(rows), "PageNumber": number, "PageSize": size,
                f"{key}s": {key: rows[(number - 1) * size:number * size]}}

    # ---------------------------------------------------------------- answers

    def _instances(self, query: Mapping[str, str], fleet: Fleet) -> dict[str, Any]:
        start, size, page = self._page(query, len(fleet), "DescribeInstances", most=100)
        return {**page, "Instances": {"Instance": [
            self._instance(fleet[n], query["RegionId"]) for n in range(start, min(start + size, len(fleet)))]}}

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
            "StartTime": f"{machine.created + timedelta(days=9):%Y-%m-%dT%H:%MZ}",
            "ExpiredTime": f"{machine.ends:%Y-%m-%dT%H:%MZ}" if machine.ends else "2099-12-31T15:59Z",
            "InstanceChargeType": "PrePaid" if machine.ends else "PostPaid", "OSType": "linux", "KeyPairName": "ops",
            "InstanceNetworkType": "vpc", "StoppedMode": "Not-applicable",
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

    def _disks(self, query: Mapping[str, str], fleet: Fleet) -> dict[str, Any]:
        disks = [self._disk(machine, n, size, query["RegionId"])
                 for machine in (fleet[n] for n in range(len(fleet))) for n, size in enumerate(machine.disks)]
        if self.attached:
            disks += [self._shared(fleet[n], fleet[n + 1], query["RegionId"]) for n in range(0, len(fleet) - 1, 3)]
        if owner := query.get("InstanceId"):
            disks = [disk for disk in disks if owner in {a["InstanceId"] for a in disk["Attachments"]["Attachment"]}]
        start, size, page = self._page(query, len(disks), f"DescribeDisks/{owner}", most=500)
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

    def _interfaces(self, query: Mapping[str, str], fleet: Fleet) -> dict[str, Any]:
        ids = {value for name, value in query.items() if name.startswith("NetworkInterfaceId.")}
        if len(ids) > 100:
            raise Refused(400, "InvalidParameter", "At most 100 interfaces.")
        rows = [{"NetworkInterfaceId": f"eni-s{machine.key}", "InstanceId": f"i-{machine.key}", "Type": "Secondary",
                  "Status": "InUse", "PrivateIpAddress": _second(machine)[0], "AssociatedPublicIp": {},
                  "PrivateIpSets": {"PrivateIpSet": [
                      {"PrivateIpAddress": _second(machine)[0], "Primary": True,
                       "AssociatedPublicIp": {"AllocationId": "eip-1", "PublicIpAddress": _second(machine)[1]}}]}}
                 for machine in (fleet[n] for n in range(len(fleet)))
                 if self._has_more(machine) and (not ids or f"eni-s{machine.key}" in ids)]
        start, size, page = self._page(query, len(rows), f"DescribeNetworkInterfaces/{sorted(ids)}", most=500)
        return {**page, "NetworkInterfaceSets": {"NetworkInterfaceSet": rows[start:start + size]}}

    def _has_more(self, machine: Machine) -> bool:
        return self.attached and machine.number % 3 == 0

    def _page(self, query: Mapping[str, str], count: int, of: str, most: int) -> tuple[int, int, dict[str, Any]]:
        """(first row, rows, what the answer says of the page)."""
        if "MaxResults" in query or "NextToken" in query:
            size = min(max(number_in(query, "MaxResults", 10, 10 ** 6), 10), most)
            start = self._position(query["NextToken"], of) if query.get("NextToken") else 0
            return start, size, {"NextToken": self._positions.give(start + size, of) if start + size < count else "",
                                 "TotalCount": 0, "PageNumber": 0, "PageSize": 0}
        number, size = number_in(query, "PageNumber", 1, 10 ** 6), number_in(query, "PageSize", 10, 100)
        return (number - 1) * size, size, {"NextToken": "", "TotalCount": count, "PageNumber": number, "PageSize": size}

    def _position(self, token: str, of: str) -> int:
        try:
            return self._positions.take(token, of)
        except ValueError:
            raise Refused(400, "InvalidParameter.NextToken", "The specified NextToken is invalid.") from None


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    keys: dict[str, object] = {"access_key_id": "LTAIdemo", "access_key_secret": secret}
    return Aliyun({"LTAIdemo": secret}, fleets, limited=limited, latency=latency), keys


def organise(branches: Sequence[Branch], secret: str, *, units: Mapping[str, str] = {}, limited: bool = True,
             latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    accounts = {str(1234567890123456 + 101 * n): branch for n, branch in enumerate(branches)}
    keys: dict[str, object] = {"access_key_id": "LTAIdemo", "access_key_secret": secret}
    return Aliyun({"LTAIdemo": secret}, {}, accounts=accounts, above=units, limited=limited, latency=latency), keys


CLOUDS = {"aliyun": Cloud("cn-hangzhou", start, organise=organise, least=Least(
    calls=10 + 4, trips=4, window_calls=1 + 4, window_trips=4,
    why="10 pages of 100 with a total; disks 500 to a call, but token after token: 4. A disk filter accepts one "
        "instance, so a window of ten reads all disks too."))}


def _interface(key: str, kind: str, ips: tuple[str, ...]) -> dict[str, Any]:
    return {"NetworkInterfaceId": key, "MacAddress": "00:16:3e:00:00:01", "Type": kind, "PrimaryIpAddress": ips[0],
            "PrivateIpSets": {"PrivateIpSet": [{"PrivateIpAddress": ip, "Primary": ip == ips[0]} for ip in ips]},
            "Ipv6Sets": {"Ipv6Set": []}}


def _account(number: str, branch: Branch, folder: str) -> dict[str, Any]:
    return {"AccountId": number, "DisplayName": branch.name, "Type": "ResourceAccount", "Status": "CreateSuccess",
            "DeletionStatus": "Deleting" if branch.closed else "", "FolderId": folder, "JoinMethod": "created",
            "ResourceDirectoryId": "rd-3G****", "ResourceDirectoryPath": f"rd-3G****/{folder}/{number}",
            "JoinTime": "2024-01-01T00:00:00.000Z", "ModifyTime": "2024-01-01T00:00:00.000Z"}


def _second(machine: Machine) -> tuple[str, str]:
    last = machine.number % 250 + 1
    return f"192.168.77.{last}", f"203.0.113.{last}"


def number_in(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name, str(default))
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise Refused(400, f"InvalidParameter.{name}", f"The specified parameter {name} is not valid.")
    return int(text)
