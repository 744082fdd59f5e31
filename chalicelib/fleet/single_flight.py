"""Many callers of one source cost one listing: the holder of the lease lists, and the others share its result.

The lease is a row of the store, so that callers in other processes share too.
"""

import random
import secrets
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TypeVar

from ..errors import Conflict, PartyTimeout
from . import circuit_breaker
from .lookup import SourcePlan, best_effort

T = TypeVar("T")


def single_flight(plan: SourcePlan, version: int, work: Callable[[], T], look: Callable[[], T | None]) -> T:
    """The result of `work`, which one caller at a time does; the others return what `look` finds after it, or raise its
    failure: a version of the breaker's row other than `version`, or a time in it after they came. Raises PartyTimeout
    at the deadline."""
    pause = 0.02
    while True:
        with suppress(Conflict), lease(plan):
            if (result := _result_of_leader(plan, version, look)) is not None:
                return result
            return work()
        if time.monotonic() + pause > plan.party_deadline:
            raise PartyTimeout()
        time.sleep(pause + random.uniform(0, pause))
        pause = min(pause * 1.5, 0.4)
        if (result := _result_of_leader(plan, version, look)) is not None:
            return result


def _result_of_leader(plan: SourcePlan, version: int, look: Callable[[], T | None]) -> T | None:
    """None: there is none yet. Raises its failure."""
    if (result := look()) is not None:
        return result
    if not plan.known:
        if (outcome := plan.last_outcome()) and outcome != plan.before:
            raise circuit_breaker.error_of(outcome.word, outcome.text)
        return None
    row = plan.deployment.store.get("breaker", plan.key)
    breaker = circuit_breaker.read(row.value, plan.revision) if row else None
    if row and breaker and (row.version != version or breaker.at > plan.arrived):
        raise breaker.error(None)
    return None


@contextmanager
def lease(plan: SourcePlan) -> Generator[None]:
    """Raises Conflict if another caller has it. It ends by itself if its holder dies."""
    store, mine = plan.deployment.store, secrets.token_bytes(8)
    seconds = max(1.0, plan.deadline - time.monotonic()) + 1
    taken = False
    with best_effort(plan):                 # a store that cannot be written to: better two listings than none
        try:
            store.put("lease", plan.key, mine, version=0, expires=int(plan.deployment.clock() + seconds) + 1)
        except Conflict:
            taken = True
    if taken:
        raise Conflict("another caller has the lease")
    try:
        yield
    finally:
        with best_effort(plan):
            row = store.get("lease", plan.key)
            if row and row.value == mine:
                store.delete("lease", plan.key)
