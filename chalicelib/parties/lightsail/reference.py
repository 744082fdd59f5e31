"""boto3 lists Lightsail, for `twocloud verify` and the tests."""

from math import ceil
from typing import Any

from ...model import Account
from ..aws import reference as ec2

PACKAGES = ("boto3",)


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    """Without those that are gone."""
    client = ec2.client(account, region, "lightsail")
    return {row["arn"].rpartition("/")[2]: {
        "name": row["name"], "cpu": row["hardware"]["cpuCount"],
        "memory_mib": ceil(row["hardware"]["ramSizeInGb"] * 1024),
        "disk_gib": sum(disk["sizeInGb"] for disk in row["hardware"]["disks"]), "lan_ipv4": [row["privateIpAddress"]],
        "wan_ipv4": [row["publicIpAddress"]] if "publicIpAddress" in row else [],
        "wan_ipv6": row["ipv6Addresses"], "party_status": row["state"]["name"], "created_at": row["createdAt"],
        "zone": row["location"]["availabilityZone"], "instance_type": row["bundleId"],
        "tags": {tag["key"]: tag.get("value", "") for tag in row["tags"]}, "image_id": row["blueprintId"],
        "image_name": row["blueprintName"], "key_name": row["sshKeyName"]}
        for page in client.get_paginator("get_instances").paginate() for row in page["instances"]
        if row["state"]["name"] != "terminated"}
