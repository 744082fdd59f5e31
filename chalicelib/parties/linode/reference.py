"""linode_api4, Linode's own SDK, lists Linodes, for `twocloud verify` and the tests."""

from datetime import UTC
from ipaddress import ip_address
from typing import Any

import linode_api4

from ...model import Account

PACKAGES = ("linode_api4",)


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    there = {"base_url": f"{account.endpoint}/v4"} if account.endpoint else {}
    client = linode_api4.LinodeClient(account.credentials["token"], page_size=500, retry=False, **there)
    volumes = [(volume.linode_id, volume.size) for volume in client.volumes()]
    vpcs = [(ip.linode_id, ip.address) for ip in client.vpcs.ips() if ip.active and ip.address]
    by_id = {}
    for linode in client.linode.instances(linode_api4.Instance.region == region):
        private = [ip for ip in linode.ipv4 if _is_private(ip)]
        by_id[str(linode.id)] = {
            "name": linode.label, "cpu": linode.specs.vcpus, "memory_mib": linode.specs.memory,
            "disk_gib": linode.specs.disk // 1024 + sum(size for owner, size in volumes if owner == linode.id),
            "lan_ipv4": private + [ip for owner, ip in vpcs if owner == linode.id],
            "wan_ipv4": set(linode.ipv4) - set(private), "party_status": linode.status,
            "created_at": linode.created.replace(tzinfo=UTC)}
    return by_id


def _is_private(ip: str) -> bool:
    return ip_address(ip).is_private and not ip.startswith(("192.0.2.", "198.51.100.", "203.0.113."))
