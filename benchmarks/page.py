"""A page of ten servers through the Chalice app: our own time beside a bare Chalice route."""

import base64
import io
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import qcloud
from benchmarks.clouds import Cloud
from benchmarks.keys import REGION, TENANT
from benchmarks.measure import in_child
from benchmarks.verdict import Claim, lines, seconds

TITLE = "A page of ten"
LIBRARIES = ("chalice", "tencentcloud-sdk-python-cvm")
ROUNDS = 15
REQUESTS = 200                              # of each route in each round
_ROUTE = "/twocloud/servers"
_WARM = 20


def in_process(url: str) -> dict[str, Any]:
    """Wall and CPU seconds per request of each route, round by round. Runs in a process of its own."""
    from chalice.app import Chalice

    import app
    from benchmarks import ours
    from chalicelib import log

    ours.without_limits("qcloud")
    with Path(os.devnull).open("w") as nowhere, ours.deployed("qcloud", url) as deployment:
        for handler in log.logger.handlers:
            handler.setStream(nowhere)                          # the lines are written, and nobody reads them
        app.use(deployment)
        event = _event(ours.token(deployment))
        answer = json.loads(app.app(event, None)["body"])

        bare = Chalice("bare", configure_logs=False)
        bare.route(_ROUTE)(lambda: {"code": 200, "msg": ""})
        bare_ten = Chalice("bare_ten", configure_logs=False)
        bare_ten.route(_ROUTE)(lambda: answer)
        bare_sdk = Chalice("bare_sdk", configure_logs=False)
        bare_sdk.route(_ROUTE)(_ask_sdk(url))

        routes = {"bare": bare, "bare_ten": bare_ten, "bare_sdk": bare_sdk, "stubbed": app.app, "real": app.app}
        adapter = deployment.transport.adapter
        real, stub = adapter.send, _stub(adapter, lambda: app.app(event, None))
        figures: dict[str, list[dict[str, float]]] = {name: [] for name in routes}
        for number in range(ROUNDS + 1):
            for name, route in routes.items():
                adapter.send = stub if name == "stubbed" else real
                measured = _repeat(route, event, REQUESTS if number else _WARM)
                if number:
                    figures[name].append(measured)
    return {"routes": figures, "rows": len(answer["vm_servers"])}


def _ask_sdk(url: str) -> Callable[[], dict[str, Any]]:
    from tencentcloud.cvm.v20170312.models import DescribeInstancesRequest

    client = qcloud.client(url)

    def view() -> dict[str, Any]:
        request = DescribeInstancesRequest()
        request.Offset, request.Limit = 0, 10
        return {"code": 200, "msg": "", "vm_servers": [
            qcloud.row(instance) for instance in client.DescribeInstances(request).InstanceSet]}

    return view


def _repeat(route: Callable[[Any, Any], Any], event: Any, times: int) -> dict[str, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(times):
        answer = route(event, None)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if answer["statusCode"] != 200:
        raise RuntimeError(f"status {answer['statusCode']}")
    return {"wall": wall / times, "cpu": cpu / times}


def _event(token: str) -> dict[str, Any]:
    """What API Gateway sends."""
    headers = {"authorization": "Basic " + base64.b64encode(f"{token}:password".encode()).decode(),
               "accept": "application/json", "host": "api.example.com", "user-agent": "benchmark"}
    query = {"party": "qcloud", "tenant_id": TENANT, "region": REGION["qcloud"], "f": "1", "t": "10"}
    return {
        "resource": _ROUTE, "path": _ROUTE, "httpMethod": "GET", "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()}, "queryStringParameters": query,
        "multiValueQueryStringParameters": {name: [value] for name, value in query.items()}, "pathParameters": None,
        "stageVariables": None, "body": None, "isBase64Encoded": False,
        "requestContext": {"resourcePath": _ROUTE, "httpMethod": "GET", "path": _ROUTE,
                           "requestId": "00000000-0000-0000-0000-000000000000",
                           "identity": {"sourceIp": "127.0.0.1"}}}


def _stub(adapter: Any, ask: Callable[[], Any]) -> Callable[..., Any]:
    """A `send` that gives at once what the network gave when `ask` was called."""
    import requests
    import urllib3

    send, kept = adapter.send, {}

    def record(prepared: requests.PreparedRequest, **options: Any) -> requests.Response:
        answer = send(prepared, **options)
        kept["body"], kept["headers"] = answer.raw.read(decode_content=True), dict(answer.raw.headers)
        return replay(prepared)

    def replay(prepared: requests.PreparedRequest, **_: Any) -> requests.Response:
        answer = requests.Response()
        answer.status_code = 200
        answer.raw = urllib3.HTTPResponse(io.BytesIO(kept["body"]), kept["headers"], 200, preload_content=False)
        return answer

    adapter.send = record
    ask()
    adapter.send = send
    return replay


def run() -> dict[str, Any]:
    with Cloud("qcloud", size=100, limited=False) as cloud:
        return in_child("benchmarks.page:in_process", {"url": cloud.url})


# ---------------------------------------------------------------- what it says

def claims(figures: dict[str, Any]) -> list[Claim]:
    def cost(route: str, name: str) -> float:
        return statistics.median(each[name] for each in figures["routes"][route])

    return [
        Claim("A page of ten, CPU time with the party's call over a socket, ours / bare Chalice route",
              cost("real", "cpu") / cost("bare", "cpu"), 10.0),
        Claim("A page of ten, wall time with the network taken out, ours / bare Chalice route",
              cost("stubbed", "wall") / cost("bare", "wall"), 10.0),
        Claim("A page of ten, CPU time with the socket, ours / bare route that returns the same ten servers",
              cost("real", "cpu") / cost("bare_ten", "cpu"), None),
        Claim("A page of ten, CPU time with the socket, ours / Chalice route that asks the official SDK for ten",
              cost("real", "cpu") / cost("bare_sdk", "cpu"), None),
    ]


def text(figures: dict[str, Any]) -> str:
    titles = {"bare": "bare Chalice route, a constant dict of two fields",
              "bare_ten": "bare Chalice route, a constant dict with the same ten servers",
              "bare_sdk": "Chalice route that asks the official SDK for ten, over a socket",
              "stubbed": "twocloud, network taken out", "real": "twocloud, over a socket"}
    rows = []
    for name, title in titles.items():
        measured = figures["routes"][name]
        waits = name in ("real", "bare_sdk")
        wall = "–" if waits else seconds(statistics.median(each["wall"] for each in measured))
        rows.append((title, wall, seconds(statistics.median(each["cpu"] for each in measured)),
                     seconds(min(each["cpu"] for each in measured))))
    return f"""\
The event of one `GET {_ROUTE}?…&f=1&t=10` through `app.app(event, context)`, as Lambda calls it: token and account
read from SQLite, credentials opened, request signed, response read, log line written (to nowhere). The authorizer is
another function and is not counted. Our rate limiter is off, since it would wait.

The wait for the party is left out in two ways:

- *over a socket* (the stricter one, which counts): CPU time of our process, kernel included, while a
  simulator in another process responds. It holds all that our HTTP client does.
- *network taken out*: wall time, with a response that is already there instead of the transport's `send`.

A bare route does nothing at all. For comparison there is a route that knows no tokens, tenants or sealed accounts and
only calls the SDK. {ROUNDS} rounds of {REQUESTS} requests of each, in turns, in one process; medians of the rounds, per
request.

{lines(("route", "wall", "CPU", "least CPU"), rows)}
"""
