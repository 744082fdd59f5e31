"""What the real cloud answered, played to the adapter: the values that the recordings' SOURCE.md names, exactly."""

from dataclasses import replace

from chalicelib import parties
from chalicelib.model import WHOLE, Source, Status
from tests.recorded import Player, answers, folder, later_fields
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
    assert later_fields([server], "huaweicloud", "ap-southeast-1") == {"bac642b0-a9ca-4a13-b6b9-9e41b35905b6": {
        "account": "default", "image_id": "51a76dc4-0a0c-4e7c-bb01-d9dbaabe1441",
        "image_name": "Huawei Cloud EulerOS 2.0 Standard 64 bit", "os": "linux",
        "vpc_id": "24bbb54c-659f-4141-8db9-a957e12b6ee8",
        "security_group_set": "21acfb26-36cd-4aa4-b42e-fe3f88bd588c,de011f0e-d1c2-45b7-aea5-e642f12333b6",
        "charge_type": "postpaid"}}
