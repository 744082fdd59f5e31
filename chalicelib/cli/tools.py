"""The tools of `twocloud mcp`: what an assistant can look up, each answer with how complete and how old it is.

They know nothing of the protocol. They read from the store or from a server, as the other commands do, and change
nothing. Their schemas are made from the OpenAPI document.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import click
import msgspec

from .. import log
from ..errors import InvalidParameter, PartyError, RateLimited, TwocloudError
from . import changes, contexts, servers
from .expiring import Expiring
from .output import Duration, Network, deployment

LARGEST = 40_000                            # bytes of rows in one answer; an assistant must read them all
_USUAL, _MOST = 50, 200                     # rows of one answer
_MAX_AGE = 300                              # seconds: assistants repeat their questions
_PROBLEMS = 20                              # sources that an answer names; it counts the others
_SHOWN = ("tenant_id", "party", "account", "region", "instance_id", "instance_name", "status", "instance_type",
          "cpu_num", "mem_size", "disk_size", "lan_ip_set", "wan_ip_set", "create_at", "charge_type", "expires_at")
_SURROGATE = re.compile("[\\ud800-\\udfff]")                 # alone it is no text
_SOURCE = ("tenant_id", "party", "account", "region")

Arguments = Mapping[str, Any]
Record = dict[str, Any]
Pairs = list[tuple[str, str]]
There = contexts.There | None               # None: the store on this machine


@dataclass(frozen=True, slots=True)
class Tool:
    """`inputs`, `outputs`: JSON Schema of the properties."""

    name: str
    title: str
    text: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    answer: Callable[[There, Arguments], Record] = field(repr=False)
    required: tuple[str, ...] = ()

    def input_schema(self) -> Record:
        return {"type": "object", "properties": self.inputs, "required": list(self.required),
                "additionalProperties": False}

    def output_schema(self) -> Record:
        return {"type": "object", "properties": self.outputs, "required": list(self.outputs)}


def run(tool: Tool, there: There, arguments: Arguments) -> tuple[Record, bool]:
    """(the answer, or what went wrong in the API's words; whether it went wrong)."""
    try:
        return tool.answer(there, _checked(tool, arguments)), False
    except TwocloudError as error:
        known = type(error).status != 500 or "status" in vars(error)            # a server's has its own
        return _refusal(error.code, error.text if known else TwocloudError.default,
                        parameter=getattr(error, "parameter", None), request_id=getattr(error, "request_id", None),
                        retry_after=_retry_after(error)), True
    except Network as problem:
        return _refusal("network", problem.message), True
    except click.UsageError as wrong:
        return _refusal("usage", wrong.message), True
    except Exception:
        log.failure(tool=tool.name)
        return _refusal(TwocloudError.code, TwocloudError.default), True


def _refusal(error: str, text: str, **more: object) -> Record:
    return {"error": error, "msg": text, **{name: value for name, value in more.items() if value is not None}}


def _retry_after(error: TwocloudError) -> float | None:
    from ..http import formats

    if isinstance(error, PartyError):
        return formats.retry_after(error) if error.status == 503 else None
    return error.retry_after if isinstance(error, RateLimited) else getattr(error, "retry_after", None)


def _checked(tool: Tool, arguments: Arguments) -> Arguments:
    """Without those that are null. Raises InvalidParameter for others than the tool has."""
    from ..fleet.query import shown

    for name in arguments:
        if name not in tool.inputs:
            raise InvalidParameter(shown(name), f"Unknown argument. Arguments: {', '.join(tool.inputs)}.")
    values = {name: value for name, value in arguments.items() if value is not None}
    for name, value in values.items():
        wanted = tool.inputs[name].get("type", "string")
        if not isinstance(value, {"integer": int, "array": list}.get(wanted, str)) or isinstance(value, bool):
            raise InvalidParameter(name, f"{name} must be of type {wanted}.")
        if isinstance(value, str) and _SURROGATE.search(value):
            raise InvalidParameter(name, "The value is not valid UTF-8.")
    for name in tool.required:
        if name not in values:
            raise InvalidParameter(name, f"{name} is required.")
    return values


# ---------------------------------------------------------------- what bounds an answer

@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one answer and how to get those that follow. `total`: None if it is not known."""

    rows: list[Record]
    first: int
    total: int | None
    more: bool

    def fields(self, name: str, next_: Record | None = None) -> Record:
        end = self.first + len(self.rows)
        follow = {"f": end, **(next_ or {})} if self.more else None
        left_out = "" if not self.more else (
            f"{'More' if self.total is None else self.total - end + 1} rows follow. Call the tool again with the same "
            "arguments and those in `next`.")
        return {name: self.rows, "returned": len(self.rows), "total": self.total, "left_out": left_out, "next": follow}


def _bounded(rows: Iterable[Record], first: int, total: int | None, *, more: bool = False) -> _Part:
    """As many of the rows as one answer may hold. `more`: whether others follow these."""
    taken, size = list[Record](), 0
    for row in rows:
        size += len(msgspec.json.encode(row)) + 1
        if taken and size > LARGEST:
            more = True
            break
        taken.append(row)
    return _Part(taken, first, total, more or (total is not None and first + len(taken) - 1 < total))


def _window(arguments: Arguments) -> tuple[int, int]:
    """(first position, how many rows)."""
    first, limit = arguments.get("f", 1), arguments.get("limit", _USUAL)
    if first < 1:
        raise InvalidParameter("f", "f must be a whole number from 1.")
    if not 1 <= limit <= _MOST:
        raise InvalidParameter("limit", f"limit must be a whole number from 1 to {_MOST}.")
    return first, limit


# ---------------------------------------------------------------- how sure

def _certainty(sources: Sequence[Mapping[str, Any]], **more: object) -> Record:
    """What can be relied on. `sources`: rows with the four names, state, age, error and msg."""
    states = Counter[str](row["state"] for row in sources)
    ages = [row["age"] for row in sources if row.get("age") is not None]
    bad = [{name: row.get(name) for name in (*_SOURCE, "state", "age", "error", "msg")}
           for row in sources if row["state"] != "ok"]
    oldest = max(ages, default=None)
    return {"complete": not states["failed"], "sources": len(sources),
            **{name: states[name] for name in ("ok", "stale", "failed")}, "oldest_age": oldest,
            "problems": bad[:_PROBLEMS], "problems_left_out": max(0, len(bad) - _PROBLEMS), **more,
            "text": _in_words(states, oldest)}


def _in_words(states: Counter[str], oldest: float | None) -> str:
    count, missing = states.total(), states["failed"]
    if not count:
        return "No source is known."
    text = "The source is in this answer." if count == 1 else f"All {count} sources are in this answer."
    if missing:
        text = f"{missing} of {count} sources gave nothing, so servers are missing: `problems` says of which."
    if states["stale"]:
        text += f" {states['stale']} could not be listed now and show their last snapshot."
    return text if oldest is None else f"{text} The oldest list is {oldest:.0f} s old."


_CERTAINTY: Record = {
    "type": "object", "description": "How sure this answer is; state it to the reader.", "properties": {
        "complete": {"type": "boolean", "description": "false: some sources gave nothing, so rows are missing."},
        "sources": {"type": "integer"}, "ok": {"type": "integer"}, "stale": {"type": "integer"},
        "failed": {"type": "integer"},
        "oldest_age": {"type": ["number", "null"], "description": "Seconds since the oldest list was received from its "
                                                                  "cloud; null: no list."},
        "problems": {"type": "array", "items": {"type": "object"},
                     "description": "The sources that are stale or failed, each with its error word."},
        "problems_left_out": {"type": "integer"},
        "may_expire_too": {"type": "integer", "description": "Servers beside these that may end too: their cloud does "
                                                             "not say whether or when."},
        "text": {"type": "string"}},
    "required": ["complete", "sources", "oldest_age", "problems", "text"]}


def _paged(name: str, item: Record) -> Record:
    return {name: {"type": "array", "items": item},
            "returned": {"type": "integer"},
            "total": {"type": ["integer", "null"], "description": "Rows of the whole answer; null: not known."},
            "left_out": {"type": "string", "description": "What this answer leaves out; empty: nothing."},
            "next": {"type": ["object", "null"], "description": "Arguments that get the rows that follow."},
            "certainty": _CERTAINTY,
            "at": {"type": "string", "description": "When this was answered, in UTC."}}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# ---------------------------------------------------------------- servers

def _list_servers(there: There, arguments: Arguments) -> Record:
    first, limit = _window(arguments)
    names = _fields(arguments.get("fields"))
    expiring = _expiring(there, arguments)
    own = ("f", "limit", "fields", "expires_within", "expires_before")
    values = {"tenant_id": "all", "party": "all", "region": "all", "account": "all", "max_age": str(_MAX_AGE),
              **{name: str(value) for name, value in arguments.items() if name not in own}, "view": "full"}
    several = any(values[name] == "all" or "," in values[name] for name in _SOURCE)
    if several:
        values.setdefault("on_error", "partial")
    pairs = list(values.items())
    if expiring:
        body, headers = _whole(there, pairs)
        rows, _ = expiring.filter(body["vm_servers"], body.get("sources", ()), datetime.now(UTC))
        part = _bounded([_row(row, names) for row in rows[first - 1:first - 1 + limit]], first, len(rows))
        more: Record = {"may_expire_too": expiring.unknown}
        follow: Record = {}
    else:
        body, headers = _range(there, [*pairs, ("f", str(first)), ("t", str(first + limit - 1))])
        counted = headers.get("X-Total-Count", "")
        total = int(counted) if counted.isdigit() else None
        part = _bounded((_row(row, names) for row in body["vm_servers"]), first, total,
                        more=total is None and len(body["vm_servers"]) == limit)
        more, follow = {}, {"list": headers["X-List-Id"]} if "X-List-Id" in headers else {}
    sources = body.get("sources") or [_only_source(values, headers, body["msg"])]
    certainty = _certainty(sources, **more)
    if expiring and expiring.unknown:
        certainty["text"] += (f" {expiring.unknown} more servers may end too: their cloud does not say whether or "
                              "when.")
    return {**part.fields("vm_servers", follow), "certainty": certainty, "at": _now()}


def _only_source(values: Mapping[str, str], headers: Mapping[str, str], text: str) -> Record:
    """The source of an answer over one, which has no `sources`: its state is in the headers."""
    _, failed, error = headers.get("Cache-Status", "").partition("; detail=")
    age = headers.get("Age", "0")
    return {**{name: values[name] for name in _SOURCE}, "state": "stale" if failed else "ok",
            "age": int(age) if age.isdigit() else None, "error": error, "msg": text}


def _expiring(there: There, arguments: Arguments) -> Expiring | None:
    from ..fleet.query import Time

    within, before = arguments.get("expires_within"), arguments.get("expires_before")
    if within is not None and before is not None:
        raise InvalidParameter("expires_before", "Give expires_within or expires_before, not both.")
    if within is not None:
        try:
            seconds = Duration().convert(within, None, None)
        except click.UsageError as wrong:
            raise InvalidParameter("expires_within", f"expires_within {wrong.message}.") from None
    elif before is not None:
        try:
            seconds = round(Time().read(before) - datetime.now(UTC).timestamp())
        except ValueError as takes:
            raise InvalidParameter("expires_before", f"expires_before must be {takes}.") from None
    else:
        return None
    if "list" in arguments:
        raise InvalidParameter("list", "A list of servers that end soon is read as a whole. Leave out list.")
    return Expiring(seconds, None if there else deployment().settings.timezone)


def _fields(wanted: Any) -> tuple[str, ...]:
    from ..http.formats.rows import FullRow

    if wanted is None:
        return _SHOWN
    for name in wanted:
        if name != "all" and name not in FullRow.__struct_fields__:
            raise InvalidParameter("fields", f"Unknown field. Fields: all, {', '.join(FullRow.__struct_fields__)}.")
    return FullRow.__struct_fields__ if "all" in wanted else tuple(dict.fromkeys(("instance_id", *wanted)))


def _row(row: Mapping[str, Any], names: Sequence[str]) -> Record:
    return {name: row[name] for name in names if name in row}


def _range(there: There, pairs: Pairs) -> tuple[Record, Mapping[str, str]]:
    """(the answer to a query with f and t, its headers)."""
    from . import remote  # slow to import

    if not there:
        return _from_store(pairs, continued=True)
    response = remote.get(there, "/twocloud/servers", urlencode(pairs, errors="surrogateescape"))
    return remote.read_list(there, response), response.headers


def _whole(there: There, pairs: Pairs) -> tuple[Record, Mapping[str, str]]:
    """(the whole answer, of any length, the headers of its first part)."""
    if not there:
        return _from_store(pairs)
    responses = list[Mapping[str, str]]()
    body, _ = servers.ask(there, pairs, "json", lambda response: responses.append(response.headers))
    return msgspec.json.decode(body), responses[0]


def _from_store(pairs: Pairs, *, continued: bool = False) -> tuple[Record, Mapping[str, str]]:
    from ..fleet import many_sources, query
    from ..fleet.lookup import Lookup
    from ..http import api, formats

    request, here = query.parse(pairs), deployment()
    fleet = many_sources.answer(Lookup(here, api.freshness_of(request, "", here.settings), query=request,
                                       continued=continued))
    body = msgspec.json.encode(formats.body(fleet, request, here.settings.timezone))
    return msgspec.json.decode(body), api.list_headers(fleet)


# ---------------------------------------------------------------- changes

def _list_changes(there: There, arguments: Arguments) -> Record:
    first, limit = _window(arguments)
    values = {"tenant_id": "all", **{name: str(value) for name, value in arguments.items() if name != "limit"},
              "f": str(first), "t": str(first + limit - 1)}
    whole = changes.read_part(there, list(values.items()))
    total = sum(row["count"] or 0 for row in whole["sources"])
    part = _bounded(whole["changes"], first, total)
    certainty = _certainty(whole["sources"])
    return {**part.fields("changes"), "certainty": certainty, "at": _now()}


# ---------------------------------------------------------------- sources

def _list_sources(there: There, arguments: Arguments) -> Record:
    first, limit = _window(arguments)
    rows = [row for row in _sources(there) if all(
        str(row[name]) in wanted.split(",") for name, wanted in arguments.items()
        if name in (*_SOURCE, "state") and wanted != "all")]
    by_state, by_status = Counter(row["state"] for row in rows), Counter[str]()
    for row in rows:
        by_status.update(row["by_status"])
    part = _bounded(rows[first - 1:first - 1 + limit], first, len(rows))
    judged = [{**row, "state": "ok" if row["state"] == "ok" else "failed" if row["age"] is None else "stale",
               "msg": ""} for row in rows]
    return {**part.fields("sources"), "by_state": dict(by_state), "servers": by_status.total(),
            "servers_by_status": dict(by_status), "certainty": _certainty(judged), "at": _now()}


def _sources(there: There) -> list[Record]:
    """The state of each, as Prometheus would read it. No cloud is queried."""
    from ..http import metrics

    return metrics.read_sources(_metrics(there))


def _metrics(there: There) -> str:
    if there:
        from . import remote  # slow to import

        response = remote.get(there, "/twocloud/metrics")
        if response.status != 200 or "X-Request-Id" not in response.headers:
            remote.read_json(there, response, "/twocloud/metrics")
            raise remote.stranger(there, response)
        return response.body.decode()
    from ..fleet import known_sources
    from ..fleet.lookup import Lookup
    from ..http import metrics

    lookup = Lookup(deployment())
    return metrics.write(list(metrics.of_sources(known_sources.states(lookup), lookup.arrived)), "")[1].decode()


# ---------------------------------------------------------------- parties

_BRIEF = ("name", "title", "grade", "default_region")


def _list_parties(there: There, arguments: Arguments) -> Record:
    first, limit = _window(arguments)
    wanted = arguments.get("party", "all")
    rows = _parties(there)
    if wanted == "all":
        rows = [{name: row.get(name) for name in _BRIEF} for row in rows]
    else:
        known = {row["name"]: row for row in rows}
        if unknown := [name for name in wanted.split(",") if name not in known]:
            raise InvalidParameter("party", f"{len(unknown)} unknown. Parties: {', '.join(known)}.")
        rows = [known[name] for name in dict.fromkeys(wanted.split(","))]
    part = _bounded(rows[first - 1:first - 1 + limit], first, len(rows))
    return {**part.fields("parties"), "at": _now()}


def _parties(there: There) -> list[Record]:
    if there:
        from . import remote  # slow to import

        response = remote.get(there, "/twocloud/parties")
        rows = remote.read_json(there, response).get("parties")
        if not remote.are_records(rows, _BRIEF):
            raise remote.stranger(there, response)
        return rows or []
    from .. import parties
    from ..http import openapi

    return [msgspec.to_builtins(openapi.party_row(parties.load(name))) for name in parties.names()]


# ---------------------------------------------------------------- the four

def every() -> list[Tool]:
    from ..http import openapi

    document = msgspec.json.decode(openapi.document())
    forms = document["components"]["schemas"]
    limit = {"type": "integer", "minimum": 1, "maximum": _MOST, "description": f"Rows wanted. Default: {_USUAL}."}
    of_servers = _inputs(document, "/twocloud/servers", ("tenant_id", "party", "account", "region", "status", "name",
                                                         "ip", "tag", "max_age", "f", "list"))
    for name in ("tenant_id", "party", "region"):
        of_servers[name]["description"] += " Default: all."
    of_servers["max_age"]["description"] += f" Default: {_MAX_AGE}."
    of_changes = _inputs(document, "/twocloud/changes", ("since", "tenant_id", "party", "account", "region", "kind",
                                                         "f"))
    of_changes["tenant_id"]["description"] += " Default: all."
    source = {name: {"type": "string", "description": f"Only this {what}, or several separated by commas."}
              for name, what in zip(_SOURCE, ("tenant", "party", "account", "region"), strict=True)}
    fields = forms["FullRow"]["properties"]
    return [
        Tool("list_servers", "List servers",
             "List and filter servers (virtual machines) of tenants in every cloud. For servers that end soon, pass "
             "expires_within or expires_before: the answer is then sorted by expires_at, and certainty says how many "
             "more may end too. Times are in the deployment's time zone, usually UTC.",
             {**of_servers, "limit": limit,
              "expires_within": {"type": "string", "pattern": "^(0|[1-9][0-9]{0,6})[smhd]$",
                                 "description": "Only servers that end within this time, such as 30d, or have ended "
                                                "and are still listed."},
              "expires_before": {"type": "string", "format": "date-time",
                                 "description": "The same, until a time (RFC 3339): for this month, the first of the "
                                                "next."},
              "fields": {"type": "array", "items": {"type": "string", "enum": ["all", *fields]},
                         "description": f"Fields wanted. Default: {', '.join(_SHOWN)}."}},
             _paged("vm_servers", {"type": "object", "properties": fields, "required": ["instance_id"]}),
             _list_servers),
        Tool("list_changes", "List changes",
             "List what appeared, changed (from what to what) and vanished since a time, oldest first, from snapshots. "
             "No cloud is queried; certainty says up to when each source's changes are known.",
             {**of_changes, "limit": limit},
             _paged("changes", _plain(forms["ChangeEvent"])), _list_changes, ("since",)),
        Tool("list_sources", "List sources",
             "List sources (one account at a cloud in one region): how old the snapshot of each is, why its last "
             "listing failed, how many servers it holds by status, and how many end within 7 and 30 days. Use it to "
             "find tenants, accounts and regions, and to count servers. No cloud is queried.",
             {**source, "state": {"type": "string", "enum": ["ok", "failed", "never_listed"],
                                  "description": "Only sources in this state."},
              "f": of_servers["f"], "limit": limit},
             {**_paged("sources", {"type": "object"}), "by_state": {"type": "object"},
              "servers": {"type": "integer", "description": "Servers in the snapshots of all these sources, also those "
                                                            "that this answer leaves out."},
              "servers_by_status": {"type": "object"}}, _list_sources),
        Tool("list_parties", "List parties",
             "List the clouds (parties) that can be queried. With `party`, also the credential fields, the narrowest "
             "permission and the known regions of each.",
             {"party": {**of_servers["party"], "description": "Only these parties, with all that is known of them."},
              "f": of_servers["f"], "limit": limit},
             {name: form for name, form in _paged("parties", _plain({
                 **forms["PartyRow"], "required": ["name", "title", "grade"]})).items() if name != "certainty"},
             _list_parties),
    ]


def _inputs(document: Record, path: str, names: Sequence[str]) -> Record:
    """The parameters of a path as the properties of a tool's arguments."""
    known = {it["name"]: it for it in document["paths"][path]["get"]["parameters"]}
    return {name: {**known[name]["schema"], "description": known[name]["description"]} for name in names}


def _plain(form: Record) -> Record:
    """A schema of the OpenAPI document that refers to no other, without what only that document has."""
    return {name: value for name, value in form.items() if name in ("type", "properties", "required")}
