"""Alibaba Cloud's own SDK lists ECS, for `twocloud verify` and the tests."""

from datetime import UTC, datetime
from typing import Any

from alibabacloud_ecs20140526 import client as ecs_client
from alibabacloud_ecs20140526 import models
from alibabacloud_tea_openapi import client as openapi
from alibabacloud_tea_openapi import utils_models
from darabonba.runtime import RuntimeOptions

from ...model import Account, Keys
from . import PARTY

PACKAGES = ("alibabacloud-ecs20140526",)
BY_PROJECT = True                           # each record names the project that --project means


def client(account: Account, region: str) -> Any:
    fields, member = account.credentials, account.member
    keys = Keys(fields["access_key_id"], fields["access_key_secret"], fields.get("security_token"))
    if "role_arn" in fields:
        keys = _assumed(account, region, keys, fields["role_arn"])
    if member is not None and not member.door:
        role = (account.discovery and account.discovery.role) or PARTY.role
        keys = _assumed(account, region, keys, f"acs:ram::{member.id}:role/{role}")
    return ecs_client.Client(_config(account, region, keys))


def _config(account: Account, region: str, keys: Keys, host: str | None = None) -> Any:
    scheme, _, own = (account.endpoint or "").partition("://")
    return utils_models.Config(
        access_key_id=keys.access_key_id, access_key_secret=keys.secret_access_key, security_token=keys.session_token,
        protocol=scheme or "https", endpoint=own or host, region_id=region)


def _assumed(account: Account, region: str, keys: Keys, role: str) -> Keys:
    """By the client on which those of all products stand; the one of STS is a package of its own."""
    more = {"ExternalId": account.credentials["external_id"]} if "external_id" in account.credentials else {}
    params = utils_models.Params(
        action="AssumeRole", version="2015-04-01", protocol="HTTPS", pathname="/", method="POST", auth_type="AK",
        style="RPC", req_body_type="formData", body_type="json")
    request = utils_models.OpenApiRequest(query={"RoleArn": role, "RoleSessionName": "twocloud-verify", **more})
    sts = openapi.Client(_config(account, region, keys, "sts.aliyuncs.com"))
    session = sts.call_api(params, request, RuntimeOptions())["body"]["Credentials"]
    return Keys(session["AccessKeyId"], session["AccessKeySecret"], session["SecurityToken"])


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    """The loops over pages are the SDK's user's."""
    ecs, rows, number = client(account, region), [], 1
    while True:
        body = ecs.describe_instances(models.DescribeInstancesRequest(
            region_id=region, page_number=number, page_size=100)).body
        rows += body.instances.instance
        number += 1
        if len(rows) >= body.total_count or not body.instances.instance:
            break
    sizes: dict[str, int] = {}
    token = None
    while token != "":
        body = ecs.describe_disks(models.DescribeDisksRequest(
            region_id=region, max_results=500, next_token=token)).body
        for disk in body.disks.disk:
            for owner in {disk.instance_id, *(a.instance_id for a in disk.attachments.attachment)} - {""}:
                sizes[owner] = sizes.get(owner, 0) + disk.size
        token = body.next_token or ""
    return {row.instance_id: {
        "name": row.instance_name, "cpu": row.cpu, "memory_mib": row.memory, "disk_gib": sizes.get(row.instance_id),
        "lan_ipv4": {ip.private_ip_address for i in row.network_interfaces.network_interface
                     for ip in i.private_ip_sets.private_ip_set},
        # with --deep the elastic addresses of other interfaces are known to us
        **({} if account.deep else {
            "wan_ipv4": {ip for ip in (row.eip_address.ip_address, *row.public_ip_address.ip_address) if ip}}),
        "party_status": row.status, "zone": row.zone_id, "instance_type": row.instance_type,
        "project_id": row.resource_group_id, "created_at": _time(row.creation_time),
        "tags": {tag.tag_key: tag.tag_value for tag in (row.tags.tag if row.tags else ())},
        "image_id": row.image_id, "os": row.ostype, "key_name": row.key_pair_name or None,
        "vpc_id": row.vpc_attributes.vpc_id or None, "subnet_id": row.vpc_attributes.v_switch_id or None,
        "security_groups": set(row.security_group_ids.security_group_id),
        "charge_type": row.instance_charge_type.lower(),
        "expires_at": _time(row.expired_time) if row.instance_charge_type == "PrePaid" else None} for row in rows}


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%MZ").replace(tzinfo=UTC)
