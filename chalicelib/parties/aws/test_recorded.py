"""What the real cloud answered, played to the adapter: the values that the recordings' SOURCE.md names, exactly."""

import pytest

from chalicelib import parties
from chalicelib.model import Region, Status
from tests.recorded import Answer, Player, folder, listed, made
from tests.unit.test_parties import account_of

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


def test_instances_and_their_volumes(types: Answer) -> None:
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


def test_regions() -> None:
    body = (folder("aws") / "DescribeRegions.xml").read_bytes()
    regions = parties.list_regions(account_of("aws"), Player("aws", [ec2("DescribeRegions", body)], ("Action",)))
    assert len(regions) == 17
    assert Region("us-east-1") in regions
