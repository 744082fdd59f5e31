"""The border of errors: what an exception of the network, or a party's refusal, means in the words of errors.py."""

import http.client
import re
import socket
import ssl
import time
import zlib
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import requests
import urllib3

from ..errors import (
    FAILED,
    Meaning,
    PartyDenied,
    PartyError,
    PartyFailed,
    PartyMalformed,
    PartyThrottled,
    PartyTimeout,
    PartyUnavailable,
    PartyUnreachable,
    UnknownRegion,
    cause_of,
)
from ..model import Response
from .party import Party


def failure_of(problem: Exception, *, answered: bool, ignored_proxy: str = "") -> Exception:
    """What an exception of the network stack means: the first row that fits it or what caused it.

    `answered`: the head of an answer had arrived, so that whatever breaks then has cut the answer short.
    `ignored_proxy`: the variable of the environment that names a proxy which is not used.
    An exception that is not the network's is returned as it is: that is our own fault.
    """
    if isinstance(problem, PartyError):
        return problem
    for error in causes(problem):
        if isinstance(error, ssl.SSLCertVerificationError):
            return PartyUnreachable(_untrusted(error))
        if isinstance(error, _UNKNOWN_NAME) and ignored_proxy:
            return PartyUnavailable(f"The party's host name cannot be looked up. {ignored_proxy} is set but not used: "
                                    "set TWOCLOUD_PROXY, or pass `--proxy` to `twocloud account put`.")
        for kinds, failure, text in _NETWORK:
            if isinstance(error, kinds):
                if answered and failure is PartyUnavailable:
                    return PartyMalformed("The party's answer was cut short.")
                return failure(text)
    return problem


def causes(problem: BaseException) -> list[BaseException]:
    """The innermost cause first. requests and urllib3 hide it in `args` and `reason` as well."""
    chain: list[BaseException] = []
    todo: list[object] = [problem]
    while todo and len(chain) < 20:
        error = todo.pop()
        if isinstance(error, BaseException) and error not in chain:
            chain.append(error)
            todo += [error.__context__, error.__cause__, getattr(error, "reason", None), *error.args]
    return chain[::-1]


def _untrusted(error: ssl.SSLCertVerificationError) -> str:
    code = getattr(error, "verify_code", 0)                     # of OpenSSL: X509_V_ERR_...
    if code in (2, 18, 19, 20, 21, 24, 27):
        return ("The party's certificate is not signed by a known authority. Pass that authority's PEM file to "
                "`twocloud account put` with `--ca-file`, or set TWOCLOUD_CA_FILE.")
    if code in (62, 64):
        return ("The party's certificate is for another host name. Use a name that the certificate holds, in "
                "`--endpoint` or in the credentials.")
    if code in (9, 10):
        return ("The party's certificate has expired or is not valid yet. Renew it there, and check this machine's "
                "clock.")
    return f"The party's certificate is not trusted (OpenSSL's code {code})."


_UNKNOWN_NAME = (socket.gaierror, urllib3.exceptions.NameResolutionError)
_NETWORK: tuple[tuple[tuple[type[BaseException], ...], type[PartyError], str], ...] = (
    ((TimeoutError, urllib3.exceptions.TimeoutError, requests.Timeout), PartyTimeout, ""),
    (_UNKNOWN_NAME,
     PartyUnavailable, "DNS does not know the party's host name, or did not answer. Retry later."),
    ((ssl.SSLError, urllib3.exceptions.SSLError, requests.exceptions.SSLError),
     PartyUnavailable, "The TLS connection to the party failed."),
    ((http.client.RemoteDisconnected, ConnectionRefusedError), PartyUnavailable, ""),
    ((http.client.IncompleteRead, urllib3.exceptions.IncompleteRead, urllib3.exceptions.InvalidChunkLength),
     PartyMalformed, "The party's answer was cut short or badly framed."),
    ((http.client.HTTPException, zlib.error, urllib3.exceptions.DecodeError,
      urllib3.exceptions.BodyNotHttplibCompatible,
      urllib3.exceptions.ResponseNotChunked, urllib3.exceptions.InvalidHeader, urllib3.exceptions.HeaderParsingError,
      requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError,
      requests.exceptions.InvalidHeader),
     PartyMalformed, "The party's answer is not valid HTTP."),
    ((OSError, urllib3.exceptions.HTTPError, requests.RequestException), PartyUnavailable, ""),
)


def failure_in(party: Party, response: Response, about_region: bool = True) -> PartyError | UnknownRegion | None:
    """The error that a response holds: from the party's own error code first, else from the HTTP status; None if none.

    `about_region`: the request named the region that is listed. If it did not, no answer to it says that this region
    does not exist.
    """
    code = party.error_code(response)
    if code is None and 200 <= response.status < 300:
        return None
    meaning = _meaning_of(party, code) or _by_status(response.status)
    kind = meaning.error
    if issubclass(kind, UnknownRegion):
        if about_region:
            return UnknownRegion(f"{party.title} has no such region, or it is not open to this account.")
        meaning, kind = FAILED, PartyFailed
    shown = code if code and re.fullmatch(r"[A-Za-z0-9._-]{1,100}", code) else ""
    text = kind.default
    if detail := "; ".join(filter(None, (shown or f"HTTP {response.status}", meaning.hint))):
        text = f"{text} ({detail})"
    return kind(text, party_code=shown, hint=meaning.hint,
                retry_after=_retry_after(response.headers), http_status=response.status)


def _meaning_of(party: Party, code: str | None) -> Meaning | None:
    if code is None:
        return None
    return party.errors.get(code) or cause_of(code) or party.errors.get(code.split(".", 1)[0])


def _by_status(status: int) -> Meaning:
    if status in (401, 403):
        return Meaning(PartyDenied)
    if status == 429:
        return Meaning(PartyThrottled)
    if status in (502, 503, 504):
        return Meaning(PartyUnavailable)
    if status >= 500 or 200 <= status < 300:                    # 200 with an error code that is not in the table
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
