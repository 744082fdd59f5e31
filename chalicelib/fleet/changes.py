"""What changed since a time, from the snapshots: in one source, as its servers are now, and in many, event by event."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from ..access import tokens
from ..errors import AccountNotFound, Internal, InvalidParameter, NotFound, TwocloudError
from ..model import Source
from ..storage import snapshots
from ..storage.snapshots import Change, ChangeRow, Head, Vanished
from . import circuit_breaker, regions
from .changes_query import KINDS
from .deployment import Deployment
from .interest import note_reading
from .lookup import ANY_AGE, Filter, Freshness, Lookup, SourcePlan
from .one_source import Answer, get
from .query import Query

FROM_SNAPSHOTS = Freshness(max_age=ANY_AGE.max_age, cached=True)                # never query a party
_NEVER_LISTED = "This source was never listed, so no changes of it are known."


class Changes(msgspec.Struct, frozen=True):
    """What is different since a time. `answer`: the servers that appeared or changed, in their present state;
    `fields`: which of each one's fields, none if it appeared. `vanished`: those that are not listed any more."""

    answer: Answer
    fields: dict[str, tuple[str, ...]]
    vanished: list[Vanished]


def list_changes(plan: SourcePlan, since: float) -> Changes:
    """From snapshots of any age; a source that has none is listed first. `plan`: for the whole list.

    Raises InvalidParameter if `since` is older than the history, PartyError, UnknownRegion.
    """
    deployment, source, wanted = plan.deployment, plan.source, plan.filter
    check_history(deployment, since)
    everyone = get(replace(plan, filter=Filter()))
    head = plan.head if plan.named else snapshots.find(deployment.store, source, plan.revision)
    everything = not head or since < head.since                 # all that we know of appeared after that
    fields: dict[str, tuple[str, ...]] = {}
    gone: dict[str, Vanished] = {}
    for change in snapshots.changes(deployment.store, source, since, head) if head else ():
        if plan.named and head and change.at > head.seen_at:
            break                           # the list that the caller names is older
        fields |= dict.fromkeys(change.appeared, ())
        for key, names in change.changed.items():
            before = fields.get(key)
            fields[key] = () if before == () else tuple(dict.fromkeys((*(before or ()), *names)))
        gone |= {server.id: server for server in change.vanished}
    present = {server.id for server in everyone.servers}
    shown = [server for server in everyone.servers if wanted.keeps(server) and (everything or server.id in fields)]
    part_of_name = (wanted.name or "").casefold()               # the only filter that fits what is known of them
    vanished = sorted((server for key, server in gone.items()
                       if key not in present and part_of_name in server.name.casefold()),
                      key=lambda server: (server.vanished_at, server.id))
    return Changes(replace(everyone, servers=shown, total=len(shown)), fields, vanished)


def check_history(deployment: Deployment, since: float, parameter: str = "changed_since") -> None:
    """Raises InvalidParameter."""
    if since < deployment.clock() - deployment.settings.history * 86_400:
        raise InvalidParameter(parameter, f"Changes are kept for {deployment.settings.history} days.")


# ---------------------------------------------------------------- event by event

class Event(NamedTuple):
    """A server appeared, changed or vanished. `at`: when the listing that shows it began, in Unix seconds, as text
    with six decimals. `name`: None if it is not known. `fields`: for a change, each field of Server that differs,
    before and after; None: the values are not known."""

    source: Source
    at: str
    kind: str
    id: str
    name: str | None
    fields: dict[str, tuple[Any, Any] | None] = {}


class SourceHistory(msgspec.Struct, frozen=True):
    """Up to when the changes of a source are known. `head`: of its snapshot; None: it was never listed. `failure`: why
    there is none, or why the last listing gave no newer one."""

    source: Source
    head: Head | None = None
    failure: TwocloudError | None = None

    @property
    def state(self) -> str:
        return "failed" if self.head is None else "stale" if self.failure else "ok"


class History(msgspec.Struct, frozen=True):
    """What changed in several sources. `rows`: as stored, in their order."""

    sources: list[SourceHistory]
    rows: Sequence[ChangeRow]
    kinds: Sequence[str]

    def events(self) -> Iterator[Event]:
        """Oldest first; of one moment by source, and of one listing first what changed, then what appeared, then what
        vanished. Rows that are damaged or of an account's earlier life are passed over."""
        heads = {it.source: it.head for it in self.sources}
        for row in self.rows:
            if change := snapshots.read_change(row.value, row.source, heads[row.source]):
                yield from _events(row, change, self.kinds)


def history(lookup: Lookup) -> History:
    """What changed in the sources of the lookup's query, as far as its caller may see them. No party is queried.

    Raises InvalidParameter, UnknownRegion, Forbidden, AccountNotFound.
    """
    query = lookup.query
    assert query
    assert query.changed_since is not None
    check_history(lookup.deployment, query.changed_since, "since")
    sources, without = _sources(lookup)
    lookup.read_sources(sources)
    plans = _without_foreign(query, list(_plans(lookup, sources)))
    note_reading(lookup.deployment, *(plan.source for plan in plans if plan.known))
    known = [*map(_known, plans), *(SourceHistory(source, failure=failure) for source, failure in without.items())]
    heads = {it.source: it.head for it in known if it.head}
    return History(sorted(known, key=lambda it: it.source.order),
                   snapshots.change_rows(lookup.deployment.store, heads, query.changed_since), query.kinds or KINDS)


def _sources(lookup: Lookup) -> tuple[list[Source], dict[Source, TwocloudError]]:
    """The sources of the query; and accounts of which no source is known, with why. Where an account's regions are not
    known, its sources are those that have a snapshot."""
    assert lookup.query
    sources, failed = regions.sources(lookup, lookup.query)
    damaged = {source: error for source, error in failed.items() if isinstance(error, Internal)}
    doors = {(source.tenant_id, source.party, source.account): source for source in failed if source not in damaged}
    for tenant_id in dict.fromkeys(source.tenant_id for source in doors.values()):
        for source, _ in snapshots.heads(lookup.deployment.store, tenant_id):
            account = source.tenant_id, source.party, source.account
            if account in doors and (lookup.caller is None or tokens.allows(lookup.caller, source)):
                sources.append(source)
    listed = {(source.tenant_id, source.party, source.account) for source in sources}
    without: dict[Source, TwocloudError] = {
        source: NotFound(_NEVER_LISTED) for account, source in doors.items() if account not in listed}
    return sources, without | damaged


def _plans(lookup: Lookup, sources: Iterable[Source]) -> Iterator[SourcePlan]:
    """Without accounts and members that are gone, whose snapshots were not taken away yet."""
    for source in sources:
        with suppress(AccountNotFound):
            yield lookup.plan(source)


def _without_foreign(query: Query, plans: Sequence[SourcePlan]) -> list[SourcePlan]:
    """Without parties that may lack a region, where each name that was given for it is another source's that was
    listed."""
    listed = [plan.source for plan in plans if plan.head]

    def is_elsewhere(plan: SourcePlan) -> bool:
        names = [name for name in query.regions or () if regions.means(name, plan.source)]
        return bool(names) and all(any(regions.means(name, other) for other in listed) for name in names)

    return [plan for plan in plans if plan.head or plan.known or not is_elsewhere(plan)]


def _known(plan: SourcePlan) -> SourceHistory:
    """A failure stands in the store until the source is listed again."""
    if plan.head is None:
        return SourceHistory(plan.source, failure=NotFound(_NEVER_LISTED))
    last = circuit_breaker.last_failure(plan)
    return SourceHistory(plan.source, plan.head, last and last.error(None))


def _events(row: ChangeRow, change: Change, kinds: Sequence[str]) -> Iterator[Event]:
    source, at, names = row.source, f"{change.at:.6f}", change.names
    if "changed" in kinds:
        for key, fields in change.changed.items():
            values = change.values.get(key, ())
            pairs = values if len(values) == len(fields) else [None] * len(fields)
            yield Event(source, at, "changed", key, names.get(key), dict(zip(fields, pairs, strict=True)))
    if "appeared" in kinds:
        for key in change.appeared:
            yield Event(source, at, "appeared", key, names.get(key))
    if "vanished" in kinds:
        for server in change.vanished:
            yield Event(source, at, "vanished", server.id, server.name)
