"""Oracle's own SDK lists every compartment that the key may read, for `twocloud verify` and the tests."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import oci

if TYPE_CHECKING:
    from ...model import Account

PACKAGES = ("oci",)


def client(account: "Account", region: str, kind: Any) -> Any:
    """A client of any of the SDK's services."""
    fields = account.credentials
    config = {name: fields[name] for name in ("tenancy", "user", "fingerprint")}
    there = {"service_endpoint": account.endpoint} if account.endpoint else {}
    return kind({**config, "key_content": fields["private_key"], "region": region}, **there)


def every(call: Callable[..., Any], *values: str, **more: Any) -> list[Any]:
    """All pages of a list."""
    rows: list[Any] = oci.pagination.list_call_get_all_results(call, *values, **more).data
    return rows


def list_servers(account: "Account", region: str) -> dict[str, dict[str, Any]]:
    identity, tenancy = client(account, region, oci.identity.IdentityClient), account.credentials["tenancy"]
    places = [tenancy, *(row.id for row in every(
        identity.list_compartments, tenancy, compartment_id_in_subtree=True, access_level="ACCESSIBLE")
        if row.lifecycle_state == "ACTIVE")]
    return {key: machine for place in places for key, machine in _compartment(account, region, place).items()}


def _compartment(account: "Account", region: str, place: str) -> dict[str, dict[str, Any]]:
    compute = client(account, region, oci.core.ComputeClient)
    rows = [row for row in every(compute.list_instances, place) if row.lifecycle_state != "TERMINATED"]
    if not rows:
        return {}
    network = client(account, region, oci.core.VirtualNetworkClient)
    disks = _disks(account, region, compute, place, rows)
    vnics: dict[str, list[Any]] = {row.id: [] for row in rows}
    for each in every(compute.list_vnic_attachments, place):
        if each.lifecycle_state == "ATTACHED":
            vnics[each.instance_id].append(network.get_vnic(each.vnic_id).data)
    return {row.id: {**_machine(row, disks[row.id]),
                     # with --deep more addresses of the VNICs are known to us
                     **({} if account.deep else _addresses(vnics[row.id]))} for row in rows}


def _disks(account: "Account", region: str, compute: Any, place: str, rows: list[Any]) -> dict[str, int]:
    block = client(account, region, oci.core.BlockstorageClient)
    sizes = {row.id: row.size_in_gbs for call in (block.list_volumes, block.list_boot_volumes)
             for row in every(call, compartment_id=place)}
    disks = {row.id: row.shape_config.local_disks_total_size_in_gbs or 0 for row in rows}
    for domain in sorted({row.availability_domain for row in rows}):
        for each in every(compute.list_boot_volume_attachments, domain, place):
            if each.lifecycle_state == "ATTACHED":
                disks[each.instance_id] += sizes.get(each.boot_volume_id) or block.get_boot_volume(
                    each.boot_volume_id).data.size_in_gbs
    for each in every(compute.list_volume_attachments, place):
        if each.lifecycle_state == "ATTACHED":
            disks[each.instance_id] += sizes.get(each.volume_id) or block.get_volume(each.volume_id).data.size_in_gbs
    return disks


def _addresses(vnics: list[Any]) -> dict[str, Any]:
    ordered = sorted(vnics, key=lambda vnic: not vnic.is_primary)
    return {"lan_ipv4": [vnic.private_ip for vnic in ordered],
            "wan_ipv4": [vnic.public_ip for vnic in ordered if vnic.public_ip]}


def _machine(row: Any, disk: int) -> dict[str, Any]:
    shape = row.shape_config
    defined: Mapping[str, Mapping[str, str]] = row.defined_tags or {}
    return {"name": row.display_name, "party_status": row.lifecycle_state, "zone": row.availability_domain,
            "project_id": row.compartment_id, "instance_type": row.shape, "memory_mib": shape.memory_in_gbs * 1024,
            "created_at": row.time_created, "disk_gib": disk,
            "cpu": shape.vcpus or int(shape.ocpus * (1 if ".A1." in row.shape else 2)),
            "tags": {**(row.freeform_tags or {}), **{f"{space}.{name}": value for space, tags in defined.items()
                                                     for name, value in tags.items()}},
            "host_id": row.dedicated_vm_host_id}
