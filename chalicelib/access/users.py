"""Users, and the widest limits that their tokens can have."""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import msgspec

from ..errors import Conflict, RateLimited, Unauthorized
from ..storage.store import Row, Store

EVERY_TENANT = "*"
_WRONG_PASSWORDS = 5                        # in _WRONG_SECONDS; then the next try waits
_WRONG_SECONDS = 60
_SCRYPT = {"n": 2 ** 15, "r": 8, "p": 3}    # OWASP's password storage cheat sheet; 32 MiB, about 0.2 s
# scrypt is expensive on purpose, so strangers must not exhaust us with it: one password at a time is checked in this
# process (one core at most, whoever sends them), a few more wait a short time, all others are refused at once.
_WAITING = 8
_WAIT_SECONDS = 3.0
_hashing = threading.Lock()
_room = threading.BoundedSemaphore(1 + _WAITING)


class User(msgspec.Struct, frozen=True, kw_only=True):
    """`uid` tells two users apart who had the same name one after the other; tokens are bound to it.

    `tenants`: "*" is all, none is none. `parties`, `regions`: none is all. Regions are kept as they were given.
    `password`: "scrypt$n$r$p$salt$hash" or None, who cannot ask for tokens over HTTP. `old_password` is right too
    until `old_until`. Times are Unix seconds.
    """

    name: str
    uid: str
    tenants: tuple[str, ...] = ()
    parties: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    password: str | None = None
    disabled: bool = False
    created_at: int = 0
    old_password: str | None = None
    old_until: int = 0
    declared_by: str = ""                   # the declaration that made it; "" for one that a person added


_decode = msgspec.json.Decoder(User).decode


def find(store: Store, name: str) -> User | None:
    return of_row(store.get("user", name))


def of_row(row: Row | None) -> User | None:
    return _decode(row.value) if row else None


def every(store: Store) -> list[User]:
    return [_decode(row.value) for _, row in store.list("user")]


def add(store: Store, user: User) -> None:
    """Raises Conflict if there is a user of this name."""
    store.put("user", user.name, msgspec.json.encode(user), version=0)


def change(store: Store, name: str, how: Callable[[User], User]) -> User | None:
    """Apply `how` to the user as stored now; None if there is no such user."""
    while row := store.get("user", name):
        changed = how(_decode(row.value))
        try:
            store.put("user", name, msgspec.json.encode(changed), version=row.version)
            return changed
        except Conflict:
            continue
    return None


def with_password(user: User, password: str, now: float, grace: int = 0) -> User:
    """`password`: hashed. The one before stays right for `grace` seconds; one before that does not."""
    old = user.password if grace else None
    return msgspec.structs.replace(user, password=password, old_password=old, old_until=int(now) + grace if old else 0)


def remove(store: Store, name: str) -> None:
    store.delete("user", name)


def new_uid() -> str:
    return secrets.token_hex(8)


def hash_password(password: str, beside: str | None = None) -> str:
    """`beside`: the password that stays right for a while. The same salt for both lets one scrypt try both."""
    n, r, p = _SCRYPT["n"], _SCRYPT["r"], _SCRYPT["p"]
    cost = f"scrypt${n}${r}${p}$"
    shared = beside.removeprefix(cost).partition("$")[0] if beside and beside.startswith(cost) else ""
    salt = bytes.fromhex(shared) if shared else secrets.token_bytes(16)
    return f"{cost}{salt.hex()}${_scrypt(password, salt, n, r, p).hex()}"


def check_password(store: Store, name: str, password: str, now: float) -> User:
    """The user whose name and password these are.

    Raises Unauthorized, or RateLimited after five wrong passwords for this user and while too many are checked.

    An unknown name takes as long and is limited in the same way, so that nobody learns who exists; so does a wrong
    password whether or not an old one is right too. A try is counted before it is checked: many at once do not slip
    through together.
    """
    with _place():
        _count_try(store, name, now)
        user = find(store, name)
        with _turn():
            right = _is_password(right_ones(user, now), password)
        if not right or user is None:
            raise Unauthorized()
        _forget_try(store, name, now)
        return user


def right_ones(user: User | None, now: float) -> list[str]:
    """The hashes of the passwords with which this user may come now: none, one, or two during a grace."""
    if not user or not user.password or user.disabled:
        return []
    return [user.password, *([user.old_password] if user.old_password and user.old_until > now else [])]


def has_password(user: User, password: str) -> bool:
    return _is_password([user.password] if user.password else [], password)


@contextmanager
def _place() -> Generator[None]:
    if not _room.acquire(blocking=False):
        raise _busy()
    try:
        yield
    finally:
        _room.release()


@contextmanager
def _turn() -> Generator[None]:
    if not _hashing.acquire(timeout=_WAIT_SECONDS):
        raise _busy()
    try:
        yield
    finally:
        _hashing.release()


def _busy() -> RateLimited:
    return RateLimited(2, "Too many passwords are being checked at once.")


def _is_password(kept: list[str], password: str) -> bool:
    """Costs one scrypt, whether none, one or two hashes are kept. (Two that version 0.1 made have two salts: two.)"""
    hashed: dict[tuple[str, ...], bytes] = {}
    matches = False
    for one in kept or [_NOBODY]:
        scheme, *how, wanted = one.split("$")
        if tuple(how) not in hashed:
            n, r, p, salt = how
            hashed[tuple(how)] = _scrypt(password, bytes.fromhex(salt), int(n), int(r), int(p)).hex().encode()
        matches |= hmac.compare_digest(hashed[tuple(how)], wanted.encode()) and scheme == "scrypt"
    return matches and bool(kept)


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, n=n, r=r, p=p,
                          maxmem=256 * n * r, dklen=32)


_NOBODY = f"scrypt${_SCRYPT['n']}${_SCRYPT['r']}${_SCRYPT['p']}${'00' * 16}${'00' * 32}"
_decode_tries = msgspec.json.Decoder(list[float]).decode


def _change_tries(store: Store, name: str, now: float, how: Callable[[list[float]], list[float]]) -> None:
    while True:
        row = store.get("try", name)
        recent = [at for at in (_decode_tries(row.value) if row else []) if now - _WRONG_SECONDS < at <= now]
        try:
            store.put("try", name, msgspec.json.encode(how(recent)), version=row.version if row else 0,
                      expires=int(now) + _WRONG_SECONDS + 1)
            return
        except Conflict:
            continue


def _count_try(store: Store, name: str, now: float) -> None:
    def add_one(recent: list[float]) -> list[float]:
        if len(recent) >= _WRONG_PASSWORDS:
            raise RateLimited(max(1, int(recent[-_WRONG_PASSWORDS] + _WRONG_SECONDS - now) + 1),
                              "Too many wrong passwords for this user.")
        return [*recent, now]

    _change_tries(store, name, now, add_one)


def _forget_try(store: Store, name: str, now: float) -> None:
    def drop_one(recent: list[float]) -> list[float]:
        if now in recent:
            recent.remove(now)
        return recent

    _change_tries(store, name, now, drop_one)
