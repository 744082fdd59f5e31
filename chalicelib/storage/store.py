"""The store: rows of bytes under (kind, key), with a version for conditional writes and an end of life.

Two engines keep one protocol and one test suite: `sqlite.py` (one machine) and `dynamodb.py` (AWS).
What a row means is the business of the noun that wrote it.
"""

import random
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from math import inf
from typing import NamedTuple, Protocol, TypeVar

T = TypeVar("T")
BESIDE_SECONDS = 1.0                        # that a write beside an answer waits for another program's lock
_WRITE_SECONDS = 20.0                       # that any other write waits
_until: ContextVar[float] = ContextVar("until", default=inf)    # on time.monotonic's scale
_most: ContextVar[float] = ContextVar("most", default=_WRITE_SECONDS)
LARGEST = 380_000                           # bytes in a value: DynamoDB takes 400 KB with key and attributes


class Row(NamedTuple):
    """`version` is another one after each write of the row, never 0."""

    value: bytes
    version: int


class Entry(NamedTuple):
    """A row with its place and end, as it goes from one store to another."""

    kind: str
    key: str
    value: bytes
    version: int
    expires: int | None


class Moment(Protocol):
    """What a store holds: at one moment (SQLite), or while it is read (DynamoDB). Expired rows are left out."""

    def count(self) -> int | None:
        """How many rows there are; None if only reading them all would tell."""
        ...

    def walk(self) -> Iterator[Entry]:
        """Every row of every kind, in an order of the engine's own."""
        ...

    def fetch(self, places: Sequence[tuple[str, str]]) -> Sequence[Entry]:
        """Those of the rows (kind, key) that are there, in any order."""
        ...


class Store(Protocol):
    """Reads see every write that ended before them, in this process or another.

    An expired row is as good as gone, whether or not the engine has removed it yet. Keys are 1-1024 bytes and
    are listed in the order of their UTF-8 bytes. Values hold at most LARGEST bytes (ValueError).
    """

    def get(self, kind: str, key: str) -> Row | None: ...

    def put(self, kind: str, key: str, value: bytes, *, version: int | None = None,
            expires: int | None = None) -> None:
        """Write the row. version None: whatever is there; 0: only if nothing is; n: only over version n.
        `expires`: Unix time from which the row is gone. Raises Conflict."""
        ...

    def delete(self, kind: str, *keys: str) -> None:
        """Remove the rows that are there."""
        ...

    def list(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Row]]:
        """Every (key, row) of the kind whose key starts so. Rows written meanwhile may be missed."""
        ...

    def moment(self) -> AbstractContextManager[Moment]: ...

    def write(self, entries: Sequence[Entry]) -> None:
        """Write rows of different places as they are, versions too, over whatever is there; not all at once."""
        ...

    def scrub(self) -> None:
        """Make what was deleted or overwritten unreadable in the engine's own files, as far as they are ours."""
        ...

    def close(self) -> None: ...


def open_store(url: str, clock: Callable[[], float]) -> Store:
    """The store that a checked TWOCLOUD_STORE names. `clock`: Unix time. Raises SettingsError."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        from .sqlite import SqliteStore
        return SqliteStore(rest.removeprefix("/"), clock)
    from .dynamodb import DynamoStore
    return DynamoStore(rest, clock)


@contextmanager
def beside() -> Generator[None]:
    """Around writes without which the answer stands: they are skipped (StoreBusy) where the store is locked."""
    before = _most.set(min(BESIDE_SECONDS, _most.get()))
    try:
        yield
    finally:
        _most.reset(before)


@contextmanager
def within(deadline: float) -> Generator[None]:
    """Around a request: its writes wait for a locked store until its deadline at most (time.monotonic)."""
    before = _until.set(min(deadline, _until.get()))
    try:
        yield
    finally:
        _until.reset(before)


def patience() -> float:
    """Seconds that a write here may wait for another program's lock."""
    return max(0.0, min(_most.get(), _until.get() - time.monotonic()))


def new_version() -> int:
    """A version that is never repeated, so that a row removed and created again is not mistaken for the old one."""
    return random.getrandbits(53) or 1


def check_value(value: bytes) -> bytes:
    if len(value) > LARGEST:
        raise ValueError(f"row of {len(value)} bytes exceeds the limit of {LARGEST}")
    return value


def in_batches(keys: Iterable[T], size: int) -> Iterator[list[T]]:
    batch: list[T] = []
    for key in keys:
        batch.append(key)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
