"""What a caller asks for and how fresh: Freshness, Filter, and the SourcePlan that leads to one source's answer."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import inf

from .. import log
from ..access import accounts
from ..cloud.sender import CallStats
from ..errors import AccountNotFound, PartyDenied, PartyError, StoreBusy, UnknownRegion
from ..model import Server, Source, Window
from ..storage import snapshots, store
from . import known_regions
from .deployment import Deployment
from .known_regions import Outcome

REQUEST_SECONDS = 25.0                      # in which every request is answered
ANSWER_SECONDS = 2.0                        # of it, kept for what comes after the party
_DENIED_SECONDS = 900                       # refused credentials are no outage: how long a stale snapshot still serves
NO_SNAPSHOT = "No snapshot is recent enough, and only-if-cached forbids querying the party."


@dataclass(frozen=True, slots=True)
class Freshness:
    """What a caller accepts. `max_age`: seconds, 0: always query the party. `stale`: seconds that a snapshot may be old
    if the party fails, 0: none. `cached`: never query the party; only a snapshot younger than `max_age`."""

    max_age: int = 0
    stale: int = 0
    cached: bool = False

    def stale_after(self, failure: PartyError | UnknownRegion) -> float:
        """Seconds that a snapshot may be old if the party failed so; -inf if stale snapshots are not accepted."""
        return (min(self.stale, _DENIED_SECONDS) if isinstance(failure, PartyDenied) else self.stale) or -inf


ANY_AGE = Freshness(max_age=10 ** 10)       # a snapshot of any age


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
                and (self.ip is None or self.ip in (*server.lan_ipv4, *server.wan_ipv4,
                                                    *server.lan_ipv6, *server.wan_ipv6)))


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """One request for one source. `arrived`: Unix time; `deadline`: on time.monotonic's scale. `known`: the party is
    known to have the region; if not, `before` is the last outcome for it within the hour. `refreshing`: the list is
    wanted for its snapshot."""

    deployment: Deployment
    source: Source
    revision: str
    filter: Filter
    window: Window
    freshness: Freshness
    arrived: float
    deadline: float
    stats: CallStats | None
    known: bool = True
    before: Outcome | None = None
    refreshing: bool = False

    @property
    def key(self) -> str:
        return snapshots.key_of(self.source)

    @property
    def shared_key(self) -> str:
        """One key for all regions that the party is not known to have, so that made-up names make no rows."""
        return self.key if self.known else snapshots.key_of(replace(self.source, region=known_regions.UNKNOWN))

    @property
    def party_deadline(self) -> float:
        return self.deadline - ANSWER_SECONDS

    def last_outcome(self) -> Outcome | None:
        source = self.source
        return known_regions.outcome(self.deployment.store, source.tenant_id, source.party, self.revision,
                                     source.region, self.deployment.clock())

    def account_is_same(self) -> bool:
        """Whether the account is still the one for which this plan was made."""
        with suppress(AccountNotFound):
            row = accounts.find(self.deployment.store, self.source.tenant_id, self.source.party)
            return row.revision == self.revision
        return False


@contextmanager
def best_effort(plan: SourcePlan) -> Generator[None]:
    """Around writes beside an answer: a store that fails at them is logged, and the answer stands. Nothing waits for a
    store that another program has locked."""
    with logged(plan.key), store.beside():
        yield


@contextmanager
def logged(key: str) -> Generator[None]:
    """Log what the store raises, and go on."""
    try:
        yield
    except StoreBusy as busy:               # nothing is broken
        log.logger.warning("store busy", extra={"fields": {"source": key, "text": busy.text}})
    except Exception:
        log.failure(source=key)
