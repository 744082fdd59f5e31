"""Apache Libcloud's driver, on its own connection, reads its recorded answers as the bridge does."""

import json
from collections.abc import Callable

from chalicelib import parties
from chalicelib.cloud.client import Client
from chalicelib.model import WHOLE, Account, Response, Sign, Source
from tests import bridge
from tests.fixtures import App


def test_libclouds_fixture_twice() -> None:
    details = json.loads(bridge.fixture("kamatera/server_info.json"))
    answers = {"/service/servers": json.dumps([{key: row[key] for key in ("id", "name", "power", "datacenter")}
                                               for row in details]).encode(),
               "/service/server/info": bridge.fixture("kamatera/server_info.json")}
    ours, nodes = bridge.our_servers("kamatera", "IL",
                                     answers), bridge.their_nodes("kamatera", answers, {"ex_full_details": True})
    bridge.ours_fit(ours, nodes)
    assert [server.zone for server in ours] == [node.extra["location"].id for node in nodes]


def test_the_account_is_the_only_one_that_is_asked_for(app: App) -> None:
    """Two tenants of one warm process, in turns: each call carries its own tenant's key."""
    paths: list[str] = []

    def send_for(secret: str) -> Callable[[str, Sign], Response]:
        def send(operation: str, sign: Sign) -> Response:
            paths.append(sign().headers["AuthSecret"])
            assert paths[-1] == secret
            return Response(200, {}, b"[]")

        return send

    party = parties.load("kamatera")
    for _ in range(50):
        for tenant in ("one", "two"):
            account = Account(tenant_id=tenant, party="kamatera",
                              credentials={"client_id": tenant, "secret": f"secret-{tenant}"})
            party.list_servers(Client(Source(tenant, "kamatera", "EU"), account, send_for(f"secret-{tenant}")), WHOLE)
    assert len(paths) == 100
