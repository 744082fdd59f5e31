"""What `twocloud serve` did since it started: requests answered and calls made to parties.

Each caller gets the counts of what its token covers, so they are kept apart by what decides that. Neither the paths nor
the regions that strangers invent make entries. The workers of one server show one another their counts in memory that
they share, so that each of them can answer for all.
"""

import mmap
import threading
import time
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from struct import Struct

import msgspec

from .. import log
from ..access import tokens
from ..access.tokens import Caller
from ..cloud.calls import Call
from ..model import Source

REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)      # upper bounds
CALL_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
OTHER = "other"                             # in place of a path that there is not
SUCCEEDED, CANCELLED = "ok", "cancelled"    # in place of an error code
_PART = 4 * 1024 * 1024                     # bytes of a worker: counts of some 40,000 sources
_PUBLISH_SECONDS = 1.0                      # between two looks at whether a worker's counts have changed
_HEAD = Struct("<II")                       # before a worker's counts: how many bytes, and their checksum
_TRIES = 20                                 # to read counts that are being written


class Requests(msgspec.Struct):
    """By path and status. `durations`: how many took so long, by REQUEST_SECONDS and above; `seconds`: all together."""

    count: dict[tuple[str, int], int] = {}
    durations: list[int] = msgspec.field(default_factory=lambda: [0] * (len(REQUEST_SECONDS) + 1))
    seconds: float = 0.0

    def add(self, route: str, status: int, seconds: float) -> None:
        self.count[route, status] = self.count.get((route, status), 0) + 1
        self.durations[bisect_left(REQUEST_SECONDS, seconds)] += 1
        self.seconds += seconds

    def merge(self, other: "Requests") -> None:
        for key, number in other.count.items():
            self.count[key] = self.count.get(key, 0) + number
        self.durations = [mine + theirs for mine, theirs in zip(self.durations, other.durations, strict=True)]
        self.seconds += other.seconds


class Calls(msgspec.Struct):
    """To one party, by outcome: an error code, SUCCEEDED or CANCELLED. `durations` by CALL_SECONDS; `seconds` as above.
    """

    count: dict[str, int] = {}
    durations: list[int] = msgspec.field(default_factory=lambda: [0] * (len(CALL_SECONDS) + 1))
    seconds: float = 0.0

    def add(self, outcome: str, seconds: float) -> None:
        self.count[outcome] = self.count.get(outcome, 0) + 1
        self.durations[bisect_left(CALL_SECONDS, seconds)] += 1
        self.seconds += seconds

    def merge(self, other: "Calls") -> None:
        for outcome, number in other.count.items():
            self.count[outcome] = self.count.get(outcome, 0) + number
        self.durations = [mine + theirs for mine, theirs in zip(self.durations, other.durations, strict=True)]
        self.seconds += other.seconds


class _Counts(msgspec.Struct):
    """`requests`: by the user's name, "" if no token was shown. `calls`: by tenant, party and region, "" if that is not
    known to be one."""

    requests: dict[str, Requests] = {}
    calls: dict[tuple[str, str, str], Calls] = {}


_decode = msgspec.msgpack.Decoder(_Counts).decode


class SharedMemory:
    """A part for each worker, which it alone writes. Made before they are forked."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._memory = mmap.mmap(-1, workers * _PART)
        self._last = [b""] * workers        # as this process read it

    def write(self, worker: int, content: bytes) -> None:
        """Raises ValueError if it is too large."""
        if len(content) > _PART - _HEAD.size:
            raise ValueError(f"{len(content)} bytes of counts are more than a worker can show the others")
        start = worker * _PART
        self._memory[start:start + _HEAD.size + len(content)] = _HEAD.pack(
            len(content), zlib.crc32(content)) + content

    def read(self, worker: int) -> bytes:
        """What the worker wrote last, or, while it keeps writing, what was read before."""
        start = worker * _PART
        for _ in range(_TRIES):
            length, checksum = _HEAD.unpack_from(self._memory, start)
            content = self._memory[start + _HEAD.size:start + _HEAD.size + length]
            if zlib.crc32(content) == checksum:
                self._last[worker] = content
                break
            time.sleep(0.001)               # it is being written
        return self._last[worker]


class Counters:
    """Thread-safe. `shared`: with the other workers; `worker`: the number of this one."""

    def __init__(self, shared: SharedMemory | None = None, worker: int = 0) -> None:
        self._lock = threading.Lock()
        self._own, self._changed = _Counts(), False
        self._shared, self._worker = shared, worker
        self._closed = threading.Event()
        if shared:
            threading.Thread(target=self._keep_publishing, daemon=True, name="twocloud-counters").start()

    def add_request(self, user: str, route: str, status: int, seconds: float) -> None:
        """`route`: one of ours, or OTHER."""
        with self._lock:
            self._own.requests.setdefault(user, Requests()).add(route, status, seconds)
            self._changed = True

    def add_call(self, call: Call) -> None:
        """One that has ended."""
        key = call.tenant_id, call.party, call.region if call.known else ""
        outcome = CANCELLED if call.cancelled else call.error or SUCCEEDED
        with self._lock:
            self._own.calls.setdefault(key, Calls()).add(outcome, (call.milliseconds or 0.0) / 1000)
            self._changed = True

    def requests(self, caller: Caller) -> Requests:
        """Everybody's if the token opens everything, else those of its own user."""
        everything, total = tokens.opens_everything(caller), Requests()
        with self._lock:
            for counts in self._of_all():
                for user, requests in counts.requests.items():
                    if everything or user == caller.user.name:
                        total.merge(requests)
        return total

    def calls(self, caller: Caller) -> dict[str, Calls]:
        """By party, those for the sources that the token opens."""
        everything, by_party = tokens.opens_everything(caller), dict[str, Calls]()
        with self._lock:
            for counts in self._of_all():
                for (tenant_id, party, region), calls in counts.calls.items():
                    if everything or tokens.allows(caller, Source(tenant_id, party, region)):
                        by_party.setdefault(party, Calls()).merge(calls)
        return by_party

    def _of_all(self) -> Iterator[_Counts]:
        """The counts of each worker. Those of this one are shown first: what one answer counts, no later one of another
        worker may lack."""
        yield self._own
        if not self._shared:
            return
        self._publish(self._shared)
        for worker in range(self._shared.workers):
            if worker != self._worker and (content := self._shared.read(worker)):
                yield _decode(content)

    def _publish(self, shared: SharedMemory) -> None:
        """What is too large to be shown is logged, and the others answer without it."""
        if not self._changed:
            return
        self._changed = False
        try:
            shared.write(self._worker, msgspec.msgpack.encode(self._own))
        except ValueError:
            log.failure(run="counters")

    def close(self) -> None:
        """Show the others nothing more."""
        self._closed.set()

    def _keep_publishing(self) -> None:
        while self._shared and not self._closed.wait(_PUBLISH_SECONDS):
            with self._lock:
                self._publish(self._shared)
