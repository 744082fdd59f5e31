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
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl

import waitress.channel
import waitress.server
import waitress.task

import app
from chalicelib import api, authorizer, journal
from chalicelib.errors import InvalidParameter, MethodNotAllowed, NotFound, TooLarge, TwocloudError, Unauthorized
from chalicelib.inventory import Deployment

_THREADS = 100                              # a hanging party holds some for 25 s; the others go on
_LARGEST_HEAD = 10_240                      # bytes of request line and headers, as API Gateway
_LARGEST_BODY = 10 * 1024 * 1024
_COMPRESS_FROM = 1024                       # minimum_compression_size in .chalice/config.json
_ARN = "arn:aws:execute-api:local:000000000000:local/local"

Headers = list[tuple[str, str]]
Answer = tuple[int, dict[str, str], bytes]


class Server:
    """Bound when made; port 0 is any free one. Raises OSError if it cannot listen there."""

    def __init__(self, deployment: Deployment, host: str, port: int) -> None:
        app.stand_on(deployment)
        for name in ("waitress", "waitress.queue"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # its lines are not ours
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.create_server(where[:2], family=family, backlog=1024)
        there = bound.getsockname()
        self.address = f"[{there[0]}]:{there[1]}" if family == socket.AF_INET6 else f"{there[0]}:{there[1]}"
        self._server: Any = waitress.server.create_server(
            _wsgi, sockets=[bound], threads=_THREADS, ident=None, clear_untrusted_proxy_headers=True,
            max_request_header_size=_LARGEST_HEAD, max_request_body_size=_LARGEST_BODY, channel_timeout=60,
            connection_limit=1000, asyncore_use_poll=True,
            recv_bytes=65_536)                                  # else a head that is too large is reset, not answered
        self._server.channel_class = _Channel

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C."""
        try:
            with until_stopped():
                self.serve()
        finally:
            self.close()

    def serve(self) -> None:
        """Serve until closed from another thread."""
        self._server.run()

    def close(self) -> None:
        """Listen no more; what is under way gets a second to end."""
        self._server.close()
        self._server.task_dispatcher.shutdown(timeout=1)


@contextmanager
def until_stopped() -> Generator[None]:
    """SIGTERM ends what is inside as Ctrl-C does, from its first line on, and neither is an error."""
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    with suppress(KeyboardInterrupt, SystemExit):
        yield


# ---------------------------------------------------------------- one request

def _wsgi(environ: Mapping[str, Any], start_response: Callable[[str, Headers], object]) -> Iterable[bytes]:
    request_id = str(uuid.uuid4())
    method = str(environ["REQUEST_METHOD"])
    headers = {name[5:].replace("_", "-").lower(): str(value)
               for name, value in environ.items() if name.startswith("HTTP_")}
    if "CONTENT_TYPE" in environ:
        headers["content-type"] = str(environ["CONTENT_TYPE"])
    try:
        body = environ["wsgi.input"].read()
        status, answered, content = _gateway(method, environ, headers, body, request_id)
    except TwocloudError as error:
        status, answered, content = _refuse(error, request_id)
        journal.request(request_id=request_id, method=method if method in app.METHODS else "?", status=status,
                        error=error.word)
    except Exception:
        journal.failure(request_id=request_id)
        status, answered, content = _refuse(TwocloudError(), request_id)
    if len(content) >= _COMPRESS_FROM and _takes_gzip(headers.get("accept-encoding", "")):
        content = gzip.compress(content, 6, mtime=0)
        answered["Content-Encoding"] = "gzip"
    if status not in (204, 304):
        answered["Content-Length"] = str(len(content))
    start_response(f"{status} {_REASONS.get(status, 'Error')}", list(answered.items()))
    return [] if method == "HEAD" or status in (204, 304) else [content]


def _gateway(method: str, environ: Mapping[str, Any], headers: dict[str, str], body: bytes, request_id: str) -> Answer:
    path = str(environ["PATH_INFO"]).encode("latin-1").decode("utf-8", "replace")
    route = path.rstrip("/") or "/"
    if route not in api.ROUTES:
        raise NotFound()
    if method not in app.METHODS:
        raise MethodNotAllowed(", ".join(api.ROUTES[route]))
    if route not in api.OPEN_ROUTES and method in api.ROUTES[route]:
        _authorize(method, route, headers)
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
                           "identity": {"sourceIp": environ.get("REMOTE_ADDR")}}}
    answer = app.app(event, None)
    return answer["statusCode"], answer["headers"], answer["body"].encode()


def _authorize(method: str, route: str, headers: Mapping[str, str]) -> None:
    """Ask the authorizer as the gateway does, and obey its policy."""
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
            return
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

class _ErrorTask(waitress.task.ErrorTask):
    """A request that is no proper HTTP or too large gets our envelope, and the connection is closed."""

    request: Any

    def execute(self) -> None:
        code = self.request.error.code
        error = TooLarge() if code == 413 else TwocloudError() if code == 500 else InvalidParameter(
            "request", "The request's head is too large." if code == 431 else "The request cannot be read.")
        request_id = str(uuid.uuid4())
        status, headers, body = _refuse(error, request_id)
        journal.request(request_id=request_id, method="?", status=status, error=error.word)
        self.status = f"{status} {_REASONS[status]}"
        self.response_headers = list(headers.items())
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(waitress.channel.HTTPChannel):
    error_task_class = _ErrorTask
