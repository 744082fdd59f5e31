"""What the real cloud answered, played to the adapter: the values that the recordings' SOURCE.md names, exactly."""

import pytest

from chalicelib import parties
from chalicelib.model import Region, Server, Status
from tests.recorded import Answer, Player, folder, later_fields, listed, made
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


@pytest.fixture
def servers(types: Answer) -> dict[str, Server]:
    there = folder("aws")
    player = Player("aws", [
        ec2("DescribeInstances", (there / "DescribeInstances.xml").read_bytes()),
        ec2("DescribeVolumes", (there / "DescribeVolumes.xml").read_bytes()), types], ("Action",))
    return {server.id: server for server in listed(player, "us-east-1")}


def test_instances_and_their_volumes(servers: dict[str, Server]) -> None:
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


PAGE = "https://us-east-1.console.aws.amazon.com/ec2/home?region=us-east-1#InstanceDetails:instanceId="
PAIR = "EmsRefreshSpec-KeyPair"
IN_VPC = ("vpc-ff49ff91", "subnet-f849ff96")
OLD, NEW = ("ami-5769193e", "sg-038e8a69,sg-12898d78"), ("ami-5769193e", "sg-347f9b5d")


@pytest.mark.parametrize(("key", "image", "groups", "pair", "network"), [
    ("i-8b5739f2", "ami-5769193e", "sg-80f755ef", PAIR, IN_VPC),
    ("i-c72af2f6", "ami-2051294a", "sg-80f755ef", PAIR, IN_VPC),
    ("i-00ad9fc047e3bc490", "ami-0eac7720264bacad5", "sg-0eb389fcdb8fe89de",
     "test_smartstate-2fff3c29-d1eb-4c1f-b09d-0955470367c6", ("vpc-c3d2f1a5", "subnet-de2363bb")),
    ("i-04becd4e71348ec9a", "ami-4bf3d731", "sg-04fea57a134dbd144", "key-1",
     ("vpc-0bca55966a6d5c9d0", "subnet-023cefdfd8f6fcf8e")),
    ("i-0b3970bc39a94431e", "ami-4bf3d731", "sg-04fea57a134dbd144", "key-1",
     ("vpc-0bca55966a6d5c9d0", "subnet-023cefdfd8f6fcf8e")),
    ("i-680071e9", *OLD, PAIR, None), ("i-0e1752ff841801f65", *OLD, PAIR, None),
    ("i-09b65a1400b9538ff", *NEW, None, None), ("i-0297a2b1075b3a2c6", *NEW, PAIR, None)])
def test_the_later_fields(servers: dict[str, Server], key: str, image: str, groups: str, pair: str | None,
                          network: tuple[str, str] | None) -> None:
    """No instance here says its platform, its lifecycle (so each is on demand) or a host; EC2-Classic has no VPC."""
    assert later_fields(servers.values(), "aws", "us-east-1")[key] == {
        "account": "default", "image_id": image, "security_group_set": groups, "charge_type": "postpaid",
        "console_url": PAGE + key, **({"key_name": pair} if pair else {}),
        **(dict(zip(("vpc_id", "subnet_id"), network, strict=True)) if network else {})}


def test_regions() -> None:
    body = (folder("aws") / "DescribeRegions.xml").read_bytes()
    regions = parties.list_regions(account_of("aws"), Player("aws", [ec2("DescribeRegions", body)], ("Action",)))
    assert len(regions) == 17
    assert Region("us-east-1") in regions
