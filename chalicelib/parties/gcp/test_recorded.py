"""What the real cloud answered, played to the adapter: the values that the recordings' SOURCE.md names, exactly."""

import json
from typing import Any

import pytest

from chalicelib.model import Status
from tests.recorded import Answer, Player, folder, later_fields, listed, made
from tests.unit.test_parties import account_of


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


def test_stopped_and_running_with_disks_without_a_size() -> None:
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
def test_paused_and_resumed(number: int, status: Status, wan: tuple[str, ...]) -> None:
    recorded = flight("flights/instance-pause-resume/" + AGGREGATED.format(number))
    (server,) = listed(Player("gcp", zones_of(recorded, "us-central1", project_path())), "us-central1")
    assert (server.name, server.status, server.disk_gib, server.wan_ipv4) == ("pro-narwhal", status, 10, wan)


def test_without_a_public_interface() -> None:
    recorded = flight("flights/instance-create-machine-instance/" + AGGREGATED.format(1))
    (server,) = listed(Player("gcp", zones_of(recorded, "us-central1", project_path())), "us-central1")
    assert (server.name, server.status, server.disk_gib, server.lan_ipv4, server.wan_ipv4, server.memory_mib) == (
        "test-ingwar", Status.SHUTOFF, 10, ("10.128.0.4",), (), 3840)


def test_stopping() -> None:
    recorded = flight(
        "flights/instance-stop/get-compute-v1-projects-cloud-custodian-zones-us-central1-c-instances_1.json")
    both = {"items": {"zones/us-central1-c": {"instances": recorded["items"]}}}
    (server,) = listed(Player("gcp", zones_of(both, "us-central1", project_path())), "us-central1")
    assert (server.status, server.disk_gib, server.wan_ipv4) == (Status.STOPPING, None, ("35.202.43.203",))


CENTRAL, EAST = "default-48aec19374439812", "default-07bf749b4b0e8db2"
LATER = {                                   # flight, zone, id: name, network, its subnetwork
    ("instance-query", "us-central1-b", "2966820606951926687"): ("c7n-jenkins", "default", CENTRAL),
    ("instance-query", "us-central1-b", "4913675096949006093"): ("drone", "default", CENTRAL),
    ("instance-query", "us-east1-b", "4158127351007949610"): ("custodian-dev", "default", EAST),
    ("instance-query", "us-east1-d", "4179518482904332734"): ("custodian", "default", EAST),
    ("instance-pause-resume", "us-central1-a", "6898528043909006062"): (
        "pro-narwhal", "pro-narwhal-vpc", "pro-narwhal-subnet"),
    ("instance-create-machine-instance", "us-central1-a", "3532009896116593480"): ("test-ingwar", "default", "default"),
}


@pytest.mark.parametrize(("name", "zone", "key"), LATER)
def test_the_later_fields(name: str, zone: str, key: str) -> None:
    """The licences of the disks that they boot from are Ubuntu's and Debian's. None is preemptible; only the newest
    (2023) names its provisioning model. Image, keys, groups and hosts are not in an instance."""
    recorded = flight(f"flights/{name}/" + AGGREGATED.format(1))
    region = zone[:-2]
    servers = listed(Player("gcp", zones_of(recorded, region, project_path())), region)
    instance, network, subnetwork = LATER[name, zone, key]
    project = account_of("gcp").credentials["project_id"]
    assert later_fields(servers, "gcp", region)[key] == {
        "account": "default", "os": "linux", "vpc_id": network, "subnet_id": subnetwork, "charge_type": "postpaid",
        "console_url": "https://console.cloud.google.com/compute/instancesDetail/zones/"
                       f"{zone}/instances/{instance}?project={project}"}
