"""A simulator for Tianyi Cloud's CTAPI: list-instances, list-ebs, list-regions.

It checks what the real one does: the signature over request id, date, query and body, the date in Beijing's time (five
minutes), numbered pages of at most 50 instances and 300 disks (10 by default). Refusals of the gateway and of a
service have their own shapes. `silent`: an unknown region is an empty list; else it is refused.
"""

import base64
import hashlib
import hmac
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
from ...simulators.fleet import Fleet, Machine
from ...simulators.server import Call, Rate, Simulator

REGIONS = {"bb9fdb42056f11eda1610242ac110002": "cn-huadong1", "41f64827f25f468595ffa3a5deb5d15d": "cn-neimeng-8",
           "100054c0416811e9a6690242ac110002": "cn-baoding-1", "200000001852": "cn-closed-1"}
CLOSED = "200000001852"                     # named, but not open to calls like these
_CALLS = {("POST", "/v4/ecs/list-instances"): "ListInstances", ("GET", "/v4/ebs/list-ebs"): "ListEbs",
          ("GET", "/v4/region/list-regions"): "ListRegions"}
_STATES = {"running": "running", "stopped": "stopped", "starting": "starting", "stopping": "stopping",
           "pending": "creating", "terminated": "unsubscribing"}
_BEIJING = timezone(timedelta(hours=8))


class _Refused(Exception):
    def __init__(self, code: str, message: str, status: int = 200) -> None:
        super().__init__(code, message, status)


class Ctyun(Simulator):
    """`keys`: access key -> secret key. `fleets`: region -> fleet. `limited`: the rate that we think careful."""

    def __init__(self, keys: Mapping[str, str], fleets: Mapping[str, Fleet], *, silent: bool = False,
                 limited: bool = True, port: int = 0, latency: float = 0.0) -> None:
        self.keys = dict(keys)
        self.fleets = dict(fleets)
        self.silent = silent
        self.rates = {name: Rate(40) for name in _CALLS.values()} if limited else {}
        self._disks: dict[str, list[dict[str, Any]]] = {}
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        return _CALLS.get((call.method, call.path), "?")

    def answer(self, call: Call) -> Answer:
        status = 200
        try:
            body: dict[str, Any] = {"statusCode": 800, "message": "SUCCESS", "description": "成功",
                                    "returnObj": self._answer(call)}
        except _Refused as refused:
            code, message, status = refused.args
            body = {"statusCode": 900, "errorCode": code, "error": code, "message": message, "description": message}
            if code.startswith("CTAPI"):
                number = code.partition("_")[2]
                body = {"requestId": uuid.uuid4().hex, "error": number, "code": number, "message": message,
                        "eopErrCode": number, "statusCode": code, "returnObj": {}}
        return Answer(status, {"Content-Type": "application/json"}, msgspec.json.encode(body))

    def _answer(self, call: Call) -> dict[str, Any]:
        key = self._check_signature(call)
        if call.operation == "?":
            raise _Refused("CTAPI_10004", "ctyun-EOP: no such API", 404)
        if call.operation in self.rates and not self.rates[call.operation].allows(key, call.at):
            raise _Refused("CTAPI_10011", "ctyun-EOP: too many requests", 429)
        try:
            query: dict[str, Any] = (msgspec.json.decode(call.body, type=dict[str, Any]) if call.method == "POST"
                                     else dict(parse_qsl(call.query, keep_blank_values=True)))
        except ValueError:
            raise _Refused("Openapi.Parameter.Invalid", "the body is no JSON object") from None
        query = {name: value for name, value in query.items() if value is not None}
        if call.operation == "ListRegions":
            return {"regionList": [
                {"regionID": region, "regionName": code.split("-")[1], "regionCode": code, "regionParent": "",
                 "regionType": "openstack", "isMultiZones": True, "zoneList": ["az1", "az2", "az3"],
                 "openapiAvailable": region != CLOSED} for region, code in REGIONS.items()]}
        region = query.get("regionID")
        if not isinstance(region, str) or not region:
            raise _Refused("Openapi.Parameter.Missing", "regionID is missing")
        if region not in REGIONS and not self.silent:
            raise _Refused("Openapi.RegionInfo.AccessFailed", "regionID does not exist or is not open")
        return self._instances(query, region) if call.operation == "ListInstances" else self._volumes(query, region)

    # ---------------------------------------------------------------- signature

    def _check_signature(self, call: Call) -> str:
        match = re.fullmatch(r"(\S+) Headers=ctyun-eop-request-id;eop-date Signature=([A-Za-z0-9+/]{43}=)",
                             call.headers.get("eop-authorization", ""))
        date, request_id = call.headers.get("eop-date", ""), call.headers.get("ctyun-eop-request-id", "")
        if not match or not request_id:
            raise _Refused("CTAPI_10009", "ctyun-EOP: signature verification failed", 401)
        key, signature = match.groups()
        if key not in self.keys:
            raise _Refused("CTAPI_10002", "ctyun-EOP: the access key is not valid", 401)
        try:
            then = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=_BEIJING).timestamp()
        except ValueError:
            then = 0.0
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in sorted(
            parse_qsl(call.query, keep_blank_values=True)))
        text = (f"ctyun-eop-request-id:{request_id}\neop-date:{date}\n\n{query}\n"
                f"{hashlib.sha256(call.body).hexdigest()}")
        made = self.keys[key].encode()
        for part in (date, key, date.split("T")[0], text):
            made = hmac.new(made, part.encode(), hashlib.sha256).digest()
        if abs(time.time() - then) > 300 or base64.b64encode(made).decode() != signature:
            raise _Refused("CTAPI_10009", "ctyun-EOP: signature verification failed", 401)
        return key

    # ---------------------------------------------------------------- answers

    def _instances(self, query: Mapping[str, Any], region: str) -> dict[str, Any]:
        number, size = _number(query, "pageNo", 1, 10 ** 6), _number(query, "pageSize", 10, 50)
        fleet, project = self.fleets.get(region, Fleet(0)), query.get("projectID")
        chosen: Sequence[int] = range(len(fleet))
        if project is not None:
            chosen = [n for n in chosen if project_of(fleet[n]) == project]
        page = chosen[(number - 1) * size:number * size]
        return {"currentCount": len(page), "totalCount": len(chosen), "totalPage": -(-len(chosen) // size),
                "results": [_row(fleet[n]) for n in page]}

    def _volumes(self, query: Mapping[str, Any], region: str) -> dict[str, Any]:
        number, size = _number(query, "pageNo", 1, 10 ** 6), _number(query, "pageSize", 10, 300)
        if region not in self._disks:
            fleet = self.fleets.get(region, Fleet(0))
            self._disks[region] = [_disk(fleet[m], n, region) for m in range(len(fleet))
                                   for n in range(len(fleet[m].disks))]
        disks = self._disks[region]
        page = disks[(number - 1) * size:number * size]
        return {"diskList": page, "diskTotal": len(disks), "currentCount": len(page), "totalCount": len(disks),
                "totalPage": -(-len(disks) // size)}


def project_of(machine: Machine) -> str:
    """The id of the machine's enterprise project."""
    return hashlib.md5(str(machine.project).encode(), usedforsecurity=False).hexdigest() if machine.project else "0"


def _row(machine: Machine) -> dict[str, Any]:
    created = machine.created.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "projectID": project_of(machine), "azName": f"az{machine.zone}", "instanceID": _id(machine, "server"),
        "attachedVolume": [_id(machine, f"disk {n}") for n in range(len(machine.disks))],
        "addresses": [{"vpcName": "vpc-default", "addressList": [
            {"addr": ip, "version": 4, "type": kind, "isMaster": n == 0, "macAddress": "fa:16:3e:95:88:3f"}
            for kind, ips in (("fixed", machine.lan), ("floating", machine.wan)) for n, ip in enumerate(ips)]}],
        "resourceID": _id(machine, "order").replace("-", ""), "displayName": machine.name,
        "instanceName": f"host-{machine.key}", "osType": 1, "instanceStatus": _STATES[machine.state],
        "expiredTime": f"{machine.ends:%Y-%m-%dT%H:%M:%SZ}" if machine.ends else "",
        "availableDay": 0, "updatedTime": created, "createdTime": created,
        "zabbixName": f"zabbix-{machine.key}", "secGroupList": [], "privateIP": machine.lan[0], "privateIPv6": "",
        "networkCardList": [{"IPv4Address": ip, "IPv6Address": [], "subnetID": "subnet-1", "subnetCidr": "10.0.0.0/8",
                             "isMaster": n == 0, "gateway": "10.0.0.1", "networkCardID": f"port-{n}",
                             "securityGroup": []} for n, ip in enumerate(machine.lan)],
        "vipInfoList": [], "vipCount": 0, "affinityGroup": None, "onDemand": machine.ends is None,
        "vpcName": "vpc-default",
        "image": {"imageID": "b1d896e1-c977-4fd4-b6c2-5432549977be", "imageName": "CTyunOS"},
        "flavor": {"flavorID": "6d9ef2a9-8d0f-4e3f-9d0b-0d1a3d2e7a11", "gpuType": None, "gpuCount": None,
                   "flavorName": f"s7.{machine.cpu}c{machine.memory_gib}", "flavorCPU": machine.cpu,
                   "flavorRAM": machine.memory_gib * 1024 if machine.number % 2 else machine.memory_gib,
                   "gpuVendor": None, "videoMemSize": None},
        "vpcID": "vpc-euu7edo58k", "fixedIPList": list(machine.lan), "keypairName": "", "subnetIDList": ["subnet-1"],
        "floatingIP": machine.wan[0] if machine.wan else "", "delegateName": "", "deletionProtection": False,
        "remainingDay": 0, "releaseTime": "", "instanceDescription": "", "metadata": {}, "trustInstance": False}


def _disk(machine: Machine, n: int, region: str) -> dict[str, Any]:
    created, owner = int(machine.created.astimezone(UTC).timestamp() * 1000), _id(machine, "server")
    return {"diskName": f"{machine.name}-{n}", "diskID": _id(machine, f"disk {n}"), "diskSize": machine.disks[n],
            "diskType": "SATA", "diskMode": "VBD", "diskStatus": "in-use", "createTime": created, "updateTime": created,
            "expireTime": created, "isPackaged": n == 0, "instanceName": machine.name, "instanceID": owner,
            "instanceStatus": _STATES[machine.state], "multiAttach": False, "projectID": project_of(machine),
            "attachments": [{"instanceID": owner, "attachmentID": _id(machine, f"attachment {n}"),
                             "device": f"/dev/vd{chr(97 + n)}"}], "isEncrypt": False, "regionID": region,
            "azName": f"az{machine.zone}", "diskFreeze": False, **({"isSystemVolume": True} if n == 0 else {})}


def _id(machine: Machine, what: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{machine.key}{machine.number} {what}"))


def _number(query: Mapping[str, Any], name: str, default: int, most: int) -> int:
    text = str(query.get(name, default))
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not 1 <= int(text) <= most:
        raise _Refused("Openapi.Parameter.Invalid", f"{name} is from 1 to {most}")
    return int(text)


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    keys: dict[str, object] = {"access_key": "AKdemo", "secret_key": secret}
    return Ctyun({"AKdemo": secret}, fleets, limited=limited, latency=latency), keys


CLOUDS = {"ctyun": Cloud("bb9fdb42056f11eda1610242ac110002", start, Least(
    calls=20 + 6, trips=2, window_calls=1 + 6, window_trips=2,
    why="20 pages of 50, and 6 of 300 disks, each with a total; disks cannot be read by server."))}
