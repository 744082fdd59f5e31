"""Microsoft's own clients for Resource Graph and Compute against the simulator, and beside us."""

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import requests
import time_machine

pytest.importorskip("azure.mgmt.resourcegraph")
pytest.importorskip("azure.mgmt.compute")

from azure.core import AzureClouds
from azure.core.exceptions import HttpResponseError
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.compute import models as compute_models
from azure.mgmt.core.tools import get_arm_endpoints
from azure.mgmt.resourcegraph import ResourceGraphClient
from azure.mgmt.resourcegraph import models as graph_models

from tests import canaries
from tests.fixtures import App
from tests.unit.test_discovery import Organisation
from tests.unit.test_parties import WHAT, account_of
from tests.verified import assert_same, lister

from ... import parties
from ...cloud import rate_limit
from ...errors import PartyDenied, PartyError, PartyMalformed, UnknownRegion
from ...fleet import check, many_sources
from ...fleet.many_sources import Window
from ...model import Member
from ...simulators.faults import FAULTS, LATE, Answer
from ...simulators.fleet import Fleet, Machines, seed_machine
from ...simulators.server import Plan
from .. import azure
from .reference import Secret
from .simulator import CLIENT, SUBSCRIPTION, Azure, start

PLAIN = {"enforce_https": False}            # the clients refuse to send a token over http otherwise


def graph(url: str, credentials: dict[str, Any]) -> ResourceGraphClient:
    return ResourceGraphClient(Secret(url, credentials), url, retry_total=0)


machines = lister("azure")


@pytest.fixture
def cloud(stack: ExitStack) -> Azure:
    simulator, _ = start({"eastus": Fleet(237, first=seed_machine()), "eastus2": Fleet(0),
                          "westeurope": Fleet(3, "west")},
                       canaries.secret("azure"), limited=False)
    assert isinstance(simulator, Azure)
    return stack.enter_context(simulator)


def keys(cloud: Azure) -> dict[str, Any]:
    _, made = start({}, cloud.secrets[CLIENT])
    _.close()
    return made


def ours(app: App, cloud: Azure, region: str = "eastus", **more: Any) -> many_sources.Answer:
    if "azure" not in app.clouds:
        app.clouds["azure"] = cloud
        app.account("azure", keys(cloud), cloud.url)
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "azure", region), **more)


def test_the_clients_and_we_list_the_same_machines(app: App, cloud: Azure) -> None:
    answer = ours(app, cloud)
    theirs = machines(cloud.url, keys(cloud), "eastus")
    assert answer.total == len(theirs) == 237
    assert_same(answer.servers, theirs)
    part = ours(app, cloud, window=Window(101, 110))
    assert part.servers == answer.servers[100:110]
    assert part.total == 237
    assert [s.name for s in ours(app, cloud, "westeurope").servers] == sorted(
        m["name"] for m in machines(cloud.url, keys(cloud), "westeurope").values())


def test_the_client_asks_as_we_do(app: App, cloud: Azure) -> None:
    """The same words given to the client arrive as the same request."""
    ours(app, cloud)
    mine = [call for call in cloud.calls if call.operation.startswith("Query")]
    assert len(mine) >= 4
    client = graph(cloud.url, keys(cloud))
    for call in mine:
        query = msgspec.json.decode(call.body)
        options = query["options"]
        answer = client.resources(graph_models.QueryRequest(
            query=query["query"], subscriptions=query["subscriptions"], options=graph_models.QueryRequestOptions(
                skip=options["$skip"], top=options["$top"], result_format=options["resultFormat"])), **PLAIN)
        theirs = cloud.calls[-1]
        assert (theirs.method, theirs.path, theirs.query) == (call.method, call.path, call.query)
        # its default
        assert msgspec.json.decode(theirs.body) == query | {"options": options | {"allowPartialScopes": False}}
        assert theirs.headers["content-type"] == call.headers["content-type"] == "application/json"
        assert theirs.headers["authorization"].split()[0] == call.headers["authorization"].split()[0] == "Bearer"
        assert answer.total_records >= answer.count == len(answer.data)
    list(ComputeManagementClient(Secret(cloud.url, keys(cloud)), SUBSCRIPTION,
                                 cloud.url).virtual_machine_sizes.list("eastus", **PLAIN))
    theirs, mine = cloud.calls[-1], [call for call in cloud.calls if call.operation == "vmSizes"]
    assert theirs.path == mine[0].path
    assert theirs.method == mine[0].method


def test_the_hosts_and_scopes_are_those_of_the_clients() -> None:
    names = {AzureClouds.AZURE_PUBLIC_CLOUD: "public", AzureClouds.AZURE_CHINA_CLOUD: "china",
             AzureClouds.AZURE_US_GOVERNMENT: "usgovernment"}
    assert list(names) == list(AzureClouds)
    assert set(names.values()) == azure._SITES.keys()
    for theirs, name in names.items():
        ends, mine = get_arm_endpoints(theirs), azure._SITES[name]
        assert (f"https://{mine.management}/", [mine.scope]) == (ends["resource_manager"], ends["credential_scopes"])


def test_accounts_of_one_principal_share_the_quota() -> None:
    """Whatever their subscription or region; another app registration has its own."""
    one = account_of("azure")
    others = [account_of("azure", {**one.credentials, **change}) for change in (
        {"subscription_id": "other"}, {"client_secret": "rotated"}, {"client_id": "other"}, {"directory_id": "other"})]
    rates = rate_limit.RateLimits()
    regions = ("eastus", "westus", "westus", "eastus", "eastus")
    limiters = [rates.limiter(azure.PARTY, account, region, "QueryResources")
                for account, region in zip((one, *others), regions, strict=True)]
    assert [limiter is limiters[0] for limiter in limiters] == [True, True, True, False, False]


def test_the_models_know_the_answers_of_our_fixtures() -> None:
    count = 0
    for case in WHAT["azure"]["cases"]:
        for exchange in case["exchanges"]:
            body, status = exchange["answer"].get("json"), exchange["answer"]["status"]
            if body is None or "unknown" in case["name"] or exchange["operation"] == "Login":
                continue
            if status >= 400:
                assert graph_models.ErrorResponse.deserialize(body).error.code
            elif exchange["operation"] == "QueryResources":
                answer = graph_models.QueryResponse.deserialize(body)
                assert answer.total_records >= answer.count == len(answer.data)
                assert answer.result_truncated == "false"
                for row in answer.data:
                    if row.get("cores") or row.get("os_disk"):
                        compute_models.VMSizeProperties(row.get("cores") or {})
                        assert compute_models.OSDisk(row.get("os_disk") or {}).as_dict() == (row.get("os_disk") or {})
            elif exchange["operation"] == "ListVirtualMachineSizes":
                assert all(compute_models.VirtualMachineSize(size).memory_in_mb for size in body["value"])
            else:
                continue
            count += 1
    assert count > 60


# ---------------------------------------------------------------- the simulator refuses what the real one refuses

@pytest.mark.parametrize(("parameters", "code"), [
    ({"query": "Resources | where type =~ 'x' | drop name"}, "BadRequest"), ({"top": 1001}, "BadRequest"),
    ({"top": 0}, "BadRequest"),
    ({"skip": -1}, "BadRequest")])
def test_the_simulator_enforces_what_is_documented(cloud: Azure, parameters: dict[str, Any], code: str) -> None:
    with pytest.raises(HttpResponseError) as refused:
        graph(cloud.url, keys(cloud)).resources(graph_models.QueryRequest(
            query=parameters.pop("query", "Resources | project id | order by id asc"), subscriptions=[SUBSCRIPTION],
            options=graph_models.QueryRequestOptions(**parameters)), **PLAIN)
    assert refused.value.error is not None
    assert refused.value.error.code == code


def test_pages_need_an_order_and_an_id_and_other_subscriptions_are_silent(cloud: Azure) -> None:
    client = graph(cloud.url, keys(cloud))

    def asked(query: str, subscriptions: list[str]) -> graph_models.QueryResponse:
        return client.resources(graph_models.QueryRequest(query=query, subscriptions=subscriptions, options=(
            graph_models.QueryRequestOptions(top=100, result_format="objectArray"))), **PLAIN)

    one = asked("Resources | where type =~ 'microsoft.compute/virtualmachines' | project id", [SUBSCRIPTION])
    assert one.skip_token
    assert one.data != asked(
        "Resources | where type =~ 'microsoft.compute/virtualmachines' | project id", [SUBSCRIPTION]).data
    blind = asked("Resources | project name | order by name asc", [SUBSCRIPTION])
    assert blind.skip_token is None
    assert blind.result_truncated == "true"
    assert blind.total_records > 1000
    assert asked("Resources | project id | order by id asc", [CLIENT]).total_records == 0


@pytest.mark.parametrize("change", ["token", "content type", "scheme", None])
def test_the_simulator_refuses_a_changed_byte(cloud: Azure, change: str | None) -> None:
    token = Secret(cloud.url, keys(cloud)).get_token("https://management.azure.com/.default").token
    if change == "token":
        token = token[:-1] + ("0" if token[-1] != "0" else "1")
    answer = requests.post(
        f"{cloud.url}/providers/Microsoft.ResourceGraph/resources?api-version=2021-03-01", timeout=9,
        data=msgspec.json.encode({"subscriptions": [SUBSCRIPTION],
                                  "query": "Resources | project id | order by id asc"}),
        headers={"Authorization": f"{'Basic' if change == 'scheme' else 'Bearer'} {token}",
                 "Content-Type": "text/plain" if change == "content type" else "application/json"})
    assert answer.status_code == {"token": 401, "scheme": 401, "content type": 500, None: 200}[change]


# ---------------------------------------------------------------- we, against the simulator

def test_the_login_is_kept_until_its_end_and_made_again_if_refused(app: App, cloud: Azure) -> None:
    for _ in range(3):
        assert ours(app, cloud, "eastus2").total == 0
    assert cloud.count("Login") == 1
    with time_machine.travel(time.time() + 3599 - 59):
        assert ours(app, cloud, "eastus2").total == 0
        assert cloud.count("Login") == 2
        cloud.tokens.clear()                # revoked at the party
        assert ours(app, cloud, "eastus2").total == 0
        assert cloud.count("Login") == 3


def test_calls_of_a_list_and_of_a_window(app: App, cloud: Azure) -> None:
    ours(app, cloud)
    assert cloud.count() == 6               # login, servers, interfaces, public addresses, disks, sizes
    cloud.forget()
    ours(app, cloud, window=Window(11, 20))
    assert cloud.count() <= 4
    cloud.forget()
    assert ours(app, cloud, "eastus2").servers == []
    assert cloud.count() == 2


def test_what_is_hidden_is_refused(app: App, cloud: Azure) -> None:
    ours(app, cloud)
    with pytest.raises(UnknownRegion):
        ours(app, cloud, "atlantis")
    for kind, right in (("microsoft.network/networkinterfaces", "networkInterfaces/read"),
                        ("microsoft.compute/disks", "disks/read"),
                        ("microsoft.network/publicipaddresses", "publicIPAddresses/read")):
        cloud.hidden = {kind}
        with pytest.raises(PartyDenied, match=right):
            ours(app, cloud)
    cloud.hidden = set()
    app.account("azure", {**keys(cloud), "subscription_id": CLIENT}, cloud.url)
    with pytest.raises(PartyDenied, match="SubscriptionNotFound"):
        ours(app, cloud)
    app.account("azure", {**keys(cloud), "client_secret": canaries.secret("azure")}, cloud.url)
    with pytest.raises(PartyDenied, match="wrong key"):
        ours(app, cloud)


def test_a_resource_group_is_a_project(app: App, cloud: Azure) -> None:
    whole = ours(app, cloud)
    app.account("azure", keys(cloud), cloud.url, project="RG-1002189")
    part = ours(app, cloud)
    assert part.servers == [server for server in whole.servers if server.project_id == "rg-1002189"] != []
    app.account("azure", keys(cloud), cloud.url, project="rg-nobody")
    with pytest.raises(PartyDenied, match="no such resource group"):
        ours(app, cloud)


def test_the_check_of_an_account(app: App, cloud: Azure) -> None:
    ours(app, cloud)
    assert check.check_account(app.deployment, "123", "azure") == "eastus"
    assert check.check_account(app.deployment, "123", "azure", "eastus2") == "eastus2"
    with pytest.raises(UnknownRegion):
        check.check_account(app.deployment, "123", "azure", "atlantis")


@pytest.mark.slow
def test_the_documented_rate_is_kept(app: App, stack: ExitStack) -> None:
    """Five windows in a row are twenty queries; the simulator refuses the sixteenth in five seconds, we wait before
    it."""
    simulator, credentials = start({"eastus": Fleet(30)}, canaries.secret("azure"))
    stack.enter_context(simulator)
    app.account("azure", credentials, simulator.url)
    began = time.monotonic()
    for first in (1, 6, 11, 16, 21):
        assert many_sources.list_servers(app.deployment, many_sources.source_of("123", "azure", "eastus"),
                                      Window(first, first + 4)).total == 30
    assert time.monotonic() - began > 4 or simulator.count() < 16
    query = next(call for call in simulator.calls if call.operation.startswith("Query"))
    assert {simulator.answer(replace(query, at=query.at + 60)).status for _ in range(16)} == {200, 429}


# ---------------------------------------------------------------- many subscriptions

def many(behind: Organisation, members: list[Member]) -> dict[str, Any]:
    results = behind.ask(behind.account, lambda send: parties.list_many(behind.account, members, send))
    assert results is not None
    return results


def test_the_client_and_we_find_the_same_subscriptions(stack: ExitStack) -> None:
    behind = Organisation("azure", stack, more=120)
    client = graph(behind.cloud.url, dict(behind.account.credentials))

    def theirs(**scope: Any) -> dict[str, str]:
        answer = client.resources(graph_models.QueryRequest(
            query="ResourceContainers | where type =~ 'microsoft.resources/subscriptions' | project id, name, "
                  "subscriptionId | order by id asc", options=graph_models.QueryRequestOptions(
                      result_format="objectArray", top=1000), **scope), **PLAIN)
        return {row["subscriptionId"]: row["name"] for row in answer.data}

    every = behind.discover()
    assert {member.id: member.name for member in every} == theirs(subscriptions=[*behind.cloud.ids.values()])
    group = behind.cloud.units["products"]
    assert {member.id: member.name for member in behind.discover(below=group)} == theirs(management_groups=[group])


@pytest.mark.slow
def test_many_subscriptions_are_listed_together_as_each_is_alone(stack: ExitStack) -> None:
    """Whole records, in the same order; the locked one is denied, never empty."""
    behind = Organisation("azure", stack)
    door: Any = behind.cloud
    for name, branch in zip(("top", "payments"), behind.branches[1:3], strict=True):
        assert branch.name == name
        more = Machines(replace(Fleet(130, name)[n], name=f"west-{n}") for n in range(130))
        door.subscriptions[door.ids[name]] = replace(branch, fleets={**branch.fleets, "westeurope": more})
    members = [member for member in behind.discover() if not member.closed]
    locked = Member(id=door.ids["locked"])
    results = many(behind, [*members, locked])
    assert results.keys() == {member.id for member in (*members, locked)}
    assert isinstance(results[locked.id], PartyDenied)
    for member in members:
        for region in ("eastus", "westeurope"):
            behind.region = region
            assert results[member.id].get(region, []) == behind.servers(member).servers, (member, region)
    assert results[door.ids["empty"]] == {}
    assert [len(results[door.ids[name]]) for name in ("door", "top")] == [1, 2]


def test_the_calls_do_not_grow_with_the_subscriptions(stack: ExitStack) -> None:
    counts: list[int] = []
    for more in (0, 250):
        behind = Organisation("azure", stack, more=more)
        members = [member for member in behind.discover() if not member.closed]
        behind.forget()
        assert sum(len(servers) for lists in many(behind, members).values() for servers in lists.values()) == 14 + more
        counts.append(len(behind.cloud.calls))
    assert counts[0] == counts[1] == 1 + 5 + 1                  # the login, a query for each kind, the sizes


def test_many_subscriptions_none_of_which_may_be_read(stack: ExitStack) -> None:
    behind = Organisation("azure", stack)
    behind.discover()
    behind.cloud.plans.append(Plan(answer=Answer(400, {}, msgspec.json.encode({"error": {
        "code": "BadRequest", "message": "", "details": [{"code": "NoValidSubscriptionsInQueryRequest"}]}}))))
    results = many(behind, [Member(id=behind.cloud.ids[name]) for name in ("locked", "top")])
    assert [type(each) for each in results.values()] == [PartyDenied, PartyDenied]


def test_what_many_subscriptions_hide_is_a_failure_of_those_that_hide_it(stack: ExitStack) -> None:
    behind = Organisation("azure", stack)
    door: Any = behind.cloud
    door.hidden = {"microsoft.compute/disks"}
    results = many(behind, [member for member in behind.discover() if not member.closed])
    assert {name for name, key in door.ids.items() if isinstance(results.get(key), PartyDenied)} == {
        "door", "top", "payments", "basket"}
    assert "Microsoft.Compute/disks/read" in results[door.ids["top"]].text
    assert results[door.ids["empty"]] == {}


def test_a_search_of_a_part_of_the_subscriptions_is_an_error(stack: ExitStack) -> None:
    behind = Organisation("azure", stack)
    door: Any = behind.cloud
    members = behind.discover()
    door.cut = True
    with pytest.raises(PartyMalformed, match="part of the subscriptions"):
        many(behind, members)
    with pytest.raises(PartyMalformed, match="part of the subscriptions"):
        behind.discover(below=door.units["products"])


@pytest.mark.sample(3)
@pytest.mark.parametrize("fault", [
    pytest.param(fault, marks=[] if fault in ("403", "cut body", "object") else pytest.mark.slow)
    for fault, (_, word) in FAULTS.items() if word and fault not in LATE])
def test_every_fault_of_a_listing_together_is_an_error(fault: str, stack: ExitStack) -> None:
    behind = Organisation("azure", stack)
    members = [member for member in behind.discover() if not member.closed]
    for operation in ("Query subscriptions", "Query virtualmachines", "Query networkinterfaces", "Query disks",
                      "Query publicipaddresses", "vmSizes"):
        behind.forget()
        behind.cloud.fail(fault, operation)
        with pytest.raises(PartyError) as failed:
            many(behind, members)
        assert failed.value.code == FAULTS[fault][1], operation
