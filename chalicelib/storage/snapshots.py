"""The last complete list of each source, and what changed from one to the next.

A snapshot is chunks of servers, then a head that names them, written last: a reader sees the old list or the new one.
Rows of the store, each source's under its key `tenant/party/region`, or `tenant/party@account/region` where the
account has a name of its own:
  snapshot  source                     the head
  chunk     source/generation/number   some hundred servers, compressed; or the marks (number "m…")
  change    source/seen_at/lists/n     what one listing changed, kept for TWOCLOUD_HISTORY days. `lists`: the generation
                                       of its list, `-`, and of the one before; a serial if 0.1.0 wrote the row
The head ends with its chunks, thirty days after they were written, unless a new list has replaced them. A list
that a newer one replaced stays readable for ten minutes or more: the head names it, and a later write removes its
chunks.
The generation is a list's id: it stays while servers and marks do.
A mark is the time at which a server without an update time of its own was last seen to change.

The newer listing wins: one that began before the head's is dropped, so that of two that overlap the later one's word
stands. A snapshot of another account (its revision differs), of a newer program, damaged or half gone counts as none.
"""

import hashlib
import secrets
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from .. import __version__, log
from ..concurrency import run_all
from ..errors import Conflict, SnapshotReplaced
from ..model import DEFAULT_ACCOUNT, WHOLE, Server, Source, Window
from . import lists
from .store import Place, Row, Store

VERSION = 1
_ROWS = 400                                 # servers in a chunk: some 30 KB compressed
_LARGEST_CHUNK = 360_000                    # bytes, compressed; a chunk that passes it is halved
_CHANGES = 2000                             # of each kind in a row; one that passes _LARGEST_CHUNK is halved too
_WRITERS = 8
_QUERIES = 16                               # sources of a tenant, above which all its changes are read at once
_TENANTS, _ROWS_EACH = 8, 50                # tenants that are listed one by one, and rows for each if they are more
_BETWEEN = 4                                # rows between the first and the last key, for each that is wanted
_OVERLAP = 900.0                            # seconds before a time, whose rows tell which lists were kept
_LIFE = 30 * 86_400                         # seconds for which chunks last if no list takes their place
_HOUR = 3600
_COUNTED_SECONDS = 60 * 86_400              # ahead, for which ends of servers are counted: 30 days, when 30 days old
_KEPT = 900                                 # seconds after the listing that replaced a list began (it took 120 at most)
_MOST_KEPT = 100                            # replaced lists that stay readable,
_MOST_KEPT_CHUNKS = 2500                    # and their chunks: some 75 MB


class Kept(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A list that a newer one replaced; fields as in Head. `until`: how long its chunks are kept."""

    generation: str
    total: int
    starts: tuple[int, ...]
    marks: int
    seen_at: float
    until: float


class Counts(msgspec.Struct, frozen=True, gc=False):
    """Of the servers of a list: how many have each status; and how many end (`expires_at`) in each hour since 1970, as
    far as they end within 60 days of the listing; those that had ended before count as if they ended in its own hour.
    `ends` None: not known, because an older version listed them."""

    by_status: dict[str, int]
    ends: tuple[tuple[int, int], ...] | None = None             # (hour, how many)

    def ending(self, until: float) -> int | None:
        """How many end before this Unix time, to the hour."""
        return None if self.ends is None else sum(count for hour, count in self.ends if hour * _HOUR < until)


class Head(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a snapshot is. Times are Unix seconds.

    `seen_at`: when the listing began. `since`: when the first one of this account did. `starts`: position (from 0) of
    each chunk's first server. `marks`: number of chunks that hold marks. `expires`: when the chunks end. `serial`:
    another one each time that the head is written. `moving`: servers had come or gone since the list before. `kept`:
    lists that stay readable. `lasting`: this one will be of them once it is replaced, so callers may be given its id.
    `counts`: None if the version that wrote it did not count. `writer`: that version of twocloud; "" for 0.1.0 and
    earlier builds, which do not say.
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
    kept: tuple[Kept, ...] = ()
    lasting: bool = True
    counts: Counts | None = None
    writer: str = ""

    @property
    def list_id(self) -> str | None:
        return self.generation if self.lasting else None


class Vanished(msgspec.Struct, frozen=True, kw_only=True):
    """A server that is not listed any more. `seen_at`: when it last was; `vanished_at`: when it first was not."""

    id: str
    name: str
    seen_at: float
    vanished_at: float


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What one listing changed: ids that appeared, ids with the fields that changed, servers that vanished.
    `revision`: of the account that was listed, "" in rows of version 0.1.0. `names`: of the servers that appeared or
    changed. `values`: for each field in `changed`, in that order, what it was and what it became, as a Server holds
    it. Rows of version 0.1.0 have neither, nor has a change too large for a row."""

    at: float
    appeared: tuple[str, ...] = ()
    changed: dict[str, tuple[str, ...]] = {}
    vanished: tuple[Vanished, ...] = ()
    revision: str = ""
    names: dict[str, str] = {}
    values: dict[str, tuple[tuple[Any, Any], ...]] = {}


class ChangeRow(NamedTuple):
    """A row of what one listing changed, as it is stored. It sorts by time, then by source. `lists`: as in its key."""

    at: str
    order: tuple[str, ...]
    lists: str
    number: str
    source: Source
    value: bytes


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_servers = msgspec.msgpack.Decoder(list[Server]).decode
_packed = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_server = msgspec.msgpack.Decoder(Server).decode
_marks = msgspec.msgpack.Decoder(dict[str, float]).decode
_head = msgspec.msgpack.Decoder(Head).decode
_change = msgspec.msgpack.Decoder(Change).decode
_BROKEN = (zlib.error, ValueError)


def account_key(tenant_id: str, party: str, account: str = DEFAULT_ACCOUNT) -> str:
    """What begins the keys of an account's sources. The default account's are those of version 0.1.0."""
    return f"{tenant_id}/{party}" if account == DEFAULT_ACCOUNT else f"{tenant_id}/{party}@{account}"


def account_key_of(source: Source) -> str:
    return account_key(source.tenant_id, source.party, source.account)


def key_of(source: Source) -> str:
    return f"{account_key_of(source)}/{source.region}"


def source_of_key(key: str) -> Source:
    tenant_id, account, region = key.split("/", 2)
    tenant_id, party, name = owner_of_key(f"{tenant_id}/{account}")
    return Source(tenant_id, party, region, name)


def owner_of_key(key: str) -> tuple[str, str, str]:
    """The tenant, the party and the name of the account with this key."""
    tenant_id, _, party = key.partition("/")
    party, _, account = party.partition("@")
    return tenant_id, party, account or DEFAULT_ACCOUNT


def rows_of(store: Store, kind: str, tenants: Collection[str] | None) -> dict[str, Row]:
    """The rows of a kind by key, of these tenants, or (None) of all. If they are many, one query reads what lies
    between the first and the last of them; if most of that is others', the rest are listed one by one."""
    if tenants is None:
        return dict(store.list(kind))
    rows, prefixes = dict[str, Row](), sorted(f"{tenant_id}/" for tenant_id in tenants)
    if len(prefixes) > _TENANTS:
        wanted, most, last = set(prefixes), len(prefixes) * _ROWS_EACH, prefixes[-1]
        for n, (key, row) in enumerate(store.list(kind, "", prefixes[0])):
            tenant = f"{key.partition('/')[0]}/"
            if n >= most or tenant > last:
                prefixes = [prefix for prefix in prefixes if prefix >= tenant]
                break
            if tenant in wanted:
                rows[key] = row
        else:
            prefixes = []
    for listed in run_all([lambda prefix=prefix: list(store.list(kind, prefix)) for prefix in prefixes], _TENANTS):
        rows |= listed
    return rows


def rows_at(store: Store, kind: str, keys: Collection[str]) -> dict[str, Row]:
    """The rows of a kind with these keys. One query reads what lies between the first and the last of them; if most of
    that is others', the rest are read by their keys."""
    rows, wanted, first, last, most = dict[str, Row](), {*keys}, min(keys), max(keys), _BETWEEN * len(keys)
    tenant = f"{first.partition('/')[0]}/"
    prefix = tenant if first.startswith(tenant) and last.startswith(tenant) else ""
    for n, (key, row) in enumerate(store.list(kind, prefix, first)):
        if key > last:
            break
        if n >= most:
            rest = store.get_many([(kind, key_) for key_ in wanted if key_ >= key])
            return rows | {key_: row for (_, key_), row in rest.items()}
        if key in wanted:
            rows[key] = row
    return rows


# ---------------------------------------------------------------- reading

def place_of(source: Source) -> Place:
    """Where the source's head is."""
    return "snapshot", key_of(source)


def find(store: Store, source: Source, revision: str) -> Head | None:
    """The head of the account's last list; None if there is none that can be read."""
    return head_of(store.get(*place_of(source)), source, revision)


def head_of(row: Row | None, source: Source, revision: str) -> Head | None:
    """As `find`, of a row that was read."""
    head = _read_head(row.value, key_of(source)) if row else None
    return head if head and head.revision == revision else None


def named(head: Head, list_id: str) -> Head | None:
    """The head as it was of the list with this id; None if that list is not kept."""
    if head.generation == list_id:
        return head
    list_ = next((list_ for list_ in head.kept if list_.generation == list_id), None)
    return list_ and msgspec.structs.replace(head, generation=list_id, total=list_.total, starts=list_.starts,
                                             marks=list_.marks, seen_at=list_.seen_at, digest="", kept=(),
                                             lasting=True, counts=None)


def read(store: Store, source: Source, head: Head, window: Window = WHOLE) -> list[Server]:
    """The servers of a window, from no more chunks than it touches. Raises SnapshotReplaced."""
    return read_window(store, source, head, window, with_marks=False)[0]


def read_window(store: Store, source: Source, head: Head, window: Window = WHOLE, *,
                with_marks: bool = True) -> tuple[list[Server], dict[str, float]]:
    """The servers of a window and the marks, which are read together. Raises SnapshotReplaced."""
    places = window_places(source, head, window, with_marks=with_marks)
    return window_in(store.get_many(places) if places else {}, source, head, window, with_marks=with_marks)


def window_places(source: Source, head: Head, window: Window = WHOLE, *, with_marks: bool = True) -> list[Place]:
    """Where the servers of a window are, and the marks; nowhere if it holds none."""
    chunks = [_chunk(source, head, f"{n:05d}") for n in _chunks_of(head, window)]
    return [*chunks, *marks_of(source, head)] if chunks and with_marks else chunks


def window_in(rows: Mapping[Place, Row], source: Source, head: Head, window: Window = WHOLE, *,
              with_marks: bool = True) -> tuple[list[Server], dict[str, float]]:
    """As `read_window`, of rows that were read. Raises SnapshotReplaced."""
    wanted = _chunks_of(head, window)
    if not wanted:
        return [], {}
    part = len(wanted) == 1                 # a page: no more of its chunk is made into servers than is shown
    chunks = _decoded([rows.get(_chunk(source, head, f"{n:05d}")) for n in wanted], source,
                      _packed if part else _servers)
    servers = [server for chunk in chunks for server in chunk]
    skipped = head.starts[wanted[0]]
    ends = (*head.starts[1:], head.total)
    if len(servers) != ends[wanted[-1]] - skipped:
        raise SnapshotReplaced
    last = head.total if window.last is None else min(window.last, head.total)
    shown = servers[window.first - 1 - skipped:last - skipped]
    return (_unpacked(source, shown) if part else shown,
            read_marks(source, marks_of(source, head) if with_marks else [], rows))


def _chunks_of(head: Head, window: Window) -> list[int]:
    """Numbers of the chunks that a window touches."""
    last = head.total if window.last is None else min(window.last, head.total)
    if window.first > last:
        return []
    ends = (*head.starts[1:], head.total)
    return [n for n, start in enumerate(head.starts) if start < last and ends[n] > window.first - 1]


def marks(store: Store, source: Source, head: Head | None) -> dict[str, float]:
    """id -> when the server was last seen to change. Raises SnapshotReplaced."""
    places = marks_of(source, head)
    return read_marks(source, places, store.get_many(places) if places else {})


def marks_of(source: Source, head: Head | None) -> list[Place]:
    """Where the marks are; none if there is no head."""
    return [_chunk(source, head, f"m{n:04d}") for n in range(head.marks)] if head else []


def read_marks(source: Source, places: Sequence[Place], rows: Mapping[Place, Row]) -> dict[str, float]:
    """The marks of rows that were read. Raises SnapshotReplaced."""
    parts = _decoded([rows.get(place) for place in places], source, _marks)
    return {key: at for part in parts for key, at in part.items()}


def count_by_status(servers: Iterable[Server]) -> dict[str, int]:
    return {str(status): count for status, count in sorted(Counter(server.status for server in servers).items())}


def _count(servers: Sequence[Server], seen_at: float) -> Counts:
    ends = [max(seen_at, server.expires_at.timestamp()) for server in servers if server.expires_at]
    hours = Counter(int(end // _HOUR) for end in ends if end <= seen_at + _COUNTED_SECONDS)
    return Counts(count_by_status(servers), tuple(sorted(hours.items())))


def heads(store: Store, tenant_id: str = "") -> Iterator[tuple[Source, Head]]:
    for key, row in store.list("snapshot", f"{tenant_id}/" if tenant_id else ""):
        if head := _read_head(row.value, key):
            yield source_of_key(key), head


def changes(store: Store, source: Source, since: float, head: Head | None = None) -> list[Change]:
    """What changed after `since`, oldest first. `head`: only changes of its account, not of one that it replaced."""
    changes_read: list[Change] = []
    for _, row in store.list("change", f"{key_of(source)}/", f"{key_of(source)}/{_moment(since)}"):
        change = read_change(row.value, source, head)
        if change and change.at > since:
            changes_read.append(change)
    return changes_read


def read_change(value: bytes, source: Source, head: Head | None) -> Change | None:
    """What a row holds. None: it is damaged, or of an account that the head's replaced."""
    try:
        change = _change(zlib.decompress(value))
    except _BROKEN:
        log.failure(store="change", key=key_of(source))
        return None
    mine = not head or (change.revision == head.revision if change.revision else change.at > head.since)
    return change if mine else None


def change_rows(store: Store, heads: Mapping[Source, Head], since: float) -> list[ChangeRow]:
    """The rows of what changed after `since` in these sources, in their fixed order: a query for each source, or one
    for a tenant with many. Rows of listings whose list was never kept are left out, as far as that is known."""
    start = _moment(max(0.0, since - _OVERLAP))
    by_tenant = dict[str, dict[str, Source]]()
    for source in heads:
        by_tenant.setdefault(source.tenant_id, {})[key_of(source)] = source
    queries = list[Callable[[], list[ChangeRow]]]()
    for tenant_id, keys in by_tenant.items():
        for prefix in [f"{tenant_id}/"] if len(keys) > _QUERIES else [f"{key}/" for key in keys]:
            first = f"{prefix}{start}" if prefix.count("/") > 1 else ""         # of a source
            queries.append(lambda prefix=prefix, first=first, keys=keys: [
                *_rows_of(store.list("change", prefix, first), keys, start)])
    stored = [row for rows in run_all(queries, _QUERIES) for row in rows]
    committed = sorted(row for row in _without_lost(stored, heads) if row.at > _moment(since))
    return [row for _, rows in groupby(committed, lambda row: (row.at, row.order)) for row in _chained(list(rows))]


def _rows_of(rows: Iterable[tuple[str, Row]], sources: Mapping[str, Source], start: str) -> Iterator[ChangeRow]:
    for key, row in rows:
        name, at, lists, number = (key.rsplit("/", 3) + [""] * 3)[:4]
        source = sources.get(name)
        if source and at >= start:
            yield ChangeRow(at, source.order, lists, number, source, row.value)


def _without_lost(rows: Sequence[ChangeRow], heads: Mapping[Source, Head]) -> Iterator[ChangeRow]:
    """Without the rows of a listing that was killed before its head was written, or overtaken: the next one compared
    with the same list again and recorded the same. Where it is not certain which listing was kept, both stay."""
    pairs = {(row.source, *_lists(row)) for row in rows if "-" in row.lists}
    bases = {(source, base) for source, _, base in pairs}
    kept = {(source, made) for source, made, _ in pairs if made == heads[source].generation or (source, made) in bases}
    over = {(source, base) for source, made, base in pairs if (source, made) in kept}
    over |= {(source, head.generation) for source, head in heads.items()}
    for row in rows:
        made, base = _lists(row)
        if not base or (row.source, made) in kept or (row.source, base) not in over:
            yield row


def _chained(rows: list[ChangeRow]) -> Iterator[ChangeRow]:
    """Rows of one source and one moment: each listing comes after the one that it was compared with."""
    while rows:
        made = {_lists(row)[0] for row in rows}
        first = {row.lists for row in rows if len(made) == 1 or _lists(row)[1] not in made} or {rows[0].lists}
        yield from (row for row in rows if row.lists in first)
        rows = [row for row in rows if row.lists not in first]


def _lists(row: ChangeRow) -> tuple[str, str]:
    """The generations of the listing's own list and of the one before; "": it is not known."""
    made, _, base = row.lists.partition("-")
    return made, base


def _moment(unix: float) -> str:
    """A time in a key: it sorts as the number does."""
    return f"{unix:017.6f}"


# ---------------------------------------------------------------- writing

def digest(servers: Sequence[Server]) -> str:
    """The same for the same list."""
    return hashlib.sha256(_encode(servers)).hexdigest()


def save(store: Store, source: Source, revision: str, servers: Sequence[Server], seen_at: float, *,
         history: int) -> Head | None:
    """Keep a complete list and what it changed. `history`: seconds that changes are kept.

    None if a later list was there already: nothing is written then.
    """
    return save_over(store.get(*place_of(source)), store, source, revision, servers, seen_at, history=history)


def save_over(row: Row | None, store: Store, source: Source, revision: str, servers: Sequence[Server],
              seen_at: float, *, history: int) -> Head | None:
    """As `save`, over the head's row as it was read; None also if another one was written since."""
    key = key_of(source)
    before = _read_head(row.value, key) if row else None
    if before and before.revision == revision and before.seen_at > seen_at:
        return None
    mine = before if before and before.revision == revision else None
    digest_now = digest(servers)
    same = mine is not None and mine.digest == digest_now and mine.expires - seen_at > _LIFE / 2
    recorded: list[str] = []
    if mine and same:
        kept = tuple(list_ for list_ in mine.kept if list_.until > seen_at)
        head = msgspec.structs.replace(mine, seen_at=seen_at, serial=secrets.token_hex(6), moving=False, kept=kept,
                                       lasting=mine.lasting or _has_room(kept, mine),
                                       counts=_count(servers, seen_at), writer=__version__)
    else:
        head = _write(store, source, revision, servers, seen_at, mine, digest_now, history, recorded)
        kept = _keep(mine, seen_at) if mine else ()
        head = msgspec.structs.replace(head, kept=kept, lasting=_has_room(kept, head))
    try:
        store.put("snapshot", key, _encode(head), version=row.version if row else 0, expires=head.expires)
    except Conflict:                        # somebody wrote a list meanwhile; the next listing compares with it
        store.delete("change", *recorded)
        if not same:
            _drop(store, key, [head])
        return None
    if before:
        readable = {head.generation, *(list_.generation for list_ in head.kept)}
        _drop(store, key, [list_ for list_ in (before, *before.kept) if list_.generation not in readable])
    return head


def _keep(before: Head, now: float) -> tuple[Kept, ...]:
    """The lists that stay readable when `before` is replaced."""
    lasting = [Kept(before.generation, before.total, before.starts, before.marks, before.seen_at, now + _KEPT)]
    return (*(list_ for list_ in before.kept if list_.until > now), *(lasting if before.lasting else []))


def _has_room(kept: Sequence[Kept], head: Head) -> bool:
    """Whether this list can be kept too when it is replaced. One that changes at each of many listings a minute would
    fill the store otherwise: then some of its lists have no id."""
    chunks = sum(len(list_.starts) + list_.marks for list_ in (*kept, head))
    return not kept or (len(kept) < _MOST_KEPT and chunks <= _MOST_KEPT_CHUNKS)


def _write(store: Store, source: Source, revision: str, servers: Sequence[Server], seen_at: float, mine: Head | None,
           digest: str, history: int, recorded: list[str]) -> Head:
    """The chunks of a new generation, and what changed (`recorded`). The head that names them is not written yet."""
    known: dict[str, float] = {}
    moving, generation, key = False, secrets.token_hex(6), key_of(source)
    if mine:
        try:
            known = marks(store, source, mine)
            change = _compare(read(store, source, mine), servers, seen_at, mine.seen_at,
                              upgraded=mine.writer != __version__)
            moving = bool(change.appeared or change.vanished)
            recorded += _record(store, source, msgspec.structs.replace(change, revision=revision),
                                f"{generation}-{mine.generation}", history)
            there = {server.id for server in servers}
            known = {**{name: at for name, at in known.items() if name in there},
                     **dict.fromkeys(change.changed, seen_at)}
        except SnapshotReplaced:
            mine = None                     # nothing to compare with: a new beginning
    pieces, starts = _pieces(servers)
    marked = [dict(list(known.items())[at:at + 8000]) for at in range(0, len(known), 8000)]
    rows = [(f"{n:05d}", piece) for n, piece in enumerate(pieces)]
    rows += [(f"m{n:04d}", zlib.compress(_encode(part), 1)) for n, part in enumerate(marked)]
    expires = int(seen_at) + _LIFE
    run_all([lambda name=name, value=value: store.put("chunk", f"{key}/{generation}/{name}", value,
                                                      expires=expires + _KEPT) for name, value in rows], _WRITERS)
    return Head(version=VERSION, revision=revision, seen_at=seen_at, since=mine.since if mine else seen_at,
                generation=generation, total=len(servers), starts=tuple(starts), marks=len(marked), digest=digest,
                expires=expires, serial=secrets.token_hex(6), moving=moving, counts=_count(servers, seen_at),
                writer=__version__)


_NOT_COMPARED = ("updated_at", "console_url")       # a time of its own, and what follows from the other fields
_UNKNOWN = (None, "")
_COMPARED = tuple(name for name in Server.__struct_fields__ if name not in _NOT_COMPARED)


def _compare(before: Sequence[Server], after: Sequence[Server], at: float, before_at: float, *,
             upgraded: bool = False) -> Change:
    """`upgraded`: another version of twocloud wrote the list before."""
    old, new = {server.id: server for server in before}, {server.id: server for server in after}
    changed = {key: names for key, server in new.items()
               if key in old and old[key] != server and (names := _differences(old[key], server, upgraded=upgraded))}
    appeared = tuple(key for key in new if key not in old)
    return Change(
        at=at, changed=changed, appeared=appeared, names={key: new[key].name for key in (*appeared, *changed)},
        values={key: tuple((getattr(old[key], name), getattr(new[key], name)) for name in names)
                for key, names in changed.items()},
        vanished=tuple(Vanished(id=key, name=server.name, seen_at=before_at, vanished_at=at)
                       for key, server in old.items() if key not in new))


def _differences(old: Server, new: Server, *, upgraded: bool) -> tuple[str, ...]:
    """The fields that changed. A value that only one version of twocloud reads appears with an upgrade, or goes with
    the way back, and the server has not changed."""
    return tuple(name for name in _COMPARED if (before := getattr(old, name)) != (after := getattr(new, name))
                 and not (upgraded and (before in _UNKNOWN or after in _UNKNOWN)))


def _record(store: Store, source: Source, change: Change, lists: str, history: int) -> list[str]:
    """Write down what changed, before the head: a crash in between records it twice, never zero times. The keys.

    They hold the generations of the lists, so that an overtaken listing takes back its own rows alone.
    """
    keys: list[str] = []
    for n, value in enumerate(_parts(change)):
        keys.append(f"{key_of(source)}/{_moment(change.at)}/{lists}/{n:04d}")
        store.put("change", keys[-1], value, expires=int(change.at) + history)
    return keys


def _parts(change: Change) -> Iterator[bytes]:
    """The values of the rows, each small enough; none if nothing changed."""
    changed = list(change.changed.items())
    most = max(len(change.appeared), len(changed), len(change.vanished))
    todo = [(at, at + _CHANGES) for at in range(0, most, _CHANGES)][::-1]
    while todo:
        start, end = todo.pop()
        part = _part(change, dict(changed[start:end]), start, end)
        value = zlib.compress(_encode(part), 1)
        if len(value) <= _LARGEST_CHUNK:
            yield value
        elif end - start > 1:
            middle = (start + end) // 2
            todo += [(middle, end), (start, middle)]
        else:
            yield zlib.compress(_encode(msgspec.structs.replace(part, values={})), 1)


def _part(change: Change, changed: dict[str, tuple[str, ...]], start: int, end: int) -> Change:
    appeared = change.appeared[start:end]
    return msgspec.structs.replace(
        change, appeared=appeared, changed=changed, vanished=change.vanished[start:end],
        names={key: change.names[key] for key in (*appeared, *changed)},
        values={key: change.values[key] for key in changed})


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

_KINDS = ("snapshot", "chunk", "change", "lease", "breaker", "interest", "regions", "members")


def forget_account(store: Store, tenant_id: str, party: str, account: str = DEFAULT_ACCOUNT) -> None:
    """Take away everything that is kept of an account's sources, and of the members behind it."""
    own = f"{account_key(tenant_id, party, account)}/"
    if ":" in account:                      # a member; rows that name its sources end by themselves, within a day
        _forget_below(store, own)
        return
    behind = f"{tenant_id}/{party}@{account}:"
    _forget_below(store, own, behind)
    lists.forget(store, tenant_id, (own, behind))


def forget_tenant(store: Store, tenant_id: str) -> None:
    """Take away everything that is kept of a tenant's sources, also of accounts that are gone."""
    _forget_below(store, f"{tenant_id}/")
    lists.forget(store, tenant_id, (f"{tenant_id}/",))


def _forget_below(store: Store, *prefixes: str) -> None:
    for kind in _KINDS:
        for prefix in prefixes:
            store.delete(kind, *[key for key, _ in store.list(kind, prefix)])


def forget(store: Store, source: Source) -> None:
    key = key_of(source)
    for kind in _KINDS:
        store.delete(kind, key, *[below for below, _ in store.list(kind, f"{key}/")])


def _drop(store: Store, key: str, gone: Sequence[Head | Kept]) -> None:
    names = [f"{list_.generation}/{name}" for list_ in gone
             for name in (*(f"{n:05d}" for n in range(len(list_.starts))),
                          *(f"m{n:04d}" for n in range(list_.marks)))]
    if names:
        store.delete("chunk", *[f"{key}/{name}" for name in names])


# ---------------------------------------------------------------- parts

def _read_head(value: bytes, key: str) -> Head | None:
    try:
        if (head := _head(value)).version == VERSION:
            return head
    except _BROKEN:
        if _version_of(value) in (None, VERSION):
            log.failure(store="snapshot", key=key)
            return None
    log.logger.warning("snapshot of another version", extra={"fields": {"key": key}})
    return None


def _version_of(value: bytes) -> int | None:
    """The version in a row that is no head of this one; None: it has none."""
    with suppress(*_BROKEN, TypeError, KeyError):
        return msgspec.msgpack.decode(value)["version"]
    return None


def _chunk(source: Source, head: Head, name: str) -> Place:
    return "chunk", f"{key_of(source)}/{head.generation}/{name}"


def _decoded(rows: Sequence[Row | None], source: Source, decode: Callable[[bytes], Any]) -> list[Any]:
    try:
        return [decode(zlib.decompress(row.value)) if row else _lost() for row in rows]
    except _BROKEN:
        log.failure(store="chunk", key=key_of(source))
        raise SnapshotReplaced from None


def _unpacked(source: Source, rows: Sequence[msgspec.Raw]) -> list[Server]:
    try:
        return [_server(row) for row in rows]
    except _BROKEN:
        log.failure(store="chunk", key=key_of(source))
        raise SnapshotReplaced from None


def _lost() -> None:
    raise SnapshotReplaced
