"""What the real cloud answered, played to the adapter: the values that the recordings' SOURCE.md names, exactly."""

from dataclasses import replace

from chalicelib import parties
from chalicelib.model import WHOLE, Source, Status
from tests.recorded import Player, answers, folder
from tests.unit.test_parties import account_of


def test_a_server_without_addresses_and_volumes() -> None:
    there = folder("huaweicloud")
    player = Player("huaweicloud", [
        *answers(there / "ecs_instance_query.yaml"), *answers(there / "evs_volume_query.yaml")], ("offset",))
    account = account_of("huaweicloud")
    # as it was recorded
    account = replace(account, credentials={**account.credentials, "project_id": "ap-southeat-1"})
    (server,) = parties.list_servers(Source("1", "huaweicloud", "ap-southeast-1"), account, WHOLE, player).servers
    assert (server.status, server.cpu, server.memory_mib, server.disk_gib) == (Status.SHUTOFF, 1, 1024, None)
    assert (server.lan_ipv4, server.wan_ipv4) == ((), ())
    assert len(player.used) == 2            # the volume is attached to nothing
