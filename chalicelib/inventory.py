"""What twocloud does: list the servers of one source or of many, refresh them, tell what changed, check an account.

Several sources are asked side by side, each within its share of the time; one that fails is stale, fails the answer,
or is left out of it and named, as the caller chose.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from chalicelib import accounts, memory, parties, snapshots, tokens
from chalicelib.accounts import AccountRow
from chalicelib.deployment import Deployment, open_deployment
from chalicelib.errors import (
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
from chalicelib.freshness import REQUEST_SECONDS, Answer, Filter, Policy, moment, obtain, open_account, refresh
from chalicelib.model import WHOLE, Account, Party, Region, Send, Source, Window
from chalicelib.paging import side_by_side
from chalicelib.query import Query
from chalicelib.snapshots import Head, Vanished
from chalicelib.tokens import Caller
from chalicelib.transport import Tally

__all__ = ["REQUEST_SECONDS", "Answer", "Deployment", "Filter", "Policy", "open_account", "open_deployment", "refresh"]
_SIDE_BY_SIDE = 16                          # sources that are asked at the same time
_MOST_LIVE = 64                             # sources of one request that are asked; the others are kept lists
_ANSWER_SECONDS = 0.5                       # kept back from the time of the sources
KEPT = Policy(max_age=10 ** 10)             # a list of any age
_REGIONS_SECONDS = 3600                     # for which a party's own list of regions is believed


def source_of(tenant_id: str, party: str, region: str) -> Source:
    """Raises InvalidParameter if there is no such party, or if the region cannot be one of its regions."""
    return Source(tenant_id, party, parties.load(party).region(region))


def list_servers(deployment: Deployment, source: Source, window: Window = WHOLE, wanted: Filter = Filter(),
                 policy: Policy = Policy(), deadline: float | None = None, tally: Tally | None = None) -> Answer:
    """One source. Raises AccountNotFound, PartyError, UnknownRegion, RateLimited."""
    return obtain(deployment, source, window, wanted, policy, deadline, tally)


# ---------------------------------------------------------------- a query's answer

def answer(deployment: Deployment, asked: Query, policy: Policy, caller: Caller | None, deadline: float,
           tally: Tally | None = None) -> "Fleet":
    """What a query asks for, as far as the caller may see it; None: an operator, who may see everything.

    Raises Forbidden, AccountNotFound, PartyError, UnknownRegion, RateLimited, InvalidParameter.
    """
    wanted = Filter(asked.status, asked.name, asked.ip)
    if asked.several:
        found, failed = sources(deployment, asked, caller)
        return _list_many(deployment, found, failed, asked, wanted, policy, deadline, tally)
    assert asked.parties and asked.regions
    source = source_of(asked.tenant_id, asked.parties[0], asked.regions[0])
    if caller and not tokens.allows(caller, source):
        raise Forbidden()
    if asked.changed_since is not None:
        found = list_changes(deployment, source, asked.changed_since, wanted, policy, deadline, tally)
        given, window = found.answer, asked.window
        given = replace(given, servers=given.servers[window.first - 1:window.last])
        return Fleet([_part(deployment, given, found.vanished)], given.total)
    given = obtain(deployment, source, asked.window, wanted, policy, deadline, tally)
    return Fleet([_part(deployment, given)], given.total)


@dataclass(frozen=True, slots=True)
class Part:
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


def sources(deployment: Deployment, asked: Query, caller: Caller | None) -> tuple[list[Source], list[Part]]:
    """The sources that a query names, in the order party, region; beside them, for each account whose regions its
    party would not tell, a part that failed. `all` is what the caller may see; what is named must be covered."""
    tenant_id, regions = asked.tenant_id, asked.regions
    if caller and not tokens.opens(caller, tenant_id):
        raise Forbidden()
    rows = {row.party: row for row in accounts.every(deployment.store, tenant_id)}
    names = sorted(name for name in (rows if asked.parties is None else asked.parties)
                   if asked.parties is not None or not caller or tokens.opens(caller, tenant_id, name))
    if asked.parties is not None and caller and not all(tokens.opens(caller, tenant_id, name) for name in names):
        raise Forbidden()
    for region in regions or ():
        if names and not any(_fits(parties.load(name), region) for name in names):
            raise UnknownRegion("None of these parties has a region of this name.")
    found: list[Source] = []
    failed: list[Part] = []
    for name in names:
        party = parties.load(name)
        if regions is not None:
            found += [Source(tenant_id, name, party.region(region)) for region in regions if _fits(party, region)]
            continue
        if name not in rows:
            raise AccountNotFound()
        try:
            codes = rows[name].regions or _open_regions(deployment, rows[name])
        except (PartyError, UnknownRegion) as error:
            failed.append(Part(Source(tenant_id, name, "all"), error=error))
            continue
        found += [Source(tenant_id, name, code) for code in codes]
    covered = {source for source in found if not caller or tokens.allows(caller, source)}
    if asked.parties is not None and regions is not None and len(covered) < len(set(found)):
        raise Forbidden()
    if not covered and not failed:
        raise Forbidden() if found else AccountNotFound()
    return sorted(covered, key=lambda source: (source.party, source.region)), failed


def _fits(party: Party, region: str) -> bool:
    try:
        return bool(party.region(region))
    except UnknownRegion:
        return False


def _open_regions(deployment: Deployment, row: AccountRow) -> list[str]:
    party = parties.load(row.party)

    def fetch() -> list[Region]:
        account = open_account(deployment, row.tenant_id, row.party)
        sender = deployment.transport.sender(party, account, party.default_region, time.monotonic() + 10)
        try:
            return party.list_regions(account, sender)
        finally:
            sender.close()

    return [region.code for region in memory.for_a_while(("regions", row.tenant_id, row.party, row.revision),
                                                         _REGIONS_SECONDS, fetch) if region.open]


# ---------------------------------------------------------------- several sources

@dataclass(frozen=True, slots=True)
class Fleet:
    """An answer over several sources, in their order. `total`: None if a source failed or more than one follows."""

    parts: list[Part]
    total: int | None

    @property
    def complete(self) -> bool:
        return all(part.state != "failed" for part in self.parts)


def _list_many(deployment: Deployment, found: Sequence[Source], failed: Sequence[Part], asked: Query, wanted: Filter,
               policy: Policy, deadline: float, tally: Tally | None) -> Fleet:
    """The window over the whole of all sources. Raises the first failure if the caller wants no partial answer.

    A region that its party does not know is left out if it came from a list, where it belongs to another party.
    """
    window, since, partial = asked.window, asked.changed_since, asked.on_error == "partial"
    lenient = asked.regions is not None and (asked.parties is None or len(asked.parties) > 1)
    now, end = deployment.clock(), deadline - _ANSWER_SECONDS
    heads = _heads(deployment, found)
    young = {source for source, head in heads.items() if head and policy.max_age
             and now - head.seen_at <= policy.max_age and since is None}
    live = sorted((source for source in found if source not in young),
                  key=lambda source: head.seen_at if (head := heads[source]) else 0.0)
    spared = {source for source in live[_MOST_LIVE:] if heads[source]}          # too many: their kept lists must do
    live = [source for source in live if source not in spared]
    share = (end - time.monotonic()) / max(1, -(-len(live) // _SIDE_BY_SIDE))

    def ask(source: Source) -> Answer:
        until = min(end, time.monotonic() + share)
        if since is not None:
            found = list_changes(deployment, source, since, wanted, policy, until, tally)
            vanished[source] = found.vanished
            return found.answer
        return obtain(deployment, source, WHOLE, wanted, policy, until, tally)

    def keep(source: Source, part: Window) -> Answer:
        """What is kept of the source; no more of it is read than is wanted."""
        head = heads[source]
        if head and not wanted and (part.last == 0 or part.first > head.total):
            return Answer(source, [], head.total, moment(head.seen_at), kept=True)
        patient = replace(policy, max_age=max(policy.max_age, policy.stale)) if source in spared else policy
        answer = obtain(deployment, source, part if part.last != 0 else WHOLE, wanted, patient, end, tally)
        if source in spared and not answer.failure:
            answer = replace(answer, failure=PartyTimeout("Too many sources to ask all of them in one request."))
        return answer if part.last != 0 else replace(answer, servers=[])

    vanished: dict[Source, list[Vanished]] = {}
    pool = ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="twocloud-source")
    try:
        answers = {source: pool.submit(ask, source) for source in live}
        parts: list[Part] = []
        position = 0                        # of the next source's first server, from 0
        for source in found:
            local = Window(max(1, window.first - position), window.last and max(0, window.last - position))
            try:
                if source in answers:
                    answer = answers[source].result(max(0.0, deadline - time.monotonic()))
                    answer = replace(answer, servers=answer.servers[local.first - 1:local.last])
                else:
                    answer = keep(source, local)
            except (TwocloudError, TimeoutError) as problem:
                error = problem if isinstance(problem, TwocloudError) else PartyTimeout()
                if isinstance(error, UnknownRegion) and lenient:
                    continue
                parts.append(Part(source, error=error))
                if not (partial and isinstance(error, (PartyError, UnknownRegion, RateLimited))):
                    raise error from None
                continue
            parts.append(_part(deployment, answer, vanished.get(source, ())))
            position += answer.total or 0   # of a whole list the total is known
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if failed and not partial:
        assert failed[0].error
        raise failed[0].error
    parts = sorted([*parts, *failed], key=lambda part: (part.source.party, part.source.region))
    if not parts:
        raise UnknownRegion("None of these parties has a region of this name.")
    return Fleet(parts, None if any(part.answer is None for part in parts) else position)


def _part(deployment: Deployment, answer: Answer, vanished: Sequence[Vanished] = ()) -> Part:
    age = max(0, int(deployment.clock()) - int(answer.seen_at.timestamp())) if answer.kept else 0
    return Part(answer.source, answer, answer.failure, answer.total, age, tuple(vanished))


def _heads(deployment: Deployment, found: Sequence[Source]) -> dict[Source, Head | None]:
    """Raises AccountNotFound."""
    revisions = {name: accounts.find(deployment.store, tenant_id, name).revision
                 for tenant_id, name in dict.fromkeys((source.tenant_id, source.party) for source in found)}
    read = [lambda source=source: snapshots.find(deployment.store, source, revisions[source.party])
            for source in found]
    return dict(zip(found, side_by_side(read, _SIDE_BY_SIDE), strict=True))


# ---------------------------------------------------------------- what changed

@dataclass(frozen=True, slots=True)
class Changes:
    """What is different since a time. `answer`: the servers that appeared or changed, as they are now; `fields`: which
    of each one's fields, none if it appeared. `vanished`: those that are not listed any more."""

    answer: Answer
    fields: dict[str, tuple[str, ...]]
    vanished: list[Vanished]


def list_changes(deployment: Deployment, source: Source, since: float, wanted: Filter = Filter(),
                 policy: Policy = KEPT, deadline: float | None = None, tally: Tally | None = None) -> Changes:
    """From what is kept, whatever its age; a source of which nothing is kept yet is listed first.

    Raises InvalidParameter if `since` is older than the history, AccountNotFound, PartyError, UnknownRegion.
    """
    if since < deployment.clock() - deployment.settings.history * 86_400:
        raise InvalidParameter("changed_since", f"Changes are kept for {deployment.settings.history} days.")
    answer = obtain(deployment, source, WHOLE, wanted, policy, deadline, tally)
    revision = accounts.find(deployment.store, source.tenant_id, source.party).revision
    head = snapshots.find(deployment.store, source, revision)
    everything = not head or since < head.since                 # all that we know of appeared after that
    fields: dict[str, tuple[str, ...]] = {}
    gone: dict[str, Vanished] = {}
    for change in snapshots.changes(deployment.store, source, since):
        fields |= dict.fromkeys(change.appeared, ())
        for key, names in change.changed.items():
            before = fields.get(key)
            fields[key] = () if before == () else tuple(dict.fromkeys((*(before or ()), *names)))
        gone |= {server.id: server for server in change.vanished}
    there = {server.id for server in (answer if not wanted else obtain(
        deployment, source, WHOLE, Filter(), KEPT, deadline, tally)).servers}
    shown = [server for server in answer.servers if everything or server.id in fields]
    vanished = sorted((server for key, server in gone.items() if key not in there),
                      key=lambda server: (server.vanished_at, server.id))
    return Changes(replace(answer, servers=shown, total=len(shown)), fields, vanished)


# ---------------------------------------------------------------- accounts

def check_account(deployment: Deployment, tenant_id: str, party_name: str, region: str | None = None) -> str:
    """One cheap signed call; the region it was made in. Raises what the party's answer means, in words."""
    account = open_account(deployment, tenant_id, party_name)
    party = parties.load(party_name)
    code = party.region(region) if region else (*account.regions, party.default_region)[0]
    source = Source(tenant_id, party_name, code)
    sender = deployment.transport.sender(party, account, code, time.monotonic() + REQUEST_SECONDS)
    try:
        party.check(source, account, sender)
    except (PartyDenied, UnknownRegion):
        if _is_closed(party, account, code, sender):
            raise UnknownRegion(f"{code} is not a region that is open to this account at {party.title}.") from None
        raise
    finally:
        sender.close()
    return code


def _is_closed(party: Party, account: Account, region: str, sender: Send) -> bool:
    """Whether the party itself says so: some answer "wrong key" in a region that is not opted in."""
    try:
        return region not in {known.code for known in party.list_regions(account, sender) if known.open}
    except TwocloudError:
        return False                        # this second question is a courtesy; the first answer stands
