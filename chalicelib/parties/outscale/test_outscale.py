"""Apache Libcloud's driver signs as the bridge does, and the bridge signs each try."""

import importlib
from contextlib import ExitStack

import msgspec
import pytest
import requests
import time_machine

from chalicelib import parties
from chalicelib.cloud.client import Client
from chalicelib.fleet import many_sources
from chalicelib.model import WHOLE, Request, Response, Sign, Source
from chalicelib.simulators.faults import Answer
from chalicelib.simulators.server import Call, Simulator
from tests import bridge, canaries
from tests.fixtures import App
from tests.unit.test_parties import WHAT, account_of


def test_a_call_is_signed_as_by_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same call at the same time, past every seam as the driver makes it, and through the bridge."""
    driver_class = importlib.import_module("libcloud.compute.drivers.outscale").OutscaleNodeDriver
    sent: list[tuple[str, dict[str, str], str]] = []

    def post(url: str, data: str, headers: dict[str, str]) -> requests.Response:
        sent.append((url, headers, data))
        return bridge.answered(200, b'{"Vms": []}')

    monkeypatch.setattr("requests.post", post)
    calls: list[Request] = []

    def send(operation: str, sign: Sign) -> Response:
        calls.append(sign())
        return Response(200, {}, b'{"Vms": []}')

    with time_machine.travel("2026-01-02T03:04:05Z", tick=False):
        party = parties.load("outscale")
        assert party.list_servers(Client(Source("1", "outscale", "eu-west-2"), account_of("outscale"), send),
                                  WHOLE).total == 0
        keys = WHAT["outscale"]["credentials"]
        driver_class(keys["access_key"], keys["secret_key"],
                     region="eu-west-2").list_nodes(ex_data=calls[0].body.decode())
    (url, headers, data), = sent
    assert (calls[0].url, calls[0].body.decode(), dict(calls[0].headers)) == (url, data, headers)


def test_each_try_is_signed_by_its_own_time(stack: ExitStack, app: App) -> None:
    class Outscale(Simulator):
        def operation(self, call: Call) -> str:
            return call.path.rpartition("/")[2]

        def answer(self, call: Call) -> Answer:
            return Answer(200, {"Content-Type": "application/json"}, msgspec.json.encode({"Vms": []}))

    cloud = stack.enter_context(Outscale())
    app.deployment.transport.jitter = lambda: 4.0             # seconds apart: another second in the signature
    app.account("outscale", {"access_key": "example", "secret_key": canaries.secret("outscale")}, cloud.url)
    cloud.fail("503", "ReadVms", (1,))
    assert many_sources.list_servers(app.deployment,
                                     many_sources.source_of("123", "outscale", "eu-west-2")).total == 0
    first, second = (call.headers for call in cloud.calls)
    assert first["x-osc-date"] != second["x-osc-date"]
    assert first["authorization"] != second["authorization"]
    assert first["host"] == second["host"] == "api.eu-west-2.outscale.com"      # as it was signed
