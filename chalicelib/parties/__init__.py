"""Every cloud that twocloud asks: one module each, found by its name and imported when it is first asked for.

`rest` holds the clouds that a bearer token opens, `libcloud` those behind the bridge; both are named here, so that
their names are known without an import.
"""

import importlib
import pkgutil
from functools import cache

from chalicelib.errors import InvalidParameter, UnknownRegion
from chalicelib.model import Account, Listing, Party, Send, Source, Window

_SEVERAL: dict[str, tuple[str, ...]] = {    # module -> the parties in it
    "rest": (),
    "libcloud": ("brightbox", "cloudsigma", "cloudstack", "kamatera", "outscale"),
}
_MODULES = {name: module for module, several in _SEVERAL.items() for name in several}


@cache
def names() -> tuple[str, ...]:
    """The parties, in the order of their names."""
    own = {module.name for module in pkgutil.iter_modules(__path__)} - _SEVERAL.keys()
    return tuple(sorted(own | _MODULES.keys()))


def module_of(name: str) -> str:
    return _MODULES.get(name, name)


@cache
def load(name: str) -> Party:
    """Raises InvalidParameter if there is no such party."""
    if name not in names():
        raise InvalidParameter("party", f"Unknown party; known are: {', '.join(names())}.")
    module = importlib.import_module(f"{__name__}.{module_of(name)}")
    party: Party = module.PARTIES[name] if name in _MODULES else module.PARTY
    return party


def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    """The party's own listing; an empty one of a region is believed only if the party would refuse an unknown one."""
    party = load(source.party)
    listing = party.list_servers(source, account, window, send)
    if party.silent_regions and listing.total == 0 and source.region not in {
            region.code for region in party.list_regions(account, send) if region.open}:
        raise UnknownRegion(f"{party.title} has no such region, or it is not open to this account.")
    return listing
