"""Baidu's own SDK lists BCC and its volumes, for `twocloud verify` and the tests."""

from datetime import UTC, datetime
from typing import Any

from baidubce.auth.bce_credentials import BceCredentials
from baidubce.bce_client_configuration import BceClientConfiguration
from baidubce.retry.retry_policy import NoRetryPolicy
from baidubce.services.bcc.bcc_client import BccClient

from ...model import Account

PACKAGES = ("bce-python-sdk",)


def client(account: Account, region: str) -> Any:
    fields = account.credentials
    return BccClient(BceClientConfiguration(
        credentials=BceCredentials(fields["access_key_id"], fields["secret_access_key"]),
        endpoint=account.endpoint or f"https://bcc.{region}.baidubce.com", retry_policy=NoRetryPolicy()))


def pages(call: Any, of: str, size: int = 1000) -> list[Any]:
    """The loop that the SDK leaves to its user."""
    marker, rows = None, []
    while True:
        answer = call(marker=marker, max_keys=size)
        rows += getattr(answer, of)
        if not answer.is_truncated:
            return rows
        marker = answer.next_marker


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    """Instances and volumes, joined by hand."""
    sdk = client(account, region)
    sizes: dict[str, int] = {}
    for volume in pages(sdk.list_volumes, "volumes"):
        for attachment in volume.attachments or ():
            sizes[attachment.instance_id] = sizes.get(attachment.instance_id, 0) + volume.disk_size_in_gb
    return {row.id: {
        "name": row.name, "cpu": row.cpu_count, "memory_mib": row.memory_capacity_in_gb * 1024,
        "disk_gib": sizes.get(row.id, 0) if row.volumes is None else sum(v.disk_size_in_gb for v in row.volumes),
        "lan_ipv4": [ip.private_ip for ip in row.nic_info.ips],
        "wan_ipv4": [ip.eip for ip in row.nic_info.ips if ip.eip not in (None, "", "null")],
        "party_status": row.status, "zone": row.zone_name, "instance_type": row.spec,
        "created_at": datetime.strptime(row.create_time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC),
        "project_id": row.res_group_infos[0].group_id if row.res_group_infos else "",
        "tags": {tag.tag_key: tag.tag_value for tag in row.tags or ()},
    } for row in pages(sdk.list_instances, "instances")}
