"""Tencent's own SDK lists Lighthouse, for `twocloud verify` and the tests."""

from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from tencentcloud.lighthouse.v20200324 import lighthouse_client, models

from ...model import Account
from ..qcloud import reference as cvm

PACKAGES = ("tencentcloud-sdk-python-lighthouse", "tencentcloud-sdk-python-cvm")


def client(account: Account, region: str) -> Any:
    return cvm.client(account, lighthouse_client.LighthouseClient, region)


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    sdk = client(account, region)
    sizes = defaultdict[str, dict[str, int]](dict)
    for disk in cvm.pages(sdk.DescribeDisks, models.DescribeDisksRequest(), "DiskSet"):
        sizes[disk.InstanceId][disk.DiskId] = disk.DiskSize
    return {row.InstanceId: {
        "name": row.InstanceName, "cpu": row.CPU, "memory_mib": row.Memory * 1024,
        "disk_gib": sum({**sizes[row.InstanceId], row.SystemDisk.DiskId: row.SystemDisk.DiskSize}.values()),
        "lan_ipv4": row.PrivateAddresses or [], "wan_ipv4": row.PublicAddresses or [],
        "party_status": row.InstanceState, "created_at": _time(row.CreatedTime), "expires_at": _time(row.ExpiredTime),
        "zone": row.Zone, "instance_type": row.BundleId, "tags": {tag.Key: tag.Value for tag in row.Tags or []},
        "image_id": row.BlueprintId, "charge_type": row.InstanceChargeType.lower(),
    } for row in cvm.pages(sdk.DescribeInstances, models.DescribeInstancesRequest(), "InstanceSet")}


def _time(text: str | None) -> datetime | None:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) if text else None
