"""Sockets that keep a deadline over name lookup, connection, TLS and each receive, and always check certificates.

A plain read timeout is per receive and does not hold against a server that drips, so each receive gets the time that
is left. No proxy, certificate or key log is read from the environment.
"""

import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.connection import create_connection
from urllib3.util.ssl_ import create_urllib3_context
from urllib3.util.url import parse_url

_POOLED = 64                                # connections kept to one host, and hosts kept


class CallInProgress(threading.local):
    """What this thread is sending now."""

    deadline: float = 0.0                   # on time.monotonic's scale
    holder: Callable[[socket.socket], None] | None = None       # is given each socket that is waited for

    def hold(self, sock: socket.socket) -> None:
        if self.holder:
            self.holder(sock)

    def left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left


current = CallInProgress()


class _PlainSocket(socket.socket):
    def recv_into(self, *args: object, **kwargs: object) -> int:
        self.settimeout(current.left())
        return super().recv_into(*args, **kwargs)               # type: ignore[arg-type]


class _TlsSocket(ssl.SSLSocket):
    def recv_into(self, *args: object, **kwargs: object) -> int:
        self.settimeout(current.left())
        return super().recv_into(*args, **kwargs)               # type: ignore[arg-type]


def resolve(host: str, port: int) -> list[str]:
    """The host's addresses. The name server may hang longer than we can wait, hence a thread of its own."""
    with suppress(ValueError):
        return [str(ipaddress.ip_address(host.strip("[]")))]
    answer: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer.put(list(dict.fromkeys(str(address[0]) for *_, address in found)))
        except (OSError, UnicodeError) as problem:
            answer.put(problem if isinstance(problem, OSError) else socket.gaierror(str(problem)))

    threading.Thread(target=ask, daemon=True, name="twocloud-resolve").start()
    try:
        found = answer.get(timeout=current.left())
    except queue.Empty:
        raise TimeoutError("the name server did not answer in time") from None
    if isinstance(found, OSError):
        raise found
    return found


def _dial(connection: HTTPConnection) -> socket.socket:
    problem: OSError | None = None
    try:
        for address in resolve(connection.host, connection.port):
            try:
                raw = create_connection((address, connection.port), current.left(),
                                        socket_options=connection.socket_options)
                sock = _PlainSocket(raw.family, raw.type, raw.proto, fileno=raw.detach())
                current.hold(sock)
                return sock
            except TimeoutError:
                raise
            except OSError as refused:
                problem = refused
    except TimeoutError as late:
        raise urllib3.exceptions.ConnectTimeoutError(connection, str(late)) from late
    except socket.gaierror as unknown:
        raise urllib3.exceptions.NameResolutionError(connection.host, connection, unknown) from unknown
    raise urllib3.exceptions.NewConnectionError(connection, f"no address answers: {problem}") from problem


class _Sent:
    """Before each request on a connection, new or kept: the time that is left, and a way to end it early."""

    sock: socket.socket | None

    def putrequest(self, *args: object, **kwargs: object) -> None:
        if self.sock is not None:
            self.sock.settimeout(current.left())
            current.hold(self.sock)
        super().putrequest(*args, **kwargs)                     # type: ignore[misc]


class _PlainConnection(_Sent, HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _dial(self)


class _TlsConnection(_Sent, HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        sock = _dial(self)
        sock.settimeout(current.left())                           # OpenSSL keeps it over the whole handshake
        return sock


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection                            # type: ignore[assignment]


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection                              # type: ignore[assignment]


class Adapter(HTTPAdapter):
    """requests' adapter over pools whose sockets keep the deadline and always check certificates."""

    def __init__(self, trusted: str) -> None:
        self._tls = create_urllib3_context()
        self._tls.load_verify_locations(trusted)                # once, not once per connection
        self._tls.verify_mode = ssl.CERT_REQUIRED
        self._tls.check_hostname = True
        self._tls.sslsocket_class = _TlsSocket
        super().__init__(pool_connections=_POOLED, pool_maxsize=_POOLED)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: object) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._tls, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}

    def build_connection_pool_key_attributes(self, request: requests.PreparedRequest, verify: object,
                                             cert: object = None) -> Any:
        there = parse_url(request.url or "")
        return {"scheme": there.scheme, "host": there.host, "port": there.port}, {}

    def cert_verify(self, conn: object, url: object, verify: object, cert: object) -> None:
        """Nothing to do: the context was set up once, and no caller can change it."""
