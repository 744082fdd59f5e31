"""twocloud explain: one query, and for each source where its list came from, why, and what it cost."""

import time
from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

import click
import msgspec

from ..cloud.sender import Call, CallStats
from ..errors import PartyError, RateLimited, TwocloudError, UnknownRegion
from ..fleet import query
from . import contexts
from .output import deployment, echo, hint, kept, output_option, table, waiting
from .servers import asking_options
from .terminal import plain

_HEADERS = ("X-Request-Id", "Age", "Cache-Status", "X-Total-Count", "ETag", "Retry-After", "Date")
_PLAIN = "For more, search the server's log for this request id."


@click.command()
@asking_options
@output_option
def explain(url: str | None, output: str, **asked: str | None) -> None:
    """Run a query and explain where each list came from, and why.

    For each source: whether the snapshot or the party served it and why, its age, the calls with their retries and
    milliseconds, the failures in a row, the permission that it needs. With a server (--url or a context), only what
    its headers say.
    """
    pairs = [(name, value) for name, value in asked.items() if value is not None]
    if there := contexts.there(url):
        told, error = _over_http(there, pairs)
    else:
        told, error = _over_store(pairs)
    if output == "json":
        echo(msgspec.json.encode(told))
    else:
        _draw(told)
    if error:
        raise error


# ---------------------------------------------------------------- over the store

def _over_store(pairs: list[tuple[str, str]]) -> tuple[dict[str, Any], TwocloudError | None]:
    """What happened, and how it ended if not well."""
    from .. import parties
    from ..access import accounts
    from ..fleet import circuit_breaker, many_sources, regions
    from ..http import api
    from ..storage import snapshots

    asked, here, stats = query.parse(pairs), deployment(), CallStats()
    policy = api.freshness_of(asked, "", here.settings)
    began = time.monotonic()
    deadline, now = began + many_sources.REQUEST_SECONDS, here.clock()
    found, error, fleet = [], None, None
    before = dict[Any, tuple[Any, Any]]()
    try:
        with waiting(lambda: f"querying, {stats.calls} calls so far" if stats.calls else "querying"):
            if asked.several:
                found, _ = regions.sources(here, asked, None, policy, deadline, stats)
            else:
                assert asked.parties
                assert asked.regions
                found = [many_sources.source_of(asked.tenant_id, asked.parties[0], asked.regions[0])]
            for source in found:
                revision = accounts.find(here.store, source.tenant_id, source.party).revision
                before[source] = (snapshots.find(here.store, source, revision), circuit_breaker.health(here, source))
            fleet = many_sources.answer(here, asked, policy, None, deadline, stats)
    except (PartyError, UnknownRegion, RateLimited) as failure:
        error = failure
    took = (time.monotonic() - began) * 1000
    parts = {part.source: part for part in fleet.parts} if fleet else {}
    rows = list[dict[str, Any]]()
    for source in dict.fromkeys([*found, *parts]):
        part, (head, health) = parts.get(source), before.get(source, (None, None))
        calls = [call for call in stats.made if (call.party, call.region) == (source.party, source.region)]
        party, failure = parties.load(source.party), part.error if part else error
        rows.append({
            "party": source.party, "region": source.region, "state": part.state if part else "failed",
            "from": None if not part or not part.answer else "kept list" if part.answer.kept else "party",
            "age": part.age if part else None, "count": part.count if part else None, "calls": len(calls),
            "milliseconds": round(sum(call.milliseconds or 0 for call in calls), 1),
            "why": _why(policy, head, health, part, failure, now, calls),
            "error": failure.word if failure else None, "msg": failure.text if failure else None,
            "kept_age": max(0, int(now - head.seen_at)) if head else None,
            "failures_in_a_row": health.failures if health else 0,
            "breaker_open_seconds": max(0, round(health.open_until - now)) if health else 0,
            "being_listed": health.leased if health else False, "permissions": list(party.permissions)})
    left_out = regions.left_out(here, asked, [*found, *parts]) if found else []
    return {"asked": "the store", "policy": asdict(policy), "milliseconds": round(took, 1),
            "party_milliseconds": round(stats.milliseconds, 1), "retries": stats.retries, "sources": rows,
            "left_out": [{"region": region, "party": party} for region, party in left_out],
            "calls": [_call(call, began) for call in stats.made],
            "error": {"error": error.word, "msg": error.text} if error else None}, error


def _why(policy: Any, head: Any, health: Any, part: Any, failure: TwocloudError | None, now: float,
         calls: list[Call]) -> str:
    """What freshness decided, from what it saw."""
    age = int(now - head.seen_at) if head else None
    if part and part.answer and part.answer.kept and not failure:
        return (f"the kept list is {age} s old, max_age allows {policy.max_age} s"
                if policy.max_age and age is not None and age <= policy.max_age
                else "somebody else listed the source meanwhile")
    if head is None:
        asked = "no list is kept"
    elif policy.max_age:
        asked = f"the kept list is {age} s old, max_age allows {policy.max_age} s"
    else:
        asked = "max_age is 0, so the party is asked"
    if not failure:
        return f"{asked}; the party was asked and the answer kept" if part and part.answer and part.answer.total \
            is not None else asked
    if isinstance(failure, UnknownRegion) and not calls:
        return f"{failure.word}: the party refused this region within the last hour"
    if health and health.open_until > now and not calls:
        asked += f"; {health.failures} failures in a row: nobody asks for {health.open_until - now:.0f} s more"
    kept_text = f"the last good list serves, up to {policy.stale} s old" if part and part.answer else (
        "no list is kept that could serve" if head is None else
        f"the last good list is {age} s old, {policy.stale} s are allowed")
    return f"{asked}; {failure.word}; {kept_text}"


def _call(call: Call, began: float) -> dict[str, Any]:
    return {"party": call.party, "region": call.region, "operation": call.operation,
            "at": round((call.began - began) * 1000, 1),
            "milliseconds": None if call.milliseconds is None else round(call.milliseconds, 1),
            "waited": round(call.waited, 1), "status": call.status, "error": call.error or None}


# ---------------------------------------------------------------- over HTTP

def _over_http(there: contexts.There, pairs: list[tuple[str, str]]) -> tuple[dict[str, Any], TwocloudError | None]:
    from . import remote  # slow to import

    with waiting(lambda: f"asking {there.url}"):
        got = remote.get(there, "/twocloud/servers", urlencode(pairs))
    body, error = dict[str, Any](), None
    try:
        body = remote.read_list(there, got)
    except remote.Answered as refused:
        error = refused
    given = dict(pairs)
    sources = body.get("sources") or [{
        "party": given["party"], "region": given["region"],
        "state": "failed" if error else "stale" if "detail=" in got.headers.get("Cache-Status", "") else "ok",
        "count": len(body["vm_servers"]) if "vm_servers" in body else None,
        "age": int(got.headers["Age"]) if got.headers.get("Age", "").isdigit() else None if error else 0,
        "error": error.word if error else "", "msg": error.text if error else body.get("msg", "")}]
    return {"asked": there.url, "chosen_by": there.chosen, "status": got.status,
            "milliseconds": round(got.milliseconds, 1), "bytes": len(got.body),
            "headers": {name: got.headers[name] for name in _HEADERS if name in got.headers}, "sources": sources,
            "error": {"error": error.word, "msg": error.text} if error else None}, error


# ---------------------------------------------------------------- for people

def _draw(told: dict[str, Any]) -> None:
    def line(text: str) -> None:
        click.echo(plain(text))

    by = f" ({told['chosen_by']})" if "chosen_by" in told else ""
    line(f"asked: {told['asked']}{by}, {told['milliseconds']:.0f} ms")
    if "policy" in told:
        policy = told["policy"]
        line(f"policy: a list up to {policy['max_age']} s old will do; if the party fails, the last good one up to "
             f"{policy['stale']} s old")
        line(f"parties: {len(told['calls'])} calls, {told['retries']} retries, at least one under way for "
             f"{told['party_milliseconds']:.0f} ms")
    for name, value in told.get("headers", {}).items():
        line(f"{name}: {value}")
    line("")
    names = ("party", "region", "state", "from", "age", "count", "calls", "milliseconds")
    shown = [name for name in names if any(name in row for row in told["sources"])]
    table(told["sources"], shown)
    for row in told["sources"]:
        for text in filter(None, (row.get("why"), row.get("msg"))):
            line("")
            line(f"{row['party']} {row['region']}: {text}")
        if row.get("permissions"):
            line(f"needs: {', '.join(row['permissions'])}")
        if row.get("being_listed"):
            line("somebody was listing it when we came")
    for row in told.get("left_out", ()):
        line(f"{row['party']} has no region {row['region']}, as its own list of regions says; nothing was sent to it")
    if calls := told.get("calls"):
        line("")
        table(calls, ("at", "party", "region", "operation", "status", "milliseconds", "waited", "error"))
    if "headers" in told and not kept("quiet"):
        hint(_PLAIN)
