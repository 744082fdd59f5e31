"""Which regions an account has, and which source each name of a region means."""

import time
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from .. import parties
from ..access import tokens
from ..access.accounts import AccountRow
from ..access.accounts import order as accounts_order
from ..cloud.party import Party
from ..concurrency import run_all
from ..errors import (
    AccountNotFound,
    Forbidden,
    Internal,
    PartyDenied,
    PartyError,
    PartyTimeout,
    TwocloudError,
    UnknownRegion,
)
from ..model import DEFAULT_ACCOUNT, Listing, Source
from ..storage import snapshots
from ..storage.store import Row
from . import circuit_breaker, known_members, known_regions, organisations, visible
from .known_regions import Listed
from .lookup import NO_SNAPSHOT, Found, Lookup, NamedAccount, SourcePlan, best_effort, is_built_in, region_places
from .party_call import Failure, call_party
from .query import Query
from .single_flight import single_flight

T = TypeVar("T")
EVERY_REGION = known_regions.EVERY          # in place of a region, where the list of regions itself is requested
_CONCURRENCY = 16                           # parties that are queried at the same time
_REGIONS_SHARE = 0.4                        # of a request's time, to list regions at parties
_NAMES_SECONDS = 300                        # that a party's list of regions may be old to tell whose a name is
_LIST_FAILED_SECONDS = 300                  # after which a list of regions that failed is requested again


def source_of(tenant_id: str, party: str, region: str, account: str = DEFAULT_ACCOUNT) -> Source:
    """Raises InvalidParameter if there is no such party, or if the region cannot be one of its regions."""
    return Source(tenant_id, party, parties.load(party).region(region), account)


# ---------------------------------------------------------------- which regions an account has

def open_regions(lookup: Lookup, account: NamedAccount, deadline: float | None = None) -> tuple[str, ...]:
    """Codes of the regions that the party says are open to the account. Listed once an hour, by one caller at a time;
    if the party fails, its last list serves as long as a snapshot would. Raises PartyError, UnknownRegion."""
    plan, last = _plan(lookup, account, deadline)
    if last and (plan.freshness.cached or plan.arrived - last.at <= known_regions.BELIEVED_SECONDS):
        return last.codes
    if plan.freshness.cached:
        raise PartyTimeout(NO_SNAPSHOT)
    try:
        return _list_regions(plan, last).codes
    except PartyError as failure:
        if last and plan.deployment.clock() - last.at <= plan.freshness.stale_after(failure):
            return last.codes
        raise


def party_regions(lookup: Lookup, account: NamedAccount, age: float,
                  deadline: float | None = None) -> Listed | None:
    """The regions that the party lists, to tell whose region a name is: at most `age` seconds old, or its last list;
    None: it never gave one. Listed by one caller at a time, and not again soon after a failure."""
    plan, last = _plan(lookup, account, deadline)
    if plan.freshness.cached or (last and plan.arrived - last.at <= age):
        return last
    failed = known_regions.outcome_in(lookup.row(known_regions.outcomes_place(account.key)), plan.revision,
                                      EVERY_REGION, plan.arrived)
    if failed and plan.arrived - failed.at < _LIST_FAILED_SECONDS:
        return last
    try:
        return _list_regions(plan, last)
    except (PartyError, UnknownRegion) as failure:
        with best_effort(plan):
            known_regions.note(plan.store, account.key, plan.revision, EVERY_REGION, failure, plan.deployment.clock())
        return last
    except Internal as error:               # which the account's own source will say
        lookup.noted(error, account.key)
        return last


def _plan(lookup: Lookup, account: NamedAccount, deadline: float | None) -> tuple[SourcePlan, Listed | None]:
    plan = lookup.plan_regions(account)
    last = known_regions.listed_in(lookup.row(known_regions.listed_place(account.key)), plan.revision)
    return (replace(plan, deadline=deadline) if deadline else plan), last


def _list_regions(plan: SourcePlan, before: Listed | None) -> Listed:
    """Query the party, and keep its list; `before`: the list that was kept. Raises PartyError, UnknownRegion."""
    deployment, source = plan.deployment, plan.source
    party = parties.load(source.party)

    def query() -> Listed:
        rows, _ = call_party(plan, party.default_region, parties.list_regions)
        now = deployment.clock()
        with best_effort(plan):
            known_regions.keep(plan.store, plan.account_key, plan.revision, rows, now, before)
            if not plan.account_is_same(plan.store.get(*plan.account_place)):
                snapshots.forget(plan.store, source)
        return known_regions.listed_of(rows, plan.revision, now, before)

    def look(row: Row | None) -> Listed | None:
        newer = known_regions.listed_in(row, plan.revision)
        return newer if newer and (before is None or newer.at > before.at) else None

    listed = known_regions.listed_place(plan.account_key)
    circuit_breaker.check(plan)
    try:
        return single_flight(plan, query, listed, look)
    finally:                                # the request reads again what this has changed
        plan.lookup.forget(listed, known_regions.outcomes_place(plan.account_key))


def explain(plan: SourcePlan, failure: Failure) -> Failure:
    """The failure in a region that the party is not known to have, as its list of regions explains it. The list is
    requested only where a party says "wrong key" of such regions."""
    party = parties.load(plan.source.party)
    if plan.known or not (isinstance(failure, UnknownRegion)
                          or (isinstance(failure, PartyDenied) and party.closed_is_denied)):
        return failure
    account = NamedAccount(plan.account, plan.member)
    last = (party_regions(plan.lookup, account, known_regions.BELIEVED_SECONDS, plan.deadline)
            if isinstance(failure, PartyDenied) else known_regions.listed(plan.store, account.key, plan.revision))
    return known_regions.explained(party, plan.source.region, last, failure)


def note_rows(plan: SourcePlan, listing: Listing) -> None:
    """Where a party lists the servers of all regions, they tell regions that its list of regions may lack: `all` means
    these too, as long as there are servers."""
    if listing.elsewhere is None or plan.account.regions:
        return
    plan.lookup.elsewhere |= {replace(plan.source, region=code) for code in listing.elsewhere}
    with best_effort(plan):
        place = known_regions.listed_place(plan.account_key)
        if last := known_regions.listed_in(plan.lookup.row(place), plan.revision):
            named = listing.elsewhere | ({plan.source.region} if listing.total else set[str]())
            known_regions.note_servers(plan.store, plan.account_key, last, named)


def note_others(lookup: Lookup, plans: Sequence[SourcePlan]) -> None:
    """The same of sources that another caller has listed meanwhile, as far as it was written down."""
    of = {known_regions.listed_place(plan.account_key): plan for plan in plans if not plan.account.regions}
    lookup.forget(*of)
    lookup.read(of)
    for place, plan in of.items():
        if last := known_regions.listed_in(lookup.row(place), plan.revision):
            lookup.elsewhere |= {replace(plan.source, region=code) for code in last.unlisted}


# ---------------------------------------------------------------- which sources a query names

class _Meant(msgspec.Struct, frozen=True):
    """The accounts that a query names, those whose party failed to list what is behind them, and those whose row is
    damaged."""

    accounts: list[NamedAccount]
    failed: dict[Source, TwocloudError]
    damaged: dict[Source, Internal]


def sources(lookup: Lookup, query: Query) -> tuple[list[Source], dict[Source, TwocloudError]]:
    """The sources that a query names, in their order; beside them, for each account whose row is damaged or whose party
    failed to list its members or regions, that failure. `all` means what the caller may see; what is named must be
    covered. Tenants and parties without an account are left out.

    Raises UnknownRegion, Forbidden, AccountNotFound, in this order.
    """
    caller = lookup.caller
    check_names(lookup, query, query.parties or ())
    if caller and not all(tokens.opens(caller, tenant_id, name)
                          for tenant_id in query.tenants or (None,) for name in query.parties or (None,)):
        raise Forbidden()
    if caller and not _may_name_regions(caller, query):
        raise Forbidden()
    visible_accounts = _found(lookup, query)
    at = query.parties                      # a party that is named may have the region, although nobody has an account
    if at is None:
        at = sorted(({row.party for row in visible_accounts.rows} | {it.party for it in visible_accounts.damaged})
                    & {*parties.names()})
        check_names(lookup, query, at)
    meant, strange = _accounts(lookup, query, visible_accounts), _strange(at, query.regions or ())
    names = query.regions or (tokens.limits_of(caller)[1] if caller else None)
    if query.regions is None:
        every, failed = _every_region(lookup, meant.accounts)
    else:
        every, failed = _named(lookup, query.regions, meant.accounts, strange), {}
    hidden = ({source: visible.named(source, names, strange) for source in meant.damaged} if names is not None
              else {})
    failed |= meant.failed
    failed |= {source: error for source, error in meant.damaged.items()
               if names is None or any(not caller or tokens.allows(caller, it) for it in hidden[source])}
    covered = {source for source in every if not caller or tokens.allows(caller, source)}
    if query.parties is not None and query.regions is not None and caller and not all(
            tokens.allows(caller, source) for source in (*every, *(it for named in hidden.values() for it in named))):
        raise Forbidden()
    if not covered and not failed:
        raise Forbidden() if every or any(hidden.values()) else AccountNotFound()
    if query.regions is not None:
        without = {*(query.parties or ())} - {account.row.party for account in meant.accounts}
        covered = _meant(lookup, query.regions, covered, meant.accounts, without)
        if not covered and not failed:
            raise AccountNotFound()
    return sorted(covered, key=lambda source: source.order), failed


def _may_name_regions(caller: tokens.Caller, query: Query) -> bool:
    """Whether the caller covers each region that the query names at a party that it names, whoever has an account
    there."""
    tenants = query.tenants or caller.tenants
    if query.parties is None or query.regions is None or tenants == frozenset():
        return True
    tenant_id = next(iter(tenants or ("",)))                    # each is covered, so any of them shows it
    strange = _strange(query.parties, query.regions)
    for region in query.regions:
        meant = [source for party in query.parties
                 for source in visible.named(Source(tenant_id, party, EVERY_REGION), (region,), strange)]
        if meant and not any(tokens.allows(caller, source) for source in meant):
            return False
    return True


def _found(lookup: Lookup, query: Query) -> Found:
    """The accounts at the parties of the query, of the tenants that it names, or else of all that the caller may
    see."""
    tenants = query.tenants
    if tenants is None and lookup.caller:
        tenants = tokens.tenants_of(lookup.caller)
    if tenants and len(tenants) == 1 and query.parties and len(query.parties) == 1:     # covered: it is named, or ours
        return lookup.accounts_at(tenants[0], query.parties[0])
    return visible.found(lookup, tenants, query.parties)


def _accounts(lookup: Lookup, query: Query, every: Found) -> _Meant:
    """The accounts with the names that the query gives, each with what is behind it. Raises AccountNotFound."""
    wanted = [(row, _wanted(query.accounts, row.account)) for row in every.rows]
    damaged = {source: error for source, error in every.damaged.items()
               if (ids := _wanted(query.accounts, source.account)) is None or ids}
    doors = [row for row, ids in wanted if row.discover and (ids is None or ids)]
    lookup.read(known_members.place_of(row.tenant_id, row.party, row.account) for row in doors)
    lookup.read(place for row in doors for place in region_places(NamedAccount(row).key))
    latest, meant = until(lookup), _Meant([], {}, damaged)
    queries = [lambda row=row: _tried(lookup, NamedAccount(row), lambda: organisations.members(lookup, row, latest))
               for row in doors]
    members = dict(zip(doors, run_all(queries, _CONCURRENCY), strict=True))
    names = set[str]()
    for row, ids in wanted:
        behind = members.get(row) if row.discover else None
        if isinstance(behind, TwocloudError):
            meant.failed[NamedAccount(row).source(EVERY_REGION)] = behind
        elif behind is not None:
            meant.accounts.extend(NamedAccount(row, member) for member in behind if ids is None or member.id in ids)
            names.add(row.account)
        elif ids is None:
            meant.accounts.append(NamedAccount(row))
    names |= {account.name for account in meant.accounts}
    unknown = {source.account for source in (*meant.failed, *meant.damaged)}    # any member may be behind these
    names |= {name for name in query.accounts or () if name.partition(":")[0] in unknown}
    alone = query.tenants is not None and len(query.tenants) == 1 and query.parties and len(query.parties) == 1
    if (alone and not names.issuperset(query.accounts or ())) or (query.accounts and not names & {*query.accounts}):
        raise AccountNotFound()
    return meant


def _wanted(names: Sequence[str] | None, account: str) -> frozenset[str] | None:
    """Ids of the members that are wanted of this account; None: it and all that is behind it; none: nothing."""
    if names is None or account in names:
        return None
    return frozenset(name.partition(":")[2] for name in names if name.partition(":")[0] == account)


def _tried(lookup: Lookup, account: NamedAccount, query: Callable[[], Sequence[T]]) -> Sequence[T] | TwocloudError:
    """What the query gives, or why it gives nothing."""
    try:
        return query()
    except (PartyError, UnknownRegion) as error:
        return error
    except Internal as error:               # its settings are not those that were sealed, or its seal does not open
        return lookup.noted(error, account.key)


def _every_region(lookup: Lookup, accounts: Sequence[NamedAccount]) -> tuple[set[Source], dict[Source, TwocloudError]]:
    """The sources of all regions of these accounts, and the failures of parties to list theirs."""
    latest, failed = until(lookup), dict[Source, TwocloudError]()
    every = {account.source(code) for account in accounts for code in account.row.regions}
    unnamed = [account for account in accounts if not account.row.regions]
    lookup.read(place for account in unnamed for place in region_places(account.key))
    queries = [lambda account=account: _tried(lookup, account, lambda: open_regions(lookup, account, latest))
               for account in unnamed]
    for account, codes in zip(unnamed, run_all(queries, _CONCURRENCY), strict=True):
        if isinstance(codes, TwocloudError):
            failed[account.source(EVERY_REGION)] = codes
        else:
            every |= {account.source(code) for code in codes}
    whole = {account.key for account in unnamed}
    return every | {it for it in lookup.elsewhere if snapshots.account_key_of(it) in whole}, failed


def until(lookup: Lookup) -> float:
    """When parties must have listed their members or regions."""
    now = time.monotonic()
    return now + (lookup.deadline - now) * _REGIONS_SHARE


def _strange(at: Sequence[str], names: Sequence[str]) -> set[str]:
    """The names that are in the form of no party's regions: only the lists of the parties can tell whose they are."""
    return {name for name in names if not any(_fits(parties.load(party), name) for party in at)}


def _named(lookup: Lookup, names: Sequence[str], accounts: Sequence[NamedAccount],
           strange: Collection[str]) -> set[Source]:
    """The sources that these names can mean: by the form of the party's regions, because the account or the party's
    last list names such a region, or because the name is strange to all of the parties."""
    at = {account.row.party for account in accounts}
    fitting = {party: visible.codes(party, names, strange) for party in at}
    others = {party: visible.codes(party, names, names) - fitting[party] for party in at}
    every = {account.source(code) for account in accounts for code in fitting[account.row.party]}
    doubtful = [account for account in accounts if others[account.row.party]]
    lookup.read_lists_of_regions([account.key for account in doubtful])
    for account in doubtful:
        last = known_regions.listed_in(lookup.row(known_regions.listed_place(account.key)), account.row.revision)
        there = {*account.row.regions, *(last.codes if last else ())}
        every |= {account.source(code) for code in others[account.row.party] & there}
    return every


def _meant(lookup: Lookup, named: Sequence[str], fitting: set[Source],
           accounts: Sequence[NamedAccount], without: Collection[str]) -> set[Source]:
    """The sources that these names of regions mean, of those that they can mean.

    A name that several accounts could have means those whose party has such a region. A party whose list of regions
    cannot be had may have it, so it is queried too. A name that no party is known to have is left to the parties
    themselves: a region may be new, and an unknown one is named as an error. Members of one account share its party's
    list. `without`: parties that the query names, at which there is no account; what may be their region is not
    sent to a party that lacks it.
    """
    rows = {account.key: account.row for account in accounts}
    row_of = {source: rows[snapshots.account_key_of(source)] for source in fitting}
    by_name = {name: [source for source in fitting if means(name, source)] for name in named}
    theirs = {name for name in named if any(_fits(parties.load(party), name) for party in without)}
    shared = {source for name, sources in by_name.items()
              if name in theirs or len({row_of[source] for source in sources}) > 1 for source in sources}
    lookup.read(snapshots.place_of(source) for source in shared if not is_built_in(source))
    doubtful = [source for source in shared if not _has(lookup, source, row_of[source])]
    first = dict[AccountRow, NamedAccount]()
    for account in accounts:
        first.setdefault(account.row, account)
    queried = [first[row] for row in sorted({row_of[source] for source in doubtful}, key=accounts_order)]
    lookup.read(place for account in queried for place in region_places(account.key))
    latest = until(lookup)
    queries = [lambda account=account: party_regions(lookup, account, _NAMES_SECONDS, latest) for account in queried]
    lists = dict(zip((account.row for account in queried), run_all(queries, _CONCURRENCY), strict=True))
    unsure = {source for source in doubtful if not lists[row_of[source]]}
    lacks = {source for source in doubtful if (last := lists[row_of[source]])
             and source.region not in (*last.codes, *last.closed)}
    meant = set[Source]()
    for name, sources in by_name.items():
        known = name in theirs or any(source not in unsure | lacks for source in sources)
        meant |= {source for source in sources if not known or source not in lacks}
    return meant


def left_out(lookup: Lookup, query: Query, sources: Sequence[Source]) -> list[tuple[str, str]]:
    """(name of a region, party): names that could be the party's by their form, but are not sent to it."""
    names = query.parties or sorted({row.party for row in _found(lookup, query).rows})
    sent = {(source.party, source.region) for source in sources}
    return [(region, name) for region in query.regions or () for name in names
            if _fits(party := parties.load(name), region) and (name, party.region(region)) not in sent]


def means(region: str, source: Source) -> bool:
    """Whether the source's region has this name at its party."""
    return parties.load(source.party).aliases.get(region, region) == source.region


def _has(lookup: Lookup, source: Source, row: AccountRow) -> bool:
    """Whether the party certainly has the region; no party is queried."""
    return (source.region in row.regions or is_built_in(source)
            or snapshots.head_of(lookup.row(snapshots.place_of(source)), source, row.revision) is not None)


def check_names(lookup: Lookup, query: Query, at: Sequence[str]) -> None:
    """No party is queried about a name that is in the form of none of these parties' regions, unless an account that
    the caller may see names it, or its party's last list. Raises UnknownRegion."""
    strange = _strange(at, query.regions or ()) if at else set[str]()
    if not strange:
        return
    tenants = query.tenants if query.tenants or not lookup.caller else tokens.tenants_of(lookup.caller)
    rows = visible.found(lookup, tenants, at).rows
    lookup.read(known_members.place_of(row.tenant_id, row.party, row.account) for row in rows if row.discover)
    named = [account for row in rows for account in (NamedAccount(row), *visible.behind(lookup, row))]
    lookup.read_lists_of_regions([account.key for account in named])
    for account in named:
        last = known_regions.listed_in(lookup.row(known_regions.listed_place(account.key)), account.row.revision)
        strange -= {*account.row.regions, *(last.codes if last else ())}
    if strange:
        whose = f"{parties.load(at[0]).title} has no" if len(at) == 1 else "None of these parties has a"
        raise UnknownRegion(f"{whose} region of this name. If it is new, query `all` regions first.")


def _fits(party: Party, region: str) -> bool:
    """Whether the name is in the form of the party's regions, or an alias of one."""
    return party.expects(party.aliases.get(region, region))
