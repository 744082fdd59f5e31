"""What the real cloud answered, played to the adapter: the values that the recordings' SOURCE.md names, exactly."""

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest

from chalicelib.model import Server, Status
from chalicelib.parties import scaleway
from tests.recorded import Answer, Player, answers, folder, later_fields, listed, made


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


@pytest.fixture
def by_zone(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Server]]:
    monkeypatch.setattr(scaleway, "_PAGE", 50)                  # as the catalogue was recorded
    recorded = [replace(answer, parameters={"page": "1"})
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
    return by_zone


def test_twelve_servers_in_ten_zones(by_zone: dict[str, list[Server]]) -> None:
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


JAMMY, NOBLE, GPU = "Ubuntu 22.04 Jammy Jellyfish", "Ubuntu 24.04 Noble Numbat", "Ubuntu Noble GPU OS 13 passthrough"
LATER = {                                   # image, its name, security group, hypervisor
    "it-mil-1/a941bd74-da1a-4b67-9c71-d81d9e822598": (
        "7f515058-2831-43f3-92bd-b5adfd2aaaf7", JAMMY, "29886cb6-4f8a-4cf6-9d61-310214aadc1a", "101"),
    "fr-par-2/cab7f636-2b89-48d8-8425-d31685bc51f3": (
        "5c3d28db-33ce-4997-8572-f49506339283", GPU, "afd48481-71bf-4cab-829e-db84b13c5951", "2101"),
    "fr-par-2/49e1a62c-35d2-46a8-a2fb-2b43a65c0513": (
        "31b12803-5f92-4a28-804d-a86abf4d52d1", JAMMY, "afd48481-71bf-4cab-829e-db84b13c5951", "602"),
    "fr-par-1/e60327bb-05ff-46d0-91eb-9117a47fbb47": (
        "6d3c053e-c728-4294-b23a-560b62a4d592", JAMMY, "a442f561-2bb5-48cc-a359-c7e0e0032f8f", "401"),
    "fr-par-1/e1d87194-1a10-408c-b54d-8ed3b465230b": (
        "6d3c053e-c728-4294-b23a-560b62a4d592", JAMMY, "a442f561-2bb5-48cc-a359-c7e0e0032f8f", "701"),
    "fr-par-1/3336dc76-15eb-4294-a0d0-456e3148bc8f": (
        "e0bae50e-2182-4407-9370-820a41eb2ad2", GPU, "a442f561-2bb5-48cc-a359-c7e0e0032f8f", "1101"),
    "fr-par-1/dbf27dcf-3c48-479b-8f27-85d4a00bfb00": (
        "e0bae50e-2182-4407-9370-820a41eb2ad2", GPU, "a442f561-2bb5-48cc-a359-c7e0e0032f8f", "501"),
    "fr-par-1/6c4c90bb-9009-4813-b981-eff211368534": (
        "e0bae50e-2182-4407-9370-820a41eb2ad2", GPU, "a442f561-2bb5-48cc-a359-c7e0e0032f8f", "101"),
    "fr-par-1/224f2ddc-cfda-43e2-a43d-2cf06b13a08d": (
        "6d3c053e-c728-4294-b23a-560b62a4d592", JAMMY, "a442f561-2bb5-48cc-a359-c7e0e0032f8f", "801"),
    "fr-par-1/6fc12467-e3d2-4454-b05b-1f6291951782": (
        "90e47fab-efa3-46d8-9607-f327a0ea65bb", NOBLE, "78db219e-b5b8-4852-a587-9be2e25305e5", "1501"),
    "fr-par-1/f3bf3b5b-3e2f-46c4-ae72-d1394b69dbe6": (
        "90e47fab-efa3-46d8-9607-f327a0ea65bb", NOBLE, "78db219e-b5b8-4852-a587-9be2e25305e5", "1302"),
    "fr-par-1/f94a3711-00dd-4925-b3ca-ed160c09c8c2": (
        "ec31d73d-ca36-4536-adf4-0feb76d30379", JAMMY, "a442f561-2bb5-48cc-a359-c7e0e0032f8f", "102"),
}
IN_NETWORK = "224f2ddc-cfda-43e2-a43d-2cf06b13a08d"             # the one with a private interface


def test_the_later_fields_of_twelve_servers(by_zone: dict[str, list[Server]]) -> None:
    shown = {f"{server.zone}/{server.id}": fields for servers in by_zone.values() for server in servers
             for fields in later_fields([server], "scaleway", server.zone[:-2]).values()}
    assert shown == {place: {
        "account": "default", "image_id": image, "image_name": name, "os": "linux", "security_group_set": group,
        "host_id": host, "console_url": f"https://console.scaleway.com/instance/servers/{place}/overview",
        **({"subnet_id": "1f2f7d29-9934-4285-988f-90b40b449b2c"} if place.endswith(IN_NETWORK) else {})}
        for place, (image, name, group, host) in LATER.items()}


def test_the_later_fields_of_stopped_servers() -> None:
    """A server that is stopped has no location; one of these runs Windows."""
    recorded = next(answer for answer in answers(folder("scaleway") / "cli/test-list-server-simple.cassette.yaml")
                    if answer.method == "GET" and answer.path.endswith("/servers"))
    zone, rows = recorded.path.split("/")[4], json.loads(recorded.response.body)["servers"]
    path = recorded.path
    player = Player("scaleway", [
        counted(path, rows, len(rows)), *(counted(path.replace(zone, f"{zone[:-1]}{n}"), [], 0) for n in (1, 2, 3, 4)
                                          if f"{zone[:-1]}{n}" != zone),
        *block_and_ipam([f"{zone[:-1]}{n}" for n in (1, 2, 3, 4)]),
        counted(f"/instance/v1/zones/{zone}/products/servers", {}, 0)])
    group = "da505169-540e-4c2b-b0da-c854139224e0"
    windows = ("5d355a7d-8abb-4418-9599-e26621bf7ca8", "Windows Server 2022", "windows", group)
    linux = ("6d3c053e-c728-4294-b23a-560b62a4d592", JAMMY, "linux")
    assert later_fields(listed(player, zone[:-2]), "scaleway", zone[:-2]) == {key: {
        "account": "default", "image_id": image, "image_name": name, "os": os, "security_group_set": of,
        "console_url": f"https://console.scaleway.com/instance/servers/{zone}/{key}/overview"}
        for key, (image, name, os, of) in {
            "6ab3aeee-069c-493c-895c-f7328500e45b": (*linux, group),
            "fbe2e3c3-411c-4ba5-b3f1-2eded5a8b985": windows,
            "6ffbe4b0-3cf0-407e-8e87-2c67defd8897": (*linux, "c30bff3f-a276-4c5b-bb3e-92ecab6e962e")}.items()}
