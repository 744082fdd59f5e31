"""Several sources in one answer: queried concurrently, each within its share of the time.

A source that fails is stale, fails the whole answer, or is left out of it and named, as the caller chose.
"""

import time
from collections.abc import Container, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import msgspec
from msgspec.structs import replace

from .. import log
from ..access import tokens
from ..access.accounts import AccountRow
from ..errors import (
    AccountNotFound,
    Forbidden,
    Internal,
    InvalidParameter,
    ListChanged,
    PartyError,
    PartyMalformed,
    PartyTimeout,
    RateLimited,
    TwocloudError,
    UnknownRegion,
)
from ..model import DEFAULT_ACCOUNT, WHOLE, Source, Window, titles
from ..storage import snapshots
from ..storage.snapshots import Head, Vanished
from ..storage.store import Place, Row
from . import named_lists, organisations, regions
from .changes import check_history, list_changes
from .deployment import Deployment, open_deployment
from .interest import note_reading
from .lookup import (
    ANSWER_SECONDS,
    ANY_AGE,
    NAMED,
    REQUEST_SECONDS,
    Decision,
    Filter,
    Freshness,
    Lookup,
    NamedAccount,
    SourcePlan,
    account_places,
    doubt_places,
    places_of,
)
from .one_source import Answer, chunk_places, get, list_servers, name_list
from .query import Query
from .regions import means, source_of
from .together import by_source, grouped

__all__ = ["ANY_AGE", "REQUEST_SECONDS", "Answer", "Deployment", "Filter", "Freshness", "list_servers", "means",
           "open_deployment", "source_of"]
_CONCURRENCY = 16                           # sources that are queried at the same time
_MOST_LIVE = 64                             # sources of one request that are queried if they have snapshots,
_MOST_COLD = 160                            # and if they have none; each then gets two seconds
_PLACES = 100                               # rows of snapshots in one read: what one BatchGetItem takes
_Running = Future[tuple[Answer, Sequence[Vanished]]]
_LISTED = ("It is among `all` because the party lists it or the account names it. If the account has no servers there, "
           "name its regions in the account (--region).")
_OVER_LIMIT = "Too many sources for one request. Name fewer parties or regions, or accept snapshots with max_age."


class SourceResult(msgspec.Struct, frozen=True):
    """What one source gave to an answer over several. `count`, `age`: None if it gave nothing."""

    source: Source
    answer: Answer | None = None
    error: TwocloudError | None = None      # why it gave nothing, or why its snapshot is stale
    count: int | None = None
    age: int | None = None
    vanished: tuple[Vanished, ...] = ()
    decision: Decision | None = None

    @property
    def state(self) -> str:
        return "failed" if self.answer is None else "stale" if self.error else "ok"


class Inventory(msgspec.Struct, frozen=True):
    """An answer over several sources, in their order. `total`: None if a source failed or more than one follows.
    `list_id`: of the list that this is a part of, None if that is not stored. `several`: the query means more than one
    source, whatever it found."""

    parts: list[SourceResult]
    total: int | None
    list_id: str | None = None
    several: bool = False

    @property
    def served(self) -> str:
        """Where the answer comes from: live, hit (from snapshots, also in part) or stale."""
        words = {part.decision.served for part in self.parts if part.decision}
        return "live" if words.isdisjoint(("hit", "stale")) else "hit" if words <= {"live", "hit"} else "stale"

    @property
    def failure(self) -> TwocloudError | None:
        """The first source's that failed."""
        return next((part.error for part in self.parts if part.error), None)

    @property
    def from_snapshots(self) -> list[SourceResult]:
        return [part for part in self.parts if part.answer and part.answer.kept]

    @property
    def complete(self) -> bool:
        return all(part.state != "failed" for part in self.parts)


def places(query: Query, noted: Container[str]) -> list[Place]:
    """Where the store holds what the plan of a query's one source is made of; for several sources, which depend on
    the tenant's accounts, which lists the query names. `noted`: keys of sources that are known."""
    if query.several or not query.tenants or not query.parties or not query.regions:
        return named_lists.place(query)
    name = query.accounts[0] if query.accounts else DEFAULT_ACCOUNT
    try:
        source = source_of(query.tenants[0], query.parties[0], query.regions[0], name)
    except UnknownRegion:
        return []                           # the plan will say so, in its turn
    return [*places_of(source), *doubt_places(source, noted),
            *(() if query.accounts else account_places(source.tenant_id, source.party))]


def answer(lookup: Lookup) -> Inventory:
    """The answer to the lookup's query, as far as its caller may see it.

    Raises Forbidden, AccountNotFound, PartyError, UnknownRegion, RateLimited, InvalidParameter.
    """
    return answer_of(lookup, *plan(lookup))


def plan(lookup: Lookup) -> tuple[list[SourcePlan], dict[Source, TwocloudError]]:
    """How each source of the query is answered, in their order; beside them, accounts whose parties failed to list
    their members or regions. Raises as `answer` does."""
    query = _query(lookup)
    if query.changed_since is not None:
        check_history(lookup.deployment, query.changed_since)
    wanted = Filter(query.statuses, query.name, query.ip, query.tag)
    if query.list_id is not None:
        lookup.freshness = NAMED
    source = None
    if not query.several:
        alone = InvalidParameter("on_error", "Use on_error=partial only with several sources.")
        try:
            source = _one_source(lookup, query)
        except (UnknownRegion, Forbidden, AccountNotFound):
            if query.on_error == "partial":
                raise alone from None
            raise
        if source and query.on_error == "partial":
            raise alone
    if source:
        made = lookup.plan(source, query.window if query.changed_since is None else WHOLE, wanted)
        return [made if query.list_id is None else name_list(made, query.list_id)], {}
    lookup.several = True
    sources, failed = regions.sources(lookup, query)
    if query.list_id is not None:
        return _plan_named(lookup, query, wanted), {}
    plans = _plan_many(lookup, sources, wanted)
    if not plans and not failed:
        raise AccountNotFound()
    return plans, failed


def _one_source(lookup: Lookup, query: Query) -> Source | None:
    """The source of a query for one tenant, party and region; None: it has several accounts there, or one that is a
    door to others. Raises UnknownRegion, Forbidden, AccountNotFound, PartyError, Internal."""
    assert query.tenants
    assert query.parties
    assert query.regions
    tenant_id, party = query.tenants[0], query.parties[0]
    regions.check_names(lookup, query, [party])
    source = source_of(tenant_id, party, query.regions[0])
    if lookup.caller and not tokens.allows(lookup.caller, source):
        raise Forbidden()
    if query.accounts:
        name = query.accounts[0]
        row = lookup.account(tenant_id, party, name)
        return _named(lookup, row, name).source(source.region) if ":" in name or not row.discover else None
    accounts = lookup.accounts_at(tenant_id, party)
    if len(accounts.rows) + len(accounts.damaged) > 1:
        return None
    for error in accounts.damaged.values():
        raise error
    if not accounts.rows:
        raise AccountNotFound()
    return NamedAccount(accounts.rows[0]).source(source.region) if not accounts.rows[0].discover else None


def _named(lookup: Lookup, row: AccountRow, name: str) -> NamedAccount:
    """The account under this name; a member that is not known may be new, or nobody has looked up the members yet.
    Raises AccountNotFound, PartyError, UnknownRegion, Internal."""
    try:
        return lookup.named(row, name)
    except AccountNotFound:
        if not row.discover or lookup.freshness.cached:
            raise
        organisations.members(lookup, row, regions.until(lookup))               # no call if they were just looked up
        return lookup.named(row, name)


def answer_of(lookup: Lookup, plans: Sequence[SourcePlan], failed: Mapping[Source, TwocloudError]) -> Inventory:
    """As `answer`, of what `plan` gave."""
    query = _query(lookup)
    if lookup.several:
        inventory = _Listing(lookup, query, {each.source: each for each in plans}, failed).run()
        if _is_more(lookup, query, plans, inventory):
            lookup.begin_again()
            plans, failed = plan(lookup)
            inventory = _Listing(lookup, query, {each.source: each for each in plans}, failed).run()
        return replace(inventory, list_id=query.list_id or _list_id(lookup, query, inventory))
    result, vanished = _get(plans[0], query)
    if query.changed_since is not None:
        result = replace(result, servers=result.servers[query.window.first - 1:query.window.last])
    return Inventory([_result(plans[0], result, vanished)], result.total, result.list_id)


def _is_more(lookup: Lookup, query: Query, plans: Sequence[SourcePlan], inventory: Inventory) -> bool:
    """Whether parties have listed servers in regions that the query means and that their lists of regions lack."""
    if query.regions is not None:
        return False
    kept = {part.source for part in inventory.parts if part.answer and part.answer.kept}
    regions.note_others(lookup, [plan for plan in plans if plan.live and plan.source in kept])
    more = lookup.elsewhere - {plan.source for plan in plans}
    return any(not lookup.caller or tokens.allows(lookup.caller, source) for source in more)


def _list_id(lookup: Lookup, query: Query, inventory: Inventory) -> str | None:
    """Of the lists of all sources together, if every one has an id. Most commands show none, so they need none."""
    lists = [(part.source, part.answer.list_id) for part in inventory.parts if part.answer and part.answer.list_id]
    wanted = (lookup.caller or lookup.continued) and len(lists) == len(inventory.parts)
    return named_lists.note(lookup, query, lists) if wanted else None


def _query(lookup: Lookup) -> Query:
    assert lookup.query
    return lookup.query


def _get(plan: SourcePlan, query: Query) -> tuple[Answer, Sequence[Vanished]]:
    if query.changed_since is None:
        return get(plan), ()
    changes = list_changes(plan, query.changed_since)
    return changes.answer, changes.vanished


def _plan_many(lookup: Lookup, sources: Sequence[Source], wanted: Filter) -> list[SourcePlan]:
    """Snapshots that are fresh enough serve; of the other sources, those with the oldest snapshots are queried."""
    lookup.read_sources(sources)
    plans = dict[Source, SourcePlan]()
    for source in sources:
        try:
            plans[source] = lookup.plan(source, WHOLE, wanted, live=False)
        except AccountNotFound:             # a member that went since the sources were looked up
            continue
    note_reading(lookup.deployment, *(plan.source for plan in plans.values() if plan.known))
    rest = sorted((plan for plan in plans.values() if not plan.fresh_enough),
                  key=lambda plan: plan.head.seen_at if plan.head else 0.0)
    stale = Freshness(max_age=lookup.freshness.stale, cached=True)
    for n, plan in enumerate(rest):
        over_limit = n >= (_MOST_LIVE if plan.head else _MOST_COLD)
        plans[plan.source] = replace(plan, live=not over_limit, over_limit=over_limit,
                                     freshness=stale if over_limit else plan.freshness)
    live = by_source([plan.source for plan in plans.values() if plan.live], lookup.deployment.clock)
    return [replace(plan, together=live[source]) if source in live else plan for source, plan in plans.items()]


def _plan_named(lookup: Lookup, query: Query, wanted: Filter) -> list[SourcePlan]:
    """Of the lists that the query names, whatever the sources are by now. Raises ListChanged."""
    named = named_lists.read(lookup, query)
    lookup.read_sources([source for source, _ in named])
    try:
        plans = [name_list(lookup.plan(source, WHOLE, wanted), list_id) for source, list_id in named]
    except (AccountNotFound, Internal):     # gone or damaged: whose list it was cannot be known any more
        raise ListChanged() from None
    note_reading(lookup.deployment, *(plan.source for plan in plans))
    return plans


class _Listing(msgspec.Struct):
    """The window over the whole of all sources, in their order.

    Snapshots are read in parts, as the window wants them, where a head tells how long its list is. `failed`: accounts
    whose rows are damaged or whose regions are not known. `position`: of the next source's first server, from 0.
    """

    lookup: Lookup
    query: Query
    plans: Mapping[Source, SourcePlan]
    failed: Mapping[Source, TwocloudError]
    position: int = 0
    results: dict[Source, SourceResult] = msgspec.field(default_factory=dict[Source, SourceResult])

    def run(self) -> Inventory:
        """Raises the first failure if the caller wants no partial answer, then before any party is queried in vain."""
        blamed = {source: self._blamed(error) for source, error in self.failed.items()}
        without = [SourceResult(source, error=error, decision=Decision("failed", error.code))
                   for source, error in blamed.items()]
        for result in without:
            self._check(result)
        with _pool() as pool:
            self._collect(pool)
        every = [*self._without_foreign_regions(), *without]
        for result in every:
            self._check(result)
        return Inventory(sorted(every, key=lambda result: result.source.order),
                         None if any(result.answer is None for result in every) else self.position, several=True)

    def _collect(self, pool: ThreadPoolExecutor) -> None:
        plans, kept, share = self.plans, self._kept(), self._share()
        lengths = {source: head.total for source, head in kept.items() if not plans[source].filter}
        running = {source: pool.submit(log.carried(self._get), source, WHOLE, share)
                   for source in plans if source not in kept}
        running |= self._read(pool, {source: WHOLE for source in kept if source not in lengths})
        wanted = dict[Source, Window]()
        for source in plans:
            local = _below(self.query.window, self.position)
            if source not in lengths:
                self._add(source, running.pop(source), local)
                continue
            self.position += lengths[source]
            if local and local.first <= lengths[source]:
                wanted[source] = local
            else:
                self.results[source] = self._untouched(source)
        for source, part in self._read(pool, wanted).items():
            result = self.results[source] = self._gather(source, part, WHOLE)
            self._check(result)

    def _kept(self) -> dict[Source, Head]:
        """The heads of the snapshots that serve, of sources whose parties are not queried."""
        if self.query.changed_since is not None:
            return {}
        return {source: plan.head for source, plan in self.plans.items()
                if plan.head and not plan.live and plan.fresh_enough}

    def _read(self, pool: ThreadPoolExecutor, wanted: Mapping[Source, Window]) -> dict[Source, _Running]:
        """Read these parts of snapshots, many sources in one round trip; the last of them here and now."""
        running = dict[Source, _Running]()
        batch, places = dict[Source, SourcePlan](), list[Place]()
        for source, window in wanted.items():
            running[source] = Future()
            plan = batch[source] = replace(self.plans[source], window=window)
            places += chunk_places(plan)
            if len(places) >= _PLACES:
                pool.submit(log.carried(self._read_batch), batch, places, running)
                batch, places = dict[Source, SourcePlan](), list[Place]()
        if batch:
            self._read_batch(batch, places, running)
        return running

    def _read_batch(self, batch: Mapping[Source, SourcePlan], places: Sequence[Place],
                    running: Mapping[Source, _Running]) -> None:
        """Read the snapshots of these plans together, and give each its part."""
        for source in batch:
            running[source].set_running_or_notify_cancel()
        try:
            rows: Mapping[Place, Row] = self.lookup.deployment.store.get_many(places) if places else {}
        except Exception as error:
            for source in batch:
                running[source].set_exception(error)
            return
        for source, plan in batch.items():
            try:
                running[source].set_result(_get(replace(plan, chunks=rows), self.query))
            except Exception as error:
                running[source].set_exception(error)

    def _add(self, source: Source, running: _Running, local: Window | None) -> None:
        """Wait for a whole list, and move on by its length."""
        result = self.results[source] = self._gather(source, running, local)
        if not self._may_be_foreign(result):
            self._check(result)
        self.position += result.answer.total or 0 if result.answer else 0       # of a whole list the total is known

    def _check(self, result: SourceResult) -> None:
        if result.error and not result.answer and self.query.on_error != "partial":
            raise result.error.about(titles([*self.plans, *self.failed])(result.source))

    def _blamed(self, error: TwocloudError, plan: SourcePlan | None = None) -> TwocloudError:
        """The error, as the party's where the caller named no region that could be wrong, and the party's list leaves
        no doubt of it."""
        wrong = isinstance(error, UnknownRegion) and self.query.regions is None and not (plan and plan.doubtful)
        return PartyMalformed(f"{error.text} {_LISTED}") if wrong else error

    def _share(self) -> float:
        """Seconds that each live source may take."""
        rounds = -(-len(grouped(source for source, plan in self.plans.items() if plan.live)) // _CONCURRENCY)
        return (self.lookup.deadline - ANSWER_SECONDS - time.monotonic()) / max(1, rounds)

    def _get(self, source: Source, window: Window, share: float) -> tuple[Answer, Sequence[Vanished]]:
        plan = replace(self.plans[source], window=window)
        if plan.live:
            plan = replace(plan, deadline=min(plan.deadline, time.monotonic() + share + ANSWER_SECONDS))
        return _get(plan, self.query)

    def _gather(self, source: Source, running: _Running, local: Window | None) -> SourceResult:
        """`local`: the part of the source's list that is wanted; None: nothing."""
        plan = self.plans[source]
        try:
            result, vanished = running.result(max(0.0, plan.deadline - time.monotonic()))
        except (PartyError, UnknownRegion, RateLimited) as error:
            return _failed(plan, PartyTimeout(_OVER_LIMIT) if plan.over_limit else self._blamed(error, plan))
        except Internal as error:           # its settings are not those that were sealed, or its seal does not open
            plan.decide_failure(error)
            return _failed(plan, plan.lookup.noted(error, plan.key))
        except TimeoutError:
            plan.decide("failed", PartyTimeout.code, "the request's time is over")
            return _failed(plan, PartyTimeout())
        result = replace(result, servers=result.servers[local.first - 1:local.last] if local else [])
        return _result(plan, result, vanished)

    def _untouched(self, source: Source) -> SourceResult:
        """Of a snapshot in which the window wants nothing no more than the head is read."""
        plan = self.plans[source]
        assert plan.head
        plan.decide("hit")
        return _result(plan, Answer(source, [], plan.head.total, plan.head.seen_at, kept=True,
                                    list_id=plan.head.list_id))

    def _without_foreign_regions(self) -> list[SourceResult]:
        """Without the accounts whose party does not know a region, if each name that was given for it means a region
        of another one, or none was given."""
        results = list(self.results.values())
        foreign = [result for result in results if self._may_be_foreign(result)]
        others = [result.source for result in results if result not in foreign]

        def is_elsewhere(source: Source) -> bool:
            names = [name for name in self.query.regions or () if means(name, source)]
            return all(any(means(name, other) for other in others) for name in names)

        return [result for result in results if result not in foreign or not is_elsewhere(result.source)]

    def _may_be_foreign(self, result: SourceResult) -> bool:
        """Whether the party does not know a region that was named for other accounts too, or that may be closed."""
        account = snapshots.account_key_of(result.source)
        return isinstance(result.error, UnknownRegion) and not result.answer and (self.query.regions is None or any(
            snapshots.account_key_of(source) != account for source in self.plans))


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


def _result(plan: SourcePlan, answer: Answer, vanished: Sequence[Vanished] = ()) -> SourceResult:
    if plan.over_limit:
        answer = replace(answer, failure=PartyTimeout(_OVER_LIMIT))
        replace(plan, freshness=plan.lookup.freshness).decide("stale", _OVER_LIMIT)
    age = max(0, int(plan.deployment.clock()) - int(answer.seen_at)) if answer.kept else 0
    return SourceResult(answer.source, answer, answer.failure, answer.total, age, tuple(vanished),
                        plan.lookup.decisions.get(plan.source))


def _failed(plan: SourcePlan, error: TwocloudError) -> SourceResult:
    if plan.over_limit:
        replace(plan, freshness=plan.lookup.freshness).decide("failed", _OVER_LIMIT)
    return SourceResult(plan.source, error=error, decision=plan.lookup.decisions.get(plan.source))
