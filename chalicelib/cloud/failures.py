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
    UnknownRegion,
    cause_of,
)
from ..model import Response
from .party import Party


def failure_of(problem: Exception, *, answered: bool) -> Exception:
    """What an exception of the network stack means: the first row that fits it or what caused it.

    `answered`: the head of an answer had arrived, so that whatever breaks then has cut the answer short.
    An exception that is not the network's is returned as it is: that is our own fault.
    """
    if isinstance(problem, PartyError):
        return problem
    for error in causes(problem):
        for kinds, failure, text in _NETWORK:
            if isinstance(error, kinds):
                if answered and failure is PartyUnavailable:
                    return PartyMalformed("The party's answer was cut short.")
                return failure(text)
    return problem


def causes(problem: BaseException) -> list[BaseException]:
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
     PartyUnavailable, "DNS does not know the party's host name, or did not answer. Retry later."),
    ((ssl.SSLError, urllib3.exceptions.SSLError, requests.exceptions.SSLError),
     PartyUnavailable, "The TLS connection to the party failed, or its certificate is not trusted."),
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
    """The error that an answer holds, from the party's own word first, from the HTTP status else; None if none.

    `about_region`: the request named the region that is listed. If it did not, no answer to it says that this region
    does not exist.
    """
    word = party.error_code(response)
    if word is None and 200 <= response.status < 300:
        return None
    meaning = _meaning_of(party, word) or _by_status(response.status)
    kind = meaning.error
    if issubclass(kind, UnknownRegion):
        if about_region:
            return UnknownRegion(f"{party.title} has no such region, or it is not open to this account.")
        meaning, kind = FAILED, PartyFailed
    shown = word if word and re.fullmatch(r"[A-Za-z0-9._-]{1,100}", word) else ""
    text = kind.default
    if detail := "; ".join(filter(None, (shown or f"HTTP {response.status}", meaning.hint))):
        text = f"{text} ({detail})"
    return kind(text, party_code=shown, hint=meaning.hint,
                retry_after=_retry_after(response.headers), http_status=response.status)


def _meaning_of(party: Party, word: str | None) -> Meaning | None:
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
