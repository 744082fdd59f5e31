"""The commands `twocloud account …` and `twocloud tenant …`."""

from contextlib import suppress
from dataclasses import replace
from typing import IO, Any

import click
import msgspec

from .. import log, parties
from ..access import accounts, tokens, users
from ..access.accounts import AccountRow
from ..access.sealing import open_sealer
from ..errors import AccountNotFound, Conflict, Internal, InvalidParameter, PartyError, UnknownRegion
from ..fleet import rotation
from ..fleet.check import check_account, check_credentials
from ..model import Account
from ..storage import snapshots
from . import completion
from .output import (
    Identifier,
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


def record(row: AccountRow) -> dict[str, Any]:
    """The account as the commands print it, without its secrets."""
    return {"tenant_id": row.tenant_id, "party": row.party, "project": row.project, "regions": list(row.regions),
            "deep": row.deep, "endpoint": row.endpoint, "created_at": when(row.created_at),
            "updated_at": when(row.updated_at), "key": row.key or None, "settings_sealed": row.bound}


_tenant_argument = click.argument("tenant_id", metavar="TENANT", type=Identifier(), shell_complete=completion.tenants)
_party_argument = click.argument("party", type=PartyName(), shell_complete=completion.parties)
_credentials_option = click.option("--credentials-file", type=click.File("rb"), metavar="F",
                                   help="Read the credentials from this file. Default: standard input.")


@click.group()
def account() -> None:
    """Manage a tenant's accounts at parties: put, check, list, rotate, remove. Secrets are never shown."""


@account.command()
@_tenant_argument
@_party_argument
@click.option("--project", metavar="ID", help="Narrow the account to this project or resource group.")
@click.option("--region", "regions", multiple=True, type=Identifier(), metavar="R", shell_complete=completion.regions,
              help="A region where this tenant has servers; repeat it for more.")
@click.option("--deep", is_flag=True, help="Make the extra calls that some parties need to fill every field.")
@click.option("--endpoint", metavar="URL", help="Send all calls for this account to https://HOST[:PORT].")
@_credentials_option
@click.option("--check", is_flag=True, help="Check the credentials with the party first; store nothing if it refuses "
                                            "them.")
@click.option("--replace", "replacing", is_flag=True,
              help="Replace an existing account. Drops its snapshots and their history.")
@output_option
def put(tenant_id: str, party: str, project: str | None, regions: tuple[str, ...], deep: bool, endpoint: str | None,
        credentials_file: IO[bytes] | None, check: bool, replacing: bool, output: str) -> None:
    """Store a tenant's account.

    Give the credentials as one JSON object, in a file or on standard input; `twocloud parties NAME` shows the fields.
    They are sealed together with the settings before they are stored. To replace an existing account, pass --replace;
    for new credentials of the same account, use `twocloud account rotate`.
    """
    here = deployment()
    if not replacing:
        _refuse_to_replace(tenant_id, party)
    made = _checked(tenant_id, party, credentials_file, project, regions, deep, endpoint)
    if check:
        check_credentials(here, made)
    row = accounts.put(here.store, here.sealer(), made, here.clock(), replace=replacing)
    log.audit(operator(), "account put", **record(row))
    if replacing:
        here.store.scrub()
    if output == "json":
        show(output, record(row))
    else:
        say(f"Account of {tenant_id} at {party} stored. Check it: twocloud account check {tenant_id} {party}")


def _refuse_to_replace(tenant_id: str, party: str) -> None:
    """Raise Conflict if the account exists; the text says what --replace would drop."""
    store = deployment().store
    with suppress(AccountNotFound):
        row = accounts.find(store, tenant_id, party)
        heads = [head for source, head in snapshots.heads(store, tenant_id)
                 if source.party == party and head.revision == row.revision]
        raise Conflict(
            f"Tenant {tenant_id} already has an account at {party}, stored {when(row.created_at)}. To replace it, pass "
            f"--replace; that drops its snapshots ({len(heads)}, with {sum(head.total for head in heads)} servers) and "
            "the history of their changes. For new credentials of the same account: "
            f"twocloud account rotate {tenant_id} {party}")


def _checked(tenant_id: str, party: str, file: IO[bytes] | None, project: str | None, regions: tuple[str, ...],
             deep: bool, endpoint: str | None) -> Account:
    try:
        given = msgspec.json.decode(read_secret(file, "the credentials as one JSON object"))
    except (msgspec.DecodeError, RecursionError):
        raise click.UsageError("The credentials are not one JSON object.") from None
    try:
        made = accounts.check(tenant_id, parties.load(party), given, project=project, regions=regions, deep=deep,
                              endpoint=endpoint, local=deployment().settings.local)
    except InvalidParameter as refused:
        raise click.UsageError(f"{refused.parameter}: {refused.text}") from None
    return replace(made, identity=accounts.own_identity)


@account.command("rotate")
@_tenant_argument
@_party_argument
@_credentials_option
@click.option("--no-check", is_flag=True, help="Store the credentials without checking them with the party.")
@click.option("--trust-settings", "trusting", is_flag=True,
              help="If the old seal cannot be opened, keep the settings that `account show` prints.")
@output_option
def rotate_account(tenant_id: str, party: str, credentials_file: IO[bytes] | None, no_check: bool, trusting: bool,
                   output: str) -> None:
    """Replace an account's credentials by others of the same account. Its settings and snapshots stay.

    The new credentials are checked with the party first; they are not stored if the party refuses them or if they
    list none of the servers in the snapshots. Wait two minutes, then delete the old credentials at the party.
    """
    row = accounts.find(deployment().store, tenant_id, party)
    accounts.verify(deployment().sealer(), row, trusting=trusting)  # before anything is sent to its endpoint
    made = replace(_checked(tenant_id, party, credentials_file, row.project, row.regions, row.deep, row.endpoint),
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
    rows = [{"tenant_id": row.tenant_id, "party": row.party, "state": "failed" if refused else "ok",
             "msg": refused.text if refused else ""} for row, _, refused in results]
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
@output_option
def show_account(tenant_id: str, party: str, output: str) -> None:
    """Show one account, without its secrets.

    Like `account list`, this does not open the seal: `account check` compares the settings with the sealed ones.
    """
    show(output, record(accounts.find(deployment().store, tenant_id, party)))


@account.command()
@_tenant_argument
@_party_argument
@click.option("--region", type=Identifier(), metavar="R", shell_complete=completion.regions,
              help="The region to call. Default: the account's first, or the party's own.")
@output_option
def check(tenant_id: str, party: str, region: str | None, output: str) -> None:
    """Make one cheap signed call and say what is wrong: wrong key, missing permission, wrong region, clock."""
    result: dict[str, Any] = {"tenant_id": tenant_id, "party": party}
    try:
        code = check_account(deployment(), tenant_id, party, region)
    except (PartyError, UnknownRegion) as failure:
        if output == "json":
            show(output, {**result, "state": "failed", "error": failure.word, "msg": failure.text})
        raise
    show(output, {**result, "region": code, "state": "ok"})


@account.command()
@_tenant_argument
@_party_argument
def remove(tenant_id: str, party: str) -> None:
    """Remove an account; its bytes are erased from the store's file too."""
    accounts.remove(deployment().store, tenant_id, party)
    log.audit(operator(), "account remove", tenant_id=tenant_id, party=party)
    deployment().store.scrub()
    hint(f"Account of {tenant_id} at {party} removed.")


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
    for row in accounts.every(store, tenant_id):
        accounts.remove(store, tenant_id, row.party)
    for name in [user.name for user in users.every(store) if tenant_id in user.tenants]:
        users.change(store, name, lambda user: msgspec.structs.replace(
            user, tenants=tuple(t for t in user.tenants if t != tenant_id)))
    tokens.forget_tenant(store, tenant_id)
    log.audit(operator(), "tenant remove", tenant_id=tenant_id)
    store.scrub()
    hint(f"Tenant {tenant_id} removed.")
