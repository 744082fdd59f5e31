"""The command `twocloud user …`."""

from typing import IO, Any

import click
import msgspec

from .. import log, parties
from ..access import tokens, users
from ..access.users import EVERY_TENANT, User
from ..errors import Conflict, NotFound
from . import completion
from .output import (
    Duration,
    Identifier,
    UserName,
    deployment,
    hint,
    list_options,
    operator,
    output_option,
    read_secret,
    show,
)

ALL = "*"


class PartyName(click.ParamType[str]):
    name = "party"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value != ALL and value not in parties.names():
            self.fail(f"unknown party. Parties: {', '.join(parties.names())}", param, ctx)
        return value


def grant_options(command: Any) -> Any:
    """Add --tenant, --party and --region: what a user or a token covers."""
    for option in (
        click.option("--region", "regions", multiple=True, type=Identifier(ALL), metavar="R",
                     shell_complete=completion.regions,
                     help="A region that may be queried, by any of its names; repeat it for more. Default: all."),
        click.option("--party", "party_names", multiple=True, type=PartyName(), metavar="P",
                     shell_complete=completion.parties,
                     help="A party that may be queried; repeat it for more. Default: all."),
        click.option("--tenant", "tenants", multiple=True, type=Identifier(ALL), metavar="ID",
                     shell_complete=completion.tenants,
                     help="A tenant that may be queried; repeat it for more. '*': all tenants."),
    ):
        command = option(command)
    return command


def _password_options(command: Any) -> Any:
    command = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")(command)
    return click.option("--password-file", type=click.File("rb"), metavar="F",
                        help="Read the password from a file.")(command)


def limits(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names in their stored form: `*` or none becomes (), no limit."""
    return () if ALL in names else tuple(dict.fromkeys(names))


def _tenants(names: tuple[str, ...]) -> tuple[str, ...]:
    return (EVERY_TENANT,) if ALL in names else tuple(dict.fromkeys(names))


def _password(file: IO[bytes] | None, stdin: bool) -> str | None:
    if file and stdin:
        raise click.UsageError("Give --password-file or --password-stdin, not both.")
    if not file and not stdin:
        return None
    password = read_secret(file, "the password", 1024)
    if not password:
        raise click.UsageError("The password is empty.")
    return password


def record(user: User) -> dict[str, Any]:
    return {"user": user.name, "tenants": list(user.tenants), "parties": list(user.parties),
            "regions": list(user.regions), "disabled": user.disabled, "has_password": user.password is not None}


@click.group()
def user() -> None:
    """Manage users and what their tokens may access."""


@user.command()
@click.argument("name", type=UserName())
@grant_options
@_password_options
@output_option
def add(name: str, tenants: tuple[str, ...], party_names: tuple[str, ...], regions: tuple[str, ...],
        password_file: IO[bytes] | None, password_stdin: bool, output: str) -> None:
    """Add a user. Without --tenant the user may query no tenant; without --party or --region, all of them.

    A user without a password cannot get tokens over HTTP; issue them with `twocloud token issue`.
    """
    password = _password(password_file, password_stdin)
    made = User(name=name, uid=users.new_uid(), tenants=_tenants(tenants), parties=limits(party_names),
                regions=limits(regions), password=users.hash_password(password) if password else None,
                created_at=int(deployment().clock()))
    try:
        users.add(deployment().store, made)
    except Conflict:
        raise Conflict(f"User {name} already exists. To change it: twocloud user set {name}") from None
    log.audit(operator(), "user add", **record(made))
    _done(output, f"User {name} added.", made)


@user.command("list")
@list_options
def list_users(output: str) -> None:
    """List all users."""
    show(output, [record(row) for row in users.every(deployment().store)])


@user.command("show")
@click.argument("name", type=UserName(), shell_complete=completion.users)
@output_option
def show_user(name: str, output: str) -> None:
    """Show one user."""
    show(output, record(_known(name)))


@user.command("set")
@click.argument("name", type=UserName(), shell_complete=completion.users)
@grant_options
@click.option("--no-tenants", is_flag=True, help="Remove every tenant from the user.")
@_password_options
@click.option("--grace", type=Duration(), metavar="TIME", help="How long the old password stays valid. Default: 0s.")
@output_option
def set_user(name: str, tenants: tuple[str, ...], party_names: tuple[str, ...], regions: tuple[str, ...],
             no_tenants: bool, password_file: IO[bytes] | None, password_stdin: bool, grace: int | None,
             output: str) -> None:
    """Change a user: the options given replace the old values, the rest stays.

    `--party '*'` and `--region '*'` remove a limit. A new password does not revoke the user's tokens.
    """
    if tenants and no_tenants:
        raise click.UsageError("Give --tenant or --no-tenants, not both.")
    changes: dict[str, Any] = {}
    if tenants or no_tenants:
        changes["tenants"] = _tenants(tenants)
    if party_names:
        changes["parties"] = limits(party_names)
    if regions:
        changes["regions"] = limits(regions)
    password = _password(password_file, password_stdin)
    if not changes and not password:
        raise click.UsageError("Nothing to change. Give --tenant, --party, --region or a password.")
    if grace and not password:
        raise click.UsageError("Give --grace together with a new password.")
    _change(name, "set", changes, output, password, grace or 0)


@user.command()
@click.argument("name", type=UserName(), shell_complete=completion.users)
@output_option
def disable(name: str, output: str) -> None:
    """Refuse the user and all its tokens from the next request on. To undo it: `twocloud user enable`."""
    _change(name, "disable", {"disabled": True}, output)


@user.command()
@click.argument("name", type=UserName(), shell_complete=completion.users)
@output_option
def enable(name: str, output: str) -> None:
    """Accept a disabled user and its tokens again."""
    _change(name, "enable", {"disabled": False}, output)


@user.command()
@click.argument("name", type=UserName(), shell_complete=completion.users)
def remove(name: str) -> None:
    """Remove a user and revoke all its tokens."""
    _known(name)
    users.remove(deployment().store, name)
    tokens.revoke_all(deployment().store, name)
    log.audit(operator(), "user remove", user=name)
    hint(f"User {name} removed.")


def _known(name: str) -> User:
    if not (row := users.find(deployment().store, name)):
        raise NotFound(f"No user {name}. `twocloud user list` shows them.")
    return row


def _change(name: str, what: str, changes: dict[str, Any], output: str, password: str | None = None,
            grace: int = 0) -> None:
    def how(row: User) -> User:
        row = msgspec.structs.replace(row, **changes)
        if not password:
            return row
        hashed = users.hash_password(password, row.password if grace else None)
        return users.with_password(row, hashed, deployment().clock(), grace)

    changed = users.change(deployment().store, name, how)
    if not changed:
        raise NotFound(f"No user {name}. `twocloud user list` shows them.")
    log.audit(operator(), f"user {what}", **record(changed))
    _done(output, f"User {name}: {what} done.", changed)


def _done(output: str, text: str, changed: User) -> None:
    if output == "json":
        show(output, record(changed))
    else:
        hint(text)
