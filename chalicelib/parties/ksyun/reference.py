"""Kingsoft Cloud's own SDK lists KEC and elastic addresses, for `twocloud verify` and the tests."""

import json
from typing import Any

from ksyun.client.eip.v20160304 import client as eip_client
from ksyun.client.eip.v20160304 import models as eip_models
from ksyun.client.iam.v20151101 import client as iam_client
from ksyun.client.kec.v20160304 import client as kec_client
from ksyun.client.kec.v20160304 import models as kec_models
from ksyun.common import credential
from ksyun.common.profile.client_profile import ClientProfile
from ksyun.common.profile.http_profile import HttpProfile

from ...model import Account

PACKAGES = ("kingsoftcloud-sdk-python",)
BY_PROJECT = True                           # each record names the project that --project means


def client(account: Account, kind: Any, region: str, method: str = "POST") -> Any:
    scheme, _, host = (account.endpoint or "").partition("://")
    there = {"protocol": scheme, "endpoint": host} if host else {}
    return kind(credential.Credential(account.credentials["access_key"], account.credentials["secret_key"]), region,
                ClientProfile(httpProfile=HttpProfile(reqMethod=method, **there)))


def ask(call: Any, request: Any, **parameters: object) -> dict[str, Any]:
    for name, value in parameters.items():
        setattr(request, name, value)
    return json.loads(call(request))


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    """Projects, pages and the join are the SDK's users'."""
    kec, eip, iam = (client(account, kind, region)
                     for kind in (kec_client.KecClient, eip_client.EipClient, iam_client.IamClient))
    projects = [project["ProjectId"] for project in json.loads(iam.call("GetAccountAllProjectList", {}))[
        "ListProjectResult"]["ProjectList"]]
    rows, total = list[Any](), 1
    while len(rows) < total:
        answer = ask(kec.DescribeInstances, kec_models.DescribeInstancesRequest(), MaxResults=1000, Marker=len(rows),
                     ProjectId=projects)
        total = answer["InstanceCount"]
        rows += answer["InstancesSet"]
        if not answer["InstancesSet"]:
            break
    public: dict[str, set[str]] = {}
    token = None
    while True:
        answer = ask(eip.DescribeAddresses, eip_models.DescribeAddressesRequest(), MaxResults=1000, NextToken=token,
                     ProjectId=projects)
        for address in answer["AddressesSet"]:
            public.setdefault(address.get("InstanceId", ""), set()).add(address["PublicIp"])
        token = answer.get("NextToken")
        if not token:
            break
    return {row["InstanceId"]: {
        "name": row["InstanceName"], "cpu": row["InstanceConfigure"]["VCPU"],
        "memory_mib": row["InstanceConfigure"]["MemoryGb"] * 1024,
        "disk_gib": row["SystemDisk"]["DiskSize"] + sum(disk["DiskSize"] for disk in row.get("DataDisks") or ()),
        "lan_ipv4": {interface["PrivateIpAddress"] for interface in row["NetworkInterfaceSet"]},
        "wan_ipv4": public.get(row["InstanceId"], set()), "party_status": row["InstanceState"]["Name"],
        "zone": row["AvailabilityZone"], "instance_type": row["InstanceType"], "project_id": str(row["ProjectId"])}
        for row in rows}
