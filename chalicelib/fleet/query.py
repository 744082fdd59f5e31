"""Query string -> Query: the rules for every parameter, in one table that the OpenAPI document is made from too.

Pure: knows no request, token or store. Errors are InvalidParameter, which names the parameter.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar, cast
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from .. import parties
from ..errors import InvalidParameter
from ..model import IDENTIFIER, MEMBER_ID, Status, Window

MOST = 9_999_999                            # positions and ages have at most seven digits
_MOST_PARAMETERS = 64
T = TypeVar("T", covariant=True)


class Query(msgspec.Struct, frozen=True):
    """A well-formed query. Regions are as the caller spelt them: aliases belong to the party.

    `tenants`, `parties`, `regions`, `accounts` None: all that the token covers. `several`: a parameter is a list or
    `all`; a tenant may have several accounts at the party all the same.
    `changed_since`: Unix time. `parameters`: as received, without f and t.
    """

    tenants: tuple[str, ...] | None
    parties: tuple[str, ...] | None
    regions: tuple[str, ...] | None
    accounts: tuple[str, ...] | None
    window: Window
    ranged: bool                            # f or t was given
    format: str
    port: int | None                        # of Prometheus' targets
    address: str                            # and which: lan, wan
    view: str
    statuses: frozenset[Status] | None
    name: str | None
    ip: str | None
    tag: str | None
    max_age: int | None
    on_error: str
    changed_since: float | None
    parameters: Mapping[str, str]
    list_id: str | None = None              # the X-List-Id of the list that a part is wanted of
    kinds: tuple[str, ...] | None = None    # of changes; None: all

    @property
    def several(self) -> bool:
        named = (self.tenants, self.parties, self.regions, *([self.accounts] if "account" in self.parameters else []))
        return any(words is None or len(words) > 1 for words in named)


class Form(Protocol):
    """The form of a value: how it is read, and its OpenAPI schema."""

    def read(self, text: str) -> Any:
        """Raises ValueError, whose text completes "NAME must be"."""
        ...

    def schema(self) -> dict[str, object]: ...


class Choice(msgspec.Struct, frozen=True):
    words: tuple[str, ...]

    def read(self, text: str) -> str:
        if text not in self.words:
            raise ValueError(f"one of {', '.join(self.words)}")
        return text

    def schema(self) -> dict[str, object]:
        return {"type": "string", "enum": list(self.words)}


class Number(msgspec.Struct, frozen=True):
    lowest: int
    highest: int = MOST

    def read(self, text: str) -> int:
        if not re.fullmatch(r"0|[1-9][0-9]{0,6}", text, re.ASCII) or not self.lowest <= int(text) <= self.highest:
            raise ValueError(f"a whole number from {self.lowest} to {self.highest}, in plain digits")
        return int(text)

    def schema(self) -> dict[str, object]:
        return {"type": "integer", "minimum": self.lowest, "maximum": self.highest}


class Text(msgspec.Struct, frozen=True):
    pattern: str
    takes: str

    def read(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(self.takes)
        return text

    def schema(self) -> dict[str, object]:
        return {"type": "string", "pattern": f"^{self.pattern}$"}


class List(msgspec.Struct, frozen=True):
    """Words separated by commas, or `all`, which is read as None, unless `every` is False. Repeated words count
    once."""

    item: Choice | Text
    takes: str
    every: bool = True
    most: int = 100                         # more than any party has regions, or there are parties

    def read(self, text: str) -> tuple[str, ...] | None:
        if self.every and text == "all":
            return None
        words = text.split(",")
        if len(words) > self.most:
            raise ValueError(f"a list of at most {self.most}")
        if self.every and "all" in words:
            raise ValueError("either all or a list without it")
        try:
            return tuple(dict.fromkeys(self.item.read(word) for word in words))
        except ValueError as takes:
            raise ValueError(f"{takes}, or several separated by commas{', or all' if self.every else ''}") from None

    def schema(self) -> dict[str, object]:
        word = f"({'|'.join(self.item.words)})" if isinstance(self.item, Choice) else f"(?!all(,|$)){self.item.pattern}"
        return {"type": "string", "pattern": f"^({'all|' if self.every else ''}{word}(,{word}){{0,{self.most - 1}}})$"}


class Time:
    def read(self, text: str) -> float:
        match = re.fullmatch(_TIME, text, re.ASCII)
        try:
            if not match:
                raise ValueError
            day, second, fraction, zone = match.groups()
            leap = second == "60"           # Unix time counts a leap second as the next second
            time = datetime.fromisoformat(f"{day}{'59' if leap else second}{zone}".upper()).timestamp()
            if leap and time % 86_400 != 86_399:
                raise ValueError
            time += leap + float(fraction or 0)
            if not 0 <= time < 253_402_300_800:                 # the year 10000
                raise ValueError
            return time
        except (ValueError, OverflowError):
            raise ValueError("an RFC 3339 time such as 2026-11-23T08:00:00Z or 2026-11-23T16:00:00+08:00, without "
                             "spaces") from None

    def schema(self) -> dict[str, object]:
        return {"type": "string", "format": "date-time"}


class Address:
    def read(self, text: str) -> str:
        if "%" in text:
            raise ValueError("an IPv4 or IPv6 address")
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            raise ValueError("an IPv4 or IPv6 address") from None

    def schema(self) -> dict[str, object]:
        return {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}


class Parameter(msgspec.Struct, frozen=True):
    name: str
    form: Form
    text: str                               # for the documents
    required: bool = False
    example: str | int | None = None


FORMATS = ("json", "csv", "ndjson", "prometheus", "ansible")
WHOLE_LISTS = ("prometheus", "ansible")     # formats whose reader drops what it does not find
_TIME = r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:)(\d\d)(\.\d{1,32})?([Zz]|[+-]\d\d:\d\d)"
_ID = Text(IDENTIFIER, "1-64 letters, digits, '.', '_' or '-'")
_LIST_ID = Text("[A-Za-z0-9_-]{1,64}", "1-64 letters, digits, '_' or '-'")
_ACCOUNT = Text(f"{IDENTIFIER}(:{MEMBER_ID})?", "the name of an account (1-64 letters, digits, '.', '_' or '-'), or "
                "NAME:ID of a discovered member")
_TAG = Text("[^\\x00-\\x1f\\x7f-\\x9f\\ufffd=][^\\x00-\\x1f\\x7f-\\x9f\\ufffd]{0,511}",
            "KEY or KEY=VALUE, 1-512 characters without control characters")
_NAME_PART = Text("[^\\x00-\\x1f\\x7f-\\x9f\\ufffd]{1,128}", "1-128 characters without control characters")

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("party", List(Choice(parties.names()), "the name of a party"),
              "The cloud (a party), several separated by commas, or `all`.", True, "qcloud"),
    Parameter("tenant_id", List(_ID, "a tenant"), "The tenant, compared exactly, several separated by "
              "commas, or `all`: every tenant that the token covers and that has an account.", True, "123"),
    Parameter("region", List(_ID, "a region code"), "The party's region code or a known alias of it, several "
              "separated by commas, or `all`. Parties that have no such region are left out.", True, "gz"),
    Parameter("account", List(_ACCOUNT, "an account"), "Names of the tenant's accounts at the party, "
              "separated by commas, or `all` (default). `NAME:ID` is one member that was discovered behind the account "
              "NAME; NAME alone means all of them."),
    Parameter("f", Number(1), "First position wanted, counted from 1. Default: 1.", example=1),
    Parameter("t", Number(1), "Last position wanted, included; at least `f`. Default: to the end.", example=10),
    Parameter("format", Choice(FORMATS), "The format of the answer. Default: json. `prometheus` and `ansible` "
              "always return the whole list with all fields."),
    Parameter("port", Number(1, 65_535), "Only with `format=prometheus`: the port of each target. Default: none."),
    Parameter("address", Choice(("lan", "wan")), "Only with `format=prometheus`: the address of each target. Default: "
              "lan."),
    Parameter("view", Choice(("basic", "full")), "`basic`: the ten fields. `full`: all fields. Default: basic for one "
              "source, full for several."),
    Parameter("status", List(Choice(tuple(Status)), "a status", every=False), "Only servers with this status, or with "
              "one of several separated by commas."),
    Parameter("name", _NAME_PART, "Only servers whose name contains this text, ignoring case."),
    Parameter("ip", Address(), "Only servers with exactly this address."),
    Parameter("tag", _TAG, "Only servers with this tag: `KEY`, or `KEY=VALUE` for exactly this value."),
    Parameter("changed_since", Time(), "Only servers that appeared or changed after this time (RFC 3339); those that "
              "vanished are in `vanished`."),
    Parameter("max_age", Number(0), "Accept a snapshot up to this many seconds old. 0: always query the party."),
    Parameter("on_error", Choice(("stale", "fail", "partial")),
              "If a party fails: `stale` (default) returns its snapshot, marked as stale; `fail` returns the error; "
              "`partial`, only with several sources, returns the other sources' servers."),
    Parameter("list", _LIST_ID, "The `X-List-Id` of an earlier answer to the same query: only a part of that very list "
              "is returned, and no party is queried. 409 if that list is no longer kept."),
)
# How invalid UTF-8 arrives: as a lone surrogate (from our own server, from a shell) or U+FFFD (from API Gateway).
_NO_UTF8 = re.compile("[\\ud800-\\udfff\\ufffd]")
_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
_REFUSED = {
    "token": "Send credentials in the Authorization header only: Basic auth with the token as user name.",
    "password": "Send credentials in the Authorization header only: Basic auth with the token as user name.",
}


def parse(pairs: Sequence[tuple[str, str]]) -> Query:
    """The query of (name, value) pairs in the order they came, percent-decoded. Raises InvalidParameter."""
    texts = once_each(pairs, PARAMETERS)
    values = read_values(texts, PARAMETERS)
    first, last = cast(int, values.get("f", 1)), cast(int | None, values.get("t"))
    if last is not None and last < first:
        raise InvalidParameter("t", "t must not be less than f.")
    _check_format(values)
    statuses = cast(tuple[str, ...] | None, values.get("status"))
    query = Query(
        tenants=values["tenant_id"], parties=values["party"], regions=values["region"], accounts=values.get("account"),
        window=Window(first, last), ranged="f" in values or "t" in values,
        format=values.get("format", "json"), port=values.get("port"), address=values.get("address", "lan"),
        view=values.get("view", ""),
        statuses=frozenset(map(Status, statuses)) if statuses else None, name=values.get("name"),
        ip=values.get("ip"), tag=values.get("tag"),
        max_age=values.get("max_age"), on_error=values.get("on_error", "stale"),
        changed_since=values.get("changed_since"), list_id=values.get("list"),
        parameters={name: texts[name] for name in _BY_NAME if name in texts and name not in ("f", "t")})
    listed = any(words is None or len(words) > 1 for words in (query.tenants, query.parties, query.regions))
    return replace(query, view=query.view or ("full" if listed else "basic"))


def read_values(texts: Mapping[str, str], parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Those of the parameters that are given, read. Raises InvalidParameter, also if a required one is missing."""
    values: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.name in texts:
            try:
                values[parameter.name] = parameter.form.read(texts[parameter.name])
            except ValueError as takes:
                raise InvalidParameter(parameter.name, f"{parameter.name} must be {takes}.") from None
        elif parameter.required:
            raise InvalidParameter(parameter.name, f"{parameter.name} is required.")
    return values


def _check_format(values: Mapping[str, object]) -> None:
    """Refuse parameters that do not fit the format. Only JSON can say what is missing or what vanished."""
    chosen = values.get("format", "json")
    for name in ("port", "address"):
        if name in values and chosen != "prometheus":
            raise InvalidParameter(name, f"Use {name} only with format=prometheus.")
    for name in ("f", "t"):
        if name in values and chosen in WHOLE_LISTS:
            raise InvalidParameter(name, f"format={chosen} always returns the whole list. Leave out {name}.")
    if chosen != "json" and "changed_since" in values:
        raise InvalidParameter("format", "Use changed_since only with format=json; other formats cannot say what "
                                         "vanished.")
    if chosen != "json" and values.get("on_error") == "partial":
        raise InvalidParameter("on_error", "Use on_error=partial only with format=json; other formats cannot say what "
                                           "is missing.")


def once_each(pairs: Sequence[tuple[str, str]], parameters: Sequence[Parameter]) -> dict[str, str]:
    """The pairs by name: of known parameters, each given once. Raises InvalidParameter."""
    names = {parameter.name for parameter in parameters}
    for name, _ in pairs:                   # checked first: no other error may repeat a request with a secret
        if name in _REFUSED:
            raise InvalidParameter(name, _REFUSED[name])
    values: dict[str, str] = {}
    for name, value in pairs[:_MOST_PARAMETERS + 1]:
        if _NO_UTF8.search(value):
            raise InvalidParameter(shown(name), "The value is not valid UTF-8.")
        if name not in names:
            known = ", ".join(parameter.name for parameter in parameters)
            raise InvalidParameter(shown(name), f"Unknown parameter. Parameters: {known}.")
        if name in values:
            raise InvalidParameter(name, f"{name} is given more than once.")
        values[name] = value
    return values


def shown(name: str) -> str:
    """A caller's parameter name if it is harmless to repeat, else `?`."""
    return name if re.fullmatch(r"[A-Za-z0-9_.\[\]-]{1,32}", name, re.ASCII) else "?"


def link(query: Query, window: Window, list_id: str | None = None) -> str:
    """The query string of the same query with another window, of the list with this id if there is one."""
    part = {} if list_id is None else {"list": list_id}
    values = {**query.parameters, **part, "f": window.first, "t": window.last}
    return "&".join(f"{name}={quote(str(value), safe='')}" for name, value in values.items())


def body_limits(body: object) -> tuple[int, tuple[str, ...] | None, tuple[str, ...] | None, tuple[str, ...] | None]:
    """(duration, tenants, parties, regions) of the JSON body of a token request. Raises InvalidParameter."""
    if not isinstance(body, dict):
        raise InvalidParameter("body", "The body must be one JSON object.")
    fields = cast(dict[str, object], body)
    for name in fields:
        if name not in ("duration", "tenants", "parties", "regions"):
            raise InvalidParameter(shown(name), "Unknown key. Keys: duration, tenants, parties, regions.")
    duration = fields.get("duration", 600)
    if isinstance(duration, float) and duration.is_integer():   # in JSON 600.0 is the integer 600
        duration = int(duration)
    if type(duration) is not int or not 60 <= duration <= 43200:
        raise InvalidParameter("duration", "duration must be a whole number of seconds from 60 to 43200.")
    return duration, _words(fields, "tenants"), _words(fields, "parties"), _words(fields, "regions")


def _words(fields: dict[str, object], name: str) -> tuple[str, ...] | None:
    words = fields.get(name)
    if name not in fields:
        return None
    if not isinstance(words, list) or not 0 < len(cast(list[object], words)) <= 100:
        raise InvalidParameter(name, f"{name} must be a list of 1-100 strings.")
    for word in cast(list[object], words):
        if name == "tenants" and word == "*":                   # all tenants, as in the command; tokens.py answers 403
            continue
        if not isinstance(word, str) or not re.fullmatch(IDENTIFIER, word, re.ASCII):
            raise InvalidParameter(name, f"Each entry of {name} must be {_ID.takes}.")
    if name == "parties" and not set(cast(list[str], words)) <= set(parties.names()):
        raise InvalidParameter(name, f"Unknown party. Parties: {', '.join(parties.names())}.")
    return tuple(dict.fromkeys(cast(list[str], words)))
