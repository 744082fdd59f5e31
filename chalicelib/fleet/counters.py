"""What one process did since it started: requests answered and calls made to parties.

Each caller gets the counts of what its token covers, so they are kept apart by what decides that. Neither the paths nor
the regions that strangers invent make entries.
"""

import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from ..access import tokens
from ..access.tokens import Caller
from ..cloud.sender import Call
from ..model import Source

REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)      # upper bounds
CALL_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
OTHER = "other"                             # in place of a path that there is not
SUCCEEDED, CANCELLED = "ok", "cancelled"    # in place of an error code


@dataclass(slots=True)
class Durations:
    """A histogram. `bounds`: the upper ones, in seconds; `counts`: between them, then above the last."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list[int])
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def merge(self, other: "Durations") -> None:
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


@dataclass(slots=True)
class Requests:
    """By path and status."""

    count: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])
    durations: Durations = field(default_factory=lambda: Durations(REQUEST_SECONDS))


@dataclass(slots=True)
class Calls:
    """To one party, by outcome: an error code, SUCCEEDED or CANCELLED."""

    count: Counter[str] = field(default_factory=Counter[str])
    durations: Durations = field(default_factory=lambda: Durations(CALL_SECONDS))


class Counters:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[str, Requests] = {}                # by the user's name, "" if no token was shown
        self._calls: dict[tuple[str, str, str], Calls] = {}     # tenant, party, region; "": not known to be one

    def add_request(self, user: str, route: str, status: int, seconds: float) -> None:
        """`route`: one of ours, or OTHER."""
        with self._lock:
            requests = self._requests.setdefault(user, Requests())
            requests.count[route, status] += 1
            requests.durations.add(seconds)

    def add_call(self, call: Call) -> None:
        """One that has ended."""
        key = call.tenant_id, call.party, call.region if call.known else ""
        with self._lock:
            calls = self._calls.setdefault(key, Calls())
            calls.count[CANCELLED if call.cancelled else call.error or SUCCEEDED] += 1
            calls.durations.add((call.milliseconds or 0.0) / 1000)

    def requests(self, caller: Caller) -> Requests:
        """Everybody's if the token opens everything, else those of its own user."""
        everything = tokens.opens_everything(caller)
        with self._lock:
            return _sum_requests([requests for user, requests in self._requests.items()
                                  if everything or user == caller.user.name])

    def calls(self, caller: Caller) -> dict[str, Calls]:
        """By party, those for the sources that the token opens."""
        everything, by_party = tokens.opens_everything(caller), dict[str, Calls]()
        with self._lock:
            for (tenant_id, party, region), calls in self._calls.items():
                if everything or tokens.allows(caller, Source(tenant_id, party, region)):
                    total = by_party.setdefault(party, Calls())
                    total.count += calls.count
                    total.durations.merge(calls.durations)
        return by_party


def _sum_requests(parts: list[Requests]) -> Requests:
    total = Requests()
    for part in parts:
        total.count += part.count
        total.durations.merge(part.durations)
    return total
