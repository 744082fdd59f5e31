"""The only door to a party: send(operation, sign) -> Response, with deadline, byte cap, rate limit, at most one retry.

The deadline is total: from the first look at the name server to the last byte. A plain read timeout is per
receive and does not hold against a server that drips, so each receive gets the time that is left. No redirect is
followed, no cookie kept, no proxy or certificate taken from the environment, no certificate left unchecked.

Whatever goes wrong on the way or in the answer becomes a PartyError (or UnknownRegion) here and nowhere else.
"""

import http.client
import io
import ipaddress
import mmap
import queue
import random
import re
import socket
import ssl
import threading
import time
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from math import inf
from typing import Any
from urllib.parse import unquote, urlsplit

import certifi
import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.connection import create_connection
from urllib3.util.ssl_ import create_urllib3_context
from urllib3.util.url import parse_url

from .. import log
from ..errors import (
    FAILED,
    Internal,
    Meaning,
    PartyDenied,
    PartyError,
    PartyFailed,
    PartyMalformed,
    PartyThrottled,
    PartyTimeout,
    PartyUnavailable,
    TwocloudError,
    UnknownRegion,
    cause_of,
)
from ..model import Account, Limit, Party, Request, Response, Sign

BYTE_CAP = 16 * 1024 * 1024                 # of one answer, decoded; Azure's pages end there, others are smaller
CALL_SECONDS = 10.0                         # the share of one call; a request may make several
_PIECE = 65536                              # bytes that are received, or unpacked, at once
_LONGEST_WAIT = 5.0                         # a party that asks for more gets no retry from us
_POOLED = 64                                # connections kept to one host, and hosts kept
_RATE_MARGIN = 1.05                         # networks bunch up what we spaced out
_LIMITERS = 1024                               # rates beyond which those that are at rest are forgotten
_REST_SECONDS = 60.0                        # after its last call's window, after which a rate is at rest


# ---------------------------------------------------------------- a socket that keeps a deadline

class _Call(threading.local):
    """What this thread is sending now."""

    deadline: float = 0.0
    sender: "Sender | None" = None

    def hold(self, sock: socket.socket) -> None:
        if self.sender:
            self.sender.hold(sock)

    def left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left


_call = _Call()


class _PlainSocket(socket.socket):
    def recv_into(self, *args: object, **kwargs: object) -> int:
        self.settimeout(_call.left())
        return super().recv_into(*args, **kwargs)               # type: ignore[arg-type]


class _TlsSocket(ssl.SSLSocket):
    def recv_into(self, *args: object, **kwargs: object) -> int:
        self.settimeout(_call.left())
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
        found = answer.get(timeout=_call.left())
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
                raw = create_connection((address, connection.port), _call.left(),
                                        socket_options=connection.socket_options)
                sock = _PlainSocket(raw.family, raw.type, raw.proto, fileno=raw.detach())
                _call.hold(sock)
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
            self.sock.settimeout(_call.left())
            _call.hold(self.sock)
        super().putrequest(*args, **kwargs)                     # type: ignore[misc]


class _PlainConnection(_Sent, HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _dial(self)


class _TlsConnection(_Sent, HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        sock = _dial(self)
        sock.settimeout(_call.left())                           # OpenSSL keeps it over the whole handshake
        return sock


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection                            # type: ignore[assignment]


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection                              # type: ignore[assignment]


class _Adapter(HTTPAdapter):
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


# ---------------------------------------------------------------- the room that answers take

_LONGEST_REFUSAL = 256 * 1024               # bytes
_LIGHT = 2 * 1024 * 1024                    # bytes, and bytes of objects: answers up to here take no permit
_MOST_OBJECTS = 16 * 1024 * 1024            # bytes that the objects of one JSON answer may take, estimated
_MOST_ELEMENTS = 48 * 1024 * 1024           # the same of an XML answer, of which only the servers outlive its reading
_MOST_ATTRIBUTES = 10_000                   # of an XML answer, and elements without an end: EC2 has one, and none
_HEAVY = 2                                  # large answers held at once in this process, of one tenant one
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_LONG_TEXT = re.compile(rb'"[^"\\]{1000000}')       # one wide character makes each of the others as wide


class RoomForAnswers:
    """Permits for answers that take much memory: a few at once, and never more than one of a tenant's."""

    def __init__(self) -> None:
        self._tenants: set[str] = set()
        self._changed = threading.Condition()

    def take(self, tenant: str) -> None:
        """Wait for a permit until this thread's call has to end.

        Raises PartyMalformed if the tenant's own answer is in the way, else PartyThrottled.
        """
        with self._changed:
            while tenant in self._tenants or len(self._tenants) >= _HEAVY:
                if not self._changed.wait(max(0.0, _call.deadline - time.monotonic())):
                    if tenant in self._tenants:
                        raise PartyMalformed("The party's answers are too large to be read in time.")
                    raise PartyThrottled("Too many large answers of clouds are being read at once. Retry later.")
            self._tenants.add(tenant)

    def release(self, tenant: str) -> None:
        with self._changed:
            self._tenants.discard(tenant)
            self._changed.notify_all()


class Permit:
    """One answer's; it takes one once the answer is known to be large, and gives it back when the answer is dropped."""

    def __init__(self, room: RoomForAnswers, tenant: str) -> None:
        self._room = room
        self._tenant = tenant
        self._taken = False

    def take(self) -> None:
        if not self._taken:
            self._room.take(self._tenant)
            self._taken = True

    def __call__(self) -> None:
        if self._taken:
            self._taken = False
            self._room.release(self._tenant)

    release = __del__ = __call__

    def bounded(self, body: bytes) -> bool:
        """Whether the answer's objects will fit; if they will be many, after a permit was taken for them."""
        size = room_of(body)
        if size is None:
            return False
        if size > 2 * _LIGHT:
            self.take()
        return True


def room_of(body: bytes) -> int | None:
    """How many bytes the objects of an answer will take at most, by counts at the speed of memory; None: too many.

    JSON: an object or list is some 150 bytes, a scalar 60; the signs may also stand inside texts (a start-up script),
    which are looked through only where the quick count is too high. XML: a tag is 60. No cloud declares entities, or
    sends attributes or elements without an end by the thousand.
    """
    if body[:64].lstrip().startswith(b"<"):
        tags, ends = body.count(b"<"), body.count(b"</")
        if body.count(b'="') + body.count(b"='") > _MOST_ATTRIBUTES or b"<!ENTITY" in body or (
                tags - 2 * ends - body.count(b"/>") > _MOST_ATTRIBUTES):
            return None
        return 60 * tags if 60 * tags <= _MOST_ELEMENTS else None
    if len(body) > _LIGHT and _LONG_TEXT.search(body):
        return None
    size = _objects(body)
    if size > _MOST_OBJECTS and 30 * (body.count(b'"') - body.count(b'\\"')) <= 2 * _MOST_OBJECTS:
        size -= sum(_objects(text[0]) for text in _TEXT.finditer(body))
    return size if size <= _MOST_OBJECTS else None


def _objects(json: bytes) -> int:
    return 150 * (json.count(b"{") + json.count(b"[")) + 60 * json.count(b",")


# ---------------------------------------------------------------- the party's documented rate

class _RateLimiter:
    """Lets at most `limit.calls` start in any `limit.seconds`."""

    def __init__(self, limit: Limit) -> None:
        self._seconds = limit.seconds * _RATE_MARGIN
        self._starts: deque[float] = deque(maxlen=limit.calls)
        self._lock = threading.Lock()

    def reserve(self, deadline: float) -> float:
        """Seconds to wait before the start that is now reserved. Raises PartyThrottled if it is too late then."""
        with self._lock:
            now = time.monotonic()
            start = now
            if len(self._starts) == self._starts.maxlen:
                start = max(now, self._starts[0] + self._seconds)
            if now >= deadline:
                raise PartyTimeout()
            if start >= deadline:
                raise PartyThrottled("The party's documented rate does not allow so many calls in the time of one "
                                     "request; ask for a range (f, t).", retry_after=start - now)
            self._starts.append(start)
            return start - now

    def at_rest(self, now: float) -> bool:
        """Whether a new one would allow the same."""
        with self._lock:
            return not self._starts or self._starts[-1] + self._seconds + _REST_SECONDS < now


# ---------------------------------------------------------------- the door

@dataclass(slots=True)
class Call:
    """One call to a party. `began`: time.monotonic(). `waited`: milliseconds before it, for the party's documented
    rate. `status`: of the answer, None if there was none; `error`: our word for what went wrong, "" if nothing did."""

    party: str
    region: str
    operation: str
    began: float
    waited: float
    milliseconds: float | None = None       # None: under way
    status: int | None = None
    error: str = ""
    date: str = ""                          # the answer's own time, as its header says it


@dataclass(slots=True)
class CallStats:
    """What senders did: calls started, retries, and milliseconds in which at least one call was under way; each call
    in `made`.

    All senders of one request to us may share one, so that the retries of all of them stay within a tenth.
    """

    calls: int = 0
    retries: int = 0
    milliseconds: float = 0.0
    made: list[Call] = field(default_factory=list[Call], repr=False)
    under_way: int = field(default=0, repr=False)
    since: float = field(default=0.0, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def line(self) -> dict[str, object]:
        """For the journal."""
        return {"party_milliseconds": round(self.milliseconds, 1), "party_calls": self.calls,
                "party_retries": self.retries}


class Transport:
    """One per process: the connections and the paces, shared by all accounts; nothing else is.

    `trusted`: a file of CA certificates. `jitter`: a random float in [0, 1).
    """

    def __init__(self, trusted: str = certifi.where(), jitter: Callable[[], float] = random.random) -> None:
        self.adapter = _Adapter(trusted)
        self.jitter = jitter
        self._paces: dict[tuple[str, bytes, str, str], _RateLimiter] = {}
        self._paces_checked_at = _LIMITERS     # how many there are when those at rest are looked for next
        self.room_for_answers = RoomForAnswers()
        self._senders: weakref.WeakSet[Sender] = weakref.WeakSet()
        self._closed = False
        self._lock = threading.Lock()

    def sender(self, party: Party, account: Account, region: str, deadline: float, *, known: bool = False) -> "Sender":
        """A send for one request to us. `deadline`: on time.monotonic's scale. `known`: the party is known to have
        the region; all others of an account share one rate limit."""
        sender = Sender(self, party, account, region, deadline, known)
        with self._lock:
            self._senders.add(sender)
            if not self._closed:
                return sender
        sender.close()
        return sender

    def pace(self, party: Party, account: Account, region: str, operation: str) -> _RateLimiter | None:
        """Rates are per account at the party: tenants that share keys share the pace. `region`: "" for all that the
        party is not known to have."""
        limit = party.limits.get(operation)
        if limit is None:
            return None
        name = party.name, account.fingerprint, region, operation
        with self._lock:
            if name not in self._paces:
                if len(self._paces) >= self._paces_checked_at:
                    now = time.monotonic()
                    self._paces = {key: pace for key, pace in self._paces.items() if not pace.at_rest(now)}
                    self._paces_checked_at = max(_LIMITERS, 2 * len(self._paces))
                self._paces[name] = _RateLimiter(limit)
            return self._paces[name]

    def close(self) -> None:
        """End what is still under way, too: a program that ends does not wait for a party that hangs."""
        with self._lock:
            self._closed = True
            senders = list(self._senders)
        for sender in senders:
            sender.close()
        self.adapter.close()


class Sender:
    """send(operation, sign) for one request to us. Thread-safe. `close` ends what is still under way."""

    def __init__(self, transport: Transport, party: Party, account: Account, region: str, deadline: float,
                 known: bool) -> None:
        self._transport = transport
        self._party = party
        self._account = account
        self._region = region
        self._known = known
        self._deadline = deadline
        self._lock = threading.Lock()
        self._permits: weakref.WeakSet[Permit] = weakref.WeakSet()
        self._held: dict[int, socket.socket] = {}               # thread -> the socket that it waits for
        self._closed = False
        self._limit: Limit | None = None    # of the last operation
        self.stats = CallStats()

    def room(self) -> float:
        """How many more calls like the last one the documented rate allows before the deadline."""
        left = max(0.0, self._deadline - time.monotonic())
        return inf if self._limit is None else self._limit.calls * (1 + left / (self._limit.seconds * _RATE_MARGIN))

    def __call__(self, operation: str, sign: Sign) -> Response:
        with self._told(operation) as line:
            try:
                return self._try(operation, sign)
            except (PartyThrottled, PartyUnavailable, PartyFailed) as error:
                failure = error
            pause = self._pause(failure)
            if pause is None:
                raise failure
            time.sleep(pause)
            line["tries"] = 2
            return self._try(operation, sign)

    @contextmanager
    def _told(self, operation: str) -> Generator[dict[str, object]]:
        """The call's line in the journal."""
        line: dict[str, object] = {"tenant": self._account.tenant_id, "party": self._party.name, "region": self._region,
                                   "operation": operation, "tries": 1}
        started, failure = time.monotonic(), None
        try:
            yield line
        except Exception as error:
            failure = error if isinstance(error, TwocloudError) else Internal()
            if isinstance(error, PartyError):
                line |= {"status": error.http_status, "party_word": error.party_code or None}
            raise
        finally:
            log.call(failed=failure is not None, **line, error=failure.word if failure else None,
                         milliseconds=round((time.monotonic() - started) * 1000, 1))

    def close(self) -> None:
        with self._lock:
            self._closed, permits = True, list(self._permits)
            for sock in self._held.values():
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for permit in permits:              # also of answers that an error's traceback still holds
            permit.release()

    def _pause(self, failure: PartyError) -> float | None:
        """Seconds before the one retry, None for no retry: none beyond a tenth of the calls or beyond the budget."""
        with self.stats.lock:
            if self._closed or self.stats.retries >= max(1, self.stats.calls // 10):
                return None
            asked = failure.retry_after
            pause = self._transport.jitter() * 0.3 if asked is None else asked + self._transport.jitter() * 0.1
            if pause > _LONGEST_WAIT or time.monotonic() + pause + 1 > self._deadline:
                return None
            self.stats.retries += 1
            return pause

    def _try(self, operation: str, sign: Sign) -> Response:
        region = self._region if self._known else ""
        pace = self._transport.pace(self._party, self._account, region, operation)
        self._limit = self._party.limits.get(operation)
        wait = pace.reserve(self._deadline) if pace else 0.0
        if wait > 0:
            time.sleep(wait)
        request = sign()                                        # after the wait: signatures carry the time
        call = Call(self._party.name, self._region, operation, time.monotonic(), wait * 1000)
        self._count(+1, call)
        try:
            response = self._exchange(request)
            call.status, call.date = response.status, response.headers.get("date", "")
            failure = failure_in(self._party, response)
            if isinstance(failure, UnknownRegion) and not _names(request, self._region):
                failure = failure_in(self._party, response, about_region=False)
            if failure:
                raise failure
        except TwocloudError as error:
            call.error = error.word
            raise
        finally:
            self._count(-1, call)
        return response

    def _exchange(self, request: Request) -> Response:
        _call.deadline, _call.sender = min(self._deadline, time.monotonic() + CALL_SECONDS), self
        answer: requests.Response | None = None
        body = b""
        permit = Permit(self._transport.room_for_answers, self._account.tenant_id)
        with self._lock:
            self._permits.add(permit)
        try:
            answer = self._transport.adapter.send(_prepared(request), stream=True, timeout=_call.left())
            body = self._body(answer.raw, permit)
            self.hold(None)
            answer.raw.release_conn()
            if answer.status_code >= 400 and len(body) > _LONGEST_REFUSAL:
                body = b""                                      # its status says enough
            if not permit.bounded(body):
                raise PartyMalformed("The party's answer holds more values than can be read.")
            return Response(answer.status_code, {k.lower(): v for k, v in answer.raw.headers.items()}, body, permit)
        except Exception as problem:
            permit.release()
            body = b""                      # not as long as the error's traceback lives
            if answer is not None:
                answer.raw.close()                              # half read: never back into the pool
            if self._is_unknown_region(request.url, problem):
                raise UnknownRegion(f"{self._party.title} has no such region.") from None
            raise failure_of(problem, answered=answer is not None) from None
        finally:
            self.hold(None)

    def _body(self, raw: urllib3.HTTPResponse, permit: "Permit") -> bytes:
        """A large answer is gathered outside of the heap, which keeps the room of what it held."""
        size, small, large = 0, io.BytesIO(), None
        try:
            for chunk in _pieces(raw):
                size += len(chunk)
                if size > BYTE_CAP:
                    raise PartyMalformed(f"The party's answer is longer than {BYTE_CAP // 1024 // 1024} MB.")
                if size > _LIGHT and large is None:
                    permit.take()
                    large = mmap.mmap(-1, BYTE_CAP)
                    large.write(small.getbuffer())
                (small if large is None else large).write(chunk)
            return small.getvalue() if large is None else large[:size]
        finally:
            if large is not None:
                large.close()

    def _is_unknown_region(self, url: str, problem: Exception) -> bool:
        """The name of the region's host does not exist, while that of a region that does exist can be looked up."""
        if self._known or self._account.endpoint or self._region not in url or not any(
                isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME for error in _causes(problem)):
            return False
        usual = urlsplit(url.replace(self._region, self._party.default_region))
        try:
            return bool(resolve(usual.hostname or "", usual.port or 443))
        except OSError:
            return False

    def hold(self, sock: socket.socket | None) -> None:
        with self._lock:
            if sock is None:
                self._held.pop(threading.get_ident(), None)
            elif self._closed:
                raise TimeoutError("the request was given up")
            else:
                self._held[threading.get_ident()] = sock

    def _count(self, step: int, call: Call) -> None:
        stats = self.stats
        with stats.lock:
            now = time.monotonic()
            if step > 0:
                stats.calls += 1
                stats.made.append(call)
                if not stats.under_way:
                    stats.since = now
            else:
                call.milliseconds = (now - call.began) * 1000
            stats.under_way += step
            if not stats.under_way:
                stats.milliseconds += (now - stats.since) * 1000


def _pieces(raw: urllib3.HTTPResponse) -> Generator[bytes, None, None]:
    """The body, unpacked a little at a time: urllib3 would unpack all that it received at once, a thousand times it."""
    encoding = raw.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        while chunk := raw.read(_PIECE, decode_content=False):
            yield chunk
        return
    if encoding not in ("gzip", "x-gzip"):
        raise PartyMalformed("The party's answer is in an encoding that was not requested.")
    unpacker, started = zlib.decompressobj(zlib.MAX_WBITS | 16), False
    while packed := raw.read(_PIECE, decode_content=False):
        more = started = True
        while packed or more:
            if unpacker.eof:                # an answer may be of several parts
                unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
            piece = unpacker.decompress(packed, _PIECE)
            packed, more = unpacker.unconsumed_tail or unpacker.unused_data, len(piece) == _PIECE and not unpacker.eof
            yield piece
    if started and not unpacker.eof:
        raise PartyMalformed("The party's answer was cut short.")


def _prepared(request: Request) -> requests.PreparedRequest:
    """Filled by hand: what was signed goes out as it is, not as `prepare` would quote and order it anew."""
    prepared = requests.PreparedRequest()
    prepared.method, prepared.url, prepared.body = request.method, request.url, request.body or None
    prepared.headers = CaseInsensitiveDict({"User-Agent": "twocloud", "Accept-Encoding": "gzip", **request.headers})
    if request.body:
        prepared.headers["Content-Length"] = str(len(request.body))
    return prepared


# ---------------------------------------------------------------- the border of errors

def failure_of(problem: Exception, *, answered: bool) -> Exception:
    """What an exception of the network stack means: the first row that fits it or what caused it.

    `answered`: the head of an answer had arrived, so that whatever breaks then has cut the answer short.
    An exception that is not the network's is returned as it is: that is our own fault.
    """
    if isinstance(problem, PartyError):
        return problem
    for error in _causes(problem):
        for kinds, failure, text in _NETWORK:
            if isinstance(error, kinds):
                if answered and failure is PartyUnavailable:
                    return PartyMalformed("The party's answer was cut short.")
                return failure(text)
    return problem


def _causes(problem: BaseException) -> list[BaseException]:
    """The innermost cause first. requests and urllib3 hide it in `args` and `reason` as well."""
    found: list[BaseException] = []
    todo: list[object] = [problem]
    while todo and len(found) < 20:
        error = todo.pop()
        if isinstance(error, BaseException) and error not in found:
            found.append(error)
            todo += [error.__context__, error.__cause__, getattr(error, "reason", None), *error.args]
    return found[::-1]


_NETWORK: tuple[tuple[tuple[type[BaseException], ...], type[PartyError], str], ...] = (
    ((TimeoutError, urllib3.exceptions.TimeoutError, requests.Timeout), PartyTimeout, ""),
    ((socket.gaierror, urllib3.exceptions.NameResolutionError),
     PartyUnavailable, "The party's name cannot be looked up. Retry later."),
    ((ssl.SSLError, urllib3.exceptions.SSLError, requests.exceptions.SSLError),
     PartyUnavailable, "The party's certificate cannot be trusted, or its TLS failed."),
    ((http.client.RemoteDisconnected, ConnectionRefusedError), PartyUnavailable, ""),
    ((http.client.IncompleteRead, urllib3.exceptions.IncompleteRead, urllib3.exceptions.InvalidChunkLength),
     PartyMalformed, "The party's answer was cut short or badly framed."),
    ((http.client.HTTPException, zlib.error, urllib3.exceptions.DecodeError,
      urllib3.exceptions.BodyNotHttplibCompatible,
      urllib3.exceptions.ResponseNotChunked, urllib3.exceptions.InvalidHeader, urllib3.exceptions.HeaderParsingError,
      requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError,
      requests.exceptions.InvalidHeader),
     PartyMalformed, "The party's answer is not proper HTTP."),
    ((OSError, urllib3.exceptions.HTTPError, requests.RequestException), PartyUnavailable, ""),
)


def failure_in(party: Party, response: Response, about_region: bool = True) -> PartyError | UnknownRegion | None:
    """The error that an answer holds, from the party's own word first, from the HTTP status else; None if none.

    `about_region`: the request named the region that is listed. If it did not, no answer to it says that this region
    does not exist.
    """
    word = party.error_code(response)
    if word is None and 200 <= response.status < 300:
        return None
    verdict = _verdict(party, word) or _by_status(response.status)
    kind = verdict.error
    if issubclass(kind, UnknownRegion):
        if about_region:
            return UnknownRegion(f"{party.title} has no such region, or it is not open to this account.")
        verdict, kind = FAILED, PartyFailed
    shown = word if word and re.fullmatch(r"[A-Za-z0-9._-]{1,100}", word) else ""
    text = kind.default
    if detail := "; ".join(filter(None, (shown or f"HTTP {response.status}", verdict.hint))):
        text = f"{text} ({detail})"
    return kind(text, party_code=shown, hint=verdict.hint,
                retry_after=_retry_after(response.headers), http_status=response.status)


def _names(request: Request, region: str) -> bool:
    """Whether a request is about this region: its address, body or a header holds the code as a word of its own."""
    word = re.compile(rf"(?<![A-Za-z0-9_-]){re.escape(region)}(?![A-Za-z0-9_-])")
    return any(word.search(unquote(text)) for text in (
        request.url, request.body.decode("utf-8", "replace"), *request.headers.values()))


def _verdict(party: Party, word: str | None) -> Meaning | None:
    if word is None:
        return None
    return party.errors.get(word) or cause_of(word) or party.errors.get(word.split(".", 1)[0])


def _by_status(status: int) -> Meaning:
    if status in (401, 403):
        return Meaning(PartyDenied)
    if status == 429:
        return Meaning(PartyThrottled)
    if status in (502, 503, 504):
        return Meaning(PartyUnavailable)
    if status >= 500 or 200 <= status < 300:                    # 200 with an error word that is not in the table
        return Meaning(PartyFailed)
    return Meaning(PartyMalformed)                              # redirects, 404 and the like: not the API we know


def _retry_after(headers: Mapping[str, str]) -> float | None:
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 7:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time()) if text else None
    except (ValueError, TypeError, OverflowError):
        return None
