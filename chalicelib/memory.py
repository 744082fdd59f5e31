"""What a warm process remembers between requests: logins until they end, catalogues that never change.

Nothing here decides who may see what, and everything can be lost: it is then asked for again.
"""

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from chalicelib.errors import PartyDenied
from chalicelib.model import Account

T = TypeVar("T")
U = TypeVar("U")
_UNKNOWN_SECONDS = 600.0                    # after which a name that a catalogue did not know is asked for again
_MARGIN = 60.0                              # seconds before its end at which a login is not used any more

_logins: dict[Hashable, tuple[float, Any]] = {}                 # -> (Unix time of its end, what it gave)
_entries: dict[Hashable, dict[str, Any]] = {}                   # catalogue -> name -> entry
_unknown: dict[tuple[Hashable, str], float] = {}                # -> time.monotonic() when it was asked for
_locks: dict[Hashable, threading.Lock] = {}
_lock = threading.Lock()


def with_login(account: Account, scope: str, login: Callable[[], tuple[float, T]], use: Callable[[T], U]) -> U:
    """`use(what login gave)`. `login` tells the Unix time at which it ends and what it gave; one goes on at a time.

    A kept login that the party answers with 401 is forgotten and made anew, once; a fresh one is not.
    """
    key = account.tenant_id, account.party, account.revision, account.fingerprint, scope
    kept, fresh = _login(key, login)
    try:
        return use(kept)
    except PartyDenied as refused:
        if fresh or refused.http_status != 401:
            raise
    with _lock:
        if _logins.get(key, (0.0, None))[1] is kept:            # or another thread has renewed it already
            del _logins[key]
    return use(_login(key, login)[0])


def _login(key: Hashable, login: Callable[[], tuple[float, T]]) -> tuple[T, bool]:
    with _lock:
        turn = _locks.setdefault(key, threading.Lock())
    with turn:
        with _lock:
            until, kept = _logins.get(key, (0.0, None))
        if kept is not None and time.time() < until - _MARGIN:
            return kept, False
        until, made = login()
        with _lock:
            for old in [known for known, (end, _) in _logins.items() if end <= time.time()]:
                del _logins[old]
                with suppress(KeyError):
                    del _locks[old]
            _logins[key] = until, made
        return made, True


def catalogue(key: Hashable, names: Sequence[str], fetch: Callable[[Sequence[str]], Mapping[str, T]]) -> dict[str, T]:
    """The entries of these names. `fetch` is given the names not known yet and may give more, or fewer: those are null.

    `key` names the catalogue: the party, the account's endpoint, the region if it matters.
    """
    now = time.monotonic()
    with _lock:
        entries = _entries.setdefault(key, {})
        missing = sorted({name for name in names if name and name not in entries
                          and now - _unknown.get((key, name), -_UNKNOWN_SECONDS) >= _UNKNOWN_SECONDS})
    if missing:
        found = fetch(missing)
        with _lock:
            entries.update(found)
            _unknown.update({(key, name): now for name in missing if name not in found})
    return {name: entries[name] for name in names if name in entries}


def forget() -> None:
    """Everything; for tests."""
    with _lock:
        for kept in (_logins, _entries, _unknown, _locks):
            kept.clear()
