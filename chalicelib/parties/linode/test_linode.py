"""linode_api4, Linode's own SDK, and Apache Libcloud's driver list the same Linodes at the simulator as we do.

The simulator refuses what the real one refuses.
"""

from collections.abc import Mapping
from contextlib import ExitStack

import pytest

from tests import bearer
from tests.bearer import Machines
from tests.fixtures import App
from tests.verified import lister

machines = lister("linode")


def test_the_sdk_and_we_list_the_same_machines(app: App, stack: ExitStack) -> None:
    bearer.same_machines(app, stack, "linode", machines, neighbour="eu-west")


def libcloud_machines(url: str, credentials: Mapping[str, str], region: str) -> Machines:
    return bearer.libcloud_nodes("LINODE", url, [credentials["token"]], api_version="4.0")


def test_libcloud_and_we_list_the_same_machines(app: App, stack: ExitStack) -> None:
    bearer.same_names(app, stack, "linode", libcloud_machines)


def test_libclouds_fixture_becomes_the_machine_that_it_shows() -> None:
    empty, linodes = {"data": [], "results": 0}, bearer.fixture("linode_v4/list_nodes.json")
    server = bearer.first_of("linode", "eu-west", {
        "ListLinodes": {**linodes, "results": len(linodes["data"])}, "ListVolumes": empty, "ListVpcIps": empty,
        "ListVpcSlaacAddresses": empty})
    assert (server.name, server.cpu, server.memory_mib, server.disk_gib) == ("test_2", 1, 1024, 25)
    assert (server.lan_ipv4, server.wan_ipv4) == (("192.168.1.230",), ("138.89.34.81",))


def test_a_wrong_token_is_refused_and_regions_are_the_partys(app: App, stack: ExitStack) -> None:
    bearer.wrong_tokens_are_refused_and_regions_found(app, stack, "linode", "eu-west")


@pytest.mark.parametrize(("path", "status"), [("/v4/linode/instances?page_size=24", 400),
                                              ("/v4/linode/instances?page_size=501", 400)])
def test_the_simulator_refuses_what_we_never_ask(stack: ExitStack, path: str, status: int) -> None:
    assert bearer.status_of(stack, "linode", path) == status
