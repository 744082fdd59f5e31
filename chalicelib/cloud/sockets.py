"""Sockets that keep a deadline over name lookup, proxy, TLS and each receive, and always check certificates.

A plain read timeout is per receive and does not hold against a server that drips, so each receive gets the time that
is left. No proxy, certificate or key log is read from the environment: a route names them.

Through a proxy, https is a tunnel (CONNECT) in which the party's own certificate is checked; plain http is a request
with an absolute URL. The party's name is then the proxy's to look up.
"""

import base64
import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import IO, Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.connection import create_connection
from urllib3.util.ssl_ import create_urllib3_context
from urllib3.util.url import Url

from ..errors import InvalidParameter, PartyTimeout, PartyUnavailable, PartyUnreachable
from ..route import DIRECT, Proxy, Route, certificates, is_loopback

_POOLED = 64                                # connections kept to one host, and hosts kept
_CONTEXTS = 64                              # TLS contexts kept, one for each set of authorities
_KEPT_SECONDS = 45.0                        # no longer unused: a NAT gateway forgets a connection without a word, and
                                            # answers what is sent later with a reset
_LONGEST_FILE = 1_000_000                   # bytes of a PEM file, with what stands between its certificates
_LONGEST_HEAD = 16_384                      # bytes of a proxy's answer to CONNECT


class CallInProgress(threading.local):
    """What this thread is sending now."""

    there: Url = Url()                      # where to
    deadline: float = 0.0                   # on time.monotonic's scale
    holder: Callable[[socket.socket], None] | None = None       # is given each socket that is waited for
    proxy: Proxy | None = None              # through which it goes

    def hold(self, sock: socket.socket) -> None:
        if self.holder:
            self.holder(sock)

    def left(self) -> float:
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the deadline has passed")
        return remaining


current = CallInProgress()


class _PlainSocket(socket.socket):
    # arguments pass as they came: what they are is the standard library's affair
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
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer.put(list(dict.fromkeys(str(address[0]) for *_, address in rows)))
        except (OSError, UnicodeError) as problem:
            answer.put(problem if isinstance(problem, OSError) else socket.gaierror(str(problem)))

    threading.Thread(target=ask, daemon=True, name="twocloud-resolve").start()
    try:
        addresses = answer.get(timeout=current.left())
    except queue.Empty:
        raise TimeoutError("the name server did not answer in time") from None
    if isinstance(addresses, OSError):
        raise addresses
    return addresses


def connect(host: str, port: int, options: Any = None) -> socket.socket:
    """A connection to the first address of the host that answers. Raises OSError."""
    problem = OSError("the name has no address")
    for address in resolve(host, port):
        try:
            raw = create_connection((address, port), current.left(), socket_options=options)
            sock = _PlainSocket(raw.family, raw.type, raw.proto, fileno=raw.detach())
            current.hold(sock)
            return sock
        except TimeoutError:
            raise
        except OSError as refused:
            problem = refused
    raise problem


def _dial(connection: HTTPConnection) -> socket.socket:
    if current.proxy:
        tunnel = isinstance(connection, HTTPSConnection)
        return _through(current.proxy, (connection.host, connection.port) if tunnel else None,
                        connection.socket_options)
    try:
        return connect(connection.host, connection.port, connection.socket_options)
    except TimeoutError as late:
        raise urllib3.exceptions.ConnectTimeoutError(connection, str(late)) from late
    except socket.gaierror as unknown:
        raise urllib3.exceptions.NameResolutionError(connection.host, connection, unknown) from unknown
    except OSError as problem:
        raise urllib3.exceptions.NewConnectionError(connection, f"no address answers: {problem}") from problem


# ---------------------------------------------------------------- a proxy

def reach(proxy: Proxy, seconds: float) -> None:
    """Connect to the proxy and hang up. Raises PartyUnavailable, PartyTimeout."""
    current.deadline, current.holder = time.monotonic() + seconds, None
    _through(proxy, None).close()


def _through(proxy: Proxy, party: tuple[str, int] | None, options: Any = None) -> socket.socket:
    """A connection to the proxy, or the tunnel through it to the party's host and port. Raises PartyUnavailable,
    PartyTimeout."""
    sock = None
    try:
        sock = connect(proxy.host, proxy.port, options)
        if party:
            _open_tunnel(sock, proxy, *party)
        return sock
    except BaseException as problem:
        if sock is not None:
            sock.close()
        if isinstance(problem, TimeoutError):
            raise PartyTimeout("The proxy did not answer in time.") from None
        if isinstance(problem, socket.gaierror):
            raise PartyUnavailable("The proxy's host name cannot be looked up. Check the account's `--proxy`, "
                                   "or TWOCLOUD_PROXY.") from None
        if isinstance(problem, OSError):
            raise PartyUnavailable("The proxy cannot be reached, or closed the connection. Check the account's "
                                   "`--proxy`, or TWOCLOUD_PROXY.") from None
        raise


def _open_tunnel(sock: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    there = f"{f'[{host}]' if ':' in host else host}:{port}"
    lines = [f"CONNECT {there} HTTP/1.1", f"Host: {there}",
             *(f"{name}: {value}" for name, value in proxy_headers(proxy).items())]
    sock.settimeout(current.left())
    sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
    head = b""
    while b"\r\n\r\n" not in head:
        sock.settimeout(current.left())
        piece = sock.recv(4096)
        head += piece
        if not piece or len(head) > _LONGEST_HEAD:
            break
    answer = re.match(rb"HTTP/1\.[01] ([1-9][0-9]{2})[ \r]", head)
    if answer and answer[1] == b"200" and head.endswith(b"\r\n\r\n"):       # in TLS the server never speaks first
        return
    if answer and answer[1] != b"200":
        raise proxy_refusal(int(answer[1]))
    raise PartyUnavailable("The proxy did not open a tunnel: its answer to CONNECT cannot be understood.")


def proxy_headers(proxy: Proxy) -> dict[str, str]:
    if proxy.user is None:
        return {}
    login = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {login}"}


def proxy_refusal(status: int) -> PartyUnavailable:
    """What a proxy's own answer means."""
    if status == 407:
        return PartyUnreachable("The proxy refused its user and password, or needs them (407). Set proxy_user "
                                "and proxy_password among the account's credentials, or http://USER:PASSWORD@HOST:PORT "
                                "in TWOCLOUD_PROXY.", http_status=status)
    if status < 500:
        return PartyUnreachable(f"The proxy does not allow connections to the party ({status}). Permit the party's "
                                "host in the proxy.", http_status=status)
    return PartyUnavailable(f"The proxy could not connect to the party ({status}). Retry later.",
                            http_status=status)


# ---------------------------------------------------------------- connections


class _Sent:
    """Before each request on a connection, new or kept: the time that is left, and a way to end it early."""

    sock: socket.socket | None
    _used: float = 0.0                      # when the last request began
    _gathered: list[bytes] | None = None    # what a request sends, until it is whole

    @property
    def is_connected(self) -> bool:         # of the connection that this is mixed into
        return time.monotonic() - self._used < _KEPT_SECONDS and super().is_connected     # type: ignore[misc,no-any-return]

    def putrequest(self, *args: object, **kwargs: object) -> None:
        self._used = time.monotonic()
        if self.sock is not None:
            self.sock.settimeout(current.left())
            current.hold(self.sock)
        super().putrequest(*args, **kwargs)                     # type: ignore[misc]

    def request(self, *args: object, **kwargs: object) -> None:
        """Head and body in one packet, not in one each: that saves a call of the system, and the other side's."""
        self._gathered = []
        try:
            super().request(*args, **kwargs)                    # type: ignore[misc]
            whole = b"".join(self._gathered)
        finally:
            self._gathered = None
        super().send(whole)                                     # type: ignore[misc]

    def send(self, data: Any) -> None:
        if self._gathered is None:
            super().send(data)                                  # type: ignore[misc]
        else:
            self._gathered.append(data)


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


@lru_cache(_CONTEXTS)
def _context(trusted: str, authorities: str) -> ssl.SSLContext:
    """One a process for each set of authorities, whose reading takes 30 ms. `trusted`: a file of them, `authorities`:
    more of them, in PEM."""
    made = create_urllib3_context()
    made.load_verify_locations(trusted)
    if authorities:
        made.load_verify_locations(cadata=authorities)
        # A private authority may be an intermediate one, or older than the rules that Python 3.13 added.
        made.verify_flags = (made.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    made.verify_mode = ssl.CERT_REQUIRED
    made.check_hostname = True
    made.sslsocket_class = _TlsSocket
    return made


def read_authorities(parameter: str, file: IO[bytes]) -> str:
    """The certificates of a PEM file, each of which can be read. Raises OSError, InvalidParameter."""
    pem = certificates(parameter, file.read(_LONGEST_FILE))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        raise InvalidParameter(parameter, "The file holds a certificate that cannot be read. Was it truncated?"
                               ) from None
    return pem


class Adapter(HTTPAdapter):
    """requests' adapter over pools whose sockets keep the deadline and always check certificates.

    Each route has one of its own, so that no connection is shared between accounts of different trust or proxy.
    `loopback`: addresses on loopback go through the proxy, too.
    """

    def __init__(self, trusted: str, route: Route = DIRECT, *, loopback: bool = True) -> None:
        self._tls = _context(trusted, route.authorities)
        self._proxy = route.proxy
        self._loopback = loopback
        super().__init__(pool_connections=_POOLED, pool_maxsize=_POOLED)

    def proxy_to(self, host: str) -> Proxy | None:
        """The proxy through which calls to the host go."""
        return None if self._proxy and not self._loopback and is_loopback(host) else self._proxy

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: object) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._tls, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}

    def build_connection_pool_key_attributes(self, request: requests.PreparedRequest, verify: object,
                                             cert: object = None) -> Any:
        there = current.there
        return {"scheme": there.scheme, "host": there.host, "port": there.port}, {}

    def request_url(self, request: requests.PreparedRequest, proxies: object) -> str:
        """What the request line holds. Also names the proxy to the connection that may have to be made."""
        there = current.there
        current.proxy = self.proxy_to(there.host or "")
        return request.url or "" if current.proxy and there.scheme == "http" else request.path_url

    def add_headers(self, request: requests.PreparedRequest, **kwargs: object) -> None:
        """In a tunnel the proxy sees no headers: its user and password went there with CONNECT."""
        if current.proxy and current.there.scheme == "http":
            request.headers.update(proxy_headers(current.proxy))

    def cert_verify(self, conn: object, url: object, verify: object, cert: object) -> None:
        """Nothing to do: the context was set up once, and no caller can change it."""
