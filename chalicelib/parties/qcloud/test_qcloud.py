"""Tencent's own SDK: what it lists at the simulator, we list."""

import time
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from tencentcloud.cbs.v20170312 import cbs_client
from tencentcloud.cbs.v20170312 import models as cbs_models
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.cvm.v20170312 import cvm_client
from tencentcloud.cvm.v20170312 import models as cvm_models
from tencentcloud.region.v20220627 import models as region_models
from tencentcloud.region.v20220627 import region_client
from tencentcloud.vpc.v20170312 import models as vpc_models
from tencentcloud.vpc.v20170312 import vpc_client

from chalicelib import parties
from chalicelib.cloud.tencent import sign
from chalicelib.fleet import many_sources
from chalicelib.fleet.many_sources import Answer, Deployment
from chalicelib.model import Account
from chalicelib.parties import qcloud
from chalicelib.parties.qcloud import reference
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators.fleet import Fleet
from tests import verified
from tests.fixtures import App, qcloud_keys


def ours(deployment: Deployment, region: str, **more: Any) -> Answer:
    return many_sources.list_servers(deployment, many_sources.source_of("123", "qcloud", region), **more)


# ---------------------------------------------------------------- the official SDK of Tencent

@pytest.fixture
def tencent(stack: ExitStack) -> Qcloud:
    keys = qcloud_keys()
    return stack.enter_context(Qcloud({keys["secret_id"]: keys["secret_key"]}, {"ap-guangzhou": Fleet(237)},
                                       attached=True, limited=False))


def account(cloud: Qcloud, token: str | None = None) -> Account:
    (key_id, secret), = cloud.keys.items()
    return verified.account("qcloud", cloud.url, {
        "secret_id": key_id, "secret_key": secret, **({"token": token} if token else {})})


def sdk(cloud: Qcloud, client: Any, region: str = "ap-guangzhou", token: str | None = None) -> Any:
    return reference.client(account(cloud, token), client, region)


def test_the_sdk_and_we_list_the_same_machines(app: App, tencent: Qcloud) -> None:
    app.account("qcloud", {"secret_id": next(iter(tencent.keys)), "secret_key": next(iter(tencent.keys.values()))},
                  tencent.url)
    theirs = reference.list_servers(account(tencent), "ap-guangzhou")
    servers = ours(app.deployment, "gz").servers
    assert len(servers) == len(theirs) == 237
    verified.assert_same(servers, theirs)
    assert [server.id for server in servers] == list(theirs)
    assert all(server.created_at and (server.os, server.key_name) == ("linux", None) for server in servers)


def test_the_sdk_and_we_see_the_same_disks_and_interfaces(app: App, tencent: Qcloud) -> None:
    """--deep, against CBS and VPC read through the SDK one machine at a time."""
    app.account("qcloud", {"secret_id": next(iter(tencent.keys)), "secret_key": next(iter(tencent.keys.values()))},
                  tencent.url,
                  deep=True)
    disks = reference.pages(sdk(tencent, cbs_client.CbsClient).DescribeDisks, cbs_models.DescribeDisksRequest(),
                            "DiskSet")
    interfaces = reference.pages(sdk(tencent, vpc_client.VpcClient).DescribeNetworkInterfaces,
                                 vpc_models.DescribeNetworkInterfacesRequest(), "NetworkInterfaceSet")
    servers = ours(app.deployment, "gz").servers
    assert len(servers) == 237
    for mine in servers:
        assert mine.disk_gib == sum(disk.DiskSize for disk in disks if disk.InstanceId == mine.id)
        addresses = [a for i in interfaces if i.Attachment.InstanceId == mine.id for a in i.PrivateIpAddressSet]
        assert set(mine.lan_ipv4) == {a.PrivateIpAddress for a in addresses}
        assert set(mine.wan_ipv4) == {a.PublicIpAddress for a in addresses if a.PublicIpAddress}
    plain = tencent.count("DescribeDisks")
    app.account("qcloud", {"secret_id": next(iter(tencent.keys)), "secret_key": next(iter(tencent.keys.values()))},
                  tencent.url)
    ours(app.deployment, "gz")
    assert tencent.count("DescribeDisks") == plain          # the default makes no such call


def test_the_sdk_and_we_see_the_same_regions(app: App, tencent: Qcloud) -> None:
    (key_id, secret), = tencent.keys.items()
    answer = sdk(tencent, region_client.RegionClient).DescribeRegions(
        _asked(region_models.DescribeRegionsRequest(), {"Product": "cvm"}))
    account = Account(tenant_id="1", party="qcloud", credentials={"secret_id": key_id, "secret_key": secret},
                      endpoint=tencent.url)
    send = app.deployment.transport.sender(qcloud.PARTY, account, "ap-guangzhou", time.monotonic() + 9)
    mine = parties.list_regions(account, send)
    assert [region.code for region in mine if region.open] == [region.Region for region in answer.RegionSet]


def _asked(request: Any, parameters: dict[str, object]) -> Any:
    request._deserialize(parameters)
    return request


@pytest.mark.parametrize(("change", "code"), [
    ({"Authorization": lambda v: v[:-1] + ("0" if v[-1] != "0" else "1")}, "AuthFailure.SignatureFailure"),
    ({"Content-Type": lambda v: "text/plain"}, "AuthFailure.SignatureFailure"),
    ({"Host": lambda v: "cvm.tencentcloudapi.com"}, "AuthFailure.SignatureFailure"),
    ({"X-TC-Timestamp": lambda v: str(int(v) + 1)}, "AuthFailure.SignatureFailure"),
    ({"X-TC-Timestamp": lambda v: str(int(v) - 400)}, "AuthFailure.SignatureExpire"),
    ({"Authorization": lambda v: v.replace("AKIDtest", "AKIDother")}, "AuthFailure.SecretIdNotFound"),
    ({"Authorization": lambda v: "Basic x"}, "AuthFailure.InvalidAuthorization"),
    ({"X-TC-Version": lambda v: "2016-01-01"}, "NoSuchVersion"),
    ({"X-TC-Action": lambda v: "RunInstances"}, "InvalidAction"),
    ({"X-TC-Region": lambda v: "mars"}, "UnsupportedRegion"), ("body", "AuthFailure.SignatureFailure"),
    ({}, None),
])
def test_the_simulator_refuses_a_changed_byte(tencent: Qcloud, change: Any, code: str | None) -> None:
    (key_id, secret), = tencent.keys.items()
    account = Account(tenant_id="1", party="qcloud", credentials={"secret_id": key_id, "secret_key": secret})
    request = sign("cvm", "2017-03-12", "DescribeInstances", "ap-guangzhou", f"{tencent.url}/",
                   b'{"Offset":0,"Limit":5}', account, time.time())
    headers, body = dict(request.headers), request.body
    if change == "body":
        body = b'{"Offset":0,"Limit":6}'
    else:
        headers |= {name: how(headers[name]) for name, how in change.items()}
    answer = requests.post(tencent.url, data=body, headers=headers, timeout=9).json()["Response"]
    assert answer.get("Error", {}).get("Code") == code


def test_the_simulator_enforces_what_is_documented(tencent: Qcloud) -> None:
    client = sdk(tencent, cvm_client.CvmClient)
    for parameters, code in (({"Limit": 101}, "InvalidParameterValue.LimitExceeded"),
                             ({"Limit": 0}, "InvalidParameterValue.LimitExceeded"),
                             ({"Offset": -1}, "InvalidParameterValue"),
                             ({"Filters": [{"Name": "project-id", "Values": list("123456")}]},
                              "InvalidFilterValue.LimitExceeded"),
                             ({"Filters": [{"Name": "nonsense", "Values": ["1"]}]}, "InvalidFilter"),
                             ({"InstanceIds": ["ins-1"], "Filters": [{"Name": "zone", "Values": ["1"]}]},
                              "InvalidParameterConflict")):
        with pytest.raises(TencentCloudSDKException) as refused:
            client.DescribeInstances(_asked(cvm_models.DescribeInstancesRequest(), parameters))
        assert refused.value.code == code
    assert len(client.DescribeInstances(cvm_models.DescribeInstancesRequest()).InstanceSet) == 20       # the default
    keys = qcloud_keys()
    with Qcloud({keys["secret_id"]: keys["secret_key"]}, {"ap-guangzhou": Fleet(1)}) as limited:
        client = sdk(limited, cvm_client.CvmClient)
        with pytest.raises(TencentCloudSDKException) as refused:
            for _ in range(400):
                client.DescribeInstances(cvm_models.DescribeInstancesRequest())
        assert refused.value.code == "RequestLimitExceeded"
        assert limited.count() > 40
