"""boto3's own paginators list EC2, for `twocloud verify` and the tests."""

from typing import Any

import boto3
from botocore.config import Config

from ...model import Account

PACKAGES = ("boto3",)
_CHARGES = {None: "postpaid", "spot": "spot", "capacity-block": "prepaid"}


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    return machines(client(account, region))


def client(account: Account, region: str, service: str = "ec2") -> Any:
    fields = account.credentials
    keys = {"aws_access_key_id": fields["access_key_id"], "aws_secret_access_key": fields["secret_access_key"],
            "aws_session_token": fields.get("session_token")} if "access_key_id" in fields else {}
    if role := fields.get("role_arn"):
        more = {"ExternalId": fields["external_id"]} if "external_id" in fields else {}
        role_keys = boto3.client("sts", region_name=region, endpoint_url=account.endpoint, **keys).assume_role(
            RoleArn=role, RoleSessionName="twocloud-verify", **more)["Credentials"]
        keys = {"aws_access_key_id": role_keys["AccessKeyId"], "aws_secret_access_key": role_keys["SecretAccessKey"],
                "aws_session_token": role_keys["SessionToken"]}
    return boto3.client(service, endpoint_url=account.endpoint, region_name=region,
                        config=Config(retries={"total_max_attempts": 2}), **keys)


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
