"""One source's servers, as fresh as the caller wants: from its snapshot, from the party, or from a stale snapshot."""

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from .. import parties
from ..cloud import paging
from ..cloud.calls import CallStats
from ..errors import Conflict, ListChanged, PartyError, PartyTimeout, RateLimited, SnapshotReplaced, UnknownRegion
from ..model import WHOLE, Account, Listing, Server, Source, Window
from ..storage import snapshots, store
from ..storage.snapshots import Head
from ..storage.store import Place, Row
from . import circuit_breaker, regions
from .deployment import Deployment
from .interest import forget_reading, note_reading
from .later import list_later, note_try, was_tried
from .lookup import NAMED, NO_SNAPSHOT, REQUEST_SECONDS, Filter, Freshness, Lookup, SourcePlan, best_effort
from .party_call import call_party
from .single_flight import lease, single_flight
from .together import Together

if TYPE_CHECKING:
    from ..cloud.sender import Sender

_REMEMBERED = 4096                          # sources beyond which a process forgets what is over
_SMALL = 500                                # servers of a list that is listed whole at once when a page of it is wanted
_ROOM = 8.0                                 # seconds that must be left for it
_LIVE_LISTINGS = 600                        # whole listings of a source that one process begins in a minute


class Answer(msgspec.Struct, frozen=True):
    """A window of a source's servers. `seen_at`: when the party gave them (Unix time).

    `total`: how many the filter keeps; None: not known, but more follow the window. `kept`: a snapshot served.
    `failure`: why the party gave no list; the snapshot is then stale. `list_id`: of the stored list that this is a part
    of; None: of none.
    """

    source: Source
    servers: list[Server]
    total: int | None
    seen_at: float
    kept: bool = False
    failure: PartyError | UnknownRegion | None = None
    list_id: str | None = None


def list_servers(deployment: Deployment, source: Source, window: Window = WHOLE, wanted: Filter = Filter(),
                 freshness: Freshness = Freshness(), deadline: float | None = None,
                 stats: CallStats | None = None) -> Answer:
    """`stats` counts the calls. Raises AccountNotFound, PartyError, UnknownRegion, RateLimited."""
    lookup = Lookup(deployment, freshness, deadline or time.monotonic() + REQUEST_SECONDS, stats)
    return get(lookup.plan(source, window, wanted))


def get(plan: SourcePlan) -> Answer:
    """Raises PartyError, UnknownRegion, RateLimited, ListChanged."""
    if plan.known:
        note_reading(plan.deployment, plan.source)
    if plan.named:
        return _from_named(plan)
    if plan.head and plan.fresh_enough:
        with suppress(SnapshotReplaced):                # fresh enough, or listed for another caller since we came
            answer = _from_snapshot(plan, plan.head)
            plan.decide("hit")
            return answer
    if plan.before and plan.before.refused:
        plan.decide("failed", f"{UnknownRegion.code}: the party refused this region within the last hour")
        raise UnknownRegion(plan.before.text)
    if plan.freshness.cached:
        plan.decide("failed", "the request forbids a query to the party")
        raise PartyTimeout(NO_SNAPSHOT)
    try:
        answer = _from_party(plan)
    except (PartyError, UnknownRegion) as failure:
        return _stale(plan, failure)
    except RateLimited as refused:
        plan.decide_failure(refused)
        raise
    if not plan.known:
        note_reading(plan.deployment, plan.source)
    return answer


def _stale(plan: SourcePlan, failure: PartyError | UnknownRegion) -> Answer:
    """The snapshot in place of the party's list, if it may be so old. Raises the failure."""
    reasons = circuit_breaker.reasons(plan)
    head = snapshots.find(plan.store, plan.source, plan.revision)
    if head and plan.deployment.clock() - head.seen_at <= plan.freshness.stale_after(failure):
        with suppress(SnapshotReplaced):
            answer = replace(_from_snapshot(plan, head), failure=failure)
            plan.decide_failure(failure, *reasons, served=True)
            return answer
    if isinstance(failure, UnknownRegion) and not head:
        forget_reading(plan.deployment, plan.source)
    plan.decide_failure(failure, *reasons)
    raise failure


def refresh(deployment: Deployment, source: Source, deadline: float, stats: CallStats | None = None,
            due: float | None = None, together: Together | None = None) -> Answer | None:
    """List the source and keep the list; None: its snapshot is not older than `due` (Unix time). `stats` counts the
    calls. `together`: with others of its door. Raises AccountNotFound, PartyError, UnknownRegion."""
    plan = Lookup(deployment, Freshness(), deadline, stats).plan(source)
    if due is not None and plan.head and plan.head.seen_at >= due:
        return None
    try:
        return _from_party(replace(plan, refreshing=True, together=together))
    except UnknownRegion:
        if not plan.head:
            forget_reading(deployment, source)
        raise


# ---------------------------------------------------------------- from a snapshot

def name_list(plan: SourcePlan, list_id: str) -> SourcePlan:
    """The plan of an answer from the list with this id. Raises ListChanged if it is not kept."""
    head = plan.head and snapshots.named(plan.head, list_id)
    if head is None:
        raise ListChanged()
    return replace(plan, head=head, freshness=NAMED, live=False, named=True)


def _from_named(plan: SourcePlan) -> Answer:
    assert plan.head
    try:
        answer = _read_snapshot(plan, plan.head)
    except SnapshotReplaced:
        raise ListChanged() from None
    plan.decide("hit")
    return answer


def _from_snapshot(plan: SourcePlan, head: Head) -> Answer:
    try:
        return _read_snapshot(plan, head)
    except SnapshotReplaced:                            # a newer list took its place while we read
        newer = snapshots.find(plan.store, plan.source, plan.revision)
        if newer is None or newer.generation == head.generation:
            raise
        return _read_snapshot(replace(plan, chunks=None), newer)


def _read_snapshot(plan: SourcePlan, head: Head) -> Answer:
    window = WHOLE if plan.filter else plan.window
    servers, marks = (snapshots.read_window(plan.store, plan.source, head, window) if plan.chunks is None
                      else snapshots.window_in(plan.chunks, plan.source, head, window))
    return replace(_answer(plan, Listing(servers, head.total), marks, head.seen_at, kept=True), list_id=head.list_id)


def _answer(plan: SourcePlan, listing: Listing, marks: dict[str, float], seen_at: float, *, kept: bool) -> Answer:
    servers, total, window = listing.servers, listing.total, plan.window
    if marks:
        servers = [_marked(server, marks) for server in servers]
    if plan.filter:
        chosen = [server for server in servers if plan.filter.keeps(server)]
        servers, total = chosen[window.first - 1:window.last], len(chosen)
    return Answer(plan.source, servers, total, seen_at, kept)


def _marked(server: Server, marks: dict[str, float]) -> Server:
    """`updated_at`: the party's own, or else when we last saw the record change."""
    if server.updated_at is not None or server.id not in marks:
        return server
    return msgspec.structs.replace(server, updated_at=from_unix(marks[server.id]))


def chunk_places(plan: SourcePlan) -> list[Place]:
    """Where the part of the snapshot is that the plan wants."""
    return snapshots.window_places(plan.source, plan.head, WHOLE if plan.filter else plan.window) if plan.head else []


def from_unix(unix: float) -> datetime:
    return datetime.fromtimestamp(int(unix), UTC)


# ---------------------------------------------------------------- from the party

def _from_party(plan: SourcePlan) -> Answer:
    """Raises PartyError, UnknownRegion, RateLimited."""
    breaker = circuit_breaker.check(plan)
    if plan.filter or plan.window.last is None or (_for_others(plan) and plan.head and plan.head.total <= _SMALL):
        return _list_whole(plan)
    if not (breaker and breaker.until):
        page = list_window(plan)
        return _with_snapshot(plan, page) if _for_others(plan) else page
    with suppress(Conflict), lease(plan):               # a probe, of which there is one at a time
        return list_window(plan)
    raise breaker.error(1.0)


def _list_whole(plan: SourcePlan) -> Answer:
    return single_flight(plan, lambda: list_all(plan), snapshots.place_of(plan.source),
                         lambda row: _newer_snapshot(plan, row))


def _for_others(plan: SourcePlan) -> bool:
    """Whether a page is worth a listing of the whole: its caller accepts a snapshot, and so may the next ones."""
    return plan.freshness.max_age > 0


def _with_snapshot(plan: SourcePlan, page: Answer) -> Answer:
    """The page, after one listing of the whole list was made or sent for, so that a snapshot serves the next caller.
    A list that is small is listed at once, and then the page is a part of it; if that fails, the page stands, and the
    next pages cause nothing for a while."""
    if plan.window.first == 1 and page.total == len(page.servers):      # which was the whole
        return page
    if page.total is None or page.total > _SMALL or plan.party_deadline - time.monotonic() < _ROOM:
        list_later(plan)
        return page
    if not was_tried(plan):
        with suppress(PartyError, UnknownRegion, RateLimited):
            return _list_whole(plan)
        note_try(plan)
    return page


def list_window(plan: SourcePlan) -> Answer:
    """A part of the list; it is kept if it turns out to be the whole."""
    seen_at, (listing, rows) = plan.deployment.clock(), _list(plan, plan.window)
    whole = plan.window.first == 1 and listing.total == len(listing.servers)
    return _listed(plan, listing, seen_at, rows, keep=whole)


def list_all(plan: SourcePlan) -> Answer:
    _check_rate(plan)
    seen_at, (listing, rows) = plan.deployment.clock(), _list(plan, WHOLE)
    if plan.together:
        seen_at = plan.together.began_at(plan.source, seen_at)
    whole = _listed(plan, listing, seen_at, rows, keep=True)
    return whole if plan.filter else replace(whole, servers=whole.servers[plan.window.first - 1:plan.window.last])


def _listed(plan: SourcePlan, listing: Listing, seen_at: float, rows: Mapping[Place, Row] | None, *,
            keep: bool) -> Answer:
    """The answer that the party's list makes. `rows`: those that were read after it."""
    regions.note_rows(plan, listing)
    saved = _save(plan, listing.servers, seen_at, rows) if keep else None
    plan.decide("live", "the party was queried and its list kept" if saved else "the party was queried")
    answer = _answer(plan, listing, _marks(plan, saved or plan.head, rows), seen_at, kept=False)
    return replace(answer, list_id=saved.list_id) if saved else answer


def _newer_snapshot(plan: SourcePlan, row: Row | None) -> Answer | None:
    """What another caller listed since the plan was made, unless that listing began long before we came."""
    newer = snapshots.head_of(row, plan.source, plan.revision)
    if (newer and (plan.head is None or newer.serial != plan.head.serial)
            and newer.seen_at > plan.arrived - REQUEST_SECONDS):
        with suppress(SnapshotReplaced):
            answer = _from_snapshot(plan, newer)
            plan.decide("hit", "another caller listed the source meanwhile")
            return answer
    return None


def _list(plan: SourcePlan, window: Window) -> tuple[Listing, Mapping[Place, Row] | None]:
    """The party's list, proven to hold every server that lived through it; and rows that were read after it.

    Pages whose seams nothing has proven are believed only of the servers of the snapshot. A server that is new, or is
    not listed any more, is confirmed by a second listing, with seams. A whole list has seams at once where the last
    listing failed or found servers that came or went; without a snapshot, as far as a hundredth of the calls pays for
    it.
    """
    whole, head = window.last is None, plan.head
    seams = whole and (circuit_breaker.last_failure(plan) is not None or (head is not None and head.moving))

    def query(account: Account, send: "Sender") -> Listing:
        if not plan.known:
            parties.check_region(plan.source, account, send)
        with paging.reading(seams=seams, first=whole and head is None, room=send.room) as how:
            part = plan.together.listing(plan.source, account, send, plan.party_deadline) if (
                whole and plan.together) else None
            listing = part or parties.list_servers(plan.source, account, window, send)
        if (listing.total == 0 and head and head.total) or (        # all gone? that is confirmed
                how.joined and head and not _as_before(plan, window, head, listing)):
            with paging.reading(seams=True, twice=True, room=send.room):
                listing = parties.list_servers(plan.source, account, window, send)
        return listing

    also = snapshots.marks_of(plan.source, head)
    if whole:                               # which will be kept
        also += [plan.account_place, snapshots.place_of(plan.source)]
    return call_party(plan, plan.source.region, query, lambda failure: regions.explain(plan, failure), also)


def _as_before(plan: SourcePlan, window: Window, head: Head, listing: Listing) -> bool:
    """The servers are those of the snapshot, and none has lost a disk."""
    if window == WHOLE and snapshots.digest(listing.servers) == head.digest:
        return True
    try:
        before = {server.id: server for server in snapshots.read(plan.store, plan.source, head, window)}
    except SnapshotReplaced:
        return False
    return (listing.total in (None, head.total) and before.keys() == {server.id for server in listing.servers}
            and all((server.disk_gib or 0) >= (before[server.id].disk_gib or 0) for server in listing.servers))


def _save(plan: SourcePlan, servers: list[Server], seen_at: float, rows: Mapping[Place, Row] | None) -> Head | None:
    """Keep the list; if it cannot be kept, the answer stands all the same. A refresh, which lists in order to keep,
    waits for a locked store until its deadline, and fails with the store."""
    deployment, head = plan.deployment, None
    with store.within(plan.deadline) if plan.refreshing else best_effort(plan):
        if rows is None or plan.account_place not in rows:
            rows = plan.store.get_many([plan.account_place, snapshots.place_of(plan.source)])
        if plan.account_is_same(rows.get(plan.account_place)):
            head = snapshots.save_over(rows.get(snapshots.place_of(plan.source)), plan.store, plan.source,
                                       plan.revision, servers, seen_at, history=deployment.settings.history * 86_400)
        if not plan.account_is_same(plan.store.get(*plan.account_place)):       # it was removed or replaced meanwhile
            snapshots.forget(plan.store, plan.source)
            head = None
    return head


def _marks(plan: SourcePlan, head: Head | None, rows: Mapping[Place, Row] | None) -> dict[str, float]:
    """Of the list that is kept now: those that were read after the call, unless another list was written."""
    with suppress(SnapshotReplaced):
        if rows is not None and head and plan.head and head.generation == plan.head.generation:
            return snapshots.read_marks(plan.source, snapshots.marks_of(plan.source, head), rows)
        return snapshots.marks(plan.store, plan.source, head)
    return {}


def _check_rate(plan: SourcePlan) -> None:
    """Limit live listings, so that no caller makes us hammer a party. Raises RateLimited."""
    now = time.monotonic()
    every = plan.deployment.begun
    if len(every) >= _REMEMBERED:
        for key in [key for key, starts in list(every.items()) if not starts or now - starts[-1] >= 60]:
            every.pop(key, None)
    begun = every.setdefault(plan.shared_key, [])
    begun[:] = [at for at in begun if now - at < 60]
    if len(begun) >= _LIVE_LISTINGS:
        seconds = max(1, round(60 - (now - begun[0])))
        raise RateLimited(seconds, "Too many live listings of this source. "
                                   f"Retry in {seconds} s, or accept a snapshot with max_age.")
    begun.append(now)
