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

from chalicelib import accounts, errors, journal, paging, parties, snapshots
from chalicelib.deployment import Deployment
from chalicelib.errors import (
    AccountNotFound,
    Conflict,
    Lost,
    PartyDenied,
    PartyError,
    PartyThrottled,
    PartyTimeout,
    RateLimited,
    UnknownRegion,
)
from chalicelib.model import WHOLE, Account, Listing, Server, Source, Window
from chalicelib.snapshots import Head
from chalicelib.transport import Sender, Tally

REQUEST_SECONDS = 25.0                      # in which every request is answered
ANSWER_SECONDS = 2.0                        # of it, kept for what comes after the party
_DENIED_SECONDS = 900                       # refused credentials are no outage: how long the last list still serves
_FAILURES = 8                               # in a row, a minute apart at most, after which the breaker opens
_FAILURE_SECONDS = 60
_OPEN_SECONDS = (10, 30, 60, 120, 300)      # for the first, second, … time
_NOTED_SECONDS = 600                        # a source that is read is written down again after this
_INTEREST_SECONDS = 30 * 86_400             # and forgotten after this
_FAILURES_KEPT = 3600                       # seconds for which a failure is remembered
_REGIONS_SECONDS = 3600                     # for which a party's own list of regions is believed
_FORCED = 600                               # whole listings of a source that one process begins in a minute
EVERY_REGION = "all"                        # in place of a region, where the regions themselves are asked for
_NONE_KEPT = "No list that is young enough is kept, and the request forbids asking."
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Policy:
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
    failure: PartyError | None = None


@dataclass(frozen=True, slots=True)
class _Asking:
    """One question about one source. `arrived`: Unix time; `deadline`: on time.monotonic's scale."""

    deployment: Deployment
    source: Source
    revision: str
    wanted: Filter
    window: Window
    policy: Policy
    arrived: float
    deadline: float
    tally: Tally | None

    @property
    def key(self) -> str:
        return snapshots.key_of(self.source)


# ---------------------------------------------------------------- one source

def obtain(deployment: Deployment, source: Source, window: Window = WHOLE, wanted: Filter = Filter(),
           policy: Policy = Policy(), deadline: float | None = None, tally: Tally | None = None) -> Answer:
    """`tally` is filled with what was called. Raises AccountNotFound, PartyError, UnknownRegion, RateLimited."""
    arrived = deployment.clock()
    revision = accounts.find(deployment.store, source.tenant_id, source.party).revision
    asking = _Asking(deployment, source, revision, wanted, window, policy, arrived,
                     deadline or time.monotonic() + REQUEST_SECONDS, tally)
    note_reading(deployment, source)
    head = snapshots.find(deployment.store, source, revision)
    if head and (head.seen_at > asking.arrived or (policy.max_age and asking.arrived - head.seen_at <= policy.max_age)):
        with suppress(Lost):                # young enough, or listed for somebody else since we came
            return _kept(asking, head)
    if policy.cached:
        raise PartyTimeout(_NONE_KEPT)
    try:
        return _live(asking, head)
    except UnknownRegion:
        forget_reading(deployment, source)
        raise
    except PartyError as failure:
        head = snapshots.find(deployment.store, source, revision)
        if head and deployment.clock() - head.seen_at <= _bearable(policy, failure):
            with suppress(Lost):
                return replace(_kept(asking, head), failure=failure)
        raise


def _bearable(policy: Policy, failure: PartyError) -> float:
    """Seconds that what is kept may be old if the party failed so; none at all is less than no seconds."""
    limit = min(policy.stale, _DENIED_SECONDS) if isinstance(failure, PartyDenied) else policy.stale
    return limit or -inf


def refresh(deployment: Deployment, source: Source, deadline: float, tally: Tally | None = None) -> Answer:
    """List the source and keep it. `tally` is filled with what was called. Raises AccountNotFound, PartyError,
    UnknownRegion."""
    revision = accounts.find(deployment.store, source.tenant_id, source.party).revision
    asking = _Asking(deployment, source, revision, Filter(), WHOLE, Policy(), deployment.clock(), deadline, tally)
    return _live(asking, snapshots.find(deployment.store, source, revision))


def _kept(asking: _Asking, head: Head) -> Answer:
    store, source = asking.deployment.store, asking.source
    try:
        return _kept_once(asking, head)
    except Lost:                            # a newer list took its place while we read
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
    return Answer(asking.source, servers, total, moment(seen_at), kept)


def _marked(server: Server, marks: dict[str, float]) -> Server:
    """`updated_at`: the party's own, or else when we last saw the record change."""
    if server.updated_at is not None or server.id not in marks:
        return server
    return msgspec.structs.replace(server, updated_at=moment(marks[server.id]))


def moment(unix: float) -> datetime:
    return datetime.fromtimestamp(int(unix), UTC)


# ---------------------------------------------------------------- asking the party

def _live(asking: _Asking, head: Head | None) -> Answer:
    """Raises PartyError, UnknownRegion, RateLimited."""
    breaker, version = _open_breaker(asking)
    if asking.wanted or asking.window.last is None:
        return _in_turn(asking, version, lambda: _whole(asking, head), lambda: _newer(asking, head))
    if not (breaker and breaker.until):
        return _part(asking, head)
    with suppress(Conflict), _lease(asking):                    # a probe, of which there is one at a time
        return _part(asking, head)
    raise breaker.error(1.0)


def _part(asking: _Asking, head: Head | None) -> Answer:
    seen_at, listing = asking.deployment.clock(), _list(asking, asking.window, head)
    if asking.window.first == 1 and listing.total == len(listing.servers):
        head = _save(asking, listing.servers, seen_at) or head
    return _answer(asking, listing, _marks(asking, head), seen_at, kept=False)


def _whole(asking: _Asking, head: Head | None) -> Answer:
    _limit(asking)
    seen_at, listing = asking.deployment.clock(), _list(asking, WHOLE, head)
    head = _save(asking, listing.servers, seen_at) or head
    whole = _answer(asking, listing, _marks(asking, head), seen_at, kept=False)
    return whole if asking.wanted else replace(whole, servers=whole.servers[asking.window.first - 1:])


def _newer(asking: _Asking, head: Head | None) -> Answer | None:
    """What is kept, if somebody has listed the source since `head` was read, and has not begun long before we came."""
    newer = snapshots.find(asking.deployment.store, asking.source, asking.revision)
    if newer and (head is None or newer.serial != head.serial) and newer.seen_at > asking.arrived - REQUEST_SECONDS:
        with suppress(Lost):
            return _kept(asking, newer)
    return None


def _list(asking: _Asking, window: Window, head: Head | None) -> Listing:
    def ask(account: Account, send: Sender) -> Listing:
        listing = parties.list_servers(asking.source, account, window, send)
        if listing.total == 0 and head and head.total:          # all gone? that is asked twice
            listing = parties.list_servers(asking.source, account, window, send)
        return listing

    return _call(asking, asking.source.region, ask)


def _call(asking: _Asking, region: str, ask: Callable[[Account, Sender], T]) -> T:
    """What the party said; the breaker is told how it went."""
    deployment, source = asking.deployment, asking.source
    if time.monotonic() > asking.deadline - ANSWER_SECONDS:     # our own fault, of which the breaker is not told
        raise PartyTimeout()
    account = open_account(deployment, source.tenant_id, source.party)
    sender = deployment.transport.sender(parties.load(source.party), account, region,
                                         asking.deadline - ANSWER_SECONDS)
    if asking.tally is not None:
        sender.tally = asking.tally
    try:
        with paging.reading(seams=False, room=sender.room):
            said = ask(account, sender)
    except (PartyError, UnknownRegion) as failure:
        with _unspoilt(asking):
            _failed(asking, failure)
        raise
    finally:
        sender.close()
    with _unspoilt(asking):
        if deployment.store.get("breaker", asking.key):
            deployment.store.delete("breaker", asking.key)
    return said


def open_account(deployment: Deployment, tenant_id: str, party: str) -> Account:
    return accounts.load(deployment.store, deployment.sealer, tenant_id, party, local=deployment.settings.local)


def _save(asking: _Asking, servers: list[Server], seen_at: float) -> Head | None:
    """Keep the list. That it cannot be kept does not spoil the answer."""
    deployment = asking.deployment
    head = None
    with _unspoilt(asking):
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
    """Around what is written down beside an answer: a store that fails at it is logged, and the answer stands."""
    try:
        yield
    except Exception:
        journal.failure(source=asking.key)


def _marks(asking: _Asking, head: Head | None) -> dict[str, float]:
    try:
        return snapshots.marks(asking.deployment.store, asking.source, head)
    except Lost:
        return {}


def _limit(asking: _Asking) -> None:
    """So that nobody makes us hammer a party by asking anew all the time."""
    now = time.monotonic()
    begun = asking.deployment.begun.setdefault(asking.key, [])
    begun[:] = [at for at in begun if now - at < 60]
    if len(begun) >= _FORCED:
        raise RateLimited(max(1, round(60 - (now - begun[0]))),
                          "This source was listed too often; wait as Retry-After says, or accept a max_age.")
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
    row = asking.deployment.store.get("breaker", asking.key)
    if row and (breaker := _read_breaker(row.value)) and (row.version != version or breaker.at > asking.arrived):
        raise breaker.error(None)
    return None


@contextmanager
def _lease(asking: _Asking) -> Generator[None]:
    """Raises Conflict if somebody else has it. It ends by itself if its holder dies."""
    store, mine = asking.deployment.store, secrets.token_bytes(8)
    seconds = max(1.0, asking.deadline - time.monotonic()) + 1
    try:
        store.put("lease", asking.key, mine, version=0, expires=int(asking.deployment.clock() + seconds) + 1)
    except Conflict:
        raise
    except Exception:                       # a store that cannot be written to: better asked twice than not at all
        journal.failure(source=asking.key)
    try:
        yield
    finally:
        with _unspoilt(asking):
            row = store.get("lease", asking.key)
            if row and row.value == mine:
                store.delete("lease", asking.key)


# ---------------------------------------------------------------- the breaker

class _Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """A source's last failure. `failures`: in a row; `opened`: how often the breaker did; `until`: open till then."""

    word: str
    text: str
    at: float
    failures: int = 0
    opened: int = 0
    until: float = 0.0

    def error(self, seconds: float | None) -> PartyError | UnknownRegion:
        """The failure again. `seconds`: after which asking can help."""
        if self.word == UnknownRegion.word:
            return UnknownRegion(self.text)
        return _KINDS.get(self.word, errors.PartyFailed)(self.text, retry_after=seconds)


_KINDS = {kind.word: kind for kind in (
    errors.PartyDenied, errors.PartyMalformed, errors.PartyFailed, errors.PartyThrottled, errors.PartyUnavailable,
    errors.PartyTimeout)}
_decode_breaker = msgspec.msgpack.Decoder(_Breaker).decode


def _open_breaker(asking: _Asking) -> tuple[_Breaker | None, int]:
    """What is known of failures, and the version of its row. Raises the last one while the breaker is open."""
    row, now = asking.deployment.store.get("breaker", asking.key), asking.deployment.clock()
    if row is None:
        return None, 0
    breaker = _read_breaker(row.value)
    if breaker and breaker.until > now:
        raise breaker.error(breaker.until - now)
    return breaker, row.version


def _read_breaker(value: bytes) -> _Breaker | None:
    try:
        return _decode_breaker(value)
    except msgspec.DecodeError:
        return None                         # of another version: as good as none


def _failed(asking: _Asking, failure: PartyError | UnknownRegion) -> None:
    """Refused credentials and unknown regions are told to whoever waits, but open nothing: they are no outage.
    Nor is what we refused ourselves, to keep the party's rate: the party has said nothing then."""
    store, now = asking.deployment.store, asking.deployment.clock()
    ours = isinstance(failure, PartyThrottled) and failure.http_status is None
    for _ in range(3):
        row = store.get("breaker", asking.key)
        before = (_read_breaker(row.value) if row else None) or _Breaker(word="", text="", at=0)
        running = before.failures if now - before.at <= max(_FAILURE_SECONDS, before.until - before.at + 60) else 0
        failures = (0 if isinstance(failure, (PartyDenied, UnknownRegion)) else running if ours else running + 1)
        opened, until = before.opened, 0.0
        if before.until > now and failures:                     # who had asked before it opened
            until = before.until
        elif failures >= _FAILURES and not ours:
            opened, until = opened + 1, now + _OPEN_SECONDS[min(opened, len(_OPEN_SECONDS) - 1)]
        breaker = _Breaker(word=failure.word, text=failure.text, at=now, failures=failures, opened=opened, until=until)
        with suppress(Conflict):
            store.put("breaker", asking.key, msgspec.msgpack.encode(breaker), version=row.version if row else 0,
                      expires=int(now) + _FAILURES_KEPT)
            break
    if not _is_there(asking):               # the account went meanwhile: nothing of it stays
        snapshots.forget(store, asking.source)


def last_failures(deployment: Deployment) -> dict[Source, float]:
    """When each source failed last, if that is not long ago."""
    return {snapshots.source_of_key(key): breaker.at for key, row in deployment.store.list("breaker")
            if (breaker := _read_breaker(row.value))}


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand with a source. `failed_at`: when it failed last (Unix time), 0 if nothing is known; `failures`:
    in a row; `open_until`: till when the breaker lets nobody ask; `leased`: somebody is listing it."""

    failed_at: float
    word: str
    failures: int
    open_until: float
    leased: bool


def standing(deployment: Deployment, source: Source) -> Standing:
    key = snapshots.key_of(source)
    row, leased = deployment.store.get("breaker", key), deployment.store.get("lease", key) is not None
    last = (_read_breaker(row.value) if row else None) or _Breaker(word="", text="", at=0)
    return Standing(last.at, last.word, last.failures, last.until, leased)


# ---------------------------------------------------------------- which regions there are

class _Regions(msgspec.Struct, frozen=True, kw_only=True):
    """The codes that the party said are open to the account of this revision, and when."""

    revision: str
    at: float
    codes: tuple[str, ...]


_decode_regions = msgspec.msgpack.Decoder(_Regions).decode


def open_regions(deployment: Deployment, tenant_id: str, party_name: str, policy: Policy, deadline: float,
                 tally: Tally | None = None) -> tuple[str, ...]:
    """Codes of the regions that the party says are open to the account. Asked once an hour, by one caller at a time;
    if the party fails, what it said last will do as long as a list would. Raises PartyError, UnknownRegion."""
    revision, party = accounts.find(deployment.store, tenant_id, party_name).revision, parties.load(party_name)
    asking = _Asking(deployment, Source(tenant_id, party_name, EVERY_REGION), revision, Filter(), WHOLE, policy,
                     deployment.clock(), deadline, tally)
    kept = _kept_regions(asking)
    if kept and (policy.cached or asking.arrived - kept.at <= _REGIONS_SECONDS):
        return kept.codes
    if policy.cached:
        raise PartyTimeout(_NONE_KEPT)

    def ask() -> _Regions:
        found = _call(asking, party.default_region, party.list_regions)
        said = _Regions(revision=revision, at=deployment.clock(),
                        codes=tuple(region.code for region in found if region.open))
        with _unspoilt(asking):
            deployment.store.put("regions", asking.key, msgspec.msgpack.encode(said),
                                 expires=int(said.at) + _INTEREST_SECONDS)
            if not _is_there(asking):
                snapshots.forget(deployment.store, asking.source)
        return said

    def look() -> _Regions | None:
        newer = _kept_regions(asking)
        return newer if newer and (kept is None or newer.at > kept.at) else None

    try:
        _, version = _open_breaker(asking)
        return _in_turn(asking, version, ask, look).codes
    except PartyError as failure:
        if kept and deployment.clock() - kept.at <= _bearable(policy, failure):
            return kept.codes
        raise


def _kept_regions(asking: _Asking) -> _Regions | None:
    row = asking.deployment.store.get("regions", asking.key)
    try:
        kept = _decode_regions(row.value) if row else None
    except msgspec.DecodeError:
        return None
    return kept if kept and kept.revision == asking.revision else None


# ---------------------------------------------------------------- who is being read

def note_reading(deployment: Deployment, source: Source) -> None:
    """So that the schedule refreshes more often what is being read; one small write in ten minutes at most."""
    key, now = snapshots.key_of(source), deployment.clock()
    if now - deployment.noted.get(key, 0.0) < _NOTED_SECONDS:
        return
    deployment.noted[key] = now             # before it is, so that of many callers one writes
    try:
        deployment.store.put("interest", key, b"%d" % now, expires=int(now) + _INTEREST_SECONDS)
    except Exception:                       # that it cannot be written down does not spoil the answer
        journal.failure(source=key)


def forget_reading(deployment: Deployment, source: Source) -> None:
    """The party has no such region: nobody shall ask for it again and again."""
    key = snapshots.key_of(source)
    deployment.noted.pop(key, None)
    deployment.store.delete("interest", key)
