"""Tokens: made, verified, narrowed, revoked; and the one place that decides what a caller may see.

A token is `tc_`, 30 base62 characters of randomness (178 bits) and 6 of CRC-32 over those 33. Only its SHA-256 is
kept; the first 16 hex digits of it are the public `token_id`.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Callable

import msgspec

from .. import parties
from ..errors import Conflict, Forbidden, Unauthorized
from ..model import USER_FORM, Source
from ..storage.store import Store
from . import users
from .users import EVERY_TENANT, User

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(r"tc_[0-9A-Za-z]{36}", re.ASCII)


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token's row. `tenants`, `parties`, `regions` None: no limit of its own, as wide as its user.

    Times are Unix seconds. `uid` is its user's, so that a later user of the same name does not inherit it.
    """

    token_id: str
    user: str
    uid: str
    tenants: tuple[str, ...] | None = None
    parties: tuple[str, ...] | None = None
    regions: tuple[str, ...] | None = None
    label: str = ""
    created_at: int = 0
    expires_at: int = 0


class Caller(msgspec.Struct, frozen=True):
    """Who is asking: the rows as they stand in the store now. `tenants`: those that both cover; None: every one."""

    token: Token
    user: User
    tenants: frozenset[str] | None = None

    def __post_init__(self) -> None:
        # once a request: it may be asked of each of thousands of sources
        own = self.user.tenants if self.token.tenants is None else self.token.tenants
        limits = [frozenset(names) for names in (self.user.tenants, own) if EVERY_TENANT not in names]
        msgspec.structs.force_setattr(self, "tenants", limits[0] & limits[-1] if limits else None)


class Limits(msgspec.Struct, frozen=True):
    """What a token is narrowed to; None: not narrowed."""

    tenants: tuple[str, ...] | None = None
    parties: tuple[str, ...] | None = None
    regions: tuple[str, ...] | None = None


_decode = msgspec.json.Decoder(Token).decode


# ---------------------------------------------------------------- the decision

def allows(caller: Caller, source: Source) -> bool:
    """Whether this token, for this user, opens this source. Sees rows and the source, never a request."""
    token, user = caller.token, caller.user
    return (_covers_tenant(caller, source.tenant_id) and _covers(user.parties, user.regions, source)
            and _covers(token.parties or (), token.regions or (), source))


def opens(caller: Caller, tenant_id: str | None, party: str | None = None) -> bool:
    """Whether this token opens anything of this tenant (at this party) at all; None: of any."""
    return ((tenant_id is None or _covers_tenant(caller, tenant_id))
            and all(party is None or not names or party in names for names in (caller.user.parties,
                                                                               caller.token.parties)))


def _covers_tenant(caller: Caller, tenant_id: str) -> bool:
    return caller.tenants is None or tenant_id in caller.tenants


def opens_everything(caller: Caller) -> bool:
    """Whether this token opens every source that there is or will be."""
    return tenants_of(caller) is None and limits_of(caller) == (None, None)


def tenants_of(caller: Caller) -> tuple[str, ...] | None:
    """The tenants that this token opens, sorted; None: every one."""
    return None if caller.tenants is None else tuple(sorted(caller.tenants))


def limits_of(caller: Caller) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """The parties and the regions that this token opens; None: all. A region is named as the limit names it."""
    def both(mine: tuple[str, ...], own: tuple[str, ...] | None,
             same: Callable[[str, str], bool]) -> tuple[str, ...] | None:
        if not mine or not own:
            return mine or own or None
        return tuple(name for name in own if any(same(name, wide) for wide in mine))

    user, token = caller.user, caller.token
    return both(user.parties, token.parties, str.__eq__), both(user.regions, token.regions, _same_region)


def may_open(token: Token, tenant_id: str) -> bool:
    """Whether the token's own limits leave room for this tenant; its user decides too."""
    return token.tenants is None or EVERY_TENANT in token.tenants or tenant_id in token.tenants


def _covers(party_names: tuple[str, ...], regions: tuple[str, ...], source: Source) -> bool:
    if party_names and source.party not in party_names:
        return False
    if not regions:
        return True
    aliases = parties.load(source.party).aliases        # a limit covers the region under all its names
    return any(aliases.get(name, name) == source.region for name in regions)


def check_narrower(limits: Limits, user: User) -> None:
    """Raises Forbidden if a token so limited would be wider than its user."""
    for name in limits.tenants or ():
        if EVERY_TENANT not in user.tenants and name not in user.tenants:
            raise Forbidden("A token cannot be wider than its user: this user does not cover these tenants.")
    for name in limits.parties or ():
        if user.parties and name not in user.parties:
            raise Forbidden("A token cannot be wider than its user: this user does not cover these parties.")
    for name in limits.regions or ():
        if user.regions and not any(_same_region(name, wide) for wide in user.regions):
            raise Forbidden("A token cannot be wider than its user: this user does not cover these regions.")


def _same_region(one: str, other: str) -> bool:
    """Whether two names can mean one region at any party (at each party `allows` decides)."""
    return one == other or any(
        aliases.get(one, one) == aliases.get(other, other)
        for aliases in (parties.load(name).aliases for name in parties.names()))


# ---------------------------------------------------------------- who is asking

class Credentials(msgspec.Struct, frozen=True):
    """What an Authorization header holds. `password` None: a bearer token."""

    name: str
    password: str | None


def read_header(header: str | None) -> Credentials:
    """Read `Basic` and `Bearer` strictly (RFC 7617, RFC 6750). Raises Unauthorized."""
    scheme, _, rest = (header or "").partition(" ")
    rest = rest.strip(" ")
    if scheme.lower() == "bearer":
        return Credentials(rest, None)
    if scheme.lower() != "basic":
        raise Unauthorized()
    try:
        raw = base64.b64decode(rest.encode("ascii"), validate=True)
        if base64.b64encode(raw).decode() != rest:              # other last bits mean the same bytes: refused
            raise Unauthorized()
        name, colon, password = raw.decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        raise Unauthorized() from None
    if not colon:
        raise Unauthorized()
    return Credentials(name, password)


def identify(store: Store, header: str | None, now: float) -> Caller:
    """The caller behind an Authorization header, from rows read now. Raises Unauthorized, always alike."""
    token = identify_token(store, header)
    return caller_of(token, users.find(store, token.user), now)


def identify_token(store: Store, header: str | None) -> Token:
    """The token of an Authorization header, of whose user nothing is known yet. Raises Unauthorized."""
    text = read_header(header).name
    if not well_formed(text):
        raise Unauthorized()                                    # a mistyped token costs no read of the store
    token = find_hash(store, _hash(text))
    if not token:
        raise Unauthorized()
    return token


def caller_of(token: Token, user: User | None, now: float) -> Caller:
    """Raises Unauthorized if the token or its user has lost its access."""
    if not user or user.uid != token.uid or user.disabled or token.expires_at <= now:
        raise Unauthorized()
    return Caller(token, user)


def authenticate(store: Store, header: str | None, now: float) -> User:
    """The user behind Basic `user:password`. A token is no way to a token. Raises Unauthorized, RateLimited."""
    login = read_header(header)
    if login.password is None or not USER_FORM.fullmatch(login.name) or _FORM.fullmatch(login.name):
        raise Unauthorized()
    return users.check_password(store, login.name, login.password, now)


def proof(user: User, header: str, now: float) -> str:
    """What the authorizer hands on: it has checked this header against this user's password as it stands now."""
    made = hashlib.sha256(msgspec.json.encode([user.uid, users.right_ones(user, now)]))
    made.update(header.encode("utf-8", "surrogateescape"))
    return made.hexdigest()


def authenticate_again(store: Store, header: str | None, shown: str, now: float) -> User:
    """The user as of `authenticate`, without the cost of a password where `shown` is the proof of the authorizer.

    The user's row is read again: after a new password, a disabled user or the end of a grace the proof is another.
    """
    user = users.find(store, read_header(header).name) if shown else None
    if user and header and users.right_ones(user, now) and hmac.compare_digest(shown, proof(user, header, now)):
        return user
    return authenticate(store, header, now)


def well_formed(text: str) -> bool:
    return bool(_FORM.fullmatch(text)) and _checksum(text[:33]) == text[33:]


# ---------------------------------------------------------------- issue, rotate, revoke

def issue(store: Store, user: User, limits: Limits, lifetime: int, now: float, label: str = "") -> tuple[str, Token]:
    """A new token (shown once) and its row. `lifetime`: seconds. Raises Forbidden if wider than its user."""
    check_narrower(limits, user)
    text = _new_text()
    token = Token(token_id=_hash(text)[:16], user=user.name, uid=user.uid, tenants=limits.tenants,
                  parties=limits.parties, regions=limits.regions, label=label,
                  created_at=int(now), expires_at=int(now) + lifetime)
    _save(store, _hash(text), token, version=0)
    return text, token


def rotate(store: Store, token_id: str, grace: int, now: float) -> tuple[str, Token] | None:
    """A new token with the same limits and as long a life; the old one ends after `grace` seconds."""
    keyed = _row(store, token_id)
    if not keyed:
        return None
    key, old = keyed
    user = users.find(store, old.user)
    if not user or user.uid != old.uid:
        return None
    text, token = issue(store, user, Limits(old.tenants, old.parties, old.regions),
                        old.expires_at - old.created_at, now, old.label)
    _change(store, key, lambda row: msgspec.structs.replace(row, expires_at=min(row.expires_at, int(now) + grace)))
    return text, token


def revoke(store: Store, token_id: str) -> bool:
    """Whether there was such a token."""
    keyed = _row(store, token_id)
    if keyed:
        store.delete("token", keyed[0])
    return bool(keyed)


def find(store: Store, token_id: str) -> Token | None:
    keyed = _row(store, token_id)
    return keyed[1] if keyed else None


def every(store: Store, user: str | None = None) -> list[Token]:
    """All tokens that have not ended, or one user's, the oldest first."""
    tokens = (_decode(row.value) for _, row in store.list("token"))
    return sorted((t for t in tokens if user in (None, t.user)), key=lambda t: (t.created_at, t.token_id))


def revoke_all(store: Store, user: str) -> None:
    store.delete("token", *[key for key, row in store.list("token") if _decode(row.value).user == user])


def forget_tenant(store: Store, tenant_id: str) -> None:
    """Take a tenant out of every token; a token that named no other ends."""
    for key, row in store.list("token"):
        if tenant_id in (_decode(row.value).tenants or ()):
            _change(store, key, lambda token: msgspec.structs.replace(
                token, tenants=tuple(t for t in token.tenants or () if t != tenant_id)))


def find_hash(store: Store, key: str) -> Token | None:
    row = store.get("token", key)
    return _decode(row.value) if row else None


def _row(store: Store, token_id: str) -> tuple[str, Token] | None:
    if not re.fullmatch(r"[0-9a-f]{16}", token_id, re.ASCII):
        return None
    for key, row in store.list("token", token_id):
        return key, _decode(row.value)
    return None


def _save(store: Store, key: str, token: Token, version: int) -> None:
    store.put("token", key, msgspec.json.encode(token), version=version, expires=token.expires_at)


def _change(store: Store, key: str, how: Callable[[Token], Token]) -> None:
    while row := store.get("token", key):
        changed = how(_decode(row.value))
        try:
            if changed.tenants == ():
                store.delete("token", key)
            else:
                _save(store, key, changed, row.version)
            return
        except Conflict:
            continue


# ---------------------------------------------------------------- the form

def _new_text() -> str:
    body = "tc_" + "".join(secrets.choice(_BASE62) for _ in range(30))
    return body + _checksum(body)


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode("ascii")), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()
