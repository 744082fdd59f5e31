"""Kingsoft Cloud: the signer that its SDK uses, and the SDK as second reader of the simulator."""

import time
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
import time_machine

pytest.importorskip("ksyun")

from ksyun.client.eip.v20160304 import models as eip_models
from ksyun.client.kec.v20160304 import client as kec_client
from ksyun.client.kec.v20160304 import models as kec_models
from ksyun.common.exception.ksyun_sdk_exception import KsyunSDKException
from requests_aws4auth import AWS4Auth

from chalicelib import parties
from tests import canaries
from tests.fixtures import App
from tests.verified import account, assert_same, lister, reference

from ...errors import PartyDenied, TwocloudError
from ...fleet import many_sources
from ...model import Account
from ...simulators.fleet import Fleet
from .. import ksyun
from .simulator import PROJECTS, REGIONS, Ksyun

SIZE = 237


def client(kind: Any, url: str, credentials: dict[str, Any], region: str = "cn-beijing-6", method: str = "POST") -> Any:
    return reference("ksyun").client(account("ksyun", url, credentials), kind, region, method)


def ask(call: Any, request: Any, **parameters: object) -> dict[str, Any]:
    return reference("ksyun").ask(call, request, **parameters)


machines = lister("ksyun")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):               # the SDK would take it
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def keys() -> dict[str, Any]:
    return {"access_key": "AKLTtest", "secret_key": canaries.secret("ksyun")}


@pytest.fixture
def cloud(stack: ExitStack, keys: dict[str, Any]) -> Ksyun:
    return stack.enter_context(Ksyun({keys["access_key"]: keys["secret_key"]},
                                     {"cn-beijing-6": Fleet(SIZE, "ksyun"), "cn-shanghai-2": Fleet(7)}, limited=False))


def ours(app: App, region: str = "cn-beijing-6", **more: Any) -> many_sources.Answer:
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "ksyun", region), **more)


def url_of(cloud: Ksyun, action: str = "DescribeInstances", **parameters: object) -> str:
    return f"{cloud.url}/?{urlencode({'Action': action, 'Version': '2016-03-04', **parameters})}"


# ---------------------------------------------------------------- signatures

def test_a_published_signature() -> None:
    """Made by requests-aws4auth 1.4.0, the signer of the vendor's SDK, with the example key of AWS's documents."""
    with time_machine.travel("2026-01-02T03:04:05Z", tick=False):
        request = ksyun.sign("kec", "cn-beijing-6",
                             "https://kec.api.ksyun.com/?Action=DescribeInstances&Version=2016-03-04&MaxResults=1000",
                             {"access_key": "AKIDEXAMPLE", "secret_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"})
    assert request.headers["Authorization"].endswith(
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
        "Signature=a89013fd5a30c880fabbbd8bf183a2b26621583b5c18b8fe604f5994cea819a8")


@pytest.mark.parametrize(("service", "region"), [("kec", "cn-beijing-6"), ("iam", "cn-shanghai-2"),
                                                 ("eip", "eu-east-1")])
def test_the_sdks_signer_signs_as_we_do(keys: dict[str, Any], service: str, region: str) -> None:
    parameters = {"Action": "DescribeInstances", "Version": "2016-03-04", "Region": region, "MaxResults": "1000",
                  "Marker": "0",
                  **{f"ProjectId.{n}": str(n * 7) for n in range(1, 13)}}
    url = f"https://{service}.api.ksyun.com/?{urlencode(parameters)}"
    with time_machine.travel(1_790_000_000, tick=False):
        theirs = requests.Request("GET", url, auth=AWS4Auth(keys["access_key"], keys["secret_key"], region,
                                                            service)).prepare()
        mine = ksyun.sign(service, region, url, keys)
    assert mine.headers["Authorization"] == theirs.headers["Authorization"]
    assert mine.url == theirs.url
    for name in ("X-Amz-Date", "X-Amz-Content-SHA256"):
        assert mine.headers[name] == theirs.headers[name.lower()]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_simulator_knows_the_sdk_by_both_methods(cloud: Ksyun, keys: dict[str, Any], method: str) -> None:
    kec = client(kec_client.KecClient, cloud.url, keys, method=method)
    answer = ask(kec.DescribeInstances, kec_models.DescribeInstancesRequest(), ProjectId=[0, 1002189])
    assert (answer["InstanceCount"], len(answer["InstancesSet"]), answer["Marker"]) == (SIZE, 10, 10)     # the default
    alone = ask(kec.DescribeInstances, kec_models.DescribeInstancesRequest())["InstanceCount"]
    assert 0 < alone < SIZE                                 # the default project, and no hint of the other
    with pytest.raises(KsyunSDKException):
        ask(client(kec_client.KecClient, cloud.url, {**keys, "secret_key": "wrong"}).DescribeInstances,
            kec_models.DescribeInstancesRequest())


def test_temporary_keys(app: App, cloud: Ksyun, keys: dict[str, Any]) -> None:
    token = canaries.secret("ksyuntoken")
    cloud.tokens[keys["access_key"]] = token
    app.account("ksyun", {**keys, "security_token": token}, cloud.url)
    assert ours(app, "cn-shanghai-2").total == 7
    assert all("x-ksc-security-token" in call.headers["authorization"] for call in cloud.calls)     # signed, too
    app.account("ksyun", keys, cloud.url)
    with pytest.raises(PartyDenied):
        ours(app, "cn-shanghai-2", window=many_sources.Window(1, 1))


@pytest.mark.parametrize(("change", "code"), [
    ({}, None), ({"Authorization": lambda v: v[:-1] + ("0" if v[-1] != "0" else "1")}, "SignatureDoesNotMatch"),
    ({"Host": lambda v: "kec.api.ksyun.com"}, "SignatureDoesNotMatch"), ("query", "SignatureDoesNotMatch"),
    ({"X-Amz-Date": lambda v: v[:-2] + ("0Z" if v[-2] != "0" else "1Z")}, "SignatureDoesNotMatch"),
    ({"Authorization": lambda v: v.replace("AKLTtest", "AKLTother")}, "InvalidClientTokenId"),
    ({"Authorization": lambda v: v.replace("/kec/", "/eip/")}, "SignatureDoesNotMatch"),
    ({"Authorization": lambda v: "Basic x"}, "MissingAuthenticationToken"), ("late", "RequestExpired"),
    ({"X-Ksc-Security-Token": lambda v: "x"}, "InvalidClientTokenId")])
def test_the_simulator_refuses_a_changed_byte(cloud: Ksyun, keys: dict[str, Any], change: Any,
                                              code: str | None) -> None:
    request = ksyun.sign("kec", "cn-beijing-6", url_of(cloud, MaxResults=5), keys)
    headers, url = dict(request.headers), request.url
    if change == "query":
        url = url_of(cloud, MaxResults=6)
    elif change == "late":
        cloud.late = 1000
    else:
        headers |= {name: how(headers.get(name, "")) for name, how in change.items()}
    body = requests.get(url, headers=headers, timeout=9).json()
    assert body.get("Error", {}).get("Code") == code


@pytest.mark.parametrize(("parameters", "code"), [
    ({"MaxResults": 4}, "InvalidParameterValue"), ({"MaxResults": 1001}, "InvalidParameterValue"),
    ({"Marker": "x"}, "InvalidParameterValue"),
    ({"Version": "2020-01-14"}, "INVALID_ACTION"), ({"Action": "RunInstances"}, "INVALID_ACTION"),
    ({"Region": "eu-east-1"}, "SignatureDoesNotMatch"),
    ({f"ProjectId.{n}": n for n in range(101)}, "InvalidParameterValue")])
def test_the_simulator_enforces_what_is_documented(cloud: Ksyun, keys: dict[str, Any], parameters: dict[str, Any],
                                                  code: str) -> None:
    request = ksyun.sign("kec", "cn-beijing-6", url_of(cloud, **{"action": "DescribeInstances", **parameters}), keys)
    assert requests.get(request.url, headers=dict(request.headers), timeout=9).json()["Error"]["Code"] == code
    bare = {name: value for name, value in request.headers.items() if name != "Accept"}
    assert requests.get(request.url, headers=bare, timeout=9).text.startswith("<")      # XML unless JSON is asked for


# ---------------------------------------------------------------- the same machines

@pytest.mark.parametrize(("public", "more"), [(False, 0), (True, 0), (False, 150)])
def test_the_sdk_and_we_list_the_same_machines(app: App, cloud: Ksyun, keys: dict[str, Any], public: bool, more: int,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = machines(cloud.url, keys, "cn-beijing-6")
    cloud.public, cloud.projects = public, (*cloud.projects, *range(2_000_000, 2_000_000 + more))
    if more:
        monkeypatch.setattr(ksyun, "_PROJECTS", 60)
    app.account("ksyun", keys, cloud.url)
    cloud.forget()
    answer = ours(app)
    assert answer.total == len(theirs) == SIZE
    if public:                              # the instances name addresses of their own then
        theirs = {key: {**row, "wan_ipv4": set(mine.wan_ipv4)} for mine in answer.servers
                  for key, row in [(mine.id, theirs[mine.id])]}
    assert_same(answer.servers, theirs)
    assert cloud.count("DescribeInstances") == (3 if more else 1)
    assert cloud.count("GetAccountAllProjectList") == 1
    assert bool(cloud.count("DescribeAddresses")) is not public
    cloud.forget()
    assert ours(app, window=many_sources.Window(96, 105)).servers == answer.servers[95:105]
    assert cloud.count() == (6 if more else 1 if public else 2)


def test_a_project_of_its_own(app: App, cloud: Ksyun, keys: dict[str, Any]) -> None:
    by_id = {}
    for project in PROJECTS:
        app.account("ksyun", keys, cloud.url, project=str(project))
        by_id[project] = ours(app).servers
        assert {server.project_id for server in by_id[project]} == {str(project)}
    app.account("ksyun", keys, cloud.url)
    assert sorted(s.id for servers in by_id.values() for s in servers) == sorted(s.id for s in ours(app).servers)


def test_the_sdk_and_we_see_the_same_regions(app: App, cloud: Ksyun, keys: dict[str, Any]) -> None:
    theirs = ask(client(kec_client.KecClient, cloud.url, keys).DescribeRegions,
                 kec_models.DescribeRegionsRequest())["RegionSet"]
    account = Account(tenant_id="1", party="ksyun", credentials=keys, endpoint=cloud.url)
    send = app.deployment.transport.sender(ksyun.PARTY, account, "cn-beijing-6", time.monotonic() + 9)
    mine = [region.code for region in parties.list_regions(account, send)]
    assert mine == [region["Region"] for region in theirs] == list(REGIONS)
    assert all(ksyun.PARTY.region(code) == code for code in mine)


@pytest.mark.parametrize("silent", [True, False])
def test_an_unknown_region_is_never_an_empty_list(app: App, cloud: Ksyun, keys: dict[str, Any], silent: bool) -> None:
    cloud.silent = silent
    app.account("ksyun", keys, cloud.url)
    with pytest.raises(TwocloudError) as refused:
        ours(app, "cn-mars-1")
    assert refused.value.code == "invalid_parameter"
    assert ours(app, "eu-east-1").total == 0


@pytest.mark.parametrize("change", [{"secret_key": "wrong"}, {"access_key": "nobody"}])
def test_a_refusal_is_never_an_empty_list(app: App, cloud: Ksyun, keys: dict[str, Any],
                                          change: dict[str, str]) -> None:
    app.account("ksyun", {**keys, **change}, cloud.url)
    with pytest.raises(PartyDenied):
        ours(app)


# ---------------------------------------------------------------- what the vendor's request models know

def test_the_sdk_knows_every_parameter_that_we_send(app: App, cloud: Ksyun, keys: dict[str, Any]) -> None:
    models = {"DescribeInstances": kec_models.DescribeInstancesRequest,
              "DescribeAddresses": eip_models.DescribeAddressesRequest,
              "DescribeRegions": kec_models.DescribeRegionsRequest, "GetAccountAllProjectList": object}
    app.account("ksyun", keys, cloud.url)
    ours(app)
    ours(app, window=many_sources.Window(3, 9))
    ours(app, "eu-east-1")
    for call in cloud.calls:
        sent = {part.partition("=")[0].partition(".")[0]
                for part in call.query.split("&")} - {"Action", "Version", "Region"}
        assert sent <= getattr(models[call.operation](), "__dict__", {}).keys(), call.operation
    assert {call.operation for call in cloud.calls} == set(models)
