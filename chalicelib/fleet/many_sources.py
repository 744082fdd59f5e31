"""Several sources in one answer: queried concurrently, each within its share of the time.

A source that fails is stale, fails the whole answer, or is left out of it and named, as the caller chose.
"""

import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from .. import log
from ..access import accounts, tokens
from ..access.tokens import Caller
from ..cloud.sender import CallStats
from ..concurrency import run_all
from ..errors import Forbidden, PartyError, PartyTimeout, RateLimited, TwocloudError, UnknownRegion
from ..model import WHOLE, Source, Window
from ..storage import snapshots
from ..storage.snapshots import Head, Vanished
from . import regions
from .changes import check_history, list_changes
from .deployment import Deployment, open_deployment
from .interest import note_reading
from .lookup import ANSWER_SECONDS, ANY_AGE, REQUEST_SECONDS, Filter, Freshness
from .one_source import Answer, from_unix, get
from .one_source import get as list_servers
from .query import Query
from .regions import means, source_of

__all__ = ["ANY_AGE", "REQUEST_SECONDS", "Answer", "Deployment", "Filter", "Freshness", "list_servers", "means",
           "open_deployment", "source_of"]
_CONCURRENCY = 16                           # sources that are queried at the same time
_MOST_LIVE = 64                             # sources of one request that are queried if they have snapshots,
_MOST_COLD = 160                            # and if they have none; each then gets two seconds
_OVER_LIMIT = "Too many sources for one request. Name fewer parties or regions, or accept snapshots with max_age."


@dataclass(frozen=True, slots=True)
class SourceResult:
    """What one source gave to an answer over several. `count`, `age`: None if it gave nothing."""

    source: Source
    answer: Answer | None = None
    error: TwocloudError | None = None      # why it gave nothing, or why its snapshot is stale
    count: int | None = None
    age: int | None = None
    vanished: tuple[Vanished, ...] = ()

    @property
    def state(self) -> str:
        return "failed" if self.answer is None else "stale" if self.error else "ok"


@dataclass(frozen=True, slots=True)
class Inventory:
    """An answer over several sources, in their order. `total`: None if a source failed or more than one follows."""

    parts: list[SourceResult]
    total: int | None

    @property
    def complete(self) -> bool:
        return all(part.state != "failed" for part in self.parts)


def answer(deployment: Deployment, query: Query, freshness: Freshness, caller: Caller | None, deadline: float,
           stats: CallStats | None = None) -> Inventory:
    """The answer to a query, as far as the caller may see it; None: an operator, who may see everything.

    Raises Forbidden, AccountNotFound, PartyError, UnknownRegion, RateLimited, InvalidParameter.
    """
    wanted = Filter(query.status, query.name, query.ip)
    if query.changed_since is not None:
        check_history(deployment, query.changed_since)
    if query.several:
        sources, failed = regions.sources(deployment, query, caller, freshness, deadline, stats)
        plans = _plans(deployment, sources, freshness)
        return _Listing(deployment, query, wanted, plans, deadline, stats).run(failed)
    assert query.parties
    assert query.regions
    source = source_of(query.tenant_id, query.parties[0], query.regions[0])
    if caller and not tokens.allows(caller, source):
        raise Forbidden()
    if query.changed_since is not None:
        changes = list_changes(deployment, source, query.changed_since, wanted, freshness, deadline, stats)
        given, window = changes.answer, query.window
        given = replace(given, servers=given.servers[window.first - 1:window.last])
        return Inventory([_result(deployment, given, changes.vanished)], given.total)
    given = get(deployment, source, query.window, wanted, freshness, deadline, stats)
    return Inventory([_result(deployment, given)], given.total)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How one source of many is answered. `head`: of its snapshot. `live`: its party may be queried, else its snapshot
    serves. `over_limit`: there are too many sources to query its party."""

    freshness: Freshness
    head: Head | None = None
    live: bool = False
    over_limit: bool = False


@dataclass(slots=True)
class _Listing:
    """The window over the whole of all sources, in their order.

    Snapshots are read in parts, as the window wants them, where a head tells how long its list is. `position`: of the
    next source's first server, from 0.
    """

    deployment: Deployment
    query: Query
    filter: Filter
    plans: Mapping[Source, _Plan]
    deadline: float
    stats: CallStats | None
    position: int = 0
    results: dict[Source, SourceResult] = field(default_factory=dict[Source, SourceResult])

    def run(self, failed: Mapping[Source, TwocloudError]) -> Inventory:
        """`failed`: accounts whose regions are not known. Raises the first failure if the caller wants no partial
        answer."""
        with _pool() as pool:
            self._collect(pool)
        every = [*self._without_foreign_regions(),
                 *(SourceResult(source, error=error) for source, error in failed.items())]
        for result in every:
            self._check(result)
        return Inventory(sorted(every, key=lambda result: (result.source.party, result.source.region)),
                         None if any(result.answer is None for result in every) else self.position)

    def _collect(self, pool: ThreadPoolExecutor) -> None:
        plans, lengths, share = self.plans, self._known_lengths(), self._share()
        running = {source: pool.submit(log.carried(self._get), source, WHOLE, share)
                   for source in sorted(plans, key=lambda source: plans[source].live)   # snapshots first: they take
                   if source not in lengths}                                            # no time
        parts = dict[Source, Future[tuple[Answer, Sequence[Vanished]]]]()
        for source in plans:
            local = _below(self.query.window, self.position)
            if source not in lengths:
                self._add(source, running[source], local)
                continue
            self.position += lengths[source]
            if local and local.first <= lengths[source]:
                parts[source] = pool.submit(log.carried(self._get), source, local, share)
            else:
                self.results[source] = self._untouched(source)
        for source, part in parts.items():
            result = self.results[source] = self._gather(source, part, WHOLE)
            self._check(result)

    def _add(self, source: Source, running: "Future[tuple[Answer, Sequence[Vanished]]]", local: Window | None) -> None:
        """Wait for a whole list, and move on by its length."""
        result = self.results[source] = self._gather(source, running, local)
        if not self._may_be_foreign(result):
            self._check(result)
        self.position += result.answer.total or 0 if result.answer else 0       # of a whole list the total is known

    def _check(self, result: SourceResult) -> None:
        if result.error and not result.answer and self.query.on_error != "partial":
            raise result.error

    def _known_lengths(self) -> dict[Source, int]:
        """How long the lists are of which the window may need a part alone."""
        if self.query.window == WHOLE or self.filter or self.query.changed_since is not None:
            return {}
        return {source: plan.head.total for source, plan in self.plans.items() if plan.head and not plan.live}

    def _share(self) -> float:
        """Seconds that each live source may take."""
        rounds = -(-sum(plan.live for plan in self.plans.values()) // _CONCURRENCY)
        return (self.deadline - ANSWER_SECONDS - time.monotonic()) / max(1, rounds)

    def _get(self, source: Source, window: Window, share: float) -> tuple[Answer, Sequence[Vanished]]:
        plan, since = self.plans[source], self.query.changed_since
        until = min(self.deadline, time.monotonic() + share + ANSWER_SECONDS) if plan.live else self.deadline
        if since is None:
            return get(self.deployment, source, window, self.filter, plan.freshness, until, self.stats), ()
        changes = list_changes(self.deployment, source, since, self.filter, plan.freshness, until, self.stats)
        return changes.answer, changes.vanished

    def _gather(self, source: Source, running: "Future[tuple[Answer, Sequence[Vanished]]]",
                local: Window | None) -> SourceResult:
        """`local`: the part of the source's list that is wanted; None: nothing."""
        over_limit = self.plans[source].over_limit
        try:
            given, vanished = running.result(max(0.0, self.deadline - time.monotonic()))
        except (PartyError, UnknownRegion, RateLimited) as error:
            return SourceResult(source, error=PartyTimeout(_OVER_LIMIT) if over_limit else error)
        except TimeoutError:
            return SourceResult(source, error=PartyTimeout())
        given = replace(given, servers=given.servers[local.first - 1:local.last] if local else [],
                        failure=PartyTimeout(_OVER_LIMIT) if over_limit else given.failure)
        return _result(self.deployment, given, vanished)

    def _untouched(self, source: Source) -> SourceResult:
        """Of a snapshot in which the window wants nothing no more than the head is read."""
        plan = self.plans[source]
        assert plan.head
        return _result(self.deployment, Answer(
            source, [], plan.head.total, from_unix(plan.head.seen_at), kept=True,
            failure=PartyTimeout(_OVER_LIMIT) if plan.over_limit else None))

    def _without_foreign_regions(self) -> list[SourceResult]:
        """Without the parties that do not know a region, if each name that was given for it is another party's."""
        results = list(self.results.values())
        foreign = [result for result in results if self._may_be_foreign(result)]
        others = [result.source for result in results if result not in foreign]

        def is_elsewhere(source: Source) -> bool:
            names = [name for name in self.query.regions or () if means(name, source)]
            return all(any(means(name, other) for other in others) for name in names)

        return [result for result in results if result not in foreign or not is_elsewhere(result.source)]

    def _may_be_foreign(self, result: SourceResult) -> bool:
        """Whether the party does not know a region that was named beside other parties."""
        return (isinstance(result.error, UnknownRegion) and not result.answer and self.query.regions is not None
                and self.query.parties != (result.source.party,))


def _plans(deployment: Deployment, sources: Sequence[Source], freshness: Freshness) -> dict[Source, _Plan]:
    """Snapshots that are fresh enough serve; of the other sources, those with the oldest snapshots are queried."""
    heads, now = _heads(deployment, sources), deployment.clock()
    plans = {source: _Plan(freshness, head) for source, head in heads.items()
             if head and freshness.max_age and now - head.seen_at <= freshness.max_age}
    rest = sorted((source for source in sources if source not in plans),
                  key=lambda source: head.seen_at if (head := heads[source]) else 0.0)
    stale = Freshness(max_age=freshness.stale, cached=True)
    for n, source in enumerate(rest):
        head = heads[source]
        if n < (_MOST_LIVE if head else _MOST_COLD):
            plans[source] = _Plan(freshness, head, live=True)
        else:
            plans[source] = _Plan(stale, head if head and now - head.seen_at <= freshness.stale else None,
                                  over_limit=True)
    return {source: plans[source] for source in sources}


def _below(window: Window, position: int) -> Window | None:
    """The window within a source that has `position` servers before it; None if it lies before the source."""
    if window.last is not None and window.last <= position:
        return None
    return Window(max(1, window.first - position), window.last and window.last - position)


@contextmanager
def _pool() -> Generator[ThreadPoolExecutor]:
    """Threads that nothing waits for at its end; each ends by its own deadline."""
    pool = ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="twocloud-source")
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _result(deployment: Deployment, answer: Answer, vanished: Sequence[Vanished] = ()) -> SourceResult:
    age = max(0, int(deployment.clock()) - int(answer.seen_at.timestamp())) if answer.kept else 0
    return SourceResult(answer.source, answer, answer.failure, answer.total, age, tuple(vanished))


def _heads(deployment: Deployment, sources: Sequence[Source]) -> dict[Source, Head | None]:
    """Of the sources' snapshots; that they are read is noted. Raises AccountNotFound."""
    revisions = {name: accounts.find(deployment.store, tenant_id, name).revision
                 for tenant_id, name in dict.fromkeys((source.tenant_id, source.party) for source in sources)}

    def find(source: Source) -> Head | None:
        head = snapshots.find(deployment.store, source, revisions[source.party])
        if regions.is_known(deployment, source, head, revisions[source.party]):
            note_reading(deployment, source)
        return head

    queries = [lambda source=source: find(source) for source in sources]
    return dict(zip(sources, run_all(queries, _CONCURRENCY), strict=True))
