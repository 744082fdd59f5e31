"""Query a server: one GET with the token, sent to its own host only, with a deadline.

A response that does not come from twocloud is raised as Network.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import click
import msgspec
import requests
from requests.structures import CaseInsensitiveDict

from .. import __version__, log
from ..errors import TwocloudError, Unauthorized
from .contexts import There, on_loopback
from .output import Network, start_log
from .terminal import plain

_SECONDS = 40.0                             # a server answers within 25 s; the rest is the network's
_MOST = 64 * 1024 * 1024                    # bytes


class Answered(TwocloudError):
    """An error that the server returned. `status` decides the exit code; `retry_after`: seconds."""

    def __init__(self, status: int, text: str, code: str = "", request_id: str = "", retry_after: float | None = None,
                 parameter: str | None = None) -> None:
        super().__init__(text)
        # the two are the class's at all other errors; here a server chose them
        self.status = status                # type: ignore[misc]
        self.code = code                    # type: ignore[misc]
        self.request_id = request_id
        self.retry_after = retry_after
        self.parameter = parameter


@dataclass(frozen=True, slots=True)
class Got:
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    milliseconds: float


def get(there: There, path: str, query: str = "", *, with_token: bool = True, seconds: float = _SECONDS) -> Got:
    """The whole response, whatever its status. Raises Network if there is none."""
    if with_token and not there.token:
        raise click.UsageError(f"Set TWOCLOUD_TOKEN to a token of {there.url}, or save both: twocloud context add NAME "
                               f"--url {there.url} --token-stdin")
    if not there.token.isascii() or not there.token.isprintable():
        raise click.UsageError(f"The token for {there.url} is not a valid twocloud token. Was it truncated?")
    start_log()
    host = urlsplit(there.url).hostname or ""
    began = time.monotonic()
    with requests.Session() as session:
        session.get_redirect_target = _nowhere                  # it would read a Location, and fail at a malformed one
        session.trust_env = not on_loopback(host)               # a proxy of http would see the token
        try:
            answer = session.get(f"{there.url}{path}{'?' if query else ''}{query}", timeout=(10, seconds), stream=True,
                                 auth=(there.token, "") if with_token else _nothing, allow_redirects=False,
                                 headers={"User-Agent": f"twocloud/{__version__}"})
            body = _read(answer, began + seconds)
        except requests.RequestException as problem:
            raise Network(f"{there.url} cannot be reached: {_reason(problem, host)}") from None
        except OSError as problem:
            raise Network(f"{there.url} cannot be reached: {problem.strerror or type(problem).__name__}.") from None
    response = Got(answer.status_code, CaseInsensitiveDict(answer.headers), body, (time.monotonic() - began) * 1000)
    log.logger.debug("asked", extra={"fields": {
        "host": host, "path": path, "status": response.status, "milliseconds": round(response.milliseconds, 1),
        "bytes": len(body), "request_id": plain(response.headers.get("X-Request-Id", ""))[:64]}})
    return response


def _nowhere(resp: requests.Response) -> None:
    return None


def _nothing(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Send no credentials, not even from a netrc file."""
    return request


def _read(answer: requests.Response, until: float) -> bytes:
    """Read the body until the deadline: a slow body must not take longer than a silent server."""
    pieces, size = list[bytes](), 0
    try:
        while piece := answer.raw.read1(65_536, decode_content=True):
            pieces.append(piece)
            size += len(piece)
            if time.monotonic() > until:
                raise requests.ReadTimeout
            if size > _MOST:
                raise requests.ConnectionError("body too large")
    except requests.RequestException:
        raise
    except Exception as problem:            # urllib3's, which requests translates in its own reading alone
        raise requests.ConnectionError(problem) from problem
    return b"".join(pieces)


def _reason(problem: requests.RequestException, host: str) -> str:
    """What happened, and what to do."""
    text = _chain(problem)
    if isinstance(problem, requests.exceptions.SSLError) or "SSL" in text:
        verified = "CERTIFICATE_VERIFY_FAILED" in text
        why = next((known for word, known in _CERTIFICATE if word in text),
                   "the authority that signed it is unknown. Set REQUESTS_CA_BUNDLE to a PEM file that holds it")
        return (f"certificate of {host} not trusted: {why}." if verified else
                f"TLS with {host} failed. Does this port serve https?")
    if isinstance(problem, requests.exceptions.ProxyError):
        return "the proxy in HTTPS_PROXY refused the connection."
    if isinstance(problem, requests.Timeout) or "timed out" in text:
        return f"{host} did not answer in time. Check the address, and firewalls on the way."
    if "NameResolution" in text or "gaierror" in text or "Name or service" in text:
        return f"DNS does not know the name {host}."
    if "refused" in text:
        return "connection refused. Check that the server is running, and the port."
    return f"the connection broke ({type(problem).__name__})."


_CERTIFICATE = (("has expired", "it has expired, or this machine's clock is wrong"),
                ("not yet valid", "it is not valid yet, or this machine's clock is wrong"),
                ("ostname mismatch", "it is for another host"), ("IP address mismatch", "it is not for this address"))


def _chain(problem: BaseException | None) -> str:
    texts = list[str]()
    todo: list[object] = [problem]
    while todo and len(texts) < 20:
        error = todo.pop()
        if isinstance(error, BaseException):
            texts.append(f"{type(error).__name__} {error}")
            todo += [error.__cause__, error.__context__, getattr(error, "reason", None), *error.args]
    return " ".join(texts)


def read_json(there: There, response: Got, path: str = "") -> dict[str, Any]:
    """The JSON object of a twocloud response. Raises Answered if it is an error, Network if it is not twocloud's.
    `path`: one that twocloud 0.1.0 does not have, to say so."""
    try:
        body = msgspec.json.decode(response.body, type=dict[str, Any])
        if "X-Request-Id" not in response.headers:
            raise KeyError
        if response.status == 200:
            return body
        error = Answered(response.status, f"{body['msg']} (request id {body['request_id']})", str(body["error"]),
                         str(body["request_id"]), _seconds(response.headers.get("Retry-After")), body.get("parameter"))
    except (ValueError, RecursionError, KeyError, TypeError):
        raise stranger(there, response) from None
    if path and error.code == "not_found":  # of this path
        error = Answered(error.status, f"{there.url} does not know {path}: its twocloud is older than this command.",
                         error.code)
    if error.code == Unauthorized.code:     # whose text is for those who send requests themselves
        whose = "TWOCLOUD_TOKEN" if there.chosen in ("--url", "TWOCLOUD_URL") else there.chosen
        error = Answered(error.status, f"{there.url} does not accept the token of {whose}: it is not valid "
                         f"(unknown, expired or revoked). Use another one. (request id {error.request_id})", error.code,
                         error.request_id)
    raise error


def read_list(there: There, response: Got) -> dict[str, Any]:
    """The same, for a response that holds servers."""
    body = read_json(there, response)
    sources, servers = body.get("sources", []), body.get("vm_servers")
    if "ETag" not in response.headers or not isinstance(body.get("msg"), str) \
            or not are_records(servers, ("instance_id",)) or not are_records(sources, ("party", "region", "state")):
        raise stranger(there, response)
    return body


def are_records(value: object, names: Sequence[str]) -> bool:
    """Whether this is a list of objects with these fields."""
    return isinstance(value, list) and all(
        isinstance(row, dict) and all(name in row for name in names) for row in cast(list[object], value))


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 7 else None


def _host_of(url: str) -> str | None:
    """None also for a URL that is malformed, such as `http://[`."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def stranger(there: There, response: Got) -> Network:
    """The error for a response that is not twocloud's; its text says what it seems to be instead."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    what = f"HTTP {response.status}"
    if 300 <= response.status < 400:
        to = _host_of(response.headers.get("Location", ""))
        elsewhere = f" to {plain(to)[:100]}" if to else ""
        what += f", a redirect{elsewhere}, which is not followed: the token is for this address only"
    elif kind == "text/html":
        what += ", a web page. Perhaps this network requires a login, or the address is wrong"
    return Network(f"{there.url} is not a twocloud server; it answered {what}.")
