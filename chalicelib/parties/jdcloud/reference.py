"""JD Cloud's own SDK lists virtual machines, for `twocloud verify` and the tests."""

import time
import uuid
from typing import Any

from jdcloud_sdk.core.config import Config
from jdcloud_sdk.core.credential import Credential
from jdcloud_sdk.core.logger import FATAL, Logger
from jdcloud_sdk.services.vm.apis.DescribeInstancesRequest import DescribeInstancesParameters, DescribeInstancesRequest
from jdcloud_sdk.services.vm.apis.DescribeInstanceTypesRequest import (
    DescribeInstanceTypesParameters,
    DescribeInstanceTypesRequest,
)
from jdcloud_sdk.services.vm.client.VmClient import VmClient

from ...model import Account

PACKAGES = ("jdcloud-sdk",)
BY_PROJECT = True                           # each record names the project that --project means
QUIET = Logger(FATAL - 1)                   # else it prints signed headers


class Refused(Exception):
    """The SDK returns errors, it does not raise them."""


def ask(account: Account, request: Any) -> Any:
    """The SDK signs date and nonce, as its vendor's document demands, only if they are given."""
    fields = account.credentials
    scheme, _, host = (account.endpoint or "https://vm.jdcloud-api.com").partition("://")
    token = {"x-jdcloud-security-token": fields["security_token"]} if "security_token" in fields else {}
    request.header = {"x-jdcloud-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
                      "x-jdcloud-nonce": str(uuid.uuid4()), **token, **(request.header or {})}
    answer = VmClient(Credential(fields["access_key"], fields["secret_key"]), Config(host, scheme), QUIET).send(request)
    if answer.error is not None:
        raise Refused(answer.error.code, answer.error.status)
    return answer.result


def pages(account: Account, region: str, size: int = 100) -> list[dict[str, Any]]:
    """The loop that the SDK leaves to its user."""
    rows: list[dict[str, Any]] = []
    for number in range(1, 1000):
        parameters = DescribeInstancesParameters(region)
        parameters.setPageNumber(number)
        parameters.setPageSize(size)
        result = ask(account, DescribeInstancesRequest(parameters))
        rows += result["instances"] or []
        if len(rows) >= result["totalCount"]:
            break
    return rows


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    """With the types joined by hand."""
    types = {kind["instanceType"]: kind for kind in ask(
        account, DescribeInstanceTypesRequest(DescribeInstanceTypesParameters(region)))["instanceTypes"]}
    by_id: dict[str, dict[str, Any]] = {}
    for row in pages(account, region):
        disks = [row["systemDisk"], *(row.get("dataDisks") or [])]
        ips = [one for attached in (row["primaryNetworkInterface"], *(row["secondaryNetworkInterfaces"] or []))
               for one in (attached["networkInterface"]["primaryIp"],
                           *(attached["networkInterface"]["secondaryIps"] or []))]
        by_id[row["instanceId"]] = {
            "name": row["instanceName"], "cpu": types[row["instanceType"]]["cpu"],
            "memory_mib": types[row["instanceType"]]["memoryMB"],
            "disk_gib": sum((disk["cloudDisk"] or disk["localDisk"])["diskSizeGB"] for disk in disks),
            "lan_ipv4": [one["privateIpAddress"] for one in ips],
            "wan_ipv4": [one["elasticIpAddress"] for one in ips if one["elasticIpAddress"]],
            "party_status": row["status"], "zone": row["az"], "instance_type": row["instanceType"],
            "project_id": row["resourceGroupId"], "tags": {tag["key"]: tag["value"] for tag in row["tags"] or []}}
    return by_id
