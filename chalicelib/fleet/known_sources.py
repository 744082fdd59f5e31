"""What the store holds of each source that a caller may see: what metrics are made of. No party is queried, and no
snapshot is read: its head counts its servers."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from ..access import tokens
from ..access.accounts import AccountRow
from ..concurrency import run_all
from ..errors import Internal, SnapshotReplaced
from ..model import Source
from ..storage import snapshots
from ..storage.snapshots import Counts, Head
from ..storage.store import Row
from . import circuit_breaker, known_regions, schedule, visible
from .circuit_breaker import Breaker
from .interest import last_read
from .lookup import Lookup, is_built_in
from .visible import VisibleAccount

_KINDS = ("snapshot", "breaker", "interest")
_ROOM = 5.0                                 # seconds of a request that are left for its answer
_REGIONS_SECONDS = 3600                     # for which a failure to list members or regions counts


class SourceState(msgspec.Struct, frozen=True):
    """`head`: of its snapshot, None if it was never listed. `error`: the code of the failure, if the last listing
    failed; else "". `breaker_open`: whether the circuit breaker is. `every`: seconds between the schedule's refreshes.

    The region is `all` where none of the account's sources is known, and where its members or regions cannot be listed.
    """

    source: Source
    head: Head | None = None
    error: str = ""
    breaker_open: bool = False
    every: int = schedule.REST_EVERY

    @property
    def up(self) -> bool:
        return self.head is not None and not self.error


class _Rows(msgspec.Struct):
    """The rows of one account's sources, by region."""

    snapshot: dict[str, Row] = msgspec.field(default_factory=dict[str, Row])
    breaker: dict[str, Row] = msgspec.field(default_factory=dict[str, Row])
    interest: dict[str, Row] = msgspec.field(default_factory=dict[str, Row])


def states(lookup: Lookup) -> list[SourceState]:
    """Of the sources that accounts name, that were listed, or that somebody read in the last month; in their order."""
    accounts = visible.accounts(lookup)
    rows = _rows(lookup)
    every = [state for account in accounts for state in _of_account(lookup, account, rows)]
    return sorted((_counted(lookup, state) for state in every), key=lambda state: state.source.order)


def _rows(lookup: Lookup) -> Mapping[str, _Rows]:
    """By the keys of accounts."""
    store, tenants = lookup.deployment.store, tokens.tenants_of(lookup.caller) if lookup.caller else None
    by_account = defaultdict[str, _Rows](_Rows)
    kinds = run_all([lambda kind=kind: snapshots.rows_of(store, kind, tenants) for kind in _KINDS], len(_KINDS))
    for kind, rows in zip(_KINDS, kinds, strict=True):
        for key, row in rows.items():
            tenant_id, account, region = key.split("/", 2)
            getattr(by_account[f"{tenant_id}/{account}"], kind)[region] = row
    return by_account


def _of_account(lookup: Lookup, account: VisibleAccount, by_account: Mapping[str, _Rows]) -> Iterator[SourceState]:
    if account.row is None:
        yield SourceState(_source(account, known_regions.EVERY), error=Internal.code)
        return
    rows = by_account.get(snapshots.account_key(account.tenant_id, account.party, account.account), _Rows())
    if account.row.discover and account.discovered_by is None:
        sources, unknown = list[Source](), lookup.members_behind(account.row) is None
    else:
        sources = _known(lookup, account, rows) or _limited(account)
        unknown = not sources
    for source in sources:
        head = snapshots.head_of(rows.snapshot.get(source.region), source, account.row.revision)
        yield _state(lookup, account.row, source, head, rows)
    failure = _breaker(rows.breaker.get(known_regions.EVERY), account.row)
    failed = failure is not None and lookup.arrived - failure.at <= _REGIONS_SECONDS
    if unknown or (failed and (account.row.discover or not account.row.regions)):
        yield _state(lookup, account.row, _source(account, known_regions.EVERY), None, rows)


def _known(lookup: Lookup, account: VisibleAccount, rows: _Rows) -> list[Source]:
    """Those that the caller may see of the regions that the account names, that were listed, or that were read."""
    assert account.row
    listed = [region for region, row in rows.snapshot.items()
              if snapshots.head_of(row, _source(account, region), account.row.revision)]
    sources = [_source(account, region) for region in {*account.row.regions, *listed, *rows.interest}]
    return [source for source in sources if not lookup.caller or tokens.allows(lookup.caller, source)]


def _limited(account: VisibleAccount) -> list[Source]:
    """Of an account of which the caller may see no source that is known: the regions to which the token is limited, as
    far as the party has them for certain. They tell nothing of the account's other regions."""
    sources = [_source(account, region) for region in account.regions or ()]
    return [source for source in sources if is_built_in(source)]


def _source(account: VisibleAccount, region: str) -> Source:
    return Source(account.tenant_id, account.party, region, account.account)


def _state(lookup: Lookup, account: AccountRow, source: Source, head: Head | None, rows: _Rows) -> SourceState:
    now = lookup.arrived
    failure = _breaker(rows.breaker.get(source.region), account)
    return SourceState(source, head, failure.error(None).code if failure else "",
                       failure is not None and failure.until > now,
                       schedule.every(now - last_read(rows.interest.get(source.region))))


def _breaker(row: Row | None, account: AccountRow) -> Breaker | None:
    return circuit_breaker.read(row.value, account.revision) if row else None


def _counted(lookup: Lookup, state: SourceState) -> SourceState:
    """With the counts of servers. A snapshot whose head holds none, as an older version wrote it, is read, each once in
    the life of this process and as far as the request's time allows."""
    head, counted = state.head, lookup.deployment.counted
    if head is None or head.counts is not None:
        return state
    key = snapshots.key_of(state.source)
    if counted.get(key, ("", None))[0] != head.generation and time.monotonic() < lookup.deadline - _ROOM:
        with suppress(SnapshotReplaced):
            servers = snapshots.read(lookup.deployment.store, state.source, head)
            counted[key] = head.generation, Counts(snapshots.count_by_status(servers))
    generation, counts = counted.get(key, ("", None))
    if generation != head.generation:
        return state
    return replace(state, head=msgspec.structs.replace(head, counts=counts))
