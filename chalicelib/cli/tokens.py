"""twocloud token …"""

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


def record(token: Token) -> dict[str, Any]:
    """Null: as wide as its user."""
    def listed(names: tuple[str, ...] | None) -> list[str] | None:
        return None if names is None else list(names)

    return {"token_id": token.token_id, "user": token.user, "tenants": listed(token.tenants),
            "parties": listed(token.parties), "regions": listed(token.regions), "label": token.label,
            "created_at": when(token.created_at), "expires_at": when(token.expires_at)}


@click.group()
def token() -> None:
    """What callers show: issue, list, rotate, revoke."""


@token.command()
@click.option("--user", "name", required=True, type=UserName(), metavar="NAME",
              shell_complete=completion.users, help="Whose token it is.")
@grant_options
@click.option("--ttl", type=Duration(), default="90d", show_default=True, help="How long it lives: 90s, 10m, 12h, 90d.")
@click.option("--label", type=Label(), metavar="L", help="What it is for.")
@output_option
def issue(name: str, tenants: tuple[str, ...], party_names: tuple[str, ...], regions: tuple[str, ...], ttl: int,
          label: str | None, output: str) -> None:
    """Make a token and show it, this once. Without limits of its own it is as wide as its user."""
    if ttl < 1:
        raise click.UsageError("--ttl must be at least 1s.")
    owner = users.find(deployment().store, name)
    if not owner:
        raise NotFound(f"There is no user {name}.")
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
    """All tokens that have not ended."""
    show(output, [record(found) for found in tokens.every(deployment().store, name)])


@token.command("show")
@click.argument("token_id", metavar="ID", shell_complete=completion.token_ids)
@output_option
def show_token(token_id: str, output: str) -> None:
    """One token, by its public id."""
    found = tokens.find(deployment().store, token_id)
    if not found:
        raise NotFound("There is no token of this id.")
    show(output, record(found))


@token.command()
@click.argument("token_id", metavar="ID", shell_complete=completion.token_ids)
@click.option("--grace", type=Duration(), default="10m", show_default=True, help="How long the old one still works.")
@output_option
def rotate(token_id: str, grace: int, output: str) -> None:
    """Make a new token with the same limits and life, show it, and let the old one end."""
    rotated = tokens.rotate(deployment().store, token_id, grace, deployment().clock())
    if not rotated:
        raise NotFound("There is no token of this id.")
    text, made = rotated
    log.audit(operator(), "token rotate", old_token_id=token_id, **record(made))
    _show_once(text, made, output)


@token.command()
@click.argument("token_ids", metavar="[ID]...", nargs=-1, shell_complete=completion.token_ids)
@click.option("--user", "name", type=UserName(), metavar="NAME", help="Every token of this user.")
@click.option("--all", "all_of_them", is_flag=True, help="Every token there is.")
def revoke(token_ids: tuple[str, ...], name: str | None, all_of_them: bool) -> None:
    """End tokens now. Ends with 4 if one of them was not there; the others are ended all the same."""
    if bool(token_ids) + (name is not None) + all_of_them != 1:
        raise click.UsageError("Give ids, or --user, or --all.")
    store = deployment().store
    wanted = token_ids or [token.token_id for token in tokens.every(store, name)]
    missing = 0
    for token_id in wanted:
        if tokens.revoke(store, token_id):
            log.audit(operator(), "token revoke", token_id=token_id)
            hint(f"Token {token_id} revoked.")
        else:
            missing += bool(token_ids)      # of all, one may have ended meanwhile
    if missing:
        raise NotFound("There is no token of this id." if len(token_ids) == 1
                       else f"Of {len(token_ids)} tokens {missing} were not there.")


def _tenants(names: tuple[str, ...]) -> tuple[str, ...] | None:
    if EVERY_TENANT in names:
        return (EVERY_TENANT,)
    return tuple(dict.fromkeys(names)) or None


def _show_once(text: str, made: Token, output: str) -> None:
    if output == "json":
        show(output, {"token": text, **record(made)})
    else:
        click.echo(text)
        hint(f"Token {made.token_id} of {made.user}, until {when(made.expires_at)}. It is not shown again.")
