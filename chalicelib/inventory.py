"""What twocloud does: list the servers of a source, filtered and cut to a window, within the time of a request."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from chalicelib import accounts, parties
from chalicelib.errors import PartyDenied, TwocloudError, UnknownRegion
from chalicelib.model import WHOLE, Account, Listing, Party, Server, Source, Window
from chalicelib.seal import Sealer, open_sealer
from chalicelib.settings import Settings
from chalicelib.stores import Store, open_store
from chalicelib.transport import Sender, Tally, Transport

REQUEST_SECONDS = 25.0                      # in which every request is answered
_ANSWER_SECONDS = 2.0                       # of it, kept for what comes after the party


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a running twocloud stands on. `clock`: Unix time."""

    settings: Settings
    store: Store
    sealer: Callable[[], Sealer]            # on first use: the key is not needed to say who may see what
    transport: Transport
    clock: Callable[[], float]

    def close(self) -> None:
        self.transport.close()
        self.store.close()


def open_deployment(settings: Settings, clock: Callable[[], float] = time.time) -> Deployment:
    """Raises SettingsError if the store cannot be used."""
    opened: list[Sealer] = []

    def sealer() -> Sealer:
        if not opened:
            opened.append(open_sealer(settings.key))
        return opened[0]

    return Deployment(settings, open_store(settings.store, clock), sealer, Transport(), clock)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which servers of a list are wanted; None: all. `name` is any part of it, whatever the case."""

    status: str | None = None
    name: str | None = None
    ip: str | None = None

    def __bool__(self) -> bool:
        return (self.status, self.name, self.ip) != (None, None, None)

    def keeps(self, server: Server) -> bool:
        return ((self.status is None or server.status == self.status)
                and (self.name is None or self.name.casefold() in server.name.casefold())
                and (self.ip is None or self.ip in _every_address(server)))


@dataclass(frozen=True, slots=True)
class Answer:
    """A window of a source's servers. `seen_at`: when the party gave them.

    `total`: how many the filter keeps; None: not known, but more follow the window.
    """

    source: Source
    servers: list[Server]
    total: int | None
    seen_at: datetime


def source_of(tenant_id: str, party: str, region: str) -> Source:
    """Raises InvalidParameter if there is no such party, or if the region cannot be one of its regions."""
    return Source(tenant_id, party, parties.load(party).region(region))


def list_servers(deployment: Deployment, source: Source, window: Window = WHOLE, wanted: Filter = Filter(),
                 deadline: float | None = None, tally: Tally | None = None) -> Answer:
    """Ask the party. `deadline`: on time.monotonic's scale. `tally` is filled with what was called.

    Raises AccountNotFound, PartyError, UnknownRegion.
    """
    account = open_account(deployment, source.tenant_id, source.party)
    party = parties.load(source.party)
    end = (deadline or time.monotonic() + REQUEST_SECONDS) - _ANSWER_SECONDS
    sender = deployment.transport.sender(party, account, source.region, end)
    if tally is not None:
        sender.tally = tally
    seen_at = datetime.fromtimestamp(int(deployment.clock()), UTC)
    try:
        listing = parties.list_servers(source, account, WHOLE if wanted else window, sender)
    finally:
        sender.close()
    if wanted:
        kept = [server for server in listing.servers if wanted.keeps(server)]
        listing = Listing(kept[window.first - 1:window.last], len(kept))
    return Answer(source, listing.servers, listing.total, seen_at)


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


def open_account(deployment: Deployment, tenant_id: str, party: str) -> Account:
    return accounts.load(deployment.store, deployment.sealer, tenant_id, party, local=deployment.settings.local)


def _is_closed(party: Party, account: Account, region: str, sender: Sender) -> bool:
    """Whether the party itself says so: some answer "wrong key" in a region that is not opted in."""
    try:
        return region not in {known.code for known in party.list_regions(account, sender) if known.open}
    except TwocloudError:
        return False                        # this second question is a courtesy; the first answer stands


def _every_address(server: Server) -> tuple[str, ...]:
    return server.lan_ipv4 + server.wan_ipv4 + server.lan_ipv6 + server.wan_ipv6
