"""STACKIT's own SDK lists a project's servers, for `twocloud verify` and the tests."""

import json
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from stackit import iaas
from stackit.core.auth_methods import key_auth
from stackit.core.configuration import Configuration

from ...model import Account

PACKAGES = ("stackit-iaas",)


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    fields: Mapping[str, Any] = account.credentials
    key = fields["service_account_key"]
    if "private_key" in fields:
        raise NotImplementedError("its private key is not in the key file")
    token = f"{account.endpoint}/token" if account.endpoint else None
    with closing(key_auth.KeyAuth(key_auth.ServiceAccountKey.model_validate_json(
            key if isinstance(key, str) else json.dumps(key)), token)) as auth:
        api = iaas.DefaultApi(Configuration(custom_endpoint=account.endpoint, custom_auth=auth))
        project = fields["project_id"]
        types = {one.name: one for one in api.list_machine_types(project, region).items}
        volumes = api.list_volumes(project, region).items
        rows = api.list_servers(project, region, details=True).items
    return {str(row.id): _machine(row, types, [volume.size for volume in volumes if volume.server_id == row.id])
            for row in rows}


def _machine(row: Any, types: Mapping[str, Any], disks: list[int]) -> dict[str, Any]:
    kind = types.get(row.machine_type)
    return {"name": row.name, "cpu": kind and kind.vcpus, "memory_mib": kind and kind.ram,
            **({"disk_gib": sum(disks)} if disks else {}),
            "lan_ipv4": [nic.ipv4 for nic in row.nics],
            "wan_ipv4": [nic.public_ip for nic in row.nics if nic.public_ip],
            "party_status": row.status, "zone": row.availability_zone, "instance_type": row.machine_type,
            "created_at": row.created_at, "updated_at": row.updated_at, "tags": row.labels or {},
            "key_name": row.keypair_name}
