"""What the real cloud answered, played to the adapter: the values that the recordings' SOURCE.md names, exactly."""

import json

import pytest

from chalicelib.model import Status
from tests.recorded import Player, answers, folder, listed, made


def test_two_servers_and_their_details() -> None:
    there = folder("upcloud")
    exchanges = answers(there / "getserverswithfilters.yaml")
    rows = next(json.loads(answer.response.body)["servers"]["server"] for answer in exchanges
                if answer.path == "/1.3/server/")
    assert len(rows) == 2
    details = {answer.path: answer for answer in exchanges if answer.path.startswith("/1.3/server/")
               and len(answer.path) > 20}
    (known,) = [row for row in rows if f"/1.3/server/{row['uuid']}" in details]
    player = Player("upcloud", [                                # the other's details were not recorded
        made("/1.3/server", {"servers": {"server": [known]}}), *details.values()])
    (server,) = listed(player, known["zone"])
    assert (server.status, server.disk_gib, server.cpu, server.memory_mib) == (Status.ACTIVE, 10, 1, 1024)
    assert server.created_at
    assert server.created_at.timestamp() == known["created"]


@pytest.mark.parametrize("name", ["getserverdetails", "getserverswithfilters"])
def test_a_creation(name: str) -> None:
    recorded = answers(folder("upcloud") / f"{name}.yaml")
    row = json.loads(recorded[0].response.body)["server"]
    assert (row["state"], row["progress"]) in (("maintenance", 0), ("maintenance", "0"))
    player = Player("upcloud", [made("/1.3/server", {"servers": {"server": [row]}}),
                                made(f"/1.3/server/{row['uuid']}", {"server": row})])
    (server,) = listed(player, row["zone"])
    assert (server.status, server.disk_gib) == (Status.BUILD, 10)
