"""Parts of one list: the id under which callers read the rest of an answer over several sources."""

from collections.abc import Sequence

from ..access import tokens
from ..errors import ListChanged
from ..model import Source
from ..storage import lists, snapshots, store
from .lookup import Lookup, logged
from .query import Query

_NAMES = ("tenant_id", "party", "account", "region")            # the parameters that say which sources a query means
_AGAIN = lists.LIFE // 2                    # seconds after which an id that is given to callers is written down again
_REMEMBERED = 4096                          # ids beyond which a process forgets what is over


def note(lookup: Lookup, query: Query, parts: Sequence[tuple[Source, str]]) -> str | None:
    """The id of these lists together. It is written down at first; None if that failed."""
    deployment, now = lookup.deployment, lookup.deployment.clock()
    keyed = [(snapshots.key_of(source), list_id) for source, list_id in parts]
    name = lists.id_of(_scope(query), keyed)
    noted = deployment.listed
    if now - noted.get(name, 0.0) < _AGAIN:
        return name
    if len(noted) >= _REMEMBERED:
        for old in list(noted)[:_REMEMBERED // 2]:
            noted.pop(old, None)
    with logged(name), store.beside():
        if lists.write(deployment.store, _tenants(query), name, keyed, now):
            noted[name] = now
            return name
    return None


def place(query: Query) -> list[store.Place]:
    """Where it is written down which lists the query names; nowhere for one source, or if it names none."""
    return [lists.place_of(_tenants(query), query.list_id)] if query.list_id and query.several else []


def read(lookup: Lookup, query: Query) -> list[tuple[Source, str]]:
    """The sources that the query's list is made of, in their order, with each one's list.

    Raises ListChanged if it is not known, another query's, or wider than the caller's rights are now.
    """
    assert query.list_id
    parts = lists.read(lookup.row(lists.place_of(_tenants(query), query.list_id)))
    if parts is None:
        lookup.deployment.listed.pop(query.list_id, None)       # it is gone: if these lists come again, it is written
    if parts is None or lists.id_of(_scope(query), parts) != query.list_id:
        raise ListChanged()
    named = [(snapshots.source_of_key(key), list_id) for key, list_id in parts]
    if lookup.caller and not all(tokens.allows(lookup.caller, source) for source, _ in named):
        raise ListChanged()
    return named


def _scope(query: Query) -> list[list[str]]:
    """What the query names, whatever the order and however often."""
    return [sorted(set(query.parameters.get(name, "").split(","))) for name in _NAMES]


def _tenants(query: Query) -> list[str]:
    return _scope(query)[0]
