"""ionoscloud, the vendor's own SDK, lists servers, for `twocloud verify` and the tests."""

from ipaddress import ip_address
from typing import Any

import ionoscloud

from ...model import Account

PACKAGES = ("ionoscloud",)
BY_PROJECT = True                           # each record names the project that --project means
# of the resource, before the machine's own
_STATES = ("DEPLOYING", "DESTROYING", "HIBERNATING", "SUSPENDED", "INACTIVE", "FAILED", "FAILED_SUSPENDED",
           "FAILED_UPDATING", "FAILED_DESTROYING", "FAILED_HIBERNATING", "FAILED_MAINTENANCE")


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    there = {"host": f"{account.endpoint}/cloudapi/v6"} if account.endpoint else {}
    client = ionoscloud.ApiClient(ionoscloud.Configuration(token=account.credentials["token"], **there))
    by_id = {}
    for center in ionoscloud.DataCentersApi(client).datacenters_get(depth=1).items:
        if center.properties.location.replace("/", "-") != region:
            continue
        offset, more = 0, True
        while more:
            page = ionoscloud.ServersApi(client).datacenters_servers_get(center.id, depth=5, offset=offset, limit=40)
            offset, more = offset + 40, bool(page.links.next)
            for row in page.items:
                nics = sorted(row.entities.nics.items, key=lambda nic: nic.properties.device_number)
                ips = [ip for nic in nics for ip in nic.properties.ips]
                shown, state = row.properties, row.metadata.state
                by_id[row.id] = {
                    "name": shown.name, "cpu": shown.cores, "memory_mib": shown.ram,
                    "disk_gib": sum(volume.properties.size for volume in row.entities.volumes.items),
                    "lan_ipv4": [ip for ip in ips if ip_address(ip).is_private],
                    "wan_ipv4": {ip for ip in ips if not ip_address(ip).is_private},
                    "party_status": state if state in _STATES else shown.vm_state,
                    "created_at": row.metadata.created_date, "project_id": center.id}
    return by_id
