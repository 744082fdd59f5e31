"""Every cloud that twocloud asks: one folder each, found by its name and imported when it is first asked for."""

import importlib
import pkgutil
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import cache

from msgspec.structs import replace

from .. import log
from ..cloud.client import Client
from ..cloud.party import Party
from ..errors import InvalidParameter, PartyError, PartyMalformed, PartyUnavailable, UnknownRegion
from ..model import MEMBER_ID, Account, Listing, Member, Region, Send, Server, Source, Window, bounded

_LONGEST_ID = 2048                          # characters; azure's have some hundred
_REGION = r"(?!all$)[A-Za-z0-9._ -]{1,255}"     # what cannot end a host's name or a path; whoever named it


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
    with _converting(party):
        try:
            listing = party.list_servers(_client(source, account, send), window)
        except PartyUnavailable as failure:             # a host that answers is there
            if party.region_in_host and failure.http_status is None and _is_unknown(source.region, account, send):
                raise UnknownRegion(f"{party.title} has no such region, or it is not open to this account.") from None
            raise
    listing = replace(listing, servers=_believed(listing.servers))
    if party.unknown_region_is_empty and listing.total == 0 and source.region not in {
            region.code for region in list_regions(account, send) if region.open}:
        raise UnknownRegion(f"{party.title} has no such region, or it is not open to this account.")
    return listing


def can_be_region(code: str) -> bool:
    """Whether any party can have a region of this name: no call goes elsewhere because of it."""
    return bool(re.fullmatch(_REGION, code, re.ASCII))


def _client(source: Source, account: Account, send: Send) -> Client:
    """A region may come from the party's own list, or from a row of the store, which is not sealed: the form that
    `Party.region` knows was not asked of it, and adapters write it into hosts and paths. Raises PartyMalformed."""
    if not can_be_region(source.region):
        raise PartyMalformed("The party lists a region whose name holds characters that no region's name can have.")
    return Client(source, account, send)


def _is_unknown(region: str, account: Account, send: Send) -> bool:
    """Whether the party tells its regions, and this is none of them."""
    try:
        return region not in {known.code for known in list_regions(account, send) if known.open}
    except PartyError:
        return False


def list_regions(account: Account, send: Send) -> list[Region]:
    """What the party says its regions are."""
    party = load(account.party)
    return party.list_regions(_usual_client(party, account, send))


def check_region(source: Source, account: Account, send: Send) -> None:
    """Raises UnknownRegion if the region's name has not the form of the party's, and the party does not list it."""
    party = load(source.party)
    if not party.expects(source.region) and source.region not in {
            region.code for region in list_regions(account, send) if region.open}:
        raise UnknownRegion(f"{party.title} has no such region, or it is not open to this account.")


def _usual_client(party: Party, account: Account, send: Send) -> Client:
    """Where no region is asked for: in the account's first one, or the usual one of its site."""
    region = (*account.regions, party.home(account))[0]
    return _client(Source(account.tenant_id, party.name, region, account.name), account, send)


@contextmanager
def _converting(party: Party) -> Generator[None]:
    try:
        yield
    except (ArithmeticError, ValueError):
        log.failure(party=party.name)
        raise PartyMalformed() from None


def _believed(servers: Iterable[Server]) -> list[Server]:
    """The servers, each held to what a server can be."""
    made = [bounded(server) for server in servers]
    if any(len(server.id) > _LONGEST_ID for server in made):
        raise PartyMalformed()
    return made


def discover(account: Account, send: Send) -> list[Member]:
    """All members behind an account that is a door, in the order of their ids, its own included; or an error, never
    a part of them. Raises InvalidParameter if the party has no organisations."""
    party = load(account.party)
    if party.discover is None:
        raise InvalidParameter("discover", f"{party.title} has no organisations whose members could be discovered.")
    with _converting(party):
        members = {member.id: member for member in party.discover(_usual_client(party, account, send))}
    if not all(re.fullmatch(MEMBER_ID, key, re.ASCII) for key in members):
        raise PartyMalformed()
    return [members[key] for key in sorted(members)]


def list_many(account: Account, members: Sequence[Member],
              send: Send) -> dict[str, Mapping[str, list[Server]] | PartyError] | None:
    """By the id of each member its whole list, see Party.list_many; None if they must be listed one by one."""
    party = load(account.party)
    if party.list_many is None or account.project is not None:
        return None
    with _converting(party):
        lists = party.list_many(_usual_client(party, account.door, send), members)
    return {member.id: result if isinstance(result := lists[member.id], PartyError) else {
        region: _believed(servers) for region, servers in result.items()} for member in members}


def warning(source: Source, account: Account, send: Send) -> str:
    """See Party.warn."""
    party = load(source.party)
    return party.warn(_client(source, account, send)) if party.warn else ""


def check(source: Source, account: Account, send: Send) -> None:
    """One cheap signed call; of a door, the discovery of its members. Raises what the party's answer means."""
    party, client = load(source.party), _client(source, account, send)
    if account.discovery and not account.member:
        discover(account, send)
    elif party.check:
        party.check(client)
    else:
        party.list_servers(client, Window(1, 1))
