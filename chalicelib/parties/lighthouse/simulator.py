"""A simulator for Tencent Cloud Lighthouse: signed, limited and refused as CVM's, with the order, words and disks of
its own.

Servers that wait to be recycled come first, then the newest. Each third server has a local system disk, which no list
of disks names; the other system disks are in it beside the data disks, and so is one disk that is attached to nothing.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from ...simulators.cloud import Cloud, Least
from ...simulators.fleet import Fleet, Machine
from ...simulators.server import Simulator
from ..qcloud.simulator import Qcloud, filters_in, window_in

REGIONS = ("ap-beijing", "ap-guangzhou", "ap-shanghai", "ap-hongkong", "ap-singapore", "eu-frankfurt")
_STATES = {"running": "RUNNING", "stopped": "STOPPED", "starting": "STARTING", "stopping": "STOPPING",
           "pending": "PENDING", "terminated": "SHUTDOWN"}


class Lighthouse(Qcloud):
    """`isolated`: numbers of machines that wait to be recycled."""

    versions = dict.fromkeys(("DescribeInstances", "DescribeDisks", "DescribeRegions"), "2020-03-24")
    documented = {"DescribeInstances": 100, "DescribeDisks": 20, "DescribeRegions": 20}

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self.isolated: set[int] = set()
        super().__init__(*arguments, **more)

    def regions(self) -> tuple[str, ...]:
        return REGIONS

    def listed(self, action: str, query: dict[str, Any], fleet: Fleet, region: str) -> dict[str, Any]:
        machines = sorted((fleet[n] for n in range(len(fleet))), key=self._place)
        if action == "DescribeInstances":
            known = {"instance-name", "private-ip-address", "public-ip-address", "zone", "instance-state", "bundle-id"}
            filters_in(query, known, 100, "InvalidParameter.InvalidFilterNotSupportedName",
                       "InvalidParameter.FilterValueLimitExceeded")
            offset, limit = window_in(query, {"Filters", "InstanceIds", "OrderField", "Order"})
            return {"TotalCount": len(machines), "InstanceSet": [
                self._instance(machine, region) for machine in machines[offset:offset + limit]]}
        filters = filters_in(query, {"instance-id", "disk-id", "disk-usage", "disk-state", "zone"}, 100,
                             "InvalidParameter.InvalidFilterNotSupportedName",
                             "InvalidParameter.FilterValueLimitExceeded")
        offset, limit = window_in(query, {"Filters", "DiskIds", "OrderField", "Order"})
        disks = [_disk("free", "", 1, 500, region)] if machines else []
        disks += [_disk(machine.key, f"lhins-{machine.key}", n, size, f"{region}-{machine.zone}")
                  for machine in machines for n, size in enumerate(machine.disks) if n or not _local(machine)]
        for name, field in (("instance-id", "InstanceId"), ("disk-usage", "DiskUsage")):
            if name in filters:
                disks = [disk for disk in disks if disk[field] in filters[name]]
        return {"TotalCount": len(disks), "DiskSet": disks[offset:offset + limit]}

    def _waits(self, machine: Machine) -> bool:
        return machine.state == "terminated" or machine.number in self.isolated

    def _place(self, machine: Machine) -> tuple[bool, float]:
        return not self._waits(machine), -machine.created.timestamp()

    def _instance(self, machine: Machine, region: str) -> dict[str, Any]:
        return {
            "InstanceId": f"lhins-{machine.key}", "BundleId": f"bundle_ent_lin_{machine.cpu}c{machine.memory_gib}g",
            "BlueprintId": "lhbp-8l0svqtk", "CPU": machine.cpu, "Memory": machine.memory_gib,
            "InstanceName": machine.name, "InstanceChargeType": "PREPAID",
            "SystemDisk": {"DiskType": "LOCAL_SSD" if _local(machine) else "CLOUD_SSD", "DiskSize": machine.disks[0],
                           "DiskId": None if _local(machine) else f"lhdisk-{machine.key}0"},
            "PrivateAddresses": list(machine.lan), "PublicAddresses": list(machine.wan) or None,
            "InternetAccessible": {"InternetChargeType": "TRAFFIC_POSTPAID_BY_HOUR", "InternetMaxBandwidthOut": 4,
                                   "PublicIpAssigned": bool(machine.wan)},
            "RenewFlag": "NOTIFY_AND_MANUAL_RENEW", "LoginSettings": {"KeyIds": []},
            "InstanceState": "SHUTDOWN" if self._waits(machine) else _STATES[machine.state],
            "InstanceRestrictState": "NORMAL", "Uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, machine.key)),
            "LatestOperation": "", "LatestOperationState": "", "LatestOperationRequestId": "",
            "LatestOperationStartedTime": None, "IsolatedTime": None,
            "CreatedTime": f"{machine.created:%Y-%m-%dT%H:%M:%SZ}", "ExpiredTime": "2099-06-26T08:49:56Z",
            "PlatformType": "LINUX_UNIX", "Platform": "DEBIAN", "OsName": "Debian 12.0 64bit",
            "Zone": f"{region}-{machine.zone}", "SupportIpv6Detail": {"IsSupport": False, "Detail": ""},
            "Tags": [{"Key": key, "Value": value} for key, value in machine.tags.items()],
            "PublicIpv6Addresses": None, "InitInvocationId": None, "InstanceViolationDetail": None}


def _local(machine: Machine) -> bool:
    return machine.number % 3 == 0


def _disk(key: str, owner: str, number: int, size: int, zone: str) -> dict[str, Any]:
    return {
        "DiskId": f"lhdisk-{key}{number}", "InstanceId": owner, "Zone": zone, "DiskName": "disk",
        "DiskUsage": "DATA_DISK" if number else "SYSTEM_DISK", "DiskType": "CLOUD_SSD", "DiskChargeType": "PREPAID",
        "DiskSize": size, "RenewFlag": "NOTIFY_AND_AUTO_RENEW", "DiskState": "ATTACHED" if owner else "UNATTACHED",
        "Attached": bool(owner), "DeleteWithInstance": False, "DiskBackupCount": 0, "DiskBackupQuota": 1,
        "LatestOperation": "", "LatestOperationState": "", "LatestOperationRequestId": "",
        "CreatedTime": "2021-08-25T08:50:57Z", "ExpiredTime": "2099-08-25T08:50:57Z", "IsolatedTime": None, "Tags": []}


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    keys: dict[str, object] = {"secret_id": "AKIDdemo", "secret_key": secret}
    return Lighthouse({"AKIDdemo": secret}, fleets, limited=limited, latency=latency), keys


CLOUDS = {"lighthouse": Cloud("ap-guangzhou", start, Least(
    calls=10 + 8, trips=2, window_calls=1 + 1, window_trips=2, rate=(20, 1.0),
    why="10 pages of 100 with a total: the first, then the others; beside them 736 data disks, 100 to a page: 8. A "
        "window's disks are found by its servers' ids."))}
