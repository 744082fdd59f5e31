"""Volcano Engine's own SDK lists ECS and its volumes, for `twocloud verify` and the tests."""

from datetime import datetime
from typing import Any

import volcenginesdkcore as core
import volcenginesdkecs as ecs
import volcenginesdkstorageebs as ebs

from ...model import Account

PACKAGES = ("volcenginesdk-ecs", "volcenginesdk-storageebs")
BY_PROJECT = True                           # each record names the project that --project means


def client(account: Account, region: str, of: Any) -> Any:
    fields, settings = account.credentials, core.Configuration()
    settings.ak, settings.sk, settings.region = fields["access_key_id"], fields["secret_access_key"], region
    settings.session_token, settings.auto_retry = fields.get("session_token", ""), False
    if account.endpoint:
        settings.scheme, _, settings.host = account.endpoint.partition("://")
    return of(core.ApiClient(settings))


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    """The loops over pages are the SDK's user's."""
    rows: list[Any] = []
    token = None
    while token != "":
        page = client(account, region, ecs.ECSApi).describe_instances(
            ecs.DescribeInstancesRequest(max_results=100, next_token=token))
        rows += page.instances or []
        token = page.next_token or ""
    volumes: list[Any] = []
    while True:
        page = client(account, region, ebs.STORAGEEBSApi).describe_volumes(
            ebs.DescribeVolumesRequest(page_number=len(volumes) // 100 + 1, page_size=100))
        volumes += page.volumes or []
        if len(volumes) >= page.total_count or not page.volumes:
            break
    sizes: dict[str, int] = {}
    for volume in volumes:
        sizes[volume.instance_id] = sizes.get(volume.instance_id, 0) + int(volume.size)
    return {row.instance_id: {
        "name": row.instance_name, "cpu": row.cpus, "memory_mib": row.memory_size,
        "disk_gib": sizes.get(row.instance_id, 0) + sum(disk.count * disk.size for disk in row.local_volumes or ()),
        # with --deep more addresses of the interfaces are known to us
        **({} if account.deep else {
            "lan_ipv4": {interface.primary_ip_address for interface in row.network_interfaces},
            "wan_ipv4": {row.eip_address.ip_address} if row.eip_address and row.eip_address.ip_address else set()}),
        "party_status": row.status, "zone": row.zone_id, "instance_type": row.instance_type_id,
        "project_id": row.project_name, "created_at": datetime.fromisoformat(row.created_at),
        "updated_at": datetime.fromisoformat(row.updated_at),
        "tags": {tag.key: tag.value for tag in row.tags or ()}, "image_id": row.image_id, "os": row.os_type.lower(),
        "vpc_id": row.vpc_id, "charge_type": row.instance_charge_type.lower(),
        "expires_at": datetime.fromisoformat(row.expired_at) if row.expired_at else None} for row in rows}
