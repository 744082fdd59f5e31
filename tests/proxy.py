"""An HTTP proxy on 127.0.0.1, which tunnels (CONNECT) and forwards plain http, and can misbehave."""

import base64
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from chalicelib.simulators.faults import Wire


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for the proxy. `target`: what its first line names."""

    method: str
    target: str
    headers: Mapping[str, str]


Fault = Callable[[Wire], None]


def _drip(wire: Wire) -> None:
    wire.drip(b"HTTP/1.1 200 Connection established\r\n\r\n" * 100)


def _endless_headers(wire: Wire) -> None:
    if wire.send(b"HTTP/1.1 200 OK\r\n"):
        while wire.send(b"X-More: y\r\n"):
            pass


def _endless_line(wire: Wire) -> None:
    if wire.send(b"HTTP/1.1 200 "):
        while wire.send(b"y" * 4096):
            pass


def _dripping_handshake(wire: Wire) -> None:
    wire.sock.recv(65536)                           # what the client says first
    wire.drip(b"\x16\x03\x03\x01\x00\x02\x00\x00\xfc\x03\x03" + bytes(200))


def _says(text: bytes, then: Fault = lambda wire: None) -> Fault:
    def fault(wire: Wire) -> None:
        if wire.send(text):
            then(wire)

    return fault


_OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"
_PAGE = b"HTTP/1.1 %b Sorry\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nsorry"
FAULTS: dict[str, tuple[Fault, str, str]] = {       # what it does, the error code, and a part of the text
    "hang": (lambda wire: wire.hang(), "party_timeout", "proxy did not answer"),
    "drip": (_drip, "party_timeout", "proxy did not answer"),
    "endless headers": (_endless_headers, "party_unavailable", "cannot be understood"),
    "endless line": (_endless_line, "party_unavailable", "cannot be understood"),
    "close": (lambda wire: wire.sock.close(), "party_unavailable", "proxy"),
    "reset": (lambda wire: wire.reset(), "party_unavailable", "proxy cannot be reached"),
    "no http": (_says(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"), "party_unavailable", "cannot be understood"),
    "cut head": (_says(b"HTTP/1.1 200 Conn"), "party_unavailable", "cannot be understood"),
    "403": (_says(_PAGE % b"403"), "party_unavailable", "does not allow"),
    "405": (_says(_PAGE % b"405"), "party_unavailable", "does not allow"),
    "407": (_says(_PAGE % b"407"), "party_unavailable", "proxy_password"),
    "302": (_says(_PAGE % b"302"), "party_unavailable", "does not allow"),
    "502": (_says(_PAGE % b"502"), "party_unavailable", "could not connect"),
    "503": (_says(_PAGE % b"503"), "party_unavailable", "could not connect"),
    "opens, then hangs": (_says(_OPEN, lambda wire: wire.hang()), "party_timeout", ""),
    "opens, then drips": (_says(_OPEN, _dripping_handshake), "party_timeout", ""),
    "opens, then closes": (_says(_OPEN), "party_unavailable", ""),
    "opens, then sends a page": (_says(_OPEN, _says(_PAGE % b"200")), "party_unavailable", ""),
    "opens, and sends more at once": (_says(_OPEN + _PAGE % b"200"), "party_unavailable", "cannot be understood"),
}
LATE = ("hang", "drip", "opens, then hangs", "opens, then drips")
FINAL = ("403", "405", "407", "302")                # a retry cannot help


@dataclass
class Proxy:
    """Starts at once; a context manager that stops it.

    `login`: "USER:PASSWORD" that it demands. `names`: a host's name -> the port on 127.0.0.1 that it stands for; other
    names are unknown (502). `fault`: a name in FAULTS. `requests`: what arrived, in order.
    """

    login: str = ""
    names: dict[str, int] = field(default_factory=dict[str, int])
    fault: str = ""
    requests: list[Asked] = field(default_factory=list[Asked])

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True, name="proxy").start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def serve(self, sock: socket.socket) -> None:
        while True:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (piece := sock.recv(65536)):
                    return
                head += piece
            head, _, body = head.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            self.requests.append(Asked(method, target, headers))
            if self.fault:
                FAULTS[self.fault][0](Wire(sock, self._stopped))
                return
            if self.login and headers.get("proxy-authorization") != (
                    f"Basic {base64.b64encode(self.login.encode()).decode()}"):
                sock.sendall(_PAGE % b"407")
                return
            there = urlsplit(f"//{target}" if method == "CONNECT" else target)
            host, port = there.hostname or "", there.port or 80
            if host not in ("127.0.0.1", *self.names):
                sock.sendall(_PAGE % b"502")
                return
            with socket.create_connection(("127.0.0.1", self.names.get(host, port))) as onward:
                if method == "CONNECT":
                    sock.sendall(_OPEN)
                else:                       # the rest of the body, and later requests, pass as they come
                    path = there.path + (f"?{there.query}" if there.query else "")
                    kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
                    onward.sendall("\r\n".join([f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]
                                               ).encode("latin-1") + body)
                _pass_on(sock, onward)
            return


def _pass_on(one: socket.socket, two: socket.socket) -> None:
    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
        for sock in (source, target):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=copy, args=(two, one), daemon=True)
    back.start()
    copy(one, two)
    back.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256
    proxy: Proxy

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server: Any = self.server
        server.proxy.serve(self.request)
