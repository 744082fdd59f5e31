"""Asks a server: one GET with the token, to its own host alone, within a time. What is no answer of ours is Network."""

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
from ..errors import TwocloudError
from .contexts import There, on_loopback
from .output import Network, start_journal
from .terminal import plain

_SECONDS = 40.0                             # a server answers within 25 s; the rest is the network's
_MOST = 64 * 1024 * 1024                    # bytes


class Answered(TwocloudError):
    """A server's own error, told again. `status` decides the exit code; `retry_after`: seconds."""

    def __init__(self, status: int, text: str, word: str = "", request_id: str = "", retry_after: float | None = None,
                 parameter: str | None = None) -> None:
        super().__init__(text)
        self.status = status                # type: ignore[misc]
        self.word = word                    # type: ignore[misc]
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
    """Whatever it answers, in whole. Raises Network."""
    if with_token and not there.token:
        raise click.UsageError(f"Set TWOCLOUD_TOKEN to a token of {there.url}, or keep both: twocloud context add NAME "
                               f"--url {there.url} --token-stdin")
    if not there.token.isascii() or not there.token.isprintable():
        raise click.UsageError(f"What is set as the token of {there.url} is none. Was it copied whole?")
    start_journal()
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
            raise Network(f"{there.url} cannot be asked: {_reason(problem, host)}") from None
        except OSError as problem:
            raise Network(f"{there.url} cannot be asked: {problem.strerror or type(problem).__name__}.") from None
    got = Got(answer.status_code, CaseInsensitiveDict(answer.headers), body, (time.monotonic() - began) * 1000)
    log.logger.debug("asked", extra={"fields": {
        "host": host, "path": path, "status": got.status, "milliseconds": round(got.milliseconds, 1),
        "bytes": len(body), "request_id": plain(got.headers.get("X-Request-Id", ""))[:64]}})
    return got


def _nowhere(resp: requests.Response) -> None:
    return None


def _nothing(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """No credentials, not from a netrc file either."""
    return request


def _read(answer: requests.Response, until: float) -> bytes:
    """A server that drips does not hold us longer than one that is silent."""
    pieces, size = list[bytes](), 0
    try:
        while piece := answer.raw.read1(65_536, decode_content=True):
            pieces.append(piece)
            size += len(piece)
            if time.monotonic() > until:
                raise requests.ReadTimeout
            if size > _MOST:
                raise requests.ConnectionError("too long")
    except requests.RequestException:
        raise
    except Exception as problem:            # urllib3's, which requests translates in its own reading alone
        raise requests.ConnectionError(problem) from problem
    return b"".join(pieces)


def _reason(problem: requests.RequestException, host: str) -> str:
    """What happened, and what to look at."""
    text = _chain(problem)
    if isinstance(problem, requests.exceptions.SSLError) or "SSL" in text:
        verified = "CERTIFICATE_VERIFY_FAILED" in text
        why = next((known for word, known in _CERTIFICATE if word in text),
                   "no authority that is trusted here signed it (REQUESTS_CA_BUNDLE names a file of others)")
        return (f"the certificate of {host} is refused: {why}." if verified else
                f"TLS with {host} failed; is it https that is spoken there?")
    if isinstance(problem, requests.exceptions.ProxyError):
        return "the proxy of HTTPS_PROXY does not let us through."
    if isinstance(problem, requests.Timeout) or "timed out" in text:
        return f"{host} did not answer in time. Is it the right address, and is a firewall between?"
    if "NameResolution" in text or "gaierror" in text or "Name or service" in text:
        return f"the name {host} cannot be looked up."
    if "refused" in text:
        return "nothing listens there. Is the server up, and the port right?"
    return f"the connection broke ({type(problem).__name__})."


_CERTIFICATE = (("has expired", "it has expired, or this machine's clock is wrong"),
                ("not yet valid", "it is not valid yet, or this machine's clock is wrong"),
                ("ostname mismatch", "it is another host's"), ("IP address mismatch", "it is not for this address"))


def _chain(problem: BaseException | None) -> str:
    found = list[str]()
    todo: list[object] = [problem]
    while todo and len(found) < 20:
        error = todo.pop()
        if isinstance(error, BaseException):
            found.append(f"{type(error).__name__} {error}")
            todo += [error.__cause__, error.__context__, getattr(error, "reason", None), *error.args]
    return " ".join(found)


def read_json(there: There, got: Got) -> dict[str, Any]:
    """The JSON object of an answer of ours. Raises Answered for an error of it, Network if it is none of ours."""
    try:
        body = msgspec.json.decode(got.body, type=dict[str, Any])
        if "X-Request-Id" not in got.headers:
            raise KeyError
        if got.status == 200:
            return body
        error = Answered(got.status, f"{body['msg']} (request id {body['request_id']})", str(body["error"]),
                         str(body["request_id"]), _seconds(got.headers.get("Retry-After")), body.get("parameter"))
    except (msgspec.DecodeError, KeyError, TypeError):
        raise stranger(there, got) from None
    raise error


def read_list(there: There, got: Got) -> dict[str, Any]:
    """The same for an answer that holds servers."""
    body = read_json(there, got)
    sources, servers = body.get("sources", []), body.get("vm_servers")
    if "ETag" not in got.headers or not isinstance(body.get("msg"), str) or not are_records(servers, ("instance_id",)) \
            or not are_records(sources, ("party", "region", "state")):
        raise stranger(there, got)
    return body


def are_records(found: object, names: Sequence[str]) -> bool:
    """Whether this is a list of objects with these fields."""
    return isinstance(found, list) and all(
        isinstance(row, dict) and all(name in row for name in names) for row in cast(list[object], found))


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 7 else None


def _host_of(url: str) -> str | None:
    """None also for a URL that is malformed, such as `http://[`."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def stranger(there: There, got: Got) -> Network:
    """What answered is no twocloud; what it is instead, as far as can be seen."""
    kind = got.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    what = f"HTTP {got.status}"
    if 300 <= got.status < 400:
        to = _host_of(got.headers.get("Location", ""))
        elsewhere = f" to {plain(to)[:100]}" if to else ""
        what += f", a redirect{elsewhere}, which is not followed: the token is for this address alone"
    elif kind == "text/html":
        what += ", a web page: perhaps this network asks for a login first, or the address is another site's"
    return Network(f"{there.url} is no twocloud server; it answered {what}.")
