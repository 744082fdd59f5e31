"""What twocloud does: list the servers of one source or of many, refresh them, tell what changed, check an account.

Several sources are asked side by side, each within its share of the time; one that fails is stale, fails the answer,
or is left out of it and named, as the caller chose.
"""

import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from .. import log, parties
from ..access import accounts, tokens
from ..access.accounts import AccountRow
from ..access.tokens import Caller
from ..cloud.sender import CallStats
from ..concurrency import run_all
from ..errors import (
    AccountNotFound,
    Forbidden,
    InvalidParameter,
    PartyDenied,
    PartyError,
    PartyTimeout,
    RateLimited,
    TwocloudError,
    UnknownRegion,
)
from ..model import WHOLE, Account, Party, Send, Source, Window
from ..storage import snapshots
from ..storage.snapshots import Head, Vanished
from . import regions
from .deployment import Deployment, open_deployment
from .one_source import (
    ANSWER_SECONDS,
    EVERY_REGION,
    REQUEST_SECONDS,
    Answer,
    Filter,
    Freshness,
    from_unix,
    get,
    is_known,
    note_reading,
    open_account,
    open_regions,
    party_regions,
    refresh,
)
from .query import Query

__all__ = ["REQUEST_SECONDS", "Answer", "Deployment", "Filter", "Freshness", "open_account", "open_deployment",
           "refresh"]
_SIDE_BY_SIDE = 16                          # sources that are asked at the same time
_MOST_LIVE = 64                             # sources of one request that are asked if there are kept lists of others,
_MOST_COLD = 160                            # and at the most; each then gets two seconds
_REGIONS_SHARE = 0.4                        # of the time of a request, for asking parties which regions they have
_NAMES_SECONDS = 300                        # that a party's list of regions may be old to tell whose a name is
_TOO_MANY = "There are too many sources to ask all of them in one request."
KEPT = Freshness(max_age=10 ** 10)             # a list of any age


def source_of(tenant_id: str, party: str, region: str) -> Source:
    """Raises InvalidParameter if there is no such party, or if the region cannot be one of its regions."""
    return Source(tenant_id, party, parties.load(party).region(region))


def list_servers(deployment: Deployment, source: Source, window: Window = WHOLE, wanted: Filter = Filter(),
                 policy: Freshness = Freshness(), deadline: float | None = None,
                 stats: CallStats | None = None) -> Answer:
    """One source. Raises AccountNotFound, PartyError, UnknownRegion, RateLimited."""
    return get(deployment, source, window, wanted, policy, deadline, stats)


# ---------------------------------------------------------------- a query's answer

def answer(deployment: Deployment, asked: Query, policy: Freshness, caller: Caller | None, deadline: float,
           stats: CallStats | None = None) -> "Inventory":
    """What a query asks for, as far as the caller may see it; None: an operator, who may see everything.

    Raises Forbidden, AccountNotFound, PartyError, UnknownRegion, RateLimited, InvalidParameter.
    """
    wanted = Filter(asked.status, asked.name, asked.ip)
    if asked.changed_since is not None:
        _check_history(deployment, asked.changed_since)
    if asked.several:
        found, failed = sources(deployment, asked, caller, policy, deadline, stats)
        return _list_many(deployment, found, failed, asked, wanted, policy, deadline, stats)
    assert asked.parties
    assert asked.regions
    source = source_of(asked.tenant_id, asked.parties[0], asked.regions[0])
    if caller and not tokens.allows(caller, source):
        raise Forbidden()
    if asked.changed_since is not None:
        found = list_changes(deployment, source, asked.changed_since, wanted, policy, deadline, stats)
        given, window = found.answer, asked.window
        given = replace(given, servers=given.servers[window.first - 1:window.last])
        return Inventory([_part(deployment, given, found.vanished)], given.total)
    given = get(deployment, source, asked.window, wanted, policy, deadline, stats)
    return Inventory([_part(deployment, given)], given.total)


@dataclass(frozen=True, slots=True)
class SourceResult:
    """What one source gave to an answer over several. `count`, `age`: None if it gave nothing."""

    source: Source
    answer: Answer | None = None
    error: TwocloudError | None = None      # why it gave nothing, or why its list is an old one
    count: int | None = None
    age: int | None = None
    vanished: tuple[Vanished, ...] = ()

    @property
    def state(self) -> str:
        return "failed" if self.answer is None else "stale" if self.error else "ok"


def sources(deployment: Deployment, asked: Query, caller: Caller | None, policy: Freshness = KEPT,
            deadline: float | None = None, stats: CallStats | None = None) -> tuple[list[Source], list[SourceResult]]:
    """The sources that a query names, in the order party, region; beside them, for each account whose regions its
    party would not tell, a part that failed. `all` is what the caller may see; what is named must be covered.

    Raises UnknownRegion, Forbidden, AccountNotFound, in this order.
    """
    tenant_id, named = asked.tenant_id, asked.regions
    _check_regions(asked.parties or (), named or ())
    if caller and not all(tokens.opens(caller, tenant_id, name) for name in asked.parties or (None,)):
        raise Forbidden()
    rows = {row.party: row for row in accounts.every(deployment.store, tenant_id)}
    if asked.parties is None:
        names = [name for name in sorted(rows) if not caller or tokens.opens(caller, tenant_id, name)]
        _check_regions(names, named or ())
    else:
        names = sorted(asked.parties)
    now = time.monotonic()
    until = now + (deadline - now if deadline else REQUEST_SECONDS) * _REGIONS_SHARE
    found: set[Source] = set()
    failed: list[SourceResult] = []
    if named is not None:
        found = {Source(tenant_id, name, party.region(region)) for name in names for region in named
                 if _fits(party := parties.load(name), region)}
    else:
        if not rows.keys() >= set(names):
            raise AccountNotFound()
        asking = [lambda row=rows[name]: _regions(deployment, row, policy, until, stats) for name in names]
        for name, codes in zip(names, run_all(asking, _SIDE_BY_SIDE), strict=True):
            if isinstance(codes, TwocloudError):
                failed.append(SourceResult(Source(tenant_id, name, EVERY_REGION), error=codes))
            else:
                found |= {Source(tenant_id, name, code) for code in codes}
    covered = {source for source in found if not caller or tokens.allows(caller, source)}
    if asked.parties is not None and named is not None and len(covered) < len(found):
        raise Forbidden()
    if not covered and not failed:
        raise Forbidden() if found else AccountNotFound()
    if named is not None:
        if not rows.keys() >= {source.party for source in covered}:
            raise AccountNotFound()
        covered = _meant(deployment, named, covered, rows, policy, until, stats)
    return sorted(covered, key=lambda source: (source.party, source.region)), failed


def _meant(deployment: Deployment, named: Sequence[str], fitting: set[Source], rows: Mapping[str, AccountRow],
           policy: Freshness, until: float, stats: CallStats | None) -> set[Source]:
    """The sources that these names of regions mean, of those whose form they fit.

    A name that several parties could have means those that have such a region; of a party whose list of regions cannot
    be had it is not known, so that one is asked too. A name that none is known to have is left to the parties
    themselves: a region may be new, and an unknown one is named as an error.
    """
    by_name = {name: [source for source in fitting if means(name, source)] for name in named}
    shared = {source for found in by_name.values() if len(found) > 1 for source in found}
    doubtful = [source for source in shared if not _has(deployment, source, rows[source.party])]
    names = sorted({source.party for source in doubtful})
    asking = [lambda row=rows[name]: party_regions(deployment, row.tenant_id, row.party, _NAMES_SECONDS, policy, until,
                                                   stats) for name in names]
    lists = dict(zip(names, run_all(asking, _SIDE_BY_SIDE), strict=True))
    unsure = {source for source in doubtful if not lists[source.party]}
    lacks = {source for source in doubtful if (there := lists[source.party])
             and source.region not in (*there.codes, *there.closed)}
    meant = set[Source]()
    for found in by_name.values():
        known = any(source not in unsure | lacks for source in found)
        meant |= {source for source in found if not known or source not in lacks}
    return meant


def left_out(deployment: Deployment, asked: Query, found: Sequence[Source]) -> list[tuple[str, str]]:
    """(name of a region, party): names that could be the party's by their form, but are not sent to it."""
    names = asked.parties or sorted(row.party for row in accounts.every(deployment.store, asked.tenant_id))
    return [(region, name) for region in asked.regions or () for name in names
            if _fits(parties.load(name), region) and source_of(asked.tenant_id, name, region) not in found]


def _has(deployment: Deployment, source: Source, row: AccountRow) -> bool:
    """Whether the party surely has the region, without asking."""
    return (source.region in row.regions or regions.is_built_in(parties.load(source.party), source.region)
            or snapshots.find(deployment.store, source, row.revision) is not None)


def _check_regions(names: Sequence[str], regions: Sequence[str]) -> None:
    for region in regions if names else ():
        if not any(_fits(parties.load(name), region) for name in names):
            raise UnknownRegion("None of these parties has a region of this name.")


def _fits(party: Party, region: str) -> bool:
    try:
        return bool(party.region(region))
    except UnknownRegion:
        return False


def _regions(deployment: Deployment, row: AccountRow, policy: Freshness, until: float,
             stats: CallStats | None) -> Sequence[str] | TwocloudError:
    """Those that the account names, or else all that its party says are open; or why it would not say."""
    try:
        return row.regions or open_regions(deployment, row.tenant_id, row.party, policy, until, stats)
    except (PartyError, UnknownRegion) as error:
        return error


# ---------------------------------------------------------------- several sources

@dataclass(frozen=True, slots=True)
class Inventory:
    """An answer over several sources, in their order. `total`: None if a source failed or more than one follows."""

    parts: list[SourceResult]
    total: int | None

    @property
    def complete(self) -> bool:
        return all(part.state != "failed" for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Way:
    """How one source of many is asked. `head`: of its kept list. `live`: it may be asked itself, else its kept list
    serves. `spared`: there are too many to ask it."""

    policy: Freshness
    head: Head | None = None
    live: bool = False
    spared: bool = False


def _list_many(deployment: Deployment, found: Sequence[Source], failed: Sequence[SourceResult], asked: Query,
               wanted: Filter, policy: Freshness, deadline: float, stats: CallStats | None) -> Inventory:
    """The window over the whole of all sources. Raises the first failure if the caller wants no partial answer.

    What is kept is read in parts, as the window wants them, where a list's head tells how long it is.
    """
    window, since, partial = asked.window, asked.changed_since, asked.on_error == "partial"
    ways = _ways(deployment, found, policy)
    rounds = -(-sum(way.live for way in ways.values()) // _SIDE_BY_SIDE)
    share = (deadline - ANSWER_SECONDS - time.monotonic()) / max(1, rounds)

    def ask(source: Source, part: Window = WHOLE) -> tuple[Answer, Sequence[Vanished]]:
        way = ways[source]
        until = min(deadline, time.monotonic() + share + ANSWER_SECONDS) if way.live else deadline
        if since is None:
            return get(deployment, source, part, wanted, way.policy, until, stats), ()
        changed = list_changes(deployment, source, since, wanted, way.policy, until, stats)
        return changed.answer, changed.vanished

    in_parts = window != WHOLE and not wanted and since is None
    later = {source: way.head for source, way in ways.items() if in_parts and way.head and not way.live}
    parts: dict[Source, SourceResult] = {}
    position = 0                            # of the next source's first server, from 0
    with _pool() as pool:                   # what is kept is read first: it takes no time
        answers = {source: pool.submit(log.carried(ask), source)
                   for source in sorted(found, key=lambda one: ways[one].live) if source not in later}
        for source in found:
            local = _below(window, position)
            if source in later:
                position += later[source].total
                if local and local.first <= later[source].total:
                    answers[source] = pool.submit(log.carried(ask), source, local)
                else:
                    parts[source] = _untouched(deployment, source, ways[source])
                continue
            parts[source] = part = _gather(deployment, answers.pop(source), source, ways[source], local, deadline)
            if part.error and not part.answer and not partial and not _may_be_elsewhere(part, asked):
                raise part.error
            position += part.answer.total or 0 if part.answer else 0            # of a whole list the total is known
        for source, answer in answers.items():
            parts[source] = part = _gather(deployment, answer, source, ways[source], WHOLE, deadline)
            if part.error and not part.answer and not partial:
                raise part.error
    every = [*_without_strangers(list(parts.values()), asked), *failed]
    for part in every if not partial else ():
        if part.error and not part.answer:
            raise part.error
    return Inventory(sorted(every, key=lambda part: (part.source.party, part.source.region)),
                 None if any(part.answer is None for part in every) else position)


def _ways(deployment: Deployment, found: Sequence[Source], policy: Freshness) -> dict[Source, _Way]:
    """Those whose lists are young enough are read; of the others, the ones that are kept least fresh are asked."""
    heads, now = _heads(deployment, found), deployment.clock()
    ways = {source: _Way(policy, head) for source, head in heads.items()
            if head and policy.max_age and now - head.seen_at <= policy.max_age}
    rest = sorted((source for source in found if source not in ways),
                  key=lambda source: head.seen_at if (head := heads[source]) else 0.0)
    patient = Freshness(max_age=policy.stale, cached=True)
    for n, source in enumerate(rest):
        head = heads[source]
        if n < (_MOST_LIVE if head else _MOST_COLD):
            ways[source] = _Way(policy, head, live=True)
        else:
            young = head if head and now - head.seen_at <= policy.stale else None
            ways[source] = _Way(patient, young, spared=True)
    return ways


def _below(window: Window, position: int) -> Window | None:
    """The window as a source sees it of which so many servers stand before it; None if it lies before the source."""
    if window.last is not None and window.last <= position:
        return None
    return Window(max(1, window.first - position), window.last and window.last - position)


def _gather(deployment: Deployment, answer: "Future[tuple[Answer, Sequence[Vanished]]]", source: Source, way: _Way,
            local: Window | None, deadline: float) -> SourceResult:
    """`local`: what is wanted of what the source gives; None: nothing."""
    try:
        given, vanished = answer.result(max(0.0, deadline - time.monotonic()))
    except (PartyError, UnknownRegion, RateLimited) as error:
        return SourceResult(source, error=PartyTimeout(_TOO_MANY) if way.spared else error)
    except TimeoutError:
        return SourceResult(source, error=PartyTimeout())
    given = replace(given, servers=given.servers[local.first - 1:local.last] if local else [],
                    failure=PartyTimeout(_TOO_MANY) if way.spared else given.failure)
    return _part(deployment, given, vanished)


def _untouched(deployment: Deployment, source: Source, way: _Way) -> SourceResult:
    """What is said of a kept list of which the window wants nothing: no more of it is read."""
    assert way.head
    return _part(deployment, Answer(source, [], way.head.total, from_unix(way.head.seen_at), kept=True,
                                    failure=PartyTimeout(_TOO_MANY) if way.spared else None))


def _without_strangers(parts: list[SourceResult], asked: Query) -> list[SourceResult]:
    """Without those that do not know the region, if each name by which it was asked for is another party's region."""
    strangers = [part for part in parts if _may_be_elsewhere(part, asked)]
    others = [part.source for part in parts if part not in strangers]

    def is_elsewhere(source: Source) -> bool:
        names = [name for name in asked.regions or () if means(name, source)]
        return all(any(means(name, other) for other in others) for name in names)

    return [part for part in parts if part not in strangers or not is_elsewhere(part.source)]


def _may_be_elsewhere(part: SourceResult, asked: Query) -> bool:
    """Whether the party does not know a region that was asked for beside other parties."""
    return (isinstance(part.error, UnknownRegion) and not part.answer and asked.regions is not None
            and asked.parties != (part.source.party,))


def means(region: str, source: Source) -> bool:
    """Whether the source's region can have this name at its party."""
    party = parties.load(source.party)
    return _fits(party, region) and party.region(region) == source.region


@contextmanager
def _pool() -> Generator[ThreadPoolExecutor]:
    """Nobody waits for what is still under way at its end; it ends by its own deadline."""
    pool = ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="twocloud-source")
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _part(deployment: Deployment, answer: Answer, vanished: Sequence[Vanished] = ()) -> SourceResult:
    age = max(0, int(deployment.clock()) - int(answer.seen_at.timestamp())) if answer.kept else 0
    return SourceResult(answer.source, answer, answer.failure, answer.total, age, tuple(vanished))


def _heads(deployment: Deployment, found: Sequence[Source]) -> dict[Source, Head | None]:
    """Of the lists that are kept; that the sources are read is noted. Raises AccountNotFound."""
    revisions = {name: accounts.find(deployment.store, tenant_id, name).revision
                 for tenant_id, name in dict.fromkeys((source.tenant_id, source.party) for source in found)}

    def find(source: Source) -> Head | None:
        head = snapshots.find(deployment.store, source, revisions[source.party])
        if is_known(deployment, source, head, revisions[source.party]):
            note_reading(deployment, source)
        return head

    read = [lambda source=source: find(source) for source in found]
    return dict(zip(found, run_all(read, _SIDE_BY_SIDE), strict=True))


# ---------------------------------------------------------------- what changed

@dataclass(frozen=True, slots=True)
class Changes:
    """What is different since a time. `answer`: the servers that appeared or changed, as they are now; `fields`: which
    of each one's fields, none if it appeared. `vanished`: those that are not listed any more."""

    answer: Answer
    fields: dict[str, tuple[str, ...]]
    vanished: list[Vanished]


def list_changes(deployment: Deployment, source: Source, since: float, wanted: Filter = Filter(),
                 policy: Freshness = KEPT, deadline: float | None = None, stats: CallStats | None = None) -> Changes:
    """From what is kept, whatever its age; a source of which nothing is kept yet is listed first.

    Raises InvalidParameter if `since` is older than the history, AccountNotFound, PartyError, UnknownRegion.
    """
    _check_history(deployment, since)
    answer = get(deployment, source, WHOLE, wanted, policy, deadline, stats)
    revision = accounts.find(deployment.store, source.tenant_id, source.party).revision
    head = snapshots.find(deployment.store, source, revision)
    everything = not head or since < head.since                 # all that we know of appeared after that
    fields: dict[str, tuple[str, ...]] = {}
    gone: dict[str, Vanished] = {}
    for change in snapshots.changes(deployment.store, source, since, head) if head else ():
        fields |= dict.fromkeys(change.appeared, ())
        for key, names in change.changed.items():
            before = fields.get(key)
            fields[key] = () if before == () else tuple(dict.fromkeys((*(before or ()), *names)))
        gone |= {server.id: server for server in change.vanished}
    there = {server.id for server in (answer if not wanted else get(
        deployment, source, WHOLE, Filter(), KEPT, deadline, stats)).servers}
    shown = [server for server in answer.servers if everything or server.id in fields]
    part_of_name = (wanted.name or "").casefold()               # all that is known of them that could be filtered
    vanished = sorted((server for key, server in gone.items()
                       if key not in there and part_of_name in server.name.casefold()),
                      key=lambda server: (server.vanished_at, server.id))
    return Changes(replace(answer, servers=shown, total=len(shown)), fields, vanished)


def _check_history(deployment: Deployment, since: float) -> None:
    if since < deployment.clock() - deployment.settings.history * 86_400:
        raise InvalidParameter("changed_since", f"Changes are kept for {deployment.settings.history} days.")


# ---------------------------------------------------------------- accounts

def check_account(deployment: Deployment, tenant_id: str, party_name: str, region: str | None = None,
                  deadline: float | None = None, stats: CallStats | None = None) -> str:
    """One cheap signed call; the region it was made in. Raises what the party's answer means, in words."""
    return check_credentials(deployment, open_account(deployment, tenant_id, party_name), region, deadline, stats)


def check_credentials(deployment: Deployment, account: Account, region: str | None = None,
                      deadline: float | None = None, stats: CallStats | None = None) -> str:
    """The same for an account that need not be stored."""
    party = parties.load(account.party)
    code = party.region(region) if region else (*account.regions, party.default_region)[0]
    source = Source(account.tenant_id, account.party, code)
    sender = deployment.transport.sender(party, account, code, deadline or time.monotonic() + REQUEST_SECONDS)
    if stats is not None:
        sender.stats = stats
    try:
        party.check(source, account, sender)
    except (PartyDenied, UnknownRegion) as refused:
        raise _explained(party, account, code, sender, refused) from None
    finally:
        sender.close()
    return code


def _explained(party: Party, account: Account, region: str, sender: Send,
               refused: PartyDenied | UnknownRegion) -> TwocloudError:
    try:
        there = regions.listed_of(party.list_regions(account, sender), account.revision, 0.0)
    except TwocloudError:
        return refused                      # this second question is a courtesy; the first answer stands
    return regions.explained(party, region, there, refused)
