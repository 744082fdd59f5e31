"""The parties' documented rates, kept for each account, region and operation."""

import threading
import time
from collections import deque

import msgspec

from ..errors import PartyThrottled, PartyTimeout
from ..model import Account, Limit
from .party import Party

MARGIN = 1.05                               # networks bunch up what we spaced out
_LIMITERS = 1024                            # beyond which those that are at rest are forgotten
_REST_SECONDS = 60.0                        # after its last call's window, after which a limiter is at rest


class RateLimiter:
    """Lets at most `limit.calls` start in any `limit.seconds`."""

    def __init__(self, limit: Limit) -> None:
        self._seconds = limit.seconds * MARGIN
        self._starts: deque[float] = deque(maxlen=limit.calls)
        self._lock = threading.Lock()

    def reserve(self, deadline: float) -> float:
        """Seconds to wait before the start that is now reserved. Raises PartyThrottled if it is too late then."""
        with self._lock:
            now = time.monotonic()
            start = now
            if len(self._starts) == self._starts.maxlen:
                start = max(now, self._starts[0] + self._seconds)
            if now >= deadline:
                raise PartyTimeout()
            if start >= deadline:
                raise PartyThrottled("The party's documented rate limit does not allow so many calls in one request. "
                                     "Request a range (`f`, `t`).", retry_after=start - now)
            self._starts.append(start)
            return start - now

    def at_rest(self, now: float) -> bool:
        """Whether a new one would allow the same."""
        with self._lock:
            return not self._starts or self._starts[-1] + self._seconds + _REST_SECONDS < now


class RateLimits:
    """One limiter for each account at a party, region and operation: tenants that share keys share the rate.

    A member behind an account has its own, except where the party counts its calls for the credentials: there the
    door and all its members share one, whatever the region, and so do all accounts of one principal.
    fleet/shared_rate.py shares such rates between processes."""

    def __init__(self) -> None:
        self._limiters: dict[tuple[str, bytes, str, str], RateLimiter] = {}
        self._checked_at = _LIMITERS        # how many there are when those at rest are looked for next
        self._lock = threading.Lock()

    def limiter(self, party: Party, account: Account, region: str, operation: str) -> RateLimiter | None:
        """None: the party documents no rate. `region`: "" for all that the party is not known to have."""
        limit = party.limits.get(operation)
        if limit is None:
            return None
        name = party.name, account.fingerprint, region, operation
        if party.shares(operation):
            fields = [account.credentials.get(name) for name in party.principal]
            counted = msgspec.json.encode((account.endpoint, fields)) if fields else account.door.fingerprint
            name = party.name, counted, "", operation
        with self._lock:
            if name not in self._limiters:
                if len(self._limiters) >= self._checked_at:
                    now = time.monotonic()
                    self._limiters = {key: one for key, one in self._limiters.items() if not one.at_rest(now)}
                    self._checked_at = max(_LIMITERS, 2 * len(self._limiters))
                self._limiters[name] = RateLimiter(limit)
            return self._limiters[name]
