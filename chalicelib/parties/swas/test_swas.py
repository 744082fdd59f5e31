"""Alibaba's own SDK of this product: what its client and models list at the simulator, we list."""

import json
import time
from contextlib import ExitStack
from typing import Any

import pytest
from alibabacloud_swas_open20200601 import models

from chalicelib import parties
from chalicelib.cloud.alibaba import sign
from chalicelib.errors import PartyDenied, PartyMalformed
from chalicelib.fleet import check, many_sources
from chalicelib.fleet.many_sources import Answer, Window
from chalicelib.model import Account, Keys
from chalicelib.parties import swas
from chalicelib.parties.swas.simulator import GROUP, REGIONS, Swas
from chalicelib.simulators.fleet import Fleet
from tests import canaries
from tests.fixtures import App
from tests.unit.test_parties import WHAT
from tests.verified import account, assert_same, lister, reference

REGION, SIZE = "cn-hangzhou", 237


@pytest.fixture
def keys() -> dict[str, str]:
    return {"access_key_id": "LTAItest", "access_key_secret": canaries.secret("swas")}


@pytest.fixture
def cloud(stack: ExitStack, app: App, keys: dict[str, str]) -> Swas:
    made = stack.enter_context(Swas({keys["access_key_id"]: keys["access_key_secret"]}, {REGION: Fleet(SIZE)},
                                    limited=False))
    app.account("swas", keys, made.url)
    return made


def client(url: str, keys: dict[str, str]) -> Any:
    return reference("swas").client(account("swas", url, keys), REGION)


def rows(url: str, keys: dict[str, str]) -> list[Any]:
    return reference("swas").pages(account("swas", url, keys), REGION)


machines = lister("swas")


def ours(app: App, window: Window = many_sources.WHOLE) -> Answer:
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "swas", REGION), window)


def test_the_sdk_and_we_list_the_same_machines(app: App, cloud: Swas, keys: dict[str, str]) -> None:
    theirs, views = rows(cloud.url, keys), machines(cloud.url, keys, REGION)
    cloud.forget()
    servers = ours(app).servers
    assert len(servers) == len(theirs) == SIZE
    assert cloud.count() == 4               # a first listing reads one page more
    assert_same(servers, views)
    assert [server.id for server in servers] == [row.instance_id for row in theirs]
    assert all(server.created_at and server.expires_at for server in servers)
    assert any(server.memory_mib == 512 for server in servers)
    for window in (Window(1, 1), Window(101, 102), Window(11, 20), Window(230, 237)):
        cloud.forget()
        assert ours(app, window).servers == servers[window.first - 1:window.last]
        assert cloud.count() == 1


def test_a_resource_group_is_filtered_as_the_rows_say(app: App, cloud: Swas, keys: dict[str, str]) -> None:
    theirs = {row.instance_id for row in rows(cloud.url, keys) if row.resource_group_id == GROUP}
    app.account("swas", keys, cloud.url, project=GROUP)
    assert {server.id for server in ours(app).servers} == theirs
    assert 0 < len(theirs) < SIZE
    assert ours(app, Window(3, 5)).total == len(theirs)


def test_the_models_know_every_field_of_our_cases_and_the_simulators(cloud: Swas, keys: dict[str, str]) -> None:
    """What the SDK reads and writes again is what was said, but for lists, which it leaves empty where there are none.
    """
    count = 0
    for case in WHAT["swas"]["cases"]:
        if case["name"].startswith(("unknown shape", "odd value")) or "null" in case["name"]:
            continue
        for exchange in case["exchanges"]:
            answer = exchange["answer"]["json"]
            if "Instances" in answer:
                again = models.ListInstancesResponseBody().from_map(json.loads(json.dumps(answer))).to_map()
                assert without_empty(again) == without_empty(answer)
                count += 1
    assert count > 10
    body = client(cloud.url, keys).list_instances(models.ListInstancesRequest(region_id=REGION, page_size=100)).body
    assert len(body.instances) == 100
    regions = client(cloud.url, keys).list_regions(models.ListRegionsRequest()).body
    assert [region.region_id for region in regions.regions] == [*REGIONS]


def without_empty(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {name: without_empty(value) for name, value in answer.items() if value not in (None, [])}
    return [without_empty(one) for one in answer] if isinstance(answer, list) else answer


def test_the_simulator_enforces_what_is_documented(cloud: Swas, keys: dict[str, str]) -> None:
    sdk = client(cloud.url, keys)
    assert len(sdk.list_instances(models.ListInstancesRequest(region_id=REGION)).body.instances) == 10
    for parameters, code in (({"page_size": 101}, "InvalidParameter.PageSize"), ({"region_id": ""}, "MissingParameter"),
                             ({"region_id": "mars"}, "InvalidRegionId.NotFound")):
        with pytest.raises(Exception, match=code):
            sdk.list_instances(models.ListInstancesRequest(**{"region_id": REGION, **parameters}))


def test_the_host_is_that_of_the_vendors_list_of_regions() -> None:
    """As RegionEndpoint says it."""
    request = sign("ListInstances", "2020-06-01", "https://swas.cn-hangzhou.aliyuncs.com/", {}, Keys("a", "b"), 0, "1")
    assert request.headers["x-acs-version"] == "2020-06-01"
    case = WHAT["swas"]["cases"][0]["exchanges"][0]
    assert case["host"] == "swas.cn-hangzhou.aliyuncs.com"


def test_keys_without_the_right_and_a_role(app: App, cloud: Swas, keys: dict[str, str]) -> None:
    cloud.denied = {"ListInstances"}
    with pytest.raises(PartyDenied, match=r"Forbidden\.RAM"):
        ours(app)
    with pytest.raises(PartyDenied):
        check.check_account(app.deployment, "123", "swas", REGION)
    cloud.denied = set()
    cloud.roles = {"acs:ram::1234567890123456:role/reader": "abc"}
    role = {**keys, "role_arn": "acs:ram::1234567890123456:role/reader"}
    app.account("swas", role, cloud.url)
    with pytest.raises(PartyDenied):
        ours(app)
    app.account("swas", {**role, "external_id": "abc"}, cloud.url)
    cloud.forget()
    assert ours(app).total == ours(app).total == SIZE
    assert cloud.count("AssumeRole") == 1


def test_regions(app: App, cloud: Swas, keys: dict[str, str]) -> None:
    account = Account(tenant_id="1", party="swas", credentials=keys, endpoint=cloud.url, regions=("cn-nowhere",))
    send = app.deployment.transport.sender(swas.PARTY, account, REGION, time.monotonic() + 9)
    assert [region.code for region in parties.list_regions(account, send)] == [*REGIONS]
    cloud.plans.clear()
    with pytest.raises(PartyMalformed):
        cloud.fail("object")
        parties.list_regions(account, send)
