"""Judges of jdcloud that we did not write: its SDK, as the signer and as the client of the simulator."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import time_machine

from tests import canaries
from tests.fixtures import App
from tests.unit.test_parties import WHAT
from tests.verified import account as verified_account
from tests.verified import assert_same, lister, reference

from ...cloud import cache
from ...errors import PartyDenied, UnknownRegion
from ...fleet import check, many_sources
from ...model import Account
from ...simulators.fleet import Fleet
from .. import jdcloud
from .simulator import Jdcloud

pytest.importorskip("jdcloud_sdk")

import jdcloud_sdk
from jdcloud_sdk.core.credential import Credential
from jdcloud_sdk.core.signer import Signer
from jdcloud_sdk.services.vm.apis.DescribeInstancesRequest import DescribeInstancesParameters, DescribeInstancesRequest
from jdcloud_sdk.services.vm.apis.DescribeInstanceTypesRequest import (
    DescribeInstanceTypesParameters,
    DescribeInstanceTypesRequest,
)
from jdcloud_sdk.services.vm.apis.DescribeQuotasRequest import DescribeQuotasParameters, DescribeQuotasRequest
from jdcloud_sdk.services.vm.models.Instance import Instance
from jdcloud_sdk.services.vm.models.InstanceDiskAttachment import InstanceDiskAttachment
from jdcloud_sdk.services.vm.models.InstanceNetworkInterface import InstanceNetworkInterface
from jdcloud_sdk.services.vm.models.InstanceNetworkInterfaceAttachment import InstanceNetworkInterfaceAttachment
from jdcloud_sdk.services.vm.models.InstanceType import InstanceType

NOW, UNIX = "2026-01-02T03:04:05Z", 1767323045.0
NONCE = "ebf8b26d-c3be-402f-9f10-f8b6573fd823"


def asked(url: str, credentials: dict[str, str], request: Any) -> Any:
    return reference("jdcloud").ask(verified_account("jdcloud", url, credentials), request)


def pages(url: str, credentials: dict[str, str], region: str, size: int = 100) -> list[dict[str, Any]]:
    return reference("jdcloud").pages(verified_account("jdcloud", url, credentials), region, size)


machines = lister("jdcloud")


def account(keys: dict[str, str]) -> Account:
    return Account(tenant_id="1", party="jdcloud", credentials=keys)


# ---------------------------------------------------------------- signatures

def test_a_list_as_jdcloud_sdk_signs_it() -> None:
    """The numbers are those of jdcloud-sdk 1.6.354."""
    keys = {"access_key": "AKIDEXAMPLE", "secret_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
    request = jdcloud.sign("https://vm.jdcloud-api.com/v1/regions/cn-north-1/instances?pageNumber=1&pageSize=100",
                           "cn-north-1", account(keys), UNIX, NONCE)
    assert request.headers["Authorization"] == (
        "JDCLOUD3-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/cn-north-1/vm/jdcloud3_request, "
        "SignedHeaders=content-type;host;x-jdcloud-date;x-jdcloud-nonce, "
        "Signature=b09d0945f0d03876d7b6ce998e00f40c948cde845abfd818f2b4b1456ab2ee28")


@pytest.mark.parametrize("token", [None, "a token/with+odd=bytes"])
@pytest.mark.parametrize("count", [0, 1, 25])
def test_the_sdk_signs_the_same(token: str | None, count: int) -> None:
    """Many filters too, where the order of `values.2` and `values.10` matters."""
    keys = {"access_key": "AKID", "secret_key": "secret", **({"security_token": token} if token else {})}
    query = "&".join(f"filters.1.values.{n}=g.n2.c{n}~" for n in range(1, count + 1))
    url = "https://vm.jdcloud-api.com/v1/regions/cn-east-2/instanceTypes" + (f"?{query}" if query else "")
    request = jdcloud.sign(url, "cn-east-2", account(keys), UNIX, NONCE)
    theirs = {name: value for name, value in request.headers.items()
              if name not in ("Authorization", "Host", "x-jdcloud-content-sha256")}
    signer = Signer(reference("jdcloud").QUIET)
    signer.sign("GET", "vm", "cn-east-2", url, theirs, "", Credential("AKID", "secret"), None)
    assert theirs["Authorization"] == request.headers["Authorization"]
    assert theirs["x-jdcloud-content-sha256"] == request.headers["x-jdcloud-content-sha256"]


# ---------------------------------------------------------------- the SDK at the simulator

@pytest.fixture
def keys() -> dict[str, str]:
    return {"access_key": "JDCtest", "secret_key": canaries.secret("jdcloud")}


@pytest.fixture
def cloud(stack: ExitStack, keys: dict[str, str]) -> Iterator[Jdcloud]:
    yield stack.enter_context(Jdcloud({keys["access_key"]: keys["secret_key"]}, {"cn-north-1": Fleet(237)},
                                      limited=False))


@pytest.mark.parametrize("token", [None, "a temporary token"])
def test_the_sdk_and_we_send_the_same_request(cloud: Jdcloud, keys: dict[str, str], token: str | None) -> None:
    """With date and nonce given, as it signs them only then; it encodes the token by itself."""
    if token:
        cloud.tokens[keys["access_key"]] = token
    with time_machine.travel(NOW, tick=False):
        parameters = DescribeInstancesParameters("cn-north-1")
        parameters.setPageNumber(2)
        parameters.setPageSize(10)
        headers = {"x-jdcloud-date": "20260102T030405Z", "x-jdcloud-nonce": NONCE,
                   **({"x-jdcloud-security-token": token} if token else {})}
        assert asked(cloud.url, keys, DescribeInstancesRequest(parameters, headers))["totalCount"] == 237
    theirs, = cloud.calls
    request = jdcloud.sign(f"{cloud.url}/v1/regions/cn-north-1/instances?pageNumber=2&pageSize=10", "cn-north-1",
                           account({**keys, **({"security_token": token} if token else {})}), UNIX, NONCE)
    assert f"{cloud.url}{theirs.path}?{theirs.query}" == request.url
    assert {name.lower(): value for name, value in request.headers.items()}.items() <= theirs.headers.items()


def test_the_sdk_and_we_list_the_same_machines(app: App, cloud: Jdcloud, keys: dict[str, str]) -> None:
    """The time of creation against the beginning of the charge, which is in UTC."""
    app.account("jdcloud", keys, cloud.url)
    theirs = machines(cloud.url, keys, "cn-north-1")
    begun = {row["instanceId"]: row["charge"]["chargeStartTime"] for row in pages(cloud.url, keys, "cn-north-1")}
    cloud.forget()
    answer = many_sources.list_servers(app.deployment, many_sources.source_of("123", "jdcloud", "cn-north-1"))
    assert len(theirs) == answer.total == 237
    assert_same(answer.servers, theirs)
    assert {server.id: f"{server.created_at:%Y-%m-%dT%H:%M:%SZ}" for server in answer.servers} == begun
    assert cloud.count("DescribeInstances") == 4
    assert cloud.count("DescribeInstanceTypes") == 1
    cloud.forget()
    window = many_sources.list_servers(app.deployment, many_sources.source_of("123", "jdcloud", "cn-north-1"),
                                    window=many_sources.Window(21, 23))
    assert window.servers == answer.servers[20:23]
    assert window.total == 237
    assert [call.query for call in cloud.calls] == ["pageNumber=3&pageSize=10"]         # the types are known by now


@pytest.mark.parametrize("case", [
    c for c in WHAT["jdcloud"]["cases"] if "servers" in c and "odd value" not in c["name"]],
                         ids=lambda case: case["name"])
def test_the_sdks_models_know_what_the_cases_hold(case: dict[str, Any]) -> None:
    """Every field is one of theirs: their models take it by name. The document's sample has three that they have
    not."""
    for exchange in case["exchanges"]:
        if exchange["answer"]["status"] != 200:
            continue
        result = exchange["answer"]["json"]["result"]
        for kind in result.get("instanceTypes") or ():
            InstanceType(**kind)
        for row in result.get("instances") or ():
            instance = Instance(**{name: value for name, value in row.items() if name != "hostName"})
            for disk in (instance.systemDisk, *(instance.dataDisks or ())):
                InstanceDiskAttachment(**(disk or {}))
            for attached in (instance.primaryNetworkInterface, *(instance.secondaryNetworkInterfaces or ())):
                interface = InstanceNetworkInterfaceAttachment(**(attached or {})).networkInterface
                InstanceNetworkInterface(**(interface or {}))


# ---------------------------------------------------------------- the simulator

@pytest.mark.parametrize("change", [None, "signature", "key", "query", "path", "x-jdcloud-date", "x-jdcloud-nonce",
                                    "Host",
                                    "token", "clock", "no header", "older algorithm"])
def test_the_simulator_refuses_a_changed_byte(cloud: Jdcloud, keys: dict[str, str], change: str | None) -> None:
    request = jdcloud.sign(f"{cloud.url}/v1/regions/cn-north-1/instances?pageNumber=1&pageSize=10", "cn-north-1",
                           account(keys), time.time(), NONCE)
    headers, url = dict(request.headers), request.url
    if change == "signature":
        headers["Authorization"] = headers["Authorization"][:-1] + ("0" if headers["Authorization"][-1] != "0" else "1")
    elif change == "key":
        headers["Authorization"] = headers["Authorization"].replace("=JDCtest/", "=JDCtesu/")
    elif change == "query":
        url = url.replace("Size=10", "Size=11")
    elif change == "path":
        url = url.replace("cn-north-1", "cn-east-1")
    elif change == "x-jdcloud-date":
        headers[change] = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - 60))
    elif change == "x-jdcloud-nonce":
        headers[change] = NONCE[:-1] + "4"
    elif change == "Host":
        headers["Host"] = "vm.jdcloud-api.com"
    elif change == "token":
        headers["x-jdcloud-security-token"] = "unasked"
    elif change == "clock":
        cloud.late = 301
    elif change == "no header":
        del headers["Authorization"]
    elif change == "older algorithm":
        headers["Authorization"] = headers["Authorization"].replace("JDCLOUD3",
                                                                    "JDCLOUD2").replace("jdcloud3", "jdcloud2")
    answer = requests.get(url, headers=headers, timeout=9)
    assert answer.status_code == (401 if change else 200), answer.text
    assert not change or answer.json()["error"]["status"] == "ACCESS_ERROR"


def test_the_simulator_enforces_what_is_documented(cloud: Jdcloud, keys: dict[str, str]) -> None:
    """By the SDK, which reads its refusals."""
    for size in (9, 101):
        with pytest.raises(reference("jdcloud").Refused) as refused:
            pages(cloud.url, keys, "cn-north-1", size)
        assert refused.value.args == (400, "OUT_OF_RANGE")
    parameters = DescribeInstancesParameters("cn-north-1")
    assert len(asked(cloud.url, keys, DescribeInstancesRequest(parameters))["instances"]) == 20
    parameters.setFilters([{"name": "resourceGroupId", "values": ["rg-0"]}])
    with pytest.raises(reference("jdcloud").Refused) as refused:
        asked(cloud.url, keys, DescribeInstancesRequest(parameters))
    assert refused.value.args == (400, "INVALID_ARGUMENT")
    kinds = DescribeInstanceTypesParameters("cn-north-1")
    kinds.setFilters([{"name": "instanceTypes", "values": ["g.n2.medium", "no.such"]}])
    assert [kind["instanceType"] for kind in asked(cloud.url, keys,
                                                   DescribeInstanceTypesRequest(kinds))["instanceTypes"]] == [
        "g.n2.medium"]
    with pytest.raises(reference("jdcloud").Refused) as refused:
        pages(cloud.url, {**keys, "secret_key": canaries.secret("wrong")}, "cn-north-1")
    assert refused.value.args == (401, "ACCESS_ERROR")
    with pytest.raises(reference("jdcloud").Refused) as refused:
        pages(cloud.url, keys, "cn-west-9")
    assert refused.value.args == (404, "NOT_FOUND")


def test_we_say_the_same_of_its_refusals(app: App, cloud: Jdcloud, keys: dict[str, str]) -> None:
    app.account("jdcloud", {**keys, "secret_key": canaries.secret("wrong")}, cloud.url)
    with pytest.raises(PartyDenied, match="wrong key"):
        many_sources.list_servers(app.deployment, many_sources.source_of("123", "jdcloud", "cn-north-1"))
    app.account("jdcloud", keys, cloud.url)
    with pytest.raises(UnknownRegion):
        many_sources.list_servers(app.deployment, many_sources.source_of("123", "jdcloud", "cn-west-9"))
    assert many_sources.list_servers(app.deployment,
                                     many_sources.source_of("123", "jdcloud", "cn-south-1")).total == 0


def test_a_check_warns_of_instances_that_a_policy_hides(app: App, cloud: Jdcloud, keys: dict[str, str]) -> None:
    """The used quota is what the SDK reads, too."""
    app.account("jdcloud", keys, cloud.url)

    def warned(region: str = "cn-north-1") -> str:
        return check.warning(app.deployment, "123", "jdcloud", region)

    rows = asked(cloud.url, keys, DescribeQuotasRequest(DescribeQuotasParameters("cn-north-1")))["quotas"]
    (row,) = [row for row in rows if row["resourceType"] == "instance"]
    assert row["used"] == len(pages(cloud.url, keys, "cn-north-1"))
    assert warned() == ""
    cloud.hidden = 7
    assert f"shows this key {row['used'] - 7} of the {row['used']} instances in cn-north-1" in warned()
    assert warned("cn-south-1") == ""
    cloud.quota_denied = True
    assert "vm:describeQuotas" in warned()
    assert check.check_account(app.deployment, "123", "jdcloud", "cn-north-1") == "cn-north-1"


def test_temporary_keys(app: App, cloud: Jdcloud, keys: dict[str, str]) -> None:
    token = canaries.secret("token")
    cloud.tokens[keys["access_key"]] = token
    app.account("jdcloud", {**keys, "security_token": token}, cloud.url)
    assert many_sources.list_servers(app.deployment,
                                     many_sources.source_of("123", "jdcloud", "cn-north-1")).total == 237
    cache.forget()
    app.account("jdcloud", keys, cloud.url)
    with pytest.raises(PartyDenied):
        many_sources.list_servers(app.deployment, many_sources.source_of("123", "jdcloud", "cn-north-1"))


def test_the_regions_are_those_that_the_sdk_names() -> None:
    """No call lists them. A new one in the SDK must come into the table."""
    source = (Path(jdcloud_sdk.__path__[0]) / "services" / "vm").rglob("*.py")
    named = {code for path in source for code in re.findall(r"\b[a-z]{2}-[a-z]{4,9}-[0-9]\b", path.read_text())}
    assert named == jdcloud._REGIONS.keys()
