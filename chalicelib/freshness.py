"""One source's servers, as fresh as the caller wants: a snapshot, the party itself, or the last good list, marked.

Many callers of one source cost one listing: whoever gets the lease lists, the others wait for its snapshot or share
its failure. A breaker keeps a party that fails from being asked by everybody: after eight failures in a row it opens
for ten seconds, then longer, and one caller at a time tries again. Both are rows of the store, for every process.
"""

import random
import secrets
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec

from chalicelib import accounts, errors, journal, parties, snapshots
from chalicelib.deployment import Deployment
from chalicelib.errors import AccountNotFound, Conflict, Lost, PartyDenied, PartyError, PartyTimeout, RateLimited
from chalicelib.model import WHOLE, Account, Listing, Server, Source, Window
from chalicelib.snapshots import Head
from chalicelib.transport import Tally

REQUEST_SECONDS = 25.0                      # in which every request is answered
_ANSWER_SECONDS = 2.0                       # of it, kept for what comes after the party
_DENIED_SECONDS = 900                       # refused credentials are no outage: how long the last list still serves
_FAILURES = 8                               # in a row, a minute apart at most, after which the breaker opens
_FAILURE_SECONDS = 60
_OPEN_SECONDS = (10, 30, 60, 120, 300)      # for the first, second, … time
_NOTED_SECONDS = 600                        # a source that is read is written down again after this
_INTEREST_SECONDS = 30 * 86_400             # and forgotten after this
_FORCED = 600                               # whole listings of a source that one process begins in a minute


@dataclass(frozen=True, slots=True)
class Policy:
    """What a caller accepts. `max_age`: seconds, 0: ask the party. `stale`: seconds that the last good list may be old
    if the party fails, 0: none. `cached`: never ask the party."""

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


# ---------------------------------------------------------------- one source

def obtain(deployment: Deployment, source: Source, window: Window = WHOLE, wanted: Filter = Filter(),
           policy: Policy = Policy(), deadline: float | None = None, tally: Tally | None = None) -> Answer:
    """`tally` is filled with what was called. Raises AccountNotFound, PartyError, UnknownRegion, RateLimited."""
    revision = accounts.find(deployment.store, source.tenant_id, source.party).revision
    asking = _Asking(deployment, source, revision, wanted, window, policy, deployment.clock(),
                     deadline or time.monotonic() + REQUEST_SECONDS, tally)
    note_reading(deployment, source)
    head = snapshots.find(deployment.store, source, revision)
    if head and (policy.cached or (policy.max_age and asking.arrived - head.seen_at <= policy.max_age)):
        with suppress(Lost):
            return _kept(asking, head)
    if policy.cached:
        raise PartyTimeout("No list of this source is kept that is young enough, and the request forbids asking.")
    try:
        return _live(asking, head)
    except PartyError as failure:
        limit = min(policy.stale, _DENIED_SECONDS) if isinstance(failure, PartyDenied) else policy.stale
        head = snapshots.find(deployment.store, source, revision)
        if head and deployment.clock() - head.seen_at <= limit and limit:
            with suppress(Lost):
                return replace(_kept(asking, head), failure=failure)
        raise


def refresh(deployment: Deployment, source: Source, deadline: float) -> Answer:
    """List the source and keep it. Raises AccountNotFound, PartyError, UnknownRegion."""
    revision = accounts.find(deployment.store, source.tenant_id, source.party).revision
    asking = _Asking(deployment, source, revision, Filter(), WHOLE, Policy(), deployment.clock(), deadline, None)
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
    breaker = _breaker(asking)
    now = asking.deployment.clock()
    if breaker and breaker.until > now:
        raise breaker.error(breaker.until - now)
    part = not asking.wanted and asking.window.last is not None
    if not part:
        return _whole(asking, head)
    # only a probe needs the lease for a part of the list
    with suppress(Conflict), _lease(asking) if breaker and breaker.until else nullcontext():
        seen_at, listing = asking.deployment.clock(), _ask(asking, asking.window)
        if asking.window.first == 1 and listing.total == len(listing.servers):
            head = _save(asking, listing.servers, seen_at) or head
        return _answer(asking, listing, _marks(asking, head), seen_at, kept=False)
    assert breaker
    raise breaker.error(1.0)


def _whole(asking: _Asking, head: Head | None) -> Answer:
    """List it all, or wait for whoever does."""
    pause = 0.02
    while True:
        with suppress(Conflict), _lease(asking):
            _limit(asking)
            seen_at, listing = asking.deployment.clock(), _ask(asking, WHOLE)
            if head and head.total and not listing.servers:     # all gone? the party is asked twice
                listing = _ask(asking, WHOLE)
            head = _save(asking, listing.servers, seen_at) or head
            whole = _answer(asking, listing, _marks(asking, head), seen_at, kept=False)
            window = asking.window if not asking.wanted else WHOLE
            return replace(whole, servers=whole.servers[window.first - 1:window.last])
        if time.monotonic() + pause > asking.deadline - _ANSWER_SECONDS:
            raise PartyTimeout()
        time.sleep(pause + random.uniform(0, pause))
        pause = min(pause * 1.5, 0.4)
        newer = snapshots.find(asking.deployment.store, asking.source, asking.revision)
        if newer and (head is None or newer.serial != head.serial):
            with suppress(Lost):
                return _kept(asking, newer)
        breaker = _breaker(asking)
        if breaker and breaker.at >= asking.arrived:
            raise breaker.error(None)


def _ask(asking: _Asking, window: Window) -> Listing:
    deployment, source = asking.deployment, asking.source
    account = open_account(deployment, source.tenant_id, source.party)
    sender = deployment.transport.sender(parties.load(source.party), account, source.region,
                                         asking.deadline - _ANSWER_SECONDS)
    if asking.tally is not None:
        sender.tally = asking.tally
    try:
        listing = parties.list_servers(source, account, window, sender)
    except PartyError as failure:
        _failed(asking, failure)
        raise
    finally:
        sender.close()
    if _breaker(asking):
        deployment.store.delete("breaker", snapshots.key_of(source))
    return listing


def open_account(deployment: Deployment, tenant_id: str, party: str) -> Account:
    return accounts.load(deployment.store, deployment.sealer, tenant_id, party, local=deployment.settings.local)


def _save(asking: _Asking, servers: list[Server], seen_at: float) -> Head | None:
    """Keep the list. That it cannot be kept does not spoil the answer."""
    deployment, source = asking.deployment, asking.source
    try:
        head = snapshots.save(deployment.store, source, asking.revision, servers, seen_at,
                              history=deployment.settings.history * 86_400)
        with suppress(AccountNotFound):
            if accounts.find(deployment.store, source.tenant_id, source.party).revision == asking.revision:
                return head
        snapshots.forget(deployment.store, source)              # the account went or was put anew meanwhile
    except Exception:
        journal.failure(store="snapshot", key=snapshots.key_of(source))
    return None


def _marks(asking: _Asking, head: Head | None) -> dict[str, float]:
    try:
        return snapshots.marks(asking.deployment.store, asking.source, head)
    except Lost:
        return {}


def _limit(asking: _Asking) -> None:
    """So that nobody makes us hammer a party by asking anew all the time."""
    key, now = f"listings of {snapshots.key_of(asking.source)}", time.monotonic()
    begun = asking.deployment.begun.setdefault(key, [])
    begun[:] = [at for at in begun if now - at < 60]
    if len(begun) >= _FORCED:
        raise RateLimited(max(1, round(60 - (now - begun[0]))),
                          "This source was listed too often; wait as Retry-After says, or accept a max_age.")
    begun.append(now)


# ---------------------------------------------------------------- the lease

@contextmanager
def _lease(asking: _Asking) -> Generator[None]:
    """Raises Conflict if somebody else has it. It ends by itself if its holder dies."""
    store, key, mine = asking.deployment.store, snapshots.key_of(asking.source), secrets.token_bytes(8)
    seconds = max(1.0, asking.deadline - time.monotonic()) + 1
    store.put("lease", key, mine, version=0, expires=int(asking.deployment.clock() + seconds) + 1)
    try:
        yield
    finally:
        row = store.get("lease", key)
        if row and row.value == mine:
            store.delete("lease", key)


# ---------------------------------------------------------------- the breaker

class _Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """A source's last failure. `failures`: in a row; `opened`: how often the breaker did; `until`: open till then."""

    word: str
    text: str
    at: float
    failures: int = 0
    opened: int = 0
    until: float = 0.0

    def error(self, seconds: float | None) -> PartyError:
        """The failure again. `seconds`: after which asking can help."""
        return _KINDS.get(self.word, errors.PartyFailed)(self.text, retry_after=seconds)


_KINDS = {kind.word: kind for kind in (
    errors.PartyDenied, errors.PartyMalformed, errors.PartyFailed, errors.PartyThrottled, errors.PartyUnavailable,
    errors.PartyTimeout)}
_decode_breaker = msgspec.msgpack.Decoder(_Breaker).decode


def _breaker(asking: _Asking) -> _Breaker | None:
    row = asking.deployment.store.get("breaker", snapshots.key_of(asking.source))
    return _read_breaker(row.value) if row else None


def _read_breaker(value: bytes) -> _Breaker | None:
    try:
        return _decode_breaker(value)
    except msgspec.DecodeError:
        return None                         # of another version: as good as none


def _failed(asking: _Asking, failure: PartyError) -> None:
    """Refused credentials are told to whoever waits, but open nothing: they are no outage."""
    store, key, now = asking.deployment.store, snapshots.key_of(asking.source), asking.deployment.clock()
    for _ in range(3):
        row = store.get("breaker", key)
        before = (_read_breaker(row.value) if row else None) or _Breaker(word="", text="", at=0)
        running = before.failures if now - before.at <= max(_FAILURE_SECONDS, before.until - before.at + 60) else 0
        failures = 0 if isinstance(failure, PartyDenied) else running + 1
        opens = failures >= _FAILURES
        seconds = _OPEN_SECONDS[min(before.opened, len(_OPEN_SECONDS) - 1)]
        breaker = _Breaker(word=failure.word, text=failure.text, at=now, failures=failures,
                           opened=before.opened + 1 if opens else before.opened, until=now + seconds if opens else 0.0)
        with suppress(Conflict):
            store.put("breaker", key, msgspec.msgpack.encode(breaker), version=row.version if row else 0,
                      expires=int(now) + 3600)
            return


# ---------------------------------------------------------------- who is being read

def note_reading(deployment: Deployment, source: Source) -> None:
    """So that the schedule refreshes more often what is being read; one small write in ten minutes at most."""
    key, now = snapshots.key_of(source), deployment.clock()
    if now - deployment.noted.get(key, 0.0) < _NOTED_SECONDS:
        return
    deployment.noted[key] = now
    deployment.store.put("interest", key, b"%d" % now, expires=int(now) + _INTEREST_SECONDS)
