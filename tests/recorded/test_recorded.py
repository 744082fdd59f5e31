"""Recordings of aws, gcp and huaweicloud: the values that their SOURCE.md and README name, exactly."""

import json
from dataclasses import replace
from typing import Any

import pytest

from chalicelib import parties
from chalicelib.model import WHOLE, Region, Server, Source, Status
from tests.recorded import Answer, Player, answers, folder, made
from tests.unit.test_parties import account_of


def listed(player: Player, region: str, **more: Any) -> list[Server]:
    """A whole listing by the party's adapter."""
    name = player.party.name
    listing = parties.list_servers(Source("123", name, region), account_of(name, **more), WHOLE, player)
    assert listing.total == len(listing.servers)
    return listing.servers


# ---------------------------------------------------------------- aws

MEMORY = {"t1.micro": 627, "t2.micro": 1024, "t2.small": 2048}


def ec2(action: str, body: bytes) -> Answer:
    return made("/", body, method="POST", Action=action)


@pytest.fixture
def types() -> Answer:
    """Never recorded: the memory of the types; the CPUs are in the rows."""
    rows = "".join(f"<item><instanceType>{name}</instanceType><vCpuInfo><defaultVCpus>7</defaultVCpus></"
                   f"vCpuInfo><memoryInfo>"
                   f"<sizeInMiB>{mib}</sizeInMiB></memoryInfo></item>" for name, mib in MEMORY.items())
    return ec2("DescribeInstanceTypes",
               '<DescribeInstanceTypesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
               f"<instanceTypeSet>{rows}</instanceTypeSet></DescribeInstanceTypesResponse>".encode())


def test_aws_instances_and_their_volumes(types: Answer) -> None:
    there = folder("aws")
    player = Player("aws", [
        ec2("DescribeInstances", (there / "DescribeInstances.xml").read_bytes()),
        ec2("DescribeVolumes", (there / "DescribeVolumes.xml").read_bytes()), types], ("Action",))
    servers = {server.id: server for server in listed(player, "us-east-1")}
    assert len(servers) == 9
    assert sorted(s.status for s in servers.values()) == [Status.ACTIVE] * 5 + [Status.SHUTOFF] * 4
    assert {s.cpu for s in servers.values()} == {1}
    disks = {key: server.disk_gib for key, server in servers.items()}
    assert (disks["i-8b5739f2"], disks["i-c72af2f6"], disks["i-00ad9fc047e3bc490"]) == (8, 11, 10)
    assert {gib for key, gib in disks.items() if key not in ("i-8b5739f2", "i-c72af2f6",
                                                             "i-00ad9fc047e3bc490")} == {7, 8}
    classic = {key: server for key, server in servers.items() if key == "i-680071e9"
               or key[:6] in ("i-09b6", "i-0e17", "i-0297")}
    assert len(classic) == 4
    for server in classic.values():         # no interfaces: the addresses stand on the instance itself
        running = server.status is Status.ACTIVE
        assert (len(server.lan_ipv4), len(server.wan_ipv4)) == ((1, 1) if running else (0, 0)), server.id
    assert all(s.memory_mib == MEMORY[s.instance_type] for s in servers.values())


def test_aws_regions() -> None:
    body = (folder("aws") / "DescribeRegions.xml").read_bytes()
    found = parties.list_regions(account_of("aws"), Player("aws", [ec2("DescribeRegions", body)], ("Action",)))
    assert len(found) == 17
    assert Region("us-east-1") in found


# ---------------------------------------------------------------- gcp

def flight(path: str) -> dict[str, Any]:
    return json.loads((folder("gcp") / path).read_text())["body"]


def zones_of(aggregated: dict[str, Any], region: str, project: str) -> list[Answer]:
    """The recorded list of all zones as the lists of zones that the adapter asks for, and the region that names
    them."""
    zones = sorted(zone.removeprefix("zones/") for zone in aggregated["items"] if zone.startswith(f"zones/{region}-"))
    return [
        made(f"{project}/regions/{region}", {"kind": "compute#region", "zones": [f"x/zones/{zone}" for zone in zones]}),
        *(made(f"{project}/zones/{zone}/instances", {
            "kind": "compute#instanceList", "items": aggregated["items"][f"zones/{zone}"].get("instances", [])})
          for zone in zones),
        *(made(f"{project}/zones/{zone}/machineTypes", {"kind": "compute#machineTypeList", "items": types_of_a()})
          for zone in zones)]


def types_of_a() -> list[dict[str, Any]]:
    recorded = json.loads((folder("gcp") / "miq/aggregated-machineTypes.us-central1-a.json").read_text())
    return recorded["items"]["zones/us-central1-a"]["machineTypes"]


def project_path() -> str:
    return f"/compute/v1/projects/{account_of('gcp').credentials['project_id']}"


AGGREGATED = "get-compute-v1-projects-cloud-custodian-aggregated-instances_{}.json"


def test_gcp_stopped_and_running_with_disks_without_a_size() -> None:
    recorded = flight("flights/instance-query/" + AGGREGATED.format(1))
    servers = {server.name: server for region in ("us-central1", "us-east1")
               for server in listed(Player("gcp", zones_of(recorded, region, project_path())), region)}
    assert {name: server.status for name, server in servers.items()} == {
        "c7n-jenkins": Status.ACTIVE, "custodian": Status.ACTIVE, "custodian-dev": Status.SHUTOFF,
        "drone": Status.SHUTOFF}
    assert {server.disk_gib for server in servers.values()} == {None}
    assert servers["drone"].wan_ipv4 == ()
    assert servers["c7n-jenkins"].wan_ipv4 == ("104.154.233.11",)
    assert (servers["drone"].cpu, servers["drone"].memory_mib,
            servers["drone"].instance_type) == (1, 3840, "n1-standard-1")


@pytest.mark.parametrize(("number", "status", "wan"),
                         [(1, Status.ACTIVE, ("34.121.168.185",)), (2, Status.SUSPENDED, ())])
def test_gcp_paused_and_resumed(number: int, status: Status, wan: tuple[str, ...]) -> None:
    recorded = flight("flights/instance-pause-resume/" + AGGREGATED.format(number))
    (server,) = listed(Player("gcp", zones_of(recorded, "us-central1", project_path())), "us-central1")
    assert (server.name, server.status, server.disk_gib, server.wan_ipv4) == ("pro-narwhal", status, 10, wan)


def test_gcp_without_a_public_interface() -> None:
    recorded = flight("flights/instance-create-machine-instance/" + AGGREGATED.format(1))
    (server,) = listed(Player("gcp", zones_of(recorded, "us-central1", project_path())), "us-central1")
    assert (server.name, server.status, server.disk_gib, server.lan_ipv4, server.wan_ipv4, server.memory_mib) == (
        "test-ingwar", Status.SHUTOFF, 10, ("10.128.0.4",), (), 3840)


def test_gcp_stopping() -> None:
    recorded = flight(
        "flights/instance-stop/get-compute-v1-projects-cloud-custodian-zones-us-central1-c-instances_1.json")
    both = {"items": {"zones/us-central1-c": {"instances": recorded["items"]}}}
    (server,) = listed(Player("gcp", zones_of(both, "us-central1", project_path())), "us-central1")
    assert (server.status, server.disk_gib, server.wan_ipv4) == (Status.STOPPING, None, ("35.202.43.203",))


# ---------------------------------------------------------------- huaweicloud

def test_huaweicloud_a_server_without_addresses_and_volumes() -> None:
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
