"""What the real cloud answered, played to the adapter: the values that the recordings' SOURCE.md names, exactly."""

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest

from chalicelib.model import Server, Status
from chalicelib.parties import scaleway
from tests.recorded import Answer, Player, answers, folder, listed, made


def block_and_ipam(zones: Iterable[str]) -> list[Answer]:
    """Never recorded: block volumes, whose sizes are therefore unknown, and private addresses."""
    return [*(made(f"/block/v1/zones/{zone}/volumes", {"volumes": [], "total_count": 0}, page="1") for zone in zones),
            *(made(f"/ipam/v1/regions/{region}/ips", {"ips": [], "total_count": 0}, page="1")
              for region in sorted({zone[:-2] for zone in zones}))]


def counted(path: str, servers: object, total: int) -> Answer:
    """A list made by hand, with its total in the header."""
    answer = made(path, {"servers": servers}, page="1")
    return replace(answer, response=replace(answer.response, headers={"x-total-count": str(total)}))


def catalogues() -> list[Answer]:
    """The types of fr-par-1 and it-mil-1, as recorded; those of fr-par-2 never were."""
    there = folder("scaleway")
    recorded = [answer for name in ("get-server-simple", "server-type-list-on-it-mil1")
                for answer in answers(there / f"cli/test-{name}.cassette.yaml")
                if answer.path.endswith("/products/servers")]
    return [*recorded, counted("/instance/v1/zones/fr-par-2/products/servers", {}, 0)]


def test_twelve_servers_in_ten_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaleway, "_PAGE", 50)                  # as the catalogue was recorded
    recorded = [replace(answer, asked={"page": "1"})
                for answer in answers(folder("scaleway") / "sdk-go/test-list-server-multiple-zones.cassette.yaml")
                if answer.method == "GET" and answer.path.endswith("/servers")]
    zones = sorted({answer.path.split("/")[4] for answer in recorded})
    assert len(zones) == 10
    assert zones == sorted(f"{region}-{n}" for region, most in scaleway._ZONES.items() for n in range(1, most + 1))
    by_zone: dict[str, list[Server]] = {zone: [] for zone in zones}
    for region in scaleway._ZONES:
        player = Player("scaleway", [*recorded, *block_and_ipam(zones), *catalogues()], ("page",))
        for server in listed(player, region):
            by_zone[server.zone].append(server)
    assert {zone: len(servers) for zone, servers in by_zone.items()
            if servers} == {"it-mil-1": 1, "fr-par-2": 2, "fr-par-1": 9}
    (milan,) = by_zone["it-mil-1"]
    assert (milan.name, milan.instance_type, milan.status, milan.wan_ipv4, milan.cpu, milan.memory_mib,
            milan.disk_gib) == (
        "cli-srv-focused-booth", "BASIC3-X2C-4G", Status.ACTIVE, ("151.115.165.238",), 2, 4096, None)
    every = [server for servers in by_zone.values() for server in servers]
    assert len({server.name for server in every}) == 11
    assert sum(bool(server.wan_ipv6 and server.wan_ipv4) for server in every) == 2
    assert sum(not server.wan_ipv4 and not server.wan_ipv6 for server in every) == 1
    assert "L40S-2-48G" in {server.instance_type for server in by_zone["fr-par-2"]}


def test_the_life_of_a_server() -> None:
    recorded = [answer for answer in answers(folder("scaleway") / "cli/test-server-action-manual-poweron.cassette.yaml")
                if answer.method == "GET" and "/servers/" in answer.path]
    lives: list[Status] = []
    for answer in recorded:
        row = json.loads(answer.response.body)["server"]
        path = answer.path.rpartition("/")[0]
        player = Player("scaleway", [
            counted(path, [row], 1), *(counted(path.replace("fr-par-1", zone), [], 0)
                                       for zone in ("fr-par-2", "fr-par-3")),
            *block_and_ipam([f"fr-par-{n}" for n in (1, 2, 3)]),
            counted("/instance/v1/zones/fr-par-1/products/servers", {}, 0)])
        lives += [server.status for server in listed(player, "fr-par")]
    assert list(dict.fromkeys(lives)) == [Status.STARTING, Status.ACTIVE, Status.STOPPING, Status.SHUTOFF]
