"""A store's rows in another store, of the same engine or another.

The copy can be broken off anywhere and begun again. Three rules make that safe:
  - Every row that a copy writes has the copy's own version, which stands in a row of the copy's (`copy`, `begun`). A
    row with another version was written by somebody else: the store is in use, and is left alone.
  - A row is written if it is not there or differs, and then read again and compared.
  - What the first store does not hold any more goes from the second.
Accounts can be sealed under another key on the way. Two seals of one text differ, so beside each such account stands
the digest of the row that it was made of (`copy`, under the account's kind and key).
Left out: expired rows, leases and shares of rates (processes of the first store have them), and what a copy wrote down
for itself.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from msgspec.structs import replace

from ..concurrency import run_all
from ..errors import Conflict
from ..storage.store import Entry, Moment, Place, Store, new_version
from . import accounts
from .sealing import Sealer

_OWN = "copy"
_LEFT_OUT = (_OWN, "lease", "rate")
_ROWS, _BYTES = 400, 4_000_000              # in a batch, of which some are in memory at a time
_WRITERS = 8
Seals = tuple[Sealer, Sealer]               # (opens, seals)


class Count(msgspec.Struct, frozen=True):
    """Rows that were seen in the first store; of them, written now; that differ after it; removed from the second."""

    rows: int = 0
    written: int = 0
    different: int = 0
    removed: int = 0


class _Begun(msgspec.Struct, frozen=True, kw_only=True):
    """`source`: the store that is copied. `version`: of every row that this copy writes."""

    source: str
    version: int


_read_begun = msgspec.json.Decoder(_Begun).decode


def copy(source: Store, name: str, target: Store, seals: Seals | None = None,
         started: Callable[[int | None], None] = lambda total: None) -> Iterator[Count]:
    """Counts as they grow; the last one tells how it ended. `name` of the first store; `started` receives how many rows
    there are, None if nobody knows. Raises Conflict if the second store holds anything but an earlier copy of the
    first; Internal, InvalidParameter for an account that cannot be sealed again."""
    version, fresh = _begin(target, name)
    count = Count()
    with source.moment() as here:
        started(here.count())
        for batch in _batches(here.walk()):
            count = _copy(batch, target, version, seals, count, fresh)
            yield count
        for batch in _batches(_walk(target)):
            _check_own(batch, version)
            count = _prune(batch, here, target, count)
            yield count


def _begin(target: Store, name: str) -> tuple[int, bool]:
    """The version of what this copy writes, and whether nothing is there yet."""
    row = target.get(_OWN, "begun")
    if row is None:
        with target.moment() as there:
            if next(there.walk(), None):
                raise Conflict("The target store already holds rows. Name an empty one.")
        begun = _Begun(source=name, version=new_version())
        target.put(_OWN, "begun", msgspec.json.encode(begun), version=0)
        return begun.version, True
    begun = _read_begun(row.value)
    if begun.source != name:
        raise Conflict(f"The target store already holds a copy of {begun.source}. Name an empty one.")
    for batch in _batches(_walk(target)):
        _check_own(batch, begun.version)
    return begun.version, False


def _check_own(batch: Sequence[Entry], version: int) -> None:
    if any(entry.version != version for entry in batch):
        raise Conflict("The target store is in use: another program has written to it. The copy stopped; name an empty "
                       "store.")


def _walk(store: Store) -> Iterator[Entry]:
    with store.moment() as there:
        yield from there.walk()


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if entry.kind not in _LEFT_OUT:
            batch.append(entry)
            size += len(entry.value)
        if len(batch) == _ROWS or size > _BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


# ---------------------------------------------------------------- one batch

def _copy(batch: Sequence[Entry], target: Store, version: int, seals: Seals | None, count: Count,
          fresh: bool) -> Count:
    places = [(entry.kind, entry.key) for entry in batch]
    notes = {_note_place(entry): _note(entry, seals) for entry in batch if seals and entry.kind in accounts.KINDS}
    there = {} if fresh else _fetch(target, [*places, *notes])

    def is_there(entry: Entry) -> bool:
        copied = there.get((entry.kind, entry.key))
        if copied and (note := notes.get(_note_place(entry))):
            noted = there.get(_note_place(entry))
            return noted is not None and noted.value == note
        return copied is not None and (copied.value, copied.expires) == (entry.value, entry.expires)

    todo = [entry._replace(version=version) for entry in batch if not is_there(entry)]
    if seals:
        todo = _sealed_again(todo, *seals)
    target.write(todo)
    if notes:                               # after the rows: who is killed in between seals once more
        target.write([Entry(*place, notes[place], version, None) for place in map(_note_place, todo)
                      if place in notes])
    back = _fetch(target, [(entry.kind, entry.key) for entry in todo])
    different = sum(back.get((entry.kind, entry.key)) != entry for entry in todo)
    return replace(count, rows=count.rows + len(batch), written=count.written + len(todo),
                   different=count.different + different)


def _note_place(entry: Entry) -> Place:
    return _OWN, f"{entry.kind}/{entry.key}"


def _note(entry: Entry, seals: Seals | None) -> bytes:
    return hashlib.sha256(entry.value + (seals[1].name if seals else "").encode()).hexdigest().encode()


def _sealed_again(entries: list[Entry], old: Sealer, new: Sealer) -> list[Entry]:
    at = [n for n, entry in enumerate(entries) if entry.kind in accounts.KINDS]
    values = run_all([lambda it=entries[n]: accounts.resealed(it.value, (it.kind, it.key), old, new) for n in at],
                     _WRITERS)
    made = dict(zip(at, values, strict=True))
    return [entry._replace(value=made.get(n, entry.value)) for n, entry in enumerate(entries)]


def _fetch(store: Store, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Entry]:
    if not places:
        return {}
    with store.moment() as there:
        return {(entry.kind, entry.key): entry for entry in there.fetch(places)}


def _prune(batch: Sequence[Entry], here: Moment, target: Store, count: Count) -> Count:
    known = {(entry.kind, entry.key) for entry in here.fetch([(entry.kind, entry.key) for entry in batch])}
    gone = [entry for entry in batch if (entry.kind, entry.key) not in known]
    for kind in {entry.kind for entry in gone}:
        keys = [entry.key for entry in gone if entry.kind == kind]
        target.delete(kind, *keys)
        if kind in accounts.KINDS:
            target.delete(_OWN, *(f"{kind}/{key}" for key in keys))
    return replace(count, removed=count.removed + len(gone))
