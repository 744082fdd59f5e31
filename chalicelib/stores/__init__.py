"""The store: rows of bytes under (kind, key), with a version for conditional writes and an end of life.

Two engines keep one protocol and one test suite: `sqlite.py` (one machine) and `dynamodb.py` (AWS).
What a row means is the business of the noun that wrote it.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

LARGEST = 380_000                           # bytes in a value: DynamoDB takes 400 KB with key and attributes


class Row(NamedTuple):
    """`version` is another one after each write of the row, never 0."""

    value: bytes
    version: int


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

    def scrub(self) -> None:
        """Make what was deleted or overwritten unreadable in the engine's own files, as far as they are ours."""
        ...

    def close(self) -> None: ...


def open_store(url: str, clock: Callable[[], float]) -> Store:
    """The store that a checked TWOCLOUD_STORE names. `clock`: Unix time. Raises SettingsError."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        from chalicelib.stores.sqlite import SqliteStore
        return SqliteStore(rest.removeprefix("/"), clock)
    from chalicelib.stores.dynamodb import DynamoStore  # boto3 is slow to import
    return DynamoStore(rest, clock)


def new_version() -> int:
    """Never met twice, so that a row that was removed and made anew is not taken for the old one."""
    return random.getrandbits(53) or 1


def check_value(value: bytes) -> bytes:
    if len(value) > LARGEST:
        raise ValueError(f"a row holds at most {LARGEST} bytes, not {len(value)}")
    return value


def in_batches(keys: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for key in keys:
        batch.append(key)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
