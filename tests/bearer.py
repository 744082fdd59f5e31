"""What the tests of the bearer-token clouds share: an account at the simulator, and comparisons with clients that we
did not write.

`Machines` is what such a client lists: id -> fields by a Server's names.
"""

import importlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from chalicelib import parties, simulators
from chalicelib.errors import PartyDenied
from chalicelib.fleet import many_sources
from chalicelib.model import WHOLE, Account, Listing, Response, Server, Sign, Source
from chalicelib.simulators.bearer import Kind, Rest
from chalicelib.simulators.fleet import Fleet
from tests import canaries
from tests.fixtures import App
from tests.unit.test_parties import WHAT
from tests.verified import Machines, assert_same

SIZE = 137
NO_RESERVED_IPS = {"reserved_ips": [], "meta": {"total": 0}}
Client = Callable[[str, Mapping[str, str], str], Machines]       # (url, credentials, region)


def kind_of(party: str) -> Kind:
    kind: Kind = importlib.import_module(f"chalicelib.parties.{party}.simulator").KIND
    return kind


def region_of(party: str) -> str:
    return simulators.clouds()[party].region


def account_at(app: App, stack: ExitStack, party: str, neighbour: str = "", token: str = "", **more: Any,
               ) -> tuple[Rest, dict[str, str]]:
    """A simulator with a fleet, a smaller one in the region `neighbour`, and the tenant's account there."""
    fleets = {region_of(party): Fleet(SIZE, party), **({neighbour: Fleet(23, "neighbour")} if neighbour else {})}
    credentials = {**WHAT[party]["credentials"], "token": token or canaries.secret(party)}
    cloud = stack.enter_context(Rest(kind_of(party), credentials["token"], fleets, limited=False))
    app.account(party, credentials, cloud.url, **more)
    return cloud, credentials


def listed(app: App, party: str, **more: Any) -> many_sources.Answer:
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", party, region_of(party)), **more)


# ---------------------------------------------------------------- the same machines

def same_machines(app: App, stack: ExitStack, party: str, client: Client, **more: Any) -> None:
    """The vendor's SDK and we list the same machines, field by field."""
    cloud, credentials = account_at(app, stack, party, **more)
    theirs = client(cloud.url, credentials, region_of(party))
    mine = listed(app, party)
    assert len(theirs) == mine.total == SIZE
    assert_same(mine.servers, theirs)
    assert all(server.created_at for server in mine.servers)


def libcloud_nodes(provider: str, url: str, keys: Sequence[str], listing: Mapping[str, Any] = {},
                   **more: Any) -> Machines:
    """What Apache Libcloud's driver says: names and addresses; it has no processors, memory or disks."""
    pytest.importorskip("libcloud")
    from libcloud.compute.providers import get_driver
    from libcloud.compute.types import Provider

    driver = get_driver(getattr(Provider, provider))(*keys, **more)
    driver.connection.secure = False
    driver.connection.host, driver.connection.port = "127.0.0.1", int(url.rpartition(":")[2])
    driver.connection.connect()
    return {str(node.id): {"name": node.name, "lan_ipv4": node.private_ips, "wan_ipv4": set(node.public_ips)}
            for node in driver.list_nodes(**listing)}


def same_names(app: App, stack: ExitStack, party: str, client: Client, *, all_of_them: bool = True) -> None:
    """Libcloud's drivers read one list and no other: what else belongs to a machine is known to us alone."""
    cloud, credentials = account_at(app, stack, party)
    theirs = client(cloud.url, credentials, region_of(party))
    mine = {server.id: server for server in listed(app, party).servers}
    assert len(mine) == SIZE
    assert len(theirs) > 100
    assert theirs.keys() <= mine.keys()
    for key, other in theirs.items():
        assert mine[key].name == other["name"]
        assert other["wan_ipv4"] - {"0.0.0.0"} <= {*mine[key].wan_ipv4,
                                              *mine[key].wan_ipv6} | {"2600:3c03::f03c:91ff:fe24:3a2f"}
        assert {ip for ip in other["lan_ipv4"] if ip} <= set(mine[key].lan_ipv4) | set(mine[key].wan_ipv4)
    if all_of_them:
        assert theirs.keys() == mine.keys()


# ---------------------------------------------------------------- tokens, regions, refusals

def wrong_tokens_are_refused_and_regions_found(app: App, stack: ExitStack, party: str, neighbour: str = "",
                                               **more: Any) -> None:
    cloud, credentials = account_at(app, stack, party, neighbour, **more)
    for changed in (credentials["token"][:-1], credentials["token"] + "0", "x"):
        app.account(party, {**credentials, "token": changed}, cloud.url)
        with pytest.raises(PartyDenied):
            listed(app, party)
    account = Account(tenant_id="1", party=party, credentials=credentials, endpoint=cloud.url)
    send = app.deployment.transport.sender(parties.load(party), account, region_of(party), time.monotonic() + 9)
    codes = {region.code for region in parties.list_regions(account, send) if region.open}
    assert {region_of(party), neighbour or region_of(party)} <= codes
    parties.check(Source("1", party, region_of(party)), account, send)
    assert all(parties.load(party).region(code) == code for code in codes)


def status_of(stack: ExitStack, party: str, path: str) -> int:
    """What the simulator answers to a path that an adapter never asks for: page sizes and filters are held to as the
    real one does."""
    cloud = stack.enter_context(Rest(kind_of(party), "t", {region_of(party): Fleet(1)}, limited=False))
    token = cloud.kind.issued("t")
    headers = {"Authorization": f"Bearer {token}", "X-Auth-Token": token,
               "X-Auth-UserId": WHAT[party]["credentials"].get("user_uuid", "")}
    return requests.get(cloud.url + path, headers=headers, timeout=9).status_code


# ---------------------------------------------------------------- the fixtures that ship with Libcloud

def fixture(name: str) -> Any:
    libcloud = pytest.importorskip("libcloud")
    return json.loads((Path(libcloud.__file__).parent / "test/compute/fixtures" / name).read_text())


def first_of(party: str, region: str, answers: Mapping[str, Any]) -> Server:
    """The first server of our listing of these answers, by operation."""
    return listing_of(party, region, answers).servers[0]


def listing_of(party: str, region: str, answers: Mapping[str, Any]) -> Listing:
    def send(operation: str, sign: Sign) -> Response:
        sign()
        return Response(200, {}, json.dumps(answers[operation]).encode())

    account = Account(tenant_id="1", party=party, credentials=WHAT[party]["credentials"])
    return parties.list_servers(Source("1", party, region), account, WHOLE, send)
