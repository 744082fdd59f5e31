"""Users: who may ask for tokens, and the widest that their tokens can be."""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable

import msgspec

from chalicelib.errors import Conflict, RateLimited, Unauthorized
from chalicelib.stores import Store

EVERY_TENANT = "*"
_WRONG_PASSWORDS = 5                        # in _WRONG_SECONDS; then the next try waits
_WRONG_SECONDS = 60
_SCRYPT = {"n": 2 ** 15, "r": 8, "p": 3}    # OWASP's password storage cheat sheet; 32 MiB, about 0.2 s
_hashing = threading.Semaphore(2)           # scrypt is dear on purpose: callers must not exhaust us with it


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


_decode = msgspec.json.Decoder(User).decode


def find(store: Store, name: str) -> User | None:
    row = store.get("user", name)
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


def hash_password(password: str) -> str:
    salt = secrets.token_bytes(16)
    n, r, p = _SCRYPT["n"], _SCRYPT["r"], _SCRYPT["p"]
    return f"scrypt${n}${r}${p}${salt.hex()}${_scrypt(password, salt, n, r, p).hex()}"


def check_password(store: Store, name: str, password: str, now: float) -> User:
    """The user whose name and password these are. Raises Unauthorized, or RateLimited after five wrong ones.

    An unknown name takes as long and is limited in the same way, so that nobody learns who exists; so does a wrong
    password whether or not an old one is right too. A try is counted before it is checked: many at once do not slip
    through together.
    """
    _count_try(store, name, now)
    user = find(store, name)
    kept = user.password if user and not user.disabled else None
    old = user.old_password if user and kept and user.old_until > now else None
    if not (_is_password(kept, password) or _is_password(old, password)) or user is None:
        raise Unauthorized()
    _forget_try(store, name, now)
    return user


def _is_password(kept: str | None, given: str) -> bool:
    """Takes as long if none is kept."""
    scheme, n, r, p, salt, wanted = (kept or _NOBODY).split("$")
    found = _scrypt(given, bytes.fromhex(salt), int(n), int(r), int(p)).hex()
    return hmac.compare_digest(found.encode(), wanted.encode()) and kept is not None and scheme == "scrypt"


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    with _hashing:
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
                              "Too many wrong passwords for this user; wait as Retry-After says.")
        return [*recent, now]

    _change_tries(store, name, now, add_one)


def _forget_try(store: Store, name: str, now: float) -> None:
    def drop_one(recent: list[float]) -> list[float]:
        if now in recent:
            recent.remove(now)
        return recent

    _change_tries(store, name, now, drop_one)
