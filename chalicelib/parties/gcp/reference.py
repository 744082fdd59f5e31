"""Google's own client lists Compute Engine, for `twocloud verify` and the tests."""

import json
from datetime import datetime
from typing import Any

from google.cloud import compute_v1
from google.cloud.compute_v1.services.instances.transports import InstancesRestTransport
from google.cloud.compute_v1.services.machine_types.transports import MachineTypesRestTransport
from google.cloud.compute_v1.services.regions.transports import RegionsRestTransport
from google.oauth2 import service_account

from ...model import Account

PACKAGES = ("google-cloud-compute",)
READ = "https://www.googleapis.com/auth/compute.readonly"


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    """Zone by zone, with its own pages and its own models."""
    key = account.credentials["service_account"]
    key = json.loads(key) if isinstance(key, str) else key
    project = account.member.id if account.member else account.credentials.get("project_id") or key["project_id"]
    there: dict[str, Any] = {"credentials": service_account.Credentials.from_service_account_info(
        key, always_use_jwt_access=True, scopes=[READ])}
    if account.endpoint:
        scheme, _, host = account.endpoint.partition("://")
        there |= {"host": host, "url_scheme": scheme}
    regions = compute_v1.RegionsClient(transport=RegionsRestTransport(**there))
    zones = [z.rpartition("/")[2] for z in regions.get(project=project, region=region, retry=None).zones]
    kinds = compute_v1.MachineTypesClient(transport=MachineTypesRestTransport(**there))
    client = compute_v1.InstancesClient(transport=InstancesRestTransport(**there))
    types: dict[str, tuple[int, int]] = {}
    by_id = {}
    for zone in zones:
        types |= {t.name: (t.guest_cpus, t.memory_mb) for t in kinds.list(project=project, zone=zone, retry=None)}
        for row in client.list(compute_v1.ListInstancesRequest(project=project, zone=zone, max_results=100),
                               retry=None):
            by_id[str(row.id)] = machine(type(row).to_dict(row, preserving_proto_field_name=False), types)
    return by_id


def machine(row: Any, types: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """An instance as the API writes it. A custom type is in no list; its name ends with processors and MB."""
    kind, interfaces = row["machineType"].rpartition("/")[2], row["networkInterfaces"]
    cpu, memory = types.get(kind) or tuple(int(part) for part in kind.removesuffix("-ext").split("-")[-2:])
    return {"name": row["name"], "cpu": cpu, "memory_mib": memory,
            "disk_gib": sum(int(d["diskSizeGb"]) for d in row["disks"]),
            "lan_ipv4": [n["networkIP"] for n in interfaces], "tags": dict(row.get("labels") or {}),
            "party_status": row["status"],
            "wan_ipv4": [a["natIP"] for n in interfaces for a in n["accessConfigs"] if a.get("natIP")],
            "created_at": datetime.fromisoformat(row["creationTimestamp"]), "instance_type": kind,
            "zone": row["zone"].rpartition("/")[2]}
