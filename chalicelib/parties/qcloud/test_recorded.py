"""What the real cloud answered, played to the adapter: the values that the recordings' SOURCE.md names, exactly."""

import pytest

from chalicelib.cloud.client import Client
from chalicelib.errors import PartyMalformed
from chalicelib.model import Source, Status
from chalicelib.parties import qcloud
from tests.recorded import Answer, Player, answers, anywhere, folder, later_fields, listed
from tests.unit.test_parties import account_of


def of_qcloud(name: str) -> list[Answer]:
    return anywhere(answers(folder("qcloud") / f"{name}.yaml"))


def paged(name: str) -> list[Answer]:
    """Of the recorded lists alone: each names an offset."""
    return [answer for answer in of_qcloud(name) if "Offset" in answer.parameters]


def test_six_servers_on_pages_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
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


PUBLIC = "img-eb30mz89"                     # TencentOS Server 3.1 (TK4)


@pytest.mark.parametrize(("key", "image", "os", "vpc", "subnet", "groups", "pair"), [
    ("ins-dq1dmpgk", PUBLIC, "linux", "vpc-rdsfj6ot", "subnet-9hl8a56w", "sg-0tifsp1w,sg-cj259yog", "skey-0uvvu4xh"),
    ("ins-00lycyy6", PUBLIC, "linux", "vpc-2hxl6jir", "subnet-gnl4awp6", "sg-4rdhd5n6", "skey-83mjf79v"),
    ("ins-a4vgayks", PUBLIC, "linux", "vpc-2hxl6jir", "subnet-gnl4awp6", "sg-4rdhd5n6", None),
    ("ins-n198q4gc", "img-9id7emv7", "windows", "vpc-aik1957f", "subnet-5k1ixnpo", "sg-b3fnpwk6", None),
    ("ins-beetmuio", PUBLIC, "linux", "vpc-o7cqtz6h", "subnet-8prst8z2", "sg-bbxj9vro", "skey-puewei5v"),
    ("ins-5xpbvkm8", "img-pi0ii46r", "linux", "vpc-jls90tbv", "subnet-2tvpnc9w", "sg-epfytda6", "skey-3cxbfyxp")])
def test_the_later_fields(monkeypatch: pytest.MonkeyPatch, key: str, image: str, os: str, vpc: str, subnet: str,
                          groups: str, pair: str | None) -> None:
    """All six are POSTPAID_BY_HOUR, with ExpiredTime and HostId null."""
    monkeypatch.setattr(qcloud, "_PAGE", 3)
    player = Player("qcloud", of_qcloud("TestClient.test_paging_offset"), ("Offset",))
    assert later_fields(listed(player, "ap-singapore"), "qcloud", "ap-singapore")[key] == {
        "account": "default", "image_id": image, "os": os, "vpc_id": vpc, "subnet_id": subnet,
        "security_group_set": groups, "charge_type": "postpaid", **({"key_name": pair} if pair else {})}


@pytest.mark.parametrize(("name", "statuses"), [
    ("start", [Status.SHUTOFF, Status.STARTING]), ("stop", [Status.ACTIVE, Status.STOPPING])])
def test_what_a_server_is_doing(name: str, statuses: list[Status]) -> None:
    recorded = paged(f"TestCvmAction.test_cvm_{name}")
    assert [listed(Player("qcloud", [answer]), "ap-singapore")[0].status for answer in recorded] == statuses


def test_a_server_that_is_gone() -> None:
    before, after = paged("TestCvmAction.test_cvm_terminate")
    assert len(listed(Player("qcloud", [before]), "ap-singapore")) == 1
    assert listed(Player("qcloud", [after]), "ap-singapore") == []


def test_an_error_inside_a_200() -> None:
    with pytest.raises(PartyMalformed) as refused:
        listed(Player("qcloud", of_qcloud("TestCvmAction.test_cvm_exec_exception")), "ap-singapore")
    assert refused.value.party_code == "InvalidParameter"


@pytest.mark.parametrize(("name", "attached"), [
    ("available", False), ("copy_instance_tags", True), ("not_encrypt", True)])
def test_disks(name: str, attached: bool) -> None:
    player = Player("qcloud", paged(f"TestCbs.test_cbs_{name}"), ("Offset",))
    (disk,) = qcloud._disks(Client(Source("123", "qcloud", "ap-singapore"), account_of("qcloud"), player), ["ins-1"])
    assert bool(disk.InstanceId) is attached
    assert disk.DiskSize
