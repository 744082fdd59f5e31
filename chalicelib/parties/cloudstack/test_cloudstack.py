"""Apache Libcloud's driver and the bridge read the same answers; a CloudStack is simulated here.

Its signature is the vendor's published one.
"""

import base64
import hashlib
import hmac
import importlib
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, quote

import pytest

from chalicelib.cloud import rate_limit
from chalicelib.errors import PartyDenied, PartyError, PartyMalformed, PartyThrottled, UnknownRegion
from chalicelib.fleet import check, lookup, many_sources
from chalicelib.fleet.many_sources import Answer as Listed
from chalicelib.model import WHOLE, Window
from chalicelib.simulators.faults import FAULTS, LATE, PASSING, UNSEEN, Answer
from chalicelib.simulators.fleet import Fleet, Machine
from chalicelib.simulators.server import Call, Simulator
from tests import bridge, canaries
from tests.fixtures import App


@pytest.mark.parametrize("listed", ["listVirtualMachines_default.json", "listVirtualMachines_noipaddress.json"])
def test_libclouds_fixture_twice(listed: str) -> None:
    answers = {command: bridge.fixture(f"cloudstack/{command}_default.json") for command in (
        "listZones", "listPublicIpAddresses", "listPortForwardingRules", "listIpForwardingRules", "listVolumes")}
    answers["listVirtualMachines"] = bridge.fixture(f"cloudstack/{listed}")
    rows = json.loads(answers["listVirtualMachines"])["listvirtualmachinesresponse"]["virtualmachine"]
    answers["listZones"] = json.dumps(
        {"listzonesresponse": {"zone": [{"id": rows[0]["zoneid"], "name": "a"}]}}).encode()
    ours = bridge.our_servers("cloudstack", "a", answers)
    nodes = bridge.their_nodes("cloudstack", answers, host="cloud.example", path="/client/api")
    bridge.ours_fit(ours, nodes)
    for server, node in zip(ours, nodes, strict=True):
        assert (server.zone, server.instance_type) == (node.extra["zone_name"], node.extra["size_name"])
        assert server.created_at == datetime.fromisoformat(node.extra["created"])
        assert server.tags == node.extra.get("tags", {})


def signature(parameters: Mapping[str, str], secret: str) -> str:
    text = "&".join(f"{name.lower()}={quote(value, safe='')}"
                    for name, value in sorted(parameters.items(), key=lambda pair: pair[0].lower()))
    return base64.b64encode(hmac.new(secret.encode(), text.lower().encode(), hashlib.sha1).digest()).decode()


def test_the_published_signature() -> None:
    """https://docs.cloudstack.apache.org/en/latest/developersguide/dev.html#how-to-sign-an-api-call-with-python"""
    parameters = {"command": "listUsers", "response": "json",
                  "apikey": "plgWJfZK4gyS3mOMTVmjUVg-X-jlWlnfaUJ9GAbBbf9EdM-kAYMmAiLqzzq1ElZLYq_u38zCm0bewzGUdP66mg"}
    secret = "VDaACYb0LV9eNjTetIOElcVQkvJck_J_QljX_FcHRj87ZKiy0z0ty0ZsYBkoXkY9b7eq1EhwJaw7FF3akA3KBQ"
    assert signature(parameters, secret) == "TTpdDq/7j/J58XCRHomKoQXEQds="


STATES = {"running": "Running", "stopped": "Stopped", "starting": "Starting", "stopping": "Stopping",
          "pending": "Starting"}
ITEMS = {"listZones": "zone", "listVirtualMachines": "virtualmachine", "listPublicIpAddresses": "publicipaddress",
         "listVolumes": "volume",
         "listPortForwardingRules": "portforwardingrule", "listIpForwardingRules": "ipforwardingrule"}


class Cloudstack(Simulator):
    """One zone. Pages of at most 500, also if none is asked for; `skips`: the planted fault, a page that loses its last
    row."""

    def __init__(self, keys: Mapping[str, str], fleet: Fleet) -> None:
        self.keys = dict(keys)
        self.fleet = fleet
        self.skips = False
        super().__init__()

    def operation(self, call: Call) -> str:
        return dict(parse_qsl(call.query)).get("command", "?")

    def answer(self, call: Call) -> Answer:
        fields = dict(parse_qsl(call.query, keep_blank_values=True))
        command, signed = fields.get("command", "?"), fields.pop("signature", "")
        secret = self.keys.get(fields.get("apiKey", ""))
        if secret is None or not hmac.compare_digest(signature(fields, secret), signed) or call.path != "/client/api":
            return self._refuse(command, 401)
        size, page = int(fields.get("pagesize", 500)), int(fields.get("page", 1))
        if size > 500 or page < 1 or call.method != "GET":
            return self._refuse(command, 431)
        if command not in ITEMS:
            return self._refuse(command, 432)
        rows = self._rows(command)
        if command != "listZones" and fields.get("zoneid", "zone-1") != "zone-1":
            return self._refuse(command, 431)
        shown = rows[(page - 1) * size:page * size]
        inner = {"count": len(rows), ITEMS[command]: shown[:-1] if self.skips and page > 1 else shown} if rows else {}
        return self._json(200, {f"{command.lower()}response": inner})

    def _rows(self, command: str) -> list[dict[str, Any]]:
        machines = [self.fleet[n] for n in range(self.fleet.size)]
        return {
            "listZones": lambda: [{"id": "zone-1", "name": "one", "networktype": "Advanced"}],
            "listVirtualMachines": lambda: [self._machine(machine) for machine in machines],
            "listPublicIpAddresses": lambda: [{"id": f"ip-{machine.key}", "ipaddress": ip,
                                               "virtualmachineid": f"vm-{machine.number}"}
                                              for machine in machines for ip in machine.wan],
            "listVolumes": lambda: [{"id": f"vol-{machine.number}-{n}", "size": size * 1024 ** 3,
                                     "virtualmachineid": f"vm-{machine.number}"}
                                    for machine in machines for n, size in enumerate(machine.disks)],
        }.get(command, list)()

    @staticmethod
    def _machine(machine: Machine) -> dict[str, Any]:
        return {"id": f"vm-{machine.number}", "name": machine.name, "state": STATES[machine.state], "zoneid": "zone-1",
                "zonename": "one",
                "cpunumber": machine.cpu, "memory": machine.memory_gib * 1024,
                "created": machine.created.strftime("%Y-%m-%dT%H:%M:%S+0000"),
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
def stage(app: App, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(rate_limit.RateLimits, "limiter", lambda *_: None)
    monkeypatch.setattr(lookup, "ANSWER_SECONDS", 0.0)
    app.deployment.transport.jitter = lambda: 0.0
    made = Stage(app.deployment, app.clock)
    key, secret = "example", canaries.secret("cloudstack")
    made.cloud = stack.enter_context(Cloudstack({key: secret}, Fleet(1_100)))
    made.account("cloudstack", {"api_url": f"{made.cloud.url}/client/api", "api_key": key, "secret_key": secret},
                 made.cloud.url)
    yield made


def test_every_machine_of_three_pages_is_there_whole(stage: Stage) -> None:
    listing = stage.listing()
    assert listing.total == len(listing.servers) == 1_100
    for server, n in zip(listing.servers, range(1_100), strict=True):
        machine = stage.cloud.fleet[n]
        assert (server.id, server.name, server.cpu, server.memory_mib) == (f"vm-{n}", machine.name, machine.cpu,
                                                                           machine.memory_gib * 1024)
        assert server.disk_gib == sum(machine.disks)
        assert server.tags == machine.tags
        assert server.lan_ipv4 == machine.lan
        assert server.wan_ipv4 == machine.wan
        assert server.created_at == machine.created
        assert server.party_status == STATES[machine.state]
    pages = {command: stage.cloud.count(command) for command in ITEMS}
    volumes = sum(len(stage.cloud.fleet[n].disks) for n in range(1_100))
    # a first listing reads one page more
    assert pages == {"listZones": 1, "listVirtualMachines": 4, "listPublicIpAddresses": 1,
                     "listVolumes": -(-volumes // 500) + 1,
                     "listPortForwardingRules": 0, "listIpForwardingRules": 0}
    joined = [server for first in range(1, 1_101, 400)
              for server in stage.listing(window=Window(first, first + 399)).servers]
    assert joined == listing.servers
    assert stage.listing().servers == listing.servers
    beyond = stage.listing(window=Window(2_000, 2_009))
    assert beyond.servers == []
    assert beyond.total == 1_100


def test_what_libcloud_alone_would_have_listed(stage: Stage) -> None:
    """Its own driver over its own sockets: the same machines, as far as its one page goes. That is why we walk."""
    driver = importlib.import_module("libcloud.compute.drivers.cloudstack").CloudStackNodeDriver(
        "example", stage.cloud.keys["example"], secure=False, host="127.0.0.1", port=stage.cloud.port,
        path="/client/api")
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
    stage.account("cloudstack", {"api_url": f"{stage.cloud.url}/client/api", "api_key": "example",
                                 "secret_key": stage.cloud.keys["example"]},
                  stage.cloud.url)
    with pytest.raises(UnknownRegion):
        many_sources.list_servers(stage.deployment, many_sources.source_of("123", "cloudstack", "two"))
    assert check.check_account(stage.deployment, "123", "cloudstack", "one") == "one"
    assert check.check_account(stage.deployment, "123", "cloudstack") == "default"


COMMANDS = ("listZones", "listVirtualMachines", "listPublicIpAddresses", "listVolumes")


@pytest.mark.sample(3)
@pytest.mark.parametrize("fault", [
    pytest.param(fault, marks=pytest.mark.slow if fault in UNSEEN or fault in LATE[1:] else ()) for fault in FAULTS])
def test_every_fault_at_every_call(stage: Stage, fault: str) -> None:
    """The fault's error, never a list; in time; with one retry at most; not libcloud's own, which its variable switches
    on."""
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
        assert failed.value.code == FAULTS[fault][1], (command, failed.value)
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


def test_a_name_that_cannot_be_looked_up_is_no_crash(app: App) -> None:
    """getaddrinfo's own error does not reach the driver, which would make another of it."""
    key = canaries.secret("nowhere")
    app.account("cloudstack", {"api_url": "https://nowhere.invalid/client/api", "api_key": "x", "secret_key": key},
                  "https://nowhere.invalid")
    with pytest.raises(PartyError) as failed:
        many_sources.list_servers(app.deployment, many_sources.source_of("123", "cloudstack", "one"))
    assert failed.value.code == "party_unavailable"
    assert not isinstance(failed.value, socket.gaierror)
