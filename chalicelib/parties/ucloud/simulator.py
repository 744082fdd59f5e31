"""A simulator for UCloud's API: DescribeUHostInstance and GetRegion, signed with SHA-1 over names and values.

Checked as the real one does: signature over every parameter that was sent, project, region, Limit at most 100
(default 20). Refusals are RetCodes inside HTTP 200. A call without ProjectId sees the default project, which is empty.
"""

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from ...simulators.cloud import Cloud, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet, Machine
from ...simulators.server import Call, Rate, Simulator

ZONES = {"cn-bj2": ("cn-bj2-02", "cn-bj2-04", "cn-bj2-05"), "cn-sh2": ("cn-sh2-02",), "hk": ("hk-02",),
         "sg": ("sg-01", "sg-02"), "us-ca": ("us-ca-01",), "ge-fra": ("ge-fra-01",)}
DEFAULT_PROJECT = "org-first"
_STATES = {"running": "Running", "stopped": "Stopped", "starting": "Starting", "stopping": "Stopping",
           "pending": "Initializing"}
_KNOWN = {"Action", "PublicKey", "Signature", "SecurityToken", "Region", "ProjectId", "Offset", "Limit"}


class _Refused(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)


class Ucloud(Simulator):
    """`keys`: public key -> private key. `fleets`: region -> the fleet of `project`. `tokens`: of temporary keys.

    `limited`: ten calls a second for each key.
    """

    def __init__(self, keys: Mapping[str, str], fleets: Mapping[str, Fleet], *, project: str = "org-demo",
                 tokens: Mapping[str, str] = {}, limited: bool = True, port: int = 0, latency: float = 0.0) -> None:
        self.keys = dict(keys)
        self.fleets = dict(fleets)
        self.project = project
        self.tokens = dict(tokens)
        self._rate = Rate(20) if limited else None
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        return _asked(call).get("Action", "?")

    def answer(self, call: Call) -> Answer:
        query = _asked(call)
        try:
            body: dict[str, Any] = {"RetCode": 0, **self._answer(call, query)}
        except _Refused as refused:
            body = {"RetCode": refused.args[0], "Message": refused.args[1]}
        body["Action"] = f"{query.get('Action')}Response"
        return Answer(200, {"Content-Type": "application/json", "X-UCLOUD-REQUEST-UUID": str(uuid.uuid4())},
                      msgspec.json.encode(body))

    def _answer(self, call: Call, query: dict[str, str]) -> dict[str, Any]:
        if not query.get("Action"):
            raise _Refused(160, "Missing Action")
        self._check_signature(query)
        if self._rate and not self._rate.allows(query["PublicKey"], call.at):
            raise _Refused(153, "API throttled")
        if query["Action"] == "GetRegion":
            return {"Regions": [
                {"RegionId": n, "RegionName": region, "IsDefault": n == 0, "BitMaps": "", "Region": region,
                 "Zone": zone}
                for n, region in enumerate(ZONES) for zone in ZONES[region]]}
        if query["Action"] != "DescribeUHostInstance":
            raise _Refused(161, f"Action [{query['Action']}] not exist")
        region, project = query.get("Region", ""), query.get("ProjectId", DEFAULT_PROJECT)
        if region not in ZONES:
            raise _Refused(230, "Params [Region] not available")
        if project not in (self.project, DEFAULT_PROJECT):
            raise _Refused(292, "Project not exist")
        for name in query.keys() - _KNOWN:
            raise _Refused(230, f"Params [{name}] not available")
        offset, limit = _number(query, "Offset", 0), _number(query, "Limit", 20)
        if not 0 < limit <= 100:
            raise _Refused(230, "Params [Limit] not available")
        fleet = self.fleets.get(region, Fleet(0)) if project == self.project else Fleet(0)
        return {"TotalCount": len(fleet), "UHostSet": [
            _row(fleet[n], ZONES[region]) for n in range(offset, min(offset + limit, len(fleet)))]}

    def _check_signature(self, query: dict[str, str]) -> None:
        key = query.get("PublicKey", "")
        if "Signature" not in query:
            raise _Refused(170, "Missing signature")
        if key not in self.keys:
            raise _Refused(172, "User not exist")
        if query.get("SecurityToken") != self.tokens.get(key):
            raise _Refused(174, "Token not exist")
        signed = sorted((name, value) for name, value in query.items() if name != "Signature")
        text = "".join(part for pair in signed for part in pair) + self.keys[key]
        if hashlib.sha1(text.encode()).hexdigest() != query["Signature"]:
            raise _Refused(171, "Signature VerifyAC Error")


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    keys: dict[str, object] = {"public_key": "4Zjdemo", "private_key": secret, "project_id": "org-demo"}
    return Ucloud({"4Zjdemo": secret}, fleets, limited=limited, latency=latency), keys


CLOUDS = {"ucloud": Cloud("cn-bj2", start, Least(
    calls=10, trips=2, window_calls=1, window_trips=1,
    why="10 pages of 100 with a total: the first, then the others."))}


def _asked(call: Call) -> dict[str, str]:
    """The parameters of a form or of flat JSON, each as the text that is signed."""
    if call.headers.get("content-type", "").startswith("application/json"):
        values: dict[str, Any] = msgspec.json.decode(call.body, type=dict[str, Any])
        return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}
    return dict(parse_qsl(call.query or call.body.decode("latin-1"), keep_blank_values=True))


def _number(query: dict[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not text.isdigit():
        raise _Refused(230, f"Params [{name}] not available")
    return int(text)


def _row(machine: Machine, zones: tuple[str, ...]) -> dict[str, Any]:
    """The default interface stands last, so that who does not look for it takes the wrong one."""
    created = int(machine.created.timestamp())
    disks = [{"DiskId": f"bsm-{machine.key}{n}", "DiskType": "CLOUD_SSD", "Drive": f"vd{'abcdef'[n]}",
              "Encrypted": "false", "IsBoot": "False" if n else "True", "Name": f"disk-{n}", "Size": size,
              "Type": "Udisk" if n else "Boot"} for n, size in enumerate(machine.disks)]
    own = [{"Default": "false" if n else "true", "IP": ip, "IPMode": "IPv4", "Mac": f"52:54:00:B1:A5:0{n}",
            "SubnetId": "subnet-1", "Type": "Private", "VPCId": "uvnet-1"} for n, ip in enumerate(machine.lan)]
    public = [{"Bandwidth": 1, "IP": ip, "IPId": f"eip-{machine.key}{n}", "IPMode": "IPv4", "Type": "BGP",
               "Weight": 50 - n} for n, ip in enumerate(machine.wan)]
    return {
        "AutoRenew": "Yes", "BasicImageId": "uimage-1", "BasicImageName": "CentOS 7.9 64位", "BootDiskState": "Normal",
        "CPU": machine.cpu, "ChargeType": "Month" if machine.ends else "Dynamic",
        "CloudInitFeature": True, "CpuPlatform": "Intel/Auto",
        "CreateTime": created, "DiskSet": disks, "ExpireTime": created + 10 ** 8, "GPU": 0, "HostType": "N3",
        "HotplugFeature": False, "IPSet": [*public, *reversed(own)], "IPv6Feature": False,
        "ImageId": f"bsi-{machine.key}", "IsolationGroup": "", "LifeCycle": "Normal", "MachineType": "O",
        "Memory": machine.memory_gib * 1024,
        "Name": machine.name, "NetCapability": "Normal", "NetworkState": "Connected", "OsName": "CentOS 7.9 64位",
        "OsType": "Linux", "RdmaClusterId": "", "Remark": "", "State": _STATES[machine.state], "StorageType": "UDisk",
        "SubnetType": "Default", "Tag": machine.tags.get("team", "Default"), "TimemachineFeature": "no",
        "TotalDiskSpace": sum(machine.disks[1:]), "UHostId": f"uhost-{machine.key}", "UHostType": "N3",
        "Zone": zones[machine.zone % len(zones)]}
