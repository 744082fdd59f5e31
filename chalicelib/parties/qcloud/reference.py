"""Tencent's own SDK lists CVM, for `twocloud verify` and the tests.

It says what one list call says: of an account with --deep, more disks and addresses are known to us.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tencentcloud.common import credential
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.cvm.v20170312 import cvm_client, models

from ...model import Account

PACKAGES = ("tencentcloud-sdk-python-cvm",)
BY_PROJECT = True                           # each record names the project that --project means
_CHARGES = {"PREPAID": "prepaid", "POSTPAID_BY_HOUR": "postpaid", "SPOTPAID": "spot"}


def client(account: Account, kind: Any, region: str) -> Any:
    """A client of any of the SDK's packages."""
    scheme, _, host = (account.endpoint or "").partition("://")
    profile = HttpProfile(protocol=scheme, endpoint=host) if host else HttpProfile()
    fields = account.credentials
    return kind(credential.Credential(fields["secret_id"], fields["secret_key"], fields.get("token")), region,
                ClientProfile(httpProfile=profile))


def pages(call: Callable[[Any], Any], request: Any, of: str, **parameters: object) -> list[Any]:
    """The loop that the SDK leaves to its user."""
    rows: list[Any] = []
    while True:
        request._deserialize({"Offset": len(rows), "Limit": 100, **parameters})
        answer = call(request)
        rows += getattr(answer, of) or []
        if len(rows) >= answer.TotalCount or not getattr(answer, of):
            return rows


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    cvm = client(account, cvm_client.CvmClient, region)
    rows = pages(cvm.DescribeInstances, models.DescribeInstancesRequest(), "InstanceSet")
    return {row.InstanceId: _machine(row, deep=account.deep) for row in rows}


def _machine(row: Any, *, deep: bool) -> dict[str, Any]:
    whole = {} if deep else {
        "disk_gib": row.SystemDisk.DiskSize + sum(disk.DiskSize for disk in row.DataDisks or []),
        "lan_ipv4": row.PrivateIpAddresses or [], "wan_ipv4": row.PublicIpAddresses or []}
    return {"name": row.InstanceName, "cpu": row.CPU, "memory_mib": row.Memory * 1024, **whole,
            "party_status": row.InstanceState, "zone": row.Placement.Zone, "instance_type": row.InstanceType,
            "project_id": str(row.Placement.ProjectId),
            "created_at": _time(row.CreatedTime), "tags": {tag.Key: tag.Value for tag in row.Tags or []},
            "image_id": row.ImageId, "vpc_id": row.VirtualPrivateCloud.VpcId,
            "subnet_id": row.VirtualPrivateCloud.SubnetId, "security_groups": row.SecurityGroupIds or [],
            **({"charge_type": _CHARGES[row.InstanceChargeType]} if row.InstanceChargeType in _CHARGES else {}),
            "expires_at": _time(row.ExpiredTime)}


def _time(text: str | None) -> datetime | None:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) if text else None
