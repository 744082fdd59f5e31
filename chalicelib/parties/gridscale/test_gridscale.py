"""Apache Libcloud's driver lists the same servers at the simulator as we do.

The simulator refuses what the real one refuses.
"""

from collections.abc import Mapping
from contextlib import ExitStack

import pytest

from tests import bearer
from tests.bearer import Machines
from tests.fixtures import App


def machines(url: str, credentials: Mapping[str, str], region: str) -> Machines:
    return bearer.libcloud_nodes("GRIDSCALE", url, [credentials["user_uuid"], credentials["token"]])


def test_libcloud_and_we_list_the_same_machines(app: App, stack: ExitStack) -> None:
    bearer.same_names(app, stack, "gridscale", machines)


def test_libclouds_fixture_becomes_the_machine_that_it_shows() -> None:
    grid = bearer.fixture("gridscale/list_nodes.json")
    server = bearer.first_of("gridscale", "fra", {"ListServers": grid, "ListNetworks": {"networks": {}}})
    row = next(iter(grid["servers"].values()))
    assert (server.name, server.cpu, server.memory_mib, server.disk_gib) == (row["name"], 2, 10 * 1024, 50)
    assert server.wan_ipv4 == ("185.102.95.236",)


def test_a_wrong_token_is_refused_and_regions_are_the_partys(app: App, stack: ExitStack) -> None:
    bearer.wrong_tokens_are_refused_and_regions_found(app, stack, "gridscale", "ams")


@pytest.mark.parametrize(("path", "status"), [("/objects/servers?limit=1", 400)])
def test_the_simulator_refuses_what_we_never_ask(stack: ExitStack, path: str, status: int) -> None:
    assert bearer.status_of(stack, "gridscale", path) == status
