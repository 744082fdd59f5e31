"""What the real cloud answered, played to the adapter: the values that the recordings' SOURCE.md names, exactly."""

import json
from dataclasses import replace

from chalicelib.model import Status
from tests.recorded import Answer, Player, answers, folder, later_fields, listed, made


def of_linode(name: str) -> list[Answer]:
    return [replace(answer, path=answer.path.replace("/v4beta/", "/v4/"))
            for answer in answers(folder("linode") / f"{name}.yaml")]


NOTHING = {"data": [], "page": 1, "pages": 1, "results": 0}


def test_one_linode_in_the_making() -> None:
    recorded = [answer for answer in of_linode("TestInstances_List") if answer.method == "GET"]
    player = Player(
        "linode", [*recorded, *(made(path, NOTHING) for path in ("/v4/volumes", "/v4/vpcs/ips", "/v4/vpcs/ipv6s"))])
    (server,) = listed(player, "us-sea")
    assert (server.status, server.disk_gib, server.memory_mib,
            server.wan_ipv4) == (Status.BUILD, 25, 1024, ("192.0.2.0",))
    assert later_fields([server], "linode", "us-sea") == {"82372946": {         # made without an image
        "account": "default", "host_id": "2821119d92bf7c65e7c36fe4263dd48f7b277a30",
        "console_url": "https://cloud.linode.com/linodes/82372946"}}


def test_an_address_in_a_vpc() -> None:
    recorded = of_linode("TestVPC_ListAllIPAddresses")
    linode = next(json.loads(answer.response.body) for answer in recorded
                  if answer.method == "POST" and answer.path == "/v4/linode/instances")
    vpcs = [answer for answer in recorded if answer.path == "/v4/vpcs/ips"]
    player = Player("linode", [*vpcs, made("/v4/linode/instances",
                                           {"data": [linode], "page": 1, "pages": 1, "results": 1}),
                               *(made(path, NOTHING) for path in ("/v4/volumes", "/v4/vpcs/ipv6s"))])
    (server,) = listed(player, "au-mel")
    assert (server.lan_ipv4, server.wan_ipv4) == (("192.168.0.2",), ("192.0.2.0",))
    assert later_fields([server], "linode", "au-mel") == {"101623951": {
        "account": "default", "vpc_id": "583190", "subnet_id": "818350",
        "host_id": "4c91ac99e50926523e4e54decf009617670210c7",
        "console_url": "https://cloud.linode.com/linodes/101623951"}}
