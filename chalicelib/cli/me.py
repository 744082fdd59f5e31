"""The command `twocloud me`: what a token opens at a server, or everything that the store holds."""

from typing import Any

import click
import msgspec

from . import contexts
from .output import deployment, echo, output_option, show, table, waiting

_PATH = "/twocloud/me"
_COLUMNS = ("tenant_id", "party", "account", "regions", "discovered_by")


@click.command()
@click.option("--url", metavar="URL", help="Query this server with the token in TWOCLOUD_TOKEN. Default: the current "
                                           "context, or the store.")
@output_option
def me(url: str | None, output: str) -> None:
    """Show the user, and the tenants and accounts that the token opens.

    Without a server, show all tenants and accounts of the store: the command needs no token there. No cloud is
    queried, and credentials are never shown.
    """
    there = contexts.there(url)
    with waiting(lambda: "reading accounts"):
        body, written = _from_server(there) if there else _from_store()
    if output == "json":
        echo(written)
        return
    show(output, {**{name: body[name] for name in ("user", "token_id", "expires_at")}, "tenants": body["tenants"],
                  "parties": _limit(body["parties"]), "regions": _limit(body["regions"])})
    if body["accounts"]:
        click.echo()
        table([{**row, "regions": _limit(row["regions"])} for row in body["accounts"]], _COLUMNS)


def _limit(names: list[str] | None) -> list[str] | str:
    return "all" if names is None else names


def _from_server(there: contexts.There) -> tuple[dict[str, Any], bytes]:
    """(the answer, its bytes). Raises Answered, Network."""
    from ..http.openapi import MeBody
    from . import remote  # slow to import

    response = remote.get(there, _PATH)
    body = remote.read_json(there, response, _PATH)
    try:
        msgspec.convert(body, MeBody)
    except msgspec.ValidationError:
        raise remote.stranger(there, response) from None
    return body, response.body


def _from_store() -> tuple[dict[str, Any], bytes]:
    """The same for an operator, who has no token and no limits."""
    from ..fleet.lookup import Lookup
    from ..http import openapi

    entries = openapi.account_entries(Lookup(deployment()))
    body = {"code": 200, "msg": "", "user": None, "token_id": None, "expires_at": None,
            "tenants": sorted({it.tenant_id for it in entries}), "parties": None, "regions": None,
            "accounts": msgspec.to_builtins(entries)}
    return body, msgspec.json.encode(body)
