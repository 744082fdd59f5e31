"""Whether a party accepts an account's credentials, and if not, why."""

import time

from .. import parties
from ..cloud.calls import CallStats
from ..cloud.party import Party
from ..errors import PartyDenied, TwocloudError, UnknownRegion
from ..model import DEFAULT_ACCOUNT, Account, Send, Source
from . import known_regions
from .deployment import Deployment
from .lookup import REQUEST_SECONDS
from .party_call import open_account


def check_account(deployment: Deployment, tenant_id: str, party_name: str, region: str | None = None,
                  deadline: float | None = None, stats: CallStats | None = None,
                  name: str = DEFAULT_ACCOUNT) -> str:
    """Make one cheap signed call and return the region it was made in. Raises what the party's response means."""
    return check_credentials(deployment, open_account(deployment, tenant_id, party_name, name), region, deadline,
                             stats)


def check_credentials(deployment: Deployment, account: Account, region: str | None = None,
                      deadline: float | None = None, stats: CallStats | None = None) -> str:
    """The same for an account that need not be stored."""
    party = parties.load(account.party)
    code = party.region(region) if region else (*account.regions, party.home(account))[0]
    source = Source(account.tenant_id, account.party, code, account.name)
    sender = deployment.transport.sender(party, account, code, deadline or time.monotonic() + REQUEST_SECONDS)
    if stats is not None:
        sender.stats = stats
    try:
        parties.check_region(source, account, sender)
        parties.check(source, account, sender)
    except (PartyDenied, UnknownRegion) as refused:
        named = bool(region or account.regions)
        raise _explained(party, account, code, sender, refused, named=named) from None
    finally:
        sender.close()
    return code


def warning(deployment: Deployment, tenant_id: str, party_name: str, region: str, name: str = DEFAULT_ACCOUNT) -> str:
    """What an operator should know of servers in this region that the party hides from an account that was checked;
    "" if nothing is known."""
    party, account = parties.load(party_name), open_account(deployment, tenant_id, party_name, name)
    if party.warn is None or account.discovery:
        return ""
    source = Source(tenant_id, party_name, region, name)
    sender = deployment.transport.sender(party, account, region, time.monotonic() + REQUEST_SECONDS)
    try:
        return parties.warning(source, account, sender)
    except TwocloudError:
        return ""                           # the check itself has passed
    finally:
        sender.close()


def _explained(party: Party, account: Account, region: str, sender: Send,
               refused: PartyDenied | UnknownRegion, *, named: bool) -> TwocloudError:
    """`named`: the region is the caller's or the account's own; the party's usual one may not exist at this account,
    which is then not why it was refused."""
    try:
        last = known_regions.listed_of(parties.list_regions(account, sender), account.revision, 0.0)
    except TwocloudError:
        return refused                      # this second call is a courtesy; the first response stands
    if last and not named and region not in {*last.codes, *last.closed} and isinstance(refused, PartyDenied):
        return refused
    return known_regions.explained(party, region, last, refused)
