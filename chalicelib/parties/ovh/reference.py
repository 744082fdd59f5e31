"""OVHcloud's own client lists VPS and dedicated servers, for `twocloud verify` and the tests."""

from contextlib import ExitStack
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any
from unittest import mock
from urllib.parse import quote

import ovh
from ovh import client as ovh_client

from ...model import Account

PACKAGES = ("ovh",)


def client(account: Account, site: str, stack: ExitStack) -> Any:
    """The client at the site's API, or at the account's endpoint as long as `stack` is open."""
    name, fields = f"ovh-{site}", {key: text for key, text in account.credentials.items() if key != "site"}
    if account.endpoint:
        stack.enter_context(mock.patch.dict(ovh_client.ENDPOINTS, {name: f"{account.endpoint}/1.0"}))
        stack.enter_context(mock.patch.dict(ovh_client.OAUTH2_TOKEN_URLS,
                                            {name: f"{account.endpoint}/auth/oauth2/token"}))
        if account.endpoint.startswith("http:"):
            stack.enter_context(mock.patch.dict("os.environ", OAUTHLIB_INSECURE_TRANSPORT="1"))
    return ovh.Client(name, **fields)


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    with ExitStack() as stack:
        api = client(account, region, stack)
        return {**{name: _vps(api, f"/vps/{quote(name, safe='')}") for name in api.get("/vps")},
                **{name: _dedicated(api, f"/dedicated/server/{quote(name, safe='')}")
                   for name in api.get("/dedicated/server")}}


def _vps(api: Any, path: str) -> dict[str, Any]:
    row = api.get(path)
    return {"name": row["displayName"], "cpu": row["vcore"], "memory_mib": row["memoryLimit"],
            "disk_gib": sum(api.get(f"{path}/disks/{key}")["size"] for key in api.get(f"{path}/disks")),
            "party_status": row["state"], "instance_type": row["model"]["name"],
            **_addresses(api.get(f"{path}/ips")), **_contract(api, path)}


def _dedicated(api: Any, path: str) -> dict[str, Any]:
    row, hardware = api.get(path), api.get(f"{path}/specifications/hardware")
    return {"name": row["iam"]["displayName"], "cpu": hardware["numberOfProcessors"] * hardware["threadsPerProcessor"],
            "memory_mib": hardware["memorySize"]["value"],
            "disk_gib": sum(group["diskSize"]["value"] for group in hardware["diskGroups"]),
            "party_status": f"{row['state']} {row['powerState']}", "instance_type": row["commercialRange"],
            **_addresses([ip for ip in (row["ip"], *api.get(f"{path}/ips")) if ip]), **_contract(api, path)}


def _addresses(blocks: list[str]) -> dict[str, Any]:
    """A server's own; a block of IPv4 is of machines behind it, of IPv6 its first address counts."""
    ipv4 = {block.partition("/")[0] for block in blocks if "." in block and ip_network(block).num_addresses == 1}
    return {"lan_ipv4": [], "wan_ipv4": ipv4, "wan_ipv6": {block.partition("/")[0] for block in blocks if ":" in block}}


def _contract(api: Any, path: str) -> dict[str, Any]:
    contract = api.get(f"{path}/serviceInfos")
    return {name: datetime.fromisoformat(contract[key]).replace(tzinfo=UTC)
            for name, key in (("created_at", "creation"), ("expires_at", "expiration"))}
