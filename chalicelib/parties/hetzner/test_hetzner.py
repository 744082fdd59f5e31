"""hcloud, Hetzner's own SDK, lists the same servers at the simulator as we do.

The simulator refuses what the real one refuses.
"""

from collections.abc import Mapping
from contextlib import ExitStack

import pytest

from tests import bearer
from tests.bearer import Machines
from tests.fixtures import App


def machines(url: str, credentials: Mapping[str, str], region: str) -> Machines:
    client = pytest.importorskip("hcloud").Client(credentials["token"], api_endpoint=f"{url}/v1")
    sizes = {volume.id: volume.size for volume in client.volumes.get_all()}
    floating = [(ip.server.id, ip.ip) for ip in client.floating_ips.get_all() if ip.server]
    by_id: Machines = {}
    for server in client.servers.get_all():
        if server.location.name == region:
            by_id[str(server.id)] = {
                "name": server.name, "cpu": server.server_type.cores, "memory": server.server_type.memory * 1024,
                "disk": server.primary_disk_size + sum(sizes[volume.id] for volume in server.volumes),
                "state": server.status,
                "lan": [ip for net in server.private_net for ip in (net.ip, *net.alias_ips)],
                "wan": {ip.ip for ip in [server.public_net.ipv4] if ip}
                | {ip for owner, ip in floating if owner == server.id},
                "created": server.created.timestamp()}
    return by_id


def test_the_sdk_and_we_list_the_same_machines(house: App, stack: ExitStack) -> None:
    bearer.same_machines(house, stack, "hetzner", machines, neighbour="nbg1")


def test_a_wrong_token_is_refused_and_regions_are_the_partys(house: App, stack: ExitStack) -> None:
    bearer.wrong_tokens_are_refused_and_regions_found(house, stack, "hetzner", "nbg1")


@pytest.mark.parametrize(("path", "status"), [("/v1/servers?per_page=51", 400), ("/v1/servers?sort=name", 400)])
def test_the_simulator_refuses_what_we_never_ask(stack: ExitStack, path: str, status: int) -> None:
    assert bearer.status_of(stack, "hetzner", path) == status
