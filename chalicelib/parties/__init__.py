"""Every cloud that twocloud asks: one folder each, found by its name and imported when it is first asked for."""

import importlib
import pkgutil
from dataclasses import replace
from functools import cache

from .. import log
from ..cloud.client import Client
from ..cloud.party import Party
from ..errors import InvalidParameter, PartyMalformed, UnknownRegion
from ..model import Account, Listing, Region, Send, Source, Window, bounded

_LONGEST_ID = 2048                          # characters; azure's have some hundred


@cache
def names() -> tuple[str, ...]:
    """The parties, in the order of their names."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@cache
def load(name: str) -> Party:
    """Raises InvalidParameter if there is no such party."""
    if name not in names():
        raise InvalidParameter("party", f"Unknown party. Parties: {', '.join(names())}.")
    party: Party = importlib.import_module(f"{__name__}.{name}").PARTY
    return party


def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    """The party's own listing; an empty one of a region is believed only if the party would refuse an unknown one.

    Every server is held to what a server can be. A value of the answer that cannot be converted (a number too large, a
    date that does not exist) is PartyMalformed, so that the snapshot is still served; the log holds the traceback. Any
    other exception of an adapter is a fault of ours and passes.
    """
    party = load(source.party)
    try:
        listing = party.list_servers(Client(source, account, send), window)
    except (ArithmeticError, ValueError):
        log.failure(party=party.name)
        raise PartyMalformed() from None
    if any(len(server.id) > _LONGEST_ID for server in listing.servers):
        raise PartyMalformed()
    listing = replace(listing, servers=[bounded(server) for server in listing.servers])
    if party.unknown_region_is_empty and listing.total == 0 and source.region not in {
            region.code for region in list_regions(account, send) if region.open}:
        raise UnknownRegion(f"{party.title} has no such region, or it is not open to this account.")
    return listing


def list_regions(account: Account, send: Send) -> list[Region]:
    """What the party says its regions are."""
    party = load(account.party)
    region = (*account.regions, party.default_region)[0]
    return party.list_regions(Client(Source(account.tenant_id, party.name, region), account, send))


def check(source: Source, account: Account, send: Send) -> None:
    """One cheap signed call. Raises what the party's answer means."""
    party, client = load(source.party), Client(source, account, send)
    if party.check:
        party.check(client)
    else:
        party.list_servers(client, Window(1, 1))
