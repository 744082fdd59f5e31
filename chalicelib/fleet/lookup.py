"""A request: what is asked for and how fresh (Lookup), and from where and why each source is answered (SourcePlan)."""

import time
from collections.abc import Callable, Collection, Container, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import inf

import msgspec
from msgspec.structs import replace

from .. import log, parties
from ..access import accounts
from ..access.accounts import AccountRow
from ..access.tokens import Caller
from ..cloud.calls import CallStats
from ..errors import AccountNotFound, Internal, PartyDenied, PartyError, StoreBusy, TwocloudError, UnknownRegion
from ..model import DEFAULT_ACCOUNT, WHOLE, Member, Server, Source, Window
from ..storage import snapshots, store
from ..storage.snapshots import Head
from ..storage.store import Place, Row, Store
from . import known_members, known_regions
from .deployment import Deployment
from .known_members import Members
from .known_regions import Outcome
from .query import Query
from .together import Together

REQUEST_SECONDS = 25.0                      # in which every request is answered
ANSWER_SECONDS = 2.0                        # of it, kept for what comes after the party
_DENIED_SECONDS = 900                       # refused credentials are no outage: how long a stale snapshot still serves
_LISTED = 16                                # sources, above which their heads are read by queries
_UNREAD = Row(b"", 0)                       # of a row that was not read yet
NO_SNAPSHOT = "No snapshot is recent enough, and only-if-cached forbids querying the party."


class Freshness(msgspec.Struct, frozen=True, gc=False):
    """What a caller accepts. `max_age`: seconds, 0: always query the party. `stale`: seconds that a snapshot may be old
    if the party fails, 0: none. `cached`: never query the party; only a snapshot younger than `max_age`."""

    max_age: int = 0
    stale: int = 0
    cached: bool = False

    def stale_after(self, failure: PartyError | UnknownRegion) -> float:
        """Seconds that a snapshot may be old if the party failed so; -inf if stale snapshots are not accepted."""
        return (min(self.stale, _DENIED_SECONDS) if isinstance(failure, PartyDenied) else self.stale) or -inf


ANY_AGE = Freshness(max_age=10 ** 10)       # a snapshot of any age
NAMED = Freshness(max_age=10 ** 10, cached=True)                # the same for a list that the caller names


class Filter(msgspec.Struct, frozen=True):
    """Which servers of a list are wanted; None: all. `name` is any part of it, whatever the case. `statuses`: any of
    them. `tag`: KEY, or KEY=VALUE; a key may hold a `=` itself."""

    statuses: frozenset[str] | None = None
    name: str | None = None
    ip: str | None = None
    tag: str | None = None

    def __bool__(self) -> bool:
        return (self.statuses, self.name, self.ip, self.tag) != (None, None, None, None)

    def keeps(self, server: Server) -> bool:
        return ((self.statuses is None or server.status in self.statuses)
                and (self.name is None or self.name.casefold() in server.name.casefold())
                and (self.ip is None or self.ip in (*server.lan_ipv4, *server.wan_ipv4,
                                                    *server.lan_ipv6, *server.wan_ipv6))
                and (self.tag is None or self.tag in server.tags
                     or any(self.tag == f"{key}={value}" for key, value in server.tags.items())))


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Where a source's list comes from, in the log's word (live, hit, stale or failed), and why, in a sentence."""

    served: str
    why: str


class NamedAccount(msgspec.Struct, frozen=True, gc=False):
    """An account under its name: as it was put, or one of the members behind it."""

    row: AccountRow
    member: Member | None = None

    @property
    def name(self) -> str:
        return f"{self.row.account}:{self.member.id}" if self.member else self.row.account

    @property
    def key(self) -> str:
        return snapshots.account_key(self.row.tenant_id, self.row.party, self.name)

    def source(self, region: str) -> Source:
        return Source(self.row.tenant_id, self.row.party, region, self.name)


class Found(msgspec.Struct, frozen=True):
    """Accounts, by tenant, party and name. `damaged`: those whose rows cannot be read, each as the source of all its
    regions, and why."""

    rows: list[AccountRow]
    damaged: dict[Source, Internal]

    def only(self, wanted: Callable[[str, str], bool]) -> "Found":
        """Those of which `wanted` accepts the tenant and the party."""
        return Found([row for row in self.rows if wanted(row.tenant_id, row.party)],
                     {source: error for source, error in self.damaged.items()
                      if wanted(source.tenant_id, source.party)})


class Lookup(msgspec.Struct):
    """One request: who asks for what, how fresh and by when, and what the store held when it came.

    Each row is read once, as many as possible in one round trip. `arrived`: Unix time; `deadline`: on time.monotonic's
    scale. `caller` None: an operator, who may see everything. `several`: the query means more than one source, which
    shows in the answer's form. `continued`: an operator will read more parts of this very list; callers always may.
    `decisions`: what was decided for each source. `decoded`: rows of accounts. `elsewhere`: sources of which parties
    listed servers beside those of another region.
    """

    deployment: Deployment
    freshness: Freshness = Freshness()
    deadline: float = msgspec.field(default_factory=lambda: time.monotonic() + REQUEST_SECONDS)
    stats: CallStats | None = None
    query: Query | None = None
    caller: Caller | None = None
    several: bool = False
    continued: bool = False
    rows: dict[Place, Row | None] = msgspec.field(default_factory=dict[Place, Row | None])
    decisions: dict[Source, Decision] = msgspec.field(default_factory=dict[Source, Decision])
    decoded: dict[Place, tuple[Row | None, AccountRow]] = msgspec.field(
        default_factory=dict[Place, tuple[Row | None, AccountRow]])
    elsewhere: set[Source] = msgspec.field(default_factory=set[Source])
    arrived: float = 0.0

    def __post_init__(self) -> None:
        self.arrived = self.deployment.clock()

    def read(self, places: Iterable[Place]) -> None:
        """Read those rows that were not read yet, in one round trip."""
        missing = [place for place in places if place not in self.rows]
        if missing:
            rows = self.deployment.store.get_many(missing)
            self.rows |= {place: rows.get(place) for place in missing}

    def begin_again(self) -> None:
        """Read every row again. Lists that were made for this request are fresh enough for it."""
        self.rows.clear()
        self.decisions.clear()

    def forget(self, *places: Place) -> None:
        """Read these rows again when they are next needed: they have changed since."""
        for place in places:
            self.rows.pop(place, None)

    def row(self, place: Place) -> Row | None:
        row = self.rows.get(place, _UNREAD)
        if row is _UNREAD:
            row = self.rows[place] = self.deployment.store.get_many([place]).get(place)
        return row

    def account(self, tenant_id: str, party: str, name: str = DEFAULT_ACCOUNT) -> AccountRow:
        """Raises AccountNotFound, Internal."""
        place = accounts.place_of(tenant_id, party, name)
        row, last = self.row(place), self.decoded.get(place)
        if last is None or last[0] is not row:                  # decoded once for all regions of the account
            last = self.decoded[place] = row, accounts.row_of(row, tenant_id, party, name)
        return last[1]

    def accounts_at(self, tenant_id: str, party: str) -> Found:
        """A tenant's accounts at one party."""
        self.read(account_places(tenant_id, party))
        names = accounts.names_in(self.row(accounts.names_place(tenant_id, party)))
        if names is None:
            names = accounts.names_there(self.deployment.store, tenant_id, party)
        places = [accounts.place_of(tenant_id, party, name) for name in {DEFAULT_ACCOUNT, *names}]
        self.read(places)
        return self._sort_out((place, row) for place in places if (row := self.row(place)))

    def accounts(self, tenants: Collection[str] | None) -> Found:
        """The accounts of these tenants, or (None) everybody's."""
        store = self.deployment.store
        rows = dict(accounts.rows(store)) if tenants is None else accounts.rows_of(store, tenants)
        self.rows |= rows
        return self._sort_out(rows.items())

    def _sort_out(self, rows: Iterable[tuple[Place, Row]]) -> Found:
        readable, damaged = accounts.sort_out(rows)
        self.decoded |= {place: (self.rows[place], account) for place, account in readable.items()}
        return Found([*readable.values()], {Source(tenant_id, party, known_regions.EVERY, name): self.shown(error)
                             for place, error in damaged.items()
                             for tenant_id, party, name in [snapshots.owner_of_key(place[1])]})

    def shown(self, error: Internal) -> Internal:
        """A fault of our own as an answer shows it: nothing of the inside, except to an operator."""
        return error if self.caller is None else Internal()

    def noted(self, error: Internal, key: str) -> Internal:
        """The same of a fault that is being handled, which the log names."""
        log.failure(source=key)
        return self.shown(error)

    def named(self, row: AccountRow, name: str) -> NamedAccount:
        """The account under this name, one that is queried itself. Raises AccountNotFound."""
        _, _, member_id = name.partition(":")
        if bool(member_id) != row.discover:
            raise AccountNotFound()
        if not member_id:
            return NamedAccount(row)
        last = self.members_behind(row)
        member = last.find(member_id) if last else None
        if member is None:
            raise AccountNotFound()
        return NamedAccount(row, member)

    def members_behind(self, row: AccountRow) -> Members | None:
        """The party's last list of the members behind this account."""
        place = known_members.place_of(row.tenant_id, row.party, row.account)
        return known_members.members_in(self.row(place), row.revision)

    def read_sources(self, sources: Collection[Source]) -> None:
        """Read what the plans of these sources are made of, in a handful of round trips however many they are."""
        heads = [snapshots.place_of(source) for source in sources]
        if len(heads) > _LISTED:
            keys = [key for _, key in heads]
            for kind in ("snapshot", "breaker"):
                rows = snapshots.rows_at(self.deployment.store, kind, keys)
                self.rows |= {(kind, key): rows.get(key) for key in keys}
            self.read(dict.fromkeys(place for source in sources for place in owner_places(source)))
        else:
            self.read(place for source in sources for place in places_of(source))
        self.read(place for source, head in zip(sources, heads, strict=True) if not self.rows[head]
                  for place in doubt_places(source, self.deployment.noted))

    def read_lists_of_regions(self, accounts: Sequence[str]) -> None:
        """Read the parties' last lists of regions for the accounts with these keys; many of them by a query."""
        places = {key: known_regions.listed_place(key) for key in accounts}
        if len(places) > _LISTED:
            keys = [key for _, key in places.values()]
            rows = snapshots.rows_at(self.deployment.store, "regions", keys)
            self.rows |= {("regions", key): rows.get(key) for key in keys}
        self.read(places.values())

    def plan(self, source: Source, window: Window = WHOLE, wanted: Filter = Filter(), *,
             live: bool = True) -> "SourcePlan":
        """How this source is answered, from rows that are read in one round trip. Raises AccountNotFound, Internal."""
        key = snapshots.key_of(source)
        if ("snapshot", key) not in self.rows:
            self.read(places_of(source))
        account = self.account(source.tenant_id, source.party, source.account)
        named = self.named(account, source.account)
        head = snapshots.head_of(self.row(("snapshot", key)), source, account.revision)
        if not head:
            self.read(doubt_places(source, self.deployment.noted))
        known, before = head is not None or self._is_known(source, account), None
        if not known:
            before = known_regions.outcome_in(self.row(known_regions.outcomes_place(named.key)), account.revision,
                                              source.region, self.arrived)
            key = snapshots.key_of(replace(source, region=known_regions.UNKNOWN))
        return SourcePlan(self, source, account, wanted, window, self.freshness, self.deadline, head,
                          self.row(("breaker", key)), known, before, named.member, live)

    def plan_regions(self, account: NamedAccount) -> "SourcePlan":
        """How the list of the account's regions is answered."""
        source = account.source(known_regions.EVERY)
        self.read(region_places(account.key))
        return SourcePlan(self, source, account.row, Filter(), WHOLE, self.freshness, self.deadline, None,
                          self.row(("breaker", snapshots.key_of(source))), member=account.member)

    def _is_known(self, source: Source, account: AccountRow) -> bool:
        """Whether the party is known to have the region of which there is no snapshot: the account names it, twocloud
        knows it, it was read before, or the party's list of regions names it."""
        if source.region in account.regions or is_built_in(source):
            return True
        key = snapshots.key_of(source)
        if key in self.deployment.noted or self.row(("interest", key)):
            return True
        place = known_regions.listed_place(snapshots.account_key_of(source))
        last = known_regions.listed_in(self.row(place), account.revision)
        return bool(last and source.region in last.codes and source.region not in last.doubtful)


def is_built_in(source: Source) -> bool:
    return known_regions.is_built_in(parties.load(source.party), source.region)


def places_of(source: Source) -> list[Place]:
    """Where the store holds what a source's plan is made of, if the source is known."""
    key = snapshots.key_of(source)
    return [*owner_places(source), ("snapshot", key), ("breaker", key)]


def owner_places(source: Source) -> list[Place]:
    """Where the store holds whose the source is."""
    places = [accounts.place_of(source.tenant_id, source.party, source.account)]
    if ":" in source.account:
        places.append(known_members.place_of(source.tenant_id, source.party, source.account))
    return places


def doubt_places(source: Source, noted: Container[str]) -> list[Place]:
    """Where the store holds more of a source without a snapshot, if it is not known. `noted`: keys of known ones."""
    key, account = snapshots.key_of(source), snapshots.account_key_of(source)
    if key in noted or is_built_in(source):
        return []
    unknown = snapshots.key_of(replace(source, region=known_regions.UNKNOWN))
    return [("interest", key), known_regions.listed_place(account), known_regions.outcomes_place(account),
            ("breaker", unknown)]


def account_places(tenant_id: str, party: str) -> list[Place]:
    """Where the store holds which accounts a tenant has at a party, as far as one read tells."""
    return [accounts.place_of(tenant_id, party), accounts.names_place(tenant_id, party)]


def region_places(account: str) -> list[Place]:
    """Where the store holds what is known of the regions of the account with this key."""
    return [known_regions.listed_place(account), known_regions.outcomes_place(account),
            ("breaker", f"{account}/{known_regions.EVERY}")]


class SourcePlan(msgspec.Struct, frozen=True):
    """How a lookup answers one source: what is asked of it, and what the store held of it when the request came.

    `head`: of its snapshot. `breaker`: the circuit breaker's row. `known`: the party is known to have the region; if
    not, `before` is the last outcome for it within the hour. `member`: the one of the account that is listed. `live`:
    one of several whose party may be queried. `over_limit`: there are too many sources to query this one's party.
    `refreshing`: the list is wanted for its snapshot. `named`: the caller names the list of `head`, and no other one
    serves. `chunks`: what was read of its chunks together with those of other sources. `together`: with others of its
    door, whose parties are queried by the same calls.
    """

    lookup: Lookup
    source: Source
    account: AccountRow
    filter: Filter
    window: Window
    freshness: Freshness
    deadline: float
    head: Head | None
    breaker: Row | None
    known: bool = True
    before: Outcome | None = None
    member: Member | None = None
    live: bool = True
    over_limit: bool = False
    refreshing: bool = False
    named: bool = False
    chunks: Mapping[Place, Row] | None = None
    together: Together | None = None

    @property
    def deployment(self) -> Deployment:
        return self.lookup.deployment

    @property
    def doubtful(self) -> bool:
        """Whether the region is one of all, and the party's list leaves open whether there is such a region."""
        if not self.lookup.query or self.lookup.query.regions is not None or self.account.regions:
            return False
        place = known_regions.listed_place(snapshots.account_key_of(self.source))
        last = known_regions.listed_in(self.lookup.row(place), self.account.revision)
        return not self.known or bool(last and self.source.region in last.doubtful)

    @property
    def store(self) -> Store:
        return self.lookup.deployment.store

    @property
    def arrived(self) -> float:
        return self.lookup.arrived

    @property
    def revision(self) -> str:
        return self.account.revision

    @property
    def party_deadline(self) -> float:
        return self.deadline - ANSWER_SECONDS

    @property
    def key(self) -> str:
        return snapshots.key_of(self.source)

    @property
    def shared_key(self) -> str:
        """One key for all regions that the party is not known to have, so that made-up names make no rows."""
        return self.key if self.known else snapshots.key_of(replace(self.source, region=known_regions.UNKNOWN))

    @property
    def account_place(self) -> Place:
        return accounts.place_of(self.source.tenant_id, self.source.party, self.source.account)

    @property
    def account_key(self) -> str:
        return snapshots.account_key_of(self.source)

    @property
    def fresh_enough(self) -> bool:
        """Whether the snapshot serves without a query to the party."""
        age = self._age()
        return age is not None and (age < 0 or bool(self.freshness.max_age and age <= self.freshness.max_age))

    def account_is_same(self, row: Row | None) -> bool:
        """Whether this is still the row of the account for which the plan was made."""
        with suppress(AccountNotFound):
            source = self.source
            return accounts.row_of(row, source.tenant_id, source.party, source.account).revision == self.revision
        return False

    def _age(self) -> float | None:
        return self.arrived - self.head.seen_at if self.head else None

    # ------------------------------------------------------------ the decision, and its reason

    def decide(self, served: str, *reasons: str) -> None:
        """The one place where the reason for a source's answer is written: `explain`, the log and the response's
        headers repeat it."""
        self.lookup.decisions[self.source] = Decision(served, "; ".join((self._about_snapshot(), *reasons)))

    def _about_snapshot(self) -> str:
        age = self._age()
        if age is None:
            return "there is no snapshot"
        if self.named:
            return f"the request names this list, which is {int(max(0, age))} s old"
        if age < 0:
            return "another caller listed the source meanwhile"
        if not self.freshness.max_age:
            return "max_age is 0, so the party is queried"
        return f"the snapshot is {int(age)} s old, max_age allows {self.freshness.max_age} s"

    def decide_failure(self, failure: TwocloudError, *reasons: str, served: bool = False) -> None:
        """`served`: by a stale snapshot."""
        age, stale = self._age(), self.freshness.stale
        if served:
            outcome = f"the stale snapshot serves, up to {stale} s old"
        elif age is None:
            outcome = "no snapshot can serve"
        else:
            outcome = f"the snapshot is {int(age)} s old, {stale} s are allowed"
        self.decide("stale" if served else "failed", *reasons, failure.code, outcome)


@contextmanager
def best_effort(plan: SourcePlan) -> Generator[None]:
    """Around writes beside an answer: a store that fails at them is logged, and the answer stands. Nothing waits for a
    store that another program has locked."""
    with logged(plan.key), store.beside():
        yield


@contextmanager
def logged(key: str) -> Generator[None]:
    """Log what the store raises, and go on."""
    try:
        yield
    except StoreBusy as busy:               # nothing is broken
        log.logger.warning("store busy", extra={"fields": {"source": key, "text": busy.text}})
    except Exception:
        log.failure(source=key)
