"""Scaleway's own SDK lists the same servers at the simulator as we do.

The simulator refuses what the real one refuses.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from uuid import uuid4

import pytest

from chalicelib.parties import scaleway
from tests import bearer, canaries
from tests.bearer import Machines
from tests.fixtures import App


def machines(url: str, credentials: Mapping[str, str], region: str) -> Machines:
    pytest.importorskip("scaleway")
    from scaleway import Client
    from scaleway.block.v1 import BlockV1API
    from scaleway.instance.v1 import InstanceV1API
    from scaleway.ipam.v1 import IpamV1API
    client = Client(api_url=url, access_key="SCWXXXXXXXXXXXXXXXXX", secret_key=credentials["token"])
    ips = IpamV1API(client).list_i_ps_all(region=region)
    by_id: Machines = {}
    for zone in [f"{region}-{n}" for n in (1, 2, 3)]:
        instances = InstanceV1API(client)
        types = instances.list_servers_types(zone=zone, per_page=100).servers
        volumes = {
            volume.id: volume.size for volume in BlockV1API(client).list_volumes_all(zone=zone, include_deleted=False)}
        for server in instances.list_servers_all(zone=zone):
            kind = types[server.commercial_type]
            by_id[server.id] = {
                "name": server.name, "cpu": kind.ncpus, "memory": kind.ram // 1024 ** 2,
                "disk": sum(v.size or volumes[v.id] for v in server.volumes.values()) // 10 ** 9,
                "state": str(server.state),
                "lan": [ip.address.partition("/")[0] for nic in server.private_nics for ip in ips
                        if ip.resource.id == nic.id],
                "wan": {ip.address for ip in server.public_ips}, "created": server.creation_date.timestamp()}
    return by_id


def test_the_sdk_and_we_list_the_same_machines(house: App, stack: ExitStack) -> None:
    bearer.same_machines(house, stack, "scaleway", machines, neighbour="nl-ams", token=canaries.watch(str(uuid4())))


def test_a_wrong_token_is_refused_and_regions_are_the_partys(house: App, stack: ExitStack) -> None:
    bearer.wrong_tokens_are_refused_and_regions_found(house, stack, "scaleway", "nl-ams",
                                                      token=canaries.watch(str(uuid4())))


@pytest.mark.parametrize(("path", "status"), [
    ("/instance/v1/zones/xx-yyy-1/servers", 400),
    ("/instance/v1/zones/fr-par-1/servers?per_page=101", 400)])
def test_the_simulator_refuses_what_we_never_ask(stack: ExitStack, path: str, status: int) -> None:
    assert bearer.status_of(stack, "scaleway", path) == status


def test_the_zones_are_those_that_the_sdk_names() -> None:
    """No call lists them. A new one in the SDK must come into the table; those of a new region are asked for."""
    bridge = pytest.importorskip("scaleway_core.bridge")
    known = {f"{region}-{n}" for region, most in scaleway._ZONES.items() for n in range(1, most + 1)}
    assert set(bridge.ALL_ZONES) <= known
    assert set(bridge.ALL_REGIONS) <= scaleway._ZONES.keys()
