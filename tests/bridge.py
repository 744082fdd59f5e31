"""What the tests of the bridged clouds share: Libcloud's recorded answers, through its driver alone and through the
bridge."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from chalicelib import parties
from chalicelib.cloud.client import Client
from chalicelib.cloud.libcloud import Bridge
from chalicelib.model import WHOLE, Response, Server, Sign, Source, Status
from tests.unit.test_parties import account_of

theirs = pytest.importorskip("libcloud")
FIXTURES = Path(theirs.__file__).parent / "test" / "compute" / "fixtures"


def bridge_of(party: str) -> Bridge:
    row: Bridge = importlib.import_module(f"chalicelib.parties.{party}").BRIDGE
    return row


class Played:
    """libcloud's side of a connection, answered with requests' Response, as in its own tests."""

    def __init__(self, answers: Mapping[str, bytes], **_: object) -> None:
        self.answers = answers
        self.response = requests.Response()

    def request(self, method: str, url: str, body: object = None, headers: object = None,
                **_: object) -> requests.Response:
        operation = url.partition("command=")[2].partition("&")[0] or url.partition("?")[0]
        self.response = requests.Response()
        self.response.status_code, self.response._content = 200, self.answers[operation]
        self.response.headers["Content-Type"] = "application/json"
        self.response.status = 200                              # type: ignore[attr-defined]
        self.response.read = lambda: self.response.content      # type: ignore[attr-defined]
        return self.response

    def getresponse(self) -> requests.Response:
        return self.response


def their_nodes(party: str, answers: Mapping[str, bytes], listing: Mapping[str, Any] = {}, **more: Any) -> list[Any]:
    """The driver's own list, with nothing of the bridge about it."""
    row = bridge_of(party)
    driver = getattr(importlib.import_module(f"libcloud.compute.drivers.{row.module}"),
                     row.driver)("example", "example", **more)
    driver.connection.conn_class = lambda **_: Played(answers)
    driver.connection.connect()
    return list(driver.list_nodes(**listing))


def our_servers(party: str, region: str, answers: Mapping[str, bytes]) -> list[Server]:
    def send(operation: str, sign: Sign) -> Response:
        request = sign()
        path = request.url.partition("://")[2].partition("/")[2]
        name = path.partition("command=")[2].partition("&")[0] or "/" + path.partition("?")[0]
        return Response(200, {}, answers[name])

    return parties.load(party).list_servers(Client(Source("123", party, region), account_of(party), send),
                                            WHOLE).servers


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def ours_fit(ours: list[Server], nodes: list[Any]) -> None:
    assert [server.id for server in ours] == [str(node.id) for node in nodes]
    assert nodes
    for server, node in zip(ours, nodes, strict=True):
        assert server.name == (node.name or "")
        addresses = {*server.lan_ipv4, *server.wan_ipv4, *server.lan_ipv6, *server.wan_ipv6}
        assert addresses == {*node.public_ips, *node.private_ips}
        assert (server.status is Status.ACTIVE) == (str(node.state) == "running") or server.status is Status.UNKNOWN


def answered(status: int, body: bytes) -> requests.Response:
    response = requests.Response()
    response.status_code, response._content = status, body
    return response
