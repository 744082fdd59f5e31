"""Which regions an account has, and which source each name of a region means."""

import time
from collections.abc import Mapping, Sequence

from .. import parties
from ..access import accounts, tokens
from ..access.accounts import AccountRow
from ..access.tokens import Caller
from ..cloud.party import Party
from ..cloud.sender import CallStats
from ..concurrency import run_all
from ..errors import (
    AccountNotFound,
    Forbidden,
    PartyDenied,
    PartyError,
    PartyTimeout,
    TwocloudError,
    UnknownRegion,
)
from ..model import WHOLE, Source
from ..storage import snapshots
from ..storage.snapshots import Head
from . import circuit_breaker, known_regions
from .deployment import Deployment
from .known_regions import Listed
from .lookup import ANY_AGE, NO_SNAPSHOT, REQUEST_SECONDS, Filter, Freshness, SourcePlan, best_effort
from .party_call import Failure, call_party
from .query import Query
from .single_flight import single_flight

EVERY_REGION = known_regions.EVERY          # in place of a region, where the list of regions itself is requested
_CONCURRENCY = 16                           # parties that are queried at the same time
_REGIONS_SHARE = 0.4                        # of a request's time, to list regions at parties
_NAMES_SECONDS = 300                        # that a party's list of regions may be old to tell whose a name is
_LIST_FAILED_SECONDS = 300                  # after which a list of regions that failed is requested again


def source_of(tenant_id: str, party: str, region: str) -> Source:
    """Raises InvalidParameter if there is no such party, or if the region cannot be one of its regions."""
    return Source(tenant_id, party, parties.load(party).region(region))


# ---------------------------------------------------------------- which regions an account has

def open_regions(deployment: Deployment, tenant_id: str, party_name: str, freshness: Freshness, deadline: float,
                 stats: CallStats | None = None) -> tuple[str, ...]:
    """Codes of the regions that the party says are open to the account. Listed once an hour, by one caller at a time;
    if the party fails, its last list serves as long as a snapshot would. Raises PartyError, UnknownRegion."""
    plan, last = _plan_list(deployment, tenant_id, party_name, freshness, deadline, stats)
    if last and (freshness.cached or plan.arrived - last.at <= known_regions.BELIEVED_SECONDS):
        return last.codes
    if freshness.cached:
        raise PartyTimeout(NO_SNAPSHOT)
    try:
        return _list_regions(plan, last).codes
    except PartyError as failure:
        if last and deployment.clock() - last.at <= freshness.stale_after(failure):
            return last.codes
        raise


def party_regions(deployment: Deployment, tenant_id: str, party_name: str, age: float, freshness: Freshness,
                  deadline: float, stats: CallStats | None = None) -> Listed | None:
    """The regions that the party lists, to tell whose region a name is: at most `age` seconds old, or its last list;
    None: it never gave one. Listed by one caller at a time, and not again soon after a failure."""
    plan, last = _plan_list(deployment, tenant_id, party_name, freshness, deadline, stats)
    if freshness.cached or (last and plan.arrived - last.at <= age):
        return last
    failed = known_regions.outcome(deployment.store, tenant_id, party_name, plan.revision, EVERY_REGION, plan.arrived)
    if failed and plan.arrived - failed.at < _LIST_FAILED_SECONDS:
        return last
    try:
        return _list_regions(plan, last)
    except (PartyError, UnknownRegion) as failure:
        with best_effort(plan):
            known_regions.note(deployment.store, tenant_id, party_name, plan.revision, EVERY_REGION, failure,
                               deployment.clock())
        return last


def _plan_list(deployment: Deployment, tenant_id: str, party_name: str, freshness: Freshness, deadline: float,
               stats: CallStats | None) -> tuple[SourcePlan, Listed | None]:
    revision = accounts.find(deployment.store, tenant_id, party_name).revision
    plan = SourcePlan(deployment, Source(tenant_id, party_name, EVERY_REGION), revision, Filter(), WHOLE, freshness,
                      deployment.clock(), deadline, stats)
    return plan, known_regions.listed(deployment.store, tenant_id, party_name, revision)


def _list_regions(plan: SourcePlan, before: Listed | None) -> Listed:
    """Query the party, and keep its list; `before`: the list that was kept. Raises PartyError, UnknownRegion."""
    deployment, source = plan.deployment, plan.source
    party = parties.load(source.party)

    def query() -> Listed:
        rows = call_party(plan, party.default_region, parties.list_regions)
        now = deployment.clock()
        with best_effort(plan):
            known_regions.keep(deployment.store, source.tenant_id, source.party, plan.revision, rows, now)
            if not plan.account_is_same():
                snapshots.forget(deployment.store, source)
        return known_regions.listed_of(rows, plan.revision, now)

    def look() -> Listed | None:
        newer = known_regions.listed(deployment.store, source.tenant_id, source.party, plan.revision)
        return newer if newer and (before is None or newer.at > before.at) else None

    _, version = circuit_breaker.check(plan)
    return single_flight(plan, version, query, look)


def is_known(deployment: Deployment, source: Source, head: Head | None, revision: str) -> bool:
    """Whether the party is known to have the region: twocloud knows it, it was listed or read before, or the party's
    list of regions names it."""
    if head or known_regions.is_built_in(parties.load(source.party), source.region):
        return True
    key = snapshots.key_of(source)
    if key in deployment.noted or deployment.store.get("interest", key):
        return True
    last = known_regions.listed(deployment.store, source.tenant_id, source.party, revision)
    return bool(last and source.region in last.codes)


def explain(plan: SourcePlan, failure: Failure) -> Failure:
    """The failure in a region that the party is not known to have, as its list of regions explains it. The list is
    requested only where a party says "wrong key" of such regions."""
    party, source = parties.load(plan.source.party), plan.source
    if plan.known or not (isinstance(failure, UnknownRegion)
                          or (isinstance(failure, PartyDenied) and party.closed_is_denied)):
        return failure
    last = (party_regions(plan.deployment, source.tenant_id, party.name, known_regions.BELIEVED_SECONDS,
                          plan.freshness, plan.deadline, plan.stats) if isinstance(failure, PartyDenied)
            else known_regions.listed(plan.deployment.store, source.tenant_id, party.name, plan.revision))
    return known_regions.explained(party, source.region, last, failure)


# ---------------------------------------------------------------- which sources a query names

def sources(deployment: Deployment, query: Query, caller: Caller | None, freshness: Freshness = ANY_AGE,
            deadline: float | None = None,
            stats: CallStats | None = None) -> tuple[list[Source], dict[Source, TwocloudError]]:
    """The sources that a query names, in the order party, region; beside them, for each account whose party failed to
    list its regions, that failure. `all` means what the caller may see; what is named must be covered.

    Raises UnknownRegion, Forbidden, AccountNotFound, in this order.
    """
    tenant_id, named = query.tenant_id, query.regions
    _check_regions(query.parties or (), named or ())
    if caller and not all(tokens.opens(caller, tenant_id, name) for name in query.parties or (None,)):
        raise Forbidden()
    rows = {row.party: row for row in accounts.every(deployment.store, tenant_id)}
    if query.parties is None:
        names = [name for name in sorted(rows) if not caller or tokens.opens(caller, tenant_id, name)]
        _check_regions(names, named or ())
    else:
        names = sorted(query.parties)
    now = time.monotonic()
    until = now + (deadline - now if deadline else REQUEST_SECONDS) * _REGIONS_SHARE
    every: set[Source] = set()
    failed: dict[Source, TwocloudError] = {}
    if named is not None:
        every = {Source(tenant_id, name, party.region(region)) for name in names for region in named
                 if _fits(party := parties.load(name), region)}
    else:
        if not rows.keys() >= set(names):
            raise AccountNotFound()
        queries = [lambda row=rows[name]: _regions(deployment, row, freshness, until, stats) for name in names]
        for name, codes in zip(names, run_all(queries, _CONCURRENCY), strict=True):
            if isinstance(codes, TwocloudError):
                failed[Source(tenant_id, name, EVERY_REGION)] = codes
            else:
                every |= {Source(tenant_id, name, code) for code in codes}
    covered = {source for source in every if not caller or tokens.allows(caller, source)}
    if query.parties is not None and named is not None and len(covered) < len(every):
        raise Forbidden()
    if not covered and not failed:
        raise Forbidden() if every else AccountNotFound()
    if named is not None:
        if not rows.keys() >= {source.party for source in covered}:
            raise AccountNotFound()
        covered = _meant(deployment, named, covered, rows, freshness, until, stats)
    return sorted(covered, key=lambda source: (source.party, source.region)), failed


def _meant(deployment: Deployment, named: Sequence[str], fitting: set[Source], rows: Mapping[str, AccountRow],
           freshness: Freshness, until: float, stats: CallStats | None) -> set[Source]:
    """The sources that these names of regions mean, of those whose form they fit.

    A name that several parties could have means those that have such a region. A party whose list of regions cannot
    be had may have it, so it is queried too. A name that no party is known to have is left to the parties themselves:
    a region may be new, and an unknown one is named as an error.
    """
    by_name = {name: [source for source in fitting if means(name, source)] for name in named}
    shared = {source for sources in by_name.values() if len(sources) > 1 for source in sources}
    doubtful = [source for source in shared if not _has(deployment, source, rows[source.party])]
    names = sorted({source.party for source in doubtful})
    queries = [lambda row=rows[name]: party_regions(deployment, row.tenant_id, row.party, _NAMES_SECONDS, freshness,
                                                    until, stats) for name in names]
    lists = dict(zip(names, run_all(queries, _CONCURRENCY), strict=True))
    unsure = {source for source in doubtful if not lists[source.party]}
    lacks = {source for source in doubtful if (last := lists[source.party])
             and source.region not in (*last.codes, *last.closed)}
    meant = set[Source]()
    for sources in by_name.values():
        known = any(source not in unsure | lacks for source in sources)
        meant |= {source for source in sources if not known or source not in lacks}
    return meant


def left_out(deployment: Deployment, query: Query, sources: Sequence[Source]) -> list[tuple[str, str]]:
    """(name of a region, party): names that could be the party's by their form, but are not sent to it."""
    names = query.parties or sorted(row.party for row in accounts.every(deployment.store, query.tenant_id))
    return [(region, name) for region in query.regions or () for name in names
            if _fits(parties.load(name), region) and source_of(query.tenant_id, name, region) not in sources]


def means(region: str, source: Source) -> bool:
    """Whether the source's region can have this name at its party."""
    party = parties.load(source.party)
    return _fits(party, region) and party.region(region) == source.region


def _has(deployment: Deployment, source: Source, row: AccountRow) -> bool:
    """Whether the party certainly has the region; nothing is queried."""
    return (source.region in row.regions or known_regions.is_built_in(parties.load(source.party), source.region)
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


def _regions(deployment: Deployment, row: AccountRow, freshness: Freshness, until: float,
             stats: CallStats | None) -> Sequence[str] | TwocloudError:
    """The regions that the account names, or else all that its party says are open; or the party's failure."""
    try:
        return row.regions or open_regions(deployment, row.tenant_id, row.party, freshness, until, stats)
    except (PartyError, UnknownRegion) as error:
        return error
