"""A simulator cloud on 127.0.0.1: HTTP/1.1 with keep-alive, latency, counters, and faults on demand."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

from .faults import FAULTS, Answer, Wire


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it arrived. Header names in lower case; `operation` as the simulator understood it."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    at: float                               # time.monotonic()
    operation: str = ""


@dataclass(slots=True)
class Plan:
    """Misbehave: with `fault` (a name in FAULTS) or `answer`, on calls `nth` (from 1; None: all) of `operation`."""

    fault: str = ""
    answer: Answer | None = None
    operation: str | None = None
    nth: tuple[int, ...] | None = None
    count: int = field(default=0)

    def applies(self, operation: str) -> bool:
        if self.operation not in (None, operation):
            return False
        self.count += 1
        return self.nth is None or self.count in self.nth


class Simulator:
    """Starts at once on a free port (or `port`); a context manager that stops it.

    `latency`: seconds before each answer. `plans`: see Plan. `calls`: what arrived, in order. `late`: seconds by which
    its clock is ahead, as the Date of its answers says. `units`, `ids`: of an organisation, the id of each
    unit and of each member, by name; "" is the top. `between` is called before each answer and may change the fleets.
    """

    late: float = 0.0
    units: Mapping[str, str] = {}                               # of an organisation: each unit's name -> its id
    ids: Mapping[str, str] = {}                                 # and each member's
    between: Callable[[], None] | None = None                   # called before each answer: what changes meanwhile

    def __init__(self, port: int = 0, latency: float = 0.0) -> None:
        self.latency = latency
        self.plans: list[Plan] = []
        self.calls: list[Call] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._server = _Server(("127.0.0.1", port), self._handler())
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True, name="simulator").start()

    # what a cloud fills in ------------------------------------------------

    def operation(self, call: Call) -> str:
        """The name of what is asked for."""
        raise NotImplementedError

    def answer(self, call: Call) -> Answer:
        raise NotImplementedError

    # ----------------------------------------------------------------------

    def fail(self, fault: str, operation: str | None = None, nth: tuple[int, ...] | None = None) -> None:
        self.plans.append(Plan(fault=fault, operation=operation, nth=nth))

    def count(self, operation: str | None = None) -> int:
        return sum(operation in (None, call.operation) for call in self.calls)

    def forget(self) -> None:
        self.plans.clear()
        self.calls.clear()

    def speak_tls(self, context: ssl.SSLContext) -> None:
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._stopped.set()
        with suppress(OSError):             # it wakes at once, where a socket that listens can be shut down (Linux)
            self._server.socket.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _plan(self, operation: str) -> Plan | None:
        with self._lock:
            return next((plan for plan in self.plans if plan.applies(operation)), None)

    def _answered(self, call: Call) -> Answer:
        if self.between is None:
            return self.answer(call)
        with self._lock:
            self.between()
            for name in ("kept", "_rows", "_disks", "_volumes", "_xml"):        # what was made of the fleets
                if isinstance(made := getattr(self, name, None), dict):
                    made.clear()
            return self.answer(call)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        simulator = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                there = urlsplit(self.path)
                call = Call(self.command, there.path, there.query,
                            {name.lower(): value for name, value in self.headers.items()}, body, time.monotonic())
                call = Call(call.method, call.path, call.query, call.headers, body, call.at, simulator.operation(call))
                with simulator._lock:
                    simulator.calls.append(call)
                plan = simulator._plan(call.operation)
                proper = simulator._answered(call)
                if simulator.latency:
                    simulator._stopped.wait(simulator.latency)
                if plan and plan.fault:
                    FAULTS[plan.fault][0](Wire(self.connection, simulator._stopped), proper)
                    self.close_connection = True
                    return
                answer = plan.answer if plan and plan.answer else proper
                date = formatdate(time.time() + simulator.late, usegmt=True)
                self.connection.sendall(answer.head(Date=date) + answer.body)

            do_GET = do_POST = _serve

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, *arguments: Any) -> None:
        self._connected: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connected.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connected.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End the connections that are kept alive: a cloud that is switched off answers nobody."""
        for connection in list(self._connected):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class Rate:
    """The party's own limiter: at most `calls` arrivals in any second for one name."""

    def __init__(self, calls: int, seconds: float = 1.0) -> None:
        self._calls = calls
        self._seconds = seconds
        self._arrivals: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def allows(self, name: str, now: float) -> bool:
        with self._lock:
            recent = [at for at in self._arrivals.get(name, []) if now - at < self._seconds]
            allowed = len(recent) < self._calls
            self._arrivals[name] = [*recent, now] if allowed else recent
            return allowed


