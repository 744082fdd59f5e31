"""Apache Libcloud's driver, on its own connection, reads its recorded answers as the bridge does."""

import json

import pytest

from tests import bridge


def counted(name: str) -> bytes:
    """A list that was recorded with a page size, as the whole that limit=0 gives."""
    answer = json.loads(bridge.fixture(name))
    answer["meta"]["total_count"] = len(answer["objects"])
    return json.dumps(answer).encode()


@pytest.mark.parametrize("state", ["servers_detail_all_stopped.json", "servers_detail_mixed_state.json"])
def test_libclouds_fixture_twice(state: str) -> None:
    answers = {"/api/2.0/servers/detail/": bridge.fixture(f"cloudsigma_2_0/{state}"),
               "/api/2.0/drives/detail/": counted("cloudsigma_2_0/drives_detail.json")}
    for drive in ("3f74acec-ba3c-4efd-ab9e-5d95a4c5fca9", "b02311e2-a83c-4c12-af10-b30d51c86913"):
        answers[f"/api/2.0/drives/{drive}/"] = bridge.fixture("cloudsigma_2_0/drives_get.json")
    ours, nodes = bridge.our_servers("cloudsigma", "zrh", answers), bridge.their_nodes("cloudsigma", answers)
    bridge.ours_fit(ours, nodes)
    assert [server.memory_mib for server in ours] == [node.extra["memory"] for node in nodes]
