"""Scaleway's own SDK lists servers, for `twocloud verify` and the tests."""

from typing import Any

from scaleway import Client
from scaleway.block.v1 import BlockV1API
from scaleway.instance.v1 import InstanceV1API
from scaleway.ipam.v1 import IpamV1API

from ...model import Account

PACKAGES = ("scaleway",)
BY_PROJECT = True                           # each record names the project that --project means
_KEY = "SCWXXXXXXXXXXXXXXXXX"               # the SDK wants one; the secret alone opens the API


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    there = {"api_url": account.endpoint} if account.endpoint else {}
    client = Client(access_key=_KEY, secret_key=account.credentials["token"], **there)
    ips = IpamV1API(client).list_i_ps_all(region=region)
    by_id = {}
    for zone in [f"{region}-{n}" for n in (1, 2, 3)]:
        instances = InstanceV1API(client)
        types = instances.list_servers_types(zone=zone, per_page=100).servers
        volumes = {
            volume.id: volume.size for volume in BlockV1API(client).list_volumes_all(zone=zone, include_deleted=False)}
        for server in instances.list_servers_all(zone=zone):
            kind = types[server.commercial_type]
            by_id[server.id] = {
                "name": server.name, "cpu": kind.ncpus, "memory_mib": kind.ram // 1024 ** 2,
                "disk_gib": sum(v.size or volumes[v.id] for v in server.volumes.values()) // 10 ** 9,
                "party_status": str(server.state),
                "lan_ipv4": [ip.address.partition("/")[0] for nic in server.private_nics for ip in ips
                             if ip.resource.id == nic.id],
                "wan_ipv4": {ip.address for ip in server.public_ips}, "created_at": server.creation_date,
                "project_id": server.project}
    return by_id
