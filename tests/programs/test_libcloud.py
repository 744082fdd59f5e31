"""Apache Libcloud itself judges the bridge: its drivers, on their own connection, and its recorded answers.

What its fixtures hold goes twice into the same driver: through `send` and the bridge, and through a connection made of
requests' own Response. A CloudStack is played here, with a signature checked by the vendor's published one.
"""

import base64
import hashlib
import hmac
import importlib
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec
import pytest
import requests
import time_machine

from chalicelib import parties
from chalicelib.cloud import libcloud as bridge
from chalicelib.cloud import rate_limit
from chalicelib.errors import Internal, PartyDenied, PartyError, PartyFailed, PartyMalformed, PartyThrottled
from chalicelib.fleet import check, lookup, many_sources
from chalicelib.fleet.many_sources import Answer as Listed
from chalicelib.model import WHOLE, Account, Request, Response, Server, Sign, Source, Status, Window
from chalicelib.simulators.faults import FAULTS, LATE, PASSING, Answer
from chalicelib.simulators.fleet import Fleet, Machine
from chalicelib.simulators.server import Call, Simulator
from tests import canaries
from tests.fixtures import App
from tests.unit.test_parties import WHAT, Recorded, account_of

theirs = pytest.importorskip("libcloud")
FIXTURES = Path(theirs.__file__).parent / "test" / "compute" / "fixtures"
BRIDGED = sorted(name for name in parties.names() if parties.load(name).grade == "bridged")


# ---------------------------------------------------------------- its own fixtures, twice

class Played:
    """libcloud's side of a connection, answered with requests' Response, as in its own tests."""

    def __init__(self, answers: Mapping[str, bytes], **_: object) -> None:
        self.answers = answers
        self.response = requests.Response()

    def request(self, method: str, url: str, body: object = None, headers: object = None, **_: object) -> requests.Response:
        asked = url.partition("command=")[2].partition("&")[0] or url.partition("?")[0]
        self.response = requests.Response()
        self.response.status_code, self.response._content = 200, self.answers[asked]
        self.response.headers["Content-Type"] = "application/json"
        self.response.status = 200                              # type: ignore[attr-defined]
        self.response.read = lambda: self.response.content      # type: ignore[attr-defined]
        return self.response

    def getresponse(self) -> requests.Response:
        return self.response


def their_nodes(party: str, answers: Mapping[str, bytes], *arguments: str, **more: Any) -> list[Any]:
    """The driver's own list, with nothing of the bridge about it."""
    row = {"brightbox": bridge._brightbox_bridge, "cloudsigma": bridge._cloudsigma_bridge, "cloudstack": bridge._cloudstack_bridge,
           "kamatera": bridge._kamatera_bridge}[party]
    driver = getattr(importlib.import_module(f"libcloud.compute.drivers.{row.module}"), row.driver)("example", "example", *arguments, **more)
    driver.connection.conn_class = lambda **_: Played(answers)
    driver.connection.connect()
    return list(driver.list_nodes(**({"ex_full_details": True} if party == "kamatera" else {})))


def our_servers(party: str, region: str, answers: Mapping[str, bytes]) -> list[Server]:
    def send(operation: str, sign: Sign) -> Response:
        request = sign()
        path = request.url.partition("://")[2].partition("/")[2]
        asked = path.partition("command=")[2].partition("&")[0] or "/" + path.partition("?")[0]
        return Response(200, {}, answers[asked])

    return parties.load(party).list_servers(Source("123", party, region), account_of(party), WHOLE, send).servers


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def counted(name: str) -> bytes:
    """A list that was recorded with a page size, as the whole that limit=0 gives."""
    answer = json.loads(fixture(name))
    answer["meta"]["total_count"] = len(answer["objects"])
    return json.dumps(answer).encode()


def ours_fit(ours: list[Server], nodes: list[Any]) -> None:
    assert [server.id for server in ours] == [str(node.id) for node in nodes]
    assert nodes
    for server, node in zip(ours, nodes, strict=True):
        assert server.name == (node.name or "")
        found = {*server.lan_ipv4, *server.wan_ipv4, *server.lan_ipv6, *server.wan_ipv6}
        assert found == {*node.public_ips, *node.private_ips}
        assert (server.status is Status.ACTIVE) == (str(node.state) == "running") or server.status is Status.UNKNOWN


def test_brightbox() -> None:
    answers = {"/token": fixture("brightbox/token.json"), "/1.0/servers": fixture("brightbox/list_servers.json")}
    ours, nodes = our_servers("brightbox", "gb1", answers), their_nodes("brightbox", answers)
    ours_fit(ours, nodes)
    for server, node in zip(ours, nodes, strict=True):
        assert (server.memory_mib, server.disk_gib) == (node.size.ram, node.size.disk / 1024)
        assert (server.zone, server.party_status) == (node.extra["zone"].name, node.extra["status"])
        assert server.created_at == datetime.fromisoformat(node.extra["created_at"])
    assert [server.cpu for server in ours] == [4, 8]            # libcloud has no place for it


@pytest.mark.parametrize("state", ["servers_detail_all_stopped.json", "servers_detail_mixed_state.json"])
def test_cloudsigma(state: str) -> None:
    answers = {"/api/2.0/servers/detail/": fixture(f"cloudsigma_2_0/{state}"), "/api/2.0/drives/detail/": counted("cloudsigma_2_0/drives_detail.json")}
    for drive in ("3f74acec-ba3c-4efd-ab9e-5d95a4c5fca9", "b02311e2-a83c-4c12-af10-b30d51c86913"):
        answers[f"/api/2.0/drives/{drive}/"] = fixture("cloudsigma_2_0/drives_get.json")
    ours, nodes = our_servers("cloudsigma", "zrh", answers), their_nodes("cloudsigma", answers)
    ours_fit(ours, nodes)
    assert [server.memory_mib for server in ours] == [node.extra["memory"] for node in nodes]


@pytest.mark.parametrize("listed", ["listVirtualMachines_default.json", "listVirtualMachines_noipaddress.json"])
def test_cloudstack(listed: str) -> None:
    answers = {command: fixture(f"cloudstack/{command}_default.json") for command in (
        "listZones", "listPublicIpAddresses", "listPortForwardingRules", "listIpForwardingRules", "listVolumes")}
    answers["listVirtualMachines"] = fixture(f"cloudstack/{listed}")
    rows = json.loads(answers["listVirtualMachines"])["listvirtualmachinesresponse"]["virtualmachine"]
    answers["listZones"] = json.dumps({"listzonesresponse": {"zone": [{"id": rows[0]["zoneid"], "name": "a"}]}}).encode()
    ours = our_servers("cloudstack", "a", answers)
    nodes = their_nodes("cloudstack", answers, host="cloud.example", path="/client/api")
    ours_fit(ours, nodes)
    for server, node in zip(ours, nodes, strict=True):
        assert (server.zone, server.instance_type) == (node.extra["zone_name"], node.extra["size_name"])
        assert server.created_at == datetime.fromisoformat(node.extra["created"])
        assert server.tags == node.extra.get("tags", {})


def test_kamatera() -> None:
    details = json.loads(fixture("kamatera/server_info.json"))
    answers = {"/service/servers": json.dumps([{key: row[key] for key in ("id", "name", "power", "datacenter")} for row in details]).encode(),
               "/service/server/info": fixture("kamatera/server_info.json")}
    ours, nodes = our_servers("kamatera", "IL", answers), their_nodes("kamatera", answers)
    ours_fit(ours, nodes)
    assert [server.zone for server in ours] == [node.extra["location"].id for node in nodes]


def test_outscale_is_signed_as_by_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same call at the same time, past every seam as the driver makes it, and through the bridge."""
    driver_class = importlib.import_module("libcloud.compute.drivers.outscale").OutscaleNodeDriver
    sent: list[tuple[str, dict[str, str], str]] = []

    def post(url: str, data: str, headers: dict[str, str]) -> requests.Response:
        sent.append((url, headers, data))
        return answered(200, b'{"Vms": []}')

    monkeypatch.setattr("requests.post", post)
    asked: list[Request] = []

    def send(operation: str, sign: Sign) -> Response:
        asked.append(sign())
        return Response(200, {}, b'{"Vms": []}')

    with time_machine.travel("2026-01-02T03:04:05Z", tick=False):
        party = parties.load("outscale")
        assert party.list_servers(Source("1", "outscale", "eu-west-2"), account_of("outscale"), WHOLE, send).total == 0
        keys = WHAT["outscale"]["credentials"]
        driver_class(keys["access_key"], keys["secret_key"], region="eu-west-2").list_nodes(ex_data=asked[0].body.decode())
    (url, headers, data), = sent
    assert (asked[0].url, asked[0].body.decode(), dict(asked[0].headers)) == (url, data, headers)


def answered(status: int, body: bytes) -> requests.Response:
    response = requests.Response()
    response.status_code, response._content = status, body
    return response


# ---------------------------------------------------------------- one door

@pytest.mark.parametrize("name", BRIDGED)
def test_no_driver_opens_a_socket_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket, past send")

    for place in ("socket.socket.connect", "socket.create_connection", "requests.Session.send", "requests.sessions.Session.request"):
        monkeypatch.setattr(place, refuse)
    case = WHAT[name]["cases"][0]
    send = Recorded(parties.load(name), case["exchanges"])
    source = Source("123", name, case.get("region", WHAT[name]["region"]))
    assert parties.load(name).list_servers(source, account_of(name), WHOLE, send).total == len(case["servers"])


@pytest.mark.parametrize("name", BRIDGED)
def test_only_what_lists_may_pass(name: str) -> None:
    row = next(value for key, value in vars(bridge).items() if key == f"_{name}_bridge")

    def send(operation: str, sign: Sign) -> Response:
        raise AssertionError("sent")

    changing: list[Callable[[Any], object]] = [
        lambda driver: driver.destroy_node(node(driver)), lambda driver: driver.reboot_node(node(driver)),
        lambda driver: driver.start_node(node(driver)), lambda driver: driver.stop_node(node(driver))]

    def node(driver: Any) -> Any:
        return importlib.import_module("libcloud.compute.base").Node("1", "x", "running", [], [], driver)

    refused = 0
    for change in changing:
        with bridge._driven(row, account_of(name), WHAT[name]["region"], send) as driven:
            driven.driver.connection.token = "example"          # brightbox: as after a login
            try:
                change(driven.driver)
            except Internal:
                refused += 1
            except (NotImplementedError, KeyError):             # it cannot do this, or not of an unknown node
                pass
    assert refused
    with bridge._driven(row, account_of(name), WHAT[name]["region"], send) as driven:
        for method, path in (("DELETE", "/1.0/servers"), ("GET", "/api/2.0/servers/"), ("GET", "/client/api?command=destroyVirtualMachine"),
                             ("POST", "/service/server/info2"), ("POST", "/api/latest/DeleteVms"), ("GET", "https://evil.example/"),
                             ("GET", "/client/api?x=listZones"), ("GET", "/1.0/servers\n"), ("PUT", "/service/servers")):
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
            party.list_servers(Source("123", name, WHAT[name]["region"]), account_of(name), WHOLE, send)


def test_a_certificate_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "libcloud"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    with pytest.raises(Internal, match="SSL_CERT_FILE"):
        listed(brightbox_of([]))


def test_importing_the_bridge_imports_no_libcloud() -> None:
    import subprocess

    code = "import sys; from chalicelib import parties; parties.load('cloudstack'); print('libcloud' in sys.modules, 'requests' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"


# ---------------------------------------------------------------- what a driver does wrong

def brightbox_of(rows: list[dict[str, Any]]) -> Callable[[str, Sign], Response]:
    def send(operation: str, sign: Sign) -> Response:
        sign()
        return Response(200, {}, json.dumps({"access_token": "x"} if operation == "Login" else rows).encode())

    return send


ROW = {"id": "srv-1", "name": "a", "status": "active", "interfaces": [], "cloud_ips": [], "image": None, "server_type": None, "zone": None}


def listed(send: Callable[[str, Sign], Response]) -> list[Server]:
    return parties.load("brightbox").list_servers(Source("1", "brightbox", "gb1"), account_of("brightbox"), WHOLE, send).servers


@pytest.mark.parametrize("wrong", [
    lambda nodes: nodes[:-1], lambda nodes: nodes[::-1], lambda nodes: [*nodes, nodes[0]], lambda nodes: [], lambda nodes: None])
def test_a_driver_that_leaves_out_a_row_is_not_believed(wrong: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
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
            (types.InvalidCredsError("not for callers"), PartyDenied), (types.MalformedResponseError("not for callers"), PartyMalformed),
            (types.LibcloudError("not for callers"), PartyMalformed), (types.ProviderError("not for callers", 500), PartyMalformed),
            (http.RateLimitReachedError(), PartyThrottled), (http.BaseHTTPError(418, {"not": "for callers"}), PartyMalformed),
            (KeyError("not for callers"), PartyMalformed), (TypeError("not for callers"), PartyMalformed),
            (AttributeError("not for callers"), PartyMalformed), (ValueError("not for callers"), PartyMalformed)):
        def fail(self: object, raised: Exception = raised) -> None:
            raise raised

        monkeypatch.setattr(driver, "list_nodes", fail)
        with pytest.raises(ours) as failed:
            listed(brightbox_of([]))
        assert "not for callers" not in str(failed.value)
        assert failed.value.__suppress_context__
    with pytest.raises(PartyFailed):                            # ours pass as they are

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
            found = pool.map(lambda n: [server.id for server in listed(brightbox_of([{**ROW, "id": f"srv-{n}"}] * 3))], range(400))
            assert list(found) == [[f"srv-{n}"] for n in range(400)]
    finally:
        sys.setswitchinterval(slow)


# ---------------------------------------------------------------- a CloudStack to ask

def signature(asked: Mapping[str, str], secret: str) -> str:
    text = "&".join(f"{name.lower()}={quote(value, safe='')}" for name, value in sorted(asked.items(), key=lambda pair: pair[0].lower()))
    return base64.b64encode(hmac.new(secret.encode(), text.lower().encode(), hashlib.sha1).digest()).decode()


def test_the_published_signature() -> None:
    """https://docs.cloudstack.apache.org/en/latest/developersguide/dev.html#how-to-sign-an-api-call-with-python"""
    asked = {"command": "listUsers", "response": "json",
             "apikey": "plgWJfZK4gyS3mOMTVmjUVg-X-jlWlnfaUJ9GAbBbf9EdM-kAYMmAiLqzzq1ElZLYq_u38zCm0bewzGUdP66mg"}
    secret = "VDaACYb0LV9eNjTetIOElcVQkvJck_J_QljX_FcHRj87ZKiy0z0ty0ZsYBkoXkY9b7eq1EhwJaw7FF3akA3KBQ"
    assert signature(asked, secret) == "TTpdDq/7j/J58XCRHomKoQXEQds="


STATES = {"running": "Running", "stopped": "Stopped", "starting": "Starting", "stopping": "Stopping", "pending": "Starting"}
ITEMS = {"listZones": "zone", "listVirtualMachines": "virtualmachine", "listPublicIpAddresses": "publicipaddress", "listVolumes": "volume",
         "listPortForwardingRules": "portforwardingrule", "listIpForwardingRules": "ipforwardingrule"}


class Cloudstack(Simulator):
    """One zone. Pages of at most 500, also if none is asked for; `skips`: the planted fault, a page that loses its last row."""

    def __init__(self, keys: Mapping[str, str], fleet: Fleet) -> None:
        self.keys = dict(keys)
        self.fleet = fleet
        self.skips = False
        super().__init__()

    def operation(self, call: Call) -> str:
        return dict(parse_qsl(call.query)).get("command", "?")

    def answer(self, call: Call) -> Answer:
        asked = dict(parse_qsl(call.query, keep_blank_values=True))
        command, given = asked.get("command", "?"), asked.pop("signature", "")
        secret = self.keys.get(asked.get("apiKey", ""))
        if secret is None or not hmac.compare_digest(signature(asked, secret), given) or call.path != "/client/api":
            return self._refuse(command, 401)
        size, page = int(asked.get("pagesize", 500)), int(asked.get("page", 1))
        if size > 500 or page < 1 or call.method != "GET":
            return self._refuse(command, 431)
        if command not in ITEMS:
            return self._refuse(command, 432)
        rows = self._rows(command)
        if command != "listZones" and asked.get("zoneid", "zone-1") != "zone-1":
            return self._refuse(command, 431)
        shown = rows[(page - 1) * size:page * size]
        inner = {"count": len(rows), ITEMS[command]: shown[:-1] if self.skips and page > 1 else shown} if rows else {}
        return self._json(200, {f"{command.lower()}response": inner})

    def _rows(self, command: str) -> list[dict[str, Any]]:
        machines = [self.fleet[n] for n in range(self.fleet.size)]
        return {
            "listZones": lambda: [{"id": "zone-1", "name": "one", "networktype": "Advanced"}],
            "listVirtualMachines": lambda: [self._machine(machine) for machine in machines],
            "listPublicIpAddresses": lambda: [{"id": f"ip-{machine.key}", "ipaddress": ip, "virtualmachineid": f"vm-{machine.number}"}
                                              for machine in machines for ip in machine.wan],
            "listVolumes": lambda: [{"id": f"vol-{machine.number}-{n}", "size": size * 1024 ** 3, "virtualmachineid": f"vm-{machine.number}"}
                                    for machine in machines for n, size in enumerate(machine.disks)],
        }.get(command, list)()

    @staticmethod
    def _machine(machine: Machine) -> dict[str, Any]:
        return {"id": f"vm-{machine.number}", "name": machine.name, "state": STATES[machine.state], "zoneid": "zone-1", "zonename": "one",
                "cpunumber": machine.cpu, "memory": machine.memory_gib * 1024, "created": machine.created.strftime("%Y-%m-%dT%H:%M:%S+0000"),
                "serviceofferingname": "Small", "serviceofferingid": "small",
                "tags": [{"key": key, "value": value, "resourcetype": "UserVm"} for key, value in machine.tags.items()],
                "nic": [{"id": ip, "ipaddress": ip, "isdefault": n == 0} for n, ip in enumerate(machine.lan)]}

    def _refuse(self, command: str, code: int) -> Answer:
        return self._json(code, {f"{command.lower()}response": {"errorcode": code, "errortext": "not for callers"}})

    @staticmethod
    def _json(status: int, body: object) -> Answer:
        return Answer(status, {"Content-Type": "application/json;charset=UTF-8"}, json.dumps(body).encode())


class Stage(App):
    cloud: Cloudstack

    def listing(self, seconds: float = 25.0, window: Window = WHOLE) -> Listed:
        return many_sources.list_servers(self.deployment, many_sources.source_of("123", "cloudstack", "one"), window,
                                      deadline=time.monotonic() + seconds)


@pytest.fixture
def stage(house: App, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(rate_limit.RateLimits, "limiter", lambda *_: None)
    monkeypatch.setattr(lookup, "ANSWER_SECONDS", 0.0)
    house.deployment.transport.jitter = lambda: 0.0
    made = Stage(house.deployment, house.clock)
    key, secret = "example", canaries.secret("cloudstack")
    made.cloud = stack.enter_context(Cloudstack({key: secret}, Fleet(1_100)))
    made.account("cloudstack", {"api_url": f"{made.cloud.url}/client/api", "api_key": key, "secret_key": secret}, made.cloud.url)
    yield made


def test_every_machine_of_three_pages_is_there_whole(stage: Stage) -> None:
    found = stage.listing()
    assert found.total == len(found.servers) == 1_100
    for server, n in zip(found.servers, range(1_100), strict=True):
        machine = stage.cloud.fleet[n]
        assert (server.id, server.name, server.cpu, server.memory_mib) == (f"vm-{n}", machine.name, machine.cpu, machine.memory_gib * 1024)
        assert server.disk_gib == sum(machine.disks)
        assert server.tags == machine.tags
        assert server.lan_ipv4 == machine.lan
        assert server.wan_ipv4 == machine.wan
        assert server.created_at == machine.created
        assert server.party_status == STATES[machine.state]
    pages = {command: stage.cloud.count(command) for command in ITEMS}
    volumes = sum(len(stage.cloud.fleet[n].disks) for n in range(1_100))
    assert pages == {"listZones": 1, "listVirtualMachines": 4, "listPublicIpAddresses": 1, "listVolumes": -(-volumes // 500) + 1,     # a first listing reads one page more
                     "listPortForwardingRules": 0, "listIpForwardingRules": 0}
    joined = [server for first in range(1, 1_101, 400) for server in stage.listing(window=Window(first, first + 399)).servers]
    assert joined == found.servers
    assert stage.listing().servers == found.servers
    beyond = stage.listing(window=Window(2_000, 2_009))
    assert beyond.servers == []
    assert beyond.total == 1_100


def test_what_libcloud_alone_would_have_listed(stage: Stage) -> None:
    """Its own driver over its own sockets: the same machines, as far as its one page goes. That is why we walk."""
    driver = importlib.import_module("libcloud.compute.drivers.cloudstack").CloudStackNodeDriver(
        "example", stage.cloud.keys["example"], secure=False, host="127.0.0.1", port=stage.cloud.port, path="/client/api")
    nodes = {node.id: node for node in driver.list_nodes()}
    assert len(nodes) == 500
    for server in stage.listing().servers[:500]:
        node = nodes[server.id]
        assert server.name == node.name
        assert {*server.lan_ipv4, *server.wan_ipv4} == {*node.public_ips, *node.private_ips}
        assert server.tags == node.extra.get("tags", {})


def test_a_page_that_loses_a_row_is_an_error(stage: Stage) -> None:
    stage.cloud.skips = True
    with pytest.raises(PartyMalformed, match="disagree"):
        stage.listing()


def test_a_wrong_secret_and_a_region_that_is_not_there(stage: Stage) -> None:
    stage.cloud.keys["example"] = canaries.secret("other")
    with pytest.raises(PartyDenied, match="401"):
        stage.listing()
    stage.account("cloudstack", {"api_url": f"{stage.cloud.url}/client/api", "api_key": "example", "secret_key": stage.cloud.keys["example"]},
                  stage.cloud.url)
    with pytest.raises(many_sources.UnknownRegion):
        many_sources.list_servers(stage.deployment, many_sources.source_of("123", "cloudstack", "two"))
    assert check.check_account(stage.deployment, "123", "cloudstack", "one") == "one"
    assert check.check_account(stage.deployment, "123", "cloudstack") == "default"


COMMANDS = ("listZones", "listVirtualMachines", "listPublicIpAddresses", "listVolumes")


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_at_every_call(stage: Stage, fault: str) -> None:
    """The fault's error, never a list; in time; with one retry at most; not libcloud's own, which its variable switches on."""
    stage.cloud.fleet = Fleet(60)
    for command in COMMANDS:
        stage.cloud.forget()
        stage.cloud.fail(fault, command)
        if FAULTS[fault][1] is None:
            assert stage.listing().total == 60
            continue
        started = time.monotonic()
        with pytest.raises(PartyError) as failed:
            stage.listing(0.8 if fault in LATE else 25.0)
        assert failed.value.word == FAULTS[fault][1], (command, failed.value)
        assert time.monotonic() - started < 20
        assert stage.cloud.count(command) <= 2


@pytest.mark.parametrize("fault", PASSING)
def test_a_single_fault_that_passes_is_not_seen(stage: Stage, fault: str) -> None:
    stage.cloud.fleet = Fleet(60)
    for command in COMMANDS:
        stage.cloud.forget()
        stage.cloud.fail(fault, command, (1,))
        assert stage.listing().total == 60


def test_libclouds_own_variables_change_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBCLOUD_RETRY_FAILED_HTTP_REQUESTS", "1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9/")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9/")
    stage.cloud.fleet = Fleet(10)
    assert stage.listing().total == 10
    stage.cloud.fail("429", "listZones")
    started = time.monotonic()
    with pytest.raises(PartyThrottled):
        stage.listing()
    assert time.monotonic() - started < 10
    assert stage.cloud.count("listZones") <= 3


def test_a_name_that_cannot_be_looked_up_is_no_crash(house: App) -> None:
    """getaddrinfo's own error does not reach the driver, which would make another of it."""
    key = canaries.secret("nowhere")
    house.account("cloudstack", {"api_url": "https://nowhere.invalid/client/api", "api_key": "x", "secret_key": key}, "https://nowhere.invalid")
    with pytest.raises(PartyError) as failed:
        many_sources.list_servers(house.deployment, many_sources.source_of("123", "cloudstack", "one"))
    assert failed.value.word == "party_unavailable"
    assert not isinstance(failed.value, socket.gaierror)


def test_outscale_signs_each_try_anew(stack: ExitStack, house: App) -> None:
    class Outscale(Simulator):
        def operation(self, call: Call) -> str:
            return call.path.rpartition("/")[2]

        def answer(self, call: Call) -> Answer:
            return Answer(200, {"Content-Type": "application/json"}, msgspec.json.encode({"Vms": []}))

    cloud = stack.enter_context(Outscale())
    house.deployment.transport.jitter = lambda: 4.0             # seconds apart: another second in the signature
    house.account("outscale", {"access_key": "example", "secret_key": canaries.secret("outscale")}, cloud.url)
    cloud.fail("503", "ReadVms", (1,))
    assert many_sources.list_servers(house.deployment, many_sources.source_of("123", "outscale", "eu-west-2")).total == 0
    first, second = (call.headers for call in cloud.calls)
    assert first["x-osc-date"] != second["x-osc-date"]
    assert first["authorization"] != second["authorization"]
    assert first["host"] == second["host"] == "api.eu-west-2.outscale.com"      # as it was signed


def test_the_account_is_the_only_one_that_is_asked_for(house: App) -> None:
    """Two tenants of one warm process, in turns: each call carries its own tenant's key."""
    seen: list[str] = []

    def send_for(secret: str) -> Callable[[str, Sign], Response]:
        def send(operation: str, sign: Sign) -> Response:
            seen.append(sign().headers["AuthSecret"])
            assert seen[-1] == secret
            return Response(200, {}, b"[]")

        return send

    party = parties.load("kamatera")
    for _ in range(50):
        for tenant in ("one", "two"):
            account = Account(tenant_id=tenant, party="kamatera", credentials={"client_id": tenant, "secret": f"secret-{tenant}"})
            party.list_servers(Source(tenant, "kamatera", "EU"), account, WHOLE, send_for(f"secret-{tenant}"))
    assert len(seen) == 100
