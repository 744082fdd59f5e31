"""Tenants' accounts and users as a file declares them: what differs from the store, and the steps that make it so.

The file holds no secret: it names the files and the variables that hold them. What a declaration made carries its name
(`declared_by`), and nothing else is ever removed for it.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from .. import parties
from ..cloud import yaml_text
from ..cloud.sockets import read_authorities
from ..errors import AccountNotFound, InvalidParameter
from ..model import DEFAULT_ACCOUNT, IDENTIFIER, USER_FORM, Account, Discovery
from ..storage.store import Store
from . import accounts, tokens, users
from .accounts import AccountRow
from .sealing import Sealer
from .users import EVERY_TENANT, User

_LARGEST = 1_048_576                        # bytes of the file, and of each that it names
_Name = Annotated[str, msgspec.Meta(pattern=rf"^(?:{IDENTIFIER})$")]
_NameOrAll = Annotated[str, msgspec.Meta(pattern=rf"^(?!all$)(?:{IDENTIFIER}|\*)$")]
_UserName = Annotated[str, msgspec.Meta(pattern=rf"^(?:{USER_FORM.pattern})$")]
_ANYTHING = "*"


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a secret is. Exactly one of the two."""

    file: Annotated[str, msgspec.Meta(description="A path; a relative one begins at the declaration's folder.")] = ""
    env: Annotated[str, msgspec.Meta(description="The name of a variable of the environment.")] = ""


class Discover(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """As --discover: every account, subscription or project behind the credentials."""

    below: Annotated[str | None, msgspec.Meta(description="As --discover-below.")] = None
    role: Annotated[str | None, msgspec.Meta(description="As --discover-role.")] = None


class DeclaredAccount(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An account at a party, with the settings of `twocloud account put`."""

    party: Annotated[str, msgspec.Meta(description="The party, such as qcloud.")]
    account: Annotated[_Name, msgspec.Meta(description="The account's name.")] = DEFAULT_ACCOUNT
    credentials: Annotated[Secret | None, msgspec.Meta(
        description="What holds all credentials as one JSON object.")] = None
    fields: Annotated[dict[str, Secret], msgspec.Meta(description="Or what holds each field of the credentials.")] = {}
    regions: tuple[str, ...] = ()
    project: str | None = None
    deep: bool = False
    endpoint: str | None = None
    ca_file: Annotated[str | None, msgspec.Meta(description="A PEM file, as --ca-file.")] = None
    proxy: str | None = None
    allow_http: bool = False
    discover: Discover | None = None


class DeclaredUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A user. No tenant is none; no party or region is all of them; '*' is all tenants."""

    tenants: tuple[_NameOrAll, ...] = ()
    parties: tuple[str, ...] = ()
    regions: tuple[_NameOrAll, ...] = ()
    disabled: bool = False
    password: Annotated[Secret | None, msgspec.Meta(description="Without it the password stays as it is.")] = None


class Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one team keeps in one file."""

    name: Annotated[_Name, msgspec.Meta(description="The declaration's name. What it makes carries it.")]
    tenants: Annotated[dict[_Name, tuple[DeclaredAccount, ...]],
                       msgspec.Meta(description="The accounts of each tenant, by the tenant's id.")] = {}
    users: Annotated[dict[_UserName, DeclaredUser], msgspec.Meta(description="The users, by their names.")] = {}


class Step(msgspec.Struct, frozen=True):
    """`action`: create, change, replace (an account: its snapshots and their history go), remove, or none.
    `fields`: what differs, by name, without a value. `prunes`: only where removals are wanted."""

    kind: str
    name: str
    action: str
    fields: tuple[str, ...] = ()
    run: Callable[[], object] = lambda: None

    @property
    def prunes(self) -> bool:
        return self.action == "remove"


class Place(msgspec.Struct, frozen=True):
    """Where it is read and applied. `variable`: the value of a variable, "" if it is not set. `folder`: at which
    relative paths begin. `local`: as for accounts."""

    store: Store
    sealer: Callable[[], Sealer]
    clock: Callable[[], float]
    variable: Callable[[str], str]
    folder: Path
    local: bool


def schema() -> bytes:
    """JSON Schema (2020-12) of the file."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A declaration of twocloud apply",
                **msgspec.json.schema(Declaration)}
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def read(text: str) -> Declaration:
    """Raises InvalidParameter, which names the place in the file and repeats no value."""
    try:
        return msgspec.convert(yaml_text.parse(text), Declaration, strict=False)
    except ModuleNotFoundError as problem:
        raise InvalidParameter("declaration", f"The file is no JSON. {problem}") from None
    except yaml_text.NoYaml as problem:
        raise InvalidParameter("declaration", f"The file is no YAML{problem}.") from None
    except msgspec.ValidationError as problem:
        raise InvalidParameter("declaration", f"{problem}.") from None


def fingerprint(text: str, folder: Path) -> str:
    """Of the declaration and of every file that it names. It changes when any of them does, also where a mounted secret
    is swapped by its symbolic link; one that cannot be read counts as one that is not there."""
    digest = hashlib.sha256(text.encode())
    with suppress(InvalidParameter):
        for path in sorted(_files(read(text))):
            content = b""
            with suppress(OSError), (folder / path).open("rb") as file:
                content = b"+" + file.read(_LARGEST + 1)
            digest.update(f"\0{path}\0{hashlib.sha256(content).hexdigest()}".encode())
    return digest.hexdigest()


def _files(declaration: Declaration) -> set[str]:
    entries = [it for declared in declaration.tenants.values() for it in declared]
    secrets = [*(it.credentials for it in entries), *(one for it in entries for one in it.fields.values()),
               *(user.password for user in declaration.users.values())]
    return {*(it.file for it in secrets if it and it.file), *(it.ca_file for it in entries if it.ca_file)}


def plan(declaration: Declaration, place: Place) -> list[Step]:
    """A step for each account and user that is declared, and a removal of each that this declaration made and that it
    declares no more. Nothing is changed. Raises InvalidParameter with a line for each thing that is wrong."""
    problems, steps = list[str](), list[Step]()
    kept = set[tuple[str, str, str]]()
    for tenant_id, declared in declaration.tenants.items():
        for entry in declared:
            name = _account_name(tenant_id, entry.party, entry.account)
            if (tenant_id, entry.party, entry.account) in kept:
                problems.append(f"{name}: declared twice.")
                continue
            kept.add((tenant_id, entry.party, entry.account))
            try:
                steps.append(_account_step(_account(tenant_id, entry, place), name, declaration.name, place))
            except InvalidParameter as problem:
                problems.append(f"{name}: {problem.parameter}: {problem.text}")
    for name, user in declaration.users.items():
        try:
            steps.append(_user_step(name, user, declaration.name, place))
        except InvalidParameter as problem:
            problems.append(f"user {name}: {problem.parameter}: {problem.text}")
    if problems:
        raise InvalidParameter("declaration", "\n".join(problems))
    return [*steps, *_removals(declaration, kept, place)]


# ---------------------------------------------------------------- accounts

def _account_name(tenant_id: str, party: str, account: str) -> str:
    return f"{tenant_id} {party}" + ("" if account == DEFAULT_ACCOUNT else f" {account}")


def _account(tenant_id: str, entry: DeclaredAccount, place: Place) -> Account:
    if entry.party not in parties.names():
        raise InvalidParameter("party", f"There is no such party. Parties: {', '.join(parties.names())}")
    authorities = ""
    if entry.ca_file is not None:
        try:
            with (place.folder / entry.ca_file).open("rb") as file:
                authorities = read_authorities("ca_file", file)
        except OSError as problem:
            raise InvalidParameter("ca_file", f"{problem.strerror}.") from None
    made = accounts.check(
        tenant_id, parties.load(entry.party), _credentials(entry, place), project=entry.project, regions=entry.regions,
        deep=entry.deep, endpoint=entry.endpoint, local=place.local, name=entry.account,
        discovery=Discovery(entry.discover.below, entry.discover.role) if entry.discover else None,
        authorities=authorities, proxy=entry.proxy, allow_http=entry.allow_http)
    return replace(made, identity=accounts.own_identity)


def _credentials(entry: DeclaredAccount, place: Place) -> object:
    if (entry.credentials is None) == (not entry.fields):
        raise InvalidParameter("credentials", "Give either credentials or fields.")
    if entry.credentials is None:
        return {name: _text(f"fields.{name}", secret, place) for name, secret in entry.fields.items()}
    try:
        return msgspec.json.decode(_text("credentials", entry.credentials, place))
    except (ValueError, RecursionError):
        raise InvalidParameter("credentials", "What it names does not hold one JSON object.") from None


def _text(parameter: str, secret: Secret, place: Place) -> str:
    """What the file or the variable holds; one line break at the end is dropped."""
    if bool(secret.file) == bool(secret.env):
        raise InvalidParameter(parameter, "Give either file or env.")
    if secret.env:
        text = place.variable(secret.env)
        if not text:
            raise InvalidParameter(parameter, f"The variable {secret.env} is not set.")
        return text
    try:
        with (place.folder / secret.file).open("rb") as file:
            raw = file.read(_LARGEST + 1)
        text = raw.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except OSError as problem:
        raise InvalidParameter(parameter, f"{secret.file}: {problem.strerror}.") from None
    except UnicodeDecodeError:
        raise InvalidParameter(parameter, f"{secret.file} is no UTF-8 text.") from None
    if not text or len(raw) > _LARGEST:
        raise InvalidParameter(parameter, f"{secret.file} is {'too long' if text else 'empty'}.")
    return text


def _account_step(made: Account, name: str, owner: str, place: Place) -> Step:
    store = place.store
    try:
        row = accounts.find(store, made.tenant_id, made.party, made.name)
    except AccountNotFound:
        return Step("account", name, "create", run=lambda: accounts.put(store, place.sealer(), made, place.clock(),
                                                                        declared_by=owner))
    there = accounts.opened(row, place.sealer, local=place.local)
    before, after = _settings(there), _settings(made)
    fields = tuple(key for key in before if before[key] != after[key])
    if fields:
        return Step("account", name, "replace", fields, lambda: accounts.put(
            store, place.sealer(), made, place.clock(), replace=True, declared_by=row.declared_by))
    if there.secrets != made.secrets:
        renewed = replace(made, revision=row.revision)
        return Step("account", name, "change", ("credentials",),
                    lambda: accounts.rotate(store, place.sealer(), renewed, place.clock()))
    return Step("account", name, "none")


def _settings(account: Account) -> Mapping[str, Any]:
    """By the names that the file has for them."""
    proxy = account.route.proxy
    return {"regions": account.regions, "project": account.project, "deep": account.deep, "endpoint": account.endpoint,
            "discover": account.discovery, "ca_file": account.route.authorities, "proxy": proxy.url if proxy else None,
            "allow_http": account.route.plain}


# ---------------------------------------------------------------- users

def _user_step(name: str, declared: DeclaredUser, owner: str, place: Place) -> Step:
    for party in declared.parties:
        if party not in (*parties.names(), _ANYTHING):
            raise InvalidParameter("parties", f"There is no party {party[:40]!r}.")
    password = _text("password", declared.password, place) if declared.password else None
    wanted: dict[str, Any] = {
        "tenants": (EVERY_TENANT,) if _ANYTHING in declared.tenants else declared.tenants,
        "parties": () if _ANYTHING in declared.parties else declared.parties,
        "regions": () if _ANYTHING in declared.regions else declared.regions, "disabled": declared.disabled}
    now, store = int(place.clock()), place.store
    there = users.find(store, name)
    if there is None:
        made = User(name=name, uid=users.new_uid(), created_at=now, declared_by=owner,
                    password=users.hash_password(password) if password else None, **wanted)
        return Step("user", name, "create", run=lambda: users.add(store, made))
    fields = [key for key, value in wanted.items() if getattr(there, key) != value]
    if password and not users.has_password(there, password):
        fields.append("password")

    def change(user: User) -> User:
        user = msgspec.structs.replace(user, **wanted)
        if "password" not in fields or password is None:
            return user
        return users.with_password(user, users.hash_password(password), now)

    return Step("user", name, "change" if fields else "none", tuple(fields),
                (lambda: users.change(store, name, change)) if fields else lambda: None)


# ---------------------------------------------------------------- what is declared no more

def _removals(declaration: Declaration, kept: set[tuple[str, str, str]], place: Place) -> Iterator[Step]:
    store = place.store

    def forget(name: str) -> None:
        users.remove(store, name)
        tokens.revoke_all(store, name)

    def drop(row: AccountRow) -> None:
        with suppress(AccountNotFound):
            if accounts.find(store, row.tenant_id, row.party, row.account).revision == row.revision:
                accounts.remove(store, row.tenant_id, row.party, row.account)

    for row in accounts.every(store):
        if row.declared_by == declaration.name and (row.tenant_id, row.party, row.account) not in kept:
            yield Step("account", _account_name(row.tenant_id, row.party, row.account), "remove",
                       run=lambda row=row: drop(row))
    for user in users.every(store):
        if user.declared_by == declaration.name and user.name not in declaration.users:
            yield Step("user", user.name, "remove", run=lambda name=user.name: forget(name))
