"""ctyun's own SDK lists cloud hosts and their disks, for `twocloud verify` and the tests.

Its signer takes the clock of a machine in Beijing, and prints each call: neither is left to it here.
"""

from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta, timezone
from io import StringIO
from typing import Any
from unittest import mock

from ctyun_python_sdk_core import ClientConfig
from ctyun_python_sdk_core import ctyun_client as sdk_core
from ctyunsdk_ebs20220909.ebs_client import EbsClient
from ctyunsdk_ebs20220909.models.v4_ebs_list_ebs import V4EbsListEbsRequest
from ctyunsdk_ecs20220909.ecs_client import EcsClient
from ctyunsdk_ecs20220909.models.v4_ecs_list_instances import V4EcsListInstancesRequest

from ...model import Account

PACKAGES = ("ctyunsdk-ecs20220909", "ctyunsdk-ebs20220909")
BY_PROJECT = True                           # each record names the project that --project means
_HOSTS = {EcsClient: "https://ctecs-global.ctapi.ctyun.cn", EbsClient: "https://ebs-global.ctapi.ctyun.cn"}
_BEIJING = timezone(timedelta(hours=8))


class _Clock(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return super().now(_BEIJING if tz is None else tz)


def call(account: Account, kind: Any, name: str, request: Any) -> Any:
    """One call by the SDK, in silence."""
    fields = account.credentials
    made = kind(ClientConfig(account.endpoint or _HOSTS[kind], fields["access_key"], fields["secret_key"]))
    with mock.patch.object(sdk_core.datetime, "datetime", _Clock), redirect_stdout(StringIO()):
        return getattr(made, name)(request)


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    rows: list[Any] = []
    while True:
        page = call(account, EcsClient, "v4_ecs_list_instances", V4EcsListInstancesRequest(
            regionID=region, pageNo=len(rows) // 50 + 1, pageSize=50)).returnObj
        rows += page.results
        if len(rows) >= page.totalCount or not page.results:
            break
    sizes: dict[str, int] = {}
    while True:
        page = call(account, EbsClient, "v4_ebs_list_ebs", V4EbsListEbsRequest(
            regionID=region, pageNo=len(sizes) // 300 + 1, pageSize=300)).returnObj
        sizes |= {disk.diskID: disk.diskSize for disk in page.diskList}
        if len(sizes) >= page.totalCount or not page.diskList:
            break
    return {row.instanceID: _machine(row, sizes) for row in rows}


def _machine(row: Any, sizes: dict[str, int]) -> dict[str, Any]:
    addresses = [address for network in row.addresses for address in network.addressList]
    flavor = row.flavor
    return {"name": row.displayName, "cpu": flavor.flavorCPU, "party_status": row.instanceStatus,
            "memory_mib": flavor.flavorRAM * (1 if flavor.flavorRAM >= 256 * flavor.flavorCPU else 1024),
            "disk_gib": sum(sizes[disk] for disk in row.attachedVolume),
            "lan_ipv4": [address.addr for address in addresses if address.type == "fixed"],
            "wan_ipv4": [address.addr for address in addresses if address.type == "floating"],
            "created_at": _time(row.createdTime), "updated_at": _time(row.updatedTime), "zone": row.azName,
            "project_id": row.projectID, "instance_type": flavor.flavorName, "vpc_id": row.vpcID}


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
