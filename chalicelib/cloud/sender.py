"""The only door to a party: send(operation, sign) -> Response, with deadline, byte cap, rate limit, at most one retry.

The deadline is total: from the first look at the name server to the last byte. No redirect is followed, no cookie kept.

Whatever goes wrong on the way or in the answer becomes a PartyError (or UnknownRegion) in failures.py and nowhere else.
"""

import io
import mmap
import random
import re
import socket
import threading
import time
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from math import inf
from urllib.parse import unquote, urlsplit

import certifi
import requests
import urllib3
from requests.structures import CaseInsensitiveDict
from urllib3.util.url import parse_url

from .. import log
from ..errors import (
    Internal,
    PartyError,
    PartyFailed,
    PartyMalformed,
    PartyThrottled,
    PartyUnavailable,
    PartyUnreachable,
    TwocloudError,
    UnknownRegion,
)
from ..model import Account, Limit, Request, Response, Sign
from ..route import DIRECT, Route, is_loopback
from .answer_size import BYTE_CAP, LIGHT, LONGEST_REFUSAL, Permit, RoomForAnswers
from .calls import Call, CallStats
from .failures import causes, failure_in, failure_of
from .party import Party
from .rate_limit import MARGIN, RateLimits
from .sockets import Adapter, current, proxy_refusal, resolve

CALL_SECONDS = 10.0                         # the share of one call; a request may make several
_PIECE = 65536                              # bytes that are received, or unpacked, at once
_LONGEST_WAIT = 5.0                         # a party that asks for more gets no retry from us
_ROUTES = 64                                # other than the deployment's own; the one used last is forgotten last


# (operation, its limit, deadline) -> seconds to wait, for an operation whose rate other processes use too
Share = Callable[[str, Limit, float], float]


class Transport:
    """One per process: the rate limits, shared by all accounts, and the connections, shared by those of one route.

    `trusted`: a file of CA certificates. `jitter`: a random float in [0, 1). `route`: the deployment's, which an
    account's own adds to. `ignored_proxy`: the variable of the environment that names a proxy which is not used.
    """

    def __init__(self, trusted: str = certifi.where(), jitter: Callable[[], float] = random.random,
                 route: Route = DIRECT, ignored_proxy: str = "") -> None:
        self._trusted = trusted
        self.route = route
        self.ignored_proxy = "" if route.proxy else ignored_proxy
        self.adapter = Adapter(trusted, route, loopback=False)
        self._adapters: OrderedDict[Route, Adapter] = OrderedDict()
        self.jitter = jitter
        self.rates = RateLimits()
        self.room_for_answers = RoomForAnswers()
        self.observe: Callable[[Call], None] | None = None      # given each call when it has ended
        self._senders: weakref.WeakSet[Sender] = weakref.WeakSet()
        self._closed = False
        self._lock = threading.Lock()

    def sender(self, party: Party, account: Account, region: str, deadline: float, *, known: bool = False,
               share: Share | None = None) -> "Sender":
        """A send for one request to us. `deadline`: on time.monotonic's scale. `known`: the party is known to have
        the region; all others of an account share one rate limit. `share`: see Share."""
        sender = Sender(self, party, account, region, deadline, known, share)
        with self._lock:
            self._senders.add(sender)
            if not self._closed:
                return sender
        sender.close()
        return sender

    def adapter_of(self, account: Account) -> Adapter:
        """The connections of the account's route."""
        own = Route(account.route.authorities, account.route.proxy)
        if own == DIRECT:
            return self.adapter
        with self._lock:
            if own not in self._adapters:
                self._adapters[own] = Adapter(
                    self._trusted, Route(self.route.authorities + own.authorities, own.proxy or self.route.proxy),
                    loopback=own.proxy is not None)
            self._adapters.move_to_end(own)
            if len(self._adapters) > _ROUTES:
                self._adapters.popitem(last=False)
            return self._adapters[own]

    def close(self) -> None:
        """End what is still under way, too: a program that ends does not wait for a party that hangs."""
        with self._lock:
            self._closed = True
            senders, adapters = list(self._senders), [self.adapter, *self._adapters.values()]
        for sender in senders:
            sender.close()
        for adapter in adapters:
            adapter.close()


class Sender:
    """send(operation, sign) for one request to us. Thread-safe. `close` ends what is still under way."""

    def __init__(self, transport: Transport, party: Party, account: Account, region: str, deadline: float,
                 known: bool, share: Share | None) -> None:
        self._transport = transport
        self._party = party
        self._account = account
        self._region = region
        self._known = known
        self._share = share
        self._deadline = deadline
        self._lock = threading.Lock()
        self._permits: weakref.WeakSet[Permit] = weakref.WeakSet()
        self._held: dict[int, socket.socket] = {}               # thread -> the socket that it waits for
        self._closed = False
        self._limit: Limit | None = None    # of the last operation
        self.stats = CallStats()

    def room(self) -> float:
        """How many more calls like the last one the documented rate allows before the deadline."""
        remaining = max(0.0, self._deadline - time.monotonic())
        return inf if self._limit is None else self._limit.calls * (1 + remaining / (self._limit.seconds * MARGIN))

    def __call__(self, operation: str, sign: Sign) -> Response:
        with self._logged(operation) as line:
            try:
                return self._try(operation, sign)
            except PartyUnreachable:
                raise
            except (PartyThrottled, PartyUnavailable, PartyFailed) as error:
                failure = error
            pause = self._pause(failure)
            if pause is None:
                raise failure
            time.sleep(pause)
            line["tries"] = 2
            return self._try(operation, sign)

    @contextmanager
    def _logged(self, operation: str) -> Generator[dict[str, object]]:
        """The call's log line."""
        line: dict[str, object] = {"tenant": self._account.tenant_id, "party": self._party.name,
                                   "account": self._account.name, "region": self._region,
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
            log.call(failed=failure is not None, **line, error=failure.code if failure else None,
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
            requested = failure.retry_after
            pause = self._transport.jitter() * 0.3 if requested is None else requested + self._transport.jitter() * 0.1
            if pause > _LONGEST_WAIT or time.monotonic() + pause + 1 > self._deadline:
                return None
            self.stats.retries += 1
            return pause

    def _try(self, operation: str, sign: Sign) -> Response:
        region = self._region if self._known else ""
        limiter = self._transport.rates.limiter(self._party, self._account, region, operation)
        self._limit = self._party.limits.get(operation)
        wait = 0.0
        if self._share and self._limit and self._party.shares(operation):
            began = time.monotonic()
            time.sleep(self._share(operation, self._limit, self._deadline))
            wait = time.monotonic() - began
        if limiter and (more := limiter.reserve(self._deadline)) > 0:
            time.sleep(more)
            wait += more
        request = sign()                                        # after the wait: signatures carry the time
        call = Call(self._account.tenant_id, self._party.name, self._account.name, self._region, operation,
                    time.monotonic(), wait * 1000, known=self._known)
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
            call.error, call.cancelled = error.code, self._closed
            raise
        finally:
            self._count(-1, call)
            if self._transport.observe:
                self._transport.observe(call)
        return response

    def _exchange(self, request: Request) -> Response:
        current.deadline, current.holder = min(self._deadline, time.monotonic() + CALL_SECONDS), self.hold
        answer: requests.Response | None = None
        proxied = False
        body = b""
        permit = Permit(self._transport.room_for_answers, self._account.tenant_id)
        with self._lock:
            self._permits.add(permit)
        try:
            current.there = there = parse_url(request.url)
            if there.scheme != "https" and not (self._account.route.plain or is_loopback(there.host or "")):
                raise PartyMalformed("The party names an address that is not https. To allow plain http for this "
                                     "account, put it with `--allow-http`.")
            adapter = self._transport.adapter_of(self._account)
            proxied = adapter.proxy_to(there.host or "") is not None
            answer = adapter.send(_prepared(request), stream=True, timeout=current.left())
            if answer.status_code == 407 and proxied:           # no party answers so: plain http, and the proxy's own
                raise proxy_refusal(407)
            body = self._body(answer.raw, permit)
            self.hold(None)
            answer.raw.release_conn()
            if answer.status_code >= 400 and len(body) > LONGEST_REFUSAL:
                body = b""                                      # its status says enough
            if not permit.bounded(body):
                raise PartyMalformed("The party's answer holds too many values.")
            headers = {k.lower(): v for k, v in answer.raw.headers.items()}
            if "set-cookie" in headers:     # a proxy may set cookies of its own beside the party's
                headers["set-cookie"] = ", ".join(answer.raw.headers.getlist("set-cookie"))
            return Response(answer.status_code, headers, body, permit,
                            answer.reason or "")
        except Exception as problem:
            permit.release()
            body = b""                      # not as long as the error's traceback lives
            if answer is not None:
                answer.raw.close()                              # half read: never back into the pool
            if self._closed and not isinstance(problem, PartyError):
                problem = TimeoutError("the request was given up")      # it was us who ended the connection
            if not proxied and self._is_unknown_region(request.url, problem):
                raise UnknownRegion(f"{self._party.title} has no such region.") from None
            raise failure_of(problem, answered=answer is not None,
                             ignored_proxy="" if proxied else self._transport.ignored_proxy) from None
        finally:
            self.hold(None)

    def _body(self, raw: urllib3.HTTPResponse, permit: Permit) -> bytes:
        """A large answer is gathered outside of the heap, which keeps the room of what it held."""
        size, small, large = 0, io.BytesIO(), None
        try:
            for chunk in _pieces(raw):
                size += len(chunk)
                if size > BYTE_CAP:
                    raise PartyMalformed(f"The party's answer is longer than {BYTE_CAP // 1024 // 1024} MB.")
                if size > LIGHT and large is None:
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
                isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME for error in causes(problem)):
            return False
        usual = urlsplit(url.replace(self._region, self._party.home(self._account, self._region)))
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
    """Filled by hand: what was signed goes out as it is, not as `prepare` would quote and order it again."""
    prepared = requests.PreparedRequest()
    prepared.method, prepared.url, prepared.body = request.method, request.url, request.body or None
    prepared.headers = CaseInsensitiveDict({"User-Agent": "twocloud", "Accept-Encoding": "gzip", **request.headers})
    if request.body:
        prepared.headers["Content-Length"] = str(len(request.body))
    return prepared


def _names(request: Request, region: str) -> bool:
    """Whether a request is about this region: its address, body or a header holds the code as a word of its own."""
    word = re.compile(rf"(?<![A-Za-z0-9_-]){re.escape(region)}(?![A-Za-z0-9_-])")
    return any(word.search(unquote(text)) for text in (
        request.url, request.body.decode("utf-8", "replace"), *request.headers.values()))
