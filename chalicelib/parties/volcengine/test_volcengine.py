"""Judges of Volcano Engine: the vendor's signer with published keys, its SDK's client, models and hosts."""

import json
import time
from contextlib import ExitStack
from typing import Any

import pytest
import requests
import time_machine

from chalicelib import parties
from tests import canaries
from tests.fixtures import App
from tests.unit.test_parties import WHAT
from tests.verified import account, assert_same, lister, reference

from ...errors import PartyDenied, UnknownRegion
from ...fleet import check, many_sources
from ...model import Account, Keys, Source, Window
from ...simulators.fleet import Fleet
from .. import volcengine
from .simulator import PROJECT, Volcengine, second_address

core = pytest.importorskip("volcenginesdkcore")
ecs = pytest.importorskip("volcenginesdkecs")
ebs = pytest.importorskip("volcenginesdkstorageebs")
from volcenginesdkcore.auth.providers.sts_provider import StsCredentialProvider  # noqa: E402
from volcenginesdkcore.endpoint.providers.standard_provider import StandardEndpointResolver  # noqa: E402
from volcenginesdkcore.signv4 import SignerV4  # noqa: E402

REGION = "cn-beijing"
ROLE = "trn:iam::2100000000:role/reader"


def api(url: str, credentials: Any, region: str, of: Any) -> Any:
    return reference("volcengine").client(account("volcengine", url, credentials), region, of)


machines = lister("volcengine")


@pytest.fixture
def keys() -> dict[str, str]:
    return {"access_key_id": "AKLTtest", "secret_access_key": canaries.secret("volcengine")}


@pytest.fixture
def cloud(stack: ExitStack, keys: dict[str, str]) -> Volcengine:
    return stack.enter_context(Volcengine({keys["access_key_id"]: keys["secret_access_key"]}, {REGION: Fleet(237)},
                                          limited=False))


def listing(app: App, window: Window = many_sources.WHOLE, region: str = REGION) -> many_sources.Answer:
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "volcengine", region), window)


# ---------------------------------------------------------------- signatures

@pytest.mark.parametrize(("token", "signature"), [
    (None, "4ee189effa2d24c255db8098106ad2f293d1732689c5cdc25088db9cca5ce065"),
    ("TOKEN", "497a155124a04ed6ee8bb8ac9764be3b879092e1e7cb7fd427e85371c05f09c4")])
def test_signatures_of_volcenginesdk_core(token: str | None, signature: str) -> None:
    """Made with volcenginesdk-core 5.0.54."""
    request = volcengine.sign("ecs", "DescribeInstances", REGION, "https://ecs.cn-beijing.volcengineapi.com/",
                              {"MaxResults": "100"},
                              Keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token), 1767323045)
    assert request.headers["x-date"] == "20260102T030405Z"
    assert request.headers["authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize("token", [None, "session/+token=="])
def test_the_sdk_signs_as_we_do(token: str | None) -> None:
    fields = {"MaxResults": "100", "NextToken": "a+b/c=", "ProjectName": "web *~'%é 中"}
    with time_machine.travel(1_790_000_000, tick=False):
        mine = volcengine.sign("storage_ebs", "DescribeVolumes", REGION,
                               "https://storage-ebs.cn-beijing.volcengineapi.com/",
                               fields, Keys("AKLTtest", "plain example", token), time.time())
        theirs = {"Host": "storage-ebs.cn-beijing.volcengineapi.com"}
        SignerV4.sign("/", "GET", theirs, "", None, {"Action": "DescribeVolumes", "Version": "2020-04-01", **fields},
                      "AKLTtest", "plain example", REGION, "storage_ebs", token)
    assert {name.lower(): value for name, value in theirs.items()} == dict(mine.headers)


@pytest.mark.parametrize(("change", "code"), [
    ({"authorization": lambda v: v[:-1] + ("0" if v[-1] != "0" else "1")}, "SignatureDoesNotMatch"),
    ({"authorization": lambda v: v.replace("AKLTtest", "AKLTother")}, "InvalidAccessKey"),
    ({"authorization": lambda v: v.replace("cn-beijing", "cn-shanghai")}, "SignatureDoesNotMatch"),
    ({"authorization": lambda v: "Basic x"}, "MissingAuthenticationToken"),
    ({"host": lambda v: "open.volcengineapi.com"}, "SignatureDoesNotMatch"),
    ({"x-date": lambda v: v[:-2] + ("0Z" if v[-2] != "0" else "1Z")}, "SignatureDoesNotMatch"),
    ({"x-date": lambda v: "20200101T000000Z"}, "InvalidTimestamp"),
    ({"x-content-sha256": lambda v: v[::-1]}, "SignatureDoesNotMatch"),
    ("query", "SignatureDoesNotMatch"), ("body", "SignatureDoesNotMatch"), ({}, None)])
def test_the_simulator_refuses_a_changed_byte(cloud: Volcengine, keys: dict[str, str], change: Any,
                                             code: str | None) -> None:
    request = volcengine.sign("ecs", "DescribeInstances", REGION, f"{cloud.url}/", {"MaxResults": "5"},
                              Keys(*keys.values()), time.time())
    headers, url, body = dict(request.headers), request.url, b""
    if change == "query":
        url = url.replace("MaxResults=5", "MaxResults=6")
    elif change == "body":
        body = b"x"
    else:
        headers |= {name: how(headers[name]) for name, how in change.items()}
    answer = requests.get(url, data=body, headers=headers, timeout=9).json()["ResponseMetadata"]
    assert answer.get("Error", {}).get("Code") == code


# ---------------------------------------------------------------- the SDK's client and models

def test_the_sdk_and_we_list_the_same_machines(app: App, cloud: Volcengine, keys: dict[str, str]) -> None:
    app.account("volcengine", keys, cloud.url)
    theirs = machines(cloud.url, keys, REGION)
    for short in (False, True):
        cloud.short = short
        servers = listing(app).servers
        assert len(servers) == 237
        assert_same(servers, theirs)
    cloud.short = False
    cloud.forget()
    listing(app)
    assert (cloud.count("DescribeInstances"), cloud.count("DescribeVolumes")) == (3, 4)
    for window, calls in ((Window(1, 10), 1), (Window(101, 110), 2), (Window(231, 237), 3)):
        cloud.forget()
        answer = listing(app, window)
        assert answer.servers == servers[window.first - 1:window.last]
        assert answer.total == (237 if window.last == 237 else None)
        assert (cloud.count("DescribeInstances"), cloud.count("DescribeVolumes")) == (calls, 1), window


def test_deep_shows_every_address_of_every_interface(app: App, cloud: Volcengine, keys: dict[str, str]) -> None:
    plain = {key: row["lan_ipv4"] for key, row in machines(cloud.url, keys, REGION).items()}
    app.account("volcengine", keys, cloud.url, deep=True)
    servers = listing(app).servers
    assert len(servers) == 237
    machines_there = [cloud.fleets[REGION][number] for number in range(237)]
    second = {f"i-{machine.key}": second_address(machine) for machine in machines_there}
    assert {server.id: set(server.lan_ipv4) for server in servers} == {
        key: {*known, second[key]} for key, known in plain.items()}
    cloud.forget()
    assert listing(app, Window(11, 20)).servers == servers[10:20]
    assert cloud.count("DescribeNetworkInterfaces") == 1
    assert check.check_account(app.deployment, "123", "volcengine", REGION)
    cloud.denied = {"DescribeNetworkInterfaces"}
    with pytest.raises(PartyDenied):
        listing(app)
    with pytest.raises(PartyDenied):
        check.check_account(app.deployment, "123", "volcengine", REGION)


def test_the_sdk_filters_a_project_as_we_do(app: App, cloud: Volcengine, keys: dict[str, str]) -> None:
    theirs = {key for key, row in machines(cloud.url, keys, REGION).items() if row["project_id"] == PROJECT}
    app.account("volcengine", keys, cloud.url, project=PROJECT)
    assert {server.id for server in listing(app).servers} == theirs
    assert 0 < len(theirs) < 237


def test_the_sdks_models_know_every_field(cloud: Volcengine, keys: dict[str, str]) -> None:
    """Every name in the fixtures' and the simulator's answers is one of the SDK's models; those of VPC are a package of
    their own, which the tests do not install."""
    shapes = {"DescribeInstances": ecs.DescribeInstancesResponse, "DescribeVolumes": ebs.DescribeVolumesResponse,
              "DescribeRegions": ecs.DescribeRegionsResponse}
    count = 0

    def check(answer: Any, kind: str) -> None:
        nonlocal count
        count += 1
        if kind.startswith("list["):
            for one in answer:
                check(one, kind[5:-1])
        elif hasattr(ecs, kind) or hasattr(ebs, kind):
            model = getattr(ecs, kind, None) or getattr(ebs, kind)
            kinds = {name: model.swagger_types[field] for field, name in model.attribute_map.items()}
            assert answer.keys() <= kinds.keys(), kind
            for name, value in answer.items():
                if value is not None:
                    check(value, kinds[name])

    for case in WHAT["volcengine"]["cases"]:
        for exchange in case["exchanges"]:
            body = exchange["answer"].get("json", {}).get("Result")
            if body and exchange["operation"] in shapes and not case["name"].startswith(("unknown shape", "odd value")):
                check(body, shapes[exchange["operation"]].__name__)
    for operation, service in (("DescribeInstances", "ecs"), ("DescribeVolumes", "storage_ebs"),
                               ("DescribeRegions", "ecs")):
        request = volcengine.sign(service, operation, REGION, f"{cloud.url}/", {}, Keys(*keys.values()), time.time())
        body = requests.get(request.url, headers=request.headers, timeout=9).json()["Result"]
        check(body, shapes[operation].__name__)
    assert count > 800


# ---------------------------------------------------------------- keys of every kind, regions, hosts

def test_temporary_keys_and_an_assumed_role(app: App, cloud: Volcengine, keys: dict[str, str]) -> None:
    cloud.tokens[keys["access_key_id"]] = token = canaries.secret("token")
    app.account("volcengine", {**keys, "session_token": token}, cloud.url)
    assert listing(app).total == len(machines(cloud.url, {**keys, "session_token": token}, REGION)) == 237
    app.account("volcengine", keys, cloud.url)
    with pytest.raises(PartyDenied):
        listing(app)
    cloud.tokens.clear()
    app.account("volcengine", {**keys, "role_trn": ROLE}, cloud.url)
    with pytest.raises(PartyDenied):
        listing(app)
    cloud.roles = (ROLE,)
    cloud.forget()
    assert listing(app).total == listing(app).total == 237
    assert cloud.count("AssumeRole") == 1
    mine = next(call.query for call in cloud.calls if call.operation == "AssumeRole")
    cloud.tokens.popitem()                  # the party forgets the keys that it gave: they are asked for again, once
    assert listing(app).total == 237
    assert cloud.count("AssumeRole") == 2
    provider = StsCredentialProvider(keys["access_key_id"], keys["secret_access_key"], "reader", "2100000000",
                                     scheme="http", host=cloud.url.removeprefix("http://"), policy="x")
    assert provider.get_credentials().session_token in cloud.tokens.values()
    theirs = next(call.query for call in reversed(cloud.calls) if call.operation == "AssumeRole")
    assert names(theirs) == names(mine)     # the SDK asks with the same words


def names(query: str) -> set[str]:
    return {part.partition("=")[0] for part in query.split("&")}


def test_keys_without_the_right(app: App, cloud: Volcengine, keys: dict[str, str]) -> None:
    app.account("volcengine", keys, cloud.url)
    for action in ("DescribeInstances", "DescribeVolumes"):
        cloud.denied = {action}
        with pytest.raises(PartyDenied, match="AccessDenied"):
            listing(app)
        with pytest.raises(PartyDenied):
            check.check_account(app.deployment, "123", "volcengine", REGION)
    cloud.denied = set()
    assert check.check_account(app.deployment, "123", "volcengine", REGION)


def test_regions(app: App, cloud: Volcengine, keys: dict[str, str]) -> None:
    app.account("volcengine", keys, cloud.url)
    assert listing(app, region="cn-shanghai").total == 0
    with pytest.raises(UnknownRegion):
        listing(app, region="cn-nowhere")
    account = Account(tenant_id="1", party="volcengine", credentials=keys, endpoint=cloud.url)
    send = app.deployment.transport.sender(volcengine.PARTY, account, REGION, time.monotonic() + 9)
    theirs = api(cloud.url, keys, REGION, ecs.ECSApi).describe_regions(ecs.DescribeRegionsRequest()).regions
    assert [region.code for region in parties.list_regions(account, send)] == [r.region_id for r in theirs]


@pytest.mark.parametrize("region", ["cn-beijing", "cn-shanghai", "cn-hongkong", "ap-southeast-1", "ap-southeast-3"])
def test_the_sdk_calls_the_same_hosts(region: str) -> None:
    hosts: set[str] = set()

    def send(operation: str, sign: Any) -> Any:
        hosts.add(sign().headers["host"])
        raise PartyDenied()

    account = Account(tenant_id="1", party="volcengine", credentials={"access_key_id": "x", "secret_access_key": "y"})
    with pytest.raises(PartyDenied):
        parties.check(Source("1", "volcengine", region), account, send)
    theirs = {StandardEndpointResolver().endpoint_for(service, region).host for service in ("ecs", "storage_ebs")}
    assert hosts
    assert hosts <= theirs
    assert len(theirs) == 2


def test_the_simulator_keeps_the_documented_limits(cloud: Volcengine, keys: dict[str, str]) -> None:
    client, disks = (api(cloud.url, keys, REGION, of) for of in (ecs.ECSApi, ebs.STORAGEEBSApi))
    assert len(client.describe_instances(ecs.DescribeInstancesRequest()).instances) == 10
    assert len(disks.describe_volumes(ebs.DescribeVolumesRequest()).volumes) == 15
    with pytest.raises(ValueError, match="100"):            # the SDK itself refuses a larger page
        ebs.DescribeVolumesRequest(page_size=101)
    for call, request, code in ((client.describe_instances, ecs.DescribeInstancesRequest(max_results=101),
                                 "InvalidParameter"),
                                (client.describe_instances, ecs.DescribeInstancesRequest(next_token="x"),
                                 "InvalidNextToken"),
                                (disks.describe_volumes, ebs.DescribeVolumesRequest(
                                    volume_ids=[f"vol-{n}" for n in range(101)]), "InvalidParameter")):
        with pytest.raises(Exception, match=code) as refused:
            call(request)
        assert json.loads(refused.value.body)["ResponseMetadata"]["Error"]["Code"].startswith(code)
