"""The app on this machine, refusing and answering as the deployed gateway does.

waitress speaks HTTP, `admission` says who is calling as the Lambda authorizer does, `api` answers. The gateway's own
refusals (unknown path, no credentials, too large, unreadable) are made here, in the same envelope. Differences: no
policy cache, no throttling.
"""

import errno
import gzip
import logging
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import waitress.task
from msgspec.structs import replace

from .. import log
from ..errors import InvalidParameter, MethodNotAllowed, NotFound, RateLimited, TooLarge, TwocloudError, Unauthorized
from ..fleet import schedule
from ..fleet.counters import OTHER, Counters
from ..fleet.many_sources import REQUEST_SECONDS, Deployment
from ..storage import store
from . import admission, api, connections

_LONGEST_WAIT = 10.0                        # seconds for a thread; the time that is left would do for no listing
_WRONG_SECONDS = 3.0                        # after which an address may give one more wrong password
_CHECKED = 4                                # passwords from one address that are checked or wait for it
_ADDRESSES = 10_000                         # remembered
_FILES = 4096                               # open ones that we may have, if the system lets us
_LOCAL = "unix:"                            # before the path of a local socket
_BACKLOG = 1024
_COMPRESS_FROM = 1024                       # minimum_compression_size in .chalice/config.json

Headers = list[tuple[str, str]]
Bound = socket.socket                       # that listens


def listen(host: str, port: int) -> Bound:
    """`host`: an address, a name, or unix:PATH; `port`: 0 is any free one. Raises OSError if it cannot listen there."""
    if host.startswith(_LOCAL):
        return _listen_locally(host.removeprefix(_LOCAL))
    family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(where[:2], family=family, backlog=_BACKLOG)


def _listen_locally(path: str) -> Bound:
    """A socket file that owner and group may use. One that a killed server left is replaced."""
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "this system has no such sockets")
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if Path(path).is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as there, suppress(ConnectionRefusedError):
                there.connect(path)
                raise OSError(errno.EADDRINUSE, "another server listens there")
            Path(path).unlink()
        before = os.umask(0o117)            # from its first moment on, no other user can connect
        try:
            bound.bind(path)
        finally:
            os.umask(before)
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


class Server:
    """Bound when made, to `bound` or as `listen` does. Raises OSError if it cannot listen there.

    `address`: what follows http:// in a URL, or unix:PATH. `counters`: those that it shares with other workers.
    """

    def __init__(self, deployment: Deployment, host: str, port: int, bound: Bound | None = None,
                 counters: Counters | None = None) -> None:
        for name in ("waitress", "waitress.queue"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # its lines are not ours
        _allow_files()
        bound = bound or listen(host, port)
        self.address = address_of(bound)
        self._counters, settings = counters or Counters(), deployment.settings
        self._threads = connections.FairShare(settings.limits)
        deployment.transport.observe = self._counters.add_call
        guesses = _Guesses(settings.limits.wrong_passwords)
        self._listener = connections.Listener(partial(_wsgi, deployment, self._counters, guesses), bound,
                                              _Channel, self._threads, settings.limits, settings.trusted_proxies,
                                              settings.cors_origins)
        self._listener.refused = partial(self._counters.add_request, "", OTHER)
        self._looping = threading.Event()
        self._worker = schedule.Worker(deployment)
        deployment.later.send = self._worker.send

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C. What is under way is answered then, nothing new is accepted; a second signal
        ends it at once."""
        def stop(*_: object) -> None:
            if self._listener.draining:
                raise KeyboardInterrupt
            self._listener.drain(REQUEST_SECONDS)

        try:
            with until_stopped(), _handling(stop):
                self.serve()
        finally:
            self.close()
            if self.address.startswith(_LOCAL):
                Path(self.address.removeprefix(_LOCAL)).unlink(missing_ok=True)

    def serve(self) -> None:
        """Serve until closed from another thread."""
        self._looping.set()
        try:
            self._listener.loop()
        finally:
            self._looping.clear()

    def close(self) -> None:
        """Listen no more; what is under way gets a second to end. Again it does nothing."""
        self._worker.close()
        self._counters.close()
        self._threads.shutdown(timeout=1)
        if self._looping.is_set():
            self._listener.end_soon()
        else:
            self._listener.end()


def address_of(bound: Bound) -> str:
    there = bound.getsockname()
    if connections.is_local(bound):
        return f"{_LOCAL}{there}"
    return f"[{there[0]}]:{there[1]}" if bound.family == socket.AF_INET6 else f"{there[0]}:{there[1]}"


def _allow_files() -> None:
    """A thousand connections, and what they call, are more files than many systems let a process open unasked."""
    with suppress(ImportError, OSError, ValueError):
        import resource  # not on Windows

        now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        if now < _FILES and most != now:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, most) if most > 0 else _FILES, most))


@contextmanager
def until_stopped() -> Generator[None]:
    """SIGTERM ends what is inside as Ctrl-C does, from its first line on, and neither is an error."""
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    with suppress(KeyboardInterrupt, SystemExit):
        yield


@contextmanager
def _handling(stop: Callable[..., object]) -> Generator[None]:
    """SIGTERM and Ctrl-C call this while what is inside runs."""
    before = [(number, signal.signal(number, stop)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


# ---------------------------------------------------------------- guesses of passwords

class _Tries(msgspec.Struct):
    remaining: float
    at: float
    checked: int = 0


class _Guesses:
    """Wrong passwords by address: a flood from one of them is refused before it costs anything.

    A right password costs nothing of it, so that many users behind one address do not stop each other.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock, self._lock = most, clock, threading.Lock()
        self._by: OrderedDict[str, _Tries] = OrderedDict()

    @contextmanager
    def try_from(self, address: str) -> Generator[None]:
        """Raises RateLimited. What is inside raises Unauthorized if the password was wrong, whoever found that out."""
        network = connections.network(address)
        tries = self._begin(network)
        wrong = False
        try:
            yield
        except Unauthorized:
            wrong = True
            raise
        finally:
            with self._lock:
                tries.checked -= 1
                tries.remaining = min(self._most, tries.remaining + (not wrong))

    def _begin(self, network: str) -> _Tries:
        now = self._clock()
        with self._lock:
            tries = self._by.setdefault(network, _Tries(self._most, now))
            self._by.move_to_end(network)
            if len(self._by) > _ADDRESSES:
                self._by.popitem(last=False)
            tries.remaining, tries.at = min(self._most, tries.remaining + (now - tries.at) / _WRONG_SECONDS), now
            if tries.checked >= _CHECKED:
                raise RateLimited(1, "Too many passwords from this address are being checked.")
            if tries.remaining < 1:
                seconds = int((1 - tries.remaining) * _WRONG_SECONDS) + 1
                raise RateLimited(seconds, "Too many wrong passwords from this address.")
            tries.remaining -= 1
            tries.checked += 1
            return tries


# ---------------------------------------------------------------- one request

def _wsgi(deployment: Deployment, counters: Counters, guesses: _Guesses, environ: Mapping[str, Any],
          start_response: Callable[[str, Headers], object]) -> Iterable[bytes]:
    request, origins, callers = _read(environ, counters), deployment.settings.cors_origins, list[str]()
    try:
        if time.monotonic() - environ["twocloud.arrived"] > _LONGEST_WAIT:
            raise RateLimited(1, "Too many concurrent requests from this address.")
        with _guarded(guesses, request, origins):
            response = _gateway(deployment, request, environ["twocloud.recognise"], callers)
    except _Logged as refused:
        response = refused.response
    except TwocloudError as error:
        response = api.refused(error, request.request_id, origins, request.headers)
        log.request(request_id=request.request_id, method=request.method if request.method in api.METHODS else "?",
                    status=response.status, client=request.client, error=error.code)
    except Exception:
        log.failure(request_id=request.request_id)
        response = api.refused(TwocloudError(), request.request_id, origins, request.headers)
    counters.add_request(callers[0] if callers else "", _route(request), response.status,
                         time.monotonic() - environ["twocloud.arrived"])
    content, headers = response.body, response.headers
    if len(content) >= _COMPRESS_FROM and _takes_gzip(request.headers.get("accept-encoding", "")):
        content = gzip.compress(content, 6, mtime=0)
        headers["Content-Encoding"] = "gzip"
    if response.status not in (204, 304):
        headers["Content-Length"] = str(len(content))
    start_response(f"{response.status} {_REASONS.get(response.status, 'Error')}", list(headers.items()))
    return [] if request.method == "HEAD" or response.status in (204, 304) else [content]


def _read(environ: Mapping[str, Any], counters: Counters) -> api.HttpRequest:
    """The request as the gateway passes it on."""
    headers = {name[5:].replace("_", "-").lower(): str(value)
               for name, value in environ.items() if name.startswith("HTTP_")}
    if "CONTENT_TYPE" in environ:
        headers["content-type"] = str(environ["CONTENT_TYPE"])
    # what is not valid UTF-8 becomes lone surrogates, which `query` refuses; waitress takes ASCII only
    pairs = parse_qsl(str(environ["QUERY_STRING"]), keep_blank_values=True, separator="&", errors="surrogateescape")
    return api.HttpRequest(
        method=str(environ["REQUEST_METHOD"]),
        path=str(environ["PATH_INFO"]).encode("latin-1").decode("utf-8", "replace"),
        pairs=api.grouped(pairs), headers=headers,
        body=environ["wsgi.input"].read().decode("utf-8", "replace").encode(),
        request_id=str(uuid.uuid4()), deadline=environ["twocloud.arrived"] + REQUEST_SECONDS,
        prefix=environ["twocloud.origin"].prefix, client=environ["twocloud.origin"].address,
        counters=counters)


class _Logged(Unauthorized):
    """The handler's own 401, where nothing was wrong on admission."""

    def __init__(self, response: api.HttpResponse) -> None:
        super().__init__()
        self.response = response


@contextmanager
def _guarded(guesses: _Guesses, request: api.HttpRequest, origins: Collection[str]) -> Generator[None]:
    """What stands before the path that takes passwords; nothing before any other."""
    if request.method != "POST" or request.path.rstrip("/") != admission.TOKENS:
        yield
        return
    api.refuse_other_sites(request.headers, origins)
    with guesses.try_from(request.client):
        yield


def _route(request: api.HttpRequest) -> str:
    route = request.path.rstrip("/")
    return route if route in api.ROUTES else OTHER


def _gateway(deployment: Deployment, request: api.HttpRequest, recognise: Callable[[], None],
             callers: list[str]) -> api.HttpResponse:
    """Raises TwocloudError where the gateway refuses by itself. If a valid token was shown, `recognise` is called and
    its user added to `callers`."""
    if request.path == "/" and request.method in ("GET", "HEAD"):
        log.request(request_id=request.request_id, method=request.method, status=302, client=request.client or None)
        return api.redirected("twocloud/", request.request_id)  # people who type the address alone want the console
    route = _route(request)
    if route == OTHER:
        raise NotFound()
    if request.method not in api.METHODS:
        raise MethodNotAllowed(", ".join(api.ROUTES[route]))
    if route not in api.OPEN_ROUTES and request.method in api.ROUTES[route]:
        admitted = _admit(deployment, request, route)
        if admitted.caller:
            recognise()
            callers.append(admitted.caller.user.name)
        request = replace(request, proof=admitted.proof, caller=admitted.caller)
    with log.about(request_id=request.request_id):
        response = api.answer(lambda: deployment, route, request)
    if response.status == 401:
        raise _Logged(response)
    return response


def _admit(deployment: Deployment, request: api.HttpRequest, route: str) -> admission.Admission:
    header = request.headers.get("authorization", "")
    if not re.fullmatch(admission.HEADER_FORM, header):
        raise Unauthorized()
    with store.within(request.deadline - api.STORE_ENDS):
        return admission.admit(deployment.store, request.method, route, header, deployment.clock())


def _takes_gzip(accepted: str) -> bool:
    for part in accepted.lower().split(","):
        coding, _, parameters = part.partition(";")
        if coding.strip() in ("gzip", "x-gzip", "*"):
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0{0,3})?\s*", parameters)
    return False


_REASONS = {200: "OK", 204: "No Content", 302: "Found", 304: "Not Modified", 400: "Bad Request", 401: "Unauthorized",
            403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 409: "Conflict", 413: "Content Too Large",
            429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable",
            504: "Gateway Timeout"}


# ---------------------------------------------------------------- what waitress itself refuses

_UNREAD = {431: "The request's head is too large.", 400: "The request is malformed."}


class _ErrorTask(waitress.task.ErrorTask):
    """A request that is no proper HTTP or too large gets our envelope, and the connection is closed."""

    request: Any
    channel: Any

    def execute(self) -> None:
        code = self.request.error.code
        error = (TooLarge() if code == 413 else RateLimited(1, "Too many concurrent requests from this "
                                                               "address.") if code == 429 else
                 TwocloudError() if code == 500 else InvalidParameter("request", _UNREAD.get(code, _UNREAD[400])))
        request_id = str(uuid.uuid4())
        listener: Any = self.channel.server
        response = api.refused(error, request_id, listener.origins, connections.headers_of(self.request))
        log.request(request_id=request_id, method="?", status=response.status, error=error.code)
        self.channel.server.refused(response.status, time.monotonic() - self.channel.turn.arrived)
        self.status = f"{response.status} {_REASONS[response.status]}"
        self.response_headers = list(response.headers.items())
        self.set_close_on_finish()
        self.content_length = len(response.body)
        self.write(response.body)


class _Channel(connections.Channel):
    error_task_class = _ErrorTask
