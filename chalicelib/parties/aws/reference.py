"""boto3's own paginators list EC2, for `twocloud verify` and the tests."""

from typing import Any

import boto3
from botocore.config import Config

from ...cloud import amazon
from ...model import Account
from . import PARTY

PACKAGES = ("boto3",)
IN_PROJECT = True                           # it lists the account's project alone
_CHARGES = {None: "postpaid", "spot": "spot", "capacity-block": "prepaid"}


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    """Of the account's project those with its tag."""
    key, _, value = (account.project or "").partition("=")
    return {name: row for name, row in machines(client(account, region)).items()
            if account.project is None or row["tags"].get(key) == value}


def client(account: Account, region: str, service: str = "ec2") -> Any:
    fields = account.credentials
    keys = {"aws_access_key_id": fields["access_key_id"], "aws_secret_access_key": fields["secret_access_key"],
            "aws_session_token": fields.get("session_token")} if "access_key_id" in fields else {}
    for role in filter(None, (fields.get("role_arn"), _role_in_member(account, region))):
        more = {"ExternalId": fields["external_id"]} if "external_id" in fields else {}
        role_keys = boto3.client("sts", region_name=region, endpoint_url=account.endpoint, **keys).assume_role(
            RoleArn=role, RoleSessionName="twocloud-verify", **more)["Credentials"]
        keys = {"aws_access_key_id": role_keys["AccessKeyId"], "aws_secret_access_key": role_keys["SecretAccessKey"],
                "aws_session_token": role_keys["SessionToken"]}
    return boto3.client(service, endpoint_url=account.endpoint, region_name=region,
                        config=Config(retries={"total_max_attempts": 2}), **keys)


def _role_in_member(account: Account, region: str) -> str | None:
    """The role that opens a member behind the account; None: the account's own keys do."""
    member, partition = account.member, amazon.partition_of(region)
    if member is None or member.door:
        return None
    role = (account.discovery and account.discovery.role) or PARTY.role
    return f"arn:{partition.id if partition else 'aws'}:iam::{member.id}:role/{role}"


def machines(ec2: Any) -> dict[str, dict[str, Any]]:
    """Every machine that is not gone."""
    instances = [i for page in ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000})
                 for r in page["Reservations"] for i in r["Instances"]]
    sizes: dict[str, int] = {}
    for page in ec2.get_paginator("describe_volumes").paginate(PaginationConfig={"PageSize": 500}):
        for volume in page["Volumes"]:
            for attachment in volume["Attachments"]:
                sizes[attachment["InstanceId"]] = sizes.get(attachment["InstanceId"], 0) + volume["Size"]
    names = sorted({i["InstanceType"] for i in instances})
    types = {t["InstanceType"]: t for at in range(0, len(names), 100)
             for t in ec2.describe_instance_types(InstanceTypes=names[at:at + 100])["InstanceTypes"]}
    by_id = {}
    for i in instances:
        if i["State"]["Name"] == "terminated":
            continue
        options = i.get("CpuOptions") or {}
        kind = types[i["InstanceType"]]
        tags = {tag["Key"]: tag["Value"] for tag in i.get("Tags", [])}
        interfaces = i.get("NetworkInterfaces", [])
        addresses = [a for n in interfaces for a in n["PrivateIpAddresses"]]
        by_id[i["InstanceId"]] = {
            "name": tags.get("Name", ""), "memory_mib": kind["MemoryInfo"]["SizeInMiB"],
            "disk_gib": sizes.get(i["InstanceId"], 0),
            "cpu": options["CoreCount"] * options["ThreadsPerCore"] if options else kind["VCpuInfo"]["DefaultVCpus"],
            "lan_ipv4": [a["PrivateIpAddress"] for a in addresses], "party_status": i["State"]["Name"],
            "wan_ipv4": [a["Association"]["PublicIp"] for a in addresses if "Association" in a], "tags": tags,
            "created_at": interfaces[0]["Attachment"]["AttachTime"] if interfaces else i["LaunchTime"],
            "instance_type": i["InstanceType"], "zone": i["Placement"]["AvailabilityZone"],
            "image_id": i["ImageId"], "key_name": i.get("KeyName"), "vpc_id": i.get("VpcId"),
            "subnet_id": i.get("SubnetId"), "security_groups": [group["GroupId"] for group in i["SecurityGroups"]],
            "charge_type": _CHARGES.get(i.get("InstanceLifecycle"))}
    return by_id
