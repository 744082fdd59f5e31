"""Apache Libcloud's driver lists the same instances at the simulator as we do.

The simulator refuses what the real one refuses.
"""

from collections.abc import Mapping
from contextlib import ExitStack

import pytest

from tests import bearer
from tests.bearer import Machines
from tests.fixtures import App


def machines(url: str, credentials: Mapping[str, str], region: str) -> Machines:
    return bearer.libcloud_nodes("VULTR", url, [credentials["token"]], {"ex_list_bare_metals": False}, api_version="2")


def test_libcloud_and_we_list_the_same_machines(app: App, stack: ExitStack) -> None:
    bearer.same_names(app, stack, "vultr", machines)


def test_libclouds_fixture_becomes_the_machine_that_it_shows() -> None:
    instances, volumes = bearer.fixture("vultr_v2/list_nodes.json"), bearer.fixture("vultr_v2/list_volumes.json")
    here = [row for row in instances["instances"] if row["region"] == "fra"]
    server = bearer.first_of("vultr", "fra", {
        "ListInstances": {**instances, "instances": here,
                          "meta": {"total": len(here), "links": {"next": "", "prev": ""}}},
        "ListBlocks": {**volumes, "meta": {"total": len(volumes["blocks"])}},
        "ListReservedIps": bearer.NO_RESERVED_IPS})
    assert (server.name, server.cpu, server.memory_mib, server.disk_gib) == ("test1", 1, 2048, 55)
    assert (server.wan_ipv4, server.party_status) == (("45.76.83.44",), "active running")


def test_a_wrong_token_is_refused_and_regions_are_the_partys(app: App, stack: ExitStack) -> None:
    bearer.wrong_tokens_are_refused_and_regions_found(app, stack, "vultr", "fra")


@pytest.mark.parametrize(("path", "status"), [("/v2/instances?per_page=501", 400),
                                              ("/v2/instances?cursor=made-up", 400)])
def test_the_simulator_refuses_what_we_never_ask(stack: ExitStack, path: str, status: int) -> None:
    assert bearer.status_of(stack, "vultr", path) == status
