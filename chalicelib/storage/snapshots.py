"""The last complete list of each source, and what changed from one to the next.

A snapshot is chunks of servers, then a head that names them, written last: a reader sees the old list or the new one.
Rows of the store, each source's under its key `tenant/party/region`:
  snapshot  source                     the head
  chunk     source/generation/number   some hundred servers, compressed; or the marks (number "m…")
  change    source/seen_at/serial/n    what one listing changed, kept for TWOCLOUD_HISTORY days
The head ends with its chunks, thirty days after they were written, unless a new list has taken their place.
A mark is the time at which a server without an update time of its own was last seen to change.

The newer listing wins: one that began before the head's is dropped, so that of two that overlap the later one's word
stands. A snapshot of another account (its revision differs), of a newer program, damaged or half gone counts as none.
"""

import hashlib
import secrets
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from .. import log
from ..concurrency import run_all
from ..errors import Conflict, SnapshotReplaced
from ..model import WHOLE, Server, Source, Window
from .store import Store

VERSION = 1
_ROWS = 400                                 # servers in a chunk: some 30 KB compressed
_LARGEST_CHUNK = 360_000                    # bytes, compressed; a chunk that passes it is halved
_WRITERS = 8
_LIFE = 30 * 86_400                         # seconds for which chunks last if no list takes their place
_COMPARED = tuple(name for name in Server.__struct_fields__ if name != "updated_at")


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot is. Times are Unix seconds.

    `seen_at`: when the listing began. `since`: when the first one of this account did. `starts`: position (from 0) of
    each chunk's first server. `marks`: number of chunks that hold marks. `expires`: when the chunks end. `serial`:
    another one each time that the head is written. `moving`: servers had come or gone since the list before.
    """

    version: int
    revision: str
    seen_at: float
    since: float
    generation: str
    total: int
    starts: tuple[int, ...]
    marks: int
    digest: str
    expires: int
    serial: str
    moving: bool = False


class Vanished(msgspec.Struct, frozen=True, kw_only=True):
    """A server that is not listed any more. `seen_at`: when it last was; `vanished_at`: when it first was not."""

    id: str
    name: str
    seen_at: float
    vanished_at: float


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What one listing changed: ids that appeared, ids with the fields that changed, servers that vanished.
    `revision`: of the account that was listed, "" in rows of version 0.1.0."""

    at: float
    appeared: tuple[str, ...] = ()
    changed: dict[str, tuple[str, ...]] = {}
    vanished: tuple[Vanished, ...] = ()
    revision: str = ""


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_servers = msgspec.msgpack.Decoder(list[Server]).decode
_packed = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_server = msgspec.msgpack.Decoder(Server).decode
_marks = msgspec.msgpack.Decoder(dict[str, float]).decode
_head = msgspec.msgpack.Decoder(Head).decode
_change = msgspec.msgpack.Decoder(Change).decode
_BROKEN = (msgspec.DecodeError, zlib.error, ValueError)


def key_of(source: Source) -> str:
    return f"{source.tenant_id}/{source.party}/{source.region}"


def source_of_key(key: str) -> Source:
    return Source(*key.split("/", 2))


# ---------------------------------------------------------------- reading

def find(store: Store, source: Source, revision: str) -> Head | None:
    """The head of the account's last list; None if there is none that can be read."""
    row = store.get("snapshot", key_of(source))
    head = _read_head(row.value, key_of(source)) if row else None
    return head if head and head.revision == revision else None


def read(store: Store, source: Source, head: Head, window: Window = WHOLE) -> list[Server]:
    """The servers of a window, from no more chunks than it touches. Raises SnapshotReplaced."""
    last = head.total if window.last is None else min(window.last, head.total)
    if window.first > last:
        return []
    ends = (*head.starts[1:], head.total)
    wanted = [n for n, start in enumerate(head.starts) if start < last and ends[n] > window.first - 1]
    part = len(wanted) == 1                 # a page: no more of its chunk is made into servers than is shown
    found = _chunks(store, source, head, [f"{n:05d}" for n in wanted], _packed if part else _servers)
    rows = [server for chunk in found for server in chunk]
    skipped = head.starts[wanted[0]]
    if len(rows) != ends[wanted[-1]] - skipped:
        raise SnapshotReplaced
    shown = rows[window.first - 1 - skipped:last - skipped]
    return _unpacked(source, shown) if part else shown


def marks(store: Store, source: Source, head: Head | None) -> dict[str, float]:
    """id -> when the server was last seen to change. Raises SnapshotReplaced."""
    if head is None or not head.marks:
        return {}
    found = _chunks(store, source, head, [f"m{n:04d}" for n in range(head.marks)], _marks)
    return {key: at for part in found for key, at in part.items()}


def heads(store: Store, tenant_id: str = "") -> Iterator[tuple[Source, Head]]:
    for key, row in store.list("snapshot", f"{tenant_id}/" if tenant_id else ""):
        if head := _read_head(row.value, key):
            yield source_of_key(key), head


def changes(store: Store, source: Source, since: float, head: Head | None = None) -> list[Change]:
    """What changed after `since`, oldest first. `head`: only changes of its account, not of one that it replaced."""
    found: list[Change] = []
    for key, row in store.list("change", f"{key_of(source)}/"):
        try:
            change = _change(zlib.decompress(row.value))
        except _BROKEN:
            log.failure(store="change", key=key)
            continue
        mine = not head or (change.revision == head.revision if change.revision else change.at > head.since)
        if change.at > since and mine:
            found.append(change)
    return found


# ---------------------------------------------------------------- writing

def digest(servers: Sequence[Server]) -> str:
    """The same for the same list."""
    return hashlib.sha256(_encode(servers)).hexdigest()


def save(store: Store, source: Source, revision: str, servers: Sequence[Server], seen_at: float, *,
         history: int) -> Head | None:
    """Keep a complete list and what it changed. `history`: seconds that changes are kept.

    None if a later list was there already: nothing is written then.
    """
    key = key_of(source)
    row = store.get("snapshot", key)
    before = _read_head(row.value, key) if row else None
    if before and before.revision == revision and before.seen_at > seen_at:
        return None
    mine = before if before and before.revision == revision else None
    found = digest(servers)
    same = mine is not None and mine.digest == found and mine.expires - seen_at > _LIFE / 2
    recorded: list[str] = []
    if mine and same:
        head = msgspec.structs.replace(mine, seen_at=seen_at, serial=secrets.token_hex(6), moving=False)
    else:
        head = _write(store, source, revision, servers, seen_at, mine, found, history, recorded)
    try:
        store.put("snapshot", key, _encode(head), version=row.version if row else 0, expires=head.expires)
    except Conflict:                        # somebody wrote a list meanwhile; the next listing compares with it
        store.delete("change", *recorded)
        if not same:
            _drop(store, key, head)
        return None
    if before and not same:
        _drop(store, key, before)
    return head


def _write(store: Store, source: Source, revision: str, servers: Sequence[Server], seen_at: float, mine: Head | None,
           digest: str, history: int, recorded: list[str]) -> Head:
    """The chunks of a new generation, and what changed (`recorded`). The head that names them is not written yet."""
    known: dict[str, float] = {}
    moving = False
    if mine:
        try:
            known = marks(store, source, mine)
            change = _compare(read(store, source, mine), servers, seen_at, mine.seen_at)
            moving = bool(change.appeared or change.vanished)
            recorded += _record(store, source, msgspec.structs.replace(change, revision=revision), history)
            there = {server.id for server in servers}
            known = {**{name: at for name, at in known.items() if name in there},
                     **dict.fromkeys(change.changed, seen_at)}
        except SnapshotReplaced:
            mine = None                     # nothing to compare with: a new beginning
    generation, key = secrets.token_hex(6), key_of(source)
    pieces, starts = _pieces(servers)
    marked = [dict(list(known.items())[at:at + 8000]) for at in range(0, len(known), 8000)]
    rows = [(f"{n:05d}", piece) for n, piece in enumerate(pieces)]
    rows += [(f"m{n:04d}", zlib.compress(_encode(part), 1)) for n, part in enumerate(marked)]
    expires = int(seen_at) + _LIFE
    run_all([lambda name=name, value=value: store.put("chunk", f"{key}/{generation}/{name}", value,
                                                           expires=expires) for name, value in rows], _WRITERS)
    return Head(version=VERSION, revision=revision, seen_at=seen_at, since=mine.since if mine else seen_at,
                generation=generation, total=len(servers), starts=tuple(starts), marks=len(marked), digest=digest,
                expires=expires, serial=secrets.token_hex(6), moving=moving)


def _compare(before: Sequence[Server], after: Sequence[Server], at: float, before_at: float) -> Change:
    old, new = {server.id: server for server in before}, {server.id: server for server in after}
    changed = {key: fields for key, server in new.items()
               if key in old and (fields := tuple(name for name in _COMPARED
                                                  if getattr(old[key], name) != getattr(server, name)))}
    return Change(
        at=at, changed=changed, appeared=tuple(key for key in new if key not in old),
        vanished=tuple(Vanished(id=key, name=server.name, seen_at=before_at, vanished_at=at)
                       for key, server in old.items() if key not in new))


def _record(store: Store, source: Source, change: Change, history: int) -> list[str]:
    """Write down what changed, before the head: who is killed in between tells it twice, not never. The keys.

    They hold a serial, so that who is overtaken takes back its own rows alone.
    """
    keys: list[str] = []
    serial = secrets.token_hex(4)
    for n, part in enumerate(_parts(change)):
        keys.append(f"{key_of(source)}/{change.at:017.6f}/{serial}/{n:04d}")
        store.put("change", keys[-1], zlib.compress(_encode(part), 1), expires=int(change.at) + history)
    return keys


def _parts(change: Change) -> Iterator[Change]:
    """Small enough for a row each; none if nothing changed."""
    size = 2000
    changed = list(change.changed.items())
    for at in range(0, max(len(change.appeared), len(changed), len(change.vanished)), size):
        yield Change(at=change.at, appeared=change.appeared[at:at + size], changed=dict(changed[at:at + size]),
                     vanished=change.vanished[at:at + size], revision=change.revision)


def _pieces(servers: Sequence[Server]) -> tuple[list[bytes], list[int]]:
    pieces: list[bytes] = []
    starts: list[int] = []
    todo = [(at, min(at + _ROWS, len(servers))) for at in range(0, len(servers), _ROWS)][::-1]
    while todo:
        start, end = todo.pop()
        piece = zlib.compress(_encode(servers[start:end]), 1)
        if len(piece) > _LARGEST_CHUNK and end - start > 1:
            middle = (start + end) // 2
            todo += [(middle, end), (start, middle)]
            continue
        pieces.append(piece)
        starts.append(start)
    return pieces, starts


# ---------------------------------------------------------------- going

_KINDS = ("snapshot", "chunk", "change", "lease", "breaker", "interest", "regions")


def forget_account(store: Store, tenant_id: str, party: str) -> None:
    """Take away everything that is kept of an account's sources."""
    for kind in _KINDS:
        store.delete(kind, *[key for key, _ in store.list(kind, f"{tenant_id}/{party}/")])


def forget(store: Store, source: Source) -> None:
    key = key_of(source)
    for kind in _KINDS:
        store.delete(kind, key, *[below for below, _ in store.list(kind, f"{key}/")])


def _drop(store: Store, key: str, head: Head) -> None:
    names = [*(f"{n:05d}" for n in range(len(head.starts))), *(f"m{n:04d}" for n in range(head.marks))]
    store.delete("chunk", *[f"{key}/{head.generation}/{name}" for name in names])


# ---------------------------------------------------------------- parts

def _read_head(value: bytes, key: str) -> Head | None:
    try:
        if msgspec.msgpack.decode(value)["version"] == VERSION:
            return _head(value)
        log.logger.warning("snapshot of another version", extra={"fields": {"key": key}})
    except (*_BROKEN, TypeError, KeyError):
        log.failure(store="snapshot", key=key)
    return None


def _chunks(store: Store, source: Source, head: Head, names: Sequence[str],
            decode: Callable[[bytes], Any]) -> list[Any]:
    prefix = f"{key_of(source)}/{head.generation}/"
    if len(names) > 8:                      # a walk over the whole generation costs fewer requests
        found = dict(store.list("chunk", prefix))
        rows = [found.get(prefix + name) for name in names]
    else:
        rows = run_all([lambda name=name: store.get("chunk", prefix + name) for name in names], _WRITERS)
    try:
        return [decode(zlib.decompress(row.value)) if row else _lost() for row in rows]
    except _BROKEN:
        log.failure(store="chunk", key=prefix)
        raise SnapshotReplaced from None


def _unpacked(source: Source, rows: Sequence[msgspec.Raw]) -> list[Server]:
    try:
        return [_server(row) for row in rows]
    except _BROKEN:
        log.failure(store="chunk", key=key_of(source))
        raise SnapshotReplaced from None


def _lost() -> None:
    raise SnapshotReplaced
