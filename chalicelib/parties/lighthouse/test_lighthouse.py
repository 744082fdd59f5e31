"""Tencent's own SDK: what it lists at the simulator, we list."""

import random
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.lighthouse.v20200324 import errorcodes, models

from chalicelib import parties
from chalicelib.errors import REGION, PartyDenied, PartyMalformed
from chalicelib.fleet import check, many_sources
from chalicelib.fleet.many_sources import Answer, Window
from chalicelib.model import Account, Status
from chalicelib.parties import lighthouse
from chalicelib.parties.lighthouse.simulator import REGIONS, Lighthouse
from chalicelib.simulators.fleet import Fleet
from tests.fixtures import App, qcloud_keys
from tests.verified import account, assert_same, lister, reference

SIZE = 237


@pytest.fixture
def cloud(stack: ExitStack, app: App) -> Lighthouse:
    keys = qcloud_keys()
    made = stack.enter_context(Lighthouse({keys["secret_id"]: keys["secret_key"]},
                                          {"ap-guangzhou": Fleet(SIZE, gone=True)}, limited=False))
    app.account("lighthouse", keys, made.url)
    return made


def sdk(cloud: Lighthouse, token: str | None = None) -> Any:
    (key_id, secret), = cloud.keys.items()
    return client(cloud.url, {"secret_id": key_id, "secret_key": secret}, "ap-guangzhou", token)


def client(url: str, credentials: Mapping[str, str], region: str, token: str | None = None) -> Any:
    return reference("lighthouse").client(account("lighthouse", url, {**credentials, **(
        {"token": token} if token else {})}), region)


machines = lister("lighthouse")


def asked(request: Any, parameters: dict[str, object]) -> Any:
    request._deserialize(parameters)
    return request


def pages(call: Any, request: Any, of: str) -> list[Any]:
    """The loop that the SDK leaves to its user."""
    rows: list[Any] = []
    while True:
        answer = call(asked(request(), {"Offset": len(rows), "Limit": 100}))
        rows += getattr(answer, of) or []
        if len(rows) >= answer.TotalCount:
            return rows


def ours(app: App, window: Window = many_sources.WHOLE) -> Answer:
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "lighthouse", "gz"), window)


def test_the_sdk_and_we_list_the_same_machines(app: App, cloud: Lighthouse) -> None:
    made = sdk(cloud)
    theirs = pages(made.DescribeInstances, models.DescribeInstancesRequest, "InstanceSet")
    disks = pages(made.DescribeDisks, models.DescribeDisksRequest, "DiskSet")
    (key_id, secret), = cloud.keys.items()
    views = machines(cloud.url, {"secret_id": key_id, "secret_key": secret}, "ap-guangzhou")
    assert {disk.DiskUsage for disk in disks} == {"SYSTEM_DISK", "DATA_DISK"}
    assert any(not disk.Attached for disk in disks)
    cloud.forget()
    servers = ours(app).servers
    assert len(servers) == len(theirs) == SIZE
    assert_same(servers, views)
    assert [server.id for server in servers] == [row.InstanceId for row in theirs]
    assert all(server.created_at and server.expires_at and server.os == "linux" for server in servers)
    first = servers[0]
    assert first.status is Status.SOFT_DELETED                  # what waits to be recycled comes first
    for window, calls in ((Window(1, 1), 2), (Window(41, 140), 3)):
        cloud.forget()
        assert ours(app, window).servers == servers[window.first - 1:window.last]
        assert cloud.count() <= calls


def test_the_words_of_the_sdks_list_that_say_who_or_where_have_their_meaning() -> None:
    words = {word for word in vars(errorcodes).values() if isinstance(word, str)}
    regions = {word for word in words if "Region" in word and word.startswith(("AuthFailure", "InvalidParameterValue"))}
    regions -= {word for word in regions if "DestinationRegion" in word}        # of a call that copies images
    assert len(regions) > 3
    assert {word for word in regions if lighthouse.PARTY.errors.get(word) != REGION} == set()


def test_the_simulator_enforces_what_is_documented(cloud: Lighthouse) -> None:
    client = sdk(cloud)
    for call, request, parameters, code in (
            (client.DescribeInstances, models.DescribeInstancesRequest, {"Limit": 101},
             "InvalidParameterValue.LimitExceeded"),
            (client.DescribeInstances, models.DescribeInstancesRequest,
             {"Filters": [{"Name": "project-id", "Values": ["1"]}]}, "InvalidParameter.InvalidFilterNotSupportedName"),
            (client.DescribeDisks, models.DescribeDisksRequest,
             {"Filters": [{"Name": "instance-id", "Values": [str(n) for n in range(101)]}]},
             "InvalidParameter.FilterValueLimitExceeded")):
        with pytest.raises(TencentCloudSDKException) as refused:
            call(asked(request(), parameters))
        assert refused.value.code == code
    assert len(client.DescribeInstances(models.DescribeInstancesRequest()).InstanceSet) == 20       # the default


def test_a_server_that_is_isolated_meanwhile_is_listed_once(app: App, cloud: Lighthouse) -> None:
    """It moves to the front of the list and shifts all rows before its old place."""
    dice, failures = random.Random("isolated"), 0

    def isolate() -> None:
        if dice.random() < 0.3:
            cloud.isolated.add(dice.randrange(SIZE))

    cloud.between = isolate
    for _ in range(8):
        app.clock.forward(60)
        try:
            servers = ours(app).servers
        except PartyMalformed:
            failures += 1
            continue
        assert len({server.id for server in servers}) == len(servers) == SIZE
    assert cloud.isolated
    assert failures <= 1


def test_the_check_tries_both_rights(app: App, cloud: Lighthouse) -> None:
    assert check.check_account(app.deployment, "123", "lighthouse", "gz")
    for operation in ("DescribeInstances", "DescribeDisks"):
        cloud.forget()
        cloud.fail("403", operation)
        with pytest.raises(PartyDenied):
            check.check_account(app.deployment, "123", "lighthouse", "gz")


def test_regions(app: App, cloud: Lighthouse) -> None:
    (key_id, secret), = cloud.keys.items()
    account = Account(tenant_id="1", party="lighthouse", endpoint=cloud.url,
                      credentials={"secret_id": key_id, "secret_key": secret})
    send = app.deployment.transport.sender(lighthouse.PARTY, account, "ap-guangzhou", time.monotonic() + 9)
    assert [region.code for region in parties.list_regions(account, send) if region.open] == [*REGIONS]
