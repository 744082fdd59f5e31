"""A tenant's account at a party: its credentials sealed, bound to tenant, party and the account's settings.

Whoever can write the store but cannot open the seal must not decide where credentials go. The settings stay readable
in the row, and their digest is sealed with the credentials: on opening, a difference is an error. The digest covers
every field of AccountRow that is not in _OPEN, so a field added later is sealed too.

The sealed text is the credentials as JSON, then the digest's 256 bits as 128 blanks (space, tab, line feed, carriage
return: two bits each). JSON allows blanks there, so version 0.1.0 reads such a row as one of its own. A row without
them was written by 0.1.0: its settings are not sealed until `account reseal`.

A tenant's account at a party is called `default` unless it was put under another name:
  account  tenant/party        the one called default, where version 0.1.0 looks for it
  named    tenant/party@name   any other, which version 0.1.0 does not see
  names    tenant/party        the names of the others; a name is there before its row and goes after it
"""

import hashlib
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import product
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import msgspec

from .. import log, parties
from ..cloud.joining import base_url
from ..cloud.party import Party
from ..errors import AccountNotFound, Conflict, Internal, InvalidParameter, UnknownRegion, Unopened
from ..model import DEFAULT_ACCOUNT, IDENTIFIER, Account, Discovery, Keys, Member
from ..route import PROXY_PASSWORD, PROXY_USER, Route, is_loopback, parse_proxy, with_login
from ..storage import amazon, snapshots
from ..storage.store import Place, Row, Store
from . import sealing
from .sealing import Sealer

T = TypeVar("T")
_LONGEST_SECRET = 16_000                    # a service account's key file with a long RSA key
# what the seal does not cover
_OPEN = {"sealed", "bound", "revision", "created_at", "updated_at", "key", "declared_by"}
_ROW_SCOPE = {"tenant_id", "party", "account", "project", "regions", "deep"}      # sealed, but no address
_OF_0_1_0 = {"tenant_id", "party", "project", "regions", "deep", "endpoint"}      # what it wrote, without sealing it
_BLANKS = b" \t\n\r"
_IN_BLANKS = [bytes(four) for four in product(_BLANKS, repeat=4)]               # of each byte, two bits a blank
KINDS = ("account", "named")                # of the default account's row, and of the others'
_AGAIN = "Store it again with `twocloud account put --replace`, or remove it."


class AccountRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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
    account: str = DEFAULT_ACCOUNT
    discover: bool = False
    discover_below: str | None = None
    discover_role: str | None = None
    authorities: str = ""                   # PEM certificates, trusted beside the public ones
    proxy: str | None = None                # without user and password, which are sealed
    allow_http: bool = False
    declared_by: str = ""                   # the declaration that made it; "" for one that a person put

    @property
    def discovery(self) -> Discovery | None:
        return Discovery(self.discover_below, self.discover_role) if self.discover else None


_DEFAULTS = dict(zip(reversed(AccountRow.__struct_fields__), reversed(AccountRow.__struct_defaults__), strict=False))
_SEALED = [name for name in AccountRow.__struct_fields__ if name not in _OPEN]
_decode = msgspec.json.Decoder(AccountRow).decode
_names = msgspec.json.Decoder(tuple[str, ...]).decode


def put(store: Store, sealer: Sealer, account: Account, now: float, *, replace: bool = False,
        declared_by: str = "") -> AccountRow:
    """Seal and store a checked account. `replace`: in place of the one before, whose snapshots, changes and failures
    are dropped; they name its revision, so a crash in between leaves none of them to the new account.

    Raises Conflict if there is one and it is not to be replaced.
    """
    place = place_of(account.tenant_id, account.party, account.name)
    stored = store.get(*place)
    if stored and not replace:
        raise Conflict(f"Tenant {account.tenant_id} already has an account {account.name} at {account.party}.")
    created = int(now)
    with suppress(Internal):                # a row that cannot be read is replaced like any other
        created = _read(stored.value, place).created_at if stored else created
    row = _sealed(sealer, AccountRow(
        tenant_id=account.tenant_id, party=account.party, sealed=b"", revision=secrets.token_hex(8),
        project=account.project, regions=account.regions, deep=account.deep, endpoint=account.endpoint,
        created_at=created, updated_at=int(now), account=account.name, discover=account.discovery is not None,
        discover_below=account.discovery.below if account.discovery else None,
        discover_role=account.discovery.role if account.discovery else None, authorities=account.route.authorities,
        proxy=account.route.proxy.url if account.route.proxy else None, allow_http=account.route.plain,
        declared_by=declared_by), account.secrets)
    if account.name != DEFAULT_ACCOUNT:
        _change_names(store, account.tenant_id, account.party, lambda names: (*names, account.name))
    store.put(*place, msgspec.json.encode(row), version=None if replace else 0)
    snapshots.forget_account(store, account.tenant_id, account.party, account.name)     # the old account's snapshots
    return row


def _change_names(store: Store, tenant_id: str, party: str,
                  change: Callable[[tuple[str, ...]], Iterable[str]]) -> None:
    place = names_place(tenant_id, party)
    while True:
        stored = store.get(*place)
        before = names_in(stored)
        after = tuple(sorted(set(change(names_there(store, tenant_id, party) if before is None else before))))
        if after == before:
            return
        with suppress(Conflict):            # another one was put or removed meanwhile
            store.put(*place, msgspec.json.encode(after), version=stored.version if stored else 0)
            return


def rotate(store: Store, sealer: Sealer, account: Account, now: float, *, trusting: bool = False) -> AccountRow:
    """Replace the credentials by others of the same account at the party; its settings and snapshots stay.

    Raises AccountNotFound; Conflict if the account was put again since `account` was made of it; Internal if its
    settings are not the sealed ones. `trusting`: see `verify`.
    """
    place = place_of(account.tenant_id, account.party, account.name)
    while True:
        stored = store.get(*place)
        if not stored:
            raise AccountNotFound()
        row = _read(stored.value, place)
        if row.revision != account.revision:
            raise Conflict("The account was replaced meanwhile; nothing was changed. Check it, then retry.")
        verify(sealer, row, trusting=trusting)
        row = _sealed(sealer, msgspec.structs.replace(row, updated_at=int(now)), account.secrets)
        with suppress(Conflict):
            store.put(*place, msgspec.json.encode(row), version=stored.version)
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


def resealed(value: bytes, place: Place, old: Sealer, new: Sealer) -> bytes:
    """The bytes of the row at this place, sealed under another key, its settings too. Raises Internal, which names the
    account."""
    row = _read(value, place)
    try:
        if row.bound:                       # the digest goes along; if it does not fit, opening tells
            sealed = sealing.reseal(row.sealed, _context(row), old, new)
            row = msgspec.structs.replace(row, sealed=sealed, key=new.name)
        else:
            row = _sealed(new, row, _credentials(old, row))
    except (Internal, InvalidParameter) as refused:
        about = f"{_title(row)}: "
        raise Internal(about + refused.text.removeprefix(about)) from None
    return msgspec.json.encode(row)


def reseal(store: Store, row: AccountRow, old: Sealer, new: Sealer) -> bool:
    """Seal the account under another key, or an account of version 0.1.0 under the same one with its settings. False
    if that was done already, or the account is gone. Raises Internal."""
    place = place_of(row.tenant_id, row.party, row.account)
    while stored := store.get(*place):
        row = _read(stored.value, place)
        if row.key == new.name and row.bound:
            return False
        with suppress(Conflict):            # it was put or rotated meanwhile
            store.put(*place, resealed(stored.value, place, old, new), version=stored.version)
            return True
    return False


def load(store: Store, sealer: Callable[[], Sealer], tenant_id: str, party: str, name: str = DEFAULT_ACCOUNT, *,
         local: bool) -> Account:
    """The account, opened, its settings checked against the seal. `local`: endpoints on loopback over plain http are
    allowed. Raises AccountNotFound, Internal."""
    return opened(find(store, tenant_id, party, name), sealer, local=local)


def opened(row: AccountRow, sealer: Callable[[], Sealer], member: Member | None = None, *, local: bool) -> Account:
    """As `load`, of a row that was read; or one of the members behind that account. Raises Internal."""
    fields, login = _split(_credentials(sealer(), row))
    try:
        route = _route(row.authorities, row.proxy, login, row.allow_http)
        if row.endpoint:
            check_endpoint(row.endpoint, local=local, plain=route.plain)
        _check_addresses(parties.load(row.party), fields, local=local, plain=route.plain)
    except InvalidParameter as refused:
        raise Internal(f"{_title(row)}: {refused.text}") from None
    return Account(tenant_id=row.tenant_id, party=row.party, credentials=fields, revision=row.revision,
                   project=row.project, regions=row.regions, deep=row.deep, endpoint=row.endpoint,
                   name=f"{row.account}:{member.id}" if member else row.account, discovery=row.discovery,
                   member=member, route=route, identity=own_identity)


def find(store: Store, tenant_id: str, party: str, name: str = DEFAULT_ACCOUNT) -> AccountRow:
    """The account as stored, still sealed: whoever can write the store can change what it shows. Raises
    AccountNotFound."""
    return row_of(store.get(*place_of(tenant_id, party, name)), tenant_id, party, name)


def place_of(tenant_id: str, party: str, name: str = DEFAULT_ACCOUNT) -> Place:
    """Where the account's row is; a member's is the account's through which it was found."""
    name = name.partition(":")[0]
    return KINDS[name != DEFAULT_ACCOUNT], snapshots.account_key(tenant_id, party, name)


def row_of(stored: Row | None, tenant_id: str, party: str, name: str = DEFAULT_ACCOUNT) -> AccountRow:
    """As `find`, of a row that was read. Raises AccountNotFound, Internal."""
    if not stored:
        raise AccountNotFound()
    return row_at(stored, place_of(tenant_id, party, name))


def row_at(stored: Row, place: Place) -> AccountRow:
    """As `find`, of a row that was read at this place. Raises Internal."""
    return _read(stored.value, place)


def names_place(tenant_id: str, party: str) -> Place:
    """Where the names of a tenant's other accounts at the party are."""
    return "names", snapshots.account_key(tenant_id, party)


def names_in(stored: Row | None) -> tuple[str, ...] | None:
    """The names of accounts in a row that was read; some may have no row. None: it is damaged."""
    try:
        return _names(stored.value) if stored else ()
    except ValueError:
        return None


def names_there(store: Store, tenant_id: str, party: str) -> tuple[str, ...]:
    """The names of a tenant's other accounts at the party, as their own rows tell them."""
    prefix = f"{snapshots.account_key(tenant_id, party)}@"
    return tuple(key.removeprefix(prefix) for key, _ in store.list(KINDS[1], prefix))


def every(store: Store, tenant_id: str | None = None) -> list[AccountRow]:
    """As `find` gives them, by tenant, party and name. Raises Internal."""
    return sorted((_read(row.value, place) for place, row in rows(store, tenant_id)), key=order)


def rows(store: Store, tenant_id: str | None = None) -> Iterator[tuple[Place, Row]]:
    """Where each account lies, and its row."""
    for kind in KINDS:
        for key, row in store.list(kind, f"{tenant_id}/" if tenant_id else ""):
            yield (kind, key), row


def rows_of(store: Store, tenants: Collection[str]) -> dict[Place, Row]:
    """The same of these tenants."""
    return {(kind, key): row for kind in KINDS for key, row in snapshots.rows_of(store, kind, tenants).items()}


def sort_out(rows: Iterable[tuple[Place, Row]]) -> tuple[dict[Place, AccountRow], dict[Place, Internal]]:
    """The accounts in these rows, by tenant, party and name; and why others are none: they are damaged, or of a party
    that this version does not know. The log names those."""
    readable, damaged, known = dict[Place, AccountRow](), dict[Place, Internal](), frozenset(parties.names())
    for place, row in rows:
        try:
            account = _read(row.value, place)
            if account.party not in known:
                raise Internal(f"Account row {place[1]} in the store names a party that this version does not know.")
            readable[place] = account
        except Internal as error:
            log.failure(store=place[0], key=place[1])
            damaged[place] = error
    return dict(sorted(readable.items(), key=lambda it: order(it[1]))), damaged


def remove(store: Store, tenant_id: str, party: str, name: str = DEFAULT_ACCOUNT) -> None:
    """Also an account whose row cannot be read. Raises AccountNotFound."""
    kind, key = place_of(tenant_id, party, name)
    if not store.get(kind, key):
        raise AccountNotFound()
    store.delete(kind, key)
    if name != DEFAULT_ACCOUNT:
        _change_names(store, tenant_id, party, lambda names: (other for other in names if other != name))
    snapshots.forget_account(store, tenant_id, party, name)


def forget_tenant(store: Store, tenant_id: str) -> None:
    """Remove all accounts of a tenant, also those that cannot be read."""
    for place in [place for place, _ in rows(store, tenant_id)]:
        store.delete(*place)
    store.delete("names", *[key for key, _ in store.list("names", f"{tenant_id}/")])
    snapshots.forget_tenant(store, tenant_id)


def order(row: AccountRow) -> tuple[str, str, str]:
    return row.tenant_id, row.party, row.account


def _title(row: AccountRow) -> str:
    return f"Account {row.tenant_id} {row.party}" + ("" if row.account == DEFAULT_ACCOUNT else f" {row.account}")


# ---------------------------------------------------------------- the seal

def _sealed(sealer: Sealer, row: AccountRow, credentials: Mapping[str, str]) -> AccountRow:
    """The row with these credentials and its settings sealed."""
    plain = msgspec.json.encode(dict(credentials)) + _mark(row)
    sealed = sealer.seal(plain, _context(row))
    return msgspec.structs.replace(row, sealed=sealed, key=sealer.name, bound=True)


def _credentials(sealer: Sealer, row: AccountRow) -> dict[str, str]:
    """The row opened. Raises Internal, which names the account."""
    try:
        plain = sealer.open(row.sealed, _context(row), row.key)
    except Internal as refused:
        raise Unopened(f"{_title(row)}: {refused.text}") from None
    try:
        credentials = msgspec.json.decode(plain, type=dict[str, str])
    except ValueError:                      # an emulator of KMS opens another key's seal, and noise comes out
        raise Unopened(f"{_title(row)}: this key did not seal its credentials.") from None
    mark = plain[len(plain.rstrip(_BLANKS)):]
    unsealed = row.bound or not _settings(row).keys() <= _OF_0_1_0              # what 0.1.0 cannot have written
    if mark != (_mark(row) if mark or unsealed else b""):
        raise Internal(f"{_title(row)}: its settings in the store differ from those sealed with its credentials, so no "
                       f"call is made. {_AGAIN}")
    return credentials


def _settings(row: AccountRow) -> dict[str, Any]:
    """The fields that the seal covers and that are not at their default: a field that a later version adds changes
    nothing as long as it is not used."""
    return {name: value for name in _SEALED
            if (value := getattr(row, name)) != _DEFAULTS.get(name, msgspec.UNSET)}


def _mark(row: AccountRow) -> bytes:
    """The settings' digest in blanks."""
    digest = hashlib.sha256(msgspec.json.encode(_settings(row), order="deterministic")).digest()
    return b"".join([_IN_BLANKS[byte] for byte in digest])


def _read(value: bytes, place: Place) -> AccountRow:
    try:
        row = _decode(value)
    except ValueError:
        raise Internal(f"Account row {place[1]} in the store cannot be read. {_AGAIN}") from None
    if place_of(row.tenant_id, row.party, row.account) != place:
        raise Internal(f"Account row {place[1]} in the store names another account. {_AGAIN}")
    return row


def _context(row: AccountRow) -> dict[str, str]:
    """What the seal is bound to; of the default account, as in version 0.1.0."""
    named = {} if row.account == DEFAULT_ACCOUNT else {"account": row.account}
    return {"tenant": row.tenant_id, "party": row.party, **named, "purpose": "credentials"}


# ---------------------------------------------------------------- form

def check(tenant_id: str, party: Party, credentials: object, *, project: str | None, regions: tuple[str, ...],
          deep: bool, endpoint: str | None, local: bool, name: str = DEFAULT_ACCOUNT,
          discovery: Discovery | None = None, authorities: str = "", proxy: str | None = None,
          allow_http: bool = False) -> Account:
    """An account made of what an operator typed. Raises InvalidParameter, whose text repeats no secret.

    `authorities`: certificates in PEM, as `sockets.read_authorities` returns them.
    """
    if not re.fullmatch(IDENTIFIER, tenant_id, re.ASCII) or tenant_id == "all":
        raise InvalidParameter("tenant_id", "A tenant id must be 1-64 letters, digits, '.', '_' or '-', and not all.")
    if not re.fullmatch(IDENTIFIER, name, re.ASCII) or name == "all":
        raise InvalidParameter("--account", "A name must be 1-64 letters, digits, '.', '_' or '-', and not all.")
    _check_discovery(party, discovery)
    if project is not None and not (party.project_form and re.fullmatch(party.project_form, project, re.ASCII)):
        needs = f"needs {party.project}" if party.project else "has no projects"
        raise InvalidParameter("--project", f"{party.title} {needs}.")
    if deep and not party.deep_permissions:
        raise InvalidParameter("--deep", f"{party.title} returns every field without --deep.")
    if endpoint is not None:
        check_endpoint(endpoint, local=local, plain=allow_http)
    login: dict[str, object] = {}
    if isinstance(credentials, dict):
        credentials, login = _split(cast(dict[str, object], credentials))
    fields = _check_credentials(party, credentials)
    route = _route(authorities, proxy, login, allow_http)
    _check_addresses(party, fields, local=local, plain=allow_http)
    if "all" in regions:                    # at some parties it has the form of a region
        raise InvalidParameter("region", "No region can be called all. For every open region, name none.")
    codes = tuple(dict.fromkeys(party.region(name) for name in regions))
    if not all(map(party.expects, codes)):
        raise UnknownRegion(f"{party.title} has no region of this name. If it is new, name no region: then `all` "
                            "holds it.")
    if party.usual_region and "site" in fields and any(
            party.usual_region(fields, code) != party.usual_region(fields, "") for code in codes):
        raise InvalidParameter("--region", f"The site {fields['site']} has no such region. Put an account for each "
                                           "site.")
    return Account(tenant_id=tenant_id, party=party.name, credentials=fields, project=project, regions=codes,
                   deep=deep, endpoint=endpoint, name=name, discovery=discovery, route=route)


def _split(credentials: Mapping[str, T]) -> tuple[dict[str, T], dict[str, T]]:
    """The party's fields, and the proxy's."""
    login = {name: value for name, value in credentials.items() if name in (PROXY_USER, PROXY_PASSWORD)}
    return {name: value for name, value in credentials.items() if name not in login}, login


def _route(authorities: str, proxy: str | None, login: Mapping[str, object], plain: bool) -> Route:
    """Raises InvalidParameter."""
    user, password = login.get(PROXY_USER), login.get(PROXY_PASSWORD, "")
    if proxy is None:
        if login:
            raise InvalidParameter("credentials", f"{PROXY_USER} and {PROXY_PASSWORD} need `--proxy`.")
        return Route(authorities, None, plain)
    there = parse_proxy("--proxy", proxy)
    if there.user is not None:
        raise InvalidParameter("--proxy", "The proxy's user and password are secrets, which no argument may hold. Give "
                                          f"them as {PROXY_USER} and {PROXY_PASSWORD} among the credentials.")
    if login:
        if not isinstance(user, str) or not isinstance(password, str):
            raise InvalidParameter("credentials", f"{PROXY_USER} must be a string, and {PROXY_PASSWORD} needs it.")
        there = with_login("credentials", there, user, password)
    return Route(authorities, there, plain)


def _check_discovery(party: Party, discovery: Discovery | None) -> None:
    if discovery is None:
        return
    if not party.discover:
        raise InvalidParameter("--discover", f"{party.title} has no organisations that twocloud can discover.")
    for name, value in (("--discover-below", discovery.below), ("--discover-role", discovery.role)):
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_+=,.@:/-]{1,256}", value, re.ASCII):
            raise InvalidParameter(name, f"{name} holds a blank or another invalid character.")


def check_endpoint(endpoint: str, *, local: bool, plain: bool = False) -> None:
    """https anywhere, or http on loopback if `local`, anywhere if `plain`; scheme, host and port only. Raises
    InvalidParameter."""
    _check_url("--endpoint", endpoint, "", local=local, plain=plain)


def _check_addresses(party: Party, credentials: Mapping[str, str], *, local: bool, plain: bool) -> None:
    """The same for credentials that are addresses; these may have a path, and a host's name means https."""
    for name in credentials.keys() & party.addresses:
        url = base_url(credentials[name]) if name in party.hosts else credentials[name]
        _check_url("credentials", url, r"(/[A-Za-z0-9._~-]+)*", local=local, plain=plain)


def _check_url(parameter: str, url: str, path: str, *, local: bool, plain: bool) -> None:
    shown = "https://HOST[:PORT][/PATH]" if path else "https://HOST[:PORT]"
    try:
        there = urlsplit(url)
        host, port = there.hostname or "", there.port
    except ValueError:
        raise InvalidParameter(parameter, f"The URL must be {shown}.") from None
    formed = re.fullmatch(rf"https?://[A-Za-z0-9.:\[\]_-]+{path}/?", url, re.ASCII)
    if not formed or not host or port == 0:
        raise InvalidParameter(parameter, f"The URL must be {shown}, without user or query.")
    if there.scheme == "http" and not plain and not (local and is_loopback(host)):
        raise InvalidParameter(parameter, "The URL must be https, or http on loopback with TWOCLOUD_LOCAL=1. "
                                          "`--allow-http` permits plain http for this account.")


def _check_credentials(party: Party, credentials: object) -> Mapping[str, str]:
    forms = " or ".join(", ".join(form) for form in party.credentials)
    if not isinstance(credentials, dict):
        raise InvalidParameter("credentials", f"The credentials must be one JSON object with {forms}.")
    fields: dict[str, str] = {}
    for name, value in cast(dict[object, object], credentials).items():
        if name in party.objects:
            value = msgspec.json.encode(value).decode() if isinstance(value, dict) else None
        if not isinstance(name, str) or not isinstance(value, str) or not value or len(value) > _LONGEST_SECRET:
            raise InvalidParameter("credentials", f"Each field of the credentials must be a string that is not empty"
                                                  f"{_objects(party)}; {party.title} needs {forms}.")
        if name not in party.objects and not re.fullmatch(party.forms.get(name, r"[!-~]+"), value, re.ASCII):
            if name == "site":
                raise InvalidParameter("credentials", f"The site must be {party.forms[name].replace('|', ' or ')}.")
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
    credentials = amazon.session().get_credentials()
    if credentials is None:
        raise Internal("This service has no AWS identity to assume a role with. Give it AWS credentials.")
    frozen = credentials.get_frozen_credentials()
    return Keys(frozen.access_key or "", frozen.secret_key or "", frozen.token)
