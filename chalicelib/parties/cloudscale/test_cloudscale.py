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
    return bearer.libcloud_nodes("CLOUDSCALE", url, [credentials["token"]])


def test_libcloud_and_we_list_the_same_machines(app: App, stack: ExitStack) -> None:
    bearer.same_names(app, stack, "cloudscale", machines)


def test_libclouds_fixture_becomes_the_machine_that_it_shows() -> None:
    # older than zones
    rows = [{**row, "zone": {"slug": "lpg1"}} for row in bearer.fixture("cloudscale/list_nodes.json")]
    server = bearer.first_of("cloudscale", "lpg", {
        "ListServers": rows, "ListRegions": [{"slug": "lpg", "zones": [{"slug": "lpg1"}]}]})
    assert (server.name, server.cpu, server.memory_mib, server.disk_gib) == ("db-master", 2, 4096, 50)
    assert server.wan_ipv4 == ("185.98.122.176",)


def test_a_wrong_token_is_refused_and_regions_are_the_partys(app: App, stack: ExitStack) -> None:
    bearer.wrong_tokens_are_refused_and_regions_found(app, stack, "cloudscale", "lpg")


@pytest.mark.parametrize(("path", "status"), [("/v1/servers?page=2", 400)])
def test_the_simulator_refuses_what_we_never_ask(stack: ExitStack, path: str, status: int) -> None:
    assert bearer.status_of(stack, "cloudscale", path) == status


def test_floating_ips_are_read_by_deep(app: App, stack: ExitStack) -> None:
    cloud, _ = bearer.account_at(app, stack, "cloudscale", "lpg", deep=True)
    deep = bearer.listed(app, "cloudscale")
    assert cloud.count("ListFloatingIps") == 1
    assert sum(any(ip.startswith("203.0.113.") for ip in server.wan_ipv4)
               for server in deep.servers) == -(-bearer.SIZE // 5)
