"""Apache Libcloud's driver lists the same Droplets at the simulator as we do.

The simulator refuses what the real one refuses.
"""

from collections.abc import Mapping
from contextlib import ExitStack

import pytest

from tests import bearer
from tests.bearer import Machines
from tests.fixtures import App


def machines(url: str, credentials: Mapping[str, str], region: str) -> Machines:
    return bearer.libcloud_nodes("DIGITAL_OCEAN", url, [credentials["token"]], api_version="v2")


def test_libcloud_and_we_list_the_same_machines(app: App, stack: ExitStack) -> None:
    """Its driver does not know GPU Droplets."""
    bearer.same_names(app, stack, "digitalocean", machines, all_of_them=False)


def test_libclouds_fixture_becomes_the_machine_that_it_shows() -> None:
    none = {"meta": {"total": 0}}
    server = bearer.first_of("digitalocean", "sfo3", {
        "ListDroplets": bearer.fixture("digitalocean_v2/list_nodes.json"), "ListGpuDroplets": {"droplets": [], **none},
        "ListVolumes": bearer.fixture("digitalocean_v2/list_volumes_empty.json") | none,
        "ListReservedIps": bearer.NO_RESERVED_IPS, "ListReservedIpv6": {"reserved_ipv6s": [], **none}})
    assert (server.name, server.cpu, server.memory_mib, server.disk_gib) == ("ubuntu-s-1vcpu-1gb-sfo3-01", 1, 1024, 25)
    assert (server.lan_ipv4, server.wan_ipv4) == (("10.124.0.2",), ("128.199.13.158",))


def test_a_wrong_token_is_refused_and_regions_are_the_partys(app: App, stack: ExitStack) -> None:
    bearer.wrong_tokens_are_refused_and_regions_found(app, stack, "digitalocean", "ams3")


@pytest.mark.parametrize(("path", "status"), [("/v2/droplets?per_page=201", 400)])
def test_the_simulator_refuses_what_we_never_ask(stack: ExitStack, path: str, status: int) -> None:
    assert bearer.status_of(stack, "digitalocean", path) == status
