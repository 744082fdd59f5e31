"""Judges of baidu that we did not write: published signatures and Baidu's own two SDKs.

baiducloud-python-sdk-bcc 0.0.9 cannot be imported as a client (it asks for a module that its core does not have), so
its models and its signer judge, and the older bce-python-sdk lists.
"""

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
from tests.verified import account as verified_account
from tests.verified import assert_same, lister, reference

from ...access import accounts
from ...errors import PartyDenied, UnknownRegion
from ...fleet import many_sources
from ...model import Account
from ...simulators.fleet import Fleet
from .. import baidu
from .simulator import REGIONS, Baidu

pytest.importorskip("baiducloud_python_sdk_bcc")
pytest.importorskip("baidubce")

from baidubce.exception import BceHttpClientError
from baiducloud_python_sdk_bcc.models.instance_status import InstanceStatus
from baiducloud_python_sdk_bcc.models.list_instances_response import ListInstancesResponse
from baiducloud_python_sdk_bcc.models.list_volumes_response import ListVolumesResponse
from baiducloud_python_sdk_core.auth import bce_v1_signer
from baiducloud_python_sdk_core.auth.bce_credentials import BceCredentials as NewerCredentials

NOW = "2026-01-02T03:04:05Z"


def client(url: str, credentials: dict[str, str]) -> Any:
    return reference("baidu").client(verified_account("baidu", url, credentials), "bj")


machines = lister("baidu")


def account(keys: dict[str, str]) -> Account:
    return Account(tenant_id="1", party="baidu", credentials=keys)


# ---------------------------------------------------------------- signatures

def test_the_published_sample() -> None:
    """Sample values of Baidu's own document, and what bce-python-sdk 0.9.79 makes of them."""
    keys = {"access_key_id": "0b0f67dfb88244b289b72b142befad0c",
            "secret_access_key": "bad522c2126a4618a8125f4b6cf6356f"}
    headers = {"Host": "bj.bcebos.com", "Content-Length": "8", "Content-MD5": "0a52730597fb4ffa01fc117d9e71e3a9",
               "Content-Type": "text/plain", "x-bce-date": "2015-04-27T08:23:49Z"}
    url = "https://bj.bcebos.com/v1/test/myfolder/readme.txt?partNumber=9&uploadId=VXBsb2FkIElpZS5tMnRzIHVwbG9hZA"
    assert baidu.authorization("PUT", url, headers, keys, "2015-04-27T08:23:49Z") == (
        "bce-auth-v1/0b0f67dfb88244b289b72b142befad0c/2015-04-27T08:23:49Z/1800/"
        "content-length;content-md5;content-type;host;x-bce-date/"
        "a19e6386e990691aca1114a20357c83713f1cb4be3d74942bb4ed37469ecdacf")


def test_a_list_as_bce_python_sdk_signs_it() -> None:
    keys = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
    request = baidu.sign("GET", "https://bcc.bj.baidubce.com/v2/instance?maxKeys=1000", b"", account(keys),
                         1767323045.0)
    assert request.headers["x-bce-date"] == NOW
    assert request.headers["Authorization"].endswith(
        "/11edf816d138f73eb28bd30754d7dfb7090baf7a5e51470e3e95eb30ad79044c")


@pytest.mark.parametrize("token", [None, "a token/with+odd=bytes"])
def test_the_newer_sdk_signs_the_same(token: str | None) -> None:
    keys = {"access_key_id": "AKID", "secret_access_key": "secret", **({"session_token": token} if token else {})}
    request = baidu.sign("GET", "https://bcc.su.baidubce.com/v2/volume?marker=v-%20%2F~&maxKeys=7", b"", account(keys),
                         1767323045.0)
    headers = {name.encode(): value.encode() for name, value in request.headers.items() if name != "Authorization"}
    theirs = bce_v1_signer.sign(NewerCredentials("AKID", "secret"), b"GET", b"/v2/volume", headers,
                                {b"maxKeys": b"7", b"marker": b"v- /~"}, 1767323045)
    assert request.headers["Authorization"] == theirs.decode()


# ---------------------------------------------------------------- the SDK at the simulator

@pytest.fixture
def keys() -> dict[str, str]:
    return {"access_key_id": "AKbaidu", "secret_access_key": canaries.secret("baidu")}


@pytest.fixture(params=[False, True], ids=["disks apart", "disks inside"])
def cloud(stack: ExitStack, keys: dict[str, str], request: pytest.FixtureRequest) -> Baidu:
    return stack.enter_context(Baidu({keys["access_key_id"]: keys["secret_access_key"]},
                                     {"bj": Fleet(237), "su": Fleet(3, "su")}, with_volumes=request.param,
                                     limited=False))


def test_the_sdk_and_we_send_the_same_request(cloud: Baidu, keys: dict[str, str]) -> None:
    """It signs more headers, without naming them: over the same ones we come to the same signature."""
    with time_machine.travel(NOW, tick=False):
        client(cloud.url, keys).list_instances(max_keys=10)
        client(cloud.url, keys).describe_regions("")
        mine = (baidu.sign("GET", f"{cloud.url}/v2/instance?maxKeys=10", b"", account(keys), 1767323045.0),
                baidu.sign("POST", f"{cloud.url}/v2/region/describeRegions", b"{}", account(keys), 1767323045.0))
    for theirs, request in zip(cloud.calls, mine, strict=True):
        url = f"{cloud.url}{theirs.path}" + (f"?{theirs.query}" if theirs.query else "")
        assert (theirs.method, url) == (request.method, request.url)
        assert all(theirs.headers[name] == request.headers[name if name != "host" else "Host"]
                   for name in ("x-bce-date", "host"))
        signed = {name: value for name, value in theirs.headers.items()
                  if name.startswith("x-bce-") or name in ("host", "content-type", "content-length")}
        assert theirs.headers["authorization"].rpartition("/")[2] == baidu.authorization(
            theirs.method, url, signed, keys, NOW).rpartition("/")[2]
    assert all(json.loads(call.body) in ({}, {"region": ""}) for call in cloud.calls[1:])


def test_the_sdk_and_we_list_the_same_machines(app: App, cloud: Baidu, keys: dict[str, str]) -> None:
    app.account("baidu", keys, cloud.url)
    theirs = machines(cloud.url, keys, "bj")
    cloud.forget()
    answer = many_sources.list_servers(app.deployment, many_sources.source_of("123", "baidu", "bj"))
    assert len(theirs) == answer.total == 237
    assert_same(answer.servers, theirs)
    assert cloud.count("ListInstances") == 1
    assert cloud.count("ListVolumes") == (0 if cloud.with_volumes else 1)
    cloud.forget()
    window = many_sources.list_servers(app.deployment, many_sources.source_of("123", "baidu", "bj"),
                                    window=many_sources.Window(21, 30))
    assert window.servers == answer.servers[20:30]
    assert window.total is None
    assert cloud.calls[0].query == "maxKeys=31"
    assert len(cloud.calls) == (1 if cloud.with_volumes else 2)


def test_the_sdk_and_we_see_the_same_regions(app: App, cloud: Baidu, keys: dict[str, str]) -> None:
    theirs = client(cloud.url, keys).describe_regions("").regions
    opened = accounts.check("123", baidu.PARTY, keys, project=None, regions=(), deep=False, endpoint=cloud.url,
                            local=True)
    send = app.deployment.transport.sender(baidu.PARTY, opened, "bj", time.monotonic() + 20)
    assert [(region.code, region.name) for region in parties.list_regions(opened, send)] == [
        (region.region_id, region.region_name) for region in theirs] == list(REGIONS.items())


def test_the_status_table_is_the_sdks() -> None:
    assert set(baidu._STATUS) == {value for name, value in vars(InstanceStatus).items() if name.isupper()}


@pytest.mark.parametrize("case", [
    c for c in WHAT["baidu"]["cases"] if "servers" in c and "odd value" not in c["name"]],
                         ids=lambda case: case["name"])
def test_the_sdks_models_take_the_answers_of_the_cases(case: dict[str, Any]) -> None:
    """Every field that we read is one of theirs."""
    for exchange in case["exchanges"]:
        shape = {"ListInstances": ListInstancesResponse, "ListVolumes": ListVolumesResponse}.get(exchange["operation"])
        if shape and exchange["answer"]["status"] == 200:
            answer = exchange["answer"]["json"]
            assert shape().from_dict(answer).to_dict() == {"metadata": {}, **pruned(answer)}


def pruned(value: Any) -> Any:
    """Without what is null or empty where the SDK drops it."""
    if isinstance(value, dict):
        return {name: pruned(inner) for name, inner in value.items() if inner is not None}
    return [pruned(inner) for inner in value] if isinstance(value, list) else value


# ---------------------------------------------------------------- the simulator

@pytest.mark.parametrize(("change", "code"), [
    (None, None), ("signature", "SignatureDoesNotMatch"), ("key", "InvalidAccessKeyId"),
    ("query", "SignatureDoesNotMatch"),
    ("x-bce-date", "SignatureDoesNotMatch"), ("Host", "SignatureDoesNotMatch"), ("token", "InvalidSessionToken"),
    ("old", "RequestExpired"), ("early", "RequestExpired"), ("no header", "InvalidHTTPAuthHeader")])
def test_the_simulator_refuses_a_changed_byte(cloud: Baidu, keys: dict[str, str], change: str | None,
                                             code: str | None) -> None:
    moved = {"old": -1900.0, "early": 400.0}.get(change or "", 0.0)
    cloud.late = -moved
    request = baidu.sign("GET", f"{cloud.url}/v2/instance?maxKeys=7", b"", account(keys), time.time())
    headers, url = dict(request.headers), request.url
    if change == "signature":
        headers["Authorization"] = headers["Authorization"][:-1] + ("0" if headers["Authorization"][-1] != "0" else "1")
    elif change == "key":
        headers["Authorization"] = headers["Authorization"].replace("/AKbaidu/", "/AKbaidv/")
    elif change == "query":
        url = url.replace("=7", "=8")
    elif change == "x-bce-date":
        headers["x-bce-date"] = NOW
    elif change == "Host":
        headers["Host"] = "bcc.su.baidubce.com"
    elif change == "token":
        headers["x-bce-security-token"] = "unasked"
    elif change == "no header":
        del headers["Authorization"]
    elif moved:
        cloud.late = -moved if change == "early" else 1900.0
    answer = requests.get(url, headers=headers, timeout=9)
    assert (answer.status_code, answer.json().get("code")) == (
        (200, None) if code is None else (403 if code == "InvalidAccessKeyId" else 400, code))


def test_the_sdk_takes_the_simulators_refusals(app: App, cloud: Baidu, keys: dict[str, str]) -> None:
    """And we say the same of them: a wrong signature is HTTP 400, and still a refusal."""
    wrong = {**keys, "secret_access_key": canaries.secret("wrong")}
    with pytest.raises(BceHttpClientError) as refused:
        machines(cloud.url, wrong, "bj")
    assert (refused.value.status_code, refused.value.code) == (400, "SignatureDoesNotMatch")
    app.account("baidu", wrong, cloud.url)
    with pytest.raises(PartyDenied, match="wrong key"):
        many_sources.list_servers(app.deployment, many_sources.source_of("123", "baidu", "bj"))
    for query, code in (("maxKeys=0", "BadRequest"), ("maxKeys=1001", "BadRequest"), ("marker=i-none", "BadRequest")):
        request = baidu.sign("GET", f"{cloud.url}/v2/instance?{query}", b"", account(keys), time.time())
        assert requests.get(request.url, headers=dict(request.headers), timeout=9).json()["code"] == code


def test_temporary_keys(app: App, cloud: Baidu, keys: dict[str, str]) -> None:
    token = canaries.secret("token")
    cloud.tokens[keys["access_key_id"]] = token
    app.account("baidu", {**keys, "session_token": token}, cloud.url)
    assert many_sources.list_servers(app.deployment, many_sources.source_of("123", "baidu", "bj")).total == 237
    app.account("baidu", keys, cloud.url)
    with pytest.raises(PartyDenied):
        many_sources.list_servers(app.deployment, many_sources.source_of("123", "baidu", "bj"))


def test_an_empty_list_is_believed_of_a_region_that_there_is(app: App, stack: ExitStack,
                                                             keys: dict[str, str]) -> None:
    empty = stack.enter_context(Baidu({keys["access_key_id"]: keys["secret_access_key"]}, {"bj": Fleet(0)}))
    app.account("baidu", keys, empty.url)
    assert many_sources.list_servers(app.deployment, many_sources.source_of("123", "baidu", "bj")).total == 0
    with pytest.raises(UnknownRegion):
        many_sources.list_servers(app.deployment, many_sources.source_of("123", "baidu", "nowhere"))
