"""A list that is too long for one answer of a server, read in parts and joined. All parts are of one list."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from .output import say
from .remote import Answered, Got

PART = 4000                                 # servers of one request
_TRIES = 3                                  # readings, if another list takes the place of the one that is read
_AGE = 120                                  # seconds: what was too long for one answer was kept just now
Pairs = list[tuple[str, str]]
Get = Callable[[Pairs], tuple[Got, str]]    # of a query: the response and the warning beside it; raises Answered


@dataclass(frozen=True, slots=True)
class _Part:
    response: Got
    warning: str


def read(get: Get, pairs: Pairs, output: str) -> tuple[bytes, str]:
    """(the whole body in this format, the warning to print beside it). Raises what `get` raises."""
    for tries in range(1, _TRIES + 1):
        try:
            parts = list(_parts(get, pairs, output))
            return _join([part.response.body for part in parts], output), parts[0].warning
        except Answered as refused:
            if refused.code != "list_changed" or "list" in dict(pairs) or tries == _TRIES:
                raise
            say("The list changed while it was read. Reading it again.")
    raise AssertionError


def _parts(get: Get, pairs: Pairs, output: str) -> Iterator[_Part]:
    values, size, shape = dict(pairs), PART, None
    first, last = int(values.pop("f", 1)), int(values.pop("t", 0)) or None
    if "changed_since" not in values:
        values["max_age"] = str(max(_AGE, int(values.get("max_age", 0))))
    while True:
        end = first + size - 1 if last is None else min(first + size - 1, last)
        try:
            response, warning = get([*values.items(), ("f", str(first)), ("t", str(end))])
        except Answered as refused:
            if refused.status != 413 or size == 1:
                raise
            size //= 2
            continue
        if output == "json" and "list" not in values and shape not in (None, _shape(response.body)):
            raise Answered(409, "The list changed while it was read. Run the command again.", "list_changed")
        shape = _shape(response.body) if output == "json" else None
        if "X-List-Id" in response.headers:
            values["list"] = response.headers["X-List-Id"]
        yield _Part(response, warning)
        if end == last or not _more(response.headers, end):
            return
        first = end + 1


def _more(headers: Mapping[str, str], end: int) -> bool:
    total = headers.get("X-Total-Count", "")
    return end < int(total) if total.isdigit() else 'rel="next"' in headers.get("Link", "")


def _shape(body: bytes) -> object:
    """How long each source's list is: of lists without an id, all that tells one from another."""
    sources: list[dict[str, Any]] = msgspec.json.decode(body).get("sources", [])
    return [(source["party"], source["region"], source.get("account"), source.get("count")) for source in sources]


def _join(bodies: list[bytes], output: str) -> bytes:
    if output == "csv":
        return bodies[0] + b"".join(body.partition(b"\r\n")[2] for body in bodies[1:])
    if output == "ndjson":
        return b"".join(bodies)
    wholes = [msgspec.json.decode(body, type=dict[str, msgspec.Raw]) for body in bodies]
    rows = [row for whole in wholes for row in msgspec.json.decode(whole["vm_servers"], type=list[msgspec.Raw])]
    return msgspec.json.encode({**wholes[0], "vm_servers": rows})
