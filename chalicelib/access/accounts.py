"""A tenant's account at a party: its credentials sealed, bound to tenant, party and the account's settings.

Whoever can write the store but cannot open the seal must not decide where credentials go. The settings stay readable
in the row, and their digest is sealed with the credentials: on opening, a difference is an error. The digest covers
every field of AccountRow that is not in _OPEN, so a field added later is sealed too.

The sealed text is the credentials as JSON, then the digest's 256 bits as 128 blanks (space, tab, line feed, carriage
return: two bits each). JSON allows blanks there, so version 0.1.0 reads such a row as one of its own. A row without
them was written by 0.1.0: its settings are not sealed until `account reseal`.
"""

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from .. import log, parties
from ..cloud.party import Party
from ..errors import AccountNotFound, Conflict, Internal, InvalidParameter, Unopened
from ..model import IDENTIFIER, Account, Keys
from ..storage import amazon, snapshots
from ..storage.store import Store
from . import sealing
from .sealing import Sealer

_LONGEST_SECRET = 16_000                    # a service account's key file with a long RSA key
_OPEN = {"sealed", "bound", "revision", "created_at", "updated_at", "key"}      # what the seal does not cover
_ROW_SCOPE = {"tenant_id", "party", "project", "regions", "deep"}       # sealed, but sends credentials nowhere else
_BLANKS = b" \t\n\r"
_AGAIN = "Store it again with `twocloud account put --replace`, or remove it."


class AccountRow(msgspec.Struct, frozen=True, kw_only=True):
    """An account as stored. `sealed`: the credentials; `key`: the name of the key, "" if it was not written down.

    `revision` changes each time the account is put, and stays when its credentials are rotated or sealed again:
    snapshots belong to it. `bound`: the seal covers the settings too. What the seal itself holds decides.
    """

    tenant_id: str
    party: str
    sealed: bytes
    revision: str
    project: str | None = None
    regions: tuple[str, ...] = ()
    deep: bool = False
    endpoint: str | None = None
    created_at: int = 0
    updated_at: int = 0
    key: str = ""
    bound: bool = False


_decode = msgspec.json.Decoder(AccountRow).decode


def put(store: Store, sealer: Sealer, account: Account, now: float, *, replace: bool = False) -> AccountRow:
    """Seal and store a checked account. `replace`: in place of the one before, whose snapshots, changes and failures
    are dropped; they name its revision, so a crash in between leaves none of them to the new account.

    Raises Conflict if there is one and it is not to be replaced.
    """
    key = _key(account.tenant_id, account.party)
    stored = store.get("account", key)
    if stored and not replace:
        raise Conflict(f"Tenant {account.tenant_id} already has an account at {account.party}.")
    created = int(now)
    with suppress(Internal):                # a row that cannot be read is replaced like any other
        created = _read(stored.value, key).created_at if stored else created
    row = _sealed(sealer, AccountRow(
        tenant_id=account.tenant_id, party=account.party, sealed=b"", revision=secrets.token_hex(8),
        project=account.project, regions=account.regions, deep=account.deep, endpoint=account.endpoint,
        created_at=created, updated_at=int(now)), account.credentials)
    store.put("account", key, msgspec.json.encode(row), version=None if replace else 0)
    snapshots.forget_account(store, account.tenant_id, account.party)           # the old account's snapshots
    return row


def rotate(store: Store, sealer: Sealer, account: Account, now: float, *, trusting: bool = False) -> AccountRow:
    """Replace the credentials by others of the same account at the party; its settings and snapshots stay.

    Raises AccountNotFound; Conflict if the account was put again since `account` was made of it; Internal if its
    settings are not the sealed ones. `trusting`: see `verify`.
    """
    key = _key(account.tenant_id, account.party)
    while True:
        stored = store.get("account", key)
        if not stored:
            raise AccountNotFound()
        row = _read(stored.value, key)
        if row.revision != account.revision:
            raise Conflict("The account was replaced meanwhile; nothing was changed. Check it, then retry.")
        verify(sealer, row, trusting=trusting)
        row = _sealed(sealer, msgspec.structs.replace(row, updated_at=int(now)), account.credentials)
        with suppress(Conflict):
            store.put("account", key, msgspec.json.encode(row), version=stored.version)
            return row


def verify(sealer: Sealer, row: AccountRow, *, trusting: bool = False) -> None:
    """Check the settings against the seal before other credentials are sent where they say. Raises Internal.

    A seal that this sealer cannot open (a lost key, an identity that may seal but not open) proves nothing: the row
    passes if no setting sends the credentials to another address, or if the operator trusts it (`trusting`).
    """
    try:
        _credentials(sealer, row)
    except Unopened as refused:
        if not trusting and (doubtful := sorted(_settings(row).keys() - _ROW_SCOPE)):
            raise Internal(f"{refused.text} Its settings ({', '.join(doubtful)}) therefore cannot be checked. Review "
                           "them with `twocloud account show`, then pass --trust-settings.") from None


def resealed(value: bytes, old: Sealer, new: Sealer) -> bytes:
    """A row's bytes, sealed under another key, its settings too. Raises Internal, InvalidParameter, both naming the
    account."""
    row = _decode(value)
    try:
        if row.bound:                       # the digest goes along; if it does not fit, opening tells
            sealed = sealing.reseal(row.sealed, _context(row.tenant_id, row.party), old, new)
            row = msgspec.structs.replace(row, sealed=sealed, key=new.name)
        else:
            row = _sealed(new, row, _credentials(old, row))
    except (Internal, InvalidParameter) as refused:
        about = f"Account {row.tenant_id} {row.party}: "
        raise Internal(about + refused.text.removeprefix(about)) from None
    return msgspec.json.encode(row)


def reseal(store: Store, row: AccountRow, old: Sealer, new: Sealer) -> bool:
    """Seal the account under another key, or an account of version 0.1.0 under the same one with its settings. False
    if that was done already, or the account is gone. Raises Internal."""
    key = _key(row.tenant_id, row.party)
    while stored := store.get("account", key):
        row = _read(stored.value, key)
        if row.key == new.name and row.bound:
            return False
        with suppress(Conflict):            # it was put or rotated meanwhile
            store.put("account", key, resealed(stored.value, old, new), version=stored.version)
            return True
    return False


def load(store: Store, sealer: Callable[[], Sealer], tenant_id: str, party: str, *, local: bool) -> Account:
    """The account, opened, its settings checked against the seal. `local`: endpoints on loopback over plain http are
    allowed. Raises AccountNotFound, Internal."""
    row = find(store, tenant_id, party)
    credentials = _credentials(sealer(), row)
    try:
        if row.endpoint:
            check_endpoint(row.endpoint, local=local)
        _check_addresses(parties.load(party), credentials, local=local)
    except InvalidParameter as refused:
        raise Internal(f"Account {tenant_id} {party}: {refused.text}") from None
    return Account(tenant_id=tenant_id, party=party, credentials=credentials, revision=row.revision,
                   project=row.project, regions=row.regions, deep=row.deep, endpoint=row.endpoint,
                   identity=own_identity)


def find(store: Store, tenant_id: str, party: str) -> AccountRow:
    """The account as stored, still sealed: whoever can write the store can change what it shows. Raises
    AccountNotFound."""
    key = _key(tenant_id, party)
    if not (stored := store.get("account", key)):
        raise AccountNotFound()
    return _read(stored.value, key)


def every(store: Store, tenant_id: str | None = None) -> list[AccountRow]:
    """As `find` gives them. Raises Internal."""
    return [_read(row.value, key) for key, row in store.list("account", f"{tenant_id}/" if tenant_id else "")]


def readable(store: Store) -> list[AccountRow]:
    """Those of all tenants, except rows that are damaged: the log names them, and the others go on."""
    found: list[AccountRow] = []
    for key, row in store.list("account"):
        try:
            found.append(_read(row.value, key))
        except Internal:
            log.failure(store="account", key=key)
    return found


def remove(store: Store, tenant_id: str, party: str) -> None:
    """Also an account whose row cannot be read. Raises AccountNotFound."""
    if not store.get("account", _key(tenant_id, party)):
        raise AccountNotFound()
    store.delete("account", _key(tenant_id, party))
    snapshots.forget_account(store, tenant_id, party)


# ---------------------------------------------------------------- the seal

def _sealed(sealer: Sealer, row: AccountRow, credentials: Mapping[str, str]) -> AccountRow:
    """The row with these credentials and its settings sealed."""
    plain = msgspec.json.encode(dict(credentials)) + _mark(row)
    sealed = sealer.seal(plain, _context(row.tenant_id, row.party))
    return msgspec.structs.replace(row, sealed=sealed, key=sealer.name, bound=True)


def _credentials(sealer: Sealer, row: AccountRow) -> dict[str, str]:
    """The row opened. Raises Internal, which names the account."""
    try:
        plain = sealer.open(row.sealed, _context(row.tenant_id, row.party), row.key)
    except Internal as refused:
        raise Unopened(f"Account {row.tenant_id} {row.party}: {refused.text}") from None
    try:
        credentials = msgspec.json.decode(plain, type=dict[str, str])
    except msgspec.DecodeError:             # an emulator of KMS opens another key's seal, and noise comes out
        raise Unopened(f"Account {row.tenant_id} {row.party}: this key did not seal its credentials.") from None
    found = plain[len(plain.rstrip(_BLANKS)):]
    if found != (_mark(row) if found or row.bound else b""):
        raise Internal(f"Account {row.tenant_id} {row.party}: its settings in the store differ from those sealed "
                       f"with its credentials, so no call is made. {_AGAIN}")
    return credentials


def _settings(row: AccountRow) -> dict[str, Any]:
    """The fields that the seal covers and that are not at their default: a field that a later version adds changes
    nothing as long as it is not used."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(AccountRow)}
    return {name: value for name, value in msgspec.structs.asdict(row).items()
            if name not in _OPEN and value != defaults[name]}


def _mark(row: AccountRow) -> bytes:
    """The settings' digest in blanks."""
    digest = hashlib.sha256(msgspec.json.encode(_settings(row), order="deterministic")).digest()
    return bytes(_BLANKS[byte >> shift & 3] for byte in digest for shift in (6, 4, 2, 0))


def _read(value: bytes, key: str) -> AccountRow:
    try:
        row = _decode(value)
    except msgspec.DecodeError:
        raise Internal(f"Account row {key} in the store cannot be read. {_AGAIN}") from None
    if _key(row.tenant_id, row.party) != key:
        raise Internal(f"Account row {key} in the store names another account. {_AGAIN}")
    return row


def _key(tenant_id: str, party: str) -> str:
    return f"{tenant_id}/{party}"


def _context(tenant_id: str, party: str) -> dict[str, str]:
    return {"tenant": tenant_id, "party": party, "purpose": "credentials"}


# ---------------------------------------------------------------- form

def check(tenant_id: str, party: Party, credentials: object, *, project: str | None, regions: tuple[str, ...],
          deep: bool, endpoint: str | None, local: bool) -> Account:
    """An account made of what an operator typed. Raises InvalidParameter, whose text repeats no secret."""
    if not re.fullmatch(IDENTIFIER, tenant_id, re.ASCII):
        raise InvalidParameter("tenant_id", "A tenant id must be 1-64 letters, digits, '.', '_' or '-'.")
    if project is not None and not (party.project_form and re.fullmatch(party.project_form, project, re.ASCII)):
        needs = f"needs {party.project}" if party.project else "has no projects"
        raise InvalidParameter("--project", f"{party.title} {needs}.")
    if deep and not party.deep_permissions:
        raise InvalidParameter("--deep", f"{party.title} returns every field without --deep.")
    if endpoint is not None:
        check_endpoint(endpoint, local=local)
    fields = _check_credentials(party, credentials)
    _check_addresses(party, fields, local=local)
    return Account(tenant_id=tenant_id, party=party.name, credentials=fields,
                   project=project, regions=tuple(dict.fromkeys(party.region(name) for name in regions)),
                   deep=deep, endpoint=endpoint)


def check_endpoint(endpoint: str, *, local: bool) -> None:
    """https anywhere, or http on loopback if `local`; scheme, host and port only. Raises InvalidParameter."""
    _check_url("--endpoint", endpoint, "", local=local)


def _check_addresses(party: Party, credentials: Mapping[str, str], *, local: bool) -> None:
    """The same for credentials that are addresses; these may have a path."""
    for name in credentials.keys() & party.addresses:
        _check_url("credentials", credentials[name], r"(/[A-Za-z0-9._~-]+)*", local=local)


def _check_url(parameter: str, url: str, path: str, *, local: bool) -> None:
    shown = "https://HOST[:PORT][/PATH]" if path else "https://HOST[:PORT]"
    try:
        there = urlsplit(url)
        host, port = there.hostname or "", there.port
    except ValueError:
        raise InvalidParameter(parameter, f"The URL must be {shown}.") from None
    plain = re.fullmatch(rf"https?://[A-Za-z0-9.:\[\]_-]+{path}/?", url, re.ASCII)
    if not plain or not host or port == 0:
        raise InvalidParameter(parameter, f"The URL must be {shown}, without user or query.")
    if there.scheme == "http" and not (local and _on_loopback(host)):
        raise InvalidParameter(parameter, "The URL must be https, or http on loopback with TWOCLOUD_LOCAL=1.")


def _on_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_credentials(party: Party, given: object) -> Mapping[str, str]:
    forms = " or ".join(", ".join(form) for form in party.credentials)
    if not isinstance(given, dict):
        raise InvalidParameter("credentials", f"The credentials must be one JSON object with {forms}.")
    fields: dict[str, str] = {}
    for name, value in cast(dict[object, object], given).items():
        if name in party.objects:
            value = msgspec.json.encode(value).decode() if isinstance(value, dict) else None
        if not isinstance(name, str) or not isinstance(value, str) or not value or len(value) > _LONGEST_SECRET:
            raise InvalidParameter("credentials", f"Each field of the credentials must be a string that is not empty"
                                                  f"{_objects(party)}; {party.title} needs {forms}.")
        if name not in party.objects and not re.fullmatch(party.forms.get(name, r"[!-~]+"), value, re.ASCII):
            raise InvalidParameter("credentials", f"The field {_shown(name)} holds a blank or another invalid "
                                                  "character. Was it truncated?")
        fields[name] = value
    for form in party.credentials:
        needed = {name for name in form if not name.endswith("?")}
        if needed <= fields.keys() <= {name.rstrip("?") for name in form}:
            if party.examine:
                party.examine(fields)
            return fields
    raise InvalidParameter("credentials", f"{party.title} needs {forms} (\"?\" marks optional fields).")


def _objects(party: Party) -> str:
    return f" ({', '.join(party.objects)}: a JSON object)" if party.objects else ""


def _shown(name: str) -> str:
    return name if re.fullmatch(r"[a-z_]{1,40}", name, re.ASCII) else "?"


# ---------------------------------------------------------------- the service's own identity

def own_identity() -> Keys:
    """The keys of this service itself (the function's role), with which it assumes tenants' roles at aws."""
    found = amazon.session().get_credentials()
    if found is None:
        raise Internal("This service has no AWS identity to assume a role with. Give it AWS credentials.")
    frozen = found.get_frozen_credentials()
    return Keys(frozen.access_key or "", frozen.secret_key or "", frozen.token)
