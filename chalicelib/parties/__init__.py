"""Every cloud that twocloud asks: one module each, found by its name and imported when it is first asked for.

`rest` is a package of the clouds that a bearer token opens; `libcloud` holds those behind the bridge in its PARTIES,
named here so that their names are known without an import.
"""

import importlib
import pkgutil
from dataclasses import replace
from functools import cache

from chalicelib import journal
from chalicelib.errors import InvalidParameter, PartyMalformed, UnknownRegion
from chalicelib.model import Account, Listing, Party, Send, Source, Window, bounded

_BRIDGED = ("brightbox", "cloudsigma", "cloudstack", "kamatera", "outscale")
_LONGEST_ID = 2048                          # characters; azure's have some hundred


@cache
def _modules() -> dict[str, str]:
    """party -> the module that holds it."""
    own = {module.name: module.name for module in pkgutil.iter_modules(__path__)}
    for module in ("rest", "libcloud"):
        own.pop(module, None)
    rest = {module.name: f"rest.{module.name}" for module in pkgutil.iter_modules([f"{p}/rest" for p in __path__])}
    return {**own, **rest, **dict.fromkeys(_BRIDGED, "libcloud")}


@cache
def names() -> tuple[str, ...]:
    """The parties, in the order of their names."""
    return tuple(sorted(_modules()))


def module_of(name: str) -> str:
    return _modules()[name]


@cache
def load(name: str) -> Party:
    """Raises InvalidParameter if there is no such party."""
    if name not in names():
        raise InvalidParameter("party", f"Unknown party; known are: {', '.join(names())}.")
    module = importlib.import_module(f"{__name__}.{module_of(name)}")
    party: Party = module.PARTIES[name] if name in _BRIDGED else module.PARTY
    return party


def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    """The party's own listing; an empty one of a region is believed only if the party would refuse an unknown one.

    Every server is held to what a server can be. A value of the answer that cannot be converted (a number too large, a
    date that does not exist) is PartyMalformed, so that the snapshot is still served; the log holds the traceback. Any
    other exception of an adapter is a fault of ours and passes.
    """
    party = load(source.party)
    try:
        listing = party.list_servers(source, account, window, send)
    except (ArithmeticError, ValueError):
        journal.failure(party=party.name)
        raise PartyMalformed() from None
    if any(len(server.id) > _LONGEST_ID for server in listing.servers):
        raise PartyMalformed()
    listing = replace(listing, servers=[bounded(server) for server in listing.servers])
    if party.silent_regions and listing.total == 0 and source.region not in {
            region.code for region in party.list_regions(account, send) if region.open}:
        raise UnknownRegion(f"{party.title} has no such region, or it is not open to this account.")
    return listing
