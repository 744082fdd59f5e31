"""Which accounts a caller may see: what `GET /twocloud/me` returns, and whose sources are in the metrics."""

from collections.abc import Collection, Container, Iterable, Iterator
from contextlib import suppress

import msgspec

from .. import parties
from ..access import tokens
from ..access.accounts import AccountRow
from ..cloud.party import Party
from ..errors import UnknownRegion
from ..model import Source
from . import known_members, known_regions
from .lookup import Found, Lookup, NamedAccount


class VisibleAccount(msgspec.Struct, frozen=True):
    """An account that a token opens. `account`: its name. `regions`: those of its regions that the token covers; None:
    every region that the party says is open to it. `discovered_by`: the account behind which it was found. `row`: its
    own, or that account's; None: it is damaged."""

    tenant_id: str
    party: str
    account: str
    regions: tuple[str, ...] | None
    discovered_by: str | None = None
    row: AccountRow | None = None


def found(lookup: Lookup, tenants: Collection[str] | None, at: Collection[str] | None = None) -> Found:
    """The accounts of these tenants, or (None) of everybody, at these parties, or (None) at all, that the caller may
    see."""
    caller = lookup.caller
    return lookup.accounts(tenants).only(lambda tenant_id, party: (at is None or party in at) and (
        caller is None or tokens.opens(caller, tenant_id, party)))


def accounts(lookup: Lookup) -> list[VisibleAccount]:
    """All that the caller may see, by tenant, party and name, members as the last look-up found them. An account whose
    row is damaged is one that names no regions. No party is queried."""
    caller = lookup.caller
    every = found(lookup, tokens.tenants_of(caller) if caller else None)
    lookup.read(known_members.place_of(row.tenant_id, row.party, row.account) for row in every.rows if row.discover)
    named = [account for row in every.rows for account in (NamedAccount(row), *behind(lookup, row))]
    limits = tokens.limits_of(caller)[1] if caller else None
    if limits is not None:
        lookup.read(known_regions.listed_place(account.key) for account in named if not account.row.regions)
    made = [VisibleAccount(account.row.tenant_id, account.row.party, account.name, _regions(lookup, account, limits),
                           account.row.account if account.member else None, account.row) for account in named]
    made += [VisibleAccount(source.tenant_id, source.party, source.account, _limited(lookup, source, limits))
             for source in every.damaged]
    return sorted((it for it in made if it.regions != ()),      # of which the token covers none
                  key=lambda it: (it.tenant_id, it.party, it.account))


def behind(lookup: Lookup, row: AccountRow) -> list[NamedAccount]:
    """The members of an account that is a door, as the last look-up found them."""
    if not row.discover:
        return []
    last = lookup.members_behind(row)
    return [NamedAccount(row, member) for member in last.open()] if last else []


def _regions(lookup: Lookup, account: NamedAccount, limits: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Those that the account names or its party listed, as far as the token covers them."""
    regions, every = account.row.regions, account.source(known_regions.EVERY)
    if not regions:
        place = known_regions.listed_place(account.key)
        listed = known_regions.listed_in(lookup.row(place), account.row.revision) if limits is not None else None
        if listed is None:
            return _limited(lookup, every, limits)
        regions = listed.codes
    return tuple(code for code in regions if not lookup.caller or tokens.allows(lookup.caller, account.source(code)))


def _limited(lookup: Lookup, account: Source, limits: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Of an account whose regions are not known: those that the token's limits name, if they can be regions there."""
    if limits is None:
        return None
    caller = lookup.caller
    return tuple(sorted(it.region for it in named(account, limits) if not caller or tokens.allows(caller, it)))


def named(account: Source, names: Iterable[str], strange: Container[str] = ()) -> list[Source]:
    """The account's sources that these names of regions can mean, see `codes`."""
    return [Source(account.tenant_id, account.party, code, account.account)
            for code in codes(account.party, names, strange)]


def codes(at: str, names: Iterable[str], strange: Container[str] = ()) -> set[str]:
    """The regions that these names can mean at a party: those in the form of its regions, and those of the names that
    are `strange`, which are in no party's form. None at a party that this version does not know."""
    return {*_codes(parties.load(at), names, strange)} if at in parties.names() else set()


def _codes(party: Party, names: Iterable[str], strange: Container[str]) -> Iterator[str]:
    for name in names:
        with suppress(UnknownRegion):
            if party.expects(code := party.region(name)) or name in strange:
                yield code
