"""hcloud, Hetzner's own SDK, lists servers, for `twocloud verify` and the tests."""

from typing import Any

import hcloud

from ...model import Account

PACKAGES = ("hcloud",)


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    there = {"api_endpoint": f"{account.endpoint}/v1"} if account.endpoint else {}
    client = hcloud.Client(account.credentials["token"], **there)
    sizes = {volume.id: volume.size for volume in client.volumes.get_all()}
    floating = [(ip.server.id, ip.ip) for ip in client.floating_ips.get_all() if ip.server]
    by_id = {}
    for server in client.servers.get_all():
        if server.location.name == region:
            by_id[str(server.id)] = {
                "name": server.name, "cpu": server.server_type.cores,
                "memory_mib": int(server.server_type.memory * 1024),
                "disk_gib": server.primary_disk_size + sum(sizes[volume.id] for volume in server.volumes),
                "party_status": server.status,
                "lan_ipv4": [ip for net in server.private_net for ip in (net.ip, *net.alias_ips)],
                "wan_ipv4": {ip.ip for ip in [server.public_net.ipv4] if ip}
                | {ip for owner, ip in floating if owner == server.id},
                "created_at": server.created}
    return by_id
