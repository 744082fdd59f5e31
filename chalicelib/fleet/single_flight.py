"""Many callers of one source cost one listing: the holder of the lease lists, and the others share its result.

The lease is a row of the store, so that callers in other processes share too.
"""

import random
import secrets
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TypeVar

from ..errors import Conflict, PartyTimeout
from ..storage.store import Place, Row
from . import circuit_breaker, known_regions
from .lookup import SourcePlan, best_effort

T = TypeVar("T")
LEASE_SECONDS = 28.0                        # for which a lease holds after its holder died
RENEW_SECONDS = 9.0


def single_flight(plan: SourcePlan, work: Callable[[], T], place: Place, look: Callable[[Row | None], T | None]) -> T:
    """The result of `work`, which one caller at a time does; the others return what `look` finds in the row of `place`,
    or raise the leader's failure. Raises PartyTimeout at the deadline."""
    pause = 0.02
    while True:
        with suppress(Conflict), lease(plan):
            if (result := _result_of_leader(plan, place, look)) is not None:
                return result
            return work()
        if time.monotonic() + pause > plan.party_deadline:
            raise PartyTimeout("Another request is listing this source and has not finished in time. Retry later.")
        time.sleep(pause + random.uniform(0, pause))
        pause = min(pause * 1.5, 0.4)
        if (result := _result_of_leader(plan, place, look)) is not None:
            return result


def _result_of_leader(plan: SourcePlan, place: Place, look: Callable[[Row | None], T | None]) -> T | None:
    """None: there is none yet. Raises its failure: another row of the breaker than when we came, or a time in it after
    that; for a region that is not known, another outcome."""
    source, failures = plan.source, ("breaker", plan.key)
    if not plan.known:
        failures = known_regions.outcomes_place(plan.account_key)
    rows = plan.store.get_many([place, failures])
    if (result := look(rows.get(place))) is not None:
        return result
    row = rows.get(failures)
    if not plan.known:
        now = plan.deployment.clock()
        outcome = known_regions.outcome_in(row, plan.revision, source.region, now)
        if outcome and outcome != plan.before:
            raise circuit_breaker.error_of(outcome.code, outcome.text)
        return None
    breaker = circuit_breaker.read(row.value, plan.revision) if row else None
    before = plan.breaker.version if plan.breaker else 0
    if row and breaker and (row.version != before or breaker.at > plan.arrived):
        raise breaker.error(None)
    return None


@contextmanager
def lease(plan: SourcePlan) -> Generator[None]:
    """Raises Conflict if another caller has it. It ends by itself soon after its holder dies; a long listing renews
    it."""
    store, clock, content = plan.store, plan.deployment.clock, secrets.token_bytes(8)
    last = clock() + max(1.0, plan.deadline - time.monotonic()) + 1             # when the work must have ended
    ends, leased, taken, done = _end(clock(), last), False, False, threading.Event()
    with best_effort(plan):                 # a store that cannot be written to: better two listings than none
        try:
            store.put("lease", plan.key, content, version=0, expires=ends)
            leased = True
        except Conflict:
            taken = True
    if taken:
        raise Conflict("another caller has the lease")

    def renew() -> None:
        nonlocal ends
        while ends < last and not done.wait(RENEW_SECONDS):
            with best_effort(plan):
                row, later = store.get("lease", plan.key), _end(clock(), last)
                if row is None or row.value != content:
                    return                  # another caller has it
                with suppress(Conflict):
                    store.put("lease", plan.key, content, version=row.version, expires=later)
                    ends = later

    renewing = threading.Thread(target=renew, daemon=True, name="twocloud-lease")
    if leased and ends < last:
        renewing.start()
    try:
        yield
    finally:
        done.set()
        if renewing.ident is not None:
            renewing.join()
        with best_effort(plan):
            if leased and clock() < ends:   # else another caller may have it
                store.delete("lease", plan.key)


def _end(now: float, last: float) -> int:
    """When a lease ends that begins now."""
    return int(min(last, now + LEASE_SECONDS)) + 1
