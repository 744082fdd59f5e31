"""Apache Libcloud's driver, on its own connection, reads its recorded answers as the bridge does."""

from datetime import datetime

from tests import bridge


def test_libclouds_fixture_twice() -> None:
    answers = {"/token": bridge.fixture("brightbox/token.json"),
               "/1.0/servers": bridge.fixture("brightbox/list_servers.json")}
    ours, nodes = bridge.our_servers("brightbox", "gb1", answers), bridge.their_nodes("brightbox", answers)
    bridge.ours_fit(ours, nodes)
    for server, node in zip(ours, nodes, strict=True):
        assert (server.memory_mib, server.disk_gib) == (node.size.ram, node.size.disk / 1024)
        assert (server.zone, server.party_status) == (node.extra["zone"].name, node.extra["status"])
        assert server.created_at == datetime.fromisoformat(node.extra["created_at"])
    assert [server.cpu for server in ours] == [4, 8]            # libcloud has no place for it
