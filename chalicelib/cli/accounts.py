"""The commands `twocloud account …` and `twocloud tenant …`."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import IO, Any, TypeVar, cast

import click
import msgspec

from .. import log, parties
from ..access import accounts, tokens, users
from ..access.accounts import AccountRow
from ..access.sealing import open_sealer
from ..cloud.party import OwnFile
from ..cloud.sockets import read_authorities
from ..cloud.yaml_text import unique_keys
from ..errors import AccountNotFound, Conflict, Internal, InvalidParameter, PartyError, UnknownRegion
from ..fleet import known_members, organisations, rotation
from ..fleet.check import check_account, check_credentials, warning
from ..fleet.deployment import Deployment
from ..fleet.known_members import Members
from ..fleet.lookup import Lookup
from ..model import DEFAULT_ACCOUNT, Account, Discovery
from ..storage import snapshots
from . import completion
from .authorities import authorities_in
from .output import (
    Identifier,
    account_arguments,
    deployment,
    hint,
    list_options,
    operator,
    output_option,
    progress,
    read_secret,
    say,
    show,
    when,
)
from .users import PartyName

T = TypeVar("T")


def record(row: AccountRow) -> dict[str, Any]:
    """The account as the commands print it, without its secrets."""
    return {"tenant_id": row.tenant_id, "party": row.party, "account": row.account, "project": row.project,
            "regions": list(row.regions), "deep": row.deep, "endpoint": row.endpoint, "discover": row.discover,
            "discover_below": row.discover_below, "discover_role": row.discover_role,
            "ca_file": [it.subject for it in authorities_in(row.authorities)], "proxy": row.proxy,
            "allow_http": row.allow_http,
            "created_at": when(row.created_at), "updated_at": when(row.updated_at), "key": row.key or None,
            "settings_sealed": row.bound}


def members_of(here: Deployment, row: AccountRow) -> Members | None:
    """What the last look-up found behind the account; None if there was none."""
    place = known_members.place_of(row.tenant_id, row.party, row.account)
    return known_members.members_in(here.store.get(*place), row.revision)


def _described(row: AccountRow) -> dict[str, Any]:
    """The account with its members, if it is a door to others."""
    if not row.discover:
        return record(row)
    here = deployment()
    last = members_of(here, row)
    return {**record(row), "looked_up_at": when(int(last.at)) if last else None,
            "members": [{"account": f"{row.account}:{member.id}", "name": member.name,
                         "state": member.closed or ("missing" if member.missing else "open"),
                         "missing_since": when(int(member.missing)) if member.missing else None}
                        for member in last.members] if last else []}


_tenant_argument = click.argument("tenant_id", metavar="TENANT", type=Identifier(), shell_complete=completion.tenants)
_party_argument = click.argument("party", type=PartyName(), shell_complete=completion.parties)
_account_option = click.option("--account", "name", default=DEFAULT_ACCOUNT, show_default=True, metavar="NAME",
                               type=Identifier(), shell_complete=completion.accounts,
                               help="The account's name, if the tenant has several at the party.")
_credentials_option = click.option("--credentials-file", type=click.File("rb"), metavar="F",
                                   help="Read the credentials from this file. Default: standard input.")
_os_cloud_option = click.option("--os-cloud", metavar="NAME", help="With openstack: the credentials are a clouds.yaml; "
                                                                   "use the cloud of this name in it.")


@click.group()
def account() -> None:
    """Manage a tenant's accounts at parties: put, check, list, rotate, remove. Secrets are never shown."""


@account.command()
@_tenant_argument
@_party_argument
@_account_option
@click.option("--project", metavar="ID", help="Narrow the account to this project or resource group.")
@click.option("--region", "regions", multiple=True, type=Identifier(), metavar="R", shell_complete=completion.regions,
              help="A region where this tenant has servers; repeat it for more.")
@click.option("--deep", is_flag=True, help="Make the extra calls that some parties need to fill every field.")
@click.option("--endpoint", metavar="URL", help="Send all calls for this account to https://HOST[:PORT].")
@click.option("--ca-file", type=click.File("rb"), metavar="F",
              help="Trust the authorities in this PEM file too. Its content is stored with the account.")
@click.option("--proxy", metavar="URL", help="Send this account's calls through http://HOST:PORT. Its user and "
                                             "password are proxy_user and proxy_password among the credentials.")
@click.option("--allow-http", is_flag=True, help="Allow plain http for this account: its endpoint, its auth_url and "
                                                 "the addresses that its party names. Credentials then travel "
                                                 "unencrypted.")
@click.option("--discover", is_flag=True, help="Make every account, subscription or project behind these credentials a "
                                               "source of its own, NAME:ID.")
@click.option("--discover-below", "below", metavar="ID", help="Only those below this organisational unit, folder, "
                                                              "group or parent.")
@click.option("--discover-role", "role", metavar="NAME", help="The role that opens each of them, where the party needs "
                                                              "one.")
@_credentials_option
@_os_cloud_option
@click.option("--check", is_flag=True, help="Check the credentials with the party first; store nothing if it refuses "
                                            "them.")
@click.option("--replace", "replacing", is_flag=True,
              help="Replace an existing account. Drops its snapshots and their history.")
@output_option
def put(tenant_id: str, party: str, name: str, project: str | None, regions: tuple[str, ...], deep: bool,
        endpoint: str | None, ca_file: IO[bytes] | None, proxy: str | None, allow_http: bool, discover: bool,
        below: str | None, role: str | None, credentials_file: IO[bytes] | None, os_cloud: str | None, check: bool,
        replacing: bool, output: str) -> None:
    """Store a tenant's account.

    Give the credentials as one JSON object, in a file or on standard input; `twocloud parties NAME` shows the fields.
    openstack also accepts a clouds.yaml, whose regions count if you pass no --region. They are sealed together with
    the settings before they are stored. A tenant may have several accounts at a party: give each a name with
    --account. To replace an existing account, pass --replace; for new credentials of the same account, use
    `twocloud account rotate`.
    """
    here = deployment()
    if not discover and (below or role):
        raise click.UsageError("Use --discover-below and --discover-role only with --discover.")
    if not replacing:
        _refuse_to_replace(tenant_id, party, name)
    own_file = _given(party, credentials_file, os_cloud)
    if own_file.ca_file and ca_file is None:
        raise click.UsageError("The clouds.yaml names the file of an authority (cacert). Pass that file with "
                               "--ca-file.")
    made = _checked(tenant_id, party, name, own_file, project=project, regions=regions or own_file.regions, deep=deep,
                    endpoint=endpoint, discovery=Discovery(below, role) if discover else None,
                    authorities=_authorities(ca_file), proxy=proxy, allow_http=allow_http)
    if check:
        check_credentials(here, made)
    row = accounts.put(here.store, here.sealer(), made, here.clock(), replace=replacing)
    log.audit(operator(), "account put", **record(row))
    if replacing:
        here.store.scrub()
    if output == "json":
        show(output, record(row))
    else:
        called = "Account" if name == DEFAULT_ACCOUNT else f"Account {name}"
        say(f"{called} of {tenant_id} at {party} stored. Check it: twocloud account check "
            f"{account_arguments(tenant_id, party, name)}")


def _refuse_to_replace(tenant_id: str, party: str, name: str) -> None:
    """Raise Conflict if the account exists; the text says what --replace would drop."""
    store = deployment().store
    with suppress(AccountNotFound):
        row = accounts.find(store, tenant_id, party, name)
        heads = [head for source, head in snapshots.heads(store, tenant_id)
                 if source.party == party and head.revision == row.revision]
        called = "an account" if name == DEFAULT_ACCOUNT else f"an account {name}"
        raise Conflict(
            f"Tenant {tenant_id} already has {called} at {party}, stored {when(row.created_at)}. To replace it, pass "
            f"--replace; that drops its snapshots ({len(heads)}, with {sum(head.total for head in heads)} servers) and "
            "the history of their changes. For new credentials of the same account: "
            f"twocloud account rotate {account_arguments(tenant_id, party, name)}")


def _authorities(file: IO[bytes] | None) -> str:
    if file is None:
        return ""
    try:
        return read_authorities("--ca-file", file)
    except OSError as problem:
        raise click.UsageError(f"--ca-file: {problem.strerror}.") from None
    except InvalidParameter as refused:
        raise click.UsageError(f"{refused.parameter}: {refused.text}") from None


def _given(party: str, file: IO[bytes] | None, os_cloud: str | None) -> OwnFile:
    """The credentials, of one JSON object or of the party's own file."""
    read = parties.load(party).own_file
    if os_cloud is not None and not read:
        raise click.UsageError("--os-cloud is for openstack alone.")
    text = read_secret(file, "the credentials as one JSON object")
    document: object = None
    with suppress(ValueError, RecursionError):
        document = json.loads(text, object_pairs_hook=unique_keys(
            lambda _: click.UsageError("The credentials give a key more than once.")))
    own = read and (document is None or (isinstance(document, dict) and "clouds" in document))
    if document is None and (not read or (os_cloud is None and text.lstrip().startswith("{"))):
        raise click.UsageError("The credentials are not one JSON object.")
    if os_cloud is not None and not own:
        raise click.UsageError("--os-cloud chooses a cloud of a clouds.yaml, but the credentials are a JSON object of "
                               "one account.")
    if not own or not read:
        return OwnFile(cast(Any, document))
    own_file = _usage(lambda: read(text, os_cloud))
    for remark in own_file.remarks:
        hint(remark)
    return own_file


def _usage(check: Callable[[], T]) -> T:
    """The result; what is refused as InvalidParameter is an error of usage here."""
    try:
        return check()
    except InvalidParameter as refused:
        raise click.UsageError(f"{refused.parameter}: {refused.text}") from None


def _checked(tenant_id: str, party: str, name: str, own_file: OwnFile, **settings: Any) -> Account:
    made = _usage(lambda: accounts.check(tenant_id, parties.load(party), own_file.credentials, name=name,
                                         local=deployment().settings.local, **settings))
    return replace(made, identity=accounts.own_identity)


@account.command("rotate")
@_tenant_argument
@_party_argument
@_account_option
@_credentials_option
@_os_cloud_option
@click.option("--no-check", is_flag=True, help="Store the credentials without checking them with the party.")
@click.option("--trust-settings", "trusting", is_flag=True,
              help="If the old seal cannot be opened, keep the settings that `account show` prints.")
@output_option
def rotate_account(tenant_id: str, party: str, name: str, credentials_file: IO[bytes] | None, os_cloud: str | None,
                   no_check: bool, trusting: bool, output: str) -> None:
    """Replace an account's credentials by others of the same account. Its settings and snapshots stay.

    The new credentials are checked with the party first; they are not stored if the party refuses them or if they
    list none of the servers in the snapshots. Wait two minutes, then delete the old credentials at the party.
    """
    row = accounts.find(deployment().store, tenant_id, party, name)
    accounts.verify(deployment().sealer(), row, trusting=trusting)  # before anything is sent to its endpoint
    own_file = _given(party, credentials_file, os_cloud)
    made = replace(_checked(tenant_id, party, name, own_file, project=row.project, regions=row.regions,
                            deep=row.deep, endpoint=row.endpoint, discovery=row.discovery,
                            authorities=row.authorities, proxy=row.proxy, allow_http=row.allow_http),
                   revision=row.revision)
    if not no_check:
        rotation.check(deployment(), made)
    row = accounts.rotate(deployment().store, deployment().sealer(), made, deployment().clock(), trusting=trusting)
    log.audit(operator(), "account rotate", **record(row))
    deployment().store.scrub()
    if output == "json":
        show(output, record(row))
    else:
        hint(f"Credentials of {tenant_id} at {party} replaced.")


@account.command()
@output_option
def reseal(output: str) -> None:
    """Seal the credentials and settings of every account under TWOCLOUD_KEY.

    To change the key, set TWOCLOUD_OLD_KEY to the key you are replacing, also for every process that reads
    credentials meanwhile. Without TWOCLOUD_OLD_KEY, accounts that version 0.1.0 stored are sealed again under the
    same key, with their present settings: review `twocloud account list` first. You can run this again at any time.
    Exit code 5: an account could not be sealed.
    """
    here = deployment()
    new = open_sealer(here.settings.key)
    old = open_sealer(here.settings.old_key, make=False) if here.settings.old_key else new
    results = list(progress(rotation.reseal(here, old, new), len(accounts.every(here.store)), "reseal"))
    rows = [{"tenant_id": row.tenant_id, "party": row.party, "account": row.account,
             "state": "failed" if refused else "ok", "msg": refused.text if refused else ""}
            for row, _, refused in results]
    bad = [refused for _, _, refused in results if refused]
    log.audit(operator(), "account reseal", key=new.name, accounts=len(rows),
                  resealed=sum(done for _, done, _ in results), failed=len(bad))
    here.store.scrub()
    show(output, rows)
    say(f"{len(rows) - len(bad)} of {len(rows)} accounts are sealed under {new.name}.")
    if bad:
        raise Internal(f"{len(bad)} accounts could not be sealed; they are unchanged. The rows above say why.")


@account.command("list")
@click.argument("tenant_id", metavar="[TENANT]", type=Identifier(), required=False,
                shell_complete=completion.tenants)
@list_options
def list_accounts(tenant_id: str | None, output: str) -> None:
    """List all accounts, or one tenant's.

    This does not open the seals, so it shows what anyone with write access to the store may have changed. `account
    check` and every listing compare the settings with the sealed ones. `settings_sealed` is false for an account that
    version 0.1.0 stored.
    """
    show(output, [record(row) for row in accounts.every(deployment().store, tenant_id)])


@account.command("show")
@_tenant_argument
@_party_argument
@_account_option
@output_option
def show_account(tenant_id: str, party: str, name: str, output: str) -> None:
    """Show one account, without its secrets, and the members that were discovered behind it.

    Like `account list`, this does not open the seal: `account check` compares the settings with the sealed ones.
    """
    described = _described(accounts.find(deployment().store, tenant_id, party, name))
    members: list[dict[str, Any]] = described.pop("members", []) if output == "table" else []
    show(output, described)
    if members:
        click.echo()
        show(output, members)


@account.command()
@_tenant_argument
@_party_argument
@_account_option
@click.option("--region", type=Identifier(), metavar="R", shell_complete=completion.regions,
              help="The region to call. Default: the account's first, or the party's own.")
@output_option
def check(tenant_id: str, party: str, name: str, region: str | None, output: str) -> None:
    """Make one cheap signed call and say what is wrong: wrong key, missing permission, wrong region, clock.

    An account with --discover also looks up its members. `warning` says what the party hides from these credentials,
    where that is known.
    """
    result: dict[str, Any] = {"tenant_id": tenant_id, "party": party, "account": name}
    here = deployment()
    try:
        code = check_account(here, tenant_id, party, region, name=name)
        row = accounts.find(here.store, tenant_id, party, name)
        warned = warning(here, tenant_id, party, code, name)
        if row.discover:
            result["members"] = len(organisations.look_up(Lookup(here), row, now=True).open())
    except (PartyError, UnknownRegion) as failure:
        if output == "json":
            show(output, {**result, "state": "failed", "error": failure.code, "msg": failure.text})
        raise
    show(output, {**result, "region": code, "state": "ok", **({"warning": warned} if warned else {})})


@account.command()
@_tenant_argument
@_party_argument
@_account_option
def remove(tenant_id: str, party: str, name: str) -> None:
    """Remove an account; its bytes are erased from the store's file too."""
    accounts.remove(deployment().store, tenant_id, party, name)
    log.audit(operator(), "account remove", tenant_id=tenant_id, party=party, account=name)
    deployment().store.scrub()
    hint(f"{'Account' if name == DEFAULT_ACCOUNT else f'Account {name}'} of {tenant_id} at {party} removed.")


@click.group()
def tenant() -> None:
    """Remove a tenant and all that belongs to it."""


@tenant.command("remove")
@_tenant_argument
def remove_tenant(tenant_id: str) -> None:
    """Remove a tenant's accounts, and the tenant from every user and token.

    Tokens for this tenant alone are revoked. All bytes of it are erased from the store's file too.
    """
    store = deployment().store
    accounts.forget_tenant(store, tenant_id)
    for name in [user.name for user in users.every(store) if tenant_id in user.tenants]:
        users.change(store, name, lambda user: msgspec.structs.replace(
            user, tenants=tuple(t for t in user.tenants if t != tenant_id)))
    tokens.forget_tenant(store, tenant_id)
    log.audit(operator(), "tenant remove", tenant_id=tenant_id)
    store.scrub()
    hint(f"Tenant {tenant_id} removed.")
