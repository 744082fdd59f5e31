"""The store: rows of bytes under (kind, key), with a version for conditional writes and an end of life.

Three engines keep one protocol and one test suite: `sqlite.py` (one machine), `postgres.py` (several) and
`dynamodb.py` (AWS).
What a row means is the business of the noun that wrote it.
"""

import random
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from math import inf
from typing import NamedTuple, Protocol, TypeVar

from ..errors import SettingsError

T = TypeVar("T")
BESIDE_SECONDS = 1.0                        # that a write beside an answer waits for another program's lock
_WRITE_SECONDS = 20.0                       # that any other write waits
_until: ContextVar[float] = ContextVar("until", default=inf)    # on time.monotonic's scale
_most: ContextVar[float] = ContextVar("most", default=_WRITE_SECONDS)
LARGEST = 380_000                           # bytes in a value: DynamoDB takes 400 KB with key and attributes


Place = tuple[str, str]                     # of a row: its kind and key


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
    """What a store holds: at one moment (SQLite, PostgreSQL), or while it is read (DynamoDB). Expired rows are left
    out."""

    def count(self) -> int | None:
        """How many rows there are; None if only reading them all would tell."""
        ...

    def walk(self) -> Iterator[Entry]:
        """Every row of every kind, in an order of the engine's own."""
        ...

    def fetch(self, places: Sequence[Place]) -> Sequence[Entry]:
        """Those of the rows (kind, key) that are there, in any order."""
        ...


class Store(Protocol):
    """Reads see every write that ended before them, in this process or another.

    An expired row is as good as gone, whether or not the engine has removed it yet. Keys are 1-1024 bytes and
    are listed in the order of their UTF-8 bytes. Values hold at most LARGEST bytes (ValueError).
    """

    def get(self, kind: str, key: str) -> Row | None: ...

    def get_many(self, places: Sequence[Place]) -> Mapping[Place, Row]:
        """Those of the rows that exist, in as few round trips as the engine allows; each is read consistently, but not
        all at one moment."""
        ...

    def put(self, kind: str, key: str, value: bytes, *, version: int | None = None,
            expires: int | None = None) -> None:
        """Write the row. version None: whatever is there; 0: only if nothing is; n: only over version n.
        `expires`: Unix time from which the row is gone. Raises Conflict."""
        ...

    def delete(self, kind: str, *keys: str) -> None:
        """Remove the rows that are there."""
        ...

    def list(self, kind: str, prefix: str = "", start: str = "") -> Iterator[tuple[str, Row]]:
        """Every (key, row) of the kind whose key starts with `prefix`, from the key `start` on. Rows written meanwhile
        may be missed."""
        ...

    def moment(self) -> AbstractContextManager[Moment]: ...

    def write(self, entries: Sequence[Entry]) -> None:
        """Write rows of different places unchanged, versions too, over whatever is there; not all at once."""
        ...

    def scrub(self) -> None:
        """Make what was deleted or overwritten unreadable in the engine's own files, as far as these are ours."""
        ...

    def close(self) -> None: ...


def open_store(url: str, clock: Callable[[], float]) -> Store:
    """The store that a checked TWOCLOUD_STORE names. `clock`: Unix time. Raises SettingsError."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        from .sqlite import SqliteStore
        return SqliteStore(rest.removeprefix("/"), clock)
    if scheme in ("postgresql", "postgres"):
        try:
            from .postgres import PostgresStore
        except ImportError:
            raise SettingsError("TWOCLOUD_STORE names PostgreSQL, which needs the extra `postgres`: in the clone, run "
                                ".venv/bin/pip install -e \".[postgres]\".") from None
        return PostgresStore(url, clock)
    from .dynamodb import DynamoStore
    return DynamoStore(rest, clock)


def shown(url: str) -> str:
    """The URL of a store without a password."""
    url = re.sub(r"^(postgres(?:ql)?://[^/?#@:]*):[^/?#@]*@", r"\1@", url)
    return re.sub(r"(?<=[?&])(?:ssl)?password=[^&#]*&?", "", url).rstrip("?&")


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
    """Around a request: nothing waits for the store beyond its deadline (time.monotonic)."""
    before = _until.set(min(deadline, _until.get()))
    try:
        yield
    finally:
        _until.reset(before)


def patience() -> float:
    """Seconds that a write here may wait, for another program's lock or for the store's server."""
    return read_patience(_most.get())


def read_patience(most: float) -> float:
    """Seconds that a read here may wait for the store's server: no longer than its request."""
    return max(0.0, min(most, _until.get() - time.monotonic()))


def new_version() -> int:
    """A version that is never repeated, so that a row removed and created again is not mistaken for the old one."""
    return random.getrandbits(53) or 1


def end_of(prefix: str) -> str | None:
    """The first key after all keys that start so; None: there is no later key."""
    for n in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[n]) + 1
        if code <= 0x10FFFF:
            return prefix[:n] + chr(0xE000 if code == 0xD800 else code)         # no key holds a surrogate
    return None


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
