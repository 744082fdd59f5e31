"""`twocloud serve` under load: requests a second and CPU time of a page from a snapshot, beside bare waitress."""

import base64
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from benchmarks.clouds import Cloud
from benchmarks.keys import CREDENTIALS, REGION, TENANT
from benchmarks.measure import ROOT, cpu_of, in_child
from benchmarks.verdict import Claim, lines, seconds

TITLE = "A page from `twocloud serve`"
LIBRARIES = ("waitress",)
ROUNDS, CONNECTIONS, REQUESTS = 5, 4, 250   # requests of each connection in each round
FLEET, SECONDS = 2000, 5.0                  # servers of a list without a snapshot, and how long its pages are read
_READY = re.compile(r"http://127\.0\.0\.1:(\d+)")
_BARE = """
import sys, waitress
body = bytes.fromhex(sys.stdin.readline())
head = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
def app(environ, start_response):
    start_response("200 OK", head)
    return [body]
server = waitress.create_server(app, host="127.0.0.1", port=0, threads=200)
print(f"http://127.0.0.1:{server.effective_port}", file=sys.stderr, flush=True)
server.run()
"""


@contextmanager
def started(command: list[str], environment: dict[str, str], details: str = "") -> Generator[tuple[int, int]]:
    """The process and its port. Its lines are written and read, as they would be."""
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env={**os.environ, **environment}, text=True,
                               stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin
    assert process.stderr
    try:
        process.stdin.write(details + "\n")
        process.stdin.flush()
        match = _READY.search(process.stderr.readline())
        if not match:
            raise RuntimeError("the server did not start")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield process.pid, int(match[1])
    finally:
        process.terminate()
        process.wait(20)


def _ask(connection: socket.socket, request: bytes) -> bytes:
    """The body of the response."""
    connection.sendall(request)
    data = connection.recv(65_536)
    while b"\r\n\r\n" not in data:
        data += connection.recv(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.partition(b"\r\n")[0].decode())
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    assert length
    while len(body) < int(length[1]):
        body += connection.recv(65_536)
    return body


def _round(pid: int, port: int, request: bytes, times: int) -> dict[str, float]:
    """Requests a second over all connections, and the server's CPU seconds for each of them."""
    def work() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(times):
                _ask(connection, request)

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    cpu, wall = cpu_of(pid), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, cpu = time.perf_counter() - wall, cpu_of(pid) - cpu
    return {"rate": CONNECTIONS * times / wall, "cpu": cpu / (CONNECTIONS * times)}


def _requests(pid: int, port: int, request: bytes) -> dict[str, float]:
    """Requests of all connections in SECONDS, and the slowest of a hundred of them."""
    until, took = time.perf_counter() + SECONDS, list[float]()

    def work() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (began := time.perf_counter()) < until:
                _ask(connection, request)
                took.append(time.perf_counter() - began)

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"requests": len(took), "late": sorted(took)[len(took) * 99 // 100]}


def _stored(folder: str, url: str, listed: bool, max_age: int) -> tuple[dict[str, str], bytes]:
    """A store with an account, whose source was listed or not: its settings, and a request for a page."""
    from benchmarks import ours
    from chalicelib import parties, settings
    from chalicelib.access import accounts
    from chalicelib.fleet import many_sources

    there = {"TWOCLOUD_STORE": f"sqlite:///{folder}/twocloud.db", "TWOCLOUD_KEY": f"file:{folder}/key",
             "TWOCLOUD_LOCAL": "1"}
    deployment = many_sources.open_deployment(settings.load(there))
    accounts.put(deployment.store, deployment.sealer(), accounts.check(
        TENANT, parties.load("qcloud"), CREDENTIALS["qcloud"], project=None, regions=(), deep=False, endpoint=url,
        local=True), deployment.clock())
    if listed:
        many_sources.list_servers(deployment, many_sources.source_of(TENANT, "qcloud", REGION["qcloud"]))
    shown = base64.b64encode(f"{ours.token(deployment)}:password".encode()).decode()
    deployment.close()
    target = f"/twocloud/servers?party=qcloud&tenant_id={TENANT}&region={REGION['qcloud']}&f=1&t=10&max_age={max_age}"
    return there, f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {shown}\r\n\r\n".encode()


def first_pages(url: str) -> dict[str, Any]:
    """Pages of a list that nobody has listed whole, live and accepting a snapshot. Runs in a process of its own."""
    figures: dict[str, dict[str, float]] = {}
    for side, max_age in (("live", 0), ("accepted", 3600)):
        with tempfile.TemporaryDirectory(prefix="twocloud-benchmark-") as folder:
            there, request = _stored(folder, url, False, max_age)
            with started(["-m", "chalicelib", "serve", "--port", "0"], there) as (pid, port):
                figures[side] = _requests(pid, port, request)
    return figures


def under_load(url: str) -> dict[str, Any]:
    """Rounds of each server in turns. Runs in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="twocloud-benchmark-") as folder:
        there, request = _stored(folder, url, True, 99999)
        with started(["-m", "chalicelib", "serve", "--port", "0"], there) as mine:
            with socket.create_connection(("127.0.0.1", mine[1]), timeout=30) as connection:
                body = _ask(connection, request)
            with started(["-c", _BARE], {}, body.hex()) as bare:
                sides = {"serve": mine, "bare": bare}
                figures: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
                for number in range(ROUNDS + 1):
                    for name, (pid, port) in sides.items():
                        measured = _round(pid, port, request, REQUESTS if number else REQUESTS // 10)
                        if number:
                            figures[name].append(measured)
    return {"sides": figures, "bytes": len(body)}


def run() -> dict[str, Any]:
    with Cloud("qcloud", size=100, limited=False) as cloud:
        figures = in_child("benchmarks.serve:under_load", {"url": cloud.url})
    with Cloud("qcloud", size=FLEET) as cloud:
        return {**figures, "first": in_child("benchmarks.serve:first_pages", {"url": cloud.url})}


# ---------------------------------------------------------------- what it says

def _middle(figures: dict[str, Any], side: str, name: str) -> float:
    return statistics.median(each[name] for each in figures["sides"][side])


def claims(figures: dict[str, Any]) -> list[Claim]:
    first = {side: each["requests"] for side, each in figures["first"].items()}
    return [Claim("A page of ten from a snapshot over `serve`, CPU time, ours / bare waitress with the same bytes",
                  _middle(figures, "serve", "cpu") / _middle(figures, "bare", "cpu"), None),
            Claim(f"The first page of {FLEET:,} servers, from no snapshot on, read for {SECONDS:.0f} s: live / "
                  "accepting a snapshot", first["live"] / first["accepted"], None)]


def text(figures: dict[str, Any]) -> str:
    titles = {"serve": "`twocloud serve`, a page of ten from a snapshot", "bare": "bare waitress, the same bytes"}
    rows = [(title, f"{_middle(figures, side, 'rate'):.0f}", seconds(_middle(figures, side, "cpu")),
             seconds(min(each["cpu"] for each in figures["sides"][side]))) for side, title in titles.items()]
    first = {"live": "`max_age=0`: each page is listed", "accepted": "`max_age=3600`: from a snapshot once it is there"}
    pages = [(title, f"{figures['first'][side]['requests'] / SECONDS:.0f}", seconds(figures["first"][side]["late"]))
             for side, title in first.items()]
    size = figures["bytes"]
    return f"""\
`twocloud serve` as it is started by hand, on SQLite: token and account read from the store, the page read from the
snapshot, log line written and read. {CONNECTIONS} connections that stay open, {ROUNDS} rounds of
{CONNECTIONS * REQUESTS} requests, in turns with a bare waitress that returns the same {size:,} bytes; medians
of the rounds. The client runs on the same cores.

{lines(("server", "requests a second", "CPU a request", "least CPU"), rows)}

The first page that accepts a snapshot has the whole listed beside it. Here {CONNECTIONS} connections read the first
page of {FLEET:,} servers for {SECONDS:.0f} s, from no snapshot on, at the rate that the cloud documents:

{lines(("pages", "requests a second", "slowest of a hundred"), pages)}
"""
