"""A simulator for Alibaba Cloud's Simple Application Server: signed and refused as ECS, with lists of its own.

PageSize is at most 100 (default 10), RegionId required, lists are plain arrays. The first addresses stand twice in a
row; each fifth server has the smallest plan, half a GiB of memory.
"""

from collections.abc import Mapping
from typing import Any

from ...simulators.cloud import Cloud, Least
from ...simulators.fleet import Fleet, Machine
from ...simulators.server import Call, Simulator
from ..aliyun.simulator import Aliyun, Refused, number_in

REGIONS = {"cn-hangzhou": "China (Hangzhou)", "cn-beijing": "China (Beijing)", "cn-hongkong": "China (Hong Kong)",
           "ap-southeast-1": "Singapore", "eu-central-1": "Germany (Frankfurt)"}
GROUP = "rg-aek2bti7cf7ywi"
_STATES = {"running": "Running", "stopped": "Stopped", "starting": "Starting", "stopping": "Stopping",
           "pending": "Pending"}


class Swas(Aliyun):
    """`denied`: actions for which the keys lack the right."""

    def product(self, call: Call, key_id: str, query: Mapping[str, str]) -> dict[str, Any]:
        action = call.operation
        if action not in ("ListInstances", "ListRegions"):
            raise Refused(404, "InvalidAction.NotFound", "Specified api is not found.")
        if call.headers.get("x-acs-version") != "2020-06-01":
            raise Refused(400, "InvalidVersion", "Specified parameter Version is not valid.")
        self.count_call(call, key_id, query)
        if action in self.denied:
            raise Refused(403, "Forbidden.RAM", "User not authorized to operate on the specified resource.")
        if action == "ListRegions":
            return {"Regions": [{"RegionId": key, "RegionEndpoint": f"swas.{key}.aliyuncs.com", "LocalName": name}
                                for key, name in REGIONS.items()]}
        region = query.get("RegionId", "")
        if not region:
            raise Refused(400, "MissingParameter", "The input parameter RegionId is mandatory.")
        if region not in REGIONS:
            raise Refused(404, "InvalidRegionId.NotFound", "The specified RegionId does not exist.")
        fleet = self.fleets.get(region, Fleet(0))
        number, size = number_in(query, "PageNumber", 1, 10 ** 6), number_in(query, "PageSize", 10, 100)
        first = (number - 1) * size
        return {"TotalCount": len(fleet), "PageNumber": number, "PageSize": size, "Instances": [
            _instance(fleet[n], region) for n in range(first, min(first + size, len(fleet)))]}


def memory_of(machine: Machine) -> float:
    """GiB."""
    return 0.5 if machine.number % 5 == 4 else machine.memory_gib


def _instance(machine: Machine, region: str) -> dict[str, Any]:
    system, *data = machine.disks
    created, memory = f"{machine.created:%Y-%m-%dT%H:%M:%SZ}", memory_of(machine)
    networks = [{"PrivateIpAddress": lan, "PublicIpAddress": machine.wan[n] if n < len(machine.wan) else "",
                 "PublicIpDdosStatus": "Normal", "PeakBandwidth": 200} for n, lan in enumerate(machine.lan)]
    return {
        "InstanceId": _id(machine), "InstanceName": machine.name, "Status": _STATES[machine.state],
        "RegionId": region, "CreationTime": created, "ExpiredTime": "2099-04-08T16:00:00Z", "ChargeType": "PrePaid",
        "BusinessStatus": "Normal", "DdosStatus": "Normal", "DisableReason": "", "Combination": False,
        "CombinationInstanceId": "", "ImageId": "fe9c66133a9d4688872869726b520001", "PlanType": "NORMAL",
        "PlanId": f"swas.s2.c{machine.cpu}m{machine.memory_gib}s50b4t05", "Uuid": "",
        "Image": {"ImageName": "Debian", "ImageVersion": "12", "ImageType": "system", "OsType": "Linux",
                  "ImageIconUrl": "", "ImageContact": ""},
        "ResourceSpec": {"Cpu": machine.cpu, "Memory": memory, "DiskSize": system, "DiskCategory": "ESSD",
                         "Bandwidth": 200, "Flow": 818.0},
        "InnerIpAddress": machine.lan[0], "PublicIpAddress": machine.wan[0] if machine.wan else "",
        "NetworkAttributes": networks,
        "Disks": [_disk(machine, n, size, created, region) for n, size in enumerate((system, *data))],
        "ResourceGroupId": GROUP if machine.project else "rg-acfmdefault",
        "Tags": [{"Key": key, "Value": value} for key, value in machine.tags.items()]}


def _id(machine: Machine) -> str:
    """32 hexadecimal digits without a prefix."""
    return machine.key.encode().hex().ljust(32, "0")


def _disk(machine: Machine, number: int, size: int, created: str, region: str) -> dict[str, Any]:
    return {"DiskId": f"d-{machine.key}{number}", "DiskName": "", "DiskType": "Data" if number else "System",
            "Size": size, "Category": "ESSD", "Status": "In_use", "Device": f"/dev/xvd{'abcdef'[number]}",
            "CreationTime": created, "DiskChargeType": "PrePaid", "RegionId": region, "Remark": "",
            "ResourceGroupId": "", "DiskTags": []}


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    keys: dict[str, object] = {"access_key_id": "LTAIdemo", "access_key_secret": secret}
    return Swas({"LTAIdemo": secret}, fleets, limited=limited, latency=latency), keys


CLOUDS = {"swas": Cloud("cn-hangzhou", start, Least(
    calls=10, trips=2, window_calls=1, window_trips=1, rate=(1000, 60.0),
    why="10 pages of 100 with a total: the first, then the others. Disks and addresses are in the rows."))}
