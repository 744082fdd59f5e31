"""One source's servers, as fresh as the caller wants: from its snapshot, from the party, or from a stale snapshot."""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec

from .. import parties
from ..access import accounts
from ..cloud import paging
from ..cloud.sender import CallStats, Sender
from ..errors import Conflict, PartyError, PartyTimeout, RateLimited, SnapshotReplaced, UnknownRegion
from ..model import WHOLE, Account, Listing, Server, Source, Window
from ..storage import snapshots, store
from ..storage.snapshots import Head
from . import circuit_breaker, regions
from .deployment import Deployment
from .interest import forget_reading, note_reading
from .lookup import NO_SNAPSHOT, REQUEST_SECONDS, Filter, Freshness, SourcePlan, logged
from .party_call import call_party
from .single_flight import lease, single_flight

_REMEMBERED = 4096                          # sources beyond which a process forgets what is over
_LIVE_LISTINGS = 600                        # whole listings of a source that one process begins in a minute


@dataclass(frozen=True, slots=True)
class Answer:
    """A window of a source's servers. `seen_at`: when the party gave them.

    `total`: how many the filter keeps; None: not known, but more follow the window. `kept`: a snapshot served.
    `failure`: why the party gave no list; the snapshot is then stale.
    """

    source: Source
    servers: list[Server]
    total: int | None
    seen_at: datetime
    kept: bool = False
    failure: PartyError | UnknownRegion | None = None


def get(deployment: Deployment, source: Source, window: Window = WHOLE, wanted: Filter = Filter(),
        freshness: Freshness = Freshness(), deadline: float | None = None, stats: CallStats | None = None) -> Answer:
    """`stats` counts the calls. Raises AccountNotFound, PartyError, UnknownRegion, RateLimited."""
    plan, head = _plan(deployment, source, window, wanted, freshness, deadline or time.monotonic() + REQUEST_SECONDS,
                       stats)
    if plan.known:
        note_reading(deployment, source)
    if head and (head.seen_at > plan.arrived
                 or (freshness.max_age and plan.arrived - head.seen_at <= freshness.max_age)):
        with suppress(SnapshotReplaced):                # fresh enough, or listed for another caller since we came
            return _from_snapshot(plan, head)
    if plan.before and plan.before.refused:
        raise UnknownRegion(plan.before.text)
    if freshness.cached:
        raise PartyTimeout(NO_SNAPSHOT)
    try:
        answer = _from_party(plan, head)
    except (PartyError, UnknownRegion) as failure:
        head = snapshots.find(deployment.store, source, plan.revision)
        if head and deployment.clock() - head.seen_at <= freshness.stale_after(failure):
            with suppress(SnapshotReplaced):
                return replace(_from_snapshot(plan, head), failure=failure)
        if isinstance(failure, UnknownRegion) and not head:
            forget_reading(deployment, source)
        raise
    if not plan.known:
        note_reading(deployment, source)
    return answer


def refresh(deployment: Deployment, source: Source, deadline: float, stats: CallStats | None = None) -> Answer:
    """List the source and keep the list. `stats` counts the calls. Raises AccountNotFound, PartyError,
    UnknownRegion."""
    plan, head = _plan(deployment, source, WHOLE, Filter(), Freshness(), deadline, stats)
    try:
        return _from_party(replace(plan, refreshing=True), head)
    except UnknownRegion:
        if not head:
            forget_reading(deployment, source)
        raise


def _plan(deployment: Deployment, source: Source, window: Window, wanted: Filter, freshness: Freshness,
          deadline: float, stats: CallStats | None) -> tuple[SourcePlan, Head | None]:
    """The plan, and the head of the source's snapshot. Raises AccountNotFound."""
    arrived, store = deployment.clock(), deployment.store
    account = accounts.find(store, source.tenant_id, source.party)
    head = snapshots.find(store, source, account.revision)
    known = source.region in account.regions or regions.is_known(deployment, source, head, account.revision)
    plan = SourcePlan(deployment, source, account.revision, wanted, window, freshness, arrived, deadline, stats, known)
    return (plan if known else replace(plan, before=plan.last_outcome())), head


# ---------------------------------------------------------------- from a snapshot

def _from_snapshot(plan: SourcePlan, head: Head) -> Answer:
    try:
        return _read_snapshot(plan, head)
    except SnapshotReplaced:                            # a newer list took its place while we read
        newer = snapshots.find(plan.deployment.store, plan.source, plan.revision)
        if newer is None or newer.generation == head.generation:
            raise
        return _read_snapshot(plan, newer)


def _read_snapshot(plan: SourcePlan, head: Head) -> Answer:
    store, source = plan.deployment.store, plan.source
    marks = snapshots.marks(store, source, head)
    servers = snapshots.read(store, source, head, WHOLE if plan.filter else plan.window)
    return _answer(plan, Listing(servers, head.total), marks, head.seen_at, kept=True)


def _answer(plan: SourcePlan, listing: Listing, marks: dict[str, float], seen_at: float, *, kept: bool) -> Answer:
    servers, total, window = listing.servers, listing.total, plan.window
    if marks:
        servers = [_marked(server, marks) for server in servers]
    if plan.filter:
        chosen = [server for server in servers if plan.filter.keeps(server)]
        servers, total = chosen[window.first - 1:window.last], len(chosen)
    return Answer(plan.source, servers, total, from_unix(seen_at), kept)


def _marked(server: Server, marks: dict[str, float]) -> Server:
    """`updated_at`: the party's own, or else when we last saw the record change."""
    if server.updated_at is not None or server.id not in marks:
        return server
    return msgspec.structs.replace(server, updated_at=from_unix(marks[server.id]))


def from_unix(unix: float) -> datetime:
    return datetime.fromtimestamp(int(unix), UTC)


# ---------------------------------------------------------------- from the party

def _from_party(plan: SourcePlan, head: Head | None) -> Answer:
    """Raises PartyError, UnknownRegion, RateLimited."""
    breaker, version = circuit_breaker.check(plan)
    failed = breaker is not None
    if plan.filter or plan.window.last is None:
        return single_flight(plan, version, lambda: list_all(plan, head, failed), lambda: _newer_snapshot(plan, head))
    if not (breaker and breaker.until):
        return list_window(plan, head, failed)
    with suppress(Conflict), lease(plan):               # a probe, of which there is one at a time
        return list_window(plan, head, failed)
    raise breaker.error(1.0)


def list_window(plan: SourcePlan, head: Head | None, failed: bool) -> Answer:
    """A part of the list; it is kept if it turns out to be the whole."""
    seen_at, listing = plan.deployment.clock(), _list(plan, plan.window, head, failed)
    if plan.window.first == 1 and listing.total == len(listing.servers):
        head = _save(plan, listing.servers, seen_at) or head
    return _answer(plan, listing, _marks(plan, head), seen_at, kept=False)


def list_all(plan: SourcePlan, head: Head | None, failed: bool) -> Answer:
    _check_rate(plan)
    seen_at, listing = plan.deployment.clock(), _list(plan, WHOLE, head, failed)
    head = _save(plan, listing.servers, seen_at) or head
    whole = _answer(plan, listing, _marks(plan, head), seen_at, kept=False)
    return whole if plan.filter else replace(whole, servers=whole.servers[plan.window.first - 1:])


def _newer_snapshot(plan: SourcePlan, head: Head | None) -> Answer | None:
    """What another caller listed since `head` was read, unless that listing began long before we came."""
    newer = snapshots.find(plan.deployment.store, plan.source, plan.revision)
    if newer and (head is None or newer.serial != head.serial) and newer.seen_at > plan.arrived - REQUEST_SECONDS:
        with suppress(SnapshotReplaced):
            return _from_snapshot(plan, newer)
    return None


def _list(plan: SourcePlan, window: Window, head: Head | None, failed: bool) -> Listing:
    """The party's list, proven to hold every server that lived through it.

    Pages whose seams nothing has proven are believed only of the servers of the snapshot. A server that is new, or is
    not listed any more, is confirmed by a second listing, with seams. A whole list has seams at once where the last
    listing `failed` or found servers that came or went; without a snapshot, as far as a hundredth of the calls pays
    for it.
    """
    whole = window.last is None
    seams = whole and (failed or (head is not None and head.moving))

    def query(account: Account, send: Sender) -> Listing:
        with paging.reading(seams=seams, first=whole and head is None, room=send.room) as how:
            listing = parties.list_servers(plan.source, account, window, send)
        if (listing.total == 0 and head and head.total) or (        # all gone? that is confirmed
                how.joined and head and not _as_before(plan, window, head, listing)):
            with paging.reading(seams=True, twice=True, room=send.room):
                listing = parties.list_servers(plan.source, account, window, send)
        return listing

    return call_party(plan, plan.source.region, query, lambda failure: regions.explain(plan, failure))


def _as_before(plan: SourcePlan, window: Window, head: Head, listing: Listing) -> bool:
    """The servers are those of the snapshot, and none has lost a disk."""
    if window == WHOLE and snapshots.digest(listing.servers) == head.digest:
        return True
    try:
        before = {server.id: server for server in snapshots.read(plan.deployment.store, plan.source, head, window)}
    except SnapshotReplaced:
        return False
    return (listing.total in (None, head.total) and before.keys() == {server.id for server in listing.servers}
            and all((server.disk_gib or 0) >= (before[server.id].disk_gib or 0) for server in listing.servers))


def _save(plan: SourcePlan, servers: list[Server], seen_at: float) -> Head | None:
    """Keep the list; if it cannot be kept, the answer stands all the same. A refresh, which lists in order to keep,
    waits for a locked store until its deadline."""
    deployment = plan.deployment
    head = None
    with logged(plan.key), store.within(plan.deadline) if plan.refreshing else store.beside():
        if plan.account_is_same():
            head = snapshots.save(deployment.store, plan.source, plan.revision, servers, seen_at,
                                  history=deployment.settings.history * 86_400)
        if not plan.account_is_same():      # it was removed or replaced meanwhile
            snapshots.forget(deployment.store, plan.source)
            head = None
    return head


def _marks(plan: SourcePlan, head: Head | None) -> dict[str, float]:
    try:
        return snapshots.marks(plan.deployment.store, plan.source, head)
    except SnapshotReplaced:
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
