"""Alibaba Cloud's own SDK lists the Simple Application Servers, for `twocloud verify` and the tests."""

from datetime import UTC, datetime
from math import ceil
from typing import Any

from alibabacloud_swas_open20200601 import client as swas_client
from alibabacloud_swas_open20200601 import models
from alibabacloud_tea_openapi import utils_models

from ...model import Account

PACKAGES = ("alibabacloud-swas-open20200601",)
BY_PROJECT = True                           # each record names the project that --project means


def client(account: Account, region: str) -> Any:
    fields = account.credentials
    scheme, _, host = (account.endpoint or f"https://swas.{region}.aliyuncs.com").partition("://")
    return swas_client.Client(utils_models.Config(
        access_key_id=fields["access_key_id"], access_key_secret=fields["access_key_secret"],
        security_token=fields.get("security_token"), protocol=scheme, endpoint=host, region_id=region))


def pages(account: Account, region: str) -> list[Any]:
    """The loop that the SDK leaves to its user."""
    sdk, rows = client(account, region), list[Any]()
    while True:
        body = sdk.list_instances(models.ListInstancesRequest(
            region_id=region, page_number=len(rows) // 100 + 1, page_size=100)).body
        rows += body.instances
        if len(rows) >= body.total_count or not body.instances:
            return rows


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    return {row.instance_id: {
        "name": row.instance_name, "cpu": row.resource_spec.cpu, "memory_mib": ceil(row.resource_spec.memory * 1024),
        "disk_gib": sum(disk.size for disk in row.disks),
        "lan_ipv4": [network.private_ip_address for network in row.network_attributes],
        "wan_ipv4": [network.public_ip_address for network in row.network_attributes if network.public_ip_address],
        "party_status": row.status, "created_at": _time(row.creation_time), "expires_at": _time(row.expired_time),
        "project_id": row.resource_group_id, "instance_type": row.plan_id,
        "tags": {tag.key: tag.value for tag in row.tags or ()}, "image_id": row.image_id,
        "image_name": row.image.image_name, "os": row.image.os_type.lower(), "charge_type": row.charge_type.lower()}
        for row in pages(account, region)}


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
