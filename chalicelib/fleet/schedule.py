"""Which lists are due to be refreshed, and the work of one refresh message.

On AWS a schedule spreads what is due over a queue, one message per source, and workers take them; on one machine
`twocloud refresh` and `serve --refresh` do the same work in a loop. A message says only which source: whoever gets
it twice, late or out of order refreshes once more, or not at all if the list is younger than the message. Sources that
their party lists together have one message.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from math import inf
from queue import SimpleQueue

import msgspec

from .. import log, parties
from ..access import accounts
from ..access.accounts import AccountRow
from ..cloud.calls import CallStats
from ..errors import AccountNotFound, Internal, PartyError, RateLimited, TwocloudError, UnknownRegion
from ..model import DEFAULT_ACCOUNT, Source
from ..storage import snapshots
from . import circuit_breaker, known_members, known_regions, one_source, organisations
from .deployment import Deployment
from .interest import last_read
from .known_members import Members
from .lookup import Lookup, NamedAccount
from .together import Together, by_source, grouped

RUN_EVERY = 300                             # seconds between the runs of the schedule on AWS
READ_EVERY = 300                            # seconds between refreshes of a source read in the last hour,
IDLE_EVERY = 3600                           # of one read in the last day,
REST_EVERY = 21_600                         # and of one that nobody reads
RETRY_AFTER = 3600                          # seconds after which one that failed is tried again, if that is sooner
SPREAD = 240                                # seconds over which one run's messages are spread
REFRESH_SECONDS = 120.0                     # which one refresh may take
_OVERDUE = 1800                             # seconds past its time after which a list is called overdue
_NAMED = 10                                 # overdue lists that one line names
_WORKERS = 8


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """Refresh this source, unless its list began after `due` (Unix time). A newer version may add fields. `also`:
    account and region of others behind its door, which the party lists together with it."""

    tenant_id: str
    party: str
    region: str
    due: float
    account: str = DEFAULT_ACCOUNT
    also: tuple[tuple[str, str], ...] = ()

    @property
    def source(self) -> Source:
        return Source(self.tenant_id, self.party, self.region, self.account)

    @property
    def sources(self) -> list[Source]:
        return [self.source, *(Source(self.tenant_id, self.party, region, account) for account, region in self.also)]


class Result(msgspec.Struct, frozen=True):
    """What a refresh gave. `total` None: it failed with `error`, or there was nothing to do (both None)."""

    source: Source
    total: int | None = None
    error: TwocloudError | None = None


class _Age(msgspec.Struct, frozen=True):
    """`age` of its list, `idle` since it was last read, `tried` since listing it last failed; seconds, infinite if
    never."""

    age: float
    idle: float
    tried: float


class _Stored(msgspec.Struct, frozen=True):
    """What one run reads of the store once. `accounts`: each with what its last look-up found, if it is a door;
    `failed`: when listing a source last failed (Unix time)."""

    accounts: list[tuple[AccountRow, Members | None]]
    failed: dict[Source, float]


def _stored(deployment: Deployment) -> _Stored:
    return _Stored(_accounts(deployment), circuit_breaker.last_failures(deployment))


def _accounts(deployment: Deployment) -> list[tuple[AccountRow, Members | None]]:
    store = deployment.store
    rows = accounts.sort_out(accounts.rows(store))[0].values()
    behind = dict(store.list("members")) if any(row.discover for row in rows) else {}

    def members(row: AccountRow) -> Members | None:
        _, key = known_members.place_of(row.tenant_id, row.party, row.account)
        return known_members.members_in(behind.get(key), row.revision) if row.discover else None

    return [(row, members(row)) for row in rows]


def known(deployment: Deployment) -> dict[Source, _Age]:
    """What accounts name as their regions, and what was asked for in the last month."""
    return _known(deployment, _stored(deployment))


def _known(deployment: Deployment, stored: _Stored) -> dict[Source, _Age]:
    store, now, failed = deployment.store, deployment.clock(), stored.failed
    known_accounts = _queried(stored.accounts)
    revisions = {account.key: account.row.revision for account in known_accounts}
    seen_at = {source: head.seen_at for source, head in snapshots.heads(store)     # of 100,000 heads no more than this
               if revisions.get(snapshots.account_key_of(source)) == head.revision}
    read = {snapshots.source_of_key(key): last_read(row) for key, row in store.list("interest")}
    sources = {account.source(region) for account in known_accounts for region in account.row.regions}
    sources |= {source for source in read if snapshots.account_key_of(source) in revisions}
    return {source: _Age(now - seen_at[source] if source in seen_at else inf,
                           now - read[source] if source in read else inf,
                           now - failed[source] if source in failed else inf) for source in sources}


def queried(deployment: Deployment) -> list[NamedAccount]:
    """The accounts that are queried: those that were put, and the members behind those that are doors to others, as
    the last look-up found them."""
    return _queried(_accounts(deployment))


def _queried(rows: Iterable[tuple[AccountRow, Members | None]]) -> list[NamedAccount]:
    to_query: list[NamedAccount] = []
    for row, last in rows:
        to_query += [NamedAccount(row, member) for member in (last.open() if last else ())] if row.discover else [
            NamedAccount(row)]
    return to_query


class Survey(msgspec.Struct, frozen=True):
    """`due`: what is to be refreshed now. `doors`: accounts with --discover whose members are to be looked up, each as
    a source of every region. Of those that somebody has read in the last day, for who never reads waits for nothing:
    `oldest` is the age of the oldest list, `late` how far the worst is past its time (seconds), `overdue` those that
    are past it by more than half an hour or that have no list because asking fails."""

    known: int
    due: list[Source]
    oldest: int
    late: int
    overdue: list[Source]
    doors: list[Source]

    @property
    def messages(self) -> list[Source]:
        """What there is to do: doors first, so that their members are known to the next run."""
        return [*self.doors, *self.due]


def survey(deployment: Deployment) -> Survey:
    stored = _stored(deployment)
    sources = _known(deployment, stored)

    def ordered(ages: dict[Source, float]) -> list[Source]:
        return sorted(ages, key=lambda source: (-ages[source], source.order))

    # a tenth early: the next run may come a little later than it should
    waiting = {source: it.age for source, it in sources.items()
               if min(it.age, it.tried if it.tried < RETRY_AFTER else inf) >= every(it.idle) * 0.9}
    read = {source: it for source, it in sources.items() if every(it.idle) != REST_EVERY}
    late = {source: it.age - every(it.idle) for source, it in read.items() if it.age < inf}
    overdue = {source: read[source].age for source, seconds in late.items() if seconds > _OVERDUE}
    overdue |= {source: inf for source, it in read.items() if it.age == inf and it.tried < inf}
    return Survey(len(sources), ordered(waiting), round(max((read[source].age for source in late), default=0)),
                  max(0, round(max(late.values(), default=0))), ordered(overdue), _doors(stored, deployment.clock()))


def _doors(stored: _Stored, now: float) -> list[Source]:
    """The accounts whose members were not looked up in the last hour, nor failed to be."""
    looked_up = {NamedAccount(row).source(known_regions.EVERY): last.at if last else -inf
                 for row, last in stored.accounts if row.discover}
    return [door for door, at in looked_up.items()
            if now - max(at, stored.failed.get(door, -inf)) > known_members.BELIEVED_SECONDS]


def due(deployment: Deployment) -> list[Source]:
    """Every known source whose list is older than it should be, the least fresh first. One that fails is tried no more
    often than it would be refreshed, or than once an hour."""
    return survey(deployment).due


def every(idle: float) -> int:
    """Seconds between the refreshes of a source that was last read so long ago."""
    return READ_EVERY if idle < 3600 else IDLE_EVERY if idle < 86_400 else REST_EVERY


_read_message = msgspec.json.Decoder(Message).decode


# ---------------------------------------------------------------- when it ran

class _Run(msgspec.Struct, frozen=True):
    """The schedule's last run, and how many seconds after it the next one is meant to come."""

    at: float
    every: int


_read_run = msgspec.msgpack.Decoder(_Run).decode


class LastRun(msgspec.Struct, frozen=True):
    """`age`: seconds. `late`: two runs did not come."""

    age: int
    late: bool


def finish(deployment: Deployment, run: Survey, every: int, **fields: object) -> None:
    """End a run: log what it found, and store its time for /twocloud/health."""
    log.logger.info("spread", extra={"fields": {
        **fields, "known": run.known, "due": len(run.due), "oldest": run.oldest, "late": run.late,
        "overdue": len(run.overdue), "overdue_sources": [snapshots.key_of(it) for it in run.overdue[:_NAMED]]}})
    deployment.store.put("health", "schedule", msgspec.msgpack.encode(_Run(deployment.clock(), every)))


def last_run(deployment: Deployment) -> LastRun | None:
    """None: none ever ran, or none that this version can read. One read of the store; raises what the store raises."""
    row = deployment.store.get("health", "schedule")
    try:
        run = _read_run(row.value) if row else None
    except ValueError:
        return None
    age = max(0, int(deployment.clock() - run.at)) if run else 0
    return LastRun(age, age > 3 * run.every) if run else None


# ---------------------------------------------------------------- messages

def messages(deployment: Deployment, jitter: Callable[[], float] = random.random,
             waiting: Sequence[Source] | None = None) -> Iterator[tuple[Message, int]]:
    """(message, seconds to delay it) for the sources that are due: the least fresh soonest, none all at once."""
    groups = grouped(due(deployment) if waiting is None else waiting)
    for n, group in enumerate(groups):
        message = message_of(group[0], deployment.clock(), group[1:])
        yield message, int(SPREAD * (n + jitter()) / len(groups))


def message_of(source: Source, due: float, also: Sequence[Source] = ()) -> Message:
    return Message(source.tenant_id, source.party, source.region, due, source.account,
                   tuple((other.account, other.region) for other in also))


def read(body: str) -> Message:
    """Raises ValueError for what is no message of ours."""
    return _read_message(body)


def write(message: Message) -> str:
    return msgspec.json.encode(message).decode()


def work_on(deployment: Deployment, message: Message, deadline: float | None = None) -> None:
    """Refresh the sources that a message names. Raises what `work` raises, after each was tried."""
    if not message.also:
        work(deployment, message, deadline)
        return
    failed = [result for result in _run(deployment, message.sources, message.due, deadline, _WORKERS)
              if isinstance(result.error, Internal)]
    if failed:
        raise Internal(f"{len(failed)} sources could not be refreshed.")


def work(deployment: Deployment, message: Message, deadline: float | None = None,
         together: Together | None = None) -> Result:
    """Refresh one source. A failure of the party is a result: the last list stays, and the next run tries again.

    What is raised is our own fault: the queue gives the message again.
    """
    source, started, stats = message.source, time.monotonic(), CallStats()
    result = _work(deployment, message, deadline or started + REFRESH_SECONDS, stats, together)
    error = result.error
    log.logger.info("refresh", extra={"fields": {
        "tenant": source.tenant_id, "party": source.party, "account": source.account, "region": source.region,
        "total": result.total,
        "error": error.code if error else None,
        "party_word": (error.party_code or None) if isinstance(error, PartyError) else None,
        "milliseconds": round((time.monotonic() - started) * 1000, 1), **stats.line()}})
    return result


def _work(deployment: Deployment, message: Message, deadline: float, stats: CallStats,
          together: Together | None) -> Result:
    source = message.source
    if source.region == known_regions.EVERY:
        return _look_up(deployment, source, deadline, stats)
    if source.region in parties.load(source.party).aliases or not parties.can_be_region(source.region):
        raise Internal("A queue message names no region, or one by its alias.")
    try:
        answer = one_source.refresh(deployment, source, deadline, stats, message.due, together)
        return Result(source, answer.total if answer else None)
    except AccountNotFound:                 # it went while the message waited
        snapshots.forget(deployment.store, source)
        return Result(source)
    except (PartyError, UnknownRegion, RateLimited) as error:
        return Result(source, error=error)


def _look_up(deployment: Deployment, door: Source, deadline: float, stats: CallStats) -> Result:
    """`total`: the members that are sources."""
    try:
        row = accounts.find(deployment.store, door.tenant_id, door.party, door.account)
        if not row.discover:                # it was put again
            return Result(door)
        return Result(door, len(organisations.members(Lookup(deployment, deadline=deadline, stats=stats), row)))
    except AccountNotFound:
        return Result(door)
    except (PartyError, UnknownRegion, RateLimited) as error:
        return Result(door, error=error)


class Worker:
    """Refreshes what it is sent, on threads of this process, which end with it."""

    def __init__(self, deployment: Deployment, threads: int = 2) -> None:
        self._deployment, self._most, self._started = deployment, threads, 0
        self._messages = SimpleQueue[Message | None]()

    def send(self, source: Source, due: float) -> None:
        if self._started < self._most:
            self._started += 1
            threading.Thread(target=self._run, daemon=True, name="twocloud-later").start()
        self._messages.put(message_of(source, due))

    def close(self) -> None:
        for _ in range(self._most):
            self._messages.put(None)

    def _run(self) -> None:
        while message := self._messages.get():
            try:
                work(self._deployment, message)
            except Exception:
                log.failure(source=snapshots.key_of(message.source))


def run(deployment: Deployment, wanted: Iterable[Source], workers: int = _WORKERS) -> Iterator[Result]:
    """Refresh these sources here and now, some side by side; results as they come. Who stops taking them waits for
    nothing that is still under way."""
    return _run(deployment, wanted, deployment.clock(), None, workers)


def _run(deployment: Deployment, wanted: Iterable[Source], due: float, deadline: float | None,
         workers: int) -> Iterator[Result]:
    groups = grouped(wanted)
    together = by_source([source for group in groups for source in group], deployment.clock)

    def refresh(source: Source) -> Result:
        try:
            return work(deployment, message_of(source, due), deadline, together.get(source))
        except Internal as error:
            log.failure(source=snapshots.key_of(source))
            return Result(source, error=error)
        except Exception:                   # one that breaks does not keep the others from being refreshed
            log.failure(source=snapshots.key_of(source))
            return Result(source, error=Internal())

    pool = ThreadPoolExecutor(workers, thread_name_prefix="twocloud-refresh")
    try:
        for done in as_completed([pool.submit(log.carried(refresh), source) for group in groups
                                  for source in group]):
            yield done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
