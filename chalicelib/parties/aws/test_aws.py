"""boto3, a published signature and moto's EC2: what they list, we list."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import botocore.session
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
from chalicelib.cloud import amazon as vendor
from chalicelib.cloud.amazon import sign
from chalicelib.cloud.failures import failure_in
from chalicelib.errors import PartyDenied, PartyMalformed, UnknownRegion
from chalicelib.fleet import many_sources
from chalicelib.fleet.many_sources import Answer, Deployment
from chalicelib.model import Account, Keys, Response
from chalicelib.parties import aws
from chalicelib.parties.aws import reference
from chalicelib.parties.aws.simulator import Aws
from chalicelib.simulators.fleet import Fleet
from tests.fixtures import App, aws_keys
from tests.unit.test_discovery import Organisation
from tests.verified import assert_same


def ours(deployment: Deployment, region: str, **more: Any) -> Answer:
    return many_sources.list_servers(deployment, many_sources.source_of("123", "aws", region), **more)


# ---------------------------------------------------------------- published signatures

@pytest.mark.parametrize(("token", "signature"), [
    (None, "6e93e15d41969faa9dfd68df652aeb3ac78e010d5951c22f50fa6464c64c4436"),
    ("TOKEN", "b2963190a4bb74c8af18c3264558640b8d23e874538ab30764214f21ebe89bd9")])
def test_sigv4_of_a_describe_instances(token: str | None, signature: str) -> None:
    with time_machine.travel("2026-01-02T03:04:05Z", tick=False):
        request = sign("ec2", "us-east-1", "https://ec2.us-east-1.amazonaws.com/",
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


def test_boto3_and_we_list_the_same_machines(app: App, amazon: Aws) -> None:
    key_id, secret = next(iter(amazon.keys.items()))
    app.account("aws", {"access_key_id": key_id, "secret_access_key": secret}, amazon.url)
    answer = ours(app.deployment, "us-east-1")
    theirs = reference.machines(boto(amazon))
    assert_same(answer.servers, theirs)
    assert answer.total == len(theirs) > 2000
    order = [(server.created_at, server.id) for server in answer.servers]
    assert order == sorted(order)
    part = ours(app.deployment, "us-east-1", window=many_sources.Window(1001, 1010))
    assert part.servers == answer.servers[1000:1010]


def test_the_types_of_an_only_page_are_requested_while_its_instances_are_read(
        app: App, amazon: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    key_id, secret = next(iter(amazon.keys.items()))
    app.account("aws", {"access_key_id": key_id, "secret_access_key": secret}, amazon.url)
    requested, read = list[bool](), aws._instance

    def slow(item: Any, ns: str) -> Any:
        until = time.monotonic() + 5
        while not requested and not amazon.count("DescribeInstanceTypes") and time.monotonic() < until:
            time.sleep(0.01)
        requested.append(bool(amazon.count("DescribeInstanceTypes")))
        return read(item, ns)

    monkeypatch.setattr(aws, "_instance", slow)
    amazon.fleets["us-east-1"] = Fleet(5)
    answer = ours(app.deployment, "us-east-1")
    assert requested == [True] * 5
    assert all(server.memory_mib for server in answer.servers)
    assert amazon.count("DescribeInstanceTypes") == 1


@pytest.mark.slow
def test_the_same_regions_as_boto3(app: App, amazon: Aws) -> None:
    key_id, secret = next(iter(amazon.keys.items()))
    account = Account(tenant_id="1", party="aws", credentials={"access_key_id": key_id, "secret_access_key": secret},
                      endpoint=amazon.url)
    send = app.deployment.transport.sender(aws.PARTY, account, "us-east-1", time.monotonic() + 9)
    mine = {region.code: region.open for region in parties.list_regions(account, send)}
    assert mine == {r["RegionName"]: r["OptInStatus"] != "not-opted-in" for r in
                    boto(amazon).describe_regions(AllRegions=True)["Regions"]}


@pytest.mark.slow
def test_an_assumed_role(app: App, amazon: Aws) -> None:
    """AssumeRole with an external id, kept until shortly before its end; the service's own keys sign only that."""
    key_id, secret = next(iter(amazon.keys.items()))
    amazon.roles["arn:aws:iam::123456789012:role/reader"] = "shared-with-tenant"
    account = Account(tenant_id="1", party="aws", revision="r", endpoint=amazon.url,
                      identity=lambda: Keys(key_id, secret),
                      credentials={"role_arn": "arn:aws:iam::123456789012:role/reader",
                                   "external_id": "shared-with-tenant"})

    def listed() -> int:
        send = app.deployment.transport.sender(aws.PARTY, account, "us-east-1", time.monotonic() + 20)
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
    send = app.deployment.transport.sender(aws.PARTY, wrong, "us-east-1", time.monotonic() + 20)
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
    request = sign("ec2", "us-east-1", f"{amazon.url}/", b"Action=DescribeRegions&Version=2016-11-15",
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
    for call, parameters, code in (
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
            call(**parameters)
        assert refused.value.response["Error"]["Code"] == code
    with pytest.raises(ClientError) as refused:
        boto(amazon, region="ap-east-1").describe_instances()
    assert refused.value.response["Error"]["Code"] == "AuthFailure"


def test_the_hosts_are_botocores_in_every_region_of_every_partition() -> None:
    session = botocore.session.get_session()
    account = Account(tenant_id="1", party="aws", credentials={})

    def theirs(service: str, region: str) -> str:
        client = session.create_client(service, region_name=region, aws_access_key_id="a", aws_secret_access_key="b")
        return urlsplit(client.meta.endpoint_url).netloc

    ids = set()
    for partition in session.get_component("data_loader").load_data("endpoints")["partitions"]:
        for region in sorted(partition["regions"])[:4]:
            assert aws.PARTY.region(region) == region
            there = vendor.partition_of(region)
            assert there
            assert (there.id, there.suffix) == (partition["partition"], partition["dnsSuffix"])
            assert vendor.host_of("ec2", region, account, "x") == theirs("ec2", region)
            assert vendor.host_of("sts", region, account, "x") == theirs("sts", region)
            usual = aws.PARTY.home(account, region)
            assert usual in partition["regions"]
            assert vendor.host_of("organizations", usual, account, "x") == theirs("organizations", usual)
            ids.add(partition["partition"])
        for region in partition["regions"]:
            assert vendor.host_of("ec2", region, account, "x") == f"ec2.{region}.{partition['dnsSuffix']}"
    assert len(ids) >= 8


@pytest.mark.parametrize(("code", "message", "known"), [
    ("UnknownParameter", "The parameter IncludeManagedResources is not recognized", False),
    ("InvalidQueryParameter", "unknown", False),
    ("InvalidRequest", "IncludeManagedResources: unexpected keyword", False),
    ("InvalidParameterValue", "the parameter IncludeManagedResources is not supported", False),
    ("InvalidParameterValue", "another parameter is odd", True)])
def test_a_cloud_that_does_not_know_managed_resources_is_asked_without_them(code: str, message: str,
                                                                            known: bool) -> None:
    """Each list learns it by itself, both are made at the same time; later listings ask without at once."""
    calls: list[tuple[str, bool]] = []

    def send(operation: str, sign: Any) -> Response:
        managed = "IncludeManagedResources" in parse_qs(sign().body.decode())
        calls.append((operation, managed))
        if managed:
            response = Response(400, {}, f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message>"
                                         "</Error></Errors></Response>".encode())
            failure = failure_in(aws.PARTY, response)
            assert failure
            raise failure
        name = {"DescribeInstances": "reservationSet", "DescribeVolumes": "volumeSet"}[operation]
        return Response(200, {}, f"<{operation}Response><{name}/></{operation}Response>".encode())

    account = Account(tenant_id="1", party="aws", credentials={"access_key_id": "a", "secret_access_key": "b"})
    source = many_sources.source_of("1", "aws", "us-gov-west-1")
    if known:
        with pytest.raises(PartyMalformed):
            parties.list_servers(source, account, many_sources.Window(), send)
        return
    assert parties.list_servers(source, account, many_sources.Window(), send).total == 0
    assert len(calls) == 4
    calls.clear()
    assert parties.list_servers(source, account, many_sources.Window(), send).total == 0
    assert sorted(calls) == [("DescribeInstances", False), ("DescribeVolumes", False)]


def test_a_role_is_asked_in_its_own_partition_alone() -> None:
    account = Account(tenant_id="1", party="aws", identity=lambda: Keys("a", "b"),
                      credentials={"role_arn": "arn:aws-cn:iam::123456789012:role/reader"})
    assert aws.PARTY.home(account) == "cn-northwest-1"
    hosts = []

    def send(operation: str, sign: Any) -> Any:
        hosts.append(urlsplit(sign().url).netloc)
        raise PartyDenied()

    for region, refused in (("us-east-1", UnknownRegion), ("us-gov-west-1", UnknownRegion),
                            ("cn-north-1", PartyDenied)):
        with pytest.raises(refused):
            parties.list_servers(many_sources.source_of("1", "aws", region), account, many_sources.Window(), send)
    with pytest.raises(PartyDenied):
        parties.list_regions(account, send)
    assert hosts == ["sts.cn-north-1.amazonaws.com.cn", "sts.cn-northwest-1.amazonaws.com.cn"]


def test_botocore_signs_the_suites_get_vanilla() -> None:
    """https://docs.aws.amazon.com/general/latest/gr/signature-v4-test-suite.html"""
    with time_machine.travel("2015-08-30T12:36:00Z", tick=False):
        request = AWSRequest("GET", "http://example.amazonaws.com/")
        SigV4Auth(Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), "service",
                  "us-east-1").add_auth(request)
    assert request.headers["Authorization"].endswith(
        "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31")


# ---------------------------------------------------------------- an organisation

def test_boto3_and_we_find_the_same_members(stack: ExitStack) -> None:
    """Its paginators walk past the empty first page too."""
    behind = Organisation("aws", stack, more=70)
    org, sts = boto(behind.cloud, "organizations"), boto(behind.cloud, "sts")
    theirs = [row for page in org.get_paginator("list_accounts").paginate() for row in page["Accounts"]]
    mine = behind.discover()
    assert len(mine) == len(theirs) == 77
    assert {(member.id, member.name) for member in mine} == {(row["Id"], row["Name"]) for row in theirs}
    assert {member.id for member in mine if not member.closed} == {
        row["Id"] for row in theirs if row["State"] == "ACTIVE"}
    assert [member.id for member in mine if member.door] == [sts.get_caller_identity()["Account"]]
    units = [unit["Id"] for page in org.get_paginator("list_organizational_units_for_parent").paginate(
        ParentId=behind.cloud.units[""]) for unit in page["OrganizationalUnits"]]
    assert set(units) == {behind.cloud.units["products"], behind.cloud.units["attic"]}
    below = [row["Id"] for page in org.get_paginator("list_accounts_for_parent").paginate(
        ParentId=behind.cloud.units["attic"]) for row in page["Accounts"]]
    assert [member.id for member in behind.discover(below=behind.cloud.units["attic"])] == sorted(below)


def test_the_simulated_organisation_refuses_as_the_real_one_does(stack: ExitStack) -> None:
    behind = Organisation("aws", stack, more=30)
    org, sts = boto(behind.cloud, "organizations"), boto(behind.cloud, "sts")
    role = f"arn:aws:iam::{behind.cloud.ids['locked']}:role/OrganizationAccountAccessRole"
    token = org.list_accounts(MaxResults=20)["NextToken"]
    for call, parameters, code in (
        (org.list_accounts, {"MaxResults": 20, "NextToken": "made-up"}, "InvalidInputException"),
        (org.list_accounts_for_parent, {"ParentId": "r-zz99"}, "ParentNotFoundException"),
        (org.list_accounts_for_parent, {"ParentId": behind.cloud.units["attic"], "NextToken": token},
         "InvalidInputException"),
        (sts.assume_role, {"RoleArn": role, "RoleSessionName": "boto3"}, "AccessDenied"),
        (boto(behind.cloud, "organizations", "eu-west-1").list_accounts, {}, "InvalidSignatureException"),
        (boto(stack.enter_context(Aws(behind.cloud.keys, {})), "organizations").list_accounts, {},      # type: ignore
         "AWSOrganizationsNotInUseException"),
    ):
        with pytest.raises(ClientError) as refused:
            call(**parameters)
        assert refused.value.response["Error"]["Code"] == code, parameters
    member = sts.assume_role(RoleArn=role.replace(behind.cloud.ids["locked"], behind.cloud.ids["top"]),
                             RoleSessionName="boto3")["Credentials"]
    with pytest.raises(ClientError, match="AccessDeniedException"):
        boto3.client("organizations", endpoint_url=behind.cloud.url, region_name="us-east-1",
                     aws_access_key_id=member["AccessKeyId"], aws_secret_access_key=member["SecretAccessKey"],
                     aws_session_token=member["SessionToken"]).list_accounts()


def test_a_door_that_is_a_role_itself(stack: ExitStack) -> None:
    """The session at the door may list and open members, its members' sessions may not; each is made once."""
    behind = Organisation("aws", stack)
    door: Any = behind.cloud
    own = f"arn:aws:iam::{door.ids['door']}:role/door"
    door.roles[own] = door.role_external_id = "shared"
    service = Keys(*next(iter(door.keys.items())))
    behind.account = replace(behind.account, identity=lambda: service,
                             credentials={"role_arn": own, "external_id": "shared"})
    assert {member.name for member in behind.discover() if member.door} == {"door"}
    for _ in range(2):
        assert behind.servers(behind.named("payments")).total == 5
        assert behind.servers(behind.named("door")).total == 4
    policies = [json.loads(parse_qs(call.body.decode())["Policy"][0]) for call in door.calls
                if call.operation == "AssumeRole"]
    words = [{word for statement in policy["Statement"] for word in statement["Action"]} for policy in policies]
    assert words == [{*aws.PARTY.permissions, *aws.PARTY.discover_permissions}, {*aws.PARTY.permissions}]
    with time_machine.travel(time.time() + 3600 - 59):
        assert behind.servers(behind.named("payments")).total == 5
    assert door.count("AssumeRole") == 4


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


def test_motos_ec2(app: App, moto_url: str) -> None:
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
    app.account("aws", {"access_key_id": "AKIA", "secret_access_key": "s"}, moto_url)
    answer = ours(app.deployment, "us-east-1")
    theirs = reference.machines(ec2)
    assert len(theirs) == 27
    assert answer.total == 27
    assert_same(answer.servers, theirs)
    assert {s.status.value for s in answer.servers} == {"ACTIVE", "SHUTOFF"}
    assert ours(app.deployment, "us-east-1", window=many_sources.Window(5, 9)).servers == answer.servers[4:9]


@pytest.mark.slow
def test_motos_organisation(moto_url: str, stack: ExitStack) -> None:
    """Moto's Organizations, STS and EC2: the members that boto3 lists, and behind each role that account's own servers.

    Differs from AWS: a role that does not exist can be assumed."""
    requests.post(f"{moto_url}/moto-api/reset", timeout=9)

    def client(service: str, **keys: Any) -> Any:
        return boto3.client(service, endpoint_url=moto_url, region_name="us-east-1",
                            **keys or {"aws_access_key_id": "AKIA", "aws_secret_access_key": "s"})

    org = client("organizations")
    org.create_organization(FeatureSet="ALL")
    ids = [org.create_account(AccountName=f"a-{n}", Email=f"{n}@example.com")["CreateAccountStatus"]["AccountId"]
           for n in range(24)]
    root = org.list_roots()["Roots"][0]["Id"]
    unit = org.create_organizational_unit(ParentId=root, Name="unit")["OrganizationalUnit"]["Id"]
    inner = org.create_organizational_unit(ParentId=unit, Name="inner")["OrganizationalUnit"]["Id"]
    for key, place in ((ids[0], unit), (ids[1], inner)):
        org.move_account(AccountId=key, SourceParentId=root, DestinationParentId=place)
    org.close_account(AccountId=ids[2])
    views: dict[str, Any] = {}
    for number, key in enumerate(ids[:2], 1):
        made = client("sts").assume_role(RoleArn=f"arn:aws:iam::{key}:role/reader",
                                         RoleSessionName="boto3")["Credentials"]
        ec2 = client("ec2", aws_access_key_id=made["AccessKeyId"], aws_secret_access_key=made["SecretAccessKey"],
                     aws_session_token=made["SessionToken"])
        ec2.run_instances(ImageId=ec2.describe_images()["Images"][0]["ImageId"], InstanceType="t3.micro",
                          MinCount=number, MaxCount=number)
        views[key] = reference.machines(ec2)
    behind = Organisation("aws", stack)
    behind.account = replace(behind.account, endpoint=moto_url,
                             credentials={"access_key_id": "AKIA", "secret_access_key": "s", "external_id": "shared"})
    theirs = [row for page in org.get_paginator("list_accounts").paginate() for row in page["Accounts"]]
    mine = behind.discover(role="reader")
    assert [member.id for member in mine] == sorted(row["Id"] for row in theirs)
    assert len(mine) == 25
    assert [member.name for member in mine if member.closed] == ["a-2"]
    assert [member.id for member in mine if member.door] == ["123456789012"]
    assert [member.id for member in behind.discover(below=unit)] == sorted(ids[:2])
    for key, view in views.items():
        assert_same(behind.servers(next(member for member in mine if member.id == key)).servers, view)
    assert [len(view) for view in views.values()] == [1, 2]
    assert behind.servers(next(member for member in mine if member.door)).total == 0
