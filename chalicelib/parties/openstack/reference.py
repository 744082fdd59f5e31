"""openstacksdk lists Nova and Cinder, for `twocloud verify` and the tests."""

import re
import warnings
from datetime import UTC, datetime
from typing import Any

import openstack as sdk

from ...model import Account

PACKAGES = ("openstacksdk",)
IN_PROJECT = True                           # it lists the account's project alone
_OURS = ("project_id", "project_name", "username", "password", "auth_url", "application_credential_id",
         "application_credential_secret")


def connection(account: Account, region: str) -> Any:
    fields = dict(account.credentials)
    if project := account.member.id if account.member else account.project:
        fields = {name: text for name, text in fields.items() if not name.startswith("project_")}
        fields["project_id"] = project
    auth = {name: fields[name] for name in _OURS if name in fields}
    verify = {"verify": True, "interface": fields.get("interface", "public")}
    if "application_credential_id" in fields:
        auth = {name: text for name, text in auth.items() if not name.startswith("project_")}     # it has its own
        return sdk.connect(load_yaml_config=False, load_envvars=False, region_name=region,
                           auth_type="v3applicationcredential", auth=auth, **verify)
    home = fields.get("user_domain", "default")
    auth |= _domain("user", home) | (_domain("project", fields.get("project_domain", home)) if "project_name" in fields
                                     else {})
    return sdk.connect(load_yaml_config=False, load_envvars=False, region_name=region, auth=auth, **verify)


def _domain(of: str, word: str) -> dict[str, str]:
    """`default` and 32 hex digits are ids, other words names."""
    is_id = word == "default" or re.fullmatch("[0-9a-f]{32}", word)
    return {f"{of}_domain_{'id' if is_id else 'name'}": word}


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    with warnings.catch_warnings(action="ignore"):              # it warns of itself a dozen times for each server
        cloud = connection(account, region)
        by_id = machines(cloud)
        cloud.close()
    return by_id


def machines(cloud: Any) -> dict[str, dict[str, Any]]:
    sizes = {volume.id: volume.size for volume in cloud.block_storage.volumes(details=True)}
    return {server.id: machine(server, sizes) for server in cloud.compute.servers(details=True)}


def machine(server: Any, sizes: dict[str, int]) -> dict[str, Any]:
    addresses = [address for network in (server.addresses or {}).values() for address in network]
    flavor, image = server.flavor, server.image
    local = flavor.ephemeral + (flavor.disk if image and image.id else 0)
    return {"name": server.name, "cpu": flavor.vcpus, "memory_mib": flavor.ram, "party_status": server.status,
            "disk_gib": local + sum(sizes[volume["id"]] for volume in server.attached_volumes),
            "lan_ipv4": [a["addr"] for a in addresses if a["OS-EXT-IPS:type"] == "fixed" and a["version"] == 4],
            "wan_ipv4": [a["addr"] for a in addresses if a["OS-EXT-IPS:type"] == "floating"],
            "tags": dict(server.metadata), "created_at": _time(server.created_at), "zone": server.availability_zone,
            "project_id": server.project_id, "instance_type": flavor.original_name}


def _time(text: str | None) -> datetime | None:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) if text else None
