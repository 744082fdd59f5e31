"""UCloud: its documents' own signatures, its SDK as second signer, second reader and judge of the fixtures."""

import time
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode

import pytest
import requests

pytest.importorskip("ucloud")

from ucloud.core import exc
from ucloud.core.client import Client
from ucloud.services.uaccount.client import UAccountClient
from ucloud.services.uaccount.schemas import apis as uaccount_apis
from ucloud.services.uhost.client import UHostClient
from ucloud.services.uhost.schemas import apis as uhost_apis

from chalicelib import parties
from tests import canaries
from tests.fixtures import App
from tests.unit.test_parties import WHAT
from tests.verified import account, assert_same, lister, reference

from ...errors import PartyDenied, TwocloudError
from ...fleet import many_sources
from ...model import Account
from ...simulators.fleet import Fleet
from .. import ucloud
from .simulator import DEFAULT_PROJECT, ZONES, Ucloud

SIZE = 237


def client(kind: type[Client], url: str, credentials: dict[str, Any], region: str = "cn-bj2") -> Any:
    return reference("ucloud").client(account("ucloud", url, credentials), kind, region)


machines = lister("ucloud")


@pytest.fixture
def keys() -> dict[str, Any]:
    return {"public_key": "4Zjtest", "private_key": canaries.secret("ucloud"), "project_id": "org-demo"}


@pytest.fixture
def cloud(stack: ExitStack, keys: dict[str, Any]) -> Ucloud:
    return stack.enter_context(Ucloud({keys["public_key"]: keys["private_key"]},
                                      {"cn-bj2": Fleet(SIZE, "ucloud"), "hk": Fleet(3)}, limited=False))


def ours(app: App, region: str = "cn-bj2", **more: Any) -> many_sources.Answer:
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "ucloud", region), **more)


def asked_in(request: Any) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode()))


# ---------------------------------------------------------------- signatures

DOCUMENTED = {"public_key": "ucloudsomeone" + "@" + "example.com" + "1296235120854146120",
              "private_key": "46f09bb9fab4f12dfc160dae12273d5332b5debe"}


@pytest.mark.parametrize(("parameters", "signature"), [
    ({"Action": "DescribeUHostInstance", "Region": "cn-bj2", "Limit": "10"},
     "cba5cf5ec4d4233d206b1b54951e3787350a642f"),
    ({"Action": "CreateUHostInstance", "CPU": "2", "ChargeType": "Month", "DiskSpace": "10",
      "ImageId": "f43736e1-65a5-4bea-ad2e-8a46e18883c2", "LoginMode": "Password", "Memory": "2048", "Name": "Host01",
      "Password": "VUNsb3VkLmNu", "Quantity": "1", "Region": "cn-bj2", "Zone": "cn-bj2-04"},
     "4f9ef5df2abab2c6fccd1e9515cb7e2df8c6bb65")])
def test_the_signatures_of_uclouds_own_document(parameters: dict[str, str], signature: str) -> None:
    """https://docs.ucloud.cn/api/summary/signature"""
    assert asked_in(ucloud.sign("https://api.ucloud.cn/", parameters, DOCUMENTED))["Signature"] == signature


def test_the_sdk_sends_what_we_send(cloud: Ucloud, keys: dict[str, Any]) -> None:
    client(UHostClient, cloud.url, keys).describe_uhost_instance({"Offset": 100, "Limit": 7})
    theirs = cloud.calls[-1]
    mine = ucloud.sign(f"{cloud.url}/", {"Action": "DescribeUHostInstance", "Region": "cn-bj2", "ProjectId": "org-demo",
                                         "Offset": "100", "Limit": "7"}, keys)
    assert parse_qs(mine.body, strict_parsing=True) == parse_qs(theirs.body, strict_parsing=True)
    assert (mine.method, mine.headers["Content-Type"]) == (theirs.method, theirs.headers["content-type"])


def test_temporary_keys(app: App, cloud: Ucloud, keys: dict[str, Any]) -> None:
    token = canaries.secret("ucloudtoken")
    cloud.tokens[keys["public_key"]] = token
    app.account("ucloud", {**keys, "security_token": token}, cloud.url)
    assert ours(app, "hk").total == 3
    app.account("ucloud", keys, cloud.url)
    with pytest.raises(PartyDenied):
        ours(app, "hk", window=many_sources.Window(1, 1))


@pytest.mark.parametrize(("change", "code"), [
    ({}, 0), ({"Limit": "6"}, 171), ({"ProjectId": DEFAULT_PROJECT}, 171), ({"Region": "hk"}, 171),
    ({"Zone": "x"}, 171),
    ({"Signature": "0" * 40}, 171), ({"Signature": None}, 170), ({"PublicKey": "other"}, 172),
    ({"SecurityToken": "x"}, 174),
    ({"Action": None}, 160)])
def test_the_simulator_refuses_a_changed_byte(cloud: Ucloud, keys: dict[str, Any], change: dict[str, str | None],
                                             code: int) -> None:
    request = ucloud.sign(f"{cloud.url}/", {"Action": "DescribeUHostInstance", "Region": "cn-bj2",
                                            "ProjectId": "org-demo",
                                            "Offset": "0", "Limit": "5"}, keys)
    parameters = {name: value for name, value in {**asked_in(request), **change}.items() if value is not None}
    body = requests.post(cloud.url, data=urlencode(parameters), headers=dict(request.headers), timeout=9).json()
    assert body["RetCode"] == code


def test_the_simulator_enforces_what_is_documented(cloud: Ucloud, keys: dict[str, Any]) -> None:
    uhost = client(UHostClient, cloud.url, keys)
    for parameters, code in (({"Limit": 101}, 230), ({"Limit": 0}, 230), ({"Region": "mars"}, 230),
                             ({"ProjectId": "org-x"}, 292)):
        with pytest.raises(exc.RetCodeException) as refused:
            uhost.describe_uhost_instance(parameters)
        assert refused.value.code == code
    assert len(uhost.describe_uhost_instance()["UHostSet"]) == 20       # the default
    nobodys = client(UHostClient, cloud.url, {**keys, "project_id": None})
    assert nobodys.describe_uhost_instance()["TotalCount"] == 0         # the default project, and no hint of the other
    with Ucloud(cloud.keys, {}) as limited, pytest.raises(exc.RetCodeException) as refused:
        uhost = client(UHostClient, limited.url, keys)
        for _ in range(200):
            uhost.describe_uhost_instance()
    assert refused.value.code == 153


# ---------------------------------------------------------------- the same machines

def test_the_sdk_and_we_list_the_same_machines(app: App, cloud: Ucloud, keys: dict[str, Any]) -> None:
    app.account("ucloud", keys, cloud.url)
    theirs = machines(cloud.url, keys, "cn-bj2")
    cloud.forget()
    answer = ours(app)
    assert answer.total == len(theirs) == SIZE
    assert cloud.count() == 3
    assert_same(answer.servers, theirs)
    assert {mine.project_id for mine in answer.servers} == {"org-demo"}
    cloud.forget()
    assert ours(app, window=many_sources.Window(96, 105)).servers == answer.servers[95:105]
    assert cloud.count() == 1


def test_the_sdk_and_we_see_the_same_regions(app: App, cloud: Ucloud, keys: dict[str, Any]) -> None:
    theirs = {row["Region"] for row in client(UAccountClient, cloud.url, keys).get_region()["Regions"]}
    account = Account(tenant_id="1", party="ucloud", credentials=keys, endpoint=cloud.url)
    send = app.deployment.transport.sender(ucloud.PARTY, account, "cn-bj2", time.monotonic() + 9)
    mine = parties.list_regions(account, send)
    assert [region.code for region in mine] == list(ZONES)
    assert {region.code for region in mine} == theirs
    assert all(ucloud.PARTY.region(region.code) == region.code for region in mine)


@pytest.mark.parametrize("region", [
    "cn-bj1", "cn-bj2", "cn-wlcb", "cn-wlcb2", "cn-sh2", "cn-jx", "cn-sh", "cn-hn1", "cn-gd2", "cn-gd", "cn-guiyang1",
    "hk",
    "tw-tp", "sg", "jpn-tky", "kr-seoul", "th-bkk", "idn-jakarta", "vn-sng", "ph-mnl", "ind-mumbai", "pk-khi", "us-den",
    "us-ca", "us-ws", "bra-saopaulo", "rus-mosc", "ge-fra", "uk-london", "uae-dubai", "afr-nigeria", "uz-tas", "kz-ala",
    "mx-mex"])
def test_every_published_region_has_the_form(region: str) -> None:
    """https://docs.ucloud.cn/api/summary/regionlist"""
    assert ucloud.PARTY.region(region) == region


@pytest.mark.parametrize(("change", "word"), [
    ({"private_key": "wrong"}, "party_denied"), ({"public_key": "nobody"}, "party_denied"),
    ({"project_id": "org-x"}, "party_denied")])
def test_a_refusal_is_never_an_empty_list(app: App, cloud: Ucloud, keys: dict[str, Any], change: dict[str, str],
                                          word: str) -> None:
    app.account("ucloud", {**keys, **change}, cloud.url)
    with pytest.raises(TwocloudError) as refused:
        ours(app)
    assert refused.value.code == word


def test_an_unknown_region(app: App, cloud: Ucloud, keys: dict[str, Any]) -> None:
    app.account("ucloud", keys, cloud.url)
    with pytest.raises(TwocloudError) as refused:
        ours(app, "cn-mars1")
    assert refused.value.code == "invalid_parameter"


# ---------------------------------------------------------------- the SDK's schemas

def test_the_sdk_knows_every_field_of_our_fixtures_and_simulator(cloud: Ucloud, keys: dict[str, Any]) -> None:
    """Its reader takes only what its schemas name, so that what goes in must come out again."""
    known_to_the_sample_alone = {"EncryptedDiskFeature", "IsExpire", "NetCapFeature"}
    answers = [exchange["answer"]["json"] for case in WHAT["ucloud"]["cases"] for exchange in case["exchanges"]
               if "servers" in case and "odd value" not in case["name"] and exchange["answer"]["json"]["UHostSet"]]
    answers.append(client(UHostClient, cloud.url, keys).invoke("DescribeUHostInstance", {"Limit": 100}))
    schema = uhost_apis.DescribeUHostInstanceResponseSchema()
    for answer in answers:
        for row, read in zip(answer["UHostSet"], schema.loads(answer)["UHostSet"], strict=True):
            fields = {name: value for name, value in row.items()
                      if value not in (None, [], "") and name not in known_to_the_sample_alone}
            assert fields.keys() <= read.keys()
            assert all(read[name] == value for name, value in fields.items() if isinstance(value, str | int))
            for part in ("DiskSet", "IPSet"):
                for one, other in zip(row.get(part) or [], read.get(part) or [], strict=True):
                    assert {name for name, value in one.items() if value is not None} <= other.keys()
    assert len(answers) > 8
    regions = client(UAccountClient, cloud.url, keys).invoke("GetRegion", {})
    assert len(uaccount_apis.GetRegionResponseSchema().loads(regions)["Regions"]) == sum(map(len, ZONES.values()))
