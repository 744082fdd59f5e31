"""Huawei Cloud's own SDK lists ECS and EVS, for `twocloud verify` and the tests."""

from datetime import UTC, datetime
from typing import Any

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.region.region import Region
from huaweicloudsdkecs.v2 import EcsClient, ListServersDetailsRequest
from huaweicloudsdkecs.v2.region.ecs_region import EcsRegion
from huaweicloudsdkevs.v2 import EvsClient, ListVolumesRequest
from huaweicloudsdkevs.v2.region.evs_region import EvsRegion

from ...model import Account

PACKAGES = ("huaweicloudsdkecs", "huaweicloudsdkevs")
BY_PROJECT = True                           # each record names the project that --project means


def client(account: Account, kind: Any, region: str) -> Any:
    """The project id is looked up by the SDK itself if the credentials name none."""
    fields, url = account.credentials, account.endpoint
    keys = BasicCredentials(fields["access_key"], fields["secret_key"], fields.get("project_id"))
    if "security_token" in fields:
        keys = keys.with_security_token(fields["security_token"])
    if url:
        return kind.new_builder().with_credentials(keys.with_iam_endpoint(url)).with_region(Region(region, url)).build()
    regions = EcsRegion if kind is EcsClient else EvsRegion
    return kind.new_builder().with_credentials(keys).with_region(regions.value_of(region)).build()


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    ecs, evs = (client(account, kind, region) for kind in (EcsClient, EvsClient))
    servers: list[Any] = []
    while True:
        answer = ecs.list_servers_details(ListServersDetailsRequest(
            limit=100, offset=len(servers) // 100 + 1, enterprise_project_id="all_granted_eps"))
        servers += answer.servers
        if len(servers) >= answer.count or not answer.servers:
            break
    sizes: dict[str, int] = {}
    while True:
        answer = evs.list_volumes(ListVolumesRequest(
            limit=1000, offset=len(sizes), enterprise_project_id="all_granted_eps"))
        sizes |= {volume.id: volume.size for volume in answer.volumes}
        if len(sizes) >= answer.count or not answer.volumes:
            break
    return {s.id: {
        "name": s.name, "cpu": int(s.flavor.vcpus), "memory_mib": int(s.flavor.ram), "party_status": s.status,
        "disk_gib": sum(sizes[volume.id] for volume in s.os_extended_volumesvolumes_attached),
        "lan_ipv4": [a.addr for network in s.addresses.values() for a in network if a.os_ext_ip_stype == "fixed"],
        "wan_ipv4": [a.addr for network in s.addresses.values() for a in network if a.os_ext_ip_stype == "floating"],
        "tags": dict(tag.split("=", 1) for tag in s.tags), "zone": s.os_ext_a_zavailability_zone,
        "created_at": _time(s.created), "updated_at": _time(s.updated),
        "project_id": s.enterprise_project_id, "instance_type": s.flavor.id, "image_id": s.image.id,
        "image_name": s.metadata.get("image_name"), "os": s.metadata["os_type"].lower(), "key_name": s.key_name,
        "vpc_id": s.metadata.get("vpc_id"), "security_groups": [group.id for group in s.security_groups],
        "host_id": s.host_id,
        "charge_type": {"0": "postpaid", "1": "prepaid"}.get(s.metadata["charging_mode"])} for s in servers}


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
