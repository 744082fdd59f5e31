"""A tenant's account at a party: its credentials sealed, bound to tenant and party."""

import ipaddress
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import cast
from urllib.parse import urlsplit

import msgspec

from chalicelib import amazon, parties, seal, snapshots
from chalicelib.errors import AccountNotFound, Conflict, Internal, InvalidParameter
from chalicelib.model import IDENTIFIER, Account, Keys, Party
from chalicelib.seal import Sealer
from chalicelib.stores import Store

_LONGEST_SECRET = 16_000                    # a service account's key file with a long RSA key


class AccountRow(msgspec.Struct, frozen=True, kw_only=True):
    """An account as stored. `sealed`: the credentials; `key`: the name of the key, "" if it was not written down.

    `revision` is another one each time the account is put, and stays when its credentials are rotated or sealed anew:
    lists belong to it.
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


_decode = msgspec.json.Decoder(AccountRow).decode


def put(store: Store, sealer: Sealer, account: Account, now: float) -> AccountRow:
    """Seal and store a checked account, in place of the one before."""
    before = _find(store, account.tenant_id, account.party)
    sealed = _seal(sealer, account)
    row = AccountRow(
        tenant_id=account.tenant_id, party=account.party, sealed=sealed, revision=secrets.token_hex(8),
        project=account.project, regions=account.regions, deep=account.deep, endpoint=account.endpoint,
        created_at=before.created_at if before else int(now), updated_at=int(now), key=sealer.name)
    store.put("account", _key(account.tenant_id, account.party), msgspec.json.encode(row))
    snapshots.forget_account(store, account.tenant_id, account.party)           # the old account's lists
    return row


def rotate(store: Store, sealer: Sealer, account: Account, now: float) -> AccountRow:
    """Put other credentials of the same account at the party in place of the old ones: what is kept of it stays.

    Raises AccountNotFound; Conflict if the account was put anew since `account` was made of it.
    """
    while True:
        stored = store.get("account", _key(account.tenant_id, account.party))
        if not stored:
            raise AccountNotFound()
        row = _decode(stored.value)
        if row.revision != account.revision:
            raise Conflict("The account was put anew meanwhile; nothing was changed.")
        row = msgspec.structs.replace(row, sealed=_seal(sealer, account), key=sealer.name, updated_at=int(now))
        with suppress(Conflict):
            store.put("account", _key(account.tenant_id, account.party), msgspec.json.encode(row),
                      version=stored.version)
            return row


def resealed(value: bytes, old: Sealer, new: Sealer) -> bytes:
    """A row's bytes, sealed under another key. Raises Internal, InvalidParameter, both naming the account."""
    row = _decode(value)
    try:
        sealed = seal.reseal(row.sealed, _context(row.tenant_id, row.party), old, new)
    except (Internal, InvalidParameter) as refused:
        raise Internal(f"Account {row.tenant_id} {row.party}: {refused.text}") from None
    return msgspec.json.encode(msgspec.structs.replace(row, sealed=sealed, key=new.name))


def reseal(store: Store, row: AccountRow, old: Sealer, new: Sealer) -> bool:
    """Seal the account's credentials under another key; nothing else of it changes. False if they were already, or the
    account is gone. Raises Internal."""
    while stored := store.get("account", _key(row.tenant_id, row.party)):
        if _decode(stored.value).key == new.name:
            return False
        with suppress(Conflict):            # it was put or rotated meanwhile
            store.put("account", _key(row.tenant_id, row.party), resealed(stored.value, old, new),
                      version=stored.version)
            return True
    return False


def load(store: Store, sealer: Callable[[], Sealer], tenant_id: str, party: str, *, local: bool) -> Account:
    """The account, opened. `local`: endpoints on loopback over plain http are allowed. Raises AccountNotFound."""
    row = find(store, tenant_id, party)
    plain = sealer().open(row.sealed, _context(tenant_id, party), row.key)
    credentials = msgspec.json.decode(plain, type=dict[str, str])
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
    """The account as stored, still sealed. Raises AccountNotFound."""
    if not (row := _find(store, tenant_id, party)):
        raise AccountNotFound()
    return row


def every(store: Store, tenant_id: str | None = None) -> list[AccountRow]:
    return [_decode(row.value) for _, row in store.list("account", f"{tenant_id}/" if tenant_id else "")]


def remove(store: Store, tenant_id: str, party: str) -> None:
    store.delete("account", _key(tenant_id, party))
    snapshots.forget_account(store, tenant_id, party)


# ---------------------------------------------------------------- form

def check(tenant_id: str, party: Party, credentials: object, *, project: str | None, regions: tuple[str, ...],
          deep: bool, endpoint: str | None, local: bool) -> Account:
    """An account made of what an operator typed. Raises InvalidParameter, whose text repeats no secret."""
    if not re.fullmatch(IDENTIFIER, tenant_id, re.ASCII):
        raise InvalidParameter("tenant_id", "A tenant id is 1-64 letters, digits, '.', '_' or '-'.")
    if project is not None and not (party.project_form and re.fullmatch(party.project_form, project, re.ASCII)):
        takes = f"takes {party.project}" if party.project else "has no projects"
        raise InvalidParameter("--project", f"{party.title} {takes}.")
    if deep and not party.deep_permissions:
        raise InvalidParameter("--deep", f"{party.title} gives every field without --deep.")
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
        raise InvalidParameter(parameter, f"The address is {shown}.") from None
    plain = re.fullmatch(rf"https?://[A-Za-z0-9.:\[\]_-]+{path}/?", url, re.ASCII)
    if not plain or not host or port == 0:
        raise InvalidParameter(parameter, f"The address is {shown}, without user or query.")
    if there.scheme == "http" and not (local and _on_loopback(host)):
        raise InvalidParameter(parameter, "The address must be https, or http on loopback with TWOCLOUD_LOCAL=1.")


def _on_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_credentials(party: Party, given: object) -> Mapping[str, str]:
    forms = " or ".join(", ".join(form) for form in party.credentials)
    if not isinstance(given, dict):
        raise InvalidParameter("credentials", f"Credentials are one JSON object with {forms}.")
    fields: dict[str, str] = {}
    for name, value in cast(dict[object, object], given).items():
        if name in party.objects:
            value = msgspec.json.encode(value).decode() if isinstance(value, dict) else None
        if not isinstance(name, str) or not isinstance(value, str) or not value or len(value) > _LONGEST_SECRET:
            raise InvalidParameter("credentials", f"Each field of the credentials is a text that is not empty"
                                                  f"{_objects(party)}; {party.title} takes {forms}.")
        if name not in party.objects and not re.fullmatch(party.forms.get(name, r"[!-~]+"), value, re.ASCII):
            raise InvalidParameter("credentials", f"The field {_shown(name)} holds a blank or a character that it "
                                                  "cannot have; was it copied whole?")
        fields[name] = value
    for form in party.credentials:
        needed = {name for name in form if not name.endswith("?")}
        if needed <= fields.keys() <= {name.rstrip("?") for name in form}:
            if party.examine:
                party.examine(fields)
            return fields
    raise InvalidParameter("credentials", f"{party.title} takes {forms} (\"?\" marks what may be left out).")


def _objects(party: Party) -> str:
    return f" ({', '.join(party.objects)}: a JSON object)" if party.objects else ""


def _shown(name: str) -> str:
    return name if re.fullmatch(r"[a-z_]{1,40}", name, re.ASCII) else "?"


def _find(store: Store, tenant_id: str, party: str) -> AccountRow | None:
    row = store.get("account", _key(tenant_id, party))
    return _decode(row.value) if row else None


def _seal(sealer: Sealer, account: Account) -> bytes:
    return sealer.seal(msgspec.json.encode(dict(account.credentials)), _context(account.tenant_id, account.party))


def _key(tenant_id: str, party: str) -> str:
    return f"{tenant_id}/{party}"


def _context(tenant_id: str, party: str) -> dict[str, str]:
    return {"tenant": tenant_id, "party": party, "purpose": "credentials"}


# ---------------------------------------------------------------- the service's own identity

def own_identity() -> Keys:
    """The keys of this service itself (the function's role), with which it assumes tenants' roles at aws."""
    found = amazon.session().get_credentials()
    if found is None:
        raise Internal("This service has no AWS identity of its own to assume a role with.")
    frozen = found.get_frozen_credentials()
    return Keys(frozen.access_key or "", frozen.secret_key or "", frozen.token)
