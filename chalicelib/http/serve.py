"""The app on this machine, refusing and answering as the deployed gateway does.

waitress speaks HTTP; each request becomes the event that API Gateway would send, goes through the authorizer and
the Chalice app as they run in Lambda, and comes back. The gateway's own refusals (unknown path, no credentials, too
large, unreadable) are made here, in the same envelope. Differences: no policy cache, no throttling.
"""

import gzip
import logging
import re
import signal
import socket
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import waitress.task

import app

from .. import log
from ..errors import InvalidParameter, MethodNotAllowed, NotFound, RateLimited, TooLarge, TwocloudError, Unauthorized
from ..fleet.many_sources import REQUEST_SECONDS, Deployment
from . import api, authorizer, connections

_LONGEST_WAIT = 10.0                        # seconds for a thread; the time that is left would do for no listing
_WRONG = 20                                 # passwords at once from one address, then one in _WRONG_SECONDS
_WRONG_SECONDS = 3.0
_CHECKED = 4                                # passwords from one address that are checked or wait for it
_ADDRESSES = 10_000                         # remembered
_FILES = 4096                               # open ones that we may have, if the system lets us
_COMPRESS_FROM = 1024                       # minimum_compression_size in .chalice/config.json
_ARN = "arn:aws:execute-api:local:000000000000:local/local"

Headers = list[tuple[str, str]]
Answer = tuple[int, dict[str, str], bytes]


class Server:
    """Bound when made; port 0 is any free one. Raises OSError if it cannot listen there."""

    def __init__(self, deployment: Deployment, host: str, port: int) -> None:
        app.use(deployment)
        for name in ("waitress", "waitress.queue"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # its lines are not ours
        _allow_files()
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.create_server(where[:2], family=family, backlog=1024)
        there = bound.getsockname()
        self.address = f"[{there[0]}]:{there[1]}" if family == socket.AF_INET6 else f"{there[0]}:{there[1]}"
        self._threads = connections.FairShare()
        self._listener = connections.Listener(partial(_wsgi, _Guesses()), bound, _Channel, self._threads)
        self._looping = threading.Event()

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C."""
        try:
            with until_stopped():
                self.serve()
        finally:
            self.close()

    def serve(self) -> None:
        """Serve until closed from another thread."""
        self._looping.set()
        try:
            self._listener.loop()
        finally:
            self._looping.clear()

    def close(self) -> None:
        """Listen no more; what is under way gets a second to end. Again it does nothing."""
        self._threads.shutdown(timeout=1)
        if self._looping.is_set():
            self._listener.end_soon()
        else:
            self._listener.end()


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


# ---------------------------------------------------------------- guesses of passwords

@dataclass(slots=True)
class _Tries:
    left: float
    at: float
    checked: int = 0


class _Guesses:
    """Wrong passwords by address: a flood from one of them is refused before it costs anything.

    A right password costs nothing of it, so that many users behind one address do not stop each other.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
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
                tries.left = min(_WRONG, tries.left + (not wrong))

    def _begin(self, network: str) -> _Tries:
        now = self._clock()
        with self._lock:
            tries = self._by.setdefault(network, _Tries(_WRONG, now))
            self._by.move_to_end(network)
            if len(self._by) > _ADDRESSES:
                self._by.popitem(last=False)
            tries.left, tries.at = min(_WRONG, tries.left + (now - tries.at) / _WRONG_SECONDS), now
            if tries.checked >= _CHECKED:
                raise RateLimited(1, "Too many passwords from this address are being checked.")
            if tries.left < 1:
                seconds = int((1 - tries.left) * _WRONG_SECONDS) + 1
                raise RateLimited(seconds, "Too many wrong passwords from this address.")
            tries.left -= 1
            tries.checked += 1
            return tries


# ---------------------------------------------------------------- one request

@dataclass(frozen=True, slots=True)
class _Context:
    """What Lambda tells of the time that is left, for a request that arrived at this moment."""

    arrived: float

    def get_remaining_time_in_millis(self) -> float:
        return (self.arrived + REQUEST_SECONDS + app.MARGIN_SECONDS - time.monotonic()) * 1000


def _wsgi(guesses: _Guesses, environ: Mapping[str, Any],
          start_response: Callable[[str, Headers], object]) -> Iterable[bytes]:
    request_id = str(uuid.uuid4())
    method = str(environ["REQUEST_METHOD"])
    headers = {name[5:].replace("_", "-").lower(): str(value)
               for name, value in environ.items() if name.startswith("HTTP_")}
    if "CONTENT_TYPE" in environ:
        headers["content-type"] = str(environ["CONTENT_TYPE"])
    try:
        body = environ["wsgi.input"].read()
        if time.monotonic() - environ["twocloud.arrived"] > _LONGEST_WAIT:
            raise RateLimited(1, "Too many of your requests at once.")
        with _guarded(guesses, method, environ, headers):
            status, answered, content = _gateway(method, environ, headers, body, request_id)
    except _Logged as refused:
        status, answered, content = refused.answer
    except TwocloudError as error:
        status, answered, content = _refuse(error, request_id)
        log.request(request_id=request_id, method=method if method in app.METHODS else "?", status=status,
                        error=error.word)
    except Exception:
        log.failure(request_id=request_id)
        status, answered, content = _refuse(TwocloudError(), request_id)
    if len(content) >= _COMPRESS_FROM and _takes_gzip(headers.get("accept-encoding", "")):
        content = gzip.compress(content, 6, mtime=0)
        answered["Content-Encoding"] = "gzip"
    if status not in (204, 304):
        answered["Content-Length"] = str(len(content))
    start_response(f"{status} {_REASONS.get(status, 'Error')}", list(answered.items()))
    return [] if method == "HEAD" or status in (204, 304) else [content]


class _Logged(Unauthorized):
    """The handler's own 401, where the authorizer had found nothing wrong."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


@contextmanager
def _guarded(guesses: _Guesses, method: str, environ: Mapping[str, Any], headers: Mapping[str, str]) -> Generator[None]:
    """What stands before the path that takes passwords; nothing before any other."""
    if method != "POST" or str(environ["PATH_INFO"]).rstrip("/") != authorizer.TOKENS:
        yield
        return
    api.refuse_other_sites(headers)
    with guesses.try_from(str(environ.get("REMOTE_ADDR", ""))):
        yield


def _gateway(method: str, environ: Mapping[str, Any], headers: dict[str, str], body: bytes, request_id: str) -> Answer:
    path = str(environ["PATH_INFO"]).encode("latin-1").decode("utf-8", "replace")
    route = path.rstrip("/") or "/"
    if route not in api.ROUTES:
        raise NotFound()
    if method not in app.METHODS:
        raise MethodNotAllowed(", ".join(api.ROUTES[route]))
    if route not in api.OPEN_ROUTES and method in api.ROUTES[route]:
        proved = _authorize(method, route, headers)
        if authorizer.PROOF not in proved and "blocked" not in proved:
            environ["twocloud.recognise"]()
    else:
        proved = {}
    # what is not valid UTF-8 becomes lone surrogates, which `query` refuses; waitress takes ASCII only
    pairs = parse_qsl(str(environ["QUERY_STRING"]), keep_blank_values=True, separator="&", errors="surrogateescape")
    many: dict[str, list[str]] = {}
    for name, value in pairs:
        many.setdefault(name, []).append(value)
    event = {
        "resource": route, "path": path, "httpMethod": method, "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": dict(pairs) or None, "multiValueQueryStringParameters": many or None,
        "pathParameters": None, "stageVariables": None, "body": body.decode("utf-8", "replace") or None,
        "isBase64Encoded": False,
        "requestContext": {"resourcePath": route, "httpMethod": method, "path": path, "requestId": request_id,
                           "authorizer": proved,
                           "identity": {"sourceIp": environ.get("REMOTE_ADDR")}}}
    answer = app.app(event, _Context(environ["twocloud.arrived"]))
    found = answer["statusCode"], answer["headers"], answer["body"].encode()
    if found[0] == 401:
        raise _Logged(found)
    return found


def _authorize(method: str, route: str, headers: Mapping[str, str]) -> dict[str, str]:
    """Ask the authorizer as the gateway does, and obey its policy. Its context."""
    given = headers.get("authorization", "")
    if not re.fullmatch(authorizer.HEADER_FORM, given):
        raise Unauthorized()
    arn = f"{_ARN}/{method}{route}"
    try:
        answer = authorizer.authorize({"type": "TOKEN", "authorizationToken": given, "methodArn": arn}, {})
    except Exception as refused:
        if refused.args == (authorizer.UNAUTHORIZED,):
            raise Unauthorized() from None
        raise
    for allowed in answer["policyDocument"]["Statement"][0]["Resource"]:
        if re.fullmatch(re.escape(allowed).replace(r"\*", ".*"), arn):
            return answer.get("context") or {}
    raise Unauthorized()


def _refuse(error: TwocloudError, request_id: str) -> Answer:
    response = api.refused(error, request_id)
    return response.status, response.headers, response.body


def _takes_gzip(accepted: str) -> bool:
    for part in accepted.lower().split(","):
        coding, _, parameters = part.partition(";")
        if coding.strip() in ("gzip", "x-gzip", "*"):
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0{0,3})?\s*", parameters)
    return False


_REASONS = {200: "OK", 204: "No Content", 304: "Not Modified", 400: "Bad Request", 401: "Unauthorized",
            403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large",
            429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable",
            504: "Gateway Timeout"}


# ---------------------------------------------------------------- what waitress itself refuses

_UNREAD = {431: "The request's head is too large.", 400: "The request cannot be read."}


class _ErrorTask(waitress.task.ErrorTask):
    """A request that is no proper HTTP or too large gets our envelope, and the connection is closed."""

    request: Any

    def execute(self) -> None:
        code = self.request.error.code
        error = (TooLarge() if code == 413 else RateLimited(1, "Too many of your requests at once.") if code == 429 else
                 TwocloudError() if code == 500 else InvalidParameter("request", _UNREAD.get(code, _UNREAD[400])))
        request_id = str(uuid.uuid4())
        status, headers, body = _refuse(error, request_id)
        log.request(request_id=request_id, method="?", status=status, error=error.word)
        self.status = f"{status} {_REASONS[status]}"
        self.response_headers = list(headers.items())
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(connections.Channel):
    error_task_class = _ErrorTask
