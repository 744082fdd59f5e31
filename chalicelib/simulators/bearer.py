"""Simulators for the clouds that a bearer token opens.

Checked as the real ones do: the token where each wants it, paths, unknown parameters, the least and most rows of a
page, filters, documented rates. A machine's further disks, and some of its addresses, are only in the lists that the
real clouds have for them.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from .cloud import Cloud
from .faults import Answer
from .fleet import Cursors, Fleet, Machine
from .server import Call, Rate, Simulator


class Refused(Exception):
    """`word`: the cloud's own for it, or the text where it has none."""

    def __init__(self, status: int, word: str) -> None:
        super().__init__(status, word)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: `place` is what the path names (a zone, a server), `query` its words in order."""

    cloud: "Rest"
    call: Call
    place: str
    query: tuple[tuple[str, str], ...]

    def one(self, name: str) -> str | None:
        values = [value for word, value in self.query if word == name]
        if len(values) > 1:
            raise Refused(400, "bad_request")
        return values[0] if values else None

    def many(self, name: str) -> list[str]:
        return [value for word, value in self.query if word == name]

    def number(self, name: str, usual: int, least: int, most: int) -> int:
        text = self.one(name)
        if text is None:
            return usual
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise Refused(400, "invalid_input")
        return int(text)

    def machines(self, *regions: str) -> Iterator[tuple[str, Machine]]:
        for region, fleet in self.cloud.fleets.items():
            if not regions or region in regions:
                yield from ((region, fleet[n]) for n in range(len(fleet)))

    def kept(self, make: Callable[["Ask"], list[Any]], *by: object) -> list[Any]:
        """What `make` makes of the fleets, made once for each `by`: a slow simulator is no measure of anything."""
        key = make, self.place, by
        if key not in self.cloud.kept:
            self.cloud.kept[key] = make(self)
        return self.cloud.kept[key]

    def id(self, region: str, machine: Machine) -> int:
        return (sorted(self.cloud.fleets).index(region) + 1) * 1_000_000 + machine.number


Reply = tuple[object, dict[str, str]]
Route = Callable[[Ask], Reply]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How one cloud is spoken to. `routes`: operation -> (path, its parameters, answer). `token`: in which headers.
    `refusal`: the body of an error. `rate`: calls, in seconds."""

    routes: Mapping[str, tuple[str, str, Route]]
    refusal: Callable[[int, str], object]
    token: Callable[[Mapping[str, str]], str] = lambda headers: _bearer(headers)
    issued: Callable[[str], str] = lambda token: token          # what a login gives for the token
    open: tuple[str, ...] = ()              # operations that need no token
    rate: tuple[int, float] | None = None
    unknown: tuple[int, str] = field(default=(404, "not_found"))


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token if scheme == "Bearer" else ""


class Rest(Simulator):
    """A cloud of this kind. `limited`: its documented rate is enforced."""

    def __init__(self, kind: Kind, token: str, fleets: Mapping[str, Fleet], *, limited: bool = True, port: int = 0,
                 latency: float = 0.0) -> None:
        self.kind = kind
        self.token = token
        self.fleets = dict(fleets)
        self.rate = Rate(*kind.rate) if limited and kind.rate else None
        self.kept: dict[object, list[Any]] = {}
        self.cursors = Cursors()
        super().__init__(port, latency)

    def _route(self, call: Call) -> tuple[str, str]:
        """The operation and the place that the path names."""
        for operation, (path, _, _) in self.kind.routes.items():
            named, _, needed = path.partition("?")
            match = re.fullmatch(named, call.path)
            if match and (not needed or needed in call.query.split("&")):
                return operation, (match.groups() or ("",))[0]
        return "?", ""

    def operation(self, call: Call) -> str:
        return self._route(call)[0]

    def answer(self, call: Call) -> Answer:
        kind = {"Content-Type": "application/json"}
        try:
            body, headers = self._answer(call)
            return Answer(200, {**kind, **headers}, msgspec.json.encode(body))
        except Refused as refused:
            status, word = refused.args
            return Answer(status, kind, msgspec.json.encode(self.kind.refusal(status, word)))

    def _answer(self, call: Call) -> Reply:
        operation, place = self._route(call)
        if operation not in self.kind.open and self.kind.token(call.headers) != self.kind.issued(self.token):
            raise Refused(401, "unauthorized")
        if operation == "?" or call.method != ("POST" if operation == "Login" else "GET"):
            raise Refused(*self.kind.unknown)
        if self.rate and not self.rate.allows("all", call.at):
            raise Refused(429, "rate_limit_exceeded")
        _, words, route = self.kind.routes[operation]
        query = tuple(parse_qsl(call.query, keep_blank_values=True))
        if unknown := {name for name, _ in query} - set(words.split()):
            raise Refused(400, f"unknown parameter {sorted(unknown)}")
        return route(Ask(self, call, place, query))


def numbered(ask: Ask, rows: Sequence[Any], size: str, usual: int, most: int, least: int = 1) -> tuple[list[Any], int]:
    """The page that was asked for, and the number of all rows."""
    rows_of_page, page = ask.number(size, usual, least, most), ask.number("page", 1, 1, 10 ** 6)
    return list(rows[(page - 1) * rows_of_page:page * rows_of_page]), len(rows)


def split_public(machine: Machine) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Public addresses: the machine's own, and those that are listed elsewhere."""
    own = machine.wan[:1] if machine.number % 3 else ()
    return own, machine.wan[len(own):]


def time_text(machine: Machine, form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    return machine.created.strftime(form)


def uuid_of(machine: Machine, n: int) -> str:
    return f"{machine.number:08x}-{n:04x}-4000-8000-{int(machine.key, 36) % 16 ** 12:012x}"


def cloud(kind: Kind, region: str, **more: object) -> Cloud:
    """The simulator of this kind, for CLOUDS. `more`: what its accounts hold beside the token."""
    def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
              latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
        return Rest(kind, secret, fleets, limited=limited, latency=latency), {"token": secret, **more}

    return Cloud(region, start)
