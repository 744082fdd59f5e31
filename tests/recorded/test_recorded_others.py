"""Recordings of qcloud, scaleway, upcloud and linode: the values that their SOURCE.md and README name, exactly."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from chalicelib import parties
from chalicelib.cloud.client import Client
from chalicelib.errors import PartyMalformed
from chalicelib.model import WHOLE, Server, Source, Status
from chalicelib.parties import qcloud, scaleway
from tests.recorded import Answer, Player, answers, folder, made
from tests.unit.test_parties import account_of


def listed(player: Player, region: str, **more: Any) -> list[Server]:
    """A whole listing by the party's adapter."""
    name = player.party.name
    listing = parties.list_servers(Source("123", name, region), account_of(name, **more), WHOLE, player)
    assert listing.total == len(listing.servers)
    return listing.servers


def anywhere(recorded: Iterable[Answer]) -> list[Answer]:
    """The same answers from whichever host: theirs is the region's, the adapter's is one for all."""
    return [replace(answer, host="") for answer in recorded]


# ---------------------------------------------------------------- qcloud

def of_qcloud(name: str) -> list[Answer]:
    return anywhere(answers(folder("qcloud") / f"{name}.yaml"))


def test_qcloud_six_servers_on_pages_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qcloud, "_PAGE", 3)
    player = Player("qcloud", of_qcloud("TestClient.test_paging_offset"), ("Offset",))
    servers = {server.id: server for server in listed(player, "ap-singapore")}
    assert sorted(server.status for server in servers.values()) == [Status.ACTIVE] * 4 + [Status.SHUTOFF] * 2
    big = servers["ins-5xpbvkm8"]
    assert (big.cpu, big.memory_mib, big.disk_gib) == (16, 64 * 1024, 100 + 4 * 10)
    without = {key for key, server in servers.items() if not server.wan_ipv4}
    assert len(without) == 3
    assert servers["ins-beetmuio"].status is Status.ACTIVE
    assert "ins-beetmuio" in without


@pytest.mark.parametrize(("name", "statuses"), [
    ("start", [Status.SHUTOFF, Status.STARTING]), ("stop", [Status.ACTIVE, Status.STOPPING])])
def test_qcloud_what_a_server_is_doing(name: str, statuses: list[Status]) -> None:
    recorded = [answer for answer in of_qcloud(f"TestCvmAction.test_cvm_{name}") if "Offset" in answer.asked]
    assert [listed(Player("qcloud", [answer]), "ap-singapore")[0].status for answer in recorded] == statuses


def test_qcloud_a_server_that_is_gone() -> None:
    before, after = [answer for answer in of_qcloud("TestCvmAction.test_cvm_terminate") if "Offset" in answer.asked]
    assert len(listed(Player("qcloud", [before]), "ap-singapore")) == 1
    assert listed(Player("qcloud", [after]), "ap-singapore") == []


def test_qcloud_an_error_inside_a_200() -> None:
    with pytest.raises(PartyMalformed) as refused:
        listed(Player("qcloud", of_qcloud("TestCvmAction.test_cvm_exec_exception")), "ap-singapore")
    assert refused.value.party_code == "InvalidParameter"


@pytest.mark.parametrize(("name", "attached"), [
    ("available", False), ("copy_instance_tags", True), ("not_encrypt", True)])
def test_qcloud_disks(name: str, attached: bool) -> None:
    player = Player("qcloud", [answer for answer in of_qcloud(f"TestCbs.test_cbs_{name}") if "Offset" in answer.asked],
                    ("Offset",))
    (disk,) = qcloud._disks(Client(Source("123", "qcloud", "ap-singapore"), account_of("qcloud"), player), ["ins-1"])
    assert bool(disk.InstanceId) is attached
    assert disk.DiskSize


# ---------------------------------------------------------------- scaleway

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


def test_scaleway_twelve_servers_in_ten_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaleway, "_PAGE", 50)                  # as the catalogue was recorded
    recorded = [replace(answer, asked={"page": "1"})
                for answer in answers(folder("scaleway") / "sdk-go/test-list-server-multiple-zones.cassette.yaml")
                if answer.method == "GET" and answer.path.endswith("/servers")]
    zones = sorted({answer.path.split("/")[4] for answer in recorded})
    assert len(zones) == 10
    assert zones == sorted(f"{region}-{n}" for region, most in scaleway._ZONES.items() for n in range(1, most + 1))
    found: dict[str, list[Server]] = {zone: [] for zone in zones}
    for region in scaleway._ZONES:
        player = Player("scaleway", [*recorded, *block_and_ipam(zones), *catalogues()], ("page",))
        for server in listed(player, region):
            found[server.zone].append(server)
    assert {zone: len(servers) for zone, servers in found.items()
            if servers} == {"it-mil-1": 1, "fr-par-2": 2, "fr-par-1": 9}
    (milan,) = found["it-mil-1"]
    assert (milan.name, milan.instance_type, milan.status, milan.wan_ipv4, milan.cpu, milan.memory_mib,
            milan.disk_gib) == (
        "cli-srv-focused-booth", "BASIC3-X2C-4G", Status.ACTIVE, ("151.115.165.238",), 2, 4096, None)
    every = [server for servers in found.values() for server in servers]
    assert len({server.name for server in every}) == 11
    assert sum(bool(server.wan_ipv6 and server.wan_ipv4) for server in every) == 2
    assert sum(not server.wan_ipv4 and not server.wan_ipv6 for server in every) == 1
    assert "L40S-2-48G" in {server.instance_type for server in found["fr-par-2"]}


def test_scaleway_the_life_of_a_server() -> None:
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


# ---------------------------------------------------------------- upcloud

def test_upcloud_two_servers_and_their_details() -> None:
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
def test_upcloud_a_creation(name: str) -> None:
    recorded = answers(folder("upcloud") / f"{name}.yaml")
    row = json.loads(recorded[0].response.body)["server"]
    assert (row["state"], row["progress"]) in (("maintenance", 0), ("maintenance", "0"))
    player = Player("upcloud", [made("/1.3/server", {"servers": {"server": [row]}}),
                                made(f"/1.3/server/{row['uuid']}", {"server": row})])
    (server,) = listed(player, row["zone"])
    assert (server.status, server.disk_gib) == (Status.BUILD, 10)


# ---------------------------------------------------------------- linode

def of_linode(name: str) -> list[Answer]:
    return [replace(answer, path=answer.path.replace("/v4beta/", "/v4/"))
            for answer in answers(folder("linode") / f"{name}.yaml")]


NOTHING = {"data": [], "page": 1, "pages": 1, "results": 0}


def test_linode_one_linode_in_the_making() -> None:
    recorded = [answer for answer in of_linode("TestInstances_List") if answer.method == "GET"]
    player = Player(
        "linode", [*recorded, *(made(path, NOTHING) for path in ("/v4/volumes", "/v4/vpcs/ips", "/v4/vpcs/ipv6s"))])
    (server,) = listed(player, "us-sea")
    assert (server.status, server.disk_gib, server.memory_mib,
            server.wan_ipv4) == (Status.BUILD, 25, 1024, ("192.0.2.0",))


def test_linode_an_address_in_a_vpc() -> None:
    recorded = of_linode("TestVPC_ListAllIPAddresses")
    linode = next(json.loads(answer.response.body) for answer in recorded
                  if answer.method == "POST" and answer.path == "/v4/linode/instances")
    vpcs = [answer for answer in recorded if answer.path == "/v4/vpcs/ips"]
    player = Player("linode", [*vpcs, made("/v4/linode/instances",
                                           {"data": [linode], "page": 1, "pages": 1, "results": 1}),
                               *(made(path, NOTHING) for path in ("/v4/volumes", "/v4/vpcs/ipv6s"))])
    (server,) = listed(player, "au-mel")
    assert (server.lan_ipv4, server.wan_ipv4) == (("192.168.0.2",), ("192.0.2.0",))
