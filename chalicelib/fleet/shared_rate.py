"""A party's documented rate, kept by several processes that refresh sources of one account.

Where the party counts calls for the credentials, all regions and members of an account share its rate. Refreshes take
their calls from a row of the store (kind `rate`, under the account's key). The row says for each operation how many
calls start in each sixteenth of the rate's window: no seventeen neighbours hold more than the party allows in one
window. A process takes calls for all its threads that wait, with one conditional write.

A row also names the sources that took from it. A source that is alone takes nothing: its refreshes run one at a time,
and the process keeps the rate by itself. A store that fails or is busy keeps no refresh waiting.

Clocks of processes that differ by a few seconds make refreshes wait so much longer, or let calls come so much earlier.
"""

import random
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from ..cloud.rate_limit import MARGIN
from ..errors import Conflict, PartyThrottled
from ..model import Limit
from ..storage import snapshots, store
from ..storage.store import Row
from .deployment import Stock
from .lookup import SourcePlan, logged

_CELLS = 16                                 # into which a rate's window is divided
_LONGEST = 150.0                            # seconds ahead that a row may be taken: longer than a refresh may take
_FIRST_WAIT = 20.0                          # seconds that a refresh waits for its first call; then the next run tries
_LIFE = 7200                                # seconds for which a row names a source
_NAMED = 3                                  # sources that a row names
_MOST_AHEAD = 16                            # calls that a process takes before a thread waits for them
_STORE_SECONDS = 5.0                        # that a refresh waits for a store that another program has locked
_REMEMBERED = 4096                          # accounts beyond which a process forgets what it took
_PAUSE = 0.2                                # seconds, the most between two tries to write a row that others write too


class _Taken(msgspec.Struct, frozen=True, array_like=True):
    """Calls that start in the cell `first` (counted from 1970 on) and in those after it."""

    first: int
    calls: list[int]


class _Rate(msgspec.Struct, frozen=True):
    """`sources`: keys of those that took last, and when (Unix time)."""

    sources: dict[str, float] = {}
    taken: dict[str, _Taken] = {}


_decode = msgspec.msgpack.Decoder(_Rate).decode


def take(taken: Mapping[int, int], limit: Limit, now: float, wanted: int) -> list[int]:
    """The earliest cells in which so many more calls may start, in order. `taken`: calls by cell."""
    present = int(now / cell_seconds(limit))
    cells, counts = list[int](), dict(taken)
    cell = max(present, *counts) if counts else present         # before the last one in use no cell has room
    while len(cells) < wanted:
        room = limit.calls - sum(counts.get(n, 0) for n in range(cell - _CELLS, cell + 1))
        free = min(wanted - len(cells), max(0, room))
        cells += [cell] * free
        counts[cell] = counts.get(cell, 0) + free
        cell += 1
    return cells


def cell_seconds(limit: Limit) -> float:
    return limit.seconds * MARGIN / _CELLS


class SharedRate(msgspec.Struct):
    """One refresh's way to the calls of its account. `key`: of the row. `alone`: no other source takes from it, or the
    store fails. `taking`: the refresh has taken calls. `started`: it has made one."""

    plan: SourcePlan
    key: str
    stock: Stock
    alone: bool = False
    taking: bool = False
    started: bool = False

    def __call__(self, operation: str, limit: Limit, deadline: float) -> float:
        """Seconds to wait before the start that is now reserved. `deadline`: on time.monotonic's scale. Raises
        PartyThrottled if it is too late then."""
        if self.alone:
            return 0.0
        if not self.started:
            deadline = min(deadline, time.monotonic() + _FIRST_WAIT)
        self._count(operation, 1)
        try:
            with self.stock.lock:
                wait = self._reserve(operation, limit, deadline)
        finally:
            self._count(operation, -1)
        if time.monotonic() + wait >= deadline:
            raise PartyThrottled("Other refreshes of this account use up the party's documented rate limit.",
                                 retry_after=wait)
        self.started = True
        return wait

    def _count(self, operation: str, step: int) -> None:
        with self.stock.counting:
            self.stock.waiting[operation] += step

    def _reserve(self, operation: str, limit: Limit, deadline: float) -> float:
        now, cell, starts = self.plan.deployment.clock, cell_seconds(limit), self.stock.starts[operation]
        while starts and (starts[0] + 1) * cell <= now():
            starts.popleft()                # nobody wanted it in time
            self.stock.last.pop(operation, None)
        if not starts:
            cells: list[int] = []
            with logged(self.key), store.within(time.monotonic() + _STORE_SECONDS):
                cells = self._take(operation, limit, deadline)
            self.alone = not cells
            starts.extend(cells)
        return max(0.0, starts.popleft() * cell - now()) if starts else 0.0

    def _take(self, operation: str, limit: Limit, deadline: float) -> list[int]:
        """Cells of calls that are now this process's. None: the source is alone. One that starts after the deadline
        is not taken."""
        source, clock = self.plan.key, self.plan.deployment.clock
        while True:
            row, now = self.plan.store.get("rate", self.key), clock()
            rate = _read(row)
            others = {key: at for key, at in rate.sources.items() if key != source and now - at < _LIFE}
            if not self.taking and not others and now - rate.sources.get(source, 0.0) < _LIFE / 2:
                return []
            taken = _counts(rate.taken.get(operation), limit, now)
            cells = take(taken, limit, now, self._wanted(operation, limit, now))
            if time.monotonic() + cells[0] * cell_seconds(limit) - now >= deadline:
                return cells[:1]
            latest = sorted(others, key=lambda key: -others[key])[:_NAMED - 1]
            made = _Rate({source: now, **{key: others[key] for key in latest}},
                         {**rate.taken, operation: _packed(Counter(taken) + Counter(cells))})
            with suppress(Conflict):
                self.plan.store.put("rate", self.key, msgspec.msgpack.encode(made), version=row.version if row else 0,
                                    expires=int(now) + _LIFE)
                self.stock.last[operation], self.taking = (len(cells), now), True
                return cells
            time.sleep(random.uniform(0, _PAUSE))

    def _wanted(self, operation: str, limit: Limit, now: float) -> int:
        """How many calls to take: one for each thread that waits; more where the last ones were used up at once."""
        count, at = self.stock.last.get(operation, (0, 0.0))
        ahead = min(2 * count, limit.calls // 8, _MOST_AHEAD) if now - at < limit.seconds / 4 else 0
        return max(1, min(max(self.stock.waiting[operation], ahead), limit.calls))


def shared_rate(plan: SourcePlan) -> SharedRate | None:
    """None: the plan is no refresh, and keeps the rate of this process alone."""
    if not plan.refreshing:
        return None
    source, stocks = plan.source, plan.deployment.stocks
    key = snapshots.account_key(source.tenant_id, source.party, source.account.partition(":")[0])
    if len(stocks) >= _REMEMBERED and key not in stocks:
        for old in [old for old, stock in list(stocks.items()) if not stock.lock.locked()]:
            stocks.pop(old, None)
    return SharedRate(plan, key, stocks.setdefault(key, Stock()))


# ---------------------------------------------------------------- the row

def _read(row: Row | None) -> _Rate:
    """A row of another version counts as none."""
    with suppress(ValueError):
        return _decode(row.value) if row else _Rate()
    return _Rate()


def _counts(taken: _Taken | None, limit: Limit, now: float) -> dict[int, int]:
    """Calls by cell, of those cells that matter now. What lies too far ahead was written by a clock that is wrong."""
    cell = cell_seconds(limit)
    first, last = int(now / cell) - _CELLS, int((now + limit.seconds + _LONGEST) / cell)
    counts = enumerate(taken.calls, taken.first) if taken else ()
    return {n: count for n, count in counts if count and first <= n <= last}


def _packed(counts: Mapping[int, int]) -> _Taken:
    return _Taken(min(counts), [counts.get(n, 0) for n in range(min(counts), max(counts) + 1)])
