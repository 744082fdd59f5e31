"""What a warm process remembers between requests: logins until they end, catalogues that never change.

Nothing here decides who may see what, and everything can be lost: it is then asked for again.
"""

import threading
import time
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import msgspec

from ..errors import PartyDenied, PartyError
from ..model import Account

T = TypeVar("T")
U = TypeVar("U")
_UNKNOWN_SECONDS = 600.0                    # after which a name that a catalogue did not know is asked for again
_MARGIN = 60.0                              # seconds before its end at which a login is not used any more

_CATALOGUES = 512                           # those used last are remembered, since callers choose regions
_FACTS = 4096                               # about accounts, beyond which all are forgotten
_NAMES = 4096                               # that one catalogue did not know


class _Catalogue(msgspec.Struct):
    """`entries`: by name. `unknown`: names without an entry, and time.monotonic() when each was requested."""

    entries: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    unknown: dict[str, float] = msgspec.field(default_factory=dict[str, float])


class _Turn(msgspec.Struct, weakref=True):
    """Held by the one caller that logs in; gone when nobody waits for it."""

    lock: threading.Lock = msgspec.field(default_factory=threading.Lock)


class _Session(msgspec.Struct):
    """A session that is open while `users` calls go on in it. `made`: what its login gave, None before that."""

    made: Any = None
    users: int = 0
    lock: threading.Lock = msgspec.field(default_factory=threading.Lock)

    def opened(self, login: Callable[[], T], ended: object = None) -> T:
        """What the login gave; again, if that is what has ended."""
        with self.lock:
            if self.made is None or self.made is ended:
                self.made = login()
            made: T = self.made
            return made


_sessions: dict[Hashable, _Session] = {}
_refused: dict[Hashable, PartyDenied] = {}                      # logins that are not tried again
_logins: dict[Hashable, tuple[float, Any]] = {}                 # -> (Unix time of its end, what it gave)
_catalogues: dict[Hashable, _Catalogue] = {}                    # the one used last stands last
_facts: set[Hashable] = set()
_turns: WeakValueDictionary[Hashable, _Turn] = WeakValueDictionary()
_lock = threading.Lock()


def with_session(account: Account, scope: str, login: Callable[[], tuple[float, T]], use: Callable[[T], U]) -> U:
    """`use(what login gave)`. `login` tells the Unix time at which it ends and what it gave; one goes on at a time.

    A kept login that the party answers with 401 is forgotten and repeated, once; a fresh one is not.
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
        turn = _turns.setdefault(key, _Turn())
    with turn.lock:
        with _lock:
            until, kept = _logins.get(key, (0.0, None))
        if kept is not None and time.time() < until - _MARGIN:
            return kept, False
        until, made = login()
        with _lock:
            for old in [known for known, (end, _) in _logins.items() if end <= time.time()]:
                del _logins[old]
            _logins[key] = until, made
        return made, True


def in_session(account: Account, login: Callable[[], T], logout: Callable[[T], object], use: Callable[[T], U], *,
               ended: Container[str], wrong: Container[str]) -> U:
    """`use(what login gave)`, for a party that counts its open sessions: calls that go on at the same time share one,
    and the last of them ends it.

    `ended`: the party's codes for a session that is no more; it is opened again, once. `wrong`: its codes for a wrong
    password. That is never tried again in this process, since the party may lock the account; another one is.
    """
    key = account.tenant_id, account.party, account.revision, account.fingerprint
    with _lock:
        if (refused := _refused.get(key)) is not None:
            raise PartyDenied(f"{PartyDenied.default} ({refused.party_code}; {refused.hint}; not tried again, so that "
                              "the party does not lock the account)", hint=refused.hint, party_code=refused.party_code)
        session = _sessions.setdefault(key, _Session())
        session.users += 1

    def once() -> T:
        with _lock:
            if key in _refused:             # by another thread, while this one waited for it
                raise _refused[key]
        try:
            return login()
        except PartyDenied as refused:
            if refused.party_code in wrong:
                with _lock:
                    _refused[key] = PartyDenied(refused.text, hint=refused.hint, party_code=refused.party_code)
                    while len(_refused) > _NAMES:
                        del _refused[next(iter(_refused))]
            raise

    try:
        made = session.opened(once)
        try:
            return use(made)
        except PartyError as refused:
            if refused.party_code not in ended:
                raise
        return use(session.opened(once, ended=made))
    finally:
        with _lock:
            session.users -= 1
            if last := session.users == 0:
                _sessions.pop(key, None)
        if last and session.made is not None:
            with suppress(PartyError):
                logout(session.made)


def cached_lookup(account: Account, scope: Hashable, names: Sequence[str],
                  fetch: Callable[[Sequence[str]], Mapping[str, T]]) -> dict[str, T]:
    """The entries of these names. `fetch` is given the names not known yet and may give more, or fewer: those are null.

    `scope` names the catalogue: the party, the region if it matters. Accounts share it if their answers come from one
    origin: the same endpoint, trust and proxy.
    """
    key = account.origin, scope
    now = time.monotonic()
    with _lock:
        there = _catalogues.pop(key, None) or _Catalogue()
        if there.entries or there.unknown:
            _catalogues[key] = there
        missing = sorted({name for name in names if name and name not in there.entries
                          and now - there.unknown.get(name, -_UNKNOWN_SECONDS) >= _UNKNOWN_SECONDS})
    if missing:
        fetched = fetch(missing)
        with _lock:
            there = _catalogues.setdefault(key, there)          # another thread may have begun it meanwhile
            there.entries.update(fetched)
            unknown = {name: at for name, at in there.unknown.items() if now - at < _UNKNOWN_SECONDS}
            unknown |= {name: now for name in missing if name not in fetched}
            there.unknown = dict([*unknown.items()][-_NAMES:])
            while len(_catalogues) > _CATALOGUES:
                del _catalogues[next(iter(_catalogues))]
    return {name: there.entries[name] for name in names if name in there.entries}


def note(account: Account, fact: Hashable) -> None:
    """Remember that something holds of the party as this account sees it."""
    with _lock:
        if len(_facts) >= _FACTS:
            _facts.clear()
        _facts.add((account.tenant_id, account.party, account.revision, account.fingerprint, fact))


def noted(account: Account, fact: Hashable) -> bool:
    return (account.tenant_id, account.party, account.revision, account.fingerprint, fact) in _facts


def forget() -> None:
    """Everything; for tests."""
    with _lock:
        for kept in (_logins, _catalogues, _turns, _refused, _facts):
            kept.clear()
