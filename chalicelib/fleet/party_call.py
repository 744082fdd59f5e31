"""One round of calls to a party for one plan; the circuit breaker learns how it went."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from .. import parties
from ..access import accounts
from ..errors import PartyError, PartyTimeout, UnknownRegion
from ..model import DEFAULT_ACCOUNT, Account
from ..storage.store import Place, Row
from . import circuit_breaker
from .deployment import Deployment
from .lookup import SourcePlan, best_effort
from .shared_rate import shared_rate

if TYPE_CHECKING:
    from ..cloud.sender import Sender

T = TypeVar("T")
Failure = PartyError | UnknownRegion


def open_account(deployment: Deployment, tenant_id: str, party: str, name: str = DEFAULT_ACCOUNT) -> Account:
    """The account with its credentials. Raises AccountNotFound, Internal."""
    return accounts.load(deployment.store, deployment.sealer, tenant_id, party, name, local=deployment.settings.local)


def call_party(plan: SourcePlan, region: str, query: "Callable[[Account, Sender], T]",
               explain: Callable[[Failure], Failure] = lambda failure: failure,
               also: Sequence[Place] = ()) -> tuple[T, Mapping[Place, Row] | None]:
    """The result of `query`, and the rows of the store that are wanted `also` after it; None if they could not be read.

    `explain` may name a failure's cause better. Raises PartyError, UnknownRegion.
    """
    deployment = plan.deployment
    if time.monotonic() > plan.party_deadline:                  # our own fault, which the breaker does not count
        raise PartyTimeout()
    account = accounts.opened(plan.account, deployment.sealer, plan.member, local=deployment.settings.local)
    sender = deployment.transport.sender(parties.load(plan.source.party), account, region, plan.party_deadline,
                                         known=plan.known and not plan.doubtful, share=shared_rate(plan))
    if plan.lookup.stats is not None:
        sender.stats = plan.lookup.stats
    try:
        result = query(account, sender)
    except (PartyError, UnknownRegion) as error:
        failure = explain(error)
        with best_effort(plan):
            circuit_breaker.record_failure(plan, failure)
        raise failure from None
    finally:
        sender.close()
    rows = None
    with best_effort(plan):
        rows = plan.store.get_many([breaker := circuit_breaker.place_of(plan), *also])
        circuit_breaker.record_success(plan, rows.get(breaker))
    return result, rows
