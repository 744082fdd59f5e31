"""The command `twocloud token …`."""

from typing import Any

import click

from .. import log
from ..access import tokens, users
from ..access.tokens import Limits, Token
from ..access.users import EVERY_TENANT
from ..errors import Forbidden, NotFound
from . import completion
from .output import Duration, Label, UserName, deployment, hint, list_options, operator, output_option, show, when
from .users import grant_options, limits

_NO_TOKEN = "No token with this id. `twocloud token list` shows their ids."


def record(token: Token) -> dict[str, Any]:
    """The token as the commands print it. Null: no limit of its own, so its user's."""
    def listed(names: tuple[str, ...] | None) -> list[str] | None:
        return None if names is None else list(names)

    return {"token_id": token.token_id, "user": token.user, "tenants": listed(token.tenants),
            "parties": listed(token.parties), "regions": listed(token.regions), "label": token.label,
            "created_at": when(token.created_at), "expires_at": when(token.expires_at)}


@click.group()
def token() -> None:
    """Manage the tokens that callers send: issue, list, rotate, revoke."""


@token.command()
@click.option("--user", "name", required=True, type=UserName(), metavar="NAME",
              shell_complete=completion.users, help="The user the token belongs to.")
@grant_options
@click.option("--ttl", type=Duration(), default="90d", show_default=True, help="How long it is valid: 90s, 10m, 12h, "
                                                                               "90d.")
@click.option("--label", type=Label(), metavar="L", help="A note on what it is for.")
@output_option
def issue(name: str, tenants: tuple[str, ...], party_names: tuple[str, ...], regions: tuple[str, ...], ttl: int,
          label: str | None, output: str) -> None:
    """Issue a token and print it. It is never shown again. Without limits of its own it has its user's."""
    if ttl < 1:
        raise click.UsageError("--ttl must be at least 1s.")
    owner = users.find(deployment().store, name)
    if not owner:
        raise NotFound(f"No user {name}. `twocloud user list` shows them.")
    narrowed = Limits(_tenants(tenants), limits(party_names) or None, limits(regions) or None)
    try:
        text, made = tokens.issue(deployment().store, owner, narrowed, ttl, deployment().clock(), label or "")
    except Forbidden as wider:
        raise click.UsageError(wider.text) from None
    log.audit(operator(), "token issue", **record(made))
    _show_once(text, made, output)


@token.command("list")
@click.option("--user", "name", type=UserName(), metavar="NAME",
              shell_complete=completion.users, help="Only this user's.")
@list_options
def list_tokens(name: str | None, output: str) -> None:
    """List all tokens that are still valid."""
    show(output, [record(row) for row in tokens.every(deployment().store, name)])


@token.command("show")
@click.argument("token_id", metavar="ID", shell_complete=completion.token_ids)
@output_option
def show_token(token_id: str, output: str) -> None:
    """Show one token, by its public id."""
    row = tokens.find(deployment().store, token_id)
    if not row:
        raise NotFound(_NO_TOKEN)
    show(output, record(row))


@token.command()
@click.argument("token_id", metavar="ID", shell_complete=completion.token_ids)
@click.option("--grace", type=Duration(), default="10m", show_default=True, help="How long the old token stays valid.")
@output_option
def rotate(token_id: str, grace: int, output: str) -> None:
    """Issue a new token with the same limits and lifetime, print it, and let the old one expire."""
    rotated = tokens.rotate(deployment().store, token_id, grace, deployment().clock())
    if not rotated:
        raise NotFound(_NO_TOKEN)
    text, made = rotated
    log.audit(operator(), "token rotate", old_token_id=token_id, **record(made))
    _show_once(text, made, output)


@token.command()
@click.argument("token_ids", metavar="[ID]...", nargs=-1, shell_complete=completion.token_ids)
@click.option("--user", "name", type=UserName(), metavar="NAME", help="Revoke every token of this user.")
@click.option("--all", "all_of_them", is_flag=True, help="Revoke every token there is.")
def revoke(token_ids: tuple[str, ...], name: str | None, all_of_them: bool) -> None:
    """Revoke tokens at once. Exit code 4: one of them does not exist; the others are revoked all the same."""
    if bool(token_ids) + (name is not None) + all_of_them != 1:
        raise click.UsageError("Give token ids, or --user, or --all.")
    store = deployment().store
    wanted = token_ids or [token.token_id for token in tokens.every(store, name)]
    missing = 0
    for token_id in wanted:
        if tokens.revoke(store, token_id):
            log.audit(operator(), "token revoke", token_id=token_id)
            hint(f"Token {token_id} revoked.")
        else:
            missing += bool(token_ids)      # with --user or --all, one may have expired meanwhile
    if missing:
        raise NotFound(_NO_TOKEN if len(token_ids) == 1
                       else f"{missing} of {len(token_ids)} tokens do not exist. `twocloud token list` shows their "
                            "ids.")


def _tenants(names: tuple[str, ...]) -> tuple[str, ...] | None:
    if EVERY_TENANT in names:
        return (EVERY_TENANT,)
    return tuple(dict.fromkeys(names)) or None


def _show_once(text: str, made: Token, output: str) -> None:
    if output == "json":
        show(output, {"token": text, **record(made)})
    else:
        click.echo(text)
        hint(f"Token {made.token_id} of {made.user}, valid until {when(made.expires_at)}. It is not shown again.")
