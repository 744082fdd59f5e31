"""What the real cloud answered, played to the adapter: the values that the recordings' SOURCE.md names, exactly."""

import json

import pytest

from chalicelib.model import Status
from tests.recorded import Player, answers, folder, later_fields, listed, made


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
    assert later_fields([server], "upcloud", "fi-hel2") == {"00a47181-df7b-42c2-a6cc-107c9603e1e8": {
        "account": "default", "subnet_id": "038c8cb6-2c23-4d81-a286-032a794b1baf", "host_id": "6862160515"}}


@pytest.mark.parametrize(("name", "network"), [
    ("getserverdetails", "0343ede2-9890-4470-b680-0dcda6d9f7e3"),
    ("getserverswithfilters", "038c8cb6-2c23-4d81-a286-032a794b1baf")])
def test_a_creation(name: str, network: str) -> None:
    recorded = answers(folder("upcloud") / f"{name}.yaml")
    row = json.loads(recorded[0].response.body)["server"]
    assert (row["state"], row["progress"]) in (("maintenance", 0), ("maintenance", "0"))
    player = Player("upcloud", [made("/1.3/server", {"servers": {"server": [row]}}),
                                made(f"/1.3/server/{row['uuid']}", {"server": row})])
    (server,) = listed(player, row["zone"])
    assert (server.status, server.disk_gib) == (Status.BUILD, 10)
    # a server that is being made has no host yet
    assert later_fields([server], "upcloud", "fi-hel2") == {row["uuid"]: {"account": "default", "subnet_id": network}}
