"""openstacksdk judges the adapter and its simulator."""

import json
import time
from collections import Counter
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from chalicelib import parties
from tests import canaries
from tests.fixtures import App
from tests.unit.test_discovery import Organisation
from tests.unit.test_parties import WHAT
from tests.verified import account, assert_same, lister, reference

from ...access import accounts
from ...cloud import cache
from ...errors import InvalidParameter, PartyDenied, PartyMalformed, PartyUnavailable, UnknownRegion
from ...fleet import check, many_sources
from ...model import Member, Response
from ...simulators.fleet import Fleet
from .. import openstack
from .simulator import Openstack

sdk = pytest.importorskip("openstack")
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


def connection(credentials: dict[str, Any], region: str) -> Any:
    return reference("openstack").connection(account("openstack", "", credentials), region)


machines = lister("openstack")


def listed(app: App, region: str = "RegionOne", **more: Any) -> many_sources.Answer:
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "openstack", region), **more)


def a_cloud(stack: ExitStack, app: App, size: int = 237, **more: Any) -> tuple[Openstack, dict[str, str]]:
    password = canaries.secret("openstack")
    cloud = stack.enter_context(Openstack({("demo", "default"): password}, {}, {"RegionOne": Fleet(size, "os")},
                                          **more))
    credentials = {"auth_url": f"{cloud.url}/identity", "username": "demo", "password": password,
                   "project_id": cloud.project}
    put(app, credentials)
    return cloud, credentials


def put(app: App, credentials: dict[str, str], project: str | None = None) -> None:
    made = accounts.check("123", openstack.PARTY, credentials, project=project, regions=(), deep=False, endpoint=None,
                          local=True)
    accounts.put(app.deployment.store, app.deployment.sealer(), made, app.clock(), replace=True)


@pytest.mark.slow
def test_the_sdk_and_we_list_the_same_machines(app: App, stack: ExitStack) -> None:
    cloud, credentials = a_cloud(stack, app, 1010)
    answer = listed(app)
    theirs = machines(cloud.url, credentials, "RegionOne")
    assert len(theirs) == answer.total == 1010
    assert_same(answer.servers, theirs)
    order = [server.created_at for server in answer.servers]
    assert order == sorted(order, key=lambda time: time or datetime.max)
    assert {server.updated_at is None for server in answer.servers} == {True, False}
    with pytest.raises(UnknownRegion):
        listed(app, "Mars")
    assert listed(app, "RegionTwo").total == 0                # a region that is there, without servers


@pytest.mark.parametrize("how", ["password", "application credential", "project by name"])
def test_the_sdk_logs_in_as_we_do(app: App, stack: ExitStack, how: str) -> None:
    cloud, credentials = a_cloud(stack, app, 3)
    login: dict[str, Any] = dict(credentials)
    if how == "application credential":
        cloud.secrets["5ac8"] = canaries.secret("credential")
        credentials = login = {"auth_url": credentials["auth_url"], "application_credential_id": "5ac8",
                               "application_credential_secret": cloud.secrets["5ac8"]}
    elif how == "project by name":
        credentials = {**credentials, "project_id": "demo", "user_domain": "Default", "project_domain": "Default"}
        login = {"auth_url": credentials["auth_url"], "username": "demo", "password": credentials["password"],
                 "project_name": "demo", "user_domain": "Default", "project_domain": "Default"}
    put(app, credentials)
    connection(login, "RegionOne").authorize()
    theirs = next(call for call in cloud.calls if call.operation == "Login")
    cloud.forget()
    assert listed(app).total == 3
    mine = cloud.calls[0]
    assert mine.operation == "Login"
    assert (mine.method, mine.path) == (theirs.method, theirs.path)
    assert json.loads(mine.body) == json.loads(theirs.body)


def test_the_sdk_knows_every_field_of_our_fixtures_and_simulators(app: App, stack: ExitStack) -> None:
    from openstack.compute.v2.server import Server as Row

    cloud, _ = a_cloud(stack, app, 4)
    listed(app)
    rows = [row for case in WHAT["openstack"]["cases"] if "unknown shape" not in case["name"]
            for exchange in case["exchanges"]
            if exchange["operation"] == "ListServersDetailed"
            for row in (exchange["answer"].get("json") or {}).get("servers") or []]
    rows += [cloud._row(Fleet(4, "os")[n], 100) for n in range(4)]
    known = set(Row._body_mapping())
    assert len(rows) > 60
    assert set().union(*rows) <= known


@pytest.mark.parametrize("newest", [100, 68, 47, 46, 1, 0])
def test_clouds_of_all_ages_give_the_same_records(app: App, stack: ExitStack, newest: int) -> None:
    """0: a Nova that knows no versions. Before 2.47 the flavors are listed, once."""
    a_cloud(stack, app)
    now = listed(app).servers
    cloud, _ = a_cloud(stack, app, newest=newest)
    then = listed(app, window=many_sources.WHOLE)
    assert then.total == 237
    assert [(s.id, s.cpu, s.memory_mib, s.disk_gib, s.status, s.instance_type) for s in then.servers] == [
        (s.id, s.cpu, s.memory_mib, s.disk_gib, s.status, s.instance_type) for s in now]
    listed(app)
    assert cloud.count("ListFlavorsDetailed") == (1 if newest < 47 else 0)
    part = listed(app, window=many_sources.Window(201, 210))
    assert [s.id for s in part.servers] == [s.id for s in now[200:210]]
    assert part.total in (None, 237)


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 7, 100])
def test_a_limit_that_is_cut_silently(app: App, stack: ExitStack, most: int) -> None:
    a_cloud(stack, app, 30)
    whole = listed(app).servers
    a_cloud(stack, app, 30, most=most)
    assert [server.id for server in listed(app).servers] == [server.id for server in whole]
    assert [server.id for server in listed(app, window=many_sources.Window(9, 11)).servers] == [
        s.id for s in whole[8:11]]


@pytest.mark.parametrize("lost", [1, 30])
@pytest.mark.parametrize("window", [many_sources.WHOLE, many_sources.Window(1, 10), many_sources.Window(25)])
def test_a_lost_cell_is_no_shorter_list(app: App, stack: ExitStack, lost: int, window: many_sources.Window) -> None:
    """openstacksdk shows the shorter list."""
    cloud, credentials = a_cloud(stack, app, 30, lost=lost)
    assert len(list(connection(credentials, "RegionOne").compute.servers(details=True, limit=100))) == 30 - lost
    with pytest.raises(PartyUnavailable):
        listed(app, window=window)
    cloud.lost = 0
    assert listed(app).total == 30


def test_the_calls(app: App, stack: ExitStack) -> None:
    """A login is kept; a window reads one row more than it shows; far in it skips by ids; volumes end when found."""
    cloud, _ = a_cloud(stack, app, 999)
    listed(app)
    assert Counter(call.operation for call in cloud.calls) == {
        "Login": 1, "ListServersDetailed": 1, "ListServers": 1, "ListVolumesDetailed": 2}
    for window, calls in ((many_sources.Window(1, 10),
                           {"ListServersDetailed": 1, "ListServers": 1, "ListVolumesDetailed": 1}),
                          (many_sources.Window(901, 910),
                           {"ListServersDetailed": 1, "ListServers": 2, "ListVolumesDetailed": 1})):
        cloud.forget()
        answer = listed(app, window=window)
        assert answer.total == 999
        assert len(answer.servers) == 10
        assert Counter(call.operation for call in cloud.calls) == calls
        assert next(call for call in cloud.calls if call.operation
                    == "ListServersDetailed").query.startswith("limit=11&")


def test_a_token_that_ended_early_is_renewed_once(app: App, stack: ExitStack) -> None:
    cloud, credentials = a_cloud(stack, app, 5)
    assert listed(app).total == 5
    cloud.tokens.clear()
    assert listed(app).total == 5
    assert cloud.count("Login") == 2
    put(app, {**credentials, "password": canaries.secret("wrong")})
    with pytest.raises(PartyDenied, match="wrong key"):
        listed(app)
    assert cloud.count("Login") == 3


def test_check_and_regions(app: App, stack: ExitStack) -> None:
    cloud, credentials = a_cloud(stack, app, 5)
    assert check.check_account(app.deployment, "123", "openstack") == "RegionOne"
    account = accounts.load(app.deployment.store, app.deployment.sealer, "123", "openstack", local=True)
    send = app.deployment.transport.sender(openstack.PARTY, account, "RegionOne", time.monotonic() + 9)
    assert [region.code for region in parties.list_regions(account, send)] == ["RegionOne", "RegionTwo"]
    assert cloud.count("Login") == 1
    put(app, credentials, project="f" * 32)
    with pytest.raises(PartyDenied):
        check.check_account(app.deployment, "123", "openstack")
    cloud.secrets["id"] = canaries.secret("credential")
    put(app, {"auth_url": credentials["auth_url"], "application_credential_id": "id",
                "application_credential_secret": cloud.secrets["id"]}, project="f" * 32)
    with pytest.raises(PartyDenied, match="another project"):
        listed(app)


@pytest.mark.parametrize("end", ["", "/", "/v3", "/v3/"])
def test_the_forms_of_credentials(app: App, stack: ExitStack, end: str) -> None:
    """The address with and without its version; names and passwords of any printable characters."""
    name, password = "Jörg 用户 =\"'\\", canaries.watch(f"{canaries.secret('openstack')} пароль \"\\ ")
    cloud = stack.enter_context(Openstack({(name, "default"): password}, {}, {"RegionOne": Fleet(3)}))
    credentials = {"auth_url": f"{cloud.url}/identity{end}", "username": name, "password": password,
                   "project_id": cloud.project}
    put(app, credentials)
    assert listed(app).total == 3
    for wrong in ({"username": "a\nb"}, {"password": "\x00"}, {"password": "\ud800"}, {"auth_url": "https://me@host/"},
                  {"auth_url": "http://example.com"}, {"auth_url": f"{cloud.url}/?x=1"}, {"region": "RegionOne"},
                  {"project_id": ""}):
        with pytest.raises(InvalidParameter):
            put(app, {**credentials, **wrong})


def test_a_token_is_never_sent_in_plain_text_to_another_host(app: App, stack: ExitStack) -> None:
    cloud, credentials = a_cloud(stack, app, 3)
    there = cloud.url
    cloud.url = there.replace("127.0.0.1", "localhost")         # what the catalogue is made of
    with pytest.raises(PartyMalformed):
        listed(app)
    cache.forget()
    made = accounts.check("123", openstack.PARTY, {**credentials, "auth_url": "https://identity.example.com/identity"},
                          project=None, regions=(), deep=False, endpoint=there, local=True)
    accounts.put(app.deployment.store, app.deployment.sealer(), made, app.clock(), replace=True)
    assert listed(app).total == 3                             # an endpoint stands in for every address


@pytest.mark.parametrize("change", ["token", "path", "version", None])
def test_the_simulator_refuses_a_changed_byte(app: App, stack: ExitStack, change: str | None) -> None:
    cloud, _ = a_cloud(stack, app, 3)
    listed(app)
    call = next(call for call in cloud.calls if call.operation == "ListServersDetailed")
    headers, path = dict(call.headers), call.path
    if change == "token":
        token = headers["x-auth-token"]
        headers["x-auth-token"] = token[:-1] + ("0" if token[-1] != "0" else "1")
    elif change == "path":
        path = path.replace("RegionOne", "RegionTen")
    elif change == "version":
        headers["openstack-api-version"] = "compute 2.101"
    answer = requests.get(f"{cloud.url}{path}?{call.query}", headers=headers, timeout=9)
    assert answer.status_code == {"token": 401, "path": 404, "version": 406, None: 200}[change]
    assert openstack.error_code(Response(answer.status_code, {}, answer.content)) == {
        "token": "Unauthorized", "path": "itemNotFound", "version": "computeFault", None: None}[change]


def test_the_simulator_enforces_what_is_documented(app: App, stack: ExitStack) -> None:
    cloud, credentials = a_cloud(stack, app, 30, most=20)
    nova = connection(credentials, "RegionOne").compute
    for parameters, status in (({"limit": "-1"}, 400), ({"limit": "x"}, 400), ({"marker": "nobody"}, 400),
                               ({"sort_key": "nonsense"}, 400),
                               ({"all_tenants": "1"}, 403), ({"limit": "5000"}, 200)):
        answer = nova.get("/servers", params=parameters)
        assert answer.status_code == status, parameters
    assert len(answer.json()["servers"]) == 20
    assert answer.json()["servers_links"][0]["rel"] == "next"
    assert nova.get("/servers?limit=0").json() == {"servers": []}
    token = next(iter(cloud.tokens))
    cloud.tokens[token] = datetime.now(UTC)
    assert nova.get("/servers").status_code == 200              # the SDK logs in again, once
    assert cloud.count("Login") == 2


# ---------------------------------------------------------------- all projects of a user

def test_the_sdk_and_we_find_the_same_projects(stack: ExitStack) -> None:
    behind = Organisation("openstack", stack)
    credentials = {**behind.account.credentials, "project_id": behind.cloud.ids["top"]}
    keystone = connection(credentials, "RegionOne")
    assert {(member.id, member.name) for member in behind.discover()} == {
        (row["id"], row["name"]) for row in keystone.identity.get("/auth/projects").json()["projects"]}
    with pytest.raises(sdk.exceptions.SDKException):
        connection({**credentials, "project_id": behind.cloud.ids["old"]}, "RegionOne").authorize()
    assert {server.name for server in behind.servers(behind.named("top")).servers} == {
        server.name for server in keystone.compute.servers(details=True)}


def test_the_password_is_checked_once_whatever_the_projects_say(stack: ExitStack) -> None:
    behind = Organisation("openstack", stack)
    members = behind.discover()
    for member in (*members, Member(id=behind.cloud.ids["locked"])):
        for _ in range(2):
            with suppress(PartyDenied):
                behind.servers(member)
    assert behind.cloud.count("Login") == 1
    assert behind.cloud.count("GetToken") == len([member for member in members if not member.closed]) + 4


def test_a_token_of_no_project_that_ended_early_is_renewed_once(stack: ExitStack) -> None:
    behind = Organisation("openstack", stack)
    door: Any = behind.cloud
    top, basket = behind.named("top"), behind.named("basket")
    assert behind.servers(top).total == 3
    door.tokens.clear()
    assert behind.servers(basket).total == 2
    assert behind.servers(top).total == 3
    assert door.count("Login") == 2
