"""One source's servers, as fresh as the caller wants: a snapshot, the party itself, or the last good list, marked.

Many callers of one source cost one listing: whoever gets the lease lists, the others wait for its snapshot or share
its failure. A breaker keeps a party that fails from being asked by everybody: after eight failures in a row it opens
for ten seconds, then longer, and one caller at a time tries again. Both are rows of the store, for every process.
"""

import random
import secrets
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from typing import TypeVar

import msgspec

from .. import log, parties
from ..access import accounts
from ..cloud import paging
from ..cloud.sender import CallStats, Sender
from ..errors import (
    AccountNotFound,
    Conflict,
    PartyDenied,
    PartyError,
    PartyThrottled,
    PartyTimeout,
    RateLimited,
    SnapshotReplaced,
    StoreBusy,
    UnknownRegion,
)
from ..model import WHOLE, Account, Listing, Server, Source, Window
from ..storage import snapshots, store
from ..storage.snapshots import Head
from . import regions
from .deployment import Deployment
from .regions import Listed, Outcome

REQUEST_SECONDS = 25.0                      # in which every request is answered
ANSWER_SECONDS = 2.0                        # of it, kept for what comes after the party
_DENIED_SECONDS = 900                       # refused credentials are no outage: how long the last list still serves
_FAILURES = 8                               # in a row, a minute apart at most, after which the breaker opens
_FAILURE_SECONDS = 60
_OPEN_SECONDS = (10, 30, 60, 120, 300)      # for the first, second, … time
_NOTED_SECONDS = 600                        # a source that is read is written down again after this
_INTEREST_SECONDS = 30 * 86_400             # and forgotten after this
_FAILURES_KEPT = 3600                       # seconds for which a failure is remembered
_LIST_FAILED_SECONDS = 300                  # after which a list of regions that could not be had is requested again
_REMEMBERED = 4096                          # sources beyond which a process forgets what is over
_FORCED = 600                               # whole listings of a source that one process begins in a minute
EVERY_REGION = regions.EVERY                # in place of a region, where the regions themselves are asked for
_NONE_KEPT = "No list that is young enough is kept, and the request forbids asking."
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Freshness:
    """What a caller accepts. `max_age`: seconds, 0: ask the party. `stale`: seconds that the last good list may be old
    if the party fails, 0: none. `cached`: never ask the party; a list younger than `max_age` or none."""

    max_age: int = 0
    stale: int = 0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """Which servers of a list are wanted; None: all. `name` is any part of it, whatever the case."""

    status: str | None = None
    name: str | None = None
    ip: str | None = None

    def __bool__(self) -> bool:
        return (self.status, self.name, self.ip) != (None, None, None)

    def keeps(self, server: Server) -> bool:
        return ((self.status is None or server.status == self.status)
                and (self.name is None or self.name.casefold() in server.name.casefold())
                and (self.ip is None or self.ip in (*server.lan_ipv4, *server.wan_ipv4,
                                                    *server.lan_ipv6, *server.wan_ipv6)))


@dataclass(frozen=True, slots=True)
class Answer:
    """A window of a source's servers. `seen_at`: when the party gave them.

    `total`: how many the filter keeps; None: not known, but more follow the window. `kept`: a snapshot served.
    `failure`: why the party could not be heard; the list is then the last good one.
    """

    source: Source
    servers: list[Server]
    total: int | None
    seen_at: datetime
    kept: bool = False
    failure: PartyError | UnknownRegion | None = None


@dataclass(frozen=True, slots=True)
class _Asking:
    """One question about one source. `arrived`: Unix time; `deadline`: on time.monotonic's scale. `known`: the party
    is known to have the region; if not, `before` is the last answer about it within the hour. `keeping`: the list is
    wanted for its snapshot."""

    deployment: Deployment
    source: Source
    revision: str
    wanted: Filter
    window: Window
    policy: Freshness
    arrived: float
    deadline: float
    stats: CallStats | None
    known: bool = True
    before: Outcome | None = None
    keeping: bool = False

    @property
    def key(self) -> str:
        return snapshots.key_of(self.source)

    @property
    def shared_key(self) -> str:
        """Of what all regions share that the account's party is not known to have: nobody makes rows by making up
        names."""
        return self.key if self.known else snapshots.key_of(replace(self.source, region=regions.UNKNOWN))


# ---------------------------------------------------------------- one source

def get(deployment: Deployment, source: Source, window: Window = WHOLE, wanted: Filter = Filter(),
           policy: Freshness = Freshness(), deadline: float | None = None, stats: CallStats | None = None) -> Answer:
    """`tally` is filled with what was called. Raises AccountNotFound, PartyError, UnknownRegion, RateLimited."""
    asking, head = _open(deployment, source, window, wanted, policy, deadline or time.monotonic() + REQUEST_SECONDS,
                         stats)
    if asking.known:
        note_reading(deployment, source)
    if head and (head.seen_at > asking.arrived or (policy.max_age and asking.arrived - head.seen_at <= policy.max_age)):
        with suppress(SnapshotReplaced):                # young enough, or listed for somebody else since we came
            return _kept(asking, head)
    if asking.before and asking.before.refused:
        raise UnknownRegion(asking.before.text)
    if policy.cached:
        raise PartyTimeout(_NONE_KEPT)
    try:
        answer = _live(asking, head)
    except (PartyError, UnknownRegion) as failure:
        head = snapshots.find(deployment.store, source, asking.revision)
        if head and deployment.clock() - head.seen_at <= _bearable(policy, failure):
            with suppress(SnapshotReplaced):
                return replace(_kept(asking, head), failure=failure)
        if isinstance(failure, UnknownRegion) and not head:
            forget_reading(deployment, source)
        raise
    if not asking.known:
        note_reading(deployment, source)
    return answer


def _open(deployment: Deployment, source: Source, window: Window, wanted: Filter, policy: Freshness, deadline: float,
          stats: CallStats | None) -> tuple[_Asking, Head | None]:
    """The question, and the head of the source's snapshot. Raises AccountNotFound."""
    arrived, store = deployment.clock(), deployment.store
    account = accounts.find(store, source.tenant_id, source.party)
    head = snapshots.find(store, source, account.revision)
    asking = _Asking(deployment, source, account.revision, wanted, window, policy, arrived, deadline, stats,
                     known=source.region in account.regions or is_known(deployment, source, head, account.revision))
    if not asking.known:
        asking = replace(asking, before=_outcome(asking))
    return asking, head


def is_known(deployment: Deployment, source: Source, head: Head | None, revision: str) -> bool:
    """Whether the party is known to have the region: twocloud knows it, it was listed or read before, or the party's
    list of regions names it."""
    if head or regions.is_built_in(parties.load(source.party), source.region):
        return True
    key = snapshots.key_of(source)
    if key in deployment.noted or deployment.store.get("interest", key):
        return True
    there = regions.listed(deployment.store, source.tenant_id, source.party, revision)
    return bool(there and source.region in there.codes)


def _bearable(policy: Freshness, failure: PartyError | UnknownRegion) -> float:
    """Seconds that what is kept may be old if the party failed so; none at all is less than no seconds."""
    limit = min(policy.stale, _DENIED_SECONDS) if isinstance(failure, PartyDenied) else policy.stale
    return limit or -inf


def refresh(deployment: Deployment, source: Source, deadline: float, stats: CallStats | None = None) -> Answer:
    """List the source and keep it. `tally` is filled with what was called. Raises AccountNotFound, PartyError,
    UnknownRegion."""
    asking, head = _open(deployment, source, WHOLE, Filter(), Freshness(), deadline, stats)
    try:
        return _live(replace(asking, keeping=True), head)
    except UnknownRegion:
        if not head:
            forget_reading(deployment, source)
        raise


def _kept(asking: _Asking, head: Head) -> Answer:
    store, source = asking.deployment.store, asking.source
    try:
        return _kept_once(asking, head)
    except SnapshotReplaced:                            # a newer list took its place while we read
        newer = snapshots.find(store, source, asking.revision)
        if newer is None or newer.generation == head.generation:
            raise
        return _kept_once(asking, newer)


def _kept_once(asking: _Asking, head: Head) -> Answer:
    store, source = asking.deployment.store, asking.source
    marks = snapshots.marks(store, source, head)
    servers = snapshots.read(store, source, head, WHOLE if asking.wanted else asking.window)
    return _answer(asking, Listing(servers, head.total), marks, head.seen_at, kept=True)


def _answer(asking: _Asking, listing: Listing, marks: dict[str, float], seen_at: float, *, kept: bool) -> Answer:
    servers, total, window = listing.servers, listing.total, asking.window
    if marks:
        servers = [_marked(server, marks) for server in servers]
    if asking.wanted:
        chosen = [server for server in servers if asking.wanted.keeps(server)]
        servers, total = chosen[window.first - 1:window.last], len(chosen)
    return Answer(asking.source, servers, total, from_unix(seen_at), kept)


def _marked(server: Server, marks: dict[str, float]) -> Server:
    """`updated_at`: the party's own, or else when we last saw the record change."""
    if server.updated_at is not None or server.id not in marks:
        return server
    return msgspec.structs.replace(server, updated_at=from_unix(marks[server.id]))


def from_unix(unix: float) -> datetime:
    return datetime.fromtimestamp(int(unix), UTC)


# ---------------------------------------------------------------- asking the party

def _live(asking: _Asking, head: Head | None) -> Answer:
    """Raises PartyError, UnknownRegion, RateLimited."""
    breaker, version = _open_breaker(asking)
    failed = breaker is not None
    if asking.wanted or asking.window.last is None:
        return _in_turn(asking, version, lambda: _whole(asking, head, failed), lambda: _newer(asking, head))
    if not (breaker and breaker.until):
        return _part(asking, head, failed)
    with suppress(Conflict), _lease(asking):                    # a probe, of which there is one at a time
        return _part(asking, head, failed)
    raise breaker.error(1.0)


def _part(asking: _Asking, head: Head | None, failed: bool) -> Answer:
    seen_at, listing = asking.deployment.clock(), _list(asking, asking.window, head, failed)
    if asking.window.first == 1 and listing.total == len(listing.servers):
        head = _save(asking, listing.servers, seen_at) or head
    return _answer(asking, listing, _marks(asking, head), seen_at, kept=False)


def _whole(asking: _Asking, head: Head | None, failed: bool) -> Answer:
    _limit(asking)
    seen_at, listing = asking.deployment.clock(), _list(asking, WHOLE, head, failed)
    head = _save(asking, listing.servers, seen_at) or head
    whole = _answer(asking, listing, _marks(asking, head), seen_at, kept=False)
    return whole if asking.wanted else replace(whole, servers=whole.servers[asking.window.first - 1:])


def _newer(asking: _Asking, head: Head | None) -> Answer | None:
    """What is kept, if somebody has listed the source since `head` was read, and has not begun long before we came."""
    newer = snapshots.find(asking.deployment.store, asking.source, asking.revision)
    if newer and (head is None or newer.serial != head.serial) and newer.seen_at > asking.arrived - REQUEST_SECONDS:
        with suppress(SnapshotReplaced):
            return _kept(asking, newer)
    return None


def _list(asking: _Asking, window: Window, head: Head | None, failed: bool) -> Listing:
    """The party's list, proven to hold every server that lived through it.

    Pages whose seams nothing has proven are believed only of the servers of the snapshot. A server that is new, or is
    not listed any more, is confirmed by a second listing, with seams. A whole list has seams at once where the last
    listing `failed` or found servers that came or went; without a snapshot, as far as a hundredth of the calls pays
    for it.
    """
    whole = window.last is None
    seams = whole and (failed or (head is not None and head.moving))

    def ask(account: Account, send: Sender) -> Listing:
        with paging.reading(seams=seams, first=whole and head is None, room=send.room) as how:
            listing = parties.list_servers(asking.source, account, window, send)
        if (listing.total == 0 and head and head.total) or (        # all gone? that is asked twice
                how.joined and head and not _as_before(asking, window, head, listing)):
            with paging.reading(seams=True, twice=True, room=send.room):
                listing = parties.list_servers(asking.source, account, window, send)
        return listing

    return _call(asking, asking.source.region, ask)


def _as_before(asking: _Asking, window: Window, head: Head, listing: Listing) -> bool:
    """The servers are those of the snapshot, and none has lost a disk."""
    if window == WHOLE and snapshots.digest(listing.servers) == head.digest:
        return True
    try:
        before = {server.id: server for server in snapshots.read(asking.deployment.store, asking.source, head, window)}
    except SnapshotReplaced:
        return False
    return (listing.total in (None, head.total) and before.keys() == {server.id for server in listing.servers}
            and all((server.disk_gib or 0) >= (before[server.id].disk_gib or 0) for server in listing.servers))


def _call(asking: _Asking, region: str, ask: Callable[[Account, Sender], T]) -> T:
    """What the party said; the breaker is told how it went."""
    deployment, source = asking.deployment, asking.source
    if time.monotonic() > asking.deadline - ANSWER_SECONDS:     # our own fault, of which the breaker is not told
        raise PartyTimeout()
    account = open_account(deployment, source.tenant_id, source.party)
    sender = deployment.transport.sender(parties.load(source.party), account, region,
                                         asking.deadline - ANSWER_SECONDS, known=asking.known)
    if asking.stats is not None:
        sender.stats = asking.stats
    try:
        said = ask(account, sender)
    except (PartyError, UnknownRegion) as found:
        failure = _explained(asking, found)
        with _unspoilt(asking):
            _failed(asking, failure)
        raise failure from None
    finally:
        sender.close()
    with _unspoilt(asking):
        if deployment.store.get("breaker", asking.shared_key):
            deployment.store.delete("breaker", asking.shared_key)
    return said


def _explained(asking: _Asking, failure: PartyError | UnknownRegion) -> PartyError | UnknownRegion:
    """The failure in a region that the party is not known to have, as its list of regions explains it. The list is
    requested only where a party says "wrong key" of such regions."""
    party, region = parties.load(asking.source.party), asking.source.region
    if asking.known or not (isinstance(failure, UnknownRegion)
                            or (isinstance(failure, PartyDenied) and party.closed_is_denied)):
        return failure
    there = (party_regions(asking.deployment, asking.source.tenant_id, party.name, regions.BELIEVED_SECONDS,
                           asking.policy, asking.deadline, asking.stats) if isinstance(failure, PartyDenied)
             else regions.listed(asking.deployment.store, asking.source.tenant_id, party.name, asking.revision))
    return regions.explained(party, region, there, failure)


def open_account(deployment: Deployment, tenant_id: str, party: str) -> Account:
    return accounts.load(deployment.store, deployment.sealer, tenant_id, party, local=deployment.settings.local)


def _save(asking: _Asking, servers: list[Server], seen_at: float) -> Head | None:
    """Keep the list. That it cannot be kept does not spoil the answer. A refresh, which lists in order to keep, waits
    for a locked store until its deadline."""
    deployment = asking.deployment
    head = None
    with _logged(asking.key), store.within(asking.deadline) if asking.keeping else store.beside():
        if _is_there(asking):
            head = snapshots.save(deployment.store, asking.source, asking.revision, servers, seen_at,
                                  history=deployment.settings.history * 86_400)
        if not _is_there(asking):           # the account went or was put anew meanwhile
            snapshots.forget(deployment.store, asking.source)
            head = None
    return head


def _is_there(asking: _Asking) -> bool:
    with suppress(AccountNotFound):
        source = asking.source
        return accounts.find(asking.deployment.store, source.tenant_id, source.party).revision == asking.revision
    return False


@contextmanager
def _unspoilt(asking: _Asking) -> Generator[None]:
    """Around what is written down beside an answer: a store that fails at it is logged, and the answer stands. A store
    that another program has locked is not waited for."""
    with _logged(asking.key), store.beside():
        yield


@contextmanager
def _logged(key: str) -> Generator[None]:
    try:
        yield
    except StoreBusy as busy:               # nothing is broken
        log.logger.warning("store busy", extra={"fields": {"source": key, "text": busy.text}})
    except Exception:
        log.failure(source=key)


def _marks(asking: _Asking, head: Head | None) -> dict[str, float]:
    try:
        return snapshots.marks(asking.deployment.store, asking.source, head)
    except SnapshotReplaced:
        return {}


def _limit(asking: _Asking) -> None:
    """So that nobody makes us hammer a party by asking anew all the time."""
    now = time.monotonic()
    every = asking.deployment.begun
    if len(every) >= _REMEMBERED:
        for key in [key for key, starts in list(every.items()) if not starts or now - starts[-1] >= 60]:
            every.pop(key, None)
    begun = every.setdefault(asking.shared_key, [])
    begun[:] = [at for at in begun if now - at < 60]
    if len(begun) >= _FORCED:
        seconds = max(1, round(60 - (now - begun[0])))
        raise RateLimited(seconds, "Too many live listings of this source. "
                                   f"Retry in {seconds} s, or accept a snapshot with max_age.")
    begun.append(now)


# ---------------------------------------------------------------- one at a time

def _in_turn(asking: _Asking, version: int, work: Callable[[], T], look: Callable[[], T | None]) -> T:
    """What `work` gives. One caller at a time works; who comes meanwhile gets what `look` finds after it, or its
    failure: a version of the breaker's row other than `version`, or a time in it after we came. Raises PartyTimeout
    if it takes too long."""
    pause = 0.02
    while True:
        with suppress(Conflict), _lease(asking):
            if (found := _after_others(asking, version, look)) is not None:
                return found
            return work()
        if time.monotonic() + pause > asking.deadline - ANSWER_SECONDS:
            raise PartyTimeout()
        time.sleep(pause + random.uniform(0, pause))
        pause = min(pause * 1.5, 0.4)
        if (found := _after_others(asking, version, look)) is not None:
            return found


def _after_others(asking: _Asking, version: int, look: Callable[[], T | None]) -> T | None:
    if (found := look()) is not None:
        return found
    if not asking.known:
        if (told := _outcome(asking)) and told != asking.before:
            raise regions.error_of(told.word, told.text)
        return None
    row = asking.deployment.store.get("breaker", asking.key)
    breaker = _read_breaker(row.value, asking.revision) if row else None
    if row and breaker and (row.version != version or breaker.at > asking.arrived):
        raise breaker.error(None)
    return None


def _outcome(asking: _Asking) -> Outcome | None:
    source = asking.source
    return regions.outcome(asking.deployment.store, source.tenant_id, source.party, asking.revision, source.region,
                           asking.deployment.clock())


@contextmanager
def _lease(asking: _Asking) -> Generator[None]:
    """Raises Conflict if somebody else has it. It ends by itself if its holder dies."""
    store, mine = asking.deployment.store, secrets.token_bytes(8)
    seconds = max(1.0, asking.deadline - time.monotonic()) + 1
    taken = False
    with _unspoilt(asking):                 # a store that cannot be written to: better asked twice than not at all
        try:
            store.put("lease", asking.key, mine, version=0, expires=int(asking.deployment.clock() + seconds) + 1)
        except Conflict:
            taken = True
    if taken:
        raise Conflict("another caller has the lease")
    try:
        yield
    finally:
        with _unspoilt(asking):
            row = store.get("lease", asking.key)
            if row and row.value == mine:
                store.delete("lease", asking.key)


# ---------------------------------------------------------------- the breaker

class _Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """A source's last failure. `failures`: in a row; `opened`: how often the breaker did; `until`: open till then.
    `revision`: of the account that failed, "" in rows of version 0.1.0."""

    word: str
    text: str
    at: float
    failures: int = 0
    opened: int = 0
    until: float = 0.0
    revision: str = ""

    def error(self, seconds: float | None) -> PartyError | UnknownRegion:
        """The failure again. `seconds`: after which asking can help."""
        return regions.error_of(self.word, self.text, seconds)


_decode_breaker = msgspec.msgpack.Decoder(_Breaker).decode


def _open_breaker(asking: _Asking) -> tuple[_Breaker | None, int]:
    """What is known of failures, and the version of its row. Raises the last one while the breaker is open."""
    row, now = asking.deployment.store.get("breaker", asking.shared_key), asking.deployment.clock()
    if row is None:
        return None, 0
    breaker = _read_breaker(row.value, asking.revision)
    if breaker and breaker.until > now:
        raise breaker.error(breaker.until - now)
    return breaker, row.version


def _read_breaker(value: bytes, revision: str = "") -> _Breaker | None:
    """None: of another version, or of an account that the one of this revision replaced: as good as none."""
    with suppress(msgspec.DecodeError):
        breaker = _decode_breaker(value)
        return breaker if "" in (revision, breaker.revision) or breaker.revision == revision else None
    return None


def _failed(asking: _Asking, failure: PartyError | UnknownRegion) -> None:
    """Refused credentials and unknown regions are told to whoever waits, but open nothing: they are no outage.
    Nor is what we refused ourselves, to keep the party's rate: the party has said nothing then. Of regions that are
    not known each one's last answer is noted, and all share one breaker."""
    store, now, source = asking.deployment.store, asking.deployment.clock(), asking.source
    ours = isinstance(failure, PartyThrottled) and failure.http_status is None
    if not asking.known:
        regions.note(store, source.tenant_id, source.party, asking.revision, source.region, failure, now)
    for _ in range(3 if asking.known or not isinstance(failure, UnknownRegion) else 0):
        row = store.get("breaker", asking.shared_key)
        before = (_read_breaker(row.value, asking.revision) if row else None) or _Breaker(word="", text="", at=0)
        running = before.failures if now - before.at <= max(_FAILURE_SECONDS, before.until - before.at + 60) else 0
        failures = (0 if isinstance(failure, (PartyDenied, UnknownRegion)) else running if ours else running + 1)
        opened, until = before.opened, 0.0
        if before.until > now and failures:                     # who had asked before it opened
            until = before.until
        elif failures >= _FAILURES and not ours:
            opened, until = opened + 1, now + _OPEN_SECONDS[min(opened, len(_OPEN_SECONDS) - 1)]
        breaker = _Breaker(word=failure.word, text=failure.text, at=now, failures=failures, opened=opened, until=until,
                           revision=asking.revision)
        with suppress(Conflict):
            store.put("breaker", asking.shared_key, msgspec.msgpack.encode(breaker), version=row.version if row else 0,
                      expires=int(now) + _FAILURES_KEPT)
            break
    if not _is_there(asking):               # the account went meanwhile: nothing of it stays
        snapshots.forget(store, source)
        snapshots.forget(store, replace(source, region=regions.UNKNOWN))


def last_failures(deployment: Deployment) -> dict[Source, float]:
    """When each source failed last, if that is not long ago."""
    return {snapshots.source_of_key(key): breaker.at for key, row in deployment.store.list("breaker")
            if (breaker := _read_breaker(row.value))}


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """How things stand with a source. `failed_at`: when it failed last (Unix time), 0 if nothing is known; `failures`:
    in a row; `open_until`: till when the breaker lets nobody ask; `leased`: somebody is listing it."""

    failed_at: float
    word: str
    failures: int
    open_until: float
    leased: bool


def health(deployment: Deployment, source: Source) -> SourceHealth:
    key = snapshots.key_of(source)
    row, leased = deployment.store.get("breaker", key), deployment.store.get("lease", key) is not None
    last = (_read_breaker(row.value) if row else None) or _Breaker(word="", text="", at=0)
    return SourceHealth(last.at, last.word, last.failures, last.until, leased)


# ---------------------------------------------------------------- which regions there are

def open_regions(deployment: Deployment, tenant_id: str, party_name: str, policy: Freshness, deadline: float,
                 stats: CallStats | None = None) -> tuple[str, ...]:
    """Codes of the regions that the party says are open to the account. Asked once an hour, by one caller at a time;
    if the party fails, what it said last will do as long as a list would. Raises PartyError, UnknownRegion."""
    asking, there = _open_list(deployment, tenant_id, party_name, policy, deadline, stats)
    if there and (policy.cached or asking.arrived - there.at <= regions.BELIEVED_SECONDS):
        return there.codes
    if policy.cached:
        raise PartyTimeout(_NONE_KEPT)
    try:
        return _list_regions(asking, there).codes
    except PartyError as failure:
        if there and deployment.clock() - there.at <= _bearable(policy, failure):
            return there.codes
        raise


def party_regions(deployment: Deployment, tenant_id: str, party_name: str, age: float, policy: Freshness,
                  deadline: float, stats: CallStats | None = None) -> Listed | None:
    """The regions that the party lists, to tell whose region a name is: at most `age` seconds old, or the last list
    that could be had; None: none ever could. Asked by one caller at a time, and not again soon after it failed."""
    asking, there = _open_list(deployment, tenant_id, party_name, policy, deadline, stats)
    if policy.cached or (there and asking.arrived - there.at <= age):
        return there
    failed = regions.outcome(deployment.store, tenant_id, party_name, asking.revision, EVERY_REGION, asking.arrived)
    if failed and asking.arrived - failed.at < _LIST_FAILED_SECONDS:
        return there
    try:
        return _list_regions(asking, there)
    except (PartyError, UnknownRegion) as failure:
        with _unspoilt(asking):
            regions.note(deployment.store, tenant_id, party_name, asking.revision, EVERY_REGION, failure,
                         deployment.clock())
        return there


def _open_list(deployment: Deployment, tenant_id: str, party_name: str, policy: Freshness, deadline: float,
               stats: CallStats | None) -> tuple[_Asking, Listed | None]:
    revision = accounts.find(deployment.store, tenant_id, party_name).revision
    asking = _Asking(deployment, Source(tenant_id, party_name, EVERY_REGION), revision, Filter(), WHOLE, policy,
                     deployment.clock(), deadline, stats)
    return asking, regions.listed(deployment.store, tenant_id, party_name, revision)


def _list_regions(asking: _Asking, before: Listed | None) -> Listed:
    """Ask the party, and keep what it says; `before`: what was kept when we came. Raises PartyError, UnknownRegion."""
    deployment, source = asking.deployment, asking.source
    party = parties.load(source.party)

    def ask() -> Listed:
        found = _call(asking, party.default_region, party.list_regions)
        now = deployment.clock()
        with _unspoilt(asking):
            regions.keep(deployment.store, source.tenant_id, source.party, asking.revision, found, now)
            if not _is_there(asking):
                snapshots.forget(deployment.store, source)
        return regions.listed_of(found, asking.revision, now)

    def look() -> Listed | None:
        newer = regions.listed(deployment.store, source.tenant_id, source.party, asking.revision)
        return newer if newer and (before is None or newer.at > before.at) else None

    _, version = _open_breaker(asking)
    return _in_turn(asking, version, ask, look)


# ---------------------------------------------------------------- who is being read

def note_reading(deployment: Deployment, source: Source) -> None:
    """So that the schedule refreshes more often what is being read; one small write in ten minutes at most."""
    key, now = snapshots.key_of(source), deployment.clock()
    if now - deployment.noted.get(key, 0.0) < _NOTED_SECONDS:
        return
    if len(deployment.noted) >= _REMEMBERED:
        for old in [known for known, at in list(deployment.noted.items()) if now - at >= _NOTED_SECONDS]:
            deployment.noted.pop(old, None)
    deployment.noted[key] = now             # before it is, so that of many callers one writes
    with _logged(key), store.beside():
        deployment.store.put("interest", key, b"%d" % now, expires=int(now) + _INTEREST_SECONDS)


def forget_reading(deployment: Deployment, source: Source) -> None:
    """The party has no such region: nobody shall ask for it again and again."""
    key = snapshots.key_of(source)
    deployment.noted.pop(key, None)
    with _logged(key), store.beside():
        deployment.store.delete("interest", key)
