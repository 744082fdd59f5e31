"""twocloud explain: one query, and for each source where its list came from, why, and what it cost."""

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click
import msgspec
from msgspec.structs import asdict

from .. import parties
from ..cloud.calls import Call, CallStats
from ..errors import PartyError, RateLimited, TwocloudError, UnknownRegion
from ..fleet import query
from ..model import DEFAULT_ACCOUNT, Source, titles
from . import contexts
from .output import deployment, echo, hint, kept, output_option, table, waiting
from .servers import query_options
from .terminal import plain

if TYPE_CHECKING:
    from ..fleet.lookup import Lookup, SourcePlan
    from ..fleet.many_sources import SourceResult

_HEADERS = ("X-Request-Id", "Age", "Cache-Status", "X-Total-Count", "X-List-Id", "ETag", "Retry-After", "Date")
_PLAIN = "For more, search the server's log for this request id."


@click.command()
@query_options
@output_option
def explain(url: str | None, output: str, **options: str | None) -> None:
    """Run a query and explain where each list came from, and why.

    For each source: whether the snapshot or the party served it and why, its age, the calls with their retries and
    milliseconds, the failures in a row, the permission that it needs. With a server (--url or a context), only what
    its headers say.
    """
    pairs = [(name, value) for name, value in options.items() if value is not None]
    if server := contexts.there(url):
        report, error = _over_http(server, pairs)
    else:
        report, error = _over_store(pairs)
    if output == "json":
        echo(msgspec.json.encode(report))
    else:
        _draw(report)
    if error:
        raise error


# ---------------------------------------------------------------- over the store

def _over_store(pairs: list[tuple[str, str]]) -> tuple[dict[str, Any], TwocloudError | None]:
    """What happened, and the error that ended it, None if none did."""
    from ..fleet import many_sources, regions
    from ..fleet.lookup import Lookup, SourcePlan
    from ..fleet.many_sources import SourceResult
    from ..http import api

    parsed, local, stats = query.parse(pairs), deployment(), CallStats()
    lookup = Lookup(local, api.freshness_of(parsed, "", local.settings), stats=stats, query=parsed)
    began = time.monotonic()
    plans, error, results = list[SourcePlan](), None, dict[Source, SourceResult]()
    leased = set[Source]()
    try:
        with waiting(lambda: f"querying, {stats.calls} calls so far" if stats.calls else "querying"):
            plans, failed = many_sources.plan(lookup)
            leases = local.store.get_many([("lease", plan.key) for plan in plans])
            leased = {plan.source for plan in plans if ("lease", plan.key) in leases}
            results = {part.source: part for part in many_sources.answer_of(lookup, plans, failed).parts}
    except (PartyError, UnknownRegion, RateLimited) as failure:
        error = failure
    took = (time.monotonic() - began) * 1000
    by_source = {plan.source: plan for plan in plans}
    sources = list(dict.fromkeys([*by_source, *results]))
    rows = [_row(lookup, source, by_source.get(source), results.get(source), error) |
            {"being_listed": source in leased, "permissions": list(parties.load(source.party).permissions)}
            for source in sources]
    left_out = regions.left_out(lookup, parsed, sources) if plans else []
    return {"queried": "the store", "freshness": asdict(lookup.freshness), "milliseconds": round(took, 1),
            "party_milliseconds": round(stats.milliseconds, 1), "retries": stats.retries, "sources": rows,
            "left_out": [{"region": region, "party": party} for region, party in left_out],
            "calls": [_call(call, began) for call in stats.made],
            "error": {"error": error.code, "msg": error.text} if error else None}, error


def _row(lookup: "Lookup", source: Source, plan: "SourcePlan | None", result: "SourceResult | None",
         error: TwocloudError | None) -> dict[str, Any]:
    """What happened with one source; `error`: how the whole request ended."""
    from ..fleet import circuit_breaker

    proxy = lookup.deployment.settings.proxy
    answer, decision = result.answer if result else None, lookup.decisions.get(source)
    failure = result.error if result else error
    calls = [call for call in lookup.stats.made if source == Source(
        call.tenant_id, call.party, call.region, call.account)] if lookup.stats else []
    head, breaker = (plan.head, circuit_breaker.last_failure(plan)) if plan else (None, None)
    return {
        "tenant_id": source.tenant_id, "party": source.party, "account": source.account, "region": source.region,
        "state": result.state if result else "failed",
        "from": None if not answer else "snapshot" if answer.kept else "party",
        "age": result.age if result else None, "count": result.count if result else None, "calls": len(calls),
        "milliseconds": round(sum(call.milliseconds or 0 for call in calls), 1),
        "why": decision.why if decision else None,
        "error": failure.code if failure else None, "msg": failure.text if failure else None,
        "proxy": (plan.account.proxy or (proxy.url if proxy else None)) if plan else None,
        "allow_http": plan.account.allow_http if plan else None,
        "snapshot_age": max(0, int(lookup.arrived - head.seen_at)) if head else None,
        "failures_in_a_row": breaker.failures if breaker else 0,
        "breaker_open_seconds": max(0, round(breaker.until - lookup.arrived)) if breaker else 0}


def _call(call: Call, began: float) -> dict[str, Any]:
    return {"party": call.party, "region": call.region, "operation": call.operation,
            "at": round((call.began - began) * 1000, 1),
            "milliseconds": None if call.milliseconds is None else round(call.milliseconds, 1),
            "waited": round(call.waited, 1), "status": call.status, "error": call.error or None}


# ---------------------------------------------------------------- over HTTP

def _over_http(server: contexts.There, pairs: list[tuple[str, str]]) -> tuple[dict[str, Any], TwocloudError | None]:
    from . import remote  # slow to import

    with waiting(lambda: f"querying {server.url}"):
        response = remote.get(server, "/twocloud/servers", urlencode(pairs))
    body, error = dict[str, Any](), None
    try:
        body = remote.read_list(server, response)
    except remote.Answered as refused:
        error = refused
    parameters = dict(pairs)
    sources = body.get("sources") or [{
        "party": parameters["party"], "region": parameters["region"],
        "state": "failed" if error else "stale" if "detail=" in response.headers.get("Cache-Status", "") else "ok",
        "count": len(body["vm_servers"]) if "vm_servers" in body else None,
        "age": int(response.headers["Age"]) if response.headers.get("Age", "").isdigit() else None if error else 0,
        "error": error.code if error else "", "msg": error.text if error else body.get("msg", "")}]
    return {"queried": server.url, "chosen_by": server.chosen, "status": response.status,
            "milliseconds": round(response.milliseconds, 1), "bytes": len(response.body),
            "headers": {name: response.headers[name] for name in _HEADERS if name in response.headers},
            "sources": sources,
            "error": {"error": error.code, "msg": error.text} if error else None}, error


# ---------------------------------------------------------------- for people

def _draw(report: dict[str, Any]) -> None:
    def line(text: str) -> None:
        click.echo(plain(text))

    by = f" ({report['chosen_by']})" if "chosen_by" in report else ""
    line(f"queried: {report['queried']}{by}, {report['milliseconds']:.0f} ms")
    if "freshness" in report:
        freshness = report["freshness"]
        line(f"freshness: a snapshot up to {freshness['max_age']} s old is accepted; if the party fails, one up to "
             f"{freshness['stale']} s old")
        line(f"parties: {len(report['calls'])} calls, {report['retries']} retries; waited for them for "
             f"{report['party_milliseconds']:.0f} ms")
    for name, value in report.get("headers", {}).items():
        line(f"{name}: {value}")
    line("")
    names = ("party", "region", "state", "from", "age", "count", "calls", "milliseconds")
    shown = [name for name in names if any(name in row for row in report["sources"])]
    shown = [*(name for name in ("tenant_id", "account") if len({row.get(name) for row in report["sources"]}) > 1),
             *shown]
    table(report["sources"], shown)
    sources = [Source(row.get("tenant_id", ""), row["party"], row["region"], row.get("account", DEFAULT_ACCOUNT))
               for row in report["sources"]]
    title = titles(sources)
    for source, row in zip(map(title, sources), report["sources"], strict=True):
        for text in filter(None, (row.get("why"), row.get("msg"))):
            line("")
            line(f"{source}: {text.removeprefix(f'{source}: ')}")
        if row.get("permissions"):
            line(f"needs: {', '.join(row['permissions'])}")
        if row.get("proxy"):
            line(f"through the proxy {row['proxy']}")
        if row.get("allow_http"):
            line("plain http is allowed for this account (--allow-http)")
        if row.get("being_listed"):
            line("another request was already listing it")
    for row in report.get("left_out", ()):
        line(f"{row['party']} has no region {row['region']}, as its own list of regions says; nothing was sent to it")
    if calls := report.get("calls"):
        line("")
        table(calls, ("at", "party", "region", "operation", "status", "milliseconds", "waited", "error"))
    if "headers" in report and not kept("quiet"):
        hint(_PLAIN)
