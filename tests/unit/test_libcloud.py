"""The bridge to Apache Libcloud: one door for all calls, no row lost, no exception that callers do not know.

What is about one cloud is beside that cloud; Brightbox, which needs least, stands for all here.
"""

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from chalicelib import parties
from chalicelib.cloud import libcloud
from chalicelib.cloud.client import Client
from chalicelib.errors import Internal, PartyDenied, PartyFailed, PartyMalformed, PartyThrottled
from chalicelib.model import WHOLE, Response, Server, Sign, Source
from tests.unit.test_parties import WHAT, Recorded, account_of

pytest.importorskip("libcloud")
BRIDGED = sorted(name for name in parties.names() if parties.load(name).grade == "bridged")


# ---------------------------------------------------------------- one door

@pytest.mark.parametrize("name", BRIDGED)
def test_no_driver_opens_a_socket_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket, past send")

    for place in ("socket.socket.connect", "socket.create_connection", "requests.Session.send",
                  "requests.sessions.Session.request"):
        monkeypatch.setattr(place, refuse)
    case = WHAT[name]["cases"][0]
    send = Recorded(parties.load(name), case["exchanges"])
    source = Source("123", name, case.get("region", WHAT[name]["region"]))
    assert parties.list_servers(source, account_of(name), WHOLE, send).total == len(case["servers"])


@pytest.mark.parametrize("name", BRIDGED)
def test_only_what_lists_may_pass(name: str) -> None:
    row: libcloud.Bridge = importlib.import_module(f"chalicelib.parties.{name}").BRIDGE

    def send(operation: str, sign: Sign) -> Response:
        raise AssertionError("sent")

    changing: list[Callable[[Any], object]] = [
        lambda driver: driver.destroy_node(node(driver)), lambda driver: driver.reboot_node(node(driver)),
        lambda driver: driver.start_node(node(driver)), lambda driver: driver.stop_node(node(driver))]

    def node(driver: Any) -> Any:
        return importlib.import_module("libcloud.compute.base").Node("1", "x", "running", [], [], driver)

    refused = 0
    for change in changing:
        with libcloud.open_driver(row, account_of(name), WHAT[name]["region"], send) as driven:
            driven.driver.connection.token = "example"          # brightbox: as after a login
            try:
                change(driven.driver)
            except Internal:
                refused += 1
            except (NotImplementedError, KeyError):             # it cannot do this, or not of an unknown node
                pass
    assert refused
    with libcloud.open_driver(row, account_of(name), WHAT[name]["region"], send) as driven:
        for method, path in (("DELETE", "/1.0/servers"), ("GET", "/api/2.0/servers/"),
                             ("GET", "/client/api?command=destroyVirtualMachine"),
                             ("POST", "/service/server/info2"), ("POST", "/api/latest/DeleteVms"),
                             ("GET", "https://evil.example/"),
                             ("GET", "/client/api?x=listZones"), ("GET", "/1.0/servers\n"),
                             ("PUT", "/service/servers")):
            with pytest.raises(Internal):
                driven.door.request(method, path)


def test_without_libcloud_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "libcloud"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "libcloud", None)

    def send(operation: str, sign: Sign) -> Response:
        raise AssertionError("sent")

    for name in BRIDGED:
        party = parties.load(name)
        with pytest.raises(Internal, match=r"in the clone, run .*pip install -e \"\.\[bridge\]\""):
            party.list_servers(Client(Source("123", name, WHAT[name]["region"]), account_of(name), send), WHOLE)


def test_a_certificate_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "libcloud"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    with pytest.raises(Internal, match="SSL_CERT_FILE"):
        listed(brightbox_of([]))


def test_importing_the_bridge_imports_no_libcloud() -> None:
    import subprocess

    code = ("import sys; from chalicelib import parties; parties.load('cloudstack'); "
            "print('libcloud' in sys.modules, 'requests' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"


# ---------------------------------------------------------------- what a driver does wrong

def brightbox_of(rows: list[dict[str, Any]]) -> Callable[[str, Sign], Response]:
    def send(operation: str, sign: Sign) -> Response:
        sign()
        return Response(200, {}, json.dumps({"access_token": "x"} if operation == "Login" else rows).encode())

    return send


ROW = {"id": "srv-1", "name": "a", "status": "active", "interfaces": [], "cloud_ips": [], "image": None,
       "server_type": None, "zone": None}


def listed(send: Callable[[str, Sign], Response]) -> list[Server]:
    return parties.load("brightbox").list_servers(Client(Source("1", "brightbox", "gb1"), account_of("brightbox"),
                                                         send), WHOLE).servers


@pytest.mark.parametrize("wrong", [
    lambda nodes: nodes[:-1], lambda nodes: nodes[::-1], lambda nodes: [*nodes, nodes[0]], lambda nodes: [],
    lambda nodes: None])
def test_a_driver_that_leaves_out_a_row_is_not_believed(wrong: Callable[[Any], Any],
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    driver = importlib.import_module("libcloud.compute.drivers.brightbox").BrightboxNodeDriver
    real = driver.list_nodes
    monkeypatch.setattr(driver, "list_nodes", lambda self: wrong(real(self)))
    with pytest.raises(PartyMalformed):
        listed(brightbox_of([ROW, {**ROW, "id": "srv-2"}]))


def test_its_exceptions_get_our_names_and_keep_their_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    types = importlib.import_module("libcloud.common.types")
    http = importlib.import_module("libcloud.common.exceptions")
    driver = importlib.import_module("libcloud.compute.drivers.brightbox").BrightboxNodeDriver
    for raised, ours in (
            (types.InvalidCredsError("not for callers"), PartyDenied),
            (types.MalformedResponseError("not for callers"), PartyMalformed),
            (types.LibcloudError("not for callers"), PartyMalformed),
            (types.ProviderError("not for callers", 500), PartyMalformed),
            (http.RateLimitReachedError(), PartyThrottled),
            (http.BaseHTTPError(418, {"not": "for callers"}), PartyMalformed),
            (KeyError("not for callers"), PartyMalformed), (TypeError("not for callers"), PartyMalformed),
            (AttributeError("not for callers"), PartyMalformed), (ValueError("not for callers"), PartyMalformed)):
        def fail(self: object, raised: Exception = raised) -> None:
            raise raised

        monkeypatch.setattr(driver, "list_nodes", fail)
        with pytest.raises(ours) as failed:
            listed(brightbox_of([]))
        assert "not for callers" not in str(failed.value)
        assert failed.value.__suppress_context__
    with pytest.raises(PartyFailed):                            # ours pass unchanged

        def send(operation: str, sign: Sign) -> Response:
            raise PartyFailed()

        monkeypatch.undo()
        listed(send)


def test_side_by_side_no_answer_meets_another() -> None:
    """A driver of its own for each: forty listings at once, each with rows of its own."""
    from concurrent.futures import ThreadPoolExecutor

    slow = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(40) as pool:
            lists = pool.map(lambda n: [server.id for server in listed(brightbox_of([{**ROW, "id": f"srv-{n}"}] * 3))],
                             range(400))
            assert list(lists) == [[f"srv-{n}"] for n in range(400)]
    finally:
        sys.setswitchinterval(slow)
