"""The vendor's client signs as we do, logs in as we do, and lists the same servers at the simulator."""

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import pytest
import requests
import time_machine

from chalicelib.cloud.client import Client
from chalicelib.errors import PartyDenied, UnknownRegion
from chalicelib.fleet import check, many_sources
from chalicelib.model import Response, Sign, Source, Window
from chalicelib.parties import ovh
from chalicelib.parties.ovh.simulator import APPLICATION, CLIENT, CONSUMER, Ovh, is_vps, name_of, start
from chalicelib.simulators.fleet import Fleet
from tests import canaries
from tests.fixtures import App
from tests.unit.test_parties import account_of
from tests.verified import assert_same, lister, reference

SIZE = 40


@pytest.fixture
def cloud(stack: ExitStack, app: App) -> Ovh:
    made, credentials = start({"eu": Fleet(SIZE, "ovh")}, canaries.secret("ovh"))
    assert isinstance(made, Ovh)
    stack.enter_context(made)
    app.account("ovh", credentials, made.url)
    return made


def ours(app: App, **more: Any) -> many_sources.Answer:
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "ovh", "eu"), **more)


def keys(cloud: Ovh) -> dict[str, str]:
    return {"application_key": APPLICATION, "application_secret": cloud.secret, "consumer_key": CONSUMER}


def oauth2(cloud: Ovh) -> dict[str, str]:
    return {"client_id": CLIENT, "client_secret": cloud.secret}


machines = lister("ovh")


# ---------------------------------------------------------------- the vendor's client

@pytest.mark.parametrize("fields", [keys, oauth2])
def test_the_sdk_and_we_list_the_same_machines(fields: Any, cloud: Ovh, app: App) -> None:
    app.account("ovh", fields(cloud), cloud.url)
    theirs = machines(cloud.url, fields(cloud), "eu")
    answer = ours(app)
    assert answer.total == len(theirs) == SIZE
    assert_same(answer.servers, theirs)


def test_the_sdk_signs_as_we_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """And both sign as the address says: with its query."""
    client = reference("ovh").client(account_of("ovh"), "eu", ExitStack())
    sent: list[tuple[str, Mapping[str, str]]] = []
    monkeypatch.setattr(client, "_time_delta", 0)
    monkeypatch.setattr(client._session, "request",
                        lambda method, url, headers, **more: sent.append((url, headers)))
    ours_at = Client(Source("1", "ovh", "eu"), account_of("ovh"), lambda operation, sign: Response(200, {}, b""))
    with time_machine.travel(1_700_000_000, tick=False):
        for path in ("/vps", "/ip?type=vps"):
            client.raw_call("GET", path)
            url, headers = sent.pop()
            mine = ovh.sign(url, ours_at, 1_700_000_000)
            assert {name: value for name, value in mine.headers.items() if name != "Accept"} == headers
    assert ovh.sign("https://eu.api.ovh.com/1.0/vps", ours_at, 1_700_000_000).headers["X-Ovh-Signature"] == (
        "$1$f96a55ceb88ec91d94147ed82e5373b4bdb60a27")


# ---------------------------------------------------------------- keys, the clock, windows

def test_a_changed_key_is_refused(cloud: Ovh, app: App) -> None:
    for field, value in {**keys(cloud), **oauth2(cloud)}.items():
        fields = keys(cloud) if field in keys(cloud) else oauth2(cloud)
        app.account("ovh", {**fields, field: value[:-1] + "_"}, cloud.url)
        with pytest.raises(PartyDenied):
            ours(app)
    app.account("ovh", keys(cloud), cloud.url)
    assert ours(app).total == SIZE


@pytest.mark.parametrize("late", [-7200, 7200])
def test_the_partys_clock_is_the_one_that_counts(late: int, cloud: Ovh, app: App) -> None:
    """It is read once for a listing, and not for the next."""
    cloud.late = late
    assert ours(app).total == SIZE
    assert ours(app, window=Window(2, 3)).total == SIZE
    assert cloud.count("GetTime") == 1


def test_a_window_costs_the_calls_of_its_servers(cloud: Ovh, app: App) -> None:
    whole = ours(app).servers
    assert [server.id for server in whole] == sorted(name_of(cloud.fleet[n]) for n in range(SIZE))
    cloud.forget()
    assert ours(app, window=Window(2, 3)).servers == whole[1:3]
    assert cloud.count("GetVps") + cloud.count("GetDedicatedServer") == 2


def test_the_check_needs_each_right_for_a_list(cloud: Ovh, app: App) -> None:
    check.check_account(app.deployment, "123", "ovh")
    for operation in ("ListVps", "ListDedicatedServers"):
        cloud.denied = {operation}
        with pytest.raises(PartyDenied, match="NOT_GRANTED_CALL"):
            check.check_account(app.deployment, "123", "ovh")


def test_an_expired_service_and_an_empty_kind(cloud: Ovh, app: App) -> None:
    expired = next(cloud.fleet[n] for n in range(SIZE) if is_vps(cloud.fleet[n]))
    cloud.expired = {name_of(expired)}
    rows = [server for server in ours(app).servers if server.status == "SUSPENDED"]
    assert [(server.id, server.cpu, server.party_status) for server in rows] == [(name_of(expired), None, "expired")]


def test_the_site_of_the_credentials_is_the_only_one(cloud: Ovh, app: App) -> None:
    app.account("ovh", {**keys(cloud), "site": "ca"}, cloud.url)
    with pytest.raises(UnknownRegion, match="site ca"):
        ours(app)
    account = account_of("ovh", {**keys(cloud), "site": "ca"})
    hosts: set[str] = set()

    def send(operation: str, sign: Sign) -> Response:
        hosts.add(sign().url.split("/")[2])
        return Response(200, {}, b"1700000000" if operation == "GetTime" else b"[]")

    regions = ovh.list_regions(Client(Source("1", "ovh", "ca"), account, send))
    assert [region.code for region in regions] == ["ca"]
    assert hosts == {"ca.api.ovh.com"}


@pytest.mark.parametrize(("path", "status"), [("/1.0/vps?page=1", 400), ("/1.0/nothing", 404), ("/v2/vps", 404),
                                              ("/1.0/vps/vps-nobody.vps.ovh.net", 404)])
def test_the_simulator_refuses_what_the_real_one_refuses(path: str, status: int, cloud: Ovh) -> None:
    token = hashlib.sha256(cloud.secret.encode()).hexdigest()
    answer = requests.get(cloud.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=9)
    assert answer.status_code == status
