"""Which lists are due to be refreshed, and the work of one refresh message.

On AWS a schedule spreads what is due over a queue, one message per source, and workers take them; on one machine
`twocloud refresh` and `serve --refresh` do the same work in a loop. A message says only which source: whoever gets
it twice, late or out of order refreshes once more, or not at all if the list is younger than the message.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from math import inf

import msgspec

from .. import log, parties
from ..access import accounts
from ..cloud.sender import CallStats
from ..errors import AccountNotFound, Internal, PartyError, RateLimited, TwocloudError, UnknownRegion
from ..model import Source
from ..storage import snapshots
from . import circuit_breaker, one_source
from .deployment import Deployment

RUN_EVERY = 300                             # seconds between the runs of the schedule on AWS
READ_EVERY = 300                            # seconds between refreshes of a source read in the last hour,
IDLE_EVERY = 3600                           # of one read in the last day,
REST_EVERY = 21_600                         # and of one that nobody reads
SPREAD = 240                                # seconds over which one run's messages are spread
REFRESH_SECONDS = 120.0                     # which one refresh may take
_OVERDUE = 1800                             # seconds past its time after which a list is called overdue
_NAMED = 10                                 # overdue lists that one line names
_WORKERS = 8


class Message(msgspec.Struct, frozen=True):
    """Refresh this source, unless its list began after `due` (Unix time). A newer version may add fields."""

    tenant_id: str
    party: str
    region: str
    due: float

    @property
    def source(self) -> Source:
        return Source(self.tenant_id, self.party, self.region)


@dataclass(frozen=True, slots=True)
class Result:
    """What a refresh gave. `total` None: it failed with `error`, or there was nothing to do (both None)."""

    source: Source
    total: int | None = None
    error: TwocloudError | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """`age` of its list, `idle` since it was last read, `tried` since asking for it last failed; seconds, infinite if
    never."""

    age: float
    idle: float
    tried: float


def known(deployment: Deployment) -> dict[Source, _Known]:
    """What accounts name as their regions, and what was asked for in the last month."""
    store, now = deployment.store, deployment.clock()
    rows = {(row.tenant_id, row.party): row for row in accounts.readable(store)}
    seen = {source: head.seen_at for source, head in snapshots.heads(store)     # of 100,000 heads no more than this
             if (row := rows.get((source.tenant_id, source.party))) and row.revision == head.revision}
    read = {snapshots.source_of_key(key): float(row.value) for key, row in store.list("interest")}
    failed = circuit_breaker.last_failures(deployment)
    found = {Source(row.tenant_id, row.party, region) for row in rows.values() for region in row.regions}
    found |= {source for source in read if (source.tenant_id, source.party) in rows}
    return {source: _Known(now - seen[source] if source in seen else inf,
                           now - read[source] if source in read else inf,
                           now - failed[source] if source in failed else inf) for source in found}


@dataclass(frozen=True, slots=True)
class Survey:
    """`due`: what is to be refreshed now. Of those that somebody has read in the last day, for who never reads waits
    for nothing: `oldest` is the age of the oldest list, `late` how far the worst is past its time (seconds), `overdue`
    those that are past it by more than half an hour or that have no list because asking fails."""

    known: int
    due: list[Source]
    oldest: int
    late: int
    overdue: list[Source]


def survey(deployment: Deployment) -> Survey:
    found = known(deployment)

    def ordered(ages: dict[Source, float]) -> list[Source]:
        return sorted(ages, key=lambda source: (-ages[source], source.tenant_id, source.party, source.region))

    # a tenth early: the next run may come a little later than it should
    waiting = {source: it.age for source, it in found.items() if min(it.age, it.tried) >= every(it.idle) * 0.9}
    read = {source: it for source, it in found.items() if every(it.idle) != REST_EVERY}
    late = {source: it.age - every(it.idle) for source, it in read.items() if it.age < inf}
    overdue = {source: read[source].age for source, seconds in late.items() if seconds > _OVERDUE}
    overdue |= {source: inf for source, it in read.items() if it.age == inf and it.tried < inf}
    return Survey(len(found), ordered(waiting), round(max((read[source].age for source in late), default=0)),
                  max(0, round(max(late.values(), default=0))), ordered(overdue))


def due(deployment: Deployment) -> list[Source]:
    """Every known source whose list is older than it should be, the least fresh first. One that fails is tried no more
    often than it would be refreshed, or than once an hour."""
    return survey(deployment).due


def every(idle: float) -> int:
    """Seconds between the refreshes of a source that was last read so long ago."""
    return READ_EVERY if idle < 3600 else IDLE_EVERY if idle < 86_400 else REST_EVERY


# ---------------------------------------------------------------- when it ran

class _Run(msgspec.Struct, frozen=True):
    """The schedule's last run, and how many seconds after it the next one is meant to come."""

    at: float
    every: int


@dataclass(frozen=True, slots=True)
class LastRun:
    """`age`: seconds. `late`: two runs did not come."""

    age: int
    late: bool


def finish(deployment: Deployment, found: Survey, every: int, **fields: object) -> None:
    """End a run: log what it found, and store its time for /twocloud/health."""
    log.logger.info("spread", extra={"fields": {
        **fields, "known": found.known, "due": len(found.due), "oldest": found.oldest, "late": found.late,
        "overdue": len(found.overdue), "overdue_sources": [snapshots.key_of(it) for it in found.overdue[:_NAMED]]}})
    deployment.store.put("health", "schedule", msgspec.msgpack.encode(_Run(deployment.clock(), every)))


def last_run(deployment: Deployment) -> LastRun | None:
    """None: none ever ran, or none that this version can read. One read of the store; raises what the store raises."""
    row = deployment.store.get("health", "schedule")
    try:
        run = msgspec.msgpack.decode(row.value, type=_Run) if row else None
    except msgspec.DecodeError:
        return None
    age = max(0, int(deployment.clock() - run.at)) if run else 0
    return LastRun(age, age > 3 * run.every) if run else None


# ---------------------------------------------------------------- messages

def messages(deployment: Deployment, jitter: Callable[[], float] = random.random,
             waiting: Sequence[Source] | None = None) -> Iterator[tuple[Message, int]]:
    """(message, seconds to delay it) for each source that is due: the least fresh soonest, none all at once."""
    if waiting is None:
        waiting = due(deployment)
    for n, source in enumerate(waiting):
        message = Message(source.tenant_id, source.party, source.region, deployment.clock())
        yield message, int(SPREAD * (n + jitter()) / len(waiting))


def read(body: str) -> Message:
    """Raises msgspec.DecodeError (a ValueError) for what is no message of ours."""
    return msgspec.json.decode(body, type=Message)


def write(message: Message) -> str:
    return msgspec.json.encode(message).decode()


def work(deployment: Deployment, message: Message, deadline: float | None = None) -> Result:
    """Refresh one source. A failure of the party is a result: the last list stays, and the next run tries again.

    What is raised is our own fault: the queue gives the message again.
    """
    source, started, stats = message.source, time.monotonic(), CallStats()
    result = _work(deployment, message, deadline or started + REFRESH_SECONDS, stats)
    error = result.error
    log.logger.info("refresh", extra={"fields": {
        "tenant": source.tenant_id, "party": source.party, "region": source.region, "total": result.total,
        "error": error.word if error else None,
        "party_word": (error.party_code or None) if isinstance(error, PartyError) else None,
        "milliseconds": round((time.monotonic() - started) * 1000, 1), **stats.line()}})
    return result


def _work(deployment: Deployment, message: Message, deadline: float, stats: CallStats) -> Result:
    source = message.source
    if parties.load(source.party).region(source.region) != source.region:
        raise Internal("A queue message names a region by its alias.")
    try:
        revision = accounts.find(deployment.store, source.tenant_id, source.party).revision
        head = snapshots.find(deployment.store, source, revision)
        if head and head.seen_at >= message.due:
            return Result(source)
        return Result(source, one_source.refresh(deployment, source, deadline, stats).total)
    except AccountNotFound:                 # it went while the message waited
        snapshots.forget(deployment.store, source)
        return Result(source)
    except (PartyError, UnknownRegion, RateLimited) as error:
        return Result(source, error=error)


def run(deployment: Deployment, wanted: Iterable[Source], workers: int = _WORKERS) -> Iterator[Result]:
    """Refresh these sources here and now, some side by side; results as they come. Who stops taking them waits for
    nothing that is still under way."""
    now = deployment.clock()

    def refresh(source: Source) -> Result:
        try:
            return work(deployment, Message(source.tenant_id, source.party, source.region, now))
        except Internal as error:
            log.failure(source=snapshots.key_of(source))
            return Result(source, error=error)
        except Exception:                   # one that breaks does not keep the others from being refreshed
            log.failure(source=snapshots.key_of(source))
            return Result(source, error=Internal())

    pool = ThreadPoolExecutor(workers, thread_name_prefix="twocloud-refresh")
    try:
        for done in as_completed([pool.submit(log.carried(refresh), source) for source in wanted]):
            yield done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
