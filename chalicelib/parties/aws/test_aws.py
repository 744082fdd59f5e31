"""boto3, a published signature and moto's EC2: what they list, we list."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import boto3
import pytest
import requests
import time_machine
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from chalicelib import parties
from chalicelib.errors import PartyDenied
from chalicelib.fleet import many_sources
from chalicelib.fleet.many_sources import Answer, Deployment
from chalicelib.model import Account, Keys, Server
from chalicelib.parties import aws
from chalicelib.parties.aws.simulator import Aws
from chalicelib.simulators.fleet import Fleet
from tests.fixtures import App, aws_keys


def ours(deployment: Deployment, region: str, **more: Any) -> Answer:
    return many_sources.list_servers(deployment, many_sources.source_of("123", "aws", region), **more)


# ---------------------------------------------------------------- published signatures

@pytest.mark.parametrize(("token", "signature"), [
    (None, "6e93e15d41969faa9dfd68df652aeb3ac78e010d5951c22f50fa6464c64c4436"),
    ("TOKEN", "b2963190a4bb74c8af18c3264558640b8d23e874538ab30764214f21ebe89bd9")])
def test_sigv4_of_a_describe_instances(token: str | None, signature: str) -> None:
    with time_machine.travel("2026-01-02T03:04:05Z", tick=False):
        request = aws.sign("ec2", "us-east-1", "https://ec2.us-east-1.amazonaws.com/",
                           b"Action=DescribeInstances&Version=2016-11-15&MaxResults=1000",
                           Keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token))
    assert request.headers["Authorization"].endswith(f"Signature={signature}")


# ---------------------------------------------------------------- boto3

@pytest.fixture
def amazon(stack: ExitStack) -> Aws:
    keys = aws_keys()
    return stack.enter_context(Aws({keys["access_key_id"]: keys["secret_access_key"]},
                                   {"us-east-1": Fleet(2345, gone=True)}, short=True, limited=False))


def boto(cloud: Aws, service: str = "ec2", region: str = "us-east-1", **more: Any) -> Any:
    key_id, secret = next(iter(cloud.keys.items()))
    return boto3.client(service, endpoint_url=cloud.url, region_name=region, aws_access_key_id=key_id,
                        aws_secret_access_key=secret, config=Config(retries={"total_max_attempts": 1}), **more)


def boto_view(ec2: Any) -> dict[str, dict[str, Any]]:
    """What boto3's own paginators say of every machine that is not gone."""
    instances = [i for page in ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000})
                 for r in page["Reservations"] for i in r["Instances"]]
    sizes: dict[str, int] = {}
    for page in ec2.get_paginator("describe_volumes").paginate(PaginationConfig={"PageSize": 500}):
        for volume in page["Volumes"]:
            for attachment in volume["Attachments"]:
                sizes[attachment["InstanceId"]] = sizes.get(attachment["InstanceId"], 0) + volume["Size"]
    types = {t["InstanceType"]: t for t in ec2.describe_instance_types(
        InstanceTypes=sorted({i["InstanceType"] for i in instances}))["InstanceTypes"]} if instances else {}
    found = {}
    for i in instances:
        if i["State"]["Name"] == "terminated":
            continue
        options = i.get("CpuOptions") or {}
        kind = types[i["InstanceType"]]
        tags = {tag["Key"]: tag["Value"] for tag in i.get("Tags", [])}
        interfaces = i.get("NetworkInterfaces", [])
        addresses = [a for n in interfaces for a in n["PrivateIpAddresses"]]
        found[i["InstanceId"]] = {
            "name": tags.get("Name", ""), "memory": kind["MemoryInfo"]["SizeInMiB"],
            "disk": sizes.get(i["InstanceId"], 0),
            "cpu": options["CoreCount"] * options["ThreadsPerCore"] if options else kind["VCpuInfo"]["DefaultVCpus"],
            "lan": [a["PrivateIpAddress"] for a in addresses], "state": i["State"]["Name"],
            "wan": [a["Association"]["PublicIp"] for a in addresses if "Association" in a], "tags": tags,
            "created": interfaces[0]["Attachment"]["AttachTime"] if interfaces else i["LaunchTime"]}
    return found


def our_view(servers: list[Server]) -> dict[str, dict[str, Any]]:
    return {s.id: {"name": s.name, "memory": s.memory_mib, "disk": s.disk_gib, "cpu": s.cpu, "lan": list(s.lan_ipv4),
                   "wan": list(s.wan_ipv4), "state": s.party_status, "tags": s.tags, "created": s.created_at}
            for s in servers}


def test_boto3_and_we_list_the_same_machines(house: App, amazon: Aws) -> None:
    key_id, secret = next(iter(amazon.keys.items()))
    house.account("aws", {"access_key_id": key_id, "secret_access_key": secret}, amazon.url)
    found = ours(house.deployment, "us-east-1")
    theirs = boto_view(boto(amazon))
    assert our_view(found.servers) == theirs
    assert found.total == len(theirs) > 2000
    order = [(server.created_at, server.id) for server in found.servers]
    assert order == sorted(order)
    part = ours(house.deployment, "us-east-1", window=many_sources.Window(1001, 1010))
    assert part.servers == found.servers[1000:1010]


def test_the_same_regions_as_boto3(house: App, amazon: Aws) -> None:
    key_id, secret = next(iter(amazon.keys.items()))
    account = Account(tenant_id="1", party="aws", credentials={"access_key_id": key_id, "secret_access_key": secret},
                      endpoint=amazon.url)
    send = house.deployment.transport.sender(aws.PARTY, account, "us-east-1", time.monotonic() + 9)
    mine = {region.code: region.open for region in parties.list_regions(account, send)}
    assert mine == {r["RegionName"]: r["OptInStatus"] != "not-opted-in" for r in
                    boto(amazon).describe_regions(AllRegions=True)["Regions"]}


def test_an_assumed_role(house: App, amazon: Aws) -> None:
    """AssumeRole with an external id, kept until shortly before its end; the service's own keys sign only that."""
    key_id, secret = next(iter(amazon.keys.items()))
    amazon.roles["arn:aws:iam::123456789012:role/reader"] = "shared-with-tenant"
    account = Account(tenant_id="1", party="aws", revision="r", endpoint=amazon.url,
                      identity=lambda: Keys(key_id, secret),
                      credentials={"role_arn": "arn:aws:iam::123456789012:role/reader",
                                   "external_id": "shared-with-tenant"})

    def listed() -> int:
        send = house.deployment.transport.sender(aws.PARTY, account, "us-east-1", time.monotonic() + 20)
        return parties.list_servers(many_sources.source_of("1", "aws", "us-east-1"), account, many_sources.Window(1, 1),
                                    send).total

    count = listed()
    assert count > 2000
    assert listed() == count
    assert amazon.count("AssumeRole") == 1
    session_calls = [call for call in amazon.calls if call.operation != "AssumeRole"]
    assert all("Credential=ASIA" in call.headers["authorization"] and "x-amz-security-token" in call.headers
               for call in session_calls)
    with time_machine.travel(time.time() + 3600 - 59):
        assert listed() == count
    assert amazon.count("AssumeRole") == 2
    wrong = replace(account, credentials={**account.credentials, "external_id": "guessed"}, revision="other")
    send = house.deployment.transport.sender(aws.PARTY, wrong, "us-east-1", time.monotonic() + 20)
    with pytest.raises(PartyDenied, match="wrong role"):
        parties.list_servers(many_sources.source_of("1", "aws", "us-east-1"), wrong, many_sources.Window(), send)
    assumed = boto(amazon, "sts").assume_role(RoleArn="arn:aws:iam::123456789012:role/reader", RoleSessionName="boto3",
                                              ExternalId="shared-with-tenant")["Credentials"]
    assert boto3.client("ec2", endpoint_url=amazon.url, region_name="us-east-1",
                        aws_access_key_id=assumed["AccessKeyId"],
                        aws_secret_access_key=assumed["SecretAccessKey"], aws_session_token=assumed["SessionToken"],
                        ).describe_regions()["Regions"]


@pytest.mark.parametrize("change", ["Authorization", "body", "X-Amz-Date", "Host", "token", None])
def test_the_simulator_refuses_a_changed_byte(amazon: Aws, change: str | None) -> None:
    key_id, secret = next(iter(amazon.keys.items()))
    request = aws.sign("ec2", "us-east-1", f"{amazon.url}/", b"Action=DescribeRegions&Version=2016-11-15",
                       Keys(key_id, secret))
    headers, body = dict(request.headers), request.body
    if change == "body":
        body += b"&AllRegions=true"
    elif change == "token":
        headers["X-Amz-Security-Token"] = "unasked"
    elif change == "Host":
        headers["Host"] = "ec2.us-east-1.amazonaws.com"
    elif change == "X-Amz-Date":
        headers["X-Amz-Date"] = headers["X-Amz-Date"][:-2] + ("1Z" if headers["X-Amz-Date"][-2] != "1" else "2Z")
    elif change:
        headers[change] = headers[change][:-1] + ("0" if headers[change][-1] != "0" else "1")
    answer = requests.post(amazon.url, data=body, headers=headers, timeout=9)
    assert answer.status_code == (200 if change is None else 401 if change == "token" else 403), answer.text


def test_the_simulator_enforces_what_is_documented(amazon: Aws) -> None:
    ec2 = boto(amazon)
    token = ec2.describe_instances(MaxResults=5)["NextToken"]
    for call, asked, code in (
        (ec2.describe_instances, {"MaxResults": 4}, "InvalidParameterValue"),
        (ec2.describe_instances, {"MaxResults": 1001}, "InvalidParameterValue"),
        (ec2.describe_instances, {"MaxResults": 5, "InstanceIds": ["i-1"]}, "InvalidParameterCombination"),
        (ec2.describe_instances, {"MaxResults": 5, "NextToken": "made-up"}, "InvalidNextToken"),
        (ec2.describe_volumes, {"MaxResults": 5, "NextToken": token}, "InvalidNextToken"),
        (ec2.describe_instance_types, {"InstanceTypes": ["no.such"]}, "InvalidInstanceType"),
        (ec2.describe_instances, {"Filters": [{"Name": "instance-id", "Values": [str(n) for n in range(201)]}]},
         "FilterLimitExceeded"),
    ):
        with pytest.raises(ClientError) as refused:
            call(**asked)
        assert refused.value.response["Error"]["Code"] == code
    with pytest.raises(ClientError) as refused:
        boto(amazon, region="ap-east-1").describe_instances()
    assert refused.value.response["Error"]["Code"] == "AuthFailure"


def test_botocore_signs_the_suites_get_vanilla() -> None:
    """https://docs.aws.amazon.com/general/latest/gr/signature-v4-test-suite.html"""
    with time_machine.travel("2015-08-30T12:36:00Z", tick=False):
        request = AWSRequest("GET", "http://example.amazonaws.com/")
        SigV4Auth(Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), "service",
                  "us-east-1").add_auth(request)
    assert request.headers["Authorization"].endswith(
        "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31")


# ---------------------------------------------------------------- an EC2 that we did not write

@pytest.fixture
def moto_url() -> Iterator[str]:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = make_server("127.0.0.1", port, DomainDispatcherApplication(create_backend_app), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    server.shutdown()
    thread.join(5)


def test_motos_ec2(house: App, moto_url: str) -> None:
    """Wire format, pages by reservation, the join of volumes and types, against boto3's view of the same server."""
    requests.post(f"{moto_url}/moto-api/reset", timeout=9)
    ec2 = boto3.client("ec2", endpoint_url=moto_url, region_name="us-east-1", aws_access_key_id="AKIA",
                       aws_secret_access_key="s")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    for n, kind in enumerate(("t3.micro", "m5.large", "c5.2xlarge", "t3.micro")):
        ec2.run_instances(ImageId=image, InstanceType=kind, MinCount=7, MaxCount=7, TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": f"web-{n}"},
                                                  {"Key": "team", "Value": "blue"}]}])
    listed = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    volume = ec2.create_volume(Size=77, AvailabilityZone=listed[0]["Placement"]["AvailabilityZone"])["VolumeId"]
    ec2.attach_volume(VolumeId=volume, InstanceId=listed[0]["InstanceId"], Device="/dev/sdf")
    ec2.stop_instances(InstanceIds=[listed[1]["InstanceId"]])
    ec2.terminate_instances(InstanceIds=[listed[2]["InstanceId"]])
    house.account("aws", {"access_key_id": "AKIA", "secret_access_key": "s"}, moto_url)
    found = ours(house.deployment, "us-east-1")
    theirs = boto_view(ec2)
    assert len(theirs) == 27
    assert found.total == 27
    assert our_view(found.servers) == theirs
    assert {s.status.value for s in found.servers} == {"ACTIVE", "SHUTOFF"}
    assert ours(house.deployment, "us-east-1", window=many_sources.Window(5, 9)).servers == found.servers[4:9]
