"""The members behind an account that is a door to others: looked up once an hour, by one caller at a time."""

from collections.abc import Sequence

from msgspec.structs import replace

from .. import parties
from ..access.accounts import AccountRow
from ..cloud.party import Party
from ..errors import PartyError, PartyTimeout
from ..model import Member
from ..storage import snapshots
from ..storage.store import Row
from . import circuit_breaker, known_members
from .known_members import Members
from .lookup import NO_SNAPSHOT, Lookup, NamedAccount, SourcePlan, best_effort
from .party_call import call_party
from .single_flight import single_flight


def members(lookup: Lookup, account: AccountRow, deadline: float | None = None) -> Sequence[Member]:
    """Those that are sources, by id. If the party fails, its last list serves as long as a snapshot would. Raises
    PartyError, UnknownRegion."""
    return look_up(lookup, account, deadline).open()


def look_up(lookup: Lookup, account: AccountRow, deadline: float | None = None, *, now: bool = False) -> Members:
    """The list of members, closed ones too. `now`: query the party although its last list is younger than an hour.
    Raises as `members` does."""
    plan, place = _plan(lookup, account, deadline), known_members.place_of(account.tenant_id, account.party,
                                                                           account.account)
    last = lookup.members_behind(account)
    if last and not now and (plan.freshness.cached or plan.arrived - last.at <= known_members.BELIEVED_SECONDS):
        return last
    if plan.freshness.cached:
        raise PartyTimeout(NO_SNAPSHOT)
    try:
        return _query(plan, last)
    except PartyError as failure:
        if last and not now and plan.deployment.clock() - last.at <= plan.freshness.stale_after(failure):
            return last
        raise
    finally:
        lookup.forget(place)


def _plan(lookup: Lookup, account: AccountRow, deadline: float | None) -> SourcePlan:
    plan = lookup.plan_regions(NamedAccount(account))
    return replace(plan, deadline=deadline) if deadline else plan


def _query(plan: SourcePlan, before: Members | None) -> Members:
    """Query the party, and keep its list. Raises PartyError, UnknownRegion."""
    source, place = plan.source, known_members.place_of(plan.source.tenant_id, plan.source.party, plan.source.account)

    def query() -> Members:
        listed, _ = call_party(plan, _region(plan), parties.discover)
        made, gone = known_members.after(before, listed, plan.revision, plan.deployment.clock())
        with best_effort(plan):
            known_members.keep(plan.store, place, made)
            for member_id in gone:
                snapshots.forget_account(plan.store, source.tenant_id, source.party, f"{source.account}:{member_id}")
            if not plan.account_is_same(plan.store.get(*plan.account_place)):
                snapshots.forget(plan.store, source)
        return made

    def look(row: Row | None) -> Members | None:
        newer = known_members.members_in(row, plan.revision)
        return newer if newer and (before is None or newer.at > before.at) else None

    circuit_breaker.check(plan)
    return single_flight(plan, query, place, look)


def _region(plan: SourcePlan) -> str:
    party: Party = parties.load(plan.source.party)
    return (*plan.account.regions, party.default_region)[0]
