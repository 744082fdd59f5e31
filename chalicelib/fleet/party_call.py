"""One round of calls to a party for one plan; the circuit breaker learns how it went."""

import time
from collections.abc import Callable
from typing import TypeVar

from .. import parties
from ..access import accounts
from ..cloud.sender import Sender
from ..errors import PartyError, PartyTimeout, UnknownRegion
from ..model import Account
from . import circuit_breaker
from .deployment import Deployment
from .lookup import SourcePlan, best_effort

T = TypeVar("T")
Failure = PartyError | UnknownRegion


def open_account(deployment: Deployment, tenant_id: str, party: str) -> Account:
    """The account with its credentials. Raises AccountNotFound, Internal."""
    return accounts.load(deployment.store, deployment.sealer, tenant_id, party, local=deployment.settings.local)


def call_party(plan: SourcePlan, region: str, query: Callable[[Account, Sender], T],
               explain: Callable[[Failure], Failure] = lambda failure: failure) -> T:
    """The result of `query`. `explain` may name a failure's cause better. Raises PartyError, UnknownRegion."""
    deployment, source = plan.deployment, plan.source
    if time.monotonic() > plan.party_deadline:                  # our own fault, which the breaker does not count
        raise PartyTimeout()
    account = open_account(deployment, source.tenant_id, source.party)
    sender = deployment.transport.sender(parties.load(source.party), account, region, plan.party_deadline,
                                         known=plan.known)
    if plan.stats is not None:
        sender.stats = plan.stats
    try:
        result = query(account, sender)
    except (PartyError, UnknownRegion) as found:
        failure = explain(found)
        with best_effort(plan):
            circuit_breaker.record_failure(plan, failure)
        raise failure from None
    finally:
        sender.close()
    with best_effort(plan):
        circuit_breaker.record_success(plan)
    return result
