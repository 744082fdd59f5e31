"""A source listed through us and by a client that is not ours, compared record by record.

The client's fields have the names and forms of a Server's. What it does not say of a server is not compared.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import msgspec

from ..errors import PartyDenied
from ..model import Account, Server, Source
from . import many_sources
from .deployment import Deployment

SECONDS = 120.0                             # for each of our two lists: nobody waits behind a gateway
REFERENCE_SECONDS = 600.0                   # for the reference's, whose pages and retries are its own affair
Records = Mapping[str, Mapping[str, Any]]   # by id
Reference = Callable[[Account, str], Records]


class Difference(msgspec.Struct, frozen=True):
    """`name`: of the field; "" if one side alone lists the server."""

    id: str
    name: str
    ours: object
    theirs: object


class Field(msgspec.Struct):
    compared: int = 0
    equal: int = 0


class Comparison(msgspec.Struct):
    """`ours`, `theirs`: how many servers each lists. `both`: how many are in both. `moved`: how many servers differ
    only because they came, went or changed meanwhile."""

    ours: int
    theirs: int
    both: int = 0
    moved: int = 0
    only_ours: int = 0
    only_theirs: int = 0
    fields: dict[str, Field] = msgspec.field(default_factory=dict[str, Field])
    differences: list[Difference] = msgspec.field(default_factory=list[Difference])

    @property
    def agrees(self) -> bool:
        return not self.differences


class Refused(msgspec.Struct, frozen=True):
    """`ours`: the party's refusal. `theirs`: what the reference failed with, which may be another reason."""

    ours: PartyDenied
    theirs: Exception


def verify(deployment: Deployment, account: Account, region: str, reference: Reference) -> Comparison | Refused:
    """List the account, have the reference list it, and list it again: what changed in between is no difference. If we
    are denied, all that the reference lists is a difference, and that it lists nothing is no comparison.

    Raises TimeoutError if the reference does not end, what our listing raises, and whatever the reference raises.
    """
    source = Source(account.tenant_id, account.party, region, account.name)
    try:
        before = _listed(deployment, source)
    except PartyDenied as denied:
        try:
            theirs = _in_time(reference, account, region)
        except (NotImplementedError, TimeoutError):
            raise
        except Exception as problem:
            return Refused(denied, problem)
        if not theirs:
            raise
        return compare((), theirs)
    theirs = _in_time(reference, account, region)
    return compare(before, theirs, _listed(deployment, source))


def _in_time(reference: Reference, account: Account, region: str) -> Records:
    """A client may hang for ever, and cannot be stopped: its thread ends with the process."""
    results: list[Records] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(reference(account, region))
        except BaseException as failure:    # also a client that exits
            failures.append(failure)

    thread = threading.Thread(target=work, name="twocloud-reference", daemon=True)
    thread.start()
    thread.join(REFERENCE_SECONDS)
    if failures:
        if isinstance(failures[0], Exception):
            raise failures[0]
        raise RuntimeError(f"it ended with {type(failures[0]).__name__}")
    if not results:
        raise TimeoutError(f"no answer within {REFERENCE_SECONDS:.0f} seconds")
    return results[0]


def together(parts: Sequence[Comparison]) -> Comparison:
    """Of several accounts that share no server."""
    result = Comparison(0, 0)
    for part in parts:
        for name in ("ours", "theirs", "both", "moved", "only_ours", "only_theirs"):
            setattr(result, name, getattr(result, name) + getattr(part, name))
        result.differences += part.differences
        for name, it in part.fields.items():
            counts = result.fields.setdefault(name, Field())
            counts.compared += it.compared
            counts.equal += it.equal
    return result


def _listed(deployment: Deployment, source: Source) -> list[Server]:
    return many_sources.list_servers(deployment, source, deadline=time.monotonic() + SECONDS).servers


def compare(before: Sequence[Server], theirs: Records, after: Sequence[Server] | None = None) -> Comparison:
    """`after`: our second list; None: nothing changes here."""
    first = {server.id: server for server in before}
    second = first if after is None else {server.id: server for server in after}
    result = Comparison(len(second), len(theirs), len(second.keys() & theirs.keys()))
    moved = Counter[str]()
    for key in sorted(first.keys() | second.keys() | theirs.keys()):
        if (key in first) != (key in second):
            moved[key] += 1
        if key in theirs and (key in first or key in second):
            _compare_fields(result, moved, [side[key] for side in (first, second) if key in side], theirs[key])
        elif key in moved:
            pass
        elif key in theirs:
            result.only_theirs += 1
            result.differences.append(Difference(key, "", None, "listed"))
        else:
            result.only_ours += 1
            result.differences.append(Difference(key, "", "listed", None))
    result.moved = len(moved)
    return result


def _compare_fields(result: Comparison, moved: Counter[str], ours: Sequence[Server], record: Mapping[str, Any]) -> None:
    """`ours`: the server in our lists, the last one last."""
    for name, value in record.items():
        values = [getattr(server, name) for server in ours]
        counts = result.fields.setdefault(name, Field())
        same = is_same(values[-1], value)
        if not same and values[0] != values[-1]:
            moved[ours[-1].id] += 1
            continue
        counts.compared += 1
        if same:
            counts.equal += 1
        else:
            result.differences.append(Difference(ours[-1].id, name, values[-1], value))


def is_same(ours: object, theirs: object) -> bool:
    """Times to the second; a set of theirs says nothing of the order, a list does."""
    if isinstance(ours, datetime) and isinstance(theirs, datetime):
        return int(ours.timestamp()) == int(theirs.timestamp())
    if isinstance(theirs, (set, frozenset)):
        return frozenset(cast(Collection[Any], ours or ())) == theirs
    return ours == (tuple(cast(list[Any], theirs)) if isinstance(theirs, list) else theirs)
