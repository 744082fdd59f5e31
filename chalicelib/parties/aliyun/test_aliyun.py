"""Judges of Alibaba Cloud: the vendor's published signature, its SDK's signer, client and models."""

import json
import time
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from chalicelib import parties
from tests import canaries
from tests.fixtures import App
from tests.unit.test_discovery import Organisation
from tests.unit.test_parties import WHAT
from tests.verified import account, assert_same, lister, reference

from ...cloud.alibaba import sign
from ...errors import PartyDenied, UnknownRegion
from ...fleet import check, many_sources
from ...model import Account, Keys, Source, Window
from ...simulators.fleet import Fleet
from .. import aliyun
from .simulator import GROUP, Aliyun

sdk_client = pytest.importorskip("alibabacloud_ecs20140526.client")
from alibabacloud_ecs20140526 import models as sdk_models  # noqa: E402
from alibabacloud_tea_openapi import utils_models as sdk_config  # noqa: E402
from alibabacloud_tea_openapi.utils import Utils as SdkUtils  # noqa: E402
from darabonba.request import DaraRequest  # noqa: E402
from darabonba.runtime import RuntimeOptions  # noqa: E402

REGION = "cn-hangzhou"


def client(url: str, credentials: Any, region: str = REGION) -> Any:
    return reference("aliyun").client(account("aliyun", url, credentials), region)


machines = lister("aliyun")


@pytest.fixture
def keys() -> dict[str, str]:
    return {"access_key_id": "LTAItest", "access_key_secret": canaries.secret("aliyun")}


@pytest.fixture
def cloud(stack: ExitStack, keys: dict[str, str]) -> Aliyun:
    return stack.enter_context(Aliyun({keys["access_key_id"]: keys["access_key_secret"]}, {REGION: Fleet(400)},
                                      attached=True, limited=False))


def listing(app: App, window: Window = many_sources.WHOLE, region: str = REGION) -> many_sources.Answer:
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "aliyun", region), window)


# ---------------------------------------------------------------- signatures

def test_the_signature_of_the_vendors_own_document() -> None:
    """https://help.aliyun.com/zh/sdk/product-overview/v3-request-structure-and-signature"""
    request = sign(
        "RunInstances", "2014-05-26", "https://ecs.cn-shanghai.aliyuncs.com/",
        {"RegionId": "cn-shanghai", "ImageId": "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd"},
        Keys("YourAccessKeyId", "YourAccessKeySecret"), 1698315752, "3156853299f313e23d1673dc12e1703d")
    assert request.headers["x-acs-date"] == "2023-10-26T10:22:32Z"
    assert request.headers["authorization"] == (
        "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;"
        "x-acs-signature-nonce;x-acs-version,"
        "Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0")


@pytest.mark.parametrize("token", [None, "session/+ token"])
def test_the_sdk_signs_as_we_do(token: str | None) -> None:
    parameters = {"RegionId": REGION, "NextToken": "a+b/c=", "InstanceName": "web *~'\"%é 中", "PageSize": "100"}
    mine = sign("DescribeInstances", "2014-05-26", "https://ecs-cn-hangzhou.aliyuncs.com/", parameters,
                       Keys("LTAItest", "plain example", token), time.time(), "0123")
    theirs = DaraRequest()
    theirs.method, theirs.pathname, theirs.query = "POST", "/", dict(parameters)
    theirs.headers = {k: v for k, v in mine.headers.items() if k not in ("authorization", "accept")}
    assert mine.headers["authorization"] == SdkUtils.get_authorization(
        theirs, "ACS3-HMAC-SHA256", SdkUtils.hash(b"", "ACS3-HMAC-SHA256").hex(), "LTAItest", "plain example")
    assert "LTAItest" not in mine.url
    assert "Signature" not in mine.url


@pytest.mark.parametrize(("change", "code"), [
    ({"authorization": lambda v: v[:-1] + ("0" if v[-1] != "0" else "1")}, "SignatureDoesNotMatch"),
    ({"authorization": lambda v: v.replace("LTAItest", "LTAIother")}, "InvalidAccessKeyId.NotFound"),
    ({"authorization": lambda v: "Basic x"}, "IncompleteSignature"),
    ({"host": lambda v: "ecs.aliyuncs.com"}, "SignatureDoesNotMatch"),
    ({"x-acs-action": lambda v: "DescribeDisks"}, "SignatureDoesNotMatch"),
    ({"x-acs-signature-nonce": lambda v: v + "0"}, "SignatureDoesNotMatch"),
    ({"x-acs-date": lambda v: v[:-2] + ("0Z" if v[-2] != "0" else "1Z")}, "SignatureDoesNotMatch"),
    ({"x-acs-date": lambda v: "2020-01-01T00:00:00Z"}, "InvalidTimeStamp.Expired"),
    ("query", "SignatureDoesNotMatch"), ("body", "IncompleteSignature"), ("twice", "SignatureNonceUsed"), ({}, None)])
def test_the_simulator_refuses_a_changed_byte(cloud: Aliyun, keys: dict[str, str], change: Any,
                                             code: str | None) -> None:
    request = sign("DescribeInstances", "2014-05-26", f"{cloud.url}/", {"RegionId": REGION, "PageSize": "5"},
                          Keys(*keys.values()), time.time(), "0123")
    headers, url, body = dict(request.headers), request.url, b""
    if change == "query":
        url = url.replace("PageSize=5", "PageSize=6")
    elif change == "body":
        body = b"x"
    elif change == "twice":
        requests.post(url, headers=headers, timeout=9)
    else:
        headers |= {name: how(headers[name]) for name, how in change.items()}
    assert requests.post(url, data=body, headers=headers, timeout=9).json().get("Code") == code


# ---------------------------------------------------------------- the SDK's client and models

def test_the_sdk_and_we_list_the_same_machines(app: App, cloud: Aliyun, keys: dict[str, str]) -> None:
    app.account("aliyun", keys, cloud.url)
    theirs = machines(cloud.url, keys, REGION)
    cloud.forget()
    servers = listing(app).servers
    assert len(servers) == 400
    assert_same(servers, theirs)
    # a first listing reads one page more
    assert (cloud.count("DescribeInstances"), cloud.count("DescribeDisks")) == (5, 2)
    for window, disks in ((Window(1, 1), 1), (Window(101, 102), 2), (Window(11, 20), 2), (Window(391, 400), 2)):
        cloud.forget()
        assert listing(app, window).servers == servers[window.first - 1:window.last]
        assert (cloud.count("DescribeInstances"), cloud.count("DescribeDisks")) == (1, disks), window


def test_deep_shows_the_elastic_addresses_of_every_interface(app: App, cloud: Aliyun, keys: dict[str, str]) -> None:
    app.account("aliyun", keys, cloud.url, deep=True)
    by_id = {server.id: server for server in listing(app).servers}
    body = client(cloud.url, keys).describe_network_interfaces(sdk_models.DescribeNetworkInterfacesRequest(
        region_id=REGION, max_results=500)).body
    theirs: dict[str, set[str]] = {}
    for interface in body.network_interface_sets.network_interface_set:
        theirs.setdefault(interface.instance_id, set()).update(
            ip.associated_public_ip.public_ip_address for ip in interface.private_ip_sets.private_ip_set)
    plain = {key: row["wan_ipv4"] for key, row in machines(cloud.url, keys, REGION).items()}
    assert len(theirs) == 134
    assert {key: set(server.wan_ipv4) for key, server in by_id.items()} == {
        key: known | theirs.get(key, set()) for key, known in plain.items()}


def test_a_resource_group_is_filtered_as_the_rows_say(app: App, cloud: Aliyun, keys: dict[str, str]) -> None:
    theirs = {key for key, row in machines(cloud.url, keys, REGION).items() if row["project_id"] == GROUP}
    app.account("aliyun", keys, cloud.url, project=GROUP)
    assert {server.id for server in listing(app).servers} == theirs
    assert 0 < len(theirs) < 400
    assert listing(app, Window(3, 5)).total == len(theirs)


def test_the_sdks_models_know_every_field_of_our_fixtures(cloud: Aliyun, keys: dict[str, str]) -> None:
    """What the SDK reads and writes again is what was said, but for nulls, which it leaves out."""
    shapes = {"DescribeInstances": sdk_models.DescribeInstancesResponseBody,
              "DescribeDisks": sdk_models.DescribeDisksResponseBody,
              "DescribeNetworkInterfaces": sdk_models.DescribeNetworkInterfacesResponseBody}
    count = 0
    for case in WHAT["aliyun"]["cases"]:
        # it makes empty lists of null ones
        if case["name"].startswith(("unknown shape", "odd value")) or "null" in case["name"]:
            continue
        for exchange in case["exchanges"]:
            if exchange["operation"] == "AssumeRole":           # its models are in another package
                continue
            body = exchange["answer"].get("json", {"Code": "x"})
            if "Code" not in body:
                body = without_nulls(body)
                assert shapes[exchange["operation"]]().from_map(json.loads(json.dumps(body))).to_map() == body
                count += 1
    assert count > 80
    for operation in shapes:
        request = sign(operation, "2014-05-26", f"{cloud.url}/", {"RegionId": REGION, "MaxResults": "100"},
                              Keys(*keys.values()), time.time(), operation)
        body = requests.post(request.url, headers=request.headers, timeout=9).json()
        assert shapes[operation]().from_map(json.loads(json.dumps(body))).to_map() == body


def without_nulls(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {name: without_nulls(value) for name, value in answer.items() if value is not None}
    return [without_nulls(one) for one in answer] if isinstance(answer, list) else answer


# ---------------------------------------------------------------- keys of every kind

def test_keys_without_the_right_are_found_out(app: App, cloud: Aliyun, keys: dict[str, str]) -> None:
    """With an error, as the cloud answers today, and with an empty list, as it did until 2025."""
    app.account("aliyun", keys, cloud.url)
    for silent in (False, True):
        for action in ("DescribeInstances", "DescribeDisks"):
            cloud.silent, cloud.denied = silent, {action}
            for window in (many_sources.WHOLE, Window(1, 3)):
                with pytest.raises(PartyDenied, match=r"Forbidden\.RAM"):
                    listing(app, window)
            with pytest.raises(PartyDenied):
                check.check_account(app.deployment, "123", "aliyun", REGION)
    cloud.denied = set()
    cloud.fleets = {}
    assert listing(app).servers == []
    assert check.check_account(app.deployment, "123", "aliyun", REGION)


def test_temporary_keys_and_an_assumed_role(app: App, cloud: Aliyun, keys: dict[str, str]) -> None:
    cloud.tokens[keys["access_key_id"]] = token = canaries.secret("token")
    app.account("aliyun", {**keys, "security_token": token}, cloud.url)
    assert listing(app).total == len(machines(cloud.url, {**keys, "security_token": token}, REGION)) == 400
    app.account("aliyun", keys, cloud.url)
    with pytest.raises(PartyDenied):
        listing(app)
    cloud.tokens.clear()
    cloud.roles = {"acs:ram::1234567890123456:role/reader": "abc"}
    role = {**keys, "role_arn": "acs:ram::1234567890123456:role/reader"}
    app.account("aliyun", role, cloud.url)
    with pytest.raises(PartyDenied):
        listing(app)
    app.account("aliyun", {**role, "external_id": "abc"}, cloud.url)
    cloud.forget()
    assert listing(app).total == listing(app).total == 400
    assert cloud.count("AssumeRole") == 1
    policy = json.loads(next(requests.utils.unquote(part.partition("=")[2]) for call in cloud.calls
                             for part in call.query.split("&") if part.startswith("Policy=")))
    assert all(action.startswith("ecs:Describe") for action in policy["Statement"][0]["Action"])


def test_regions(app: App, cloud: Aliyun, keys: dict[str, str]) -> None:
    app.account("aliyun", keys, cloud.url)
    with pytest.raises(UnknownRegion):
        listing(app, region="cn-nowhere")
    account = Account(tenant_id="1", party="aliyun", credentials=keys, endpoint=cloud.url)
    send = app.deployment.transport.sender(aliyun.PARTY, account, REGION, time.monotonic() + 9)
    theirs = client(cloud.url, keys).describe_regions(sdk_models.DescribeRegionsRequest()).body
    assert [r.code for r in parties.list_regions(account, send)] == [r.region_id for r in theirs.regions.region]


@pytest.mark.parametrize("region", ["cn-hangzhou", "cn-beijing", "cn-north-2-gov-1", "cn-shenzhen-finance-1",
                                    "ap-southeast-1",
                                    "cn-zhangjiakou", "cn-hangzhou-finance", "cn-shanghai-finance-1", "me-central-1"])
def test_the_sdk_calls_the_same_host(region: str) -> None:
    hosts: list[str] = []

    def send(operation: str, sign: Any) -> Any:
        hosts.append(sign().headers["host"])
        raise PartyDenied()

    account = Account(tenant_id="1", party="aliyun", credentials={"access_key_id": "x", "access_key_secret": "y"})
    with pytest.raises(PartyDenied):
        parties.check(Source("1", "aliyun", region), account, send)
    theirs = sdk_client.Client(sdk_config.Config(access_key_id="x", access_key_secret="y", region_id=region))
    assert set(hosts) == {theirs._endpoint}


def test_the_simulator_keeps_the_documented_limits(cloud: Aliyun, keys: dict[str, str]) -> None:
    ecs = client(cloud.url, keys)
    default = ecs.describe_instances(sdk_models.DescribeInstancesRequest(region_id=REGION)).body
    assert len(default.instances.instance) == 10
    assert default.total_count == 400
    walk = ecs.describe_instances(sdk_models.DescribeInstancesRequest(region_id=REGION, max_results=5)).body
    assert len(walk.instances.instance) == 10
    assert walk.total_count == 0
    for fields, code in (({"page_size": 101}, "InvalidParameter.PageSize"),
                         ({"page_number": 0}, "InvalidParameter.PageNumber"),
                         ({"next_token": "x"}, "InvalidParameter.NextToken"), ({"dry_run": True}, "DryRunOperation"),
                         ({"region_id": "mars"}, "InvalidRegionId.NotFound"), ({"region_id": ""}, "MissingParameter")):
        with pytest.raises(Exception, match=code):
            ecs.describe_instances(sdk_models.DescribeInstancesRequest(**{"region_id": REGION, **fields}))


def test_the_sdks_client_finds_the_same_members(stack: ExitStack) -> None:
    """Its signer and its reading; the directory's own package is not needed for an RPC call."""
    behind = Organisation("aliyun", stack, more=130)

    def call(action: str, version: str, **query: str) -> Any:
        params = sdk_config.Params(action=action, version=version, protocol="HTTP", pathname="/", method="POST",
                                   auth_type="AK", style="RPC", req_body_type="formData", body_type="json")
        return client(behind.cloud.url, behind.account.credentials).call_api(
            params, sdk_config.OpenApiRequest(query=query), RuntimeOptions())["body"]

    pages = [call("ListAccounts", "2022-04-19", PageSize="100", PageNumber=number) for number in "12"]
    rows = [row for page in pages for row in page["Accounts"]["Account"]]
    assert len(rows) == pages[0]["TotalCount"] == 136
    own = call("GetCallerIdentity", "2015-04-01")["AccountId"]
    members = behind.discover()
    assert {(member.id, member.name) for member in members if not member.door} == {
        (row["AccountId"], row["DisplayName"]) for row in rows}
    assert [member.id for member in members if member.door] == [own]
    role = f"acs:ram::{behind.cloud.ids['top']}:role/ResourceDirectoryAccountAccessRole"
    assert call("AssumeRole", "2015-04-01", RoleArn=role, RoleSessionName="sdk")["Credentials"]["SecurityToken"]
    with pytest.raises(Exception, match="NoPermission"):
        call("AssumeRole", "2015-04-01", RoleArn=role.replace(behind.cloud.ids["top"], behind.cloud.ids["locked"]),
             RoleSessionName="sdk")
