"""The circuit breaker: a source that keeps failing is not queried by everybody.

After eight failures in a row, at most a minute apart, it opens for ten seconds, then longer, and one caller at a time
tries again. Its row in the store serves every process.
"""

from contextlib import suppress

import msgspec
from msgspec.structs import replace

from .. import errors
from ..errors import Conflict, PartyDenied, PartyError, PartyThrottled, UnknownRegion
from ..model import Source
from ..storage import snapshots
from ..storage.store import Place, Row
from . import known_regions
from .deployment import Deployment
from .lookup import SourcePlan

_FAILURES = 8                               # in a row, a minute apart at most, after which the breaker opens
_FAILURE_SECONDS = 60
_OPEN_SECONDS = (10, 30, 60, 120, 300)      # for the first, second, … time
_FORGOTTEN_SECONDS = 3600                   # after a failure the breaker begins from its first time again
_LIFE = 30 * 86_400                         # seconds for which the last failure is known: as long as a snapshot
_TRIES = 3                                  # to write a row that others write too
_KINDS = {kind.code: kind for kind in (
    errors.PartyDenied, errors.PartyMalformed, errors.PartyFailed, errors.PartyThrottled, errors.PartyUnavailable,
    errors.PartyTimeout)}


class Breaker(msgspec.Struct, frozen=True, kw_only=True, rename={"code": "word"}):      # stored as in 0.1.0
    """A source's last failure. `failures`: in a row; `opened`: how often the breaker did; `until`: open till then.
    `revision`: of the account that failed, "" in rows of version 0.1.0."""

    code: str
    text: str
    at: float
    failures: int = 0
    opened: int = 0
    until: float = 0.0
    revision: str = ""

    def error(self, seconds: float | None) -> PartyError | UnknownRegion:
        """The failure again. `seconds`: after which a retry can help."""
        return error_of(self.code, self.text, seconds)


_NONE = Breaker(code="", text="", at=0)
_decode = msgspec.msgpack.Decoder(Breaker).decode


def error_of(code: str, text: str, retry_after: float | None = None) -> PartyError | UnknownRegion:
    """The failure that was written down by its error code and text."""
    if code == UnknownRegion.code:
        return UnknownRegion(text)
    return _KINDS.get(code, errors.PartyFailed)(text, retry_after=retry_after)


def read(value: bytes, revision: str = "") -> Breaker | None:
    """None: a row of another version, or of an account that the one of this revision replaced; it counts as none."""
    with suppress(ValueError):
        breaker = _decode(value)
        return breaker if "" in (revision, breaker.revision) or breaker.revision == revision else None
    return None


def last_failure(plan: SourcePlan) -> Breaker | None:
    """The last failure before the request, of any age; None: the last listing succeeded, or there was none."""
    return read(plan.breaker.value, plan.revision) if plan.breaker else None


def check(plan: SourcePlan) -> Breaker | None:
    """The last failure, if it is not long ago; it is raised again while the breaker is open."""
    breaker, now = last_failure(plan), plan.deployment.clock()
    if breaker and breaker.until > now:
        raise breaker.error(breaker.until - now)
    return breaker if breaker and now - breaker.at <= _FORGOTTEN_SECONDS else None


def reasons(plan: SourcePlan) -> tuple[str, ...]:
    """Why the party is not queried, if the breaker is open."""
    breaker, now = last_failure(plan), plan.arrived
    if not breaker or breaker.until <= now:
        return ()
    return (f"{breaker.failures} failures in a row: the circuit breaker is open for {breaker.until - now:.0f} s more",)


def place_of(plan: SourcePlan) -> Place:
    """Where the breaker's row is."""
    return "breaker", plan.shared_key


def record_success(plan: SourcePlan, row: Row | None) -> None:
    """`row`: the breaker's, as it is after the call."""
    if row:
        plan.store.delete("breaker", plan.shared_key)


def record_failure(plan: SourcePlan, failure: PartyError | UnknownRegion) -> None:
    """Refused credentials and unknown regions are repeated to callers that wait, but open nothing: they are no outage.
    Nor do refusals of our own rate limit: no party has answered then. Regions that are not known share one breaker,
    and each one's last outcome is noted."""
    store, now, source = plan.store, plan.deployment.clock(), plan.source
    if not plan.known:
        known_regions.note(store, plan.account_key, plan.revision, source.region, failure, now)
    for _ in range(_TRIES if plan.known or not isinstance(failure, UnknownRegion) else 0):
        row = store.get("breaker", plan.shared_key)
        breaker = _after((read(row.value, plan.revision) if row else None) or _NONE, failure, plan.revision, now)
        with suppress(Conflict):
            store.put("breaker", plan.shared_key, msgspec.msgpack.encode(breaker), version=row.version if row else 0,
                      expires=int(now) + (_LIFE if plan.known else _FORGOTTEN_SECONDS))
            break
    if not plan.account_is_same(store.get(*plan.account_place)):        # it went meanwhile: nothing of it stays
        snapshots.forget(store, source)
        snapshots.forget(store, replace(source, region=known_regions.UNKNOWN))


def _after(before: Breaker, failure: PartyError | UnknownRegion, revision: str, now: float) -> Breaker:
    """The breaker after one more failure."""
    ours = isinstance(failure, PartyThrottled) and failure.http_status is None
    in_a_row = before.failures if now - before.at <= max(_FAILURE_SECONDS, before.until - before.at + 60) else 0
    failures = 0 if isinstance(failure, (PartyDenied, UnknownRegion)) else in_a_row if ours else in_a_row + 1
    opened, until = before.opened if now - before.at <= _FORGOTTEN_SECONDS else 0, 0.0
    if before.until > now and failures:     # this caller began before it opened
        until = before.until
    elif failures >= _FAILURES and not ours:
        opened, until = opened + 1, now + _OPEN_SECONDS[min(opened, len(_OPEN_SECONDS) - 1)]
    return Breaker(code=failure.code, text=failure.text, at=now, failures=failures, opened=opened, until=until,
                   revision=revision)


def last_failures(deployment: Deployment) -> dict[Source, float]:
    """When each source failed, of those whose last listing failed."""
    return {snapshots.source_of_key(key): breaker.at for key, row in deployment.store.list("breaker")
            if (breaker := read(row.value))}


class SourceHealth(msgspec.Struct, frozen=True):
    """A source's last failure. `failed_at`: when (Unix time), 0 if none is known; `failures`: in a row; `open_until`:
    till when the breaker is open; `leased`: a caller is listing the source."""

    failed_at: float
    code: str
    failures: int
    open_until: float
    leased: bool


def health(deployment: Deployment, source: Source) -> SourceHealth:
    breaker, lease = ("breaker", key := snapshots.key_of(source)), ("lease", key)
    rows = deployment.store.get_many([breaker, lease])
    last = (read(rows[breaker].value) if breaker in rows else None) or _NONE
    return SourceHealth(last.at, last.code, last.failures, last.until, lease in rows)
