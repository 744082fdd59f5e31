"""The web server's connections, held to limits, so that strangers and one busy caller leave room for everybody else.

waitress reads and writes HTTP; here stand the limits that it lacks: time for a request and for reading its answer, a
strict reading of heads whose meaning others could read differently, room for new connections, and a fair share of the
threads. https://docs.pylonsproject.org/projects/waitress/en/stable/arguments.html
"""

# waitress has no types of its own; what its classes give is stated where it is used
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
import ipaddress
import re
import socket
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from typing import Any
from urllib.parse import parse_qs

import waitress.adjustments
import waitress.channel
import waitress.parser
import waitress.server
import waitress.task
from waitress import wasyncore
from waitress.utilities import BadRequest, Error

from ..access import tokens
from ..errors import Unauthorized
from ..settings import ServerLimits, Trusted
from .forwarding import is_trusted, origin_of

LARGEST_BODY = 16_384                       # the largest that a path reads
LARGEST_HEAD = 10_240                       # bytes of request line and headers, as API Gateway
SECONDS_TO_SEND = 20                        # for a whole request, from its first byte; also for the first one to begin
SECONDS_TO_READ = 120                       # for an answer, from its first byte that the connection could not take
SECONDS_IDLE = 60                           # between two requests
SECONDS_TO_LEAVE = 2                        # for a refused caller to read why
MOST_WAITING = 200                          # of one caller; the next is refused
# their stubs know neither the attributes nor the types that are theirs
_Parser: Any = waitress.parser.HTTPRequestParser
_Channel: Any = waitress.channel.HTTPChannel
_Task: Any = waitress.task.WSGITask
_Server: Any = waitress.server.TcpWSGIServer
_Dispatcher: Any = waitress.task.ThreadedTaskDispatcher
_TICK = 0.05                                # seconds between two looks at what is still under way
_ACCEPTED = 64                              # at once: a look at all connections between two takes its time
_KNOWN = 10_000                             # callers remembered as no strangers


def network(address: str) -> str:
    """The address whose owner is one caller: an IPv6 network of 64 bits is as one IPv4 address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))


def is_local(sock: socket.socket) -> bool:
    """Whether it is a socket of this machine's file system."""
    return sock.family == getattr(socket, "AF_UNIX", None)


def headers_of(request: Any) -> dict[str, str]:
    """Those of waitress's request, with lower-case names."""
    return {str(name).lower().replace("_", "-"): str(value) for name, value in request.headers.items()}


class TooMany(Error):
    """More requests of one caller wait than are kept."""

    code = 429
    reason = "Too Many Requests"


# ---------------------------------------------------------------- a request's head

_REQUEST_LINE = re.compile(rb"[A-Z!#$%&'*+.^_`|~0-9-]+ [!-~\x80-\xff]+ HTTP/1\.[01]")
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")


class Parser(_Parser):
    """Refuses a head that another program could read as another request; after a refusal nothing more is read."""

    def received(self, data: bytes) -> int:
        try:
            taken: int = super().received(data)
            if not self.completed and not self.headers_finished and _BARE.search(self.header_plus):
                raise waitress.parser.ParsingError("bare CR or LF")
        except (waitress.parser.ParsingError, ValueError):      # numbers too long, addresses in wrong brackets
            self.error = BadRequest("unreadable")
            self.completed = True
            taken = len(data)
        if self.error or self.body_rcv is None:
            self.expect_continue = False                        # nothing is awaited
        return len(data) if self.error else taken

    def parse_header(self, header_plus: bytes) -> None:
        _check(header_plus)
        super().parse_header(header_plus)


def _check(head: bytes) -> None:
    """Raises ParsingError where the end of the request, or whose it is, is open to doubt (RFC 9112, 3.2, 5.2, 6.1)."""
    line, *fields = head.rstrip(b"\r\n").split(b"\r\n")
    headers: dict[bytes, list[bytes]] = {}
    for field in fields:
        name, colon, value = field.partition(b":")
        if not colon or not name or name != name.strip():       # a folded line begins with a space
            raise waitress.parser.ParsingError("field")
        headers.setdefault(name.lower(), []).append(value.strip(b" \t").lower())
    lengths, codings, hosts = (headers.get(name, []) for name in (b"content-length", b"transfer-encoding", b"host"))
    new = line.endswith(b"HTTP/1.1")
    doubtful = (not _REQUEST_LINE.fullmatch(line), len(hosts) > 1 or (new and not hosts), len(lengths) > 1,
                bool(codings and lengths), bool(codings and not new), codings not in ([], [b"chunked"]))
    if any(doubtful):
        raise waitress.parser.ParsingError("doubtful")
    if lengths and lengths[0].isdigit() and len(lengths[0]) > 18:
        raise ValueError("length")


# ---------------------------------------------------------------- a connection

class Task(_Task):
    """Tells the application when and from where the request arrived, and whom to tell that its token is valid."""

    def get_environment(self) -> dict[str, Any]:
        environment: dict[str, Any] = super().get_environment()
        turn: _Turn = self.channel.turn
        if self.channel.server.draining:
            self.set_close_on_finish()
        return {**environment, "twocloud.arrived": turn.arrived, "twocloud.recognise": turn.recognise,
                "twocloud.origin": turn.origin}


class Channel(_Channel):
    """A connection that keeps the time of its request and its answer."""

    parser_class = Parser
    task_class = Task
    since = 0.0                             # when the request began that is not complete; or when the last one ended
    unread = 0.0                            # when an answer began to wait for its reader
    used = False                            # a request was complete
    turn: "_Turn"                           # of the request at work
    leaving = 0.0                           # when the last answer was written, and only its reading is awaited
    refused = False                         # what the caller still sends is not read

    def __init__(self, server: Any, sock: socket.socket, addr: Any, adj: Any, map: Any = None) -> None:
        self.since = time.monotonic()
        self.peer = "" if is_local(sock) else str(addr[0])
        self.trusted: Sequence[Trusted] = server.trusted
        self.behind_proxy = is_trusted(self.peer, self.trusted)
        self.network = network(self.peer)
        super().__init__(server, sock, addr or ("", None), adj, map=map)

    @property
    def waits(self) -> bool:
        """Nothing is done for it: it is idle, or has sent a part of a request."""
        return not self.requests and not self.total_outbufs_len

    def received(self, data: bytes) -> bool:
        before = self.request
        taken: bool = super().received(data)
        if self.request is not before:
            self.since = time.monotonic()
        return taken

    def service(self) -> None:
        self.used = True
        self.refused = self.refused or bool(self.requests and self.requests[0].error)
        super().service()
        self.since = time.monotonic()

    def expired(self, now: float) -> bool:
        if self.leaving:
            return now - self.leaving > SECONDS_TO_LEAVE
        if self.total_outbufs_len:
            self.unread = self.unread or now
            return now - self.unread > SECONDS_TO_READ
        self.unread = 0.0
        idle = self.used and self.request is None
        return not self.requests and now - self.since > (SECONDS_IDLE if idle else SECONDS_TO_SEND)

    # A connection that is closed with bytes unread is reset, and the caller may lose the answer that says why: so
    # after a refusal what still comes is read and dropped, for a short time.

    def readable(self) -> bool:
        return bool(self.leaving or super().readable())

    def writable(self) -> bool:
        return not self.leaving and bool(super().writable())

    def handle_read(self) -> None:
        if not self.leaving:
            super().handle_read()
        else:
            try:
                self.recv(65_536)           # closes at the end
            except OSError:
                self.handle_close()

    def handle_close(self) -> None:
        if self.refused and self.will_close and self.connected and not self.leaving and self.socket:
            try:
                self.socket.shutdown(socket.SHUT_WR)
                self.leaving = time.monotonic()
                return
            except OSError:
                pass
        super().handle_close()


class Listener(_Server):
    """Ends connections whose time is over; makes room for new ones."""

    channel_class = Channel
    refused: Callable[[int, float], None]   # status and seconds of each request that waitress itself refuses
    ended = False
    draining = 0.0                          # until when, on time.monotonic's scale; 0: not
    _ending = False                         # the loop is to end

    def __init__(self, application: Callable[..., Any], bound: socket.socket, channel: type[Channel],
                 dispatcher: "FairShare", limits: ServerLimits, trusted: Sequence[Trusted],
                 origins: Collection[str]) -> None:
        self.channel_class, self._limits = channel, limits
        self.trusted, self.origins = trusted, origins
        self._closing = threading.Lock()
        self._pulling = threading.Lock()    # the loop must not close the trigger while `end_soon` pulls it
        adjusted = waitress.adjustments.Adjustments(
            sockets=[bound], ident=None, clear_untrusted_proxy_headers=False, max_request_header_size=LARGEST_HEAD,
            max_request_body_size=LARGEST_BODY + 1, inbuf_overflow=1 << 30, outbuf_high_watermark=1 << 20,
            connection_limit=limits.connections + 90, asyncore_use_poll=True, cleanup_interval=1,
            recv_bytes=65_536)              # else a head that is too large is reset, not answered
        super().__init__(application, map={}, _sock=bound, dispatcher=dispatcher, adj=adjusted, bind_socket=False,
                         sockinfo=(bound.family, bound.type, bound.proto, bound.getsockname()))

    def getsockname(self) -> Any:
        return ("", "") if is_local(self.socket) else super().getsockname()

    def set_socket_options(self, conn: socket.socket) -> None:
        if not is_local(conn):
            super().set_socket_options(conn)

    def loop(self) -> None:
        """Serve until closed, or drained."""
        while self._map and not (self.draining and self._is_drained()):
            wasyncore.loop(timeout=_TICK if self.draining else 1, map=self._map, use_poll=True, count=1)
        self.end()

    def drain(self, seconds: float) -> None:
        """Accept nothing new, end `loop` when all that is under way has its answer, or after `seconds`. From a signal's
        handler in the loop's own thread: it takes no lock."""
        self.draining = self.draining or time.monotonic() + seconds

    def _is_drained(self) -> bool:
        if self.socket and self.accepting:
            self.accepting = False
            self.del_channel()
            self.socket.close()             # the next one is refused by the system, and goes to another server
        for channel in list(self.active_channels.values()):
            if channel.waits:
                channel.handle_close()
        return not self.active_channels or time.monotonic() > self.draining

    def pull_trigger(self) -> None:
        with self._closing:                 # a thread that ends late must not write to what is closed
            if not self.ended:
                self.trigger.pull_trigger()

    def end(self) -> None:
        """Close everything, once; from the loop's own thread or while no loop runs."""
        with self._closing:
            already, self.ended = self.ended, True
        if not already:
            with self._pulling:
                wasyncore.close_all(self._map, ignore_all=True)

    def end_soon(self) -> None:
        """The same from another thread. The lock is let go first: the loop holds the trigger's own while it ends."""
        with self._closing:
            already, self._ending = self.ended or self._ending, True
        if not already:
            with self._pulling:
                self.trigger.pull_trigger(self.end)

    def maintenance(self, now: float) -> None:
        moment = time.monotonic()
        for channel in list(self.active_channels.values()):
            if channel.expired(moment):
                channel.refused = False
                channel.handle_close()      # not only marked: one whose peer reads nothing never becomes writable

    def handle_accept(self) -> None:
        for _ in range(_ACCEPTED):
            before = len(self.active_channels)
            super().handle_accept()
            if len(self.active_channels) == before:             # nobody else is at the door
                return
            if len(self.active_channels) > self._limits.address_connections:
                self._make_room()

    def _make_room(self) -> None:
        """Close the connection that has waited longest, of the address that has the most, if there are too many."""
        # a trusted proxy has many callers: it is spared as long as there is room
        crowded = len(self.active_channels) > self._limits.connections
        waiting = [channel for channel in self.active_channels.values()
                   if channel.waits and (crowded or not channel.behind_proxy)]
        if not waiting:
            return
        (most, count), = Counter(channel.network for channel in waiting).most_common(1)
        if count > self._limits.address_connections or crowded:
            oldest = min((channel for channel in waiting if channel.network == most), key=lambda it: it.since)
            oldest.refused = False
            oldest.handle_close()


# ---------------------------------------------------------------- a fair share of the threads

class _Turn:
    """A request in its caller's line. `keys`: what its share is counted by; `own`: the same for a valid token."""

    def __init__(self, channel: Channel, share: "FairShare") -> None:
        request = channel.requests[0]
        self.channel, self._share = channel, share
        self.arrived = time.monotonic()
        self.shown = _digest(str(request.headers.get("AUTHORIZATION", "")))
        self.origin = origin_of(channel.peer, headers_of(request) if channel.behind_proxy else {}, channel.trusted)
        tenant = parse_qs(str(getattr(request, "query", ""))).get("tenant_id", [""])[0][:64]
        self.own = (f"token {self.shown}", *([f"tenant {tenant}"] if tenant else []))
        self.keys = self.own if share.knows(self.shown) else (f"stranger {network(self.origin.address)}",)

    def service(self) -> None:
        try:
            self.channel.turn = self
            self.channel.service()
        finally:
            self._share.done(self)

    def recognise(self) -> None:
        """The token that it shows is valid."""
        self._share.recognise(self)

    def cancel(self) -> None:
        self.channel.cancel()


class FairShare(_Dispatcher):
    """Gives each caller a line of its own, and the threads to the lines in turn.

    A caller is a token that was valid before, with the tenant that it asks for; all others of one address are one
    stranger. No caller and no tenant has more than its share of threads, nor more than are left free: what waits for
    them holds no thread. A hanging party holds some threads for 25 s; the others go on.
    """

    def __init__(self, limits: ServerLimits) -> None:
        super().__init__()
        self._limits = limits
        self._lines: OrderedDict[tuple[str, ...], deque[_Turn]] = OrderedDict()
        self._running: Counter[str] = Counter()
        self._known: OrderedDict[str, None] = OrderedDict()
        self.queue: Any = self              # waitress asks it: is there a task that may start, and which is next
        self.set_thread_count(limits.requests)

    def knows(self, shown: str) -> bool:
        return shown in self._known

    def recognise(self, turn: _Turn) -> None:
        """From now on count this token's requests by themselves, also those at work and in the line of strangers."""
        with self.lock:
            self._known[turn.shown] = None
            self._known.move_to_end(turn.shown)
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)
            if turn.keys == turn.own:
                return
            before = turn.keys
            self._leave(before)
            self._running.update(turn.own)
            turn.keys = turn.own
            for other in [it for it in self._lines.get(before, ()) if it.shown == turn.shown]:
                self._lines[before].remove(other)
                other.keys = other.own
                self._lines.setdefault(other.own, deque()).append(other)
            if not self._lines.get(before, True):
                del self._lines[before]
            self.queue_cv.notify()

    def add_task(self, task: Any) -> None:
        made = _Turn(task, self)
        with self.lock:
            if len(self._lines.get(made.keys, ())) >= MOST_WAITING:
                task.requests[0].error = TooMany("too many")    # answered in its turn, and the connection closed
                made.keys = made.own = ("refused",)
            self._lines.setdefault(made.keys, deque()).append(made)
            self.queue_cv.notify()

    def done(self, turn: _Turn) -> None:
        with self.lock:
            self._leave(turn.keys)

    def _leave(self, keys: tuple[str, ...]) -> None:
        self._running.subtract(keys)
        for key in keys:
            if self._running[key] <= 0:
                del self._running[key]

    # ---- the queue, of which waitress asks under its lock

    def _may_start(self, keys: tuple[str, ...]) -> bool:
        free = len(self.threads) - self.active_count + 1        # the one that asks, too
        share = max(1, min(self._limits.tenant_requests, free))
        return all(self._running[key] < (self._limits.address_requests if key.startswith("stranger") else share)
                   for key in keys)

    def __len__(self) -> int:
        return any(self._may_start(keys) for keys in self._lines)

    def popleft(self) -> _Turn:
        keys = next(keys for keys in self._lines if self._may_start(keys))
        turn = self._lines[keys].popleft()
        if self._lines[keys]:
            self._lines.move_to_end(keys)
        else:
            del self._lines[keys]
        self._running.update(turn.keys)
        if self._lines:
            self.queue_cv.notify()          # another line may be free to go on
        return turn


def _digest(authorization: str) -> str:
    """Of the token, however it is shown."""
    try:
        shown = tokens.read_header(authorization).name
    except Unauthorized:
        shown = ""
    return hashlib.sha256(shown.encode("utf-8", "surrogateescape")).hexdigest()[:32]
